//! An application that reports to the ttl check of its sidecar, and what it has reported.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rollcall::clock;
use rollcall::registry::{CheckKey, TtlReports, Verdict};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// From one report to the next. Neither these nor ttls add up to the time after which a primary takes its tier again, so that
/// nothing that matters comes at the same moment as something else.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(700);
/// How long it may say nothing before that counts as a failure.
pub(crate) const TTL: Duration = Duration::from_millis(1_100);
/// Reports that must pass in a row.
pub(crate) const RISE: usize = 2;
/// Reports that must fail in a row, or ttls of silence.
pub(crate) const FALL: usize = 3;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Well,
    /// It says that it is not well.
    Ill,
    /// It says nothing.
    Dead,
    /// It says now this and now that.
    Flapping,
}

impl Condition {
    /// The longest that a check may take to see that it is so, from when it is.
    pub(crate) fn fall_time(self) -> Duration {
        let unit = if self == Self::Dead { TTL } else { REPORT_INTERVAL };
        unit * u32::try_from(FALL).expect("a few")
    }
}

/// A report that was taken.
pub(crate) type Report = (Instant, Verdict);

/// The application of one instance; it dies with the test, not with its sidecar.
#[derive(Debug)]
pub(crate) struct Application {
    condition: watch::Sender<Condition>,
    log: Arc<Mutex<Vec<Report>>>,
    task: JoinHandle<()>,
}

impl Application {
    /// Starts well, and reports to `reports` from now on. `seed` decides about flapping.
    pub(crate) fn start(reports: TtlReports, key: CheckKey, seed: u64) -> Self {
        let (condition, log) = (watch::Sender::new(Condition::Well), Arc::<Mutex<Vec<Report>>>::default());
        let (seen, written) = (condition.subscribe(), log.clone());
        let task = tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            loop {
                let condition = *seen.borrow();
                let verdict = match condition {
                    Condition::Well => Some(Verdict::Pass),
                    Condition::Ill => Some(Verdict::Fail),
                    Condition::Dead => None,
                    Condition::Flapping => Some(if rng.bool() { Verdict::Pass } else { Verdict::Fail }),
                };
                let now = clock::now();
                // Refused while no sidecar runs the check.
                if let Some(verdict) = verdict
                    && reports.report(&key, verdict, "", now).is_ok()
                {
                    written.lock().unwrap_or_else(PoisonError::into_inner).push((now, verdict));
                }
                sleep(REPORT_INTERVAL).await;
            }
        });
        Self { condition, log, task }
    }

    pub(crate) fn is(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }

    /// What it has reported so far.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.task.abort();
    }
}
