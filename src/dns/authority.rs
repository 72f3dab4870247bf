//! What a question is answered with. Pure: the view, the question and a random source in, records and a code out.
//!
//! | Question | Known | Answer |
//! | --- | --- | --- |
//! | apex | always | SOA, NS; else NODATA |
//! | what nothing in the zone can be called | always | NXDOMAIN |
//! | anything else in the zone | the view was never loaded | SERVFAIL, extended error 22 |
//! | service, its ports and instances | by its name alone | SERVFAIL, extended error 22, until its instances are read |
//! | service | yes, some up | A, AAAA: those selected among whoever has such an address; SRV: all that are up |
//! | service, and names between it and its ports | yes, none up or another type | NODATA |
//! | service, filtered (`primary`, `blue.tag` and so on) | the service is known | the same of those that are meant, also when there are none |
//! | instance | in the view, whatever its status | A, AAAA, TXT; else NODATA |
//! | reverse name | an instance has the address, of what is followed | PTR; else NODATA |
//! | name of Consul's, when these are answered | | the same under its names |
//! | node of Consul's | none of what is followed, and not all is | SERVFAIL, extended error 22 |
//! | namespace | has a service | NODATA |
//! | anything else in the zone | | NXDOMAIN |
//! | out of the zone | | REFUSED, if nobody forwards it |
//! | zone transfers | | REFUSED |
//!
//! Negative answers spread through caches and search lists, so a known service never turns into NXDOMAIN. An
//! instance is found by its name even while it is not offered: clients still hold SRV records that name it.
//! The SOA is that of a locally served zone (RFC 6303 section 3): the zone names itself as its server.

use std::net::IpAddr;
use std::sync::Arc;

