//! Whether a packet is the answer to what was asked, and what of it is believed. Pure.
//!
//! ```text
//! packet ─► id, QR, opcode, question ─┬─ differs: no answer of ours, whoever sent it
//!                                     └─► TC ─► code ─► chain of the question, SOA ─► Found
//! ```
//!
//! An upstream is believed about what it was asked, and about nothing else (RFC 5452 section 6): the records of the
//! question's name and of the aliases that lead on from there, the SOA of a zone above it, and what signs these. The rest is dropped,
//! additional records as a whole.
//!
//! RFC 5452 (forged answers), 2308 (negative answers), 2181 sections 5 and 8 (sets, TTLs), 3597 section 4 (names in data).

use hickory_proto::op::{Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::chain::{ALIASES_MAX, Chain, chain, is_alias, is_internet};
use super::explanation::Explanations;
use super::old_types::write_out;
use super::question::{Outgoing, Question};
use super::rrset::{make_sets, with_sane_ttl};
use super::signed::company;

/// What an upstream says.
#[derive(Debug)]
pub(super) enum Reply {
    /// An answer, positive or negative.
    Found(Found),
    /// Its answer did not fit: it has to be asked over TCP.
    Truncated,
    /// It does not answer this, and why.
    Unusable(ResponseCode, Explanations),
    /// It could not read the query, and does not repeat the question.
    Unread(ResponseCode),
}

/// What is believed of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Success or that there is no such name.
    pub rcode: ResponseCode,
    /// The question's own records, behind the aliases that lead to them.
    pub answers: Vec<Record>,
    /// Of a negative answer the SOA; signatures' company for those who want signatures.
    pub authority: Vec<Record>,
    /// Whether the upstream has validated all of it (AD).
    pub is_authentic: bool,
    /// Whether there is nothing of the asked type.
    pub is_negative: bool,
    /// The alias that is left open: what it stands for the upstream does not say, nor that there is nothing. Of what is kept one of ours.
    pub open: Option<Name>,
    /// What the upstream says about it beside.
    pub explanations: Explanations,
}

/// Why a packet is not the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    #[error("it has another id")]
    Id,
    #[error("it is no answer to a query")]
    NoAnswer,
    #[error("it repeats another question")]
    Question,
    #[error("it repeats the question in other letters")]
    Letters,
    #[error("it cannot be read")]
    Unreadable,
    #[error("it repeats the question, and what follows cannot be read")]
    Content,
}

/// Reads the answer to `question`, which was asked by `sent`.
///
/// # Errors
///
/// When it is none.
pub(super) fn read(packet: &[u8], question: &Question, sent: &Outgoing) -> Result<Reply, Mismatch> {
    let mut decoder = BinDecoder::new(packet);
    let header = Header::read(&mut decoder).map_err(|_| Mismatch::Unreadable)?;
    let Metadata { id, message_type, op_code, truncation, response_code, .. } = header.metadata;
    if id != sent.id {
        return Err(Mismatch::Id);
    }
    if message_type != MessageType::Response || op_code != OpCode::Query {
        return Err(Mismatch::NoAnswer);
    }
    if header.counts.queries == 0 && is_own_fault(response_code) {
        // Who cannot read a query may not be able to repeat it.
        return Ok(Reply::Unread(response_code));
    }
    if header.counts.queries != 1 {
        return Err(Mismatch::Question);
    }
    let repeated = Query::read(&mut decoder).map_err(|_| Mismatch::Unreadable)?;
    if repeated.query_type() != question.kind
        || repeated.query_class() != DNSClass::IN
        || repeated.name() != &sent.name
    {
        return Err(Mismatch::Question);
    }
    if sent.is_case_checked && !repeated.name().eq_case(&sent.name) {
        return Err(Mismatch::Letters);
    }
    if truncation {
        // Its last record may be cut in the middle.
        return Ok(Reply::Truncated);
    }
    let question_end = decoder.index();
    let packet = in_small_letters(packet, question_end - QUERY_TAIL_OCTETS);
    let message = decode(&packet, header, question_end).ok_or(Mismatch::Content)?;
    let rcode = message.metadata.response_code;
    if rcode != ResponseCode::NoError && rcode != ResponseCode::NXDomain {
        return Ok(Reply::Unusable(rcode, Explanations::of(&message)));
    }
    Ok(believed(message, question))
}

