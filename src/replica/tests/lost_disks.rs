//! Members whose disks were lost, wholly or in part: who has a say, and when an ensemble begins anew.

use super::ensemble::{DiskState, Ensemble};
use super::*;

#[test]
fn a_member_that_lost_everything_cannot_make_a_quorum() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let leader = ensemble.leader();
    ensemble.open(leader);
    ensemble.create(leader, "/kept");
    let followers = ensemble.followers();
    ensemble.kill(followers[0]);
    ensemble.disks.insert(followers[0], DiskState::default());
    ensemble.kill(leader);
    ensemble.start(followers[0]);
    ensemble.advance(TICK * 50);
    assert!(ensemble.up().iter().all(|id| !ensemble.members[id].as_ref().unwrap().replica.is_serving()));
    ensemble.start(leader);
    ensemble.all_agree();
    assert!(ensemble.member(followers[0]).replica.tree().node("/kept").is_some());
}

/// A majority is lost for good: whoever is left and those who are told to make do with it begin again.
#[test]
fn members_that_are_told_to_go_on_without_the_lost_ones_do() {
    for (survivor, wiped) in [(3, [1, 2]), (1, [2, 3])] {
        let mut ensemble = Ensemble::of(3);
        ensemble.advance(TICK);
        let leader = ensemble.leader();
        ensemble.open(leader);
        ensemble.create(leader, "/kept");
        ensemble.advance(TICK);
        (1..=3).for_each(|id| ensemble.kill(id));
        for id in wiped {
            ensemble.disks.insert(id, DiskState::default());
        }
        ensemble.start(survivor);
        wiped.into_iter().for_each(|id| ensemble.start(id));
        ensemble.advance(TICK * 50);
        assert!((1..=3).all(|id| !ensemble.leads(id)), "nobody decides that by itself");

        (1..=3).for_each(|id| ensemble.kill(id));
        ensemble.forced = wiped.to_vec();
        ensemble.start(survivor);
        wiped.into_iter().for_each(|id| ensemble.start(id));
        ensemble.all_agree();
        assert!(ensemble.member(wiped[0]).replica.tree().node("/kept").is_some());
    }
}

/// A first start that was cut short, with a member that remembers it and two that do not.
#[test]
fn an_ensemble_without_a_txn_begins_whoever_remembers_an_epoch() {
    for remembers in 1..=3 {
        let mut ensemble = Ensemble::of(3);
        ensemble.advance(TICK);
        (1..=3).for_each(|id| ensemble.kill(id));
        for id in (1..=3).filter(|id| *id != remembers) {
            ensemble.disks.insert(id, DiskState::default());
        }
        (1..=3).for_each(|id| ensemble.start(id));
        ensemble.all_agree();
        let leader = ensemble.leader();
        assert_eq!(ensemble.member(leader).replica.epochs().1, Epoch(2), "no epoch is led twice");
    }
}

/// What a first synchronization that was cut short has left is no reason to vote.
#[test]
fn a_wiped_member_that_got_a_part_of_the_history_makes_no_quorum() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let leader = ensemble.leader();
    ensemble.open(leader);
    (0..4).for_each(|number| ensemble.create(leader, &format!("/{number}")));
    ensemble.advance(TICK);
    let followers = ensemble.followers();
    (1..=3).for_each(|id| ensemble.kill(id));
    let disk = ensemble.disks.get_mut(&followers[0]).unwrap();
    disk.current = Epoch(0);
    disk.log.truncate(2);
    let lagging = ensemble.disks.get_mut(&followers[1]).unwrap();
    lagging.log.truncate(1);
    ensemble.start(followers[0]);
    ensemble.start(followers[1]);
    ensemble.advance(TICK * 50);
    assert!(followers.iter().all(|id| !ensemble.leads(*id)), "they do not hold what was acknowledged");
    ensemble.start(leader);
    ensemble.all_agree();
    assert!(ensemble.member(followers[0]).replica.tree().node("/3").is_some());
}
