//! The thread that owns the storage: appends, syncs once a batch, and says what is durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::stats::MemberStats;
use crate::clock;
use crate::id::{Epoch, Zxid};
use crate::storage::{Disk, LogRead, LogReading, Recovered, Storage, StorageError};
use crate::zab::{Entry, LinkId};

/// What the log thread is asked for, in order.
#[derive(Debug)]
pub(super) enum LogCommand {
    Append(Entry),
    SetAcceptedEpoch(Epoch),
    SetCurrentEpoch(Epoch),
    Truncate {
        zxid: Zxid,
        is_reload: bool,
    },
    InstallSnapshot {
        zxid: Zxid,
        body: Bytes,
    },
    ReadLog {
        link: LinkId,
        after: Zxid,
    },
    /// Nobody waits for that any more.
    StopReading(LinkId),
    BeginSnapshot(Zxid),
    SnapshotSlice(Vec<u8>),
    FinishSnapshot {
        zxid: Zxid,
        digest: u64,
    },
    RecordCommitted(Entry),
}

/// What the log thread says.
#[derive(Debug)]
pub(super) enum LogEvent {
    /// Everything up to this txn is on disk.
    Durable(Zxid),
    /// The accepted epoch is on disk.
    AcceptedEpochDurable(Epoch),
    /// The current epoch is on disk.
    CurrentEpochDurable(Epoch),
    /// What the disk holds, after a truncation that asked for it.
    Reloaded(Box<Recovered>),
    /// The log after a zxid, if it can tell.
    LogRead(LinkId, Option<Vec<Entry>>),
    /// The slice was taken over.
    SnapshotSliceWritten,
    /// The storage failed; nothing more will be durable.
    Failed(StorageError),
}

/// Events that may wait for the driver; a full channel makes the thread wait, and so bounds what is in flight.
const EVENTS_MAX: usize = 64;
/// Entries in one batch: enough to share a sync among many, few enough that the first does not wait long.
const BATCH_MAX: usize = 1000;

/// Starts the thread. It ends, with everything on disk, when the command sender is dropped.
///
/// Commands are not bounded here: what is not committed is bounded by what clients may have unanswered, and what the others commit without
/// this disk by `PeerSettings::lag_bytes_max`; what brings this member up to date, by the time that may take.
pub(super) fn spawn<D: Disk>(
    storage: Storage<D>,
    snapshots_kept: usize,
    stats: Arc<MemberStats>,
) -> std::io::Result<(Sender<LogCommand>, mpsc::Receiver<LogEvent>, JoinHandle<()>)> {
    let (commands, command_queue) = channel();
    let (events, event_queue) = mpsc::channel(EVENTS_MAX);
    let log = LogThread {
        storage,
        snapshots_kept,
        stats,
        events,
        appended: None,
        is_snapshot_begun: false,
        readings: VecDeque::new(),
        is_purge_due: false,
    };
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || log.run(&command_queue))?;
    Ok((commands, event_queue, thread))
}

struct LogThread<D: Disk> {
    storage: Storage<D>,
    snapshots_kept: usize,
    stats: Arc<MemberStats>,
    events: mpsc::Sender<LogEvent>,
    /// The last entry appended and not synced yet.
    appended: Option<Zxid>,
    is_snapshot_begun: bool,
    /// What learners lack, and is being read for them.
    readings: VecDeque<(LinkId, LogReading<D>)>,
    /// Whether old files are to go once that is done.
    is_purge_due: bool,
}

impl<D: Disk> LogThread<D> {
    fn run(mut self, commands: &Receiver<LogCommand>) {
        while let Some(first) = self.next_command(commands) {
            // Whoever can run now may have more to append, or be about to: with fewer processors than threads a batch gets half as
            // big again, and nobody waits where there is nothing else to run.
            std::thread::yield_now();
            let batch = std::iter::once(first).chain(commands.try_iter().take(BATCH_MAX - 1));
            if let Err(error) = self.carry_out(batch).and_then(|()| self.read_on()) {
                return self.fail(error);
            }
        }
    }

