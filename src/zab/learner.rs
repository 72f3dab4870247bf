//! A learner: a follower or an observer, from its first packet to its leader until it loses it.
//!
//! ```text
//! Dialling ─► Introduced ─► AcceptingEpoch ─► AwaitingSync ─┬─────────────────────────┬► Synchronizing ─► AdoptingEpoch
//!            FOLLOWERINFO   acceptedEpoch     DIFF TRUNC SNAP│ AwaitingBody, Reloading │  PROPOSAL*        currentEpoch
//!                           to disk, ACKEPOCH               └─────────────────────────┘  NEWLEADER        to disk
//!   ─► AwaitingUpToDate ─► Broadcasting
//!      ACK, then UPTODATE   PROPOSAL ─► log ─► ACK; COMMIT ─► deliver
//! ```
//!
//! What the leader sends is logged as it comes. It counts as committed only with UPTODATE: before, the leader may not have
//! a quorum yet. The order on disk is that of ZOOKEEPER-4643 and 4646: the history, then currentEpoch, then the ACK.
//! A proposal is acknowledged once it is durable, and none before the ACK of NEWLEADER (ZOOKEEPER-4685).
//!
//! Source: `Learner.java`, `Follower.java`, `Observer.java` of Apache ZooKeeper.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::history::continues;
use super::mutation::{self, Mutation};
use super::peer::{Peer, Phase};
use super::timer::Timer;
use super::{Entry, Event, LearnerInfo, LinkId, Output, Packet, Recovery, SyncMode};
use crate::id::{Epoch, ServerId, Zxid};

/// What a learner knows of its leader.
#[derive(Clone, Debug)]
pub(super) struct Learner {
    pub(super) leader: ServerId,
    pub(super) stage: Stage,
    pub(super) link: Option<LinkId>,
    /// Whether what it has accepted counts: it has a history, or knows that nobody has one.
    has_say: bool,
    /// The dial that is under way.
    attempt: u64,
    began: Instant,
    /// When the leader was last heard of.
    pub(super) heard: Instant,
    /// The epoch that the leader proposed.
    epoch: Epoch,
    /// Up to where the leader has said that its history is committed.
    committed: Zxid,
    /// Proposals that were logged and not acknowledged.
    to_ack: VecDeque<Zxid>,
    /// Packets that wait until the disk was read again.
    held: VecDeque<Packet>,
}

/// How far a learner has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It connects to its leader.
    Dialling,
    /// It has said who it is.
    Introduced,
    /// The epoch it was told is being written down.
    AcceptingEpoch,
    /// It waits to be told how its history fits.
    AwaitingSync,
    /// A snapshot as of this zxid is on its way.
    AwaitingBody(Zxid),
    /// Its disk is being read again, after it was cut back to this zxid.
    Reloading(Zxid),
    /// It gets what it lacks.
    Synchronizing,
    /// It has everything, and writes down the epoch that it belongs to.
    AdoptingEpoch,
    /// It has accepted the leader, and waits for a quorum to do so.
    AwaitingUpToDate,
    /// It logs, acknowledges and delivers.
    Broadcasting,
}

/// Why a learner gives its leader up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Breach {
    #[error("{what} came while the learner was {stage:?}")]
    Unexpected { what: &'static str, stage: Stage },
    #[error("the leader proposes epoch {proposed}, but {accepted} was accepted already")]
    OldEpoch { proposed: Epoch, accepted: Epoch },
    #[error("the leader proposes epoch {0}, which none can follow")]
    LateEpoch(Epoch),
    #[error("NEWLEADER names {found}, not the beginning of the epoch accepted, {accepted}")]
    OtherEpoch { found: Zxid, accepted: Epoch },
    #[error("the proposal {found} does not continue the history, which ends at {last}")]
    Gap { last: Zxid, found: Zxid },
    #[error("the commit of {found} is not of the oldest proposal, {expected:?}")]
    CommitOrder { found: Zxid, expected: Option<Zxid> },
}

