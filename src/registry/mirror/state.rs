//! The view as it grows from one read after the other. Pure.
//!
//! Only a read changes the view, never an event: what an event says may be outdated when it arrives, and a deletion
//! and a creation in one multi must not look like a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tracing::warn;

use crate::id::Zxid;
use crate::registry::layout::Place;
use crate::registry::name::{Label, ServiceKey};
use crate::registry::record::Record;
use crate::registry::view::{Instance, Service, ServiceSettings, View};
use crate::znode::{OpError, Stat};

/// What reading one znode came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// It is there.
    Found {
        /// Its data.
        data: Option<Bytes>,
        /// Its stat.
        stat: Stat,
    },
    /// It is not.
    Missing,
    /// The server does not let us know.
    Refused(OpError),
}

/// Everything below the root, as one walk found it.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The services that were found.
    pub services: BTreeMap<ServiceKey, WalkedService>,
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

/// The instances of a service as a walk found them.
#[derive(Clone, Debug)]
pub enum WalkedInstances {
    /// By their ids.
    Read(BTreeMap<Label, ReadOutcome>),
    /// The service's own stat says that they are as known.
    Unchanged,
    /// The server does not list them for us: what is known of them stays.
    Refused(OpError),
}

/// The view, and what was counted while it grew.
#[derive(Debug, Default)]
pub struct MirrorState {
    view: View,
    has_changed: bool,
    unreadable: u64,
    /// Services of which something was told that was never read: their own stat may say that nothing is missing, and be wrong.
    unsure: BTreeSet<ServiceKey>,
}

impl MirrorState {
    /// Goes on from a view, which is compared with the first walk.
    pub fn new(view: View) -> Self {
        Self { view, ..Self::default() }
    }

    /// The view to publish, if it differs from the last that was taken.
    pub fn take_changed(&mut self) -> Option<View> {
        std::mem::take(&mut self.has_changed).then(|| self.view.clone())
    }

    /// How many reads found something that could not be understood, or were refused.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// What was told of a place will not be read.
    pub fn on_forgotten(&mut self, place: &Place) {
        let (Place::Service(service) | Place::Instance(service, _)) = place;
        self.unsure.insert(service.clone());
    }

    /// Whether a service whose znode has this stat can have no instances but those that are known, unchanged. What our registrars
    /// write deletes and creates, and so shows in the stat; what others set in place does not.
    pub fn is_unchanged(&self, service: &ServiceKey, stat: &Stat) -> bool {
        let known = self.view.services.get(service);
        let is_known =
            known.is_some_and(|known| known.children_zxid > Zxid::ZERO && known.children_zxid == stat.pzxid);
        is_known && !self.unsure.contains(service)
    }

    /// Takes the outcome of one read.
    pub fn on_read(&mut self, place: &Place, outcome: &ReadOutcome) {
        match place {
            Place::Service(service) => self.on_service(service, outcome),
            Place::Instance(service, id) => self.on_instance(service, id, outcome),
        }
    }

    /// Takes a whole walk: what it did not find is gone.
    pub fn on_walk(&mut self, walk: &Walk) {
        if !self.view.is_loaded {
            self.view.is_loaded = true;
            self.has_changed = true;
        }
        for (namespace, error) in &walk.refused {
            self.skip(&format_args!("the list of namespace {namespace}"), error);
        }
        let is_gone = |service: &&ServiceKey| {
            !walk.services.contains_key(*service) && !walk.refused.contains_key(&service.namespace)
        };
        let gone: Vec<_> = self.view.services.keys().filter(is_gone).cloned().collect();
        for service in gone {
            self.on_service(&service, &ReadOutcome::Missing);
        }
        for (service, walked) in &walk.services {
            self.on_service(service, &walked.znode);
            let instances = match &walked.instances {
                WalkedInstances::Read(instances) => instances,
                WalkedInstances::Unchanged => continue,
                WalkedInstances::Refused(error) => {
                    self.skip(&format_args!("the list of {service}"), error);
                    // Its stat is known by now, and its instances are not.
                    self.unsure.insert(service.clone());
                    continue;
                }
            };
            self.unsure.remove(service);
            if let (ReadOutcome::Found { stat, .. }, Some(known)) =
                (&walked.znode, self.view.services.get_mut(service))
                && known.children_zxid != stat.pzxid
            {
                // Also down, when the ensemble is another than before.
                Arc::make_mut(known).children_zxid = stat.pzxid;
            }
            let gone: Vec<_> = self.view.services.get(service).map_or_else(Vec::new, |known| {
                let ids = known.instances.iter().map(|instance| &instance.id);
                ids.filter(|id| !instances.contains_key(*id)).cloned().collect()
            });
            for id in gone {
                self.on_instance(service, &id, &ReadOutcome::Missing);
            }
            for (id, outcome) in instances {
                self.on_instance(service, id, outcome);
            }
        }
    }

