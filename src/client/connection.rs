//! The task that owns a session and its socket: it carries bytes and time in, and the session's outputs out.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{Span, debug, field, info, info_span, warn};

use super::dial::{Dialed, Dialer, HostNames, dial};
use super::error::ClientError;
use super::session::{Input, Output, Reply, Session, Ticket};
use super::socket::{ByteStream, Socket};
use super::state::{ClientState, ClientStats};
use super::watch_table::WatcherId;
use super::watcher::{Delivery, WatchNotice, WatchSender};
use crate::clock;
use crate::wire::{Request, split_frame};
use crate::znode::WatchedEvent;

/// A request on its way to the session.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) request: Request,
    pub(super) sink: Option<WatchSink>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Reply, ClientError>>,
}

/// Where a watch delivers to.
#[derive(Debug)]
pub(super) enum WatchSink {
    Once(oneshot::Sender<WatchedEvent>),
    Lasting(WatchSender),
}

/// Who waits for the session to be closed.
pub(super) type CloseWaiter = oneshot::Sender<Result<(), ClientError>>;

/// When the server last proved itself current.
#[derive(Debug)]
pub(super) struct Proof {
    started: Instant,
    /// ns since `started`, plus one; 0 while there was none.
    at_ns: AtomicU64,
}

impl Proof {
    pub(super) const fn new(now: Instant) -> Self {
        Self { started: now, at_ns: AtomicU64::new(0) }
    }

    pub(super) fn get(&self) -> Option<Instant> {
        let at_ns = self.at_ns.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.started + Duration::from_nanos(at_ns))
    }

    fn set(&self, now: Instant) {
        let ns =
            u64::try_from(now.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX - 1);
        self.at_ns.store(ns + 1, Ordering::Relaxed);
    }
}

/// The task's state.
pub(super) struct Connection {
    session: Session,
    link: Link,
    /// The addresses each server had when it was last reached.
    known_addresses: FxHashMap<Arc<str>, Vec<SocketAddr>>,
    /// Who looks up servers before the system does.
    host_names: Option<HostNames>,
    /// How servers are reached, if not by TCP.
    dialer: Option<Dialer>,
    frame_bytes_max: usize,
    commands: mpsc::Receiver<Command>,
    closings: mpsc::Receiver<CloseWaiter>,
    close_waiters: Vec<CloseWaiter>,
    answers: FxHashMap<Ticket, oneshot::Sender<Result<Reply, ClientError>>>,
    sinks: FxHashMap<WatcherId, WatchSink>,
    last_ticket: u64,
    state: watch::Sender<ClientState>,
    proof: Arc<Proof>,
    stats: Arc<ClientStats>,
    span: Span,
    is_ended: bool,
}

enum Link {
    Down,
    Dialing(Arc<str>, Pin<Box<dyn Future<Output = Result<Reached, String>> + Send>>),
    Up(Socket),
}

/// A server that was reached in whatever way, and its addresses if that was TCP.
type Reached = (Box<dyn ByteStream>, Vec<SocketAddr>);

enum LinkEvent {
    Dialed(Arc<str>, Result<Reached, String>),
    Read(Result<(), String>),
}

impl Connection {
    pub(super) fn new(
        session: Session,
        frame_bytes_max: usize,
        commands: mpsc::Receiver<Command>,
        closings: mpsc::Receiver<CloseWaiter>,
        state: watch::Sender<ClientState>,
        proof: Arc<Proof>,
        stats: Arc<ClientStats>,
    ) -> Self {
        Self {
            session,
            link: Link::Down,
            known_addresses: FxHashMap::default(),
            host_names: None,
            dialer: None,
            frame_bytes_max,
            commands,
            closings,
            close_waiters: Vec::new(),
            answers: FxHashMap::default(),
            sinks: FxHashMap::default(),
            last_ticket: 0,
            state,
            proof,
            stats,
            span: info_span!("session", id = field::Empty),
            is_ended: false,
        }
    }

    /// The same, which has servers looked up by somebody else first, or reached in another way.
    pub(super) fn with_ways(mut self, host_names: Option<HostNames>, dialer: Option<Dialer>) -> Self {
        self.host_names = host_names;
        self.dialer = dialer;
        self
    }

