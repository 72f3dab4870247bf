//! One question to one upstream: over UDP, and over TCP where UDP does not do.
//!
//! ```text
//! socket on a random port ─► id, letters ─► wait ─┬─ mismatch: wait on, 16 times at most ─► TCP
//!                                                 ├─ other letters, TC ─► TCP
//!                                                 └─ answer
//! ```
//!
//! Each question over UDP has a socket of its own. The system gives it a port at random from its range for such, and as it is
//! connected takes only what comes from the upstream's address and port. So a forged answer has to meet the port, the id, and
//! the letters (RFC 5452). Bounded in time by the caller, who drops it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tracing::debug;

use super::explanation::Explanations;
use super::health::Habit;
use super::question::{Letters, Outgoing, Question, RANDOM_OCTETS, Randomness, WithEdns};
use super::reply::{self, Found, Mismatch, Reply};
use super::upstream::Upstream;
use crate::clock;
use crate::telemetry::{Metrics, UpstreamFailure};
use crate::tls::{TlsDialError, fill_random};

/// What is done for every question alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner<'a> {
    /// Whether letters are sent in random case.
    pub(super) is_case_random: bool,
    /// Whether UDP is not used.
    pub(super) is_over_tcp: bool,
    pub(super) metrics: &'a Metrics,
}

