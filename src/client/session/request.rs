//! The requests of a session: those that wait for a connection, and those that are under way on one.
//!
//! ```text
//!  on_submit ──► waiting ── a connection serves ──► pending ── on_reply ──► Complete
//!     │             └ late, expired, closed ──────┐    └ connection lost ──┐
//!     └ closed, too many watches ─────────────────┴────────────────────────┴──► Complete with an error
//! ```
//!
//! Replies are taken strictly in the order of the requests; what was sent when a connection is lost fails, since nobody
//! knows whether it was carried out. Which connection there is, and when, is the business of the parent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::message::{Output, Reply, Ticket};
use super::{Phase, Session};
use crate::client::error::{ClientError, Operation};
use crate::client::watch_table::{ANY_WATCH, WatchKind, WatcherId};
use crate::client::watcher::{ResyncReason, WatchNotice};
use crate::codec::Reader;
use crate::id::Xid;
use crate::wire::{FRAME_BYTES_MAX, ReplyHeader, Request, Response, write_frame};
use crate::znode::OpError;

/// A request that was not sent yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) watcher: Option<WatcherId>,
    pub(super) deadline: Instant,
}

/// A request that was sent and not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) xid: Xid,
    pub(super) operation: Operation,
    pub(super) purpose: Purpose,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) enum Purpose {
    Answer { ticket: Ticket, watch: Option<(WatcherId, WatchKind)> },
    Rearm { resync: Option<ResyncReason> },
    Close,
}

impl Session {
    /// Whether another request may be submitted; otherwise callers wait.
    pub(in crate::client) fn has_room(&self) -> bool {
        self.waiting.len() + self.pending.len() < REQUESTS_MAX && self.request_bytes < REQUEST_BYTES_MAX
    }

    pub(super) fn on_submit(&mut self, waiting: Waiting, now: Instant) {
        if let Request::RemoveWatches { path, kind: ANY_WATCH } = &waiting.request {
            // Now, since with an answer that gets lost the server's end of them is lost as well.
            let removed = self.watches.remove_at(path);
            self.outputs.extend(removed.into_iter().map(Output::Forget));
        }
        let operation = Operation::of(&waiting.request);
        let refusal = if self.closing.is_some() || matches!(self.phase, Phase::Ended) {
            ClientError::Closed
        } else if waiting.watcher.is_some() && self.watches.len() >= WATCHES_MAX {
            ClientError::TooManyWatches { operation, max: WATCHES_MAX }
        } else if self.is_serving() {
            return self.send_request(waiting, now);
        } else {
            return self.waiting.push_back(waiting);
        };
        self.refuse(&waiting, refusal);
    }

    /// Servers drop the connection for a frame that is too long: such a request is not sent.
    pub(super) fn send_request(&mut self, waiting: Waiting, now: Instant) {
        let xid = self.next_xid();
        let frame = frame_of(&waiting.request, xid);
        let (bytes, max) = (frame.len() - FRAME_LENGTH_BYTES, FRAME_BYTES_MAX);
        let operation = Operation::of(&waiting.request);
        if bytes > max {
            return self.refuse(&waiting, ClientError::TooLong { operation, bytes, max });
        }
        let watch = waiting.watcher.zip(WatchKind::set_by(&waiting.request));
        let purpose = Purpose::Answer { ticket: waiting.ticket, watch };
        self.send(Pending { xid, operation, purpose, bytes: frame.len() }, frame, now);
    }

    pub(super) fn send_close(&mut self, now: Instant) {
        let xid = self.next_xid();
        self.send_own(&Request::CloseSession, xid, Purpose::Close, now);
    }

    pub(super) fn send_own(&mut self, request: &Request, xid: Xid, purpose: Purpose, now: Instant) {
        let frame = frame_of(request, xid);
        let operation = Operation::of(request);
        self.send(Pending { xid, operation, purpose, bytes: frame.len() }, frame, now);
    }

