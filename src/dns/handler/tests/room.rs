//! How much of what was encoded is kept.

use super::*;
use crate::dns::fast::OCTETS_MAX_FOR_LONG;

/// Services of one instance with so many addresses, an answer about which is nearly as long as any can be.
const WIDE: usize = 10;
const ADDRESSES: usize = 4_000;
/// Behind the question: name, type, class, TTL, length, address.
const WIDE_OCTETS: usize = ADDRESSES * 16;
/// Answers about a name that take turns.
const DRAWS: usize = 16;
/// How often each has its turn.
const TURNS: usize = 64;
/// More often than it takes to draw all.
const OFTEN: usize = 20;

#[test]
fn long_answers_are_kept_as_long_as_there_is_room_and_leave_some_for_short_ones() {
    let (handler, _cache) = wide().into_handler_and_cache();
    fill(&handler);
    let kept = OCTETS_MAX_FOR_LONG / WIDE_OCTETS;
    assert!((DRAWS..WIDE * DRAWS).contains(&kept), "{kept} fit, so that the test shows nothing");
    assert_eq!(octets(&handler), kept * WIDE_OCTETS);
    // The first has all it needs, and the last goes the slow way: whole, as ever.
    assert_eq!((hits(&handler, &wide_name(0)), hits(&handler, &wide_name(WIDE - 1))), (OFTEN, 0));
    assert_eq!(octets(&handler), kept * WIDE_OCTETS, "what was not kept is not counted");

    let web = "web.default.rollcall.internal.";
    assert!(hits(&handler, web) < OFTEN && hits(&handler, web) == OFTEN);
    assert_eq!(octets(&handler), kept * WIDE_OCTETS + DRAWS * 2 * 16, "two addresses a draw");

    // Who has had its turns begins anew, and has left the room for that.
    let turns = DRAWS * TURNS;
    assert!((0..turns).any(|_| !is_hit(&handler, &wide_name(0))));
    assert_eq!(octets(&handler), (kept - DRAWS + 1) * WIDE_OCTETS + DRAWS * 2 * 16);
}

#[test]
fn what_a_change_made_useless_leaves_its_room() {
    let (handler, cache) = wide().into_handler_and_cache();
    fill(&handler);
    let full = octets(&handler);
    // A change of others is no reason to let anything go.
    let mut other = wide();
    other.view = cache.load().as_ref().clone();
    other.instance("web", "web-1").addresses(&["10.0.0.9"]);
    cache.publish(other.view);
    assert!(!is_hit(&handler, &wide_name(WIDE - 1)));
    assert_eq!((octets(&handler), hits(&handler, &wide_name(0))), (full, OFTEN));

    // All services anew, as in a view that has nothing in common with the one before.
    cache.publish(wide().view);
    assert!(!is_hit(&handler, &wide_name(WIDE - 1)));
    assert_eq!(octets(&handler), WIDE_OCTETS, "the one that needed room");
    fill(&handler);
    assert_eq!(octets(&handler), full);
    cache.set_synced(false);
    assert!(hits(&handler, &wide_name(WIDE - 1)) > 0);
    assert_eq!(octets(&handler), DRAWS * WIDE_OCTETS, "what was said while the view was current is gone");

    handler.serve(wide().plan);
    assert_eq!(octets(&handler), 0);
}

#[test]
fn an_answer_about_a_service_that_changed_takes_the_place_of_the_one_before() {
    let (handler, cache) = wide().into_handler_and_cache();
    let name = wide_name(0);
    assert!(hits(&handler, &name) > 0);
    assert_eq!(octets(&handler), DRAWS * WIDE_OCTETS);
    let mut changed = wide();
    changed.instance("wide-0", "one").addresses(&["10.0.0.9", "10.0.0.10"]);
    cache.publish(changed.view);
    assert!(!is_hit(&handler, &name));
    assert_eq!(octets(&handler), 2 * 16);
}

/// Asks for all wide services until each has all its draws, or no room for them.
fn fill(handler: &Handler) {
    for number in 0..WIDE {
        hits(handler, &wide_name(number));
    }
}

/// How many of so many answers were encoded before.
fn hits(handler: &Handler, name: &str) -> usize {
    (0..OFTEN).filter(|_| is_hit(handler, name)).count()
}

/// Whether an answer that is whole in any case was encoded before.
fn is_hit(handler: &Handler, name: &str) -> bool {
    let (packet, mut out) = (query(name, RecordType::A).to_vec().unwrap(), Vec::new());
    let hits = handler.metrics().dns_hits.get();
    handler.answer(&packet, client(), Transport::Tcp, &mut out);
    let addresses = usize::from(u16::from_be_bytes([out[6], out[7]]));
    let is_whole = [2, ADDRESSES].contains(&addresses) && out.len() == packet.len() + addresses * 16;
    assert!(is_whole, "{name}: {addresses} addresses in {} octets", out.len());
    handler.metrics().dns_hits.get() > hits
}

fn octets(handler: &Handler) -> usize {
    handler.plan.load().fast.octets()
}

fn wide_name(number: usize) -> String {
    format!("wide-{number}.default.rollcall.internal.")
}

fn wide() -> Sample {
    let mut sample = web();
    let addresses: Vec<_> =
        (0..ADDRESSES).map(|number| format!("10.3.{}.{}", number / 250, number % 250)).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    for number in 0..WIDE {
        let name = format!("wide-{number}");
        sample.service_with_one(&name);
        sample.instance(&name, "one").addresses(&addresses);
    }
    sample
}
