//! What a sidecar takes of the machine's memory, which each pod pays: with nothing to know, and with ten thousand instances in its view,
//! however they came there.
//!
//! What counts is a program as it is shipped, which is static:
//! `RUSTFLAGS='-C target-feature=+crt-static' cargo test --release --target x86_64-unknown-linux-gnu --test processes resident`.
//! Other builds have bounds of their own, which show what grows: one that is not static has the pages of libraries, and an unoptimised one
//! is larger by itself.

use std::thread;
use std::time::Duration;

use rollcall::clock;

use crate::support::process::{Signal, resident_kb};
use crate::support::{Kind, Server, Sidecar, http, wait_until};

const SERVICES: u32 = 1_000;
/// Of each service.
const INSTANCES: u32 = 10;
/// With the one of `rollcall dev` itself.
const ALL: u64 = 10_001;
const LIMIT: Duration = Duration::from_secs(60);
/// How long it is looked at once it knows everything: it saves what it knows then, too.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes that may be resident: 10 MB and 25 MB as it is shipped, of which 9.5 and 22.4 were seen. What is the sidecar's own is 1.1 MB with
/// nothing to know; the rest are pages of the program, which all pods of a machine share, and of which the kernel maps what lies beside what
/// is used as well. Of an unoptimised build 34 MB and 49 MB were resident.
const IDLE_MAX: u64 = of_build(40_000_000, 15_000_000, 10_000_000);
const FULL_MAX: u64 = of_build(55_000_000, 30_000_000, 25_000_000);

const fn of_build(unoptimised: u64, dynamic: u64, shipped: u64) -> u64 {
    match (cfg!(debug_assertions), cfg!(target_feature = "crt-static")) {
        (true, _) => unoptimised,
        (false, false) => dynamic,
        (false, true) => shipped,
    }
}

#[test]
fn a_sidecar_takes_little_memory_and_little_more_for_ten_thousand_instances() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut server = Server::start(Kind::Rollcall, folder.path());
    let follower = Sidecar::start(&server.address(), SETTINGS);
    // So that the registry is there.
    wait_until("it knows the instance of rollcall dev", LIMIT, || {
        is_current(&follower) && knows(&follower, 1)
    });
    expect_at_most(IDLE_MAX, "with nothing to know", &follower);

    let mut client = server.connect();
    client.create_all(&registry()).expect("the registry is written");
    client.close().expect("it answers");
    wait_until("it has followed all changes", LIMIT, || is_current(&follower) && knows_all(&follower));
    expect_at_most(FULL_MAX, "that has seen each instance come", &follower);

    let mut reader = Sidecar::start(&server.address(), SETTINGS);
    wait_until("it has read everything", LIMIT, || is_current(&reader) && knows_all(&reader));
    expect_at_most(FULL_MAX, "that has read them", &reader);

    // In order, so that all of it is in the file.
    reader.signal(Signal::TERM);
    reader.expect_success(LIMIT);
    server.kill();
    reader.restart();
    let last = format!("/api/v1/services/default/service-{:04}", SERVICES - 1);
    let answers = || http::get(reader.http.number(), &last).is_ok_and(|answer| answer.status == 200);
    let took = wait_until("it answers from its saved view", LIMIT, answers);
    eprintln!("a sidecar answers from its saved view {took:?} after its start");
    wait_until("all of it was saved", LIMIT, || knows_all(&reader));
    expect_at_most(FULL_MAX, "that has its saved view alone", &reader);
    server.restart();
    wait_until("it has read everything again", LIMIT, || is_current(&reader) && knows_all(&reader));
    expect_at_most(FULL_MAX, "that has read them beside its saved view", &reader);
}

const SETTINGS: &str = "subscribe: {mode: all}\n";

/// Everything that is to be created, each below what was created before. The records are such as sidecars write.
fn registry() -> Vec<(String, String)> {
    let mut znodes = Vec::new();
    for service in 0..SERVICES {
        let path = format!("/rollcall/services/default/service-{service:04}");
        znodes.push((path.clone(), String::new()));
        for number in 0..INSTANCES {
            let id = format!("service-{service:04}-6d5f7c9b8-{number:05}");
            znodes.push((format!("{path}/{id}"), record(service, number)));
        }
    }
    znodes
}

fn record(service: u32, number: u32) -> String {
    let [_, _, high, low] = service.to_be_bytes();
    let incarnation = u128::from(service) << 64 | u128::from(number);
    format!(
        r#"{{"v":1,"addresses":["127.{number}.{high}.{low}"],"ports":[{{"name":"http","port":8080,"protocol":"tcp"}},{{"name":"metrics","port":9090,"protocol":"tcp"}}],"status":"up","weight":1,"priority":0,"zone":"eu-west-1{zone}","node":"machine-{machine:03}","tags":["v2"],"meta":{{"version":"2.7.1"}},"owner":"{owner:032x}","incarnation":"{incarnation:032x}","registered_at_ms":1795410579118}}"#,
        zone = ["a", "b", "c"][number as usize % 3],
        machine = (service * INSTANCES + number) % 300,
        owner = !incarnation,
    )
}

fn is_current(sidecar: &Sidecar) -> bool {
    sidecar.metric("rollcall_registry_view_stale") == Some(0)
}

fn knows_all(sidecar: &Sidecar) -> bool {
    knows(sidecar, ALL)
}

fn knows(sidecar: &Sidecar, instances: u64) -> bool {
    sidecar.metric("rollcall_registry_view_instances") == Some(instances)
}

fn expect_at_most(bytes_max: u64, what: &str, sidecar: &Sidecar) {
    let (mut most, began) = (0, clock::now());
    while began.elapsed() < LOOK {
        most = most.max(resident_kb(sidecar.id()) * 1024);
        thread::sleep(Duration::from_millis(10));
    }
    eprintln!("a sidecar {what}: {:.1} MB of at most {} MB", most as f64 / 1e6, bytes_max / 1_000_000);
    assert!(most <= bytes_max, "a sidecar {what}: {most} bytes are resident");
}
