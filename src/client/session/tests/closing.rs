//! The end of a session that is asked for.

use super::*;

#[test]
fn closing_answers_what_is_under_way_then_ends() {
    let mut run = Run::serving();
    run.submit(1, get("/a"));
    run.input(Input::Close);
    run.submit(2, get("/b"));
    assert_eq!(run.completed(), [(Ticket(2), Err(ClientError::Closed))]);
    assert_eq!(run.sent().last().unwrap().1, Request::CloseSession);
    run.reply(1, 5, None, &Response::Data(None, Stat::default()));
    assert_eq!(run.completed_count(), 1);
    run.reply(2, 6, None, &Response::Empty);
    assert_eq!(run.outputs.last(), Some(&Output::Ended(Ok(()))));
    assert_eq!(run.session.poll_timeout(), None);
}

#[test]
fn closing_without_a_connection_tries_until_its_deadline_and_says_what_stays() {
    let mut run = Run::serving();
    run.input(Input::Failed("cut".into()));
    let closed_at = run.now;
    run.input(Input::Close);
    while !run.outputs.iter().any(|output| matches!(output, Output::Ended(_))) {
        run.advance_to_timeout();
        run.input(Input::Failed("refused".into()));
    }
    assert_eq!(run.now - closed_at, CLOSE_TIMEOUT);
    let expected = ClientError::NotClosed { session: SESSION, waited: CLOSE_TIMEOUT };
    assert_eq!(run.outputs.last(), Some(&Output::Ended(Err(expected))));
}

#[test]
fn closing_resumes_the_session_to_close_it() {
    let mut run = Run::serving();
    run.input(Input::Failed("cut".into()));
    run.input(Input::Close);
    run.connect();
    assert_eq!(run.sent().last().unwrap().1, Request::CloseSession);
}
