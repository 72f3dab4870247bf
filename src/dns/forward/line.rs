//! DNS over TLS to one upstream (RFC 7858): one connection, kept while it is used, with many questions on it at a time.
//!
//! ```text
//! ask ─► queue ─► owner of the connection: [length][question] … ─► upstream
//!  ▲                   │
//!  └── by id ◄─────────┴◄──────────────── [length][answer] … ◄──── in any order
//! ```
//!
//! The certificate must be for the name in the settings, by an authority that is trusted (the strict profile of RFC 8310
//! section 5): otherwise nothing is sent. What was under way when a connection ended is asked once more on another.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::exchange::{Failure, randomness};
use super::question::{Letters, Outgoing, Question, WithEdns};
use super::reply::{self, Reply};
use super::upstream::UpstreamAddress;
use crate::clock;
use crate::tls::{TlsClient, TlsDialError};

/// Where questions are handed to the connection's owner. When all are gone, the owner ends.
#[derive(Clone, Debug)]
pub(super) struct Line(mpsc::Sender<Asked>);

/// Owns the connection, while there is one.
#[derive(Debug)]
pub(super) struct LineOwner {
    address: UpstreamAddress,
    server_name: String,
    tls: Arc<TlsClient>,
    queue: mpsc::Receiver<Asked>,
}

/// A question under way.
#[derive(Debug)]
struct Asked {
    question: Question,
    tell: oneshot::Sender<Result<Reply, Failure>>,
    /// Whether it was on a connection that ended.
    is_repeated: bool,
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

impl Line {
    /// A line to `address`, whose certificate must be for `server_name`, and its owner, who must be run.
    pub(super) fn new(
        address: UpstreamAddress,
        server_name: String,
        tls: Arc<TlsClient>,
    ) -> (Self, LineOwner) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        (Self(sender), LineOwner { address, server_name, tls, queue })
    }

    /// Asks the upstream.
    ///
    /// # Errors
    ///
    /// When there is no connection, or it ends twice.
    pub(super) async fn ask(&self, question: Question) -> Result<Reply, Failure> {
        let (tell, told) = oneshot::channel();
        let gone = || Failure::Network(io::ErrorKind::NotConnected.into());
        // Waits while the queue is full, as long as the caller does.
        let asked = Asked { question, tell, is_repeated: false };
        self.0.send(asked).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

impl LineOwner {
    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut waiting: Vec<Asked> = Vec::new();
        loop {
            if waiting.is_empty() {
                let Some(asked) = self.queue.recv().await else { return };
                waiting.push(asked);
            }
            waiting = match self.connect().await {
                Ok(stream) => self.use_up(stream, waiting).await,
                Err(failure) => {
                    debug!(upstream = %self.address, %failure, "no TLS with the upstream");
                    self.refuse(waiting, &failure);
                    Vec::new()
                }
            };
        }
    }

    async fn connect(&self) -> Result<Stream, Failure> {
        let dial = async {
            let socket = TcpStream::connect(self.address.addr).await?;
            socket.set_nodelay(true)?;
            Ok(self.tls.connect(&self.server_name, socket).await?)
        };
        let too_slow = |_| Failure::Network(io::ErrorKind::TimedOut.into());
        timeout(CONNECT_TIMEOUT, dial).await.map_err(too_slow)?
    }

    /// All that wait would meet the same.
    fn refuse(&mut self, waiting: Vec<Asked>, failure: &Failure) {
        let mut all = waiting;
        while let Ok(asked) = self.queue.try_recv() {
            all.push(asked);
        }
        for asked in all {
            let error = match failure {
                Failure::Tls(error) => {
                    Failure::Tls(TlsDialError::Handshake(io::Error::other(error.to_string())))
                }
                Failure::Network(_) | Failure::Refused(..) | Failure::Garbled(_) | Failure::Question(_) => {
                    Failure::Network(io::Error::other(failure.to_string()))
                }
            };
            let _not_waited_for = asked.tell.send(Err(error));
        }
    }

    /// Asks over one connection until it ends, and gives back who has to be asked on another.
    async fn use_up(&mut self, stream: Stream, waiting: Vec<Asked>) -> Vec<Asked> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut pending = Pending::default();
        let mut input = BytesMut::with_capacity(4096);
        let mut left = waiting;
        let mut heard = clock::now();
        loop {
            // 1. What is to be asked.
            if pending.is_empty() {
                heard = clock::now();
            }
            while let Some(asked) = left.pop() {
                let Some(frame) = pending.add(asked) else { continue };
                if !matches!(timeout(WRITE_TIMEOUT, writer.write_all(&frame)).await, Ok(Ok(()))) {
                    return pending.into_unanswered(left);
                }
            }
            if !matches!(timeout(WRITE_TIMEOUT, writer.flush()).await, Ok(Ok(()))) {
                return pending.into_unanswered(left);
            }
            // 2. What is answered.
            while let Some(answer) = take_frame(&mut input) {
                pending.answer(&answer);
            }
            // 3. One thing that happens.
            let patience = if pending.is_empty() { IDLE_TIMEOUT } else { STALL_TIMEOUT };
            tokio::select! {
                asked = self.queue.recv(), if pending.len() < PENDING_MAX => match asked {
                    Some(asked) => left.push(asked),
                    None => return Vec::new(),
                },
                read = reader.read_buf(&mut input) => {
                    if !matches!(read, Ok(octets) if octets > 0) {
                        return pending.into_unanswered(left);
                    }
                    heard = clock::now();
                }
                () = tokio::time::sleep_until((heard + patience).into()) => return pending.into_unanswered(left),
            }
        }
    }
}

