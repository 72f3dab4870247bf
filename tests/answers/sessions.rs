//! Sessions end: in order, by expiry, and because a pod was killed.

use std::time::{Duration, Instant};

use rollcall::clock;
use rollcall::registry::BrakePlan;
use tokio::time::sleep;

use crate::application::{REPORT_INTERVAL, RISE};
use crate::member::TICK;
use crate::record::Lookups;
use crate::sidecar::Sidecar;
use crate::world::{
    FAILBACK_AFTER, PRIMARIES, REACTION, READER, SESSION_TIMEOUT, SETTLING, STANDBY, World, automatic,
};

/// From the end of one process to the start of the next.
const DOWN: Duration = Duration::from_secs(3);
/// Longer than anything is offered on that has vanished.
const LONG: Duration = Duration::from_secs(360);
/// The longest that the first probe of what vanished takes: it is put off by chance, and may time out.
const PROBE_TIME: Duration = Duration::from_millis(1_200);

#[tokio::test(start_paused = true)]
async fn a_rolling_update_of_all_primaries_offers_those_that_are_up_and_holds_nobody_off() {
    let world = World::start();
    let mut primaries: Vec<_> =
        PRIMARIES.iter().map(|pod| world.pod_with_state(pod, Lookups::Real)).collect();
    let others = [world.pod(&STANDBY, Lookups::Real), world.pod(&READER, Lookups::Real)];
    sleep(SETTLING).await;
    world.set(&others[0], &automatic()).await;
    let begun_at = clock::now();
    for (index, pod) in PRIMARIES.iter().enumerate() {
        let rest: Vec<_> = PRIMARIES.iter().map(|pod| pod.id).filter(|id| *id != pod.id).collect();
        primaries.remove(index).leave().await;
        for sidecar in primaries.iter().chain(&others) {
            assert_eq!(sidecar.record.latest(), rest.join(" "), "nobody is sent to who has left");
        }
        sleep(DOWN).await;
        primaries.insert(index, world.pod_with_state(pod, Lookups::Real));
        sleep(SETTLING).await;
        for sidecar in primaries.iter().chain(&others) {
            assert_eq!(sidecar.record.latest(), "a b c", "{} is back", pod.id);
        }
    }
    for other in &others {
        let moves = other.record.moves_since(begun_at);
        let offered: Vec<_> = moves.iter().map(|one| one.to.as_str()).collect();
        assert_eq!(offered, ["b c", "a b c", "a c", "a b c", "a b", "a b c"]);
        assert_eq!(other.record.held_since(begun_at), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_of_the_only_primary_is_bridged_by_the_standby_and_no_longer_than_it_takes() {
    let world = World::start();
    let trio = world.trio(&automatic(), Lookups::Real).await;
    let begun_at = clock::now();
    trio.a.leave().await;
    let others = [trio.s, trio.reader];
    for other in &others {
        assert_eq!(other.record.latest(), "s");
    }
    sleep(DOWN).await;
    let started_at = clock::now();
    let _a = world.pod_with_state(&PRIMARIES[0], Lookups::Real);
    sleep(SETTLING).await;
    for other in &others {
        let moves = other.record.moves_since(begun_at);
        let [to_standby, back] = moves.as_slice() else { panic!("{moves:?}") };
        assert_eq!((to_standby.to.as_str(), back.to.as_str()), ("s", "a"));
        // The first report may come before the check is there to take it.
        let rise_time = REPORT_INTERVAL * u32::try_from(RISE).expect("a few");
        assert!(back.at - started_at <= rise_time + REACTION, "{:?}", back.at - started_at);
        assert_eq!(other.record.held_since(begun_at), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_that_the_ensemble_ends_all_at_once_move_no_answer_and_hold_nobody_off() {
    let (world, pods) = pods().await;
    for pods in [&pods[..], &pods[..4], &pods[..3]] {
        let pods: Vec<_> = pods.iter().collect();
        let expired_at = clock::now();
        let before: Vec<_> = pods.iter().map(|pod| pod.session()).collect();
        world.expire(&pods);
        sleep(LONG).await;
        assert!(
            pods.iter().zip(before).all(|(pod, before)| pod.session() != before),
            "they are other sessions"
        );
        assert_nothing_moved(&pods, expired_at);
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_that_expire_all_at_once_while_they_are_cut_off_move_no_answer_and_hold_nobody_off() {
    let (_world, pods) = pods().await;
    let cut_at = clock::now();
    let [reader, registered @ ..] = &{
        let mut pods: Vec<_> = pods.iter().collect();
        pods.rotate_right(1);
        pods
    }[..] else {
        unreachable!("there are five")
    };
    registered.iter().for_each(|pod| pod.line.cut());
    // Much longer than sessions live, and shorter than vanished instances are offered on.
    sleep(SESSION_TIMEOUT * 10).await;
    assert_eq!(reader.record.latest(), "a b c");
    registered.iter().for_each(|pod| pod.line.mend());
    sleep(LONG).await;
    let all: Vec<_> = pods.iter().collect();
    assert_nothing_moved(&all, cut_at);
    let instances = registered.iter().map(|pod| pod.registrar.instances().borrow()[0].clone());
    assert!(instances.into_iter().all(|own| own.is_registered() && !own.is_held));
}

/// Three primaries, their standby, and at the end a reader; at rest.
async fn pods() -> (World, Vec<Sidecar>) {
    let world = World::start();
    let pods = PRIMARIES.iter().chain([&STANDBY, &READER]);
    let pods: Vec<_> = pods.map(|pod| world.pod_with_state(pod, Lookups::None)).collect();
    sleep(SETTLING).await;
    world.set(&pods[4], &automatic()).await;
    for pod in &pods {
        assert_eq!(pod.record.latest(), "a b c");
    }
    (world, pods)
}

fn assert_nothing_moved(pods: &[&Sidecar], since: Instant) {
    for pod in pods {
        assert_eq!(pod.record.latest(), "a b c");
        assert_eq!(pod.record.moves_since(since), []);
        assert_eq!(pod.record.held_since(since), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_primary_that_is_looked_up_leaves_answers_with_its_session() {
    is_followed_by_the_standby_within(PROBE_TIME, Lookups::Real).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_primary_that_nobody_looks_up_is_believed_to_be_gone_after_the_window() {
    is_followed_by_the_standby_within(BrakePlan::default().window, Lookups::None).await;
}

/// Answers move within the session's timeout, two ticks, and `doubts`; the primary comes back below the standby, and takes its tier
/// again once it has been well for as long as it is to be.
async fn is_followed_by_the_standby_within(doubts: Duration, lookups: Lookups) {
    let world = World::start();
    let trio = world.trio(&automatic(), lookups).await;
    let (others, killed_at) = ([trio.s, trio.reader], clock::now());
    drop(trio.a);
    sleep(Duration::from_secs(60)).await;
    for other in &others {
        let moves = other.record.moves_since(killed_at);
        let [to_standby] = moves.as_slice() else { panic!("{moves:?}") };
        assert_eq!(to_standby.to, "s");
        let took = to_standby.at - killed_at;
        assert!(took <= SESSION_TIMEOUT + 2 * TICK + doubts + REACTION, "{took:?}");
    }

    let started_at = clock::now();
    let a = world.pod_with_state(&PRIMARIES[0], lookups);
    sleep(SETTLING).await;
    assert!(a.registrar.instances().borrow()[0].is_held);
    sleep(3 * FAILBACK_AFTER).await;
    for other in &others {
        let moves = other.record.moves_since(started_at);
        let [back] = moves.as_slice() else { panic!("{moves:?}") };
        assert_eq!(back.to, "a");
        let (took, rise_time) = (back.at - started_at, REPORT_INTERVAL * u32::try_from(RISE).expect("a few"));
        assert!(took >= FAILBACK_AFTER, "{took:?}");
        assert!(took <= FAILBACK_AFTER + rise_time + REACTION, "{took:?}");
    }
}
