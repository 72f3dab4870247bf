//! The tree: applying txns, looking znodes up, writing and reading snapshots, with counts of allocations.

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

use rollcall::codec::Reader;
use rollcall::id::{SessionId, Xid, Zxid};
use rollcall::tree::{CreateTxn, Tree, Txn, TxnHeader, TxnOp};
use rollcall::znode::{Acl, ZnodePath};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

/// Siblings of the znode at work: a create must not cost more among many.
const SIBLINGS: [usize; 3] = [10, 1_000, 100_000];
const DATA: &[u8] = &[b'x'; 100];

fn main() {
    divan::main();
}

#[divan::bench(args = SIBLINGS)]
fn create_and_delete(bencher: Bencher<'_, '_>, siblings: usize) {
    let mut tree = tree_with(siblings);
    let create = txn(&tree, create("/service/new"));
    let delete = txn(&tree, TxnOp::Delete { path: path("/service/new") });
    bencher.counter(ItemsCount::new(2_usize)).bench_local(move || {
        black_box(tree.apply(&create));
        black_box(tree.apply(&delete));
    });
}

#[divan::bench(args = SIBLINGS)]
fn set_data(bencher: Bencher<'_, '_>, siblings: usize) {
    let mut tree = tree_with(siblings);
    let data = Some(Bytes::from_static(DATA));
    let set_data =
        txn(&tree, TxnOp::SetData { path: path("/service/instance-0000000007"), data, version: 1 });
    bencher.bench_local(move || tree.apply(black_box(&set_data)));
}

#[divan::bench(args = SIBLINGS)]
fn lookup(bencher: Bencher<'_, '_>, siblings: usize) {
    let tree = tree_with(siblings);
    bencher
        .bench_local(|| tree.node(black_box("/service/instance-0000000007")).map(|node| node.stat().version));
}

#[divan::bench(args = [1_000, 100_000], sample_count = 10)]
fn snapshot_write(bencher: Bencher<'_, '_>, znodes: usize) {
    let tree = tree_with(znodes);
    bencher.counter(ItemsCount::new(znodes)).bench_local(|| snapshot_of(black_box(&tree)));
}

#[divan::bench(args = [1_000, 100_000], sample_count = 10)]
fn snapshot_read(bencher: Bencher<'_, '_>, znodes: usize) {
    let bytes = snapshot_of(&tree_with(znodes));
    bencher.counter(ItemsCount::new(znodes)).bench_local(|| {
        Tree::decode_snapshot(&mut Reader::new(black_box(&bytes)), Zxid::ZERO).expect("written just now")
    });
}

fn tree_with(siblings: usize) -> Tree {
    let mut tree = Tree::new();
    tree.apply(&txn(&tree, create("/service")));
    for number in 0..siblings {
        tree.apply(&txn(&tree, create(&format!("/service/instance-{number:010}"))));
    }
    tree
}

fn snapshot_of(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut cursor = tree.begin_snapshot(&mut bytes);
    while !tree.continue_snapshot(&mut cursor, 1_000, &mut bytes) {}
    bytes
}

fn create(text: &str) -> TxnOp {
    TxnOp::Create(CreateTxn {
        path: path(text),
        data: Some(Bytes::from_static(DATA)),
        acl: vec![Acl::open()],
        ephemeral: false,
        parent_cversion: CreateTxn::PARENT_CVERSION_NEXT,
    })
}

fn txn(tree: &Tree, op: TxnOp) -> Txn {
    let zxid = Zxid::from_raw(tree.last_zxid().raw() + 1);
    let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid, time_ms: 0 };
    Txn { header, op, digest: None }
}

fn path(text: &str) -> ZnodePath {
    ZnodePath::parse(text).expect("follows the rules")
}
