//! One own instance, from what its checks say to what is to be written of it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::foreign::{Foreign, ForeignConflict};
use super::hold::Hold;
use super::intent::{Intent, Told, Wish};
use super::own_news::Seen;
use super::plan::{Observed, Wanted};
use super::replace::Leaving;
use super::stats::RegistrarStats;
use super::{CheckName, Phase};
use crate::client::ClientError;
use crate::clock;
use crate::id::SessionId;
use crate::registry::check::{Check, CheckSlot, HealthBoard, HealthState, InstanceHealth, Standings};
use crate::registry::failback::{Failback, HELD_PRIORITY};
use crate::registry::hold_file::HoldFile;
use crate::registry::maintenance::MaintenanceFile;
use crate::registry::name::{Label, ServiceKey};
use crate::registry::own::{OwnInstance, RegistrationState};
use crate::registry::record::{Record, RecordError, Status};
use crate::registry::registration::Registration;

/// One of our instances: what is wanted of it, and what became of that.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) registration: Registration,
    /// Where its checks are on the board.
    pub(super) checks: Vec<CheckSlot>,
    pub(super) health: InstanceHealth,
    /// When it was first to be registered; `None` before that.
    pub(super) registered_at_ms: Option<i64>,
    /// What was found or put in the tree the last time.
    pub(super) settled: Option<Box<Record>>,
    /// What the view showed of it before the last look at the tree.
    pub(super) seen: Option<Seen>,
    pub(super) state: RegistrationState,
    pub(super) failback: Failback,
    pub(super) hold: Hold,
    /// How much of its weight it can take, in percent.
    share_percent: u8,
    /// What is known of it in other formats.
    pub(super) foreign: Foreign,
    /// What an operator wants of it.
    pub(super) told: Told,
    /// How far it is with leaving, if it is not wanted any more.
    pub(super) leaving: Option<Leaving>,
    /// Whether there is another in its place by now, which waits for it.
    pub(super) has_successor: bool,
    /// Whether the tree was brought to that.
    pub(super) is_carried_out: bool,
    /// Whether somebody has taken it out, and it has not passed since: its failures are nobody's fault.
    is_excused: bool,
    /// Whether it could not be written the last time, for a reason of its own: the others are written without it.
    pub(super) is_apart: bool,
}

/// The instances, whose checks have their places on `board`; `left` says which were away when the process before ended, and
/// `maintenance` which an operator had taken out.
pub(super) fn entries_of(
    registrations: Vec<Registration>,
    board: &HealthBoard,
    left: &HoldFile,
    maintenance: &MaintenanceFile,
) -> Vec<Entry> {
    let is_own = |name: &String| registrations.iter().any(|registration| registration.name() == *name);
    for name in maintenance.instances.keys().filter(|name| !is_own(name)) {
        info!(name, "no instance any more; its maintenance is forgotten");
    }
    let entry = |registration: Registration| {
        let name = registration.name();
        let maintenance = maintenance.instances.get(&name).cloned();
        // Whoever was in maintenance or drained when the sidecar was killed was not offered, and is no worse off for it.
        let was_out = maintenance.is_some() || left.drained.contains(&name);
        let is_suspect = (left.is_running && !was_out) || left.held.contains(&name);
        if let Some(maintenance) = &maintenance {
            let (service, id) = (&registration.service, &registration.id);
            info!(%service, %id, reason = %maintenance.reason, "still in maintenance");
        }
        let told = Told { maintenance, ..Told::default() };
        Entry { told, ..Entry::new(registration, board, Failback::new(is_suspect)) }
    };
    registrations.into_iter().map(entry).collect()
}

/// What looking at one instance came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All is as wanted; this is our record, if there is one.
    Settled(Option<Box<Record>>),
    Conflict {
        owner: String,
        session: SessionId,
    },
}

impl Outcome {
    /// Our record in the tree, if there is one.
    pub(super) fn record(&self) -> Option<&Record> {
        match self {
            Self::Settled(record) => record.as_deref(),
            Self::Conflict { .. } => None,
        }
    }
}

/// Why looking at one instance came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the znode changed between reading and writing, {} times in a row", super::ROUNDS_MAX)]
    Contended,
}

impl ReconcileError {
    /// Whether it is about what the instance was to have in the tree, and not about getting there.
    const fn is_of_the_instance(&self) -> bool {
        match self {
            Self::Client(error) => error.op_error().is_some(),
            Self::Record(_) | Self::Contended => true,
        }
    }
}

