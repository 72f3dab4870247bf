//! One socket, and the queries that are unanswered on it.
//!
//! The low bits of an id are the slot that its query takes, the others count how often the slot was used: so an answer finds its
//! query without a search, and one that comes after its query was lost does not pass for an answer to the next.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::question::{HEADER_OCTETS, Question};

/// Slots of one socket: two bits of an id at least are for their uses.
pub(super) const SLOTS_MAX: usize = 1 << 14;
/// For the answers to some thousand queries at once, where the system lets us have it.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// A connected socket and its queries.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: UdpSocket,
    pub(super) slots: Slots,
    /// Whether the socket took no more the last time.
    pub(super) is_full: bool,
}

impl Line {
    /// # Errors
    ///
    /// When there is no socket to be had, or no way to `server`.
    pub(super) async fn open(server: SocketAddr, slots: usize) -> io::Result<Self> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        // With less, what does not fit is lost, and counted so.
        let _smaller = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        Ok(Self { socket, slots: Slots::new(slots), is_full: false })
    }
}

/// The queries of a socket.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// The bits of an id that are its slot.
    mask: u16,
}

/// A query, or room for one.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Of the query, or of the last one.
    id: u16,
    query: Option<Query>,
    /// Of the last one that was lost, until its answer comes after all.
    lost_id: Option<u16>,
}

/// A query that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Its place among the questions.
    pub(super) question: usize,
    /// Latency counts from here.
    pub(super) due: Instant,
    /// The timeout counts from here.
    pub(super) sent: Instant,
    /// Whether it was asked within the measurement.
    pub(super) is_measured: bool,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The answer to a query, with its response code.
    Answer { query: Query, code: u8, is_truncated: bool },
    /// The answer to a query that has just been found lost.
    Overdue { query: Query },
    /// The answer to a query that was lost before.
    Late,
    /// No response to a query, or of an id that is not out, or to another question.
    Mismatch,
}

impl Slots {
    /// Room for `count` queries, at most [`SLOTS_MAX`].
    pub(super) fn new(count: usize) -> Self {
        assert!((1..=SLOTS_MAX).contains(&count), "the arguments were checked");
        let free: Vec<u16> = (0..count).rev().map(to_u16).collect();
        let slots = (0..count).map(|slot| Slot { id: to_u16(slot), query: None, lost_id: None }).collect();
        Self { slots, free, mask: to_u16(count.next_power_of_two() - 1) }
    }

    pub(super) const fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Takes a slot for a query and returns the id to send it with; `None` without room.
    pub(super) fn take(&mut self, query: Query) -> Option<u16> {
        let place = self.free.pop()?;
        let slot = &mut self.slots[usize::from(place)];
        slot.id = slot.id.wrapping_add(self.mask.wrapping_add(1));
        slot.query = Some(query);
        Some(slot.id)
    }

    /// Makes room again where the query with `id` was not sent after all.
    pub(super) fn put_back(&mut self, id: u16) {
        let place = id & self.mask;
        self.slots[usize::from(place)].query = None;
        self.free.push(place);
    }

    /// Finds what `packet` answers, and makes room if its query has been waiting for it.
    pub(super) fn receive(
        &mut self,
        packet: &[u8],
        questions: &[Question],
        now: Instant,
        timeout: Duration,
    ) -> Received {
        let Some(header) = Header::of_response(packet) else { return Received::Mismatch };
        let place = header.id & self.mask;
        let Some(slot) = self.slots.get_mut(usize::from(place)) else { return Received::Mismatch };
        let query = match slot.query {
            Some(query) if slot.id == header.id => query,
            Some(_) | None if slot.lost_id == Some(header.id) => {
                slot.lost_id = None;
                return Received::Late;
            }
            Some(_) | None => return Received::Mismatch,
        };
        if !header.fits(&questions[query.question], packet) {
            return Received::Mismatch;
        }
        slot.query = None;
        self.free.push(place);
        if query.is_over(now, timeout) {
            return Received::Overdue { query };
        }
        Received::Answer { query, code: header.code, is_truncated: header.is_truncated }
    }

    /// Gives up the queries that have been out for `timeout`, and returns how many of them were measured.
    pub(super) fn give_up(&mut self, now: Instant, timeout: Duration) -> u64 {
        let mut lost = 0;
        for (place, slot) in (0..).zip(&mut self.slots) {
            if let Some(query) = slot.query.take_if(|query| query.is_over(now, timeout)) {
                slot.lost_id = Some(slot.id);
                self.free.push(place);
                lost += u64::from(query.is_measured);
            }
        }
        lost
    }
}

impl Query {
    fn is_over(&self, now: Instant, timeout: Duration) -> bool {
        now.saturating_duration_since(self.sent) >= timeout
    }
}

/// What the header of a response says (RFC 1035, 4.1.1).
struct Header {
    id: u16,
    questions: u16,
    code: u8,
    is_truncated: bool,
}

impl Header {
    /// `None` when the packet is too short, or no response to a standard query.
    fn of_response(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<HEADER_OCTETS>()?;
        let (is_response, operation) = (header[2] & 0x80 != 0, header[2] & 0x78);
        (is_response && operation == 0).then(|| Self {
            id: u16::from_be_bytes([header[0], header[1]]),
            questions: u16::from_be_bytes([header[4], header[5]]),
            code: header[3] & 0x0f,
            is_truncated: header[2] & 0x02 != 0,
        })
    }

