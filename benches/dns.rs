//! What one DNS answer costs, from packet to packet, without sockets: 1 000 services of 3 instances each, and a name with 3 addresses that
//! an upstream was asked for before.

#[path = "../tests/common/resolver.rs"]
mod resolver;

use std::net::SocketAddr;
use std::sync::Arc;

use divan::{AllocProfiler, Bencher, black_box};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use rollcall::clock;
use rollcall::dns::{DnsPlan, ForwardPlan, Forwarder, Handler, Outcome, Transport, Zone};
use rollcall::id::{SessionId, Zxid};
use rollcall::registry::{Cache, Home, Instance, Label, Record, Service, ServiceKey, View};
use rollcall::telemetry::Metrics;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench]
fn a(bencher: Bencher<'_, '_>) {
    answer(bencher, "service-500.default.rollcall.internal.", RecordType::A);
}

/// A third of the lookups leave the zone.
#[divan::bench]
fn a_spilling(bencher: Bencher<'_, '_>) {
    let home = Home::new(Some("a".to_owned()), []);
    answer_from(home, bencher, "service-500.default.rollcall.internal.", RecordType::A);
}

#[divan::bench]
fn srv(bencher: Bencher<'_, '_>) {
    answer(bencher, "_http._tcp.service-500.default.rollcall.internal.", RecordType::SRV);
}

#[divan::bench]
fn nxdomain(bencher: Bencher<'_, '_>) {
    answer(bencher, "nobody.default.rollcall.internal.", RecordType::A);
}

/// A name out of the zone that is in the cache.
#[divan::bench]
fn forwarded(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let mut plan = ForwardPlan::default();
    let addr = resolver::resolver(&[1, 2, 3], 86_400, |_| ());
    plan.upstreams = Some(vec![addr.to_string().parse().expect("an address")]);
    let (own, metrics) = (SocketAddr::from(([127, 0, 0, 1], 1)), Arc::new(Metrics::new()));
    let forwarder = Forwarder::new(plan, own, metrics, CancellationToken::new());
    let handler = handler(Home::default()).with_forwarder(Some(Arc::new(forwarder)));
    let (packet, client) =
        (packet("www.example.com.", RecordType::A), SocketAddr::from(([127, 0, 0, 1], 40_000)));
    let mut out = Vec::with_capacity(2048);
    let Outcome::Later(later) = handler.answer(&packet, client, Transport::Udp, &mut out) else {
        panic!("nobody knows it yet");
    };
    runtime.block_on(later.ready());
    bencher.bench_local(|| {
        let outcome = handler.answer(black_box(&packet), client, Transport::Udp, &mut out);
        assert!(matches!(outcome, Outcome::Reply));
        out.len()
    });
}

fn answer(bencher: Bencher<'_, '_>, name: &str, kind: RecordType) {
    answer_from(Home::default(), bencher, name, kind);
}

fn answer_from(home: Home, bencher: Bencher<'_, '_>, name: &str, kind: RecordType) {
    let handler = handler(home);
    let packet = packet(name, kind);
    let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let mut out = Vec::with_capacity(2048);
    bencher.bench_local(|| {
        let outcome = handler.answer(black_box(&packet), client, Transport::Udp, &mut out);
        assert!(matches!(outcome, Outcome::Reply));
        out.len()
    });
}

fn handler(home: Home) -> Handler {
    let mut view = View { is_loaded: true, ..View::default() };
    for index in 0..1000_u16 {
        let key = ServiceKey { namespace: label("default"), name: label(&format!("service-{index}")) };
        let instances = (0..3).map(|place| Arc::new(instance(index, place))).collect();
        let service = Service { instances, ..Service::new(key.clone()) };
        view.services.insert(Arc::new(service));
    }
    let cache = Cache::new(clock::now());
    cache.publish(view);
    cache.set_synced(true);
    let cache = cache.at_home(home);
    let zone = Zone::parse("rollcall.internal", label("default")).expect("a zone");
    Handler::new(Arc::new(cache), DnsPlan::of_zone(zone), Arc::new(Metrics::new()))
}

fn instance(service: u16, place: u8) -> Instance {
    let [high, low] = service.to_be_bytes();
    let zone = if place == 0 { "a" } else { "b" };
    let json = format!(
        r#"{{"v":1,"addresses":["10.{high}.{low}.{place}"],"ports":[{{"name":"http","port":80}}],"status":"up","zone":"{zone}"}}"#
    );
    let record = Record::decode(json.as_bytes()).expect("a record");
    let id = label(&format!("instance-{place}"));
    Instance::new(id, record, Zxid::ZERO, SessionId::NONE)
}

/// A query as stub resolvers send it: recursion desired, EDNS with 1232 octets.
fn packet(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().expect("a message")
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}
