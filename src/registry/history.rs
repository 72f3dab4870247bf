//! What the view was some time ago: the changes since, each with what was there before. Pure.
//!
//! A past view is the present one with all changes since undone, the latest first. The oldest changes are forgotten when there are
//! too many, and with them what they could tell.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunked::Difference;
use super::name::{Label, ServiceKey};
use super::view::{Instance, Service, ServiceSettings, View};
use super::zones::ZonePlan;
use crate::id::Zxid;

/// Changes that are kept at most.
const CHANGES_MAX: usize = 10_000;
/// What they may take together, with the records that only they still hold.
const BYTES_MAX: usize = 1 << 20;

/// The changes of a view, from some time on.
#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<Change>,
    bytes: usize,
    /// From when on everything is known, ms since 1970.
    reaches_back_to_ms: i64,
    is_stale: bool,
}

/// A service as it was.
#[derive(Clone, Debug)]
pub struct Past {
    /// `None` when it was not known then.
    pub service: Option<Service>,
    /// Whether the view could have been behind the ensemble.
    pub is_stale: bool,
}

/// Why it is not known what was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHistory {
    /// It is too long ago.
    Forgotten {
        /// The earliest time of which everything is known, ms since 1970.
        reaches_back_to_ms: i64,
    },
    /// It is yet to come.
    Future,
}

#[derive(Debug)]
struct Change {
    at_ms: i64,
    before: Before,
    bytes: usize,
}

#[derive(Debug)]
enum Before {
    /// Whether the view was stale.
    Stale(bool),
    /// The service's own settings, none when it was not known.
    Service { key: ServiceKey, zxid: Zxid, settings: Option<Box<ServiceSettings>> },
    /// The service as a whole, which began to be followed, or ended.
    Followed(Arc<Service>),
    /// One instance, none when it was not there.
    Instance { key: ServiceKey, zxid: Zxid, id: Label, instance: Option<Arc<Instance>> },
}

