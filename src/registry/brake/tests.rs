use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::clock::{self, Moment};
use crate::id::{SessionId, Zxid};
use crate::registry::layout::Place;
use crate::registry::mirror::{MirrorState, ReadOutcome, Walk, WalkedInstances, WalkedService};
use crate::registry::select::select;
use crate::registry::{Home, Layout, SavedView, ViewSettings};
use crate::znode::Stat;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_that_vanishes_alone_is_believed_to_be_gone_at_the_end_of_the_window() {
    let mut world = World::of(&[("web", 10)]);
    world.lose("web", 3);
    assert_eq!(world.offered("web").len(), 10);
    assert_eq!(world.standing("web", 3), Some(Standing::Limbo));
    world.pass(SECOND * 9);
    assert_eq!(world.offered("web").len(), 10);
    world.pass(SECOND);
    assert_eq!(world.offered("web").len(), 9);
    assert_eq!(world.engagements(), 0);
    assert!(world.state.brake().is_idle());
}

#[test]
fn of_four_fifths_that_expire_over_some_seconds_none_disappears_while_they_live() {
    let mut world = World::of(&[("web", 10)]);
    for lost in 0..8 {
        world.lose("web", lost);
        assert_eq!(world.offered("web").len(), 10, "after {lost}");
        world.pass(SECOND);
        world.probe_all(ProbeOutcome::Answered);
    }
    assert_eq!(world.engagements(), 1);
    for _ in 0..280 {
        world.pass(SECOND);
        world.probe_all(ProbeOutcome::Answered);
        assert_eq!(world.offered("web").len(), 10);
    }
    for back in 0..4 {
        world.register("web", back);
    }
    assert_eq!(world.standing("web", 0), Some(Standing::Registered));
    world.pass(SECOND * 20);
    assert_eq!(world.offered("web").len(), 6, "none is held for longer than hold_max");
    assert!(world.state.brake().is_idle());
}

#[test]
fn a_suspect_that_refuses_is_out_after_one_probe() {
    let mut world = World::of(&[("web", 10)]);
    (0..8).for_each(|lost| world.lose("web", lost));
    assert_eq!(world.standing("web", 0), Some(Standing::Suspect));
    assert_eq!(world.offered("web").len(), 10);
    world.pass(PROBE_SPREAD);
    assert_eq!(world.probe_all(ProbeOutcome::Refused), 8);
    assert_eq!(world.offered("web").len(), 2);
    assert_eq!(world.probe_all(ProbeOutcome::Refused), 0);
}

#[test]
fn a_suspect_that_says_nothing_is_the_last_resort_for_30_seconds() {
    let mut world = World::of(&[("web", 10)]);
    (0..8).for_each(|lost| world.lose("web", lost));
    assert_eq!(world.offered("web").len(), 10);
    world.pass(PROBE_SPREAD);
    assert_eq!(world.probe_all(ProbeOutcome::Silent), 8);
    assert_eq!(world.standing("web", 0), Some(Standing::Silent));
    assert_eq!(world.offered("web").len(), 2);
    world.pass(SECOND * 16);
    assert_eq!(world.probe_one(0, ProbeOutcome::Answered), Some(Standing::Suspect), "it was busy");
    world.probe_all(ProbeOutcome::Silent);
    world.pass(SECOND * 14);
    assert_eq!(world.known("web"), 3);
    assert_eq!(world.offered("web").len(), 3);
}

#[test]
fn when_everybody_is_silent_they_are_offered_until_their_time_is_over() {
    let mut world = World::of(&[("web", 4)]);
    (0..4).for_each(|lost| world.lose("web", lost));
    assert_eq!(world.offered("web").len(), 4);
    world.pass(PROBE_SPREAD);
    assert_eq!(world.probe_all(ProbeOutcome::Silent), 4);
    assert_eq!(world.offered("web").len(), 4);
    world.pass(SECOND * 29);
    assert_eq!(world.offered("web").len(), 4);
    world.pass(SECOND);
    assert_eq!(world.offered("web").len(), 0);
}

