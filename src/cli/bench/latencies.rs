//! How long things took: a histogram, and the percentiles that are told of it.
//!
//! Of ns, with three significant digits: percentiles and the mean are within 0.1 % of the true ones, whatever the number of
//! samples; count and maximum are exact.

use std::time::Duration;

use hdrhistogram::Histogram;

/// How long operations took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latency {
    pub(super) mean: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) p99_9: Duration,
    pub(super) max: Duration,
}

/// Durations as they come in.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    histogram_ns: Histogram<u64>,
    max: Duration,
}

/// Significant digits of the histogram.
const DIGITS: u8 = 3;

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram_ns = Histogram::new(DIGITS).expect("three digits are between one and five");
        Self { histogram_ns, max: Duration::ZERO }
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram_ns.record(latency_ns).expect("the histogram grows to any u64");
        self.max = self.max.max(latency);
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram_ns.len()
    }

    /// What they come to; `None` when there are none.
    pub(super) fn summary(&self) -> Option<Latency> {
        let percentile = |quantile| {
            // The upper edge of a bucket may lie above the longest that was seen.
            Duration::from_nanos(self.histogram_ns.value_at_quantile(quantile)).min(self.max)
        };
        (self.count() > 0).then(|| Latency {
            mean: Duration::from_secs_f64(self.histogram_ns.mean() / 1e9),
            p50: percentile(0.5),
            p99: percentile(0.99),
            p99_9: percentile(0.999),
            max: self.max,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_samples(
            mut samples_ns in prop::collection::vec(1_u64..50_000_000_000, 1..2_000),
        ) {
            let mut latencies = Latencies::new();
            for sample in &samples_ns {
                latencies.record(Duration::from_nanos(*sample));
            }
            samples_ns.sort_unstable();
            let latency = latencies.summary().unwrap();
            for (found, per_mille) in [(latency.p50, 500), (latency.p99, 990), (latency.p99_9, 999)] {
                let rank = (samples_ns.len() * per_mille).div_ceil(1000).max(1);
                let exact = Duration::from_nanos(samples_ns[rank - 1]);
                prop_assert!(found >= exact, "{per_mille}: {found:?} < {exact:?}");
                prop_assert!(found <= exact.mul_f64(1.001) + Duration::from_nanos(1), "{per_mille}: {found:?} > {exact:?}");
            }
            prop_assert_eq!(latency.max, Duration::from_nanos(*samples_ns.last().unwrap()));
            prop_assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.p99_9 && latency.p99_9 <= latency.max);
        }
    }

    #[test]
    fn of_nothing_there_is_no_summary() {
        assert_eq!(Latencies::new().summary(), None);
    }
}
