//! A session without sockets or a clock: what happens goes in, what it wants done comes out.

mod behind;
mod closing;
mod run;
mod watches;

use self::run::{
    BACKOFF_BASE, BACKOFF_CAP, CLOSE_TIMEOUT, CONNECT_TIMEOUT, ClientStateName, PASSWORD, REQUEST_TIMEOUT,
    Run, SESSION, TIMEOUT, get,
};
use super::*;
use crate::client::watch_table::WatcherId;
use crate::clock;
use crate::codec::WriteJute;
use crate::wire::{FRAME_BYTES_MAX, RequestHeader, Response, split_frame};
use crate::znode::{AddWatchMode, CreateMode, EventKind, OpCode, OpError, Stat};
use bytes::BytesMut;
use proptest::prelude::*;

#[test]
fn requests_wait_for_the_connection_and_go_out_in_order() {
    let mut run = Run::new();
    run.submit(1, get("/a"));
    run.submit(2, get("/b"));
    assert_eq!(run.connect(), [ClientStateName::Connected]);
    assert_eq!(run.sent_xids(), [1, 2]);
    run.submit(3, get("/c"));
    assert_eq!(run.sent_xids(), [3]);
}

#[test]
fn answers_complete_their_own_requests_and_advance_the_zxid() {
    let mut run = Run::serving();
    run.submit(1, get("/a"));
    run.submit(2, Request::Delete { path: "/b".into(), version: -1 });
    run.reply(1, 7, None, &Response::Data(None, Stat::default()));
    run.reply(2, 8, Some(OpError::BadVersion), &Response::Empty);
    let completed = run.completed();
    assert_eq!(completed[0].1.as_ref().unwrap().zxid, Zxid::from_raw(7));
    let error = completed[1].1.as_ref().unwrap_err();
    assert_eq!(error.to_string(), "delete /b: the znode's version is not the one given");
    run.input(Input::Failed("cut".into()));
    run.connect();
    assert_eq!(run.greeting.as_ref().unwrap().last_zxid_seen, Zxid::from_raw(8));
}

#[test]
fn a_reply_out_of_order_closes_the_connection_and_all_under_way_is_ambiguous() {
    let mut run = Run::serving();
    run.submit(1, get("/a"));
    run.submit(2, get("/b"));
    run.reply(2, 7, None, &Response::Data(None, Stat::default()));
    assert!(run.has_hung_up());
    let completed = run.completed();
    assert_eq!(completed.len(), 2);
    assert!(completed.iter().all(|(_, result)| matches!(result, Err(ClientError::ConnectionLost { .. }))));
    assert!(run.session.last_zxid == Zxid::ZERO, "nothing of a broken connection is believed");
}

#[test]
fn an_idle_session_pings_after_a_third_and_gives_up_after_two_thirds_of_silence() {
    let mut run = Run::serving();
    let start = run.now;
    run.advance_to_timeout();
    assert_eq!(run.now - start, TIMEOUT / 3);
    assert_eq!(run.sent_xids(), [Xid::PING.0]);
    run.now += Duration::from_millis(5);
    run.reply(Xid::PING.0, 9, None, &Response::Empty);
    assert!(run.outputs.contains(&Output::Proved(Some(Duration::from_millis(5)))));
    run.advance_to_timeout();
    assert_eq!(run.sent_xids(), [Xid::PING.0], "the next ping");
    let last_word = start + TIMEOUT / 3 + Duration::from_millis(5);
    while !run.has_hung_up() {
        run.advance_to_timeout();
    }
    assert_eq!(run.now - last_word, TIMEOUT * 2 / 3);
}

#[test]
fn a_ping_that_was_not_sent_is_not_answered() {
    let mut run = Run::serving();
    run.reply(Xid::PING.0, 9, None, &Response::Empty);
    assert!(run.has_hung_up());
}

