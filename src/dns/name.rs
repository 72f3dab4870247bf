//! Which question a DNS name asks, and which names stand in answers. Pure.
//!
//! ```text
//! <zone>                                                         apex
//! <service>.<zone>                                               short: a service of the sidecar's own namespace,
//!                                                                or a namespace, which the view decides
//! [<filter>.]<service>[.<namespace>].<zone>                      service
//! _<port>._<tcp|udp>.[<filter>.]<service>[.<namespace>].<zone>   named port
//! _<tcp|udp>.[<filter>.]<service>[.<namespace>].<zone>           the empty nodes above named ports
//! <instance>.<service>.<namespace>.<zone>                        instance
//! ```
//!
//! A filter is `<tag>.tag`, `<zone>.az`, or `primary`, `standby` or `all`; there may be one of each kind. The words are reserved, so no
//! service or namespace has one for a name, and no instance that a sidecar registers. One that others have called so is found with its service alone.
//!
//! Labels are compared without regard to case (RFC 4343). The registry's own labels are lower case, so a
//! question holds them folded; the caller's letters stay in the query's [`Name`], which owns the answers.

use std::fmt;

use hickory_proto::rr::Name;

use super::filter::{Filter, Tiers};
use crate::registry::{Label, Protocol, ServiceKey};

/// The zone that is answered for.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    name: Name,
    own_namespace: Label,
}

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The zone itself.
    Apex,
    /// One label below the zone: a service of the own namespace or, failing that, a namespace.
    Short {
        /// The service in the own namespace.
        service: ServiceKey,
    },
    /// A service.
    Service {
        /// Its key.
        service: ServiceKey,
        /// Which of its instances.
        filter: Filter,
    },
    /// An empty node between a service and its named ports or its filters.
    Between(ServiceKey),
    /// A port of a service by its name.
    NamedPort {
        /// The service.
        service: ServiceKey,
        /// Which of its instances.
        filter: Filter,
        /// What the port is called.
        port: Label,
        /// How it is spoken to.
        protocol: Protocol,
    },
    /// One instance.
    Instance {
        /// Its service.
        service: ServiceKey,
        /// Its id.
        instance: Label,
    },
    /// In the zone, but no name that anything could have.
    Unknown,
    /// Not in the zone.
    OutOfZone,
}

/// Why a text is no zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Not labels with dots between them.
    #[error(
        "{text:?} is not a DNS zone: use labels of a-z, 0-9 and inner hyphens, such as rollcall.internal"
    )]
    NotAName {
        /// What was given.
        text: String,
    },
    /// So long that names in it would not fit into 255 octets.
    #[error(
        "the zone {text:?} has {octets} octets, which leaves too little for the names in it; use at most {}",
        Zone::OCTETS_MAX
    )]
    TooLong {
        /// What was given.
        text: String,
        /// Its length on the wire.
        octets: usize,
    },
}

impl Zone {
    /// Octets of the longest zone on the wire. The longest name in it, `_<port>._tcp.<service>.<namespace>`,
    /// takes 64 + 5 + 64 + 64 octets, and no name may have more than 255 (RFC 1035 section 2.3.4).
    pub const OCTETS_MAX: usize = 58;

    /// Reads a zone such as `rollcall.internal` or `rollcall.internal.`, in any letter case.
    ///
    /// # Errors
    ///
    /// When it is the root, has a label that is none, or is longer than [`Self::OCTETS_MAX`].
    pub fn parse(text: &str, own_namespace: Label) -> Result<Self, ZoneError> {
        Ok(Self { name: parse_zone(text)?, own_namespace })
    }

    /// The zone's own name, in lower case.
    pub fn apex(&self) -> &Name {
        &self.name
    }

    /// The namespace of short names.
    pub const fn own_namespace(&self) -> &Label {
        &self.own_namespace
    }

    /// Whether `name` is the zone or below it.
    pub fn contains(&self, name: &Name) -> bool {
        labels_below(name, &self.name, &mut []).is_some()
    }

    /// What `name` asks for.
    pub fn question(&self, name: &Name) -> Question {
        let mut slots: [&[u8]; DEPTH_MAX] = [&[]; DEPTH_MAX];
        match labels_below(name, &self.name, &mut slots) {
            None => Question::OutOfZone,
            Some(labels) => labels.and_then(|labels| self.parse_labels(labels)).unwrap_or(Question::Unknown),
        }
    }

