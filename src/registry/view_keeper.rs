//! Keeps the saved view as current as the cache.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::cache::Cache;
use super::layout::Layout;
use super::saved_view::SavedView;
use crate::clock::{self, Moment};

/// Saves are at least this far apart: a busy registry changes hundreds of times a second, and a view may have megabytes.
const SAVE_GAP: Duration = Duration::from_secs(1);
/// A view that does not change is saved again so often, so that its age after a restart is true to that much.
const PROOF_GAP: Duration = Duration::from_secs(60);

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct ViewKeeperStats {
    saves: AtomicU64,
    /// 0 before the first.
    saved_at_ms: AtomicI64,
    failures: AtomicU64,
}

impl ViewKeeperStats {
    /// Times that the view was saved.
    pub fn saves(&self) -> u64 {
        self.saves.load(Ordering::Relaxed)
    }

    /// When it was saved last, in ms since 1970; `None` before the first time.
    pub fn saved_at_ms(&self) -> Option<i64> {
        Some(self.saved_at_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// Times that this failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// The task that saves a [`Cache`]'s view in a folder.
#[derive(Debug)]
pub struct ViewKeeper {
    cache: Arc<Cache>,
    folder: PathBuf,
    layout: Layout,
    stats: Arc<ViewKeeperStats>,
    has_failed: bool,
}

impl ViewKeeper {
    /// A keeper of `cache`'s view in `folder`.
    pub fn new(cache: Arc<Cache>, folder: PathBuf, layout: Layout) -> Self {
        Self { cache, folder, layout, stats: Arc::default(), has_failed: false }
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<ViewKeeperStats> {
        self.stats.clone()
    }

    /// Runs until `shutdown`, and saves what is known then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut published = self.cache.subscribe();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = published.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(PROOF_GAP) => {}
            }
            self.save().await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(SAVE_GAP) => {}
            }
        }
        self.save().await;
    }

    /// Nothing is saved before something was proved current: what was loaded is still there, with its own age.
    async fn save(&mut self) {
        let Some(age) = self.cache.proved_age(clock::now()) else { return };
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let view = self.cache.load_full();
        let (folder, layout) = (self.folder.clone(), self.layout.clone());
        let saving = tokio::task::spawn_blocking(move || {
            let view = view.as_ref().clone();
            let moment = Moment::read();
            let current_at_ms = moment.unix_ms.saturating_sub(age_ms);
            SavedView { view, current_at_ms }.save(&folder, &layout, moment)
        });
        let saved = saving.await.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)));
        match saved {
            Ok(()) => {
                self.stats.saves.fetch_add(1, Ordering::Relaxed);
                self.stats.saved_at_ms.store(clock::unix_ms(), Ordering::Relaxed);
                self.has_failed = false;
            }
            Err(error) => {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                if std::mem::replace(&mut self.has_failed, true) {
                    debug!(%error, "the view is still not saved");
                } else {
                    warn!(%error, folder = %self.folder.display(), "cannot save the view; after a restart the sidecar knows what it saved last");
                }
            }
        }
    }
}