impl Entry {
    /// One that was not looked at yet, with a place on `board` for each check.
    pub(super) fn new(registration: Registration, board: &HealthBoard, failback: Failback) -> Self {
        let checks = registration.checks.iter().map(|_| board.add()).collect();
        Self {
            registration,
            checks,
            health: InstanceHealth { state: HealthState::Initial, is_degraded: false },
            registered_at_ms: None,
            settled: None,
            seen: None,
            state: RegistrationState::Absent,
            failback,
            hold: Hold::Off,
            share_percent: 100,
            foreign: Foreign::default(),
            told: Told::default(),
            leaving: None,
            has_successor: false,
            is_carried_out: true,
            is_excused: false,
            is_apart: false,
        }
    }

    /// Takes what an operator wants of it.
    pub(super) fn on_wish(&mut self, wish: Wish, now_ms: i64) {
        let (service, id) = (&self.registration.service, &self.registration.id);
        info!(%service, %id, %wish, "told by an operator");
        self.told.take(wish, now_ms);
        self.is_carried_out = false;
    }

    /// Takes where its checks stand, and how much of the weight the application can take by each: the least counts.
    pub(super) fn on_standings(&mut self, standings: &Standings, phase: Phase, now: Instant) {
        let own = |slot| standings.get(slot);
        let state = |slot| own(slot).map_or(HealthState::Initial, |standing| standing.state);
        let states: Vec<_> = self.checks.iter().map(state).collect();
        let shares = self.checks.iter().filter_map(own).map(|standing| standing.share_percent);
        self.share_percent = shares.min().unwrap_or(100);
        self.on_health(&states, self.phase(phase), now);
    }

    /// What it is to come to, when all are to come to `phase`.
    fn phase(&self, of_all: Phase) -> Phase {
        self.leaving.map_or(of_all, |leaving| of_all.max(leaving.phase()))
    }

    fn on_health(&mut self, states: &[HealthState], phase: Phase, now: Instant) {
        let checks = self.registration.checks.iter().map(|check| check.is_critical);
        let health = InstanceHealth::of(states.iter().copied().zip(checks));
        if health.is_degraded != self.health.is_degraded {
            let (service, id) = (&self.registration.service, &self.registration.id);
            let is_degraded = health.is_degraded;
            info!(%service, %id, is_degraded, "checks that are not critical changed");
        }
        self.health = health;
        let is_passing = health.state == HealthState::Passing;
        let is_staying = phase == Phase::Serving && !self.told.is_draining;
        if is_passing && is_staying && self.registered_at_ms.is_none() {
            self.registered_at_ms = Some(clock::unix_ms());
        }
        // An operator's doing is no fault. It may be over before the application is well again, so the first pass after it ends
        // that, and not the end of it.
        self.is_excused = phase > Phase::Serving || self.told.is_out() || (self.is_excused && !is_passing);
        let is_missed = self.registered_at_ms.is_some() && !self.is_excused;
        self.failback.on_health(self.health.state, is_missed, now);
    }

    fn intent(&self, phase: Phase) -> Intent {
        Intent::of(self.phase(phase), &self.told, self.health.state, self.registered_at_ms.is_some())
    }

    /// Whether there is something in the tree to change or to look at, as far as that is known.
    pub(super) fn has_something_to_write(&self, phase: Phase) -> bool {
        let is_there = !matches!(self.state, RegistrationState::Absent);
        is_there || !self.is_carried_out || matches!(self.intent(phase), Intent::Registered(_))
    }

    pub(super) fn wanted(&self, phase: Phase, owner: &str, incarnation: &str) -> Wanted {
        let registered_at_ms = self.registered_at_ms.unwrap_or_else(clock::unix_ms);
        let record = |status| Record {
            effective_priority: self.is_held().then_some(HELD_PRIORITY),
            ..self.registration.record(status, owner, incarnation, registered_at_ms)
        };
        match self.intent(phase) {
            Intent::Removed => Wanted::Removed { owner: owner.to_owned() },
            Intent::Undecided => Wanted::Undecided,
            Intent::IfRegistered(status) => Wanted::IfRegistered(record(status)),
            Intent::Registered(Status::Up) if self.hold == Hold::Open => Wanted::Undecided,
            Intent::Registered(Status::Up) => {
                let most = if self.health.is_degraded { self.registration.degraded_weight } else { u16::MAX };
                let weight = self.registration.weight_at(self.share_percent).min(most);
                Wanted::Registered(Record { weight, ..record(Status::Up) })
            }
            Intent::Registered(status) => Wanted::Registered(record(status)),
        }
    }

