//! Upstreams that are away, slow, or of no use.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use rollcall::clock;

use crate::upstream::{Over, Sent, Upstream, a, address, answer, code, now, soa};
use crate::world::{World, addresses, extended, listed, query, until};

#[tokio::test]
async fn the_next_upstream_answers_when_one_is_silent_or_of_no_use() {
    let (silent, refusing, failing, good) =
        (Upstream::start().await, Upstream::start().await, Upstream::start().await, Upstream::start().await);
    silent.is_silent();
    refusing.answers(|query| code(query, ResponseCode::Refused));
    failing.answers(|query| code(query, ResponseCode::ServFail));
    good.answers(|query| address(query, 4));
    let world = World::asking(&[silent.addr, refusing.addr, failing.addr, good.addr]);
    assert_eq!(addresses(&world.ask("www.example.com.").await), [4]);
    assert_eq!(world.metric("rollcall_dns_upstream_failures_total{reason=\"silence\"}"), 1);
    assert_eq!(world.metric("rollcall_dns_upstream_failures_total{reason=\"refused\"}"), 2);
}

#[tokio::test]
async fn an_upstream_that_fails_again_and_again_is_asked_last_until_it_is_back() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    first.is_silent();
    second.answers(|query| address(query, 2));
    let world = World::start(&format!("{{{}, timeout: 500ms}}", listed(&[first.addr, second.addr])), "");
    for index in 0..3 {
        assert_eq!(addresses(&world.ask(&format!("{index}.example.com.")).await), [2]);
    }
    let asked = first.count();
    let begin = clock::now();
    assert_eq!(addresses(&world.ask("now.example.com.").await), [2]);
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "it is not waited for any more: {:?}",
        begin.elapsed()
    );
    assert_eq!(first.count(), asked);

    // While it is away it is seen to beside the clients' questions, none of which it gets.
    let (index, seen) = (AtomicU16::new(0), first.probes().len());
    let next = || format!("later-{}.example.com.", index.fetch_add(1, Ordering::Relaxed));
    until("it is seen to", async || {
        assert_eq!(addresses(&world.ask(&next()).await), [2]);
        first.probes().len() > seen
    })
    .await;
    assert_eq!(first.count(), asked);

    first.answers(|query| address(query, 1));
    let until_it_is_back = first.probes().len();
    until("it is asked first again", async || addresses(&world.ask(&next()).await) == [1]).await;
    assert!(first.probes().len() > until_it_is_back, "no client's question was to find that out");
}

