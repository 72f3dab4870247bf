//! One own instance, from what its checks say to what is to be written of it.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::Phase;
use super::foreign::{Foreign, ForeignConflict};
use super::plan::{Observed, Wanted};
use super::state::{OwnInstance, RegistrarStats, RegistrationState};
use crate::client::ClientError;
use crate::clock;
use crate::id::SessionId;
use crate::registry::check::{HealthState, InstanceHealth};
use crate::registry::failback::{Failback, HELD_PRIORITY, Lead};
use crate::registry::hold_file::HoldFile;
use crate::registry::record::{Record, RecordError, Status};
use crate::registry::service::Registration;
use crate::registry::view::{ServiceSettings, View};

/// One of our instances: what is wanted of it, and what became of that.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) registration: Registration,
    /// Where its checks are on the board.
    pub(super) checks: Range<usize>,
    pub(super) health: InstanceHealth,
    /// When it was first to be registered; `None` before that.
    pub(super) registered_at_ms: Option<i64>,
    /// What was found or put in the tree the last time.
    pub(super) settled: Option<Box<Record>>,
    pub(super) state: RegistrationState,
    pub(super) failback: Failback,
    pub(super) is_held: bool,
    /// What is known of it in other formats.
    pub(super) foreign: Foreign,
}

/// The instances, with their checks one after the other; `left` says which were away when the process before ended.
pub(super) fn entries_of(registrations: Vec<Registration>, left: &HoldFile) -> Vec<Entry> {
    let mut checks = 0;
    let entry = |registration: Registration| {
        let first = checks;
        checks += registration.checks.len();
        let is_suspect = left.is_running || left.held.contains(&registration.name());
        Entry::new(registration, first..checks, Failback::new(is_suspect))
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

impl Entry {
    fn new(registration: Registration, checks: Range<usize>, failback: Failback) -> Self {
        Self {
            registration,
            checks,
            health: InstanceHealth { state: HealthState::Initial, is_degraded: false },
            registered_at_ms: None,
            settled: None,
            state: RegistrationState::Absent,
            failback,
            is_held: false,
            foreign: Foreign::default(),
        }
    }

    pub(super) fn on_health(&mut self, states: &[HealthState], phase: Phase, now: Instant) {
        let states = states[self.checks.clone()].iter().copied();
        let checks = self.registration.checks.iter().map(|check| check.is_critical);
        let health = InstanceHealth::of(states.zip(checks));
        if health.is_degraded != self.health.is_degraded {
            let (service, id) = (&self.registration.service, &self.registration.id);
            let is_degraded = health.is_degraded;
            info!(%service, %id, is_degraded, "checks that are not critical changed");
        }
        self.health = health;
        let is_passing = health.state == HealthState::Passing;
        if is_passing && phase == Phase::Serving && self.registered_at_ms.is_none() {
            self.registered_at_ms = Some(clock::unix_ms());
        }
        self.failback.on_health(self.health.state, self.registered_at_ms.is_some(), now);
    }

    /// Decides whether it is held off; returns when to look again.
    pub(super) fn hold_off(&mut self, view: &View, now: Instant) -> Option<Duration> {
        let Registration { service, id, priority, .. } = &self.registration;
        let lead = Lead::of(view, service, *priority);
        let unknown = ServiceSettings::default();
        let settings = view.services.get(service).map_or(&unknown, |service| &service.settings);
        let is_held = self.failback.is_held(lead, settings, now);
        if is_held && !self.is_held {
            let after_s = settings.failback_after_s;
            info!(%service, %id, mode = ?settings.failback, after_s, "held off below the standbys that serve");
        }
        if !is_held && self.is_held {
            info!(%service, %id, "takes its tier again");
        }
        self.is_held = is_held;
        self.failback.remaining(settings, now)
    }

    pub(super) fn wanted(&self, phase: Phase, owner: &str, incarnation: &str) -> Wanted {
        let registered_at_ms = self.registered_at_ms.unwrap_or_else(clock::unix_ms);
        let record = |status| Record {
            effective_priority: self.is_held.then_some(HELD_PRIORITY),
            ..self.registration.record(status, owner, incarnation, registered_at_ms)
        };
        match (phase, self.health.state) {
            (Phase::Removed, _) => Wanted::Removed { owner: owner.to_owned() },
            (Phase::Draining, _) => Wanted::IfRegistered(record(Status::Draining)),
            (Phase::Serving, HealthState::Initial) => Wanted::Undecided,
            (Phase::Serving, HealthState::Passing) => {
                let mut record = record(Status::Up);
                if self.health.is_degraded {
                    record.weight = self.registration.degraded_weight;
                }
                Wanted::Registered(record)
            }
            (Phase::Serving, HealthState::Failing) if self.registered_at_ms.is_some() => {
                Wanted::Registered(record(Status::Failing))
            }
            (Phase::Serving, HealthState::Failing) => Wanted::IfRegistered(record(Status::Failing)),
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
                // When leaving there is nothing of ours to take out.
                phase != Phase::Serving
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

    pub(super) fn publication(&self) -> OwnInstance {
        OwnInstance {
            service: self.registration.service.clone(),
            id: self.registration.id.clone(),
            health: self.health.state,
            is_degraded: self.health.is_degraded,
            registration: self.state.clone(),
            is_held: self.is_held,
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
