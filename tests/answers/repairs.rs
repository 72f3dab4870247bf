//! Others delete or overwrite what a sidecar has registered.

use std::time::Duration;

use rollcall::clock;
use rollcall::znode::CreateMode;
use tokio::time::sleep;

use crate::record::Lookups;
use crate::world::{REACTION, World, automatic};

const PATH: &str = "/rollcall/services/default/web/a";
const OTHERS: &str = r#"{"v":1,"addresses":["127.1.0.1"],"ports":[{"name":"http","port":9,"protocol":"tcp"}],"status":"draining"}"#;

#[tokio::test(start_paused = true)]
async fn what_others_delete_or_overwrite_is_written_again_at_once() {
    let world = World::start();
    let trio = world.trio(&automatic(), Lookups::None).await;
    let other = &trio.reader.client;
    let begun_at = clock::now();
    other.delete(PATH, None).await.expect("it is there");
    sleep(REACTION).await;
    let stat = other.exists(PATH).await.expect("an answer").expect("it is there again");
    assert_eq!(stat.ephemeral_owner, trio.a.session());
    for sidecar in trio.all() {
        assert_eq!(sidecar.record.moves_since(begun_at), []);
    }
    // Longer than one repair is from the next.
    sleep(Duration::from_secs(2)).await;
    let before = other.get(PATH).await.expect("it is there").0;
    other.set(PATH, OTHERS, None).await.expect("it is there");
    sleep(REACTION).await;
    assert_eq!(other.get(PATH).await.expect("it is there").0, before);
    for sidecar in trio.all() {
        assert_eq!(sidecar.record.latest(), "a");
    }
    assert_eq!(trio.a.registrar.stats().repairs(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_others_overwrite_with_garbage_is_written_again_at_once_and_explained_meanwhile() {
    let world = World::start();
    let trio = world.trio(&automatic(), Lookups::None).await;
    let other = &trio.reader.client;
    let begun_at = clock::now();
    let before = other.get(PATH).await.expect("it is there").0;
    other.set(PATH, "garbage", None).await.expect("it is there");
    sleep(REACTION).await;
    assert_eq!(other.get(PATH).await.expect("it is there").0, before);
    assert!(trio.reader.unreadable().await.is_empty());
    // What nobody repairs is told for as long as it is there.
    let stray = format!("{PATH}-stray");
    other.create(stray.as_str(), "garbage", CreateMode::Persistent).await.expect("it is created");
    sleep(REACTION).await;
    assert_eq!(trio.reader.unreadable().await, ["a-stray"]);
    other.delete(stray.as_str(), None).await.expect("it is there");
    sleep(REACTION).await;
    assert!(trio.reader.unreadable().await.is_empty());
    for sidecar in trio.all() {
        assert_eq!(sidecar.record.moves_since(begun_at), []);
    }
}

#[tokio::test(start_paused = true)]
async fn who_deletes_a_registration_again_and_again_costs_a_txn_a_second() {
    let world = World::start();
    let trio = world.trio(&automatic(), Lookups::None).await;
    let before = trio.a.registrar.stats().writes();
    for _ in 0..1_000 {
        let _not_there = trio.reader.client.delete(PATH, None).await;
        sleep(Duration::from_millis(10)).await;
    }
    let writes = trio.a.registrar.stats().writes() - before;
    assert!((9..=12).contains(&writes), "{writes} in ten seconds");
}
