//! The barrier: how far the subscribers that are connected here have come. No txn, no disk, no word between members.
//!
//! ```text
//! asker       getData barriers/ZXID/PATH ──► who follows PATH, and has not said that it has applied ZXID?
//! subscriber  ◄── "data changed" of its own path, with ZXID, behind the events of all changes up to there (once)
//!             exists subscribers/NAME/ZXID ──► it has applied them
//! asker       getData barriers/ZXID/PATH ──► nobody: all have
//! ```
//!
//! A connection that is dead and has not been told from a living one is behind, too, until its session has said so elsewhere.
//!
//! Nothing is kept of a barrier: what is known is how far each subscriber has come, and that answers every question. Those who
//! subscribe later are asked with the next question.
//!
//! **Who is away counts.** Whoever loses its connection goes on answering from what it knew. Its name is kept for [`AWAY_TIME`],
//! until it is back here, or has said to another member that it has applied the change; the asker, who asks all members, carries
//! that word. A session that its client closed has ended in order and is not missed. A member that was started anew does not know
//! who was here before, and says so for [`RETURN_TIME`].
//!
//! Invariants: a subscriber has a connection; nobody has said, or been asked for, more than the member has applied; what is not
//! known is never told as confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::watch::{WatcherType, Watches};
use super::{ConnectionId, LocalSessionMode, Replica};
use crate::id::{SessionId, Zxid};
use crate::wire::{Request, Response};
use crate::znode::{
    AddWatchMode, BarrierPath, EventKind, OpError, Stat, SubscriberName, WatchedEvent, ZnodePath,
    is_members_own,
};

/// How long a subscriber that lost its connection is missed. Beyond it nobody waits for who cannot reach the ensemble.
const AWAY_TIME: Duration = Duration::from_secs(60);
/// Within this time a subscriber that lives is back at some member: dials and the pauses between them take 5 s at most.
const RETURN_TIME: Duration = Duration::from_secs(10);
/// Subscribers that are missed; with more of them the member says that it does not know all.
const AWAY_MAX: usize = 16_384;
/// Paths, and bytes of them, that are kept of who is away; with more it counts as a follower of everything.
const AWAY_PATHS_MAX: (usize, usize) = (16, 1_024);
/// Names in one answer; the others are counted.
const NAMES_MAX: usize = 100;

/// The subscribers of this member.
#[derive(Debug)]
pub(super) struct Subscribers {
    connected: BTreeMap<ConnectionId, Subscriber>,
    by_name: BTreeSet<(SubscriberName, ConnectionId)>,
    away: BTreeMap<SubscriberName, Away>,
    now: Instant,
    started_at: Instant,
    /// From when on all who may be away are known; `None` before the member served anybody.
    complete_at: Option<Instant>,
}

#[derive(Debug)]
struct Subscriber {
    name: SubscriberName,
    session: SessionId,
    /// Up to where it was asked.
    asked: Zxid,
    /// Up to where it has said that it is.
    confirmed: Zxid,
}

/// A subscriber that lost its connection.
#[derive(Debug)]
struct Away {
    follows: Vec<Box<str>>,
    confirmed: Zxid,
    forget_at: Instant,
}

/// How a barrier stands at this member.
#[derive(Debug, Default)]
struct Standing {
    subscribers: usize,
    behind: Names,
    away: Names,
    /// Clients that watch the path and are no subscribers.
    others: usize,
    /// Whom to ask.
    to_ask: Vec<(ConnectionId, SubscriberName)>,
}

/// Some names, and how many there are.
#[derive(Debug, Default)]
struct Names {
    names: Vec<SubscriberName>,
    count: usize,
}

impl Names {
    fn add(&mut self, name: &SubscriberName) {
        self.count += 1;
        if self.names.len() < NAMES_MAX {
            self.names.push(name.clone());
        }
    }
}