    fn parse_labels(&self, labels: &[&[u8]]) -> Option<Question> {
        match *labels {
            [] => return Some(Question::Apex),
            [name] if !is_service_label(name) => {
                let service = self.service(&[name])?;
                return Some(Question::Short { service });
            }
            _ => {}
        }
        let (port, labels) = port_and_rest(labels)?;
        let (filter, rest) = filter_and_rest(labels)?;
        if let Some(service) = self.service(rest) {
            return Some(match port {
                PortLabels::None => Question::Service { service, filter },
                PortLabels::Protocol => Question::Between(service),
                PortLabels::Named(port, protocol) => Question::NamedPort { service, filter, port, protocol },
            });
        }
        match (port, rest) {
            // The node above all tags, or all zones.
            (_, [word, rest @ ..]) if is_word(word, b"tag") || is_word(word, b"az") => {
                let (_, rest) = filter_and_rest(rest)?;
                Some(Question::Between(self.service(rest)?))
            }
            (PortLabels::None, [instance, rest @ ..]) if rest.len() == 2 && filter == Filter::default() => {
                Some(Question::Instance { service: self.service(rest)?, instance: label(instance)? })
            }
            _ => None,
        }
    }

    /// The service that is left of a name when everything before it is read.
    fn service(&self, labels: &[&[u8]]) -> Option<ServiceKey> {
        let key = match *labels {
            [name] => ServiceKey { namespace: self.own_namespace.clone(), name: label(name)? },
            [name, namespace] => ServiceKey { namespace: label(namespace)?, name: label(name)? },
            _ => return None,
        };
        (!key.is_reserved()).then_some(key)
    }

    /// The canonical name of a service, `<service>.<namespace>.<zone>`.
    ///
    /// # Panics
    ///
    /// Never: [`Self::OCTETS_MAX`] leaves room for it.
    pub fn service_name(&self, service: &ServiceKey) -> Name {
        let labels = [service.name.as_str().as_bytes(), service.namespace.as_str().as_bytes()];
        let labels = labels.into_iter().chain(self.name.iter());
        Name::from_labels(labels).expect("OCTETS_MAX leaves room for two labels")
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (own namespace {})", self.name, self.own_namespace)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.name, f)
    }
}

/// Reads a zone such as `rollcall.internal` or `rollcall.internal.`, in any letter case.
pub(super) fn parse_zone(text: &str) -> Result<Name, ZoneError> {
    let not_a_name = || ZoneError::NotAName { text: text.to_owned() };
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let labels = lower.split('.').map(Label::parse).collect::<Result<Vec<_>, _>>();
    let labels = labels.map_err(|_| not_a_name())?;
    let octets = 1 + labels.iter().map(|label| 1 + label.as_str().len()).sum::<usize>();
    if octets > Zone::OCTETS_MAX {
        return Err(ZoneError::TooLong { text: text.to_owned(), octets });
    }
    let name = Name::from_labels(labels.iter().map(|label| label.as_str().as_bytes()));
    name.map_err(|_| not_a_name())
}

/// The labels of `name` before those of `zone`; `None` when it is not in the zone, and `Some(None)` when there are more than `slots`.
pub(super) fn labels_below<'a, 'b>(
    name: &'a Name,
    zone: &Name,
    slots: &'b mut [&'a [u8]],
) -> Option<Option<&'b [&'a [u8]]>> {
    let mut ends = name.iter().rev().zip(zone.iter().rev());
    let depth = name.iter().len().checked_sub(zone.iter().len())?;
    if !ends.all(|(label, of_zone)| label.eq_ignore_ascii_case(of_zone)) {
        return None;
    }
    let Some(labels) = slots.get_mut(..depth) else { return Some(None) };
    for (slot, label) in labels.iter_mut().zip(name.iter()) {
        *slot = label;
    }
    Some(Some(labels))
}

/// The canonical name of an instance, the target of SRV records.
///
/// # Panics
///
/// Never: [`Zone::OCTETS_MAX`] leaves room for it.
pub fn instance_name(service_name: &Name, instance: &Label) -> Name {
    let instance = instance.as_str().as_bytes();
    service_name.prepend_label(instance).expect("OCTETS_MAX leaves room for three labels")
}

/// What a name begins with when it asks for ports.
enum PortLabels {
    None,
    Protocol,
    Named(Label, Protocol),
}

fn port_and_rest<'a, 'b>(labels: &'b [&'a [u8]]) -> Option<(PortLabels, &'b [&'a [u8]])> {
    match labels {
        [port, transport, rest @ ..] if is_service_label(port) && is_service_label(transport) => {
            Some((PortLabels::Named(port_label(port)?, protocol(transport)?), rest))
        }
        [transport, rest @ ..] if is_service_label(transport) => {
            protocol(transport)?;
            Some((PortLabels::Protocol, rest))
        }
        _ => Some((PortLabels::None, labels)),
    }
}

