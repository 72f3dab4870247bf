//! One client's socket: frames in, frames out, nothing decided.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
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
const UNANSWERED_MAX: u32 = 256;
/// The same in bytes of requests, but for a single one that is longer.
const UNANSWERED_BYTES_MAX: usize = 4 << 20;
/// What a request takes of these two: one part in 256 of the first, and of the second as it is long.
const UNITS_MAX: u32 = 4 * UNANSWERED_MAX;
/// Bytes of replies that may wait for a client; beyond, its socket is not read until some are written. Much, since a
/// client that writes and reads in turns would wait for us while we wait for it.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Bytes of notifications that may wait for a client that does not read; beyond, the connection is closed, since
/// they must neither be dropped nor grow without bound.
const NOTICE_BYTES_MAX: usize = 64 << 20;
/// Bytes that may wait for all clients together, which is memory: beyond, the connection with the most is closed.
pub(super) const WAITING_BYTES_MAX: u64 = 256 << 20;
/// Bytes that may wait for all clients together before no socket is read of those for which much waits.
const WAITING_BYTES_HIGH: u64 = WAITING_BYTES_MAX / 2;
/// How much that is.
const REPLY_BYTES_SHARE: usize = 1 << 20;
/// How long a client may take to read what is queued when its connection is closed from this side.
const FLUSH_TIME: Duration = Duration::from_secs(2);
/// What is read from the socket at a time, at first and at most: doubled whenever a read fills it, since most clients send one
/// short request and wait.
const READ_BYTES_MIN: usize = 1 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// Frames are written together up to this many bytes.
const WRITE_BYTES: usize = 64 << 10;

/// The driver's end of a connection. Dropping it closes the socket once what is queued is written, or the client
/// has had time enough to read it.
#[derive(Debug)]
pub(super) struct Outbox {
    peer: SocketAddr,
    frames: mpsc::UnboundedSender<Outgoing>,
    queue: Arc<Queue>,
    /// What each request took, in their order, which is that of the replies.
    asked: mpsc::UnboundedReceiver<Asked>,
    stats: Arc<MemberStats>,
    /// Tells the connection when this is dropped, or that it is to end at once.
    open: Option<oneshot::Sender<()>>,
}

/// What is under way, as its reader, its writer and the driver see it.
#[derive(Debug)]
struct Queue {
    unanswered: Semaphore,
    reply_bytes: AtomicUsize,
    notice_bytes: AtomicUsize,
    /// What of both counts among those of all connections.
    waiting_bytes: AtomicUsize,
    stats: Arc<MemberStats>,
    /// Some of it was written.
    drained: Notify,
}

impl Queue {
    fn new(stats: Arc<MemberStats>) -> Self {
        Self {
            unanswered: Semaphore::new(UNITS_MAX as usize),
            reply_bytes: AtomicUsize::new(0),
            notice_bytes: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            stats,
            drained: Notify::new(),
        }
    }

    /// More waits.
    fn on_queued(&self, bytes: usize) {
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.stats.waiting_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So much waits no more, be it written or given up.
    fn on_gone(&self, bytes: usize) {
        let less = |waiting: usize| Some(waiting.saturating_sub(bytes));
        let before = self.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let gone = bytes.min(before.unwrap_or_else(|waiting| waiting));
        self.stats.waiting_bytes.fetch_sub(gone as u64, Ordering::Relaxed);
    }

    /// Whether no more requests are to be read until something was written.
    fn is_full(&self) -> bool {
        let replies = self.reply_bytes.load(Ordering::Relaxed);
        replies > REPLY_BYTES_MAX
            || (replies > REPLY_BYTES_SHARE
                && self.stats.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES_HIGH)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.on_gone(usize::MAX);
    }
}

#[derive(Debug)]
enum Outgoing {
    Reply(Vec<u8>),
    Notice(Vec<u8>),
    /// The answer to a four-letter word.
    Text(String),
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// What it takes of [`UNITS_MAX`].
    units: u32,
    came: Instant,
}

impl Outbox {
    /// Who is at the other end.
    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Queues the reply to one frame.
    pub(super) fn reply(&mut self, frame: Vec<u8>) {
        if let Ok(Asked { units, came }) = self.asked.try_recv() {
            self.stats.count_reply(clock::now().saturating_duration_since(came));
            self.queue.unanswered.add_permits(units as usize);
        }
        self.queue.reply_bytes.fetch_add(frame.len(), Ordering::Relaxed);
        self.queue.on_queued(frame.len());
        // A writer that is gone has dropped its end; the reader says so to the driver.
        let _ = self.frames.send(Outgoing::Reply(frame));
    }

