//! A member as its clients see it, in virtual time, with a log that is durable when the test says so.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it expects; anything else fails it")]

mod barrier;
mod bounds;
mod carried;
mod catching_up;
mod ensemble;
mod local_sessions;
mod lost_disks;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    CloseReason, ConnectionId, Input, LocalSessionMode, Now, Output, Recovery, Replica, ReplicaSettings,
};
use crate::codec::{Reader, WriteJute};
use crate::id::{Epoch, ServerId, SessionId, Xid, Zxid};
use crate::tree::Tree;
use crate::wire::{
    ConnectRequest, ConnectResponse, CreateRequest, MultiOp, OpResult, ReplyHeader, Request, Response,
    SetWatches,
};
use crate::zab::{PeerSettings, Quorum};
use crate::znode::{
    AddWatchMode, CarriedZnode, CreateMode, EventKind, OpCode, OpError, SessionPassword, SessionTimeouts,
    WatchedEvent,
};

const TICK: Duration = Duration::from_millis(100);

/// A member, its log and everything it sent.
struct Bench {
    replica: Replica,
    now: Instant,
    /// Appended and not said to be durable.
    appended: Vec<Zxid>,
    /// The longest txn appended, in bytes.
    longest_txn: usize,
    is_log_fast: bool,
    is_epoch_fast: bool,
    sent: Vec<(ConnectionId, Message)>,
    closed: Vec<(ConnectionId, CloseReason)>,
    next_xid: i32,
}

#[derive(Clone, Debug, PartialEq)]
enum Message {
    Connected(ConnectResponse),
    Reply(i32, Zxid, Result<Response, OpError>),
    Event(WatchedEvent, Option<CarriedZnode>),
}

impl Bench {
    fn start() -> Self {
        Self::with_config("")
    }

