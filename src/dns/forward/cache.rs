//! What upstreams have answered, for as long as they allow, and longer when they are away. Pure.
//!
//! ```text
//! stored ──── fresh ────┬─ last tenth: due ─┬──────────── stale ────────────┬─ gone
//!                       │                   TTL                             TTL + stale_max
//! ```
//!
//! Bounded in entries and in octets; what was not looked up since it had its turn last goes first. Failures are kept a short while,
//! beside what was known before. RFC 2308 (negative answers and failures), 8767 (stale answers), 9520 (failures).
//!
//! A fresh answer is given again as it was encoded when it came, by [`Cache::answer`], for which nothing has to change: many can have theirs
//! at a time. Whether a question is one for upstreams at all is not decided here; that it was, by the [`Rules`] of now, is remembered.

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record};

use super::encoded::Encoded;
use super::question::Question;
use super::reply::Found;
use super::trouble::Failed;
use crate::dns::plain::PlainQuery;
use crate::dns::transport::Transport;

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
    entries: Entries,
    /// Their keys in the order in which they go.
    order: BTreeMap<u64, Arc<[u8]>>,
    turns: u64,
    octets: usize,
}

/// By [`Question::key`]. Clients choose these, so that the hasher has a key, too.
#[expect(clippy::disallowed_types, reason = "the hasher's key is given as input, and no order is seen")]
type Entries = std::collections::HashMap<Arc<[u8]>, Entry, RandomState>;

#[derive(Debug)]
struct Entry {
    answer: Option<Kept>,
    /// That it could not be had, and until when nobody tries again.
    failure: Option<(Failed, Instant)>,
    /// Its place in the order.
    turn: u64,
    /// Whether it was looked up since it got that.
    is_used: AtomicBool,
    octets: usize,
}

#[derive(Debug)]
struct Kept {
    found: Arc<Found>,
    /// The same in octets, unless it is too long.
    encoded: Option<Encoded>,
    stored: Instant,
    ttl: Duration,
    /// The rules by which this question was last one for upstreams.
    rules: AtomicU64,
}

/// Which rules decide whose a name is: the zone, the endings of the search list, whether anything is forwarded at all. Others have another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules(pub(super) u64);

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
    Failed(Failed),
    /// Nothing.
    Unknown,
}

impl Cache {
    /// An empty one, with a hasher that nobody can foresee.
    pub(super) fn new(limits: CacheLimits, hasher: RandomState) -> Self {
        Self { limits, entries: Entries::with_hasher(hasher), order: BTreeMap::new(), turns: 0, octets: 0 }
    }

    /// Keeps to other limits from now on.
    pub(super) fn set_limits(&mut self, limits: CacheLimits) {
        self.limits = limits;
        self.make_room(0, 0);
    }

