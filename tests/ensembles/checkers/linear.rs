//! C-LIN: writes and reads behind a sync are linearizable, in the order of their zxids; and every read shows the tree
//! at the zxid that its reply names.
//!
//! What ended before another began has a smaller zxid, or the same if the other is a read. Since each reply says its
//! zxid, no search is needed: one pass over the operations by time.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Effect, Model};
use super::{Violation, violation};
use crate::history::{Action, Aspect, Found, Operation, Read, Reply};

/// An operation that was sent later than another had ended has the smaller zxid.
const ORDER: &str = "C-LIN order";
/// A read behind a sync shows a state older than a write that was acknowledged before.
pub(crate) const STALE_SYNC_READ: &str = "C-LIN stale-sync-read";
/// A reply shows another state than the one at the zxid that it names.
const STATE: &str = "C-LIN state";
const UNIQUE: &str = "C-LIN one-txn-a-zxid";

const NO_NODE: i32 = -101;

pub(super) fn check(model: &Model<'_>) -> Vec<Violation> {
    let children = Children::new(model);
    let mut violations = check_order(model);
    violations.extend(check_unique(model));
    for operation in &model.operations {
        let (Action::Read(read), Some(reply)) = (&operation.action, &operation.reply) else { continue };
        let wrong = match read.aspect {
            Aspect::Data | Aspect::Exists => check_node(model, operation, read, reply),
            Aspect::Children => children.check(model, operation, read, reply),
            Aspect::Acl => None,
        };
        violations.extend(wrong);
    }
    violations
}

/// An operation that counts: from when to when, and where it stands.
struct Point<'a> {
    operation: &'a Operation,
    started: u64,
    ended: u64,
    zxid: i64,
    is_write: bool,
}

fn check_order(model: &Model<'_>) -> Vec<Violation> {
    let mut points: Vec<Point<'_>> =
        model.operations.iter().filter_map(|operation| point(model, operation)).collect();
    let mut by_end: Vec<(u64, i64, usize)> =
        points.iter().enumerate().map(|(index, point)| (point.ended, point.zxid, index)).collect();
    by_end.sort_unstable();
    let finished: Vec<&Operation> = points.iter().map(|point| point.operation).collect();
    points.sort_by_key(|point| point.started);

    let mut violations = Vec::new();
    let mut ended = by_end.into_iter().peekable();
    let mut newest: Option<(i64, usize)> = None;
    for point in &points {
        while let Some((_, zxid, index)) = ended.next_if(|(end, ..)| *end < point.started) {
            newest = newest.max(Some((zxid, index)));
        }
        let Some((before, index)) = newest else { continue };
        let is_late = if point.is_write { point.zxid <= before } else { point.zxid < before };
        if is_late {
            let is_read = matches!(point.operation.action, Action::Read(_));
            let rule = if is_read { STALE_SYNC_READ } else { ORDER };
            let earlier = describe(finished[index]);
            let later = describe(point.operation);
            let text =
                format!("{later} has {:#x}, but {earlier} with {before:#x} had ended before", point.zxid);
            violations.push(Violation { rule, text, epoch: Some(point.zxid >> 32) });
        }
    }
    violations
}

fn point<'a>(model: &Model<'_>, operation: &'a Operation) -> Option<Point<'a>> {
    let reply = operation.reply.as_ref()?;
    let (started, is_write) = match &operation.action {
        Action::Change(_) | Action::Multi(_) | Action::Permit { .. } => (operation.started, reply.error == 0),
        Action::Close if reply.error == 0 && is_close_a_txn(model) => (operation.started, true),
        Action::Read(read) => (read.synced?, false),
        Action::Close | Action::Sync | Action::WatchBelow(_) | Action::SetWatches { .. } | Action::Ping => {
            return None;
        }
    };
    Some(Point { operation, started, ended: reply.ended, zxid: reply.zxid, is_write })
}

/// A local session ends without a txn, and which ones were upgraded is not told.
fn is_close_a_txn(model: &Model<'_>) -> bool {
    model.setup.is_none_or(|setup| !setup.has_local_sessions)
}