    /// Of a member whose settings list members in these words.
    fn with_config(config: &'static str) -> Self {
        let config = Bytes::from_static(config.as_bytes());
        let now = crate::clock::now();
        let quorum = Quorum::majority_of([ServerId::STANDALONE]);
        let settings = ReplicaSettings {
            peer: PeerSettings { tick: TICK, config, ..PeerSettings::new(ServerId::STANDALONE, quorum) },
            session_timeouts: SessionTimeouts::from_tick(TICK),
            handshake_timeout: Duration::from_secs(1),
            snapshot_txns: 1_000_000,
            snapshot_bytes: 1 << 40,
            read_only_mode: false,
            local_sessions: LocalSessionMode::Off,
        };
        let recovery = Recovery::default();
        let replica = Replica::new(settings, recovery, Now { monotonic: now, unix_ms: 1000 });
        let mut bench = Self {
            replica,
            now,
            appended: Vec::new(),
            longest_txn: 0,
            is_log_fast: true,
            is_epoch_fast: true,
            sent: Vec::new(),
            closed: Vec::new(),
            next_xid: 0,
        };
        bench.drain();
        assert!(bench.replica.is_serving());
        bench
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, unix_ms: 1000 }
    }

    fn handle(&mut self, input: Input) {
        self.replica.handle(self.now(), input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Append(entry) => {
                    self.longest_txn = self.longest_txn.max(entry.payload.len());
                    self.appended.push(entry.zxid);
                }
                Output::SetAcceptedEpoch(epoch) => {
                    self.replica.handle(self.now(), Input::AcceptedEpochDurable(epoch));
                }
                Output::SetCurrentEpoch(epoch) if self.is_epoch_fast => {
                    self.replica.handle(self.now(), Input::CurrentEpochDurable(epoch));
                }
                Output::SetCurrentEpoch(_) => {}
                Output::BeginSnapshot(_) | Output::FinishSnapshot { .. } => {}
                Output::SnapshotSlice(_) => self.replica.handle(self.now(), Input::SnapshotSliceWritten),
                Output::Reply(id, frame) | Output::Notify(id, frame) => {
                    let message = self.decode(&frame[4..]);
                    self.sent.push((id, message));
                }
                Output::Close(id, reason) => self.closed.push((id, reason)),
                other => panic!("a member alone has nobody to say this to: {other:?}"),
            }
            if self.is_log_fast
                && let Some(zxid) = self.appended.pop()
            {
                self.appended.clear();
                self.replica.handle(self.now(), Input::Durable(zxid));
            }
        }
    }

    /// Replies are decoded by the operation whose number their xid carries; see [`Bench::send`].
    fn decode(&self, frame: &[u8]) -> Message {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).unwrap();
        match header.xid {
            Xid::NOTIFICATION => {
                let event = WatchedEvent::decode(&mut reader).unwrap();
                Message::Event(event, CarriedZnode::decode_rest(&mut reader))
            }
            Xid(0) => Message::Connected(ConnectResponse::decode(frame).unwrap()),
            Xid(xid) => {
                let op = OpCode::from_code(xid % 1000).unwrap_or(OpCode::CloseSession);
                let result = match header.error {
                    Some(error) => Err(error),
                    None => Ok(Response::decode(op, &mut reader).unwrap()),
                };
                Message::Reply(xid, header.zxid, result)
            }
        }
    }

    fn make_durable(&mut self) {
        if let Some(zxid) = self.appended.last().copied() {
            self.appended.clear();
            self.handle(Input::Durable(zxid));
        }
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(deadline) = self.replica.poll_timeout()
            && deadline <= end
        {
            self.now = self.now.max(deadline);
            self.replica.handle_timeout(self.now());
            self.drain();
        }
        self.now = end;
    }

    fn connect(&mut self, id: u64, session: SessionId) {
        self.connect_as(id, session, SessionPassword::for_session(session), Zxid::ZERO);
    }

    fn connect_as(&mut self, id: u64, session: SessionId, password: SessionPassword, seen: Zxid) {
        let request = ConnectRequest {
            last_zxid_seen: seen,
            timeout_ms: 400,
            session,
            password,
            read_only: Some(false),
        };
        let mut frame = Vec::new();
        request.encode(&mut frame);
        self.handle(Input::Connected(ConnectionId(id)));
        self.handle(Input::Frame(ConnectionId(id), frame.into()));
    }

    /// Connects and returns the new session.
    fn open(&mut self, id: u64) -> SessionId {
        self.connect(id, SessionId::NONE);
        match self.take(id).as_slice() {
            [Message::Connected(response)] if response.timeout_ms == 400 => response.session,
            other => panic!("not connected: {other:?}"),
        }
    }

    /// Sends a request whose xid tells the operation; returns the xid.
    fn send(&mut self, id: u64, request: &Request) -> i32 {
        self.next_xid += 1000;
        let xid = self.next_xid + request.op_code().code().max(0);
        let mut frame = Vec::new();
        request.encode(Xid(xid), &mut frame);
        self.handle(Input::Frame(ConnectionId(id), frame.into()));
        xid
    }

    /// Sends a request and returns its result.
    fn ask(&mut self, id: u64, request: &Request) -> Result<Response, OpError> {
        let xid = self.send(id, request);
        let position =
            self.sent.iter().position(|(_, message)| matches!(message, Message::Reply(x, ..) if *x == xid));
        match self.sent.remove(position.expect("answered at once")).1 {
            Message::Reply(_, _, result) => result,
            other => panic!("not a reply: {other:?}"),
        }
    }

    fn create(&mut self, id: u64, path: &str, mode: CreateMode) -> Result<Response, OpError> {
        self.ask(id, &Request::Create(CreateRequest::open(path, "x", mode)))
    }

    /// Takes what was sent to a connection.
    fn take(&mut self, id: u64) -> Vec<Message> {
        let (taken, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| to.0 == id);
        self.sent = rest;
        let taken: Vec<(ConnectionId, Message)> = taken;
        taken.into_iter().map(|(_, message)| message).collect()
    }

    fn events(&mut self, id: u64) -> Vec<(EventKind, String)> {
        let events = self.take(id).into_iter().map(|message| match message {
            Message::Event(event, _) => (event.kind, event.path),
            other => panic!("not an event: {other:?}"),
        });
        events.collect()
    }
}

fn exists(path: &str, watch: bool) -> Request {
    Request::Exists { path: path.into(), watch }
}

fn set(path: &str, data: &'static str, version: i32) -> Request {
    Request::SetData { path: path.into(), data: Some(Bytes::from_static(data.as_bytes())), version }
}

fn delete(path: &str) -> Request {
    Request::Delete { path: path.into(), version: -1 }
}

#[test]
fn nothing_is_answered_before_it_is_durable() {
    let mut bench = Bench::start();
    bench.open(1);
    bench.is_log_fast = false;
    bench.send(1, &Request::Create(CreateRequest::open("/a", "x", CreateMode::Persistent)));
    bench.send(1, &exists("/a", false));
    assert_eq!(bench.take(1), [], "the read waits behind the connection's own write");
    assert!(bench.replica.tree().node("/a").is_none(), "the tree holds committed state only");
    bench.make_durable();
    let sent = bench.take(1);
    assert!(matches!(
        sent.as_slice(),
        [Message::Reply(_, _, Ok(Response::Path(_))), Message::Reply(_, _, Ok(Response::Stat(_)))]
    ));
}