/// The packet with the question's name in small letters. Other names point to it for the ends that they have in common (RFC 1035 section
/// 4.1.4), and would take on the letters that were drawn for the question.
fn in_small_letters(packet: &[u8], name_end: usize) -> Vec<u8> {
    let mut packet = packet.to_vec();
    // A length is below 64, and so no letter.
    packet[HEADER_OCTETS..name_end].make_ascii_lowercase();
    packet
}

/// The message, without its question, if it can be read. hickory's own way refuses records without data in anything but an update, and the
/// whole message with them; some types may have none.
fn decode(packet: &[u8], header: Header, question_end: usize) -> Option<Message> {
    let Header { metadata, counts } = header;
    let mut decoder = BinDecoder::new(packet);
    decoder.read_slice(question_end).ok()?;
    let answers = read_section(&mut decoder, packet, counts.answers)?;
    let authorities = read_section(&mut decoder, packet, counts.authorities)?;
    let (additionals, edns, _) =
        Message::read_records(&mut decoder, counts.additionals.into(), true, OpCode::Update).ok()?;
    if additionals.iter().any(is_empty) {
        return None;
    }
    let mut message = Message::new(metadata.id, metadata.message_type, metadata.op_code);
    message.metadata = metadata;
    if let Some(edns) = &edns {
        message.metadata.response_code = ResponseCode::from(edns.rcode_high(), metadata.response_code.low());
    }
    (message.answers, message.authorities, message.edns) = (answers, authorities, edns);
    Some(message)
}

/// The next records, with the names in their data written out.
fn read_section(decoder: &mut BinDecoder<'_>, packet: &[u8], count: u16) -> Option<Vec<Record>> {
    let mut records = Vec::with_capacity(usize::from(count).min(8));
    for _ in 0..count {
        let (read, _, _) = Message::read_records(decoder, 1, false, OpCode::Update).ok()?;
        for mut record in read {
            if is_empty(&record) {
                return None;
            }
            write_out(&mut record, packet, decoder.index())?;
            records.push(record);
        }
    }
    Some(records)
}

/// Whether a record is without data that has to have some.
fn is_empty(record: &Record) -> bool {
    matches!(record.data, RData::Update0(kind) if !may_be_empty(kind))
}

/// Whether records of a type may be without data: those that are octets and nothing else (RFC 1035 section 3.3.10, RFC 3597 section 5).
const fn may_be_empty(kind: RecordType) -> bool {
    matches!(kind, RecordType::NULL | RecordType::Unknown(_))
}

/// Whether a code says that the query itself was not understood.
pub(super) const fn is_own_fault(rcode: ResponseCode) -> bool {
    matches!(rcode, ResponseCode::FormErr | ResponseCode::NotImp)
}

fn believed(message: Message, question: &Question) -> Reply {
    let Metadata { response_code: rcode, authentic_data, recursion_available, authoritative, .. } =
        message.metadata;
    let Chain { records: mut answers, last, is_negative, is_loop } = chain(question, &message.answers);
    let is_soa = |record: &&Record| record.record_type() == RecordType::SOA && record.name.zone_of(&last);
    let soa = message.authorities.iter().find(|record| is_negative && is_soa(record) && is_internet(record));
    let is_referral = message.authorities.iter().any(|record| record.record_type() == RecordType::NS);
    // Success, and nothing at all, by one who does not claim to know it.
    let is_blank = rcode == ResponseCode::NoError && message.authorities.is_empty() && !authoritative;
    if answers.is_empty() && soa.is_none() && (is_referral || is_blank) && !recursion_available {
        // It points elsewhere, or nowhere: it is no resolver (RFC 2308 section 2.2).
        return Reply::Unusable(ResponseCode::Refused, Explanations::of(&message));
    }
    let is_open = is_negative && rcode == ResponseCode::NoError && soa.is_none() && !answers.is_empty();
    let company = if question.dnssec_ok { company(&message.authorities, &answers, soa) } else { Vec::new() };
    let company = company.into_iter().map(with_sane_ttl);
    let mut authority: Vec<_> = soa.map(for_as_long).into_iter().chain(company).collect();
    make_sets(&mut answers);
    make_sets(&mut authority);
    let (is_authentic, explanations) = (authentic_data, Explanations::of(&message));
    let open = (is_open && !is_loop).then_some(last);
    Reply::Found(Found { rcode, answers, authority, is_authentic, is_negative, open, explanations })
}

