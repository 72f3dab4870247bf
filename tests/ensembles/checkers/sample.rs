//! Hand-made histories, good and bad, for the tests of the checkers.

use super::check;
use crate::history::{
    Action, Aspect, Change, Dump, Event, EventKind, Found, History, Node, NodeStat, Operation, Read, Record,
    Reply, SessionChange, Setup, Turn,
};

/// A history under construction. Every call happens after the one before it, unless told otherwise.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    history: History,
    clock: u64,
    sessions: Vec<SampleSession>,
    /// What every request from now on is said to have been sent at.
    started: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct SampleSession {
    name: String,
    connection: u32,
    requests: u64,
    received: u64,
}

/// The sessions of samples last a second.
pub(crate) const TIMEOUT_MS: u64 = 1_000;
pub(crate) const SLACK_MS: u64 = 500;
pub(crate) const SECOND: u64 = 1_000_000_000;

impl Sample {
    pub(crate) fn new() -> Self {
        let setup = Setup {
            scenario: "sample".to_owned(),
            members: vec!["m1".to_owned(), "m2".to_owned()],
            removal_slack_ms: SLACK_MS,
            has_local_sessions: false,
        };
        Self { history: History { records: vec![Record::Setup(setup)] }, ..Self::default() }
    }

    pub(crate) fn history(self) -> History {
        self.history
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.history.records.push(record);
    }

    /// Opens a session; its number names it from then on.
    pub(crate) fn client(&mut self, name: &str) -> usize {
        self.sessions.push(SampleSession { name: name.to_owned(), ..SampleSession::default() });
        let client = self.sessions.len() - 1;
        self.connect(client);
        client
    }

    /// Connects the session, again.
    pub(crate) fn connect(&mut self, client: usize) {
        self.sessions[client].connection += 1;
        let connection = self.sessions[client].connection;
        let asked = self.tick();
        let server = "m1".to_owned();
        self.turn(client, SessionChange::Connected { connection, server, timeout_ms: TIMEOUT_MS, asked });
    }

    pub(crate) fn turn(&mut self, client: usize, change: SessionChange) {
        let at = self.tick();
        let name = self.sessions[client].name.clone();
        self.record(Record::Turn(Turn { at, client: name, session: session(client), change }));
    }

    pub(crate) fn wait(&mut self, nanoseconds: u64) {
        self.clock += nanoseconds;
    }

    /// Lets the next request seem to have been sent now, and others before its reply.
    pub(crate) fn send_early(&mut self) {
        self.started = Some(self.tick());
    }

    pub(crate) fn create(&mut self, client: usize, path: &str, value: &str, zxid: i64) {
        self.create_as(client, path, value, zxid, false);
    }

    pub(crate) fn create_ephemeral(&mut self, client: usize, path: &str, value: &str, zxid: i64) {
        self.create_as(client, path, value, zxid, true);
    }

    fn create_as(&mut self, client: usize, path: &str, value: &str, zxid: i64, ephemeral: bool) {
        let change = Change::Create { path: path.to_owned(), value: value.to_owned(), ephemeral };
        self.replied(client, Action::Change(change), zxid, 0, Found::Stat(stat(zxid, 0)));
    }

    pub(crate) fn set(&mut self, client: usize, path: &str, value: &str, zxid: i64, version: i32) {
        let change = Change::Set { path: path.to_owned(), value: value.to_owned(), version: -1 };
        self.replied(client, Action::Change(change), zxid, 0, Found::Stat(stat(zxid, version)));
    }

    pub(crate) fn delete(&mut self, client: usize, path: &str, zxid: i64) {
        let change = Change::Delete { path: path.to_owned() };
        self.replied(client, Action::Change(change), zxid, 0, Found::Nothing);
    }

    pub(crate) fn refused(&mut self, client: usize, change: Change, zxid: i64, error: i32) {
        self.replied(client, Action::Change(change), zxid, error, Found::Nothing);
    }

    /// A request that is never answered.
    pub(crate) fn lost(&mut self, client: usize, action: Action) {
        let operation = self.operation(client, action);
        self.record(Record::Operation(operation));
    }

    /// A read of data behind a sync, of a value that the txn `mzxid` wrote.
    pub(crate) fn read(&mut self, client: usize, path: &str, zxid: i64, found: Option<(&str, i64)>) {
        let synced = self.started.unwrap_or(self.clock + 1);
        self.read_as(client, path, zxid, found, false, Some(synced));
    }

