//! Carries out one check over and over: asks, keeps the time, counts.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::board::HealthBoard;
use super::exec::KilledGroups;
use super::failure::CheckFailure;
use super::health::Health;
use super::target::{Check, CheckTarget};
use super::{exec, grpc, http, tcp};
use crate::tls::TlsClient;

/// Runs `check`, the one at `index` of `board`, until nobody reads the board any more, and publishes each change of
/// state there. The first check starts after its `start_delay`.
pub async fn run(check: Check, board: HealthBoard, index: usize) {
    let mut counted = Health::new(check.rise, check.fall);
    let mut asker = Asker::new(check.target);
    let mut due = crate::clock::now() + check.start_delay;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = board.closed() => return,
        }
        let result = asker.ask_within(check.timeout).await;
        count(&mut counted, &result, &board, index);
        due = next_due(due, crate::clock::now(), check.interval, check.jitter.mul_f64(fastrand::f64()));
    }
}

/// Counts a result, and publishes what it changes.
fn count(counted: &mut Health, result: &Result<(), CheckFailure>, board: &HealthBoard, index: usize) {
    let change = match result {
        Ok(()) => counted.on_result(true),
        // An instance must not leave because its sidecar is short of files.
        Err(failure @ CheckFailure::NotAsked { .. }) => {
            warn!(%failure, "check not made; the last state stays");
            None
        }
        Err(failure) => {
            debug!(%failure, "check failed");
            counted.on_result(false)
        }
    };
    let Some(state) = change else { return };
    match result {
        Ok(()) => info!(?state, "check rose"),
        Err(failure) => info!(?state, %failure, "check fell"),
    }
    board.set(index, state);
}

/// Whoever asks one target, with what is kept from one time to the next.
#[derive(Debug)]
pub struct Asker {
    target: CheckTarget,
    /// For https.
    tls: Option<TlsClient>,
    /// For exec.
    killed: KilledGroups,
}

impl Asker {
    /// Asks nothing yet.
    pub fn new(target: CheckTarget) -> Self {
        let tls = match &target {
            CheckTarget::Http(target) => target.tls.as_ref().map(|tls| TlsClient::new(tls.trust.clone())),
            CheckTarget::Grpc(_) | CheckTarget::Exec(_) | CheckTarget::Tcp { .. } => None,
        };
        Self { target, tls, killed: KilledGroups::default() }
    }

    /// Asks once.
    ///
    /// # Errors
    ///
    /// When the answer is not as expected, or there is none within `timeout`.
    pub async fn ask_within(&mut self, timeout: Duration) -> Result<(), CheckFailure> {
        tokio::time::timeout(timeout, self.ask(timeout))
            .await
            .unwrap_or(Err(CheckFailure::Timeout { timeout }))
    }

    async fn ask(&mut self, timeout: Duration) -> Result<(), CheckFailure> {
        match &self.target {
            CheckTarget::Tcp { server } => tcp::connect(*server).await.map(drop),
            CheckTarget::Http(target) => http::ask(target, self.tls.as_ref()).await,
            CheckTarget::Grpc(target) => grpc::ask(target, timeout).await,
            CheckTarget::Exec(target) => exec::ask(target, &mut self.killed).await,
        }
    }
}

/// When the next check starts, if this one was due at `due`. Intervals count from when checks were due, not from
/// when they ended, so that the rate does not drift; `jitter` only shortens. After a pause (a suspended process) the
/// checks that were missed are not made up for.
fn next_due(due: Instant, now: Instant, interval: Duration, jitter: Duration) -> Instant {
    let next = due + interval.saturating_sub(jitter);
    if now.saturating_duration_since(next) > interval { now } else { next }
}

#[cfg(test)]
mod tests;
