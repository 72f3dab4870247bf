//! Phase 2 at the leader: every learner gets the leader's history.
//!
//! ```text
//! EpochAcked(last) ─┬─ in the window ──► DIFF or TRUNC, PROPOSAL COMMIT *, NEWLEADER
//!                   ├─ before it ──────► the log is read ─► DIFF, PROPOSAL COMMIT *, NEWLEADER
//!                   └─ cannot be told ─► SNAP, PROPOSAL COMMIT *, NEWLEADER
//! a quorum's ACK of NEWLEADER, the leader's own among them ─► the history is committed: UPTODATE to each
//! ```
//!
//! From the moment at which what a learner lacks is queued, it gets what is proposed, too: no gap can open between. What
//! is outstanding goes to it as proposals without commits, and NEWLEADER behind all of it (ZOOKEEPER-3104).
//!
//! Source: `LearnerHandler.java`, `Leader.java` (`startForwarding`, `waitForNewLeaderAck`) of Apache ZooKeeper.

use std::time::Instant;

use tracing::info;

use super::discovery::{LeaderStage, LinkStage};
use super::history::Fit;
use super::mutation::{self, Mutation};
use super::peer::{Peer, Phase};
use super::timer::Timer;
use super::{Entry, Event, LinkId, Output, Packet, SyncMode};
use crate::id::Zxid;

impl Peer {
    /// Brings a learner that has accepted the epoch up to this leader's history.
    pub(super) fn synchronize_learner(&mut self, id: LinkId, now: Instant) {
        let end = self.sync_end();
        let Phase::Leading(leader) = &mut self.phase else { return };
        let Some(link) = leader.links.get_mut(&id) else { return };
        let LinkStage::EpochAcked(theirs) = link.stage else { return };
        match self.history.fit(theirs, end) {
            Fit::Behind(from) => self.send_history(id, SyncMode::Diff, from, Vec::new(), now),
            Fit::Diverges(to) => self.send_history(id, SyncMode::Trunc, to, Vec::new(), now),
            Fit::Unknown => self.send_tree(id, now),
            Fit::BeforeWindow => {
                link.stage = LinkStage::ReadingLog(theirs);
                self.out.push_back(Output::ReadLog { link: id, after: theirs });
            }
        }
    }

    /// What a learner lacks was read from the log, or cannot be.
    pub(super) fn on_log_read(&mut self, id: LinkId, entries: Option<Vec<Entry>>, now: Instant) {
        let end = self.sync_end();
        let Phase::Leading(leader) = &self.phase else { return };
        let Some(link) = leader.links.get(&id) else { return };
        let LinkStage::ReadingLog(theirs) = link.stage else { return };
        let mut entries = entries.unwrap_or_default();
        entries.retain(|entry| entry.zxid > theirs && entry.zxid <= end);
        // More may have been committed meanwhile than the window holds.
        let is_seamless = entries.last().is_some_and(|last| self.history.reaches_back_to(last.zxid));
        if is_seamless {
            self.send_history(id, SyncMode::Diff, theirs, entries, now);
        } else {
            self.send_tree(id, now);
        }
    }

    /// Up to where the history goes to learners as committed: before there is a quorum, all of it, as in Apache.
    fn sync_end(&self) -> Zxid {
        let is_established =
            matches!(&self.phase, Phase::Leading(leader) if leader.stage == LeaderStage::Broadcasting);
        if is_established { self.history.committed() } else { self.history.last() }
    }

    fn send_history(&mut self, id: LinkId, mode: SyncMode, from: Zxid, read: Vec<Entry>, now: Instant) {
        let end = self.sync_end();
        let first = match mode {
            SyncMode::Trunc if !mutation::is_on(Mutation::M6) => Packet::Trunc(from),
            SyncMode::Trunc | SyncMode::Diff | SyncMode::Snap => Packet::Diff(end),
        };
        self.out.push_back(Output::Send(id, first));
        let sent_to = read.last().map_or(from, |last| last.zxid);
        for entry in read {
            self.send_committed(id, entry);
        }
        self.finish_sync(id, (mode, from), sent_to, now);
    }

    fn send_tree(&mut self, id: LinkId, now: Instant) {
        // The replica sends the tree as it is at this point of the outputs: with everything delivered.
        self.out.push_back(Output::Event(Event::SendSnapshot(id)));
        let to = self.history.committed();
        self.finish_sync(id, (SyncMode::Snap, to), to, now);
    }

