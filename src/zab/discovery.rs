//! Phase 1 at the leader: a new epoch, that a quorum accepts.
//!
//! ```text
//! a quorum's FOLLOWERINFO ─► epoch above all accepted ones ─► acceptedEpoch to disk ─► LEADERINFO
//! a quorum's ACKEPOCH, none of them with a better history ─► currentEpoch to disk, phase 2
//! ```
//!
//! A follower that has accepted this very epoch before does not count again, so that no two leaders share an epoch. One
//! without any history does not count either, unless nobody has one: it may have forgotten what it promised. Then all voters must
//! have said which epochs they have accepted, since any of them may be the only one who remembers. One that has accepted an epoch
//! which none can follow is let go: its file is wrong, and the others would be lost with it.
//!
//! Source: `Leader.java` (`lead`, `getEpochToPropose`, `waitForEpochAck`) of Apache ZooKeeper.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use tracing::{error, info, warn};

use super::broadcast::Broadcast;
use super::mutation::{self, Mutation};
use super::peer::{Peer, Phase};
use super::timer::Timer;
use super::{Entry, LearnerInfo, LinkId, Output, Packet};
use crate::id::{Epoch, ServerId, Zxid};

/// A leader, from its election until it gives up.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) stage: LeaderStage,
    /// The epoch it leads, or will; 0 while none is proposed.
    pub(super) epoch: Epoch,
    pub(super) links: BTreeMap<LinkId, LearnerLink>,
    /// Who has accepted the epoch.
    epoch_acks: BTreeSet<ServerId>,
    /// Who has accepted the leader.
    pub(super) leader_acks: BTreeSet<ServerId>,
    pub(super) broadcast: Broadcast,
    /// Half ticks since a quorum was last looked for.
    pub(super) half_ticks: u32,
}

/// How far a leader has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaderStage {
    /// It waits for a quorum to say which epochs were accepted.
    ProposingEpoch,
    /// It writes the new one down.
    AcceptingEpoch,
    /// It waits for a quorum to accept it.
    AwaitingEpochAcks,
    /// It waits for a quorum to have its history.
    AwaitingLeaderAcks,
    /// It leads.
    Broadcasting,
}

/// One learner's connection.
#[derive(Clone, Debug)]
pub(super) struct LearnerLink {
    pub(super) server: Option<ServerId>,
    pub(super) is_observer: bool,
    pub(super) stage: LinkStage,
    /// When it was last heard of.
    pub(super) heard: Instant,
    /// Up to where it was sent the history as committed, before NEWLEADER.
    pub(super) synced_to: Zxid,
    /// Up to where it holds the leader's history durably.
    pub(super) acked: Zxid,
    /// A proposal that was outstanding at some time, and that time.
    pub(super) oldest_unacked: Option<(Zxid, Instant)>,
    /// Commits that it will be told of behind UPTODATE, or behind its oldest sync.
    pub(super) held: VecDeque<Entry>,
    /// For each of its syncs that are not answered, oldest first, the last proposal before it.
    pub(super) syncs: VecDeque<Zxid>,
    /// The rounds of pings that it has not answered.
    pub(super) pings: VecDeque<u64>,
    /// The last round that it has answered.
    pub(super) answered: u64,
}

/// How far a learner has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkStage {
    /// It has not said who it is.
    New,
    /// It has.
    Introduced(LearnerInfo),
    /// It was told the epoch.
    EpochProposed,
    /// It has accepted it; its history ends here.
    EpochAcked(Zxid),
    /// What it lacks is being read from the log.
    ReadingLog(Zxid),
    /// It was sent everything, and gets what is proposed.
    Synchronizing,
    /// It has accepted the leader.
    Accepted,
    /// It serves.
    UpToDate,
}

impl Leader {
    pub(super) fn new(committed: Zxid) -> Self {
        Self {
            stage: LeaderStage::ProposingEpoch,
            epoch: Epoch(0),
            links: BTreeMap::new(),
            epoch_acks: BTreeSet::new(),
            leader_acks: BTreeSet::new(),
            broadcast: Broadcast::new(committed),
            half_ticks: 0,
        }
    }
}

