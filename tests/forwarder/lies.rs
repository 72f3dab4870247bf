//! What is no answer to what was asked is not believed, and does not keep the answer away.

use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use crate::upstream::{Over, Sent, Upstream, a, address, answer, in_lower_case, now, soa};
use crate::world::{World, addresses, listed};

/// A little later than the lie.
const LATER: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_lie_is_passed_over_and_the_truth_is_waited_for() {
    let lies: [fn(&mut Message); 4] = [
        |message| message.metadata.id ^= 0x0101,
        |message| message.queries[0] = Query::query("www.example.net.".parse().unwrap(), RecordType::A),
        |message| {
            let name = message.queries[0].name().clone();
            message.queries[0] = Query::query(name, RecordType::AAAA);
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
async fn an_answer_from_another_port_is_none() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| {
        let elsewhere = Sent { is_from_elsewhere: true, ..now(&address(query, 66)) };
        vec![elsewhere, Sent { after: LATER, ..now(&address(query, 1)) }]
    });
    let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "");
    assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
}

#[tokio::test]
async fn an_answer_in_other_letters_is_checked_over_tcp() {
    let upstream = Upstream::start().await;
    upstream.says(|query, over| match over {
        Over::Udp => vec![now(&in_lower_case(address(query, 66)))],
        Over::Tcp | Over::Tls => vec![now(&address(query, 1))],
    });
    let world = World::asking(&[upstream.addr]);
    assert_eq!(addresses(&world.ask("www.example.com.").await), [1]);
}

#[tokio::test]
async fn an_upstream_that_never_repeats_letters_is_found_out_and_used() {
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
async fn letters_are_left_alone_when_settings_say_so() {
    let upstream = Upstream::start().await;
    upstream.says(|query, _| vec![now(&in_lower_case(address(query, 1)))]);
    let world = World::start(&format!("{{{}, randomize_case: false}}", listed(&[upstream.addr])), "");
    assert_eq!(addresses(&world.ask("WWW.Example.com.").await), [1]);
    assert_eq!((upstream.count(), upstream.got()[0].over), (1, Over::Udp));
}

#[tokio::test]
async fn a_flood_of_lies_has_the_question_asked_over_tcp() {
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
async fn nothing_is_believed_but_what_was_asked_for() {
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
async fn a_negative_answer_from_elsewhere_is_not_kept() {
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
