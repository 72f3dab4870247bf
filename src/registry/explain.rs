//! Why a lookup of a service answers what it answers. Pure, and by the selection's own rules.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::failback::HELD_PRIORITY;
use super::record::Status;
use super::select::tier;
use super::view::{Instance, Service, Standing};

/// How one service is answered for.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The tiers in the order in which they are looked at.
    pub tiers: Vec<Tier>,
    /// Every known instance, in the order of their ids.
    pub instances: Vec<(Arc<Instance>, Verdict)>,
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
        matches!(self, Self::Offered | Self::OfferedLast)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered => f.write_str("up, in the tier that is offered"),
            Self::OfferedLast => {
                f.write_str("up, in the tier that is offered; last, because its weight is 0")
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
    let verdict = |instance: &Arc<Instance>| {
        let record = &instance.record;
        let verdict = match chosen {
            _ if !record.is_up() => Verdict::NotUp(record.status),
            Some(chosen) if chosen == instance.tier() => {
                if record.weight == 0 {
                    Verdict::OfferedLast
                } else {
                    Verdict::Offered
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
        instances: service.instances.iter().map(verdict).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{SessionId, Zxid};
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

    proptest! {
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
