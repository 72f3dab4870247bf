//! Members that take their time to catch up, have too much, or hear from who is not their leader.

use super::ensemble::{DiskState, Ensemble};
use super::*;
use crate::tree::{CreateTxn, Txn, TxnHeader, TxnOp};
use crate::zab::{Entry, LearnerInfo, Packet};
use crate::znode::{Acl, ZnodePath};

/// Its own time is longer than what a synchronized member may be silent for.
#[test]
fn a_learner_has_the_time_that_synchronization_may_take() {
    for is_wiped in [false, true] {
        let mut ensemble = Ensemble::of(3);
        ensemble.advance(TICK);
        let (leader, late) = (ensemble.leader(), ensemble.followers()[0]);
        write(&mut ensemble, leader, "/before", 1);
        ensemble.kill(late);
        if is_wiped {
            ensemble.disks.insert(late, DiskState::default());
        }
        write(&mut ensemble, leader, "/meanwhile", 1);
        let dials = ensemble.dials();
        ensemble.hang(late);
        ensemble.start(late);
        // Five ticks, and ten.
        ensemble.advance(TICK * 4);
        write(&mut ensemble, leader, "/behind", 1);
        ensemble.advance(TICK * 7 / 2);
        ensemble.go_on(late);
        ensemble.all_agree();
        assert_eq!(ensemble.dials(), dials + 1, "it was not sent away, wiped: {is_wiped}");
    }
}

/// Whatever it was asked to append waits in memory.
#[test]
fn a_leader_whose_disk_hangs_makes_room_for_one_whose_does_not() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let old = ensemble.leader();
    ensemble.hang(old);
    let mut written = 0;
    while ensemble.leads(old) {
        write(&mut ensemble, old, &format!("/{written}"), 100_000);
        written += 1;
        assert!(written < 20, "{written} txns wait for a disk");
    }
    assert!(written > 5, "it led as long as there was room");
    ensemble.advance(TICK * 5);
    let next = ensemble.leader();
    assert_ne!(next, old);
    write(&mut ensemble, next, "/next", 1);
    ensemble.go_on(old);
    ensemble.all_agree();
}

#[test]
fn nobody_but_the_leader_proposes_anything() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let (leader, follower) = (ensemble.leader(), ensemble.followers()[0]);
    write(&mut ensemble, leader, "/first", 1);
    let last = ensemble.member(follower).replica.tree().last_zxid();
    // A session is opened before the znode is created.
    for ahead in 1..4 {
        let zxid = Zxid::new(last.epoch(), last.counter() + ahead);
        let header = TxnHeader { session: SessionId(7), cxid: Xid(1), zxid, time_ms: 0 };
        let create = CreateTxn {
            path: ZnodePath::parse("/forged").unwrap(),
            data: None,
            acl: vec![Acl::open()],
            ephemeral: false,
            parent_cversion: 9,
        };
        let payload = Txn { header, op: TxnOp::Create(create), digest: None }.encode();
        let info = LearnerInfo { accepted_epoch: Epoch(1), server: ServerId::new(leader) };
        ensemble
            .intrude(follower, vec![Packet::FollowerInfo(info), Packet::Proposal(Entry { zxid, payload })]);
    }
    write(&mut ensemble, leader, "/real", 1);
    ensemble.all_agree();
    let tree = ensemble.member(follower).replica.tree();
    assert!(tree.node("/real").is_some() && tree.node("/forged").is_none());
}

/// Apache's members apply what their logs hold, and write snapshots of it, before anybody has said that it is committed.
#[test]
fn what_a_snapshot_holds_that_the_leader_does_not_is_given_up() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let (old, others) = (ensemble.leader(), ensemble.followers());
    write(&mut ensemble, old, "/kept", 1);
    ensemble.advance(TICK);
    ensemble.open(old);
    ensemble.cut_off.extend(&others);
    let create = Request::Create(CreateRequest::open("/lost", "x", CreateMode::Persistent));
    ensemble.send_request(old, &create);
    let mut tree = ensemble.member(old).replica.tree().clone();
    (1..=3).for_each(|id| ensemble.kill(id));
    ensemble.cut_off.clear();
    let last = ensemble.disks[&old].log.last().unwrap().clone();
    assert!(last.zxid > tree.last_zxid(), "it was never committed");
    tree.apply(&Txn::decode(&last.payload).unwrap());
    assert!(tree.node("/lost").is_some());
    ensemble.disks.get_mut(&old).unwrap().snapshot(&tree);

    others.iter().for_each(|id| ensemble.start(*id));
    ensemble.advance(TICK * 5);
    let next = ensemble.leader();
    write(&mut ensemble, next, "/later", 1);
    ensemble.start(old);
    ensemble.all_agree();
    let tree = ensemble.member(old).replica.tree();
    assert!(tree.node("/lost").is_none() && tree.node("/later").is_some() && tree.node("/kept").is_some());
    assert_eq!(ensemble.disks[&old].log.iter().filter(|entry| entry.zxid == last.zxid).count(), 0);
}

fn write(ensemble: &mut Ensemble, id: u8, path: &str, bytes: usize) {
    ensemble.open(id);
    ensemble.send_request(
        id,
        &Request::Create(CreateRequest::open(path, vec![0; bytes], CreateMode::Persistent)),
    );
    ensemble.settle();
}
