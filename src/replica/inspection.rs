//! What whoever operates a member may ask of it: connections, sessions, watches, digests.

use std::time::Duration;

use super::session::timeout;
use super::{ConnectionId, Replica};
use crate::id::{SessionId, Zxid};
use crate::tree::Tree;

impl Replica {
    /// The committed tree.
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// How many paths the clients connected here watch.
    pub fn watched_paths(&self) -> usize {
        self.watches.watched_paths()
    }

    /// Every watched path with who watches it, in order.
    pub fn watches(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = ConnectionId>)> {
        self.watches.iter()
    }

    /// The session that a connection speaks for, if it has one.
    pub fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        self.connections.get(&connection)?.session()
    }

    /// The sessions that this member alone knows, with their timeouts.
    pub fn local_session_timeouts(&self) -> impl Iterator<Item = (SessionId, Duration)> {
        self.local.iter()
    }

    /// How long a session lives without being heard of, be it known to all or to this member alone.
    pub fn session_timeout(&self, session: SessionId) -> Option<Duration> {
        let known = self.tree.sessions().get(session).map(timeout);
        known.or_else(|| self.local.timeout(session))
    }

    /// The tree's digest after some of its txns, oldest first: equal on all members that have one for the same zxid.
    pub fn digests(&self) -> impl Iterator<Item = (Zxid, u64)> {
        self.digests.iter()
    }
}
