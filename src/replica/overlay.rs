//! What the tree will look like once everything proposed is applied.
//!
//! The tree holds committed state only. A new request is checked against the tree plus the changes that are still
//! in flight; the overlay keeps those, by path, until the txn that made them is applied.
//!
//! Source: `outstandingChanges` in `ZooKeeperServer.java` and `PrepRequestProcessor.java` of Apache ZooKeeper.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::access;
use crate::id::{SessionId, Zxid};
use crate::tree::Tree;
use crate::znode::{Acl, OpError, Owner, Permissions, ZnodePath};

/// The changes in flight.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pending: BTreeMap<ZnodePath, Pending>,
    /// The ephemerals among them by session: when many sessions end at once, none looks at all that is in flight.
    ephemerals: BTreeMap<SessionId, BTreeSet<ZnodePath>>,
    /// Which paths each txn changed, oldest first.
    order: VecDeque<(Zxid, ZnodePath)>,
    /// What a multi has replaced so far, to be put back should one of its operations fail.
    undo: Option<Vec<(ZnodePath, Option<Pending>)>>,
}

#[derive(Clone, Debug)]
struct Pending {
    zxid: Zxid,
    /// `None` when the znode will be gone.
    state: Option<ZnodeState>,
}

/// What preparing a request needs to know of a znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ZnodeState {
    pub(super) version: i32,
    /// Creations among its children so far.
    pub(super) cversion: i32,
    pub(super) aversion: i32,
    pub(super) owner: Owner,
    pub(super) child_count: usize,
    /// The ACL, when it is in flight itself; the tree's otherwise.
    pub(super) acl: Option<Vec<Acl>>,
}

impl ZnodeState {
    /// A znode as it will be right after its creation.
    pub(super) const fn created(owner: Owner, acl: Vec<Acl>) -> Self {
        Self { version: 0, cversion: 0, aversion: 0, owner, child_count: 0, acl: Some(acl) }
    }
}

impl Overlay {
    /// The znode at `path` once everything proposed is applied.
    pub(super) fn get(&self, tree: &Tree, path: &str) -> Result<ZnodeState, OpError> {
        if let Some(pending) = self.pending.get(path) {
            return pending.state.clone().ok_or(OpError::NoNode);
        }
        let node = tree.node(path).ok_or(OpError::NoNode)?;
        let stat = node.persisted();
        Ok(ZnodeState {
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            owner: stat.owner,
            child_count: node.child_count(),
            acl: None,
        })
    }

    /// Checks the ACL of a znode that [`Overlay::get`] returned for `path`.
    pub(super) fn check_access(
        tree: &Tree,
        path: &str,
        state: &ZnodeState,
        wanted: Permissions,
    ) -> Result<(), OpError> {
        match &state.acl {
            Some(acl) => access::check(acl, wanted),
            None => access::check(tree.node(path).ok_or(OpError::NoNode)?.acl(), wanted),
        }
    }

    /// Notes what the txn `zxid` makes of the znode at `path`; `None` deletes it.
    pub(super) fn set(&mut self, zxid: Zxid, path: ZnodePath, state: Option<ZnodeState>) {
        let replaced = self.replace(path.clone(), Some(Pending { zxid, state }));
        if let Some(undo) = &mut self.undo {
            undo.push((path.clone(), replaced));
        }
        self.order.push_back((zxid, path));
    }

    /// The ephemerals that the session will own once everything proposed is applied.
    pub(super) fn ephemerals(&self, tree: &Tree, session: SessionId) -> Vec<ZnodePath> {
        let committed = tree.ephemerals(session).filter(|path| !self.pending.contains_key(*path)).cloned();
        let in_flight = self.ephemerals.get(&session).into_iter().flatten();
        committed.chain(in_flight.cloned()).collect()
    }

    /// Forgets what the txns up to `zxid` changed, since the tree holds it now.
    pub(super) fn on_applied(&mut self, zxid: Zxid) {
        while let Some((changed_by, path)) = self.order.front()
            && *changed_by <= zxid
        {
            let is_last_change = self.pending.get(path).is_some_and(|pending| pending.zxid == *changed_by);
            if let Some((_, path)) = self.order.pop_front()
                && is_last_change
            {
                self.replace(path, None);
            }
        }
    }

    /// Starts remembering what is replaced.
    pub(super) fn begin_multi(&mut self) {
        self.undo = Some(Vec::new());
    }

    /// Keeps what was changed since [`Overlay::begin_multi`].
    pub(super) fn keep_multi(&mut self) {
        self.undo = None;
    }

    /// Puts back everything that was changed since [`Overlay::begin_multi`], parents' counters too
    /// (ZOOKEEPER-1624).
    pub(super) fn roll_back_multi(&mut self) {
        for (path, replaced) in self.undo.take().unwrap_or_default().into_iter().rev() {
            self.order.pop_back();
            self.replace(path, replaced);
        }
    }

    /// Whether nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.ephemerals.is_empty() && self.order.is_empty()
    }

    /// Puts `new` in the place of what is in flight at `path`, and returns that.
    fn replace(&mut self, path: ZnodePath, new: Option<Pending>) -> Option<Pending> {
        let new_owner = new.as_ref().and_then(Pending::session);
        let old = match new {
            Some(new) => self.pending.insert(path.clone(), new),
            None => self.pending.remove(&path),
        };
        let old_owner = old.as_ref().and_then(Pending::session);
        if let Some(session) = old_owner
            && old_owner != new_owner
            && let Some(paths) = self.ephemerals.get_mut(&session)
        {
            paths.remove(&path);
            if paths.is_empty() {
                self.ephemerals.remove(&session);
            }
        }
        if let Some(session) = new_owner {
            self.ephemerals.entry(session).or_default().insert(path);
        }
        old
    }
}

impl Pending {
    /// The session that owns the ephemeral that the znode will be.
    fn session(&self) -> Option<SessionId> {
        self.state.as_ref()?.owner.session()
    }
}