#[tokio::test]
async fn names_that_nobody_answers_for_set_no_upstream_back_that_answers_others() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let is_silent =
        |query: &Message| query.queries[0].name().to_lowercase().to_string().starts_with("never-");
    let known = Arc::new(Mutex::new(BTreeSet::new()));
    let asked_first = known.clone();
    first.says(move |query, _| {
        asked_first.lock().unwrap().insert(query.queries[0].name().to_lowercase());
        if is_silent(query) { Vec::new() } else { vec![now(&address(query, 1))] }
    });
    second.says(move |query, _| {
        // However late the first is: once it was asked it has the word.
        let is_known = known.lock().unwrap().contains(&query.queries[0].name().to_lowercase());
        let is_left_to_first = is_known && !is_silent(query);
        if is_left_to_first { Vec::new() } else { vec![now(&code(query, ResponseCode::NXDomain))] }
    });
    let world = World::start(&format!("{{{}, timeout: 500ms}}", listed(&[first.addr, second.addr])), "");
    for round in 0..3 {
        let names: Vec<_> = (0..8).map(|index| format!("never-{round}-{index}.example.com.")).collect();
        for told in join_all(names.iter().map(|name| world.ask(name))).await {
            assert_eq!(told.metadata.response_code, ResponseCode::NXDomain);
        }
        assert_eq!(addresses(&world.ask(&format!("good-{round}.example.com.")).await), [1], "round {round}");
    }
    assert!(!first.probes().is_empty(), "it was in doubt");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_a_type_is_still_asked_first() {
    for says in [ResponseCode::NotImp, ResponseCode::Refused, ResponseCode::FormErr] {
        let (first, second) = (Upstream::start().await, Upstream::start().await);
        first.answers(move |query| {
            let is_plain = query.queries[0].query_type() == RecordType::A;
            if is_plain { address(query, 1) } else { code(query, says) }
        });
        second.answers(|query| address(query, 2));
        let world = World::asking(&[first.addr, second.addr]);
        for index in 0..5 {
            let _whatever_the_second_says =
                world.ask_with(&query(&format!("{index}.example.com."), RecordType::ANY)).await;
        }
        assert_eq!(addresses(&world.ask("www.example.com.").await), [1], "after {says}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_told_of_at_once() {
    let upstream = Upstream::start().await;
    // A record whose data is one octet longer than an address.
    upstream.says(|query, _| {
        let mut sent = now(&address(query, 1));
        let length_at = sent.packet.len() - 6;
        sent.packet[length_at + 1] += 1;
        sent.packet.push(0);
        vec![sent]
    });
    let world = World::asking(&[upstream.addr]);
    let begin = clock::now();
    let told = world.ask("www.example.com.").await;
    assert_eq!((told.metadata.response_code, extended(&told)), (ResponseCode::ServFail, Some(0)));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_domain_whose_upstreams_are_silent_leaves_room_for_all_other_names() {
    let (dead, good) = (Upstream::start().await, Upstream::start().await);
    dead.is_silent();
    good.answers(|query| address(query, 4));
    let settings = "waiting_max: 8, client_waiting_max: 8";
    let domains = format!("domains: {{dead.example: ['{}']}}, {settings}", dead.addr);
    let world = World::start(&format!("{{{}, {domains}}}", listed(&[good.addr])), "");
    let names: Vec<_> = (0..20).map(|index| format!("{index}.dead.example.")).collect();
    let silent = join_all(names.iter().map(|name| world.ask(name)));
    let others = async {
        until("the silent ones are asked", async || dead.count() >= 6).await;
        addresses(&world.ask("www.example.com.").await)
    };
    let (_failed, others) = tokio::join!(silent, others);
    assert_eq!(others, [4]);
}

#[tokio::test]
async fn a_late_answer_counts_although_others_have_been_asked_meanwhile() {
    let upstream = Upstream::start().await;
    let times = AtomicU8::new(0);
    upstream.says(move |query, _| match times.fetch_add(1, Ordering::Relaxed) {
        0 => vec![Sent { after: Duration::from_millis(700), ..now(&address(query, 1)) }],
        _ => Vec::new(),
    });
    let world = World::asking(&[upstream.addr]);
    assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn an_upstream_that_takes_edns_for_an_error_is_asked_without() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        if query.edns.is_none() {
            return address(query, 1);
        }
        let mut message = code(query, ResponseCode::FormErr);
        // It could not read the question, and repeats none.
        message.queries.clear();
        message
    });
    let world = World::asking(&[upstream.addr]);
    assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
    assert_eq!(upstream.count(), 2);
    // Nor does who wants signatures go without an answer.
    let mut signed = query("ftp.example.com.", RecordType::A);
    signed.edns.as_mut().expect("it has EDNS").set_dnssec_ok(true);
    assert_eq!(addresses(&world.ask_with(&signed).await), [1]);
}

#[tokio::test]
async fn rfc6891_7_an_upstream_that_takes_edns_for_an_error_is_asked_without_over_tcp_too() {
    for rcode in [ResponseCode::FormErr, ResponseCode::NotImp] {
        let upstream = Upstream::start().await;
        upstream.says(move |query, over| {
            let mut message = address(query, 1);
            if query.edns.is_some() {
                message = code(query, rcode);
            } else if over == Over::Udp {
                message.metadata.truncation = true;
            }
            vec![now(&message)]
        });
        let world = World::asking(&[upstream.addr]);
        assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
        let asked: Vec<_> = upstream.got().iter().map(|got| (got.over, got.message.edns.is_some())).collect();
        assert_eq!(asked, [(Over::Udp, true), (Over::Udp, false), (Over::Tcp, false)], "{rcode}");
    }
}

#[tokio::test]
async fn rfc9520_3_2_why_there_is_no_answer_is_told_and_kept_a_moment() {
    let refusing = Upstream::start().await;
    refusing.answers(|query| code(query, ResponseCode::Refused));
    let world = World::asking(&[refusing.addr]);
    for _ in 0..3 {
        let told = world.ask("www.example.com.").await;
        assert_eq!((told.metadata.response_code, extended(&told)), (ResponseCode::ServFail, Some(22)));
        assert!(told.metadata.recursion_available);
    }
    assert_eq!(refusing.count(), 1, "it is not asked again at once");

    // Nobody is there.
    let gone = Upstream::start().await.addr;
    let world = World::asking(&[gone]);
    let told = world.ask("www.example.com.").await;
    assert_eq!((told.metadata.response_code, extended(&told)), (ResponseCode::ServFail, Some(23)));

    let world = World::start("{}", "");
    let told = world.ask("www.example.com.").await;
    assert_eq!((told.metadata.response_code, extended(&told)), (ResponseCode::ServFail, Some(22)));
}

#[tokio::test]
async fn silence_is_over_before_a_client_gives_up() {
    let silent = Upstream::start().await;
    silent.is_silent();
    let world = World::asking(&[silent.addr]);
    let begin = clock::now();
    let told = world.ask("www.example.com.").await;
    assert_eq!((told.metadata.response_code, extended(&told)), (ResponseCode::ServFail, Some(22)));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(silent.count(), 2, "as often as attempts say");
}

#[tokio::test]
async fn rfc8767_5_an_old_answer_is_given_when_there_is_no_other_and_says_so() {
    let upstream = Upstream::start().await;
    let short_lived = |query: &Message| {
        let mut message = answer(query);
        message.add_answer(a(query.queries[0].name(), 1, 1));
        message
    };
    upstream.answers(short_lived);
    let world = World::asking(&[upstream.addr]);
    world.ask("www.example.com.").await;
    upstream.is_silent();
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let begin = clock::now();
    let told = world.ask("www.example.com.").await;
    assert_eq!((addresses(&told), told.answers[0].ttl, extended(&told)), (vec![1], 30, Some(3)));
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1_700), "a newer one was waited for: {took:?}");
    assert!(took < Duration::from_millis(4_000), "not to the end: {took:?}");

    // Once that has failed it is given at once.
    until("the attempt is over", async || world.metric("rollcall_dns_forward_in_flight") == 0).await;
    let (begin, asked) = (clock::now(), upstream.count());
    assert_eq!(extended(&world.ask("www.example.com.").await), Some(3));
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(upstream.count(), asked);
    assert_eq!(world.metric("rollcall_dns_forward_queries_total{outcome=\"stale\"}"), 2);
}