    /// Forgets everything, as when other upstreams are asked from now on.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.octets = 0;
    }

    /// Entries, and octets in them.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.octets)
    }

    /// Writes the answer to a query to `out` and says its code, if there is a fresh one that fits, it is not time to have it anew, and by
    /// these rules the question was one for upstreams before. Counts as a use.
    pub(super) fn answer(
        &self,
        (query, rules): (&PlainQuery<'_>, Rules),
        now: Instant,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Option<ResponseCode> {
        let entry = self.entries.get(query.key_with_wishes())?;
        let kept = entry.answer.as_ref()?;
        let age = now.saturating_duration_since(kept.stored);
        if kept.is_due(age) || kept.rules.load(Ordering::Relaxed) != rules.0 {
            return None;
        }
        let rcode = kept.encoded.as_ref()?.write(query, age, transport, out)?;
        entry.mark_used();
        Some(rcode)
    }

    /// What is known, which counts as a use. By the rules that `rules` says of an answer, if any, it is all that is to be said to the
    /// question, and will be as long as they are the same.
    pub(super) fn look_up(
        &mut self,
        question: &Question,
        rules: impl FnOnce(&Found) -> Option<Rules>,
        now: Instant,
    ) -> Lookup {
        let key = question.key();
        let Some(entry) = self.entries.get(&key) else { return Lookup::Unknown };
        entry.mark_used();
        let failure = entry.failure.as_ref().filter(|(_, until)| now < *until);
        match &entry.answer {
            Some(kept) if now < kept.end() => {
                if let Some(rules) = rules(&kept.found) {
                    kept.rules.store(rules.0, Ordering::Relaxed);
                }
                let age = now.saturating_duration_since(kept.stored);
                let is_due = kept.is_due(age) && failure.is_none();
                Lookup::Fresh { found: kept.found.clone(), age, is_due }
            }
            Some(kept) if now < kept.end() + self.limits.stale_max => {
                Lookup::Stale { found: kept.found.clone(), has_failed: failure.is_some() }
            }
            Some(_) | None => match failure {
                Some((failed, _)) => Lookup::Failed(failed.clone()),
                None => {
                    self.remove(&key);
                    Lookup::Unknown
                }
            },
        }
    }

    /// Keeps an answer, in the place of one before; one that may not be kept takes away that before, too. It comes encoded, unless it is too
    /// long, so that nobody waits here for that.
    pub(super) fn insert(
        &mut self,
        question: &Question,
        (found, encoded): (Arc<Found>, Option<Encoded>),
        now: Instant,
    ) {
        let ttl = ttl_of(&found);
        let key = question.key();
        if ttl.is_zero() {
            self.remove(&key);
            return;
        }
        let records = found.answers.len() + found.authority.len();
        // Beside the octets about as much for what the records have in memory.
        let wire = encoded.as_ref().map_or(usize::from(u16::MAX), Encoded::octets);
        let octets = ENTRY_OCTETS + key.len() + 2 * wire + records * size_of::<Record>();
        let kept = Kept { found, encoded, stored: now, ttl, rules: AtomicU64::new(NO_RULES) };
        self.put(key, Some(kept), None, octets);
    }

    /// Keeps that there was no answer: a moment, and a longer one where there is an old answer to give instead.
    pub(super) fn fail(&mut self, question: &Question, failed: Failed, now: Instant) {
        let key = question.key();
        let stale_max = self.limits.stale_max;
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.answer.as_ref().is_some_and(|kept| now < kept.end() + stale_max)
        {
            entry.failure = Some((failed, now + STALE_RECHECK));
            return;
        }
        let octets = ENTRY_OCTETS + key.len() + failed.explanations.encoded().len();
        self.put(key, None, Some((failed, now + FAILURE_TTL)), octets);
    }

    fn put(
        &mut self,
        key: Arc<[u8]>,
        answer: Option<Kept>,
        failure: Option<(Failed, Instant)>,
        octets: usize,
    ) {
        self.remove(&key);
        if self.make_room(1, octets) {
            self.octets += octets;
            let turn = self.take_turn(key.clone());
            let is_used = AtomicBool::new(false);
            self.entries.insert(key, Entry { answer, failure, turn, is_used, octets });
        }
    }

    fn take_turn(&mut self, key: Arc<[u8]>) -> u64 {
        self.turns += 1;
        self.order.insert(self.turns, key);
        self.turns
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.turn);
            self.octets -= entry.octets;
        }
    }

    /// Makes room for so much more, and says whether there is. Nothing has to go for what could not be kept alone.
    fn make_room(&mut self, entries: usize, octets: usize) -> bool {
        if entries > self.limits.entries_max || octets > self.limits.octets_max {
            return false;
        }
        let mut spared = 0;
        while self.entries.len() + entries > self.limits.entries_max
            || self.octets + octets > self.limits.octets_max
        {
            let Some((_, key)) = self.order.pop_first() else { return false };
            let was_used = self.entries.get_mut(&key).is_some_and(|entry| mem::take(entry.is_used.get_mut()));
            if was_used && spared < SPARED_MAX {
                spared += 1;
                let turn = self.take_turn(key.clone());
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.turn = turn;
                }
            } else if let Some(entry) = self.entries.remove(&key) {
                self.octets -= entry.octets;
            }
        }
        true
    }
}

impl Entry {
    fn mark_used(&self) {
        // It is read by all who ask for it; it need not be written by all.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }
}

impl Kept {
    fn end(&self) -> Instant {
        self.stored + self.ttl
    }

