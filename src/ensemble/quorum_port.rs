//! The quorum port: links between learners and their leader.
//!
//! ```text
//! listener ─► handshakes: the first packet ─► Accepted ┐
//!                                                      ├─► Link: reader ─► PeerEvent::{Packet, SnapshotReceived, LinkClosed}
//! dial ─────────────────────────────────────► Dialled  ┘        writer ◄─ LinkOutbox ◄─ driver
//! ```
//!
//! A learner is told of once it has said that it is one; strangers get no further. Who leads, and whom it serves, is for the
//! core to decide. The driver never waits for a link: what it sends is queued, within a bound, and a link that does not keep
//! up is closed. A link waits for the driver: what comes in is bounded as well.
//!
//! Source: `LearnerHandler.java`, `Learner.java` of Apache ZooKeeper.

mod link;
mod outbox;
mod progress;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{debug, warn};

use self::link::Link;
pub(super) use self::outbox::{LinkOutbox, Queued};
use super::acceptor::Acceptor;
use super::dial::{Stream, Transport, is_distrust};
use super::log_limit::LogLimit;
use super::members::Members;
use super::peers::PeerEvent;
use crate::id::ServerId;
use crate::zab::{LearnerInfo, LinkId, Packet, PacketError, split_packet};

/// What the port has to know.
#[derive(Clone, Debug)]
pub(super) struct QuorumSettings {
    pub(super) members: Arc<Members>,
    pub(super) transport: Transport,
    /// What may wait to be written to one link, snapshots aside.
    pub(super) link_bytes_max: usize,
    /// The longest snapshot.
    pub(super) snapshot_bytes_max: u64,
    /// Counts what runs for the port.
    pub(super) tasks: TaskTracker,
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct QuorumPort {
    shared: Arc<Shared>,
    /// Dials, and the links that came of them.
    dials: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    settings: QuorumSettings,
    events: mpsc::Sender<PeerEvent>,
    links: AtomicU64,
}

/// Links of learners beyond one for each member: those that are about to be replaced, and observers yet to be configured.
const LINKS_SPARE: usize = 16;

impl QuorumPort {
    /// Sets up the port, and returns the listener's work, which must be run; it ends only when something in it breaks.
    pub(super) fn new(
        settings: QuorumSettings,
        listener: TcpListener,
        events: mpsc::Sender<PeerEvent>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared { settings, events, links: AtomicU64::new(0) });
        let port = Self { shared: shared.clone(), dials: JoinSet::new() };
        (port, serve(shared, listener))
    }

    /// Connects to a member and serves the link; the outcome is an event.
    pub(super) fn dial(&mut self, attempt: u64, server: ServerId) {
        // Collects what ended.
        while self.dials.try_join_next().is_some() {}
        let shared = self.shared.clone();
        let tasks = shared.settings.tasks.clone();
        self.dials.spawn(tasks.track_future(async move {
            match shared.connect(server).await {
                Ok(stream) => {
                    let name = format!("server {server}");
                    let (link, outbox, inbox) = shared.link(name, true);
                    let event = PeerEvent::Dialled { attempt, link: Some((link.id, outbox)) };
                    shared.run(link, event, stream, BytesMut::new(), inbox).await;
                }
                Err(error) => {
                    debug!(%server, %error, "cannot connect to a leader");
                    // Without the driver there is nobody to tell.
                    let _ = shared.events.send(PeerEvent::Dialled { attempt, link: None }).await;
                }
            }
        }));
    }
}

impl Shared {
    async fn connect(&self, server: ServerId) -> io::Result<Box<dyn Stream>> {
        let Self { settings, .. } = self;
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "no such member is configured");
        let member = settings.members.get(server).ok_or_else(unknown)?;
        settings.transport.dial(&member.quorum).await
    }

    fn link(&self, name: String, is_dialled: bool) -> (Link, LinkOutbox, outbox::Inbox) {
        let id = LinkId(self.links.fetch_add(1, Ordering::Relaxed) + 1);
        let snapshot_bytes_max = self.settings.snapshot_bytes_max;
        let link = Link { id, name, is_dialled, snapshot_bytes_max, events: self.events.clone() };
        let (outbox, inbox) = LinkOutbox::new(self.settings.link_bytes_max, !is_dialled);
        (link, outbox, inbox)
    }

    /// Tells the driver of a link, serves it, and tells the driver of its end.
    async fn run(
        &self,
        link: Link,
        begin: PeerEvent,
        stream: Box<dyn Stream>,
        buffer: BytesMut,
        inbox: outbox::Inbox,
    ) {
        let id = link.id;
        if self.events.send(begin).await.is_err() {
            return;
        }
        // A task of its own, so that the driver hears of the end even if it is a panic.
        let _ = AbortOnDropHandle::new(self.settings.tasks.spawn(link.run(stream, buffer, inbox))).await;
        let _ = self.events.send(PeerEvent::LinkClosed(id)).await;
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let links_max = shared.settings.members.iter().count() + LINKS_SPARE;
    let permits = Arc::new(Semaphore::new(links_max));
    let mut acceptor = Acceptor::new(listener, "quorum");
    let mut links = JoinSet::new();
    let mut refusals = LogLimit::default();
    loop {
        let (from, learner) = tokio::select! {
            greeted = acceptor.next(|socket, from| greet(shared.clone(), socket, from)) => greeted,
            Some(_ended) = links.join_next() => continue,
        };
        let refusal = match (learner, permits.clone().try_acquire_owned()) {
            (Ok(learner), Ok(permit)) => {
                let shared = shared.clone();
                links.spawn(async move {
                    shared.serve_learner(learner, from).await;
                    drop(permit);
                });
                continue;
            }
            (Err(GreetError::Io(error)), _) if !is_distrust(&error) => {
                debug!(%from, %error, "nobody said who it is on the quorum port");
                continue;
            }
            (Err(error), _) => error,
            (Ok(_), Err(_none_left)) => GreetError::TooMany(links_max),
        };
        if let Some(held_back) = refusals.pass() {
            warn!(%from, reason = %refusal, held_back, "refusing a connection to the quorum port");
        }
    }
}

