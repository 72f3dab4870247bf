//! The ZooKeeper client that the sidecar and the commands use.
//!
//! ```text
//! Client ── requests ──► task ─────────────────► socket ──► server
//!        ◄── answers ───  │  asks, and obeys, `session`
//! Watcher ◄── notices ────┘  (pure: what to dial, send, answer, wait for)
//! ```
//!
//! - It reconnects for ever, with full jitter, to any of its servers; a session is kept over connections, with its
//!   password and the newest zxid seen, so that no server that is behind may take it.
//! - A session expires only when a server says so. Then the client opens a new one by itself, and
//!   [`ClientState`] names its id and generation. An ensemble that is away for an hour costs no session it kept.
//! - **Order.** Requests are sent, carried out and answered in the order in which they were submitted. Answers and
//!   notifications are delivered in the order in which the server sent them: when a request's future is ready,
//!   every notification that came before its answer is already in its watcher's queue, and none that came after it
//!   was there before. Since servers notify a change before they answer anything that shows it, whoever reads a
//!   znode has been told of every change that the answer shows.
//! - A request that was under way when its connection was lost fails as ambiguous
//!   ([`ClientError::ConnectionLost`]); one that was not sent waits for the next connection, up to a bound.
//! - One-shot watches survive connections and sessions: servers are given them back with the zxid up to which we
//!   know, and fire what was missed. Persistent watches are given back too, but the protocol has no catch-up
//!   for them: their watchers are told when they are [`WatchNotice::Disconnected`], and to
//!   [`WatchNotice::Resync`] once the watch is in force again.
//! - Apache ZooKeeper before 3.9 keeps one watch for each path and connection, so do not set a one-shot watch on
//!   the very path of a persistent one. Servers before 3.6 have no persistent watches at all:
//!   [`Client::watch`] fails with [`OpError::Unimplemented`](crate::znode::OpError::Unimplemented).
//!
//! Dropping all handles drops the socket, and the session's ephemerals go when it expires; [`Client::close`] ends
//! the session, and them, at once.

mod backoff;
mod connection;
mod dial;
mod error;
mod operation;
mod session;
mod settings;
mod socket;
mod state;
mod watch_table;
mod watcher;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use self::connection::{Command, Connection, Proof, WatchSink};
pub use self::dial::{Dialer, HostNames, look_up};
pub use self::error::{ClientError, Operation};
pub use self::session::Reply;
use self::session::Session;
pub use self::settings::ClientSettings;
pub(crate) use self::settings::is_host_and_port;
pub use self::socket::ByteStream;
pub use self::state::{ClientState, ClientStats};
pub use self::watcher::{OneShotWatch, ResyncReason, WatchNotice, Watcher};
use crate::clock;
use crate::id::SessionId;
pub use crate::wire::{CreateRequest, MultiOp, OpResult, Request};

/// Requests between the handles and the task; when it is full callers wait. The session has its own, larger bound.
const COMMANDS_MAX: usize = 64;

/// A handle on one client; clones share its session.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ClientSettings,
    commands: mpsc::Sender<Command>,
    closings: mpsc::Sender<connection::CloseWaiter>,
    state: watch::Receiver<ClientState>,
    proof: Arc<Proof>,
    stats: Arc<ClientStats>,
}

impl Client {
    /// Starts a client, which connects by itself; requests may be made at once.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(settings: ClientSettings) -> Self {
        let now = clock::now();
        let (commands, commands_end) = mpsc::channel(COMMANDS_MAX);
        let (closings, closings_end) = mpsc::channel(1);
        let (state_end, state) = watch::channel(ClientState::Connecting { last_failure: None });
        let (proof, stats) = (Arc::new(Proof::new(now)), Arc::new(ClientStats::default()));
        let session = Session::new(settings.clone(), fastrand::u64(..), now);
        let connection = Connection::new(
            session,
            settings.frame_bytes_max,
            commands_end,
            closings_end,
            state_end,
            proof.clone(),
            stats.clone(),
        );
        let connection = connection.with_ways(settings.host_names.clone(), settings.dialer.clone());
        tokio::spawn(connection.run());
        Self { shared: Arc::new(Shared { settings, commands, closings, state, proof, stats }) }
    }

    /// What it was started with.
    pub fn settings(&self) -> &ClientSettings {
        &self.shared.settings
    }

    /// Where the client stands, now and from now on.
    pub fn state(&self) -> watch::Receiver<ClientState> {
        self.shared.state.clone()
    }

    /// Waits until there is a session and a connection, and says which session.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`]. There is no time limit; it is the caller's to set.
    pub async fn connected(&self) -> Result<SessionId, ClientError> {
        let mut state = self.state();
        loop {
            match &*state.borrow_and_update() {
                ClientState::Connected { session, .. } => return Ok(*session),
                ClientState::Closed => return Err(ClientError::Closed),
                ClientState::Connecting { .. } | ClientState::Expired { .. } => {}
            }
            state.changed().await.map_err(|_task_is_gone| ClientError::Closed)?;
        }
    }

    /// When the server last proved itself current, by a reply or the answer to a ping.
    pub fn last_proof(&self) -> Option<Instant> {
        self.shared.proof.get()
    }

    /// Counts for metrics.
    pub fn stats(&self) -> &ClientStats {
        &self.shared.stats
    }

    /// Sends a request and waits for its answer. A watch flag in it is of no use here: what it fires goes nowhere.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; [`ClientError::Reserved`] for requests that are the client's own.
    pub async fn request(&self, request: Request) -> Result<Reply, ClientError> {
        self.submit(request, None).await
    }

    /// Closes the session, so that its ephemerals go at once, and with it the client: other handles too.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotClosed`] when no server confirmed it within the close timeout.
    pub async fn close(self) -> Result<(), ClientError> {
        let (waiter, closed) = oneshot::channel();
        if self.shared.closings.send(waiter).await.is_err() {
            return Ok(());
        }
        closed.await.unwrap_or(Ok(()))
    }

    async fn submit(&self, request: Request, sink: Option<WatchSink>) -> Result<Reply, ClientError> {
        if is_reserved(&request) {
            return Err(ClientError::Reserved { operation: Operation::of(&request) });
        }
        let (answer, answered) = oneshot::channel();
        let deadline = clock::now() + self.shared.settings.request_timeout;
        let command = Command { request, sink, deadline, answer };
        self.shared.commands.send(command).await.map_err(|_task_is_gone| ClientError::Closed)?;
        answered.await.unwrap_or(Err(ClientError::Closed))
    }
}

const fn is_reserved(request: &Request) -> bool {
    matches!(
        request,
        Request::Ping
            | Request::SetWatches(_)
            | Request::SetWatches2(_)
            | Request::Auth { .. }
            | Request::CloseSession
    )
}
