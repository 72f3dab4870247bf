//! The member is gone for a while, or comes back without its data: the sidecar answers from its view throughout, and repairs its registration
//! after.

mod samples;
mod whole_ensemble;

use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rollcall::clock;

use self::samples::{Ages, Sampler};
use crate::support::dns::{A, Header, ask_udp, question};
use crate::support::process::Signal;
use crate::support::{Kind, RawClient, Server, Sidecar, WebServer, http, wait_for, wait_until};

const OUTAGE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(60);
/// Of a member that is not ours, and hangs or lets the session expire: longer than a session lives, and the time of a test is short.
const SHORT_OUTAGE: Duration = Duration::from_secs(10);
/// The sidecar's, as `Sidecar::start` sets it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
/// By when a session that nobody keeps has expired: its timeout, two ticks of a member of ours, and some patience.
const EXPIRY: Duration = Duration::from_secs(4 + 2 * 2 + 2);
/// What the service has: one that is checked, and others at addresses of their own, so that half a registry would show.
const INSTANCES: u16 = 5;
const NAME: &str = "web.default.rollcall.internal";
const ZNODE: &str = "/rollcall/services/default/web/one";

#[test]
fn answers_go_on_while_a_rollcall_member_is_dead() {
    be_dead(Kind::Rollcall);
}

#[test]
fn answers_go_on_while_an_apache_member_is_dead() {
    be_dead(Kind::Apache);
}

fn be_dead(kind: Kind) {
    run(kind, OUTAGE, |server, _| {
        server.kill();
        thread::sleep(OUTAGE);
        server.restart();
    });
}

#[test]
fn answers_go_on_while_a_rollcall_member_hangs() {
    hang(Kind::Rollcall, OUTAGE);
}

#[test]
fn answers_go_on_while_an_apache_member_hangs() {
    hang(Kind::Apache, SHORT_OUTAGE);
}

/// A member that hangs keeps its sockets open; when it goes on, the session is overdue, or it is just saved by what the
/// sockets hold.
fn hang(kind: Kind, outage: Duration) {
    run(kind, outage, |server, _| {
        server.signal(Signal::STOP);
        thread::sleep(outage);
        server.signal(Signal::CONT);
    });
}

#[test]
fn answers_go_on_while_a_rollcall_member_lets_the_session_expire() {
    let_expire(Kind::Rollcall, OUTAGE);
}

#[test]
fn answers_go_on_while_an_apache_member_lets_the_session_expire() {
    let_expire(Kind::Apache, SHORT_OUTAGE);
}

/// The member goes on where the sidecar cannot reach it, until the session has expired: the registration is gone when it
/// is back.
fn let_expire(kind: Kind, outage: Duration) {
    let (before, after) = run(kind, outage, |server, folder| {
        server.kill();
        let away = clock::now();
        let elsewhere = Server::start(kind, folder);
        wait_until("the registration expires", OUTAGE, || look_for_owner(&elsewhere) == Some(None));
        drop(elsewhere);
        thread::sleep(outage.saturating_sub(clock::now() - away));
        server.restart();
    });
    assert_ne!(before, after, "nothing had to be repaired");
}

/// Returns the sessions that own the registration before and after `outage`, which takes as long as it says.
fn run(kind: Kind, length: Duration, outage: impl FnOnce(&mut Server, &Path)) -> (i64, i64) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let web = WebServer::start_on("127.0.0.1");
    let mut server = Server::start(kind, folder.path());
    let sidecar = start_sidecar(&server.address(), &web);
    wait_until("the sidecar answers", Duration::from_secs(30), || answers(&sidecar) == INSTANCES);
    let before = wait_for("the instance is registered", Duration::from_secs(30), || owner(&server));
    let sampler = Sampler::start(&sidecar);
    let ages = Ages::start(sidecar.http.number());

    outage(&mut server, folder.path());

    let repaired = wait_until("the registration is repaired", Duration::from_secs(30), || {
        owner(&server).is_some() && is_fresh(&sidecar)
    });
    // Whatever is left of the session before must not take the instance away when it expires.
    thread::sleep(EXPIRY);
    let after = wait_for("it answers", LIMIT, || look_for_owner(&server));
    let after = after.expect("the registration did not go with the session before");
    wait_until("the view is current", LIMIT, || is_fresh(&sidecar));
    let (samples, oldest) = (sampler.stop(), ages.stop());
    eprintln!(
        "{samples}, the oldest from a view of {oldest:?} ago; registration repaired {repaired:?} after the outage"
    );
    samples.expect_no_gap();
    assert!(samples.stale > 0, "no answer over DNS has told that it may be behind");
    // It takes a while until a member that hangs is noticed, and the view is as old as the outage then.
    assert!(oldest > length * 9 / 10, "it was told to be {oldest:?} old");
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
    (before, after)
}

