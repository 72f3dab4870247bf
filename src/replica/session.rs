//! Opening, resuming and numbering sessions.
//!
//! Source: `ZooKeeperServer.processConnectRequest`, `SessionTrackerImpl.initializeNextSessionId` of Apache ZooKeeper.
//! The password is checked before anything else happens to the session, so that knowing an id does not suffice to
//! cut off its owner, as it does there.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::connection::{Awaiting, Pending, Phase};
use super::leading::Origin;
use super::prepare::{ReplyShape, Write};
use super::{CloseReason, ConnectionId, LocalSessionMode, Now, Output, Replica, Role, SyncWaiter};
use crate::id::{ServerId, SessionId, Xid};
use crate::wire::{ConnectRequest, ConnectResponse, write_frame};
use crate::zab::ForwardedRequest;
use crate::znode::{OpCode, SessionPassword};

/// Makes session ids that no other member and no earlier run of this one made.
///
/// The top byte is the member, the next 40 bits the wall clock in ms at start, the rest a counter that may run over
/// into the clock's bits.
#[derive(Debug)]
pub(super) struct SessionIds {
    next: i64,
}

impl SessionIds {
    pub(super) fn new(server: ServerId, unix_ms: i64) -> Self {
        let clock = (unix_ms & 0xff_ffff_ffff) << 16;
        Self { next: i64::from_be_bytes([server.get(), 0, 0, 0, 0, 0, 0, 0]) | clock }
    }

    fn take(&mut self) -> SessionId {
        let id = SessionId(self.next);
        self.next += 1;
        id
    }
}

/// A stored timeout as a duration; those of foreign files may be anything.
pub(super) fn timeout(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}

