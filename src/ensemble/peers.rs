//! The other members, as the driver sees them: what they say comes in over one channel, what they are told goes out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::election_port::{ElectionPort, ElectionShell};
use super::links::{self, LinkOutbox, LinkShell};
use super::members::HostPort;
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
    /// A snapshot has come.
    SnapshotReceived(LinkId, Bytes),
    /// A connection has ended.
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

/// The other members; nobody for a member alone.
#[derive(Debug)]
pub(super) struct Peers {
    election: Option<ElectionPort>,
    shell: Option<Arc<LinkShell>>,
    links: FxHashMap<LinkId, LinkOutbox>,
    events: mpsc::Receiver<PeerEvent>,
    /// Held so that the channel of a member alone stays open.
    _events: mpsc::Sender<PeerEvent>,
    tasks: TaskTracker,
}

/// Events that may wait for the driver; a full channel makes readers wait.
const EVENTS_MAX: usize = 4096;

impl Peers {
    /// Nobody.
    pub(super) fn none() -> Self {
        let (sender, events) = mpsc::channel(1);
        let tasks = TaskTracker::new();
        Self { election: None, shell: None, links: FxHashMap::default(), events, _events: sender, tasks }
    }

    /// Listens for the others and connects to them.
    pub(super) fn start(
        me: ServerId,
        settings: &PeersSettings,
        listeners: PeerListeners,
        tls: Option<Arc<Tls>>,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let tasks = TaskTracker::new();
        let members = settings.members.clone();
        let election = ElectionShell {
            me,
            members: members.clone(),
            timeout: settings.connect_timeout,
            tls: tls.clone(),
            events: sender.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let shell = Arc::new(LinkShell {
            members,
            timeout: settings.connect_timeout,
            tls,
            events: sender.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
            next_link: AtomicU64::new(1),
        });
        let election = ElectionPort::start(listeners.election, Arc::new(election));
        tasks.spawn(links::accept(listeners.quorum, shell.clone()));
        Self {
            election: Some(election),
            shell: Some(shell),
            links: FxHashMap::default(),
            events,
            _events: sender,
            tasks,
        }
    }

    /// Takes what has happened, at most `max` events; never ends.
    pub(super) async fn recv_many(&mut self, events: &mut Vec<PeerEvent>, max: usize) -> usize {
        self.events.recv_many(events, max).await
    }

    /// An event as the replica takes it; `None` when it concerns a connection that was given up.
    pub(super) fn input_of(&mut self, event: PeerEvent) -> Option<Input> {
        Some(match event {
            PeerEvent::Notification(from, message) => Input::Notification(from, message),
            PeerEvent::Reachable(peer, is_reachable) => Input::Reachable(peer, is_reachable),
            PeerEvent::Accepted(link, outbox) => {
                self.links.insert(link, outbox);
                Input::Accepted(link)
            }
            PeerEvent::Dialled { attempt, link } => {
                let link = link.map(|(link, outbox)| {
                    self.links.insert(link, outbox);
                    link
                });
                Input::Dialled { attempt, link }
            }
            PeerEvent::Packet(link, packet) if self.links.contains_key(&link) => Input::Packet(link, packet),
            PeerEvent::SnapshotReceived(link, body) if self.links.contains_key(&link) => {
                Input::SnapshotReceived(link, body)
            }
            PeerEvent::Packet(..) | PeerEvent::SnapshotReceived(..) => return None,
            PeerEvent::LinkClosed(link) => {
                self.links.remove(&link)?;
                Input::LinkClosed(link)
            }
        })
    }

    pub(super) fn send_vote(&self, to: ServerId, message: &Notification) {
        if let Some(election) = &self.election {
            election.send(to, message);
        }
    }

    pub(super) fn dial(&self, attempt: u64, server: ServerId) {
        if let Some(shell) = &self.shell {
            links::connect(shell, attempt, server);
        }
    }

    /// Queues a packet; false when the connection does not keep up, and was given up.
    pub(super) fn send(&mut self, link: LinkId, packet: Packet) -> bool {
        let Some(outbox) = self.links.get(&link) else { return true };
        if outbox.send(packet) {
            return true;
        }
        warn!(link = link.0, "closing a connection to a member that does not keep up");
        self.links.remove(&link);
        false
    }

    pub(super) fn send_snapshot(&self, link: LinkId, zxid: Zxid, body: Bytes) {
        if let Some(outbox) = self.links.get(&link) {
            outbox.send_snapshot(zxid, body);
        }
    }

    pub(super) fn close(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    /// Waits for every task to end, after the token that it was started with was cancelled.
    pub(super) async fn ended(self) {
        self.tasks.close();
        drop(self.links);
        self.tasks.wait().await;
    }
}
