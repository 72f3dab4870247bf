//! What stands where something has changed is told to subscribers with the event.

use super::*;
use crate::znode::{Acl, Permissions};

const SUBSCRIBER: &str = "/zookeeper/rollcall/subscribers/one";

#[test]
fn a_subscriber_is_told_what_the_txn_has_left_and_others_are_told_the_event() {
    let mut bench = bench();
    bench.ask(9, &create("/a/b", "1", Acl::open())).unwrap();
    bench.ask(9, &set("/a/b", "22", -1)).unwrap();
    bench.ask(9, &delete("/a/b")).unwrap();
    let told = carried(&mut bench, 1);
    let data: Vec<_> = told.iter().map(|(kind, carried)| (*kind, data_of(carried.as_ref()))).collect();
    assert_eq!(
        data,
        [
            (EventKind::Created, Some("1".into())),
            (EventKind::DataChanged, Some("22".into())),
            (EventKind::Deleted, Some("gone".into())),
        ]
    );
    let Some(CarriedZnode::There { stat, .. }) = &told[1].1 else { panic!("it was there") };
    assert_eq!((stat.version, stat.data_length), (1, 2));
    let others: Vec<_> = carried(&mut bench, 2).into_iter().map(|(_, carried)| carried).collect();
    assert_eq!(others, [None, None, None]);
}

#[test]
fn of_what_a_multi_deletes_and_creates_a_follower_that_subscribes_is_told_once() {
    let mut bench = bench();
    bench.ask(9, &create("/a/b", "1", Acl::open())).unwrap();
    carried(&mut bench, 1);
    let replace = vec![
        MultiOp::Delete { path: "/a/b".into(), version: -1 },
        MultiOp::Create(CreateRequest::open("/a/b", "2", CreateMode::Persistent)),
    ];
    bench.ask(9, &Request::Multi(replace)).unwrap();
    let told = carried(&mut bench, 1);
    let told: Vec<_> = told.iter().map(|(kind, carried)| (*kind, data_of(carried.as_ref()))).collect();
    assert_eq!(told, [(EventKind::Created, Some("2".to_owned()))]);
    let others: Vec<_> = carried(&mut bench, 2).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(others, [EventKind::Created, EventKind::Deleted, EventKind::Created]);
}

#[test]
fn a_watch_of_the_very_path_is_told_of_every_change_and_each_time_with_what_the_txn_has_left() {
    let mut bench = bench();
    bench.ask(9, &create("/a/b", "1", Acl::open())).unwrap();
    carried(&mut bench, 1);
    bench.ask(1, &exists("/a/b", true)).unwrap();
    let replace = vec![
        MultiOp::Delete { path: "/a/b".into(), version: -1 },
        MultiOp::Create(CreateRequest::open("/a/b", "2", CreateMode::Persistent)),
        MultiOp::SetData { path: "/a/b".into(), data: Some(Bytes::from_static(b"3")), version: -1 },
    ];
    bench.ask(9, &Request::Multi(replace)).unwrap();
    let told = carried(&mut bench, 1);
    let told: Vec<_> = told.iter().map(|(kind, carried)| (*kind, data_of(carried.as_ref()))).collect();
    let there = Some("3".to_owned());
    assert_eq!(told, [(EventKind::Deleted, there.clone()), (EventKind::DataChanged, there)]);
}

#[test]
fn what_is_long_or_not_for_everybody_to_read_is_not_carried() {
    let mut bench = bench();
    bench.ask(9, &create("/a/unreadable", "1", Acl::anyone(Permissions::WRITE))).unwrap();
    bench.ask(9, &create("/a/long", &"x".repeat(4_097), Acl::open())).unwrap();
    bench.ask(9, &create("/a/as-long-as-may-be", &"x".repeat(4_096), Acl::open())).unwrap();
    let told: Vec<_> = carried(&mut bench, 1).iter().map(|(_, carried)| carried.is_some()).collect();
    assert_eq!(told, [false, false, true]);
}

#[test]
fn the_lists_of_children_and_questions_are_told_as_ever() {
    let mut bench = bench();
    let persistent = Request::AddWatch { path: "/a".into(), mode: AddWatchMode::Persistent };
    bench.ask(1, &persistent).unwrap();
    bench.ask(9, &create("/a/b", "1", Acl::open())).unwrap();
    let zxid = bench.replica.tree().last_zxid();
    let barrier = format!("/zookeeper/rollcall/barriers/{:016x}/a", zxid.raw());
    bench.ask(9, &Request::GetData { path: barrier, watch: false }).unwrap();
    let told: Vec<_> =
        carried(&mut bench, 1).into_iter().map(|(kind, carried)| (kind, carried.is_some())).collect();
    assert_eq!(
        told,
        [(EventKind::Created, true), (EventKind::ChildrenChanged, false), (EventKind::DataChanged, false),]
    );
}

/// With a subscriber, 1, and another watcher, 2, of all below `/a`.
fn bench() -> Bench {
    let mut bench = Bench::start();
    bench.open(9);
    bench.create(9, "/a", CreateMode::Persistent).unwrap();
    for id in [1, 2] {
        bench.open(id);
        let watch = Request::AddWatch { path: "/a".into(), mode: AddWatchMode::PersistentRecursive };
        bench.ask(id, &watch).unwrap();
    }
    let subscribe = Request::AddWatch { path: SUBSCRIBER.into(), mode: AddWatchMode::Persistent };
    bench.ask(1, &subscribe).unwrap();
    bench
}

fn create(path: &str, data: &str, acl: Acl) -> Request {
    let open = CreateRequest::open(path, data.to_owned(), CreateMode::Persistent);
    Request::Create(CreateRequest { acl: vec![acl], ..open })
}

/// The events that were sent to a connection, and what came with them.
fn carried(bench: &mut Bench, id: u64) -> Vec<(EventKind, Option<CarriedZnode>)> {
    let events = bench.take(id).into_iter().map(|message| match message {
        Message::Event(event, carried) => (event.kind, carried),
        other => panic!("not an event: {other:?}"),
    });
    events.collect()
}

fn data_of(carried: Option<&CarriedZnode>) -> Option<String> {
    Some(match carried? {
        CarriedZnode::There { data, .. } => String::from_utf8(data.as_ref()?.to_vec()).unwrap(),
        CarriedZnode::Gone => "gone".to_owned(),
    })
}
