//! What only a learner does: it passes writes on to its leader, and finds them again among what is committed.
//!
//! A committed txn answers the *oldest* request passed on, if session and number are that request's; else it was somebody
//! else's. Requests of connections that are gone stay in the order until their txns come, so that none is mistaken for another
//! (ZOOKEEPER-1863).
//!
//! Source: `FollowerRequestProcessor.java`, `CommitProcessor.java`, `LearnerSessionTracker.java` of Apache ZooKeeper.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::connection::{Awaiting, Pending, Phase};
use super::prepare::ReplyShape;
use super::{CloseReason, ConnectionId, Now, Replica, Role, SyncWaiter, decode, session};
use crate::id::{SessionId, Xid, Zxid};
use crate::tree::Txn;
use crate::zab::{Entry, ForwardedRequest};

/// The state of a learner that has its leader.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// Requests that the leader has not carried out yet, oldest first.
    forwarded: VecDeque<Forwarded>,
    /// Txns that were proposed and are not committed.
    pub(super) received: VecDeque<Txn>,
    /// Sessions heard of since the leader last asked, with their timeouts in ms.
    touched: BTreeMap<SessionId, i32>,
    /// Connections whose sessions the leader is asked about, by session.
    revalidating: BTreeMap<SessionId, ConnectionId>,
}

#[derive(Debug)]
struct Forwarded {
    session: SessionId,
    cxid: Xid,
    /// What its txn must be fit for: clients may number their requests as they like, and the leader's own txns have numbers, too.
    shape: ReplyShape,
    /// Who waits for it, if anybody.
    connection: Option<ConnectionId>,
}

impl Learning {
    /// The txn of an entry that is committed, and who waits for it here.
    pub(super) fn take_received(&mut self, entry: &Entry) -> (Txn, Option<ConnectionId>) {
        while self.received.front().is_some_and(|txn| txn.header.zxid < entry.zxid) {
            self.received.pop_front();
        }
        let txn = match self.received.front() {
            Some(txn) if txn.header.zxid == entry.zxid => self.received.pop_front(),
            Some(_) | None => None,
        };
        let txn = txn.unwrap_or_else(|| decode(entry));
        let is_own = self.forwarded.front().is_some_and(|oldest| {
            (oldest.session, oldest.cxid) == (txn.header.session, txn.header.cxid)
                && oldest.shape.fits(&txn.op)
        });
        let own = if is_own { self.forwarded.pop_front() } else { None };
        (txn, own.and_then(|forwarded| forwarded.connection))
    }

    pub(super) fn touch(&mut self, session: SessionId, timeout: Duration) {
        self.touched.insert(session, session::timeout_ms(timeout));
    }
}

impl Replica {
    /// Passes a write on to the leader; its reply, if a connection waits for one, comes when the txn is committed.
    pub(super) fn forward(
        &mut self,
        connection: Option<ConnectionId>,
        request: ForwardedRequest,
        shape: ReplyShape,
    ) {
        let Role::Learning(learning) = &mut self.role else { return };
        let (session, cxid) = (request.session, request.cxid);
        learning.forwarded.push_back(Forwarded { session, cxid, shape: shape.clone(), connection });
        self.peer.forward(request);
        if let Some(id) = connection {
            self.enqueue(id, Pending { xid: cxid, awaiting: Awaiting::Commit { shape } });
        }
    }

    /// Asks the leader whether a session may go on here.
    pub(super) fn revalidate(&mut self, id: ConnectionId, session: SessionId, timeout: Duration) {
        let Role::Learning(learning) = &mut self.role else { return };
        let earlier = learning.revalidating.insert(session, id);
        self.peer.revalidate(session, session::timeout_ms(timeout));
        // The last that asks has it.
        if let Some(earlier) = earlier {
            self.close(earlier, CloseReason::SessionMoved);
        }
    }

    /// The leader has answered.
    pub(super) fn on_revalidated(&mut self, session: SessionId, is_valid: bool, now: Now) {
        let Role::Learning(learning) = &mut self.role else { return };
        let Some(id) = learning.revalidating.remove(&session) else { return };
        if is_valid {
            self.on_session_opened(id, now);
        } else if let Some(connection) = self.connections.get(&id)
            && let Phase::Opening { read_only, .. } = connection.phase
        {
            self.refuse_session(id, read_only);
        }
    }

    /// The leader wants to know who was heard of.
    pub(super) fn on_pinged(&mut self, zxid: Zxid) {
        let Role::Learning(learning) = &mut self.role else { return };
        let touched = std::mem::take(&mut learning.touched).into_iter().collect();
        self.peer.answer_ping(zxid, touched);
    }

    /// The oldest sync is done.
    pub(super) fn on_synced(&mut self, now: Now) {
        match self.syncs.pop_front() {
            Some(SyncWaiter::Client(id)) => self.on_client_synced(id, now),
            Some(SyncWaiter::Refusal(id)) => self.on_doubt_settled(id),
            Some(SyncWaiter::Revalidation(link, session, timeout_ms)) if self.is_known_to_all(session) => {
                self.on_revalidate(link, session, timeout_ms, now);
            }
            Some(SyncWaiter::Revalidation(link, session, _)) => {
                self.peer.answer_revalidate(link, session, false);
            }
            None => {}
        }
    }

    fn on_client_synced(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let oldest = connection.pending.iter_mut().find_map(|pending| match &mut pending.awaiting {
            Awaiting::Sync { is_done, .. } if !*is_done => Some(is_done),
            Awaiting::Sync { .. }
            | Awaiting::Commit { .. }
            | Awaiting::Turn(_)
            | Awaiting::Farewell { .. } => None,
        });
        if let Some(is_done) = oldest {
            *is_done = true;
        }
        self.answer_pending(id);
        self.release_held(id, now);
    }
}
