//! What a client tells about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::id::SessionId;

/// Where a client stands. Only the newest state is kept, so a reader may miss short ones; the session's id and
/// generation tell whether another session took over in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Tries to reach a server; a session there was before is kept as long as no server says otherwise.
    Connecting {
        /// What the last dial or connection came to.
        last_failure: Option<Arc<str>>,
    },
    /// Has a session and a connection.
    Connected {
        /// The session.
        session: SessionId,
        /// How many sessions this client has had, this one included: its ephemerals are of this generation only.
        generation: u64,
        /// The server, as configured.
        server: Arc<str>,
        /// The session timeout that the server granted.
        timeout: Duration,
    },
    /// A server said that the session is gone, and its ephemerals with it. A new one is being opened.
    Expired {
        /// The session that is gone.
        session: SessionId,
        /// Its generation.
        generation: u64,
    },
    /// The client was closed, or all its handles were dropped.
    Closed,
}

impl ClientState {
    /// The session and its generation, when connected.
    pub const fn session(&self) -> Option<(SessionId, u64)> {
        match self {
            Self::Connected { session, generation, .. } => Some((*session, *generation)),
            Self::Connecting { .. } | Self::Expired { .. } | Self::Closed => None,
        }
    }
}

/// Counts since the client was started, for metrics.
#[derive(Debug, Default)]
pub struct ClientStats {
    pub(super) dials: Counter,
    pub(super) connections: Counter,
    pub(super) connections_lost: Counter,
    pub(super) sessions_expired: Counter,
    pub(super) beginnings: Counter,
    pub(super) requests: Counter,
    pub(super) requests_failed: Counter,
    pub(super) events: Counter,
    pub(super) watch_overflows: Counter,
    pub(super) ping_round_trip_us: Counter,
}

impl ClientStats {
    /// Attempts to reach a server.
    pub fn dials(&self) -> u64 {
        self.dials.get()
    }

    /// Connections on which a session was opened or resumed.
    pub fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// Connections, and attempts at one, that failed.
    pub fn connections_lost(&self) -> u64 {
        self.connections_lost.get()
    }

    /// Sessions that servers declared gone.
    pub fn sessions_expired(&self) -> u64 {
        self.sessions_expired.get()
    }

    /// Sessions that were begun on data that are behind what was seen before: zxids from before say nothing any more.
    pub fn beginnings(&self) -> u64 {
        self.beginnings.get()
    }

    /// Requests taken.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Requests that got no answer; a refusal is one.
    pub fn requests_failed(&self) -> u64 {
        self.requests_failed.get()
    }

    /// Watch events handed to watchers.
    pub fn events(&self) -> u64 {
        self.events.get()
    }

    /// Times that a watcher was too far behind and lost its events.
    pub fn watch_overflows(&self) -> u64 {
        self.watch_overflows.get()
    }

    /// How long the last ping took, if there was one.
    pub fn ping_round_trip(&self) -> Option<Duration> {
        Some(self.ping_round_trip_us.get()).filter(|us| *us > 0).map(Duration::from_micros)
    }
}

/// A number that many threads read and the client's task writes.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
