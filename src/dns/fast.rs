//! Answers that were encoded for who asked before.
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
//! - Many names that are new, as a client makes them that asks for whatever it can think of, are taken in many at a time.
//! - What is kept is bounded in names and in octets. An answer that there is no room for goes the slow way, until others went: those of
//!   services that have changed are let go when their room is needed, and all of a name when they have had their turns.
//! - A hit takes no lock and no memory. What is not plain (options, other classes, answers that do not fit) goes the slow way,
//!   which can answer everything. That both say the same is tested.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use rustc_hash::FxHashMap;

use super::answer::Freshness;
use super::plain::{Behind, PlainQuery, Verdict};
use super::reply::UDP_OCTETS_MAX;
use super::transport::Transport;
use crate::registry::{Cache, Service, ServiceKey};

/// Answers that take turns.
const DRAWS: usize = 16;
/// How often each has its turn.
const TURNS: usize = 64;
/// Names and types in the table; who needs more than that needs them seldom. Each takes some hundreds of octets beside its answers.
const ENTRIES_MAX: usize = 4096;
/// Octets of the answers in the table: room for all of [`ENTRIES_MAX`] with a dozen addresses each. Those of a service of thousands take up
/// to a mebibyte for each name and type, as 16 answers of 64 KiB, and so would let the table grow beyond any sidecar's memory.
const OCTETS_MAX: usize = 16 << 20;
/// Up to here answers are kept that no packet holds: of some large services, which are asked over TCP, the rest is left to the many small ones.
pub(super) const OCTETS_MAX_FOR_LONG: usize = OCTETS_MAX / 2;
/// Types that are asked for often. Of the others there are sixty thousand, each of which an existing name has an answer to.
const KINDS: [RecordType; 5] =
    [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT, RecordType::HTTPS];
/// Entries that are copied for each answer that was made the slow way, which costs as much as some dozens.
const KEPT_PER_COPY: usize = 16;
/// Extended error 3, Stale Answer, without text (RFC 8914 section 4.4).
const STALE_OPTION: [u8; 6] = [0, 15, 0, 2, 0, 3];

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
    draws: Box<[OnceLock<Kept>]>,
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
    entries: ArcSwap<Entries>,
    /// What is not among them yet, since they are copied to take it in.
    new: Mutex<New>,
    /// Octets of the answers in both.
    octets: Arc<AtomicUsize>,
}

/// An answer that has its room in the table, and gives it back when it goes.
#[derive(Debug)]
struct Kept {
    draw: Draw,
    octets: Arc<AtomicUsize>,
}

type Entries = FxHashMap<Arc<[u8]>, Arc<Entry>>;

#[derive(Debug, Default)]
struct New {
    entries: Entries,
    /// Answers that were made the slow way since entries were taken in last: as many as a copy is worth.
    kept: usize,
    /// When what is out of date was let go last: the publications of the cache, and how fresh it was.
    swept: Option<(u64, Freshness)>,
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

    fn of_one(source: Source, draws: usize, kept: Kept) -> Self {
        let draws = Self::new(source, draws);
        draws.fill(kept);
        draws
    }

