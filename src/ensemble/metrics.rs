//! The member's counts among the metrics of its process.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::MemberStats;
use crate::telemetry::{self, Count, Metrics, MetricsError};

/// Prints what `member` counts among `metrics`. Once per process.
///
/// # Errors
///
/// When it was done before.
pub fn observe_member(metrics: &Metrics, member: &Arc<MemberStats>) -> Result<(), MetricsError> {
    let counts: [Count<MemberStats>; 20] = [
        (telemetry::ENSEMBLE_COMMITS, |stats| stats.commits.load(Relaxed)),
        (telemetry::ENSEMBLE_SYNCS, |stats| stats.syncs.load(Relaxed)),
        (telemetry::ENSEMBLE_CONNECTIONS, |stats| stats.connections.load(Relaxed)),
        (telemetry::ENSEMBLE_REFUSALS, |stats| stats.refusals.load(Relaxed)),
        (telemetry::ENSEMBLE_WAITING, |stats| stats.waiting_bytes.load(Relaxed)),
        (telemetry::ENSEMBLE_CUT_OFF, |stats| stats.cut_off.load(Relaxed)),
        (telemetry::ENSEMBLE_SESSIONS, |stats| stats.sessions.load(Relaxed)),
        (telemetry::ENSEMBLE_LOCAL_SESSIONS, |stats| stats.local_sessions.load(Relaxed)),
        (telemetry::ENSEMBLE_WATCHED_PATHS, |stats| stats.watched_paths.load(Relaxed)),
        (telemetry::ENSEMBLE_ZNODES, |stats| stats.znodes.load(Relaxed)),
        (telemetry::ENSEMBLE_STATE, |stats| stats.state() as u64),
        (telemetry::ENSEMBLE_EPOCH, |stats| stats.epoch.load(Relaxed)),
        (telemetry::ENSEMBLE_REIGNS, |stats| stats.reigns.load(Relaxed)),
        (telemetry::ENSEMBLE_LOSSES, |stats| stats.losses.load(Relaxed)),
        (telemetry::ENSEMBLE_LEARNERS, |stats| stats.learners.load(Relaxed)),
        (telemetry::ENSEMBLE_OUTSTANDING, |stats| stats.proposals.load(Relaxed)),
        (telemetry::ENSEMBLE_DIFFS, |stats| stats.syncs_by_mode[0].load(Relaxed)),
        (telemetry::ENSEMBLE_TRUNCS, |stats| stats.syncs_by_mode[1].load(Relaxed)),
        (telemetry::ENSEMBLE_SNAPS, |stats| stats.syncs_by_mode[2].load(Relaxed)),
        (telemetry::ENSEMBLE_DIGEST_MISMATCHES, |stats| stats.digest_mismatches.load(Relaxed)),
    ];
    metrics.sample_counts(member, &counts)?;
    let times: [Count<MemberStats>; 2] = [
        (telemetry::ENSEMBLE_SYNC_SECONDS, |stats| stats.sync_us.load(Relaxed)),
        (telemetry::ENSEMBLE_SYNC_MAX, |stats| stats.sync_us_max.load(Relaxed)),
    ];
    for (metric, us) in times {
        let member = Arc::clone(member);
        let seconds = move || std::time::Duration::from_micros(us(&member)).as_secs_f64();
        metrics.sample(metric, move || Some(seconds()))?;
    }
    Ok(())
}
