//! Where the view is published and read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::view::View;

/// The current [`View`] and how far it can be trusted. One writer, any number of readers, no lock.
#[derive(Debug)]
pub struct Cache {
    view: ArcSwap<View>,
    published: watch::Sender<u64>,
    started: Instant,
    /// ms from `started` to the last proof that the view was current, plus one; 0 while there was none.
    proved_at_ms: AtomicU64,
    is_synced: AtomicBool,
}

impl Cache {
    /// Starts with an empty view that was never loaded.
    pub fn new(now: Instant) -> Self {
        Self {
            view: ArcSwap::from_pointee(View::default()),
            published: watch::Sender::new(0),
            started: now,
            proved_at_ms: AtomicU64::new(0),
            is_synced: AtomicBool::new(false),
        }
    }

    /// The current view, for a short read.
    pub fn load(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The current view, to keep.
    pub fn load_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Replaces the view and wakes whoever waits for a change.
    pub fn publish(&self, view: View) {
        self.view.store(Arc::new(view));
        self.published.send_modify(|count| *count += 1);
    }

    /// Tells of every publication from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Notes that the member we are connected to proved itself current (a ping or another reply).
    pub fn prove_current(&self, now: Instant) {
        let ms =
            u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX - 1);
        self.proved_at_ms.fetch_max(ms + 1, Ordering::Relaxed);
    }

    /// Says whether the view follows the ensemble now; a view that does not is stale.
    pub fn set_synced(&self, is_synced: bool) {
        self.is_synced.store(is_synced, Ordering::Release);
    }

    /// Whether the view may be behind the ensemble.
    pub fn is_stale(&self) -> bool {
        !self.is_synced.load(Ordering::Acquire)
    }

    /// The time since the view was last proved current; `None` when it never was.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let proved_at_ms = self.proved_at_ms.load(Ordering::Relaxed).checked_sub(1)?;
        let proved_at = self.started + Duration::from_millis(proved_at_ms);
        Some(now.saturating_duration_since(proved_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_from_the_last_proof() {
        let start = crate::clock::now();
        let cache = Cache::new(start);
        assert_eq!(cache.age(start), None);
        cache.prove_current(start + Duration::from_secs(1));
        assert_eq!(cache.age(start + Duration::from_secs(3)), Some(Duration::from_secs(2)));
    }
}