impl History {
    /// A history that begins at `now_ms` (ms since 1970) with a view that is stale.
    pub(super) const fn new(now_ms: i64) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, reaches_back_to_ms: now_ms, is_stale: true }
    }

    /// Takes that `after` has taken the place of `before`. Views share the services that did not change.
    pub(super) fn on_published(&mut self, before: &View, after: &View, now_ms: i64) {
        if !before.is_loaded {
            // What was there is not known, and it is no news either.
            self.changes.clear();
            self.bytes = 0;
            self.reaches_back_to_ms = now_ms;
            return;
        }
        for difference in before.services.differences(&after.services) {
            match difference {
                Difference::Changed(was, is) => self.on_changed(was, is, now_ms),
                Difference::Gone(was) => self.on_forgotten(was, now_ms),
                Difference::New(is) => self.on_new(is, now_ms),
            }
        }
    }

    fn on_new(&mut self, is: &Service, now_ms: i64) {
        let was = Service { is_followed: is.is_followed, ..Service::new(is.key.clone()) };
        self.push(now_ms, Before::Service { key: is.key.clone(), zxid: Zxid::ZERO, settings: None });
        self.on_changed(&Arc::new(was), is, now_ms);
    }

    /// Takes that a service is not there any more.
    fn on_forgotten(&mut self, was: &Arc<Service>, now_ms: i64) {
        let key = &was.key;
        let is = Service { zxid: was.zxid, is_followed: was.is_followed, ..Service::new(key.clone()) };
        self.on_changed(was, &is, now_ms);
        let settings = Some(Box::new(was.settings.clone()));
        self.push(now_ms, Before::Service { key: key.clone(), zxid: was.zxid, settings });
    }

    /// Takes whether the view may be behind the ensemble from now on.
    pub(super) fn on_stale(&mut self, is_stale: bool, now_ms: i64) {
        if is_stale != self.is_stale {
            self.push(now_ms, Before::Stale(self.is_stale));
            self.is_stale = is_stale;
        }
    }

    /// What `key` was at `at_ms`, when `view` is what is there at `now_ms`.
    ///
    /// # Errors
    ///
    /// When that is not known.
    pub(super) fn look_back(
        &self,
        view: &View,
        key: &ServiceKey,
        at_ms: i64,
        now_ms: i64,
    ) -> Result<Past, NoHistory> {
        let reaches_back_to_ms = self.reaches_back_to_ms;
        if at_ms < reaches_back_to_ms {
            return Err(NoHistory::Forgotten { reaches_back_to_ms });
        }
        if at_ms > now_ms {
            return Err(NoHistory::Future);
        }
        let mut past = Past {
            service: view.services.get(key).map(|service| Service::clone(service)),
            is_stale: self.is_stale,
        };
        for change in self.changes.iter().rev().take_while(|change| change.at_ms > at_ms) {
            change.undo(key, &mut past);
        }
        if let Some(service) = &mut past.service {
            // By who calls now.
            service.zones = ZonePlan::of(service, &view.home).into();
        }
        Ok(past)
    }

    fn on_changed(&mut self, was: &Arc<Service>, is: &Service, now_ms: i64) {
        let (key, zxid) = (&is.key, was.zxid);
        if was.is_followed != is.is_followed {
            // Not its instances came or went, but what is known of them.
            return self.push(now_ms, Before::Followed(was.clone()));
        }
        if was.settings != is.settings {
            let settings = Some(Box::new(was.settings.clone()));
            self.push(now_ms, Before::Service { key: key.clone(), zxid, settings });
        }
        for difference in was.instances.differences(&is.instances) {
            let (id, instance) = match difference {
                Difference::Changed(was, _) | Difference::Gone(was) => (&was.id, Some(was.clone())),
                Difference::New(is) => (&is.id, None),
            };
            self.push(now_ms, Before::Instance { key: key.clone(), zxid, id: id.clone(), instance });
        }
    }

    fn push(&mut self, at_ms: i64, before: Before) {
        let bytes = before.bytes();
        self.bytes += bytes;
        // A wall clock that was set back: the order of changes is what counts.
        let at_ms = self.changes.back().map_or(at_ms, |last| last.at_ms.max(at_ms));
        self.changes.push_back(Change { at_ms, before, bytes });
        while self.changes.len() > CHANGES_MAX || self.bytes > BYTES_MAX {
            let Some(forgotten) = self.changes.pop_front() else { return };
            self.bytes -= forgotten.bytes;
            self.reaches_back_to_ms = forgotten.at_ms;
        }
    }
}

impl Change {
    fn undo(&self, of: &ServiceKey, past: &mut Past) {
        match &self.before {
            Before::Stale(is_stale) => past.is_stale = *is_stale,
            Before::Service { key, .. } | Before::Instance { key, .. } if key != of => {}
            Before::Followed(service) if service.key != *of => {}
            Before::Followed(service) => past.service = Some(Service::clone(service)),
            Before::Service { settings: None, .. } => past.service = None,
            Before::Service { key, zxid, settings: Some(settings) } => {
                let service = past.service.get_or_insert_with(|| Service::new(key.clone()));
                service.settings = settings.as_ref().clone();
                service.zxid = *zxid;
            }
            Before::Instance { key, zxid, id, instance } => {
                let service = past.service.get_or_insert_with(|| Service::new(key.clone()));
                service.zxid = *zxid;
                match instance {
                    Some(instance) => service.instances.put(instance.clone()),
                    None => drop(service.instances.take(id.as_str())),
                }
            }
        }
    }
}

