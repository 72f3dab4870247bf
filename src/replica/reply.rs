//! Telling clients: replies in the order of their requests, notifications before the replies that reveal them.

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::connection::{Awaiting, Pending};
use super::prepare::ReplyShape;
use super::watch::Firing;
use super::{CloseReason, ConnectionId, Now, Output, Replica, access, config_node, read, session};
use crate::id::{Xid, Zxid};
use crate::tree::{Change, Txn, TxnResult};
use crate::wire::{OpResult, ReplyHeader, Request, Response, write_frame};
use crate::znode::{CarriedZnode, EventKind, OpError, Permissions, WatchedEvent};

impl Replica {
    /// A txn that a request of this connection waits for is applied.
    pub(super) fn answer_commit(&mut self, id: ConnectionId, txn: &Txn, result: TxnResult, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let is_next = connection.pending.front().is_some_and(|pending| {
            pending.xid == txn.header.cxid && matches!(pending.awaiting, Awaiting::Commit { .. })
        });
        assert!(is_next, "a connection waits for its own txns in their order");
        let Some(pending) = connection.pending.pop_front() else { return };
        if session::is_session_opening(&pending) {
            return self.on_session_opened(id, now);
        }
        let Pending { xid, awaiting: Awaiting::Commit { shape } } = pending else { return };
        let Some(result) = response_of(shape, result) else {
            // Another's txn was taken for that of this request, which the client's numbers allow. What became of its own is not known.
            return self.close(id, CloseReason::NotServing);
        };
        if result == Err(OpError::SessionMoved) {
            // It has lost its session to another connection, and nothing more to hear (ZOOKEEPER-710).
            return self.close(id, CloseReason::SessionMoved);
        }
        self.reply(id, xid, txn.header.zxid, result);
        self.answer_pending(id);
    }

    /// Answers what the connection waits for as far as nothing is in the way.
    pub(super) fn answer_pending(&mut self, id: ConnectionId) {
        loop {
            let applied = self.tree.last_zxid();
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let is_ready = connection.pending.front().is_some_and(|pending| match &pending.awaiting {
                Awaiting::Commit { .. } => false,
                Awaiting::Sync { is_done, .. } => *is_done,
                Awaiting::Turn(_) | Awaiting::Farewell { .. } => true,
            });
            if !is_ready {
                return;
            }
            let Some(Pending { xid, awaiting }) = connection.pending.pop_front() else { return };
            match awaiting {
                Awaiting::Commit { .. } => return,
                Awaiting::Sync { path, .. } => self.reply(id, xid, applied, Ok(Response::Path(path))),
                Awaiting::Turn(Ok(request)) => self.answer_read(id, xid, applied, &request),
                Awaiting::Turn(Err(error)) => self.reply(id, xid, applied, Err(error)),
                Awaiting::Farewell { result, reason } => {
                    let zxid = if result == Err(OpError::Unimplemented) { Zxid::NONE } else { applied };
                    self.reply(id, xid, zxid, result.map(|()| Response::Empty));
                    return self.close(id, reason);
                }
            }
        }
    }

    fn answer_read(&mut self, id: ConnectionId, xid: Xid, applied: Zxid, request: &Request) {
        let result = if let Request::SetWatches(watches) | Request::SetWatches2(watches) = request {
            let missed = read::set_watches(&self.tree, &mut self.watches, id, watches);
            missed.map(|missed| {
                missed.iter().for_each(|event| self.notify(id, Zxid::NONE, event));
                Response::Empty
            })
        } else if let Some(result) = self.answer_barrier(id, request) {
            result
        } else {
            let found = read::read(&self.tree, &mut self.watches, id, request);
            found.map(|response| config_node::shown(&self.settings.peer.config, request, response))
        };
        if result.is_ok() {
            self.note_subscription(id, request);
        }
        self.reply(id, xid, applied, result);
    }

    fn reply(&mut self, id: ConnectionId, xid: Xid, zxid: Zxid, result: Result<Response, OpError>) {
        let mut frame = Vec::new();
        write_frame(&mut frame, |out| {
            ReplyHeader { xid, zxid, error: result.as_ref().err().copied() }.encode(out);
            if let Ok(response) = &result {
                response.encode(out);
            }
        });
        self.told_bytes += frame.len();
        self.outputs.push_back(Output::Reply(id, frame.into()));
    }

    /// Tells of what a txn that is applied has changed.
    pub(super) fn tell_watchers(&mut self, zxid: Zxid, changes: &[Change]) {
        for (change, is_last) in with_last(changes) {
            for firing in self.watches.fire(change) {
                self.notify_watchers(zxid, &firing, is_last);
            }
        }
    }

