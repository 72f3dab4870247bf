//! One client's socket: frames in, frames out, nothing decided.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

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
    unanswered: Arc<Semaphore>,
}

impl Outbox {
    /// Who is at the other end.
    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Queues the reply to one frame; false when the client has too much waiting already.
    pub(super) fn reply(&self, frame: Vec<u8>) -> bool {
        self.unanswered.add_permits(1);
        self.notify(frame)
    }

    /// Queues a frame that answers none; false when the client has too much waiting already.
    pub(super) fn notify(&self, frame: Vec<u8>) -> bool {
        let queued = self.queued_bytes.fetch_add(frame.len(), Ordering::Relaxed) + frame.len();
        // A writer that is gone has dropped its end; the reader says so to the driver.
        let _ = self.frames.send(frame);
        queued <= OUTBOX_BYTES_MAX
    }
}

/// Serves one socket until either side closes it. The caller tells the driver of the end.
pub(super) async fn run(
    id: ConnectionId,
    socket: TcpStream,
    peer: SocketAddr,
    frame_bytes_max: usize,
    events: mpsc::Sender<ConnectionEvent>,
) {
    // Only latency suffers without it.
    let _ = socket.set_nodelay(true);
    let (read_half, write_half) = socket.into_split();
    let (frames, queue) = mpsc::unbounded_channel();
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let unanswered = Arc::new(Semaphore::new(UNANSWERED_MAX));
    let outbox = Outbox { peer, frames, queued_bytes: queued_bytes.clone(), unanswered: unanswered.clone() };
    if events.send(ConnectionEvent::Connected(id, outbox)).await.is_err() {
        return;
    }
    let reader = read_frames(id, read_half, peer, frame_bytes_max, &events, &unanswered);
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
}

async fn read_frames(
    id: ConnectionId,
    socket: OwnedReadHalf,
    peer: SocketAddr,
    frame_bytes_max: usize,
    events: &mpsc::Sender<ConnectionEvent>,
    unanswered: &Semaphore,
) {
    let mut buffer = BytesMut::new();
    loop {
        loop {
            match split_frame(&mut buffer, frame_bytes_max) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let Ok(permit) = unanswered.acquire().await else { return };
                    permit.forget();
                    if events.send(ConnectionEvent::Frame(id, frame)).await.is_err() {
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
