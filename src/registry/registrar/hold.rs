//! Who of our instances is held off below the standbys, by [`Failback`](crate::registry::Failback) and by who serves.
//!
//! After a start only the saved view may be known, in which the instance itself serves as before its sidecar was killed. Whoever was
//! away is therefore not written before the view is current: written in its own tier it would take it from a standby that has
//! taken over, and in the last one an earlier record of its own, which still stands, would be demoted. That is waited for as long as
//! [`LEAD_PATIENCE`], since who is not written is not there at all.

use std::time::{Duration, Instant};

use tracing::info;

use super::RegistrarTask;
use super::entry::Entry;
use crate::id::SessionId;
use crate::registry::cache::Cache;
use crate::registry::failback::Lead;
use crate::registry::name::ServiceKey;
use crate::registry::registration::Registration;
use crate::registry::view::ServiceSettings;

/// How long a connection may be there without its being known who serves, before instances that were away are registered in the last
/// tier: a walk of a large registry takes a second or two.
const LEAD_PATIENCE: Duration = Duration::from_secs(5);

/// Whether an instance may take its tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It may, or it is not known to pass.
    Off,
    /// Not known yet, and nothing is written of it before.
    Open,
    /// Not while it was away.
    On,
}

/// What was decided by, of which a change is waited for.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    service: ServiceKey,
    priority: u16,
    by: Grounds,
}

/// Who serves an instance's service, and what its settings say, if it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grounds {
    lead: Lead,
    settings: Option<ServiceSettings>,
}

impl RegistrarTask {
    /// Takes note of when the connection began on which nobody may know yet who serves.
    pub(super) fn on_session(&mut self, session: Option<(SessionId, u64)>, now: Instant) {
        self.connected_at = session.and(self.connected_at.or(Some(now)));
    }

    /// Decides who is held off; returns when to look again, and what that was decided by.
    pub(super) fn hold_off(&mut self, now: Instant) -> (Option<Duration>, Vec<Decided>) {
        // Without a connection nothing is written anyway.
        let connected_for = self.connected_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let patience = LEAD_PATIENCE.saturating_sub(connected_for);
        let (unknown, mut decided) = (ServiceSettings::default(), Vec::new());
        let decide = |entry: &mut Entry| {
            let Registration { service, priority, .. } = &entry.registration;
            let by = grounds(&self.cache, service, *priority);
            let remaining = entry.hold_off(by.lead, by.settings.as_ref().unwrap_or(&unknown), patience, now);
            if entry.hold != Hold::Off {
                let Registration { service, priority, .. } = &entry.registration;
                decided.push(Decided { service: service.clone(), priority: *priority, by });
            }
            remaining
        };
        let remaining = self.entries.iter_mut().filter_map(decide).min();
        (remaining, decided)
    }
}

impl Entry {
    /// Decides whether it is held off, when `lead` serves; returns when to look again. That nobody knows is put up with for as long as
    /// `patience`, if this process has written nothing of it yet.
    fn hold_off(
        &mut self,
        lead: Lead,
        settings: &ServiceSettings,
        patience: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let Registration { service, id, .. } = &self.registration;
        let was_held = self.is_held();
        let can_wait = self.settled.is_none() && !patience.is_zero();
        self.hold = match (self.failback.is_held(lead, settings, now), lead) {
            (false, _) => Hold::Off,
            (true, Lead::Unknown) if can_wait => Hold::Open,
            (true, _) => Hold::On,
        };
        if self.is_held() && !was_held {
            let after_s = settings.failback_after_s;
            info!(%service, %id, mode = ?settings.failback, after_s, "held off below the standbys that serve");
        }
        if !self.is_held() && was_held {
            info!(%service, %id, "takes its tier again");
        }
        let remaining = self.failback.remaining(settings, now).filter(|_| lead != Lead::Unknown);
        let patience = (self.hold == Hold::Open).then_some(patience);
        [remaining, patience].into_iter().flatten().min()
    }

