//! What the sidecar tells of an authority's zone is what the authority tells, and what Unbound tells that asks it, too.
//!
//! The authority is Knot DNS with a zone of some 700 names ([`zone`]). Everything is on loopback: Unbound asks the authority about
//! everything, which refuses what is not its own. Every question is asked over UDP and TCP, with EDNS and without, and again, when the sidecar has the answer.

mod zone;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use self::zone::Zone;
use crate::support::message::{CNAME, Message, Record, SOA, name_octets, query};
use crate::support::{KnotZone, Port, Process, Sidecar, dig, start_knot, wait_until};

const LIMIT: Duration = Duration::from_secs(20);
/// What Unbound has to say by then; the sidecar's clients are those of 5 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Manner {
    is_over_tcp: bool,
    edns_octets: Option<u16>,
}

const MANNERS: [Manner; 4] = [
    Manner { is_over_tcp: false, edns_octets: Some(1232) },
    Manner { is_over_tcp: false, edns_octets: None },
    Manner { is_over_tcp: true, edns_octets: Some(1232) },
    Manner { is_over_tcp: true, edns_octets: None },
];

type Told = BTreeMap<(usize, Manner), Message>;

#[test]
fn the_sidecar_the_authority_and_unbound_tell_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let zone = Zone::new();
    assert!(zone.names() >= 500, "{}", zone.names());
    let world = World::start(folder.path(), &zone.text, |_| Others::new());
    let questions: Vec<_> = zone.questions.iter().map(|(name, kind)| (name_octets(name), *kind)).collect();
    let ask = |port| {
        let questions = questions.clone();
        thread::spawn(move || ask_all(port, &questions))
    };
    let asking = world.servers().map(ask);
    let [authority, unbound, sidecar] = asking.map(|asking| asking.join().expect("all answer"));
    // The second time the sidecar has them.
    let again = ask_all(world.sidecar.dns.number(), &questions);
    let mut judge = Judge::new(&DIFFERENCES);
    for (at, theirs) in &authority {
        let (name, kind) = &zone.questions[at.0];
        for (who, theirs) in [(Who::Authority, theirs), (Who::Unbound, &unbound[at])] {
            for ours in [&sidecar[at], &again[at]] {
                judge.compare((name, *kind, at.1), (who, theirs), ours);
            }
        }
    }
    judge.sum_up();
    eprintln!(
        "{} names, {} questions, each asked in {} manners",
        zone.names(),
        questions.len(),
        MANNERS.len()
    );
    assert!(!world.sidecar.log().contains("panicked"), "{}", world.sidecar.log());
}

/// Who tells it otherwise than the sidecar, and means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Authority,
    Unbound,
}

/// Names about which the sidecar tells what another does not, on purpose; what differs; and why.
type Difference = (fn(&str) -> bool, Who, &'static [&'static str], &'static str);

const DIFFERENCES: [Difference; 4] = [
    (
        |name| hops(name) > 5,
        Who::Authority,
        &["other aliases", "cut or not"],
        "Knot follows five aliases and leaves the last one open; the sidecar asks for the rest, as Unbound does",
    ),
    (
        |name| hops(name) > 11,
        Who::Unbound,
        &["another code"],
        "Unbound follows eleven aliases and fails; the sidecar follows sixteen, and tells them where there are more",
    ),
    (
        |name| name.starts_with("lost-") && !name.starts_with("lost-outside"),
        Who::Unbound,
        &["another code"],
        "Unbound fails when aliases go round in a circle; the sidecar tells the circle, each once, as the authority does",
    ),
    (
        |name| name.starts_with("lost-outside"),
        Who::Authority,
        &["another code"],
        "what an alias stands for elsewhere the authority need not know; to those who asked for it it is a failure",
    ),
];

/// The same where domains have upstreams of their own.
const LAME_DIFFERENCES: [Difference; 1] = [(
    |name| name.starts_with("none."),
    Who::Unbound,
    &["another SOA"],
    "Unbound believes no SOA from above the domain for which it asks whom; the sidecar believes those of all zones above the name",
)];

