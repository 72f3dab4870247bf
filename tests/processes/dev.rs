//! `rollcall dev` as a program: what it prints, how it starts, how it ends.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::resolver::resolver;
use crate::support::dev::{command, occupy, rollcall};
use crate::support::process::Signal;
use crate::support::{Dev, Port, Process, dig, dns, http, wait_for, wait_until};

#[test]
fn it_registers_itself_and_answers_for_itself() {
    let dev = Dev::start(None, &[]);

    wait_until("it answers for itself", Duration::from_secs(20), || {
        !dig(dev.dns.number(), &["rollcall.default.rollcall.internal.", "SRV"]).answer.is_empty()
    });

    let srv = dig(dev.dns.number(), &["rollcall.default.rollcall.internal.", "SRV"]);
    let port = dev.http.number().to_string();
    assert!(srv.answers("SRV")[0].contains(&format!(" {port} ")), "{}", srv.text);
    let services = http::get(dev.http.number(), "/api/v1/services").expect("HTTP answers").json();
    assert_eq!(services["services"][0]["name"], "rollcall", "{services}");
    assert_eq!(services["stale"], false, "{services}");
}

#[test]
fn it_says_what_listens_where() {
    let mut dev = Dev::start(None, &[]);
    dev.terminate();
    let printed = dev.log();
    for port in [&dev.client, &dev.dns, &dev.http] {
        assert!(printed.contains(&port.number().to_string()), "{} is not in {printed}", port.number());
    }
    assert!(printed.contains("rollcall lookup"), "no command to try in {printed}");
}

#[test]
fn sigterm_and_ctrl_c_end_it_with_status_0_and_leave_no_folder() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut dev = Dev::start(None, &[]);
        assert_eq!(folders(&dev), 1, "it keeps its data in one temporary folder");

        dev.process().signal(signal);
        let status = dev.process().wait(Duration::from_secs(20));

        assert_eq!(status.code(), Some(0), "after {signal:?}:\n{}", dev.log());
        assert_eq!(folders(&dev), 0, "after {signal:?}");
        assert!(!dev.log().contains("panicked"), "{}", dev.log());
    }
}

#[test]
fn a_data_folder_keeps_the_tree_over_a_clean_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut dev = Dev::start(Some(folder.path()), &[]);
    let mut client = dev.connect();
    client.create("/kept", Some(b"value"), 0).expect("it answers");
    let status = dev.terminate();
    assert_eq!(status.code(), Some(0), "{}", dev.log());

    dev.restart();

    assert_eq!(dev.connect().get("/kept").expect("it answers").as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_data_folder_keeps_the_registrations_owner_over_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut dev = Dev::start(Some(folder.path()), &[]);
    let owner = |dev: &Dev| {
        let mut client = dev.connect();
        let record = client.get("/rollcall/services/default/rollcall/dev").expect("it answers")?;
        let _closed = client.close();
        let record: serde_json::Value = serde_json::from_slice(&record).expect("a record is JSON");
        Some((record["owner"].to_string(), record["incarnation"].to_string()))
    };
    let before = wait_for("it registers itself", Duration::from_secs(20), || owner(&dev));

    dev.restart();

    // Well before the session of the killed process expires.
    let after = wait_for("it takes its record over", Duration::from_secs(8), || {
        owner(&dev).filter(|after| after.1 != before.1)
    });
    assert_eq!(after.0, before.0);
}

#[test]
fn a_port_that_is_taken_is_one_line_naming_port_and_flag() {
    for taken in 0..3 {
        let flag = ["--client-port", "--dns-port", "--http-port"][taken];
        let ports = [Port::free(), Port::free(), Port::free()];
        let _occupant = occupy(&ports[taken]);
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let numbers = [ports[0].number(), ports[1].number(), ports[2].number()];

        let mut process = Process::start("rollcall dev", &mut command(numbers, None, &[], temporary.path()));
        let status = process.wait(Duration::from_secs(20));

        let said = process.log();
        assert_eq!(status.code(), Some(1), "{flag}: {said}");
        assert!(said.contains(flag) && said.contains(&numbers[taken].to_string()), "{flag}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{flag}: {said}");
        let left = std::fs::read_dir(temporary.path()).expect("it can be listed").count();
        assert_eq!(left, 0, "{flag}: a folder is left behind");
    }
}

