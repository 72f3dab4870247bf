//! The file that says up to where the history is known to be committed: a hint, which a start without the others goes by.
//!
//! ```text
//! zxid, 16 digits · payload length, 8 · CRC-32 of the payload, 8 · CRC-32 of all before, 8      44 bytes
//! ```
//!
//! One line of lower-case hexadecimal, single spaces between, a line feed at the end. It is ours alone: Apache ZooKeeper has
//! no file of that name and leaves it be.
//!
//! A log does not tell which of its txns are committed, and a member that finds no leader has nobody to ask. Apache's then
//! shows snapshot and log as a whole, and so what may never be committed. Here the member shows what this file
//! vouches for. It is written seldom and never synced: after a power failure it may be an older one, half a line, or gone.
//! Then less is shown.
//!
//! **Why nothing is ever shown that was not committed.** Say that the file names the txn Z, and that it is believed:
//!
//! - *Z was committed, and durable here.* It is written for a txn that was delivered here, behind a sync of the log. A txn that was
//!   delivered is committed for ever. No write of ours is ahead of that, so neither is what a power failure leaves of
//!   several: one of them, which all hold, or a mixture, which the last number betrays.
//! - *The log holds this very Z.* Length and checksum are those of the entry that the log has at Z: not another txn of the same zxid,
//!   from another ensemble, or from one that began anew. It holds the session, the time and what was done.
//! - *So it holds all that was committed before Z.* An epoch has one leader, which proposes to all in one order what it has logged
//!   in one order, and logs have no gaps: whose log has Z has the history that led to it.
//! - *It goes before the history does.* Before anything is cut off at or below Z, and before another history takes the place of this
//!   one, the file is removed, durably. A crash in between leaves the old history without it, or with it.
//!
//! What others may have done to the folder meanwhile is met by the second point alone. Apache's server, which may have cut the log or
//! gone on with it, does not touch this file: Z is in the log still, or the file is not believed. A log from a backup ends before Z,
//! or holds it. A file from a backup names an older Z. Besides, currentEpoch is written before anything of an epoch is delivered: an older
//! one shows that the files are not of one time.
//!
//! A file that is not believed is removed, with a warning, and one that the newest snapshot has overtaken without. What was committed
//! where the member was, and is not any more, because an ensemble was begun anew without it, is shown until the new one's
//! leader has it cut off, as its snapshots are.

use std::io::{self, Read};

use tracing::warn;

use super::StorageError;
use super::disk::{Disk, DiskFile, sync_folder};
use super::file_name::COMMITTED;
use super::history::History;
use crate::id::{Epoch, Zxid};
use crate::zab::Entry;

/// The file as this process writes it.
#[derive(Debug)]
pub(super) struct CommittedFile<F> {
    /// Once it was written.
    file: Option<F>,
    /// It names no later txn than this.
    up_to: Zxid,
    /// After an error it stays as it is, which is never wrong.
    is_given_up: bool,
}

/// A txn, and how to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hint {
    zxid: Zxid,
    bytes: u32,
    checksum: u32,
}

/// Why a hint is not believed.
#[derive(Debug, thiserror::Error)]
enum Disbelief {
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("it is damaged, as a power failure may leave it")]
    Damaged,
    #[error("it names {0}, of a later epoch than currentEpoch")]
    LaterEpoch(Zxid),
    #[error("it names {0}, which the log does not hold")]
    NotLogged(Zxid),
    #[error("it names another txn {0} than the one that the log holds")]
    OtherTxn(Zxid),
}

/// The last txn of the history read that the file vouches for. A file that does not vouch for any behind the
/// snapshot is removed; the folder is to be synced.
pub(super) fn judge<D: Disk>(
    disk: &mut D,
    history: &History,
    current_epoch: Option<Epoch>,
) -> Result<Option<Zxid>, StorageError> {
    let believed = match read(disk) {
        Ok(None) => return Ok(None),
        Ok(Some(text)) => believe(&text, history, current_epoch),
        Err(error) => Err(Disbelief::Unreadable(error)),
    };
    match believed {
        Ok(Some(zxid)) => return Ok(Some(zxid)),
        Ok(None) => {}
        Err(reason) => {
            let file = disk.path_of(COMMITTED);
            warn!(%file, %reason, "what was committed behind the newest snapshot is not known without the other members");
        }
    }
    disk.remove(COMMITTED)?;
    Ok(None)
}

