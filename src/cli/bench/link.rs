//! One connection to a server: a socket with a session.
//!
//! Leaner than [`Client`](crate::client::Client), which answers futures and keeps watches for its callers: the generator of a load
//! shares the machine with the servers that it measures. Requests are appended to one buffer and written together;
//! replies are cut off another; nothing is allocated for an operation.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock;
use crate::codec::{CodecError, Reader};
use crate::id::{SessionId, Xid, Zxid};
use crate::wire::{
    ConnectRequest, ConnectResponse, FrameError, ReplyHeader, Request, split_frame, write_frame,
};
use crate::znode::{OpError, SessionPassword};

/// How long a TCP connect and the answer to the first frame may take together.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long closing a session may take before the socket is just dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes asked of the socket at once, at first and at most. Few at first, because there may be ten thousand idle
/// connections; doubled whenever a read fills them.
const READ_BYTES_MIN: usize = 512;
const READ_BYTES_MAX: usize = 64 << 10;
/// The longest frame taken from a server: the largest `--data-bytes` and its stat fit well.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// A socket with a session.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    incoming: BytesMut,
    read_bytes: usize,
    outgoing: Vec<u8>,
    /// Bytes at the front of `outgoing` that are written.
    written: usize,
    session: Session,
    last_xid: i32,
    /// When what is unanswered was sent, the oldest first: servers answer in order.
    unanswered: VecDeque<(Xid, Instant)>,
    /// When the ping on its way was sent.
    ping_sent: Option<Instant>,
    last_sent: Instant,
}

/// What resumes a session on another connection.
#[derive(Clone, Debug)]
pub(super) struct Session {
    id: SessionId,
    password: SessionPassword,
    /// What the server granted, or what to ask for.
    timeout: Duration,
    last_zxid: Zxid,
}

