//! Logs and metrics.
//!
//! Logs are `tracing` events written to stderr ([`init_logging`]). Metrics live in one [`Metrics`] per process,
//! which `/metrics` prints. This module knows nothing of the others: what it counts itself is what the answering
//! modules hand in as plain words (`kind`, `rcode`, `route`, `status`); everything else is kept by the module
//! that owns the number and asked for at printing, by closures that the role's assembly gives to
//! [`Metrics::sample`].
//!
//! Names are `rollcall_<module>_<what>_<unit>`, in base units, and all of them stand below. Labels come from
//! small fixed sets: never a service, path, session or address.

mod forward;
mod latency;
mod logging;
mod metrics;
mod process;
mod tcp;

pub use forward::{ForwardCounts, ForwardOutcome, UpstreamFailure};
pub use latency::{DnsLatencies, DnsSource, DnsTransport};
pub use logging::{LogFormat, LogHandle, LogSettings, LoggingError, init_logging};
pub use metrics::{Count, DnsKind, DnsRcode, HttpRoute, Metrics, MetricsError};
pub(crate) use process::ProcessUsage;
pub use tcp::{TcpCounts, TcpEnd};

/// A metric's name and what it means, for `/metrics` and the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it says, in one sentence.
    pub help: &'static str,
}

const fn metric(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help }
}

/// DNS queries answered, by type of question and response code.
pub const DNS_QUERIES: Metric =
    metric("rollcall_dns_queries_total", "DNS queries answered, by type of question and response code.");
/// Answers that were encoded before.
pub const DNS_HITS: Metric =
    metric("rollcall_dns_hits_total", "DNS queries answered with what was encoded for an earlier one.");
/// How long answers took.
pub const DNS_SECONDS: Metric = metric(
    "rollcall_dns_answer_seconds",
    "Time from a DNS query's arrival here until its answer is made, by transport and by what it is made from: hit, zone, held, cache, upstream, query.",
);
/// Packets that got no answer.
pub const DNS_DROPPED: Metric =
    metric("rollcall_dns_dropped_total", "DNS packets that were no queries and got no answer.");
/// Answers that did not fit.
pub const DNS_TRUNCATED: Metric =
    metric("rollcall_dns_truncated_total", "DNS answers over UDP that were cut and said so (TC).");
/// Answers that are longer than any message.
pub const DNS_SHORTENED: Metric = metric(
    "rollcall_dns_shortened_total",
    "DNS answers over TCP that were longer than 64 KiB, and name some of the instances only.",
);
/// Errors of the DNS sockets.
pub const DNS_SOCKET_ERRORS: Metric =
    metric("rollcall_dns_socket_errors_total", "Errors of the DNS sockets: receive, send, accept.");
/// Open DNS connections.
pub const DNS_CONNECTIONS: Metric =
    metric("rollcall_dns_tcp_connections", "DNS connections over TCP that are open.");
/// DNS connections that are over.
pub const DNS_CONNECTIONS_ENDED: Metric = metric(
    "rollcall_dns_tcp_connections_ended_total",
    "DNS connections over TCP that are over, by reason: client, idle, made_room, slow_query, slow_reader, no_query, error, shutdown, or none was let in: refused, refused_client.",
);
/// Queries for names out of the zone, by what became of them.
pub const FORWARD_QUERIES: Metric = metric(
    "rollcall_dns_forward_queries_total",
    "DNS queries for names out of the zone, by what they were answered from: upstream, cache, stale, local, or not: failed, busy, refused.",
);
/// Forwarded queries that wait.
pub const FORWARD_WAITING: Metric =
    metric("rollcall_dns_forward_waiting", "DNS queries that wait for upstreams.");
/// Questions that upstreams are being asked.
pub const FORWARD_IN_FLIGHT: Metric = metric(
    "rollcall_dns_forward_in_flight",
    "Questions that upstreams are being asked; queries that ask the same share one.",
);
/// Answers in the forwarder's cache.
pub const FORWARD_CACHE_ENTRIES: Metric =
    metric("rollcall_dns_forward_cache_entries", "Answers of upstreams, and failures, that are kept.");
