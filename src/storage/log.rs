//! The transaction log: its format, and the writer.
//!
//! ```text
//! header:  int magic "ZKLG" · int version 2 · long dbid 0                 16 bytes
//! record:  long Adler-32 of the payload · int length · payload · 'B'      13 bytes and the payload
//! padding: zeros up to the size that was set aside
//! ```
//!
//! All numbers are big-endian. A payload is an [`Entry`]'s: txn header, record and digest. The file is named
//! for its first record's zxid. It grows in steps, as sparse zeros, so that a sync seldom has to write a new
//! length. A file is written by one process life only: after a restart, and after [`LogWriter::finish`], the
//! next record starts a new file.
//!
//! Source: `FileTxnLog.java`, `FilePadding.java` of Apache ZooKeeper.

use super::StorageError;
use super::disk::{Disk, DiskFile, sync_folder};
use super::file_name::log_name;
use crate::codec::{Reader, WriteJute};
use crate::id::Zxid;
use crate::zab::Entry;
use crate::zab::mutation::{self, Mutation};

/// The first bytes of every log file.
pub(super) const HEADER: [u8; 16] = *b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0";
/// What stands before a record's payload: checksum and length.
pub(super) const RECORD_HEAD_BYTES: usize = 12;
/// The byte after each payload.
pub(super) const RECORD_END: u8 = b'B';
/// The longest payload that is written or believed. Far above what a frame can carry, because a session's
/// end lists all its ephemerals: a txn that was accepted must never be unreadable.
pub(super) const PAYLOAD_BYTES_MAX: usize = 128 << 20;
/// The shortest: a txn header alone.
pub(super) const PAYLOAD_BYTES_MIN: usize = 32;
/// How near the write position may come to the end of what was set aside, as in Apache.
const MARGIN_BYTES: u64 = 4_096;
/// Records are gathered up to this many bytes before they go to the file, even if no sync was asked for.
pub(super) const BUFFER_BYTES: usize = 64 << 10;
/// With this many written bytes unsynced the next append syncs by itself, so that [`super::log_reader`] can
/// tell which broken bytes a power failure can have left.
pub(super) const UNSYNCED_BYTES_MAX: u64 = 1 << 20;

/// One open log file.
#[derive(Debug)]
pub(super) struct LogWriter<F> {
    file: F,
    /// Where the next byte of `buffer` goes.
    position: u64,
    /// The length of the file, set aside ahead of the records.
    size: u64,
    /// Records that are not written yet.
    buffer: Vec<u8>,
    /// The position up to which the file is durable.
    synced: u64,
    is_name_durable: bool,
}

impl<F: DiskFile> LogWriter<F> {
    /// Starts the file whose first record will be `first`.
    pub(super) fn create<D: Disk<File = F>>(disk: &mut D, first: Zxid) -> Result<Self, StorageError> {
        let file = disk.create(&log_name(first))?;
        let buffer = HEADER.to_vec();
        Ok(Self { file, position: 0, size: 0, buffer, synced: 0, is_name_durable: false })
    }

    /// Adds a record. It lasts only once [`LogWriter::sync`] has returned.
    pub(super) fn append<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        entry: &Entry,
        preallocate_bytes: u64,
    ) -> Result<(), StorageError> {
        put_record(&mut self.buffer, &entry.payload)?;
        if self.buffer.len() >= BUFFER_BYTES {
            self.write(preallocate_bytes)?;
        }
        // What a sync covers is bounded, so that damage further back is known not to be a torn write.
        if self.position - self.synced >= UNSYNCED_BYTES_MAX {
            self.sync(disk, preallocate_bytes)?;
        }
        Ok(())
    }

    /// Makes all records so far durable, and the file's name with them.
    pub(super) fn sync<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        preallocate_bytes: u64,
    ) -> Result<(), StorageError> {
        self.write(preallocate_bytes)?;
        if self.synced == self.position {
            return Ok(());
        }
        let synced = self.file.sync();
        if !mutation::is_on(Mutation::M22) {
            synced?;
        }
        if !self.is_name_durable {
            sync_folder(disk)?;
            self.is_name_durable = true;
        }
        self.synced = self.position;
        Ok(())
    }

    /// Makes all records durable and gives back what was set aside: a file that is not the last ends with
    /// its last record.
    pub(super) fn finish<D: Disk<File = F>>(
        mut self,
        disk: &mut D,
        preallocate_bytes: u64,
    ) -> Result<(), StorageError> {
        self.sync(disk, preallocate_bytes)?;
        if self.size > self.position {
            self.file.set_len(self.position)?;
            self.file.sync()?;
        }
        Ok(())
    }

    fn write(&mut self, preallocate_bytes: u64) -> Result<(), StorageError> {
        let end = self.position + self.buffer.len() as u64;
        let size = preallocated(end, self.size, preallocate_bytes);
        if size > self.size {
            self.file.set_len(size)?;
            self.size = size;
        }
        if !self.buffer.is_empty() {
            self.file.put_at(self.position, &self.buffer)?;
            self.position = end;
            self.buffer.clear();
            self.buffer.shrink_to(2 * BUFFER_BYTES);
        }
        Ok(())
    }
}

