//! Servers that are behind what the client has seen, or may be.

use super::*;

#[test]
fn a_server_that_hangs_up_on_the_greeting_may_be_behind_and_the_text_says_so() {
    let mut run = Run::serving();
    run.submit(1, get("/a"));
    run.reply(1, 8, None, &Response::Data(None, Stat::default()));
    run.input(Input::Failed("cut".into()));
    run.dial_and_open();
    run.input(Input::Failed("the server closed the connection".into()));
    let last_failure = run.session.last_failure.clone().unwrap();
    assert!(
        last_failure.ends_with("its data may be older than 0x8, which was seen before"),
        "{last_failure}"
    );
}

#[test]
fn who_is_refused_for_longer_than_its_session_lives_begins_anew_where_data_are_older() {
    let mut run = refused(8);
    // A server that answers by now, and has what was seen: it is asked for the old session.
    run.accept(SessionId(99));
    assert_eq!(run.sent_xids(), [Xid::PING.0]);
    run.reply(Xid::PING.0, 8, None, &Response::Empty);
    assert!(run.has_hung_up());
    assert_eq!(run.sent_xids(), [1], "the session that nobody needs is closed");
    run.dial_and_open();
    assert_eq!(run.greeting.as_ref().unwrap().session, SESSION);
    run.accept(SESSION);
    assert_eq!((run.session.id, run.session.beginnings), (SESSION, 0));

    // One that is behind still: what is begun there counts.
    let mut run = refused(8);
    run.accept(SessionId(99));
    run.reply(Xid::PING.0, 7, None, &Response::Empty);
    assert_eq!(run.states(), [ClientStateName::Expired, ClientStateName::Connected]);
    assert!(run.outputs.contains(&Output::BegunAnew(1)));
    assert_eq!(
        (run.session.id, run.session.last_zxid, run.session.generation),
        (SessionId(99), Zxid::ZERO, 2)
    );
    // Whoever refuses that, too, may be without a quorum, and the old session is asked for again.
    let mut run = refused(8);
    run.input(Input::Failed("the server closed the connection".into()));
    run.dial_and_open();
    let greeting = run.greeting.as_ref().unwrap();
    assert_eq!((greeting.session, greeting.last_zxid_seen), (SESSION, Zxid::from_raw(8)));
}

/// One that has seen `zxid`, and was refused for so long that it asks for another session.
fn refused(zxid: i64) -> Run {
    let mut run = Run::serving();
    run.submit(1, get("/a"));
    run.reply(1, zxid, None, &Response::Data(None, Stat::default()));
    run.input(Input::Failed("cut".into()));
    let mut first = None;
    loop {
        run.dial_and_open();
        let greeting = run.greeting.as_ref().unwrap();
        if greeting.session == SessionId::NONE {
            let since = first.expect("the old one was asked for before");
            assert!(run.now - since > TIMEOUT * 2, "{:?}", run.now - since);
            assert_eq!(greeting.last_zxid_seen, Zxid::ZERO);
            run.outputs.clear();
            return run;
        }
        assert_eq!(greeting.session, SESSION);
        first.get_or_insert(run.now);
        run.input(Input::Failed("the server closed the connection".into()));
    }
}
