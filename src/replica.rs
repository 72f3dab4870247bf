//! A whole member without I/O.
//!
//! ```text
//!            ┌ writes ─┬─ at the leader ──► prepare ─► propose ─┐
//! clients ───┤         └─ at a learner ───► REQUEST to it       ├─► zab ─► Deliver ─► apply ─┬► events
//!            └ reads ──► wait for the connection's own writes ──┘                            └► replies
//! ```
//!
//! Things that happen come in as an [`Input`]; things to do go out, in order, as [`Output`]s; the next deadline
//! is [`Replica::poll_timeout`]. Nothing here reads a clock, a socket or a file, so that the driver, a simulator and a
//! model checker run the same code. Who leads, and what is committed, is [`Peer`]'s business.
//!
//! Invariants: nothing is answered before a quorum holds it durably; events of a txn are queued before any reply
//! that could reveal it; replies of a connection keep the order of its requests; the tree holds committed
//! state only. [`Replica::check_invariants`] runs after every input.
//!
//! Source for the order of things: `ZooKeeperServer.java` (sessions), `FollowerRequestProcessor.java`, `CommitProcessor.java`
//! (writes that the leader carries out) and `FinalRequestProcessor.java` of Apache ZooKeeper.

mod access;
mod barrier;
mod config_node;
mod connection;
mod digest_log;
mod expiry;
mod inspection;
mod leading;
mod learning;
mod local;
mod overlay;
mod port;
mod prepare;
mod read;
mod recording;
mod reply;
mod request;
mod serving;
mod session;
mod snapshot;
mod transfer;
mod watch;

#[cfg(test)]
mod tests;

pub use self::port::{
    CloseReason, ConnectionId, Input, LocalSessionMode, Now, Output, Recovery, ReplicaSettings,
};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use self::barrier::Subscribers;
use self::connection::Connection;
use self::digest_log::DigestLog;
use self::expiry::ExpiryQueue;
use self::leading::Leading;
use self::learning::Learning;
use self::local::LocalSessions;
use self::recording::Recording;
use self::session::SessionIds;
use self::snapshot::Snapshotting;
use self::transfer::{Incoming, UNKNOWN};
use self::watch::Watches;
use crate::id::{Epoch, SessionId, Xid, Zxid};
use crate::tree::{Tree, Txn, TxnOp};
use crate::zab::mutation::{self, Mutation};
use crate::zab::{self, Entry, Event, LinkId, Packet, Peer, SyncMode};

/// One member of the ensemble.
#[derive(Debug)]
pub struct Replica {
    settings: ReplicaSettings,
    peer: Peer,
    tree: Tree,
    role: Role,
    /// Who waits for a sync, oldest first.
    syncs: VecDeque<SyncWaiter>,
    connections: BTreeMap<ConnectionId, Connection>,
    by_session: BTreeMap<SessionId, ConnectionId>,
    /// Connections that have no session yet, by when they must have one.
    handshakes: BTreeSet<(Instant, ConnectionId)>,
    session_ids: SessionIds,
    local: LocalSessions,
    watches: Watches,
    subscribers: Subscribers,
    snapshotting: Snapshotting,
    recording: Recording,
    /// Up to where the tree may hold parts of what is still to be applied.
    fuzzy_to: Zxid,
    /// A snapshot that is on its way from the leader.
    incoming: Option<Incoming>,
    digests: DigestLog,
    counts: ReplicaCounts,
    outputs: VecDeque<Output>,
    /// Bytes of what clients are told among them.
    told_bytes: usize,
}

/// What the member does for its clients.
#[derive(Debug)]
enum Role {
    /// There is no leader: nobody is served.
    Idle {
        /// From when on clients may read all the same.
        read_only_at: Option<Instant>,
    },
    /// There has been no leader for a while: clients that are content with it may read, in sessions of this member.
    ReadOnly(ExpiryQueue),
    Leading(Box<Leading>),
    Learning(Learning),
}

