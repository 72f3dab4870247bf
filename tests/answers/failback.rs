//! The application of a primary fails, and is well again.

use std::ops::Range;
use std::time::Duration;

use rollcall::clock;
use tokio::time::sleep;

use crate::application::{Condition, REPORT_INTERVAL, RISE};
use crate::expectation::{assert_seen, moves, phases};
use crate::record::{Lookups, Move};
use crate::sidecar::registration;
use crate::told::Phase;
use crate::world::{FAILBACK_AFTER, REACTION, SETTLING, World, automatic};

const OUTAGES: usize = 50;
/// What an outage is, in turns.
const CONDITIONS: [Condition; 3] = [Condition::Dead, Condition::Ill, Condition::Flapping];
/// Shorter than any fall time, shorter than the time after which a primary returns, and longer.
const LENGTHS_MS: [Range<u64>; 3] = [1..2_000, 2_000..29_000, 29_000..60_000];
/// Many times what a primary waits for that comes back by itself.
const LONG: Duration = Duration::from_secs(900);

#[tokio::test(start_paused = true)]
async fn answers_leave_a_primary_whose_application_says_nothing_any_more() {
    moves_to_the_standby_and_back(Condition::Dead).await;
}

#[tokio::test(start_paused = true)]
async fn answers_leave_a_primary_whose_application_says_that_it_is_ill() {
    moves_to_the_standby_and_back(Condition::Ill).await;
}

/// Everybody's answers move within the check's fall time and 100 ms of the primary's death, straight to the standby, and return once,
/// within 100 ms of when the primary has been well for as long as it is to be.
async fn moves_to_the_standby_and_back(condition: Condition) {
    let world = World::start();
    let trio = world.trio(&automatic(), Lookups::Real).await;
    // At whatever time between two reports.
    for round in 0..5 {
        sleep(Duration::from_millis(113)).await;
        let died_at = clock::now();
        trio.a.application().is(condition);
        sleep(Duration::from_secs(20)).await;
        for sidecar in trio.all() {
            let moves = sidecar.record.moves_since(died_at);
            let [to_standby] = moves.as_slice() else { panic!("round {round}: {moves:?}") };
            assert_eq!(to_standby.to, "s", "round {round}");
            let took = to_standby.at - died_at;
            assert!(took <= condition.fall_time() + REACTION, "round {round}: {took:?}");
        }

        let well_at = clock::now();
        trio.a.application().is(Condition::Well);
        sleep(3 * FAILBACK_AFTER).await;
        for sidecar in trio.all() {
            let moves = sidecar.record.moves_since(well_at);
            let [back] = moves.as_slice() else { panic!("round {round}: {moves:?}") };
            assert_eq!(back.to, "a", "round {round}");
            let took = back.at - well_at;
            let rise_time = REPORT_INTERVAL * u32::try_from(RISE).expect("a few");
            let earliest = FAILBACK_AFTER + rise_time - REPORT_INTERVAL;
            assert!(took >= earliest, "round {round}: {took:?}");
            assert!(took <= FAILBACK_AFTER + rise_time + REACTION, "round {round}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn over_50_random_outages_answers_go_there_and_back_once_each() {
    let world = World::start();
    let trio = world.trio(&automatic(), Lookups::Whole).await;
    let (mut rng, start) = (world.rng(), clock::now());
    for sidecar in trio.all() {
        assert_eq!(sidecar.record.whole(), Phase::Serving.told());
    }
    let mut random = |ranges: &[Range<u64>]| {
        let range = ranges[rng.usize(..ranges.len())].clone();
        Duration::from_millis(rng.u64(range))
    };
    for outage in 0..OUTAGES {
        trio.a.application().is(CONDITIONS[outage % CONDITIONS.len()]);
        sleep(random(&LENGTHS_MS)).await;
        trio.a.application().is(Condition::Well);
        // Now and then the next begins while the primary is held off.
        sleep(random(&LENGTHS_MS[1..])).await;
    }
    sleep(FAILBACK_AFTER + SETTLING).await;

    let phases = phases(&trio.a.application().reports(), clock::now(), FAILBACK_AFTER);
    let expected = moves(&phases);
    let told = phases[1..].iter().map(|(at, phase)| Move { at: *at, to: phase.told().to_owned() });
    let told: Vec<_> = told.collect();
    for (who, sidecar) in ["the primary", "the standby", "the reader"].into_iter().zip(trio.all()) {
        assert_seen(who, &sidecar.record.moves_since(start), &expected, REACTION);
        assert_seen(who, &sidecar.record.whole_since(start), &told, REACTION);
    }
    let there = expected.iter().filter(|one| one.to == "s").count();
    assert_eq!(expected.len(), 2 * there, "there and back");
    let held = phases.iter().filter(|(_, phase)| *phase == Phase::Held).count();
    eprintln!("{there} of {OUTAGES} outages moved answers; the primary was held off {held} times");
    assert!(
        (10..OUTAGES).contains(&there),
        "some outages were too short, or fell into another's hold: {there}"
    );
}

#[tokio::test(start_paused = true)]
async fn answers_stay_with_the_standby_until_somebody_says_otherwise() {
    let world = World::start();
    let trio = world.trio(r#"{"failback":"manual","failback_after_s":1}"#, Lookups::Real).await;
    let started_at = clock::now();
    trio.a.application().is(Condition::Dead);
    sleep(SETTLING).await;
    assert_eq!(trio.a.fail_back().await, 0, "it is not well yet");
    trio.a.application().is(Condition::Well);
    sleep(LONG).await;
    for sidecar in trio.all() {
        let moves = sidecar.record.moves_since(started_at);
        assert_eq!(moves.iter().map(|one| one.to.as_str()).collect::<Vec<_>>(), ["s"]);
    }

    let told_at = clock::now();
    assert_eq!(trio.a.fail_back().await, 1);
    sleep(LONG).await;
    for sidecar in trio.all() {
        let moves = sidecar.record.moves_since(told_at);
        let [back] = moves.as_slice() else { panic!("{moves:?}") };
        assert_eq!(back.to, "a");
        assert!(back.at - told_at <= REACTION, "{:?}", back.at - told_at);
    }
    assert_eq!(trio.a.fail_back().await, 0, "it is not held off any more");
}

#[tokio::test(start_paused = true)]
async fn another_id_in_the_settings_is_no_way_around_that() {
    let world = World::start();
    let trio = world.trio(r#"{"failback":"manual"}"#, Lookups::None).await;
    trio.a.application().is(Condition::Dead);
    sleep(SETTLING).await;
    trio.a.application().is(Condition::Well);
    sleep(SETTLING).await;
    let edited_at = clock::now();
    for id in ["a-2", "a-3", "a-2"] {
        // Without checks it is well at once.
        let text = format!("{{name: web, id: {id}, address: 127.1.0.1, port: 9, checks: []}}");
        trio.a.registrar.replace(vec![registration(&text)]).await.expect("it runs");
        sleep(SETTLING).await;
    }
    for sidecar in trio.all() {
        let moves = sidecar.record.moves_since(edited_at);
        assert!(moves.is_empty(), "{moves:?}");
    }

    let told_at = clock::now();
    assert_eq!(trio.a.fail_back().await, 1);
    sleep(SETTLING).await;
    for sidecar in trio.all() {
        let moves = sidecar.record.moves_since(told_at);
        assert_eq!(moves.iter().map(|one| one.to.as_str()).collect::<Vec<_>>(), ["a-2"]);
    }
}
