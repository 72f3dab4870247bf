//! Tells when a settings file says something else.
//!
//! ```text
//! the folder's events (inotify) ─► pause until it is quiet ─┐                                                     yes
//! a slow poll ──────────────────────────────────────────────┼─► read ─► another text than before? ─► again a pause, read ─► still the same? ─► told
//! somebody who asks (SIGHUP) ───────────────────────────────┘                                        └───────────────────────────┘ no
//! ```
//!
//! - A file that is being written looks for a moment as if its end were missing, which may well be read without a mistake, and then takes
//!   services out. So a text counts once it was read twice, a pause apart that nothing happened in: a writer may stop for as long as that in
//!   the middle, also where no events come, or where the folder is never quiet. Who stops for longer writes beside the file, and renames.
//! - The folder is watched and not the file: Kubernetes replaces mounted files by renaming the link `..data` beside them,
//!   and editors by renaming a new file over the old one. A watch on the file itself sees the first of these at most.
//! - Any event is a reason to look, but for those that reading makes itself; what counts is whether the text differs.
//! - Where the system gives no watch (its limits, some network file systems), and where an event was lost, the poll finds it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::{ConfigError, read};

/// How long nothing may happen before the file is read, and before what was read is believed: a writer who truncates it first, or writes it in
/// pieces, is done by then. A change takes effect after twice that.
const QUIET: Duration = Duration::from_millis(500);
/// The longest wait for quiet, in a folder in which something always happens.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(1);
/// From one look to the next without any event.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// One file, and what it said last.
#[derive(Debug)]
pub struct FileWatch {
    file: PathBuf,
    folder: PathBuf,
    /// The hash of the text, or of the error, that was told last.
    told: u64,
    stirred: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    poll_interval: Duration,
}

/// Has a [`FileWatch`] look at once.
#[derive(Clone, Debug)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// Has it look.
    pub fn nudge(&self) {
        self.0.notify_one();
    }
}

impl FileWatch {
    /// Watches `file`, of which `text` is known already.
    pub fn start(file: &Path, text: &str) -> Self {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        let stirred = Arc::new(Notify::new());
        let nudge = Nudge(stirred.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may hide an event.
            if event.as_ref().map_or(true, is_change) {
                nudge.nudge();
            }
        });
        if let Err(error) = &watcher {
            let seconds = POLL_INTERVAL.as_secs();
            warn!(%error, seconds, "the settings cannot be watched; they are looked at every so many seconds");
        }
        let told = hash_of(Ok(text));
        let watcher = watcher.ok();
        let mut watch =
            Self { file: file.to_owned(), folder, told, stirred, watcher, poll_interval: POLL_INTERVAL };
        watch.watch_folder();
        // What was written between the first reading and now had no event.
        watch.stirred.notify_one();
        watch
    }

    /// The same watch, which looks without an event that often. Default: 30 s.
    #[must_use]
    pub fn with_poll_interval(self, poll_interval: Duration) -> Self {
        Self { poll_interval, ..self }
    }

    /// Has it look at once.
    pub fn nudge(&self) -> Nudge {
        Nudge(self.stirred.clone())
    }

    /// The file, as it was given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Waits until the file says something else than what was told last, and tells it.
    ///
    /// # Errors
    ///
    /// When it cannot be read any more, once.
    pub async fn next(&mut self) -> Result<String, ConfigError> {
        loop {
            tokio::select! {
                () = self.stirred.notified() => self.await_quiet().await,
                () = tokio::time::sleep(self.poll_interval) => {}
            }
            let mut before = None;
            loop {
                let (text, hash) = self.read().await;
                match judge(self.told, before, hash) {
                    Verdict::Known => break,
                    Verdict::Unsettled => self.await_quiet().await,
                    Verdict::Settled => {
                        self.told = hash;
                        return text;
                    }
                }
                before = Some(hash);
            }
        }
    }

    /// What the file says now, and the hash of that.
    async fn read(&mut self) -> (Result<String, ConfigError>, u64) {
        // Before it is read, and anew each time: the folder itself may be another one than before.
        self.watch_folder();
        let file = self.file.clone();
        let text = tokio::task::spawn_blocking(move || read(&file)).await;
        let text = text.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked).into()));
        let hash = hash_of(text.as_deref());
        (text, hash)
    }

    async fn await_quiet(&self) {
        let quiet = async { while tokio::time::timeout(QUIET, self.stirred.notified()).await.is_ok() {} };
        if tokio::time::timeout(QUIET_WAIT_MAX, quiet).await.is_err() {
            debug!(folder = %self.folder.display(), "there is no quiet in the folder");
        }
    }

    fn watch_folder(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        if let Err(error) = watcher.watch(&self.folder, RecursiveMode::NonRecursive) {
            debug!(%error, folder = %self.folder.display(), "the folder cannot be watched now; the poll goes on");
        }
    }
}

/// What is made of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is what was told last.
    Known,
    /// It may be what somebody is writing.
    Unsettled,
    /// It is to be told.
    Settled,
}

/// What is made of a file that says `now` when `told` was told last, and it said `before` a pause ago, if it was read then.
fn judge(told: u64, before: Option<u64>, now: u64) -> Verdict {
    if now == told {
        Verdict::Known
    } else if before == Some(now) {
        Verdict::Settled
    } else {
        Verdict::Unsettled
    }
}

/// Whether it can mean another text. Opening and reading are events too, also when we do them.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