/// Who waits until a quorum is known to follow still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncWaiter {
    /// A client that asked for it.
    Client(ConnectionId),
    /// A client that is to be told that its session does not exist.
    Refusal(ConnectionId),
    /// A learner that asked about a session with this timeout in ms, which does not exist.
    Revalidation(LinkId, SessionId, i32),
}

/// What a replica counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// Txns applied since the start.
    pub applied_txns: u64,
    /// Times that this member began to lead.
    pub reigns: u64,
    /// Times that it lost its leader, or its leadership.
    pub losses: u64,
    /// Learners brought up by this leader, and times that this member was, by DIFF, TRUNC and SNAP.
    pub syncs: [u64; 3],
    /// Txns after which the tree's digest was not the one that the leader had computed.
    pub digest_mismatches: u64,
}

/// The role of a member that has lost its leader.
fn idle(settings: &ReplicaSettings, now: Now) -> Role {
    let patience = READ_ONLY_AFTER.max(settings.peer.tick);
    Role::Idle { read_only_at: settings.read_only_mode.then(|| now.monotonic + patience) }
}

/// How long to look for a leader before reads are served without one, at the least; as in Apache ZooKeeper.
const READ_ONLY_AFTER: Duration = Duration::from_secs(2);

impl Replica {
    /// A member over what its storage recovered. It looks for a leader at once.
    pub fn new(settings: ReplicaSettings, recovery: Recovery, now: Now) -> Self {
        let Recovery { tree, tail, committed, fuzzy_to, accepted_epoch, current_epoch } = recovery;
        let snapshot = tree.last_zxid();
        let recovery = zab::Recovery { snapshot, tail, committed, accepted_epoch, current_epoch };
        let mut replica = Self {
            peer: Peer::new(settings.peer.clone(), recovery, now.monotonic),
            tree,
            role: idle(&settings, now),
            syncs: VecDeque::new(),
            connections: BTreeMap::new(),
            by_session: BTreeMap::new(),
            handshakes: BTreeSet::new(),
            session_ids: SessionIds::new(settings.peer.server_id, now.unix_ms),
            local: LocalSessions::new(now.monotonic, settings.peer.tick),
            watches: Watches::default(),
            subscribers: Subscribers::new(now.monotonic),
            snapshotting: Snapshotting::new(settings.snapshot_txns, settings.snapshot_bytes),
            recording: Recording::new(settings.read_only_mode, now.monotonic),
            fuzzy_to,
            incoming: None,
            digests: DigestLog::default(),
            counts: ReplicaCounts::default(),
            outputs: VecDeque::new(),
            told_bytes: 0,
            settings,
        };
        replica.follow_peer(now);
        replica
    }

