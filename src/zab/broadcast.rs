//! Phase 3 at the leader: proposals go out in order and are committed in order.
//!
//! Besides: pings, by which leader and learners know of one another that they are there, and by whose answers a sync knows
//! that a quorum still follows this leader, so that nobody else can have committed anything.
//!
//! Source: `Leader.java` (`propose`, `processAck`, `tryToCommit`, `processSync`, the loop of `lead`) of Apache ZooKeeper. There a
//! sync asks nobody (ZOOKEEPER-1675); a round of pings is the same on the wire.

use std::collections::VecDeque;
use std::time::Instant;

use tracing::warn;

use super::discovery::{LeaderStage, LearnerLink, LinkStage};
use super::mutation::{self, Mutation};
use super::peer::{Peer, Phase};
use super::timer::Timer;
use super::{Entry, Event, LinkId, Output, Packet};
use crate::id::{ServerId, Zxid};

/// A leader's proposals and syncs.
#[derive(Clone, Debug)]
pub(super) struct Broadcast {
    last_proposed: Zxid,
    /// Up to where this leader's own log is durable.
    acked: Zxid,
    /// The last round of pings.
    round: u64,
    syncs: VecDeque<Sync>,
}

/// Whose sync it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncOrigin {
    /// A client of this member.
    Own,
    /// A client of a learner.
    Learner(LinkId),
}

/// A sync that waits.
#[derive(Clone, Debug)]
struct Sync {
    origin: SyncOrigin,
    /// For this to be committed.
    after: Zxid,
    /// For a quorum to answer this round of pings, once it is begun.
    round: Option<u64>,
}

impl Broadcast {
    pub(super) const fn new(committed: Zxid) -> Self {
        Self { last_proposed: committed, acked: Zxid::ZERO, round: 0, syncs: VecDeque::new() }
    }

    /// A reign begins, whose first proposal comes after `beginning`.
    pub(super) const fn begin(&mut self, beginning: Zxid) {
        self.last_proposed = beginning;
    }
}

impl Peer {
    /// The zxid that the next proposal must have; `None` when this member does not lead, or its epoch is used up.
    pub fn next_zxid(&self) -> Option<Zxid> {
        match &self.phase {
            Phase::Leading(leader) if leader.stage == LeaderStage::Broadcasting => {
                leader.broadcast.last_proposed.next()
            }
            Phase::Leading(_) | Phase::Learning(_) | Phase::Looking(_) | Phase::Draining => None,
        }
    }

    /// Proposes an entry.
    ///
    /// # Panics
    ///
    /// When this member does not lead, or the zxid is not the next one.
    pub fn propose(&mut self, entry: Entry) {
        assert_eq!(Some(entry.zxid), self.next_zxid(), "a leader proposes without gaps");
        let Phase::Leading(leader) = &mut self.phase else { return };
        leader.broadcast.last_proposed = entry.zxid;
        for (id, link) in &leader.links {
            if link.is_forwarding() && !link.is_observer {
                self.out.push_back(Output::Send(*id, Packet::Proposal(entry.clone())));
            }
        }
        self.history.append(entry.clone());
        self.out.push_back(Output::Append(entry.clone()));
        if mutation::is_on(Mutation::M3) {
            leader.broadcast.acked = entry.zxid;
            self.commit_what_is_acked();
        }
    }