impl Learner {
    pub(super) const fn new(leader: ServerId, has_say: bool, now: Instant) -> Self {
        Self {
            leader,
            stage: Stage::Dialling,
            link: None,
            has_say,
            attempt: 0,
            began: now,
            heard: now,
            epoch: Epoch(0),
            committed: Zxid::ZERO,
            to_ack: VecDeque::new(),
            held: VecDeque::new(),
        }
    }

    fn unexpected(&self, what: &'static str) -> Breach {
        Breach::Unexpected { what, stage: self.stage }
    }

    /// Whether it logs what comes.
    const fn is_logging(&self) -> bool {
        matches!(
            self.stage,
            Stage::Synchronizing | Stage::AdoptingEpoch | Stage::AwaitingUpToDate | Stage::Broadcasting
        )
    }
}

impl Peer {
    /// Starts to follow, or to observe, `leader`.
    pub(super) fn learn_from(&mut self, leader: ServerId, has_say: bool, now: Instant) {
        self.phase = Phase::Learning(Learner::new(leader, has_say, now));
        self.set_patience(now);
        self.dial();
    }

    /// Connects to the leader.
    pub(super) fn dial(&mut self) {
        let Phase::Learning(learner) = &mut self.phase else { return };
        self.attempts += 1;
        learner.attempt = self.attempts;
        self.out.push_back(Output::Dial { attempt: learner.attempt, server: learner.leader });
    }

    pub(super) fn on_dialled(&mut self, attempt: u64, link: Option<LinkId>, now: Instant) {
        let is_observer = self.is_observer();
        let info = LearnerInfo { accepted_epoch: self.accepted_epoch, server: Some(self.settings.server_id) };
        let Phase::Learning(learner) = &mut self.phase else { return self.refuse_link(link) };
        if learner.attempt != attempt || learner.stage != Stage::Dialling {
            return self.refuse_link(link);
        }
        let Some(link) = link else {
            if now.saturating_duration_since(learner.began) >= self.settings.dial_time() {
                return self.lose("the leader cannot be reached", now);
            }
            return self.timers.set(Timer::Redial, now + self.settings.redial_pause);
        };
        learner.link = Some(link);
        learner.stage = Stage::Introduced;
        learner.heard = now;
        let packet = if is_observer { Packet::ObserverInfo(info) } else { Packet::FollowerInfo(info) };
        self.out.push_back(Output::Send(link, packet));
    }

    fn refuse_link(&mut self, link: Option<LinkId>) {
        if let Some(link) = link {
            self.out.push_back(Output::CloseLink(link));
        }
    }

    /// The connection to the leader is gone.
    pub(super) fn on_leader_gone(&mut self, now: Instant) {
        let Phase::Learning(learner) = &mut self.phase else { return };
        let is_early = learner.stage == Stage::Introduced;
        learner.link = None;
        // A leader to be may not know it yet.
        if is_early && now.saturating_duration_since(learner.began) < self.settings.dial_time() {
            learner.stage = Stage::Dialling;
            return self.timers.set(Timer::Redial, now + self.settings.redial_pause);
        }
        self.lose("the connection to the leader is gone", now);
    }

    /// Gives up a leader that has been silent for too long.
    pub(super) fn on_learner_patience(&mut self, now: Instant) {
        let Phase::Learning(learner) = &self.phase else { return };
        let limit = self.patience();
        if now.saturating_duration_since(learner.heard) >= limit {
            return self.lose("the leader is silent", now);
        }
        self.timers.set(Timer::Patience, learner.heard + limit);
    }

    /// The leader said something.
    pub(super) fn on_leader_packet(&mut self, packet: Packet, now: Instant) {
        let Phase::Learning(learner) = &mut self.phase else { return };
        learner.heard = now;
        if let Stage::Reloading(_) = learner.stage {
            return learner.held.push_back(packet);
        }
        if let Err(breach) = self.take_packet(packet, now) {
            warn!(%breach, "leaving the leader");
            self.lose("the leader broke the protocol", now);
        }
    }