/// What came from the server.
#[derive(Debug)]
pub(super) enum Incoming {
    /// The reply to the oldest request.
    Reply { latency: Duration, result: Result<(), OpError> },
    /// The answer to a ping.
    Pong { latency: Duration },
    /// A watch has fired.
    Event,
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no session within {OPEN_TIMEOUT:?}")]
    OpenLate,
    #[error("session expired")]
    Expired,
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    #[error("no answer for two thirds of the session timeout")]
    Unanswered,
    #[error("bad reply: {0}")]
    Frame(#[from] FrameError),
    #[error("bad reply: {0}")]
    Codec(#[from] CodecError),
    #[error("a reply to another request than the oldest")]
    OutOfOrder,
}

impl Session {
    /// None yet: the first connection opens one, and asks for `timeout`.
    pub(super) const fn none(timeout: Duration) -> Self {
        Self { id: SessionId::NONE, password: SessionPassword::ZERO, timeout, last_zxid: Zxid::ZERO }
    }
}

impl Link {
    /// Connects to `server`, and opens or resumes the session.
    ///
    /// # Errors
    ///
    /// When that is not done within [`OPEN_TIMEOUT`], or the session is gone.
    pub(super) async fn open(server: SocketAddr, session: Session) -> Result<Self, LinkError> {
        timeout(OPEN_TIMEOUT, Self::open_unbounded(server, session))
            .await
            .map_err(|_late| LinkError::OpenLate)?
    }

    async fn open_unbounded(server: SocketAddr, session: Session) -> Result<Self, LinkError> {
        let stream = TcpStream::connect(server).await.map_err(LinkError::Connect)?;
        stream.set_nodelay(true)?;
        let mut link = Self {
            stream,
            incoming: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            outgoing: Vec::new(),
            written: 0,
            session,
            last_xid: 0,
            unanswered: VecDeque::new(),
            ping_sent: None,
            last_sent: clock::now(),
        };
        let request = ConnectRequest {
            last_zxid_seen: link.session.last_zxid,
            timeout_ms: i32::try_from(link.session.timeout.as_millis()).unwrap_or(i32::MAX),
            session: link.session.id,
            password: link.session.password,
            read_only: Some(false),
        };
        write_frame(&mut link.outgoing, |out| request.encode(out));
        let answer = loop {
            link.exchange().await?;
            if let Some(frame) = split_frame(&mut link.incoming, FRAME_BYTES_MAX)? {
                break ConnectResponse::decode(&frame)?;
            }
        };
        link.session.timeout = answer.timeout().ok_or(LinkError::Expired)?;
        (link.session.id, link.session.password) = (answer.session, answer.password);
        Ok(link)
    }

    /// The session, to be resumed on another connection.
    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    /// Requests that are not answered yet.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Appends a request, which [`Link::exchange`] sends.
    pub(super) fn submit(&mut self, request: &Request, now: Instant) {
        // The protocol's own numbers are negative.
        self.last_xid = if self.last_xid == i32::MAX { 1 } else { self.last_xid + 1 };
        let xid = Xid(self.last_xid);
        write_frame(&mut self.outgoing, |out| request.encode(xid, out));
        self.unanswered.push_back((xid, now));
        self.last_sent = now;
    }

    /// Appends a ping, unless one is on its way.
    fn submit_ping(&mut self, now: Instant) {
        if self.ping_sent.is_none() {
            write_frame(&mut self.outgoing, |out| Request::Ping.encode(Xid::PING, out));
            self.ping_sent = Some(now);
            self.last_sent = now;
        }
    }

    /// Sends a ping if one is due, or finds that the server is silent; says when to call it again.
    ///
    /// # Errors
    ///
    /// [`LinkError::Unanswered`], as Apache's client has it, after two thirds of the session timeout.
    pub(super) fn watch_over(&mut self, now: Instant) -> Result<Instant, LinkError> {
        let (ping_after, silent_after) = (self.session.timeout / 3, self.session.timeout * 2 / 3);
        if now >= self.last_sent + ping_after {
            self.submit_ping(now);
        }
        let oldest = self.unanswered.front().map(|(_, sent)| *sent);
        let silent_at =
            [oldest, self.ping_sent].into_iter().flatten().min().map(|since| since + silent_after);
        if silent_at.is_some_and(|at| now >= at) {
            return Err(LinkError::Unanswered);
        }
        let ping_at = self.ping_sent.is_none().then_some(self.last_sent + ping_after);
        Ok([silent_at, ping_at].into_iter().flatten().min().expect("a ping is on its way, or due some time"))
    }

    /// Writes what the socket takes, until bytes have come in. Losing this future loses nothing.
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    pub(super) async fn exchange(&mut self) -> Result<(), LinkError> {
        loop {
            self.write()?;
            if self.outgoing.is_empty() {
                return Ok(self.read().await?);
            }
            // The server takes no more for now; it may want to be read first.
            let ready = self.stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
            if ready.is_readable() {
                return Ok(self.read().await?);
            }
        }
    }

    /// The next thing that came, of what [`Link::exchange`] has read.
    ///
    /// # Errors
    ///
    /// When the bytes are none that a server may send.
    pub(super) fn next(&mut self, now: Instant) -> Result<Option<Incoming>, LinkError> {
        let Some(frame) = split_frame(&mut self.incoming, FRAME_BYTES_MAX)? else { return Ok(None) };
        let header = ReplyHeader::decode(&mut Reader::new(&frame))?;
        let since = |sent: Instant| now.saturating_duration_since(sent);
        Ok(Some(match header.xid {
            Xid::NOTIFICATION => Incoming::Event,
            Xid::PING => {
                let sent = self.ping_sent.take().ok_or(LinkError::OutOfOrder)?;
                Incoming::Pong { latency: since(sent) }
            }
            xid => {
                let (asked, sent) = self.unanswered.pop_front().ok_or(LinkError::OutOfOrder)?;
                if asked != xid {
                    return Err(LinkError::OutOfOrder);
                }
                self.session.last_zxid = self.session.last_zxid.max(header.zxid);
                Incoming::Reply { latency: since(sent), result: header.error.map_or(Ok(()), Err) }
            }
        }))
    }

    /// Closes the session, so that its ephemerals go at once, and the connection.
    ///
    /// # Errors
    ///
    /// When no server says that it is closed within [`CLOSE_TIMEOUT`].
    pub(super) async fn close(mut self) -> Result<(), LinkError> {
        self.submit(&Request::CloseSession, clock::now());
        let closed = async {
            loop {
                self.exchange().await?;
                while let Some(_answer) = self.next(clock::now())? {
                    if self.unanswered.is_empty() {
                        return Ok(());
                    }
                }
            }
        };
        timeout(CLOSE_TIMEOUT, closed).await.unwrap_or(Err(LinkError::Unanswered))
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match self.stream.try_write(&self.outgoing[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Ok(())
    }

    async fn read(&mut self) -> io::Result<()> {
        self.incoming.reserve(self.read_bytes);
        let count = self.stream.read_buf(&mut self.incoming).await?;
        if count == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed it"));
        }
        if count >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        Ok(())
    }
}