    /// A follower holds everything up to `zxid` durably.
    pub(super) fn on_ack(&mut self, id: LinkId, zxid: Zxid, now: Instant) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        if zxid.counter() == 0 {
            if zxid == Zxid::new(leader.epoch, 0) {
                self.on_new_leader_acked(id, now);
            }
            return;
        }
        let last_proposed = leader.broadcast.last_proposed;
        let Some(link) = leader.links.get_mut(&id) else { return };
        // Acks of what belongs to its history only say what NEWLEADER's will say.
        if zxid.epoch() != leader.epoch && !mutation::is_on(Mutation::M25) {
            return;
        }
        if zxid > last_proposed || link.is_observer {
            warn!(server = ?link.server, %zxid, %last_proposed, "dropping a learner that acknowledges what it cannot have");
            return self.drop_link(id);
        }
        link.acked = link.acked.max(zxid);
        self.commit_what_is_acked();
    }

    /// This leader's own log is durable up to `zxid`.
    pub(super) fn on_own_ack(&mut self, zxid: Zxid) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        if zxid.epoch() == leader.epoch || mutation::is_on(Mutation::M25) {
            leader.broadcast.acked = zxid;
        }
        self.commit_what_is_acked();
    }

    /// Commits, in order, what a quorum holds.
    pub(super) fn commit_what_is_acked(&mut self) {
        let me = self.settings.server_id;
        let Phase::Leading(leader) = &self.phase else { return };
        if leader.stage != LeaderStage::Broadcasting {
            return;
        }
        let acked_by = |server: ServerId| {
            if server == me {
                return Some(leader.broadcast.acked);
            }
            // Only who has accepted this leader holds what comes before, too.
            let is_accepted = |link: &&LearnerLink| {
                link.server == Some(server) && matches!(link.stage, LinkStage::Accepted | LinkStage::UpToDate)
            };
            leader.links.values().filter(is_accepted).map(|link| link.acked).max()
        };
        let agreed = if mutation::is_on(Mutation::M2) {
            self.settings.quorum.voters().filter_map(acked_by).max()
        } else {
            self.settings.quorum.agreed(acked_by)
        };
        let Some(agreed) = agreed.filter(|agreed| *agreed > self.history.committed()) else { return };
        self.deliver_up_to(agreed);
        self.answer_syncs();
    }

    /// Delivers what is committed, and tells the learners.
    pub(super) fn deliver_up_to(&mut self, zxid: Zxid) {
        while let Some(entry) = self.history.commit_next(zxid) {
            if let Phase::Leading(leader) = &mut self.phase
                && leader.stage == LeaderStage::Broadcasting
            {
                for (id, link) in leader.links.iter_mut().filter(|(_, link)| link.is_forwarding()) {
                    // Between NEWLEADER and UPTODATE a commit would throw Apache's followers off (ZOOKEEPER-4394).
                    let is_early = link.stage != LinkStage::UpToDate && !link.is_observer;
                    if is_early || link.must_wait(entry.zxid) {
                        link.held.push_back(entry.clone());
                    } else {
                        self.out.push_back(Output::Send(*id, link.commit_of(entry.clone())));
                    }
                }
            }
            self.out.push_back(Output::Event(Event::Deliver(entry)));
        }
    }

    /// Waits until everything proposed so far is committed and a quorum has said that it still follows.
    pub(super) fn sync(&mut self, origin: SyncOrigin) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        let after = leader.broadcast.last_proposed;
        leader.broadcast.syncs.push_back(Sync { origin, after, round: None });
        if let SyncOrigin::Learner(link) = origin
            && let Some(link) = leader.links.get_mut(&link)
        {
            link.syncs.push_back(after);
        }
        self.answer_syncs();
    }

    /// Begins a round for the syncs that wait, unless one is under way, whose followers share the next.
    fn begin_sync_round(&mut self) -> bool {
        let Phase::Leading(leader) = &self.phase else { return false };
        let syncs = &leader.broadcast.syncs;
        if syncs.is_empty() || syncs.iter().any(|sync| sync.round.is_some()) {
            return false;
        }
        let round = self.ping();
        let Phase::Leading(leader) = &mut self.phase else { return false };
        for sync in &mut leader.broadcast.syncs {
            sync.round = Some(round);
        }
        true
    }

    /// Pings every learner; returns the number of the round.
    fn ping(&mut self) -> u64 {
        let Phase::Leading(leader) = &mut self.phase else { return 0 };
        leader.broadcast.round += 1;
        let (round, zxid) = (leader.broadcast.round, leader.broadcast.last_proposed);
        for (id, link) in leader.links.iter_mut().filter(|(_, link)| link.stage == LinkStage::UpToDate) {
            link.pings.push_back(round);
            self.out.push_back(Output::Send(*id, Packet::Ping(zxid)));
        }
        round
    }

    /// A learner has answered its oldest ping.
    pub(super) fn on_pong(&mut self, id: LinkId) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        let Some(link) = leader.links.get_mut(&id) else { return };
        let Some(round) = link.pings.pop_front() else { return };
        link.answered = round;
        self.answer_syncs();
    }

    /// Answers the syncs that have waited long enough, in their order, and sees to the others.
    fn answer_syncs(&mut self) {
        self.answer_confirmed_syncs();
        while self.begin_sync_round() {
            self.answer_confirmed_syncs();
        }
    }

    fn answer_confirmed_syncs(&mut self) {
        let me = self.settings.server_id;
        let committed = self.history.committed();
        let Phase::Leading(leader) = &mut self.phase else { return };
        let own_round = leader.broadcast.round;
        let confirmed = self.settings.quorum.agreed(|server| {
            if server == me {
                return Some(own_round);
            }
            leader.links.values().filter(|link| link.server == Some(server)).map(|link| link.answered).max()
        });
        while let Some(sync) = leader.broadcast.syncs.front()
            && (sync.after <= committed || sync.after.counter() == 0)
            && sync.round.is_some_and(|round| confirmed.is_some_and(|confirmed| round <= confirmed))
        {
            match sync.origin {
                SyncOrigin::Own => self.out.push_back(Output::Event(Event::Synced)),
                SyncOrigin::Learner(id) => {
                    if let Some(link) = leader.links.get_mut(&id) {
                        link.syncs.pop_front();
                        self.out.push_back(Output::Send(id, Packet::Sync));
                        self.out.extend(link.take_released().map(|packet| Output::Send(id, packet)));
                    }
                }
            }
            leader.broadcast.syncs.pop_front();
        }
    }

    /// Half a tick was over at `due`: pings go out; after a whole one, a quorum must have been heard of lately. Who looks late was
    /// away, and may have been replaced meanwhile.
    pub(super) fn on_half_tick(&mut self, due: Instant, now: Instant) {
        self.timers.set(Timer::HalfTick, now + self.settings.tick / 2);
        let me = self.settings.server_id;
        let limit = self.settings.tick * self.settings.sync_limit;
        let init_limit = self.settings.tick * self.settings.init_limit;
        let Phase::Leading(leader) = &mut self.phase else { return };
        let last_proposed = leader.broadcast.last_proposed;
        let mut silent = Vec::new();
        for (id, link) in &mut leader.links {
            let patience = if link.stage == LinkStage::UpToDate { limit } else { init_limit + limit };
            let is_silent = now.saturating_duration_since(link.heard) > patience;
            if is_silent || link.is_behind(last_proposed, now, limit) {
                silent.push(*id);
            }
        }
        for id in silent {
            warn!(link = id.0, "dropping a learner that is silent, or too slow to log what is proposed");
            self.drop_link(id);
        }
        let Phase::Leading(leader) = &mut self.phase else { return };
        if leader.stage != LeaderStage::Broadcasting {
            return;
        }
        leader.half_ticks += 1;
        let heard = leader
            .links
            .values()
            .filter(|link| link.is_forwarding() && now.saturating_duration_since(link.heard) <= limit);
        let heard = heard.filter_map(|link| link.server).chain([me]);
        let has_quorum = self.settings.quorum.is_reached_by(heard) || mutation::is_on(Mutation::M23);
        let is_late = now.saturating_duration_since(due) > self.settings.tick;
        if !has_quorum && (is_late || leader.half_ticks.is_multiple_of(2)) {
            return self.lose("no quorum follows any more", now);
        }
        self.ping();
    }
}

