//! Sessions of most of a service's instances expire at once: as long as they live, none of them disappears.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use rollcall::clock;

use crate::support::dns::{A, Header, ask_udp, question};
use crate::support::process::Signal;
use crate::support::{Kind, Server, Sidecar, http, wait_until};

const INSTANCES: u8 = 10;
const LOST: usize = 8;
const LIMIT: Duration = Duration::from_secs(60);
/// How long it is looked on after the sessions have expired: beyond the brake's window, within which everything is offered on.
const LOOK: Duration = Duration::from_secs(12);
/// The longest from the death of a sidecar to the end of its session: its timeout and two ticks of a member of ours.
const EXPIRY: Duration = Duration::from_secs(4 + 2 * 2);
/// The longest that the ends of sessions wait for a disk that others sync, one after the other.
const DISK: Duration = Duration::from_secs(20);
/// Probes that may be made again, for want of something on our side.
const PROBES_TOO_MANY: u64 = 8;
/// By how much the first probes are spread.
const PROBE_SPREAD: Duration = Duration::from_millis(200);
/// From something known to the answer that goes by it.
const REACTION: Duration = Duration::from_millis(200);
/// Times that these may take where other processes have the processors.
const BUSY: u32 = 10;
/// The checks of the applications.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
const CHECK_JITTER: Duration = Duration::from_millis(50);
const FALL: u32 = 2;

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

    // 3. They die, with their sidecars. One probe of each tells the truth.
    let probes = metric(&reader, "probes_total");
    for (app, writer) in apps[..LOST].iter_mut().zip(&mut writers) {
        writer.kill();
        app.stop();
    }
    let left = all - u16::try_from(LOST).expect("a few");
    let limit = EXPIRY + DISK + BUSY * (PROBE_SPREAD + REACTION);
    let took = wait_until("the dead are gone", limit, || answers(&reader) == left);
    assert_eq!(metric(&reader, "held_instances"), 0, "they refused, which is the truth");
    let probes = metric(&reader, "probes_total") - probes;
    eprintln!("{kind:?}: the dead were gone {took:?} after their death, and {probes} probes");
    assert!((lost..=lost + PROBES_TOO_MANY).contains(&probes), "{probes} probes of {lost} dead");
}

#[test]
fn those_who_leave_in_order_or_fail_their_checks_are_out_at_once_on_rollcall() {
    leave_and_fail(Kind::Rollcall);
}

#[test]
fn those_who_leave_in_order_or_fail_their_checks_are_out_at_once_on_apache() {
    leave_and_fail(Kind::Apache);
}

/// Most of a service is gone within moments, and each of them has said so: there is nothing to doubt.
fn leave_and_fail(kind: Kind) {
    const LEAVING: usize = 3;
    const FAILING: usize = 5;
    const LEFT: u16 = 2;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let apps: Vec<_> = (1..=INSTANCES).map(App::start).collect();
    let mut writers: Vec<_> = apps.iter().map(|app| app.sidecar(&server.address())).collect();
    let reader = Sidecar::start(&server.address(), "");
    wait_until("all are offered", LIMIT, || answers(&reader) == u16::from(INSTANCES));

    writers[..LEAVING].iter().for_each(|writer| writer.signal(Signal::TERM));
    apps[LEAVING..LEAVING + FAILING].iter().for_each(App::fall_ill);
    let fall_time = FALL * (CHECK_INTERVAL + CHECK_JITTER);
    let took = wait_until("they are offered no more", BUSY * (fall_time + REACTION), || {
        assert_eq!(metric(&reader, "held_instances"), 0, "who said that it goes is held");
        answers(&reader) == LEFT
    });
    eprintln!("{kind:?}: those who left and failed were out after {took:?}");

    // The records of those who left are gone when their sidecars have ended.
    writers[..LEAVING].iter_mut().for_each(|writer| writer.expect_success(LIMIT));
    wait_until("their records are gone", LIMIT, || {
        assert_eq!(metric(&reader, "held_instances"), 0, "who said that it goes is held");
        known(&reader).len() == usize::from(INSTANCES) - LEAVING
    });
    assert_eq!(answers(&reader), LEFT);
    assert_eq!(metric(&reader, "brake_engagements_total"), 0);
    assert_eq!(metric(&reader, "probes_total"), 0, "there was something to ask");
}

