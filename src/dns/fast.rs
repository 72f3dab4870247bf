//! Answers that were encoded before they are asked for.
//!
//! ```text
//! packet ─► question, in place ─► table ─► hit: header, question as it was asked, the octets behind it, OPT
//!                                   └─ miss: the slow way, whose octets are kept for those who ask next
//! ```
//!
//! - A name that is looked up has [`DRAWS`] answers in the table, drawn by the one selection, which take turns, and are replaced after
//!   [`TURNS`] turns each: in the long run each instance stands first by its share.
//! - Answers are those of one version of a service. Whether the view still has it is looked at once for each publication of a
//!   view, and no more than that; what did not change is never encoded again. What did is encoded one answer at a time, by those
//!   who ask.
//! - The owner of every record is a pointer to the question, so that the caller's letters are kept.
//! - A hit takes no lock and no memory. What is not plain (options, other classes, answers that do not fit) goes the slow way,
//!   which can answer everything. That both say the same is tested.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use hickory_proto::rr::RecordType;
use rustc_hash::FxHashMap;

use super::answer::Freshness;
use super::handler::Transport;
use super::head::HEADER_OCTETS;
use super::reply::{Limit, UDP_OCTETS_MAX};
use crate::registry::{Cache, Service, ServiceKey};

/// Answers that take turns.
const DRAWS: usize = 16;
/// How often each has its turn.
const TURNS: usize = 64;
/// Names and types in the table; who needs more than that needs them seldom. Each takes some kilobytes.
const ENTRIES_MAX: usize = 2048;
/// Octets of the longest name (RFC 1035 section 2.3.4).
const NAME_OCTETS_MAX: usize = 255;
/// Octets of type and class behind a name.
const TYPE_AND_CLASS: usize = 4;
/// Octets of an OPT record without options, and with an extended error that has no text.
const OPT_OCTETS: usize = 11;
const OPT_STALE_OCTETS: usize = OPT_OCTETS + 6;

/// A question as it stands in a packet.
#[derive(Debug)]
pub(super) struct PlainQuery<'a> {
    packet: &'a [u8],
    /// The name in lower case, and the type: what the table is asked for.
    key: [u8; NAME_OCTETS_MAX + 2],
    key_octets: usize,
    /// Where the question ends.
    end: usize,
    edns: Option<PlainEdns>,
}

/// What an OPT record without options says.
#[derive(Clone, Copy, Debug)]
struct PlainEdns {
    octets_max: u16,
    is_dnssec_ok: bool,
}

impl<'a> PlainQuery<'a> {
    /// Reads a packet that is nothing but one question of class IN, and an OPT record of version 0 without options, if any.
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        let header: &[u8; HEADER_OCTETS] = packet.first_chunk()?;
        // QUERY, not a response, not truncated, one question, no answer and no authority.
        let is_plain = header[2] & 0b1111_1110 == 0 && header[4..10] == [0, 1, 0, 0, 0, 0];
        if !is_plain || header[10] != 0 || header[11] > 1 {
            return None;
        }
        let mut key = [0; NAME_OCTETS_MAX + 2];
        let mut at = HEADER_OCTETS;
        loop {
            let length = usize::from(*packet.get(at)?);
            // Pointers have no place in the first name of a packet.
            if length > 63 || at + length - HEADER_OCTETS >= NAME_OCTETS_MAX {
                return None;
            }
            at += length + 1;
            if length == 0 {
                break;
            }
        }
        let (name_octets, end) = (at - HEADER_OCTETS, at + TYPE_AND_CLASS);
        let rest = packet.get(at..end)?;
        key[..name_octets].copy_from_slice(&packet[HEADER_OCTETS..at]);
        key[..name_octets].make_ascii_lowercase();
        key[name_octets..name_octets + 2].copy_from_slice(&rest[..2]);
        if rest[2..] != [0, 1] {
            return None;
        }
        let edns = match (header[11], &packet[end..]) {
            (0, []) => None,
            // Root, OPT, size, extended code and version 0, flags, no options (RFC 6891 section 6.1.2).
            (1, &[0, 0, 41, size_high, size_low, 0, 0, flags_high, _, 0, 0]) => Some(PlainEdns {
                octets_max: u16::from_be_bytes([size_high, size_low]),
                is_dnssec_ok: flags_high & 0x80 != 0,
            }),
            _ => return None,
        };
        Some(Self { packet, key, key_octets: name_octets + 2, end, edns })
    }

    fn kind(&self) -> RecordType {
        RecordType::from(u16::from_be_bytes([self.key[self.key_octets - 2], self.key[self.key_octets - 1]]))
    }

    /// Where the question ends.
    pub(super) const fn end(&self) -> usize {
        self.end
    }

    fn key(&self) -> &[u8] {
        &self.key[..self.key_octets]
    }
}

