//! Histories for the tests of storage.

use super::sim_disk::SimDisk;
use super::{Recovered, Storage, StorageError, StorageSettings};
use crate::id::{Epoch, SessionId, Xid, Zxid};
use crate::tree::{Tree, Txn, TxnHeader, TxnOp};
use crate::zab::Entry;

pub(super) const fn zxid(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// A session's creation; its id is the zxid, so that the tree tells which txns were applied.
pub(super) fn entry(zxid: Zxid) -> Entry {
    let header = TxnHeader { session: SessionId(zxid.raw()), cxid: Xid(0), zxid, time_ms: 1_700_000_000_000 };
    let op = TxnOp::CreateSession { timeout_ms: 10_000 };
    Entry { zxid, payload: Txn { header, op, digest: None }.encode() }
}

/// The tree after these txns, as of the last.
pub(super) fn tree_of(zxids: impl IntoIterator<Item = Zxid>) -> Tree {
    let mut tree = Tree::new();
    for zxid in zxids {
        tree.apply(&Txn::decode(&entry(zxid).payload).unwrap());
    }
    tree
}

/// What stands in a snapshot between header and seal.
pub(super) fn body_of(tree: &Tree) -> Vec<u8> {
    let mut body = Vec::new();
    let mut cursor = tree.begin_snapshot(&mut body);
    while !tree.continue_snapshot(&mut cursor, 2, &mut body) {}
    body
}

pub(super) fn open(disk: &SimDisk) -> Result<(Storage<SimDisk>, Recovered), StorageError> {
    // The simulated disk has no sparse files.
    Storage::open_with(disk.clone(), StorageSettings { preallocate_bytes: 8_192 })
}

/// Appends and syncs entries of one epoch.
pub(super) fn append(storage: &mut Storage<SimDisk>, epoch: u32, counters: std::ops::RangeInclusive<u32>) {
    counters.for_each(|counter| storage.append(&entry(zxid(epoch, counter))).unwrap());
    storage.sync().unwrap();
}

/// Rolls the log and takes a snapshot that holds parts of txns up to `fuzzy_to`.
pub(super) fn snapshot(storage: &mut Storage<SimDisk>, at: Zxid, tree: &Tree, fuzzy_to: Zxid) {
    storage.roll().unwrap();
    storage.begin_snapshot(at).unwrap();
    storage.write_snapshot(&body_of(tree)).unwrap();
    storage.finish_snapshot((fuzzy_to, tree.digest())).unwrap();
}

/// What a start finds after a power failure: the zxids of the whole history, as the sessions tell.
pub(super) fn found_after_power_failure(disk: &SimDisk) -> Vec<Zxid> {
    let recovered = open(&disk.power_on()).unwrap().1;
    let tree = recovered.into_whole_tree();
    tree.sessions().iter().map(|(session, _)| Zxid::from_raw(session.0)).collect()
}

/// The zxids of an epoch.
pub(super) fn zxids(epoch: u32, counters: std::ops::RangeInclusive<u32>) -> Vec<Zxid> {
    counters.map(|counter| zxid(epoch, counter)).collect()
}