impl Found {
    /// The answer as far as the first `records`, which lead to a name that others are asked for: what this upstream says of that does
    /// not count.
    pub(super) fn open_at(&mut self, records: usize, name: Name) {
        self.answers.truncate(records);
        self.authority.clear();
        (self.rcode, self.is_negative, self.open) = (ResponseCode::NoError, true, Some(name));
    }

    /// The answer with what another upstream, or the same, says about the alias that it left open. Whoever goes round in a circle, or on and
    /// on, is followed no further.
    pub(super) fn with_rest(mut self, rest: Self) -> Self {
        let Self { rcode, answers, authority, is_authentic, is_negative, open, explanations } = rest;
        self.answers.extend(answers);
        self.authority.extend(authority);
        let aliases = self.answers.iter().filter(|record| record.record_type() == RecordType::CNAME).count();
        let is_over = |open: &Name| aliases > ALIASES_MAX || is_alias(&self.answers, open);
        self.open = open.filter(|open| !is_over(open));
        self.is_authentic &= is_authentic;
        if self.explanations.is_empty() {
            self.explanations = explanations;
        }
        Self { rcode, is_negative, ..self }
    }
}

/// The SOA of a negative answer: that may be kept no longer than its MINIMUM says (RFC 2308 section 5).
fn for_as_long(record: &Record) -> Record {
    let mut record = with_sane_ttl(record);
    if let RData::SOA(soa) = &record.data {
        record.ttl = record.ttl.min(soa.minimum);
    }
    record
}

