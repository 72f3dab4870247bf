//! Every row of the table of names: what is asked, and what is answered.

use rollcall::registry::ServiceSettings;
use serde_json::json;

use crate::message::Data;
use crate::query::{A, AA, AAAA, HINFO, NS, PTR, SOA, SRV, TXT};
use crate::registry::{Registry, member};
use crate::world::{Ways, World};

#[test]
fn rfc1034_3_6_a_service_has_the_addresses_of_its_offered_instances() {
    let world = World::shop();
    for name in ["web.shop.rollcall.internal", "web.rollcall.internal"] {
        let reply = world.ask(name, A);
        assert_eq!(
            (reply.rcode(), reply.addresses_sorted()),
            (0, vec!["10.0.0.1".into(), "10.0.0.2".into()])
        );
        assert!(reply.has(AA) && reply.authorities.is_empty() && reply.additionals.is_empty());
    }
    assert_eq!(world.ask("db.data.rollcall.internal", A).addresses(), ["10.0.2.1"]);
}

#[test]
fn rfc3596_2_2_a_service_has_the_ipv6_addresses_of_its_offered_instances() {
    let reply = World::shop().ask("web.shop.rollcall.internal", AAAA);
    assert_eq!(reply.addresses(), ["fd00::1"]);
}

#[test]
fn rfc2782_a_service_has_srv_records_of_all_that_are_up_with_addresses_besides() {
    let reply = World::shop().ask("web.shop.rollcall.internal", SRV);
    let target = |id: &str| format!("{id}.web.shop.rollcall.internal.");
    let expected =
        [(0, 1, 8080, target("web-1")), (0, 3, 8080, target("web-2")), (10, 1, 8080, target("web-3"))];
    assert_eq!(reply.services(), expected);
    let mut besides: Vec<_> =
        reply.additionals.iter().map(|record| (record.owner.clone(), record.address().to_string())).collect();
    besides.sort();
    let expected =
        [("web-1", "10.0.0.1"), ("web-1", "fd00::1"), ("web-2", "10.0.0.2"), ("web-3", "10.0.0.3")];
    assert_eq!(besides, expected.map(|(id, address)| (target(id), address.to_owned())));
}

#[test]
fn rfc2782_a_named_port_has_srv_records_of_who_has_it() {
    let world = World::shop();
    for name in ["_metrics._udp.web.shop.rollcall.internal", "_METRICS._UDP.web.rollcall.internal"] {
        let reply = world.ask(name, SRV);
        assert_eq!(reply.services(), [(0, 1, 9090, "web-1.web.shop.rollcall.internal.".to_owned())]);
    }
    assert_eq!(world.ask("_http._tcp.web.shop.rollcall.internal", SRV).answers.len(), 3);
    for other in ["_metrics._tcp.web.shop.rollcall.internal", "_nope._tcp.web.shop.rollcall.internal"] {
        let reply = world.ask(other, SRV);
        assert_eq!((reply.rcode(), reply.answers.len()), (0, 0), "{other}: the service is known");
    }
}

#[test]
fn rfc1035_3_4_1_an_instance_has_its_addresses_whatever_its_status() {
    let world = World::shop();
    assert_eq!(world.ask("web-3.web.shop.rollcall.internal", A).addresses(), ["10.0.0.3"]);
    assert_eq!(world.ask("web-1.web.shop.rollcall.internal", AAAA).addresses(), ["fd00::1"]);
    assert_eq!(world.ask("down-1.down.shop.rollcall.internal", A).addresses(), ["10.0.1.1"]);
    assert_eq!(world.ask("web-9.web.shop.rollcall.internal", A).rcode(), 3);
}

#[test]
fn rfc1035_3_3_14_an_instance_tells_what_it_is_in_strings_of_one_txt_record() {
    let reply = World::shop().ask("web-1.web.shop.rollcall.internal", TXT);
    let [record] = &reply.answers[..] else { panic!("{reply:?}") };
    let texts =
        ["status=up", "weight=1", "priority=0", "zone=eu-1a", "node=host-1", "tags=blue", "version=1.2"];
    assert_eq!(record.data, Data::Texts(texts.map(str::to_owned).to_vec()));
}

