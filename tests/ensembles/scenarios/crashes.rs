//! `kill -9`: of the leader, of followers, of two, of all.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{APACHE, APACHE_AND_ONE, APACHE_AND_TWO, OURS, OURS_AND_ONE, OURS_AND_TWO, rounds, seconds};
use crate::cluster::{Profile, go_on_for};
use crate::load::{LOAD_W, Load, Workload};
use crate::member::Kind;
use crate::run::{Run, expired, longest_gap, reconnect_times, time_to_write, write_ends};

/// With a majority up, writes go on this soon after a leader died.
const RESUME_MAX: Duration = Duration::from_secs(3);
/// The median with the timers that members have by default: ten times what it is below in virtual time (`simulation/failover.rs`),
/// for a machine that does other things too.
const MEDIAN_MAX: Duration = Duration::from_secs(3);
/// From the start of all members to the first write.
const START_MAX: Duration = Duration::from_secs(5);

/// With a leader and a majority, nobody waits longer for what others do.
const GAP_MAX: Duration = Duration::from_millis(500);

/// Who was connected to a member that died is connected to another this soon.
const MOVE_MAX: Duration = Duration::from_secs(1);

const REGISTRANTS: usize = 50;

/// Kills the leader again and again while 50 clients hold registrations. After each round all members hold the same, and in
/// the end a member of each kind has led.
pub(super) fn kill_leaders(kinds: &[Kind], rounds: usize) {
    let (times, stall) = kill_leaders_of(Run::start("kill-leaders", kinds, Profile::DEFAULT), rounds);
    assert!(times.iter().all(|time| *time <= RESUME_MAX + stall), "writes went on only after {times:?}");
}

/// The same with the timers that members have by default; half of the times are short.
pub(super) fn fail_over_as_shipped(kinds: &[Kind], rounds: usize) {
    let run = Run::start("fail-over-as-shipped", kinds, Profile::AS_SHIPPED);
    let (mut times, stall) = kill_leaders_of(run, rounds);
    times.sort_unstable();
    let median = times[times.len() / 2];
    eprintln!("with default timers the median is {median:?}");
    assert!(median <= MEDIAN_MAX + stall, "writes went on only after {times:?}");
}

/// Returns how long it took each time until writes went on, and the longest that the disk took.
fn kill_leaders_of(mut run: Run, rounds: usize) -> (Vec<Duration>, Duration) {
    let load = run.load(Workload { registrants: REGISTRANTS, ..LOAD_W });
    load.wait_for_registrants(REGISTRANTS, Duration::from_secs(10));
    let mut times = Vec::new();
    for _round in 0..rounds {
        go_on_for(seconds(1, 5));
        let leader = run.cluster.wait_for_leader();
        let killed = run.recorder.now();
        run.cluster.kill(leader);
        times.push(time_to_write(&run.recorder, killed));
        go_on_for(seconds(1, 3));
        run.cluster.restart(leader);
        run.compare(&load);
    }
    let_each_kind_lead(&mut run, &load);
    let stall = run.cluster.longest_disk_stall();
    let history = run.finish(load);
    eprintln!("writes went on after {times:?}; the disk took {stall:?}");
    assert_eq!(expired(&history), 0, "sessions were lost");
    (times, stall)
}

/// Who has seen more leads next, whatever its kind: where one kind never did, leaders are killed once more while nobody
/// writes. Between equals the highest id decides, and the two highest of a mixed ensemble are of different kinds.
fn let_each_kind_lead(run: &mut Run, load: &Load) {
    let members = &run.cluster.members;
    let kinds: BTreeSet<Kind> = members.iter().map(|member| member.kind).collect();
    for _attempt in 0..5 {
        if run.cluster.kinds_that_led() == kinds {
            return;
        }
        load.pause();
        let last = run.cluster.make_last_lead();
        if run.cluster.kinds_that_led() != kinds {
            run.cluster.wait_until_equal();
            run.cluster.kill(last);
            run.cluster.wait_for_leader();
            run.cluster.restart(last);
        }
        run.dump(load);
        load.resume();
        load.wait_for_writes(20, Duration::from_secs(20));
    }
    assert_eq!(run.cluster.kinds_that_led(), kinds, "some kind of member never led");
}

/// Kills a follower again and again: its clients move, and nobody else notices.
pub(super) fn kill_followers(kinds: &[Kind], rounds: usize) {
    let mut run = Run::start("kill-followers", kinds, Profile::DEFAULT);
    let load = run.load(Workload { registrants: REGISTRANTS, ..LOAD_W });
    load.wait_for_registrants(REGISTRANTS, Duration::from_secs(10));
    let mut random = fastrand::Rng::with_seed(2);
    let mut outages = Vec::new();
    for _round in 0..rounds {
        go_on_for(seconds(1, 3));
        let leader = run.cluster.wait_until_all_serve();
        let followers: Vec<usize> = (0..kinds.len()).filter(|index| *index != leader).collect();
        let follower = followers[random.usize(..followers.len())];
        let killed = run.recorder.now();
        run.cluster.kill(follower);
        go_on_for(seconds(1, 2));
        outages.push((run.cluster.members[follower].name(), killed, run.recorder.now()));
        run.cluster.restart(follower);
        run.cluster.wait_until_all_serve();
    }
    let stall = run.cluster.longest_disk_stall();
    let history = run.finish(load);
    let gaps: Vec<Duration> = outages.iter().map(|(_, from, to)| longest_gap(&history, *from, *to)).collect();
    eprintln!("longest times without a write: {gaps:?}; the disk took {stall:?}");
    assert!(gaps.iter().all(|gap| *gap <= GAP_MAX + stall), "writes were held up: {gaps:?}");
    // Who has moved stays: one that dies twice in a row has no clients the second time.
    let moves = outages
        .into_iter()
        .flat_map(|(server, killed, restarted)| reconnect_times(&history, &[server], killed, restarted));
    let moves: Vec<Duration> = moves.collect();
    let longest = moves.iter().max().expect("the first that died had clients");
    eprintln!("{} clients moved, each within {longest:?}", moves.len());
    assert!(*longest <= MOVE_MAX + stall, "clients of a dead follower took {longest:?} to move");
    assert_eq!(expired(&history), 0, "sessions were lost");
}

