//! Which situations were met. A run that never meets one says nothing about it.

use std::fmt;

/// A situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(crate) enum Seen {
    TwoEpochs,
    LeaderOfManyEpochs,
    Diff,
    DiffFromDisk,
    Trunc,
    Reload,
    Snap,
    SnapDuringWrites,
    SnapshotTaken,
    LeaderDiedBeforeCommit,
    LeaderDiedBetweenQuorumAndCommit,
    DiedWhileSynchronizing,
    Killed,
    PowerFailed,
    FailedInRecovery,
    TornTail,
    UnsyncedTailRecovered,
    CommittedBehindSnapshot,
    Paused,
    Cut,
    ConnectionBroken,
    DiskFailed,
    Wiped,
    RotRefused,
    ObserverServed,
    ProposalOutstandingAtSync,
    ServedByFollower,
    ReadOnly,
    AcknowledgedWrite,
    SyncedRead,
    AmbiguousRequest,
    SessionResumed,
    SessionClosed,
    SessionExpired,
    SessionExpiredAfterElection,
    ToldExpired,
    WatchFired,
    MissedWatchTold,
    SettledAfterStorm,
}

const COUNT: usize = Seen::SettledAfterStorm as usize + 1;

/// How often each situation was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Coverage {
    counts: [u64; COUNT],
}

impl Coverage {
    pub(crate) fn new() -> Self {
        Self { counts: [0; COUNT] }
    }

    pub(crate) fn see(&mut self, seen: Seen) {
        self.counts[seen as usize] += 1;
    }

    pub(crate) fn count(&mut self, seen: Seen, times: usize) {
        self.counts[seen as usize] += times as u64;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
    }

    /// The situations that were never met, but for one that cannot be: our trees hold nothing that a leader could take back, so
    /// that a member reads its disk again only over a folder that Apache wrote.
    pub(crate) fn missing(&self) -> Vec<Seen> {
        let is_possible = |seen: &Seen| !matches!(seen, Seen::Reload);
        ALL.into_iter().filter(is_possible).filter(|seen| self.counts[*seen as usize] == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ALL.into_iter().try_for_each(|seen| writeln!(f, "{:>12} {seen:?}", self.counts[seen as usize]))
    }
}

const ALL: [Seen; COUNT] = [
    Seen::TwoEpochs,
    Seen::LeaderOfManyEpochs,
    Seen::Diff,
    Seen::DiffFromDisk,
    Seen::Trunc,
    Seen::Reload,
    Seen::Snap,
    Seen::SnapDuringWrites,
    Seen::SnapshotTaken,
    Seen::LeaderDiedBeforeCommit,
    Seen::LeaderDiedBetweenQuorumAndCommit,
    Seen::DiedWhileSynchronizing,
    Seen::Killed,
    Seen::PowerFailed,
    Seen::FailedInRecovery,
    Seen::TornTail,
    Seen::UnsyncedTailRecovered,
    Seen::CommittedBehindSnapshot,
    Seen::Paused,
    Seen::Cut,
    Seen::ConnectionBroken,
    Seen::DiskFailed,
    Seen::Wiped,
    Seen::RotRefused,
    Seen::ObserverServed,
    Seen::ProposalOutstandingAtSync,
    Seen::ServedByFollower,
    Seen::ReadOnly,
    Seen::AcknowledgedWrite,
    Seen::SyncedRead,
    Seen::AmbiguousRequest,
    Seen::SessionResumed,
    Seen::SessionClosed,
    Seen::SessionExpired,
    Seen::SessionExpiredAfterElection,
    Seen::ToldExpired,
    Seen::WatchFired,
    Seen::MissedWatchTold,
    Seen::SettledAfterStorm,
];
