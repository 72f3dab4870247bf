//! The process's metrics: handles that are resolved once, and numbers that others own.

use std::fmt;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use super::forward::ForwardCounts;
use super::latency::DnsLatencies;
use super::process::ProcessCollector;
use super::tcp::TcpCounts;
use super::{
    DNS_DROPPED, DNS_HITS, DNS_QUERIES, DNS_SHORTENED, DNS_SOCKET_ERRORS, DNS_TRUNCATED, HTTP_CONNECTIONS,
    HTTP_REQUESTS, Metric,
};

/// Everything that `/metrics` prints. One per process; cheap to share, never locked while counting.
pub struct Metrics {
    registry: Registry,
    dns_queries: [[IntCounter; DnsRcode::ALL.len()]; DnsKind::ALL.len()],
    /// See [`DNS_HITS`].
    pub dns_hits: IntCounter,
    /// See [`DNS_DROPPED`].
    pub dns_dropped: IntCounter,
    /// See [`DNS_TRUNCATED`].
    pub dns_truncated: IntCounter,
    /// See [`DNS_SHORTENED`].
    pub dns_shortened: IntCounter,
    /// See [`DNS_SOCKET_ERRORS`].
    pub dns_socket_errors: IntCounter,
    /// See [`DNS_SECONDS`](super::DNS_SECONDS).
    pub dns_seconds: DnsLatencies,
    /// What is counted about connections over TCP.
    pub dns_tcp: TcpCounts,
    /// What the forwarder counts.
    pub forward: ForwardCounts,
    http_requests: IntCounterVec,
    /// See [`HTTP_CONNECTIONS`].
    pub http_connections: IntGauge,
}

/// Why a metric was not added.
#[derive(Debug, thiserror::Error)]
#[error("the metric {name} cannot be added")]
pub struct MetricsError {
    name: &'static str,
    source: prometheus::Error,
}

/// A count that `T` keeps, and how to ask for it.
pub type Count<T> = (Metric, fn(&T) -> u64);

/// The type of a DNS question, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the types' own names")]
pub enum DnsKind {
    A,
    Aaaa,
    Srv,
    Txt,
    Ptr,
    Soa,
    Ns,
    Any,
    /// Any other type, and packets whose question could not be read.
    Other,
}

/// A DNS response code, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the codes' own names")]
pub enum DnsRcode {
    NoError,
    FormErr,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
    BadVers,
}

/// What an HTTP request asked for, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpRoute {
    /// All services.
    Services,
    /// One service.
    Service,
    /// What an application reports of itself.
    Report,
    /// Whether the process lives.
    Livez,
    /// Whether it is ready.
    Readyz,
    /// The metrics themselves.
    Metrics,
    /// Why a service is answered for as it is.
    Explain,
    /// Own instances take their tier again.
    Failback,
    /// Own instances leave, or need not any more.
    Drain,
    /// Own instances are in maintenance, or not any more.
    Maintenance,
    /// The sidecar itself.
    Status,
    /// What would be answered if something were lost.
    Rehearse,
    /// A path that there is not.
    Other,
}

impl DnsKind {
    const ALL: [Self; 9] =
        [Self::A, Self::Aaaa, Self::Srv, Self::Txt, Self::Ptr, Self::Soa, Self::Ns, Self::Any, Self::Other];

    const fn label(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::Aaaa => "aaaa",
            Self::Srv => "srv",
            Self::Txt => "txt",
            Self::Ptr => "ptr",
            Self::Soa => "soa",
            Self::Ns => "ns",
            Self::Any => "any",
            Self::Other => "other",
        }
    }
}

impl DnsRcode {
    const ALL: [Self; 7] = [
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::BadVers,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::NoError => "noerror",
            Self::FormErr => "formerr",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
            Self::BadVers => "badvers",
        }
    }
}

