//! How far subscribers are, as whoever asks is told.

use super::*;

const SERVICE: &str = "/rollcall/services/default/web";

#[test]
fn a_subscriber_is_asked_behind_the_events_that_came_before_and_counts_once_it_has_said_so() {
    let mut bench = bench_with_service();
    subscribe(&mut bench, 1, "one");
    let zxid = change(&mut bench);
    let before = ask(&mut bench, 9, zxid);
    assert_eq!((before.subscribers, before.behind, before.behind_count), (1, "\"one\"".into(), 1));
    assert_eq!(
        bench.events(1),
        [(EventKind::DataChanged, SERVICE.into()), (EventKind::DataChanged, subscriber("one"))]
    );
    // It is asked once.
    assert_eq!(ask(&mut bench, 9, zxid).behind_count, 1);
    assert_eq!(bench.events(1), []);
    assert!(say(&mut bench, 1, "one", zxid));
    let after = ask(&mut bench, 9, zxid);
    assert_eq!((after.subscribers, after.behind_count, after.away_count, after.others), (1, 0, 0, 0));
    assert!(after.is_complete && after.is_applied);
    // Whoever is that far is also as far as any earlier change.
    assert_eq!(ask(&mut bench, 9, Zxid::from_raw(zxid.raw() - 1)).behind_count, 0);
    assert_eq!(bench.events(1), []);
}

#[test]
fn only_followers_of_the_path_are_asked_and_other_watchers_are_told_apart() {
    let mut bench = bench_with_service();
    subscribe(&mut bench, 1, "one");
    bench.open(2);
    watch(&mut bench, 2, "/elsewhere", AddWatchMode::PersistentRecursive);
    watch(&mut bench, 2, &subscriber("two"), AddWatchMode::Persistent);
    bench.open(3);
    watch(&mut bench, 3, SERVICE, AddWatchMode::Persistent);
    bench.open(4);
    bench.ask(4, &Request::GetChildren { path: SERVICE.into(), watch: true }).unwrap();
    bench.open(5);
    watch(&mut bench, 5, "/", AddWatchMode::PersistentRecursive);
    bench.open(6);
    watch(&mut bench, 6, "/rollcall/services/default/webs", AddWatchMode::PersistentRecursive);
    let zxid = bench.replica.tree().last_zxid();
    let told = ask(&mut bench, 9, zxid);
    assert_eq!((told.subscribers, told.behind.as_str(), told.others), (1, "\"one\"", 3));
    assert_eq!(bench.events(2), []);
    assert!(!say(&mut bench, 2, "one", zxid), "nobody says it for another");
    assert_eq!(ask(&mut bench, 9, zxid).behind_count, 1);
}

#[test]
fn what_is_not_applied_yet_is_said_to_be_so_and_cannot_be_confirmed() {
    let mut bench = bench_with_service();
    subscribe(&mut bench, 1, "one");
    let next = Zxid::from_raw(bench.replica.tree().last_zxid().raw() + 1);
    let told = ask(&mut bench, 9, next);
    assert!(!told.is_applied);
    assert_eq!(bench.events(1), []);
    assert!(!say(&mut bench, 1, "one", next));
    assert_eq!(change(&mut bench), next);
    assert_eq!(ask(&mut bench, 9, next).behind_count, 1);
}

#[test]
fn who_lost_its_connection_is_missed_until_it_is_back_and_has_said_so() {
    let mut bench = bench_with_service();
    let session = subscribe(&mut bench, 1, "one");
    let zxid = change(&mut bench);
    bench.handle(Input::Disconnected(ConnectionId(1)));
    bench.take(1);
    let told = ask(&mut bench, 9, zxid);
    assert_eq!((told.subscribers, told.away.as_str(), told.away_count), (0, "\"one\"", 1));
    bench.connect(2, session);
    let watches = SetWatches {
        relative_zxid: zxid,
        persistent: vec![subscriber("one")],
        persistent_recursive: vec!["/rollcall/services".into()],
        ..SetWatches::default()
    };
    bench.send(2, &Request::SetWatches2(watches));
    bench.take(2);
    let told = ask(&mut bench, 9, zxid);
    assert_eq!((told.behind_count, told.away_count), (1, 0));
    assert_eq!(bench.events(2), [(EventKind::DataChanged, subscriber("one"))]);
    assert!(say(&mut bench, 2, "one", zxid));
    assert!(say(&mut bench, 9, "one", zxid), "others are told, too");
    // What it has said stays said.
    bench.handle(Input::Disconnected(ConnectionId(2)));
    let told = ask(&mut bench, 9, zxid);
    assert_eq!((told.behind_count, told.away_count), (0, 0));
    assert!(!say(&mut bench, 9, "one", zxid), "it is not here to speak for itself");
    let later = change(&mut bench);
    assert_eq!(ask(&mut bench, 9, later).away_count, 1);
}

