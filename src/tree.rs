//! The replicated state: znodes, sessions and the txns that change them.
//!
//! ```text
//! Txn ──► Tree::apply ──► Applied { result for the client, changes for the watches }
//!            │
//!            ├──► Tree::node, sessions, ephemerals, digest      reads
//!            └──► begin_snapshot, continue_snapshot             a few znodes at a time, between txns
//! snapshot ──► Tree::decode_snapshot ──► apply the txns since ──► the same tree
//! ```
//!
//! Two trees to which the same txns were applied are equal; so are a tree and one loaded from its
//! snapshot to which the txns since that snapshot's beginning were applied. Permissions, versions and
//! limits are checked when a txn is prepared, not here. There is no clock, no file and no quorum here.
//!
//! Sources: `DataTree.java`, `DataNode.java` of Apache ZooKeeper.

mod acl;
mod apply;
mod digest;
mod node;
mod session;
mod snapshot;
mod snapshot_scanner;
mod txn;
#[cfg(test)]
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use acl::{AclId, AclTable};
use node::{Arena, Node, NodeId};

use crate::id::{SessionId, Zxid};
use crate::znode::{Acl, Permissions, StatPersisted, ZnodePath};

pub use apply::{Applied, Change, TxnResult};
pub use node::NodeRef;
pub use session::SessionTable;
pub use snapshot::{SnapshotCursor, SnapshotError};
pub use snapshot_scanner::{ScanError, SnapshotScanner};
pub use txn::{CreateTxn, Txn, TxnHeader, TxnOp};

/// All znodes and sessions as of one zxid.
#[derive(Clone, Debug)]
pub struct Tree {
    last_zxid: Zxid,
    arena: Arena,
    acls: AclTable,
    sessions: SessionTable,
    ephemerals: BTreeMap<SessionId, BTreeSet<ZnodePath>>,
    /// The sum of all znodes' shares.
    digest: u64,
    /// The newest znode that the snapshot held which this tree was loaded from.
    newest_loaded: Zxid,
}

impl Tree {
    /// The tree of an ensemble that has seen no txn.
    pub fn new() -> Self {
        let mut tree = Self::with_root(Some(&[]), StatPersisted::default(), AclTable::new(Acl::open()));
        let config_acl = tree.acls.acquire(&[Acl::anyone(Permissions::READ)]);
        let config_stat = StatPersisted { aversion: -1, ..StatPersisted::default() };
        for (path, acl, stat) in [
            ("/zookeeper", AclId::OPEN, StatPersisted::default()),
            ("/zookeeper/config", config_acl, config_stat),
            ("/zookeeper/quota", AclId::OPEN, StatPersisted::default()),
        ] {
            let path = ZnodePath::parse(path).expect("follows the rules");
            let parent = path.parent().and_then(|parent| tree.arena.find(parent.as_str()));
            tree.add_node(parent.expect("listed before"), &path, Some(&[]), stat, acl);
        }
        tree
    }

    /// The last txn applied.
    pub const fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// Moves on without a txn, as at the beginning of an epoch.
    pub const fn set_last_zxid(&mut self, zxid: Zxid) {
        self.last_zxid = zxid;
    }

