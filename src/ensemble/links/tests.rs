use std::collections::BTreeMap;

use tokio::net::TcpStream;

use super::*;
use crate::ensemble::members::{HostPort, MemberAddress, MemberRole};
use crate::id::Epoch;
use crate::tree::Tree;
use crate::zab::{Entry, LearnerInfo};

/// A shell whose only member, 1, listens for learners at `listener`.
fn shell(listener: &TcpListener) -> (Arc<LinkShell>, mpsc::Receiver<PeerEvent>) {
    let port = listener.local_addr().unwrap().port();
    let at = |port| HostPort { host: "127.0.0.1".into(), port };
    let member = MemberAddress { quorum: at(port), election: at(1), client: None, role: MemberRole::Voter };
    let members = Members::new(BTreeMap::from([(ServerId::STANDALONE, member)])).unwrap();
    let (events, received) = mpsc::channel(64);
    let shell = LinkShell {
        members: Arc::new(members),
        timeout: Duration::from_secs(1),
        tls: None,
        events,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        next_link: AtomicU64::new(1),
    };
    (Arc::new(shell), received)
}

fn info() -> Packet {
    Packet::FollowerInfo(LearnerInfo { accepted_epoch: Epoch(0), server: ServerId::new(2) })
}

async fn next(events: &mut mpsc::Receiver<PeerEvent>) -> PeerEvent {
    let next = tokio::time::timeout(Duration::from_secs(10), events.recv());
    next.await.expect("an event in time").expect("the shell is there")
}

/// A learner and its leader, connected, after the learner has said who it is.
async fn pair() -> ((LinkOutbox, mpsc::Receiver<PeerEvent>), (LinkOutbox, mpsc::Receiver<PeerEvent>)) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (leader, mut leader_events) = shell(&listener);
    let (learner, mut learner_events) = shell(&listener);
    leader.tasks.spawn(accept(listener, leader.clone()));
    connect(&learner, 7, ServerId::STANDALONE);
    let PeerEvent::Dialled { attempt: 7, link: Some((_, learner)) } = next(&mut learner_events).await else {
        panic!("not connected")
    };
    let PeerEvent::Accepted(_, leader) = next(&mut leader_events).await else { panic!("not accepted") };
    learner.send(info());
    assert!(matches!(next(&mut leader_events).await, PeerEvent::Packet(_, packet) if packet == info()));
    ((learner, learner_events), (leader, leader_events))
}

#[tokio::test]
async fn packets_arrive_in_order_and_a_snapshot_among_them() {
    let ((_learner, mut events), (leader, _)) = pair().await;
    let mut body = Vec::new();
    let tree = Tree::new();
    let mut cursor = tree.begin_snapshot(&mut body);
    while !tree.continue_snapshot(&mut cursor, 1, &mut body) {}
    let zxid = Zxid::new(Epoch(1), 7);
    leader.send(Packet::LeaderInfo(Epoch(1)));
    leader.send_snapshot(zxid, body.clone().into());
    let proposals: Vec<_> = (8..2000)
        .map(|counter| {
            let zxid = Zxid::new(Epoch(1), counter);
            Packet::Proposal(Entry { zxid, payload: vec![b'x'; counter as usize].into() })
        })
        .collect();
    proposals.iter().for_each(|packet| assert!(leader.send(packet.clone())));

    assert!(matches!(next(&mut events).await, PeerEvent::Packet(_, Packet::LeaderInfo(_))));
    assert!(matches!(next(&mut events).await, PeerEvent::Packet(_, Packet::Snap(found)) if found == zxid));
    assert!(matches!(next(&mut events).await, PeerEvent::SnapshotReceived(_, found) if found == body));
    for expected in proposals {
        assert!(matches!(next(&mut events).await, PeerEvent::Packet(_, found) if found == expected));
    }
}

#[tokio::test]
async fn the_end_of_one_side_is_told_to_the_other() {
    let ((learner, _events), (_leader, mut leader_events)) = pair().await;
    learner.send(Packet::Ack(Zxid::new(Epoch(1), 0)));
    drop(learner);
    assert!(
        matches!(next(&mut leader_events).await, PeerEvent::Packet(_, Packet::Ack(_))),
        "what was queued comes"
    );
    assert!(matches!(next(&mut leader_events).await, PeerEvent::LinkClosed(_)));
}

#[tokio::test]
async fn who_does_not_say_who_he_is_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (leader, mut events) = shell(&listener);
    leader.tasks.spawn(accept(listener, leader.clone()));
    // The magic of a member that speaks SASL first, a packet that is not the first, and garbage.
    let sasl = [0x5f, 0x24, 0x35, 0x01, 0x35, 0x01, 0xed, 0xcc, 0, 0, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4];
    let mut ack = Vec::new();
    Packet::Ack(Zxid::ZERO).encode(&mut ack);
    for garbage in [&sasl[..], &ack, &[0xff; 64]] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        let PeerEvent::Accepted(id, _outbox) = next(&mut events).await else { panic!("not accepted") };
        assert!(matches!(next(&mut events).await, PeerEvent::LinkClosed(closed) if closed == id));
        let mut rest = Vec::new();
        // A reset is as good an end as a clean close.
        let _ = socket.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    }
}

#[tokio::test]
async fn what_waits_for_a_member_that_does_not_read_is_bounded() {
    let ((_learner, _events), (leader, _leader_events)) = pair().await;
    let entry = Entry { zxid: Zxid::new(Epoch(1), 1), payload: vec![0; 1 << 20].into() };
    let sent = (0..200).take_while(|_| leader.send(Packet::Proposal(entry.clone()))).count();
    assert!((60..150).contains(&sent), "{sent} MiB were taken");
}
