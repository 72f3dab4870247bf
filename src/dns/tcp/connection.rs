//! One connection: queries in, answers out.
//!
//! - It ends when its client closes it, stays silent for `idle_timeout`, takes longer than `message_timeout` over a query or over taking
//!   answers, sends what is no query, has to make room, or at shutdown. But for the last two, and answers that are not taken, the answers
//!   that it still waits for are sent before; they come in a bounded time.
//! - It holds one query that is not whole, [`OUTPUT_OCTETS_MAX`] of answers and one more answer, and [`LATER_MAX`] queries that wait, beside
//!   which others are answered; while as many wait no query is read. While answers are not taken, none of these goes on, and no query is
//!   read. While it is silent it holds nothing.
//! - After [`TURN`] of making answers others have their turn, however many queries are there.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::frame::{self, Frame, Frames};
use super::places::Standing;
use super::{Open, TcpSettings};
use crate::clock;
use crate::dns::handler::{Handler, Outcome};
use crate::dns::later::Later;
use crate::dns::transport::Transport;
use crate::telemetry::TcpEnd;

pub(super) struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    open: Open,
    settings: TcpSettings,
    /// Answers that are waited for.
    later: FuturesUnordered<Awaited>,
    /// Since when a query is owed: the first one since the beginning, others since their first octet.
    begun: Option<Instant>,
    /// Why no more is read: it ends so when the answers are sent that are waited for.
    ending: Option<End>,
    /// How long answers were made for it in this turn.
    worked: Duration,
}

