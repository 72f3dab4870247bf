//! What only the leader does: it turns requests into txns, its own clients' and the learners', and says when sessions end.
//!
//! Source: `PrepRequestProcessor.java`, `LeaderSessionTracker.java`, `LearnerHandler.java` of Apache ZooKeeper.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::info;

use super::connection::{Awaiting, Pending};
use super::expiry::ExpiryQueue;
use super::prepare::{Preparer, Write};
use super::request::{self, Kind};
use super::{ConnectionId, LocalSessionMode, Now, Replica, Role, SyncWaiter, decode, session};
use crate::codec::Reader;
use crate::id::{Epoch, SessionId, Xid};
use crate::tree::{Txn, TxnHeader, TxnOp};
use crate::zab::mutation::{self, Mutation};
use crate::zab::{Entry, ForwardedRequest, LinkId};
use crate::znode::{OpCode, OpError};

/// The state of a reign.
#[derive(Debug)]
pub(super) struct Leading {
    preparer: Preparer,
    /// Proposals that are not applied yet, oldest first.
    in_flight: VecDeque<InFlight>,
    pub(super) expiry: ExpiryQueue,
    /// Where each session is served, as far as that was heard of in this reign.
    owners: BTreeMap<SessionId, Origin>,
    /// Learners that ask about sessions whose end is proposed; they hear that it is so once it is.
    ending: BTreeMap<SessionId, Vec<LinkId>>,
    ended: Ended,
}

/// Sessions that have ended lately: their members may not know it yet, and pass on what they ask for. Where sessions may be
/// local, these are not to be taken for such.
#[derive(Debug, Default)]
struct Ended {
    sessions: BTreeSet<SessionId>,
    by_time: VecDeque<(Instant, SessionId)>,
}

impl Ended {
    /// Remembers a session for `duration`.
    fn add(&mut self, session: SessionId, duration: Duration, now: Instant) {
        while let Some((until, old)) = self.by_time.front().copied()
            && until <= now
        {
            self.by_time.pop_front();
            self.sessions.remove(&old);
        }
        if self.sessions.insert(session) {
            self.by_time.push_back((now + duration, session));
        }
    }
}

#[derive(Debug)]
struct InFlight {
    txn: Txn,
    connection: Option<ConnectionId>,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From a client that is connected here, or from this member itself.
    Own,
    /// From a learner.
    Learner(LinkId),
}

impl Leading {
    /// The txn of an entry that is committed, and who waits for it here.
    pub(super) fn take_in_flight(&mut self, entry: &Entry) -> (Txn, Option<ConnectionId>) {
        match self.in_flight.pop_front() {
            Some(in_flight) => {
                assert_eq!(in_flight.txn.header.zxid, entry.zxid, "commits come in the order of proposals");
                (in_flight.txn, in_flight.connection)
            }
            None => (decode(entry), None),
        }
    }

    /// Brings up to date what was computed beside the tree.
    pub(super) fn on_applied(&mut self, txn: &Txn, now: Now) {
        let session = txn.header.session;
        self.preparer.on_applied(txn.header.zxid);
        if let TxnOp::CloseSession { .. } = txn.op {
            self.preparer.on_session_closed(session);
            self.expiry.remove(session);
            self.owners.remove(&session);
        } else if let TxnOp::CreateSession { timeout_ms } = txn.op {
            self.preparer.on_session_created(session);
            self.expiry.touch(session, session::timeout(timeout_ms), now.monotonic);
        }
    }

    pub(super) fn check_invariants(&self, outstanding: usize) {
        assert_eq!(self.in_flight.len(), outstanding, "what is proposed is in flight");
        assert!(
            !self.in_flight.is_empty() || self.preparer.is_idle(),
            "nothing in flight, nothing tentative"
        );
    }
}

impl Replica {
    /// This member leads from now on.
    pub(super) fn on_led(&mut self, epoch: Epoch, now: Now) {
        info!(%epoch, zxid = %self.tree.last_zxid(), sessions = self.tree.sessions().len(), "serving as leader");
        self.counts.reigns += 1;
        let mut expiry = ExpiryQueue::new(now.monotonic, self.settings.peer.tick);
        // Nobody could be heard while there was no leader: every session gets its whole timeout again.
        for (session, timeout_ms) in self.tree.sessions().iter() {
            let timeout = session::timeout(timeout_ms);
            let is_short = mutation::is_on(Mutation::M16);
            expiry.touch(session, if is_short { Duration::ZERO } else { timeout }, now.monotonic);
        }
        self.close_served();
        self.note_service();
        self.local.on_served(&self.tree, now.monotonic);
        self.role = Role::Leading(Box::new(Leading {
            preparer: Preparer::default(),
            in_flight: VecDeque::new(),
            expiry,
            owners: BTreeMap::new(),
            ending: BTreeMap::new(),
            ended: Ended::default(),
        }));
        // A fuzzy snapshot may hold ephemerals of a session that it no longer lists.
        let orphaned: Vec<_> =
            self.tree.ephemeral_owners().filter(|owner| !self.tree.sessions().contains(*owner)).collect();
        for session in orphaned {
            self.propose_close(None, session, Xid(0), now);
        }
        self.serve_those_who_wait(now);
    }

