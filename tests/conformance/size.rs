//! How long a reply may be, and what is left out of one that would be longer.

use std::collections::BTreeSet;

use crate::message::Message;
use crate::query::{A, Opt, Query, SRV, TC};
use crate::registry::Registry;
use crate::world::World;

const MANY: &str = "many.shop.rollcall.internal";
const PORT: &str = "_http._tcp.many.shop.rollcall.internal";
/// The longest reply over UDP, so that it is never fragmented (RFC 9715 section 3.2).
const UDP_MAX: usize = 1232;

#[test]
fn rfc1035_4_2_1_over_udp_a_reply_has_512_octets_at_most() {
    let world = World::start(Registry::many(200));
    for (name, kind, least) in [(MANY, A, 28), (MANY, SRV, 5), (PORT, SRV, 5)] {
        let reply = world.ask(name, kind);
        assert!(reply.octets.len() <= 512 && reply.has(TC), "{} octets", reply.octets.len());
        assert!(reply.answers.len() >= least, "{} records", reply.answers.len());
        expect_full(&reply, 512);
    }
}

#[test]
fn rfc6891_6_2_5_over_udp_a_reply_has_what_the_client_offers_and_1232_octets_at_most() {
    let world = World::start(Registry::many(2000));
    for kind in [A, SRV] {
        for size in [512, 600, 1000, 1231, 1232, 1233, 1500, 4096, 65_535] {
            let reply = world.udp(&Query::of(MANY, kind).edns(size));
            let limit = usize::from(size).min(UDP_MAX);
            assert!(reply.octets.len() <= limit && reply.has(TC), "{} of {limit}", reply.octets.len());
            assert!(reply.opt.is_some(), "RFC 6891 section 7: the OPT record stands there in any case");
            expect_full(&reply, limit);
        }
    }
}

#[test]
fn rfc1035_4_1_1_what_fits_exactly_is_not_cut() {
    // Header, question of 33, and records of 16 octets: 29 of them make 509 with a name of this length.
    for (count, is_cut) in [(28, false), (29, false), (30, true)] {
        let world = World::start(Registry::many(count));
        let reply = world.ask(MANY, A);
        assert_eq!((reply.has(TC), reply.answers.len()), (is_cut, usize::from(count.min(29))));
    }
    // With EDNS the OPT record needs 11 octets, and a cookie 28 more.
    let world = World::start(Registry::many(100));
    let count = |opt: &Opt| world.udp(&Query::of(MANY, A).opt(opt)).answers.len();
    assert_eq!(count(&Opt::of(1232)), (1232 - 12 - 33 - 11) / 16);
    assert_eq!(count(&Opt::of(1232).option(10, &[1; 8])), (1232 - 12 - 33 - 11 - 28) / 16);
}

#[test]
fn rfc2181_9_additional_records_that_do_not_fit_are_left_out_without_tc() {
    // So many SRV records fit into 1232 octets, and not with all their addresses.
    let world = World::start(Registry::many(18));
    let reply = world.udp(&Query::of(MANY, SRV).edns(1232));
    assert_eq!((reply.answers.len(), reply.has(TC)), (18, false), "{} octets", reply.octets.len());
    assert!((1..18).contains(&reply.additionals.len()), "{} of them", reply.additionals.len());
    let cut = world.ask(MANY, SRV);
    assert!(
        cut.has(TC) && cut.additionals.is_empty(),
        "where required records are missing none stands besides"
    );
    let whole = world.tcp(&Query::of(MANY, SRV));
    assert_eq!((whole.answers.len(), whole.additionals.len()), (18, 18));
}

#[test]
fn rfc2181_9_a_success_is_never_empty() {
    for count in [1, 2, 5, 40, 300] {
        let world = World::start(Registry::many(count));
        for kind in [A, SRV] {
            for size in [512, 700, 1232] {
                for reply in [world.ask(MANY, kind), world.udp(&Query::of(MANY, kind).edns(size))] {
                    assert!(
                        !reply.answers.is_empty() && reply.authorities.is_empty(),
                        "{count} {kind} {size}"
                    );
                    assert_eq!(reply.has(TC), reply.answers.len() < usize::from(count));
                }
            }
        }
    }
}

#[test]
fn rfc7766_5_over_tcp_the_same_question_is_answered_whole_and_without_tc() {
    let world = World::start(Registry::many(2000));
    for (name, kind) in [(MANY, A), (MANY, SRV), (PORT, SRV)] {
        assert!(world.ask(name, kind).has(TC));
        // The size that a client offers is one for UDP (RFC 6891 section 6.2.3).
        for query in [Query::of(name, kind), Query::of(name, kind).edns(512), Query::of(name, kind).edns(0)] {
            let reply = world.tcp(&query);
            let is_whole = kind == A;
            assert!(!reply.has(TC) && reply.octets.len() <= 65_535);
            assert!(!is_whole || reply.answers.len() == 2000, "{} records", reply.answers.len());
        }
    }
    let world = World::start(Registry::many(700));
    assert_eq!(world.tcp(&Query::of(MANY, SRV)).answers.len(), 700);
}

#[test]
fn rfc1035_4_2_2_beyond_64_kib_a_reply_names_as_many_as_there_is_room_for_others_each_time() {
    let world = World::start(Registry::many(5000));
    let mut named = BTreeSet::new();
    for _ in 0..12 {
        let reply = world.tcp(&Query::of(MANY, A));
        // TC would send the client round for ever: there is no longer way to ask.
        assert!(!reply.has(TC) && reply.octets.len() <= 65_535);
        expect_full(&reply, 65_535);
        let addresses = reply.addresses();
        assert_eq!(addresses.len(), (65_535 - 12 - 33) / 16);
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "none twice");
        named.extend(addresses);
    }
    // Each is missing in a fifth of the replies; that one is missing in all of twelve has odds of 1 to 50 000, that ten are, none.
    assert!(named.len() > 4990, "{} of 5000", named.len());
    assert!(world.metrics.dns_shortened.get() >= 12);
}

#[test]
fn cut_answers_name_others_each_time_so_that_nobody_is_left_out() {
    // An application that takes what is in a cut answer, as resolvers without TCP do, still meets every instance.
    let world = World::start(Registry::many(100));
    let mut named = BTreeSet::new();
    for _ in 0..300 {
        // An option that nobody knows has each answer drawn anew.
        let opt = Opt::of(512).option(65_001, &[]);
        named.extend(world.udp(&Query::of(MANY, A).opt(&opt)).addresses());
    }
    assert_eq!(named.len(), 100);
}

/// Demands that one more record would not have fitted.
fn expect_full(reply: &Message, limit: usize) {
    let answers = &reply.answers;
    // Targets differ by the digits of their numbers.
    let slack = if answers[0].kind == A { 0 } else { 4 };
    let largest = match answers[0].kind {
        A => 16,
        _ => {
            2 + 10
                + 6
                + reply.services().iter().map(|(.., target)| target.len() + 1).max().expect("one")
                + slack
        }
    };
    assert!(reply.octets.len() + largest > limit, "{} octets of {limit}", reply.octets.len());
}
