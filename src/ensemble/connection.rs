//! One client's socket: frames in, frames out, nothing decided.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::four_letter::{self, Answer, FourLetterWord};
use super::settings::MemberSettings;
use super::stats::MemberStats;
use super::waiting::{Outgoing, Waiting, units_of};
use crate::clock;
use crate::replica::ConnectionId;
use crate::wire::split_frame;

/// What a connection tells the driver.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    Connected(ConnectionId, Outbox),
    Frame(ConnectionId, Bytes),
    /// A four-letter word that the driver has the answer to.
    Inspect(FourLetterWord, oneshot::Sender<String>),
    Disconnected(ConnectionId),
}

/// How long a client may take to read what is queued when its connection is closed from this side.
const FLUSH_TIME: Duration = Duration::from_secs(2);
/// What is read from the socket at a time, at first and at most: doubled whenever a read fills it, since most clients send one
/// short request and wait.
const READ_BYTES_MIN: usize = 1 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// The driver's end of a connection. Dropping it closes the socket once what is queued is written, or the client
/// has had time enough to read it.
#[derive(Debug)]
pub(super) struct Outbox {
    peer: SocketAddr,
    /// When it came, in ms since 1970.
    since_ms: i64,
    waiting: Arc<Waiting>,
    /// What each request took, in their order, which is that of the replies.
    asked: mpsc::UnboundedReceiver<Asked>,
    replies: u64,
    notices: u64,
    stats: Arc<MemberStats>,
    /// Tells the connection when this is dropped, or that it is to end at once.
    open: Option<oneshot::Sender<()>>,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// What it takes, see [`units_of`].
    units: u32,
    came: Instant,
}

impl Outbox {
    /// Who is at the other end.
    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When it connected, in ms since 1970.
    pub(super) const fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// How many frames have come, how many of them are not answered yet, and how many were sent.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let unanswered = self.asked.len() as u64;
        (self.replies + unanswered, unanswered, self.replies + self.notices)
    }

    /// Queues the reply to one frame.
    pub(super) fn reply(&mut self, frame: Bytes) {
        if let Ok(Asked { units, came }) = self.asked.try_recv() {
            self.stats.count_reply(clock::now().saturating_duration_since(came));
            self.waiting.unanswered.add_permits(units as usize);
        }
        self.replies += 1;
        self.waiting.add(Outgoing::Reply(frame));
    }

    /// Queues a frame that answers none; false when the client has too much waiting already.
    pub(super) fn notify(&mut self, frame: Bytes) -> bool {
        self.notices += 1;
        self.stats.sent.fetch_add(1, Ordering::Relaxed);
        self.waiting.add(Outgoing::notice(frame))
    }

    /// Bytes that wait until the client reads.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.waiting_bytes()
    }

    /// Closes the connection, and gives up what waits.
    pub(super) fn cut_off(mut self) {
        self.waiting.cut_off();
        if let Some(open) = self.open.take() {
            // Whoever has ended already is no worse off.
            let _ = open.send(());
        }
    }
}

impl Drop for Outbox {
    /// What will never be answered is not outstanding any more.
    fn drop(&mut self) {
        self.waiting.close();
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
        let (asking, asked) = mpsc::unbounded_channel();
        let (open, dropped) = oneshot::channel();
        let waiting = Arc::new(Waiting::new(self.stats.clone()));
        let outbox = Outbox {
            peer: self.peer,
            since_ms: clock::unix_ms(),
            waiting: waiting.clone(),
            asked,
            replies: 0,
            notices: 0,
            stats: self.stats.clone(),
            open: Some(open),
        };
        if self.events.send(ConnectionEvent::Connected(self.id, outbox)).await.is_err() {
            return;
        }
        let reader = self.read_frames(read_half, &waiting, asking);
        let writer = write_frames(write_half, &waiting);
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
        waiting: &Waiting,
        asking: mpsc::UnboundedSender<Asked>,
    ) {
        let Self { id, peer, settings, events, stats } = self;
        let mut buffer = BytesMut::new();
        let mut read_bytes = READ_BYTES_MIN;
        let mut is_first = true;
        loop {
            if is_first && let Some(first) = buffer.first_chunk() {
                is_first = false;
                let port = socket.local_addr().map_or(0, |addr| addr.port());
                if let Some(answer) = four_letter::answer(first, settings, port, stats) {
                    if let Some(text) = self.complete(answer).await {
                        waiting.add(Outgoing::Text(text));
                    }
                    return;
                }
            }
            loop {
                match split_frame(&mut buffer, settings.frame_bytes_max) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        while waiting.is_full() {
                            waiting.drained.notified().await;
                        }
                        let units = units_of(frame.len());
                        let Ok(permits) = waiting.unanswered.acquire_many(units).await else { return };
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

    /// The text of an answer; none when the driver is gone.
    async fn complete(&self, answer: Answer) -> Option<String> {
        match answer {
            Answer::Text(text) => Some(text),
            Answer::Inspection(word) => {
                let (reply, text) = oneshot::channel();
                self.events.send(ConnectionEvent::Inspect(word, reply)).await.ok()?;
                text.await.ok()
            }
        }
    }
}

async fn write_frames(mut socket: OwnedWriteHalf, waiting: &Waiting) {
    while let Some(batch) = waiting.next_batch().await {
        if socket.write_all(&batch.bytes).await.is_err() {
            return;
        }
        waiting.on_written(&batch);
    }
    // A socket that the client has closed already has nothing to flush.
    let _ = socket.shutdown().await;
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
        outbox.reply(vec![0; 64 << 20].into());
        drop(outbox);
        tokio::time::timeout(FLUSH_TIME * 2, connection).await.expect("it ends").unwrap();
        drop(client);
    }
}
