//! From the files of a folder back to a tree, the entries after it, the epochs, and a log that can be written on.
//!
//! ```text
//! interrupted installation? ─► newest readable snapshot ─► logs from there on ─► end of the last log
//!     ─► epochs agree? ─► how much of it was committed? ─► tidy up
//! ```
//!
//! The rules, all of which serve "what was acknowledged is never lost":
//!
//! - **An empty folder** becomes a new history: `snapshot.0` is durable before anything else is written. So a
//!   folder with txns and without any snapshot has lost files, and nobody can say which others: it is refused,
//!   whatever zxid its logs start with. The same for epoch files without a snapshot: an empty member must not
//!   vote with the weight of its former self.
//! - **An unreadable snapshot** is passed over for an older one, if the logs hold the txn that it is named for. An
//!   epoch's beginning has no txn, so nothing shows whether the logs reach it: a snapshot named for one is never
//!   passed over. An unreadable `snapshot.0` needs no older one: its contents are known.
//! - **Entries leave no gap**: a counter follows its predecessor, or starts at 1 in a later epoch.
//! - **The last log** may end in what a power failure leaves of an unsynced batch. That is cut off, durably,
//!   before a new file is started, so that only the last file can ever have such an end. A last log without
//!   any record is removed.
//! - **Any other log** must be whole, or be continued without a gap by the next one.
//! - **The epochs** must be possible: current at most accepted, no txn of an epoch after the accepted one, and none so
//!   late that nothing can follow it.
//!   Txns of an epoch after the current one are possible: the member stopped while it was synchronizing.
//! - **What is known to be committed** is what the snapshot holds, wholly or in part, and what the file `committed` vouches
//!   for; see [`super::committed`].
//!
//! What recovery reports is durable, even if the process that wrote it was killed before it synced, or had stopped
//! because a sync failed: the member will vote with it. Recovery may be interrupted anywhere and repeated. Files
//! that an interrupted atomic write left are never read, and removed at the end.
//!
//! Source: `FileTxnSnapLog.java`, `QuorumPeer.java` of Apache ZooKeeper.

use tracing::info;

use super::committed;
use super::disk::{Disk, sync_folder};
use super::epoch;
use super::error::StorageError;
use super::file_name::{ACCEPTED_EPOCH, CURRENT_EPOCH, VOTERS, log_name};
use super::files::Files;
use super::history::{History, Unreadable};
use super::install;
use super::log_reader::{LogEnd, LogReader};
use super::snapshot::{KnownSnapshot, SnapshotWriter};
use crate::id::{Epoch, Zxid};
use crate::tree::{Tree, Txn};
use crate::zab::Entry;

/// What was found on disk.
#[derive(Debug)]
pub struct Recovered {
    /// The state of the newest snapshot that can be read: committed, but it may hold parts of what is committed after
    /// its last txn.
    pub tree: Tree,
    /// The last txn that the tree may hold parts of; before it is applied, digests of txns and tree need not agree.
    pub fuzzy_to: Zxid,
    /// The entries that the log holds after the snapshot, oldest first.
    pub tail: Vec<Entry>,
    /// The last txn that is known to be committed; of the entries after it nobody knows yet.
    pub committed: Zxid,
    /// The epoch up to which the member will follow nobody older; `None` when it never promised.
    pub accepted_epoch: Option<Epoch>,
    /// The epoch in which the member was last synchronized; `None` when it never was.
    pub current_epoch: Option<Epoch>,
    /// The end of the last log that was cut off, if any.
    pub torn_tail: Option<TornTail>,
    /// Snapshots that could not be read, with the reasons; older ones and the logs made up for them.
    pub unreadable_snapshots: Vec<String>,
    /// Whether the folder was empty and a new history was started in it.
    pub is_new: bool,
}

impl Recovered {
    /// The last txn on disk.
    pub fn last_zxid(&self) -> Zxid {
        self.tail.last().map_or(self.tree.last_zxid(), |entry| entry.zxid)
    }

    /// The state after the last txn on disk, as if all were committed.
    ///
    /// # Panics
    ///
    /// When an entry is no txn, which recovery would have refused.
    pub fn into_whole_tree(self) -> Tree {
        let mut tree = self.tree;
        for entry in &self.tail {
            tree.apply(&Txn::decode(&entry.payload).expect("recovery has decoded every entry"));
        }
        tree
    }
}

