//! What a leader makes a learner do to its disk: cut its history back, or replace it.
//!
//! Both are done in steps, each durable before the next, in an order in which every crash leaves a history that was true
//! once: the one before, the one after, or one between the two that is cut back less.
//!
//! Source: `FileTxnSnapLog.truncateLog`, `FileTxnLog.truncate` of Apache ZooKeeper. Unlike there, nothing after the target is
//! kept when the target itself is not in the log, and snapshots beyond it are never read again (ZOOKEEPER-1549, 4837).

use tracing::info;

use super::disk::{Disk, DiskFile};
use super::file_name::{log_name, set_aside_name};
use super::log_reader::LogReader;
use super::recovery::{self, Files, Recovered};
use super::snapshot::SnapshotWriter;
use super::{Storage, StorageError};
use crate::id::Zxid;
use crate::zab::mutation::{self, Mutation};

impl<D: Disk> Storage<D> {
    /// Cuts everything after `zxid` off the history, durably; the next entry continues what is left.
    ///
    /// First snapshots beyond `zxid` are set aside, so that recovery reads an older one and the logs after it; then the logs
    /// go, the newest first, so that no gap can open.
    ///
    /// # Errors
    ///
    /// When every snapshot holds more than is to be kept; and as [`Storage::append`].
    pub fn truncate(&mut self, zxid: Zxid) -> Result<(), StorageError> {
        self.attempt(|storage| {
            if zxid >= storage.last {
                return Ok(());
            }
            storage.close_writers()?;
            let disk = &mut storage.disk;
            let files = Files::list(disk)?;
            let Some(newest_kept) =
                files.snapshots.iter().map(|(snapshot, ..)| *snapshot).rfind(|snapshot| *snapshot <= zxid)
            else {
                let oldest = files.snapshots.first().map_or(Zxid::ZERO, |(oldest, ..)| *oldest);
                return Err(StorageError::CannotTruncate { zxid, folder: disk.path_of(""), oldest });
            };
            if !mutation::is_on(Mutation::M14) {
                set_aside_after(disk, &files, zxid)?;
            }
            storage.last = cut_logs(disk, &files, zxid)?.unwrap_or(newest_kept);
            storage.good_snapshot = newest_kept;
            Ok(())
        })
    }

    /// Reads again what is on disk.
    ///
    /// # Errors
    ///
    /// As [`Storage::open`].
    pub fn reload(&mut self) -> Result<Recovered, StorageError> {
        self.attempt(|storage| {
            storage.close_writers()?;
            let (recovered, good_snapshot) = recovery::recover(&mut storage.disk)?;
            storage.last = recovered.last_zxid();
            storage.good_snapshot = good_snapshot;
            Ok(recovered)
        })
    }

    /// Replaces the history by a snapshot that came from the leader: `body` is what stands in a file between header and
    /// first seal.
    ///
    /// The snapshot is durable before anything else goes. Then snapshots beyond it are set aside, and all logs are removed,
    /// the newest first: what they hold lies before the snapshot, or was never committed. A crash in between leaves the
    /// snapshot with a part of the old tail behind it, or the old history as it was: neither is more than this member
    /// had logged before, and it has not yet adopted the leader's epoch.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn install_snapshot(&mut self, zxid: Zxid, body: &[u8]) -> Result<(), StorageError> {
        self.attempt(|storage| {
            storage.close_writers()?;
            let disk = &mut storage.disk;
            let mut writer = SnapshotWriter::create(disk, zxid)?;
            writer.write(body)?;
            // As Apache's after a SNAP: no txn has had a digest yet.
            writer.finish(disk, (Zxid::ZERO, 0))?;
            let files = Files::list(disk)?;
            set_aside_after(disk, &files, zxid)?;
            for first in files.logs.iter().rev() {
                disk.remove(&log_name(*first))?;
                disk.sync_dir()?;
            }
            storage.last = zxid;
            storage.good_snapshot = zxid;
            Ok(())
        })
    }

    /// Ends the log file, and gives up a snapshot that is not complete.
    fn close_writers(&mut self) -> Result<(), StorageError> {
        self.snapshot = None;
        match self.log.take() {
            Some(log) => log.finish(&mut self.disk, self.settings.preallocate_bytes),
            None => Ok(()),
        }
    }
}

