//! Which zone's instances a lookup gets. Pure.
//!
//! ```text
//! capacity U of each zone: weights of the offered tier ┐
//!                                                      ├─► ZonePlan: a share of this zone's lookups for each zone
//! callers C in each zone: weights of our own service   ┘
//! ```
//!
//! Lookups stay in their zone as long as everybody else can do the same and each instance still gets traffic by its
//! weight. With the shares `U` of the capacity and `C` of the callers, those from zone `l` go
//!
//! - to `l` alone when `U(l) >= C(l)`;
//! - else to `l` with probability `U(l) / C(l)`, and otherwise to another zone, in proportion to what that has left over from its
//!   own callers, `max(0, U(z) - C(z))`.
//!
//! What is too much in some zones is as much as is left over in the others, so that in sum zone `z` gets `U(z)` of all lookups,
//! exactly. This is Envoy's zone aware routing (envoyproxy/envoy: docs/root/intro/arch_overview/upstream/load_balancing/zone_aware.rst;
//! source/extensions/load_balancing_policies/common/load_balancer_impl.cc, `regenerateLocalityRoutingStructures`), with weights in the
//! place of numbers of hosts, in every tier, and for services of any size.
//!
//! Who calls:
//!
//! - Whoever runs this sidecar's own services: their instances that are up, in the tier that is offered. They count by weight, because
//!   who gets twice the requests makes twice the calls, and standbys that get none make none; by number when all weights are 0. Those
//!   without a zone do not count: their lookups go everywhere by weight, which leaves the rest in balance.
//! - Where no such instance is known, callers are taken to be spread evenly over the zones in which the tier has instances, and
//!   this one.
//!
//! What holds in the corners:
//!
//! | When | Lookups go |
//! | --- | --- |
//! | the sidecar has no zone, or `prefer_zone` is off for it or for the service | everywhere, by weight |
//! | the whole tier is in one zone, or in none | everywhere, by weight |
//! | the own zone has no capacity | to what other zones have left over; when they have nothing, by capacity |
//! | some instances have no zone | to these as to a zone that has no callers |
//! | all weights are 0 | as if all were 1 |
//! | a zone has capacity 0 and others do not | not there |
//!
//! A plan is made when a view is published, for services that changed and, when the callers changed, for all. It only prefers: who is up and in which
//! tier is looked up anew each time, and a plan that fits nobody is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::name::ServiceKey;
use super::select::tier;
use super::services::Services;
use super::view::{Instance, Service, View};

/// Where lookups come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// The zone whose instances are preferred; none is without one.
    zone: Option<String>,
    /// What is registered here.
    services: BTreeSet<ServiceKey>,
    /// The weights of its instances by their zones, empty when none is known.
    callers: BTreeMap<String, u64>,
}

/// How lookups are spread over zones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ZonePlan {
    /// The zone whose lookups these are, when zones make a difference.
    own: Option<String>,
    /// Those that get some, the own zone first; empty when zones make no difference.
    draws: Box<[Draw]>,
}

/// One zone that gets some of the lookups.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draw {
    /// Its name; `None` for the instances that are in no zone.
    pub(super) zone: Option<String>,
    /// Which part of the lookups it gets.
    pub(super) share: f64,
}

impl Home {
    /// A sidecar in `zone` that registers `services`.
    pub fn new(zone: Option<String>, services: impl IntoIterator<Item = ServiceKey>) -> Self {
        Self { zone, services: services.into_iter().collect(), callers: BTreeMap::new() }
    }

    /// What is registered here.
    pub const fn services(&self) -> &BTreeSet<ServiceKey> {
        &self.services
    }

    /// Whether this is one of the services whose instances are the callers.
    pub(super) fn is_caller(&self, service: &ServiceKey) -> bool {
        self.zone.is_some() && self.services.contains(service)
    }

    /// Counts the callers anew; returns whether that makes a difference.
    pub(super) fn count_callers(&mut self, services: &Services) -> bool {
        let mut callers = BTreeMap::new();
        for service in
            self.services.iter().filter(|_| self.zone.is_some()).filter_map(|key| services.get(key))
        {
            for (zone, weight) in capacity(service) {
                if let Some(zone) = zone.filter(|_| weight > 0) {
                    *callers.entry(zone.to_owned()).or_insert(0) += weight;
                }
            }
        }
        let is_changed = callers != self.callers;
        self.callers = callers;
        is_changed
    }
}

