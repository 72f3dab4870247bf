//! What goes into a replica and what comes out of it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::CodecError;
use crate::id::{Epoch, ServerId, Zxid};
use crate::zab::Entry;
use crate::znode::SessionTimeouts;

/// One socket of a client; never used again after it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The time, read once per input by the shell.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timeouts.
    pub monotonic: Instant,
    /// For the times that znodes carry, ms since 1970.
    pub unix_ms: i64,
}

/// What a member is told once.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// Who this member is.
    pub server_id: ServerId,
    /// The unit of session expiry.
    pub tick: Duration,
    /// The bounds of session timeouts.
    pub session_timeouts: SessionTimeouts,
    /// How long a connection may take to open its session.
    pub handshake_timeout: Duration,
    /// Txns between two snapshots.
    pub snapshot_txns: u64,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A client connected.
    Connected(ConnectionId),
    /// A client sent a frame.
    Frame(ConnectionId, Bytes),
    /// A client's socket is gone.
    Disconnected(ConnectionId),
    /// The log holds everything up to this txn durably.
    Durable(Zxid),
    /// The epoch asked for by [`Output::SetEpoch`] is on disk.
    EpochDurable(Epoch),
    /// The last snapshot slice was taken over; the next may come.
    SnapshotSliceWritten,
}

/// Something to do, in the order given.
#[derive(Debug)]
pub enum Output {
    /// Append to the log, sync, then say [`Input::Durable`].
    Append(Entry),
    /// Write acceptedEpoch, then currentEpoch, durably, then say [`Input::EpochDurable`].
    SetEpoch(Epoch),
    /// Start a new log file, and a snapshot named by this zxid.
    BeginSnapshot(Zxid),
    /// Append to the snapshot, then say [`Input::SnapshotSliceWritten`].
    SnapshotSlice(Vec<u8>),
    /// Complete the snapshot; the tree's digest as of the zxid.
    FinishSnapshot {
        /// The last txn applied when the last slice was written.
        zxid: Zxid,
        /// The tree's digest then.
        digest: u64,
    },
    /// Send the reply to one frame.
    Reply(ConnectionId, Vec<u8>),
    /// Send a watch notification, which answers no frame.
    Notify(ConnectionId, Vec<u8>),
    /// Send what is queued, then close.
    Close(ConnectionId, CloseReason),
}

/// Why a connection is closed from this side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// A frame that is no request.
    #[error("malformed request: {0}")]
    Malformed(#[from] CodecError),
    /// An operation that is not offered.
    #[error("operation {0} is not implemented")]
    UnknownOperation(i32),
    /// Credentials of a scheme that is not offered.
    #[error("authentication scheme {0:?} is not offered")]
    AuthRefused(String),
    /// The session asked for is gone, or the password is not its own.
    #[error("the session asked for does not exist")]
    NoSuchSession,
    /// The client has seen more than this member has.
    #[error("the client has seen {seen}, this member only {applied}")]
    ClientAhead {
        /// The newest zxid that the client has seen.
        seen: Zxid,
        /// The newest zxid that this member has applied.
        applied: Zxid,
    },
    /// The session was closed, as the client asked.
    #[error("session closed")]
    SessionClosed,
    /// Nothing was heard of the session for its timeout.
    #[error("session expired")]
    SessionExpired,
    /// The session came back over another connection.
    #[error("the session moved to another connection")]
    SessionMoved,
    /// No session was opened in time.
    #[error("no session was opened in time")]
    HandshakeTimeout,
    /// No epoch is established now.
    #[error("not serving yet")]
    NotServing,
}