#[test]
fn a_request_that_waits_too_long_names_servers_and_last_failure() {
    let mut run = Run::new();
    run.submit(1, get("/a"));
    while run.completed_count() == 0 {
        run.advance_to_timeout();
        if matches!(run.session.phase, Phase::Dialing { .. }) {
            run.input(Input::Failed("connection refused".into()));
        }
    }
    assert_eq!(run.now - run.started, REQUEST_TIMEOUT);
    let error = run.completed().remove(0).1.unwrap_err();
    let ClientError::NotConnected { servers, last_failure, .. } = error else { panic!("{error:?}") };
    assert_eq!(servers.len(), 3);
    assert!(last_failure.contains("connection refused"), "{last_failure}");
}

#[test]
fn a_server_known_by_its_address_is_named_once() {
    let mut run = Run::new();
    run.advance_to_timeout();
    let Phase::Dialing { server, .. } = &run.session.phase else { panic!("{:?}", run.session.phase) };
    let failure = format!("{server}: connection refused");
    run.input(Input::Failed(failure.as_str().into()));
    assert_eq!(run.session.last_failure.as_deref(), Some(failure.as_str()));
}

#[test]
fn every_server_gets_its_turn_before_any_gets_a_second() {
    let mut run = Run::new();
    let mut dialed = Vec::new();
    while dialed.len() < 6 {
        run.advance_to_timeout();
        dialed.extend(
            run.outputs
                .drain(..)
                .filter_map(|output| if let Output::Dial(server) = output { Some(server) } else { None }),
        );
        run.input(Input::Failed("refused".into()));
    }
    assert_eq!(dialed[..3], dialed[3..]);
    let mut names = dialed[..3].to_vec();
    names.sort();
    assert_eq!(names, ["zk1:2181", "zk2:2181", "zk3:2181"].map(Arc::from));
}

#[test]
fn a_dial_and_a_greeting_have_their_deadlines() {
    let mut run = Run::new();
    run.advance_to_timeout();
    let dialed_at = run.now;
    run.advance_to_timeout();
    assert!(run.has_hung_up());
    assert_eq!(run.now - dialed_at, CONNECT_TIMEOUT);
    run.outputs.clear();
    run.advance_to_timeout();
    run.input(Input::Opened);
    run.advance_to_timeout();
    assert!(run.has_hung_up());
}

#[test]
fn a_session_is_resumed_with_its_password_and_expires_only_when_a_server_says_so() {
    let mut run = Run::serving();
    run.input(Input::Failed("cut".into()));
    let long_after = run.now + TIMEOUT * 100;
    while run.now < long_after {
        run.advance_to_timeout();
        run.input(Input::Failed("refused".into()));
    }
    assert!(!run.states().contains(&ClientStateName::Expired));
    run.submit(5, get("/waits"));
    run.dial_and_open();
    let greeting = run.greeting.clone().unwrap();
    assert_eq!((greeting.session, greeting.password), (SESSION, PASSWORD));
    run.frame(|out| ConnectResponse::expired(Some(false)).encode(out));
    assert_eq!(run.states().last(), Some(&ClientStateName::Expired));
    assert!(matches!(run.completed()[0].1, Err(ClientError::SessionExpired { session: SESSION, .. })));
    run.dial_and_open();
    assert_eq!(run.greeting.as_ref().unwrap().session, SessionId::NONE);
    run.accept(SessionId(99));
    assert_eq!((run.session.id, run.session.generation), (SessionId(99), 2));
}

#[test]
fn another_session_than_the_one_asked_for_is_refused() {
    let mut run = Run::serving();
    run.input(Input::Failed("cut".into()));
    run.dial_and_open();
    run.accept(SessionId(99));
    assert!(run.has_hung_up());
    assert_eq!(run.session.id, SESSION);
}

#[test]
fn a_withdrawn_request_is_never_sent() {
    let mut run = Run::new();
    run.submit(1, get("/a"));
    run.submit(2, get("/b"));
    run.input(Input::Withdraw(Ticket(1)));
    run.connect();
    let sent = run.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, get("/b"));
}