    /// Returns whether there is nothing left to do.
    pub(super) fn on_outcome(
        &mut self,
        outcome: Result<Outcome, ReconcileError>,
        phase: Phase,
        stats: &RegistrarStats,
    ) -> bool {
        let (service, id) = (&self.registration.service, &self.registration.id);
        self.is_apart = outcome.as_ref().is_err_and(ReconcileError::is_of_the_instance);
        match outcome {
            Ok(Outcome::Settled(record)) => {
                let status = record.as_ref().map(|record| record.status);
                let state = status.map_or(RegistrationState::Absent, RegistrationState::Registered);
                if state != self.state {
                    match status {
                        Some(status) => info!(%service, %id, %status, "registered"),
                        None => info!(%service, %id, "not registered"),
                    }
                }
                self.settled = record;
                self.state = state;
                self.is_carried_out = true;
                true
            }
            Ok(Outcome::Conflict { owner, session }) => {
                let state = RegistrationState::Conflict { owner, session };
                if state != self.state {
                    if let RegistrationState::Conflict { owner, session } = &state {
                        warn!(%service, %id, owner, %session, "somebody else has this id; give one of them another");
                    }
                    self.state = state;
                }
                self.settled = None;
                self.is_carried_out = true;
                // Who is not to be registered has nothing to wait for.
                !matches!(self.intent(phase), Intent::Registered(_))
            }
            Err(error) => {
                stats.failures.fetch_add(1, Ordering::Relaxed);
                debug!(%service, %id, %error, "cannot register yet");
                self.state = RegistrationState::Pending { reason: error.to_string() };
                false
            }
        }
    }

    /// Takes over what a look found out about other formats.
    pub(super) fn on_foreign(&mut self, foreign: Foreign) {
        let (service, id) = (&self.registration.service, &self.registration.id);
        for conflict in &foreign.conflicts {
            if !self.foreign.conflicts.contains(conflict) {
                let ForeignConflict { format, path, session } = conflict;
                warn!(%service, %id, %format, path, %session, "somebody else is there; not written in this format");
            }
        }
        self.foreign = foreign;
    }

    /// Its name, with its checks.
    pub(super) fn check_names(&self) -> ((ServiceKey, Label), Vec<CheckName>) {
        let Registration { service, id, checks, .. } = &self.registration;
        let name = |(check, slot): (&Check, &CheckSlot)| CheckName {
            slot: *slot,
            name: check.name.clone(),
            kind: check.kind(),
            is_critical: check.is_critical,
        };
        ((service.clone(), id.clone()), checks.iter().zip(&self.checks).map(name).collect())
    }

    pub(super) fn publication(&self) -> OwnInstance {
        OwnInstance {
            service: self.registration.service.clone(),
            id: self.registration.id.clone(),
            health: self.health.state,
            is_degraded: self.health.is_degraded,
            registration: self.state.clone(),
            is_held: self.is_held(),
            is_draining: self.told.is_draining || self.leaving.is_some(),
            maintenance: self.told.maintenance.clone(),
            is_carried_out: self.is_carried_out,
        }
    }
}

