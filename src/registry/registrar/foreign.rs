//! What to write for one instance in formats that are not ours, from what is wanted and what is there. Pure.
//!
//! - The znodes of other formats live by the same session as our own record and are written in the same multi, so that all
//!   of them come and go together. When our record is as wanted and they are not, a check of its version stands for it.
//! - Whose a znode is, its session says: ours are those of this session, and of the session that our own record, which
//!   names its owner, was left by. Other formats have no place for an owner, and need none.
//! - Where names are numbered, an instance's own is the one at its endpoint. Once it was written or found its path is known,
//!   and only that is looked at; the others are searched when an answer was lost, or an earlier process left a record.
//! - A znode of this session under a fixed name is set, as Curator does, whose caches take a deletion for one even when a
//!   creation follows in the same multi. A numbered one is replaced: readers keep what they once read under a number.
//! - What somebody else has under a fixed name stays, and is reported; our own record and the other formats do without.

use bytes::Bytes;

use super::plan::Observed;
use crate::client::{CreateRequest, MultiOp, OpResult};
use crate::id::SessionId;
use crate::registry::formats::{ForeignZnode, Format, FormatTarget};
use crate::registry::name::Label;
use crate::registry::record::Record;
use crate::znode::Stat;

/// The sessions whose znodes are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnSessions {
    current: SessionId,
    /// The one that an earlier process of ours left a record in.
    earlier: Option<SessionId>,
}

impl OwnSessions {
    /// Those of `owner`, as what is found at the place of our own record tells.
    pub(super) fn of(observed: &Observed, owner: &str, current: SessionId) -> Self {
        let earlier = match observed {
            Observed::Missing => None,
            Observed::Found { data, stat } => {
                let record = Record::decode(data.as_deref().unwrap_or_default()).ok();
                let is_ours = record.is_some_and(|record| !owner.is_empty() && record.owner == owner);
                Some(stat.ephemeral_owner)
                    .filter(|session| is_ours && *session != current && *session != SessionId::NONE)
            }
        };
        Self { current, earlier }
    }

    pub(super) fn contains(self, session: SessionId) -> bool {
        session == self.current || self.earlier == Some(session)
    }
}

/// A znode that was found at the place of one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundZnode {
    pub(super) path: String,
    pub(super) data: Option<Bytes>,
    pub(super) stat: Stat,
}

/// What to do about one format.
#[derive(Debug, Default)]
pub(super) struct ForeignPlan {
    pub(super) ops: Vec<MultiOp>,
    /// Ours that stays.
    kept: Option<String>,
    /// Somebody else's, where ours is to be.
    pub(super) conflict: Option<ForeignConflict>,
}

/// A znode of somebody else where one of ours is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignConflict {
    pub(super) format: Format,
    pub(super) path: String,
    /// The session it lives by, 0 for a persistent one.
    pub(super) session: SessionId,
}

/// Decides about one format. `found` is what is at the path of `znode`, or, if that is numbered, at those that may be ours.
pub(super) fn plan_foreign(
    format: Format,
    znode: &ForeignZnode,
    is_wanted: bool,
    found: Vec<FoundZnode>,
    sessions: OwnSessions,
) -> ForeignPlan {
    let mut plan = ForeignPlan::default();
    for FoundZnode { path, data, stat } in found {
        let is_as_wanted = data.as_deref().unwrap_or_default() == znode.data;
        let is_current = stat.ephemeral_owner == sessions.current;
        let version = stat.version;
        if !sessions.contains(stat.ephemeral_owner) {
            if is_wanted && !znode.mode.is_sequential() {
                plan.conflict = Some(ForeignConflict { format, path, session: stat.ephemeral_owner });
            }
        } else if is_wanted && is_current && is_as_wanted && plan.kept.is_none() {
            plan.kept = Some(path);
        } else if is_wanted && is_current && !znode.mode.is_sequential() {
            plan.kept = Some(path.clone());
            plan.ops.push(MultiOp::SetData { path, data: Some(znode.data.clone().into()), version });
        } else {
            plan.ops.push(MultiOp::Delete { path, version });
        }
    }
    if is_wanted && plan.kept.is_none() && plan.conflict.is_none() {
        let create = CreateRequest::open(znode.path(), znode.data.clone(), znode.mode);
        plan.ops.push(MultiOp::Create(create));
    }
    plan
}

/// The operations on our own record at `path`, then those of the plans.
pub(super) fn in_one_multi(
    path: &str,
    observed: &Observed,
    mut own: Vec<MultiOp>,
    plans: &[ForeignPlan],
) -> Vec<MultiOp> {
    let others: Vec<_> = plans.iter().flat_map(|plan| plan.ops.iter().cloned()).collect();
    if let Observed::Found { stat, .. } = observed
        && own.is_empty()
        && !others.is_empty()
    {
        own.push(MultiOp::Check { path: path.to_owned(), version: stat.version });
    }
    own.extend(others);
    own
}