#[test]
fn rfc1035_3_5_a_reverse_name_points_to_the_instances_that_have_the_address() {
    let world = World::shop();
    let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.f.ip6.arpa";
    for name in ["1.0.0.10.in-addr.arpa", "1.0.0.10.IN-ADDR.Arpa", nibbles] {
        let reply = world.ask(name, PTR);
        let data: Vec<_> = reply.answers.iter().map(|record| record.data.clone()).collect();
        assert_eq!(data, [Data::Name("web-1.web.shop.rollcall.internal.".to_owned())], "{name}");
        assert_eq!(reply.answers[0].owner, format!("{name}."));
    }
    // Whose address it is not is somebody else's to say; nobody is asked here.
    assert_eq!(world.ask("9.0.0.10.in-addr.arpa", PTR).rcode(), 5);
}

#[test]
fn rfc2181_5_2_instances_of_several_services_with_one_address_are_a_set_with_the_least_ttl() {
    let slow = ServiceSettings { dns_ttl_s: Some(77), ..ServiceSettings::default() };
    let registry = Registry::new().service("shop", "web", &[member("a", "10.0.0.1")]);
    let world = World::start(registry.service_with("shop", "api", &[member("b", "10.0.0.1")], slow));
    let reply = world.ask("1.0.0.10.in-addr.arpa", PTR);
    assert_eq!(reply.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn filters_leave_those_that_are_meant() {
    let world = World::shop();
    let cases = [
        ("blue.tag", &["10.0.0.1"][..]),
        ("green.tag", &["10.0.0.2"]),
        ("eu-1a.az", &["10.0.0.1"]),
        ("EU-1B.AZ", &["10.0.0.2"]),
        ("primary", &["10.0.0.1", "10.0.0.2"]),
        ("standby", &["10.0.0.3"]),
        ("all", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("blue.tag.standby", &["10.0.0.3"]),
        ("all.eu-1a.az", &["10.0.0.1", "10.0.0.3"]),
        ("red.tag", &[]),
        ("blue.tag.eu-1b.az", &[]),
    ];
    for (filter, addresses) in cases {
        for service in ["web.shop", "web"] {
            let reply = world.ask(&format!("{filter}.{service}.rollcall.internal"), A);
            assert_eq!(
                (reply.rcode(), reply.addresses_sorted()),
                (0, addresses.iter().map(|it| (*it).into()).collect())
            );
            let reply = world.ask(&format!("_http._tcp.{filter}.{service}.rollcall.internal"), SRV);
            assert!(reply.rcode() == 0 && reply.answers.len() >= addresses.len(), "{filter}: {reply:?}");
        }
    }
    let services = world.ask("blue.tag.web.shop.rollcall.internal", SRV).services();
    let ids: Vec<_> = services.iter().map(|(.., target)| target.split('.').next()).collect();
    assert_eq!(ids, [Some("web-1"), Some("web-3")], "every instance with the tag that is up");
}

#[test]
fn rfc1035_3_3_13_the_apex_has_a_soa() {
    let reply = World::shop().ask("RollCall.internal", SOA);
    let [record] = &reply.answers[..] else { panic!("{reply:?}") };
    let Data::Soa { server, mailbox, numbers } = &record.data else { panic!("{record:?}") };
    // RFC 6303 section 3: a zone that is served locally names itself as its server, and nobody as its mailbox.
    assert_eq!((&server[..], &mailbox[..]), ("rollcall.internal.", "nobody.invalid."));
    assert_eq!((numbers[0], numbers[4], record.ttl), (7, 1, 1), "its serial is the view's");
    assert!(reply.has(AA));
}

#[test]
fn rfc1034_4_2_1_the_apex_has_an_ns() {
    let reply = World::shop().ask("rollcall.internal", NS);
    let data: Vec<_> = reply.answers.iter().map(|record| record.data.clone()).collect();
    assert_eq!(data, [Data::Name("rollcall.internal.".to_owned())]);
    for kind in [A, AAAA, SRV, TXT] {
        let reply = World::shop().ask("rollcall.internal", kind);
        assert_eq!((reply.rcode(), reply.answers.len(), reply.authorities.len()), (0, 0, 1));
    }
}

#[test]
fn rfc1034_3_7_names_of_others_are_refused_where_nobody_is_asked() {
    let world = World::shop();
    for name in ["", "internal", "example.com", "web.shop.rollcall.internal.com", "web.service.consul"] {
        let reply = world.ask(name, A);
        assert_eq!((reply.rcode(), reply.answers.len(), reply.has(AA)), (5, 0, false), "{name:?}");
    }
}

#[test]
fn consuls_names_have_the_same_answers() {
    let shared = [
        member("a", "10.0.9.1").with(json!({"tags": ["v1"], "ports": [{"name": "http", "port": 81}]})),
        member("b", "10.0.9.1").with(json!({"tags": ["v2"], "ports": [{"name": "http", "port": 82}]})),
        member("c", "10.0.9.1").with(json!({"tags": ["v3"], "ports": [{"name": "http", "port": 82}]})),
    ];
    let view = Registry::shop().service("shop", "twins", &shared).into_view();
    let world = World::start_with(view, Ways { has_consul: true, ..Ways::default() });
    for name in ["web.service.consul", "web.service.dc1.consul", "WEB.service.shop.ns.consul"] {
        assert_eq!(world.ask(name, A).addresses_sorted(), ["10.0.0.1", "10.0.0.2"], "{name}");
    }
    assert_eq!(world.ask("v1.twins.service.consul", A).addresses(), ["10.0.9.1"]);
    assert_eq!(world.ask("web-1.node.consul", A).addresses(), ["10.0.0.1"]);
    assert_eq!(world.ask("0a000203.addr.dc1.consul", A).addresses(), ["10.0.2.3"]);
    assert_eq!(world.ask("nope.service.consul", A).rcode(), 3);
    for name in ["_twins._tcp.service.consul", "twins.service.consul"] {
        let reply = world.ask(name, SRV);
        let target = || "0a000901.addr.dc1.consul.".to_owned();
        assert_eq!(reply.services(), [(0, 1, 81, target()), (0, 1, 82, target())]);
        // RFC 2181 section 5: no record twice, although all have the address, and two the port.
        let besides: Vec<_> = reply.additionals.iter().map(|record| record.address().to_string()).collect();
        assert_eq!(besides, ["10.0.9.1"]);
    }
    // Negative answers have the SOA of the zone that they are about.
    assert_eq!(world.ask("nope.service.consul", A).soa().0.owner, "consul.");
}

#[test]
fn rfc8482_4_2_any_is_answered_with_one_hinfo() {
    const ANY: u16 = crate::query::ANY;
    let world = World::shop();
    for name in ["web.shop.rollcall.internal", "web-1.web.shop.rollcall.internal", "rollcall.internal"] {
        let reply = world.ask(name, ANY);
        let [record] = &reply.answers[..] else { panic!("{reply:?}") };
        assert_eq!((record.kind, &record.data), (HINFO, &Data::Texts(vec!["RFC8482".into(), String::new()])));
    }
    assert_eq!(world.ask("nope.shop.rollcall.internal", ANY).rcode(), 3);
}

#[test]
fn rfc1034_3_6_ttls_are_2_s_or_what_the_service_says_and_1_s_for_what_is_not() {
    let settings = ServiceSettings { dns_ttl_s: Some(30), ..ServiceSettings::default() };
    let slow = [member("slow-1", "10.0.8.1"), member("slow-2", "10.0.8.2")];
    let registry = || Registry::shop().service_with("shop", "slow", &slow, settings.clone()).into_view();
    let ttls = |world: &World, name: &str, kind| {
        let reply = world.ask(name, kind);
        let mut ttls: Vec<_> = reply
            .answers
            .iter()
            .chain(&reply.authorities)
            .chain(&reply.additionals)
            .map(|it| it.ttl)
            .collect();
        ttls.dedup();
        ttls
    };
    let world = World::start_with(registry(), Ways::default());
    for kind in [A, SRV] {
        assert_eq!(ttls(&world, "web.shop.rollcall.internal", kind), [2]);
        assert_eq!(ttls(&world, "slow.shop.rollcall.internal", kind), [30]);
    }
    assert_eq!(ttls(&world, "1.0.0.10.in-addr.arpa", PTR), [2]);
    for name in ["nope.shop.rollcall.internal", "empty.shop.rollcall.internal"] {
        assert_eq!(ttls(&world, name, A), [1]);
    }
    // RFC 2181 section 8: what is longer has a bit too many.
    let longest = ServiceSettings { dns_ttl_s: Some(u32::MAX), ..ServiceSettings::default() };
    let lasting = World::start(Registry::shop().service_with("shop", "slow", &slow, longest));
    assert_eq!(ttls(&lasting, "slow.shop.rollcall.internal", A), [i32::MAX.unsigned_abs()]);
    let stale = World::start_with(registry(), Ways { is_stale: true, ..Ways::default() });
    for (name, kind) in [("web.shop", A), ("slow.shop", A), ("slow.shop", SRV), ("nope.shop", A)] {
        assert_eq!(ttls(&stale, &format!("{name}.rollcall.internal"), kind), [1], "while it is stale");
    }
}
