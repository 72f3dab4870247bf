//! Prometheus as Debian has it, on `config/prometheus.yml`: what it scrapes, found by SRV and by A.
//!
//! Prometheus asks the nameservers of `/etc/resolv.conf` on port 53. So the sidecar listens there, on an address of loopback that is
//! the test's own, and Prometheus has a mount namespace in which that file is another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{Fleet, Port, Process, Sidecar, adapted, http, wait_until};

/// Prometheus takes what it has discovered to its scrapers every five seconds, in two steps.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn prometheus_scrapes_whom_the_sidecar_offers() {
    let mut fleet = Fleet::start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (dns, http, port) = (Port::free(), Port::free(), Port::free());
    let nameserver = own_address(&dns);
    let listeners =
        format!("dns: {{address: \"{nameserver}:53\"}}\nhttp: {{address: \"{}\"}}\n", http.address());
    // It may be there before the sidecar.
    let prometheus = Prometheus::start(folder.path(), port, &nameserver, fleet.port());
    let reader = Sidecar::start_with(&fleet.member(), &listeners, [dns, http]);
    let (first, second, standby) = ("127.0.0.1", "127.0.0.2", "127.0.0.3");

    // Each time all that are up, which are found by SRV, and those of them that serve, by A.
    prometheus.expect("the first instance is found", &["one"], &[first]);
    fleet.grow("two", second, "weight: 768");
    prometheus.expect("a second primary appears", &["one", "two"], &[first, second]);
    fleet.grow("three", standby, "priority: 10");
    prometheus.expect("a standby appears, and does not serve", &["one", "two", "three"], &[first, second]);
    // The targets by SRV are names, which Prometheus has resolved.
    wait_until("all scrapes succeed", LIMIT, || prometheus.targets().values().all(|health| health == "up"));

    fleet.instances[0].tell(&["drain"]);
    prometheus.expect("one that drains is left", &["two", "three"], &[second]);
    fleet.instances[0].tell(&["drain", "--undo"]);
    prometheus.expect("one that drains no more is back", &["one", "two", "three"], &[first, second]);

    fleet.instances[0].web.fall_ill();
    prometheus.expect("one whose check fails is left", &["two", "three"], &[second]);
    fleet.instances[1].web.fall_ill();
    prometheus.expect("the standby serves while no primary is well", &["three"], &[standby]);
    fleet.instances[1].web.recover();
    prometheus.expect("a primary that is well again serves", &["two", "three"], &[second]);
    fleet.instances[0].web.recover();
    prometheus.expect("and so does the other", &["one", "two", "three"], &[first, second]);

    fleet.instances[1].leave();
    prometheus.expect("one that leaves is left", &["one", "three"], &[first]);
    fleet.instances[0].leave();
    prometheus.expect("the standby serves when the last primary has left", &["three"], &[standby]);
    assert!(!reader.log().contains("panicked"), "{}", reader.log());
}

/// An address of loopback that no other test on this machine takes, since the port is ours.
fn own_address(port: &Port) -> String {
    let [high, low] = port.number().to_be_bytes();
    format!("127.53.{high}.{low}")
}

/// A Prometheus with a resolver of its own.
struct Prometheus {
    port: Port,
    service_port: u16,
    process: Process,
}

impl Prometheus {
    fn start(folder: &Path, port: Port, nameserver: &str, service_port: u16) -> Self {
        let text = include_str!("../../config/prometheus.yml");
        let text = adapted(
            text,
            &[
                ("port: 8081", format!("port: {service_port}")),
                ("scrape_interval: 15s", "scrape_interval: 1s".to_owned()),
            ],
        );
        let (settings, resolv_conf) = (folder.join("prometheus.yml"), folder.join("resolv.conf"));
        std::fs::write(&settings, text).expect("a file can be written");
        std::fs::write(&resolv_conf, format!("nameserver {nameserver}\n")).expect("a file can be written");
        // With `exec`, so that the process that is killed is Prometheus.
        let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(resolv_conf).arg("/usr/bin/prometheus");
        command.arg(format!("--config.file={}", settings.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={}", port.address()));
        let mut prometheus = Self { port, service_port, process: Process::start("prometheus", &mut command) };
        wait_until("Prometheus serves", LIMIT, || {
            assert!(
                !prometheus.process.has_ended(),
                "Prometheus did not start with a mount namespace of its own, which takes root (CAP_SYS_ADMIN); it said:\n{}",
                prometheus.process.log()
            );
            http::get(prometheus.port.number(), "/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    /// Waits until these instances, by their names, are the targets of `web`, and these addresses those of `web-serving`.
    fn expect(&self, what: &str, instances: &[&str], addresses: &[&str]) {
        let names = instances.iter().map(|id| ("web", format!("{id}.web.default.rollcall.internal")));
        let addresses = addresses.iter().map(|address| ("web-serving", (*address).to_owned()));
        let wanted: BTreeSet<_> = names
            .chain(addresses)
            .map(|(job, host)| (job.to_owned(), format!("{host}:{}", self.service_port)))
            .collect();
        let took = wait_until(what, LIMIT, || self.targets().into_keys().collect::<BTreeSet<_>>() == wanted);
        eprintln!("{what}: {took:?}");
    }

    /// The health of all targets, by job and instance.
    fn targets(&self) -> BTreeMap<(String, String), String> {
        let answer =
            http::get(self.port.number(), "/api/v1/targets?state=active").expect("Prometheus answers");
        let told = answer.json();
        let targets = told["data"]["activeTargets"].as_array().expect("a list");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let name = |target: &serde_json::Value| {
            (text(&target["labels"]["job"]), text(&target["labels"]["instance"]))
        };
        targets.iter().map(|target| (name(target), text(&target["health"]))).collect()
    }
}
