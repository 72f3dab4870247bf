use proptest::prelude::*;

use super::*;
use crate::id::Zxid;
use crate::tree::NodeRef;
use crate::tree::workload::{
    SESSION, Workload, create, create_of, delete, ephemeral, path, set_data, steps, tree_of, txn,
};
use crate::znode::Permissions;

proptest! {
    #[test]
    fn trees_that_applied_the_same_txns_are_equal_and_consistent(steps in steps(1..60)) {
        let mut workload = Workload::new();
        let mut follower = Tree::new();
        for step in &steps {
            let txn = workload.step(step);
            workload.tree.check_invariants();
            prop_assert_eq!(workload.tree.last_zxid(), txn.header.zxid);
            let received = Txn::decode(&txn.encode()).unwrap();
            prop_assert_eq!(&received, &txn);
            follower.apply(&received);
        }
        prop_assert_eq!(&follower, &workload.tree);
    }

    #[test]
    fn replaying_any_tail_of_the_history_ends_in_the_same_tree(
        steps in steps(1..40), again_from: prop::sample::Index,
    ) {
        // A snapshot of everything, replayed from any earlier zxid: the fuzziest there can be.
        let mut workload = Workload::new();
        let txns: Vec<_> = steps.iter().map(|step| workload.step(step)).collect();
        let mut replayed = workload.tree.clone();
        for txn in &txns[again_from.index(txns.len())..] {
            replayed.apply(txn);
            replayed.check_invariants();
        }
        prop_assert_eq!(&replayed, &workload.tree);
    }
}

#[test]
fn a_create_makes_the_znode_and_counts_in_its_parent() {
    let mut tree = Tree::new();
    let applied = tree.apply(&txn(5, create("/a", 1)));
    let stat = tree.node("/a").unwrap().stat();
    assert_eq!(applied.result, TxnResult::Created { path: path("/a"), stat });
    assert_eq!(applied.changes, [Change::Created(path("/a"))]);
    assert_eq!(
        (stat.czxid, stat.mzxid, stat.pzxid),
        (Zxid::from_raw(5), Zxid::from_raw(5), Zxid::from_raw(5))
    );
    assert_eq!(
        (stat.version, stat.cversion, stat.aversion, stat.ephemeral_owner),
        (0, 0, 0, SessionId::NONE)
    );
    let root = tree.node("/").unwrap();
    assert_eq!((root.persisted().cversion, root.persisted().pzxid), (1, Zxid::from_raw(5)));
    assert_eq!(root.children().collect::<Vec<_>>(), ["a", "zookeeper"]);
}

#[test]
fn kinds_of_znodes_are_stored_as_owners() {
    let mut tree = tree_of([ephemeral("/e", 1)]);
    let (acl, data) = (vec![Acl::open()], None);
    let container =
        TxnOp::CreateContainer { path: path("/c"), data: data.clone(), acl: acl.clone(), parent_cversion: 2 };
    let ttl = TxnOp::CreateTtl { path: path("/t"), data, acl, parent_cversion: 3, ttl_ms: 500 };
    tree.apply(&txn(8, container));
    tree.apply(&txn(9, ttl));
    let owner = |path| tree.node(path).unwrap().persisted().owner;
    assert_eq!(owner("/e"), Owner::Ephemeral(SESSION));
    assert_eq!(owner("/c"), Owner::Container);
    assert_eq!(owner("/t"), Owner::Ttl(500));
    assert_eq!(tree.ephemerals(SESSION).collect::<Vec<_>>(), [&path("/e")]);
    tree.check_invariants();
}

#[test]
fn a_delete_raises_the_parents_pzxid_and_not_its_cversion() {
    let mut tree = tree_of([create("/a", 1)]);
    let applied = tree.apply(&txn(9, delete("/a")));
    assert_eq!((applied.result, applied.changes), (TxnResult::Deleted, vec![Change::Deleted(path("/a"))]));
    let root = tree.node("/").unwrap();
    assert_eq!((root.persisted().cversion, root.persisted().pzxid), (1, Zxid::from_raw(9)));
    assert_eq!(tree.node("/a").map(NodeRef::stat), None);
}

#[test]
fn set_data_takes_the_version_of_the_txn() {
    let mut tree = tree_of([create("/a", 1)]);
    let applied = tree.apply(&txn(9, set_data("/a", "new", 7)));
    let node = tree.node("/a").unwrap();
    assert_eq!(
        (node.data(), node.stat().version, node.stat().mzxid),
        (Some(&b"new"[..]), 7, Zxid::from_raw(9))
    );
    assert_eq!(applied.result, TxnResult::Stat(node.stat()));
    assert_eq!(applied.changes, [Change::DataChanged(path("/a"))]);
}

