//! What a question is answered with. Pure: the view, the question and a random source in, records and a code out.
//!
//! | Question | Known | Answer |
//! | --- | --- | --- |
//! | anything in the zone but its apex | the view was never loaded | SERVFAIL, extended error 22 |
//! | apex | always | SOA, NS; else NODATA |
//! | service, its ports and instances | by its name alone | SERVFAIL, extended error 22, until its instances are read |
//! | service | yes, some up | A, AAAA: the selected instances; SRV: all that are up |
//! | service, and names between it and its ports | yes, none up or another type | NODATA |
//! | instance | in the view, whatever its status | A, AAAA; else NODATA |
//! | namespace | has a service | NODATA |
//! | anything else in the zone | | NXDOMAIN |
//! | out of the zone, zone transfers | | REFUSED |
//!
//! Negative answers spread through caches and search lists, so a known service never turns into NXDOMAIN. An
//! instance is found by its name even while it is not offered: clients still hold SRV records that name it.
//! The SOA is that of a locally served zone (RFC 6303 section 3): the zone names itself as its server.

use std::net::IpAddr;

use fastrand::Rng;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustc_hash::FxHashSet;

use super::Ttls;
use super::name::{Question, Zone, instance_name};
use crate::registry::select::{select, select_in_all_zones};
use crate::registry::{Instance, Label, Port, Protocol, Service, ServiceKey, View};

/// An answer before it is encoded.
#[derive(Debug, Default)]
pub struct Answer {
    /// The code.
    pub rcode: ResponseCode,
    /// Whether we speak for the zone.
    pub is_authoritative: bool,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// The SOA of negative answers.
    pub authority: Vec<Record>,
    /// Addresses of SRV targets; may be left out.
    pub additional: Vec<Record>,
    /// What clients that sent EDNS are told besides (RFC 8914).
    pub extended: Option<ExtendedError>,
    /// The service whose instances it is about, when these are not followed: they must be asked for.
    pub wanted: Option<ServiceKey>,
}

/// An extended DNS error (RFC 8914 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendedError {
    /// 3: the view may be behind the ensemble.
    StaleAnswer,
    /// 19: the same, and the name is not in it.
    StaleNxDomain,
    /// 22: no ensemble was ever reached.
    NoReachableAuthority,
    /// 22: the service is known, and its instances could not be read in time.
    NotRead,
}

impl ExtendedError {
    /// The INFO-CODE.
    pub const fn code(self) -> u16 {
        match self {
            Self::StaleAnswer => 3,
            Self::StaleNxDomain => 19,
            Self::NoReachableAuthority | Self::NotRead => 22,
        }
    }
}

/// How far the view can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It follows the ensemble.
    Current,
    /// It may be behind.
    Stale,
}

/// Everything that answers are made from.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    /// The registry.
    pub view: &'a View,
    /// How far it can be trusted.
    pub freshness: Freshness,
    /// The zone that is answered for.
    pub zone: &'a Zone,
    /// How long answers may be kept.
    pub ttls: Ttls,
}

