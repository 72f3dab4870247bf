//! A client: one session at a time, over the real wire protocol, with everything it is told checked against the canon.

use std::collections::VecDeque;

use bytes::Bytes;
use fastrand::Rng;
use rollcall::codec::Reader;
use rollcall::id::{SessionId, Xid, Zxid};
use rollcall::wire::{ConnectRequest, ConnectResponse, ReplyHeader, Request, Response, SetWatches};
use rollcall::znode::{CreateMode, OpError, SessionPassword, WatchedEvent};

use crate::canon::Canon;
use crate::coverage::{Coverage, Seen};
use crate::network::{PipeId, Process, Site};
use crate::time::{MS, Nanos};
use crate::watches::Watches;
use crate::workload;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) site: Site,
    /// Counts its connections, tried ones too.
    pub(crate) life: u32,
    pub(crate) rng: Rng,
    pub(crate) session: Option<SessionId>,
    /// Whether every member knows the session, not one alone.
    is_known_to_all: bool,
    timeout: Nanos,
    pub(crate) connection: Option<Connection>,
    last_zxid: Zxid,
    next_xid: i32,
    watches: Watches,
    dialled_at: Nanos,
    /// When requests were sent that were answered: within a timeout of the last of them.
    proofs: VecDeque<Nanos>,
    /// The first txns of writes, and their times, that were answered since this time.
    pub(crate) last_write_at: Nanos,
    /// Whether it only keeps its session.
    pub(crate) is_idle: bool,
    /// Whether it takes its time to read.
    pub(crate) is_slow: bool,
    /// Counts what it has named.
    pub(crate) names: u32,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) pipe: PipeId,
    pub(crate) member: Site,
    is_open: bool,
    asked: VecDeque<Asked>,
    heard_at: Nanos,
    sent_at: Nanos,
}

#[derive(Debug)]
struct Asked {
    xid: Xid,
    request: Request,
    /// The newest txn that anyone was told of when this was sent.
    floor: Zxid,
    sent_at: Nanos,
    /// Whether the request before it was a sync on the same connection.
    is_synced: bool,
}

/// What a client wants done.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Connect to a member.
    Dial,
    /// Send these frames.
    Send(PipeId, Vec<Bytes>),
    /// Give the connection up.
    Close(PipeId),
    Nothing,
}

/// What the world knows that a client's checks need.
pub(crate) struct World<'a> {
    pub(crate) now: Nanos,
    pub(crate) canon: &'a Canon,
    /// The newest txn that any client was told of.
    pub(crate) floor: &'a mut Zxid,
    pub(crate) coverage: &'a mut Coverage,
}

impl Client {
    pub(crate) fn new(site: Site, mut rng: Rng) -> Self {
        let timeout = rng.u64(1_200..4_200) * MS;
        let is_slow = rng.u8(0..6) == 0;
        Self {
            site,
            life: 0,
            rng,
            session: None,
            is_known_to_all: false,
            timeout,
            connection: None,
            last_zxid: Zxid::ZERO,
            next_xid: 1,
            watches: Watches::default(),
            dialled_at: 0,
            proofs: VecDeque::new(),
            last_write_at: 0,
            is_idle: false,
            is_slow,
            names: 0,
        }
    }

    pub(crate) fn as_process(&self) -> Process {
        Process { site: self.site, life: self.life }
    }

    /// The session's timeout.
    pub(crate) fn timeout(&self) -> Nanos {
        self.timeout
    }

    /// It may do something now.
    pub(crate) fn wake(&mut self, pipeline: usize, world: &mut World<'_>) -> Wish {
        let now = world.now;
        let Some(connection) = &self.connection else {
            if now < self.dialled_at + 100 * MS {
                return Wish::Nothing;
            }
            self.dialled_at = now;
            self.life += 1;
            return Wish::Dial;
        };
        let patience = if connection.is_open { self.timeout * 2 / 3 } else { self.timeout };
        if now > connection.heard_at + patience {
            let pipe = connection.pipe;
            self.lose(world);
            return Wish::Close(pipe);
        }
        if !connection.is_open {
            return Wish::Nothing;
        }
        let is_silent = now > connection.sent_at + self.timeout / 4;
        if connection.asked.len() < pipeline && !self.is_idle {
            let requests = workload::next(&mut self.rng, self.site, &mut self.names, world.canon);
            return self.send(requests, world);
        }
        if is_silent { self.send(vec![Request::Ping], world) } else { Wish::Nothing }
    }

