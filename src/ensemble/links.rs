//! Connections between learners and their leader, on the quorum port.
//!
//! Each connection has a task that cuts what comes into packets, and writes what the driver queues. Behind SNAP comes a
//! snapshot's body, whose end is found by what it is made of. What waits for a learner is bounded in bytes: one that does
//! not keep up is dropped, and comes back for what it lacks.
//!
//! Source: `Learner.java`, `LearnerHandler.java` of Apache ZooKeeper.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::dial::{dial, receive};
use super::members::Members;
use super::peers::PeerEvent;
use crate::codec::Reader;
use crate::id::{ServerId, Zxid};
use crate::tls::Tls;
use crate::tree::SnapshotScanner;
use crate::zab::{LinkId, Packet, SNAPSHOT_END, split_packet};

/// What the tasks of the port share.
#[derive(Debug)]
pub(super) struct LinkShell {
    pub(super) members: Arc<Members>,
    /// How long it may take to connect, and to say who one is.
    pub(super) timeout: Duration,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) events: mpsc::Sender<PeerEvent>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) next_link: AtomicU64,
}

/// The driver's end of a connection. Dropping it closes the socket once what is queued is written, or the other has had time
/// enough to read it.
#[derive(Debug)]
pub(super) struct LinkOutbox {
    queue: mpsc::UnboundedSender<Outgoing>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Tells the connection when this is dropped.
    _open: oneshot::Sender<()>,
}

#[derive(Debug)]
enum Outgoing {
    Packet(Packet),
    Snapshot(Zxid, Bytes),
}

/// Bytes of packets that may wait for one learner, besides a snapshot.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// The largest snapshot that is taken from a leader.
const SNAPSHOT_BYTES_MAX: usize = 8 << 30;
/// How long the other end may take to read what is queued when a connection is closed from this side.
const FLUSH_TIME: Duration = Duration::from_secs(2);
/// What is read from the socket at a time.
const READ_BYTES: usize = 64 << 10;
/// Packets are written together up to this many bytes.
const WRITE_BYTES: usize = 128 << 10;
/// Connections that may be accepted at a time: every member's, and some that are about to end.
const ACCEPTED_MAX: usize = 64;
/// How long to pause when nothing can be accepted, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl LinkOutbox {
    /// Queues a packet; false when too much is waiting.
    pub(super) fn send(&self, packet: Packet) -> bool {
        let bytes = packet.bytes();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A writer that is gone has dropped its end; the reader says so to the driver.
        let _ = self.queue.send(Outgoing::Packet(packet));
        waiting <= WAITING_BYTES_MAX
    }

    /// Queues SNAP and a snapshot's body.
    pub(super) fn send_snapshot(&self, zxid: Zxid, body: Bytes) {
        // As above.
        let _ = self.queue.send(Outgoing::Snapshot(zxid, body));
    }
}

/// Accepts learners.
pub(super) async fn accept(listener: TcpListener, shell: Arc<LinkShell>) {
    let permits = Arc::new(Semaphore::new(ACCEPTED_MAX));
    loop {
        let accepted = tokio::select! {
            () = shell.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection on the quorum port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            warn!(%address, max = ACCEPTED_MAX, "too many connections on the quorum port; closing a new one");
            continue;
        };
        let shell_of_task = shell.clone();
        shell.tasks.spawn(async move {
            let received = tokio::select! {
                () = shell_of_task.stop.cancelled() => return,
                received = tokio::time::timeout(shell_of_task.timeout, receive(socket, shell_of_task.tls.as_deref())) => received,
            };
            let socket = match received {
                Ok(Ok(socket)) => socket,
                Ok(Err(error)) => return warn!(%address, %error, "refusing a connection on the quorum port"),
                Err(_late) => return debug!(%address, "a connection on the quorum port said nothing"),
            };
            let (link, task) = open(&shell_of_task, socket, Side::Leader);
            debug!(link = link.id.0, %address, "a learner has connected");
            if shell_of_task.events.send(PeerEvent::Accepted(link.id, link.outbox)).await.is_ok() {
                task.await;
            }
            drop(permit);
        });
    }
}

/// Connects to a member's quorum port, and tells the driver how that went.
pub(super) fn connect(shell: &Arc<LinkShell>, attempt: u64, server: ServerId) {
    let shell_of_task = shell.clone();
    shell.tasks.spawn(async move {
        let shell = shell_of_task;
        let dialled = match shell.members.get(server) {
            Some(member) => tokio::select! {
                () = shell.stop.cancelled() => return,
                dialled = dial(&member.quorum, shell.timeout, shell.tls.as_deref()) => dialled,
            },
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no such member")),
        };
        match dialled {
            Ok(socket) => {
                let (link, task) = open(&shell, socket, Side::Learner);
                let event = PeerEvent::Dialled { attempt, link: Some((link.id, link.outbox)) };
                if shell.events.send(event).await.is_ok() {
                    task.await;
                }
            }
            Err(error) => {
                debug!(%server, %error, "cannot connect to the leader");
                // The driver is gone when the member ends.
                let _ = shell.events.send(PeerEvent::Dialled { attempt, link: None }).await;
            }
        }
    });
}

/// Which end of a connection this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Leader,
    Learner,
}

struct Opened {
    id: LinkId,
    outbox: LinkOutbox,
}