fn read<D: Disk>(disk: &D) -> io::Result<Option<String>> {
    if !is_there(disk)? {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    disk.open(COMMITTED)?.take(LINE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn believe(text: &str, history: &History, current_epoch: Option<Epoch>) -> Result<Option<Zxid>, Disbelief> {
    let hint = Hint::parse(text).ok_or(Disbelief::Damaged)?;
    let zxid = hint.zxid;
    if zxid <= history.snapshot.zxid {
        return Ok(None);
    }
    if current_epoch.is_none_or(|current| zxid.epoch() > current) {
        return Err(Disbelief::LaterEpoch(zxid));
    }
    let found = history.tail.binary_search_by_key(&zxid, |entry| entry.zxid);
    let index = found.map_err(|_absent| Disbelief::NotLogged(zxid))?;
    if Hint::of(&history.tail[index]) == hint { Ok(Some(zxid)) } else { Err(Disbelief::OtherTxn(zxid)) }
}

impl<F: DiskFile> CommittedFile<F> {
    /// The file as recovery has left it, which names nothing after `up_to`.
    pub(super) const fn new(up_to: Zxid) -> Self {
        Self { file: None, up_to, is_given_up: false }
    }

    /// Has the file name this txn, which is committed and durable in the log, unless it vouches for it anyway. Lasts when the
    /// system gets to it.
    pub(super) fn record<D: Disk<File = F>>(&mut self, disk: &mut D, entry: &Entry) {
        if self.is_given_up || entry.zxid <= self.up_to {
            return;
        }
        // Even if it fails, some of it may be there.
        self.up_to = entry.zxid;
        if let Err(error) = self.write(disk, &Hint::of(entry).encode()) {
            self.is_given_up = true;
            let file = disk.path_of(COMMITTED);
            warn!(%file, %error, "what is committed is not written down any more; a start without the others shows less");
        }
    }

    fn write<D: Disk<File = F>>(&mut self, disk: &mut D, line: &str) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None if is_there(disk)? => self.file.insert(disk.edit(COMMITTED)?),
            None => self.file.insert(disk.create(COMMITTED)?),
        };
        // In place, within one sector: the old line or the new one, and no name to be made durable.
        file.put_at(0, line.as_bytes())
    }

    /// Removes the file, durably, if it may name a txn after `zxid`.
    pub(super) fn lower<D: Disk<File = F>>(&mut self, disk: &mut D, zxid: Zxid) -> Result<(), StorageError> {
        if self.up_to <= zxid {
            return Ok(());
        }
        self.file = None;
        if is_there(disk)? {
            disk.remove(COMMITTED)?;
            sync_folder(disk)?;
        }
        self.up_to = Zxid::NONE;
        Ok(())
    }
}

impl Hint {
    fn of(entry: &Entry) -> Self {
        let bytes = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
        Self { zxid: entry.zxid, bytes, checksum: crc32fast::hash(&entry.payload) }
    }

    fn encode(self) -> String {
        let Self { zxid, bytes, checksum } = self;
        let said = format!("{:016x} {bytes:08x} {checksum:08x} ", zxid.raw());
        format!("{said}{:08x}\n", crc32fast::hash(said.as_bytes()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ');
        let zxid = Zxid::from_raw(i64::from_str_radix(numbers.next()?, 16).ok()?);
        let mut number = || u32::from_str_radix(numbers.next()?, 16).ok();
        let hint = Self { zxid, bytes: number()?, checksum: number()? };
        // There is one way to say it.
        (hint.encode() == text).then_some(hint)
    }
}

fn is_there<D: Disk>(disk: &D) -> io::Result<bool> {
    Ok(disk.list()?.iter().any(|name| name == COMMITTED))
}

/// More than any hint takes.
const LINE_BYTES_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sample::{append, entry, open, snapshot, tree_of, zxid, zxids};
    use crate::storage::sim_disk::SimDisk;
    use crate::storage::{Recovered, Storage};

    #[test]
    fn a_hint_is_one_line_and_reads_back() {
        let hint = Hint { zxid: zxid(5, 3), bytes: 45, checksum: 0xabc };
        let line = "0000000500000003 0000002d 00000abc 972b3677\n";
        assert_eq!(hint.encode(), line);
        assert_eq!(Hint::parse(line), Some(hint));
        assert!(line.len() as u64 <= LINE_BYTES_MAX);
        for other in
            ["", "\n", &line[..43], &line[1..], &line.to_uppercase(), &format!("{line}\n"), "0 0 0 0\n"]
        {
            assert_eq!(Hint::parse(other), None, "{other:?}");
        }
        for (at, bit) in (0..line.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bytes = line.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            assert_eq!(Hint::parse(&String::from_utf8_lossy(&bytes)), None, "bit {bit} of byte {at}");
        }
    }

    #[test]
    fn a_start_knows_what_was_recorded_and_not_what_came_after() {
        let disk = SimDisk::new(0);
        drop(history(&disk));
        let (mut storage, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.committed, Zxid::ZERO, "nothing was said");
        record(&mut storage, zxid(1, 4));
        record(&mut storage, zxid(1, 3));
        drop(storage);
        let disk = disk.kill();
        let (mut storage, recovered) = open(&disk).unwrap();
        assert_eq!((recovered.committed, recovered.last_zxid()), (zxid(1, 4), zxid(1, 6)));
        record(&mut storage, zxid(1, 5));
        assert_eq!(storage.reload().unwrap().committed, zxid(1, 5));
        record(&mut storage, zxid(1, 6));
        assert_eq!(open(&disk.kill()).unwrap().1.committed, zxid(1, 6));
    }

    #[test]
    fn what_is_recorded_is_durable_first_and_is_itself_not_synced() {
        let disk = SimDisk::new(0);
        let mut storage = history(&disk);
        storage.append(&entry(zxid(1, 7))).unwrap();
        let operations = disk.operations();
        record(&mut storage, zxid(1, 7));
        assert_eq!(disk.operations(), operations + 4, "the log: written, synced; the file: made, written");
        record(&mut storage, zxid(1, 7));
        assert_eq!(disk.operations(), operations + 4, "it says so already");
        assert_eq!(open(&disk.durable_image()).unwrap().1.last_zxid(), zxid(1, 7));
        assert!(disk.durable_image().bytes_of(COMMITTED).is_none());
    }

    #[test]
    fn a_power_failure_anywhere_leaves_something_that_was_recorded_or_nothing() {
        let mut known = [0; 5];
        for (step, seed) in (0..8).flat_map(|step| (0..60).map(move |seed| (step, seed))) {
            let disk = SimDisk::new(seed);
            let mut storage = history(&disk);
            record(&mut storage, zxid(1, 2));
            disk.fail_power_after(step);
            for counter in 3..=4 {
                if !disk.is_off() {
                    record(&mut storage, zxid(1, counter));
                }
            }
            let recovered = open(&disk.power_on()).unwrap().1;
            assert_eq!(recovered.last_zxid(), zxid(1, 6));
            known[recovered.committed.counter() as usize] += 1;
        }
        assert!(known[1] == 0 && [0, 2, 3, 4].iter().all(|counter| known[*counter] > 10), "{known:?}");
    }

    #[test]
    fn what_does_not_fit_the_log_is_not_believed_and_goes() {
        let at = |zxid| Hint::of(&entry(zxid));
        let other = Hint { checksum: 1, ..at(zxid(1, 4)) };
        let between = Hint { zxid: zxid(1, 9), ..at(zxid(1, 4)) };
        for line in [
            at(zxid(1, 7)).encode(),
            at(zxid(2, 1)).encode(),
            other.encode(),
            between.encode(),
            Hint { bytes: 1, ..at(zxid(1, 4)) }.encode(),
            String::new(),
            "what is this\n".to_owned(),
            at(zxid(1, 4)).encode()[..30].to_owned(),
        ] {
            let disk = SimDisk::new(0);
            drop(history(&disk));
            disk.put(COMMITTED, line.as_bytes());
            let (mut storage, recovered) = open(&disk).unwrap();
            assert_eq!(recovered.committed, Zxid::ZERO, "{line:?}");
            assert_eq!(disk.durable_image().bytes_of(COMMITTED), None, "{line:?}");
            // And it can be written again.
            record(&mut storage, zxid(1, 3));
            assert_eq!(open(&disk.kill()).unwrap().1.committed, zxid(1, 3));
        }
        // An epoch that the member was never brought up to.
        let disk = SimDisk::new(0);
        let mut storage = history(&disk);
        storage.set_accepted_epoch(Epoch(2)).unwrap();
        append(&mut storage, 2, 1..=1);
        disk.put(COMMITTED, at(zxid(2, 1)).encode().as_bytes());
        assert_eq!(open(&disk).unwrap().1.committed, Zxid::ZERO);
    }

    #[test]
    fn a_disk_that_does_not_give_it_back_costs_the_hint_alone() {
        let disk = SimDisk::new(0);
        let mut storage = history(&disk);
        snapshot(&mut storage, zxid(1, 6), &tree_of(zxids(1, 1..=6)), zxid(1, 6));
        append(&mut storage, 1, 7..=8);
        record(&mut storage, zxid(1, 7));
        disk.fail_writes(1);
        record(&mut storage, zxid(1, 8));
        append(&mut storage, 1, 9..=9);
        record(&mut storage, zxid(1, 9));
        let recovered = open(&disk.kill()).unwrap().1;
        assert_eq!(recovered.last_zxid(), zxid(1, 9));
        assert!(recovered.committed <= zxid(1, 8), "after the error it is left alone");
    }

    #[test]
    fn what_the_snapshot_holds_parts_of_is_committed() {
        let disk = SimDisk::new(0);
        let mut storage = history(&disk);
        snapshot(&mut storage, zxid(1, 3), &tree_of(zxids(1, 1..=5)), zxid(1, 5));
        record(&mut storage, zxid(1, 2));
        let (mut storage, recovered) = open(&disk.kill()).unwrap();
        assert_eq!((recovered.tree.last_zxid(), recovered.committed), (zxid(1, 3), zxid(1, 5)));
        record(&mut storage, zxid(1, 6));
        let disk = disk.kill();
        assert_eq!(open(&disk).unwrap().1.committed, zxid(1, 6));
    }

    #[test]
    fn it_is_gone_before_the_history_that_it_is_of() {
        let new_body = crate::storage::sample::body_of(&tree_of(zxids(2, 1..=7)));
        let change = |storage: &mut Storage<SimDisk>, is_truncation| {
            if is_truncation {
                storage.truncate(zxid(1, 3))
            } else {
                storage.install_snapshot(zxid(2, 7), &new_body)
            }
        };
        for (step, seed) in (0..14).flat_map(|step| (0..20).map(move |seed| (step, seed))) {
            for is_truncation in [true, false] {
                let disk = SimDisk::new(seed);
                let mut storage = history(&disk);
                storage.set_accepted_epoch(Epoch(2)).unwrap();
                record(&mut storage, zxid(1, 5));
                disk.fail_power_after(step);
                let is_done = change(&mut storage, is_truncation).is_ok();
                let left = disk.power_on();
                let has_hint = left.bytes_of(COMMITTED).is_some();
                let recovered = open(&left).unwrap().1;
                let is_whole = recovered.tail.len() == 6;
                assert!(!has_hint || is_whole && !is_done, "step {step} seed {seed}");
                check(&recovered, zxid(1, 5));
            }
        }
        // What is cut off behind it does not matter.
        let disk = SimDisk::new(0);
        let mut storage = history(&disk);
        record(&mut storage, zxid(1, 5));
        storage.truncate(zxid(1, 5)).unwrap();
        assert_eq!(open(&disk.kill()).unwrap().1.committed, zxid(1, 5));
    }

    #[test]
    fn another_history_with_the_same_zxids_is_not_vouched_for() {
        let disk = SimDisk::new(0);
        let mut storage = history(&disk);
        record(&mut storage, zxid(1, 5));
        let old = disk.bytes_of(COMMITTED).unwrap();
        // By somebody who does not know of the file.
        let other = SimDisk::new(0);
        let mut log = crate::storage::log::HEADER.to_vec();
        for counter in 1..=6 {
            let mut payload = entry(zxid(1, counter)).payload.to_vec();
            payload[27] ^= u8::from(counter > 3);
            crate::storage::log::put_record(&mut log, &payload).unwrap();
        }
        drop(history(&other));
        other.put("log.100000001", &log);
        other.put(COMMITTED, &old);
        let recovered = open(&other).unwrap().1;
        assert_eq!((recovered.last_zxid(), recovered.committed), (zxid(1, 6), Zxid::ZERO));
    }

    fn check(recovered: &Recovered, known: Zxid) {
        let is_known = recovered.committed <= known || recovered.committed == recovered.tree.last_zxid();
        assert!(is_known, "{} is taken for committed", recovered.committed);
    }

    /// 1 to 6 of epoch 1.
    fn history(disk: &SimDisk) -> Storage<SimDisk> {
        let mut storage = open(disk).unwrap().0;
        storage.set_accepted_epoch(Epoch(1)).unwrap();
        storage.set_current_epoch(Epoch(1)).unwrap();
        append(&mut storage, 1, 1..=6);
        storage
    }

    fn record(storage: &mut Storage<SimDisk>, zxid: Zxid) {
        storage.record_committed(&entry(zxid)).unwrap();
    }
}