    fn send(&mut self, requests: Vec<Request>, world: &World<'_>) -> Wish {
        let Some(connection) = &mut self.connection else { return Wish::Nothing };
        let mut frames = Vec::new();
        let mut is_synced = false;
        for request in requests {
            let xid = match request {
                Request::Ping => Xid::PING,
                Request::SetWatches(_) => Xid::SET_WATCHES,
                _ => {
                    self.next_xid += 1;
                    Xid(self.next_xid)
                }
            };
            let mut frame = Vec::new();
            request.encode(xid, &mut frame);
            frames.push(Bytes::from(frame));
            let next_is_synced = matches!(request, Request::Sync { .. });
            let (floor, sent_at) = (*world.floor, world.now);
            connection.asked.push_back(Asked { xid, request, floor, sent_at, is_synced });
            is_synced = next_is_synced;
        }
        connection.sent_at = world.now;
        Wish::Send(connection.pipe, frames)
    }

    /// It is connected, and asks for its session.
    pub(crate) fn on_connected(&mut self, pipe: PipeId, member: Site, now: Nanos) -> Wish {
        self.connection = Some(Connection {
            pipe,
            member,
            is_open: false,
            asked: VecDeque::new(),
            heard_at: now,
            sent_at: now,
        });
        let session = self.session.unwrap_or(SessionId::NONE);
        let request = ConnectRequest {
            last_zxid_seen: self.last_zxid,
            timeout_ms: i32::try_from(self.timeout / MS).expect("seconds"),
            session,
            password: self.session.map_or(SessionPassword::ZERO, SessionPassword::for_session),
            read_only: Some(false),
        };
        let mut frame = Vec::new();
        request.encode(&mut frame);
        Wish::Send(pipe, vec![Bytes::from(frame)])
    }

    /// The connection is gone; what was asked may or may not happen.
    pub(crate) fn on_closed(&mut self, pipe: PipeId, world: &mut World<'_>) {
        if self.connection.as_ref().is_some_and(|connection| connection.pipe == pipe) {
            self.lose(world);
        }
    }

    fn lose(&mut self, world: &mut World<'_>) {
        if let Some(connection) = self.connection.take() {
            world.coverage.count(Seen::AmbiguousRequest, connection.asked.len());
        }
    }

