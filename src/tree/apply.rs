//! Applying txns: the one way in which the tree changes.
//!
//! What is applied was checked by the leader when it was prepared, so nothing is refused here. But a
//! snapshot may hold more than its zxid says, since it is written while txns are applied; the txns that
//! follow it then meet znodes that they have made, or removed, already. Each operation therefore ends in
//! the state that it stands for, whatever it finds:
//!
//! | meets | does |
//! | --- | --- |
//! | create, znode is there | raises the parent's cversion and pzxid, gives the znode the txn's ACL |
//! | create, parent is not there | nothing |
//! | delete, znode is not there | raises the parent's pzxid |
//! | delete, znode has children | removes them too: they are of a later znode of that name |
//! | setData or setACL, znode is not there | nothing |
//! | setData older than the znode's | overwrites; later txns bring the later data |
//! | closeSession | removes the paths listed and what else the session owns |
//! | multi with an error among its operations | nothing |
//!
//! The error that each of these is, seen alone, is in the result; it is for replies, and replayed txns
//! have none.
//!
//! Source: `DataTree.java` of Apache ZooKeeper.

use super::Tree;
use super::node::{Node, NodeId, split};
use super::txn::{CreateTxn, Txn, TxnHeader, TxnOp};
use crate::id::SessionId;
use crate::znode::{Acl, OpError, Owner, Stat, StatPersisted, ZnodePath};

/// What a txn has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the client that asked for it is told.
    pub result: TxnResult,
    /// What others are told, in the order in which watches fire.
    pub changes: Vec<Change>,
}

/// What came of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnResult {
    /// A znode was created.
    Created {
        /// Its final path.
        path: ZnodePath,
        /// Its stat.
        stat: Stat,
    },
    /// A znode was deleted.
    Deleted,
    /// Data, ACL or configuration were set; the stat after that.
    Stat(Stat),
    /// A version was found to be the one expected.
    Checked,
    /// One result for each operation of a multi.
    Multi(Vec<Self>),
    /// Nothing was wrong with this operation of a multi, but a later one failed; code 0 on the wire.
    RolledBack,
    /// A session was opened.
    SessionCreated,
    /// A session was closed.
    SessionClosed,
    /// Nothing was done, for this reason.
    Error(OpError),
}

/// A change that watches may wait for.
///
/// That the children of the parent changed follows from [`Change::Created`] and [`Change::Deleted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A znode has come.
    Created(ZnodePath),
    /// A znode has gone.
    Deleted(ZnodePath),
    /// A znode's data was set.
    DataChanged(ZnodePath),
}

impl Change {
    /// Whose change it is.
    pub const fn path(&self) -> &ZnodePath {
        match self {
            Self::Created(path) | Self::Deleted(path) | Self::DataChanged(path) => path,
        }
    }
}

impl Tree {
    /// Carries out a txn. Its zxid becomes the tree's when all of it is done.
    pub fn apply(&mut self, txn: &Txn) -> Applied {
        let mut changes = Vec::new();
        let result = self.apply_op(&txn.header, &txn.op, &mut changes);
        self.last_zxid = self.last_zxid.max(txn.header.zxid);
        Applied { result, changes }
    }

    fn apply_op(&mut self, header: &TxnHeader, op: &TxnOp, changes: &mut Vec<Change>) -> TxnResult {
        match op {
            TxnOp::Create(create) | TxnOp::Create2(create) => {
                self.create(header, &NewNode::from_create(create, header.session), changes)
            }
            TxnOp::CreateContainer { path, data, acl, parent_cversion } => {
                let (data, owner, parent_cversion) = (data.as_deref(), Owner::Container, *parent_cversion);
                self.create(header, &NewNode { path, data, acl, owner, parent_cversion }, changes)
            }
            TxnOp::CreateTtl { path, data, acl, parent_cversion, ttl_ms } => {
                let owner = Owner::Ttl(*ttl_ms & Owner::TTL_MS_MAX);
                let (data, parent_cversion) = (data.as_deref(), *parent_cversion);
                self.create(header, &NewNode { path, data, acl, owner, parent_cversion }, changes)
            }
            TxnOp::Delete { path } | TxnOp::DeleteContainer { path } => self.delete(header, path, changes),
            TxnOp::SetData { path, data, version } | TxnOp::Reconfig { path, data, version } => {
                self.set_data(header, path, data.as_deref(), *version, changes)
            }
            TxnOp::SetAcl { path, acl, version } => self.set_acl(path, acl, *version),
            TxnOp::Check { .. } => TxnResult::Checked,
            TxnOp::Multi(ops) => self.apply_multi(header, ops, changes),
            TxnOp::CreateSession { timeout_ms } => {
                self.sessions.insert(header.session, *timeout_ms);
                TxnResult::SessionCreated
            }
            TxnOp::CloseSession { paths } => {
                self.close_session(header, paths.as_deref().unwrap_or_default(), changes)
            }
            TxnOp::Error(error) => TxnResult::Error(*error),
        }
    }

