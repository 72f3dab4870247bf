//! Two members' ports together, through what the driver uses.

use std::collections::BTreeMap;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::ensemble::members::{MemberAddress, MemberRole, Members};
use crate::id::Epoch;
use crate::tls::{ClientAuth, TlsFiles};
use crate::tree::Tree;
use crate::zab::{LearnerInfo, ServerState};

#[tokio::test]
async fn a_member_alone_hears_nothing_and_needs_nothing() {
    let mut peers = Peers::none();
    peers.dial(1, server(2));
    peers.send(LinkId(1), Packet::UpToDate);
    peers.close(LinkId(1));
    let heard = tokio::time::timeout(Duration::from_millis(20), peers.recv_many(&mut Vec::new(), 1)).await;
    assert!(heard.is_err(), "it waits for ever");
}

#[tokio::test]
async fn votes_and_snapshots_go_over_tls() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (member, ca) = (folder.path().join("member.pem"), folder.path().join("ca.pem"));
    fs_err::write(&member, format!("{}{}", key.serialize_pem(), cert.pem())).unwrap();
    fs_err::write(&ca, authority.pem()).unwrap();
    let files = TlsFiles {
        cert: member.clone(),
        key: member,
        ca,
        client_auth: ClientAuth::Need,
        verify_hostname: true,
    };
    let [mut one, mut two] = pair_over(Some(Arc::new(Tls::load(files).unwrap()))).await;
    assert!(matches!(input(&mut one).await, Input::Reachable(_, true)));
    assert!(matches!(input(&mut two).await, Input::Reachable(_, true)));
    let vote = Notification { state: ServerState::Looking, round: 3, vote: None, config: Bytes::new() };
    two.send_vote(server(1), vote.clone());
    assert!(matches!(input(&mut one).await, Input::Notification(_, heard) if heard == vote));

    one.dial(4, server(2));
    let Input::Dialled { link: Some(up), .. } = input(&mut one).await else { panic!("not dialled") };
    one.send(up, Packet::FollowerInfo(LearnerInfo { accepted_epoch: Epoch(1), server: Some(server(1)) }));
    let Input::Accepted(down) = input(&mut two).await else { panic!("not accepted") };
    let mut body = Vec::new();
    let tree = Tree::new();
    let mut cursor = tree.begin_snapshot(&mut body);
    while !tree.continue_snapshot(&mut cursor, 1, &mut body) {}
    two.send_snapshot(down, Zxid::ZERO, body.clone().into());
    two.close(down);
    assert!(matches!(input(&mut one).await, Input::Packet(_, Packet::Snap(_))));
    assert!(matches!(input(&mut one).await, Input::SnapshotReceived(_, heard) if heard == body));
    assert!(matches!(input(&mut one).await, Input::LinkClosed(link) if link == up));
}

#[tokio::test]
async fn votes_and_packets_become_inputs_and_nothing_is_heard_of_a_closed_link() {
    let [mut one, mut two] = pair().await;
    assert!(matches!(input(&mut one).await, Input::Reachable(peer, true) if peer == server(2)));
    assert!(matches!(input(&mut two).await, Input::Reachable(peer, true) if peer == server(1)));
    let vote = Notification { state: ServerState::Looking, round: 3, vote: None, config: Bytes::new() };
    one.send_vote(server(2), vote.clone());
    assert!(
        matches!(input(&mut two).await, Input::Notification(peer, heard) if (peer, &heard) == (server(1), &vote))
    );

    one.dial(4, server(2));
    let Input::Dialled { attempt: 4, link: Some(up) } = input(&mut one).await else { panic!("not dialled") };
    let info = Packet::FollowerInfo(LearnerInfo { accepted_epoch: Epoch(1), server: Some(server(1)) });
    one.send(up, info.clone());
    let Input::Accepted(down) = input(&mut two).await else { panic!("not accepted") };
    assert!(matches!(input(&mut two).await, Input::Packet(link, packet) if link == down && packet == info));

    // What comes over it, and its end, are nobody's business any more.
    one.send(up, Packet::Ack(Zxid::ZERO));
    two.close(down);
    assert!(matches!(input(&mut one).await, Input::LinkClosed(link) if link == up));
    one.dial(5, server(2));
    let Input::Dialled { attempt: 5, link: Some(again) } = input(&mut one).await else {
        panic!("not dialled")
    };
    one.send(again, info);
    let Input::Accepted(newer) = input(&mut two).await else { panic!("something else was heard") };
    assert_ne!(newer, down);
}

#[tokio::test]
async fn a_port_that_breaks_is_noticed() {
    let [mut one, _two] = pair().await;
    one.ports.as_mut().unwrap().serving.abort_all();
    let until_none = async { while one.recv_many(&mut Vec::new(), 1).await > 0 {} };
    tokio::time::timeout(Duration::from_secs(5), until_none).await.expect("it ends");
}

async fn pair_over(tls: Option<Arc<Tls>>) -> [Peers; 2] {
    let mut listeners = Vec::new();
    let mut members = BTreeMap::new();
    for id in [1, 2] {
        let listening = PeerListeners {
            quorum: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            election: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        let at = |listener: &TcpListener| HostPort {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
        };
        let (quorum, election) = (at(&listening.quorum), at(&listening.election));
        members.insert(server(id), MemberAddress { quorum, election, client: None, role: MemberRole::Voter });
        listeners.push((server(id), listening));
    }
    let settings = PeersSettings::of(Members::new(members).unwrap());
    let peers: Vec<_> = listeners
        .into_iter()
        .map(|(id, listening)| Peers::start(id, &settings, listening, tls.clone()))
        .collect();
    peers.try_into().expect("two of them")
}

async fn pair() -> [Peers; 2] {
    pair_over(None).await
}

/// The next input.
async fn input(peers: &mut Peers) -> Input {
    let next = async {
        loop {
            let mut events = Vec::new();
            assert_eq!(peers.recv_many(&mut events, 1).await, 1, "the ports run");
            match events.pop().and_then(|event| peers.input_of(event)) {
                // How often there is time for it is another matter.
                None | Some(Input::Progress(_)) => {}
                Some(input) => return input,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next).await.expect("an input in time")
}

fn server(id: u8) -> ServerId {
    ServerId::new(id).unwrap()
}

#[tokio::test]
async fn after_a_shutdown_nothing_is_open() {
    let [mut one, mut two] = pair().await;
    assert!(matches!(input(&mut one).await, Input::Reachable(_, true)));
    assert!(matches!(input(&mut two).await, Input::Reachable(_, true)));
    one.dial(4, server(2));
    assert!(matches!(input(&mut one).await, Input::Dialled { link: Some(_), .. }));
    tokio::time::timeout(Duration::from_secs(5), one.shutdown()).await.expect("it ends");
    assert!(matches!(input(&mut two).await, Input::Reachable(_, false)));
}
