//! Reverse names: which address a name means, and which instances have it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hickory_proto::rr::Name;
use rustc_hash::FxHashMap;

use crate::registry::{Instance, Label, Service, ServiceKey, View};

/// How long an index is used at least while the view changes: it is made by looking at everything.
const INDEX_AGE_MIN: Duration = Duration::from_millis(500);
/// Instances that are named for one address.
const NAMES_MAX: usize = 32;

/// The address that a name below `in-addr.arpa` or `ip6.arpa` means (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub(super) fn address_of(name: &Name) -> Option<IpAddr> {
    let mut labels = name.iter().rev();
    if !labels.next()?.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let family = labels.next()?;
    if family.eq_ignore_ascii_case(b"in-addr") {
        let mut octets = [0; 4];
        for octet in &mut octets {
            *octet = decimal(labels.next()?)?;
        }
        labels.next().is_none().then(|| Ipv4Addr::from(octets).into())
    } else if family.eq_ignore_ascii_case(b"ip6") {
        let mut octets = [0; 16];
        for octet in &mut octets {
            *octet = (nibble(labels.next()?)? << 4) | nibble(labels.next()?)?;
        }
        labels.next().is_none().then(|| Ipv6Addr::from(octets).into())
    } else {
        None
    }
}

fn decimal(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let is_plain =
        text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = label else { return None };
    char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Finds instances by their addresses. It is made when somebody asks, and kept.
#[derive(Debug, Default)]
pub(super) struct ReverseIndex {
    index: ArcSwapOption<Index>,
}

#[derive(Debug)]
struct Index {
    /// Of what it was made.
    view: Weak<View>,
    made_at: Instant,
    instances: FxHashMap<IpAddr, Vec<(ServiceKey, Label)>>,
}

impl ReverseIndex {
    /// The instances of `view` that have `address`. One that is new since half a second may be missing.
    pub(super) fn find<'a>(
        &self,
        view: &'a Arc<View>,
        address: IpAddr,
        now: Instant,
    ) -> Vec<(&'a Service, &'a Instance)> {
        let index = self.index_of(view, now);
        let Some(names) = index.instances.get(&address) else { return Vec::new() };
        let found = names.iter().filter_map(|(key, id)| {
            let service = view.services.get(key)?;
            let instance = service.instance(id.as_str())?;
            // The index may be older than the view.
            instance.record.addresses.contains(&address).then_some((&**service, &**instance))
        });
        found.take(NAMES_MAX).collect()
    }

    fn index_of(&self, view: &Arc<View>, now: Instant) -> Arc<Index> {
        if let Some(index) = self.index.load_full() {
            let is_of_view = std::ptr::eq(index.view.as_ptr(), Arc::as_ptr(view));
            if is_of_view || now.saturating_duration_since(index.made_at) < INDEX_AGE_MIN {
                return index;
            }
        }
        let mut instances = FxHashMap::<_, Vec<_>>::default();
        for (key, service) in &view.services {
            for instance in &service.instances {
                for address in &instance.record.addresses {
                    instances.entry(*address).or_default().push((key.clone(), instance.id.clone()));
                }
            }
        }
        let index = Arc::new(Index { view: Arc::downgrade(view), made_at: now, instances });
        self.index.store(Some(index.clone()));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::dns::sample;

    #[test]
    fn reverse_names_are_addresses_and_nothing_else_is() {
        let ask = |name: &str| address_of(&Name::from_ascii(name).unwrap());
        assert_eq!(ask("4.0.168.192.in-addr.arpa."), Some("192.168.0.4".parse().unwrap()));
        assert_eq!(ask("4.0.168.192.IN-ADDR.Arpa."), Some("192.168.0.4".parse().unwrap()));
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.F";
        assert_eq!(ask(&format!("{nibbles}.ip6.arpa.")), Some("fd00::1".parse().unwrap()));
        for name in [
            "0.168.192.in-addr.arpa.",
            "1.4.0.168.192.in-addr.arpa.",
            "04.0.168.192.in-addr.arpa.",
            "256.0.168.192.in-addr.arpa.",
            "x.0.168.192.in-addr.arpa.",
            "0.0.ip6.arpa.",
            "in-addr.arpa.",
            "4.0.168.192.in-addr.com.",
            ".",
        ] {
            assert_eq!(ask(name), None, "{name}");
        }
    }

    #[test]
    fn instances_are_found_by_their_addresses_as_they_are_now() {
        let (mut sample, now) = (sample::web(), clock::now());
        let index = ReverseIndex::default();
        let find = |view: &Arc<View>, address: &str, now| {
            let found = index.find(view, address.parse().unwrap(), now);
            found
                .iter()
                .map(|(service, instance)| format!("{}.{}", instance.id, service.key))
                .collect::<Vec<_>>()
        };
        let before = Arc::new(sample.view.clone());
        assert_eq!(find(&before, "10.0.0.2", now), ["web-2.web.default"]);
        assert_eq!(find(&before, "fd00::1", now), ["web-1.web.default"]);
        assert!(find(&before, "10.0.0.9", now).is_empty());

        sample.instance("web", "web-2").addresses(&["10.0.0.9"]);
        let after = Arc::new(sample.view.clone());
        assert!(find(&after, "10.0.0.2", now).is_empty(), "not any more");
        assert!(find(&after, "10.0.0.9", now).is_empty(), "not yet");
        assert_eq!(find(&after, "10.0.0.9", now + INDEX_AGE_MIN), ["web-2.web.default"]);
    }
}
