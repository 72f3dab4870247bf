//! A history put in order: who lived how long, and what happened to each path.

use std::collections::BTreeMap;

use crate::history::{
    Action, Change, Dump, Event, Found, History, NodeStat, Operation, Record, SessionChange, Setup,
};

/// A history as the checkers look at it.
#[derive(Debug, Default)]
pub(crate) struct Model<'a> {
    pub(crate) setup: Option<&'a Setup>,
    pub(crate) operations: Vec<&'a Operation>,
    pub(crate) events: Vec<&'a Event>,
    pub(crate) dumps: Vec<&'a Dump>,
    pub(crate) digests: Vec<(&'a str, i64, &'a str)>,
    pub(crate) leaders: Vec<(&'a str, i64)>,
    pub(crate) sessions: BTreeMap<i64, Session<'a>>,
    /// What happened to each path: first the changes with a known zxid in order, then the merely possible ones.
    pub(crate) paths: BTreeMap<&'a str, Vec<PathChange<'a>>>,
}

/// A session's life.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) client: &'a str,
    pub(crate) timeout_ms: u64,
    /// When the newest request was sent that was answered.
    pub(crate) heard: u64,
    /// When the newest request was sent at all.
    pub(crate) spoke: u64,
    pub(crate) end: SessionEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// It lives to the end of the history.
    None,
    /// Its close was acknowledged.
    Closed { zxid: i64 },
    /// A close was sent and not answered.
    Closing,
    /// A server said at this time that it is gone.
    Expired(u64),
    /// The client left it alone.
    Abandoned,
}

/// What a change does to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Created,
    Set,
    Deleted,
}

/// One change of one path.
#[derive(Clone, Debug)]
pub(crate) struct PathChange<'a> {
    pub(crate) effect: Effect,
    pub(crate) value: Option<&'a str>,
    /// The zxid at which it took effect; `None` while nothing says that it did.
    pub(crate) zxid: Option<i64>,
    pub(crate) is_acknowledged: bool,
    /// The request; none when the end of a session deleted an ephemeral.
    pub(crate) operation: Option<&'a Operation>,
    /// The session that an ephemeral was created by.
    pub(crate) owner: Option<i64>,
    /// The data version that its reply gave.
    pub(crate) version: Option<i32>,
}

