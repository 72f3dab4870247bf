//! What whole walks find, and how the view takes it in. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{MirrorState, ReadOutcome};
use crate::registry::brake::Loss;
use crate::registry::name::{Label, ServiceKey};
use crate::registry::view::{Instance, Standing};
use crate::znode::OpError;

/// Everything below the root, as one walk found it.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The services that were found.
    pub services: BTreeMap<ServiceKey, WalkedService>,
    /// Further ones of which only the names are followed.
    pub names: BTreeSet<ServiceKey>,
    /// Namespaces whose services the server does not list for us: what is known of them stays.
    pub refused: BTreeMap<Label, OpError>,
}

/// A service as a walk found it.
#[derive(Clone, Debug)]
pub struct WalkedService {
    /// Its own znode.
    pub znode: ReadOutcome,
    /// Its instances.
    pub instances: WalkedInstances,
}

impl Walk {
    /// Whether it found a service of this name.
    pub fn has(&self, service: &ServiceKey) -> bool {
        self.services.contains_key(service) || self.names.contains(service)
    }
}

impl WalkedService {
    /// Instances that were read for it.
    pub fn reads(&self) -> u64 {
        match &self.instances {
            WalkedInstances::Read(instances) => u64::try_from(instances.len()).unwrap_or(u64::MAX),
            WalkedInstances::Unchanged | WalkedInstances::Taken | WalkedInstances::Refused(_) => 0,
        }
    }
}

/// The instances of a service as a walk found them.
#[derive(Clone, Debug)]
pub enum WalkedInstances {
    /// By their ids.
    Read(BTreeMap<Label, ReadOutcome>),
    /// The service's own stat says that they are as known.
    Unchanged,
    /// They, and all else about the service, were taken in while the walk went on.
    Taken,
    /// The server does not list them for us: what is known of them stays.
    Refused(OpError),
}

impl MirrorState {
    /// Takes a whole walk: what it did not find is gone.
    pub fn on_walk(&mut self, walk: &Walk, now: Instant) {
        if !self.view.is_loaded {
            self.view.is_loaded = true;
            self.has_changed = true;
        }
        for (namespace, error) in &walk.refused {
            self.skip(&format_args!("the list of namespace {namespace}"), error);
        }
        let is_gone =
            |service: &&ServiceKey| !walk.has(service) && !walk.refused.contains_key(&service.namespace);
        let gone: Vec<_> = self.view.services.keys().filter(is_gone).cloned().collect();
        for service in gone {
            self.on_service(&service, &ReadOutcome::Missing, now);
        }
        for service in &walk.names {
            self.on_name(service);
        }
        for (service, walked) in &walk.services {
            self.on_walked(service, walked, now);
        }
    }

    /// Takes one service of a walk that goes on.
    pub fn on_walked(&mut self, service: &ServiceKey, walked: &WalkedService, now: Instant) {
        if matches!(walked.instances, WalkedInstances::Taken) {
            return;
        }
        self.on_service(service, &walked.znode, now);
        let instances = match &walked.instances {
            WalkedInstances::Read(instances) => instances,
            WalkedInstances::Unchanged | WalkedInstances::Taken => return,
            WalkedInstances::Refused(error) => {
                self.skip(&format_args!("the list of {service}"), error);
                // Its stat is known by now, and its instances are not.
                self.unsure.insert(service.clone());
                return;
            }
        };
        self.unsure.remove(service);
        if let ReadOutcome::Found { stat, .. } = &walked.znode
            && let Some(known) =
                self.view.services.get_mut_if(service, |known| known.children_zxid != stat.pzxid)
        {
            // Also down, when the ensemble is another than before.
            Arc::make_mut(known).children_zxid = stat.pzxid;
        }
        self.begin_to_follow(service);
        let before: Vec<_> = self.view.services.get(service).map_or_else(Vec::new, |known| {
            known.instances.iter().map(|instance| instance.id.clone()).collect()
        });
        let unreadable = self.view.services.get(service).map(|known| &known.unreadable);
        let gone: Vec<_> = unreadable
            .into_iter()
            .flat_map(|unreadable| unreadable.keys().filter(|id| !instances.contains_key(*id)).cloned())
            .collect();
        gone.iter().for_each(|id| self.forget_unreadable(service, id));
        for (id, outcome) in instances {
            self.on_instance(service, id, outcome, now);
        }
        let (mut newcomers, mut gone) = (self.newcomers_since(&before, service), Vec::new());
        if let Some(known) = self.view.services.get(service) {
            let is_missing =
                |it: &&Arc<Instance>| it.standing == Standing::Registered && !instances.contains_key(&it.id);
            gone.extend(
                known.instances.iter().filter(is_missing).map(|it| (it.id.clone(), it.record.is_up())),
            );
        }
        for (id, was_up) in gone {
            let loss = if was_up && newcomers > 0 { Loss::MadeUpFor } else { Loss::Counted };
            newcomers = newcomers.saturating_sub(usize::from(was_up));
            self.remove_instance(service, &id, loss, now);
        }
    }

