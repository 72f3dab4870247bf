//! Keeps one connection to one other member.
//!
//! Of two members the one with the greater id connects; the other one can only ask it to, by connecting itself and saying
//! who it is, whereupon the connection is closed:
//!
//! ```text
//! greater id: dial, hello ──────────────────────► installed
//! smaller id: dial, hello ──► closed by the other, which dials now
//! ```
//!
//! Unlike Apache ZooKeeper's members, which connect when they have something to say, ours always stay connected: a member
//! that comes back is reached at once, and one that is gone is known to be.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::connection::{self, EndReason};
use super::mailbox::Mailbox;
use crate::clock;
use crate::ensemble::dial::{Stream, Transport, is_distrust};
use crate::ensemble::log_limit::LogLimit;
use crate::ensemble::members::HostPort;
use crate::ensemble::peers::PeerEvent;
use crate::id::ServerId;

/// What is known of the other member, and how to reach it.
pub(super) struct Target {
    pub(super) peer: ServerId,
    /// Whether this member is the one that connects.
    pub(super) is_ours_to_dial: bool,
    pub(super) address: HostPort,
    /// What is said first.
    pub(super) hello: Arc<[u8]>,
    pub(super) transport: Transport,
    pub(super) tasks: TaskTracker,
}

/// What has come over the listener.
pub(super) enum Call {
    /// The other member connected, as is its part.
    Connected(Box<dyn Stream>),
    /// The other member has no connection, and wants one.
    Wanted,
}

/// The loop's state.
pub(super) struct Caller {
    target: Arc<Target>,
    calls: mpsc::Receiver<Call>,
    mailbox: Arc<Mailbox>,
    events: mpsc::Sender<PeerEvent>,
    backoff: Backoff,
    connection: Option<Connection>,
    dial: Option<AbortOnDropHandle<Dialled>>,
    next_dial: Instant,
    distrusts: LogLimit,
}

/// The connection, if it is this member's part to make one.
type Dialled = io::Result<Option<Box<dyn Stream>>>;

struct Connection {
    task: AbortOnDropHandle<EndReason>,
    since: Instant,
    /// The other member says that it has none.
    is_doubtful: bool,
}

/// A connection that lasted longer was a success, so that its end is no reason to wait before the next.
const SUCCESS_TIME: Duration = Duration::from_secs(1);
/// A wish for a connection that comes sooner after one was established has crossed it on the way.
const CROSSING_TIME: Duration = Duration::from_millis(200);
/// How long the other member may take to close the connection by which it was asked for one.
const WISH_TIME: Duration = Duration::from_secs(1);

