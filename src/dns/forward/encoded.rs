//! An answer of upstreams as it stands in a message behind its question, to be given again without decoding or encoding anything.
//!
//! - The owner of the question's own records is a pointer to the question, so that every caller finds its own letters there. No other name
//!   points into the question: a caller's letters show nowhere else.
//! - A copy gets the rest of each TTL, whose places are known.
//! - Addresses take turns in being the first, for many clients take that one, as Unbound has it by default (rrset-roundrobin).
//!
//! That it says what the slow way says is tested (`dns::handler`'s tests).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;

use super::cache::TTL_MAX;
use super::question::Question;
use super::reply::Found;
use crate::dns::compression::Names;
use crate::dns::head::HEADER_OCTETS;
use crate::dns::plain::{Behind, PlainQuery, TYPE_AND_CLASS, Verdict};
use crate::dns::transport::Transport;

/// An answer in octets.
#[derive(Debug)]
pub(super) struct Encoded {
    records: Box<[u8]>,
    /// Where in them TTLs stand.
    ttls: Box<[u16]>,
    /// The numbers of answers and authorities.
    counts: [u16; 2],
    rcode: ResponseCode,
    is_authentic: bool,
    /// What its OPT record holds.
    options: Box<[u8]>,
    addresses: Option<Addresses>,
    /// How often it was given.
    turns: AtomicUsize,
}

/// Records of addresses one behind the other that differ in nothing but their data, so that they can change places, and nothing points to
/// any of them.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    /// Where in the records they begin.
    start: usize,
    /// How many there are.
    count: usize,
    /// Octets of each.
    octets: usize,
}

impl Encoded {
    /// The answer to `question`; `None` when it is longer than any message.
    pub(super) fn new(question: &Question, found: &Found) -> Option<Self> {
        let count = |records: &[Record]| u16::try_from(records.len()).ok();
        let counts = [count(&found.answers)?, count(&found.authority)?];
        // As long as it is in every packet that asks for it.
        let start = HEADER_OCTETS + question.name_octets() + TYPE_AND_CLASS;
        let mut octets = vec![0; start];
        let mut encoder = BinEncoder::with_offset(&mut octets, u32::try_from(start).ok()?);
        let (mut ttls, mut ends, mut names) = (Vec::new(), Vec::new(), Names::behind(&question.name));
        let ttl_max = u32::try_from(TTL_MAX.as_secs()).unwrap_or(u32::MAX);
        for record in found.answers.iter().chain(&found.authority) {
            let ttl_at = names.emit(record, record.ttl.min(ttl_max), &mut encoder).ok()?;
            ttls.push(u16::try_from(ttl_at - start).ok()?);
            ends.push(encoder.offset() - start);
        }
        let records: Box<[u8]> = octets[start..].into();
        let addresses = Addresses::among((&records, &ttls, &ends), question.kind, &found.answers);
        let (ttls, options, turns) = (ttls.into(), found.explanations.encoded(), AtomicUsize::new(0));
        let Found { rcode, is_authentic, .. } = *found;
        Some(Self { records, ttls, counts, rcode, is_authentic, options, addresses, turns })
    }

    /// Octets that it takes.
    pub(super) fn octets(&self) -> usize {
        self.records.len() + self.ttls.len() * size_of::<u16>() + self.options.len()
    }

    /// Writes the answer of that age to `out` and says its code, if the client takes as much.
    pub(super) fn write(
        &self,
        query: &PlainQuery<'_>,
        age: Duration,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Option<ResponseCode> {
        let [answers, authorities] = self.counts;
        let counts = [answers, authorities, 0];
        let behind = Behind { counts, records: &self.records, options: &self.options };
        if !query.takes(behind, transport) {
            return None;
        }
        let verdict = Verdict {
            rcode: self.rcode,
            is_authoritative: false,
            is_recursive: true,
            is_authentic: self.is_authentic && query.wants_authentic(),
        };
        query.write_reply(verdict, behind, out);
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let records = &mut out[query.end()..];
        for at in &self.ttls {
            if let Some(ttl) = records[usize::from(*at)..].first_chunk_mut() {
                *ttl = u32::from_be_bytes(*ttl).saturating_sub(age).to_be_bytes();
            }
        }
        if let Some(Addresses { start, count, octets }) = self.addresses {
            let first = self.turns.fetch_add(1, Ordering::Relaxed) % count;
            records[start..start + count * octets].rotate_left(first * octets);
        }
        Some(self.rcode)
    }
}

impl Addresses {
    /// Those of the asked type, if they stand together, as they do behind aliases and before signatures.
    fn among(
        (records, ttls, ends): (&[u8], &[u16], &[usize]),
        kind: RecordType,
        answers: &[Record],
    ) -> Option<Self> {
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return None;
        }
        let is_address = |record: &Record| record.record_type() == kind;
        let first = answers.iter().position(is_address)?;
        let count = answers[first..].iter().take_while(|record| is_address(record)).count();
        let is_whole = !answers[first + count..].iter().any(is_address);
        let start_of = |place: usize| place.checked_sub(1).map_or(0, |before| ends[before]);
        // Owner, type and class.
        let head_of = |place: usize| &records[start_of(place)..usize::from(ttls[place])];
        let octets_of = |place: usize| ends[place] - start_of(place);
        let is_like_first = |place| head_of(place) == head_of(first) && octets_of(place) == octets_of(first);
        let is_alike = (first..first + count).all(is_like_first);
        (count > 1 && is_whole && is_alike).then(|| Self {
            start: start_of(first),
            count,
            octets: octets_of(first),
        })
    }
}