/// How many aliases lead from a name of the zone to what is none.
fn hops(name: &str) -> usize {
    let mut words = name.split(['-', '.']);
    let mut number = || words.find_map(|word| word.parse::<usize>().ok()).unwrap_or(0);
    match name.split('-').next() {
        Some("chain") => number() - number(),
        Some("to") => number() + 1,
        _ => 0,
    }
}

/// Compares answers, and knows which may differ.
struct Judge {
    allowed: &'static [Difference],
    /// How often each of these was met.
    met: Vec<usize>,
    compared: usize,
    others: Vec<String>,
}

impl Judge {
    fn new(allowed: &'static [Difference]) -> Self {
        Self { allowed, met: vec![0; allowed.len()], compared: 0, others: Vec::new() }
    }

    fn compare(
        &mut self,
        (name, kind, manner): (&str, u16, Manner),
        (who, theirs): (Who, &Message),
        ours: &Message,
    ) {
        self.compared += 1;
        let question = [&name_octets(name)[..], &kind.to_be_bytes(), &[0, 1]].concat();
        let Some(difference) = compare(theirs, ours, &question, manner) else { return };
        let is_meant =
            |(is_name, of, what, _): &Difference| is_name(name) && *of == who && what.contains(&difference);
        match self.allowed.iter().position(is_meant) {
            Some(place) => self.met[place] += 1,
            None => self.others.push(format!(
                "{name} {kind} {manner:?}: {difference} than {who:?}\ntheirs: {theirs}\nours:   {ours}"
            )),
        }
    }

    /// Demands that nothing else differs, and that what is listed does.
    fn sum_up(self) {
        let shown = self.others.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(self.others.is_empty(), "{} of {} differ\n{shown}", self.others.len(), self.compared);
        for ((_, who, _, why), met) in self.allowed.iter().zip(self.met) {
            assert!(met > 0, "{who:?} tells the same by now, although {why}");
            eprintln!("{met} of {} answers are not those of {who:?}: {why}", self.compared);
        }
    }
}

/// What is otherwise than they have it.
fn compare(theirs: &Message, ours: &Message, question: &[u8], manner: Manner) -> Option<&'static str> {
    // QR, RD, RA; neither AA nor AD.
    let flags = ours.flags & !0x020f;
    if flags != 0x8180 {
        return Some("other flags");
    }
    if ours.question != question {
        return Some("another question");
    }
    if ours.has_edns != manner.edns_octets.is_some() {
        return Some("an OPT record or none");
    }
    if ours.rcode() != theirs.rcode() {
        return Some("another code");
    }
    if ours.is_truncated() != theirs.is_truncated() {
        return Some("cut or not");
    }
    if ours.is_truncated() {
        // How much of it fits is everybody's own.
        return None;
    }
    if of_kind(&ours.answers, CNAME) != of_kind(&theirs.answers, CNAME) {
        return Some("other aliases");
    }
    let (our_answers, their_answers) = (sorted(&ours.answers), sorted(&theirs.answers));
    if our_answers.iter().map(without_ttl).ne(their_answers.iter().map(without_ttl)) {
        return Some("other answers");
    }
    if our_answers.iter().zip(&their_answers).any(|(ours, theirs)| ours.ttl.abs_diff(theirs.ttl) > 60) {
        return Some("other TTLs");
    }
    (of_kind(&ours.authority, SOA) != of_kind(&theirs.authority, SOA)).then_some("another SOA")
}

/// Those of one type, in their order.
fn of_kind(records: &[Record], kind: u16) -> Vec<(&[u8], u16, u16, &[u8])> {
    records.iter().filter(|record| record.kind == kind).map(without_ttl).collect()
}

fn sorted(records: &[Record]) -> Vec<Record> {
    let mut records = records.to_vec();
    records.sort();
    records
}

fn without_ttl(record: &Record) -> (&[u8], u16, u16, &[u8]) {
    (&record.name, record.kind, record.class, &record.data)
}

/// Asks every question in every manner.
fn ask_all(port: u16, questions: &[(Vec<u8>, u16)]) -> Told {
    let mut client = Client::new(port);
    let mut told = Told::new();
    for manner in MANNERS {
        for (place, (name, kind)) in questions.iter().enumerate() {
            told.insert((place, manner), client.ask(name, *kind, manner));
        }
    }
    told
}

