//! Many clients and three members: what an ensemble's writes cost if nothing is done but to move and sync the bytes.
//!
//! ```text
//! clients ─ request ─► follower ─ request ─► leader ─ proposal ─► followers      each member has one thread for its sockets
//!         ◄─ reply ──          ◄─ commit ──         ◄─ ack ─────                 and one that syncs what has gathered
//! ```
//!
//! A write is committed once two of the three logs hold it; a log syncs as soon as it can, whatever has come until then. Messages
//! have a fixed length each and no meaning: no tree, no sessions, no checks, no failures.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use rollcall::clock;

use crate::{ACK_BYTES, Limit, Log, Measured, WRITE_REPLY_BYTES, WRITE_REQUEST_BYTES, connected};

/// The leader is the first.
const MEMBERS: usize = 3;
const WAKER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 256;
const READ_BYTES: usize = 64 << 10;

/// What members tell one another: a kind, and a number of eight bytes; a request and a proposal are as long as a client's request.
const REQUEST: u8 = 1;
const PROPOSAL: u8 = 2;
const ACK: u8 = 3;
const COMMIT: u8 = 4;

/// Measures writes of `connections` clients that each ask again as soon as they are answered.
pub(crate) fn crowd_floor(folder: &Path, connections: usize, limit: Limit) -> io::Result<Measured> {
    let mut members = (0..MEMBERS).map(Member::new).collect::<io::Result<Vec<_>>>()?;
    for follower in 1..MEMBERS {
        let (near, far) = connected()?;
        members[0].add_peer(near)?;
        members[follower].add_peer(far)?;
    }
    let mut clients = Vec::new();
    for index in 0..connections {
        let (near, far) = connected()?;
        members[index % MEMBERS].add_client(far)?;
        clients.push(Link::new(near)?);
    }
    let is_over = &AtomicBool::new(false);
    let wakers: Vec<_> = members.iter().map(|member| member.waker.clone()).collect();
    thread::scope(|scope| {
        let mut running = Vec::new();
        for member in &mut members {
            let (durable, waker) = (member.durable.clone(), member.waker.clone());
            let log = Log::create(&folder.join(format!("crowd-{connections}-{}", member.me)))?;
            let (appends, appended) = channel();
            running.push(scope.spawn(move || sync_what_gathers(log, &appended, &durable, &waker)));
            running.push(scope.spawn(move || member.serve(&appends, is_over)));
        }
        let measured = ask(&mut clients, limit);
        is_over.store(true, Ordering::Relaxed);
        for waker in wakers {
            waker.wake()?;
        }
        for thread in running {
            thread.join().expect("no thread of the floor panics")?;
        }
        measured
    })
}

/// The thread of a log: one write and one sync for all that has gathered.
fn sync_what_gathers(
    mut log: Log,
    appends: &Receiver<usize>,
    durable: &AtomicU64,
    waker: &Waker,
) -> io::Result<()> {
    while let Ok(first) = appends.recv() {
        let writes = first + appends.try_iter().sum::<usize>();
        log.append_and_sync(writes)?;
        durable.fetch_add(writes as u64, Ordering::Release);
        waker.wake()?;
    }
    Ok(())
}

/// One end of a connection, and what came in and has to go out.
struct Link {
    socket: TcpStream,
    inward: Vec<u8>,
    outward: Vec<u8>,
}