    /// Waits for a command, and reads on meanwhile; none when there will be no more.
    fn next_command(&mut self, commands: &Receiver<LogCommand>) -> Option<LogCommand> {
        while !self.readings.is_empty() {
            match commands.try_recv() {
                Ok(command) => return Some(command),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    if let Err(error) = self.read_on() {
                        self.fail(error);
                        return None;
                    }
                }
            }
        }
        commands.recv().ok()
    }

    /// Reads a part of what the learner lacks who has waited longest.
    fn read_on(&mut self) -> Result<(), StorageError> {
        let Some((link, reading)) = self.readings.front_mut() else { return Ok(()) };
        let link = *link;
        if let LogRead::Done(entries) = self.storage.read_on(reading, READ_PART_BYTES)? {
            self.readings.pop_front();
            self.tell(LogEvent::LogRead(link, entries));
            self.purge_if_due()?;
        }
        Ok(())
    }

    /// Removes old files, once nothing is read any more.
    fn purge_if_due(&mut self) -> Result<(), StorageError> {
        if !self.is_purge_due || !self.readings.is_empty() {
            return Ok(());
        }
        self.is_purge_due = false;
        self.storage.purge(self.snapshots_kept).map(drop)
    }

    /// Nothing can be read on when files go, or are cut: whoever waits is sent a snapshot instead, if it still waits.
    fn stop_reading(&mut self) {
        for (link, _) in std::mem::take(&mut self.readings) {
            self.tell(LogEvent::LogRead(link, None));
        }
    }

    fn fail(&self, error: StorageError) {
        // The driver ends the member; if it is gone already, there is nobody left to tell.
        let _ = self.events.blocking_send(LogEvent::Failed(error));
    }

    fn carry_out(&mut self, batch: impl Iterator<Item = LogCommand>) -> Result<(), StorageError> {
        let mut committed = None;
        for command in batch {
            match command {
                LogCommand::Append(entry) => {
                    self.storage.append(&entry)?;
                    self.appended = Some(entry.zxid);
                }
                LogCommand::SetAcceptedEpoch(epoch) => {
                    self.storage.set_accepted_epoch(epoch)?;
                    self.tell(LogEvent::AcceptedEpochDurable(epoch));
                }
                LogCommand::SetCurrentEpoch(epoch) => {
                    self.sync()?;
                    self.storage.set_current_epoch(epoch)?;
                    self.tell(LogEvent::CurrentEpochDurable(epoch));
                }
                LogCommand::RecordCommitted(entry) => committed = Some(entry),
                LogCommand::Truncate { zxid, is_reload } => {
                    committed = None;
                    self.stop_reading();
                    self.sync()?;
                    self.storage.truncate(zxid)?;
                    info!(%zxid, "gave up what the leader does not have");
                    if is_reload {
                        let recovered = self.storage.reload()?;
                        self.tell(LogEvent::Reloaded(Box::new(recovered)));
                    }
                }
                LogCommand::InstallSnapshot { zxid, body } => {
                    self.appended = None;
                    committed = None;
                    self.is_snapshot_begun = false;
                    self.stop_reading();
                    self.storage.install_snapshot(zxid, &body)?;
                    self.tell(LogEvent::Durable(zxid));
                }
                LogCommand::ReadLog { link, after } => {
                    self.sync()?;
                    let reading = self.storage.begin_reading(after, self.read_bytes_max())?;
                    self.readings.push_back((link, reading));
                }
                LogCommand::StopReading(link) => {
                    self.readings.retain(|(reader, _)| *reader != link);
                    self.purge_if_due()?;
                }
                LogCommand::BeginSnapshot(zxid) => {
                    self.sync()?;
                    self.storage.roll()?;
                    self.storage.begin_snapshot(zxid)?;
                    self.is_snapshot_begun = true;
                }
                // Of a snapshot that another has taken the place of.
                LogCommand::SnapshotSlice(_) | LogCommand::FinishSnapshot { .. }
                    if !self.is_snapshot_begun => {}
                LogCommand::SnapshotSlice(slice) => {
                    self.storage.write_snapshot(&slice)?;
                    self.tell(LogEvent::SnapshotSliceWritten);
                }
                LogCommand::FinishSnapshot { zxid, digest } => {
                    self.sync()?;
                    self.storage.finish_snapshot((zxid, digest))?;
                    self.is_snapshot_begun = false;
                    self.is_purge_due = true;
                    self.purge_if_due()?;
                    debug!(%zxid, "snapshot complete");
                }
            }
        }
        self.sync()?;
        // Everybody knows what is durable: nobody waits for this.
        committed.map_or(Ok(()), |entry| self.storage.record_committed(&entry))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let Some(zxid) = self.appended.take() else { return Ok(()) };
        let began = clock::now();
        self.storage.sync()?;
        let took = clock::now().saturating_duration_since(began);
        self.stats.count_sync(took);
        if took.as_millis() > SLOW_SYNC_MS {
            warn!(
                took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "the disk is slow to sync the log"
            );
        }
        self.tell(LogEvent::Durable(zxid));
        Ok(())
    }

    /// How much of the log a learner may be sent rather than the tree: a third of the snapshot, as in Apache ZooKeeper, but
    /// a few MiB in any case.
    fn read_bytes_max(&self) -> u64 {
        READ_BYTES_MIN.max(self.storage.newest_snapshot_bytes() / 3)
    }

    fn tell(&self, event: LogEvent) {
        // The driver is gone when the member ends; what was asked for is still carried out.
        let _ = self.events.blocking_send(event);
    }
}

