//! What is counted while a workload runs, and the figures that come of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::latencies::{Latencies, Latency};

/// Counts of one run. Before [`Tally::begin`] and after the end it only notes that something happens.
#[derive(Debug)]
pub(super) struct Tally {
    latencies: Latencies,
    /// Operations done since the tally was made, warm-up included: for the progress line.
    done: u64,
    /// Errors by what they say.
    errors: BTreeMap<String, u64>,
    /// Measure this many operations, or until told to end.
    count_wanted: Option<u64>,
    began: Option<Instant>,
    ended: Option<Instant>,
    last_done: Option<Instant>,
    longest_stall: Duration,
}

/// The figures of one run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) elapsed: Duration,
    pub(super) ops: u64,
    /// `None` when there were no operations.
    pub(super) latency: Option<Latency>,
    /// The longest time in which no operation was done, from the beginning to the end of the measurement.
    pub(super) longest_stall: Duration,
    pub(super) errors: BTreeMap<String, u64>,
}

/// Kinds of errors told apart; what comes beyond is counted as [`OTHER_ERRORS`].
const ERROR_KINDS_MAX: usize = 16;
const OTHER_ERRORS: &str = "other errors";

impl Tally {
    /// Nothing yet; `count_wanted` operations end the measurement, if given.
    pub(super) fn new(count_wanted: Option<u64>) -> Self {
        Self {
            latencies: Latencies::new(),
            done: 0,
            errors: BTreeMap::new(),
            count_wanted,
            began: None,
            ended: None,
            last_done: None,
            longest_stall: Duration::ZERO,
        }
    }

    /// Starts measuring; the errors of the warm-up are forgotten.
    pub(super) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.last_done = Some(now);
        self.errors.clear();
    }

    /// Ends measuring, unless the operations wanted have ended it already.
    pub(super) fn end(&mut self, now: Instant) {
        if self.ended.is_none() {
            self.note_stall(now);
            self.ended = Some(now);
        }
    }

    /// An operation is done. An operation that began before the measurement and is done in it counts, as one that began in
    /// it and is done after it does not.
    pub(super) fn complete(&mut self, now: Instant, latency: Duration) {
        self.done += 1;
        if self.began.is_none() || self.ended.is_some() {
            return;
        }
        self.latencies.record(latency);
        self.note_stall(now);
        self.last_done = Some(now);
        if self.count_wanted == Some(self.latencies.count()) {
            self.ended = Some(now);
        }
    }

    /// Operations failed.
    pub(super) fn fail(&mut self, what: &str, operations: u64) {
        if self.ended.is_some() || operations == 0 {
            return;
        }
        if let Some(count) = self.errors.get_mut(what) {
            *count += operations;
            return;
        }
        let what = if self.errors.len() < ERROR_KINDS_MAX { what } else { OTHER_ERRORS };
        *self.errors.entry(what.to_owned()).or_default() += operations;
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Operations done so far, warm-up included.
    pub(super) const fn done(&self) -> u64 {
        self.done
    }

    /// Operations measured so far.
    pub(super) fn measured(&self) -> u64 {
        self.latencies.count()
    }

    /// The error that came most often so far.
    pub(super) fn commonest_error(&self) -> Option<&str> {
        self.errors.iter().max_by_key(|(_, count)| **count).map(|(what, _)| what.as_str())
    }

    /// The figures of what was measured; all zero when nothing was.
    pub(super) fn figures(&self) -> Figures {
        let elapsed = self.began.zip(self.ended).map_or(Duration::ZERO, |(began, ended)| ended - began);
        let (ops, latency) = (self.latencies.count(), self.latencies.summary());
        Figures { elapsed, ops, latency, longest_stall: self.longest_stall, errors: self.errors.clone() }
    }

    fn note_stall(&mut self, now: Instant) {
        if let Some(last_done) = self.last_done {
            self.longest_stall = self.longest_stall.max(now.saturating_duration_since(last_done));
        }
    }
}

impl Figures {
    /// Operations per second.
    pub(super) fn ops_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { as_f64(self.ops) / seconds } else { 0.0 }
    }

    /// Errors of all kinds.
    pub(super) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[values.len() / 2 - 1], upper))
}

/// For figures that are divided: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(super) const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_what_is_done_between_begin_and_end_counts() {
        let start = clock::now();
        let mut tally = Tally::new(None);
        tally.complete(start, ms(1));
        tally.fail("lost", 2);
        tally.begin(start + ms(100));
        tally.complete(start + ms(200), ms(5));
        tally.fail("late", 3);
        tally.end(start + ms(600));
        tally.complete(start + ms(700), ms(9));
        tally.fail("late", 1);
        let figures = tally.figures();
        assert_eq!((figures.ops, figures.elapsed, figures.error_count()), (1, ms(500), 3));
        assert_eq!(figures.latency.unwrap().max, ms(5));
        assert!((figures.ops_per_second() - 2.0).abs() < 1e-9);
        assert_eq!(tally.done(), 3);
    }

    #[test]
    fn the_longest_stall_reaches_from_the_beginning_to_the_end() {
        let start = clock::now();
        let stall = |done_at_ms: &[u64]| {
            let mut tally = Tally::new(None);
            tally.begin(start);
            done_at_ms.iter().for_each(|at| tally.complete(start + ms(*at), ms(1)));
            tally.end(start + ms(1000));
            tally.figures().longest_stall
        };
        assert_eq!(stall(&[]), ms(1000));
        assert_eq!(stall(&[600, 900]), ms(600), "before the first");
        assert_eq!(stall(&[100, 800, 900]), ms(700), "between two");
        assert_eq!(stall(&[100, 300]), ms(700), "after the last");
    }

    #[test]
    fn the_operations_wanted_end_the_measurement() {
        let start = clock::now();
        let mut tally = Tally::new(Some(2));
        tally.begin(start);
        for at in [10, 20, 30] {
            assert_eq!(tally.is_ended(), at > 20);
            tally.complete(start + ms(at), ms(1));
        }
        tally.end(start + ms(1000));
        let figures = tally.figures();
        assert_eq!((figures.ops, figures.elapsed, figures.longest_stall), (2, ms(20), ms(10)));
    }

    #[test]
    fn nothing_done_has_no_latency() {
        let figures = Tally::new(None).figures();
        assert_eq!((figures.ops, figures.latency), (0, None));
        assert!(figures.ops_per_second().abs() < f64::EPSILON);
    }

    #[test]
    fn kinds_of_errors_are_bounded_and_none_is_lost() {
        let mut tally = Tally::new(None);
        (0..100).for_each(|number| tally.fail(&format!("error {number}"), 1));
        tally.fail("error 3", 5);
        let figures = tally.figures();
        assert_eq!((figures.errors.len(), figures.error_count()), (ERROR_KINDS_MAX + 1, 105));
        assert_eq!(figures.errors["error 3"], 6);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
    }
}
