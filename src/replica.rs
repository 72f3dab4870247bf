//! A whole member without I/O.
//!
//! ```text
//!            ┌ frames ─► prepare ─► propose ─► Append ─► (log) ─► Durable ─► commit ─► apply ─┬► events
//! clients ───┤                                                                                ├► replies
//!            └ reads ──► wait for the connection's own writes ─► committed tree ──────────────┘
//! ```
//!
//! Things that happen come in as an [`Input`]; things to do go out, in order, as [`Output`]s; the next deadline
//! is [`Replica::poll_timeout`]. Nothing here reads a clock, a socket or a file, so that the driver, a simulator and a
//! model checker run the same code.
//!
//! Invariants: nothing is answered before a quorum holds it durably; events of a txn are queued before any reply
//! that could reveal it; replies of a connection keep the order of its requests; the tree holds committed
//! state only. [`Replica::check_invariants`] runs after every input.
//!
//! So far a member is a quorum of its own: it establishes an epoch at start and leads it.
//!
//! Source for the order of things: `Leader.java` (epochs), `ZooKeeperServer.java` (sessions) and
//! `FinalRequestProcessor.java` (writes) of Apache ZooKeeper.

mod access;
mod connection;
mod expiry;
mod overlay;
mod port;
mod prepare;
mod read;
mod reply;
mod session;
mod snapshot;
mod watch;

#[cfg(test)]
mod tests;

pub use self::port::{CloseReason, ConnectionId, Input, Now, Output, ReplicaSettings};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use tracing::{debug, info, warn};

use self::connection::{Awaiting, Connection, Pending, Phase};
use self::expiry::ExpiryQueue;
use self::prepare::{Preparer, Write};
use self::session::SessionIds;
use self::snapshot::Snapshotting;
use self::watch::Watches;
use crate::codec::Reader;
use crate::id::{Epoch, SessionId, Xid, Zxid};
use crate::tree::{Tree, Txn, TxnHeader, TxnOp};
use crate::wire::{Request, RequestHeader};
use crate::zab::{Broadcast, Entry, Quorum};
use crate::znode::{OpCode, OpError};

/// One member of the ensemble.
#[derive(Debug)]
pub struct Replica {
    settings: ReplicaSettings,
    tree: Tree,
    reign: Reign,
    preparer: Preparer,
    /// Proposals that are not applied yet, oldest first, as many as the broadcast has outstanding.
    in_flight: VecDeque<InFlight>,
    /// Connections whose sync waits for a txn, oldest first.
    barriers: VecDeque<(Zxid, ConnectionId)>,
    connections: BTreeMap<ConnectionId, Connection>,
    by_session: BTreeMap<SessionId, ConnectionId>,
    handshakes: BTreeSet<(Instant, ConnectionId)>,
    session_ids: SessionIds,
    expiry: ExpiryQueue,
    watches: Watches,
    snapshotting: Snapshotting,
    applied_txns: u64,
    outputs: VecDeque<Output>,
}

/// Whether this member leads.
#[derive(Debug)]
enum Reign {
    /// The epoch is being written down.
    Establishing(Epoch),
    /// It leads, and broadcasts.
    Leading(Broadcast),
}

#[derive(Debug)]
struct InFlight {
    txn: Txn,
    connection: Option<ConnectionId>,
}

impl Replica {
    /// A member over what its storage recovered. It first establishes an epoch above all it has seen.
    pub fn new(settings: ReplicaSettings, tree: Tree, last_epoch: Epoch, now: Now) -> Self {
        let epoch = last_epoch.max(tree.last_zxid().epoch()).next();
        let mut replica = Self {
            reign: Reign::Establishing(epoch),
            preparer: Preparer::default(),
            in_flight: VecDeque::new(),
            barriers: VecDeque::new(),
            connections: BTreeMap::new(),
            by_session: BTreeMap::new(),
            handshakes: BTreeSet::new(),
            session_ids: SessionIds::new(settings.server_id, now.unix_ms),
            expiry: ExpiryQueue::new(now.monotonic, settings.tick),
            watches: Watches::default(),
            snapshotting: Snapshotting::new(settings.snapshot_txns),
            applied_txns: 0,
            outputs: VecDeque::new(),
            settings,
            tree,
        };
        replica.outputs.push_back(Output::SetEpoch(epoch));
        replica
    }

