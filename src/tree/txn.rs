//! Txns: stamped operations, as they are proposed, logged and applied.
//!
//! One encoding serves the PROPOSAL packet and the log record alike:
//!
//! ```text
//! TxnHeader { long session, int cxid, long zxid, long time, int type }
//! record of that type
//! [ TxnDigest { int version = 2, long digest } ]
//! ```
//!
//! | type | record |
//! | --- | --- |
//! | 1 create, 15 create2 | path, data, acl, bool ephemeral, int parent cversion (absent before 3.4) |
//! | 19 createContainer | path, data, acl, int parent cversion |
//! | 21 createTTL | path, data, acl, int parent cversion, long ttl |
//! | 2 delete, 20 deleteContainer | path |
//! | 5 setData, 16 reconfig | path, data, int new version |
//! | 7 setACL | path, acl, int new aversion |
//! | 13 check, only in a multi | path, int version |
//! | 14 multi | vector of { int type, buffer record } |
//! | -10 createSession | int timeout |
//! | -11 closeSession | vector of paths (absent before 3.6) |
//! | -1 error | int code |
//!
//! An unknown type is an error: a member that skipped it would silently part from the others.
//!
//! Sources: `zookeeper.jute`, `SerializeUtils.java`, `DataTree.java` of Apache ZooKeeper.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::{SessionId, Xid, Zxid};
use crate::znode::{Acl, OpError, ZnodePath};

/// One operation with everything that makes applying it the same on every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// Who asked, when, and where it stands in the total order.
    pub header: TxnHeader,
    /// What to do.
    pub op: TxnOp,
    /// The tree's digest after this txn, as its leader expected it; compare with
    /// [`Tree::digest`](super::Tree::digest). A difference is to be reported, never fatal.
    pub digest: Option<u64>,
}

/// The stamp of a txn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnHeader {
    /// The session that asked, which owns the ephemerals that the txn creates.
    pub session: SessionId,
    /// The client's number for the request.
    pub cxid: Xid,
    /// The txn's place in the total order.
    pub zxid: Zxid,
    /// The leader's wall clock, ms since 1970.
    pub time_ms: i64,
}

/// What a txn does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "ZooKeeper's own names of operations and fields")]
pub enum TxnOp {
    Create(CreateTxn),
    Create2(CreateTxn),
    CreateContainer {
        path: ZnodePath,
        data: Option<Bytes>,
        acl: Vec<Acl>,
        parent_cversion: i32,
    },
    CreateTtl {
        path: ZnodePath,
        data: Option<Bytes>,
        acl: Vec<Acl>,
        parent_cversion: i32,
        ttl_ms: i64,
    },
    Delete {
        path: ZnodePath,
    },
    DeleteContainer {
        path: ZnodePath,
    },
    /// `version` is the new one.
    SetData {
        path: ZnodePath,
        data: Option<Bytes>,
        version: i32,
    },
    /// As `SetData`, on the configuration's znode.
    Reconfig {
        path: ZnodePath,
        data: Option<Bytes>,
        version: i32,
    },
    /// `version` is the new one of the ACL.
    SetAcl {
        path: ZnodePath,
        acl: Vec<Acl>,
        version: i32,
    },
    /// Was checked by the leader; changes nothing. Only in a multi.
    Check {
        path: ZnodePath,
        version: i32,
    },
    /// All or nothing: with an `Error` among them nothing is applied. Never holds a multi, a session's
    /// operation, a `Reconfig` or a `SetAcl`.
    Multi(Vec<Self>),
    CreateSession {
        timeout_ms: i32,
    },
    /// `paths` are the session's ephemerals as its leader knew them; `None` before 3.6.
    CloseSession {
        paths: Option<Vec<ZnodePath>>,
    },
    /// A request that its leader refused.
    Error(OpError),
}

/// The record of a create or create2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTxn {
    /// The final path, a sequential znode's number included.
    pub path: ZnodePath,
    /// What it holds; null and empty are different.
    pub data: Option<Bytes>,
    /// Who may do what to it.
    pub acl: Vec<Acl>,
    /// Whether it goes with the session of the header.
    pub ephemeral: bool,
    /// The parent's count of creations after this one; [`CreateTxn::PARENT_CVERSION_NEXT`] for one more
    /// than it has.
    pub parent_cversion: i32,
}