impl Caller {
    pub(super) fn new(
        target: Target,
        calls: mpsc::Receiver<Call>,
        mailbox: Arc<Mailbox>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Self {
        let (target, backoff, next_dial) = (Arc::new(target), Backoff::new(), clock::now());
        Self {
            target,
            calls,
            mailbox,
            events,
            backoff,
            connection: None,
            dial: None,
            next_dial,
            distrusts: LogLimit::default(),
        }
    }

    /// Runs until the listener or the driver is gone.
    pub(super) async fn run(mut self) {
        loop {
            let is_idle = self.connection.is_none() && self.dial.is_none();
            tokio::select! {
                call = self.calls.recv() => match call {
                    Some(Call::Connected(stream)) => self.install(stream).await,
                    Some(Call::Wanted) => self.on_wanted(),
                    None => return,
                },
                ended = ended(&mut self.connection) => self.on_ended(ended).await,
                outcome = dialled(&mut self.dial) => self.on_dialled(outcome).await,
                () = tokio::time::sleep_until(self.next_dial.into()), if is_idle => self.start_dial(),
            }
            if self.events.is_closed() {
                return;
            }
        }
    }

    fn on_wanted(&mut self) {
        let now = clock::now();
        let crosses =
            |connection: &Connection| now.saturating_duration_since(connection.since) < CROSSING_TIME;
        if self.dial.is_some() || self.connection.as_ref().is_some_and(crosses) {
            return;
        }
        if let Some(connection) = &mut self.connection {
            connection.is_doubtful = true;
        }
        self.backoff.reset();
        self.start_dial();
    }

    fn start_dial(&mut self) {
        let target = self.target.clone();
        self.dial =
            Some(AbortOnDropHandle::new(target.tasks.clone().spawn(async move { target.call().await })));
    }

    async fn on_dialled(&mut self, outcome: Result<Dialled, JoinError>) {
        self.dial = None;
        self.next_dial = clock::now() + self.backoff.next();
        match outcome.unwrap_or_else(|panicked| Err(panicked.into())) {
            Ok(Some(stream)) => return self.install(stream).await,
            Ok(None) => {}
            Err(error) if is_distrust(&error) => {
                if let Some(held_back) = self.distrusts.pass() {
                    warn!(peer = %self.target.peer, %error, held_back, "a member does not trust this one, or is not trusted");
                }
            }
            Err(error) => debug!(peer = %self.target.peer, %error, "a member cannot be reached"),
        }
        if self.connection.as_ref().is_some_and(|connection| connection.is_doubtful) {
            self.drop_connection().await;
        }
    }

    async fn install(&mut self, stream: Box<dyn Stream>) {
        let peer = self.target.peer;
        self.dial = None;
        if let Some(Connection { task, .. }) = self.connection.take() {
            task.abort();
            // Whatever it says now: nothing of the old connection comes after this.
            let _ = task.await;
        }
        self.mailbox.open();
        if self.events.send(PeerEvent::Reachable(peer, true)).await.is_err() {
            return;
        }
        info!(%peer, "connected to a member");
        let (mailbox, events) = (self.mailbox.clone(), self.events.clone());
        let task =
            self.target.tasks.spawn(async move { connection::run(peer, stream, &mailbox, &events).await });
        let task = AbortOnDropHandle::new(task);
        self.connection = Some(Connection { task, since: clock::now(), is_doubtful: false });
    }

    async fn on_ended(&mut self, (ended, since): (Result<EndReason, JoinError>, Instant)) {
        match ended {
            Ok(reason) => info!(peer = %self.target.peer, %reason, "lost the connection to a member"),
            Err(error) => info!(peer = %self.target.peer, %error, "lost the connection to a member"),
        }
        let now = clock::now();
        if now.saturating_duration_since(since) >= SUCCESS_TIME {
            self.backoff.reset();
        }
        self.next_dial = now + self.backoff.next();
        self.drop_connection().await;
    }

    async fn drop_connection(&mut self) {
        self.connection = None;
        self.mailbox.close();
        // Without the driver, this loop ends.
        let _ = self.events.send(PeerEvent::Reachable(self.target.peer, false)).await;
    }
}

impl Target {
    /// Connects, or, when that is the other one's part, asks it to: then there is no connection to return.
    async fn call(&self) -> Dialled {
        let calling = async {
            let mut stream = self.transport.dial(&self.address).await?;
            stream.write_all(&self.hello).await?;
            stream.flush().await?;
            Ok::<_, io::Error>(stream)
        };
        let timed_out = |_elapsed| io::Error::from(io::ErrorKind::TimedOut);
        let mut stream = tokio::time::timeout(self.transport.timeout, calling).await.map_err(timed_out)??;
        if self.is_ours_to_dial {
            return Ok(Some(stream));
        }
        // Closed by both: what is in flight is not lost by closing too early.
        let _ = stream.shutdown().await;
        let _ = tokio::time::timeout(WISH_TIME, stream.read_u8()).await;
        Ok(None)
    }
}

/// Waits for the end of the connection, for ever if there is none.
async fn ended(connection: &mut Option<Connection>) -> (Result<EndReason, JoinError>, Instant) {
    match connection {
        Some(Connection { task, since, .. }) => (task.await, *since),
        None => std::future::pending().await,
    }
}

/// Waits for the end of the dial, for ever if there is none.
async fn dialled<T>(dial: &mut Option<AbortOnDropHandle<T>>) -> Result<T, JoinError> {
    match dial {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
