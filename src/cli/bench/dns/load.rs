//! The generator: sends queries when they are due, and takes what comes back, on one thread and without an allocation per query.
//!
//! ```text
//! round: send what is due ─► give up what is lost ─► wait for a socket or a time ─► receive what has come
//! ```

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::super::progress::{DRAW_EVERY, Progress};
use super::counts::Counts;
use super::line::{Line, Query, Received};
use super::pace::Pace;
use super::question::Question;
use crate::clock;

/// What it is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) server: SocketAddr,
    pub(super) sockets: usize,
    /// Queries unanswered at a time, on all sockets.
    pub(super) outstanding: usize,
    /// Queries per second, or as many as are answered.
    pub(super) rate: Option<u32>,
    pub(super) timeout: Duration,
}

/// A load on one server.
#[derive(Debug)]
pub(super) struct Load<'bench> {
    plan: Plan,
    lines: Vec<Line>,
    /// The line whose turn it is.
    turn: usize,
    questions: &'bench mut [Question],
    next_question: usize,
    pace: Pace,
    is_measuring: bool,
    counts: Counts,
    /// Answers so far, warm-up included: for the progress line.
    done: u64,
    next_give_up: Instant,
    packet: Vec<u8>,
    sleep: Pin<Box<Sleep>>,
}

/// Who shows how far it is, and hears when it is to stop.
#[derive(Debug)]
pub(super) struct Overseer<'bench> {
    pub(super) label: String,
    pub(super) stop: &'bench CancellationToken,
    pub(super) progress: &'bench mut Progress,
}

/// How a part of a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    InTime,
    /// The person has had enough.
    Interrupted,
}

impl<'bench> Load<'bench> {
    /// Opens the sockets.
    ///
    /// # Errors
    ///
    /// When there are no more to be had, or no way to the server.
    pub(super) async fn open(plan: Plan, questions: &'bench mut [Question]) -> io::Result<Self> {
        let mut lines = Vec::with_capacity(plan.sockets);
        for place in 0..plan.sockets {
            let more = usize::from(place < plan.outstanding % plan.sockets);
            lines.push(Line::open(plan.server, plan.outstanding / plan.sockets + more).await?);
        }
        let now = clock::now();
        Ok(Self {
            plan,
            lines,
            turn: 0,
            questions,
            next_question: 0,
            pace: Pace::starting(now, plan.rate),
            is_measuring: false,
            counts: Counts::new(),
            done: 0,
            next_give_up: now,
            packet: vec![0; PACKET_OCTETS_MAX],
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        })
    }

    /// Sends queries until `until`.
    pub(super) async fn run(&mut self, until: Instant, overseer: &mut Overseer<'_>) -> Ended {
        let began = clock::now();
        loop {
            self.send();
            let now = clock::now();
            self.give_up(now);
            if overseer.stop.is_cancelled() {
                return Ended::Interrupted;
            }
            if now >= until {
                return Ended::InTime;
            }
            let share = (now - began).as_secs_f64() / (until - began).as_secs_f64();
            overseer.progress.draw(now, &overseer.label, share, self.done);
            self.wait(now, until.min(now + DRAW_EVERY)).await;
            self.receive();
        }
    }

    /// From now on everything is counted. A rate begins anew, so that nothing of the warm-up is due still.
    pub(super) fn begin(&mut self, now: Instant) {
        self.pace = Pace::starting(now, self.plan.rate);
        self.counts = Counts::new();
        self.is_measuring = true;
    }

    /// Sends no more, waits until every query is answered or lost, and returns what was counted.
    pub(super) async fn finish(mut self, ended: Instant) -> Counts {
        self.counts.unsent = self.pace.unsent(ended);
        // Nobody waits for room in them any more.
        self.lines.iter_mut().for_each(|line| line.is_full = false);
        loop {
            self.receive();
            let now = clock::now();
            self.give_up(now);
            if self.lines.iter().all(|line| line.slots.is_idle()) {
                return self.counts;
            }
            self.wait_for_sockets(self.next_give_up).await;
        }
    }

