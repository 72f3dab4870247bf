//! Storage over a disk that loses what was not synced, with the power failing at every step.
//!
//! Each seed is one story: a member appends, syncs, rolls, takes snapshots in slices, changes epochs and voters,
//! purges, reads its log, cuts its history back and has it replaced by another; at some operation of the disk the power
//! fails, or the process is killed, or a sync fails; recovery, in which the power may fail again, must find everything
//! that was acknowledged and nothing that is half done; and the member goes on. `ROLLCALL_SEED=n` tells one story again,
//! `ROLLCALL_STORIES=n` that many.

mod leader;
mod line;
mod met;
mod rot;
mod story;

use rollcall::storage::sim_disk::Honesty;

use crate::met::Met;
use crate::rot::{Outcome, flip_a_bit};
use crate::story::tell;

const STORIES: u64 = 500;

#[test]
fn what_was_acknowledged_survives_whatever_ends_a_member() {
    let seeds = match (number("ROLLCALL_SEED"), number("ROLLCALL_STORIES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, stories) => 0..stories.unwrap_or(STORIES),
    };
    let mut met = Met::default();
    for seed in seeds.clone() {
        if let Err(violation) = tell(seed, Honesty::Honest, &mut met) {
            panic!("{violation}\nsee it again with ROLLCALL_SEED={seed} cargo test --test crash");
        }
    }
    if seeds.end - seeds.start >= STORIES {
        println!("{met:?}");
        met.check_nothing_was_missed();
    }
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    for honesty in [Honesty::IgnoresFileSyncs, Honesty::IgnoresFolderSyncs] {
        let found = (0..60).filter(|seed| tell(*seed, honesty, &mut Met::default()).is_err()).count();
        assert!(found > 30, "{honesty:?}: only {found} of 60 stories notice");
    }
}

#[test]
fn a_flipped_bit_is_found_or_does_no_harm() {
    let mut met = [0; 3];
    let in_notes = (0..100).map(|seed| (seed, true));
    for (seed, is_note) in (0..1_000).map(|seed| (seed, false)).chain(in_notes) {
        match flip_a_bit(seed, is_note) {
            Ok(Outcome::Refused) => met[0] += 1,
            Ok(Outcome::Harmless) => met[1] += 1,
            Ok(Outcome::TakenForTorn) => met[2] += 1,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    println!("{met:?} refused, harmless, taken for torn");
    assert!(met.iter().all(|count| *count >= 20), "{met:?}");
}

/// A mistake in the storage itself is found out, too. It is made in the whole process: nextest gives each test its own.
#[cfg(rollcall_mutations)]
#[test]
fn deliberate_mistakes_are_found_out() {
    use rollcall::zab::mutation::{Mutation, choose};
    let is_noticed = |seed| {
        // A mistake may break an invariant as well.
        let outcome = std::panic::catch_unwind(|| {
            tell(seed, Honesty::Honest, &mut Met::default()).is_err() || flip_a_bit(seed, false).is_err()
        });
        outcome.unwrap_or(true)
    };
    for mutation in [Mutation::M14, Mutation::M20, Mutation::M21, Mutation::M22, Mutation::M24] {
        choose(Some(mutation));
        let found = (0..100).filter(|seed| is_noticed(*seed)).count();
        choose(None);
        println!("{mutation:?} ({}): {found} of 100 seeds notice", mutation.meaning());
        assert!(found > 0, "{mutation:?} goes unnoticed");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
