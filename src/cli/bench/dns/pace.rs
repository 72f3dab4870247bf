//! When the next query is due.

use std::time::{Duration, Instant};

/// How queries follow one another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Each end of a query makes the next due.
    Closed,
    /// They are due at even distances.
    Open(Schedule),
}

/// Queries at a fixed rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    began: Instant,
    per_second: u32,
    /// Queries sent so far.
    sent: u64,
}

impl Pace {
    /// A schedule that begins now, or none without a rate.
    pub(super) fn starting(now: Instant, per_second: Option<u32>) -> Self {
        per_second.map_or(Self::Closed, |per_second| Self::Open(Schedule { began: now, per_second, sent: 0 }))
    }

    /// When the next query is due, at the latest `now` in a closed loop.
    pub(super) fn next_due(&self, now: Instant) -> Instant {
        match self {
            Self::Closed => now,
            Self::Open(schedule) => schedule.due(schedule.sent),
        }
    }

    pub(super) const fn sent(&mut self) {
        match self {
            Self::Closed => {}
            Self::Open(schedule) => schedule.sent += 1,
        }
    }

    /// Queries that have been due by `now`, and were not sent.
    pub(super) fn unsent(&self, now: Instant) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open(schedule) => schedule.due_before(now).saturating_sub(schedule.sent),
        }
    }
}

impl Schedule {
    fn due(&self, number: u64) -> Instant {
        let ns = u128::from(number) * NS_PER_SECOND / u128::from(self.per_second);
        self.began + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    fn due_before(&self, now: Instant) -> u64 {
        let elapsed_ns = now.saturating_duration_since(self.began).as_nanos();
        u64::try_from((elapsed_ns * u128::from(self.per_second)).div_ceil(NS_PER_SECOND)).unwrap_or(u64::MAX)
    }
}

const NS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn queries_are_due_at_even_distances_whatever_was_sent_when() {
        let began = clock::now();
        let mut pace = Pace::starting(began, Some(3));
        let mut due_ns = Vec::new();
        for _ in 0..4 {
            due_ns.push((pace.next_due(began + Duration::from_secs(9)) - began).as_nanos());
            pace.sent();
        }
        assert_eq!(due_ns, [0, 333_333_333, 666_666_666, 1_000_000_000]);
    }

    #[test]
    fn what_was_due_and_not_sent_is_told() {
        let began = clock::now();
        let mut pace = Pace::starting(began, Some(10));
        pace.sent();
        assert_eq!(pace.unsent(began), 0);
        assert_eq!(pace.unsent(began + Duration::from_secs(1)), 9);
        assert_eq!(Pace::starting(began, None).unsent(began + Duration::from_secs(1)), 0);
    }
}