    /// Whether at that age it should be had anew.
    fn is_due(&self, age: Duration) -> bool {
        self.ttl.saturating_sub(age) * DUE_PART <= self.ttl
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
/// What an entry takes beside its key and its records: two nodes of maps, the rest of it.
const ENTRY_OCTETS: usize = 400;
/// Entries that are not taken away for having been used, each time that room is made: that takes a while, and others wait.
const SPARED_MAX: usize = 64;
/// The number of no [`Rules`].
const NO_RULES: u64 = 0;

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;
    use crate::clock;
    use crate::dns::forward::explanation::Explanations;
    use crate::dns::forward::question::{Letters, RANDOM_OCTETS, WithEdns};
    use crate::dns::forward::trouble::Trouble;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_fresh_then_due_then_stale_then_gone() {
        let (mut cache, begin) = (Cache::new(LIMITS, RandomState::new()), clock::now());
        keep(&mut cache, "a.", positive(100), begin);
        let mut at = |seconds| match cache.look_up(&question("A."), |_| None, begin + seconds * SECOND) {
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
        let (mut cache, now) = (Cache::new(LIMITS, RandomState::new()), clock::now());
        keep(&mut cache, "a.", positive(60), now);
        keep(&mut cache, "a.", Arc::new(Found { is_negative: true, ..empty() }), now);
        assert_eq!(
            cache.look_up(&question("a."), |_| None, now),
            Lookup::Unknown,
            "what was there before is not true any more"
        );
    }

    #[test]
    fn failures_are_kept_a_moment() {
        let (mut cache, begin) = (Cache::new(LIMITS, RandomState::new()), clock::now());
        cache.fail(&question("a."), Trouble::Unreachable.into(), begin);
        let mut at = |seconds| cache.look_up(&question("a."), |_| None, begin + seconds * SECOND);
        assert_eq!(at(4), Lookup::Failed(Trouble::Unreachable.into()));
        assert_eq!(at(5), Lookup::Unknown);
    }

    #[test]
    fn a_failure_does_not_take_away_what_was_known() {
        let (mut cache, begin) = (Cache::new(LIMITS, RandomState::new()), clock::now());
        keep(&mut cache, "a.", positive(100), begin);
        cache.fail(&question("a."), Trouble::Unreachable.into(), begin + 95 * SECOND);
        let mut at = |seconds| cache.look_up(&question("a."), |_| None, begin + seconds * SECOND);
        assert!(matches!(at(96), Lookup::Fresh { is_due: false, .. }), "it is not asked for again at once");
        assert!(matches!(at(124), Lookup::Stale { has_failed: true, .. }));
        assert!(matches!(at(125), Lookup::Stale { has_failed: false, .. }));
        keep(&mut cache, "a.", positive(10), begin + 130 * SECOND);
        assert!(matches!(
            cache.look_up(&question("a."), |_| None, begin + 131 * SECOND),
            Lookup::Fresh { .. }
        ));
    }

    #[test]
    fn the_least_recently_used_go_when_there_are_too_many() {
        let now = clock::now();
        let mut cache = Cache::new(CacheLimits { entries_max: 3, ..LIMITS }, RandomState::new());
        for name in ["a.", "b.", "c."] {
            keep(&mut cache, name, positive(60), now);
        }
        assert!(matches!(cache.look_up(&question("a."), |_| None, now), Lookup::Fresh { .. }));
        keep(&mut cache, "d.", positive(60), now);
        let known = ["a.", "b.", "c.", "d."]
            .map(|name| cache.look_up(&question(name), |_| None, now) != Lookup::Unknown);
        assert_eq!(known, [true, false, true, true]);
        cache.fail(&question("e."), Trouble::Network.into(), now);
        assert_eq!(cache.size().0, 3, "failures count, too");
    }

    #[test]
    fn a_use_of_what_was_encoded_counts_too() {
        let now = clock::now();
        let mut cache = Cache::new(CacheLimits { entries_max: 3, ..LIMITS }, RandomState::new());
        for name in ["a.", "b.", "c."] {
            keep(&mut cache, name, positive(60), now);
        }
        // Their uses until now count, and the next to go loses them.
        for name in ["a.", "b.", "c."] {
            cache.look_up(&question(name), |_| Some(Rules(1)), now);
        }
        keep(&mut cache, "d.", positive(60), now);
        assert_eq!(cache.look_up(&question("a."), |_| None, now), Lookup::Unknown);
        assert!(again(&cache, "b.", Rules(1), now).is_some());
        keep(&mut cache, "e.", positive(60), now);
        let known = ["b.", "c.", "d.", "e."]
            .map(|name| cache.look_up(&question(name), |_| None, now) != Lookup::Unknown);
        assert_eq!(known, [true, false, true, true]);
    }

    #[test]
    fn what_is_encoded_is_given_again_while_it_is_fresh_and_the_rules_are_those_by_which_it_was_asked_for() {
        let (mut cache, begin) = (Cache::new(LIMITS, RandomState::new()), clock::now());
        keep(&mut cache, "a.", positive(100), begin);
        assert_eq!(again(&cache, "a.", Rules(7), begin), None, "it may be ours");
        cache.look_up(&question("a."), |_| Some(Rules(7)), begin);
        let at = |cache: &Cache, seconds| again(cache, "A.", Rules(7), begin + seconds * SECOND);
        assert_eq!([at(&cache, 0), at(&cache, 89), at(&cache, 90)], [Some(100), Some(11), None]);
        assert_eq!(again(&cache, "a.", Rules(8), begin), None, "it may be ours by now");
        cache.look_up(&question("a."), |_| None, begin);
        assert_eq!(at(&cache, 1), Some(99), "a look-up of our own says nothing about it");
        cache.fail(&question("a."), Trouble::Unreachable.into(), begin + 2 * SECOND);
        assert_eq!(at(&cache, 3), Some(97));
        keep(&mut cache, "a.", positive(100), begin);
        assert_eq!(at(&cache, 1), None, "the rules may have changed while it was on its way");
    }

    #[test]
    fn room_is_made_in_a_bounded_time() {
        let now = clock::now();
        let mut cache = Cache::new(CacheLimits { entries_max: 500, ..LIMITS }, RandomState::new());
        for index in 0..500 {
            keep(&mut cache, &format!("name-{index}."), positive(60), now);
            cache.look_up(&question(&format!("name-{index}.")), |_| None, now);
        }
        keep(&mut cache, "one-more.", positive(60), now);
        let is_known = |cache: &mut Cache, index| {
            cache.look_up(&question(&format!("name-{index}.")), |_| None, now) != Lookup::Unknown
        };
        assert!(is_known(&mut cache, 0) && !is_known(&mut cache, SPARED_MAX));
        assert_eq!(cache.size().0, 500);
    }

    #[test]
    fn octets_are_bounded_and_come_out_even() {
        let now = clock::now();
        let mut cache = Cache::new(CacheLimits { octets_max: 20_000, ..LIMITS }, RandomState::new());
        for index in 0..200 {
            keep(&mut cache, &format!("name-{index}."), positive(60), now);
            keep(&mut cache, &format!("name-{}.", index / 2), positive(60), now);
            let (entries, octets) = cache.size();
            assert!(octets <= 20_000 && entries > 0);
        }
        cache.set_limits(CacheLimits { octets_max: 0, ..LIMITS });
        assert_eq!(cache.size(), (0, 0));
        assert!(cache.order.is_empty());
    }

    #[test]
    fn what_is_greater_than_the_whole_cache_takes_nothing_away() {
        let now = clock::now();
        let mut cache = Cache::new(CacheLimits { octets_max: 4_000, ..LIMITS }, RandomState::new());
        for name in ["a.", "b.", "great."] {
            keep(&mut cache, name, positive(60), now);
        }
        let great = Arc::new(Found { answers: vec![a(60); 200], ..empty() });
        keep(&mut cache, "great.", great, now);
        let known = ["a.", "b.", "great."]
            .map(|name| cache.look_up(&question(name), |_| None, now) != Lookup::Unknown);
        assert_eq!(known, [true, true, false], "but for what it was to replace, which is not true any more");
    }

    #[test]
    fn questions_with_and_without_signatures_are_apart() {
        let (mut cache, now) = (Cache::new(LIMITS, RandomState::new()), clock::now());
        keep(&mut cache, "a.", positive(60), now);
        let signed = Question { dnssec_ok: true, ..question("a.") };
        assert_eq!(cache.look_up(&signed, |_| None, now), Lookup::Unknown);
    }

    /// The TTL in the answer to a question that a client asks again.
    fn again(cache: &Cache, name: &str, rules: Rules, now: Instant) -> Option<u32> {
        let packet =
            question(name).outgoing(&[0; RANDOM_OCTETS], Letters::Lower, WithEdns::No).unwrap().packet;
        let mut out = Vec::new();
        let plain = PlainQuery::read(&packet).unwrap();
        let rcode = cache.answer((&plain, rules), now, Transport::Udp, &mut out)?;
        let message = Message::from_vec(&out).unwrap();
        assert_eq!(message.metadata.response_code, rcode);
        Some(message.answers[0].ttl)
    }

    const LIMITS: CacheLimits =
        CacheLimits { entries_max: 1_000, octets_max: 1_000_000, stale_max: Duration::from_secs(3600) };

    fn question(name: &str) -> Question {
        let name = Name::from_ascii(name).unwrap();
        Question { name, kind: RecordType::A, dnssec_ok: false, checking_disabled: false }
    }

    fn keep(cache: &mut Cache, name: &str, found: Arc<Found>, now: Instant) {
        let question = question(name);
        let encoded = Encoded::new(&question, &found);
        cache.insert(&question, (found, encoded), now);
    }

    fn empty() -> Found {
        let (answers, authority) = (Vec::new(), Vec::new());
        let (rcode, explanations) = (ResponseCode::NoError, Explanations::default());
        let (is_authentic, is_negative, open) = (false, false, None);
        Found { rcode, answers, authority, is_authentic, is_negative, open, explanations }
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
