//! A disk in memory that loses at a power failure what was not synced, as real ones do.
//!
//! Each file is what is durable plus the operations since its last sync; the folder is its durable names plus
//! the operations since its last sync. A power failure keeps, by the seed, nothing of these operations, all
//! of them, a prefix whose last write is torn at any byte, or for each 512-byte sector its own prefix; of
//! the names nothing, all, a prefix, or any subset in order. A failed sync loses what it should have made
//! durable even though reads still show it, as Linux does.
//!
//! A [`SimDisk`] is a handle: clones are the same disk, and after [`SimDisk::power_on`] or [`SimDisk::kill`] older
//! handles and the files opened through them stay dead. An operation costs what it touches, not what the disk holds.

mod folder;
mod inode;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use fastrand::Rng;

use self::folder::{Folder, NameChange};
use self::inode::{Change, Inode};
use super::disk::{Disk, DiskFile};

/// A simulated disk, shared by its clones.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
    life: u64,
}

/// A file of a [`SimDisk`] that is open for writing.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    name: String,
}

/// A file's bytes as they were when it was opened.
#[derive(Clone, Debug)]
pub struct SimBytes(Arc<Vec<u8>>);

/// Which promises the disk keeps; a disk that breaks one shows whether a test notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Honesty {
    /// Both kinds of sync do what they say.
    #[default]
    Honest,
    /// Syncs of files say yes and do nothing.
    IgnoresFileSyncs,
    /// Syncs of the folder say yes and do nothing.
    IgnoresFolderSyncs,
}

struct Shared {
    rng: Rng,
    honesty: Honesty,
    /// Counts power failures and kills; handles of an earlier life are dead.
    life: u64,
    is_off: bool,
    operations: u64,
    /// The operation, counted from the first, in the middle of which the power fails.
    fails_at: Option<u64>,
    failing_reads: u32,
    failing_writes: u32,
    failing_syncs: u32,
    failing_folder_syncs: u32,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    folder: Folder,
}

impl SimDisk {
    /// As a count: from now on, until a count is given.
    pub const FOREVER: u32 = u32::MAX;

