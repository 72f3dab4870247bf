//! Where the view is published and read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::history::{History, NoHistory, Past};
use super::interest::{Interested, Interests};
use super::name::ServiceKey;
use super::view::View;
use super::zones::Home;
use crate::clock;

/// The current [`View`] and how far it can be trusted. Any number of readers, no lock.
///
/// It is written by one, or by several of which each has a [`CachePart`]: disjoint services, of which the view is the union. It is
/// as current as the part that is furthest behind.
#[derive(Debug)]
pub struct Cache {
    view: ArcSwap<View>,
    published: watch::Sender<u64>,
    interests: Interests,
    /// Publications, for readers that must not take a lock.
    count: AtomicU64,
    started: Instant,
    /// ms from `started` to the last proof that the view was current, plus one; 0 while there was none.
    proved_at_ms: AtomicU64,
    /// How old the view that it began with was then, if it was not empty.
    inherited_age: Option<Duration>,
    is_synced: AtomicBool,
    /// For writers; lookups do not come here.
    parts: Mutex<Vec<Part>>,
    /// For who asks about the past.
    history: Mutex<History>,
}

/// What one of several writers knows.
#[derive(Debug, Default)]
struct Part {
    view: Arc<View>,
    proved_at: Option<Instant>,
    is_synced: bool,
}

/// One of several writers of a [`Cache`].
#[derive(Debug)]
pub struct CachePart {
    cache: Arc<Cache>,
    index: usize,
}

impl Cache {
    /// Starts with an empty view that was never loaded.
    pub fn new(now: Instant) -> Self {
        Self {
            view: ArcSwap::from_pointee(View::default()),
            published: watch::Sender::new(0),
            interests: Interests::default(),
            count: AtomicU64::new(0),
            started: now,
            proved_at_ms: AtomicU64::new(0),
            inherited_age: None,
            is_synced: AtomicBool::new(false),
            parts: Mutex::default(),
            history: Mutex::new(History::new(clock::unix_ms())),
        }
    }

    /// Starts with a view from an earlier time, `age` old at `now`, which is stale until it is proved otherwise.
    pub fn with_saved(view: View, age: Duration, now: Instant) -> Self {
        Self { view: ArcSwap::from_pointee(view), inherited_age: Some(age), ..Self::new(now) }
    }

    /// The same, for lookups from `home`.
    #[must_use]
    pub fn at_home(self, home: Home) -> Self {
        let mut view = View::clone(&self.view.load());
        view.settle(home);
        Self { view: ArcSwap::from_pointee(view), ..self }
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
        self.count.fetch_add(1, Ordering::Release);
        self.published.send_modify(|count| *count += 1);
        self.interests.on_published(&before, &view);
    }

    /// Publications so far. A view that is loaded afterwards is that of this one or of a later one.
    pub fn publications(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Tells of every publication from now on, and when the view begins or ceases to follow the ensemble.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// The same for who looks at these services alone.
    pub fn follow(&self, services: Vec<ServiceKey>) -> Interested {
        self.interests.add(services)
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
            self.published.send_modify(|_| ());
            self.interests.wake_all();
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

    /// One more writer, who knows `view` so far: a part of what the cache began with.
    pub fn part(self: &Arc<Self>, view: View) -> CachePart {
        let mut parts = self.parts();
        parts.push(Part { view: Arc::new(view), ..Part::default() });
        CachePart { cache: Arc::clone(self), index: parts.len() - 1 }
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
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

impl CachePart {
    /// Replaces this part of the view.
    pub fn publish(&self, view: View) {
        let mut parts = self.cache.parts();
        if let [_only] = parts.as_slice() {
            return self.cache.publish(view);
        }
        parts[self.index].view = Arc::new(view);
        // Under the lock, so that a later union holds what an earlier one held.
        self.cache.publish(union(&parts));
    }

    /// Notes that the member we are connected to proved itself current, and that nothing of this part is outstanding.
    pub fn prove_current(&self, now: Instant) {
        let mut parts = self.cache.parts();
        parts[self.index].proved_at = Some(now);
        let oldest = parts.iter().map(|part| part.proved_at).min().flatten();
        if let Some(oldest) = oldest {
            self.cache.prove_current(oldest);
        }
    }

    /// Says whether this part follows the ensemble now.
    pub fn set_synced(&self, is_synced: bool) {
        let mut parts = self.cache.parts();
        parts[self.index].is_synced = is_synced;
        self.cache.set_synced(parts.iter().all(|part| part.is_synced));
    }
}

/// What all parts know. Nothing is known as a whole before every part is.
fn union(parts: &[Part]) -> View {
    let views = || parts.iter().map(|part| &part.view);
    View {
        services: views().flat_map(|view| view.services.values().cloned()).collect(),
        zxid: views().map(|view| view.zxid).max().unwrap_or_default(),
        is_loaded: views().all(|view| view.is_loaded),
        home: parts.first().map(|part| part.view.home.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Zxid;
    use crate::registry::{Label, Service};

    #[test]
    fn age_counts_from_the_last_proof() {
        let start = clock::now();
        let cache = Cache::new(start);
        assert_eq!(cache.age(start), None);
        cache.prove_current(start + Duration::from_secs(1));
        assert_eq!(cache.age(start + Duration::from_secs(3)), Some(Duration::from_secs(2)));
    }

    #[test]
    fn subscribers_are_told_when_the_view_begins_and_ceases_to_follow_the_ensemble() {
        let cache = Cache::new(clock::now());
        let mut published = cache.subscribe();
        for (is_synced, is_news) in [(false, false), (true, true), (true, false), (false, true)] {
            cache.set_synced(is_synced);
            assert_eq!(published.has_changed().unwrap(), is_news, "{is_synced}");
            published.mark_unchanged();
        }
        assert_eq!(cache.publications(), 0);
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

    #[test]
    fn a_view_of_parts_is_their_union_and_as_current_as_the_one_furthest_behind() {
        let (start, second) = (clock::now(), Duration::from_secs(1));
        let cache = Arc::new(Cache::new(start));
        let (one, other) = (cache.part(View::default()), cache.part(View::default()));
        one.publish(view("a", 5));
        one.set_synced(true);
        one.prove_current(start + second);
        assert!(!cache.load().is_loaded && cache.is_stale());
        assert_eq!(cache.proved_age(start + second), None);

        other.publish(view("b", 7));
        other.set_synced(true);
        other.prove_current(start + second * 3);
        let names: Vec<_> = cache.load().services.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["a.default", "b.default"]);
        assert!(cache.load().is_loaded && !cache.is_stale());
        assert_eq!(cache.load().zxid, Zxid::from_raw(7));
        assert_eq!(cache.age(start + second * 3), Some(second * 2));

        one.publish(View { is_loaded: true, ..View::default() });
        assert_eq!(cache.load().services.len(), 1);
        other.set_synced(false);
        assert!(cache.is_stale());
    }

    fn view(service: &str, zxid: i64) -> View {
        let label = |text| Label::parse(text).unwrap();
        let key = ServiceKey { namespace: label("default"), name: label(service) };
        let services = [Arc::new(Service::new(key))].into();
        View { services, zxid: Zxid::from_raw(zxid), is_loaded: true, ..View::default() }
    }
}