impl HttpRoute {
    const fn label(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Service => "service",
            Self::Report => "report",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
            Self::Metrics => "metrics",
            Self::Explain => "explain",
            Self::Failback => "failback",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
            Self::Status => "status",
            Self::Rehearse => "rehearse",
            Self::Other => "other",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Starts all counts at 0.
    ///
    /// # Panics
    ///
    /// Never: the names of this module are well formed and differ.
    pub fn new() -> Self {
        let registry = Registry::new();
        let dns_queries = counters(&registry, DNS_QUERIES, &["kind", "rcode"]);
        let resolve =
            |kind: DnsKind, rcode: DnsRcode| dns_queries.with_label_values(&[kind.label(), rcode.label()]);
        registry.register(Box::new(ProcessCollector::new())).expect("its names are its own");
        Self {
            dns_queries: DnsKind::ALL.map(|kind| DnsRcode::ALL.map(|rcode| resolve(kind, rcode))),
            dns_hits: registered(&registry, IntCounter::with_opts(opts(DNS_HITS))),
            dns_dropped: registered(&registry, IntCounter::with_opts(opts(DNS_DROPPED))),
            dns_truncated: registered(&registry, IntCounter::with_opts(opts(DNS_TRUNCATED))),
            dns_shortened: registered(&registry, IntCounter::with_opts(opts(DNS_SHORTENED))),
            dns_socket_errors: registered(&registry, IntCounter::with_opts(opts(DNS_SOCKET_ERRORS))),
            dns_seconds: DnsLatencies::new(&registry),
            dns_tcp: TcpCounts::new(&registry),
            forward: ForwardCounts::new(&registry),
            http_requests: counters(&registry, HTTP_REQUESTS, &["route", "status"]),
            http_connections: registered(&registry, IntGauge::with_opts(opts(HTTP_CONNECTIONS))),
            registry,
        }
    }

    /// Counts one DNS answer. No lock, no allocation.
    pub fn count_dns_query(&self, kind: DnsKind, rcode: DnsRcode) {
        self.dns_queries[kind as usize][rcode as usize].inc();
    }

    /// Counts one HTTP answer.
    pub fn count_http_request(&self, route: HttpRoute, status: u16) {
        // A status is at most three digits of our own choosing, so the label set stays small.
        let mut digits = [b'0'; 3];
        let mut rest = status;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        let status = std::str::from_utf8(&digits).unwrap_or("000");
        self.http_requests.with_label_values(&[route.label(), status]).inc();
    }

    /// Adds a number that is asked for whenever metrics are printed; it is left out while it is `None`. It is a
    /// counter when its name ends in `_total`, else a gauge.
    ///
    /// `sample` runs in the task that answers `/metrics`: it must be quick and must not block.
    ///
    /// # Errors
    ///
    /// When there is a metric of that name already.
    pub fn sample(
        &self,
        metric: Metric,
        sample: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        let error = |source| MetricsError { name: metric.name, source };
        let gauge = Gauge::with_opts(opts(metric)).map_err(error)?;
        let is_counter = metric.name.ends_with("_total");
        let sampled = Sampled { gauge, is_counter, sample: Box::new(sample) };
        self.registry.register(Box::new(sampled)).map_err(error)
    }

    /// Adds counts that one owner keeps, as [`Self::sample`] does.
    ///
    /// # Errors
    ///
    /// When there is a metric of one of the names already.
    pub fn sample_counts<T: Send + Sync + 'static>(
        &self,
        owner: &Arc<T>,
        counts: &[Count<T>],
    ) -> Result<(), MetricsError> {
        for (metric, count) in counts {
            let (owner, count) = (Arc::clone(owner), *count);
            self.sample(*metric, move || Some(as_f64(count(&owner))))?;
        }
        Ok(())
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be printed");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A number that someone else owns.
struct Sampled {
    gauge: Gauge,
    is_counter: bool,
    sample: Box<dyn Fn() -> Option<f64> + Send + Sync>,
}

impl Collector for Sampled {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(value) = (self.sample)() else { return Vec::new() };
        self.gauge.set(value);
        let mut families = self.gauge.collect();
        if self.is_counter {
            families.iter_mut().for_each(into_counter);
        }
        families
    }
}

/// Gives a family of gauges the type of counters, with the same values.
pub(super) fn into_counter(family: &mut MetricFamily) {
    family.set_field_type(prometheus::proto::MetricType::COUNTER);
    for metric in family.mut_metric() {
        let mut counter = prometheus::proto::Counter::default();
        counter.set_value(metric.get_gauge().get_value());
        metric.set_counter(counter);
    }
}

pub(super) fn opts(metric: Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 may lose their last digits")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

pub(super) fn counters(registry: &Registry, metric: Metric, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(opts(metric), labels))
}

pub(super) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect("names of this module are well formed");
    registry.register(Box::new(collector.clone())).expect("names of this module differ");
    collector
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::telemetry::{ENSEMBLE_ZNODES, REGISTRY_REPAIRS, VIEW_AGE, VIEW_SERVICES};

    #[test]
    fn queries_and_requests_are_counted_by_their_labels() {
        let metrics = Metrics::new();
        metrics.count_dns_query(DnsKind::Srv, DnsRcode::NxDomain);
        metrics.count_http_request(HttpRoute::Service, 404);
        let text = text(&metrics);
        assert!(text.contains("rollcall_dns_queries_total{kind=\"srv\",rcode=\"nxdomain\"} 1\n"), "{text}");
        assert!(
            text.contains("rollcall_http_requests_total{route=\"service\",status=\"404\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn samples_are_taken_at_printing_and_left_out_while_unknown() {
        let metrics = Metrics::new();
        let value = Arc::new(AtomicU64::new(0));
        let owner = Arc::clone(&value);
        let sample = move || Some(owner.load(Ordering::Relaxed)).filter(|known| *known > 0).map(as_f64);
        metrics.sample(VIEW_AGE, sample).unwrap();
        assert!(!text(&metrics).contains(VIEW_AGE.name));
        value.store(7, Ordering::Relaxed);
        let text = text(&metrics);
        assert!(text.contains("# TYPE rollcall_registry_view_age_seconds gauge"), "{text}");
        assert!(text.contains("rollcall_registry_view_age_seconds 7\n"), "{text}");
    }

    #[test]
    fn counts_of_others_are_counters_by_their_names() {
        let metrics = Metrics::new();
        let owner = Arc::new(AtomicU64::new(3));
        let counts: [Count<AtomicU64>; 2] = [
            (REGISTRY_REPAIRS, |owner| owner.load(Ordering::Relaxed)),
            (ENSEMBLE_ZNODES, |owner| owner.load(Ordering::Relaxed) + 1),
        ];
        metrics.sample_counts(&owner, &counts).unwrap();
        let text = text(&metrics);
        assert!(text.contains("# TYPE rollcall_registry_repairs_total counter"), "{text}");
        assert!(text.contains("rollcall_registry_repairs_total 3\n"), "{text}");
        assert!(text.contains("# TYPE rollcall_ensemble_znodes gauge"), "{text}");
        assert!(text.contains("rollcall_ensemble_znodes 4\n"), "{text}");
    }

    #[test]
    fn a_name_is_taken_once() {
        let metrics = Metrics::new();
        metrics.sample(VIEW_SERVICES, || None).unwrap();
        let error = metrics.sample(VIEW_SERVICES, || None).unwrap_err();
        assert!(error.to_string().contains(VIEW_SERVICES.name));
    }

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).unwrap()
    }
}