/// An answer on its way; none for what turns out to be no query.
type Awaited = Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>>;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("its client closed it")]
    Closed,
    #[error("it was idle")]
    Idle,
    #[error("another needed its place")]
    MadeRoom,
    #[error("a query took too long")]
    SlowQuery,
    #[error("its answers were not taken")]
    SlowReader,
    #[error("it carried what is no query")]
    NoQuery,
    #[error("the sidecar stops")]
    Shutdown,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl End {
    const fn counted(&self) -> TcpEnd {
        match self {
            Self::Closed => TcpEnd::Client,
            Self::Idle => TcpEnd::Idle,
            Self::MadeRoom => TcpEnd::MadeRoom,
            Self::SlowQuery => TcpEnd::SlowQuery,
            Self::SlowReader => TcpEnd::SlowReader,
            Self::NoQuery => TcpEnd::NoQuery,
            Self::Shutdown => TcpEnd::Shutdown,
            Self::Io(_) => TcpEnd::Error,
        }
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, client: SocketAddr, open: Open, settings: TcpSettings) -> Self {
        let (later, begun) = (FuturesUnordered::new(), Some(clock::now()));
        let (ending, worked) = (None, Duration::ZERO);
        Self { stream, client, open, settings, later, begun, ending, worked }
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let lost = self.open.place.lost();
        let end = tokio::select! {
            biased;
            () = shutdown.cancelled() => End::Shutdown,
            () = lost.cancelled() => End::MadeRoom,
            Err(end) = self.serve() => end,
        };
        debug!(client = %self.client, %end, "DNS connection ended");
        self.open.handler.metrics().dns_tcp.count_end(end.counted());
    }

    async fn serve(&mut self) -> Result<Infallible, End> {
        self.stream.set_nodelay(true)?;
        let mut input = Frames::default();
        loop {
            // 1. Answer whole queries that are there, in order.
            let mut output = Vec::new();
            let result = self.answer_all(&mut input, &mut output);
            // 2. Send the answers, also those before a message that ends the connection.
            if !output.is_empty() {
                self.send(&output).await?;
            }
            if let Err(end) = result {
                // What comes behind it is not looked at.
                input = Frames::default();
                self.ending = Some(end);
            }
            // 3. Let others have their turn. The socket alone would not do that while queries come and answers are taken.
            if self.worked >= TURN {
                self.worked = Duration::ZERO;
                yield_now().await;
            }
            // 4. Read on, or take an answer that was waited for.
            if !input.has_next() || self.later.len() >= LATER_MAX {
                drop(output);
                if let Some(answer) = self.wait(&mut input).await? {
                    let mut output = Vec::with_capacity(answer.len() + 2);
                    frame::push(&mut output, &answer);
                    self.send(&output).await?;
                    // As many may be there at once, and how long it took is not known here.
                    yield_now().await;
                }
            }
        }
    }

    /// Takes whole queries from `input` until there is none, `output` has grown long, the turn is over, or too many wait. One that has to
    /// wait holds up none behind it.
    fn answer_all(&mut self, input: &mut Frames, output: &mut Vec<u8>) -> Result<(), End> {
        let (mut answer, mut begun) = (Vec::new(), clock::now());
        while output.len() < OUTPUT_OCTETS_MAX
            && self.later.len() < LATER_MAX
            && self.worked < TURN
            && let Some(frame) = input.next()
        {
            self.begun = None;
            let (Frame::Whole(query) | Frame::TooLong(query)) = frame;
            match self.open.handler.answer(query, self.client, Transport::Tcp, &mut answer) {
                Outcome::Silence => return Err(End::NoQuery),
                Outcome::Later(later) => {
                    let handler = Arc::clone(&self.open.handler);
                    self.later.push(Box::pin(answer_later(later, query.to_vec(), self.client, handler)));
                }
                Outcome::Reply => frame::push(output, &answer),
            }
            if matches!(frame, Frame::TooLong(_)) {
                return Err(End::NoQuery);
            }
            let now = clock::now();
            self.worked += now - begun;
            begun = now;
        }
        Ok(())
    }

    /// Reads until the next query is whole, or gives an answer that was waited for. A query's clock starts with its first octet,
    /// however it trickles.
    async fn wait(&mut self, input: &mut Frames) -> Result<Option<Vec<u8>>, End> {
        let now = clock::now();
        if !input.is_empty() {
            self.begun.get_or_insert(now);
        }
        loop {
            let can_read = self.ending.is_none() && self.later.len() < LATER_MAX;
            if can_read && input.has_next() {
                return Ok(None);
            }
            if self.later.is_empty()
                && let Some(end) = self.ending.take()
            {
                return Err(end);
            }
            let is_waited_for = !self.later.is_empty();
            // Whoever waits for an answer is not idle; the answer's own time is bounded.
            let (standing, since, patience) = match self.begun {
                _ if is_waited_for => (Standing::Served, now, None),
                None => (Standing::Idle, now, Some(self.settings.idle_timeout)),
                Some(begun) => (Standing::Owing, begun, Some(self.settings.message_timeout)),
            };
            self.open.place.stand(standing, since);
            let deadline = match (patience, self.begun) {
                (Some(patience), _) => Some(since + patience),
                (None, Some(begun)) if can_read => Some(begun + self.settings.message_timeout),
                (None, _) => None,
            };
            input.rest();
            tokio::select! {
                biased;
                Some(answer) = self.later.next() => {
                    if answer.is_some() {
                        return Ok(answer);
                    }
                }
                read = read(&mut self.stream, input), if can_read => match read? {
                    // In the middle of a query, too: it takes back none before.
                    0 => self.ending = Some(End::Closed),
                    _ => {
                        self.begun.get_or_insert(clock::now());
                    }
                },
                () = sleep_until(deadline.unwrap_or(now).into()), if deadline.is_some() => {
                    self.ending = Some(if self.begun.is_some() { End::SlowQuery } else { End::Idle });
                }
                else => return Err(End::Closed),
            }
        }
    }

    async fn send(&mut self, output: &[u8]) -> Result<(), End> {
        self.open.place.stand(Standing::Owing, clock::now());
        let sent = timeout(self.settings.message_timeout, self.stream.write_all(output)).await;
        Ok(sent.map_err(|_| End::SlowReader)??)
    }
}

/// Reads once there is something; until then nothing is held for it.
async fn read(stream: &mut TcpStream, input: &mut Frames) -> io::Result<usize> {
    stream.readable().await?;
    stream.read_buf(&mut input.room()).await
}

/// The answer to a query that has to wait; none to what turns out to be no query.
async fn answer_later(
    mut later: Later,
    query: Vec<u8>,
    client: SocketAddr,
    handler: Arc<Handler>,
) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    loop {
        let ready = later.ready().await;
        match handler.answer_ready(ready, &query, client, Transport::Tcp, &mut answer) {
            Outcome::Later(more) => later = more,
            Outcome::Reply => return Some(answer),
            Outcome::Silence => return None,
        }
    }
}

/// How long answers are made for one connection before others have their turn; one more answer may follow. Some hundred short ones.
const TURN: Duration = Duration::from_millis(1);
/// Octets of answers that are gathered before they are sent; one more answer may follow.
const OUTPUT_OCTETS_MAX: usize = 16 * 1024;
/// Queries of a connection that wait at a time; while there are as many, no more is read. Fewer than the forwarder lets a client have by
/// default, so that whoever sends many in one go gets all answers and not "too many".
const LATER_MAX: usize = 256;