/// What is known of the znodes of one instance in other formats, from one look to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreign {
    /// The session for which `paths` holds.
    session: Option<SessionId>,
    /// Whether there may be znodes of this session that are not in `paths`.
    is_unsure: bool,
    /// In what it may stand and is not to: what other settings have left out.
    former: Vec<FormatTarget>,
    /// Where ours are, for each format, and then for the former ones.
    paths: Vec<Vec<String>>,
    /// Where somebody else is.
    pub(super) conflicts: Vec<ForeignConflict>,
}

impl Foreign {
    /// Begins a look in this session: what was known of another one's says nothing, and nothing was written yet.
    pub(super) fn begin(&mut self, session: SessionId) {
        if self.session != Some(session) {
            let conflicts = std::mem::take(&mut self.conflicts);
            *self = Self { session: Some(session), conflicts, ..Self::default() };
        }
    }

    /// What was to be written may have been.
    pub(super) fn on_lost_answer(&mut self) {
        self.is_unsure = true;
    }

    /// Whether there may be more of ours than is known.
    pub(super) fn needs_search(&self, sessions: OwnSessions) -> bool {
        self.is_unsure || sessions.earlier.is_some()
    }

    /// Where the znode of the format with this index is, as far as it is known.
    pub(super) fn paths(&self, index: usize) -> &[String] {
        self.paths.get(index).map_or(&[], Vec::as_slice)
    }

    /// Takes that the instance `id` is to be in `now` and not in `before`. Formats are the same that have the same place.
    pub(super) fn change_formats(&mut self, id: &Label, before: &[FormatTarget], now: &[FormatTarget]) {
        let known: Vec<_> = before.iter().chain(&self.former).cloned().collect();
        let is_in =
            |all: &[FormatTarget], one: &FormatTarget| all.iter().position(|it| it.path(id) == one.path(id));
        let former: Vec<_> = known.iter().filter(|one| is_in(now, one).is_none()).cloned().collect();
        let paths = |one| is_in(&known, one).map_or_else(Vec::new, |index| self.paths(index).to_vec());
        self.paths = now.iter().chain(&former).map(paths).collect();
        self.former = former;
    }

    /// In what it may stand and is not to.
    pub(super) fn former(&self) -> &[FormatTarget] {
        &self.former
    }

