//! Members that are up, but not heard by all others.

use std::collections::VecDeque;
use std::time::Duration;

use super::{OURS, OURS_FIVE, rounds, seconds};
use crate::cluster::{Profile, START_LIMIT, go_on_for};
use crate::history::{Action, History, Record};
use crate::links::Flow;
use crate::load::{LOAD_W, Workload};
use crate::member::Kind;
use crate::run::{Run, time_to_write, write_ends};
use crate::wait::wait_until;

const LINKED: Profile = Profile { is_linked: true, ..Profile::DEFAULT };

const TOGGLE_PERIOD: Duration = Duration::from_millis(200);
/// From the moment at which all links are whole again until all members serve.
const CONVERGE_MAX: Duration = Duration::from_secs(10);
/// Half of the flows: enough to lose leaders, and not so many that nobody ever leads.
const CUT_MAX: usize = 10;

/// Cuts the leader off from all others: it acknowledges nothing more and stops leading, while the others go on. Healed,
/// it follows.
pub(super) fn isolate_the_leader(kinds: &[Kind], rounds: usize) {
    let mut run = Run::start("isolate-the-leader", kinds, LINKED);
    let mut leader = run.cluster.make_last_lead();
    // One client knows of no other member than the first of the leaders.
    let load = run.load(Workload { pinned: Some(leader), ..LOAD_W });
    load.wait_for_writes(100, START_LIMIT);
    let mut cuts = Vec::new();
    for _round in 0..rounds {
        let others: Vec<usize> = (0..kinds.len()).filter(|index| *index != leader).collect();
        run.cluster.links().set_between(&[leader], &others, Flow::Cut);
        let cut = run.recorder.now();
        let resumed = time_to_write(&run.recorder, cut);
        let member = &run.cluster.members[leader];
        wait_until("the old leader serves nobody", START_LIMIT, || member.state().is_none());
        let silent = Duration::from_nanos(run.recorder.now() - cut);
        go_on_for(seconds(5, 30).saturating_sub(silent));
        cuts.push((member.name(), cut, run.recorder.now()));
        run.cluster.links().heal();
        let back = wait_until("the old leader is taken back", START_LIMIT, || {
            run.cluster.members[leader].state().is_some()
        });
        eprintln!(
            "writes went on after {resumed:?}, it led no more after {silent:?}, was back after {back:?}"
        );
        leader = run.cluster.wait_until_all_serve();
        load.wait_for_writes(100, START_LIMIT);
    }
    let history = run.finish(load);
    for (server, cut, healed) in cuts {
        let answered = answers(&history, &server, cut, healed);
        assert_eq!(answered, 0, "{server} said yes {answered} times to what it was asked while it was alone");
    }
}

/// Cuts five members into two pairs that only the fifth hears both of. First a member of a pair leads, then the one in
/// the middle, then they all start anew like that. Three hear one another at any time, and go on.
pub(super) fn bridge(kinds: &[Kind; 5]) {
    let mut run = Run::start("bridge", kinds, LINKED);
    run.cluster.make_last_lead();
    let load = run.load(LOAD_W);
    load.wait_for_writes(100, START_LIMIT);
    for is_leader_between in [false, true] {
        let leader = run.cluster.wait_until_all_serve();
        let between = if is_leader_between { leader } else { (leader + 3) % kinds.len() };
        let sides: Vec<usize> = (0..kinds.len()).filter(|index| *index != between).collect();
        run.cluster.links().set_between(&sides[..2], &sides[2..], Flow::Cut);
        let cut = run.recorder.now();
        let resumed = time_to_write(&run.recorder, cut);
        load.wait_for_writes(20, START_LIMIT);
        go_on_for(seconds(3, 60));
        let writes = written(&run, cut);
        let leader_then = run.cluster.wait_for_leader();
        run.cluster.links().heal();
        eprintln!("m{} led, m{} was between", leader + 1, between + 1);
        eprintln!("m{} led then; a write after {resumed:?}, {writes} in all", leader_then + 1);
    }
    run.cluster.wait_until_all_serve();
    (0..kinds.len()).for_each(|index| run.cluster.kill(index));
    run.cluster.links().set_between(&[0, 1], &[3, 4], Flow::Cut);
    (0..kinds.len()).for_each(|index| run.cluster.restart(index));
    let started = run.recorder.now();
    let resumed = time_to_write(&run.recorder, started);
    load.wait_for_writes(20, START_LIMIT);
    eprintln!("started anew, a write after {resumed:?}");
    run.cluster.links().heal();
    run.cluster.wait_until_all_serve();
    load.wait_for_writes(20, START_LIMIT);
    run.finish(load);
}

