//! The view as it grows from one read after the other. Pure.
//!
//! Only what a znode is changes the view, as a read finds it or a member sends it along, never what an event says: that may be outdated when it
//! arrives, and a deletion and a creation in one multi must not look like a gap. And what is not found is not always gone: see [`Brake`].
//! What whole walks find is taken in by [`walked`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::id::Zxid;
use crate::registry::brake::{Brake, Decision, Loss, ProbeOutcome, ProbeTarget};
use crate::registry::layout::{Layout, Place};
use crate::registry::name::{Label, ServiceKey};
use crate::registry::record::Record;
use crate::registry::view::{Instance, Service, ServiceSettings, Standing, View};
use crate::registry::view_settings::ViewSettings;
use crate::znode::{OpError, Stat};

mod skipped;
mod walked;

pub use self::walked::{Walk, WalkedInstances, WalkedService};

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
    /// It is there, and not what it should be.
    NotUnderstood(String),
}

/// The view, and what was counted while it grew.
#[derive(Debug)]
pub struct MirrorState {
    view: View,
    brake: Brake,
    /// Where services have their settings, for whoever is to mend them.
    layout: Layout,
    has_changed: bool,
    /// Services whose instances or settings have changed since the last view was taken.
    unplanned: BTreeSet<ServiceKey>,
    unreadable: u64,
    /// Services whose znode is gone, and that are still shown because of instances that are held.
    gone: BTreeSet<ServiceKey>,
    /// Services of which something was told that was never read: their own stat may say that nothing is missing, and be wrong.
    unsure: BTreeSet<ServiceKey>,
}

impl MirrorState {
    /// Goes on from a view, which is compared with the first walk.
    pub fn new(view: View, mut brake: Brake, now: Instant) -> Self {
        for service in view.services.values() {
            for instance in service.instances.iter().filter(|it| it.standing != Standing::Registered) {
                brake.on_inherited(service, instance, now);
            }
        }
        let (gone, unsure, unplanned) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let layout = Layout::default();
        Self { view, brake, layout, has_changed: false, unplanned, unreadable: 0, gone, unsure }
    }

    /// The same, of services that stand there. Default: [`Layout::ROOT`].
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// The view to publish at `now`, if it differs from the last that was taken.
    pub fn take_changed(&mut self, now: Instant) -> Option<View> {
        for decision in self.brake.poll(&self.view, now) {
            self.on_decision(&decision);
        }
        let unplanned = std::mem::take(&mut self.unplanned);
        if !unplanned.is_empty() {
            self.view.plan(&unplanned);
        }
        std::mem::take(&mut self.has_changed).then(|| self.view.clone())
    }

    /// The view as it is now.
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// What is held, and counts of that.
    pub const fn brake(&self) -> &Brake {
        &self.brake
    }

    /// Takes other settings, of which some concern what is held already.
    pub fn on_settings(&mut self, settings: ViewSettings, now: Instant) {
        self.brake.set_plan(settings.brake);
        for decision in self.brake.poll(&self.view, now) {
            self.on_decision(&decision);
        }
        self.view.settle(settings.home);
        self.has_changed = true;
    }

    /// Who is to be probed now.
    pub fn take_probes(&mut self, now: Instant) -> Vec<ProbeTarget> {
        self.brake.take_probes(&self.view, now)
    }

    /// Takes what became of a probe.
    pub fn on_probe(&mut self, service: &ServiceKey, id: &Label, outcome: ProbeOutcome, now: Instant) {
        if let Some(decision) = self.brake.on_probe(service, id, outcome, now) {
            self.on_decision(&decision);
        }
    }