#[test]
fn a_read_does_not_wait_for_the_writes_of_others() {
    let mut bench = Bench::start();
    bench.open(1);
    bench.open(2);
    bench.is_log_fast = false;
    bench.send(1, &Request::Create(CreateRequest::open("/a", "x", CreateMode::Persistent)));
    bench.send(2, &exists("/a", false));
    assert!(matches!(bench.take(2).as_slice(), [Message::Reply(_, _, Err(OpError::NoNode))]));
}

#[test]
fn a_sync_waits_for_everything_proposed_before_it() {
    let mut bench = Bench::start();
    bench.open(1);
    bench.open(2);
    bench.is_log_fast = false;
    bench.send(1, &Request::Create(CreateRequest::open("/a", "x", CreateMode::Persistent)));
    bench.send(2, &Request::Sync { path: "/a".into() });
    bench.send(2, &exists("/a", false));
    assert_eq!(bench.take(2), []);
    bench.make_durable();
    assert!(matches!(
        bench.take(2).as_slice(),
        [Message::Reply(_, _, Ok(Response::Path(_))), Message::Reply(_, _, Ok(Response::Stat(_)))]
    ));
}

#[test]
fn requests_in_flight_see_one_another() {
    let mut bench = Bench::start();
    bench.open(1);
    bench.is_log_fast = false;
    let create = |path| Request::Create(CreateRequest::open(path, "x", CreateMode::PersistentSequential));
    bench.send(1, &Request::Create(CreateRequest::open("/a", "x", CreateMode::Persistent)));
    bench.send(1, &create("/a/n-"));
    bench.send(1, &create("/a/n-"));
    bench.send(1, &delete("/a"));
    bench.send(1, &delete("/a/n-0000000000"));
    bench.send(1, &create("/a/n-"));
    bench.make_durable();
    let results = bench.take(1).into_iter().map(|message| match message {
        Message::Reply(_, _, Ok(Response::Path(path))) => path,
        Message::Reply(_, _, Ok(response)) => format!("{response:?}"),
        Message::Reply(_, _, Err(error)) => format!("{error:?}"),
        other => format!("{other:?}"),
    });
    let results: Vec<_> = results.collect();
    assert_eq!(
        results,
        ["/a", "/a/n-0000000000", "/a/n-0000000001", "NotEmpty", "Empty", "/a/n-0000000002"],
        "numbers count creations, not children"
    );
}

#[test]
fn writes_are_checked_in_zookeepers_order() {
    let mut bench = Bench::start();
    bench.open(1);
    assert_eq!(bench.create(1, "/a/b", CreateMode::Persistent), Err(OpError::NoNode));
    assert_eq!(bench.create(1, "/a//b", CreateMode::Persistent), Err(OpError::NoNode));
    assert_eq!(bench.create(1, "a", CreateMode::Persistent), Err(OpError::BadArguments));
    assert_eq!(bench.create(1, "/a/", CreateMode::Persistent), Err(OpError::NoNode));
    assert_eq!(bench.create(1, "/..", CreateMode::Persistent), Err(OpError::BadArguments));
    assert!(bench.create(1, "/e", CreateMode::Ephemeral).is_ok());
    assert_eq!(bench.create(1, "/e", CreateMode::Ephemeral), Err(OpError::NodeExists));
    assert_eq!(bench.create(1, "/e/c", CreateMode::Persistent), Err(OpError::NoChildrenForEphemerals));
    assert_eq!(bench.ask(1, &set("/e", "y", 1)), Err(OpError::BadVersion));
    assert!(matches!(bench.ask(1, &set("/e", "y", 0)), Ok(Response::Stat(stat)) if stat.version == 1));
    assert_eq!(bench.ask(1, &delete("/zookeeper")), Err(OpError::BadArguments));
    assert_eq!(bench.ask(1, &set("/zookeeper/config", "y", -1)), Err(OpError::NoAuth));
    let bad_flags = CreateRequest { flags: 4, ..CreateRequest::open("/f", "x", CreateMode::Persistent) };
    assert_eq!(bench.ask(1, &Request::Create(bad_flags)), Err(OpError::BadArguments));
}

