//! A ZooKeeper client that keeps its session over lost connections and writes down everything it is told.
//!
//! Thinner than the library's: it shows the zxid of every reply's header, sends what it is told in one go, and calls
//! nothing a success or a failure that was not answered. Requests are recorded when their reply arrives, or as
//! unanswered when their connection ends.

mod link;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rollcall::clock;
use rollcall::id::{SessionId, Xid, Zxid};
use rollcall::wire::{ConnectRequest, Request, SetWatches};
use rollcall::znode::SessionPassword;

use crate::history::{
    Action, Aspect, Event, EventKind, Found, Operation, Record, Reply, SessionChange, Turn,
};
use crate::recorder::Recorder;
use link::{Frame, Link};

/// A member, as clients see it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

/// How to be a client.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) servers: Arc<[Server]>,
    pub(crate) session_timeout: Duration,
    /// Whether it takes a member that cannot write.
    pub(crate) is_content_with_reading: bool,
    pub(crate) recorder: Recorder,
}

/// One session at a time, over one connection at a time.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    settings: Settings,
    session: Option<Session>,
    link: Option<Link>,
    watches: Watches,
    events: Vec<Event>,
    values: u64,
    /// What it has seen in sessions that it left.
    seen: Zxid,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    password: SessionPassword,
    timeout: Duration,
    last_zxid: Zxid,
    connections: u32,
    requests: u64,
    received: u64,
}

/// The watches that have not fired, to be brought back after a reconnect.
#[derive(Debug, Default)]
struct Watches {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    below: Vec<String>,
}

/// A connection that nobody takes, or on which nobody answers, is given up after this.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_millis(1_000);
const ALONE_MAX: Duration = Duration::from_secs(60);
const CONNECT_PAUSE: Duration = Duration::from_millis(40);

