//! What is no answer to what was asked is not believed, and does not keep the answer away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

use rollcall::clock;
use tokio::net::UdpSocket;

use crate::upstream::{
    From, Over, Sent, Upstream, a, address, answer, cname, code, in_lower_case, now, rrsig, soa, unknown,
};
use crate::world::{World, addresses, listed, query, until};

/// A little later than the lie.
const LATER: Duration = Duration::from_millis(50);

#[tokio::test]
async fn rfc5452_9_1_a_lie_is_passed_over_and_the_truth_is_waited_for() {
    let lies: [fn(&mut Message); 5] = [
        |message| message.metadata.id ^= 0x0101,
        |message| message.queries[0] = Query::query("www.example.net.".parse().unwrap(), RecordType::A),
        |message| {
            let name = message.queries[0].name().clone();
            message.queries[0] = Query::query(name, RecordType::AAAA);
        },
        |message| {
            message.queries[0].set_query_class(DNSClass::CH);
        },
        |message| message.metadata.message_type = hickory_proto::op::MessageType::Query,
    ];
    for lie in lies {
        let upstream = Upstream::start().await;
        upstream.says(move |query, _| {
            let mut lying = address(query, 66);
            lie(&mut lying);
            vec![now(&lying), Sent { after: LATER, ..now(&address(query, 1)) }]
        });
        let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
        assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
        assert_eq!(world.metric("rollcall_dns_upstream_mismatches_total"), 1);
        assert_eq!(upstream.count(), 1, "it was not asked again");
    }
}

#[tokio::test]
async fn rfc5452_9_1_an_answer_from_elsewhere_is_none() {
    for from in [From::OtherPort, From::OtherAddress] {
        let upstream = Upstream::start().await;
        upstream.says(move |query, _| {
            let elsewhere = Sent { from, ..now(&address(query, 66)) };
            vec![elsewhere, Sent { after: LATER, ..now(&address(query, 1)) }]
        });
        let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
        assert_eq!(addresses(&world.ask("www.example.com.").await), [1], "{from:?}");
    }
}

#[tokio::test]
async fn what_comes_after_the_answer_changes_nothing() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| {
        let lie = now(&address(query, 66));
        vec![now(&address(query, 1)), Sent { after: LATER, ..lie.clone() }, Sent { after: 2 * LATER, ..lie }]
    });
    let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
    assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
    let late = clock::now() + 3 * LATER;
    until("they have come", async || clock::now() > late).await;
    assert_eq!((addresses(&world.ask("www.example.com.").await), upstream.count()), (vec![1], 1));
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_met_with_silence() {
    let upstream = Upstream::start().await;
    let world = World::asking(&[upstream.addr]);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let unasked = address(&query("www.example.com.", RecordType::A), 66);
    stranger.send_to(&unasked.to_vec().unwrap(), world.addr).await.unwrap();
    // Packets of a socket keep their order: the first that comes back is about the question.
    let told = world.ask_from(&stranger, &query("www.example.com.", RecordType::A)).await;
    assert_eq!((addresses(&told), upstream.count()), (vec![1], 1));
    assert_eq!(world.metric("rollcall_dns_dropped_total"), 1);
}

#[tokio::test]
async fn rfc5452_5_who_forges_has_one_question_to_meet_however_many_ask() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| {
        let lies = (1..=10_u16).map(|guess| {
            let mut lying = address(query, 66);
            lying.metadata.id ^= guess;
            now(&lying)
        });
        lies.chain([Sent { after: LATER, ..now(&address(query, 1)) }]).collect()
    });
    let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
    let asking = (0..100).map(|_| world.ask("www.example.com."));
    for told in futures_util::future::join_all(asking).await {
        assert_eq!(addresses(&told), [1]);
    }
    assert_eq!(upstream.count(), 1, "each more would be one more to be met by chance");
}

#[tokio::test]
async fn ttls_beyond_all_measure_are_cut() {
    let upstream = Upstream::start().await;
    for (given, told) in [(86_401, 86_400), (0x7fff_ffff, 86_400), (0x8000_0000, 0), (u32::MAX, 0)] {
        upstream.answers(move |query| {
            let mut message = answer(query);
            message.add_answer(a(query.queries[0].name(), given, 1));
            message
        });
        let world = World::asking(&[upstream.addr]);
        for _ in 0..3 {
            let ttl = world.ask("www.example.com.").await.answers[0].ttl;
            assert!(ttl <= told && ttl + 20 > told, "{given}: {ttl}");
        }
    }
}

#[tokio::test]
async fn an_alias_says_nothing_about_the_name_that_it_stands_for() {
    let upstream = Upstream::start().await;
    let bank: Name = "www.bank.example.".parse().unwrap();
    let other = bank.clone();
    upstream.answers(move |query| {
        if *query.queries[0].name() == other {
            return address(query, 1);
        }
        let mut message = answer(query);
        message.add_answers([cname(query.queries[0].name(), "www.bank.example."), a(&other, 86_400, 66)]);
        message.add_answer(a(&"mail.bank.example.".parse().unwrap(), 86_400, 66));
        message
    });
    let world = World::asking(&[upstream.addr]);
    let told = world.ask("www.example.com.").await;
    assert_eq!((told.answers.len(), addresses(&told)), (2, vec![66]), "that is what the upstream says of it");
    assert_eq!(addresses(&world.ask("www.bank.example.").await), [1]);
}

