//! kazoo, Python's client, against rollcall and, to check the list itself, against Apache ZooKeeper.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::process::Signal;
use crate::support::{Dev, Kind, Process, Server, Sidecar, WebServer, wait_until};

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn kazoo_creates_watches_and_transacts_on_rollcall() {
    run_basics(Kind::Rollcall);
}

#[test]
fn kazoo_creates_watches_and_transacts_on_apache() {
    run_basics(Kind::Apache);
}

#[test]
fn kazoo_keeps_its_session_over_a_restart_of_rollcall() {
    run_reconnect(Kind::Rollcall);
}

#[test]
fn kazoo_keeps_its_session_over_a_restart_of_apache() {
    run_reconnect(Kind::Apache);
}

#[test]
fn the_ephemeral_of_a_stopped_kazoo_expires_on_rollcall() {
    run_expiry(Kind::Rollcall);
}

#[test]
fn the_ephemeral_of_a_stopped_kazoo_expires_on_apache() {
    run_expiry(Kind::Apache);
}

#[test]
fn kazoo_finds_an_instance_in_every_format_while_it_is_up_on_rollcall() {
    let web = WebServer::start_on("127.0.0.1");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("dev.yaml");
    std::fs::write(&file, every_format(&web)).expect("a file can be written");
    let dev = Dev::start(None, &["-c", &file.to_string_lossy()]);
    run_formats(&dev.client.address(), web);
}

#[test]
fn kazoo_finds_an_instance_in_every_format_while_it_is_up_on_apache() {
    let web = WebServer::start_on("127.0.0.1");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(Kind::Apache, folder.path());
    let _sidecar = Sidecar::start(&server.address(), &every_format(&web));
    run_formats(&server.address(), web);
}

/// Settings that register a web server.
fn every_format(web: &WebServer) -> String {
    format!(
        "zone: zone-a
services:
  - name: web
    id: web-1
    address: 127.0.0.1
    ports: [{{name: http, port: {}}}, {{name: admin, port: 8041}}, {{name: dns, port: 53, protocol: udp}}]
    weight: 10
    meta: {{version: '7'}}
    checks: [{{kind: tcp, interval: 100ms, timeout: 100ms, jitter: 0ms}}]
    formats:
      - {{format: curator, root: /discovery, name: Web.App}}
      - {{format: spring}}
      - {{format: serverset, root: /aurora/www/prod/web, shard: 3}}
      - {{format: nerve, root: /nerve/web}}
",
        web.port()
    )
}

fn run_formats(address: &str, mut web: WebServer) {
    let mut client = kazoo("formats", address, &[&web.port().to_string()]);
    client.line_with("there", LIMIT);

    web.kill();
    client.say("killed");
    client.line_with("gone", LIMIT);

    web.restart();
    client.say("restarted");
    client.line_with("back", LIMIT);
    client.expect_success(LIMIT);
}

fn run_basics(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    kazoo("basics", &server.address(), &[]).expect_success(LIMIT);
}

fn run_reconnect(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut server = Server::start(kind, folder.path());
    let mut client = kazoo("reconnect", &server.address(), &[]);
    client.line_with("ready", LIMIT);

    server.restart();
    client.say("restarted");

    client.line_with("fine", LIMIT);
    client.expect_success(LIMIT);
}

fn run_expiry(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let client = kazoo("hold", &server.address(), &["/held"]);
    let first = client.line_with("ready", LIMIT);
    let mut observer = server.connect();
    assert!(observer.exists("/held").expect("the server answers"));

    client.signal(Signal::STOP);
    let took = wait_until("the ephemeral expires", Duration::from_secs(30), || {
        !observer.exists("/held").expect("the server answers")
    });
    assert!(took > Duration::from_secs(2), "a session of 4 s expired after {took:?}");
    client.signal(Signal::CONT);

    client.line_with("lost", LIMIT);
    let second = client.line_with("again", LIMIT);
    assert_ne!(first.split(' ').next_back(), second.split(' ').next_back(), "an expired session came back");
}

/// Starts a scenario of the Python program.
pub(crate) fn kazoo(scenario: &str, address: &str, arguments: &[&str]) -> Process {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: tests/run installs kazoo there", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/interop/kazoo_client.py")).arg(scenario).arg(address).args(arguments);
    Process::converse(&format!("kazoo {scenario}"), &mut command)
}