fn check_unique(model: &Model<'_>) -> Vec<Violation> {
    let mut owners: BTreeMap<i64, &Operation> = BTreeMap::new();
    let mut violations = Vec::new();
    for operation in model.operations.iter().filter(|operation| operation.action.is_write()) {
        if operation.action == Action::Close && !is_close_a_txn(model) {
            continue;
        }
        let Some(reply) = operation.success() else { continue };
        if let Some(other) = owners.insert(reply.zxid, operation) {
            let (one, two) = (describe(other), describe(operation));
            violations.push(violation(UNIQUE, format!("{one} and {two} both have {:#x}", reply.zxid)));
        }
    }
    violations
}

/// What a read says of one znode, against the newest change by its zxid.
fn check_node(model: &Model<'_>, operation: &Operation, read: &Read, reply: &Reply) -> Option<Violation> {
    let stat = match &reply.found {
        Found::Data(_, stat) | Found::Stat(stat) => Some(stat),
        Found::Nothing if reply.error == NO_NODE => None,
        Found::Nothing | Found::Children(..) | Found::Acl(..) | Found::Results(_) => return None,
    };
    let claim = format!("{} of {} at {:#x}", describe(operation), read.path, reply.zxid);
    if let Some(stat) = stat.filter(|stat| stat.mzxid > reply.zxid) {
        return Some(violation(STATE, format!("{claim} shows what {:#x} wrote", stat.mzxid)));
    }
    let newest = model.newest(&read.path, reply.zxid)?;
    let zxid = newest.zxid?;
    let is_right = match (newest.effect, stat) {
        (Effect::Deleted, None) => true,
        // It was created again by somebody who was not answered.
        (Effect::Deleted, Some(stat)) => stat.czxid > zxid,
        (Effect::Created | Effect::Set, None) => model.may_be_deleted(&read.path),
        (Effect::Created | Effect::Set, Some(stat)) => {
            if let Found::Data(value, _) = &reply.found {
                stat.mzxid == zxid && value.as_deref() == newest.value
            } else {
                // A write that was not answered may show as a newer stat alone.
                stat.mzxid >= zxid
            }
        }
    };
    let found = stat.map(|stat| format!("{:#x}", stat.mzxid));
    (!is_right).then(|| {
        let expected = format!("{:?} at {zxid:#x} by {}", newest.effect, newest.author());
        violation(STATE, format!("{claim} shows {found:?}, not {expected}"))
    })
}

/// Which paths lie below which.
struct Children<'a> {
    of: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Children<'a> {
    fn new(model: &Model<'a>) -> Self {
        let mut of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for path in model.paths.keys() {
            if let Some((parent, name)) = path.rsplit_once('/') {
                of.entry(parent).or_default().insert(name);
            }
        }
        Self { of }
    }

    /// What a read says of the children of a znode.
    fn check(
        &self,
        model: &Model<'_>,
        operation: &Operation,
        read: &Read,
        reply: &Reply,
    ) -> Option<Violation> {
        let Found::Children(names, _) = &reply.found else { return None };
        let claim = format!("{} of the children of {} at {:#x}", describe(operation), read.path, reply.zxid);
        for name in self.of.get(read.path.as_str())? {
            let path = format!("{}/{name}", read.path);
            let Some(newest) = model.newest(&path, reply.zxid) else { continue };
            let is_listed = names.contains(*name);
            let is_right = match newest.effect {
                Effect::Created | Effect::Set => is_listed || model.may_be_deleted(&path),
                Effect::Deleted => {
                    !is_listed || model.possible(&path).any(|change| change.effect == Effect::Created)
                }
            };
            if !is_right {
                let zxid = newest.zxid.unwrap_or_default();
                let text = format!(
                    "{claim}: {name}, though {:?} at {zxid:#x}, is listed: {is_listed}",
                    newest.effect
                );
                return Some(violation(STATE, text));
            }
        }
        None
    }
}

