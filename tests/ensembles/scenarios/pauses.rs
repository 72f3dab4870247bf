//! SIGSTOP and SIGCONT: members that are away without noticing.

use std::time::Duration;

use super::{APACHE, APACHE_AND_TWO, OURS, OURS_AND_TWO, client_of, seconds};
use crate::cluster::{Profile, SESSION_TIMEOUT, SYNC_LIMIT, TICK, go_on_for};
use crate::history::{Action, Aspect, Read};
use crate::load::{LOAD_W, Workload};
use crate::member::{Kind, State};
use crate::run::{Run, longest_gap, time_to_write};
use crate::wait::{wait_for, wait_until};

/// A leader that was stopped while another was elected says nothing wrong when it goes on.
///
/// One client hangs on to it all the time; another has a sync and a read waiting there at the moment it wakes.
pub(super) fn stop_the_leader(kinds: &[Kind]) {
    let mut run = Run::start("stop-the-leader", kinds, Profile::DEFAULT);
    let leader = run.cluster.make_last_lead();
    let load = run.load(Workload { pinned: Some(leader), ..LOAD_W });
    load.wait_for_writes(100, Duration::from_secs(10));
    let mut waiting = client_of(&run.cluster, leader, "waiting", SESSION_TIMEOUT, &run.recorder);
    load.block_on(waiting.ensure_connected());
    run.cluster.stop(leader);
    let next = run.cluster.wait_for_leader();
    assert_ne!(next, leader);
    load.wait_for_writes(20, Duration::from_secs(10));
    // What it is asked now it reads first when it goes on.
    let question = load.spawn(async move {
        let read = |path: &str| Read { path: path.into(), aspect: Aspect::Data, watch: false, synced: None };
        let reads = (0..4).map(|number| Action::Read(read(&format!("/load/shared{number}"))));
        let replies = waiting.call([Action::Sync].into_iter().chain(reads).collect()).await;
        waiting.abandon();
        replies.into_iter().flatten().filter(|reply| reply.error == 0).count()
    });
    go_on_for(TICK / 2);
    run.cluster.resume(leader);
    eprintln!("the stopped leader answered {} of 5 requests that it woke to", load.join(question));
    let back = wait_until("the old leader follows", Duration::from_secs(20), || {
        run.cluster.members[leader].state().is_some_and(|(state, _)| state == State::Follower)
    });
    eprintln!("it followed after {back:?}");

    // Once more, for three times as long as its followers wait.
    let leader = run.cluster.wait_until_all_serve();
    let stopped = run.recorder.now();
    run.cluster.stop(leader);
    let took = time_to_write(&run.recorder, stopped);
    eprintln!("writes went on after {took:?}");
    let patience = TICK * SYNC_LIMIT;
    go_on_for((patience * 3).saturating_sub(took));
    run.cluster.resume(leader);
    run.cluster.wait_until_all_serve();
    go_on_for(Duration::from_secs(1));
    run.finish(load);
}

/// A follower that is stopped under load is left behind, and brought up to date when it goes on.
pub(super) fn stop_a_follower(kinds: &[Kind]) {
    let mut run = Run::start("stop-a-follower", kinds, Profile::DEFAULT);
    let leader = run.cluster.make_last_lead();
    let load = run.load(LOAD_W);
    load.wait_for_writes(100, Duration::from_secs(10));
    let memory = run.cluster.members[leader].memory_kb();
    let stopped = run.recorder.now();
    run.cluster.stop(0);
    go_on_for(seconds(6, 30));
    let grown = run.cluster.members[leader].memory_kb().saturating_sub(memory);
    let resumed = run.recorder.now();
    let before = run.cluster.syncs(leader).len();
    run.cluster.resume(0);
    let id = run.cluster.members[0].id;
    let sync = wait_for("the follower is brought up to date", Duration::from_secs(20), || {
        run.cluster.syncs(leader).into_iter().skip(before).find(|sync| sync.learner == id)
    });
    run.cluster.wait_until_all_serve();
    let stall = run.cluster.longest_disk_stall();
    let history = run.finish(load);
    let gap = longest_gap(&history, stopped, resumed);
    eprintln!("caught up by {sync:?}, the leader grew by {grown} KiB, longest time without a write {gap:?}");
    assert!(gap < Duration::from_secs(3) + stall, "one stopped follower held up writes for {gap:?}");
    if kinds[leader] == Kind::Rollcall {
        assert!(grown <= 64 << 10, "the leader grew by {grown} KiB while a follower did not read");
    }
}

mod ours {
    use super::*;

    #[test]
    fn a_stopped_leader_wakes_up_harmless() {
        stop_the_leader(&OURS);
    }

    #[test]
    fn a_stopped_follower_is_left_behind_and_catches_up() {
        stop_a_follower(&OURS);
    }
}

mod mixed {
    use super::*;

    #[test]
    fn our_stopped_leader_wakes_up_harmless() {
        stop_the_leader(&OURS_AND_TWO);
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn apaches_stopped_leader_wakes_up_harmless() {
        stop_the_leader(&APACHE_AND_TWO);
    }

    #[test]
    fn our_stopped_follower_catches_up_with_apaches_leader() {
        stop_a_follower(&APACHE_AND_TWO);
    }

    #[test]
    fn apaches_stopped_follower_catches_up_with_our_leader() {
        stop_a_follower(&OURS_AND_TWO);
    }
}

/// What is asked of ours is asked of Apache's own.
mod apache {
    use super::*;

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn a_stopped_leader_wakes_up_harmless() {
        stop_the_leader(&APACHE);
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn a_stopped_follower_is_left_behind_and_catches_up() {
        stop_a_follower(&APACHE);
    }
}
