//! A client who asks as applications do, beside others who ask as nobody should: he is answered, each time, about as soon as ever; and
//! when they are gone, nothing of them is left.
//!
//! Latencies depend on the machine, so that they are printed, and only held against a limit that is far above them: calm, then beside the
//! same abuse of a program that does nothing with it, where a client waits for whoever abuses has the processors, then beside it.
//! The long form of a program as it is shipped holds them against one another: beside abuse it may take three times as long as calm, or beside
//! the sink: `cargo test --release --test processes abuse -- --include-ignored --nocapture`.

mod attacks;
mod client;
mod sink;

use std::net::UdpSocket;
use std::time::Duration;

use self::attacks::{Attack, Kind, silent_connections_missing};
use self::client::{Client, Latencies};
use self::sink::Sink;
use crate::support::dns::{A, Header, ask_tcp, question};
use crate::support::process::resident_kb;
use crate::support::{Dev, Sidecar, wait_until};

#[test]
fn a_client_is_answered_beside_every_abuse_and_nothing_of_it_is_left() {
    beside_each(Duration::from_millis(1_200), Form::Short);
}

#[test]
#[ignore = "takes five minutes"]
fn a_client_is_answered_beside_every_abuse_for_long() {
    // It would show less than its name says.
    assert_eq!(silent_connections_missing(), 0, "connections that this process may not open (ulimit -n)");
    beside_each(Duration::from_secs(10), Form::Long);
}

/// How much is asked, and so how much its latencies tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Short,
    Long,
}

/// Whom all clients ask for.
const CANARY: &str = "rollcall.default.rollcall.internal";
/// A name with answers of some 13 KB.
const WIDE: &str = "wide.default.rollcall.internal";
const WIDE_ADDRESSES: u16 = 800;

fn beside_each(time: Duration, form: Form) {
    let (dev, world) = (Dev::start(None, &[]), World::start());
    let sidecar = world.sidecar(&dev);
    let port = sidecar.dns.number();
    wait_until_known(port, CANARY, 1);
    register_wide(&dev);
    wait_until_known(port, WIDE, WIDE_ADDRESSES);
    let mut client = Client::of(port);
    client.ask_for(time);
    let before = Usage::of(&sidecar);
    eprintln!(
        "times of answers: calm, beside the same abuse of a sink, beside it; resident memory and open files, {before:?} before"
    );
    for kind in Kind::ALL {
        let calm = client.ask_for(time);
        let sink = Sink::start();
        let of_sink = Attack::start(kind, sink.port());
        let aside = ask_beside(&mut client, &of_sink, time);
        of_sink.stop();
        drop(sink);
        let attack = Attack::start(kind, port);
        let beside = ask_beside(&mut client, &attack, time);
        let during = Usage::of(&sidecar);
        let told = attack.stop();
        let took = wait_until(&format!("nothing of {kind:?} is left"), Duration::from_secs(20), || {
            Usage::of(&sidecar).is_as(before)
        });
        tell(kind, [&calm, &aside, &beside], &format!("{told}; {during:?}, and as before after {took:?}"));
        let of =
            |latencies: &Latencies| [&latencies.udp, &latencies.tcp].map(|samples| samples.percentile(99));
        let (calm, aside, beside) = (of(&calm), of(&aside), of(&beside));
        for (place, what) in ["UDP", "TCP"].into_iter().enumerate() {
            let p99 = beside[place];
            let p99_max = p99_max(form, calm[place].max(aside[place]));
            assert!(p99 <= p99_max, "{p99:?} over {what} beside {kind:?}, more than {p99_max:?}");
        }
    }
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
}

/// Asks for at least that long, and until the abuse is all that it is.
fn ask_beside(client: &mut Client, attack: &Attack, time: Duration) -> Latencies {
    let mut latencies = client.ask_for(time);
    while !attack.is_whole() {
        latencies.extend(client.ask_for(time / 4));
    }
    latencies
}