#[test]
fn queries_are_logged_where_settings_want_that_and_the_log_filter_says_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let settings = folder.path().join("dev.yaml");
    let upstream = resolver(&[1], 60, |_| ());
    let text = format!("dns: {{log_queries: true, forward: {{upstreams: [\"{upstream}\"]}}}}\n");
    std::fs::write(&settings, text).expect("a file can be written");
    let ports = [Port::free(), Port::free(), Port::free()];
    let numbers = ports.each_ref().map(Port::number);
    let arguments = ["--config".to_owned(), settings.display().to_string()];
    let process = Process::start("rollcall dev", &mut command(numbers, None, &arguments, folder.path()));
    wait_until("it answers for itself", Duration::from_secs(30), || {
        let query = dns::question(1, OWN, dns::A, 1);
        let answer = dns::ask_udp(numbers[1], &query, Duration::from_secs(1));
        answer.and_then(|answer| dns::Header::parse(&answer)).is_some_and(|header| header.answers == 1)
    });

    // Each is a client of its own. The last name is of upstreams: asked for, and then known.
    for (name, kind, logged) in [
        (OWN, dns::A, ("A", "No Error", 1)),
        ("rollcall.internal", SOA, ("SOA", "No Error", 1)),
        ("Nobody.default.rollcall.internal", dns::A, ("A", "Non-Existent Domain", 0)),
        ("www.example.com", dns::A, ("A", "No Error", 1)),
        ("www.example.com", dns::A, ("A", "No Error", 1)),
    ] {
        let client = asked_by(numbers[1], &dns::question(2, name, kind, 1));
        wait_until("it is logged", Duration::from_secs(20), || !logged_of(&process, client).is_empty());
        let lines = logged_of(&process, client);
        let [line] = &lines[..] else { panic!("one line for each query: {lines:?}") };
        assert_eq!(line["level"], "INFO", "{line}");
        assert_eq!(line["name"], format!("{name}."), "{line}");
        let (kind, rcode, answers) = logged;
        assert_eq!(line["kind"], kind, "{line}");
        assert_eq!(line["rcode"], rcode, "{line}");
        assert_eq!(line["answers"], answers, "{line}");
    }
}

#[test]
fn queries_are_not_logged_unless_settings_want_that() {
    let mut dev = Dev::start(None, &[]);
    for name in [OWN, "rollcall.internal", "nobody.default.rollcall.internal", "x.invalid"] {
        asked_by(dev.dns.number(), &dns::question(2, name, dns::A, 1));
    }
    // With all that it had to say.
    dev.terminate();
    let log = dev.log();
    let mentions =
        |line: &&str| ["dns::queries", "nobody.default", "x.invalid"].iter().any(|part| line.contains(part));
    assert_eq!(log.lines().filter(mentions).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn two_processes_never_share_a_data_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let first = Dev::start(Some(folder.path()), &[]);
    let ports = [Port::free(), Port::free(), Port::free()];
    let numbers = [ports[0].number(), ports[1].number(), ports[2].number()];
    let temporary = tempfile::tempdir().expect("a temporary folder can be made");

    let mut second =
        Process::start("rollcall dev", &mut command(numbers, Some(folder.path()), &[], temporary.path()));
    let status = second.wait(Duration::from_secs(20));

    assert_eq!(status.code(), Some(1), "{}", second.log());
    let name = folder.path().to_string_lossy().into_owned();
    assert!(second.log().contains(&name), "the folder is not named: {}", second.log());
    first.connect().ping().expect("the first one is not disturbed");
}

#[test]
fn the_commands_reach_a_running_one() {
    let dev = Dev::start(None, &["--service", "web=127.0.0.1:9"]);
    let server = dev.client.address();
    let run = |arguments: &[&str]| {
        let output = rollcall().args(arguments).output().expect("the program runs");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    };

    let (status, said) = run(&["zk", "--server", &server, "create", "/x", "hello"]);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = run(&["zk", "--server", &server, "get", "/x"]);
    assert_eq!((status, said.trim()), (Some(0), "hello"));
    let (status, said) = run(&["zk", "--server", &server, "get", "/none"]);
    assert_ne!(status, Some(0), "{said}");
    assert!(said.contains("/none"), "{said}");
}

/// Asks over UDP, waits for the answer, and says who has asked.
fn asked_by(port: u16, query: &[u8]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    socket.send_to(query, ("127.0.0.1", port)).expect("loopback takes it");
    socket.recv(&mut [0; 2_000]).expect("an answer");
    socket.local_addr().expect("it has an address")
}

/// What is logged of the queries of one client.
fn logged_of(process: &Process, client: SocketAddr) -> Vec<serde_json::Value> {
    let log = process.log();
    // What it prints for people is no JSON, and the last line may be half written.
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let is_meant = |line: &serde_json::Value| {
        line["target"] == "rollcall::dns::queries" && line["client"] == client.to_string()
    };
    lines.filter(is_meant).collect()
}

fn folders(dev: &Dev) -> usize {
    std::fs::read_dir(dev.temporary()).expect("it can be listed").count()
}

/// Whom `rollcall dev` registers.
const OWN: &str = "rollcall.default.rollcall.internal";
const SOA: u16 = 6;
