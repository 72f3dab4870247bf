//! Where the view is published and read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::history::{History, NoHistory, Past};
use super::name::ServiceKey;
use super::view::View;
use crate::clock;

/// The current [`View`] and how far it can be trusted. One writer, any number of readers, no lock.
#[derive(Debug)]
pub struct Cache {
    view: ArcSwap<View>,
    published: watch::Sender<u64>,
    started: Instant,
    /// ms from `started` to the last proof that the view was current, plus one; 0 while there was none.
    proved_at_ms: AtomicU64,
    /// How old the view that it began with was then, if it was not empty.
    inherited_age: Option<Duration>,
    is_synced: AtomicBool,
    /// For who asks about the past; lookups do not come here.
    history: Mutex<History>,
}

impl Cache {
    /// Starts with an empty view that was never loaded.
    pub fn new(now: Instant) -> Self {
        Self {
            view: ArcSwap::from_pointee(View::default()),
            published: watch::Sender::new(0),
            started: now,
            proved_at_ms: AtomicU64::new(0),
            inherited_age: None,
            is_synced: AtomicBool::new(false),
            history: Mutex::new(History::new(clock::unix_ms())),
        }
    }

    /// Starts with a view from an earlier time, `age` old at `now`, which is stale until it is proved otherwise.
    pub fn with_saved(view: View, age: Duration, now: Instant) -> Self {
        Self { view: ArcSwap::from_pointee(view), inherited_age: Some(age), ..Self::new(now) }
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
        let view = Arc::new(view);
        // Who looks back sees both before, or both after.
        let mut history = self.history();
        let before = self.view.swap(view.clone());
        history.on_published(&before, &view, clock::unix_ms());
        drop(history);
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
        if self.is_synced.swap(is_synced, Ordering::AcqRel) != is_synced {
            self.history().on_stale(!is_synced, clock::unix_ms());
        }
    }

    /// What a service was at `at_ms`, ms since 1970.
    ///
    /// # Errors
    ///
    /// When that is not known.
    pub fn look_back(&self, key: &ServiceKey, at_ms: i64) -> Result<Past, NoHistory> {
        let history = self.history();
        let view = self.view.load_full();
        history.look_back(&view, key, at_ms, clock::unix_ms())
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the view may be behind the ensemble.
    pub fn is_stale(&self) -> bool {
        !self.is_synced.load(Ordering::Acquire)
    }

    /// The time since the view was last proved current, be it before this process began; `None` when it never was.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let inherited = || Some(self.inherited_age? + now.saturating_duration_since(self.started));
        self.proved_age(now).or_else(inherited)
    }

    /// The time since the view was last proved current in this process.
    pub fn proved_age(&self, now: Instant) -> Option<Duration> {
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
        let start = clock::now();
        let cache = Cache::new(start);
        assert_eq!(cache.age(start), None);
        cache.prove_current(start + Duration::from_secs(1));
        assert_eq!(cache.age(start + Duration::from_secs(3)), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_saved_view_goes_on_ageing_until_it_is_proved_current() {
        let (start, second) = (clock::now(), Duration::from_secs(1));
        let cache = Cache::with_saved(View { is_loaded: true, ..View::default() }, second * 60, start);
        assert!(cache.is_stale() && cache.load().is_loaded);
        assert_eq!(cache.age(start + second), Some(second * 61));
        assert_eq!(cache.proved_age(start + second), None, "nothing worth saving is known");
        cache.prove_current(start + second);
        assert_eq!(cache.age(start + second * 2), Some(second));
    }
}
