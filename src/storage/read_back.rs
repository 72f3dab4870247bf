//! Reading the log of a running member, for a learner that lacks what is in it.

use std::io::{Seek, SeekFrom};

use bytes::Bytes;

use super::disk::Disk;
use super::file_name::log_name;
use super::log_reader::LogReader;
use super::recovery::Files;
use super::{Storage, StorageError};
use crate::id::Zxid;
use crate::zab::{Entry, continues};

impl<D: Disk> Storage<D> {
    /// All entries after `after`, if the log can tell them: it holds `after` itself, or starts right behind the snapshot
    /// of that name. `None` otherwise, and when they are more than `bytes_max`.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn read_log(&mut self, after: Zxid, bytes_max: u64) -> Result<Option<Vec<Entry>>, StorageError> {
        self.sync()?;
        self.attempt(|storage| read_after(&storage.disk, after, bytes_max))
    }

    /// The size of the newest snapshot, in bytes; 0 when there is none.
    pub fn newest_snapshot_bytes(&self) -> u64 {
        let Ok(files) = Files::list(&self.disk) else { return 0 };
        let newest = files.snapshots.last().and_then(|(_, _, name)| self.disk.open(name).ok());
        newest.and_then(|mut file| file.seek(SeekFrom::End(0)).ok()).unwrap_or(0)
    }
}

fn read_after<D: Disk>(disk: &D, after: Zxid, bytes_max: u64) -> Result<Option<Vec<Entry>>, StorageError> {
    let files = Files::list(disk)?;
    // The log starts right behind a snapshot: recovery relies on that as well.
    let mut is_found = files.snapshots.iter().any(|(zxid, ..)| *zxid == after);
    let (mut last, mut entries, mut bytes) = (after, Vec::new(), 0);
    for first in files.logs_after(after) {
        let mut reader = LogReader::new(disk.open(&log_name(*first))?);
        while let Some(record) = reader.next()? {
            if record.zxid <= last {
                // A record that was torn may stand in the next file once more.
                is_found |= record.zxid == after;
                continue;
            }
            if !is_found || !continues(last, record.zxid) {
                return Ok(None);
            }
            bytes += record.payload.len() as u64;
            if bytes > bytes_max {
                return Ok(None);
            }
            last = record.zxid;
            entries.push(Entry { zxid: last, payload: Bytes::copy_from_slice(record.payload) });
        }
    }
    Ok(is_found.then_some(entries))
}
