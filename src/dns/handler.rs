//! A packet in, an answer in bytes out: the DNS protocol around [`Knowledge`].
//!
//! ```text
//! packet ─► header ─► (fast path) ─► hickory decodes ─► checks ─► Knowledge::answer ─► encode, cut to size ─► out
//!             │                            │              │              │
//!     silence, NOTIMP, FORMERR          FORMERR    BADVERS, REFUSED      held, and all of it again
//! ```
//!
//! **Where a fast path goes.** A table of pre-encoded answers is asked in [`Handler::answer`], right after the
//! header was read and before anything is decoded. It sees the whole packet, writes the whole answer to `out` and
//! counts it as the slow path does, or leaves the packet to the slow path, which can answer everything.
//!
//! Answers are encoded record by record with hickory's encoder. Its `MessageResponse` would set TC when only
//! additional records are left out, and leave out the OPT record first, which RFC 6891 section 7 forbids.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use tracing::{debug, error};

use super::Ttls;
use super::answer::{Answer, ExtendedError, Freshness, Knowledge};
use super::name::Zone;
use crate::registry::{Cache, Demand, Held};
use crate::telemetry::{DnsKind, DnsRcode, Metrics};

/// Answers packets from the cache. Shared by all sockets; never waits, never panics on any packet.
#[derive(Debug)]
pub struct Handler {
    cache: Arc<Cache>,
    /// Where what is not followed is asked for.
    demand: Option<Arc<Demand>>,
    served: ArcSwap<Served>,
    metrics: Arc<Metrics>,
}

/// What is answered for, and how long answers may be kept.
#[derive(Debug)]
struct Served {
    zone: Zone,
    ttls: Ttls,
}

/// What carried a packet, which decides how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// At most what the client offered and [`UDP_OCTETS_MAX`].
    Udp,
    /// At most 65 535 octets, the frame's limit.
    Tcp,
}

/// What became of a packet.
#[derive(Debug)]
pub enum Outcome {
    /// The answer is in `out`.
    Reply,
    /// It was no query; nothing is to be sent.
    Silence,
    /// It is about a service whose instances are being read: to be given to [`Handler::answer_held`] once this is ready.
    Hold(Held),
}

/// Octets of the longest answer over UDP, so that it is never fragmented (RFC 9715 section 3).
pub const UDP_OCTETS_MAX: u16 = 1232;
/// Octets of the longest answer for clients without EDNS (RFC 1035 section 4.2.1).
const PLAIN_OCTETS_MAX: u16 = 512;
/// Octets of a header (RFC 1035 section 4.1.1).
const HEADER_OCTETS: usize = 12;

impl Handler {
    /// A handler for one zone.
    pub fn new(cache: Arc<Cache>, zone: Zone, ttls: Ttls, metrics: Arc<Metrics>) -> Self {
        Self { cache, demand: None, served: ArcSwap::from_pointee(Served { zone, ttls }), metrics }
    }

    /// The same handler, which asks for services that are not followed.
    #[must_use]
    pub fn with_demand(self, demand: Option<Arc<Demand>>) -> Self {
        Self { demand, ..self }
    }

    /// Answers for this zone from now on, in answers that may be kept for so long.
    pub fn serve(&self, zone: Zone, ttls: Ttls) {
        self.served.store(Arc::new(Served { zone, ttls }));
    }

    /// Where its queries are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one packet into `out`, whose former content is dropped and whose capacity is used again.
    pub fn answer(
        &self,
        packet: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        self.answer_with(self.demand.as_ref(), packet, client, transport, out)
    }

    /// The same for a packet that was held: with what is known by now.
    pub fn answer_held(
        &self,
        packet: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        self.answer_with(None, packet, client, transport, out)
    }