    /// A frame has come.
    pub(crate) fn on_frame(&mut self, pipe: PipeId, frame: &Bytes, world: &mut World<'_>) -> Wish {
        let Some(connection) = self.connection.as_mut().filter(|connection| connection.pipe == pipe) else {
            return Wish::Nothing;
        };
        connection.heard_at = world.now;
        if !connection.is_open {
            return self.on_connect_response(pipe, frame, world);
        }
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).expect("I13: a reply has a header");
        if header.xid == Xid::NOTIFICATION {
            let event = WatchedEvent::decode(&mut reader).expect("I15: a notification is readable");
            self.watches.on_event(header.zxid, &event, world.canon, world.coverage);
            return Wish::Nothing;
        }
        let asked = connection.asked.pop_front().expect("I13: a reply answers a request");
        assert_eq!(header.xid, asked.xid, "I13: replies come in the order of requests");
        assert!(
            header.zxid >= self.last_zxid || header.zxid == Zxid::NONE,
            "I13: session {:?} was at {} and is told {} by member {}",
            self.session,
            self.last_zxid,
            header.zxid,
            connection.member
        );
        self.proofs.push_back(asked.sent_at);
        while self.proofs.front().is_some_and(|proof| proof + self.timeout < asked.sent_at) {
            self.proofs.pop_front();
        }
        self.watches.check_told(header.zxid, world.canon);
        self.last_zxid = self.last_zxid.max(header.zxid);
        let result = match header.error {
            Some(error) => Err(error),
            None => {
                Ok(Response::decode(asked.request.op_code(), &mut reader).expect("I13: a reply is readable"))
            }
        };
        self.on_reply(&asked, header.zxid, &result, world)
    }

    /// The first and the last time after `since` that it sent what was answered.
    pub(crate) fn proofs_since(&self, since: Nanos) -> Option<(Nanos, Nanos)> {
        let first = self.proofs.iter().find(|proof| **proof > since)?;
        Some((*first, *self.proofs.back()?))
    }

    fn on_connect_response(&mut self, pipe: PipeId, frame: &Bytes, world: &mut World<'_>) -> Wish {
        let response = ConnectResponse::decode(frame).expect("I13: a connect response is readable");
        let Some(connection) = &mut self.connection else { return Wish::Nothing };
        if response.timeout().is_none() {
            let session = self.session.take().expect("I14: a new session is never expired");
            let life = world.canon.session(session);
            let is_closed = life.is_some_and(|life| life.closed_at.is_some());
            // A local session ends with its member, and cannot move.
            let may_be_local = world.canon.has_local_sessions && !self.is_known_to_all;
            assert!(
                is_closed || may_be_local,
                "I14: session {session} is called expired, and was never closed: {life:?}"
            );
            world.coverage.see(Seen::ToldExpired);
            self.watches.clear();
            self.lose(world);
            return Wish::Close(pipe);
        }
        connection.is_open = true;
        let is_resumed = self.session == Some(response.session);
        assert!(self.session.is_none() || is_resumed, "I14: a session is replaced silently");
        let life = world.canon.session(response.session);
        let is_committed = life.is_some() || world.canon.has_local_sessions;
        assert!(is_committed, "I14: session {} is open, and its creation not committed", response.session);
        self.session = Some(response.session);
        self.timeout =
            response.timeout().map_or(0, |timeout| u64::try_from(timeout.as_nanos()).expect("seconds"));
        if !is_resumed {
            self.is_known_to_all = !world.canon.has_local_sessions;
            self.proofs = [self.dialled_at].into();
            self.last_zxid = Zxid::ZERO;
        } else {
            world.coverage.see(Seen::SessionResumed);
        }
        match self.watches.take_to_set_again(self.last_zxid) {
            Some(watches) if is_resumed => self.send(vec![Request::SetWatches(watches)], world),
            Some(_) | None => Wish::Nothing,
        }
    }

    fn on_reply(
        &mut self,
        asked: &Asked,
        zxid: Zxid,
        result: &Result<Response, OpError>,
        world: &mut World<'_>,
    ) -> Wish {
        if let Request::Create(create) | Request::Create2(create) = &asked.request {
            let is_ephemeral = CreateMode::from_flags(create.flags).is_some_and(CreateMode::is_ephemeral);
            self.is_known_to_all |= is_ephemeral && result.is_ok();
        }
        match &asked.request {
            Request::Ping => {}
            Request::Sync { .. } => {}
            Request::SetWatches(watches) => self.on_watches_set(watches, zxid, world.canon),
            Request::GetData { path, watch } => {
                self.check_read(asked, path, zxid, result, world);
                if *watch && result.is_ok() {
                    self.watches.add_data(path, zxid, true);
                }
            }
            Request::Exists { path, watch } => {
                self.check_read(asked, path, zxid, result, world);
                if *watch {
                    self.watches.add_data(path, zxid, result.is_ok());
                }
            }
            Request::GetChildren2 { path, watch } => {
                self.check_read(asked, path, zxid, result, world);
                if *watch && result.is_ok() {
                    self.watches.add_child(path, zxid);
                }
            }
            _write => self.check_write(asked, zxid, result, world),
        }
        if matches!((&asked.request, result), (Request::CloseSession, Ok(_))) {
            self.session = None;
            self.watches.clear();
            self.lose(world);
            world.coverage.see(Seen::SessionClosed);
        }
        Wish::Nothing
    }

    fn check_write(
        &mut self,
        asked: &Asked,
        zxid: Zxid,
        result: &Result<Response, OpError>,
        world: &mut World<'_>,
    ) {
        let committed = world.canon.find(zxid);
        let committed = committed
            .unwrap_or_else(|| panic!("I13: {asked:?} is answered with {zxid}, which is not committed"));
        let session = self.session.expect("it has asked");
        assert_eq!(
            (committed.session, committed.cxid),
            (session, asked.xid),
            "I13: {asked:?} is answered with another's txn {zxid}"
        );
        assert_eq!(
            committed.error,
            result.as_ref().err().copied(),
            "I13: {asked:?} is answered with {result:?}"
        );
        assert!(zxid > asked.floor, "I13: {asked:?} has {zxid}, but {} was told before", asked.floor);
        check_outcome(&asked.request, zxid, result, world.canon);
        *world.floor = (*world.floor).max(zxid);
        self.last_write_at = world.now;
        world.coverage.see(Seen::AcknowledgedWrite);
    }

    fn check_read(
        &self,
        asked: &Asked,
        path: &str,
        zxid: Zxid,
        result: &Result<Response, OpError>,
        world: &mut World<'_>,
    ) {
        if asked.is_synced {
            assert!(
                zxid >= asked.floor,
                "I13: after a sync {asked:?} is answered as of {zxid}, but {} was told before",
                asked.floor
            );
            *world.floor = (*world.floor).max(zxid);
            world.coverage.see(Seen::SyncedRead);
        }
        let state = world.canon.state_at(path, zxid);
        match result {
            Err(OpError::NoNode) => assert_eq!(state, None, "I13: at {zxid} {path} is said not to be there"),
            Err(other) => panic!("I13: {asked:?} is answered with {other}"),
            Ok(response) => {
                let state = state.unwrap_or_else(|| panic!("I13: at {zxid} {path} is said to be there"));
                let (data, stat) = match response {
                    Response::Data(data, stat) => (data.as_deref(), stat),
                    Response::Stat(stat) | Response::ChildrenStat(_, stat) => (None, stat),
                    other => panic!("I13: {asked:?} is answered with {other:?}"),
                };
                let told = (stat.version, stat.czxid, stat.mzxid, stat.ephemeral_owner);
                let expected = (state.version, state.czxid, state.mzxid, state.owner);
                assert_eq!(told, expected, "I13: the stat of {path} as of {zxid}");
                if let Some(data) = data {
                    assert_eq!(data, state.data, "I13: the data of {path} as of {zxid}");
                }
                if let Response::ChildrenStat(names, _) = response {
                    assert_eq!(names.len(), state.children, "I13: the children of {path} as of {zxid}");
                }
            }
        }
    }

    fn on_watches_set(&mut self, request: &SetWatches, zxid: Zxid, canon: &Canon) {
        self.watches.on_set_again(request.relative_zxid, zxid, canon);
    }
}