impl CreateTxn {
    /// Stands for "one more than the parent has", as in logs of versions before 3.4.
    pub const PARENT_CVERSION_NEXT: i32 = -1;
}

impl Txn {
    /// The one version of digests that [`Txn::digest`] holds.
    pub const DIGEST_VERSION: i32 = 2;

    /// The bytes of a proposal and of a log record.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(128);
        self.encode_to(&mut out);
        out.into()
    }

    /// Appends the bytes of a proposal and of a log record.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        out.put_long(self.header.session.0);
        out.put_int(self.header.cxid.0);
        out.put_long(self.header.zxid.raw());
        out.put_long(self.header.time_ms);
        out.put_int(self.op.type_code());
        self.op.encode(out);
        if let Some(digest) = self.digest {
            out.put_int(Self::DIGEST_VERSION);
            out.put_long(digest.cast_signed());
        }
    }

    /// Reads the bytes of a proposal or of a log record. A digest of another version counts as none.
    ///
    /// # Errors
    ///
    /// When the bytes are no txn of a known type.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let session = SessionId(reader.long("txn.clientId")?);
        let cxid = Xid(reader.int("txn.cxid")?);
        let zxid = Zxid::from_raw(reader.long("txn.zxid")?);
        let time_ms = reader.long("txn.time")?;
        let type_code = reader.int("txn.type")?;
        let op = TxnOp::decode(type_code, &mut reader)?;
        let digest = if reader.is_empty() { None } else { decode_digest(&mut reader)? };
        Ok(Self { header: TxnHeader { session, cxid, zxid, time_ms }, op, digest })
    }
}

impl TxnOp {
    /// The number of the type, as in the header.
    const fn type_code(&self) -> i32 {
        match self {
            Self::Create(_) => code::CREATE,
            Self::Delete { .. } => code::DELETE,
            Self::SetData { .. } => code::SET_DATA,
            Self::SetAcl { .. } => code::SET_ACL,
            Self::Check { .. } => code::CHECK,
            Self::Multi(_) => code::MULTI,
            Self::Create2(_) => code::CREATE2,
            Self::Reconfig { .. } => code::RECONFIG,
            Self::CreateContainer { .. } => code::CREATE_CONTAINER,
            Self::DeleteContainer { .. } => code::DELETE_CONTAINER,
            Self::CreateTtl { .. } => code::CREATE_TTL,
            Self::CreateSession { .. } => code::CREATE_SESSION,
            Self::CloseSession { .. } => code::CLOSE_SESSION,
            Self::Error(_) => code::ERROR,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Create(create) | Self::Create2(create) => {
                encode_content(&create.path, create.data.as_deref(), &create.acl, out);
                out.put_bool(create.ephemeral);
                out.put_int(create.parent_cversion);
            }
            Self::CreateContainer { path, data, acl, parent_cversion } => {
                encode_content(path, data.as_deref(), acl, out);
                out.put_int(*parent_cversion);
            }
            Self::CreateTtl { path, data, acl, parent_cversion, ttl_ms } => {
                encode_content(path, data.as_deref(), acl, out);
                out.put_int(*parent_cversion);
                out.put_long(*ttl_ms);
            }
            Self::Delete { path } | Self::DeleteContainer { path } => out.put_text(path.as_str()),
            Self::SetData { path, data, version } | Self::Reconfig { path, data, version } => {
                out.put_text(path.as_str());
                out.put_buffer(data.as_deref());
                out.put_int(*version);
            }
            Self::SetAcl { path, acl, version } => {
                out.put_text(path.as_str());
                Acl::encode_list(acl, out);
                out.put_int(*version);
            }
            Self::Check { path, version } => {
                out.put_text(path.as_str());
                out.put_int(*version);
            }
            Self::Multi(ops) => {
                out.put_count(ops.len());
                ops.iter().for_each(|op| op.encode_in_multi(out));
            }
            Self::CreateSession { timeout_ms } => out.put_int(*timeout_ms),
            Self::CloseSession { paths: None } => {}
            Self::CloseSession { paths: Some(paths) } => {
                out.put_count(paths.len());
                paths.iter().for_each(|path| out.put_text(path.as_str()));
            }
            Self::Error(error) => out.put_int(error.code()),
        }
    }

