//! The session as a state machine: what to dial, send, answer and wait for. No clock, no socket.
//!
//! ```text
//!            Dial             Opened                    Frame: session kept or new
//!  Resting ────────► Dialing ────────► Greeting ──────────────────────────────────► Serving
//!     ▲                 │ Failed, late    │ Failed, late, Frame: expired                │ Failed, silent,
//!     └─────────────────┴─────────────────┴─────────────────────────────────────────────┘ Frame: garbage
//! ```
//!
//! In goes an [`Input`] with the time it came at, out come [`Output`]s in the order in which they are to be carried
//! out, and [`Session::poll_timeout`] says when to call with [`Input::Tick`] at the latest.
//!
//! Invariants: requests wait only while there is no connection that serves, and are under way only while there is
//! one; replies are taken strictly in the order of the requests; a session ends only when a server says so, or opens another where
//! this one was refused for longer than it can have lived.
//!
//! Servers that are behind what a client has seen refuse it without a word. That protects it from old data, and locks it out for good of
//! an ensemble that lost its data and began anew. So whoever is refused for longer than the session lives asks for a new one, in turn with
//! the old, and keeps it if that server is behind still: who has no quorum refuses that, too, and who has caught up takes the old one.
//!
//! What becomes of each request is in `request`.
//!
//! Source: `ClientCnxn.java` of Apache ZooKeeper, but for what is noted.

mod message;
mod request;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::warn;

pub use self::message::Reply;
pub(super) use self::message::{Input, Output, Ticket};
use self::request::{Pending, Purpose, Waiting, frame_of};
use super::error::{ClientError, Operation};
use super::settings::ClientSettings;
use super::state::ClientState;
use super::watch_table::WatchTable;
use super::watcher::{ResyncReason, WatchNotice};
use crate::codec::Reader;
use crate::id::{SessionId, Xid, Zxid};
use crate::wire::{ConnectRequest, ConnectResponse, ReplyHeader, Request, SetWatches, write_frame};
use crate::znode::{CarriedZnode, SessionPassword, WatchedEvent};

/// Bytes of paths in one setWatches; Apache's client has the same, well below the frame bound.
const REARM_BYTES_MAX: usize = 128 << 10;

/// A session and the connection that it has or wants.
#[derive(Debug)]
pub(super) struct Session {
    settings: ClientSettings,
    rng: fastrand::Rng,
    servers: Arc<[Arc<str>]>,
    next_server: usize,
    /// Dials since the last connection that answered anything after the first frame.
    failures: u32,
    last_failure: Option<Arc<str>>,
    phase: Phase,
    /// The session to resume, [`SessionId::NONE`] when there is none.
    id: SessionId,
    password: SessionPassword,
    timeout: Duration,
    generation: u64,
    /// The newest zxid of a reply, not of an event: after event and before reply other events of the same txn may
    /// be under way, which re-arming with a later zxid would lose.
    last_zxid: Zxid,
    /// The newest zxid of anything that was told, events as well: a server that has not come so far is not to be believed again.
    seen: Zxid,
    /// Since when servers that can be reached answer the first frame with nothing, and how often they have.
    refused: Option<(Instant, u32)>,
    /// Times that zxids began anew.
    beginnings: u64,
    last_xid: i32,
    waiting: VecDeque<Waiting>,
    pending: VecDeque<Pending>,
    request_bytes: usize,
    watches: WatchTable,
    closing: Option<Instant>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Phase {
    Resting {
        dial_at: Instant,
    },
    Dialing {
        server: Arc<str>,
        give_up_at: Instant,
    },
    Greeting {
        server: Arc<str>,
        give_up_at: Instant,
        /// Whether a new session was asked for although there is one.
        is_anew: bool,
    },
    /// A new session was opened beside the old one, and a ping tells whether the server is behind.
    Probing {
        server: Arc<str>,
        give_up_at: Instant,
        opened: ConnectResponse,
    },
    Serving(Serving),
    Ended,
}

#[derive(Debug)]
struct Serving {
    server: Arc<str>,
    last_sent: Instant,
    last_received: Instant,
    /// When the pings that were not answered yet were sent.
    pings: VecDeque<Instant>,
}

impl Session {
    /// A session that wants its first connection at `now`. `seed` decides the order of servers and the pauses.
    pub(super) fn new(settings: ClientSettings, seed: u64, now: Instant) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut servers: Vec<Arc<str>> = settings.servers.iter().map(|server| Arc::from(&**server)).collect();
        rng.shuffle(&mut servers);
        Self {
            timeout: settings.session_timeout,
            settings,
            rng,
            servers: servers.into(),
            next_server: 0,
            failures: 0,
            last_failure: None,
            phase: Phase::Resting { dial_at: now },
            id: SessionId::NONE,
            password: SessionPassword::ZERO,
            generation: 0,
            last_zxid: Zxid::ZERO,
            seen: Zxid::ZERO,
            refused: None,
            beginnings: 0,
            last_xid: 0,
            waiting: VecDeque::new(),
            pending: VecDeque::new(),
            request_bytes: 0,
            watches: WatchTable::default(),
            closing: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes note of what happened at `now`.
    pub(super) fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Submit { ticket, request, watcher, deadline } => {
                self.on_submit(Waiting { ticket, request, watcher, deadline }, now);
            }
            Input::Withdraw(ticket) => self.waiting.retain(|waiting| waiting.ticket != ticket),
            Input::Unwatch(watcher) => self.watches.remove(watcher),
            Input::Opened => self.on_opened(now),
            Input::Failed(cause) => self.lose(&cause, now),
            Input::Frame(frame) => self.on_frame(&frame, now),
            Input::Close => self.on_close(now),
            Input::Tick => self.on_tick(now),
        }
        self.check_invariants();
    }

