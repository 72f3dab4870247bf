//! Sidecars that follow what is looked up, as processes: the first lookup, an outage, a restart, and who a drain waits for.

use std::time::Duration;

use rollcall::clock;
use serde_json::{Value, json};

use crate::support::dev::rollcall;
use crate::support::dns::{A, Header, ask_tcp, ask_udp, question};
use crate::support::process::Signal;
use crate::support::{Kind, Server, Sidecar, WebServer, http, wait_until};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a lookup is held, at most.
const HOLD: Duration = Duration::from_millis(250);
const ON_DEMAND: &str = "subscribe: {mode: on-demand}\n";
/// RFC 1035 section 4.1.1.
const NO_ERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

#[test]
fn the_first_lookup_is_answered_and_what_is_followed_is_answered_without_a_rollcall_member() {
    run(Kind::Rollcall);
}

#[test]
fn the_first_lookup_is_answered_and_what_is_followed_is_answered_without_an_apache_member() {
    run(Kind::Apache);
}

fn run(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut server = Server::start(kind, folder.path());
    let web = WebServer::start_on("127.0.0.1");
    let _own = own(&server, &web);
    let mut reader = reader(&server);
    wait_until("it knows the names", LIMIT, || {
        ["api", "store", "web"].iter().all(|name| listed(&reader, name) == json!([false, null, null]))
    });
    let table = command(&["services", "--http-addr", &reader.http.address()]);
    assert!(table.contains("default    web      -   -"), "{table}");

    // A machine that is busy for longer than a lookup is held makes it fail, and the next succeed.
    let took = wait_until("the lookup over UDP is answered", LIMIT, || udp(&reader, "web") == (NO_ERROR, 1));
    eprintln!("the first lookup was answered after {took:?}");
    wait_until("the lookup over TCP is answered", LIMIT, || tcp(&reader, "store") == (NO_ERROR, 1));
    let (held, unready) = (metric(&reader, "lookups_held_total"), metric(&reader, "lookups_unready_total"));
    assert!(held >= 2 && unready < held, "{unready} of {held} that were held were not answered");
    assert_eq!(listed(&reader, "web"), json!([true, 1, 1]));
    assert_eq!(listed(&reader, "api"), json!([false, null, null]));
    assert_eq!(udp(&reader, "unknown"), (NXDOMAIN, 0));
    assert_eq!(metric(&reader, "lookups_held_total"), held, "nobody asks for a name that is not known");
    let status = command(&["status", "--http-addr", &reader.http.address()]);
    assert!(status.contains("(2 followed)"), "{status}");

    let saved = reader.state_dir().join("view");
    wait_until("what is followed is saved", LIMIT, || {
        std::fs::read_to_string(&saved).is_ok_and(|text| text.matches(r#""id":"one""#).count() == 2)
    });
    server.kill();
    wait_until("it notices", LIMIT, || service(&reader, "web").1["stale"] == true);
    let asked = clock::now();
    assert_eq!(udp(&reader, "api"), (SERVFAIL, 0), "it is not said to have no instances");
    assert!(asked.elapsed() >= HOLD, "it was held: {:?}", asked.elapsed());
    let (status, told) = service(&reader, "api");
    assert_eq!((status, told["hint"].is_string()), (503, true), "{told}");
    assert_eq!(udp(&reader, "unknown"), (NXDOMAIN, 0));
    assert_eq!((udp(&reader, "web"), udp(&reader, "store")), ((NO_ERROR, 1), (NO_ERROR, 1)));

    reader.restart();
    wait_until("it follows what it followed before", LIMIT, || udp(&reader, "web") == (NO_ERROR, 1));
    assert_eq!(udp(&reader, "store"), (NO_ERROR, 1));
    assert_eq!(udp(&reader, "api"), (SERVFAIL, 0));
    server.restart();
    wait_until("it can read again", LIMIT, || udp(&reader, "api") == (NO_ERROR, 1));
    assert_eq!(metric(&reader, "defects_total"), 0);
    assert!(!reader.log().contains("panicked"), "{}", reader.log());
}

#[test]
fn a_drain_waits_for_those_who_follow_the_service_and_for_nobody_else() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // With a sidecar of its own, which follows everything. The one that drains follows its own services, whether they are looked up or not.
    let server = Server::start(Kind::Rollcall, folder.path());
    let web = WebServer::start_on("127.0.0.1");
    let own = own(&server, &web);
    let mut readers = [reader(&server), reader(&server)];
    for (reader, name) in [(&readers[0], "web"), (&readers[1], "api")] {
        wait_until("it is offered", LIMIT, || udp(reader, name) == (NO_ERROR, 1));
    }
    let told = drain(&own, "web", "--wait=30s");
    assert_eq!(udp(&readers[0], "web"), (NO_ERROR, 0), "it has seen it: {told}");
    assert_eq!((&told["confirmed"], &told["subscribers"]), (&json!(true), &json!(3)), "{told}");

    // One that was killed and starts again is waited for until it has seen what it followed before.
    drain(&own, "web", "--undo");
    wait_until("it is offered again", LIMIT, || udp(&readers[0], "web") == (NO_ERROR, 1));
    wait_until("that is saved", LIMIT, || {
        std::fs::read_to_string(readers[0].state_dir().join("view"))
            .is_ok_and(|text| text.contains(r#""status":"up""#))
    });
    readers[0].kill();
    let address = own.http.address();
    let told = std::thread::scope(|scope| {
        let draining = scope.spawn(|| drain_at(&address, "web", "--wait=30s"));
        readers[0].restart();
        wait_until("it answers", LIMIT, || udp(&readers[0], "web").0 == NO_ERROR);
        draining.join().expect("the drain ends")
    });
    assert_eq!(udp(&readers[0], "web"), (NO_ERROR, 0), "it has seen it: {told}");
    assert_eq!(told["confirmed"], json!(true), "{told}");

    drain(&own, "web", "--undo");
    wait_until("it is offered again", LIMIT, || udp(&readers[0], "web") == (NO_ERROR, 1));
    readers[1].signal(Signal::STOP);
    let told = drain(&own, "web", "--wait=30s");
    assert_eq!((&told["confirmed"], &told["subscribers"]), (&json!(true), &json!(3)), "{told}");
    let told = drain(&own, "api", "--wait=1s");
    assert_eq!((&told["confirmed"], &told["behind_count"]), (&json!(false), &json!(1)), "{told}");
    readers[1].signal(Signal::CONT);
    let told = drain(&own, "api", "--wait=30s");
    assert_eq!((&told["confirmed"], &told["subscribers"]), (&json!(true), &json!(3)), "{told}");
    assert_eq!(udp(&readers[1], "api"), (NO_ERROR, 0));
}

/// A sidecar with an instance of each of three services.
fn own(server: &Server, web: &WebServer) -> Sidecar {
    let service = |name| {
        let checks = "[{kind: tcp, interval: 100ms, rise: 1}]";
        format!("{{name: {name}, id: one, address: {}, port: {}, checks: {checks}}}", web.host(), web.port())
    };
    let services = ["api", "store", "web"].map(service).join(", ");
    Sidecar::start(&server.address(), &format!("{ON_DEMAND}services: [{services}]\n"))
}

fn reader(server: &Server) -> Sidecar {
    Sidecar::start(&server.address(), ON_DEMAND)
}

fn name(service: &str) -> String {
    format!("{service}.default.rollcall.internal")
}

/// The code and how many answers; a code that there is none of, when there was no answer.
fn udp(reader: &Sidecar, service: &str) -> (u8, u16) {
    told(ask_udp(reader.dns.number(), &question(1, &name(service), A, 1), Duration::from_secs(2)))
}

fn tcp(reader: &Sidecar, service: &str) -> (u8, u16) {
    told(ask_tcp(reader.dns.number(), &question(1, &name(service), A, 1), Duration::from_secs(2)).ok())
}

fn told(answer: Option<Vec<u8>>) -> (u8, u16) {
    let header = answer.and_then(|answer| Header::parse(&answer));
    header.map_or((u8::MAX, 0), |header| (header.rcode, header.answers))
}

/// What the list of services says of one: whether it is followed, and how many instances it has, and has up.
fn listed(reader: &Sidecar, name: &str) -> Value {
    let Ok(answer) = http::get(reader.http.number(), "/api/v1/services") else { return Value::Null };
    let list = answer.json();
    let services = list["services"].as_array().cloned().unwrap_or_default();
    let found = services.into_iter().find(|service| service["name"] == name).unwrap_or_default();
    json!([found["followed"], found["instances"], found["up"]])
}

fn service(reader: &Sidecar, name: &str) -> (u16, Value) {
    let answer = http::get(reader.http.number(), &format!("/api/v1/services/default/{name}"));
    let answer = answer.expect("it answers");
    (answer.status, answer.json())
}

fn metric(reader: &Sidecar, name: &str) -> u64 {
    reader.metric(&format!("rollcall_registry_{name}")).unwrap_or_else(|| panic!("it does not tell {name}"))
}

/// What the command tells.
fn drain(own: &Sidecar, service: &str, argument: &str) -> Value {
    drain_at(&own.http.address(), service, argument)
}

fn drain_at(address: &str, service: &str, argument: &str) -> Value {
    let told = command(&["drain", service, argument, "-o", "json", "--http-addr", address]);
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

fn command(arguments: &[&str]) -> String {
    let output = rollcall().args(arguments).output().expect("it starts");
    String::from_utf8(output.stdout).expect("it is text")
}
