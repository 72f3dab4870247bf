//! What a member keeps on disk: the transaction log, snapshots and the two epochs, in Apache ZooKeeper's
//! files, so that either can start on a folder the other wrote.
//!
//! ```text
//!            append · sync · roll · read_log ─► log.<zxid>
//! Storage ── begin, write, finish_snapshot ───► snapshot.<zxid>            Disk ── files, or simulated
//!            set_accepted_epoch, set_current… ► acceptedEpoch, currentEpoch
//!            record_voters ───────────────────► voters
//!            record_committed ────────────────► committed
//!            truncate · install_snapshot ─────► logs and snapshots
//! open ◄──── newest snapshot + entries after it ─ all of them
//! ```
//!
//! Everything is synchronous; the ensemble's log thread owns the [`Storage`]. What it promises:
//!
//! - An entry whose [`Storage::sync`] has returned is there after any crash, and so are all before it. An
//!   entry that was appended and not synced is there wholly or not at all.
//! - Files other than logs are replaced in one step: written under a temporary name, synced, renamed, and the
//!   folder synced. A snapshot is never durable before the txns it may hold parts of. The one exception is a hint that may
//!   be lost, and says of itself when it is damaged: `committed`.
//! - Cutting the history back can be repeated after a crash; replacing it has happened wholly or not at all. The
//!   headers of `truncation` and `install` say why.
//! - After any error of the disk nothing more is done: it is not known what the disk has kept, and a second
//!   sync may succeed without meaning it. The member must stop; recovery finds out, and reports only what it has made
//!   durable itself.
//! - Damage that no crash explains is refused with file and offset, never skipped. `recovery` has the rules.
//!
//! Left to others: when to sync, to roll, to take a snapshot and to purge. Format facts stand in the file
//! that codes them.

mod committed;
mod disk;
mod epoch;
mod error;
mod file_disk;
mod file_name;
mod files;
mod history;
mod install;
mod log;
mod log_range;
mod log_reader;
mod purge;
mod recovery;
#[cfg(test)]
mod sample;
pub mod sim_disk;
mod snapshot;
#[cfg(test)]
mod tests;
mod text_file;
mod truncation;
mod voters;

pub use disk::{Disk, DiskFile};
pub use error::{LogDamage, StorageError};
pub use file_disk::FileDisk;
pub use recovery::{Recovered, TornTail};

use std::collections::BTreeSet;

use self::committed::CommittedFile;
use self::file_name::{ACCEPTED_EPOCH, CURRENT_EPOCH};
use self::log::{LogWriter, zxid_of};
use self::log_range::LogRange;
pub use self::log_range::{LogRead, LogReading};
use self::snapshot::{KnownSnapshot, SnapshotWriter};
use crate::id::{Epoch, ServerId, Zxid};
use crate::zab::{Entry, continues};

/// How storage is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSettings {
    /// By how many bytes a log file grows at a time, as zeros that take no room; 64 MiB unless set, as in
    /// Apache. 0 grows it by each record, which makes syncs slower.
    pub preallocate_bytes: u64,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self { preallocate_bytes: 64 << 20 }
    }
}

/// The log, the snapshots and the epochs of one member.
#[derive(Debug)]
pub struct Storage<D: Disk> {
    disk: D,
    settings: StorageSettings,
    log: Option<LogWriter<D::File>>,
    snapshot: Option<SnapshotWriter<D::File>>,
    /// The newest txn that was recovered, appended or came with a snapshot.
    last: Zxid,
    /// The newest snapshot that was read or written by this process.
    snapshot_known: KnownSnapshot,
    /// The txn right behind which the logs start, if they are known to.
    base: Option<Zxid>,
    committed: CommittedFile<D::File>,
    /// The first error's text; from then on nothing is done.
    failure: Option<String>,
}

impl<D: Disk> Storage<D> {
    /// Recovers what the folder holds, or starts a new history in an empty one, with default settings.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, or what it holds cannot be trusted: the text names the file and what
    /// to do.
    pub fn open(disk: D) -> Result<(Self, Recovered), StorageError> {
        Self::open_with(disk, StorageSettings::default())
    }

    /// As [`Storage::open`], with settings.
    ///
    /// # Errors
    ///
    /// As [`Storage::open`].
    pub fn open_with(mut disk: D, settings: StorageSettings) -> Result<(Self, Recovered), StorageError> {
        let (recovered, snapshot_known) = recovery::recover(&mut disk)?;
        let storage = Self {
            disk,
            settings,
            log: None,
            snapshot: None,
            last: recovered.last_zxid(),
            snapshot_known,
            base: Some(snapshot_known.zxid),
            committed: CommittedFile::new(recovered.committed),
            failure: None,
        };
        Ok((storage, recovered))
    }