    fn take_packet(&mut self, packet: Packet, now: Instant) -> Result<(), Breach> {
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        match packet {
            Packet::LeaderInfo(epoch) => self.on_leader_info(epoch),
            Packet::Diff(_) => self.on_diff(),
            Packet::Trunc(zxid) => self.on_trunc(zxid, now),
            Packet::Snap(zxid) => self.on_snap(zxid),
            Packet::Proposal(entry) => self.on_proposal(entry),
            Packet::Inform(entry) => self.on_inform(entry),
            Packet::Commit(zxid) => self.on_commit(zxid),
            Packet::NewLeader { zxid, .. } => self.on_new_leader(zxid, now),
            Packet::UpToDate => self.on_up_to_date(now),
            Packet::Ping(zxid) => {
                self.on_ping(zxid);
                Ok(())
            }
            Packet::Revalidated { session, is_valid } => {
                self.out.push_back(Output::Event(Event::Revalidated { session, is_valid }));
                Ok(())
            }
            Packet::Sync if learner.stage == Stage::Broadcasting => {
                self.out.push_back(Output::Event(Event::Synced));
                Ok(())
            }
            Packet::Sync => Err(learner.unexpected("SYNC")),
            Packet::Other(kind) => {
                debug!(kind, "ignoring a packet of an unknown type");
                Ok(())
            }
            Packet::Request(_)
            | Packet::Ack(_)
            | Packet::Pong { .. }
            | Packet::Revalidate { .. }
            | Packet::FollowerInfo(_)
            | Packet::ObserverInfo(_)
            | Packet::AckEpoch { .. } => Err(learner.unexpected("a learner's packet")),
        }
    }

    fn on_leader_info(&mut self, epoch: Epoch) -> Result<(), Breach> {
        let accepted = self.accepted_epoch;
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        if learner.stage != Stage::Introduced {
            return Err(learner.unexpected("LEADERINFO"));
        }
        if epoch > Epoch::MAX {
            return Err(Breach::LateEpoch(epoch));
        }
        if epoch < accepted && !mutation::is_on(Mutation::M9) {
            return Err(Breach::OldEpoch { proposed: epoch, accepted });
        }
        learner.epoch = epoch;
        if epoch == accepted {
            // It has answered for this epoch already; once more would let two leaders count it.
            self.ack_epoch(None);
        } else if mutation::is_on(Mutation::M7) {
            self.accepted_epoch = epoch;
            self.ack_epoch(Some(self.epoch_of_history()));
        } else {
            learner.stage = Stage::AcceptingEpoch;
            self.write_accepted_epoch(epoch);
        }
        Ok(())
    }

    pub(super) fn on_epoch_accepted(&mut self) {
        if matches!(&self.phase, Phase::Learning(learner) if learner.stage == Stage::AcceptingEpoch) {
            self.ack_epoch(Some(self.epoch_of_history()));
        }
    }

    fn ack_epoch(&mut self, current_epoch: Option<Epoch>) {
        let last_zxid = self.history.last();
        let Phase::Learning(learner) = &mut self.phase else { return };
        learner.stage = Stage::AwaitingSync;
        // Without a history it may have promised more, and held more, than it knows.
        let current_epoch = current_epoch.filter(|_| learner.has_say);
        self.send_leader(Packet::AckEpoch { last_zxid, current_epoch });
    }

    fn on_diff(&mut self) -> Result<(), Breach> {
        self.expect_sync("DIFF")?;
        self.synchronize(SyncMode::Diff, self.history.last());
        Ok(())
    }

    fn on_trunc(&mut self, zxid: Zxid, now: Instant) -> Result<(), Breach> {
        self.expect_sync("TRUNC")?;
        if mutation::is_on(Mutation::M6) {
            self.synchronize(SyncMode::Trunc, zxid);
            return Ok(());
        }
        let is_reload = !self.history.truncate(zxid);
        self.out.push_back(Output::Truncate { zxid, is_reload });
        if is_reload {
            let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
            learner.stage = Stage::Reloading(zxid);
            return Ok(());
        }
        self.after_truncation(zxid, now);
        Ok(())
    }

