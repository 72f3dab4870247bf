//! Carries out one check over and over: asks or hears, keeps the time, counts.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::board::{CheckSlot, HealthBoard};
use super::exec::KilledGroups;
use super::failure::CheckFailure;
use super::health::{Health, HealthState};
use super::load::{Damping, Pass};
use super::target::{Asking, Check, CheckSource, CheckTarget};
use super::ttl::TtlClock;
use super::{agent, exec, grpc, http, tcp};
use crate::registry::report::{CheckKey, ReportReceiver, TtlReports};
use crate::tls::TlsClient;

/// Runs `check` until nobody reads the board any more, and publishes each change of state at `slot` of it. What stands there
/// is gone on from, without a delay at the start. Reports to it are taken from `reports` by its `key`.
pub async fn run(check: Check, key: CheckKey, board: HealthBoard, slot: CheckSlot, reports: TtlReports) {
    let state = board.state(slot);
    let health = Health::resumed(check.rise, check.fall, state);
    let counted = Counted { health, damping: Damping::default(), board, slot };
    let delay = if state == HealthState::Initial { check.start_delay } else { Duration::ZERO };
    let start = crate::clock::now() + delay;
    match check.source {
        CheckSource::Asked(asking) => ask_again_and_again(asking, counted, start).await,
        CheckSource::Reported { ttl } => {
            let reports = reports.register(key);
            await_reports(TtlClock::new(ttl, start), counted, reports).await;
        }
    }
}

async fn ask_again_and_again(asking: Asking, mut counted: Counted, start: Instant) {
    let Asking { target, interval, timeout, jitter } = asking;
    let mut asker = Asker::new(target);
    let mut due = start;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = counted.board.closed() => return,
        }
        counted.on_result(&asker.ask_within(timeout).await);
        due = next_due(due, crate::clock::now(), interval, jitter.mul_f64(fastrand::f64()));
    }
}

async fn await_reports(mut clock: TtlClock, mut counted: Counted, mut reports: ReportReceiver) {
    loop {
        tokio::select! {
            biased;
            () = counted.board.closed() => return,
            changed = reports.changed() => {
                let report = reports.borrow_and_update().clone();
                match (changed, report) {
                    (Ok(()), Some(report)) => {
                        let result = clock.on_report(&report).map(|()| Pass::default());
                        counted.on_result(&result.map_err(CheckFailure::from));
                    }
                    (Ok(()), None) => {}
                    // Another run of the same check has taken the place.
                    (Err(_), _) => return,
                }
            }
            () = tokio::time::sleep_until(clock.due().into()) => {
                // Only a silence that is over is a result: a timer may fire early.
                if let Err(failure) = clock.on_time(crate::clock::now()) {
                    counted.on_result(&Err(failure.into()));
                }
            }
        }
    }
}

/// Counts the results of one check, and publishes what they change.
struct Counted {
    health: Health,
    damping: Damping,
    board: HealthBoard,
    slot: CheckSlot,
}

impl Counted {
    fn on_result(&mut self, result: &Result<Pass, CheckFailure>) {
        let change = match result {
            Ok(pass) => {
                let share_percent = self.damping.on_pass(*pass, crate::clock::now());
                self.board.on_share(self.slot, share_percent);
                self.health.on_result(true)
            }
            // An instance must not leave because its sidecar is short of files.
            Err(failure @ CheckFailure::NotAsked { .. }) => {
                warn!(%failure, "check not made; the last state stays");
                None
            }
            Err(failure) => {
                debug!(%failure, "check failed");
                self.health.on_result(false)
            }
        };
        match (change, result) {
            (None, _) => {}
            (Some(state), Ok(_pass)) => info!(?state, "check rose"),
            (Some(state), Err(failure)) => info!(?state, %failure, "check fell"),
        }
        self.board.on_result(self.slot, &self.health, result.as_ref().err(), crate::clock::unix_ms());
    }
}

/// Whoever asks one target, with what is kept from one time to the next.
#[derive(Debug)]
pub struct Asker {
    target: CheckTarget,
    /// For https, and for grpc over TLS.
    tls: Option<TlsClient>,
    /// For exec.
    killed: KilledGroups,
}

impl Asker {
    /// Asks nothing yet.
    pub fn new(target: CheckTarget) -> Self {
        let tls = target.tls().map(|tls| TlsClient::new(tls.trust.clone()));
        let tls = match target {
            CheckTarget::Grpc(_) => tls.map(|tls| tls.speaking(grpc::ALPN)),
            CheckTarget::Http(_)
            | CheckTarget::Exec(_)
            | CheckTarget::Tcp { .. }
            | CheckTarget::Agent { .. } => tls,
        };
        Self { target, tls, killed: KilledGroups::default() }
    }

    /// Asks once.
    ///
    /// # Errors
    ///
    /// When the answer is not as expected, or there is none within `timeout`.
    pub async fn ask_within(&mut self, timeout: Duration) -> Result<Pass, CheckFailure> {
        tokio::time::timeout(timeout, self.ask(timeout))
            .await
            .unwrap_or(Err(CheckFailure::Timeout { timeout }))
    }

    async fn ask(&mut self, timeout: Duration) -> Result<Pass, CheckFailure> {
        let passed = |()| Pass::default();
        match &self.target {
            CheckTarget::Tcp { server } => tcp::connect(*server).await.map(|_connection| Pass::default()),
            CheckTarget::Agent { server } => agent::ask(*server).await,
            CheckTarget::Http(target) => http::ask(target, self.tls.as_ref()).await,
            CheckTarget::Grpc(target) => grpc::ask(target, self.tls.as_ref(), timeout).await.map(passed),
            CheckTarget::Exec(target) => exec::ask(target, &mut self.killed).await.map(passed),
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
