//! What is told besides the code: RFC 8914, to clients with EDNS alone.

use rollcall::registry::View;

use crate::message::Message;
use crate::query::{A, NS, PTR, Query, SOA, SRV};
use crate::registry::Registry;
use crate::world::{Ways, World};

const EXTENDED_ERROR: u16 = 15;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;

#[test]
fn rfc8914_4_4_a_stale_answer_says_so() {
    let world = stale();
    for (name, kind) in [
        ("web.shop.rollcall.internal", A),
        ("web.shop.rollcall.internal", SRV),
        ("empty.shop.rollcall.internal", A),
        ("web-1.web.shop.rollcall.internal", A),
        ("1.0.0.10.in-addr.arpa", PTR),
    ] {
        for _ in 0..2 {
            let reply = world.udp(&Query::of(name, kind).edns(1232));
            assert_eq!((reply.rcode(), extended(&reply)), (0, Some((3, String::new()))), "{name}");
            assert!(world.ask(name, kind).opt.is_none(), "who sends no EDNS gets none");
        }
    }
    // What does not come from the registry is as true as ever.
    for kind in [SOA, NS] {
        assert_eq!(extended(&world.udp(&Query::of("rollcall.internal", kind).edns(1232))), None);
    }
}

#[test]
fn rfc8914_4_20_a_stale_nxdomain_says_so() {
    let reply = stale().udp(&Query::of("nope.shop.rollcall.internal", A).edns(1232));
    assert_eq!((reply.rcode(), extended(&reply)), (3, Some((19, String::new()))));
}

#[test]
fn rfc8914_4_23_while_nothing_was_learnt_every_name_fails_that_something_may_have() {
    let world = World::start_with(View::default(), Ways::default());
    for name in ["web.shop", "nope", "web-1.web.shop", "_http._tcp.web.shop"] {
        let name = format!("{name}.rollcall.internal");
        for reply in [world.udp(&Query::of(&name, A).edns(1232)), world.tcp(&Query::of(&name, A).edns(1232))]
        {
            assert_eq!(
                (reply.rcode(), reply.answers.len(), reply.authorities.len()),
                (SERVFAIL, 0, 0),
                "{name}"
            );
            assert_eq!(extended(&reply), Some((22, "no ensemble reached yet".to_owned())));
        }
        assert_eq!(world.ask(&name, A).rcode(), SERVFAIL);
    }
    assert_eq!(world.ask("rollcall.internal", SOA).answers.len(), 1);
    assert_eq!(world.ask("example.com", A).rcode(), 5, "that is nobody's fault");
    // What a search list makes of others' names, mostly.
    for name in ["www.eu.example.com", "a.b.c.d.e.f", "w_b.shop"] {
        let reply = world.udp(&Query::of(&format!("{name}.rollcall.internal"), A).edns(1232));
        assert_eq!((reply.rcode(), reply.answers.len()), (NXDOMAIN, 0), "{name}");
        assert_eq!(reply.authorities[0].kind, SOA, "{name}");
        assert_eq!(extended(&reply), None, "{name}");
    }
}

#[test]
fn rfc8914_4_23_what_is_known_by_name_alone_fails_when_its_instances_do_not_come() {
    let view = Registry::shop().name_alone("shop", "away").into_view();
    let world = World::start_with(view, Ways { has_demand: true, ..Ways::default() });
    let away = Query::of("away.shop.rollcall.internal", A).edns(1232);
    for reply in [world.udp(&away), world.tcp(&away)] {
        assert_eq!(reply.rcode(), SERVFAIL);
        assert_eq!(extended(&reply), Some((22, "instances not read yet".to_owned())));
    }
    // That it exists is known, and what else there is of it.
    assert_eq!(world.ask("_tcp.away.shop.rollcall.internal", A).rcode(), 0);
    assert_eq!(world.ask("other.shop.rollcall.internal", A).rcode(), 3);
}

fn stale() -> World {
    World::start_with(Registry::shop().into_view(), Ways { is_stale: true, ..Ways::default() })
}

/// The code and the text.
fn extended(reply: &Message) -> Option<(u16, String)> {
    let (code, text) = reply.option(EXTENDED_ERROR)?.split_first_chunk().expect("RFC 8914 section 2");
    Some((u16::from_be_bytes(*code), String::from_utf8(text.to_vec()).expect("UTF-8")))
}
