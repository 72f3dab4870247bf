//! C-EPH: an ephemeral exists exactly as long as its session, and a session lives at least its timeout from the last
//! heartbeat that was answered, and not much longer.
//!
//! That an ephemeral of a living session is gone is what C-ACK and C-LIN find, since nothing may have deleted it.

use super::model::{Model, Session, SessionEnd};
use super::{Violation, violation};
use crate::history::{Action, Found};

const EARLY: &str = "C-EPH expired-early";
const LATE: &str = "C-EPH outlives-its-session";

const NANOSECONDS_IN_MS: u64 = 1_000_000;
const NO_NODE: i32 = -101;

/// Somebody looked at a path, behind a sync or in a dump.
struct Sight<'a> {
    path: &'a str,
    started: u64,
    ended: u64,
    /// The state that it saw.
    zxid: i64,
    is_there: bool,
    by: String,
}

pub(super) fn check(model: &Model<'_>) -> Vec<Violation> {
    let slack_ms = model.setup.map_or(0, |setup| setup.removal_slack_ms);
    let mut violations: Vec<Violation> = model.sessions.values().filter_map(check_notice).collect();
    for sight in sights(model) {
        let Some((owner, created)) = owner(model, sight.path) else { continue };
        if sight.zxid < created {
            continue;
        }
        let Some(session) = model.sessions.get(&owner) else { continue };
        violations.extend(check_sight(&sight, session, owner, slack_ms));
    }
    violations
}

/// A client is not told that its session is gone before the timeout.
fn check_notice(session: &Session<'_>) -> Option<Violation> {
    let SessionEnd::Expired(at) = session.end else { return None };
    let due = session.heard + session.timeout_ms * NANOSECONDS_IN_MS;
    (at < due).then(|| {
        let missing = (due - at) / NANOSECONDS_IN_MS;
        violation(
            EARLY,
            format!("the session of {} was gone {missing} ms before its timeout", session.client),
        )
    })
}

fn check_sight(sight: &Sight<'_>, session: &Session<'_>, owner: i64, slack_ms: u64) -> Option<Violation> {
    let timeout = session.timeout_ms * NANOSECONDS_IN_MS;
    let claim = format!("{} of session {owner:#x} ({}), seen by {}", sight.path, session.client, sight.by);
    match session.end {
        SessionEnd::None | SessionEnd::Closing => None,
        SessionEnd::Closed { .. } => None,
        SessionEnd::Expired(at) if sight.is_there && sight.started > at => {
            Some(violation(LATE, format!("{claim}, is there after its client was told that it expired")))
        }
        SessionEnd::Expired(_) | SessionEnd::Abandoned if sight.is_there => {
            let due = session.spoke + timeout + slack_ms * NANOSECONDS_IN_MS;
            (sight.started > due).then(|| {
                let late = (sight.started - due) / NANOSECONDS_IN_MS;
                violation(LATE, format!("{claim}, is there {late} ms after the last moment"))
            })
        }
        SessionEnd::Expired(_) | SessionEnd::Abandoned => {
            let due = session.heard + timeout;
            (sight.ended < due).then(|| {
                let early = (due - sight.ended) / NANOSECONDS_IN_MS;
                violation(EARLY, format!("{claim}, is gone {early} ms before the session's timeout"))
            })
        }
    }
}

fn sights<'a>(model: &Model<'a>) -> Vec<Sight<'a>> {
    let mut sights = Vec::new();
    for operation in &model.operations {
        let (Action::Read(read), Some(reply)) = (&operation.action, &operation.reply) else { continue };
        let Some(started) = read.synced else { continue };
        let is_there = match &reply.found {
            Found::Data(..) | Found::Stat(_) => true,
            _ if reply.error == NO_NODE => false,
            Found::Nothing | Found::Children(..) | Found::Acl(..) | Found::Results(_) => continue,
        };
        let by = format!("request {} of {} to {}", operation.request, operation.client, operation.server);
        let (ended, zxid) = (reply.ended, reply.zxid);
        sights.push(Sight { path: &read.path, started, ended, zxid, is_there, by });
    }
    for dump in &model.dumps {
        let there: std::collections::BTreeSet<&str> =
            dump.nodes.iter().map(|node| node.path.as_str()).collect();
        for path in model.paths.keys().filter(|path| owner(model, path).is_some()) {
            let by = format!("a dump of {}", dump.server);
            let is_there = there.contains(path);
            let (started, ended, zxid) = (dump.started, dump.ended, dump.zxid);
            sights.push(Sight { path, started, ended, zxid, is_there, by });
        }
    }
    sights
}