impl Client {
    pub(crate) fn new(name: &str, settings: Settings) -> Self {
        let seed = name.bytes().fold(0x5eed, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        Self {
            name: name.to_owned(),
            settings,
            session: None,
            link: None,
            watches: Watches::default(),
            events: Vec::new(),
            values: 0,
            seen: Zxid::ZERO,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A value that nobody has written before.
    pub(crate) fn new_value(&mut self) -> String {
        self.values += 1;
        self.last_value()
    }

    /// The newest of them. It ends with a full stop, so that none is the beginning of another.
    pub(crate) fn last_value(&self) -> String {
        format!("{}-{}.", self.name, self.values)
    }

    /// The session, while there is one.
    pub(crate) fn session(&self) -> Option<i64> {
        self.session.as_ref().map(|session| session.id.0)
    }

    /// The events since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Sends `actions` in one go, after connecting if need be, and waits for the replies; `None` for those that the
    /// connection did not live to bring. A read that follows a sync is noted as such.
    pub(crate) async fn call(&mut self, actions: Vec<Action>) -> Vec<Option<Reply>> {
        self.ensure_connected().await;
        let count = actions.len();
        let first = self.link.as_ref().map_or(0, |link| link.sent);
        let mut synced = None;
        for mut action in actions {
            if action == Action::Sync {
                synced = Some(self.settings.recorder.now());
            }
            if let Action::Read(read) = &mut action {
                read.synced = synced;
            }
            self.queue(action);
        }
        let mut replies = vec![None; count];
        if !self.flush().await {
            return replies;
        }
        while self.link.as_ref().is_some_and(|link| link.has_pending_from(first)) {
            if let Some((number, reply)) = self.receive(None).await
                && let Some(index) = number.checked_sub(first)
                && let Some(slot) = usize::try_from(index).ok().and_then(|index| replies.get_mut(index))
            {
                *slot = Some(reply);
            }
        }
        replies
    }

    /// Sends one request and waits for its reply.
    pub(crate) async fn ask(&mut self, action: Action) -> Option<Reply> {
        self.call(vec![action]).await.pop().flatten()
    }

    /// Keeps the session alive for a while, and listens for events.
    pub(crate) async fn rest(&mut self, duration: Duration) {
        let until = clock::now() + duration;
        while clock::now() < until {
            if self.link.is_none() {
                let left = until.saturating_duration_since(clock::now());
                let _in_time = tokio::time::timeout(left, self.ensure_connected()).await;
            } else {
                self.receive(Some(until)).await;
            }
        }
    }

    /// Closes the session; false when nobody said that it is closed.
    pub(crate) async fn close(mut self) -> bool {
        let is_closed = self.session.is_some() && self.ask(Action::Close).await.is_some();
        self.drop_link();
        is_closed
    }

    /// Leaves the session to its timeout.
    pub(crate) fn abandon(mut self) {
        self.drop_link();
        self.turn(SessionChange::Abandoned);
    }

    /// Leaves the session to its timeout, and will open a new one where what it has seen is there.
    pub(crate) fn start_over(&mut self) {
        self.drop_link();
        self.turn(SessionChange::Abandoned);
        let left = self.session.take();
        self.seen = left.map_or(self.seen, |session| session.last_zxid);
        self.watches = Watches::default();
    }

    /// Connects, again and again, with the session if there is one, until a server takes it.
    ///
    /// # Panics
    ///
    /// When none does for longer than any scenario leaves its clients alone.
    pub(crate) async fn ensure_connected(&mut self) {
        let start = clock::now();
        while self.link.is_none() {
            assert!(clock::now() - start < ALONE_MAX, "no member takes {} for {ALONE_MAX:?}", self.name);
            let server = self.random.usize(..self.settings.servers.len());
            let server = self.settings.servers[server].clone();
            match tokio::time::timeout(CONNECT_LIMIT, self.connect(&server)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
            }
        }
    }

    async fn connect(&mut self, server: &Server) -> std::io::Result<()> {
        let asked = self.settings.recorder.now();
        let request = ConnectRequest {
            last_zxid_seen: self.session.as_ref().map_or(self.seen, |session| session.last_zxid),
            timeout_ms: i32::try_from(self.settings.session_timeout.as_millis()).expect("timeouts are short"),
            session: self.session.as_ref().map_or(SessionId::NONE, |session| session.id),
            password: self.session.as_ref().map_or(SessionPassword::ZERO, |session| session.password),
            read_only: Some(self.settings.is_content_with_reading),
        };
        let (link, response) = Link::open(server, &request).await?;
        let Some(timeout) = response.timeout() else {
            self.turn(SessionChange::Expired { server: server.name.clone() });
            self.session = None;
            self.watches = Watches::default();
            return Ok(());
        };
        let session = self.session.get_or_insert(Session {
            id: response.session,
            password: response.password,
            timeout,
            last_zxid: self.seen,
            connections: 0,
            requests: 0,
            received: 0,
        });
        session.timeout = timeout;
        session.connections += 1;
        let connection = session.connections;
        let timeout_ms = u64::try_from(timeout.as_millis()).expect("timeouts are short");
        self.link = Some(link);
        self.turn(SessionChange::Connected { connection, server: server.name.clone(), timeout_ms, asked });
        if !self.watches.is_empty() {
            self.queue(Action::SetWatches { below: self.watches.below.clone() });
        }
        Ok(())
    }

    /// Puts a request behind those that are to be sent, and notes that it was.
    fn queue(&mut self, action: Action) {
        let (Some(session), Some(link)) = (&mut self.session, &mut self.link) else { return };
        session.requests += 1;
        let operation = Operation {
            client: self.name.clone(),
            session: session.id.0,
            connection: session.connections,
            server: link.server.clone(),
            request: session.requests,
            started: self.settings.recorder.now(),
            action,
            reply: None,
        };
        link.queue(operation, || self.watches.request(session.last_zxid));
    }

    /// Sends what is queued; false when the connection is lost.
    async fn flush(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        if link.flush().await.is_err() {
            self.drop_link();
        }
        self.link.is_some()
    }

    /// Takes the next frame, or sends the next heartbeat; a reply comes with the number of its request on the link.
    /// Returns nothing at `until`, for an event, and when the connection is lost.
    async fn receive(&mut self, until: Option<std::time::Instant>) -> Option<(u64, Reply)> {
        let timeout = self.session.as_ref()?.timeout;
        if self.link.as_ref()?.spoke + timeout / 3 <= clock::now() {
            self.queue(Action::Ping);
        }
        if !self.flush().await {
            return None;
        }
        let link = self.link.as_mut()?;
        let ping = link.spoke + timeout / 3;
        let silence = link.heard + timeout * 2 / 3;
        let wake = [Some(ping), Some(silence), until].into_iter().flatten().min().expect("there are two");
        match tokio::time::timeout_at(wake.into(), link.frame()).await {
            Ok(Ok(frame)) => self.on_frame(frame),
            Ok(Err(_)) => {
                self.drop_link();
                None
            }
            Err(_) if clock::now() >= silence => {
                self.drop_link();
                None
            }
            Err(_) => None,
        }
    }

    fn on_frame(&mut self, frame: Frame) -> Option<(u64, Reply)> {
        let at = self.settings.recorder.now();
        let session = self.session.as_mut()?;
        session.received += 1;
        let order = session.received;
        match frame {
            Frame::Event { zxid, kind, path } => {
                self.watches.fire(kind, &path);
                let event = Event {
                    client: self.name.clone(),
                    session: session.id.0,
                    connection: session.connections,
                    order,
                    at,
                    zxid: zxid.raw(),
                    kind,
                    path,
                };
                self.events.push(event.clone());
                self.settings.recorder.add(Record::Event(event));
                None
            }
            Frame::Reply { number, mut operation, zxid, error, found } => {
                session.last_zxid = session.last_zxid.max(zxid);
                let reply = Reply { order, ended: at, zxid: zxid.raw(), error, found };
                self.watches.leave(&operation.action, &reply);
                let is_end = operation.action == Action::Close && error == 0;
                operation.reply = Some(reply.clone());
                self.settings.recorder.add(Record::Operation(*operation));
                if is_end {
                    self.session = None;
                }
                Some((number, reply))
            }
        }
    }

    /// Ends the connection; what was not answered never will be.
    fn drop_link(&mut self) {
        let Some(link) = self.link.take() else { return };
        self.turn(SessionChange::Disconnected { server: link.server.clone() });
        for operation in link.into_unanswered() {
            self.settings.recorder.add(Record::Operation(operation));
        }
    }

    fn turn(&self, change: SessionChange) {
        let Some(session) = &self.session else { return };
        let at = self.settings.recorder.now();
        let turn = Turn { at, client: self.name.clone(), session: session.id.0, change };
        self.settings.recorder.add(Record::Turn(turn));
    }
}

impl Drop for Client {
    /// A client that is dropped in the middle of a call still says what it had asked for.
    fn drop(&mut self) {
        self.drop_link();
    }
}

impl Watches {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.exist.is_empty() && self.child.is_empty() && self.below.is_empty()
    }

    /// What a successful request, or a question for a znode that is not there, leaves behind.
    fn leave(&mut self, action: &Action, reply: &Reply) {
        if let Action::WatchBelow(path) = action
            && reply.error == 0
        {
            self.below.push(path.clone());
        }
        let Action::Read(read) = action else { return };
        if !read.watch {
            return;
        }
        let set = match (&reply.found, read.aspect) {
            (Found::Children(..), _) => &mut self.child,
            (Found::Data(..) | Found::Stat(_), _) => &mut self.data,
            (_, Aspect::Exists) if reply.error == NO_NODE => &mut self.exist,
            _ => return,
        };
        set.insert(read.path.clone());
    }

    fn fire(&mut self, kind: EventKind, path: &str) {
        let sets = match kind {
            EventKind::Created | EventKind::DataChanged => {
                [Some(&mut self.data), Some(&mut self.exist), None]
            }
            EventKind::Deleted => [Some(&mut self.data), Some(&mut self.exist), Some(&mut self.child)],
            EventKind::ChildrenChanged => [Some(&mut self.child), None, None],
        };
        for set in sets.into_iter().flatten() {
            set.remove(path);
        }
    }

    fn request(&self, relative_zxid: Zxid) -> Request {
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect();
        let watches = SetWatches {
            relative_zxid,
            data: list(&self.data),
            exist: list(&self.exist),
            child: list(&self.child),
            persistent: Vec::new(),
            persistent_recursive: self.below.clone(),
        };
        if self.below.is_empty() { Request::SetWatches(watches) } else { Request::SetWatches2(watches) }
    }
}

const NO_NODE: i32 = -101;

/// The number under which a request is sent; heartbeats and `setWatches` have fixed ones.
fn xid(action: &Action, number: u64) -> Xid {
    match action {
        Action::Ping => Xid::PING,
        Action::SetWatches { .. } => Xid::SET_WATCHES,
        Action::Change(_)
        | Action::Multi(_)
        | Action::Permit { .. }
        | Action::Sync
        | Action::Read(_)
        | Action::WatchBelow(_)
        | Action::Close => Xid(i32::try_from(number).expect("runs are short")),
    }
}
