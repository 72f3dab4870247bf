//! Virtual time: one true time for the world, and a clock at each member that is not quite true.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rollcall::replica::Now;

/// True time since the beginning of the world, in ns.
pub(crate) type Nanos = u64;

pub(crate) const MS: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000 * MS;

/// The clocks of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// What the monotonic clock showed at the beginning of the world.
    started: Instant,
    /// By how many millionths the monotonic clock goes too fast.
    drift_ppm: i64,
    /// How far the wall clock is off; it may jump.
    wall_offset_ms: i64,
}

impl Clock {
    pub(crate) fn new(base: Instant, offset: Nanos, drift_ppm: i64) -> Self {
        Self { started: base + Duration::from_nanos(offset), drift_ppm, wall_offset_ms: 0 }
    }

    /// Sets the wall clock off.
    pub(crate) fn jump(&mut self, offset_ms: i64) {
        self.wall_offset_ms = offset_ms;
    }

    /// What the clocks show at a true time.
    pub(crate) fn at(&self, time: Nanos) -> Now {
        const BEGINNING_MS: i64 = 1_700_000_000_000;
        let unix_ms =
            BEGINNING_MS + i64::try_from(time / MS).expect("worlds are short") + self.wall_offset_ms;
        Now { monotonic: self.started + self.elapsed(time), unix_ms }
    }

    /// The true time at which the monotonic clock has reached `deadline`.
    pub(crate) fn when(&self, deadline: Instant) -> Nanos {
        let local =
            i128::try_from(deadline.saturating_duration_since(self.started).as_nanos()).expect("small");
        let about =
            u64::try_from(local * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm))).expect("small");
        // Both directions are rounded.
        let mut time = about.saturating_sub(1);
        while self.at(time).monotonic < deadline {
            time += 1;
        }
        time
    }

    fn elapsed(&self, time: Nanos) -> Duration {
        let drift = i128::from(time) * i128::from(self.drift_ppm) / 1_000_000;
        Duration::from_nanos(u64::try_from(i128::from(time) + drift).expect("no clock runs backwards"))
    }
}

/// What is going to happen, by time; what is put in first comes first among equals.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    now: Nanos,
    next_number: u64,
    items: BinaryHeap<Item<E>>,
}

#[derive(Debug)]
struct Item<E> {
    at: Nanos,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { now: 0, next_number: 0, items: BinaryHeap::new() }
    }

    pub(crate) fn now(&self) -> Nanos {
        self.now
    }

    pub(crate) fn put(&mut self, at: Nanos, event: E) {
        self.next_number += 1;
        self.items.push(Item { at: at.max(self.now), number: self.next_number, event });
    }

    pub(crate) fn put_in(&mut self, delay: Nanos, event: E) {
        self.put(self.now + delay, event);
    }

    /// Moves on to the next event.
    pub(crate) fn take(&mut self) -> Option<E> {
        let item = self.items.pop()?;
        self.now = item.at;
        Some(item.event)
    }
}

impl<E> Ord for Item<E> {
    /// The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Item<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_the_true_time_that_the_clock_says() {
        let base = rollcall::clock::now();
        for drift_ppm in [-50_000, -200, 0, 3, 50_000] {
            let clock = Clock::new(base, 17, drift_ppm);
            for true_time in [0, 1, 999, 5 * SECOND, 3_600 * SECOND + 7] {
                let deadline = clock.at(true_time).monotonic;
                let found = clock.when(deadline);
                assert!(
                    found <= true_time && clock.at(found).monotonic >= deadline,
                    "{drift_ppm} {true_time}"
                );
            }
        }
    }

    #[test]
    fn events_come_by_time_and_then_in_the_order_given() {
        let mut agenda = Agenda::new();
        [(5, 'c'), (3, 'a'), (5, 'd'), (4, 'b')].into_iter().for_each(|(at, event)| agenda.put(at, event));
        let taken: String = std::iter::from_fn(|| agenda.take()).collect();
        assert_eq!((taken.as_str(), agenda.now()), ("abcd", 5));
        agenda.put(1, 'e');
        assert_eq!((agenda.take(), agenda.now()), (Some('e'), 5), "time does not go back");
    }
}
