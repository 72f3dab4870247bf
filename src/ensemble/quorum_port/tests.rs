//! Quorum ports with one another, and with sockets that behave as members do, or do not.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::clock;
use crate::ensemble::dial::Patience;
use crate::ensemble::members::{HostPort, MemberAddress, MemberRole};
use crate::id::{Epoch, SessionId, Xid, Zxid};
use crate::tree::{CreateTxn, Tree, Txn, TxnHeader, TxnOp};
use crate::zab::{Entry, SNAPSHOT_END};
use crate::znode::{Acl, ZnodePath};

#[tokio::test]
async fn packets_arrive_in_order_in_both_directions_and_a_close_loses_none() {
    let mut leader = TestPort::start(SETTINGS, None).await;
    let mut learner = TestPort::start(SETTINGS, Some(leader.addr)).await;
    let (mut down, mut up) = connect(&mut leader, &mut learner).await;
    for counter in 1..=5000 {
        assert_eq!(down.send(proposal(counter, 100)), Queued::Yes);
        assert_eq!(up.send(Packet::Ack(zxid(counter))), Queued::Yes);
    }
    for counter in 1..=5000 {
        assert_eq!(learner.next_packet().await, proposal(counter, 100));
    }
    for counter in 1..=5000 {
        assert_eq!(leader.next_packet().await, Packet::Ack(zxid(counter)));
    }
    for counter in 1..=5000 {
        down.send(proposal(counter, 100));
    }
    drop(down);
    for counter in 1..=5000 {
        assert_eq!(learner.next_packet().await, proposal(counter, 100));
    }
    learner.expect_closed().await;
    leader.expect_closed().await;
}

#[tokio::test]
async fn a_snapshot_arrives_between_packets() {
    let mut leader = TestPort::start(SETTINGS, None).await;
    let mut learner = TestPort::start(SETTINGS, Some(leader.addr)).await;
    let (mut down, up) = connect(&mut leader, &mut learner).await;
    let body = snapshot_of(3000);
    assert!(body.len() > 1 << 20);
    down.send(Packet::LeaderInfo(Epoch(2)));
    assert_eq!(down.send_snapshot(zxid(7), body.clone()), Queued::Yes);
    down.send(proposal(8, 10));
    assert_eq!(learner.next_packet().await, Packet::LeaderInfo(Epoch(2)));
    assert_eq!(learner.next_packet().await, Packet::Snap(zxid(7)));
    assert!(learner.next_snapshot().await == body, "the body is what it was");
    assert_eq!(learner.next_packet().await, proposal(8, 10));
    drop(up);
}

#[tokio::test]
async fn a_snapshot_arrives_however_it_is_cut() {
    let body = snapshot_of(3);
    let mut stream = Vec::new();
    Packet::Snap(zxid(7)).encode(&mut stream);
    stream.extend_from_slice(&body);
    stream.extend_from_slice(SNAPSHOT_END);
    proposal(8, 10).encode(&mut stream);
    for chunk_bytes in [1, 7, 64] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut learner = TestPort::start(SETTINGS, Some(listener.local_addr().unwrap())).await;
        let (mut socket, _up) = dial_raw(&mut learner, &listener).await;
        for chunk in stream.chunks(chunk_bytes) {
            socket.write_all(chunk).await.unwrap();
            // So that it is seen by itself.
            tokio::task::yield_now().await;
        }
        assert_eq!(learner.next_packet().await, Packet::Snap(zxid(7)));
        assert_eq!(learner.next_snapshot().await, body);
        assert_eq!(learner.next_packet().await, proposal(8, 10));
        drop(socket);
        learner.expect_closed().await;
    }
}

