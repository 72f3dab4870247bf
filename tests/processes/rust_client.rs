//! `zookeeper-client`, a Rust client written independently of ours, against both servers.
//!
//! It checks what kazoo cannot: watches that a client brings back after a reconnect (`setWatches`), and
//! persistent recursive ones (`addWatch`).

use std::future::Future;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, CreateOptions, Error, EventType, MultiWriteError,
    MultiWriteResult, SessionState, WatchedEvent,
};

use crate::support::{Kind, Server, wait_until};

const PERSISTENT: &CreateOptions<'static> = &CreateMode::Persistent.with_acls(Acls::anyone_all());
const EPHEMERAL: &CreateOptions<'static> = &CreateMode::Ephemeral.with_acls(Acls::anyone_all());
const SEQUENTIAL: &CreateOptions<'static> = &CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
const EPHEMERAL_SEQUENTIAL: &CreateOptions<'static> =
    &CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());

#[test]
fn the_rust_client_creates_watches_and_transacts_on_rollcall() {
    run_basics(Kind::Rollcall);
}

#[test]
fn the_rust_client_creates_watches_and_transacts_on_apache() {
    run_basics(Kind::Apache);
}

#[test]
fn the_rust_client_keeps_session_and_watches_over_a_restart_of_rollcall() {
    run_reconnect(Kind::Rollcall);
}

#[test]
fn the_rust_client_keeps_session_and_watches_over_a_restart_of_apache() {
    run_reconnect(Kind::Apache);
}

#[test]
fn the_ephemeral_of_a_stopped_rust_client_expires_on_rollcall() {
    run_expiry(Kind::Rollcall);
}

#[test]
fn the_ephemeral_of_a_stopped_rust_client_expires_on_apache() {
    run_expiry(Kind::Apache);
}

fn run_basics(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    block_on(async {
        let client = connect(&server.address(), Duration::from_secs(10)).await;
        let other = connect(&server.address(), Duration::from_secs(10)).await;
        creates(&client).await;
        ephemerals(&client, &other, &server.address()).await;
        sequentials(&client).await;
        one_shot_watches(&client, &other).await;
        persistent_watches(&client, &other).await;
        transactions(&client).await;
    });
}

async fn creates(client: &Client) {
    let (created, _) = client.create("/a", b"one", PERSISTENT).await.expect("a create");
    let (data, stat) = client.get_data("/a").await.expect("a read");
    assert_eq!((data.as_slice(), &stat), (&b"one"[..], &created));
    assert_eq!((stat.version, stat.data_length, stat.ephemeral_owner), (0, 3, 0));

    let changed = client.set_data("/a", b"three", Some(0)).await.expect("a change");
    assert_eq!((changed.version, changed.data_length), (1, 5));
    assert!(changed.mzxid > created.mzxid);
    assert_eq!(client.set_data("/a", b"", Some(0)).await, Err(Error::BadVersion));
    assert_eq!(client.create("/a", b"", PERSISTENT).await.map(|_| ()), Err(Error::NodeExists));
    assert_eq!(client.create("/none/a", b"", PERSISTENT).await.map(|_| ()), Err(Error::NoNode));
    assert_eq!(client.check_stat("/none").await, Ok(None));

    client.create("/a/child", b"", PERSISTENT).await.expect("a child");
    assert_eq!(client.delete("/a", None).await, Err(Error::NotEmpty));
    let (children, stat) = client.get_children("/a").await.expect("children");
    assert_eq!((children, stat.num_children, stat.cversion), (vec!["child".to_owned()], 1, 1));
    client.sync("/a").await.expect("a sync");
    client.delete("/a/child", Some(0)).await.expect("a deletion");
    client.delete("/a", None).await.expect("a deletion");

    // Requests on one connection are answered in their order, however many are on their way.
    client.create("/p", b"", PERSISTENT).await.expect("a create");
    let pipelined: Vec<_> = (0..200_u32).map(|i| client.set_data("/p", &i.to_be_bytes(), None)).collect();
    for (version, change) in (1..).zip(pipelined) {
        assert_eq!(change.await.expect("a pipelined change").version, version);
    }
}

async fn ephemerals(client: &Client, other: &Client, address: &str) {
    let (stat, _) = other.create("/e", b"", EPHEMERAL).await.expect("an ephemeral");
    let owner = other.session_id();
    assert_ne!(stat.ephemeral_owner, 0);
    assert!(
        owner.to_string().contains(&format!("{:x}", stat.ephemeral_owner)),
        "{owner} owns the znode of {:x}",
        stat.ephemeral_owner
    );
    let below = client.create("/e/child", b"", PERSISTENT).await;
    assert_eq!(below.map(|_| ()), Err(Error::NoChildrenForEphemerals));

    let guest = connect(address, Duration::from_secs(10)).await;
    guest.create("/guest", b"", EPHEMERAL).await.expect("an ephemeral");
    let (_, watcher) = client.check_and_watch_stat("/guest").await.expect("a watch");
    drop(guest);
    expect_event(&next(watcher.changed()).await, EventType::NodeDeleted, "/guest");
}