/// Our record, when a plan found nothing to do.
pub(super) fn settled(wanted: &Wanted, observed: &Observed, session: SessionId) -> Option<Box<Record>> {
    match (wanted, observed) {
        (Wanted::IfRegistered(_) | Wanted::Registered(_), Observed::Found { data, stat })
            if stat.ephemeral_owner == session =>
        {
            Record::decode(data.as_deref().unwrap_or_default()).ok().map(Box::new)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::client::Operation;
    use crate::registry::maintenance::{Maintenance, Reason};
    use crate::registry::service::{OwnService, ServiceDefaults, resolve_services};
    use crate::znode::{OpCode, OpError};

    #[test]
    fn failures_while_somebody_wants_it_out_are_no_fault() {
        for (begin, end) in
            [(Wish::Maintain(Reason::default()), Wish::EndMaintenance), (Wish::Drain, Wish::EndDrain)]
        {
            let mut web = entry(&HoldFile::default(), &MaintenanceFile::default());
            on_health(&mut web, HealthState::Passing);
            web.on_wish(begin.clone(), 1);
            on_health(&mut web, HealthState::Failing);
            on_health(&mut web, HealthState::Passing);
            on_health(&mut web, HealthState::Failing);
            // The application starts more slowly than the operator types.
            web.on_wish(end, 2);
            on_health(&mut web, HealthState::Failing);
            on_health(&mut web, HealthState::Passing);
            assert!(!web.failback.is_marked(), "{begin:?}");
            on_health(&mut web, HealthState::Failing);
            assert!(web.failback.is_marked(), "{begin:?}: it was offered again, and failed");
        }
    }

    #[test]
    fn what_had_failed_before_maintenance_is_a_fault_after_it() {
        let mut web = entry(&HoldFile::default(), &MaintenanceFile::default());
        for health in [HealthState::Passing, HealthState::Failing] {
            on_health(&mut web, health);
        }
        web.on_wish(Wish::Maintain(Reason::default()), 1);
        on_health(&mut web, HealthState::Passing);
        web.on_wish(Wish::EndMaintenance, 2);
        on_health(&mut web, HealthState::Passing);
        assert!(web.failback.is_marked());
    }

    #[test]
    fn a_sidecar_killed_during_maintenance_comes_back_in_it_and_is_not_held_off() {
        let (name, maintenance) =
            ("web.default/web-1".to_owned(), Maintenance { reason: Reason::default(), since_ms: 7 });
        let file = MaintenanceFile { instances: [(name, maintenance.clone())].into() };
        let killed = HoldFile { is_running: true, ..HoldFile::default() };
        let mut web = entry(&killed, &file);
        let Wanted::IfRegistered(record) = web.wanted(Phase::Serving, "me", "1") else { panic!("{web:?}") };
        assert_eq!(record.status, Status::Maintenance);
        on_health(&mut web, HealthState::Failing);
        on_health(&mut web, HealthState::Passing);
        assert_eq!(web.publication().maintenance, Some(maintenance));
        web.on_wish(Wish::EndMaintenance, 8);
        on_health(&mut web, HealthState::Passing);
        assert!(!web.failback.is_marked());
        assert!(entry(&killed, &MaintenanceFile::default()).failback.is_marked());
    }

    #[test]
    fn an_instance_that_never_rose_is_neither_registered_to_leave_nor_for_maintenance() {
        for wish in [Wish::Drain, Wish::Maintain(Reason::default())] {
            let mut web = entry(&HoldFile::default(), &MaintenanceFile::default());
            web.on_wish(wish.clone(), 1);
            for health in [HealthState::Initial, HealthState::Failing] {
                on_health(&mut web, health);
                let wanted = web.wanted(Phase::Serving, "me", "1");
                assert!(matches!(wanted, Wanted::IfRegistered(_)), "{wish:?} {health:?}: {wanted:?}");
            }
        }
    }

    #[test]
    fn an_order_is_carried_out_once_the_tree_was_looked_at() {
        let (mut web, stats) =
            (entry(&HoldFile::default(), &MaintenanceFile::default()), RegistrarStats::default());
        on_health(&mut web, HealthState::Passing);
        web.on_wish(Wish::Drain, 1);
        assert!(!web.publication().is_written());
        web.on_outcome(Err(ReconcileError::Contended), Phase::Serving, &stats);
        assert!(!web.publication().is_written());
        web.on_outcome(Ok(Outcome::Settled(None)), Phase::Serving, &stats);
        assert!(web.publication().is_written());
    }

    #[test]
    fn an_id_that_somebody_else_has_is_waited_for_by_who_is_to_be_registered() {
        let (mut web, stats) =
            (entry(&HoldFile::default(), &MaintenanceFile::default()), RegistrarStats::default());
        on_health(&mut web, HealthState::Passing);
        let conflict = || Ok(Outcome::Conflict { owner: "you".to_owned(), session: SessionId(9) });
        assert!(!web.on_outcome(conflict(), Phase::Serving, &stats));
        assert!(web.on_outcome(conflict(), Phase::Draining, &stats));
        web.on_wish(Wish::Drain, 1);
        assert!(web.on_outcome(conflict(), Phase::Serving, &stats));
        assert!(matches!(web.publication().registration, RegistrationState::Conflict { .. }), "{web:?}");
    }

    #[test]
    fn who_could_not_be_written_is_apart_until_it_was_and_who_was_cut_off_is_not() {
        let (mut web, stats) =
            (entry(&HoldFile::default(), &MaintenanceFile::default()), RegistrarStats::default());
        let mut is_apart_after = |outcome| {
            web.on_outcome(outcome, Phase::Serving, &stats);
            web.is_apart
        };
        let refused = ClientError::Op {
            operation: Operation { op: OpCode::Create, path: "/r".to_owned() },
            error: OpError::NoAuth,
        };
        assert!(is_apart_after(Err(ReconcileError::Contended)));
        assert!(!is_apart_after(Ok(Outcome::Settled(None))));
        assert!(is_apart_after(Err(refused.into())));
        assert!(!is_apart_after(Err(ClientError::Closed.into())));
    }

    pub(in crate::registry::registrar) fn entry(left: &HoldFile, maintenance: &MaintenanceFile) -> Entry {
        let service = OwnService {
            name: "web".to_owned(),
            id: Some("web-1".to_owned()),
            port: Some(80),
            ..OwnService::default()
        };
        let address = Some("127.0.0.1".parse().unwrap());
        let defaults = ServiceDefaults { address, ..ServiceDefaults::default() };
        let registrations = resolve_services(&[service], "services", &defaults).unwrap();
        entries_of(registrations, &HealthBoard::default(), left, maintenance).remove(0)
    }

    pub(in crate::registry::registrar) fn on_health(entry: &mut Entry, health: HealthState) {
        entry.on_health(&[health], Phase::Serving, clock::now());
    }
}