    /// The disk was read again.
    pub(super) fn on_reloaded(&mut self, recovery: Recovery, now: Instant) {
        self.take_recovery(recovery);
        let Phase::Learning(learner) = &mut self.phase else { return self.vote_if_drained(now) };
        let Stage::Reloading(zxid) = learner.stage else { return };
        let held = std::mem::take(&mut learner.held);
        learner.stage = Stage::AwaitingSync;
        self.after_truncation(zxid, now);
        for packet in held {
            self.on_leader_packet(packet, now);
        }
    }

    /// A leader cannot know where a history of a later epoch than its own last leaves it: then the two part earlier than it says,
    /// and it is asked again from there.
    fn after_truncation(&mut self, zxid: Zxid, now: Instant) {
        let last = self.history.last();
        if last != zxid {
            info!(%zxid, %last, "the history parts from the leader's before the place named");
            return self.lose("the leader is to compare again", now);
        }
        self.synchronize(SyncMode::Trunc, zxid);
    }

    fn on_snap(&mut self, zxid: Zxid) -> Result<(), Breach> {
        self.expect_sync("SNAP")?;
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        learner.stage = Stage::AwaitingBody(zxid);
        Ok(())
    }

    /// The snapshot that SNAP announced is there.
    pub(super) fn on_snapshot_received(&mut self, link: LinkId, body: Bytes, now: Instant) {
        let Phase::Learning(learner) = &mut self.phase else { return };
        let Stage::AwaitingBody(zxid) = learner.stage else { return };
        if learner.link != Some(link) {
            return;
        }
        learner.heard = now;
        self.history.reset(zxid);
        self.out.push_back(Output::Event(Event::InstallSnapshot { zxid, body }));
        self.synchronize(SyncMode::Snap, zxid);
    }

    fn expect_sync(&self, what: &'static str) -> Result<(), Breach> {
        match &self.phase {
            Phase::Learning(learner) if learner.stage != Stage::AwaitingSync => Err(learner.unexpected(what)),
            Phase::Learning(_) | Phase::Draining | Phase::Looking(_) | Phase::Leading(_) => Ok(()),
        }
    }

    /// From here on the history is the leader's; up to `committed` it is for certain.
    fn synchronize(&mut self, mode: SyncMode, committed: Zxid) {
        let Phase::Learning(learner) = &mut self.phase else { return };
        learner.stage = Stage::Synchronizing;
        learner.committed = committed;
        let peer = Some(learner.leader);
        info!(leader = %learner.leader, sync = mode.as_str(), zxid = %committed, "being synchronized");
        self.out.push_back(Output::Event(Event::Synchronizing { peer, mode }));
    }

    fn on_proposal(&mut self, entry: Entry) -> Result<(), Breach> {
        let (zxid, last) = (entry.zxid, self.history.last());
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        if !learner.is_logging() {
            return Err(learner.unexpected("a proposal"));
        }
        if zxid <= last && learner.stage != Stage::Broadcasting {
            // A snapshot may hold it already.
            return Ok(());
        }
        // The history may be of earlier epochs; what the leader proposes is of its own.
        let is_foreign = zxid.epoch() > learner.epoch
            || learner.stage == Stage::Broadcasting && zxid.epoch() != learner.epoch;
        if !continues(last, zxid) || is_foreign && !mutation::is_on(Mutation::M4) {
            return Err(Breach::Gap { last, found: zxid });
        }
        if learner.stage == Stage::Broadcasting {
            learner.to_ack.push_back(zxid);
        }
        self.history.append(entry.clone());
        self.out.push_back(Output::Append(entry));
        if mutation::is_on(Mutation::M1) {
            self.ack_up_to(zxid);
        }
        Ok(())
    }

