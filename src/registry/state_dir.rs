//! The state directory as a whole: one process has it at a time.
//!
//! Two sidecars in one directory would have one identity, and each take the other's records for its own of before. So there is a lock on
//! the file [`LOCK`], which the system gives up with the process, however that ends. What is in the directory is other modules'.

use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;
use tracing::{info, warn};

use super::state_file;

/// The file that is locked; it stays, empty.
const LOCK: &str = "lock";

/// A state directory that is this process's as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    _lock: fs_err::File,
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
        let name = || folder.display().to_string();
        match lock(folder) {
            Ok(Some(lock)) => {
                match state_file::sweep(folder) {
                    Ok(0) => {}
                    Ok(files) => info!(
                        folder = name(),
                        files, "removed what a process that was killed left half written"
                    ),
                    Err(error) => {
                        warn!(%error, "what a process that was killed left half written cannot be removed")
                    }
                }
                Ok(Self { _lock: lock })
            }
            Ok(None) => Err(StateDirError::InUse { folder: name() }),
            Err(error) => Err(StateDirError::Io { folder: name(), error }),
        }
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
