//! A client's frames: what is asked, and which way it goes.

use bytes::Bytes;

use super::connection::{Awaiting, Connection, Pending, Phase};
use super::leading::Origin;
use super::prepare::{ReplyShape, Write};
use super::{CloseReason, ConnectionId, Now, Replica, Role, SyncWaiter};
use crate::codec::{CodecError, Reader};
use crate::id::{SessionId, Xid};
use crate::wire::{MultiOp, Request, RequestHeader};
use crate::zab::ForwardedRequest;
use crate::zab::mutation::{self, Mutation};
use crate::znode::{OpCode, OpError};

/// A request by the way it goes.
#[derive(Debug)]
pub(super) enum Kind {
    /// It becomes a txn.
    Write(Write),
    /// It is answered from the tree.
    Read(Request),
    /// It waits for the leader; the path is echoed.
    Sync(String),
    /// Credentials of this scheme.
    Auth(String),
    /// Nobody here can carry it out.
    Unknown,
}

/// Reads the record of an operation.
///
/// # Errors
///
/// When it is not one.
pub(super) fn kind_of(op: OpCode, reader: &mut Reader<'_>) -> Result<Kind, CodecError> {
    let Some(request) = Request::decode(op, reader)? else { return Ok(Kind::Unknown) };
    Ok(match request {
        Request::Create(create) => Kind::Write(Write::Create(create)),
        Request::Create2(create) => Kind::Write(Write::Create2(create)),
        Request::Delete { path, version } => Kind::Write(Write::Delete { path, version }),
        Request::SetData { path, data, version } => Kind::Write(Write::SetData { path, data, version }),
        Request::SetAcl { path, acl, version } => Kind::Write(Write::SetAcl { path, acl, version }),
        Request::Multi(ops) => Kind::Write(Write::Multi(ops)),
        Request::CloseSession => Kind::Write(Write::CloseSession),
        Request::Sync { path } => Kind::Sync(path),
        Request::Auth { scheme, .. } => Kind::Auth(scheme),
        Request::Ping
        | Request::Exists { .. }
        | Request::GetData { .. }
        | Request::GetAcl { .. }
        | Request::GetChildren { .. }
        | Request::GetChildren2 { .. }
        | Request::SetWatches(_)
        | Request::SetWatches2(_)
        | Request::AddWatch { .. }
        | Request::CheckWatches { .. }
        | Request::RemoveWatches { .. } => Kind::Read(request),
    })
}

/// What the client is told once the write is applied, should it succeed.
pub(super) fn shape_of(write: &Write) -> ReplyShape {
    match write {
        Write::CreateSession(_) => ReplyShape::Session,
        Write::CloseSession | Write::DeleteEphemerals(_) | Write::Delete { .. } | Write::Refused(_) => {
            ReplyShape::Empty
        }
        Write::Create(_) => ReplyShape::Path,
        Write::Create2(_) => ReplyShape::PathStat,
        Write::SetData { .. } | Write::SetAcl { .. } => ReplyShape::Stat,
        Write::Multi(ops) => {
            let shape_of = |op: &MultiOp| match op {
                MultiOp::Create(_) => ReplyShape::Path,
                MultiOp::Create2(_) => ReplyShape::PathStat,
                MultiOp::Delete { .. } => ReplyShape::Empty,
                MultiOp::SetData { .. } => ReplyShape::Stat,
                MultiOp::Check { .. } => ReplyShape::Check,
            };
            ReplyShape::Multi(ops.iter().map(shape_of).collect())
        }
    }
}

impl Replica {
    pub(super) fn on_frame(&mut self, id: ConnectionId, frame: Bytes, now: Now) {
        let must_wait = matches!(self.role, Role::Idle { .. });
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match &mut connection.phase {
            Phase::Fresh { held, .. } if must_wait => {
                if held.is_some() {
                    return self.close(id, CloseReason::NotServing);
                }
                *held = Some(frame);
            }
            Phase::Fresh { .. } => self.on_connect_request(id, &frame, now),
            Phase::Opening { backlog, .. } => backlog.push_back(frame),
            Phase::Open { session, timeout } => {
                let (session, timeout) = (*session, *timeout);
                let must_wait = !connection.held.is_empty();
                if must_wait {
                    connection.held.push_back(frame.clone());
                }
                self.touch(session, timeout, now);
                if !must_wait {
                    self.on_request(id, session, &frame, now);
                }
            }
            Phase::Doubted { .. } | Phase::Leaving { .. } => {}
        }
    }