    pub(super) fn expire_sessions(&mut self, now: Now) {
        let Role::Leading(leading) = &mut self.role else { return };
        for session in leading.expiry.take_expired(now.monotonic) {
            info!(%session, "session expired");
            self.propose_close(None, session, Xid(0), now);
        }
    }

    /// Whether the session exists, once everything proposed is applied; as far as this member can tell.
    pub(super) fn is_alive(&self, session: SessionId) -> bool {
        self.is_known_to_all(session) || self.local.contains(session)
    }

    /// The same of sessions that are not local.
    pub(super) fn is_known_to_all(&self, session: SessionId) -> bool {
        match &self.role {
            Role::Leading(leading) => leading.preparer.is_alive(&self.tree, session),
            Role::Learning(_) | Role::Idle { .. } | Role::ReadOnly(_) => {
                self.tree.sessions().contains(session)
            }
        }
    }

    /// Something was heard of a session whose client is connected here.
    pub(super) fn touch(&mut self, session: SessionId, timeout: Duration, now: Now) {
        if self.local.touch(session, timeout, now.monotonic) {
            return;
        }
        match &mut self.role {
            Role::Leading(leading) => {
                if leading.preparer.is_alive(&self.tree, session) {
                    leading.expiry.touch(session, timeout, now.monotonic);
                }
            }
            Role::Learning(learning) => learning.touch(session, timeout),
            Role::ReadOnly(sessions) => sessions.touch(session, timeout, now.monotonic),
            Role::Idle { .. } => {}
        }
    }

    /// Notes that the session is served at `origin` from now on.
    pub(super) fn own_session(&mut self, session: SessionId, origin: Origin) {
        if let Role::Leading(leading) = &mut self.role {
            leading.owners.insert(session, origin);
        }
    }

    /// Proposes the end of a session, and before it that of the ephemerals that are too many for one txn.
    pub(super) fn propose_close(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        cxid: Xid,
        now: Now,
    ) {
        let Role::Leading(leading) = &self.role else { return };
        for paths in leading.preparer.surplus_ephemerals(&self.tree, session) {
            self.propose(None, session, Xid(0), Write::DeleteEphemerals(paths), now);
        }
        self.propose(connection, session, cxid, Write::CloseSession, now);
    }

    /// Proposes a write that comes from `origin`, unless its session is served elsewhere by now.
    pub(super) fn propose_from(
        &mut self,
        origin: Origin,
        connection: Option<ConnectionId>,
        session: SessionId,
        cxid: Xid,
        write: Write,
        now: Now,
    ) {
        let Role::Leading(leading) = &mut self.role else { return };
        if let Write::CloseSession = write {
            return self.propose_close(connection, session, cxid, now);
        }
        if let Write::CreateSession(_) = write {
            if leading.ended.sessions.contains(&session) {
                let write = Write::Refused(OpError::SessionExpired);
                return self.propose(connection, session, cxid, write, now);
            }
            leading.owners.insert(session, origin);
        }
        // Where a session is served that the leader does not know is its member's business.
        let is_elsewhere = leading.preparer.is_known(&self.tree, session)
            && *leading.owners.entry(session).or_insert(origin) != origin;
        let write = if is_elsewhere { Write::Refused(OpError::SessionMoved) } else { write };
        self.propose(connection, session, cxid, write, now);
    }

