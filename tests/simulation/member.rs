//! One member: the real replica over the real storage, a thread that carries out what is asked of the disk, and what can
//! happen to all of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use fastrand::Rng;
use rollcall::id::{Epoch, ServerId, Zxid};
use rollcall::replica::{Input, Output, Recovery, Replica, ReplicaSettings};
use rollcall::storage::sim_disk::SimDisk;
use rollcall::storage::{Disk, Recovered, Storage, StorageError, StorageSettings};
use rollcall::zab::{Entry, LinkId};

use crate::canon::Canon;
use crate::network::{PipeId, Process, Site};
use crate::profile::Profile;
use crate::shadow::{Interrupted, Shadow};
use crate::time::{Clock, MS, Nanos, SECOND};

/// A machine that runs a member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) site: Site,
    pub(crate) settings: ReplicaSettings,
    pub(crate) clock: Clock,
    pub(crate) disk: SimDisk,
    storage_settings: StorageSettings,
    snapshots_kept: usize,
    /// Counts its processes.
    pub(crate) life: u32,
    pub(crate) process: Option<MemberProcess>,
    pub(crate) shadow: Shadow,
    /// Which life of each other member it was told it can reach.
    pub(crate) reach: BTreeMap<Site, u32>,
    pub(crate) is_disk_slow: bool,
    /// Whether what it recovers may be refused, because a bit of it was changed.
    pub(crate) is_rotten: bool,
    /// Whether it has lost its disk once.
    pub(crate) was_wiped: bool,
}

/// A running member.
#[derive(Debug)]
pub(crate) struct MemberProcess {
    pub(crate) replica: Replica,
    log: LogThread,
    commands: VecDeque<LogCommand>,
    /// How many commands the log thread is carrying out.
    batch: usize,
    /// While it is stopped: what waits for it.
    pub(crate) inbox: Option<VecDeque<Input>>,
    pub(crate) is_log_done_late: bool,
    /// When it will next look at the time.
    pub(crate) timer: Option<Nanos>,
    /// When the log thread's last events arrive.
    pub(crate) told_at: Nanos,
    /// Connections to clients.
    pub(crate) clients: BTreeSet<PipeId>,
    /// Up to where snapshots on their way may hold effects.
    pub(crate) incoming: BTreeMap<PipeId, Zxid>,
    /// The same, of the one that has just come.
    pub(crate) installing: Option<Zxid>,
}

/// What the log thread owns.
#[derive(Debug)]
struct LogThread {
    storage: Storage<SimDisk>,
    is_snapshot_begun: bool,
}

/// What the log thread is asked for, in order.
#[derive(Debug)]
pub(crate) enum LogCommand {
    Append(Entry),
    SetAcceptedEpoch(Epoch),
    SetCurrentEpoch(Epoch),
    Truncate { zxid: Zxid, is_reload: bool },
    InstallSnapshot { zxid: Zxid, body: Bytes, fuzzy_until: Zxid },
    ReadLog { link: LinkId, after: Zxid },
    BeginSnapshot(Zxid),
    SnapshotSlice(Vec<u8>),
    FinishSnapshot { zxid: Zxid, digest: u64 },
    RecordCommitted(Entry),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Alone: the machine goes on.
    Killed,
    /// With its machine.
    PowerFailed,
}

impl Member {
    pub(crate) fn new(site: Site, profile: &Profile, settings: ReplicaSettings, clock: Clock) -> Self {
        Self {
            site,
            settings,
            clock,
            disk: SimDisk::new(profile.seed.wrapping_mul(31) ^ site as u64),
            storage_settings: StorageSettings { preallocate_bytes: profile.preallocate_bytes },
            snapshots_kept: profile.snapshots_kept,
            life: 0,
            process: None,
            shadow: Shadow::default(),
            reach: BTreeMap::new(),
            is_disk_slow: false,
            is_rotten: false,
            was_wiped: false,
        }
    }

    pub(crate) fn server_id(&self) -> ServerId {
        self.settings.peer.server_id
    }

    pub(crate) fn as_process(&self) -> Process {
        Process { site: self.site, life: self.life }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.process.as_ref().map(|process| &process.replica)
    }