impl Subscribers {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            connected: BTreeMap::new(),
            by_name: BTreeSet::new(),
            away: BTreeMap::new(),
            now,
            started_at: now,
            complete_at: None,
        }
    }

    pub(super) const fn look_at(&mut self, now: Instant) {
        self.now = now;
    }

    /// The member serves. Where nobody has a session yet, nobody can be away.
    pub(super) fn on_served(&mut self, may_have_had_clients: bool) {
        let wait = if may_have_had_clients { RETURN_TIME } else { Duration::ZERO };
        self.complete_at.get_or_insert(self.started_at + wait);
    }

    fn opt_in(&mut self, id: ConnectionId, session: SessionId, name: SubscriberName) {
        self.remove(id);
        self.away.remove(&name);
        self.by_name.insert((name.clone(), id));
        self.connected.insert(id, Subscriber { name, session, asked: Zxid::ZERO, confirmed: Zxid::ZERO });
    }

    /// Whether this connection is a subscriber's.
    pub(super) fn contains(&self, id: ConnectionId) -> bool {
        self.connected.contains_key(&id)
    }

    /// Its client has ended the session, and answers nobody any more.
    pub(super) fn leave(&mut self, id: ConnectionId) {
        self.remove(id);
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Subscriber> {
        let subscriber = self.connected.remove(&id)?;
        self.by_name.remove(&(subscriber.name.clone(), id));
        Some(subscriber)
    }

    /// A connection is gone; its watches are still there.
    pub(super) fn on_gone(&mut self, id: ConnectionId, watches: &Watches) {
        let Some(Subscriber { name, confirmed, .. }) = self.remove(id) else { return };
        if self.of_name(&name).next().is_some() {
            // It is back already.
            return;
        }
        if self.away.len() >= AWAY_MAX {
            let now = self.now;
            self.away.retain(|_, away| away.forget_at > now);
        }
        if self.away.len() >= AWAY_MAX && !self.away.contains_key(&name) {
            self.complete_at = Some(self.now + AWAY_TIME);
            return;
        }
        let (count_max, bytes_max) = AWAY_PATHS_MAX;
        let mut follows: Vec<Box<str>> = watches.followed_by(id).take(count_max + 1).map(Box::from).collect();
        if follows.len() > count_max || follows.iter().map(|path| path.len()).sum::<usize>() > bytes_max {
            follows = vec!["/".into()];
        }
        self.away.insert(name, Away { follows, confirmed, forget_at: self.now + AWAY_TIME });
    }

    /// A subscriber has applied everything up to there.
    fn confirm(&mut self, id: ConnectionId, name: &SubscriberName, zxid: Zxid) {
        if let Some(subscriber) = self.connected.get_mut(&id).filter(|subscriber| subscriber.name == *name) {
            subscriber.confirmed = subscriber.confirmed.max(zxid);
        }
    }

    /// It has said so to another member, in this session: one process does not connect twice.
    fn confirm_elsewhere(&mut self, name: &SubscriberName, zxid: Zxid, session: SessionId) {
        if let Some(away) = self.away.get_mut(name) {
            away.confirmed = away.confirmed.max(zxid);
        }
        let of_name: Vec<_> = self.of_name(name).map(|(id, _)| id).collect();
        for id in of_name {
            if let Some(subscriber) = self.connected.get_mut(&id).filter(|one| one.session == session) {
                subscriber.confirmed = subscriber.confirmed.max(zxid);
            }
        }
    }

    /// The session in which a subscriber of this name, which is connected, has said so; none if another of this name has not.
    fn has_confirmed(&self, name: &SubscriberName, zxid: Zxid) -> Option<SessionId> {
        let mut last = None;
        for (_, subscriber) in self.of_name(name) {
            if subscriber.confirmed < zxid {
                return None;
            }
            last = Some(subscriber.session);
        }
        last
    }

    /// The connections of this name, in their order.
    fn of_name(&self, name: &SubscriberName) -> impl Iterator<Item = (ConnectionId, &Subscriber)> {
        let all = (name.clone(), ConnectionId(0))..=(name.clone(), ConnectionId(u64::MAX));
        self.by_name.range(all).filter_map(|(_, id)| Some((*id, self.connected.get(id)?)))
    }

    /// How all who follow `path` stand, and who is to be asked.
    fn standing(&mut self, zxid: Zxid, path: &ZnodePath, watches: &Watches) -> Standing {
        let mut standing = Standing::default();
        for (id, is_follower) in watches.watchers(path) {
            let Some(subscriber) = self.connected.get_mut(&id) else {
                standing.others += 1;
                continue;
            };
            if !is_follower {
                continue;
            }
            standing.subscribers += 1;
            if subscriber.confirmed < zxid {
                standing.behind.add(&subscriber.name);
                if subscriber.asked < zxid {
                    subscriber.asked = zxid;
                    standing.to_ask.push((id, subscriber.name.clone()));
                }
            }
        }
        let now = self.now;
        self.away.retain(|_, away| away.forget_at > now);
        for (name, _) in self.away.iter().filter(|(_, away)| away.confirmed < zxid && away.follows(path)) {
            standing.away.add(name);
        }
        standing
    }

    /// Whether all who may be away are known.
    fn is_complete(&self) -> bool {
        self.complete_at.is_some_and(|at| at <= self.now)
    }

    pub(super) fn check_invariants(&self, connections: usize) {
        assert!(self.connected.len() <= connections, "a subscriber has a connection");
        assert_eq!(self.by_name.len(), self.connected.len(), "a subscriber has one name");
        assert!(self.away.len() <= AWAY_MAX, "who is away is bounded");
    }
}

