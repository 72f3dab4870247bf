//! Phase 0: whom to follow. Fast leader election, as Apache ZooKeeper does it.
//!
//! Everyone who looks for a leader tells everyone his vote, and takes over a better one that he hears of. When a quorum
//! votes alike, the election is over, unless a better vote may still be on its way. Members that have a leader already
//! tell whom they follow; a quorum of those, the leader among them, decides too.
//!
//! What differs from Apache, on the same wire: nothing is waited for once every voter that can be reached has voted;
//! and **a member without any history has no say**. Such a member may have lost what it had, so it votes with a zxid of -1,
//! which everybody ignores, and follows whom the others elect. Only when all voters are there and none has a txn, a
//! new ensemble begins.
//!
//! Source: `FastLeaderElection.lookForLeader` of Apache ZooKeeper.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::mutation::{self, Mutation};
use super::timer::{Timer, Timers};
use super::{Notification, Output, PeerSettings, ServerState, Vote};
use crate::id::{Epoch, ServerId, Zxid};

/// One search for a leader.
#[derive(Clone, Debug)]
pub(super) struct Election {
    round: u64,
    /// This member's vote for itself; `None` when it has none to give.
    own: Option<Vote>,
    /// The vote it gives now.
    proposal: Option<Vote>,
    /// Whether it has no history, and has not found that nobody has one.
    is_blank: bool,
    /// Voters without any txn.
    blank: BTreeSet<ServerId>,
    /// Voters that have something, and no say.
    without_say: BTreeSet<ServerId>,
    /// What voters voted in this round.
    received: BTreeMap<ServerId, (ServerState, Vote)>,
    /// What members say that have a leader, with their rounds.
    settled: BTreeMap<ServerId, (ServerState, Vote, u64)>,
    resend_pause: Duration,
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) vote: Vote,
    pub(super) round: u64,
}

/// What an election works with.
pub(super) struct Means<'a> {
    pub(super) settings: &'a PeerSettings,
    /// Members whose election port can be reached.
    pub(super) reachable: &'a BTreeSet<ServerId>,
    pub(super) timers: &'a mut Timers,
    pub(super) out: &'a mut VecDeque<Output>,
    pub(super) now: Instant,
}

impl Election {
    /// Starts round `round` with what this member has: the epoch in which it was last synchronized, the last txn in its
    /// log, and whether it has no history at all.
    pub(super) fn start(
        round: u64,
        epoch: Epoch,
        zxid: Zxid,
        is_blank: bool,
        means: &mut Means<'_>,
    ) -> (Self, Option<Decision>) {
        let me = means.settings.server_id;
        let is_voter = means.settings.quorum.is_voter(me);
        let vote = Vote { epoch, zxid, leader: me };
        let mut election = Self {
            round,
            own: is_voter.then_some(vote),
            proposal: None,
            is_blank: is_blank && is_voter && !means.settings.force_bootstrap,
            blank: if zxid == Zxid::ZERO { BTreeSet::from([me]) } else { BTreeSet::new() },
            without_say: BTreeSet::new(),
            received: BTreeMap::new(),
            settled: BTreeMap::new(),
            resend_pause: means.settings.resend_min,
        };
        if election.is_blank {
            info!(%zxid, "this member has no history, or not all of one: it waits for a leader, or for all voters to be there without any; where a majority has lost its data, see --force-bootstrap");
        } else {
            election.propose(election.own, means);
        }
        election.bootstrap_if_all_are_blank(means);
        election.broadcast(means);
        let decision = election.decide_if_settled(means);
        (election, decision)
    }

    /// The count of elections that this one is.
    pub(super) const fn round(&self) -> u64 {
        self.round
    }

    /// Whether this member has a history, or has found that nobody has one.
    pub(super) const fn has_say(&self) -> bool {
        !self.is_blank
    }

