//! Which instances are written in one multi, and what the server's answer says of each of them. Pure.
//!
//! ```text
//! drafts ──► batches ──► a multi each ─┬─► results ──► what is in the tree now, for each instance
//!                                      └─► refusal ──► who is at fault, and who is looked at anew
//! ```
//!
//! - What is to be written at the same time is written in one multi, up to [`BATCH_BYTES_MAX`]: readers see the instances of
//!   a pod come and go together, and the ensemble has one txn of them.
//! - Who cannot be written holds up nobody. The server names the operation at fault; its instance fails if that is for good, and
//!   the others are tried again without it. Who spoils several multis is written apart, and in the last rounds everybody is.

use super::entry::Outcome;
use super::foreign::{Foreign, ForeignPlan};
use super::plan::Wanted;
use crate::client::{ClientError, MultiOp, OpResult};
use crate::znode::OpError;

/// What one multi may have, as it is on the wire. Servers refuse requests above 1 MiB (`jute.maxbuffer`), and what they log and
/// send each other of one has to stay below that as well.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// More than an operation has beside its path and its data: its header, an ACL, lengths and flags.
const OP_BYTES: usize = 100;
/// Who was at fault for so many multis is written apart.
pub(super) const FAULTS_MAX: u32 = 2;
/// Rounds in which instances are written together; from then on each is alone, whoever is at fault.
const ROUNDS_TOGETHER: u32 = 3;

/// One instance on its way to what is wanted of it.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Which of the instances.
    pub(super) index: usize,
    pub(super) wanted: Wanted,
    pub(super) foreign: Foreign,
    /// Multis that failed because of it.
    pub(super) faults: u32,
}

/// What is to be written of one instance, by what was read.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) attempt: Attempt,
    /// All operations: on our own record, then those of `formats`.
    pub(super) ops: Vec<MultiOp>,
    /// `None` when it is not decided whether it is to be there at all.
    pub(super) formats: Option<Vec<ForeignPlan>>,
    /// What it comes to once they are carried out.
    pub(super) outcome: Outcome,
}

impl Draft {
    /// What it has come to, if these are the results of its operations.
    pub(super) fn done(self, results: &[OpResult]) -> (Attempt, Outcome) {
        let Self { mut attempt, formats, outcome, .. } = self;
        if let Some(formats) = formats {
            attempt.foreign.on_written(formats, results);
        }
        (attempt, outcome)
    }

    fn bytes(&self) -> usize {
        self.ops.iter().map(bytes_of).sum()
    }
}

/// What is written in one multi.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) drafts: Vec<Draft>,
}

/// What a multi that was not carried out, or not answered, leaves to do.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// Those that have failed.
    pub(super) failed: Vec<(Attempt, ClientError)>,
    /// Those that are to be looked at anew.
    pub(super) again: Vec<Draft>,
    /// The instance below which a znode could not be created for want of its parent.
    pub(super) orphan: Option<usize>,
}

/// Distributes what has something to write. `round` counts the looks, from 0.
pub(super) fn in_batches(drafts: Vec<Draft>, round: u32) -> Vec<Batch> {
    let is_apart = |draft: &Draft| round >= ROUNDS_TOGETHER || draft.attempt.faults >= FAULTS_MAX;
    let (apart, together): (Vec<_>, Vec<_>) = drafts.into_iter().partition(is_apart);
    let mut batches: Vec<Batch> = Vec::new();
    let mut room = 0;
    for draft in together {
        let bytes = draft.bytes();
        match batches.last_mut() {
            Some(batch) if bytes <= room => batch.drafts.push(draft),
            Some(_) | None => {
                room = BATCH_BYTES_MAX;
                batches.push(Batch { drafts: vec![draft] });
            }
        }
        room = room.saturating_sub(bytes);
    }
    batches.extend(apart.into_iter().map(|draft| Batch { drafts: vec![draft] }));
    batches
}

impl Batch {
    /// The operations of the multi.
    pub(super) fn ops(&self) -> Vec<MultiOp> {
        self.drafts.iter().flat_map(|draft| draft.ops.iter().cloned()).collect()
    }

    /// Gives each instance the results of its operations.
    pub(super) fn on_written(self, results: &[OpResult]) -> Vec<(Attempt, Outcome)> {
        let mut rest = results;
        let done = |draft: Draft| {
            let (own, others) = rest.split_at(draft.ops.len().min(rest.len()));
            rest = others;
            draft.done(own)
        };
        self.drafts.into_iter().map(done).collect()
    }

