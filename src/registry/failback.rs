//! When an instance that was away takes its tier again. Pure.
//!
//! ```text
//!            fell, or was killed              passes again
//!    Clear ────────────────────► Suspect ─────────────────► Held ──► Clear
//!                                   ▲                        │
//!                                   └──────── fell ──────────┘
//! ```
//!
//! It is decided where the instance is registered, so that all readers agree: who is held off stands in the last tier,
//! [`HELD_PRIORITY`], where it is still offered when nobody else is up. Nobody is held off while a tier as good as its own serves,
//! because then nobody has taken over: neither is an instance of a service without standbys, nor one whose sidecar was
//! killed so briefly that its record never went, nor the second of two primaries once the first is back.
//!
//! Who serves is told by records that are there. One that has vanished and is still offered, such as our own of an earlier process, may
//! be gone for long at other readers; so it speaks for a standby when there is nobody else, and never for the instance's own tier.

use std::time::{Duration, Instant};

use super::check::HealthState;
use super::name::ServiceKey;
use super::select::tier_of;
use super::view::{FailbackMode, Instance, ServiceSettings, Standing, View};

/// The tier of who is held off: below every standby.
pub const HELD_PRIORITY: u16 = u16::MAX;

/// Whether one instance is held off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failback {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Clear,
    Suspect,
    Held { since: Instant },
}

/// Who serves, seen from an instance's own tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Nothing was learnt of it yet, or what was learnt is not current.
    Unknown,
    /// A tier below its own.
    Standbys,
    /// Its own tier, or a better one, or nobody but those who are held off from these.
    NoStandbys,
}

impl Lead {
    /// Who serves `service`, for an instance whose configured priority is `priority`, as a view shows it that is current.
    pub fn of(view: &View, service: &ServiceKey, priority: u16) -> Self {
        if !view.is_loaded {
            return Self::Unknown;
        }
        let Some(service) = view.services.get(service) else { return Self::NoStandbys };
        if !service.is_followed {
            return Self::Unknown;
        }
        let own = u32::from(priority);
        // Whoever waits to take a tier as good as its own back has taken over from nobody.
        let has_yielded = |other: &Instance| {
            other.record.priority <= priority && other.record.effective_priority == Some(HELD_PRIORITY)
        };
        let is_there = |other: &Instance| other.standing == Standing::Registered && !has_yielded(other);
        // Of those of the last resort nobody knows whether they serve.
        let may_be_back = |other: &Instance| match other.standing {
            Standing::Limbo | Standing::Suspect => other.tier() > own && !has_yielded(other),
            Standing::Registered | Standing::Silent => false,
        };
        match tier_of(service, is_there).or_else(|| tier_of(service, may_be_back)) {
            Some(leading) if leading > own => Self::Standbys,
            Some(_) | None => Self::NoStandbys,
        }
    }
}

impl Failback {
    /// An instance that may have been away, or not.
    pub const fn new(is_suspect: bool) -> Self {
        Self { state: if is_suspect { State::Suspect } else { State::Clear } }
    }

    /// Takes what the checks say now; `is_missed` when the instance was offered, so that somebody takes over if it fails.
    pub fn on_health(&mut self, health: HealthState, is_missed: bool, now: Instant) {
        self.state = match (self.state, health) {
            (State::Suspect, HealthState::Passing) => State::Held { since: now },
            (State::Held { .. }, HealthState::Failing) => State::Suspect,
            (State::Clear, HealthState::Failing) if is_missed => State::Suspect,
            (state, _) => state,
        };
    }

    /// Whether it is held off now. Not any more when no standby serves, when it has passed for as long as the service's
    /// settings say, or when these say that nobody is. While nobody knows who serves, nobody knows what these say by now.
    pub fn is_held(&mut self, lead: Lead, settings: &ServiceSettings, now: Instant) -> bool {
        let State::Held { since } = self.state else { return false };
        let is_over = lead != Lead::Unknown
            && match settings.failback {
                FailbackMode::Off => true,
                FailbackMode::Auto => now.saturating_duration_since(since) >= settings.failback_after(),
                FailbackMode::Manual => false,
            };
        if is_over || lead == Lead::NoStandbys {
            self.state = State::Clear;
        }
        self.is_marked()
    }

    /// How long until [`Failback::is_held`] may say something else by itself.
    pub fn remaining(&self, settings: &ServiceSettings, now: Instant) -> Option<Duration> {
        match (self.state, settings.failback) {
            (State::Held { since }, FailbackMode::Auto) => {
                Some(settings.failback_after().saturating_sub(now.saturating_duration_since(since)))
            }
            (State::Held { .. }, FailbackMode::Manual | FailbackMode::Off)
            | (State::Clear | State::Suspect, _) => None,
        }
    }

