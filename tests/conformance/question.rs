//! The question: its name, type and class, malformed ones, and what is never answered.

use crate::query::{A, AXFR, IXFR, MX, Query, SOA, question, record, wire_name};
use crate::registry::Registry;
use crate::world::World;

const WEB: &str = "web.shop.rollcall.internal";
const FORMERR: u16 = 1;
const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;

#[test]
fn rfc1035_4_1_2_the_question_is_given_back() {
    let world = World::shop();
    for (name, kind, class) in
        [(WEB, A, 1), ("nope.shop.rollcall.internal", MX, 1), ("example.com", 65_280, 1), (WEB, A, 3)]
    {
        let asked = question(&wire_name(name), kind, class);
        let query = Query { questions: vec![asked.clone()], ..Query::empty() };
        for reply in [world.udp(&query), world.tcp(&query)] {
            assert_eq!(&reply.octets[12..12 + asked.len()], asked, "{name}");
        }
    }
}

#[test]
fn rfc4343_4_1_letters_are_compared_without_case_and_kept() {
    let world = World::shop();
    let name = "wEb.sHOP.RollCall.INTernal";
    for _ in 0..2 {
        let reply = world.ask(name, A);
        assert_eq!(reply.questions[0].name, format!("{name}."));
        assert!(
            reply.answers.len() == 2 && reply.answers.iter().all(|record| record.owner == format!("{name}."))
        );
        let other = world.ask(&name.to_ascii_uppercase(), A);
        assert!(other.answers.iter().all(|record| record.owner == "WEB.SHOP.ROLLCALL.INTERNAL."));
    }
    for negative in ["NOPE.shop.RollCall.internal", "Empty.SHOP.RollCall.internal"] {
        let reply = world.ask(negative, A);
        assert_eq!(reply.questions[0].name, format!("{negative}."));
    }
}

#[test]
fn rfc4343_4_1_letters_are_kept_in_long_answers_too() {
    let world = World::start(Registry::many(500));
    for name in
        ["many.shop.rollcall.internal.", "MANY.Shop.rollcall.internal.", "mAnY.sHoP.rOlLcAlL.iNtErNaL."]
    {
        let reply = world.tcp(&Query::of(name, A));
        assert_eq!(reply.answers.len(), 500);
        assert!(reply.answers.iter().all(|record| record.owner == name && record.owner_octets == 2));
    }
}

#[test]
fn rfc1035_2_3_4_labels_have_63_octets_at_most() {
    let world = World::shop();
    let long = "x".repeat(63);
    assert_eq!(world.ask(&format!("{long}.shop.rollcall.internal"), A).rcode(), NXDOMAIN);
    // 64 and 128 are label types of their own, 64 once that of bit strings (RFC 6891 section 5).
    for length in [64, 65, 127, 128, 191] {
        let name = [&[length][..], &vec![b'x'; length.into()], &wire_name(WEB)].concat();
        assert_eq!(malformed(&world, &name), FORMERR, "{length}");
    }
}

#[test]
fn rfc1035_2_3_4_names_have_255_octets_at_most() {
    let world = World::shop();
    let zone = wire_name("rollcall.internal");
    // Labels of 1 + 59, 1 + 59, 1 + 59 octets and one that fills up.
    let filled = |last: usize| {
        let labels = [59, 59, 59, last];
        let mut name: Vec<u8> = Vec::new();
        for length in labels {
            name.push(u8::try_from(length).expect("short"));
            name.extend(vec![b'x'; length]);
        }
        name.extend(&zone);
        name
    };
    let room = 255 - zone.len() - 180 - 1;
    let longest = filled(room);
    assert_eq!(longest.len(), 255);
    assert_eq!(malformed(&world, &longest), NXDOMAIN);
    assert_eq!(malformed(&world, &filled(room + 1)), FORMERR);
    // 128 labels of one octet.
    assert_eq!(malformed(&world, &[[1, b'x'].repeat(128), vec![0]].concat()), FORMERR);
}

#[test]
fn rfc1035_4_1_4_a_question_that_points_nowhere_before_it_is_malformed() {
    let world = World::shop();
    let pointers = [
        // Itself; the octet before, of the header; behind it; the end of the message and far behind.
        vec![0xc0, 12],
        vec![1, b'a', 0xc0, 12],
        vec![1, b'a', 0xc0, 14],
        vec![0xc0, 14, 0xc0, 12],
        vec![0xc0, 18],
        vec![0xc0, 255],
        vec![0xff, 0xff],
        // Half a pointer.
        vec![0xc0],
    ];
    for name in pointers {
        assert_eq!(malformed(&world, &name), FORMERR, "{name:?}");
    }
}