    /// What this member says now.
    pub(super) fn notification(&self, settings: &PeerSettings) -> Notification {
        let is_empty = self.blank.contains(&settings.server_id);
        let zxid = if is_empty { Zxid::NONE } else { NOT_ALL };
        let blank = Vote { epoch: Epoch(0), zxid, leader: settings.server_id };
        let vote = if self.is_blank { Some(blank) } else { self.proposal };
        let vote = vote.filter(|_| settings.quorum.is_voter(settings.server_id));
        Notification { state: ServerState::Looking, round: self.round, vote, config: settings.config.clone() }
    }

    /// A voter said something.
    pub(super) fn on_notification(
        &mut self,
        from: ServerId,
        message: &Notification,
        means: &mut Means<'_>,
    ) -> Option<Decision> {
        let quorum = &means.settings.quorum;
        let vote = message.vote.filter(|vote| quorum.is_voter(vote.leader))?;
        match message.state {
            ServerState::Looking => self.on_looking(from, vote, message.round, means),
            ServerState::Following | ServerState::Leading => {
                self.on_settled(from, message.state, vote, message.round, means)
            }
            ServerState::Observing => None,
        }
    }

    /// A member's election port can be reached now, or cannot any more.
    pub(super) fn on_reachable(
        &mut self,
        peer: ServerId,
        is_reachable: bool,
        means: &mut Means<'_>,
    ) -> Option<Decision> {
        if is_reachable {
            means.out.push_back(Output::SendVote(peer, self.notification(means.settings)));
            return None;
        }
        // It may be the one that was waited for.
        self.decide_if_settled(means)
    }

    /// Nobody answered for a while.
    pub(super) fn on_resend(&mut self, means: &mut Means<'_>) {
        self.resend_pause = (self.resend_pause * 2).min(means.settings.resend_max);
        self.broadcast(means);
    }

    /// No better vote has come.
    pub(super) fn on_finalize(&self, means: &Means<'_>) -> Option<Decision> {
        self.agreed(means)
    }

    fn on_looking(
        &mut self,
        from: ServerId,
        vote: Vote,
        round: u64,
        means: &mut Means<'_>,
    ) -> Option<Decision> {
        let had_majority = !self.has_lost_majority(means.settings);
        if vote.zxid == NOT_ALL {
            self.without_say.insert(from);
        } else {
            self.without_say.remove(&from);
        }
        if is_of_an_empty_member(vote) {
            self.blank.insert(from);
            self.bootstrap_if_all_are_blank(means);
        } else if vote.leader == from {
            // What it said before is out of date.
            self.blank.remove(&from);
        }
        if had_majority && self.has_lost_majority(means.settings) {
            warn!(blank = ?self.blank, without_say = ?self.without_say, "so many voters have no history, or not all of one, that the others cannot elect a leader; if they have lost their data, start them with --force-bootstrap, all of them at a time: what only they had is lost");
        }
        // A voter would answer what only listens, and be answered.
        if round < self.round && self.own.is_some() {
            means.out.push_back(Output::SendVote(from, self.notification(means.settings)));
        }
        if self.is_blank || vote.zxid < Zxid::ZERO || round < self.round {
            return None;
        }
        if round > self.round {
            self.round = round;
            self.received.clear();
            self.propose(self.own.max(Some(vote)), means);
            self.broadcast(means);
        } else if self.beats(vote) {
            self.propose(Some(vote), means);
            self.broadcast(means);
        } else if self.proposal != Some(vote) && self.own.is_some() {
            // It did not look for a leader yet when it was told of the better vote.
            means.out.push_back(Output::SendVote(from, self.notification(means.settings)));
        }
        self.received.insert(from, (ServerState::Looking, vote));
        self.decide_if_settled(means)
    }

