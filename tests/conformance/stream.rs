//! DNS over TCP: RFC 7766.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use rollcall::clock;
use rollcall::dns::tcp::TcpSettings;

use crate::client::{frame, receive_framed};
use crate::query::{A, Query, SRV};
use crate::registry::Registry;
use crate::world::{Ways, World};

const WEB: &str = "web.shop.rollcall.internal";

#[test]
fn rfc7766_6_2_1_queries_may_follow_one_another_without_waiting() {
    let world = World::start(Registry::many(100));
    let names = [WEB, "many.shop.rollcall.internal", "nope.shop.rollcall.internal", "example.com"];
    let queries: Vec<_> =
        (0..400_u16).map(|id| Query { id, ..Query::of(names[usize::from(id) % 4], A) }).collect();
    let octets: Vec<u8> = queries.iter().flat_map(|query| frame(&query.to_octets())).collect();
    let mut stream = world.connect();
    let mut writer = stream.try_clone().expect("a handle can be had");
    let sender = thread::spawn(move || writer.write_all(&octets).expect("it is taken"));
    let mut open: BTreeSet<u16> = (0..400).collect();
    for _ in 0..400 {
        let reply = receive_framed(&mut stream).expect("a reply");
        assert!(open.remove(&reply.id), "each is answered once: {}", reply.id);
        let expected = [(0, 2), (0, 100), (3, 0), (5, 0)][usize::from(reply.id) % 4];
        assert_eq!((reply.rcode(), reply.answers.len()), expected);
    }
    sender.join().expect("all was sent");
}

#[test]
fn rfc7766_6_2_1_a_connection_is_used_again() {
    let world = World::shop();
    let mut stream = world.connect();
    for _ in 0..50 {
        let query = Query::of(WEB, SRV);
        stream.write_all(&frame(&query.to_octets())).expect("it is taken");
        let reply = receive_framed(&mut stream).expect("a reply");
        assert_eq!((reply.id, reply.answers.len()), (query.id, 3));
    }
}

#[test]
fn rfc7766_6_2_1_1_who_has_to_wait_holds_up_nobody_and_is_answered_last() {
    let view = Registry::shop().name_alone("shop", "away").into_view();
    let world = World::start_with(view, Ways { has_demand: true, ..Ways::default() });
    let names = ["away.shop.rollcall.internal", WEB, "away.rollcall.internal", "nope.rollcall.internal"];
    let queries: Vec<_> = (1..).zip(names).map(|(id, name)| Query { id, ..Query::of(name, A) }).collect();
    let octets: Vec<u8> = queries.iter().flat_map(|query| frame(&query.to_octets())).collect();
    let mut stream = world.connect();
    stream.write_all(&octets).expect("it is taken");
    let ids = [(); 4].map(|()| receive_framed(&mut stream).expect("a reply").id);
    assert_eq!(ids[..2], [2, 4], "in the order in which they were asked");
    assert_eq!(ids[2..].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&1, &3]));
}

#[test]
fn rfc7766_6_2_3_a_silent_connection_is_closed() {
    let tcp = TcpSettings { idle_timeout: Duration::from_millis(100), ..TcpSettings::default() };
    let world = World::start_with(Registry::shop().into_view(), Ways { tcp, ..Ways::default() });
    let (mut fresh, mut used) = (world.connect(), world.connect());
    used.write_all(&frame(&Query::of(WEB, A).to_octets())).expect("it is taken");
    assert!(receive_framed(&mut used).is_some());
    for stream in [&mut fresh, &mut used] {
        assert!(receive_framed(stream).is_none(), "closed");
    }
}

#[test]
fn rfc7766_6_2_3_who_is_half_way_through_a_query_is_not_waited_for_for_ever() {
    let tcp = TcpSettings { message_timeout: Duration::from_millis(100), ..TcpSettings::default() };
    let world = World::start_with(Registry::shop().into_view(), Ways { tcp, ..Ways::default() });
    let whole = frame(&Query::of(WEB, A).to_octets());
    for sent in [1, 2, 3, whole.len() - 1] {
        let mut stream = world.connect();
        stream.write_all(&whole[..sent]).expect("it is taken");
        assert!(receive_framed(&mut stream).is_none(), "{sent} octets");
    }
}

