//! What to write for one instance, from what is wanted and what is there. Pure.
//!
//! Every change of a record deletes its znode and creates it again in one multi. So nobody sees a gap, a znode of
//! our own earlier session becomes one of this session in the same way, and the service's own stat (`cversion`,
//! `pzxid`) reveals any change below it, which setData would not. Nor do the instances of a service contend for the
//! version of its znode.

use bytes::Bytes;

use crate::client::{CreateRequest, MultiOp};
use crate::id::SessionId;
use crate::registry::record::{Record, RecordError};
use crate::znode::{CreateMode, Stat};

/// What should be in the tree for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its checks have not decided yet: whatever is there stays.
    Undecided,
    /// This record, if there is one of ours already.
    IfRegistered(Record),
    /// This record.
    Registered(Record),
    /// Nothing of this owner's.
    Removed {
        /// The owner.
        owner: String,
    },
}

/// What is in the tree for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// No znode.
    Missing,
    /// A znode.
    Found {
        /// Its data.
        data: Option<Bytes>,
        /// Its stat.
        stat: Stat,
    },
}

/// What to do about one instance.
#[derive(Debug)]
pub enum Plan {
    /// All is as wanted.
    Nothing,
    /// Write this, all or nothing.
    Write {
        /// The operations of one multi.
        ops: Vec<MultiOp>,
        /// Our record afterwards, if there is one then.
        record: Option<Box<Record>>,
    },
    /// Somebody else has the id: leave it, and tell.
    Conflict {
        /// What the record says of its owner; empty when it is no record.
        owner: String,
        /// The session it lives by.
        session: SessionId,
    },
}

/// Decides what to do about the instance at `path`; `session` is ours.
///
/// # Errors
///
/// When the record to write is too long.
pub fn plan(
    path: &str,
    wanted: &Wanted,
    observed: &Observed,
    session: SessionId,
) -> Result<Plan, RecordError> {
    let wanted_record = match wanted {
        Wanted::Undecided => return Ok(Plan::Nothing),
        Wanted::IfRegistered(record) | Wanted::Registered(record) => Some(record),
        Wanted::Removed { .. } => None,
    };
    let (data, stat) = match observed {
        Observed::Missing => {
            return match wanted {
                Wanted::Registered(record) => write(vec![create(path, record)?], Some(record.clone())),
                Wanted::Undecided | Wanted::IfRegistered(_) | Wanted::Removed { .. } => Ok(Plan::Nothing),
            };
        }
        Observed::Found { data, stat } => (data.as_deref().unwrap_or_default(), stat),
    };
    let found = Record::decode(data).ok();
    let owner = match wanted {
        Wanted::Removed { owner } => owner,
        Wanted::Undecided => "",
        Wanted::IfRegistered(record) | Wanted::Registered(record) => &record.owner,
    };
    let is_of_this_session = stat.ephemeral_owner == session;
    let is_ours = found.as_ref().is_some_and(|found| !owner.is_empty() && found.owner == owner);
    if !is_of_this_session && !is_ours {
        let owner = found.map(|found| found.owner).unwrap_or_default();
        return Ok(match wanted {
            Wanted::Registered(_) | Wanted::IfRegistered(_) => {
                Plan::Conflict { owner, session: stat.ephemeral_owner }
            }
            Wanted::Undecided | Wanted::Removed { .. } => Plan::Nothing,
        });
    }
    let delete = MultiOp::Delete { path: path.to_owned(), version: stat.version };
    let Some(wanted_record) = wanted_record else {
        return write(vec![delete], None);
    };
    let record = with_what_is_kept(wanted_record, found.as_ref().filter(|_| is_ours));
    if is_of_this_session && found.as_ref() == Some(&record) {
        return Ok(Plan::Nothing);
    }
    write(vec![delete, create(path, &record)?], Some(record))
}

fn write(ops: Vec<MultiOp>, record: Option<Record>) -> Result<Plan, RecordError> {
    Ok(Plan::Write { ops, record: record.map(Box::new) })
}

fn create(path: &str, record: &Record) -> Result<MultiOp, RecordError> {
    let create = CreateRequest::open(path, record.encode()?, CreateMode::Ephemeral);
    Ok(MultiOp::Create(create))
}

