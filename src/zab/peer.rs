//! One member's part in the protocol: which phase it is in, and what it has promised on disk.
//!
//! ```text
//!   Draining ─► Looking ──┬─► Learning ─┐        Input ─► handle ─► Output, in order
//!      ▲                  └─► Leading ──┤
//!      └────────── lose ◄───────────────┘
//! ```
//!
//! A member votes only once its disk has caught up (Draining): the vote names what is durable, and nothing that was
//! asked of the disk before can come to pass after (ZOOKEEPER-4712, 4541).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::broadcast::SyncOrigin;
use super::discovery::{Leader, LeaderStage, LinkStage};
use super::election::{Decision, Election, Means};
use super::history::History;
use super::learner::{Learner, Stage};
use super::timer::{Timer, Timers};
use super::{
    Event, ForwardedRequest, Input, LinkId, Notification, Output, Packet, PeerSettings, Recovery,
    ServerState, Vote,
};
use crate::id::{Epoch, ServerId, SessionId, Zxid};

/// A member of the ensemble, without anything that the entries mean.
///
/// Invariants, checked after every input: the current epoch is at most the accepted one, no entry is of a later epoch than the
/// accepted one, zxids grow without gaps, what is committed was logged.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(super) settings: PeerSettings,
    pub(super) history: History,
    /// Up to which epoch it follows nobody older; on disk.
    pub(super) accepted_epoch: Epoch,
    /// The epoch that its history belongs to; on disk.
    pub(super) current_epoch: Epoch,
    /// Whether it was ever brought up to a leader's whole history.
    is_synchronized: bool,
    /// Epochs that are being written down.
    epoch_writes: u32,
    is_reloading: bool,
    round: u64,
    /// Its vote of the last election, as it tells those who come later.
    pub(super) vote: Option<Vote>,
    reachable: BTreeSet<ServerId>,
    /// Learners that connected while nobody led here, with their first packets.
    pub(super) parked: BTreeMap<LinkId, Option<Packet>>,
    pub(super) attempts: u64,
    pub(super) phase: Phase,
    pub(super) timers: Timers,
    pub(super) out: VecDeque<Output>,
}

/// What the member is doing.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// It waits for its disk, to vote.
    Draining,
    /// It looks for a leader.
    Looking(Election),
    /// It has one.
    Learning(Learner),
    /// It is one.
    Leading(Leader),
}

impl Peer {
    /// A member over what its disk held. It looks for a leader at once.
    pub fn new(settings: PeerSettings, recovery: Recovery, now: Instant) -> Self {
        let history = History::new(Zxid::ZERO, Vec::new(), settings.window_entries);
        let mut peer = Self {
            settings,
            history,
            accepted_epoch: Epoch(0),
            current_epoch: Epoch(0),
            is_synchronized: false,
            epoch_writes: 0,
            is_reloading: false,
            round: 0,
            vote: None,
            reachable: BTreeSet::new(),
            parked: BTreeMap::new(),
            attempts: 0,
            phase: Phase::Draining,
            timers: Timers::default(),
            out: VecDeque::new(),
        };
        peer.take_recovery(recovery);
        peer.vote_if_drained(now);
        peer
    }

