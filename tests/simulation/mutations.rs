//! Each deliberate mistake is noticed, by an invariant with a name, or is no mistake here: then it is written why.
//!
//! Mistakes are compiled in by `--cfg rollcall_mutations` alone and are made by the whole process: `tests/mutations` runs this
//! and nothing else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rollcall::zab::mutation::{self, Mutation};
use tracing::level_filters::LevelFilter;

use crate::profile::Story;
use crate::runner::{self, Violation};
use crate::trace::Trace;

/// Stories told for each mistake at most; `ROLLCALL_SIM_SEEDS` sets another number.
const STORIES_MAX: u64 = 6_000;

/// Mistakes that change nothing that anybody can see, and why.
const EQUIVALENT: [(Mutation, &str); 3] = [
    (
        Mutation::M4,
        "a connection belongs to one reign, and what comes over it is in order: proposals of an older epoch cannot come, and \
         would not continue the history",
    ),
    (
        Mutation::M14,
        "a snapshot is written of the tree, which holds committed txns alone, and those are never cut off; where files say otherwise, \
         as Apache's may, the stories of failing disks notice it (`tests/crash`)",
    ),
    (
        Mutation::M25,
        "acks count only once the leader is established, and with that all of its history is committed",
    ),
];

#[test]
fn every_mutation_is_caught_by_an_invariant() {
    let stories_max =
        std::env::var("ROLLCALL_SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(STORIES_MAX);
    let wanted = std::env::var("ROLLCALL_MUTATION").ok();
    let mut wrong = Vec::new();
    for mutation in Mutation::ALL
        .into_iter()
        .filter(|mutation| wanted.as_ref().is_none_or(|name| format!("{mutation:?}") == *name))
    {
        let began = rollcall::clock::now();
        let found = hunt(mutation, stories_max);
        let took = rollcall::clock::now().saturating_duration_since(began).as_secs_f64();
        let equivalent = EQUIVALENT.iter().find(|(other, _)| *other == mutation);
        let verdict = match (&found.named, &found.other, equivalent) {
            (Some((story, violation)), _, _) => {
                format!("{} by story {story}: {}", violation.name(), violation.text)
            }
            (None, Some((story, violation)), _) => {
                format!("only {} by story {story}: {}", violation.name(), violation.text)
            }
            (None, None, Some((_, why))) => format!("equivalent: {why}"),
            (None, None, None) => "not noticed".to_owned(),
        };
        let verdict: String = verdict.chars().take(230).collect();
        println!(
            "{mutation:?}: {}\n    after {} stories, {took:.1} s: {verdict}",
            mutation.meaning(),
            found.stories
        );
        if found.named.is_some() == equivalent.is_some() {
            wrong.push(mutation);
        }
    }
    assert!(wrong.is_empty(), "not as expected: {wrong:?}");
}

struct Found {
    stories: u64,
    named: Option<(Story, Violation)>,
    /// An assertion of the code under test.
    other: Option<(Story, Violation)>,
}

/// Tells stories with the mistake made until an invariant breaks.
fn hunt(mutation: Mutation, stories_max: u64) -> Found {
    mutation::choose(Some(mutation));
    let next = AtomicU64::new(0);
    let found = Mutex::new(Found { stories: 0, named: None, other: None });
    let tell = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= stories_max {
                return;
            }
            let story = Story::new(seed, crate::family_of(seed));
            let told = runner::attempt(&story, &Trace::off(), LevelFilter::WARN);
            let mut found = found.lock().expect("nobody panics holding it");
            found.stories += 1;
            let Err(violation) = told else { continue };
            if violation.is_named() {
                found.named.get_or_insert((story, violation));
                next.store(stories_max, Ordering::Relaxed);
            } else {
                found.other.get_or_insert((story, violation));
            }
        }
    };
    runner::on_tellers(tell);
    mutation::choose(None);
    found.into_inner().expect("nobody panicked holding it")
}
