//! Changes that come many at a time: the first is shown at once, and the others together.

use std::time::Duration;

use rollcall::client::Client;
use rollcall::znode::CreateMode;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::carried::{Follower, SERVICES, client, record};
use crate::world::{REACTION, SETTLING, World};

const BURST: u32 = 200;
/// From one change to the next.
const STEP: Duration = Duration::from_millis(1);
/// Views are published at least this far apart.
const GAP: Duration = Duration::from_millis(5);

#[tokio::test(start_paused = true)]
async fn a_subscriber_shows_the_first_of_many_changes_at_once_and_the_others_together() {
    let (follower, views) = views_of_a_burst(Some("one")).await;
    assert_eq!(follower.stats.reads(), 0);
    expect_few(views);
}

#[tokio::test(start_paused = true)]
async fn a_reader_shows_the_first_of_many_changes_at_once_and_the_others_together() {
    let (follower, views) = views_of_a_burst(None).await;
    let reads = follower.stats.reads();
    assert!((BURST.into()..2 * u64::from(BURST)).contains(&reads), "one of each: {reads}");
    expect_few(views);
}

fn expect_few(views: u64) {
    let most = u64::try_from((STEP * BURST).as_millis() / GAP.as_millis() + 2).expect("a handful");
    assert!((2..=most).contains(&views), "{views} views of {BURST} changes");
}

/// Follows what is created one after the other, and returns how many views were made of it.
async fn views_of_a_burst(name: Option<&str>) -> (Follower, u64) {
    let world = World::start();
    let (writer, _line) = client(&world);
    writer.create_all(&format!("{SERVICES}/web")).await.expect("it is created");
    let follower = Follower::start_with(&world, name, None);
    sleep(SETTLING).await;
    let before = follower.stats.publications();
    let mut creations = JoinSet::new();
    for number in 0..BURST {
        creations.spawn(create(writer.clone(), number));
        sleep(STEP).await;
        if STEP * number == GAP {
            // To the member, the event, and where it has to be read there and back again.
            assert_eq!(follower.stats.publications() - before, 1, "the first change waits for nothing");
        }
    }
    sleep(REACTION).await;
    creations.join_all().await;
    assert_eq!(follower.shown()["web.default"].2.len(), BURST as usize);
    let views = follower.stats.publications() - before;
    (follower, views)
}

async fn create(writer: Client, number: u32) {
    let path = format!("{SERVICES}/web/i{number:03}");
    writer.create(&*path, record(1, 0), CreateMode::Ephemeral).await.expect("it is created");
}