async fn sequentials(client: &Client) {
    client.create("/s", b"", PERSISTENT).await.expect("a parent");
    for wanted in 0..3 {
        let (_, sequence) = client.create("/s/n-", b"", SEQUENTIAL).await.expect("a sequential create");
        assert_eq!(sequence.into_i64(), wanted);
    }
    let (stat, sequence) = client.create("/s/e-", b"", EPHEMERAL_SEQUENTIAL).await.expect("a create");
    assert_eq!(sequence.to_string(), "0000000003");
    assert_ne!(stat.ephemeral_owner, 0);
}

async fn one_shot_watches(client: &Client, other: &Client) {
    client.create("/w", b"", PERSISTENT).await.expect("a create");
    let (_, _, data) = client.get_and_watch_data("/w").await.expect("a data watch");
    let (_, exists) = client.check_and_watch_stat("/w/later").await.expect("an exists watch");
    let (_, children) = client.list_and_watch_children("/w").await.expect("a child watch");

    other.set_data("/w", b"x", None).await.expect("a change");
    expect_event(&next(data.changed()).await, EventType::NodeDataChanged, "/w");
    other.create("/w/later", b"", PERSISTENT).await.expect("a create");
    expect_event(&next(exists.changed()).await, EventType::NodeCreated, "/w/later");
    expect_event(&next(children.changed()).await, EventType::NodeChildrenChanged, "/w");

    let (_, _, data) = client.get_and_watch_data("/w/later").await.expect("a data watch");
    let (_, children) = client.list_and_watch_children("/w").await.expect("a child watch");
    other.delete("/w/later", None).await.expect("a deletion");
    expect_event(&next(data.changed()).await, EventType::NodeDeleted, "/w/later");
    expect_event(&next(children.changed()).await, EventType::NodeChildrenChanged, "/w");
}

async fn persistent_watches(client: &Client, other: &Client) {
    client.create("/pw", b"", PERSISTENT).await.expect("a create");
    let mut recursive = client.watch("/pw", AddWatchMode::PersistentRecursive).await.expect("addWatch");
    // Apache knows one mode for a connection and a path: the second kind is another client's.
    let mut persistent = other.watch("/pw", AddWatchMode::Persistent).await.expect("addWatch");

    other.create("/pw/a", b"", PERSISTENT).await.expect("a create");
    other.create("/pw/a/b", b"", PERSISTENT).await.expect("a create");
    other.set_data("/pw/a/b", b"1", None).await.expect("a change");
    other.set_data("/pw/a/b", b"2", None).await.expect("a change");
    other.delete("/pw/a/b", None).await.expect("a deletion");
    other.set_data("/pw", b"1", None).await.expect("a change");
    other.set_data("/pw", b"2", None).await.expect("a change");

    for (kind, path) in [
        (EventType::NodeCreated, "/pw/a"),
        (EventType::NodeCreated, "/pw/a/b"),
        (EventType::NodeDataChanged, "/pw/a/b"),
        (EventType::NodeDataChanged, "/pw/a/b"),
        (EventType::NodeDeleted, "/pw/a/b"),
        (EventType::NodeDataChanged, "/pw"),
        (EventType::NodeDataChanged, "/pw"),
    ] {
        expect_event(&next(recursive.changed()).await, kind, path);
    }
    for (kind, path) in [
        (EventType::NodeChildrenChanged, "/pw"),
        (EventType::NodeDataChanged, "/pw"),
        (EventType::NodeDataChanged, "/pw"),
    ] {
        expect_event(&next(persistent.changed()).await, kind, path);
    }
}

