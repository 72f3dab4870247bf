//! An event that never comes, which no member of ours or Apache's should let happen: the look at everything finds what it was about.

use std::time::Duration;

use rollcall::client::Client;
use rollcall::znode::CreateMode;
use tokio::time::sleep;

use crate::carried::{Follower, SERVICES, THOROUGH, client, record};
use crate::world::{REACTION, SETTLING, World};

/// A thorough walk reads a slice of the instances of all services: after so many, everything was read.
const SLICES: u32 = 12;
/// What is not found by then is not found by itself.
const LONG: Duration = Duration::from_secs(60);

/// What nobody is told of.
#[derive(Clone, Copy, Debug)]
enum Withheld {
    Created,
    Deleted,
    /// Alone in that no other znode's stat tells of it.
    SetInPlace,
    SettingsSet,
}

impl Withheld {
    const ALL: [Self; 4] = [Self::Created, Self::Deleted, Self::SetInPlace, Self::SettingsSet];

    async fn happen(self, writer: &Client) {
        let web = format!("{SERVICES}/web");
        let (known, new) = (format!("{web}/a"), format!("{web}/b"));
        let done = match self {
            Self::Created => writer.create(&*new, record(2, 0), CreateMode::Ephemeral).await.map(drop),
            Self::Deleted => writer.delete(&*known, None).await,
            Self::SetInPlace => writer.set(&*known, record(2, 0), None).await.map(drop),
            Self::SettingsSet => writer.set(&*web, r#"{"min_healthy":2}"#, None).await.map(drop),
        };
        done.expect("it is done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_finds_what_it_was_not_told_of_by_a_thorough_walk_alone_and_counts_it_once() {
    expect_found(Some("one")).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_finds_what_it_was_not_told_of_by_a_thorough_walk_alone_and_counts_it_once() {
    expect_found(None).await;
}

async fn expect_found(name: Option<&str>) {
    for withheld in Withheld::ALL {
        let world = World::start();
        let (writer, _line) = client(&world);
        writer.create_all(&format!("{SERVICES}/web")).await.expect("it is created");
        let path = format!("{SERVICES}/web/a");
        writer.create(&*path, record(1, 0), CreateMode::Ephemeral).await.expect("it is created");
        let auditor = Follower::start(&world, name);
        let believer = Follower::start_with(&world, name.map(|_| "other"), None);
        let told = Follower::start_with(&world, None, None);
        sleep(SETTLING).await;
        let before = told.shown();
        assert_eq!((auditor.shown(), believer.shown()), (before.clone(), before.clone()), "{withheld:?}");

        auditor.line.withhold_event();
        believer.line.withhold_event();
        withheld.happen(&writer).await;
        sleep(REACTION + 2 * SLICES * THOROUGH).await;
        assert_ne!(told.shown(), before, "{withheld:?}");
        assert_eq!(auditor.shown(), told.shown(), "{withheld:?}: the view is mended");
        assert_eq!(auditor.stats.defects(), 1, "{withheld:?}");

        // Whoever does not look at everything never learns of it, and what was mended stays so.
        sleep(LONG).await;
        assert_eq!(believer.shown(), before, "{withheld:?}");
        assert_eq!(auditor.shown(), told.shown(), "{withheld:?}");
        assert_eq!([&auditor, &believer, &told].map(|it| it.stats.defects()), [1, 0, 0], "{withheld:?}");

        // What comes next is told as ever.
        let path = format!("{SERVICES}/web/c");
        writer.create(&*path, record(3, 0), CreateMode::Ephemeral).await.expect("it is created");
        sleep(REACTION).await;
        assert_eq!(auditor.shown(), told.shown(), "{withheld:?}");
        assert_eq!(auditor.stats.defects(), 1, "{withheld:?}");
    }
}
