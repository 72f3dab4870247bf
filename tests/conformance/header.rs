//! The header: RFC 1035 section 4.1.1, and what later RFCs made of its bits.

use crate::query::{A, AA, AD, CD, QR, Query, RA, RD, TC, Z, question, wire_name};
use crate::world::World;

const WEB: &str = "web.shop.rollcall.internal";
const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;

#[test]
fn rfc1035_4_1_1_the_id_is_copied() {
    let world = World::shop();
    for id in [0, 1, 0x1234, 0xffff] {
        assert_eq!(world.udp(&Query { id, ..Query::of(WEB, A) }).id, id);
        assert_eq!(world.tcp(&Query { id, ..Query::of("nope.shop.rollcall.internal", A) }).id, id);
    }
}

#[test]
fn rfc1035_4_1_1_rd_is_copied_and_ra_says_that_nobody_else_is_asked() {
    let world = World::shop();
    for name in [WEB, "nope.shop.rollcall.internal", "example.com"] {
        for flags in [0, RD] {
            // Twice, so that the second may come from what was encoded before.
            for _ in 0..2 {
                let reply = world.udp(&Query::of(name, A).flags(flags));
                assert_eq!(reply.flags & (RD | RA), flags, "{name}");
            }
        }
    }
}

#[test]
fn rfc1035_4_1_1_aa_is_for_what_the_zone_says() {
    let world = World::shop();
    for (name, is_authority) in [
        (WEB, true),
        ("nope.shop.rollcall.internal", true),
        ("empty.shop.rollcall.internal", true),
        ("rollcall.internal", true),
        ("example.com", false),
    ] {
        assert_eq!(world.ask(name, A).has(AA), is_authority, "{name}");
        // A client has nothing to say by it.
        assert_eq!(world.udp(&Query::of(name, A).flags(AA)).has(AA), is_authority, "{name}");
    }
}

#[test]
fn rfc1035_4_1_1_z_is_zero_in_replies_whatever_it_is_in_queries() {
    let world = World::shop();
    for name in [WEB, "nope.shop.rollcall.internal", "example.com"] {
        let reply = world.udp(&Query::of(name, A).flags(Z | TC));
        assert!(!reply.has(Z) && !reply.has(TC), "{name}: {:04x}", reply.flags);
    }
}

#[test]
fn rfc4035_3_1_6_ad_is_never_set_by_who_has_validated_nothing() {
    let world = World::shop();
    for name in [WEB, "nope.shop.rollcall.internal", "example.com"] {
        for _ in 0..2 {
            assert!(!world.udp(&Query::of(name, A).flags(AD)).has(AD), "{name}");
        }
    }
}

#[test]
fn rfc4035_3_2_2_cd_is_copied() {
    let world = World::shop();
    for name in [WEB, "nope.shop.rollcall.internal", "example.com"] {
        for flags in [0, CD] {
            for _ in 0..2 {
                assert_eq!(world.udp(&Query::of(name, A).flags(flags)).flags & CD, flags, "{name}");
            }
        }
    }
    let malformed = Query { questions: vec![vec![200]], ..Query::of(WEB, A) };
    let reply = world.udp(&malformed.flags(CD | RD));
    assert_eq!((reply.rcode(), reply.flags & (CD | RD)), (FORMERR, CD | RD), "also in a refusal");
}

#[test]
fn rfc1035_4_1_1_other_operations_are_not_implemented() {
    let world = World::shop();
    // IQUERY (obsolete, RFC 3425), STATUS, unassigned, NOTIFY, UPDATE, DSO (RFC 8490), and the rest.
    for operation in 1..16_u16 {
        let query = Query::of(WEB, A).flags(operation << 11 | RD);
        for reply in [world.udp(&query), world.tcp(&query)] {
            assert_eq!((reply.rcode(), reply.flags >> 11 & 0xf), (NOTIMP, operation));
            assert_eq!(reply.questions.len(), 1, "the question is given back");
            assert_eq!(
                (&reply.questions[0].name[..], reply.questions[0].kind),
                ("web.shop.rollcall.internal.", A)
            );
            assert!(reply.answers.is_empty() && reply.authorities.is_empty() && reply.additionals.is_empty());
        }
    }
}

#[test]
fn rfc3425_3_an_inverse_query_as_it_once_was_is_not_implemented() {
    let record = crate::query::record(&[0], (A, 1), 0, &[10, 0, 0, 1]);
    let query = Query { answers: vec![record], ..Query::empty() }.flags(1 << 11);
    let reply = World::shop().udp(&query);
    assert_eq!((reply.rcode(), reply.questions.len()), (NOTIMP, 0));
}

#[test]
fn rfc9619_4_a_query_has_one_question() {
    let world = World::shop();
    let one = || question(&wire_name(WEB), A, 1);
    for questions in [vec![], vec![one(), one()], vec![one(), one(), one()]] {
        let query = Query { questions, ..Query::empty() };
        for reply in [world.udp(&query), world.tcp(&query)] {
            assert_eq!((reply.rcode(), reply.answers.len()), (FORMERR, 0));
        }
    }
    // A count that nothing stands behind.
    let mut lying = Query::of(WEB, A).to_octets();
    lying[4..6].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(world.udp_octets(&lying).rcode(), FORMERR);
}

#[test]
fn rfc1035_4_1_1_responses_are_not_answered() {
    let world = World::shop();
    for flags in [QR, QR | RD, QR | AA | RD | RA, QR | 5 << 11, QR | FORMERR] {
        world.expect_silence(&Query::of(WEB, A).flags(flags).to_octets());
        world.expect_silence(&Query::empty().flags(flags).to_octets());
    }
}

#[test]
fn rfc1035_4_1_1_what_has_no_whole_header_is_not_answered() {
    let world = World::shop();
    let whole = Query::of(WEB, A).to_octets();
    for length in 0..12 {
        world.expect_silence(&whole[..length]);
    }
    for length in 12..whole.len() {
        let reply = world.udp_octets(&whole[..length]);
        assert_eq!((reply.rcode(), &reply.octets[..2]), (FORMERR, &whole[..2]), "{length} octets");
    }
}

#[test]
fn rfc1035_4_1_1_the_code_of_a_query_means_nothing() {
    let world = World::shop();
    for rcode in 1..16 {
        let reply = world.udp(&Query::of(WEB, A).flags(rcode));
        assert_eq!((reply.rcode(), reply.answers.len()), (0, 2));
    }
}
