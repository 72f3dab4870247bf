//! Sessions that one member alone knows, in an ensemble of three.

use super::ensemble::Ensemble;
use super::*;

fn ensemble_with(mode: LocalSessionMode) -> Ensemble {
    let mut ensemble = Ensemble::with_local_sessions(3, mode);
    ensemble.advance(TICK);
    ensemble
}

fn ephemeral(path: &str) -> Request {
    Request::Create(CreateRequest::open(path, "", CreateMode::Ephemeral))
}

fn knows(ensemble: &mut Ensemble, id: u8, session: SessionId) -> bool {
    ensemble.member(id).replica.tree().sessions().contains(session)
}

#[test]
fn a_local_session_reads_and_writes_without_a_txn_of_its_own() {
    let mut ensemble = ensemble_with(LocalSessionMode::On);
    let (leader, follower) = (ensemble.leader(), ensemble.followers()[0]);
    let last_zxid = |ensemble: &mut Ensemble| ensemble.member(leader).replica.tree().last_zxid();
    let before = last_zxid(&mut ensemble);
    for (id, path) in [(leader, "/of-the-leader"), (follower, "/of-a-follower")] {
        let writes = last_zxid(&mut ensemble);
        let session = ensemble.open(id);
        assert_eq!(last_zxid(&mut ensemble), writes);
        assert!((1..=3).all(|id| !knows(&mut ensemble, id, session)));
        assert_eq!(ensemble.member(id).replica.local_sessions(), 1);
        ensemble.create(id, path);
        ensemble.ask(id, &set(path, "y", 0)).unwrap();
        ensemble.ask(id, &Request::Sync { path: "/".into() }).unwrap();
        ensemble.ask(id, &exists(path, true)).unwrap();
    }
    let after = last_zxid(&mut ensemble);
    assert_eq!(after.counter() - before.counter(), 4, "two creates and two sets");
    ensemble.all_agree();
}

#[test]
fn closing_a_local_session_answers_behind_its_writes_and_leaves_nothing() {
    let mut ensemble = ensemble_with(LocalSessionMode::On);
    let follower = ensemble.followers()[0];
    let session = ensemble.open(follower);
    let create = Request::Create(CreateRequest::open("/kept", "", CreateMode::Persistent));
    ensemble.send_request(follower, &create);
    ensemble.give_request(follower, &Request::CloseSession);
    ensemble.settle();
    assert_eq!(ensemble.member(follower).sent.len(), 2, "the path, and the farewell");
    assert_eq!(ensemble.member(follower).closed, [(ConnectionId(1), CloseReason::SessionClosed)]);
    assert_eq!(ensemble.member(follower).replica.local_sessions(), 0);
    let refused = ensemble.connect(follower, session, false).unwrap();
    assert_eq!(refused.session, SessionId::NONE, "it is over");
    assert!(ensemble.member(follower).replica.tree().node("/kept").is_some());
}

#[test]
fn without_upgrades_a_local_session_has_no_ephemerals() {
    let mut ensemble = ensemble_with(LocalSessionMode::On);
    for id in 1..=3 {
        ensemble.open(id);
        let refusal = Err(OpError::EphemeralOnLocalSession);
        assert_eq!(ensemble.ask(id, &ephemeral("/mine")), refusal);
        let ops = vec![MultiOp::Create2(CreateRequest::open("/mine", "", CreateMode::EphemeralSequential))];
        assert_eq!(ensemble.ask(id, &Request::Multi(ops)), refusal);
        ensemble.ask(id, &exists("/", false)).unwrap();
    }
}

#[test]
fn the_first_ephemeral_makes_a_local_session_known_to_everybody() {
    let mut ensemble = ensemble_with(LocalSessionMode::Upgraded);
    for id in 1..=3 {
        let session = ensemble.open(id);
        ensemble.create(id, &format!("/before-{id}"));
        // Both are under way at once: the session is upgraded once.
        ensemble.send_request(id, &ephemeral(&format!("/first-{id}")));
        ensemble.give_request(id, &ephemeral(&format!("/second-{id}")));
        ensemble.settle();
        assert_eq!(ensemble.member(id).sent.len(), 2);
        assert_eq!(ensemble.member(id).replica.local_sessions(), 0);
        for other in 1..=3 {
            assert!(knows(&mut ensemble, other, session), "{other} knows the session of {id}");
            let tree = ensemble.member(other).replica.tree();
            assert_eq!(tree.ephemerals(session).count(), 2);
        }
        ensemble.ask(id, &Request::CloseSession).unwrap();
        assert!((1..=3).all(|other| !knows(&mut ensemble, other, session)));
    }
    ensemble.all_agree();
}