    /// Takes one input.
    ///
    /// # Panics
    ///
    /// When an invariant is broken: better to stop than to acknowledge a lie.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Notification(from, message) => self.on_notification(from, &message, now),
            Input::Reachable(peer, is_reachable) => self.on_reachable(peer, is_reachable, now),
            Input::Accepted(link) => self.on_accepted(link, now),
            Input::Dialled { attempt, link } => self.on_dialled(attempt, link, now),
            Input::LinkClosed(link) => self.on_link_closed(link, now),
            Input::Packet(link, packet) => self.on_packet(link, packet, now),
            Input::Progress(link) => self.on_progress(link, now),
            Input::SnapshotReceived(link, body) => self.on_snapshot_received(link, body, now),
            Input::Durable(zxid) => self.on_durable(zxid, now),
            Input::AcceptedEpochDurable(epoch) => self.on_accepted_epoch_durable(epoch, now),
            Input::CurrentEpochDurable(epoch) => self.on_current_epoch_durable(epoch, now),
            Input::Reloaded(recovery) => self.on_reloaded(recovery, now),
            Input::LogRead { link, entries } => self.on_log_read(link, entries, now),
        }
        self.check_lag(now);
        self.check_invariants();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((timer, due)) = self.timers.take_due(now) {
            match timer {
                Timer::Resend => self.with_election(now, |election, means| {
                    election.on_resend(means);
                    None
                }),
                Timer::Finalize => {
                    self.with_election(now, |election, means| election.on_finalize(means));
                }
                Timer::Redial => self.dial(),
                Timer::Patience => self.on_patience(now),
                Timer::HalfTick => self.on_half_tick(due, now),
                Timer::Parked => self.close_parked(),
            }
        }
        self.check_invariants();
    }

    /// When [`Peer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What the member is doing, as it tells others.
    pub fn state(&self) -> ServerState {
        match &self.phase {
            Phase::Draining | Phase::Looking(_) => ServerState::Looking,
            Phase::Leading(_) => ServerState::Leading,
            Phase::Learning(_) if self.is_observer() => ServerState::Observing,
            Phase::Learning(_) => ServerState::Following,
        }
    }

    /// The leader, while there is one with a quorum behind it, and its epoch.
    pub fn leader(&self) -> Option<(ServerId, Epoch)> {
        match &self.phase {
            Phase::Leading(leader) if leader.stage == LeaderStage::Broadcasting => {
                Some((self.settings.server_id, leader.epoch))
            }
            Phase::Learning(learner) if learner.stage == Stage::Broadcasting => {
                Some((learner.leader, self.current_epoch))
            }
            Phase::Draining | Phase::Looking(_) | Phase::Learning(_) | Phase::Leading(_) => None,
        }
    }

    /// Whether this member leads, with a quorum behind it.
    pub fn is_leading(&self) -> bool {
        self.leader().is_some_and(|(leader, _)| leader == self.settings.server_id)
    }

    /// The last entry of the log, committed or not.
    pub fn last_zxid(&self) -> Zxid {
        self.history.last()
    }

    /// The last entry that was delivered.
    pub const fn committed(&self) -> Zxid {
        self.history.committed()
    }

    /// The last entry that is durable here.
    pub const fn durable(&self) -> Zxid {
        self.history.durable()
    }

    /// Entries that are logged and not known to be committed.
    pub fn outstanding(&self) -> usize {
        self.history.tail().len()
    }

    /// The epochs on disk: accepted and current.
    pub const fn epochs(&self) -> (Epoch, Epoch) {
        (self.accepted_epoch, self.current_epoch)
    }

    /// Learners that this leader has brought up to date: how many, and how many of them vote.
    pub fn learners(&self) -> (usize, usize) {
        let Phase::Leading(leader) = &self.phase else { return (0, 0) };
        let learners = leader.links.values().filter(|link| link.stage == LinkStage::UpToDate);
        let (mut all, mut voting) = (0, 0);
        for learner in learners {
            all += 1;
            voting += usize::from(!learner.is_observer);
        }
        (all, voting)
    }

    /// Whether this is the connection to the leader that this member has, or is about to have.
    pub fn is_leader_link(&self, link: LinkId) -> bool {
        matches!(&self.phase, Phase::Learning(learner) if learner.link == Some(link))
    }

    /// Passes a request on to the leader; a learner's.
    pub fn forward(&mut self, request: ForwardedRequest) {
        self.send_leader(Packet::Request(request));
    }

    /// Asks the leader whether a session may go on here; a learner's.
    pub fn revalidate(&mut self, session: SessionId, timeout_ms: i32) {
        self.send_leader(Packet::Revalidate { session, timeout_ms });
    }

    /// Answers [`Event::Pinged`] with the sessions that were heard of.
    pub fn answer_ping(&mut self, zxid: Zxid, touched: Vec<(SessionId, i32)>) {
        self.send_leader(Packet::Pong { zxid, touched });
    }

    /// Answers [`Event::Revalidate`]; the leader's.
    pub fn answer_revalidate(&mut self, link: LinkId, session: SessionId, is_valid: bool) {
        self.out.push_back(Output::Send(link, Packet::Revalidated { session, is_valid }));
    }

    /// Says [`Event::Synced`] once everything proposed so far is committed and a quorum is known to follow still; the
    /// leader's.
    pub fn sync_own(&mut self) {
        self.sync(SyncOrigin::Own);
    }

    /// The same for a learner's client; the learner is told.
    pub fn sync_learner(&mut self, link: LinkId) {
        self.sync(SyncOrigin::Learner(link));
    }

    /// Gives up leading or following, and looks for a leader again.
    pub fn resign(&mut self, why: &'static str, now: Instant) {
        self.lose(why, now);
    }

    /// As if everything up to `zxid` had been proposed and committed.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, zxid: Zxid) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        leader.broadcast.begin(zxid);
        self.history = History::new(zxid, Vec::new(), self.settings.window_entries);
    }

    pub(super) fn is_observer(&self) -> bool {
        !self.settings.quorum.is_voter(self.settings.server_id)
    }

    /// Whether this member has no say: it was never part of an ensemble, or cannot know. What a first synchronization that was cut
    /// short has left in the log may be less than what the member had acknowledged before its disk was lost.
    pub(super) fn is_blank(&self) -> bool {
        let has_nothing = self.current_epoch == Epoch(0) && self.history.last() == Zxid::ZERO;
        has_nothing || !self.is_synchronized
    }

    /// The epoch that speaks for this member's history: none as long as the log is empty. An epoch that began with nothing is
    /// no reason to prefer having nothing, and all who have nothing are to be alike, so that a first start that was
    /// interrupted can be told from a history that somebody has.
    pub(super) fn epoch_of_history(&self) -> Epoch {
        if self.history.last() == Zxid::ZERO { Epoch(0) } else { self.current_epoch }
    }

    /// Starts from what the disk holds, and delivers what of it is known to be committed. A log without any epoch is that of a server that ran alone: its epochs are those of the
    /// history, as in Apache, and are written down.
    pub(super) fn take_recovery(&mut self, recovery: Recovery) {
        let Recovery { snapshot, tail, committed, accepted_epoch, current_epoch } = recovery;
        self.history = History::new(snapshot, tail, self.settings.window_entries);
        self.deliver_up_to(committed);
        let last = self.history.last();
        // Apache's members write 0 at their first start, before they have got anything.
        self.is_synchronized |=
            current_epoch.is_some_and(|epoch| epoch > Epoch(0) || last.epoch() == Epoch(0));
        self.current_epoch = self.current_epoch.max(current_epoch.unwrap_or_default());
        self.accepted_epoch = self.accepted_epoch.max(accepted_epoch).max(self.current_epoch);
        if !self.is_synchronized && self.accepted_epoch == Epoch(0) && last > Zxid::ZERO {
            self.is_synchronized = true;
            (self.accepted_epoch, self.current_epoch) = (last.epoch(), last.epoch());
            // In this order: who has accepted an epoch, and does not know which it belongs to, has no say.
            self.write_current_epoch(last.epoch());
            self.write_accepted_epoch(last.epoch());
        }
        self.is_reloading = false;
    }

    pub(super) fn write_accepted_epoch(&mut self, epoch: Epoch) {
        self.epoch_writes += 1;
        self.out.push_back(Output::SetAcceptedEpoch(epoch));
    }

    pub(super) fn write_current_epoch(&mut self, epoch: Epoch) {
        self.epoch_writes += 1;
        self.out.push_back(Output::SetCurrentEpoch(epoch));
    }

    /// Leaves whatever it was part of, and looks for a leader once the disk has caught up.
    pub(super) fn lose(&mut self, why: &'static str, now: Instant) {
        self.timers.stop_phase();
        match std::mem::replace(&mut self.phase, Phase::Draining) {
            Phase::Draining | Phase::Looking(_) => {}
            Phase::Learning(learner) => {
                info!(leader = %learner.leader, stage = ?learner.stage, why, "looking for a leader");
                self.is_reloading = matches!(learner.stage, Stage::Reloading(_));
                if let Some(link) = learner.link {
                    self.out.push_back(Output::CloseLink(link));
                }
                self.out.push_back(Output::Event(Event::Lost));
            }
            Phase::Leading(leader) => {
                warn!(epoch = %leader.epoch, stage = ?leader.stage, why, "giving up leadership");
                for link in leader.links.into_keys() {
                    self.out.push_back(Output::CloseLink(link));
                }
                self.out.push_back(Output::Event(Event::Lost));
            }
        }
        self.vote_if_drained(now);
    }

    /// Starts an election, if nothing that was asked of the disk is left to come.
    pub(super) fn vote_if_drained(&mut self, now: Instant) {
        let is_drained = self.history.is_durable() && self.epoch_writes == 0 && !self.is_reloading;
        if !matches!(self.phase, Phase::Draining) || !is_drained {
            return;
        }
        self.round += 1;
        let (epoch, zxid, is_blank) = (self.epoch_of_history(), self.history.last(), self.is_blank());
        debug!(round = self.round, %epoch, %zxid, is_blank, "looking for a leader");
        let mut means = Means {
            settings: &self.settings,
            reachable: &self.reachable,
            timers: &mut self.timers,
            out: &mut self.out,
            now,
        };
        let (election, decision) = Election::start(self.round, epoch, zxid, is_blank, &mut means);
        self.phase = Phase::Looking(election);
        self.take_decision(decision, now);
    }

    fn with_election(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Election, &mut Means<'_>) -> Option<Decision>,
    ) {
        let Phase::Looking(election) = &mut self.phase else { return };
        let mut means = Means {
            settings: &self.settings,
            reachable: &self.reachable,
            timers: &mut self.timers,
            out: &mut self.out,
            now,
        };
        let decision = act(election, &mut means);
        self.round = election.round();
        self.take_decision(decision, now);
    }

    fn take_decision(&mut self, decision: Option<Decision>, now: Instant) {
        let Some(Decision { vote, round }) = decision else { return };
        self.round = round;
        self.vote = Some(vote);
        let has_say = matches!(&self.phase, Phase::Looking(election) if election.has_say());
        self.timers.stop_phase();
        info!(leader = %vote.leader, round, epoch = %vote.epoch, zxid = %vote.zxid, "elected");
        if vote.leader == self.settings.server_id {
            self.lead(now);
        } else {
            self.close_parked();
            self.learn_from(vote.leader, has_say, now);
        }
    }

    fn on_notification(&mut self, from: ServerId, message: &Notification, now: Instant) {
        if from == self.settings.server_id {
            return;
        }
        if self.settings.quorum.is_voter(from)
            && let Phase::Looking(_) = &self.phase
        {
            return self.with_election(now, |election, means| election.on_notification(from, message, means));
        }
        // Whoever looks for a leader is told; one that only listens, even while there is none. One that waits for its disk has
        // nothing to say yet: two that answered each other then would never stop.
        if message.state == ServerState::Looking && !matches!(self.phase, Phase::Draining) {
            let reply = self.current_notification();
            self.out.push_back(Output::SendVote(from, reply));
        }
    }

    fn current_notification(&self) -> Notification {
        if let Phase::Looking(election) = &self.phase {
            return election.notification(&self.settings);
        }
        Notification {
            state: self.state(),
            round: self.round,
            vote: self.vote,
            config: self.settings.config.clone(),
        }
    }

    fn on_reachable(&mut self, peer: ServerId, is_reachable: bool, now: Instant) {
        if is_reachable {
            self.reachable.insert(peer);
        } else {
            self.reachable.remove(&peer);
        }
        self.with_election(now, |election, means| election.on_reachable(peer, is_reachable, means));
    }

    fn on_link_closed(&mut self, link: LinkId, now: Instant) {
        self.parked.remove(&link);
        match &mut self.phase {
            Phase::Learning(learner) if learner.link == Some(link) => self.on_leader_gone(now),
            Phase::Leading(leader) => {
                leader.links.remove(&link);
            }
            Phase::Learning(_) | Phase::Looking(_) | Phase::Draining => {}
        }
    }

    fn on_progress(&mut self, link: LinkId, now: Instant) {
        match &mut self.phase {
            Phase::Learning(learner) if learner.link == Some(link) => learner.heard = now,
            Phase::Leading(leader) => {
                if let Some(link) = leader.links.get_mut(&link) {
                    link.heard = now;
                }
            }
            Phase::Learning(_) | Phase::Looking(_) | Phase::Draining => {}
        }
    }

    fn on_packet(&mut self, link: LinkId, packet: Packet, now: Instant) {
        match &mut self.phase {
            Phase::Learning(learner) if learner.link == Some(link) => self.on_leader_packet(packet, now),
            Phase::Leading(leader) if leader.links.contains_key(&link) => {
                self.on_learner_packet(link, packet, now);
            }
            Phase::Draining | Phase::Looking(_) | Phase::Learning(_) | Phase::Leading(_) => {
                if let Some(parked) = self.parked.get_mut(&link) {
                    *parked = Some(packet);
                }
            }
        }
    }

    pub(super) fn on_learner_packet(&mut self, id: LinkId, packet: Packet, now: Instant) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        let is_established = leader.stage == LeaderStage::Broadcasting;
        let Some(link) = leader.links.get_mut(&id) else { return };
        link.heard = now;
        let is_served = is_established && link.stage == LinkStage::UpToDate;
        match packet {
            Packet::FollowerInfo(info) => self.on_learner_info(id, info, false, now),
            Packet::ObserverInfo(info) => self.on_learner_info(id, info, true, now),
            Packet::AckEpoch { last_zxid, current_epoch } => {
                self.on_ack_epoch(id, last_zxid, current_epoch, now);
            }
            Packet::Ack(zxid) => self.on_ack(id, zxid, now),
            Packet::Pong { touched, .. } => {
                if is_served {
                    self.out.push_back(Output::Event(Event::Touched(touched)));
                }
                self.on_pong(id);
            }
            // The answer to a ping that lists nothing.
            Packet::Ping(_) => self.on_pong(id),
            Packet::Request(request) if is_served => {
                self.out.push_back(Output::Event(Event::Request(id, request)));
            }
            Packet::Revalidate { session, timeout_ms } if is_served => {
                self.out.push_back(Output::Event(Event::Revalidate { link: id, session, timeout_ms }));
            }
            Packet::Other(kind) => debug!(kind, "ignoring a packet of an unknown type"),
            Packet::Request(_)
            | Packet::Revalidate { .. }
            | Packet::Proposal(_)
            | Packet::Commit(_)
            | Packet::Revalidated { .. }
            | Packet::Sync
            | Packet::Inform(_)
            | Packet::NewLeader { .. }
            | Packet::UpToDate
            | Packet::Diff(_)
            | Packet::Trunc(_)
            | Packet::Snap(_)
            | Packet::LeaderInfo(_) => {
                warn!(link = id.0, server = ?link.server, "dropping a learner that says what it may not");
                self.drop_link(id);
            }
        }
    }

    fn on_durable(&mut self, zxid: Zxid, now: Instant) {
        self.history.on_durable(zxid);
        match &self.phase {
            Phase::Leading(_) => self.on_own_ack(zxid),
            Phase::Learning(_) => self.ack_up_to(zxid),
            Phase::Draining => self.vote_if_drained(now),
            Phase::Looking(_) => {}
        }
    }

    /// What the others commit without this member's disk waits for it in memory: within bounds.
    fn check_lag(&mut self, now: Instant) {
        let has_leader = matches!(self.phase, Phase::Learning(_) | Phase::Leading(_));
        if has_leader && self.history.lag_bytes() > self.settings.lag_bytes_max {
            let lag_bytes = self.history.lag_bytes();
            warn!(lag_bytes, "the disk does not keep up with what the other members commit");
            self.lose("its disk is too far behind", now);
        }
    }

    fn on_accepted_epoch_durable(&mut self, epoch: Epoch, now: Instant) {
        self.epoch_writes -= 1;
        self.accepted_epoch = self.accepted_epoch.max(epoch);
        match &self.phase {
            Phase::Leading(_) => self.on_own_epoch_accepted(now),
            Phase::Learning(_) => self.on_epoch_accepted(),
            Phase::Draining => self.vote_if_drained(now),
            Phase::Looking(_) => {}
        }
    }

    fn on_current_epoch_durable(&mut self, epoch: Epoch, now: Instant) {
        self.epoch_writes -= 1;
        self.current_epoch = self.current_epoch.max(epoch);
        self.is_synchronized = true;
        match &self.phase {
            Phase::Leading(_) => self.on_own_epoch_adopted(now),
            Phase::Learning(_) => self.on_epoch_adopted(now),
            Phase::Draining => self.vote_if_drained(now),
            Phase::Looking(_) => {}
        }
    }

    fn on_patience(&mut self, now: Instant) {
        match &self.phase {
            Phase::Leading(leader) if leader.stage != LeaderStage::Broadcasting => {
                self.lose("no quorum has accepted this leader in time", now);
            }
            Phase::Learning(_) => self.on_learner_patience(now),
            Phase::Leading(_) | Phase::Looking(_) | Phase::Draining => {}
        }
    }

    pub(super) fn close_parked(&mut self) {
        self.timers.stop(Timer::Parked);
        for link in std::mem::take(&mut self.parked).into_keys() {
            self.out.push_back(Output::CloseLink(link));
        }
    }

    /// Asserts what must hold between inputs.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn check_invariants(&self) {
        self.history.check_invariants();
        if cfg!(rollcall_mutations) {
            return;
        }
        assert!(
            self.current_epoch <= self.accepted_epoch,
            "nobody belongs to an epoch that he has not accepted"
        );
        assert!(
            self.history.last().epoch() <= self.accepted_epoch,
            "nothing is logged of an epoch not accepted"
        );
    }
}

impl PeerSettings {
    /// Whether such a learner may come.
    pub(super) fn is_configured(&self, server: ServerId, is_observer: bool) -> bool {
        if is_observer { self.observers.contains(&server) } else { self.quorum.is_voter(server) }
    }

    /// How long a leader that was elected may take to be there: Apache's waits for its last vote first.
    pub(super) fn dial_time(&self) -> Duration {
        DIAL_TIME.max(self.tick)
    }
}

/// At the least.
const DIAL_TIME: Duration = Duration::from_secs(1);