#[test]
fn answers_go_on_while_a_rollcall_ensemble_comes_back_empty() {
    come_back_empty(Kind::Rollcall);
}

#[test]
fn answers_go_on_while_an_apache_ensemble_comes_back_empty() {
    come_back_empty(Kind::Apache);
}

/// The member's data are gone when it is back, at its old address: it refuses the sidecar, which has seen newer data than there are, until
/// that begins a new session.
fn come_back_empty(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let web = WebServer::start_on("127.0.0.1");
    // They are found alive when their records are gone.
    let others = (2..=INSTANCES).map(|number| {
        TcpListener::bind((format!("127.0.0.{number}"), web.port())).expect("the address is free")
    });
    let _others: Vec<_> = others.collect();
    let mut server = Server::start(kind, folder.path());
    write_much(&server);
    let sidecar = start_sidecar(&server.address(), &web);
    wait_until("the sidecar answers", Duration::from_secs(30), || answers(&sidecar) == INSTANCES);
    wait_for("the instance is registered", Duration::from_secs(30), || owner(&server));
    let sampler = Sampler::start(&sidecar);
    let ages = Ages::start(sidecar.http.number());

    server.kill();
    server.wipe();
    server.restart();

    // It is refused for two session timeouts first.
    let is_anew = || sidecar.log().contains("a new session is begun on what they have");
    let began = wait_until("a session is begun anew", SESSION_TIMEOUT * 2 * 10, is_anew);
    let registered = wait_until("the instance is registered again", Duration::from_secs(30), || {
        owner(&server).is_some() && is_fresh(&sidecar)
    });
    let (samples, oldest) = (sampler.stop(), ages.stop());
    eprintln!(
        "{samples}, the oldest from a view of {oldest:?} ago; a session begun {began:?} after the outage, and the instance registered \
         {registered:?} later"
    );
    samples.expect_no_gap();
    assert!(oldest > SESSION_TIMEOUT * 2 * 9 / 10, "it was told to be {oldest:?} old");
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
}

/// So much that a server without it is still behind when the sidecar has given up on its session.
fn write_much(server: &Server) {
    let mut client = server.connect();
    for number in 0..1_000 {
        let created = client.create(&format!("/filler-{number}"), None, 0).expect("it answers");
        assert_eq!(created.error, 0);
    }
    client.close().expect("it answers");
}

#[test]
fn a_sidecar_that_was_killed_takes_its_record_over_without_a_gap_on_rollcall() {
    take_over(Kind::Rollcall);
}

#[test]
fn a_sidecar_that_was_killed_takes_its_record_over_without_a_gap_on_apache() {
    take_over(Kind::Apache);
}

/// The other way around: the member lives, and the sidecar is killed and starts again with the identity that it kept.
fn take_over(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let web = WebServer::start_on("127.0.0.1");
    let server = Server::start(kind, folder.path());
    let reader = Sidecar::start(&server.address(), "");
    let mut sidecar = start_sidecar(&server.address(), &web);
    wait_until("another sidecar offers the instance", Duration::from_secs(30), || {
        sample(reader.dns.number()).is_some_and(|header| header.answers == INSTANCES)
    });
    let before = wait_for("it answers", LIMIT, || owner(&server));
    let sampler = Sampler::start(&reader);

    sidecar.restart();

    wait_until("the record has a new session", LIMIT, || owner(&server).is_some_and(|owner| owner != before));
    // The session before expires meanwhile, and takes nothing with it.
    thread::sleep(EXPIRY);
    let after = wait_for("it answers", LIMIT, || look_for_owner(&server));
    assert!(after.is_some(), "the registration went with the session before");
    let samples = sampler.stop();
    samples.expect_no_gap();
}

