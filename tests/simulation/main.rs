//! The deterministic simulation: the real replica and the real storage over a simulated network, disk and clock.
//!
//! Each seed is one story. It draws a profile (how many members, how fast, which faults), has them go through a storm of
//! faults under load, and then a quiet time in which all must be well again. After every event the invariants I1 to I17 are
//! checked from outside, but for I16, which is about a sidecar's cache, and shown in `answers/carried.rs`; a failure names
//! one.
//!
//! ```text
//! profile ─► world ─┬─ members: Replica + Storage<SimDisk>, a log thread, clocks that drift
//!                   ├─ network: directed cuts, connections as TCP's, votes that get lost
//!                   ├─ clients: sessions, pipelines, watches, over the real wire protocol
//!                   └─ faults, each kind with random numbers of its own
//! shadow, canon, protocol, properties, watches: what must hold
//! ```
//!
//! `ROLLCALL_SEED=<story>` tells one story again, with the last 200 events; `ROLLCALL_SIM_SEEDS=<count>` tells many, from
//! `ROLLCALL_SIM_FIRST=<seed>` on. Stories that ever failed stay in `regressions.txt`.
#![expect(clippy::wildcard_enum_match_arm, reason = "a story names what it expects; anything else fails it")]
#![expect(clippy::print_stdout, reason = "what was told, and which story failed, is read by whoever runs it")]

mod alarm;
mod canon;
mod client;
mod coverage;
mod failover;
mod faults;
mod member;
#[cfg(rollcall_mutations)]
mod mutations;
mod network;
mod profile;
mod properties;
mod protocol;
mod runner;
mod shadow;
mod time;
mod trace;
mod watches;
mod workload;
mod world;

use coverage::Coverage;
use profile::{Family, Story};

/// Stories of a usual run.
const STORIES: u64 = 2_000;

#[test]
fn whatever_fails_the_invariants_hold() {
    if let Ok(story) = std::env::var("ROLLCALL_SEED") {
        return runner::tell_again(&Story::parse(&story));
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, count) =
        (number("ROLLCALL_SIM_FIRST").unwrap_or(0), number("ROLLCALL_SIM_SEEDS").unwrap_or(STORIES));
    let stories = (first..first + count).map(|seed| Story::new(seed, family_of(seed)));
    let coverage = runner::tell_all(stories.collect());
    if count >= STORIES {
        check_nothing_was_missed(&coverage);
    }
}

#[test]
fn stories_that_failed_once_do_not_fail_again() {
    let stories =
        include_str!("regressions.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    runner::tell_all(stories.map(Story::parse).collect());
}

#[test]
fn a_story_told_twice_is_the_same() {
    for seed in 0..50 {
        let story = Story::new(seed, family_of(seed));
        let told = [runner::outcome(&story), runner::outcome(&story)];
        assert_eq!(told[0], told[1], "{story}");
    }
}

const fn family_of(seed: u64) -> Family {
    match seed % 8 {
        6 => Family::Core,
        7 => Family::Diverge,
        _ => Family::Swarm,
    }
}

fn check_nothing_was_missed(coverage: &Coverage) {
    let missing = coverage.missing();
    assert!(missing.is_empty(), "some situations were never met: {missing:?}");
}