impl Before {
    /// What keeping it takes: its own place, and the record that nothing else may hold any more.
    fn bytes(&self) -> usize {
        let of_instance = |instance: &Instance| size_of::<Instance>() + instance.record.heap_bytes();
        let record = match self {
            Self::Instance { instance: Some(instance), .. } => of_instance(instance),
            Self::Followed(service) => {
                size_of::<Service>() + service.instances.iter().map(|it| of_instance(it)).sum::<usize>()
            }
            Self::Service { settings: Some(_), .. } => size_of::<ServiceSettings>(),
            Self::Instance { instance: None, .. } | Self::Service { settings: None, .. } | Self::Stale(_) => {
                0
            }
        };
        size_of::<Change>() + record
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::id::SessionId;
    use crate::registry::record::Record;

    #[test]
    fn before_the_first_change_and_after_the_last_it_is_as_it_was_and_is() {
        let mut world = World::default();
        world.publish(10, &[("web", &[("a", 1), ("b", 1)])]);
        world.publish(20, &[("web", &[("b", 2), ("c", 1)])]);
        world.publish(30, &[("web", &[("c", 1)]), ("api", &[("x", 1)])]);
        assert_eq!(world.at("web", 15), Some(vec![("a".into(), 1), ("b".into(), 1)]));
        assert_eq!(world.at("web", 20), Some(vec![("b".into(), 2), ("c".into(), 1)]));
        assert_eq!(world.at("web", 29), world.at("web", 20));
        assert_eq!(world.at("web", 30), Some(vec![("c".into(), 1)]));
        assert_eq!((world.at("api", 29), world.at("api", 30).map(|it| it.len())), (None, Some(1)));
    }

    #[test]
    fn what_is_too_old_or_yet_to_come_is_not_told() {
        let mut world = World::default();
        world.publish(10, &[("web", &[])]);
        let (view, history) = (&world.view, &world.history);
        let at = |at_ms| history.look_back(view, &key("web"), at_ms, 50).map(drop);
        assert_eq!(at(9), Err(NoHistory::Forgotten { reaches_back_to_ms: 10 }));
        assert_eq!(at(51), Err(NoHistory::Future));
        assert_eq!(at(50), Ok(()));
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_the_bounds_hold() {
        let mut world = World::default();
        world.publish(1, &[("web", &[("a", 0)])]);
        for round in 0..30_000_i64 {
            world.publish(round + 2, &[("web", &[("a", u16::try_from(round % 7 + 1).unwrap())])]);
            assert!(world.history.bytes <= BYTES_MAX && world.history.changes.len() <= CHANGES_MAX);
        }
        let summed: usize = world.history.changes.iter().map(|change| change.bytes).sum();
        assert_eq!(world.history.bytes, summed);
        let oldest = world.history.reaches_back_to_ms;
        assert!(oldest > 20_000 && oldest < 30_000, "{oldest}");
        assert_eq!(
            world.at("web", oldest),
            Some(vec![("a".into(), u16::try_from((oldest - 2) % 7 + 1).unwrap())])
        );
    }

    #[test]
    fn while_a_service_was_not_followed_it_is_not_told_to_have_had_no_instances() {
        let mut world = World::default();
        world.publish(10, &[("web", &[("a", 1), ("b", 1)])]);
        world.publish(20, &[("web", &[("b", 1)])]);
        let mut lapsed = world.view.clone();
        let unfollowed = Service { is_followed: false, ..Service::new(key("web")) };
        lapsed.services.insert(Arc::new(unfollowed));
        world.history.on_published(&world.view, &lapsed, 30);
        world.view = lapsed;
        assert_eq!(world.history.changes.len(), 2, "nobody has gone");
        world.publish(40, &[("web", &[("c", 1)])]);
        world.publish(50, &[("web", &[("c", 1), ("d", 1)])]);

        let is_followed = |at_ms| {
            let past = world.history.look_back(&world.view, &key("web"), at_ms, 60).unwrap();
            past.service.unwrap().is_followed
        };
        assert_eq!([10, 20, 30, 39, 40, 50].map(is_followed), [true, true, false, false, true, true]);
        let ids = |at_ms| {
            world.at("web", at_ms).unwrap().into_iter().map(|(id, _)| id).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([10, 20, 30, 40, 50].map(ids), ["a b", "b", "", "c", "c d"]);
    }

    #[test]
    fn it_is_told_whether_the_view_was_stale() {
        let mut world = World::default();
        world.publish(10, &[("web", &[])]);
        world.history.on_stale(false, 20);
        world.history.on_stale(false, 25);
        world.history.on_stale(true, 30);
        let is_stale = |at_ms| world.history.look_back(&world.view, &key("web"), at_ms, 50).unwrap().is_stale;
        assert_eq!([15, 20, 29, 30].map(is_stale), [true, false, false, true]);
    }

    proptest! {
        #[test]
        fn any_past_view_is_found_again(
            views in prop::collection::vec(
                prop::collection::btree_map(0_u8..3, prop::collection::btree_map(0_u8..5, 0_u16..3, 0..5), 0..3), 1..12),
        ) {
            let mut world = World::default();
            let mut expected: Vec<BTreeMap<String, Vec<(String, u16)>>> = Vec::new();
            for (at, view) in (1_i64..).zip(&views) {
                let text: Vec<_> = view.iter().map(|(name, instances)| {
                    let instances: Vec<_> =
                        instances.iter().map(|(id, port)| (format!("i{id}"), *port)).collect();
                    (format!("s{name}"), instances)
                }).collect();
                let borrowed: Vec<(&str, Vec<(&str, u16)>)> = text.iter().map(|(name, instances)| {
                    (name.as_str(), instances.iter().map(|(id, port)| (id.as_str(), *port)).collect())
                }).collect();
                let slices: Vec<(&str, &[(&str, u16)])> =
                    borrowed.iter().map(|(name, instances)| (*name, instances.as_slice())).collect();
                world.publish(at, &slices);
                expected.push(text.into_iter().collect());
            }
            for (at, view) in (1_i64..).zip(&expected) {
                for name in ["s0", "s1", "s2"] {
                    prop_assert_eq!(world.at(name, at), view.get(name).cloned(), "{} at {}", name, at);
                }
            }
        }
    }

    struct World {
        history: History,
        view: View,
    }

    impl Default for World {
        fn default() -> Self {
            Self { history: History::new(0), view: View::default() }
        }
    }

    impl World {
        /// Publishes services with their instances, each with its port.
        fn publish(&mut self, now_ms: i64, services: &[(&str, &[(&str, u16)])]) {
            let mut after = View { is_loaded: true, ..View::default() };
            for (name, instances) in services {
                let instances = instances.iter().map(|(id, port)| {
                    let known = self.view.services.get(&key(name)).and_then(|service| service.instance(id));
                    let known = known.filter(|known| known.record.ports[0].port == *port);
                    known.cloned().unwrap_or_else(|| Arc::new(instance(id, *port)))
                });
                let service = Service { instances: instances.collect(), ..Service::new(key(name)) };
                after.services.insert(Arc::new(service));
            }
            self.history.on_published(&self.view, &after, now_ms);
            self.view = after;
        }

        fn at(&self, name: &str, at_ms: i64) -> Option<Vec<(String, u16)>> {
            let past = self.history.look_back(&self.view, &key(name), at_ms, i64::MAX).unwrap();
            let instances = |service: Service| {
                let of = |it: &Arc<Instance>| (it.id.to_string(), it.record.ports[0].port);
                service.instances.iter().map(of).collect()
            };
            past.service.map(instances)
        }
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: Label::parse("default").unwrap(), name: Label::parse(name).unwrap() }
    }

    fn instance(id: &str, port: u16) -> Instance {
        let text = format!(
            r#"{{"v":1,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":{port}}}],"status":"up"}}"#
        );
        let record = Record::decode(text.as_bytes()).unwrap();
        Instance::new(Label::parse(id).unwrap(), record, Zxid::ZERO, SessionId::NONE)
    }
}
