//! Removing what recovery will not need.
//!
//! Kept are the newest snapshots that look complete, the snapshot that this process itself knows to be good,
//! all newer snapshots, and every log that may hold a txn after the oldest of them.
//!
//! Source: `PurgeTxnLog.java` of Apache ZooKeeper.

use super::StorageError;
use super::disk::Disk;
use super::file_name::{Compression, log_name};
use super::recovery::Files;
use super::snapshot::looks_complete;
use crate::id::Zxid;

/// Removes all but `retain` snapshots (at least one) and the logs before them; returns how many files went.
pub(super) fn purge<D: Disk>(disk: &mut D, retain: usize, known_good: Zxid) -> Result<usize, StorageError> {
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
    for (zxid, _, name) in &files.snapshots {
        if *zxid < oldest_kept {
            disk.remove(name)?;
            removed += 1;
        }
    }
    // A newer snapshot is complete by now: nobody will want to look at these any more.
    for name in &files.set_aside {
        disk.remove(name)?;
        removed += 1;
    }
    let needed = files.logs_after(oldest_kept);
    for first in &files.logs[..files.logs.len() - needed.len()] {
        disk.remove(&log_name(*first))?;
        removed += 1;
    }
    if removed > 0 {
        disk.sync_dir()?;
    }
    Ok(removed)
}
