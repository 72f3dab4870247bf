//! Election ports among themselves, and with sockets that behave as Apache ZooKeeper's members do, or do not.

mod apache;

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::clock;
use crate::codec::WriteJute;
use crate::ensemble::dial::Patience;
use crate::ensemble::members::{HostPort, MemberAddress, MemberRole};
use crate::id::{Epoch, Zxid};
use crate::zab::{ServerState, Vote};

#[tokio::test]
async fn two_members_exchange_votes_whichever_starts_first() {
    for [first, second] in [[1, 2], [2, 1]] {
        let addrs = Addrs::reserve([1, 2]).await;
        let mut early = TestMember::start(first, &addrs).await;
        // It has found nobody by now, or is about to.
        tokio::time::sleep(Duration::from_millis(120)).await;
        let started = clock::now();
        let mut late = TestMember::start(second, &addrs).await;
        early.expect_reachable(second).await;
        late.expect_reachable(first).await;
        let took = started.elapsed();
        assert!(took < Duration::from_millis(500), "{first} before {second} took {took:?}");
        early.port.send(server(second), message(7));
        late.port.send(server(first), message(8));
        assert_eq!(late.expect_message(first).await, message(7));
        assert_eq!(early.expect_message(second).await, message(8));
    }
}

#[tokio::test]
async fn three_members_reach_one_another() {
    let addrs = Addrs::reserve([1, 2, 3]).await;
    let mut members = Vec::new();
    for id in [2, 3, 1] {
        members.push((id, TestMember::start(id, &addrs).await));
    }
    for (id, member) in &mut members {
        let others: Vec<u8> = [1, 2, 3].into_iter().filter(|other| other != id).collect();
        member.expect_all_reachable(&others).await;
        others.iter().for_each(|other| member.port.send(server(*other), message(u64::from(*id))));
    }
    for (id, member) in &mut members {
        let mut heard = vec![member.next_message().await, member.next_message().await];
        heard.sort_by_key(|(from, _)| *from);
        let expected = [1, 2, 3].into_iter().filter(|other| other != id);
        let expected: Vec<_> = expected.map(|other| (server(other), message(u64::from(other)))).collect();
        assert_eq!(heard, expected, "member {id}");
    }
}

#[tokio::test]
async fn a_member_that_is_killed_is_missed_and_found_again_at_once() {
    for (stays, killed) in [(1, 2), (2, 1)] {
        let addrs = Addrs::reserve([1, 2]).await;
        let mut member = TestMember::start(stays, &addrs).await;
        for round in 0..3 {
            let mut other = TestMember::start(killed, &addrs).await;
            let started = clock::now();
            member.expect_reachable(killed).await;
            other.expect_reachable(stays).await;
            let took = started.elapsed();
            assert!(took < Duration::from_millis(500), "found {killed} after {took:?}");
            member.port.send(server(killed), message(round));
            assert_eq!(other.expect_message(stays).await, message(round));
            drop(other);
            assert_eq!(member.next_reachable().await, (server(killed), false));
        }
    }
}

#[tokio::test]
async fn a_greater_id_connects_and_its_newer_connection_replaces_the_older() {
    let addrs = Addrs::reserve([5, 9]).await;
    let mut member = TestMember::start(5, &addrs).await;
    let mut first = addrs.connect(5).await;
    first.write_all(&hello::encode(server(9), "apache:3888")).await.unwrap();
    member.expect_reachable(9).await;
    member.port.send(server(9), message(1));
    assert_eq!(read_message(&mut first).await, message(1));

    // As members before 3.5 say it.
    let mut second = addrs.connect(5).await;
    second.write_all(&9_i64.to_be_bytes()).await.unwrap();
    member.expect_reachable(9).await;
    assert_ended(&mut first).await;
    write_message(&mut second, &message(2)).await;
    assert_eq!(member.expect_message(9).await, message(2));
    member.port.send(server(9), message(3));
    assert_eq!(read_message(&mut second).await, message(3));
    drop(second);
    assert_eq!(member.next_reachable().await, (server(9), false));
}