fn describe(operation: &Operation) -> String {
    format!("request {} of {} to {}", operation.request, operation.client, operation.server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{Sample, rules};

    #[test]
    fn operations_in_the_order_of_their_zxids_are_fine() {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/x", "1", 5);
        sample.read(b, "/x", 5, Some(("1", 5)));
        sample.set(a, "/x", "2", 6, 1);
        sample.read(b, "/x", 6, Some(("2", 6)));
        sample.children(b, "", 6, &["x"]);
        assert_eq!(rules(sample), [""; 0]);
    }

    #[test]
    fn a_stale_read_behind_a_sync_is_found() {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/x", "1", 5);
        sample.set(a, "/x", "2", 6, 1);
        sample.read(b, "/x", 5, Some(("1", 5)));
        assert_eq!(rules(sample), [STALE_SYNC_READ]);
    }

    #[test]
    fn a_read_that_began_before_the_write_ended_may_show_either() {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/x", "1", 5);
        sample.send_early();
        let mut early = sample;
        early.set(a, "/x", "2", 6, 1);
        early.read(b, "/x", 6, Some(("2", 6)));
        assert_eq!(rules(early), [""; 0]);

        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/x", "1", 5);
        sample.send_early();
        sample.read(b, "/x", 5, Some(("1", 5)));
        sample.set(a, "/x", "2", 6, 1);
        assert_eq!(rules(sample), [""; 0]);
    }

    #[test]
    fn a_write_with_an_older_zxid_than_one_that_ended_before_is_found() {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/x", "1", 6);
        sample.create(b, "/y", "2", 5);
        assert_eq!(rules(sample), [ORDER]);
    }

    #[test]
    fn two_writes_with_one_zxid_are_found() {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/x", "1", 5);
        sample.create(b, "/y", "2", 5);
        assert_eq!(rules(sample), [UNIQUE, ORDER]);
    }

    #[test]
    fn an_unanswered_write_may_show_late_but_not_go_again() {
        let lost = |sample: &mut Sample, client| {
            let change = crate::history::Change::Set { path: "/x".into(), value: "2".into(), version: -1 };
            sample.lost(client, Action::Change(change));
        };
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create(a, "/x", "1", 5);
        lost(&mut sample, a);
        sample.read(b, "/x", 6, Some(("1", 5)));
        sample.read(b, "/x", 7, Some(("2", 7)));
        assert_eq!(rules(sample), [""; 0]);

        let mut sample = Sample::new();
        let (a, b, c) = (sample.client("a"), sample.client("b"), sample.client("c"));
        sample.create(a, "/x", "1", 5);
        lost(&mut sample, a);
        sample.read(b, "/x", 7, Some(("2", 7)));
        sample.read(c, "/x", 8, Some(("1", 5)));
        assert_eq!(rules(sample), [STATE]);
    }

    #[test]
    fn a_read_older_or_newer_than_the_zxid_it_names_is_found() {
        for (zxid, found) in [(6, Some(("1", 5))), (5, Some(("2", 6))), (6, None)] {
            let mut sample = Sample::new();
            let (a, b) = (sample.client("a"), sample.client("b"));
            sample.create(a, "/x", "1", 5);
            sample.set(a, "/x", "2", 6, 1);
            sample.read_and_watch(b, "/x", zxid, found);
            assert_eq!(rules(sample), [STATE], "{found:?} at {zxid}");
        }
    }

    #[test]
    fn a_list_without_a_child_or_with_a_deleted_one_is_found() {
        for names in [&["y"][..], &["x", "y", "z"]] {
            let mut sample = Sample::new();
            let a = sample.client("a");
            for (zxid, path) in [(5, "/p/x"), (6, "/p/y"), (7, "/p/z")] {
                sample.create(a, path, path, zxid);
            }
            sample.delete(a, "/p/z", 8);
            sample.children(a, "/p", 8, names);
            assert_eq!(rules(sample), [STATE]);
        }
    }
}