impl LearnerLink {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            server: None,
            is_observer: false,
            stage: LinkStage::New,
            heard: now,
            synced_to: Zxid::ZERO,
            acked: Zxid::ZERO,
            oldest_unacked: None,
            held: VecDeque::new(),
            syncs: VecDeque::new(),
            pings: VecDeque::new(),
            answered: 0,
        }
    }

    /// Whether it gets what is proposed.
    pub(super) const fn is_forwarding(&self) -> bool {
        matches!(self.stage, LinkStage::Synchronizing | LinkStage::Accepted | LinkStage::UpToDate)
    }
}

impl Peer {
    /// Starts to lead, as far as the others let it.
    pub(super) fn lead(&mut self, now: Instant) {
        self.phase = Phase::Leading(Leader::new(self.history.committed()));
        self.timers.set(Timer::Patience, now + self.settings.tick * self.settings.init_limit);
        self.timers.set(Timer::HalfTick, now + self.settings.tick / 2);
        self.timers.stop(Timer::Parked);
        for (link, packet) in std::mem::take(&mut self.parked) {
            self.on_accepted(link, now);
            if let Some(packet) = packet {
                self.on_learner_packet(link, packet, now);
            }
        }
        self.propose_epoch_if_quorum(now);
    }

    /// A learner has connected.
    pub(super) fn on_accepted(&mut self, link: LinkId, now: Instant) {
        match &mut self.phase {
            Phase::Leading(leader) => {
                leader.links.insert(link, LearnerLink::new(now));
            }
            // It may have heard who leads before this member has.
            Phase::Looking(_) | Phase::Draining if self.parked.len() < PARKED_MAX => {
                self.parked.insert(link, None);
                let patience = self.settings.tick * self.settings.init_limit;
                self.timers.set_if_unset(Timer::Parked, now, patience);
            }
            Phase::Looking(_) | Phase::Draining | Phase::Learning(_) => {
                self.out.push_back(Output::CloseLink(link));
            }
        }
    }

    /// A learner's first packet.
    pub(super) fn on_learner_info(&mut self, id: LinkId, info: LearnerInfo, is_observer: bool, now: Instant) {
        let settings = &self.settings;
        let Phase::Leading(leader) = &mut self.phase else { return };
        let Some(link) = leader.links.get_mut(&id) else { return };
        let Some(server) = info.server.filter(|server| settings.is_configured(*server, is_observer)) else {
            warn!(server = ?info.server, is_observer, "refusing a learner that is not configured");
            return self.drop_link(id);
        };
        if link.stage != LinkStage::New || server == settings.server_id {
            return self.drop_link(id);
        }
        if info.accepted_epoch.next().is_none() {
            let accepted_epoch = info.accepted_epoch;
            warn!(%server, %accepted_epoch, "letting a learner go whose acceptedEpoch is wrong: no epoch can follow it");
            return self.drop_link(id);
        }
        link.server = Some(server);
        link.is_observer = is_observer;
        link.stage = LinkStage::Introduced(info);
        // A learner that comes back has given up its earlier connection.
        let earlier = leader.links.iter().find(|(other, link)| **other != id && link.server == Some(server));
        let has_promised_more =
            leader.stage != LeaderStage::ProposingEpoch && info.accepted_epoch > leader.epoch;
        if let Some(earlier) = earlier.map(|(earlier, _)| *earlier) {
            self.drop_link(earlier);
        }
        if has_promised_more && !mutation::is_on(Mutation::M9) {
            // It could not follow in this epoch, ever; in Apache it tries for ever.
            return self.lose("a learner has promised to follow nobody as old", now);
        }
        self.propose_epoch_if_quorum(now);
        self.tell_epoch(id);
    }