    /// Takes one input.
    ///
    /// # Panics
    ///
    /// When an invariant is broken: better to stop than to acknowledge a lie.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.look_at(now);
        match input {
            Input::Connected(connection) => self.on_connected(connection, now),
            Input::Frame(connection, frame) => self.on_frame(connection, frame, now),
            Input::Disconnected(connection) => self.forget(connection),
            Input::Durable(zxid) => self.on_durable(zxid, now),
            Input::EpochDurable(epoch) => self.on_epoch_durable(epoch, now),
            Input::SnapshotSliceWritten => self.snapshotting.on_slice_written(&self.tree, &mut self.outputs),
        }
        self.check_invariants();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.look_at(now);
        if !self.is_serving() {
            return;
        }
        for session in self.expiry.take_expired(now.monotonic) {
            info!(%session, "session expired");
            self.propose_close(None, session, Xid(0), now);
        }
        while let Some((deadline, connection)) = self.handshakes.first().copied()
            && deadline <= now.monotonic
        {
            self.close(connection, CloseReason::HandshakeTimeout);
        }
        self.check_invariants();
    }

    /// When [`Replica::handle_timeout`] is due. While no epoch is established nothing is: no session expires because
    /// there was nobody to hear it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.is_serving() {
            return None;
        }
        let handshake = self.handshakes.first().map(|(deadline, _)| *deadline);
        [handshake, self.expiry.next_look()].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether clients are served.
    pub const fn is_serving(&self) -> bool {
        matches!(self.reign, Reign::Leading(_))
    }

    /// The committed tree.
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// How many txns were applied since the start.
    pub const fn applied_txns(&self) -> u64 {
        self.applied_txns
    }

    /// How many paths the clients connected here watch.
    pub fn watched_paths(&self) -> usize {
        self.watches.watched_paths()
    }

    fn look_at(&mut self, now: Now) {
        if let Some(away) = self.expiry.look_at(now.monotonic) {
            warn!(
                away_ms = away.as_millis(),
                "this member was away; every session has its whole timeout again"
            );
        }
    }

    fn on_connected(&mut self, connection: ConnectionId, now: Now) {
        if !self.is_serving() {
            self.outputs.push_back(Output::Close(connection, CloseReason::NotServing));
            return;
        }
        let deadline = now.monotonic + self.settings.handshake_timeout;
        self.connections.insert(connection, Connection::new(deadline));
        self.handshakes.insert((deadline, connection));
    }

    fn on_frame(&mut self, id: ConnectionId, frame: Bytes, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match &mut connection.phase {
            Phase::Fresh { .. } => self.on_connect_request(id, &frame, now),
            Phase::Opening { backlog, .. } => backlog.push_back(frame),
            Phase::Open { session, timeout } => {
                let (session, timeout) = (*session, *timeout);
                if self.preparer.is_alive(&self.tree, session) {
                    self.expiry.touch(session, timeout, now.monotonic);
                }
                self.on_request(id, session, &frame, now);
            }
            Phase::Refusing { .. } => {}
        }
    }

    /// Decodes a request and starts on it.
    fn on_request(&mut self, id: ConnectionId, session: SessionId, frame: &[u8], now: Now) {
        let mut reader = Reader::new(frame);
        let header = match RequestHeader::decode(&mut reader) {
            Ok(header) => header,
            Err(error) => return self.close(id, error.into()),
        };
        let xid = header.xid;
        let decoded = match OpCode::from_code(header.op_code) {
            Some(op) => Request::decode(op, &mut reader),
            None => Ok(None),
        };
        let request = match decoded {
            Ok(Some(request)) => request,
            Ok(None) => {
                let reason = CloseReason::UnknownOperation(header.op_code);
                return self.refuse(id, session, xid, OpError::Unimplemented, reason);
            }
            Err(error) => return self.refuse(id, session, xid, OpError::MarshallingError, error.into()),
        };
        let write = match request {
            Request::Create(create) => Write::Create(create),
            Request::Create2(create) => Write::Create2(create),
            Request::Delete { path, version } => Write::Delete { path, version },
            Request::SetData { path, data, version } => Write::SetData { path, data, version },
            Request::SetAcl { path, acl, version } => Write::SetAcl { path, acl, version },
            Request::Multi(ops) => Write::Multi(ops),
            Request::CloseSession => return self.propose_close(Some(id), session, xid, now),
            Request::Auth { scheme, .. } => {
                let reason = CloseReason::AuthRefused(scheme);
                return self.refuse(id, session, xid, OpError::AuthFailed, reason);
            }
            Request::Sync { path } => return self.on_sync(id, xid, path),
            Request::Ping
            | Request::Exists { .. }
            | Request::GetData { .. }
            | Request::GetAcl { .. }
            | Request::GetChildren { .. }
            | Request::GetChildren2 { .. }
            | Request::SetWatches(_)
            | Request::SetWatches2(_)
            | Request::AddWatch { .. }
            | Request::CheckWatches { .. }
            | Request::RemoveWatches { .. } => {
                return self.enqueue(id, Pending { xid, awaiting: Awaiting::Turn(request) });
            }
        };
        self.propose(Some(id), session, xid, write, now);
    }

    /// Proposes the end of a session, and before it that of the ephemerals that are too many for one txn.
    fn propose_close(&mut self, connection: Option<ConnectionId>, session: SessionId, cxid: Xid, now: Now) {
        for paths in self.preparer.surplus_ephemerals(&self.tree, session) {
            self.propose(None, session, Xid(0), Write::DeleteEphemerals(paths), now);
        }
        self.propose(connection, session, cxid, Write::CloseSession, now);
    }

    /// Proposes a write. Its reply, if a connection waits for one, comes when it is applied.
    fn propose(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        cxid: Xid,
        write: Write,
        now: Now,
    ) {
        let Reign::Leading(broadcast) = &mut self.reign else {
            // Nothing can be promised until the next epoch is on disk; a request without a reply would be worse.
            if let Some(id) = connection {
                self.close(id, CloseReason::NotServing);
            }
            return;
        };
        let Some(zxid) = broadcast.next_zxid() else {
            // The epoch's counter is used up: a new epoch begins once everything in flight is applied.
            let connections: Vec<_> = self.connections.keys().copied().collect();
            connections.into_iter().for_each(|id| self.close(id, CloseReason::NotServing));
            return self.establish_if_used_up();
        };
        let (op, shape) = self.preparer.prepare(&self.tree, zxid, session, write);
        let txn = Txn { header: TxnHeader { session, cxid, zxid, time_ms: now.unix_ms }, op, digest: None };
        let entry = Entry { zxid, payload: txn.encode() };
        broadcast.propose(entry.clone());
        self.outputs.push_back(Output::Append(entry));
        self.in_flight.push_back(InFlight { txn, connection });
        if let Some(id) = connection {
            self.enqueue(id, Pending { xid: cxid, awaiting: Awaiting::Commit { zxid, shape } });
        }
    }

    /// A sync waits for everything proposed before it.
    fn on_sync(&mut self, id: ConnectionId, xid: Xid, path: String) {
        let zxid = self.in_flight.back().map_or(self.tree.last_zxid(), |last| last.txn.header.zxid);
        if zxid > self.tree.last_zxid() {
            self.barriers.push_back((zxid, id));
        }
        self.enqueue(id, Pending { xid, awaiting: Awaiting::Barrier { zxid, path } });
    }

    fn enqueue(&mut self, id: ConnectionId, pending: Pending) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.pending.push_back(pending);
        if connection.pending.len() == 1 {
            self.answer_pending(id);
        }
    }

    /// Answers a request with an error in its turn, and closes the connection then.
    fn refuse(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        xid: Xid,
        error: OpError,
        reason: CloseReason,
    ) {
        self.enqueue(id, Pending { xid, awaiting: Awaiting::Refusal { error, reason } });
        self.enter(id, Phase::Refusing { session });
    }

    fn on_durable(&mut self, zxid: Zxid, now: Now) {
        let Reign::Leading(broadcast) = &mut self.reign else { return };
        broadcast.on_ack(self.settings.server_id, zxid);
        while let Reign::Leading(broadcast) = &mut self.reign
            && let Some(entry) = broadcast.poll_commit()
        {
            let in_flight = self.in_flight.pop_front().expect("every proposal is in flight until applied");
            assert_eq!(in_flight.txn.header.zxid, entry.zxid, "commits come in the order of proposals");
            self.apply(&in_flight, now);
        }
        self.establish_if_used_up();
    }

    /// Applies a committed txn: events first, then the reply to whoever asked for it.
    fn apply(&mut self, in_flight: &InFlight, now: Now) {
        let InFlight { txn, connection } = in_flight;
        let (zxid, session) = (txn.header.zxid, txn.header.session);
        let applied = self.tree.apply(txn);
        self.applied_txns += 1;
        self.preparer.on_applied(zxid);
        for change in &applied.changes {
            for (watcher, event) in self.watches.fire(change) {
                self.notify(watcher, zxid, &event);
            }
        }
        let is_close = matches!(txn.op, TxnOp::CloseSession { .. });
        if is_close {
            self.preparer.on_session_closed(session);
            self.expiry.remove(session);
        } else if matches!(txn.op, TxnOp::CreateSession { .. }) {
            self.preparer.on_session_created(session);
        }
        if let Some(id) = connection {
            self.answer_commit(*id, zxid, applied.result, now);
        }
        if is_close && let Some(id) = self.by_session.get(&session).copied() {
            let asked = *connection == Some(id);
            self.close(id, if asked { CloseReason::SessionClosed } else { CloseReason::SessionExpired });
        }
        while let Some((until, waiting)) = self.barriers.front().copied()
            && until <= zxid
        {
            self.barriers.pop_front();
            self.answer_pending(waiting);
        }
        self.snapshotting.on_applied(&self.tree, &mut self.outputs);
    }

    fn on_epoch_durable(&mut self, epoch: Epoch, now: Now) {
        let Reign::Establishing(establishing) = self.reign else { return };
        assert_eq!(epoch, establishing, "the epoch written is the one asked for");
        let begin = Zxid::new(epoch, 0);
        self.tree.set_last_zxid(begin);
        self.reign = Reign::Leading(Broadcast::new(Quorum::majority_of([self.settings.server_id]), begin));
        info!(%epoch, "leading");

        // Nobody could be heard while there was no leader: every session gets its whole timeout again.
        let sessions: Vec<_> = self.tree.sessions().iter().collect();
        for (session, timeout_ms) in sessions {
            self.expiry.touch(session, session::timeout(timeout_ms), now.monotonic);
        }
        // A fuzzy snapshot may hold ephemerals of a session that it no longer lists.
        let orphaned: Vec<_> =
            self.tree.ephemeral_owners().filter(|owner| !self.tree.sessions().contains(*owner)).collect();
        for session in orphaned {
            self.propose_close(None, session, Xid(0), now);
        }
    }

    /// Begins the next epoch when this one's counter is used up and nothing is in flight.
    fn establish_if_used_up(&mut self) {
        let Reign::Leading(broadcast) = &self.reign else { return };
        if broadcast.next_zxid().is_none() && broadcast.outstanding() == 0 {
            let epoch = self.tree.last_zxid().epoch().next();
            self.reign = Reign::Establishing(epoch);
            self.outputs.push_back(Output::SetEpoch(epoch));
        }
    }

    /// Moves a connection on to its next phase.
    fn enter(&mut self, id: ConnectionId, phase: Phase) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Phase::Fresh { deadline } = std::mem::replace(&mut connection.phase, phase) {
            self.handshakes.remove(&(deadline, id));
        }
    }

    /// Closes a connection from this side and forgets it.
    fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        debug!(connection = id.0, %reason, "closing");
        self.outputs.push_back(Output::Close(id, reason));
        self.forget(id);
    }

    /// Forgets a connection; its session lives on until it expires.
    fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.watches.remove_connection(id);
        if let Phase::Fresh { deadline } = connection.phase {
            self.handshakes.remove(&(deadline, id));
        }
        if let Some(session) = connection.session()
            && self.by_session.get(&session) == Some(&id)
        {
            self.by_session.remove(&session);
        }
    }

    /// Asserts what must hold between inputs.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn check_invariants(&self) {
        if let Reign::Leading(broadcast) = &self.reign {
            assert_eq!(self.in_flight.len(), broadcast.outstanding(), "what is proposed is in flight");
            assert_eq!(self.tree.last_zxid(), broadcast.last_committed(), "the tree holds what is committed");
        }
        assert!(
            !self.in_flight.is_empty() || self.preparer.is_idle(),
            "nothing in flight, nothing tentative"
        );
        assert!(self.by_session.len() <= self.connections.len(), "every session served has a connection");
    }
}