/// Bytes in the forwarder's cache.
pub const FORWARD_CACHE_BYTES: Metric =
    metric("rollcall_dns_forward_cache_bytes", "Memory that these take, about.");
/// How long upstreams took.
pub const UPSTREAM_SECONDS: Metric =
    metric("rollcall_dns_upstream_seconds", "Time that upstreams took to answer.");
/// Upstreams that did not answer.
pub const UPSTREAM_FAILURES: Metric = metric(
    "rollcall_dns_upstream_failures_total",
    "Times that an upstream did not answer a question, by reason: silence, network, tls, refused, garbled.",
);
/// Packets that were no answer to what was asked.
pub const UPSTREAM_MISMATCHES: Metric = metric(
    "rollcall_dns_upstream_mismatches_total",
    "Packets that came for an answer and were none to what had been asked: mistaken, late, or forged.",
);
/// HTTP requests answered, by route and status.
pub const HTTP_REQUESTS: Metric =
    metric("rollcall_http_requests_total", "HTTP requests answered, by route and status.");
/// Open HTTP connections.
pub const HTTP_CONNECTIONS: Metric = metric("rollcall_http_connections", "HTTP connections that are open.");
/// Age of the view.
pub const VIEW_AGE: Metric = metric(
    "rollcall_registry_view_age_seconds",
    "Time since the view was last proved current; absent while it never was.",
);
/// Staleness of the view.
pub const VIEW_STALE: Metric =
    metric("rollcall_registry_view_stale", "1 while the view may be behind the ensemble, else 0.");
/// Services in the view.
pub const VIEW_SERVICES: Metric = metric("rollcall_registry_view_services", "Services in the view.");
/// Services that are followed.
pub const VIEW_FOLLOWED: Metric =
    metric("rollcall_registry_view_followed_services", "Services in the view whose instances are followed.");
/// Instances in the view.
pub const VIEW_INSTANCES: Metric =
    metric("rollcall_registry_view_instances", "Instances in the view, whatever their status.");
/// Saves of the view.
pub const VIEW_SAVES: Metric =
    metric("rollcall_registry_view_saves_total", "Times that the view was saved in the state directory.");
/// Failed saves of the view.
pub const VIEW_SAVE_FAILURES: Metric =
    metric("rollcall_registry_view_save_failures_total", "Times that the view could not be saved.");
/// Losses of the state directory.
pub const STATE_DIR_LOSSES: Metric = metric(
    "rollcall_registry_state_dir_losses_total",
    "Times that the state directory was removed or replaced while the sidecar ran, and made anew.",
);
/// Reloads of the settings.
pub const SETTINGS_RELOADS: Metric = metric(
    "rollcall_settings_reloads_total",
    "Times that a change of the settings file took effect while the process ran.",
);
/// Whether the settings file is unusable.
pub const SETTINGS_REJECTED: Metric = metric(
    "rollcall_settings_rejected",
    "1 while the settings file has mistakes or cannot be read, so that what it said before stays in effect, else 0.",
);
/// Whether settings wait for a restart.
pub const SETTINGS_RESTART_NEEDED: Metric = metric(
    "rollcall_settings_restart_needed",
    "1 while the settings file has settings that take effect at the next start, else 0.",
);
/// Writes of own registrations.
pub const REGISTRY_WRITES: Metric = metric(
    "rollcall_registry_writes_total",
    "Txns that keep own instances registered; one may write several.",
);
/// Repairs of own registrations.
pub const REGISTRY_REPAIRS: Metric = metric(
    "rollcall_registry_repairs_total",
    "Own registrations that were brought back after they were lost or changed by others.",
);
/// Failed writes of own registrations.
pub const REGISTRY_WRITE_FAILURES: Metric =
    metric("rollcall_registry_write_failures_total", "Attempts to write own registrations that failed.");
/// Full reads of the mirror.
pub const REGISTRY_WALKS: Metric =
    metric("rollcall_registry_walks_total", "Times that the mirror read all services again.");
/// Instances read by full reads of the mirror.
pub const REGISTRY_WALK_READS: Metric = metric(
    "rollcall_registry_walk_reads_total",
    "Instances that the mirror read with all others of their service, which had changed or begun to be followed.",
);
/// Single reads of the mirror.
pub const REGISTRY_READS: Metric =
    metric("rollcall_registry_reads_total", "Znodes that the mirror read because they had changed.");
