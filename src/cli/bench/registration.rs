//! Instances that are registered to measure with.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::registry::{Label, Port, Protocol, Registration, ServiceKey};

/// One instance, with an address that no other number has. It is one of loopback, so that nobody else's machine is probed, should
/// the instance vanish.
pub(super) fn registration(service: ServiceKey, id: &str, number: u32) -> Registration {
    let [_, high, middle, low] = number.to_be_bytes();
    Registration {
        service,
        id: label(id),
        addresses: vec![Ipv4Addr::new(127, high, middle, low).into()],
        ports: vec![Port { name: label("default"), port: PORT, protocol: Protocol::Tcp }],
        weight: 1,
        degraded_weight: 1,
        load_weight_min: 1,
        priority: 0,
        zone: None,
        node: None,
        tags: Vec::new(),
        meta: BTreeMap::new(),
        checks: Vec::new(),
        formats: Vec::new(),
    }
}

/// A name that is known to be one.
pub(super) fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}

/// Where nobody answers: discard.
const PORT: u16 = 9;
