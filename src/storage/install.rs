//! Replacing the whole history by a snapshot that came from another member.
//!
//! ```text
//! snapshot.<zxid>.tmp ─sync, rename─► installing.<zxid>.<last> ─┬► logs removed, other snapshots set aside
//!                                                               └► rename ─► snapshot.<zxid>
//! ```
//!
//! A crash leaves the old history or the new one:
//!
//! - Until the rename to `installing.…` is durable, nothing of the old history was touched, and recovery removes the
//!   temporary file.
//! - From then on the new history counts: recovery finds the file, which was synced before it got that name, and
//!   carries out the rest, however much of it was done before. It does not look at the old files.
//!
//! Giving the snapshot its final name at once would not do: where the old history reaches further, recovery would
//! take its newer snapshots, or replay its logs on top of a state that they never followed.
//!
//! All other snapshots go, not only newer ones: none of the logs that lead on from them is left. So if the installed
//! snapshot is found damaged later, or is removed, nothing can be mistaken for it.
//!
//! The name tells where the replaced history ended. A log that begins later shows that somebody else (Apache's
//! server, which does not know such files) has gone on with the old history meanwhile; then that one counts.

use tracing::{info, warn};

use super::StorageError;
use super::disk::{Disk, sync_folder};
use super::file_name::{installing_name, log_name, set_aside_name, snapshot_name};
use super::files::Files;
use super::snapshot::{self, KnownSnapshot, SnapshotWriter};
use crate::id::Zxid;

/// Replaces a history that ends at `replaced` by a snapshot; `body` is what stands between header and seal.
pub(super) fn install<D: Disk>(
    disk: &mut D,
    zxid: Zxid,
    replaced: Zxid,
    body: &[u8],
) -> Result<KnownSnapshot, StorageError> {
    let mut writer = SnapshotWriter::create(disk, zxid)?;
    for slice in body.chunks(SLICE_BYTES) {
        writer.write(slice)?;
    }
    let name = installing_name(zxid, replaced);
    // As Apache's after it was synchronized: no txn has had a digest yet.
    let known = writer.finish_as(disk, (Zxid::ZERO, 0), &name)?;
    replace_history(disk, zxid, &name)?;
    Ok(known)
}

/// Ends what a crash has interrupted.
pub(super) fn resume<D: Disk>(disk: &mut D) -> Result<(), StorageError> {
    let files = Files::list(disk)?;
    for (zxid, replaced, name) in &files.installing {
        let file = disk.path_of(name);
        if files.logs.last().is_some_and(|last| last > replaced) {
            warn!(%file, "the history that this snapshot was to replace has gone on since; setting it aside");
            disk.rename(name, &set_aside_name(&snapshot_name(*zxid)))?;
            sync_folder(disk)?;
            continue;
        }
        // Before anything of the old history goes.
        if let Err(reason) = snapshot::read(disk, name, *zxid) {
            return Err(StorageError::NoUsableSnapshot { reasons: vec![format!("{file}: {reason}")] });
        }
        info!(%zxid, "going on with a snapshot whose installation was interrupted");
        replace_history(disk, *zxid, name)?;
    }
    Ok(())
}

fn replace_history<D: Disk>(disk: &mut D, zxid: Zxid, name: &str) -> Result<(), StorageError> {
    let files = Files::list(disk)?;
    for first in files.logs.iter().rev() {
        disk.remove(&log_name(*first))?;
    }
    for (_, _, snapshot) in &files.snapshots {
        disk.rename(snapshot, &set_aside_name(snapshot))?;
    }
    sync_folder(disk)?;
    disk.rename(name, &snapshot_name(zxid))?;
    sync_folder(disk)?;
    Ok(())
}

