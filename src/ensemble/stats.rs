//! What a member counts, read by metrics without asking the driver.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::time::Duration;

use crate::id::Zxid;
use crate::replica::Replica;
use crate::zab::ServerState;

/// Counters and gauges of one member.
#[derive(Debug, Default)]
pub struct MemberStats {
    /// Txns applied.
    pub commits: AtomicU64,
    /// Batches synced to disk.
    pub syncs: AtomicU64,
    /// Time spent in syncs, in µs.
    pub sync_us: AtomicU64,
    /// The longest sync, in µs.
    pub sync_us_max: AtomicU64,
    /// Frames received from clients.
    pub received: AtomicU64,
    /// Frames received and not answered yet, of connections that are still there.
    pub outstanding: AtomicU64,
    /// Frames sent to clients: replies and notifications.
    pub sent: AtomicU64,
    /// Replies among the frames sent.
    pub replies: AtomicU64,
    /// Time from frames to their replies, in µs.
    pub latency_us: AtomicU64,
    /// The shortest of them in µs, plus one; 0 before the first.
    pub latency_us_min: AtomicU64,
    /// The longest of them, in µs.
    pub latency_us_max: AtomicU64,
    /// Client connections open now.
    pub connections: AtomicU64,
    /// Connections closed because of what the client sent.
    pub refusals: AtomicU64,
    /// Bytes of replies and notifications that wait until clients read.
    pub waiting_bytes: AtomicU64,
    /// Connections closed to make room, since their clients did not read.
    pub cut_off: AtomicU64,
    /// Paths watched by the clients connected now.
    pub watched_paths: AtomicU64,
    /// Sessions alive that all members know.
    pub sessions: AtomicU64,
    /// Sessions alive that this member alone knows.
    pub local_sessions: AtomicU64,
    /// Znodes in the tree.
    pub znodes: AtomicU64,
    /// The last zxid applied.
    pub zxid: AtomicU64,
    /// Whether this member is an ensemble of its own.
    pub is_alone: AtomicBool,
    /// Whether clients are served.
    pub is_serving: AtomicBool,
    /// Whether it has lost its leader, and serves those clients that are content with what it has.
    pub is_read_only: AtomicBool,
    /// What the member is doing, see [`MemberStats::state`].
    pub state: AtomicU8,
    /// The leader's server id, 0 while there is none.
    pub leader: AtomicU64,
    /// The epoch that the member's history belongs to.
    pub epoch: AtomicU64,
    /// Times that this member began to lead.
    pub reigns: AtomicU64,
    /// Times that it lost its leader, or its leadership.
    pub losses: AtomicU64,
    /// Learners that are up to date with this leader.
    pub learners: AtomicU64,
    /// Those of them that vote.
    pub followers: AtomicU64,
    /// Proposals logged and not known to be committed.
    pub proposals: AtomicU64,
    /// Learners brought up by this leader, and times that this member was, by DIFF, TRUNC and SNAP.
    pub syncs_by_mode: [AtomicU64; 3],
    /// Txns after which the tree's digest was not the leader's.
    pub digest_mismatches: AtomicU64,
}

/// How long clients waited for replies, in ms as ZooKeeper tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latency {
    pub(super) min_ms: u64,
    pub(super) average_ms: f64,
    pub(super) max_ms: u64,
}

impl MemberStats {
    /// What the member is doing.
    pub fn state(&self) -> ServerState {
        match self.state.load(Relaxed) {
            1 => ServerState::Following,
            2 => ServerState::Leading,
            3 => ServerState::Observing,
            _ => ServerState::Looking,
        }
    }

    /// Takes over what the replica counts.
    pub(super) fn observe(&self, replica: &Replica) {
        let (tree, peer, counts) = (replica.tree(), replica.peer(), replica.counts());
        self.commits.store(counts.applied_txns, Relaxed);
        self.watched_paths.store(replica.watched_paths() as u64, Relaxed);
        self.zxid.store(tree.last_zxid().raw().cast_unsigned(), Relaxed);
        self.znodes.store(tree.node_count() as u64, Relaxed);
        self.sessions.store(tree.sessions().len() as u64, Relaxed);
        self.local_sessions.store(replica.local_sessions() as u64, Relaxed);
        self.is_serving.store(replica.is_serving(), Relaxed);
        self.is_read_only.store(replica.is_read_only(), Relaxed);
        self.state.store(peer.state() as u8, Relaxed);
        self.leader.store(peer.leader().map_or(0, |(leader, _)| leader.get().into()), Relaxed);
        self.epoch.store(peer.epochs().1.0.into(), Relaxed);
        self.reigns.store(counts.reigns, Relaxed);
        self.losses.store(counts.losses, Relaxed);
        let (learners, followers) = peer.learners();
        self.learners.store(learners as u64, Relaxed);
        self.followers.store(followers as u64, Relaxed);
        self.proposals.store(peer.outstanding() as u64, Relaxed);
        for (stat, count) in self.syncs_by_mode.iter().zip(counts.syncs) {
            stat.store(count, Relaxed);
        }
        self.digest_mismatches.store(counts.digest_mismatches, Relaxed);
    }

    /// The last txn applied.
    pub(super) fn last_zxid(&self) -> Zxid {
        Zxid::from_raw(self.zxid.load(Relaxed).cast_signed())
    }

    pub(super) fn count_sync(&self, took: Duration) {
        let us = micros(took);
        self.syncs.fetch_add(1, Relaxed);
        self.sync_us.fetch_add(us, Relaxed);
        self.sync_us_max.fetch_max(us, Relaxed);
    }

    /// Counts the reply to a frame that was counted as outstanding.
    pub(super) fn count_reply(&self, took: Duration) {
        let us = micros(took);
        self.sent.fetch_add(1, Relaxed);
        self.replies.fetch_add(1, Relaxed);
        self.outstanding.fetch_sub(1, Relaxed);
        self.latency_us.fetch_add(us, Relaxed);
        self.latency_us_max.fetch_max(us, Relaxed);
        // Once it is short nearly no reply is shorter, and the cheap look suffices.
        let min = self.latency_us_min.load(Relaxed);
        if min == 0 || us + 1 < min {
            self.latency_us_min.store(us + 1, Relaxed);
        }
    }

    pub(super) fn latency(&self) -> Latency {
        let replies = self.replies.load(Relaxed);
        let average_us = self.latency_us.load(Relaxed).checked_div(replies).unwrap_or(0);
        Latency {
            min_ms: self.latency_us_min.load(Relaxed).saturating_sub(1) / 1000,
            average_ms: Duration::from_micros(average_us).as_secs_f64() * 1000.0,
            max_ms: self.latency_us_max.load(Relaxed) / 1000,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX - 1)
}
