//! A member whose disk is full leaves the others alone, and comes back when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{APACHE, OURS};
use crate::cluster::{Profile, go_on_for};
use crate::disk::SmallDisk;
use crate::load::{LOAD_W, Workload};
use crate::member::Kind;
use crate::run::{Run, longest_gap};
use crate::wait::wait_for;

/// Who runs out of space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Leader,
    Follower,
}

const DISK_BYTES: u64 = 8 << 20;
/// ENOSPC, as the C library words it.
const REASON: &str = "No space left on device";
/// From the moment that the disk is full.
const RESUME_MAX: Duration = Duration::from_secs(5);

/// Fills the member's disk under load.
pub(super) fn fill_the_disk(kinds: &[Kind], victim: Victim) {
    let index = if victim == Victim::Leader { kinds.len() - 1 } else { 0 };
    if !SmallDisk::is_possible() {
        eprintln!("NOT RUN: this needs the right to mount a tmpfs");
        return;
    }
    let scenario = if victim == Victim::Leader { "full-leader" } else { "full-follower" };
    let profile = Profile { small_disk: Some((index, DISK_BYTES)), ..Profile::DEFAULT };
    let mut run = Run::start(scenario, kinds, profile);
    run.cluster.make_last_lead();
    let load = run.load(Workload { registrants: 10, ..LOAD_W });
    load.wait_for_writes(100, Duration::from_secs(10));
    let ballast = fill(&run.cluster.members[index].data());
    let full = run.recorder.now();
    wait_for("the member with the full disk ends, or stops serving", Duration::from_secs(30), || {
        let member = &mut run.cluster.members[index];
        // Apache's may hang; ours ends.
        let is_silent = member.kind == Kind::Apache && member.state().is_none();
        (member.has_ended() || is_silent).then_some(())
    });
    let log = run.cluster.members[index].log();
    let last = log.lines().last().unwrap_or_default();
    eprintln!("the last line of its log: {last}");
    assert!(kinds[index] == Kind::Apache || last.contains(REASON), "its last line does not say why: {last}");
    load.wait_for_writes(200, Duration::from_secs(10));
    go_on_for(Duration::from_secs(1));
    let gap = longest_gap(&run.recorder.history(), full, run.recorder.now());
    fs::remove_file(ballast).expect("a file can be removed");
    eprintln!("longest time without a write {gap:?}");
    // As a supervisor does, whether it ended or hangs.
    run.cluster.kill(index);
    run.cluster.restart(index);
    run.cluster.wait_until_all_serve();
    let stall = run.cluster.longest_disk_stall();
    run.finish(load);
    assert!(gap <= RESUME_MAX + stall, "one full disk held up writes for {gap:?}");
}

/// Leaves no room.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("ballast");
    let mut file = File::create(&path).expect("a file can be made");
    while file.write_all(&[1; 512]).is_ok() {}
    path
}

mod ours {
    use super::*;

    #[test]
    fn a_full_disk_takes_a_follower_away_and_no_more() {
        fill_the_disk(&OURS, Victim::Follower);
    }

    #[test]
    fn a_full_disk_takes_the_leader_away_and_no_more() {
        fill_the_disk(&OURS, Victim::Leader);
    }
}

/// What is asked of ours is asked of Apache's own.
mod apache {
    use super::*;

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn a_full_disk_takes_a_follower_away_and_no_more() {
        fill_the_disk(&APACHE, Victim::Follower);
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn a_full_disk_takes_the_leader_away_and_no_more() {
        fill_the_disk(&APACHE, Victim::Leader);
    }
}