#[test]
fn rfc1035_4_1_a_query_that_ends_early_is_malformed() {
    let world = World::shop();
    for count_at in [7, 9, 11] {
        let mut octets = Query::of(WEB, A).to_octets();
        octets[count_at] = 1;
        assert_eq!(world.udp_octets(&octets).rcode(), FORMERR, "a record that is not there");
    }
    // A record whose data are longer than the message.
    let mut cut = record(&[0], (A, 1), 0, &[10, 0, 0, 1]);
    cut.pop();
    let query = Query { additionals: vec![cut], ..Query::of(WEB, A) };
    assert_eq!(world.udp(&query).rcode(), FORMERR);
}

#[test]
fn what_stands_behind_a_whole_query_is_passed_over() {
    // No RFC says what octets behind the counted records mean. Knot passes them over, too; BIND calls it a format error.
    let world = World::shop();
    for more in [&[0][..], &[0; 100], b"garbage", &Query::of("nope", A).to_octets()] {
        let octets = [&Query::of(WEB, A).to_octets(), more].concat();
        let reply = world.udp_octets(&octets);
        assert_eq!((reply.rcode(), reply.answers.len()), (0, 2), "{more:?}");
    }
}

#[test]
fn rfc1035_4_1_records_in_a_query_change_nothing() {
    let world = World::shop();
    let some = || vec![record(&wire_name(WEB), (A, 1), 5, &[10, 9, 9, 9])];
    let query = Query { answers: some(), authorities: some(), additionals: some(), ..Query::of(WEB, A) };
    assert_eq!(world.udp(&query).addresses_sorted(), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn rfc1035_3_2_5_other_classes_are_refused() {
    // RFC 6895 section 3.2: CHAOS, Hesiod, NONE, ANY; 0 and the private ones.
    let world = World::shop();
    for class in [0, 2, 3, 4, 254, 255, 65_280, 65_535] {
        for name in [WEB, "version.bind", "nope.shop.rollcall.internal"] {
            let query = Query { questions: vec![question(&wire_name(name), 16, class)], ..Query::empty() };
            let reply = world.udp(&query);
            assert_eq!((reply.rcode(), reply.answers.len()), (REFUSED, 0), "{name}, class {class}");
            assert_eq!(reply.questions[0].class, class);
        }
    }
}

#[test]
fn rfc5936_2_2_1_zone_transfers_are_refused() {
    let world = World::shop();
    for name in ["rollcall.internal", WEB, "1.0.0.10.in-addr.arpa", "example.com"] {
        let query = Query::of(name, AXFR);
        for reply in [world.udp(&query), world.tcp(&query)] {
            assert_eq!((reply.rcode(), reply.answers.len()), (REFUSED, 0), "{name}");
        }
    }
}

#[test]
fn rfc1995_3_incremental_zone_transfers_are_refused() {
    let world = World::shop();
    let zone = wire_name("rollcall.internal");
    let data = [&zone[..], &zone, &[0; 20]].concat();
    let query = Query {
        authorities: vec![record(&zone, (SOA, 1), 0, &data)],
        ..Query::of("rollcall.internal", IXFR)
    };
    for reply in [world.udp(&query), world.tcp(&query)] {
        assert_eq!((reply.rcode(), reply.answers.len()), (REFUSED, 0));
    }
}

#[test]
fn rfc1035_4_1_4_names_are_compressed_and_pointers_go_backwards() {
    // The decoder of these tests takes no pointer that does not.
    let reply = World::shop().ask(WEB, A);
    assert!(reply.answers.iter().all(|record| record.owner_octets == 2), "{reply:?}");
    assert_eq!(reply.octets.len(), 12 + 28 + 4 + 2 * (2 + 10 + 4));
    let negative = World::shop().ask("nope.shop.rollcall.internal", A);
    assert_eq!(negative.authorities[0].owner_octets, 2);
}

/// The code that a question with this name gets.
fn malformed(world: &World, name: &[u8]) -> u16 {
    world.udp(&Query { questions: vec![question(name, A, 1)], ..Query::empty() }).rcode()
}
