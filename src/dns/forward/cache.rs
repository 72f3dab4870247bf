//! What upstreams have answered, for as long as they allow, and longer when they are away. Pure.
//!
//! ```text
//! stored ──── fresh ────┬─ last tenth: due ─┬──────────── stale ────────────┬─ gone
//!                       │                   TTL                             TTL + stale_max
//! ```
//!
//! Bounded in entries and in octets; what was looked up least recently goes first. Failures are kept a short while,
//! beside what was known before. RFC 2308 (negative answers and failures), 8767 (stale answers), 9520 (failures).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::rr::{RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::question::Question;
use super::reply::Found;
use super::trouble::Trouble;

/// How much is kept, and for how long beyond its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheLimits {
    /// Answers.
    pub(super) entries_max: usize,
    /// Octets, with what the maps need.
    pub(super) octets_max: usize,
    /// How long after its TTL an answer may still be given when there is no other.
    pub(super) stale_max: Duration,
}

/// Answers by their questions.
#[derive(Debug)]
pub(super) struct Cache {
    limits: CacheLimits,
    entries: BTreeMap<Question, Entry>,
    /// The questions by the time of their last use.
    order: BTreeMap<u64, Question>,
    uses: u64,
    octets: usize,
}

#[derive(Debug)]
struct Entry {
    answer: Option<Kept>,
    /// That it could not be had, and until when nobody tries again.
    failure: Option<(Trouble, Instant)>,
    used: u64,
    octets: usize,
}

#[derive(Clone, Debug)]
struct Kept {
    found: Arc<Found>,
    stored: Instant,
    ttl: Duration,
}

/// What is known about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// An answer within its time.
    Fresh {
        found: Arc<Found>,
        age: Duration,
        /// Whether it is asked for so near its end that it should be had anew.
        is_due: bool,
    },
    /// An answer beyond its time, for when there is no other.
    Stale {
        found: Arc<Found>,
        /// Whether a newer one could not be had a moment ago.
        has_failed: bool,
    },
    /// It could not be had a moment ago.
    Failed(Trouble),
    /// Nothing.
    Unknown,
}

impl Cache {
    pub(super) const fn new(limits: CacheLimits) -> Self {
        Self { limits, entries: BTreeMap::new(), order: BTreeMap::new(), uses: 0, octets: 0 }
    }

    /// Keeps to other limits from now on.
    pub(super) fn set_limits(&mut self, limits: CacheLimits) {
        self.limits = limits;
        self.make_room();
    }

    /// Forgets everything, as when other upstreams are asked from now on.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Entries, and octets in them.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.octets)
    }

    /// What is known, which counts as a use.
    pub(super) fn look_up(&mut self, question: &Question, now: Instant) -> Lookup {
        let stale_max = self.limits.stale_max;
        let Some(entry) = self.entries.get_mut(question) else { return Lookup::Unknown };
        let failure = entry.failure.filter(|(_, until)| now < *until);
        let lookup = match &entry.answer {
            Some(kept) if now < kept.end() => {
                let age = now.saturating_duration_since(kept.stored);
                let is_due = (kept.ttl - age) * DUE_PART <= kept.ttl && failure.is_none();
                Lookup::Fresh { found: kept.found.clone(), age, is_due }
            }
            Some(kept) if now < kept.end() + stale_max => {
                Lookup::Stale { found: kept.found.clone(), has_failed: failure.is_some() }
            }
            Some(_) | None => match failure {
                Some((trouble, _)) => Lookup::Failed(trouble),
                None => {
                    self.remove(question);
                    return Lookup::Unknown;
                }
            },
        };
        self.uses += 1;
        let before = std::mem::replace(&mut entry.used, self.uses);
        if let Some(question) = self.order.remove(&before) {
            self.order.insert(self.uses, question);
        }
        lookup
    }

    /// Keeps an answer, in the place of one before; one that may not be kept takes away that before, too.
    pub(super) fn insert(&mut self, question: &Question, found: Arc<Found>, now: Instant) {
        let ttl = ttl_of(&found);
        if ttl.is_zero() {
            self.remove(question);
            return;
        }
        let octets = ENTRY_OCTETS + 2 * question.name.len() + octets_of(&found);
        self.put(question, Some(Kept { found, stored: now, ttl }), None, octets);
    }

    /// Keeps that there was no answer: a moment, and a longer one where there is an old answer to give instead.
    pub(super) fn fail(&mut self, question: &Question, trouble: Trouble, now: Instant) {
        let entry = self.entries.get(question);
        let old = entry.and_then(|entry| Some((entry.answer.clone()?, entry.octets)));
        match old.filter(|(kept, _)| now < kept.end() + self.limits.stale_max) {
            Some((kept, octets)) => {
                self.put(question, Some(kept), Some((trouble, now + STALE_RECHECK)), octets);
            }
            None => {
                let octets = ENTRY_OCTETS + 2 * question.name.len();
                self.put(question, None, Some((trouble, now + FAILURE_TTL)), octets);
            }
        }
    }

    fn put(
        &mut self,
        question: &Question,
        answer: Option<Kept>,
        failure: Option<(Trouble, Instant)>,
        octets: usize,
    ) {
        self.remove(question);
        self.uses += 1;
        self.octets += octets;
        self.order.insert(self.uses, question.clone());
        self.entries.insert(question.clone(), Entry { answer, failure, used: self.uses, octets });
        self.make_room();
    }

    fn remove(&mut self, question: &Question) {
        if let Some(entry) = self.entries.remove(question) {
            self.order.remove(&entry.used);
            self.octets -= entry.octets;
        }
    }

    fn make_room(&mut self) {
        while self.entries.len() > self.limits.entries_max || self.octets > self.limits.octets_max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.octets -= entry.octets;
            }
        }
    }
}

