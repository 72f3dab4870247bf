//! Sessions that one member alone knows: they are opened and closed without a txn.
//!
//! They are off unless asked for. They cost the ensemble nothing, and own nothing that others would have to clean up: a session
//! that asks for its first ephemeral znode is made known to everybody before, where that is allowed, and is one like any other
//! from then on. They end with the process; unlike Apache ZooKeeper's they live on when the leader changes.
//!
//! Source: `UpgradeableSessionTracker.java`, `LeaderSessionTracker.java`, `QuorumZooKeeperServer.checkUpgradeSession` of Apache
//! ZooKeeper.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::info;

use super::connection::{Awaiting, Pending};
use super::expiry::ExpiryQueue;
use super::prepare::Write;
use super::{CloseReason, ConnectionId, LocalSessionMode, Now, Replica};
use crate::id::{SessionId, Xid};
use crate::tree::Tree;
use crate::wire::{CreateRequest, MultiOp};
use crate::znode::{CreateMode, OpError};

/// The local sessions of this member.
#[derive(Debug)]
pub(super) struct LocalSessions {
    expiry: ExpiryQueue,
    /// Those that are being made known to everybody.
    upgrading: BTreeSet<SessionId>,
    /// Those for which that was asked of a leader before, who may have done it.
    asked: BTreeSet<SessionId>,
}

impl LocalSessions {
    pub(super) fn new(now: Instant, tick: Duration) -> Self {
        Self { expiry: ExpiryQueue::new(now, tick), upgrading: BTreeSet::new(), asked: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.expiry.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, Duration)> {
        self.expiry.iter()
    }

    pub(super) fn timeout(&self, session: SessionId) -> Option<Duration> {
        self.expiry.timeout(session)
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.timeout(session).is_some()
    }

    pub(super) fn open(&mut self, session: SessionId, timeout: Duration, now: Instant) {
        self.expiry.touch(session, timeout, now);
    }

    /// Something was heard of a session. Returns whether it is one of these.
    pub(super) fn touch(&mut self, session: SessionId, timeout: Duration, now: Instant) -> bool {
        let is_local = self.contains(session);
        if is_local {
            self.expiry.touch(session, timeout, now);
        }
        is_local
    }

    /// Forgets a session, since it is over, or known to everybody by now.
    pub(super) fn remove(&mut self, session: SessionId) {
        self.expiry.remove(session);
        self.upgrading.remove(&session);
        self.asked.remove(&session);
    }

    pub(super) fn look_at(&mut self, now: Instant) {
        self.expiry.look_at(now);
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.expiry.next_look()
    }

    /// There is no leader any more: who was to be made known to everybody may never be.
    pub(super) fn on_lost(&mut self) {
        self.asked.append(&mut self.upgrading);
    }

    /// The tree comes from elsewhere: what became of those that a leader was asked for cannot be known any more.
    pub(super) fn on_installed(&mut self) {
        for session in std::mem::take(&mut self.asked) {
            self.remove(session);
        }
    }

    /// Clients are served again. Nobody could be heard meanwhile, and what came from elsewhere may know some of the sessions.
    pub(super) fn on_served(&mut self, tree: &Tree, now: Instant) {
        let known = self.expiry.sessions().filter(|session| tree.sessions().contains(*session));
        for session in known.collect::<Vec<_>>() {
            self.remove(session);
        }
        self.expiry.restart(now);
    }
}

impl Replica {
    /// How many sessions this member alone knows.
    pub fn local_sessions(&self) -> usize {
        self.local.len()
    }

    /// Sees to it that a write can go its way though only this member knows its session. Returns `false` when nothing is left to
    /// be done for it.
    pub(super) fn admit_local(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        xid: Xid,
        write: &Write,
        now: Now,
    ) -> bool {
        let Some(timeout) = self.local.expiry.timeout(session) else { return true };
        if self.local.upgrading.contains(&session) {
            return true;
        }
        if let Write::CloseSession = write {
            self.local.remove(session);
            self.take_leave(id, session, xid, Ok(()), CloseReason::SessionClosed);
            return false;
        }
        if !makes_ephemerals(write) {
            return true;
        }
        if self.settings.local_sessions != LocalSessionMode::Upgraded {
            let awaiting = Awaiting::Turn(Err(OpError::EphemeralOnLocalSession));
            self.enqueue(id, Pending { xid, awaiting });
            return false;
        }
        self.local.upgrading.insert(session);
        self.propose_session(None, session, timeout, now);
        true
    }

    /// A leader has refused to make a session known: it had been before, and has ended.
    pub(super) fn on_upgrade_refused(&mut self, session: SessionId) {
        if self.local.upgrading.contains(&session) {
            self.end_local(session);
        }
    }

    pub(super) fn expire_local_sessions(&mut self, now: Now) {
        if !self.is_serving() {
            return;
        }
        for session in self.local.expiry.take_expired(now.monotonic) {
            info!(%session, "local session expired");
            self.end_local(session);
        }
    }

    fn end_local(&mut self, session: SessionId) {
        self.local.remove(session);
        if let Some(id) = self.by_session.get(&session).copied() {
            self.close(id, CloseReason::SessionExpired);
        }
    }
}

/// Whether a write needs a session that everybody knows.
fn makes_ephemerals(write: &Write) -> bool {
    let is_ephemeral =
        |create: &CreateRequest| CreateMode::from_flags(create.flags).is_some_and(|mode| mode.is_ephemeral());
    match write {
        Write::Create(create) | Write::Create2(create) => is_ephemeral(create),
        Write::Multi(ops) => ops.iter().any(|op| match op {
            MultiOp::Create(create) | MultiOp::Create2(create) => is_ephemeral(create),
            MultiOp::Delete { .. } | MultiOp::SetData { .. } | MultiOp::Check { .. } => false,
        }),
        Write::CreateSession(_)
        | Write::CloseSession
        | Write::DeleteEphemerals(_)
        | Write::Delete { .. }
        | Write::SetData { .. }
        | Write::SetAcl { .. }
        | Write::Refused(_) => false,
    }
}
