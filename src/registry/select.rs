//! The one selection of instances, for DNS and HTTP alike. Pure.
//!
//! In this order: drop what is not up; keep the lowest effective priority with at least `min_healthy` instances up (if
//! none has, the one with the most, the lower among equals); then a weighted random order without replacement, in
//! which instances of weight 0 come after all others.
//!
//! Nothing is allocated for a tier of up to [`INLINE`] instances.

use std::sync::Arc;

use super::view::{Instance, LAST_RESORT, Service};

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
    let Some(tier) = tier(service) else { return Selection::empty() };
    let mut selection = Selection::empty();
    for instance in service.up().filter(|instance| instance.tier() == tier) {
        selection.push(Slot { instance, key: random_key(instance.record.weight, rng) });
    }
    // Unstable: equal keys are equally likely either way, and a stable sort would allocate.
    selection.slots_mut().sort_unstable_by(|a, b| Slot::order(a.as_ref(), b.as_ref()));
    selection
}

/// The tier whose instances are offered, an effective priority or the last resort; `None` when nothing is up.
pub fn tier(service: &Service) -> Option<u32> {
    let min_healthy = usize::try_from(service.settings.min_healthy).unwrap_or(usize::MAX).max(1);
    let mut fullest: Option<(u32, usize)> = None;
    let mut next = lowest_from(service, 0);
    while let Some(priority) = next {
        if priority == LAST_RESORT && fullest.is_some() {
            break;
        }
        let up = service.up().filter(|instance| instance.tier() == priority).count();
        if up >= min_healthy {
            return Some(priority);
        }
        if fullest.is_none_or(|(_, most)| up > most) {
            fullest = Some((priority, up));
        }
        next = lowest_from(service, priority + 1);
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
    /// When it is drawn; the smallest first.
    key: f64,
}

impl Slot<'_> {
    fn order(a: Option<&Self>, b: Option<&Self>) -> std::cmp::Ordering {
        let key = |slot: Option<&Self>| slot.map_or(f64::INFINITY, |slot| slot.key);
        key(a).total_cmp(&key(b))
    }
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

fn lowest_from(service: &Service, tier_min: u32) -> Option<u32> {
    service.up().map(|instance| instance.tier()).filter(|tier| *tier >= tier_min).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{SessionId, Zxid};
    use crate::registry::{Label, Port, Protocol, Record, ServiceKey, ServiceSettings, Standing, Status};

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
        service.instances.remove(1);
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
                meta: std::collections::BTreeMap::new(),
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