    /// The next thing to do.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call with [`Input::Tick`] unless something else happens before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Resting { dial_at } => Some(*dial_at),
            Phase::Dialing { give_up_at, .. }
            | Phase::Greeting { give_up_at, .. }
            | Phase::Probing { give_up_at, .. } => Some(*give_up_at),
            Phase::Serving(serving) => Some(self.ping_at(serving).min(self.silent_at(serving))),
            Phase::Ended => None,
        };
        let waiting = self.waiting.iter().map(|waiting| waiting.deadline).min();
        [phase, waiting, self.closing].into_iter().flatten().min()
    }

    /// Whether requests are sent at once.
    pub(super) const fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving(_))
    }

    fn on_opened(&mut self, now: Instant) {
        let Phase::Dialing { server, give_up_at } = &self.phase else { return };
        let (server, give_up_at) = (server.clone(), *give_up_at + self.settings.connect_timeout);
        let is_anew = self.closing.is_none()
            && self.refused.is_some_and(|(since, times)| {
                // In turn: the old one is tried again, too.
                now.saturating_duration_since(since) > self.timeout * 2 && times.is_multiple_of(2)
            });
        self.phase = Phase::Greeting { server, give_up_at, is_anew };
        let (last_zxid_seen, session, password) = if is_anew {
            (Zxid::ZERO, SessionId::NONE, SessionPassword::ZERO)
        } else {
            (self.seen, self.id, self.password)
        };
        let greeting = ConnectRequest {
            last_zxid_seen,
            timeout_ms: i32::try_from(self.settings.session_timeout.as_millis()).unwrap_or(i32::MAX),
            session,
            password,
            read_only: Some(false),
        };
        let mut frame = Vec::new();
        write_frame(&mut frame, |out| greeting.encode(out));
        self.outputs.push_back(Output::Send(frame));
    }

    fn on_frame(&mut self, frame: &Bytes, now: Instant) {
        let result = match &mut self.phase {
            Phase::Greeting { server, is_anew, give_up_at } => {
                let (server, is_anew, give_up_at) = (server.clone(), *is_anew, *give_up_at);
                match ConnectResponse::decode(frame) {
                    Err(error) => Err(error.to_string()),
                    Ok(opened) if is_anew => self.probe(server, opened, give_up_at),
                    Ok(response) => self.on_connect_response(response, server, now),
                }
            }
            Phase::Probing { server, opened, .. } => {
                let (server, opened) = (server.clone(), opened.clone());
                self.on_probed(frame, server, opened, now)
            }
            Phase::Serving(serving) => {
                serving.last_received = now;
                self.on_message(frame, now)
            }
            Phase::Resting { .. } | Phase::Dialing { .. } | Phase::Ended => return,
        };
        if let Err(garbage) = result {
            self.hang_up(&format!("the server broke the protocol: {garbage}"), now);
        }
    }

    fn on_connect_response(
        &mut self,
        response: ConnectResponse,
        server: Arc<str>,
        now: Instant,
    ) -> Result<(), String> {
        let Some(timeout) = response.timeout() else { return self.on_expired(now) };
        if response.session == SessionId::NONE || ![SessionId::NONE, response.session].contains(&self.id) {
            return Err(format!("asked for session {}, it answered for {}", self.id, response.session));
        }
        self.refused = None;
        let is_new = self.id == SessionId::NONE;
        self.generation += u64::from(is_new);
        self.id = response.session;
        self.password = response.password;
        self.timeout = timeout;
        let state = ClientState::Connected {
            session: self.id,
            generation: self.generation,
            server: server.clone(),
            timeout,
        };
        self.phase =
            Phase::Serving(Serving { server, last_sent: now, last_received: now, pings: VecDeque::new() });
        self.rearm(if is_new { ResyncReason::NewSession } else { ResyncReason::Reconnected }, now);
        self.outputs.push_back(Output::State(state));
        for waiting in std::mem::take(&mut self.waiting) {
            self.send_request(waiting, now);
        }
        if self.closing.is_some() {
            self.send_close(now);
        }
        Ok(())
    }

    /// A server says that the session is gone. Requests that waited were meant for it: they fail, so that nobody
    /// finds an ephemeral in a session that it knows nothing of.
    fn on_expired(&mut self, now: Instant) -> Result<(), String> {
        let session = std::mem::replace(&mut self.id, SessionId::NONE);
        if session == SessionId::NONE {
            return Err(NO_SESSION.to_owned());
        }
        self.forget(session);
        self.outputs.push_back(Output::HangUp("the session has expired".into()));
        if self.closing.is_some() {
            self.end(Ok(()));
        } else {
            self.rest(now);
        }
        Ok(())
    }

    /// A new session was opened beside the old one. Is the server behind?
    fn probe(
        &mut self,
        server: Arc<str>,
        opened: ConnectResponse,
        give_up_at: Instant,
    ) -> Result<(), String> {
        if opened.timeout().is_none() || opened.session == SessionId::NONE {
            return Err(NO_SESSION.to_owned());
        }
        self.outputs.push_back(Output::Send(frame_of(&Request::Ping, Xid::PING)));
        self.phase = Phase::Probing { server, give_up_at, opened };
        Ok(())
    }

    fn on_probed(
        &mut self,
        frame: &[u8],
        server: Arc<str>,
        opened: ConnectResponse,
        now: Instant,
    ) -> Result<(), String> {
        let header = ReplyHeader::decode(&mut Reader::new(frame)).map_err(|error| error.to_string())?;
        if header.zxid >= self.seen {
            // It will take the old session, or say that it is gone. The new one is not left to expire.
            self.outputs.push_back(Output::Send(frame_of(&Request::CloseSession, Xid(1))));
            self.refused = None;
            self.hang_up("it has caught up with what was seen before", now);
            return Ok(());
        }
        self.begin_anew(&server, header.zxid);
        self.on_connect_response(opened, server, now)
    }

    /// The ensemble began anew, or this server is far behind, which no new session would know.
    fn begin_anew(&mut self, server: &str, found: Zxid) {
        warn!(
            server,
            seen = %self.seen,
            %found,
            "servers have refused for long what had seen newer data than theirs: a new session is begun on what they have"
        );
        let session = std::mem::replace(&mut self.id, SessionId::NONE);
        if session != SessionId::NONE {
            self.forget(session);
        }
        (self.last_zxid, self.seen) = (Zxid::ZERO, Zxid::ZERO);
        self.beginnings += 1;
        self.outputs.push_back(Output::BegunAnew(self.beginnings));
    }

    /// The session is gone, and what was meant for it with it.
    fn forget(&mut self, session: SessionId) {
        self.password = SessionPassword::ZERO;
        self.outputs.push_back(Output::State(ClientState::Expired { session, generation: self.generation }));
        for waiting in std::mem::take(&mut self.waiting) {
            let operation = Operation::of(&waiting.request);
            self.refuse(&waiting, ClientError::SessionExpired { operation, session });
        }
    }

    fn on_message(&mut self, frame: &Bytes, now: Instant) -> Result<(), String> {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).map_err(|error| error.to_string())?;
        match header.xid {
            Xid::NOTIFICATION => self.on_notification(header, &mut reader),
            Xid::PING => self.on_pong(now),
            _ => self.on_reply(header, &mut reader),
        }
    }

    fn on_notification(&mut self, header: ReplyHeader, reader: &mut Reader<'_>) -> Result<(), String> {
        let event = WatchedEvent::decode(reader).map_err(|error| error.to_string())?;
        let carried = CarriedZnode::decode_rest(reader);
        self.seen = self.seen.max(header.zxid);
        for watcher in self.watches.fire_once(&event) {
            self.outputs.push_back(Output::Fire(watcher, event.clone()));
        }
        for watcher in self.watches.fire_lasting(&event) {
            let notice =
                WatchNotice::Event { event: event.clone(), zxid: header.zxid, carried: carried.clone() };
            self.outputs.push_back(Output::Notify(watcher, notice));
        }
        Ok(())
    }

    fn on_pong(&mut self, now: Instant) -> Result<(), String> {
        let Phase::Serving(serving) = &mut self.phase else { return Ok(()) };
        let sent = serving.pings.pop_front().ok_or("it answered a ping that was not sent")?;
        self.failures = 0;
        self.outputs.push_back(Output::Proved(Some(now.saturating_duration_since(sent))));
        Ok(())
    }

    fn on_close(&mut self, now: Instant) {
        if self.closing.is_some() || matches!(self.phase, Phase::Ended) {
            return;
        }
        self.closing = Some(now + self.settings.close_timeout);
        for waiting in std::mem::take(&mut self.waiting) {
            self.refuse(&waiting, ClientError::Closed);
        }
        if self.is_serving() {
            self.send_close(now);
        } else if self.id == SessionId::NONE {
            self.outputs.push_back(Output::HangUp("the client is closed".into()));
            self.end(Ok(()));
        } else if let Phase::Resting { dial_at } = &mut self.phase {
            *dial_at = now;
        }
    }

    fn on_tick(&mut self, now: Instant) {
        if self.closing.is_some_and(|give_up_at| give_up_at <= now) {
            return self.give_up_closing();
        }
        self.expire_waiting(now);
        match &self.phase {
            Phase::Resting { dial_at } if *dial_at <= now => self.dial(now),
            Phase::Dialing { give_up_at, .. } if *give_up_at <= now => {
                self.hang_up(&format!("no connection within {:?}", self.settings.connect_timeout), now);
            }
            Phase::Greeting { give_up_at, .. } | Phase::Probing { give_up_at, .. } if *give_up_at <= now => {
                self.hang_up("no answer to the first frame in time; the server may have no quorum", now);
            }
            Phase::Serving(serving) if self.silent_at(serving) <= now => {
                self.hang_up(&format!("no word for {:?}", now - serving.last_received), now);
            }
            Phase::Serving(serving) if self.ping_at(serving) <= now => self.ping(now),
            Phase::Resting { .. }
            | Phase::Dialing { .. }
            | Phase::Greeting { .. }
            | Phase::Probing { .. }
            | Phase::Serving(_)
            | Phase::Ended => {}
        }
    }

    fn dial(&mut self, now: Instant) {
        let Some(server) = self.servers.get(self.next_server % self.servers.len().max(1)).cloned() else {
            self.last_failure = Some("no server is configured".into());
            return self.rest(now);
        };
        self.next_server = (self.next_server + 1) % self.servers.len();
        let give_up_at = now + self.settings.connect_timeout;
        self.phase = Phase::Dialing { server: server.clone(), give_up_at };
        self.outputs.push_back(Output::Dial(server));
    }

    fn hang_up(&mut self, cause: &str, now: Instant) {
        self.outputs.push_back(Output::HangUp(cause.into()));
        self.lose(cause, now);
    }

    /// The connection, or the attempt at one, is no more. What was under way may or may not have been carried out.
    fn lose(&mut self, cause: &str, now: Instant) {
        let (server, was_serving) = match &self.phase {
            Phase::Dialing { server, .. }
            | Phase::Greeting { server, .. }
            | Phase::Probing { server, .. } => (server.clone(), false),
            Phase::Serving(serving) => (serving.server.clone(), true),
            Phase::Resting { .. } | Phase::Ended => return,
        };
        if matches!(self.phase, Phase::Greeting { .. }) && self.seen > Zxid::ZERO {
            let (since, times) = self.refused.unwrap_or((now, 0));
            self.refused = Some((since, times.saturating_add(1)));
        }
        self.last_failure = Some(self.describe_failure(&server, cause).into());
        let last_failure = self.last_failure.clone();
        self.outputs.push_back(Output::State(ClientState::Connecting { last_failure }));
        if was_serving {
            self.fail_pending(&server, cause);
            self.notify_lasting(&WatchNotice::Disconnected);
        }
        self.rest(now);
    }

    fn describe_failure(&self, server: &str, cause: &str) -> String {
        // Dialing names the address that failed, which may be all that is known of the server.
        let failure = if cause.starts_with(server) { cause.to_owned() } else { format!("{server}: {cause}") };
        // A server that is behind what a client has seen closes the connection without a word.
        if matches!(self.phase, Phase::Greeting { .. }) && self.seen > Zxid::ZERO {
            let seen = self.seen;
            return format!(
                "{failure}; if it stays, its data may be older than {seen}, which was seen before"
            );
        }
        failure
    }

    fn rest(&mut self, now: Instant) {
        let pause = self.settings.backoff().pause(self.failures, &mut self.rng);
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Resting { dial_at: now + pause };
    }

    fn rearm(&mut self, reason: ResyncReason, now: Instant) {
        let mut batches = self.watches.rearm(self.last_zxid, REARM_BYTES_MAX).into_iter().peekable();
        while let Some(batch) = batches.next() {
            let resync = if batches.peek().is_none() { Some(reason) } else { None };
            self.send_own(&set_watches(batch), Xid::SET_WATCHES, Purpose::Rearm { resync }, now);
        }
    }

    fn ping(&mut self, now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        serving.pings.push_back(now);
        serving.last_sent = now;
        self.outputs.push_back(Output::Send(frame_of(&Request::Ping, Xid::PING)));
    }

    fn notify_lasting(&mut self, notice: &WatchNotice) {
        let notices = self.watches.lasting().map(|watcher| Output::Notify(watcher, notice.clone()));
        self.outputs.extend(notices);
    }

    fn give_up_closing(&mut self) {
        let error = ClientError::NotClosed { session: self.id, waited: self.settings.close_timeout };
        self.hang_up_for_good("the session was not closed in time");
        self.end(Err(error));
    }

    fn hang_up_for_good(&mut self, cause: &str) {
        self.outputs.push_back(Output::HangUp(cause.into()));
        if let Phase::Serving(serving) = &self.phase {
            let server = serving.server.clone();
            self.fail_pending(&server, cause);
        }
    }

    fn end(&mut self, result: Result<(), ClientError>) {
        self.phase = Phase::Ended;
        self.closing = None;
        self.outputs.push_back(Output::State(ClientState::Closed));
        self.outputs.push_back(Output::Ended(result));
    }

    fn ping_at(&self, serving: &Serving) -> Instant {
        serving.last_sent + self.timeout / 3
    }

    fn silent_at(&self, serving: &Serving) -> Instant {
        serving.last_received + self.timeout * 2 / 3
    }

    fn check_invariants(&self) {
        assert!(
            self.waiting.is_empty() || !self.is_serving(),
            "a connection that serves keeps nobody waiting"
        );
        assert!(self.pending.is_empty() || self.is_serving(), "nothing is under way without a connection");
        assert!(!self.pending.is_empty() || self.request_bytes == 0, "bytes belong to requests under way");
    }
}

const NO_SESSION: &str = "it refuses to open a session";

/// setWatches where it will do, so that servers before 3.6 understand it.
fn set_watches(batch: SetWatches) -> Request {
    if batch.persistent.is_empty() && batch.persistent_recursive.is_empty() {
        Request::SetWatches(batch)
    } else {
        Request::SetWatches2(batch)
    }
}

#[cfg(test)]
mod tests;
