//! What clients may ask for in bulk, and what it may not cost.

use super::*;

#[test]
fn the_end_of_a_session_fits_the_log_however_much_the_session_owns() {
    let mut bench = Bench::start();
    bench.open(1);
    bench.open(2);
    bench.ask(2, &Request::AddWatch { path: "/".into(), mode: AddWatchMode::PersistentRecursive }).unwrap();
    for number in 10..50 {
        let path = format!("/{number}{}", "n".repeat(100_000));
        bench.create(1, &path, CreateMode::Ephemeral).unwrap();
    }
    bench.events(2);
    bench.is_log_fast = false;
    bench.send(1, &Request::Create(CreateRequest::open("/in-flight", "", CreateMode::Ephemeral)));
    bench.longest_txn = 0;
    bench.send(1, &Request::CloseSession);
    assert!(bench.longest_txn < 300_000, "{} bytes in one txn", bench.longest_txn);
    bench.make_durable();
    assert_eq!(bench.closed.pop(), Some((ConnectionId(1), CloseReason::SessionClosed)));
    assert_eq!(bench.replica.tree().node_count(), Tree::new().node_count());
    let deleted = bench.events(2).iter().filter(|(kind, _)| *kind == EventKind::Deleted).count();
    assert_eq!(deleted, 41, "each is told of once");
}

#[test]
fn syncs_that_wait_for_nothing_leave_nothing_behind() {
    let mut bench = Bench::start();
    bench.open(1);
    for _ in 0..10 {
        bench.ask(1, &Request::Sync { path: "/".into() }).unwrap();
    }
    assert_eq!(bench.replica.syncs.len(), 0);
}

#[test]
fn a_write_that_comes_between_two_epochs_ends_its_connection() {
    let mut bench = Bench::start();
    bench.open(1);
    let session = bench.open(2);
    // As if all txns of the epoch but one were used.
    let nearly = Zxid::new(Epoch(1), Zxid::COUNTER_MAX - 1);
    bench.replica.peer.skip_to(nearly);
    bench.replica.tree.set_last_zxid(nearly);
    bench.is_log_fast = false;
    bench.is_epoch_fast = false;
    bench.send(1, &set("/", "last", -1));
    bench.send(1, &set("/", "too late", -1));
    assert_eq!(bench.closed.len(), 2, "nobody can write now");
    bench.make_durable();
    assert!(!bench.replica.is_serving());

    // Who comes meanwhile is looked at when the next reign has begun.
    bench.closed.clear();
    bench.connect(3, session);
    assert_eq!((bench.take(3), bench.closed.len()), (vec![], 0));
    bench.handle(Input::CurrentEpochDurable(Epoch(2)));
    assert!(bench.replica.is_serving());
    assert!(matches!(bench.take(3)[..], [Message::Connected(_)]));
    let stat = bench.send(3, &set("/", "first", -1));
    bench.make_durable();
    assert!(matches!(bench.take(3).last(), Some(Message::Reply(xid, zxid, Ok(_)))
        if *xid == stat && *zxid == Zxid::new(Epoch(2), 1)));
    assert_eq!(
        bench.replica.tree().node("/").unwrap().stat().version,
        2,
        "the last of the epoch was not lost"
    );
}

#[test]
fn who_comes_while_there_is_no_leader_is_not_held_for_long() {
    let mut bench = Bench::start();
    bench.is_epoch_fast = false;
    bench.replica.peer.resign("for the test", bench.now);
    bench.handle(Input::Disconnected(ConnectionId(9)));
    assert!(!bench.replica.is_serving());
    bench.connect(1, SessionId::NONE);
    bench.advance(Duration::from_millis(499));
    assert_eq!(bench.closed, []);
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.closed, [(ConnectionId(1), CloseReason::NotServing)]);
}
