//! One client connection: what it has asked and not been told yet.
//!
//! Replies go out in the order of the requests. A read waits behind the connection's own writes and not behind
//! anybody else's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::CloseReason;
use super::prepare::ReplyShape;
use crate::id::{SessionId, Xid, Zxid};
use crate::wire::Request;
use crate::znode::OpError;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    /// What it waits for, in the order of its requests.
    pub(super) pending: VecDeque<Pending>,
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing was received yet; it may take until the deadline.
    Fresh { deadline: Instant },
    /// Its session is being created; what it sent meanwhile waits.
    Opening { session: SessionId, timeout: Duration, read_only: Option<bool>, backlog: VecDeque<Bytes> },
    /// It has a session.
    Open { session: SessionId, timeout: Duration },
    /// It will be closed once it has been told what it waits for.
    Refusing { session: SessionId },
}

/// One request that is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) xid: Xid,
    pub(super) awaiting: Awaiting,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Awaiting {
    /// Its own txn.
    Commit { zxid: Zxid, shape: ReplyShape },
    /// Everything proposed before it; then the path is echoed.
    Barrier { zxid: Zxid, path: String },
    /// Its turn.
    Turn(Request),
    /// Its turn to be refused, with which the connection ends.
    Refusal { error: OpError, reason: CloseReason },
}

impl Connection {
    pub(super) const fn new(deadline: Instant) -> Self {
        Self { phase: Phase::Fresh { deadline }, pending: VecDeque::new() }
    }

    /// The session that the connection speaks for.
    pub(super) const fn session(&self) -> Option<SessionId> {
        match &self.phase {
            Phase::Fresh { .. } => None,
            Phase::Opening { session, .. } | Phase::Open { session, .. } | Phase::Refusing { session } => {
                Some(*session)
            }
        }
    }
}
