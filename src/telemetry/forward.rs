//! What is counted about forwarded DNS queries. Handles are resolved once; no name and no address is a label.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

use super::metrics::{counters, opts, registered};
use super::{
    FORWARD_IN_FLIGHT, FORWARD_QUERIES, FORWARD_WAITING, UPSTREAM_FAILURES, UPSTREAM_MISMATCHES,
    UPSTREAM_SECONDS,
};

/// Counts of the forwarder.
#[derive(Debug)]
pub struct ForwardCounts {
    queries: [IntCounter; ForwardOutcome::ALL.len()],
    failures: [IntCounter; UpstreamFailure::ALL.len()],
    seconds: Histogram,
    /// See [`FORWARD_WAITING`].
    pub waiting: IntGauge,
    /// See [`FORWARD_IN_FLIGHT`].
    pub in_flight: IntGauge,
    /// See [`UPSTREAM_MISMATCHES`].
    pub mismatches: IntCounter,
}

/// What became of a query for a name out of the zone, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// An upstream has answered.
    Upstream,
    /// It was answered from the cache.
    Cache,
    /// It was answered from the cache although its time is over.
    Stale,
    /// It is about a name that no upstream is asked for.
    Local,
    /// No upstream has answered.
    Failed,
    /// Too many wait.
    Busy,
    /// Recursion was not desired and it is not in the cache, or there is no forwarder.
    Refused,
}

/// Why an upstream did not answer, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// It did not answer in time.
    Silence,
    /// It could not be sent anything.
    Network,
    /// There is no TLS with it.
    Tls,
    /// It answers that it cannot or will not.
    Refused,
    /// Its answer could not be read, or was another's.
    Garbled,
}

impl ForwardOutcome {
    const ALL: [Self; 7] =
        [Self::Upstream, Self::Cache, Self::Stale, Self::Local, Self::Failed, Self::Busy, Self::Refused];

    const fn label(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Cache => "cache",
            Self::Stale => "stale",
            Self::Local => "local",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::Refused => "refused",
        }
    }
}

impl UpstreamFailure {
    const ALL: [Self; 5] = [Self::Silence, Self::Network, Self::Tls, Self::Refused, Self::Garbled];

    const fn label(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Network => "network",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::Garbled => "garbled",
        }
    }
}

impl ForwardCounts {
    /// All at 0, printed with `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let queries = counters(registry, FORWARD_QUERIES, &["outcome"]);
        let failures = counters(registry, UPSTREAM_FAILURES, &["reason"]);
        let seconds =
            HistogramOpts::new(UPSTREAM_SECONDS.name, UPSTREAM_SECONDS.help).buckets(SECONDS.to_vec());
        Self {
            queries: ForwardOutcome::ALL.map(|outcome| queries.with_label_values(&[outcome.label()])),
            failures: UpstreamFailure::ALL.map(|reason| failures.with_label_values(&[reason.label()])),
            seconds: registered(registry, Histogram::with_opts(seconds)),
            waiting: registered(registry, IntGauge::with_opts(opts(FORWARD_WAITING))),
            in_flight: registered(registry, IntGauge::with_opts(opts(FORWARD_IN_FLIGHT))),
            mismatches: registered(registry, IntCounter::with_opts(opts(UPSTREAM_MISMATCHES))),
        }
    }

    /// Counts a query.
    pub fn count_query(&self, outcome: ForwardOutcome) {
        self.queries[outcome as usize].inc();
    }

    /// Counts that an upstream did not answer.
    pub fn count_failure(&self, reason: UpstreamFailure) {
        self.failures[reason as usize].inc();
    }

    /// Notes how long an answer took.
    pub fn observe_answer(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
    }
}

/// From a resolver in the cluster that has it in its cache to one that has to ask around the world.
const SECONDS: [f64; 10] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 4.0];