/// Cuts and heals what one random member sends another, five times a second. The seed is printed; `ROLLCALL_SEED` sets it.
pub(super) fn flap(kinds: &[Kind]) {
    let seed = std::env::var("ROLLCALL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("ROLLCALL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let time = seconds(10, 120);
    // Ephemerals outlive their sessions for as long as nobody leads.
    let removal_slack = time + START_LIMIT;
    let mut run = Run::start("flap", kinds, Profile { removal_slack, ..LINKED });
    let load = run.load(LOAD_W);
    load.wait_for_writes(100, START_LIMIT);
    let epochs = run.cluster.epochs_led().len();
    let links = run.cluster.links();
    let begun = run.recorder.now();
    let mut cut = VecDeque::new();
    for _toggle in 0..time.as_millis() / TOGGLE_PERIOD.as_millis() {
        let from = random.usize(..kinds.len());
        let to = (from + random.usize(1..kinds.len())) % kinds.len();
        if let Some(place) = cut.iter().position(|link| *link == (from, to)) {
            cut.remove(place);
            links.set(from, to, Flow::Open);
        } else {
            cut.push_back((from, to));
            links.set(from, to, Flow::Cut);
        }
        if cut.len() > CUT_MAX {
            let (from, to) = cut.pop_front().expect("some are cut");
            links.set(from, to, Flow::Open);
        }
        go_on_for(TOGGLE_PERIOD);
    }
    links.heal();
    let healed = run.recorder.now();
    let writes = written(&run, begun);
    let resumed = time_to_write(&run.recorder, healed);
    run.cluster.wait_until_all_serve();
    let settled = Duration::from_nanos(run.recorder.now() - healed);
    let epochs = run.cluster.epochs_led().len() - epochs;
    eprintln!("{writes} writes, {epochs} elections; a write after {resumed:?}, all served after {settled:?}");
    let stall = run.cluster.longest_disk_stall();
    assert!(settled <= CONVERGE_MAX + stall, "all served only after {settled:?}; the disk took {stall:?}");
    run.compare(&load);
    load.wait_for_writes(20, START_LIMIT);
    run.finish(load);
}

/// How many writes were acknowledged since a moment.
fn written(run: &Run, since: u64) -> usize {
    run.recorder.look(write_ends).into_iter().filter(|end| *end > since).count()
}

/// How many writes and syncs this member granted that it was asked for after `from`, before `to`.
fn answers(history: &History, server: &str, from: u64, to: u64) -> usize {
    let operations = history.records.iter().filter_map(|record| {
        let Record::Operation(operation) = record else { return None };
        (operation.server == server).then_some(operation)
    });
    let granted = operations.filter(|operation| {
        let takes_a_quorum = operation.action.is_write() || operation.action == Action::Sync;
        takes_a_quorum
            && operation.started > from
            && operation.success().is_some_and(|reply| reply.ended < to)
    });
    granted.count()
}

mod ours {
    use super::*;

    #[test]
    fn a_leader_that_is_alone_acknowledges_nothing() {
        isolate_the_leader(&OURS, rounds(1, 4));
    }

    #[test]
    fn five_go_on_through_the_one_that_hears_all() {
        bridge(&OURS_FIVE);
    }

    #[test]
    fn links_that_come_and_go_cost_no_write() {
        flap(&OURS_FIVE);
    }
}
