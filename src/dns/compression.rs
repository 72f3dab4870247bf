//! Names that stand in a message already, written as pointers to there (RFC 1035 section 4.1.4).
//!
//! hickory's encoder does so itself, and gives it up after 120 names of a message, since it searches among those before. An answer over TCP has
//! thousands of records: what upstreams have compressed would not fit into a message any more. Most owners need no search: they are the
//! question's name, or the target of an SRV record. The ends of all others, and of those names in data that may be compressed (RFC 3597
//! section 4), are looked up in a map.
//!
//! That owners of answers are pointers to the question also lets [`super::fast`] give the same octets to callers with other letters. Other
//! names are written as they are, letter by letter.

use std::collections::BTreeMap;
use std::iter;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{CNAME, NS, PTR};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use rustc_hash::FxHashMap;

use super::head::HEADER_OCTETS;

/// The upper bits of a pointer.
const POINTER: u16 = 0xc000;
/// Octets of an SRV record's data before its target: priority, weight, port (RFC 2782).
const BEFORE_TARGET_OCTETS: usize = 6;

/// Where in a message names stand.
#[derive(Debug)]
pub(super) struct Names<'a> {
    question: Option<&'a Name>,
    /// Whether names that end as the question does may point into it.
    has_letters: bool,
    /// SRV targets that will own records.
    targets: FxHashMap<&'a Name, u16>,
    has_targets: bool,
    /// The ends of names, without the root. Upstreams choose these.
    ends: BTreeMap<Vec<u8>, u16>,
}

impl<'a> Names<'a> {
    /// Those of a message with this question, if any, behind its header. `has_targets` says that additional records are to follow.
    pub(super) fn of(question: Option<&'a Name>, has_targets: bool) -> Self {
        let (targets, ends) = (FxHashMap::default(), BTreeMap::new());
        Self { question, has_letters: true, targets, has_targets, ends }
    }

    /// Those of records that stand behind the question in whatever letters: only what it owns points to it.
    pub(super) fn behind(question: &'a Name) -> Self {
        Self { has_letters: false, ..Self::of(Some(question), false) }
    }

    /// Writes a record with this TTL, and says where that stands.
    pub(super) fn emit(
        &mut self,
        record: &'a Record,
        ttl: u32,
        encoder: &mut BinEncoder<'_>,
    ) -> Result<usize, ProtoError> {
        match self.place_of(&record.name) {
            Some(place) => encoder.emit_u16(POINTER | place)?,
            None => self.emit_name(&record.name, encoder)?,
        }
        record.record_type().emit(encoder)?;
        record.dns_class.emit(encoder)?;
        let ttl_at = encoder.offset();
        encoder.emit_u32(ttl)?;
        let length = encoder.place::<u16>()?;
        let target_at = encoder.offset() + BEFORE_TARGET_OCTETS;
        self.emit_data(&record.data, encoder)?;
        let octets = u16::try_from(encoder.len_since_place(&length)).expect("no message is longer");
        length.replace(encoder, octets)?;
        if let (RData::SRV(srv), true) = (&record.data, self.has_targets)
            && let Some(place) = place(target_at)
        {
            // SRV targets are never compressed themselves (RFC 2782).
            self.targets.entry(&srv.target).or_insert(place);
        }
        Ok(ttl_at)
    }

    /// Forgets what stood at `end` or behind, which is taken back.
    pub(super) fn take_back(&mut self, end: usize) {
        self.targets.retain(|_, place| usize::from(*place) < end);
        self.ends.retain(|_, place| usize::from(*place) < end);
    }

    fn place_of(&self, owner: &Name) -> Option<u16> {
        let is_question = self.question.is_some_and(|name| name == owner && !name.is_root());
        if is_question { place(HEADER_OCTETS) } else { self.targets.get(owner).copied() }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "names in the others are not to be compressed, or there are none"
    )]
    fn emit_data(&mut self, data: &RData, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        match data {
            RData::CNAME(CNAME(name)) | RData::NS(NS(name)) | RData::PTR(PTR(name)) => {
                self.emit_name(name, encoder)
            }
            RData::MX(mx) => {
                encoder.emit_u16(mx.preference)?;
                self.emit_name(&mx.exchange, encoder)
            }
            RData::SOA(soa) => {
                self.emit_name(&soa.mname, encoder)?;
                self.emit_name(&soa.rname, encoder)?;
                encoder.emit_u32(soa.serial)?;
                for seconds in [soa.refresh, soa.retry, soa.expire] {
                    encoder.emit_i32(seconds)?;
                }
                encoder.emit_u32(soa.minimum)
            }
            others => others.emit(encoder),
        }
    }

    fn emit_name(&mut self, name: &Name, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        if let (true, true, Some(question)) = (self.ends.is_empty(), self.has_letters, self.question) {
            let octets = octets(question);
            self.keep(&octets, octets.len(), HEADER_OCTETS);
        }
        let (octets, start) = (octets(name), encoder.offset());
        let known = begins(&octets).find_map(|at| Some((at, *self.ends.get(&octets[at..])?)));
        let own = known.map_or(octets.len(), |(at, _)| at);
        encoder.emit_vec(&octets[..own])?;
        match known {
            Some((_, place)) => encoder.emit_u16(POINTER | place)?,
            None => encoder.emit(0)?,
        }
        self.keep(&octets, own, start);
        Ok(())
    }

    /// Notes where the ends of a name stand that begin in its first `own` octets, which stand at `start`.
    fn keep(&mut self, octets: &[u8], own: usize, start: usize) {
        for at in begins(octets).take_while(|at| *at < own) {
            if let Some(place) = place(start + at) {
                self.ends.entry(octets[at..].to_vec()).or_insert(place);
            }
        }
    }
}

