//! The state directory as a whole: one process has it at a time.
//!
//! Two sidecars in one directory would have one identity, and each take the other's records for its own of before. So there is a lock on
//! the file [`LOCK`], which the system gives up with the process, however that ends. What is in the directory is other modules'.
//!
//! A directory that is removed or replaced while the process runs takes all of that with it, the lock included: a file that has no name any
//! more keeps nobody out. So whether the file is still where it was is looked at now and then ([`StateDir::look`]). Where it is not, another
//! is locked in its place, the identity written again, and those who keep something there are told to do so, too ([`StateFolder`]).

use std::error::Error as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::owner;
use super::state_file;

/// The file that is locked; it stays, empty.
const LOCK: &str = "lock";
/// From one look to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// A state directory that is this process's as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    folder: StateFolder,
    lock: Mutex<fs_err::File>,
}

/// The state directory, for those who keep something there.
#[derive(Clone, Debug)]
pub struct StateFolder {
    path: PathBuf,
    standing: Arc<Standing>,
}

/// How it stands with a state directory.
#[derive(Debug, Default)]
struct Standing {
    losses: watch::Sender<u64>,
    is_others: AtomicBool,
    /// Why it is not to be had now.
    trouble: Mutex<Option<String>>,
}

/// What a look at a state directory came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is as it was.
    Whole,
    /// It had been removed or replaced, and is there again.
    MadeAnew,
}

/// Why a state directory is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another sidecar has it.
    #[error(
        "state_dir: another sidecar that runs keeps its identity in {folder:?}; stop that one, or give each a directory of its own"
    )]
    InUse {
        /// The directory.
        folder: String,
    },
    /// It cannot be made or written.
    #[error(
        "state_dir: {folder:?} cannot be used; make it a directory that can be written, or leave state_dir out"
    )]
    Io {
        /// The directory.
        folder: String,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl StateDir {
    /// Takes `folder`, which is made if need be, for this process, and removes what earlier ones have left half written.
    ///
    /// # Errors
    ///
    /// When another has it, or it cannot be used.
    pub fn open(folder: &Path) -> Result<Self, StateDirError> {
        let name = folder.display();
        let lock = take(folder)?;
        match state_file::sweep(folder) {
            Ok(0) => {}
            Ok(files) => {
                info!(folder = %name, files, "removed what a process that was killed left half written")
            }
            Err(error) => {
                warn!(%error, "what a process that was killed left half written cannot be removed")
            }
        }
        Ok(Self { folder: folder.to_owned().into(), lock: Mutex::new(lock) })
    }

    /// Where others keep something.
    pub const fn folder(&self) -> &StateFolder {
        &self.folder
    }

    /// Looks whether the directory is still there, this process's, and knows `owner`, and makes it so again.
    ///
    /// # Errors
    ///
    /// When another has it by now, or it cannot be used.
    pub fn look(&self, owner: &str) -> Result<Look, StateDirError> {
        let StateFolder { path, standing } = &self.folder;
        let failed = |error| StateDirError::Io { folder: path.display().to_string(), error };
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let has_lock = is_at(&lock, &path.join(LOCK)).map_err(failed)?;
        if has_lock && state_file::exists(&path.join(owner::FILE)).map_err(failed)? {
            return Ok(Look::Whole);
        }
        if !has_lock {
            *lock = take(path).inspect_err(|error| {
                let is_others = matches!(error, StateDirError::InUse { .. });
                standing.is_others.store(is_others, Ordering::Relaxed);
            })?;
            standing.is_others.store(false, Ordering::Relaxed);
        }
        owner::keep(path, owner).map_err(failed)?;
        standing.losses.send_modify(|losses| *losses += 1);
        Ok(Look::MadeAnew)
    }

    /// Looks now and then, as the sidecar that is known as `owner`, until `shutdown`.
    pub async fn watch(self: Arc<Self>, owner: String, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let (dir, owner) = (self.clone(), owner.clone());
            let Ok(look) = tokio::task::spawn_blocking(move || dir.look(&owner)).await else { return };
            match look {
                Ok(Look::Whole) => drop(self.folder.take_trouble(None)),
                Ok(Look::MadeAnew) => {
                    self.folder.take_trouble(None);
                    warn!(
                        folder = %self.folder.path.display(),
                        "the state directory was removed or replaced; it is made anew, with what this process knows; see that nobody clears \
                         it while a sidecar runs"
                    );
                }
                Err(error) => {
                    let reason = match error.source() {
                        Some(cause) => format!("{error}: {cause}"),
                        None => error.to_string(),
                    };
                    if self.folder.take_trouble(Some(reason.clone())).as_ref() != Some(&reason) {
                        error!(
                            reason,
                            "the state directory was removed or replaced, and after a restart the sidecar knows nothing of this process"
                        );
                    }
                }
            }
        }
    }
}

impl StateFolder {
    /// Where to write; `None` while it is another sidecar's.
    pub fn path(&self) -> Option<&Path> {
        let is_others = self.standing.is_others.load(Ordering::Relaxed);
        (!is_others).then_some(&self.path)
    }

    /// The directory, whoever has it.
    pub fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Why it is not to be had now, if it is not.
    pub fn trouble(&self) -> Option<String> {
        self.standing.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says so from now on; returns what was said before.
    fn take_trouble(&self, trouble: Option<String>) -> Option<String> {
        let mut known = self.standing.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut known, trouble)
    }

