//! C-ACK: no acknowledged write is missing or half-applied; one without an answer was carried out wholly or not at all,
//! and at most once.

use std::collections::BTreeMap;

use super::model::{Effect, Model, PathChange};
use super::{Violation, violation};
use crate::history::{Action, Dump, Found, Node, Reply};

const LOST: &str = "C-ACK lost";
const HALF_APPLIED: &str = "C-ACK half-applied";
const MADE_UP: &str = "C-ACK made-up";
const TWICE: &str = "C-ACK twice";

pub(super) fn check(model: &Model<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for dump in &model.dumps {
        let nodes: BTreeMap<&str, &Node> = dump.nodes.iter().map(|node| (node.path.as_str(), node)).collect();
        for path in model.paths.keys() {
            violations.extend(check_path(model, dump, path, nodes.get(path).copied()));
        }
        violations.extend(check_values(model, dump));
        violations.extend(dump.nodes.iter().filter_map(|node| check_acl(model, dump, node)));
    }
    for path in model.paths.keys() {
        violations.extend(check_versions(model, path));
    }
    violations
}

/// What a dump shows of a path is what the newest change that is known left there.
fn check_path(model: &Model<'_>, dump: &Dump, path: &str, node: Option<&Node>) -> Option<Violation> {
    let newest = model.newest(path, dump.zxid)?;
    let zxid = newest.zxid?;
    let rule = if newest.is_part() { HALF_APPLIED } else { LOST };
    let claim = format!("{path} on {}: {:?} at {zxid:#x} by {}", dump.server, newest.effect, newest.author());
    match (newest.effect, node) {
        (Effect::Deleted, None) => None,
        (Effect::Deleted, Some(node)) => {
            Some(violation(rule, format!("{claim}, but it is there, from {:#x}", node.stat.mzxid)))
        }
        (Effect::Created | Effect::Set, None) => {
            (!model.may_be_deleted(path)).then(|| violation(rule, format!("{claim}, but it is not there")))
        }
        (Effect::Created | Effect::Set, Some(node)) => {
            let is_it = node.stat.mzxid == zxid && node.value.as_deref() == newest.value;
            (!is_it).then(|| {
                let found = format!("{:?} from {:#x}", node.value, node.stat.mzxid);
                violation(rule, format!("{claim} left {:?}, but it holds {found}", newest.value))
            })
        }
    }
}

/// Nothing is there that nobody wrote, or whose write was refused.
fn check_values(model: &Model<'_>, dump: &Dump) -> Vec<Violation> {
    let is_written = |node: &Node| {
        model.paths.get(node.path.as_str()).is_none_or(|changes| {
            changes.iter().any(|change| change.value.is_some() && change.value == node.value.as_deref())
        })
    };
    let made_up = dump.nodes.iter().filter(|node| !is_written(node));
    made_up
        .map(|node| {
            let (server, path, value) = (&dump.server, &node.path, &node.value);
            violation(MADE_UP, format!("{path} on {server} holds {value:?}, which nobody wrote there"))
        })
        .collect()
}

/// A znode has the ACL that was acknowledged last, or one of a later version that an unanswered request may have given it.
fn check_acl(model: &Model<'_>, dump: &Dump, node: &Node) -> Option<Violation> {
    let permits = model.operations.iter().filter_map(|operation| {
        let Action::Permit { path, permissions } = &operation.action else { return None };
        (*path == node.path).then_some((operation, *permissions))
    });
    let (mut unanswered, mut newest) = (0, None);
    for (operation, permissions) in permits {
        match &operation.reply {
            None => unanswered += 1,
            Some(Reply { error: 0, zxid, found: Found::Stat(stat), .. })
                if *zxid <= dump.zxid && *zxid > node.stat.czxid =>
            {
                newest = newest.max(Some((stat.aversion, permissions)));
            }
            Some(_) => {}
        }
    }
    let (version, permissions) = newest?;
    let is_it = match node.stat.aversion - version {
        0 => node.acl == format!("world:anyone:{permissions}"),
        later => (1..=unanswered).contains(&later),
    };
    let (server, path, found) = (&dump.server, &node.path, node.stat.aversion);
    let text =
        format!("{path} on {server} has {} of version {found}, not {permissions} of {version}", node.acl);
    (!is_it).then(|| violation(LOST, text))
}