    fn encode_in_multi(&self, out: &mut Vec<u8>) {
        out.put_int(self.type_code());
        let length_at = out.len();
        out.put_count(0);
        self.encode(out);
        let length = i32::try_from(out.len() - length_at - 4).expect("frame bounds keep records below 2 GiB");
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn decode(type_code: i32, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match type_code {
            code::CREATE => Self::Create(decode_create(reader)?),
            code::CREATE2 => Self::Create2(decode_create(reader)?),
            code::CREATE_CONTAINER => {
                let (path, data, acl) = decode_content(reader)?;
                let parent_cversion = reader.int("createContainer.parentCVersion")?;
                Self::CreateContainer { path, data, acl, parent_cversion }
            }
            code::CREATE_TTL => {
                let (path, data, acl) = decode_content(reader)?;
                let parent_cversion = reader.int("createTTL.parentCVersion")?;
                let ttl_ms = reader.long("createTTL.ttl")?;
                Self::CreateTtl { path, data, acl, parent_cversion, ttl_ms }
            }
            code::DELETE => Self::Delete { path: decode_path(reader)? },
            code::DELETE_CONTAINER => Self::DeleteContainer { path: decode_path(reader)? },
            code::SET_DATA => Self::SetData {
                path: decode_path(reader)?,
                data: decode_data(reader)?,
                version: reader.int("setData.version")?,
            },
            code::RECONFIG => Self::Reconfig {
                path: decode_path(reader)?,
                data: decode_data(reader)?,
                version: reader.int("reconfig.version")?,
            },
            code::SET_ACL => Self::SetAcl {
                path: decode_path(reader)?,
                acl: Acl::decode_list(reader)?,
                version: reader.int("setACL.version")?,
            },
            code::CHECK => Self::Check { path: decode_path(reader)?, version: reader.int("check.version")? },
            code::MULTI => Self::Multi(reader.vector("multi.txns", 8, Self::decode_in_multi)?),
            code::CREATE_SESSION => Self::CreateSession { timeout_ms: reader.int("createSession.timeOut")? },
            code::CLOSE_SESSION if reader.is_empty() || is_digest(reader.remaining()) => {
                Self::CloseSession { paths: None }
            }
            code::CLOSE_SESSION => Self::CloseSession {
                paths: Some(reader.vector("closeSession.paths2Delete", 4, decode_path)?),
            },
            code::ERROR => Self::Error(decode_error(reader)?),
            _ => return Err(CodecError::BadValue { field: "txn.type", value: type_code.into() }),
        })
    }

    fn decode_in_multi(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let type_code = reader.int("multi.type")?;
        let record = reader.buffer("multi.data")?.unwrap_or_default();
        match type_code {
            code::CREATE
            | code::CREATE2
            | code::CREATE_CONTAINER
            | code::CREATE_TTL
            | code::DELETE
            | code::DELETE_CONTAINER
            | code::SET_DATA
            | code::CHECK
            | code::ERROR => Self::decode(type_code, &mut Reader::new(record)),
            _ => Err(CodecError::BadValue { field: "multi.type", value: type_code.into() }),
        }
    }
}

fn encode_content(path: &ZnodePath, data: Option<&[u8]>, acl: &[Acl], out: &mut Vec<u8>) {
    out.put_text(path.as_str());
    out.put_buffer(data);
    Acl::encode_list(acl, out);
}

fn decode_content(reader: &mut Reader<'_>) -> Result<(ZnodePath, Option<Bytes>, Vec<Acl>), CodecError> {
    Ok((decode_path(reader)?, decode_data(reader)?, Acl::decode_list(reader)?))
}

fn decode_create(reader: &mut Reader<'_>) -> Result<CreateTxn, CodecError> {
    let (path, data, acl) = decode_content(reader)?;
    let ephemeral = reader.bool("create.ephemeral")?;
    let parent_cversion = if reader.is_empty() {
        CreateTxn::PARENT_CVERSION_NEXT
    } else {
        reader.int("create.parentCVersion")?
    };
    Ok(CreateTxn { path, data, acl, ephemeral, parent_cversion })
}

fn decode_path(reader: &mut Reader<'_>) -> Result<ZnodePath, CodecError> {
    let text = reader.text("txn.path")?;
    ZnodePath::parse(&text).map_err(|_broken_rule| CodecError::BadText { field: "txn.path" })
}

