//! A session without sockets or a clock: what happens goes in, what it wants done comes out.

mod behind;

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
            let Output::Notify(_, WatchNotice::Event(event, _)) = output else { return None };
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

const SESSION: SessionId = SessionId(0x0100_0000_0000_0007);
const PASSWORD: SessionPassword = SessionPassword([7; 16]);
const TIMEOUT: Duration = Duration::from_secs(9);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(3);

/// A session in virtual time, and what it wanted done and is not looked at yet.
struct Run {
    session: Session,
    started: Instant,
    now: Instant,
    outputs: Vec<Output>,
    greeting: Option<ConnectRequest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientStateName {
    Connecting,
    Connected,
    Expired,
    Closed,
}

impl Run {
    fn new() -> Self {
        let now = clock::now();
        let settings = ClientSettings {
            request_timeout: REQUEST_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            close_timeout: CLOSE_TIMEOUT,
            backoff_base: BACKOFF_BASE,
            backoff_cap: BACKOFF_CAP,
            ..ClientSettings::for_servers(["zk1:2181", "zk2:2181", "zk3:2181"])
        };
        let session = Session::new(settings, 7, now);
        Self { session, started: now, now, outputs: Vec::new(), greeting: None }
    }

    /// One that is connected and idle.
    fn serving() -> Self {
        let mut run = Self::new();
        run.connect();
        run.outputs.clear();
        run
    }

    fn input(&mut self, input: Input) {
        self.session.handle(input, self.now);
        self.outputs.extend(std::iter::from_fn(|| self.session.poll_output()));
    }

    fn advance_to_timeout(&mut self) {
        self.now = self.session.poll_timeout().expect("something is due").max(self.now);
        self.input(Input::Tick);
    }

    /// Dials until a server answers the phone, and takes the greeting.
    fn dial_and_open(&mut self) {
        while !matches!(self.session.phase, Phase::Dialing { .. }) {
            self.advance_to_timeout();
        }
        self.outputs.clear();
        self.input(Input::Opened);
        let Some(Output::Send(frame)) = self.outputs.pop() else { panic!("no greeting") };
        self.greeting = Some(ConnectRequest::decode(&frame[4..]).unwrap());
    }

    fn accept(&mut self, session: SessionId) {
        let timeout_ms = i32::try_from(TIMEOUT.as_millis()).unwrap();
        let response = ConnectResponse { timeout_ms, session, password: PASSWORD, read_only: Some(false) };
        self.frame(|out| response.encode(out));
    }

    fn connect(&mut self) -> Vec<ClientStateName> {
        self.dial_and_open();
        self.accept(SESSION);
        self.states()
    }

    fn frame(&mut self, content: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        content(&mut frame);
        self.input(Input::Frame(frame.into()));
    }

    fn submit(&mut self, ticket: u64, request: Request) {
        self.submit_for(ticket, request, None);
    }

    fn watch(&mut self, ticket: u64, request: Request) {
        self.submit_for(ticket, request, Some(WatcherId(ticket)));
    }

    fn submit_for(&mut self, ticket: u64, request: Request, watcher: Option<WatcherId>) {
        let deadline = self.now + REQUEST_TIMEOUT;
        self.input(Input::Submit { ticket: Ticket(ticket), request, watcher, deadline });
    }

    fn reply(&mut self, xid: i32, zxid: i64, error: Option<OpError>, response: &Response) {
        let header = ReplyHeader { xid: Xid(xid), zxid: Zxid::from_raw(zxid), error };
        self.frame(|out| {
            header.encode(out);
            response.encode(out);
        });
    }

    /// A reply with the right xid and any record.
    fn reply_to_first(&mut self, error: i32, record: &[u8]) {
        let xid = self.session.pending.front().map_or(1, |pending| pending.xid.0);
        self.frame(|out| {
            out.put_int(xid);
            out.put_long(3);
            out.put_int(error);
            out.extend_from_slice(record);
        });
    }

    fn event(&mut self, kind: EventKind, path: &str) {
        self.frame(|out| {
            ReplyHeader { xid: Xid::NOTIFICATION, zxid: Zxid::NONE, error: None }.encode(out);
            WatchedEvent { kind, path: path.into() }.encode(out);
        });
    }

    /// What was sent since the last look.
    fn sent(&mut self) -> Vec<(Xid, Request)> {
        let mut stream = BytesMut::new();
        self.outputs.retain(|output| {
            let Output::Send(bytes) = output else { return true };
            stream.extend_from_slice(bytes);
            false
        });
        let frames = std::iter::from_fn(|| split_frame(&mut stream, FRAME_BYTES_MAX).unwrap());
        frames
            .map(|frame| {
                let mut reader = Reader::new(&frame);
                let header = RequestHeader::decode(&mut reader).unwrap();
                let op = OpCode::from_code(header.op_code).unwrap();
                (header.xid, Request::decode(op, &mut reader).unwrap().unwrap())
            })
            .collect()
    }

    fn sent_xids(&mut self) -> Vec<i32> {
        self.sent().into_iter().map(|(xid, _)| xid.0).collect()
    }

    /// What was completed since the last look.
    fn completed(&mut self) -> Vec<(Ticket, Result<Reply, ClientError>)> {
        let (completed, rest) =
            self.outputs.drain(..).partition(|output| matches!(output, Output::Complete(..)));
        self.outputs = rest;
        let completed: Vec<Output> = completed;
        completed
            .into_iter()
            .filter_map(|output| {
                if let Output::Complete(ticket, result) = output { Some((ticket, result)) } else { None }
            })
            .collect()
    }

    fn completed_count(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, Output::Complete(..))).count()
    }

    fn has_hung_up(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::HangUp(_)))
    }

    fn states(&self) -> Vec<ClientStateName> {
        let name = |output: &Output| {
            let Output::State(state) = output else { return None };
            Some(match state {
                ClientState::Connecting { .. } => ClientStateName::Connecting,
                ClientState::Connected { .. } => ClientStateName::Connected,
                ClientState::Expired { .. } => ClientStateName::Expired,
                ClientState::Closed => ClientStateName::Closed,
            })
        };
        self.outputs.iter().filter_map(name).collect()
    }
}

fn get(path: &str) -> Request {
    Request::GetData { path: path.into(), watch: false }
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
