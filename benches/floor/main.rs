//! What the machine itself allows: the same disk and loopback with nothing but blocking sockets and threads.
//!
//! ```text
//! write  client ─ request ─► leader ─ proposal ─► follower      the leader appends and syncs while the follower does;
//!               ◄─ reply ───        ◄─ ack ──────               it replies when both are done: one sync, two hops
//! echo   client ─ 80 bytes ─► server
//!               ◄─ 100 bytes ─
//! crowd  as write, with many clients and three members: see the module
//! news   three members ─ event ─► each of many watchers ─ read ─► member ─ reply ─►: until the last has it
//! ```
//!
//! One line each. With one connection, a write of an ensemble of three on this machine cannot be much faster than the
//! first, nor a read than the second; with many, writes cannot be much faster than the third, nor a change be seen by all
//! watchers sooner than the fourth.
//! `cargo bench --bench floor -- --seconds 10 --dir DATA_DIR` measures; without `--bench`, which cargo passes, each runs a
//! few times, to see that it works. With `--udp-echo` it serves instead, for `rollcall bench dns`: see that module.

mod crowd;
mod news;
mod udp_echo;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Parser;
use rollcall::clock;
use rustix::process::{Resource, getrlimit, setrlimit};

use self::news::Delivery;

/// What stands in the log for a write: a setData of 100 bytes with its header and checksum comes to that.
const LOG_BYTES: usize = 150;
/// As Apache ZooKeeper's preAllocSize.
const LOG_STEP_BYTES: u64 = 64 << 20;
/// A setData of 100 bytes, and a getData; their replies carry a stat.
const WRITE_REQUEST_BYTES: usize = 160;
const WRITE_REPLY_BYTES: usize = 88;
const ACK_BYTES: usize = 20;
const READ_REQUEST_BYTES: usize = 80;
const READ_REPLY_BYTES: usize = 100;
/// When only the working is of interest.
const TRIAL_OPS: u32 = 5;
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Arguments {
    /// How long each is measured, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Folder for the two logs; should be on the disk of the servers' data [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Clients of the crowd
    #[arg(long, default_values_t = [16, 64], value_delimiter = ',')]
    connections: Vec<usize>,
    /// Watchers of the news
    #[arg(long, default_values_t = [100, 1_000], value_delimiter = ',')]
    watchers: Vec<usize>,
    /// Only send DNS queries back as answers, on this port of loopback or a free one, until ended
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "0")]
    udp_echo: Option<u16>,
    /// Passed by `cargo bench`: measure, instead of trying
    #[arg(long)]
    bench: bool,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.udp_echo {
        return udp_echo::serve(port);
    }
    let limit = if arguments.bench {
        Limit::Time(Duration::from_secs_f64(arguments.seconds))
    } else {
        Limit::Ops(TRIAL_OPS)
    };
    let folder = match &arguments.dir {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let written = write_floor(folder.path(), limit)?;
    let echoed = echo_floor(limit)?;
    report("write floor (one sync, two hops)", &written);
    report("echo floor (80 and 100 bytes)", &echoed);
    for connections in arguments.connections {
        let crowd = crowd::crowd_floor(folder.path(), connections, limit)?;
        report(&format!("crowd floor ({connections} connections, three members)"), &crowd);
    }
    raise_file_limit()?;
    for watchers in arguments.watchers {
        // Both ends of each connection are here.
        for (delivery, how) in [(Delivery::Read, "each reads"), (Delivery::WithTheEvent, "nobody reads")] {
            let news = news::news_floor(watchers, delivery, limit)?;
            report(&format!("news floor ({watchers} watchers, three members, {how})"), &news);
        }
    }
    Ok(())
}

/// Both ends of a thousand connections are more files than some systems allow at first.
fn raise_file_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Ops(u32),
    Time(Duration),
}

impl Limit {
    fn is_reached(self, ops: usize, elapsed: Duration) -> bool {
        match self {
            Self::Ops(limit) => ops >= limit as usize,
            Self::Time(limit) => elapsed >= limit,
        }
    }
}