/// What the mirror needed not read.
pub const REGISTRY_CARRIED: Metric = metric(
    "rollcall_registry_carried_total",
    "Znodes that came with the event that named them, so that the mirror did not read them.",
);
/// Views published.
pub const REGISTRY_PUBLICATIONS: Metric = metric("rollcall_registry_publications_total", "Views published.");
/// Services that began to be followed.
pub const REGISTRY_FOLLOWS: Metric = metric(
    "rollcall_registry_follows_total",
    "Services that began to be followed because they were looked up.",
);
/// Services that are followed no more.
pub const REGISTRY_LAPSES: Metric = metric(
    "rollcall_registry_lapses_total",
    "Services that are followed no more because nobody looked them up.",
);
/// Lookups that were held.
pub const DEMAND_HELD: Metric = metric(
    "rollcall_registry_lookups_held_total",
    "Lookups that were held because the service was not followed.",
);
/// Lookups without an answer.
pub const DEMAND_UNREADY: Metric = metric(
    "rollcall_registry_lookups_unready_total",
    "Lookups of services that were not followed and whose instances did not come in time.",
);
/// Unreadable znodes.
pub const REGISTRY_UNREADABLE: Metric = metric(
    "rollcall_registry_unreadable_total",
    "Znodes of the registry that could not be understood or read.",
);
/// Differences that nothing had told of.
pub const REGISTRY_DEFECTS: Metric = metric(
    "rollcall_registry_defects_total",
    "Differences between view and registry that no event had told of: it must be 0.",
);
/// Instances whose record vanished and that are offered.
pub const REGISTRY_HELD: Metric = metric(
    "rollcall_registry_held_instances",
    "Instances that are still offered although their record vanished without a word.",
);
/// Losses that were not believed.
pub const BRAKE_ENGAGEMENTS: Metric = metric(
    "rollcall_registry_brake_engagements_total",
    "Times that so many instances vanished at once that the registry was not believed.",
);
/// Probes of instances that vanished.
pub const REGISTRY_PROBES: Metric = metric(
    "rollcall_registry_probes_total",
    "Connections tried to instances whose record had vanished, to see whether they live.",
);
/// Connections to members.
pub const CLIENT_CONNECTIONS: Metric = metric(
    "rollcall_client_connections_total",
    "Connections to members on which a session was opened or resumed.",
);
/// Lost connections to members.
pub const CLIENT_CONNECTIONS_LOST: Metric = metric(
    "rollcall_client_connections_lost_total",
    "Connections to members, and attempts at one, that failed.",
);
/// Expired sessions.
pub const CLIENT_SESSIONS_EXPIRED: Metric =
    metric("rollcall_client_sessions_expired_total", "Sessions that members declared expired.");
/// Requests to members.
pub const CLIENT_REQUESTS: Metric = metric("rollcall_client_requests_total", "Requests made to members.");
/// Failed requests to members.
pub const CLIENT_REQUESTS_FAILED: Metric = metric(
    "rollcall_client_requests_failed_total",
    "Requests to members that got no answer: refusals are answers.",
);
/// Watch events.
pub const CLIENT_WATCH_EVENTS: Metric =
    metric("rollcall_client_watch_events_total", "Watch events received.");
/// Lost watch events.
pub const CLIENT_WATCH_OVERFLOWS: Metric = metric(
    "rollcall_client_watch_overflows_total",
    "Times that watch events were lost because their reader was too slow.",
);
/// Round trip to the member.
pub const CLIENT_PING: Metric = metric(
    "rollcall_client_ping_seconds",
    "Time that the last ping to a member took; absent before the first.",
);
/// Txns applied.
pub const ENSEMBLE_COMMITS: Metric =
    metric("rollcall_ensemble_commits_total", "Txns applied by this member.");
/// Syncs of the log.
pub const ENSEMBLE_SYNCS: Metric =
    metric("rollcall_ensemble_syncs_total", "Batches of the log synced to disk.");