use fastrand::Rng;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{NS, PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustc_hash::FxHashSet;

use super::Ttls;
use super::answer::{Answer, ExtendedError, Freshness};
use super::consul::{ConsulDomain, ConsulQuestion};
use super::filter::{Filter, Tiers};
use super::name::{Question, Zone, instance_name};
use super::records;
use crate::registry::select::{select_among, select_in_all_tiers, select_in_all_zones};
use crate::registry::{Instance, Label, Port, Protocol, Service, ServiceKey, View};

/// Everything that answers are made from.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    /// The registry.
    pub view: &'a View,
    /// How far it can be trusted.
    pub freshness: Freshness,
    /// The zone that is answered for.
    pub zone: &'a Zone,
    /// The domain of Consul's names, if they are answered.
    pub consul: Option<&'a ConsulDomain>,
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
            Question::OutOfZone => {
                let question = self.consul.and_then(|domain| Some((domain, domain.question(name)?)));
                let Some((domain, question)) = question else {
                    return Answer { is_out_of_zone: true, ..refused() };
                };
                return self.consul(name, kind, (domain, &question), rng);
            }
            Question::Apex => return self.apex_of(name, kind, self.zone.apex()),
            // No view could say otherwise, however old it is.
            Question::Unknown => return self.no_such_name(),
            _ if !self.view.is_loaded => return never_learnt(),
            Question::Short { service: key } => match self.view.look_up(&key) {
                Some(service) => made_of(service, self.service(name, kind, service, rng)),
                None if self.has_namespace(&key.name) => self.no_data(),
                None => self.no_such_name(),
            },
            Question::Service { service: key, filter } => match self.view.look_up(&key) {
                Some(service) if filter == Filter::default() => {
                    made_of(service, self.service(name, kind, service, rng))
                }
                Some(service) => {
                    let some = filter.apply(service, self.view);
                    // Where the first stands there says nothing of the whole.
                    Answer { first: None, ..self.some_of_service(name, kind, &some, filter.tiers, rng) }
                }
                None => self.no_such_name(),
            },
            Question::NamedPort { service: key, filter, port, protocol } => match self.view.look_up(&key) {
                Some(service) if filter == Filter::default() => {
                    made_of(service, self.named_port(name, kind, service, (&port, protocol), rng))
                }
                Some(service) => {
                    let some = filter.apply(service, self.view);
                    self.named_port(name, kind, &some, (&port, protocol), rng)
                }
                None => self.no_such_name(),
            },
            Question::Between(key) if self.view.services.contains_key(&key) => self.no_data(),
            Question::Instance { service: key, instance } => {
                let service = self.view.look_up(&key);
                if service.is_some_and(|service| !service.is_followed) {
                    return not_read(Some(&key));
                }
                match service.and_then(|service| Some((service, service.instance(instance.as_str())?))) {
                    Some((service, instance)) => self.instance(name, kind, service, instance),
                    None => self.no_such_name(),
                }
            }
            Question::Between(_) => self.no_such_name(),
        };
        self.mark_stale(answer)
    }

    /// What there is at `name`, which is the `apex` of a zone of ours.
    fn apex_of(&self, name: &Name, kind: Kind, apex: &Name) -> Answer {
        let ttl = seconds(self.ttls.negative);
        match kind {
            Kind::Soa => self.positive(vec![self.soa_of(apex)]),
            Kind::Ns => {
                let data = RData::NS(NS(apex.clone()));
                self.positive(vec![Record::from_rdata(name.clone(), ttl, data)])
            }
            Kind::Any => self.positive(vec![records::minimal_any(name, ttl)]),
            Kind::A | Kind::Aaaa | Kind::Srv | Kind::Txt | Kind::ZoneTransfer | Kind::Other => self.no_data(),
        }
    }

    fn service(&self, name: &Name, kind: Kind, service: &Service, rng: &mut Rng) -> Answer {
        self.some_of_service(name, kind, service, Tiers::Offered, rng)
    }

    fn some_of_service(
        &self,
        name: &Name,
        kind: Kind,
        service: &Service,
        tiers: Tiers,
        rng: &mut Rng,
    ) -> Answer {
        match kind {
            Kind::A | Kind::Aaaa | Kind::Srv | Kind::Any if !service.is_followed => {
                not_read(Some(&service.key))
            }
            Kind::A | Kind::Aaaa => {
                // Drawn among those that have such an address: a tier or a zone of the other family would be an empty answer.
                let is_of_family = |address: &IpAddr| (kind == Kind::A) == address.is_ipv4();
                let is_meant = |instance: &Instance| instance.record.addresses.iter().any(is_of_family);
                let selection = match tiers {
                    Tiers::All => select_in_all_tiers(service, rng, is_meant),
                    Tiers::Offered | Tiers::Primary | Tiers::Standby => select_among(service, rng, is_meant),
                };
                let first = selection.first_index();
                let addresses = selection.iter().flat_map(|instance| &instance.record.addresses);
                Answer { first, ..self.addresses(name, kind, addresses, self.ttl(service)) }
            }
            Kind::Srv => self.srv(name, service, rng, |instance| instance.record.default_port()),
            Kind::Any => self.positive(vec![records::minimal_any(name, self.ttl(service))]),
            Kind::Txt | Kind::Soa | Kind::Ns | Kind::ZoneTransfer | Kind::Other => self.no_data(),
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
            Kind::Srv | Kind::Any if !service.is_followed => not_read(Some(&service.key)),
            Kind::Srv => self.srv(name, service, rng, |instance| instance.record.ports.iter().find(is_meant)),
            Kind::Any => self.positive(vec![records::minimal_any(name, self.ttl(service))]),
            Kind::A | Kind::Aaaa | Kind::Txt | Kind::Soa | Kind::Ns | Kind::ZoneTransfer | Kind::Other => {
                self.no_data()
            }
        }
    }

    fn instance(&self, name: &Name, kind: Kind, service: &Service, instance: &Instance) -> Answer {
        match kind {
            Kind::A | Kind::Aaaa => self.addresses(name, kind, &instance.record.addresses, self.ttl(service)),
            Kind::Txt => {
                let data = records::instance_txt(instance);
                self.positive(vec![Record::from_rdata(name.clone(), self.ttl(service), data)])
            }
            Kind::Any => self.positive(vec![records::minimal_any(name, self.ttl(service))]),
            Kind::Srv | Kind::Soa | Kind::Ns | Kind::ZoneTransfer | Kind::Other => self.no_data(),
        }
    }

    /// What there is at `name`, the reverse name of an address that these instances have: their names, and nothing else. Whoever says
    /// that there is something says so to every type, or others would say that there is no such name.
    pub fn reverse(&self, name: &Name, asked: RecordType, found: &[(&Service, &Instance)]) -> Answer {
        let kind = Kind::from(asked);
        let answer = match kind {
            Kind::ZoneTransfer => return refused(),
            Kind::Any => {
                let ttl = found.iter().map(|(service, _)| self.ttl(service)).min().unwrap_or(0);
                self.positive(vec![records::minimal_any(name, ttl)])
            }
            Kind::Other if asked == RecordType::PTR => self.pointers(name, found),
            // An SOA counts for names below it alone (RFC 2308 section 5): this name is a zone of its own.
            Kind::Soa | Kind::Ns => self.apex_of(name, kind, name),
            Kind::A | Kind::Aaaa | Kind::Srv | Kind::Txt | Kind::Other => {
                Answer { authority: vec![self.soa_of(name)], ..self.no_data() }
            }
        };
        self.mark_stale(answer)
    }

    fn pointers(&self, name: &Name, found: &[(&Service, &Instance)]) -> Answer {
        // A set has one TTL (RFC 2181 section 5.2).
        let ttl = found.iter().map(|(service, _)| self.ttl(service)).min().unwrap_or(0);
        let pointer = |(service, instance): &(&Service, &Instance)| {
            let target = instance_name(&self.zone.service_name(&service.key), &instance.id);
            Record::from_rdata(name.clone(), ttl, RData::PTR(PTR(target)))
        };
        self.positive(found.iter().map(pointer).collect())
    }

    /// What Consul's names are answered with: the same as ours, under the names of theirs.
    fn consul(
        &self,
        name: &Name,
        kind: Kind,
        (domain, question): (&ConsulDomain, &ConsulQuestion),
        rng: &mut Rng,
    ) -> Answer {
        let is_of_the_registry = matches!(question, ConsulQuestion::Service(..) | ConsulQuestion::Node(_));
        let answer = match question {
            ConsulQuestion::Empty if name.iter().len() == domain.apex().iter().len() => {
                self.apex_of(name, kind, domain.apex())
            }
            ConsulQuestion::Empty => self.no_data(),
            ConsulQuestion::Address(address) => match kind {
                Kind::A | Kind::Aaaa => self.addresses(name, kind, [address], seconds(self.ttls.answer)),
                Kind::Any => self.positive(vec![records::minimal_any(name, seconds(self.ttls.answer))]),
                Kind::Srv | Kind::Txt | Kind::Soa | Kind::Ns | Kind::ZoneTransfer | Kind::Other => {
                    self.no_data()
                }
            },
            ConsulQuestion::Unknown => self.no_such_name(),
            ConsulQuestion::Service(..) | ConsulQuestion::Node(_) if !self.view.is_loaded => {
                return never_learnt();
            }
            ConsulQuestion::Service(key, filter) => match self.view.look_up(key) {
                Some(service) => self.consul_service(name, kind, domain, (service, filter), rng),
                None => self.no_such_name(),
            },
            ConsulQuestion::Node(node) => self.node(name, kind, node),
        };
        // What a name says by itself is as true as ever.
        let mut answer = if is_of_the_registry { self.mark_stale(answer) } else { answer };
        for soa in &mut answer.authority {
            *soa = self.soa_of(domain.apex());
        }
        answer
    }

    fn consul_service(
        &self,
        name: &Name,
        kind: Kind,
        domain: &ConsulDomain,
        (service, filter): (&Service, &Filter),
        rng: &mut Rng,
    ) -> Answer {
        let some = filter.apply(service, self.view);
        if kind != Kind::Srv || !service.is_followed {
            return self.some_of_service(name, kind, &some, filter.tiers, rng);
        }
        // A name has one address there, and so one family.
        let first = |instance: &Instance| domain.address_name(instance.record.addresses[0]);
        let target = |instance: &'_ Instance| (first(instance), 1);
        let mut answer = self.srv_to(name, &some, rng, target, |instance| instance.record.default_port());
        // Instances that share an address share its name, and those that share the port as well may have one record.
        let mut seen = FxHashSet::default();
        answer.additional.retain(|record| seen.insert(record.data.ip_addr()));
        let mut seen = FxHashSet::default();
        answer.answers.retain(|record| seen.insert(record.data.clone()));
        answer
    }

    /// The addresses of instances that have this id, as pods have that are Consul's nodes, or that run on this machine.
    fn node(&self, name: &Name, kind: Kind, node: &Label) -> Answer {
        let is_meant = |instance: &&Instance| {
            let is_on = |machine: &String| machine.eq_ignore_ascii_case(node.as_str());
            instance.id == *node || instance.record.node.as_ref().is_some_and(is_on)
        };
        let services = self.view.services.values();
        let services = services.filter(|service| service.key.namespace == *self.zone.own_namespace());
        let found: Vec<_> =
            services.flat_map(|service| service.instances.iter().map(|it| &**it)).filter(is_meant).collect();
        match kind {
            // Whose instances are not known may have it; nothing says whose to ask for.
            _ if found.is_empty() && !self.is_followed(self.zone.own_namespace()) => not_read(None),
            _ if found.is_empty() => self.no_such_name(),
            Kind::A | Kind::Aaaa => {
                let addresses = found.iter().flat_map(|instance| &instance.record.addresses);
                self.addresses(name, kind, addresses, self.cap_stale(seconds(self.ttls.answer)))
            }
            Kind::Any => {
                self.positive(vec![records::minimal_any(name, self.cap_stale(seconds(self.ttls.answer)))])
            }
            Kind::Srv | Kind::Txt | Kind::Soa | Kind::Ns | Kind::ZoneTransfer | Kind::Other => self.no_data(),
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
            .map(|address| Record::from_rdata(name.clone(), ttl, records::address(*address)))
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
        let service_name = self.zone.service_name(&service.key);
        let target = |instance: &Instance| (instance_name(&service_name, &instance.id), usize::MAX);
        self.srv_to(name, service, rng, target, port_of)
    }

    /// `target_of` says how an instance is called, and how many of its addresses that name has.
    fn srv_to<'a>(
        &self,
        name: &Name,
        service: &'a Service,
        rng: &mut Rng,
        target_of: impl Fn(&'a Instance) -> (Name, usize),
        port_of: impl Fn(&'a Instance) -> Option<&'a Port>,
    ) -> Answer {
        let ttl = self.ttl(service);
        let mut answers = Vec::with_capacity(service.instances.len());
        let mut additional = Vec::with_capacity(service.instances.len());
        for instance in best_first(service, rng) {
            let Some(port) = port_of(instance) else { continue };
            let record = &instance.record;
            let (target, count) = target_of(instance);
            // One family after the other, so that the records of a set stand together.
            for is_of_family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
                for (index, address) in record.addresses.iter().enumerate().take(count) {
                    if is_of_family(address) && !record.addresses[..index].contains(address) {
                        additional.push(Record::from_rdata(target.clone(), ttl, records::address(*address)));
                    }
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

    fn soa(&self) -> Record {
        self.soa_of(self.zone.apex())
    }

    /// Its serial follows the view; nothing reads it, as zone transfers are refused.
    fn soa_of(&self, apex: &Name) -> Record {
        let ttl = self.cap_stale(seconds(self.ttls.negative));
        records::soa(apex, self.view.zxid.counter(), ttl)
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

    /// Whether the instances of all services in `namespace` are known.
    fn is_followed(&self, namespace: &Label) -> bool {
        let mut services = self.view.services.values().filter(|service| service.key.namespace == *namespace);
        services.all(|service| service.is_followed)
    }

    /// Whether any service is known in `namespace`. Keys are ordered by namespace, then by name.
    fn has_namespace(&self, namespace: &Label) -> bool {
        let smallest = Label::parse("0").expect("no label is smaller, and it is one");
        let first = ServiceKey { namespace: namespace.clone(), name: smallest };
        self.view
            .services
            .starting_at(&first)
            .next()
            .is_some_and(|service| service.key.namespace == *namespace)
    }
}

/// Types of questions that differ in their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    A,
    Aaaa,
    Srv,
    Txt,
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
            RecordType::TXT => Self::Txt,
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

/// An answer that is made of this service alone.
fn made_of(service: &Arc<Service>, answer: Answer) -> Answer {
    Answer { source: service.is_followed.then(|| service.clone()), ..answer }
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

/// Instances are not known, those of this service if it is about one, which is no reason to say that there are none.
fn not_read(service: Option<&ServiceKey>) -> Answer {
    Answer {
        rcode: ResponseCode::ServFail,
        extended: Some(ExtendedError::NotRead),
        wanted: service.cloned(),
        ..Answer::default()
    }
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(TTL_MAX_S).min(TTL_MAX_S)
}

/// RFC 2181 section 8.
const TTL_MAX_S: u32 = i32::MAX.unsigned_abs();
#[cfg(test)]
mod tests;
