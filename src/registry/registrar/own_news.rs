//! What the view tells of our own instances: whoever deletes or overwrites a record of ours is answered at once, and not when the tree
//! is looked at anyway.
//!
//! The view lags behind what we write, so that a difference alone says nothing. It is news when the view shows something else than
//! before, and that is not what we have written, or no record at all. Another owner's record in its place is news as well, which is reported. But two
//! sidecars of one owner must not outwrite one another at the speed of the network.

use std::sync::Arc;
use std::time::Instant;

use super::RegistrarTask;
use super::entry::Entry;
use crate::id::{SessionId, Zxid};
use crate::registry::cache::Cache;
use crate::registry::name::{Label, ServiceKey};
use crate::registry::record::Record;
use crate::registry::view::{Instance, Service, Standing};

/// What the view showed of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A record, as it was written then.
    Registered { mzxid: Zxid, session: SessionId },
    /// Something that is no record.
    Unreadable { mzxid: Zxid },
    /// None, as of this change of its service: one that was written and deleted in between may never have been seen.
    Missing { zxid: Zxid },
}

/// What was written of an instance, and what the view showed of it before.
#[derive(Debug)]
pub(super) struct Written {
    service: ServiceKey,
    id: Label,
    record: Box<Record>,
    session: SessionId,
    seen: Option<Seen>,
    /// What was looked at last: most views have it unchanged.
    looked_at: Option<Arc<Service>>,
}

impl RegistrarTask {
    /// Notes what the view shows of each instance before the tree is looked at.
    pub(super) fn note_seen(&mut self) {
        let view = self.cache.load();
        for Entry { registration, seen, .. } in &mut self.entries {
            let service = view.services.get(&registration.service);
            *seen = service.map(|service| Seen::of(service, &registration.id));
        }
    }

    /// What is in the tree of us, by `session`.
    pub(super) fn written(&self, session: Option<SessionId>) -> Vec<Written> {
        let written = |entry: &Entry| {
            Some(Written {
                service: entry.registration.service.clone(),
                id: entry.registration.id.clone(),
                record: entry.settled.clone()?,
                session: session?,
                seen: entry.seen,
                looked_at: None,
            })
        };
        self.entries.iter().filter_map(written).collect()
    }
}

/// Waits until the view tells that one of these is not in the tree any more as it was written; no earlier than `not_before`, and for ever
/// if there are none.
pub(super) async fn own_news(cache: &Cache, mut written: Vec<Written>, not_before: Instant) {
    let mut news = cache.follow(written.iter().map(|written| written.service.clone()).collect());
    loop {
        let is_current = !cache.is_stale();
        let view = cache.load();
        let is_news = |written: &mut Written| {
            view.services.get(&written.service).is_some_and(|service| written.is_news(service))
        };
        if is_current && written.iter_mut().any(is_news) {
            return tokio::time::sleep_until(not_before.into()).await;
        }
        drop(view);
        if written.is_empty() {
            std::future::pending::<()>().await;
        }
        news.stirred().await;
    }
}

/// The instance, if its record is there.
fn shown<'a>(service: &'a Service, id: &Label) -> Option<&'a Instance> {
    let instance = service.instance(id.as_str())?;
    (instance.standing == Standing::Registered).then_some(instance)
}

impl Seen {
    fn of(service: &Service, id: &Label) -> Self {
        if let Some((mzxid, _)) = service.unreadable.get(id).and_then(|unreadable| unreadable.written) {
            return Self::Unreadable { mzxid };
        }
        match shown(service, id) {
            Some(Instance { mzxid, session, .. }) => Self::Registered { mzxid: *mzxid, session: *session },
            None => Self::Missing { zxid: service.zxid },
        }
    }
}