#[test]
fn who_says_that_it_leaves_and_who_fails_is_gone_at_once_and_never_counted() {
    let mut world = World::of(&[("web", 10)]);
    for leaving in 0..3 {
        world.register_as("web", leaving, "draining");
        world.lose("web", leaving);
    }
    assert_eq!(world.known("web"), 7);
    for failing in 3..8 {
        world.register_as("web", failing, "failing");
        assert_eq!(world.standing("web", failing), Some(Standing::Registered));
    }
    assert_eq!(world.offered("web").len(), 2);
    (3..8).for_each(|failing| world.lose("web", failing));
    assert_eq!(world.known("web"), 2);
    assert_eq!(world.engagements(), 0);
    assert!(world.state.brake().is_idle());
}

#[test]
fn a_share_is_more_than_30_percent_and_at_least_three() {
    for (of, lost, is_suspected) in [(10, 3, false), (10, 4, true), (9, 3, true), (3, 2, false), (3, 3, true)]
    {
        // Beside many others, so that the whole view is no reason.
        let mut world = World::of(&[("web", of), ("other", 50)]);
        (0..lost).for_each(|lost| world.lose("web", lost));
        assert_eq!(world.engagements(), u64::from(is_suspected), "{lost} of {of}");
    }
}

#[test]
fn a_loss_of_a_third_of_everything_makes_suspects_in_every_service() {
    let services: Vec<_> = ["a", "b", "c", "d"].map(|name| (name, 3)).into();
    let mut world = World::of(&services);
    for (name, _) in &services[..3] {
        world.lose(name, 0);
    }
    assert_eq!(world.standing("a", 0), Some(Standing::Limbo), "three of twelve");
    world.lose("d", 0);
    for (name, _) in services {
        assert_eq!(world.standing(name, 0), Some(Standing::Suspect));
    }
    assert_eq!(world.engagements(), 1);
}

#[test]
fn only_what_is_looked_up_is_probed_and_not_all_at_once() {
    let mut world = World::of(&[("web", 100), ("other", 100)]);
    (0..100).for_each(|lost| world.lose("web", lost));
    (0..100).for_each(|lost| world.lose("other", lost));
    world.pass(PROBE_SPREAD);
    assert!(world.state.take_probes(world.now).is_empty(), "nobody asks");
    world.offered("web");
    let targets = world.state.take_probes(world.now);
    assert_eq!(targets.len(), PROBES_MAX);
    assert!(targets.iter().all(|target| target.service.name.as_str() == "web"));
    assert!(world.state.take_probes(world.now).is_empty());
    world.state.on_probe(&targets[0].service, &targets[0].id, ProbeOutcome::Answered, world.now);
    assert_eq!(world.state.take_probes(world.now).len(), 1);
    let due = world.now + PROBE_INTERVAL;
    world.state.on_probe(&targets[1].service, &targets[1].id, ProbeOutcome::NotAsked, world.now);
    world.state.on_probe(&targets[2].service, &targets[2].id, ProbeOutcome::Answered, world.now);
    let again: Vec<_> = world.state.take_probes(due).into_iter().map(|target| target.id).collect();
    assert!(!again.is_empty());
}

#[test]
fn a_suspect_whose_address_another_record_has_is_dropped() {
    let mut world = World::of(&[("web", 4), ("api", 1)]);
    (0..4).for_each(|lost| world.lose("web", lost));
    assert_eq!(world.known("web"), 4);
    // The pod of web-1 is gone, and its address given to another's.
    world.read("api", "api-9", &record(&address("web", 1), "up", "another"));
    assert_eq!(world.standing("web", 1), None);
    // A pod's own other service has the same address, and is no reason.
    world.read("api", "api-8", &record(&address("web", 2), "up", "web-2"));
    assert_eq!(world.standing("web", 2), Some(Standing::Suspect));
    // It is registered again under another name.
    world.read("web", "web-9", &record(&address("web", 3), "up", "web-3"));
    assert_eq!((world.standing("web", 3), world.known("web")), (None, 3));
}

#[test]
fn an_address_that_was_given_away_before_the_loss_is_told_counts_as_well() {
    let mut world = World::of(&[("web", 4)]);
    world.read("api", "api-9", &record(&address("web", 1), "up", "another"));
    (0..4).for_each(|lost| world.lose("web", lost));
    assert_eq!(world.standing("web", 1), None);
    assert_eq!(world.standing("web", 2), Some(Standing::Suspect));
}

