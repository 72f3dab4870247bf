//! The protocol's core, checked exhaustively within bounds: three real peers, in every order in which things may happen.
//!
//! ```text
//! Bounds ─► search, breadth first ─► World ─ Step ─► World      each World: three Peers by number, disks, connections, votes
//!                                     └─ Peers: what a Peer does about an input is asked of the real one, once
//! ```
//!
//! Every test goes through all states within its own bounds and prints how many there are; no state is left out, none is
//! drawn by lot. Tests differ in what may be late (the disks, the packets), in who elects (the members' votes; or anybody may
//! lead at any time, which is more than votes can bring about, since discovery alone must keep that safe), and in
//! what goes wrong, and how often: crashes with a restart, connections that break, each end finding out at its time.
//! `ROLLCALL_MODEL=deep` goes further, for minutes to hours.
//!
//! What is not in here: observers, pings and syncs, sessions, snapshots that a member takes of itself, the bytes on disk and wire,
//! time as such (a deadline may pass whenever it is set). The simulation has those, but not every order.
//!
//! Members leave no traces of how they came to a state but in it, so each state of a peer is kept once, and of the whole only
//! the numbers of its parts: a general model checker, which would clone and hash three peers for every step, had some hundred
//! times as much to do.

mod bounds;
mod disk;
#[cfg(rollcall_mutations)]
mod mutations;
mod peers;
mod property;
mod search;
mod step;
mod world;

use bounds::{Bounds, Election, Pace, blank_disks, disks_of_epoch_1};

/// Disks and packets are late, two may lead, one crashes.
#[test]
fn with_packets_and_disks_late_through_two_reigns() {
    let bounds = Bounds { reigns: 2, proposals: 1, crashes: 1, ..late(Pace::Lazy, Pace::Lazy) };
    check(bounds, |deep| Bounds { breaks: 1, ..deep });
}

/// Packets are late: what was sent in one reign arrives in the next.
#[test]
fn with_packets_late_and_two_proposals() {
    let bounds = Bounds { reigns: 2, proposals: 2, crashes: 1, ..late(Pace::Eager, Pace::Lazy) };
    check(bounds, |deep| Bounds { breaks: 1, ..deep });
}

/// Disks are late: of what was asked for before a crash, any first part was done.
#[test]
fn with_disks_late_and_a_connection_that_breaks() {
    let bounds = disks_late();
    check(bounds, |deep| Bounds { reigns: 3, crashes: 2, ..deep });
}

/// Three reigns: histories diverge across epochs, and are cut back or replaced.
#[test]
fn through_three_reigns_with_many_faults() {
    let bounds = Bounds { reigns: 3, proposals: 2, crashes: 2, breaks: 2, ..late(Pace::Eager, Pace::Eager) };
    let found = check(bounds, |deep| Bounds { reigns: 4, proposals: 3, ..deep });
    assert_eq!((found.reigns, found.delivered), (3, 2));
    for packet in ["Diff", "Trunc", "Snap"] {
        assert!(found.packets.contains(packet), "no learner was synchronized by {packet}");
    }
}

/// Members begin with histories of different lengths, and learners are synchronized from the log alone.
#[test]
fn from_histories_of_different_lengths() {
    let bounds = Bounds {
        reigns: 3,
        proposals: 2,
        crashes: 1,
        breaks: 1,
        window_entries: 0,
        disks_at_start: disks_of_epoch_1([2, 1, 0]),
        ..late(Pace::Eager, Pace::Eager)
    };
    check(bounds, |deep| Bounds { disks: Pace::Lazy, ..deep });
}

/// Real votes, in every order, from histories of different lengths.
#[test]
fn with_real_votes_and_a_connection_that_breaks() {
    let bounds = real_votes();
    check(bounds, |deep| Bounds { crashes: 1, ..deep });
}

/// Real votes, one member crashes at any point, and its votes outlive it.
#[test]
fn with_real_votes_and_a_crash() {
    let bounds = Bounds {
        proposals: 0,
        breaks: 0,
        crashes: 1,
        disks_at_start: disks_of_epoch_1([0; 3]),
        ..real_votes()
    };
    check(bounds, |deep| Bounds { proposals: 1, disks: Pace::Lazy, ..deep });
}

/// Nobody has a history: all three must be there.
#[test]
fn at_the_first_start() {
    let bounds =
        Bounds { election: Election::Real { rounds: 3 }, disks_at_start: blank_disks(), ..real_votes() };
    check(bounds, |deep| Bounds { crashes: 1, ..deep });
}

/// Anybody may lead; what is late is said.
fn late(disks: Pace, packets: Pace) -> Bounds {
    Bounds {
        election: Election::Any,
        disks,
        packets,
        reigns: 0,
        proposals: 0,
        crashes: 0,
        wipes: 0,
        breaks: 0,
        window_entries: 100,
        disks_at_start: disks_of_epoch_1([0; 3]),
        states_max: 2_000_000,
    }
}

fn disks_late() -> Bounds {
    Bounds { reigns: 2, proposals: 2, crashes: 1, breaks: 1, ..late(Pace::Lazy, Pace::Eager) }
}

fn real_votes() -> Bounds {
    Bounds {
        election: Election::Real { rounds: 2 },
        proposals: 1,
        breaks: 1,
        disks_at_start: disks_of_epoch_1([1, 2, 0]),
        ..late(Pace::Eager, Pace::Eager)
    }
}

/// Searches within these bounds, or, when asked to, within wider ones.
#[expect(clippy::print_stdout, reason = "how many states there are is what a search has to say")]
fn check(bounds: Bounds, deepen: impl FnOnce(Bounds) -> Bounds) -> search::Found {
    let is_deep = std::env::var("ROLLCALL_MODEL").is_ok_and(|depth| depth == "deep");
    let bounds = if is_deep { Bounds { states_max: usize::MAX, ..deepen(bounds) } } else { bounds };
    let began = rollcall::clock::now();
    let found = search::search(&bounds);
    let took = rollcall::clock::now().saturating_duration_since(began).as_secs_f64();
    println!("{bounds}\n{found}\n{took:.1} s");
    assert!(found.violation.is_none(), "a property does not hold; its name and a shortest trace are above");
    found
}

/// One member loses its disk; the votes of the others keep what it held.
#[test]
fn with_real_votes_and_a_disk_lost() {
    let bounds = Bounds { breaks: 0, wipes: 1, disks_at_start: disks_of_epoch_1([1, 1, 0]), ..real_votes() };
    check(bounds, |deep| Bounds { election: Election::Real { rounds: 3 }, ..deep });
}
