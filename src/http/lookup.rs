//! What lookups over HTTP say. Pure: the view and how far it can be trusted in, JSON out.
//!
//! `GET /api/v1/services`:
//!
//! ```json
//! {"zxid":"0x1","age_ms":12,"stale":false,
//!  "services":[{"namespace":"default","name":"web","followed":true,"instances":2,"up":2}]}
//! ```
//!
//! Of a service that is not followed the numbers are not known, and `null`.
//!
//! `GET /api/v1/services/{namespace}/{service}`, with an `ETag`:
//!
//! ```json
//! {"namespace":"default","name":"web","zxid":"0x1","age_ms":12,"stale":false,
//!  "instances":[{"id":"web-1","status":"up","addresses":["10.0.0.1"],
//!                "ports":[{"name":"http","port":80,"protocol":"tcp"}],"weight":1,"priority":0,
//!                "effective_priority":0,"zone":null,"node":null,"tags":[],"meta":{},"standing":"registered",
//!                "selected":true}]}
//! ```
//!
//! `age_ms` is `null` while the view was never proved current. Instances stand in the order of their ids;
//! `selected` marks those that plain lookups of this zone offer; `standing` is other than `registered` when a record has vanished, and it is not
//! clear what that means. The tag says whether the instances changed: it holds the
//! service's zxid and a hash of its instances, and neither age nor staleness, which change all the time.

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use rustc_hash::FxHasher;
use serde::Serialize;

use crate::registry::select::shares;
use crate::registry::{Label, Meta, Port, Service, Standing, Status, View};

/// How far the view can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The time since it was last proved current, if it ever was.
    pub age: Option<Duration>,
    /// Whether it may be behind.
    pub is_stale: bool,
}

/// The list of all services.
pub fn services(view: &View, freshness: Freshness) -> Vec<u8> {
    let line = |service: &Service| ServiceLine {
        namespace: service.key.namespace.clone(),
        name: service.key.name.clone(),
        followed: service.is_followed,
        instances: service.is_followed.then_some(service.instances.len()),
        up: service.is_followed.then(|| service.up().count()),
    };
    to_json(&ServicesBody {
        zxid: view.zxid.to_string(),
        age_ms: freshness.age_ms(),
        stale: freshness.is_stale,
        services: view.services.values().map(|service| line(service)).collect(),
    })
}

/// One service with its instances.
pub fn service(service: &Service, freshness: Freshness) -> Vec<u8> {
    to_json(&ServiceBody {
        namespace: &service.key.namespace,
        name: &service.key.name,
        zxid: service.zxid.to_string(),
        age_ms: freshness.age_ms(),
        stale: freshness.is_stale,
        instances: instances(service),
    })
}

/// The tag of a service's content, with its quotes.
pub fn etag(service: &Service) -> String {
    let mut hasher = FxHasher::default();
    hasher.write(&to_json(&instances(service)));
    format!("\"{}-{:016x}\"", service.zxid, hasher.finish())
}

/// Whether `If-None-Match` names the tag (RFC 9110 section 13.1.2: weak comparison, a list, or `*`).
pub fn matches(if_none_match: &str, etag: &str) -> bool {
    if_none_match
        .split(',')
        .map(str::trim)
        .any(|listed| listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == etag)
}

/// Says that something went wrong, and what to do about it.
pub fn error(error: &str, hint: &str) -> Vec<u8> {
    to_json(&ErrorBody { error, hint })
}

impl Freshness {
    pub(super) fn age_ms(self) -> Option<u64> {
        self.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }
}

#[derive(Serialize)]
struct ServicesBody {
    zxid: String,
    age_ms: Option<u64>,
    stale: bool,
    services: Vec<ServiceLine>,
}

#[derive(Serialize)]
struct ServiceLine {
    namespace: Label,
    name: Label,
    followed: bool,
    instances: Option<usize>,
    up: Option<usize>,
}

#[derive(Serialize)]
struct ServiceBody<'a> {
    namespace: &'a Label,
    name: &'a Label,
    zxid: String,
    age_ms: Option<u64>,
    stale: bool,
    instances: Vec<InstanceBody<'a>>,
}

#[derive(Serialize)]
struct InstanceBody<'a> {
    id: &'a Label,
    status: Status,
    addresses: &'a [IpAddr],
    ports: &'a [Port],
    weight: u16,
    priority: u16,
    effective_priority: u16,
    zone: Option<&'a str>,
    node: Option<&'a str>,
    tags: &'a [Label],
    meta: &'a Meta,
    standing: Standing,
    selected: bool,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    hint: &'a str,
}