/// A write has done what its client is told, and was refused for a reason that held.
fn check_outcome(request: &Request, zxid: Zxid, result: &Result<Response, OpError>, canon: &Canon) {
    let state = |path: &str| canon.state_at(path, zxid);
    let is_as_told = match (request, result) {
        (Request::Create(_), Ok(Response::Path(path)))
        | (Request::Create2(_), Ok(Response::PathStat(path, _))) => {
            state(path).is_some_and(|state| state.czxid == zxid)
        }
        (Request::SetData { path, data, .. }, Ok(Response::Stat(stat))) => state(path).is_some_and(|state| {
            state.mzxid == zxid && stat.version == state.version && data.as_deref() == Some(&state.data)
        }),
        (Request::Delete { path, .. }, Ok(_)) => state(path).is_none(),
        (Request::Create(create) | Request::Create2(create), Err(OpError::NodeExists)) => {
            state(&create.path).is_some()
        }
        (Request::SetData { path, .. } | Request::Delete { path, .. }, Err(OpError::NoNode)) => {
            state(path).is_none()
        }
        (
            Request::SetData { path, version, .. } | Request::Delete { path, version },
            Err(OpError::BadVersion),
        ) => state(path).is_some_and(|state| state.version != *version),
        (Request::Delete { path, .. }, Err(OpError::NotEmpty)) => {
            state(path).is_some_and(|state| state.children > 0)
        }
        _other => true,
    };
    assert!(is_as_told, "I13: {request:?} is answered with {result:?} at {zxid}, which is not so");
}
