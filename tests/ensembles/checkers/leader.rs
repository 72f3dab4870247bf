//! C-LEAD: an epoch has one leader.

use std::collections::BTreeMap;

use super::model::Model;
use super::{Violation, violation};

const TWO: &str = "C-LEAD two-leaders";

pub(super) fn check(model: &Model<'_>) -> Vec<Violation> {
    let mut leaders: BTreeMap<i64, &str> = BTreeMap::new();
    let mut violations = Vec::new();
    for (server, epoch) in &model.leaders {
        let first = *leaders.entry(*epoch).or_insert(server);
        if first != *server {
            violations.push(violation(TWO, format!("{first} and {server} both led epoch {epoch}")));
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
    fn one_leader_an_epoch_is_fine_and_two_are_found() {
        for (second, expected) in [("m1", &[][..]), ("m2", &[TWO])] {
            let mut sample = Sample::new();
            for (server, epoch) in [("m1", 1), ("m2", 2), (second, 1)] {
                sample.record(Record::Leader { server: server.to_owned(), epoch });
            }
            assert_eq!(rules(sample), expected);
        }
    }
}
