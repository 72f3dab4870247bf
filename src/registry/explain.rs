//! Why a lookup of a service answers what it answers. Pure, and by the selection's own rules.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::failback::HELD_PRIORITY;
use super::record::Status;
use super::select::{shares, tier};
use super::view::{Instance, Service, Standing};

/// How one service is answered for.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The tiers in the order in which they are looked at.
    pub tiers: Vec<Tier>,
    /// Every known instance, in the order of their ids.
    pub instances: Vec<(Arc<Instance>, Verdict)>,
    /// The part of this zone's lookups in which each stands first, in the same order.
    pub shares: Vec<f64>,
}

/// One instance's reason in words: the verdict, and what is made of it if its record has vanished.
pub fn reason(instance: &Instance, verdict: Verdict) -> String {
    let vanished = match instance.standing {
        Standing::Registered => return verdict.to_string(),
        Standing::Limbo => "its record has just vanished, which will be believed soon",
        Standing::Suspect => {
            "its record vanished with many others, which is not believed unless a probe fails"
        }
        Standing::Silent => "its record vanished and it does not answer: the last resort",
    };
    format!("{verdict}; {vanished}")
}

/// One tier of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its effective priority, or the [`LAST_RESORT`](super::LAST_RESORT).
    pub priority: u32,
    /// Instances of it.
    pub instances: usize,
    /// Those that are up.
    pub up: usize,
    /// Whether it is the one that is offered.
    pub is_chosen: bool,
}

/// Whether one instance is offered, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is offered, and chosen among the others by its weight.
    Offered,
    /// It is offered behind all others, because its weight is 0.
    OfferedLast,
    /// It is in another zone, and offered to this one's lookups because its own zone has room for them.
    Overflow {
        /// How many of a hundred of these lookups it takes, rounded.
        percent: u8,
    },
    /// It is in the tier that is offered, and in a zone that no lookup of this one gets.
    OtherZone,
    /// It is not up.
    NotUp(Status),
    /// It is up, and another tier is offered.
    OtherTier {
        /// Which one is offered.
        chosen: u32,
    },
    /// It is up, and waits below the standbys until it may take its tier again.
    HeldOff {
        /// The tier that is offered.
        chosen: u32,
    },
}

impl Verdict {
    /// Whether it is among those that are offered.
    pub const fn is_offered(self) -> bool {
        match self {
            Self::Offered | Self::OfferedLast | Self::Overflow { .. } => true,
            Self::OtherZone | Self::NotUp(_) | Self::OtherTier { .. } | Self::HeldOff { .. } => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered => f.write_str("up, in the tier that is offered"),
            Self::OfferedLast => {
                f.write_str("up, in the tier that is offered; last, because its weight is 0")
            }
            Self::Overflow { percent } => {
                write!(f, "up, in the tier that is offered; takes {percent} % of this zone's lookups")
            }
            Self::OtherZone => {
                f.write_str("up, in the tier that is offered, but no lookup of this zone goes to its zone")
            }
            Self::NotUp(Status::Failing) => f.write_str("its checks fail"),
            Self::NotUp(Status::Draining) => f.write_str("it is leaving"),
            Self::NotUp(Status::Maintenance) => f.write_str("an operator has taken it out"),
            Self::NotUp(Status::Unknown) => f.write_str("it says a status that this version does not know"),
            Self::NotUp(Status::Up) => f.write_str("up"),
            Self::OtherTier { chosen } => write!(f, "up, but tier {chosen} is offered"),
            Self::HeldOff { chosen } => {
                write!(f, "up, but it was away and waits below tier {chosen} until it may take its own again")
            }
        }
    }
}