/// The octets of an answer behind the question.
#[derive(Debug)]
pub(super) struct Draw {
    /// The numbers of answers, authorities and additional records, without OPT.
    pub(super) counts: [u16; 3],
    /// The records.
    pub(super) body: Box<[u8]>,
    /// Who stands first among the instances of the service.
    pub(super) first: Option<usize>,
}

/// The answers to one question, of one version of a service. Successes, all of them authoritative.
#[derive(Debug)]
struct Draws {
    service: Arc<Service>,
    freshness: Freshness,
    /// Filled by who finds one empty.
    draws: Box<[OnceLock<Draw>]>,
    turns: AtomicU32,
    /// The publication of the cache at which the service was looked at last.
    seen: AtomicU64,
}

/// Of what an answer was made.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) service: Arc<Service>,
    pub(super) freshness: Freshness,
    /// The publications of the cache before its view was loaded.
    pub(super) seen: u64,
}

/// Everything that is encoded. One for each plan of the handler.
#[derive(Debug, Default)]
pub(super) struct FastTable {
    entries: ArcSwap<FxHashMap<Box<[u8]>, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    service: ServiceKey,
    draws: ArcSwapOption<Draws>,
}

impl Draws {
    fn new(source: Source, draws: usize) -> Self {
        let Source { service, freshness, seen } = source;
        let draws = (0..draws).map(|_| OnceLock::new()).collect();
        Self { service, freshness, draws, turns: AtomicU32::new(0), seen: AtomicU64::new(seen) }
    }

    fn of_one(source: Source, draws: usize, draw: Draw) -> Self {
        let draws = Self::new(source, draws);
        draws.fill(draw);
        draws
    }

    /// The answer whose turn it is; `None` when it is still to be made, or time to draw others.
    fn next(&self) -> Option<&Draw> {
        if let [only] = &*self.draws {
            return only.get();
        }
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        if self.is_over(turn) {
            // Far from the end of the numbers.
            self.turns.store(turn, Ordering::Relaxed);
            return None;
        }
        self.draws[turn as usize % self.draws.len()].get()
    }

    fn is_over(&self, turn: u32) -> bool {
        turn as usize >= self.draws.len() * TURNS
    }

    /// Whether one more of these can be taken in.
    fn takes(&self, source: &Source) -> bool {
        let is_over = self.draws.len() > 1 && self.is_over(self.turns.load(Ordering::Relaxed));
        !is_over && self.freshness == source.freshness && Arc::ptr_eq(&self.service, &source.service)
    }

    /// Takes one in, if there is a place for it.
    fn fill(&self, draw: Draw) {
        if let Some(empty) = self.draws.iter().find(|place| place.get().is_none()) {
            // Somebody else may have been quicker.
            let _ = empty.set(draw);
        }
    }

    /// Whether the cache still has what they were drawn from.
    fn is_current(&self, key: &ServiceKey, cache: &Cache) -> bool {
        // Before the view, so that a view which is published in between is looked at anew.
        let published = cache.publications();
        if self.seen.load(Ordering::Relaxed) == published {
            return true;
        }
        let is_same = cache.load().services.get(key).is_some_and(|now| Arc::ptr_eq(now, &self.service));
        if is_same {
            self.seen.store(published, Ordering::Relaxed);
        }
        is_same
    }
}

