//! SRV: RFC 2782, and what RFC 2181 asks of sets of records.

use std::collections::BTreeMap;

use serde_json::json;

use crate::message::Data;
use crate::query::{A, AAAA, Query, SRV};
use crate::registry::{Registry, member};
use crate::world::World;

#[test]
fn rfc2782_targets_are_names_with_addresses_and_no_aliases() {
    let world = World::shop();
    let reply = world.ask("web.shop.rollcall.internal", SRV);
    assert_eq!(reply.answers.len(), 3);
    for (.., target) in reply.services() {
        let target = target.trim_end_matches('.');
        let mut found = world.ask(target, A).addresses();
        found.extend(world.ask(target, AAAA).addresses());
        assert!(!found.is_empty(), "{target}");
        let besides = reply.additionals.iter().filter(|record| record.owner.trim_end_matches('.') == target);
        let besides: Vec<_> = besides.map(|record| record.address().to_string()).collect();
        assert_eq!(besides, found, "{target}");
    }
}

#[test]
fn rfc2782_targets_are_not_compressed() {
    let world = World::shop();
    for name in ["web.shop.rollcall.internal", "_http._tcp.web.shop.rollcall.internal"] {
        for _ in 0..2 {
            for record in world.ask(name, SRV).answers {
                let Data::Srv { is_compressed, .. } = record.data else { panic!("{record:?}") };
                assert!(!is_compressed, "{name}");
            }
        }
    }
}

#[test]
fn rfc2782_priorities_and_weights_are_those_of_the_instances() {
    let members = [
        member("a", "10.0.0.1").with(json!({"priority": 0, "weight": 0})),
        member("b", "10.0.0.2").with(json!({"priority": 0, "weight": 65_535})),
        member("c", "10.0.0.3").with(json!({"priority": 65_535, "weight": 7})),
        member("d", "10.0.0.4").with(json!({"priority": 3, "effective_priority": 65_535, "weight": 1})),
        member("e", "10.0.0.5").with(json!({"status": "draining"})),
        member("f", "10.0.0.6").with(json!({"status": "maintenance"})),
    ];
    let world = World::start(Registry::new().service("shop", "mixed", &members));
    let services = world.ask("mixed.rollcall.internal", SRV).services();
    let told: Vec<_> = services
        .iter()
        .map(|(priority, weight, port, target)| (&target[..1], *priority, *weight, *port))
        .collect();
    assert_eq!(
        told,
        [("a", 0, 0, 8080), ("b", 0, 65_535, 8080), ("d", 65_535, 1, 8080), ("c", 65_535, 7, 8080)]
    );
}

#[test]
fn rfc2181_5_2_all_records_of_a_set_have_one_ttl() {
    let world = World::shop();
    for kind in [A, SRV] {
        let reply = world.ask("web.shop.rollcall.internal", kind);
        let mut ttls = BTreeMap::new();
        for record in reply.answers.iter().chain(&reply.additionals) {
            let set = (record.owner.to_ascii_lowercase(), record.kind);
            assert_eq!(*ttls.entry(set).or_insert(record.ttl), record.ttl, "{record:?}");
        }
    }
}

#[test]
fn rfc2181_5_no_record_stands_twice_in_a_set() {
    let members = [
        member("a", "10.0.0.1").with(json!({"addresses": ["10.0.0.1", "10.0.0.1", "10.0.0.2"]})),
        member("b", "10.0.0.2"),
    ];
    let world = World::start(Registry::new().service("shop", "twice", &members));
    assert_eq!(world.ask("twice.rollcall.internal", A).addresses_sorted(), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(world.ask("a.twice.shop.rollcall.internal", A).addresses(), ["10.0.0.1", "10.0.0.2"]);
    let reply = world.ask("twice.rollcall.internal", SRV);
    assert_eq!((reply.answers.len(), reply.additionals.len()), (2, 3));
}

#[test]
fn rfc1035_4_1_4_additional_records_point_to_the_targets_that_they_are_about() {
    let world = World::start(Registry::many(220));
    let reply = world.tcp(&Query::of("many.shop.rollcall.internal", SRV));
    assert_eq!((reply.answers.len(), reply.additionals.len()), (220, 220));
    for (service, address) in reply.answers.iter().zip(&reply.additionals) {
        assert_eq!(service.service().3, address.owner);
        assert_eq!((service.owner_octets, address.owner_octets), (2, 2));
    }
}

#[test]
fn rfc2181_9_of_additional_sets_those_that_do_not_fit_are_left_out_whole_and_tc_is_clear() {
    // Each instance has six addresses of each family, which stand in any order in its record.
    let members: Vec<_> = (0..8)
        .map(|number| {
            let addresses: Vec<_> =
                (0..6).flat_map(|n| [format!("10.{number}.0.{n}"), format!("fd00::{number}:{n}")]).collect();
            member(&format!("m-{number}"), "10.0.0.1").with(json!({ "addresses": addresses }))
        })
        .collect();
    let world = World::start(Registry::new().service("shop", "wide", &members));
    let name = "wide.shop.rollcall.internal";
    assert_eq!(world.tcp(&Query::of(name, SRV)).additionals.len(), 8 * 12);
    for size in (512..=1232).step_by(16) {
        let reply = world.udp(&Query::of(name, SRV).edns(size));
        assert!(reply.octets.len() <= usize::from(size));
        assert_eq!(
            (reply.answers.len(), reply.has(crate::query::TC)),
            (8, false),
            "{size}: the records that are asked for fit"
        );
        let mut sets = BTreeMap::<_, usize>::new();
        for record in &reply.additionals {
            *sets.entry((record.owner.clone(), record.kind)).or_default() += 1;
        }
        assert!(
            sets.values().all(|count| *count == 6),
            "{size}: a set is there whole or not at all: {sets:?}"
        );
    }
}