    /// Sends what is in memory after `sent_to`, then NEWLEADER; the learner gets what is proposed from now on.
    fn finish_sync(&mut self, id: LinkId, (mode, from): (SyncMode, Zxid), sent_to: Zxid, now: Instant) {
        let end = self.sync_end();
        let committed: Vec<_> = self.history.between(sent_to, end).cloned().collect();
        let outstanding: Vec<_> = self.history.between(end, self.history.last()).cloned().collect();
        for entry in committed {
            self.send_committed(id, entry);
        }
        let config = self.settings.config.clone();
        let Phase::Leading(leader) = &mut self.phase else { return };
        let Some(link) = leader.links.get_mut(&id) else { return };
        if !link.is_observer && !mutation::is_on(Mutation::M11) {
            let proposals = outstanding.into_iter().map(|entry| Output::Send(id, Packet::Proposal(entry)));
            self.out.extend(proposals);
        }
        link.stage = LinkStage::Synchronizing;
        link.heard = now;
        link.synced_to = end;
        let zxid = Zxid::new(leader.epoch, 0);
        let peer = link.server;
        info!(server = peer.map(tracing::field::display), sync = mode.as_str(), from = %from, to = %end, "synchronizing a learner");
        self.out.push_back(Output::Send(id, Packet::NewLeader { zxid, config }));
        self.out.push_back(Output::Event(Event::Synchronizing { peer, mode }));
    }

    fn send_committed(&mut self, id: LinkId, entry: Entry) {
        let zxid = entry.zxid;
        self.out.push_back(Output::Send(id, Packet::Proposal(entry)));
        self.out.push_back(Output::Send(id, Packet::Commit(zxid)));
    }

    /// A learner has everything, durably, and accepts the leader.
    pub(super) fn on_new_leader_acked(&mut self, id: LinkId, now: Instant) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        let Some(link) = leader.links.get_mut(&id) else { return };
        if link.stage != LinkStage::Synchronizing {
            // The ACK of UPTODATE looks the same.
            return;
        }
        link.stage = LinkStage::Accepted;
        // What it was sent as committed is durable there; it will not be acknowledged one by one.
        link.acked = link.acked.max(link.synced_to);
        if !link.is_observer {
            leader.leader_acks.extend(link.server);
        }
        if leader.stage == LeaderStage::Broadcasting {
            self.tell_up_to_date(id);
            // It may hold proposals that only waited for it.
            self.commit_what_is_acked();
        } else {
            self.establish_if_accepted(now);
        }
    }

    /// This leader's own history belongs to its epoch, on disk.
    pub(super) fn on_own_epoch_adopted(&mut self, now: Instant) {
        let me = self.settings.server_id;
        let Phase::Leading(leader) = &mut self.phase else { return };
        leader.leader_acks.insert(me);
        self.establish_if_accepted(now);
    }

    fn establish_if_accepted(&mut self, now: Instant) {
        let me = self.settings.server_id;
        let Phase::Leading(leader) = &self.phase else { return };
        let is_accepted = leader.stage == LeaderStage::AwaitingLeaderAcks
            && leader.leader_acks.contains(&me)
            && self.settings.quorum.is_reached_by(leader.leader_acks.iter().copied());
        if is_accepted {
            self.establish(now);
        }
    }

    /// A quorum has this leader's history and follows nobody older: the history is committed, and it leads.
    pub(super) fn establish(&mut self, now: Instant) {
        let last = self.history.last();
        self.deliver_up_to(last);
        let Phase::Leading(leader) = &mut self.phase else { return };
        leader.stage = LeaderStage::Broadcasting;
        let epoch = leader.epoch;
        let first = if mutation::is_on(Mutation::M13) { last } else { Zxid::new(epoch, 0) };
        leader.broadcast.begin(first);
        if let Some(vote) = &mut self.vote {
            vote.epoch = epoch;
        }
        for link in leader.links.values_mut() {
            link.heard = now;
        }
        let links: Vec<_> = leader.links.keys().copied().collect();
        self.timers.stop(Timer::Patience);
        info!(%epoch, zxid = %last, "leading");
        self.out.push_back(Output::Event(Event::Led(epoch)));
        for link in links {
            self.tell_up_to_date(link);
        }
    }

    fn tell_up_to_date(&mut self, id: LinkId) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        let Some(link) = leader.links.get_mut(&id) else { return };
        if link.stage == LinkStage::Accepted {
            link.stage = LinkStage::UpToDate;
            self.out.push_back(Output::Send(id, Packet::UpToDate));
            self.out.extend(link.take_released().map(|packet| Output::Send(id, packet)));
        }
    }
}