#[test]
fn an_upgraded_session_moves_and_a_local_one_does_not() {
    let mut ensemble = ensemble_with(LocalSessionMode::Upgraded);
    let followers = ensemble.followers();
    let session = ensemble.open(followers[0]);
    assert_eq!(ensemble.open_as(followers[0], session), session, "it comes back where it is known");
    for elsewhere in [ensemble.leader(), followers[1]] {
        let refused = ensemble.connect(elsewhere, session, false).unwrap();
        assert_eq!(refused.session, SessionId::NONE);
    }
    assert_eq!(ensemble.open_as(followers[0], session), session);
    ensemble.ask(followers[0], &ephemeral("/mine")).unwrap();
    for elsewhere in [ensemble.leader(), followers[1]] {
        assert_eq!(ensemble.open_as(elsewhere, session), session);
    }
}

#[test]
fn a_local_session_outlives_the_leader_and_not_its_own_member() {
    let mut ensemble = ensemble_with(LocalSessionMode::Upgraded);
    let (leader, followers) = (ensemble.leader(), ensemble.followers());
    let session = ensemble.open(followers[0]);
    ensemble.kill(leader);
    ensemble.advance(TICK);
    assert_eq!(ensemble.open_as(followers[0], session), session);
    ensemble.create(followers[0], "/after");
    ensemble.start(leader);
    ensemble.kill(followers[0]);
    ensemble.advance(TICK);
    ensemble.start(followers[0]);
    ensemble.advance(TICK);
    let refused = ensemble.connect(followers[0], session, false).unwrap();
    assert_eq!(refused.session, SessionId::NONE);
}

/// What became of the upgrade is not known when the leader dies: the session comes back all the same, and can be upgraded.
#[test]
fn an_upgrade_that_was_lost_is_made_again() {
    let mut ensemble = ensemble_with(LocalSessionMode::Upgraded);
    let (leader, followers) = (ensemble.leader(), ensemble.followers());
    let session = ensemble.open(followers[0]);
    ensemble.cut_off.push(leader);
    ensemble.send_request(followers[0], &ephemeral("/mine"));
    ensemble.settle();
    assert_eq!(ensemble.member(followers[0]).replica.local_sessions(), 1, "it is not upgraded yet");
    ensemble.kill(leader);
    ensemble.cut_off.clear();
    ensemble.advance(TICK);
    assert_eq!(ensemble.open_as(followers[0], session), session);
    ensemble.ask(followers[0], &ephemeral("/mine")).unwrap();
    assert!(knows(&mut ensemble, followers[1], session));
}

#[test]
fn a_silent_local_session_expires_at_its_member() {
    let mut ensemble = ensemble_with(LocalSessionMode::On);
    let follower = ensemble.followers()[0];
    let session = ensemble.open(follower);
    for _ in 0..20 {
        ensemble.advance(Duration::from_millis(250));
        ensemble.ask(follower, &Request::Ping).unwrap();
    }
    ensemble.advance(Duration::from_millis(500) + TICK * 3);
    assert_eq!(ensemble.member(follower).closed, [(ConnectionId(1), CloseReason::SessionExpired)]);
    let refused = ensemble.connect(follower, session, false).unwrap();
    assert_eq!(refused.session, SessionId::NONE);
}

/// Who does not have the setting does not let strangers write.
#[test]
fn a_leader_without_local_sessions_refuses_what_it_does_not_know() {
    let mut ensemble = ensemble_with(LocalSessionMode::Off);
    let (leader, follower) = (ensemble.leader(), ensemble.followers()[0]);
    ensemble.kill(follower);
    ensemble.local_sessions = LocalSessionMode::On;
    ensemble.start(follower);
    ensemble.advance(TICK);
    assert_eq!(ensemble.leader(), leader);
    ensemble.open(follower);
    let create = Request::Create(CreateRequest::open("/stranger", "", CreateMode::Persistent));
    assert_eq!(ensemble.ask(follower, &create), Err(OpError::SessionExpired));
}
