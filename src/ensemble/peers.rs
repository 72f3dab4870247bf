//! The other members, as the driver sees them: what they say becomes inputs, and what they are told goes out here.
//!
//! ```text
//! election port ┐                                    ┌ send_vote
//!               ├─► recv_many ─► input_of ─► replica ┤
//! quorum port   ┘                                    └ dial, send, send_snapshot, close
//! ```

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::dial::{Patience, Transport};
use super::election_port::{ElectionPort, ElectionSettings};
use super::members::HostPort;
use super::quorum_port::{LinkOutbox, Queued, QuorumPort, QuorumSettings};
use super::settings::PeersSettings;
use crate::id::{ServerId, Zxid};
use crate::replica::Input;
use crate::tls::Tls;
use crate::zab::{LinkId, Notification, Packet};

/// What happens between members.
#[derive(Debug)]
pub(super) enum PeerEvent {
    /// A message on the election port.
    Notification(ServerId, Notification),
    /// The election port's connection to a member is there, or gone.
    Reachable(ServerId, bool),
    /// A learner has connected.
    Accepted(LinkId, LinkOutbox),
    /// A dial has ended.
    Dialled { attempt: u64, link: Option<(LinkId, LinkOutbox)> },
    /// A packet has come.
    Packet(LinkId, Packet),
    /// Parts of a snapshot have come, or were taken by the connection.
    Progress(LinkId),
    /// A snapshot has come.
    SnapshotReceived(LinkId, Bytes),
    /// A connection has ended: once for each that was accepted or dialled, whoever ended it.
    LinkClosed(LinkId),
}

/// The sockets that a member with others listens on.
#[derive(Debug)]
pub struct PeerListeners {
    /// For learners.
    pub quorum: TcpListener,
    /// For votes.
    pub election: TcpListener,
}

impl PeerListeners {
    /// Listens where the settings say: at the member's own host, or at `listen_address` in its place.
    ///
    /// # Errors
    ///
    /// With the place, when it has no address, is taken, or may not be listened on.
    pub async fn bind(me: ServerId, settings: &PeersSettings) -> Result<Self, (HostPort, io::Error)> {
        let own = settings.members.get(me).expect("the settings list this member");
        let place = |configured: &HostPort| HostPort {
            host: settings.listen_host.clone().unwrap_or_else(|| configured.host.clone()),
            port: configured.port,
        };
        let (quorum, election) = (place(&own.quorum), place(&own.election));
        let quorum = listen(&quorum).await.map_err(|error| (quorum, error))?;
        let election = listen(&election).await.map_err(|error| (election, error))?;
        Ok(Self { quorum, election })
    }
}

async fn listen(at: &HostPort) -> io::Result<TcpListener> {
    TcpListener::bind((at.host.as_str(), at.port)).await
}

/// The ports, and the links that there are. A member alone has none.
#[derive(Debug, Default)]
pub(super) struct Peers {
    ports: Option<Ports>,
}

#[derive(Debug)]
struct Ports {
    election: ElectionPort,
    quorum: QuorumPort,
    links: FxHashMap<LinkId, LinkOutbox>,
    events: mpsc::Receiver<PeerEvent>,
    /// What keeps the ports going; it ends with this.
    serving: JoinSet<()>,
    /// Counts all that runs for the ports.
    tasks: TaskTracker,
}

/// Events that may wait for the driver; a full channel makes readers wait.
const EVENTS_MAX: usize = 1024;

impl Peers {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// Serves both ports and connects to the others, until dropped.
    pub(super) fn start(
        me: ServerId,
        settings: &PeersSettings,
        listeners: PeerListeners,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (members, timeout) = (settings.members.clone(), settings.connect_timeout);
        // Votes are rare, so that a member that is gone would not be missed for long; learners and leader ping one another.
        let election = Transport { timeout, patience: Patience::Limited(timeout), tls };
        let quorum = Transport { patience: Patience::System, ..election.clone() };
        let tasks = TaskTracker::new();
        let election = ElectionSettings {
            server_id: me,
            members: members.clone(),
            transport: election,
            tasks: tasks.clone(),
        };
        let quorum = QuorumSettings {
            members,
            transport: quorum,
            link_bytes_max: settings.link_bytes_max,
            snapshot_bytes_max: settings.snapshot_bytes_max,
            tasks: tasks.clone(),
        };
        let mut serving = JoinSet::new();
        let (election, run) = ElectionPort::new(election, listeners.election, &sender);
        serving.spawn(tasks.track_future(run));
        let (quorum, run) = QuorumPort::new(quorum, listeners.quorum, sender);
        serving.spawn(tasks.track_future(run));
        Self { ports: Some(Ports { election, quorum, links: FxHashMap::default(), events, serving, tasks }) }
    }