impl<'a> Model<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        let mut model = Self::default();
        for record in &history.records {
            match record {
                Record::Setup(setup) => model.setup = Some(setup),
                Record::Fault { .. } | Record::Turn(_) => {}
                Record::Operation(operation) => model.operations.push(operation),
                Record::Event(event) => model.events.push(event),
                Record::Dump(dump) => model.dumps.push(dump),
                Record::Digest { server, zxid, digest } => model.digests.push((server, *zxid, digest)),
                Record::Leader { server, epoch } => model.leaders.push((server, *epoch)),
            }
        }
        model.gather_sessions(history);
        model.gather_changes();
        model.gather_ephemeral_ends();
        for changes in model.paths.values_mut() {
            changes.sort_by_key(|change| change.zxid.unwrap_or(i64::MAX));
        }
        model
    }

    /// The newest change of `path` that is known to have taken effect by `zxid`.
    pub(crate) fn newest(&self, path: &str, zxid: i64) -> Option<&PathChange<'a>> {
        self.done(path).take_while(|change| change.zxid.is_some_and(|done| done <= zxid)).last()
    }

    /// The changes of `path` that are known to have taken effect, in order.
    pub(crate) fn done(&self, path: &str) -> impl Iterator<Item = &PathChange<'a>> {
        self.changes(path).iter().take_while(|change| change.zxid.is_some())
    }

    /// The changes of `path` of which nobody knows whether they took effect.
    pub(crate) fn possible(&self, path: &str) -> impl Iterator<Item = &PathChange<'a>> {
        self.changes(path).iter().filter(|change| change.zxid.is_none())
    }

    /// Whether `path` may have been deleted without anybody's having been told.
    pub(crate) fn may_be_deleted(&self, path: &str) -> bool {
        self.possible(path).any(|change| change.effect == Effect::Deleted)
    }

    fn changes(&self, path: &str) -> &[PathChange<'a>] {
        self.paths.get(path).map_or(&[], Vec::as_slice)
    }

    fn gather_sessions(&mut self, history: &'a History) {
        for record in &history.records {
            let Record::Turn(turn) = record else { continue };
            let session = self.sessions.entry(turn.session).or_insert(Session {
                client: &turn.client,
                timeout_ms: 0,
                heard: 0,
                spoke: 0,
                end: SessionEnd::None,
            });
            match &turn.change {
                SessionChange::Connected { timeout_ms, asked, .. } => {
                    session.timeout_ms = *timeout_ms;
                    session.heard = session.heard.max(*asked);
                    session.spoke = session.spoke.max(*asked);
                }
                SessionChange::Disconnected { .. } => {}
                SessionChange::Expired { .. } => session.end = SessionEnd::Expired(turn.at),
                SessionChange::Abandoned => session.end = SessionEnd::Abandoned,
            }
        }
        for operation in &self.operations {
            let Some(session) = self.sessions.get_mut(&operation.session) else { continue };
            session.spoke = session.spoke.max(operation.started);
            if operation.reply.is_some() {
                session.heard = session.heard.max(operation.started);
            }
            if operation.action == Action::Close {
                session.end = match operation.success() {
                    Some(reply) => SessionEnd::Closed { zxid: reply.zxid },
                    None => SessionEnd::Closing,
                };
            }
        }
    }

    fn gather_changes(&mut self) {
        let seen = self.seen();
        for operation in &self.operations {
            let refused = operation.reply.as_ref().is_some_and(|reply| reply.error != 0);
            if refused {
                continue;
            }
            let acknowledged = operation.success().map(|reply| reply.zxid);
            // One part of a transaction that shows means that all of it took effect.
            let shown = || {
                let values = operation.action.changes().iter();
                values.filter_map(|change| seen.get(&(change.path(), change.value()?)).copied()).next()
            };
            let zxid = acknowledged.or_else(shown);
            for (index, change) in operation.action.changes().iter().enumerate() {
                let owner = match change {
                    Change::Create { ephemeral: true, .. } => Some(operation.session),
                    Change::Create { .. } | Change::Set { .. } | Change::Delete { .. } => None,
                };
                self.paths.entry(change.path()).or_default().push(PathChange {
                    effect: change.effect(),
                    value: change.value(),
                    zxid,
                    is_acknowledged: acknowledged.is_some(),
                    operation: Some(operation),
                    owner,
                    version: operation.stat(index).map(|stat| stat.version),
                });
            }
        }
    }

    /// What reads and dumps show: of a path and a value the txn that wrote it.
    fn seen(&self) -> BTreeMap<(&'a str, &'a str), i64> {
        let mut seen = BTreeMap::new();
        for operation in &self.operations {
            let (Action::Read(read), Some(reply)) = (&operation.action, operation.success()) else {
                continue;
            };
            if let Found::Data(Some(value), stat) = &reply.found {
                seen.insert((read.path.as_str(), value.as_str()), stat.mzxid);
            }
        }
        for node in self.dumps.iter().flat_map(|dump| &dump.nodes) {
            if let Some(value) = &node.value {
                seen.insert((node.path.as_str(), value.as_str()), node.stat.mzxid);
            }
        }
        seen
    }

    /// The end of a session deletes its ephemerals: surely so when its close was acknowledged.
    fn gather_ephemeral_ends(&mut self) {
        for changes in self.paths.values_mut() {
            let Some(created) = changes.iter().find(|change| change.owner.is_some()).cloned() else {
                continue;
            };
            let Some(session) = created.owner.and_then(|owner| self.sessions.get(&owner)) else { continue };
            let is_certain =
                created.zxid.is_some() && changes.iter().all(|change| change.effect != Effect::Deleted);
            let zxid = match session.end {
                SessionEnd::None => continue,
                SessionEnd::Closed { zxid } => is_certain.then_some(zxid),
                SessionEnd::Closing | SessionEnd::Expired(_) | SessionEnd::Abandoned => None,
            };
            changes.push(PathChange {
                effect: Effect::Deleted,
                value: None,
                zxid,
                is_acknowledged: zxid.is_some(),
                operation: None,
                owner: None,
                version: None,
            });
        }
    }
}

impl PathChange<'_> {
    /// Who did it, for messages.
    pub(crate) fn author(&self) -> String {
        match self.operation {
            None => "the end of its session".to_owned(),
            Some(operation) => format!("request {} of {}", operation.request, operation.client),
        }
    }

    /// Whether it is one of several changes that go together.
    pub(crate) fn is_part(&self) -> bool {
        self.operation.is_some_and(|operation| operation.action.changes().len() > 1)
    }
}

impl Change {
    fn effect(&self) -> Effect {
        match self {
            Self::Create { .. } => Effect::Created,
            Self::Set { .. } => Effect::Set,
            Self::Delete { .. } => Effect::Deleted,
        }
    }

    fn value(&self) -> Option<&str> {
        match self {
            Self::Create { value, .. } | Self::Set { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}

impl Operation {
    /// The stat that its reply gives for the change with this index.
    fn stat(&self, index: usize) -> Option<NodeStat> {
        match &self.success()?.found {
            Found::Stat(stat) => Some(*stat),
            Found::Results(results) => results.get(index).copied().flatten(),
            Found::Nothing | Found::Data(..) | Found::Children(..) | Found::Acl(..) => None,
        }
    }
}
