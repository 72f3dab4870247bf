//! Connections of clients as they come, wait, and are let go.

use std::time::Duration;

use tracing::debug;

use super::connection::{Connection, Phase};
use super::{CloseReason, ConnectionId, Now, Output, Replica};

/// How long a client that connects may have to wait for a leader, before it is sent elsewhere.
const HOLD_TIME: Duration = Duration::from_millis(500);

impl Replica {
    pub(super) fn on_connected(&mut self, connection: ConnectionId, now: Now) {
        let patience = if self.is_serving() { self.settings.handshake_timeout } else { HOLD_TIME };
        let deadline = now.monotonic + patience;
        self.connections.insert(connection, Connection::new(deadline));
        self.handshakes.insert((deadline, connection));
    }

    /// There is a leader again: clients that connected meanwhile are looked at.
    pub(super) fn serve_those_who_wait(&mut self, now: Now) {
        let waiting: Vec<_> = self
            .connections
            .iter_mut()
            .filter_map(|(id, connection)| Some((*id, connection.take_held()?)))
            .collect();
        for (id, frame) in waiting {
            self.on_frame(id, frame, now);
        }
    }

    /// Moves a connection on to its next phase.
    pub(super) fn enter(&mut self, id: ConnectionId, phase: Phase) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Phase::Fresh { deadline, .. } = std::mem::replace(&mut connection.phase, phase) {
            self.handshakes.remove(&(deadline, id));
        }
    }

    /// Closes a connection from this side and forgets it.
    pub(super) fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        debug!(connection = id.0, %reason, "closing");
        if reason == CloseReason::SessionClosed {
            self.subscribers.leave(id);
        }
        self.outputs.push_back(Output::Close(id, reason));
        self.forget(id);
    }

    /// Forgets a connection; its session lives on until it expires.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.subscribers.on_gone(id, &self.watches);
        self.watches.remove_connection(id);
        if let Phase::Fresh { deadline, .. } = connection.phase {
            self.handshakes.remove(&(deadline, id));
        }
        if let Some(session) = connection.session()
            && self.by_session.get(&session) == Some(&id)
        {
            self.by_session.remove(&session);
        }
    }

    /// Closes the connections that have a session here: what they wait for will not come.
    pub(super) fn close_served(&mut self) {
        let served = self.connections.iter().filter(|(_, connection)| !connection.is_fresh());
        let served: Vec<_> = served.map(|(id, _)| *id).collect();
        for id in served {
            self.close(id, CloseReason::NotServing);
        }
    }
}
