//! HAProxy as Debian has it, on `config/haproxy.cfg`: primaries and standbys found by SRV, and those who serve by A, from the sidecar's DNS.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rollcall::clock;

use crate::support::proxied::{follow, served_by, serving};
use crate::support::{Fleet, Kind, Port, Process, Server, Sidecar, adapted, dig, http, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// Of the template for primaries in `config/haproxy.cfg`.
const SLOTS: u8 = 20;

#[test]
fn haproxy_sends_requests_to_whom_the_sidecar_offers() {
    let mut fleet = Fleet::start();
    let reader = fleet.reader();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (by_service, by_address) = (Port::free(), Port::free());
    let _haproxy = start(folder.path(), [&by_service, &by_address], &reader.dns, fleet.port());
    follow(&mut fleet, &reader, &[by_service.number(), by_address.number()]);
}

#[test]
fn haproxy_goes_on_by_weight_while_the_sidecar_is_away_or_has_no_ensemble() {
    let mut fleet = Fleet::start();
    fleet.grow("two", "127.0.0.2", "weight: 768");
    let mut reader = fleet.reader();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (port, by_address) = (Port::free(), Port::free());
    let _haproxy = start(folder.path(), [&port, &by_address], &reader.dns, fleet.port());
    wait_until("both serve by their weights", LIMIT, || is_one_to_three(&shares(port.number(), 32)));

    reader.kill();
    // Some of HAProxy's rounds.
    let away = clock::now();
    while away.elapsed() < Duration::from_secs(3) {
        assert_eq!(serving(port.number()).expect("requests are answered").len(), 2);
    }
    reader.restart();
    wait_until("both serve again by what it says", LIMIT, || {
        queries(&reader) >= 6 && is_one_to_three(&shares(port.number(), 32))
    });

    // From now on its answers say that they may be behind.
    fleet.kill_ensemble();
    wait_until("its answers are stale", LIMIT, || {
        dig(reader.dns.number(), &["web.default.rollcall.internal"]).text.contains("EDE: 3")
    });
    let asked = queries(&reader);
    wait_until("HAProxy asks on", LIMIT, || queries(&reader) >= asked + 6);
    let shares = shares(port.number(), 32);
    assert!(is_one_to_three(&shares), "{shares:?}");
}

#[test]
fn haproxy_fills_all_its_slots_from_an_answer_that_is_too_long_for_udp() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(Kind::Rollcall, folder.path());
    let backends = Port::free();
    let mut settings = "services:\n".to_owned();
    for number in 1..=SLOTS {
        let address = format!("127.0.1.{number}");
        settings += &format!(
            "  - {{name: web, id: web-7d9f8b6c5d-x2x{number:02}, address: {address}, ports: [{{name: http, port: {}}}], \
             checks: []}}\n",
            backends.number()
        );
        answer_on(address, backends.number());
    }
    let sidecar = Sidecar::start(&server.address(), &settings);
    let ports = [Port::free(), Port::free()];
    let _haproxy = start(folder.path(), [&ports[0], &ports[1]], &sidecar.dns, backends.number());
    for port in &ports {
        wait_until("all serve", LIMIT, || shares(port.number(), 2 * SLOTS) == [2; SLOTS as usize]);
    }
    let cut = dig(
        sidecar.dns.number(),
        &["+notcp", "+ignore", "+bufsize=8192", "_http._tcp.primary.web.default.rollcall.internal", "SRV"],
    );
    assert!(cut.flags.contains(&"tc".to_owned()), "over UDP it is whole: {}", cut.text);
}

/// Starts it on the port that leads to the instances by SRV, and on that by A.
fn start(folder: &Path, [by_service, by_address]: [&Port; 2], dns: &Port, backends: u16) -> Process {
    let text = include_str!("../../config/haproxy.cfg");
    let addresses = [
        ("127.0.0.1:8600", dns.address()),
        ("127.0.0.1:8080", by_service.address()),
        ("127.0.0.1:8082", by_address.address()),
        ("internal:8081", format!("internal:{backends}")),
    ];
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, adapted(text, &addresses)).expect("a file can be written");
    Process::start("haproxy", Command::new("/usr/sbin/haproxy").arg("-db").arg("-f").arg(file))
}

/// How many of so many requests each answers, ordered by number.
fn shares(port: u16, requests: u8) -> Vec<u8> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        if let Ok(host) = served_by(port) {
            *counts.entry(host).or_insert(0) += 1;
        }
    }
    let mut shares: Vec<u8> = counts.into_values().collect();
    shares.sort_unstable();
    shares
}

/// Whether these are the shares of weights of 256 and 768: HAProxy takes turns, and may be between two of them.
fn is_one_to_three(shares: &[u8]) -> bool {
    matches!(shares, [one, two] if (7..=9).contains(one) && one + two == 32)
}

/// SRV queries that a sidecar has answered with success.
fn queries(sidecar: &Sidecar) -> u64 {
    let metrics = http::get(sidecar.http.number(), "/metrics").map(|answer| answer.body).unwrap_or_default();
    let count = |line: &str| {
        line.strip_prefix("rollcall_dns_queries_total{kind=\"srv\",rcode=\"noerror\"} ")?.parse().ok()
    };
    metrics.lines().find_map(count).unwrap_or(0)
}

/// Answers HTTP requests there with its address, for as long as the process lives.
fn answer_on(address: String, port: u16) {
    let listener = TcpListener::bind((address.as_str(), port)).expect("the port is ours");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut head = [0; 4096];
            let length = address.len();
            let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{address}");
            // HAProxy's own checks connect, and say nothing.
            if stream.read(&mut head).is_ok_and(|count| count > 0) {
                let _haproxy_may_be_gone = stream.write_all(answer.as_bytes());
            }
        }
    });
}