    fn answer_with(
        &self,
        demand: Option<&Arc<Demand>>,
        packet: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        let Some(head) = Head::read(packet) else {
            self.metrics.dns_dropped.inc();
            return Outcome::Silence;
        };
        let reply = match head.refusal() {
            Some(rcode) => Reply::header_only(head.metadata(), rcode),
            None => match Request::from_bytes(packet.to_vec(), client, transport.into()) {
                Ok(request) => self.reply(&request, transport),
                Err(error) => {
                    debug!(%client, %error, "malformed query");
                    Reply::header_only(head.metadata(), ResponseCode::FormErr)
                }
            },
        };
        if let (Some(demand), Some(service)) = (demand, &reply.answer.wanted)
            && let Some(held) = demand.hold(&self.cache, service)
        {
            return Outcome::Hold(held);
        }
        let kind = reply.query.as_ref().map_or(DnsKind::Other, |query| dns_kind(query.query_type()));
        let is_truncated = reply.encode(out).unwrap_or_else(|error| {
            error!(%client, %error, "an answer cannot be encoded");
            Reply::header_only(head.metadata(), ResponseCode::ServFail).encode_header_only(out);
            false
        });
        if is_truncated {
            self.metrics.dns_truncated.inc();
        }
        self.metrics.count_dns_query(kind, dns_rcode(reply.metadata.response_code));
        debug!(%client, query = ?reply.query, rcode = %reply.metadata.response_code, is_truncated, "query");
        Outcome::Reply
    }

    fn reply(&self, request: &Request, transport: Transport) -> Reply {
        let metadata = Metadata::response_from_request(&request.metadata);
        let [query] = request.queries.queries() else {
            return Reply::header_only(metadata, ResponseCode::FormErr);
        };
        let query = query.original().clone();
        let answer = if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            Answer { rcode: ResponseCode::BADVERS, ..Answer::default() }
        } else if query.query_class() != DNSClass::IN {
            Answer { rcode: ResponseCode::Refused, ..Answer::default() }
        } else {
            self.look_up(&query)
        };
        let limit = match (transport, &request.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => PLAIN_OCTETS_MAX,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_OCTETS_MAX, UDP_OCTETS_MAX),
        };
        let edns = request.edns.as_ref().map(|asked| answer_edns(asked, &answer));
        Reply::new(metadata, query, answer, edns, limit)
    }

    fn look_up(&self, query: &Query) -> Answer {
        let view = self.cache.load();
        let freshness = if self.cache.is_stale() { Freshness::Stale } else { Freshness::Current };
        let served = self.served.load();
        let knowledge = Knowledge { view: &view, freshness, zone: &served.zone, ttls: served.ttls };
        knowledge.answer(query.name(), query.query_type(), &mut fastrand::Rng::new())
    }
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
        }
    }
}

/// What the first four fields of a query say, read before anything that a malformed packet could break.
#[derive(Clone, Copy, Debug)]
struct Head {
    id: u16,
    op_code: OpCode,
    is_recursion_desired: bool,
    questions: u16,
}

impl Head {
    /// `None` for what must not be answered: too short to have an id, or itself an answer (QR), since two
    /// servers that answer answers would never stop.
    fn read(packet: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_OCTETS] = packet.first_chunk()?;
        let flags = header[2];
        let is_response = flags & 0x80 != 0;
        (!is_response).then_some(Self {
            id: u16::from_be_bytes([header[0], header[1]]),
            op_code: OpCode::from_u8((flags >> 3) & 0x0f),
            is_recursion_desired: flags & 0x01 != 0,
            questions: u16::from_be_bytes([header[4], header[5]]),
        })
    }

    /// The code for what is refused by its header alone.
    fn refusal(self) -> Option<ResponseCode> {
        if self.op_code != OpCode::Query {
            Some(ResponseCode::NotImp)
        } else if self.questions != 1 {
            Some(ResponseCode::FormErr)
        } else {
            None
        }
    }

    fn metadata(self) -> Metadata {
        let mut metadata = Metadata::new(self.id, MessageType::Response, self.op_code);
        metadata.recursion_desired = self.is_recursion_desired;
        metadata
    }
}

/// A whole answer before it is encoded.
#[derive(Debug)]
struct Reply {
    metadata: Metadata,
    query: Option<Query>,
    answer: Answer,
    edns: Option<Edns>,
    limit: u16,
}