#[test]
fn the_members_are_those_of_the_own_settings_and_not_of_the_tree() {
    let text = "server.1=zoo1:2888:3888:participant;0.0.0.0:2181\nversion=0";
    let config = || "/zookeeper/config".to_owned();
    let mut bench = Bench::with_config(text);
    bench.open(1);
    let Ok(Response::Data(data, stat)) = bench.ask(1, &Request::GetData { path: config(), watch: true })
    else {
        panic!("no data")
    };
    assert_eq!(data, Some(Bytes::from_static(text.as_bytes())));
    assert_eq!((stat.version, stat.mzxid, stat.data_length), (-1, Zxid::ZERO, 58), "as Apache has it");
    for request in [
        Request::Exists { path: config(), watch: false },
        Request::GetAcl { path: config() },
        Request::GetChildren2 { path: config(), watch: false },
    ] {
        let found = match bench.ask(1, &request).unwrap() {
            Response::Stat(found) | Response::Acl(_, found) | Response::ChildrenStat(_, found) => found,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, stat, "{request:?}");
    }
    let node = bench.replica.tree().node("/zookeeper/config").unwrap();
    assert_eq!((node.data(), node.stat().version), (Some(&[][..]), 0), "all members have one tree");

    let mut alone = Bench::start();
    alone.open(1);
    let found = alone.ask(1, &Request::GetData { path: config(), watch: false });
    assert!(matches!(found, Ok(Response::Data(Some(data), _)) if data.is_empty()), "nobody else is there");
}

#[test]
fn a_failed_write_takes_its_zxid() {
    let mut bench = Bench::start();
    bench.open(1);
    let before = bench.replica.tree().last_zxid();
    assert_eq!(bench.ask(1, &delete("/none")), Err(OpError::NoNode));
    assert_eq!(Some(bench.replica.tree().last_zxid()), before.next());
}

#[test]
fn a_multi_is_all_or_nothing_and_leaves_no_trace_when_it_fails() {
    let mut bench = Bench::start();
    bench.open(1);
    let create =
        |path: &str| MultiOp::Create(CreateRequest::open(path, "x", CreateMode::PersistentSequential));
    let failing = vec![create("/n-"), MultiOp::Check { path: "/none".into(), version: -1 }, create("/n-")];
    assert_eq!(
        bench.ask(1, &Request::Multi(failing)),
        Ok(Response::Multi(vec![
            OpResult::Error(None),
            OpResult::Error(Some(OpError::NoNode)),
            OpResult::Error(Some(OpError::RuntimeInconsistency)),
        ]))
    );
    let working = vec![
        create("/n-"),
        MultiOp::SetData { path: "/n-0000000000".into(), data: None, version: 0 },
        MultiOp::Check { path: "/n-0000000000".into(), version: 1 },
        MultiOp::Delete { path: "/n-0000000000".into(), version: 1 },
        MultiOp::Create2(CreateRequest::open("/n", "x", CreateMode::Persistent)),
    ];
    let Ok(Response::Multi(results)) = bench.ask(1, &Request::Multi(working)) else {
        panic!("the multi failed")
    };
    assert_eq!(results[0], OpResult::Create("/n-0000000000".into()), "the failed multi used up no number");
    assert!(matches!(&results[1], OpResult::SetData(stat) if stat.version == 1 && stat.data_length == 0));
    assert_eq!(results[2..4], [OpResult::Check, OpResult::Delete]);
    assert!(matches!(&results[4], OpResult::Create2(path, stat) if path == "/n" && stat.czxid == stat.mzxid));
    assert_eq!(bench.ask(1, &Request::Multi(Vec::new())), Ok(Response::Multi(Vec::new())));
}

#[test]
fn an_event_comes_before_the_reply_that_reveals_it() {
    let mut bench = Bench::start();
    bench.open(1);
    assert_eq!(bench.ask(1, &exists("/a", true)), Err(OpError::NoNode));
    bench.send(1, &Request::Create(CreateRequest::open("/a", "x", CreateMode::Persistent)));
    let sent = bench.take(1);
    assert!(matches!(
        sent.as_slice(),
        [Message::Event(WatchedEvent { kind: EventKind::Created, .. }, None), Message::Reply(..)]
    ));
}

