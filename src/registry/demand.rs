//! Who wants which services, where only those are followed that are looked up: the way from lookups to the mirror.
//!
//! ```text
//! lookup of a service that is not followed ──► Demand ──► mirror: watch, read, publish
//!                     │                                                      │
//!                     └── Held: for HOLD_MAX at most ◄───────────────────────┘
//! ```
//!
//! - Lookups of services that are followed do not come here: the service's own mark says that it is in use.
//! - Names that are not known do not come here either.
//! - What waits is bounded. Whoever finds no room is answered at once, as if the instances had not come in time; they are asked for
//!   all the same.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::cache::Cache;
use super::name::ServiceKey;

/// The longest time for which a lookup is held until the instances are there.
pub const HOLD_MAX: Duration = Duration::from_millis(250);
/// Lookups that are held at a time; each takes a task and its packet.
pub const HELD_MAX: usize = 256;
/// Services that are asked for and that the mirror has not looked at yet; more are not noted, and asked for by the next lookup.
const WANTED_MAX: usize = 1_024;

/// What lookups ask of the mirror.
#[derive(Debug)]
pub struct Demand {
    wanted: Mutex<BTreeSet<ServiceKey>>,
    stirred: Notify,
    room: Arc<Semaphore>,
    held: AtomicU64,
    unready: AtomicU64,
}

/// A lookup that waits for a service's instances.
#[derive(Debug)]
pub struct Held {
    demand: Arc<Demand>,
    cache: Arc<Cache>,
    published: watch::Receiver<u64>,
    service: ServiceKey,
    /// Its place among those that wait.
    _room: OwnedSemaphorePermit,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            wanted: Mutex::default(),
            stirred: Notify::new(),
            room: Arc::new(Semaphore::new(HELD_MAX)),
            held: AtomicU64::new(0),
            unready: AtomicU64::new(0),
        }
    }
}

impl Demand {
    /// Asks for a service that `cache` shows and that is not followed; `None` when too many wait for one already.
    pub fn hold(self: &Arc<Self>, cache: &Arc<Cache>, service: &ServiceKey) -> Option<Held> {
        // Before it is asked for, so that no publication falls between.
        let published = cache.subscribe();
        self.want(service);
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.unready.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.held.fetch_add(1, Ordering::Relaxed);
        let (demand, cache, service) = (Arc::clone(self), Arc::clone(cache), service.clone());
        Some(Held { demand, cache, published, service, _room: room })
    }

    /// Lookups that were held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Lookups for which the instances did not come in time.
    pub fn unready(&self) -> u64 {
        self.unready.load(Ordering::Relaxed)
    }

    /// What was asked for since the last time.
    pub(super) fn take(&self) -> impl Iterator<Item = ServiceKey> + use<> {
        let wanted = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        wanted.into_iter()
    }

    /// Waits until something is asked for. Losing this future loses nothing.
    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    fn want(&self, service: &ServiceKey) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < WANTED_MAX && !wanted.contains(service) {
            wanted.insert(service.clone());
            self.stirred.notify_one();
        }
    }
}

impl Held {
    /// Waits until the service's instances are known, it is gone, or the time is over.
    pub async fn ready(mut self) {
        let is_ready = async {
            loop {
                self.published.borrow_and_update();
                if self.cache.load().services.get(&self.service).is_none_or(|service| service.is_followed) {
                    return;
                }
                if self.published.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if tokio::time::timeout(HOLD_MAX, is_ready).await.is_err() {
            self.demand.unready.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::registry::{Label, Service, View};

    #[tokio::test]
    async fn a_lookup_is_held_until_the_instances_are_there_and_no_longer_than_that() {
        let (cache, demand) = (cache(), Arc::new(Demand::default()));
        let held = demand.hold(&cache, &key("web")).unwrap();
        assert_eq!(demand.take().collect::<Vec<_>>(), [key("web")]);
        assert_eq!(demand.take().count(), 0);
        demand.stirred().await;
        // Published after it was asked for, and before it is waited for.
        cache.publish(view(true, "other"));
        held.ready().await;

        cache.publish(view(false, "other"));
        let (held, start) = (demand.hold(&cache, &key("web")).unwrap(), clock::now());
        cache.publish(view(false, "another"));
        held.ready().await;
        assert!(start.elapsed() >= HOLD_MAX, "{:?}", start.elapsed());

        let held = demand.hold(&cache, &key("web")).unwrap();
        cache.publish(View { is_loaded: true, ..View::default() });
        held.ready().await;
        assert_eq!((demand.held(), demand.unready()), (3, 1), "one that is gone is not waited for");
    }

    #[tokio::test]
    async fn as_many_are_held_as_there_is_room_for_and_all_are_asked_for() {
        let (cache, demand) = (cache(), Arc::new(Demand::default()));
        let held: Vec<_> = (0..HELD_MAX).map(|_| demand.hold(&cache, &key("web")).unwrap()).collect();
        assert!(demand.hold(&cache, &key("late")).is_none());
        assert_eq!(demand.take().collect::<Vec<_>>(), [key("late"), key("web")]);
        drop(held);
        assert!(demand.hold(&cache, &key("late")).is_some());
        for number in 0..2 * WANTED_MAX {
            demand.hold(&cache, &key(&format!("s{number}")));
        }
        assert_eq!(demand.take().count(), WANTED_MAX);
    }

    fn cache() -> Arc<Cache> {
        let cache = Cache::new(clock::now());
        cache.publish(view(false, "other"));
        Arc::new(cache)
    }

    fn view(is_followed: bool, other: &str) -> View {
        let services = [("web", is_followed), (other, true)]
            .map(|(name, is_followed)| Arc::new(Service { is_followed, ..Service::new(key(name)) }));
        View { services: services.into(), is_loaded: true, ..View::default() }
    }

    fn key(name: &str) -> ServiceKey {
        let label = |text: &str| Label::parse(text).unwrap();
        ServiceKey { namespace: label("default"), name: label(name) }
    }
}
