//! Answers that were encoded for who asked before.

use std::cell::Cell;

use super::*;
use crate::registry::Home;

#[test]
fn what_was_encoded_before_is_answered_with_the_callers_letters_id_and_flags() {
    let handler = web().into_handler();
    let mut query = query("WEB.default.rollcall.internal.", RecordType::A);
    for id in 0..40 {
        query.metadata.id = id;
        query.metadata.recursion_desired = id % 2 == 0;
        query.metadata.checking_disabled = id % 3 == 0;
        let answer = ask_handler(&handler, &query);
        assert_eq!((answer.metadata.id, answer.answers.len()), (id, 2));
        assert_eq!(answer.metadata.recursion_desired, id % 2 == 0);
        assert_eq!(answer.metadata.checking_disabled, id % 3 == 0);
        assert!(answer.metadata.authoritative && !answer.metadata.truncation);
        assert_eq!(answer.answers[1].name.to_string(), "WEB.default.rollcall.internal.");
    }
    assert_eq!(handler.metrics().dns_hits.get(), 40 - 16, "one miss for each draw");
}

#[test]
fn a_service_that_changes_is_answered_anew_at_once_and_no_other_is() {
    let (handler, cache) = web().into_handler_and_cache();
    let (web_a, big) = ("web.default.rollcall.internal.", "_http._tcp.web.default.rollcall.internal.");
    for _ in 0..32 {
        ask_handler(&handler, &query(web_a, RecordType::A));
        ask_handler(&handler, &query("empty.shop.rollcall.internal.", RecordType::A));
        ask_handler(&handler, &query(big, RecordType::SRV));
    }
    let mut changed = web();
    // As a mirror does, which shares what has not changed.
    changed.view = cache.load().as_ref().clone();
    changed.instance("web", "web-1").addresses(&["10.0.0.9"]);
    cache.publish(changed.view);
    let hits = handler.metrics().dns_hits.get();
    ask_handler(&handler, &query("empty.shop.rollcall.internal.", RecordType::A));
    assert_eq!(handler.metrics().dns_hits.get(), hits + 1);
    for _ in 0..40 {
        let answer = ask_handler(&handler, &query(web_a, RecordType::A));
        let texts: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        assert!(
            texts.contains(&"10.0.0.9".to_owned()) && !texts.contains(&"10.0.0.1".to_owned()),
            "{texts:?}"
        );
    }
    cache.set_synced(false);
    let stale = ask_handler(&handler, &with_edns(web_a, RecordType::A, 1232));
    assert_eq!((extended(&stale), stale.answers[0].ttl), (Some((3, String::new())), 1));
}

#[test]
fn in_the_long_run_each_stands_first_by_its_weight_also_when_encoded_before() {
    let handler = web().into_handler();
    let packet = query("web.default.rollcall.internal.", RecordType::A).to_vec().unwrap();
    let mut out = Vec::new();
    let rounds = 40 * 16 * 64;
    let is_heavy_first = |out: &mut Vec<u8>| {
        handler.answer(&packet, client(), Transport::Udp, out);
        out[packet.len() + 12..packet.len() + 16] == [10, 0, 0, 2]
    };
    let heavy = (0..rounds).filter(|_| is_heavy_first(&mut out)).count();
    // 640 draws of 3 in 4: a standard deviation of 11 of them.
    assert!((420..540).contains(&(heavy / 64)), "{heavy} of {rounds}");
}

#[test]
fn lookups_that_are_spread_over_zones_are_so_also_when_encoded_before() {
    let mut sample = web();
    for (id, zone) in [("web-1", "a"), ("web-2", "b"), ("web-3", "b")] {
        sample.instance("web", id).zone(zone);
    }
    sample.view.settle(Home::new(Some("a".to_owned()), []));
    let handler = sample.into_handler();
    let packet = query("web.default.rollcall.internal.", RecordType::A).to_vec().unwrap();
    // An option that nobody knows goes the slow way.
    let mut slow = with_edns("web.default.rollcall.internal.", RecordType::A, 1232);
    slow.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(65_001, Vec::new()));
    let slow = slow.to_vec().unwrap();
    let at_home = |packet: &[u8], rounds: usize| {
        let mut out = Vec::new();
        let is_at_home = |_: &usize| {
            handler.answer(packet, client(), Transport::Udp, &mut out);
            let message = Message::from_vec(&out).unwrap();
            assert_eq!(message.answers.len(), 1, "one zone has one of them");
            matches!(&message.answers[0].data, RData::A(address) if address.0.octets() == [10, 0, 0, 1])
        };
        (0..rounds).filter(is_at_home).count() as f64 / rounds as f64
    };
    // 640 draws, of which each has a long turn.
    let (slow, fast) = (at_home(&slow, 10_000), at_home(&packet, 40 * 16 * 64));
    assert!((0.05..0.95).contains(&slow) && (slow - fast).abs() < 0.1, "{slow}, {fast}");
}

#[test]
fn who_asks_for_all_types_there_are_takes_no_place_of_those_that_are_asked_for_often() {
    let handler = web().into_handler();
    let ask = |kind| {
        let packet = query("web.default.rollcall.internal.", kind).to_vec().unwrap();
        let hits = handler.metrics().dns_hits.get();
        handler.answer(&packet, client(), Transport::Udp, &mut Vec::new());
        handler.metrics().dns_hits.get() > hits
    };
    // Until each of its turns was drawn.
    (0..64).for_each(|_| _ = ask(RecordType::A));
    assert!(ask(RecordType::A));
    for kind in 1_000..6_000 {
        assert!(!ask(RecordType::from(kind)) && !ask(RecordType::from(kind)));
    }
    assert!(ask(RecordType::A));
}

