//! Every deadline of a peer, in one table, so that none can be forgotten.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A vote that nobody answered is sent again.
    Resend,
    /// Nobody has voted better meanwhile: decide.
    Finalize,
    /// The leader is dialled again.
    Redial,
    /// Whoever is waited for has had time enough.
    Patience,
    /// Half a tick of the leader is over.
    HalfTick,
    /// Learners that connected while nobody led have waited long enough.
    Parked,
}

/// The deadlines that are set.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    deadlines: BTreeMap<Timer, Instant>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, deadline: Instant) {
        self.deadlines.insert(timer, deadline);
    }

    /// Sets a deadline `after` now, unless one is set already.
    pub(super) fn set_if_unset(&mut self, timer: Timer, now: Instant, after: Duration) {
        self.deadlines.entry(timer).or_insert(now + after);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.deadlines.remove(&timer);
    }

    /// Forgets all that belongs to a phase that is over.
    pub(super) fn stop_phase(&mut self) {
        self.deadlines.retain(|timer, _| *timer == Timer::Parked);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.values().min().copied()
    }

    /// Takes a timer whose deadline has come, and the deadline.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Timer, Instant)> {
        let due = self.deadlines.iter().find(|(_, deadline)| **deadline <= now)?;
        let (timer, deadline) = (*due.0, *due.1);
        self.deadlines.remove(&timer);
        Some((timer, deadline))
    }
}