    /// Whether it is held off.
    pub(super) const fn is_held(&self) -> bool {
        matches!(self.hold, Hold::On)
    }
}

/// Waits until one of these is to be decided by something else; for ever, if there are none.
pub(super) async fn grounds_change(cache: &Cache, decided: &[Decided]) {
    let mut news = cache.follow(decided.iter().map(|decided| decided.service.clone()).collect());
    let is_changed = |decided: &Decided| grounds(cache, &decided.service, decided.priority) != decided.by;
    while !decided.iter().any(is_changed) {
        if decided.is_empty() {
            std::future::pending::<()>().await;
        }
        news.stirred().await;
    }
}

/// Who serves, and what the settings say, as far as that is known now.
fn grounds(cache: &Cache, service: &ServiceKey, priority: u16) -> Grounds {
    // Asked first, so that the view is the one that was current then, or a later one.
    let is_stale = cache.is_stale();
    let view = cache.load();
    let lead = if is_stale { Lead::Unknown } else { Lead::of(&view, service, priority) };
    Grounds { lead, settings: view.services.get(service).map(|service| service.settings.clone()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::id::Zxid;
    use crate::registry::check::HealthState;
    use crate::registry::hold_file::HoldFile;
    use crate::registry::maintenance::MaintenanceFile;
    use crate::registry::registrar::entry::Outcome;
    use crate::registry::registrar::entry::tests::{entry, on_health};
    use crate::registry::registrar::plan::Wanted;
    use crate::registry::registrar::{Phase, RegistrarStats};
    use crate::registry::view::{FailbackMode, Instance, Service, View};
    use crate::registry::{HELD_PRIORITY, Status};

    const PATIENCE: Duration = Duration::from_secs(1);

    #[test]
    fn who_was_killed_is_not_written_before_it_is_known_who_serves_and_not_for_ever() {
        let mut web = killed();
        assert_eq!(web.hold_off(Lead::Unknown, &manual(), PATIENCE, clock::now()), Some(PATIENCE));
        assert_eq!(web.wanted(Phase::Serving, "me", "1"), Wanted::Undecided);
        assert!(!web.publication().is_held && web.failback.is_marked());
        for (lead, patience, effective_priority, is_marked) in [
            (Lead::NoStandbys, PATIENCE, None, false),
            (Lead::Standbys, PATIENCE, Some(HELD_PRIORITY), true),
            (Lead::Unknown, Duration::ZERO, Some(HELD_PRIORITY), true),
        ] {
            let mut web = killed();
            web.hold_off(Lead::Unknown, &manual(), PATIENCE, clock::now());
            assert_eq!(web.hold_off(lead, &manual(), patience, clock::now()), None);
            let Wanted::Registered(record) = web.wanted(Phase::Serving, "me", "1") else { panic!("{web:?}") };
            assert_eq!(record.effective_priority, effective_priority, "{lead:?}");
            assert_eq!(web.failback.is_marked(), is_marked, "{lead:?}");
        }
    }

    #[test]
    fn what_is_no_fail_back_is_written_at_once() {
        // Its checks fail, or somebody wants it out: an earlier record of its own must not say that it is up.
        let mut failing = killed();
        failing.hold_off(Lead::Unknown, &manual(), PATIENCE, clock::now());
        on_health(&mut failing, HealthState::Failing);
        failing.hold_off(Lead::Unknown, &manual(), PATIENCE, clock::now());
        let Wanted::Registered(record) = failing.wanted(Phase::Serving, "me", "1") else {
            panic!("{failing:?}")
        };
        assert_eq!(record.status, Status::Failing);
        let mut leaving = killed();
        leaving.hold_off(Lead::Unknown, &manual(), PATIENCE, clock::now());
        assert!(matches!(leaving.wanted(Phase::Draining, "me", "1"), Wanted::IfRegistered(_)), "{leaving:?}");
        // It was held off when the connection was lost, and is written again.
        let mut held = killed();
        held.hold_off(Lead::Standbys, &manual(), PATIENCE, clock::now());
        let Wanted::Registered(record) = held.wanted(Phase::Serving, "me", "1") else { panic!("{held:?}") };
        let settled = Ok(Outcome::Settled(Some(Box::new(record))));
        held.on_outcome(settled, Phase::Serving, &RegistrarStats::default());
        held.hold_off(Lead::Unknown, &manual(), PATIENCE, clock::now());
        assert!(matches!(held.wanted(Phase::Serving, "me", "1"), Wanted::Registered(_)), "{held:?}");
        assert!(held.is_held());
    }

    #[test]
    fn a_saved_view_tells_nobody_who_serves() {
        let web = killed();
        let Registration { service, id, .. } = &web.registration;
        let record = web.registration.record(Status::Up, "me", "0", 1);
        let own = Instance::new(id.clone(), record, Zxid::ZERO, SessionId::NONE);
        let saved = view_of(service, vec![Arc::new(own)]);
        let cache = Cache::with_saved(saved, Duration::from_secs(60), clock::now());
        assert_eq!(grounds(&cache, service, 0).lead, Lead::Unknown);
        cache.set_synced(true);
        assert_eq!(grounds(&cache, service, 0).lead, Lead::NoStandbys);
    }

    #[tokio::test]
    async fn whoever_is_not_written_is_looked_at_again_when_the_view_is_current() {
        let web = killed();
        let service = web.registration.service.clone();
        let cache = Arc::new(Cache::with_saved(view_of(&service, Vec::new()), PATIENCE, clock::now()));
        let waiting = tokio::spawn({
            let cache = cache.clone();
            let decided = Decided { by: grounds(&cache, &service, 0), service, priority: 0 };
            async move { grounds_change(&cache, &[decided]).await }
        });
        cache.publish(View::clone(&cache.load()));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        cache.set_synced(true);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it is looked at again").unwrap();
    }

    #[tokio::test]
    async fn other_settings_of_the_service_are_obeyed_at_once() {
        let web = killed();
        let service = web.registration.service.clone();
        let cache = Arc::new(Cache::new(clock::now()));
        cache.publish(view_of(&service, Vec::new()));
        cache.set_synced(true);
        let decided = Decided { by: grounds(&cache, &service, 0), service: service.clone(), priority: 0 };
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move { grounds_change(&cache, &[decided]).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let mut view = view_of(&service, Vec::new());
        Arc::make_mut(view.services.get_mut(&service).unwrap()).settings = manual();
        cache.publish(view);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it is looked at again").unwrap();
    }

    #[test]
    fn who_is_held_while_nobody_knows_who_serves_has_no_time_to_wait_for() {
        let (mut web, now) = (killed(), clock::now());
        let auto = ServiceSettings::default();
        assert!(web.hold_off(Lead::Standbys, &auto, Duration::ZERO, now).is_some());
        let later = now + auto.failback_after() * 2;
        assert_eq!(web.hold_off(Lead::Unknown, &auto, Duration::ZERO, later), None);
        assert!(web.is_held());
    }

    /// One whose sidecar was killed, and that passes again.
    fn killed() -> Entry {
        let left = HoldFile { is_running: true, ..HoldFile::default() };
        let mut web = entry(&left, &MaintenanceFile::default());
        on_health(&mut web, HealthState::Passing);
        web
    }

    fn manual() -> ServiceSettings {
        ServiceSettings { failback: FailbackMode::Manual, ..ServiceSettings::default() }
    }

    fn view_of(key: &ServiceKey, instances: Vec<Arc<Instance>>) -> View {
        let service = Service { instances: instances.into(), ..Service::new(key.clone()) };
        let services = [Arc::new(service)].into();
        View { services, is_loaded: true, ..View::default() }
    }
}
