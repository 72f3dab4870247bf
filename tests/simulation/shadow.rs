//! What a member has logged, as seen from outside: by what it asked of its disk, and what the disk has done since.

use rollcall::id::{Epoch, Zxid};
use rollcall::storage::Recovered;
use rollcall::zab::{Entry, continues};

use crate::canon::Canon;

/// One member's log from the beginning of history on, snapshots or not.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    /// What the member believes its log to hold, asked for or done.
    pub(crate) log: Vec<Entry>,
    /// What the disk was made to hold.
    pub(crate) disk: Vec<Entry>,
    /// How many of these survive any crash.
    pub(crate) durable: usize,
    /// Epochs on disk.
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// Epochs that were asked for, and may be on disk.
    pub(crate) accepted_asked: Epoch,
    pub(crate) current_asked: Epoch,
    /// What may be on disk as well, because something was interrupted in its middle.
    pub(crate) interrupted: Option<Interrupted>,
    /// The last txn of which the newest snapshot may hold effects, by its zxid.
    pub(crate) snapshot_ends: Vec<(Zxid, Zxid)>,
    /// What was applied, so far as this process has.
    pub(crate) applied: usize,
    /// Up to here the tree may hold effects of later txns than it says.
    pub(crate) fuzzy_until: Zxid,
    /// What was durable on a disk that was lost.
    lost: Vec<Entry>,
}

/// A change of the log that was interrupted.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// Any end of the log from this zxid on is possible.
    Truncation(Zxid),
    /// All is as before, or there is this snapshot.
    Install(Zxid),
}

impl Shadow {
    /// Notes that the member wants `entry` logged.
    pub(crate) fn on_append(&mut self, entry: Entry) {
        let last = last_of(&self.log);
        assert!(continues(last, entry.zxid), "I9: {} is logged right after {last}", entry.zxid);
        self.log.push(entry);
    }

    /// Notes that the member wants its log cut back. That may hit what is committed, if it is proposed again and a quorum has
    /// it without this member; but not what was applied here.
    pub(crate) fn on_truncate(&mut self, zxid: Zxid) {
        let kept = count_up_to(&self.log, zxid);
        // Where a history of a later epoch than its own last parts from its own, a leader cannot know.
        let may_part_earlier = last_of(&self.log).epoch() > zxid.epoch();
        assert!(
            last_of(&self.log[..kept]) == zxid || may_part_earlier,
            "I12: TRUNC names {zxid}, which the learner does not have"
        );
        assert!(
            self.applied <= kept,
            "I10: {} is applied, and then truncated",
            last_of(&self.log[..self.applied])
        );
        self.log.truncate(kept);
    }

    /// Notes that the member wants its log replaced by a snapshot.
    pub(crate) fn on_install(&mut self, zxid: Zxid, canon: &Canon) {
        assert!(
            zxid <= canon.last_zxid(),
            "I10: a snapshot as of {zxid} is sent, but only {} is committed",
            canon.last_zxid()
        );
        self.log = canon_up_to(canon, zxid);
    }

    pub(crate) fn synced(&mut self) {
        self.durable = self.disk.len();
    }

    pub(crate) fn disk_truncated(&mut self, zxid: Zxid) {
        self.disk.truncate(count_up_to(&self.disk, zxid));
        self.durable = self.durable.min(self.disk.len());
        self.interrupted = None;
    }

    pub(crate) fn disk_installed(&mut self, zxid: Zxid, fuzzy_until: Zxid, canon: &Canon) {
        self.disk = canon_up_to(canon, zxid);
        self.durable = self.disk.len();
        self.snapshot_ends.push((zxid, fuzzy_until));
        self.interrupted = None;
    }

    /// Whether the entry is on disk, whatever happens.
    pub(crate) fn holds_durably(&self, entry: &Entry) -> bool {
        holds(&self.disk[..self.durable], entry)
    }

    /// Whether the entry was on a disk that was lost.
    pub(crate) fn has_lost(&self, entry: &Entry) -> bool {
        holds(&self.lost, entry)
    }

    /// The process is gone; what it only asked for will not be.
    pub(crate) fn on_process_gone(&mut self) {
        self.log.clear();
        self.log.extend_from_slice(&self.disk);
        self.applied = 0;
    }

