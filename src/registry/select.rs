//! The one selection of instances, for DNS and HTTP alike. Pure.
//!
//! In this order: drop what is not up, or has nothing of what is asked for, such as an address of one family; keep the lowest effective priority with at least `min_healthy` instances up (if
//! none has, the one with the most, the lower among equals); draw the zone that this lookup gets, as the service's
//! [`ZonePlan`](super::ZonePlan) says, and keep the instances in it, since clients choose freely among those they are told of; then a
//! weighted random order without replacement, in which instances of weight 0 come after all others.
//!
//! In the long run each instance stands first by its share of the weights: exactly, for the callers of all zones together. When
//! one instance changes, no more than its own share of all lookups moves.
//!
//! Nothing is allocated for a tier of up to [`INLINE`] instances.

use std::sync::Arc;

use super::view::{Instance, LAST_RESORT, Service};
use super::zones::Draw;

/// Instances of a selection that are held without an allocation.
pub const INLINE: usize = 16;

/// The instances to offer, the first to be used first.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    inline: [Option<Slot<'a>>; INLINE],
    /// Everything, when it is more than fits `inline`.
    spilled: Vec<Option<Slot<'a>>>,
    len: usize,
}

/// Selects among the instances of `service`; `rng` decides among equals.
pub fn select<'a>(service: &'a Service, rng: &mut fastrand::Rng) -> Selection<'a> {
    select_among(service, rng, |_| true)
}

/// Selects among the instances that are meant, as if there were no others: a tier or a zone in which nobody is meant is none, so that
/// the selection is empty only when nobody who is meant is up.
pub fn select_among<'a>(
    service: &'a Service,
    rng: &mut fastrand::Rng,
    is_meant: impl Fn(&Instance) -> bool,
) -> Selection<'a> {
    let Some(tier) = tier_of(service, &is_meant) else { return Selection::empty() };
    let is_offered = |instance: &Instance| instance.tier() == tier && is_meant(instance);
    if let Some(zone) = service.zones.draw(rng) {
        let selection = by_weight(service, rng, |instance| is_offered(instance) && instance.is_in(zone));
        // The plan is made of all instances, and one that does not fit is of others than these.
        if !selection.is_empty() {
            return selection;
        }
    }
    by_weight(service, rng, is_offered)
}

/// Selects among the instances of all zones, for whoever draws by weight himself.
pub fn select_in_all_zones<'a>(service: &'a Service, rng: &mut fastrand::Rng) -> Selection<'a> {
    let tier = tier(service);
    by_weight(service, rng, |instance| Some(instance.tier()) == tier)
}

/// Selects among all instances that are up and meant, whatever their tier and zone.
pub fn select_in_all_tiers<'a>(
    service: &'a Service,
    rng: &mut fastrand::Rng,
    is_meant: impl Fn(&Instance) -> bool,
) -> Selection<'a> {
    by_weight(service, rng, is_meant)
}

/// The part of all lookups in which each instance stands first, in the order of the instances; `None` for one that is never among the
/// selected.
pub fn shares(service: &Service) -> Vec<Option<f64>> {
    let mut shares = vec![None; service.instances.len()];
    let Some(tier) = tier(service) else { return shares };
    let mut rest = 1.0;
    for Draw { zone, share } in service.zones.draws() {
        let is_meant = |instance: &Instance| instance.tier() == tier && instance.is_in(zone.as_deref());
        if spread(service, is_meant, *share, &mut shares) {
            rest -= share;
        }
    }
    // What is drawn for nobody is everybody's.
    if service.zones.draws().is_empty() || rest > SHARE_MIN {
        spread(service, |instance| instance.tier() == tier, rest, &mut shares);
    }
    shares
}

/// The tier whose instances are offered, an effective priority or the last resort; `None` when nothing is up.
pub fn tier(service: &Service) -> Option<u32> {
    tier_of(service, |_| true)
}

/// The tier that would be offered if there were no other instances than those that are meant.
pub(super) fn tier_of(service: &Service, is_meant: impl Fn(&Instance) -> bool) -> Option<u32> {
    let up = || service.up().filter(|instance| is_meant(instance)).map(|instance| instance.tier());
    let lowest_from = |tier_min| up().filter(|tier| *tier >= tier_min).min();
    let min_healthy = usize::try_from(service.settings.min_healthy).unwrap_or(usize::MAX).max(1);
    let mut fullest: Option<(u32, usize)> = None;
    let mut next = lowest_from(0);
    while let Some(priority) = next {
        if priority == LAST_RESORT && fullest.is_some() {
            break;
        }
        let count = up().filter(|tier| *tier == priority).count();
        if count >= min_healthy {
            return Some(priority);
        }
        if fullest.is_none_or(|(_, most)| count > most) {
            fullest = Some((priority, count));
        }
        next = lowest_from(priority + 1);
    }
    fullest.map(|(priority, _)| priority)
}