#[tokio::test]
async fn a_smaller_id_that_connects_is_called_back_where_it_is_configured() {
    let addrs = Addrs::reserve([2, 5]).await;
    let listener = addrs.listen(2).await;
    let mut member = TestMember::start(5, &addrs).await;
    let (mut first, _) = accept(&listener).await;
    assert_eq!(hello::read(&mut first).await.unwrap(), server(5));
    member.expect_reachable(2).await;
    // So that the wish does not cross the call.
    tokio::time::sleep(Duration::from_millis(250)).await;

    let mut wish = addrs.connect(5).await;
    wish.write_all(&hello::encode(server(2), "elsewhere:1")).await.unwrap();
    assert_ended(&mut wish).await;
    let (mut second, _) = accept(&listener).await;
    assert_eq!(hello::read(&mut second).await.unwrap(), server(5));
    // It took the place of the other connection; nothing was lost in between.
    member.expect_reachable(2).await;
    assert_ended(&mut first).await;
    write_message(&mut second, &message(4)).await;
    assert_eq!(member.expect_message(2).await, message(4));
}

#[tokio::test]
async fn a_member_asks_one_with_a_greater_id_to_connect() {
    let addrs = Addrs::reserve([5, 9]).await;
    let listener = addrs.listen(9).await;
    let mut member = TestMember::start(5, &addrs).await;
    for _ in 0..2 {
        let (mut wish, _) = accept(&listener).await;
        assert_eq!(hello::read(&mut wish).await.unwrap(), server(5));
        assert_ended(&mut wish).await;
    }
    let mut call = addrs.connect(5).await;
    call.write_all(&hello::encode(server(9), "apache:3888")).await.unwrap();
    member.expect_reachable(9).await;
    write_message(&mut call, &message(1)).await;
    assert_eq!(member.expect_message(9).await, message(1));
}

#[tokio::test]
async fn strangers_and_garbage_are_closed_and_disturb_nobody() {
    let addrs = Addrs::reserve([1, 2]).await;
    let mut one = TestMember::start(1, &addrs).await;
    let mut two = TestMember::start(2, &addrs).await;
    one.expect_reachable(2).await;
    two.expect_reachable(1).await;
    let hello_of = |sid: i64, length: i32| {
        let mut hello = Vec::new();
        hello.put_long(-65536);
        hello.put_long(sid);
        hello.put_int(length);
        hello.extend_from_slice(b"127.0.0.1:3888");
        hello
    };
    let garbage = [
        // Itself, members that there are not, observers without an id.
        hello_of(2, 14),
        hello_of(3, 14),
        hello_of(i64::MAX, 14),
        hello_of(-1, 14),
        hello_of(1, 0),
        hello_of(1, -1),
        hello_of(1, i32::MAX),
        vec![0xff; 64],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ];
    for (round, bytes) in (0..).zip(&garbage) {
        let mut stranger = addrs.connect(2).await;
        stranger.write_all(bytes).await.unwrap();
        stranger.shutdown().await.unwrap();
        assert_ended(&mut stranger).await;
        one.port.send(server(2), message(round));
        assert_eq!(two.expect_message(1).await, message(round), "after {bytes:?}");
    }
    assert!(one.events.try_recv().is_err() && two.events.try_recv().is_err(), "nobody was lost");
}

