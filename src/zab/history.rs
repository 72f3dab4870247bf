//! Entries, and the history that they form at one member.
//!
//! ```text
//!        … on disk only │ window: committed, in memory │ tail: in the log, not committed
//!                     start                        committed                          last
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::mutation::{self, Mutation};
use crate::id::Zxid;

/// One txn as it travels and lies in the log: its place in the order and bytes that `zab` never looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the total order.
    pub zxid: Zxid,
    /// The encoded txn (header, record and digest), the same in a PROPOSAL and in the log.
    pub payload: Bytes,
}

/// What a member knows of the total order.
///
/// Invariants: zxids grow without gaps; what is durable is at most what was appended.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Committed entries, the newest last; entries are dropped from its front.
    window: VecDeque<Entry>,
    window_max: usize,
    /// The entry, or the snapshot, right before the window.
    start: Zxid,
    tail: VecDeque<Entry>,
    committed: Zxid,
    durable: Zxid,
    /// What is committed and not durable here: others hold it. Zxids and bytes of payload.
    lag: VecDeque<(Zxid, usize)>,
    lag_bytes: usize,
}

/// How a learner's history fits to the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The learner lacks what comes after this entry, which both have.
    Behind(Zxid),
    /// The learner has entries after this one that the leader has not.
    Diverges(Zxid),
    /// It ends before the window.
    BeforeWindow,
    /// There is nothing to tell it by.
    Unknown,
}

/// Whether `next` may come directly after `last`: the next counter, or the first of a later epoch.
pub fn continues(last: Zxid, next: Zxid) -> bool {
    last.next() == Some(next) || (next.epoch() > last.epoch() && next.counter() == 1)
}

impl History {
    /// A history of which the disk holds a snapshot as of `snapshot` and `tail`.
    pub(super) fn new(snapshot: Zxid, tail: Vec<Entry>, window_max: usize) -> Self {
        let tail = VecDeque::from(tail);
        let durable = tail.back().map_or(snapshot, |entry| entry.zxid);
        Self {
            window: VecDeque::new(),
            window_max,
            start: snapshot,
            tail,
            committed: snapshot,
            durable,
            lag: VecDeque::new(),
            lag_bytes: 0,
        }
    }

    /// The newest entry, committed or not.
    pub(super) fn last(&self) -> Zxid {
        self.tail.back().map_or(self.committed, |entry| entry.zxid)
    }

    /// The newest entry known to be committed.
    pub(super) const fn committed(&self) -> Zxid {
        self.committed
    }

    /// The newest entry that the log holds durably.
    pub(super) const fn durable(&self) -> Zxid {
        self.durable
    }