/// Why an upstream has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it cannot be sent anything ({0})")]
    Network(#[from] io::Error),
    #[error("there is no TLS with it ({0})")]
    Tls(#[from] TlsDialError),
    #[error("it answers {0}")]
    Refused(ResponseCode, Explanations),
    #[error("its answer is none to the question: {0}")]
    Garbled(#[from] Mismatch),
    #[error("the question cannot be encoded ({0})")]
    Question(#[from] ProtoError),
}

impl Failure {
    /// Whether it comes of what was asked, and another question may well be answered. It may be the fault of the name's own servers, or the
    /// type may be one that the upstream does not know, or does not tell of (ANY, RFC 8482).
    pub(super) const fn is_of_the_question(&self, kind: RecordType) -> bool {
        match self {
            Self::Refused(rcode, _) => {
                !matches!(rcode, ResponseCode::Refused) || matches!(kind, RecordType::ANY)
            }
            Self::Garbled(Mismatch::Content) | Self::Question(_) => true,
            Self::Network(_) | Self::Tls(_) | Self::Garbled(_) => false,
        }
    }

    /// As which it is counted.
    pub(super) const fn reason(&self) -> UpstreamFailure {
        match self {
            Self::Network(_) => UpstreamFailure::Network,
            Self::Tls(_) => UpstreamFailure::Tls,
            Self::Refused(..) => UpstreamFailure::Refused,
            Self::Garbled(_) | Self::Question(_) => UpstreamFailure::Garbled,
        }
    }
}

/// Asks `upstream`.
///
/// # Errors
///
/// When it has no answer; that it is silent is for the caller to find.
pub(super) async fn ask(
    upstream: &Upstream,
    question: &Question,
    manner: Manner<'_>,
) -> Result<Found, Failure> {
    let exchange = Exchange { upstream, question, manner };
    let result = match &upstream.line {
        Some(line) => line.ask(question.clone()).await,
        None if manner.is_over_tcp => exchange.over_tcp().await,
        None => exchange.over_udp_first().await,
    };
    if matches!(result, Ok(_) | Err(Failure::Garbled(Mismatch::Content))) {
        exchange.hear();
    }
    match result? {
        Reply::Found(found) => Ok(found),
        Reply::Unusable(rcode, explanations) => Err(Failure::Refused(rcode, explanations)),
        // Nothing is too long for TCP.
        Reply::Truncated => Err(Failure::Garbled(Mismatch::Content)),
    }
}

/// Fresh random octets for one packet.
pub(super) fn randomness() -> Randomness {
    let mut random = [0; RANDOM_OCTETS];
    fill_random(&mut random);
    random
}

struct Exchange<'a> {
    upstream: &'a Upstream,
    question: &'a Question,
    manner: Manner<'a>,
}

impl Exchange<'_> {
    async fn over_udp_first(&self) -> Result<Reply, Failure> {
        let reply = self.over_udp(WithEdns::Yes).await?;
        match reply {
            // It may be the OPT record that it does not understand (RFC 6891 section 7). Whoever wants signatures is told without them what there
            // is, as by any resolver whose upstream has none.
            Reply::Unusable(rcode, _) if reply::is_own_fault(rcode) => self.over_udp(WithEdns::No).await,
            Reply::Found(_) | Reply::Truncated | Reply::Unusable(..) => Ok(reply),
        }
    }

    async fn over_udp(&self, with_edns: WithEdns) -> Result<Reply, Failure> {
        let sent = self.question.outgoing(&randomness(), self.letters(), with_edns)?;
        let socket = connected(self.upstream.address.addr).await?;
        socket.send(&sent.packet).await?;
        let mut packet = [0; UDP_PACKET_OCTETS];
        for _ in 0..MISMATCHES_MAX {
            let length = socket.recv(&mut packet).await?;
            match reply::read(&packet[..length], self.question, &sent) {
                Ok(Reply::Truncated) => {
                    self.hear();
                    return self.over_tcp().await;
                }
                Ok(reply) => {
                    self.learn_repeats(&sent);
                    return Ok(reply);
                }
                Err(mismatch) => {
                    self.note(mismatch);
                    if matches!(mismatch, Mismatch::Letters | Mismatch::Content) {
                        // Forged, or the upstream's way: over TCP it shows which.
                        self.hear();
                        return self.over_tcp().await;
                    }
                }
            }
        }
        self.over_tcp().await
    }

    async fn over_tcp(&self) -> Result<Reply, Failure> {
        let mut sent = self.question.outgoing(&randomness(), self.letters(), WithEdns::Yes)?;
        let stream = TcpStream::connect(self.upstream.address.addr).await;
        if stream.is_err() && sent.is_case_checked && self.habit() == Habit::Unknown {
            // Without TCP its way cannot be learnt; answers in other letters must not be lost for ever.
            self.learn(Habit::Changes);
        }
        let mut stream = stream?;
        let length = u16::try_from(sent.packet.len()).expect("a question is short");
        let framed = [&length.to_be_bytes()[..], &sent.packet].concat();
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut packet = vec![0; usize::from(length)];
        stream.read_exact(&mut packet).await?;
        let mut read = reply::read(&packet, self.question, &sent);
        if let Err(Mismatch::Letters) = read {
            self.learn(Habit::Changes);
            sent.is_case_checked = false;
            read = reply::read(&packet, self.question, &sent);
        } else if read.is_ok() {
            self.learn_repeats(&sent);
        }
        read.map_err(|mismatch| {
            self.note(mismatch);
            mismatch.into()
        })
    }

    fn letters(&self) -> Letters {
        match self.habit() {
            Habit::Unknown | Habit::Repeats if self.manner.is_case_random => Letters::Random,
            Habit::Unknown | Habit::Repeats | Habit::Changes => Letters::Lower,
        }
    }

    fn learn_repeats(&self, sent: &Outgoing) {
        if sent.is_case_checked {
            self.learn(Habit::Repeats);
        }
    }

    fn habit(&self) -> Habit {
        self.upstream.health().habit(clock::now())
    }

    fn learn(&self, habit: Habit) {
        self.upstream.health().learn(habit, clock::now());
    }

    /// It has answered, whatever comes of that.
    fn hear(&self) {
        self.upstream.health().hear(clock::now());
    }

    fn note(&self, mismatch: Mismatch) {
        self.manner.metrics.forward.mismatches.inc();
        debug!(upstream = %self.upstream.address, %mismatch, "a packet is not the answer");
    }
}

/// A socket of its own on a port that the system draws, for what comes from `addr` alone.
async fn connected(addr: SocketAddr) -> io::Result<UdpSocket> {
    let any = match addr {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    Ok(socket)
}

/// Octets of the longest answer over UDP that is read whole; upstreams are told to send less.
const UDP_PACKET_OCTETS: usize = 4096;
/// Packets that may be no answer before TCP is used: as many guesses as a forger has.
const MISMATCHES_MAX: usize = 16;