    /// Runs until the session is closed or all handles are dropped.
    pub(super) async fn run(mut self) {
        loop {
            // 1. What the session wants done.
            self.carry_out();
            if self.is_ended {
                return;
            }
            // 2. The timer, or one input. Chosen at random, so that a flood of events starves nobody.
            let wake_at = self.session.poll_timeout();
            tokio::select! {
                event = self.link.next() => self.on_link(event),
                () = sleep_to(wake_at) => self.on_timer(),
                Some(waiter) = self.closings.recv() => self.on_close(waiter),
                command = self.commands.recv(), if self.session.has_room() => match command {
                    Some(command) => self.on_commands(command),
                    None => return,
                },
            }
        }
    }

    /// Takes those that wait as well, at most as many as their queue holds, so that they leave in one write.
    fn on_commands(&mut self, first: Command) {
        self.on_command(first);
        for _ in 1..self.commands.max_capacity() {
            if !self.session.has_room() {
                return;
            }
            let Ok(command) = self.commands.try_recv() else { return };
            self.on_command(command);
        }
    }

    fn on_command(&mut self, command: Command) {
        self.stats.requests.add_one();
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let watcher = command.sink.map(|sink| {
            let watcher = WatcherId(ticket.0);
            self.sinks.insert(watcher, sink);
            watcher
        });
        self.answers.insert(ticket, command.answer);
        let input = Input::Submit { ticket, request: command.request, watcher, deadline: command.deadline };
        self.session.handle(input, clock::now());
    }

    fn on_close(&mut self, waiter: CloseWaiter) {
        self.close_waiters.push(waiter);
        self.session.handle(Input::Close, clock::now());
    }

