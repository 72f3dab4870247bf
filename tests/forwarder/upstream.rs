//! A resolver that says what a test wants it to, truths and lies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::Edns;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, CNAME, NULL, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::task::JoinSet;

/// One packet that it sends.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Empty, it closes the connection.
    pub(crate) packet: Vec<u8>,
    pub(crate) after: Duration,
    pub(crate) from: From,
}

/// Where a packet over UDP comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Where it was asked.
    Here,
    /// Another port of the same address.
    OtherPort,
    /// The same port of another address.
    OtherAddress,
}

/// How it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    Tcp,
    Tls,
}

/// A question that it got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) over: Over,
    pub(crate) from: SocketAddr,
    pub(crate) message: Message,
}

/// What becomes of connections.
enum Tcp {
    Accepted(Option<tokio_rustls::TlsAcceptor>),
    Refused,
}

type Says = dyn Fn(&Message, Over) -> Vec<Sent> + Send + Sync;

/// A resolver on loopback, which ends when it is dropped.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    says: Mutex<Arc<Says>>,
    got: Mutex<Vec<Got>>,
}

impl Upstream {
    /// One that answers every question with one address.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// One that speaks TLS over TCP.
    pub(crate) async fn start_tls(acceptor: tokio_rustls::TlsAcceptor) -> Self {
        Self::start_with(Some(acceptor)).await
    }

    /// One with which there is no TCP: connections are refused.
    pub(crate) async fn start_without_tcp() -> Self {
        Self::start_over(Tcp::Refused).await
    }

    async fn start_with(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        Self::start_over(Tcp::Accepted(tls)).await
    }

    async fn start_over(way: Tcp) -> Self {
        let (udp, other, tcp, addr) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let addr = udp.local_addr().unwrap();
            // The port may be taken for TCP, or there.
            let other = UdpSocket::bind(("127.0.0.9", addr.port())).await;
            let tcp = TcpSocket::new_v4().unwrap();
            if let (Ok(other), Ok(())) = (other, tcp.bind(addr)) {
                break (udp, other, tcp, addr);
            }
        };
        let says: Arc<Says> = Arc::new(|query, _| vec![now(&address(query, 1))]);
        let shared = Arc::new(Shared { says: Mutex::new(says), got: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(Arc::new(udp), Arc::new(other), shared.clone()));
        match way {
            Tcp::Accepted(tls) => tasks.spawn(serve_tcp(tcp.listen(1024).unwrap(), tls, shared.clone())),
            // The port is taken, and nobody listens.
            Tcp::Refused => tasks.spawn(async move {
                let _tcp = tcp;
                std::future::pending().await
            }),
        };
        Self { addr, shared, _tasks: tasks }
    }

    /// What it answers from now on.
    pub(crate) fn says(&self, says: impl Fn(&Message, Over) -> Vec<Sent> + Send + Sync + 'static) {
        *self.shared.says.lock().unwrap() = Arc::new(says);
    }

    /// The same, with one message at once.
    pub(crate) fn answers(&self, says: impl Fn(&Message) -> Message + Send + Sync + 'static) {
        self.says(move |query, _| vec![now(&says(query))]);
    }

    pub(crate) fn is_silent(&self) {
        self.says(|_, _| Vec::new());
    }

    /// All questions until now, but for those by which the forwarder sees whether it is well.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().iter().filter(|got| !is_probe(&got.message)).cloned().collect()
    }

    /// The questions by which the forwarder has seen whether it is well.
    pub(crate) fn probes(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().iter().filter(|got| is_probe(&got.message)).cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.got().len()
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, other_address: Arc<UdpSocket>, shared: Arc<Shared>) {
    let other_port = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let mut packet = [0; 2000];
    let mut answers = JoinSet::new();
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        for sent in shared.hear(&packet[..length], from, Over::Udp) {
            let socket = match sent.from {
                From::Here => &socket,
                From::OtherPort => &other_port,
                From::OtherAddress => &other_address,
            };
            let socket = socket.clone();
            answers.spawn(async move {
                tokio::time::sleep(sent.after).await;
                let _may_be_gone = socket.send_to(&sent.packet, from).await;
            });
        }
    }
}