impl ZonePlan {
    /// The plan for lookups of `service` from `home`.
    pub fn of(service: &Service, home: &Home) -> Self {
        let Some(own) = home.zone.as_deref().filter(|_| service.settings.prefer_zone) else {
            return Self::default();
        };
        let capacity = capacity(service);
        if capacity.len() < 2 {
            return Self::default();
        }
        let callers: BTreeMap<&str, u64> = if home.callers.is_empty() {
            capacity.keys().copied().flatten().chain([own]).map(|zone| (zone, 1)).collect()
        } else {
            home.callers.iter().map(|(zone, weight)| (zone.as_str(), *weight)).collect()
        };
        Self { own: Some(own.to_owned()), draws: draws(own, &capacity, &callers).into() }
    }

    /// The zone that one lookup gets, `Some(None)` for that of instances without one; `None` when zones make no difference.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Option<Option<&str>> {
        let (last, others) = self.draws.split_last()?;
        if others.is_empty() {
            return Some(last.zone.as_deref());
        }
        let mut left = rng.f64();
        let drawn = others.iter().find(|draw| {
            left -= draw.share;
            left < 0.0
        });
        Some(drawn.unwrap_or(last).zone.as_deref())
    }

    /// The zone whose lookups are planned; `None` when zones make no difference.
    pub(super) fn own_zone(&self) -> Option<&str> {
        self.own.as_deref()
    }

    /// Whether one lookup may be answered with another zone than the next.
    pub fn is_spread(&self) -> bool {
        self.draws.iter().any(|draw| draw.share < 1.0)
    }

    /// Every zone that gets some; empty when zones make no difference.
    pub(super) fn draws(&self) -> &[Draw] {
        &self.draws
    }
}

impl View {
    /// The service as it would be with the instances alone that are meant, for lookups from where this view is. Nothing that is
    /// looked up there counts for the whole.
    pub fn narrowed(&self, service: &Service, is_meant: impl Fn(&Instance) -> bool) -> Service {
        let instances = service.instances.iter().filter(|instance| is_meant(instance)).cloned().collect();
        let mut some = Service { instances, tally: Arc::default(), ..service.clone() };
        some.zones = ZonePlan::of(&some, &self.home).into();
        some
    }

    /// Makes the plans for lookups from `home`.
    pub fn settle(&mut self, home: Home) {
        self.home = home.into();
        Arc::make_mut(&mut self.home).count_callers(&self.services);
        let all = self.services.keys().cloned().collect();
        self.plan(&all);
    }

    /// Makes new plans once instances or settings of these services have changed, also for others that it makes a difference for.
    pub(super) fn plan(&mut self, changed: &BTreeSet<ServiceKey>) {
        let are_callers_changed = changed.iter().any(|key| self.home.is_caller(key))
            && Arc::make_mut(&mut self.home).count_callers(&self.services);
        for key in changed {
            if let Some(service) = self.services.get_mut(key) {
                let zones = ZonePlan::of(service, &self.home);
                Arc::make_mut(service).take_plan(zones);
            }
        }
        if are_callers_changed {
            // Who is not concerned stays shared with the view before.
            let plan = |service: &Arc<Service>| {
                let zones = ZonePlan::of(service, &self.home);
                (zones != *service.zones).then(|| (service.key.clone(), zones))
            };
            let plans: Vec<_> = self.services.values().filter_map(plan).collect();
            for (key, zones) in plans {
                if let Some(service) = self.services.get_mut(&key) {
                    Arc::make_mut(service).take_plan(zones);
                }
            }
        }
    }
}