#[tokio::test]
async fn dns0x20_an_answer_in_other_letters_is_checked_over_tcp() {
    let upstream = Upstream::start().await;
    upstream.says(|query, over| match over {
        Over::Udp => vec![now(&in_lower_case(address(query, 66)))],
        Over::Tcp | Over::Tls => vec![now(&address(query, 1))],
    });
    let world = World::asking(&[upstream.addr]);
    assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
}

#[tokio::test]
async fn dns0x20_an_upstream_that_never_repeats_letters_is_found_out_and_used() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| vec![now(&in_lower_case(address(query, 1)))]);
    let world = World::asking(&[upstream.addr]);
    for name in ["one.example.com.", "two.example.com.", "three.example.com."] {
        assert_eq!(addresses(&world.ask(name).await), [1]);
    }
    let got = upstream.got();
    let overs: Vec<_> = got.iter().map(|got| got.over).collect();
    assert_eq!(overs, [Over::Udp, Over::Tcp, Over::Udp, Over::Udp]);
    assert_eq!(got[3].message.queries[0].name().to_string(), "three.example.com.");
}

#[tokio::test]
async fn dns0x20_an_upstream_that_never_repeats_letters_is_used_without_tcp() {
    for is_silent in [false, true] {
        let upstream = if is_silent { Upstream::start().await } else { Upstream::start_without_tcp().await };
        upstream.says(|query, over| match over {
            Over::Udp => vec![now(&in_lower_case(address(query, 1)))],
            // As behind a firewall that drops what it does not let through.
            Over::Tcp | Over::Tls => Vec::new(),
        });
        let world = World::start(&format!("{{{}, timeout: 4s, attempts: 1}}", listed(&[upstream.addr])), "");
        assert_eq!(addresses(&world.ask(&long("one")).await), [1], "is silent: {is_silent}");
        let asked: Vec<_> = upstream.got().into_iter().filter(|got| got.over == Over::Udp).collect();
        let has_capitals: Vec<_> = asked.iter().map(|got| has_capitals(&got.message)).collect();
        assert_eq!(has_capitals, [true, true, false], "only what it does twice is its way");
        let before = upstream.count();
        assert_eq!(addresses(&world.ask(&long("two")).await), [1]);
        let got = upstream.got();
        assert_eq!((got.len() - before, has_capitals_of_last(&upstream)), (1, false));
    }
}

#[tokio::test]
async fn dns0x20_what_shows_nothing_about_letters_is_not_taken_for_the_upstreams_way() {
    // Names without letters, and errors without a question, are alike for those who repeat letters and those who do not.
    let upstream = Upstream::start_without_tcp().await;
    upstream.says(|query, _| {
        let mut message = in_lower_case(address(query, 1));
        if query.edns.is_some() {
            message = code(query, ResponseCode::FormErr);
            message.queries.clear();
        }
        vec![now(&message)]
    });
    let world = World::asking(&[upstream.addr]);
    for name in [".", "1.2.3.4.", &long("one"), &long("two")] {
        assert_eq!(addresses(&world.ask(name).await), [1], "{name}");
    }
}

#[tokio::test]
async fn dns0x20_an_upstream_that_begins_to_change_letters_is_still_used() {
    let upstream = Upstream::start_without_tcp().await;
    let world = World::asking(&[upstream.addr]);
    assert_eq!(addresses(&world.ask(&long("one")).await), [1]);
    upstream.answers(|query| in_lower_case(address(query, 2)));
    assert_eq!(addresses(&world.ask(&long("two")).await), [2]);
}

#[tokio::test]
async fn dns0x20_one_forged_answer_does_not_have_letters_given_up() {
    for is_first_forged in [true, false] {
        let upstream = Upstream::start_without_tcp().await;
        let world = World::asking(&[upstream.addr]);
        if !is_first_forged {
            assert_eq!(addresses(&world.ask(&long("zero")).await), [1]);
        }
        let is_forged = AtomicBool::new(true);
        upstream.says(move |query, _| {
            let forged = is_forged.swap(false, Ordering::Relaxed);
            vec![now(&if forged { in_lower_case(address(query, 66)) } else { address(query, 1) })]
        });
        for name in ["one", "two"] {
            assert_eq!(addresses(&world.ask(&long(name)).await), [1]);
            assert!(has_capitals_of_last(&upstream));
        }
    }
}