#[test]
fn rfc7766_8_the_length_and_its_message_may_come_in_any_pieces() {
    let world = World::shop();
    let query = Query::of(WEB, A);
    let whole = frame(&query.to_octets());
    for piece in [1, 2, 3, 7, 20, whole.len()] {
        let mut stream = world.connect();
        for part in whole.chunks(piece) {
            stream.write_all(part).expect("it is taken");
            // So that each is a segment of its own and read by itself, as far as a scheduler can be asked for that.
            thread::yield_now();
        }
        let reply = receive_framed(&mut stream).expect("a reply");
        assert_eq!((reply.id, reply.answers.len()), (query.id, 2), "in pieces of {piece}");
    }
    // The end of one message and the beginning of the next in one segment.
    let mut stream = world.connect();
    let two = [whole.clone(), whole].concat();
    for part in [&two[..30], &two[30..70], &two[70..]] {
        stream.write_all(part).expect("it is taken");
        thread::yield_now();
    }
    assert!(receive_framed(&mut stream).is_some() && receive_framed(&mut stream).is_some());
}

#[test]
fn rfc7766_8_a_reply_and_its_length_are_written_together() {
    // One read of a reply that is alone must find all of it, unless the system's buffers split it, which they do not with 100 octets.
    let world = World::shop();
    let mut stream = world.connect();
    for _ in 0..20 {
        stream.write_all(&frame(&Query::of(WEB, A).to_octets())).expect("it is taken");
        let mut octets = [0; 1000];
        let count = stream.read(&mut octets).expect("a reply");
        assert_eq!(count, 2 + usize::from(u16::from_be_bytes([octets[0], octets[1]])));
    }
}

#[test]
fn a_message_that_is_none_ends_its_connection_and_no_other() {
    // No octets at all, too few for a header, and a response. RFC 1035 section 4.2.2 says nothing of them; that the stream is in step
    // with its messages is not to be believed then.
    let world = World::shop();
    let mut other = world.connect();
    let response = Query::of(WEB, A).flags(crate::query::QR).to_octets();
    for message in [&[][..], &[7], &[0; 11], &response] {
        let mut stream = world.connect();
        let queries = [frame(&Query { id: 1, ..Query::of(WEB, A) }.to_octets()), frame(message)].concat();
        stream.write_all(&queries).expect("it is taken");
        assert_eq!(
            receive_framed(&mut stream).map(|reply| reply.id),
            Some(1),
            "what came before is answered"
        );
        assert!(receive_framed(&mut stream).is_none(), "{message:?}");
    }
    other.write_all(&frame(&Query::of(WEB, A).to_octets())).expect("it is taken");
    assert!(receive_framed(&mut other).is_some());
}

#[test]
fn rfc1035_4_2_2_malformed_queries_are_answered_and_the_connection_goes_on() {
    let world = World::shop();
    let mut stream = world.connect();
    let mut cut = Query::of(WEB, A).to_octets();
    cut.truncate(20);
    for message in [cut, Query::of(WEB, A).flags(2 << 11).to_octets(), Query::empty().to_octets()] {
        stream.write_all(&frame(&message)).expect("it is taken");
        assert_ne!(receive_framed(&mut stream).expect("a reply").rcode(), 0);
    }
    stream.write_all(&frame(&Query::of(WEB, A).to_octets())).expect("it is taken");
    assert_eq!(receive_framed(&mut stream).expect("a reply").answers.len(), 2);
}

/// No query has as much to say as a message may hold: what is longer than 4 KiB costs no memory, and ends its connection.
#[test]
fn rfc1035_4_2_2_a_query_may_be_long_and_is_refused_when_it_is_longer_than_any() {
    let world = World::shop();
    for (length, is_taken) in [(4_096, true), (4_097, false), (65_535, false)] {
        let mut stream = world.connect();
        let query = Query::of(WEB, A);
        let mut octets = query.to_octets();
        octets.resize(length, 0);
        // The connection may end before all of it is there.
        let _sent = stream.write_all(&frame(&octets));
        let reply = receive_framed(&mut stream).expect("a reply");
        assert_eq!((reply.id, reply.answers.len()), (query.id, if is_taken { 2 } else { 0 }), "{length}");
        if !is_taken {
            assert_eq!(reply.rcode(), 1, "FORMERR");
            assert!(receive_framed(&mut stream).is_none(), "where the next one begins is not known");
        }
    }
}

