//! A whole answer, and its octets.
//!
//! Answers are encoded record by record with hickory's encoder. Its `MessageResponse` would set TC when only
//! additional records are left out, and leave out the OPT record first, which RFC 6891 section 7 forbids.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, Query, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::answer::{Answer, ExtendedError};
use super::compression::Names;
use super::cookie::OPTION_COOKIE;
use super::transport::Transport;

/// Octets of the longest answer over UDP, so that it is never fragmented (RFC 9715 section 3).
pub(super) const UDP_OCTETS_MAX: u16 = 1232;
/// Octets of the longest answer for clients without EDNS (RFC 1035 section 4.2.1).
const PLAIN_OCTETS_MAX: u16 = 512;

/// A whole answer before it is encoded.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) metadata: Metadata,
    pub(super) query: Option<Query>,
    pub(super) answer: Answer,
    edns: Option<Edns>,
    limit: Limit,
}

/// How long a reply may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// A packet of so many octets; what does not fit can be asked for over TCP.
    Packet(u16),
    /// The longest message that there is.
    Message,
}

/// What was left out of a reply, of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nothing.
    Whole,
    /// Something, and TC is set.
    Truncated,
    /// Something, and there is no longer way to ask.
    Shortened,
}

impl Limit {
    /// That of a reply to a client that offers to take so many octets over UDP, by EDNS (RFC 6891 section 6.2.5).
    pub(super) fn of(transport: Transport, offered: Option<u16>) -> Self {
        match (transport, offered) {
            (Transport::Tcp, _) => Self::Message,
            (Transport::Udp, None) => Self::Packet(PLAIN_OCTETS_MAX),
            (Transport::Udp, Some(octets)) => Self::Packet(octets.clamp(PLAIN_OCTETS_MAX, UDP_OCTETS_MAX)),
        }
    }

    pub(super) const fn octets(self) -> u16 {
        match self {
            Self::Packet(octets) => octets,
            Self::Message => u16::MAX,
        }
    }
}

impl Reply {
    pub(super) fn new(
        metadata: Metadata,
        query: Query,
        answer: Answer,
        edns: Option<Edns>,
        limit: Limit,
    ) -> Self {
        let mut reply = Self { metadata, query: Some(query), answer, edns, limit };
        reply.metadata.response_code = reply.answer.rcode;
        reply.metadata.authoritative = reply.answer.is_authoritative;
        reply.metadata.recursion_available = reply.answer.is_recursive;
        reply.metadata.authentic_data = reply.answer.is_authentic;
        reply
    }

    /// A code alone, to what may have had no question that can be read.
    pub(super) fn bare(
        mut metadata: Metadata,
        rcode: ResponseCode,
        query: Option<Query>,
        edns: Option<Edns>,
    ) -> Self {
        metadata.response_code = rcode;
        Self { metadata, query, answer: Answer::default(), edns, limit: Limit::Packet(PLAIN_OCTETS_MAX) }
    }

    /// Writes the answer with as many whole records as fit, the question's own before additional ones, and the
    /// OPT record always. Says what was left out; TC is set when records that were asked for did not fit into a packet, and only then.
    ///
    /// With a zone of the greatest length, one SRV record may not fit into 512 octets. Then TC stands over no
    /// record at all, which sends the client to TCP (RFC 2181 section 9).
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<Cut, ProtoError> {
        let mut encoder = BinEncoder::new(out);
        let limit = usize::from(self.limit.octets() - self.edns.as_ref().map_or(0, opt_octets));
        let header = encoder.place::<Header>()?;
        if let Some(query) = &self.query {
            query.emit(&mut encoder)?;
        }
        let Answer { answers, authority, additional, .. } = &self.answer;
        let mut names = Names::of(self.query.as_ref().map(Query::name), !additional.is_empty());
        let mut emit = |records, encoder: &mut _| emit_whole(encoder, &mut names, records, limit);
        let (answers, authorities) = (emit(answers, &mut encoder)?, emit(authority, &mut encoder)?);
        let is_cut = usize::from(answers) < self.answer.answers.len()
            || usize::from(authorities) < self.answer.authority.len();
        let mut additionals = 0;
        if !is_cut {
            // A set that does not fit is left out as a whole (RFC 2181 section 9).
            for set in additional.chunk_by(is_same_set) {
                let (start, count) = (encoder.offset(), emit(set, &mut encoder)?);
                if usize::from(count) < set.len() {
                    encoder.set_offset(start);
                    encoder.trim();
                    break;
                }
                additionals += count;
            }
        }
        if let Some(edns) = &self.edns {
            edns.emit(&mut encoder)?;
            additionals += 1;
        }
        let mut metadata = self.metadata;
        // Over TCP there is nothing better to ask for, and TC would send the client round for ever.
        metadata.truncation = is_cut && self.limit != Limit::Message;
        let queries = u16::from(self.query.is_some());
        let counts = HeaderCounts { queries, answers, authorities, additionals };
        header.replace(&mut encoder, Header { metadata, counts })?;
        encoder.trim();
        Ok(match (is_cut, self.limit) {
            (false, _) => Cut::Whole,
            (true, Limit::Packet(_)) => Cut::Truncated,
            (true, Limit::Message) => Cut::Shortened,
        })
    }