#[tokio::test]
async fn a_snapshot_that_takes_its_time_is_heard_of_at_both_ends() {
    let mut leader = TestPort::start(SETTINGS, None).await;
    let (mut socket, mut down) = accept_raw(&mut leader).await;
    // More than sockets hold.
    assert_eq!(down.send_snapshot(zxid(7), vec![0; 64 << 20].into()), Queued::Yes);
    let mut part = vec![0; 64 << 10];
    let progress = loop {
        tokio::select! {
            event = leader.next_of_all() => break event,
            read = socket.read(&mut part) => assert!(read.unwrap() > 0, "it was all sent without a word"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert!(matches!(progress, PeerEvent::Progress(_)), "{progress:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut learner = TestPort::start(SETTINGS, Some(listener.local_addr().unwrap())).await;
    let (mut socket, _up) = dial_raw(&mut learner, &listener).await;
    let mut snap = Vec::new();
    Packet::Snap(zxid(7)).encode(&mut snap);
    snap.extend_from_slice(&snapshot_of(3)[..8]);
    socket.write_all(&snap).await.unwrap();
    assert_eq!(learner.next_packet().await, Packet::Snap(zxid(7)));
    let rest = snapshot_of(3_000);
    let mut bytes = rest[8..].iter();
    let progress = loop {
        tokio::select! {
            event = learner.next_of_all() => break event,
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        socket.write_all(&[*bytes.next().expect("a word within a second")]).await.unwrap();
    };
    assert!(matches!(progress, PeerEvent::Progress(_)), "{progress:?}");
}

#[tokio::test]
async fn what_is_no_snapshot_or_too_long_a_one_ends_the_link() {
    let whole = snapshot_of(3);
    let short = Bounds { snapshot_bytes_max: whole.len() as u64 - 1, ..SETTINGS };
    let without_end = [&whole[..], b"\0\0\0\x0aBenWasThere"].concat();
    for (settings, body) in
        [(SETTINGS, &b"\xff\xff\xff\xfe"[..]), (short, &whole[..]), (SETTINGS, &without_end[..])]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut learner = TestPort::start(settings, Some(listener.local_addr().unwrap())).await;
        let (mut socket, _up) = dial_raw(&mut learner, &listener).await;
        let mut stream = Vec::new();
        Packet::Snap(zxid(7)).encode(&mut stream);
        stream.extend_from_slice(body);
        socket.write_all(&stream).await.unwrap();
        assert_eq!(learner.next_packet().await, Packet::Snap(zxid(7)));
        learner.expect_closed().await;
        expect_end(&mut socket).await;
    }
}

#[tokio::test]
async fn a_learner_that_does_not_read_loses_its_link_before_much_is_queued() {
    let mut leader = TestPort::start(Bounds { link_bytes_max: 1 << 20, ..SETTINGS }, None).await;
    let (socket, mut down) = accept_raw(&mut leader).await;
    // What brings it up to date finds room however much it is.
    let new_leader = Packet::NewLeader { zxid: zxid(0), config: Bytes::new() };
    assert_eq!(down.send(proposal(1, 4 << 20)), Queued::Yes);
    assert_eq!(down.send(new_leader), Queued::Yes);
    let mut sent = 0;
    while down.send(proposal(2, 10_000)) == Queued::Yes {
        sent += 10_000;
        // The writer may take what the socket takes.
        tokio::task::yield_now().await;
        assert!(sent < 256 << 20, "there is no bound");
    }
    let started = clock::now();
    leader.expect_closed().await;
    assert!(started.elapsed() < Duration::from_secs(1), "it took {:?}", started.elapsed());
    assert_eq!(down.send(proposal(3, 10)), Queued::Yes, "told once");
    drop(socket);
}

#[tokio::test]
async fn a_learner_that_does_not_read_cannot_keep_a_link_that_was_closed() {
    let mut leader = TestPort::start(SETTINGS, None).await;
    let (socket, mut down) = accept_raw(&mut leader).await;
    down.send(proposal(1, 32 << 20));
    drop(down);
    leader.expect_closed().await;
    drop(socket);
}

#[tokio::test]
async fn the_death_of_the_other_end_is_noticed_at_once() {
    let mut leader = TestPort::start(SETTINGS, None).await;
    for _ in 0..3 {
        let mut learner = TestPort::start(SETTINGS, Some(leader.addr)).await;
        let (_down, _up) = connect(&mut leader, &mut learner).await;
        let started = clock::now();
        drop(learner);
        leader.expect_closed().await;
        assert!(started.elapsed() < Duration::from_millis(500), "it took {:?}", started.elapsed());
    }
    let mut learner = TestPort::start(SETTINGS, Some(leader.addr)).await;
    let (_down, _up) = connect(&mut leader, &mut learner).await;
    drop(leader);
    learner.expect_closed().await;
}

#[tokio::test]
async fn a_dial_that_fails_is_told_with_its_number() {
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut learner = TestPort::start(SETTINGS, Some(refusing)).await;
    for (attempt, server) in [(5, LEADER), (6, ServerId::new(77).unwrap())] {
        learner.port.dial(attempt, server);
        let event = learner.next().await;
        let PeerEvent::Dialled { attempt: told, link: None } = event else { panic!("{event:?}") };
        assert_eq!(told, attempt);
    }
}

#[tokio::test]
async fn strangers_are_closed_and_disturb_nobody() {
    let short = Bounds { timeout: Duration::from_millis(300), ..SETTINGS };
    let mut leader = TestPort::start(short, None).await;
    let mut learner = TestPort::start(SETTINGS, Some(leader.addr)).await;
    let (mut down, _up) = connect(&mut leader, &mut learner).await;
    let mut too_long = vec![0; 16];
    too_long[3] = 11;
    too_long[12..].copy_from_slice(&(100_i32 << 20).to_be_bytes());
    let mut ack = Vec::new();
    Packet::Ack(zxid(1)).encode(&mut ack);
    let mut cut = follower_info();
    cut.truncate(30);
    let garbage = [
        vec![0xff; 64],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        SASL_MAGIC.to_be_bytes().to_vec(),
        too_long,
        ack,
        // These two say nothing wrong, but nothing more, either.
        cut,
        Vec::new(),
    ];
    for (counter, bytes) in (1..).zip(&garbage) {
        let mut stranger = TcpStream::connect(leader.addr).await.unwrap();
        stranger.write_all(bytes).await.unwrap();
        expect_end(&mut stranger).await;
        down.send(proposal(counter, 10));
        assert_eq!(learner.next_packet().await, proposal(counter, 10), "after {bytes:?}");
    }
    assert!(leader.events.try_recv().is_err(), "no stranger is told of");
}

#[tokio::test]
async fn links_of_learners_are_bounded() {
    let mut leader = TestPort::start(SETTINGS, None).await;
    let mut accepted = Vec::new();
    for _ in 0..=LINKS_SPARE {
        accepted.push(accept_raw(&mut leader).await);
    }
    let mut one_more = TcpStream::connect(leader.addr).await.unwrap();
    one_more.write_all(&follower_info()).await.unwrap();
    expect_end(&mut one_more).await;
    // Room is made by one that goes.
    accepted.pop();
    leader.expect_closed().await;
    let _ = accept_raw(&mut leader).await;
}

#[tokio::test]
async fn a_driver_that_is_busy_makes_the_other_end_wait() {
    let mut leader = TestPort::start(SETTINGS, None).await;
    let (mut socket, down) = accept_raw(&mut leader).await;
    let mut packet = Vec::new();
    proposal(1, 100_000).encode(&mut packet);
    let mut written = 0;
    while let Ok(outcome) =
        tokio::time::timeout(Duration::from_millis(300), socket.write(&packet[written % packet.len()..]))
            .await
    {
        written += outcome.unwrap();
        assert!(written < 200 << 20, "everything is read though nothing is taken");
    }
    assert!(written > 10 << 20, "{written} bytes were taken");
    // The driver takes what has come, and the other end can go on.
    let whole = written / packet.len();
    for _ in 0..whole {
        let packet = leader.next_packet().await;
        down.release(&packet);
    }
    let rest = &packet[written % packet.len()..];
    tokio::time::timeout(Duration::from_secs(10), socket.write_all(rest))
        .await
        .expect("it is read on")
        .unwrap();
    leader.next_packet().await;
}

const LEADER: ServerId = ServerId::STANDALONE;
const SETTINGS: Bounds =
    Bounds { timeout: Duration::from_secs(5), link_bytes_max: 64 << 20, snapshot_bytes_max: 2 << 30 };

struct Bounds {
    timeout: Duration,
    link_bytes_max: usize,
    snapshot_bytes_max: u64,
}

struct TestPort {
    port: QuorumPort,
    addr: SocketAddr,
    events: mpsc::Receiver<PeerEvent>,
    _serving: AbortOnDropHandle<()>,
}

impl TestPort {
    /// A port of an ensemble whose leader listens at `leader`, or here.
    async fn start(bounds: Bounds, leader: Option<SocketAddr>) -> Self {
        let Bounds { timeout, link_bytes_max, snapshot_bytes_max } = bounds;
        let transport = Transport { timeout, patience: Patience::System, tls: None };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let at = |port| HostPort { host: "127.0.0.1".into(), port };
        let leads_at = leader.unwrap_or(addr).port();
        let leader =
            MemberAddress { quorum: at(leads_at), election: at(1), client: None, role: MemberRole::Voter };
        let members = Arc::new(Members::new([(LEADER, leader)].into_iter().collect()).unwrap());
        let tasks = TaskTracker::new();
        let settings = QuorumSettings { members, transport, link_bytes_max, snapshot_bytes_max, tasks };
        let (sender, events) = mpsc::channel(1024);
        let (port, serving) = QuorumPort::new(settings, listener, sender);
        Self { port, addr, events, _serving: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    /// The next event, but for those that tell of progress.
    async fn next(&mut self) -> PeerEvent {
        loop {
            let event = self.next_of_all().await;
            if !matches!(event, PeerEvent::Progress(_)) {
                return event;
            }
        }
    }

    async fn next_of_all(&mut self) -> PeerEvent {
        let next = tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await;
        next.expect("an event in time").expect("a port that runs")
    }

    async fn next_packet(&mut self) -> Packet {
        let event = self.next().await;
        let PeerEvent::Packet(_, packet) = event else { panic!("{event:?}") };
        packet
    }

    async fn next_snapshot(&mut self) -> Bytes {
        let event = self.next().await;
        let PeerEvent::SnapshotReceived(_, body) = event else { panic!("{event:?}") };
        body
    }

    async fn expect_accepted(&mut self) -> LinkOutbox {
        let event = self.next().await;
        let PeerEvent::Accepted(_, outbox) = event else { panic!("{event:?}") };
        assert!(matches!(self.next_packet().await, Packet::FollowerInfo(_)));
        outbox
    }

    async fn expect_dialled(&mut self) -> LinkOutbox {
        let event = self.next().await;
        let PeerEvent::Dialled { attempt: 1, link: Some((_, outbox)) } = event else { panic!("{event:?}") };
        outbox
    }

    async fn expect_closed(&mut self) {
        let event = self.next().await;
        assert!(matches!(event, PeerEvent::LinkClosed(_)), "{event:?}");
    }
}

/// The two ends of a link that has said who it is.
async fn connect(leader: &mut TestPort, learner: &mut TestPort) -> (LinkOutbox, LinkOutbox) {
    learner.port.dial(1, LEADER);
    let mut up = learner.expect_dialled().await;
    let info = LearnerInfo { accepted_epoch: Epoch(1), server: ServerId::new(2) };
    up.send(Packet::FollowerInfo(info));
    (leader.expect_accepted().await, up)
}

/// A link to a learner that is but a socket.
async fn accept_raw(leader: &mut TestPort) -> (TcpStream, LinkOutbox) {
    let mut socket = TcpStream::connect(leader.addr).await.unwrap();
    socket.write_all(&follower_info()).await.unwrap();
    (socket, leader.expect_accepted().await)
}

/// A link to a leader that is but a socket.
async fn dial_raw(learner: &mut TestPort, listener: &TcpListener) -> (TcpStream, LinkOutbox) {
    learner.port.dial(1, LEADER);
    let (socket, _) = listener.accept().await.unwrap();
    (socket, learner.expect_dialled().await)
}

fn follower_info() -> Vec<u8> {
    let mut bytes = Vec::new();
    let info = LearnerInfo { accepted_epoch: Epoch(1), server: ServerId::new(2) };
    Packet::FollowerInfo(info).encode(&mut bytes);
    bytes
}

fn zxid(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

fn proposal(counter: u32, bytes: usize) -> Packet {
    Packet::Proposal(Entry { zxid: zxid(counter), payload: vec![b'x'; bytes].into() })
}

/// The body of a snapshot with this many znodes of some 500 bytes.
fn snapshot_of(znodes: u32) -> Bytes {
    let mut tree = Tree::new();
    for counter in 1..=znodes {
        let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: zxid(counter), time_ms: 1 };
        let create = CreateTxn {
            path: ZnodePath::parse(&format!("/n{counter}")).unwrap(),
            data: Some(vec![b'd'; 400].into()),
            acl: vec![Acl::open()],
            ephemeral: false,
            parent_cversion: CreateTxn::PARENT_CVERSION_NEXT,
        };
        tree.apply(&Txn { header, op: TxnOp::Create(create), digest: None });
    }
    let mut body = Vec::new();
    let mut cursor = tree.begin_snapshot(&mut body);
    while !tree.continue_snapshot(&mut cursor, 1000, &mut body) {}
    body.into()
}

/// The other end closes the connection without another word.
async fn expect_end(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    let ending = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut rest)).await;
    // A reset is as good an end as a clean close.
    let _ = ending.expect("an end in time");
    assert_eq!(rest, b"");
}