#[test]
fn names_without_end_are_taken_in_and_leave_room_for_others() {
    let mut sample = web();
    for number in 0..3_000 {
        sample.service_with_one(&format!("s{number}"));
    }
    let handler = sample.into_handler();
    let ask = |number: usize, kind| {
        let packet = query(&format!("s{number}.default.rollcall.internal."), kind).to_vec().unwrap();
        let hits = handler.metrics().dns_hits.get();
        handler.answer(&packet, client(), Transport::Udp, &mut Vec::new());
        handler.metrics().dns_hits.get() > hits
    };
    for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::A] {
        assert!((0..3_000).filter(|number| ask(*number, kind)).count() < 3_000);
    }
    for number in [0, 1, 1_500, 2_999] {
        assert!((0..1_000).any(|_| ask(number, RecordType::A)), "{number}");
    }
}

#[test]
fn the_fast_way_says_what_the_slow_one_does() {
    let compared = Cell::new(0);
    proptest!(ProptestConfig::with_cases(CASES), |(
        name in prop_oneof![whole_service(), name()], kind in prop_oneof![4 => kind(), 1 => Just(RecordType::HTTPS)],
        payload in prop::option::of(any::<u16>()), letters: u64, flags: [bool; 3], is_stale: bool,
        times in ALL_DRAWN + 1..2 * ALL_DRAWN, is_tcp: bool,
    )| {
        let mut sample = sample::big(12);
        sample.freshness = if is_stale { Freshness::Stale } else { Freshness::Current };
        let asked: String = name.chars().enumerate().map(|(at, letter)| {
            if letters >> (at % 64) & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
        }).collect();
        let mut query = payload.map_or_else(|| query(&asked, kind), |payload| with_edns(&asked, kind, payload));
        [query.metadata.recursion_desired, query.metadata.checking_disabled, _] = flags;
        if let Some(edns) = &mut query.edns {
            edns.set_dnssec_ok(flags[2]);
        }
        let packet = query.to_vec().unwrap();
        let transport = if is_tcp { Transport::Tcp } else { Transport::Udp };
        let (warm, mut fast, mut slow) = (sample.clone().into_handler(), Vec::new(), Vec::new());
        let hits = || warm.metrics().dns_hits.get();
        for _ in 1..times {
            warm.answer(&packet, client(), transport, &mut fast);
        }
        let before = hits();
        warm.answer(&packet, client(), transport, &mut fast);
        let is_hit = hits() > before;
        sample.into_handler().answer(&packet, client(), transport, &mut slow);
        let question = HEADER_OCTETS..HEADER_OCTETS + name.len() + 1 + 4;
        prop_assert_eq!(&fast[..4], &slow[..4], "id and flags");
        prop_assert_eq!(&fast[question.clone()], &slow[question]);
        let octets = (fast.len(), slow.len());
        let (fast, slow) = (Message::from_vec(&fast).unwrap(), Message::from_vec(&slow).unwrap());
        let sorted = |records: &[hickory_proto::rr::Record]| {
            let mut texts: Vec<_> = records.iter().map(ToString::to_string).collect();
            texts.sort();
            texts
        };
        // What was left out may have been drawn otherwise.
        let is_whole = !slow.metadata.truncation && (kind != RecordType::SRV || slow.additionals.len() >= slow.answers.len());
        let is_kept = WHOLE_SERVICES.contains(&name.as_str()) && OFTEN.contains(&kind) && is_whole;
        prop_assert_eq!(is_hit, is_kept, "whether it was encoded before: {} {}", name, kind);
        compared.set(compared.get() + usize::from(is_hit));
        if is_whole {
            prop_assert_eq!(octets.0, octets.1);
            prop_assert_eq!(sorted(&fast.answers), sorted(&slow.answers));
            prop_assert_eq!(sorted(&fast.additionals), sorted(&slow.additionals));
        }
        prop_assert_eq!(sorted(&fast.authorities), sorted(&slow.authorities));
        prop_assert_eq!(fast.edns, slow.edns);
    });
    // Two of five, as names and types are drawn.
    assert!(compared.get() * 4 > CASES as usize, "{} answers of {CASES} were encoded before", compared.get());
}

/// Names of which an answer is made of the whole service that they name, be it that there is none.
fn whole_service() -> impl Strategy<Value = String> {
    prop::sample::select(&WHOLE_SERVICES[..]).prop_map(str::to_owned)
}

const CASES: u32 = 2_000;
/// After so many questions all draws are encoded: one for each, and the first is a hit once before.
const ALL_DRAWN: usize = 17;
/// Types of which answers are kept.
const OFTEN: [RecordType; 5] =
    [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT, RecordType::HTTPS];
const WHOLE_SERVICES: [&str; 6] = [
    "web.default.rollcall.internal.",
    "web.rollcall.internal.",
    "big.default.rollcall.internal.",
    "_http._tcp.big.default.rollcall.internal.",
    "_metrics._udp.web.rollcall.internal.",
    "empty.shop.rollcall.internal.",
];