/// Time in syncs.
pub const ENSEMBLE_SYNC_SECONDS: Metric =
    metric("rollcall_ensemble_sync_seconds_total", "Time spent syncing the log to disk.");
/// The longest sync.
pub const ENSEMBLE_SYNC_MAX: Metric =
    metric("rollcall_ensemble_sync_max_seconds", "The longest sync of the log since the start.");
/// Client connections of the member.
pub const ENSEMBLE_CONNECTIONS: Metric =
    metric("rollcall_ensemble_connections", "Client connections that this member has open.");
/// Refused client connections.
pub const ENSEMBLE_REFUSALS: Metric =
    metric("rollcall_ensemble_refusals_total", "Client connections closed because of what they sent.");
/// What waits for clients.
pub const ENSEMBLE_WAITING: Metric = metric(
    "rollcall_ensemble_waiting_bytes",
    "Replies and notifications that wait until clients read them, of all connections.",
);
/// Connections closed to make room.
pub const ENSEMBLE_CUT_OFF: Metric = metric(
    "rollcall_ensemble_cut_off_total",
    "Client connections closed to make room, each the one for which the most waited to be read.",
);
/// Sessions.
pub const ENSEMBLE_SESSIONS: Metric = metric("rollcall_ensemble_sessions", "Sessions alive in the ensemble.");
/// Sessions of one member.
pub const ENSEMBLE_LOCAL_SESSIONS: Metric =
    metric("rollcall_ensemble_local_sessions", "Sessions that this member alone knows.");
/// Watched paths.
pub const ENSEMBLE_WATCHED_PATHS: Metric =
    metric("rollcall_ensemble_watched_paths", "Paths watched by the clients connected to this member.");
/// Znodes.
pub const ENSEMBLE_ZNODES: Metric = metric("rollcall_ensemble_znodes", "Znodes in the tree.");
/// What the member is doing.
pub const ENSEMBLE_STATE: Metric = metric(
    "rollcall_ensemble_server_state",
    "What this member is doing: 0 looking for a leader, 1 following, 2 leading, 3 observing.",
);
/// The leader's epoch.
pub const ENSEMBLE_EPOCH: Metric =
    metric("rollcall_ensemble_epoch", "The epoch that this member's history belongs to.");
/// Elections won.
pub const ENSEMBLE_REIGNS: Metric =
    metric("rollcall_ensemble_reigns_total", "Times that this member began to lead.");
/// Leaders lost.
pub const ENSEMBLE_LOSSES: Metric =
    metric("rollcall_ensemble_losses_total", "Times that this member lost its leader, or its leadership.");
/// Learners.
pub const ENSEMBLE_LEARNERS: Metric = metric(
    "rollcall_ensemble_synced_learners",
    "Followers and observers that are up to date with this leader.",
);
/// Proposals in flight.
pub const ENSEMBLE_OUTSTANDING: Metric = metric(
    "rollcall_ensemble_outstanding_proposals",
    "Proposals that this member has logged and that are not known to be committed.",
);
/// DIFF.
pub const ENSEMBLE_DIFFS: Metric = metric(
    "rollcall_ensemble_diffs_total",
    "Times that a learner was brought up by what it lacked (DIFF): by this leader, or this member itself.",
);
/// TRUNC.
pub const ENSEMBLE_TRUNCS: Metric = metric(
    "rollcall_ensemble_truncs_total",
    "Times that a learner gave up what nobody else had (TRUNC): of this leader, or this member itself.",
);
/// SNAP.
pub const ENSEMBLE_SNAPS: Metric = metric(
    "rollcall_ensemble_snaps_total",
    "Times that a learner was sent the whole tree (SNAP): by this leader, or this member itself.",
);
/// Digests that differ.
pub const ENSEMBLE_DIGEST_MISMATCHES: Metric = metric(
    "rollcall_ensemble_digest_mismatches_total",
    "Txns after which this member's tree was not the one that its leader had computed: it must be 0. Leaders of ours compute none, so that it counts under Apache's alone.",
);
/// Answers that deviate from the weights.
pub const REGISTRY_SKEW: Metric = metric(
    "rollcall_registry_skew_ratio",
    "Largest deviation of an instance's first places in DNS answers from those that its weight gave it, relative to these; absent while none was to have a thousand.",
);
/// CPU time of the process.
pub const PROCESS_CPU: Metric =
    metric("rollcall_process_cpu_seconds_total", "CPU time used by the process, user and system.");
