//! Removing what recovery will not need.
//!
//! Kept are the newest snapshots that look complete, the snapshot that this process itself knows to be good,
//! all newer snapshots, and every log that may hold a txn after the oldest of them. Snapshots that were set aside go
//! once they are older than all that is kept.
//!
//! Source: `PurgeTxnLog.java` of Apache ZooKeeper.

use super::StorageError;
use super::disk::{Disk, sync_folder};
use super::file_name::{Compression, log_name};
use super::files::Files;
use super::snapshot::looks_complete;
use crate::id::Zxid;

/// What was done.
pub(super) struct Purged {
    /// How many files are gone.
    pub(super) removed: usize,
    /// All txns after this one are still in the logs.
    pub(super) oldest_kept: Zxid,
}

/// Removes all but `retain` snapshots (at least one) and the logs before them.
pub(super) fn purge<D: Disk>(disk: &mut D, retain: usize, known_good: Zxid) -> Result<Purged, StorageError> {
    let files = Files::list(disk)?;
    let mut kept = Vec::new();
    for (zxid, compression, name) in files.snapshots.iter().rev() {
        if kept.len() < retain.max(1)
            && (*compression != Compression::None || looks_complete(&mut disk.open(name)?)?)
        {
            kept.push(*zxid);
        }
    }
    let oldest_kept = kept.last().copied().unwrap_or(Zxid::ZERO).min(known_good);

    // Oldest first, so that whatever a crash leaves is still a contiguous history.
    let mut removed = 0;
    let snapshots = files.snapshots.iter().map(|(zxid, _, name)| (zxid, name));
    let set_aside = files.set_aside.iter().map(|(zxid, name)| (zxid, name));
    for (zxid, name) in snapshots.chain(set_aside) {
        if *zxid < oldest_kept {
            disk.remove(name)?;
            removed += 1;
        }
    }
    let needed = files.logs_after(oldest_kept);
    for first in &files.logs[..files.logs.len() - needed.len()] {
        disk.remove(&log_name(*first))?;
        removed += 1;
    }
    if removed > 0 {
        sync_folder(disk)?;
    }
    Ok(Purged { removed, oldest_kept })
}
