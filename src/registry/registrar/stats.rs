//! What the registrar has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct RegistrarStats {
    pub(super) writes: AtomicU64,
    pub(super) repairs: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl RegistrarStats {
    /// Multis that were carried out; each may be of several instances.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Instances of which what had been there was brought back, after it was lost or changed by others.
    pub fn repairs(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    /// Attempts that failed, for want of a connection or because the server refused.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
