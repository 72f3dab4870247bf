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
mod tests;