    /// Takes one input.
    ///
    /// # Panics
    ///
    /// When an invariant is broken: better to stop than to acknowledge a lie.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.look_at(now);
        let input = match input {
            Input::Connected(connection) => {
                return self.finish(now, |replica| replica.on_connected(connection, now));
            }
            Input::Frame(connection, frame) => {
                return self.finish(now, |replica| replica.on_frame(connection, frame, now));
            }
            Input::Disconnected(connection) => return self.finish(now, |replica| replica.forget(connection)),
            Input::SnapshotSliceWritten => {
                return self.finish(now, |replica| {
                    replica.snapshotting.on_slice_written(&replica.tree, &mut replica.outputs);
                });
            }
            Input::Packet(link, packet) => {
                return self.finish(now, |replica| replica.on_packet(link, packet, now));
            }
            Input::SnapshotReceived(link, body) => {
                return self.finish(now, |replica| replica.on_snapshot_received(link, body, now));
            }
            Input::Reloaded(recovery) => {
                return self.finish(now, |replica| replica.on_reloaded(*recovery, now));
            }
            Input::Progress(link) => zab::Input::Progress(link),
            Input::Durable(zxid) => zab::Input::Durable(zxid),
            Input::AcceptedEpochDurable(epoch) => zab::Input::AcceptedEpochDurable(epoch),
            Input::CurrentEpochDurable(epoch) => zab::Input::CurrentEpochDurable(epoch),
            Input::LogRead { link, entries } => zab::Input::LogRead { link, entries },
            Input::Notification(from, message) => zab::Input::Notification(from, message),
            Input::Reachable(peer, is_reachable) => zab::Input::Reachable(peer, is_reachable),
            Input::Accepted(link) => zab::Input::Accepted(link),
            Input::Dialled { attempt, link } => zab::Input::Dialled { attempt, link },
            Input::LinkClosed(link) => zab::Input::LinkClosed(link),
        };
        self.finish(now, |replica| replica.peer.handle(now.monotonic, input));
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.look_at(now);
        self.peer.handle_timeout(now.monotonic);
        self.follow_peer(now);
        self.expire_sessions(now);
        self.expire_local_sessions(now);
        if let Role::Idle { read_only_at: Some(at) } = self.role
            && at <= now.monotonic
        {
            info!(zxid = %self.tree.last_zxid(), "no leader was found; serving reads of what is here");
            self.role = Role::ReadOnly(ExpiryQueue::new(now.monotonic, self.settings.peer.tick));
            self.serve_those_who_wait(now);
        }
        if let Some(entry) = self.recording.take_due(now.monotonic) {
            self.outputs.push_back(Output::RecordCommitted(entry));
        }
        while let Some((deadline, connection)) = self.handshakes.first().copied()
            && deadline <= now.monotonic
        {
            let is_serving = self.is_serving();
            let reason = if is_serving { CloseReason::HandshakeTimeout } else { CloseReason::NotServing };
            self.close(connection, reason);
        }
        self.finish(now, |_| ());
    }

    /// When [`Replica::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let handshake = self.handshakes.first().map(|(deadline, _)| *deadline);
        let expiry = match &self.role {
            Role::Leading(leading) => leading.expiry.next_look(),
            Role::Idle { read_only_at } => *read_only_at,
            Role::ReadOnly(_) | Role::Learning(_) => None,
        };
        let local = if self.is_serving() { self.local.next_look() } else { None };
        [handshake, expiry, local, self.recording.due_at(), self.peer.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if let Some(Output::Reply(_, frame) | Output::Notify(_, frame)) = &output {
            self.told_bytes = self.told_bytes.saturating_sub(frame.len());
        }
        output
    }

    /// Bytes of replies and notifications among the outputs; answers to the opening of a session do not count.
    pub const fn told_bytes(&self) -> usize {
        self.told_bytes
    }

    /// Whether clients are served.
    pub const fn is_serving(&self) -> bool {
        matches!(self.role, Role::Leading(_) | Role::Learning(_))
    }

    /// Whether clients may read though there is no leader.
    pub const fn is_read_only(&self) -> bool {
        matches!(self.role, Role::ReadOnly(_))
    }

    /// This member's part in the protocol.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What is committed and was not written down yet: a member that stops has this done last.
    pub fn take_unrecorded(&mut self) -> Option<Entry> {
        self.recording.take()
    }

    /// What was counted since the start.
    pub const fn counts(&self) -> ReplicaCounts {
        self.counts
    }

    /// Ends every input: what the peer asks for is done, and the invariants hold.
    fn finish(&mut self, now: Now, act: impl FnOnce(&mut Self)) {
        act(self);
        self.follow_peer(now);
        self.check_invariants();
    }

    /// Takes note of the time, before anything else is done at it.
    fn look_at(&mut self, now: Now) {
        // Who looks so late was away, and may have been replaced: what waits in its sockets is not answered before that is known.
        let is_late = |due| now.monotonic.saturating_duration_since(due) > self.settings.peer.tick;
        if self.peer.poll_timeout().is_some_and(is_late) {
            self.peer.handle_timeout(now.monotonic);
            self.follow_peer(now);
        }
        self.local.look_at(now.monotonic);
        self.subscribers.look_at(now.monotonic);
        if let Role::Leading(leading) = &mut self.role
            && let Some(away) = leading.expiry.look_at(now.monotonic)
        {
            warn!(
                away_ms = away.as_millis(),
                "this member was away; every session has its whole timeout again"
            );
        }
    }

    /// Carries out what the peer asks for, in its order.
    fn follow_peer(&mut self, now: Now) {
        while let Some(output) = self.peer.poll_output() {
            let output = match output {
                zab::Output::Event(event) => {
                    self.on_event(event, now);
                    continue;
                }
                zab::Output::SendVote(to, message) => Output::SendVote(to, message),
                zab::Output::Dial { attempt, server } => Output::Dial { attempt, server },
                zab::Output::Send(link, packet) => Output::Send(link, packet),
                zab::Output::CloseLink(link) => Output::CloseLink(link),
                zab::Output::Append(entry) => {
                    if mutation::is_on(Mutation::M26) {
                        self.recording.on_delivered(&entry);
                    }
                    Output::Append(entry)
                }
                zab::Output::SetAcceptedEpoch(epoch) => Output::SetAcceptedEpoch(epoch),
                zab::Output::SetCurrentEpoch(epoch) => Output::SetCurrentEpoch(epoch),
                zab::Output::Truncate { zxid, is_reload } => {
                    if is_reload {
                        self.snapshotting.cancel();
                        self.recording.cancel();
                    }
                    Output::Truncate { zxid, is_reload }
                }
                zab::Output::ReadLog { link, after } => Output::ReadLog { link, after },
            };
            self.outputs.push_back(output);
        }
    }

    fn on_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Deliver(entry) => self.on_deliver(&entry, now),
            Event::Led(epoch) => self.on_led(epoch, now),
            Event::Followed { .. } => {
                self.close_served();
                if self.fuzzy_to == UNKNOWN {
                    self.fuzzy_to = self.peer.last_zxid();
                }
                self.role = Role::Learning(Learning::default());
                self.note_service();
                self.local.on_served(&self.tree, now.monotonic);
                self.serve_those_who_wait(now);
            }
            Event::Lost => {
                self.counts.losses += 1;
                self.role = idle(&self.settings, now);
                self.syncs.clear();
                self.local.on_lost();
                self.close_served();
            }
            Event::Request(link, request) => self.on_forwarded(link, request, now),
            Event::Revalidate { link, session, timeout_ms } => {
                self.on_revalidate(link, session, timeout_ms, now);
            }
            Event::Touched(sessions) => self.on_touched(&sessions, now),
            Event::Revalidated { session, is_valid } => self.on_revalidated(session, is_valid, now),
            Event::Pinged(zxid) => self.on_pinged(zxid),
            Event::Synced => self.on_synced(now),
            Event::SendSnapshot(link) => self.send_snapshot(link),
            Event::InstallSnapshot { zxid, body } => self.install_snapshot(zxid, body),
            Event::Synchronizing { mode, .. } => {
                self.counts.syncs[match mode {
                    SyncMode::Diff => 0,
                    SyncMode::Trunc => 1,
                    SyncMode::Snap => 2,
                }] += 1;
            }
        }
    }

    /// A quorum holds this: apply it.
    fn on_deliver(&mut self, entry: &Entry, now: Now) {
        let (txn, connection) = match &mut self.role {
            Role::Leading(leading) => leading.take_in_flight(entry),
            Role::Learning(learning) => learning.take_received(entry),
            Role::Idle { .. } | Role::ReadOnly(_) => (decode(entry), None),
        };
        self.apply(&txn, connection, now);
        self.snapshotting.on_applied(&self.tree, entry.payload.len(), &mut self.outputs);
        self.recording.on_delivered(entry);
    }

    /// Applies a committed txn: events first, then the reply to whoever asked for it.
    fn apply(&mut self, txn: &Txn, connection: Option<ConnectionId>, now: Now) {
        let (zxid, session) = (txn.header.zxid, txn.header.session);
        let applied = self.tree.apply(txn);
        self.counts.applied_txns += 1;
        // What a snapshot holds of later txns is no tree that anybody else has had.
        if zxid >= self.fuzzy_to {
            self.digests.note(zxid, self.tree.digest());
            self.check_digest(txn);
        }
        self.tell_watchers(zxid, &applied.changes);
        if let Role::Leading(leading) = &mut self.role {
            leading.on_applied(txn, now);
        }
        if let Some(id) = connection {
            self.answer_commit(id, txn, applied.result, now);
        }
        if let TxnOp::CreateSession { .. } = txn.op {
            self.local.remove(session);
        }
        if let TxnOp::Error(_) = txn.op
            && txn.header.cxid == Xid(0)
        {
            self.on_upgrade_refused(session);
        }
        if let TxnOp::CloseSession { .. } = txn.op {
            self.tell_ended(session, now);
            if let Some(id) = self.by_session.get(&session).copied() {
                let asked = connection == Some(id);
                self.close(id, if asked { CloseReason::SessionClosed } else { CloseReason::SessionExpired });
            }
        }
    }

    /// Compares with what the leader computed, where it did: Apache's do.
    fn check_digest(&mut self, txn: &Txn) {
        let Some(expected) = txn.digest else { return };
        let found = self.tree.digest();
        if found == expected {
            return;
        }
        self.counts.digest_mismatches += 1;
        if self.counts.digest_mismatches.is_power_of_two() {
            error!(zxid = %txn.header.zxid, expected, found, "this member's tree is not its leader's");
        }
    }

    /// A packet of another member; what it carries must be a txn.
    fn on_packet(&mut self, link: LinkId, packet: Packet, now: Now) {
        if !self.peer.is_leader_link(link) {
            // Nobody else proposes anything to it.
            return self.peer.handle(now.monotonic, zab::Input::Packet(link, packet));
        }
        if let Packet::Proposal(entry) | Packet::Inform(entry) = &packet {
            match Txn::decode(&entry.payload) {
                Ok(txn) if txn.header.zxid == entry.zxid => {
                    if let Role::Learning(learning) = &mut self.role {
                        learning.received.push_back(txn);
                    }
                }
                Ok(_) | Err(_) => {
                    error!(zxid = %entry.zxid, "a proposal cannot be understood; is the leader of a newer version?");
                    return self.break_link(link, now);
                }
            }
        }
        if let Packet::Snap(zxid) = packet {
            self.incoming = Some(Incoming { link, zxid, tree: None });
        }
        self.peer.handle(now.monotonic, zab::Input::Packet(link, packet));
    }

    /// Ends a connection between members, as if it had broken.
    fn break_link(&mut self, link: LinkId, now: Now) {
        self.outputs.push_back(Output::CloseLink(link));
        self.peer.handle(now.monotonic, zab::Input::LinkClosed(link));
    }

    /// The epochs on disk, accepted and current.
    pub const fn epochs(&self) -> (Epoch, Epoch) {
        self.peer.epochs()
    }

    /// Asserts what must hold between inputs.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn check_invariants(&self) {
        assert_eq!(self.tree.last_zxid(), self.peer.committed(), "the tree holds what is committed");
        assert_eq!(
            self.is_serving(),
            self.peer.leader().is_some(),
            "clients are served while there is a leader"
        );
        if let Role::Leading(leading) = &self.role {
            leading.check_invariants(self.peer.outstanding());
        }
        assert!(self.by_session.len() <= self.connections.len(), "every session served has a connection");
        self.subscribers.check_invariants(self.connections.len());
    }
}

/// Reads a txn that was checked when it came, or when it was recovered.
fn decode(entry: &Entry) -> Txn {
    Txn::decode(&entry.payload).expect("what is in the history was decoded before")
}