async fn transactions(client: &Client) {
    client.create("/t", b"", PERSISTENT).await.expect("a create");
    let mut good = client.new_multi_writer();
    good.add_create("/t/a", b"1", PERSISTENT).expect("a path");
    good.add_set_data("/t/a", b"2", Some(0)).expect("a path");
    good.add_check_version("/t", 0).expect("a path");
    good.add_create("/t/b", b"", EPHEMERAL).expect("a path");
    good.add_delete("/t/b", None).expect("a path");
    let results = good.commit().await.expect("a transaction");
    assert!(matches!(&results[0], MultiWriteResult::Create { path, .. } if path == "/t/a"), "{results:?}");
    assert!(matches!(&results[1], MultiWriteResult::SetData { stat } if stat.version == 1), "{results:?}");
    assert_eq!(results[2], MultiWriteResult::Check);
    assert_eq!(results[4], MultiWriteResult::Delete);
    assert_eq!(client.list_children("/t").await, Ok(vec!["a".to_owned()]));

    let mut bad = client.new_multi_writer();
    bad.add_create("/t/c", b"", PERSISTENT).expect("a path");
    bad.add_delete("/t/none", None).expect("a path");
    bad.add_set_data("/t/a", b"3", None).expect("a path");
    let failure = bad.commit().await.expect_err("a transaction that cannot be");
    assert_eq!(failure, MultiWriteError::OperationFailed { index: 1, source: Error::NoNode });
    assert_eq!(client.check_stat("/t/c").await, Ok(None));
    assert_eq!(client.get_data("/t/a").await.expect("a read").0, b"2");
}

fn run_reconnect(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut server = Server::start(kind, folder.path());
    let address = server.address();
    // More than one thread: the client lives on while the server is restarted here.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (client, mut states) = runtime.block_on(async {
        // On loopback a silent loss takes two thirds of the timeout to be noticed; a killed server resets at once.
        let client = connect(&address, Duration::from_secs(20)).await;
        let states = client.state_watcher();
        client.create("/r", b"", PERSISTENT).await.expect("a create");
        client.create("/r/e", b"mine", EPHEMERAL).await.expect("an ephemeral");
        client.create("/below", b"", PERSISTENT).await.expect("a create");
        (client, states)
    });
    let session = client.session_id();
    // This client brings back one-shot watches only: it sends its persistent ones in a list that it leaves out.
    let (data, children) = runtime.block_on(async {
        let (_, _, data) = client.get_and_watch_data("/r").await.expect("a data watch");
        let (_, children) = client.list_and_watch_children("/below").await.expect("a child watch");
        (data, children)
    });
    assert_eq!(states.state(), SessionState::SyncConnected);

    server.kill();
    runtime.block_on(async { expect_state(&mut states, SessionState::Disconnected).await });
    server.restart();

    runtime.block_on(async {
        expect_state(&mut states, SessionState::SyncConnected).await;
        assert_eq!(client.session_id(), session);
        let (_, stat) = client.get_data("/r/e").await.expect("the ephemeral is there");
        assert_ne!(stat.ephemeral_owner, 0);

        // The watches were set before the restart; the server knows them only because the client told it again.
        let other = connect(&address, Duration::from_secs(10)).await;
        other.set_data("/r", b"changed", None).await.expect("a change");
        expect_event(&next(data.changed()).await, EventType::NodeDataChanged, "/r");
        other.create("/below/new", b"", PERSISTENT).await.expect("a create");
        expect_event(&next(children.changed()).await, EventType::NodeChildrenChanged, "/below");
    });
}

/// The client stops as a process would: its only thread stands still, so nobody sends pings.
fn run_expiry(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let address = server.address();
    let (say_ready, ready) = mpsc::channel();
    let (wake_up, sleep) = mpsc::channel::<()>();
    let holder = thread::spawn(move || {
        block_on(async {
            let client = connect(&address, Duration::from_secs(4)).await;
            client.create("/held", b"", EPHEMERAL).await.expect("an ephemeral");
            let mut states = client.state_watcher();
            say_ready.send(()).expect("somebody waits");
            sleep.recv().expect("somebody wakes us");
            expect_state(&mut states, SessionState::Expired).await;
        });
    });
    ready.recv().expect("the client comes up");
    let mut observer = server.connect();

    wait_until("the ephemeral expires", Duration::from_secs(30), || {
        !observer.exists("/held").expect("the server answers")
    });

    wake_up.send(()).expect("the client still stands there");
    holder.join().expect("the client learns that its session has expired");
}

async fn connect(address: &str, timeout: Duration) -> Client {
    let connector = Client::connector().with_session_timeout(timeout);
    next(connector.connect(address)).await.expect("a session")
}

/// Bounds every wait.
async fn next<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it happens within 30 s")
}

async fn expect_state(states: &mut zookeeper_client::StateWatcher, wanted: SessionState) {
    while states.state() != wanted {
        assert!(!states.peek_state().is_terminated(), "the session is {}", states.peek_state());
        next(states.changed()).await;
        if states.peek_state() == wanted {
            return;
        }
    }
}

fn expect_event(event: &WatchedEvent, kind: EventType, path: &str) {
    assert_eq!((event.event_type, event.path.as_str()), (kind, path));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}
