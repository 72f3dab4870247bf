//! Reading a part of the history back from the logs, for a member that lacks it: in parts, so that who waits for a sync does not
//! wait for all of it.

use bytes::Bytes;
use tracing::warn;

use super::StorageError;
use super::disk::Disk;
use super::file_name::log_name;
use super::files::Files;
use super::log_reader::{LogEnd, LogReader};
use crate::id::Zxid;
use crate::zab::{Entry, continues};

/// Which part of the history is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogRange {
    /// The txn right before it.
    pub(super) after: Zxid,
    /// Whether the logs are known to start right behind that one, even if they have no record of it.
    pub(super) is_base: bool,
    /// The last txn of it.
    pub(super) to: Zxid,
    /// The most bytes of payload that it may have.
    pub(super) bytes_max: u64,
}

/// A range that is being read, a part at a time, while the log goes on: its end moves along, so that what was read is no older in the
/// end than if all of it had been read at once.
#[derive(Debug)]
pub struct LogReading<D: Disk> {
    range: LogRange,
    /// Files yet to be read, the next one last.
    files: Vec<Zxid>,
    /// The newest file that is known.
    newest_file: Option<Zxid>,
    /// The file that is being read: what it is called by, how far it was read.
    open: Option<(Zxid, LogReader<D::Reader>, Zxid)>,
    last: Option<Zxid>,
    entries: Vec<Entry>,
}

/// What a part of a reading has come to.
#[derive(Debug)]
pub enum LogRead {
    /// There is more.
    Unfinished,
    /// All of it; `None` when the logs do not show where the range starts, or when it is too large.
    Done(Option<Vec<Entry>>),
}

impl<D: Disk> LogReading<D> {
    pub(super) fn new(disk: &D, range: LogRange) -> Result<Self, StorageError> {
        let mut files = Files::list(disk)?.logs_after(range.after).to_vec();
        files.reverse();
        let newest_file = files.first().copied();
        let last = range.is_base.then_some(range.after);
        Ok(Self { range, files, newest_file, open: None, last, entries: Vec::new() })
    }

    /// The log ends at `to` by now, all of it durable.
    fn extend(&mut self, disk: &D, to: Zxid) -> Result<(), StorageError> {
        self.range.to = to;
        if let Some((first, reader, _)) = &mut self.open {
            reader.go_on_in(disk.open(&log_name(*first))?)?;
        }
        let mut later: Vec<_> = Files::list(disk)?.logs;
        later.retain(|first| self.newest_file.is_none_or(|newest| *first > newest));
        self.newest_file = later.last().copied().or(self.newest_file);
        // They come behind all that is yet to be read.
        later.reverse();
        later.append(&mut self.files);
        self.files = later;
        Ok(())
    }

