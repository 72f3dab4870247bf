//! How long DNS answers take. No lock and no memory is asked for; no name and no address is a label.
//!
//! Two looks at the clock cost half as much as an answer that was encoded before. Of such answers one in [`HITS_PER_LOOK`] of each thread is timed
//! and counts for all of them, which costs less than a nanosecond an answer; all others are timed. What is measured ends when the
//! octets of the answer are there: neither the kernel's queues nor sending are in it.

use std::array;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::DNS_SECONDS;

/// What carried a query, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their own names")]
pub enum DnsTransport {
    Udp,
    Tcp,
}

/// What an answer was made from, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsSource {
    /// What was encoded for an earlier one.
    Hit,
    /// The view.
    Zone,
    /// The view, once instances had been waited for.
    Held,
    /// What is kept of upstreams' answers, or known about names that nobody is asked for.
    Cache,
    /// An upstream, or that it did not answer.
    Upstream,
    /// The query alone, which is refused.
    Query,
}

/// How long answers took.
#[derive(Clone, Debug)]
pub struct DnsLatencies(Arc<Latencies>);

type Latencies = [[Latency; DnsSource::ALL.len()]; DnsTransport::ALL.len()];

/// Of one kind of answer, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Latency {
    /// By the bounds; the last one is without any.
    buckets: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl DnsTransport {
    const ALL: [Self; 2] = [Self::Udp, Self::Tcp];

    const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl DnsSource {
    const ALL: [Self; 6] = [Self::Hit, Self::Zone, Self::Held, Self::Cache, Self::Upstream, Self::Query];

    const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Zone => "zone",
            Self::Held => "held",
            Self::Cache => "cache",
            Self::Upstream => "upstream",
            Self::Query => "query",
        }
    }
}

impl DnsLatencies {
    /// None so far, printed with `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let latencies = Self(Arc::new(array::from_fn(|_| array::from_fn(|_| Latency::default()))));
        let collector = LatencyCollector { latencies: latencies.clone(), desc: describe() };
        registry.register(Box::new(collector)).expect("names of this module differ");
        latencies
    }

    /// Whether the next answer of this thread, if it was encoded before, is one of those that are timed.
    pub fn has_turn() -> bool {
        thread_local!(static TURN: Cell<u32> = const { Cell::new(0) });
        TURN.with(|turn| {
            let left = turn.get();
            turn.set(if left == 0 { HITS_PER_LOOK - 1 } else { left - 1 });
            left == 0
        })
    }

    /// Notes how long an answer took that had its turn.
    pub fn observe_sampled(&self, transport: DnsTransport, source: DnsSource, took: Duration) {
        self.0[transport as usize][source as usize].add(took, u64::from(HITS_PER_LOOK));
    }

    /// Notes how long any other answer took.
    pub fn observe(&self, transport: DnsTransport, source: DnsSource, took: Duration) {
        self.0[transport as usize][source as usize].add(took, 1);
    }
}

impl Latency {
    fn add(&self, took: Duration, times: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.buckets[bucket].fetch_add(times, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(times), Ordering::Relaxed);
    }

    /// As it is printed; `None` while there was nothing, so that who scrapes many sidecars keeps no series for what they never do.
    fn histogram(&self) -> Option<Histogram> {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS_NS.len());
        for (place, counted) in self.buckets.iter().enumerate() {
            count += counted.load(Ordering::Relaxed);
            if let Some(bound) = BOUNDS_NS.get(place) {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(seconds(*bound));
                bucket.set_cumulative_count(count);
                buckets.push(bucket);
            }
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(seconds(self.sum_ns.load(Ordering::Relaxed)));
        (count > 0).then_some(histogram)
    }
}

struct LatencyCollector {
    latencies: DnsLatencies,
    desc: Desc,
}

impl Collector for LatencyCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metrics = Vec::new();
        for transport in DnsTransport::ALL {
            for source in DnsSource::ALL {
                let latency = &self.latencies.0[transport as usize][source as usize];
                if let Some(histogram) = latency.histogram() {
                    let labels = vec![label("source", source.label()), label("transport", transport.label())];
                    let mut metric = Metric::from_label(labels);
                    metric.set_histogram(histogram);
                    metrics.push(metric);
                }
            }
        }
        if metrics.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(DNS_SECONDS.name.to_owned());
        family.set_help(DNS_SECONDS.help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics);
        vec![family]
    }
}

fn describe() -> Desc {
    let labels = ["source", "transport"].map(str::to_owned).to_vec();
    Desc::new(DNS_SECONDS.name.to_owned(), DNS_SECONDS.help.to_owned(), labels, Default::default())
        .expect("names of this module are well formed")
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

#[expect(clippy::cast_precision_loss, reason = "more than 2^53 ns are more than a hundred days")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A prime, so that it keeps no step with batches and rounds of queries.
const HITS_PER_LOOK: u32 = 61;
/// From a hit to an upstream that never answers, in nanoseconds.
const BOUNDS_NS: [u64; 17] = [
    250,
    500,
    1_000,
    2_500,
    10_000,
    25_000,
    100_000,
    250_000,
    1_000_000,
    2_500_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn answers_are_counted_below_the_bounds_that_they_keep() {
        let metrics = Metrics::new();
        assert!(!text(&metrics).contains(DNS_SECONDS.name), "nothing is told of what there was not");
        let took = |source, us| {
            metrics.dns_seconds.observe(DnsTransport::Tcp, source, Duration::from_micros(us));
        };
        took(DnsSource::Zone, 3);
        took(DnsSource::Zone, 10);
        took(DnsSource::Zone, 6_000_000);
        let text = text(&metrics);
        assert!(text.contains("# TYPE rollcall_dns_answer_seconds histogram"), "{text}");
        for (le, count) in [("0.0000025", 0), ("0.00001", 2), ("5", 2), ("+Inf", 3)] {
            let line = format!(
                "rollcall_dns_answer_seconds_bucket{{source=\"zone\",transport=\"tcp\",le=\"{le}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains("_sum{source=\"zone\",transport=\"tcp\"} 6.000013\n"), "{text}");
        assert!(text.contains("_count{source=\"zone\",transport=\"tcp\"} 3\n"), "{text}");
        assert!(!text.contains("udp"), "{text}");
    }

    #[test]
    fn a_hit_that_has_its_turn_counts_for_those_that_have_not() {
        let metrics = Metrics::new();
        let hits = 10 * HITS_PER_LOOK;
        for _ in 0..hits {
            if DnsLatencies::has_turn() {
                metrics.dns_seconds.observe_sampled(
                    DnsTransport::Udp,
                    DnsSource::Hit,
                    Duration::from_nanos(130),
                );
            }
        }
        let line = format!("_bucket{{source=\"hit\",transport=\"udp\",le=\"0.00000025\"}} {hits}\n");
        assert!(text(&metrics).contains(&line), "{}", text(&metrics));
    }

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).unwrap()
    }
}