/// What is read for a learner between two batches: about a millisecond.
const READ_PART_BYTES: u64 = 1 << 20;

/// Reading less than this from the log is never worth a snapshot.
const READ_BYTES_MIN: u64 = 16 << 20;

/// Syncs that take longer are worth a warning, in ms; `fsync.warningthresholdms` of Apache ZooKeeper.
const SLOW_SYNC_MS: u128 = 1000;

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::id::{SessionId, Xid};
    use crate::storage::StorageSettings;
    use crate::storage::sim_disk::SimDisk;
    use crate::tree::{Txn, TxnHeader, TxnOp};

    /// A disk that loses what was not synced, with the power failing at some operation: what kill -9 cannot show.
    #[test]
    fn what_was_told_to_be_durable_survives_a_power_failure() {
        let mut told = 0;
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let mut rng = Rng::with_seed(seed);
            let (storage, _) = Storage::open_with(disk.clone(), SETTINGS).unwrap();
            let (commands, mut events, thread) = spawn(storage, 3, Arc::default()).unwrap();
            commands.send(LogCommand::SetAcceptedEpoch(EPOCH)).unwrap();
            commands.send(LogCommand::SetCurrentEpoch(EPOCH)).unwrap();
            assert!(matches!(events.blocking_recv(), Some(LogEvent::AcceptedEpochDurable(EPOCH))));
            assert!(matches!(events.blocking_recv(), Some(LogEvent::CurrentEpochDurable(EPOCH))));
            disk.fail_power_after(rng.u64(0..60));

            let mut durable = Zxid::ZERO;
            let mut counter = 0;
            // The thread ends at the failure; until then it is given one group of writes after another.
            'power: while thread_takes(&commands, &mut counter, rng.u32(1..8)) {
                while durable < Zxid::new(EPOCH, counter) {
                    match events.blocking_recv() {
                        Some(LogEvent::Durable(zxid)) => durable = zxid,
                        Some(LogEvent::Failed(_)) | None => break 'power,
                        other => panic!("{other:?} was not asked for"),
                    }
                }
                told += 1;
            }
            drop(commands);
            thread.join().unwrap();

            let (_, recovered) = Storage::open_with(disk.power_on(), SETTINGS).unwrap();
            let found = recovered.last_zxid();
            assert!(found >= durable, "seed {seed}: told that {durable} is durable, found up to {found}");
            assert_eq!(recovered.current_epoch, Some(EPOCH), "seed {seed}");
        }
        assert!(told > 500, "only {told} groups were durable before the failures");
    }

    #[test]
    fn what_is_committed_is_noted_behind_the_batch_unless_the_history_is_cut_off() {
        let disk = SimDisk::new(0);
        let (storage, _) = Storage::open_with(disk.clone(), SETTINGS).unwrap();
        let (events, _told) = mpsc::channel(EVENTS_MAX);
        let mut log = LogThread {
            storage,
            snapshots_kept: 3,
            stats: Arc::default(),
            events,
            appended: None,
            is_snapshot_begun: false,
            readings: VecDeque::new(),
            is_purge_due: false,
        };
        let [accepted, current] = [LogCommand::SetAcceptedEpoch(EPOCH), LogCommand::SetCurrentEpoch(EPOCH)];
        let note = |counter| LogCommand::RecordCommitted(entry(counter));
        let append = |counter| LogCommand::Append(entry(counter));
        log.carry_out([accepted, current, append(1), append(2), note(1), append(3), note(2)].into_iter())
            .unwrap();
        let cut = LogCommand::Truncate { zxid: entry(3).zxid, is_reload: false };
        log.carry_out([append(4), note(4), cut].into_iter()).unwrap();
        drop(log);
        let (_, recovered) = Storage::open_with(disk.kill(), SETTINGS).unwrap();
        assert_eq!((recovered.committed, recovered.last_zxid()), (entry(2).zxid, entry(3).zxid));
    }

    const EPOCH: Epoch = Epoch(1);
    /// The simulated disk has no sparse files.
    const SETTINGS: StorageSettings = StorageSettings { preallocate_bytes: 8_192 };

    fn thread_takes(commands: &Sender<LogCommand>, counter: &mut u32, count: u32) -> bool {
        (0..count).all(|_| {
            *counter += 1;
            commands.send(LogCommand::Append(entry(*counter))).is_ok()
        })
    }

    /// A session's creation.
    fn entry(counter: u32) -> Entry {
        let zxid = Zxid::new(EPOCH, counter);
        let session = SessionId(i64::from(counter));
        let header = TxnHeader { session, cxid: Xid(0), zxid, time_ms: 1_700_000_000_000 };
        let op = TxnOp::CreateSession { timeout_ms: 10_000 };
        Entry { zxid, payload: Txn { header, op, digest: None }.encode() }
    }
}