    /// The numbers of its records and their octets, without OPT, of the whole that [`Self::encode`] wrote to `out`, where the question
    /// ends at `question_end`; `None` when additional records were left out.
    pub(super) fn body<'a>(&self, out: &'a [u8], question_end: usize) -> Option<([u16; 3], &'a [u8])> {
        let opt_octets = self.edns.as_ref().map_or(0, opt_octets);
        let body = out.get(question_end..out.len().checked_sub(usize::from(opt_octets))?)?;
        let Answer { answers, authority, additional, .. } = &self.answer;
        let counts =
            [answers.len(), authority.len(), additional.len()].map(|count| u16::try_from(count).ok());
        let [Some(answers), Some(authorities), Some(additionals)] = counts else { return None };
        let written = u16::from_be_bytes([*out.get(10)?, *out.get(11)?]) - u16::from(self.edns.is_some());
        (written == additionals).then_some(([answers, authorities, additionals], body))
    }

    /// The same for an answer that is [`Self::bare`], which always fits.
    pub(super) fn encode_bare(&self, out: &mut Vec<u8>) {
        out.clear();
        if self.encode(out).is_err() {
            out.clear();
        }
    }
}

/// Writes records until one does not fit into `limit` octets, and says how many did.
///
/// The encoder writes a name whole before it finds it compressible, so its own limit would refuse a last record
/// that does fit; it is left at the largest message, and the record taken back here.
fn emit_whole<'a>(
    encoder: &mut BinEncoder<'_>,
    names: &mut Names<'a>,
    records: &'a [Record],
    limit: usize,
) -> Result<u16, ProtoError> {
    let mut count = 0;
    for record in records {
        let start = encoder.offset();
        let fits = match names.emit(record, record.ttl, encoder) {
            Ok(_) => encoder.offset() <= limit,
            Err(ProtoError::MaxBufferSizeExceeded(_)) => false,
            Err(error) => return Err(error),
        };
        if !fits {
            encoder.set_offset(start);
            encoder.trim();
            names.take_back(start);
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// Whether two records are of one set (RFC 2181 section 5).
fn is_same_set(one: &Record, other: &Record) -> bool {
    one.record_type() == other.record_type() && one.name == other.name
}

/// Our OPT record for a client that sent one (RFC 6891 section 6.1.1).
pub(super) fn answer_edns(asked: &Edns, answer: &Answer, cookie: Option<Vec<u8>>) -> Edns {
    let mut edns = bare_edns();
    edns.set_dnssec_ok(asked.flags().dnssec_ok); // RFC 3225 section 3
    edns.set_rcode_high(answer.rcode.high());
    if let Some(cookie) = cookie {
        edns.options_mut().insert(EdnsOption::Unknown(OPTION_COOKIE, cookie));
    }
    if let Some(extended) = answer.extended {
        edns.options_mut().insert(extended_error_option(extended));
    }
    for option in answer.passed_on.options() {
        edns.options_mut().insert(option);
    }
    edns
}

/// Our OPT record for a client whose own cannot be read.
pub(super) fn bare_edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_OCTETS_MAX);
    edns
}

/// RFC 8914 section 2.
fn extended_error_option(extended: ExtendedError) -> EdnsOption {
    let text = match extended {
        ExtendedError::StaleAnswer | ExtendedError::StaleNxDomain => "",
        ExtendedError::NoReachableAuthority => "no ensemble reached yet",
        ExtendedError::NotRead => "instances not read yet",
        ExtendedError::Forwarding(trouble) => trouble.text(),
    };
    let mut data = extended.code().to_be_bytes().to_vec();
    data.extend_from_slice(text.as_bytes());
    EdnsOption::Unknown(OPTION_EXTENDED_ERROR, data)
}

/// Octets of the OPT record: root, type, class, TTL, length; then code, length and data of each option.
fn opt_octets(edns: &Edns) -> u16 {
    11 + edns.options().options.iter().map(|(_, option)| 4 + option.len()).sum::<u16>()
}

/// RFC 8914 section 5.2.
pub(super) const OPTION_EXTENDED_ERROR: u16 = 15;