    fn on_inform(&mut self, entry: Entry) -> Result<(), Breach> {
        let (zxid, last) = (entry.zxid, self.history.last());
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        if !learner.is_logging() {
            return Err(learner.unexpected("INFORM"));
        }
        if zxid > last {
            if !continues(last, zxid) {
                return Err(Breach::Gap { last, found: zxid });
            }
            self.history.append(entry.clone());
            self.out.push_back(Output::Append(entry));
        }
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        learner.committed = learner.committed.max(zxid);
        if learner.stage == Stage::Broadcasting {
            self.deliver_up_to(zxid);
        }
        Ok(())
    }

    fn on_commit(&mut self, zxid: Zxid) -> Result<(), Breach> {
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        if !learner.is_logging() {
            return Err(learner.unexpected("a commit"));
        }
        if learner.stage != Stage::Broadcasting {
            if zxid > self.history.last() {
                return Err(Breach::CommitOrder { found: zxid, expected: None });
            }
            if !mutation::is_on(Mutation::M12) {
                learner.committed = learner.committed.max(zxid);
            }
            return Ok(());
        }
        let expected = self.history.tail().front().map(|entry| entry.zxid);
        if expected != Some(zxid) {
            return Err(Breach::CommitOrder { found: zxid, expected });
        }
        learner.committed = zxid;
        self.deliver_up_to(zxid);
        Ok(())
    }

    fn on_new_leader(&mut self, zxid: Zxid, now: Instant) -> Result<(), Breach> {
        let accepted = self.accepted_epoch;
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        if learner.stage != Stage::Synchronizing {
            return Err(learner.unexpected("NEWLEADER"));
        }
        if zxid != Zxid::new(learner.epoch, 0) || learner.epoch != accepted {
            return Err(Breach::OtherEpoch { found: zxid, accepted });
        }
        let epoch = learner.epoch;
        learner.stage = Stage::AdoptingEpoch;
        if mutation::is_on(Mutation::M8) {
            self.write_current_epoch(epoch);
            self.current_epoch = epoch;
            self.on_epoch_adopted(now);
            return Ok(());
        }
        self.write_current_epoch(epoch);
        Ok(())
    }

    pub(super) fn on_epoch_adopted(&mut self, now: Instant) {
        let Phase::Learning(learner) = &mut self.phase else { return };
        if learner.stage != Stage::AdoptingEpoch {
            return;
        }
        learner.stage = Stage::AwaitingUpToDate;
        learner.heard = now;
        let ack = Packet::Ack(Zxid::new(learner.epoch, 0));
        self.send_leader(ack);
    }

    fn on_up_to_date(&mut self, now: Instant) -> Result<(), Breach> {
        let Phase::Learning(learner) = &mut self.phase else { return Ok(()) };
        if learner.stage != Stage::AwaitingUpToDate {
            return Err(learner.unexpected("UPTODATE"));
        }
        learner.stage = Stage::Broadcasting;
        let (leader, epoch, committed) = (learner.leader, learner.epoch, learner.committed);
        self.deliver_up_to(committed);
        // What came in between and is not committed is acknowledged like every other proposal.
        let outstanding: VecDeque<_> = self.history.tail().iter().map(|entry| entry.zxid).collect();
        self.send_leader(Packet::Ack(Zxid::new(epoch, 0)));
        if let Some(vote) = &mut self.vote {
            vote.epoch = epoch;
        }
        if let Phase::Learning(learner) = &mut self.phase {
            learner.to_ack = outstanding;
        }
        info!(%leader, %epoch, zxid = %committed, "following");
        self.out.push_back(Output::Event(Event::Followed { leader, epoch }));
        self.ack_up_to(self.history.durable());
        self.set_patience(now);
        Ok(())
    }

    /// Apache's leader takes any answer before the ACK of NEWLEADER for a breach.
    fn on_ping(&mut self, zxid: Zxid) {
        let Phase::Learning(learner) = &self.phase else { return };
        if learner.stage == Stage::Broadcasting {
            self.out.push_back(Output::Event(Event::Pinged(zxid)));
        }
    }

