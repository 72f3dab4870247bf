//! A primary whose sidecar ends and starts again, as processes: killed, it waits below the standby that took over; told to stop, it does
//! not, also when nobody could be told that it left.

use std::time::Duration;

use serde_json::Value;

use crate::support::dev::rollcall;
use crate::support::process::Signal;
use crate::support::{Kind, Server, Sidecar, WebServer, http, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// The last tier.
const HELD: u64 = 65_535;

#[test]
fn a_primary_that_was_killed_is_held_off_and_one_that_was_stopped_during_an_outage_is_not_on_rollcall() {
    run(Kind::Rollcall);
}

#[test]
fn a_primary_that_was_killed_is_held_off_and_one_that_was_stopped_during_an_outage_is_not_on_apache() {
    run(Kind::Apache);
}

fn run(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let [web_p, web_s] = [WebServer::start_on("127.0.0.1"), WebServer::start_on("127.0.0.1")];
    let mut server = Server::start(kind, folder.path());
    tell(&["service", "set", "web", "--failback", "manual", "--create", "--server", &server.address()]);
    let mut primary = start(&server, &web_p, "one", 0);
    let standby = start(&server, &web_s, "two", 10);
    wait_until("the primary is offered", LIMIT, || offered(&standby) == [("one".to_owned(), 0)]);
    let saved = primary.state_dir().join("view");
    let is_saved = || std::fs::read_to_string(&saved).is_ok_and(|text| text.contains("\"id\":\"two\""));
    wait_until("the primary's view is saved", LIMIT, is_saved);

    primary.kill();
    wait_until("the standby takes over", LIMIT, || offered(&standby) == [("two".to_owned(), 10)]);
    primary.restart();
    let is_back = || instances(&standby).contains(&("one".to_owned(), HELD, false));
    wait_until("the primary is back, below it", LIMIT, is_back);
    assert_eq!(offered(&standby), [("two".to_owned(), 10)]);
    tell(&["failback", "web", "--http-addr", &primary.http.address()]);
    wait_until("the primary is offered", LIMIT, || offered(&standby) == [("one".to_owned(), 0)]);

    server.kill();
    wait_until("it is cut off", LIMIT, || {
        let status = http::get(primary.http.number(), "/api/v1/status").expect("it answers").json();
        status["connection"]["state"] != "connected"
    });
    primary.signal(Signal::TERM);
    primary.expect_success(LIMIT);
    server.restart();
    wait_until("the standby takes over", LIMIT, || offered(&standby) == [("two".to_owned(), 10)]);
    primary.restart();
    wait_until("the primary is offered", LIMIT, || offered(&standby) == [("one".to_owned(), 0)]);
}

fn start(server: &Server, web: &WebServer, id: &str, priority: u16) -> Sidecar {
    let settings = format!(
        "brake: {{window: 1s}}\nservices: [{{name: web, id: {id}, address: {}, port: {}, priority: {priority}, \
         checks: [{{kind: tcp, interval: 100ms}}]}}]\n",
        web.host(),
        web.port()
    );
    Sidecar::start(&server.address(), &settings)
}

fn tell(arguments: &[&str]) {
    let output = rollcall().args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Those that a sidecar offers, with their tiers.
fn offered(sidecar: &Sidecar) -> Vec<(String, u64)> {
    let all = instances(sidecar).into_iter();
    all.filter_map(|(id, tier, is_offered)| is_offered.then_some((id, tier))).collect()
}

/// All instances that a sidecar knows, with their tiers, and whether it offers them.
fn instances(sidecar: &Sidecar) -> Vec<(String, u64, bool)> {
    let Ok(answer) = http::get(sidecar.http.number(), "/api/v1/services/default/web") else {
        return Vec::new();
    };
    let Ok(body) = serde_json::from_str::<Value>(&answer.body) else { return Vec::new() };
    let line = |line: &Value| {
        let id = line["id"].as_str()?.to_owned();
        Some((id, line["effective_priority"].as_u64()?, line["selected"].as_bool()?))
    };
    body["instances"].as_array().into_iter().flatten().filter_map(line).collect()
}