    /// Queues a frame that answers none; false when the client has too much waiting already.
    pub(super) fn notify(&self, frame: Vec<u8>) -> bool {
        self.stats.sent.fetch_add(1, Ordering::Relaxed);
        let queued = self.queue.notice_bytes.fetch_add(frame.len(), Ordering::Relaxed) + frame.len();
        self.queue.on_queued(frame.len());
        // As above.
        let _ = self.frames.send(Outgoing::Notice(frame));
        queued <= NOTICE_BYTES_MAX
    }

    /// Bytes that wait until the client reads.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.queue.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Closes the connection, and gives up what waits.
    pub(super) fn cut_off(mut self) {
        self.queue.on_gone(usize::MAX);
        if let Some(open) = self.open.take() {
            // Whoever has ended already is no worse off.
            let _ = open.send(());
        }
    }
}

impl Drop for Outbox {
    /// What will never be answered is not outstanding any more.
    fn drop(&mut self) {
        self.asked.close();
        while self.asked.try_recv().is_ok() {
            self.stats.outstanding.fetch_sub(1, Ordering::Relaxed);
        }
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

impl Connection {
    /// Serves one socket until either side closes it. The caller tells the driver of the end.
    pub(super) async fn run(self, socket: TcpStream) {
        // Only latency suffers without it.
        let _ = socket.set_nodelay(true);
        let (read_half, write_half) = socket.into_split();
        let (frames, outgoing) = mpsc::unbounded_channel();
        let (asking, asked) = mpsc::unbounded_channel();
        let (open, dropped) = oneshot::channel();
        let queue = Arc::new(Queue::new(self.stats.clone()));
        let texts = frames.downgrade();
        let (peer, stats) = (self.peer, self.stats.clone());
        let outbox = Outbox { peer, frames, queue: queue.clone(), asked, stats, open: Some(open) };
        if self.events.send(ConnectionEvent::Connected(self.id, outbox)).await.is_err() {
            return;
        }
        let reader = self.read_frames(read_half, &texts, &queue, asking);
        let writer = write_frames(write_half, outgoing, &queue);
        let overdue = async {
            // The driver has dropped the outbox, or cut the client off.
            if dropped.await.is_err() {
                tokio::time::sleep(FLUSH_TIME).await;
            }
        };
        tokio::pin!(reader, writer);
        tokio::select! {
            // The driver dropped the outbox and all is written, or the socket cannot be written any more.
            () = &mut writer => {}
            () = &mut reader => {
                // The driver drops the outbox now, which ends the writer once replies in the queue are out.
                let _ = self.events.send(ConnectionEvent::Disconnected(self.id)).await;
                let _ = tokio::time::timeout(FLUSH_TIME, writer).await;
            }
            () = overdue => debug!(connection = self.id.0, peer = %self.peer, "gave up on a client that does not read"),
        }
    }

    async fn read_frames(
        &self,
        mut socket: OwnedReadHalf,
        texts: &mpsc::WeakUnboundedSender<Outgoing>,
        queue: &Queue,
        asking: mpsc::UnboundedSender<Asked>,
    ) {
        let Self { id, peer, settings, events, stats } = self;
        let mut buffer = BytesMut::new();
        let mut read_bytes = READ_BYTES_MIN;
        let mut is_first = true;
        loop {
            if is_first && let Some(first) = buffer.first_chunk() {
                is_first = false;
                if let Some(text) = four_letter::answer(first, &settings.four_letter_words, stats) {
                    if let Some(texts) = texts.upgrade() {
                        // Whoever has hung up already does not want the answer.
                        let _ = texts.send(Outgoing::Text(text));
                    }
                    return;
                }
            }
            loop {
                match split_frame(&mut buffer, settings.frame_bytes_max) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        while queue.is_full() {
                            queue.drained.notified().await;
                        }
                        let units = units_of(frame.len());
                        let Ok(permits) = queue.unanswered.acquire_many(units).await else { return };
                        permits.forget();
                        stats.received.fetch_add(1, Ordering::Relaxed);
                        stats.outstanding.fetch_add(1, Ordering::Relaxed);
                        if asking.send(Asked { units, came: clock::now() }).is_err() {
                            // The driver has dropped the outbox: this connection ends.
                            stats.outstanding.fetch_sub(1, Ordering::Relaxed);
                            return;
                        }
                        if events.send(ConnectionEvent::Frame(*id, frame)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        stats.refusals.fetch_add(1, Ordering::Relaxed);
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
            buffer.reserve(read_bytes);
            // Unlike `try_read_buf` it knows that a short read has emptied the socket, which spares one system call in two.
            match socket.read_buf(&mut buffer).await {
                Ok(0) => return,
                Ok(count) if count >= read_bytes => read_bytes = (read_bytes * 2).min(READ_BYTES_MAX),
                Ok(_) => {}
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
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    queue: &Queue,
) {
    let mut batch = Vec::new();
    while let Some(first) = outgoing.recv().await {
        let (mut replies, mut notices) = (0, 0);
        let mut next = Some(first);
        while let Some(taken) = next {
            let frame = match taken {
                Outgoing::Reply(frame) => {
                    replies += frame.len();
                    frame
                }
                Outgoing::Notice(frame) => {
                    notices += frame.len();
                    frame
                }
                Outgoing::Text(text) => text.into_bytes(),
            };
            if batch.is_empty() {
                batch = frame;
            } else {
                batch.extend_from_slice(&frame);
            }
            next = if batch.len() < WRITE_BYTES { outgoing.try_recv().ok() } else { None };
        }
        if socket.write_all(&batch).await.is_err() {
            return;
        }
        batch = Vec::new();
        queue.notice_bytes.fetch_sub(notices, Ordering::Relaxed);
        queue.reply_bytes.fetch_sub(replies, Ordering::Relaxed);
        queue.on_gone(replies + notices);
        queue.drained.notify_one();
    }
    // A socket that the client has closed already has nothing to flush.
    let _ = socket.shutdown().await;
}

/// What a request takes of [`UNITS_MAX`].
fn units_of(frame_bytes: usize) -> u32 {
    let by_length = frame_bytes / (UNANSWERED_BYTES_MAX / UNITS_MAX as usize);
    u32::try_from(by_length).unwrap_or(UNITS_MAX).clamp(UNITS_MAX / UNANSWERED_MAX, UNITS_MAX)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_nothing_does_not_keep_a_connection_that_was_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        let (events, mut seen) = mpsc::channel(8);
        let connection = Connection {
            id: ConnectionId(1),
            peer,
            settings: Arc::new(MemberSettings::default()),
            events,
            stats: Arc::new(MemberStats::default()),
        };
        let connection = tokio::spawn(connection.run(socket));
        let Some(ConnectionEvent::Connected(_, mut outbox)) = seen.recv().await else {
            panic!("not connected")
        };
        outbox.reply(vec![0; 64 << 20]);
        drop(outbox);
        tokio::time::timeout(FLUSH_TIME * 2, connection).await.expect("it ends").unwrap();
        drop(client);
    }

    #[test]
    fn requests_are_bounded_in_number_and_in_bytes() {
        assert_eq!(UNITS_MAX / units_of(8), UNANSWERED_MAX);
        assert_eq!((UNITS_MAX / units_of(1 << 20)) as usize, UNANSWERED_BYTES_MAX >> 20);
        assert_eq!(units_of(usize::MAX), UNITS_MAX, "one request always fits");
    }
}
