//! Reading one log file, and judging how it ends.
//!
//! Records are read up to the first that is not whole: a length of zero (the padding), a length that cannot
//! be, a checksum or end mark that does not fit, or the end of the file. Then the question is whether a
//! crash explains the rest:
//!
//! - **clean**: only zeros, or nothing, follow;
//! - **torn**: no valid record follows, or those that do lie within one unsynced batch and at least one disk
//!   sector of the broken record is still empty. A power failure keeps any sectors of a batch, in any order, so
//!   a later record may have survived an earlier one. Nothing of that batch was acknowledged;
//! - **damaged**: valid records follow, and no empty sector explains why. Something has changed what was
//!   once durable, and what follows may have been acknowledged.
//!
//! What can not be told from a torn batch, within the last [`UNSYNCED_BYTES_MAX`] bytes of the last file: a whole
//! sector that turned to zeros, a length that was changed so that the record seems to reach into an empty sector,
//! and damage to the very last record.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::log::{
    BUFFER_BYTES, HEADER, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, RECORD_END, RECORD_HEAD_BYTES,
    UNSYNCED_BYTES_MAX, zxid_of,
};
use crate::codec::Reader;
use crate::id::Zxid;
use crate::zab::mutation::{self, Mutation};

/// Reads the records of one file in order.
#[derive(Debug)]
pub(super) struct LogReader<R> {
    file: BufReader<R>,
    /// Where the next record starts; 0 while the header was not read.
    position: u64,
    payload: Vec<u8>,
}

/// One record as it lies in the file.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// Where it starts.
    pub(super) offset: u64,
    pub(super) zxid: Zxid,
    pub(super) payload: &'a [u8],
}

/// How the readable part of a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogEnd {
    /// With padding or the end of the file.
    Clean,
    /// With what a crash can leave of an unsynced batch.
    Torn,
    /// With something that is no log file's header.
    NoHeader,
    /// With a broken record that valid ones follow.
    Damaged { valid_at: u64 },
}

impl<R: Read + Seek> LogReader<R> {
    pub(super) fn new(file: R) -> Self {
        Self { file: BufReader::with_capacity(READ_BYTES, file), position: 0, payload: Vec::new() }
    }

    /// Where the part that could be read ends.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// Goes on in the same file, opened anew: it holds more by now.
    pub(super) fn go_on_in(&mut self, file: R) -> io::Result<()> {
        self.file = BufReader::with_capacity(READ_BYTES, file);
        self.file.seek(SeekFrom::Start(self.position)).map(drop)
    }

