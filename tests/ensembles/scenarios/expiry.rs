//! Clients that die: what they held goes when their sessions' time is over, no earlier and not much later.

use std::time::Duration;

use super::{APACHE, APACHE_AND_TWO, OURS, OURS_AND_TWO, client_of};
use crate::client::Client;
use crate::cluster::{Profile, SESSION_TIMEOUT, TICK};
use crate::history::{Action, Aspect, Change, Read};
use crate::load::{LOAD_W, Workload};
use crate::member::Kind;
use crate::run::Run;

const CLIENTS: u32 = 24;
/// Two ticks, and what a busy machine takes to notice.
const REMOVAL_SLACK: Duration = Duration::from_millis(2 * 200 + 100);
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// Clients with sessions of 2 to 20 ticks register, live for a while and stop; somebody looks all the time. Sessions
/// start anew with a new leader, so one may live an election longer.
pub(super) fn abandon_sessions(kinds: &[Kind], kills_leader: bool) {
    let slack = if kills_leader { Profile::DEFAULT.removal_slack } else { REMOVAL_SLACK };
    let mut run = Run::start("abandon-sessions", kinds, Profile { removal_slack: slack, ..Profile::DEFAULT });
    let leader = run.cluster.make_last_lead();
    let load = run.load(Workload { writers: 2, ..LOAD_W });
    let followers = kinds.len() - 1;
    let dying: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let name = format!("dying{number}");
            let timeout = (TICK * (2 + number * 18 / CLIENTS)).min(SESSION_TIMEOUT);
            // On followers, so that the leader's death is not theirs.
            let index = usize::try_from(number).expect("a handful") % followers;
            let client = client_of(&run.cluster, index, &name, timeout, &run.recorder);
            load.spawn(live_and_die(client, number))
        })
        .collect();
    let looker = client_of(&run.cluster, 0, "looker", SESSION_TIMEOUT, &run.recorder);
    let looking = load.spawn(look(looker, SESSION_TIMEOUT + TICK * CLIENTS + Duration::from_secs(3)));
    dying.into_iter().for_each(|client| load.join(client));
    if kills_leader {
        run.cluster.kill(leader);
        run.cluster.wait_for_leader();
        run.cluster.restart(leader);
    }
    let (looks, gone) = load.join(looking);
    eprintln!("{looks} looks; at the end {gone} of {CLIENTS} ephemerals were gone");
    assert_eq!(gone, CLIENTS, "ephemerals of dead clients are there after all their time");
    run.cluster.wait_until_all_serve();
    run.finish(load);
}

async fn live_and_die(mut client: Client, number: u32) {
    let path = path(number);
    let value = client.new_value();
    client.ask(Action::Change(Change::Create { path, value, ephemeral: true })).await;
    client.rest(TICK * number / 2).await;
    client.abandon();
}

/// Looks for every ephemeral, behind a sync; returns how often, and how many were gone the last time.
async fn look(mut client: Client, duration: Duration) -> (u32, u32) {
    let (mut looks, mut gone) = (0, 0);
    let end = tokio::time::Instant::now() + duration;
    while tokio::time::Instant::now() < end {
        let reads = (0..CLIENTS).map(|number| {
            Action::Read(Read { path: path(number), aspect: Aspect::Exists, watch: false, synced: None })
        });
        let replies = client.call([Action::Sync].into_iter().chain(reads).collect()).await;
        looks += 1;
        let missing = replies.iter().flatten().filter(|reply| reply.error != 0).count();
        gone = u32::try_from(missing).expect("a handful");
        client.rest(LOOK_PERIOD).await;
    }
    client.close().await;
    (looks, gone)
}

fn path(number: u32) -> String {
    format!("/registry/dying{number}")
}

mod ours {
    use super::*;

    #[test]
    fn what_dead_clients_held_goes_in_time() {
        abandon_sessions(&OURS, false);
    }

    #[test]
    fn what_dead_clients_held_goes_in_time_after_an_election() {
        abandon_sessions(&OURS, true);
    }
}

mod mixed {
    use super::*;

    #[test]
    fn what_clients_of_apaches_followers_held_goes_in_time_under_our_leader() {
        abandon_sessions(&OURS_AND_TWO, false);
    }

    #[test]
    fn what_clients_of_our_followers_held_goes_in_time_under_apaches_leader() {
        abandon_sessions(&APACHE_AND_TWO, false);
    }
}

/// What is asked of ours is asked of Apache's own.
mod apache {
    use super::*;

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn what_dead_clients_held_goes_in_time() {
        abandon_sessions(&APACHE, false);
    }

    #[test]
    #[ignore = "long; tests/run full runs it"]
    fn what_dead_clients_held_goes_in_time_after_an_election() {
        abandon_sessions(&APACHE, true);
    }
}