    /// Whether it is of an answer to this question. A server that could not read the query, or refuses it, may leave it out.
    fn fits(&self, question: &Question, packet: &[u8]) -> bool {
        match self.questions {
            0 => !matches!(self.code, NOERROR | NXDOMAIN),
            1 => question.is_in(packet),
            _ => false,
        }
    }
}

const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

fn to_u16(place: usize) -> u16 {
    u16::try_from(place).expect("below the most slots")
}

#[cfg(test)]
mod tests {
    use super::super::question::question_argument;
    use super::*;
    use crate::clock;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_finds_its_query_and_makes_room() {
        let mut world = World::new(3);
        let ids: Vec<_> = (0..3).map(|_| world.ask(0)).collect();
        assert_eq!(world.slots.take(world.query(0)), None);
        let answer = world.answer(ids[1], 0);
        let Received::Answer { query, code, is_truncated } = world.receive(&answer) else {
            panic!("no answer")
        };
        assert_eq!((query.question, code, is_truncated), (0, 0, false));
        assert!(world.slots.has_room() && !world.slots.is_idle());
        assert_eq!(world.receive(&answer), Received::Mismatch, "it was answered");
        assert_ne!(world.ask(0), ids[1]);
        assert_eq!(world.receive(&answer), Received::Mismatch, "it is not the new one's");
    }

    #[test]
    fn code_and_truncation_are_told() {
        let mut world = World::new(1);
        let id = world.ask(0);
        let mut answer = world.answer(id, 0);
        answer[2] |= 0x02;
        answer[3] |= 3;
        assert!(matches!(world.receive(&answer), Received::Answer { code: 3, is_truncated: true, .. }));
    }

    #[test]
    fn what_does_not_fit_leaves_the_query_waiting() {
        let mut world = World::new(1);
        let id = world.ask(0);
        let good = world.answer(id, 0);
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = good.clone();
            change(&mut packet);
            packet
        };
        for (what, packet) in [
            ("a query", changed(&|packet| packet[2] &= 0x7f)),
            ("another operation", changed(&|packet| packet[2] |= 0x28)),
            ("another id", changed(&|packet| packet[0] ^= 0x40)),
            ("another question", world.answer(id, 1)),
            ("two questions", changed(&|packet| packet[5] = 2)),
            ("no question and no error", changed(&|packet| packet[5] = 0)),
            ("a cut question", good[..good.len() - 1].to_vec()),
            ("no header", good[..11].to_vec()),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(world.receive(&packet), Received::Mismatch, "{what}");
        }
        assert!(matches!(world.receive(&good), Received::Answer { .. }));
    }

    #[test]
    fn a_refusal_may_leave_out_the_question() {
        let mut world = World::new(1);
        let id = world.ask(0);
        let [high, low] = id.to_be_bytes();
        let refused = [high, low, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(world.receive(&refused), Received::Answer { code: 5, .. }));
    }

    #[test]
    fn a_lost_query_makes_room_and_its_answer_is_late() {
        let mut world = World::new(2);
        let id = world.ask(0);
        assert_eq!(world.slots.give_up(world.now + TIMEOUT / 2, TIMEOUT), 0);
        world.now += TIMEOUT;
        assert_eq!(world.slots.give_up(world.now, TIMEOUT), 1);
        assert!(world.slots.is_idle());
        let answer = world.answer(id, 0);
        assert_ne!(world.ask(0), id);
        assert_eq!(world.receive(&answer), Received::Late);
        assert_eq!(world.receive(&answer), Received::Mismatch, "a second time");
    }

    #[test]
    fn an_answer_at_the_timeout_is_overdue() {
        let mut world = World::new(1);
        let id = world.ask(0);
        let answer = world.answer(id, 0);
        world.now += TIMEOUT;
        assert!(matches!(world.receive(&answer), Received::Overdue { .. }));
        assert_eq!(world.slots.give_up(world.now, TIMEOUT), 0, "it is counted once");
        assert!(world.slots.is_idle());
    }

    #[test]
    fn ids_are_unlike_until_all_were_used() {
        let mut world = World::new(SLOTS_MAX);
        let mut seen = vec![false; 1 << 16];
        for _ in 0..4 {
            let ids: Vec<_> = (0..SLOTS_MAX).map(|_| world.ask(0)).collect();
            for id in ids {
                assert!(!std::mem::replace(&mut seen[usize::from(id)], true), "{id} again");
                world.slots.put_back(id);
            }
        }
    }

    struct World {
        slots: Slots,
        questions: Vec<Question>,
        now: Instant,
    }

    impl World {
        fn new(slots: usize) -> Self {
            let encode = |text| Question::encode(&question_argument(text).unwrap(), 0).unwrap();
            let questions = ["web.test", "db.test"].map(encode).into();
            Self { slots: Slots::new(slots), questions, now: clock::now() }
        }

        fn query(&self, question: usize) -> Query {
            Query { question, due: self.now, sent: self.now, is_measured: true }
        }

        fn ask(&mut self, question: usize) -> u16 {
            self.slots.take(self.query(question)).unwrap()
        }

        fn answer(&mut self, id: u16, question: usize) -> Vec<u8> {
            let mut packet = self.questions[question].with_id(id).to_vec();
            packet[2] |= 0x80;
            packet
        }

        fn receive(&mut self, packet: &[u8]) -> Received {
            self.slots.receive(packet, &self.questions, self.now, TIMEOUT)
        }
    }
}
