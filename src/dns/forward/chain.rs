//! The records of an answer that its question leads to: along aliases, to those of the asked type. Pure.
//!
//! ```text
//! question ─► CNAME, and the DNAME that it was made from ─► CNAME ─► … ─► records of the asked type, or nothing
//! ```
//!
//! Each with its signatures, for those who want them. In whatever order they came. RFC 1034 section 3.6.2 (aliases), 6672 (DNAME).

use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::question::Question;
use super::rrset::with_sane_ttl;
use super::signed::covered;

/// The records of the question's name and of the aliases that follow from it.
pub(super) struct Chain {
    pub(super) records: Vec<Record>,
    /// The last of these names.
    pub(super) last: Name,
    /// Whether there is nothing of the asked type.
    pub(super) is_negative: bool,
    /// Whether the last name is one of those before.
    pub(super) is_loop: bool,
}

/// What of an answer section the question leads to.
pub(super) fn chain(question: &Question, records: &[Record]) -> Chain {
    let mut owner = question.name.clone();
    let mut kept: Vec<Record> = Vec::new();
    for _ in 0..=ALIASES_MAX {
        let here = || records.iter().filter(|record| record.name == owner && is_internet(record));
        let signs = |record: &Record, kind| question.dnssec_ok && covered(record) == Some(kind);
        let is_asked =
            |record: &Record| question.kind == RecordType::ANY || record.record_type() == question.kind;
        if here().any(is_asked) {
            let asked = here().filter(|record| is_asked(record) || signs(record, question.kind));
            kept.extend(asked.map(|record| owned_by(&owner, record)));
            return Chain { records: kept, last: owner, is_negative: false, is_loop: false };
        }
        let alias = here().find_map(|record| {
            let RData::CNAME(target) = &record.data else { return None };
            Some((record, target.0.clone()))
        });
        let Some((alias, target)) = alias else { break };
        // A DNAME above explains the alias if that was made from it, and is nobody's question otherwise.
        let explains =
            |record: &&Record| is_internet(record) && substituted(&owner, record).as_ref() == Some(&target);
        if let Some(dname) = records.iter().find(explains) {
            let is_signature =
                |record: &&Record| record.name == dname.name && signs(record, DNAME) && is_internet(record);
            let signatures = records.iter().filter(is_signature);
            kept.extend([dname].into_iter().chain(signatures).map(with_sane_ttl));
        }
        kept.push(owned_by(&owner, alias));
        let signatures = here().filter(|record| signs(record, RecordType::CNAME));
        kept.extend(signatures.map(|record| owned_by(&owner, record)));
        owner = target;
        if is_alias(&kept, &owner) {
            return Chain { records: kept, last: owner, is_negative: true, is_loop: true };
        }
    }
    Chain { records: kept, last: owner, is_negative: true, is_loop: false }
}

/// The alias that a DNAME makes of a name below its own: the end that they have in common is replaced by its target. `None` for a name
/// that is not below it, or that would become too long (RFC 6672 section 2.2).
fn substituted(name: &Name, dname: &Record) -> Option<Name> {
    let RData::Unknown { code: DNAME, rdata } = &dname.data else { return None };
    let (labels, replaced) = (name.iter().count(), dname.name.iter().count());
    if labels <= replaced || !dname.name.zone_of(name) {
        return None;
    }
    // It is not compressed (RFC 6672 section 2.5).
    let mut decoder = BinDecoder::new(&rdata.anything);
    let target = Name::read(&mut decoder).ok().filter(|_| decoder.is_empty())?;
    Name::from_labels(name.iter().take(labels - replaced)).ok()?.append_domain(&target).ok()
}

/// Whether one of these records says that `name` is an alias.
pub(super) fn is_alias(records: &[Record], name: &Name) -> bool {
    records.iter().any(|record| record.record_type() == RecordType::CNAME && record.name == *name)
}

/// The record with the letters of the name that was asked for or that an alias has, not with those that were drawn for the question.
fn owned_by(owner: &Name, record: &Record) -> Record {
    let mut record = with_sane_ttl(record);
    record.name = owner.clone();
    record
}

pub(super) fn is_internet(record: &Record) -> bool {
    record.dns_class == DNSClass::IN
}

/// Aliases that are followed; one more ends the chain there. BIND and Unbound stop at about as many.
pub(super) const ALIASES_MAX: usize = 16;
/// RFC 6672 section 2.1.
const DNAME: RecordType = RecordType::DNAME;

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME};
    use hickory_proto::serialize::binary::BinEncodable;

    use super::*;
    use crate::dns::forward::signed::tests::{rrsig, unknown};

    #[test]
    fn rfc6672_2_2_a_dname_comes_with_the_alias_that_was_made_from_it() {
        for (owner, target, alias, is_kept) in [
            ("tree.example.", "www.example.", "leaf.www.example.", true),
            ("TREE.example.", "WWW.example.", "leaf.www.EXAMPLE.", true),
            // Not what it makes of the name.
            ("tree.example.", "www.example.", "elsewhere.example.", false),
            ("tree.example.", "bank.example.", "leaf.www.example.", false),
            // Of the root, too, but not of itself, and of what is not below it.
            (".", "example.net.", "leaf.tree.example.example.net.", true),
            ("leaf.tree.example.", "www.example.", "www.example.", false),
            ("bank.example.", "www.example.", "leaf.www.example.", false),
        ] {
            let records = [
                dname(owner, target),
                rrsig(owner, DNAME, "."),
                rrsig(owner, RecordType::NS, "."),
                cname("leaf.tree.example.", alias),
                a(alias),
            ];
            let chain = chain(&asked("leaf.tree.example."), &records);
            let kinds: Vec<_> = chain.records.iter().map(Record::record_type).collect();
            let explained = [DNAME, RecordType::RRSIG, RecordType::CNAME, RecordType::A];
            assert_eq!(kinds, explained[if is_kept { 0 } else { 2 }..], "{owner} {target} {alias}");
        }
    }

    #[test]
    fn rfc6672_2_2_a_name_that_would_be_too_long_is_not_made() {
        let label = "a".repeat(60);
        let long = format!("{label}.{label}.{label}.{label}.");
        assert_eq!(substituted(&name("leaf-of-it.tree.example."), &dname("tree.example.", &long)), None);
        assert!(substituted(&name("b.tree.example."), &dname("tree.example.", &long)).is_some());
    }

    #[test]
    fn rfc6672_2_2_the_dname_is_the_one_that_explains_it() {
        let records = [
            dname("example.", "bank.example."),
            dname("tree.example.", "www.example."),
            cname("leaf.tree.example.", "leaf.www.example."),
        ];
        let chain = chain(&asked("leaf.tree.example."), &records);
        assert_eq!(chain.records, records[1..]);
    }

    fn asked(text: &str) -> Question {
        Question { name: name(text), kind: RecordType::A, dnssec_ok: true, checking_disabled: false }
    }

    fn dname(owner: &str, target: &str) -> Record {
        unknown(owner, DNAME, name(target).to_bytes().unwrap())
    }

    fn cname(owner: &str, target: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
    }

    fn a(owner: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::A(A::new(192, 0, 2, 1)))
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }
}