    /// Whether everything is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.durable >= self.last()
    }

    /// Bytes of payload that others have made durable, and this member's log has not.
    pub(super) const fn lag_bytes(&self) -> usize {
        self.lag_bytes
    }

    /// The entries that are not known to be committed.
    pub(super) const fn tail(&self) -> &VecDeque<Entry> {
        &self.tail
    }

    /// Adds an entry that continues the history.
    pub(super) fn append(&mut self, entry: Entry) {
        assert!(continues(self.last(), entry.zxid), "{} cannot follow {}", entry.zxid, self.last());
        self.tail.push_back(entry);
    }

    /// Takes note of what the log holds.
    pub(super) fn on_durable(&mut self, zxid: Zxid) {
        assert!(zxid <= self.last(), "{zxid} is durable but the history ends at {}", self.last());
        self.durable = self.durable.max(zxid);
        while let Some((late, bytes)) = self.lag.front().copied()
            && late <= zxid
        {
            self.lag.pop_front();
            self.lag_bytes -= bytes;
        }
    }

    /// Commits the next entry, if it is at most `up_to`.
    pub(super) fn commit_next(&mut self, up_to: Zxid) -> Option<Entry> {
        if self.tail.front()?.zxid > up_to {
            return None;
        }
        let entry = self.tail.pop_front()?;
        self.committed = entry.zxid;
        if entry.zxid > self.durable {
            self.lag.push_back((entry.zxid, entry.payload.len()));
            self.lag_bytes += entry.payload.len();
        }
        if !(mutation::is_on(Mutation::M15) && entry.zxid.counter() % 7 == 3) {
            self.window.push_back(entry.clone());
        }
        if self.window.len() > self.window_max
            && let Some(dropped) = self.window.pop_front()
        {
            self.start = dropped.zxid;
        }
        Some(entry)
    }

    /// Forgets everything after `zxid`. False when the committed part reaches further: then it cannot.
    pub(super) fn truncate(&mut self, zxid: Zxid) -> bool {
        if zxid < self.committed {
            return false;
        }
        let kept = self.tail.partition_point(|entry| entry.zxid <= zxid);
        self.tail.truncate(kept);
        self.durable = self.durable.min(self.last());
        true
    }

    /// Starts anew from a snapshot that is not on disk yet.
    pub(super) fn reset(&mut self, snapshot: Zxid) {
        *self = Self { durable: Zxid::NONE, ..Self::new(snapshot, Vec::new(), self.window_max) };
    }

    /// The entries after `from` up to `to`, as far as they are in memory.
    pub(super) fn between(&self, from: Zxid, to: Zxid) -> impl Iterator<Item = &Entry> {
        let skipped = self.window.partition_point(|entry| entry.zxid <= from);
        let rest = self.window.range(skipped..).chain(&self.tail);
        rest.skip_while(move |entry| entry.zxid <= from).take_while(move |entry| entry.zxid <= to)
    }

    /// Whether everything after `zxid` is in memory.
    pub(super) fn reaches_back_to(&self, zxid: Zxid) -> bool {
        zxid >= self.start
    }

    /// Compares with a learner whose history ends at `theirs`; of ours, what lies after `end` does not count.
    ///
    /// Source: `LearnerHandler.syncFollower`, `queueCommittedProposals` of Apache ZooKeeper, which sends the tree where a tail
    /// that nobody else has ends its epoch. A zxid with counter 0 is the beginning of an epoch, of which no log has a record.
    pub(super) fn fit(&self, theirs: Zxid, end: Zxid) -> Fit {
        let is_epoch_beginning = theirs.counter() == 0;
        if theirs == end {
            return Fit::Behind(theirs);
        }
        if theirs > end {
            return if is_epoch_beginning { Fit::Unknown } else { Fit::Diverges(end) };
        }
        if theirs < self.start {
            return Fit::BeforeWindow;
        }
        let mut before = self.start;
        for entry in self.window.iter().chain(&self.tail) {
            if entry.zxid > theirs {
                return if before == theirs || is_epoch_beginning {
                    Fit::Behind(before)
                } else if before.epoch() == theirs.epoch() {
                    // Of one epoch all have the same beginning.
                    Fit::Diverges(before)
                } else {
                    Fit::Unknown
                };
            }
            before = entry.zxid;
        }
        Fit::Unknown
    }

    /// Asserts what must hold between inputs.
    pub(super) fn check_invariants(&self) {
        assert!(self.start <= self.committed, "the window ends where the committed part does");
        assert!(self.durable <= self.last(), "what is durable was appended");
        if let Some(first) = self.tail.front() {
            assert!(first.zxid > self.committed, "what is committed is not in the tail");
        }
        assert!(self.window.len() <= self.window_max, "the window is bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn entry(epoch: u32, counter: u32) -> Entry {
        Entry { zxid: zxid(epoch, counter), payload: Bytes::new() }
    }

    /// (1,1) to (1,5) and (3,1) to (3,4), of which the first are dropped and the last two are not committed.
    fn history() -> History {
        let mut history = History::new(Zxid::ZERO, Vec::new(), 6);
        (1..=5).for_each(|counter| history.append(entry(1, counter)));
        (1..=4).for_each(|counter| history.append(entry(3, counter)));
        while history.commit_next(zxid(3, 2)).is_some() {}
        history.on_durable(zxid(3, 3));
        history.check_invariants();
        history
    }

    #[test]
    fn the_window_holds_the_newest_committed_entries() {
        let history = history();
        assert_eq!(
            (history.start, history.committed(), history.last()),
            (zxid(1, 1), zxid(3, 2), zxid(3, 4))
        );
        let between: Vec<_> = history.between(zxid(1, 4), zxid(3, 3)).map(|entry| entry.zxid).collect();
        assert_eq!(between, [zxid(1, 5), zxid(3, 1), zxid(3, 2), zxid(3, 3)]);
        assert!(history.reaches_back_to(zxid(1, 1)) && !history.reaches_back_to(zxid(1, 0)));
    }

    #[test]
    fn a_learner_gets_what_it_lacks_or_gives_up_what_nobody_has() {
        let history = history();
        let end = zxid(3, 2);
        let fits = [
            (zxid(3, 2), Fit::Behind(zxid(3, 2))),
            (zxid(1, 1), Fit::Behind(zxid(1, 1))),
            (zxid(1, 5), Fit::Behind(zxid(1, 5))),
            (zxid(3, 0), Fit::Behind(zxid(1, 5))),
            (zxid(2, 0), Fit::Behind(zxid(1, 5))),
            (zxid(1, 6), Fit::Diverges(zxid(1, 5))),
            (zxid(2, 1), Fit::Unknown),
            (zxid(3, 3), Fit::Diverges(end)),
            (zxid(4, 7), Fit::Diverges(end)),
            (zxid(4, 0), Fit::Unknown),
            (zxid(1, 0), Fit::BeforeWindow),
            (Zxid::ZERO, Fit::BeforeWindow),
        ];
        for (theirs, fit) in fits {
            assert_eq!(history.fit(theirs, end), fit, "{theirs}");
        }
        let mut gap = History::new(zxid(1, 0), Vec::new(), 6);
        [entry(1, 1), entry(1, 2)].into_iter().for_each(|entry| gap.append(entry));
        gap.window.push_back(entry(1, 9));
        assert_eq!(gap.fit(zxid(1, 5), zxid(1, 2)), Fit::Diverges(zxid(1, 2)));
    }

    #[test]
    fn what_is_committed_is_not_truncated_here() {
        let mut history = history();
        assert!(!history.truncate(zxid(3, 1)));
        assert!(history.truncate(zxid(3, 3)));
        assert_eq!((history.last(), history.durable()), (zxid(3, 3), zxid(3, 3)));
        assert!(history.truncate(zxid(3, 2)));
        assert_eq!((history.last(), history.durable()), (zxid(3, 2), zxid(3, 2)));
    }

    #[test]
    #[should_panic(expected = "cannot follow")]
    fn a_gap_is_a_bug() {
        history().append(entry(3, 6));
    }

    #[test]
    fn a_later_epoch_starts_at_one() {
        assert!(continues(zxid(1, 3), zxid(1, 4)) && continues(zxid(1, 3), zxid(4, 1)));
        assert!(!continues(zxid(1, 3), zxid(1, 5)) && !continues(zxid(1, 3), zxid(2, 2)));
        assert!(!continues(zxid(2, 1), zxid(1, 1)) && continues(zxid(2, 0), zxid(2, 1)));
    }
}
