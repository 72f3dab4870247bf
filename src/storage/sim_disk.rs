//! A disk in memory that loses at a power failure what was not synced, as real ones do.
//!
//! Each file is what is durable plus the operations since its last sync; the folder is its durable names plus
//! the operations since its last sync. A power failure keeps, by the seed, nothing of these operations, all
//! of them, a prefix whose last write is torn at any byte, or for each 512-byte sector its own prefix; of
//! the names nothing, all, a prefix, or any subset in order. A failed sync loses what it should have made
//! durable even though reads still show it, as Linux does.
//!
//! A [`SimDisk`] is a handle: clones are the same disk, and after [`SimDisk::power_on`] older handles and the
//! files opened through them stay dead.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::disk::{Disk, DiskFile};

/// A simulated disk, shared by its clones.
#[derive(Clone, Debug)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
    life: u64,
}

/// A file of a [`SimDisk`] that is open for writing.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: usize,
    name: String,
}

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

#[derive(Debug)]
struct Shared {
    rng: Rng,
    honesty: Honesty,
    /// Counts power failures; handles of an earlier life are dead.
    life: u64,
    is_off: bool,
    operations: u64,
    /// The operation, counted from the first, in the middle of which the power fails.
    fails_at: Option<u64>,
    failing_syncs: u32,
    failing_writes: u32,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What reads see.
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { name: String, inode: usize },
    Rename { from: String, to: String, inode: usize },
    Unlink { name: String, inode: usize },
}

const SECTOR_BYTES: usize = 512;

impl SimDisk {
    /// An empty disk whose power failures are decided by `seed`.
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            rng: Rng::with_seed(seed),
            honesty: Honesty::Honest,
            life: 0,
            is_off: false,
            operations: 0,
            fails_at: None,
            failing_syncs: 0,
            failing_writes: 0,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
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

    /// The next `count` syncs of files report an error and lose what they should have made durable.
    pub fn fail_syncs(&self, count: u32) {
        self.lock().failing_syncs = count;
    }

    /// The next `count` writes find the disk full, after half their bytes.
    pub fn fail_writes(&self, count: u32) {
        self.lock().failing_writes = count;
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
        shared.is_off = false;
        shared.fails_at = None;
        shared.life += 1;
        let life = shared.life;
        drop(shared);
        Self { shared: Arc::clone(&self.shared), life }
    }

    /// A file's bytes as reads see them.
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let shared = self.lock();
        shared.names.get(name).map(|inode| shared.inodes[*inode].bytes.clone())
    }

    /// Puts a durable file there, as if it had always been.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut shared = self.lock();
        let inode = shared.inodes.len();
        shared.inodes.push(Inode { bytes: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() });
        shared.names.insert(name.to_owned(), inode);
        shared.durable_names.insert(name.to_owned(), inode);
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

impl Disk for SimDisk {
    type File = SimFile;
    type Reader = io::Cursor<Vec<u8>>;

