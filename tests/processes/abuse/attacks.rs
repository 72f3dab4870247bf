//! Who asks as nobody should, at a rate that leaves a server time for others: what no server can bear is no fault of it. Nor is it that
//! everybody is on one machine here: whoever abuses has only the processors that neither the server nor its client wants at the moment,
//! as if it were elsewhere.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use socket2::{Domain, Socket, Type};

use super::{CANARY, WIDE};
use crate::support::dns::{A, question};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    RandomPackets,
    CompressionLoops,
    FloodFromOneAddress,
    RandomTypes,
    SilentConnections,
    HalfSentFrames,
    SlowWriters,
    SlowReaders,
    SilentUpstream,
}

/// It goes on until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct Attack {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    kind: Kind,
    server: SocketAddr,
    is_over: AtomicBool,
    is_whole: AtomicBool,
    /// Packets or connections.
    count: AtomicUsize,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::RandomPackets,
        Self::CompressionLoops,
        Self::FloodFromOneAddress,
        Self::RandomTypes,
        Self::SilentConnections,
        Self::HalfSentFrames,
        Self::SlowWriters,
        Self::SlowReaders,
        Self::SilentUpstream,
    ];
}

impl Attack {
    pub(super) fn start(kind: Kind, port: u16) -> Self {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let (is_over, is_whole, count) =
            (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
        let shared = Arc::new(Shared { kind, server, is_over, is_whole, count });
        let run = Arc::clone(&shared);
        Self { shared, thread: Some(thread::spawn(move || run.run())) }
    }

    /// Whether it has done all that makes it what it is.
    pub(super) fn is_whole(&self) -> bool {
        self.shared.is_whole.load(Ordering::Acquire)
            || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, and says how much there was.
    pub(super) fn stop(mut self) -> String {
        self.end();
        let count = self.shared.count.load(Ordering::Relaxed);
        let what = match self.shared.kind {
            Kind::RandomPackets
            | Kind::CompressionLoops
            | Kind::FloodFromOneAddress
            | Kind::RandomTypes
            | Kind::SilentUpstream => "packets",
            Kind::SilentConnections | Kind::HalfSentFrames | Kind::SlowWriters | Kind::SlowReaders => {
                "connections"
            }
        };
        format!("{count} {what}")
    }

    fn end(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the abuse itself failed");
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self) {
        // Linux counts it for each thread by itself (setpriority(2), "C library/kernel differences").
        nice(LEAST_WANTED).expect("anybody may ask for less");
        let mut random = fastrand::Rng::with_seed(71);
        match self.kind {
            Kind::RandomPackets => self.send(PACKETS_PER_MS, || random_packet(&mut random)),
            Kind::CompressionLoops => self.send(PACKETS_PER_MS, || looping_packet(&mut random)),
            Kind::FloodFromOneAddress => self.send(PACKETS_PER_MS, || {
                question(random.u16(..), &format!("x{}.default.rollcall.internal", random.u32(..)), A, 1)
            }),
            // The name that others ask for, of which there is an answer to every type.
            Kind::RandomTypes => {
                self.send(PACKETS_PER_MS, || question(random.u16(..), CANARY, random.u16(..), 1))
            }
            Kind::SilentUpstream => {
                self.send(1, || question(random.u16(..), &format!("x{}.example.org", random.u32(..)), A, 1))
            }
            Kind::SilentConnections => self.hold(silent_connections(), &[]),
            Kind::HalfSentFrames => self.hold(CONNECTIONS, &framed(CANARY)[..9]),
            Kind::SlowWriters => self.trickle(),
            Kind::SlowReaders => self.hold(CONNECTIONS / 2, &framed(WIDE).repeat(WIDE_QUERIES)),
        }
    }

    fn send(&self, per_ms: usize, mut packet: impl FnMut() -> Vec<u8>) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
        self.is_whole.store(true, Ordering::Release);
        while !self.is_over.load(Ordering::Acquire) {
            for _ in 0..per_ms {
                let _refused = socket.send_to(&packet(), self.server);
            }
            self.count.fetch_add(per_ms, Ordering::Relaxed);
            thread::sleep(MS);
        }
    }

    /// Opens so many connections from several addresses, sends `octets` on each, and keeps them whatever the server does.
    fn hold(&self, connections: usize, octets: &[u8]) {
        let mut held = Vec::with_capacity(connections);
        for index in 0..connections {
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            let mut stream = self.connect(index);
            let _closed_or_full = stream.write(octets);
            held.push(stream);
            if index % CONNECTIONS_PER_MS == 0 {
                thread::sleep(MS);
            }
        }
        self.is_whole.store(true, Ordering::Release);
        while !self.is_over.load(Ordering::Acquire) {
            thread::sleep(MS);
        }
    }

    /// Sends octet by octet on many connections, and connects again where it is thrown out.
    fn trickle(&self) {
        let mut held: Vec<TcpStream> = Vec::new();
        let octets = framed(CANARY);
        let mut round = 0;
        while !self.is_over.load(Ordering::Acquire) {
            for index in 0..CONNECTIONS {
                if self.is_over.load(Ordering::Acquire) {
                    return;
                }
                if index == held.len() {
                    held.push(self.connect(index));
                }
                let stream = &mut held[index];
                let is_closed = match stream.read(&mut [0; 512]) {
                    Ok(0) => true,
                    Ok(_) => false,
                    Err(error) => error.kind() != ErrorKind::WouldBlock,
                };
                if is_closed || stream.write(&octets[round % octets.len()..][..1]).is_err() {
                    *stream = self.connect(index);
                }
                if index % CONNECTIONS_PER_MS == 0 {
                    thread::sleep(MS);
                }
            }
            round += 1;
            self.is_whole.store(true, Ordering::Release);
        }
    }

    fn connect(&self, index: usize) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be had");
        let last = u8::try_from(index % ADDRESSES).expect("few") + 1;
        let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        socket.bind(&own.into()).expect("all of 127.0.0.0/8 is ours");
        socket.connect_timeout(&self.server.into(), Duration::from_secs(20)).expect("it accepts");
        socket.set_nonblocking(true).expect("a mode can be set");
        self.count.fetch_add(1, Ordering::Relaxed);
        socket.into()
    }
}

