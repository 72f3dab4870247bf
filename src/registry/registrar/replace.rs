//! Takes other registrations while it runs: what settings that changed ask for.
//!
//! - An instance is known by its service and id. One that stays keeps all that is known of it: its checks' results, since when it
//!   is registered, whether it is held off, what an operator told it.
//! - One that is not wanted any more leaves as at the end of the process: its record says `draining` for
//!   [`DRAINING_MIN`], then it is deleted. If it is wanted again before that it stays.
//! - One that is new where another of its service and tier leaves that is held off is taken for the same by another id, and is held
//!   off in its place: whoever was away is not to take its tier again because somebody has edited its id, or the port that it is made of.
//! - What it is not written in any more goes from there with the same write that brings the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::entry::Entry;
use super::{DRAINING_MIN, Phase, RegistrarTask};
use crate::registry::failback::Failback;
use crate::registry::name::{Label, ServiceKey};
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
        let mut renamed = Renamed::of(&self.entries, &registrations);
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
                    let is_away = self.away.contains(&registration.name());
                    let former = if is_away { None } else { renamed.take(&registration) };
                    if let Some(former) = former.and_then(|former| before.get_mut(&former)) {
                        former.has_successor = true;
                        self.add(registration, Some(&former.registration.id))
                    } else {
                        self.add(registration, None)
                    }
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

    /// One that is new, or known by `former` so far, which is held off.
    fn add(&mut self, registration: Registration, former: Option<&Label>) -> Entry {
        let (service, id) = (&registration.service, &registration.id);
        // Taken out of the settings and put back it is as far as it was.
        let was_away = self.away.remove(&registration.name());
        match former {
            Some(former) => {
                info!(%service, %id, %former, "has another id in the settings, and is held off by this one, too")
            }
            None => info!(%service, %id, "one more instance"),
        }
        if !was_away && former.is_none() {
            tell_of_those_away(&self.away, &registration);
        }
        let failback = Failback::new(was_away || former.is_some());
        let entry = Entry::new(registration, self.checks.board(), failback);
        self.checks.start(&entry.registration, &entry.checks);
        entry
    }

    /// Takes those that leave one step further, where it is time.
    pub(super) fn take_leave(&mut self, now: Instant) {
        let (checks, away) = (&mut self.checks, &mut self.away);
        self.entries.retain_mut(|entry| {
            let has_left = entry.take_leave(now);
            if has_left {
                info!(service = %entry.registration.service, id = %entry.registration.id, "left");
                entry.checks.drain(..).for_each(|slot| checks.forget(slot));
                if entry.failback.is_marked() && !entry.has_successor && away.len() < AWAY_MAX {
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

/// Says that one that is new may be one that was held off and went, which cannot be known: it has another id.
pub(super) fn tell_of_those_away(away: &BTreeSet<String>, registration: &Registration) {
    let Registration { service, id, .. } = registration;
    let start = format!("{service}/");
    let held: Vec<_> = away.range(start.clone()..).take_while(|name| name.starts_with(&start)).collect();
    if !held.is_empty() {
        warn!(
            %service,
            %id,
            ?held,
            "not held off, though instances of the service were that are not in the settings any more; if it is one of them, give it that id \
             again"
        );
    }
}

/// Those that leave and are held off, in the order of the settings before: service, tier and name.
#[derive(Debug)]
struct Renamed(Vec<(ServiceKey, u16, String)>);

impl Renamed {
    /// Who of `entries` leaves by `registrations`, and has nobody in its place yet.
    fn of(entries: &[Entry], registrations: &[Registration]) -> Self {
        let wanted: BTreeSet<_> = registrations.iter().map(Registration::name).collect();
        let leaves = |entry: &Entry| {
            let name = entry.registration.name();
            let is_free = entry.failback.is_marked() && !entry.has_successor && !wanted.contains(&name);
            is_free.then(|| (entry.registration.service.clone(), entry.registration.priority, name))
        };
        Self(entries.iter().filter_map(leaves).collect())
    }

    /// The first that may be this one, which is then nobody else.
    fn take(&mut self, registration: &Registration) -> Option<String> {
        let may_be = |(service, priority, _): &(ServiceKey, u16, String)| {
            *service == registration.service && *priority == registration.priority
        };
        let at = self.0.iter().position(may_be)?;
        Some(self.0.remove(at).2)
    }
}

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
        self.has_successor = false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::hold_file::HoldFile;
    use crate::registry::maintenance::MaintenanceFile;
    use crate::registry::registrar::entry::tests::entry;

    #[test]
    fn who_is_new_is_one_of_its_service_and_tier_that_leaves_and_is_held_off() {
        let held = |id: &str, priority| {
            let left = HoldFile { is_running: true, ..HoldFile::default() };
            let mut held = entry(&left, &MaintenanceFile::default());
            held.registration = named(&held.registration, id, priority);
            held
        };
        let well = entry(&HoldFile::default(), &MaintenanceFile::default());
        let web = well.registration.clone();
        let [new, other_new] = ["new", "other-new"].map(|id| named(&web, id, 0));
        let take = |entries: &[Entry], wanted: &[&Registration]| -> Vec<_> {
            let wanted: Vec<_> = wanted.iter().map(|&wanted| wanted.clone()).collect();
            let mut renamed = Renamed::of(entries, &wanted);
            [&new, &other_new].map(|new| renamed.take(new)).into_iter().flatten().collect()
        };
        let entries = [held("b", 0), held("a", 0), held("c", 0)];
        assert_eq!(take(&entries, &[]), ["web.default/b", "web.default/a"], "each is one, in their order");
        assert_eq!(take(&entries, &[&entries[0].registration]), ["web.default/a", "web.default/c"]);
        assert_eq!(take(&[well], &[]), [""; 0], "it was held off by nobody");
        assert_eq!(take(&[held("a", 1)], &[]), [""; 0], "of another tier");
        let mut api = held("a", 0);
        api.registration.service.name = Label::parse("api").unwrap();
        assert_eq!(take(&[api], &[]), [""; 0], "of another service");
        let mut followed = held("a", 0);
        followed.has_successor = true;
        assert_eq!(take(&[followed], &[]), [""; 0], "it has one already");
    }

    fn named(registration: &Registration, id: &str, priority: u16) -> Registration {
        Registration { id: Label::parse(id).unwrap(), priority, ..registration.clone() }
    }
}