impl Knowledge<'_> {
    /// Answers a question of class IN for `name`, in whose letters owners of the answer are written; `rng`
    /// decides the order among equals.
    pub fn answer(&self, name: &Name, kind: RecordType, rng: &mut Rng) -> Answer {
        let kind = Kind::from(kind);
        if kind == Kind::ZoneTransfer {
            return refused();
        }
        let answer = match self.zone.question(name) {
            Question::OutOfZone => return refused(),
            Question::Apex => return self.apex(name, kind),
            _ if !self.view.is_loaded => return never_learnt(),
            Question::Short { service: key } => match self.view.look_up(&key) {
                Some(service) => self.service(name, kind, service, rng),
                None if self.has_namespace(&key.name) => self.no_data(),
                None => self.no_such_name(),
            },
            Question::Service(key) => match self.view.look_up(&key) {
                Some(service) => self.service(name, kind, service, rng),
                None => self.no_such_name(),
            },
            Question::NamedPort { service: key, port, protocol } => match self.view.look_up(&key) {
                Some(service) => self.named_port(name, kind, service, (&port, protocol), rng),
                None => self.no_such_name(),
            },
            Question::Transport(key) if self.view.services.contains_key(&key) => self.no_data(),
            Question::Instance { service: key, instance } => {
                let service = self.view.look_up(&key);
                if service.is_some_and(|service| !service.is_followed) {
                    return not_read(&key);
                }
                match service.and_then(|service| Some((service, service.instance(instance.as_str())?))) {
                    Some((service, instance)) => self.instance(name, kind, service, instance),
                    None => self.no_such_name(),
                }
            }
            Question::Transport(_) | Question::Unknown => self.no_such_name(),
        };
        self.mark_stale(answer)
    }

    fn apex(&self, name: &Name, kind: Kind) -> Answer {
        let ttl = seconds(self.ttls.negative);
        match kind {
            Kind::Soa => self.positive(vec![self.soa()]),
            Kind::Ns => {
                let data = RData::NS(NS(self.zone.apex().clone()));
                self.positive(vec![Record::from_rdata(name.clone(), ttl, data)])
            }
            Kind::Any => self.positive(vec![minimal_any(name, ttl)]),
            Kind::A | Kind::Aaaa | Kind::Srv | Kind::ZoneTransfer | Kind::Other => self.no_data(),
        }
    }

    fn service(&self, name: &Name, kind: Kind, service: &Service, rng: &mut Rng) -> Answer {
        match kind {
            Kind::A | Kind::Aaaa | Kind::Srv | Kind::Any if !service.is_followed => not_read(&service.key),
            Kind::A | Kind::Aaaa => {
                let selection = select(service, rng);
                if let Some(first) = selection.first_index() {
                    service.tally.count(first);
                }
                let addresses = selection.iter().flat_map(|instance| &instance.record.addresses);
                self.addresses(name, kind, addresses, self.ttl(service))
            }
            Kind::Srv => self.srv(name, service, rng, |instance| instance.record.default_port()),
            Kind::Any => self.positive(vec![minimal_any(name, self.ttl(service))]),
            Kind::Soa | Kind::Ns | Kind::ZoneTransfer | Kind::Other => self.no_data(),
        }
    }

    fn named_port(
        &self,
        name: &Name,
        kind: Kind,
        service: &Service,
        (port_name, protocol): (&Label, Protocol),
        rng: &mut Rng,
    ) -> Answer {
        let is_meant = |port: &&Port| port.name == *port_name && port.protocol == protocol;
        match kind {
            Kind::Srv | Kind::Any if !service.is_followed => not_read(&service.key),
            Kind::Srv => self.srv(name, service, rng, |instance| instance.record.ports.iter().find(is_meant)),
            Kind::Any => self.positive(vec![minimal_any(name, self.ttl(service))]),
            Kind::A | Kind::Aaaa | Kind::Soa | Kind::Ns | Kind::ZoneTransfer | Kind::Other => self.no_data(),
        }
    }

    fn instance(&self, name: &Name, kind: Kind, service: &Service, instance: &Instance) -> Answer {
        match kind {
            Kind::A | Kind::Aaaa => self.addresses(name, kind, &instance.record.addresses, self.ttl(service)),
            Kind::Any => self.positive(vec![minimal_any(name, self.ttl(service))]),
            Kind::Srv | Kind::Soa | Kind::Ns | Kind::ZoneTransfer | Kind::Other => self.no_data(),
        }
    }

    /// One record for each different address of the asked family (RFC 2181 section 5: no record twice).
    fn addresses<'a>(
        &self,
        name: &Name,
        kind: Kind,
        addresses: impl IntoIterator<Item = &'a IpAddr>,
        ttl: u32,
    ) -> Answer {
        let mut seen = FxHashSet::default();
        let records = addresses
            .into_iter()
            .filter(|address| (kind == Kind::A) == address.is_ipv4() && seen.insert(**address))
            .map(|address| Record::from_rdata(name.clone(), ttl, address_data(*address)))
            .collect();
        self.positive(records)
    }

    /// Every instance that is up and has the port, best first, so that a cut answer holds the best ones.
    fn srv<'a>(
        &self,
        name: &Name,
        service: &'a Service,
        rng: &mut Rng,
        port_of: impl Fn(&'a Instance) -> Option<&'a Port>,
    ) -> Answer {
        let ttl = self.ttl(service);
        let service_name = self.zone.service_name(&service.key);
        let mut answers = Vec::with_capacity(service.instances.len());
        let mut additional = Vec::with_capacity(service.instances.len());
        for instance in best_first(service, rng) {
            let Some(port) = port_of(instance) else { continue };
            let record = &instance.record;
            let target = instance_name(&service_name, &instance.id);
            for (index, address) in record.addresses.iter().enumerate() {
                if !record.addresses[..index].contains(address) {
                    additional.push(Record::from_rdata(target.clone(), ttl, address_data(*address)));
                }
            }
            // The last resort has no number of its own here.
            let priority = u16::try_from(instance.tier()).unwrap_or(u16::MAX);
            let data = SRV::new(priority, record.weight, port.port, target);
            answers.push(Record::from_rdata(name.clone(), ttl, RData::SRV(data)));
        }
        Answer { additional, ..self.positive(answers) }
    }

    /// Success with these records; NODATA when there are none.
    fn positive(&self, answers: Vec<Record>) -> Answer {
        if answers.is_empty() {
            return self.no_data();
        }
        Answer { is_authoritative: true, answers, ..Answer::default() }
    }

    /// The name exists, such records of it do not (RFC 2308 section 2.2).
    fn no_data(&self) -> Answer {
        Answer { is_authoritative: true, authority: vec![self.soa()], ..Answer::default() }
    }

    fn no_such_name(&self) -> Answer {
        Answer { rcode: ResponseCode::NXDomain, ..self.no_data() }
    }

    fn mark_stale(&self, mut answer: Answer) -> Answer {
        if self.freshness == Freshness::Stale && answer.extended.is_none() {
            let is_nx_domain = answer.rcode == ResponseCode::NXDomain;
            answer.extended =
                Some(if is_nx_domain { ExtendedError::StaleNxDomain } else { ExtendedError::StaleAnswer });
        }
        answer
    }

    /// The SOA, whose TTL and minimum both say how long a negative answer may be kept (RFC 2308 section 3). Its
    /// serial follows the view; nothing reads it, as zone transfers are refused.
    fn soa(&self) -> Record {
        let ttl = self.cap_stale(seconds(self.ttls.negative));
        let nobody = Name::from_labels([&b"nobody"[..], b"invalid"]).expect("two short labels");
        let apex = self.zone.apex();
        let serial = self.view.zxid.counter();
        let data = SOA::new(apex.clone(), nobody, serial, SOA_REFRESH_S, SOA_RETRY_S, SOA_EXPIRE_S, ttl);
        Record::from_rdata(apex.clone(), ttl, RData::SOA(data))
    }

    fn ttl(&self, service: &Service) -> u32 {
        let wanted = service.settings.dns_ttl_s.unwrap_or_else(|| seconds(self.ttls.answer));
        self.cap_stale(wanted.min(TTL_MAX_S))
    }

    fn cap_stale(&self, ttl: u32) -> u32 {
        match self.freshness {
            Freshness::Current => ttl,
            Freshness::Stale => ttl.min(seconds(self.ttls.stale)),
        }
    }

    /// Whether any service is known in `namespace`. Keys are ordered by namespace, then by name.
    fn has_namespace(&self, namespace: &Label) -> bool {
        let smallest = Label::parse("0").expect("no label is smaller, and it is one");
        let first = ServiceKey { namespace: namespace.clone(), name: smallest };
        self.view.services.range(first..).next().is_some_and(|(key, _)| key.namespace == *namespace)
    }
}

