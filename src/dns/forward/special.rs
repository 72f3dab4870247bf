//! Names that no upstream is asked for. Pure.
//!
//! | Name | Answer |
//! | --- | --- |
//! | `localhost.` and all below it | the loopback addresses (RFC 6761 section 6.3) |
//! | the reverse names of loopback | `localhost.`; NXDOMAIN for the rest of 127.0.0.0/8 (RFC 6303 section 4.2) |
//! | `invalid.` and all below it | NXDOMAIN (RFC 6761 section 6.4) |
//! | `onion.` and all below it | NXDOMAIN (RFC 7686 section 2): who asks for one does so by mistake, and nobody else is to learn of it |
//! | `resolver.arpa.` and all below it | nothing of any type (RFC 9462 sections 4 and 6.4): no other resolver is designated here |
//! | a name of the own zone, if that has two labels or more, with an ending of the search list | NXDOMAIN |
//!
//! With `ndots:5`, as Kubernetes sets it, `web.default.rollcall.internal` is asked for with each ending of the search list
//! before it is asked for as it is. Upstreams would say that there is no such name; they need not be asked. A zone of one label may well be
//! a label of real names, too: with `svc` those of all of Kubernetes' services end as names of ours with `cluster.local` behind them.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::dns::answer::Answer;
use crate::dns::name::Zone;

/// What is answered at once to this name and type, if it is such a name.
pub(super) fn local_answer(name: &Name, kind: RecordType, zone: &Zone, search: &[Name]) -> Option<Answer> {
    let localhost = from_text("localhost.");
    if localhost.zone_of(name) {
        let data = [RData::A(A(Ipv4Addr::LOCALHOST)), RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))];
        let data = data.into_iter().find(|data| data.record_type() == kind);
        return Some(found(name, &localhost, data));
    }
    if let Some(apex) = ["invalid.", "onion."].map(from_text).iter().find(|domain| domain.zone_of(name)) {
        return Some(no_such_name(apex, LOCAL_TTL_S));
    }
    let resolver = from_text("resolver.arpa.");
    if resolver.zone_of(name) {
        return Some(found(name, &resolver, None));
    }
    let reverse_v4 = from_text("127.in-addr.arpa.");
    let loopback_v6 = Name::from(Ipv6Addr::LOCALHOST);
    if reverse_v4.zone_of(name) || loopback_v6 == *name {
        let is_loopback = Name::from(Ipv4Addr::LOCALHOST) == *name || loopback_v6 == *name;
        let apex = if loopback_v6 == *name { &loopback_v6 } else { &reverse_v4 };
        if !is_loopback && !is_above_loopback(name) {
            return Some(no_such_name(apex, LOCAL_TTL_S));
        }
        let is_asked = is_loopback && kind == RecordType::PTR;
        return Some(found(name, apex, is_asked.then_some(RData::PTR(PTR(localhost)))));
    }
    let ending = search.iter().find(|ending| is_expansion(name, ending, zone))?;
    let apex = zone.apex().clone().append_domain(ending).ok()?;
    Some(no_such_name(&apex, SEARCH_TTL_S))
}

/// The domain that `name` is or lies in, and of which no name is ever asked for.
pub(super) fn never_asked(name: &Name) -> Option<&'static str> {
    special_of(name, &NEVER_ASKED)
}

/// The domain that `name` is or lies in, and whose names mean something else than any zone could say: those that are never asked for, and
/// reverse names.
pub fn special_domain(name: &Name) -> Option<&'static str> {
    special_of(name, &NEVER_ASKED).or_else(|| special_of(name, &["in-addr.arpa.", "ip6.arpa."]))
}

