//! What the mirror counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct MirrorStats {
    pub(super) walks: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) carried: AtomicU64,
    pub(super) walk_reads: AtomicU64,
    pub(super) publications: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) defects: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) brake_engagements: AtomicU64,
    pub(super) probes: AtomicU64,
    pub(super) follows: AtomicU64,
    pub(super) lapses: AtomicU64,
}

impl MirrorStats {
    /// Times that everything was read.
    pub fn walks(&self) -> u64 {
        self.walks.load(Ordering::Relaxed)
    }

    /// Znodes read because an event named them.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Znodes that came with the event that named them, and were not read.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Instances read by walks, which are those of services that have changed since they were known; and those of services that began to
    /// be followed.
    pub fn walk_reads(&self) -> u64 {
        self.walk_reads.load(Ordering::Relaxed)
    }

    /// Views published.
    pub fn publications(&self) -> u64 {
        self.publications.load(Ordering::Relaxed)
    }

    /// Reads that found something that could not be understood, or were refused.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Services that began to be followed because they were looked up.
    pub fn follows(&self) -> u64 {
        self.follows.load(Ordering::Relaxed)
    }

    /// Services that are followed no more, because they were not looked up for long.
    pub fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Relaxed)
    }

    /// Differences that a thorough walk found and no event had told of.
    pub fn defects(&self) -> u64 {
        self.defects.load(Ordering::Relaxed)
    }

    /// Instances whose record is gone and that are still offered, now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Times that so many instances vanished at once that it was not believed.
    pub fn brake_engagements(&self) -> u64 {
        self.brake_engagements.load(Ordering::Relaxed)
    }

    /// Probes of instances that had vanished.
    pub fn probes(&self) -> u64 {
        self.probes.load(Ordering::Relaxed)
    }
}