/// Between two acknowledged versions of a znode there are no more than the unanswered writes can account for.
fn check_versions(model: &Model<'_>, path: &str) -> Vec<Violation> {
    let unanswered = model.paths[path]
        .iter()
        .filter(|change| change.effect == Effect::Set && (change.zxid.is_none() || !change.is_acknowledged));
    let mut left = unanswered.count();
    let mut violations = Vec::new();
    let mut last: Option<&PathChange<'_>> = None;
    for change in model.done(path) {
        match change.effect {
            Effect::Deleted => last = None,
            Effect::Created => last = change.is_acknowledged.then_some(change),
            Effect::Set if change.version.is_none() => {}
            Effect::Set => {
                if let (Some(before), Some(version)) = (last, change.version) {
                    let known = before.version.unwrap_or(0);
                    let skipped = i64::from(version) - i64::from(known) - 1;
                    match usize::try_from(skipped) {
                        Ok(skipped) if skipped <= left => left -= skipped,
                        Ok(_) | Err(_) => violations.push(violation(
                            TWICE,
                            format!(
                                "{path} went from version {known} to {version} with {left} unanswered writes"
                            ),
                        )),
                    }
                }
                last = Some(change);
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{Sample, rules};
    use crate::history::{Change, NodeStat, Record};

    fn pair(value: &str) -> Action {
        let set = |path: &str| Change::Set { path: path.to_owned(), value: value.to_owned(), version: -1 };
        Action::Multi(vec![set("/l"), set("/r")])
    }

    #[test]
    fn what_was_acknowledged_and_is_there_is_fine() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create(a, "/x", "1", 5);
        sample.set(a, "/x", "2", 6, 1);
        sample.create(a, "/y", "3", 7);
        sample.delete(a, "/y", 8);
        sample.dump(8, &[("/x", "2", 6)]);
        assert_eq!(rules(sample), [""; 0]);
    }

    #[test]
    fn a_lost_acknowledgement_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create(a, "/x", "1", 5);
        sample.set(a, "/x", "2", 6, 1);
        sample.dump(7, &[("/x", "1", 5)]);
        assert_eq!(rules(sample), [LOST]);
    }

    #[test]
    fn a_created_znode_that_is_gone_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create(a, "/x", "1", 5);
        sample.dump(7, &[]);
        assert_eq!(rules(sample), [LOST]);
    }

    #[test]
    fn a_deleted_znode_that_is_back_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create(a, "/x", "1", 5);
        sample.delete(a, "/x", 6);
        sample.dump(7, &[("/x", "1", 5)]);
        assert_eq!(rules(sample), [LOST]);
    }

    #[test]
    fn an_unanswered_write_may_be_there_or_not() {
        for found in [("/x", "1", 5), ("/x", "2", 6)] {
            let mut sample = Sample::new();
            let a = sample.client("a");
            sample.create(a, "/x", "1", 5);
            sample.lost(
                a,
                Action::Change(Change::Set { path: "/x".to_owned(), value: "2".to_owned(), version: -1 }),
            );
            sample.dump(7, &[found]);
            assert_eq!(rules(sample), [""; 0]);
        }
    }

    #[test]
    fn an_unanswered_multi_that_is_half_there_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create(a, "/l", "1", 5);
        sample.create(a, "/r", "2", 6);
        sample.lost(a, pair("3"));
        sample.dump(8, &[("/l", "3", 7), ("/r", "2", 6)]);
        assert_eq!(rules(sample), [HALF_APPLIED]);
    }

    #[test]
    fn a_multi_that_is_wholly_there_or_not_at_all_is_fine() {
        for (left, right) in [(("/l", "1", 5), ("/r", "2", 6)), (("/l", "3", 7), ("/r", "3", 7))] {
            let mut sample = Sample::new();
            let a = sample.client("a");
            sample.create(a, "/l", "1", 5);
            sample.create(a, "/r", "2", 6);
            sample.lost(a, pair("3"));
            sample.dump(8, &[left, right]);
            assert_eq!(rules(sample), [""; 0]);
        }
    }

    #[test]
    fn a_refused_write_that_is_there_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create(a, "/x", "1", 5);
        sample.refused(a, Change::Set { path: "/x".to_owned(), value: "2".to_owned(), version: 9 }, 6, -103);
        sample.dump(7, &[("/x", "2", 6)]);
        assert!(rules(sample).contains(&MADE_UP));
    }

    #[test]
    fn a_write_applied_twice_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create(a, "/x", "1", 5);
        sample.set(a, "/x", "2", 7, 2);
        sample.dump(7, &[("/x", "2", 7)]);
        assert_eq!(rules(sample), [TWICE]);
    }

    #[test]
    fn an_acl_that_is_not_the_one_acknowledged_is_found() {
        let permit = |permissions| Action::Permit { path: "/x".to_owned(), permissions };
        let version =
            |aversion| Found::Stat(NodeStat { czxid: 3, mzxid: 3, aversion, ..NodeStat::default() });
        for (acl, aversion, unanswered, expected) in [
            ("world:anyone:27", 2, 0, &[][..]),
            ("world:anyone:31", 2, 0, &[LOST]),
            ("world:anyone:31", 1, 0, &[LOST]),
            ("world:anyone:31", 3, 0, &[LOST]),
            ("world:anyone:31", 3, 1, &[]),
        ] {
            let mut sample = Sample::new();
            let a = sample.client("a");
            sample.replied(a, permit(31), 5, 0, version(1));
            sample.replied(a, permit(27), 6, 0, version(2));
            (0..unanswered).for_each(|_| sample.lost(a, permit(31)));
            let stat = NodeStat { czxid: 3, mzxid: 3, aversion, ..NodeStat::default() };
            let node = Node { path: "/x".to_owned(), value: None, stat, acl: acl.to_owned() };
            let (server, nodes) = ("m1".to_owned(), vec![node]);
            sample.record(Record::Dump(Dump { server, round: 1, started: 1, ended: 2, zxid: 7, nodes }));
            assert_eq!(rules(sample), expected, "{acl} {aversion}");
        }
    }
}