    /// Decides what becomes of the instances after this error.
    pub(super) fn on_error(mut self, error: &ClientError) -> Refusal {
        match error {
            ClientError::Multi { index, error: op_error, .. } => match self.whose(*index) {
                // Only the one at fault has an error of its own.
                Some((position, op)) if *op_error != OpError::RuntimeInconsistency => {
                    self.on_fault(position, op, *op_error, error)
                }
                Some(_) | None => self.on_refused_whole(error),
            },
            ClientError::Op { .. } | ClientError::TooLong { .. } => self.on_refused_whole(error),
            ClientError::ConnectionLost { .. }
            | ClientError::NotConnected { .. }
            | ClientError::SessionExpired { .. }
            | ClientError::TooManyWatches { .. }
            | ClientError::Reserved { .. }
            | ClientError::UnexpectedReply { .. }
            | ClientError::NotClosed { .. }
            | ClientError::Closed => {
                self.drafts.iter_mut().for_each(|draft| draft.attempt.foreign.on_lost_answer());
                self.all_failed(error)
            }
        }
    }

    /// One instance's operation is at fault: that has failed unless the tree has changed since it was read.
    fn on_fault(mut self, position: usize, op: usize, op_error: OpError, error: &ClientError) -> Refusal {
        let mut refusal = Refusal::default();
        let mut at_fault = self.drafts.remove(position);
        let is_create = matches!(at_fault.ops[op], MultiOp::Create(_) | MultiOp::Create2(_));
        if matches!(op_error, OpError::NoNode | OpError::NodeExists | OpError::BadVersion) {
            let is_orphan = is_create && op_error == OpError::NoNode;
            refusal.orphan = is_orphan.then_some(at_fault.attempt.index);
            at_fault.attempt.faults += 1;
            self.drafts.insert(position, at_fault);
        } else {
            refusal.failed.push((at_fault.attempt, error.clone()));
        }
        Refusal { again: self.drafts, ..refusal }
    }

    /// No operation is to blame: each instance by itself may do.
    fn on_refused_whole(mut self, error: &ClientError) -> Refusal {
        if self.drafts.len() <= 1 {
            return self.all_failed(error);
        }
        self.drafts.iter_mut().for_each(|draft| draft.attempt.faults = FAULTS_MAX);
        Refusal { again: self.drafts, ..Refusal::default() }
    }

    fn all_failed(self, error: &ClientError) -> Refusal {
        let failed = self.drafts.into_iter().map(|draft| (draft.attempt, error.clone())).collect();
        Refusal { failed, ..Refusal::default() }
    }

    /// Which draft the operation with this number belongs to, and its number there.
    fn whose(&self, mut op: usize) -> Option<(usize, usize)> {
        for (position, draft) in self.drafts.iter().enumerate() {
            match op.checked_sub(draft.ops.len()) {
                None => return Some((position, op)),
                Some(rest) => op = rest,
            }
        }
        None
    }
}

