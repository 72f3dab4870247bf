//! The changes that views are waited for, and when each view showed them.
//!
//! Whoever writes opens a change before it writes, since a view may show it before the writer hears that it is committed. Whoever
//! watches a view looks at the few open changes at each publication: two lookups and a store, no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::registry::{Cache, Label, ServiceKey, View};

/// The open changes.
#[derive(Debug)]
pub(super) struct Board {
    views: usize,
    opened: Instant,
    open: ArcSwap<Vec<Arc<Change>>>,
}

/// One change of one instance: it has this weight then, which it has not before.
#[derive(Debug)]
pub(super) struct Change {
    service: ServiceKey,
    id: Label,
    weight: u16,
    /// Of each view: ns from the opening of the board to its publication, plus one; 0 while it has not shown the change.
    shown_at_ns: Vec<AtomicU64>,
    /// Views that have not shown it yet.
    waiting: AtomicUsize,
    all_shown: Notify,
}

impl Board {
    pub(super) fn new(views: usize, now: Instant) -> Self {
        Self { views, opened: now, open: ArcSwap::default() }
    }

    /// From now on views are looked at for this.
    pub(super) fn open(&self, service: &ServiceKey, id: &Label, weight: u16) -> Arc<Change> {
        let change = Arc::new(Change {
            service: service.clone(),
            id: id.clone(),
            weight,
            shown_at_ns: (0..self.views).map(|_| AtomicU64::new(0)).collect(),
            waiting: AtomicUsize::new(self.views),
            all_shown: Notify::new(),
        });
        self.open.rcu(|open| open.iter().chain([&change]).cloned().collect::<Vec<_>>());
        change
    }

    /// No view is looked at for it any more.
    pub(super) fn close(&self, change: &Arc<Change>) {
        let is_other = |other: &&Arc<Change>| !Arc::ptr_eq(other, change);
        self.open.rcu(|open| open.iter().filter(is_other).cloned().collect::<Vec<_>>());
    }

    /// How long after `committed_at` each view showed the change, if it did; nothing for those that showed it before.
    pub(super) fn latencies(
        &self,
        change: &Change,
        committed_at: Instant,
    ) -> impl Iterator<Item = Option<Duration>> {
        change.shown_at_ns.iter().map(move |shown_at_ns| {
            let ns = shown_at_ns.load(Ordering::Acquire).checked_sub(1)?;
            Some((self.opened + Duration::from_nanos(ns)).saturating_duration_since(committed_at))
        })
    }

    /// The view at `place` was published at `now`.
    fn on_view(&self, place: usize, view: &View, now: Instant) {
        for change in self.open.load().iter() {
            if change.shown_at_ns[place].load(Ordering::Relaxed) != 0 || !change.is_in(view) {
                continue;
            }
            let ns = now.saturating_duration_since(self.opened).as_nanos();
            let ns = u64::try_from(ns).unwrap_or(u64::MAX - 1);
            change.shown_at_ns[place].store(ns + 1, Ordering::Release);
            if change.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                change.all_shown.notify_one();
            }
        }
    }
}

impl Change {
    /// Waits until all views have shown it. One may wait.
    pub(super) async fn all_shown(&self) {
        while self.waiting.load(Ordering::Acquire) > 0 {
            self.all_shown.notified().await;
        }
    }

    fn is_in(&self, view: &View) -> bool {
        let Some(service) = view.services.get(&self.service) else { return false };
        service.instance(self.id.as_str()).is_some_and(|instance| instance.record.weight == self.weight)
    }
}

/// Looks at each view that is published in `cache`, for ever.
pub(super) async fn watch(board: Arc<Board>, place: usize, cache: Arc<Cache>, now: impl Fn() -> Instant) {
    let mut published = cache.subscribe();
    loop {
        board.on_view(place, &cache.load(), now());
        if published.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::id::{SessionId, Zxid};
    use crate::registry::{Instance, Record, Service};

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    fn key() -> ServiceKey {
        ServiceKey { namespace: label("default"), name: label("web") }
    }

    fn view(weights: &[(&str, u16)]) -> View {
        let mut service = Service::new(key());
        service.instances = weights
            .iter()
            .map(|(id, weight)| {
                let text =
                    br#"{"v":1,"addresses":["127.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
                let record = Record { weight: *weight, ..Record::decode(text).unwrap() };
                Arc::new(Instance::new(label(id), record, Zxid::ZERO, SessionId::NONE))
            })
            .collect();
        View { services: [Arc::new(service)].into(), ..View::default() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn a_change_is_timed_in_each_view_that_shows_it_first() {
        let start = clock::now();
        let board = Board::new(2, start);
        let change = board.open(&key(), &label("b"), 7);
        board.on_view(0, &view(&[("a", 7), ("b", 6)]), start + ms(1));
        board.on_view(0, &view(&[("a", 7), ("b", 7)]), start + ms(15));
        board.on_view(0, &view(&[("b", 7)]), start + ms(30));
        let latencies = |committed_at| board.latencies(&change, committed_at).collect::<Vec<_>>();
        assert_eq!(latencies(start + ms(10)), [Some(ms(5)), None]);
        board.on_view(1, &view(&[("b", 7)]), start + ms(12));
        assert_eq!(latencies(start + ms(13)), [Some(ms(2)), Some(Duration::ZERO)], "it showed it before");
        change.all_shown().await;
    }

    #[test]
    fn a_change_that_is_closed_is_not_looked_for() {
        let start = clock::now();
        let board = Board::new(1, start);
        let (closed, open) = (board.open(&key(), &label("a"), 7), board.open(&key(), &label("a"), 7));
        board.close(&closed);
        board.on_view(0, &view(&[("a", 7)]), start);
        assert_eq!(board.latencies(&closed, start).next(), Some(None));
        assert_eq!(board.latencies(&open, start).next(), Some(Some(Duration::ZERO)));
    }
}
