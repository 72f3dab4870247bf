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
    assert_eq!(bench.replica.barriers.len(), 0);
}
