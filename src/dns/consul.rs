//! Names as Consul's agents answer them, and which of our questions they ask. Pure.
//!
//! ```text
//! [<tag>.]<service>.service[.<namespace>.ns][.<datacenter>[.dc]].<domain>      service
//! _<service>._<tag>.service[...].<domain>                                      the same for SRV (RFC 2782); _tcp and _udp are no tags
//! <node>.node[.<datacenter>[.dc]].<domain>                                     instances with that id, or on that machine
//! <8 or 32 hex digits>.addr[.<datacenter>[.dc]].<domain>                       that address, the target of SRV records
//! ```
//!
//! Source: Consul's documentation, "Consul DNS reference": service and node lookups, RFC 2782 lookups, namespaces. What it answers with a
//! prepared query, a virtual address or a peer does not exist here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

use super::filter::Filter;
use super::name::{Zone, ZoneError, is_word, label, labels_below, parse_zone};
use crate::registry::{Label, ServiceKey};

/// The domain under which Consul's names are answered.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsulDomain {
    name: Name,
    datacenter: Label,
    own_namespace: Label,
}

/// What a name of Consul's asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConsulQuestion {
    /// The domain itself, or a name between it and others.
    Empty,
    /// A service.
    Service(ServiceKey, Filter),
    /// A node, in the own namespace.
    Node(Label),
    /// An address that stands in the name.
    Address(IpAddr),
    /// In the domain, and nothing that there could be.
    Unknown,
}

/// Labels before the domain in the name with the most: `<tag>.<service>.service.<namespace>.ns.<datacenter>.dc`.
const DEPTH_MAX: usize = 7;

impl ConsulDomain {
    /// The domain by default.
    pub const DOMAIN: &'static str = "consul.";
    /// The datacenter by default.
    pub const DATACENTER: &'static str = "dc1";

    /// The domain `text`, such as `consul`, where names may say that they mean `datacenter`.
    ///
    /// # Errors
    ///
    /// As [`super::Zone::parse`].
    pub fn parse(text: &str, datacenter: Label, own_namespace: Label) -> Result<Self, ZoneError> {
        Ok(Self { name: parse_zone(text)?, datacenter, own_namespace })
    }

    /// Its name, in lower case.
    pub const fn apex(&self) -> &Name {
        &self.name
    }

    /// Whether `name` is the domain or below it.
    pub(super) fn contains(&self, name: &Name) -> bool {
        labels_below(name, &self.name, &mut []).is_some()
    }

    /// Whether all of its names are in `zone`, which goes first, so that none of them is Consul's.
    pub fn is_within(&self, zone: &Zone) -> bool {
        zone.contains(&self.name)
    }

    /// What `name` asks for; `None` when it is not in the domain.
    pub(super) fn question(&self, name: &Name) -> Option<ConsulQuestion> {
        let mut slots: [&[u8]; DEPTH_MAX] = [&[]; DEPTH_MAX];
        let labels = labels_below(name, &self.name, &mut slots)?;
        Some(labels.and_then(|labels| self.parse_labels(labels)).unwrap_or(ConsulQuestion::Unknown))
    }

    fn parse_labels(&self, labels: &[&[u8]]) -> Option<ConsulQuestion> {
        if self.is_place(labels) {
            return Some(ConsulQuestion::Empty);
        }
        // From the right, as Consul does: what a word says is called may be called like a word itself. One that makes no sense so is the
        // datacenter or the namespace.
        (0..labels.len()).rev().find_map(|at| {
            let namespace = self.namespace_and_place(&labels[at + 1..])?;
            self.parse_before(&labels[..at], Word::of(labels[at])?, namespace)
        })
    }