/// Noise, or a question with a few octets changed, which gets further.
fn random_packet(random: &mut fastrand::Rng) -> Vec<u8> {
    if random.bool() {
        let mut packet = vec![0; random.usize(0..600)];
        random.fill(&mut packet);
        return packet;
    }
    let mut packet = question(random.u16(..), CANARY, A, 1);
    for _ in 0..random.usize(1..4) {
        let at = random.usize(2..packet.len());
        packet[at] = random.u8(..);
    }
    packet
}

/// A question and an additional record whose names point at themselves, at one another, or back through a long chain of pointers.
fn looping_packet(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut packet = question(random.u16(..), CANARY, A, 1);
    packet[11] = 1;
    match random.u8(0..3) {
        0 => packet[12..14].copy_from_slice(&[0xc0, 12]),
        1 => {
            let own = u8::try_from(packet.len()).expect("it is short");
            packet.extend([1, b'a', 0xc0, own]);
        }
        _ => {
            for _ in 0..400 {
                let before = u16::try_from(packet.len() - 2).expect("it is short") | 0xc000;
                packet.extend(before.to_be_bytes());
            }
        }
    }
    packet.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet
}

/// A question as it is sent over TCP.
fn framed(name: &str) -> Vec<u8> {
    let query = question(7, name, A, 1);
    [&u16::try_from(query.len()).expect("it is short").to_be_bytes()[..], &query].concat()
}

/// Ten thousand, or as many as this process may open.
fn silent_connections() -> usize {
    let missing = silent_connections_missing();
    if missing > 0 {
        eprintln!(
            "WARNING: only {} of {SILENT_CONNECTIONS} silent connections, since this process may open no more files (ulimit -n)",
            SILENT_CONNECTIONS - missing
        );
    }
    SILENT_CONNECTIONS - missing
}

/// How many of ten thousand this process may not open, when it has asked for all that it can have.
pub(super) fn silent_connections_missing() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _stays = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let open_max = getrlimit(Resource::Nofile).current.and_then(|open| usize::try_from(open).ok());
    open_max.map_or(0, |open| SILENT_CONNECTIONS.saturating_sub(open.saturating_sub(OTHER_FILES)))
}

const MS: Duration = Duration::from_millis(1);
const LEAST_WANTED: i32 = 19;
/// An unoptimised server takes ten times as long.
const PACKETS_PER_MS: usize = if cfg!(debug_assertions) { 2 } else { 20 };
const CONNECTIONS_PER_MS: usize = if cfg!(debug_assertions) { 4 } else { 10 };
const SILENT_CONNECTIONS: usize = 10_000;
/// What this process has open beside them, at most.
const OTHER_FILES: usize = 500;
/// More than one address may have.
const CONNECTIONS: usize = 600;
/// More answers than the buffers of both ends hold.
const WIDE_QUERIES: usize = 60;
/// Where they come from: 127.0.0.1, which is the client's, too, and others.
const ADDRESSES: usize = 8;