    fn on_settled(
        &mut self,
        from: ServerId,
        state: ServerState,
        vote: Vote,
        round: u64,
        means: &Means<'_>,
    ) -> Option<Decision> {
        let me = means.settings.server_id;
        // Others may not have noticed yet that it has lost everything.
        let may_lead = vote.leader == me && round == self.round && !self.is_blank;
        if round == self.round {
            self.received.insert(from, (state, vote));
            let alike = self
                .received
                .iter()
                .filter(|(_, (their_state, theirs))| is_same(*their_state, *theirs, state, vote));
            let leads = may_lead
                || self.received.get(&vote.leader).is_some_and(|(state, _)| *state == ServerState::Leading);
            if leads && means.settings.quorum.is_reached_by(alike.map(|(server, _)| *server)) {
                return Some(Decision { vote, round });
            }
        }
        self.settled.insert(from, (state, vote, round));
        let alike = self
            .settled
            .iter()
            .filter(|(_, (_, theirs, _))| (theirs.leader, theirs.epoch) == (vote.leader, vote.epoch));
        let leader_says_so =
            self.settled.get(&vote.leader).is_some_and(|(state, ..)| *state == ServerState::Leading);
        let leads = if vote.leader == me { may_lead } else { leader_says_so };
        if leads && means.settings.quorum.is_reached_by(alike.map(|(server, _)| *server)) {
            self.round = round;
            return Some(Decision { vote, round });
        }
        None
    }

    /// Whether those who have lost their history are too many for the others, of whom this member is one, to be a quorum.
    fn has_lost_majority(&self, settings: &PeerSettings) -> bool {
        let has_history = !self.is_blank && self.own.is_some_and(|own| own.zxid > Zxid::ZERO);
        let has_say = |voter: &ServerId| !self.blank.contains(voter) && !self.without_say.contains(voter);
        has_history && !settings.quorum.is_reached_by(settings.quorum.voters().filter(has_say))
    }

    /// A new ensemble begins when all of its voters are there and none has a history.
    fn bootstrap_if_all_are_blank(&mut self, means: &mut Means<'_>) {
        if !self.is_blank || !means.settings.quorum.voters().all(|voter| self.blank.contains(&voter)) {
            return;
        }
        self.is_blank = false;
        self.propose(self.own, means);
        self.broadcast(means);
    }

    fn beats(&self, vote: Vote) -> bool {
        if mutation::is_on(Mutation::M10) {
            return self.proposal.is_none_or(|proposal| vote.leader > proposal.leader);
        }
        Some(vote) > self.proposal
    }

    /// Votes for `vote` from now on.
    fn propose(&mut self, vote: Option<Vote>, means: &mut Means<'_>) {
        self.proposal = vote;
        means.timers.stop(Timer::Finalize);
        if let Some(vote) = vote
            && self.own.is_some()
        {
            self.received.insert(means.settings.server_id, (ServerState::Looking, vote));
        }
    }

    fn broadcast(&self, means: &mut Means<'_>) {
        let message = self.notification(means.settings);
        for voter in means.settings.quorum.voters().filter(|voter| *voter != means.settings.server_id) {
            means.out.push_back(Output::SendVote(voter, message.clone()));
        }
        means.timers.set(Timer::Resend, means.now + self.resend_pause);
    }

    /// Decides when a quorum votes alike and nobody who could be heard is missing.
    fn decide_if_settled(&self, means: &mut Means<'_>) -> Option<Decision> {
        let decision = self.agreed(means)?;
        let me = means.settings.server_id;
        let is_missing = |voter: ServerId| {
            voter != me
                && means.reachable.contains(&voter)
                && !self.received.contains_key(&voter)
                && !self.blank.contains(&voter)
                && !self.without_say.contains(&voter)
        };
        if means.settings.quorum.voters().any(is_missing) {
            means.timers.set_if_unset(Timer::Finalize, means.now, means.settings.finalize_wait);
            return None;
        }
        Some(decision)
    }

    /// The proposal, if a quorum votes for it.
    fn agreed(&self, means: &Means<'_>) -> Option<Decision> {
        let vote = self.proposal?;
        let alike = self
            .received
            .iter()
            .filter(|(_, (state, theirs))| is_same(*state, *theirs, ServerState::Looking, vote));
        means
            .settings
            .quorum
            .is_reached_by(alike.map(|(server, _)| *server))
            .then_some(Decision { vote, round: self.round })
    }
}

/// Between members that have a leader only leader and epoch count: their votes keep the zxid of their election
/// (ZOOKEEPER-1732, ZOOKEEPER-1805).
fn is_same(one_state: ServerState, one: Vote, other_state: ServerState, other: Vote) -> bool {
    if one_state == ServerState::Looking || other_state == ServerState::Looking {
        one == other
    } else {
        (one.leader, one.epoch) == (other.leader, other.epoch)
    }
}