/// The session that an ephemeral belongs to, and the txn that created it; none when anybody else may have deleted it.
fn owner(model: &Model<'_>, path: &str) -> Option<(i64, i64)> {
    let changes = model.paths.get(path)?;
    let created = changes.iter().find(|change| change.owner.is_some())?;
    let is_deleted = changes.iter().any(|change| change.value.is_none() && change.operation.is_some());
    if is_deleted { None } else { Some((created.owner?, created.zxid?)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{SECOND, SLACK_MS, Sample, TIMEOUT_MS, rules};
    use crate::history::SessionChange;

    fn abandoned() -> (Sample, usize) {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        // Looking for it before it was there says nothing.
        sample.read(b, "/e", 4, None);
        sample.create_ephemeral(a, "/e", "1", 5);
        sample.turn(a, SessionChange::Abandoned);
        (sample, b)
    }

    #[test]
    fn an_ephemeral_that_goes_in_time_is_fine() {
        let (mut sample, b) = abandoned();
        sample.wait(SECOND / 2);
        sample.read(b, "/e", 6, Some(("1", 5)));
        sample.wait(SECOND);
        sample.read(b, "/e", 7, None);
        assert_eq!(rules(sample), [""; 0]);
    }

    #[test]
    fn an_ephemeral_that_goes_before_the_timeout_is_found() {
        let (mut sample, b) = abandoned();
        sample.wait(SECOND / 2);
        sample.read(b, "/e", 6, None);
        assert_eq!(rules(sample), [EARLY]);
    }

    #[test]
    fn an_ephemeral_that_stays_too_long_is_found() {
        let (mut sample, b) = abandoned();
        sample.wait((TIMEOUT_MS + SLACK_MS + 1) * NANOSECONDS_IN_MS);
        sample.read(b, "/e", 6, Some(("1", 5)));
        assert_eq!(rules(sample), [LATE]);
    }

    #[test]
    fn an_ephemeral_of_a_living_session_that_is_gone_is_found() {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create_ephemeral(a, "/e", "1", 5);
        sample.read(b, "/e", 6, None);
        assert_eq!(rules(sample), ["C-LIN state"]);

        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create_ephemeral(a, "/e", "1", 5);
        sample.dump(6, &[]);
        assert_eq!(rules(sample), ["C-ACK lost"]);
    }

    #[test]
    fn an_ephemeral_of_a_closed_session_that_is_there_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.create_ephemeral(a, "/e", "1", 5);
        sample.close(a, 6);
        sample.dump(7, &[("/e", "1", 5)]);
        assert_eq!(rules(sample), ["C-ACK lost"]);
    }

    #[test]
    fn a_session_that_is_called_gone_before_its_timeout_is_found() {
        let mut sample = Sample::new();
        let a = sample.client("a");
        sample.ping(a, 5);
        sample.wait(SECOND / 2);
        sample.turn(a, SessionChange::Expired { server: "m1".to_owned() });
        assert_eq!(rules(sample), [EARLY]);
    }

    #[test]
    fn an_ephemeral_that_is_there_after_the_session_is_called_gone_is_found() {
        let mut sample = Sample::new();
        let (a, b) = (sample.client("a"), sample.client("b"));
        sample.create_ephemeral(a, "/e", "1", 5);
        sample.wait(SECOND + 10);
        sample.turn(a, SessionChange::Expired { server: "m1".to_owned() });
        sample.read(b, "/e", 6, Some(("1", 5)));
        assert_eq!(rules(sample), [LATE]);
    }
}