#[test]
fn null_and_empty_data_stay_distinct() {
    let mut tree = tree_of([create("/a", 1)]);
    tree.apply(&txn(8, TxnOp::SetData { path: path("/a"), data: None, version: 1 }));
    assert_eq!(tree.node("/a").unwrap().data(), None);
    tree.apply(&txn(9, set_data("/a", "", 2)));
    assert_eq!(tree.node("/a").unwrap().data(), Some(&[][..]));
}

#[test]
fn set_acl_changes_the_aversion_alone_and_fires_nothing() {
    let mut tree = tree_of([create("/a", 1)]);
    let before = tree.node("/a").unwrap().stat();
    let acl = vec![Acl::anyone(Permissions::READ)];
    let applied = tree.apply(&txn(9, TxnOp::SetAcl { path: path("/a"), acl: acl.clone(), version: 1 }));
    let node = tree.node("/a").unwrap();
    assert_eq!(node.stat(), Stat { aversion: 1, ..before });
    assert_eq!((node.acl(), applied.changes), (&acl[..], vec![]));
}

#[test]
fn a_session_comes_and_goes_with_its_ephemerals_in_the_order_listed() {
    let mut tree = tree_of([TxnOp::CreateSession { timeout_ms: 6000 }]);
    assert_eq!(tree.sessions().get(SESSION), Some(6000));
    for (zxid, name) in (10..).zip(["/a", "/b", "/c"]) {
        tree.apply(&txn(zxid, ephemeral(name, -1)));
    }
    let paths = Some(vec![path("/c"), path("/a")]);
    let applied = tree.apply(&txn(20, TxnOp::CloseSession { paths }));
    let deleted = ["/c", "/a", "/b"].map(|name| Change::Deleted(path(name)));
    assert_eq!((applied.result, applied.changes), (TxnResult::SessionClosed, deleted.into()));
    assert!(tree.sessions().is_empty());
    assert_eq!(tree.ephemerals(SESSION).count(), 0);
}

#[test]
fn a_multi_applies_in_order_and_moves_the_zxid_once() {
    let mut tree = tree_of([create("/a", 1)]);
    let check = TxnOp::Check { path: path("/a"), version: 1 };
    let ops = vec![check, create("/a/b", 1), set_data("/a/b", "x", 1), delete("/a/b")];
    let applied = tree.apply(&txn(9, TxnOp::Multi(ops)));
    let TxnResult::Multi(results) = applied.result else { panic!("not a multi's result") };
    assert!(matches!(
        results[..],
        [TxnResult::Checked, TxnResult::Created { .. }, TxnResult::Stat(_), TxnResult::Deleted]
    ));
    let changed = path("/a/b");
    let changes =
        [Change::Created(changed.clone()), Change::DataChanged(changed.clone()), Change::Deleted(changed)];
    assert_eq!(applied.changes, changes);
    assert_eq!(tree.last_zxid(), Zxid::from_raw(9));
}

#[test]
fn a_multi_with_an_error_applies_nothing() {
    let mut tree = tree_of([create("/a", 1)]);
    let before = tree.clone();
    let ops = vec![create("/b", 2), TxnOp::Error(OpError::BadVersion), delete("/a")];
    let applied = tree.apply(&txn(before.last_zxid().raw(), TxnOp::Multi(ops)));
    let results = vec![
        TxnResult::RolledBack,
        TxnResult::Error(OpError::BadVersion),
        TxnResult::Error(OpError::RuntimeInconsistency),
    ];
    assert_eq!((applied.result, applied.changes), (TxnResult::Multi(results), vec![]));
    assert_eq!(tree, before);
}

// What replay behind a fuzzy snapshot meets; one test for each row of the table above.

#[test]
fn a_create_of_a_znode_that_is_there_raises_the_parent_and_takes_the_acl() {
    let mut tree = tree_of([create("/a", 1)]);
    tree.apply(&txn(4, set_data("/a", "later", 3)));
    let stat = tree.node("/a").unwrap().stat();
    let acl = vec![Acl::anyone(Permissions::READ)];
    for kind in [TxnOp::Create, TxnOp::Create2] {
        let again = CreateTxn { acl: acl.clone(), parent_cversion: 5, ..create_of("/a", 5) };
        let applied = tree.apply(&txn(9, kind(again)));
        assert_eq!((applied.result, applied.changes), (TxnResult::Error(OpError::NodeExists), vec![]));
    }
    let (node, root) = (tree.node("/a").unwrap(), tree.node("/").unwrap());
    assert_eq!((node.data(), node.stat(), node.acl()), (Some(&b"later"[..]), stat, &acl[..]));
    assert_eq!((root.persisted().cversion, root.persisted().pzxid), (5, Zxid::from_raw(9)));
    tree.check_invariants();
}