fn set_aside_after<D: Disk>(disk: &mut D, files: &Files, zxid: Zxid) -> Result<(), StorageError> {
    for (snapshot, _, name) in files.snapshots.iter().rev().filter(|(snapshot, ..)| *snapshot > zxid) {
        info!(file = %disk.path_of(name), "setting aside a snapshot of what was not committed");
        disk.rename(name, &set_aside_name(*snapshot))?;
        disk.sync_dir()?;
    }
    Ok(())
}

/// Cuts the logs after `zxid`; returns the last record that is left, if any.
fn cut_logs<D: Disk>(disk: &mut D, files: &Files, zxid: Zxid) -> Result<Option<Zxid>, StorageError> {
    for first in files.logs.iter().rev().filter(|first| **first > zxid) {
        disk.remove(&log_name(*first))?;
        disk.sync_dir()?;
    }
    let Some(first) = files.logs.iter().rfind(|first| **first <= zxid) else { return Ok(None) };
    let name = log_name(*first);
    let mut reader = LogReader::new(disk.open(&name)?);
    let (mut last, mut end) = (None, None);
    loop {
        let start = reader.position();
        match reader.next()? {
            Some(record) if record.zxid > zxid => {
                end = Some(start);
                break;
            }
            Some(record) => last = Some(record.zxid),
            None => break,
        }
    }
    drop(reader);
    if let Some(end) = end {
        let mut file = disk.edit(&name)?;
        file.set_len(end)?;
        file.sync()?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, SessionId, Xid};
    use crate::storage::sim_disk::SimDisk;
    use crate::storage::{Storage, StorageSettings};
    use crate::tree::{Tree, Txn, TxnHeader, TxnOp};
    use crate::zab::Entry;

    const SETTINGS: StorageSettings = StorageSettings { preallocate_bytes: 8_192 };

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn entry(epoch: u32, counter: u32) -> Entry {
        let header = TxnHeader {
            session: SessionId(i64::from(counter)),
            cxid: Xid(0),
            zxid: zxid(epoch, counter),
            time_ms: 1,
        };
        let op = TxnOp::CreateSession { timeout_ms: 1 };
        Entry { zxid: header.zxid, payload: Txn { header, op, digest: None }.encode() }
    }

    /// Epoch 1 up to 9 in three files, and a snapshot in each that holds all before it.
    fn written(seed: u64) -> (SimDisk, Storage<SimDisk>) {
        let disk = SimDisk::new(seed);
        let (mut storage, _) = Storage::open_with(disk.clone(), SETTINGS).unwrap();
        let mut tree = Tree::new();
        for counter in 1..=9 {
            storage.append(&entry(1, counter)).unwrap();
            tree.apply(&Txn::decode(&entry(1, counter).payload).unwrap());
            if counter % 3 == 0 {
                storage.roll().unwrap();
                storage.begin_snapshot(zxid(1, counter)).unwrap();
                storage.write_snapshot(&body_of(&tree)).unwrap();
                storage.finish_snapshot((zxid(1, counter), tree.digest())).unwrap();
            }
        }
        storage.sync().unwrap();
        (disk, storage)
    }

    fn body_of(tree: &Tree) -> Vec<u8> {
        let mut body = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut body);
        while !tree.continue_snapshot(&mut cursor, 100, &mut body) {}
        body
    }

    fn open(disk: &SimDisk) -> (Storage<SimDisk>, Recovered) {
        Storage::open_with(disk.clone(), SETTINGS).unwrap()
    }

    #[test]
    fn after_a_truncation_the_history_ends_there_and_goes_on() {
        for last in 0..=9 {
            let (disk, mut storage) = written(last.into());
            storage.truncate(if last == 0 { Zxid::ZERO } else { zxid(1, last) }).unwrap();
            assert_eq!(storage.reload().unwrap().whole_tree().sessions().len(), last as usize);
            storage.append(&entry(2, 1)).unwrap();
            storage.sync().unwrap();
            drop(storage);
            let (_, recovered) = open(&disk.power_on());
            assert_eq!(recovered.last_zxid(), zxid(2, 1), "cut at {last}");
            // (2, 1) is the session 1 again.
            assert_eq!(recovered.whole_tree().sessions().len(), last.max(1) as usize, "cut at {last}");
        }
    }

    #[test]
    fn a_power_failure_within_a_truncation_leaves_a_prefix_that_holds_all_that_is_kept() {
        let mut lengths = std::collections::BTreeSet::new();
        for (step, seed) in (0..20).flat_map(|step| (0..10).map(move |seed| (step, seed))) {
            let (disk, mut storage) = written(seed);
            disk.fail_power_after(step);
            let outcome = storage.truncate(zxid(1, 4));
            assert_eq!(outcome.is_err(), disk.is_off());
            drop(storage);
            let (_, recovered) = open(&disk.power_on());
            let last = recovered.last_zxid().counter();
            assert!((4..=9).contains(&last) && (outcome.is_err() || last == 4), "step {step}: {last}");
            assert_eq!(recovered.whole_tree().sessions().len(), last as usize);
            lengths.insert(last);
        }
        assert!(lengths.len() > 2, "only ever {lengths:?}");
    }

    #[test]
    fn what_every_snapshot_holds_cannot_be_undone() {
        let (_, mut storage) = written(0);
        storage.purge(1).unwrap();
        let error = storage.truncate(zxid(1, 4)).unwrap_err().to_string();
        assert!(error.contains("0x100000009") && error.contains("copy from the others"), "{error}");
    }

    #[test]
    fn a_snapshot_from_the_leader_takes_the_place_of_all() {
        for target in [zxid(1, 4), zxid(1, 20), zxid(3, 0)] {
            let (disk, mut storage) = written(1);
            let mut tree = Tree::new();
            tree.apply(&Txn::decode(&entry(1, 77).payload).unwrap());
            storage.install_snapshot(target, &body_of(&tree)).unwrap();
            storage.append(&entry(3, 1)).unwrap();
            storage.sync().unwrap();
            drop(storage);
            let (_, recovered) = open(&disk.power_on());
            assert_eq!((recovered.tree.last_zxid(), recovered.last_zxid()), (target, zxid(3, 1)));
            assert_eq!(recovered.tree.sessions().len(), 1);
        }
    }

    #[test]
    fn a_power_failure_while_a_snapshot_is_installed_leaves_the_old_history_or_the_new() {
        for (step, seed) in (0..20).flat_map(|step| (0..10).map(move |seed| (step, seed))) {
            let (disk, mut storage) = written(seed);
            let mut tree = Tree::new();
            tree.apply(&Txn::decode(&entry(1, 77).payload).unwrap());
            disk.fail_power_after(step);
            let outcome = storage.install_snapshot(zxid(2, 5), &body_of(&tree));
            assert_eq!(outcome.is_err(), disk.is_off());
            drop(storage);
            let (_, recovered) = open(&disk.power_on());
            let found = (recovered.last_zxid(), recovered.whole_tree().sessions().len());
            let is_new = found == (zxid(2, 5), 1);
            assert!(is_new || outcome.is_err() && found == (zxid(1, 9), 9), "step {step}: {found:?}");
        }
    }

    #[test]
    fn the_log_is_read_back_from_what_it_holds_and_not_beyond_the_bound() {
        let (_, mut storage) = written(0);
        let after = |storage: &mut Storage<SimDisk>, zxid, bytes_max| {
            let entries = storage.read_log(zxid, bytes_max).unwrap();
            entries.map(|entries| entries.iter().map(|entry| entry.zxid.counter()).collect::<Vec<_>>())
        };
        assert_eq!(after(&mut storage, Zxid::ZERO, 1 << 20), Some((1..=9).collect()));
        assert_eq!(after(&mut storage, zxid(1, 7), 1 << 20), Some(vec![8, 9]));
        storage.append(&entry(1, 10)).unwrap();
        assert_eq!(after(&mut storage, zxid(1, 9), 1 << 20), Some(vec![10]), "written and not synced");
        assert_eq!(after(&mut storage, zxid(1, 10), 1 << 20), Some(vec![]));
        assert_eq!(after(&mut storage, zxid(1, 2), 100), None, "too much");
        assert_eq!(after(&mut storage, zxid(0, 5), 1 << 20), None, "not in it");
        storage.append(&entry(1, 11)).unwrap();
        storage.sync().unwrap();
        storage.purge(1).unwrap();
        assert_eq!(after(&mut storage, zxid(1, 3), 1 << 20), None, "not there any more");
        assert_eq!(after(&mut storage, zxid(1, 9), 1 << 20), Some(vec![10, 11]));
    }
}