    /// A read of data that leaves a watch.
    pub(crate) fn read_and_watch(
        &mut self,
        client: usize,
        path: &str,
        zxid: i64,
        found: Option<(&str, i64)>,
    ) {
        self.read_as(client, path, zxid, found, true, None);
    }

    fn read_as(
        &mut self,
        client: usize,
        path: &str,
        zxid: i64,
        found: Option<(&str, i64)>,
        watch: bool,
        synced: Option<u64>,
    ) {
        let aspect = if found.is_some() { Aspect::Data } else { Aspect::Exists };
        let read = Action::Read(Read { path: path.to_owned(), aspect, watch, synced });
        match found {
            Some((value, mzxid)) => {
                self.replied(client, read, zxid, 0, Found::Data(Some(value.to_owned()), stat(mzxid, 0)));
            }
            None => self.replied(client, read, zxid, -101, Found::Nothing),
        }
    }

    pub(crate) fn children(&mut self, client: usize, path: &str, zxid: i64, names: &[&str]) {
        let synced = Some(self.clock + 1);
        let read = Read { path: path.to_owned(), aspect: Aspect::Children, watch: false, synced };
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.replied(client, Action::Read(read), zxid, 0, Found::Children(names, stat(1, 0)));
    }

    pub(crate) fn ping(&mut self, client: usize, zxid: i64) {
        self.replied(client, Action::Ping, zxid, 0, Found::Nothing);
    }

    pub(crate) fn close(&mut self, client: usize, zxid: i64) {
        self.replied(client, Action::Close, zxid, 0, Found::Nothing);
    }

    /// A request and its reply.
    pub(crate) fn replied(&mut self, client: usize, action: Action, zxid: i64, error: i32, found: Found) {
        let mut operation = self.operation(client, action);
        operation.reply = Some(Reply { order: self.order(client), ended: self.tick(), zxid, error, found });
        self.record(Record::Operation(operation));
    }

    fn operation(&mut self, client: usize, action: Action) -> Operation {
        let started = self.started.take().unwrap_or_else(|| self.tick());
        let of = &mut self.sessions[client];
        of.requests += 1;
        Operation {
            client: of.name.clone(),
            session: session(client),
            connection: of.connection,
            server: "m1".to_owned(),
            request: of.requests,
            started,
            action,
            reply: None,
        }
    }

    pub(crate) fn event(&mut self, client: usize, kind: EventKind, path: &str) {
        let event = Event {
            order: self.order(client),
            at: self.tick(),
            client: self.sessions[client].name.clone(),
            session: session(client),
            connection: self.sessions[client].connection,
            zxid: -1,
            kind,
            path: path.to_owned(),
        };
        self.record(Record::Event(event));
    }

    /// What member `m1` holds: path, value, and the txn that wrote it.
    pub(crate) fn dump(&mut self, zxid: i64, nodes: &[(&str, &str, i64)]) {
        self.dump_of("m1", zxid, nodes);
    }

    pub(crate) fn dump_of(&mut self, server: &str, zxid: i64, nodes: &[(&str, &str, i64)]) {
        let nodes = nodes.iter().map(|(path, value, mzxid)| Node {
            path: (*path).to_owned(),
            value: Some((*value).to_owned()),
            stat: stat(*mzxid, 0),
            acl: String::new(),
        });
        let nodes = nodes.collect();
        let (started, ended) = (self.tick(), self.tick());
        self.record(Record::Dump(Dump { server: server.to_owned(), round: 1, started, ended, zxid, nodes }));
    }

    fn order(&mut self, client: usize) -> u64 {
        self.sessions[client].received += 1;
        self.sessions[client].received
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// The rules that a history breaks, each once.
pub(crate) fn rules(sample: Sample) -> Vec<&'static str> {
    let mut rules: Vec<_> = check(&sample.history()).into_iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

fn session(client: usize) -> i64 {
    i64::try_from(client).expect("a handful of clients") + 0x100
}

fn stat(mzxid: i64, version: i32) -> NodeStat {
    NodeStat { czxid: mzxid, mzxid, pzxid: mzxid, version, ..NodeStat::default() }
}
