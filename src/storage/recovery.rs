//! From the files of a folder back to the tree, the epochs, and a log that can be written on.
//!
//! ```text
//! newest readable snapshot ─► replay of the logs from there on ─► end of the last log ─► epochs agree? ─► tidy up
//! ```
//!
//! The rules, all of which serve "what was acknowledged is never lost":
//!
//! - **An empty folder** becomes a new history: `snapshot.0` is durable before anything else is written. So a
//!   folder with txns and without any snapshot has lost files, and nobody can say which others: it is refused,
//!   whatever zxid its logs start with. The same for epoch files without a snapshot: an empty member must not
//!   vote with the weight of its former self.
//! - **An unreadable snapshot** is passed over for an older one, if the logs reach from there up to the
//!   unreadable one. An unreadable `snapshot.0` needs no older one: its contents are known.
//! - **Replayed txns leave no gap**: a counter follows its predecessor, or starts at 1 in a later epoch.
//! - **The last log** may end in what a power failure leaves of an unsynced batch. That is cut off, durably,
//!   before a new file is started, so that only the last file can ever have such an end. A last log without
//!   any record is removed.
//! - **Any other log** must be whole, or be continued without a gap by the next one.
//! - **The epochs** must be possible: current at most accepted, and no txn of an epoch after the accepted one.
//!   Txns of an epoch after the current one are possible: the member stopped while it was synchronizing.
//!
//! Recovery may be interrupted anywhere and repeated. Files that an interrupted atomic write left are never
//! read, and removed at the end.
//!
//! Source: `FileTxnSnapLog.java`, `QuorumPeer.java` of Apache ZooKeeper.

use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;
use tracing::{info, warn};

use super::disk::{Disk, DiskFile};
use super::epoch;
use super::error::{LogDamage, StorageError};
use super::file_name::{ACCEPTED_EPOCH, CURRENT_EPOCH, Compression, FileName, log_name, snapshot_name};
use super::log::HEADER;
use super::log_reader::{LogEnd, LogReader};
use super::snapshot::{self, SnapshotWriter};
use crate::id::{Epoch, Zxid};
use crate::tree::{Tree, Txn};
use crate::zab::{Entry, continues};

/// What was found on disk.
#[derive(Debug)]
pub struct Recovered {
    /// The newest snapshot's state: committed.
    pub tree: Tree,
    /// The entries that the logs hold after it, which may or may not be committed.
    pub tail: Vec<Entry>,
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

