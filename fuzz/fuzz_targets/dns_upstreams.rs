//! Packets from upstreams. The first byte says which question it is about and what the client takes; with its highest bit the packet
//! has the question's id and repeats it, as forgers who know everything would. The rest is the packet.
#![no_main]

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};
use libfuzzer_sys::fuzz_target;
use rollcall::dns::Transport;
use rollcall::dns::forward::Question;
use rollcall::dns::forward::fuzzing::{ID, Rehearsal};

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let kinds = [RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::SRV];
    let question = Question {
        name: Name::from_ascii("www.example.com.").expect("a name"),
        kind: kinds[usize::from(first & 3)],
        dnssec_ok: first & 4 != 0,
        checking_disabled: false,
    };
    let transport = if first & 8 == 0 { Transport::Udp } else { Transport::Tcp };
    let edns_octets = (first & 16 != 0).then_some(1232);
    let mut rehearsal = Rehearsal::new(question.clone());
    let packet = if first & 0x80 == 0 { rest.to_vec() } else { as_answer(rehearsal.sent(), rest) };
    for octets in rehearsal.tell(&packet, transport, edns_octets) {
        let reply = match Message::from_vec(&octets) {
            // Records of unknown types may be without data (RFC 3597 section 5), and are passed on so; this decoder refuses them.
            Err(DecodeError::InvalidEmptyRecord) => continue,
            read => read.expect("what we write can be read"),
        };
        assert_eq!((reply.metadata.id, reply.metadata.message_type), (ID, MessageType::Response));
        assert_eq!(reply.queries.len(), 1);
        assert!(
            reply.queries[0].name().eq_case(&question.name) && reply.queries[0].query_type() == question.kind
        );
        assert!(reply.additionals.is_empty(), "nobody asked for additional records");
        judge(&reply, &question);
    }
});

/// Every record is the question's, an alias that leads on from it, or an authority above it.
fn judge(reply: &Message, question: &Question) {
    let mut names = vec![question.name.clone()];
    let targets = reply.answers.iter().filter_map(|record| match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    });
    names.extend(targets);
    for record in &reply.answers {
        let is_dname = u16::from(record.record_type()) == 39 || record.record_type() == RecordType::RRSIG;
        let is_above = is_dname && names.iter().any(|name| record.name.zone_of(name));
        assert!(names.contains(&record.name) || is_above, "{record}");
        assert!(record.ttl <= 86_400, "{record}");
    }
    for record in &reply.authorities {
        assert!(record.ttl <= 86_400, "{record}");
        if record.record_type() == RecordType::SOA {
            assert!(names.iter().any(|name| record.name.zone_of(name)), "{record}");
        } else {
            assert!(question.dnssec_ok, "{record}");
            judge_proof(record, &names, reply);
        }
    }
    // What is cut may lack what was behind it.
    for record in reply.answers.iter().filter(|_| question.kind != RecordType::ANY && !reply.metadata.truncation) {
        if let Some((covered, _)) = signature(record) {
            let is_covered = |other: &Record| other.name == record.name && u16::from(other.record_type()) == covered;
            assert!(reply.answers.iter().any(is_covered), "{record}");
        }
    }
}

/// Beside the SOA there are proofs and signatures, and all of them are of a zone that one of the names is in.
fn judge_proof(record: &Record, names: &[Name], reply: &Message) {
    let kind = record.record_type();
    let set = |record: &Record| signature(record).map_or(u16::from(record.record_type()), |(covered, _)| covered);
    let set_here = set(record);
    let company = || reply.authorities.iter().filter(|other| other.name == record.name && set(other) == set_here);
    if let Some((_, zone)) = signature(record) {
        assert!(zone.zone_of(&record.name) && names.iter().any(|name| zone.zone_of(name)), "{record}");
        let is_set = |other: &Record| other.record_type() != RecordType::RRSIG;
        assert!(reply.metadata.truncation || company().any(is_set), "{record}");
    } else {
        assert!(matches!(kind, RecordType::NSEC | RecordType::NSEC3), "{record}");
        assert!(reply.metadata.truncation || company().any(|other| signature(other).is_some()), "{record}");
    }
}

/// The type that a signature covers, and who has made it (RFC 4034 section 3.1).
fn signature(record: &Record) -> Option<(u16, Name)> {
    let RData::Unknown { code: RecordType::RRSIG, rdata } = &record.data else { return None };
    let covered = u16::from_be_bytes(*rdata.anything.first_chunk()?);
    let signer = Name::read(&mut BinDecoder::new(rdata.anything.get(18..)?)).ok()?;
    Some((covered, signer))
}

/// `rest` is the header behind the id, and what follows the question.
fn as_answer(sent: &[u8], rest: &[u8]) -> Vec<u8> {
    let Some((header, records)) = rest.split_at_checked(10) else { return rest.to_vec() };
    // The question ends where the OPT record of what was sent begins.
    let question = &sent[12..sent.len() - 11];
    let mut packet = [&sent[..2], header, question, records].concat();
    packet[2] = 0x80 | (packet[2] & 0x07);
    packet[4..6].copy_from_slice(&[0, 1]);
    packet
}