    /// Waits for the next events and takes at most `max` of them; for ever when there are no peers. 0 when a port broke.
    /// Loses nothing when dropped.
    pub(super) async fn recv_many(&mut self, events: &mut Vec<PeerEvent>, max: usize) -> usize {
        let Some(ports) = &mut self.ports else { return std::future::pending().await };
        tokio::select! {
            biased;
            Some(_ended) = ports.serving.join_next() => 0,
            count = ports.events.recv_many(events, max) => count,
        }
    }

    /// An event as the replica takes it; `None` when it concerns a link that was closed from this side.
    pub(super) fn input_of(&mut self, event: PeerEvent) -> Option<Input> {
        let links = &mut self.ports.as_mut()?.links;
        Some(match event {
            PeerEvent::Notification(from, message) => Input::Notification(from, message),
            PeerEvent::Reachable(peer, is_reachable) => Input::Reachable(peer, is_reachable),
            PeerEvent::Accepted(link, outbox) => {
                links.insert(link, outbox);
                Input::Accepted(link)
            }
            PeerEvent::Dialled { attempt, link } => {
                let link = link.map(|(link, outbox)| {
                    links.insert(link, outbox);
                    link
                });
                Input::Dialled { attempt, link }
            }
            PeerEvent::Packet(link, packet) => {
                links.get(&link)?.release(&packet);
                Input::Packet(link, packet)
            }
            PeerEvent::Progress(link) => {
                links.get(&link)?;
                Input::Progress(link)
            }
            PeerEvent::SnapshotReceived(link, body) => {
                links.get(&link)?;
                Input::SnapshotReceived(link, body)
            }
            PeerEvent::LinkClosed(link) => {
                links.remove(&link)?;
                Input::LinkClosed(link)
            }
        })
    }

    /// Sends a vote, in place of one that still waits for this member.
    pub(super) fn send_vote(&self, to: ServerId, message: Notification) {
        if let Some(ports) = &self.ports {
            ports.election.send(to, message);
        }
    }

    /// Connects to a member's quorum port.
    pub(super) fn dial(&mut self, attempt: u64, server: ServerId) {
        if let Some(ports) = &mut self.ports {
            ports.quorum.dial(attempt, server);
        }
    }

    /// Sends a packet. A link that lets too much gather ends, which is told as an event.
    pub(super) fn send(&mut self, link: LinkId, packet: Packet) {
        self.with_link(link, |outbox| outbox.send(packet));
    }

    /// Sends a snapshot, with the packet before it and the mark behind it.
    pub(super) fn send_snapshot(&mut self, link: LinkId, zxid: Zxid, body: Bytes) {
        self.with_link(link, |outbox| outbox.send_snapshot(zxid, body));
    }

    /// Sends what is queued, then closes the link; nothing more is heard of it.
    pub(super) fn close(&mut self, link: LinkId) {
        if let Some(ports) = &mut self.ports {
            ports.links.remove(&link);
        }
    }

    /// Closes everything, and waits until it is closed.
    pub(super) async fn shutdown(self) {
        let Some(ports) = self.ports else { return };
        let tasks = ports.tasks.clone();
        drop(ports);
        tasks.close();
        tasks.wait().await;
    }

    fn with_link(&mut self, link: LinkId, send: impl FnOnce(&mut LinkOutbox) -> Queued) {
        let outbox = self.ports.as_mut().and_then(|ports| ports.links.get_mut(&link));
        if let Some(outbox) = outbox
            && send(outbox) == Queued::Overflow
        {
            warn!(link = link.0, "closing a link to a member that does not read what it is sent");
        }
    }
}

#[cfg(test)]
mod tests;
