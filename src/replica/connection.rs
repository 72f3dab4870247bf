//! One client connection: what it has asked and not been told yet.
//!
//! Replies go out in the order of the requests. A read waits behind the connection's own writes and not behind
//! anybody else's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::CloseReason;
use super::prepare::ReplyShape;
use crate::id::{SessionId, Xid};
use crate::wire::Request;
use crate::znode::OpError;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    /// What it waits for, in the order of its requests.
    pub(super) pending: VecDeque<Pending>,
    /// Frames from the first write behind a sync on: what comes behind may not happen before what comes before.
    pub(super) held: VecDeque<Bytes>,
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// It has no session yet, and may take until the deadline; a first frame that came while there was no leader waits.
    Fresh { deadline: Instant, held: Option<Bytes> },
    /// Its session is being created, or the leader asked about it; what it sent meanwhile waits.
    Opening { session: SessionId, timeout: Duration, read_only: Option<bool>, backlog: VecDeque<Bytes> },
    /// Its session does not exist, unless another leads by now.
    Doubted { session: SessionId, read_only: Option<bool> },
    /// It has a session.
    Open { session: SessionId, timeout: Duration },
    /// It will be closed once it has been told what it waits for.
    Leaving { session: SessionId },
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
    Commit { shape: ReplyShape },
    /// The leader; then the path is echoed.
    Sync { path: String, is_done: bool },
    /// Its turn: to be read, or to be told what is wrong.
    Turn(Result<Request, OpError>),
    /// Its turn to be told the last word, with which the connection ends.
    Farewell { result: Result<(), OpError>, reason: CloseReason },
}

impl Connection {
    pub(super) const fn new(deadline: Instant) -> Self {
        Self { phase: Phase::Fresh { deadline, held: None }, pending: VecDeque::new(), held: VecDeque::new() }
    }

    /// Whether it has not asked for a session that could be looked at.
    pub(super) const fn is_fresh(&self) -> bool {
        matches!(self.phase, Phase::Fresh { .. })
    }

    /// Whether it waits for a sync.
    pub(super) fn awaits_sync(&self) -> bool {
        self.pending.iter().any(|pending| matches!(pending.awaiting, Awaiting::Sync { is_done: false, .. }))
    }

    /// Takes the first frame, if it waits for a leader.
    pub(super) fn take_held(&mut self) -> Option<Bytes> {
        match &mut self.phase {
            Phase::Fresh { held, .. } => held.take(),
            Phase::Opening { .. } | Phase::Doubted { .. } | Phase::Open { .. } | Phase::Leaving { .. } => {
                None
            }
        }
    }

    /// The session that the connection speaks for.
    pub(super) const fn session(&self) -> Option<SessionId> {
        match &self.phase {
            Phase::Fresh { .. } => None,
            Phase::Opening { session, .. }
            | Phase::Doubted { session, .. }
            | Phase::Open { session, .. }
            | Phase::Leaving { session } => Some(*session),
        }
    }
}
