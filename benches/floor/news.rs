//! One change and many watchers: how soon all of them can have read it, if nothing is done but to move the bytes.
//!
//! ```text
//! three members ─ event ─► watcher        each member has one thread for its sockets, as all watchers together have
//!               ◄─ read ──
//!               ── reply ─►
//! ```
//!
//! Or the record comes with the event, and nobody reads, which the protocol of ZooKeeper does not have: what that would save.
//!
//! What a round takes is the time from the first event until the last watcher has the record. Nothing is parsed and nothing is kept.

use std::io::{self, Read, Write};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use rollcall::clock;

use crate::{Limit, Measured, connected};

const MEMBERS: usize = 3;
const WAKER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 256;
/// An event of a persistent recursive watch, a getData of the path, and its reply with a record.
const EVENT_BYTES: usize = 84;
const READ_BYTES: usize = 64;
const REPLY_BYTES: usize = 320;
/// From one round to the next, so that nothing of the last is left.
const PAUSE: Duration = Duration::from_millis(50);

/// How a watcher gets the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Read,
    WithTheEvent,
}

/// Measures rounds with so many watchers.
pub(crate) fn news_floor(watchers: usize, delivery: Delivery, limit: Limit) -> io::Result<Measured> {
    let mut members: Vec<Vec<TcpStream>> = (0..MEMBERS).map(|_member| Vec::new()).collect();
    let mut near_ends = Vec::new();
    for index in 0..watchers {
        let (near, far) = connected()?;
        far.set_nonblocking(true)?;
        near.set_nonblocking(true)?;
        members[index % MEMBERS].push(TcpStream::from_std(far));
        near_ends.push(TcpStream::from_std(near));
    }
    let (is_over, begin) = (&AtomicBool::new(false), &Barrier::new(MEMBERS + 1));
    let polls = (0..MEMBERS).map(|_member| Poll::new()).collect::<io::Result<Vec<_>>>()?;
    let wakers =
        polls.iter().map(|poll| Waker::new(poll.registry(), WAKER)).collect::<io::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let running: Vec<_> = members
            .into_iter()
            .zip(polls)
            .map(|(sockets, poll)| scope.spawn(move || serve(sockets, delivery, poll, begin, is_over)))
            .collect();
        begin.wait();
        let measured = watch(&mut near_ends, &wakers, limit);
        is_over.store(true, Ordering::Relaxed);
        wakers.iter().try_for_each(Waker::wake)?;
        for thread in running {
            thread.join().expect("no thread of the floor panics")?;
        }
        measured
    })
}

/// A member: sends all its watchers an event when it is woken, and answers what they ask.
fn serve(
    mut sockets: Vec<TcpStream>,
    delivery: Delivery,
    mut poll: Poll,
    begin: &Barrier,
    is_over: &AtomicBool,
) -> io::Result<()> {
    for (index, socket) in sockets.iter_mut().enumerate() {
        poll.registry().register(socket, Token(index), Interest::READABLE)?;
    }
    begin.wait();
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut request = [0; READ_BYTES];
    let event_bytes = match delivery {
        Delivery::Read => EVENT_BYTES,
        Delivery::WithTheEvent => REPLY_BYTES,
    };
    loop {
        poll.poll(&mut events, None)?;
        if is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        for event in &events {
            match event.token() {
                WAKER => sockets
                    .iter_mut()
                    .try_for_each(|socket| socket.write_all(&[1; REPLY_BYTES][..event_bytes]))?,
                // Messages are far shorter than what a socket takes, so that each comes and goes whole.
                Token(index) => {
                    sockets[index].read_exact(&mut request)?;
                    sockets[index].write_all(&[2; REPLY_BYTES])?;
                }
            }
        }
    }
}

/// The watchers, all of them on this thread.
fn watch(sockets: &mut [TcpStream], members: &[Waker], limit: Limit) -> io::Result<Measured> {
    let mut poll = Poll::new()?;
    for (index, socket) in sockets.iter_mut().enumerate() {
        poll.registry().register(socket, Token(index), Interest::READABLE)?;
    }
    let mut events = Events::with_capacity(EVENTS_MAX);
    let (mut part, mut latencies) = ([0; REPLY_BYTES], Vec::new());
    let mut elapsed = Duration::ZERO;
    while !limit.is_reached(latencies.len(), elapsed) {
        thread::sleep(PAUSE);
        let began = clock::now();
        members.iter().try_for_each(Waker::wake)?;
        let mut left = sockets.len();
        while left > 0 {
            poll.poll(&mut events, None)?;
            for event in &events {
                let socket = &mut sockets[event.token().0];
                match socket.read(&mut part)? {
                    EVENT_BYTES => socket.write_all(&[3; READ_BYTES])?,
                    REPLY_BYTES => left -= 1,
                    _ => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
        let round = clock::now() - began;
        elapsed += round + PAUSE;
        latencies.push(round);
    }
    Ok(Measured { latencies, elapsed })
}
