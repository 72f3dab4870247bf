//! A DNS listener that forwards, and a client of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use rollcall::clock;
use rollcall::dns::{self, DnsPlan, ForwardSettings, Forwarder, Handler, Zone, tcp, udp};
use rollcall::id::{SessionId, Zxid};
use rollcall::registry::{Cache, Instance, Label, Record, Service, ServiceKey, View};
use rollcall::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) addr: SocketAddr,
    pub(crate) forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
    cache: Arc<Cache>,
    folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl World {
    /// One with these settings; `resolv_conf` is the system's file for it.
    pub(crate) fn start(settings: &str, resolv_conf: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        std::fs::write(&file, resolv_conf).unwrap();
        let (udp_socket, listener) = dns::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (metrics, shutdown) = (Arc::new(Metrics::new()), CancellationToken::new());
        let plan = plan(&folder, settings);
        let forwarder = Arc::new(Forwarder::new(plan, addr, metrics.clone(), shutdown.clone()));
        let zone = Zone::parse("rollcall.internal", label("default")).unwrap();
        let cache = Arc::new(Cache::new(clock::now()));
        let handler = Handler::new(cache.clone(), DnsPlan::of_zone(zone), metrics.clone());
        let handler = Arc::new(handler.with_forwarder(Some(forwarder.clone())));
        let mut tasks = JoinSet::new();
        tasks.spawn(udp::run(udp_socket, handler.clone(), shutdown.clone()));
        tasks.spawn(tcp::run(listener, handler, tcp::TcpSettings::default(), shutdown));
        tasks.spawn(forwarder.clone().run());
        Self { addr, forwarder, metrics, cache, folder, _tasks: tasks }
    }

    /// One that asks these and tries for a short while.
    pub(crate) fn asking(upstreams: &[SocketAddr]) -> Self {
        Self::start(&format!("{{{}, timeout: 200ms}}", listed(upstreams)), "")
    }

    /// Has it know `web.default`, with the address 10.0.0.`last`. Before it knows nothing of its zone.
    pub(crate) fn knows_web(&self, last: u8) {
        let key = ServiceKey { namespace: label("default"), name: label("web") };
        let json = format!(
            r#"{{"v":1,"addresses":["10.0.0.{last}"],"ports":[{{"name":"http","port":80}}],"status":"up"}}"#
        );
        let record = Record::decode(json.as_bytes()).unwrap();
        let instance = Arc::new(Instance::new(label("web-1"), record, Zxid::ZERO, SessionId::NONE));
        let service = Service { instances: vec![instance].into(), ..Service::new(key.clone()) };
        let services = [Arc::new(service)].into();
        self.cache.publish(View { is_loaded: true, services, ..View::default() });
        self.cache.set_synced(true);
    }

    /// Gives it other settings while it runs.
    pub(crate) fn configure(&self, settings: &str) {
        self.forwarder.serve(plan(&self.folder, settings));
    }

    pub(crate) fn write_resolv_conf(&self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.path().join("resolv.conf")).unwrap();
    }

    pub(crate) fn remove_resolv_conf(&self) {
        std::fs::remove_file(self.folder.path().join("resolv.conf")).unwrap();
    }

    /// Asks for an address over UDP, with EDNS.
    pub(crate) async fn ask(&self, name: &str) -> Message {
        self.ask_with(&query(name, RecordType::A)).await
    }

    pub(crate) async fn ask_with(&self, query: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        self.ask_from(&socket, query).await
    }

    pub(crate) async fn ask_from(&self, socket: &UdpSocket, query: &Message) -> Message {
        socket.send_to(&query.to_vec().unwrap(), self.addr).await.unwrap();
        let mut packet = [0; 4096];
        let (length, _) = timeout(LIMIT, socket.recv_from(&mut packet)).await.expect("an answer").unwrap();
        let answer = Message::from_vec(&packet[..length]).unwrap();
        assert_eq!(answer.metadata.id, query.metadata.id);
        answer
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// What a metric says, with its labels as they are printed.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

pub(crate) fn plan(folder: &tempfile::TempDir, settings: &str) -> dns::ForwardPlan {
    let mut settings: ForwardSettings = serde_yaml::from_str(settings).unwrap();
    settings.resolv_conf = Some(folder.path().join("resolv.conf"));
    let mut mistakes = Vec::new();
    let plan = settings.plan("dns.forward", None, &mut mistakes);
    assert!(mistakes.is_empty(), "{mistakes:?}");
    plan
}

/// The key `upstreams`.
pub(crate) fn listed(upstreams: &[SocketAddr]) -> String {
    let quoted: Vec<_> = upstreams.iter().map(|addr| format!("'{addr}'")).collect();
    format!("upstreams: [{}]", quoted.join(", "))
}

/// A question as clients ask it: recursion desired, with EDNS.
pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

/// The last numbers of the addresses in an answer.
pub(crate) fn addresses(answer: &Message) -> Vec<u8> {
    let data = answer.answers.iter().filter_map(|record| record.data.ip_addr());
    data.map(|ip| match ip {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(ip) => ip.octets()[15],
    })
    .collect()
}

/// The code of the extended error (RFC 8914).
pub(crate) fn extended(answer: &Message) -> Option<u16> {
    let option = answer.edns.as_ref()?.option(EdnsCode::Unknown(15))?;
    let EdnsOption::Unknown(_, data) = option else { panic!("{option:?}") };
    Some(u16::from_be_bytes([data[0], data[1]]))
}

pub(crate) async fn send_framed(stream: &mut TcpStream, message: &Message) {
    let packet = message.to_vec().unwrap();
    stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
    stream.write_all(&packet).await.unwrap();
}

pub(crate) async fn receive_framed(stream: &mut TcpStream) -> Message {
    let receive = async {
        let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut packet).await.unwrap();
        Message::from_vec(&packet).unwrap()
    };
    timeout(LIMIT, receive).await.expect("an answer")
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let begin = clock::now();
    while !is_so().await {
        assert!(begin.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