/// A client with one socket of each kind.
struct Client {
    port: u16,
    udp: UdpSocket,
    tcp: Option<TcpStream>,
    id: u16,
}

impl Client {
    fn new(port: u16) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
        udp.connect(("127.0.0.1", port)).expect("loopback can be reached");
        udp.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self { port, udp, tcp: None, id: 0 }
    }

    fn ask(&mut self, name: &[u8], kind: u16, manner: Manner) -> Message {
        self.id += 1;
        let packet = query(self.id, name, kind, manner.edns_octets);
        let octets = if manner.is_over_tcp {
            // A server may close a connection after so many questions.
            self.over_tcp(&packet).or_else(|| self.over_tcp(&packet)).expect("an answer over TCP")
        } else {
            self.over_udp(&packet)
        };
        let message = Message::read(&octets).unwrap_or_else(|| panic!("it cannot be read: {octets:?}"));
        assert_eq!(message.id, self.id);
        message
    }

    fn over_udp(&self, packet: &[u8]) -> Vec<u8> {
        let mut octets = vec![0; 65_535];
        self.udp.send(packet).expect("it can be sent");
        let length =
            self.udp.recv(&mut octets).unwrap_or_else(|error| panic!("{packet:?}: no answer ({error})"));
        octets.truncate(length);
        octets
    }

    fn over_tcp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut stream = self.tcp.take().or_else(|| {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_nodelay(true).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            Some(stream)
        })?;
        let length = u16::try_from(packet.len()).ok()?;
        stream.write_all(&[&length.to_be_bytes(), packet].concat()).ok()?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut octets = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut octets).ok()?;
        self.tcp = Some(stream);
        Some(octets)
    }
}

/// An authority, and those who ask it.
struct World {
    authority: Port,
    unbound: Port,
    sidecar: Sidecar,
    _processes: [Process; 2],
}

/// Who is asked for names below a domain, the authority aside, which is asked last.
type Others = BTreeMap<String, u16>;

impl World {
    fn start(folder: &Path, zone: &str, others: impl FnOnce(u16) -> Others) -> Self {
        let [authority, unbound] = [(); 2].map(|()| Port::free());
        let others = others(authority.number());
        let zone = KnotZone { domain: zone::APEX, text: zone, is_signed: false };
        let processes = [
            start_knot(folder, authority.number(), zone, |program| Command::new(program)),
            start_unbound(folder, unbound.number(), authority.number(), &others),
        ];
        let at = |port: u16| format!("\"127.0.0.1:{port}\"");
        let domains: Vec<_> = others
            .iter()
            .map(|(domain, port)| format!("{domain}: [{}, {}]", at(*port), at(authority.number())))
            .collect();
        let (dns, http) = (Port::free(), Port::free());
        let settings = format!(
            "dns:\n  address: \"{}\"\n  forward: {{upstreams: [{}], domains: {{{}}}, timeout: 300ms}}\nhttp: {{address: \"{}\"}}\n",
            dns.address(),
            at(authority.number()),
            domains.join(", "),
            http.address()
        );
        let sidecar = Sidecar::start_with("127.0.0.1:1", &settings, [dns, http]);
        for port in [authority.number(), unbound.number(), sidecar.dns.number()] {
            wait_until("it answers", LIMIT, || dig(port, &[zone::APEX, "SOA"]).status == "NOERROR");
        }
        Self { authority, unbound, sidecar, _processes: processes }
    }

    /// The ports of all three.
    fn servers(&self) -> [u16; 3] {
        [self.authority.number(), self.unbound.number(), self.sidecar.dns.number()]
    }
}

