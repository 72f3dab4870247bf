//! A figure that reports tell of each run, of which medians and ratios are made.

use std::time::Duration;

use super::latencies::Latency;
use super::tally::{as_f64, median};

/// What is told of a run `R`.
pub(super) struct Figure<R> {
    /// The field of the JSON, with its unit.
    pub(super) name: &'static str,
    /// The heading of the table.
    pub(super) heading: &'static str,
    /// How the table shows it: so many of its units are one of the table's, with so many digits after the point.
    shown: (f64, usize),
    pub(super) of: fn(&R) -> Option<f64>,
}

pub(super) const US_PER_MS: f64 = 1e3;
pub(super) const MIB: f64 = 1024.0 * 1024.0;

impl<R> Figure<R> {
    pub(super) const fn new(
        name: &'static str,
        heading: &'static str,
        shown: (f64, usize),
        of: fn(&R) -> Option<f64>,
    ) -> Self {
        Self { name, heading, shown, of }
    }

    /// The table's text for a value, a dash for none.
    pub(super) fn show(&self, value: Option<f64>) -> String {
        let (divisor, digits) = self.shown;
        value.map_or_else(|| "-".to_owned(), |value| format!("{:.digits$}", value / divisor))
    }

    /// The median over these runs.
    pub(super) fn median<'a>(&self, runs: impl Iterator<Item = &'a R>) -> Option<f64>
    where
        R: 'a,
    {
        median(runs.filter_map(self.of))
    }
}

/// The first's part of the second; none of nothing.
pub(super) fn ratio(first: Option<f64>, second: Option<f64>) -> Option<f64> {
    let (first, second) = (first?, second?);
    (second > 0.0).then_some(first / second)
}

/// The table's text for a ratio.
pub(super) fn show_ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// What the first and the second of two that are compared are called.
pub(super) const fn place_name(place: usize) -> &'static str {
    if place == 0 { "first" } else { "second" }
}

/// One of the latencies, in us.
pub(super) fn latency_us(
    latency: Option<&Latency>,
    choose: impl FnOnce(&Latency) -> Duration,
) -> Option<f64> {
    latency.map(|latency| us(choose(latency)))
}

/// The time that each of so many took, in us; none of nothing.
pub(super) fn us_each(time: Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| us(time) / as_f64(count))
}

pub(super) fn us(time: Duration) -> f64 {
    u64::try_from(time.as_nanos()).map_or(f64::INFINITY, as_f64) / 1e3
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