fn bytes_of(op: &MultiOp) -> usize {
    let (path, data) = match op {
        MultiOp::Create(create) | MultiOp::Create2(create) => (&create.path, &create.data),
        MultiOp::SetData { path, data, .. } => (path, data),
        MultiOp::Delete { path, .. } | MultiOp::Check { path, .. } => (path, &None),
    };
    OP_BYTES + path.len() + data.as_ref().map_or(0, |data| data.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{CreateRequest, Operation};
    use crate::id::SessionId;
    use crate::registry::formats::{FormatKind, FormatTarget};
    use crate::registry::name::Label;
    use crate::registry::record::Record;
    use crate::registry::registrar::foreign::{FoundZnode, OwnSessions, plan_foreign};
    use crate::registry::registrar::{Observed, ROUNDS_MAX};
    use crate::znode::{CreateMode, OpCode, Stat, ZnodePath};

    #[test]
    fn what_is_written_at_the_same_time_is_one_multi() {
        let batches = in_batches((0..100).map(|index| draft(index, 2, 100)).collect(), 0);
        assert_eq!(indexes(&batches), [(0..100).collect::<Vec<_>>()]);
        assert_eq!(batches[0].ops().len(), 200);
        assert!(in_batches(Vec::new(), 0).is_empty());
    }

    #[test]
    fn a_multi_is_bounded_and_none_is_left_out() {
        let drafts: Vec<_> = (0..100).map(|index| draft(index, 2, 16 << 10)).collect();
        let all: usize = drafts.iter().map(Draft::bytes).sum();
        let batches = in_batches(drafts, 0);
        let sizes: Vec<usize> =
            batches.iter().map(|batch| batch.drafts.iter().map(Draft::bytes).sum()).collect();
        assert!(sizes.iter().all(|size| *size <= BATCH_BYTES_MAX), "{sizes:?}");
        assert!(batches.len() <= all / BATCH_BYTES_MAX + 2, "{sizes:?}");
        assert_eq!(indexes(&batches).concat(), (0..100).collect::<Vec<_>>());
        // What is longer by itself is sent by itself: the server decides.
        let batches = in_batches(vec![draft(0, 1, 10), draft(1, 1, BATCH_BYTES_MAX), draft(2, 1, 10)], 0);
        assert_eq!(indexes(&batches), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn results_go_to_those_whose_operations_they_are_of() {
        let nerve =
            FormatTarget { root: ZnodePath::parse("/nerve").unwrap(), port: 80, kind: FormatKind::Nerve };
        let record = Record::decode(RECORD).unwrap();
        let znode = nerve.znode(&Label::parse("one").unwrap(), &record);
        let with_format = |index, found: Vec<FoundZnode>, own| {
            let sessions = OwnSessions::of(&Observed::Missing, "me", SessionId(7));
            let plan = plan_foreign(nerve.format(), &znode, true, found, sessions);
            let mut draft = draft(index, own, 1);
            draft.ops.extend(plan.ops.iter().cloned());
            draft.formats.get_or_insert_default().push(plan);
            draft
        };
        let stat = Stat { ephemeral_owner: SessionId(7), ..Stat::default() };
        let kept = FoundZnode { path: "/nerve/kept".to_owned(), data: Some(znode.data.clone().into()), stat };
        let batch = Batch {
            drafts: vec![
                with_format(0, Vec::new(), 2),
                draft(1, 1, 1),
                with_format(2, vec![kept], 1),
                with_format(3, Vec::new(), 0),
            ],
        };
        let created = |path: &str| OpResult::Create(path.to_owned());
        let results = [
            OpResult::Delete,
            created("/own/0"),
            created("/nerve/0"),
            created("/own/1"),
            created("/own/2"),
            created("/nerve/3"),
        ];
        assert_eq!(batch.ops().len(), results.len());
        let done = batch.on_written(&results);
        let paths: Vec<_> = done.iter().map(|(it, _)| (it.index, it.foreign.paths(0).concat())).collect();
        let expected = [(0, "/nerve/0"), (1, ""), (2, "/nerve/kept"), (3, "/nerve/3")];
        assert_eq!(paths, expected.map(|(index, path)| (index, path.to_owned())));
    }

    #[test]
    fn what_was_not_looked_at_is_known_as_before() {
        let mut undecided = draft(0, 0, 0);
        let target =
            FormatTarget { root: ZnodePath::parse("/nerve").unwrap(), port: 80, kind: FormatKind::Nerve };
        let id = Label::parse("web").unwrap();
        undecided.attempt.foreign.change_formats(&id, std::slice::from_ref(&target), &[]);
        let (attempt, _) = undecided.done(&[]);
        assert_eq!(attempt.foreign.former(), [target]);
    }

    #[test]
    fn who_cannot_be_written_fails_and_the_others_are_tried_without_it() {
        // Operations 0 and 1 are the first's, 2 and 3 the second's, 4 and 5 the third's.
        for (op, at_fault) in [(0, 0), (1, 0), (2, 1), (3, 1), (5, 2)] {
            let refusal = three().on_error(&multi_error(op, OpError::NoAuth));
            let failed: Vec<_> = refusal.failed.iter().map(|(attempt, _)| attempt.index).collect();
            assert_eq!(failed, [at_fault], "operation {op}");
            let again: Vec<_> = refusal.again.iter().map(|draft| draft.attempt.index).collect();
            assert_eq!(again, (0..3).filter(|index| *index != at_fault).collect::<Vec<_>>());
            assert_eq!(refusal.orphan, None);
        }
    }

    #[test]
    fn all_are_looked_at_anew_when_the_tree_has_changed_and_who_spoils_it_again_is_written_apart() {
        for error in [OpError::BadVersion, OpError::NodeExists, OpError::NoNode] {
            let refusal = three().on_error(&multi_error(3, error));
            assert!(refusal.failed.is_empty(), "{error}");
            assert_eq!(refusal.orphan, (error == OpError::NoNode).then_some(1));
            let batches = in_batches(refusal.again, 1);
            assert_eq!(indexes(&batches), [vec![0, 1, 2]], "{error}: once may be chance");
            let again = batches.into_iter().next().unwrap().on_error(&multi_error(3, error)).again;
            assert_eq!(indexes(&in_batches(again, 2)), [vec![0, 2], vec![1]], "{error}");
        }
        let gone = three().on_error(&multi_error(2, OpError::NoNode));
        assert_eq!((gone.orphan, gone.again.len()), (None, 3), "a deletion needs no parent");
    }

    #[test]
    fn in_the_last_rounds_everybody_is_alone() {
        assert_eq!(indexes(&in_batches(three().drafts, ROUNDS_TOGETHER - 1)), [vec![0, 1, 2]]);
        assert_eq!(indexes(&in_batches(three().drafts, ROUNDS_TOGETHER)), [vec![0], vec![1], vec![2]]);
        const { assert!(ROUNDS_TOGETHER < ROUNDS_MAX) };
    }

    #[test]
    fn what_is_refused_as_a_whole_is_tried_one_by_one() {
        let operation = multi_operation();
        let too_long = ClientError::TooLong { operation: operation.clone(), bytes: 2 << 20, max: 1 << 20 };
        let refused = ClientError::Op { operation, error: OpError::MarshallingError };
        for error in [
            too_long,
            refused,
            multi_error(0, OpError::RuntimeInconsistency),
            multi_error(9, OpError::NoAuth),
        ] {
            let refusal = three().on_error(&error);
            assert!(refusal.failed.is_empty(), "{error}");
            let alone = in_batches(refusal.again, 1);
            assert_eq!(indexes(&alone), [vec![0], vec![1], vec![2]], "{error}");
            let refusal = alone.into_iter().next().unwrap().on_error(&error);
            assert_eq!((refusal.failed.len(), refusal.again.len()), (1, 0), "{error}");
        }
    }

    #[test]
    fn a_lost_answer_leaves_all_of_them_unsure() {
        let error = ClientError::ConnectionLost {
            operation: multi_operation(),
            server: "there:1".into(),
            cause: "reset".into(),
        };
        let refusal = three().on_error(&error);
        assert!(refusal.again.is_empty());
        let sessions = OwnSessions::of(&Observed::Missing, "me", SessionId(7));
        let unsure = |(attempt, _): &(Attempt, ClientError)| attempt.foreign.needs_search(sessions);
        assert_eq!(refusal.failed.iter().filter(|failed| unsure(failed)).count(), 3);
        let sure = three().on_error(&multi_error(0, OpError::NoAuth));
        assert!(!unsure(&sure.failed[0]), "nothing was written");
    }

    const RECORD: &[u8] =
        br#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up","owner":"me"}"#;

    /// Three that each have a deletion and a creation.
    fn three() -> Batch {
        Batch { drafts: (0..3).map(|index| draft(index, 2, 10)).collect() }
    }

    /// One with so many operations: creations of this length, and a deletion before them if there are several.
    fn draft(index: usize, ops: usize, bytes: usize) -> Draft {
        let path = || format!("/own/{index}");
        let create =
            || MultiOp::Create(CreateRequest::open(path(), vec![b'x'; bytes], CreateMode::Ephemeral));
        let op = |op| match op {
            0 if ops > 1 => MultiOp::Delete { path: path(), version: 1 },
            _ => create(),
        };
        let attempt = Attempt { index, wanted: Wanted::Undecided, foreign: Foreign::default(), faults: 0 };
        let (ops, outcome) = ((0..ops).map(op).collect(), Outcome::Settled(None));
        Draft { attempt, ops, formats: None, outcome }
    }

    fn indexes(batches: &[Batch]) -> Vec<Vec<usize>> {
        let of = |batch: &Batch| batch.drafts.iter().map(|draft| draft.attempt.index).collect();
        batches.iter().map(of).collect()
    }

    fn multi_error(index: usize, error: OpError) -> ClientError {
        ClientError::Multi { index, count: 6, operation: multi_operation(), error }
    }

    fn multi_operation() -> Operation {
        Operation { op: OpCode::Multi, path: String::new() }
    }
}
