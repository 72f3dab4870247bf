//! What a member is started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::four_letter::FourLetterWord;
use super::members::{MemberRole, Members};
use crate::id::ServerId;
use crate::replica::{LocalSessionMode, ReplicaSettings};
use crate::tls::TlsFiles;
use crate::wire::FRAME_BYTES_MAX;
use crate::zab::{PeerSettings, Quorum};
use crate::znode::SessionTimeouts;

/// Settings of one member. Defaults are Apache ZooKeeper's where it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSettings {
    /// Who this member is; 1 for one that runs alone.
    pub server_id: ServerId,
    /// Where `version-2/` with log, snapshots and epochs lies.
    pub data_dir: PathBuf,
    /// Where `version-2/` with the log lies, if it is to have a disk of its own (none).
    pub log_dir: Option<PathBuf>,
    /// The unit of session timeouts (2 s): the shortest is 2 ticks, the longest 20, and expiry is exact to 2.
    pub tick: Duration,
    /// The bounds of session timeouts; those that follow from the tick unless set.
    pub session_timeouts: Option<SessionTimeouts>,
    /// The longest request in bytes (1 MiB - 1); must be the same on every member.
    pub frame_bytes_max: usize,
    /// Client connections at a time (10 000); more are closed at once.
    pub connections_max: usize,
    /// Those from one address (as many as in all).
    pub address_connections_max: Option<usize>,
    /// The four-letter words that are answered on the client port (`srvr`).
    pub four_letter_words: Vec<FourLetterWord>,
    /// How long a connection may take to open its session (10 s).
    pub handshake_timeout: Duration,
    /// Txns between two snapshots (100 000).
    pub snapshot_txns: u64,
    /// Bytes of txns between two snapshots (256 MiB): a start reads no more than these into memory.
    pub snapshot_bytes: u64,
    /// Snapshots that are kept, with the logs they need (3).
    pub snapshots_kept: usize,
    /// Whether clients that are content with it may read while there is no leader (no).
    pub read_only_mode: bool,
    /// Whether sessions may be known to one member alone (no).
    pub local_sessions: LocalSessionMode,
    /// Whether to take over another set of voters than the one recorded with the data (no).
    pub accept_members: bool,
    /// The other members; `None` for one that runs alone.
    pub peers: Option<PeersSettings>,
}

/// What a member needs to know of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersSettings {
    /// All members, this one among them.
    pub members: Arc<Members>,
    /// Where to listen for the others, in place of this member's own host; `None` for that host.
    pub listen_host: Option<String>,
    /// Ticks that a learner may take to connect and to be synchronized (10).
    pub init_limit: u32,
    /// Ticks that a synchronized learner, or its leader, may be silent (5).
    pub sync_limit: u32,
    /// How long it may take to connect to a member, and for one that connects to say who it is (5 s).
    pub connect_timeout: Duration,
    /// TLS between members; the same on each (none).
    pub tls: Option<TlsFiles>,
    /// How long to wait for a better vote from a voter that is connected and has said nothing yet (200 ms).
    pub finalize_wait: Duration,
    /// Committed txns kept in memory for learners that lack a few (500).
    pub commit_log_count: usize,
    /// Bytes that may wait to be written to one member, without what brings it up to date (64 MiB); one that lets more gather is let go, and
    /// comes back for what it lacks.
    pub link_bytes_max: usize,
    /// The longest snapshot that is taken over from a leader, in bytes (2 GiB): it is held in memory.
    pub snapshot_bytes_max: u64,
    /// Whether a member without any history may vote, though it may have lost what it had (no).
    pub force_bootstrap: bool,
}

impl PeersSettings {
    /// Defaults for these members.
    pub fn of(members: Members) -> Self {
        Self {
            members: Arc::new(members),
            listen_host: None,
            init_limit: 10,
            sync_limit: 5,
            connect_timeout: Duration::from_secs(5),
            tls: None,
            finalize_wait: Duration::from_millis(200),
            commit_log_count: 500,
            link_bytes_max: 64 << 20,
            snapshot_bytes_max: 2 << 30,
            force_bootstrap: false,
        }
    }
}

impl Default for MemberSettings {
    fn default() -> Self {
        Self {
            server_id: ServerId::STANDALONE,
            data_dir: PathBuf::from("data"),
            log_dir: None,
            tick: Duration::from_secs(2),
            session_timeouts: None,
            frame_bytes_max: FRAME_BYTES_MAX,
            connections_max: 10_000,
            address_connections_max: None,
            four_letter_words: vec![FourLetterWord::Srvr],
            handshake_timeout: Duration::from_secs(10),
            snapshot_txns: 100_000,
            snapshot_bytes: 256 << 20,
            snapshots_kept: 3,
            read_only_mode: false,
            local_sessions: LocalSessionMode::Off,
            accept_members: false,
            peers: None,
        }
    }
}

impl MemberSettings {
    /// Who votes.
    pub(super) fn quorum(&self) -> Quorum {
        match &self.peers {
            Some(peers) => peers.members.quorum(),
            None => Quorum::majority_of([self.server_id]),
        }
    }

    /// What the replica needs to know of them.
    pub(super) fn replica(&self) -> ReplicaSettings {
        let alone = PeerSettings { tick: self.tick, ..PeerSettings::new(self.server_id, self.quorum()) };
        let peer = match &self.peers {
            None => alone,
            Some(peers) => PeerSettings {
                observers: peers.members.with_role(MemberRole::Observer).collect(),
                config: peers.members.to_config_text().into(),
                init_limit: peers.init_limit,
                sync_limit: peers.sync_limit,
                finalize_wait: peers.finalize_wait,
                window_entries: peers.commit_log_count,
                force_bootstrap: peers.force_bootstrap,
                ..alone
            },
        };
        ReplicaSettings {
            peer,
            session_timeouts: self.session_timeouts.unwrap_or(SessionTimeouts::from_tick(self.tick)),
            handshake_timeout: self.handshake_timeout,
            snapshot_txns: self.snapshot_txns,
            snapshot_bytes: self.snapshot_bytes,
            read_only_mode: self.read_only_mode,
            local_sessions: self.local_sessions,
        }
    }
}
