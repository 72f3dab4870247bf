//! All that a sidecar tells of the service of a primary `a` and its standby `s`: by every name and type that an application may ask for, and
//! by HTTP; and what that has to be.

use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use http_body_util::BodyExt;
use hyper::{Method, Request, StatusCode};
use rollcall::dns::{Handler, Transport};
use rollcall::http::Router;
use serde_json::Value;

const A: (&str, u16) = ("A", 1);
const TXT: (&str, u16) = ("TXT", 16);
const AAAA: (&str, u16) = ("AAAA", 28);
const SRV: (&str, u16) = ("SRV", 33);
/// What is asked, each name without what all of them end with.
const QUESTIONS: [(&str, (&str, u16)); 12] = [
    ("web", A),
    ("web", AAAA),
    ("web", SRV),
    ("_default._tcp.web", SRV),
    ("primary.web", A),
    ("primary.web", SRV),
    ("standby.web", A),
    ("standby.web", SRV),
    ("all.web", A),
    ("a.web", A),
    ("a.web", TXT),
    ("s.web", TXT),
];
const DOMAIN: &str = ".default.rollcall.internal.";
/// How long answers of a current view may be kept, and those that there is nothing.
const TTL_S: u32 = 2;
const NEGATIVE_TTL_S: u32 = 1;

/// How the primary is, and what is to be told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has its tier.
    Serving,
    /// It is not offered.
    Failing,
    /// It is well, and waits below its standby.
    Held,
}

impl Phase {
    /// All that is to be told, as [`told`] has it.
    pub(crate) fn told(self) -> &'static str {
        match self {
            Self::Serving => {
                "web A: 127.1.0.1\n\
                 web AAAA: nothing\n\
                 web SRV: 0 1 9 a.web, 10 1 9 s.web; a.web 127.1.0.1, s.web 127.1.0.9\n\
                 _default._tcp.web SRV: 0 1 9 a.web, 10 1 9 s.web; a.web 127.1.0.1, s.web 127.1.0.9\n\
                 primary.web A: 127.1.0.1\n\
                 primary.web SRV: 0 1 9 a.web; a.web 127.1.0.1\n\
                 standby.web A: 127.1.0.9\n\
                 standby.web SRV: 10 1 9 s.web; s.web 127.1.0.9\n\
                 all.web A: 127.1.0.1, 127.1.0.9\n\
                 a.web A: 127.1.0.1\n\
                 a.web TXT: status=up weight=1 priority=0\n\
                 s.web TXT: status=up weight=1 priority=10\n\
                 HTTP: 2 of 2 up: a up, tier 0 of 0, selected; s up, tier 10 of 10\n"
            }
            Self::Failing => {
                "web A: 127.1.0.9\n\
                 web AAAA: nothing\n\
                 web SRV: 10 1 9 s.web; s.web 127.1.0.9\n\
                 _default._tcp.web SRV: 10 1 9 s.web; s.web 127.1.0.9\n\
                 primary.web A: nothing\n\
                 primary.web SRV: nothing\n\
                 standby.web A: 127.1.0.9\n\
                 standby.web SRV: 10 1 9 s.web; s.web 127.1.0.9\n\
                 all.web A: 127.1.0.9\n\
                 a.web A: 127.1.0.1\n\
                 a.web TXT: status=failing weight=1 priority=0\n\
                 s.web TXT: status=up weight=1 priority=10\n\
                 HTTP: 1 of 2 up: a failing, tier 0 of 0; s up, tier 10 of 10, selected\n"
            }
            // Below the standby, which SRV tells, too, so that clients that draw by themselves do the same.
            Self::Held => {
                "web A: 127.1.0.9\n\
                 web AAAA: nothing\n\
                 web SRV: 10 1 9 s.web, 65535 1 9 a.web; a.web 127.1.0.1, s.web 127.1.0.9\n\
                 _default._tcp.web SRV: 10 1 9 s.web, 65535 1 9 a.web; a.web 127.1.0.1, s.web 127.1.0.9\n\
                 primary.web A: nothing\n\
                 primary.web SRV: nothing\n\
                 standby.web A: 127.1.0.9\n\
                 standby.web SRV: 10 1 9 s.web, 65535 1 9 a.web; a.web 127.1.0.1, s.web 127.1.0.9\n\
                 all.web A: 127.1.0.1, 127.1.0.9\n\
                 a.web A: 127.1.0.1\n\
                 a.web TXT: status=up weight=1 priority=65535\n\
                 s.web TXT: status=up weight=1 priority=10\n\
                 HTTP: 2 of 2 up: a up, tier 65535 of 0; s up, tier 10 of 10, selected\n"
            }
        }
    }
}