    /// An operator has told it to take its tier again; returns whether it was held off. One that still fails is not let off.
    pub fn release(&mut self) -> bool {
        let is_held = matches!(self.state, State::Held { .. });
        if is_held {
            self.state = State::Clear;
        }
        is_held
    }

    /// Whether it was away and has not taken its tier again: what outlives the process.
    pub const fn is_marked(&self) -> bool {
        !matches!(self.state, State::Clear)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::{SessionId, Zxid};
    use crate::registry::{Instance, Label, Record, Service, Status};

    const AFTER: Duration = Duration::from_secs(30);

    #[test]
    fn over_50_random_outages_a_primary_comes_back_once_each_and_after_its_time() {
        let (mut rng, mut now) = (fastrand::Rng::with_seed(3), crate::clock::now());
        let mut primary = Failback::new(false);
        for outage in 0..50 {
            primary.on_health(HealthState::Failing, true, now);
            assert!(
                !primary.is_held(Lead::Standbys, &settings(FailbackMode::Auto), now),
                "it fails, and is not offered"
            );
            now += Duration::from_millis(rng.u64(1..100_000));
            // It flaps before it is well for good.
            for _ in 0..rng.u32(0..5) {
                primary.on_health(HealthState::Passing, true, now);
                assert!(primary.is_held(Lead::Standbys, &settings(FailbackMode::Auto), now));
                now += Duration::from_millis(rng.u64(1..29_999));
                assert!(primary.is_held(Lead::Standbys, &settings(FailbackMode::Auto), now));
                primary.on_health(HealthState::Failing, true, now);
            }
            primary.on_health(HealthState::Passing, true, now);
            let well_since = now;
            let mut changes = 0;
            let mut was_held = true;
            for _ in 0..100 {
                let is_held = primary.is_held(Lead::Standbys, &settings(FailbackMode::Auto), now);
                if is_held != was_held {
                    changes += 1;
                    was_held = is_held;
                    let after = now - well_since;
                    assert!(
                        after >= AFTER && after < AFTER + Duration::from_secs(1),
                        "outage {outage}: {after:?}"
                    );
                }
                now += Duration::from_millis(900);
            }
            assert_eq!((changes, was_held), (1, false), "outage {outage}");
        }
    }

    #[test]
    fn by_hand_means_by_hand() {
        let (mut primary, now) = (Failback::new(true), crate::clock::now());
        assert!(!primary.release(), "it does not pass yet");
        primary.on_health(HealthState::Passing, false, now);
        let manual = settings(FailbackMode::Manual);
        assert!(primary.is_held(Lead::Standbys, &manual, now + AFTER * 1_000));
        assert_eq!(primary.remaining(&manual, now), None);
        assert!(primary.release() && !primary.is_marked());
        assert!(!primary.is_held(Lead::Standbys, &manual, now));
    }

    #[test]
    fn no_time_is_over_while_nobody_knows_what_the_settings_say() {
        let (mut primary, now) = (Failback::new(true), crate::clock::now());
        primary.on_health(HealthState::Passing, false, now);
        let later = now + AFTER * 100;
        // The settings of a service of which nothing is known.
        assert!(primary.is_held(Lead::Unknown, &ServiceSettings::default(), later));
        assert!(primary.is_held(Lead::Standbys, &settings(FailbackMode::Manual), later));
        assert!(!primary.is_held(Lead::Standbys, &settings(FailbackMode::Auto), later));
    }

    #[test]
    fn who_was_never_away_is_not_held_off() {
        let now = crate::clock::now();
        let mut fresh = Failback::new(false);
        // Checks that fail before the instance was ever offered are a slow start.
        for health in [HealthState::Initial, HealthState::Failing, HealthState::Passing] {
            fresh.on_health(health, false, now);
        }
        assert!(!fresh.is_held(Lead::Standbys, &settings(FailbackMode::Auto), now));
    }

    #[test]
    fn nobody_is_held_off_while_no_standby_serves_or_when_told_not_to() {
        let now = crate::clock::now();
        for (lead, mode, is_held) in [
            (Lead::NoStandbys, FailbackMode::Auto, false),
            (Lead::NoStandbys, FailbackMode::Manual, false),
            (Lead::Standbys, FailbackMode::Off, false),
            (Lead::Unknown, FailbackMode::Auto, true),
            (Lead::Unknown, FailbackMode::Off, true),
            (Lead::Standbys, FailbackMode::Auto, true),
        ] {
            let mut returned = Failback::new(true);
            returned.on_health(HealthState::Passing, false, now);
            assert_eq!(returned.is_held(lead, &settings(mode), now), is_held, "{lead:?} {mode:?}");
            assert_eq!(returned.is_marked(), is_held);
        }
    }

    #[test]
    fn the_second_primary_follows_the_first_at_once() {
        let now = crate::clock::now();
        let (up, held) = (Status::Up, Some(HELD_PRIORITY));
        let both_held = view(&[(up, 0, held), (up, 0, held), (up, 10, None)]);
        assert_eq!(Lead::of(&both_held, &key(), 0), Lead::Standbys);
        let mut second = Failback::new(true);
        second.on_health(HealthState::Passing, false, now);
        assert!(second.is_held(Lead::Standbys, &settings(FailbackMode::Auto), now));
        let first_back = view(&[(up, 0, None), (up, 0, held), (up, 10, None)]);
        let lead = Lead::of(&first_back, &key(), 0);
        assert!(!second.is_held(lead, &settings(FailbackMode::Auto), now));
    }

    #[test]
    fn who_serves_is_what_readers_would_choose() {
        let (up, failing) = (Status::Up, Status::Failing);
        assert_eq!(Lead::of(&View::default(), &key(), 0), Lead::Unknown);
        assert_eq!(Lead::of(&view(&[]), &key(), 0), Lead::NoStandbys);
        assert_eq!(Lead::of(&view(&[(failing, 0, None), (up, 10, None)]), &key(), 0), Lead::Standbys);
        // No standbys at all: a service of equals.
        assert_eq!(Lead::of(&view(&[(failing, 0, None), (up, 0, None)]), &key(), 0), Lead::NoStandbys);
        // Its own record is still there: nobody took over.
        assert_eq!(Lead::of(&view(&[(up, 0, None), (up, 10, None)]), &key(), 0), Lead::NoStandbys);
        // A standby that failed has not lost its tier to anybody but a better one.
        assert_eq!(Lead::of(&view(&[(up, 0, None), (failing, 10, None)]), &key(), 10), Lead::NoStandbys);
    }

    #[test]
    fn who_vanished_never_speaks_for_the_own_tier_and_for_a_standby_when_nobody_is_there() {
        use Standing::{Limbo, Registered, Silent, Suspect};
        let lead = |standings: &[(Standing, u16)]| {
            let rows: Vec<_> = standings.iter().map(|(_, priority)| (Status::Up, *priority, None)).collect();
            let mut view = view(&rows);
            let service = Arc::make_mut(view.services.get_mut(&key()).unwrap());
            for (instance, (standing, _)) in service.instances.iter_mut().zip(standings) {
                Arc::make_mut(instance).standing = *standing;
            }
            Lead::of(&view, &key(), 0)
        };
        for vanished in [Limbo, Suspect, Silent] {
            // Its own record, or that of another primary, which may have gone when nobody looked.
            assert_eq!(lead(&[(vanished, 0), (Registered, 10)]), Lead::Standbys, "{vanished:?}");
            assert_eq!(lead(&[(vanished, 0)]), Lead::NoStandbys, "{vanished:?}");
            assert_eq!(lead(&[(Registered, 0), (vanished, 10)]), Lead::NoStandbys, "{vanished:?}");
        }
        // All sessions have expired, and that of the standby is back soon.
        assert_eq!(lead(&[(Suspect, 0), (Suspect, 10)]), Lead::Standbys);
        assert_eq!(lead(&[(Limbo, 10)]), Lead::Standbys);
        assert_eq!(lead(&[(Silent, 10)]), Lead::NoStandbys, "nobody knows whether it serves");
    }

    #[test]
    fn whoever_is_held_off_has_taken_over_from_nobody() {
        let (up, held) = (Status::Up, Some(HELD_PRIORITY));
        assert_eq!(Lead::of(&view(&[(up, 0, held)]), &key(), 0), Lead::NoStandbys, "itself alone");
        assert_eq!(Lead::of(&view(&[(up, 0, held), (up, 0, held)]), &key(), 0), Lead::NoStandbys);
        assert_eq!(Lead::of(&view(&[(up, 0, held), (up, 10, held)]), &key(), 0), Lead::Standbys);
    }

    fn settings(failback: FailbackMode) -> ServiceSettings {
        ServiceSettings { failback, failback_after_s: 30, ..ServiceSettings::default() }
    }

    fn key() -> ServiceKey {
        let label = |text: &str| Label::parse(text).unwrap();
        ServiceKey { namespace: label("default"), name: label("web") }
    }

    fn view(instances: &[(Status, u16, Option<u16>)]) -> View {
        let text = br#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
        let record = Record::decode(text).unwrap();
        let instances =
            instances.iter().enumerate().map(|(index, (status, priority, effective_priority))| {
                let record = Record {
                    status: *status,
                    priority: *priority,
                    effective_priority: *effective_priority,
                    ..record.clone()
                };
                let id = Label::parse(&format!("i{index}")).unwrap();
                Arc::new(Instance::new(id, record, Zxid::ZERO, SessionId::NONE))
            });
        let service = Service { instances: instances.collect(), ..Service::new(key()) };
        let services = [Arc::new(service)].into();
        View { services, is_loaded: true, ..View::default() }
    }
}
