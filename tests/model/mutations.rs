//! Each mistake that breaks the order of things is found, by a property with a name and a shortest trace.
//!
//! Mistakes are compiled in by `--cfg rollcall_mutations` alone and are made by the whole process: `tests/mutations` runs this
//! and nothing else.

use rollcall::zab::mutation::{self, Mutation};

use crate::bounds::{Bounds, Election, disks_of_epoch_1};
use crate::property::Property;
use crate::search::{Found, search};
use crate::{disks_late, real_votes};

type Case = (Mutation, Property, fn() -> Bounds);

/// What each mistake breaks first, within which bounds.
const BROKEN: [Case; 13] = [
    (Mutation::M1, Property::CommittedIsNeverLost, disks_late),
    (Mutation::M2, Property::CommittedIsNeverLost, disks_late),
    (Mutation::M3, Property::CommittedIsNeverLost, disks_late),
    (Mutation::M5, Property::CommittedIsNeverLost, disks_late),
    (Mutation::M6, Property::CommittedIsNeverLost, disks_late),
    (Mutation::M7, Property::PromisesAreKept, disks_late),
    (Mutation::M8, Property::CommittedIsNeverLost, disks_late),
    (Mutation::M9, Property::PromisesAreKept, disks_late),
    // Whoever leads, discovery must notice; and of two who ask nobody, votes must choose the one who has everything.
    (Mutation::M10, Property::CommittedIsNeverLost, disks_late),
    (Mutation::M10, Property::LeaderHasEverything, votes_of_three_rounds),
    (Mutation::M11, Property::MembersUnderstandOneAnother, disks_late),
    (Mutation::M12, Property::MembersUnderstandOneAnother, disks_late),
    (Mutation::M13, Property::MembersUnderstandOneAnother, disks_late),
];

#[test]
fn every_mutation_is_caught_by_an_invariant() {
    let wanted = std::env::var("ROLLCALL_MUTATION").ok();
    let mut wrong = Vec::new();
    for (mutation, property, bounds) in BROKEN {
        if wanted.as_ref().is_some_and(|name| format!("{mutation:?}") != *name) {
            continue;
        }
        let bounds = bounds();
        let found = search_with(mutation, &bounds);
        println!("{mutation:?}: {}\n{bounds}\n{found}\n", mutation.meaning());
        if found.violation.is_none_or(|(violation, _)| violation.property != property) {
            wrong.push(mutation);
        }
    }
    assert!(wrong.is_empty(), "not as expected: {wrong:?}");
}

/// Two have a txn that the third has not.
fn votes_of_three_rounds() -> Bounds {
    Bounds {
        election: Election::Real { rounds: 3 },
        proposals: 0,
        disks_at_start: disks_of_epoch_1([1, 1, 0]),
        ..real_votes()
    }
}

fn search_with(mutation: Mutation, bounds: &Bounds) -> Found {
    mutation::choose(Some(mutation));
    let found = search(bounds);
    mutation::choose(None);
    found
}