    /// Lets the marks of lookups fade, and begins to count for services that got their first.
    pub fn age_lookups(&mut self) {
        // Before their marks fade.
        let services = self.view.services.values();
        let uncounted: Vec<_> = services
            .clone()
            .filter(|service| service.is_to_be_counted())
            .map(|service| service.key.clone())
            .collect();
        services.for_each(|service| service.lookups.age());
        for service in uncounted {
            if let Some(service) = self.view.services.get_mut(&service) {
                service.begin_tally();
                self.has_changed = true;
            }
        }
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

    /// Something was told that nobody knows any more. What was read since may be newer than that, so that the stats of all services may say
    /// that nothing is missing, and be wrong. (After a lost connection they are right: what was told comes before any reply that shows it,
    /// and was read, or is forgotten by its place; so is what came with the events of the last txn, of which others may be lost.)
    pub fn on_notices_lost(&mut self) {
        self.unsure.extend(self.view.services.keys().cloned());
    }

    /// Whether a service whose znode has this stat can have no instances but those that are known, unchanged. What our registrars
    /// write deletes and creates, and so shows in the stat; what others set in place does not.
    pub fn is_unchanged(&self, service: &ServiceKey, stat: &Stat) -> bool {
        let known = self.view.services.get(service).filter(|known| known.is_followed);
        let is_known =
            known.is_some_and(|known| known.children_zxid > Zxid::ZERO && known.children_zxid == stat.pzxid);
        is_known && !self.unsure.contains(service)
    }

    /// Whether what a txn did to a place is not known yet: nothing of its service is known of a later one.
    pub fn is_next(&self, place: &Place, zxid: Zxid) -> bool {
        let (Place::Service(service) | Place::Instance(service, _)) = place;
        zxid > Zxid::ZERO && self.view.services.get(service).is_none_or(|known| known.zxid <= zxid)
    }

    /// Takes the outcome of one read.
    pub fn on_read(&mut self, place: &Place, outcome: &ReadOutcome, now: Instant) {
        match place {
            Place::Service(service) => self.on_service(service, outcome, now),
            // All of them are to be read, later than this.
            Place::Instance(service, _) if self.is_only_a_name(service) => {}
            Place::Instance(service, id) => self.on_instance(service, id, outcome, now),
        }
    }

    /// Takes that there is a service of this name, of which no more is known unless it is followed already.
    pub fn on_name(&mut self, service: &ServiceKey) {
        self.gone.remove(service);
        if !self.view.services.contains_key(service) {
            let named = Service { is_followed: false, ..Service::new(service.clone()) };
            self.view.services.insert(Arc::new(named));
            self.has_changed = true;
        }
    }

    /// Takes that a service is followed no more: what is known of it but its name is forgotten, and none of it is gone.
    pub fn on_unfollowed(&mut self, service: &ServiceKey) {
        self.unsure.remove(service);
        self.unplanned.remove(service);
        self.brake.on_unfollowed(service);
        let Some(known) = self.view.services.get_mut_if(service, |known| known.is_followed) else { return };
        let (zxid, lookups) = (known.zxid, known.lookups.clone());
        *known = Arc::new(Service { is_followed: false, zxid, lookups, ..Service::new(service.clone()) });
        self.has_changed = true;
        self.drop_if_gone(service);
    }

    fn is_only_a_name(&self, service: &ServiceKey) -> bool {
        self.view.services.get(service).is_some_and(|known| !known.is_followed)
    }

    fn begin_to_follow(&mut self, service: &ServiceKey) {
        if let Some(known) = self.view.services.get_mut_if(service, |known| !known.is_followed) {
            Arc::make_mut(known).is_followed = true;
            self.note_change(service);
        }
    }

    /// Takes that the list of a service's instances changed in the txn `zxid`, and that this was read.
    pub fn on_list_changed(&mut self, service: &ServiceKey, zxid: Zxid) {
        self.raise_zxid(service, zxid);
        self.raise_children_zxid(service, zxid);
    }

    fn on_service(&mut self, service: &ServiceKey, outcome: &ReadOutcome, now: Instant) {
        let (data, stat) = match outcome {
            ReadOutcome::Found { data, stat } => (data, stat),
            ReadOutcome::Missing => return self.remove_service(service, now),
            ReadOutcome::Refused(error) => return self.skip(&service, error),
            ReadOutcome::NotUnderstood(reason) => return self.skip(&service, reason),
        };
        self.gone.remove(service);
        let settings = ServiceSettings::read(data.as_deref().unwrap_or_default());
        if let Err(damage) = &settings {
            self.skip_settings(service, damage);
        }
        let zxid = stat.mzxid.max(stat.pzxid);
        self.add(service);
        if let Ok(settings) = settings
            && let Some(known) = self.view.services.get_mut_if(service, |known| known.settings != settings)
        {
            Arc::make_mut(known).settings = settings;
            self.note_change(service);
        }
        self.raise_zxid(service, zxid);
        self.raise_children_zxid(service, stat.pzxid);
    }

    fn on_instance(&mut self, service: &ServiceKey, id: &Label, outcome: &ReadOutcome, now: Instant) {
        let (data, stat) = match outcome {
            ReadOutcome::Found { data, stat } => (data.as_deref().unwrap_or_default(), stat),
            ReadOutcome::Missing => return self.remove_instance(service, id, Loss::Counted, now),
            ReadOutcome::Refused(error) => return self.skip_instance(service, id, error, None),
            ReadOutcome::NotUnderstood(reason) => return self.skip_instance(service, id, reason, None),
        };
        let (mzxid, session) = (stat.mzxid, stat.ephemeral_owner);
        let record = match Record::decode(data) {
            Ok(record) => record,
            Err(error) => return self.skip_instance(service, id, &error, Some((mzxid, session))),
        };
        self.forget_unreadable(service, id);
        let instance = Arc::new(Instance::new(id.clone(), record, mzxid, session));
        self.add(service);
        let is_news = |known: &Service| known.instance(id.as_str()) != Some(&instance);
        let Some(known) = self.view.services.get_mut_if(service, is_news) else { return };
        Arc::make_mut(known).instances.put(instance.clone());
        self.note_change(service);
        for decision in self.brake.on_registered(service, &instance) {
            self.on_decision(&decision);
        }
        self.raise_zxid(service, mzxid);
        self.raise_children_zxid(service, mzxid);
    }

    /// A znode with children is not deleted: whatever instances are known have vanished before it.
    fn remove_service(&mut self, service: &ServiceKey, now: Instant) {
        self.unsure.remove(service);
        let Some(known) = self.view.services.get(service) else { return };
        let ids: Vec<_> = known.instances.iter().map(|instance| instance.id.clone()).collect();
        let is_to_forget =
            |known: &Service| known.children_zxid != Zxid::ZERO || !known.unreadable.is_empty();
        if let Some(known) = self.view.services.get_mut_if(service, is_to_forget) {
            // One of that name that is created later has a list of its own.
            let gone = Arc::make_mut(known);
            gone.children_zxid = Zxid::ZERO;
            gone.unreadable.clear();
        }
        self.gone.insert(service.clone());
        for id in ids {
            self.remove_instance(service, &id, Loss::Counted, now);
        }
        self.drop_if_gone(service);
    }

    fn remove_instance(&mut self, service: &ServiceKey, id: &Label, loss: Loss, now: Instant) {
        self.forget_unreadable(service, id);
        let Some(known) = self.view.services.get(service) else { return };
        let Some(instance) = known.instance(id.as_str()) else { return };
        if instance.standing == Standing::Registered {
            let standing = self.brake.on_vanished(known, instance, loss, now);
            let vanished_at = Some(now);
            let vanished =
                standing.map(|standing| Instance { standing, vanished_at, ..Instance::clone(instance) });
            self.show(service, id, vanished);
        }
    }

    fn on_decision(&mut self, Decision { service, id, fate }: &Decision) {
        let Some(known) = self.view.services.get(service) else { return };
        let Some(instance) = known.instance(id.as_str()) else { return };
        if instance.standing != Standing::Registered {
            let held = fate.ok().map(|standing| Instance { standing, ..Instance::clone(instance) });
            self.show(service, id, held);
            self.drop_if_gone(service);
        }
    }

    /// Shows an instance as it is now, or no more.
    fn show(&mut self, service: &ServiceKey, id: &Label, instance: Option<Instance>) {
        let Some(known) = self.view.services.get_mut(service) else { return };
        let instances = &mut Arc::make_mut(known).instances;
        match instance {
            Some(instance) => instances.put(Arc::new(instance)),
            None => drop(instances.take(id.as_str())),
        }
        self.note_change(service);
    }

    /// A service whose znode is gone is forgotten with the last instance that was held.
    fn drop_if_gone(&mut self, service: &ServiceKey) {
        let is_empty = self.view.services.get(service).is_none_or(|known| known.instances.is_empty());
        if is_empty && self.gone.remove(service) {
            self.has_changed |= self.view.services.remove(service).is_some();
        }
    }

    /// Adds a service that is not known.
    fn add(&mut self, service: &ServiceKey) {
        if !self.view.services.contains_key(service) {
            self.view.services.insert(Arc::new(Service::new(service.clone())));
            self.has_changed = true;
        }
    }

    fn note_change(&mut self, service: &ServiceKey) {
        self.has_changed = true;
        self.unplanned.insert(service.clone());
    }

    /// Nothing that is published depends on it, so that it is no change.
    fn raise_children_zxid(&mut self, service: &ServiceKey, zxid: Zxid) {
        if let Some(known) = self.view.services.get_mut_if(service, |known| known.children_zxid < zxid) {
            Arc::make_mut(known).children_zxid = zxid;
        }
    }

    fn raise_zxid(&mut self, service: &ServiceKey, zxid: Zxid) {
        let Some(known) = self.view.services.get(service) else { return };
        if known.zxid < zxid
            && let Some(known) = self.view.services.get_mut(service)
        {
            Arc::make_mut(known).zxid = zxid;
            self.has_changed = true;
        }
        self.view.zxid = self.view.zxid.max(zxid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::id::SessionId;
    use crate::registry::Home;
    use crate::registry::brake::BrakePlan;
    use crate::registry::select::shares;

    #[test]
    fn reads_grow_the_view_and_unchanged_services_are_shared() {
        let mut state = state();
        state.on_walk(&Walk::default(), clock::now());
        let empty = state.take_changed(clock::now()).unwrap();
        assert!(empty.is_loaded && empty.services.is_empty());

        state.on_read(&instance("web", "b"), &found(&record(80), 5), clock::now());
        state.on_read(&instance("web", "a"), &found(&record(80), 6), clock::now());
        state.on_read(&instance("api", "a"), &found(&record(81), 7), clock::now());
        let first = state.take_changed(clock::now()).unwrap();
        assert_eq!(ids(&first, "web"), ["a", "b"]);
        assert_eq!(first.zxid, zxid(7));
        assert_eq!(first.services[&key("web")].zxid, zxid(6));

        state.on_read(&instance("api", "a"), &found(&record(82), 8), clock::now());
        let second = state.take_changed(clock::now()).unwrap();
        assert!(Arc::ptr_eq(&first.services[&key("web")], &second.services[&key("web")]));
        assert!(!Arc::ptr_eq(&first.services[&key("api")], &second.services[&key("api")]));
        assert_eq!(first.services[&key("api")].instances[0].record.ports[0].port, 81, "views never change");
    }

    #[test]
    fn the_same_read_again_changes_nothing() {
        let mut state = state();
        state.on_read(&instance("web", "a"), &found(&record(80), 5), clock::now());
        assert!(state.take_changed(clock::now()).is_some());
        state.on_read(&instance("web", "a"), &found(&record(80), 5), clock::now());
        state.on_read(&instance("web", "b"), &ReadOutcome::Missing, clock::now());
        state.on_read(&instance("other", "b"), &ReadOutcome::Missing, clock::now());
        assert!(state.take_changed(clock::now()).is_none());
    }

    #[test]
    fn what_a_read_does_not_find_is_gone_and_its_service_stays() {
        let mut state = state();
        state.on_read(&instance("web", "a"), &found(&record(80), 5), clock::now());
        state.on_read(&instance("web", "a"), &ReadOutcome::Missing, clock::now());
        let view = state.take_changed(clock::now()).unwrap();
        assert!(ids(&view, "web").is_empty());
        state.on_read(&Place::Service(key("web")), &ReadOutcome::Missing, clock::now());
        assert!(state.take_changed(clock::now()).unwrap().services.is_empty());
    }

    #[test]
    fn plans_follow_instances_settings_and_callers() {
        let mut view = View::default();
        view.settle(Home::new(Some("a".to_owned()), [key("app")]));
        let plan = BrakePlan { is_enabled: false, ..BrakePlan::default() };
        let mut state = MirrorState::new(view, Brake::new(plan, 1), clock::now());
        let mut read = |service: &str, id: &str, zone: &str| {
            let text = record(80).replace("}]", &format!(r#"}}],"zone":"{zone}""#));
            state.on_read(&instance(service, id), &found(&text, 5), clock::now());
            let view = state.take_changed(clock::now()).unwrap();
            view.services.get(&key("web")).map_or_else(Vec::new, |web| shares(web))
        };
        assert_eq!(read("web", "1", "a"), [Some(1.0)]);
        assert_eq!(read("web", "2", "b"), [Some(1.0), None]);
        read("app", "1", "a");
        assert_eq!(read("web", "3", "b"), [Some(1.0 / 3.0); 3], "all callers are here");
        assert_eq!(read("app", "2", "b"), [Some(2.0 / 3.0), Some(1.0 / 6.0), Some(1.0 / 6.0)]);
        state.on_read(&Place::Service(key("web")), &found(r#"{"prefer_zone":false}"#, 8), clock::now());
        let view = state.take_changed(clock::now()).unwrap();
        assert_eq!(shares(&view.services[&key("web")]), [Some(1.0 / 3.0); 3]);
    }

    #[test]
    fn first_places_are_counted_for_services_that_are_looked_up() {
        let mut state = state();
        let read = |state: &mut MirrorState, mzxid| {
            state.on_read(&instance("web", "a"), &found(&record(80), mzxid), clock::now());
        };
        read(&mut state, 5);
        let count = |view: &View| {
            (0..1_000).for_each(|_| view.look_up(&key("web")).unwrap().tally.count(0));
            view.skew()
        };
        let first = state.take_changed(clock::now()).unwrap();
        assert_eq!(count(&first), None);
        state.age_lookups();
        let second = state.take_changed(clock::now()).unwrap();
        assert_eq!(count(&second), Some(0.0));
        state.age_lookups();
        assert!(state.take_changed(clock::now()).is_none(), "begun once");
        read(&mut state, 6);
        assert_eq!(state.take_changed(clock::now()).unwrap().skew(), Some(0.0), "goes on over changes");
    }

    #[test]
    fn a_name_has_no_instances_before_they_are_walked_and_none_that_are_gone_when_it_is_one_again() {
        let (mut state, now) = (
            MirrorState::new(View::default(), Brake::new(BrakePlan::default(), 1), clock::now()),
            clock::now(),
        );
        state.on_name(&key("web"));
        state.on_read(&instance("web", "a"), &found(&record(80), 5), now);
        let named = state.take_changed(now).unwrap();
        assert!(!named.services[&key("web")].is_followed && ids(&named, "web").is_empty());

        let walk = |ids: &[&str]| WalkedService {
            znode: ReadOutcome::Found { data: None, stat: Stat { pzxid: zxid(9), ..Stat::default() } },
            instances: WalkedInstances::Read(
                ids.iter().map(|id| (label(id), found(&record(80), 5))).collect(),
            ),
        };
        state.on_walked(&key("web"), &walk(&["a", "b", "c", "d"]), now);
        state.on_name(&key("web"));
        let followed = state.take_changed(now).unwrap();
        assert!(followed.services[&key("web")].is_followed);
        assert_eq!(ids(&followed, "web"), ["a", "b", "c", "d"]);
        let stat = Stat { pzxid: zxid(9), ..Stat::default() };
        assert!(state.is_unchanged(&key("web"), &stat));

        // Held by the brake, and lapsed with the others.
        state.on_read(&instance("web", "a"), &ReadOutcome::Missing, now);
        assert_eq!(state.brake().held(), 1);
        state.on_unfollowed(&key("web"));
        let lapsed = state.take_changed(now).unwrap();
        assert!(!lapsed.services[&key("web")].is_followed && ids(&lapsed, "web").is_empty());
        assert!(Arc::ptr_eq(&lapsed.services[&key("web")].lookups, &named.services[&key("web")].lookups));
        assert!(state.brake().is_idle() && state.brake().engagements() == 0);
        assert!(!state.is_unchanged(&key("web"), &stat), "nothing is known that could be");
        state.on_walked(&key("web"), &walk(&["b"]), now);
        assert_eq!(ids(&state.take_changed(now).unwrap(), "web"), ["b"]);
    }

    #[test]
    fn a_service_that_is_gone_and_whose_instances_are_held_is_gone_when_it_lapses() {
        let now = clock::now();
        let mut state = MirrorState::new(View::default(), Brake::new(BrakePlan::default(), 1), now);
        state.on_read(&instance("web", "a"), &found(&record(80), 5), now);
        state.on_read(&Place::Service(key("web")), &ReadOutcome::Missing, now);
        assert_eq!(ids(&state.take_changed(now).unwrap(), "web"), ["a"]);
        state.on_unfollowed(&key("web"));
        assert!(state.take_changed(now).unwrap().services.is_empty());
    }

    /// Without a brake, so that what is gone is gone.
    pub(super) fn state() -> MirrorState {
        let plan = BrakePlan { is_enabled: false, ..BrakePlan::default() };
        MirrorState::new(View::default(), Brake::new(plan, 1), clock::now())
    }

    pub(super) fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    pub(super) fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: label("default"), name: label(name) }
    }

    pub(super) fn instance(service: &str, id: &str) -> Place {
        Place::Instance(key(service), label(id))
    }

    pub(super) fn zxid(raw: i64) -> Zxid {
        Zxid::from_raw(raw)
    }

    pub(super) fn record(port: u16) -> String {
        format!(
            r#"{{"v":1,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":{port}}}],"status":"up"}}"#
        )
    }

    pub(super) fn found(data: &str, mzxid: i64) -> ReadOutcome {
        let stat = Stat { mzxid: zxid(mzxid), ephemeral_owner: SessionId(1), ..Stat::default() };
        ReadOutcome::Found { data: Some(Bytes::copy_from_slice(data.as_bytes())), stat }
    }

    pub(super) fn ids(view: &View, service: &str) -> Vec<String> {
        view.services[&key(service)].instances.iter().map(|instance| instance.id.to_string()).collect()
    }
}
