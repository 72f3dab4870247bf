//! What the targets of DNS share: a handler with a registry, and what every answer keeps to.

use std::sync::Arc;

use hickory_proto::op::{Message, MessageType};
use rollcall::clock;
use rollcall::dns::{ConsulDomain, DnsPlan, Handler, Outcome, Transport, Zone};
use rollcall::id::{SessionId, Zxid};
use rollcall::registry::{Cache, Instance, Label, Record, Service, ServiceKey, View};
use rollcall::telemetry::Metrics;

/// Answers for `web.default` with three instances, `big.default` with 200 and `empty.shop` with none.
pub fn handler() -> Handler {
    let services = [("default", "web", 3), ("default", "big", 200), ("shop", "empty", 0)].map(
        |(namespace, name, instances)| {
            let key = ServiceKey { namespace: label(namespace), name: label(name) };
            let instances = (0..instances).map(|number| Arc::new(instance(name, number))).collect();
            Arc::new(Service { instances, ..Service::new(key) })
        },
    );
    let cache = Cache::new(clock::now());
    cache.publish(View { is_loaded: true, services: services.into(), ..View::default() });
    cache.set_synced(true);
    let zone = Zone::parse("rollcall.internal", label("default")).expect("a zone");
    let consul = ConsulDomain::parse("consul.", label("dc1"), label("default")).expect("a domain");
    let plan = DnsPlan { consul: Some(consul), ..DnsPlan::of_zone(zone) };
    Handler::new(Arc::new(cache), plan, Arc::new(Metrics::new()))
}

/// Has it answered, and judges the answer; gives its octets, or none where silence is right.
pub fn answer(handler: &Handler, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let client = ([127, 0, 0, 1], 40_000).into();
    let mut out = Vec::new();
    match handler.answer(packet, client, transport, &mut out) {
        Outcome::Silence => {
            assert!(packet.len() < 12 || packet[2] & 0x80 != 0, "only what is no query has no answer");
            None
        }
        Outcome::Later(later) => panic!("nothing is waited for here: {later:?}"),
        Outcome::Reply => {
            judge(packet, transport, &out);
            Some(out)
        }
    }
}

fn judge(packet: &[u8], transport: Transport, out: &[u8]) {
    assert!(packet.len() >= 12 && packet[2] & 0x80 == 0, "a response is never answered");
    let reply = Message::from_vec(out).expect("an answer can be read");
    assert_eq!(out[..2], packet[..2], "id");
    assert_eq!(reply.metadata.message_type, MessageType::Response);
    assert_eq!(out[2] >> 3 & 0x0f, packet[2] >> 3 & 0x0f, "operation");
    assert_eq!(out[2] & 1, packet[2] & 1, "RD");
    let asked = Message::from_vec(packet).ok();
    let offered = asked.as_ref().and_then(|asked| asked.edns.as_ref()).map(|edns| edns.max_payload());
    let limit = match (transport, offered) {
        (Transport::Tcp, _) => 65_535,
        (Transport::Udp, None) => 512,
        (Transport::Udp, Some(octets)) => octets.clamp(512, 1232),
    };
    assert!(out.len() <= usize::from(limit), "{} octets of {limit}", out.len());
    if transport == Transport::Tcp {
        assert!(!reply.metadata.truncation, "there is nothing longer to ask for");
    }
    let Some(asked) = asked else { return };
    if let ([asked], [repeated]) = (&asked.queries[..], &reply.queries[..]) {
        assert!(asked.name().eq_case(repeated.name()), "{} is not {}", repeated.name(), asked.name());
        assert_eq!(
            (asked.query_type(), asked.query_class()),
            (repeated.query_type(), repeated.query_class())
        );
    }
    assert!(reply.answers.is_empty() || reply.queries.len() == 1, "answers are to a question");
    assert!(reply.edns.is_none() || asked.edns.is_some(), "OPT only for those who sent it");
}

fn instance(service: &str, number: u8) -> Instance {
    let json = format!(
        r#"{{"v":1,"addresses":["10.0.0.{number}","fd00::{number}"],"ports":[{{"name":"http","port":80}}],"status":"up","zone":"a","tags":["blue"]}}"#
    );
    let record = Record::decode(json.as_bytes()).expect("a record");
    Instance::new(label(&format!("{service}-{number}")), record, Zxid::ZERO, SessionId::NONE)
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}
