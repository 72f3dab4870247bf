//! The properties of Zab, by their names in Apache's specification, checked from outside after every event.

use std::collections::BTreeMap;
use std::ops::Bound;

use rollcall::id::{Epoch, Zxid};
use rollcall::zab::{Entry, ServerState};

use crate::canon::{Canon, Fingerprint};
use crate::coverage::{Coverage, Seen};
use crate::member::Member;
use crate::network::{Process, Site};
use crate::profile::Profile;
use crate::time::{Nanos, SECOND};
use crate::world::World;

/// What was seen of leaders and proposals.
#[derive(Debug, Default)]
pub(crate) struct Properties {
    /// The newest epoch that anybody has accepted, and that of when the storm ended.
    newest_epoch: Epoch,
    newest_epoch_of_storm: Epoch,
    /// Whether anything was committed in the storm.
    has_begun: bool,
    /// How often something has happened from which an election may follow.
    disturbances: u32,
    /// Who led each epoch, and since when.
    leaders: BTreeMap<Epoch, (Process, Nanos)>,
    /// What was proposed, by whom.
    proposed: BTreeMap<Zxid, Entry>,
    /// When a leader was established last.
    led_at: Nanos,
    /// When something was committed last.
    committed_at: Nanos,
    /// When a fault struck somebody who led, or was about to.
    leader_struck_at: Nanos,
    /// When somebody of the majority that is never at fault had no say last.
    silent_core_at: Nanos,
}

impl Properties {
    /// A fault strikes somebody who leads, or is about to.
    pub(crate) fn on_leader_struck(&mut self, now: Nanos) {
        self.leader_struck_at = now;
    }

    /// Something happens from which an election may follow.
    pub(crate) fn on_disturbance(&mut self) {
        self.disturbances += 1;
    }

    /// A member accepts an epoch that somebody who is to lead has proposed, led or not.
    pub(crate) fn on_epoch(&mut self, epoch: Epoch) {
        self.newest_epoch = self.newest_epoch.max(epoch);
    }

    /// The storm is over; whether anything was committed in it.
    pub(crate) fn on_quiet(&mut self, has_begun: bool) {
        self.newest_epoch_of_storm = self.newest_epoch;
        self.has_begun = has_begun;
    }

    /// Epochs are numbered without a gap, so that the newest tells how many were begun. Each has a cause: something that
    /// struck a member or a link, or was over. Members that compete for one epoch after the other without one, or go on with
    /// it when all is well again, would get through 2^31 of them.
    pub(crate) fn check_epochs(&self) {
        /// One that is under way when everything works again, and may not last, and the one that does.
        const QUIET_EPOCHS_MAX: u32 = 2;
        /// While an ensemble begins, one leader needs all of its voters, and whoever has joined late does not count: then all begin anew.
        const BEGINNINGS_MAX: u32 = 4;
        let Self { newest_epoch, newest_epoch_of_storm, disturbances, has_begun, .. } = self;
        let quiet = newest_epoch.0 - newest_epoch_of_storm.0;
        assert!(
            newest_epoch_of_storm.0 <= *disturbances,
            "I17: {newest_epoch_of_storm} epochs were begun in a storm of {disturbances} disturbances"
        );
        let quiet_max = if *has_begun { QUIET_EPOCHS_MAX } else { BEGINNINGS_MAX };
        assert!(quiet <= quiet_max, "I17: {quiet} epochs were begun after the storm");
    }

    /// A member logs an entry: the leader, as a proposal, or somebody else, the same bytes.
    pub(crate) fn on_append(&mut self, site: Site, entry: &Entry) {
        match self.proposed.get(&entry.zxid) {
            Some(proposed) => {
                assert_eq!(
                    proposed.payload, entry.payload,
                    "I2: {} is logged with other bytes than before",
                    entry.zxid
                );
            }
            None => {
                let leader = self.leaders.get(&entry.zxid.epoch());
                let is_leader = leader.is_some_and(|(leader, _)| leader.site == site);
                assert!(
                    is_leader,
                    "I2: {} is logged by member {}, and proposed by nobody",
                    entry.zxid,
                    site + 1
                );
                self.proposed.insert(entry.zxid, entry.clone());
            }
        }
    }

    fn on_leading(&mut self, process: Process, epoch: Epoch, now: Nanos) -> bool {
        match self.leaders.get(&epoch) {
            Some((leader, _)) => {
                assert_eq!(*leader, process, "I1: epoch {epoch} is led by two");
                false
            }
            None => {
                self.leaders.insert(epoch, (process, now));
                self.led_at = now;
                true
            }
        }
    }

    /// How much of the canon a member holds, whatever happens.
    pub(crate) fn held_by(&self, member: &Member, canon: &Canon) -> usize {
        let durable = &member.shadow.disk[..member.shadow.durable];
        let mut count = canon.count_up_to(crate::shadow::last_of(durable)).min(durable.len());
        while count > 0 && durable[count - 1] != canon.committed[count - 1].entry {
            count -= 1;
        }
        count
    }