impl Kept {
    fn end(&self) -> Instant {
        self.stored + self.ttl
    }
}

/// For how long an answer may be kept: the shortest TTL in it; for one that there is nothing what its SOA says (RFC 2308
/// section 5), and not at all without one.
fn ttl_of(found: &Found) -> Duration {
    let shortest = found.answers.iter().chain(&found.authority).map(|record| record.ttl).min();
    let ttl = Duration::from_secs(shortest.unwrap_or(0).into()).min(TTL_MAX);
    if !found.is_negative {
        return ttl;
    }
    let minimum = found.authority.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else { return None };
        Some(soa.minimum)
    });
    ttl.min(Duration::from_secs(minimum.unwrap_or(0).into())).min(NEGATIVE_TTL_MAX)
}

/// The records with what is left of their TTLs.
pub(super) fn aged(records: &[Record], age: Duration, cap: Duration) -> Vec<Record> {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let with_rest = |record: &Record| {
        let mut record = record.clone();
        record.ttl = record.ttl.min(seconds(cap)).saturating_sub(seconds(age));
        record
    };
    records.iter().map(with_rest).collect()
}

/// About what the records take in memory: their length on the wire, and each its struct.
fn octets_of(found: &Found) -> usize {
    let mut wire = Vec::new();
    let mut encoder = BinEncoder::new(&mut wire);
    let records = found.answers.iter().chain(&found.authority);
    let count = records.clone().count();
    for record in records {
        // What does not fit into a message is none that came in one.
        if record.emit(&mut encoder).is_err() {
            break;
        }
    }
    wire.len() + count * size_of::<Record>()
}

