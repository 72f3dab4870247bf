//! C-WATCH for persistent recursive watches: on one connection every change below the path comes exactly once, in the
//! order of the changes, and before any reply from which it could be known.

use std::collections::BTreeMap;

use super::model::{Effect, Model};
use super::timeline::{Received, timelines};
use super::{Violation, violation};
use crate::history::{Action, Event, EventKind};

const MISSED: &str = "C-WATCH missed-below";
/// How far ahead the event for a later change is looked for.
const JUMP_MAX: usize = 1_000;
const EXTRA: &str = "C-WATCH extra-or-out-of-order-below";

pub(super) fn check(model: &Model<'_>) -> Vec<Violation> {
    let changes = Changes::new(model);
    timelines(model).values().flat_map(|received| check_session(&changes, received)).collect()
}

/// What there is to tell of, in order, and what there may be.
struct Changes<'a> {
    known: Vec<(i64, EventKind, &'a str)>,
    possible: BTreeMap<(EventKind, &'a str), usize>,
}

impl<'a> Changes<'a> {
    fn new(model: &Model<'a>) -> Self {
        let mut changes = Self { known: Vec::new(), possible: BTreeMap::new() };
        for (path, all) in &model.paths {
            for change in all {
                let kind = match change.effect {
                    Effect::Created => EventKind::Created,
                    Effect::Set => EventKind::DataChanged,
                    Effect::Deleted => EventKind::Deleted,
                };
                match change.zxid {
                    Some(zxid) => changes.known.push((zxid, kind, path)),
                    None => *changes.possible.entry((kind, path)).or_default() += 1,
                }
            }
        }
        changes.known.sort_unstable();
        changes
    }
}

/// A recursive watch on one connection.
struct Watch<'a> {
    root: &'a str,
    connection: u32,
    /// What it must tell of next, by place in the known changes.
    next: usize,
    /// Parts of the txn at `next` that were told already: those of one txn come in any order.
    told: Vec<usize>,
    possible: BTreeMap<(EventKind, &'a str), usize>,
}

fn check_session<'a>(changes: &Changes<'a>, received: &[Received<'a>]) -> Vec<Violation> {
    let mut watch: Option<Watch<'a>> = None;
    let mut violations = Vec::new();
    for item in received {
        match *item {
            Received::Event(event) => {
                if let Some(watch) = watch.as_mut().filter(|watch| watch.connection == event.connection) {
                    violations.extend(watch.on_event(changes, event));
                }
            }
            Received::Reply(operation, reply) => {
                if let Some(watch) = watch.as_mut().filter(|watch| watch.connection == operation.connection) {
                    violations.extend(watch.on_zxid(changes, reply.zxid, &operation.client));
                }
                let root = match &operation.action {
                    Action::WatchBelow(root) => Some(root),
                    Action::SetWatches { below } => below.first(),
                    Action::Change(_) | Action::Multi(_) | Action::Permit { .. } | Action::Sync => None,
                    Action::Read(_) | Action::Ping | Action::Close => None,
                };
                if let Some(root) = root.filter(|_root| reply.error == 0) {
                    watch = Some(Watch {
                        root,
                        connection: operation.connection,
                        next: changes.known.partition_point(|(zxid, ..)| *zxid <= reply.zxid),
                        told: Vec::new(),
                        possible: changes.possible.clone(),
                    });
                }
            }
        }
    }
    violations
}

impl<'a> Watch<'a> {
    fn on_event(&mut self, changes: &Changes<'a>, event: &'a Event) -> Option<Violation> {
        self.skip(changes);
        let Some(&(zxid, ..)) = changes.known.get(self.next) else { return self.take_possible(event) };
        let same_txn = changes.known[self.next..].iter().take_while(|(other, ..)| *other == zxid);
        let found = same_txn.enumerate().map(|(step, change)| (self.next + step, change)).find(
            |(place, (_, kind, path))| {
                *kind == event.kind && *path == event.path && !self.told.contains(place)
            },
        );
        match found {
            Some((place, _)) => {
                self.told.push(place);
                None
            }
            None => self.take_possible(event).and_then(|extra| self.jump(changes, event).or(Some(extra))),
        }
    }

    /// Goes on behind a later change that an event tells of: what is before it was missed.
    fn jump(&mut self, changes: &Changes<'a>, event: &Event) -> Option<Violation> {
        let later = changes.known[self.next..].iter();
        let step =
            later.take(JUMP_MAX).position(|(_, kind, path)| *kind == event.kind && *path == event.path)?;
        let &(zxid, kind, path) = &changes.known[self.next];
        self.next += step;
        self.told = vec![self.next];
        let text = format!(
            "{}, watching below {:?}, is told of {:?} {} before {kind:?} {path} at {zxid:#x}",
            event.client, self.root, event.kind, event.path
        );
        Some(violation(MISSED, text))
    }

    /// A reply knows of everything up to `newest`: so must the watch.
    fn on_zxid(&mut self, changes: &Changes<'a>, newest: i64, client: &str) -> Option<Violation> {
        self.skip(changes);
        let &(zxid, kind, path) = changes.known.get(self.next).filter(|(zxid, ..)| *zxid <= newest)?;
        let root = self.root;
        let text = format!(
            "{client}, watching below {root:?}, knows of {newest:#x}, but not of {kind:?} {path} at {zxid:#x}"
        );
        self.next = changes.known.partition_point(|(zxid, ..)| *zxid <= newest);
        Some(violation(MISSED, text))
    }

    /// Goes on to the next change that has to be told.
    fn skip(&mut self, changes: &Changes<'a>) {
        while let Some((_, _, path)) = changes.known.get(self.next) {
            let is_told = self.told.contains(&self.next);
            if is_told || !is_below(path, self.root) {
                self.told.retain(|place| *place != self.next);
                self.next += 1;
            } else {
                break;
            }
        }
    }

    fn take_possible(&mut self, event: &'a Event) -> Option<Violation> {
        match self.possible.get_mut(&(event.kind, event.path.as_str())) {
            Some(left) if *left > 0 => {
                *left -= 1;
                None
            }
            Some(_) | None => {
                let text = format!("{:?} of {} for {}", event.kind, event.path, event.client);
                Some(violation(EXTRA, text))
            }
        }
    }
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{Sample, rules};
    use crate::history::{Change, Found};

    fn watched() -> (Sample, usize, usize) {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/p/old", "1", 5);
        sample.replied(b, Action::WatchBelow("/p".to_owned()), 5, 0, Found::Nothing);
        sample.create(a, "/p/x", "2", 6);
        sample.create(a, "/q", "3", 7);
        sample.set(a, "/p/x", "4", 8, 1);
        (sample, a, b)
    }

    #[test]
    fn every_change_in_order_is_fine() {
        let (mut sample, _, b) = watched();
        sample.event(b, EventKind::Created, "/p/x");
        sample.event(b, EventKind::DataChanged, "/p/x");
        sample.ping(b, 8);
        assert_eq!(rules(sample), [""; 0]);
    }

    #[test]
    fn a_missed_change_is_found() {
        let (mut sample, _, b) = watched();
        sample.event(b, EventKind::Created, "/p/x");
        sample.ping(b, 8);
        assert_eq!(rules(sample), [MISSED]);
    }

    #[test]
    fn a_change_told_twice_is_found() {
        let (mut sample, _, b) = watched();
        for _time in 0..2 {
            sample.event(b, EventKind::Created, "/p/x");
        }
        sample.event(b, EventKind::DataChanged, "/p/x");
        sample.ping(b, 8);
        assert_eq!(rules(sample), [EXTRA]);
    }

    #[test]
    fn changes_told_in_another_order_are_found() {
        let (mut sample, _, b) = watched();
        sample.event(b, EventKind::DataChanged, "/p/x");
        sample.event(b, EventKind::Created, "/p/x");
        assert_eq!(rules(sample), [EXTRA, MISSED]);
    }

    #[test]
    fn an_unanswered_change_may_be_told_or_not() {
        for is_told in [true, false] {
            let (mut sample, a, b) = watched();
            sample.lost(a, Action::Change(Change::Delete { path: "/p/old".to_owned() }));
            sample.event(b, EventKind::Created, "/p/x");
            if is_told {
                sample.event(b, EventKind::Deleted, "/p/old");
            }
            sample.event(b, EventKind::DataChanged, "/p/x");
            sample.ping(b, 8);
            assert_eq!(rules(sample), [""; 0]);
        }
    }
}