impl<'a> Selection<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody is to be offered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The instances in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a Arc<Instance>> + '_ {
        self.slots().iter().flatten().map(|slot| slot.instance)
    }

    /// Whether `instance` is among them.
    pub fn contains(&self, instance: &Arc<Instance>) -> bool {
        self.iter().any(|selected| Arc::ptr_eq(selected, instance))
    }

    /// Where the first one stands among the service's instances.
    pub fn first_index(&self) -> Option<usize> {
        self.slots().first().and_then(Option::as_ref).map(|slot| slot.index)
    }

    fn empty() -> Self {
        Self { inline: [None; INLINE], spilled: Vec::new(), len: 0 }
    }

    fn push(&mut self, slot: Slot<'a>) {
        if self.len < INLINE {
            self.inline[self.len] = Some(slot);
        } else {
            if self.len == INLINE {
                self.spilled.extend_from_slice(&self.inline);
            }
            self.spilled.push(Some(slot));
        }
        self.len += 1;
    }

    fn slots(&self) -> &[Option<Slot<'a>>] {
        if self.len <= INLINE { &self.inline[..self.len] } else { &self.spilled }
    }

    fn slots_mut(&mut self) -> &mut [Option<Slot<'a>>] {
        if self.len <= INLINE { &mut self.inline[..self.len] } else { &mut self.spilled }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot<'a> {
    instance: &'a Arc<Instance>,
    /// Its place in the service.
    index: usize,
    /// When it is drawn; the smallest first.
    key: f64,
}

impl Slot<'_> {
    fn order(a: Option<&Self>, b: Option<&Self>) -> std::cmp::Ordering {
        let key = |slot: Option<&Self>| slot.map_or(f64::INFINITY, |slot| slot.key);
        key(a).total_cmp(&key(b))
    }
}

fn by_weight<'a>(
    service: &'a Service,
    rng: &mut fastrand::Rng,
    is_meant: impl Fn(&Instance) -> bool,
) -> Selection<'a> {
    let mut selection = Selection::empty();
    for (index, instance) in service.instances.iter().enumerate() {
        if instance.record.is_up() && is_meant(instance) {
            selection.push(Slot { instance, index, key: random_key(instance.record.weight, rng) });
        }
    }
    // Unstable: equal keys are equally likely either way, and a stable sort would allocate.
    selection.slots_mut().sort_unstable_by(|a, b| Slot::order(a.as_ref(), b.as_ref()));
    selection
}

/// Gives `share` to those that are up and meant, by weight; returns whether there are any.
fn spread(
    service: &Service,
    is_meant: impl Fn(&Instance) -> bool,
    share: f64,
    shares: &mut [Option<f64>],
) -> bool {
    let is_meant = |instance: &Instance| instance.record.is_up() && is_meant(instance);
    let meant = || service.instances.iter().filter(|instance| is_meant(instance));
    let weights: f64 = meant().map(|instance| f64::from(instance.record.weight)).sum();
    // Without weights all are equals.
    let (unit, sum) = if weights > 0.0 { (0.0, weights) } else { (1.0, meant().map(|_| 1.0).sum()) };
    for (instance, known) in service.instances.iter().zip(shares) {
        if is_meant(instance) {
            let part = (f64::from(instance.record.weight) + unit) / sum;
            *known = Some(known.unwrap_or_default() + share * part);
        }
    }
    sum > 0.0
}

/// When an instance is drawn: the arrival of an exponential clock whose rate is the weight. The first of several such
/// clocks rings with a probability of its share of the weights, and so on among the rest; so sorting by arrival is
/// drawing by weight without replacement (Efraimidis and Spirakis, 2006).
fn random_key(weight: u16, rng: &mut fastrand::Rng) -> f64 {
    // 1 - [0, 1) is never 0, whose logarithm is infinite.
    let arrival = -(1.0 - rng.f64()).ln();
    if weight == 0 {
        // No clock of weight 1 or more rings as late as this: the longest arrival is 53 bits times ln 2.
        WEIGHT_0_KEY_MIN + arrival
    } else {
        arrival / f64::from(weight)
    }
}

