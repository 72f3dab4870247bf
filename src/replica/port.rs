//! What goes into a replica and what comes out of it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::CodecError;
use crate::id::{Epoch, ServerId, Zxid};
use crate::tree::Tree;
use crate::zab::{Entry, LinkId, Notification, Packet, PeerSettings};
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

/// Whether sessions may be known to one member alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalSessionMode {
    /// Every session is a txn, known to all members.
    #[default]
    Off,
    /// Sessions are known where they were opened, and may not create ephemeral znodes.
    On,
    /// So they are until they create an ephemeral znode; then all members know them.
    Upgraded,
}

/// What a member is told once.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// Who this member is, who the others are, and how long they may take.
    pub peer: PeerSettings,
    /// The bounds of session timeouts.
    pub session_timeouts: SessionTimeouts,
    /// How long a connection may take to open its session.
    pub handshake_timeout: Duration,
    /// Txns between two snapshots.
    pub snapshot_txns: u64,
    /// Whether clients that are content with it may read what this member has while it finds no leader. Then it is written down now
    /// and then how far that is, too.
    pub read_only_mode: bool,
    /// Whether sessions may be known to one member alone; must be the same on every member.
    pub local_sessions: LocalSessionMode,
    /// Bytes of txns between two snapshots: a start reads no more than these into memory.
    pub snapshot_bytes: u64,
}

/// What the disk held.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The newest snapshot's tree.
    pub tree: Tree,
    /// The entries that the log holds after it.
    pub tail: Vec<Entry>,
    /// The last txn that is known to be committed; entries after it may be or not.
    pub committed: Zxid,
    /// Up to where the snapshot may hold parts of what comes after its last txn: until then digests cannot be compared.
    pub fuzzy_to: Zxid,
    /// The epoch up to which the member has promised to follow nobody older; 0 when it never did.
    pub accepted_epoch: Epoch,
    /// The epoch in which the member was last synchronized; `None` when it never was.
    pub current_epoch: Option<Epoch>,
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
    /// The last snapshot slice was taken over; the next may come.
    SnapshotSliceWritten,
    /// The log holds everything up to this txn durably.
    Durable(Zxid),
    /// The epoch asked for by [`Output::SetAcceptedEpoch`] is on disk.
    AcceptedEpochDurable(Epoch),
    /// The epoch asked for by [`Output::SetCurrentEpoch`] is on disk.
    CurrentEpochDurable(Epoch),
    /// What the disk holds after a truncation that asked for it.
    Reloaded(Box<Recovery>),
    /// What [`Output::ReadLog`] asked for; `None` when the log cannot tell.
    LogRead {
        /// For whom.
        link: LinkId,
        /// The entries after the zxid asked for.
        entries: Option<Vec<Entry>>,
    },
    /// A member sent a message on the election port.
    Notification(ServerId, Notification),
    /// The election port's connection to this member is there, or gone.
    Reachable(ServerId, bool),
    /// A learner has connected to the quorum port. Ids of accepted and dialled connections are never used twice.
    Accepted(LinkId),
    /// The outcome of [`Output::Dial`]; `None` when it failed.
    Dialled {
        /// Which dial.
        attempt: u64,
        /// The connection.
        link: Option<LinkId>,
    },
    /// A packet has come on the quorum port, or on a connection that was dialled.
    Packet(LinkId, Packet),
    /// Parts of a snapshot have come, or were taken by the connection.
    Progress(LinkId),
    /// The body of a snapshot has come, behind its packet: what stands in a file between header and seal.
    SnapshotReceived(LinkId, Bytes),
    /// A connection between members is gone, or what came over it was no packet. Not said after [`Output::CloseLink`].
    LinkClosed(LinkId),
}

/// Something to do, in the order given.
#[derive(Debug)]
pub enum Output {
    /// Append to the log, sync, then say [`Input::Durable`].
    Append(Entry),
    /// Write acceptedEpoch durably, then say [`Input::AcceptedEpochDurable`].
    SetAcceptedEpoch(Epoch),
    /// Sync the log, then write currentEpoch durably, then say [`Input::CurrentEpochDurable`].
    SetCurrentEpoch(Epoch),
    /// Cut everything after this zxid off the log, durably.
    Truncate {
        /// The last txn to keep.
        zxid: Zxid,
        /// Whether to read the disk again and say [`Input::Reloaded`].
        is_reload: bool,
    },
    /// Replace snapshot and log by this snapshot, durably, and drop one that is being written; then say
    /// [`Input::Durable`] with its zxid.
    InstallSnapshot {
        /// Its last txn.
        zxid: Zxid,
        /// What stands in a file between header and seal.
        body: Bytes,
    },
    /// Read the log after this zxid, then say [`Input::LogRead`].
    ReadLog {
        /// For whom.
        link: LinkId,
        /// The last txn that the learner has.
        after: Zxid,
    },
    /// Note, behind the next sync of the log, that this entry is committed and all before it, unless the history is cut off or
    /// replaced before that; no answer is needed.
    RecordCommitted(Entry),
    /// Send a message over the election port to this member, in place of one that is still waiting there.
    SendVote(ServerId, Notification),
    /// Connect to this member's quorum port, then say [`Input::Dialled`].
    Dial {
        /// Which dial.
        attempt: u64,
        /// Whom.
        server: ServerId,
    },
    /// Send a packet.
    Send(LinkId, Packet),
    /// Send SNAP, this body, and [`crate::zab::SNAPSHOT_END`].
    SendSnapshot {
        /// To whom.
        link: LinkId,
        /// Its last txn.
        zxid: Zxid,
        /// What stands in a file between header and seal.
        body: Bytes,
    },
    /// Send what is queued, then close.
    CloseLink(LinkId),
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
    Reply(ConnectionId, Bytes),
    /// Send a watch notification, which answers no frame. Many clients are sent the same one.
    Notify(ConnectionId, Bytes),
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
    /// The session is known to all members, of which this one has lost touch: it serves sessions of its own alone.
    #[error("the session is one of the whole ensemble, which this member has lost")]
    OutOfReach,
    /// No epoch is established now.
    #[error("not serving yet")]
    NotServing,
}