/// A name as it stands in a message, without the root.
fn octets(name: &Name) -> Vec<u8> {
    let mut octets = Vec::with_capacity(name.len());
    for label in name.iter() {
        octets.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
        octets.extend_from_slice(label);
    }
    octets
}

/// Where the labels of a name begin.
fn begins(octets: &[u8]) -> impl Iterator<Item = usize> {
    let next = move |at: &usize| Some(at + 1 + usize::from(*octets.get(*at)?));
    iter::successors(Some(0), next).take_while(move |at| *at < octets.len())
}

/// What a pointer can point to.
fn place(offset: usize) -> Option<u16> {
    u16::try_from(offset).ok().filter(|place| place & POINTER == 0)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query};
    use hickory_proto::rr::RecordType;
    use hickory_proto::rr::rdata::{A, MX, SOA};
    use proptest::prelude::*;

    use super::*;
    use crate::dns::answer::Answer;
    use crate::dns::reply::{Cut, Limit, Reply};
    use crate::dns::transport::Transport;

    #[test]
    fn thousands_of_names_in_data_take_a_pointer_each() {
        let owner = name("example.com.");
        let answers: Vec<_> = (0..2_500)
            .map(|index| {
                let target = name(&format!("ns-{index}.servers.of.somebody.example."));
                Record::from_rdata(owner.clone(), 60, RData::NS(NS(target)))
            })
            .collect();
        let answer = Answer { answers: answers.clone(), ..Answer::default() };
        let (cut, octets) = encoded("example.com.", answer, Limit::of(Transport::Tcp, None));
        assert_eq!(cut, Cut::Whole);
        // Owner, type, class, TTL, length; the first label, and where the rest of the name stands.
        assert!(octets.len() < 100 + 2_500 * (12 + 8 + 2), "{}", octets.len());
        assert_eq!(Message::from_vec(&octets).unwrap().answers, answers);
    }

    #[test]
    fn nothing_points_to_a_record_that_was_taken_back() {
        let (owner, label) = (name("q.example."), "x".repeat(60));
        let address = Record::from_rdata(owner.clone(), 60, RData::A(A::new(192, 0, 2, 1)));
        let target = name(&format!("{label}.{label}.{label}.other."));
        let mut answers = vec![address; 23];
        answers.push(Record::from_rdata(owner, 60, RData::NS(NS(target))));
        let data = RData::SOA(SOA::new(name("other."), name("other."), 1, 2, 3, 4, 5));
        let authority = vec![Record::from_rdata(name("other."), 60, data)];
        let answer = Answer { answers, authority: authority.clone(), ..Answer::default() };
        let (cut, octets) = encoded("q.example.", answer, Limit::of(Transport::Udp, None));
        assert_eq!(cut, Cut::Truncated);
        let read = Message::from_vec(&octets).unwrap();
        assert_eq!((read.answers.len(), read.authorities), (23, authority));
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_read_as_it_was(
            question in names(), answers in records(0..30), authority in records(0..4), octets_max in 512..700_u16, is_whole: bool,
        ) {
            let limit = if is_whole { Limit::of(Transport::Tcp, None) } else { Limit::Packet(octets_max) };
            let answer = Answer { answers: answers.clone(), authority: authority.clone(), ..Answer::default() };
            let (_, octets) = encoded(&question, answer, limit);
            let read = Message::from_vec(&octets).unwrap();
            prop_assert!(!is_whole || read.answers.len() == answers.len() && read.authorities.len() == authority.len());
            let asked = name(&question);
            for (read, written) in read.answers.iter().zip(&answers).chain(read.authorities.iter().zip(&authority)) {
                // Owners are written in the question's letters.
                let owner = if written.name == asked { &asked } else { &written.name };
                prop_assert_eq!(read.name.to_string(), owner.to_string());
                prop_assert_eq!(read.data.to_string(), written.data.to_string());
            }
        }
    }

    fn encoded(question: &str, answer: Answer, limit: Limit) -> (Cut, Vec<u8>) {
        let query = Query::query(name(question), RecordType::A);
        let metadata = Metadata::response_from_request(&Metadata::new(7, MessageType::Query, OpCode::Query));
        let mut out = Vec::new();
        let cut = Reply::new(metadata, query, answer, None, limit).encode(&mut out).unwrap();
        (cut, out)
    }

    fn names() -> impl Strategy<Value = String> {
        // Few labels, so that many names have ends in common, in other letters, too.
        "((a|B|b|Long-label-1)\\.){0,4}(example|Example)\\.|\\."
    }

    fn records(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Record>> {
        let named = || names().prop_map(|text| name(&text));
        let data = prop_oneof![
            Just(RData::A(A::new(192, 0, 2, 1))),
            named().prop_map(|name| RData::CNAME(CNAME(name))),
            named().prop_map(|name| RData::PTR(PTR(name))),
            named().prop_map(|name| RData::MX(MX::new(7, name))),
            (named(), named()).prop_map(|(one, other)| RData::SOA(SOA::new(one, other, 1, 2, 3, 4, 5))),
        ];
        let record = (named(), data).prop_map(|(owner, data)| Record::from_rdata(owner, 60, data));
        proptest::collection::vec(record, count)
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }
}