    /// Reads the disk again, after everything so far was made durable. A snapshot that is not finished is dropped.
    ///
    /// # Errors
    ///
    /// As [`Storage::open`].
    pub fn reload(&mut self) -> Result<Recovered, StorageError> {
        self.roll()?;
        self.attempt(|storage| {
            storage.drop_snapshot()?;
            let (recovered, snapshot_known) = recovery::recover(&mut storage.disk)?;
            storage.last = recovered.last_zxid();
            storage.snapshot_known = snapshot_known;
            storage.base = Some(snapshot_known.zxid);
            storage.committed = CommittedFile::new(recovered.committed);
            Ok(recovered)
        })
    }

    /// The newest txn that is in the log or covered by a snapshot, synced or not.
    pub const fn last_zxid(&self) -> Zxid {
        self.last
    }

    /// The size of the newest snapshot that was read or written: about what a member that lacks much must be sent.
    pub const fn newest_snapshot_bytes(&self) -> u64 {
        self.snapshot_known.bytes
    }

    /// Adds an entry to the log; it lasts only once [`Storage::sync`] has returned.
    ///
    /// # Errors
    ///
    /// When the disk fails, or has failed before. As for every method below.
    ///
    /// # Panics
    ///
    /// When the entry does not continue the history without a gap, or its zxid is not the payload's.
    pub fn append(&mut self, entry: &Entry) -> Result<(), StorageError> {
        assert!(
            continues(self.last, entry.zxid),
            "the log has no gaps: {} cannot follow {}",
            entry.zxid,
            self.last
        );
        assert_eq!(zxid_of(&entry.payload), Some(entry.zxid), "an entry has the zxid of its txn");
        self.attempt(|storage| {
            let Self { disk, log, settings, .. } = storage;
            let log = match log {
                Some(log) => log,
                None => log.insert(LogWriter::create(disk, entry.zxid)?),
            };
            log.append(disk, entry, settings.preallocate_bytes)?;
            storage.last = entry.zxid;
            Ok(())
        })
    }