    /// Once a quorum has said which epochs it has accepted, the next one is proposed.
    fn propose_epoch_if_quorum(&mut self, now: Instant) {
        let is_founding = self.is_blank() && !self.settings.force_bootstrap;
        let knows_nothing = self.is_blank() || self.accepted_epoch == Epoch(0);
        let me = self.settings.server_id;
        let Phase::Leading(leader) = &mut self.phase else { return };
        if leader.stage != LeaderStage::ProposingEpoch {
            return;
        }
        let introduced: Vec<LearnerInfo> = leader
            .links
            .values()
            .filter_map(|link| if let LinkStage::Introduced(info) = link.stage { Some(info) } else { None })
            .collect();
        let is_there = |voter| voter == me || introduced.iter().any(|info| info.server == Some(voter));
        let are_all_there = self.settings.quorum.voters().all(is_there);
        // Who does not know what it has promised is of no use, unless there is nobody else to ask.
        let counts_blank = knows_nothing || are_all_there || self.settings.force_bootstrap;
        let mut highest = self.accepted_epoch.max(self.history.last().epoch());
        let mut servers = BTreeSet::from([me]);
        for info in introduced.iter().filter(|info| counts_blank || info.accepted_epoch > Epoch(0)) {
            highest = highest.max(info.accepted_epoch);
            servers.extend(info.server);
        }
        let is_enough = if is_founding { are_all_there } else { self.settings.quorum.is_reached_by(servers) };
        if !is_enough {
            return;
        }
        let Some(epoch) = highest.next() else {
            // It is not lost at once, or a member alone would do nothing else.
            return error!(%highest, "cannot lead: no epoch can follow the one that was accepted");
        };
        leader.epoch = epoch;
        leader.stage = LeaderStage::AcceptingEpoch;
        self.timers.set(Timer::Patience, now + self.settings.tick * self.settings.init_limit);
        self.write_accepted_epoch(epoch);
    }

    /// The epoch that this leader proposes is on disk.
    pub(super) fn on_own_epoch_accepted(&mut self, now: Instant) {
        let me = self.settings.server_id;
        let Phase::Leading(leader) = &mut self.phase else { return };
        if leader.stage != LeaderStage::AcceptingEpoch {
            return;
        }
        leader.stage = LeaderStage::AwaitingEpochAcks;
        leader.epoch_acks.insert(me);
        let links: Vec<_> = leader.links.keys().copied().collect();
        for link in links {
            self.tell_epoch(link);
        }
        self.synchronize_if_epoch_accepted(now);
    }

    fn tell_epoch(&mut self, id: LinkId) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        if matches!(leader.stage, LeaderStage::ProposingEpoch | LeaderStage::AcceptingEpoch) {
            return;
        }
        let Some(link) = leader.links.get_mut(&id) else { return };
        if matches!(link.stage, LinkStage::Introduced(_)) {
            link.stage = LinkStage::EpochProposed;
            self.out.push_back(Output::Send(id, Packet::LeaderInfo(leader.epoch)));
        }
    }

    /// A learner has accepted the epoch, or had before.
    pub(super) fn on_ack_epoch(
        &mut self,
        id: LinkId,
        last_zxid: Zxid,
        current_epoch: Option<Epoch>,
        now: Instant,
    ) {
        let own = (self.epoch_of_history(), self.history.last());
        let Phase::Leading(leader) = &mut self.phase else { return };
        let Some(link) = leader.links.get_mut(&id) else { return };
        if link.stage != LinkStage::EpochProposed {
            return self.drop_link(id);
        }
        link.stage = LinkStage::EpochAcked(last_zxid);
        let (server, is_observer) = (link.server, link.is_observer);
        if leader.stage != LeaderStage::AwaitingEpochAcks {
            return self.synchronize_learner(id, now);
        }
        if let Some(current_epoch) = current_epoch
            && !is_observer
        {
            let is_better = (current_epoch, last_zxid) > own;
            if is_better && !mutation::is_on(Mutation::M10) {
                warn!(server = ?server, %current_epoch, %last_zxid, "a follower has more than its leader; letting it go");
                return self.drop_link(id);
            }
            leader.epoch_acks.extend(server);
        }
        self.synchronize_if_epoch_accepted(now);
    }

    /// Once a quorum has accepted the epoch, everyone is brought up to the leader's history.
    fn synchronize_if_epoch_accepted(&mut self, now: Instant) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        if leader.stage != LeaderStage::AwaitingEpochAcks
            || !self.settings.quorum.is_reached_by(leader.epoch_acks.iter().copied())
        {
            return;
        }
        leader.stage = LeaderStage::AwaitingLeaderAcks;
        let epoch = leader.epoch;
        info!(%epoch, zxid = %self.history.last(), "a quorum accepts the epoch");
        let links: Vec<_> = leader.links.keys().copied().collect();
        self.timers.set(Timer::Patience, now + self.settings.tick * self.settings.init_limit);
        self.write_current_epoch(epoch);
        for link in links {
            self.synchronize_learner(link, now);
        }
        if mutation::is_on(Mutation::M5) {
            self.establish(now);
        }
    }

    /// Closes a learner's connection and forgets it.
    pub(super) fn drop_link(&mut self, id: LinkId) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        if leader.links.remove(&id).is_some() {
            self.out.push_back(Output::CloseLink(id));
        }
    }
}