    /// The next record, `None` where the readable part ends; then [`LogReader::end`] says how.
    pub(super) fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        if self.position == 0 && !self.read_header()? {
            return Ok(None);
        }
        let offset = self.position;
        let Some(zxid) = read_record(&mut self.file, &mut self.payload)? else { return Ok(None) };
        self.position += (RECORD_HEAD_BYTES + self.payload.len() + 1) as u64;
        Ok(Some(Record { offset, zxid, payload: &self.payload }))
    }

    /// Judges what follows the readable part, given the last txn that is known before it.
    pub(super) fn end(&mut self, last: Zxid) -> io::Result<LogEnd> {
        let len = self.file.seek(SeekFrom::End(0))?;
        let Some(first_used) = self.find_used(self.position, len)? else {
            return Ok(LogEnd::Clean);
        };
        if self.position == 0 && !self.is_header_torn(len)? {
            return Ok(LogEnd::NoHeader);
        }
        let Some(valid_at) = self.find_record(first_used, len, last)? else { return Ok(LogEnd::Torn) };
        // A record starts less than this behind what was durable when it was written.
        let is_in_reach = valid_at - self.position < UNSYNCED_BYTES_MAX + BUFFER_BYTES as u64;
        let is_batch = is_in_reach && self.lacks_a_sector(valid_at)?;
        if is_batch || mutation::is_on(Mutation::M21) {
            return Ok(LogEnd::Torn);
        }
        Ok(LogEnd::Damaged { valid_at })
    }

    fn read_header(&mut self) -> io::Result<bool> {
        let mut header = [0; HEADER.len()];
        // The dbid is not looked at, as in Apache.
        let is_log = read_fully(&mut self.file, &mut header)? && header[..8] == HEADER[..8];
        if is_log {
            self.position = HEADER.len() as u64;
        }
        Ok(is_log)
    }

    /// Whether the header is what a crash leaves of one: a part of it, and zeros.
    fn is_header_torn(&mut self, len: u64) -> io::Result<bool> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut found = [0; HEADER.len()];
        let there = usize::try_from(len).unwrap_or(HEADER.len()).min(HEADER.len());
        self.file.read_exact(&mut found[..there])?;
        let written = found.iter().zip(HEADER).take_while(|(found, header)| *found == header).count();
        Ok(found[written..].iter().all(|byte| *byte == 0))
    }

    /// The first valid record that starts at or after `from` and may follow `last`.
    fn find_record(&mut self, from: u64, len: u64, last: Zxid) -> io::Result<Option<u64>> {
        // A record starts with at least four zeros, so it may start before its first byte that is not.
        let mut start = from.saturating_sub(RECORD_HEAD_BYTES as u64).max(self.position);
        let mut window = Vec::new();
        while start < len {
            // Behind the last record are zeros, up to 64 MiB of them: no record starts there but the head of one.
            let Some(used) = self.find_used(start, len)? else { return Ok(None) };
            start = start.max(used.saturating_sub(RECORD_HEAD_BYTES as u64));
            self.file.seek(SeekFrom::Start(start))?;
            window.clear();
            (&mut self.file).take(READ_BYTES as u64).read_to_end(&mut window)?;
            if window.len() < CANDIDATE_BYTES {
                return Ok(None);
            }
            let candidates = window.windows(CANDIDATE_BYTES).enumerate();
            for (index, _) in candidates.filter(|(_, head)| may_start_record(head, last)) {
                self.file.seek(SeekFrom::Start(start + index as u64))?;
                if read_record(&mut self.file, &mut self.payload)?.is_some() {
                    return Ok(Some(start + index as u64));
                }
            }
            start += (window.len() - CANDIDATE_BYTES + 1) as u64;
        }
        Ok(None)
    }

    /// Whether some sector of the broken record never reached the disk: it, or the part of it that lies behind the record's
    /// start, is all zeros. That of the valid record at `valid_at` did, but for one that holds its first four bytes alone: these
    /// are zeros in every record, and nobody misses them.
    fn lacks_a_sector(&mut self, valid_at: u64) -> io::Result<bool> {
        let sector_bytes = SECTOR_BYTES as u64;
        let record_end = self.broken_record_end()?;
        let mut start = self.position + LEADING_ZEROS;
        while start < record_end {
            let end = (start / sector_bytes + 1) * sector_bytes;
            if end > valid_at + LEADING_ZEROS {
                break;
            }
            if self.find_used(start, end)?.is_none() {
                return Ok(true);
            }
            start = end;
        }
        Ok(false)
    }

    /// Where the record that could not be read ends, as far as its own length can be believed.
    fn broken_record_end(&mut self) -> io::Result<u64> {
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut head = [0; RECORD_HEAD_BYTES];
        self.file.read_exact(&mut head)?;
        let length = Reader::new(&head[8..]).int("length").expect("the head has twelve bytes");
        let head_end = self.position + RECORD_HEAD_BYTES as u64;
        Ok(payload_length(length).map_or(head_end, |length| head_end + length as u64 + 1))
    }

    /// The first 512 bytes or less, from `from` on, that are not all zeros.
    fn find_used(&mut self, from: u64, to: u64) -> io::Result<Option<u64>> {
        self.file.seek(SeekFrom::Start(from))?;
        let mut start = from;
        let mut part = [0; SECTOR_BYTES];
        while start < to {
            let wanted = usize::try_from(to - start).unwrap_or(part.len()).min(part.len());
            self.file.read_exact(&mut part[..wanted])?;
            // Compared as a whole: there may be 64 MiB of them.
            if part[..wanted] != ZEROS[..wanted] {
                return Ok(Some(start));
            }
            start += wanted as u64;
        }
        Ok(None)
    }
}