    /// Decodes a request and starts on it.
    fn on_request(&mut self, id: ConnectionId, session: SessionId, frame: &Bytes, now: Now) {
        let mut reader = Reader::new(frame);
        let header = match RequestHeader::decode(&mut reader) {
            Ok(header) => header,
            Err(error) => return self.close(id, error.into()),
        };
        let payload = frame.slice_ref(reader.remaining());
        let RequestHeader { xid, op_code } = header;
        let kind = match OpCode::from_code(op_code) {
            Some(OpCode::Reconfig) => {
                let awaiting = Awaiting::Turn(Err(OpError::ReconfigDisabled));
                return self.enqueue(id, Pending { xid, awaiting });
            }
            Some(op) => kind_of(op, &mut reader),
            None => Ok(Kind::Unknown),
        };
        match kind {
            Ok(Kind::Write(Write::CloseSession)) if self.is_read_only() => {
                self.local.remove(session);
                if let Role::ReadOnly(sessions) = &mut self.role {
                    sessions.remove(session);
                }
                self.take_leave(id, session, xid, Ok(()), CloseReason::SessionClosed);
            }
            Ok(Kind::Write(_) | Kind::Sync(_)) if self.is_read_only() => {
                let awaiting = Awaiting::Turn(Err(OpError::NotReadOnly));
                self.enqueue(id, Pending { xid, awaiting });
            }
            Ok(Kind::Write(_)) if self.awaits_sync(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.held.push_back(frame.clone());
                }
            }
            Ok(Kind::Write(write)) if !self.admit_local(id, session, xid, &write, now) => {}
            Ok(Kind::Write(write)) => match self.role {
                Role::Leading(_) => self.propose_from(Origin::Own, Some(id), session, xid, write, now),
                Role::Learning(_) => {
                    let shape = shape_of(&write);
                    let is_clients = true;
                    let request = ForwardedRequest { session, cxid: xid, op_code, payload, is_clients };
                    self.forward(Some(id), request, shape);
                }
                Role::Idle { .. } | Role::ReadOnly(_) => self.close(id, CloseReason::NotServing),
            },
            Ok(Kind::Read(request)) => {
                self.enqueue(id, Pending { xid, awaiting: Awaiting::Turn(Ok(request)) });
            }
            Ok(Kind::Sync(path)) => self.on_sync(id, session, xid, path, payload),
            Ok(Kind::Auth(scheme)) => {
                let reason = CloseReason::AuthRefused(scheme);
                self.take_leave(id, session, xid, Err(OpError::AuthFailed), reason);
            }
            Ok(Kind::Unknown) => {
                let reason = CloseReason::UnknownOperation(op_code);
                self.take_leave(id, session, xid, Err(OpError::Unimplemented), reason);
            }
            Err(error) => {
                self.take_leave(id, session, xid, Err(OpError::MarshallingError), error.into());
            }
        }
    }

    fn awaits_sync(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(Connection::awaits_sync)
    }

    /// A sync is done: what was held behind it goes on, up to the next.
    pub(super) fn release_held(&mut self, id: ConnectionId, now: Now) {
        while let Some(connection) = self.connections.get_mut(&id)
            && !connection.awaits_sync()
            && let Phase::Open { session, .. } = connection.phase
            && let Some(frame) = connection.held.pop_front()
        {
            self.on_request(id, session, &frame, now);
        }
    }

    /// A sync waits for everything that the leader has proposed, and for a quorum to say that it still follows.
    fn on_sync(&mut self, id: ConnectionId, session: SessionId, xid: Xid, path: String, payload: Bytes) {
        let is_done = mutation::is_on(Mutation::M18);
        self.enqueue(id, Pending { xid, awaiting: Awaiting::Sync { path, is_done } });
        self.syncs.push_back(SyncWaiter::Client(id));
        match self.role {
            Role::Leading(_) => self.peer.sync_own(),
            Role::Learning(_) => {
                let op_code = OpCode::Sync.code();
                let is_clients = true;
                self.peer.forward(ForwardedRequest { session, cxid: xid, op_code, payload, is_clients });
            }
            Role::Idle { .. } | Role::ReadOnly(_) => self.close(id, CloseReason::NotServing),
        }
    }

    pub(super) fn enqueue(&mut self, id: ConnectionId, pending: Pending) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.pending.push_back(pending);
        if connection.pending.len() == 1 {
            self.answer_pending(id);
        }
    }

    /// Answers a request in its turn, and closes the connection then.
    pub(super) fn take_leave(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        xid: Xid,
        result: Result<(), OpError>,
        reason: CloseReason,
    ) {
        self.enqueue(id, Pending { xid, awaiting: Awaiting::Farewell { result, reason } });
        self.enter(id, Phase::Leaving { session });
    }
}
