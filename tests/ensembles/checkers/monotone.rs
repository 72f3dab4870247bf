//! C-MONO: a session never goes back in time, not even to another member, and is answered in the order of its requests.

use std::collections::BTreeMap;

use super::model::Model;
use super::timeline::{Received, timelines};
use super::{Violation, violation};
use crate::history::{Action, Found};

const BACK: &str = "C-MONO zxid-went-back";
const DATA_BACK: &str = "C-MONO data-went-back";
const ORDER: &str = "C-MONO reply-order";
const WRITE_ZXID: &str = "C-MONO zxid-of-a-write";

pub(super) fn check(model: &Model<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for received in timelines(model).values() {
        violations.extend(check_zxids(received));
        violations.extend(check_order(received));
        violations.extend(check_data(received));
    }
    violations.extend(check_writes(model));
    violations
}

fn check_zxids(received: &[Received<'_>]) -> Vec<Violation> {
    let mut newest = 0;
    let mut violations = Vec::new();
    for item in received {
        let Some(zxid) = item.zxid() else { continue };
        if zxid < newest {
            violations
                .push(violation(BACK, format!("{} shows {zxid:#x} after {newest:#x}", describe(*item))));
        }
        newest = newest.max(zxid);
    }
    violations
}

fn check_order(received: &[Received<'_>]) -> Vec<Violation> {
    let mut answered: BTreeMap<u32, u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for item in received {
        let Received::Reply(operation, _) = item else { continue };
        let last = answered.entry(operation.connection).or_default();
        if operation.request <= *last {
            violations.push(violation(ORDER, format!("{} comes after that to {last}", describe(*item))));
        }
        *last = (*last).max(operation.request);
    }
    violations
}

/// What a session reads of one znode never gets older.
fn check_data(received: &[Received<'_>]) -> Vec<Violation> {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut violations = Vec::new();
    for item in received {
        let Received::Reply(operation, reply) = item else { continue };
        let Action::Read(read) = &operation.action else { continue };
        let (Found::Data(_, stat) | Found::Stat(stat)) = &reply.found else { continue };
        let seen = newest.entry(&read.path).or_default();
        if stat.mzxid < *seen {
            let text =
                format!("{} shows {} of {:#x} after {seen:#x}", describe(*item), read.path, stat.mzxid);
            violations.push(violation(DATA_BACK, text));
        }
        *seen = (*seen).max(stat.mzxid);
    }
    violations
}

/// A write's reply names the write's own zxid; a new ACL is no change of the data.
fn check_writes(model: &Model<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for operation in model.operations.iter().filter(|operation| !operation.action.changes().is_empty()) {
        let Some(reply) = operation.success() else { continue };
        let stats = match &reply.found {
            Found::Stat(stat) => vec![Some(*stat)],
            Found::Results(stats) => stats.clone(),
            Found::Nothing | Found::Data(..) | Found::Children(..) | Found::Acl(..) => continue,
        };
        for stat in stats.into_iter().flatten().filter(|stat| stat.mzxid != reply.zxid) {
            let text = format!(
                "request {} of {} to {} has {:#x} in its header and {:#x} in its stat",
                operation.request, operation.client, operation.server, reply.zxid, stat.mzxid
            );
            violations.push(violation(WRITE_ZXID, text));
        }
    }
    violations
}

fn describe(item: Received<'_>) -> String {
    match item {
        Received::Event(event) => format!("an event on {} for {}", event.path, event.client),
        Received::Reply(operation, _) => {
            format!(
                "the reply to request {} of {} by {}",
                operation.request, operation.client, operation.server
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{Sample, rules};

    #[test]
    fn growing_zxids_are_fine_over_a_reconnect_too() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create(a, "/x", "1", 5);
        sample.connect(a);
        sample.ping(a, 5);
        sample.read(a, "/x", 6, Some(("1", 5)));
        assert_eq!(rules(sample), [""; 0]);
    }

    #[test]
    fn a_zxid_that_goes_back_after_a_reconnect_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.ping(a, 7);
        sample.connect(a);
        sample.ping(a, 6);
        assert_eq!(rules(sample), [BACK]);
    }

    #[test]
    fn replies_out_of_order_are_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        for _request in 0..2 {
            sample.ping(a, 5);
        }
        let mut history = sample.history();
        let last = history.records.len() - 2;
        for (index, order) in [(last, 2), (last + 1, 1)] {
            let crate::history::Record::Operation(operation) = &mut history.records[index] else {
                panic!("a ping was recorded")
            };
            operation.reply.as_mut().expect("it was answered").order = order;
        }
        let found: Vec<_> =
            check(&Model::new(&history)).into_iter().map(|violation| violation.rule).collect();
        assert_eq!(found, [ORDER]);
    }

    #[test]
    fn data_that_gets_older_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.read_and_watch(a, "/x", 7, Some(("2", 6)));
        sample.read(a, "/x", 7, Some(("1", 5)));
        let found = rules(sample);
        assert!(found.contains(&DATA_BACK), "{found:?}");
    }

    #[test]
    fn a_write_whose_reply_names_another_txn_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        let stat = crate::history::NodeStat { mzxid: 5, ..Default::default() };
        let change = crate::history::Change::Set { path: "/x".into(), value: "1".into(), version: -1 };
        sample.replied(a, Action::Change(change), 6, 0, Found::Stat(stat));
        assert_eq!(rules(sample), [WRITE_ZXID]);
    }
}
