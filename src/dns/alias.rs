//! Aliases of others that lead to names of ours. Pure.
//!
//! ```text
//! what upstreams say   shop.example.com CNAME web.shop.<zone>   (whatever they say of that: nothing, an address, that there is no such name)
//! what clients get     shop.example.com CNAME web.shop.<zone>   web.shop.<zone> A 10.0.0.1, or why there is none
//! ```
//!
//! Upstreams cannot know what our names stand for, and stub resolvers do not ask again. So the look-up goes on here with the name that is
//! ours (RFC 1034 section 4.3.2, 3a), and its code is that of the whole (RFC 6604 section 3). Ours lead nowhere else: upstreams' aliases,
//! of which [`super::forward`] takes so many, are all there can be.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::answer::{Answer, ExtendedError};

/// How far an answer of upstreams counts: so many of its records, and the name of ours that they lead to. `None` for one that
/// does not lead here.
pub(super) fn way_home<'a>(
    (name, kind): (&Name, RecordType),
    records: &'a [Record],
    is_ours: impl Fn(&Name) -> bool,
) -> Option<(usize, &'a Name)> {
    // Who asks for the alias itself has it.
    if matches!(kind, RecordType::CNAME | RecordType::ANY) {
        return None;
    }
    let mut end: &Name = name;
    for (index, record) in records.iter().enumerate() {
        let RData::CNAME(target) = &record.data else { continue };
        if record.name == *end {
            let target = &target.0;
            if is_ours(target) {
                let is_signature =
                    |other: &&Record| other.record_type() == RecordType::RRSIG && other.name == record.name;
                let signatures = records[index + 1..].iter().take_while(is_signature).count();
                return Some((index + 1 + signatures, target));
            }
            end = target;
        }
    }
    None
}

/// The first `records` of what upstreams say, which lead to a name of ours, and what we say of that.
pub(super) fn led_on(mut answer: Answer, records: usize, own: Answer) -> Answer {
    let is_stale = [answer.extended, own.extended]
        .iter()
        .flatten()
        .any(|extended| matches!(extended, ExtendedError::StaleAnswer | ExtendedError::StaleNxDomain));
    // It is no longer made of one service alone, nor are we asked about a zone of ours (RFC 1035 section 4.1.1, AA).
    let own = Answer { is_authoritative: false, is_recursive: true, source: None, first: None, ..own };
    let is_nx_domain = own.rcode == ResponseCode::NXDomain;
    if own.rcode != ResponseCode::NoError && !is_nx_domain {
        // As with any alias of which nobody says what it stands for.
        return own;
    }
    let stale = if is_nx_domain { ExtendedError::StaleNxDomain } else { ExtendedError::StaleAnswer };
    let extended = if is_stale { Some(stale) } else { own.extended };
    answer.answers.truncate(records);
    answer.answers.extend(own.answers);
    Answer { answers: answer.answers, extended, passed_on: answer.passed_on, ..own }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME};

    use super::*;

    #[test]
    fn an_answer_counts_as_far_as_the_first_name_of_ours() {
        let records = [
            alias("www.example.", "Shop.example."),
            alias("other.example.", "db.ours."),
            alias("shop.example.", "Web.Ours."),
            alias("web.ours.", "evil.example."),
            address("evil.example."),
        ];
        let (count, own) = home("WWW.example.", RecordType::A, &records).unwrap();
        assert_eq!((count, own.to_string().as_str()), (3, "Web.Ours."));
        assert_eq!(home("shop.example.", RecordType::AAAA, &records).unwrap().0, 3);
        assert!(home("evil.example.", RecordType::A, &records).is_none());
    }

    #[test]
    fn who_asks_for_an_alias_has_it() {
        let records = [alias("www.example.", "web.ours.")];
        for kind in [RecordType::CNAME, RecordType::ANY] {
            assert!(home("www.example.", kind, &records).is_none());
        }
    }

    #[test]
    fn the_code_is_that_of_our_name_and_failures_stand_alone() {
        let theirs = || Answer {
            rcode: ResponseCode::NXDomain,
            answers: vec![alias("www.example.", "web.ours."), address("web.ours.")],
            authority: vec![address("soa.")],
            is_recursive: true,
            is_authentic: true,
            extended: Some(ExtendedError::StaleNxDomain),
            ..Answer::default()
        };
        let answers = vec![address("web.ours."), address("web.ours.")];
        let own = Answer { answers, is_authoritative: true, first: Some(0), ..Answer::default() };
        let answer = led_on(theirs(), 1, own);
        assert_eq!((answer.rcode, answer.answers.len()), (ResponseCode::NoError, 3));
        assert!(answer.authority.is_empty() && answer.is_recursive);
        assert!(!answer.is_authoritative && !answer.is_authentic && answer.first.is_none());
        assert_eq!(answer.extended, Some(ExtendedError::StaleAnswer), "the alias is old");

        let extended = Some(ExtendedError::NotRead);
        let own = Answer { rcode: ResponseCode::ServFail, extended, ..Answer::default() };
        let answer = led_on(theirs(), 1, own);
        assert_eq!((answer.rcode, answer.answers.len()), (ResponseCode::ServFail, 0));
        assert_eq!(answer.extended, extended);
    }

    fn home<'a>(name: &str, kind: RecordType, records: &'a [Record]) -> Option<(usize, &'a Name)> {
        let ours = Name::from_ascii("ours.").unwrap();
        way_home((&Name::from_ascii(name).unwrap(), kind), records, |name| ours.zone_of(name))
    }

    fn alias(owner: &str, target: &str) -> Record {
        let data = RData::CNAME(CNAME(Name::from_ascii(target).unwrap()));
        Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, data)
    }

    fn address(owner: &str) -> Record {
        Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, RData::A(A::new(192, 0, 2, 1)))
    }
}
