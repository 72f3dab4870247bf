//! Takes other registrations while it runs: what settings that changed ask for.
//!
//! - An instance is known by its service and id. One that stays keeps all that is known of it: its checks' results, since when it
//!   is registered, whether it is held off, what an operator told it.
//! - One that is not wanted any more leaves as at the end of the process: its record says `draining` for
//!   [`DRAINING_MIN`], then it is deleted. If it is wanted again before that it stays.
//! - What it is not written in any more goes from there with the same write that brings the rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::info;

use super::entry::Entry;
use super::{DRAINING_MIN, Phase, RegistrarTask};
use crate::registry::failback::Failback;
use crate::registry::registration::Registration;

/// How far an instance is that is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Its record is to say so.
    Told,
    /// It says so, and may go then.
    Drained { until: Instant },
    /// Its record is to go.
    Over,
}

impl Leaving {
    /// What the instance is to come to.
    pub(super) const fn phase(self) -> Phase {
        match self {
            Self::Told | Self::Drained { .. } => Phase::Draining,
            Self::Over => Phase::Removed,
        }
    }
}

impl RegistrarTask {
    /// Wants these from now on.
    pub(super) fn replace(&mut self, registrations: Vec<Registration>) {
        let mut before: BTreeMap<_, _> =
            self.entries.drain(..).map(|entry| (entry.registration.name(), entry)).collect();
        for registration in registrations {
            let entry = match before.remove(&registration.name()) {
                Some(mut entry) => {
                    if entry.registration != registration {
                        let (service, id) = (&registration.service, &registration.id);
                        info!(%service, %id, "other settings");
                        self.checks.change(&entry.registration, &registration, &mut entry.checks);
                        entry.take_settings(registration);
                    }
                    entry.stay();
                    entry
                }
                None => {
                    info!(service = %registration.service, id = %registration.id, "one more instance");
                    // Taken out of the settings and put back it is as far as it was.
                    let is_suspect = self.away.remove(&registration.name());
                    let entry = Entry::new(registration, self.checks.board(), Failback::new(is_suspect));
                    self.checks.start(&entry.registration, &entry.checks);
                    entry
                }
            };
            self.entries.push(entry);
        }
        for mut entry in before.into_values() {
            entry.leave();
            self.entries.push(entry);
        }
        self.publish();
    }

    /// Takes those that leave one step further, where it is time.
    pub(super) fn take_leave(&mut self, now: Instant) {
        let (checks, away) = (&mut self.checks, &mut self.away);
        self.entries.retain_mut(|entry| {
            let has_left = entry.take_leave(now);
            if has_left {
                info!(service = %entry.registration.service, id = %entry.registration.id, "left");
                entry.checks.drain(..).for_each(|slot| checks.forget(slot));
                if entry.failback.is_marked() && away.len() < AWAY_MAX {
                    away.insert(entry.registration.name());
                }
            }
            !has_left
        });
    }

    /// In what time somebody who leaves can be taken further, if anybody is only waiting for that.
    pub(super) fn leaves_in(&self, now: Instant) -> Option<Duration> {
        let leaves_in = |entry: &Entry| match entry.leaving? {
            Leaving::Drained { until } => Some(until.saturating_duration_since(now)),
            Leaving::Told | Leaving::Over => entry.is_carried_out.then_some(Duration::ZERO),
        };
        self.entries.iter().filter_map(leaves_in).min()
    }
}

/// Instances that are not in the settings any more, and were held off, of which that is kept.
const AWAY_MAX: usize = 1_000;

impl Entry {
    /// Wants it to leave.
    fn leave(&mut self) {
        if self.leaving.is_none() {
            info!(service = %self.registration.service, id = %self.registration.id, "not in the settings any more, leaves");
            self.leaving = Some(Leaving::Told);
            self.is_carried_out = false;
        }
    }

    /// Wants it to stay.
    fn stay(&mut self) {
        if self.leaving.take().is_some() {
            info!(service = %self.registration.service, id = %self.registration.id, "in the settings again, stays");
            self.is_carried_out = false;
        }
    }

    /// Takes its other settings.
    fn take_settings(&mut self, registration: Registration) {
        let before = std::mem::replace(&mut self.registration, registration);
        let Registration { id, formats, .. } = &self.registration;
        self.foreign.change_formats(id, &before.formats, formats);
        self.is_carried_out = false;
    }

    /// One step further, if it is time; returns whether it has left.
    fn take_leave(&mut self, now: Instant) -> bool {
        match self.leaving {
            Some(Leaving::Told) if self.is_carried_out && self.settled.is_some() => {
                self.leaving = Some(Leaving::Drained { until: now + DRAINING_MIN });
            }
            Some(Leaving::Drained { until }) if now < until => {}
            Some(Leaving::Told) if !self.is_carried_out => {}
            Some(Leaving::Told | Leaving::Drained { .. }) => {
                self.leaving = Some(Leaving::Over);
                self.is_carried_out = false;
            }
            Some(Leaving::Over) => return self.is_carried_out,
            None => {}
        }
        false
    }
}
