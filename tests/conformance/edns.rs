//! EDNS: RFC 6891, and the DO bit of RFC 3225.

use crate::query::{A, DO, Opt, Query, question, record, wire_name};
use crate::registry::Registry;
use crate::world::World;

const WEB: &str = "web.shop.rollcall.internal";
const NOPE: &str = "nope.shop.rollcall.internal";
const FORMERR: u16 = 1;
const BADVERS: u16 = 16;
/// What the server offers to take (RFC 9715 section 3.2).
const OUR_SIZE: u16 = 1232;

#[test]
fn rfc6891_6_1_1_an_opt_record_is_answered_with_one_and_none_with_none() {
    let world = World::shop();
    for name in [WEB, NOPE, "empty.shop.rollcall.internal", "example.com", "rollcall.internal"] {
        for _ in 0..2 {
            let reply = world.udp(&Query::of(name, A).edns(1232));
            let opt = reply.opt.expect("an OPT record");
            assert_eq!((opt.size, opt.rcode_high, opt.version, opt.flags), (OUR_SIZE, 0, 0, 0), "{name}");
            assert!(opt.options.is_empty());
            assert!(world.tcp(&Query::of(name, A).edns(1232)).opt.is_some());
            assert!(world.udp(&Query::of(name, A)).opt.is_none());
            assert!(world.tcp(&Query::of(name, A)).opt.is_none());
        }
    }
    let other_class = question(&wire_name(WEB), A, 3);
    let query = Query { questions: vec![other_class], ..Query::empty() };
    assert!(world.udp(&query.edns(1232)).opt.is_some(), "also a refusal");
    let two = || question(&wire_name(WEB), A, 1);
    for query in [
        Query::of(WEB, A).flags(4 << 11),
        Query { questions: vec![two(), two()], ..Query::empty() },
        Query { answers: vec![vec![0]], ..Query::of(WEB, A) },
    ] {
        assert!(world.udp(&query).opt.is_none());
        let is_readable = query.answers.is_empty();
        assert_eq!(world.udp(&query.edns(1232)).opt.is_some(), is_readable, "as far as it can be read");
    }
}

#[test]
fn rfc6891_6_1_1_more_than_one_opt_record_is_a_format_error() {
    let world = World::shop();
    for count in [2, 3] {
        let query = (0..count).fold(Query::of(WEB, A), |query, _| query.edns(1232));
        for reply in [world.udp(&query), world.tcp(&query)] {
            assert_eq!((reply.rcode(), reply.answers.len()), (FORMERR, 0));
        }
    }
}

#[test]
fn rfc6891_6_1_1_an_opt_record_stands_anywhere_among_additional_records() {
    let other = || record(&wire_name("x.example"), (A, 1), 0, &[10, 0, 0, 9]);
    let opt = Opt::of(1232).to_octets();
    for additionals in [vec![opt.clone(), other()], vec![other(), opt.clone(), other()], vec![other(), opt]] {
        let reply = World::shop().udp(&Query { additionals, ..Query::of(WEB, A) });
        assert!(reply.opt.is_some() && reply.answers.len() == 2);
    }
}

#[test]
fn rfc6891_6_1_1_an_opt_record_among_answers_or_authorities_is_a_format_error() {
    let opt = || vec![Opt::of(1232).to_octets()];
    for query in
        [Query { answers: opt(), ..Query::of(WEB, A) }, Query { authorities: opt(), ..Query::of(WEB, A) }]
    {
        assert_eq!(World::shop().udp(&query).rcode(), FORMERR);
    }
}

#[test]
fn rfc6891_6_1_2_the_root_owns_an_opt_record() {
    // The decoder of these tests takes no other from the server.
    let opt = Opt { owner: wire_name("example"), ..Opt::of(1232) };
    assert_eq!(World::shop().udp(&Query::of(WEB, A).opt(&opt)).rcode(), FORMERR);
}

#[test]
fn rfc6891_6_1_2_options_that_nobody_knows_are_ignored() {
    let world = World::shop();
    // Unassigned; NSID, DAU, DHU, N3U, EDNS client subnet, expire, keepalive, padding, chain, key tag, extended error (which servers alone
    // have to say), and for local use.
    let subnets: [&[u8]; 5] = [&[0, 1, 24, 0, 192, 0, 2], &[0, 4, 0, 0], &[0, 3, 0, 0], &[1], b"abc"];
    let subnets = subnets.map(|subnet| (8, subnet));
    let others = [0, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 4096, 20_000, 65_001, 65_535]
        .map(|code| (code, &[][..]));
    // With what they stand for, and of each family of algorithms one that nobody knows.
    let algorithms = [5, 6, 7].map(|code| (code, &[8, 13, 250][..]));
    let explained = (15, &b"\x00\x03old"[..]);
    for (code, data) in others.into_iter().chain(subnets).chain(algorithms).chain([explained]) {
        let opt = Opt::of(1232).option(code, data).option(65_002, &[7; 100]).option(code, data);
        for reply in [world.udp(&Query::of(WEB, A).opt(&opt)), world.tcp(&Query::of(WEB, A).opt(&opt))] {
            assert_eq!((reply.rcode(), reply.answers.len()), (0, 2), "option {code}");
            assert!(reply.opt.expect("an OPT record").options.is_empty(), "option {code}");
        }
    }
}