    fn apply_multi(&mut self, header: &TxnHeader, ops: &[TxnOp], changes: &mut Vec<Change>) -> TxnResult {
        let first_error = ops.iter().position(|op| matches!(op, TxnOp::Error(_)));
        TxnResult::Multi(match first_error {
            None => ops.iter().map(|op| self.apply_op(header, op, changes)).collect(),
            Some(first_error) => {
                let results = ops.iter().enumerate();
                results.map(|(index, op)| result_in_failed_multi(op, index < first_error)).collect()
            }
        })
    }

    fn create(&mut self, header: &TxnHeader, new: &NewNode<'_>, changes: &mut Vec<Change>) -> TxnResult {
        let Some((parent_path, name)) = split(new.path.as_str()) else {
            return TxnResult::Error(OpError::NodeExists);
        };
        let Some(parent) = self.arena.find(parent_path) else {
            return TxnResult::Error(OpError::NoNode);
        };
        self.count_creation(header, parent, parent_path, new.parent_cversion);
        if let Some(existing) = self.arena.child(parent, name) {
            self.replace_acl(existing, new.acl);
            return TxnResult::Error(OpError::NodeExists);
        }
        let stat = StatPersisted {
            czxid: header.zxid,
            mzxid: header.zxid,
            pzxid: header.zxid,
            ctime_ms: header.time_ms,
            mtime_ms: header.time_ms,
            owner: new.owner,
            ..StatPersisted::default()
        };
        let acl = self.acls.acquire(new.acl);
        let id = self.add_node(parent, new.path, new.data, stat, acl);
        changes.push(Change::Created(new.path.clone()));
        TxnResult::Created { path: new.path.clone(), stat: self.node_ref(id).stat() }
    }

    fn delete(&mut self, header: &TxnHeader, path: &ZnodePath, changes: &mut Vec<Change>) -> TxnResult {
        let Some((parent_path, name)) = split(path.as_str()) else {
            return TxnResult::Error(OpError::BadArguments);
        };
        let Some(parent) = self.arena.find(parent_path) else {
            return TxnResult::Error(OpError::NoNode);
        };
        let parent_stat = &mut self.arena.get_mut(parent).stat;
        if header.zxid > parent_stat.pzxid {
            parent_stat.pzxid = header.zxid;
            self.count_digest(parent, parent_path);
        }
        let Some(node) = self.arena.detach(parent, name) else {
            return TxnResult::Error(OpError::NoNode);
        };
        self.free_subtree(node, path);
        changes.push(Change::Deleted(path.clone()));
        TxnResult::Deleted
    }

    fn set_data(
        &mut self,
        header: &TxnHeader,
        path: &ZnodePath,
        data: Option<&[u8]>,
        version: i32,
        changes: &mut Vec<Change>,
    ) -> TxnResult {
        let Some(id) = self.arena.find(path.as_str()) else {
            return TxnResult::Error(OpError::NoNode);
        };
        let node = self.arena.get_mut(id);
        node.data = data.map(Into::into);
        node.stat.mzxid = header.zxid;
        node.stat.mtime_ms = header.time_ms;
        node.stat.version = version;
        self.count_digest(id, path.as_str());
        changes.push(Change::DataChanged(path.clone()));
        TxnResult::Stat(self.node_ref(id).stat())
    }

    fn set_acl(&mut self, path: &ZnodePath, acl: &[Acl], version: i32) -> TxnResult {
        let Some(id) = self.arena.find(path.as_str()) else {
            return TxnResult::Error(OpError::NoNode);
        };
        self.replace_acl(id, acl);
        self.arena.get_mut(id).stat.aversion = version;
        self.count_digest(id, path.as_str());
        TxnResult::Stat(self.node_ref(id).stat())
    }