    fn on_service(&mut self, service: &ServiceKey, outcome: &ReadOutcome) {
        let (data, stat) = match outcome {
            ReadOutcome::Found { data, stat } => (data, stat),
            // It can have no instances then: a znode with children is not deleted.
            ReadOutcome::Missing => {
                self.unsure.remove(service);
                self.has_changed |= self.view.services.remove(service).is_some();
                return;
            }
            ReadOutcome::Refused(error) => return self.skip(&service, error),
        };
        let settings = match data.as_deref().filter(|data| !data.is_empty()) {
            None => Some(ServiceSettings::default()),
            Some(data) => serde_json::from_slice(data)
                .map_err(|error| self.skip(&format_args!("settings of {service}"), &error))
                .ok(),
        };
        let zxid = stat.mzxid.max(stat.pzxid);
        let known = self.service_mut(service);
        if let Some(settings) = settings.filter(|settings| *settings != known.settings) {
            Arc::make_mut(known).settings = settings;
            self.has_changed = true;
        }
        self.raise_zxid(service, zxid);
        self.raise_children_zxid(service, stat.pzxid);
    }

    fn on_instance(&mut self, service: &ServiceKey, id: &Label, outcome: &ReadOutcome) {
        let (data, stat) = match outcome {
            ReadOutcome::Found { data, stat } => (data.as_deref().unwrap_or_default(), stat),
            ReadOutcome::Missing => return self.remove_instance(service, id),
            ReadOutcome::Refused(error) => return self.skip(&format_args!("{id} of {service}"), error),
        };
        let record = match Record::decode(data) {
            Ok(record) => record,
            Err(error) => return self.skip(&format_args!("{id} of {service}"), &error),
        };
        let (mzxid, session) = (stat.mzxid, stat.ephemeral_owner);
        let instance = Instance { id: id.clone(), record, mzxid, session };
        let known = self.service_mut(service);
        match position(known, id) {
            Ok(at) if *known.instances[at] == instance => return,
            Ok(at) => Arc::make_mut(known).instances[at] = Arc::new(instance),
            Err(at) => Arc::make_mut(known).instances.insert(at, Arc::new(instance)),
        }
        self.has_changed = true;
        self.raise_zxid(service, mzxid);
        self.raise_children_zxid(service, mzxid);
    }

    fn remove_instance(&mut self, service: &ServiceKey, id: &Label) {
        let Some(known) = self.view.services.get_mut(service) else { return };
        let Ok(at) = position(known, id) else { return };
        Arc::make_mut(known).instances.remove(at);
        self.has_changed = true;
    }

    /// What cannot be understood changes nothing: what was last understood of it stays.
    fn skip(&mut self, what: &dyn std::fmt::Display, error: &dyn std::fmt::Display) {
        self.unreadable += 1;
        warn!(%what, error = %error, "skipped a znode that cannot be read");
    }

    fn service_mut(&mut self, service: &ServiceKey) -> &mut Arc<Service> {
        self.view.services.entry(service.clone()).or_insert_with(|| {
            self.has_changed = true;
            Arc::new(Service {
                key: service.clone(),
                settings: ServiceSettings::default(),
                instances: Vec::new(),
                zxid: Zxid::ZERO,
                children_zxid: Zxid::ZERO,
            })
        })
    }

    /// Nothing that is published depends on it, so that it is no change.
    fn raise_children_zxid(&mut self, service: &ServiceKey, zxid: Zxid) {
        let Some(known) = self.view.services.get_mut(service) else { return };
        if known.children_zxid < zxid {
            Arc::make_mut(known).children_zxid = zxid;
        }
    }