#[test]
fn a_recursive_watch_stays_and_one_shot_watches_go() {
    let mut bench = Bench::start();
    bench.open(1);
    bench.open(2);
    let mode = AddWatchMode::PersistentRecursive;
    assert_eq!(bench.ask(1, &Request::AddWatch { path: "/".into(), mode }), Ok(Response::WatchAdded));
    bench.create(2, "/a", CreateMode::Persistent).unwrap();
    bench.ask(2, &Request::GetData { path: "/a".into(), watch: true }).unwrap();
    bench.ask(2, &set("/a", "1", -1)).unwrap();
    bench.ask(2, &set("/a", "2", -1)).unwrap();
    assert_eq!(
        bench.events(1),
        [
            (EventKind::Created, "/a".into()),
            (EventKind::DataChanged, "/a".into()),
            (EventKind::DataChanged, "/a".into())
        ]
    );
    assert_eq!(bench.events(2), [(EventKind::DataChanged, "/a".into())]);
}

#[test]
fn a_client_that_comes_back_is_told_what_its_watches_missed() {
    let mut bench = Bench::start();
    let session = bench.open(1);
    bench.open(2);
    bench.create(2, "/same", CreateMode::Persistent).unwrap();
    bench.create(2, "/changed", CreateMode::Persistent).unwrap();
    bench.create(2, "/gone", CreateMode::Persistent).unwrap();
    let relative_zxid = bench.replica.tree().last_zxid();
    bench.handle(Input::Disconnected(ConnectionId(1)));
    bench.ask(2, &set("/changed", "y", -1)).unwrap();
    bench.ask(2, &delete("/gone")).unwrap();
    bench.create(2, "/new", CreateMode::Persistent).unwrap();

    bench.connect(3, session);
    bench.take(3);
    let watches = SetWatches {
        relative_zxid,
        data: ["/same", "/changed", "/gone"].map(String::from).to_vec(),
        exist: ["/new", "/later"].map(String::from).to_vec(),
        child: ["/"].map(String::from).to_vec(),
        ..SetWatches::default()
    };
    bench.send(3, &Request::SetWatches(watches));
    let mut sent = bench.take(3);
    assert!(matches!(sent.pop(), Some(Message::Reply(_, _, Ok(Response::Empty)))), "the reply comes last");
    let missed: Vec<_> = sent
        .into_iter()
        .map(|message| match message {
            Message::Event(event, _) => (event.kind, event.path),
            other => panic!("not an event: {other:?}"),
        })
        .collect();
    assert_eq!(
        missed,
        [
            (EventKind::DataChanged, "/changed".into()),
            (EventKind::Deleted, "/gone".into()),
            (EventKind::Created, "/new".into()),
            (EventKind::ChildrenChanged, "/".into())
        ]
    );
    bench.ask(2, &set("/same", "y", -1)).unwrap();
    bench.create(2, "/later", CreateMode::Persistent).unwrap();
    assert_eq!(
        bench.events(3),
        [(EventKind::DataChanged, "/same".into()), (EventKind::Created, "/later".into())]
    );
}

#[test]
fn a_session_outlives_its_connection_and_expires_with_its_ephemerals() {
    let mut bench = Bench::start();
    let session = bench.open(1);
    bench.create(1, "/e", CreateMode::Ephemeral).unwrap();
    bench.handle(Input::Disconnected(ConnectionId(1)));
    bench.advance(Duration::from_millis(400));
    assert!(bench.replica.tree().node("/e").is_some(), "not before its timeout");
    bench.connect(2, session);
    assert!(
        matches!(bench.take(2).as_slice(), [Message::Connected(response)] if response.session == session)
    );
    bench.advance(Duration::from_millis(600));
    assert!(bench.replica.tree().node("/e").is_none(), "within two ticks after its timeout");
    assert_eq!(bench.closed.pop(), Some((ConnectionId(2), CloseReason::SessionExpired)));
    bench.connect(3, session);
    assert!(matches!(bench.take(3).as_slice(), [Message::Connected(response)] if response.timeout_ms == 0));
    assert_eq!(bench.closed.pop(), Some((ConnectionId(3), CloseReason::NoSuchSession)));
}

#[test]
fn a_member_that_was_away_expires_nobody_whom_it_could_not_hear() {
    let mut bench = Bench::start();
    let session = bench.open(1);
    bench.create(1, "/e", CreateMode::Ephemeral).unwrap();
    bench.advance(Duration::from_millis(100));
    // It is suspended, and the first thing that it does afterwards is to look at its deadlines.
    bench.now += Duration::from_secs(60);
    bench.replica.handle_timeout(bench.now());
    bench.drain();
    assert!(bench.replica.tree().node("/e").is_some(), "its owner had no chance to be heard");
    bench.connect(2, session);
    assert!(
        matches!(bench.take(2).as_slice(), [Message::Connected(response)] if response.session == session)
    );
    bench.advance(Duration::from_millis(600));
    assert!(bench.replica.tree().node("/e").is_none(), "who stays silent expires as ever");
}

