//! `rollcall bench dns` against a `rollcall dev`, against a server that says nothing, and against none: figures that fit together.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::dev::rollcall;
use crate::support::process::Signal;
use crate::support::{Dev, Process, dig, http, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const OWN_NAME: &str = "rollcall.default.rollcall.internal";
const BRIEF: [&str; 4] = ["--for", "1s", "--warm-up", "100ms"];

#[test]
fn figures_of_a_sidecar_fit_together() {
    let mut dev = serving();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let names = folder.path().join("names");
    std::fs::write(&names, format!("# ours\n{OWN_NAME} SRV\nnobody.default.rollcall.internal A\n"))
        .expect("a file can be written");
    let names = names.display().to_string();
    let (address, pid) = (dev.dns.address(), dev.process().id().to_string());
    let of = ["--server", &address, "--pids", &pid, "--names", &names, OWN_NAME];
    let json = bench(&[&of[..], &BRIEF].concat());
    let run = only_run(&json);
    expect_consistent(run);
    let [noerror, nxdomain] = ["NOERROR", "NXDOMAIN"].map(|code| number(&run["codes"], code));
    // Names are asked for in turn, and two of three are there.
    assert!((noerror / 2.0 - nxdomain).abs() <= 1.0, "{run}");
    assert_eq!(
        (&run["lost"], &run["mismatched"], &run["truncated"]),
        (&0.into(), &0.into(), &0.into()),
        "{run}"
    );
    for field in ["server_cpu_us_per_query", "client_cpu_us_per_query"] {
        assert!(number(run, field) > 0.0, "{field}: {run}");
    }
    assert!(number(run, "server_resident_bytes") > 1e6, "{run}");
}

#[test]
fn a_rate_is_kept_to_and_two_servers_are_measured_in_turn() {
    let dev = serving();
    let address = dev.dns.address();
    let of = ["--server", &address, "--compare", &address, "--rounds", "2", "--rate", "500", OWN_NAME];
    let json = bench(&[&of[..], &BRIEF].concat());
    assert_eq!(json["complete"], true, "{json}");
    let runs = json["runs"].as_array().expect("a list of runs");
    let turns: Vec<_> = runs.iter().map(|run| (run["server"].as_str(), run["round"].as_u64())).collect();
    let (first, second) = (Some("first"), Some("second"));
    assert_eq!(turns, [(first, Some(1)), (second, Some(1)), (first, Some(2)), (second, Some(2))]);
    for run in runs {
        expect_consistent(run);
        let due = number(run, "asked") + number(run, "unsent");
        let planned = number(run, "seconds") * 500.0;
        assert!((due - planned).abs() <= 2.0 && number(run, "asked") <= planned + 2.0, "{run}");
    }
    let [ours, theirs] = [0, 1].map(|place| number(&json["medians"][place], "p50_us"));
    let ratio = number(&json["ratios"], "p50_us");
    assert!((ratio - ours / theirs).abs() < 1e-6 * ratio, "{ratio} is not {ours} to {theirs}");
}

#[test]
fn a_view_that_changes_is_measured_beside_the_same_view_calm() {
    let dev = serving();
    let (address, ensemble) = (dev.dns.address(), dev.client.address());
    let of = ["--server", &address, "--changes", "50", "--ensemble", &ensemble, "--rounds", "2", OWN_NAME];
    let before = metric(&dev, "rollcall_registry_publications_total");
    let json = bench(&[&of[..], &BRIEF].concat());
    assert_eq!(
        (&json["servers"][0]["changes_per_s"], &json["servers"][1]["changes_per_s"]),
        (&50.into(), &Value::Null)
    );
    for run in json["runs"].as_array().expect("a list of runs") {
        expect_consistent(run);
        assert_eq!(run["codes"], serde_json::json!({"NOERROR": run["answered"]}), "{run}");
        if run["server"] == "first" {
            let rate = number(run, "changes_per_s");
            assert!(rate > 0.0 && rate <= 55.0, "{run}");
        } else {
            assert_eq!(run["changes_per_s"], Value::Null, "{run}");
        }
    }
    assert!(metric(&dev, "rollcall_registry_publications_total") > before, "what was changed was seen");
    wait_until("the instance has gone", LIMIT, || {
        let page =
            http::get(dev.http.number(), "/api/v1/services/default/rollcall").expect("it answers").body;
        !page.contains("bench-")
    });
}

#[test]
fn a_server_that_says_nothing_has_its_queries_lost() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    let address = silent.local_addr().expect("it is bound").to_string();
    let of = ["--server", &address, "--outstanding", "7", "--timeout", "200ms", OWN_NAME];
    let json = bench(&[&of[..], &BRIEF].concat());
    let run = only_run(&json);
    let (asked, lost) = (number(run, "asked"), number(run, "lost"));
    assert!(asked == lost && (7.0..=42.0).contains(&lost), "{run}");
    assert_eq!((&run["answered"], &run["p50_us"]), (&0.into(), &Value::Null), "{run}");
    assert_eq!(run["codes"], serde_json::json!({}), "{run}");
}

