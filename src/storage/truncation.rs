//! Cutting the history back to a txn.
//!
//! ```text
//! a snapshot at or before it, and logs that lead from there ─► newer snapshots set aside ─► later logs removed,
//! newest first ─► its log cut
//! ```
//!
//! A crash leaves a contiguous history that reaches down to that txn at least, so cutting can be repeated:
//!
//! - Nothing is touched before it is known that the history leads without a gap from a good snapshot to the txn and
//!   on to the one after it.
//! - Snapshots go first. While all logs are there, each snapshot leads to the same end, so that it does not matter which
//!   of the renames last. A snapshot must not outlive the logs after it: it may hold parts of their txns.
//! - Each log is gone durably before an older one is touched.
//!
//! A snapshot that may hold parts of txns that are cut off goes too, even if it is named by an older one.
//!
//! Source: `FileTxnLog.java`, `FileTxnSnapLog.java` of Apache ZooKeeper, which keep newer snapshots (ZOOKEEPER-1549).

use tracing::{info, warn};

use super::StorageError;
use super::disk::{Disk, DiskFile, sync_folder};
use super::file_name::{Compression, log_name, set_aside_name};
use super::files::Files;
use super::log_reader::LogReader;
use super::snapshot::{self, KnownSnapshot, refuse_compressed};
use crate::id::Zxid;
use crate::zab::continues;
use crate::zab::mutation::{self, Mutation};

/// What is left.
pub(super) struct Truncated {
    /// The last txn.
    pub(super) last: Zxid,
    /// The snapshot that the history starts from.
    pub(super) snapshot: KnownSnapshot,
}

/// Cuts off what comes after `zxid`, at which or before which the history does not end yet. No log may be open.
pub(super) fn truncate<D: Disk>(
    disk: &mut D,
    zxid: Zxid,
    known: KnownSnapshot,
) -> Result<Truncated, StorageError> {
    let files = Files::list(disk)?;
    let mut spoiled: Vec<_> = files.snapshots.iter().filter(|(named, ..)| *named > zxid).collect();
    let snapshot = if known.fuzzy_to <= zxid {
        known
    } else {
        find_snapshot(disk, &files, zxid, &mut spoiled)?
            .ok_or(StorageError::CannotTruncate { zxid, reached: None })?
    };
    let Cut { last, place } = find_cut(disk, files.logs_after(snapshot.zxid), snapshot.zxid, zxid)?;

    info!(%zxid, %last, snapshot = %snapshot.zxid, "cutting the history back");
    if !mutation::is_on(Mutation::M14) {
        for (_, _, name) in spoiled {
            disk.rename(name, &set_aside_name(name))?;
        }
        sync_folder(disk)?;
    }
    for first in files.logs.iter().rev().take_while(|first| **first > zxid) {
        disk.remove(&log_name(*first))?;
        sync_folder(disk)?;
    }
    if let Some((first, end)) = place {
        let mut file = disk.edit(&log_name(first))?;
        file.set_len(end)?;
        file.sync()?;
    }
    Ok(Truncated { last, snapshot })
}

/// The newest snapshot that holds nothing after `zxid`; those that do are added to `spoiled`.
fn find_snapshot<'a, D: Disk>(
    disk: &D,
    files: &'a Files,
    zxid: Zxid,
    spoiled: &mut Vec<&'a (Zxid, Compression, String)>,
) -> Result<Option<KnownSnapshot>, StorageError> {
    for candidate in files.snapshots.iter().rev().filter(|(named, ..)| *named <= zxid) {
        let (named, compression, name) = candidate;
        refuse_compressed(disk, name, *compression)?;
        match snapshot::read_named(disk, name, *named) {
            Ok((_, snapshot)) if snapshot.fuzzy_to <= zxid => return Ok(Some(snapshot)),
            Ok(_) => spoiled.push(candidate),
            Err(reason) => {
                warn!(file = %disk.path_of(name), %reason, "snapshot cannot be read, trying the one before it");
            }
        }
    }
    Ok(None)
}