    fn close_session(
        &mut self,
        header: &TxnHeader,
        listed: &[ZnodePath],
        changes: &mut Vec<Change>,
    ) -> TxnResult {
        for path in listed {
            self.delete(header, path, changes);
        }
        let others: Vec<_> = self.ephemerals(header.session).cloned().collect();
        for path in &others {
            self.delete(header, path, changes);
        }
        self.sessions.remove(header.session);
        TxnResult::SessionClosed
    }

    /// Counts a child's creation in its parent's stat, unless the parent has it already.
    fn count_creation(&mut self, header: &TxnHeader, parent: NodeId, parent_path: &str, cversion: i32) {
        let stat = &mut self.arena.get_mut(parent).stat;
        let cversion = match cversion {
            CreateTxn::PARENT_CVERSION_NEXT => stat.cversion.wrapping_add(1),
            cversion => cversion,
        };
        if cversion > stat.cversion {
            stat.cversion = cversion;
            stat.pzxid = header.zxid;
            self.count_digest(parent, parent_path);
        }
    }

    fn replace_acl(&mut self, id: NodeId, acl: &[Acl]) {
        let new = self.acls.acquire(acl);
        let old = std::mem::replace(&mut self.arena.get_mut(id).acl, new);
        self.acls.release(old);
    }

    /// Frees a detached znode and all below it.
    fn free_subtree(&mut self, top: NodeId, path: &ZnodePath) {
        let mut left = vec![(top, path.clone())];
        while let Some((id, path)) = left.pop() {
            let Node { children, stat, acl, digest, data: _ } = self.arena.free(id);
            self.acls.release(acl);
            self.digest = self.digest.wrapping_sub(digest.into());
            if let Some(session) = stat.owner.session() {
                self.forget_ephemeral(session, &path);
            }
            for (name, child) in children {
                left.push((child, path.join(&name).expect("a child's name is a component")));
            }
        }
    }

    fn forget_ephemeral(&mut self, session: SessionId, path: &ZnodePath) {
        if let Some(paths) = self.ephemerals.get_mut(&session) {
            paths.remove(path);
            if paths.is_empty() {
                self.ephemerals.remove(&session);
            }
        }
    }
}

/// What the kinds of creates have in common.
struct NewNode<'a> {
    path: &'a ZnodePath,
    data: Option<&'a [u8]>,
    acl: &'a [Acl],
    owner: Owner,
    parent_cversion: i32,
}

impl<'a> NewNode<'a> {
    fn from_create(create: &'a CreateTxn, session: SessionId) -> Self {
        // The session's number is the stored owner, whatever that number means when it is read back.
        let owner = if create.ephemeral { Owner::from_raw(session.0) } else { Owner::Persistent };
        Self {
            path: &create.path,
            data: create.data.as_deref(),
            acl: &create.acl,
            owner,
            parent_cversion: create.parent_cversion,
        }
    }
}