const WEIGHT_0_KEY_MIN: f64 = 1_000.0;
/// Less than this is an error of rounding.
const SHARE_MIN: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{SessionId, Zxid};
    use crate::registry::sample::{Row, key, view_from};
    use crate::registry::{
        Label, Meta, Port, Protocol, Record, ServiceKey, ServiceSettings, Standing, Status,
    };

    #[test]
    fn only_what_is_up_is_offered() {
        let service = service(1, &[(Status::Up, 0, 1), (Status::Failing, 0, 1), (Status::Draining, 0, 1)]);
        assert_eq!(ids(&select(&service, &mut rng())), ["i0"]);
        let nobody = self::service(1, &[(Status::Maintenance, 0, 1), (Status::Unknown, 0, 1)]);
        assert!(select(&nobody, &mut rng()).is_empty());
    }

    #[test]
    fn the_lowest_tier_with_enough_up_is_chosen() {
        let up = Status::Up;
        let primaries_down = service(1, &[(Status::Failing, 0, 1), (up, 5, 1), (up, 9, 1)]);
        assert_eq!(tier(&primaries_down), Some(5));
        let too_few_primaries = service(2, &[(up, 0, 1), (up, 7, 1), (up, 7, 1)]);
        assert_eq!(tier(&too_few_primaries), Some(7));
        let too_few_anywhere = service(5, &[(up, 0, 1), (up, 7, 1), (up, 7, 1), (up, 9, 1), (up, 9, 1)]);
        assert_eq!(tier(&too_few_anywhere), Some(7), "the one with the most, the lower among equals");
        let nothing_asked = service(0, &[(Status::Failing, 0, 1), (up, u16::MAX, 1)]);
        assert_eq!(tier(&nothing_asked), Some(u16::MAX.into()));
    }

    #[test]
    fn who_vanished_and_is_silent_is_offered_only_when_nobody_else_is() {
        let mut service = service(2, &[(Status::Up, 0, 1), (Status::Up, u16::MAX, 1), (Status::Up, 0, 1)]);
        for index in [0, 2] {
            let silent = Instance { standing: Standing::Silent, ..(*service.instances[index]).clone() };
            service.instances[index] = Arc::new(silent);
        }
        assert_eq!(ids(&select(&service, &mut rng())), ["i1"], "although two would be enough");
        service.instances.take_nth(1);
        assert_eq!(tier(&service), Some(LAST_RESORT));
        assert_eq!(select(&service, &mut rng()).len(), 2);
    }

    #[test]
    fn first_places_follow_the_weights_in_the_long_run() {
        let weights = [1_u16, 2, 5, 12, 0];
        let service = service(1, &weights.map(|weight| (Status::Up, 0, weight)));
        let (mut rng, rounds) = (rng(), 40_000_u32);
        let mut firsts = [0_u32; 5];
        for _ in 0..rounds {
            let first = select(&service, &mut rng).iter().next().unwrap().id.clone();
            let index: usize = first.as_str()[1..].parse().unwrap();
            firsts[index] += 1;
        }
        for (weight, count) in weights.into_iter().zip(firsts) {
            let expected = f64::from(rounds) * f64::from(weight) / 20.0;
            // Six standard deviations at most.
            let slack = 6.0 * expected.sqrt();
            assert!((f64::from(count) - expected).abs() <= slack, "weight {weight}: {count} of {expected}");
        }
    }

    #[test]
    fn first_places_follow_the_plan_of_zones_in_the_long_run() {
        let (a, b) = (Some("a"), Some("b"));
        let rows: &[Row<'_>] = &[(a, 1), (a, 3), (b, 4), (None, 2), (b, 0)];
        let view = view_from("a", &[("app", &[(a, 4), (b, 1)]), ("web", rows)]);
        let web = &view.services[&key("web")];
        // 40 % of the weights for 80 % of the callers: every other lookup leaves, for what b (20 %) and the rest (20 %) have left.
        let planned = [Some(0.125), Some(0.375), Some(0.25), Some(0.25), Some(0.0)];
        assert_eq!(shares(web), planned);
        let (mut rng, rounds) = (rng(), 40_000_u32);
        let mut firsts = [0_u32; 5];
        for _ in 0..rounds {
            firsts[select(web, &mut rng).first_index().unwrap()] += 1;
        }
        for (share, count) in planned.into_iter().zip(firsts) {
            let expected = f64::from(rounds) * share.unwrap();
            assert!((f64::from(count) - expected).abs() <= 6.0 * expected.sqrt(), "{count} of {expected}");
        }
    }

    #[test]
    fn one_selection_holds_one_zone_and_that_for_all_zones_holds_the_tier() {
        let (a, b) = (Some("a"), Some("b"));
        let rows: &[Row<'_>] = &[(a, 1), (a, 0), (b, 1), (b, 2)];
        let view = view_from("a", &[("app", &[(a, 1)]), ("web", rows)]);
        let web = &view.services[&key("web")];
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut found = ids(&select(web, &mut fastrand::Rng::with_seed(seed)));
            found.sort();
            seen.insert(found);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [["i00", "i01"], ["i02", "i03"]]);
        assert_eq!(select_in_all_zones(web, &mut rng()).len(), 4);
    }

    #[test]
    fn a_plan_that_fits_nobody_is_passed_over() {
        let rows: &[Row<'_>] = &[(Some("a"), 1), (Some("b"), 1), (Some("b"), 2)];
        let view = view_from("a", &[("app", &[(Some("a"), 1), (Some("b"), 1)]), ("web", rows)]);
        let mut web = Service::clone(&view.services[&key("web")]);
        assert_eq!(shares(&web)[0], Some(0.5));
        web.instances.take_nth(0);
        let shares = shares(&web);
        assert!(
            (shares[0].unwrap() - 1.0 / 3.0).abs() < 1e-9 && (shares[1].unwrap() - 2.0 / 3.0).abs() < 1e-9
        );
        for seed in 0..20 {
            assert_eq!(select(&web, &mut fastrand::Rng::with_seed(seed)).len(), 2);
        }
    }

    #[test]
    fn second_places_follow_the_weights_of_the_rest() {
        let service = service(1, &[(Status::Up, 0, 1), (Status::Up, 0, 1), (Status::Up, 0, 3)]);
        let (mut rng, mut first_2, mut then_1) = (rng(), 0_u32, 0_u32);
        for _ in 0..20_000 {
            let selection = select(&service, &mut rng);
            if ids(&selection)[0] == "i2" {
                first_2 += 1;
                then_1 += u32::from(ids(&selection)[1] == "i1");
            }
        }
        let share = f64::from(then_1) / f64::from(first_2);
        assert!((share - 0.5).abs() < 0.03, "equals share what is left: {share}");
    }

    proptest! {
        #[test]
        fn every_up_instance_of_the_tier_appears_exactly_once_and_weight_0_last(
            instances in prop::collection::vec((status(), 0_u16..3, prop_oneof![Just(0_u16), any::<u16>()]), 0..60),
            min_healthy in 0_u32..6, seed: u64,
        ) {
            let service = service(min_healthy, &instances);
            let selection = select(&service, &mut fastrand::Rng::with_seed(seed));
            let mut selected = ids(&selection);
            let weights: Vec<_> = selection.iter().map(|instance| instance.record.weight).collect();
            let first_0 = weights.iter().position(|weight| *weight == 0).unwrap_or(weights.len());
            prop_assert!(weights[first_0..].iter().all(|weight| *weight == 0), "{weights:?}");

            let tier = tier(&service);
            let mut expected: Vec<_> = service.up()
                .filter(|instance| Some(instance.tier()) == tier)
                .map(|instance| instance.id.to_string())
                .collect();
            selected.sort();
            expected.sort();
            prop_assert_eq!(selection.len(), expected.len());
            prop_assert_eq!(selected, expected);
        }
    }

    fn status() -> impl Strategy<Value = Status> {
        prop_oneof![3 => Just(Status::Up), 1 => Just(Status::Failing)]
    }

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(7)
    }

    fn ids(selection: &Selection<'_>) -> Vec<String> {
        selection.iter().map(|instance| instance.id.to_string()).collect()
    }

    fn service(min_healthy: u32, instances: &[(Status, u16, u16)]) -> Service {
        let label = |text: &str| Label::parse(text).unwrap();
        let instance = |(index, (status, priority, weight)): (usize, &(Status, u16, u16))| {
            let record = Record {
                version: Record::VERSION,
                addresses: vec!["10.0.0.1".parse().unwrap()],
                ports: vec![Port { name: label("http"), port: 80, protocol: Protocol::Tcp }],
                status: *status,
                weight: *weight,
                priority: *priority,
                effective_priority: None,
                zone: None,
                node: None,
                tags: Vec::new(),
                meta: Meta::default(),
                owner: String::new(),
                incarnation: String::new(),
                registered_at_ms: 0,
                other: serde_json::Map::new(),
            };
            let id = label(&format!("i{index}"));
            Arc::new(Instance::new(id, record, Zxid::ZERO, SessionId::NONE))
        };
        let key = ServiceKey { namespace: label("default"), name: label("web") };
        let settings = ServiceSettings { min_healthy, ..ServiceSettings::default() };
        Service {
            settings,
            instances: instances.iter().enumerate().map(instance).collect(),
            ..Service::new(key)
        }
    }
}
