//! What honest upstreams say reaches the client, each question once.

use std::collections::BTreeSet;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::upstream::{Over, Sent, Upstream, a, address, answer, cname, code, explained, now, soa};
use crate::world::{World, addresses, extended, listed, query, receive_framed, send_framed, until};

#[tokio::test]
async fn an_answer_comes_as_it_was_asked_for_and_is_kept() {
    let upstream = Upstream::start().await;
    let world = World::asking(&[upstream.addr]);
    let first = world.ask("wWw.Example.com.").await;
    assert_eq!(addresses(&first), [1]);
    let header = first.metadata;
    assert!(header.recursion_available && header.recursion_desired && !header.authoritative);
    assert_eq!(first.queries[0].name().to_string(), "wWw.Example.com.");
    assert_eq!(first.answers[0].name.to_string(), "wWw.Example.com.", "not in the letters that were sent on");
    assert_eq!(extended(&first), None);

    let again = world.ask("www.example.COM.").await;
    assert_eq!((addresses(&again), upstream.count()), (vec![1], 1));
    assert_eq!(world.metric("rollcall_dns_forward_queries_total{outcome=\"cache\"}"), 1);
    assert_eq!(world.metric("rollcall_dns_forward_queries_total{outcome=\"upstream\"}"), 1);
    assert_eq!(world.metric("rollcall_dns_upstream_seconds_count"), 1);
}

#[tokio::test]
async fn ttls_count_down() {
    let upstream = Upstream::start().await;
    let world = World::asking(&[upstream.addr]);
    assert_eq!(world.ask("www.example.com.").await.answers[0].ttl, 60);
    until("a second has passed", async || world.ask("www.example.com.").await.answers[0].ttl < 60).await;
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn rfc5452_9_2_ids_ports_and_letters_differ_from_question_to_question() {
    let upstream = Upstream::start().await;
    let world = World::asking(&[upstream.addr]);
    for index in 0..20 {
        world.ask(&format!("a-name-with-many-letters-{index}.example.com.")).await;
    }
    let got = upstream.got();
    let ids: Vec<_> = got.iter().map(|got| got.message.metadata.id).collect();
    let ports: Vec<_> = got.iter().map(|got| got.from.port()).collect();
    let mut letters: Vec<_> =
        got.iter().map(|got| got.message.queries[0].name().to_string()[..20].to_owned()).collect();
    for drawn in [ids, ports] {
        let different: BTreeSet<_> = drawn.iter().collect();
        assert!(different.len() >= 18, "{drawn:?}");
        // A counter, too, says another number each time, but goes in steps that can be foreseen, as may one that others use between.
        let steps: BTreeSet<_> = drawn.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.len() >= 15, "{drawn:?}");
        let far = steps.iter().filter(|step| step.wrapping_neg().min(**step) > 256).count();
        assert!(far >= 12, "{drawn:?}");
    }
    letters.sort();
    letters.dedup();
    assert!(letters.len() >= 18, "{letters:?}");
}

#[tokio::test]
async fn aliases_come_with_what_they_lead_to() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let mut message = answer(query);
        let name = query.queries[0].name().clone();
        message.add_answers([cname(&name, "b.example.net."), a(&"b.example.net.".parse().unwrap(), 60, 7)]);
        message
    });
    let world = World::asking(&[upstream.addr]);
    let told = world.ask("a.example.com.").await;
    assert_eq!((told.answers.len(), addresses(&told)), (2, vec![7]));
}