/// The filters that `labels` begin with; `None` when there are two of a kind.
fn filter_and_rest<'a, 'b>(mut labels: &'b [&'a [u8]]) -> Option<(Filter, &'b [&'a [u8]])> {
    let mut filter = Filter::default();
    loop {
        let is_new = match labels {
            [tag, word, rest @ ..] if is_word(word, b"tag") => {
                labels = rest;
                filter.tag.replace(label(tag)?).is_none()
            }
            [zone, word, rest @ ..] if is_word(word, b"az") => {
                labels = rest;
                filter.zone.replace(label(zone)?).is_none()
            }
            [word, rest @ ..] if let Some(tiers) = tiers(word) => {
                labels = rest;
                std::mem::replace(&mut filter.tiers, tiers) == Tiers::Offered
            }
            _ => return Some((filter, labels)),
        };
        if !is_new {
            return None;
        }
    }
}

fn tiers(word: &[u8]) -> Option<Tiers> {
    let words = [(&b"primary"[..], Tiers::Primary), (b"standby", Tiers::Standby), (b"all", Tiers::All)];
    words.into_iter().find(|(known, _)| is_word(word, known)).map(|(_, tiers)| tiers)
}

pub(super) fn is_word(label: &[u8], word: &[u8]) -> bool {
    label.eq_ignore_ascii_case(word)
}

/// Whether the label is of the `_http` and `_tcp` sort (RFC 2782).
fn is_service_label(label: &[u8]) -> bool {
    label.first() == Some(&b'_')
}

fn port_label(bytes: &[u8]) -> Option<Label> {
    label(bytes.strip_prefix(b"_")?)
}

fn protocol(bytes: &[u8]) -> Option<Protocol> {
    if bytes.eq_ignore_ascii_case(b"_tcp") {
        Some(Protocol::Tcp)
    } else if bytes.eq_ignore_ascii_case(b"_udp") {
        Some(Protocol::Udp)
    } else {
        None
    }
}

/// The label in lower case, or `None` when the registry could not hold it.
pub(super) fn label(bytes: &[u8]) -> Option<Label> {
    let mut lower = [0; Label::BYTES_MAX];
    let lower = lower.get_mut(..bytes.len())?;
    lower.copy_from_slice(bytes);
    lower.make_ascii_lowercase();
    Label::parse(std::str::from_utf8(lower).ok()?).ok()
}