#[tokio::test]
async fn what_is_no_vote_is_ignored_but_a_bad_length_ends_the_connection() {
    let addrs = Addrs::reserve([5, 9]).await;
    let mut member = TestMember::start(5, &addrs).await;
    for bad_frame in
        [&[0; 4][..], &[0xff; 4], &(512 * 1024 + 1_i32).to_be_bytes(), b"\x5f\x24\x35\x01\x35\x01\xed\xcc"]
    {
        let mut peer = addrs.connect(5).await;
        peer.write_all(&hello::encode(server(9), "apache:3888")).await.unwrap();
        member.expect_reachable(9).await;
        let mut long_config = vec![0; 36];
        long_config.put_int(2);
        long_config.put_int(i32::MAX);
        for malformed in [&b"x"[..], &[0xff; 28], &long_config] {
            let mut frame = Vec::new();
            frame.put_buffer(Some(malformed));
            peer.write_all(&frame).await.unwrap();
        }
        write_message(&mut peer, &message(1)).await;
        assert_eq!(member.expect_message(9).await, message(1), "the malformed ones are passed over");
        peer.write_all(bad_frame).await.unwrap();
        assert_eq!(member.next_reachable().await, (server(9), false), "{bad_frame:?}");
        assert_ended(&mut peer).await;
    }
}

#[tokio::test]
async fn those_who_say_nothing_hold_up_nobody() {
    let addrs = Addrs::reserve([1, 2]).await;
    let mut one = TestMember::start(1, &addrs).await;
    let mut silent = Vec::new();
    for count in 0..200 {
        let mut socket = addrs.connect(1).await;
        socket.write_all(&hello::encode(server(2), "127.0.0.1:1")[..count % 30]).await.unwrap();
        silent.push(socket);
    }
    let started = clock::now();
    let mut two = TestMember::start(2, &addrs).await;
    one.expect_reachable(2).await;
    two.expect_reachable(1).await;
    assert!(started.elapsed() < Duration::from_millis(500), "it took {:?}", started.elapsed());
    // The oldest had to make room.
    assert_ended(&mut silent[0]).await;
}

#[tokio::test]
async fn a_call_is_taken_while_a_dial_hangs() {
    let addrs = Addrs::reserve([5, 9]).await;
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.set_reuse_address(true).unwrap();
    silent.bind(&addrs.0[&9].into()).unwrap();
    silent.listen(0).unwrap();
    // Once its backlog is full, it does not even refuse.
    let mut backlog = Vec::new();
    while let Ok(socket) =
        tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(addrs.0[&9])).await
    {
        backlog.push(socket.unwrap());
    }
    let mut member = TestMember::start(5, &addrs).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = clock::now();
    let mut peer = addrs.connect(5).await;
    peer.write_all(&hello::encode(server(9), "apache:3888")).await.unwrap();
    member.expect_reachable(9).await;
    assert!(started.elapsed() < Duration::from_millis(500), "it took {:?}", started.elapsed());
}

#[tokio::test]
async fn only_the_newest_message_waits_for_a_member_that_is_slow_to_read() {
    let addrs = Addrs::reserve([5, 9]).await;
    let mut member = TestMember::start(5, &addrs).await;
    let mut peer = addrs.connect(5).await;
    peer.write_all(&hello::encode(server(9), "apache:3888")).await.unwrap();
    member.expect_reachable(9).await;
    let long = Notification { config: Bytes::from(vec![b'#'; 400_000]), ..message(0) };
    for round in 1..=200 {
        member.port.send(server(9), Notification { round, ..long.clone() });
        tokio::task::yield_now().await;
    }
    let mut rounds = Vec::new();
    while rounds.last() != Some(&200) {
        rounds.push(read_message(&mut peer).await.round);
    }
    assert!(rounds.len() < 200 && rounds.is_sorted(), "{rounds:?}");
}

/// Where members listen: on an address of loopback that no other process uses, so that a member gets its port back.
struct Addrs(BTreeMap<u8, SocketAddr>);

struct TestMember {
    port: ElectionPort,
    events: mpsc::Receiver<PeerEvent>,
    _serving: AbortOnDropHandle<()>,
}

impl Addrs {
    async fn reserve(ids: impl IntoIterator<Item = u8>) -> Self {
        let mut addrs = BTreeMap::new();
        let mut listeners = Vec::new();
        let [.., high, low] = std::process::id().to_be_bytes();
        for id in ids {
            let listener = TcpListener::bind((Ipv4Addr::new(127, 38, high, low), 0)).await.unwrap();
            addrs.insert(id, listener.local_addr().unwrap());
            listeners.push(listener);
        }
        Self(addrs)
    }

