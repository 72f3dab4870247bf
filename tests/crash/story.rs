//! One story of a member and its disk.

use std::collections::BTreeSet;

use fastrand::Rng;

use rollcall::id::{Epoch, ServerId, Zxid};
use rollcall::storage::sim_disk::{Honesty, SimDisk};
use rollcall::storage::{Recovered, Storage, StorageError, StorageSettings};
use rollcall::tree::{SnapshotCursor, Tree, Txn};
use rollcall::zab::Entry;

use crate::leader::Leader;
use crate::line::Line;
use crate::met::Met;

/// What the outside world knows, and what recovery is compared with.
struct Story<'a> {
    rng: Rng,
    disk: SimDisk,
    /// Every txn that may be on disk.
    line: Line,
    /// How many of them were acknowledged.
    synced: usize,
    /// How many of them were committed, as far as the member knew.
    committed: usize,
    /// The last that the member was told to note as committed, unless a power failure may have taken that.
    noted: Zxid,
    /// The newest txn of this history that was ever noted.
    noted_max: Zxid,
    /// The history that is being put in the place of the other.
    installing: Option<Line>,
    /// From this txn on the history can be cut back.
    surely_reached: Zxid,
    accepted: Promise<Option<Epoch>>,
    current: Promise<Option<Epoch>>,
    voters: Promise<Option<BTreeSet<ServerId>>>,
    leader: Leader,
    met: &'a mut Met,
}

/// Something that is written in one step: what was acknowledged, and what was asked for.
#[derive(Clone, Debug, Default)]
struct Promise<T> {
    acknowledged: T,
    asked: T,
}

/// The member's process.
struct Member {
    storage: Storage<SimDisk>,
    committed: Tree,
    slices: Option<Slices>,
}

struct Slices {
    cursor: SnapshotCursor,
    zxid: Zxid,
}

pub(crate) fn tell(seed: u64, honesty: Honesty, met: &mut Met) -> Result<(), String> {
    let disk = SimDisk::new(seed);
    disk.set_honesty(honesty);
    let mut story = Story {
        rng: Rng::with_seed(seed ^ 0x5EED),
        disk,
        line: Line::new(),
        synced: 0,
        committed: 0,
        noted: Zxid::ZERO,
        noted_max: Zxid::ZERO,
        installing: None,
        surely_reached: Zxid::ZERO,
        accepted: Promise::default(),
        current: Promise::default(),
        voters: Promise::default(),
        leader: Leader::new(seed),
        met,
    };
    for _life in 0..4 {
        let member = story.recover()?;
        story.disk.fail_power_after(story.rng.u64(0..150));
        story.work(member)?;
        story.disk.fail_syncs(0);
        let is_kill = story.rng.u8(0..4) == 0;
        story.met.kills += u64::from(is_kill);
        story.disk = if is_kill { story.disk.kill() } else { story.power_on() };
    }
    story.recover().map(drop)
}