    /// A member's disk has changed, and may hold less than before.
    pub(crate) fn check_still_held(
        &self,
        site: Site,
        before: usize,
        members: &[Member],
        canon: &Canon,
        profile: &Profile,
    ) {
        let after = self.held_by(&members[site], canon);
        if after < before {
            check_held(&canon.committed[before - 1].entry, members, profile);
        }
    }

    /// A process ends; what it may leave half done is worth counting.
    pub(crate) fn see_death(
        &self,
        site: Site,
        members: &[Member],
        canon: &Canon,
        profile: &Profile,
        coverage: &mut Coverage,
    ) {
        let Some(replica) = members[site].replica() else { return };
        let state = replica.peer().state();
        if state == ServerState::Following && replica.peer().leader().is_none() {
            coverage.see(Seen::DiedWhileSynchronizing);
        }
        let next = members[site].shadow.log.get(canon.committed.len());
        if let Some(next) = next.filter(|_| replica.peer().is_leading()) {
            coverage.see(Seen::LeaderDiedBeforeCommit);
            let holders =
                members[..profile.voters].iter().filter(|member| member.shadow.holds_durably(next)).count();
            if holders >= profile.majority() {
                coverage.see(Seen::LeaderDiedBetweenQuorumAndCommit);
            }
        }
    }

    /// Everything has settled: all trees are the canon's.
    pub(crate) fn check_end(&self, members: &[Member], canon: &Canon, coverage: &mut Coverage) {
        for member in members {
            let Some(replica) = member.replica() else { continue };
            let tree = replica.tree();
            assert!(*tree == canon.tree, "I11: in the end member {} has another tree", member.site + 1);
            for owner in tree.ephemeral_owners() {
                assert!(tree.sessions().contains(owner), "I14: {owner} owns ephemerals, and is no session");
            }
        }
        let epochs = self.leaders.len();
        coverage.count(Seen::TwoEpochs, usize::from(epochs >= 2));
        coverage.count(Seen::LeaderOfManyEpochs, usize::from(epochs >= 5));
    }
}

/// Asserts that a quorum holds an entry, but for those that lost their disks.
fn check_held(entry: &Entry, members: &[Member], profile: &Profile) {
    let voters = &members[..profile.voters];
    let holders = voters.iter().filter(|member| member.shadow.holds_durably(entry)).count();
    let excused = voters
        .iter()
        .filter(|member| !member.shadow.holds_durably(entry) && member.shadow.has_lost(entry))
        .count();
    let needed = profile.majority();
    assert!(
        holders + excused >= needed,
        "I7: {} is committed, and durable on {holders} of {} voters, {excused} of the others without their disks",
        entry.zxid,
        profile.voters
    );
}

impl World {
    /// Notes that a member leads, before anything that it asks for is carried out.
    pub(crate) fn observe_leader(&mut self, site: Site) {
        let at = self.members[site].as_process();
        let Some((leader, epoch)) = self.members[site].replica().and_then(|replica| replica.peer().leader())
        else {
            return;
        };
        if leader != self.members[site].server_id()
            || !self.properties.on_leading(at, epoch, self.agenda.now())
        {
            return;
        }
        let (shadow, canon) = (&self.members[site].shadow, &self.canon);
        // The last ACK may have been on its way while another took over: such a leader commits nothing any more, and need not
        // have what the other did.
        let later = self
            .properties
            .leaders
            .range((Bound::Excluded(epoch), Bound::Unbounded))
            .map(|(_, (_, since))| *since);
        let taken_over_at = later.min().unwrap_or(Nanos::MAX);
        let earlier = canon.committed.iter().take_while(|committed| committed.at < taken_over_at);
        let last = earlier.enumerate().last();
        assert!(
            last.is_none_or(|(index, last)| shadow.log.get(index) == Some(&last.entry)),
            "I6: the leader of epoch {epoch} lacks {}, which is committed",
            last.map_or(Zxid::ZERO, |(_, last)| last.entry.zxid)
        );
        assert_eq!(
            shadow.durable,
            shadow.log.len(),
            "I8: epoch {epoch} begins before its leader's history is durable"
        );
        assert_eq!(
            shadow.current, epoch,
            "I8: epoch {epoch} begins before currentEpoch is on its leader's disk"
        );
    }

    /// Looks at a member after it has done something.
    pub(crate) fn observe(&mut self, site: Site, is_new_tree: bool) {
        let now = self.agenda.now();
        let Some(replica) = self.members[site].replica() else { return };
        let (reached, last) = (replica.tree().last_zxid(), replica.peer().last_zxid());
        assert!(reached <= last, "I10: {reached} is applied, but only {last} is logged");
        if is_new_tree {
            self.members[site].shadow.applied = self.canon.count_up_to(reached);
        }
        self.apply_up_to(site, reached);
        self.check_fingerprint(site);
        self.see_serving(site);
        self.check_available(now);
    }