    /// The znode at `path`, which may be any text: what is no path is nowhere.
    pub fn node(&self, path: &str) -> Option<NodeRef<'_>> {
        self.arena.find(path).map(|id| self.node_ref(id))
    }

    /// Every znode with its path, a parent before its children, siblings by name.
    pub fn nodes(&self) -> impl Iterator<Item = (String, NodeRef<'_>)> {
        let mut walk = self.arena.walk();
        std::iter::from_fn(move || {
            let node = walk.next()?;
            let path = if walk.path().is_empty() { "/" } else { walk.path() };
            Some((path.to_owned(), NodeRef::new(node, &self.acls)))
        })
    }

    /// The number of znodes, the root and those below `/zookeeper` included.
    pub fn node_count(&self) -> usize {
        self.arena.len()
    }

    /// The sessions that the ensemble knows.
    pub const fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// The ephemerals of a session, by path.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = &ZnodePath> {
        self.ephemerals.get(&session).into_iter().flatten()
    }

    /// The sessions that own ephemerals. All are known ones, but for a snapshot's that was written while txns went on.
    pub fn ephemeral_owners(&self) -> impl Iterator<Item = SessionId> {
        self.ephemerals.keys().copied()
    }

    /// The digest of all znodes; the same on every member that applied the same txns.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Verifies what all of the tree relies on, at the cost of a walk over it; for tests.
    ///
    /// # Panics
    ///
    /// When something does not hold.
    pub fn check_invariants(&self) {
        let mut znodes = 0;
        let mut digest = 0_u64;
        let mut acl_users: BTreeMap<_, _> = self.acls.users().into_keys().map(|id| (id, 0)).collect();
        let mut ephemerals: BTreeMap<SessionId, BTreeSet<ZnodePath>> = BTreeMap::new();
        let mut walk = self.arena.walk();
        while let Some(node) = walk.next() {
            znodes += 1;
            let path = if walk.path().is_empty() { "/" } else { walk.path() };
            let path = ZnodePath::parse(path).expect("only paths are in the tree");
            let share = digest::of_node(path.as_str(), node.data.as_deref(), &node.stat);
            assert_eq!(node.digest, share, "{path} has its share of the digest");
            digest = digest.wrapping_add(share.into());
            if node.acl != AclId::OPEN {
                *acl_users.get_mut(&node.acl).expect("the ACL is in the table") += 1;
            }
            if let Some(session) = node.stat.owner.session() {
                ephemerals.entry(session).or_default().insert(path);
            }
        }
        assert_eq!(self.arena.len(), znodes, "every znode hangs on one parent");
        assert_eq!(self.digest, digest, "the digest is the sum of the shares");
        assert_eq!(self.ephemerals, ephemerals, "ephemerals are listed by session");
        assert_eq!(self.acls.users(), acl_users, "users of ACLs are counted");
        assert!(acl_users.values().all(|users| *users > 0), "ACLs without users are forgotten");
        self.acls.check_invariants();
    }

    fn with_root(data: Option<&[u8]>, stat: StatPersisted, acls: AclTable) -> Self {
        let root = Node {
            data: data.map(Into::into),
            children: BTreeMap::new(),
            stat,
            acl: AclId::OPEN,
            digest: digest::of_node("/", data, &stat),
        };
        Self {
            last_zxid: Zxid::ZERO,
            digest: root.digest.into(),
            arena: Arena::new(root),
            acls,
            sessions: SessionTable::default(),
            ephemerals: BTreeMap::new(),
            newest_loaded: Zxid::ZERO,
        }
    }

    fn node_ref(&self, id: NodeId) -> NodeRef<'_> {
        NodeRef::new(self.arena.get(id), &self.acls)
    }

    /// Adds a znode that is not there yet; `acl` counts it as a user already.
    fn add_node(
        &mut self,
        parent: NodeId,
        path: &ZnodePath,
        data: Option<&[u8]>,
        stat: StatPersisted,
        acl: AclId,
    ) -> NodeId {
        let digest = digest::of_node(path.as_str(), data, &stat);
        self.digest = self.digest.wrapping_add(digest.into());
        if let Some(session) = stat.owner.session() {
            self.ephemerals.entry(session).or_default().insert(path.clone());
        }
        let node = Node { data: data.map(Into::into), children: BTreeMap::new(), stat, acl, digest };
        self.arena.add(parent, path.name(), node)
    }

    /// Brings a changed znode's share of the digest up to date.
    fn count_digest(&mut self, id: NodeId, path: &str) {
        let node = self.arena.get_mut(id);
        let new = digest::of_node(path, node.data.as_deref(), &node.stat);
        let old = std::mem::replace(&mut node.digest, new);
        self.digest = self.digest.wrapping_sub(old.into()).wrapping_add(new.into());
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

/// Equality of content: how znodes and ACLs are numbered inside plays no part.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.last_zxid == other.last_zxid
            && self.digest == other.digest
            && self.sessions == other.sessions
            && self.node_count() == other.node_count()
            && self.nodes().zip(other.nodes()).all(|((path, node), (other_path, other_node))| {
                path == other_path
                    && node.data() == other_node.data()
                    && node.persisted() == other_node.persisted()
                    && node.acl() == other_node.acl()
            })
    }
}

impl Eq for Tree {}

#[cfg(test)]
mod tests {
    use super::workload::{create, path, tree_of};
    use super::*;

    #[test]
    fn the_initial_tree_is_apaches() {
        let tree = Tree::new();
        let paths: Vec<_> = tree.nodes().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]);
        assert!(tree.nodes().all(|(_, node)| node.data() == Some(&[])));
        assert_eq!(tree.node("/").unwrap().stat().cversion, -1, "one child, no creation");
        let config = tree.node("/zookeeper/config").unwrap();
        assert_eq!((config.acl(), config.stat().aversion), (&[Acl::anyone(Permissions::READ)][..], -1));
        assert_eq!(tree.last_zxid(), Zxid::ZERO);
        tree.check_invariants();
    }

    #[test]
    fn texts_that_are_no_paths_are_nowhere() {
        let tree = tree_of([create("/a", 1), create("/a/b", 1)]);
        assert!(["/", "/a", "/a/b"].iter().all(|path| tree.node(path).is_some()));
        for text in ["", "a", "//", "/a/", "/a//b", "/a/b/", "/.", "/a/../a"] {
            assert!(tree.node(text).is_none(), "{text:?} must not be found");
        }
    }

    #[test]
    fn equality_sees_data_stats_acls_and_sessions() {
        let tree = tree_of([create("/a", 1)]);
        let mut other = tree_of([create("/a", 1)]);
        assert_eq!(tree, other);
        let id = other.arena.find(path("/a").as_str()).unwrap();
        other.acls.release(other.arena.get(id).acl);
        other.arena.get_mut(id).acl = other.acls.acquire(&[]);
        assert_ne!(tree, other);
    }
}