#[test]
fn rfc6891_6_1_2_options_that_end_early_are_a_format_error() {
    let world = World::shop();
    let whole = Opt::of(1232).option(65_001, &[1, 2, 3, 4]);
    for length in 1..whole.options.len() {
        let opt = Opt { options: whole.options[..length].to_vec(), ..Opt::of(1232) };
        let reply = world.udp(&Query::of(WEB, A).opt(&opt));
        assert_eq!(reply.rcode(), FORMERR, "{length} octets of {}", whole.options.len());
        assert!(reply.opt.is_some(), "RFC 6891 section 7: a format error of the OPT record is told in one");
    }
    let opt = Opt { options: [&whole.options[..], &[0]].concat(), ..Opt::of(1232) };
    assert_eq!(world.udp(&Query::of(WEB, A).opt(&opt)).rcode(), FORMERR, "one octet behind a whole one");
    // An OPT record whose own length is more than there is.
    let mut octets = Query::of(WEB, A).opt(&whole).to_octets();
    octets.pop();
    let reply = world.udp_octets(&octets);
    assert_eq!((reply.rcode(), reply.questions.len()), (FORMERR, 1));
}

#[test]
fn rfc6891_6_1_3_another_version_is_told_ours() {
    let world = World::shop();
    for version in [1, 2, 255] {
        let opt = Opt { version, ..Opt::of(1232) };
        // Options of a version that is not known mean nothing: such as a cookie of a wrong length.
        for opt in [opt.clone(), opt.clone().option(10, &[1, 2, 3])] {
            for reply in [world.udp(&Query::of(WEB, A).opt(&opt)), world.tcp(&Query::of(WEB, A).opt(&opt))] {
                assert_eq!((reply.rcode(), reply.answers.len(), reply.authorities.len()), (BADVERS, 0, 0));
                assert_eq!(
                    (reply.opt.as_ref().expect("an OPT record").version, reply.questions.len()),
                    (0, 1)
                );
            }
        }
    }
}

#[test]
fn rfc6891_6_1_3_the_upper_bits_of_a_querys_code_mean_nothing() {
    let opt = Opt { rcode_high: 77, ..Opt::of(1232) };
    let reply = World::shop().udp(&Query::of(WEB, A).opt(&opt));
    assert_eq!((reply.rcode(), reply.answers.len()), (0, 2));
}

#[test]
fn rfc6891_6_1_4_do_is_copied_and_the_other_flags_are_zero() {
    let world = World::shop();
    for (flags, expected) in [(0, 0), (DO, DO), (0x7fff, 0), (0xffff, DO)] {
        for name in [WEB, NOPE, "example.com"] {
            for _ in 0..2 {
                let reply = world.udp(&Query::of(name, A).opt(&Opt { flags, ..Opt::of(1232) }));
                assert_eq!(reply.opt.expect("an OPT record").flags, expected, "{name}: {flags:04x}");
            }
        }
    }
}

#[test]
fn rfc6891_6_2_3_sizes_below_512_are_512() {
    let world = World::start(Registry::many(60));
    let plain = world.ask("many.shop.rollcall.internal", A).answers.len();
    for size in [0, 1, 511, 512] {
        let reply = world.udp(&Query::of("many.shop.rollcall.internal", A).edns(size));
        assert!(reply.octets.len() <= 512, "{}", reply.octets.len());
        // The OPT record's 11 octets are room for no record of 16.
        assert!(plain - reply.answers.len() <= 1, "size {size}: {} of {plain}", reply.answers.len());
    }
}

#[test]
fn rfc6891_7_a_format_error_of_an_option_is_told_in_an_opt_record() {
    let world = World::shop();
    let cookie = Opt::of(1232).option(10, &[1; 9]);
    let reply = world.udp(&Query::of(WEB, A).opt(&cookie));
    assert_eq!(reply.rcode(), FORMERR);
    assert_eq!(reply.opt.map(|opt| (opt.size, opt.version)), Some((OUR_SIZE, 0)));
    let two = world.udp(&Query::of(WEB, A).edns(1232).edns(1232));
    assert!(two.opt.is_some(), "there is EDNS here, and it is the query that is wrong");
    // Where the query had none the server must not begin (section 7).
    assert!(world.udp(&Query { questions: vec![vec![200]], ..Query::empty() }).opt.is_none());
}