/// Makes a connection of a socket; the future serves it until it ends.
fn open<S>(shell: &Arc<LinkShell>, socket: S, side: Side) -> (Opened, impl Future<Output = ()> + use<S>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let id = LinkId(shell.next_link.fetch_add(1, Ordering::Relaxed));
    let (queue, outgoing) = mpsc::unbounded_channel();
    let (is_open, dropped) = oneshot::channel();
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let outbox = LinkOutbox { queue, waiting_bytes: waiting_bytes.clone(), _open: is_open };
    let shell = shell.clone();
    let task = async move {
        let (reading, writing) = tokio::io::split(socket);
        let reader = Reading { id, side, shell: shell.clone(), socket: reading }.run();
        let writer = write_packets(writing, outgoing, &waiting_bytes);
        let overdue = async {
            // It is never sent anything: this is the driver's dropping the outbox.
            let _ = dropped.await;
            tokio::time::sleep(FLUSH_TIME).await;
        };
        tokio::pin!(reader, writer);
        tokio::select! {
            () = shell.stop.cancelled() => return,
            // The driver dropped the outbox and all is written, or the socket cannot be written any more.
            ended = &mut writer => log_end(id, ended),
            ended = &mut reader => log_end(id, ended),
            () = overdue => debug!(link = id.0, "gave up on a member that does not read"),
        }
        // The driver is gone when the member ends.
        let _ = shell.events.send(PeerEvent::LinkClosed(id)).await;
    };
    (Opened { id, outbox }, task)
}

fn log_end(id: LinkId, ended: io::Result<()>) {
    match ended {
        Ok(()) => debug!(link = id.0, "a connection between members ended"),
        Err(error) => debug!(link = id.0, %error, "a connection between members ended"),
    }
}

/// The receiving half.
struct Reading<R> {
    id: LinkId,
    side: Side,
    shell: Arc<LinkShell>,
    socket: R,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    async fn run(mut self) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let first = tokio::time::timeout(self.shell.timeout, self.read_packet(&mut buffer)).await;
        // A leader may take its time: it waits for others. A learner says at once who it is.
        let mut packet = match (first, self.side) {
            (Ok(packet), _) => packet?,
            (Err(_late), Side::Leader) => return Err(io::ErrorKind::TimedOut.into()),
            (Err(_late), Side::Learner) => self.read_packet(&mut buffer).await?,
        };
        if self.side == Side::Leader
            && !matches!(packet, Some(Packet::FollowerInfo(_) | Packet::ObserverInfo(_)))
        {
            let what = "the first packet does not say who it is; is SASL between members switched on there?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        while let Some(received) = packet {
            let is_snapshot = matches!(received, Packet::Snap(_)) && self.side == Side::Learner;
            if self.shell.events.send(PeerEvent::Packet(self.id, received)).await.is_err() {
                return Ok(());
            }
            if is_snapshot {
                let body = self.read_snapshot(&mut buffer).await?;
                if self.shell.events.send(PeerEvent::SnapshotReceived(self.id, body)).await.is_err() {
                    return Ok(());
                }
            }
            packet = self.read_packet(&mut buffer).await?;
        }
        Ok(())
    }

    /// The next packet; `None` when the connection was closed.
    async fn read_packet(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Packet>> {
        loop {
            let split = split_packet(buffer);
            let split = split.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if split.is_some() {
                return Ok(split);
            }
            buffer.reserve(READ_BYTES);
            if self.socket.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// A snapshot's body, up to and without the mark behind it.
    async fn read_snapshot(&mut self, buffer: &mut BytesMut) -> io::Result<Bytes> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut scanner = SnapshotScanner::new();
        let length = loop {
            match scanner.scan(buffer) {
                Ok(Some(length)) if buffer.len() >= length + SNAPSHOT_END.len() => break length,
                Ok(_) if buffer.len() > SNAPSHOT_BYTES_MAX => {
                    return Err(invalid(format!("a snapshot of more than {SNAPSHOT_BYTES_MAX} bytes")));
                }
                Ok(_) => {}
                Err(error) => return Err(invalid(error.to_string())),
            }
            buffer.reserve(READ_BYTES);
            if self.socket.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let body = buffer.split_to(length).freeze();
        let mut reader = Reader::new(buffer);
        if reader.take(SNAPSHOT_END.len(), "snapshot end") != Ok(SNAPSHOT_END) {
            return Err(invalid("the snapshot does not end as it should".to_owned()));
        }
        buffer.advance(SNAPSHOT_END.len());
        Ok(body)
    }
}

async fn write_packets(
    mut socket: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    waiting_bytes: &AtomicUsize,
) -> io::Result<()> {
    let mut batch = Vec::new();
    while let Some(first) = outgoing.recv().await {
        batch.clear();
        let mut written = 0;
        let mut next = Some(first);
        while let Some(taken) = next {
            match taken {
                Outgoing::Packet(packet) => {
                    written += packet.bytes();
                    packet.encode(&mut batch);
                }
                Outgoing::Snapshot(zxid, body) => {
                    Packet::Snap(zxid).encode(&mut batch);
                    socket.write_all(&batch).await?;
                    socket.write_all(&body).await?;
                    batch.clear();
                    batch.extend_from_slice(SNAPSHOT_END);
                }
            }
            next = if batch.len() < WRITE_BYTES { outgoing.try_recv().ok() } else { None };
        }
        socket.write_all(&batch).await?;
        // TLS holds back what is not flushed.
        socket.flush().await?;
        waiting_bytes.fetch_sub(written, Ordering::Relaxed);
        batch.shrink_to(2 * WRITE_BYTES);
    }
    // A socket that the other has closed already has nothing to flush.
    let _ = socket.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests;