/// Memory of the process.
pub const PROCESS_MEMORY: Metric =
    metric("rollcall_process_resident_memory_bytes", "Resident memory of the process.");
/// Open files of the process.
pub const PROCESS_FDS: Metric =
    metric("rollcall_process_open_fds", "File descriptors that the process has open.");
/// Threads of the process.
pub const PROCESS_THREADS: Metric = metric("rollcall_process_threads", "Threads of the process.");

/// All of the above.
pub const ALL: [Metric; 81] = [
    DNS_QUERIES,
    DNS_HITS,
    DNS_SECONDS,
    DNS_DROPPED,
    DNS_TRUNCATED,
    DNS_SHORTENED,
    DNS_SOCKET_ERRORS,
    DNS_CONNECTIONS,
    DNS_CONNECTIONS_ENDED,
    FORWARD_QUERIES,
    FORWARD_WAITING,
    FORWARD_IN_FLIGHT,
    FORWARD_CACHE_ENTRIES,
    FORWARD_CACHE_BYTES,
    UPSTREAM_SECONDS,
    UPSTREAM_FAILURES,
    UPSTREAM_MISMATCHES,
    HTTP_REQUESTS,
    HTTP_CONNECTIONS,
    VIEW_AGE,
    VIEW_STALE,
    VIEW_SERVICES,
    VIEW_FOLLOWED,
    VIEW_INSTANCES,
    VIEW_SAVES,
    VIEW_SAVE_FAILURES,
    STATE_DIR_LOSSES,
    SETTINGS_RELOADS,
    SETTINGS_REJECTED,
    SETTINGS_RESTART_NEEDED,
    REGISTRY_WRITES,
    REGISTRY_REPAIRS,
    REGISTRY_WRITE_FAILURES,
    REGISTRY_WALKS,
    REGISTRY_READS,
    REGISTRY_CARRIED,
    REGISTRY_PUBLICATIONS,
    REGISTRY_FOLLOWS,
    REGISTRY_LAPSES,
    DEMAND_HELD,
    DEMAND_UNREADY,
    REGISTRY_UNREADABLE,
    REGISTRY_DEFECTS,
    REGISTRY_HELD,
    BRAKE_ENGAGEMENTS,
    REGISTRY_PROBES,
    REGISTRY_SKEW,
    CLIENT_CONNECTIONS,
    CLIENT_CONNECTIONS_LOST,
    CLIENT_SESSIONS_EXPIRED,
    CLIENT_REQUESTS,
    CLIENT_REQUESTS_FAILED,
    CLIENT_WATCH_EVENTS,
    CLIENT_WATCH_OVERFLOWS,
    CLIENT_PING,
    ENSEMBLE_COMMITS,
    ENSEMBLE_SYNCS,
    ENSEMBLE_SYNC_SECONDS,
    ENSEMBLE_SYNC_MAX,
    ENSEMBLE_CONNECTIONS,
    ENSEMBLE_REFUSALS,
    ENSEMBLE_WAITING,
    ENSEMBLE_CUT_OFF,
    ENSEMBLE_SESSIONS,
    ENSEMBLE_LOCAL_SESSIONS,
    ENSEMBLE_WATCHED_PATHS,
    ENSEMBLE_ZNODES,
    ENSEMBLE_STATE,
    ENSEMBLE_EPOCH,
    ENSEMBLE_REIGNS,
    ENSEMBLE_LOSSES,
    ENSEMBLE_LEARNERS,
    ENSEMBLE_OUTSTANDING,
    ENSEMBLE_DIFFS,
    ENSEMBLE_TRUNCS,
    ENSEMBLE_SNAPS,
    ENSEMBLE_DIGEST_MISMATCHES,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_FDS,
    PROCESS_THREADS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for Metric { name, help } in ALL {
            let parts: Vec<&str> = name.split('_').collect();
            assert!(parts.len() >= 3 && parts[0] == "rollcall", "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
        let mut names = ALL.map(|metric| metric.name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
