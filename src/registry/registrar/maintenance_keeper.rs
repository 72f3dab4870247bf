//! Keeps for the next process which instances are in maintenance.

use std::io;

use tracing::{error, warn};

use crate::registry::change::Keeping;
use crate::registry::maintenance::MaintenanceFile;
use crate::registry::state_dir::StateFolder;

/// Whoever writes the file.
#[derive(Debug)]
pub(super) struct MaintenanceKeeper {
    folder: Option<StateFolder>,
    /// What the file says, or should if it could be read.
    saved: MaintenanceFile,
    /// How often the folder had been lost by then.
    losses: u64,
}

impl MaintenanceKeeper {
    /// A keeper that goes on from what `folder` has. A file that cannot be read is left as it is until the next change, and puts nobody into
    /// maintenance, as one that is damaged.
    pub(super) fn load(folder: Option<StateFolder>) -> Self {
        let path = folder.as_ref().and_then(StateFolder::path);
        let loaded = path.map_or_else(|| Ok(MaintenanceFile::default()), MaintenanceFile::load);
        let saved = loaded.unwrap_or_else(|error| {
            error!(%error, "no instance is in maintenance now; put those that should be there again");
            MaintenanceFile::default()
        });
        Self { losses: folder.as_ref().map_or(0, StateFolder::losses), folder, saved }
    }

    /// What the process before has left.
    pub(super) const fn saved(&self) -> &MaintenanceFile {
        &self.saved
    }

    /// Sees that the file says this.
    pub(super) async fn keep(&mut self, wanted: MaintenanceFile) -> Keeping {
        let Some(folder) = self.folder.clone() else { return Keeping::NoStateDir };
        let losses = folder.losses();
        if self.saved == wanted && self.losses == losses && folder.path().is_some() {
            return Keeping::Kept;
        }
        let written = wanted.clone();
        let saved = tokio::task::spawn_blocking(move || match folder.path() {
            Some(path) => written.save(path),
            None => Err(io::Error::other("the state directory is another sidecar's")),
        });
        match saved.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
            Ok(()) => {
                (self.saved, self.losses) = (wanted, losses);
                Keeping::Kept
            }
            Err(error) => {
                warn!(%error, "cannot keep who is in maintenance; tried again soon");
                Keeping::Failed { reason: error.to_string() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::maintenance::{Maintenance, Reason};
    use crate::registry::state_dir::StateDir;

    #[tokio::test]
    async fn a_file_that_cannot_be_read_puts_nobody_into_maintenance() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(MaintenanceFile::NAME)).unwrap();
        let mut keeper = MaintenanceKeeper::load(Some(folder.path().to_owned().into()));
        assert_eq!(keeper.saved(), &MaintenanceFile::default());
        assert_eq!(keeper.keep(MaintenanceFile::default()).await, Keeping::Kept);
        std::fs::remove_dir(folder.path().join(MaintenanceFile::NAME)).unwrap();
        let file = sample();
        assert_eq!(keeper.keep(file.clone()).await, Keeping::Kept);
        assert_eq!(MaintenanceFile::load(folder.path()).unwrap(), file);
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_said() {
        assert_eq!(MaintenanceKeeper::load(None).keep(sample()).await, Keeping::NoStateDir);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a-file");
        std::fs::write(&file, "").unwrap();
        let mut keeper =
            MaintenanceKeeper { folder: Some(file.into()), saved: MaintenanceFile::default(), losses: 0 };
        let keeping = keeper.keep(sample()).await;
        assert!(matches!(keeping, Keeping::Failed { .. }), "{keeping:?}");
    }

    #[tokio::test]
    async fn what_was_lost_is_written_again_and_nothing_into_what_another_has() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let state_dir = StateDir::open(&path).unwrap();
        let mut keeper = MaintenanceKeeper::load(Some(state_dir.folder().clone()));
        assert_eq!(keeper.keep(sample()).await, Keeping::Kept);
        std::fs::remove_dir_all(&path).unwrap();
        state_dir.look("me").unwrap();
        assert_eq!(keeper.keep(sample()).await, Keeping::Kept);
        assert_eq!(MaintenanceFile::load(&path).unwrap(), sample());

        std::fs::remove_dir_all(&path).unwrap();
        let _other = StateDir::open(&path).unwrap();
        state_dir.look("me").unwrap_err();
        let keeping = keeper.keep(MaintenanceFile::default()).await;
        assert!(matches!(keeping, Keeping::Failed { .. }), "{keeping:?}");
        assert!(!path.join(MaintenanceFile::NAME).exists());
    }

    fn sample() -> MaintenanceFile {
        let maintenance = Maintenance { reason: Reason::default(), since_ms: 7 };
        MaintenanceFile { instances: [("web.default/web-1".to_owned(), maintenance)].into() }
    }
}