/// It forwards everything to the authority, and names below a domain to whoever else is there, so that nothing leaves the machine.
fn start_unbound(folder: &Path, port: u16, authority: u16, others: &Others) -> Process {
    let domains: String = others
        .iter()
        .map(|(domain, other)| {
            format!("forward-zone:\n  name: \"{domain}\"\n  forward-addr: 127.0.0.1@{other}\n  forward-addr: 127.0.0.1@{authority}\n")
        })
        .collect();
    let settings = format!(
        "server:\n  interface: 127.0.0.1\n  port: {port}\n  access-control: 127.0.0.0/8 allow\n\
         \x20 do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{folder}\"\n  pidfile: \"\"\n\
         \x20 use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  do-ip6: no\n\
         \x20 do-not-query-localhost: no\n  module-config: \"iterator\"\n  local-zone: \"test.\" nodefault\n\
         \x20 max-udp-size: 1232\n  edns-buffer-size: 1232\n\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \".\"\n  forward-addr: 127.0.0.1@{authority}\n{domains}",
        folder = folder.display(),
    );
    std::fs::write(folder.join("unbound.conf"), settings).expect("a file can be written");
    let program = "/usr/sbin/unbound";
    assert!(Path::new(program).exists(), "unbound is missing; install Debian's package unbound");
    Process::start("unbound", Command::new(program).arg("-d").arg("-c").arg(folder.join("unbound.conf")))
}

/// What is wrong with an upstream.
#[derive(Clone, Copy, Debug)]
enum Lame {
    /// It answers every question with this code.
    Code(u8),
    /// It tells what the authority tells, and that it is none.
    NotAuthoritative,
    /// It tells what the authority tells, late.
    Slow,
}

const LAMES: [(&str, Lame); 4] = [
    ("refused", Lame::Code(5)),
    ("failing", Lame::Code(2)),
    ("unsure", Lame::NotAuthoritative),
    ("slow", Lame::Slow),
];

/// Starts an upstream that lives as long as the process.
fn lame(lame: Lame, authority: u16) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    let port = socket.local_addr().expect("it has an address").port();
    thread::spawn(move || {
        let mut packet = [0; 2000];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            let (mut answer, socket) = (packet[..length].to_vec(), socket.try_clone().expect("a handle"));
            thread::spawn(move || {
                match lame {
                    Lame::Code(code) => {
                        answer[2] |= 0x80;
                        answer[3] = 0x80 | code;
                    }
                    Lame::NotAuthoritative => {
                        answer = Client::new(authority).over_udp(&answer);
                        answer[2] &= !0x04;
                    }
                    Lame::Slow => {
                        answer = Client::new(authority).over_udp(&answer);
                        thread::sleep(SLOW);
                    }
                }
                let _client_may_be_gone = socket.send_to(&answer, client);
            });
        }
    });
    port
}

#[test]
fn a_lame_or_slow_upstream_beside_a_good_one_keeps_no_answer_away() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let zone = Zone::new();
    let world = World::start(folder.path(), &zone.text, |authority| {
        let domain = |name: &str| format!("{name}.{}", zone::APEX.trim_end_matches('.'));
        LAMES.into_iter().map(|(name, kind)| (domain(name), lame(kind, authority))).collect()
    });
    let asked: Vec<_> = (0..zone.questions.len())
        .filter(|place| {
            let (name, _) = &zone.questions[*place];
            LAMES.iter().any(|(lame, _)| name.ends_with(&format!(".{lame}.{}", zone::APEX)))
        })
        .collect();
    assert!(asked.len() >= 5 * LAMES.len());
    // All at a time, since some of it takes a while.
    let asking: Vec<_> = asked
        .into_iter()
        .map(|place| {
            let (name, kind) = zone.questions[place].clone();
            let servers = world.servers();
            thread::spawn(move || {
                let octets = name_octets(&name);
                (name, kind, servers.map(|port| Client::new(port).ask(&octets, kind, MANNERS[0])))
            })
        })
        .collect();
    let mut judge = Judge::new(&LAME_DIFFERENCES);
    for asking in asking {
        let (name, kind, [authority, unbound, sidecar]) = asking.join().expect("all answer");
        for (who, theirs) in [(Who::Authority, &authority), (Who::Unbound, &unbound)] {
            judge.compare((&name, kind, MANNERS[0]), (who, theirs), &sidecar);
        }
    }
    judge.sum_up();
}

/// Longer than the sidecar waits for one alone, and short for Unbound.
const SLOW: Duration = Duration::from_millis(500);