#[tokio::test]
async fn an_alias_that_is_left_open_is_asked_for_where_its_name_is_known() {
    let (general, corp) = (Upstream::start().await, Upstream::start().await);
    let alias = |target: &'static str| {
        move |query: &Message| {
            let mut message = answer(query);
            message.add_answer(cname(query.queries[0].name(), target));
            message
        }
    };
    general.answers(alias("www.corp.example."));
    let domains = format!("domains: {{corp.example: ['{}']}}", corp.addr);
    let world = World::start(&format!("{{{}, timeout: 200ms, {domains}}}", listed(&[general.addr])), "");
    for _ in 0..2 {
        let told = world.ask("www.example.com.").await;
        assert_eq!((told.answers.len(), addresses(&told)), (2, vec![1]));
    }
    assert_eq!((general.count(), corp.count()), (1, 1), "all of it is kept");

    // Others do not know that domain, and what they say of it does not count.
    general.answers(move |query| {
        let mut message = alias("www.corp.example.")(query);
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authority(soa("example.", 3600));
        message
    });
    let told = world.ask("denied.example.com.").await;
    assert_eq!(
        (told.metadata.response_code, told.answers.len(), addresses(&told)),
        (ResponseCode::NoError, 2, vec![1])
    );
    general.answers(move |query| {
        let mut message = alias("www.corp.example.")(query);
        message.add_answer(a(&"www.corp.example.".parse().unwrap(), 60, 66));
        message
    });
    let told = world.ask("forged.example.com.").await;
    assert_eq!((told.answers.len(), addresses(&told)), (2, vec![1]));
    general.answers(alias("www.corp.example."));

    // Who does not say what it stands for has not answered.
    corp.answers(|query| code(query, ResponseCode::Refused));
    let told = world.ask("other.example.com.").await;
    assert_eq!((told.metadata.response_code, told.answers.len()), (ResponseCode::ServFail, 0));
    // A circle has no end to ask for.
    corp.answers(alias("www.example.com."));
    let told = world.ask("www.corp.example.").await;
    assert_eq!((told.metadata.response_code, told.answers.len()), (ResponseCode::NoError, 2));
}

#[tokio::test]
async fn an_alias_that_leads_to_a_name_of_ours_comes_with_what_that_stands_for_now() {
    const OURS: &str = "Web.default.rollcall.internal.";
    let upstream = Upstream::start().await;
    let world = World::asking(&[upstream.addr]);
    // It leaves the alias open, has looked for our name in vain, or makes something up.
    let alias = |query: &Message| {
        let mut message = answer(query);
        message.add_answer(cname(query.queries[0].name(), OURS));
        message
    };
    let answers = [
        alias as fn(&Message) -> Message,
        |query: &Message| {
            let mut message = code(query, ResponseCode::NXDomain);
            message.add_answer(cname(query.queries[0].name(), OURS));
            message.add_authority(soa(".", 3600));
            message
        },
        |query: &Message| {
            let mut message = answer(query);
            message.add_answer(cname(query.queries[0].name(), OURS));
            message.add_answer(a(&OURS.parse().unwrap(), 3600, 66));
            message
        },
    ];
    for (index, says) in answers.into_iter().enumerate() {
        upstream.answers(says);
        let name = format!("shop-{index}.example.com.");
        let asked = upstream.count();
        // From the upstream, from the cache, and once more, when others would be encoded.
        for last in [7, 8, 9] {
            world.knows_web(last);
            let told = world.ask(&name).await;
            assert_eq!((told.answers.len(), addresses(&told)), (2, vec![last]), "{name}");
            assert_eq!(told.answers[1].name.to_string(), OURS);
            assert_eq!(told.answers[1].ttl, 2, "ours");
            assert_eq!((told.metadata.response_code, told.authorities.len()), (ResponseCode::NoError, 0));
            assert!(!told.metadata.authoritative && told.metadata.recursion_available);
        }
        assert_eq!(upstream.count() - asked, 1, "nobody is asked for what is ours, and the alias is kept");
    }
    // What there is not of ours is ours to say, too.
    upstream.answers(alias);
    let told = world.ask_with(&query("shop.example.com.", RecordType::AAAA)).await;
    assert_eq!((told.metadata.response_code, told.answers.len()), (ResponseCode::NoError, 1));
    assert_eq!(told.authorities[0].name.to_string(), "rollcall.internal.");
    let told = world.ask_with(&query("shop.example.com.", RecordType::CNAME)).await;
    assert_eq!(told.answers.len(), 1, "the alias is what was asked for");
}