#[test]
fn a_request_longer_than_a_frame_is_refused_and_the_connection_kept() {
    let mut run = Run::serving();
    run.submit(1, get("/before"));
    assert_eq!(run.sent().len(), 1);
    let data = vec![0; FRAME_BYTES_MAX];
    run.submit(2, Request::Create(crate::wire::CreateRequest::open("/a", data, CreateMode::Persistent)));
    assert!(matches!(run.completed()[..], [(Ticket(2), Err(ClientError::TooLong { .. }))]));
    assert_eq!(run.sent(), []);
    run.reply(1, 5, None, &Response::Data(None, Stat::default()));
    assert!(matches!(run.completed()[..], [(Ticket(1), Ok(_))]));
    run.submit(3, get("/after"));
    assert_eq!(run.sent().len(), 1);
}

#[test]
fn the_queue_is_bounded_in_requests_and_in_bytes() {
    let mut run = Run::new();
    for ticket in 0..1000 {
        assert!(run.session.has_room());
        run.submit(ticket, get("/a"));
    }
    assert!(!run.session.has_room());
    let mut run = Run::serving();
    for ticket in 0..17 {
        assert!(run.session.has_room());
        run.submit(
            ticket,
            Request::SetData { path: "/a".into(), data: Some(vec![0; 1_000_000].into()), version: -1 },
        );
    }
    assert!(!run.session.has_room());
    run.input(Input::Failed("cut".into()));
    assert!(run.session.has_room());
}

#[test]
fn pauses_grow_with_failures_and_shrink_again_after_an_answer() {
    let mut run = Run::new();
    for _ in 0..20 {
        run.advance_to_timeout();
        run.input(Input::Failed("refused".into()));
        assert!(run.session.poll_timeout().unwrap() - run.now <= BACKOFF_CAP);
    }
    run.connect();
    run.input(Input::Failed("cut".into()));
    assert!(run.session.failures > 20, "a connection that answered nothing proves nothing");
    run.connect();
    run.submit(1, get("/a"));
    run.reply(1, 5, None, &Response::Data(None, Stat::default()));
    run.input(Input::Failed("cut".into()));
    assert!(run.session.poll_timeout().unwrap() - run.now <= BACKOFF_BASE);
}

proptest! {
    #[test]
    fn no_garbage_from_the_server_panics_or_wedges(
        steps in prop::collection::vec((0_u8..12, any::<Vec<u8>>(), any::<i32>(), -130_i32..5, 0_u8..6), 0..60),
    ) {
        let mut run = Run::new();
        for (ticket, (choice, bytes, number, error, op)) in (0..).zip(steps) {
            match choice {
                0 => run.input(Input::Opened),
                1 => run.input(Input::Failed("cut".into())),
                2 => run.advance_to_timeout(),
                3 => run.accept(SESSION),
                4 => run.frame(|out| ConnectResponse::expired(None).encode(out)),
                5 => run.watch(ticket, any_request(op)),
                6 | 7 => run.submit(ticket, any_request(op)),
                8 => run.reply_to_first(error, &bytes),
                9 => run.frame(|out| {
                    out.put_int(number % 10);
                    out.put_long(number.into());
                    out.put_int(error);
                    out.extend_from_slice(&bytes);
                }),
                10 => run.frame(|out| {
                    out.put_int(-1);
                    out.put_long(-1);
                    out.put_int(0);
                    out.put_int(number % 6);
                    out.put_int(3);
                    out.put_buffer(Some(&bytes));
                }),
                _ => run.frame(|out| out.extend_from_slice(&bytes)),
            }
            prop_assert!(run.session.poll_timeout().is_some(), "it always goes on");
        }
        // Whatever happened, it serves again when the servers do.
        run.input(Input::Failed("cut".into()));
        run.connect();
        prop_assert!(run.session.is_serving());
        run.outputs.clear();
        run.submit(1_000_000, get("/a"));
        prop_assert_eq!(run.sent_xids().len(), 1);
    }
}

fn any_request(choice: u8) -> Request {
    let path = "/a".to_owned();
    match choice {
        0 => Request::GetData { path, watch: true },
        1 => Request::Exists { path, watch: true },
        2 => Request::GetChildren2 { path, watch: true },
        3 => Request::AddWatch { path, mode: AddWatchMode::PersistentRecursive },
        4 => Request::Multi(vec![]),
        _ => Request::Delete { path, version: -1 },
    }
}