/// What a power failure left of the last, unacknowledged batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The log's path.
    pub file: String,
    /// Where it was cut.
    pub offset: u64,
}

/// Reads the folder and leaves it so that a new log can be started. Returns the snapshot that the state was read
/// from, too.
pub(super) fn recover<D: Disk>(disk: &mut D) -> Result<(Recovered, KnownSnapshot), StorageError> {
    install::resume(disk)?;
    let files = Files::list(disk)?;
    let accepted_epoch = epoch::read(disk, ACCEPTED_EPOCH)?;
    let current_epoch = epoch::read(disk, CURRENT_EPOCH)?;

    let is_new = files.snapshots.is_empty();
    let mut history = if is_new {
        refuse_remains(disk, &files)?;
        start_new(disk)?
    } else {
        History::load(disk, &files)?
    };
    let unreadable_snapshots = history.unreadable.iter().map(Unreadable::to_string).collect();
    history.read_logs(disk, files.logs_after(history.snapshot.zxid))?;
    check_epochs(accepted_epoch, current_epoch, history.last())?;
    let hinted = committed::judge(disk, &history, current_epoch)?;
    for name in &Files::list(disk)?.temporary {
        disk.remove(name)?;
    }
    // What was found counts from now on, so it must last: names that were given right before a kill, too.
    sync_folder(disk)?;

    let zxid = history.last();
    let History { tree, snapshot, tail, torn_tail, .. } = history;
    // A tree holds nothing that is not committed, so what its snapshot holds parts of is.
    let committed = snapshot.fuzzy_to.min(zxid).max(snapshot.zxid).max(hinted.unwrap_or(snapshot.zxid));
    info!(%zxid, snapshot = %snapshot.zxid, %committed, nodes = tree.node_count(), is_new, "recovered");
    let recovered = Recovered {
        tree,
        fuzzy_to: snapshot.fuzzy_to,
        tail,
        committed,
        accepted_epoch,
        current_epoch,
        torn_tail,
        unreadable_snapshots,
        is_new,
    };
    Ok((recovered, snapshot))
}

/// A folder without snapshots must be empty.
fn refuse_remains<D: Disk>(disk: &D, files: &Files) -> Result<(), StorageError> {
    let names = disk.list()?;
    for name in [ACCEPTED_EPOCH, CURRENT_EPOCH, VOTERS] {
        if names.iter().any(|existing| existing == name) {
            return Err(StorageError::NoSnapshot { file: disk.path_of(name) });
        }
    }
    for first in &files.logs {
        let name = log_name(*first);
        let mut reader = LogReader::new(disk.open(&name)?);
        if reader.next()?.is_some() || reader.end(Zxid::NONE)? != LogEnd::Clean {
            return Err(StorageError::NoSnapshot { file: disk.path_of(&name) });
        }
    }
    Ok(())
}

fn start_new<D: Disk>(disk: &mut D) -> Result<History, StorageError> {
    let tree = Tree::new();
    let mut body = Vec::new();
    let mut cursor = tree.begin_snapshot(&mut body);
    while !tree.continue_snapshot(&mut cursor, usize::MAX, &mut body) {}
    let mut writer = SnapshotWriter::create(disk, Zxid::ZERO)?;
    writer.write(&body)?;
    // As Apache's: no txn has had a digest yet.
    let snapshot = writer.finish(disk, (Zxid::ZERO, 0))?;
    Ok(History::new(tree, snapshot, Vec::new()))
}