    fn raise_zxid(&mut self, service: &ServiceKey, zxid: Zxid) {
        let Some(known) = self.view.services.get_mut(service) else { return };
        if known.zxid < zxid {
            Arc::make_mut(known).zxid = zxid;
            self.has_changed = true;
        }
        self.view.zxid = self.view.zxid.max(zxid);
    }
}

fn position(service: &Service, id: &Label) -> Result<usize, usize> {
    service.instances.binary_search_by(|instance| instance.id.cmp(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn reads_grow_the_view_and_unchanged_services_are_shared() {
        let mut state = MirrorState::default();
        state.on_walk(&Walk::default());
        let empty = state.take_changed().unwrap();
        assert!(empty.is_loaded && empty.services.is_empty());

        state.on_read(&instance("web", "b"), &found(&record(80), 5));
        state.on_read(&instance("web", "a"), &found(&record(80), 6));
        state.on_read(&instance("api", "a"), &found(&record(81), 7));
        let first = state.take_changed().unwrap();
        assert_eq!(ids(&first, "web"), ["a", "b"]);
        assert_eq!(first.zxid, zxid(7));
        assert_eq!(first.services[&key("web")].zxid, zxid(6));

        state.on_read(&instance("api", "a"), &found(&record(82), 8));
        let second = state.take_changed().unwrap();
        assert!(Arc::ptr_eq(&first.services[&key("web")], &second.services[&key("web")]));
        assert!(!Arc::ptr_eq(&first.services[&key("api")], &second.services[&key("api")]));
        assert_eq!(first.services[&key("api")].instances[0].record.ports[0].port, 81, "views never change");
    }

    #[test]
    fn the_same_read_again_changes_nothing() {
        let mut state = MirrorState::default();
        state.on_read(&instance("web", "a"), &found(&record(80), 5));
        assert!(state.take_changed().is_some());
        state.on_read(&instance("web", "a"), &found(&record(80), 5));
        state.on_read(&instance("web", "b"), &ReadOutcome::Missing);
        state.on_read(&instance("other", "b"), &ReadOutcome::Missing);
        assert!(state.take_changed().is_none());
    }

    #[test]
    fn what_a_read_does_not_find_is_gone_and_its_service_stays() {
        let mut state = MirrorState::default();
        state.on_read(&instance("web", "a"), &found(&record(80), 5));
        state.on_read(&instance("web", "a"), &ReadOutcome::Missing);
        let view = state.take_changed().unwrap();
        assert!(ids(&view, "web").is_empty());
        state.on_read(&Place::Service(key("web")), &ReadOutcome::Missing);
        assert!(state.take_changed().unwrap().services.is_empty());
    }

    #[test]
    fn a_walk_replaces_what_is_known() {
        let mut state = MirrorState::default();
        for (service, id) in [("gone", "a"), ("web", "a"), ("web", "b")] {
            state.on_read(&instance(service, id), &found(&record(80), 5));
        }
        let instances =
            [("b", found(&record(80), 5)), ("c", found(&record(80), 9))].map(|(id, read)| (label(id), read));
        let znode = ReadOutcome::Found {
            data: Some(Bytes::from_static(br#"{"min_healthy":2,"later":1}"#)),
            stat: Stat { mzxid: zxid(2), pzxid: zxid(10), ..Stat::default() },
        };
        state.on_walk(&walk_of(
            "web",
            WalkedService { znode, instances: WalkedInstances::Read(instances.into()) },
        ));
        let view = state.take_changed().unwrap();
        assert_eq!(view.services.len(), 1);
        assert_eq!(ids(&view, "web"), ["b", "c"]);
        assert_eq!(view.services[&key("web")].settings.min_healthy, 2);
        assert_eq!(view.zxid, zxid(10), "a deletion shows in the service's own stat");
    }

    #[test]
    fn a_stat_reveals_any_missed_change_of_the_list() {
        let mut state = MirrorState::default();
        let stat = |pzxid| Stat { mzxid: zxid(2), pzxid: zxid(pzxid), ..Stat::default() };
        assert!(!state.is_unchanged(&key("web"), &stat(10)), "never heard of");
        let znode = ReadOutcome::Found { data: None, stat: stat(10) };
        let instances = BTreeMap::from([(label("a"), found(&record(80), 5))]);
        state.on_walk(&walk_of("web", WalkedService { znode, instances: WalkedInstances::Read(instances) }));
        assert!(state.is_unchanged(&key("web"), &stat(10)));
        assert!(!state.is_unchanged(&key("web"), &stat(11)));

        // A creation shows in the instance that was read, a deletion in the stat that is read then.
        state.on_read(&instance("web", "b"), &found(&record(80), 12));
        assert!(state.is_unchanged(&key("web"), &stat(12)) && !state.is_unchanged(&key("web"), &stat(10)));
        state.on_read(&instance("web", "b"), &ReadOutcome::Missing);
        state.on_read(&Place::Service(key("web")), &ReadOutcome::Found { data: None, stat: stat(13) });
        assert!(state.is_unchanged(&key("web"), &stat(13)));

        // What was told and never read may be older than what was read.
        state.on_forgotten(&instance("web", "c"));
        assert!(!state.is_unchanged(&key("web"), &stat(13)));
        let znode = ReadOutcome::Found { data: None, stat: stat(13) };
        state.on_walk(&walk_of(
            "web",
            WalkedService { znode, instances: WalkedInstances::Read(BTreeMap::new()) },
        ));
        assert!(state.is_unchanged(&key("web"), &stat(13)));
        let znode = ReadOutcome::Found { data: None, stat: stat(14) };
        state.on_walk(&walk_of(
            "web",
            WalkedService { znode, instances: WalkedInstances::Refused(OpError::NoAuth) },
        ));
        assert!(!state.is_unchanged(&key("web"), &stat(14)), "its list was refused");
    }

    #[test]
    fn what_may_not_be_listed_stays_and_hides_nothing_else() {
        let mut state = MirrorState::default();
        state.on_read(&instance("web", "a"), &found(&record(80), 5));
        let mut walk = Walk::default();
        walk.refused.insert(label("default"), OpError::NoAuth);
        walk.refused.insert(label("secret"), OpError::NoAuth);
        state.on_walk(&walk);
        let view = state.take_changed().unwrap();
        assert!(view.is_loaded);
        assert_eq!(ids(&view, "web"), ["a"]);

        let znode = ReadOutcome::Found { data: None, stat: Stat::default() };
        state.on_walk(&walk_of(
            "web",
            WalkedService { znode, instances: WalkedInstances::Refused(OpError::NoAuth) },
        ));
        assert!(state.take_changed().is_none());
        assert_eq!(state.unreadable(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_skipped_and_counted() {
        let mut state = MirrorState::default();
        state.on_read(&instance("web", "a"), &found(&record(80), 5));
        state.take_changed();
        state.on_read(&instance("web", "a"), &found("{", 6));
        state.on_read(&instance("web", "b"), &found("null", 7));
        state.on_read(&instance("web", "a"), &ReadOutcome::Refused(OpError::NoAuth));
        state.on_read(&Place::Service(key("web")), &found("[]]", 8));
        assert_eq!(state.unreadable(), 4);
        assert_eq!(ids(state.take_changed().as_ref().unwrap(), "web"), ["a"]);
    }

    fn walk_of(service: &str, walked: WalkedService) -> Walk {
        Walk { services: BTreeMap::from([(key(service), walked)]), ..Walk::default() }
    }

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: label("default"), name: label(name) }
    }

    fn instance(service: &str, id: &str) -> Place {
        Place::Instance(key(service), label(id))
    }

    fn zxid(raw: i64) -> Zxid {
        Zxid::from_raw(raw)
    }

    fn record(port: u16) -> String {
        format!(
            r#"{{"v":1,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":{port}}}],"status":"up"}}"#
        )
    }

    fn found(data: &str, mzxid: i64) -> ReadOutcome {
        let stat = Stat { mzxid: zxid(mzxid), ephemeral_owner: SessionId(1), ..Stat::default() };
        ReadOutcome::Found { data: Some(Bytes::copy_from_slice(data.as_bytes())), stat }
    }

    fn ids(view: &View, service: &str) -> Vec<String> {
        view.services[&key(service)].instances.iter().map(|instance| instance.id.to_string()).collect()
    }
}