/// A vote of somebody without any txn: one without any history votes with -1, Apache's with an empty log. Nobody who has a txn
/// votes for less.
fn is_of_an_empty_member(vote: Vote) -> bool {
    vote.epoch == Epoch(0) && matches!(vote.zxid, Zxid::NONE | Zxid::ZERO)
}

/// The zxid in the vote of a member that has something, and perhaps not all that it had: no say, and no reason for others to begin
/// anew.
const NOT_ALL: Zxid = Zxid::from_raw(-2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zab::Quorum;

    const ROUND: u64 = 7;

    struct Bench {
        settings: PeerSettings,
        reachable: BTreeSet<ServerId>,
        timers: Timers,
        out: VecDeque<Output>,
        now: Instant,
    }

    fn server(id: u8) -> ServerId {
        ServerId::new(id).unwrap()
    }

    fn zxid(counter: u32) -> Zxid {
        Zxid::new(Epoch(3), counter)
    }

    fn vote(leader: u8, counter: u32) -> Vote {
        Vote { epoch: Epoch(3), zxid: zxid(counter), leader: server(leader) }
    }

    fn said(state: ServerState, vote: Vote, round: u64) -> Notification {
        Notification { state, round, vote: Some(vote), config: bytes::Bytes::new() }
    }

    impl Bench {
        fn of(me: u8, reachable: &[u8]) -> Self {
            let quorum = Quorum::majority_of([1, 2, 3].map(server));
            Self {
                settings: PeerSettings::new(server(me), quorum),
                reachable: reachable.iter().copied().map(server).collect(),
                timers: Timers::default(),
                out: VecDeque::new(),
                now: crate::clock::now(),
            }
        }

        fn means(&mut self) -> Means<'_> {
            Means {
                settings: &self.settings,
                reachable: &self.reachable,
                timers: &mut self.timers,
                out: &mut self.out,
                now: self.now,
            }
        }

        fn start(&mut self, counter: u32) -> Election {
            let (election, decision) =
                Election::start(ROUND, Epoch(3), zxid(counter), false, &mut self.means());
            assert_eq!(decision, None);
            election
        }

        fn start_blank(&mut self) -> Election {
            Election::start(1, Epoch(0), Zxid::ZERO, true, &mut self.means()).0
        }

        fn sent_votes(&mut self) -> Vec<(u8, Option<Vote>)> {
            let sent = self.out.drain(..).map(|output| {
                let Output::SendVote(to, message) = output else { panic!("{output:?}") };
                (to.get(), message.vote)
            });
            sent.collect()
        }
    }

    #[test]
    fn a_better_vote_is_taken_over_and_told_and_a_quorum_decides() {
        let mut bench = Bench::of(1, &[2]);
        let mut election = bench.start(5);
        assert_eq!(bench.sent_votes(), [(2, Some(vote(1, 5))), (3, Some(vote(1, 5)))]);
        let better = said(ServerState::Looking, vote(2, 5), ROUND);
        let decision = election.on_notification(server(2), &better, &mut bench.means());
        assert_eq!(decision, Some(Decision { vote: vote(2, 5), round: ROUND }), "3 cannot be reached anyway");
        assert_eq!(bench.sent_votes(), [(2, Some(vote(2, 5))), (3, Some(vote(2, 5)))]);
    }

    #[test]
    fn who_votes_worse_is_told_since_it_may_not_have_listened_before() {
        let mut bench = Bench::of(2, &[1]);
        let mut election = bench.start(5);
        bench.out.clear();
        let worse = said(ServerState::Looking, vote(1, 5), ROUND);
        assert_eq!(election.on_notification(server(1), &worse, &mut bench.means()), None);
        assert_eq!(bench.sent_votes(), [(1, Some(vote(2, 5)))]);
        let agrees = said(ServerState::Looking, vote(2, 5), ROUND);
        assert!(election.on_notification(server(1), &agrees, &mut bench.means()).is_some());
        assert_eq!(bench.sent_votes(), []);
    }

    #[test]
    fn a_reachable_voter_is_waited_for_but_not_longer_than_the_limit() {
        let mut bench = Bench::of(2, &[1, 3]);
        let mut election = bench.start(5);
        let agrees = said(ServerState::Looking, vote(2, 5), ROUND);
        assert_eq!(election.on_notification(server(1), &agrees, &mut bench.means()), None);
        assert_eq!(bench.timers.next(), Some(bench.now + bench.settings.finalize_wait));

        // Its vote is better after all.
        let better = said(ServerState::Looking, vote(3, 6), ROUND);
        let decision = election.on_notification(server(3), &better, &mut bench.means());
        assert_eq!(decision.map(|decision| decision.vote), Some(vote(3, 6)));

        // It is gone, or the time is up.
        let mut election = bench.start(5);
        let agrees = said(ServerState::Looking, vote(2, 5), ROUND);
        election.on_notification(server(1), &agrees, &mut bench.means());
        assert!(election.on_finalize(&bench.means()).is_some());
        bench.reachable.remove(&server(3));
        assert!(election.on_reachable(server(3), false, &mut bench.means()).is_some());
    }

    #[test]
    fn a_later_round_starts_the_count_anew_and_an_earlier_one_is_told() {
        let mut bench = Bench::of(2, &[1, 3]);
        let mut election = bench.start(5);
        let agrees = said(ServerState::Looking, vote(2, 5), ROUND);
        election.on_notification(server(1), &agrees, &mut bench.means());
        let later = said(ServerState::Looking, vote(3, 4), ROUND + 2);
        assert_eq!(election.on_notification(server(3), &later, &mut bench.means()), None);
        assert_eq!((election.round(), election.received.len()), (ROUND + 2, 2));
        assert_eq!(election.proposal, Some(vote(2, 5)), "its own vote is better");

        bench.out.clear();
        let earlier = said(ServerState::Looking, vote(1, 9), ROUND);
        assert_eq!(election.on_notification(server(1), &earlier, &mut bench.means()), None);
        assert_eq!(bench.sent_votes(), [(1, Some(vote(2, 5)))]);
    }

    #[test]
    fn who_comes_late_joins_the_leader_that_a_quorum_follows() {
        let mut bench = Bench::of(3, &[1, 2]);
        let mut election = bench.start(9);
        let leader = Vote { epoch: Epoch(4), ..vote(2, 5) };
        let following = said(ServerState::Following, leader, 2);
        assert_eq!(election.on_notification(server(1), &following, &mut bench.means()), None);
        let other_zxid = Vote { zxid: zxid(1), ..leader };
        let leading = said(ServerState::Leading, other_zxid, 2);
        let decision = election.on_notification(server(2), &leading, &mut bench.means());
        assert_eq!(decision, Some(Decision { vote: other_zxid, round: 2 }));
    }

    #[test]
    fn a_leader_is_not_believed_in_without_its_own_word() {
        let mut bench = Bench::of(3, &[1, 2]);
        let mut election = bench.start(9);
        let following = said(ServerState::Following, vote(2, 5), 2);
        for from in [1, 2] {
            assert_eq!(election.on_notification(server(from), &following, &mut bench.means()), None);
        }
    }

    #[test]
    fn a_member_without_a_history_has_no_say_until_nobody_has_one() {
        let mut bench = Bench::of(1, &[2, 3]);
        let mut election = bench.start_blank();
        let nothing = Vote { epoch: Epoch(0), zxid: Zxid::NONE, leader: server(1) };
        assert_eq!(bench.sent_votes(), [(2, Some(nothing)), (3, Some(nothing))]);
        let full = said(ServerState::Looking, vote(2, 5), 1);
        assert_eq!(election.on_notification(server(2), &full, &mut bench.means()), None);
        assert_eq!(election.proposal, None);

        // Apache's members without a history say so with an empty log.
        let mut election = bench.start_blank();
        let of = |leader, zxid| Vote { epoch: Epoch(0), zxid, leader: server(leader) };
        let ours = said(ServerState::Looking, of(2, Zxid::NONE), 1);
        assert_eq!(election.on_notification(server(2), &ours, &mut bench.means()), None);
        assert_eq!(election.proposal, None);
        let apaches = said(ServerState::Looking, of(3, Zxid::ZERO), 1);
        assert_eq!(
            election.on_notification(server(3), &apaches, &mut bench.means()),
            Some(Decision { vote: of(3, Zxid::ZERO), round: 1 })
        );
    }

    #[test]
    fn who_has_lost_everything_does_not_lead_though_others_follow_it_still() {
        let mut bench = Bench::of(1, &[2, 3]);
        let mut election = bench.start_blank();
        let following = said(ServerState::Following, Vote { epoch: Epoch(1), ..vote(1, 5) }, 1);
        for from in [2, 3] {
            assert_eq!(election.on_notification(server(from), &following, &mut bench.means()), None);
        }
    }

    #[test]
    fn who_has_a_txn_after_all_is_not_taken_for_empty_any_more() {
        let mut bench = Bench::of(1, &[2, 3]);
        let mut election = bench.start_blank();
        let nothing = |leader| Vote { epoch: Epoch(0), zxid: Zxid::ZERO, leader: server(leader) };
        let messages = [(3, nothing(3)), (3, vote(3, 1)), (2, nothing(2))];
        for (from, vote) in messages {
            let message = said(ServerState::Looking, vote, 1);
            assert_eq!(election.on_notification(server(from), &message, &mut bench.means()), None);
        }
        assert!(!election.has_say());
        let message = said(ServerState::Looking, nothing(3), 1);
        election.on_notification(server(3), &message, &mut bench.means());
        assert!(election.has_say(), "now nobody has one");
    }

    #[test]
    fn a_survivor_notices_that_a_majority_has_lost_its_history() {
        let mut bench = Bench::of(2, &[1, 3]);
        let mut election = bench.start(5);
        let nothing = |leader| Vote { epoch: Epoch(0), zxid: Zxid::NONE, leader: server(leader) };
        for (from, vote, has_lost) in
            [(1, nothing(1), false), (3, nothing(3), true), (3, vote(3, 5), false), (3, nothing(3), true)]
        {
            election.on_notification(
                server(from),
                &said(ServerState::Looking, vote, ROUND),
                &mut bench.means(),
            );
            assert_eq!(election.has_lost_majority(&bench.settings), has_lost, "{from}: {vote:?}");
        }
        let mut blank = bench.start_blank();
        blank.on_notification(server(1), &said(ServerState::Looking, nothing(1), ROUND), &mut bench.means());
        assert!(!blank.has_lost_majority(&bench.settings), "that is how an ensemble begins");
    }

    #[test]
    fn who_has_a_history_does_not_count_who_has_none() {
        let mut bench = Bench::of(2, &[1, 3]);
        let mut election = bench.start(5);
        let nothing =
            said(ServerState::Looking, Vote { epoch: Epoch(0), zxid: Zxid::NONE, leader: server(1) }, ROUND);
        assert_eq!(election.on_notification(server(1), &nothing, &mut bench.means()), None);
        assert!(!election.received.contains_key(&server(1)));
    }

    #[test]
    fn an_observer_follows_what_the_voters_decide() {
        let mut bench = Bench::of(9, &[1, 2]);
        let mut election = bench.start(0);
        assert_eq!(bench.sent_votes(), [(1, None), (2, None), (3, None)]);
        let agrees = said(ServerState::Looking, vote(2, 5), ROUND);
        assert_eq!(election.on_notification(server(2), &agrees, &mut bench.means()), None);
        let decision = election.on_notification(server(1), &agrees, &mut bench.means());
        assert_eq!(decision.map(|decision| decision.vote), Some(vote(2, 5)));
    }

    #[test]
    fn a_voter_alone_decides_at_once() {
        let mut bench = Bench::of(1, &[]);
        bench.settings = PeerSettings::new(server(1), Quorum::majority_of([server(1)]));
        let (_, decision) = Election::start(1, Epoch(0), Zxid::ZERO, true, &mut bench.means());
        assert_eq!(decision.map(|decision| decision.vote.leader), Some(server(1)));
    }
}