#[test]
fn a_sidecar_that_starts_without_a_rollcall_member_answers_from_its_saved_view() {
    start_without(Kind::Rollcall);
}

#[test]
fn a_sidecar_that_starts_without_an_apache_member_answers_from_its_saved_view() {
    start_without(Kind::Apache);
}

/// Both are gone, and the sidecar alone comes back: it answers from the view that it saved, unless that is damaged.
fn start_without(kind: Kind) {
    const SERVFAIL: u8 = 2;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let web = WebServer::start_on("127.0.0.1");
    let mut server = Server::start(kind, folder.path());
    let mut sidecar = start_sidecar(&server.address(), &web);
    wait_until("the sidecar answers", Duration::from_secs(30), || answers(&sidecar) == INSTANCES);
    let saved = sidecar.state_dir().join("view");
    let has_instance = || std::fs::read_to_string(&saved).is_ok_and(|text| text.contains("\"id\":\"one\""));
    // Where a save takes more than half a second, as on a disk that others sync, the next comes half a minute later.
    wait_until("the view is saved", Duration::from_secs(60), has_instance);
    server.kill();

    sidecar.restart();
    let took = wait_until("it answers", Duration::from_secs(10), || answers(&sidecar) == INSTANCES);
    eprintln!("answered {took:?} after the start");
    assert!(took < Duration::from_secs(1), "ten times what it may take: {took:?}");
    let service =
        http::get(sidecar.http.number(), "/api/v1/services/default/web").expect("it answers").json();
    assert_eq!(service["stale"], true, "{service}");
    assert!(service["age_ms"].is_u64(), "its age is known: {service}");

    let mut bytes = std::fs::read(&saved).expect("it is still there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&saved, bytes).expect("it can be written");
    sidecar.restart();
    wait_until("it says that it does not know", Duration::from_secs(10), || {
        sample(sidecar.dns.number()).is_some_and(|header| header.rcode == SERVFAIL)
    });
    assert!(sidecar.log().contains("it is damaged"), "{}", sidecar.log());

    server.restart();
    wait_until("it has read everything", Duration::from_secs(30), || {
        answers(&sidecar) == INSTANCES && is_fresh(&sidecar)
    });
}

/// The session that owns the instance's znode, when it is there and the server says so.
fn owner(server: &Server) -> Option<i64> {
    look_for_owner(server)?
}

/// The same; nothing when the server does not say.
fn look_for_owner(server: &Server) -> Option<Option<i64>> {
    const EXISTS: i32 = 3;
    const NO_NODE: i32 = -101;
    let mut client = RawClient::connect(&server.address(), 4_000).ok()?;
    let body = [crate::support::raw_client::text(ZNODE), vec![0]].concat();
    let reply = client.request(EXISTS, &body).ok()?;
    let _closed = client.close();
    if reply.error == NO_NODE {
        return Some(None);
    }
    let owner = reply.body.get(44..52).filter(|_| reply.error == 0)?;
    Some(Some(i64::from_be_bytes(owner.try_into().ok()?)))
}

fn start_sidecar(member: &str, web: &WebServer) -> Sidecar {
    let checked = format!("{{name: web, id: one, address: 127.0.0.1, port: {}}}", web.port());
    let others = (2..=INSTANCES).map(|number| {
        format!(
            "{{name: web, id: number-{number}, address: 127.0.0.{number}, port: {}, checks: []}}",
            web.port()
        )
    });
    let services: Vec<_> = [checked].into_iter().chain(others).collect();
    Sidecar::start(member, &format!("services: [{}]\n", services.join(", ")))
}

fn answers(sidecar: &Sidecar) -> u16 {
    sample(sidecar.dns.number()).map_or(0, |header| header.answers)
}

/// Whether it says that its view is current.
fn is_fresh(sidecar: &Sidecar) -> bool {
    http::get(sidecar.http.number(), "/api/v1/services/default/web")
        .is_ok_and(|answer| answer.status == 200 && answer.json()["stale"] == false)
}

fn sample(port: u16) -> Option<Header> {
    let answer = ask_udp(port, &question(1, NAME, A, 1), Duration::from_secs(1))?;
    Header::parse(&answer)
}