#[test]
fn pings_keep_a_session_alive() {
    let mut bench = Bench::start();
    bench.open(1);
    for _ in 0..20 {
        bench.advance(Duration::from_millis(300));
        assert_eq!(bench.ask(1, &Request::Ping), Ok(Response::Empty));
    }
    assert_eq!(bench.closed, []);
}

#[test]
fn closing_a_session_deletes_its_ephemerals_even_those_in_flight() {
    let mut bench = Bench::start();
    bench.open(1);
    bench.create(1, "/old", CreateMode::Ephemeral).unwrap();
    bench.is_log_fast = false;
    bench.send(1, &Request::Create(CreateRequest::open("/new", "x", CreateMode::Ephemeral)));
    bench.send(1, &Request::CloseSession);
    bench.send(1, &Request::Create(CreateRequest::open("/late", "x", CreateMode::Ephemeral)));
    bench.make_durable();
    let tree = bench.replica.tree();
    assert!(["/old", "/new", "/late"].iter().all(|path| tree.node(path).is_none()));
    assert_eq!(bench.closed.pop(), Some((ConnectionId(1), CloseReason::SessionClosed)));
}

#[test]
fn only_the_password_brings_a_session_over_and_then_the_old_connection_goes() {
    let mut bench = Bench::start();
    let session = bench.open(1);
    bench.connect_as(2, session, SessionPassword([7; 16]), Zxid::ZERO);
    assert_eq!(bench.closed, [(ConnectionId(2), CloseReason::NoSuchSession)], "the owner stays connected");
    bench.connect(3, session);
    assert_eq!(bench.closed.pop(), Some((ConnectionId(1), CloseReason::SessionMoved)));
}

#[test]
fn a_client_that_has_seen_more_is_sent_elsewhere() {
    let mut bench = Bench::start();
    bench.connect_as(1, SessionId::NONE, SessionPassword::ZERO, Zxid::new(Epoch(9), 1));
    assert_eq!(bench.take(1), []);
    assert!(matches!(bench.closed.as_slice(), [(ConnectionId(1), CloseReason::ClientAhead { .. })]));
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let mut bench = Bench::start();
    bench.handle(Input::Connected(ConnectionId(1)));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.closed, [(ConnectionId(1), CloseReason::HandshakeTimeout)]);
}

#[test]
fn what_is_no_request_ends_its_connection_after_what_was_asked_before() {
    let mut bench = Bench::start();
    bench.open(1);
    bench.is_log_fast = false;
    bench.send(1, &Request::Create(CreateRequest::open("/a", "x", CreateMode::Persistent)));
    let mut truncated = Vec::new();
    truncated.put_int(2004);
    truncated.put_int(OpCode::GetData.code());
    truncated.put_int(50);
    bench.handle(Input::Frame(ConnectionId(1), truncated.into()));
    bench.send(1, &Request::Ping);
    assert_eq!(bench.closed, []);
    bench.make_durable();
    let sent = bench.take(1);
    assert!(matches!(
        sent.as_slice(),
        [Message::Reply(_, _, Ok(_)), Message::Reply(2004, _, Err(OpError::MarshallingError))]
    ));
    assert!(matches!(bench.closed.as_slice(), [(ConnectionId(1), CloseReason::Malformed(_))]));
}

#[test]
fn an_unknown_operation_is_unimplemented_and_ends_the_connection() {
    let mut bench = Bench::start();
    bench.open(1);
    let mut frame = Vec::new();
    frame.put_int(1001);
    frame.put_int(20);
    bench.handle(Input::Frame(ConnectionId(1), frame.into()));
    assert_eq!(bench.take(1), [Message::Reply(1001, Zxid::NONE, Err(OpError::Unimplemented))]);
    assert_eq!(bench.closed, [(ConnectionId(1), CloseReason::UnknownOperation(20))]);
}

#[test]
fn each_reign_has_an_epoch_of_its_own() {
    let mut bench = Bench::start();
    bench.open(1);
    let zxid = bench.replica.tree().last_zxid();
    assert_eq!((zxid.epoch(), zxid.counter()), (Epoch(1), 1));
}