    /// The state after the last txn on disk.
    ///
    /// # Panics
    ///
    /// Never: every entry was decoded when it was read.
    pub fn whole_tree(&self) -> Tree {
        let mut tree = self.tree.clone();
        for entry in &self.tail {
            tree.apply(&Txn::decode(&entry.payload).expect("it was decoded when it was read"));
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

/// A history that is being read.
struct History {
    tree: Tree,
    tail: Vec<Entry>,
    /// The zxid of the snapshot that was read.
    base: Zxid,
    /// Newer snapshots that could not be read, and that the logs did not reach yet.
    unreadable: Vec<Unreadable>,
    torn_tail: Option<TornTail>,
}

struct Unreadable {
    zxid: Zxid,
    file: String,
    reason: String,
}

/// The files of a folder by kind, oldest first.
pub(super) struct Files {
    pub(super) logs: Vec<Zxid>,
    pub(super) snapshots: Vec<(Zxid, Compression, String)>,
    /// Snapshots that are not to be read again.
    pub(super) set_aside: Vec<String>,
    temporary: Vec<String>,
}

impl Files {
    pub(super) fn list<D: Disk>(disk: &D) -> Result<Self, StorageError> {
        let mut files =
            Self { logs: Vec::new(), snapshots: Vec::new(), set_aside: Vec::new(), temporary: Vec::new() };
        for name in disk.list()? {
            match FileName::parse(&name) {
                // Another spelling of the same number would be another file.
                FileName::Log(zxid) if name == log_name(zxid) => files.logs.push(zxid),
                FileName::Snapshot(zxid, compression) => files.snapshots.push((zxid, compression, name)),
                FileName::SetAside(_) => files.set_aside.push(name),
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

/// Reads the folder and leaves it so that a new log can be started. Returns the zxid of the snapshot that
/// the state was read from, too.
pub(super) fn recover<D: Disk>(disk: &mut D) -> Result<(Recovered, Zxid), StorageError> {
    let files = Files::list(disk)?;
    let accepted_epoch = epoch::read(disk, ACCEPTED_EPOCH)?;
    let current_epoch = epoch::read(disk, CURRENT_EPOCH)?;

    let is_new = files.snapshots.is_empty();
    let mut history = if is_new {
        refuse_remains(disk, &files, accepted_epoch, current_epoch)?;
        start_new(disk)?
    } else {
        History::load(disk, &files)?
    };
    let unreadable_snapshots = history.unreadable.iter().map(Unreadable::to_string).collect();
    history.replay(disk, files.logs_after(history.base))?;
    check_epochs(accepted_epoch, current_epoch, history.last())?;
    for name in &Files::list(disk)?.temporary {
        disk.remove(name)?;
    }

    let last = history.last();
    let History { tree, tail, base, torn_tail, .. } = history;
    info!(zxid = %last, snapshot = %base, nodes = tree.node_count(), txns = tail.len(), is_new, "recovered");
    let recovered =
        Recovered { tree, tail, accepted_epoch, current_epoch, torn_tail, unreadable_snapshots, is_new };
    Ok((recovered, base))
}

/// A folder without snapshots must be empty.
fn refuse_remains<D: Disk>(
    disk: &D,
    files: &Files,
    accepted: Option<Epoch>,
    current: Option<Epoch>,
) -> Result<(), StorageError> {
    for (epoch, name) in [(accepted, ACCEPTED_EPOCH), (current, CURRENT_EPOCH)] {
        if epoch.is_some() {
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
    writer.finish(disk, (Zxid::ZERO, 0))?;
    Ok(History::new(tree, Zxid::ZERO, Vec::new()))
}

impl History {
    const fn new(tree: Tree, base: Zxid, unreadable: Vec<Unreadable>) -> Self {
        Self { tree, tail: Vec::new(), base, unreadable, torn_tail: None }
    }

    /// The last txn read so far.
    fn last(&self) -> Zxid {
        self.tail.last().map_or(self.tree.last_zxid(), |entry| entry.zxid)
    }

    /// Reads the newest snapshot that can be read.
    fn load<D: Disk>(disk: &D, files: &Files) -> Result<Self, StorageError> {
        let mut unreadable = Vec::new();
        for (zxid, compression, name) in files.snapshots.iter().rev() {
            refuse_compressed(disk, name, *compression)?;
            match read_snapshot(disk, name, *zxid) {
                Ok(tree) => return Ok(Self::new(tree, *zxid, unreadable)),
                Err(reason) => {
                    let file = disk.path_of(name);
                    warn!(%file, %reason, "snapshot cannot be read, trying the one before it");
                    unreadable.push(Unreadable { zxid: *zxid, file, reason });
                }
            }
        }
        if unreadable.last().is_some_and(|oldest| oldest.zxid == Zxid::ZERO) {
            warn!("the oldest snapshot is that of the empty tree, which is known");
            return Ok(Self::new(Tree::new(), Zxid::ZERO, unreadable));
        }
        Err(StorageError::NoUsableSnapshot {
            reasons: unreadable.iter().map(Unreadable::to_string).collect(),
        })
    }

    fn replay<D: Disk>(&mut self, disk: &mut D, logs: &[Zxid]) -> Result<(), StorageError> {
        let mut reached = BTreeSet::from([self.base]);
        for (index, first) in logs.iter().enumerate() {
            self.replay_file(disk, &log_name(*first), logs.get(index + 1).copied(), &mut reached)?;
        }
        self.check_unreadable_are_reached(&reached)
    }

    fn replay_file<D: Disk>(
        &mut self,
        disk: &mut D,
        name: &str,
        next_file: Option<Zxid>,
        reached: &mut BTreeSet<Zxid>,
    ) -> Result<(), StorageError> {
        let file = disk.path_of(name);
        let mut reader = LogReader::new(disk.open(name)?);
        let mut last_in_file = Zxid::ZERO;
        while let Some(record) = reader.next()? {
            let offset = record.offset;
            last_in_file = record.zxid;
            if self.unreadable.iter().any(|snapshot| snapshot.zxid == record.zxid) {
                reached.insert(record.zxid);
            }
            self.replay_record(record.zxid, record.payload).map_err(|damage| StorageError::LogDamaged {
                file: file.clone(),
                offset,
                damage,
            })?;
        }
        let offset = reader.position();
        let end = reader.end(last_in_file)?;
        drop(reader);

        let last = self.last();
        let is_continued = next_file.is_some_and(|next| last.next() == Some(next));
        let damage = match end {
            LogEnd::Clean => None,
            LogEnd::Torn if next_file.is_some() => Some(LogDamage::NotLast),
            LogEnd::Torn => None,
            LogEnd::NoHeader => Some(LogDamage::Header),
            LogEnd::Damaged { valid_at } => Some(LogDamage::Middle { valid_at }),
        };
        if let Some(damage) = damage {
            if is_continued {
                warn!(%file, offset, %damage, "log is damaged, but the next one continues without a gap");
                return Ok(());
            }
            return Err(StorageError::LogDamaged { file, offset, damage });
        }
        if next_file.is_none() { self.end_last_file(disk, name, offset, end) } else { Ok(()) }
    }

    fn replay_record(&mut self, zxid: Zxid, payload: &[u8]) -> Result<(), LogDamage> {
        let last = self.last();
        if zxid <= self.base {
            return Ok(());
        }
        if zxid <= last {
            return Err(LogDamage::Order { last, found: zxid });
        }
        if !continues(last, zxid) {
            return Err(LogDamage::Gap { last, found: zxid });
        }
        // Whatever may have to be applied must be understood now.
        Txn::decode(payload).map_err(LogDamage::Record)?;
        self.tail.push(Entry { zxid, payload: Bytes::copy_from_slice(payload) });
        Ok(())
    }

    /// Leaves of the last log its whole records and nothing that could be mistaken for more.
    fn end_last_file<D: Disk>(
        &mut self,
        disk: &mut D,
        name: &str,
        offset: u64,
        end: LogEnd,
    ) -> Result<(), StorageError> {
        let has_records = offset > HEADER.len() as u64;
        if end == LogEnd::Torn {
            let file = disk.path_of(name);
            warn!(%file, offset, "cut off the end of the log, which was never acknowledged");
            self.torn_tail = Some(TornTail { file, offset });
        }
        if !has_records {
            disk.remove(name)?;
            disk.sync_dir()?;
        } else if end == LogEnd::Torn {
            let mut file = disk.edit(name)?;
            file.set_len(offset)?;
            file.sync()?;
        }
        Ok(())
    }

    /// A snapshot's own txn is in a log too, unless the snapshot came from another member or files are gone.
    /// An epoch's beginning has no txn.
    fn check_unreadable_are_reached(&self, reached: &BTreeSet<Zxid>) -> Result<(), StorageError> {
        let is_missing =
            |snapshot: &&Unreadable| snapshot.zxid.counter() != 0 && !reached.contains(&snapshot.zxid);
        match self.unreadable.iter().find(is_missing) {
            None => Ok(()),
            Some(snapshot) => Err(StorageError::SnapshotLost {
                file: snapshot.file.clone(),
                reason: snapshot.reason.clone(),
                last: self.last(),
            }),
        }
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
}

fn refuse_compressed<D: Disk>(disk: &D, name: &str, compression: Compression) -> Result<(), StorageError> {
    let remedy = match compression {
        Compression::None => return Ok(()),
        Compression::Gzip => {
            "unpack it with gunzip, or let Apache ZooKeeper write one more snapshot with \
             snapshot.compression.method unset"
        }
        Compression::Snappy => {
            "let Apache ZooKeeper write one more snapshot with snapshot.compression.method unset"
        }
    };
    Err(StorageError::Compressed { file: disk.path_of(name), remedy })
}

/// Any failure to read is a reason to try an older snapshot.
fn read_snapshot<D: Disk>(disk: &D, name: &str, zxid: Zxid) -> Result<Tree, String> {
    if name != snapshot_name(zxid) {
        return Err("its name is not spelled as a snapshot's".to_owned());
    }
    let mut bytes = Vec::new();
    disk.open(name).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
    snapshot::decode(&bytes, zxid).map_err(|damage| damage.to_string())
}

fn check_epochs(accepted: Option<Epoch>, current: Option<Epoch>, last: Zxid) -> Result<(), StorageError> {
    let is_possible = match (accepted, current) {
        (None, None) => true,
        (None, Some(_)) => false,
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
    use crate::storage::sim_disk::SimDisk;
    use crate::storage::{Storage, StorageSettings};
    use crate::tree::{CreateTxn, TxnHeader, TxnOp};
    use crate::znode::{Acl, ZnodePath};

    #[test]
    fn an_empty_folder_becomes_a_new_history_once() {
        let disk = SimDisk::new(0);
        let recovered = open(&disk).unwrap().1;
        assert!(recovered.is_new && recovered.whole_tree() == Tree::new());
        assert!(disk.power_on().bytes_of("snapshot.0").is_some(), "durable before anything else");
        let recovered = open(&disk.power_on()).unwrap().1;
        assert!(!recovered.is_new && recovered.whole_tree() == Tree::new());
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
        for (accepted, current) in [(None, Some(1)), (Some(1), Some(2)), (Some(0), Some(0))] {
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
            data: Some(Bytes::from(vec![b'x'; 100])),
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