/// All that is told now, a line for each question, what is told of it in an order that is always the same.
pub(crate) async fn told(handler: &Handler, router: &Router) -> String {
    let mut lines = String::new();
    for (name, (kind, number)) in QUESTIONS {
        let line = told_of(&ask(handler, name, number, Transport::Udp));
        // The first may be the one that is encoded, and the next what is kept of it.
        for transport in [Transport::Udp, Transport::Tcp] {
            assert_eq!(told_of(&ask(handler, name, number, transport)), line, "{name} {kind}, {transport:?}");
        }
        lines += &format!("{name} {kind}: {line}\n");
    }
    lines += &format!("HTTP: {}\n", told_by_http(router).await);
    lines
}

/// An answer's records, and behind a semicolon those that come with them.
fn told_of(message: &Message) -> String {
    assert!(!message.metadata.truncation, "{message}");
    if message.metadata.response_code != ResponseCode::NoError {
        return message.metadata.response_code.to_string();
    }
    let [answers, additionals] = [&message.answers, &message.additionals];
    let (text, ttls, ttl_s) = match (answers.as_slice(), message.authorities.as_slice()) {
        ([], [soa]) if matches!(soa.data, RData::SOA(_)) => {
            ("nothing".to_owned(), vec![soa.ttl], NEGATIVE_TTL_S)
        }
        ([], other) => panic!("without an SOA there is {other:?}"),
        (answers, _) => {
            let owned = |record: &Record| format!("{} {}", record.name, data(record)).replace(DOMAIN, "");
            let parts = [joined(answers.iter().map(data)), joined(additionals.iter().map(owned))];
            let ttls = answers.iter().chain(additionals).map(|record| record.ttl);
            (parts.join("; ").trim_end_matches("; ").to_owned(), ttls.collect(), TTL_S)
        }
    };
    assert!(message.metadata.authoritative, "{message}");
    // While the view is not current, which it is from when the sidecar has read it.
    if ttls.iter().any(|ttl| *ttl != ttl_s) { format!("{text} for {ttls:?} s") } else { text }
}

fn data(record: &Record) -> String {
    if let RData::TXT(texts) = &record.data {
        let texts: Vec<_> = texts.txt_data.iter().map(|text| String::from_utf8_lossy(text)).collect();
        return texts.join(" ");
    }
    record.data.to_string().replace(DOMAIN, "")
}

fn joined(lines: impl Iterator<Item = String>) -> String {
    let mut lines: Vec<_> = lines.collect();
    lines.sort_unstable();
    lines.join(", ")
}

/// What HTTP tells of all instances, in the order of their ids, and how many it counts.
async fn told_by_http(router: &Router) -> String {
    let services = get(router, "/api/v1/services").await.unwrap_or_default();
    let mut services = services["services"].as_array().into_iter().flatten();
    let listed = services.find(|service| service["name"] == "web").cloned().unwrap_or_default();
    let Some(web) = get(router, "/api/v1/services/default/web").await else { return "nothing".to_owned() };
    let instance = |one: &Value| {
        let [id, status] = ["id", "status"].map(|key| one[key].as_str().expect("a text"));
        let selected = if one["selected"] == true { ", selected" } else { "" };
        format!("{id} {status}, tier {} of {}{selected}", one["effective_priority"], one["priority"])
    };
    let instances: Vec<_> = web["instances"].as_array().expect("a list").iter().map(instance).collect();
    let stale = if web["stale"] == false { "" } else { " and stale" };
    format!("{} of {} up{stale}: {}", listed["up"], listed["instances"], instances.join("; "))
}

/// Asks for `name` in the domain, with a question as applications send it.
pub(crate) fn ask(handler: &Handler, name: &str, kind: u16, transport: Transport) -> Message {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in format!("{name}{DOMAIN}").split('.') {
        packet.push(u8::try_from(label.len()).expect("it is short"));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend([kind, 1].map(u16::to_be_bytes).concat());
    let mut out = Vec::new();
    handler.answer(&packet, SocketAddr::from(([127, 0, 0, 1], 40_000)), transport, &mut out);
    Message::from_vec(&out).expect("an answer")
}

/// What HTTP tells; `None` when it knows of no such thing.
pub(crate) async fn get(router: &Router, path: &str) -> Option<Value> {
    let request = Request::builder().method(Method::GET).uri(path);
    let response = router.answer(&request.body(()).expect("a request")).await;
    if response.status() != StatusCode::OK {
        return None;
    }
    let body = response.into_body().collect().await.expect("it is in memory").to_bytes();
    Some(serde_json::from_slice(&body).expect("JSON"))
}
