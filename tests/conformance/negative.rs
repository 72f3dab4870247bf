//! Answers that say that there is nothing: RFC 2308, 8020 and 4592.

use crate::message::Message;
use crate::query::{A, AA, AAAA, MX, NS, SOA, SRV, TXT};
use crate::world::World;

#[test]
fn rfc2308_2_1_a_name_never_heard_of_does_not_exist() {
    let world = World::shop();
    for name in [
        "nope",
        "nope.shop",
        "web.nope",
        "web-9.web.shop",
        "_sctp.web.shop",
        "_http._sctp.web.shop",
        "blue.tag.nope.shop",
        "_http._tcp.nope.shop",
        "a.b.c.d.e.f.g.h.i.j.k",
        "*.shop",
        "w_b.shop",
    ] {
        for kind in [A, SRV, MX] {
            let reply = world.ask(&format!("{name}.rollcall.internal"), kind);
            assert_eq!(reply.rcode(), 3, "{name} {kind}");
            expect_negative(&reply);
        }
    }
}

#[test]
fn rfc2308_2_2_a_known_name_without_such_records_is_no_data() {
    let world = World::shop();
    for (name, kind) in [
        ("web.shop", TXT),
        ("web.shop", MX),
        ("web.shop", NS),
        ("web.shop", SOA),
        ("db.data", AAAA),
        ("web-2.web.shop", AAAA),
        ("web-2.web.shop", SRV),
        ("_http._tcp.web.shop", A),
        ("empty.shop", A),
        ("empty.shop", SRV),
        ("down.shop", A),
        ("blue.tag.empty.shop", A),
        // Types that are none, or are no records (RFC 6895 section 3.1).
        ("web.shop", 0),
        ("web.shop", 41),
        ("web.shop", 250),
        ("web.shop", 65_280),
    ] {
        let reply = world.ask(&format!("{name}.rollcall.internal"), kind);
        assert_eq!(reply.rcode(), 0, "{name} {kind}");
        expect_negative(&reply);
    }
}

#[test]
fn rfc2308_3_the_soa_says_for_how_long_there_is_nothing() {
    let world = World::shop();
    for name in ["nope.shop.rollcall.internal", "empty.shop.rollcall.internal"] {
        let reply = world.ask(name, A);
        let (soa, numbers) = reply.soa();
        assert_eq!(soa.owner, "rollcall.internal.", "the zone's own name");
        assert_eq!((soa.ttl, numbers[4]), (1, 1), "the TTL is the smaller of MINIMUM and the SOA's own");
    }
}

#[test]
fn rfc2308_5_a_negative_answer_without_a_soa_would_not_be_kept_and_failures_have_none() {
    let world = World::shop();
    let refused = world.ask("example.com", A);
    assert_eq!((refused.rcode(), refused.authorities.len()), (5, 0));
}

#[test]
fn rfc8020_2_nothing_is_below_a_name_that_does_not_exist() {
    let world = World::shop();
    let exist = [
        "web-1.web.shop",
        "_http._tcp.web.shop",
        "_metrics._udp.web",
        "blue.tag.web.shop",
        "eu-1a.az.web.shop",
        "_http._tcp.blue.tag.eu-1a.az.all.web.shop",
        "_http._tcp.all.eu-1a.az.blue.tag.web",
        "standby.blue.tag.web.shop",
        "db-1.db.data",
    ];
    for name in exist {
        let mut name = format!("{name}.rollcall.internal");
        while name.contains('.') && name != "internal" {
            for kind in [A, TXT] {
                assert_eq!(world.ask(&name, kind).rcode(), 0, "{name} {kind}");
            }
            name = name.split_once('.').expect("it has one").1.to_owned();
        }
    }
}

#[test]
fn rfc4592_2_2_2_empty_nodes_between_names_exist() {
    let world = World::shop();
    for name in ["shop", "data", "_tcp.web.shop", "_udp.web", "tag.web.shop", "az.web", "tag.eu-1a.az.web"] {
        let reply = world.ask(&format!("{name}.rollcall.internal"), A);
        assert_eq!(reply.rcode(), 0, "{name}");
        expect_negative(&reply);
    }
}

#[test]
fn rfc4592_2_1_1_an_asterisk_is_a_label_like_any_other() {
    let reply = World::shop().ask("*.web.shop.rollcall.internal", A);
    assert_eq!(reply.rcode(), 3, "there are no wildcards, and none is made up");
}

#[test]
fn rfc2181_5_4_what_is_known_to_have_no_records_has_them_for_no_type_alone() {
    // NXDOMAIN is about a name, so that every type must have it.
    let world = World::shop();
    for kind in [A, AAAA, SRV, TXT, MX, 255, 65_280] {
        assert_eq!(world.ask("nope.shop.rollcall.internal", kind).rcode(), 3, "type {kind}");
    }
}

fn expect_negative(reply: &Message) {
    assert!(reply.answers.is_empty() && reply.additionals.is_empty(), "{reply:?}");
    assert!(reply.has(AA), "RFC 1035 section 4.1.1: we are the authority");
    reply.soa();
}
