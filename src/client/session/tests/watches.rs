//! Watches: brought back after a loss, told in order, forgotten.

use super::*;

#[test]
fn watches_are_brought_back_before_other_requests_with_the_zxid_before_the_loss() {
    let mut run = Run::serving();
    run.watch(1, Request::GetData { path: "/a".into(), watch: true });
    run.reply(1, 5, None, &Response::Data(None, Stat::default()));
    run.watch(2, Request::Exists { path: "/b".into(), watch: true });
    run.reply(2, 6, Some(OpError::NoNode), &Response::Empty);
    run.watch(3, Request::AddWatch { path: "/c".into(), mode: AddWatchMode::PersistentRecursive });
    run.reply(3, 7, None, &Response::WatchAdded);
    run.outputs.clear();
    run.input(Input::Failed("cut".into()));
    assert!(run.outputs.contains(&Output::Notify(WatcherId(3), WatchNotice::Disconnected)));
    run.submit(4, get("/d"));
    run.connect();
    let sent = run.sent();
    let Request::SetWatches2(watches) = &sent[0].1 else { panic!("{sent:?}") };
    assert_eq!(watches.relative_zxid, Zxid::from_raw(7));
    assert_eq!((&watches.data, &watches.exist), (&vec!["/a".to_owned()], &vec!["/b".to_owned()]));
    assert_eq!(watches.persistent_recursive, ["/c"]);
    assert_eq!(sent[1].0, Xid(4));
    let resync = Output::Notify(WatcherId(3), WatchNotice::Resync(ResyncReason::Reconnected));
    assert!(!run.outputs.contains(&resync));
    run.reply(Xid::SET_WATCHES.0, 9, None, &Response::Empty);
    assert!(run.outputs.contains(&resync), "once the watch is in force");
    assert_eq!(run.session.last_zxid, Zxid::from_raw(7), "until an answer proper comes");
}

#[test]
fn a_server_that_has_not_come_as_far_as_an_event_is_not_to_be_believed_again() {
    let mut run = Run::serving();
    run.watch(1, Request::AddWatch { path: "/a".into(), mode: AddWatchMode::PersistentRecursive });
    run.reply(1, 5, None, &Response::WatchAdded);
    run.event_of(9, EventKind::Created, "/a/b");
    run.input(Input::Failed("cut".into()));
    run.connect();
    assert_eq!(run.greeting.as_ref().unwrap().last_zxid_seen, Zxid::from_raw(9));
    let sent = run.sent();
    let Request::SetWatches2(watches) = &sent[0].1 else { panic!("{sent:?}") };
    assert_eq!(watches.relative_zxid, Zxid::from_raw(5), "others of that txn may be missing");
}

#[test]
fn one_shot_watches_alone_are_brought_back_as_old_servers_know_it() {
    let mut run = Run::serving();
    run.watch(1, Request::GetChildren2 { path: "/a".into(), watch: true });
    run.reply(1, 5, None, &Response::ChildrenStat(vec![], Stat::default()));
    run.input(Input::Failed("cut".into()));
    run.connect();
    assert!(matches!(&run.sent()[0].1, Request::SetWatches(watches) if watches.child == ["/a"]));
}

#[test]
fn events_and_answers_come_out_in_the_order_of_the_wire() {
    let mut run = Run::serving();
    run.watch(1, Request::AddWatch { path: "/".into(), mode: AddWatchMode::PersistentRecursive });
    run.submit(2, get("/a"));
    run.reply(1, 5, None, &Response::WatchAdded);
    run.event(EventKind::Created, "/a");
    run.reply(2, 6, None, &Response::Data(None, Stat::default()));
    run.event(EventKind::Deleted, "/a");
    let order: Vec<_> = run
        .outputs
        .iter()
        .filter_map(|output| {
            if let Output::Complete(ticket, _) = output {
                return Some(ticket.0.to_string());
            }
            let Output::Notify(_, WatchNotice::Event { event, .. }) = output else { return None };
            Some(format!("{:?}", event.kind))
        })
        .collect();
    assert_eq!(order, ["1", "Created", "2", "Deleted"]);
}

#[test]
fn a_watch_that_was_refused_is_forgotten() {
    let mut run = Run::serving();
    run.watch(1, Request::AddWatch { path: "/".into(), mode: AddWatchMode::Persistent });
    run.reply(1, -1, Some(OpError::Unimplemented), &Response::Empty);
    assert!(run.outputs.contains(&Output::Forget(WatcherId(1))));
    assert_eq!(run.session.watches.len(), 0);
    assert_eq!(run.session.last_zxid, Zxid::ZERO);
}

#[test]
fn what_is_not_watched_any_more_is_forgotten_at_once_whatever_becomes_of_the_request() {
    let mut run = Run::serving();
    for (ticket, path) in [(1, "/a"), (2, "/b")] {
        run.watch(ticket, Request::AddWatch { path: path.into(), mode: AddWatchMode::PersistentRecursive });
        run.reply(i32::try_from(ticket).unwrap(), 5, None, &Response::WatchAdded);
    }
    run.submit(3, Request::RemoveWatches { path: "/a".into(), kind: 3 });
    assert!(run.outputs.contains(&Output::Forget(WatcherId(1))));
    run.outputs.clear();
    run.input(Input::Failed("cut".into()));
    run.connect();
    let sent = run.sent();
    let Request::SetWatches2(watches) = &sent[0].1 else { panic!("{sent:?}") };
    assert_eq!(watches.persistent_recursive, ["/b"]);
}