    /// Tells of one event: subscribers with what stands there now, others without, all by the same frame. Subscribers that follow what is
    /// there are told of the last change of each znode alone.
    fn notify_watchers(&mut self, zxid: Zxid, firing: &Firing, is_last: bool) {
        let Firing { event, watchers, followers } = firing;
        let (mut bare, mut full) = (None, None);
        for (id, is_told_always) in
            watchers.iter().map(|id| (id, true)).chain(followers.iter().map(|id| (id, is_last)))
        {
            let is_subscriber = self.subscribers.contains(*id);
            if is_subscriber && !is_told_always {
                continue;
            }
            let frame = if is_subscriber {
                full.get_or_insert_with(|| notification(zxid, event, |out| self.carry(event, out)))
            } else {
                bare.get_or_insert_with(|| notification(zxid, event, |_| {}))
            };
            self.told_bytes += frame.len();
            self.outputs.push_back(Output::Notify(*id, frame.clone()));
        }
    }

    /// Queues a notification. It carries the txn that fired it, as since 3.9; `-1` when a client missed it.
    pub(super) fn notify(&mut self, id: ConnectionId, zxid: Zxid, event: &WatchedEvent) {
        let frame = notification(zxid, event, |_| {});
        self.told_bytes += frame.len();
        self.outputs.push_back(Output::Notify(id, frame));
    }

    /// Adds the znode of an event, unless it is long, or is not for everybody to read. Whoever is not told reads it.
    fn carry(&self, event: &WatchedEvent, out: &mut Vec<u8>) {
        if event.kind == EventKind::ChildrenChanged || event.path.starts_with("/zookeeper") {
            // What is the system's own is read in ways of its own.
            return;
        }
        let Some(node) = self.tree.node(&event.path) else { return CarriedZnode::Gone.encode(out) };
        let data = node.data();
        let is_short = data.is_none_or(|data| data.len() <= CARRIED_BYTES_MAX);
        if is_short && access::check(node.acl(), Permissions::READ).is_ok() {
            CarriedZnode::encode_there(data, &node.stat(), out);
        }
    }
}

/// Each change of a txn, and whether it is the last one of its znode.
fn with_last(changes: &[Change]) -> impl Iterator<Item = (&Change, bool)> {
    let mut last = FxHashMap::default();
    if changes.len() > 1 {
        last.extend(changes.iter().enumerate().map(|(at, change)| (change.path().as_str(), at)));
    }
    let is_last =
        move |at: usize, change: &Change| last.get(change.path().as_str()).is_none_or(|last| *last == at);
    changes.iter().enumerate().map(move |(at, change)| (change, is_last(at, change)))
}

/// The longest data that go with an event: more than the record of an instance mostly has, and nothing to fill a client's queue with.
const CARRIED_BYTES_MAX: usize = 4 << 10;

fn notification(zxid: Zxid, event: &WatchedEvent, carry: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut frame = Vec::new();
    write_frame(&mut frame, |out| {
        ReplyHeader { xid: Xid::NOTIFICATION, zxid, error: None }.encode(out);
        event.encode(out);
        carry(out);
    });
    frame.into()
}

/// What the client is told of an applied txn; `None` when it does not fit the request.
fn response_of(shape: ReplyShape, result: TxnResult) -> Option<Result<Response, OpError>> {
    Some(match (shape, result) {
        (_, TxnResult::Error(error)) => Err(error),
        (ReplyShape::Multi(_), TxnResult::Multi(results)) if results.iter().any(is_failed) => {
            Ok(Response::Multi(results.into_iter().map(failed_result_of).collect()))
        }
        (ReplyShape::Multi(shapes), TxnResult::Multi(results)) => {
            let results: Option<Vec<_>> = shapes.into_iter().zip(results).map(op_result_of).collect();
            Ok(Response::Multi(results?))
        }
        (ReplyShape::Path, TxnResult::Created { path, .. }) => Ok(Response::Path(path.to_string())),
        (ReplyShape::PathStat, TxnResult::Created { path, stat }) => {
            Ok(Response::PathStat(path.to_string(), stat))
        }
        (ReplyShape::Stat, TxnResult::Stat(stat)) => Ok(Response::Stat(stat)),
        (ReplyShape::Empty, _) => Ok(Response::Empty),
        _ => return None,
    })
}

const fn is_failed(result: &TxnResult) -> bool {
    matches!(result, TxnResult::RolledBack | TxnResult::Error(_))
}

/// What became of one operation of a multi that failed.
fn failed_result_of(result: TxnResult) -> OpResult {
    match result {
        TxnResult::Error(error) => OpResult::Error(Some(error)),
        TxnResult::RolledBack
        | TxnResult::Created { .. }
        | TxnResult::Deleted
        | TxnResult::Stat(_)
        | TxnResult::Checked
        | TxnResult::Multi(_)
        | TxnResult::SessionCreated
        | TxnResult::SessionClosed => OpResult::Error(None),
    }
}

fn op_result_of((shape, result): (ReplyShape, TxnResult)) -> Option<OpResult> {
    Some(match (shape, result) {
        (ReplyShape::Path, TxnResult::Created { path, .. }) => OpResult::Create(path.to_string()),
        (ReplyShape::PathStat, TxnResult::Created { path, stat }) => {
            OpResult::Create2(path.to_string(), stat)
        }
        (ReplyShape::Stat, TxnResult::Stat(stat)) => OpResult::SetData(stat),
        (ReplyShape::Check, _) => OpResult::Check,
        (ReplyShape::Empty, _) => OpResult::Delete,
        _ => return None,
    })
}
