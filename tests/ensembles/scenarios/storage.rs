//! Damaged files of one member: it comes back with what the others have, or says what is wrong and stays away until its
//! files are gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{APACHE, OURS, client_of, create, write_many};
use crate::client::Client;
use crate::cluster::{Profile, START_LIMIT};
use crate::load::{LOAD_W, Load, Workload};
use crate::member::{Kind, Member};
use crate::run::Run;
use crate::wait::wait_for;

/// Nothing is written but what a scenario writes.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Many snapshots and logs of a few hundred txns.
const PROFILE: Profile =
    Profile { snapshot_txns: 200, session_timeout_max: SESSION_TIMEOUT, ..Profile::PATIENT };
const VICTIM: usize = 0;

/// What became of a member with damaged files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Serves,
    /// It ended by itself, and its log has more than before.
    Refuses,
}

/// An ensemble with some history, and a client of it.
struct World {
    run: Run,
    load: Load,
    client: Client,
}

impl World {
    fn start(scenario: &str, kinds: &[Kind]) -> Self {
        let mut run = Run::start(scenario, kinds, PROFILE);
        let leader = run.cluster.make_last_lead();
        let load =
            run.load(Workload { writers: 0, observers: 0, session_timeout: SESSION_TIMEOUT, ..LOAD_W });
        let mut client = client_of(&run.cluster, leader, "client", SESSION_TIMEOUT, &run.recorder);
        load.block_on(create(&mut client, "/x"));
        let mut world = Self { run, load, client };
        world.write(600);
        world
    }

    fn write(&mut self, count: usize) {
        self.load.block_on(write_many(&mut self.client, "/x", count, 0));
        self.run.cluster.wait_until_equal();
    }

    fn victim(&mut self) -> &mut Member {
        &mut self.run.cluster.members[VICTIM]
    }

    /// Kills the member, damages its files, and starts it again while the others have gone on.
    fn damage(&mut self, damage: impl FnOnce(&Member)) -> Outcome {
        self.run.cluster.kill(VICTIM);
        damage(self.victim());
        self.write(20);
        let said = self.victim().log().len();
        self.run.cluster.restart(VICTIM);
        let outcome = wait_for("the member serves or ends", START_LIMIT, || {
            let victim = self.victim();
            if victim.has_ended() {
                return Some(Outcome::Refuses);
            }
            victim.state().map(|_serving| Outcome::Serves)
        });
        if outcome == Outcome::Serves {
            self.run.cluster.wait_until_all_serve();
            self.run.dump(&self.load);
        } else {
            let log = self.victim().log();
            let lines: Vec<&str> = log[said..].lines().filter(|line| is_complaint(line)).collect();
            eprintln!("refused: {}", lines.join("\n  "));
            assert!(!lines.is_empty(), "the member ended and did not say why");
        }
        outcome
    }

    /// What an operator does about a member that refuses its files.
    fn replace(&mut self) {
        self.run.cluster.kill(VICTIM);
        self.victim().wipe();
        self.run.cluster.restart(VICTIM);
        self.run.cluster.wait_until_all_serve();
        self.run.dump(&self.load);
    }

    fn finish(self) {
        self.load.block_on(self.client.close());
        self.run.finish(self.load);
    }
}

/// A crash while the next log file was being made leaves one that is empty, or in part, or zeros: nothing is missing.
pub(super) fn begin_a_log(kinds: &[Kind]) {
    let mut world = World::start("begin-a-log", kinds);
    for content in [&[0_u8; 0][..], &[0; 1], b"ZKLG\0\0\0", b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0", &[0; 4096]] {
        let outcome = world.damage(|member| {
            let last = member.last_logged();
            fs::write(member.version_2().join(format!("log.{:x}", last + 1)), content)
                .expect("a file can be written");
        });
        if outcome == Outcome::Refuses && kinds[VICTIM] == Kind::Apache {
            eprintln!("Apache does not start on a new log file of {} bytes", content.len());
            world.replace();
            continue;
        }
        assert_eq!(outcome, Outcome::Serves, "with a new log file of {} bytes", content.len());
    }
    world.finish();
}

/// A flipped bit in the middle of the log is never taken for its end: what lies behind it was acknowledged.
pub(super) fn flip_a_bit_in_the_log(kinds: &[Kind]) {
    let mut world = World::start("flip-in-log", kinds);
    // Enough behind the newest snapshot to have a middle.
    while used(&world.victim().newest("log.")) < 3_000 {
        world.write(7);
    }
    let outcome = world.damage(|member| {
        let path = member.newest("log.");
        let middle = used(&path) / 2;
        flip(&path, middle);
    });
    eprintln!("a flipped bit in the log: {outcome:?}");
    if outcome == Outcome::Refuses {
        world.replace();
    }
    world.finish();
}

/// A damaged newest snapshot is passed over for the one before.
pub(super) fn damage_a_snapshot(kinds: &[Kind]) {
    let mut world = World::start("damage-a-snapshot", kinds);
    assert!(world.victim().files("snapshot.").len() >= 3, "there are snapshots to fall back on");
    let flip_middle = |path: &Path| flip(path, used(path) / 2);
    let cut = |path: &Path| {
        let bytes = fs::read(path).expect("a snapshot can be read");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("a snapshot can be written");
    };
    let damages: [&dyn Fn(&Path); 2] = [&flip_middle, &cut];
    for damage in damages {
        let outcome = world.damage(|member| damage(&member.newest("snapshot.")));
        assert_eq!(outcome, Outcome::Serves, "with a damaged snapshot and all that came before");
    }
    world.finish();
}

impl Member {
    fn newest(&self, prefix: &str) -> PathBuf {
        self.files(prefix).pop().expect("there is one")
    }

    /// The last zxid that its newest log can hold: as far as the others are, since it had all of it.
    fn last_logged(&self) -> i64 {
        let name = self.newest("log.");
        let name = name.file_name().and_then(|name| name.to_str()).expect("log names are text");
        let first = i64::from_str_radix(name.trim_start_matches("log."), 16).expect("a zxid in hex");
        // No two logs have a name in common if the next one's is far enough away.
        first + 100_000
    }
}

fn is_complaint(line: &str) -> bool {
    ["ERROR", "Exception", "error", "log."].iter().any(|word| line.contains(word))
}

/// The bytes of a file up to the zeros that it was made longer with.
fn used(path: &Path) -> usize {
    let bytes = fs::read(path).expect("a file can be read");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file can be read");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("a file can be written");
}

mod ours {
    use super::*;

    #[test]
    fn a_log_that_was_only_begun_is_no_damage() {
        begin_a_log(&OURS);
    }

    #[test]
    fn a_flipped_bit_in_the_log_loses_nothing() {
        flip_a_bit_in_the_log(&OURS);
    }

    #[test]
    fn a_damaged_snapshot_is_passed_over() {
        damage_a_snapshot(&OURS);
    }
}

/// What is asked of ours is asked of Apache's own.
mod apache {
    use super::*;

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn a_log_that_was_only_begun_is_no_damage() {
        begin_a_log(&APACHE);
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn a_flipped_bit_in_the_log_loses_nothing() {
        flip_a_bit_in_the_log(&APACHE);
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn a_damaged_snapshot_is_passed_over() {
        damage_a_snapshot(&APACHE);
    }
}