    /// What the labels before a word ask for.
    fn parse_before(&self, before: &[&[u8]], word: Word, namespace: Label) -> Option<ConsulQuestion> {
        Some(match (word, before) {
            (_, []) => ConsulQuestion::Empty,
            (Word::Node, [node]) => ConsulQuestion::Node(label(node)?),
            (Word::Address, [digits]) => ConsulQuestion::Address(address(digits)?),
            (Word::Service, [name]) => self.service(name, None, namespace)?,
            (Word::Service, [first, second]) => match (first.strip_prefix(b"_"), second.strip_prefix(b"_")) {
                (Some(name), Some(tag)) if is_word(tag, b"tcp") || is_word(tag, b"udp") => {
                    self.service(name, None, namespace)?
                }
                (Some(name), Some(tag)) => self.service(name, Some(tag), namespace)?,
                (None, None) => self.service(second, Some(first), namespace)?,
                _ => return None,
            },
            _ => return None,
        })
    }

    fn service(&self, name: &[u8], tag: Option<&[u8]>, namespace: Label) -> Option<ConsulQuestion> {
        let service = ServiceKey { namespace, name: label(name)? };
        let tag = match tag {
            Some(tag) => Some(label(tag)?),
            None => None,
        };
        Some(ConsulQuestion::Service(service, Filter { tag, ..Filter::default() }))
    }

    /// The namespace that what stands between the word and the domain means; `None` when it does not mean us.
    fn namespace_and_place(&self, labels: &[&[u8]]) -> Option<Label> {
        let (namespace, place) = match labels {
            [namespace, ns, place @ ..] if is_word(ns, b"ns") => (label(namespace)?, place),
            _ => (self.own_namespace.clone(), labels),
        };
        self.is_place(place).then_some(namespace)
    }

    /// Whether what stands before the domain means us.
    fn is_place(&self, labels: &[&[u8]]) -> bool {
        let is_ours = |datacenter: &[u8]| is_word(datacenter, self.datacenter.as_str().as_bytes());
        match labels {
            [] => true,
            [datacenter] => is_ours(datacenter),
            [datacenter, dc] => is_ours(datacenter) && is_word(dc, b"dc"),
            _ => false,
        }
    }

    /// The name of an address, which SRV records name as their target.
    pub(super) fn address_name(&self, address: IpAddr) -> Name {
        let digits: String = match address {
            IpAddr::V4(address) => address.octets().iter().map(|octet| format!("{octet:02x}")).collect(),
            IpAddr::V6(address) => address.octets().iter().map(|octet| format!("{octet:02x}")).collect(),
        };
        let labels = [digits.as_bytes(), b"addr", self.datacenter.as_str().as_bytes()];
        Name::from_labels(labels.into_iter().chain(self.name.iter()))
            .expect("the domain leaves room for them")
    }
}

impl fmt::Debug for ConsulDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (datacenter {}, own namespace {})", self.name, self.datacenter, self.own_namespace)
    }
}

#[derive(Clone, Copy)]
enum Word {
    Service,
    Node,
    Address,
}

impl Word {
    fn of(label: &[u8]) -> Option<Self> {
        let words = [(&b"service"[..], Self::Service), (b"node", Self::Node), (b"addr", Self::Address)];
        words.into_iter().find(|(word, _)| is_word(label, word)).map(|(_, meaning)| meaning)
    }
}