    /// Whether the session may be one that another member alone knows, or is one that this member alone knows.
    fn may_be_local(&self, session: SessionId) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        let is_own = session.member_byte() == self.settings.peer.server_id.get();
        self.settings.local_sessions != LocalSessionMode::Off
            && (!is_own || self.local.contains(session))
            && !leading.ended.sessions.contains(&session)
    }

    /// Proposes a write. Its reply, if a connection waits for one, comes when it is applied.
    fn propose(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        cxid: Xid,
        write: Write,
        now: Now,
    ) {
        let may_be_local = self.may_be_local(session);
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(zxid) = self.peer.next_zxid() else {
            // The epoch's counter is used up: the next reign begins with an election. What is under way is not lost.
            return self.peer.resign("the epoch is used up", now.monotonic);
        };
        let shape = request::shape_of(&write);
        let op = leading.preparer.prepare(&self.tree, zxid, session, may_be_local, write);
        let txn = Txn { header: TxnHeader { session, cxid, zxid, time_ms: now.unix_ms }, op, digest: None };
        let entry = Entry { zxid, payload: txn.encode() };
        leading.in_flight.push_back(InFlight { txn, connection });
        self.peer.propose(entry);
        if let Some(id) = connection {
            self.enqueue(id, Pending { xid: cxid, awaiting: Awaiting::Commit { shape } });
        }
    }

    /// A learner passes on what a client of it asks for.
    pub(super) fn on_forwarded(&mut self, link: LinkId, request: ForwardedRequest, now: Now) {
        let ForwardedRequest { session, cxid, op_code, payload, .. } = request;
        // Its client is there, and the learner may be cut off before it can say so.
        if let Role::Leading(leading) = &mut self.role
            && leading.owners.get(&session).is_none_or(|owner| *owner == Origin::Learner(link))
        {
            leading.expiry.renew(session, now.monotonic);
        }
        if OpCode::from_code(op_code) == Some(OpCode::Sync) {
            return self.peer.sync_learner(link);
        }
        let write = write_of(op_code, &payload);
        self.propose_from(Origin::Learner(link), None, session, cxid, write, now);
    }

    /// A learner asks whether a session may go on at its place.
    pub(super) fn on_revalidate(&mut self, link: LinkId, session: SessionId, timeout_ms: i32, now: Now) {
        let Role::Leading(leading) = &mut self.role else { return };
        let is_valid = leading.preparer.is_alive(&self.tree, session);
        if !is_valid && self.tree.sessions().contains(session) {
            return leading.ending.entry(session).or_default().push(link);
        }
        if !is_valid {
            // Another may lead by now, and have opened it.
            self.syncs.push_back(SyncWaiter::Revalidation(link, session, timeout_ms));
            return self.peer.sync_own();
        }
        leading.owners.insert(session, Origin::Learner(link));
        leading.expiry.touch(session, session::timeout(timeout_ms), now.monotonic);
        self.peer.answer_revalidate(link, session, true);
    }

    /// A session has ended: whoever asked about it meanwhile is told.
    pub(super) fn tell_ended(&mut self, session: SessionId, now: Now) {
        let Role::Leading(leading) = &mut self.role else { return };
        if self.settings.local_sessions != LocalSessionMode::Off {
            // A follower that does not hear of it for so long is none any more.
            let peer = &self.settings.peer;
            leading.ended.add(session, peer.tick * (peer.sync_limit + 1), now.monotonic);
        }
        for link in leading.ending.remove(&session).unwrap_or_default() {
            self.peer.answer_revalidate(link, session, false);
        }
    }

    /// Learners have heard of these sessions.
    pub(super) fn on_touched(&mut self, sessions: &[(SessionId, i32)], now: Now) {
        let Role::Leading(leading) = &mut self.role else { return };
        for (session, timeout_ms) in sessions {
            if leading.preparer.is_alive(&self.tree, *session) {
                leading.expiry.touch(*session, session::timeout(*timeout_ms), now.monotonic);
            }
        }
    }
}

/// A forwarded request as a write. What cannot be carried out takes its place in the order all the same, since the learner
/// waits for it.
fn write_of(op_code: i32, payload: &Bytes) -> Write {
    let mut reader = Reader::new(payload);
    match OpCode::from_code(op_code) {
        Some(OpCode::CreateSession) => match reader.int("createSession.timeOut") {
            Ok(timeout_ms) => Write::CreateSession(timeout_ms),
            Err(_short) => Write::Refused(OpError::MarshallingError),
        },
        Some(OpCode::CloseSession) => Write::CloseSession,
        Some(OpCode::Reconfig) => Write::Refused(OpError::ReconfigDisabled),
        Some(op) => match request::kind_of(op, &mut reader) {
            Ok(Kind::Write(write)) => write,
            Ok(Kind::Read(_) | Kind::Sync(_) | Kind::Auth(_) | Kind::Unknown) => {
                Write::Refused(OpError::Unimplemented)
            }
            Err(_malformed) => Write::Refused(OpError::MarshallingError),
        },
        None => Write::Refused(OpError::Unimplemented),
    }
}