/// Lookups from zone `own` by zone.
fn draws(own: &str, capacity: &BTreeMap<Option<&str>, u64>, callers: &BTreeMap<&str, u64>) -> Vec<Draw> {
    let capacity_sum: u128 = capacity.values().copied().map(u128::from).sum();
    let callers_sum: u128 = callers.values().copied().map(u128::from).sum();
    let has = |zone: Option<&str>| capacity.get(&zone).map_or(0, |has| u128::from(*has) * callers_sum);
    let needs = |zone: Option<&str>| {
        zone.and_then(|zone| callers.get(zone)).map_or(0, |needs| u128::from(*needs) * capacity_sum)
    };
    let draw = |zone: Option<&str>, share| Draw { zone: zone.map(str::to_owned), share };

    let (local, asked) = (has(Some(own)), needs(Some(own)));
    if local > 0 && local >= asked {
        return vec![draw(Some(own), 1.0)];
    }
    let (stays, leaves) = match asked {
        0 => (0.0, 1.0),
        _ => (ratio(local, asked), ratio(asked - local, asked)),
    };
    let others = || capacity.keys().copied().filter(|zone| *zone != Some(own));
    let mut left_over: Vec<_> = others().map(|zone| (zone, has(zone).saturating_sub(needs(zone)))).collect();
    let mut sum: u128 = left_over.iter().map(|(_, left_over)| left_over).sum();
    if sum == 0 {
        // Nobody is known to call from here, and everybody else stays at home.
        left_over = others().map(|zone| (zone, has(zone))).collect();
        sum = left_over.iter().map(|(_, left_over)| left_over).sum();
    }
    let goes = left_over.into_iter().map(|(zone, left_over)| draw(zone, leaves * ratio(left_over, sum)));
    [draw(Some(own), stays)].into_iter().chain(goes).filter(|draw| draw.share > 0.0).collect()
}

/// The weights of the instances that are offered, by zone; their numbers, when all weights are 0.
fn capacity(service: &Service) -> BTreeMap<Option<&str>, u64> {
    let tier = tier(service);
    let offered = || service.up().filter(|instance| Some(instance.tier()) == tier);
    let counts_by_weight = offered().any(|instance| instance.record.weight > 0);
    let mut capacity = BTreeMap::new();
    for instance in offered() {
        let weight = if counts_by_weight { instance.record.weight.into() } else { 1 };
        *capacity.entry(instance.record.zone.as_deref()).or_insert(0) += weight;
    }
    capacity
}

