//! Phase 3 of Zab at the leader: proposals go out in order and are committed in order.

use std::collections::{BTreeSet, VecDeque};

use super::{Entry, Quorum};
use crate::id::{ServerId, Zxid};

/// The leader's proposals that are not committed yet, and who holds each of them durably.
///
/// Invariants, checked after every input: zxids grow by one within an epoch; what is committed lies before
/// everything outstanding; nothing is committed that a quorum does not hold.
#[derive(Debug)]
pub struct Broadcast {
    quorum: Quorum,
    outstanding: VecDeque<Proposal>,
    last_proposed: Zxid,
    last_committed: Zxid,
}

#[derive(Debug)]
struct Proposal {
    entry: Entry,
    acked_by: BTreeSet<ServerId>,
}

impl Broadcast {
    /// Starts a reign whose history ends at `last_committed`, the beginning of the leader's epoch.
    pub const fn new(quorum: Quorum, last_committed: Zxid) -> Self {
        Self { quorum, outstanding: VecDeque::new(), last_proposed: last_committed, last_committed }
    }

    /// The zxid that the next proposal must have; `None` when the epoch is used up and a new one is due.
    pub const fn next_zxid(&self) -> Option<Zxid> {
        self.last_proposed.next()
    }

    /// The newest txn that is committed.
    pub const fn last_committed(&self) -> Zxid {
        self.last_committed
    }

    /// How many proposals wait for their quorum.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Adds a proposal.
    ///
    /// # Panics
    ///
    /// When its zxid is not the next one.
    pub fn propose(&mut self, entry: Entry) {
        assert_eq!(Some(entry.zxid), self.next_zxid(), "a leader proposes without gaps");
        self.last_proposed = entry.zxid;
        self.outstanding.push_back(Proposal { entry, acked_by: BTreeSet::new() });
        self.check_invariants();
    }

    /// Notes that `server` holds everything up to `zxid` durably; repeated and late acks change nothing.
    pub fn on_ack(&mut self, server: ServerId, zxid: Zxid) {
        for proposal in self.outstanding.iter_mut().take_while(|proposal| proposal.entry.zxid <= zxid) {
            proposal.acked_by.insert(server);
        }
    }

    /// Takes the next proposal that a quorum holds; later ones wait for it.
    pub fn poll_commit(&mut self) -> Option<Entry> {
        let first = self.outstanding.front()?;
        if !self.quorum.is_reached_by(&first.acked_by) {
            return None;
        }
        let entry = self.outstanding.pop_front()?.entry;
        self.last_committed = entry.zxid;
        self.check_invariants();
        Some(entry)
    }

    fn check_invariants(&self) {
        assert!(self.last_committed <= self.last_proposed, "nothing is committed before it is proposed");
        if let (Some(first), Some(last)) = (self.outstanding.front(), self.outstanding.back()) {
            assert!(first.entry.zxid > self.last_committed, "what is committed is not outstanding");
            assert!(last.entry.zxid == self.last_proposed, "the newest proposal is outstanding");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use bytes::Bytes;

    fn server(id: u8) -> ServerId {
        ServerId::new(id).unwrap()
    }

    fn zxid(counter: u32) -> Zxid {
        Zxid::new(Epoch(1), counter)
    }

    fn leader_of(voters: u8) -> Broadcast {
        let mut broadcast = Broadcast::new(Quorum::majority_of((1..=voters).map(server)), zxid(0));
        (1..=3).for_each(|counter| broadcast.propose(Entry { zxid: zxid(counter), payload: Bytes::new() }));
        broadcast
    }

    #[test]
    fn nothing_commits_before_a_quorum_holds_it() {
        let mut broadcast = leader_of(3);
        broadcast.on_ack(server(1), zxid(3));
        assert_eq!(broadcast.poll_commit(), None);
        broadcast.on_ack(server(1), zxid(3));
        assert_eq!(broadcast.poll_commit(), None, "one voter counts once");
        broadcast.on_ack(server(2), zxid(1));
        assert_eq!(broadcast.poll_commit().map(|entry| entry.zxid), Some(zxid(1)));
        assert_eq!(broadcast.poll_commit(), None);
    }

    #[test]
    fn a_leader_alone_commits_what_is_durable_in_order() {
        let mut broadcast = leader_of(1);
        broadcast.on_ack(server(1), zxid(2));
        let committed: Vec<_> =
            std::iter::from_fn(|| broadcast.poll_commit()).map(|entry| entry.zxid).collect();
        assert_eq!(committed, [zxid(1), zxid(2)]);
        assert_eq!(broadcast.outstanding(), 1);
    }

    #[test]
    #[should_panic(expected = "without gaps")]
    fn a_gap_is_a_bug() {
        leader_of(1).propose(Entry { zxid: zxid(5), payload: Bytes::new() });
    }
}