    /// Starts a process over what the disk holds.
    ///
    /// # Errors
    ///
    /// When recovery refuses it.
    pub(crate) fn start(&mut self, now: Nanos, canon: &Canon, rng: &mut Rng) -> Result<Found, StorageError> {
        let mut found = Found::default();
        let (storage, recovered) = self.open(rng, &mut found)?;
        let last = recovered.tail.last().map_or(recovered.tree.last_zxid(), |entry| entry.zxid);
        self.check_committed(&recovered, canon);
        found.is_beyond_snapshot = recovered.committed > recovered.tree.last_zxid().max(recovered.fuzzy_to);
        // What a process has written is not what a machine has.
        let is_beyond = crate::shadow::last_of(&self.shadow.disk[..self.shadow.durable]) < last;
        let durable = if is_beyond { Some(self.durable_last()?) } else { None };
        self.shadow.recover(&recovered, durable, canon);
        found.is_torn = recovered.torn_tail.is_some();
        found.has_unsynced = is_beyond;
        self.life += 1;
        self.reach.clear();
        let replica = Replica::new(self.settings.clone(), recovery_of(recovered), self.clock.at(now));
        self.process = Some(MemberProcess {
            replica,
            log: LogThread { storage, is_snapshot_begun: false },
            commands: VecDeque::new(),
            batch: 0,
            inbox: None,
            is_log_done_late: false,
            timer: None,
            told_at: now,
            clients: BTreeSet::new(),
            incoming: BTreeMap::new(),
            installing: None,
        });
        Ok(found)
    }

