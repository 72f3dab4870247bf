//! `kill -9` while clients write: what was acknowledged is there, and what is there is whole.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::{Kind, RawClient, Server, wait_until};

const ROUNDS: u64 = 20;
const WRITERS: usize = 6;

#[test]
fn no_acknowledged_write_is_lost_and_none_is_half_applied_on_rollcall() {
    run(Kind::Rollcall, ROUNDS);
}

/// Shows that the test demands nothing that Apache does not do.
#[test]
fn no_acknowledged_write_is_lost_and_none_is_half_applied_on_apache() {
    run(Kind::Apache, 3);
}

fn run(kind: Kind, rounds: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut server = Server::start(kind, folder.path());
    let mut client = server.connect();
    for writer in 0..WRITERS {
        for name in ["counter", "left", "right", "list"] {
            let path = format!("/{name}{writer}");
            assert_eq!(client.create(&path, Some(b"0"), 0).expect("the server answers").error, 0);
        }
    }
    let mut written: Vec<Written> = (0..WRITERS).map(|_| Written::default()).collect();
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let mut acknowledged = 0;

    for round in 0..rounds {
        let (is_over, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers: Vec<_> = written
            .drain(..)
            .enumerate()
            .map(|(number, so_far)| {
                let (is_over, progress) = (Arc::clone(&is_over), Arc::clone(&progress));
                start_writer(server.address(), number, so_far, is_over, progress)
            })
            .collect();
        // However slow the disk is just now.
        wait_until("writes are acknowledged", Duration::from_secs(30), || {
            progress.load(Ordering::Relaxed) > 0
        });
        thread::sleep(Duration::from_millis(random.u64(30..300)));
        server.kill();
        is_over.store(true, Ordering::Relaxed);
        written = writers.into_iter().map(|writer| writer.join().expect("a writer ends well")).collect();
        server.restart();
        check(&server, &written, round);
        let now: u64 = written.iter().map(|written| written.acknowledged).sum();
        assert!(now > acknowledged, "round {round}: nothing was acknowledged before the kill");
        acknowledged = now;
    }
    eprintln!("{acknowledged} acknowledged writes outlived {rounds} kills");
}

/// What one writer has asked for, and what it was told is done. Numbers only grow.
#[derive(Clone, Debug, Default)]
struct Written {
    counter: Claim,
    pair: Claim,
    creates_asked: u64,
    created: BTreeSet<u64>,
    acknowledged: u64,
}

#[derive(Clone, Debug, Default)]
struct Claim {
    asked: u64,
    acknowledged: u64,
}

fn start_writer(
    address: String,
    number: usize,
    mut written: Written,
    is_over: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
) -> JoinHandle<Written> {
    thread::spawn(move || {
        // The end of the connection is the end of the round for this writer.
        while !is_over.load(Ordering::Relaxed) {
            let _broken = RawClient::connect(&address, 10_000)
                .and_then(|mut client| write_until_broken(&mut client, number, &mut written, &progress));
        }
        written
    })
}

fn write_until_broken(
    client: &mut RawClient,
    number: usize,
    written: &mut Written,
    progress: &AtomicU64,
) -> io::Result<()> {
    loop {
        written.counter.asked += 1;
        let value = written.counter.asked.to_string();
        demand(client.set(&format!("/counter{number}"), value.as_bytes())?.error == 0)?;
        written.counter.acknowledged = written.counter.asked;

        written.pair.asked += 1;
        let value = written.pair.asked.to_string();
        let (left, right) = (format!("/left{number}"), format!("/right{number}"));
        demand(client.set_all(&[(&left, value.as_bytes()), (&right, value.as_bytes())])?)?;
        written.pair.acknowledged = written.pair.asked;

        written.creates_asked += 1;
        let path = format!("/list{number}/n{}", written.creates_asked);
        demand(client.create(&path, Some(path.as_bytes()), 0)?.error == 0)?;
        written.created.insert(written.creates_asked);
        written.acknowledged += 3;
        progress.fetch_add(3, Ordering::Relaxed);
    }
}

fn demand(is_done: bool) -> io::Result<()> {
    assert!(is_done, "the server refused a write");
    Ok(())
}

fn check(server: &Server, written: &[Written], round: u64) {
    let mut client = server.connect();
    for (number, written) in written.iter().enumerate() {
        let counter = read_number(&mut client, &format!("/counter{number}"));
        written.counter.expect(counter, &format!("round {round}, counter {number}"));

        let left = read_number(&mut client, &format!("/left{number}"));
        let right = read_number(&mut client, &format!("/right{number}"));
        assert_eq!(left, right, "round {round}: a transaction of writer {number} is half applied");
        written.pair.expect(left, &format!("round {round}, pair {number}"));

        let children = client.children(&format!("/list{number}")).expect("the server answers");
        let found: BTreeSet<u64> =
            children.iter().map(|name| name[1..].parse().expect("our own name")).collect();
        let lost: Vec<_> = written.created.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: creates of writer {number} are lost: {lost:?}");
        let made_up: Vec<_> = found.iter().filter(|name| **name > written.creates_asked).collect();
        assert!(made_up.is_empty(), "round {round}: nobody created {made_up:?} of writer {number}");
        if let Some(name) = children.last() {
            let path = format!("/list{number}/{name}");
            let data = client.get(&path).expect("the server answers");
            assert_eq!(data.as_deref(), Some(path.as_bytes()), "round {round}: {path} has other data");
        }
    }
    client.close().expect("the session is closed");
}

impl Claim {
    /// What was acknowledged is there; what is there was asked for.
    fn expect(&self, found: u64, what: &str) {
        assert!(
            (self.acknowledged..=self.asked).contains(&found),
            "{what}: found {found}, acknowledged {}, asked for {}",
            self.acknowledged,
            self.asked
        );
    }
}

fn read_number(client: &mut RawClient, path: &str) -> u64 {
    let data = client.get(path).expect("the server answers").unwrap_or_else(|| panic!("{path} is lost"));
    String::from_utf8_lossy(&data).parse().expect("a number was written")
}
