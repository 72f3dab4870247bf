//! Names of records, written as pointers to where their names stand already (RFC 1035 section 4.1.4).
//!
//! hickory's encoder looks for such a place itself, and gives that up after 120 names of a message, since it searches. An answer over
//! TCP has thousands of records, but no owner of ours needs a search: it is the question's name, or the target of an SRV record.
//!
//! That owners of answers are pointers to the question also lets [`super::fast`] give the same octets to callers with other letters.

use hickory_proto::ProtoError;
use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use rustc_hash::FxHashMap;

use super::head::HEADER_OCTETS;

/// The upper bits of a pointer.
const POINTER: u16 = 0xc000;
/// Octets of an SRV record's data before its target: priority, weight, port (RFC 2782).
const BEFORE_TARGET_OCTETS: usize = 6;

/// Where in a message names stand that own records.
#[derive(Debug)]
pub(super) struct Names<'a> {
    question: Option<&'a Name>,
    targets: FxHashMap<&'a Name, u16>,
    /// Whether targets will own records.
    has_targets: bool,
}

impl<'a> Names<'a> {
    /// Those of a message with this question, if any, behind its header. `has_targets` says that additional records are to follow.
    pub(super) fn of(question: Option<&'a Query>, has_targets: bool) -> Self {
        Self { question: question.map(Query::name), targets: FxHashMap::default(), has_targets }
    }

    /// Writes a record.
    pub(super) fn emit(
        &mut self,
        record: &'a Record,
        encoder: &mut BinEncoder<'_>,
    ) -> Result<(), ProtoError> {
        match self.place_of(&record.name) {
            Some(place) => encoder.emit_u16(POINTER | place)?,
            None => record.name.emit(encoder)?,
        }
        record.record_type().emit(encoder)?;
        record.dns_class.emit(encoder)?;
        encoder.emit_u32(record.ttl)?;
        let length = encoder.place::<u16>()?;
        let target_at = encoder.offset() + BEFORE_TARGET_OCTETS;
        record.data.emit(encoder)?;
        let octets = u16::try_from(encoder.len_since_place(&length)).expect("no message is longer");
        length.replace(encoder, octets)?;
        if let (RData::SRV(srv), true) = (&record.data, self.has_targets)
            && let Some(place) = place(target_at)
        {
            // SRV targets are never compressed themselves (RFC 2782).
            self.targets.entry(&srv.target).or_insert(place);
        }
        Ok(())
    }

    fn place_of(&self, owner: &Name) -> Option<u16> {
        let is_question = self.question.is_some_and(|name| name == owner && !name.is_root());
        if is_question { place(HEADER_OCTETS) } else { self.targets.get(owner).copied() }
    }
}

/// What a pointer can point to.
fn place(offset: usize) -> Option<u16> {
    u16::try_from(offset).ok().filter(|place| place & POINTER == 0)
}