    /// How often what was there was lost. What was written before the last time is to be written again.
    pub fn losses(&self) -> u64 {
        *self.standing.losses.borrow()
    }

    /// Waits until it was lost again after `known` times.
    pub async fn lost(&self, known: u64) {
        let mut losses = self.standing.losses.subscribe();
        let _never_closed = losses.wait_for(|losses| *losses != known).await;
    }
}

/// A folder that nobody looks at.
impl From<PathBuf> for StateFolder {
    fn from(path: PathBuf) -> Self {
        Self { path, standing: Arc::default() }
    }
}

/// Locks `folder` for this process.
fn take(folder: &Path) -> Result<fs_err::File, StateDirError> {
    let name = || folder.display().to_string();
    match lock(folder) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(StateDirError::InUse { folder: name() }),
        Err(error) => Err(StateDirError::Io { folder: name(), error }),
    }
}

/// Whether `file` is the one that `path` names.
fn is_at(file: &fs_err::File, path: &Path) -> io::Result<bool> {
    match fs_err::metadata(path) {
        Ok(named) => {
            let file = file.metadata()?;
            Ok((named.dev(), named.ino()) == (file.dev(), file.ino()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `None` when another process has it.
fn lock(folder: &Path) -> io::Result<Option<fs_err::File>> {
    fs_err::create_dir_all(folder)?;
    let path = folder.join(LOCK);
    state_file::exists(&path)?;
    // Opened for writing, which network file systems demand of who locks.
    let file = fs_err::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => {
            let source = io::Error::from(errno);
            Err(io::Error::new(source.kind(), format!("cannot lock {}: {source}", file.path().display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn one_at_a_time_has_a_state_directory() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("made").join("state");
        let first = StateDir::open(&state_dir).unwrap();
        let second = StateDir::open(&state_dir).unwrap_err();
        assert!(matches!(second, StateDirError::InUse { .. }), "{second:?}");
        let told = second.to_string();
        assert!(
            told.contains(state_dir.to_str().unwrap()) && told.contains("a directory of its own"),
            "{told}"
        );
        let half_written = state_dir.join(".rollcall-AbC123");
        std::fs::write(&half_written, "").unwrap();
        StateDir::open(&state_dir).unwrap_err();
        assert!(half_written.exists(), "the other may be writing it");
        drop(first);
        let _third = StateDir::open(&state_dir).unwrap();
        assert!(!half_written.exists());
    }

    #[test]
    fn a_directory_that_was_removed_or_replaced_is_made_anew_with_its_lock_and_its_identity() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let state_dir = StateDir::open(&path).unwrap();
        let owner = owner::owner_id(Some(&path)).unwrap();
        let replace = |by: &Path| {
            std::fs::rename(&path, parent.path().join("before")).unwrap();
            std::fs::rename(by, &path).unwrap();
            std::fs::remove_dir_all(parent.path().join("before")).unwrap();
        };
        let mut losses = 0;
        let mut expect_made_anew = || {
            assert_eq!(state_dir.look(&owner).unwrap(), Look::MadeAnew);
            losses += 1;
            assert_eq!((state_dir.folder().losses(), state_dir.folder().path()), (losses, Some(&*path)));
            assert_eq!(owner::owner_id(Some(&path)).unwrap(), owner);
            StateDir::open(&path).unwrap_err();
            assert_eq!(state_dir.look(&owner).unwrap(), Look::Whole);
            assert_eq!(state_dir.folder().losses(), losses, "nothing was lost");
        };
        std::fs::remove_dir_all(&path).unwrap();
        expect_made_anew();
        let empty = parent.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        replace(&empty);
        expect_made_anew();
        // The lock is in its place, and there is no other beside it.
        std::fs::remove_file(path.join(owner::FILE)).unwrap();
        expect_made_anew();
    }

    #[test]
    fn a_directory_that_another_has_by_now_is_left_to_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let state_dir = StateDir::open(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        let other = StateDir::open(&path).unwrap();
        let theirs = owner::owner_id(Some(&path)).unwrap();
        for _ in 0..2 {
            let error = state_dir.look("me").unwrap_err();
            assert!(matches!(error, StateDirError::InUse { .. }), "{error:?}");
            assert_eq!((state_dir.folder().path(), state_dir.folder().losses()), (None, 0));
        }
        assert_eq!(owner::owner_id(Some(&path)).unwrap(), theirs);
        drop(other);
        assert_eq!(state_dir.look("me").unwrap(), Look::MadeAnew);
        assert_eq!(state_dir.folder().path(), Some(&*path));
    }

    #[test]
    fn what_cannot_be_made_anew_is_told_and_tried_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let state_dir = StateDir::open(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        let error = state_dir.look("me").unwrap_err();
        assert!(matches!(error, StateDirError::Io { .. }), "{error:?}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(state_dir.look("me").unwrap(), Look::MadeAnew);
    }

    #[test]
    fn what_is_no_directory_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = StateDir::open(&file).unwrap_err();
        assert!(matches!(error, StateDirError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_lock_that_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join(LOCK);
        mkfifoat(CWD, &lock, Mode::RUSR | Mode::WUSR).unwrap();
        let StateDirError::Io { error, .. } = StateDir::open(folder.path()).unwrap_err() else { panic!() };
        assert_eq!(error.to_string(), format!("{} is no regular file; remove it", lock.display()));
    }
}
