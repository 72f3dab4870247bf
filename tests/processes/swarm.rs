//! `rollcall bench swarm` against a member of ours and Apache ZooKeeper: figures that fit together, and nothing left behind.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::dev::rollcall;
use crate::support::process::Signal;
use crate::support::{Kind, Process, Server, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const SIDECARS: u64 = 20;
const SESSIONS: u64 = 10;

#[test]
fn rollcall_carries_a_swarm_whose_figures_fit_together() {
    expect_figures_that_fit(Kind::Rollcall);
}

#[test]
fn apache_carries_a_swarm_whose_figures_fit_together() {
    expect_figures_that_fit(Kind::Apache);
}

fn expect_figures_that_fit(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let plan = ["--sidecars", "20", "--services", "3", "--sessions", "10", "--hold", "1s", "--churn", "10"];
    let rest = ["--for", "2s", "--restart", "0.3", "--restart-parallel", "3", "-o", "json"];
    let output = command(&server, &[&plan[..], &rest].concat()).output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    // Neither progress nor anything else where there is no terminal.
    assert!(output.status.success() && told.is_empty(), "{}: {told}", output.status);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["complete"], true, "{json}");
    let phases = json["phases"].as_array().expect("a list of phases");
    let of = |name: &str| phases.iter().find(|phase| phase["phase"] == name).expect("the phase");
    let counts: Vec<_> = phases.iter().map(|phase| (text(phase, "phase"), number(phase, "count"))).collect();
    let changes = number(of("churn"), "count");
    assert_eq!(
        counts,
        [
            ("sessions", SESSIONS as f64),
            ("register", SIDECARS as f64),
            ("agree", SIDECARS as f64),
            ("hold", (SIDECARS + SESSIONS) as f64),
            ("churn", changes),
            ("restart", 6.0),
        ]
    );
    for phase in phases {
        assert_eq!((&phase["counts"]["sessions_lost"], &phase["errors"]), (&0.into(), &0.into()), "{phase}");
    }
    assert_eq!(of("register")["counts"]["writes"], SIDECARS);
    expect_every_view_to_have_seen_every_change(&json["visibility"], changes);
    let per_change = |phase: &str, what: &str| number(of(phase), &format!("{what}_per_view_and_change"));
    let churn = of("churn");
    assert!(changes >= 5.0, "{churn}");
    // A record that says draining, its end, and a new one.
    let restart = of("restart");
    assert_eq!(number(restart, "changes"), 18.0, "{restart}");
    match kind {
        // A record is deleted and created, which is one event that brings the new one along.
        Kind::Rollcall => {
            assert!((per_change("churn", "events") - 1.0).abs() < 0.01, "{churn}");
            assert!((per_change("churn", "carried") - 1.0).abs() < 0.01, "{churn}");
            assert!(per_change("churn", "reads") < 0.01, "{churn}");
            // One each of what changes, whatever the number of sidecars: read where a view is new, and has to catch up.
            let (carried, reads) = (per_change("restart", "carried"), per_change("restart", "reads"));
            assert!(carried > 0.3 && reads < 0.5 && carried + reads < 3.0, "{restart}");
        }
        // Two events. The znodes of the instance and of its service are read, once for all changes that come together; the instance twice
        // where the second event comes when the first is being followed.
        Kind::Apache => {
            assert!((per_change("churn", "events") - 2.0).abs() < 0.01, "{churn}");
            assert!((1.0..=3.0).contains(&per_change("churn", "reads")), "{churn}");
            let reads = per_change("restart", "reads");
            assert!(reads > 0.3 && reads <= 3.0, "{restart}");
        }
    }
    assert!(roots(&server).is_empty());
}

fn expect_every_view_to_have_seen_every_change(visibility: &Value, changes: f64) {
    assert_eq!((&visibility["unseen"], &visibility["errors"]), (&0.into(), &0.into()), "{visibility}");
    let [each, all] = [&visibility["in_each_view"], &visibility["in_all_views"]];
    assert_eq!(number(each, "count"), changes * SIDECARS as f64, "{visibility}");
    assert_eq!(number(all, "count"), changes, "{visibility}");
    for latencies in [each, all] {
        let sorted = ["p50_us", "p99_us", "p99_9_us", "max_us"].map(|field| number(latencies, field));
        assert!(sorted.is_sorted(), "{visibility}");
    }
    assert_eq!(each["max_us"], all["max_us"], "the last view is the last");
    assert!(number(each, "p50_us") <= number(all, "p50_us"), "{visibility}");
}

#[test]
fn ctrl_c_closes_all_sessions_and_leaves_no_znode_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(Kind::Rollcall, folder.path());
    let plan = ["--sidecars", "5", "--services", "2", "--hold", "1h"];
    let mut bench = Process::start("rollcall bench", &mut command(&server, &plan));
    wait_until("the sidecars have registered", LIMIT, || instances(&server) == 5);
    bench.signal(Signal::INT);
    assert_eq!(bench.wait(LIMIT).code(), Some(1));
    let log = bench.log();
    assert!(log.contains("interrupted") && log.contains("register  "), "{log}");
    assert!(roots(&server).is_empty());
}

#[test]
fn a_swarm_that_the_machine_cannot_carry_is_refused_with_what_to_do() {
    let program = rollcall().get_program().display().to_string();
    let limit = format!("ulimit -n 1024; exec {program} bench swarm --sessions 2000");
    let output = Command::new("sh").args(["-c", &limit]).output().expect("a shell runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
    assert!(told.contains("2164 open files") && told.contains("ulimit -Hn 2164"), "{told}");
}

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = rollcall();
    command.args(["bench", "swarm", "--session-timeout", "4s", "--servers", &server.address()]);
    command.args(arguments);
    command
}

/// The roots of benches.
fn roots(server: &Server) -> Vec<String> {
    let mut roots = children(server, "/");
    roots.retain(|name| name.starts_with("rollcall-bench-"));
    roots
}

/// How many instances are registered by the bench that runs.
fn instances(server: &Server) -> usize {
    let Some(root) = roots(server).pop() else { return 0 };
    let services = ["service-0", "service-1"].map(|service| format!("/{root}/default/{service}"));
    services.iter().map(|service| children(server, service).len()).sum()
}

/// None while the znode is missing.
fn children(server: &Server, path: &str) -> Vec<String> {
    let mut client = server.connect();
    let names = client.children(path).unwrap_or_default();
    client.close().expect("the session is closed");
    names
}

fn text<'json>(value: &'json Value, field: &str) -> &'json str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {value}"))
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {value}"))
}
