//! C-WATCH: a one-shot watch fires exactly once, for the first matching change after it was left, and before any reply
//! from which the change could be known; a reconnect loses none.
//!
//! As in ZooKeeper, one exception: a watch for a znode's creation may miss one that was created and deleted while the
//! client was away.

use std::collections::BTreeMap;

use super::model::{Effect, Model, PathChange};
use super::timeline::{Received, timelines};
use super::{Violation, violation};
use crate::history::{Action, Aspect, Event, EventKind, Found, Operation, Read, Reply};

const MISSED: &str = "C-WATCH not-fired-before-the-change-shows";
const TWICE: &str = "C-WATCH fired-without-being-left";
const UNFOUNDED: &str = "C-WATCH fired-without-a-change";

const NO_NODE: i32 = -101;

/// What a one-shot watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Data,
    Exist,
    Child,
}

/// A watch that was left and has not fired.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// The state that it was left on.
    zxid: i64,
    connection: u32,
}

pub(super) fn check(model: &Model<'_>) -> Vec<Violation> {
    let parents = Parents::new(model);
    timelines(model).values().flat_map(|received| check_session(&parents, received)).collect()
}

fn check_session(parents: &Parents<'_, '_>, received: &[Received<'_>]) -> Vec<Violation> {
    let has_watches_below = received.iter().any(
        |item| matches!(item, Received::Reply(operation, _) if matches!(operation.action, Action::WatchBelow(_))),
    );
    if has_watches_below {
        return Vec::new();
    }
    let mut left: BTreeMap<(&str, Kind), Left> = BTreeMap::new();
    let mut violations = Vec::new();
    for item in received {
        match *item {
            Received::Event(event) => violations.extend(fire(parents, &mut left, event)),
            Received::Reply(operation, reply) => {
                violations.extend(overdue(parents, &mut left, operation, reply));
                let Action::Read(read) = &operation.action else { continue };
                if let Some(kind) = kind(read, reply) {
                    let watch = Left { zxid: reply.zxid, connection: operation.connection };
                    left.entry((&read.path, kind)).or_insert(watch);
                }
            }
        }
    }
    violations
}

/// The watches that should have fired before a reply that knows of so new a state.
fn overdue(
    parents: &Parents<'_, '_>,
    left: &mut BTreeMap<(&str, Kind), Left>,
    operation: &Operation,
    reply: &Reply,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    left.retain(|(path, kind), watch| {
        let Some(due) = parents.due(path, *kind, watch.zxid).filter(|due| *due <= reply.zxid) else { return true };
        let was_away = watch.connection != operation.connection;
        if was_away && *kind == Kind::Exist && parents.may_be_gone_again(path, due) {
            watch.zxid = reply.zxid;
            return true;
        }
        let text = format!(
            "{kind:?} watch of {} on {path}, left at {:#x}: the change at {due:#x} came with no event before request {} \
             was answered by {} at {:#x}",
            operation.client, watch.zxid, operation.request, operation.server, reply.zxid
        );
        violations.push(violation(MISSED, text));
        false
    });
    violations
}

fn fire<'a>(
    parents: &Parents<'_, '_>,
    left: &mut BTreeMap<(&'a str, Kind), Left>,
    event: &'a Event,
) -> Option<Violation> {
    let kinds: &[Kind] = match event.kind {
        EventKind::Created | EventKind::DataChanged => &[Kind::Data, Kind::Exist],
        EventKind::Deleted => &[Kind::Data, Kind::Exist, Kind::Child],
        EventKind::ChildrenChanged => &[Kind::Child],
    };
    let fired: Vec<(Kind, Left)> =
        kinds.iter().filter_map(|kind| Some((*kind, left.remove(&(event.path.as_str(), *kind))?))).collect();
    let claim = format!("{:?} of {} for {}", event.kind, event.path, event.client);
    if fired.is_empty() {
        return Some(violation(TWICE, format!("{claim}: no such watch was left, or it had fired")));
    }
    let is_founded = fired.iter().any(|(kind, watch)| {
        parents.due(&event.path, *kind, watch.zxid).is_some() || parents.is_possible(&event.path, *kind)
    });
    (!is_founded).then(|| violation(UNFOUNDED, format!("{claim}: left at {:#x}", fired[0].1.zxid)))
}

/// The watch that a read leaves; a read of nothing leaves one only if it asked whether the znode exists.
fn kind(read: &Read, reply: &Reply) -> Option<Kind> {
    if !read.watch {
        return None;
    }
    match (&reply.found, read.aspect) {
        (Found::Children(..), _) => Some(Kind::Child),
        (Found::Data(..) | Found::Stat(_), _) => Some(Kind::Data),
        (_, Aspect::Exists) if reply.error == NO_NODE => Some(Kind::Exist),
        _ => None,
    }
}

/// The changes of each path and, for child watches, of what lies directly below.
struct Parents<'a, 'm> {
    model: &'m Model<'a>,
    /// By parent, the zxids at which a child is known to have come or gone, in order.
    known: BTreeMap<&'a str, Vec<i64>>,
    /// Parents with a child that may have come or gone.
    possible: std::collections::BTreeSet<&'a str>,
}

impl<'a, 'm> Parents<'a, 'm> {
    fn new(model: &'m Model<'a>) -> Self {
        let mut parents = Self { model, known: BTreeMap::new(), possible: std::collections::BTreeSet::new() };
        for (path, changes) in &model.paths {
            let Some((parent, _)) = path.rsplit_once('/') else { continue };
            for change in changes.iter().filter(|change| change.effect != Effect::Set) {
                match change.zxid {
                    Some(zxid) => parents.known.entry(parent).or_default().push(zxid),
                    None => _ = parents.possible.insert(parent),
                }
            }
        }
        parents.known.values_mut().for_each(|zxids| zxids.sort_unstable());
        parents
    }

    /// The first known change after `zxid` that makes such a watch fire.
    fn due(&self, path: &str, kind: Kind, zxid: i64) -> Option<i64> {
        let own = self.model.done(path).filter(|change| is_match(change, kind));
        let own = own.filter_map(|change| change.zxid).find(|done| *done > zxid);
        if kind != Kind::Child {
            return own;
        }
        let below = self.known.get(path).and_then(|zxids| zxids.iter().copied().find(|done| *done > zxid));
        [own, below].into_iter().flatten().min()
    }

    fn is_possible(&self, path: &str, kind: Kind) -> bool {
        let own = self.model.possible(path).any(|change| is_match(change, kind));
        own || (kind == Kind::Child && self.possible.contains(path))
    }

    fn may_be_gone_again(&self, path: &str, created: i64) -> bool {
        let is_later = |change: &PathChange<'_>| change.zxid.is_none_or(|zxid| zxid > created);
        let mut all = self.model.done(path).chain(self.model.possible(path));
        all.any(|change| change.effect == Effect::Deleted && is_later(change))
    }
}

fn is_match(change: &PathChange<'_>, kind: Kind) -> bool {
    match kind {
        Kind::Data => change.effect != Effect::Created,
        Kind::Exist => true,
        Kind::Child => change.effect == Effect::Deleted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{Sample, rules};

    fn watched() -> (Sample, usize, usize) {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/x", "1", 5);
        sample.read_and_watch(b, "/x", 5, Some(("1", 5)));
        (sample, a, b)
    }

    #[test]
    fn a_watch_that_fires_once_before_the_news_is_fine() {
        let (mut sample, a, b) = watched();
        sample.set(a, "/x", "2", 6, 1);
        sample.event(b, EventKind::DataChanged, "/x");
        sample.read(b, "/x", 6, Some(("2", 6)));
        sample.set(a, "/x", "3", 7, 2);
        sample.ping(b, 7);
        assert_eq!(rules(sample), [""; 0]);
    }

    #[test]
    fn a_watch_that_does_not_fire_is_found() {
        let (mut sample, a, b) = watched();
        sample.set(a, "/x", "2", 6, 1);
        sample.ping(b, 6);
        assert_eq!(rules(sample), [MISSED]);
    }

    #[test]
    fn a_watch_that_fires_after_the_news_is_found() {
        let (mut sample, a, b) = watched();
        sample.set(a, "/x", "2", 6, 1);
        sample.read(b, "/x", 6, Some(("2", 6)));
        sample.event(b, EventKind::DataChanged, "/x");
        assert!(rules(sample).contains(&MISSED));
    }

    #[test]
    fn a_watch_that_fires_twice_is_found() {
        let (mut sample, a, b) = watched();
        sample.set(a, "/x", "2", 6, 1);
        sample.event(b, EventKind::DataChanged, "/x");
        sample.event(b, EventKind::DataChanged, "/x");
        assert_eq!(rules(sample), [TWICE]);
    }

    #[test]
    fn a_watch_that_fires_for_nothing_is_found() {
        let (mut sample, _, b) = watched();
        sample.event(b, EventKind::DataChanged, "/x");
        assert_eq!(rules(sample), [UNFOUNDED]);
    }

    #[test]
    fn a_watch_that_a_reconnect_loses_is_found() {
        let (mut sample, a, b) = watched();
        sample.connect(b);
        sample.replied(b, Action::SetWatches { below: Vec::new() }, 5, 0, Found::Nothing);
        sample.set(a, "/x", "2", 6, 1);
        sample.ping(b, 6);
        assert_eq!(rules(sample), [MISSED]);
    }

    #[test]
    fn a_child_watch_fires_for_the_first_child() {
        for is_told in [true, false] {
            let mut sample = Sample::new();
            let (a, b) = (sample.client("a"), sample.client("b"));
            sample.create(a, "/p/x", "1", 5);
            let read = Read { path: "/p".to_owned(), aspect: Aspect::Children, watch: true, synced: None };
            let names = ["x".to_owned()].into();
            sample.replied(b, Action::Read(read), 5, 0, Found::Children(names, Default::default()));
            sample.create(a, "/p/y", "2", 6);
            if is_told {
                sample.event(b, EventKind::ChildrenChanged, "/p");
            }
            sample.ping(b, 6);
            let expected: &[&str] = if is_told { &[] } else { &[MISSED] };
            assert_eq!(rules(sample), expected);
        }
    }

    #[test]
    fn an_exist_watch_may_miss_what_came_and_went_while_its_client_was_away() {
        for is_away in [true, false] {
            let mut sample = Sample::new();
            let (a, b) = (sample.client("a"), sample.client("b"));
            sample.ping(b, 4);
            sample.read_and_watch(b, "/x", 4, None);
            sample.create(a, "/x", "1", 5);
            sample.delete(a, "/x", 6);
            if is_away {
                sample.connect(b);
            }
            sample.ping(b, 6);
            let expected: &[&str] = if is_away { &[] } else { &[MISSED] };
            assert_eq!(rules(sample), expected);
        }
    }
}