    /// Sends what is due, as far as there is room for it, a bounded number at a time: answers come meanwhile.
    fn send(&mut self) {
        self.lines.iter_mut().for_each(|line| line.is_full = false);
        for _ in 0..BURST {
            // For each query by itself: a batch takes as long as some answers do.
            let now = clock::now();
            let due = self.pace.next_due(now);
            if due > now {
                return;
            }
            let Some(place) = self.line_with_room() else { return };
            if self.send_one(place, due, now) {
                self.turn = (place + 1) % self.lines.len();
            }
        }
    }

    /// Sends the next question on a line with room; `false` when the socket does not take it now.
    fn send_one(&mut self, place: usize, due: Instant, now: Instant) -> bool {
        let line = &mut self.lines[place];
        let query = Query { question: self.next_question, due, sent: now, is_measured: self.is_measuring };
        let id = line.slots.take(query).expect("the line has room");
        let packet = self.questions[self.next_question].with_id(id);
        let mut sent = line.socket.try_send(packet);
        if let Err(error) = &sent
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            // That was about an earlier query, which is lost; this one was not sent.
            self.counts.error(error);
            sent = line.socket.try_send(packet);
        }
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                line.slots.put_back(id);
                line.is_full = true;
                return false;
            }
            // It is lost, then: at its timeout, so that an error that stays does not take a processor.
            Err(error) => self.counts.error(&error),
            Ok(_octets) => {}
        }
        self.pace.sent();
        self.counts.asked += 1;
        self.next_question = (self.next_question + 1) % self.questions.len();
        true
    }

    /// The next line in turn that can take a query.
    fn line_with_room(&self) -> Option<usize> {
        let places = (self.turn..self.lines.len()).chain(0..self.turn);
        places.into_iter().find(|place| {
            let line = &self.lines[*place];
            line.slots.has_room() && !line.is_full
        })
    }

    /// Counts what has been out for too long, from time to time: answers are held to the exact timeout when they come.
    fn give_up(&mut self, now: Instant) {
        if now < self.next_give_up {
            return;
        }
        self.next_give_up = now + (self.plan.timeout / GIVE_UPS_PER_TIMEOUT).max(GIVE_UP_EVERY_MIN);
        for line in &mut self.lines {
            let lost = line.slots.give_up(now, self.plan.timeout);
            self.counts.lost += lost;
            // An ICMP message makes a socket neither readable nor writable.
            if lost > 0
                && let Ok(Some(error)) = line.socket.take_error()
            {
                self.counts.error(&error);
            }
        }
    }

    /// Takes what has come, a bounded number from each socket.
    fn receive(&mut self) {
        let Self { lines, questions, counts, packet, plan, done, is_measuring, .. } = self;
        for line in lines {
            for _ in 0..BATCH {
                let length = match line.socket.try_recv(packet) {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        counts.error(&error);
                        continue;
                    }
                };
                let now = clock::now();
                match line.slots.receive(&packet[..length], questions, now, plan.timeout) {
                    Received::Answer { query, code, is_truncated } => {
                        *done += 1;
                        if query.is_measured {
                            let latency = now.saturating_duration_since(query.due);
                            counts.answer(code, is_truncated, latency);
                        }
                    }
                    Received::Overdue { query } => {
                        counts.late += u64::from(query.is_measured);
                        counts.lost += u64::from(query.is_measured);
                    }
                    Received::Late => counts.late += u64::from(*is_measuring),
                    Received::Mismatch => counts.mismatched += u64::from(*is_measuring),
                }
            }
        }
    }

    /// Waits for an answer, for the next query to be due, or until `until`.
    async fn wait(&mut self, now: Instant, until: Instant) {
        let mut until = until.min(self.next_give_up);
        if self.line_with_room().is_some() {
            let wake = self.pace.next_due(now).checked_sub(TIMER_PRECISION).unwrap_or(now);
            if wake <= now {
                // A timer would be too late.
                tokio::task::yield_now().await;
                return;
            }
            until = until.min(wake);
        }
        self.wait_for_sockets(until).await;
    }

    async fn wait_for_sockets(&mut self, until: Instant) {
        let Self { lines, sleep, .. } = self;
        sleep.as_mut().reset(until.into());
        poll_fn(|context| {
            for line in lines.iter() {
                let is_ready = line.socket.poll_recv_ready(context).is_ready()
                    || (line.is_full && line.socket.poll_send_ready(context).is_ready());
                if is_ready {
                    return Poll::Ready(());
                }
            }
            sleep.as_mut().poll(context)
        })
        .await;
    }
}