impl Reply {
    fn new(metadata: Metadata, query: Query, answer: Answer, edns: Option<Edns>, limit: u16) -> Self {
        let mut reply = Self { metadata, query: Some(query), answer, edns, limit };
        reply.metadata.response_code = reply.answer.rcode;
        reply.metadata.authoritative = reply.answer.is_authoritative;
        reply
    }

    fn header_only(mut metadata: Metadata, rcode: ResponseCode) -> Self {
        metadata.response_code = rcode;
        Self { metadata, query: None, answer: Answer::default(), edns: None, limit: PLAIN_OCTETS_MAX }
    }

    /// Writes the answer with as many whole records as fit, the question's own before additional ones, and the
    /// OPT record always. Says whether TC was set: when records that were asked for did not fit, and only then.
    ///
    /// With a zone of the greatest length, one SRV record may not fit into 512 octets. Then TC stands over no
    /// record at all, which sends the client to TCP (RFC 2181 section 9).
    fn encode(&self, out: &mut Vec<u8>) -> Result<bool, ProtoError> {
        let mut encoder = BinEncoder::new(out);
        let limit = usize::from(self.limit - self.edns.as_ref().map_or(0, opt_octets));
        let header = encoder.place::<Header>()?;
        if let Some(query) = &self.query {
            query.emit(&mut encoder)?;
        }
        let answers = emit_whole(&mut encoder, &self.answer.answers, limit)?;
        let authorities = emit_whole(&mut encoder, &self.answer.authority, limit)?;
        let is_truncated = usize::from(answers) < self.answer.answers.len()
            || usize::from(authorities) < self.answer.authority.len();
        let mut additionals = match is_truncated {
            true => 0,
            false => emit_whole(&mut encoder, &self.answer.additional, limit)?,
        };
        if let Some(edns) = &self.edns {
            edns.emit(&mut encoder)?;
            additionals += 1;
        }
        let mut metadata = self.metadata;
        metadata.truncation = is_truncated;
        let queries = u16::from(self.query.is_some());
        let counts = HeaderCounts { queries, answers, authorities, additionals };
        header.replace(&mut encoder, Header { metadata, counts })?;
        encoder.trim();
        Ok(is_truncated)
    }