impl LearnerLink {
    /// Whether a commit must wait for the answer to a sync. An Apache learner finds its clients' requests again in the one
    /// order in which it passed them on: a write that came behind a sync may not be committed there before the sync is answered.
    fn must_wait(&self, zxid: Zxid) -> bool {
        !self.held.is_empty() || self.syncs.front().is_some_and(|after| zxid > *after)
    }

    /// Takes the commits that waited and need not any more.
    pub(super) fn take_released(&mut self) -> impl Iterator<Item = Packet> + use<> {
        let after = self.syncs.front().copied();
        let released =
            self.held.iter().take_while(|entry| after.is_none_or(|after| entry.zxid <= after)).count();
        let released: Vec<_> = self.held.drain(..released).collect();
        let is_observer = self.is_observer;
        released.into_iter().map(move |entry| commit_packet(entry, is_observer))
    }

    /// How this learner is told that an entry is committed.
    fn commit_of(&self, entry: Entry) -> Packet {
        commit_packet(entry, self.is_observer)
    }

    /// Whether a follower has not logged for longer than `limit` what was proposed then. Before it has acknowledged NEWLEADER it
    /// acknowledges nothing, and has the time that synchronization may take; source: `SyncLimitCheck` in `LearnerHandler.java`.
    fn is_behind(&mut self, last_proposed: Zxid, now: Instant, limit: std::time::Duration) -> bool {
        let is_accepted = matches!(self.stage, LinkStage::Accepted | LinkStage::UpToDate);
        if self.is_observer || !is_accepted || last_proposed.counter() == 0 {
            return false;
        }
        match self.oldest_unacked {
            Some((zxid, since)) if self.acked < zxid => now.saturating_duration_since(since) > limit,
            Some(_) | None => {
                self.oldest_unacked = (self.acked < last_proposed).then_some((last_proposed, now));
                false
            }
        }
    }
}

/// Followers have the proposal; observers hear of it only now.
fn commit_packet(entry: Entry, is_observer: bool) -> Packet {
    if is_observer { Packet::Inform(entry) } else { Packet::Commit(entry.zxid) }
}