impl Written {
    /// Takes what the view shows now; returns whether somebody has deleted or overwritten what was written.
    fn is_news(&mut self, service: &Arc<Service>) -> bool {
        if self.looked_at.as_ref().is_some_and(|before| Arc::ptr_eq(before, service)) {
            return false;
        }
        self.looked_at = Some(service.clone());
        let seen = Seen::of(service, &self.id);
        if Some(seen) == self.seen {
            return false;
        }
        self.seen = Some(seen);
        matches!(seen, Seen::Unreadable { .. })
            || shown(service, &self.id).is_none_or(|shown| {
                let is_ours = shown.session == self.session;
                shown.record != *self.record && (is_ours || shown.record.owner != self.record.owner)
            })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::registry::unreadable::Unreadable;
    use crate::registry::view::View;

    const OURS: SessionId = SessionId(7);

    #[test]
    fn what_is_news_is_told_once_and_what_lags_behind_is_none() {
        let record = record("up");
        let mut written = Written {
            service: key(),
            id: label("a"),
            record: Box::new(record.clone()),
            session: OURS,
            seen: Some(Seen::of(&service(1, None), &label("a"))),
            looked_at: None,
        };
        assert!(!written.is_news(&service(1, None)), "it was not there before, either");
        assert!(!written.is_news(&service(2, Some((2, OURS, &record)))), "the view has caught up");
        assert!(written.is_news(&service(3, None)));
        assert!(!written.is_news(&service(3, None)), "that is known");
        assert!(written.is_news(&service(5, None)), "it was written and deleted again");
        assert!(!written.is_news(&service(6, Some((6, OURS, &record)))), "it is back");
        let mut limbo = service(7, Some((6, OURS, &record)));
        Arc::make_mut(&mut Arc::make_mut(&mut limbo).instances[0]).standing = Standing::Limbo;
        assert!(written.is_news(&limbo), "offered on, and not registered");
        let overwritten = self::record("draining");
        assert!(written.is_news(&service(8, Some((8, OURS, &overwritten)))));
        let another_process = service(9, Some((9, SessionId(8), &overwritten)));
        assert!(!written.is_news(&another_process), "of ours, too");
        let mut garbage = service(10, Some((9, OURS, &record)));
        let unreadable = Unreadable::new("garbage", Some((Zxid::from_raw(10), OURS)));
        Arc::make_mut(&mut garbage).unreadable.insert(label("a"), unreadable);
        assert!(written.is_news(&garbage), "what is shown is what it was");
        assert!(!written.is_news(&garbage), "that is known");
        let theirs = Record { owner: "you".to_owned(), ..record };
        assert!(written.is_news(&service(11, Some((11, SessionId(9), &theirs)))), "that is somebody else's");
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_a_view_that_lags_behind_the_ensemble_waits() {
        let cache = Arc::new(Cache::new(clock::now()));
        let view =
            |service: Arc<Service>| View { services: [service].into(), is_loaded: true, ..View::default() };
        let record = record("up");
        cache.publish(view(service(1, Some((1, OURS, &record)))));
        let written = |seen| Written {
            service: key(),
            id: label("a"),
            record: Box::new(record.clone()),
            session: OURS,
            seen: Some(seen),
            looked_at: None,
        };
        let written = vec![written(Seen::Registered { mzxid: Zxid::from_raw(1), session: OURS })];
        let not_before = clock::now() + Duration::from_secs(1);
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move { own_news(&cache, written, not_before).await }
        });
        cache.publish(view(service(2, None)));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        cache.set_synced(true);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it is told").unwrap();
    }

    /// A service as of a txn, and its instance as it was written.
    fn service(zxid: i64, own: Option<(i64, SessionId, &Record)>) -> Arc<Service> {
        let instance = |(mzxid, session, record): (i64, SessionId, &Record)| {
            Arc::new(Instance::new(label("a"), record.clone(), Zxid::from_raw(mzxid), session))
        };
        let instances = own.map(instance).into_iter().collect();
        Arc::new(Service { instances, zxid: Zxid::from_raw(zxid), ..Service::new(key()) })
    }

    fn key() -> ServiceKey {
        ServiceKey { namespace: label("default"), name: label("web") }
    }

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    fn record(status: &str) -> Record {
        let text = format!(
            r#"{{"v":1,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":80}}],"status":"{status}"}}"#
        );
        Record::decode(text.as_bytes()).unwrap()
    }
}
