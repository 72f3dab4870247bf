//! The TCP side (RFC 7766): bounded connections, two-octet framing; answers in the order of the queries, but for those that have to
//! wait, which come when they can (section 6.2.1.1).
//!
//! ```text
//! accept ─► permit ─► connection: [length][query] … ─► handler ─┬─► [length][answer] …
//!                                                               └─ waits in a task ─┘
//! ```
//!
//! A connection ends when its client closes it, stays silent for `idle_timeout`, takes longer than
//! `message_timeout` over one query or over taking answers, sends what is no query, or at shutdown. While all
//! permits are taken, each new connection ends the one that has been silent longest (RFC 7766 section 6.2.3);
//! when none is silent it waits, and those after it in the kernel's queue. Errors of `accept`, such as too many
//! open files, are waited out and never spun on.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::handler::{Handler, Later, Outcome, Transport};
use crate::clock;

/// Bounds of the TCP side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// Connections at a time. Default 256; each takes about 10 KiB. Fewer end silent ones sooner.
    pub connections_max: usize,
    /// How long a connection may stay silent between queries. Default 10 s.
    pub idle_timeout: Duration,
    /// How long one query may take to arrive, and its answer to be taken. Default 5 s.
    pub message_timeout: Duration,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            connections_max: 256,
            idle_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(5),
        }
    }
}

/// Accepts and serves connections until `shutdown`, then waits for those that are open, which end at once.
pub async fn run(
    listener: TcpListener,
    handler: Arc<Handler>,
    settings: TcpSettings,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    let wanted = Arc::new(Notify::new());
    let connections = TaskTracker::new();
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &permits, &wanted) => accepted,
        };
        match accepted {
            Ok((stream, client, permit)) => {
                pause = ACCEPT_PAUSE_MIN;
                let (handler, wanted) = (Arc::clone(&handler), Arc::clone(&wanted));
                let connection = Connection::new(stream, client, handler, wanted, settings);
                let open = OpenConnection::new(Arc::clone(&connection.handler), permit);
                let shutdown = shutdown.clone();
                connections.spawn(async move {
                    connection.run(shutdown).await;
                    drop(open);
                });
            }
            Err(error) => {
                handler.metrics().dns_socket_errors.inc();
                warn!(%error, ?pause, "a DNS connection cannot be accepted");
                let _shutdown_or_over = timeout(pause, shutdown.cancelled()).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
    connections.close();
    connections.wait().await;
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>, wanted: &Notify) -> io::Result<Accepted> {
    let (stream, client) = listener.accept().await?;
    let permit = match Arc::clone(permits).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            // Those that wait are told in the order in which they began to.
            wanted.notify_one();
            let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
            // If the place came from elsewhere and nobody was told, nobody has to be any more.
            pin!(wanted.notified()).enable();
            permit
        }
    };
    Ok((stream, client, permit))
}

/// Counted while it lives, even if its task panics.
struct OpenConnection {
    handler: Arc<Handler>,
    _permit: OwnedSemaphorePermit,
}

impl OpenConnection {
    fn new(handler: Arc<Handler>, permit: OwnedSemaphorePermit) -> Self {
        handler.metrics().dns_connections.inc();
        Self { handler, _permit: permit }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.handler.metrics().dns_connections.dec();
    }
}

struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    handler: Arc<Handler>,
    /// Tells one silent connection to make room.
    wanted: Arc<Notify>,
    settings: TcpSettings,
    /// Answers that are waited for.
    later: JoinSet<Option<Vec<u8>>>,
    /// When the first octet of a query came that is not whole.
    begun: Option<Instant>,
    /// Whether the client sends no more, and still takes answers.
    is_half_closed: bool,
}