    /// The same for an answer without question and records, which always fits.
    fn encode_header_only(&self, out: &mut Vec<u8>) {
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
fn emit_whole(encoder: &mut BinEncoder<'_>, records: &[Record], limit: usize) -> Result<u16, ProtoError> {
    let mut count = 0;
    for record in records {
        let start = encoder.offset();
        let fits = match record.emit(encoder) {
            Ok(()) => encoder.offset() <= limit,
            Err(ProtoError::MaxBufferSizeExceeded(_)) => false,
            Err(error) => return Err(error),
        };
        if !fits {
            encoder.set_offset(start);
            encoder.trim();
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// Our OPT record for a client that sent one (RFC 6891 section 6.1.1).
fn answer_edns(asked: &Edns, answer: &Answer) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_OCTETS_MAX);
    edns.set_dnssec_ok(asked.flags().dnssec_ok); // RFC 3225 section 3
    edns.set_rcode_high(answer.rcode.high());
    if let Some(extended) = answer.extended {
        edns.options_mut().insert(extended_error_option(extended));
    }
    edns
}

/// RFC 8914 section 2.
fn extended_error_option(extended: ExtendedError) -> EdnsOption {
    let text = match extended {
        ExtendedError::StaleAnswer | ExtendedError::StaleNxDomain => "",
        ExtendedError::NoReachableAuthority => "no ensemble reached yet",
        ExtendedError::NotRead => "instances not read yet",
    };
    let mut data = extended.code().to_be_bytes().to_vec();
    data.extend_from_slice(text.as_bytes());
    EdnsOption::Unknown(OPTION_EXTENDED_ERROR, data)
}

/// Octets of the OPT record: root, type, class, TTL, length; then code, length and data of each option.
fn opt_octets(edns: &Edns) -> u16 {
    11 + edns.options().options.iter().map(|(_, option)| 4 + option.len()).sum::<u16>()
}

fn dns_kind(kind: RecordType) -> DnsKind {
    const KINDS: [(RecordType, DnsKind); 8] = [
        (RecordType::A, DnsKind::A),
        (RecordType::AAAA, DnsKind::Aaaa),
        (RecordType::SRV, DnsKind::Srv),
        (RecordType::TXT, DnsKind::Txt),
        (RecordType::PTR, DnsKind::Ptr),
        (RecordType::SOA, DnsKind::Soa),
        (RecordType::NS, DnsKind::Ns),
        (RecordType::ANY, DnsKind::Any),
    ];
    KINDS.iter().find(|(known, _)| *known == kind).map_or(DnsKind::Other, |(_, label)| *label)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are never answered")]
fn dns_rcode(rcode: ResponseCode) -> DnsRcode {
    match rcode {
        ResponseCode::NoError => DnsRcode::NoError,
        ResponseCode::FormErr => DnsRcode::FormErr,
        ResponseCode::NXDomain => DnsRcode::NxDomain,
        ResponseCode::NotImp => DnsRcode::NotImp,
        ResponseCode::Refused => DnsRcode::Refused,
        ResponseCode::BADVERS => DnsRcode::BadVers,
        _ => DnsRcode::ServFail,
    }
}

/// RFC 8914 section 5.2.
const OPTION_EXTENDED_ERROR: u16 = 15;

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::opt::EdnsCode;
    use proptest::prelude::*;

    use super::*;
    use crate::dns::sample::{self, Sample};

    #[test]
    fn an_answer_repeats_id_question_and_flags() {
        let mut query = query("wEb.default.rollcall.internal.", RecordType::A);
        query.metadata.recursion_desired = true;
        query.metadata.checking_disabled = true;
        let answer = ask(&web(), &query);
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::NoError));
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
        assert!(answer.metadata.checking_disabled && !answer.metadata.recursion_available);
        assert_eq!(answer.queries[0].name().to_string(), "wEb.default.rollcall.internal.");
        assert!(
            answer.answers.iter().all(|record| record.name.to_string() == "wEb.default.rollcall.internal.")
        );
        assert_eq!(answer.answers.len(), 2);
        assert!(answer.edns.is_none(), "no OPT for clients that sent none");
    }

    #[test]
    fn owners_are_compressed_against_the_question() {
        let bytes = raw(
            &web(),
            &query("web.default.rollcall.internal.", RecordType::A).to_vec().unwrap(),
            Transport::Udp,
        );
        // Header, question (31 + 4), and two records of 2 + 10 + 4.
        assert_eq!(bytes.len(), 12 + 35 + 2 * 16);
    }

    #[test]
    fn what_is_no_query_is_met_with_silence() {
        let good = query("web.default.rollcall.internal.", RecordType::A).to_vec().unwrap();
        for length in 0..HEADER_OCTETS {
            assert!(raw(&web(), &good[..length], Transport::Udp).is_empty());
        }
        let mut response = good;
        response[2] |= 0x80;
        assert!(raw(&web(), &response, Transport::Tcp).is_empty());
        response.truncate(20);
        assert!(raw(&web(), &response, Transport::Udp).is_empty(), "malformed and a response");
    }

    #[test]
    fn other_opcodes_are_not_implemented() {
        for op_code in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::Unknown(9)] {
            let mut query = query("web.default.rollcall.internal.", RecordType::A);
            query.metadata.op_code = op_code;
            let answer = ask(&web(), &query);
            assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
            assert_eq!((answer.metadata.id, answer.metadata.op_code), (7, op_code));
        }
    }