/// RFC 1035 section 4.1.1.
const HEADER_OCTETS: usize = 12;
/// Type and class behind a question's name (RFC 1035 section 4.1.2).
const QUERY_TAIL_OCTETS: usize = 4;

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};
    use proptest::prelude::*;

    use super::*;
    use crate::dns::forward::question::{Letters, WithEdns};
    use crate::dns::forward::signed::covered;
    use crate::dns::forward::signed::tests::{nsec, rrsig};

    #[test]
    fn the_answer_to_the_question_is_taken_and_the_rest_is_not() {
        let (question, sent) = asked("www.example.com.");
        let mut message = answer(&sent);
        message.add_answers([a("evil.example.net.", 9), a("www.example.com.", 1), a("WWW.example.com.", 2)]);
        message.add_authority(soa("example.com."));
        message.add_additional(a("www.bank.example.", 6));
        let found = found(&message, &question, &sent);
        assert_eq!(found.answers, [a("www.example.com.", 1), a("www.example.com.", 2)]);
        assert!(found.authority.is_empty() && !found.is_negative);
    }

    #[test]
    fn letters_that_were_drawn_show_in_no_other_name() {
        let (question, sent) = asked("www.example.com.");
        let mut message = answer(&sent);
        let target = sent.name.base_name();
        assert_ne!(target.to_string(), "example.com.");
        message.add_answer(cname("www.example.com.", &format!("Mail.{target}")));
        let found = found(&message, &question, &sent);
        assert_eq!(found.answers[0].data.to_string(), "Mail.example.com.");
    }

    #[test]
    fn letters_that_were_drawn_show_in_no_owner_that_is_written_out() {
        let (question, sent) = asked("www.example.com.");
        let mut message = answer(&sent);
        // As an upstream writes it that compresses nothing.
        message.add_answer(a(&sent.name.to_string(), 1));
        assert_ne!(sent.name.to_string(), "www.example.com.");
        assert_eq!(found(&message, &question, &sent).answers[0].name.to_string(), "www.example.com.");
    }

    #[test]
    fn aliases_are_followed_and_loops_end() {
        let (question, sent) = asked("a.example.");
        let mut message = answer(&sent);
        message.add_answers([a("c.example.", 1), cname("b.example.", "c.example."), a("x.example.", 2)]);
        message.add_answer(cname("a.example.", "b.example."));
        let one = found(&message, &question, &sent);
        assert_eq!(
            one.answers,
            [cname("a.example.", "b.example."), cname("b.example.", "c.example."), a("c.example.", 1)]
        );
        let mut message = answer(&sent);
        message.add_answers([cname("a.example.", "b.example."), cname("b.example.", "a.example.")]);
        let one = found(&message, &question, &sent);
        assert!(one.is_negative && one.open.is_none());
        assert_eq!(one.answers, [cname("a.example.", "b.example."), cname("b.example.", "a.example.")]);
    }

    #[test]
    fn an_alias_is_open_when_nothing_is_said_about_what_it_stands_for() {
        let (question, sent) = asked("a.example.");
        let mut message = answer(&sent);
        message.add_answers([cname("a.example.", "b.example."), cname("b.example.", "c.example.")]);
        let open = found(&message, &question, &sent);
        assert_eq!(open.open, Some(Name::from_ascii("c.example.").unwrap()));
        message.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(found(&message, &question, &sent).open, None);
        message.metadata.response_code = ResponseCode::NoError;
        message.add_authority(soa("example."));
        assert_eq!(found(&message, &question, &sent).open, None);

        let rest = |name: &str, target: &str| {
            let mut message = answer(&asked(name).1);
            message.add_answer(cname(name, target));
            found(&message, &asked(name).0, &asked(name).1)
        };
        let circle = open.clone().with_rest(rest("c.example.", "a.example."));
        assert_eq!((circle.answers.len(), circle.open), (3, None));
        let mut longer = open;
        let mut parts = 0;
        while let Some(name) = longer.open.clone() {
            parts += 1;
            longer = longer.with_rest(rest(&name.to_string(), &format!("{parts}.example.")));
        }
        assert_eq!(longer.answers.len(), ALIASES_MAX + 1);
        assert!(longer.is_negative);
    }

    #[test]
    fn records_without_data_are_taken_where_there_can_be_such() {
        let (question, _) = asked("www.example.com.");
        for (kind, is_taken) in [(RecordType::from(65_281), true), (RecordType::A, false)] {
            let question = Question { kind, ..question.clone() };
            let sent = question.outgoing(&[0x5f; 34], Letters::Random, WithEdns::Yes).unwrap();
            let mut packet = sent.packet[..sent.packet.len() - 11].to_vec();
            packet[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            packet.extend([0xc0, 12]);
            packet.extend([u16::from(kind), 1, 0, 60, 0].map(u16::to_be_bytes).concat());
            let reply = read(&packet, &question, &sent);
            let is_found = matches!(&reply, Ok(Reply::Found(found)) if found.answers.len() == 1);
            assert_eq!((is_found, reply.is_ok()), (is_taken, is_taken), "{kind}");
        }
    }

    #[test]
    fn a_negative_answer_has_the_soa_of_a_zone_above_it_and_no_other() {
        let (question, sent) = asked("www.example.com.");
        for (owner, is_taken) in [("example.com.", true), ("com.", true), ("example.net.", false)] {
            let mut message = answer(&sent);
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(soa(owner));
            let found = found(&message, &question, &sent);
            assert_eq!((found.rcode, found.is_negative), (ResponseCode::NXDomain, true));
            assert_eq!(found.authority.len(), usize::from(is_taken), "{owner}");
        }
    }

    #[test]
    fn rfc4034_3_signatures_come_with_what_they_cover_and_for_those_who_want_them() {
        let (plain, sent) = asked("www.example.com.");
        let signed = |owner: &str, covered| rrsig(owner, covered, "example.com.");
        let mut message = answer(&sent);
        message.add_answers([
            cname("www.example.com.", "a.example.com."),
            signed("www.example.com.", RecordType::CNAME),
            signed("www.example.com.", RecordType::A),
            a("a.example.com.", 1),
            signed("a.example.com.", RecordType::A),
            signed("a.example.com.", RecordType::AAAA),
        ]);
        message.add_authority(nsec("b.example.com."));
        message.add_authority(signed("b.example.com.", RecordType::NSEC));
        message.add_authority(nsec("bank.example."));
        message.add_authority(rrsig("bank.example.", RecordType::NSEC, "bank.example."));
        let texts = |records: &[Record]| -> Vec<String> {
            let text = |record: &Record| {
                let covered = covered(record).map_or(String::new(), |covered| format!(" {covered}"));
                format!("{} {}{covered}", record.name, record.record_type())
            };
            records.iter().map(text).collect()
        };
        let question = Question { dnssec_ok: true, ..plain.clone() };
        let told = found(&message, &question, &sent);
        assert_eq!(
            texts(&told.answers),
            [
                "www.example.com. CNAME",
                "www.example.com. RRSIG CNAME",
                "a.example.com. A",
                "a.example.com. RRSIG A"
            ]
        );
        assert_eq!(texts(&told.authority), ["b.example.com. NSEC", "b.example.com. RRSIG NSEC"]);
        let told = found(&message, &plain, &sent);
        assert_eq!((told.answers.len(), told.authority.len()), (2, 0));
    }

    #[test]
    fn what_differs_from_what_was_asked_is_no_answer() {
        let (question, sent) = asked("www.example.com.");
        let judge = |change: &dyn Fn(&mut Message)| {
            let mut message = answer(&sent);
            change(&mut message);
            read(&message.to_vec().unwrap(), &question, &sent).map(drop).unwrap_err()
        };
        let query = |name: &str, kind| Query::query(Name::from_ascii(name).unwrap(), kind);
        assert_eq!(judge(&|message| message.metadata.id ^= 1), Mismatch::Id);
        assert_eq!(judge(&|message| message.metadata.message_type = MessageType::Query), Mismatch::NoAnswer);
        assert_eq!(judge(&|message| message.metadata.op_code = OpCode::Notify), Mismatch::NoAnswer);
        assert_eq!(
            judge(&|message| message.queries[0] = query("ww.example.com.", RecordType::A)),
            Mismatch::Question
        );
        assert_eq!(
            judge(&|message| message.queries[0] = query("WWW.example.com.", RecordType::AAAA)),
            Mismatch::Question
        );
        assert_eq!(
            judge(&|message| {
                message.queries[0].set_query_class(DNSClass::CH);
            }),
            Mismatch::Question
        );
        assert_eq!(
            judge(&|message| message.queries[0] = query("www.example.com.", RecordType::A)),
            Mismatch::Letters
        );
        assert_eq!(judge(&|message| message.queries.clear()), Mismatch::Question);
    }

    #[test]
    fn codes_that_are_no_answer_are_told_apart() {
        let (question, sent) = asked("www.example.com.");
        for rcode in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr] {
            let mut message = answer(&sent);
            message.metadata.response_code = rcode;
            let reply = read(&message.to_vec().unwrap(), &question, &sent).unwrap();
            assert!(matches!(reply, Reply::Unusable(told, _) if told == rcode), "{reply:?}");
        }
        let mut no_question = answer(&sent);
        no_question.queries.clear();
        no_question.metadata.response_code = ResponseCode::FormErr;
        let reply = read(&no_question.to_vec().unwrap(), &question, &sent).unwrap();
        assert!(matches!(reply, Reply::Unread(ResponseCode::FormErr)), "{reply:?}");
        let mut referral = answer(&sent);
        let elsewhere = RData::NS(NS(Name::from_ascii("ns.example.com.").unwrap()));
        referral.add_authority(Record::from_rdata(Name::from_ascii("com.").unwrap(), 60, elsewhere));
        let reply = read(&referral.to_vec().unwrap(), &question, &sent).unwrap();
        assert!(matches!(reply, Reply::Unusable(ResponseCode::Refused, _)), "{reply:?}");
        // Nothing at all is believed of whoever knows it, or may have asked those who do.
        for (authoritative, recursion_available) in [(false, false), (true, false), (false, true)] {
            let mut blank = answer(&sent);
            blank.metadata.authoritative = authoritative;
            blank.metadata.recursion_available = recursion_available;
            let reply = read(&blank.to_vec().unwrap(), &question, &sent).unwrap();
            let is_believed = matches!(&reply, Reply::Found(found) if found.is_negative);
            assert_eq!(is_believed, authoritative || recursion_available, "{reply:?}");
        }
    }

    #[test]
    fn a_truncated_answer_need_not_be_whole() {
        let (question, sent) = asked("www.example.com.");
        let mut message = answer(&sent);
        message.add_answer(a("www.example.com.", 1));
        message.metadata.truncation = true;
        let packet = message.to_vec().unwrap();
        let reply = read(&packet[..packet.len() - 3], &question, &sent).unwrap();
        assert!(matches!(reply, Reply::Truncated), "{reply:?}");
        message.metadata.truncation = false;
        let packet = message.to_vec().unwrap();
        assert_eq!(read(&packet[..packet.len() - 3], &question, &sent).unwrap_err(), Mismatch::Content);
    }

    #[test]
    fn a_ttl_with_the_highest_bit_is_0() {
        let (question, sent) = asked("www.example.com.");
        let mut message = answer(&sent);
        let mut record = a("www.example.com.", 1);
        record.ttl = 0x8000_0001;
        message.add_answer(record);
        assert_eq!(found(&message, &question, &sent).answers[0].ttl, 0);
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..200), is_ours in any::<bool>()) {
            let (question, sent) = asked("www.example.com.");
            if is_ours {
                let mut own = answer(&sent).to_vec().unwrap();
                own[6..12].copy_from_slice(&[0, 1, 0, 1, 0, 1]);
                own.extend(packet);
                packet = own;
            }
            let _whatever = read(&packet, &question, &sent);
        }
    }

    fn asked(name: &str) -> (Question, Outgoing) {
        let name = Name::from_ascii(name).unwrap();
        let question = Question { name, kind: RecordType::A, dnssec_ok: false, checking_disabled: false };
        let sent = question.outgoing(&[0x5f; 34], Letters::Random, WithEdns::Yes).unwrap();
        (question, sent)
    }

    fn answer(sent: &Outgoing) -> Message {
        let mut message = Message::new(sent.id, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(sent.name.clone(), RecordType::A));
        message
    }

    fn found(message: &Message, question: &Question, sent: &Outgoing) -> Found {
        match read(&message.to_vec().unwrap(), question, sent).unwrap() {
            Reply::Found(found) => found,
            other @ (Reply::Truncated | Reply::Unusable(..) | Reply::Unread(_)) => panic!("{other:?}"),
        }
    }

    fn a(name: &str, last: u8) -> Record {
        Record::from_rdata(Name::from_ascii(name).unwrap(), 60, RData::A(A::new(192, 0, 2, last)))
    }

    fn cname(name: &str, target: &str) -> Record {
        let target = RData::CNAME(CNAME(Name::from_ascii(target).unwrap()));
        Record::from_rdata(Name::from_ascii(name).unwrap(), 60, target)
    }

    fn soa(owner: &str) -> Record {
        let owner = Name::from_ascii(owner).unwrap();
        let data = SOA::new(owner.clone(), owner.clone(), 1, 2, 3, 4, 5);
        Record::from_rdata(owner, 60, RData::SOA(data))
    }
}