/// Kills a follower, then the leader, and brings them back in that order: meanwhile nothing is acknowledged, and the
/// one that missed the newest writes does not make the others forget them.
pub(super) fn lose_the_majority(kinds: &[Kind]) {
    let mut run = Run::start("lose-the-majority", kinds, Profile::DEFAULT);
    let load = run.load(LOAD_W);
    load.wait_for_writes(100, Duration::from_secs(10));
    let leader = run.cluster.wait_until_all_serve();
    let follower = (leader + 1) % kinds.len();
    run.cluster.kill(follower);
    go_on_for(seconds(2, 5));
    run.cluster.kill(leader);
    let from = run.recorder.now();
    go_on_for(seconds(4, 20));
    let to = run.recorder.now();
    run.cluster.restart(follower);
    load.wait_for_writes(20, Duration::from_secs(20));
    run.cluster.restart(leader);
    run.cluster.wait_until_all_serve();
    let history = run.finish(load);
    // A reply that the dying leader had sent may be read a moment later.
    let late = from + 200_000_000;
    let acknowledged = write_ends(&history).into_iter().filter(|end| (late..to).contains(end)).count();
    assert_eq!(acknowledged, 0, "writes were acknowledged by one member of three");
}

/// Kills all members at one moment, and starts them in any order; each time they hold the same afterwards.
pub(super) fn kill_all(kinds: &[Kind], rounds: usize) {
    let mut run = Run::start("kill-all", kinds, Profile::DEFAULT);
    let load = run.load(LOAD_W);
    let mut random = fastrand::Rng::with_seed(4);
    let mut times = Vec::new();
    for _round in 0..rounds {
        load.wait_for_writes(100, Duration::from_secs(20));
        for index in 0..kinds.len() {
            run.cluster.kill(index);
        }
        let mut order: Vec<usize> = (0..kinds.len()).collect();
        random.shuffle(&mut order);
        let started = run.recorder.now();
        order.into_iter().for_each(|index| run.cluster.restart(index));
        times.push(time_to_write(&run.recorder, started));
        run.compare(&load);
    }
    let stall = run.cluster.longest_disk_stall();
    run.finish(load);
    eprintln!("writes went on after {times:?}; the disk took {stall:?}");
    assert!(times.iter().all(|time| *time <= START_MAX + stall), "writes went on only after {times:?}");
}

mod ours {
    use super::*;

    #[test]
    fn dead_leaders_cost_no_write_and_no_session() {
        kill_leaders(&OURS, rounds(3, 30));
    }

    #[test]
    fn with_default_settings_writes_soon_go_on_without_a_leader() {
        fail_over_as_shipped(&OURS, rounds(3, 30));
    }

    #[test]
    fn dead_followers_hold_up_nobody() {
        kill_followers(&OURS, rounds(4, 60));
    }

    #[test]
    fn one_of_three_acknowledges_nothing_and_two_forget_nothing() {
        lose_the_majority(&OURS);
    }

    #[test]
    fn all_members_killed_at_once_forget_nothing() {
        kill_all(&OURS, rounds(4, 20));
    }
}

mod mixed {
    use super::*;

    #[test]
    fn dead_leaders_cost_nothing_with_ours_first_of_one_apache() {
        kill_leaders(&OURS_AND_ONE, rounds(2, 30));
    }

    #[test]
    fn dead_leaders_cost_nothing_with_ours_first_of_two_apaches() {
        kill_leaders(&OURS_AND_TWO, rounds(2, 30));
    }

    #[test]
    fn dead_leaders_cost_nothing_with_apache_first_of_one_of_ours() {
        kill_leaders(&APACHE_AND_ONE, rounds(2, 30));
    }

    #[test]
    fn dead_leaders_cost_nothing_with_apache_first_of_two_of_ours() {
        kill_leaders(&APACHE_AND_TWO, rounds(2, 30));
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn dead_followers_hold_up_nobody() {
        kill_followers(&OURS_AND_ONE, rounds(4, 60));
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn one_of_three_acknowledges_nothing_and_two_forget_nothing() {
        lose_the_majority(&APACHE_AND_ONE);
    }

    #[test]
    fn all_members_killed_at_once_forget_nothing() {
        kill_all(&OURS_AND_TWO, rounds(3, 20));
    }
}

/// What is asked of ours is asked of Apache's own.
mod apache {
    use super::*;

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn dead_leaders_cost_no_write_and_no_session() {
        kill_leaders(&APACHE, rounds(3, 30));
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn dead_followers_hold_up_nobody() {
        kill_followers(&APACHE, rounds(4, 60));
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn one_of_three_acknowledges_nothing_and_two_forget_nothing() {
        lose_the_majority(&APACHE);
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn all_members_killed_at_once_forget_nothing() {
        kill_all(&APACHE, rounds(3, 20));
    }
}