#[tokio::test]
async fn an_alias_to_a_name_of_ours_is_a_failure_while_nothing_was_learnt() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let mut message = answer(query);
        message.add_answer(cname(query.queries[0].name(), "web.default.rollcall.internal."));
        message
    });
    let world = World::asking(&[upstream.addr]);
    for _ in 0..2 {
        let told = world.ask("shop.example.com.").await;
        assert_eq!((told.metadata.response_code, told.answers.len()), (ResponseCode::ServFail, 0));
        assert_eq!(extended(&told), Some(22));
    }
    world.knows_web(7);
    assert_eq!(addresses(&world.ask("shop.example.com.").await), [7]);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn rfc8914_3_what_an_upstream_says_of_its_reasons_is_passed_on_to_who_can_read_it() {
    let upstream = Upstream::start().await;
    let world = World::asking(&[upstream.addr]);
    upstream.answers(|query| explained(address(query, 1), 3, "old, but good"));
    let mut plain = query("www.example.com.", RecordType::A);
    plain.edns = None;
    // From the upstream, from the cache, and as it was encoded.
    for _ in 0..3 {
        assert_eq!(reason(&world.ask("www.example.com.").await).as_deref(), Some("3 old, but good"));
        assert!(world.ask_with(&plain).await.edns.is_none());
    }
    assert_eq!(upstream.count(), 1);
    assert!(world.metric("rollcall_dns_hits_total") >= 3);

    upstream.answers(|query| explained(code(query, ResponseCode::NXDomain), 17, ""));
    assert_eq!(reason(&world.ask("blocked.example.com.").await).as_deref(), Some("17 "));
    upstream.answers(|query| explained(code(query, ResponseCode::ServFail), 6, "signature is wrong"));
    for _ in 0..2 {
        let told = world.ask("bogus.example.com.").await;
        assert_eq!(told.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(reason(&told).as_deref(), Some("6 signature is wrong"));
    }
    upstream.answers(|query| explained(address(query, 1), 0, &"x".repeat(900)));
    let told = world.ask("long.example.com.").await;
    assert_eq!((addresses(&told), reason(&told)), (vec![1], Some(format!("0 {}", "x".repeat(64)))));
}

/// Code and text of the extended error.
fn reason(message: &Message) -> Option<String> {
    let code = extended(message)?;
    let option = message.edns.as_ref()?.option(EdnsCode::Unknown(15))?;
    let EdnsOption::Unknown(_, data) = option else { return None };
    Some(format!("{code} {}", String::from_utf8_lossy(&data[2..])))
}

#[tokio::test]
async fn rfc2308_5_that_there_is_nothing_is_kept_as_long_as_the_soa_says() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let is_name = query.queries[0].query_type() == RecordType::A;
        let mut message = code(query, if is_name { ResponseCode::NXDomain } else { ResponseCode::NoError });
        message.add_authority(soa("example.com.", 30));
        message
    });
    let world = World::asking(&[upstream.addr]);
    for (kind, rcode) in [(RecordType::A, ResponseCode::NXDomain), (RecordType::AAAA, ResponseCode::NoError)]
    {
        for _ in 0..3 {
            let told = world.ask_with(&query("no.example.com.", kind)).await;
            assert_eq!((told.metadata.response_code, told.answers.len()), (rcode, 0));
            assert_eq!(told.authorities[0].record_type(), RecordType::SOA);
        }
    }
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn what_does_not_fit_is_asked_over_tcp_and_cut_for_clients_over_udp() {
    let upstream = Upstream::start().await;
    upstream.says(|query, over| {
        let mut message = answer(query);
        if over == Over::Udp {
            message.metadata.truncation = true;
        } else {
            message.add_answers((0..200).map(|last| a(query.queries[0].name(), 60, last)));
        }
        vec![now(&message)]
    });
    let world = World::asking(&[upstream.addr]);
    let told = world.ask("big.example.com.").await;
    assert!(told.metadata.truncation && (1..200).contains(&told.answers.len()));
    let overs: Vec<_> = upstream.got().iter().map(|got| got.over).collect();
    assert_eq!(overs, [Over::Udp, Over::Tcp]);
    let mut stream = world.connect().await;
    send_framed(&mut stream, &query("big.example.com.", RecordType::A)).await;
    let told = receive_framed(&mut stream).await;
    assert_eq!((told.answers.len(), told.metadata.truncation, upstream.count()), (200, false, 2));
}

