//! Hands the counts of the sidecar's parts to `/metrics`.

use std::sync::Arc;

use super::reload::ReloadStats;
use crate::client::Client;
use crate::dns::Forwarder;
use crate::registry::registrar::RegistrarStats;
use crate::registry::{Cache, Demand, MirrorStats, StateFolder, ViewKeeperStats};
use crate::telemetry::{self, Count, Metrics, MetricsError};
use crate::{client::ClientStats, http};

/// Everything but the registrar, and what not every sidecar has.
pub(super) fn observe(
    metrics: &Metrics,
    cache: &Arc<Cache>,
    client: &Client,
    mirror: &Arc<MirrorStats>,
) -> Result<(), MetricsError> {
    http::observe_view(metrics, cache)?;
    let counts: [Count<MirrorStats>; 12] = [
        (telemetry::REGISTRY_WALKS, MirrorStats::walks),
        (telemetry::REGISTRY_WALK_READS, MirrorStats::walk_reads),
        (telemetry::REGISTRY_READS, MirrorStats::reads),
        (telemetry::REGISTRY_CARRIED, MirrorStats::carried),
        (telemetry::REGISTRY_PUBLICATIONS, MirrorStats::publications),
        (telemetry::REGISTRY_FOLLOWS, MirrorStats::follows),
        (telemetry::REGISTRY_LAPSES, MirrorStats::lapses),
        (telemetry::REGISTRY_UNREADABLE, MirrorStats::unreadable),
        (telemetry::REGISTRY_DEFECTS, MirrorStats::defects),
        (telemetry::REGISTRY_HELD, MirrorStats::held),
        (telemetry::BRAKE_ENGAGEMENTS, MirrorStats::brake_engagements),
        (telemetry::REGISTRY_PROBES, MirrorStats::probes),
    ];
    metrics.sample_counts(mirror, &counts)?;
    let view = Arc::clone(cache);
    metrics.sample(telemetry::REGISTRY_SKEW, move || view.load().skew())?;
    let counts: [Count<ClientStats>; 7] = [
        (telemetry::CLIENT_CONNECTIONS, ClientStats::connections),
        (telemetry::CLIENT_CONNECTIONS_LOST, ClientStats::connections_lost),
        (telemetry::CLIENT_SESSIONS_EXPIRED, ClientStats::sessions_expired),
        (telemetry::CLIENT_REQUESTS, ClientStats::requests),
        (telemetry::CLIENT_REQUESTS_FAILED, ClientStats::requests_failed),
        (telemetry::CLIENT_WATCH_EVENTS, ClientStats::events),
        (telemetry::CLIENT_WATCH_OVERFLOWS, ClientStats::watch_overflows),
    ];
    for (metric, count) in counts {
        let client = client.clone();
        // Counts stay below 2^53 for longer than any process lives.
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
        metrics.sample(metric, move || Some(count(client.stats()) as f64))?;
    }
    let client = client.clone();
    metrics.sample(telemetry::CLIENT_PING, move || {
        client.stats().ping_round_trip().map(|ping| ping.as_secs_f64())
    })
}

/// Lookups of what is not followed, which not every sidecar lets wait.
pub(super) fn observe_demand(metrics: &Metrics, demand: &Arc<Demand>) -> Result<(), MetricsError> {
    let counts: [Count<Demand>; 2] =
        [(telemetry::DEMAND_HELD, Demand::held), (telemetry::DEMAND_UNREADY, Demand::unready)];
    metrics.sample_counts(demand, &counts)
}

/// What the forwarder keeps.
pub(super) fn observe_forwarder(metrics: &Metrics, forwarder: &Arc<Forwarder>) -> Result<(), MetricsError> {
    let counts: [Count<Forwarder>; 2] = [
        (telemetry::FORWARD_CACHE_ENTRIES, Forwarder::cache_entries),
        (telemetry::FORWARD_CACHE_BYTES, Forwarder::cache_bytes),
    ];
    metrics.sample_counts(forwarder, &counts)
}

/// The registrar.
pub(super) fn observe_registrar(
    metrics: &Metrics,
    registrar: &Arc<RegistrarStats>,
) -> Result<(), MetricsError> {
    let counts: [Count<RegistrarStats>; 3] = [
        (telemetry::REGISTRY_WRITES, RegistrarStats::writes),
        (telemetry::REGISTRY_REPAIRS, RegistrarStats::repairs),
        (telemetry::REGISTRY_WRITE_FAILURES, RegistrarStats::failures),
    ];
    metrics.sample_counts(registrar, &counts)
}

/// The settings file, which not every sidecar has.
pub(super) fn observe_reloader(metrics: &Metrics, reloader: &Arc<ReloadStats>) -> Result<(), MetricsError> {
    let counts: [Count<ReloadStats>; 3] = [
        (telemetry::SETTINGS_RELOADS, ReloadStats::reloads),
        (telemetry::SETTINGS_REJECTED, ReloadStats::rejected),
        (telemetry::SETTINGS_RESTART_NEEDED, ReloadStats::restart_needed),
    ];
    metrics.sample_counts(reloader, &counts)
}

/// The state directory.
pub(super) fn observe_state_dir(metrics: &Metrics, folder: &StateFolder) -> Result<(), MetricsError> {
    let counts: [Count<StateFolder>; 1] = [(telemetry::STATE_DIR_LOSSES, StateFolder::losses)];
    metrics.sample_counts(&Arc::new(folder.clone()), &counts)
}

/// The saved view, which a sidecar without a state directory does not have.
pub(super) fn observe_keeper(metrics: &Metrics, keeper: &Arc<ViewKeeperStats>) -> Result<(), MetricsError> {
    let counts: [Count<ViewKeeperStats>; 2] = [
        (telemetry::VIEW_SAVES, ViewKeeperStats::saves),
        (telemetry::VIEW_SAVE_FAILURES, ViewKeeperStats::failures),
    ];
    metrics.sample_counts(keeper, &counts)
}