fn decode_data(reader: &mut Reader<'_>) -> Result<Option<Bytes>, CodecError> {
    Ok(reader.buffer("txn.data")?.map(Bytes::copy_from_slice))
}

fn decode_error(reader: &mut Reader<'_>) -> Result<OpError, CodecError> {
    let code = reader.int("error.err")?;
    Ok(OpError::from_code(code).unwrap_or(OpError::Other(code)))
}

/// Whether these bytes are a digest and no record before it: Apache ZooKeeper logs a closeSession without its paths when
/// `closeSessionTxn.enabled` is false. As a list they would be two empty paths, which there are none of.
fn is_digest(bytes: &[u8]) -> bool {
    bytes.len() == DIGEST_BYTES && bytes.starts_with(&Txn::DIGEST_VERSION.to_be_bytes())
}

const DIGEST_BYTES: usize = 12;

fn decode_digest(reader: &mut Reader<'_>) -> Result<Option<u64>, CodecError> {
    let version = reader.int("txn.digest.version")?;
    let digest = reader.long("txn.digest.treeDigest")?;
    Ok((version == Txn::DIGEST_VERSION).then_some(digest.cast_unsigned()))
}

/// Types of txns. Source: `ZooDefs.java` of Apache ZooKeeper.
mod code {
    pub(super) const CREATE: i32 = 1;
    pub(super) const DELETE: i32 = 2;
    pub(super) const SET_DATA: i32 = 5;
    pub(super) const SET_ACL: i32 = 7;
    pub(super) const CHECK: i32 = 13;
    pub(super) const MULTI: i32 = 14;
    pub(super) const CREATE2: i32 = 15;
    pub(super) const RECONFIG: i32 = 16;
    pub(super) const CREATE_CONTAINER: i32 = 19;
    pub(super) const DELETE_CONTAINER: i32 = 20;
    pub(super) const CREATE_TTL: i32 = 21;
    pub(super) const CREATE_SESSION: i32 = -10;
    pub(super) const CLOSE_SESSION: i32 = -11;
    pub(super) const ERROR: i32 = -1;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::Tree;
    use crate::tree::workload::{Workload, create, delete, header, path, steps, txn};

    /// Captured from Apache ZooKeeper 3.9.
    const CREATE_SESSION: &str = "0100000ff8110000 00000000 0000000100000001 000001a202b0b0f8 fffffff6
        00001770 00000002 0000000051c6d660";
    const CREATE_X: &str = "0100000ff8110000 00000001 0000000100000003 000001a202b0b13f 00000001
        00000002 2f78 00000001 31 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00 00000001
        00000002 00000001a0b9f6d6";

    #[test]
    fn a_captured_create_session_reads_and_writes_back() {
        let bytes = hex(CREATE_SESSION);
        let txn = Txn::decode(&bytes).unwrap();
        assert_eq!(txn.header.zxid, Zxid::from_raw(0x1_0000_0001));
        assert_eq!(txn.op, TxnOp::CreateSession { timeout_ms: 6000 });
        assert_eq!(txn.digest, Some(Tree::new().digest()));
        assert_eq!(txn.encode(), bytes);
    }

    #[test]
    fn a_captured_create_reads_and_writes_back_and_leads_to_its_digest() {
        let bytes = hex(CREATE_X);
        let txn = Txn::decode(&bytes).unwrap();
        let expected = CreateTxn {
            path: path("/x"),
            data: Some(Bytes::from_static(b"1")),
            acl: vec![Acl::open()],
            ephemeral: false,
            parent_cversion: 1,
        };
        assert_eq!(txn.op, TxnOp::Create(expected));
        assert_eq!(txn.encode(), bytes);

        let mut tree = Tree::new();
        tree.apply(&Txn::decode(&hex(CREATE_SESSION)).unwrap());
        tree.apply(&txn);
        assert_eq!(Some(tree.digest()), txn.digest);
    }

    #[test]
    fn a_captured_error_and_close_session_read_and_write_back() {
        let header = "0100000ff8110000 00000002 0000000100000004 000001a202b0b140";
        let error = hex(&format!("{header} ffffffff ffffff99"));
        let txn = Txn::decode(&error).unwrap();
        assert_eq!((&txn.op, txn.digest), (&TxnOp::Error(OpError::BadVersion), None));
        assert_eq!(txn.encode(), error);

        let close = hex(&format!("{header} fffffff5 00000001 00000002 2f65 00000002 0000000051c6d660"));
        let txn = Txn::decode(&close).unwrap();
        assert_eq!(txn.op, TxnOp::CloseSession { paths: Some(vec![path("/e")]) });
        assert_eq!(txn.encode(), close);
    }