    /// The answer whose turn it is; `None` when it is still to be made, or time to draw others.
    fn next(&self) -> Option<&Draw> {
        if let [only] = &*self.draws {
            return only.get().map(|kept| &kept.draw);
        }
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        if self.is_over(turn) {
            // Far from the end of the numbers.
            self.turns.store(turn, Ordering::Relaxed);
            return None;
        }
        self.draws[turn as usize % self.draws.len()].get().map(|kept| &kept.draw)
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
    fn fill(&self, kept: Kept) {
        if let Some(empty) = self.draws.iter().find(|place| place.get().is_none()) {
            // Somebody else may have been quicker.
            let _ = empty.set(kept);
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
        let freshness = freshness_of(cache);
        if draws.freshness != freshness || !draws.is_current(&entry.service, cache) {
            return None;
        }
        let draw = draws.next()?;
        let options: &[u8] = match freshness {
            Freshness::Current => &[],
            Freshness::Stale => &STALE_OPTION,
        };
        let behind = Behind { counts: draw.counts, records: &draw.body, options };
        if !query.takes(behind, transport) {
            return None;
        }
        draws.service.lookups.set();
        if let Some(first) = draw.first {
            draws.service.tally.count(first);
        }
        let rcode = ResponseCode::NoError;
        let verdict = Verdict { rcode, is_authoritative: true, is_recursive, is_authentic: false };
        query.write_reply(verdict, behind, out);
        Some(query.kind())
    }

    /// Keeps an answer for who asks the same next, if it is one that is asked for often and there is room for it.
    pub(super) fn keep(&self, query: &PlainQuery<'_>, source: Source, draw: Draw, cache: &Cache) {
        if !KINDS.contains(&query.kind()) {
            return;
        }
        // Where there is one record there is one order, unless lookups are spread over zones: the next may be one of another.
        let is_alone = draw.counts[0] <= 1 && !source.service.zones.is_spread();
        let count = if is_alone { 1 } else { DRAWS };
        let entries = self.entries.load();
        let is_meant = |entry: &&Arc<Entry>| entry.service == source.service.key;
        let known = entries.get(query.key()).filter(is_meant);
        if let Some(entry) = known {
            // First, so that what is replaced leaves its room.
            entry.let_go_unless(|draws| draws.takes(&source));
        }
        let Some(kept) = self.make_room(draw, cache) else { return };
        if let Some(entry) = known {
            return entry.keep(source, count, kept);
        }
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        // They are stored under the lock alone.
        let entries = self.entries.load();
        match new.entries.get(query.key()).filter(is_meant) {
            Some(entry) => entry.keep(source, count, kept),
            None => {
                let service = source.service.key.clone();
                let draws = ArcSwapOption::from_pointee(Draws::of_one(source, count, kept));
                new.entries.insert(query.key().into(), Arc::new(Entry { service, draws }));
            }
        }
        new.kept += 1;
        if new.kept * KEPT_PER_COPY >= entries.len() {
            new.kept = 0;
            let is_full = entries.len() + new.entries.len() > ENTRIES_MAX;
            // Whoever is asked for is back soon.
            let mut all = if is_full { Entries::default() } else { Entries::clone(&entries) };
            all.extend(new.entries.drain());
            self.entries.store(Arc::new(all));
        }
    }

    /// Octets of the answers that are kept.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.octets.load(Ordering::Relaxed)
    }

    /// Gives an answer its room; `None` when there is none, also without what is out of date.
    fn make_room(&self, draw: Draw, cache: &Cache) -> Option<Kept> {
        let octets = draw.body.len();
        if !self.take(octets) {
            self.sweep(cache);
            if !self.take(octets) {
                return None;
            }
        }
        Some(Kept { draw, octets: self.octets.clone() })
    }

    fn take(&self, octets: usize) -> bool {
        let is_long = octets > usize::from(UDP_OCTETS_MAX);
        let octets_max = if is_long { OCTETS_MAX_FOR_LONG } else { OCTETS_MAX };
        let with = |taken: usize| taken.checked_add(octets).filter(|taken| *taken <= octets_max);
        self.octets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }

    /// Lets go what is out of date, which nobody may ask for any more. Once for each change: it looks at everything.
    fn sweep(&self, cache: &Cache) {
        let now = (cache.publications(), freshness_of(cache));
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        if new.swept.replace(now) == Some(now) {
            return;
        }
        let is_current = |entry: &Entry, draws: &Draws| {
            draws.freshness == now.1 && draws.is_current(&entry.service, cache)
        };
        for entry in self.entries.load().values().chain(new.entries.values()) {
            entry.let_go_unless(|draws| is_current(entry, draws));
        }
    }
}

impl Entry {
    fn keep(&self, source: Source, count: usize, kept: Kept) {
        let known = self.draws.load_full();
        match known.filter(|known| known.takes(&source)) {
            Some(known) => known.fill(kept),
            None => self.draws.store(Some(Arc::new(Draws::of_one(source, count, kept)))),
        }
    }

    fn let_go_unless(&self, is_wanted: impl FnOnce(&Draws) -> bool) {
        // What somebody else has put there since is seldom lost, and made again.
        if self.draws.load_full().is_some_and(|draws| !is_wanted(&draws)) {
            self.draws.store(None);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.octets.fetch_sub(self.draw.body.len(), Ordering::Relaxed);
    }
}

fn freshness_of(cache: &Cache) -> Freshness {
    if cache.is_stale() { Freshness::Stale } else { Freshness::Current }
}
