//! C-CONV: all members hold the same tree at the same zxid, and what one txn wrote is the same wherever it is read.

use std::collections::BTreeMap;

use super::model::Model;
use super::{Violation, violation};
use crate::history::{Action, Dump, Found, Node};

const ZXID: &str = "C-CONV zxid";
const TREE: &str = "C-CONV tree";
const DIGEST: &str = "C-CONV digest";
const VALUE: &str = "C-CONV value";

/// Counted by each member for itself, and no part of Apache ZooKeeper's digest.
const OWN: &str = "/zookeeper/";

pub(super) fn check(model: &Model<'_>) -> Vec<Violation> {
    let mut rounds: BTreeMap<u32, Vec<&Dump>> = BTreeMap::new();
    for dump in &model.dumps {
        rounds.entry(dump.round).or_default().push(dump);
    }
    let mut violations: Vec<Violation> = rounds.values().flat_map(|dumps| check_round(dumps)).collect();
    violations.extend(check_digests(model));
    violations.extend(check_values(model));
    violations
}

fn check_round(dumps: &[&Dump]) -> Vec<Violation> {
    let Some((first, others)) = dumps.split_first() else { return Vec::new() };
    others.iter().filter_map(|other| compare(first, other)).collect()
}

/// The first difference between two members.
fn compare(one: &Dump, two: &Dump) -> Option<Violation> {
    let (a, b) = (&one.server, &two.server);
    if one.zxid != two.zxid {
        let text = format!("round {}: {a} is at {:#x}, {b} at {:#x}", one.round, one.zxid, two.zxid);
        return Some(violation(ZXID, text));
    }
    let (left, right) = (nodes(one), nodes(two));
    let paths = left.keys().chain(right.keys());
    let mut different = paths.filter(|path| left.get(*path) != right.get(*path));
    let path = different.next()?;
    let show =
        |node: Option<&&Node>| node.map(|node| format!("{:?} {:?} {}", node.value, node.stat, node.acl));
    let text = format!(
        "round {}, {:#x}: {path} is {:?} on {a} and {:?} on {b}, and {} more differ",
        one.round,
        one.zxid,
        show(left.get(path)),
        show(right.get(path)),
        different.count()
    );
    Some(violation(TREE, text))
}

fn nodes(dump: &Dump) -> BTreeMap<&str, &Node> {
    let compared = dump.nodes.iter().filter(|node| !node.path.starts_with(OWN));
    compared.map(|node| (node.path.as_str(), node)).collect()
}

fn check_digests(model: &Model<'_>) -> Vec<Violation> {
    let mut known: BTreeMap<i64, (&str, &str)> = BTreeMap::new();
    let mut violations = Vec::new();
    for (server, zxid, digest) in &model.digests {
        let (other, first) = *known.entry(*zxid).or_insert((server, digest));
        if first != *digest {
            let text = format!("at {zxid:#x} {other} has {first}, {server} has {digest}");
            violations.push(violation(DIGEST, text));
        }
    }
    violations
}

/// A txn wrote one value, with one version, whoever is asked.
fn check_values(model: &Model<'_>) -> Vec<Violation> {
    let mut known: BTreeMap<(&str, i64), (Option<&str>, i32)> = BTreeMap::new();
    let mut violations = Vec::new();
    let mut compare = |path, value, stat: &crate::history::NodeStat, by: &dyn Fn() -> String| {
        let first = *known.entry((path, stat.mzxid)).or_insert((value, stat.version));
        if first != (value, stat.version) {
            let text = format!(
                "{path} of {:#x} is {first:?}, and {:?} by {}",
                stat.mzxid,
                (value, stat.version),
                by()
            );
            violations.push(violation(VALUE, text));
        }
    };
    for operation in &model.operations {
        let (Action::Read(read), Some(reply)) = (&operation.action, operation.success()) else { continue };
        if let Found::Data(value, stat) = &reply.found {
            compare(&read.path, value.as_deref(), stat, &|| {
                format!("{} on {}", operation.client, operation.server)
            });
        }
    }
    for dump in &model.dumps {
        for node in dump.nodes.iter().filter(|node| !node.path.starts_with(OWN)) {
            compare(&node.path, node.value.as_deref(), &node.stat, &|| format!("a dump of {}", dump.server));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{Sample, rules};
    use crate::history::Record;

    #[test]
    fn members_that_hold_the_same_are_fine() {
        let mut sample = Sample::new();
        sample.dump_of("m1", 7, &[("/x", "1", 5), ("/zookeeper/config", "one", 0)]);
        sample.dump_of("m2", 7, &[("/x", "1", 5), ("/zookeeper/config", "two", 0)]);
        assert_eq!(rules(sample), [""; 0]);
    }

    #[test]
    fn members_that_differ_are_found() {
        for nodes in [&[][..], &[("/x", "1", 6)], &[("/x", "1", 5), ("/y", "2", 6)]] {
            let mut sample = Sample::new();
            sample.dump_of("m1", 7, &[("/x", "1", 5)]);
            sample.dump_of("m2", 7, nodes);
            assert_eq!(rules(sample), [TREE]);
        }
    }

    #[test]
    fn members_at_different_zxids_are_found() {
        let mut sample = Sample::new();
        sample.dump_of("m1", 7, &[]);
        sample.dump_of("m2", 8, &[]);
        assert_eq!(rules(sample), [ZXID]);
    }

    #[test]
    fn digests_that_differ_are_found() {
        let mut sample = Sample::new();
        for (server, zxid, digest) in [("m1", 7, "a"), ("m2", 7, "b"), ("m2", 8, "c")] {
            sample.record(Record::Digest { server: server.to_owned(), zxid, digest: digest.to_owned() });
        }
        assert_eq!(rules(sample), [DIGEST]);
    }

    #[test]
    fn one_txn_with_two_values_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.read(a, "/x", 7, Some(("1", 5)));
        sample.read(a, "/x", 7, Some(("2", 5)));
        assert_eq!(rules(sample), [VALUE]);
    }
}
