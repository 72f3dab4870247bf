//! Signatures, and proofs that there is nothing: which of them belong to what is believed of an answer. Pure.
//!
//! A signature goes with the set that it covers, and is dropped with it. Proofs (NSEC, NSEC3) stand beside the answer, under names that nobody
//! asked for. One counts if a zone has signed it that the answer is from: that of its SOA, or one that has signed records of it. Without that,
//! an upstream could have anything passed on and kept under the name of anybody.
//!
//! RFC 4034 section 3.1 (what a signature says), 4035 section 3.1.3 (proofs), 5155 section 7.2 (hashed ones).

use std::collections::BTreeSet;

use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Of the authority section of an answer with these records the proofs and signatures that belong to it, and to its SOA.
pub(super) fn company<'a>(
    authority: &'a [Record],
    answers: &[Record],
    soa: Option<&'a Record>,
) -> Vec<&'a Record> {
    let zones: BTreeSet<Name> =
        answers.iter().filter_map(zone).chain(soa.map(|soa| soa.name.clone())).collect();
    let is_of_zones = |record: &&Record| {
        record.dns_class == DNSClass::IN && zone(record).is_some_and(|zone| zones.contains(&zone))
    };
    // Upstreams choose these.
    let signed: BTreeSet<(&Name, u16)> = authority
        .iter()
        .filter(is_of_zones)
        .filter_map(|record| Some((&record.name, u16::from(covered(record)?))))
        .collect();
    let is_proof = |record: &&Record| {
        let kind = record.record_type();
        matches!(kind, RecordType::NSEC | RecordType::NSEC3)
            && record.dns_class == DNSClass::IN
            && signed.contains(&(&record.name, u16::from(kind)))
    };
    let sets = authority.iter().filter(is_proof).chain(soa);
    let kept: BTreeSet<(&Name, u16)> = sets.map(|set| (&set.name, u16::from(set.record_type()))).collect();
    let is_signature = |record: &&Record| {
        let covered = covered(record).map(u16::from);
        is_of_zones(record) && covered.is_some_and(|covered| kept.contains(&(&record.name, covered)))
    };
    authority.iter().filter(|record| is_proof(record) || is_signature(record)).collect()
}

/// The type that a signature covers; none for what is no signature.
pub(super) fn covered(record: &Record) -> Option<RecordType> {
    let kind = signature(record)?.first_chunk()?;
    Some(RecordType::from(u16::from_be_bytes(*kind)))
}

/// The zone that has made a signature, which is at its owner or above it.
fn zone(record: &Record) -> Option<Name> {
    let mut decoder = BinDecoder::new(signature(record)?.get(SIGNER_AT..)?);
    // It is not compressed (RFC 4034 section 3.1.7).
    let zone = Name::read(&mut decoder).ok()?;
    zone.zone_of(&record.name).then_some(zone)
}

/// The data of a signature.
fn signature(record: &Record) -> Option<&[u8]> {
    let RData::Unknown { code: RecordType::RRSIG, rdata } = &record.data else { return None };
    Some(&rdata.anything)
}

/// Octets of a signature before its signer's name: type, algorithm, labels, TTL, two times, key tag.
const SIGNER_AT: usize = 18;

#[cfg(test)]
pub(super) mod tests {
    use hickory_proto::rr::rdata::{NULL, SOA};
    use hickory_proto::serialize::binary::BinEncodable;

    use super::*;

    #[test]
    fn rfc4035_3_1_3_proofs_and_signatures_of_the_answers_zone_belong_to_it() {
        let soa = soa("example.com.");
        let authority = [
            soa.clone(),
            rrsig("example.com.", RecordType::SOA, "example.com."),
            nsec("a.example.com."),
            rrsig("a.example.com.", RecordType::NSEC, "EXAMPLE.com."),
        ];
        assert_eq!(company(&authority, &[], Some(&soa)), authority[1..].iter().collect::<Vec<_>>());
        // As with an answer that was made from a wildcard.
        let answers = [rrsig("www.example.com.", RecordType::A, "example.com.")];
        assert_eq!(company(&authority, &answers, None), authority[2..].iter().collect::<Vec<_>>());
    }

    #[test]
    fn rfc4034_3_1_7_what_other_zones_have_signed_or_nobody_does_not() {
        let soa = soa("example.com.");
        let foreign = [
            nsec("a.bank.example."),
            rrsig("a.bank.example.", RecordType::NSEC, "bank.example."),
            // Not above it.
            nsec("b.bank.example."),
            rrsig("b.bank.example.", RecordType::NSEC, "example.com."),
            // Another's word for it.
            nsec("c.example.com."),
            rrsig("c.example.com.", RecordType::NSEC, "."),
            nsec("d.example.com."),
            rrsig("d.example.com.", RecordType::NSEC3, "example.com."),
        ];
        let answers = [rrsig("www.example.com.", RecordType::A, "example.com.")];
        assert_eq!(company(&foreign, &answers, Some(&soa)), [] as [&Record; 0]);
        assert_eq!(company(&foreign, &[], None), [] as [&Record; 0]);
    }

    #[test]
    fn a_signature_is_dropped_with_what_it_covers() {
        let soa = soa("example.com.");
        let authority = [
            soa.clone(),
            rrsig("example.com.", RecordType::NS, "example.com."),
            rrsig("sub.example.com.", RecordType::DS, "example.com."),
            rrsig("sub.example.com.", RecordType::SOA, "example.com."),
        ];
        assert_eq!(company(&authority, &[], Some(&soa)), [] as [&Record; 0]);
    }

    #[test]
    fn what_is_cut_is_no_signature() {
        let whole = rrsig("a.example.", RecordType::A, "example.");
        let octets = signature(&whole).expect("it is one").to_vec();
        for length in 1..SIGNER_AT + 9 {
            let data =
                RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(octets[..length].to_vec()) };
            let cut = Record::from_rdata(whole.name.clone(), 60, data);
            assert_eq!((covered(&cut).is_some(), zone(&cut)), (length >= 2, None), "{length}");
        }
        assert_eq!(zone(&whole), Some(name("example.")));
    }

    pub(in crate::dns::forward) fn rrsig(owner: &str, covered: RecordType, signer: &str) -> Record {
        let mut data = u16::from(covered).to_be_bytes().to_vec();
        data.extend([0; SIGNER_AT - 2]);
        data.extend(name(signer).to_bytes().unwrap());
        data.extend([7; 64]);
        unknown(owner, RecordType::RRSIG, data)
    }

    pub(in crate::dns::forward) fn nsec(owner: &str) -> Record {
        unknown(owner, RecordType::NSEC, name(owner).to_bytes().unwrap())
    }

    pub(in crate::dns::forward) fn unknown(owner: &str, code: RecordType, data: Vec<u8>) -> Record {
        Record::from_rdata(name(owner), 60, RData::Unknown { code, rdata: NULL::with(data) })
    }

    fn soa(owner: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::SOA(SOA::new(name(owner), name(owner), 1, 2, 3, 4, 5)))
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }
}