    /// A member has applied everything up to `reached`.
    fn apply_up_to(&mut self, site: Site, reached: Zxid) {
        let now = self.agenda.now();
        loop {
            let shadow = &mut self.members[site].shadow;
            let Some(entry) = shadow.log.get(shadow.applied).filter(|entry| entry.zxid <= reached).cloned()
            else {
                break;
            };
            shadow.applied += 1;
            let index = shadow.applied - 1;
            match self.canon.committed.get(index) {
                Some(committed) => {
                    let (zxid, canonical) = (entry.zxid, committed.entry.zxid);
                    assert_eq!(
                        zxid,
                        canonical,
                        "I3: member {} delivers {zxid} where {canonical} was delivered",
                        site + 1
                    );
                    assert!(entry == committed.entry, "I3: {zxid} is delivered with other bytes than before");
                }
                None => {
                    assert!(
                        self.properties.proposed.contains_key(&entry.zxid),
                        "I2: {} was never proposed",
                        entry.zxid
                    );
                    self.canon.commit(&entry, now);
                    self.properties.committed_at = now;
                    check_held(&entry, &self.members, &self.profile);
                    self.check_expiry();
                }
            }
        }
        let shadow = &self.members[site].shadow;
        let applied =
            shadow.applied.checked_sub(1).map_or(Zxid::ZERO, |index| self.canon.committed[index].entry.zxid);
        assert_eq!(applied, reached, "I10: member {} has applied what it has not logged", site + 1);
    }

    fn check_fingerprint(&self, site: Site) {
        let member = &self.members[site];
        let Some(replica) = member.replica() else { return };
        let applied = member.shadow.applied;
        if let Some(expected) = self.canon.fingerprint(applied)
            && replica.tree().last_zxid() >= member.shadow.fuzzy_until
        {
            let found = Fingerprint::of(replica.tree());
            assert_eq!(
                found,
                expected,
                "I11: member {} has another tree at {}",
                site + 1,
                replica.tree().last_zxid()
            );
        }
    }

    /// A session that nobody closed has ended: not too early.
    fn check_expiry(&mut self) {
        let Some(committed) = self.canon.committed.last() else { return };
        let (session, at) = (committed.session, committed.at);
        let is_closed = self.canon.session(session).is_some_and(|life| life.closed_at == Some(at));
        if !is_closed || committed.cxid.0 != 0 {
            return;
        }
        self.coverage.see(Seen::SessionExpired);
        if at < self.properties.led_at + 6 * SECOND {
            self.coverage.see(Seen::SessionExpiredAfterElection);
        }
        let Some(client) = self.clients.iter().find(|client| client.session == Some(session)) else { return };
        // A member that has lost its leader without knowing it goes on answering for so long: what was answered before, the leader has
        // heard of.
        let unheard = self.profile.tick * 7;
        let Some((first, last)) = client.proofs_since(at.saturating_sub(client.timeout() * 9 / 10)) else {
            return;
        };
        assert!(
            last - first <= unheard,
            "I14: session {session} expires {} to {} ms after heartbeats that were answered; its timeout is {} ms",
            (at - last) / crate::time::MS,
            (at - first) / crate::time::MS,
            client.timeout() / crate::time::MS
        );
    }

    fn see_serving(&mut self, site: Site) {
        let Some(replica) = self.members[site].replica() else { return };
        if replica.is_read_only() {
            self.coverage.see(Seen::ReadOnly);
        }
        if !replica.is_serving() {
            return;
        }
        match replica.peer().state() {
            ServerState::Observing => self.coverage.see(Seen::ObserverServed),
            ServerState::Following => self.coverage.see(Seen::ServedByFollower),
            ServerState::Looking | ServerState::Leading => {}
        }
        if replica.peer().outstanding() > 0 && replica.peer().state() == ServerState::Following {
            self.coverage.see(Seen::ProposalOutstandingAtSync);
        }
    }

    /// While a majority is never at fault, something is committed all the time. But nobody can keep those outside it from being
    /// elected, and being struck then; and until all of it have once been brought up to a leader's history, others are needed.
    fn check_available(&mut self, now: Nanos) {
        const GAP_MAX: Nanos = 15 * SECOND;
        let is_core = self.profile.family == crate::profile::Family::Core;
        let has_say = |member: &Member| member.replica().is_some_and(|replica| replica.epochs().1 > Epoch(0));
        if is_core && !self.members[..self.profile.majority()].iter().all(has_say) {
            self.properties.silent_core_at = now;
        }
        let Properties { committed_at, leader_struck_at, silent_core_at, .. } = self.properties;
        let since = committed_at.max(leader_struck_at).max(silent_core_at);
        assert!(
            !is_core || self.is_quiet || now < since + GAP_MAX,
            "I17: nothing was committed for {} s, though a majority was never at fault",
            GAP_MAX / SECOND
        );
    }
}