fn result_in_failed_multi(op: &TxnOp, is_before_the_error: bool) -> TxnResult {
    if let TxnOp::Error(error) = op {
        TxnResult::Error(*error)
    } else if is_before_the_error {
        TxnResult::RolledBack
    } else {
        TxnResult::Error(OpError::RuntimeInconsistency)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::Zxid;
    use crate::tree::NodeRef;
    use crate::tree::workload::{
        SESSION, Workload, create, create_of, delete, ephemeral, path, set_data, steps, tree_of, txn,
    };
    use crate::znode::Permissions;

    proptest! {
        #[test]
        fn trees_that_applied_the_same_txns_are_equal_and_consistent(steps in steps(1..60)) {
            let mut workload = Workload::new();
            let mut follower = Tree::new();
            for step in &steps {
                let txn = workload.step(step);
                workload.tree.check_invariants();
                prop_assert_eq!(workload.tree.last_zxid(), txn.header.zxid);
                let received = Txn::decode(&txn.encode()).unwrap();
                prop_assert_eq!(&received, &txn);
                follower.apply(&received);
            }
            prop_assert_eq!(&follower, &workload.tree);
        }

        #[test]
        fn replaying_any_tail_of_the_history_ends_in_the_same_tree(
            steps in steps(1..40), again_from: prop::sample::Index,
        ) {
            // A snapshot of everything, replayed from any earlier zxid: the fuzziest there can be.
            let mut workload = Workload::new();
            let txns: Vec<_> = steps.iter().map(|step| workload.step(step)).collect();
            let mut replayed = workload.tree.clone();
            for txn in &txns[again_from.index(txns.len())..] {
                replayed.apply(txn);
                replayed.check_invariants();
            }
            prop_assert_eq!(&replayed, &workload.tree);
        }
    }

    #[test]
    fn a_create_makes_the_znode_and_counts_in_its_parent() {
        let mut tree = Tree::new();
        let applied = tree.apply(&txn(5, create("/a", 1)));
        let stat = tree.node("/a").unwrap().stat();
        assert_eq!(applied.result, TxnResult::Created { path: path("/a"), stat });
        assert_eq!(applied.changes, [Change::Created(path("/a"))]);
        assert_eq!(
            (stat.czxid, stat.mzxid, stat.pzxid),
            (Zxid::from_raw(5), Zxid::from_raw(5), Zxid::from_raw(5))
        );
        assert_eq!(
            (stat.version, stat.cversion, stat.aversion, stat.ephemeral_owner),
            (0, 0, 0, SessionId::NONE)
        );
        let root = tree.node("/").unwrap();
        assert_eq!((root.persisted().cversion, root.persisted().pzxid), (1, Zxid::from_raw(5)));
        assert_eq!(root.children().collect::<Vec<_>>(), ["a", "zookeeper"]);
    }

    #[test]
    fn kinds_of_znodes_are_stored_as_owners() {
        let mut tree = tree_of([ephemeral("/e", 1)]);
        let (acl, data) = (vec![Acl::open()], None);
        let container = TxnOp::CreateContainer {
            path: path("/c"),
            data: data.clone(),
            acl: acl.clone(),
            parent_cversion: 2,
        };
        let ttl = TxnOp::CreateTtl { path: path("/t"), data, acl, parent_cversion: 3, ttl_ms: 500 };
        tree.apply(&txn(8, container));
        tree.apply(&txn(9, ttl));
        let owner = |path| tree.node(path).unwrap().persisted().owner;
        assert_eq!(owner("/e"), Owner::Ephemeral(SESSION));
        assert_eq!(owner("/c"), Owner::Container);
        assert_eq!(owner("/t"), Owner::Ttl(500));
        assert_eq!(tree.ephemerals(SESSION).collect::<Vec<_>>(), [&path("/e")]);
        tree.check_invariants();
    }

    #[test]
    fn a_delete_raises_the_parents_pzxid_and_not_its_cversion() {
        let mut tree = tree_of([create("/a", 1)]);
        let applied = tree.apply(&txn(9, delete("/a")));
        assert_eq!(
            (applied.result, applied.changes),
            (TxnResult::Deleted, vec![Change::Deleted(path("/a"))])
        );
        let root = tree.node("/").unwrap();
        assert_eq!((root.persisted().cversion, root.persisted().pzxid), (1, Zxid::from_raw(9)));
        assert_eq!(tree.node("/a").map(NodeRef::stat), None);
    }

    #[test]
    fn set_data_takes_the_version_of_the_txn() {
        let mut tree = tree_of([create("/a", 1)]);
        let applied = tree.apply(&txn(9, set_data("/a", "new", 7)));
        let node = tree.node("/a").unwrap();
        assert_eq!(
            (node.data(), node.stat().version, node.stat().mzxid),
            (Some(&b"new"[..]), 7, Zxid::from_raw(9))
        );
        assert_eq!(applied.result, TxnResult::Stat(node.stat()));
        assert_eq!(applied.changes, [Change::DataChanged(path("/a"))]);
    }

    #[test]
    fn null_and_empty_data_stay_distinct() {
        let mut tree = tree_of([create("/a", 1)]);
        tree.apply(&txn(8, TxnOp::SetData { path: path("/a"), data: None, version: 1 }));
        assert_eq!(tree.node("/a").unwrap().data(), None);
        tree.apply(&txn(9, set_data("/a", "", 2)));
        assert_eq!(tree.node("/a").unwrap().data(), Some(&[][..]));
    }

    #[test]
    fn set_acl_changes_the_aversion_alone_and_fires_nothing() {
        let mut tree = tree_of([create("/a", 1)]);
        let before = tree.node("/a").unwrap().stat();
        let acl = vec![Acl::anyone(Permissions::READ)];
        let applied = tree.apply(&txn(9, TxnOp::SetAcl { path: path("/a"), acl: acl.clone(), version: 1 }));
        let node = tree.node("/a").unwrap();
        assert_eq!(node.stat(), Stat { aversion: 1, ..before });
        assert_eq!((node.acl(), applied.changes), (&acl[..], vec![]));
    }

    #[test]
    fn a_session_comes_and_goes_with_its_ephemerals_in_the_order_listed() {
        let mut tree = tree_of([TxnOp::CreateSession { timeout_ms: 6000 }]);
        assert_eq!(tree.sessions().get(SESSION), Some(6000));
        for (zxid, name) in (10..).zip(["/a", "/b", "/c"]) {
            tree.apply(&txn(zxid, ephemeral(name, -1)));
        }
        let paths = Some(vec![path("/c"), path("/a")]);
        let applied = tree.apply(&txn(20, TxnOp::CloseSession { paths }));
        let deleted = ["/c", "/a", "/b"].map(|name| Change::Deleted(path(name)));
        assert_eq!((applied.result, applied.changes), (TxnResult::SessionClosed, deleted.into()));
        assert!(tree.sessions().is_empty());
        assert_eq!(tree.ephemerals(SESSION).count(), 0);
    }

    #[test]
    fn a_multi_applies_in_order_and_moves_the_zxid_once() {
        let mut tree = tree_of([create("/a", 1)]);
        let check = TxnOp::Check { path: path("/a"), version: 1 };
        let ops = vec![check, create("/a/b", 1), set_data("/a/b", "x", 1), delete("/a/b")];
        let applied = tree.apply(&txn(9, TxnOp::Multi(ops)));
        let TxnResult::Multi(results) = applied.result else { panic!("not a multi's result") };
        assert!(matches!(
            results[..],
            [TxnResult::Checked, TxnResult::Created { .. }, TxnResult::Stat(_), TxnResult::Deleted]
        ));
        let changed = path("/a/b");
        let changes = [
            Change::Created(changed.clone()),
            Change::DataChanged(changed.clone()),
            Change::Deleted(changed),
        ];
        assert_eq!(applied.changes, changes);
        assert_eq!(tree.last_zxid(), Zxid::from_raw(9));
    }

    #[test]
    fn a_multi_with_an_error_applies_nothing() {
        let mut tree = tree_of([create("/a", 1)]);
        let before = tree.clone();
        let ops = vec![create("/b", 2), TxnOp::Error(OpError::BadVersion), delete("/a")];
        let applied = tree.apply(&txn(before.last_zxid().raw(), TxnOp::Multi(ops)));
        let results = vec![
            TxnResult::RolledBack,
            TxnResult::Error(OpError::BadVersion),
            TxnResult::Error(OpError::RuntimeInconsistency),
        ];
        assert_eq!((applied.result, applied.changes), (TxnResult::Multi(results), vec![]));
        assert_eq!(tree, before);
    }

    // What replay behind a fuzzy snapshot meets; one test for each row of the table above.

    #[test]
    fn a_create_of_a_znode_that_is_there_raises_the_parent_and_takes_the_acl() {
        let mut tree = tree_of([create("/a", 1)]);
        tree.apply(&txn(4, set_data("/a", "later", 3)));
        let stat = tree.node("/a").unwrap().stat();
        let acl = vec![Acl::anyone(Permissions::READ)];
        for kind in [TxnOp::Create, TxnOp::Create2] {
            let again = CreateTxn { acl: acl.clone(), parent_cversion: 5, ..create_of("/a", 5) };
            let applied = tree.apply(&txn(9, kind(again)));
            assert_eq!((applied.result, applied.changes), (TxnResult::Error(OpError::NodeExists), vec![]));
        }
        let (node, root) = (tree.node("/a").unwrap(), tree.node("/").unwrap());
        assert_eq!((node.data(), node.stat(), node.acl()), (Some(&b"later"[..]), stat, &acl[..]));
        assert_eq!((root.persisted().cversion, root.persisted().pzxid), (5, Zxid::from_raw(9)));
        tree.check_invariants();
    }

    #[test]
    fn a_create_never_lowers_the_parents_count() {
        let mut tree = tree_of([create("/a", 7)]);
        let pzxid = tree.node("/").unwrap().persisted().pzxid;
        tree.apply(&txn(9, create("/b", 7)));
        let root = tree.node("/").unwrap();
        assert_eq!((root.persisted().cversion, root.persisted().pzxid), (7, pzxid));
        tree.apply(&txn(10, create("/c", CreateTxn::PARENT_CVERSION_NEXT)));
        assert_eq!(tree.node("/").unwrap().persisted().cversion, 8);
    }

    #[test]
    fn a_create_below_a_missing_parent_does_nothing() {
        unchanged_but_for_the_zxid(create("/missing/a", 1), OpError::NoNode);
    }

    #[test]
    fn a_delete_of_a_missing_znode_raises_the_parents_pzxid() {
        let mut tree = tree_of([create("/a", 1)]);
        let applied = tree.apply(&txn(9, delete("/b")));
        assert_eq!((applied.result, applied.changes), (TxnResult::Error(OpError::NoNode), vec![]));
        assert_eq!(tree.node("/").unwrap().persisted().pzxid, Zxid::from_raw(9));
        tree.check_invariants();
    }

    #[test]
    fn a_delete_never_lowers_the_parents_pzxid() {
        let mut tree = Tree::new();
        tree.apply(&txn(9, create("/a", 1)));
        tree.apply(&txn(8, delete("/a")));
        assert_eq!(tree.node("/").unwrap().persisted().pzxid, Zxid::from_raw(9));
    }

    #[test]
    fn a_delete_takes_children_of_a_later_znode_along() {
        let mut tree = tree_of([create("/a", 1), create("/a/b", 1), ephemeral("/a/b/c", 1)]);
        tree.apply(&txn(9, delete("/a")));
        assert_eq!((tree.node_count(), tree.ephemerals(SESSION).count()), (4, 0));
        tree.check_invariants();
    }

    #[test]
    fn set_data_and_set_acl_of_a_missing_znode_do_nothing() {
        unchanged_but_for_the_zxid(set_data("/a", "x", 1), OpError::NoNode);
        let set_acl = TxnOp::SetAcl { path: path("/a"), acl: vec![], version: 1 };
        unchanged_but_for_the_zxid(set_acl, OpError::NoNode);
    }

    #[test]
    fn set_data_older_than_the_znode_overwrites() {
        let mut tree = tree_of([create("/a", 1)]);
        tree.apply(&txn(9, set_data("/a", "new", 2)));
        tree.apply(&txn(8, set_data("/a", "old", 1)));
        let node = tree.node("/a").unwrap();
        assert_eq!((node.data(), node.stat().version), (Some(&b"old"[..]), 1));
        assert_eq!(tree.last_zxid(), Zxid::from_raw(9), "the zxid never goes back");
    }

    #[test]
    fn close_session_raises_the_parents_pzxid_when_the_ephemeral_has_gone() {
        let mut tree = tree_of([create("/a", 1)]);
        let applied = tree.apply(&txn(9, TxnOp::CloseSession { paths: Some(vec![path("/a/gone")]) }));
        assert_eq!((applied.result, applied.changes), (TxnResult::SessionClosed, vec![]));
        assert_eq!(tree.node("/a").unwrap().persisted().pzxid, Zxid::from_raw(9));
    }

    #[test]
    fn close_session_without_paths_removes_what_the_session_owns() {
        let mut tree = tree_of([ephemeral("/a", 1), create("/b", 2)]);
        tree.apply(&txn(9, TxnOp::CloseSession { paths: None }));
        assert!(tree.node("/a").is_none() && tree.node("/b").is_some());
    }

    #[test]
    fn a_replayed_multi_is_tolerant_in_each_operation() {
        let mut tree = tree_of([create("/a", 1)]);
        let ops = vec![create("/a", 1), delete("/gone"), create("/b", 2)];
        let applied = tree.apply(&txn(9, TxnOp::Multi(ops)));
        let TxnResult::Multi(results) = applied.result else { panic!("not a multi's result") };
        assert_eq!(results[..2], [OpError::NodeExists, OpError::NoNode].map(TxnResult::Error));
        assert!(tree.node("/b").is_some());
    }

    #[test]
    fn an_error_changes_nothing_but_the_zxid() {
        unchanged_but_for_the_zxid(TxnOp::Error(OpError::BadVersion), OpError::BadVersion);
    }

    fn unchanged_but_for_the_zxid(op: TxnOp, error: OpError) {
        let mut tree = Tree::new();
        let applied = tree.apply(&txn(9, op));
        assert_eq!(applied, Applied { result: TxnResult::Error(error), changes: vec![] });
        let mut expected = Tree::new();
        expected.set_last_zxid(Zxid::from_raw(9));
        assert_eq!(tree, expected);
    }
}