    #[test]
    fn records_of_old_versions_are_accepted() {
        let mut bytes = txn(1, create("/x", 1)).encode().to_vec();
        bytes.truncate(bytes.len() - 4);
        let TxnOp::Create(create) = Txn::decode(&bytes).unwrap().op else { panic!("not a create") };
        assert_eq!(create.parent_cversion, CreateTxn::PARENT_CVERSION_NEXT);

        let bytes = txn(1, TxnOp::CloseSession { paths: None }).encode();
        assert_eq!(bytes.len(), 32, "the header alone");
        assert_eq!(Txn::decode(&bytes).unwrap().op, TxnOp::CloseSession { paths: None });
        for digest in [0, 7, u64::MAX] {
            let txn = Txn { digest: Some(digest), ..txn(1, TxnOp::CloseSession { paths: None }) };
            assert_eq!(Txn::decode(&txn.encode()), Ok(txn));
        }
    }

    #[test]
    fn every_op_reads_back() {
        let (acl, data) = (vec![Acl::open()], Some(Bytes::from_static(b"data")));
        let ops = vec![
            create("/a", 1),
            TxnOp::CreateContainer { path: path("/c"), data: None, acl: acl.clone(), parent_cversion: 2 },
            TxnOp::CreateTtl {
                path: path("/t"),
                data: data.clone(),
                acl: acl.clone(),
                parent_cversion: 3,
                ttl_ms: 9,
            },
            delete("/a"),
            TxnOp::DeleteContainer { path: path("/c") },
            TxnOp::SetData { path: path("/t"), data: data.clone(), version: 4 },
            TxnOp::Check { path: path("/t"), version: 5 },
            TxnOp::Error(OpError::NoNode),
        ];
        let others = [
            TxnOp::Reconfig { path: path("/zookeeper/config"), data, version: -1 },
            TxnOp::SetAcl { path: path("/t"), acl, version: 1 },
            TxnOp::CreateSession { timeout_ms: 1 },
            TxnOp::CloseSession { paths: Some(vec![]) },
            TxnOp::Multi(ops.clone()),
        ];
        for op in ops.into_iter().chain(others) {
            for digest in [None, Some(u64::MAX)] {
                let txn = Txn { header: header(3), op: op.clone(), digest };
                if digest.is_none() || !matches!(txn.op, TxnOp::Error(_)) {
                    assert_eq!(Txn::decode(&txn.encode()), Ok(txn));
                }
            }
        }
    }

    #[test]
    fn types_that_nobody_knows_are_refused_in_a_multi_too() {
        let mut bytes = txn(1, delete("/a")).encode().to_vec();
        bytes[31] = 99;
        assert_eq!(Txn::decode(&bytes), Err(CodecError::BadValue { field: "txn.type", value: 99 }));
        let nested = txn(1, TxnOp::Multi(vec![TxnOp::Multi(vec![])])).encode();
        assert_eq!(Txn::decode(&nested), Err(CodecError::BadValue { field: "multi.type", value: 14 }));
    }

    #[test]
    fn a_digest_of_another_version_counts_as_none() {
        let mut txn = txn(1, delete("/a"));
        txn.digest = Some(7);
        let mut bytes = txn.encode().to_vec();
        let version_at = bytes.len() - 9;
        bytes[version_at] = 3;
        assert_eq!(Txn::decode(&bytes).unwrap().digest, None);
    }

    proptest! {
        #[test]
        fn mangled_txns_are_errors_or_txns_but_never_panics(
            steps in steps(1..20), at: prop::sample::Index, value: u8, cut: prop::sample::Index,
        ) {
            let mut workload = Workload::new();
            for step in &steps {
                let mut bytes = workload.step(step).encode().to_vec();
                let _ = Txn::decode(&bytes[..cut.index(bytes.len())]);
                let at = at.index(bytes.len());
                bytes[at] = value;
                if let Ok(txn) = Txn::decode(&bytes) {
                    let mut tree = workload.tree.clone();
                    tree.apply(&txn);
                    tree.check_invariants();
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Txn::decode(&bytes);
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
    }
}
