//! Appending to the log and syncing it, on a real folder: what one acknowledged batch costs.

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;

use rollcall::id::{SessionId, Xid, Zxid};
use rollcall::storage::{FileDisk, Storage};
use rollcall::tree::{Txn, TxnHeader, TxnOp};
use rollcall::zab::Entry;
use rollcall::znode::ZnodePath;

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 16, 256])]
fn append_and_sync(bencher: Bencher<'_, '_>, batch: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let disk = FileDisk::open(folder.path(), None).expect("the folder is empty");
    let (mut storage, _) = Storage::open(disk).expect("a new history can be started");
    let mut zxid = Zxid::ZERO;
    bencher.counter(ItemsCount::new(batch)).bench_local(|| {
        for _ in 0..batch {
            zxid = zxid.next().expect("a run is shorter than an epoch");
            storage.append(&entry(zxid)).expect("the disk works");
        }
        storage.sync().expect("the disk works");
    });
}

/// As a registration's update.
fn entry(zxid: Zxid) -> Entry {
    let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid, time_ms: 1_700_000_000_000 };
    let path =
        ZnodePath::parse("/rollcall/services/default/web/web-7f9c6d-x2x4z").expect("follows the rules");
    let op = TxnOp::SetData { path, data: Some(Bytes::from_static(&[b'x'; 400])), version: 1 };
    Entry { zxid, payload: Txn { header, op, digest: Some(1) }.encode() }
}