impl FastTable {
    /// Writes the answer to `query` into `out`, if it is in the table, current and fits; returns the type that was asked for.
    pub(super) fn answer(
        &self,
        query: &PlainQuery<'_>,
        cache: &Cache,
        (transport, is_recursive): (Transport, bool),
        out: &mut Vec<u8>,
    ) -> Option<RecordType> {
        let entries = self.entries.load();
        let entry = entries.get(query.key())?;
        let draws = entry.draws.load();
        let draws = draws.as_ref()?;
        let freshness = if cache.is_stale() { Freshness::Stale } else { Freshness::Current };
        if draws.freshness != freshness || !draws.is_current(&entry.service, cache) {
            return None;
        }
        let draw = draws.next()?;
        let opt_octets = match (query.edns, freshness) {
            (None, _) => 0,
            (Some(_), Freshness::Current) => OPT_OCTETS,
            (Some(_), Freshness::Stale) => OPT_STALE_OCTETS,
        };
        let octets = query.end + draw.body.len() + opt_octets;
        let limit = Limit::of(transport, query.edns.map(|edns| edns.octets_max)).octets();
        if octets > usize::from(limit) {
            return None;
        }
        draws.service.lookups.set();
        if let Some(first) = draw.first {
            draws.service.tally.count(first);
        }
        write(query, draw, (freshness, is_recursive), out);
        Some(query.kind())
    }

    /// Keeps an answer for who asks the same next.
    pub(super) fn keep(&self, query: &PlainQuery<'_>, source: Source, draw: Draw) {
        // Where there is one record there is one order.
        let count = if draw.counts[0] > 1 { DRAWS } else { 1 };
        let entries = self.entries.load();
        let entry = entries.get(query.key()).filter(|entry| entry.service == source.service.key);
        if let Some(entry) = entry {
            let known = entry.draws.load_full();
            match known.filter(|known| known.takes(&source)) {
                Some(known) => known.fill(draw),
                None => entry.draws.store(Some(Arc::new(Draws::of_one(source, count, draw)))),
            }
            return;
        }
        let service = source.service.key.clone();
        let draws = ArcSwapOption::from_pointee(Draws::of_one(source, count, draw));
        let entry = Arc::new(Entry { service, draws });
        self.entries.rcu(|entries| {
            // Whoever is asked for is back soon.
            let is_full = entries.len() >= ENTRIES_MAX;
            let mut entries = if is_full { FxHashMap::default() } else { FxHashMap::clone(entries) };
            entries.insert(query.key().into(), entry.clone());
            entries
        });
    }
}

/// Puts an answer together.
fn write(
    query: &PlainQuery<'_>,
    draw: &Draw,
    (freshness, is_recursive): (Freshness, bool),
    out: &mut Vec<u8>,
) {
    let flags = &query.packet[2..4];
    out.extend_from_slice(&query.packet[..2]);
    let recursion_available = if is_recursive { 0x80 } else { 0 };
    // QR and AA; RD and CD as asked (RFC 1035 section 4.1.1, RFC 4035 section 3.2.2).
    out.extend_from_slice(&[0b1000_0100 | (flags[0] & 1), recursion_available | (flags[1] & 0b0001_0000)]);
    let [answers, authorities, additionals] = draw.counts;
    for count in [1, answers, authorities, additionals + u16::from(query.edns.is_some())] {
        out.extend_from_slice(&count.to_be_bytes());
    }
    out.extend_from_slice(&query.packet[HEADER_OCTETS..query.end]);
    out.extend_from_slice(&draw.body);
    if let Some(edns) = query.edns {
        let [size_high, size_low] = UDP_OCTETS_MAX.to_be_bytes();
        let dnssec_ok = if edns.is_dnssec_ok { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, 41, size_high, size_low, 0, 0, dnssec_ok, 0, 0]);
        match freshness {
            Freshness::Current => out.push(0),
            // Stale Answer (RFC 8914 section 4.4).
            Freshness::Stale => out.extend_from_slice(&[6, 0, 15, 0, 2, 0, 3]),
        }
    }
}