impl Story<'_> {
    /// Opens the storage, with a power failure in some attempts, and checks what it has found.
    fn recover(&mut self) -> Result<Member, String> {
        loop {
            if self.rng.u8(0..3) == 0 {
                self.disk.fail_power_after(self.rng.u64(0..10));
            }
            let settings = StorageSettings { preallocate_bytes: 8_192 };
            match Storage::open_with(self.disk.clone(), settings) {
                Ok((storage, recovered)) => {
                    let committed = self.check(&recovered)?;
                    // A power failure that was to come in recovery may come now.
                    if !self.disk.is_off() {
                        let found = storage.recorded_voters().map_err(|error| error.to_string())?;
                        self.voters.check("voters", found)?;
                    }
                    return Ok(Member { storage, committed, slices: None });
                }
                Err(_) if self.disk.is_off() => {
                    self.met.failures_in_recovery += 1;
                    self.disk = self.power_on();
                }
                Err(error) => return Err(format!("recovery refuses what a power failure left: {error}")),
            }
        }
    }

    fn power_on(&mut self) -> SimDisk {
        self.noted = Zxid::ZERO;
        self.disk.power_on()
    }

    /// Compares what was found with what must be there; that counts from now on. Returns the whole tree.
    fn check(&mut self, recovered: &Recovered) -> Result<Tree, String> {
        let mut tree = recovered.tree.clone();
        for entry in &recovered.tail {
            let txn = Txn::decode(&entry.payload).map_err(|error| error.to_string())?;
            tree.apply(&txn);
            let is_exact = entry.zxid >= recovered.fuzzy_to;
            let is_other = txn.digest.is_some_and(|digest| digest != tree.digest());
            if is_exact && is_other {
                return Err(format!("the tree after {} has another digest than the txn", entry.zxid));
            }
            self.met.digests_off_while_fuzzy += u64::from(is_other);
        }
        let last = tree.last_zxid();
        if last != recovered.last_zxid() {
            return Err(format!("the tail ends at {}, its txns at {last}", recovered.last_zxid()));
        }
        tree.check_invariants();
        if let Some(installed) = self.installing.take() {
            if last == installed.last() && installed.check(0, &tree).is_ok() {
                self.replace_line(installed);
                self.met.installations_resumed += 1;
            } else {
                self.met.installations_undone += 1;
            }
        }
        let kept = self
            .line
            .count_to(last)
            .ok_or_else(|| format!("recovered up to {last}, which was never there"))?;
        if kept < self.synced {
            let lost = self.line.last_of(kept + 1);
            return Err(format!("recovered up to {last}, but {lost} was acknowledged"));
        }
        self.line.check(kept, &tree)?;
        self.check_committed(recovered)?;
        self.accepted.check("accepted epoch", recovered.accepted_epoch)?;
        self.current.check("current epoch", recovered.current_epoch)?;
        if !recovered.unreadable_snapshots.is_empty() {
            return Err(format!("a snapshot is there but broken: {:?}", recovered.unreadable_snapshots));
        }

        self.met.unacknowledged_kept += (kept - self.synced) as u64;
        self.met.unacknowledged_lost += (self.line.txns.len() - kept) as u64;
        self.met.torn_tails += u64::from(recovered.torn_tail.is_some());
        self.met.recovered_from_snapshot += u64::from(recovered.tree.last_zxid() > Zxid::ZERO);
        self.met.epochs_in_between += u64::from(recovered.accepted_epoch > recovered.current_epoch);
        self.line.txns.truncate(kept);
        self.synced = kept;
        self.committed = kept;
        // The snapshot may hold parts of anything up to here.
        self.surely_reached = last;
        assert!(recovered.accepted_epoch.unwrap_or_default() >= last.epoch());
        self.leader.follow_on(&tree, last);
        Ok(tree)
    }

    /// What a start takes for committed was; and it knows of what was noted, unless the power has failed since.
    fn check_committed(&mut self, recovered: &Recovered) -> Result<(), String> {
        let found = recovered.committed;
        let count = self.line.count_to(found);
        let count = count.ok_or_else(|| format!("{found} is taken for committed, and was never there"))?;
        if count > self.committed {
            let last = self.line.last_of(self.committed);
            return Err(format!("{found} is taken for committed, of which only {last} is known"));
        }
        if recovered.current_epoch.is_none_or(|current| self.noted.epoch() > current) {
            // As no leader has it: such a note is not believed.
            self.noted = Zxid::ZERO;
        }
        if found < self.noted {
            return Err(format!("{found} is taken for committed, but {} was noted", self.noted));
        }
        let without_note = recovered.tree.last_zxid().max(recovered.fuzzy_to);
        if found > without_note.max(self.noted_max) {
            return Err(format!("{found} is taken for committed, by a note of another history"));
        }
        self.met.committed_by_note += u64::from(found > without_note);
        self.met.committed_and_not_known += u64::from(found == without_note && self.committed > count);
        Ok(())
    }

    /// Another history counts from now on.
    fn replace_line(&mut self, line: Line) {
        self.line = line;
        self.synced = 0;
        self.committed = 0;
        (self.noted, self.noted_max) = (Zxid::ZERO, Zxid::ZERO);
    }

    /// Works until the power or a sync fails, or for a while.
    fn work(&mut self, mut member: Member) -> Result<(), String> {
        let mut is_disk_failing = false;
        for _step in 0..120 {
            if self.rng.u8(0..150) == 0 {
                self.disk.fail_syncs(1);
                is_disk_failing = true;
            }
            match self.step(&mut member) {
                Ok(()) => {}
                Err(Stop::Storage(StorageError::CannotTruncate { zxid, .. })) => {
                    if zxid >= self.surely_reached {
                        return Err(format!("the history is not cut back to {zxid}, though it could be"));
                    }
                    self.met.truncations_refused += 1;
                    break;
                }
                Err(Stop::Storage(_)) if self.disk.is_off() => break,
                Err(Stop::Storage(_)) if is_disk_failing => {
                    self.met.failed_syncs += 1;
                    break;
                }
                Err(Stop::Storage(error)) => return Err(format!("storage stops by itself: {error}")),
                Err(Stop::Violation(violation)) => return Err(violation),
            }
        }
        self.met.snapshots_cut_short += u64::from(member.slices.is_some());
        Ok(())
    }

    fn step(&mut self, member: &mut Member) -> Result<(), Stop> {
        match self.rng.u8(0..100) {
            0..37 => self.append(member)?,
            37..42 => self.note(member)?,
            42..60 => self.sync(member)?,
            60..82 => self.snapshot(member)?,
            82..84 => member.storage.roll()?,
            84..88 => self.change_epoch(member)?,
            88..89 => self.change_voters(member)?,
            89..92 => self.read_log(member)?,
            92..95 => self.truncate(member)?,
            95..97 => self.install(member)?,
            97.. => {
                let purged = member.storage.purge(self.rng.usize(1..3))?;
                self.met.files_purged += purged as u64;
            }
        }
        Ok(())
    }

    fn append(&mut self, member: &mut Member) -> Result<(), StorageError> {
        for _ in 0..self.rng.usize(1..6) {
            let txn = self.leader.propose();
            let entry = entry_of(&txn);
            assert_eq!(Txn::decode(&entry.payload).as_ref(), Ok(&txn));
            self.line.txns.push(txn);
            self.met.txns += 1;
            member.storage.append(&entry)?;
        }
        Ok(())
    }

    fn sync(&mut self, member: &mut Member) -> Result<(), StorageError> {
        member.storage.sync()?;
        // A member of one commits what is durable, and applies what is committed.
        self.line.txns[self.synced..].iter().for_each(|txn| drop(member.committed.apply(txn)));
        self.synced = self.line.txns.len();
        self.committed = self.synced;
        Ok(())
    }

    /// Has it noted that a txn is committed: the last, or an older one.
    fn note(&mut self, member: &mut Member) -> Result<(), StorageError> {
        let older = if self.rng.bool() { 0 } else { self.rng.usize(0..=self.committed) };
        let Some(index) = (self.committed - older).checked_sub(1) else { return Ok(()) };
        let entry = entry_of(&self.line.txns[index]);
        // It may be interrupted.
        let noted = std::mem::replace(&mut self.noted, Zxid::ZERO);
        self.noted_max = self.noted_max.max(entry.zxid);
        member.storage.record_committed(&entry)?;
        self.sync(member)?;
        if !self.disk.is_off() {
            self.noted = noted.max(entry.zxid);
        }
        Ok(())
    }

    fn snapshot(&mut self, member: &mut Member) -> Result<(), StorageError> {
        let Member { storage, committed, slices } = member;
        let mut bytes = Vec::new();
        let Some(writing) = slices else {
            storage.roll()?;
            let zxid = committed.last_zxid();
            storage.begin_snapshot(zxid)?;
            let cursor = committed.begin_snapshot(&mut bytes);
            *slices = Some(Slices { cursor, zxid });
            return storage.write_snapshot(&bytes);
        };
        let nodes_max = self.rng.usize(1..8);
        let is_done = committed.continue_snapshot(&mut writing.cursor, nodes_max, &mut bytes);
        storage.write_snapshot(&bytes)?;
        if is_done {
            let zxid = writing.zxid;
            *slices = None;
            storage.finish_snapshot((committed.last_zxid(), committed.digest()))?;
            self.met.snapshots += u64::from(zxid > Zxid::ZERO);
            self.surely_reached = self.surely_reached.max(committed.last_zxid());
        }
        Ok(())
    }

    /// As a leader of one does: promise, hold the history, synchronize, and only then propose.
    fn change_epoch(&mut self, member: &mut Member) -> Result<(), StorageError> {
        let epoch = self.next_epoch();
        self.accept(member, epoch)?;
        if self.rng.bool() {
            return Ok(());
        }
        self.sync(member)?;
        self.current.asked = Some(epoch);
        member.storage.set_current_epoch(epoch)?;
        self.current.acknowledged = Some(epoch);
        self.leader.last = Zxid::new(epoch, 0);
        Ok(())
    }

    /// Above all that were promised; some are never led.
    fn next_epoch(&mut self) -> Epoch {
        let highest = self.accepted.asked.max(Some(self.leader.last.epoch())).unwrap_or_default();
        Epoch(highest.0 + self.rng.u32(1..4))
    }

    fn accept(&mut self, member: &mut Member, epoch: Epoch) -> Result<(), StorageError> {
        self.accepted.asked = Some(epoch);
        member.storage.set_accepted_epoch(epoch)?;
        self.accepted.acknowledged = Some(epoch);
        Ok(())
    }

    fn change_voters(&mut self, member: &mut Member) -> Result<(), StorageError> {
        let voters: BTreeSet<_> = (1..=self.rng.u8(1..8)).filter_map(ServerId::new).collect();
        self.voters.asked = Some(voters.clone());
        member.storage.record_voters(&voters)?;
        self.voters.acknowledged = Some(voters);
        Ok(())
    }

    /// Reads from some txn on: all that follows, or nothing.
    fn read_log(&mut self, member: &mut Member) -> Result<(), Stop> {
        let count = self.rng.usize(0..=self.line.txns.len());
        let after = self.line.last_of(count);
        let bytes_max = if self.rng.bool() { u64::MAX } else { 2_000 };
        let read = member.storage.read_log(after, bytes_max)?;
        let Some(read) = read else { return Ok(()) };
        let expected: Vec<_> = self.line.txns[count..].iter().map(entry_of).collect();
        if read != expected {
            let found: Vec<_> = read.iter().map(|entry| entry.zxid).collect();
            return Err(Stop::Violation(format!("read {found:?} after {after}, which is not what follows")));
        }
        self.met.logs_read += u64::from(!read.is_empty());
        Ok(())
    }

    /// As a leader asks that has not what this member has.
    fn truncate(&mut self, member: &mut Member) -> Result<(), Stop> {
        let unsynced = self.line.txns.len() - self.synced;
        let count = if self.rng.bool() {
            self.synced + self.rng.usize(0..=unsynced)
        } else {
            self.rng.usize(0..=self.line.txns.len())
        };
        let mut zxid = self.line.last_of(count);
        // A txn that this member does not have, but that would come between.
        if let Some(between) = zxid.next().filter(|_| self.rng.u8(0..3) == 0)
            && count < self.line.txns.len()
            && between < self.line.last_of(count + 1)
        {
            zxid = between;
        }
        if zxid >= self.line.last() {
            member.storage.truncate(zxid)?;
            return Ok(self.sync(member)?);
        }
        let is_committed = count < self.synced;
        // From here on it may be gone.
        self.synced = self.synced.min(count);
        self.noted = Zxid::ZERO;
        self.met.truncations_cut_short += 1;
        member.storage.truncate(zxid)?;
        self.met.truncations_cut_short -= 1;
        self.met.truncations += 1;
        self.met.truncations_of_what_was_committed += u64::from(is_committed);
        self.line.txns.truncate(count);
        self.committed = self.committed.min(count);
        if self.noted_max > self.line.last() {
            self.noted_max = Zxid::ZERO;
        }
        self.surely_reached = self.surely_reached.min(self.line.last());
        if member.storage.last_zxid() != self.line.last() {
            let last = member.storage.last_zxid();
            return Err(Stop::Violation(format!("cut back to {last} instead of {}", self.line.last())));
        }
        if is_committed || self.rng.u8(0..4) == 0 {
            member.slices = None;
            let recovered = member.storage.reload()?;
            let surely_reached = self.surely_reached;
            self.synced = count;
            member.committed = self.check(&recovered).map_err(Stop::Violation)?;
            self.surely_reached = surely_reached;
        } else {
            // What is left is durable.
            self.sync(member)?;
            self.leader.follow_on(&member.committed, self.line.last());
        }
        if self.rng.bool() {
            // Else the same zxids come again, for other txns.
            let epoch = self.next_epoch();
            self.accept(member, epoch)?;
            self.leader.last = Zxid::new(epoch, 0);
        }
        Ok(())
    }

    /// As a leader sends it whose history shares only its beginning with ours.
    fn install(&mut self, member: &mut Member) -> Result<(), Stop> {
        let count = self.rng.usize(0..=self.line.txns.len());
        let prefix = self.line.tree_of(count);
        let used: BTreeSet<_> = self.line.txns.iter().map(|txn| txn.header.zxid.epoch()).collect();
        let after = |epoch: Epoch| epoch.next().expect("a story has few epochs");
        let mut epoch = after(prefix.last_zxid().epoch());
        while used.contains(&epoch) {
            epoch = after(epoch);
        }
        self.leader.follow_on(&prefix, Zxid::new(epoch, 0));
        (0..self.rng.usize(0..8)).for_each(|_| drop(self.leader.propose()));
        let (zxid, tree) = (self.leader.last, self.leader.tree().clone());
        let mut body = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut body);
        while !tree.continue_snapshot(&mut cursor, 100, &mut body) {}
        if Some(epoch) > self.accepted.acknowledged {
            self.accept(member, epoch)?;
        }

        let installed = Line::from_snapshot(zxid, &body);
        self.met.installations_of_a_shorter_history += u64::from(zxid < self.line.last());
        self.installing = Some(installed.clone());
        self.noted = Zxid::ZERO;
        member.storage.install_snapshot(zxid, &body)?;
        self.installing = None;
        self.met.installations += 1;
        assert_eq!(member.storage.last_zxid(), zxid);
        member.committed = installed.tree_of(0);
        member.slices = None;
        self.leader.follow_on(&member.committed, zxid);
        self.replace_line(installed);
        self.surely_reached = zxid;
        Ok(())
    }
}

/// Why a member's work ends.
enum Stop {
    Storage(StorageError),
    Violation(String),
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl<T: PartialEq + Clone + std::fmt::Debug> Promise<T> {
    fn check(&mut self, name: &str, found: T) -> Result<(), String> {
        let Self { acknowledged, asked } = self;
        if found != *acknowledged && found != *asked {
            return Err(format!("{name} {found:?}, acknowledged was {acknowledged:?}, asked {asked:?}"));
        }
        // What is found now is relied upon from now on.
        *self = Self { acknowledged: found.clone(), asked: found };
        Ok(())
    }
}

fn entry_of(txn: &Txn) -> Entry {
    Entry { zxid: txn.header.zxid, payload: txn.encode() }
}