fn address(digits: &[u8]) -> Option<IpAddr> {
    let text =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|it| it.is_ascii_hexdigit()))?;
    match text.len() {
        8 => u32::from_str_radix(text, 16).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        32 => u128::from_str_radix(text, 16).ok().map(|bits| Ipv6Addr::from_bits(bits).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        let web = |namespace: &str, tag: Option<&str>| {
            let filter = Filter { tag: tag.map(name), ..Filter::default() };
            ConsulQuestion::Service(ServiceKey { namespace: name(namespace), name: name("web") }, filter)
        };
        let address = |text: &str| ConsulQuestion::Address(text.parse().unwrap());
        let cases = [
            ("web.service", web("shop", None)),
            ("WEB.Service.DC1", web("shop", None)),
            ("web.service.dc1.dc", web("shop", None)),
            ("blue.web.service.dc1", web("shop", Some("blue"))),
            ("_web._tcp.service", web("shop", None)),
            ("_web._UDP.service", web("shop", None)),
            ("_web._blue.service.dc1", web("shop", Some("blue"))),
            ("web.service.other.ns", web("other", None)),
            ("blue.web.service.other.ns.dc1.dc", web("other", Some("blue"))),
            ("host-1.node", ConsulQuestion::Node(name("host-1"))),
            ("host-1.node.dc1", ConsulQuestion::Node(name("host-1"))),
            ("0a000001.addr.dc1", address("10.0.0.1")),
            ("0A00000f.addr", address("10.0.0.15")),
            ("fd000000000000000000000000000001.addr", address("fd00::1")),
            ("service", ConsulQuestion::Empty),
            ("node.dc1", ConsulQuestion::Empty),
            ("dc1", ConsulQuestion::Empty),
        ];
        for (text, question) in cases {
            assert_eq!(ask(&format!("{text}.consul.")), Some(question), "{text}");
        }
        assert_eq!(ask("consul."), Some(ConsulQuestion::Empty));
        assert_eq!(ask("web.service.other."), None);
        for unknown in [
            "web.service.dc2",
            "web.service.other.ns.dc2",
            "a.b.web.service",
            "_web.service",
            "_web.blue.service",
            "web",
            "0a0000.addr",
            "0a00000g.addr",
            "a.b.node",
            "dc1.dc.web.service.x",
            "web.query",
            "b_d.service",
        ] {
            assert_eq!(ask(&format!("{unknown}.consul.")), Some(ConsulQuestion::Unknown), "{unknown}");
        }
    }

    #[test]
    fn the_right_most_word_says_what_is_asked_for() {
        let service = |service: &str, namespace: &str, tag: Option<&str>| {
            let filter = Filter { tag: tag.map(name), ..Filter::default() };
            ConsulQuestion::Service(ServiceKey { namespace: name(namespace), name: name(service) }, filter)
        };
        let cases = [
            ("service.service", service("service", "shop", None)),
            ("node.service", service("node", "shop", None)),
            ("addr.service.dc1", service("addr", "shop", None)),
            ("blue.node.service.dc1.dc", service("node", "shop", Some("blue"))),
            ("node.web.service", service("web", "shop", Some("node"))),
            ("service.addr.service.other.ns", service("addr", "other", Some("service"))),
            ("_node._tcp.service", service("node", "shop", None)),
            ("web.service.node.ns", service("web", "node", None)),
            ("node", ConsulQuestion::Empty),
            ("service.node", ConsulQuestion::Node(name("service"))),
            ("node.node.dc1", ConsulQuestion::Node(name("node"))),
            ("web.service.addr", ConsulQuestion::Unknown),
            ("web.service.node.dc2", ConsulQuestion::Unknown),
        ];
        for (text, question) in cases {
            assert_eq!(ask(&format!("{text}.consul.")), Some(question), "{text}");
        }
        let domain = ConsulDomain::parse("consul", name("node"), name("shop")).unwrap();
        let ask = |text: &str| domain.question(&Name::from_ascii(text).unwrap());
        assert_eq!(ask("web.service.node.consul."), Some(service("web", "shop", None)), "a datacenter, too");
        let address = "10.0.0.1".parse().unwrap();
        let its_name = domain.address_name(address);
        assert_eq!(domain.question(&its_name), Some(ConsulQuestion::Address(address)), "{its_name}");
    }

    #[test]
    fn the_name_of_an_address_means_it() {
        for text in ["10.0.0.1", "fd00::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(
                domain().question(&domain().address_name(address)),
                Some(ConsulQuestion::Address(address))
            );
        }
        assert_eq!(
            domain().address_name("10.0.0.1".parse().unwrap()).to_string(),
            "0a000001.addr.dc1.consul."
        );
    }

    fn ask(text: &str) -> Option<ConsulQuestion> {
        domain().question(&Name::from_ascii(text).unwrap())
    }

    fn domain() -> ConsulDomain {
        ConsulDomain::parse("consul", name(ConsulDomain::DATACENTER), name("shop")).unwrap()
    }

    fn name(text: &str) -> Label {
        Label::parse(text).unwrap()
    }
}
