//! Sessions of most of a service's instances expire at once: as long as they live, none of them disappears.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rollcall::clock;

use crate::support::dns::{A, Header, ask_udp, question};
use crate::support::process::Signal;
use crate::support::{Kind, Server, Sidecar, wait_until};

const INSTANCES: u8 = 10;
const LOST: usize = 8;
const LIMIT: Duration = Duration::from_secs(60);
/// How long it is looked on after the sessions have expired: beyond the brake's window, within which everything is offered on.
const LOOK: Duration = Duration::from_secs(12);

#[test]
fn none_of_the_living_disappears_and_the_dead_do_on_rollcall() {
    run(Kind::Rollcall);
}

#[test]
fn none_of_the_living_disappears_and_the_dead_do_on_apache() {
    run(Kind::Apache);
}

fn run(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let mut apps: Vec<_> = (1..=INSTANCES).map(App::start).collect();
    let mut writers: Vec<_> = apps.iter().map(|app| app.sidecar(&server.address())).collect();
    let reader = Sidecar::start(&server.address(), "");
    let all = u16::from(INSTANCES);
    wait_until("all are offered", LIMIT, || answers(&reader) == all);

    // 1. They live, and nobody hears of them.
    writers[..LOST].iter().for_each(|writer| writer.signal(Signal::STOP));
    let mut least = all;
    let lost = u64::try_from(LOST).expect("a few");
    wait_until("their sessions expire", LIMIT, || {
        least = least.min(answers(&reader));
        metric(&reader, "held_instances") == lost
    });
    let until = clock::now() + LOOK;
    while clock::now() < until {
        least = least.min(answers(&reader));
    }
    assert_eq!(least, all, "somebody who lives has disappeared; the log:\n{}", reader.log());
    assert_eq!(metric(&reader, "brake_engagements_total"), 1);
    assert!(metric(&reader, "probes_total") >= lost, "they were probed");
    let log = reader.log();
    assert!(log.contains("too many instances vanished at once"), "{log}");

    // 2. They are heard of again.
    writers[..LOST].iter().for_each(|writer| writer.signal(Signal::CONT));
    wait_until("they are registered again", LIMIT, || metric(&reader, "held_instances") == 0);
    assert_eq!(answers(&reader), all);

    // 3. They die, with their sidecars.
    for (app, writer) in apps[..LOST].iter_mut().zip(&mut writers) {
        writer.kill();
        app.stop();
    }
    let left = all - u16::try_from(LOST).expect("a few");
    wait_until("the dead are gone", LIMIT, || answers(&reader) == left);
    assert_eq!(metric(&reader, "held_instances"), 0, "they refused, which is the truth");
}

fn answers(reader: &Sidecar) -> u16 {
    let question = question(1, "web.default.rollcall.internal", A, 1);
    let answer = ask_udp(reader.dns.number(), &question, Duration::from_secs(1));
    answer.and_then(|answer| Header::parse(&answer)).map_or(0, |header| header.answers)
}

fn metric(reader: &Sidecar, name: &str) -> u64 {
    reader.metric(&format!("rollcall_registry_{name}")).unwrap_or_else(|| panic!("it does not tell {name}"))
}

/// What an instance is: something that accepts connections, on an address of its own.
struct App {
    address: Ipv4Addr,
    port: u16,
    is_over: Arc<AtomicBool>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl App {
    fn start(number: u8) -> Self {
        let address = Ipv4Addr::new(127, 0, 7, number);
        let listener = TcpListener::bind((address, 0)).expect("all of 127.0.0.0/8 is loopback");
        let port = listener.local_addr().expect("it is bound").port();
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let acceptor = thread::spawn(move || {
            for _connection in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self { address, port, is_over, acceptor: Some(acceptor) }
    }

    /// Refuses connections from now on.
    fn stop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _woken = std::net::TcpStream::connect((self.address, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("it ends well");
        }
    }

    fn sidecar(&self, member: &str) -> Sidecar {
        let (address, port) = (self.address, self.port);
        let check = "{kind: tcp, interval: 500ms, timeout: 400ms, jitter: 50ms, rise: 1}";
        let service = format!("{{name: web, address: {address}, port: {port}, checks: [{check}]}}");
        Sidecar::start(member, &format!("services: [{service}]\n"))
    }
}