    fn on_timer(&mut self) {
        // A process that was stopped finds its timer due and the answers unread: read them first.
        if let Link::Up(socket) = &mut self.link {
            let outcome = socket.read_now();
            self.take_in(outcome);
        }
        self.session.handle(Input::Tick, clock::now());
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Dialed(server, Ok((stream, addresses))) => {
                self.known_addresses.insert(server, addresses);
                self.link = Link::Up(Socket::new(stream));
                self.session.handle(Input::Opened, clock::now());
            }
            LinkEvent::Dialed(_, Err(cause)) => self.fail(cause),
            LinkEvent::Read(outcome) => self.take_in(outcome),
        }
    }

    fn fail(&mut self, cause: String) {
        self.link = Link::Down;
        self.session.handle(Input::Failed(cause.into()), clock::now());
    }

    /// Hands the session every frame that is whole by now; the last read came to `outcome`.
    fn take_in(&mut self, outcome: Result<(), String>) {
        while let Link::Up(socket) = &mut self.link {
            match split_frame(&mut socket.incoming, self.frame_bytes_max) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if !self.session.is_serving() {
                        self.forget_the_abandoned();
                    }
                    self.session.handle(Input::Frame(frame), clock::now());
                    self.carry_out();
                }
                Err(error) => return self.fail(error.to_string()),
            }
        }
        if let (Link::Up(_), Err(cause)) = (&self.link, outcome) {
            self.fail(cause);
        }
    }

    /// Before anything is sent on a new connection: what nobody waits for any more is neither asked nor watched.
    fn forget_the_abandoned(&mut self) {
        let now = clock::now();
        for (ticket, _) in self.answers.extract_if(|_, answer| answer.is_closed()) {
            self.session.handle(Input::Withdraw(ticket), now);
        }
        for (watcher, _) in self.sinks.extract_if(|_, sink| sink.is_closed()) {
            self.session.handle(Input::Unwatch(watcher), now);
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Dial(server) => self.dial(server),
                Output::Send(bytes) => self.send(&bytes),
                Output::HangUp(cause) => {
                    self.link = Link::Down;
                    self.span.in_scope(|| debug!(%cause, "hanging up"));
                }
                Output::Complete(ticket, result) => self.complete(ticket, result),
                Output::Fire(watcher, event) => self.fire(watcher, event),
                Output::Notify(watcher, notice) => self.notify(watcher, notice),
                Output::Forget(watcher) => drop(self.sinks.remove(&watcher)),
                Output::Proved(round_trip) => self.prove(round_trip),
                Output::BegunAnew(times) => self.stats.beginnings.set(times),
                Output::State(state) => self.publish(state),
                Output::Ended(result) => self.end(&result),
            }
        }
        if let Link::Up(socket) = &mut self.link {
            socket.write_now();
        }
    }

    fn dial(&mut self, server: Arc<str>) {
        self.stats.dials.add_one();
        self.span.in_scope(|| debug!(%server, "dialing"));
        let known = self.known_addresses.get(&server).cloned().unwrap_or_default();
        let dialing = server.clone();
        self.link = Link::Dialing(
            server,
            match self.dialer.clone() {
                Some(dialer) => Box::pin(async move { Ok((dialer.dial(&dialing).await?, Vec::new())) }),
                None => Box::pin(dial_by_tcp(dialing, known, self.host_names.clone())),
            },
        );
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Link::Up(socket) = &mut self.link {
            socket.send(bytes);
        }
    }

    fn complete(&mut self, ticket: Ticket, result: Result<Reply, ClientError>) {
        if let Err(error) = &result {
            // What a server refuses it has answered: a client may well expect it.
            if error.op_error().is_none() {
                self.stats.requests_failed.add_one();
            }
            self.span.in_scope(|| debug!(%error, "request failed"));
        }
        if let Some(answer) = self.answers.remove(&ticket) {
            let _nobody_waits = answer.send(result);
        }
    }

    fn fire(&mut self, watcher: WatcherId, event: WatchedEvent) {
        self.stats.events.add_one();
        if let Some(WatchSink::Once(sink)) = self.sinks.remove(&watcher) {
            let _nobody_listens = sink.send(event);
        }
    }

    fn notify(&mut self, watcher: WatcherId, notice: WatchNotice) {
        self.stats.events.add_one();
        let Some(WatchSink::Lasting(sink)) = self.sinks.get(&watcher) else { return };
        match sink.send(notice) {
            Delivery::Queued => {}
            Delivery::Overflowed => {
                self.stats.watch_overflows.add_one();
                self.span.in_scope(|| warn!("a watcher was too far behind and has to resync"));
            }
            Delivery::Dropped => {
                self.sinks.remove(&watcher);
                self.session.handle(Input::Unwatch(watcher), clock::now());
            }
        }
    }

    fn prove(&self, round_trip: Option<Duration>) {
        self.proof.set(clock::now());
        if let Some(round_trip) = round_trip {
            let us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
            self.stats.ping_round_trip_us.set(us.max(1));
        }
    }

    fn publish(&mut self, state: ClientState) {
        match &state {
            ClientState::Connecting { last_failure } => {
                self.stats.connections_lost.add_one();
                self.log_loss(last_failure.as_deref());
            }
            ClientState::Closed => self.span.in_scope(|| info!("closed")),
            ClientState::Connected { session, generation, server, timeout } => {
                self.stats.connections.add_one();
                self.span = info_span!("session", id = %session);
                self.span.in_scope(|| info!(%server, generation, ?timeout, "connected"));
            }
            ClientState::Expired { generation, .. } => {
                self.stats.sessions_expired.add_one();
                self.span.in_scope(|| warn!(generation, "session expired, a new one follows"));
            }
        }
        self.state.send_replace(state);
    }

    /// Warns of a loss and of the first dial that fails; the dials that follow say nothing new.
    fn log_loss(&self, cause: Option<&str>) {
        let is_known = matches!(&*self.state.borrow(), ClientState::Connecting { last_failure: Some(_) });
        self.span.in_scope(|| {
            if is_known {
                debug!(cause, "still no connection");
            } else {
                warn!(cause, "no connection, trying on");
            }
        });
    }

    fn end(&mut self, result: &Result<(), ClientError>) {
        for waiter in self.close_waiters.drain(..) {
            let _nobody_waits = waiter.send(result.clone());
        }
        self.is_ended = true;
    }
}

impl Drop for Connection {
    /// However the task ends, those who look at the state learn of it.
    fn drop(&mut self) {
        self.state.send_replace(ClientState::Closed);
    }
}

impl WatchSink {
    fn is_closed(&self) -> bool {
        match self {
            Self::Once(sink) => sink.is_closed(),
            Self::Lasting(sink) => sink.is_closed(),
        }
    }
}

impl Link {
    /// Waits for something to do. Losing this future loses nothing.
    async fn next(&mut self) -> LinkEvent {
        match self {
            Self::Down => pending().await,
            Self::Dialing(server, dial) => LinkEvent::Dialed(server.clone(), dial.await),
            Self::Up(socket) => LinkEvent::Read(socket.read().await),
        }
    }
}

async fn dial_by_tcp(
    server: Arc<str>,
    known: Vec<SocketAddr>,
    host_names: Option<HostNames>,
) -> Result<Reached, String> {
    let Dialed { stream, addresses } = dial(&server, known, host_names.as_ref()).await?;
    Ok((Box::new(stream), addresses))
}

async fn sleep_to(wake_at: Option<Instant>) {
    match wake_at {
        Some(wake_at) => sleep_until(wake_at.into()).await,
        None => pending().await,
    }
}
