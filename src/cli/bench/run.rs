//! One measurement of one workload on one ensemble: what its connections share.
//!
//! Everything runs on one thread, so that the generator takes at most one core from the servers and needs no locks.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Sleep, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::link::{Link, LinkError, Session};
use super::tally::Tally;
use crate::clock;

/// Connections that are being opened at a time: as many as servers accept in a row by custom.
const OPENING_MAX: usize = 64;
/// The pause before a connection is opened again after an error, doubled with each that fails in a row. Short, so that a
/// stall tells of the servers and not of us.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What the connections of a run share.
#[derive(Debug)]
pub(super) struct Run {
    servers: Vec<SocketAddr>,
    session_timeout: Duration,
    tally: RefCell<Tally>,
    /// Connections that have been open, be it that they were lost since.
    opened: Cell<usize>,
    opening: Semaphore,
    stop: CancellationToken,
    /// Told when a connection has been opened for the first time, and when the operations wanted are done.
    changed: Notify,
}

impl Run {
    pub(super) fn new(
        servers: Vec<SocketAddr>,
        session_timeout: Duration,
        count_wanted: Option<u64>,
    ) -> Self {
        Self {
            servers,
            session_timeout,
            tally: RefCell::new(Tally::new(count_wanted)),
            opened: Cell::new(0),
            opening: Semaphore::new(OPENING_MAX),
            stop: CancellationToken::new(),
            changed: Notify::new(),
        }
    }

    /// The counts. No borrow may live across an `.await`.
    pub(super) const fn tally(&self) -> &RefCell<Tally> {
        &self.tally
    }

    pub(super) fn complete(&self, now: Instant, latency: Duration) {
        let mut tally = self.tally.borrow_mut();
        tally.complete(now, latency);
        if tally.is_ended() {
            self.changed.notify_one();
        }
    }

    pub(super) fn fail(&self, what: &str, operations: usize) {
        self.tally.borrow_mut().fail(what, u64::try_from(operations).unwrap_or(u64::MAX));
    }

    /// Waits until something has changed that who watches over the run should look at.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) const fn opened(&self) -> usize {
        self.opened.get()
    }

    pub(super) fn note_opened(&self) {
        self.opened.set(self.opened.get() + 1);
        self.changed.notify_one();
    }

    /// Tells all connections to end.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Is cancelled when connections should end.
    pub(super) const fn stopped(&self) -> &CancellationToken {
        &self.stop
    }

    /// Opens a connection to the server at `place`, counted round.
    pub(super) async fn open(&self, place: usize, session: Session) -> Result<Link, LinkError> {
        let _permit = self.opening.acquire().await.expect("the semaphore is never closed");
        Link::open(self.servers[place % self.servers.len()], session).await
    }

    /// A session yet to be opened.
    pub(super) const fn new_session(&self) -> Session {
        Session::none(self.session_timeout)
    }

    /// Keeps a connection open and has `work` use it, which returns when the run stops or the connection fails. Then the next
    /// server is tried, with the same session, and the error is counted for every request that is lost with it.
    pub(super) async fn keep_open(
        &self,
        place: usize,
        mut work: impl AsyncFnMut(&mut Link) -> Result<(), LinkError>,
    ) {
        let (mut server, mut session, mut pause) = (place, self.new_session(), Pause::default());
        let mut was_open = false;
        loop {
            let opened = tokio::select! {
                () = self.stop.cancelled() => return,
                opened = self.open(server, session.clone()) => opened,
            };
            let error = match opened {
                Ok(mut link) => {
                    if !was_open {
                        was_open = true;
                        self.note_opened();
                    }
                    let Err(error) = work(&mut link).await else {
                        // What fails now expires by itself, and is no part of the measurement.
                        let _expires = link.close().await;
                        return;
                    };
                    pause = Pause::default();
                    session = link.session().clone();
                    self.fail(&error.to_string(), link.unanswered().max(1));
                    error
                }
                Err(error) => {
                    self.fail(&error.to_string(), 1);
                    error
                }
            };
            if matches!(error, LinkError::Expired) {
                session = self.new_session();
            }
            server += 1;
            pause.wait(&self.stop).await;
        }
    }
}

/// Waits for what comes in over one connection, and watches over the connection meanwhile.
#[derive(Debug)]
pub(super) struct Turns<'run> {
    stopped: Pin<Box<WaitForCancellationFuture<'run>>>,
    stop: &'run CancellationToken,
    check: Pin<Box<Sleep>>,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Bytes have come in.
    Received,
    /// The run stops.
    Stopped,
}

impl<'run> Turns<'run> {
    pub(super) fn new(run: &'run Run, link: &mut Link) -> Result<Self, LinkError> {
        let check_at = link.watch_over(clock::now())?;
        Ok(Self {
            stopped: Box::pin(run.stop.cancelled()),
            stop: &run.stop,
            check: Box::pin(sleep_until(check_at.into())),
        })
    }

    /// Sends what was submitted and waits. Losing this future loses nothing.
    pub(super) async fn next(&mut self, link: &mut Link) -> Result<Turn, LinkError> {
        loop {
            // Where bytes come in without a pause, nothing below would look.
            if self.stop.is_cancelled() {
                return Ok(Turn::Stopped);
            }
            tokio::select! {
                // Bytes are the common case; the others are looked at when there are none.
                biased;
                received = link.exchange() => return received.map(|()| Turn::Received),
                () = &mut self.stopped => return Ok(Turn::Stopped),
                () = &mut self.check => {
                    let check_at = link.watch_over(clock::now())?;
                    self.check.as_mut().reset(check_at.into());
                }
            }
        }
    }
}

/// Pauses that grow.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Pause {
    /// Waits, at least half of the pause that is due, or until stopped.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) {
        let pause = self.0.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(pause) => {}
        }
    }
}