impl Link {
    fn new(socket: std::net::TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: TcpStream::from_std(socket), inward: Vec::new(), outward: Vec::new() })
    }

    fn register(&mut self, poll: &Poll, token: usize) -> io::Result<()> {
        poll.registry().register(&mut self.socket, Token(token), Interest::READABLE | Interest::WRITABLE)
    }

    /// Reads until the socket is empty; a read that is short says so.
    fn read(&mut self) -> io::Result<()> {
        let mut part = [0; READ_BYTES];
        loop {
            match self.socket.read(&mut part) {
                Ok(count) => {
                    self.inward.extend_from_slice(&part[..count]);
                    if count < part.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.outward.is_empty() {
            match self.socket.write(&self.outward) {
                Ok(count) => drop(self.outward.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn put(&mut self, kind: u8, number: u64, bytes: usize) {
        let start = self.outward.len();
        self.outward.push(kind);
        self.outward.extend_from_slice(&number.to_be_bytes());
        self.outward.resize(start + bytes, 0);
    }

    /// Takes what members have told.
    fn take_messages(&mut self) -> Vec<(u8, u64)> {
        let (mut messages, mut rest) = (Vec::new(), self.inward.as_slice());
        while let [kind, number @ ..] = rest
            && let bytes = if matches!(*kind, REQUEST | PROPOSAL) { WRITE_REQUEST_BYTES } else { ACK_BYTES }
            && rest.len() >= bytes
        {
            let number = number.first_chunk().expect("every message is longer than its head");
            messages.push((*kind, u64::from_be_bytes(*number)));
            rest = &rest[bytes..];
        }
        let taken = self.inward.len() - rest.len();
        self.inward.drain(..taken);
        messages
    }
}

/// A member: the leader, or a follower of it.
struct Member {
    me: usize,
    poll: Poll,
    waker: Arc<Waker>,
    durable: Arc<AtomicU64>,
    /// The followers, or the leader alone. Their tokens come behind the clients'.
    peers: Vec<Link>,
    clients: Vec<Link>,
    /// Whose the writes are that are logged and not committed: the member and the number of its client.
    waiting: VecDeque<u64>,
    /// How many writes each member's log holds, the leader's first; a follower only knows of its own.
    acked: [u64; MEMBERS],
    committed: u64,
    /// Writes for the log that it was not told of.
    unlogged: usize,
}

impl Member {
    fn new(me: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            me,
            poll,
            waker,
            durable: Arc::default(),
            peers: Vec::new(),
            clients: Vec::new(),
            waiting: VecDeque::new(),
            acked: [0; MEMBERS],
            committed: 0,
            unlogged: 0,
        })
    }

    fn add_peer(&mut self, socket: std::net::TcpStream) -> io::Result<()> {
        let mut link = Link::new(socket)?;
        link.register(&self.poll, FIRST_PEER + self.peers.len())?;
        self.peers.push(link);
        Ok(())
    }

    fn add_client(&mut self, socket: std::net::TcpStream) -> io::Result<()> {
        let mut link = Link::new(socket)?;
        link.register(&self.poll, self.clients.len())?;
        self.clients.push(link);
        Ok(())
    }

    fn serve(&mut self, log: &Sender<usize>, is_over: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !is_over.load(Ordering::Relaxed) {
            self.poll.poll(&mut events, None)?;
            for event in &events {
                match event.token() {
                    WAKER => self.on_durable(),
                    Token(token) if token >= FIRST_PEER => self.on_peer(token - FIRST_PEER)?,
                    Token(token) => self.on_client(token)?,
                }
            }
            if self.unlogged > 0 {
                // The log's thread ends behind this one.
                let _ = log.send(std::mem::take(&mut self.unlogged));
            }
            self.peers.iter_mut().chain(&mut self.clients).try_for_each(Link::write)?;
        }
        Ok(())
    }

    fn on_client(&mut self, client: usize) -> io::Result<()> {
        self.clients[client].read()?;
        while self.clients[client].inward.len() >= WRITE_REQUEST_BYTES {
            self.clients[client].inward.drain(..WRITE_REQUEST_BYTES);
            let whose = (self.me as u64) << 32 | client as u64;
            if self.is_leader() {
                self.propose(whose);
            } else {
                self.peers[0].put(REQUEST, whose, WRITE_REQUEST_BYTES);
            }
        }
        Ok(())
    }

    fn on_peer(&mut self, peer: usize) -> io::Result<()> {
        self.peers[peer].read()?;
        for (kind, number) in self.peers[peer].take_messages() {
            match kind {
                REQUEST => self.propose(number),
                PROPOSAL => self.append(number),
                ACK => {
                    self.acked[peer + 1] = number;
                    self.commit();
                }
                COMMIT => self.answer_up_to(number),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    fn propose(&mut self, whose: u64) {
        for follower in &mut self.peers {
            follower.put(PROPOSAL, whose, WRITE_REQUEST_BYTES);
        }
        self.append(whose);
    }

    fn append(&mut self, whose: u64) {
        self.waiting.push_back(whose);
        self.unlogged += 1;
    }

    fn on_durable(&mut self) {
        let durable = self.durable.load(Ordering::Acquire);
        if self.is_leader() {
            self.acked[0] = durable;
            self.commit();
        } else {
            self.peers[0].put(ACK, durable, ACK_BYTES);
        }
    }

    fn commit(&mut self) {
        let mut acked = self.acked;
        acked.sort_unstable();
        let agreed = acked[MEMBERS / 2];
        if agreed > self.committed {
            for follower in &mut self.peers {
                follower.put(COMMIT, agreed, ACK_BYTES);
            }
            self.answer_up_to(agreed);
        }
    }

    fn answer_up_to(&mut self, committed: u64) {
        for whose in self.waiting.drain(..usize::try_from(committed - self.committed).unwrap_or(usize::MAX)) {
            if whose >> 32 == self.me as u64 {
                let client = usize::try_from(whose & u64::from(u32::MAX)).unwrap_or(usize::MAX);
                self.clients[client].outward.resize(WRITE_REPLY_BYTES, 2);
            }
        }
        self.committed = committed;
    }

    const fn is_leader(&self) -> bool {
        self.me == 0
    }
}

/// Above any client's.
const FIRST_PEER: usize = 1 << 32;

/// Each client asks one thing after the other. What is unanswered in the end stays so; the sockets are the caller's to close.
fn ask(clients: &mut [Link], limit: Limit) -> io::Result<Measured> {
    let mut poll = Poll::new()?;
    let began = clock::now();
    let mut sent: Vec<Instant> = Vec::new();
    for (index, client) in clients.iter_mut().enumerate() {
        client.register(&poll, index)?;
        sent.push(clock::now());
        client.put(REQUEST, 0, WRITE_REQUEST_BYTES);
        client.write()?;
    }
    let mut latencies = Vec::new();
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let index = event.token().0;
            let client = &mut clients[index];
            client.read()?;
            if client.inward.len() < WRITE_REPLY_BYTES {
                continue;
            }
            client.inward.clear();
            let now = clock::now();
            latencies.push(now - sent[index]);
            sent[index] = now;
            client.put(REQUEST, 0, WRITE_REQUEST_BYTES);
            client.write()?;
        }
        let elapsed = clock::now() - began;
        if limit.is_reached(latencies.len(), elapsed) {
            return Ok(Measured { latencies, elapsed });
        }
    }
}