    async fn listen(&self, id: u8) -> TcpListener {
        TcpListener::bind(self.0[&id]).await.unwrap()
    }

    async fn connect(&self, id: u8) -> TcpStream {
        TcpStream::connect(self.0[&id]).await.unwrap()
    }
}

impl TestMember {
    async fn start(id: u8, addrs: &Addrs) -> Self {
        let at = |addr: &SocketAddr, port| HostPort { host: addr.ip().to_string(), port };
        let member = |addr: &SocketAddr| MemberAddress {
            quorum: at(addr, 1),
            election: at(addr, addr.port()),
            client: None,
            role: MemberRole::Voter,
        };
        let members = addrs.0.iter().map(|(id, addr)| {
            // Never dialled, but each at a place of its own.
            let quorum = HostPort { port: u16::from(*id), ..member(addr).quorum };
            (server(*id), MemberAddress { quorum, ..member(addr) })
        });
        let timeout = Duration::from_secs(5);
        let settings = ElectionSettings {
            server_id: server(id),
            members: Arc::new(Members::new(members.collect()).unwrap()),
            transport: Transport { timeout, patience: Patience::Limited(timeout), tls: None },
            tasks: TaskTracker::new(),
        };
        let (sender, events) = mpsc::channel(64);
        let (port, serving) = ElectionPort::new(settings, addrs.listen(id).await, &sender);
        Self { port, events, _serving: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    async fn next(&mut self) -> PeerEvent {
        let next = tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await;
        next.expect("an event in time").expect("a port that runs")
    }

    async fn next_reachable(&mut self) -> (ServerId, bool) {
        let event = self.next().await;
        let PeerEvent::Reachable(peer, is_reachable) = event else { panic!("{event:?}") };
        (peer, is_reachable)
    }

    async fn next_message(&mut self) -> (ServerId, Notification) {
        let event = self.next().await;
        let PeerEvent::Notification(peer, message) = event else { panic!("{event:?}") };
        (peer, message)
    }

    async fn expect_reachable(&mut self, peer: u8) {
        assert_eq!(self.next_reachable().await, (server(peer), true));
    }

    async fn expect_all_reachable(&mut self, peers: &[u8]) {
        let mut seen = Vec::new();
        for _ in peers {
            seen.push(self.next_reachable().await);
        }
        seen.sort();
        let expected: Vec<_> = peers.iter().map(|peer| (server(*peer), true)).collect();
        assert_eq!(seen, expected);
    }

    async fn expect_message(&mut self, peer: u8) -> Notification {
        let (from, message) = self.next_message().await;
        assert_eq!(from, server(peer));
        message
    }
}

fn server(id: u8) -> ServerId {
    ServerId::new(id).unwrap()
}

fn message(round: u64) -> Notification {
    let vote = Vote { epoch: Epoch(1), zxid: Zxid::new(Epoch(1), 9), leader: server(1) };
    Notification {
        state: ServerState::Looking,
        round,
        vote: Some(vote),
        config: Bytes::from_static(b"version=0"),
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    tokio::time::timeout(Duration::from_secs(10), listener.accept()).await.expect("a call in time").unwrap()
}

async fn read_message(socket: &mut TcpStream) -> Notification {
    let reading = async {
        let mut bytes = vec![0; usize::try_from(socket.read_i32().await.unwrap()).unwrap()];
        socket.read_exact(&mut bytes).await.unwrap();
        Notification::decode(&bytes.into()).unwrap()
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("a message in time")
}

async fn write_message(socket: &mut TcpStream, message: &Notification) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let mut frame = Vec::new();
    frame.put_buffer(Some(&bytes));
    socket.write_all(&frame).await.unwrap();
}

/// The other end closes the connection without another word.
async fn assert_ended(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    let ending = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut rest)).await;
    // A reset is as good an end as a clean close.
    let _ = ending.expect("an end in time");
    assert_eq!(rest, b"");
}