fn check_epochs(accepted: Option<Epoch>, current: Option<Epoch>, last: Zxid) -> Result<(), StorageError> {
    if last.epoch().next().is_none() {
        return Err(StorageError::EpochTooLate {
            place: format!("the last txn, {last},"),
            epoch: last.epoch(),
        });
    }
    let is_possible = match (accepted, current) {
        (None, None) => true,
        // What an import of a log without epochs has left that was interrupted.
        (None, Some(current)) => current == last.epoch(),
        (Some(accepted), current) => {
            current.is_none_or(|current| current <= accepted) && last.epoch() <= accepted
        }
    };
    if is_possible { Ok(()) } else { Err(StorageError::EpochsContradict { accepted, current, last }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SessionId, Xid};
    use crate::storage::disk::DiskFile;
    use crate::storage::log::HEADER;
    use crate::storage::sim_disk::SimDisk;
    use crate::storage::{LogDamage, Storage, StorageSettings};
    use crate::tree::{CreateTxn, TxnHeader, TxnOp};
    use crate::znode::{Acl, ZnodePath};

    #[test]
    fn an_empty_folder_becomes_a_new_history_once() {
        let disk = SimDisk::new(0);
        let recovered = open(&disk).unwrap().1;
        assert!(recovered.is_new && recovered.tree == Tree::new());
        assert!(disk.power_on().bytes_of("snapshot.0").is_some(), "durable before anything else");
        let recovered = open(&disk.power_on()).unwrap().1;
        assert!(!recovered.is_new && recovered.tree == Tree::new());
    }

    #[test]
    fn a_last_log_that_is_empty_short_or_all_zeros_is_no_hindrance() {
        for len in [0, 1, 7, 15, 16, 17, 4_096] {
            for is_zero in [true, false] {
                let disk = written(&[1..=5]);
                let mut bytes = vec![0; len];
                if !is_zero {
                    bytes.splice(0..len.min(16), HEADER.into_iter().take(len));
                }
                disk.put("log.100000006", &bytes);
                let (mut storage, recovered) = open(&disk).unwrap();
                assert_eq!(recovered.last_zxid(), zxid(5), "{len} bytes, zero: {is_zero}");
                storage.append(&entry(6)).unwrap();
                storage.sync().unwrap();
                drop(storage);
                assert_eq!(open(&disk.power_on()).unwrap().1.last_zxid(), zxid(6));
            }
        }
    }

    #[test]
    fn a_torn_tail_is_cut_for_good_wherever_it_was_torn() {
        let whole = written(&[1..=5]).bytes_of("log.100000001").unwrap();
        let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let start = end - record_bytes(5);
        for cut in start..end {
            let disk = written(&[1..=5]);
            disk.put("log.100000001", &whole[..cut]);
            let (mut storage, recovered) = open(&disk).unwrap();
            assert_eq!(recovered.last_zxid(), zxid(4), "cut at {cut}");
            let torn = TornTail { file: "sim/log.100000001".to_owned(), offset: start as u64 };
            assert!(
                recovered.torn_tail.is_none_or(|found| found == torn),
                "the first bytes are zeros anyway"
            );
            // The history goes on in a new file, and the old one is no hindrance any more.
            storage.append(&entry(5)).unwrap();
            storage.sync().unwrap();
            drop(storage);
            let recovered = open(&disk.power_on()).unwrap().1;
            assert_eq!((recovered.last_zxid(), recovered.torn_tail), (zxid(5), None));
        }
    }

    #[test]
    fn what_is_reported_lasts_though_its_writer_never_synced_it() {
        for (seed, is_failing) in (0..60).flat_map(|seed| [(seed, true), (seed, false)]) {
            let disk = SimDisk::new(seed);
            let mut storage = open(&disk).unwrap().0;
            storage.append(&entry(1)).unwrap();
            storage.sync().unwrap();
            storage.set_accepted_epoch(Epoch(1)).unwrap();
            (2..=20).for_each(|counter| storage.append(&entry(counter)).unwrap());
            if is_failing {
                disk.fail_syncs(1);
                assert!(storage.sync().is_err());
            } else {
                disk.fail_power_after(1);
                assert!(storage.sync().is_err(), "written, and not synced");
            }
            let mut disk = disk.kill();
            // An epoch as a kill right after the rename leaves it.
            let mut file = disk.create("currentEpoch").unwrap();
            file.put_at(0, b"1").unwrap();
            file.sync().unwrap();
            let recovered = open(&disk).unwrap().1;
            assert_eq!(recovered.last_zxid(), zxid(20));
            let again = open(&disk.power_on()).unwrap().1;
            assert_eq!((again.last_zxid(), again.current_epoch), (zxid(20), Some(Epoch(1))), "seed {seed}");
        }
    }

    #[test]
    fn a_flipped_bit_before_the_last_record_is_refused_with_file_and_offset() {
        let disk = written(&[1..=5]);
        let mut bytes = disk.bytes_of("log.100000001").unwrap();
        let offset = 16 + record_bytes(1);
        bytes[offset + 30] ^= 0x10;
        disk.put("log.100000001", &bytes);
        let error = open(&disk).unwrap_err();
        assert!(
            matches!(error, StorageError::LogDamaged { damage: LogDamage::Middle { .. }, .. }),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains(&format!("sim/log.100000001 is damaged at byte {offset}")), "{text}");
        assert_eq!(disk.bytes_of("log.100000001").unwrap(), bytes, "nothing was touched");
    }

    #[test]
    fn a_broken_end_is_accepted_only_in_the_last_file_or_before_a_seamless_next_one() {
        let broken = |disk: &SimDisk, name: &str| {
            let mut bytes = disk.bytes_of(name).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[end - 3] ^= 1;
            disk.put(name, &bytes);
        };
        let disk = written(&[1..=3, 4..=5]);
        broken(&disk, "log.100000001");
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, StorageError::LogDamaged { damage: LogDamage::NotLast, .. }), "{error}");

        let disk = written(&[1..=3, 4..=5]);
        broken(&disk, "log.100000004");
        assert_eq!(open(&disk).unwrap().1.last_zxid(), zxid(4));

        // As Apache leaves it: the record was torn, and written again into the next file.
        let disk = written(&[1..=3, 4..=5]);
        let mut bytes = disk.bytes_of("log.100000001").unwrap();
        bytes.extend([0, 0, 0, 0, 1, 2, 3, 4, 0, 0]);
        disk.put("log.100000001", &bytes);
        assert_eq!(open(&disk).unwrap().1.last_zxid(), zxid(5));
    }

    #[test]
    fn missing_txns_are_refused() {
        let disk = written(&[1..=2, 3..=4, 5..=6]);
        let mut gap = disk.clone();
        gap.remove("log.100000003").unwrap();
        let error = open(&gap).unwrap_err();
        let expected = LogDamage::Gap { last: zxid(2), found: zxid(5) };
        assert!(matches!(&error, StorageError::LogDamaged { damage, .. } if *damage == expected), "{error}");

        let disk = written(&[1..=2]);
        let first = disk.bytes_of("log.100000001").unwrap();
        disk.put("log.100000003", &first);
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, StorageError::LogDamaged { damage: LogDamage::Order { .. }, .. }), "{error}");
    }

    #[test]
    fn a_bad_snapshot_is_passed_over_if_the_logs_reach_as_far() {
        let disk = written(&[1..=3, 4..=6]);
        snapshot_at(&disk, 3);
        for damaged in
            [vec![], b"ZKSN".to_vec(), disk.bytes_of("snapshot.100000003").unwrap()[..300].to_vec()]
        {
            disk.put("snapshot.100000003", &damaged);
            let recovered = open(&disk).unwrap().1;
            assert_eq!(recovered.last_zxid(), zxid(6));
            assert_eq!(recovered.unreadable_snapshots.len(), 1);
        }
        // A snapshot that came from another member is in no log.
        disk.put("snapshot.300000007", b"ZKSN");
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, StorageError::SnapshotLost { .. }), "{error}");
        assert!(error.to_string().contains("sim/snapshot.300000007"), "{error}");
    }

    #[test]
    fn a_bad_snapshot_of_the_empty_tree_is_replaced_by_what_it_must_have_held() {
        let disk = written(&[1..=3]);
        disk.put("snapshot.0", b"");
        assert_eq!(open(&disk).unwrap().1.last_zxid(), zxid(3));
    }

    #[test]
    fn a_folder_that_has_lost_its_snapshots_is_refused() {
        let mut disk = written(&[1..=3]);
        disk.remove("snapshot.0").unwrap();
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, StorageError::NoSnapshot { .. }), "{error}");
        let disk = SimDisk::new(0);
        disk.put(CURRENT_EPOCH, b"3");
        assert!(matches!(open(&disk).unwrap_err(), StorageError::NoSnapshot { .. }));
        let disk = SimDisk::new(0);
        disk.put("log.1", &[0; 100]);
        assert!(open(&disk).unwrap().1.is_new, "a log without records holds nothing");
    }

    #[test]
    fn a_compressed_newest_snapshot_is_refused_with_a_remedy() {
        for (name, remedy) in [("snapshot.200000000.gz", "gunzip"), ("snapshot.200000000.snappy", "unset")] {
            let disk = written(&[1..=3]);
            disk.put(name, b"\x1f\x8b");
            let text = open(&disk).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(remedy), "{text}");
        }
        let disk = written(&[1..=3]);
        snapshot_at(&disk, 3);
        disk.put("snapshot.100000002.gz", b"\x1f\x8b");
        assert!(open(&disk).is_ok(), "older ones do not matter");
    }

    #[test]
    fn epochs_must_be_possible() {
        let check = |accepted: Option<u32>, current: Option<u32>| {
            let disk = written(&[1..=3]);
            if let Some(epoch) = accepted {
                disk.put(ACCEPTED_EPOCH, epoch.to_string().as_bytes());
            }
            if let Some(epoch) = current {
                disk.put(CURRENT_EPOCH, epoch.to_string().as_bytes());
            }
            open(&disk).map(|(_, recovered)| (recovered.accepted_epoch, recovered.current_epoch))
        };
        assert_eq!(check(None, None).unwrap(), (None, None), "standalone Apache has none");
        assert_eq!(check(Some(2), Some(1)).unwrap(), (Some(Epoch(2)), Some(Epoch(1))));
        assert!(check(Some(1), None).is_ok(), "promised, and never synchronized");
        assert!(check(Some(1), Some(0)).is_ok(), "stopped while it was synchronizing");
        assert!(check(None, Some(1)).is_ok(), "stopped while it took over a log without epochs");
        for (accepted, current) in [(None, Some(2)), (Some(1), Some(2)), (Some(0), Some(0))] {
            let error = check(accepted, current).unwrap_err();
            assert!(matches!(error, StorageError::EpochsContradict { .. }), "{error}");
        }
    }

    #[test]
    fn what_an_interrupted_write_left_is_not_read_and_goes() {
        let disk = written(&[1..=3]);
        disk.put("snapshot.100000009.tmp", b"half");
        disk.put("currentEpoch.tmp", b"9");
        disk.put("notes.tmp", b"an operator's");
        let recovered = open(&disk).unwrap().1;
        assert_eq!((recovered.last_zxid(), recovered.current_epoch), (zxid(3), None));
        assert_eq!(disk.bytes_of("snapshot.100000009.tmp").or(disk.bytes_of("currentEpoch.tmp")), None);
        assert!(disk.bytes_of("notes.tmp").is_some());
    }

    /// A folder with a log for each range of counters of epoch 1.
    fn written(files: &[std::ops::RangeInclusive<u32>]) -> SimDisk {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        for counters in files {
            counters.clone().for_each(|counter| storage.append(&entry(counter)).unwrap());
            storage.roll().unwrap();
        }
        disk
    }

    fn snapshot_at(disk: &SimDisk, counter: u32) {
        let mut storage = open(disk).unwrap().0;
        let mut tree = Tree::new();
        for counter in 1..=counter {
            tree.apply(&Txn::decode(&entry(counter).payload).unwrap());
        }
        let mut body = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut body);
        while !tree.continue_snapshot(&mut cursor, 2, &mut body) {}
        storage.begin_snapshot(zxid(counter)).unwrap();
        storage.write_snapshot(&body).unwrap();
        storage.finish_snapshot((zxid(counter), tree.digest())).unwrap();
    }

    fn open(disk: &SimDisk) -> Result<(Storage<SimDisk>, Recovered), StorageError> {
        Storage::open_with(disk.clone(), StorageSettings { preallocate_bytes: 8_192 })
    }

    fn entry(counter: u32) -> Entry {
        let create = CreateTxn {
            path: ZnodePath::parse(&format!("/znode-{counter}")).unwrap(),
            data: Some(bytes::Bytes::from(vec![b'x'; 100])),
            acl: vec![Acl::open()],
            ephemeral: false,
            parent_cversion: CreateTxn::PARENT_CVERSION_NEXT,
        };
        let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: zxid(counter), time_ms: 1 };
        let txn = Txn { header, op: TxnOp::Create2(create), digest: None };
        Entry { zxid: zxid(counter), payload: txn.encode() }
    }

    fn record_bytes(counter: u32) -> usize {
        entry(counter).payload.len() + 13
    }

    fn zxid(counter: u32) -> Zxid {
        Zxid::new(Epoch(1), counter)
    }
}