#[expect(clippy::cast_precision_loss, reason = "shares need no more than 53 bits")]
fn ratio(part: u128, whole: u128) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::sample::{Row, key, view, view_from};
    use crate::registry::select::shares;

    const A: Option<&str> = Some("a");
    const B: Option<&str> = Some("b");
    const C: Option<&str> = Some("c");

    #[test]
    fn lookups_stay_in_their_zone_while_it_has_room_and_spill_over_by_what_others_have_left() {
        let app: &[Row<'_>] = &[(A, 4), (B, 4), (C, 2)];
        // Envoy's own example: capacity 25 %, 50 %, 25 %; callers 40 %, 40 %, 20 %.
        let web: &[Row<'_>] = &[(A, 1), (B, 1), (B, 1), (C, 1)];
        let from = |zone| plan(&view_from(zone, &[("app", app), ("web", web)]));
        assert_eq!(from("a"), [("a", 0.625), ("b", 0.25), ("c", 0.125)]);
        assert_eq!(from("b"), [("b", 1.0)]);
        assert_eq!(from("c"), [("c", 1.0)]);
    }

    #[test]
    fn callers_are_taken_to_be_spread_evenly_where_none_is_known() {
        let web: &[Row<'_>] = &[(A, 1), (B, 3)];
        assert_eq!(plan(&view_from("a", &[("web", web)])), [("a", 0.5), ("b", 0.5)]);
        assert_eq!(plan(&view_from("b", &[("web", web)])), [("b", 1.0)]);
        // Callers in three zones: a has nothing left over from its own.
        assert_eq!(plan(&view_from("c", &[("web", web)])), [("b", 1.0)]);
        let without_zones: &[Row<'_>] = &[(None, 1), (None, 1)];
        assert_eq!(
            plan(&view_from("b", &[("app", without_zones), ("web", web)])),
            [("b", 1.0)],
            "callers without a zone say nothing of where the others are"
        );
    }

    #[test]
    fn corners_are_as_the_table_says() {
        let app: &[Row<'_>] = &[(A, 1), (B, 1)];
        let from = |zone: &str, web: &[Row<'_>]| plan(&view_from(zone, &[("app", app), ("web", web)]));
        assert_eq!(from("a", &[(B, 1), (B, 1)]), [], "one zone only");
        assert_eq!(from("a", &[(None, 1), (None, 1)]), [], "no zone at all");
        assert_eq!(from("a", &[]), [], "nobody");
        assert_eq!(from("a", &[(B, 3), (C, 1)]), [("b", 0.5), ("c", 0.5)], "none here");
        assert_eq!(from("c", &[(A, 1), (B, 1)]), [("a", 0.5), ("b", 0.5)], "nobody calls from here");
        assert_eq!(from("a", &[(A, 1), (None, 3)]), [("a", 0.5), ("-", 0.5)], "some without a zone");
        assert_eq!(from("a", &[(A, 0), (B, 0), (B, 0), (B, 0)]), [("a", 0.5), ("b", 0.5)], "weights of 0");
        assert_eq!(from("a", &[(A, 0), (B, 1)]), [("b", 1.0)], "nothing but a last resort here");
        let max = u16::MAX;
        assert_eq!(from("a", &[(A, max), (A, max), (B, max)]), [("a", 1.0)], "great weights");
    }

    #[test]
    fn zones_make_no_difference_without_a_zone_or_when_the_service_says_so() {
        let rows: &[Row<'_>] = &[(A, 1), (B, 1)];
        let mut nowhere = view(&[("app", rows), ("web", rows)]);
        nowhere.settle(Home::new(None, [key("app")]));
        assert_eq!(plan(&nowhere), []);
        let mut off = view(&[("app", rows), ("web", rows)]);
        Arc::make_mut(off.services.get_mut(&key("web")).unwrap()).settings.prefer_zone = false;
        off.settle(Home::new(Some("a".to_owned()), [key("app")]));
        assert_eq!(plan(&off), []);
    }

    #[test]
    fn callers_in_standby_tiers_or_down_do_not_count() {
        let mut view = view(&[("app", &[(A, 1), (B, 1), (B, 1), (B, 1)]), ("web", &[(A, 1), (B, 1)])]);
        let app = Arc::make_mut(view.services.get_mut(&key("app")).unwrap());
        Arc::make_mut(&mut app.instances[1]).record.priority = 10;
        Arc::make_mut(&mut app.instances[2]).record.status = crate::registry::Status::Failing;
        view.settle(Home::new(Some("a".to_owned()), [key("app")]));
        assert_eq!(plan(&view), [("a", 1.0)], "half of the callers are in each zone");
    }

    #[test]
    fn when_callers_change_every_plan_follows_and_services_not_concerned_stay_shared() {
        let rows: &[Row<'_>] = &[(A, 1), (B, 1)];
        let mut view = view_from("a", &[("app", rows), ("web", rows), ("one", &[(B, 1)])]);
        let before = view.clone();
        let app = Arc::make_mut(view.services.get_mut(&key("app")).unwrap());
        app.instances.put(Arc::new(crate::registry::sample::instance(2, (A, 2))));
        view.plan(&[key("app")].into());
        assert_eq!(plan(&view), [("a", 2.0 / 3.0), ("b", 1.0 / 3.0)], "three of four callers are here");
        let is_shared = |name| Arc::ptr_eq(&view.services[&key(name)], &before.services[&key(name)]);
        assert!(is_shared("one") && !is_shared("web"));
        let others = view.clone();
        view.plan(&[key("one")].into());
        assert!(Arc::ptr_eq(&view.services[&key("web")], &others.services[&key("web")]));
    }

    proptest! {
        #[test]
        fn all_callers_together_use_each_instance_by_its_weight(
            callers in prop::collection::vec((0_usize..4, 1_u16..20), 1..8),
            web in prop::collection::vec((0_usize..5, prop_oneof![Just(0_u16), 1_u16..20]), 1..12),
        ) {
            assert_shares(&traffic(&callers, &web), &by_weight(&web))?;
        }

        #[test]
        fn a_change_of_one_instance_moves_no_more_than_its_share(
            callers in prop::collection::vec((0_usize..4, 1_u16..20), 1..8),
            web in prop::collection::vec((0_usize..5, 1_u16..20), 2..12),
            leaves: prop::sample::Index, weight in 0_u16..40,
        ) {
            let at = leaves.index(web.len());
            let before = traffic(&callers, &web);
            let mut fewer = web.clone();
            fewer.remove(at);
            let mut after = traffic(&callers, &fewer);
            after.insert(at, 0.0);
            prop_assert!(moved(&before, &after) <= before[at] + 1e-9, "{before:?} {after:?}");

            let mut changed = web.clone();
            changed[at].1 = weight;
            let after = traffic(&callers, &changed);
            prop_assert!(moved(&before, &after) <= (after[at] - before[at]).abs() + 1e-9);
        }

        #[test]
        fn a_zone_with_room_does_not_notice_who_leaves_another(
            callers in prop::collection::vec((0_usize..4, 1_u16..20), 1..8),
            web in prop::collection::vec((0_usize..5, 1_u16..20), 2..12),
            leaves: prop::sample::Index,
        ) {
            let at = leaves.index(web.len());
            for zone in ["a", "b", "c", "d"] {
                let mut before = shares_from(zone, &callers, &web);
                let stays = |shares: &[Option<f64>], web: &[(usize, u16)]| {
                    web.iter().zip(shares).all(|(row, share)| share.is_some() == (zone_of(row.0) == Some(zone)))
                };
                if zone_of(web[at].0) != Some(zone) && stays(&before, &web) {
                    let mut fewer = web.clone();
                    fewer.remove(at);
                    before.remove(at);
                    prop_assert_eq!(shares_from(zone, &callers, &fewer), before);
                }
            }
        }
    }

    /// The part of the traffic that each instance of `web` gets, when all callers follow their plans.
    fn traffic(callers: &[(usize, u16)], web: &[(usize, u16)]) -> Vec<f64> {
        let all: f64 = callers.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut traffic = vec![0.0; web.len()];
        for (zone, weight) in callers {
            let shares = shares_from(zone_of(*zone).unwrap(), callers, web);
            for (sum, share) in traffic.iter_mut().zip(shares) {
                *sum += f64::from(*weight) / all * share.unwrap_or_default();
            }
        }
        traffic
    }

    fn shares_from(zone: &str, callers: &[(usize, u16)], web: &[(usize, u16)]) -> Vec<Option<f64>> {
        let rows = |of: &[(usize, u16)]| -> Vec<Row<'_>> {
            of.iter().map(|(zone, weight)| (zone_of(*zone), *weight)).collect()
        };
        let view = view_from(zone, &[("app", &rows(callers)), ("web", &rows(web))]);
        shares(&view.services[&key("web")])
    }

    fn by_weight(web: &[(usize, u16)]) -> Vec<f64> {
        let sum: f64 = web.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let equal = 1.0 / web.iter().map(|_| 1.0).sum::<f64>();
        web.iter().map(|(_, weight)| if sum > 0.0 { f64::from(*weight) / sum } else { equal }).collect()
    }

    fn assert_shares(found: &[f64], expected: &[f64]) -> Result<(), TestCaseError> {
        for (found_one, expected_one) in found.iter().zip(expected) {
            prop_assert!((found_one - expected_one).abs() < 1e-9, "{found:?} {expected:?}");
        }
        Ok(())
    }

    /// How much goes elsewhere than before.
    fn moved(before: &[f64], after: &[f64]) -> f64 {
        before.iter().zip(after).map(|(before, after)| (before - after).abs()).sum::<f64>() / 2.0
    }

    fn zone_of(index: usize) -> Option<&'static str> {
        ["a", "b", "c", "d"].get(index).copied()
    }

    /// The plan for `web`; `-` for no zone.
    fn plan(view: &View) -> Vec<(&'static str, f64)> {
        let name = |zone: Option<&str>| ["a", "b", "c", "d"].into_iter().find(|known| zone == Some(known));
        let draws = view.services[&key("web")].zones.draws().iter();
        draws.map(|draw| (name(draw.zone.as_deref()).unwrap_or("-"), draw.share)).collect()
    }
}
