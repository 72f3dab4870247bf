//! Takes other settings while the sidecar runs, as the file has them.
//!
//! ```text
//! file ─► FileWatch ─► plan ─┬─ mistakes: nothing changes, all of them are logged, a metric says so
//!                            └─ what can be changed: registrar, DNS, view, log; what cannot is named
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::difference::Difference;
use super::settings::SidecarPlan;
use crate::clock;
use crate::config::{FileWatch, LocatedMistake, Nudge};
use crate::dns::{Forwarder, Handler};
use crate::http::SettingsStatus;
use crate::registry::{Registrar, ViewSettings};
use crate::telemetry::LogHandle;

/// The settings file of a running sidecar.
pub struct SettingsFile {
    watch: FileWatch,
    read: Box<ReadSettings>,
    log: LogHandle,
    is_told_by_hangup: bool,
}

/// What makes a plan of the file's text.
type ReadSettings = dyn Fn(&str) -> Result<Reading, Vec<LocatedMistake>> + Send + Sync;

/// What a text of the file came to.
#[derive(Debug)]
pub struct Reading {
    /// The sidecar's part.
    pub plan: SidecarPlan,
    /// What else differs from what runs, by its keys.
    pub restart: Vec<&'static str>,
}

impl SettingsFile {
    /// The file that `watch` looks at, which `read` makes a plan of.
    pub fn new(
        watch: FileWatch,
        log: LogHandle,
        read: impl Fn(&str) -> Result<Reading, Vec<LocatedMistake>> + Send + Sync + 'static,
    ) -> Self {
        Self { watch, read: Box::new(read), log, is_told_by_hangup: false }
    }

    /// The same, which is also looked at when SIGHUP comes. Without this the signal ends the process, as it should when a terminal is
    /// closed.
    #[must_use]
    pub fn told_by_hangup(self) -> Self {
        Self { is_told_by_hangup: true, ..self }
    }
}

impl std::fmt::Debug for SettingsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SettingsFile").field("file", &self.watch.file()).finish_non_exhaustive()
    }
}

/// How it stands with the file, for whoever asks.
#[derive(Debug)]
pub(super) struct ReloadStats {
    reloads: AtomicU64,
    status: ArcSwap<SettingsStatus>,
}

impl ReloadStats {
    /// Times that other settings took effect.
    pub(super) fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// 1 while the file cannot be used.
    pub(super) fn rejected(&self) -> u64 {
        u64::from(self.status.load().rejected.is_some())
    }

    /// 1 while the file has settings that wait for a restart.
    pub(super) fn restart_needed(&self) -> u64 {
        u64::from(!self.status.load().restart_needed.is_empty())
    }

    pub(super) fn status(&self) -> SettingsStatus {
        SettingsStatus::clone(&self.status.load())
    }
}

/// The parts that take other settings.
#[derive(Debug)]
pub(super) struct LiveParts {
    pub(super) registrar: Registrar,
    pub(super) dns: Arc<Handler>,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) view: watch::Sender<ViewSettings>,
}

/// Whoever follows the file.
#[derive(Debug)]
pub(super) struct Reloader {
    file: SettingsFile,
    parts: LiveParts,
    started: SidecarPlan,
    current: SidecarPlan,
    stats: Arc<ReloadStats>,
}

impl Reloader {
    /// Follows `file`, from which `plan` was made that runs in `parts`.
    pub(super) fn new(file: SettingsFile, plan: SidecarPlan, parts: LiveParts) -> Self {
        let status = SettingsStatus {
            file: file.watch.file().display().to_string(),
            loaded_at_ms: clock::unix_ms(),
            rejected: None,
            restart_needed: Vec::new(),
        };
        let stats = ReloadStats { reloads: AtomicU64::new(0), status: ArcSwap::from_pointee(status) };
        Self { file, parts, started: plan.clone(), current: plan, stats: Arc::new(stats) }
    }

    pub(super) fn stats(&self) -> Arc<ReloadStats> {
        self.stats.clone()
    }

