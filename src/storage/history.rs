//! One pass over snapshots and logs: the part of recovery that judges them.

use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;
use tracing::warn;

use super::disk::{Disk, DiskFile};
use super::error::{LogDamage, StorageError};
use super::file_name::log_name;
use super::files::Files;
use super::log::{BUFFER_BYTES, HEADER, UNSYNCED_BYTES_MAX};
use super::log_reader::{LogEnd, LogReader};
use super::recovery::TornTail;
use super::snapshot::{self, KnownSnapshot, refuse_compressed};
use crate::id::Zxid;
use crate::tree::{Tree, Txn};
use crate::zab::{Entry, continues};

/// A history that is being read.
pub(super) struct History {
    pub(super) tree: Tree,
    /// The snapshot that the tree was read from.
    pub(super) snapshot: KnownSnapshot,
    /// What follows it.
    pub(super) tail: Vec<Entry>,
    /// Newer snapshots that could not be read.
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) torn_tail: Option<TornTail>,
}

/// A snapshot that could not be read.
pub(super) struct Unreadable {
    zxid: Zxid,
    file: String,
    reason: String,
}

impl History {
    pub(super) const fn new(tree: Tree, snapshot: KnownSnapshot, unreadable: Vec<Unreadable>) -> Self {
        Self { tree, snapshot, tail: Vec::new(), unreadable, torn_tail: None }
    }

    /// The last txn that was read.
    pub(super) fn last(&self) -> Zxid {
        self.tail.last().map_or(self.snapshot.zxid, |entry| entry.zxid)
    }

    /// Reads the newest snapshot that can be read.
    pub(super) fn load<D: Disk>(disk: &D, files: &Files) -> Result<Self, StorageError> {
        let mut unreadable = Vec::new();
        for (zxid, compression, name) in files.snapshots.iter().rev() {
            refuse_compressed(disk, name, *compression)?;
            match snapshot::read_named(disk, name, *zxid) {
                Ok((tree, snapshot)) => return Ok(Self::new(tree, snapshot, unreadable)),
                Err(reason) => {
                    let file = disk.path_of(name);
                    warn!(%file, %reason, "snapshot cannot be read, trying the one before it");
                    unreadable.push(Unreadable { zxid: *zxid, file, reason });
                }
            }
        }
        if unreadable.last().is_some_and(|oldest| oldest.zxid == Zxid::ZERO) {
            warn!("the oldest snapshot is that of the empty tree, which is known");
            let snapshot = KnownSnapshot { zxid: Zxid::ZERO, fuzzy_to: Zxid::ZERO, bytes: 0 };
            return Ok(Self::new(Tree::new(), snapshot, unreadable));
        }
        Err(StorageError::NoUsableSnapshot {
            reasons: unreadable.iter().map(Unreadable::to_string).collect(),
        })
    }

    /// Reads what the logs hold after the snapshot.
    pub(super) fn read_logs<D: Disk>(&mut self, disk: &mut D, logs: &[Zxid]) -> Result<(), StorageError> {
        for (index, first) in logs.iter().enumerate() {
            self.read_log(disk, &log_name(*first), logs.get(index + 1).copied())?;
        }
        match self.lost_snapshot() {
            None => Ok(()),
            Some(snapshot) => Err(self.lost(snapshot)),
        }
    }

    fn read_log<D: Disk>(
        &mut self,
        disk: &mut D,
        name: &str,
        next_file: Option<Zxid>,
    ) -> Result<(), StorageError> {
        let file = disk.path_of(name);
        let mut reader = LogReader::new(disk.open(name)?);
        let mut last_in_file = Zxid::ZERO;
        let mut longest_record = 0;
        while let Some(record) = reader.next()? {
            let offset = record.offset;
            last_in_file = record.zxid;
            longest_record = longest_record.max(record.payload.len() as u64);
            self.add(record.zxid, record.payload).map_err(|damage| match self.lost_snapshot() {
                // The file that is to blame is not the log.
                Some(snapshot) if matches!(damage, LogDamage::Gap { .. }) => self.lost(snapshot),
                Some(_) | None => StorageError::LogDamaged { file: file.clone(), offset, damage },
            })?;
        }
        let offset = reader.position();
        let end = reader.end(last_in_file)?;
        drop(reader);

        let is_continued = next_file.is_some_and(|next| self.last().next() == Some(next));
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
        match next_file {
            Some(_) => Ok(()),
            None => self.end_last_file(disk, name, offset, end, longest_record),
        }
    }

    fn add(&mut self, zxid: Zxid, payload: &[u8]) -> Result<(), LogDamage> {
        let last = self.last();
        if zxid <= self.snapshot.zxid {
            return Ok(());
        }
        if zxid <= last {
            return Err(LogDamage::Order { last, found: zxid });
        }
        if !continues(last, zxid) {
            return Err(LogDamage::Gap { last, found: zxid });
        }
        let payload = Bytes::copy_from_slice(payload);
        Txn::decode(&payload).map_err(LogDamage::Record)?;
        self.tail.push(Entry { zxid, payload });
        Ok(())
    }

    /// Leaves of the last log its whole records and nothing that could be mistaken for more, and makes them durable: the
    /// process that wrote them may have ended before a sync. If a sync had failed, the system may hold bytes for clean
    /// that the disk never got, so all that can be in that state is written once more.
    fn end_last_file<D: Disk>(
        &mut self,
        disk: &mut D,
        name: &str,
        end: u64,
        log_end: LogEnd,
        longest_record: u64,
    ) -> Result<(), StorageError> {
        if log_end == LogEnd::Torn {
            let file = disk.path_of(name);
            warn!(%file, offset = end, "cut off the end of the log, which was never acknowledged");
            self.torn_tail = Some(TornTail { file, offset: end });
        }
        if end <= HEADER.len() as u64 {
            disk.remove(name)?;
            return Ok(());
        }
        let unsynced_max = UNSYNCED_BYTES_MAX + BUFFER_BYTES as u64 + longest_record;
        let start = end.saturating_sub(unsynced_max);
        let mut reader = disk.open(name)?;
        reader.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        reader.take(end - start).read_to_end(&mut bytes)?;
        let mut file = disk.edit(name)?;
        file.put_at(start, &bytes)?;
        file.set_len(end)?;
        file.sync()?;
        Ok(())
    }

    /// A snapshot that cannot be read and that the logs do not make up for: its own txn is in a log too, unless the
    /// snapshot came from another member or files are gone. An epoch's beginning has no txn, so of that nothing is
    /// known.
    fn lost_snapshot(&self) -> Option<&Unreadable> {
        self.unreadable.iter().find(|snapshot| {
            let is_logged = self.tail.binary_search_by_key(&snapshot.zxid, |entry| entry.zxid).is_ok();
            snapshot.zxid != Zxid::ZERO && !is_logged
        })
    }

    fn lost(&self, snapshot: &Unreadable) -> StorageError {
        StorageError::SnapshotLost {
            file: snapshot.file.clone(),
            reason: snapshot.reason.clone(),
            last: self.last(),
        }
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
}