/// The longest packet over UDP.
const PACKET_OCTETS_MAX: usize = 65_535;
/// Packets that are taken from a socket before the others have their turn, and queries are sent.
const BATCH: usize = 64;
/// Queries that are sent before answers are received.
const BURST: usize = 64;
/// The runtime's timers are of whole ms, rounded up.
const TIMER_PRECISION: Duration = Duration::from_millis(2);
/// How often lost queries are looked for: their slots are used again that much late at most.
const GIVE_UPS_PER_TIMEOUT: u32 = 20;
const GIVE_UP_EVERY_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::super::super::tally::as_f64;
    use super::super::counts::DnsFigures;
    use super::super::question::question_argument;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn every_query_is_answered_or_lost() {
        // Every third query gets no answer, and every fourth one that is of no use.
        let server = server(|number, query| match number % 12 {
            0 | 3 | 6 | 9 => Vec::new(),
            1 | 5 => query.to_vec(),
            _ => {
                let mut answer = query.to_vec();
                answer[2] |= 0x82;
                answer
            }
        })
        .await;
        let figures = measure(server, None, 300 * MS).await;
        assert!(figures.answered > 0 && figures.lost > 0 && figures.mismatched > 0, "{figures:?}");
        assert_eq!(figures.answered + figures.lost, figures.asked, "{figures:?}");
        assert_eq!(figures.codes.values().sum::<u64>(), figures.answered);
        assert_eq!(figures.truncated, figures.answered);
        assert!(figures.mismatched < figures.lost, "{figures:?}");
    }

    #[tokio::test]
    async fn a_rate_is_kept_and_latency_counts_from_when_a_query_was_due() {
        let server = server(|_, query| {
            let mut answer = query.to_vec();
            answer[2] |= 0x80;
            answer
        })
        .await;
        let figures = measure(server, Some(1_000), 500 * MS).await;
        let due = figures.elapsed.as_secs_f64() * 1_000.0;
        assert!((as_f64(figures.asked + figures.unsent) - due).abs() <= 1.0, "{figures:?}");
        assert!(figures.asked >= 300, "{figures:?}");
        assert_eq!((figures.answered + figures.lost, figures.mismatched), (figures.asked, 0), "{figures:?}");
    }

    #[tokio::test]
    async fn at_a_rate_what_is_due_waits_for_room() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = silent.local_addr().unwrap();
        let figures = measure(server, Some(10_000), 50 * MS).await;
        assert_eq!((figures.answered, figures.asked), (0, figures.lost), "{figures:?}");
        assert!(figures.unsent >= 400, "{figures:?}");
    }

    #[tokio::test]
    async fn nobody_at_the_port_is_told() {
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = gone.local_addr().unwrap();
        drop(gone);
        let figures = measure(server, None, 30 * MS).await;
        assert_eq!((figures.answered, figures.asked), (0, figures.lost), "{figures:?}");
        assert!(figures.socket_errors["connection refused"] > 0, "{figures:?}");
    }

    async fn measure(server: SocketAddr, rate: Option<u32>, time: Duration) -> DnsFigures {
        let asked = ["web.test", "db.test"].map(|text| question_argument(text).unwrap());
        let mut questions = asked.each_ref().map(|asked| Question::encode(asked, 1232).unwrap());
        let plan = Plan { server, sockets: 2, outstanding: 5, rate, timeout: 40 * MS };
        let mut load = Load::open(plan, &mut questions).await.unwrap();
        let (stop, mut progress) = (CancellationToken::new(), Progress::on_stderr());
        let mut overseer = Overseer { label: String::new(), stop: &stop, progress: &mut progress };
        let began = clock::now();
        load.begin(began);
        assert_eq!(load.run(began + time, &mut overseer).await, Ended::InTime);
        let ended = clock::now();
        load.finish(ended).await.figures(ended - began)
    }

    /// A server that sends back what `answer` makes of each query and its number, if anything.
    async fn server(answer: impl Fn(u64, &[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 512];
            for number in 0.. {
                let (length, client) = socket.recv_from(&mut packet).await.unwrap();
                let answer = answer(number, &packet[..length]);
                if !answer.is_empty() {
                    // Whoever asked may be gone.
                    let _sent = socket.send_to(&answer, client).await;
                }
            }
        });
        address
    }
}