impl Shared {
    async fn serve_learner(&self, learner: Learner, from: SocketAddr) {
        let name = match learner.info.server {
            Some(server) => format!("server {server}, {from}"),
            None => from.to_string(),
        };
        let (link, outbox, inbox) = self.link(name, false);
        let begin = PeerEvent::Accepted(link.id, outbox);
        self.run(link, begin, learner.stream, learner.buffer, inbox).await;
    }
}

/// Somebody who has said that it is a learner.
struct Learner {
    stream: Box<dyn Stream>,
    /// What was read, from the first packet on.
    buffer: BytesMut,
    info: LearnerInfo,
}

/// Why somebody is turned away.
#[derive(Debug, thiserror::Error)]
enum GreetError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("it asks for SASL between members, which is not offered; use TLS")]
    Sasl,
    #[error("it does not begin as a learner does")]
    NoLearner,
    #[error("there are {0} links already")]
    TooMany(usize),
}

/// Hears from who has connected that it is a learner.
async fn greet(
    shared: Arc<Shared>,
    socket: TcpStream,
    from: SocketAddr,
) -> (SocketAddr, Result<Learner, GreetError>) {
    let greeting = async {
        let mut stream = shared.settings.transport.welcome(socket).await?;
        let mut buffer = BytesMut::with_capacity(FIRST_BYTES_MAX);
        loop {
            if let Some(info) = first_packet(&buffer)? {
                return Ok(Learner { stream, buffer, info });
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    };
    let greeted = tokio::time::timeout(shared.settings.transport.timeout, greeting).await;
    (from, greeted.unwrap_or_else(|_elapsed| Err(GreetError::Io(io::ErrorKind::TimedOut.into()))))
}

/// Reads the first packet, which stays in the buffer; `None` while it is not all there. Nothing that a stranger says is
/// believed before its type is known.
fn first_packet(buffer: &BytesMut) -> Result<Option<LearnerInfo>, GreetError> {
    if let Some(magic) = buffer.first_chunk()
        && u64::from_be_bytes(*magic) == SASL_MAGIC
    {
        return Err(GreetError::Sasl);
    }
    let Some(kind) = buffer.first_chunk() else { return Ok(None) };
    let (FOLLOWER_INFO | OBSERVER_INFO) = i32::from_be_bytes(*kind) else {
        return Err(GreetError::NoLearner);
    };
    // As an unsigned number, a negative length is too long, too.
    if let Some(length) = buffer.get(12..).and_then(|rest| rest.first_chunk())
        && u32::from_be_bytes(*length) > FIRST_DATA_BYTES_MAX
    {
        return Err(GreetError::NoLearner);
    }
    match split_packet(&mut buffer.clone())? {
        Some(Packet::FollowerInfo(info) | Packet::ObserverInfo(info)) => Ok(Some(info)),
        Some(_) => Err(GreetError::NoLearner),
        None if buffer.len() >= FIRST_BYTES_MAX => Err(GreetError::NoLearner),
        None => Ok(None),
    }
}

/// With what members begin that use SASL; source: `QuorumAuth.java`.
const SASL_MAGIC: u64 = 0x5f24_3501_3501_edcc;
const FOLLOWER_INFO: i32 = 11;
const OBSERVER_INFO: i32 = 16;
/// What is read of a stranger; a learner's first packet takes 40 bytes.
const FIRST_BYTES_MAX: usize = 4 << 10;
const FIRST_DATA_BYTES_MAX: u32 = 1 << 10;

#[cfg(test)]
mod tests;
