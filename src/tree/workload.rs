//! Txns for tests: single ones by hand, and a leader in small that makes valid ones from numbers.

use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;

use super::{CreateTxn, Tree, Txn, TxnHeader, TxnOp};
use crate::id::{SessionId, Xid, Zxid};
use crate::znode::{Acl, OpError, Owner, Permissions, ZnodePath};

/// The session of every txn made by hand.
pub(super) const SESSION: SessionId = SessionId(0x0100_0000_0000_0001);

pub(super) fn path(text: &str) -> ZnodePath {
    ZnodePath::parse(text).unwrap()
}

pub(super) fn header(zxid: i64) -> TxnHeader {
    TxnHeader { session: SESSION, cxid: Xid(1), zxid: Zxid::from_raw(zxid), time_ms: 1_000 + zxid }
}

pub(super) fn txn(zxid: i64, op: TxnOp) -> Txn {
    Txn { header: header(zxid), op, digest: None }
}

/// A new tree to which `ops` were applied from zxid 1 on.
pub(super) fn tree_of(ops: impl IntoIterator<Item = TxnOp>) -> Tree {
    let mut tree = Tree::new();
    for (zxid, op) in (1..).zip(ops) {
        tree.apply(&txn(zxid, op));
    }
    tree
}

pub(super) fn create_of(text: &str, parent_cversion: i32) -> CreateTxn {
    let data = Some(Bytes::from_static(b"data"));
    CreateTxn { path: path(text), data, acl: vec![Acl::open()], ephemeral: false, parent_cversion }
}

pub(super) fn create(text: &str, parent_cversion: i32) -> TxnOp {
    TxnOp::Create(create_of(text, parent_cversion))
}

pub(super) fn ephemeral(text: &str, parent_cversion: i32) -> TxnOp {
    TxnOp::Create2(CreateTxn { ephemeral: true, ..create_of(text, parent_cversion) })
}

pub(super) fn delete(text: &str) -> TxnOp {
    TxnOp::Delete { path: path(text) }
}

pub(super) fn set_data(text: &str, data: &'static str, version: i32) -> TxnOp {
    TxnOp::SetData { path: path(text), data: Some(Bytes::from_static(data.as_bytes())), version }
}

/// Numbers from which [`Workload::step`] makes one txn.
#[derive(Clone, Debug)]
pub(super) struct Step {
    kind: u8,
    session: u8,
    choices: Vec<[u8; 4]>,
}

pub(super) fn steps(count: Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let choices = prop::collection::vec(any::<[u8; 4]>(), 1..5);
    let step = (any::<u8>(), 0..3_u8, choices);
    prop::collection::vec(step.prop_map(|(kind, session, choices)| Step { kind, session, choices }), count)
}

/// A leader in small: every txn it makes is valid for its tree and applied to it.
pub(super) struct Workload {
    pub(super) tree: Tree,
}

impl Workload {
    pub(super) fn new() -> Self {
        Self { tree: Tree::new() }
    }

    pub(super) fn of(steps: &[Step]) -> Self {
        let mut workload = Self::new();
        for step in steps {
            workload.step(step);
        }
        workload
    }

    pub(super) fn step(&mut self, step: &Step) -> Txn {
        let zxid = self.tree.last_zxid().raw() + 1;
        let session = SessionId(SESSION.0 + i64::from(step.session));
        let header = TxnHeader { session, ..header(zxid) };
        let op = match step.kind % 12 {
            0 => self.toggle_session(session),
            1 => self.close_session(session),
            2 | 3 => self.multi(header, step),
            _ => single(&self.tree, &step.choices[0]),
        };
        let txn = Txn { header, op, digest: None };
        self.tree.apply(&txn);
        txn
    }

    fn toggle_session(&self, session: SessionId) -> TxnOp {
        match self.tree.sessions().contains(session) {
            true => self.close_session(session),
            false => TxnOp::CreateSession { timeout_ms: 6_000 },
        }
    }

    fn close_session(&self, session: SessionId) -> TxnOp {
        TxnOp::CloseSession { paths: Some(self.tree.ephemerals(session).cloned().collect()) }
    }

    /// A multi whose operations build on one another; now and then one that failed.
    fn multi(&self, header: TxnHeader, step: &Step) -> TxnOp {
        let mut tentative = self.tree.clone();
        let mut ops = Vec::new();
        for choice in &step.choices {
            let op = single(&tentative, choice);
            if matches!(op, TxnOp::Error(_) | TxnOp::SetAcl { .. }) {
                continue;
            }
            tentative.apply(&Txn { header, op: op.clone(), digest: None });
            ops.push(op);
        }
        if step.kind.is_multiple_of(5) {
            ops.insert(ops.len() / 2, TxnOp::Error(OpError::BadVersion));
        }
        TxnOp::Multi(ops)
    }
}

/// An operation that is valid for `tree`, by kind, place, name and value.
fn single(tree: &Tree, &[kind, place, name, value]: &[u8; 4]) -> TxnOp {
    let nodes: Vec<_> = tree
        .nodes()
        .filter(|(path, _)| !path.starts_with("/zookeeper"))
        .map(|(text, _)| path(&text))
        .collect();
    let place = &nodes[usize::from(place) % nodes.len()];
    let node = tree.node(place.as_str()).unwrap();
    let acl = vec![Acl::anyone(Permissions(i32::from(value % 8) * 4 + 3))];
    let data = (value % 5 != 0).then(|| Bytes::from(vec![value; usize::from(value % 7)]));
    match kind % 8 {
        0..=3 => {
            let parent_cversion = node.persisted().cversion + 1;
            let path = place.join(["a", "b", "c", "d"][usize::from(name) % 4]).unwrap();
            if tree.node(path.as_str()).is_some() {
                return TxnOp::Error(OpError::NodeExists);
            }
            if matches!(node.persisted().owner, Owner::Ephemeral(_)) {
                return TxnOp::Error(OpError::NoChildrenForEphemerals);
            }
            match name / 4 % 8 {
                0 => TxnOp::CreateContainer { path, data, acl, parent_cversion },
                1 => TxnOp::CreateTtl { path, data, acl, parent_cversion, ttl_ms: 50 },
                2 => TxnOp::Create2(CreateTxn { path, data, acl, ephemeral: false, parent_cversion }),
                kind => TxnOp::Create(CreateTxn { path, data, acl, ephemeral: kind < 6, parent_cversion }),
            }
        }
        4 | 5 if place.is_root() || node.child_count() > 0 => TxnOp::Error(OpError::NotEmpty),
        4 | 5 => TxnOp::Delete { path: place.clone() },
        6 => TxnOp::SetData { path: place.clone(), data, version: node.persisted().version + 1 },
        _ => TxnOp::SetAcl { path: place.clone(), acl, version: node.persisted().aversion + 1 },
    }
}