/// Explains how `service` is answered for.
pub fn explain(service: &Service) -> Explanation {
    let chosen = tier(service);
    let mut tiers = BTreeMap::new();
    for instance in &service.instances {
        let priority = instance.tier();
        let is_chosen = chosen == Some(priority);
        let tier = tiers.entry(priority).or_insert(Tier { priority, instances: 0, up: 0, is_chosen });
        tier.instances += 1;
        tier.up += usize::from(instance.record.is_up());
    }
    let shares = shares(service);
    let own_zone = service.zones.own_zone();
    let verdict = |(instance, share): (&Arc<Instance>, &Option<f64>)| {
        let record = &instance.record;
        let verdict = match chosen {
            _ if !record.is_up() => Verdict::NotUp(record.status),
            Some(chosen) if chosen == instance.tier() => {
                let is_here = own_zone.is_none_or(|zone| instance.is_in(Some(zone)));
                match share {
                    None => Verdict::OtherZone,
                    Some(_) if record.weight == 0 => Verdict::OfferedLast,
                    Some(_) if is_here => Verdict::Offered,
                    Some(share) => Verdict::Overflow { percent: percent(*share) },
                }
            }
            Some(chosen) if record.effective_priority == Some(HELD_PRIORITY) => Verdict::HeldOff { chosen },
            Some(chosen) => Verdict::OtherTier { chosen },
            None => Verdict::NotUp(record.status),
        };
        (instance.clone(), verdict)
    };
    Explanation {
        tiers: tiers.into_values().collect(),
        instances: service.instances.iter().zip(&shares).map(verdict).collect(),
        shares: shares.into_iter().map(Option::unwrap_or_default).collect(),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is from 0 to 1")]
fn percent(share: f64) -> u8 {
    (share * 100.0).round() as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{SessionId, Zxid};
    use std::collections::BTreeSet;

    use crate::registry::sample::{Row, key, view_from};
    use crate::registry::select::select;
    use crate::registry::{Label, Record, ServiceKey, ServiceSettings};

    #[test]
    fn every_instance_has_its_reason() {
        let held = Some(HELD_PRIORITY);
        let service = service(
            2,
            &[
                (Status::Up, 0, None, 1),
                (Status::Failing, 0, None, 1),
                (Status::Up, 0, held, 1),
                (Status::Up, 10, None, 1),
                (Status::Up, 10, None, 0),
                (Status::Draining, 10, None, 1),
            ],
        );
        let explanation = explain(&service);
        let verdicts: Vec<_> = explanation.instances.iter().map(|(_, verdict)| *verdict).collect();
        let expected = [
            Verdict::OtherTier { chosen: 10 },
            Verdict::NotUp(Status::Failing),
            Verdict::HeldOff { chosen: 10 },
            Verdict::Offered,
            Verdict::OfferedLast,
            Verdict::NotUp(Status::Draining),
        ];
        assert_eq!(verdicts, expected);
        let tiers: Vec<_> =
            explanation.tiers.iter().map(|tier| (tier.priority, tier.up, tier.is_chosen)).collect();
        assert_eq!(tiers, [(0, 1, false), (10, 2, true), (HELD_PRIORITY.into(), 1, false)]);
    }

    #[test]
    fn who_vanished_is_told_with_what_is_made_of_it() {
        let mut service = service(1, &[(Status::Up, 0, None, 1), (Status::Up, 0, None, 1)]);
        let silent = Instance { standing: Standing::Silent, ..(*service.instances[0]).clone() };
        service.instances[0] = Arc::new(silent);
        let explanation = explain(&service);
        let (instance, verdict) = &explanation.instances[0];
        assert_eq!(
            reason(instance, *verdict),
            "up, but tier 0 is offered; its record vanished and it does not answer: the last resort"
        );
        assert_eq!(explanation.tiers[1].priority, crate::registry::LAST_RESORT);
    }

    #[test]
    fn another_zone_is_told_with_what_it_takes_of_this_ones_lookups() {
        let (a, b) = (Some("a"), Some("b"));
        let of = |rows: &[Row<'_>]| {
            let view = view_from("a", &[("app", &[(a, 1), (b, 1)]), ("web", rows)]);
            explain(&view.services[&key("web")])
        };
        let spilling = of(&[(a, 1), (b, 1), (b, 2), (b, 0)]);
        let told: Vec<_> = spilling.instances.iter().map(|(it, verdict)| reason(it, *verdict)).collect();
        assert_eq!(
            told,
            [
                "up, in the tier that is offered",
                "up, in the tier that is offered; takes 17 % of this zone's lookups",
                "up, in the tier that is offered; takes 33 % of this zone's lookups",
                "up, in the tier that is offered; last, because its weight is 0",
            ]
        );
        assert!((spilling.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && spilling.shares[0] == 0.5);

        let at_home = of(&[(a, 1), (b, 1)]);
        assert_eq!((at_home.instances[1].1, at_home.shares), (Verdict::OtherZone, vec![1.0, 0.0]));
        assert!(at_home.instances[1].1.to_string().ends_with("but no lookup of this zone goes to its zone"));
    }

    proptest! {
        #[test]
        fn over_all_lookups_of_a_zone_who_is_said_to_be_offered_is_who_is_selected(
            app in prop::collection::vec((0_usize..3, 1_u16..4), 0..4),
            web in prop::collection::vec((0_usize..4, 0_u16..4), 0..20),
        ) {
            let rows = |of: &[(usize, u16)]| -> Vec<Row<'static>> {
                of.iter().map(|(zone, weight)| (["a", "b", "c"].get(*zone).copied(), *weight)).collect()
            };
            let view = view_from("a", &[("app", &rows(&app)), ("web", &rows(&web))]);
            let web = &view.services[&key("web")];
            let explanation = explain(web);
            let offered: BTreeSet<_> = explanation.instances.iter()
                .filter(|(_, verdict)| verdict.is_offered()).map(|(instance, _)| instance.id.clone()).collect();
            let mut rng = fastrand::Rng::with_seed(1);
            let mut selected = BTreeSet::new();
            // The least of zones gets a 240th.
            for _ in 0..3_000 {
                selected.extend(select(web, &mut rng).iter().map(|instance| instance.id.clone()));
            }
            prop_assert_eq!(offered, selected);
        }

        #[test]
        fn who_is_said_to_be_offered_is_who_is_selected(
            instances in prop::collection::vec(
                (prop_oneof![Just(Status::Up), Just(Status::Failing)], 0_u16..3,
                 prop_oneof![Just(None), Just(Some(HELD_PRIORITY))], 0_u16..2), 0..20),
            min_healthy in 0_u32..4,
        ) {
            let service = service(min_healthy, &instances);
            let offered: Vec<_> = explain(&service).instances.into_iter()
                .filter(|(_, verdict)| verdict.is_offered()).map(|(instance, _)| instance.id.clone()).collect();
            let mut selected: Vec<_> =
                select(&service, &mut fastrand::Rng::with_seed(1)).iter().map(|it| it.id.clone()).collect();
            selected.sort();
            prop_assert_eq!(offered, selected);
        }
    }

    fn service(min_healthy: u32, instances: &[(Status, u16, Option<u16>, u16)]) -> Service {
        let label = |text: &str| Label::parse(text).unwrap();
        let text = br#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
        let record = Record::decode(text).unwrap();
        let instances = instances.iter().enumerate().map(|(index, (status, priority, effective, weight))| {
            let record = Record {
                status: *status,
                priority: *priority,
                effective_priority: *effective,
                weight: *weight,
                ..record.clone()
            };
            let id = label(&format!("i{index:02}"));
            Arc::new(Instance::new(id, record, Zxid::ZERO, SessionId::NONE))
        });
        let key = ServiceKey { namespace: label("default"), name: label("web") };
        let settings = ServiceSettings { min_healthy, ..ServiceSettings::default() };
        Service { settings, instances: instances.collect(), ..Service::new(key) }
    }
}
