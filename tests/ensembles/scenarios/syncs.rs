//! Many syncs among many writes, in one go, through every member.
//!
//! A follower of Apache's matches what its leader commits with the oldest of its own clients' writes and syncs, in one
//! queue. A leader that answers a sync later than a write that was sent behind it makes the follower take that write for
//! somebody else's: its client is never answered, and neither is anybody after it.

use std::time::Duration;

use super::{APACHE, APACHE_AND_TWO, OURS, OURS_AND_TWO, client_of, set};
use crate::client::Client;
use crate::cluster::Profile;
use crate::history::{Action, Aspect, Read};
use crate::load::{LOAD_W, Workload};
use crate::member::Kind;
use crate::run::Run;

const CLIENTS: usize = 16;
const DURATION: Duration = Duration::from_secs(4);
/// Longer than any disk holds a healthy member up.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients of every member send writes and syncs as fast as they are answered; each is.
pub(super) fn sync_and_write(kinds: &[Kind]) {
    let profile = Profile { session_timeout_max: SESSION_TIMEOUT, ..Profile::PATIENT };
    let mut run = Run::start("sync-and-write", kinds, profile);
    run.cluster.make_last_lead();
    let load = run.load(Workload { writers: 2, ..LOAD_W });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let member = number % kinds.len();
            let name = format!("client{number}");
            let client = client_of(&run.cluster, member, &name, SESSION_TIMEOUT, &run.recorder);
            load.spawn(ask_all_the_time(client, number))
        })
        .collect();
    let results: Vec<(usize, usize)> = clients.into_iter().map(|client| load.join(client)).collect();
    let answered: usize = results.iter().map(|(answered, _)| answered).sum();
    let unanswered: usize = results.iter().map(|(_, unanswered)| unanswered).sum();
    eprintln!("{answered} requests were answered, {unanswered} were not");
    assert_eq!(unanswered, 0, "requests to healthy members were not answered");
    run.finish(load);
}

/// Returns how many requests were answered, and how many were not.
async fn ask_all_the_time(mut client: Client, number: usize) -> (usize, usize) {
    let (mut answered, mut unanswered) = (0, 0);
    let path = format!("/load/shared{}", number % 4);
    let end = tokio::time::Instant::now() + DURATION;
    while tokio::time::Instant::now() < end {
        let mut actions = vec![set(&mut client, &path, 0), Action::Sync];
        actions.push(Action::Read(Read {
            path: path.clone(),
            aspect: Aspect::Data,
            watch: false,
            synced: None,
        }));
        actions.push(set(&mut client, &path, 0));
        let asked = actions.len();
        // A follower that is stuck lets nobody in any more.
        let replies = tokio::time::timeout(SESSION_TIMEOUT, client.call(actions)).await;
        let came = replies.map_or(0, |replies| replies.into_iter().flatten().count());
        answered += came;
        unanswered += asked - came;
    }
    let _closed = tokio::time::timeout(SESSION_TIMEOUT, client.close()).await;
    (answered, unanswered)
}

mod ours {
    use super::*;

    #[test]
    fn syncs_among_writes_are_answered() {
        sync_and_write(&OURS);
    }
}

mod mixed {
    use super::*;

    #[test]
    fn syncs_among_writes_of_apaches_followers_are_answered_by_our_leader() {
        sync_and_write(&OURS_AND_TWO);
    }

    #[test]
    fn syncs_among_writes_of_our_followers_are_answered_by_apaches_leader() {
        sync_and_write(&APACHE_AND_TWO);
    }
}

/// What is asked of ours is asked of Apache's own.
mod apache {
    use super::*;

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn syncs_among_writes_are_answered() {
        sync_and_write(&APACHE);
    }
}
