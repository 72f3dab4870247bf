//! The tree's digest: one number that all members which applied the same txns agree on.
//!
//! It is the wrapping sum, over all znodes but those below `/zookeeper`, of
//!
//! ```text
//! CRC-32( path (root: nothing) ‖ data ‖ czxid mzxid pzxid ctime mtime version cversion aversion owner )
//! ```
//!
//! so that a change of one znode changes the sum by that znode's old and new share alone. ACLs and the
//! lists of children are not covered.
//!
//! Sources: `DigestCalculator.java`, `AdHash.java` of Apache ZooKeeper, digest version 2.

use crate::znode::StatPersisted;

/// The share of one znode.
pub(super) fn of_node(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
    if path.starts_with(LOCAL_PREFIX) {
        return 0;
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(if path == "/" { b"" } else { path.as_bytes() });
    crc.update(data.unwrap_or_default());
    crc.update(&stat_bytes(stat));
    crc.finalize()
}

fn stat_bytes(stat: &StatPersisted) -> [u8; StatPersisted::ENCODED_BYTES] {
    let longs = [stat.czxid.raw(), stat.mzxid.raw(), stat.pzxid.raw(), stat.ctime_ms, stat.mtime_ms];
    let ints = [stat.version, stat.cversion, stat.aversion];
    let mut bytes = [0; StatPersisted::ENCODED_BYTES];
    let (five_longs, rest) = bytes.split_at_mut(40);
    let (three_ints, owner) = rest.split_at_mut(12);
    for (slot, long) in five_longs.chunks_exact_mut(8).zip(longs) {
        slot.copy_from_slice(&long.to_be_bytes());
    }
    for (slot, int) in three_ints.chunks_exact_mut(4).zip(ints) {
        slot.copy_from_slice(&int.to_be_bytes());
    }
    owner.copy_from_slice(&stat.owner.raw().to_be_bytes());
    bytes
}

/// What lies below may differ between members for a moment: quota counters, the configuration.
const LOCAL_PREFIX: &str = "/zookeeper/";

#[cfg(test)]
mod tests {
    use crate::tree::Tree;
    use crate::tree::workload::{create, set_data, tree_of, txn};
    use crate::znode::{StatPersisted, ZnodePath};

    #[test]
    fn the_empty_tree_has_apaches_digest() {
        assert_eq!(Tree::new().digest(), 0x51c6_d660);
    }

    #[test]
    fn null_and_empty_data_have_the_same_share() {
        let stat = StatPersisted::default();
        assert_eq!(super::of_node("/a", None, &stat), super::of_node("/a", Some(&[]), &stat));
    }

    #[test]
    fn what_is_below_zookeeper_does_not_count_but_zookeeper_does() {
        let mut tree = Tree::new();
        let before = tree.digest();
        tree.apply(&txn(1, set_data("/zookeeper/config", "x", 1)));
        assert_eq!(tree.digest(), before);
        tree.apply(&txn(2, set_data("/zookeeper", "x", 1)));
        assert_ne!(tree.digest(), before);
    }

    #[test]
    fn a_deleted_znode_leaves_no_trace_but_its_parents_pzxid() {
        let mut tree = tree_of([create("/a", 1)]);
        let with_a =
            super::of_node("/a", tree.node("/a").unwrap().data(), tree.node("/a").unwrap().persisted());
        let before = tree.digest();
        let pzxid = tree.node("/").unwrap().persisted().pzxid.raw();
        let path = ZnodePath::parse("/a").unwrap();
        tree.apply(&txn(pzxid, crate::tree::TxnOp::Delete { path }));
        assert_eq!(tree.digest(), before.wrapping_sub(with_a.into()));
    }
}
