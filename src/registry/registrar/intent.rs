//! What is wanted of an own instance: its checks have a say, an operator the next, the end of the process the last. Pure.
//!
//! | | status |
//! | --- | --- |
//! | the process ends | `draining`, then none |
//! | an operator has it leave | `draining` |
//! | an operator has it in maintenance | `maintenance` |
//! | its critical checks fail | `failing` |
//! | they pass | `up` |
//!
//! The first line that is so decides. Whether there is to be a record at all is the checks' business alone, and of who
//! leaves: an instance that never rose is registered by nobody.

use std::fmt;

use super::Phase;
use crate::registry::check::HealthState;
use crate::registry::maintenance::{Maintenance, Reason};
use crate::registry::record::Status;

/// What is wanted of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Whatever is there stays.
    Undecided,
    /// A record with this status, if there is one of ours already.
    IfRegistered(Status),
    /// A record with this status.
    Registered(Status),
    /// No record.
    Removed,
}

/// What an operator has told an instance; one does not undo the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) is_draining: bool,
    pub(super) maintenance: Option<Maintenance>,
}

/// One thing that an operator tells instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Drain,
    EndDrain,
    Maintain(Reason),
    EndMaintenance,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain => f.write_str("drain"),
            Self::EndDrain => f.write_str("end the drain"),
            Self::Maintain(reason) if reason.as_str().is_empty() => f.write_str("maintenance"),
            Self::Maintain(reason) => write!(f, "maintenance: {reason}"),
            Self::EndMaintenance => f.write_str("end the maintenance"),
        }
    }
}

impl Told {
    /// Takes what an operator says at this time.
    pub(super) fn take(&mut self, wish: Wish, now_ms: i64) {
        match wish {
            Wish::Drain => self.is_draining = true,
            Wish::EndDrain => self.is_draining = false,
            Wish::Maintain(reason) => {
                let begun = Maintenance { reason: Reason::default(), since_ms: now_ms };
                let maintenance = self.maintenance.get_or_insert(begun);
                // Whoever gives none does not take back what was given.
                if !reason.as_str().is_empty() {
                    maintenance.reason = reason;
                }
            }
            Wish::EndMaintenance => self.maintenance = None,
        }
    }

    /// Whether it is out because somebody wants that.
    pub(super) const fn is_out(&self) -> bool {
        self.is_draining || self.maintenance.is_some()
    }
}

impl Intent {
    /// What is wanted of an instance whose critical checks say `health`; `was_registered` once they had risen.
    pub(super) fn of(phase: Phase, told: &Told, health: HealthState, was_registered: bool) -> Self {
        match phase {
            Phase::Removed => return Self::Removed,
            Phase::Draining => return Self::IfRegistered(Status::Draining),
            Phase::Serving if told.is_draining => return Self::IfRegistered(Status::Draining),
            Phase::Serving => {}
        }
        match (health, &told.maintenance) {
            (HealthState::Initial, None) => Self::Undecided,
            (HealthState::Initial, Some(_)) => Self::IfRegistered(Status::Maintenance),
            (HealthState::Passing, None) => Self::Registered(Status::Up),
            (HealthState::Failing, None) if was_registered => Self::Registered(Status::Failing),
            (HealthState::Failing, None) => Self::IfRegistered(Status::Failing),
            (HealthState::Failing, Some(_)) if !was_registered => Self::IfRegistered(Status::Maintenance),
            (HealthState::Passing | HealthState::Failing, Some(_)) => Self::Registered(Status::Maintenance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_goes_before_draining_before_maintenance_before_the_checks() {
        use HealthState::{Failing, Initial, Passing};
        use Intent::{IfRegistered, Registered, Removed, Undecided};
        const SERVE: (bool, bool) = (false, false);
        const MAINTAIN: (bool, bool) = (false, true);
        const DRAIN: (bool, bool) = (true, false);
        const BOTH: (bool, bool) = (true, true);
        let table = [
            (Phase::Serving, SERVE, Initial, false, Undecided),
            (Phase::Serving, SERVE, Passing, true, Registered(Status::Up)),
            (Phase::Serving, SERVE, Failing, true, Registered(Status::Failing)),
            (Phase::Serving, SERVE, Failing, false, IfRegistered(Status::Failing)),
            (Phase::Serving, MAINTAIN, Initial, false, IfRegistered(Status::Maintenance)),
            (Phase::Serving, MAINTAIN, Passing, true, Registered(Status::Maintenance)),
            (Phase::Serving, MAINTAIN, Failing, true, Registered(Status::Maintenance)),
            (Phase::Serving, MAINTAIN, Failing, false, IfRegistered(Status::Maintenance)),
        ];
        for (phase, told, health, was_registered, intent) in table {
            assert_eq!(
                Intent::of(phase, &sample(told), health, was_registered),
                intent,
                "{told:?} {health:?} {was_registered}"
            );
        }
        for health in [Initial, Passing, Failing] {
            for was_registered in [true, false] {
                let of = |phase, told| Intent::of(phase, &sample(told), health, was_registered);
                for told in [DRAIN, BOTH] {
                    assert_eq!(
                        of(Phase::Serving, told),
                        IfRegistered(Status::Draining),
                        "{told:?} {health:?}"
                    );
                }
                for told in [SERVE, MAINTAIN, DRAIN, BOTH] {
                    assert_eq!(
                        of(Phase::Draining, told),
                        IfRegistered(Status::Draining),
                        "{told:?} {health:?}"
                    );
                    assert_eq!(of(Phase::Removed, told), Removed, "{told:?} {health:?}");
                }
            }
        }
    }

    #[test]
    fn maintenance_outlasts_a_drain_and_keeps_its_beginning_and_its_reason() {
        let mut told = Told::default();
        told.take(Wish::Maintain(Reason::parse("disk").unwrap()), 5);
        told.take(Wish::Drain, 6);
        told.take(Wish::Maintain(Reason::parse("disk and fan").unwrap()), 7);
        told.take(Wish::EndDrain, 8);
        told.take(Wish::Maintain(Reason::default()), 9);
        let maintenance = told.maintenance.as_ref().unwrap();
        assert_eq!((maintenance.reason.as_str(), maintenance.since_ms), ("disk and fan", 5));
        assert!(told.is_out() && !told.is_draining);
        told.take(Wish::EndMaintenance, 10);
        assert_eq!(told, Told::default());
        told.take(Wish::Maintain(Reason::default()), 1);
        assert_eq!(told, sample((false, true)), "a new one has nothing of the one before");
    }

    fn sample((is_draining, is_in_maintenance): (bool, bool)) -> Told {
        let maintenance = Maintenance { reason: Reason::default(), since_ms: 1 };
        Told { is_draining, maintenance: is_in_maintenance.then_some(maintenance) }
    }
}