fn instances(service: &Service) -> Vec<InstanceBody<'_>> {
    let with_shares = service.instances.iter().zip(shares(service));
    with_shares
        .map(|(instance, share)| InstanceBody {
            id: &instance.id,
            status: instance.record.status,
            addresses: &instance.record.addresses,
            ports: &instance.record.ports,
            weight: instance.record.weight,
            priority: instance.record.priority,
            effective_priority: instance.record.effective_priority(),
            zone: instance.record.zone.as_deref(),
            node: instance.record.node.as_deref(),
            tags: &instance.record.tags,
            meta: &instance.record.meta,
            standing: instance.standing,
            selected: share.is_some(),
        })
        .collect()
}

pub(super) fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("every field has a JSON form")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::sample;

    const FRESH: Freshness = Freshness { age: Some(Duration::from_millis(12)), is_stale: false };

    #[test]
    fn the_list_counts_instances_and_those_that_are_up() {
        let mut view = sample::view();
        let key = sample::key("shop", "other");
        let other = Service { is_followed: false, ..Service::new(key.clone()) };
        view.services.insert(Arc::new(other));
        let text = String::from_utf8(services(&view, FRESH)).unwrap();
        assert_eq!(
            text,
            r#"{"zxid":"0x100000007","age_ms":12,"stale":false,"services":[{"namespace":"default","name":"web","followed":true,"instances":3,"up":2},{"namespace":"shop","name":"empty","followed":true,"instances":0,"up":0},{"namespace":"shop","name":"other","followed":false,"instances":null,"up":null}]}"#
        );
    }

    #[test]
    fn a_service_is_told_whole_and_says_who_is_selected() {
        let never_proved = Freshness { age: None, is_stale: true };
        let body: serde_json::Value = serde_json::from_slice(&service(&web(), never_proved)).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "namespace": "default", "name": "web", "zxid": "0x100000007", "age_ms": null, "stale": true,
                "instances": [
                    {"id": "web-1", "status": "up", "addresses": ["10.0.0.1"],
                     "ports": [{"name": "http", "port": 8080, "protocol": "tcp"}],
                     "weight": 5, "priority": 0, "effective_priority": 0, "zone": "a", "node": null,
                     "tags": ["blue"], "meta": {"k": "v"}, "standing": "registered", "selected": true},
                    {"id": "web-2", "status": "draining", "addresses": ["10.0.0.2"],
                     "ports": [{"name": "http", "port": 8080, "protocol": "tcp"}],
                     "weight": 1, "priority": 0, "effective_priority": 0, "zone": null, "node": null,
                     "tags": [], "meta": {}, "standing": "registered", "selected": false},
                    {"id": "web-3", "status": "up", "addresses": ["10.0.0.3"],
                     "ports": [{"name": "http", "port": 8080, "protocol": "tcp"}],
                     "weight": 1, "priority": 0, "effective_priority": 9, "zone": null, "node": null,
                     "tags": [], "meta": {}, "standing": "registered", "selected": false},
                ],
            })
        );
    }

    #[test]
    fn what_no_lookup_of_the_own_zone_gets_is_not_selected() {
        let mut view = sample::view();
        let key = sample::key("default", "web");
        let web = Arc::make_mut(view.services.get_mut(&key).unwrap());
        for (index, zone) in [(1, "a"), (2, "b")] {
            let more = format!(r#""zone":"{zone}","weight":1"#);
            web.instances[index] = sample::instance(&format!("web-{}", index + 1), "10.0.0.2", "up", &more);
        }
        view.settle(crate::registry::Home::new(Some("a".to_owned()), []));
        let body: serde_json::Value = serde_json::from_slice(&service(&view.services[&key], FRESH)).unwrap();
        let marks: Vec<_> = body["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["selected"].as_bool().unwrap())
            .collect();
        assert_eq!(marks, [true, true, false]);
    }

    #[test]
    fn the_tag_changes_with_the_content_only() {
        let before = web();
        assert_eq!(etag(&before), etag(&web()));
        let mut moved = Service::clone(&before);
        Arc::make_mut(&mut moved.instances[0]).record.weight += 1;
        assert_ne!(etag(&before), etag(&moved));
        let mut gone = Service::clone(&before);
        gone.instances.take_nth(0);
        assert_ne!(etag(&before), etag(&gone));
        assert!(etag(&before).starts_with("\"0x100000007-"));
    }

    #[test]
    fn tags_are_compared_weakly_in_lists_and_against_anything() {
        for good in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*", "\"b\",W/\"a\""] {
            assert!(matches(good, "\"a\""), "{good}");
        }
        for bad in ["", "a", "\"b\"", "\"ab\"", "w/\"a\""] {
            assert!(!matches(bad, "\"a\""), "{bad}");
        }
    }

    fn web() -> Service {
        let view = sample::view();
        let service = view.services.values().next().unwrap();
        Service::clone(service)
    }
}