#[test]
fn the_word_of_another_member_is_taken_for_who_is_away() {
    let mut bench = bench_with_service();
    subscribe(&mut bench, 1, "one");
    let zxid = change(&mut bench);
    bench.handle(Input::Disconnected(ConnectionId(1)));
    assert!(!say(&mut bench, 9, "one", zxid));
    assert!(exists_at(&mut bench, 9, &elsewhere("one", zxid, SessionId(7))));
    assert_eq!(ask(&mut bench, 9, zxid).away_count, 0);
    // For who is connected here, only if it is the session that has gone elsewhere.
    let session = subscribe(&mut bench, 2, "one");
    assert!(exists_at(&mut bench, 9, &elsewhere("one", zxid, SessionId(7))));
    assert_eq!(ask(&mut bench, 9, zxid).behind_count, 1);
    assert!(exists_at(&mut bench, 9, &elsewhere("one", zxid, session)));
    assert_eq!(ask(&mut bench, 9, zxid).behind_count, 0);
}

#[test]
fn a_connection_that_was_dead_for_long_does_not_outlive_the_one_after_it() {
    let mut bench = bench_with_service();
    subscribe(&mut bench, 1, "one");
    subscribe(&mut bench, 2, "one");
    let zxid = change(&mut bench);
    assert!(!say(&mut bench, 2, "one", zxid), "the other has not");
    assert_eq!(ask(&mut bench, 9, zxid).behind_count, 1);
    bench.handle(Input::Disconnected(ConnectionId(1)));
    let told = ask(&mut bench, 9, zxid);
    assert_eq!((told.subscribers, told.behind_count, told.away_count), (1, 0, 0));
    let path = standing("one", zxid);
    let session = match bench.ask(9, &exists(&path, false)) {
        Ok(Response::Stat(stat)) => stat.ephemeral_owner,
        other => panic!("{other:?}"),
    };
    assert!(bench.replica.tree().sessions().contains(session));
}

#[test]
fn who_ends_its_session_is_not_missed_and_nobody_is_for_ever() {
    let mut bench = bench_with_service();
    subscribe(&mut bench, 1, "one");
    subscribe(&mut bench, 2, "two");
    let zxid = change(&mut bench);
    bench.send(1, &Request::CloseSession);
    bench.advance(Duration::from_millis(300));
    bench.send(9, &Request::Ping);
    // The other one's session expires: it may be there, and answer from what it knew.
    bench.advance(Duration::from_millis(300));
    assert!(bench.closed.contains(&(ConnectionId(2), CloseReason::SessionExpired)));
    bench.open(10);
    let told = ask(&mut bench, 10, zxid);
    assert_eq!((told.away.as_str(), told.away_count), ("\"two\"", 1));
    bench.advance(Duration::from_secs(61));
    bench.open(11);
    assert_eq!(ask(&mut bench, 11, zxid).away_count, 0);
}

#[test]
fn who_unsubscribes_is_no_subscriber() {
    let mut bench = bench_with_service();
    subscribe(&mut bench, 1, "one");
    let kind = 4;
    bench.ask(1, &Request::RemoveWatches { path: subscriber("one"), kind }).unwrap();
    let zxid = change(&mut bench);
    let told = ask(&mut bench, 9, zxid);
    assert_eq!((told.subscribers, told.others), (0, 1));
}

#[test]
fn names_are_bounded_and_counted() {
    let mut bench = bench_with_service();
    for id in 100..250 {
        subscribe(&mut bench, id, &format!("s{id}"));
    }
    let zxid = bench.replica.tree().last_zxid();
    let told = ask(&mut bench, 9, zxid);
    assert_eq!((told.behind.split(',').count(), told.behind_count, told.subscribers), (100, 150, 150));
}

/// What a barrier costs a member, but for its sockets.
#[test]
fn ten_thousand_subscribers_are_asked_once_and_answer_once() {
    const COUNT: u64 = 10_000;
    let mut bench = bench_with_service();
    for id in 100..100 + COUNT {
        subscribe(&mut bench, id, &format!("s{id}"));
    }
    let zxid = change(&mut bench);
    bench.sent.clear();
    let started = crate::clock::now();
    assert_eq!(ask(&mut bench, 9, zxid).behind_count, COUNT);
    let asking = started.elapsed();
    let events = bench.sent.iter().filter(|(_, message)| matches!(message, Message::Event(..))).count();
    assert_eq!(u64::try_from(events).unwrap(), COUNT);
    bench.sent.clear();
    let started = crate::clock::now();
    for id in 100..100 + COUNT {
        assert!(say(&mut bench, id, &format!("s{id}"), zxid));
    }
    let confirming = started.elapsed();
    let started = crate::clock::now();
    let told = ask(&mut bench, 9, zxid);
    println!("asked in {asking:?}, confirmed in {confirming:?}, all known in {:?}", started.elapsed());
    assert_eq!((told.subscribers, told.behind_count), (COUNT, 0));
}

