//! What may be said on a connection between a learner and its leader, in which order: I12, the "should not be triggered" of
//! Apache's specification; and of the learner, what must be on its disk before it says so: I7 and I8.

use std::collections::VecDeque;

use rollcall::id::{Epoch, Zxid};
use rollcall::zab::{Packet, continues};

use crate::shadow::{Shadow, last_of};

/// What was said so far.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// The leader's.
    proposed_epoch: Option<Epoch>,
    is_synchronizing: bool,
    has_new_leader: bool,
    pub(crate) is_up_to_date: bool,
    last_proposal: Zxid,
    uncommitted: VecDeque<Zxid>,
    /// The learner's.
    is_introduced: bool,
    has_acked_epoch: bool,
    has_acked_leader: bool,
    last_ack: Zxid,
    /// How long its log was when NEWLEADER came.
    log_at_new_leader: Option<usize>,
}

impl Conversation {
    /// The leader says something.
    pub(crate) fn on_leader_says(&mut self, packet: &Packet) {
        match packet {
            Packet::LeaderInfo(epoch) => {
                assert!(self.proposed_epoch.is_none(), "I12: LEADERINFO comes twice");
                self.proposed_epoch = Some(*epoch);
            }
            Packet::Diff(_) | Packet::Trunc(_) | Packet::Snap(_) => {
                assert!(
                    self.proposed_epoch.is_some() && !self.is_synchronizing,
                    "I12: {packet:?} comes out of turn"
                );
                self.is_synchronizing = true;
                if let Packet::Trunc(zxid) | Packet::Snap(zxid) = packet {
                    self.last_proposal = *zxid;
                }
            }
            Packet::Proposal(entry) | Packet::Inform(entry) => {
                let (last, zxid) = (self.last_proposal, entry.zxid);
                assert!(self.is_synchronizing, "I12: a proposal comes before the synchronization");
                assert!(
                    last == Zxid::ZERO || continues(last, zxid),
                    "I9: {zxid} is proposed right after {last}"
                );
                self.last_proposal = zxid;
                if let Packet::Proposal(_) = packet {
                    self.uncommitted.push_back(zxid);
                }
            }
            Packet::Commit(zxid) => {
                let oldest = self.uncommitted.pop_front();
                assert_eq!(oldest, Some(*zxid), "I12: COMMIT is of another than the oldest proposal");
            }
            Packet::NewLeader { zxid, .. } => {
                assert!(self.is_synchronizing && !self.has_new_leader, "I12: NEWLEADER comes out of turn");
                assert_eq!(Some(zxid.epoch()), self.proposed_epoch, "I12: NEWLEADER is of another epoch");
                self.has_new_leader = true;
            }
            Packet::UpToDate => {
                assert!(self.has_new_leader && !self.is_up_to_date, "I12: UPTODATE comes out of turn");
                assert!(self.has_acked_leader, "I12: UPTODATE comes before the ACK of NEWLEADER");
                self.is_up_to_date = true;
            }
            Packet::Ping(_) | Packet::Sync | Packet::Revalidated { .. } => {
                assert!(self.is_up_to_date, "I12: {packet:?} comes before UPTODATE");
            }
            Packet::Request(_)
            | Packet::Ack(_)
            | Packet::Pong { .. }
            | Packet::Revalidate { .. }
            | Packet::FollowerInfo(_)
            | Packet::ObserverInfo(_)
            | Packet::AckEpoch { .. }
            | Packet::Other(_) => panic!("I12: a leader says {packet:?}"),
        }
    }

    /// The learner has got something.
    pub(crate) fn on_learner_hears(&mut self, packet: &Packet, shadow: &Shadow) {
        if let Packet::NewLeader { .. } = packet {
            self.log_at_new_leader = Some(shadow.log.len());
        }
    }

    /// The learner says something.
    pub(crate) fn on_learner_says(&mut self, packet: &Packet, shadow: &Shadow) {
        match packet {
            Packet::FollowerInfo(_) | Packet::ObserverInfo(_) => {
                assert!(!self.is_introduced, "I12: a learner introduces itself twice");
                self.is_introduced = true;
            }
            Packet::AckEpoch { .. } => {
                assert!(!self.has_acked_epoch, "I12: ACKEPOCH comes twice");
                self.has_acked_epoch = true;
                let epoch = self.proposed_epoch.expect("I12: ACKEPOCH answers LEADERINFO");
                assert!(shadow.accepted >= epoch, "I8: epoch {epoch} is accepted before it is on disk");
                assert!(shadow.accepted <= epoch, "I8: epoch {epoch} is accepted after {}", shadow.accepted);
            }
            Packet::Ack(zxid) if zxid.counter() == 0 => self.on_new_leader_acked(*zxid, shadow),
            Packet::Ack(zxid) => {
                let durable = last_of(&shadow.disk[..shadow.durable]);
                assert!(*zxid <= durable, "I7: {zxid} is acknowledged, but only {durable} is durable");
                assert!(*zxid <= self.last_proposal, "I12: {zxid} is acknowledged and was never proposed");
                assert!(*zxid > self.last_ack, "I12: {zxid} is acknowledged after {}", self.last_ack);
                self.last_ack = *zxid;
            }
            Packet::Request(_) | Packet::Revalidate { .. } => {
                assert!(self.is_up_to_date, "I12: {packet:?} comes before UPTODATE");
            }
            Packet::Pong { .. } | Packet::Ping(_) => {}
            Packet::Proposal(_)
            | Packet::Commit(_)
            | Packet::Revalidated { .. }
            | Packet::Sync
            | Packet::Inform(_)
            | Packet::NewLeader { .. }
            | Packet::UpToDate
            | Packet::Diff(_)
            | Packet::Trunc(_)
            | Packet::Snap(_)
            | Packet::LeaderInfo(_)
            | Packet::Other(_) => panic!("I12: a learner says {packet:?}"),
        }
    }

    fn on_new_leader_acked(&mut self, zxid: Zxid, shadow: &Shadow) {
        let log = self.log_at_new_leader.expect("I12: the ACK of NEWLEADER comes after it");
        if !std::mem::replace(&mut self.has_acked_leader, true) {
            assert!(
                shadow.durable >= log,
                "I8: NEWLEADER is acknowledged with {} entries durable, of the {log} that there were",
                shadow.durable
            );
            let current = shadow.current;
            assert_eq!(current, zxid.epoch(), "I8: NEWLEADER is acknowledged before currentEpoch is on disk");
        }
    }
}