fn special_of(name: &Name, domains: &[&'static str]) -> Option<&'static str> {
    domains.iter().copied().find(|domain| from_text(domain).zone_of(name))
}

/// Whether `name` is one of the zone with this ending behind it, and cannot be another's.
fn is_expansion(name: &Name, ending: &Name, zone: &Zone) -> bool {
    if zone.apex().num_labels() < EXPANDED_LABELS_MIN {
        return false;
    }
    let rest = usize::from(name.num_labels()).checked_sub(ending.num_labels().into());
    let Some(rest) = rest.filter(|rest| *rest > 0 && ending.zone_of(name)) else { return false };
    Name::from_labels(name.iter().take(rest)).is_ok_and(|mut name| {
        name.set_fqdn(true);
        zone.contains(&name)
    })
}

/// Whether it is an empty node between 127.in-addr.arpa and the loopback address, which exists therefore.
fn is_above_loopback(name: &Name) -> bool {
    name.zone_of(&Name::from(Ipv4Addr::LOCALHOST))
}

/// The record, or that there is none of the kind.
fn found(name: &Name, apex: &Name, data: Option<RData>) -> Answer {
    let answer = Answer { is_authoritative: true, is_recursive: true, ..Answer::default() };
    match data {
        Some(data) => Answer { answers: vec![Record::from_rdata(name.clone(), LOCAL_TTL_S, data)], ..answer },
        None => Answer { authority: vec![soa(apex, LOCAL_TTL_S)], ..answer },
    }
}

fn no_such_name(apex: &Name, ttl: u32) -> Answer {
    let (rcode, authority) = (ResponseCode::NXDomain, vec![soa(apex, ttl)]);
    Answer { rcode, authority, is_authoritative: true, is_recursive: true, ..Answer::default() }
}

/// That of a locally served zone (RFC 6303 section 3).
fn soa(apex: &Name, ttl: u32) -> Record {
    let data = SOA::new(apex.clone(), from_text("nobody.invalid."), 1, 3600, 1200, 604_800, ttl);
    Record::from_rdata(apex.clone(), ttl, RData::SOA(data))
}

fn from_text(text: &'static str) -> Name {
    Name::from_ascii(text).expect("a name")
}

/// Domains that are answered here as a whole.
const NEVER_ASKED: [&str; 5] = ["localhost.", "invalid.", "onion.", "resolver.arpa.", "127.in-addr.arpa."];
/// Labels of the shortest zone whose names are taken for ours with an ending behind them.
const EXPANDED_LABELS_MIN: u8 = 2;
/// How long answers about what never changes may be kept.
const LOCAL_TTL_S: u32 = 3600;
/// The same for what changes with the search list, or with the zone.
const SEARCH_TTL_S: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Label;

    #[test]
    fn localhost_is_this_machine() {
        for name in ["localhost.", "LocalHost.", "app.localhost."] {
            assert_eq!(data(name, RecordType::A), ["127.0.0.1"]);
            assert_eq!(data(name, RecordType::AAAA), ["::1"]);
            let nothing = ask(name, RecordType::MX).unwrap();
            assert_eq!((nothing.rcode, nothing.authority.len()), (ResponseCode::NoError, 1));
        }
        assert!(ask("localhost.example.", RecordType::A).is_none());
    }

    #[test]
    fn the_reverse_names_of_loopback_are_localhost() {
        let v6 = Name::from(Ipv6Addr::LOCALHOST).to_string();
        for name in ["1.0.0.127.in-addr.arpa.", &v6] {
            assert_eq!(data(name, RecordType::PTR), ["localhost."]);
            assert_eq!(ask(name, RecordType::A).unwrap().rcode, ResponseCode::NoError);
        }
        assert_eq!(ask("2.0.0.127.in-addr.arpa.", RecordType::PTR).unwrap().rcode, ResponseCode::NXDomain);
        assert_eq!(ask("0.0.127.in-addr.arpa.", RecordType::PTR).unwrap().rcode, ResponseCode::NoError);
        assert!(ask("1.0.0.10.in-addr.arpa.", RecordType::PTR).is_none());
    }

    #[test]
    fn invalid_names_are_none() {
        for name in ["invalid.", "no-such-host.invalid."] {
            assert_eq!(ask(name, RecordType::A).unwrap().rcode, ResponseCode::NXDomain);
        }
    }

    #[test]
    fn rfc7686_2_onion_names_are_none() {
        for name in ["onion.", "Example.ONION.", "www.example.onion."] {
            assert_eq!(ask(name, RecordType::A).unwrap().rcode, ResponseCode::NXDomain);
        }
        assert!(ask("onion.example.", RecordType::A).is_none());
    }

    #[test]
    fn rfc9462_4_who_designates_no_resolver_has_nothing_below_resolver_arpa() {
        for name in ["_dns.resolver.arpa.", "resolver.arpa.", "_DNS.Resolver.arpa.", "other.resolver.arpa."] {
            for kind in [RecordType::SVCB, RecordType::A] {
                let answer = ask(name, kind).unwrap();
                assert_eq!((answer.rcode, answer.answers.len()), (ResponseCode::NoError, 0), "{name}");
                assert_eq!(answer.authority[0].name.to_string(), "resolver.arpa.");
            }
        }
        assert!(ask("arpa.", RecordType::A).is_none());
    }

    #[test]
    fn names_of_the_zone_with_an_ending_are_none_and_others_are_asked_for() {
        let answer = ask("web.default.Rollcall.internal.svc.cluster.local.", RecordType::A).unwrap();
        assert_eq!(answer.rcode, ResponseCode::NXDomain);
        assert_eq!(answer.authority[0].name.to_string(), "rollcall.internal.svc.cluster.local.");
        assert!(ask("rollcall.internal.shop.svc.cluster.local.", RecordType::A).is_some());
        for name in ["web.shop.svc.cluster.local.", "svc.cluster.local.", "internal.svc.cluster.local.", "."]
        {
            assert!(ask(name, RecordType::A).is_none(), "{name}");
        }
    }

    #[test]
    fn names_of_a_zone_of_one_label_with_an_ending_may_be_others() {
        for (zone, name) in
            [("svc", "kube-dns.kube-system.svc.cluster.local."), ("internal", "db.internal.cluster.local.")]
        {
            assert!(ask_in(zone, name, RecordType::A).is_none(), "{name}");
            let longer = format!("a.{zone}");
            let name = name.replace(&format!(".{zone}."), &format!(".{longer}."));
            assert_eq!(
                ask_in(&longer, &name, RecordType::A).unwrap().rcode,
                ResponseCode::NXDomain,
                "{name}"
            );
        }
    }

    fn ask(name: &str, kind: RecordType) -> Option<Answer> {
        ask_in("rollcall.internal", name, kind)
    }

    fn ask_in(zone: &str, name: &str, kind: RecordType) -> Option<Answer> {
        let zone = Zone::parse(zone, Label::parse("default").unwrap()).unwrap();
        let search = ["shop.svc.cluster.local.", "svc.cluster.local.", "cluster.local."];
        let search = search.map(|text| Name::from_ascii(text).unwrap());
        local_answer(&Name::from_ascii(name).unwrap(), kind, &zone, &search)
    }

    fn data(name: &str, kind: RecordType) -> Vec<String> {
        let answer = ask(name, kind).unwrap();
        answer.answers.iter().map(|record| record.data.to_string()).collect()
    }
}