    /// Makes all entries so far durable.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.attempt(|Self { disk, log, settings, .. }| match log {
            Some(log) => log.sync(disk, settings.preallocate_bytes),
            None => Ok(()),
        })
    }

    /// Ends the log file, durably: the next entry starts a new one. Done when a snapshot is begun, so that
    /// older files can be purged.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn roll(&mut self) -> Result<(), StorageError> {
        self.attempt(|Self { disk, log, settings, .. }| match log.take() {
            Some(log) => log.finish(disk, settings.preallocate_bytes),
            None => Ok(()),
        })
    }

    /// The entries after `after`, to the end of the log; those not synced yet are made durable first. `None` when the
    /// logs do not show that `after` lies in this history and what comes right behind it, or when the payloads have
    /// more than `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn read_log(&mut self, after: Zxid, bytes_max: u64) -> Result<Option<Vec<Entry>>, StorageError> {
        let mut reading = self.begin_reading(after, bytes_max)?;
        loop {
            if let LogRead::Done(entries) = self.read_on(&mut reading, u64::MAX)? {
                return Ok(entries);
            }
        }
    }

    /// The same a part at a time. Entries may be appended meanwhile, which are read, too, and a snapshot may be written; a log must
    /// neither be cut nor removed.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn begin_reading(&mut self, after: Zxid, bytes_max: u64) -> Result<LogReading<D>, StorageError> {
        self.sync()?;
        self.attempt(|Self { disk, last, base, .. }| {
            LogReading::new(disk, LogRange { after, is_base: *base == Some(after), to: *last, bytes_max })
        })
    }

    /// Reads on, `bytes` of payload or a little more; what was not synced is made durable first.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn read_on(&mut self, reading: &mut LogReading<D>, bytes: u64) -> Result<LogRead, StorageError> {
        self.sync()?;
        self.attempt(|Self { disk, last, .. }| reading.read_on(disk, *last, bytes))
    }

    /// Cuts off all entries after `zxid`, durably, and the snapshots that may hold any of them. Does nothing when the
    /// history ends before. When there is no entry `zxid`, the history ends with the one before it afterwards.
    /// `truncation` tells why a crash does no harm.
    ///
    /// # Errors
    ///
    /// [`StorageError::CannotTruncate`] when the history cannot be followed down to `zxid`; then it was not changed.
    /// Else as [`Storage::append`].
    pub fn truncate(&mut self, zxid: Zxid) -> Result<(), StorageError> {
        if zxid >= self.last {
            return self.sync();
        }
        self.roll()?;
        self.attempt(|storage| {
            if storage.snapshot.as_ref().is_some_and(|snapshot| snapshot.zxid() > zxid) {
                storage.drop_snapshot()?;
            }
            storage.committed.lower(&mut storage.disk, zxid)?;
            let truncated = truncation::truncate(&mut storage.disk, zxid, storage.snapshot_known)?;
            storage.last = truncated.last;
            storage.snapshot_known = truncated.snapshot;
            if storage.base.is_some_and(|base| base > truncated.last) {
                storage.base = Some(truncated.snapshot.zxid);
            }
            Ok(())
        })
    }

    /// Replaces the whole history, durably, by a snapshot that came from another member: `body` is what stands in a
    /// file between header and first seal. A snapshot that is not finished is dropped. After a crash there is the old
    /// history or the new one, as `install` tells.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn install_snapshot(&mut self, zxid: Zxid, body: &[u8]) -> Result<(), StorageError> {
        self.roll()?;
        self.attempt(|storage| {
            storage.drop_snapshot()?;
            storage.committed.lower(&mut storage.disk, Zxid::NONE)?;
            storage.snapshot_known = install::install(&mut storage.disk, zxid, storage.last, body)?;
            storage.last = zxid;
            storage.base = Some(zxid);
            Ok(())
        })
    }

    /// Starts the snapshot that will hold all txns up to `zxid`, and drops any that was not finished.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    ///
    /// # Panics
    ///
    /// When the log does not reach that far.
    pub fn begin_snapshot(&mut self, zxid: Zxid) -> Result<(), StorageError> {
        assert!(
            zxid <= self.last,
            "a snapshot as of {zxid} is ahead of the log, which ends at {}",
            self.last
        );
        self.attempt(|storage| {
            storage.drop_snapshot()?;
            storage.snapshot = Some(SnapshotWriter::create(&mut storage.disk, zxid)?);
            Ok(())
        })
    }

    /// Adds the next bytes of the tree's serialization to the snapshot.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    ///
    /// # Panics
    ///
    /// When no snapshot was begun.
    pub fn write_snapshot(&mut self, slice: &[u8]) -> Result<(), StorageError> {
        self.attempt(|storage| {
            storage.snapshot.as_mut().expect("a snapshot is begun before it is written").write(slice)
        })
    }

    /// Seals the snapshot, with the tree's digest after the newest txn that it may hold parts of, and makes it
    /// durable, after the log.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    ///
    /// # Panics
    ///
    /// When no snapshot was begun.
    pub fn finish_snapshot(&mut self, digest: (Zxid, u64)) -> Result<(), StorageError> {
        self.sync()?;
        self.attempt(|storage| {
            let writer = storage.snapshot.take().expect("a snapshot is begun before it is finished");
            storage.snapshot_known = writer.finish(&mut storage.disk, digest)?;
            Ok(())
        })
    }

    /// Replaces the epoch up to which the member promises to follow nobody older, durably.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn set_accepted_epoch(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        self.attempt(|storage| epoch::write(&mut storage.disk, ACCEPTED_EPOCH, epoch))
    }

    /// Replaces the epoch in which the member is synchronized, durably; the log is synced first, because a
    /// member that votes with an epoch must hold the history that belongs to it (ZOOKEEPER-4643).
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn set_current_epoch(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        self.sync()?;
        self.attempt(|storage| epoch::write(&mut storage.disk, CURRENT_EPOCH, epoch))
    }

    /// Removes all but the newest `retain` snapshots (at least one) and the logs that none of those needs;
    /// returns how many files were removed.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn purge(&mut self, retain: usize) -> Result<usize, StorageError> {
        self.attempt(|storage| {
            let purged = purge::purge(&mut storage.disk, retain, storage.snapshot_known.zxid)?;
            if storage.base.is_some_and(|base| base < purged.oldest_kept) {
                storage.base = None;
            }
            Ok(purged.removed)
        })
    }

    /// The members with a vote that were recorded last; `None` when none ever were.
    ///
    /// # Errors
    ///
    /// [`StorageError::BadVoters`], or what the disk says. Neither is final: nothing was changed.
    pub fn recorded_voters(&self) -> Result<Option<BTreeSet<ServerId>>, StorageError> {
        voters::read(&self.disk)
    }

    /// Replaces the record of the members with a vote, durably.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn record_voters(&mut self, voters: &BTreeSet<ServerId>) -> Result<(), StorageError> {
        assert!(!voters.is_empty(), "an ensemble has a voter");
        self.attempt(|storage| voters::write(&mut storage.disk, voters))
    }

    /// Notes that this entry is committed, and all before it, after everything so far was made durable. A start goes by it,
    /// unless it was lost with the power: it is not synced. A disk that refuses it costs nothing else.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    ///
    /// # Panics
    ///
    /// When the log does not reach that far.
    pub fn record_committed(&mut self, entry: &Entry) -> Result<(), StorageError> {
        assert!(
            entry.zxid <= self.last,
            "{} cannot be committed here, the log ends at {}",
            entry.zxid,
            self.last
        );
        self.sync()?;
        self.attempt(|storage| {
            storage.committed.record(&mut storage.disk, entry);
            Ok(())
        })
    }

    fn drop_snapshot(&mut self) -> Result<(), StorageError> {
        match self.snapshot.take() {
            Some(snapshot) => snapshot.discard(&mut self.disk),
            None => Ok(()),
        }
    }

    /// Runs one operation, unless an earlier one has failed.
    fn attempt<T>(
        &mut self,
        operation: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if let Some(cause) = &self.failure {
            return Err(StorageError::Failed { cause: cause.clone() });
        }
        let outcome = operation(self);
        if let Err(error) = &outcome {
            self.failure = Some(error.to_string());
        }
        outcome
    }
}