    /// Acknowledges what is durable.
    pub(super) fn ack_up_to(&mut self, durable: Zxid) {
        if self.is_observer() {
            return;
        }
        let Phase::Learning(learner) = &mut self.phase else { return };
        if learner.stage != Stage::Broadcasting {
            return;
        }
        let Some(link) = learner.link else { return };
        while let Some(zxid) = learner.to_ack.front().copied()
            && zxid <= durable
        {
            learner.to_ack.pop_front();
            self.out.push_back(Output::Send(link, Packet::Ack(zxid)));
        }
    }

    pub(super) fn send_leader(&mut self, packet: Packet) {
        if let Phase::Learning(Learner { link: Some(link), .. }) = &self.phase {
            self.out.push_back(Output::Send(*link, packet));
        }
    }

    /// How long the leader may be silent now.
    fn patience(&self) -> std::time::Duration {
        let is_synchronized =
            matches!(&self.phase, Phase::Learning(Learner { stage: Stage::Broadcasting, .. }));
        let ticks = if is_synchronized { self.settings.sync_limit } else { self.settings.init_limit };
        self.settings.tick * ticks
    }

    fn set_patience(&mut self, now: Instant) {
        let deadline = now + self.patience();
        self.timers.set(Timer::Patience, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zab::{Input, Notification, PeerSettings, Quorum, ServerState, Vote};

    fn server(id: u8) -> ServerId {
        ServerId::new(id).unwrap()
    }

    /// Its answer to LEADERINFO, after it has found a leader that others follow.
    fn answer_of(recovery: Recovery, epoch: Epoch) -> Option<Packet> {
        let (now, link) = (crate::clock::now(), LinkId(7));
        let settings = PeerSettings::new(server(1), Quorum::majority_of([1, 2, 3].map(server)));
        let mut peer = Peer::new(settings, recovery, now);
        let vote = Some(Vote { epoch: Epoch(3), zxid: Zxid::new(Epoch(2), 5), leader: server(2) });
        for (from, state) in [(3, ServerState::Following), (2, ServerState::Leading)] {
            let message = Notification { state, round: 4, vote, config: Bytes::new() };
            peer.handle(now, Input::Notification(server(from), message));
        }
        peer.handle(now, Input::Dialled { attempt: 1, link: Some(link) });
        peer.handle(now, Input::Packet(link, Packet::LeaderInfo(epoch)));
        let mut sent = None;
        while let Some(output) = peer.poll_output() {
            if let Output::SetAcceptedEpoch(epoch) = output {
                peer.handle(now, Input::AcceptedEpochDurable(epoch));
            } else if let Output::Send(_, packet) = output {
                sent = Some(packet);
            }
        }
        sent.filter(|packet| !matches!(packet, Packet::FollowerInfo(_)))
    }

    #[test]
    fn a_member_that_may_have_lost_its_history_accepts_an_epoch_without_being_counted() {
        let nothing = Packet::AckEpoch { last_zxid: Zxid::ZERO, current_epoch: None };
        assert_eq!(answer_of(Recovery::default(), Epoch(3)), Some(nothing));
        let zxid = Zxid::new(Epoch(2), 1);
        let tail = vec![Entry { zxid, payload: Bytes::new() }];
        let recovery =
            Recovery { tail, accepted_epoch: Epoch(2), current_epoch: Some(Epoch(2)), ..Recovery::default() };
        let counted = Packet::AckEpoch { last_zxid: zxid, current_epoch: Some(Epoch(2)) };
        assert_eq!(answer_of(recovery, Epoch(3)), Some(counted));
    }

    #[test]
    fn a_leader_is_not_followed_into_an_epoch_that_none_can_follow() {
        assert!(answer_of(Recovery::default(), Epoch::MAX).is_some());
        for late in [Epoch(Epoch::MAX.0 + 1), Epoch(0x7fff_ffff), Epoch(u32::MAX)] {
            assert_eq!(answer_of(Recovery::default(), late), None);
        }
    }
}