fn hash_of(text: Result<&str, &ConfigError>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.map_err(ToString::to_string).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn another_text_is_told_once_however_it_comes() {
        let (folder, mut watch) = sample("a");
        let file = folder.path().join("x.yaml");
        fs::write(&file, "b").unwrap();
        assert_eq!(next(&mut watch).await, "b");
        fs::write(folder.path().join("new"), "c").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        assert_eq!(next(&mut watch).await, "c");
        // The same text again is no news, and what is beside it is none either.
        fs::write(&file, "c").unwrap();
        fs::write(folder.path().join("other.yaml"), "z").unwrap();
        fs::write(&file, "d").unwrap();
        assert_eq!(next(&mut watch).await, "d");
    }

    #[tokio::test]
    async fn a_mounted_file_is_followed_over_every_swap_of_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mount = |version: &str, text: &str| {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("x.yaml"), text).unwrap();
            std::os::unix::fs::symlink(version, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        mount("..1", "a");
        std::os::unix::fs::symlink("..data/x.yaml", at("x.yaml")).unwrap();
        let mut watch = FileWatch::start(&at("x.yaml"), "a").with_poll_interval(LONG);
        for (version, text) in [("..2", "b"), ("..3", "c"), ("..4", "d")] {
            mount(version, text);
            assert_eq!(next(&mut watch).await, text);
        }
    }

    #[tokio::test]
    async fn what_changed_before_the_watch_began_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.yaml");
        fs::write(&file, "b").unwrap();
        let mut watch = FileWatch::start(&file, "a").with_poll_interval(LONG);
        assert_eq!(next(&mut watch).await, "b");
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_told_once_and_again_when_it_is_back() {
        let (folder, mut watch) = sample("a");
        let file = folder.path().join("x.yaml");
        fs::remove_file(&file).unwrap();
        let error = within(watch.next()).await.unwrap_err();
        assert!(error.to_string().contains("x.yaml"), "{error}");
        fs::write(&file, "a").unwrap();
        assert_eq!(next(&mut watch).await, "a");
    }

    #[tokio::test]
    async fn the_poll_finds_what_no_event_tells() {
        let (folder, watch) = sample("a");
        let mut watch = watch.with_poll_interval(Duration::from_millis(20));
        watch.watcher = None;
        fs::write(folder.path().join("x.yaml"), "b").unwrap();
        assert_eq!(next(&mut watch).await, "b");
    }

    #[test]
    fn what_is_read_once_is_not_told() {
        use Verdict::{Known, Settled, Unsettled};
        for (readings, verdicts) in [
            ([1, 2, 2].as_slice(), [Unsettled, Unsettled, Settled].as_slice()),
            (&[1, 1], &[Unsettled, Settled]),
            // Truncated, and written again as it was.
            (&[1, 0], &[Unsettled, Known]),
            (&[1, 2, 1, 2, 3, 3], &[Unsettled, Unsettled, Unsettled, Unsettled, Unsettled, Settled]),
        ] {
            let mut before = None;
            for (now, verdict) in readings.iter().zip(verdicts) {
                assert_eq!(judge(0, before.replace(*now), *now), *verdict, "{now} of {readings:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_written_in_pieces_is_told_once_and_whole() {
        let (folder, mut watch) = sample("a");
        let file = folder.path().join("x.yaml");
        let write = async {
            for text in ["", "b", "bc", "bcd"] {
                fs::write(&file, text).unwrap();
                tokio::time::sleep(QUIET * 3 / 5).await;
            }
        };
        assert_eq!(tokio::join!(next(&mut watch), write).0, "bcd");
    }

    #[tokio::test]
    async fn what_the_poll_finds_half_written_is_told_whole() {
        let (folder, watch) = sample("a");
        let mut watch = watch.with_poll_interval(Duration::from_millis(20));
        watch.watcher = None;
        // Of the beginning, so that the poll is the first to look.
        watch.stirred.notified().await;
        let file = folder.path().join("x.yaml");
        let write = async {
            fs::write(&file, "b").unwrap();
            tokio::time::sleep(QUIET / 5).await;
            fs::write(&file, "bc").unwrap();
        };
        assert_eq!(tokio::join!(next(&mut watch), write).0, "bc");
    }

    #[tokio::test]
    async fn what_changes_in_a_folder_without_quiet_is_told() {
        let (folder, mut watch) = sample("a");
        fs::write(folder.path().join("x.yaml"), "b").unwrap();
        let noise = async {
            loop {
                fs::write(folder.path().join("noise"), "").unwrap();
                tokio::time::sleep(QUIET / 5).await;
            }
        };
        tokio::select! {
            text = next(&mut watch) => assert_eq!(text, "b"),
            () = noise => {}
        }
    }

    #[tokio::test]
    async fn a_folder_that_was_made_anew_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("settings");
        let file = folder.join("x.yaml");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "a").unwrap();
        let mut watch = FileWatch::start(&file, "a").with_poll_interval(Duration::from_millis(200));
        fs::remove_dir_all(&folder).unwrap();
        assert!(within(watch.next()).await.is_err());
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "b").unwrap();
        assert_eq!(next(&mut watch).await, "b");
        // By its event, and not by the poll.
        let mut watch = watch.with_poll_interval(LONG);
        fs::write(&file, "c").unwrap();
        assert_eq!(next(&mut watch).await, "c");
    }

    /// A watch that events alone wake.
    fn sample(text: &str) -> (tempfile::TempDir, FileWatch) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.yaml");
        fs::write(&file, text).unwrap();
        let watch = FileWatch::start(&file, text).with_poll_interval(LONG);
        (folder, watch)
    }

    async fn next(watch: &mut FileWatch) -> String {
        within(watch.next()).await.unwrap()
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(DEADLINE, future).await.expect("in time")
    }
}