    fn path_of(&self, name: &str) -> String {
        format!("sim/{name}")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.powered()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Self::Reader> {
        let shared = self.powered()?;
        let inode = shared.find(name)?;
        Ok(io::Cursor::new(shared.inodes[inode].bytes.clone()))
    }

    fn create(&mut self, name: &str) -> io::Result<SimFile> {
        let inode = self.change(|shared| match shared.names.get(name) {
            Some(&inode) => {
                shared.inodes[inode].change(Change::SetLen(0));
                Ok(inode)
            }
            None => {
                let inode = shared.inodes.len();
                shared.inodes.push(Inode::default());
                shared.rename(NameChange::Link { name: name.to_owned(), inode });
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
            shared.rename(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(|shared| {
            let inode = shared.find(name)?;
            shared.rename(NameChange::Unlink { name: name.to_owned(), inode });
            Ok(())
        })
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.sync(|shared| {
            if shared.honesty != Honesty::IgnoresFolderSyncs {
                shared.durable_names.clone_from(&shared.names);
                shared.unsynced_names.clear();
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
            let written = if is_full { &bytes[..bytes.len() / 2] } else { bytes };
            shared.inodes[self.inode].change(Change::Write { offset, bytes: written.to_vec() });
            if is_full { Err(fault(io::ErrorKind::StorageFull, "no space left", &self.name)) } else { Ok(()) }
        })
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = to_usize(len)?;
        self.disk.change(|shared| {
            shared.inodes[self.inode].change(Change::SetLen(len));
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync(|shared| {
            let is_failing = take_one(&mut shared.failing_syncs);
            let honesty = shared.honesty;
            let inode = &mut shared.inodes[self.inode];
            if is_failing {
                inode.unsynced.clear();
                return Err(fault(io::ErrorKind::Other, "input/output error in fsync", &self.name));
            }
            if honesty != Honesty::IgnoresFileSyncs {
                for change in inode.unsynced.drain(..) {
                    change.apply(&mut inode.durable);
                }
            }
            Ok(())
        })
    }
}

impl Shared {
    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| fault(io::ErrorKind::NotFound, "no such file", name))
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn lose_unsynced(&mut self) {
        for inode in &mut self.inodes {
            inode.lose_unsynced(&mut self.rng);
        }
        let changes = std::mem::take(&mut self.unsynced_names);
        let kept = match self.rng.u8(0..4) {
            0 => 0,
            1 => changes.len(),
            _ => self.rng.usize(0..=changes.len()),
        };
        let is_subset = self.rng.bool();
        for (index, change) in changes.iter().enumerate() {
            if if is_subset { self.rng.usize(0..=changes.len()) < kept } else { index < kept } {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.bytes);
        self.unsynced.push(change);
    }

    fn lose_unsynced(&mut self, rng: &mut Rng) {
        let changes = std::mem::take(&mut self.unsynced);
        match rng.u8(0..6) {
            0 => {}
            1 => changes.iter().for_each(|change| change.apply(&mut self.durable)),
            2 | 3 => self.keep_torn_prefix(&changes, rng),
            _ => self.keep_sectors(&changes, rng),
        }
        self.bytes = self.durable.clone();
    }

    fn keep_torn_prefix(&mut self, changes: &[Change], rng: &mut Rng) {
        let whole = rng.usize(0..=changes.len());
        changes[..whole].iter().for_each(|change| change.apply(&mut self.durable));
        if let Some(Change::Write { offset, bytes }) = changes.get(whole) {
            let torn = bytes[..rng.usize(0..=bytes.len())].to_vec();
            Change::Write { offset: *offset, bytes: torn }.apply(&mut self.durable);
        }
    }

    /// Each sector has its own time at which it last reached the disk; so has the length.
    fn keep_sectors(&mut self, changes: &[Change], rng: &mut Rng) {
        let mut versions = vec![self.durable.clone()];
        for change in changes {
            let mut next = versions.last().cloned().unwrap_or_default();
            change.apply(&mut next);
            versions.push(next);
        }
        let len = versions[rng.usize(0..versions.len())].len();
        self.durable = vec![0; len];
        for (index, sector) in self.durable.chunks_mut(SECTOR_BYTES).enumerate() {
            let version = &versions[rng.usize(0..versions.len())];
            let start = (index * SECTOR_BYTES).min(version.len());
            let end = (start + sector.len()).min(version.len());
            sector[..end - start].copy_from_slice(&version[start..end]);
        }
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { bytes, .. } if bytes.is_empty() => {}
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => file.resize(*len, 0),
        }
    }
}

impl NameChange {
    /// Takes effect only as far as earlier changes, some of which may be lost, left it a meaning.
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Unlink { name, inode } => {
                if names.get(name) == Some(inode) {
                    names.remove(name);
                }
            }
        }
    }
}

fn take_one(count: &mut u32) -> bool {
    let is_there = *count > 0;
    *count -= u32::from(is_there);
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
}