/// Questions that are on a connection, by their ids.
#[derive(Debug, Default)]
struct Pending(BTreeMap<u16, (Outgoing, Asked)>);

impl Pending {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives a question an id that is free, and the frame to send; none when nobody waits for it any more.
    fn add(&mut self, asked: Asked) -> Option<Vec<u8>> {
        self.0.retain(|_, (_, asked)| !asked.tell.is_closed());
        if asked.tell.is_closed() {
            return None;
        }
        // At most PENDING_MAX of 65536 are taken, so that it does not take long.
        let sent = loop {
            match asked.question.outgoing(&randomness(), Letters::Lower, WithEdns::Yes) {
                Ok(sent) if self.0.contains_key(&sent.id) => {}
                Ok(sent) => break sent,
                Err(error) => {
                    let _not_waited_for = asked.tell.send(Err(error.into()));
                    return None;
                }
            }
        };
        let length = u16::try_from(sent.packet.len()).expect("a question is short");
        let frame = [&length.to_be_bytes()[..], &sent.packet].concat();
        self.0.insert(sent.id, (sent, asked));
        Some(frame)
    }

    /// Hands an answer to whoever asked. One that nobody asked for, or no more, is passed over.
    fn answer(&mut self, packet: &[u8]) {
        let Some(id) = packet.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return };
        if let Some((sent, asked)) = self.0.remove(&id) {
            let reply = reply::read(packet, &asked.question, &sent).map_err(Failure::from);
            let _not_waited_for = asked.tell.send(reply);
        }
    }

    /// Whoever was not on an ended connection before is to be asked again.
    fn into_unanswered(self, left: Vec<Asked>) -> Vec<Asked> {
        let again = self.0.into_values().map(|(_, asked)| asked);
        let again = again.filter(|asked| !asked.is_repeated && !asked.tell.is_closed());
        again.map(|asked| Asked { is_repeated: true, ..asked }).chain(left).collect()
    }
}

fn take_frame(input: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes(*input.first_chunk()?));
    if input.len() < 2 + length {
        return None;
    }
    input.advance(2);
    Some(input.split_to(length))
}

/// Questions that wait for the owner; more wait for a place.
const QUEUE_MAX: usize = 64;
/// Questions on a connection at a time.
const PENDING_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection without questions is kept (RFC 7858 section 3.4 leaves it to both ends).
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection with questions may be silent: it is taken for dead then.
const STALL_TIMEOUT: Duration = Duration::from_secs(4);