/// Their hosts are gone, so to speak: nothing accepts or refuses connections, and nobody hears of them any more.
#[test]
fn the_silent_are_offered_last_for_half_a_minute() {
    const INSTANCES: u8 = 5;
    const SILENT: usize = 4;
    const SILENT_HOLD: Duration = Duration::from_secs(30);
    const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(Kind::Rollcall, folder.path());
    let mut apps: Vec<_> = (1..=INSTANCES).map(App::start).collect();
    let mut writers: Vec<_> = apps.iter().map(|app| app.sidecar(&server.address())).collect();
    let reader = Sidecar::start(&server.address(), "");
    wait_until("all are offered", LIMIT, || answers(&reader) == u16::from(INSTANCES));

    // Their listeners are full before anybody doubts them.
    writers[..SILENT].iter_mut().for_each(Sidecar::kill);
    let _unanswered: Vec<_> = apps[..SILENT].iter_mut().map(App::fall_silent).collect();
    let silent = u64::try_from(SILENT).expect("a few");
    let limit = EXPIRY + BUSY * (PROBE_SPREAD + PROBE_TIMEOUT + REACTION);
    wait_until("they are known to be silent", limit, || {
        known(&reader).iter().filter(|(_, standing)| standing == "silent").count() == SILENT
    });
    let silent_at = clock::now();
    assert_eq!(answers(&reader), 1, "the silent are offered beside one who lives");
    assert_eq!((metric(&reader, "held_instances"), metric(&reader, "brake_engagements_total")), (silent, 1));

    // Nobody else is there.
    writers[SILENT].signal(Signal::TERM);
    // That it leaves is written first, by a disk that others may sync.
    wait_until("the silent are offered", SILENT_HOLD / 2, || u64::from(answers(&reader)) == silent);
    let held = || metric(&reader, "held_instances");
    wait_until("they are given up", SILENT_HOLD + BUSY * REACTION, || held() == 0);
    let took = clock::now() - silent_at;
    eprintln!("the silent were given up after {took:?}");
    // Each has a time of its own, and the first was silent before the last.
    assert!(took > SILENT_HOLD - PROBE_SPREAD - PROBE_TIMEOUT, "{took:?}");
    assert_eq!(answers(&reader), 0);
}

/// The instances that the reader knows, with their standings.
fn known(reader: &Sidecar) -> Vec<(String, String)> {
    let answer = http::get(reader.http.number(), "/api/v1/services/default/web").expect("it answers").json();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let instances = answer["instances"].as_array().expect("a list").iter();
    instances.map(|instance| (text(&instance["id"]), text(&instance["standing"]))).collect()
}

fn answers(reader: &Sidecar) -> u16 {
    let question = question(1, "web.default.rollcall.internal", A, 1);
    let answer = ask_udp(reader.dns.number(), &question, Duration::from_secs(1));
    answer.and_then(|answer| Header::parse(&answer)).map_or(0, |header| header.answers)
}

fn metric(reader: &Sidecar, name: &str) -> u64 {
    reader.metric(&format!("rollcall_registry_{name}")).unwrap_or_else(|| panic!("it does not tell {name}"))
}

/// What an instance is: something that accepts connections, on an address of its own, and says how it is.
struct App {
    address: SocketAddr,
    /// What it answers.
    status: Arc<AtomicU16>,
    is_over: Arc<AtomicBool>,
    acceptor: Option<thread::JoinHandle<TcpListener>>,
}

impl App {
    fn start(number: u8) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::new(127, 0, 7, number), 0)).expect("all of 127.0.0.0/8 is loopback");
        let address = listener.local_addr().expect("it is bound");
        let (status, is_over) = (Arc::new(AtomicU16::new(200)), Arc::<AtomicBool>::default());
        let (said, end) = (Arc::clone(&status), Arc::clone(&is_over));
        let acceptor = thread::spawn(move || {
            loop {
                let accepted = listener.accept();
                if end.load(Ordering::Relaxed) {
                    return listener;
                }
                if let Ok((connection, _)) = accepted {
                    let _asker_may_be_gone = answer(connection, said.load(Ordering::Relaxed));
                }
            }
        });
        Self { address, status, is_over, acceptor: Some(acceptor) }
    }

    /// Goes on, and says from now on that it is not well.
    fn fall_ill(&self) {
        self.status.store(503, Ordering::Relaxed);
    }

    /// Refuses connections from now on.
    fn stop(&mut self) {
        drop(self.end());
    }

    /// Neither accepts connections nor refuses them, for as long as what is returned lives.
    fn fall_silent(&mut self) -> (TcpListener, Vec<TcpStream>) {
        let listener = self.end();
        let connect = || TcpStream::connect_timeout(&self.address, Duration::from_millis(50)).ok();
        let unanswered = std::iter::from_fn(connect).collect();
        (listener, unanswered)
    }

    /// Accepts no more.
    fn end(&mut self) -> TcpListener {
        self.is_over.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
        let acceptor = self.acceptor.take().expect("it ends once");
        acceptor.join().expect("it ends well")
    }

    fn sidecar(&self, member: &str) -> Sidecar {
        let (address, port) = (self.address.ip(), self.address.port());
        let (interval_ms, jitter_ms) = (CHECK_INTERVAL.as_millis(), CHECK_JITTER.as_millis());
        let check = format!(
            "{{kind: http, path: /, interval: {interval_ms}ms, timeout: 400ms, jitter: {jitter_ms}ms, rise: 1, fall: {FALL}}}"
        );
        let service = format!("{{name: web, address: {address}, port: {port}, checks: [{check}]}}");
        Sidecar::start(member, &format!("services: [{service}]\n"))
    }
}

/// Hears a request out, and answers with a status alone. Who only connects, as probes do, is heard out at once.
fn answer(mut connection: TcpStream, status: u16) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    let _request = connection.read(&mut [0; 4096])?;
    write!(connection, "HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    connection.shutdown(Shutdown::Write)
}