    fn send(&mut self, pending: Pending, frame: Vec<u8>, now: Instant) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.last_sent = now;
        }
        self.request_bytes += pending.bytes;
        self.pending.push_back(pending);
        self.outputs.push_back(Output::Send(frame));
    }

    fn next_xid(&mut self) -> Xid {
        self.last_xid = self.last_xid.checked_add(1).unwrap_or(1);
        Xid(self.last_xid)
    }

    pub(super) fn refuse(&mut self, waiting: &Waiting, error: ClientError) {
        self.outputs.extend(waiting.watcher.map(Output::Forget));
        self.outputs.push_back(Output::Complete(waiting.ticket, Err(error)));
    }

    pub(super) fn on_reply(&mut self, header: ReplyHeader, reader: &mut Reader<'_>) -> Result<(), String> {
        let expected = self.pending.front();
        let Some(pending) = expected.filter(|pending| pending.xid == header.xid) else {
            let expected = expected.map(|pending| pending.xid.0);
            return Err(format!("it answered request {}, {expected:?} was expected", header.xid));
        };
        let result = match header.error {
            Some(error) => Err(error),
            None => Ok(Response::decode(pending.operation.op, reader)
                .map_err(|error| format!("{}: {error}", pending.operation))?),
        };
        let Pending { operation, purpose, bytes, .. } = self.pending.pop_front().expect("looked at above");
        self.request_bytes -= bytes;
        self.failures = 0;
        self.outputs.push_back(Output::Proved(None));
        match purpose {
            Purpose::Answer { ticket, watch } => {
                self.last_zxid = self.last_zxid.max(header.zxid);
                self.seen = self.seen.max(header.zxid);
                self.set_watch(watch, &operation, result.as_ref().err().copied());
                let reply = result.map(|response| Reply { zxid: header.zxid, response });
                let reply = reply.map_err(|error| ClientError::Op { operation, error });
                self.outputs.push_back(Output::Complete(ticket, reply));
            }
            // Its zxid is not taken over: until all batches are answered, a later relative zxid would make the next
            // connection skip what the unanswered ones missed.
            Purpose::Rearm { resync } => {
                result.map_err(|error| format!("it did not take the watches back: {error}"))?;
                if let Some(reason) = resync {
                    self.notify_lasting(&WatchNotice::Resync(reason));
                }
            }
            Purpose::Close => {
                self.outputs.push_back(Output::HangUp("the session is closed".into()));
                self.end(Ok(()));
            }
        }
        Ok(())
    }

    /// Registers the watch that a request set, as far as its answer says that it did.
    fn set_watch(
        &mut self,
        watch: Option<(WatcherId, WatchKind)>,
        operation: &Operation,
        error: Option<OpError>,
    ) {
        let Some((watcher, kind)) = watch else { return };
        let kind = match (kind, error) {
            (kind, None) => kind,
            (WatchKind::Exist, Some(OpError::NoNode)) => {
                return self.watches.add(watcher, WatchKind::Exist, operation.path.clone());
            }
            (_, Some(_)) => return self.outputs.push_back(Output::Forget(watcher)),
        };
        // A znode that is there is watched for its data, whichever request asked.
        let kind = if kind == WatchKind::Exist { WatchKind::Data } else { kind };
        self.watches.add(watcher, kind, operation.path.clone());
    }

    /// Fails what has waited for a connection too long.
    pub(super) fn expire_waiting(&mut self, now: Instant) {
        let (late, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.deadline <= now);
        self.waiting = rest;
        let late: VecDeque<Waiting> = late;
        for waiting in late {
            let error = ClientError::NotConnected {
                operation: Operation::of(&waiting.request),
                waited: self.settings.request_timeout,
                servers: self.servers.clone(),
                last_failure: self.last_failure.clone().unwrap_or_else(|| "none yet".into()),
            };
            self.refuse(&waiting, error);
        }
    }

    pub(super) fn fail_pending(&mut self, server: &Arc<str>, cause: &str) {
        self.request_bytes = 0;
        let cause: Arc<str> = cause.into();
        for Pending { operation, purpose, .. } in std::mem::take(&mut self.pending) {
            let Purpose::Answer { ticket, watch } = purpose else { continue };
            self.outputs.extend(watch.map(|(watcher, _)| Output::Forget(watcher)));
            let error =
                ClientError::ConnectionLost { operation, server: server.clone(), cause: cause.clone() };
            self.outputs.push_back(Output::Complete(ticket, Err(error)));
        }
    }
}

pub(super) fn frame_of(request: &Request, xid: Xid) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, |out| request.encode(xid, out));
    frame
}

/// Requests that wait or are under way at once; beyond it callers wait their turn. Apache ZooKeeper stops reading
/// from its connections at 1000 outstanding requests (`globalOutstandingLimit`), so more would only queue there.
const REQUESTS_MAX: usize = 1000;
/// The same in bytes, since one request may have a whole frame.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Watches at once, one-shot ones included: what a reconnect has to bring back, at about 100 bytes each.
const WATCHES_MAX: usize = 1 << 16;
/// The length that precedes each frame.
const FRAME_LENGTH_BYTES: usize = 4;