    /// The disk was replaced by an empty one.
    pub(crate) fn wipe(&mut self) {
        let mut lost = std::mem::take(&mut self.disk);
        lost.truncate(self.durable);
        *self = Self { lost, ..Self::default() };
    }

    /// Compares what recovery found with what the disk was made to hold, and goes on with it. `durable` is what would be
    /// found if the power failed right now.
    pub(crate) fn recover(&mut self, recovered: &Recovered, durable: Option<Zxid>, canon: &Canon) {
        let base = recovered.tree.last_zxid();
        let last = recovered.tail.last().map_or(base, |entry| entry.zxid);
        let installed = match self.interrupted.take() {
            Some(Interrupted::Truncation(zxid)) => {
                self.durable = self.durable.min(count_up_to(&self.disk, zxid));
                None
            }
            Some(Interrupted::Install(zxid)) => Some(zxid),
            None => None,
        };
        // As before: a snapshot of the empty tree has the zxid that the history before it began with.
        let kept = [&self.disk[..count_up_to(&self.disk, base)], &recovered.tail].concat();
        let is_as_before =
            self.disk.starts_with(&kept) && last >= last_of(&self.disk[..self.durable]) && !kept.is_empty();
        if let Some(zxid) = installed
            && base == zxid
            && !is_as_before
            && (recovered.tail.is_empty() || count_up_to(&self.disk, zxid) == 0)
        {
            self.disk = canon_up_to(canon, zxid);
            self.durable = self.disk.len();
        }
        let durable_last = last_of(&self.disk[..self.durable]);
        assert!(last >= durable_last, "I7: recovered up to {last}, but {durable_last} was durable");
        let mut found = self.disk[..count_up_to(&self.disk, base)].to_vec();
        assert_eq!(
            last_of(&found),
            base,
            "I2: a snapshot as of {base} is recovered, of no txn that was logged"
        );
        found.extend(recovered.tail.iter().cloned());
        let is_prefix = found.len() <= self.disk.len() && found == self.disk[..found.len()];
        assert!(is_prefix, "I2: recovered up to {last}, but not what was logged");
        self.durable = durable.map_or(found.len(), |zxid| count_up_to(&found, zxid));
        self.fuzzy_until =
            self.snapshot_ends.iter().rev().find(|(zxid, _)| *zxid == base).map_or(base, |(_, end)| *end);
        self.disk = found;
        self.log.clone_from(&self.disk);
        self.check_epochs(recovered, last);
        self.applied = canon.count_up_to(base);
    }

    fn check_epochs(&mut self, recovered: &Recovered, last: Zxid) {
        let (accepted, current) =
            (recovered.accepted_epoch.unwrap_or_default(), recovered.current_epoch.unwrap_or_default());
        let range = self.accepted..=self.accepted_asked.max(self.accepted);
        assert!(range.contains(&accepted), "I8: acceptedEpoch {accepted} is recovered, of {range:?}");
        let range = self.current..=self.current_asked.max(self.current);
        assert!(range.contains(&current), "I8: currentEpoch {current} is recovered, of {range:?}");
        assert!(current <= accepted, "I8: currentEpoch {current} is later than acceptedEpoch {accepted}");
        assert!(last.epoch() <= accepted, "I8: {last} is of a later epoch than acceptedEpoch {accepted}");
        (self.accepted, self.accepted_asked) = (accepted, accepted);
        (self.current, self.current_asked) = (current, current);
    }
}

fn holds(entries: &[Entry], entry: &Entry) -> bool {
    entries.binary_search_by_key(&entry.zxid, |held| held.zxid).is_ok_and(|index| entries[index] == *entry)
}

pub(crate) fn last_of(entries: &[Entry]) -> Zxid {
    entries.last().map_or(Zxid::ZERO, |entry| entry.zxid)
}

pub(crate) fn count_up_to(entries: &[Entry], zxid: Zxid) -> usize {
    entries.partition_point(|entry| entry.zxid <= zxid)
}

fn canon_up_to(canon: &Canon, zxid: Zxid) -> Vec<Entry> {
    canon.committed[..canon.count_up_to(zxid)].iter().map(|committed| committed.entry.clone()).collect()
}