/// A timeout as it is stored and sent.
pub(super) fn timeout_ms(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

impl Replica {
    /// The first frame of a connection.
    pub(super) fn on_connect_request(&mut self, id: ConnectionId, frame: &[u8], now: Now) {
        let request = match ConnectRequest::decode(frame) {
            Ok(request) => request,
            Err(error) => return self.close(id, error.into()),
        };
        let applied = self.tree.last_zxid();
        if request.last_zxid_seen > applied {
            return self.close(id, CloseReason::ClientAhead { seen: request.last_zxid_seen, applied });
        }
        if self.is_read_only() && request.read_only != Some(true) {
            return self.close(id, CloseReason::NotServing);
        }
        let timeout = self.settings.session_timeouts.negotiate(request.timeout_ms);
        if request.session == SessionId::NONE {
            self.create_session(id, timeout, request.read_only, now);
        } else {
            self.resume_session(id, &request, timeout, now);
        }
    }

    fn create_session(&mut self, id: ConnectionId, timeout: Duration, read_only: Option<bool>, now: Now) {
        let session = loop {
            let session = self.session_ids.take();
            if !self.is_alive(session) {
                break session;
            }
        };
        self.enter(id, Phase::Opening { session, timeout, read_only, backlog: VecDeque::new() });
        self.by_session.insert(session, id);
        if self.settings.local_sessions != LocalSessionMode::Off && self.is_serving() {
            self.local.open(session, timeout, now.monotonic);
            return self.on_session_opened(id, now);
        }
        match &mut self.role {
            Role::Leading(_) | Role::Learning(_) => self.propose_session(Some(id), session, timeout, now),
            // Nobody else hears of it, and it ends with the role.
            Role::ReadOnly(sessions) => {
                // Those of clients that are gone.
                drop(sessions.take_expired(now.monotonic));
                sessions.touch(session, timeout, now.monotonic);
                self.on_session_opened(id, now);
            }
            Role::Idle { .. } => self.close(id, CloseReason::NotServing),
        }
    }

    /// Makes a session known to everybody; a connection may wait for that.
    pub(super) fn propose_session(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        timeout: Duration,
        now: Now,
    ) {
        let (cxid, timeout_ms) = (Xid(0), timeout_ms(timeout));
        match self.role {
            Role::Leading(_) => {
                let write = Write::CreateSession(timeout_ms);
                self.propose_from(Origin::Own, connection, session, cxid, write, now);
            }
            Role::Learning(_) => {
                let op_code = OpCode::CreateSession.code();
                let payload = Bytes::copy_from_slice(&timeout_ms.to_be_bytes());
                let request = ForwardedRequest { session, cxid, op_code, payload, is_clients: false };
                self.forward(connection, request, ReplyShape::Session);
            }
            Role::Idle { .. } | Role::ReadOnly(_) => {}
        }
    }

    fn resume_session(&mut self, id: ConnectionId, request: &ConnectRequest, timeout: Duration, now: Now) {
        let session = request.session;
        let is_owner = request.password == SessionPassword::for_session(session);
        let is_leading = matches!(self.role, Role::Leading(_));
        // Only the leader knows; a learner may not have heard of it yet.
        if !is_owner || is_leading && !self.is_alive(session) {
            if is_owner && self.tree.sessions().contains(session) {
                // Its end is proposed, and may come to nothing: that it is gone is said once it is so.
                return self.close(id, CloseReason::NotServing);
            }
            if is_owner {
                // That a session is gone is for ever, and another may lead by now, and have opened it.
                let read_only = request.read_only;
                self.enter(id, Phase::Doubted { session, read_only });
                self.syncs.push_back(SyncWaiter::Refusal(id));
                return self.peer.sync_own();
            }
            return self.refuse_session(id, request.read_only);
        }
        if let Role::ReadOnly(sessions) = &self.role
            && sessions.timeout(session).is_none()
            && !self.local.contains(session)
        {
            // It may have expired where there is a quorum, while its client, connected, would take it for alive.
            return self.close(id, CloseReason::OutOfReach);
        }
        if let Some(old) = self.by_session.get(&session).copied() {
            self.close(old, CloseReason::SessionMoved);
        }
        self.by_session.insert(session, id);
        let read_only = request.read_only;
        self.enter(id, Phase::Opening { session, timeout, read_only, backlog: VecDeque::new() });
        if self.local.touch(session, timeout, now.monotonic) {
            return self.on_session_opened(id, now);
        }
        match &mut self.role {
            Role::Leading(_) => {
                self.own_session(session, Origin::Own);
                self.touch(session, timeout, now);
                self.on_session_opened(id, now);
            }
            Role::Learning(_) => self.revalidate(id, session, timeout),
            Role::ReadOnly(sessions) => {
                sessions.touch(session, timeout, now.monotonic);
                self.on_session_opened(id, now);
            }
            Role::Idle { .. } => self.close(id, CloseReason::NotServing),
        }
    }

    /// This member leads, for certain: a session that it does not know does not exist.
    pub(super) fn on_doubt_settled(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Phase::Doubted { session, read_only } = connection.phase else { return };
        if self.is_alive(session) {
            return self.close(id, CloseReason::NotServing);
        }
        self.refuse_session(id, read_only);
    }

    /// Tells a client that its session is gone, or not its own.
    pub(super) fn refuse_session(&mut self, id: ConnectionId, read_only: Option<bool>) {
        let response = ConnectResponse::expired(read_only);
        self.outputs.push_back(Output::Reply(id, encode(&response).into()));
        self.close(id, CloseReason::NoSuchSession);
    }

    /// Tells a connection that it has its session.
    fn open(&mut self, id: ConnectionId, session: SessionId, timeout: Duration, read_only: Option<bool>) {
        self.enter(id, Phase::Open { session, timeout });
        let response = ConnectResponse {
            timeout_ms: timeout_ms(timeout),
            session,
            password: SessionPassword::for_session(session),
            read_only: read_only.map(|_accepts_read_only| self.is_read_only()),
        };
        self.outputs.push_back(Output::Reply(id, encode(&response).into()));
    }

    /// The session of a connection was created, or may go on: it is open, and what it sent meanwhile is looked at.
    pub(super) fn on_session_opened(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Phase::Opening { session, timeout, read_only, backlog } = &mut connection.phase else { return };
        let (session, timeout, read_only, backlog) =
            (*session, *timeout, *read_only, std::mem::take(backlog));
        self.open(id, session, timeout, read_only);
        for frame in backlog {
            self.on_frame(id, frame, now);
        }
    }
}

/// Whether a pending entry is the creation of the connection's own session.
pub(super) const fn is_session_opening(pending: &Pending) -> bool {
    matches!(pending.awaiting, Awaiting::Commit { shape: ReplyShape::Session })
}

fn encode(response: &ConnectResponse) -> Vec<u8> {
    let mut frame = Vec::with_capacity(41);
    write_frame(&mut frame, |out| response.encode(out));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_member_and_the_clock_and_never_repeat() {
        let mut ids = SessionIds::new(ServerId::new(3).unwrap(), 0x1_23456789ab);
        let (first, second) = (ids.take(), ids.take());
        assert_eq!(first, SessionId(0x0323_4567_89ab_0000));
        assert_ne!(first, second);
        let mut highest = SessionIds::new(ServerId::new(254).unwrap(), 0);
        assert!(highest.take().0 < 0, "the top byte is the sign's too");
    }
}