#[tokio::test]
async fn one_forged_error_without_a_question_does_not_have_signatures_given_up() {
    let upstream = Upstream::start().await;
    let is_forged = AtomicBool::new(true);
    upstream.says(move |query, _| {
        let mut message = address(query, 1);
        if query.edns.is_some() {
            message.add_answer(rrsig("www.example.com.", RecordType::A, "example.com."));
        }
        if is_forged.swap(false, Ordering::Relaxed) {
            message = code(query, ResponseCode::FormErr);
            message.queries.clear();
        }
        vec![now(&message)]
    });
    let world = World::asking(&[upstream.addr]);
    let mut signed = query("www.example.com.", RecordType::A);
    signed.edns.as_mut().unwrap().set_dnssec_ok(true);
    for _ in 0..2 {
        assert_eq!(world.ask_with(&signed).await.answers.len(), 2);
    }
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn dns0x20_letters_are_left_alone_when_settings_say_so() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| vec![now(&in_lower_case(address(query, 1)))]);
    let world = World::start(&format!("{{{}, randomize_case: false}}", listed(&[upstream.addr])), "");
    assert_eq!(addresses(&world.ask("WWW.Example.com.").await), [1]);
    assert_eq!((upstream.count(), upstream.got()[0].over), (1, Over::Udp));
}

/// A name with so many letters that some are drawn as capitals.
fn long(label: &str) -> String {
    format!("{label}.{}.example.com.", "a".repeat(40))
}

fn has_capitals(query: &Message) -> bool {
    query.queries[0].name().iter().flatten().any(u8::is_ascii_uppercase)
}

fn has_capitals_of_last(upstream: &Upstream) -> bool {
    has_capitals(&upstream.got().last().expect("it was asked").message)
}

#[tokio::test]
async fn rfc5452_9_3_a_flood_of_lies_has_the_question_asked_over_tcp() {
    let upstream = Upstream::start().await;
    upstream.says(|query, over| match over {
        Over::Udp => (0..40_u16)
            .map(|guess| {
                let mut lying = address(query, 66);
                lying.metadata.id ^= guess + 1;
                now(&lying)
            })
            .collect(),
        Over::Tcp | Over::Tls => vec![now(&address(query, 1))],
    });
    let world = World::start(&format!("{{{}, timeout: 4s}}", listed(&[upstream.addr])), "");
    assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
    assert_eq!(world.metric("rollcall_dns_upstream_mismatches_total"), 16);
}

#[tokio::test]
async fn rfc5452_6_nothing_is_believed_but_what_was_asked_for() {
    let upstream = Upstream::start().await;
    let bank: Name = "www.bank.example.".parse().unwrap();
    let planted = bank.clone();
    upstream.answers(move |query| {
        let name = query.queries[0].name();
        if *name == planted {
            return address(query, 1);
        }
        let mut message = address(query, 1);
        message.add_answer(a(&planted, 86_400, 66));
        message.add_authority(soa("bank.example.", 60));
        message.add_additional(a(&planted, 86_400, 66));
        message
    });
    let world = World::asking(&[upstream.addr]);
    let told = world.ask("www.example.com.").await;
    assert_eq!((told.answers.len(), told.authorities.len(), told.additionals.len()), (1, 0, 0));
    assert_eq!(addresses(&world.ask("www.bank.example.").await), [1]);
}

#[tokio::test]
async fn rfc4035_3_1_3_proofs_of_other_zones_are_not_passed_on_and_signatures_come_with_what_they_cover() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let (mut message, name) = (address(query, 1), query.queries[0].name().to_string());
        message.add_answer(rrsig(&name, RecordType::A, "example.com."));
        message.add_answer(rrsig(&name, RecordType::AAAA, "example.com."));
        for (owner, zone) in [("a.example.com.", "example.com."), ("www.bank.example.", "bank.example.")] {
            message.add_authority(unknown(owner, RecordType::NSEC, b"\x01b\0\0\x01\x40".to_vec()));
            message.add_authority(rrsig(owner, RecordType::NSEC, zone));
            message.add_authority(rrsig(zone, RecordType::NS, zone));
        }
        message
    });
    let world = World::asking(&[upstream.addr]);
    let mut signed = query("www.example.com.", RecordType::A);
    signed.edns.as_mut().unwrap().set_dnssec_ok(true);
    // From the upstream, from the cache, and as it was encoded.
    for _ in 0..3 {
        let told = |records: &[Record]| -> Vec<String> {
            records.iter().map(|record| format!("{} {}", record.name, record.record_type())).collect()
        };
        let message = world.ask_with(&signed).await;
        assert_eq!(told(&message.answers), ["www.example.com. A", "www.example.com. RRSIG"]);
        assert_eq!(told(&message.authorities), ["a.example.com. NSEC", "a.example.com. RRSIG"]);
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn rfc2308_5_a_negative_answer_from_elsewhere_is_not_kept() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let mut message = answer(query);
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authority(soa("bank.example.", 600));
        message
    });
    let world = World::asking(&[upstream.addr]);
    for count in 1..=2 {
        let told = world.ask("www.example.com.").await;
        assert_eq!((told.metadata.response_code, told.authorities.len()), (ResponseCode::NXDomain, 0));
        assert_eq!(upstream.count(), count);
    }
}