#[test]
fn switched_off_it_holds_nobody() {
    let plan = BrakePlan { is_enabled: false, ..BrakePlan::default() };
    let mut world = World::with(plan, &[("web", 10)]);
    (0..8).for_each(|lost| world.lose("web", lost));
    assert_eq!(world.known("web"), 2);

    let mut world = World::of(&[("web", 10), ("api", 10)]);
    let settings =
        ReadOutcome::Found { data: Some(Bytes::from_static(br#"{"brake":false}"#)), stat: Stat::default() };
    world.state.on_read(&Place::Service(key("web")), &settings, world.now);
    (0..8).for_each(|lost| world.lose("web", lost));
    assert_eq!((world.known("web"), world.engagements()), (2, 0));
}

#[test]
fn an_ensemble_that_comes_back_empty_empties_nothing_and_its_services_go_with_their_last_instance() {
    let mut world = World::of(&[("web", 5), ("api", 1)]);
    world.state.on_walk(&Walk::default(), world.now);
    world.publish();
    assert_eq!((world.offered("web").len(), world.offered("api").len()), (5, 1));
    assert_eq!(world.standing("api", 0), Some(Standing::Suspect), "as a part of everything");
    world.state.on_walk(&Walk::default(), world.now);
    world.publish();
    assert_eq!(world.engagements(), 1, "all of that is one");
    world.register("api", 0);
    world.pass(PROBE_SPREAD);
    world.probe_all(ProbeOutcome::Refused);
    assert!(!world.view.services.contains_key(&key("web")));
    assert_eq!(world.offered("api").len(), 1);
    world.pass(SECOND * 400);
    assert_eq!(world.offered("api").len(), 1);
}

#[test]
fn a_reader_that_was_away_while_all_were_replaced_finds_no_reason_to_doubt_it() {
    for (newcomers, is_doubted) in [(5, false), (4, false), (1, true), (0, true)] {
        let mut world = World::of(&[("web", 10)]);
        let stayed = 5..10;
        world.state.on_walk(&walk("web", stayed.chain(20..20 + newcomers)), world.now);
        world.publish();
        assert_eq!(world.offered("web").len(), 10 + newcomers, "nobody is gone at once");
        world.pass(SECOND * 10);
        let known = if is_doubted { 10 } else { 5 };
        assert_eq!((world.known("web") - newcomers, world.engagements()), (known, u64::from(is_doubted)));
    }
}

#[test]
fn newcomers_make_up_for_nobody_who_vanishes_before_ones_eyes() {
    let mut world = World::of(&[("web", 10)]);
    world.lose("web", 9);
    (20..27).for_each(|index| world.register("web", index));
    (0..7).for_each(|lost| world.lose("web", lost));
    assert_eq!((world.engagements(), world.offered("web").len()), (1, 17));
}

#[test]
fn newcomers_that_vanish_make_up_for_nobody() {
    let mut world = World::of(&[("web", 10)]);
    world.state.on_walk(&walk("web", (5..10).chain(20..25)), world.now);
    world.publish();
    assert_eq!((world.engagements(), world.offered("web").len()), (0, 15));
    (20..25).for_each(|lost| world.lose("web", lost));
    assert_eq!((world.engagements(), world.offered("web").len()), (1, 15));
    world.pass(SECOND * 11);
    assert_eq!(world.offered("web").len(), 15, "those, too, that were found missing just before");
}

#[test]
fn who_was_held_when_the_view_was_saved_is_held_on() {
    let mut world = World::of(&[("web", 5)]);
    (0..5).for_each(|lost| world.lose("web", lost));
    let brake = Brake::new(BrakePlan::default(), 1);
    world.state = MirrorState::new(world.view.clone(), brake, world.now);
    world.state.on_walk(&Walk::default(), world.now);
    world.publish();
    assert_eq!(world.offered("web").len(), 5);
    world.pass(SECOND * 300);
    assert!(world.view.services.is_empty());
}

#[test]
fn restarts_do_not_make_a_hold_longer() {
    let mut world = World::of(&[("web", 5)]);
    (0..5).for_each(|lost| world.lose("web", lost));
    for _restart in 0..2 {
        world.pass(SECOND * 100);
        // What the file says of it, to a process whose clock begins elsewhere.
        let layout = Layout::default();
        let mut moment = Moment { now: world.now, unix_ms: 1_764_115_200_000 };
        let saved = SavedView { view: world.view.clone(), current_at_ms: moment.unix_ms };
        let bytes = saved.encode(&layout, moment).unwrap();
        moment.now += SECOND * 1_000;
        world.now = moment.now;
        world.view = SavedView::decode(&bytes, &layout, moment).unwrap().view;
        let brake = Brake::new(BrakePlan::default(), 1);
        world.state = MirrorState::new(world.view.clone(), brake, world.now);
    }
    world.pass(SECOND * 99);
    assert_eq!(world.known("web"), 5);
    world.pass(SECOND);
    assert_eq!(world.known("web"), 0);
}

proptest! {
    #[test]
    fn whatever_happens_what_is_shown_as_vanished_is_what_is_held_and_never_for_too_long(
        steps in prop::collection::vec((0_u8..8, 0_usize..3, 0_usize..6, 0_u64..20), 1..120),
    ) {
        let mut world = World::of(&[("a", 6), ("b", 6), ("c", 1)]);
        let mut vanished_at = BTreeMap::new();
        for (what, service, index, seconds) in steps {
            let name = ["a", "b", "c"][service];
            match what {
                0..=2 => {
                    if world.standing(name, index) == Some(Standing::Registered) {
                        vanished_at.insert((name, index), world.now);
                    }
                    world.lose(name, index);
                }
                3 => world.register(name, index),
                4 => drop(world.probe_all([ProbeOutcome::Answered, ProbeOutcome::Refused, ProbeOutcome::Silent, ProbeOutcome::NotAsked][index % 4])),
                5 => {
                    for name in ["a", "b", "c"] {
                        for index in 0..6 {
                            if world.standing(name, index) == Some(Standing::Registered) {
                                vanished_at.insert((name, index), world.now);
                            }
                        }
                    }
                    world.state.on_walk(&Walk::default(), world.now);
                    world.publish();
                }
                _ => world.pass(SECOND * u32::try_from(seconds).unwrap()),
            }
            let vanished = world.view.services.values().flat_map(|service| &service.instances)
                .filter(|instance| instance.standing != Standing::Registered).count();
            prop_assert_eq!(vanished, world.state.brake().held());
            for ((name, index), at) in &vanished_at {
                let standing = world.standing(name, *index);
                prop_assert!(
                    matches!(standing, None | Some(Standing::Registered)) || world.now < *at + SECOND * 300,
                    "{name}-{index}"
                );
            }
        }
    }
}

/// A mirror's state, its published view and the time.
struct World {
    state: MirrorState,
    view: View,
    now: Instant,
}

impl World {
    fn of(services: &[(&str, usize)]) -> Self {
        Self::with(BrakePlan::default(), services)
    }

    fn with(plan: BrakePlan, services: &[(&str, usize)]) -> Self {
        let now = clock::now();
        let state = MirrorState::new(View::default(), Brake::new(plan, 7), now);
        let mut world = Self { state, view: View::default(), now };
        for (name, instances) in services {
            (0..*instances).for_each(|index| world.register(name, index));
        }
        world
    }

    fn register(&mut self, name: &str, index: usize) {
        self.register_as(name, index, "up");
    }

    fn register_as(&mut self, name: &str, index: usize, status: &str) {
        let id = format!("{name}-{index}");
        self.read(name, &id, &record(&address(name, index), status, &id));
    }

    fn read(&mut self, name: &str, id: &str, record: &str) {
        self.state.on_read(&Place::Instance(key(name), label(id)), &found(record), self.now);
        self.publish();
    }

    fn lose(&mut self, name: &str, index: usize) {
        let place = Place::Instance(key(name), label(&format!("{name}-{index}")));
        self.state.on_read(&place, &ReadOutcome::Missing, self.now);
        self.publish();
    }

    fn set_brake(&mut self, brake: BrakePlan) {
        let settings = ViewSettings { brake, home: Home::default() };
        self.state.on_settings(settings, self.now);
        self.publish();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.publish();
    }

    fn publish(&mut self) {
        if let Some(view) = self.state.take_changed(self.now) {
            self.view = view;
        }
    }

    /// Gives all probes that are due this outcome; returns how many.
    fn probe_all(&mut self, outcome: ProbeOutcome) -> usize {
        let targets = self.state.take_probes(self.now);
        for target in &targets {
            self.state.on_probe(&target.service, &target.id, outcome, self.now);
        }
        self.publish();
        targets.len()
    }

    /// Takes one probe that is due, and lets the others be as they are.
    fn probe_one(&mut self, index: usize, outcome: ProbeOutcome) -> Option<Standing> {
        let targets = self.state.take_probes(self.now);
        for (at, target) in targets.iter().enumerate() {
            let outcome = if at == index { outcome } else { ProbeOutcome::Silent };
            self.state.on_probe(&target.service, &target.id, outcome, self.now);
        }
        self.publish();
        let service = &self.view.services[&targets[index].service];
        service.instance(targets[index].id.as_str()).map(|instance| instance.standing)
    }

    fn offered(&self, name: &str) -> Vec<String> {
        let Some(service) = self.view.look_up(&key(name)) else { return Vec::new() };
        select(service, &mut fastrand::Rng::with_seed(1)).iter().map(|it| it.id.to_string()).collect()
    }

    fn known(&self, name: &str) -> usize {
        self.view.services.get(&key(name)).map_or(0, |service| service.instances.len())
    }

    fn standing(&self, name: &str, index: usize) -> Option<Standing> {
        let id = format!("{name}-{index}");
        Some(self.view.services.get(&key(name))?.instance(&id)?.standing)
    }

    fn engagements(&self) -> u64 {
        self.state.brake().engagements()
    }
}

/// A walk that finds these instances of one service.
fn walk(name: &str, indices: impl IntoIterator<Item = usize>) -> Walk {
    let instances = indices.into_iter().map(|index| {
        let id = format!("{name}-{index}");
        (label(&id), found(&record(&address(name, index), "up", &id)))
    });
    let instances = WalkedInstances::Read(instances.collect());
    let znode = ReadOutcome::Found { data: None, stat: Stat::default() };
    let services = [(key(name), WalkedService { znode, instances })];
    Walk { services: services.into(), ..Walk::default() }
}

fn found(record: &str) -> ReadOutcome {
    let stat = Stat { mzxid: Zxid::from_raw(1), ephemeral_owner: SessionId(1), ..Stat::default() };
    ReadOutcome::Found { data: Some(Bytes::copy_from_slice(record.as_bytes())), stat }
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: label("default"), name: label(name) }
}

fn address(name: &str, index: usize) -> String {
    let third: u32 = name.bytes().map(u32::from).sum::<u32>() % 250;
    format!("10.0.{third}.{index}")
}

fn record(address: &str, status: &str, owner: &str) -> String {
    format!(
        r#"{{"v":1,"addresses":["{address}"],"ports":[{{"name":"http","port":80}}],"status":"{status}","owner":"{owner}"}}"#
    )
}

#[test]
fn other_settings_concern_what_is_held_already() {
    let mut world = World::of(&[("web", 10)]);
    (0..4).for_each(|lost| world.lose("web", lost));
    assert_eq!((world.engagements(), world.standing("web", 0)), (1, Some(Standing::Suspect)));

    let mut world = World::of(&[("web", 10)]);
    (0..3).for_each(|lost| world.lose("web", lost));
    assert_eq!(world.standing("web", 0), Some(Standing::Limbo));
    world.set_brake(BrakePlan { share_percent: 20, ..BrakePlan::default() });
    assert_eq!(world.standing("web", 0), Some(Standing::Suspect), "three of ten are too many now");
    assert_eq!(world.offered("web").len(), 10);
    world.set_brake(BrakePlan { is_enabled: false, ..BrakePlan::default() });
    assert_eq!(world.offered("web").len(), 7, "nobody holds them any more");
    assert!(world.state.brake().held() == 0);
}

#[test]
fn views_share_what_a_loss_does_not_touch() {
    let mut world = World::of(&[("web", 3), ("api", 3)]);
    let before = world.view.clone();
    world.lose("web", 0);
    assert!(Arc::ptr_eq(&before.services[&key("api")], &world.view.services[&key("api")]));
}