/// The size that a file with data up to `end` must have: unchanged while the end is not near, else further
/// by whole steps. Zero sets nothing aside.
fn preallocated(end: u64, size: u64, step: u64) -> u64 {
    if step == 0 || end + MARGIN_BYTES < size {
        return size;
    }
    let missing = (end + MARGIN_BYTES + 1).saturating_sub(size);
    // The first step counts from behind the header, as in Apache.
    let size = size.max(HEADER.len() as u64);
    size + missing.div_ceil(step).max(1) * step
}

/// Appends one record to `out`.
pub(super) fn put_record(out: &mut Vec<u8>, payload: &[u8]) -> Result<(), StorageError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let zxid = zxid_of(payload).unwrap_or(Zxid::NONE);
        return Err(StorageError::EntryTooLarge { zxid, bytes: payload.len(), max: PAYLOAD_BYTES_MAX });
    }
    out.put_long(i64::from(simd_adler32::adler32(&payload)));
    out.put_buffer(Some(payload));
    out.push(RECORD_END);
    Ok(())
}

/// The zxid in a txn header, the one field that the log looks at; `None` when there is no header.
pub(super) fn zxid_of(payload: &[u8]) -> Option<Zxid> {
    let mut header = Reader::new(payload.get(..PAYLOAD_BYTES_MIN)?);
    header.long("session").ok()?;
    header.int("cxid").ok()?;
    header.long("zxid").ok().map(Zxid::from_raw)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn a_record_is_checksum_length_payload_and_mark() {
        let mut out = Vec::new();
        put_record(&mut out, b"abc").unwrap();
        assert_eq!(out, b"\0\0\0\0\x02\x4d\x01\x27\0\0\0\x03abcB");
    }

    #[test]
    fn a_txn_that_could_not_be_read_again_is_not_written() {
        let error = put_record(&mut Vec::new(), &vec![0; PAYLOAD_BYTES_MAX + 1]).unwrap_err();
        assert!(matches!(error, StorageError::EntryTooLarge { .. }), "{error}");
    }

    #[test]
    fn the_first_step_ends_where_apaches_does() {
        let step = 64 << 20;
        assert_eq!(preallocated(100, 0, step), 67_108_880);
        assert_eq!(preallocated(67_108_880 - 4_097, 67_108_880, step), 67_108_880);
        assert_eq!(preallocated(67_108_880 - 4_096, 67_108_880, step), 67_108_880 + step);
        assert_eq!(preallocated(100, 0, 0), 0, "off");
        assert!(preallocated(10 * step, 16 + step, step) > 10 * step + MARGIN_BYTES, "one jump is enough");
    }

    #[test]
    fn a_finished_file_ends_with_its_last_record() {
        let mut disk = SimDisk::new(0);
        let first = Zxid::from_raw(0x1_0000_0001);
        let mut log = LogWriter::create(&mut disk, first).unwrap();
        let entry = Entry { zxid: first, payload: Bytes::from_static(&[1; 40]) };
        log.append(&mut disk, &entry, 8_192).unwrap();
        assert_eq!(disk.bytes_of("log.100000001").unwrap().len(), 0, "records are gathered");
        log.sync(&mut disk, 8_192).unwrap();
        assert_eq!(disk.bytes_of("log.100000001").unwrap().len(), 16 + 8_192);
        log.finish(&mut disk, 8_192).unwrap();
        assert_eq!(disk.bytes_of("log.100000001").unwrap().len(), 16 + 13 + 40);
    }
}
