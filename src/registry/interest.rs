//! Who waits for what of the view: a change of one service wakes those alone that look at it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::name::ServiceKey;
use super::view::View;

/// All that is waited for.
#[derive(Debug, Default)]
pub(super) struct Interests(Mutex<Vec<Interest>>);

#[derive(Debug)]
struct Interest {
    services: Vec<ServiceKey>,
    stirred: Weak<Notify>,
}

/// Waits for some services.
#[derive(Debug)]
pub struct Interested {
    stirred: Arc<Notify>,
}

impl Interested {
    /// Waits until the view shows one of the services otherwise, or is loaded, or begins or ceases to follow the ensemble. What
    /// happens while nobody waits is told to who waits next. Losing this future loses nothing.
    pub async fn stirred(&mut self) {
        self.stirred.notified().await;
    }
}

impl Interests {
    pub(super) fn add(&self, services: Vec<ServiceKey>) -> Interested {
        let stirred = Arc::new(Notify::new());
        let mut interests = self.lock();
        interests.retain(|interest| interest.stirred.strong_count() > 0);
        interests.push(Interest { services, stirred: Arc::downgrade(&stirred) });
        Interested { stirred }
    }

    /// `after` has taken the place of `before`. Views share the services that did not change.
    pub(super) fn on_published(&self, before: &View, after: &View) {
        for Interest { services, stirred } in self.lock().iter() {
            let is_other = |key: &ServiceKey| match (before.services.get(key), after.services.get(key)) {
                (Some(was), Some(is)) => !Arc::ptr_eq(was, is),
                (was, is) => was.is_some() != is.is_some(),
            };
            if before.is_loaded != after.is_loaded || services.iter().any(is_other) {
                wake(stirred);
            }
        }
    }

    /// Something else concerns everybody.
    pub(super) fn wake_all(&self) {
        self.lock().iter().for_each(|interest| wake(&interest.stirred));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Interest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(stirred: &Weak<Notify>) {
    if let Some(stirred) = stirred.upgrade() {
        stirred.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::registry::sample::key;
    use crate::registry::{Cache, Service};

    #[tokio::test(start_paused = true)]
    async fn who_looks_at_a_service_is_woken_by_its_changes_and_no_others() {
        let cache = Cache::new(clock::now());
        cache.publish(View { is_loaded: true, ..View::default() });
        let mut web = cache.follow(vec![key("web"), key("db")]);
        assert!(!is_stirred(&mut web).await);
        let mut view = View::clone(&cache.load());
        for (service, is_news) in [("api", false), ("web", true), ("db", true), ("api", false)] {
            view.services.insert(Arc::new(Service::new(key(service))));
            cache.publish(view.clone());
            assert_eq!(is_stirred(&mut web).await, is_news, "{service}");
        }
        view.services.remove(&key("web"));
        cache.publish(view.clone());
        assert!(is_stirred(&mut web).await, "it is gone");
        cache.set_synced(true);
        assert!(is_stirred(&mut web).await);
        cache.publish(View { is_loaded: false, ..view });
        assert!(is_stirred(&mut web).await);
    }

    #[tokio::test]
    async fn who_is_gone_is_forgotten() {
        let interests = Interests::default();
        for _ in 0..100 {
            interests.add(vec![key("web")]);
        }
        let _last = interests.add(Vec::new());
        assert_eq!(interests.lock().len(), 1);
    }

    async fn is_stirred(interested: &mut Interested) -> bool {
        tokio::time::timeout(Duration::from_secs(1), interested.stirred()).await.is_ok()
    }
}
