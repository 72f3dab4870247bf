//! One client's socket: frames in, frames out, nothing decided.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use super::four_letter;
use super::settings::MemberSettings;
use super::stats::MemberStats;
use crate::clock;
use crate::replica::ConnectionId;
use crate::wire::split_frame;

/// What a connection tells the driver.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    Connected(ConnectionId, Outbox),
    Frame(ConnectionId, Bytes),
    Disconnected(ConnectionId),
}

/// Requests of one connection that may be unanswered at a time. At the bound its socket is not read, so that TCP slows
/// the client down; a group commit is well filled by far fewer.
const UNANSWERED_MAX: usize = 256;
/// Bytes that may wait for a client that does not read; beyond, the connection is closed, since its
/// notifications must neither be dropped nor grow without bound.
const OUTBOX_BYTES_MAX: usize = 64 << 20;
/// What is read from the socket at a time.
const READ_BYTES: usize = 16 << 10;
/// Frames are written together up to this many bytes.
const WRITE_BYTES: usize = 64 << 10;

/// The driver's end of a connection. Dropping it closes the socket once what is queued is written.
#[derive(Debug)]
pub(super) struct Outbox {
    peer: SocketAddr,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    unanswered: Arc<Unanswered>,
    stats: Arc<MemberStats>,
}

/// The frames of one connection that are not answered yet.
#[derive(Debug)]
struct Unanswered {
    permits: Semaphore,
    /// When they came, the oldest first: each frame has one reply, in order.
    since: Mutex<VecDeque<Instant>>,
}

impl Unanswered {
    fn since(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    /// Who is at the other end.
    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Queues the reply to one frame; false when the client has too much waiting already.
    pub(super) fn reply(&self, frame: Vec<u8>) -> bool {
        if let Some(came) = self.unanswered.since().pop_front() {
            self.stats.count_reply(clock::now().saturating_duration_since(came));
            self.stats.outstanding.fetch_sub(1, Ordering::Relaxed);
        }
        self.unanswered.permits.add_permits(1);
        self.queue(frame)
    }

    /// Queues a frame that answers none; false when the client has too much waiting already.
    pub(super) fn notify(&self, frame: Vec<u8>) -> bool {
        self.stats.sent.fetch_add(1, Ordering::Relaxed);
        self.queue(frame)
    }

    fn queue(&self, frame: Vec<u8>) -> bool {
        let queued = self.queued_bytes.fetch_add(frame.len(), Ordering::Relaxed) + frame.len();
        // A writer that is gone has dropped its end; the reader says so to the driver.
        let _ = self.frames.send(frame);
        queued <= OUTBOX_BYTES_MAX
    }
}

/// A connection that was accepted, and what it has to know.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) settings: Arc<MemberSettings>,
    pub(super) events: mpsc::Sender<ConnectionEvent>,
    pub(super) stats: Arc<MemberStats>,
}

/// Serves one socket until either side closes it. The caller tells the driver of the end.
pub(super) async fn run(connection: Connection, socket: TcpStream) {
    let Connection { id, peer, events, stats, .. } = &connection;
    let id = *id;
    // Only latency suffers without it.
    let _ = socket.set_nodelay(true);
    let (read_half, write_half) = socket.into_split();
    let (frames, queue) = mpsc::unbounded_channel();
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let permits = Semaphore::new(UNANSWERED_MAX);
    let unanswered = Arc::new(Unanswered { permits, since: Mutex::new(VecDeque::new()) });
    let texts = frames.downgrade();
    let outbox = Outbox {
        peer: *peer,
        frames,
        queued_bytes: queued_bytes.clone(),
        unanswered: unanswered.clone(),
        stats: stats.clone(),
    };
    if events.send(ConnectionEvent::Connected(id, outbox)).await.is_err() {
        return;
    }
    let reader = connection.read_frames(read_half, &texts, &unanswered);
    let writer = write_frames(write_half, queue, &queued_bytes);
    tokio::pin!(reader, writer);
    tokio::select! {
        // The driver dropped the outbox, or the socket cannot be written any more.
        () = &mut writer => {}
        () = &mut reader => {
            // The driver drops the outbox now, which ends the writer once replies in the queue are out.
            let _ = events.send(ConnectionEvent::Disconnected(id)).await;
            writer.await;
        }
    }
    let abandoned = std::mem::take(&mut *unanswered.since()).len() as u64;
    stats.outstanding.fetch_sub(abandoned, Ordering::Relaxed);
}

impl Connection {
    async fn read_frames(
        &self,
        socket: OwnedReadHalf,
        texts: &mpsc::WeakUnboundedSender<Vec<u8>>,
        unanswered: &Unanswered,
    ) {
        let Self { id, peer, settings, events, stats } = self;
        let mut buffer = BytesMut::new();
        let mut is_first = true;
        loop {
            if is_first && let Some(first) = buffer.first_chunk() {
                is_first = false;
                if let Some(text) = four_letter::answer(first, &settings.four_letter_words, stats) {
                    if let Some(texts) = texts.upgrade() {
                        // Whoever has hung up already does not want the answer.
                        let _ = texts.send(text.into_bytes());
                    }
                    return;
                }
            }
            loop {
                match split_frame(&mut buffer, settings.frame_bytes_max) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        let Ok(permit) = unanswered.permits.acquire().await else { return };
                        permit.forget();
                        unanswered.since().push_back(clock::now());
                        stats.received.fetch_add(1, Ordering::Relaxed);
                        stats.outstanding.fetch_add(1, Ordering::Relaxed);
                        if events.send(ConnectionEvent::Frame(*id, frame)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        warn!(connection = id.0, %peer, %error, "closing a connection for what it sent");
                        return;
                    }
                }
            }
            // Memory only while there is something to read: thousands of connections are idle most of the time.
            if buffer.is_empty() {
                buffer = BytesMut::new();
            }
            if socket.readable().await.is_err() {
                return;
            }
            buffer.reserve(READ_BYTES);
            match socket.try_read_buf(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    debug!(connection = id.0, %peer, %error, "connection lost");
                    return;
                }
            }
        }
    }
}

async fn write_frames(
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    queued_bytes: &AtomicUsize,
) {
    while let Some(mut batch) = queue.recv().await {
        while batch.len() < WRITE_BYTES
            && let Ok(frame) = queue.try_recv()
        {
            batch.extend_from_slice(&frame);
        }
        if socket.write_all(&batch).await.is_err() {
            return;
        }
        queued_bytes.fetch_sub(batch.len(), Ordering::Relaxed);
    }
    // A socket that the client has closed already has nothing to flush.
    let _ = socket.shutdown().await;
}
