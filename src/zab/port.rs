//! What goes into a peer and what comes out of it.

use std::time::Duration;

use bytes::Bytes;

use super::{Entry, ForwardedRequest, Notification, Packet, Quorum};
use crate::id::{Epoch, ServerId, SessionId, Zxid};

/// One connection between a learner and its leader; never used again after it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a peer is told once.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// Who this member is.
    pub server_id: ServerId,
    /// Who votes.
    pub quorum: Quorum,
    /// Who only listens.
    pub observers: Vec<ServerId>,
    /// The text of the configuration that is sent along with votes and with NEWLEADER, and shown to clients.
    pub config: Bytes,
    /// The unit of the limits that follow.
    pub tick: Duration,
    /// How many ticks a learner may take to connect and to be synchronized.
    pub init_limit: u32,
    /// How many ticks a synchronized learner or its leader may be silent.
    pub sync_limit: u32,
    /// How long to wait for a better vote from a voter that is connected and has said nothing yet.
    pub finalize_wait: Duration,
    /// The pause before a vote that was not answered is sent again, doubled each time.
    pub resend_min: Duration,
    /// The longest such pause.
    pub resend_max: Duration,
    /// The pause before a leader that does not answer is dialled again.
    pub redial_pause: Duration,
    /// Committed entries that are kept in memory for learners that lack a few.
    pub window_entries: usize,
    /// Bytes of what is committed that this member's log may be behind by: they wait in memory. One that is further behind gives up
    /// leading or following until its disk has caught up.
    pub lag_bytes_max: usize,
    /// Whether a member without any history may vote, though it may have lost what it had.
    pub force_bootstrap: bool,
}

impl PeerSettings {
    /// Apache ZooKeeper's defaults for a member of this quorum.
    pub fn new(server_id: ServerId, quorum: Quorum) -> Self {
        Self {
            server_id,
            quorum,
            observers: Vec::new(),
            config: Bytes::new(),
            tick: Duration::from_secs(2),
            init_limit: 10,
            sync_limit: 5,
            finalize_wait: Duration::from_millis(200),
            resend_min: Duration::from_millis(200),
            resend_max: Duration::from_secs(60),
            redial_pause: Duration::from_millis(20),
            window_entries: 500,
            lag_bytes_max: 256 << 20,
            force_bootstrap: false,
        }
    }
}

/// What the disk held when the member started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The last txn of the snapshot.
    pub snapshot: Zxid,
    /// The entries after it.
    pub tail: Vec<Entry>,
    /// The last txn that is known to be committed, if that is one of these; those after it may be or not.
    pub committed: Zxid,
    /// Up to which epoch the member has promised to follow nobody older.
    pub accepted_epoch: Epoch,
    /// The epoch in which it was last synchronized; `None` when it never was, or has forgotten it.
    pub current_epoch: Option<Epoch>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A message on the election port.
    Notification(ServerId, Notification),
    /// The election port's connection to this member is there, or gone.
    Reachable(ServerId, bool),
    /// A learner has connected to the quorum port.
    Accepted(LinkId),
    /// The outcome of [`Output::Dial`]; `None` when it failed.
    Dialled {
        /// Which dial.
        attempt: u64,
        /// The connection.
        link: Option<LinkId>,
    },
    /// A connection is gone.
    LinkClosed(LinkId),
    /// A packet has come.
    Packet(LinkId, Packet),
    /// Parts of a snapshot have come, or were taken by the connection: the other end seems to be there, though it says nothing.
    Progress(LinkId),
    /// The body of a snapshot has come, behind its packet.
    SnapshotReceived(LinkId, Bytes),
    /// The log holds everything up to here durably.
    Durable(Zxid),
    /// The accepted epoch is on disk.
    AcceptedEpochDurable(Epoch),
    /// The current epoch is on disk, and so is all that was to be appended before.
    CurrentEpochDurable(Epoch),
    /// The disk was read again after a truncation.
    Reloaded(Recovery),
    /// What [`Output::ReadLog`] asked for; `None` when the log cannot tell.
    LogRead {
        /// For whom.
        link: LinkId,
        /// The entries after the zxid asked for.
        entries: Option<Vec<Entry>>,
    },
}

/// Something to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message over the election port.
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
    /// Send what is queued, then close.
    CloseLink(LinkId),
    /// Append to the log, sync, then say [`Input::Durable`].
    Append(Entry),
    /// Write acceptedEpoch durably, then say [`Input::AcceptedEpochDurable`].
    SetAcceptedEpoch(Epoch),
    /// Write currentEpoch durably, after everything appended, then say [`Input::CurrentEpochDurable`].
    SetCurrentEpoch(Epoch),
    /// Cut everything after this zxid off the log.
    Truncate {
        /// The last txn to keep.
        zxid: Zxid,
        /// Whether the tree holds what is cut off: then read it again, and say [`Input::Reloaded`].
        is_reload: bool,
    },
    /// Read the log after this zxid, then say [`Input::LogRead`].
    ReadLog {
        /// For whom.
        link: LinkId,
        /// The last txn that the learner has.
        after: Zxid,
    },
    /// For the tree, the sessions and the clients.
    Event(Event),
}

/// What the replica is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A quorum holds this: apply it.
    Deliver(Entry),
    /// This member leads from now on; everything in its history was delivered.
    Led(Epoch),
    /// This member follows, or observes, and has everything: serve.
    Followed {
        /// Whom.
        leader: ServerId,
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// There is no leader any more.
    Lost,
    /// A learner passes on a request.
    Request(LinkId, ForwardedRequest),
    /// A learner asks whether a session may go on at its place.
    Revalidate {
        /// Which learner.
        link: LinkId,
        /// The session.
        session: SessionId,
        /// Its timeout in ms.
        timeout_ms: i32,
    },
    /// A learner has heard of these sessions.
    Touched(Vec<(SessionId, i32)>),
    /// The leader has answered.
    Revalidated {
        /// The session.
        session: SessionId,
        /// Whether it is alive.
        is_valid: bool,
    },
    /// The leader wants to know which sessions were heard of: give them to [`super::Peer::answer_ping`].
    Pinged(Zxid),
    /// The oldest sync of this member's own clients is done.
    Synced,
    /// A learner needs the tree: send a snapshot of it over this connection.
    SendSnapshot(LinkId),
    /// Replace the tree by the snapshot in `body`, and write it to disk, durably; then [`Input::Durable`] names it.
    InstallSnapshot {
        /// Its last txn.
        zxid: Zxid,
        /// As it stands in a snapshot file between header and seal.
        body: Bytes,
    },
    /// A learner was synchronized, or this member was, in this way.
    Synchronizing {
        /// The other end, where it is known.
        peer: Option<ServerId>,
        /// How.
        mode: SyncMode,
    },
}

/// How a learner is brought up to its leader's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncMode {
    /// It gets what it lacks.
    Diff,
    /// It gives up what nobody else has, then gets what it lacks.
    Trunc,
    /// It gets everything.
    Snap,
}

impl SyncMode {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Diff => "DIFF",
            Self::Trunc => "TRUNC",
            Self::Snap => "SNAP",
        }
    }
}