fn wait_until_known(port: u16, name: &str, addresses: u16) {
    wait_until("the service is known", Duration::from_secs(20), || {
        let answer = ask_tcp(port, &question(1, name, A, 1), Duration::from_secs(1)).ok();
        answer.and_then(|answer| Header::parse(&answer)).is_some_and(|header| header.answers == addresses)
    });
}

/// A service whose answers are long, since its only instance has many addresses.
fn register_wide(dev: &Dev) {
    let addresses: Vec<_> =
        (0..WIDE_ADDRESSES).map(|place| format!("\"10.1.{}.{}\"", place / 250, place % 250)).collect();
    let record = format!(
        r#"{{"v":1,"addresses":[{}],"ports":[{{"name":"http","port":80,"protocol":"tcp"}}],"status":"up"}}"#,
        addresses.join(",")
    );
    let mut session = dev.connect();
    for (path, data) in [("wide", None), ("wide/wide-1", Some(record.as_bytes()))] {
        let path = format!("/rollcall/services/default/{path}");
        let reply = session.create(&path, data, 0).expect("the member answers");
        assert_eq!(reply.error, 0, "{path} is created");
    }
}

/// How long 99 of 100 answers may take at most beside an abuse, where they take `otherwise` without it or beside a sink.
fn p99_max(form: Form, otherwise: Duration) -> Duration {
    // Of the short form's hundred answers over TCP the 99th is the worst one, and an unoptimised server is slow by itself.
    if form == Form::Short || cfg!(debug_assertions) { P99_MAX } else { (otherwise * TIMES_MAX).max(NOISE) }
}

fn tell(kind: Kind, latencies: [&Latencies; 3], rest: &str) {
    let of_each = [("UDP", latencies.map(|of| &of.udp)), ("TCP", latencies.map(|of| &of.tcp))];
    for (transport, samples) in of_each {
        for percent in [50, 99] {
            let [calm, aside, beside] = samples.map(|of| of.percentile(percent));
            let [aside_ratio, ratio] = [aside, beside].map(|time| time.as_secs_f64() / calm.as_secs_f64());
            eprintln!(
                "{kind:?}, {transport}, p{percent}: {calm:?}, {aside:?}, {beside:?}: {aside_ratio:.1} and {ratio:.1} times"
            );
        }
    }
    eprintln!("    {rest}");
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Usage {
    resident_kb: u64,
    files: usize,
}

impl Usage {
    fn of(sidecar: &Sidecar) -> Self {
        let files = std::fs::read_dir(format!("/proc/{}/fd", sidecar.id())).expect("it runs").count();
        Self { resident_kb: resident_kb(sidecar.id()), files }
    }

    fn is_as(self, before: Self) -> bool {
        self.resident_kb < before.resident_kb + MORE_KB_MAX && self.files <= before.files + MORE_FILES_MAX
    }
}

/// An upstream that never answers.
struct World {
    silent: UdpSocket,
}

impl World {
    fn start() -> Self {
        Self { silent: UdpSocket::bind("127.0.0.1:0").expect("a socket can be had") }
    }

    fn sidecar(&self, dev: &Dev) -> Sidecar {
        let (dns, http) = (crate::support::Port::free(), crate::support::Port::free());
        let silent = self.silent.local_addr().expect("it has an address");
        let settings = format!(
            "dns: {{address: \"{}\", forward: {{upstreams: [\"{silent}\"]}}}}\nhttp: {{address: \"{}\"}}\n",
            dns.address(),
            http.address()
        );
        Sidecar::start_with(&dev.client.address(), &settings, [dns, http])
    }
}

/// Far more than any answer takes on a machine that is busy with other things.
const P99_MAX: Duration = Duration::from_millis(500);
/// How much longer an answer may take beside an abuse than without it.
const TIMES_MAX: u32 = 3;
/// What of a latency says nothing of the server: on a machine with few processors whoever is woken may wait for a turn of the scheduler, or
/// for two, of a millisecond or less each.
const NOISE: Duration = Duration::from_millis(2);
/// What the allocator may keep of what it had at most: the caches of unknown names, and what connections held for a moment.
const MORE_KB_MAX: u64 = 24 * 1024;
/// The client's own connections.
const MORE_FILES_MAX: usize = 4;