#[test]
fn a_create_never_lowers_the_parents_count() {
    let mut tree = tree_of([create("/a", 7)]);
    let pzxid = tree.node("/").unwrap().persisted().pzxid;
    tree.apply(&txn(9, create("/b", 7)));
    let root = tree.node("/").unwrap();
    assert_eq!((root.persisted().cversion, root.persisted().pzxid), (7, pzxid));
    tree.apply(&txn(10, create("/c", CreateTxn::PARENT_CVERSION_NEXT)));
    assert_eq!(tree.node("/").unwrap().persisted().cversion, 8);
}

#[test]
fn a_create_below_a_missing_parent_does_nothing() {
    unchanged_but_for_the_zxid(create("/missing/a", 1), OpError::NoNode);
}

#[test]
fn a_delete_of_a_missing_znode_raises_the_parents_pzxid() {
    let mut tree = tree_of([create("/a", 1)]);
    let applied = tree.apply(&txn(9, delete("/b")));
    assert_eq!((applied.result, applied.changes), (TxnResult::Error(OpError::NoNode), vec![]));
    assert_eq!(tree.node("/").unwrap().persisted().pzxid, Zxid::from_raw(9));
    tree.check_invariants();
}

#[test]
fn a_delete_never_lowers_the_parents_pzxid() {
    let mut tree = Tree::new();
    tree.apply(&txn(9, create("/a", 1)));
    tree.apply(&txn(8, delete("/a")));
    assert_eq!(tree.node("/").unwrap().persisted().pzxid, Zxid::from_raw(9));
}

#[test]
fn a_delete_takes_children_of_a_later_znode_along() {
    let mut tree = tree_of([create("/a", 1), create("/a/b", 1), ephemeral("/a/b/c", 1)]);
    tree.apply(&txn(9, delete("/a")));
    assert_eq!((tree.node_count(), tree.ephemerals(SESSION).count()), (4, 0));
    tree.check_invariants();
}

#[test]
fn set_data_and_set_acl_of_a_missing_znode_do_nothing() {
    unchanged_but_for_the_zxid(set_data("/a", "x", 1), OpError::NoNode);
    let set_acl = TxnOp::SetAcl { path: path("/a"), acl: vec![], version: 1 };
    unchanged_but_for_the_zxid(set_acl, OpError::NoNode);
}

#[test]
fn set_data_older_than_the_znode_overwrites() {
    let mut tree = tree_of([create("/a", 1)]);
    tree.apply(&txn(9, set_data("/a", "new", 2)));
    tree.apply(&txn(8, set_data("/a", "old", 1)));
    let node = tree.node("/a").unwrap();
    assert_eq!((node.data(), node.stat().version), (Some(&b"old"[..]), 1));
    assert_eq!(tree.last_zxid(), Zxid::from_raw(9), "the zxid never goes back");
}

#[test]
fn close_session_raises_the_parents_pzxid_when_the_ephemeral_has_gone() {
    let mut tree = tree_of([create("/a", 1)]);
    let applied = tree.apply(&txn(9, TxnOp::CloseSession { paths: Some(vec![path("/a/gone")]) }));
    assert_eq!((applied.result, applied.changes), (TxnResult::SessionClosed, vec![]));
    assert_eq!(tree.node("/a").unwrap().persisted().pzxid, Zxid::from_raw(9));
}

#[test]
fn close_session_without_paths_removes_what_the_session_owns() {
    let mut tree = tree_of([ephemeral("/a", 1), create("/b", 2)]);
    tree.apply(&txn(9, TxnOp::CloseSession { paths: None }));
    assert!(tree.node("/a").is_none() && tree.node("/b").is_some());
}

#[test]
fn a_replayed_multi_is_tolerant_in_each_operation() {
    let mut tree = tree_of([create("/a", 1)]);
    let ops = vec![create("/a", 1), delete("/gone"), create("/b", 2)];
    let applied = tree.apply(&txn(9, TxnOp::Multi(ops)));
    let TxnResult::Multi(results) = applied.result else { panic!("not a multi's result") };
    assert_eq!(results[..2], [OpError::NodeExists, OpError::NoNode].map(TxnResult::Error));
    assert!(tree.node("/b").is_some());
}

#[test]
fn an_error_changes_nothing_but_the_zxid() {
    unchanged_but_for_the_zxid(TxnOp::Error(OpError::BadVersion), OpError::BadVersion);
}

fn unchanged_but_for_the_zxid(op: TxnOp, error: OpError) {
    let mut tree = Tree::new();
    let applied = tree.apply(&txn(9, op));
    assert_eq!(applied, Applied { result: TxnResult::Error(error), changes: vec![] });
    let mut expected = Tree::new();
    expected.set_last_zxid(Zxid::from_raw(9));
    assert_eq!(tree, expected);
}