/// Types of questions that differ in their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    A,
    Aaaa,
    Srv,
    Soa,
    Ns,
    Any,
    ZoneTransfer,
    /// No name here has any.
    Other,
}

impl From<RecordType> for Kind {
    #[expect(clippy::wildcard_enum_match_arm, reason = "that is what `Other` means")]
    fn from(kind: RecordType) -> Self {
        match kind {
            RecordType::A => Self::A,
            RecordType::AAAA => Self::Aaaa,
            RecordType::SRV => Self::Srv,
            RecordType::SOA => Self::Soa,
            RecordType::NS => Self::Ns,
            RecordType::ANY => Self::Any,
            RecordType::AXFR | RecordType::IXFR => Self::ZoneTransfer,
            _ => Self::Other,
        }
    }
}

/// The instances of the tier that is offered in their order, then the others that are up, by tier.
fn best_first<'a>(service: &'a Service, rng: &mut Rng) -> Vec<&'a Instance> {
    let mut instances: Vec<&Instance> =
        select_in_all_zones(service, rng).iter().map(|instance| &**instance).collect();
    let selected = instances.len();
    let chosen_tier = instances.first().map(|instance| instance.tier());
    let others = service.up().map(|instance| &**instance);
    instances.extend(others.filter(|other| Some(other.tier()) != chosen_tier));
    instances[selected..].sort_by_key(|instance| instance.tier());
    instances
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The answer to ANY of a name that exists (RFC 8482 section 4.2).
fn minimal_any(name: &Name, ttl: u32) -> Record {
    let data = HINFO::new("RFC8482".to_owned(), String::new());
    Record::from_rdata(name.clone(), ttl, RData::HINFO(data))
}