/// What an earlier record of ours keeps: the time of its first registration, and keys that we do not know.
fn with_what_is_kept(wanted: &Record, earlier: Option<&Record>) -> Record {
    let mut record = wanted.clone();
    if let Some(earlier) = earlier {
        if earlier.registered_at_ms > 0 {
            record.registered_at_ms = earlier.registered_at_ms;
        }
        for (key, value) in &earlier.other {
            record.other.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Status;

    const PATH: &str = "/r/default/web/web-1";
    const OURS: SessionId = SessionId(7);
    const EARLIER: SessionId = SessionId(6);

    #[test]
    fn what_is_missing_is_created() {
        let wanted = Wanted::Registered(record("me", Status::Up));
        let ops = ops(&wanted, &Observed::Missing);
        let [MultiOp::Create(create)] = ops.as_slice() else { panic!("{ops:?}") };
        assert_eq!((create.path.as_str(), create.flags), (PATH, CreateMode::Ephemeral.flags()));
        assert_eq!(Record::decode(create.data.as_ref().unwrap()).unwrap(), record("me", Status::Up));
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        let up = record("me", Status::Up);
        assert_nothing(&Wanted::Registered(up.clone()), &found(&up, OURS));
        let mut later = up.clone();
        later.registered_at_ms += 1;
        assert_nothing(&Wanted::Registered(later), &found(&up, OURS));
    }

    #[test]
    fn a_change_replaces_the_znode_in_one_multi_and_checks_its_version() {
        let wanted = Wanted::Registered(record("me", Status::Failing));
        for session in [OURS, EARLIER] {
            let ops = ops(&wanted, &found(&record("me", Status::Up), session));
            assert!(
                matches!(ops.as_slice(), [MultiOp::Delete { version: 3, .. }, MultiOp::Create(_)]),
                "{ops:?}"
            );
        }
    }

    #[test]
    fn a_record_of_our_earlier_session_becomes_one_of_this_even_when_equal() {
        let up = record("me", Status::Up);
        assert_eq!(ops(&Wanted::Registered(up.clone()), &found(&up, EARLIER)).len(), 2);
    }

    #[test]
    fn what_we_do_not_know_of_our_record_is_kept() {
        let mut earlier = record("me", Status::Up);
        earlier.other.insert("color".to_owned(), "red".into());
        earlier.registered_at_ms = 1;
        let ops = ops(&Wanted::Registered(record("me", Status::Failing)), &found(&earlier, OURS));
        let MultiOp::Create(create) = &ops[1] else { panic!("{ops:?}") };
        let written = Record::decode(create.data.as_ref().unwrap()).unwrap();
        assert_eq!(
            (written.other["color"].as_str(), written.registered_at_ms, written.status),
            (Some("red"), 1, Status::Failing)
        );
    }

    #[test]
    fn garbage_in_a_znode_of_this_session_is_repaired() {
        let stat = Stat { ephemeral_owner: OURS, ..Stat::default() };
        let garbage = Observed::Found { data: Some(Bytes::from_static(b"{")), stat };
        assert_eq!(ops(&Wanted::Registered(record("me", Status::Up)), &garbage).len(), 2);
    }

    #[test]
    fn what_is_somebody_elses_is_reported_and_never_touched() {
        let theirs = found(&record("you", Status::Up), EARLIER);
        let up = record("me", Status::Up);
        for wanted in [Wanted::Registered(up.clone()), Wanted::IfRegistered(up)] {
            match plan(PATH, &wanted, &theirs, OURS).unwrap() {
                Plan::Conflict { owner, session } => assert_eq!((owner.as_str(), session), ("you", EARLIER)),
                other @ (Plan::Nothing | Plan::Write { .. }) => panic!("{other:?}"),
            }
        }
        assert_nothing(&Wanted::Removed { owner: "me".to_owned() }, &theirs);
        // An owner that nobody wrote is nobody's, not ours.
        let nobodys = found(&record("", Status::Up), EARLIER);
        let plan = plan(PATH, &Wanted::Registered(record("", Status::Up)), &nobodys, OURS).unwrap();
        assert!(matches!(plan, Plan::Conflict { .. }), "{plan:?}");
    }

    #[test]
    fn an_undecided_instance_changes_nothing() {
        assert_nothing(&Wanted::Undecided, &Observed::Missing);
        assert_nothing(&Wanted::Undecided, &found(&record("me", Status::Up), EARLIER));
        assert_nothing(&Wanted::IfRegistered(record("me", Status::Failing)), &Observed::Missing);
    }

    #[test]
    fn what_is_removed_is_deleted_once() {
        let removed = Wanted::Removed { owner: "me".to_owned() };
        for session in [OURS, EARLIER] {
            let ops = ops(&removed, &found(&record("me", Status::Draining), session));
            assert!(matches!(ops.as_slice(), [MultiOp::Delete { version: 3, .. }]), "{ops:?}");
        }
        assert_nothing(&removed, &Observed::Missing);
    }

    fn assert_nothing(wanted: &Wanted, observed: &Observed) {
        let plan = plan(PATH, wanted, observed, OURS).unwrap();
        assert!(matches!(plan, Plan::Nothing), "{plan:?}");
    }

    fn ops(wanted: &Wanted, observed: &Observed) -> Vec<MultiOp> {
        match plan(PATH, wanted, observed, OURS).unwrap() {
            Plan::Write { ops, .. } => ops,
            other @ (Plan::Nothing | Plan::Conflict { .. }) => panic!("{other:?}"),
        }
    }

    fn found(record: &Record, session: SessionId) -> Observed {
        let stat = Stat { ephemeral_owner: session, version: 3, ..Stat::default() };
        Observed::Found { data: Some(record.encode().unwrap().into()), stat }
    }

    fn record(owner: &str, status: Status) -> Record {
        let text = br#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
        let record = Record::decode(text).unwrap();
        Record { status, owner: owner.to_owned(), registered_at_ms: 9, ..record }
    }
}
