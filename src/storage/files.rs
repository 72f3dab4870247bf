//! The files of a folder by kind.

use super::StorageError;
use super::disk::Disk;
use super::file_name::{Compression, FileName, log_name};
use crate::id::Zxid;

/// The files of a folder by kind, oldest first.
pub(super) struct Files {
    pub(super) logs: Vec<Zxid>,
    pub(super) snapshots: Vec<(Zxid, Compression, String)>,
    /// Snapshots that no longer belong to the history.
    pub(super) set_aside: Vec<(Zxid, String)>,
    /// Snapshots that are to replace the history, with the end of what they replace.
    pub(super) installing: Vec<(Zxid, Zxid, String)>,
    /// What interrupted writes have left.
    pub(super) temporary: Vec<String>,
}

impl Files {
    pub(super) fn list<D: Disk>(disk: &D) -> Result<Self, StorageError> {
        let mut files = Self {
            logs: Vec::new(),
            snapshots: Vec::new(),
            set_aside: Vec::new(),
            installing: Vec::new(),
            temporary: Vec::new(),
        };
        for name in disk.list()? {
            match FileName::parse(&name) {
                // Another spelling of the same number would be another file.
                FileName::Log(zxid) if name == log_name(zxid) => files.logs.push(zxid),
                FileName::Snapshot(zxid, compression) => files.snapshots.push((zxid, compression, name)),
                FileName::SetAside(zxid) => files.set_aside.push((zxid, name)),
                FileName::Installing { zxid, replaced } => files.installing.push((zxid, replaced, name)),
                FileName::Temporary => files.temporary.push(name),
                FileName::Log(_) | FileName::Other => {}
            }
        }
        files.logs.sort_unstable();
        files.snapshots.sort_unstable_by_key(|(zxid, ..)| *zxid);
        Ok(files)
    }

    /// The logs that may hold txns after `zxid`: the newest that starts at or before it, and all later ones.
    pub(super) fn logs_after(&self, zxid: Zxid) -> &[Zxid] {
        let later = self.logs.partition_point(|first| *first <= zxid);
        &self.logs[later.saturating_sub(1)..]
    }
}
