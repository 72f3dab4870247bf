//! How soon writes go on when a leader is killed: exact, in virtual time, with the timers that members have by default.

use tracing::level_filters::LevelFilter;

use crate::alarm::Listener;
use crate::network::Latency;
use crate::profile::{Family, Fault, Overrides, Profile};
use crate::runner::on_teller;
use crate::time::{MS, Nanos, SECOND};
use crate::trace::Trace;
use crate::world::World;

const ROUNDS: u64 = 31;
/// What the median may be.
const MEDIAN_MAX: Nanos = 300 * MS;

#[test]
fn writes_go_on_within_300_ms_of_the_leaders_death_by_the_median() {
    let mut times: Vec<_> = (0..ROUNDS).map(|seed| on_teller(|| time_to_write(seed))).collect();
    times.sort_unstable();
    let ms = |nanos: Nanos| nanos as f64 / MS as f64;
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("median {:.1} ms, slowest {:.1} ms of {ROUNDS}", ms(median), ms(slowest));
    assert!(median < MEDIAN_MAX, "{:.1} ms", ms(median));
}

/// From the death of a settled ensemble's leader to the first txn of the next that a client is told of.
fn time_to_write(seed: u64) -> Nanos {
    tracing::subscriber::with_default(Listener { level: LevelFilter::WARN }, || {
        let overrides = Overrides { plain_network: true, without_triggers: true, ..Overrides::default() };
        let mut world = World::new(profile(seed), &overrides, Trace::off());
        while world.agenda.now() < SETTLED_AT || world.leading().is_none() {
            world.step();
        }
        let (killed_at, leader) = (world.agenda.now(), world.leading().expect("there is one"));
        let epoch = world.floor.epoch();
        world.strike(Fault::Kill, leader);
        while world.floor.epoch() == epoch {
            world.step();
        }
        world.agenda.now() - killed_at
    })
}

/// Three members with the defaults of the settings, in one datacenter, with disks that sync within 5 ms.
fn profile(seed: u64) -> Profile {
    let mut profile = Profile::draw(seed, Family::Swarm, &Overrides::default());
    profile.faults.clear();
    profile.triggers.clear();
    Profile {
        voters: 3,
        observers: 0,
        clients: 3,
        tick: 2 * SECOND,
        finalize_wait: 200 * MS,
        window_entries: 1_000,
        snapshot_txns: 100_000,
        has_local_sessions: false,
        storm: 3_600 * SECOND,
        latency: Latency { min: MS / 20, max: MS / 2, one_slow_in: 0 },
        one_vote_lost_in: 0,
        one_vote_doubled_in: 0,
        sync_max: 5 * MS,
        drift_ppm_max: 200,
        request_pause: 8 * MS,
        ..profile
    }
}

const SETTLED_AT: Nanos = 5 * SECOND;
