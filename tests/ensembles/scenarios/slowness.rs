//! Members that do all they should, only later than the others.

use std::time::Duration;

use super::{OURS, seconds};
use crate::cluster::{Profile, START_LIMIT, go_on_for};
use crate::history::History;
use crate::links::Flow;
use crate::load::{LOAD_W, Load, Workload};
use crate::member::Kind;
use crate::run::{Run, percentile, write_times};
use crate::throttle::PERIOD;
use crate::wait::wait_until;

/// What a link takes, each way.
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_millis(300);

/// What a sync takes on a slow disk.
const SYNC_DELAY: Duration = Duration::from_millis(300);

/// One that is worth a warning, and what that says.
const SYNC_DELAY_LONG: Duration = Duration::from_millis(1_100);
const SLOW_SYNC_WARNING: &str = "the disk is slow to sync the log";

/// Percent of the time in which a member runs.
const CPU_SHARE: u32 = 5;

/// Load W, and a client that stays with the member that is slow.
const WITH_ONE_AT_THE_FIRST: Workload = Workload { pinned: Some(0), ..LOAD_W };

/// Slows down everything between one follower and the others. Writes go on as fast as the others are, and nobody is
/// expelled.
pub(super) fn slow_link(kinds: &[Kind]) {
    let mut run = Run::start("slow-link", kinds, Profile { is_linked: true, ..Profile::PATIENT });
    let leader = run.cluster.make_last_lead();
    let load = run.load(WITH_ONE_AT_THE_FIRST);
    let before = observe(&mut run, &load, leader);
    let others: Vec<usize> = (1..kinds.len()).collect();
    run.cluster.links().set_between(&[0], &others, Flow::Delayed(DELAY_MIN, DELAY_MAX));
    let during = observe(&mut run, &load, leader);
    run.cluster.links().heal();
    let stall = run.cluster.longest_disk_stall();
    let history = run.finish(load);
    before.print("before", &history);
    during.print("with one behind a slow link", &history);
    let slow = during.times(&history, &[0]);
    let round_trip = DELAY_MIN * 2;
    assert!(!slow.is_empty(), "the slow member's clients were not served");
    assert!(slow[0] >= round_trip, "a write went through a link of {round_trip:?} in {:?}", slow[0]);
    let fast = during.times(&history, &others);
    let median = percentile(&fast, 50).expect("the others have clients");
    assert!(
        median < DELAY_MIN + stall,
        "half of the writes waited longer than {median:?} for the slow member"
    );
    assert_tail_is_no_longer(&before.times(&history, &others), &fast, round_trip + stall);
}

/// Slows down the syncs of one member, then of another too. A majority without the one is as fast as ever. Without the two
/// there is none, and no write is acknowledged before one of them has it on disk; nobody is expelled for that.
pub(super) fn slow_syncs(kinds: &[Kind], [first, second]: [usize; 2]) {
    let mut run = Run::start("slow-syncs", kinds, Profile { has_slow_syncs: true, ..Profile::PATIENT });
    let leader = run.cluster.make_last_lead();
    let load = run.load(WITH_ONE_AT_THE_FIRST);
    let before = observe(&mut run, &load, leader);
    run.cluster.slow_syncs(first, Some(SYNC_DELAY));
    let one = observe(&mut run, &load, leader);
    let told = longest_sync(&run, first);
    assert!(
        told >= SYNC_DELAY,
        "a member whose syncs take {SYNC_DELAY:?} says that none took longer than {told:?}"
    );
    run.cluster.slow_syncs(second, Some(SYNC_DELAY));
    let both = observe(&mut run, &load, leader);
    run.cluster.slow_syncs(second, None);
    let warnings = run.cluster.members[first].log().matches(SLOW_SYNC_WARNING).count();
    run.cluster.slow_syncs(first, Some(SYNC_DELAY_LONG));
    wait_until("a disk that takes more than a second for a sync is warned of", START_LIMIT, || {
        run.cluster.members[first].log().matches(SLOW_SYNC_WARNING).count() > warnings
    });
    run.cluster.slow_syncs(first, None);
    let stall = run.cluster.longest_disk_stall();
    let history = run.finish(load);
    before.print("before", &history);
    one.print("with one slow disk", &history);
    both.print("with two slow disks", &history);
    let fast: Vec<usize> = (0..kinds.len()).filter(|index| *index != first).collect();
    let [calm, slowed] = [&before, &one].map(|stretch| stretch.times(&history, &fast));
    let median = percentile(&slowed, 50).expect("the others have clients");
    assert!(median < SYNC_DELAY / 2 + stall, "half of the writes waited longer than {median:?} for one disk");
    assert_tail_is_no_longer(&calm, &slowed, SYNC_DELAY + stall);
    // Whatever is asked for once both are slow is written, and then synced, by a slow disk before there is a majority.
    let slow = both.times(&history, &[0, 1, 2]);
    let shortest = slow.first().copied().expect("writes went on");
    assert!(shortest >= SYNC_DELAY, "a write took {shortest:?}, and no majority can have had it on disk");
}