/// Why a connection ended, for the log.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("its client closed it")]
    Closed,
    #[error("it was idle")]
    Idle,
    #[error("it was idle, and another needed its place")]
    MadeRoom,
    #[error("a message took too long")]
    Slow,
    #[error("it carried what is no query")]
    NoQuery,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Connection {
    fn new(
        stream: TcpStream,
        client: SocketAddr,
        handler: Arc<Handler>,
        wanted: Arc<Notify>,
        settings: TcpSettings,
    ) -> Self {
        let later = JoinSet::new();
        Self { stream, client, handler, wanted, settings, later, begun: None, is_half_closed: false }
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let client = self.client;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            end = self.serve() => debug!(%client, %end, "DNS connection ended"),
        }
    }

    async fn serve(&mut self) -> End {
        if let Err(error) = self.stream.set_nodelay(true) {
            return End::Io(error);
        }
        let mut input = BytesMut::with_capacity(READ_BYTES);
        let mut answer = Vec::new();
        let mut output = Vec::new();
        loop {
            // 1. Answer every whole query that is there, in order.
            match self.answer_all(&mut input, &mut answer, &mut output) {
                Ok(()) if output.is_empty() => {}
                result => {
                    // 2. Send the answers, also those before a message that ends the connection.
                    if let Err(end) = self.send(&output).await {
                        return end;
                    }
                    output.clear();
                    if let Err(end) = result {
                        return end;
                    }
                    continue;
                }
            }
            // 3. Read on, or take an answer that was waited for.
            if let Err(end) = self.receive(&mut input, &mut output).await {
                return end;
            }
            if !output.is_empty() {
                if let Err(end) = self.send(&output).await {
                    return end;
                }
                output.clear();
            }
        }
    }

    /// Takes whole queries from `input` until there is none, `output` has grown long, or too many wait. One that has to wait holds up
    /// none behind it.
    fn answer_all(
        &mut self,
        input: &mut BytesMut,
        answer: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<(), End> {
        while output.len() < OUTPUT_BYTES_MAX
            && self.later.len() < LATER_MAX
            && let Some(query) = take_frame(input)
        {
            match self.handler.answer(&query, self.client, Transport::Tcp, answer) {
                Outcome::Silence => return Err(End::NoQuery),
                Outcome::Later(later) => {
                    self.later.spawn(answer_later(later, query, self.client, self.handler.clone()));
                }
                Outcome::Reply => push_frame(output, answer),
            }
        }
        Ok(())
    }

    /// Reads until the next query is whole, or an answer that was waited for is in `output`. A query's clock starts with its first octet,
    /// however it trickles.
    async fn receive(&mut self, input: &mut BytesMut, output: &mut Vec<u8>) -> Result<(), End> {
        let now = clock::now();
        if input.is_empty() {
            self.begun = None;
        }
        while !has_frame(input) || self.later.len() >= LATER_MAX {
            if self.is_half_closed && self.later.is_empty() {
                return Err(End::Closed);
            }
            let begun = *self.begun.get_or_insert(clock::now());
            let (is_silent, is_waited_for) = (input.is_empty(), !self.later.is_empty());
            let deadline = if is_silent {
                now + self.settings.idle_timeout
            } else {
                begun + self.settings.message_timeout
            };
            tokio::select! {
                biased;
                Some(answer) = self.later.join_next() => {
                    // A task that panicked answers nothing.
                    if let Some(answer) = answer.unwrap_or_default() {
                        push_frame(output, &answer);
                    }
                    return Ok(());
                }
                read = self.stream.read_buf(input), if self.later.len() < LATER_MAX && !self.is_half_closed => match read? {
                    0 if is_silent && is_waited_for => self.is_half_closed = true,
                    0 => return Err(End::Closed),
                    _ if is_silent => self.begun = Some(clock::now()),
                    _ => {}
                },
                () = self.wanted.notified(), if is_silent && !is_waited_for => return Err(End::MadeRoom),
                // Whoever waits for an answer is not idle; the answer's own time is bounded.
                () = sleep_until(deadline.into()), if !(is_silent && is_waited_for) && self.later.len() < LATER_MAX => {
                    return Err(if is_silent { End::Idle } else { End::Slow });
                }
                else => return Err(End::Closed),
            }
        }
        self.begun = None;
        Ok(())
    }

    async fn send(&mut self, output: &[u8]) -> Result<(), End> {
        let sent = timeout(self.settings.message_timeout, self.stream.write_all(output)).await;
        Ok(sent.map_err(|_| End::Slow)??)
    }
}