    #[test]
    fn anything_but_one_question_is_a_format_error() {
        let mut none = query("web.default.rollcall.internal.", RecordType::A);
        none.queries.clear();
        let mut two = query("web.default.rollcall.internal.", RecordType::A);
        two.queries.push(two.queries[0].clone());
        for query in [none, two] {
            let answer = ask(&web(), &query);
            assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::FormErr));
        }
    }

    #[test]
    fn malformed_queries_are_format_errors() {
        let good = query("web.default.rollcall.internal.", RecordType::A).to_vec().unwrap();
        let cut = good[..good.len() - 1].to_vec();
        let mut pointer_loop = good[..HEADER_OCTETS].to_vec();
        pointer_loop.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        let mut lying_counts = good.clone();
        lying_counts[11] = 200;
        let mut two_opts = query("web.default.rollcall.internal.", RecordType::A);
        two_opts.set_edns(Edns::new());
        let mut two_opts = two_opts.to_vec().unwrap();
        two_opts.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        two_opts[11] = 2;
        for packet in [cut, pointer_loop, lying_counts, two_opts] {
            let answer = Message::from_vec(&raw(&web(), &packet, Transport::Udp)).unwrap();
            assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::FormErr));
        }
    }

    #[test]
    fn other_classes_are_refused() {
        for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE] {
            let mut query = query("web.default.rollcall.internal.", RecordType::A);
            query.queries[0].set_query_class(class);
            assert_eq!(ask(&web(), &query).metadata.response_code, ResponseCode::Refused);
        }
    }

    #[test]
    fn edns_is_answered_with_our_size_version_0_and_the_do_bit() {
        let mut query = with_edns("web.default.rollcall.internal.", RecordType::A, 4096);
        query.edns.as_mut().unwrap().set_dnssec_ok(true);
        let edns = ask(&web(), &query).edns.unwrap();
        assert_eq!((edns.max_payload(), edns.version()), (UDP_OCTETS_MAX, 0));
        assert!(edns.flags().dnssec_ok && edns.options().options.is_empty());
    }

    #[test]
    fn later_edns_versions_are_told_ours() {
        let mut query = with_edns("web.default.rollcall.internal.", RecordType::A, 4096);
        query.edns.as_mut().unwrap().set_version(1);
        let answer = ask(&web(), &query);
        // 16 means BADVERS in an OPT record and BADSIG in a TSIG record; hickory reads it as the latter.
        assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
        assert_eq!(answer.edns.unwrap().version(), 0);
        assert!(answer.answers.is_empty());
    }

    #[test]
    fn extended_errors_go_to_clients_with_edns_only() {
        let name = "web.default.rollcall.internal.";
        let mut stale = web();
        stale.freshness = Freshness::Stale;
        let handler = stale.into_handler();
        assert_eq!(
            extended(&ask_handler(&handler, &with_edns(name, RecordType::A, 1232))),
            Some((3, String::new()))
        );
        assert!(ask_handler(&handler, &query(name, RecordType::A)).edns.is_none());
        let never = Sample::never_loaded().into_handler();
        let answer = ask_handler(&never, &with_edns(name, RecordType::A, 1232));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(extended(&answer), Some((22, "no ensemble reached yet".to_owned())));
    }

    #[test]
    fn a_query_about_what_is_not_followed_is_held_once_and_answered_with_what_has_come() {
        let (handler, cache) = web().unfollowed("web").into_handler_and_cache();
        let demand = Arc::<Demand>::default();
        let handler = handler.with_demand(Some(demand.clone()));
        let packet = with_edns("web.default.rollcall.internal.", RecordType::A, 1232).to_vec().unwrap();
        let mut out = Vec::new();
        let answer = |out: &Vec<u8>| Message::from_vec(out).unwrap();
        let outcome = handler.answer(&packet, client(), Transport::Udp, &mut out);
        assert!(matches!(outcome, Outcome::Hold(_)), "{outcome:?}");
        assert!(matches!(handler.answer_held(&packet, client(), Transport::Udp, &mut out), Outcome::Reply));
        assert_eq!(answer(&out).metadata.response_code, ResponseCode::ServFail);
        assert_eq!(extended(&answer(&out)), Some((22, "instances not read yet".to_owned())));

        cache.publish(web().view);
        for held in [true, false] {
            let outcome = match held {
                true => handler.answer_held(&packet, client(), Transport::Udp, &mut out),
                false => handler.answer(&packet, client(), Transport::Udp, &mut out),
            };
            assert!(matches!(outcome, Outcome::Reply));
            assert_eq!(answer(&out).answers.len(), 2);
        }
        assert_eq!(demand.held(), 1);

        // Where there is no room to wait, or nobody to ask, it fails at once.
        let (handler, _) = web().unfollowed("web").into_handler_and_cache();
        assert!(matches!(handler.answer(&packet, client(), Transport::Udp, &mut out), Outcome::Reply));
        assert_eq!(answer(&out).metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn additional_records_go_before_answers_do() {
        // 20 SRV records of 55 octets fit into 1232 with few of their 20 addresses.
        let query = with_edns("big.default.rollcall.internal.", RecordType::SRV, 1232);
        let answer = ask(&sample::big(20), &query);
        assert_eq!(answer.answers.len(), 20);
        assert!(
            !answer.metadata.truncation && (1..20).contains(&answer.additionals.len()),
            "{}",
            answer.additionals.len()
        );
        assert!(answer.edns.is_some());
    }

    #[test]
    fn answers_that_do_not_fit_are_cut_and_say_so() {
        let name = "big.default.rollcall.internal.";
        let plain = ask(&sample::big(100), &query(name, RecordType::A));
        assert!(plain.metadata.truncation);
        assert_eq!(plain.answers.len(), (512 - 12 - 35) / 16);
        let tiny = ask(&sample::big(100), &with_edns(name, RecordType::A, 100));
        assert_eq!(tiny.answers.len(), (512 - 12 - 35 - 11) / 16, "less than 512 counts as 512");
        let huge = ask(&sample::big(100), &with_edns(name, RecordType::A, 65_535));
        assert_eq!(huge.answers.len(), (1232 - 12 - 35 - 11) / 16, "more than 1232 counts as 1232");
        let bytes = raw(&sample::big(100), &query(name, RecordType::A).to_vec().unwrap(), Transport::Tcp);
        let tcp = Message::from_vec(&bytes).unwrap();
        assert!(!tcp.metadata.truncation && tcp.answers.len() == 100);
    }

    #[test]
    fn even_tcp_has_a_longest_answer() {
        let packet = query("big.default.rollcall.internal.", RecordType::SRV).to_vec().unwrap();
        let bytes = raw(&sample::big(2000), &packet, Transport::Tcp);
        assert!((65_400..=65_535).contains(&bytes.len()), "{}", bytes.len());
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation && answer.answers.len() < 2000);
    }

    #[test]
    fn answers_are_counted() {
        let handler = sample::big(100).into_handler();
        ask_handler(&handler, &query("big.default.rollcall.internal.", RecordType::SRV));
        ask_handler(&handler, &query("x.default.rollcall.internal.", RecordType::TXT));
        handler.answer(b"x", client(), Transport::Udp, &mut Vec::new());
        let text = String::from_utf8(handler.metrics().render()).unwrap();
        for line in [
            "rollcall_dns_queries_total{kind=\"srv\",rcode=\"noerror\"} 1",
            "rollcall_dns_queries_total{kind=\"txt\",rcode=\"nxdomain\"} 1",
            "rollcall_dns_truncated_total 1",
            "rollcall_dns_dropped_total 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn random_packets_get_a_valid_answer_or_silence(packet in prop::collection::vec(any::<u8>(), 0..600)) {
            check_any_packet(&packet)?;
        }

        #[test]
        fn mangled_queries_get_a_valid_answer_or_silence(
            name in name(), kind in kind(), has_edns: bool, has_response_bit: bool,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let query = if has_edns { with_edns(&name, kind, 900) } else { query(&name, kind) };
            let mut packet = query.to_vec().unwrap();
            packet[2] |= u8::from(has_response_bit) << 7;
            for (index, byte) in changes {
                let index = index.index(packet.len());
                packet[index] = byte;
            }
            if let Some(cut) = cut {
                packet.truncate(cut.index(packet.len()));
            }
            check_any_packet(&packet)?;
        }

        #[test]
        fn no_answer_is_longer_than_allowed_and_tc_means_that_answers_are_missing(
            instances in 0_usize..150, kind in kind(), payload in prop::option::of(any::<u16>()), is_stale: bool,
        ) {
            let mut sample = sample::big(instances);
            sample.freshness = if is_stale { Freshness::Stale } else { Freshness::Current };
            let handler = sample.into_handler();
            let name = "big.default.rollcall.internal.";
            let query = payload.map_or_else(|| query(name, kind), |payload| with_edns(name, kind, payload));
            let packet = query.to_vec().unwrap();
            let (mut udp, mut tcp) = (Vec::new(), Vec::new());
            handler.answer(&packet, client(), Transport::Udp, &mut udp);
            handler.answer(&packet, client(), Transport::Tcp, &mut tcp);
            let limit = payload.map_or(512, |payload| usize::from(payload.clamp(512, 1232)));
            prop_assert!(udp.len() <= limit, "{} octets of {limit}", udp.len());
            let (udp, tcp) = (Message::from_vec(&udp).unwrap(), Message::from_vec(&tcp).unwrap());
            prop_assert!(!tcp.metadata.truncation);
            prop_assert_eq!(udp.metadata.truncation, udp.answers.len() < tcp.answers.len());
            prop_assert!(!udp.answers.is_empty() || !udp.authorities.is_empty(), "never an empty success");
            prop_assert_eq!(udp.edns.is_some(), payload.is_some());
        }
    }

    /// Silence exactly for what is too short or has QR set; else an answer to it that hickory can read.
    fn check_any_packet(packet: &[u8]) -> Result<(), TestCaseError> {
        thread_local! {
            static HANDLER: Arc<Handler> = sample::big(40).into_handler();
        }
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut out = vec![1, 2, 3];
            let outcome = HANDLER.with(|handler| handler.answer(packet, client(), transport, &mut out));
            let is_silent = packet.len() < HEADER_OCTETS || packet[2] & 0x80 != 0;
            prop_assert_eq!(matches!(outcome, Outcome::Silence), is_silent);
            if is_silent {
                prop_assert!(out.is_empty());
                continue;
            }
            prop_assert!(transport == Transport::Tcp || out.len() <= usize::from(UDP_OCTETS_MAX));
            let answer = Message::from_vec(&out);
            prop_assert!(answer.is_ok(), "{:?}: {:?}", answer, out);
            prop_assert_eq!(&out[..2], &packet[..2]);
            prop_assert!(out[2] & 0x80 != 0);
        }
        Ok(())
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("web.default.rollcall.internal.".to_owned()),
            Just("_http._tcp.big.default.rollcall.internal.".to_owned()),
            Just("web-1.web.default.rollcall.internal.".to_owned()),
            Just("rollcall.internal.".to_owned()),
            "[a-z_][a-z]{0,9}(\\.[a-z0-9_]{1,10}){0,5}\\.rollcall\\.internal\\.",
        ]
    }

    fn kind() -> impl Strategy<Value = RecordType> {
        prop::sample::select(vec![
            RecordType::A,
            RecordType::AAAA,
            RecordType::SRV,
            RecordType::TXT,
            RecordType::SOA,
            RecordType::ANY,
        ])
    }

    fn web() -> Sample {
        sample::web()
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn with_edns(name: &str, kind: RecordType, payload: u16) -> Message {
        let mut message = query(name, kind);
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
        message
    }

    fn extended(answer: &Message) -> Option<(u16, String)> {
        let code = EdnsCode::Unknown(OPTION_EXTENDED_ERROR);
        let Some(EdnsOption::Unknown(_, data)) = answer.edns.as_ref()?.option(code) else { return None };
        let text = String::from_utf8(data[2..].to_vec()).unwrap();
        Some((u16::from_be_bytes([data[0], data[1]]), text))
    }

    fn ask(sample: &Sample, query: &Message) -> Message {
        Message::from_vec(&raw(sample, &query.to_vec().unwrap(), Transport::Udp)).unwrap()
    }

    fn ask_handler(handler: &Handler, query: &Message) -> Message {
        let mut out = Vec::new();
        handler.answer(&query.to_vec().unwrap(), client(), Transport::Udp, &mut out);
        Message::from_vec(&out).unwrap()
    }

    /// The bytes of the answer; none for silence.
    fn raw(sample: &Sample, packet: &[u8], transport: Transport) -> Vec<u8> {
        let mut out = Vec::new();
        sample.clone().into_handler().answer(packet, client(), transport, &mut out);
        out
    }

    fn client() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 5353))
    }
}