/// Learners that may wait while nobody leads here.
const PARKED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::zab::{Input, Notification, PeerSettings, Quorum, Recovery, ServerState, Vote};

    fn server(id: u8) -> ServerId {
        ServerId::new(id).unwrap()
    }

    /// The first of three, with the newest txn, which the others have elected, and what it has asked for since.
    struct World {
        peer: Peer,
        now: Instant,
        asked: Vec<Output>,
    }

    impl World {
        fn elected(accepted_epoch: Epoch) -> Self {
            let now = crate::clock::now();
            let zxid = Zxid::new(Epoch(2), 1);
            let tail = vec![Entry { zxid, payload: Bytes::new() }];
            let current_epoch = Some(Epoch(2));
            let recovery = Recovery { tail, accepted_epoch, current_epoch, ..Recovery::default() };
            let settings = PeerSettings::new(server(1), Quorum::majority_of([1, 2, 3].map(server)));
            let mut world = Self { peer: Peer::new(settings, recovery, now), now, asked: Vec::new() };
            let vote = Some(Vote { epoch: Epoch(2), zxid, leader: server(1) });
            for from in [2, 3] {
                let state = ServerState::Looking;
                let message = Notification { state, round: 1, vote, config: Bytes::new() };
                world.handle(Input::Notification(server(from), message));
            }
            assert!(matches!(world.peer.phase, Phase::Leading(_)), "it is elected");
            world
        }

        fn handle(&mut self, input: Input) {
            self.peer.handle(self.now, input);
            self.asked.extend(std::iter::from_fn(|| self.peer.poll_output()));
        }

        fn introduce(&mut self, id: u8, accepted_epoch: Epoch) {
            let (link, info) = (LinkId(id.into()), LearnerInfo { accepted_epoch, server: Some(server(id)) });
            self.handle(Input::Accepted(link));
            self.handle(Input::Packet(link, Packet::FollowerInfo(info)));
        }

        fn is_closed(&self, id: u8) -> bool {
            let is_its =
                |output: &Output| matches!(output, Output::CloseLink(link) if *link == LinkId(id.into()));
            self.asked.iter().any(is_its)
        }

        fn proposed(&self) -> Option<Epoch> {
            self.asked.iter().find_map(|output| {
                if let Output::SetAcceptedEpoch(epoch) = output { Some(*epoch) } else { None }
            })
        }
    }

    #[test]
    fn who_has_accepted_an_epoch_that_none_can_follow_does_not_take_the_others_along() {
        for wrong in [Epoch::MAX, Epoch(0x7fff_fffe), Epoch(0x7fff_ffff), Epoch(u32::MAX)] {
            let mut world = World::elected(Epoch(2));
            world.introduce(2, wrong);
            assert_eq!((world.is_closed(2), world.proposed()), (true, None), "{wrong}");
            world.introduce(3, Epoch(4));
            assert_eq!((world.is_closed(3), world.proposed()), (false, Some(Epoch(5))), "{wrong}");
            world.introduce(2, wrong);
            assert!(matches!(world.peer.phase, Phase::Leading(_)), "nor does it end what the others have");
        }
    }

    #[test]
    fn nobody_leads_an_epoch_that_zxids_could_not_order() {
        let mut world = World::elected(Epoch::MAX);
        world.introduce(2, Epoch(2));
        assert_eq!(world.proposed(), None);
        let mut world = World::elected(Epoch(Epoch::MAX.0 - 1));
        world.introduce(2, Epoch(2));
        assert_eq!(world.proposed(), Some(Epoch::MAX));
    }
}