    /// How many of a service are up that were not among these, which are in their order.
    fn newcomers_since(&self, before: &[Label], service: &ServiceKey) -> usize {
        let Some(known) = self.view.services.get(service) else { return 0 };
        known.up().filter(|instance| before.binary_search(&instance.id).is_err()).count()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock;
    use crate::registry::layout::Place;
    use crate::registry::mirror::state::tests::*;
    use crate::znode::Stat;

    #[test]
    fn a_walk_replaces_what_is_known() {
        let mut state = state();
        for (service, id) in [("gone", "a"), ("web", "a"), ("web", "b")] {
            state.on_read(&instance(service, id), &found(&record(80), 5), clock::now());
        }
        let instances =
            [("b", found(&record(80), 5)), ("c", found(&record(80), 9))].map(|(id, read)| (label(id), read));
        let znode = ReadOutcome::Found {
            data: Some(Bytes::from_static(br#"{"min_healthy":2,"later":1}"#)),
            stat: Stat { mzxid: zxid(2), pzxid: zxid(10), ..Stat::default() },
        };
        state.on_walk(
            &walk_of("web", WalkedService { znode, instances: WalkedInstances::Read(instances.into()) }),
            clock::now(),
        );
        let view = state.take_changed(clock::now()).unwrap();
        assert_eq!(view.services.len(), 1);
        assert_eq!(ids(&view, "web"), ["b", "c"]);
        assert_eq!(view.services[&key("web")].settings.min_healthy, 2);
        assert_eq!(view.zxid, zxid(10), "a deletion shows in the service's own stat");
    }

    #[test]
    fn a_stat_reveals_any_missed_change_of_the_list() {
        let mut state = state();
        let stat = |pzxid| Stat { mzxid: zxid(2), pzxid: zxid(pzxid), ..Stat::default() };
        assert!(!state.is_unchanged(&key("web"), &stat(10)), "never heard of");
        let znode = ReadOutcome::Found { data: None, stat: stat(10) };
        let instances = BTreeMap::from([(label("a"), found(&record(80), 5))]);
        state.on_walk(
            &walk_of("web", WalkedService { znode, instances: WalkedInstances::Read(instances) }),
            clock::now(),
        );
        assert!(state.is_unchanged(&key("web"), &stat(10)));
        assert!(!state.is_unchanged(&key("web"), &stat(11)));

        // A creation shows in the instance that was read, a deletion in the stat that is read then.
        state.on_read(&instance("web", "b"), &found(&record(80), 12), clock::now());
        assert!(state.is_unchanged(&key("web"), &stat(12)) && !state.is_unchanged(&key("web"), &stat(10)));
        state.on_read(&instance("web", "b"), &ReadOutcome::Missing, clock::now());
        state.on_read(
            &Place::Service(key("web")),
            &ReadOutcome::Found { data: None, stat: stat(13) },
            clock::now(),
        );
        assert!(state.is_unchanged(&key("web"), &stat(13)));

        // What was told and never read may be older than what was read.
        state.on_forgotten(&instance("web", "c"));
        assert!(!state.is_unchanged(&key("web"), &stat(13)));
        let znode = ReadOutcome::Found { data: None, stat: stat(13) };
        state.on_walk(
            &walk_of("web", WalkedService { znode, instances: WalkedInstances::Read(BTreeMap::new()) }),
            clock::now(),
        );
        assert!(state.is_unchanged(&key("web"), &stat(13)));
        let znode = ReadOutcome::Found { data: None, stat: stat(14) };
        state.on_walk(
            &walk_of("web", WalkedService { znode, instances: WalkedInstances::Refused(OpError::NoAuth) }),
            clock::now(),
        );
        assert!(!state.is_unchanged(&key("web"), &stat(14)), "its list was refused");
    }

    #[test]
    fn no_stat_is_believed_once_notices_were_lost() {
        let mut state = state();
        let stat = Stat { mzxid: zxid(2), pzxid: zxid(12), ..Stat::default() };
        // One of two that were created in one txn: of the other it was told, too, and that is lost.
        state.on_read(&instance("web", "a"), &found(&record(80), 12), clock::now());
        assert!(state.is_unchanged(&key("web"), &stat), "what was told is read");
        state.on_notices_lost();
        assert!(!state.is_unchanged(&key("web"), &stat));

        let instances = ["a", "b"].map(|id| (label(id), found(&record(80), 12))).into();
        let znode = ReadOutcome::Found { data: None, stat };
        let walked = WalkedService { znode, instances: WalkedInstances::Read(instances) };
        state.on_walk(&walk_of("web", walked), clock::now());
        assert_eq!(ids(&state.take_changed(clock::now()).unwrap(), "web"), ["a", "b"]);
        assert!(state.is_unchanged(&key("web"), &stat), "once it was read");
    }

    #[test]
    fn what_may_not_be_listed_stays_and_hides_nothing_else() {
        let mut state = state();
        state.on_read(&instance("web", "a"), &found(&record(80), 5), clock::now());
        let mut walk = Walk::default();
        walk.refused.insert(label("default"), OpError::NoAuth);
        walk.refused.insert(label("secret"), OpError::NoAuth);
        state.on_walk(&walk, clock::now());
        let view = state.take_changed(clock::now()).unwrap();
        assert!(view.is_loaded);
        assert_eq!(ids(&view, "web"), ["a"]);

        let znode = ReadOutcome::Found { data: None, stat: Stat::default() };
        state.on_walk(
            &walk_of("web", WalkedService { znode, instances: WalkedInstances::Refused(OpError::NoAuth) }),
            clock::now(),
        );
        assert!(state.take_changed(clock::now()).is_none());
        assert_eq!(state.unreadable(), 3);
    }

    fn walk_of(service: &str, walked: WalkedService) -> Walk {
        Walk { services: BTreeMap::from([(key(service), walked)]), ..Walk::default() }
    }
}