    /// Runs until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let hangup = self.file.is_told_by_hangup.then(|| self.file.watch.nudge());
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow() => {}
            () = pass_on_hangups(hangup) => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            let text = self.file.watch.next().await.map_err(|error| error.to_string());
            match text.and_then(|text| self.read(&text)) {
                Ok(reading) => self.take(reading).await,
                Err(mistakes) => self.reject(mistakes),
            }
        }
    }

    fn read(&self, text: &str) -> Result<Reading, String> {
        if text.trim().is_empty() {
            // Every default, that is to take all services out: whoever wants that can say so.
            return Err(
                "the file is empty, as while somebody writes it; write services: [] to offer nothing"
                    .to_owned(),
            );
        }
        (self.file.read)(text).map_err(|mistakes| {
            let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })
    }

    async fn take(&mut self, Reading { plan, restart }: Reading) {
        let Difference { live, .. } = Difference::between(&self.current, &plan);
        let mut needed = Difference::between(&self.started, &plan).restart;
        needed.extend(restart);
        self.apply(&plan).await;
        self.current = plan;
        if live.is_empty() {
            info!("the settings file was read again; nothing that runs differs from it");
        } else {
            info!(changed = live.join(", "), "other settings take effect");
            self.stats.reloads.fetch_add(1, Ordering::Relaxed);
        }
        if !needed.is_empty() {
            warn!(
                keys = needed.join(", "),
                "these settings take effect at the next start; restart the sidecar"
            );
        }
        self.tell(|status| SettingsStatus {
            loaded_at_ms: clock::unix_ms(),
            rejected: None,
            restart_needed: needed.iter().map(|key| (*key).to_owned()).collect(),
            ..status
        });
    }

    fn reject(&self, mistakes: String) {
        let file = self.file.watch.file().display().to_string();
        for mistake in mistakes.lines() {
            error!("{}", located(&file, mistake));
        }
        warn!("the settings file cannot be used; nothing changes until it can");
        self.tell(|status| SettingsStatus { rejected: Some(mistakes.clone()), ..status });
    }

    fn tell(&self, change: impl Fn(SettingsStatus) -> SettingsStatus) {
        self.stats.status.store(Arc::new(change(self.stats.status())));
    }

    async fn apply(&self, plan: &SidecarPlan) {
        self.parts.dns.serve(plan.dns.clone());
        self.parts.forwarder.serve(plan.forward.clone());
        let view = ViewSettings { brake: plan.brake.clone(), home: plan.home.clone() };
        self.parts.view.send_if_modified(|current| {
            let differs = *current != view;
            *current = view;
            differs
        });
        if let Err(error) = self.file.log.refilter(&plan.log) {
            warn!(%error, "the log goes on as before");
        }
        // The sidecar is about to end then, and says so itself.
        let _stopped = self.parts.registrar.replace(plan.registrations.clone()).await;
    }
}

/// A mistake with the file's name in front: with its place, if it has one, and once.
fn located(file: &str, mistake: &str) -> String {
    if mistake.contains(file) {
        mistake.to_owned()
    } else if mistake.starts_with(|first: char| first.is_ascii_digit()) {
        format!("{file}:{mistake}")
    } else {
        format!("{file}: {mistake}")
    }
}

/// Has the file looked at whenever SIGHUP comes; for ever without one.
async fn pass_on_hangups(nudge: Option<Nudge>) {
    let Some(nudge) = nudge else { return std::future::pending().await };
    match signal(SignalKind::hangup()) {
        Ok(mut hangups) => {
            while hangups.recv().await.is_some() {
                info!("SIGHUP: looking at the settings file");
                nudge.nudge();
            }
        }
        Err(error) => warn!(%error, "SIGHUP cannot be heard; the settings file is watched all the same"),
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_names_its_file_once() {
        for (mistake, told) in [
            ("3:7: unknown key", "/etc/a.yaml:3:7: unknown key"),
            ("the file is empty", "/etc/a.yaml: the file is empty"),
            ("/etc/a.yaml: not UTF-8 text", "/etc/a.yaml: not UTF-8 text"),
        ] {
            assert_eq!(located("/etc/a.yaml", mistake), told);
        }
    }
}