/// The longest time for which an answer is kept. RFC 8767 section 4 allows up to 7 days; a wrong record that nobody can
/// take back should not stay so long.
pub(super) const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The same for one that there is nothing; RFC 2308 section 5 suggests one to three hours at most, and names come into
/// being while a cluster runs.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(15 * 60);
/// The last part of a TTL, one of so many, in which an answer that is asked for is had anew.
const DUE_PART: u32 = 10;
/// How long it is kept that there is no answer (RFC 2308 section 7 allows five minutes, RFC 9520 section 3.2 from 1 s).
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// How long an old answer is given without another attempt (RFC 8767 section 5, "failure recheck timer").
const STALE_RECHECK: Duration = Duration::from_secs(30);
/// What an entry takes beside its records: two keys, two nodes of maps, the rest of it.
const ENTRY_OCTETS: usize = 400;

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_fresh_then_due_then_stale_then_gone() {
        let (mut cache, begin) = (Cache::new(LIMITS), clock::now());
        cache.insert(&question("a."), positive(100), begin);
        let mut at = |seconds| match cache.look_up(&question("A."), begin + seconds * SECOND) {
            Lookup::Fresh { is_due, age, .. } => format!("fresh {is_due} {}", age.as_secs()),
            Lookup::Stale { has_failed, .. } => format!("stale {has_failed}"),
            Lookup::Failed(_) | Lookup::Unknown => "gone".to_owned(),
        };
        assert_eq!([at(0), at(89), at(90)], ["fresh false 0", "fresh false 89", "fresh true 90"]);
        assert_eq!([at(99), at(100), at(100 + 3599)], ["fresh true 99", "stale false", "stale false"]);
        assert_eq!([at(100 + 3600), at(0)], ["gone", "gone"], "it is removed when it is found too old");
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn the_shortest_ttl_counts_and_none_is_longer_than_a_day() {
        let of =
            |ttls: &[u32]| ttl_of(&Found { answers: ttls.iter().map(|ttl| a(*ttl)).collect(), ..empty() });
        assert_eq!(of(&[300, 20, 60]), 20 * SECOND);
        assert_eq!(of(&[7_000_000]), TTL_MAX);
        assert_eq!(of(&[0, 60]), Duration::ZERO);
        let left: Vec<_> =
            aged(&[a(300), a(20)], 7 * SECOND, TTL_MAX).iter().map(|record| record.ttl).collect();
        assert_eq!(left, [293, 13]);
    }

    #[test]
    fn what_is_not_is_kept_as_its_soa_says() {
        let of = |ttl, minimum| ttl_of(&negative(ttl, minimum));
        assert_eq!((of(60, 30), of(30, 60)), (30 * SECOND, 30 * SECOND));
        assert_eq!(of(86_400, 86_400), NEGATIVE_TTL_MAX);
        assert_eq!(ttl_of(&Found { is_negative: true, ..empty() }), Duration::ZERO);
        let (mut cache, now) = (Cache::new(LIMITS), clock::now());
        cache.insert(&question("a."), positive(60), now);
        cache.insert(&question("a."), Arc::new(Found { is_negative: true, ..empty() }), now);
        assert_eq!(
            cache.look_up(&question("a."), now),
            Lookup::Unknown,
            "what was there before is not true any more"
        );
    }

    #[test]
    fn failures_are_kept_a_moment() {
        let (mut cache, begin) = (Cache::new(LIMITS), clock::now());
        cache.fail(&question("a."), Trouble::Unreachable, begin);
        let mut at = |seconds| cache.look_up(&question("a."), begin + seconds * SECOND);
        assert_eq!(at(4), Lookup::Failed(Trouble::Unreachable));
        assert_eq!(at(5), Lookup::Unknown);
    }

    #[test]
    fn a_failure_does_not_take_away_what_was_known() {
        let (mut cache, begin) = (Cache::new(LIMITS), clock::now());
        cache.insert(&question("a."), positive(100), begin);
        cache.fail(&question("a."), Trouble::Unreachable, begin + 95 * SECOND);
        let mut at = |seconds| cache.look_up(&question("a."), begin + seconds * SECOND);
        assert!(matches!(at(96), Lookup::Fresh { is_due: false, .. }), "it is not asked for again at once");
        assert!(matches!(at(124), Lookup::Stale { has_failed: true, .. }));
        assert!(matches!(at(125), Lookup::Stale { has_failed: false, .. }));
        cache.insert(&question("a."), positive(10), begin + 130 * SECOND);
        assert!(matches!(cache.look_up(&question("a."), begin + 131 * SECOND), Lookup::Fresh { .. }));
    }

    #[test]
    fn the_least_recently_used_go_when_there_are_too_many() {
        let now = clock::now();
        let mut cache = Cache::new(CacheLimits { entries_max: 3, ..LIMITS });
        for name in ["a.", "b.", "c."] {
            cache.insert(&question(name), positive(60), now);
        }
        assert!(matches!(cache.look_up(&question("a."), now), Lookup::Fresh { .. }));
        cache.insert(&question("d."), positive(60), now);
        let known =
            ["a.", "b.", "c.", "d."].map(|name| cache.look_up(&question(name), now) != Lookup::Unknown);
        assert_eq!(known, [true, false, true, true]);
        cache.fail(&question("e."), Trouble::Network, now);
        assert_eq!(cache.size().0, 3, "failures count, too");
    }

    #[test]
    fn octets_are_bounded_and_come_out_even() {
        let now = clock::now();
        let mut cache = Cache::new(CacheLimits { octets_max: 20_000, ..LIMITS });
        for index in 0..200 {
            cache.insert(&question(&format!("name-{index}.")), positive(60), now);
            cache.insert(&question(&format!("name-{}.", index / 2)), positive(60), now);
            let (entries, octets) = cache.size();
            assert!(octets <= 20_000 && entries > 0);
        }
        cache.set_limits(CacheLimits { octets_max: 0, ..LIMITS });
        assert_eq!(cache.size(), (0, 0));
        assert!(cache.order.is_empty());
    }

    #[test]
    fn questions_with_and_without_signatures_are_apart() {
        let (mut cache, now) = (Cache::new(LIMITS), clock::now());
        cache.insert(&question("a."), positive(60), now);
        let signed = Question { dnssec_ok: true, ..question("a.") };
        assert_eq!(cache.look_up(&signed, now), Lookup::Unknown);
    }

    const LIMITS: CacheLimits =
        CacheLimits { entries_max: 1_000, octets_max: 1_000_000, stale_max: Duration::from_secs(3600) };

    fn question(name: &str) -> Question {
        let name = Name::from_ascii(name).unwrap();
        Question { name, kind: RecordType::A, dnssec_ok: false, checking_disabled: false }
    }

    fn empty() -> Found {
        let (answers, authority) = (Vec::new(), Vec::new());
        Found { rcode: ResponseCode::NoError, answers, authority, is_authentic: false, is_negative: false }
    }

    fn positive(ttl: u32) -> Arc<Found> {
        Arc::new(Found { answers: vec![a(ttl)], ..empty() })
    }

    fn negative(ttl: u32, minimum: u32) -> Found {
        let name = Name::root();
        let data = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, minimum);
        let authority = vec![Record::from_rdata(name, ttl, RData::SOA(data))];
        Found { rcode: ResponseCode::NXDomain, authority, is_negative: true, ..empty() }
    }

    fn a(ttl: u32) -> Record {
        Record::from_rdata(Name::root(), ttl, RData::A(A::new(192, 0, 2, 1)))
    }
}
