//! Sessions that one member alone knows, until they create an ephemeral znode.

use std::time::Duration;

use super::{APACHE, APACHE_AND_TWO, OURS, OURS_AND_TWO, client_of, create};
use crate::client::Client;
use crate::cluster::{Profile, SESSION_TIMEOUT};
use crate::history::{Action, Aspect, Change, Read};
use crate::load::{LOAD_W, Workload};
use crate::member::Kind;
use crate::run::Run;
use crate::wait::wait_until;

/// How long an ephemeral of a client that is gone may stay, and numbers in `mntr` behind what happened.
const PATIENCE: Duration = Duration::from_secs(30);
const WRITERS: usize = 2;

/// Clients of every member write with local sessions; two of each become known to everybody by an ephemeral, and one of them
/// goes without a word.
pub(super) fn upgrade_at_every_member(kinds: &[Kind]) {
    let profile = Profile { has_local_sessions: true, ..Profile::PATIENT };
    let mut run = Run::start("local-sessions", kinds, profile);
    run.cluster.make_last_lead();
    let load = run.load(Workload { writers: WRITERS, observers: 0, ..LOAD_W });
    load.wait_for_writes(20, PATIENCE);
    let connect = |index, name: &str| {
        let mut client = client_of(&run.cluster, index, name, SESSION_TIMEOUT, &run.recorder);
        load.block_on(client.ensure_connected());
        client
    };
    let members = 0..kinds.len();
    let mut clients: Vec<_> = members
        .clone()
        .map(|index| ["stays", "leaves", "dies"].map(|fate| connect(index, &format!("{fate}{index}"))))
        .collect();
    let mut looking = connect(0, "looking");
    for index in members.clone() {
        // Apache's members count for `mntr` only now and then.
        if kinds[index] == Kind::Rollcall {
            wait_until("its sessions are counted", PATIENCE, || {
                run.cluster.monitored(index, "zk_local_sessions").is_some_and(|count| count >= 3.0)
            });
        }
    }
    // The writers of the load make ephemerals, too.
    let known_to_all = run.cluster.monitored(kinds.len() - 1, "zk_global_sessions");
    assert!(known_to_all.is_some_and(|count| count <= WRITERS as f64), "{known_to_all:?}");

    load.block_on(async {
        for (index, [stays, leaves, dies]) in clients.iter_mut().enumerate() {
            create(stays, &format!("/of-{index}")).await;
            create_ephemeral(leaves, &format!("/of-{index}/leaves")).await;
            create_ephemeral(dies, &format!("/of-{index}/dies")).await;
        }
        for index in members.clone() {
            for fate in ["leaves", "dies"] {
                assert!(is_there(&mut looking, &format!("/of-{index}/{fate}")).await, "{fate} of {index}");
            }
        }
        for (index, [stays, leaves, dies]) in clients.into_iter().enumerate() {
            assert!(leaves.close().await, "an upgraded session of {index} can be closed");
            assert!(!is_there(&mut looking, &format!("/of-{index}/leaves")).await);
            dies.abandon();
            assert!(stays.close().await, "a local session of {index} can be closed");
        }
    });
    wait_until("what the dead held is gone", PATIENCE, || {
        load.block_on(async {
            for index in members.clone() {
                if is_there(&mut looking, &format!("/of-{index}/dies")).await {
                    return false;
                }
            }
            true
        })
    });
    load.block_on(looking.close());
    run.finish(load);
}

async fn create_ephemeral(client: &mut Client, path: &str) {
    let value = client.new_value();
    let change = Change::Create { path: path.to_owned(), value, ephemeral: true };
    let reply = client.ask(Action::Change(change)).await.expect("a healthy ensemble answers");
    assert_eq!(reply.error, 0, "{path} can be made");
}

/// Whether a znode exists, behind a sync.
async fn is_there(client: &mut Client, path: &str) -> bool {
    let read = Read { path: path.to_owned(), aspect: Aspect::Exists, watch: false, synced: None };
    let replies = client.call(vec![Action::Sync, Action::Read(read)]).await;
    let reply = replies.into_iter().flatten().next_back().expect("a healthy ensemble answers");
    reply.error == 0
}

mod ours {
    use super::*;

    #[test]
    fn local_sessions_are_upgraded() {
        upgrade_at_every_member(&OURS);
    }
}

mod mixed {
    use super::*;

    #[test]
    fn local_sessions_of_apaches_followers_are_upgraded_by_our_leader() {
        upgrade_at_every_member(&OURS_AND_TWO);
    }

    #[test]
    fn local_sessions_of_our_followers_are_upgraded_by_apaches_leader() {
        upgrade_at_every_member(&APACHE_AND_TWO);
    }
}

mod apache {
    use super::*;

    #[test]
    #[ignore = "of Apache alone; tests/run full runs it"]
    fn local_sessions_are_upgraded() {
        upgrade_at_every_member(&APACHE);
    }
}
