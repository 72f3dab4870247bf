//! What a DNS answer costs that was encoded before, of our own or of upstreams: no memory is asked for.

#[path = "common/resolver.rs"]
mod resolver;

use std::net::SocketAddr;
use std::sync::Arc;

use rollcall::clock;
use rollcall::dns::{DnsPlan, ForwardPlan, Forwarder, Handler, Outcome, Transport, Zone};
use rollcall::id::{SessionId, Zxid};
use rollcall::registry::{Cache, Instance, Label, Record, Service, ServiceKey, View};
use rollcall::telemetry::Metrics;
use tokio_util::sync::CancellationToken;

/// More than there are draws of a question, and less than they are used.
const WARM: usize = 40;
const ASKED: u64 = 200;
/// A service of ours, and a name that is none of ours.
const OWN: [&str; 4] = ["web", "default", "rollcall", "internal"];
const OTHER: [&str; 3] = ["www", "example", "com"];
/// Where in an answer about that the first address ends: header, question, record.
const FIRST_ADDRESS_END: usize = 12 + 17 + 4 + 16;

#[test]
fn an_answer_that_was_encoded_before_asks_for_no_memory() {
    let handler = handler();
    let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let mut out = Vec::with_capacity(4096);
    // A, AAAA (there is none), SRV.
    for kind in [1, 28, 33] {
        for has_edns in [false, true] {
            let packet = packet(&OWN, kind, has_edns);
            for _ in 0..WARM {
                handler.answer(&packet, client, Transport::Udp, &mut out);
            }
            let hits = handler.metrics().dns_hits.get();
            let counted = allocation_counter::measure(|| {
                for _ in 0..ASKED {
                    handler.answer(&packet, client, Transport::Udp, &mut out);
                }
            });
            assert_eq!(handler.metrics().dns_hits.get() - hits, ASKED, "type {kind}, EDNS {has_edns}");
            assert_eq!(counted.count_total, 0, "type {kind}, EDNS {has_edns}");
        }
    }
    let unknown = allocation_counter::measure(|| {
        let mut packet = packet(&OWN, 1, false);
        packet[13] = b'x';
        handler.answer(&packet, client, Transport::Udp, &mut out);
    });
    assert!(unknown.count_total > 0, "the counter counts");
}

#[test]
fn an_answer_of_upstreams_that_is_in_the_cache_asks_for_no_memory() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let mut plan = ForwardPlan::default();
    let upstream = resolver::resolver(&[1, 2, 3], 86_400, |_| ());
    plan.upstreams = Some(vec![upstream.to_string().parse().expect("one")]);
    let own = SocketAddr::from(([127, 0, 0, 1], 1));
    let forwarder = Forwarder::new(plan, own, Arc::new(Metrics::new()), CancellationToken::new());
    let handler = handler().with_forwarder(Some(Arc::new(forwarder)));
    let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let mut out = Vec::with_capacity(4096);
    for transport in [Transport::Udp, Transport::Tcp] {
        for has_edns in [false, true] {
            let mut packet = packet(&OTHER, 1, has_edns);
            let outcome = handler.answer(&packet, client, transport, &mut out);
            if let Outcome::Later(later) = outcome {
                runtime.block_on(later.ready());
            }
            // Once the slow way, which says that it is a name of upstreams.
            handler.answer(&packet, client, transport, &mut out);
            let hits = handler.metrics().dns_hits.get();
            let mut firsts = [false; 4];
            let counted = allocation_counter::measure(|| {
                for _ in 0..ASKED {
                    packet[13] ^= 0x20;
                    let outcome = handler.answer(&packet, client, transport, &mut out);
                    assert!(matches!(outcome, Outcome::Reply));
                    firsts[usize::from(out[FIRST_ADDRESS_END - 1])] = true;
                }
            });
            assert_eq!(firsts, [false, true, true, true], "addresses take turns");
            assert_eq!(handler.metrics().dns_hits.get() - hits, ASKED, "{transport:?}, EDNS {has_edns}");
            assert_eq!(out[..8], [0, 7, 0x81, 0x80, 0, 1, 0, 3], "{transport:?}, EDNS {has_edns}");
            assert_eq!(counted.count_total, 0, "{transport:?}, EDNS {has_edns}");
        }
    }
}

fn handler() -> Handler {
    let key = ServiceKey { namespace: label("default"), name: label("web") };
    let instance = |number: u8| {
        let json = format!(
            r#"{{"v":1,"addresses":["10.0.0.{number}"],"ports":[{{"name":"http","port":80}}],"status":"up"}}"#
        );
        let record = Record::decode(json.as_bytes()).expect("a record");
        Arc::new(Instance::new(label(&format!("web-{number}")), record, Zxid::ZERO, SessionId::NONE))
    };
    let service = Service { instances: (0..3).map(instance).collect(), ..Service::new(key.clone()) };
    let view = View { is_loaded: true, services: [Arc::new(service)].into(), ..View::default() };
    let cache = Cache::new(clock::now());
    cache.publish(view);
    cache.set_synced(true);
    let zone = Zone::parse("rollcall.internal", label("default")).expect("a zone");
    Handler::new(Arc::new(cache), DnsPlan::of_zone(zone), Arc::new(Metrics::new()))
}

/// A question as a stub resolver sends it.
fn packet(name: &[&str], kind: u16, has_edns: bool) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(has_edns)];
    for label in name.iter().chain(&[""]) {
        packet.push(u8::try_from(label.len()).expect("it is short"));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    if has_edns {
        packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    }
    packet
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}
