//! The TCP side (RFC 7766): bounded connections, two-octet framing; answers in the order of the queries, but for those that have to
//! wait, which come when they can (section 6.2.1.1).
//!
//! ```text
//! accept ─► place ─► connection: [length][query] … ─► handler ─┬─► [length][answer] …
//!   │         └─ another's, who does without                   └─ waits beside the others ─┘
//!   └─► none: refused
//! ```
//!
//! [`places`] decides who is served and who makes room, [`connection`] moves bytes, [`frame`] finds queries among them. Everything of a
//! connection is bounded in time and octets (RFC 7766 sections 6.2.2, 6.2.3 and 10, RFC 9210 section 4.2): see there. Errors of
//! `accept`, such as too many open files, are waited out and never spun on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::connection::Connection;
use self::places::{Limits, Place, Places, Refusal};
use super::handler::Handler;
use crate::clock;
use crate::telemetry::TcpEnd;

mod connection;
pub mod frame;
mod places;
#[cfg(test)]
mod tests;

/// Bounds of the TCP side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// Connections at a time. Default 768; one that waits takes some 3 KiB. Fewer end silent ones sooner.
    pub connections_max: usize,
    /// The same of one client address, or one IPv6 network of 64 bits. Default 512: the applications of a pod share one address, and
    /// more connections than may wait for upstreams leave some that do not.
    pub client_connections_max: usize,
    /// How long a connection may stay silent between queries. Default 10 s.
    pub idle_timeout: Duration,
    /// How long a query may take to arrive, from its first octet on or, the first one, from the connection's beginning; and how long answers
    /// may take to be taken. Default 5 s.
    pub message_timeout: Duration,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            connections_max: 768,
            client_connections_max: 512,
            idle_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(5),
        }
    }
}

impl TcpSettings {
    /// Sockets at a time.
    pub const fn sockets_max(&self) -> usize {
        self.connections_max + LEAVING_MAX
    }
}

/// Accepts and serves connections until `shutdown`, then waits for those that are open, which end at once.
pub async fn run(
    listener: TcpListener,
    handler: Arc<Handler>,
    settings: TcpSettings,
    shutdown: CancellationToken,
) {
    let door = Door::new(handler, settings);
    let connections = TaskTracker::new();
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = door.accept(&listener) => accepted,
        };
        match accepted {
            Ok(Some(connection)) => {
                pause = ACCEPT_PAUSE_MIN;
                connections.spawn(connection.run(shutdown.clone()));
            }
            Ok(None) => pause = ACCEPT_PAUSE_MIN,
            Err(error) => {
                door.handler.metrics().dns_socket_errors.inc();
                warn!(%error, ?pause, "a DNS connection cannot be accepted");
                let _shutdown_or_over = timeout(pause, shutdown.cancelled()).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
    connections.close();
    connections.wait().await;
}

/// Where connections come in.
struct Door {
    handler: Arc<Handler>,
    settings: TcpSettings,
    places: Arc<Places>,
    /// For sockets that are open, also those of whoever has made room and is not gone yet.
    sockets: Arc<Semaphore>,
}

impl Door {
    fn new(handler: Arc<Handler>, settings: TcpSettings) -> Self {
        let TcpSettings { connections_max, client_connections_max, .. } = settings;
        let sockets = Arc::new(Semaphore::new(settings.sockets_max()));
        let limits = Limits { all: connections_max, of_client: client_connections_max };
        let places = Arc::new(Places::new(limits, clock::now()));
        Self { handler, settings, places, sockets }
    }

    /// The next connection; `None` for one that was refused.
    async fn accept(&self, listener: &TcpListener) -> io::Result<Option<Connection>> {
        let (stream, client) = listener.accept().await?;
        let place = match self.places.take(client.ip(), clock::now()) {
            Ok(place) => place,
            Err(refusal) => {
                self.refuse(stream, client, refusal);
                return Ok(None);
            }
        };
        // Whoever makes room is told to, and ends as soon as it has its turn.
        let socket = Arc::clone(&self.sockets).acquire_owned().await.expect("the semaphore is never closed");
        let open = Open::new(Arc::clone(&self.handler), place, socket);
        Ok(Some(Connection::new(stream, client, open, self.settings)))
    }

    fn refuse(&self, stream: TcpStream, client: SocketAddr, refusal: Refusal) {
        let end = match refusal {
            Refusal::All => TcpEnd::Refused,
            Refusal::OfClient => TcpEnd::RefusedClient,
        };
        self.handler.metrics().dns_tcp.count_end(end);
        debug!(%client, ?refusal, "DNS connection refused");
        drop(stream);
    }
}

/// What an open connection has of what is shared; counted while it lives, even if its task panics.
struct Open {
    handler: Arc<Handler>,
    place: Place,
    _socket: OwnedSemaphorePermit,
}

impl Open {
    fn new(handler: Arc<Handler>, place: Place, socket: OwnedSemaphorePermit) -> Self {
        handler.metrics().dns_tcp.open.inc();
        Self { handler, place, _socket: socket }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.handler.metrics().dns_tcp.open.dec();
    }
}

/// Sockets of those who have made room and are not gone yet, so that a flood of connections does not wait for each of them.
const LEAVING_MAX: usize = 64;
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
