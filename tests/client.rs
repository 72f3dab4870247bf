//! The client against Apache ZooKeeper 3.8.0: what it promises, shown on a server that is not ours.

#[path = "common/apache.rs"]
mod apache;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use apache::ApacheServer;
use rollcall::client::{
    Client, ClientError, ClientSettings, ClientState, ResyncReason, WatchNotice, Watcher,
};
use rollcall::wire::{CreateRequest, MultiOp, OpResult, Request};
use rollcall::znode::{Acl, AddWatchMode, CreateMode, EventKind, OpError, Permissions, WatchedEvent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn znodes_are_created_read_changed_and_deleted() {
    let world = World::start();
    let client = world.client();
    let session = client.connected().await.unwrap();

    assert_eq!(client.create("/a", "one", CreateMode::Persistent).await.unwrap(), "/a");
    let error = client.create("/a", "", CreateMode::Persistent).await.unwrap_err();
    assert_eq!(error.to_string(), "create /a: the znode exists already");
    client.create("/a/gone", "", CreateMode::Ephemeral).await.unwrap();
    let owner = client.exists("/a/gone").await.unwrap().unwrap().ephemeral_owner;
    assert_eq!(owner, session);
    let first = client.create("/a/n-", "", CreateMode::PersistentSequential).await.unwrap();
    let second = client.create("/a/n-", "", CreateMode::EphemeralSequential).await.unwrap();
    assert_eq!((first.as_str(), second.as_str()), ("/a/n-0000000001", "/a/n-0000000002"));
    let (mut names, stat) = client.children("/a").await.unwrap();
    names.sort();
    assert_eq!(names, ["gone", "n-0000000001", "n-0000000002"]);
    assert_eq!(stat.num_children, 3);

    let (data, stat) = client.get("/a").await.unwrap();
    assert_eq!((data.as_deref(), stat.version), (Some(&b"one"[..]), 0));
    assert_eq!(client.set("/a", "two", Some(0)).await.unwrap().version, 1);
    let error = client.set("/a", "three", Some(0)).await.unwrap_err();
    assert_eq!(error.op_error(), Some(OpError::BadVersion));
    assert_eq!(client.delete("/a", None).await.unwrap_err().op_error(), Some(OpError::NotEmpty));
    assert_eq!(client.delete(&first, Some(3)).await.unwrap_err().op_error(), Some(OpError::BadVersion));
    client.delete(&first, Some(0)).await.unwrap();
    assert_eq!(client.exists(&first).await.unwrap(), None);
    client.sync("/a").await.unwrap();

    let readable = vec![Acl::anyone(Permissions::READ)];
    let (path, stat) =
        client.create_with_acl("/r", "", CreateMode::Persistent, readable.clone()).await.unwrap();
    assert_eq!((path.as_str(), stat.aversion), ("/r", 0));
    assert_eq!(client.get_acl("/r").await.unwrap().0, readable);
    assert_eq!(client.set("/r", "", None).await.unwrap_err().op_error(), Some(OpError::NoAuth));
    assert_eq!(client.set_acl("/a", vec![Acl::open()], Some(0)).await.unwrap().aversion, 1);

    client.create_all("/x/y/z").await.unwrap();
    client.create_all("/x/y/z").await.unwrap();
    assert!(client.exists("/x/y/z").await.unwrap().is_some());
    let error = client.request(Request::Ping).await.unwrap_err();
    assert!(matches!(error, ClientError::Reserved { .. }));
    assert!(client.last_proof().is_some());
    client.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_multi_is_carried_out_whole_or_names_the_operation_at_fault() {
    let world = World::start();
    let client = world.client();
    let create = |path: &str| MultiOp::Create(CreateRequest::open(path, "", CreateMode::Persistent));
    let results = client
        .multi(vec![
            create("/m"),
            create("/m/a"),
            MultiOp::SetData { path: "/m".into(), data: Some("x".into()), version: 0 },
            MultiOp::Check { path: "/m".into(), version: 1 },
            MultiOp::Delete { path: "/m/a".into(), version: -1 },
        ])
        .await
        .unwrap();
    assert_eq!(results[0], OpResult::Create("/m".into()));
    assert!(matches!(results[2], OpResult::SetData(stat) if stat.version == 1));
    assert_eq!((&results[3], &results[4]), (&OpResult::Check, &OpResult::Delete));

    let failing = vec![create("/n"), MultiOp::Check { path: "/m".into(), version: 7 }, create("/o")];
    let error = client.multi(failing).await.unwrap_err();
    assert_eq!(error.op_error(), Some(OpError::BadVersion));
    assert_eq!(
        error.to_string(),
        "multi, operation 1 of 3, check /m: the znode's version is not the one given; none was carried out"
    );
    assert_eq!(client.exists("/n").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_many_callers_are_pipelined_beyond_the_queue_bound() {
    let world = World::start();
    let client = world.client();
    client.create("/p", "", CreateMode::Persistent).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..3000 {
        let client = client.clone();
        tasks.spawn(async move { client.create(format!("/p/{number}"), "", CreateMode::Persistent).await });
    }
    while let Some(created) = tasks.join_next().await {
        created.unwrap().unwrap();
    }
    assert_eq!(client.children("/p").await.unwrap().0.len(), 3000);
    assert_eq!(client.stats().connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_shot_watches_fire_once_for_what_they_watch() {
    let world = World::start();
    let (client, other) = (world.client(), world.client());
    other.create("/w", "", CreateMode::Persistent).await.unwrap();

    let (_, _, data) = client.get_watched("/w").await.unwrap();
    let (_, _, children) = client.children_watched("/w").await.unwrap();
    let (stat, existing) = client.exists_watched("/w/new").await.unwrap();
    assert_eq!(stat, None);
    let error = client.get_watched("/nowhere").await.unwrap_err();
    assert_eq!(error.op_error(), Some(OpError::NoNode));

    other.create("/w/new", "", CreateMode::Persistent).await.unwrap();
    assert_eq!(soon(existing.fired()).await, Some(event(EventKind::Created, "/w/new")));
    assert_eq!(soon(children.fired()).await, Some(event(EventKind::ChildrenChanged, "/w")));
    other.set("/w", "x", None).await.unwrap();
    assert_eq!(soon(data.fired()).await, Some(event(EventKind::DataChanged, "/w")));

    let (stat, existing) = client.exists_watched("/w/new").await.unwrap();
    assert!(stat.is_some());
    other.delete("/w/new", None).await.unwrap();
    assert_eq!(soon(existing.fired()).await, Some(event(EventKind::Deleted, "/w/new")));

    let (_, _, data) = client.get_watched("/w").await.unwrap();
    client.close().await.unwrap();
    assert_eq!(soon(data.fired()).await, None, "a closed client says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recursive_watch_sees_every_change_below_before_any_later_answer() {
    let world = World::start();
    let (client, other) = (world.client(), world.client());
    other.create("/w", "", CreateMode::Persistent).await.unwrap();
    let mut watcher = client.watch("/w", AddWatchMode::PersistentRecursive).await.unwrap();
    other.create("/w/a", "", CreateMode::Persistent).await.unwrap();
    other.create("/w/a/b", "", CreateMode::Ephemeral).await.unwrap();
    other.set("/w/a", "x", None).await.unwrap();
    other.close().await.unwrap();
    client.sync("/w").await.unwrap();
    let (names, _) = client.children("/w/a").await.unwrap();
    assert_eq!(names, [""; 0], "the ephemeral went with its session");
    let expected = [
        (EventKind::Created, "/w/a"),
        (EventKind::Created, "/w/a/b"),
        (EventKind::DataChanged, "/w/a"),
        (EventKind::Deleted, "/w/a/b"),
    ];
    for (kind, path) in expected {
        let notice = watcher.try_recv().expect("was delivered before the answer");
        assert!(matches!(notice, WatchNotice::Event { event: seen, .. } if seen == event(kind, path)));
    }

    let mut one_path = client.watch("/w/a", AddWatchMode::Persistent).await.unwrap();
    for _again in 0..2 {
        client.set("/w/a", "", None).await.unwrap();
        assert_eq!(next_event(&mut one_path).await, event(EventKind::DataChanged, "/w/a"));
    }
    client.create("/w/a/c", "", CreateMode::Persistent).await.unwrap();
    assert_eq!(next_event(&mut one_path).await, event(EventKind::ChildrenChanged, "/w/a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_a_killed_server_with_its_ephemerals_and_watches() {
    let mut world = World::start();
    let client = world.client();
    let session = client.connected().await.unwrap();
    client.create("/s", "one", CreateMode::Persistent).await.unwrap();
    client.create("/s/me", "", CreateMode::Ephemeral).await.unwrap();
    let (_, _, data) = client.get_watched("/s").await.unwrap();
    let mut watcher = client.watch("/s", AddWatchMode::PersistentRecursive).await.unwrap();

    world.server.kill();
    assert_eq!(soon(watcher.recv()).await, Some(WatchNotice::Disconnected));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.get("/s").await }
    });
    world.server.restart();
    assert_eq!(soon(client.connected()).await.unwrap(), session);
    assert_eq!(soon(waiting).await.unwrap().unwrap().0.as_deref(), Some(&b"one"[..]));
    assert_eq!(soon(watcher.recv()).await, Some(WatchNotice::Resync(ResyncReason::Reconnected)));
    assert_eq!(client.exists("/s/me").await.unwrap().unwrap().ephemeral_owner, session);

    let other = world.client();
    other.set("/s", "two", None).await.unwrap();
    assert_eq!(soon(data.fired()).await, Some(event(EventKind::DataChanged, "/s")));
    assert_eq!(next_event(&mut watcher).await, event(EventKind::DataChanged, "/s"));
    assert_eq!(client.stats().sessions_expired(), 0);
    client.close().await.unwrap();
    assert_eq!(other.exists("/s/me").await.unwrap(), None, "closing ends the ephemerals at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_shot_watch_fires_for_what_happened_while_the_connection_was_cut() {
    let world = World::start();
    let wire = Wire::start(world.server.address()).await;
    let (client, other) = (World::client_at(wire.address), world.client());
    other.create("/d", "", CreateMode::Persistent).await.unwrap();
    let (_, _, data) = client.get_watched("/d").await.unwrap();
    let (_, created) = client.exists_watched("/e").await.unwrap();
    wire.set(WireState::Cut);
    other.set("/d", "x", None).await.unwrap();
    other.create("/e", "", CreateMode::Persistent).await.unwrap();
    wire.set(WireState::Whole);
    assert_eq!(soon(data.fired()).await, Some(event(EventKind::DataChanged, "/d")));
    assert_eq!(soon(created.fired()).await, Some(event(EventKind::Created, "/e")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_given_up_and_what_it_had_is_ambiguous() {
    let world = World::start();
    let wire = Wire::start(world.server.address()).await;
    let client = Client::start(settings(wire.address));
    client.connected().await.unwrap();
    wire.set(WireState::Frozen);
    let error = soon(client.create("/maybe", "", CreateMode::Persistent)).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::ConnectionLost { cause, .. } if cause.contains("no word for")),
        "{error}"
    );
    let state = client.state().borrow().clone();
    assert!(matches!(state, ClientState::Connecting { .. }), "the state was told first: {state:?}");
    wire.set(WireState::Whole);
    // On a slow machine the session may have expired meanwhile, and one request with it.
    soon(async { while client.exists("/").await.is_err() {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_watches_than_one_frame_holds_are_brought_back() {
    const WATCHES: usize = 12_000;
    let world = World::start();
    let wire = Wire::start(world.server.address()).await;
    let (client, other) = (World::client_at(wire.address), world.client());
    let path = |number: usize| format!("/{}-{number:05}", "long".repeat(25));
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..WATCHES {
        let client = client.clone();
        asking.spawn(async move { (number, client.exists_watched(path(number)).await) });
    }
    let mut watches = BTreeMap::new();
    while let Some(answer) = asking.join_next().await {
        let (number, answer) = answer.unwrap();
        watches.insert(number, answer.unwrap().1);
    }
    wire.set(WireState::Cut);
    other.create(path(0), "", CreateMode::Persistent).await.unwrap();
    wire.set(WireState::Whole);
    assert_eq!(soon(watches.remove(&0).unwrap().fired()).await, Some(event(EventKind::Created, &path(0))));
    for number in [1, WATCHES / 2, WATCHES - 1] {
        other.create(path(number), "", CreateMode::Persistent).await.unwrap();
        let fired = soon(watches.remove(&number).unwrap().fired()).await;
        assert_eq!(fired, Some(event(EventKind::Created, &path(number))));
    }
    assert_eq!(client.stats().sessions_expired(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_expires_when_the_server_says_so_and_a_new_one_follows() {
    let world = World::start();
    let wire = Wire::start(world.server.address()).await;
    let (client, other) = (Client::start(settings(wire.address)), world.client());
    let session = client.connected().await.unwrap();
    client.create("/gone", "", CreateMode::Ephemeral).await.unwrap();
    let mut watcher = client.watch("/", AddWatchMode::PersistentRecursive).await.unwrap();

    wire.set(WireState::Cut);
    soon(async {
        while other.exists("/gone").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let state = client.state().borrow().clone();
    assert!(matches!(state, ClientState::Connecting { .. }), "nobody told the client: {state:?}");
    let error = client.get("/").await.unwrap_err();
    assert!(matches!(error, ClientError::NotConnected { .. }), "{error}");

    wire.set(WireState::Whole);
    let new_session = soon(client.connected()).await.unwrap();
    assert_ne!(new_session, session);
    assert_eq!(client.state().borrow().session(), Some((new_session, 2)));
    assert_eq!(client.stats().sessions_expired(), 1);
    assert_eq!(soon(watcher.recv()).await, Some(WatchNotice::Disconnected));
    assert_eq!(soon(watcher.recv()).await, Some(WatchNotice::Resync(ResyncReason::NewSession)));
    client.create("/gone", "", CreateMode::Ephemeral).await.unwrap();
    assert_eq!(next_event(&mut watcher).await, event(EventKind::Created, "/gone"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_keep_an_idle_session_and_prove_the_server_current() {
    let world = World::start();
    let client = Client::start(ClientSettings {
        session_timeout: Duration::from_millis(1000),
        ..settings(world.server.address())
    });
    let session = client.connected().await.unwrap();
    let mut proofs = 0;
    let mut last_proof = client.last_proof();
    // Ten thirds of the timeout: three times as long as a silent session would be kept.
    soon(async {
        while proofs < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            proofs += u32::from(client.last_proof() != last_proof);
            last_proof = client.last_proof();
        }
    })
    .await;
    assert_eq!(client.connected().await.unwrap(), session);
    assert_eq!((client.stats().connections(), client.stats().dials()), (1, 1));
    assert!(client.stats().ping_round_trip().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_every_handle_hangs_up_and_keeps_the_session() {
    let world = World::start();
    let (client, other) = (world.client(), world.client());
    client.create("/left", "", CreateMode::Ephemeral).await.unwrap();
    let session = client.connected().await.unwrap().to_string();
    assert!(world.server.four_letter_word("cons").contains(&session));
    let mut state = client.state();
    drop(client);
    soon(state.wait_for(|state| *state == ClientState::Closed)).await.unwrap();
    soon(async {
        while world.server.four_letter_word("cons").contains(&session) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(other.exists("/left").await.unwrap().is_some());
}

const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    server: ApacheServer,
    _data_dir: TempDir,
}

impl World {
    fn start() -> Self {
        let data_dir = tempfile::tempdir().expect("a folder for the data");
        Self { server: ApacheServer::start(data_dir.path()), _data_dir: data_dir }
    }

    fn client(&self) -> Client {
        Self::client_at(self.server.address())
    }

    fn client_at(address: SocketAddr) -> Client {
        Client::start(ClientSettings {
            // The longest that the server grants, so that a slow machine loses none.
            session_timeout: Duration::from_secs(10),
            request_timeout: DEADLINE,
            ..settings(address)
        })
    }
}

fn settings(server: SocketAddr) -> ClientSettings {
    ClientSettings {
        session_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        ..ClientSettings::for_servers([server.to_string()])
    }
}

fn event(kind: EventKind, path: &str) -> WatchedEvent {
    WatchedEvent { kind, path: path.into() }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it happens before the deadline")
}

async fn next_event(watcher: &mut Watcher) -> WatchedEvent {
    match soon(watcher.recv()).await {
        Some(WatchNotice::Event { event, .. }) => event,
        other => panic!("{other:?} instead of an event"),
    }
}

/// A wire to a server that can be cut, so that it refuses whoever calls, or frozen, so that it only seems to carry.
struct Wire {
    address: SocketAddr,
    state: watch::Sender<WireState>,
}

#[derive(Clone, Copy)]
enum WireState {
    Whole,
    Cut,
    Frozen,
}

impl Wire {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let address = listener.local_addr().expect("it is bound");
        let state = watch::Sender::new(WireState::Whole);
        tokio::spawn(accept(listener, server, state.subscribe()));
        Self { address, state }
    }

    fn set(&self, state: WireState) {
        self.state.send_replace(state);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: watch::Receiver<WireState>) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(carry(near, server, state.clone()));
    }
}

async fn carry(mut near: TcpStream, server: SocketAddr, mut state: watch::Receiver<WireState>) {
    let now = *state.borrow_and_update();
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    if matches!(now, WireState::Whole) {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
            _ = state.changed() => {}
        }
    }
    // Neither end learns anything until the wire is mended or cut.
    while matches!(*state.borrow_and_update(), WireState::Frozen) {
        if state.changed().await.is_err() {
            return;
        }
    }
}
