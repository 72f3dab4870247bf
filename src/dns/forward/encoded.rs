//! An answer of upstreams as it stands in a message behind its question, to be given again without decoding or encoding anything.
//!
//! - The owner of the question's own records is a pointer to the question, so that every caller finds its own letters there. No other name
//!   points into the question: a caller's letters show nowhere else.
//! - A copy gets the rest of each TTL, whose places are known.
//!
//! That it says what the slow way says is tested (`dns::handler`'s tests).

use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record, RecordData};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::cache::TTL_MAX;
use super::question::Question;
use super::reply::Found;
use crate::dns::handler::Transport;
use crate::dns::head::HEADER_OCTETS;
use crate::dns::plain::{Behind, PlainQuery, TYPE_AND_CLASS, Verdict};

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
        let mut ttls = Vec::new();
        for record in found.answers.iter().chain(&found.authority) {
            let ttl_at = emit(&mut encoder, record, record.name == question.name).ok()?;
            ttls.push(u16::try_from(ttl_at - start).ok()?);
        }
        let (records, ttls, options) = (octets[start..].into(), ttls.into(), found.explanations.encoded());
        let Found { rcode, is_authentic, .. } = *found;
        Some(Self { records, ttls, counts, rcode, is_authentic, options })
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
        Some(self.rcode)
    }
}

/// Writes a record, whose owner is that of the question or not, and says where its TTL stands.
fn emit(encoder: &mut BinEncoder<'_>, record: &Record, is_of_question: bool) -> Result<usize, ProtoError> {
    if is_of_question {
        encoder.emit_u16(POINTER_TO_QUESTION)?;
    } else {
        record.name.emit(encoder)?;
    }
    record.record_type().emit(encoder)?;
    record.dns_class.emit(encoder)?;
    let ttl_at = encoder.offset();
    encoder.emit_u32(record.ttl.min(u32::try_from(TTL_MAX.as_secs()).unwrap_or(u32::MAX)))?;
    let length = encoder.place::<u16>()?;
    // An update's record has none at all.
    if !RData::is_update(&record.data) {
        record.data.emit(encoder)?;
    }
    let octets = encoder.len_since_place(&length);
    length.replace(encoder, u16::try_from(octets).unwrap_or(u16::MAX))?;
    Ok(ttl_at)
}

/// A name that is the one right behind the header (RFC 1035 section 4.1.4).
const POINTER_TO_QUESTION: u16 = 0xc00c;