#[tokio::test]
async fn rfc8914_4_20_an_old_answer_that_there_is_nothing_is_told_apart() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let mut message = code(query, ResponseCode::NXDomain);
        message.add_authority(soa("example.com.", 1));
        message
    });
    let world = World::asking(&[upstream.addr]);
    world.ask("no.example.com.").await;
    upstream.answers(|query| code(query, ResponseCode::ServFail));
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let told = world.ask("no.example.com.").await;
    assert_eq!((told.metadata.response_code, extended(&told)), (ResponseCode::NXDomain, Some(19)));
    // With nothing kept beyond its time there is only the failure.
    world.configure(&format!("{{{}, timeout: 200ms, stale_max: 0s}}", listed(&[upstream.addr])));
    let told = world.ask("no.example.com.").await;
    assert_eq!(told.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn what_is_asked_for_again_near_its_end_is_had_anew_without_a_wait() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let mut message = answer(query);
        message.add_answer(a(query.queries[0].name(), 5, 1));
        message
    });
    let world = World::asking(&[upstream.addr]);
    let begin = clock::now();
    world.ask("www.example.com.").await;
    until("it was had anew", async || {
        world.ask("www.example.com.").await;
        upstream.count() == 2
    })
    .await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(4_450), "{took:?}");
    assert_eq!(world.metric("rollcall_dns_forward_queries_total{outcome=\"upstream\"}"), 1);
}

#[tokio::test]
async fn a_systems_file_that_is_away_or_empty_takes_nobody_away() {
    // The file knows no ports, so that only who is asked can be seen: nobody listens there.
    let settings = |timeout: u32| format!("{{timeout: {timeout}ms, attempts: 1}}");
    let world = World::start(&settings(50), "nameserver 127.99.0.53\nsearch shop.example\n");
    let in_search_list = |domain: &str| format!("web.default.rollcall.internal.{domain}.");
    assert_eq!(extended(&world.ask("a.example.").await), Some(23));
    // Other settings have the file read at once.
    world.remove_resolv_conf();
    world.configure(&settings(51));
    assert_eq!(extended(&world.ask("b.example.").await), Some(23), "somebody is known still");
    world.write_resolv_conf("");
    world.configure(&settings(52));
    assert_eq!(extended(&world.ask("c.example.").await), Some(23), "somebody is known still");
    let told = world.ask(&in_search_list("shop.example")).await;
    assert_eq!(told.metadata.response_code, ResponseCode::NXDomain);
    // Whether it is followed again its watch tells.
    world.write_resolv_conf("nameserver 127.99.0.53\nsearch other.example\n");
    until("its search list is known", async || {
        let told = world.ask(&in_search_list("other.example")).await;
        told.metadata.response_code == ResponseCode::NXDomain
    })
    .await;
    assert_eq!(extended(&world.ask("d.example.").await), Some(23));
}