#[test]
fn rfc7766_6_2_2_many_connections_are_served_at_once_and_more_take_the_place_of_silent_ones() {
    let places = 100;
    let tcp = TcpSettings { connections_max: places, ..TcpSettings::default() };
    let world = World::start_with(Registry::shop().into_view(), Ways { tcp, ..Ways::default() });
    let begin = clock::now();
    let mut streams: Vec<TcpStream> = (0..2 * places)
        .map(|_| {
            let mut stream = world.connect();
            let query = Query::of(WEB, A);
            stream.write_all(&frame(&query.to_octets())).expect("it is taken");
            assert_eq!(receive_framed(&mut stream).expect("a reply").id, query.id);
            stream
        })
        .collect();
    assert!(
        begin.elapsed() < TcpSettings::default().idle_timeout,
        "nobody waited until another was idle for too long"
    );
    let last = streams.last_mut().expect("some");
    last.write_all(&frame(&Query::of(WEB, A).to_octets())).expect("it is taken");
    assert!(receive_framed(last).is_some(), "who came last has its place");
    assert!(receive_framed(&mut streams[0]).is_none(), "who was silent for longest made room");
    assert!(begin.elapsed() < TcpSettings::default().idle_timeout, "at once");
}

#[test]
fn rfc7766_6_2_4_who_sends_no_more_still_gets_its_replies() {
    let world = World::start(Registry::many(1000));
    let mut stream = world.connect();
    let octets: Vec<u8> =
        (0..20).flat_map(|_| frame(&Query::of("many.shop.rollcall.internal", A).to_octets())).collect();
    stream.write_all(&octets).expect("it is taken");
    stream.shutdown(Shutdown::Write).expect("one side can be closed");
    for _ in 0..20 {
        assert_eq!(receive_framed(&mut stream).expect("a reply").answers.len(), 1000);
    }
    assert!(receive_framed(&mut stream).is_none());
}

#[test]
fn rfc7766_6_2_4_whoever_waits_for_replies_gets_them_however_its_queries_end() {
    let view = || Registry::shop().name_alone("shop", "away").into_view();
    let tcp = TcpSettings { message_timeout: Duration::from_millis(100), ..TcpSettings::default() };
    let whole = frame(&Query::of(WEB, A).to_octets());
    let response = frame(&Query::of(WEB, A).flags(crate::query::QR).to_octets());
    // Sent behind queries of which one has to wait: nothing, half of another, what is none; and whether the client closes its side.
    for (behind, is_closed, tcp) in [
        (&b""[..], true, TcpSettings::default()),
        (&whole[..1], true, TcpSettings::default()),
        (&whole[..whole.len() / 2], true, TcpSettings::default()),
        (&whole[..whole.len() / 2], false, tcp),
        (&[0, 0][..], false, TcpSettings::default()),
        (&[0, 0][..], true, TcpSettings::default()),
        (&response[..], false, TcpSettings::default()),
    ] {
        let world = World::start_with(view(), Ways { has_demand: true, tcp, ..Ways::default() });
        let mut stream = world.connect();
        let queries = (1..).zip(["away.shop.rollcall.internal", WEB, "away.rollcall.internal"]);
        let queries = queries.map(|(id, name)| frame(&Query { id, ..Query::of(name, A) }.to_octets()));
        let octets: Vec<u8> = queries.flatten().chain(behind.iter().copied()).collect();
        stream.write_all(&octets).expect("it is taken");
        if is_closed {
            stream.shutdown(Shutdown::Write).expect("one side can be closed");
        }
        let ids = [(); 3].map(|()| receive_framed(&mut stream).expect("a reply").id);
        assert_eq!(ids[0], 2, "{behind:?}");
        assert_eq!(ids[1..].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&1, &3]), "{behind:?}");
        assert!(receive_framed(&mut stream).is_none(), "{behind:?}");
    }
}

#[test]
fn a_client_that_takes_no_replies_is_given_up() {
    let tcp = TcpSettings { message_timeout: Duration::from_millis(200), ..TcpSettings::default() };
    let world = World::start_with(Registry::many(3000).into_view(), Ways { tcp, ..Ways::default() });
    let mut stream = world.connect();
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    let query = frame(&Query::of("many.shop.rollcall.internal", A).to_octets());
    // Each reply has 48 KB. At some time nothing more is taken, and then the connection ends.
    let end = (0..1_000_000).find_map(|_| stream.write_all(&query).err()).expect("it is bounded");
    assert!(matches!(end.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{end}");
}
