//! What the answers of members come to. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::registry::change::SubscriberReport;

/// Names in a report; the others are counted.
const NAMES_MAX: usize = 100;

/// What an address last answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Nothing yet.
    None,
    /// It does not answer.
    Silence,
    /// It is not a member that knows barriers.
    NotUnderstood,
    /// How its subscribers stand.
    Told(MemberStanding),
}

/// How a member's subscribers stand; its own words.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct MemberStanding {
    server: u8,
    /// All members that it knows of.
    members: BTreeSet<u8>,
    /// Whether it has applied the change itself.
    applied: bool,
    /// Whether it knows everybody who may have lost a connection to it.
    complete: bool,
    subscribers: usize,
    pub(super) behind: Vec<String>,
    behind_count: usize,
    /// Those of its subscribers that are not connected, and are behind as far as it knows.
    pub(super) away: Vec<String>,
    away_count: usize,
    others: usize,
}

impl MemberStanding {
    /// The standing for all questions together; `None` for none.
    pub(super) fn merged(standings: Vec<Self>) -> Option<Self> {
        standings.into_iter().reduce(|one, other| Self {
            applied: one.applied && other.applied,
            complete: one.complete && other.complete,
            subscribers: one.subscribers.max(other.subscribers),
            behind: union(one.behind, other.behind),
            behind_count: one.behind_count.max(other.behind_count),
            away: union(one.away, other.away),
            away_count: one.away_count.max(other.away_count),
            others: one.others.max(other.others),
            ..one
        })
    }

    const fn is_open(&self) -> bool {
        !self.applied || !self.complete || self.behind_count > 0 || self.away_count > 0
    }
}

/// Whether all subscribers have applied a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// All members say so.
    Applied,
    /// Some have not, or it is not known of them yet.
    IsOpen,
    /// Those who were asked have, but not all members were asked.
    IsIncomplete,
    /// Nobody who can be asked is behind, and the others are members that do not know barriers.
    CannotBeAsked,
}

/// What the newest answers come to, and what is known of the subscribers if any member told.
pub(super) fn judge(answers: &[Answer]) -> (Judgement, Option<SubscriberReport>) {
    let mut told = BTreeMap::new();
    let (mut strange, mut are_pending) = (0, false);
    for answer in answers {
        match answer {
            Answer::None => are_pending = true,
            Answer::Silence => {}
            Answer::NotUnderstood => strange += 1,
            // One member may have several addresses.
            Answer::Told(standing) => drop(told.insert(standing.server, standing)),
        }
    }
    if told.is_empty() {
        // Where one does not know barriers, none of those that are silent will tell more.
        let is_hopeless = strange > 0 && !are_pending;
        return (if is_hopeless { Judgement::CannotBeAsked } else { Judgement::IsOpen }, None);
    }
    let members: BTreeSet<u8> = told.values().flat_map(|standing| &standing.members).copied().collect();
    let report = SubscriberReport {
        subscribers: told.values().map(|standing| standing.subscribers + standing.away_count).sum(),
        behind: names(told.values().flat_map(|standing| standing.behind.iter().chain(&standing.away))),
        behind_count: told.values().map(|standing| standing.behind_count + standing.away_count).sum(),
        members_not_asked: members.into_iter().filter(|id| !told.contains_key(id)).collect(),
        other_watchers: told.values().map(|standing| standing.others).sum(),
    };
    let judgement = if told.values().any(|standing| standing.is_open()) {
        Judgement::IsOpen
    } else if report.members_not_asked.is_empty() {
        Judgement::Applied
    } else if report.members_not_asked.len() <= strange {
        // They are there, and will not tell more.
        Judgement::CannotBeAsked
    } else {
        Judgement::IsIncomplete
    };
    (judgement, Some(report))
}

fn union(one: Vec<String>, other: Vec<String>) -> Vec<String> {
    names(one.iter().chain(&other))
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let all: BTreeSet<&String> = all.collect();
    all.into_iter().take(NAMES_MAX).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_applied_it_when_all_members_say_so() {
        let (judgement, report) = judge(&[told(1, ""), told(2, ""), told(3, ""), Answer::Silence]);
        assert_eq!(judgement, Judgement::Applied);
        assert_eq!(report.unwrap(), SubscriberReport { subscribers: 6, ..SubscriberReport::default() });
    }

    #[test]
    fn members_that_others_name_and_nobody_reached_leave_it_incomplete() {
        for (missing, expected) in [
            (Answer::None, Judgement::IsIncomplete),
            (Answer::Silence, Judgement::IsIncomplete),
            (Answer::NotUnderstood, Judgement::CannotBeAsked),
        ] {
            let (judgement, report) = judge(&[told(1, ""), missing, told(3, ""), told(3, "")]);
            assert_eq!(judgement, expected);
            let report = report.unwrap();
            assert_eq!((report.members_not_asked, report.subscribers), (vec![2], 4));
        }
    }

    #[test]
    fn whoever_is_behind_away_or_unknown_leaves_it_open() {
        for open in [
            r#""behind":["b"],"behind_count":1"#,
            r#""away":["b"],"away_count":1"#,
            r#""applied":false"#,
            r#""complete":false"#,
        ] {
            let (judgement, report) = judge(&[told(1, ""), told(2, open), told(3, "")]);
            assert_eq!(judgement, Judgement::IsOpen, "{open}");
            let report = report.unwrap();
            let is_named = open.contains("[\"b\"]");
            assert_eq!((report.behind == ["b"], report.behind_count == 1), (is_named, is_named), "{open}");
        }
    }

    #[test]
    fn ensembles_that_do_not_know_barriers_cannot_be_asked() {
        assert_eq!(judge(&[Answer::NotUnderstood, Answer::None]), (Judgement::IsOpen, None));
        assert_eq!(judge(&[Answer::NotUnderstood, Answer::Silence]), (Judgement::CannotBeAsked, None));
        assert_eq!(judge(&[Answer::Silence]), (Judgement::IsOpen, None));
        assert_eq!(judge(&[]), (Judgement::IsOpen, None));
    }

    #[test]
    fn several_services_count_each_subscriber_once() {
        let standing = |more| match told(1, more) {
            Answer::Told(standing) => standing,
            Answer::None | Answer::Silence | Answer::NotUnderstood => panic!("not told"),
        };
        let one = standing(r#""behind":["a","b"],"behind_count":2"#);
        let other = standing(r#""behind":["b"],"behind_count":1,"away":["c"],"away_count":1,"others":3"#);
        let merged = Answer::Told(MemberStanding::merged(vec![one, other]).unwrap());
        let report = judge(&[merged]).1.unwrap();
        assert_eq!(report.behind, ["a", "b", "c"]);
        assert_eq!((report.subscribers, report.behind_count, report.other_watchers), (3, 3, 3));
    }

    /// What one of three members says that has two subscribers, but for what `more` says.
    fn told(server: u8, more: &str) -> Answer {
        let mut json = serde_json::json!({
            "server": server, "members": [1, 2, 3], "applied": true, "complete": true, "subscribers": 2,
            "behind": [], "behind_count": 0, "away": [], "away_count": 0, "others": 0,
        });
        let more: serde_json::Value = serde_json::from_str(&format!("{{{more}}}")).unwrap();
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Answer::Told(serde_json::from_value(json).unwrap())
    }
}
