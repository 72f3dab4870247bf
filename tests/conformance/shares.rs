//! Who stands first: in the long run each by its weight, and all of them in turn.

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;

use crate::client::{frame, receive_framed};
use crate::message::Message;
use crate::query::{A, Opt, Query, SRV};
use crate::registry::{Registry, member};
use crate::world::World;

const WEIGHTED: &str = "weighted.shop.rollcall.internal";
const WEIGHTS: [u16; 4] = [1, 2, 3, 10];
/// Standard deviations that a share may be off: beyond six of them lies one in 500 million.
const DEVIATIONS: f64 = 6.0;

#[test]
fn answers_that_are_drawn_anew_have_each_first_by_its_weight() {
    // An option that nobody knows: what was encoded before is not for such queries.
    let query = Query::of(WEIGHTED, A).opt(&Opt::of(1232).option(65_001, &[]));
    let firsts = firsts(&query, 6_000);
    expect_shares(&firsts, 6_000, 6_000);
}

#[test]
fn answers_that_were_encoded_before_have_each_first_by_its_weight() {
    // Sixteen draws take turns, and each is used 64 times: so many answers are 1024 draws.
    let firsts = firsts(&Query::of(WEIGHTED, A), 65_536);
    expect_shares(&firsts, 65_536, 1_024);
}

#[test]
fn rfc2782_clients_that_take_the_first_srv_record_meet_each_by_its_weight() {
    let query = Query::of(WEIGHTED, SRV).opt(&Opt::of(1232).option(65_001, &[]));
    let firsts = firsts(&query, 6_000);
    expect_shares(&firsts, 6_000, 6_000);
}

#[test]
fn weight_0_stands_first_only_where_there_is_nobody_else() {
    let members = [member("a", "10.0.0.0").weight(0), member("b", "10.0.0.1").weight(1)];
    let world = World::start(Registry::new().service("shop", "zero", &members));
    for _ in 0..200 {
        let query = Query::of("zero.shop.rollcall.internal", A).opt(&Opt::of(1232).option(65_001, &[]));
        assert_eq!(world.udp(&query).addresses().first().map(String::as_str), Some("10.0.0.1"));
    }
    let alone = World::start(Registry::new().service("shop", "zero", &members[..1]));
    assert_eq!(alone.ask("zero.shop.rollcall.internal", A).addresses(), ["10.0.0.0"]);
}

#[test]
fn rfc1794_equals_take_turns() {
    let members: Vec<_> = (0..4).map(|n| member(&format!("m-{n}"), &format!("10.0.0.{n}"))).collect();
    let world = World::start(Registry::new().service("shop", "equal", &members));
    let mut orders = BTreeMap::<_, u32>::new();
    for _ in 0..2_400 {
        let query = Query::of("equal.shop.rollcall.internal", A).opt(&Opt::of(1232).option(65_001, &[]));
        *orders.entry(world.udp(&query).addresses()).or_default() += 1;
    }
    // 24 orders of four, each 100 times with a deviation of 10.
    assert_eq!(orders.len(), 24);
    assert!(orders.values().all(|count| (40..=160).contains(count)), "{orders:?}");
}

/// How often each of [`WEIGHTS`] stands first in so many answers.
fn firsts(query: &Query, count: usize) -> [usize; WEIGHTS.len()] {
    let members: Vec<_> = (0..).zip(WEIGHTS).map(|(n, weight)| weighted(n, weight)).collect();
    let world = World::start(Registry::new().service("shop", "weighted", &members));
    let mut stream = world.connect();
    let mut writer = stream.try_clone().expect("a handle can be had");
    let framed = frame(&query.to_octets());
    let sender = thread::spawn(move || (0..count).try_for_each(|_| writer.write_all(&framed)));
    let mut firsts = [0; WEIGHTS.len()];
    for _ in 0..count {
        let reply = receive_framed(&mut stream).expect("a reply");
        firsts[first(&reply)] += 1;
    }
    sender.join().expect("it ends").expect("all was sent");
    firsts
}

fn weighted(number: usize, weight: u16) -> crate::registry::Member {
    member(&format!("m-{number}"), &format!("10.0.0.{number}")).weight(weight)
}

/// The number of the instance that stands first.
fn first(reply: &Message) -> usize {
    let record = &reply.answers[0];
    let text = match record.kind {
        SRV => record.service().3,
        _ => record.address().to_string(),
    };
    let digits = text.trim_start_matches("10.0.0.").trim_start_matches("m-");
    digits.split('.').next().and_then(|digits| digits.parse().ok()).expect("a number")
}

/// Demands that shares are those of the weights, as far as chance lets so many independent draws say it.
fn expect_shares(firsts: &[usize], count: u32, draws: u32) {
    let all: u16 = WEIGHTS.iter().sum();
    for (first, weight) in firsts.iter().zip(WEIGHTS) {
        let expected = f64::from(weight) / f64::from(all);
        let share = f64::from(u32::try_from(*first).expect("few")) / f64::from(count);
        let deviation = (expected * (1.0 - expected) / f64::from(draws)).sqrt();
        assert!(
            (share - expected).abs() < DEVIATIONS * deviation,
            "weight {weight} of {all} stands first in {share:.4} of the answers, not in {expected:.4} ± {deviation:.4}: {firsts:?}"
        );
    }
}