/// What the member says its longest sync took.
fn longest_sync(run: &Run, index: usize) -> Duration {
    let seconds = run.cluster.members[index].metric("rollcall_ensemble_sync_max_seconds");
    Duration::from_secs_f64(seconds.expect("the member has the metric"))
}

/// Gives one follower a twentieth of a processor. Writes go on as fast as the others are, and nobody is expelled.
pub(super) fn little_cpu(kinds: &[Kind]) {
    let mut run = Run::start("little-cpu", kinds, Profile::PATIENT);
    let leader = run.cluster.make_last_lead();
    let load = run.load(LOAD_W);
    let before = observe(&mut run, &load, leader);
    let throttle = run.cluster.throttle(0, CPU_SHARE);
    let during = observe(&mut run, &load, leader);
    drop(throttle);
    let stall = run.cluster.longest_disk_stall();
    let history = run.finish(load);
    before.print("before", &history);
    during.print(&format!("with {CPU_SHARE} % of the time for m1"), &history);
    let others: Vec<usize> = (1..kinds.len()).collect();
    let times = [before, during].map(|stretch| stretch.times(&history, &others));
    let [calm, slowed] = times.each_ref().map(|times| percentile(times, 50).expect("they have clients"));
    // The slow one sleeps for 95 ms at a time: whoever waited for it would wait for half of that.
    assert!(
        slowed < calm + Duration::from_millis(40) + stall,
        "half of the writes took {calm:?}, then {slowed:?}"
    );
    assert_tail_is_no_longer(&times[0], &times[1], PERIOD * 2 + stall);
}

/// Of a hundred writes no more than one takes longer than before by as much as it would wait for the one that is slow. (A
/// moment in which the machine does other things holds up several at a time, in either stretch.)
fn assert_tail_is_no_longer(before: &[Duration], during: &[Duration], slack: Duration) {
    let [before, during] = [before, during].map(|times| percentile(times, 99).expect("they have clients"));
    assert!(during < before + slack, "99 % of the writes took up to {before:?}, then {during:?}");
}

/// A stretch of a run in which the leader stayed the same.
#[derive(Debug)]
struct Stretch {
    from: u64,
    to: u64,
}

/// Lets writes go on for a while, and demands that nobody is elected meanwhile.
fn observe(run: &mut Run, load: &Load, leader: usize) -> Stretch {
    let led = run.cluster.epochs_led();
    let from = run.recorder.now();
    load.wait_for_writes(50, START_LIMIT);
    go_on_for(seconds(3, 30));
    let to = run.recorder.now();
    assert_eq!(run.cluster.wait_until_all_serve(), leader, "another leads");
    assert_eq!(run.cluster.epochs_led(), led, "there was an election");
    Stretch { from, to }
}

impl Stretch {
    /// How long the writes of these members' clients took.
    fn times(&self, history: &History, members: &[usize]) -> Vec<Duration> {
        let servers: Vec<String> = members.iter().map(|member| format!("m{}", member + 1)).collect();
        write_times(history, &servers, self.from, self.to)
    }

    fn print(&self, when: &str, history: &History) {
        for member in 0..3 {
            let times = self.times(history, &[member]);
            let [median, most] = [50, 99].map(|percent| percentile(&times, percent));
            eprintln!(
                "{when}: {} writes by m{}, half within {median:?}, 99 % within {most:?}",
                times.len(),
                member + 1
            );
        }
    }
}

mod ours {
    use super::*;

    #[test]
    fn a_slow_link_holds_up_nobody_else_and_nobody_is_expelled() {
        slow_link(&OURS);
    }

    #[test]
    fn a_follower_with_little_cpu_holds_up_nobody_and_is_not_expelled() {
        little_cpu(&OURS);
    }

    #[test]
    fn one_slow_disk_holds_up_nobody_and_two_are_waited_for() {
        slow_syncs(&OURS, [0, 1]);
    }

    #[test]
    fn a_leaders_slow_disk_holds_up_nobody_and_two_are_waited_for() {
        slow_syncs(&OURS, [2, 0]);
    }
}
