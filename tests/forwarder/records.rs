//! What becomes of the records of an answer before they are passed on.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

use crate::upstream::{Sent, Upstream, a, answer, code, now, soa};
use crate::world::{World, addresses, query};

#[tokio::test]
async fn rfc2308_5_the_soa_of_a_negative_answer_has_the_lesser_of_its_ttl_and_its_minimum() {
    for (ttl, minimum) in [(3600, 30), (30, 3600)] {
        let upstream = Upstream::start().await;
        upstream.answers(move |query| {
            let mut message = code(query, ResponseCode::NXDomain);
            let mut record = soa("example.com.", minimum);
            record.ttl = ttl;
            message.add_authority(record);
            message
        });
        let world = World::asking(&[upstream.addr]);
        // From the upstream, from the cache, and as it was encoded.
        for _ in 0..3 {
            let told = world.ask("no.example.com.").await;
            assert!((10..=30).contains(&told.authorities[0].ttl), "{}", told.authorities[0]);
        }
        assert_eq!(upstream.count(), 1);
    }
}

#[tokio::test]
async fn rfc2181_5_2_records_of_a_set_have_the_least_of_their_ttls_and_5_each_is_told_once() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| {
        let (mut message, name) = (answer(query), query.queries[0].name());
        message.add_answers([a(name, 300, 1), a(name, 60, 2), a(name, 300, 1), a(name, 3600, 3)]);
        message
    });
    let world = World::asking(&[upstream.addr]);
    for _ in 0..3 {
        let told = world.ask("www.example.com.").await;
        let mut last = addresses(&told);
        last.sort_unstable();
        assert_eq!(last, [1, 2, 3]);
        let ttls: Vec<_> = told.answers.iter().map(|record| record.ttl).collect();
        assert!((40..=60).contains(&ttls[0]) && ttls.iter().all(|ttl| *ttl == ttls[0]), "{ttls:?}");
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn rfc3597_4_names_in_data_of_old_types_are_written_out() {
    const QUESTION: &[u8] = b"\x03www\x07example\x03com\0";
    // A pointer to the question, one to its second label, and a name without one.
    let (whole, end, plain) = (&[0xc0, 12][..], &b"\x05admin\xc0\x10"[..], &b"\x01x\0"[..]);
    let end_written = b"\x05admin\x07example\x03com\0";
    let cases: [(u16, Vec<u8>, Vec<u8>); 10] = [
        (3, whole.to_vec(), QUESTION.to_vec()),
        (4, plain.to_vec(), plain.to_vec()),
        (7, end.to_vec(), end_written.to_vec()),
        (8, whole.to_vec(), QUESTION.to_vec()),
        (9, whole.to_vec(), QUESTION.to_vec()),
        (14, [end, plain].concat(), [&end_written[..], plain].concat()),
        (17, [end, whole].concat(), [&end_written[..], QUESTION].concat()),
        (18, [&[0, 1], end].concat(), [&[0, 1], &end_written[..]].concat()),
        (21, [&[0, 1], plain].concat(), [&[0, 1], plain].concat()),
        (26, [&[0, 1], whole, end].concat(), [&[0, 1], QUESTION, end_written].concat()),
    ];
    for (kind, sent, expected) in cases {
        let upstream = Upstream::start().await;
        upstream.says(move |query, _| vec![with_data(query, kind, &sent)]);
        let world = World::asking(&[upstream.addr]);
        for _ in 0..3 {
            let told = world.ask_with(&query("www.example.com.", RecordType::from(kind))).await;
            let RData::Unknown { code, rdata } = &told.answers[0].data else { panic!("{told}") };
            assert_eq!((u16::from(*code), &rdata.anything), (kind, &expected));
        }
        assert_eq!(upstream.count(), 1);
    }
}

#[tokio::test]
async fn rfc3597_4_what_cannot_be_written_out_is_no_answer() {
    // A pointer to itself, one beyond the end, a name too few, octets too many.
    for (kind, sent) in
        [(7, &[0xc0, 45][..]), (7, &[0xc1, 0]), (17, &[0xc0, 12]), (18, &[0, 1, 0xc0, 12, 9]), (26, &[0])]
    {
        let upstream = Upstream::start().await;
        upstream.says(move |query, _| vec![with_data(query, kind, sent)]);
        let world = World::asking(&[upstream.addr]);
        let told = world.ask_with(&query("www.example.com.", RecordType::from(kind))).await;
        assert_eq!(told.metadata.response_code, ResponseCode::ServFail, "{kind} {sent:?}");
    }
}

/// An answer with one record of the question's name, with these data.
fn with_data(query: &Message, kind: u16, data: &[u8]) -> Sent {
    let mut sent = now(&answer(query));
    sent.packet[7] = 1;
    sent.packet.extend([0xc0, 12]);
    sent.packet.extend([kind, 1, 0, 60].map(u16::to_be_bytes).concat());
    sent.packet.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    sent.packet.extend(data);
    sent
}