/// The answer to a query that has to wait; none to what turns out to be no query.
async fn answer_later(
    later: Later,
    query: BytesMut,
    client: SocketAddr,
    handler: Arc<Handler>,
) -> Option<Vec<u8>> {
    let ready = later.ready().await;
    let mut answer = Vec::new();
    let outcome = handler.answer_ready(ready, &query, client, Transport::Tcp, &mut answer);
    matches!(outcome, Outcome::Reply).then_some(answer)
}

fn push_frame(output: &mut Vec<u8>, answer: &[u8]) {
    let length = u16::try_from(answer.len()).expect("the handler keeps to 65 535 octets");
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(answer);
}

/// The length that a whole frame at the beginning of `input` has without its prefix.
fn frame_length(input: &[u8]) -> Option<usize> {
    let prefix: &[u8; PREFIX_BYTES] = input.first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*prefix));
    (input.len() >= PREFIX_BYTES + length).then_some(length)
}

fn has_frame(input: &[u8]) -> bool {
    frame_length(input).is_some()
}

fn take_frame(input: &mut BytesMut) -> Option<BytesMut> {
    let length = frame_length(input)?;
    input.advance(PREFIX_BYTES);
    Some(input.split_to(length))
}

const PREFIX_BYTES: usize = 2;
/// What a connection's buffer begins with; it grows to the longest query that arrives, at most 64 KiB.
const READ_BYTES: usize = 2048;
/// Bytes of answers that are gathered before they are sent; one more answer may follow.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Queries of a connection that wait at a time; while there are as many, no more is read.
const LATER_MAX: usize = 64;
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;
    use crate::dns::{bind, sample};

    #[tokio::test]
    async fn pipelined_queries_are_answered_in_order_and_whole() {
        let server = start(TcpSettings::default());
        let mut client = server.connect().await;
        let queries: Vec<u8> = (0..300).flat_map(query).collect();
        let (mut reader, mut writer) = client.split();
        let sent = async { writer.write_all(&queries).await.unwrap() };
        let received = async {
            for id in 0..300 {
                let answer = receive(&mut reader).await.unwrap();
                assert_eq!((answer.metadata.id, answer.answers.len()), (id, 100));
                assert!(!answer.metadata.truncation);
            }
        };
        within(async { tokio::join!(sent, received) }).await;
    }

    #[tokio::test]
    async fn a_query_that_is_held_holds_up_no_other() {
        let (handler, cache) = sample::web().unfollowed("web").into_handler_and_cache();
        let handler = Arc::new(handler.with_demand(Some(Arc::default())));
        let server = start_with(handler, TcpSettings::default());
        let mut client = server.connect().await;
        let names = ["empty.shop", "web.default", "empty.shop"];
        let queries: Vec<u8> = (1..).zip(names).flat_map(|(id, name)| query_for(id, name)).collect();
        client.write_all(&queries).await.unwrap();
        assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 1);
        assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 3);
        // Who sends no more still takes answers.
        client.shutdown().await.unwrap();
        cache.publish(sample::web().view);
        let held = within(receive(&mut client)).await.unwrap();
        assert_eq!((held.metadata.id, held.answers.len()), (2, 2));
        assert!(within(receive(&mut client)).await.is_none(), "closed");
    }

    #[tokio::test]
    async fn a_query_may_arrive_octet_by_octet() {
        let server = start(TcpSettings::default());
        let mut client = server.connect().await;
        client.set_nodelay(true).unwrap();
        for octet in query(3) {
            client.write_all(&[octet]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 3);
    }

    #[tokio::test]
    async fn half_a_query_is_not_waited_for_for_long() {
        let message_timeout = Duration::from_millis(50);
        let server = start(TcpSettings { message_timeout, ..TcpSettings::default() });
        let mut client = server.connect().await;
        let query = query(3);
        client.write_all(&query[..query.len() / 2]).await.unwrap();
        assert!(within(receive(&mut client)).await.is_none(), "closed without an answer");
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed_and_its_permit_is_free_again() {
        let idle_timeout = Duration::from_millis(50);
        let server = start(TcpSettings { connections_max: 1, idle_timeout, ..TcpSettings::default() });
        let mut silent = server.connect().await;
        let mut waiting = server.connect().await;
        waiting.write_all(&query(9)).await.unwrap();
        assert!(within(receive(&mut silent)).await.is_none());
        assert_eq!(within(receive(&mut waiting)).await.unwrap().metadata.id, 9);
    }

    #[tokio::test]
    async fn silent_connections_make_room_the_longest_silent_first() {
        let server = start(TcpSettings { connections_max: 2, ..TcpSettings::default() });
        let mut first = server.connect().await;
        first.write_all(&query(1)).await.unwrap();
        within(receive(&mut first)).await.unwrap();
        let mut second = server.connect().await;
        second.write_all(&query(2)).await.unwrap();
        within(receive(&mut second)).await.unwrap();

        let begin = clock::now();
        let mut third = server.connect().await;
        third.write_all(&query(3)).await.unwrap();
        assert_eq!(within(receive(&mut third)).await.unwrap().metadata.id, 3);
        assert!(begin.elapsed() < TcpSettings::default().idle_timeout / 2, "not only when one timed out");
        assert!(within(receive(&mut first)).await.is_none(), "it made room");
        second.write_all(&query(4)).await.unwrap();
        assert_eq!(within(receive(&mut second)).await.unwrap().metadata.id, 4);
    }

    #[tokio::test]
    async fn a_place_that_became_free_by_itself_costs_nobody_theirs() {
        let server = start(TcpSettings { connections_max: 1, ..TcpSettings::default() });
        let mut busy = server.connect().await;
        // Half a query: it is not silent, so it is not ended.
        busy.write_all(&query(1)[..5]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut next = server.connect().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(busy);
        tokio::time::sleep(Duration::from_millis(50)).await;
        next.write_all(&query(2)).await.unwrap();
        assert_eq!(within(receive(&mut next)).await.unwrap().metadata.id, 2);
    }

    #[tokio::test]
    async fn what_is_no_query_ends_its_connection_after_the_answers_before_it() {
        let server = start(TcpSettings::default());
        let mut client = server.connect().await;
        let mut bytes = query(1);
        bytes.extend_from_slice(&[0, 3, 1, 2, 3]);
        bytes.extend(query(2));
        client.write_all(&bytes).await.unwrap();
        assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 1);
        assert!(within(receive(&mut client)).await.is_none());
        let mut other = server.connect().await;
        other.write_all(&query(4)).await.unwrap();
        assert_eq!(within(receive(&mut other)).await.unwrap().metadata.id, 4);
    }

    #[tokio::test]
    async fn shutdown_ends_open_connections_and_the_loop() {
        let server = start(TcpSettings::default());
        let mut client = server.connect().await;
        client.write_all(&query(1)).await.unwrap();
        within(receive(&mut client)).await.unwrap();
        server.shutdown.cancel();
        assert!(within(receive(&mut client)).await.is_none());
        within(server.task).await.unwrap();
    }

    struct Started {
        addr: SocketAddr,
        shutdown: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Started {
        async fn connect(&self) -> TcpStream {
            within(TcpStream::connect(self.addr)).await.unwrap()
        }
    }

    fn start(settings: TcpSettings) -> Started {
        start_with(sample::big(100).into_handler(), settings)
    }

    fn start_with(handler: Arc<Handler>, settings: TcpSettings) -> Started {
        let (_, listener) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(listener, handler, settings, shutdown.clone()));
        Started { addr, shutdown, task }
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(20), future).await.expect("within 20 s")
    }

    /// A framed query whose answer has 100 records.
    fn query(id: u16) -> Vec<u8> {
        query_for(id, "big.default")
    }

    fn query_for(id: u16, service: &str) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii(format!("{service}.rollcall.internal.")).unwrap();
        message.add_query(Query::query(name, RecordType::A));
        let message = message.to_vec().unwrap();
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        [&length[..], &message].concat()
    }

    /// The next answer; `None` when the connection was closed.
    async fn receive(reader: &mut (impl AsyncReadExt + Unpin)) -> Option<Message> {
        let length = reader.read_u16().await.ok()?;
        let mut message = vec![0; usize::from(length)];
        reader.read_exact(&mut message).await.ok()?;
        Some(Message::from_vec(&message).unwrap())
    }
}