#[tokio::test]
async fn over_tcp_an_answer_that_is_waited_for_holds_up_no_other() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| vec![Sent { after: Duration::from_millis(150), ..now(&address(query, 1)) }]);
    let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
    let mut stream = world.connect().await;
    let (slow, quick) = (query("www.example.com.", RecordType::A), query("localhost.", RecordType::A));
    send_framed(&mut stream, &slow).await;
    send_framed(&mut stream, &quick).await;
    assert_eq!(receive_framed(&mut stream).await.metadata.id, quick.metadata.id);
    let told = receive_framed(&mut stream).await;
    assert_eq!((told.metadata.id, addresses(&told)), (slow.metadata.id, vec![1]));
}

#[tokio::test]
async fn over_tcp_an_answer_that_is_waited_for_comes_although_its_client_ends_in_the_middle_of_a_query() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| vec![Sent { after: Duration::from_millis(150), ..now(&address(query, 1)) }]);
    let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
    for (index, behind) in [&[0, 0][..], &[0], &[0, 40, 1, 2, 3]].into_iter().enumerate() {
        let mut stream = world.connect().await;
        let query = query(&format!("{index}.example.com."), RecordType::A);
        send_framed(&mut stream, &query).await;
        stream.write_all(behind).await.unwrap();
        stream.shutdown().await.unwrap();
        let told = receive_framed(&mut stream).await;
        assert_eq!((told.metadata.id, addresses(&told)), (query.metadata.id, vec![1]), "{behind:?}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed");
    }
}

#[tokio::test]
async fn a_connection_may_ask_more_than_may_wait_and_gets_every_answer() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| vec![Sent { after: Duration::from_secs(1), ..now(&address(query, 1)) }]);
    let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
    let mut stream = world.connect().await;
    let asked: Vec<_> =
        (0..600).map(|index| query(&format!("{index}.example.com."), RecordType::A)).collect();
    for query in &asked {
        send_framed(&mut stream, query).await;
    }
    until("as many wait as may", async || world.metric("rollcall_dns_forward_waiting") >= 250).await;
    let mut names = Vec::new();
    for _ in &asked {
        assert!(world.metric("rollcall_dns_forward_waiting") <= 256);
        let told = receive_framed(&mut stream).await;
        assert_eq!(addresses(&told), [1]);
        names.push(told.queries[0].name().to_string());
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 600, "each once");
}

#[tokio::test]
async fn rfc5452_5_who_asks_the_same_at_a_time_shares_one_question() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| vec![Sent { after: Duration::from_millis(150), ..now(&address(query, 1)) }]);
    let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
    let asking = (0..50).map(|index| {
        let world = &world;
        async move { world.ask(if index % 2 == 0 { "www.example.com." } else { "WWW.example.com." }).await }
    });
    for told in futures_util::future::join_all(asking).await {
        assert_eq!(addresses(&told), [1]);
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn what_clients_want_of_dnssec_is_passed_on_and_kept_apart() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let mut message = address(query, 1);
        message.metadata.authentic_data = true;
        message
    });
    let world = World::asking(&[upstream.addr]);
    let plain = query("www.example.com.", RecordType::A);
    assert!(!world.ask_with(&plain).await.metadata.authentic_data, "it did not ask for it");
    let mut with_ad = plain.clone();
    with_ad.metadata.authentic_data = true;
    assert!(world.ask_with(&with_ad).await.metadata.authentic_data);
    let mut signed = plain.clone();
    signed.edns.as_mut().unwrap().set_dnssec_ok(true);
    assert!(world.ask_with(&signed).await.metadata.authentic_data);
    let mut unchecked = plain;
    unchecked.metadata.checking_disabled = true;
    assert!(world.ask_with(&unchecked).await.metadata.checking_disabled);
    let got: Vec<_> = upstream.got().into_iter().map(|got| got.message).collect();
    let bits = |message: &Message| {
        (message.edns.as_ref().unwrap().flags().dnssec_ok, message.metadata.checking_disabled)
    };
    assert_eq!(got.iter().map(bits).collect::<Vec<_>>(), [(false, false), (true, false), (false, true)]);
}