#[test]
fn packets_that_answer_something_else_are_counted_and_answer_nothing() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    let address = server.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        // Ends with the test's process; whoever asked may be gone.
        while let Ok((length, client)) = server.recv_from(&mut packet) {
            packet[0] ^= 0x80;
            packet[2] |= 0x80;
            let _sent = server.send_to(&packet[..length], client);
        }
    });
    let of = ["--server", &address, "--outstanding", "3", "--timeout", "100ms", OWN_NAME];
    let run = only_run(&bench(&[&of[..], &BRIEF].concat())).clone();
    assert!(number(&run, "lost") > 0.0 && number(&run, "mismatched") > 0.0, "{run}");
    assert_eq!((&run["answered"], &run["lost"]), (&0.into(), &run["asked"]), "{run}");
}

#[test]
fn ctrl_c_prints_what_was_measured() {
    let dev = serving();
    let plan = ["--for", "1h", "--warm-up", "0s", "-o", "json", OWN_NAME];
    let mut bench = Process::start(
        "rollcall bench dns",
        &mut command(&[&["--server", &dev.dns.address()], &plan[..]].concat()),
    );
    wait_until("queries are answered", LIMIT, || queries(&dev) > 1_000);
    bench.signal(Signal::INT);
    assert_eq!(bench.wait(LIMIT).code(), Some(1), "{}", bench.log());
    let log = bench.log();
    let (json, told) =
        log.split_once("rollcall: interrupted").unwrap_or_else(|| panic!("not interrupted: {log}"));
    assert!(told.contains("as far as it went"), "{log}");
    let json: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(json["complete"], false, "{json}");
    expect_consistent(&json["runs"][0]);
}

#[test]
fn mistakes_are_told_with_a_remedy() {
    for (arguments, remedy) in [
        (&["web.test", "--outstanding", "40000", "--sockets", "1"][..], "raise --sockets to 3"),
        (&["--names", "/nonexistent/names"], "NAME TYPE"),
        (&["web.test:NONE"], "TYPE65"),
        (&["web.test", "--pids", "4194305"], "ids of the servers"),
        (&["web.test", "--changes", "5"], "--ensemble"),
    ] {
        let output = command(arguments).output().expect("the program runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(remedy), "{arguments:?}: {told}");
    }
}

/// A `rollcall dev` that answers for itself.
fn serving() -> Dev {
    let dev = Dev::start(None, &[]);
    wait_until("it answers for itself", LIMIT, || !dig(dev.dns.number(), &[OWN_NAME]).answer.is_empty());
    dev
}

/// DNS queries that it has answered.
fn queries(dev: &Dev) -> u64 {
    metric(dev, "rollcall_dns_queries_total")
}

/// The sum of a counter over its labels.
fn metric(dev: &Dev, name: &str) -> u64 {
    let metrics = http::get(dev.http.number(), "/metrics").expect("it answers").body;
    let is_meant = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values =
        metrics.lines().filter(is_meant).filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    values.sum()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = rollcall();
    command.args(["bench", "dns"]).args(arguments);
    command
}

fn bench(arguments: &[&str]) -> Value {
    let output = command(&[arguments, &["-o", "json"]].concat()).output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    // Neither progress nor anything else where there is no terminal.
    assert!(output.status.success() && told.is_empty(), "{}: {told}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The run of a report of one that lacks nothing.
fn only_run(json: &Value) -> &Value {
    assert_eq!(json["complete"], true, "{json}");
    let runs = json["runs"].as_array().expect("a list of runs");
    assert_eq!(runs.len(), 1, "{json}");
    &runs[0]
}

fn expect_consistent(run: &Value) {
    let [asked, answered, lost] = ["asked", "answered", "lost"].map(|field| number(run, field));
    assert!(answered > 0.0 && answered + lost == asked, "{run}");
    let codes = run["codes"].as_object().expect("counts by code");
    let sum: u64 = codes.values().filter_map(Value::as_u64).sum();
    assert_eq!(Some(sum), run["answered"].as_u64(), "{run}");
    let latencies = ["p50_us", "p99_us", "p99_9_us", "max_us"].map(|field| number(run, field));
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{run}");
    assert!(number(run, "mean_us") <= latencies[3], "{run}");
    let rate = answered / number(run, "seconds");
    assert!((number(run, "queries_per_s") - rate).abs() < 1e-6 * rate, "{run}");
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {value}"))
}
