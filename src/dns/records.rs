//! The data of single records. Pure.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, HINFO, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record};

use crate::registry::Instance;

/// Octets of one string of a TXT record (RFC 1035 section 3.3.14).
const TXT_OCTETS_MAX: usize = 255;
/// RFC 6303 section 3; only secondary servers look at them, and there are none.
const SOA_REFRESH_S: i32 = 3600;
const SOA_RETRY_S: i32 = 1200;
const SOA_EXPIRE_S: i32 = 604_800;

/// A or AAAA.
pub(super) fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The answer to ANY of a name that exists (RFC 8482 section 4.2).
pub(super) fn minimal_any(name: &Name, ttl: u32) -> Record {
    let data = HINFO::new("RFC8482".to_owned(), String::new());
    Record::from_rdata(name.clone(), ttl, RData::HINFO(data))
}

/// The SOA at `apex`, whose TTL and minimum both say how long a negative answer may be kept (RFC 2308 section 3).
pub(super) fn soa(apex: &Name, serial: u32, negative_ttl: u32) -> Record {
    let nobody = Name::from_labels([&b"nobody"[..], b"invalid"]).expect("two short labels");
    let data = SOA::new(apex.clone(), nobody, serial, SOA_REFRESH_S, SOA_RETRY_S, SOA_EXPIRE_S, negative_ttl);
    Record::from_rdata(apex.clone(), negative_ttl, RData::SOA(data))
}

/// What there is to know of an instance, as `key=value` (RFC 6763 section 6.3): ours first, then its `meta`, of which a key that is
/// one of ours counts for nothing there (section 6.4). What is longer than a string may be is left out.
pub(super) fn instance_txt(instance: &Instance) -> RData {
    let record = &instance.record;
    let priority = u16::try_from(instance.tier()).unwrap_or(u16::MAX);
    let tags: Vec<_> = record.tags.iter().map(|tag| tag.as_str()).collect();
    let ours = [
        ("status", Some(record.status.as_str().to_owned())),
        ("weight", Some(record.weight.to_string())),
        ("priority", Some(priority.to_string())),
        ("zone", record.zone.clone()),
        ("node", record.node.clone()),
        ("tags", (!tags.is_empty()).then(|| tags.join(","))),
    ];
    let ours = ours.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    let meta = record.meta.iter().map(|(key, value)| format!("{key}={value}"));
    let texts = ours.chain(meta).filter(|text| text.len() <= TXT_OCTETS_MAX);
    RData::TXT(TXT::new(texts.collect()))
}