    /// An empty disk whose power failures are decided by `seed`.
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            rng: Rng::with_seed(seed),
            honesty: Honesty::Honest,
            life: 0,
            is_off: false,
            operations: 0,
            fails_at: None,
            failing_reads: 0,
            failing_writes: 0,
            failing_syncs: 0,
            failing_folder_syncs: 0,
            inodes: BTreeMap::new(),
            next_inode: 0,
            folder: Folder::default(),
        };
        Self { shared: Arc::new(Mutex::new(shared)), life: 0 }
    }

    /// Sets which promises the disk keeps from now on.
    pub fn set_honesty(&self, honesty: Honesty) {
        self.lock().honesty = honesty;
    }

    /// The power fails in the middle of the changing operation that comes after `operations` more.
    pub fn fail_power_after(&self, operations: u64) {
        let mut shared = self.lock();
        shared.fails_at = Some(shared.operations + operations);
    }

    /// The next `count` attempts to open a file for reading report an error.
    pub fn fail_reads(&self, count: u32) {
        self.lock().failing_reads = count;
    }

    /// The next `count` writes find the disk full, after some of their bytes.
    pub fn fail_writes(&self, count: u32) {
        self.lock().failing_writes = count;
    }

    /// The next `count` syncs of files report an error and lose what they should have made durable.
    pub fn fail_syncs(&self, count: u32) {
        self.lock().failing_syncs = count;
    }

    /// The next `count` syncs of the folder report an error and make nothing durable.
    pub fn fail_folder_syncs(&self, count: u32) {
        self.lock().failing_folder_syncs = count;
    }

    /// Flips a bit of a file, on the disk and for reads: bit 0 is the lowest of the byte at `offset`. False when the
    /// file has no such byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        let mut shared = self.lock();
        let Some(inode) = shared.folder.find(name) else { return false };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        shared.inode(inode).is_some_and(|inode| inode.flip_bit(offset, bit))
    }

    /// How many changing operations were asked for so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Whether the power has failed and not come back.
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// Fails the power now, unless it has failed already, and brings it back: what was not synced may be gone.
    /// Returns the handle to go on with.
    pub fn power_on(&self) -> Self {
        let mut shared = self.lock();
        shared.lose_unsynced();
        self.next_life(shared)
    }

    /// Ends the process that uses the disk: what it has written stays, though a power failure may still take what was
    /// not synced. Instead of [`SimDisk::power_on`] after [`SimDisk::fail_power_after`]: what failed then was the
    /// process alone. Returns the handle to go on with.
    pub fn kill(&self) -> Self {
        self.next_life(self.lock())
    }

    /// Forgets a power failure that was to come.
    pub fn keep_power(&self) {
        self.lock().fails_at = None;
    }

    /// A disk of its own with what is left of this one if the power fails now and takes all that it can.
    pub fn durable_image(&self) -> Self {
        let shared = self.lock();
        let image = Self::new(0);
        for (name, inode) in shared.folder.durable_names() {
            image.put(name, shared.inodes[inode].durable_bytes());
        }
        image
    }

    /// A file's bytes as reads see them.
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let mut shared = self.lock();
        let inode = shared.folder.find(name)?;
        shared.inode(inode).map(|inode| inode.bytes().to_vec())
    }

    /// Puts a durable file there, as if it had always been.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut shared = self.lock();
        let inode = shared.add(Inode::durable(bytes));
        shared.folder.put(name, inode);
    }

    fn next_life(&self, mut shared: MutexGuard<'_, Shared>) -> Self {
        shared.is_off = false;
        shared.fails_at = None;
        shared.life += 1;
        shared.forget_unreachable();
        Self { shared: Arc::clone(&self.shared), life: shared.life }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A test that panicked elsewhere is reported there.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, when it has power and this handle is not of an earlier life.
    fn powered(&self) -> io::Result<MutexGuard<'_, Shared>> {
        let shared = self.lock();
        if shared.is_off || shared.life != self.life { Err(power_failure()) } else { Ok(shared) }
    }

    /// Carries out a change; when the power fails in its middle, the change may or may not survive.
    fn change<T>(&self, change: impl FnOnce(&mut Shared) -> io::Result<T>) -> io::Result<T> {
        let mut shared = self.powered()?;
        let is_last = shared.fails_at == Some(shared.operations);
        shared.operations += 1;
        let outcome = change(&mut shared);
        if is_last {
            shared.is_off = true;
            return Err(power_failure());
        }
        outcome
    }

    fn sync(&self, sync: impl FnOnce(&mut Shared) -> io::Result<()>) -> io::Result<()> {
        self.change(
            |shared| if shared.fails_at == Some(shared.operations - 1) { Ok(()) } else { sync(shared) },
        )
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Reader = io::Cursor<SimBytes>;

    fn path_of(&self, name: &str) -> String {
        format!("sim/{name}")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.powered()?.folder.names().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Self::Reader> {
        let mut shared = self.powered()?;
        if take_one(&mut shared.failing_reads) {
            return Err(fault(io::ErrorKind::Other, "input/output error in read", name));
        }
        let inode = shared.find(name)?;
        let bytes = shared.inode(inode).map(|inode| inode.bytes().clone()).unwrap_or_default();
        Ok(io::Cursor::new(SimBytes(bytes)))
    }

    fn create(&mut self, name: &str) -> io::Result<SimFile> {
        let inode = self.change(|shared| match shared.folder.find(name) {
            Some(inode) => {
                shared.change_inode(inode, Change::SetLen(0));
                Ok(inode)
            }
            None => {
                let inode = shared.add(Inode::default());
                shared.folder.change(NameChange::Link { name: name.to_owned(), inode });
                Ok(inode)
            }
        })?;
        Ok(SimFile { disk: self.clone(), inode, name: name.to_owned() })
    }

    fn edit(&mut self, name: &str) -> io::Result<SimFile> {
        let inode = self.powered()?.find(name)?;
        Ok(SimFile { disk: self.clone(), inode, name: name.to_owned() })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.change(|shared| {
            let inode = shared.find(from)?;
            shared.folder.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(|shared| {
            let inode = shared.find(name)?;
            shared.folder.change(NameChange::Unlink { name: name.to_owned(), inode });
            Ok(())
        })
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.sync(|shared| {
            if take_one(&mut shared.failing_folder_syncs) {
                return Err(fault(io::ErrorKind::Other, "input/output error in fsync", ""));
            }
            if shared.honesty != Honesty::IgnoresFolderSyncs {
                shared.folder.sync();
                shared.forget_unreachable();
            }
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn put_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = to_usize(offset)?;
        self.disk.change(|shared| {
            let is_full = take_one(&mut shared.failing_writes);
            let written = if is_full { &bytes[..shared.rng.usize(0..=bytes.len())] } else { bytes };
            shared.change_inode(self.inode, Change::Write { offset, bytes: written.to_vec() });
            if is_full { Err(fault(io::ErrorKind::StorageFull, "no space left", &self.name)) } else { Ok(()) }
        })
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = to_usize(len)?;
        self.disk.change(|shared| {
            shared.change_inode(self.inode, Change::SetLen(len));
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync(|shared| {
            let is_failing = take_one(&mut shared.failing_syncs);
            let honesty = shared.honesty;
            let Some(inode) = shared.inode(self.inode) else { return Ok(()) };
            if is_failing {
                inode.fail_sync();
                return Err(fault(io::ErrorKind::Other, "input/output error in fsync", &self.name));
            }
            if honesty != Honesty::IgnoresFileSyncs {
                inode.sync();
            }
            Ok(())
        })
    }
}

impl AsRef<[u8]> for SimBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Shared {
    fn find(&self, name: &str) -> io::Result<u64> {
        self.folder.find(name).ok_or_else(|| fault(io::ErrorKind::NotFound, "no such file", name))
    }

    /// A file, unless its last name is gone for good.
    fn inode(&mut self, inode: u64) -> Option<&mut Inode> {
        self.inodes.get_mut(&inode)
    }

    fn change_inode(&mut self, inode: u64, change: Change) {
        if let Some(inode) = self.inode(inode) {
            inode.change(change);
        }
    }

    fn add(&mut self, inode: Inode) -> u64 {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, inode);
        self.next_inode
    }

    fn lose_unsynced(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.lose_unsynced(&mut self.rng);
        }
        self.folder.lose_unsynced(&mut self.rng);
    }

    /// What no name leads to can only be reached through a file that is still open; nobody reads it again.
    fn forget_unreachable(&mut self) {
        let reachable = self.folder.reachable();
        self.inodes.retain(|inode, _| reachable.contains(inode));
    }
}

fn take_one(count: &mut u32) -> bool {
    let is_there = *count > 0;
    if *count != SimDisk::FOREVER {
        *count -= u32::from(is_there);
    }
    is_there
}

fn to_usize(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_beyond| io::Error::from(io::ErrorKind::FileTooLarge))
}

fn power_failure() -> io::Error {
    io::Error::other("simulated power failure")
}

fn fault(kind: io::ErrorKind, what: &str, name: &str) -> io::Error {
    io::Error::new(kind, format!("simulated: {what}: sim/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_every_power_failure() {
        for seed in 0..100 {
            let mut disk = SimDisk::new(seed);
            let mut file = disk.create("a").unwrap();
            file.put_at(0, b"durable").unwrap();
            file.sync().unwrap();
            disk.sync_dir().unwrap();
            file.put_at(7, &[1; 2_000]).unwrap();
            disk.create("b").unwrap();

            let disk = disk.power_on();
            assert!(disk.bytes_of("a").unwrap().starts_with(b"durable"), "seed {seed}");
            assert!(file.put_at(0, b"x").is_err(), "a file of an earlier life is dead");
        }
    }

    #[test]
    fn what_was_not_synced_is_lost_kept_or_torn() {
        let mut lengths = std::collections::BTreeSet::new();
        let mut has_hole = false;
        for seed in 0..200 {
            let mut disk = SimDisk::new(seed);
            let mut file = disk.create("a").unwrap();
            disk.sync_dir().unwrap();
            file.set_len(4_096).unwrap();
            (0..4).for_each(|quarter| file.put_at(quarter * 1_000, &[7; 1_000]).unwrap());
            let bytes = disk.power_on().bytes_of("a").unwrap();
            lengths.insert(bytes.len());
            has_hole |= bytes.get(..512) == Some(&[0; 512]) && bytes.get(1_024..1_536) == Some(&[7; 512]);
        }
        assert!(lengths.contains(&0) && lengths.contains(&4_096));
        assert!(has_hole, "a later sector may survive an earlier one");
    }

    #[test]
    fn names_are_lost_without_a_folder_sync() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..100 {
            let mut disk = SimDisk::new(seed);
            disk.put("old", b"1");
            let mut file = disk.create("new.tmp").unwrap();
            file.put_at(0, b"2").unwrap();
            file.sync().unwrap();
            disk.rename("new.tmp", "old").unwrap();
            match disk.power_on().bytes_of("old").unwrap().as_slice() {
                b"1" => lost += 1,
                b"2" => kept += 1,
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept");
    }

    #[test]
    fn a_failed_sync_loses_the_bytes_even_if_the_next_one_succeeds() {
        let mut disk = SimDisk::new(1);
        let mut file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        file.put_at(0, b"x").unwrap();
        disk.fail_syncs(1);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(disk.bytes_of("a").unwrap(), b"x");
        assert_eq!(disk.power_on().bytes_of("a").unwrap(), b"");
    }

    #[test]
    fn the_power_fails_at_the_chosen_operation_and_stays_off() {
        let mut disk = SimDisk::new(1);
        disk.fail_power_after(1);
        disk.create("a").unwrap();
        assert!(disk.sync_dir().is_err());
        assert!(disk.is_off() && disk.list().is_err());
        assert!(disk.power_on().list().is_ok());
    }

    #[test]
    fn a_kill_keeps_what_was_written_and_a_power_failure_later_may_take_it() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut disk = SimDisk::new(seed);
            let mut file = disk.create("a").unwrap();
            file.put_at(0, b"written").unwrap();
            let disk = disk.kill();
            assert_eq!(disk.bytes_of("a").unwrap(), b"written");
            assert!(file.sync().is_err(), "the process is gone");
            lost += u32::from(disk.power_on().bytes_of("a").is_none_or(|bytes| bytes != b"written"));
        }
        assert!((10..50).contains(&lost), "{lost} lost");
    }

    #[test]
    fn faults_come_once_or_for_ever() {
        let mut disk = SimDisk::new(3);
        let mut file = disk.create("a").unwrap();
        disk.fail_folder_syncs(1);
        assert!(disk.sync_dir().is_err() && disk.sync_dir().is_ok());
        disk.fail_reads(1);
        assert!(disk.open("a").is_err() && disk.open("a").is_ok());
        disk.fail_writes(SimDisk::FOREVER);
        for _ in 0..10 {
            let error = file.put_at(0, &[1; 100]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        disk.fail_writes(0);
        file.put_at(0, &[1; 100]).unwrap();
        disk.fail_syncs(SimDisk::FOREVER);
        assert!(file.sync().is_err() && file.sync().is_err());
        disk.fail_syncs(0);
        assert!(file.sync().is_ok());
    }

    #[test]
    fn a_flipped_bit_is_there_for_reads_and_after_a_power_failure() {
        let disk = SimDisk::new(0);
        disk.put("a", b"abc");
        assert!(disk.flip_bit("a", 1, 0));
        assert!(!disk.flip_bit("a", 3, 0) && !disk.flip_bit("b", 0, 0));
        assert_eq!(disk.bytes_of("a").unwrap(), b"acc");
        assert_eq!(disk.power_on().bytes_of("a").unwrap(), b"acc");
    }

    #[test]
    fn files_without_a_name_take_no_room() {
        let mut disk = SimDisk::new(0);
        for _ in 0..100 {
            disk.create("a").unwrap().put_at(0, b"x").unwrap();
            disk.rename("a", "b").unwrap();
            disk.sync_dir().unwrap();
        }
        assert_eq!(disk.lock().inodes.len(), 1);
    }
}
