//! What a member is started with.

use std::path::PathBuf;
use std::time::Duration;

use super::four_letter::FourLetterWord;
use crate::id::ServerId;
use crate::replica::ReplicaSettings;
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
    /// The unit of session timeouts (2 s): the shortest is 2 ticks, the longest 20, and expiry is exact to 2.
    pub tick: Duration,
    /// The longest request in bytes (1 MiB - 1); must be the same on every member.
    pub frame_bytes_max: usize,
    /// Client connections at a time (10 000); more are closed at once.
    pub connections_max: usize,
    /// The four-letter words that are answered on the client port (`srvr`).
    pub four_letter_words: Vec<FourLetterWord>,
    /// How long a connection may take to open its session (10 s).
    pub handshake_timeout: Duration,
    /// Txns between two snapshots (100 000).
    pub snapshot_txns: u64,
    /// Snapshots that are kept, with the logs they need (3).
    pub snapshots_kept: usize,
}

impl Default for MemberSettings {
    fn default() -> Self {
        Self {
            server_id: ServerId::STANDALONE,
            data_dir: PathBuf::from("data"),
            tick: Duration::from_secs(2),
            frame_bytes_max: FRAME_BYTES_MAX,
            connections_max: 10_000,
            four_letter_words: vec![FourLetterWord::Srvr],
            handshake_timeout: Duration::from_secs(10),
            snapshot_txns: 100_000,
            snapshots_kept: 3,
        }
    }
}

impl MemberSettings {
    /// What the replica needs to know of them.
    pub(super) fn replica(&self) -> ReplicaSettings {
        let quorum = Quorum::majority_of([self.server_id]);
        ReplicaSettings {
            peer: PeerSettings { tick: self.tick, ..PeerSettings::new(self.server_id, quorum) },
            session_timeouts: SessionTimeouts::from_tick(self.tick),
            handshake_timeout: self.handshake_timeout,
            snapshot_txns: self.snapshot_txns,
            snapshot_bytes: SNAPSHOT_BYTES,
            read_only_mode: false,
        }
    }
}

/// Bytes of txns between two snapshots.
const SNAPSHOT_BYTES: u64 = 256 << 20;
