//! `rollcall bench ensemble` against a member of ours and Apache ZooKeeper: figures that fit together, and nothing left behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::apache::ApacheServer;
use crate::support::dev::rollcall;
use crate::support::process::Signal;
use crate::support::{Port, Process, RawClient, http, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// What the member's tick of 2 s allows; pings come every third of it.
const SESSION: [&str; 4] = ["--session-timeout", "4s", "--warmup", "0s"];

#[test]
fn every_workload_gives_figures_that_fit_together() {
    let member = Ensemble::start();
    let count = ["--count", "400", "--connections", "4", "--pipeline", "3", "--keys", "20"];
    let lists =
        ["--workload", "set,get,mixed,ephemeral,connect,watch", "--pids", &member.process.id().to_string()];
    let json = member.bench(&[&count[..], &lists, &SESSION].concat());
    let runs = complete_runs(&json);
    let workloads: Vec<_> = runs.iter().map(|run| run["workload"].as_str().expect("a name")).collect();
    assert_eq!(workloads, ["set", "get", "mixed", "ephemeral", "connect", "watch"]);
    for run in runs {
        expect_consistent(run, 400);
        assert!(number(run, "server_resident_bytes_max") > 1e6, "{run}");
    }
    assert_eq!(member.znodes(), ["zookeeper"]);
}

#[test]
fn idle_sessions_are_kept_by_pings() {
    let member = Ensemble::start();
    let idle = ["--workload", "idle", "--connections", "30", "--count", "30", "--keys", "1"];
    let json = member.bench(&[&idle[..], &SESSION].concat());
    expect_consistent(&complete_runs(&json)[0], 30);
}

#[test]
fn two_ensembles_are_measured_in_turn_and_their_medians_divided() {
    let member = Ensemble::start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let apache = ApacheServer::start(folder.path());
    let address = apache.address().to_string();
    let plan = ["--workload", "set,ephemeral,watch", "--count", "100", "--rounds", "2", "--connections", "3"];
    let json = member.bench(&[&plan[..], &["--compare", &address], &SESSION].concat());
    let runs = complete_runs(&json);
    runs.iter().for_each(|run| expect_consistent(run, 100));
    let turns: Vec<_> =
        runs[..4].iter().map(|run| (run["ensemble"].as_str(), run["round"].as_u64())).collect();
    let (first, second) = (Some("first"), Some("second"));
    assert_eq!(turns, [(first, Some(1)), (second, Some(1)), (first, Some(2)), (second, Some(2))]);
    let [ours, theirs] = [&json["medians"][0], &json["medians"][1]].map(|median| number(median, "ops_per_s"));
    let ratio = number(&json["ratios"][0], "ops_per_s");
    assert!((ratio - ours / theirs).abs() < 1e-6 * ratio, "{ratio} is not {ours} to {theirs}");
}

#[test]
fn a_killed_server_is_counted_and_returned_to() {
    let mut member = Ensemble::start();
    let plan = ["--workload", "set", "--duration", "5s", "--connections", "2", "--keys", "5", "-o", "json"];
    let command = member.bench_command(&[&plan[..], &SESSION].concat());
    let bench = std::thread::spawn(move || output(command));
    // With two connections both are open long before.
    wait_until("the writes have begun", LIMIT, || member.commits() > 100);
    member.restart();
    let commits_before = member.commits();
    let json = json(&bench.join().expect("it ran"));
    let run = &complete_runs(&json)[0];
    assert!(number(run, "errors") >= 1.0, "{run}");
    assert!(member.commits() > commits_before + 100, "the writes went on: {run}");
    assert_eq!(member.znodes(), ["zookeeper"]);
}

#[test]
fn ctrl_c_leaves_no_znode_behind() {
    let member = Ensemble::start();
    let plan = ["--workload", "get,ephemeral", "--duration", "1m", "--connections", "2"];
    let mut bench =
        Process::start("rollcall bench", &mut member.bench_command(&[&plan[..], &SESSION].concat()));
    wait_until("it has begun", LIMIT, || member.znodes().len() > 1);
    bench.signal(Signal::INT);
    assert_eq!(bench.wait(LIMIT).code(), Some(1));
    assert!(bench.log().contains("interrupted"), "{}", bench.log());
    assert_eq!(member.znodes(), ["zookeeper"]);
}

#[test]
fn without_a_server_it_says_what_to_try() {
    let port = Port::free();
    let mut command = rollcall();
    command.args(["bench", "ensemble", "--servers", &port.address()]);
    let output = output(command);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(
        told.contains(&port.address()) && told.contains("rollcall dev") && told.contains("--servers"),
        "{told}"
    );
}

/// The runs of a report that lacks nothing.
fn complete_runs(json: &Value) -> &Vec<Value> {
    assert_eq!(json["complete"], true, "{json}");
    json["runs"].as_array().expect("a list of runs")
}

fn expect_consistent(run: &Value, ops: u64) {
    assert_eq!((run["ops"].as_u64(), run["errors"].as_u64()), (Some(ops), Some(0)), "{run}");
    let latencies = ["p50_us", "p99_us", "p99_9_us", "max_us"].map(|field| number(run, field));
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{run}");
    assert!(number(run, "mean_us") <= latencies[3], "{run}");
    let seconds = number(run, "seconds");
    let rate = number(run, "ops") / seconds;
    assert!((number(run, "ops_per_s") - rate).abs() < 1e-6 * rate, "{run}");
    let stall = number(run, "longest_stall_us");
    assert!(stall > 0.0 && stall <= seconds * 1e6 + 1.0, "{run}");
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {value}"))
}

fn output(mut command: Command) -> Output {
    command.output().expect("the program runs")
}

fn json(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    // Neither progress nor anything else where there is no terminal.
    assert!(output.status.success() && told.is_empty(), "{}: {told}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A `rollcall ensemble` that is one member.
struct Ensemble {
    client: Port,
    status: Port,
    settings: PathBuf,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Ensemble {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let [client, status] = [Port::free(), Port::free()];
        let settings = folder.path().join("ensemble.yaml");
        let text = format!(
            "data_dir: {}\nclient: {{address: {}}}\nstatus_address: {}\n",
            folder.path().join("data").display(),
            client.address(),
            status.address()
        );
        std::fs::write(&settings, text).expect("a file can be written");
        let process = Self::process(&settings);
        let ensemble = Self { client, status, settings, process, _folder: folder };
        ensemble.wait_until_ready();
        ensemble
    }

    /// Ends it as `kill -9` does, and starts it again.
    fn restart(&mut self) {
        self.process.kill();
        self.process = Self::process(&self.settings);
        self.wait_until_ready();
    }

    fn bench_command(&self, arguments: &[&str]) -> Command {
        let mut command = rollcall();
        command.args(["bench", "ensemble", "--servers", &self.client.address()]).args(arguments);
        command
    }

    fn bench(&self, arguments: &[&str]) -> Value {
        json(&output(self.bench_command(&[arguments, &["-o", "json"]].concat())))
    }

    /// The children of the root znode.
    fn znodes(&self) -> Vec<String> {
        let client = RawClient::connect(&self.client.address(), 10_000);
        let mut client = client.unwrap_or_else(|error| panic!("no session: {error}"));
        let names = client.children("/").expect("the server answers");
        client.close().expect("the session is closed");
        names
    }

    /// The txns that it has applied.
    fn commits(&self) -> u64 {
        let metrics = http::get(self.status.number(), "/metrics").expect("it answers").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("rollcall_ensemble_commits_total "));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {metrics}"))
    }

    fn process(settings: &Path) -> Process {
        Process::start("rollcall ensemble", rollcall().arg("ensemble").arg("-c").arg(settings))
    }

    fn wait_until_ready(&self) {
        wait_for("rollcall ensemble is ready", LIMIT, || {
            http::get(self.status.number(), "/readyz").ok().filter(|answer| answer.status == 200)
        });
    }
}
