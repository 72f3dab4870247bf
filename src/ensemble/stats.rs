//! What a member counts, read by metrics without asking the driver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    /// Client connections open now.
    pub connections: AtomicU64,
    /// Connections closed because of what the client sent.
    pub refusals: AtomicU64,
    /// Paths watched by the clients connected now.
    pub watched_paths: AtomicU64,
    /// Sessions alive.
    pub sessions: AtomicU64,
    /// Znodes in the tree.
    pub znodes: AtomicU64,
    /// The last zxid applied.
    pub zxid: AtomicU64,
}

impl MemberStats {
    pub(super) fn count_sync(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_us.fetch_add(us, Ordering::Relaxed);
        self.sync_us_max.fetch_max(us, Ordering::Relaxed);
    }
}