    /// Recovers, sometimes with another power failure in the middle.
    fn open(
        &mut self,
        rng: &mut Rng,
        found: &mut Found,
    ) -> Result<(Storage<SimDisk>, Recovered), StorageError> {
        for _attempt in 0..2 {
            if rng.u8(0..8) == 0 {
                self.disk.fail_power_after(rng.u64(0..6));
            }
            match Storage::open_with(self.disk.clone(), self.storage_settings.clone()) {
                Ok(opened) if !self.disk.is_off() => {
                    self.disk.keep_power();
                    return Ok(opened);
                }
                Ok(_) | Err(_) if self.disk.is_off() => {
                    found.failures_in_recovery += 1;
                    self.disk = self.disk.power_on();
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        self.disk.keep_power();
        Storage::open_with(self.disk.clone(), self.storage_settings.clone())
    }

    /// The last txn that would be there if the power failed now and took all it could.
    fn durable_last(&self) -> Result<Zxid, StorageError> {
        let (_, recovered) = Storage::open_with(self.disk.durable_image(), self.storage_settings.clone())?;
        Ok(recovered.tail.last().map_or(recovered.tree.last_zxid(), |entry| entry.zxid))
    }

    /// Ends the process, in the middle of what its log thread does.
    pub(crate) fn end(&mut self, end: End, canon: &Canon, rng: &mut Rng) {
        let Some(mut process) = self.process.take() else { return };
        if process.batch > 0 && rng.bool() {
            self.disk.fail_power_after(rng.u64(0..6));
            let batch: Vec<_> = process.commands.drain(..process.batch).collect();
            let _interrupted = self.carry_out(&mut process.log, batch, canon);
        }
        drop(process);
        self.disk = match end {
            End::Killed => self.disk.kill(),
            End::PowerFailed => self.disk.power_on(),
        };
        self.shadow.on_process_gone();
    }

    /// A bit changes in a log or a snapshot, where it can be noticed: the files of the epochs have no checksum, since they are
    /// Apache's, and a log's last record may as well be one that a power failure has torn. False when there is none.
    pub(crate) fn rot(&self, rng: &mut Rng) -> bool {
        let names = self.disk.list().unwrap_or_default();
        let names =
            names.into_iter().filter(|name| name.starts_with("log.") || name.starts_with("snapshot."));
        let Some(name) = rng.choice(names.collect::<Vec<_>>()) else { return false };
        let bytes = self.disk.bytes_of(&name).unwrap_or_default();
        let end = if name.starts_with("log.") { last_record(&bytes) } else { bytes.len() };
        end > 0 && self.disk.flip_bit(&name, rng.u64(0..end as u64), rng.u8(0..8))
    }

    /// The machine gets a new disk.
    pub(crate) fn wipe(&mut self, seed: u64) {
        assert!(self.process.is_none(), "disks are replaced while nobody uses them");
        self.disk = SimDisk::new(seed);
        self.shadow.wipe();
        self.was_wiped = true;
        self.is_rotten = false;
    }

    /// Asks the log thread for something. Returns how long it takes if it starts on it now.
    pub(crate) fn ask(&mut self, command: LogCommand, sync_max: Nanos, rng: &mut Rng) -> Option<Nanos> {
        let process = self.process.as_mut()?;
        process.commands.push_back(command);
        self.start_batch(sync_max, rng)
    }

    /// Starts on what waits, unless the log thread is at work.
    pub(crate) fn start_batch(&mut self, sync_max: Nanos, rng: &mut Rng) -> Option<Nanos> {
        let is_slow = self.is_disk_slow;
        let process = self.process.as_mut()?;
        if process.batch > 0 || process.commands.is_empty() {
            return None;
        }
        process.batch = rng.usize(1..=process.commands.len());
        let took = rng.u64(MS / 10..=sync_max);
        Some(if is_slow { rng.u64(took..2 * SECOND) } else { took })
    }

    /// The log thread is done with its batch: carries it out, and returns what it says.
    ///
    /// # Errors
    ///
    /// When the disk failed: the member stops.
    pub(crate) fn finish_batch(&mut self, canon: &Canon) -> Result<Vec<Input>, StorageError> {
        let Some(mut process) = self.process.take() else { return Ok(Vec::new()) };
        let batch: Vec<_> = process.commands.drain(..process.batch).collect();
        process.batch = 0;
        let said = self.carry_out(&mut process.log, batch, canon);
        self.process = Some(process);
        said
    }

    /// As the log thread does it: entries are synced once a batch, and before whatever relies on them.
    fn carry_out(
        &mut self,
        log: &mut LogThread,
        batch: Vec<LogCommand>,
        canon: &Canon,
    ) -> Result<Vec<Input>, StorageError> {
        let LogThread { storage, is_snapshot_begun } = log;
        let mut said = Vec::new();
        let mut appended = None;
        let mut committed = None;
        for command in batch {
            match command {
                LogCommand::Append(entry) => {
                    storage.append(&entry)?;
                    appended = Some(entry.zxid);
                    self.shadow.disk.push(entry);
                }
                LogCommand::SetAcceptedEpoch(epoch) => {
                    self.shadow.accepted_asked = epoch;
                    storage.set_accepted_epoch(epoch)?;
                    self.shadow.accepted = epoch;
                    said.push(Input::AcceptedEpochDurable(epoch));
                }
                LogCommand::SetCurrentEpoch(epoch) => {
                    self.sync(storage, &mut appended, &mut said)?;
                    self.shadow.current_asked = epoch;
                    storage.set_current_epoch(epoch)?;
                    self.shadow.current = epoch;
                    said.push(Input::CurrentEpochDurable(epoch));
                }
                LogCommand::RecordCommitted(entry) => committed = Some(entry),
                LogCommand::Truncate { zxid, is_reload } => {
                    committed = None;
                    self.sync(storage, &mut appended, &mut said)?;
                    self.shadow.interrupted = Some(Interrupted::Truncation(zxid));
                    storage.truncate(zxid)?;
                    self.shadow.disk_truncated(zxid);
                    if is_reload {
                        let recovered = storage.reload()?;
                        self.check_reloaded(&recovered, zxid, canon);
                        said.push(Input::Reloaded(Box::new(recovery_of(recovered))));
                    }
                }
                LogCommand::InstallSnapshot { zxid, body, fuzzy_until } => {
                    appended = None;
                    committed = None;
                    *is_snapshot_begun = false;
                    self.shadow.interrupted = Some(Interrupted::Install(zxid));
                    storage.install_snapshot(zxid, &body)?;
                    self.shadow.disk_installed(zxid, fuzzy_until, canon);
                    said.push(Input::Durable(zxid));
                }
                LogCommand::ReadLog { link, after } => {
                    self.sync(storage, &mut appended, &mut said)?;
                    let entries = storage.read_log(after, LOG_READ_BYTES_MAX)?;
                    said.push(Input::LogRead { link, entries });
                }
                LogCommand::BeginSnapshot(zxid) => {
                    self.sync(storage, &mut appended, &mut said)?;
                    storage.roll()?;
                    storage.begin_snapshot(zxid)?;
                    *is_snapshot_begun = true;
                    // Recovery may find it complete without our having heard of it.
                    self.shadow.snapshot_ends.push((zxid, zxid));
                }
                // Of a snapshot that another has taken the place of.
                LogCommand::SnapshotSlice(_) | LogCommand::FinishSnapshot { .. } if !*is_snapshot_begun => {}
                LogCommand::SnapshotSlice(slice) => {
                    storage.write_snapshot(&slice)?;
                    said.push(Input::SnapshotSliceWritten);
                }
                LogCommand::FinishSnapshot { zxid, digest } => {
                    self.sync(storage, &mut appended, &mut said)?;
                    if let Some((_, end)) = self.shadow.snapshot_ends.last_mut() {
                        // It goes on from a tree that may hold later effects itself.
                        *end = zxid.max(self.shadow.fuzzy_until);
                    }
                    storage.finish_snapshot((zxid, digest))?;
                    *is_snapshot_begun = false;
                    storage.purge(self.snapshots_kept)?;
                }
            }
        }
        self.sync(storage, &mut appended, &mut said)?;
        if let Some(entry) = committed {
            storage.record_committed(&entry)?;
        }
        Ok(said)
    }

    fn sync(
        &mut self,
        storage: &mut Storage<SimDisk>,
        appended: &mut Option<Zxid>,
        said: &mut Vec<Input>,
    ) -> Result<(), StorageError> {
        let Some(zxid) = appended.take() else { return Ok(()) };
        storage.sync()?;
        self.shadow.synced();
        said.push(Input::Durable(zxid));
        Ok(())
    }

    /// What a start takes for committed is shown to clients, if there is no leader.
    fn check_committed(&self, recovered: &Recovered, canon: &Canon) {
        for entry in recovered.tail.iter().take_while(|entry| entry.zxid <= recovered.committed) {
            assert!(
                canon.find(entry.zxid).is_some_and(|committed| committed.entry == *entry),
                "I10: member {} starts with {} for committed, which nobody has delivered",
                self.site + 1,
                entry.zxid
            );
        }
    }

    fn check_reloaded(&mut self, recovered: &Recovered, zxid: Zxid, canon: &Canon) {
        let base = recovered.tree.last_zxid();
        assert!(base <= zxid, "I10: after TRUNC to {zxid} a snapshot as of {base} is left");
        let durable = Some(crate::shadow::last_of(&self.shadow.disk[..self.shadow.durable]));
        self.shadow.recover(recovered, durable, canon);
        let end = self.shadow.fuzzy_until;
        assert!(end <= zxid, "I10: after TRUNC to {zxid} a snapshot is left that holds effects up to {end}");
    }

    /// Takes the next thing that the replica wants done.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.process.as_mut()?.replica.poll_output()
    }
}

/// What a start has met.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) failures_in_recovery: u32,
    pub(crate) is_torn: bool,
    /// It found what a process wrote and never synced.
    pub(crate) has_unsynced: bool,
    /// It knew of txns behind its snapshot that they are committed.
    pub(crate) is_beyond_snapshot: bool,
}

/// Where the last record of a log begins: behind a header of 16 bytes each has a checksum of 8, a length of 4, that many
/// bytes and one that ends it.
fn last_record(log: &[u8]) -> usize {
    let (mut last, mut next) = (0, 16);
    while let Some(length) =
        log.get(next + 8..next + 12).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
        && length > 0
        && log.get(next + 12 + length as usize) == Some(&b'B')
    {
        last = next;
        next += 13 + length as usize;
    }
    last
}

fn recovery_of(recovered: Recovered) -> Recovery {
    Recovery {
        tree: recovered.tree,
        tail: recovered.tail,
        committed: recovered.committed,
        fuzzy_to: recovered.fuzzy_to,
        accepted_epoch: recovered.accepted_epoch.unwrap_or_default(),
        current_epoch: recovered.current_epoch,
    }
}

/// More than any world's log holds.
const LOG_READ_BYTES_MAX: u64 = 1 << 24;
