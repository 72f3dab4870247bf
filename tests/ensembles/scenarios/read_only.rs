//! A member that has lost its quorum, or starts without one, serves who is content with what it has, and nobody else.

use std::time::Duration;

use super::{APACHE, OURS, set};
use crate::client::{Client, Settings};
use crate::cluster::{Cluster, Profile, SESSION_TIMEOUT};
use crate::history::{Action, Aspect, Change, Found, Read};
use crate::load::LOAD_W;
use crate::member::Kind;
use crate::recorder::Recorder;
use crate::run::Run;
use crate::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const PATH: &str = "/read-only";
/// `KeeperException.Code.NOTREADONLY`.
const NOT_READ_ONLY: i32 = -119;

/// Two of three die; the third reads to who asks for no more, until they come back.
pub(super) fn lose_the_majority(kinds: &[Kind]) {
    // Apache's read-only members open no session that is not local.
    let has_local_sessions = kinds.contains(&Kind::Apache);
    let profile = Profile { is_read_only_mode_on: true, has_local_sessions, ..Profile::DEFAULT };
    let mut run = Run::start("read-only", kinds, profile);
    let load = run.load(LOAD_W);
    load.wait_for_writes(20, PATIENCE);
    load.pause();
    // Sessions of read-only members are no history that the checkers know.
    let apart = Recorder::new();
    let client = |run: &Run, name, is_content| client(&run.cluster, 0, name, is_content, &apart);
    let mut of_before = client(&run, "of-before", true);
    let value = load.block_on(async {
        let value = of_before.new_value();
        let create = Change::Create { path: PATH.to_owned(), value: value.clone(), ephemeral: false };
        assert_eq!(of_before.ask(Action::Change(create)).await.expect("three of three answer").error, 0);
        value
    });
    assert_eq!(mode(&run.cluster), "rw");

    for index in [1, 2] {
        run.cluster.kill(index);
    }
    wait_until("it reads, and does not write", PATIENCE, || mode(&run.cluster) == "ro");
    let (mut careful, mut content) = (client(&run, "careful", false), client(&run, "content", true));
    load.block_on(async {
        assert_eq!(read(&mut content).await, Some(value));
        let write = set(&mut content, PATH, 0);
        let refused = content.ask(write).await.expect("a read-only member answers");
        assert_eq!(refused.error, NOT_READ_ONLY);
        assert_is_refused(&mut careful, "it does not want that").await;
        if !has_local_sessions {
            assert_is_refused(&mut of_before, "nobody can say whether its session is still alive").await;
        }
    });

    for index in [1, 2] {
        run.cluster.restart(index);
    }
    run.cluster.wait_until_all_serve();
    wait_until("it writes again", PATIENCE, || mode(&run.cluster) == "rw");
    load.block_on(async {
        loop {
            let write = set(&mut content, PATH, 0);
            if content.ask(write).await.is_some_and(|reply| reply.error == 0) {
                break;
            }
        }
        let newest = content.last_value();
        for mut client in [careful, of_before, content] {
            assert_eq!(read(&mut client).await.as_ref(), Some(&newest));
            assert!(client.close().await);
        }
    });
    run.finish(load);
}

/// How all members end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By `kill -9`, when the first of them has noted what was written.
    Killed,
    /// The first as an orchestrator does it, right behind the write.
    Terminated,
}

/// All three end, and one comes back alone: it has all that it knew to be committed, also for a client that has seen that.
fn start_without_the_others(end: End) {
    let profile = Profile { is_read_only_mode_on: true, ..Profile::DEFAULT };
    let mut run = Run::start(&format!("read-only-start-{end:?}"), &OURS, profile);
    let load = run.load(LOAD_W);
    load.wait_for_writes(200, PATIENCE);
    load.pause();
    let apart = Recorder::new();
    let mut witness = client(&run.cluster, 0, "witness", true, &apart);
    let value = witness.new_value();
    let create = Change::Create { path: PATH.to_owned(), value: value.clone(), ephemeral: false };
    let created = load.block_on(witness.ask(Action::Change(create))).expect("three of three answer");
    assert_eq!(created.error, 0);
    match end {
        End::Killed => {
            let member = &run.cluster.members[0];
            wait_until("it is noted", PATIENCE, || member.noted_as_committed() >= Some(created.zxid));
            run.cluster.kill(0);
        }
        End::Terminated => run.cluster.terminate(0),
    }
    for index in [1, 2] {
        run.cluster.kill(index);
    }

    run.cluster.restart(0);
    wait_until("it reads, and does not write", PATIENCE, || mode(&run.cluster) == "ro");
    witness.start_over();
    let mut stranger = client(&run.cluster, 0, "stranger", true, &apart);
    load.block_on(async {
        for client in [&mut witness, &mut stranger] {
            let found = tokio::time::timeout(PATIENCE, read(client)).await;
            assert_eq!(found.expect("it has what was seen"), Some(value.clone()));
        }
    });

    for index in [1, 2] {
        run.cluster.restart(index);
    }
    run.cluster.wait_until_all_serve();
    load.block_on(async {
        for mut client in [witness, stranger] {
            assert_eq!(read(&mut client).await, Some(value.clone()));
            assert!(client.close().await);
        }
    });
    run.finish(load);
}

fn client(cluster: &Cluster, index: usize, name: &str, is_content: bool, recorder: &Recorder) -> Client {
    let servers = vec![cluster.servers().swap_remove(index)].into();
    let settings = Settings {
        servers,
        session_timeout: SESSION_TIMEOUT,
        is_content_with_reading: is_content,
        recorder: recorder.clone(),
    };
    Client::new(name, settings)
}

/// What the first member says to `isro`.
fn mode(cluster: &Cluster) -> String {
    cluster.members[0].four_letter_word("isro").unwrap_or_default().trim().to_owned()
}

/// The value, once somebody answers.
async fn read(client: &mut Client) -> Option<String> {
    loop {
        let read = Read { path: PATH.to_owned(), aspect: Aspect::Data, watch: false, synced: None };
        if let Some(reply) = client.ask(Action::Read(read)).await {
            let Found::Data(value, _) = reply.found else { panic!("{reply:?}") };
            return value;
        }
    }
}

async fn assert_is_refused(client: &mut Client, why: &str) {
    let refused = tokio::time::timeout(Duration::from_secs(2), read(client)).await;
    assert!(refused.is_err(), "{why}: {refused:?}");
}

#[test]
fn one_of_three_reads_to_who_is_content_with_it() {
    lose_the_majority(&OURS);
}

#[test]
fn one_that_is_started_alone_after_a_kill_has_what_it_knew_to_be_committed() {
    start_without_the_others(End::Killed);
}

#[test]
fn one_that_is_started_alone_after_an_orderly_end_has_the_newest_write() {
    start_without_the_others(End::Terminated);
}

#[test]
#[ignore = "of Apache alone; tests/run full runs it"]
fn one_of_three_apaches_reads_to_who_is_content_with_it() {
    lose_the_majority(&APACHE);
}