/// How long each operation took, and all of them together.
struct Measured {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

fn write_floor(folder: &Path, limit: Limit) -> io::Result<Measured> {
    let (leader_end, follower_end) = connected()?;
    let (client_end, serving_end) = connected()?;
    let (leader_log, follower_log) =
        (Log::create(&folder.join("leader"))?, Log::create(&folder.join("follower"))?);
    thread::scope(|scope| {
        let follower = scope.spawn(|| follow(follower_end, follower_log));
        let leader = scope.spawn(|| lead(serving_end, leader_end, leader_log));
        let latencies = ask::<WRITE_REQUEST_BYTES, WRITE_REPLY_BYTES>(client_end, limit);
        leader.join().expect("the leader does not panic")?;
        follower.join().expect("the follower does not panic")?;
        latencies
    })
}

fn lead(mut client: TcpStream, mut follower: TcpStream, mut log: Log) -> io::Result<()> {
    let (mut request, mut ack) = ([0; WRITE_REQUEST_BYTES], [0; ACK_BYTES]);
    while receive(&mut client, &mut request)? {
        follower.write_all(&request)?;
        log.append_and_sync(1)?;
        follower.read_exact(&mut ack)?;
        client.write_all(&[2; WRITE_REPLY_BYTES])?;
    }
    Ok(())
}

fn follow(mut leader: TcpStream, mut log: Log) -> io::Result<()> {
    let mut proposal = [0; WRITE_REQUEST_BYTES];
    while receive(&mut leader, &mut proposal)? {
        log.append_and_sync(1)?;
        leader.write_all(&[3; ACK_BYTES])?;
    }
    Ok(())
}

/// A log that is as cheap to sync as can be: its length is set in steps, so that most syncs change no metadata.
struct Log {
    file: File,
    written: u64,
    length: u64,
}

impl Log {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create_new(path)?, written: 0, length: 0 })
    }

    fn append_and_sync(&mut self, writes: usize) -> io::Result<()> {
        let batch = vec![1; LOG_BYTES * writes];
        self.written += batch.len() as u64;
        if self.written > self.length {
            self.length += LOG_STEP_BYTES;
            self.file.set_len(self.length)?;
        }
        self.file.write_all(&batch)?;
        self.file.sync_data()
    }
}

fn echo_floor(limit: Limit) -> io::Result<Measured> {
    let (client_end, mut serving_end) = connected()?;
    thread::scope(|scope| {
        let server = scope.spawn(move || -> io::Result<()> {
            let mut request = [0; READ_REQUEST_BYTES];
            while receive(&mut serving_end, &mut request)? {
                serving_end.write_all(&[4; READ_REPLY_BYTES])?;
            }
            Ok(())
        });
        let latencies = ask::<READ_REQUEST_BYTES, READ_REPLY_BYTES>(client_end, limit);
        server.join().expect("the server does not panic")?;
        latencies
    })
}

/// Asks one thing after the other; the connection's end tells the server that it was the last.
fn ask<const REQUEST_BYTES: usize, const REPLY_BYTES: usize>(
    mut server: TcpStream,
    limit: Limit,
) -> io::Result<Measured> {
    let mut reply = [0; REPLY_BYTES];
    let mut latencies = Vec::new();
    let began = clock::now();
    let mut sent = began;
    loop {
        server.write_all(&[5; REQUEST_BYTES])?;
        server.read_exact(&mut reply)?;
        let now = clock::now();
        latencies.push(now - sent);
        let elapsed = now - began;
        if limit.is_reached(latencies.len(), elapsed) {
            return Ok(Measured { latencies, elapsed });
        }
        sent = now;
    }
}

/// Reads a message; `false` when there is none any more.
fn receive(peer: &mut TcpStream, message: &mut [u8]) -> io::Result<bool> {
    if peer.read(&mut message[..1])? == 0 {
        return Ok(false);
    }
    peer.read_exact(&mut message[1..])?;
    Ok(true)
}

/// The two ends of a connection over loopback.
fn connected() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PEER_TIMEOUT))?;
    }
    Ok((near, far))
}

#[expect(clippy::print_stdout, reason = "its result")]
fn report(name: &str, measured: &Measured) {
    let mut latencies = measured.latencies.clone();
    latencies.sort_unstable();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let percentile = |percent: usize| latencies[(latencies.len() * percent).div_ceil(100) - 1];
    let ops_per_second = latencies.len() as f64 / measured.elapsed.as_secs_f64();
    println!(
        "{name}: {} ops, {ops_per_second:.0} ops/s, p50 {:.1} us, p99 {:.1} us",
        latencies.len(),
        us(percentile(50)),
        us(percentile(99))
    );
}
