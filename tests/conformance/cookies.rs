//! DNS cookies: the cases of RFC 7873 section 5.2. Nobody is refused for the want of one, which section 5.2.3 leaves to the server, and so no
//! reply is BADCOOKIE: what comes over loopback need not prove its address.

use std::sync::mpsc;

use crate::message::Message;
use crate::query::{A, Opt, Query, RA, RD, wire_name};
use crate::registry::Registry;
use crate::resolver::resolver;
use crate::world::{Ways, World};

const WEB: &str = "web.shop.rollcall.internal";
const COOKIE: u16 = 10;
const CLIENT: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn rfc7873_5_2_1_without_a_cookie_the_answer_has_none() {
    let reply = World::shop().udp(&Query::of(WEB, A).edns(1232));
    assert_eq!((reply.answers.len(), reply.option(COOKIE)), (2, None));
}

#[test]
fn rfc7873_5_2_2_a_cookie_of_a_wrong_length_is_a_format_error() {
    let world = World::shop();
    for length in 0..64 {
        let is_right = length == 8 || (16..=40).contains(&length);
        for reply in [udp(&world, &vec![9; length]), tcp(&world, &vec![9; length])] {
            let expected = if is_right { (0, 2) } else { (1, 0) };
            assert_eq!((reply.rcode(), reply.answers.len()), expected, "{length} octets");
            assert_eq!(reply.option(COOKIE).is_some(), is_right, "{length} octets");
        }
    }
}

#[test]
fn rfc7873_5_2_3_a_client_cookie_alone_is_answered_with_both() {
    let world = World::shop();
    for reply in [udp(&world, &CLIENT), tcp(&world, &CLIENT)] {
        let server = server_cookie(&reply);
        assert!((8..=32).contains(&server.len()), "RFC 7873 section 4.2: {server:?}");
        assert_eq!((reply.rcode(), reply.answers.len()), (0, 2));
    }
    let negative = world.udp(&with_cookie(Query::of("nope.shop.rollcall.internal", A), &CLIENT));
    assert_eq!(negative.rcode(), 3);
    server_cookie(&negative);
}

#[test]
fn rfc7873_5_2_4_a_server_cookie_that_is_not_ours_is_answered_with_one_that_is() {
    let world = World::shop();
    for length in [8, 16, 32] {
        let not_ours = [&CLIENT[..], &vec![0; length]].concat();
        let reply = udp(&world, &not_ours);
        assert_eq!((reply.rcode(), reply.answers.len()), (0, 2));
        assert_ne!(server_cookie(&reply), &not_ours[8..]);
    }
}

#[test]
fn rfc7873_5_2_5_a_server_cookie_that_is_ours_is_taken() {
    let world = World::shop();
    let first = udp(&world, &CLIENT);
    let both = [&CLIENT[..], server_cookie(&first)].concat();
    for reply in [udp(&world, &both), tcp(&world, &both)] {
        assert_eq!((reply.rcode(), reply.answers.len()), (0, 2));
        server_cookie(&reply);
    }
}

#[test]
fn rfc7873_5_2_of_several_cookies_the_first_counts() {
    let world = World::shop();
    let opt = Opt::of(1232).option(COOKIE, &CLIENT).option(COOKIE, &[8; 8]).option(COOKIE, &[1]);
    let reply = world.udp(&Query::of(WEB, A).opt(&opt));
    assert_eq!(reply.rcode(), 0);
    server_cookie(&reply);
}

#[test]
fn rfc7873_5_4_a_cookie_is_asked_for_without_a_question() {
    let world = World::shop();
    let reply = world.udp(&with_cookie(Query::empty(), &CLIENT));
    assert_eq!((reply.rcode(), reply.questions.len(), reply.answers.len()), (0, 0, 0));
    server_cookie(&reply);
    // Without a cookie, that is no query.
    assert_eq!(world.udp(&Query::empty().edns(1232)).rcode(), 1);
    assert_eq!(world.udp(&with_cookie(Query::empty(), &[1; 9])).rcode(), 1);
}

/// A cookie is between a client and the server that it asks; a server that asks others is a client of its own there.
#[test]
fn rfc7873_5_2_what_upstreams_say_comes_with_our_cookie_and_they_never_see_the_clients() {
    const OTHER: &str = "www.example.com";
    const BROKEN: &str = "broken.example.com";
    let (tell, told) = mpsc::channel();
    let upstream = resolver(&[1, 2], 60, move |query| {
        let _test_may_be_over = tell.send(query.to_ascii_lowercase());
    });
    let ways = Ways { upstream: Some(upstream), ..Ways::default() };
    let world = World::start_with(Registry::shop().into_view(), ways);
    let query = || with_cookie(Query::of(OTHER, A).flags(RD), &CLIENT);
    // The first waits for the upstream, the others have what it said.
    let replies = [world.udp(&query()), world.udp(&query()), world.tcp(&query())];
    for reply in &replies {
        assert_eq!((reply.rcode(), reply.answers.len(), reply.has(RA)), (0, 2, true));
        assert!((8..=32).contains(&server_cookie(reply).len()), "RFC 7873 section 4.2");
    }
    let both = [&CLIENT[..], server_cookie(&replies[0])].concat();
    for length in [both.len(), 9] {
        let reply = world.udp(&with_cookie(Query::of(OTHER, A).flags(RD), &both[..length]));
        assert_eq!((reply.rcode(), reply.answers.len()), if length == 9 { (1, 0) } else { (0, 2) });
    }
    let without = world.udp(&Query::of(OTHER, A).flags(RD).edns(1232));
    assert_eq!((without.answers.len(), without.option(COOKIE)), (2, None));
    // A format error is told at once.
    assert_eq!(world.udp(&with_cookie(Query::of(BROKEN, A).flags(RD), &[1; 9])).rcode(), 1);

    let queries: Vec<_> = told.try_iter().collect();
    let contains = |query: &[u8], part: &[u8]| query.windows(part.len()).any(|octets| octets == part);
    assert!(queries.iter().any(|query| contains(query, &wire_name(OTHER))));
    for query in &queries {
        assert!(!contains(query, &CLIENT) && !contains(query, &wire_name(BROKEN)), "{query:?}");
    }
}

#[test]
fn rfc7873_6_cookies_of_other_clients_and_other_times_differ() {
    let world = World::shop();
    let (one, other) = (udp(&world, &CLIENT), udp(&world, &[7; 8]));
    assert_eq!(&other.option(COOKIE).expect("a cookie")[..8], [7; 8]);
    assert_ne!(server_cookie(&one), &other.option(COOKIE).expect("a cookie")[8..]);
    let again = World::shop();
    assert_ne!(
        server_cookie(&one),
        server_cookie(&udp(&again, &CLIENT)),
        "each process has a secret of its own"
    );
}

fn udp(world: &World, cookie: &[u8]) -> Message {
    world.udp(&with_cookie(Query::of(WEB, A), cookie))
}

fn tcp(world: &World, cookie: &[u8]) -> Message {
    world.tcp(&with_cookie(Query::of(WEB, A), cookie))
}

fn with_cookie(query: Query, cookie: &[u8]) -> Query {
    query.opt(&Opt::of(1232).option(COOKIE, cookie))
}

/// The server's half of a reply to [`CLIENT`].
fn server_cookie(reply: &Message) -> &[u8] {
    let cookie = reply.option(COOKIE).unwrap_or_else(|| panic!("no cookie: {reply:?}"));
    assert_eq!(cookie[..8], CLIENT, "RFC 7873 section 5.3: the client's own comes back");
    &cookie[8..]
}