#[test]
fn a_member_that_may_have_had_clients_does_not_know_who_is_away_at_first() {
    let mut bench = bench_with_service();
    let zxid = bench.replica.tree().last_zxid();
    assert!(ask(&mut bench, 9, zxid).is_complete, "nobody had a session when it began");
    let mut snapshot = Vec::new();
    let tree = bench.replica.tree();
    let mut cursor = tree.begin_snapshot(&mut snapshot);
    while !tree.continue_snapshot(&mut cursor, usize::MAX, &mut snapshot) {}
    let tree = Tree::decode_snapshot(&mut Reader::new(&snapshot), zxid).unwrap();
    let epochs = bench.replica.epochs();
    let recovery =
        Recovery { tree, accepted_epoch: epochs.0, current_epoch: epochs.1.into(), ..Recovery::default() };
    let settings = bench.replica.settings.clone();
    bench.replica = Replica::new(settings, recovery, bench.now());
    bench.drain();
    bench.open(10);
    assert!(!ask(&mut bench, 10, zxid).is_complete);
    bench.advance(Duration::from_secs(10));
    bench.open(11);
    assert!(ask(&mut bench, 11, zxid).is_complete);
}

#[test]
fn nothing_is_written_where_the_members_speak_for_themselves() {
    let mut bench = bench_with_service();
    for path in ["/zookeeper/rollcall".to_owned(), subscriber("one"), standing("one", Zxid::ZERO)] {
        assert_eq!(bench.create(9, &path, CreateMode::Persistent), Err(OpError::BadArguments), "{path}");
        let multi =
            Request::Multi(vec![MultiOp::Create(CreateRequest::open(&*path, "", CreateMode::Persistent))]);
        let refused = Ok(Response::Multi(vec![OpResult::Error(Some(OpError::BadArguments))]));
        assert_eq!(bench.ask(9, &multi), refused);
        for request in [
            set(&path, "x", -1),
            delete(&path),
            Request::GetChildren { path: path.clone(), watch: false },
            Request::GetAcl { path: path.clone() },
            Request::GetData { path: path.clone(), watch: false },
        ] {
            assert_eq!(bench.ask(9, &request), Err(OpError::NoNode), "{request:?}");
        }
    }
    assert_eq!(bench.ask(9, &exists(&subscriber("one"), false)), Err(OpError::NoNode));
}

/// What whoever asks is told.
#[derive(Debug)]
struct Told {
    is_applied: bool,
    is_complete: bool,
    subscribers: u64,
    behind: String,
    behind_count: u64,
    away: String,
    away_count: u64,
    others: u64,
}

/// A member with a service, and a client 9 that asks.
fn bench_with_service() -> Bench {
    let mut bench = Bench::start();
    bench.open(9);
    for path in ["/rollcall", "/rollcall/services", "/rollcall/services/default", SERVICE] {
        bench.create(9, path, CreateMode::Persistent).unwrap();
    }
    bench
}

fn subscribe(bench: &mut Bench, id: u64, name: &str) -> SessionId {
    let session = bench.open(id);
    watch(bench, id, "/rollcall/services", AddWatchMode::PersistentRecursive);
    watch(bench, id, &subscriber(name), AddWatchMode::Persistent);
    session
}

fn watch(bench: &mut Bench, id: u64, path: &str, mode: AddWatchMode) {
    bench.ask(id, &Request::AddWatch { path: path.into(), mode }).unwrap();
}

/// Changes the service; returns the txn.
fn change(bench: &mut Bench) -> Zxid {
    bench.ask(9, &set(SERVICE, "y", -1)).unwrap();
    bench.replica.tree().last_zxid()
}

fn ask(bench: &mut Bench, id: u64, zxid: Zxid) -> Told {
    let path = format!("/zookeeper/rollcall/barriers/{:016x}{SERVICE}", zxid.raw());
    let Ok(Response::Data(Some(body), _)) = bench.ask(id, &Request::GetData { path, watch: false }) else {
        panic!("no answer")
    };
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&json["server"], &json["members"]), (&1.into(), &serde_json::json!([1])));
    let names = |list: &serde_json::Value| list.to_string().trim_matches(['[', ']']).to_owned();
    let number = |field: &str| json[field].as_u64().unwrap();
    Told {
        is_applied: json["applied"].as_bool().unwrap(),
        is_complete: json["complete"].as_bool().unwrap(),
        subscribers: number("subscribers"),
        behind: names(&json["behind"]),
        behind_count: number("behind_count"),
        away: names(&json["away"]),
        away_count: number("away_count"),
        others: number("others"),
    }
}

/// What a subscriber says of itself, or another asks about it.
fn say(bench: &mut Bench, id: u64, name: &str, zxid: Zxid) -> bool {
    exists_at(bench, id, &standing(name, zxid))
}

fn exists_at(bench: &mut Bench, id: u64, path: &str) -> bool {
    bench.ask(id, &exists(path, false)).is_ok()
}

fn subscriber(name: &str) -> String {
    format!("/zookeeper/rollcall/subscribers/{name}")
}

fn standing(name: &str, zxid: Zxid) -> String {
    format!("{}/{:016x}", subscriber(name), zxid.raw())
}

fn elsewhere(name: &str, zxid: Zxid, SessionId(session): SessionId) -> String {
    format!("{}/elsewhere/{session:016x}", standing(name, zxid))
}