/// Labels before the zone in the name with the most: `_<port>._tcp.<tag>.tag.<zone>.az.all.<service>.<namespace>`.
const DEPTH_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_row_of_the_table_is_understood() {
        assert_eq!(ask("rollcall.internal."), Question::Apex);
        assert_eq!(ask("web.rollcall.internal."), Question::Short { service: service("web", "shop") });
        assert_eq!(ask("web.default.rollcall.internal."), whole(service("web", "default")));
        assert_eq!(
            ask("_http._tcp.web.default.rollcall.internal."),
            Question::NamedPort {
                service: service("web", "default"),
                filter: Filter::default(),
                port: Label::parse("http").unwrap(),
                protocol: Protocol::Tcp
            }
        );
        assert_eq!(
            ask("_dns._udp.web.rollcall.internal."),
            Question::NamedPort {
                service: service("web", "shop"),
                filter: Filter::default(),
                port: Label::parse("dns").unwrap(),
                protocol: Protocol::Udp
            }
        );
        assert_eq!(ask("_tcp.web.default.rollcall.internal."), Question::Between(service("web", "default")));
        assert_eq!(ask("_udp.web.rollcall.internal."), Question::Between(service("web", "shop")));
        assert_eq!(
            ask("web-1.web.default.rollcall.internal."),
            Question::Instance {
                service: service("web", "default"),
                instance: Label::parse("web-1").unwrap()
            }
        );
    }

    #[test]
    fn filters_stand_before_the_service_in_any_order() {
        let label = |text: &str| Label::parse(text).unwrap();
        let (blue, zone) = (Some(label("blue")), Some(label("eu-1a")));
        let tiers = |tiers| Filter { tiers, ..Filter::default() };
        let cases = [
            ("blue.tag", Filter { tag: blue.clone(), ..Filter::default() }),
            ("eu-1a.az", Filter { zone: zone.clone(), ..Filter::default() }),
            ("EU-1a.AZ", Filter { zone: zone.clone(), ..Filter::default() }),
            ("primary", tiers(Tiers::Primary)),
            ("standby", tiers(Tiers::Standby)),
            ("all", tiers(Tiers::All)),
            ("all.tag", Filter { tag: Some(label("all")), ..Filter::default() }),
            ("tag.tag", Filter { tag: Some(label("tag")), ..Filter::default() }),
            ("blue.tag.eu-1a.az.all", Filter { tag: blue.clone(), zone: zone.clone(), tiers: Tiers::All }),
            ("standby.eu-1a.az.blue.tag", Filter { tag: blue, zone, tiers: Tiers::Standby }),
        ];
        for (text, filter) in cases {
            for (name, key) in [("web", service("web", "shop")), ("web.default", service("web", "default"))] {
                let question = ask(&format!("{text}.{name}.rollcall.internal."));
                assert_eq!(
                    question,
                    Question::Service { service: key.clone(), filter: filter.clone() },
                    "{text}.{name}"
                );
                let question = ask(&format!("_http._tcp.{text}.{name}.rollcall.internal."));
                let Question::NamedPort { service, filter: of_port, .. } = question else {
                    panic!("{question:?}")
                };
                assert_eq!((service, of_port), (key.clone(), filter.clone()));
                let question = ask(&format!("_tcp.{text}.{name}.rollcall.internal."));
                assert_eq!(question, Question::Between(key));
            }
        }
        for between in ["tag.web", "az.web.default", "tag.primary.web", "az.blue.tag.web.default"] {
            let question = ask(&format!("{between}.rollcall.internal."));
            assert!(matches!(question, Question::Between(_)), "{between}: {question:?}");
        }
    }

    #[test]
    fn letter_case_means_nothing() {
        assert_eq!(ask("WEB.Default.RollCall.INTERNAL."), whole(service("web", "default")));
        assert_eq!(
            ask("_HTTP._Tcp.web.default.rollcall.internal."),
            ask("_http._tcp.web.default.rollcall.internal.")
        );
    }

    #[test]
    fn names_that_nothing_could_have_are_unknown() {
        for name in [
            "_web.rollcall.internal.",
            "_sctp.web.default.rollcall.internal.",
            "_http._sctp.web.default.rollcall.internal.",
            "a-.default.rollcall.internal.",
            "http._tcp.web.default.rollcall.internal.",
            "a.b.c.d.e.rollcall.internal.",
            "*.default.rollcall.internal.",
            "w_b.default.rollcall.internal.",
            "all.primary.web.rollcall.internal.",
            "a.tag.b.tag.web.rollcall.internal.",
            "primary.tag.rollcall.internal.",
            "tag.rollcall.internal.default.rollcall.internal.",
            "web-1.primary.web.default.rollcall.internal.",
            "web.primary.rollcall.internal.",
        ] {
            assert_eq!(ask(name), Question::Unknown, "{name}");
        }
    }

    #[test]
    fn other_zones_are_out_of_zone() {
        for name in [".", "internal.", "example.com.", "web.xrollcall.internal.", "rollcall.internal.com."] {
            assert_eq!(ask(name), Question::OutOfZone, "{name}");
        }
    }

    #[test]
    fn a_zone_is_labels_and_leaves_room() {
        let own = Label::parse("shop").unwrap();
        assert_eq!(Zone::parse("Rollcall.Internal", own.clone()).unwrap().to_string(), "rollcall.internal.");
        for bad in ["", ".", "a..b", "a_b.c", "ü.c"] {
            assert!(matches!(Zone::parse(bad, own.clone()), Err(ZoneError::NotAName { .. })), "{bad:?}");
        }
        let long = format!("{}.{}", "a".repeat(28), "b".repeat(28));
        assert!(matches!(Zone::parse(&long, own), Err(ZoneError::TooLong { octets: 59, .. })));
    }

    #[test]
    fn the_longest_names_fit() {
        let label = Label::parse(&"x".repeat(63)).unwrap();
        let zone_text = format!("{}.{}", "a".repeat(28), "b".repeat(27));
        let zone = Zone::parse(&zone_text, label.clone()).unwrap();
        let key = ServiceKey { namespace: label.clone(), name: label.clone() };
        let name = instance_name(&zone.service_name(&key), &label);
        assert_eq!(zone.question(&name), Question::Instance { service: key, instance: label });
    }

    proptest! {
        #[test]
        fn any_name_is_some_question(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..6)) {
            let name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
            let below = name.append_domain(zone().apex()).unwrap();
            prop_assert_ne!(zone().question(&below), Question::OutOfZone);
        }
    }

    fn zone() -> Zone {
        Zone::parse("rollcall.internal.", Label::parse("shop").unwrap()).unwrap()
    }

    fn ask(name: &str) -> Question {
        zone().question(&Name::from_ascii(name).unwrap())
    }

    fn whole(service: ServiceKey) -> Question {
        Question::Service { service, filter: Filter::default() }
    }

    fn service(name: &str, namespace: &str) -> ServiceKey {
        ServiceKey { namespace: Label::parse(namespace).unwrap(), name: Label::parse(name).unwrap() }
    }
}
