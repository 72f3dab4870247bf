//! One phase of a swarm: what was done, and what it took.

use std::time::{Duration, Instant};

use super::super::ensemble::Ensemble;
use super::super::resources::{Meter, Resources};
use super::super::tally::as_f64;
use super::counts::Counts;
use crate::telemetry::ProcessUsage;

/// What a phase came to.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) elapsed: Duration,
    /// What it was about: so many sidecars registered, sessions held, records changed, ...
    pub(super) count: u64,
    /// Whether it took as long as the count needs, rather than as long as was asked for.
    pub(super) has_rate: bool,
    /// Changes of the registry that every view had to show; `None` where views came and went.
    pub(super) changes: Option<u64>,
    pub(super) views: u64,
    /// What went wrong, and was not a session that was lost.
    pub(super) errors: u64,
    pub(super) counts: Counts,
    pub(super) resources: Resources,
    /// Memory of this process at the end.
    pub(super) client_resident_bytes: Option<u64>,
}

/// A phase that has begun.
#[derive(Debug)]
pub(super) struct Stopwatch {
    name: &'static str,
    began: Instant,
    counts: Counts,
    meter: Meter,
}

impl Stopwatch {
    pub(super) fn start(name: &'static str, ensemble: &Ensemble, counts: Counts, now: Instant) -> Self {
        Self { name, began: now, counts, meter: Meter::start(&ensemble.processes) }
    }

    pub(super) fn stop(&self, ensemble: &Ensemble, counts: &Counts, views: usize, now: Instant) -> Phase {
        Phase {
            name: self.name,
            elapsed: now.saturating_duration_since(self.began),
            count: 0,
            has_rate: true,
            changes: None,
            views: u64::try_from(views).unwrap_or(u64::MAX),
            errors: 0,
            counts: counts.since(&self.counts),
            resources: self.meter.read(&ensemble.processes),
            client_resident_bytes: ProcessUsage::of_this_process().ok().map(|usage| usage.resident_bytes),
        }
    }
}

impl Phase {
    pub(super) fn per_second(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (self.has_rate && seconds > 0.0).then(|| as_f64(self.count) / seconds)
    }

    /// The share of one processor that a CPU time is.
    pub(super) fn processors(&self, cpu: Duration) -> Option<f64> {
        (self.elapsed > Duration::ZERO).then(|| cpu.as_secs_f64() / self.elapsed.as_secs_f64())
    }

    /// A figure for each view and change.
    pub(super) fn per_view_and_change(&self, figure: f64) -> Option<f64> {
        let parts = as_f64(self.changes?) * as_f64(self.views);
        (parts > 0.0).then(|| figure / parts)
    }

    pub(super) fn server_cpu(&self) -> Option<Duration> {
        self.resources.servers.as_ref().map(|servers| servers.cpu)
    }
}