    /// Reads on, `bytes` of payload or a little more, of a log that ends at `to`.
    pub(super) fn read_on(&mut self, disk: &D, to: Zxid, bytes: u64) -> Result<LogRead, StorageError> {
        if to > self.range.to {
            self.extend(disk, to)?;
        }
        let LogRange { after, to, .. } = self.range;
        let mut bytes_left = bytes;
        while self.last.is_none_or(|last| last < to) {
            let Some((first, reader, last_in_file)) = &mut self.open else {
                let Some(first) = self.files.pop() else { break };
                self.open = Some((first, LogReader::new(disk.open(&log_name(first))?), Zxid::ZERO));
                continue;
            };
            let Some(record) = reader.next()? else {
                // What is missing before the first txn of an epoch would not show.
                let end = reader.end(*last_in_file)?;
                if !matches!(end, LogEnd::Clean) {
                    warn!(file = %disk.path_of(&log_name(*first)), ?end, "a log is damaged: it is not read for a learner");
                    return Ok(LogRead::Done(None));
                }
                self.open = None;
                continue;
            };
            let (zxid, size) = (record.zxid, record.payload.len() as u64);
            *last_in_file = zxid;
            if zxid <= after {
                self.last = self.last.or((zxid == after).then_some(zxid));
            } else {
                let is_seamless = self.last.is_some_and(|last| continues(last, zxid));
                let left = self.range.bytes_max.checked_sub(size);
                let (true, Some(left)) = (is_seamless, left) else { return Ok(LogRead::Done(None)) };
                self.range.bytes_max = left;
                self.last = Some(zxid);
                self.entries.push(Entry { zxid, payload: Bytes::copy_from_slice(record.payload) });
            }
            match bytes_left.checked_sub(size) {
                Some(left) => bytes_left = left,
                None => return Ok(LogRead::Unfinished),
            }
        }
        let Some(last) = self.last else { return Ok(LogRead::Done(None)) };
        if last != to {
            // Whoever asked gets a snapshot instead; the next start tells what is wrong here.
            warn!(%after, %last, expected = %to, "the log cannot be read to its end");
            return Ok(LogRead::Done(None));
        }
        Ok(LogRead::Done(Some(std::mem::take(&mut self.entries))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;
    use crate::storage::sample::{append, body_of, entry, open, snapshot, tree_of, zxid, zxids};
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn what_follows_a_record_or_the_base_is_read_to_the_end_unsynced_or_not() {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        append(&mut storage, 1, 1..=3);
        storage.roll().unwrap();
        append(&mut storage, 3, 1..=2);
        storage.append(&entry(zxid(3, 3))).unwrap();
        let all = [zxids(1, 1..=3), zxids(3, 1..=3)].concat();
        assert_eq!(read(&mut storage, Zxid::ZERO), Some(all.clone()));
        for (index, after) in all.iter().enumerate() {
            assert_eq!(read(&mut storage, *after).as_deref(), Some(&all[index + 1..]));
        }
        for unknown in [zxid(1, 0), zxid(1, 4), zxid(2, 0), zxid(2, 1), zxid(3, 0), zxid(3, 4)] {
            assert_eq!(read(&mut storage, unknown), None, "{unknown}");
        }
        // The open log goes on as before.
        append(&mut storage, 3, 4..=4);
        assert_eq!(read(&mut storage, zxid(3, 2)), Some(zxids(3, 3..=4)));
        assert_eq!(open(&disk.power_on()).unwrap().1.last_zxid(), zxid(3, 4));
    }

    #[test]
    fn a_payload_is_what_was_appended() {
        let mut storage = open(&SimDisk::new(0)).unwrap().0;
        append(&mut storage, 1, 1..=2);
        assert_eq!(storage.read_log(zxid(1, 1), 1_000).unwrap(), Some(vec![entry(zxid(1, 2))]));
    }

    #[test]
    fn too_much_is_not_read() {
        let mut storage = open(&SimDisk::new(0)).unwrap().0;
        append(&mut storage, 1, 1..=4);
        let bytes = entry(zxid(1, 1)).payload.len() as u64;
        assert!(storage.read_log(zxid(1, 1), 3 * bytes).unwrap().is_some());
        assert!(storage.read_log(zxid(1, 1), 3 * bytes - 1).unwrap().is_none());
    }

    #[test]
    fn where_the_logs_start_is_only_known_of_what_this_process_found_or_installed() {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        append(&mut storage, 1, 1..=4);
        snapshot(&mut storage, zxid(1, 4), &tree_of(zxids(1, 1..=4)), zxid(1, 4));
        append(&mut storage, 2, 1..=2);
        assert_eq!(read(&mut storage, Zxid::ZERO).map(|read| read.len()), Some(6));
        storage.purge(1).unwrap();
        assert_eq!(read(&mut storage, Zxid::ZERO), None, "they were purged");
        assert_eq!(read(&mut storage, zxid(1, 4)), Some(zxids(2, 1..=2)));

        storage.install_snapshot(zxid(2, 7), &body_of(&tree_of(zxids(2, 1..=7)))).unwrap();
        assert_eq!(read(&mut storage, zxid(2, 7)), Some(Vec::new()));
        append(&mut storage, 3, 1..=1);
        for unknown in [Zxid::ZERO, zxid(1, 4), zxid(2, 6), zxid(3, 0)] {
            assert_eq!(read(&mut storage, unknown), None, "{unknown}");
        }
        let mut storage = open(&disk).unwrap().0;
        assert_eq!(read(&mut storage, zxid(2, 7)), Some(zxids(3, 1..=1)));
        storage.truncate(zxid(2, 7)).unwrap();
        assert_eq!(read(&mut storage, zxid(2, 7)), Some(Vec::new()));
    }

    #[test]
    fn a_record_that_has_rotted_ends_no_history_early() {
        let disk = SimDisk::new(0);
        let mut storage = open(&disk).unwrap().0;
        append(&mut storage, 1, 1..=4);
        storage.roll().unwrap();
        let mut bytes = disk.bytes_of("log.100000001").unwrap();
        for at in [100, bytes.len() - 5] {
            bytes[at] ^= 1;
            disk.put("log.100000001", &bytes);
            assert_eq!(read(&mut storage, zxid(1, 1)), None);
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn what_is_appended_while_a_range_is_read_is_read_too() {
        for rolls_at in [&[][..], &[5], &[2, 3, 6], &[1, 2, 3, 4, 5, 6, 7, 8]] {
            let mut storage = open(&SimDisk::new(0)).unwrap().0;
            append(&mut storage, 1, 1..=3);
            storage.roll().unwrap();
            append(&mut storage, 1, 4..=6);
            let mut reading = storage.begin_reading(zxid(1, 1), 1_000_000).unwrap();
            let mut parts = 0;
            let read = loop {
                match storage.read_on(&mut reading, 1).unwrap() {
                    LogRead::Unfinished => parts += 1,
                    LogRead::Done(entries) => break entries.unwrap(),
                }
                if rolls_at.contains(&parts) {
                    storage.roll().unwrap();
                }
                if parts <= 8 {
                    append(&mut storage, 1, 6 + parts..=6 + parts);
                }
            };
            assert!(parts > 8, "{parts}");
            let read: Vec<_> = read.iter().map(|entry| entry.zxid).collect();
            assert_eq!(read, zxids(1, 2..=14), "{rolls_at:?}");
        }
    }

    fn read(storage: &mut Storage<SimDisk>, after: Zxid) -> Option<Vec<Zxid>> {
        let entries = storage.read_log(after, 1_000_000).unwrap()?;
        Some(entries.iter().map(|entry| entry.zxid).collect())
    }
}