impl Away {
    fn follows(&self, path: &ZnodePath) -> bool {
        self.follows.iter().any(|above| {
            let rest = path.as_str().strip_prefix(&**above);
            &**above == "/" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

impl Replica {
    /// Answers a read of the members' own paths; `None` for any other request.
    pub(super) fn answer_barrier(
        &mut self,
        id: ConnectionId,
        request: &Request,
    ) -> Option<Result<Response, OpError>> {
        let (Request::Exists { path, .. } | Request::GetData { path, .. }) = request else { return None };
        if !is_members_own(path) {
            return None;
        }
        let (path, is_exists) = (BarrierPath::parse(path)?, matches!(request, Request::Exists { .. }));
        let has_applied = |zxid| self.is_serving() && zxid <= self.tree.last_zxid();
        let stat_of = |ephemeral_owner| Response::Stat(Stat { ephemeral_owner, ..Stat::default() });
        match path {
            BarrierPath::Standing(name, zxid) if is_exists && has_applied(zxid) => {
                self.subscribers.confirm(id, &name, zxid);
                Some(self.subscribers.has_confirmed(&name, zxid).map(stat_of).ok_or(OpError::NoNode))
            }
            BarrierPath::Elsewhere(name, zxid, session) if is_exists && has_applied(zxid) => {
                self.subscribers.confirm_elsewhere(&name, zxid, session);
                Some(Ok(stat_of(SessionId::NONE)))
            }
            BarrierPath::Barrier(zxid, path) if !is_exists => {
                let standing = has_applied(zxid).then(|| self.ask_subscribers(zxid, &path));
                let body = self.barrier_body(standing.as_ref());
                Some(Ok(Response::Data(Some(body.into()), Stat::default())))
            }
            BarrierPath::Subscriber(_)
            | BarrierPath::Standing(..)
            | BarrierPath::Elsewhere(..)
            | BarrierPath::Barrier(..) => None,
        }
    }

    fn ask_subscribers(&mut self, zxid: Zxid, path: &ZnodePath) -> Standing {
        let mut standing = self.subscribers.standing(zxid, path, &self.watches);
        for (id, name) in std::mem::take(&mut standing.to_ask) {
            let path = BarrierPath::Subscriber(name).to_string();
            self.notify(id, zxid, &WatchedEvent { kind: EventKind::DataChanged, path });
        }
        standing
    }

    /// How a barrier stands, as JSON. Names need no escapes.
    fn barrier_body(&self, standing: Option<&Standing>) -> String {
        let peer = &self.settings.peer;
        let members = peer.quorum.voters().chain(peer.observers.iter().copied());
        let (is_applied, is_complete) = (standing.is_some(), self.subscribers.is_complete());
        let nobody = Standing::default();
        let Standing { subscribers, behind, away, others, .. } = standing.unwrap_or(&nobody);
        let mut body = format!(
            r#"{{"server":{},"members":[{}],"applied":{is_applied},"complete":{is_complete}"#,
            peer.server_id,
            listed(members, "")
        );
        let _cannot_fail = write!(
            body,
            r#","subscribers":{subscribers},"behind":[{}],"behind_count":{},"away":[{}],"away_count":{},"others":{others}}}"#,
            listed(&behind.names, "\""),
            behind.count,
            listed(&away.names, "\""),
            away.count,
        );
        body
    }

    /// Takes note of who becomes a subscriber, or stops being one, with a request that was carried out.
    pub(super) fn note_subscription(&mut self, id: ConnectionId, request: &Request) {
        let named = |path: &String| match BarrierPath::parse(path)? {
            BarrierPath::Subscriber(name) => Some(name),
            BarrierPath::Standing(..) | BarrierPath::Elsewhere(..) | BarrierPath::Barrier(..) => None,
        };
        let added = match request {
            Request::AddWatch { path, mode: AddWatchMode::Persistent } => Some(path),
            // All that a client watches, in one or more of these; it subscribes once.
            Request::SetWatches2(watches) => watches.persistent.iter().find(|path| is_members_own(path)),
            Request::AddWatch { .. }
            | Request::SetWatches(_)
            | Request::Create(_)
            | Request::Create2(_)
            | Request::Delete { .. }
            | Request::Exists { .. }
            | Request::GetData { .. }
            | Request::SetData { .. }
            | Request::GetAcl { .. }
            | Request::SetAcl { .. }
            | Request::GetChildren { .. }
            | Request::GetChildren2 { .. }
            | Request::Sync { .. }
            | Request::Ping
            | Request::Multi(_)
            | Request::CheckWatches { .. }
            | Request::RemoveWatches { .. }
            | Request::Auth { .. }
            | Request::CloseSession => None,
        };
        if let Some(name) = added.and_then(named) {
            let session = self.connections.get(&id).and_then(Connection::session);
            self.subscribers.opt_in(id, session.unwrap_or_default(), name);
        }
        if let Request::RemoveWatches { path, .. } = request
            && named(path).is_some()
            && !self.watches.has(id, path, WatcherType::Persistent)
        {
            self.subscribers.leave(id);
        }
    }

    /// The member serves clients now, and may have done so in an earlier life.
    pub(super) fn note_service(&mut self) {
        let has_local = self.settings.local_sessions != LocalSessionMode::Off;
        self.subscribers.on_served(has_local || !self.tree.sessions().is_empty());
    }
}

fn listed(items: impl IntoIterator<Item = impl std::fmt::Display>, quote: &str) -> String {
    let items: Vec<_> = items.into_iter().map(|item| format!("{quote}{item}{quote}")).collect();
    items.join(",")
}
