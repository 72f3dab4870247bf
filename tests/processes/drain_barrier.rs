//! `rollcall drain --wait` among sidecars that are processes: it returns when all have said that they have applied it, names who
//! has not, and waits a while where nobody can be asked. So does a sidecar that is told to stop, for as long as it has.

use std::thread;
use std::time::Duration;

use rollcall::clock;
use serde_json::{Value, json};

use crate::support::dev::rollcall;
use crate::support::dns::{A, Header, ask_udp, question};
use crate::support::process::Signal;
use crate::support::{Kind, Server, Sidecar, WebServer, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_drain_is_over_when_all_sidecars_have_seen_it_and_one_that_hangs_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let web = WebServer::start_on("127.0.0.1");
    // With a sidecar of its own.
    let server = Server::start(Kind::Rollcall, folder.path());
    let (own, readers) = sidecars(&server, &web);

    let (is_success, told) = drain(&own, "--wait=30s");
    assert!(readers.iter().all(|reader| answers(reader) == 0), "all have seen it: {told}");
    assert!(is_success, "{told}");
    assert_eq!((&told["confirmed"], &told["evidence"]), (&json!(true), &json!("subscribers")), "{told}");
    assert_eq!((&told["subscribers"], &told["other_watchers"]), (&json!(4), &json!(0)), "{told}");
    eprintln!("four sidecars had seen it after {} ms", told["waited_ms"]);

    drain(&own, "--undo");
    wait_until("it is offered again", LIMIT, || readers.iter().all(|reader| answers(reader) == 1));
    readers[1].signal(Signal::STOP);
    let (is_success, told) = drain(&own, "--wait=2s");
    assert_eq!(answers(&readers[0]), 0);
    assert!(!is_success, "{told}");
    assert_eq!((&told["confirmed"], &told["behind_count"]), (&json!(false), &json!(1)), "{told}");
    let owner = std::fs::read_to_string(readers[1].state_dir().join("owner")).expect("it has one");
    let name = told["behind"][0].as_str().expect("a name");
    assert!(name.ends_with(&format!(".{}", &owner[..8])), "{name} is not {owner}");

    // Long enough for its session to expire: it is missed all the same, until it is back.
    let (is_success, told) = drain(&own, "--wait=8s");
    assert!(!is_success && told["behind"] == json!([name]), "{told}");
    readers[1].signal(Signal::CONT);
    let (is_success, told) = drain(&own, "--wait=30s");
    assert_eq!(answers(&readers[1]), 0);
    assert!(is_success && told["confirmed"] == true, "{told}");
}

#[test]
fn a_sidecar_that_stops_waits_for_who_is_slow_and_for_who_hangs_until_its_time_is_nearly_over() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let web = WebServer::start_on("127.0.0.1");
    let server = Server::start(Kind::Rollcall, folder.path());
    let (mut own, readers) = sidecars(&server, &web);
    let (took, log) = stop(&mut own);
    assert!((1_000..5_000).contains(&took), "{took} ms: {log}");
    assert!(log.contains("all sidecars that follow the instances have seen that they leave"), "{log}");
    assert!(readers.iter().all(|reader| answers(reader) == 0));

    own.restart();
    wait_until("it is offered again", LIMIT, || readers.iter().all(|reader| answers(reader) == 1));
    readers[1].signal(Signal::STOP);
    let (took, log) = stop(&mut own);
    // Beside the drain there is only the session to close.
    assert!((4_000..7_000).contains(&took), "{took} ms: {log}");
    assert!(log.contains("some sidecars are not known to have seen that the instances leave"), "{log}");
    let owner = std::fs::read_to_string(readers[1].state_dir().join("owner")).expect("it has one");
    assert!(log.contains(&format!(".{}", &owner[..8])), "{owner}: {log}");

    own.restart();
    wait_until("it is offered again", LIMIT, || answers(&readers[0]) == 1);
    let began = clock::now();
    own.signal(Signal::TERM);
    wait_until("the first has seen it", LIMIT, || answers(&readers[0]) == 0);
    // Long enough that the quiet time is over, short enough for the deadline.
    thread::sleep(Duration::from_millis(1_200));
    readers[1].signal(Signal::CONT);
    own.expect_success(LIMIT);
    let (took, log) = (began.elapsed().as_millis(), own.log());
    assert!((1_200..5_000).contains(&took), "{took} ms: {log}");
    assert!(log.contains("all sidecars that follow the instances have seen that they leave"), "{log}");
    assert_eq!(answers(&readers[1]), 0);
}

#[test]
fn on_apache_a_drain_lasts_for_the_quiet_time_and_confirms_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let web = WebServer::start_on("127.0.0.1");
    let server = Server::start(Kind::Apache, folder.path());
    let (own, readers) = sidecars(&server, &web);
    let (is_success, told) = drain(&own, "--wait=30s");
    assert!(readers.iter().all(|reader| answers(reader) == 0), "{told}");
    assert!(is_success, "{told}");
    assert_eq!((&told["confirmed"], &told["evidence"]), (&json!(false), &json!("quiet-time")), "{told}");
    assert_eq!(told.get("subscribers"), None);
    let waited = told["waited_ms"].as_u64().expect("a number");
    assert!((1_000..10_000).contains(&waited), "{told}");
}

/// One with an instance, and two that offer it.
fn sidecars(server: &Server, web: &WebServer) -> (Sidecar, [Sidecar; 2]) {
    let checks = "[{kind: tcp, interval: 100ms, rise: 1}]";
    let service =
        format!("{{name: web, id: one, address: {}, port: {}, checks: {checks}}}", web.host(), web.port());
    let own = Sidecar::start(&server.address(), &format!("services: [{service}]\n"));
    let readers = [0, 1].map(|_| Sidecar::start(&server.address(), ""));
    wait_until("it is offered", LIMIT, || readers.iter().all(|reader| answers(reader) == 1));
    (own, readers)
}

/// Has it stop as Kubernetes does; returns how many milliseconds that took, and what it logged.
fn stop(own: &mut Sidecar) -> (u128, String) {
    let began = clock::now();
    own.signal(Signal::TERM);
    own.expect_success(LIMIT);
    (began.elapsed().as_millis(), own.log())
}

/// What the command tells, and whether it succeeded.
fn drain(own: &Sidecar, argument: &str) -> (bool, Value) {
    let mut command = rollcall();
    command.args(["drain", argument, "-o", "json", "--http-addr", &own.http.address()]);
    let output = command.output().expect("it starts");
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.success(), told)
}

fn answers(reader: &Sidecar) -> u16 {
    let question = question(1, "web.default.rollcall.internal", A, 1);
    let answer = ask_udp(reader.dns.number(), &question, Duration::from_secs(1));
    answer.and_then(|answer| Header::parse(&answer)).map_or(0, |header| header.answers)
}
