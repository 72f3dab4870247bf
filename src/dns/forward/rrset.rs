//! Records as sets: one TTL for all of a set, and each record once. Pure.
//!
//! A set is what has name and type in common; its signatures belong to it. RFC 2181 sections 5 (sets) and 8 (TTLs), RFC 4034 section 3 (signatures have the
//! TTL of what they sign).

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::rr::{Name, Record};
use hickory_proto::serialize::binary::BinEncodable;

use super::signed::covered;

/// Takes away what comes twice, and gives all records of a set the least of their TTLs. The order stays.
pub(super) fn make_sets(records: &mut Vec<Record>) {
    if records.len() < 2 {
        return;
    }
    // Upstreams choose these.
    let mut ttls: BTreeMap<(Name, u16), u32> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut sets = Vec::with_capacity(records.len());
    records.retain(|record| {
        let data = record.data.to_bytes().unwrap_or_default();
        let set = set_of(record);
        let least = ttls.entry(set.clone()).or_insert(record.ttl);
        *least = record.ttl.min(*least);
        let is_new = seen.insert((set.clone(), u16::from(record.record_type()), data));
        if is_new {
            sets.push(set);
        }
        is_new
    });
    for (record, set) in records.iter_mut().zip(&sets) {
        record.ttl = ttls[set];
    }
}

/// A TTL with the highest bit is 0 (RFC 2181 section 8).
pub(super) fn with_sane_ttl(record: &Record) -> Record {
    let mut record = record.clone();
    if i32::try_from(record.ttl).is_err() {
        record.ttl = 0;
    }
    record
}

/// Name and type; of a signature the type that it covers.
fn set_of(record: &Record) -> (Name, u16) {
    (record.name.clone(), covered(record).unwrap_or_else(|| record.record_type()).into())
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, NULL, TXT};
    use hickory_proto::rr::{RData, RecordType};

    use super::*;

    #[test]
    fn rfc2181_5_2_a_set_has_the_least_of_its_ttls_and_others_have_theirs() {
        let mut records = vec![
            a("www.example.", 300, 1),
            a("WWW.example.", 60, 2),
            a("ftp.example.", 20, 3),
            Record::from_rdata(name("www.example."), 10, RData::TXT(TXT::new(vec!["text".to_owned()]))),
        ];
        make_sets(&mut records);
        assert_eq!(ttls(&records), [60, 60, 20, 10]);
    }

    #[test]
    fn rfc2181_5_a_record_is_in_a_set_once() {
        let once = vec![a("www.example.", 60, 1), a("www.example.", 60, 2), a("ftp.example.", 60, 1)];
        let mut records = once.clone();
        records.insert(2, a("WWW.example.", 30, 1));
        make_sets(&mut records);
        assert_eq!(records, once);
        assert_eq!(ttls(&records), [30, 30, 60]);
    }

    #[test]
    fn rfc4034_3_signatures_have_the_ttl_of_what_they_sign() {
        let signature = |covered: u16, ttl| {
            let data = [&covered.to_be_bytes()[..], b"more"].concat();
            let data = RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(data) };
            Record::from_rdata(name("www.example."), ttl, data)
        };
        let mut records =
            vec![a("www.example.", 60, 1), signature(1, 300), signature(16, 200), signature(16, 200)];
        make_sets(&mut records);
        assert_eq!(ttls(&records), [60, 60, 200]);
    }

    fn ttls(records: &[Record]) -> Vec<u32> {
        records.iter().map(|record| record.ttl).collect()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }
}