/// What is written at once.
const SLICE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::Disk;
    use crate::storage::sample::{
        append, body_of, found_after_power_failure, open, snapshot, tree_of, zxid, zxids,
    };
    use crate::storage::sim_disk::SimDisk;
    use crate::storage::{Storage, StorageError};

    #[test]
    fn the_snapshot_takes_the_place_of_everything() {
        for at in [zxid(1, 3), zxid(2, 7), zxid(3, 0)] {
            let disk = SimDisk::new(0);
            let mut storage = old_history(&disk);
            storage.begin_snapshot(zxid(1, 5)).unwrap();
            storage.install_snapshot(at, &new_body()).unwrap();
            assert_eq!(storage.last_zxid(), at);
            let bytes = disk.bytes_of(&snapshot_name(at)).unwrap().len() as u64;
            assert_eq!(storage.newest_snapshot_bytes(), bytes);
            let mut names = disk.list().unwrap();
            names.retain(|name| !name.starts_with("truncated."));
            assert_eq!(names, ["acceptedEpoch".to_owned(), snapshot_name(at)]);
            assert_eq!(found_after_power_failure(&disk), zxids(2, 1..=7));

            let (mut storage, recovered) = open(&disk.power_on()).unwrap();
            assert_eq!((recovered.last_zxid(), recovered.tail), (at, Vec::new()));
            append(&mut storage, at.epoch().0, at.counter() + 1..=at.counter() + 1);
            append(&mut storage, 4, 1..=1);
            assert_eq!(storage.last_zxid(), zxid(4, 1));
            assert_eq!(open(&disk.power_on()).unwrap().1.last_zxid(), zxid(4, 1));
        }
    }

    #[test]
    fn a_power_failure_anywhere_leaves_the_old_history_or_the_new_one() {
        for at in [zxid(1, 3), zxid(2, 7), zxid(3, 0)] {
            for (step, seed) in (0..20).flat_map(|step| (0..20).map(move |seed| (step, seed))) {
                let disk = SimDisk::new(seed);
                let mut storage = old_history(&disk);
                disk.fail_power_after(step);
                let is_done = storage.install_snapshot(at, &new_body()).is_ok();
                assert_eq!(is_done, !disk.is_off());
                // Recovery may be interrupted, too.
                let again = disk.power_on();
                again.fail_power_after(seed % 8);
                drop(open(&again));
                let found = found_after_power_failure(&disk);
                let is_new = found == zxids(2, 1..=7);
                assert!(is_new || found == zxids(1, 1..=6) && !is_done, "step {step} seed {seed}: {found:?}");
                let last = open(&disk.power_on()).unwrap().1.last_zxid();
                assert_eq!(last, if is_new { at } else { zxid(1, 6) });
            }
        }
    }

    #[test]
    fn a_snapshot_that_is_damaged_later_is_never_passed_over() {
        for at in [zxid(1, 3), zxid(2, 7), zxid(3, 0)] {
            for has_more in [false, true] {
                let disk = SimDisk::new(0);
                let mut storage = old_history(&disk);
                storage.install_snapshot(at, &new_body()).unwrap();
                if has_more {
                    append(&mut storage, 4, 1..=3);
                }
                drop(storage);
                disk.put(&snapshot_name(at), b"ZKSN rotten");
                let error = open(&disk).unwrap_err();
                assert!(matches!(error, StorageError::NoUsableSnapshot { .. }), "{error}");
                let mut older = disk.clone();
                if at > zxid(1, 4) {
                    older.rename("truncated.snapshot.100000004", "snapshot.100000004").unwrap();
                    let error = open(&older).unwrap_err();
                    assert!(matches!(error, StorageError::SnapshotLost { .. }), "{error}");
                    older.remove("snapshot.100000004").unwrap();
                }
                older.remove(&snapshot_name(at)).unwrap();
                let error = open(&disk).unwrap_err();
                assert!(matches!(error, StorageError::NoSnapshot { .. }), "{error}");
            }
        }
    }

    #[test]
    fn an_interrupted_installation_is_not_resumed_when_somebody_else_went_on() {
        let disk = SimDisk::new(0);
        let mut storage = old_history(&disk);
        append(&mut storage, 1, 7..=7);
        let other = SimDisk::new(0);
        open(&other).unwrap().0.install_snapshot(zxid(2, 7), &new_body()).unwrap();
        let bytes = other.bytes_of("snapshot.200000007").unwrap();
        disk.put(&installing_name(zxid(2, 7), zxid(1, 6)), &bytes);
        storage.roll().unwrap();
        append(&mut storage, 1, 8..=8);
        assert_eq!(found_after_power_failure(&disk), zxids(1, 1..=8));
        assert!(disk.power_on().bytes_of("truncated.snapshot.200000007").is_some());

        disk.power_on().put(&installing_name(zxid(2, 7), zxid(1, 8)), &bytes[..bytes.len() - 1]);
        let error = open(&disk.power_on()).unwrap_err();
        assert!(matches!(error, StorageError::NoUsableSnapshot { .. }), "{error}");
        assert!(disk.power_on().bytes_of("log.100000001").is_some(), "nothing of the old one went");
    }

    /// 1 to 6 of epoch 1, with a snapshot at 4.
    fn old_history(disk: &SimDisk) -> Storage<SimDisk> {
        let mut storage = open(disk).unwrap().0;
        storage.set_accepted_epoch(crate::id::Epoch(4)).unwrap();
        append(&mut storage, 1, 1..=4);
        snapshot(&mut storage, zxid(1, 4), &tree_of(zxids(1, 1..=4)), zxid(1, 4));
        append(&mut storage, 1, 5..=6);
        storage
    }

    fn new_body() -> Vec<u8> {
        body_of(&tree_of(zxids(2, 1..=7)))
    }
}