async fn serve_tcp(listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), shared.clone());
        connections.spawn(async move {
            match tls {
                None => converse(stream, from, Over::Tcp, &shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, from, Over::Tls, &shared).await;
                    }
                }
            }
        });
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    from: SocketAddr,
    over: Over,
    shared: &Shared,
) {
    while let Ok(length) = stream.read_u16().await {
        let mut packet = vec![0; usize::from(length)];
        if stream.read_exact(&mut packet).await.is_err() {
            return;
        }
        for sent in shared.hear(&packet, from, over) {
            tokio::time::sleep(sent.after).await;
            if sent.packet.is_empty() {
                return;
            }
            let length = u16::try_from(sent.packet.len()).unwrap().to_be_bytes();
            let framed = [&length[..], &sent.packet].concat();
            if stream.write_all(&framed).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

impl Shared {
    fn hear(&self, packet: &[u8], from: SocketAddr, over: Over) -> Vec<Sent> {
        let message = Message::from_vec(packet).expect("the forwarder sends what can be read");
        self.got.lock().unwrap().push(Got { over, from, message: message.clone() });
        let says = self.says.lock().unwrap().clone();
        says(&message, over)
    }
}

/// Whether that is the forwarder's own question.
fn is_probe(query: &Message) -> bool {
    let asked = &query.queries[0];
    query.metadata.recursion_desired && asked.name().is_root() && asked.query_type() == RecordType::NS
}

/// A message that is sent at once.
pub(crate) fn now(message: &Message) -> Sent {
    Sent { packet: message.to_vec().unwrap(), after: Duration::ZERO, from: From::Here }
}

/// An answer without records.
pub(crate) fn answer(query: &Message) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    message.add_query(query.queries[0].clone());
    message
}

/// An answer with the address 192.0.2.`last`.
pub(crate) fn address(query: &Message, last: u8) -> Message {
    let mut message = answer(query);
    message.add_answer(a(query.queries[0].name(), 60, last));
    message
}

/// An answer with a code.
pub(crate) fn code(query: &Message, rcode: ResponseCode) -> Message {
    let mut message = answer(query);
    message.metadata.response_code = rcode;
    message
}

/// The message with an extended error (RFC 8914).
pub(crate) fn explained(mut message: Message, code: u16, text: &str) -> Message {
    let data = [&code.to_be_bytes(), text.as_bytes()].concat();
    let edns = message.edns.get_or_insert_with(Edns::new);
    edns.options_mut().insert(EdnsOption::Unknown(15, data));
    message
}

/// The question in other letters.
pub(crate) fn in_lower_case(mut message: Message) -> Message {
    let (name, kind) = (message.queries[0].name().to_lowercase(), message.queries[0].query_type());
    message.queries[0] = Query::query(name, kind);
    message
}

pub(crate) fn a(name: &Name, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name.clone(), ttl, RData::A(A::new(192, 0, 2, last)))
}

pub(crate) fn cname(owner: &Name, target: &str) -> Record {
    Record::from_rdata(owner.clone(), 60, RData::CNAME(CNAME(Name::from_ascii(target).unwrap())))
}

pub(crate) fn soa(owner: &str, ttl: u32) -> Record {
    let owner = Name::from_ascii(owner).unwrap();
    let data = SOA::new(owner.clone(), owner.clone(), 1, 3600, 600, 86_400, ttl);
    Record::from_rdata(owner, ttl, RData::SOA(data))
}

/// A record of a type whose data are octets here.
pub(crate) fn unknown(owner: &str, code: RecordType, data: Vec<u8>) -> Record {
    let data = RData::Unknown { code, rdata: NULL::with(data) };
    Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, data)
}

/// A signature by `zone` over what `owner` has of a type (RFC 4034 section 3.1).
pub(crate) fn rrsig(owner: &str, covered: RecordType, zone: &str) -> Record {
    let mut data = u16::from(covered).to_be_bytes().to_vec();
    data.extend([0; 16]);
    data.extend(Name::from_ascii(zone).unwrap().to_bytes().unwrap());
    data.extend([7; 64]);
    unknown(owner, RecordType::RRSIG, data)
}