/// Where the logs are to be cut.
struct Cut {
    /// The last txn that stays.
    last: Zxid,
    /// The log that holds it, and where it ends there; `None` when no log has a record that stays.
    place: Option<(Zxid, u64)>,
}

/// Follows the history from `start` to `zxid`, and one txn further to be sure that nothing lies between.
fn find_cut<D: Disk>(disk: &D, logs: &[Zxid], start: Zxid, zxid: Zxid) -> Result<Cut, StorageError> {
    let mut cut = Cut { last: start, place: None };
    for first in logs {
        let mut reader = LogReader::new(disk.open(&log_name(*first))?);
        while let Some(found) = reader.next()?.map(|record| record.zxid) {
            let is_seamless = found <= start || continues(cut.last, found);
            if !is_seamless {
                return Err(StorageError::CannotTruncate { zxid, reached: Some(cut.last) });
            }
            if found > zxid {
                return Ok(cut);
            }
            cut.last = cut.last.max(found);
            cut.place = Some((*first, reader.position()));
        }
    }
    if cut.last == zxid {
        return Ok(cut);
    }
    Err(StorageError::CannotTruncate { zxid, reached: Some(cut.last) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::Disk;
    use crate::storage::sample::{
        append, entry, found_after_power_failure, open, snapshot, tree_of, zxid, zxids,
    };
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn the_history_ends_at_the_txn_and_goes_on_from_there() {
        for last in 0..=9 {
            let disk = three_logs();
            let mut storage = open(&disk).unwrap().0;
            storage.truncate(zxid(1, last)).unwrap();
            assert_eq!(storage.last_zxid(), if last == 0 { Zxid::ZERO } else { zxid(1, last) });
            assert_eq!(found_after_power_failure(&disk), zxids(1, 1..=last));

            let mut storage = open(&disk.power_on()).unwrap().0;
            append(&mut storage, 1, last + 1..=last + 1);
            assert_eq!(found_after_power_failure(&disk), zxids(1, 1..=last + 1));
        }
    }

    #[test]
    fn an_open_log_is_cut_too_and_nothing_beyond_the_end_is_done() {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        append(&mut storage, 1, 1..=5);
        storage.append(&entry(zxid(1, 6))).unwrap();
        for beyond in [zxid(1, 6), zxid(1, 7), zxid(2, 0)] {
            storage.truncate(beyond).unwrap();
            assert_eq!(storage.last_zxid(), zxid(1, 6));
        }
        storage.truncate(zxid(1, 2)).unwrap();
        storage.append(&entry(zxid(2, 1))).unwrap();
        storage.sync().unwrap();
        assert_eq!(found_after_power_failure(&disk), [zxid(1, 1), zxid(1, 2), zxid(2, 1)]);
    }

    #[test]
    fn without_that_very_txn_the_one_before_it_is_the_last() {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        append(&mut storage, 1, 1..=3);
        append(&mut storage, 3, 1..=2);
        storage.truncate(zxid(2, 7)).unwrap();
        assert_eq!(storage.last_zxid(), zxid(1, 3));
        assert_eq!(found_after_power_failure(&disk), zxids(1, 1..=3));
    }

    #[test]
    fn snapshots_that_may_hold_what_is_cut_off_are_set_aside_and_purged_in_time() {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        append(&mut storage, 1, 1..=6);
        snapshot(&mut storage, zxid(1, 2), &tree_of(zxids(1, 1..=2)), zxid(1, 2));
        // It holds parts of what is cut off, though it is named for less.
        snapshot(&mut storage, zxid(1, 3), &tree_of(zxids(1, 1..=6)), zxid(1, 6));
        snapshot(&mut storage, zxid(1, 5), &tree_of(zxids(1, 1..=5)), zxid(1, 5));
        storage.truncate(zxid(1, 4)).unwrap();
        let mut names = disk.list().unwrap();
        names.retain(|name| name.contains("snapshot"));
        let aside = ["truncated.snapshot.100000003", "truncated.snapshot.100000005"];
        assert_eq!(names, [&["snapshot.0", "snapshot.100000002"], &aside[..]].concat());
        let recovered = storage.reload().unwrap();
        assert_eq!((recovered.tree.last_zxid(), recovered.last_zxid()), (zxid(1, 2), zxid(1, 4)));

        append(&mut storage, 2, 1..=2);
        let tree = tree_of(zxids(1, 1..=4).into_iter().chain(zxids(2, 1..=2)));
        snapshot(&mut storage, zxid(2, 2), &tree, zxid(2, 2));
        storage.purge(1).unwrap();
        assert_eq!(disk.list().unwrap(), ["log.200000001", "snapshot.200000002"]);
    }

    #[test]
    fn what_cannot_be_reached_is_refused_and_nothing_is_touched() {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        append(&mut storage, 1, 1..=4);
        snapshot(&mut storage, zxid(1, 4), &tree_of(zxids(1, 1..=4)), zxid(1, 4));
        storage.purge(1).unwrap();
        append(&mut storage, 1, 5..=6);
        let names = disk.list().unwrap();
        let error = storage.truncate(zxid(1, 3)).unwrap_err();
        assert!(matches!(error, StorageError::CannotTruncate { .. }), "{error}");
        assert!(error.to_string().contains("copy from the others"), "{error}");
        assert_eq!(disk.list().unwrap(), names);

        // The logs from the older snapshot on are gone.
        let mut disk = three_logs();
        disk.remove("log.100000001").unwrap();
        let mut storage = open_after_snapshot(&disk);
        let error = storage.truncate(zxid(1, 2)).unwrap_err();
        assert!(matches!(error, StorageError::CannotTruncate { reached: Some(Zxid::ZERO), .. }), "{error}");
    }

    #[test]
    fn a_power_failure_anywhere_leaves_a_history_that_reaches_down_to_the_txn() {
        for (step, seed) in (0..14).flat_map(|step| (0..20).map(move |seed| (step, seed))) {
            let disk = SimDisk::new(seed);
            let mut storage = open(&disk).unwrap().0;
            append(&mut storage, 1, 1..=3);
            storage.roll().unwrap();
            append(&mut storage, 1, 4..=6);
            snapshot(&mut storage, zxid(1, 5), &tree_of(zxids(1, 1..=6)), zxid(1, 6));
            append(&mut storage, 1, 7..=9);
            disk.fail_power_after(step);
            let is_done = storage.truncate(zxid(1, 2)).is_ok();
            assert_eq!(is_done, !disk.is_off());
            let found = found_after_power_failure(&disk);
            assert_eq!(found, zxids(1, 1..=u32::try_from(found.len()).unwrap()), "step {step} seed {seed}");
            assert!(found.len() == 2 || found.len() > 2 && !is_done, "step {step} seed {seed}: {found:?}");
            // And it can be cut again.
            let mut storage = open(&disk.power_on()).unwrap().0;
            storage.truncate(zxid(1, 2)).unwrap();
            assert_eq!(found_after_power_failure(&disk), zxids(1, 1..=2), "step {step} seed {seed}");
        }
    }

    /// 1 to 3, 4 to 6 and 7 to 9 of epoch 1.
    fn three_logs() -> SimDisk {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        for first in [1, 4, 7] {
            append(&mut storage, 1, first..=first + 2);
            storage.roll().unwrap();
        }
        disk
    }

    fn open_after_snapshot(disk: &SimDisk) -> crate::storage::Storage<SimDisk> {
        // Only what starts after it is read.
        let from = three_logs();
        let mut storage = open(&from).unwrap().0;
        snapshot(&mut storage, zxid(1, 4), &tree_of(zxids(1, 1..=4)), zxid(1, 4));
        disk.put("snapshot.100000004", &from.bytes_of("snapshot.100000004").unwrap());
        open(disk).unwrap().0
    }
}
