//! Keeps the saved view as current as the cache, as far as that is worth its cost.
//!
//! A view that changes is saved at once, and then not before a pause that grows with what the save cost: it is written as a whole, and some
//! hundred changes a second are nothing unusual. So all saves together take at most 2 % of the time and write 256 KiB a second, unless the
//! pause would be longer than 30 s. Who changed in the last pause is not in the file after a crash; an orderly end saves once more.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::cache::Cache;
use super::layout::Layout;
use super::saved_view::SavedView;
use super::state_dir::StateFolder;
use crate::clock::{self, Moment};

/// The shortest pause after a save.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest, and so how far behind the file of a busy registry may be.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A pause is this many times as long as the save took.
const PAUSE_PER_TIME: u32 = 50;
/// And as long as writes all that was written at this rate.
const BYTES_PER_S_MAX: u64 = 256 * 1024;
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
    folder: StateFolder,
    layout: Layout,
    stats: Arc<ViewKeeperStats>,
    has_failed: bool,
}

impl ViewKeeper {
    /// A keeper of `cache`'s view in `folder`.
    pub fn new(cache: Arc<Cache>, folder: impl Into<StateFolder>, layout: Layout) -> Self {
        Self { cache, folder: folder.into(), layout, stats: Arc::default(), has_failed: false }
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<ViewKeeperStats> {
        self.stats.clone()
    }

    /// Runs until `shutdown`, and saves what is known then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut published = self.cache.subscribe();
        let mut losses = self.folder.losses();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = published.changed() => if changed.is_err() { break },
                () = self.folder.lost(losses) => {}
                () = tokio::time::sleep(PROOF_GAP) => {}
            }
            losses = self.folder.losses();
            let pause = self.save().await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.save().await;
    }

    /// Saves, and returns how long not to save again. Nothing is saved before something was proved current: what was loaded is still there,
    /// with its own age.
    async fn save(&mut self) -> Duration {
        let Some(age) = self.cache.proved_age(clock::now()) else { return PAUSE_MIN };
        // Who has it by now is told of by whoever noticed.
        let Some(folder) = self.folder.path().map(Path::to_owned) else { return PAUSE_MIN };
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let view = self.cache.load_full();
        let (path, layout) = (folder.clone(), self.layout.clone());
        let saving = tokio::task::spawn_blocking(move || {
            let view = view.as_ref().clone();
            let moment = Moment::read();
            let current_at_ms = moment.unix_ms.saturating_sub(age_ms);
            let saved = SavedView { view, current_at_ms }.save(&path, &layout, moment);
            (saved, clock::now().saturating_duration_since(moment.now))
        });
        let failed = |panicked| (Err(io::Error::other(panicked)), Duration::ZERO);
        let (saved, took) = saving.await.unwrap_or_else(failed);
        let pause = pause_after(took, *saved.as_ref().unwrap_or(&0));
        match saved {
            Ok(_bytes) => {
                self.stats.saves.fetch_add(1, Ordering::Relaxed);
                self.stats.saved_at_ms.store(clock::unix_ms(), Ordering::Relaxed);
                self.has_failed = false;
            }
            Err(error) => {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                if std::mem::replace(&mut self.has_failed, true) {
                    debug!(%error, "the view is still not saved");
                } else {
                    warn!(%error, folder = %folder.display(), "cannot save the view; after a restart the sidecar knows what it saved last");
                }
            }
        }
        pause
    }
}

/// How long not to save again after a save that took that long and wrote that much.
fn pause_after(took: Duration, bytes: u64) -> Duration {
    let by_bytes = Duration::from_millis(bytes.saturating_mul(1_000) / BYTES_PER_S_MAX);
    by_bytes.max(took.saturating_mul(PAUSE_PER_TIME)).clamp(PAUSE_MIN, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SessionId, Zxid};
    use crate::registry::{Instance, Label, Record, Service, ServiceKey, View};

    #[test]
    fn the_pause_grows_with_time_and_size_within_bounds() {
        let ms = Duration::from_millis;
        for (took, bytes, pause) in [
            (ms(1), 100, PAUSE_MIN),
            (ms(100), 100, ms(5_000)),
            (ms(1), 4 << 20, ms(16_000)),
            (ms(400), 4 << 20, ms(20_000)),
            (ms(2_000), 100, PAUSE_MAX),
            (ms(1), 64 << 20, PAUSE_MAX),
        ] {
            assert_eq!(pause_after(took, bytes), pause, "{took:?}, {bytes} bytes");
        }
    }

    #[tokio::test]
    async fn a_large_view_is_not_saved_again_for_as_long_as_its_size_asks() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = keeper(folder.path(), 5_000);
        let pause = keeper.save().await;
        assert_eq!(keeper.stats.saves(), 1);
        let bytes = std::fs::metadata(folder.path().join("view")).unwrap().len();
        assert!(bytes > 2 * BYTES_PER_S_MAX, "{bytes}");
        assert!(pause >= Duration::from_millis(bytes * 1_000 / BYTES_PER_S_MAX), "{bytes} {pause:?}");
    }

    #[tokio::test]
    async fn what_changed_in_a_pause_is_saved_at_an_orderly_end() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = keeper(folder.path(), 5_000);
        let (cache, stats, shutdown) = (keeper.cache.clone(), keeper.stats(), CancellationToken::new());
        let running = tokio::spawn(keeper.run(shutdown.clone()));
        let saved = async {
            while stats.saves() == 0 {
                cache.publish(View::clone(&cache.load()));
                tokio::task::yield_now().await;
            }
            cache.publish(view(1));
            shutdown.cancel();
            running.await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(20), saved).await.expect("no pause is waited for");
        assert_eq!(stats.saves(), 2, "one at the first change, one at the end");
        let saved = SavedView::load(folder.path(), &Layout::default(), Moment::read()).unwrap().unwrap();
        assert_eq!(saved.view.services.values().next().unwrap().instances.len(), 1);
    }

    fn keeper(folder: &Path, instances: u16) -> ViewKeeper {
        let cache = Arc::new(Cache::new(clock::now()));
        cache.publish(view(instances));
        cache.prove_current(clock::now());
        ViewKeeper::new(cache, folder.to_owned(), Layout::default())
    }

    fn view(instances: u16) -> View {
        let label = |text: &str| Label::parse(text).unwrap();
        let text = br#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
        let record = Record::decode(text).unwrap();
        let instance = |number| {
            let id = label(&format!("web-{number:05}"));
            Arc::new(Instance::new(id, record.clone(), Zxid::ZERO, SessionId(1)))
        };
        let key = ServiceKey { namespace: label("default"), name: label("web") };
        let service =
            Service { instances: (0..instances).map(instance).collect(), ..Service::new(key.clone()) };
        View { services: [Arc::new(service)].into(), is_loaded: true, ..View::default() }
    }
}
