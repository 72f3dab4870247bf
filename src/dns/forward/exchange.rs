//! One question to one upstream: over UDP, and over TCP where UDP does not do.
//!
//! ```text
//! socket on a random port ─► id, letters ─► wait ─┬─ mismatch: wait on, 16 times at most ─► TCP
//!                                                 ├─ cut (TC) ─► TCP
//!                                                 ├─ other letters ─► TCP ─ not to be had ─► asked again ─ other letters again ─► small letters
//!                                                 └─ answer
//! ```
//!
//! Each question over UDP has a socket of its own. The system gives it a port at random from its range for such, and as it is
//! connected takes only what comes from the upstream's address and port. So a forged answer has to meet the port, the id, and
//! the letters (RFC 5452). Bounded in time by the caller, who drops it.
//!
//! Letters are given up only for an upstream that has been seen to change them: over TCP, where nobody forges from afar, or, where there
//! is no TCP, twice in a row. Whoever forges must have met the port and the id to have his letters looked at, so that he must
//! do that twice with two questions, for what without letters he would have for once.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
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
        None => exchange.with_edns_first().await,
    };
    if matches!(result, Ok(_) | Err(Failure::Garbled(Mismatch::Content))) {
        exchange.hear();
    }
    match result? {
        Reply::Found(found) => Ok(found),
        Reply::Unusable(rcode, explanations) => Err(Failure::Refused(rcode, explanations)),
        Reply::Unread(rcode) => Err(Failure::Refused(rcode, Explanations::default())),
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

/// What comes back over UDP.
enum Heard {
    Reply(Reply),
    /// An answer to the question but for its letters.
    OtherLetters,
    /// What over TCP may be heard better: an answer that is cut or that cannot be read, or too much that is none.
    Unclear,
}

impl Exchange<'_> {
    /// Who is silent to EDNS is not asked without: other resolvers do not do that any more either (DNS flag day 2019), for it is mostly a
    /// packet that was lost, and would cost signatures and longer answers.
    async fn with_edns_first(&self) -> Result<Reply, Failure> {
        let mut reply = self.once(WithEdns::Yes).await?;
        if matches!(reply, Reply::Unread(_)) && self.question.dnssec_ok && !self.manner.is_over_tcp {
            // That has no letters to show, so that port and id are all that a forger has to meet; and without EDNS there are no signatures, and
            // the answer is kept for all who want them. So it has to come twice, to two questions. Whoever does not want them loses nothing.
            reply = self.once(WithEdns::Yes).await?;
        }
        match reply {
            // It may be the OPT record that it does not understand (RFC 6891 section 7), over TCP, too. Whoever wants signatures is told without
            // them what there is, as by any resolver whose upstream has none.
            Reply::Unusable(rcode, _) | Reply::Unread(rcode) if reply::is_own_fault(rcode) => {
                self.once(WithEdns::No).await
            }
            Reply::Found(_) | Reply::Truncated | Reply::Unusable(..) | Reply::Unread(_) => Ok(reply),
        }
    }

    async fn once(&self, with_edns: WithEdns) -> Result<Reply, Failure> {
        if self.manner.is_over_tcp { self.over_tcp(with_edns).await } else { self.over_udp(with_edns).await }
    }

    async fn over_udp(&self, with_edns: WithEdns) -> Result<Reply, Failure> {
        match self.hear_over_udp(self.letters(), with_edns).await? {
            Heard::Reply(reply) => Ok(reply),
            Heard::Unclear => self.over_tcp(with_edns).await,
            // Forged, or the upstream's way: over TCP it shows which.
            Heard::OtherLetters => match timeout(TCP_PATIENCE, self.over_tcp(with_edns)).await {
                Ok(Err(Failure::Network(_))) | Err(_) => self.without_tcp(with_edns).await,
                Ok(reply) => reply,
            },
        }
    }

    /// Asks again after an answer in other letters, of an upstream with which there is no TCP.
    ///
    /// That is believed to be its way only when it does so once more, also of one that has repeated letters before: another may stand
    /// behind the same address by now, and its answers must not be lost for ever.
    async fn without_tcp(&self, with_edns: WithEdns) -> Result<Reply, Failure> {
        let mut heard = self.hear_over_udp(self.letters(), with_edns).await?;
        if matches!(heard, Heard::OtherLetters) {
            self.learn(Habit::Changes);
            heard = self.hear_over_udp(Letters::Lower, with_edns).await?;
        }
        match heard {
            Heard::Reply(reply) => Ok(reply),
            Heard::Unclear | Heard::OtherLetters => self.over_tcp(with_edns).await,
        }
    }

    async fn hear_over_udp(&self, letters: Letters, with_edns: WithEdns) -> Result<Heard, Failure> {
        let sent = self.question.outgoing(&randomness(), letters, with_edns)?;
        let socket = connected(self.upstream.address.addr).await?;
        socket.send(&sent.packet).await?;
        let mut packet = [0; UDP_PACKET_OCTETS];
        for _ in 0..MISMATCHES_MAX {
            let length = socket.recv(&mut packet).await?;
            let read = reply::read(&packet[..length], self.question, &sent);
            self.learn_repeats(&sent, &read);
            match read {
                Ok(Reply::Truncated) => {
                    self.hear();
                    return Ok(Heard::Unclear);
                }
                Ok(reply) => return Ok(Heard::Reply(reply)),
                Err(mismatch) => {
                    self.note(mismatch);
                    if matches!(mismatch, Mismatch::Letters | Mismatch::Content) {
                        self.hear();
                        let is_readable = mismatch == Mismatch::Letters;
                        return Ok(if is_readable { Heard::OtherLetters } else { Heard::Unclear });
                    }
                }
            }
        }
        Ok(Heard::Unclear)
    }

    async fn over_tcp(&self, with_edns: WithEdns) -> Result<Reply, Failure> {
        let mut sent = self.question.outgoing(&randomness(), self.letters(), with_edns)?;
        let mut stream = TcpStream::connect(self.upstream.address.addr).await?;
        let length = u16::try_from(sent.packet.len()).expect("a question is short");
        let framed = [&length.to_be_bytes()[..], &sent.packet].concat();
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut packet = vec![0; usize::from(length)];
        stream.read_exact(&mut packet).await?;
        let mut read = reply::read(&packet, self.question, &sent);
        self.learn_repeats(&sent, &read);
        if let Err(Mismatch::Letters) = read {
            self.learn(Habit::Changes);
            sent.is_case_checked = false;
            read = reply::read(&packet, self.question, &sent);
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

    /// An answer shows that letters are repeated if it has the question, and that was sent with a capital: who makes all letters small
    /// is right by chance otherwise.
    fn learn_repeats(&self, sent: &Outgoing, read: &Result<Reply, Mismatch>) {
        let is_repeated = matches!(read, Ok(Reply::Found(_) | Reply::Truncated | Reply::Unusable(..)));
        if is_repeated && sent.is_case_checked && sent.has_capitals() {
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
/// How long TCP may take to show whether letters are an upstream's way. Where a firewall drops its port nothing ever comes, and the question has to be
/// asked again within the client's time.
const TCP_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record};
    use tokio::net::TcpListener;

    use super::*;
    use crate::dns::forward::upstream::UpstreamAddress;

    #[tokio::test]
    async fn rfc6891_7_who_takes_edns_for_an_error_over_tcp_is_asked_without() {
        for rcode in [ResponseCode::FormErr, ResponseCode::NotImp] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = UpstreamAddress { addr: listener.local_addr().unwrap(), tls_name: None };
            let (upstream, metrics) = (Upstream::new(address, None), Metrics::new());
            let manner = Manner { is_case_random: true, is_over_tcp: true, metrics: &metrics };
            let name = Name::from_ascii("www.example.com.").unwrap();
            let question = Question { name, kind: RecordType::A, dnssec_ok: false, checking_disabled: false };
            let found = tokio::select! {
                found = ask(&upstream, &question, manner) => found.unwrap(),
                () = without_edns(listener, rcode) => unreachable!("it serves on"),
            };
            assert_eq!(found.answers.len(), 1);
        }
    }

    /// An upstream that says `rcode` to whatever has EDNS.
    async fn without_edns(listener: TcpListener, rcode: ResponseCode) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut packet = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut packet).await.unwrap();
            let query = Message::from_vec(&packet).unwrap();
            let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
            message.metadata.recursion_available = true;
            message.add_query(query.queries[0].clone());
            if query.edns.is_some() {
                message.metadata.response_code = rcode;
            } else {
                let data = RData::A(A::new(192, 0, 2, 1));
                message.add_answer(Record::from_rdata(query.queries[0].name().clone(), 60, data));
            }
            let packet = message.to_vec().unwrap();
            stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
            stream.write_all(&packet).await.unwrap();
        }
    }
}
