//! Keeps for the next process which instances are in maintenance.

use std::io;
use std::path::PathBuf;

use tracing::{error, warn};

use crate::registry::change::Keeping;
use crate::registry::maintenance::MaintenanceFile;

/// Whoever writes the file.
#[derive(Debug)]
pub(super) struct MaintenanceKeeper {
    folder: Option<PathBuf>,
    /// What the file says, or should if it could be read.
    saved: MaintenanceFile,
}

impl MaintenanceKeeper {
    /// A keeper that goes on from what `folder` has. A file that cannot be read is left as it is until the next change, and puts nobody into
    /// maintenance, as one that is damaged.
    pub(super) fn load(folder: Option<PathBuf>) -> Self {
        let loaded = folder.as_deref().map_or_else(|| Ok(MaintenanceFile::default()), MaintenanceFile::load);
        let saved = loaded.unwrap_or_else(|error| {
            error!(%error, "no instance is in maintenance now; put those that should be there again");
            MaintenanceFile::default()
        });
        Self { folder, saved }
    }

    /// What the process before has left.
    pub(super) const fn saved(&self) -> &MaintenanceFile {
        &self.saved
    }

    /// Sees that the file says this.
    pub(super) async fn keep(&mut self, wanted: MaintenanceFile) -> Keeping {
        let Some(folder) = self.folder.clone() else { return Keeping::NoStateDir };
        if self.saved == wanted {
            return Keeping::Kept;
        }
        let written = wanted.clone();
        let saved = tokio::task::spawn_blocking(move || written.save(&folder)).await;
        match saved.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
            Ok(()) => {
                self.saved = wanted;
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

    #[tokio::test]
    async fn a_file_that_cannot_be_read_puts_nobody_into_maintenance() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(MaintenanceFile::NAME)).unwrap();
        let mut keeper = MaintenanceKeeper::load(Some(folder.path().to_owned()));
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
        let mut keeper = MaintenanceKeeper { folder: Some(file), saved: MaintenanceFile::default() };
        let keeping = keeper.keep(sample()).await;
        assert!(matches!(keeping, Keeping::Failed { .. }), "{keeping:?}");
    }

    fn sample() -> MaintenanceFile {
        let maintenance = Maintenance { reason: Reason::default(), since_ms: 7 };
        MaintenanceFile { instances: [("web.default/web-1".to_owned(), maintenance)].into() }
    }
}
