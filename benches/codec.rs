//! The wire codec and the bytes of txns, with counts of allocations.

use bytes::Bytes;
use divan::{Bencher, black_box};

use rollcall::codec::Reader;
use rollcall::id::{SessionId, Xid, Zxid};
use rollcall::tree::{CreateTxn, Txn, TxnHeader, TxnOp};
use rollcall::wire::{CreateRequest, Request, RequestHeader};
use rollcall::znode::{Acl, CreateMode, OpCode, ZnodePath};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

const PATH: &str = "/rollcall/services/shop/payments/payments-7d9f-1";
const RECORD_BYTES: usize = 512;

fn main() {
    divan::main();
}

#[divan::bench]
fn request_encode_create(bencher: Bencher<'_, '_>) {
    let request = create();
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(move || {
        out.clear();
        black_box(&request).encode(Xid(1), &mut out);
        out.len()
    });
}

#[divan::bench]
fn request_decode_create(bencher: Bencher<'_, '_>) {
    let bytes = encoded(&create());
    bencher.bench_local(|| decode(black_box(&bytes)));
}

#[divan::bench]
fn request_decode_get_data(bencher: Bencher<'_, '_>) {
    let bytes = encoded(&Request::GetData { path: PATH.to_owned(), watch: false });
    bencher.bench_local(|| decode(black_box(&bytes)));
}

#[divan::bench]
fn txn_encode_create(bencher: Bencher<'_, '_>) {
    let txn = create_txn();
    bencher.bench_local(|| black_box(&txn).encode());
}

#[divan::bench]
fn txn_decode_create(bencher: Bencher<'_, '_>) {
    let bytes = create_txn().encode();
    bencher.bench_local(|| Txn::decode(black_box(&bytes)).expect("encoded just now"));
}

fn create() -> Request {
    Request::Create(CreateRequest::open(PATH, vec![b'x'; RECORD_BYTES], CreateMode::Ephemeral))
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(Xid(1), &mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Request {
    let mut reader = Reader::new(bytes);
    let header = RequestHeader::decode(&mut reader).expect("encoded by us");
    let op = OpCode::from_code(header.op_code).expect("encoded by us");
    Request::decode(op, &mut reader).expect("encoded by us").expect("offered outside a multi")
}

fn create_txn() -> Txn {
    let create = CreateTxn {
        path: ZnodePath::parse(PATH).expect("follows the rules"),
        data: Some(Bytes::from(vec![b'x'; RECORD_BYTES])),
        acl: vec![Acl::open()],
        ephemeral: true,
        parent_cversion: 1,
    };
    let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: Zxid::from_raw(1), time_ms: 0 };
    Txn { header, op: TxnOp::Create(create), digest: None }
}