fn refused() -> Answer {
    Answer { rcode: ResponseCode::Refused, ..Answer::default() }
}

fn never_learnt() -> Answer {
    Answer {
        rcode: ResponseCode::ServFail,
        extended: Some(ExtendedError::NoReachableAuthority),
        ..Answer::default()
    }
}

/// Its instances are not known, which is no reason to say that there are none.
fn not_read(service: &ServiceKey) -> Answer {
    Answer {
        rcode: ResponseCode::ServFail,
        extended: Some(ExtendedError::NotRead),
        wanted: Some(service.clone()),
        ..Answer::default()
    }
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(TTL_MAX_S).min(TTL_MAX_S)
}

/// RFC 2181 section 8.
const TTL_MAX_S: u32 = i32::MAX.unsigned_abs();
/// RFC 6303 section 3; only secondary servers look at them, and there are none.
const SOA_REFRESH_S: i32 = 3600;
const SOA_RETRY_S: i32 = 1200;
const SOA_EXPIRE_S: i32 = 604_800;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dns::sample::{self, Sample};
    use crate::registry::{Home, Status};

    #[test]
    fn a_service_has_the_addresses_of_the_selected_tier() {
        let sample = web();
        let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
        assert_eq!(answer.rcode, ResponseCode::NoError);
        assert!(answer.is_authoritative && answer.authority.is_empty());
        assert_eq!(sorted(&answer.answers), ["10.0.0.1 ttl 2", "10.0.0.2 ttl 2"]);
        let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::AAAA);
        assert_eq!(sorted(&answer.answers), ["fd00::1 ttl 2"]);
    }

    #[test]
    fn a_standby_is_offered_once_no_primary_is_up() {
        let mut sample = web();
        sample.instance("web", "web-1").status(Status::Failing);
        sample.instance("web", "web-2").status(Status::Draining);
        let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
        assert_eq!(sorted(&answer.answers), ["10.0.0.3 ttl 2"]);
    }

    #[test]
    fn what_is_known_by_its_name_alone_is_wanted_where_its_instances_matter_and_nowhere_else() {
        let sample = web().unfollowed("web");
        for (name, kind) in [
            ("web.default", RecordType::A),
            ("web", RecordType::AAAA),
            ("web.default", RecordType::SRV),
            ("_http._tcp.web.default", RecordType::SRV),
            ("web-1.web.default", RecordType::A),
            ("web-1.web.default", RecordType::TXT),
        ] {
            let answer = ask(&sample, &format!("{name}.rollcall.internal."), kind);
            assert_eq!(answer.rcode, ResponseCode::ServFail, "{name} {kind}");
            assert_eq!(answer.extended, Some(ExtendedError::NotRead), "{name} {kind}");
            assert_eq!(answer.wanted.unwrap().to_string(), "web.default", "{name} {kind}");
        }
        for (name, kind, rcode) in [
            ("web.default", RecordType::MX, ResponseCode::NoError),
            ("_tcp.web.default", RecordType::SRV, ResponseCode::NoError),
            ("empty.shop", RecordType::A, ResponseCode::NoError),
            ("unknown.default", RecordType::A, ResponseCode::NXDomain),
        ] {
            let answer = ask(&sample, &format!("{name}.rollcall.internal."), kind);
            assert_eq!((answer.rcode, answer.wanted), (rcode, None), "{name} {kind}");
        }
        assert!(web_is_marked(&sample), "so that it is followed for long enough");
    }

    fn web_is_marked(sample: &Sample) -> bool {
        sample
            .view
            .services
            .values()
            .any(|service| service.key.name.as_str() == "web" && service.lookups.is_set())
    }

    #[test]
    fn addresses_are_those_of_the_zone_and_srv_names_all() {
        let mut sample = web();
        sample.instance("web", "web-1").zone("a");
        sample.instance("web", "web-2").zone("b");
        sample.view.settle(Home::new(Some("b".to_owned()), []));
        for _ in 0..20 {
            let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
            assert_eq!(sorted(&answer.answers), ["10.0.0.2 ttl 2"], "3 of 4 weights, half of the callers");
        }
        assert_eq!(ask(&sample, "web.default.rollcall.internal.", RecordType::SRV).answers.len(), 3);
    }

    #[test]
    fn srv_names_every_instance_that_is_up_with_its_own_priority_and_weight() {
        let answer = ask(&web(), "web.default.rollcall.internal.", RecordType::SRV);
        assert_eq!(
            sorted(&answer.answers),
            [
                "0 1 8080 web-1.web.default.rollcall.internal. ttl 2",
                "0 3 8080 web-2.web.default.rollcall.internal. ttl 2",
                "10 1 8080 web-3.web.default.rollcall.internal. ttl 2",
            ]
        );
        let last = answer.answers.last().unwrap().data.to_string();
        assert!(last.starts_with("10 1 8080 web-3."), "standbys stand behind: {last}");
        assert_eq!(
            sorted(&answer.additional),
            ["10.0.0.1 ttl 2", "10.0.0.2 ttl 2", "10.0.0.3 ttl 2", "fd00::1 ttl 2"]
        );
        assert!(answer.additional.iter().all(|record| record.name.to_string().starts_with("web-")));
    }

    #[test]
    fn every_srv_target_resolves_to_its_additional_addresses() {
        let sample = web();
        let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::SRV);
        for glue in &answer.additional {
            let direct = ask(&sample, &glue.name.to_string(), glue.record_type());
            assert!(direct.answers.contains(glue), "{glue}");
        }
    }

    #[test]
    fn srv_gives_the_effective_priority() {
        let mut sample = web();
        sample.instance("web", "web-1").effective_priority(20);
        let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::SRV);
        assert!(sorted(&answer.answers).iter().any(|text| text.starts_with("20 1 8080 web-1.")));
    }

    #[test]
    fn a_named_port_is_found_by_name_and_protocol() {
        let sample = web();
        let http = ask(&sample, "_http._tcp.web.default.rollcall.internal.", RecordType::SRV);
        assert_eq!(http.answers.len(), 3);
        let metrics = ask(&sample, "_metrics._udp.web.default.rollcall.internal.", RecordType::SRV);
        assert_eq!(sorted(&metrics.answers), ["0 1 9090 web-1.web.default.rollcall.internal. ttl 2"]);
        for no_data in ["_metrics._tcp.web.default.rollcall.internal.", "_tcp.web.default.rollcall.internal."]
        {
            assert_no_data(&ask(&sample, no_data, RecordType::SRV));
        }
        assert_no_data(&ask(&sample, "_http._tcp.web.default.rollcall.internal.", RecordType::A));
    }

    #[test]
    fn an_instance_is_found_whatever_its_status() {
        let mut sample = web();
        sample.instance("web", "web-2").status(Status::Draining);
        let answer = ask(&sample, "web-2.web.default.rollcall.internal.", RecordType::A);
        assert_eq!(sorted(&answer.answers), ["10.0.0.2 ttl 2"]);
        assert_no_data(&ask(&sample, "web-2.web.default.rollcall.internal.", RecordType::AAAA));
        assert_nx_domain(&ask(&sample, "web-9.web.default.rollcall.internal.", RecordType::A));
    }

    #[test]
    fn one_label_is_a_service_of_the_own_namespace_or_a_namespace() {
        let sample = web();
        assert_eq!(ask(&sample, "web.rollcall.internal.", RecordType::A).answers.len(), 2);
        assert_eq!(ask(&sample, "_http._tcp.web.rollcall.internal.", RecordType::SRV).answers.len(), 3);
        for kind in [RecordType::A, RecordType::SRV, RecordType::TXT] {
            assert_no_data(&ask(&sample, "default.rollcall.internal.", kind));
            assert_no_data(&ask(&sample, "shop.rollcall.internal.", kind));
            assert_nx_domain(&ask(&sample, "defaul.rollcall.internal.", kind));
            assert_nx_domain(&ask(&sample, "zoo.rollcall.internal.", kind));
        }
    }

    #[test]
    fn a_known_service_with_nobody_or_without_such_records_is_no_data() {
        let mut sample = web();
        assert_no_data(&ask(&sample, "web.default.rollcall.internal.", RecordType::TXT));
        assert_no_data(&ask(&sample, "empty.shop.rollcall.internal.", RecordType::A));
        assert_no_data(&ask(&sample, "empty.shop.rollcall.internal.", RecordType::SRV));
        assert_no_data(&ask(&sample, "_http._tcp.empty.shop.rollcall.internal.", RecordType::SRV));
        for id in ["web-1", "web-2", "web-3"] {
            sample.instance("web", id).status(Status::Maintenance);
        }
        assert_no_data(&ask(&sample, "web.default.rollcall.internal.", RecordType::A));
        assert_no_data(&ask(&sample, "web.default.rollcall.internal.", RecordType::SRV));
    }

    #[test]
    fn names_never_heard_of_do_not_exist() {
        for name in [
            "nobody.default.rollcall.internal.",
            "web.nowhere.rollcall.internal.",
            "_http._tcp.nobody.default.rollcall.internal.",
            "_tcp.nobody.default.rollcall.internal.",
            "a.b.c.d.e.rollcall.internal.",
        ] {
            assert_nx_domain(&ask(&web(), name, RecordType::A));
        }
    }

    #[test]
    fn the_apex_has_a_soa_and_an_ns() {
        let soa = ask(&web(), "rollcall.internal.", RecordType::SOA);
        assert_eq!(sorted(&soa.answers), ["rollcall.internal. nobody.invalid. 7 3600 1200 604800 1 ttl 1"]);
        assert_eq!(
            sorted(&ask(&web(), "rollcall.internal.", RecordType::NS).answers),
            ["rollcall.internal. ttl 1"]
        );
        assert_no_data(&ask(&web(), "rollcall.internal.", RecordType::A));
        let unknown = Sample::never_loaded();
        assert_eq!(ask(&unknown, "rollcall.internal.", RecordType::SOA).answers.len(), 1);
    }

    #[test]
    fn nothing_learnt_is_a_failure_that_says_so() {
        for name in ["web.default.rollcall.internal.", "nobody.default.rollcall.internal."] {
            let answer = ask(&Sample::never_loaded(), name, RecordType::A);
            assert_eq!(answer.rcode, ResponseCode::ServFail);
            assert_eq!(answer.extended.map(ExtendedError::code), Some(22));
            assert!(answer.authority.is_empty() && !answer.is_authoritative);
        }
    }

    #[test]
    fn stale_answers_live_a_second_and_say_that_they_are_stale() {
        let mut sample = web();
        sample.freshness = Freshness::Stale;
        let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
        assert_eq!(sorted(&answer.answers), ["10.0.0.1 ttl 1", "10.0.0.2 ttl 1"]);
        assert_eq!(answer.extended.map(ExtendedError::code), Some(3));
        let unheard = ask(&sample, "nobody.default.rollcall.internal.", RecordType::A);
        assert_eq!(unheard.extended.map(ExtendedError::code), Some(19));
        let fresh = ask(&web(), "web.default.rollcall.internal.", RecordType::A);
        assert_eq!(fresh.extended, None);
    }

    #[test]
    fn a_service_may_set_its_own_ttl_but_not_over_the_stale_one() {
        let mut sample = web();
        Arc::make_mut(sample.service("web")).settings.dns_ttl_s = Some(30);
        let ttl =
            |sample: &Sample| ask(sample, "web.default.rollcall.internal.", RecordType::A).answers[0].ttl;
        assert_eq!(ttl(&sample), 30);
        sample.freshness = Freshness::Stale;
        assert_eq!(ttl(&sample), 1);
        Arc::make_mut(sample.service("web")).settings.dns_ttl_s = Some(u32::MAX);
        sample.freshness = Freshness::Current;
        assert_eq!(ttl(&sample), TTL_MAX_S);
    }

    #[test]
    fn other_zones_and_transfers_are_refused() {
        for (name, kind) in [
            ("example.com.", RecordType::A),
            ("rollcall.internal.", RecordType::AXFR),
            ("web.default.rollcall.internal.", RecordType::IXFR),
        ] {
            let answer = ask(&web(), name, kind);
            assert_eq!((answer.rcode, answer.is_authoritative), (ResponseCode::Refused, false));
            assert!(answer.answers.is_empty() && answer.authority.is_empty());
        }
    }

    #[test]
    fn any_is_answered_with_as_little_as_possible() {
        for name in [
            "web.default.rollcall.internal.",
            "web-1.web.default.rollcall.internal.",
            "_http._tcp.web.default.rollcall.internal.",
            "rollcall.internal.",
        ] {
            let answer = ask(&web(), name, RecordType::ANY);
            assert_eq!(answer.answers.len(), 1);
            assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
        }
        assert_nx_domain(&ask(&web(), "nobody.default.rollcall.internal.", RecordType::ANY));
    }

    #[test]
    fn owners_keep_the_callers_letters() {
        let name = "WeB.dEfAuLt.RollCall.Internal.";
        for kind in [RecordType::A, RecordType::SRV, RecordType::ANY] {
            let answer = ask(&web(), name, kind);
            assert!(answer.answers.iter().all(|record| record.name.to_string() == name));
        }
    }

    #[test]
    fn no_address_stands_twice_in_a_set() {
        let mut sample = web();
        sample.instance("web", "web-2").addresses(&["10.0.0.1", "10.0.0.1"]);
        let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
        assert_eq!(sorted(&answer.answers), ["10.0.0.1 ttl 2"]);
        let srv = ask(&sample, "web.default.rollcall.internal.", RecordType::SRV);
        assert_eq!(
            srv.additional.iter().filter(|record| record.name.to_string().starts_with("web-2")).count(),
            1
        );
    }

    #[test]
    fn the_order_follows_the_weights() {
        let sample = web();
        let mut rng = Rng::with_seed(1);
        let name = Name::from_ascii("web.default.rollcall.internal.").unwrap();
        let is_heavy_first = |rng: &mut Rng| {
            let answer = sample.knowledge().answer(&name, RecordType::A, rng);
            answer.answers[0].data.to_string() == "10.0.0.2"
        };
        let heavy_first = (0..4000).filter(|_| is_heavy_first(&mut rng)).count();
        assert!((2800..3200).contains(&heavy_first), "3 of 4 by weight, {heavy_first} of 4000 were");
    }

    fn web() -> Sample {
        sample::web()
    }

    fn ask(sample: &Sample, name: &str, kind: RecordType) -> Answer {
        sample.knowledge().answer(&Name::from_ascii(name).unwrap(), kind, &mut Rng::with_seed(7))
    }

    fn sorted(records: &[Record]) -> Vec<String> {
        let mut texts: Vec<_> =
            records.iter().map(|record| format!("{} ttl {}", record.data, record.ttl)).collect();
        texts.sort();
        texts
    }

    fn assert_no_data(answer: &Answer) {
        assert_negative(answer, ResponseCode::NoError);
    }

    fn assert_nx_domain(answer: &Answer) {
        assert_negative(answer, ResponseCode::NXDomain);
    }

    fn assert_negative(answer: &Answer, rcode: ResponseCode) {
        assert_eq!(answer.rcode, rcode);
        assert!(answer.is_authoritative && answer.answers.is_empty() && answer.additional.is_empty());
        assert_eq!(sorted(&answer.authority).len(), 1);
        let soa = &answer.authority[0];
        assert_eq!((soa.record_type(), soa.ttl), (RecordType::SOA, 1));
    }
}