/// Reads one record into `payload`; `None` when there is no valid one.
fn read_record(file: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Option<Zxid>> {
    payload.clear();
    let mut head = [0; RECORD_HEAD_BYTES];
    if !read_fully(file, &mut head)? {
        return Ok(None);
    }
    let mut reader = Reader::new(&head);
    let checksum = reader.long("checksum").expect("the head has twelve bytes");
    let length = reader.int("length").expect("the head has twelve bytes");
    let Some(length) = payload_length(length) else { return Ok(None) };
    // `take` bounds what is reserved by what is there, whatever the length claims.
    file.take(length as u64 + 1).read_to_end(payload)?;
    if payload.len() != length + 1 || payload.pop() != Some(RECORD_END) {
        return Ok(None);
    }
    let is_intact = i64::from(simd_adler32::adler32(&payload.as_slice())) == checksum;
    if !is_intact && !mutation::is_on(Mutation::M20) {
        return Ok(None);
    }
    Ok(zxid_of(payload))
}

fn payload_length(length: i32) -> Option<usize> {
    usize::try_from(length).ok().filter(|length| (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(length))
}

/// A cheap test of a record's first bytes, before its checksum is computed.
fn may_start_record(head: &[u8], last: Zxid) -> bool {
    let mut reader = Reader::new(head);
    let (Ok(checksum), Ok(length)) = (reader.long("checksum"), reader.int("length")) else { return false };
    let is_sound = u32::try_from(checksum).is_ok_and(|sum| sum > 1) && payload_length(length).is_some();
    let skipped = reader.take(12, "session and cxid").is_ok();
    is_sound && skipped && reader.long("zxid").is_ok_and(|zxid| Zxid::from_raw(zxid) > last)
}

/// Fills `bytes`; false when the file ends before.
fn read_fully(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is read at once.
const READ_BYTES: usize = 256 << 10;
/// A record's head and its txn header up to the zxid.
const CANDIDATE_BYTES: usize = RECORD_HEAD_BYTES + 20;
/// The unit that a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;
/// The checksum has 32 bits in a field of 64.
const LEADING_ZEROS: u64 = 4;
const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::log::put_record;

    /// The PROPOSAL data of a captured createSession, create and failed setData, as a log holds them.
    const VECTORS: [&str; 3] = [
        "0100000ff81100000000000000000001 00000001000001a202b0b0f8fffffff6 00001770 000000020000000051c6d660",
        "0100000ff81100000000000100000001 00000003000001a202b0b13f00000001 000000022f78000000013100000001\
         0000001f00000005776f726c6400000006616e796f6e650000000001 0000000200000001a0b9f6d6",
        "0100000ff81100000000000200000001 00000004000001a202b0b140ffffffff ffffff99",
    ];

    #[test]
    fn a_header_that_is_not_whole_is_damage_when_its_sector_holds_a_record() {
        let payload = hex(VECTORS[0]);
        let mut file = b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0".to_vec();
        put_record(&mut file, &payload).unwrap();
        file.resize(2_000, 0);
        file[7] = 0;
        assert_eq!(read(&file).2, LogEnd::Damaged { valid_at: 16 }, "it looks like one that was begun");
    }

    #[test]
    fn records_built_by_hand_are_read_up_to_the_padding() {
        let mut file = b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0".to_vec();
        for vector in VECTORS {
            let payload = hex(vector);
            file.extend_from_slice(&u64::from(adler32_by_the_book(&payload)).to_be_bytes());
            file.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
            file.extend_from_slice(&payload);
            file.push(0x42);
        }
        let end = file.len() as u64;
        file.resize(5_000, 0);

        let (records, position, log_end) = read(&file);
        assert_eq!(position, end);
        assert_eq!(log_end, LogEnd::Clean);
        let zxids: Vec<_> = records.iter().map(|(zxid, _)| zxid.raw()).collect();
        assert_eq!(zxids, [0x1_0000_0001, 0x1_0000_0003, 0x1_0000_0004]);
        assert_eq!(records[1].1, hex(VECTORS[1]));
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_records() {
        let (file, ends) = sample(6, 90);
        for cut in 0..file.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            for padding in [0, 3_000] {
                let mut torn = file[..cut].to_vec();
                torn.resize(cut + padding, 0);
                let (records, position, end) = read(&torn);
                assert_eq!(records.len(), whole, "cut at {cut}");
                assert!(matches!(end, LogEnd::Clean | LogEnd::Torn), "cut at {cut}: {end:?}");
                let expected = if cut < HEADER.len() && !(padding > 0 && cut >= 8) {
                    0
                } else {
                    ends[..whole].last().copied().unwrap_or(HEADER.len())
                };
                assert_eq!(position, expected as u64, "cut at {cut}");
            }
        }
    }

    #[test]
    fn any_flipped_bit_before_the_last_record_is_damage() {
        let (file, ends) = sample(5, 300);
        for byte in HEADER.len()..ends[3] {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[byte] ^= 1 << bit;
                flipped.resize(file.len() + 2_000, 0);
                let hit = ends.iter().position(|end| byte < *end).unwrap();
                let (records, position, end) = read(&flipped);
                assert_eq!(records.len(), hit);
                assert_eq!(end, LogEnd::Damaged { valid_at: ends[hit] as u64 }, "byte {byte} bit {bit}");
                assert_eq!(position, if hit == 0 { HEADER.len() } else { ends[hit - 1] } as u64);
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_the_last_record_is_a_torn_tail() {
        let (mut file, ends) = sample(5, 300);
        file[ends[3] + 20] ^= 1;
        let (records, position, end) = read(&file);
        assert_eq!((records.len(), position, end), (4, ends[3] as u64, LogEnd::Torn));
    }

    #[test]
    fn a_batch_whose_later_sectors_survived_is_torn() {
        let (mut file, ends) = sample(12, 300);
        file[512..1_024].fill(0);
        let (records, position, end) = read(&file);
        let whole = ends.iter().filter(|end| **end <= 512).count();
        assert_eq!((records.len(), position, end), (whole, ends[whole - 1] as u64, LogEnd::Torn));
        // The first sector, with the header in it, may be the one that is missing.
        file[..512].fill(0);
        let (records, position, end) = read(&file);
        assert_eq!((records.len(), position, end), (0, 0, LogEnd::Torn));
    }

    #[test]
    fn a_flipped_bit_before_a_batch_whose_later_sectors_survived_is_damage() {
        let (mut file, ends) = sample(12, 300);
        file[ends[0] + 30] ^= 1;
        file[1_536..2_048].fill(0);
        let (records, position, end) = read(&file);
        assert_eq!((records.len(), position), (1, ends[0] as u64));
        assert_eq!(end, LogEnd::Damaged { valid_at: ends[1] as u64 });
        // Nothing valid need follow at once for that.
        file[ends[1] + 30..512 * 3].fill(b'x');
        assert!(matches!(read(&file).2, LogEnd::Damaged { .. }));
    }

    #[test]
    fn what_is_no_log_is_said_to_be_none() {
        assert_eq!(read(b"ZKSN\0\0\0\x02 a snapshot").2, LogEnd::NoHeader);
        assert_eq!(read(b"ZKLG\0\0\0\x03\0\0\0\0\0\0\0\0").2, LogEnd::NoHeader);
        for len in [0, 1, 7, 15, 16, 5_000] {
            assert_eq!(read(&vec![0; len]).2, LogEnd::Clean);
            assert_eq!(read(&HEADER[..len.min(16)]).0, []);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 32..200), 0..20)) {
            let mut file = HEADER.to_vec();
            payloads.iter().for_each(|payload| put_record(&mut file, payload).unwrap());
            let (records, position, end) = read(&file);
            prop_assert_eq!(records.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads);
            prop_assert_eq!((position, end), (file.len() as u64, LogEnd::Clean));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, has_header: bool) {
            let mut file = if has_header { HEADER.to_vec() } else { Vec::new() };
            file.extend(bytes);
            read(&file);
        }
    }

    fn read(file: &[u8]) -> (Vec<(Zxid, Vec<u8>)>, u64, LogEnd) {
        let mut reader = LogReader::new(Cursor::new(file));
        let mut records = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            records.push((record.zxid, record.payload.to_vec()));
        }
        let last = records.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        let position = reader.position();
        (records, position, reader.end(last).unwrap())
    }

    /// A log of `count` records without zeros in their data, and where each of them ends.
    fn sample(count: u8, data_bytes: usize) -> (Vec<u8>, Vec<usize>) {
        let mut file = HEADER.to_vec();
        let ends = (1..=count)
            .map(|counter| {
                let mut payload = vec![counter; 12];
                payload.extend_from_slice(&(0x1_0000_0000_i64 + i64::from(counter)).to_be_bytes());
                payload.resize(PAYLOAD_BYTES_MIN + data_bytes, b'x');
                put_record(&mut file, &payload).unwrap();
                file.len()
            })
            .collect();
        (file, ends)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
    }

    fn adler32_by_the_book(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1, 0), |(a, b): (u32, u32), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        b << 16 | a
    }
}