    /// Takes down what is there after the plans were carried out; `results` are those of [`in_one_multi`].
    pub(super) fn on_written(&mut self, plans: Vec<ForeignPlan>, results: &[OpResult]) {
        let count: usize = plans.iter().map(|plan| plan.ops.len()).sum();
        let mut results = results[results.len().saturating_sub(count)..].iter();
        self.conflicts.clear();
        self.former.clear();
        self.paths.clear();
        for plan in plans {
            let results: Vec<_> = results.by_ref().take(plan.ops.len()).collect();
            let created = results.into_iter().filter_map(|result| match result {
                OpResult::Create(path) | OpResult::Create2(path, _) => Some(path.clone()),
                OpResult::Delete | OpResult::SetData(_) | OpResult::Check | OpResult::Error(_) => None,
            });
            self.paths.push(plan.kept.into_iter().chain(created).collect());
            self.conflicts.extend(plan.conflict);
        }
        self.is_unsure = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::formats::FormatKind;
    use crate::znode::ZnodePath;

    const OURS: SessionId = SessionId(7);
    const EARLIER: SessionId = SessionId(6);
    const THEIRS: SessionId = SessionId(5);
    const FIXED: &str = "/services/web/web-1";
    const NUMBERED: &str = "/nerve/web-1_0000000004";

    #[test]
    fn what_is_missing_is_created_as_an_ephemeral_of_the_format() {
        let plan = plan_for(&fixed(), true, &[]);
        let [MultiOp::Create(create)] = plan.ops.as_slice() else { panic!("{plan:?}") };
        assert_eq!((create.path.as_str(), create.flags), (FIXED, 1));
        let plan = plan_for(&numbered(), true, &[]);
        let [MultiOp::Create(create)] = plan.ops.as_slice() else { panic!("{plan:?}") };
        assert_eq!((create.path.as_str(), create.flags), ("/nerve/web-1_", 3));
        assert!(plan_for(&fixed(), false, &[]).ops.is_empty());
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        for (target, path) in [(fixed(), FIXED), (numbered(), NUMBERED)] {
            let plan = plan_for(&target, true, &[found(path, &target, OURS)]);
            assert!(plan.ops.is_empty() && plan.conflict.is_none(), "{plan:?}");
            assert_eq!(plan.kept.as_deref(), Some(path));
        }
    }

    #[test]
    fn a_change_is_set_under_a_fixed_name_and_replaced_under_a_number() {
        let changed = |path, target: FormatTarget| FoundZnode {
            data: Some(Bytes::from_static(b"{")),
            ..found(path, &target, OURS)
        };
        let plan = plan_for(&fixed(), true, &[changed(FIXED, fixed())]);
        assert!(matches!(plan.ops.as_slice(), [MultiOp::SetData { version: 3, .. }]), "{plan:?}");
        let plan = plan_for(&numbered(), true, &[changed(NUMBERED, numbered())]);
        assert!(
            matches!(plan.ops.as_slice(), [MultiOp::Delete { version: 3, .. }, MultiOp::Create(_)]),
            "{plan:?}"
        );
    }

    #[test]
    fn what_our_earlier_session_left_is_replaced_in_one_multi() {
        for (target, path) in [(fixed(), FIXED), (numbered(), NUMBERED)] {
            let plan = plan_for(&target, true, &[found(path, &target, EARLIER)]);
            assert!(matches!(plan.ops.as_slice(), [MultiOp::Delete { .. }, MultiOp::Create(_)]), "{plan:?}");
        }
    }

    #[test]
    fn one_is_kept_of_several_that_are_ours() {
        let second = "/nerve/web-1_0000000009";
        let several = [
            found(NUMBERED, &numbered(), EARLIER),
            found(second, &numbered(), OURS),
            found("/nerve/web-1_0000000010", &numbered(), OURS),
        ];
        let plan = plan_for(&numbered(), true, &several);
        assert_eq!(plan.kept.as_deref(), Some(second));
        let deleted =
            |op: &MultiOp| if let MultiOp::Delete { path, .. } = op { Some(path.clone()) } else { None };
        let deleted: Vec<_> = plan.ops.iter().filter_map(deleted).collect();
        assert_eq!(deleted, [NUMBERED, "/nerve/web-1_0000000010"]);
    }

    #[test]
    fn what_is_ours_goes_when_it_is_not_wanted() {
        for session in [OURS, EARLIER] {
            for (target, path) in [(fixed(), FIXED), (numbered(), NUMBERED)] {
                let plan = plan_for(&target, false, &[found(path, &target, session)]);
                assert!(matches!(plan.ops.as_slice(), [MultiOp::Delete { .. }]), "{plan:?}");
                assert_eq!(plan.kept, None);
            }
        }
    }

    #[test]
    fn what_is_somebody_elses_is_reported_and_never_touched() {
        for session in [THEIRS, SessionId::NONE] {
            let theirs = [found(FIXED, &fixed(), session)];
            let plan = plan_for(&fixed(), true, &theirs);
            assert!(plan.ops.is_empty(), "{plan:?}");
            assert_eq!(
                plan.conflict.map(|conflict| (conflict.path, conflict.session)),
                Some((FIXED.to_owned(), session))
            );
            let plan = plan_for(&fixed(), false, &theirs);
            assert!(plan.ops.is_empty() && plan.conflict.is_none(), "{plan:?}");
            let plan = plan_for(&numbered(), true, &[found(NUMBERED, &numbered(), session)]);
            assert!(matches!(plan.ops.as_slice(), [MultiOp::Create(_)]), "beside it: {plan:?}");
        }
    }

    #[test]
    fn only_a_record_of_our_owner_tells_of_an_earlier_session() {
        let of = |owner, session| {
            let stat = Stat { ephemeral_owner: session, ..Stat::default() };
            let data = Some(Bytes::from(record().encode().unwrap()));
            OwnSessions::of(&Observed::Found { data, stat }, owner, OURS)
        };
        assert_eq!(of("me", EARLIER).earlier, Some(EARLIER));
        assert_eq!(of("me", OURS).earlier, None);
        assert_eq!(of("you", EARLIER).earlier, None);
        assert_eq!(of("", EARLIER).earlier, None);
        assert_eq!(of("me", SessionId::NONE).earlier, None, "a persistent one lives by no session");
        assert_eq!(OwnSessions::of(&Observed::Missing, "me", OURS).earlier, None);
    }

    #[test]
    fn there_is_nothing_to_search_but_after_a_lost_answer_or_an_earlier_process() {
        let fresh = OwnSessions { current: OURS, earlier: None };
        let mut foreign = Foreign::default();
        foreign.begin(OURS);
        assert!(!foreign.needs_search(fresh));
        assert!(foreign.needs_search(OwnSessions { current: OURS, earlier: Some(EARLIER) }));

        let plans = vec![plan_for(&fixed(), true, &[]), plan_for(&numbered(), true, &[])];
        let results = [OpResult::Create(FIXED.to_owned()), OpResult::Create(NUMBERED.to_owned())];
        foreign.on_written(plans, &results);
        foreign.begin(OURS);
        assert_eq!(
            (foreign.paths(0), foreign.paths(1)),
            (&[FIXED.to_owned()][..], &[NUMBERED.to_owned()][..])
        );
        assert!(!foreign.needs_search(fresh));

        foreign.on_lost_answer();
        foreign.begin(OURS);
        assert!(foreign.needs_search(fresh), "an answer was lost");
        assert_eq!(foreign.paths(1), [NUMBERED]);
        foreign.begin(SessionId(8));
        let next = OwnSessions { current: SessionId(8), earlier: None };
        assert!(!foreign.needs_search(next), "what the other session had went with it");
        assert!(foreign.paths(1).is_empty());
    }

    #[test]
    fn formats_that_settings_leave_out_are_known_until_they_are_looked_at() {
        let id = Label::parse("web-1").unwrap();
        let mut foreign = Foreign::default();
        foreign.begin(OURS);
        let plans = vec![plan_for(&fixed(), true, &[]), plan_for(&numbered(), true, &[])];
        foreign.on_written(plans, &[FIXED, NUMBERED].map(|path| OpResult::Create(path.to_owned())));
        let other = target("/other", FormatKind::Nerve);
        foreign.change_formats(&id, &[fixed(), numbered()], &[other.clone(), numbered()]);
        assert_eq!(foreign.former(), [fixed()]);
        let paths = [0, 1, 2].map(|index| foreign.paths(index).concat());
        assert_eq!(paths, ["", NUMBERED, FIXED]);
        // Left out and back in before anything was written.
        let with_payload = target(
            "/services",
            FormatKind::Curator { name: "web".to_owned(), ssl_port: None, payload: Some("x".to_owned()) },
        );
        foreign.change_formats(&id, &[other.clone(), numbered()], &[with_payload]);
        assert_eq!(foreign.former(), [other, numbered()]);
        assert_eq!(foreign.paths(0), [FIXED], "the same place");
        foreign.on_written(Vec::new(), &[]);
        assert!(foreign.former().is_empty());
    }

    #[test]
    fn our_own_record_is_written_or_checked_in_the_same_multi() {
        let plans = [plan_for(&fixed(), true, &[]), plan_for(&numbered(), true, &[])];
        let stat = Stat { version: 3, ..Stat::default() };
        let observed = Observed::Found { data: None, stat };
        let own = vec![MultiOp::Delete { path: "/r/web".to_owned(), version: 3 }];
        let ops = in_one_multi("/r/web", &observed, own, &plans);
        assert!(
            matches!(ops.as_slice(), [MultiOp::Delete { .. }, MultiOp::Create(_), MultiOp::Create(_)]),
            "{ops:?}"
        );
        let ops = in_one_multi("/r/web", &observed, Vec::new(), &plans);
        assert!(matches!(ops[0], MultiOp::Check { version: 3, .. }), "{ops:?}");
        let nothing = [plan_for(&fixed(), false, &[])];
        assert!(in_one_multi("/r/web", &observed, Vec::new(), &nothing).is_empty());

        // The results of our own are the first, and say nothing about the others.
        let results = ["/r/web", FIXED, NUMBERED].map(|path| OpResult::Create(path.to_owned()));
        let mut foreign = Foreign::default();
        foreign.on_written(plans.into_iter().collect(), &results);
        assert_eq!(
            (foreign.paths(0), foreign.paths(1)),
            (&[FIXED.to_owned()][..], &[NUMBERED.to_owned()][..])
        );
    }

    fn plan_for(target: &FormatTarget, is_wanted: bool, found: &[FoundZnode]) -> ForeignPlan {
        let sessions = OwnSessions { current: OURS, earlier: Some(EARLIER) };
        plan_foreign(target.format(), &znode(target), is_wanted, found.to_vec(), sessions)
    }

    fn found(path: &str, target: &FormatTarget, session: SessionId) -> FoundZnode {
        let stat = Stat { ephemeral_owner: session, version: 3, ..Stat::default() };
        FoundZnode { path: path.to_owned(), data: Some(znode(target).data.into()), stat }
    }

    fn znode(target: &FormatTarget) -> ForeignZnode {
        target.znode(&Label::parse("web-1").unwrap(), &record())
    }

    fn fixed() -> FormatTarget {
        target("/services", FormatKind::Curator { name: "web".to_owned(), ssl_port: None, payload: None })
    }

    fn numbered() -> FormatTarget {
        target("/nerve", FormatKind::Nerve)
    }

    fn target(root: &str, kind: FormatKind) -> FormatTarget {
        FormatTarget { root: ZnodePath::parse(root).unwrap(), port: 80, kind }
    }

    fn record() -> Record {
        let text = br#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up","owner":"me"}"#;
        Record::decode(text).unwrap()
    }
}
