//! Requests: a header that names the operation, and the operation's record.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::{Xid, Zxid};
use crate::znode::{Acl, AddWatchMode, CreateMode, OpCode};

/// What every request after the first frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The client's number for the request.
    pub xid: Xid,
    /// The operation's number, which may be one that nobody knows.
    pub op_code: i32,
}

impl RequestHeader {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// When fewer than eight bytes are left.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { xid: Xid(reader.int("request.xid")?), op_code: reader.int("request.type")? })
    }
}

/// An operation and its arguments, as the client sent them: paths and flags are not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "ZooKeeper's own names of operations and fields")]
pub enum Request {
    Create(CreateRequest),
    Create2(CreateRequest),
    Delete { path: String, version: i32 },
    SetData { path: String, data: Option<Bytes>, version: i32 },
    SetAcl { path: String, acl: Vec<Acl>, version: i32 },
    Multi(Vec<MultiOp>),
    Exists { path: String, watch: bool },
    GetData { path: String, watch: bool },
    GetAcl { path: String },
    GetChildren { path: String, watch: bool },
    GetChildren2 { path: String, watch: bool },
    Sync { path: String },
    Ping,
    SetWatches(SetWatches),
    SetWatches2(SetWatches),
    AddWatch { path: String, mode: AddWatchMode },
    CheckWatches { path: String, kind: i32 },
    RemoveWatches { path: String, kind: i32 },
    Auth { scheme: String, auth: Bytes },
    CloseSession,
}

/// The arguments of a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest {
    /// Where; for a sequential znode the name without its number.
    pub path: String,
    /// What it holds; null and empty are different.
    pub data: Option<Bytes>,
    /// Who may do what to it.
    pub acl: Vec<Acl>,
    /// A [`CreateMode`], when it is one.
    pub flags: i32,
}

impl CreateRequest {
    /// A create that everybody may change.
    pub fn open(path: impl Into<String>, data: impl Into<Bytes>, mode: CreateMode) -> Self {
        Self { path: path.into(), data: Some(data.into()), acl: vec![Acl::open()], flags: mode.flags() }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_text(&self.path);
        out.put_buffer(self.data.as_deref());
        Acl::encode_list(&self.acl, out);
        out.put_int(self.flags);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            path: reader.text("create.path")?.into_owned(),
            data: decode_data(reader, "create.data")?,
            acl: Acl::decode_list(reader)?,
            flags: reader.int("create.flags")?,
        })
    }
}

/// One operation of a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "ZooKeeper's own names of operations and fields")]
pub enum MultiOp {
    Create(CreateRequest),
    Create2(CreateRequest),
    Delete { path: String, version: i32 },
    SetData { path: String, data: Option<Bytes>, version: i32 },
    Check { path: String, version: i32 },
}

/// The watches that a client brings back after a reconnect.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SetWatches {
    /// The newest zxid that the client had seen before it lost its connection.
    pub relative_zxid: Zxid,
    /// Paths watched by getData.
    pub data: Vec<String>,
    /// Paths watched by exists that did not exist.
    pub exist: Vec<String>,
    /// Paths watched by getChildren.
    pub child: Vec<String>,
    /// Paths of persistent watches; `setWatches2` only.
    pub persistent: Vec<String>,
    /// Paths of persistent recursive watches; `setWatches2` only.
    pub persistent_recursive: Vec<String>,
}

impl SetWatches {
    /// Whether there is nothing to bring back.
    pub fn is_empty(&self) -> bool {
        [&self.data, &self.exist, &self.child, &self.persistent, &self.persistent_recursive]
            .iter()
            .all(|paths| paths.is_empty())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_long(self.relative_zxid.raw());
        [&self.data, &self.exist, &self.child].into_iter().for_each(|paths| encode_paths(paths, out));
    }

    fn encode_persistent(&self, out: &mut Vec<u8>) {
        encode_paths(&self.persistent, out);
        encode_paths(&self.persistent_recursive, out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            relative_zxid: Zxid::from_raw(reader.long("setWatches.relativeZxid")?),
            data: decode_paths(reader, "setWatches.dataWatches")?,
            exist: decode_paths(reader, "setWatches.existWatches")?,
            child: decode_paths(reader, "setWatches.childWatches")?,
            ..Self::default()
        })
    }

    fn decode_persistent(self, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            persistent: decode_paths(reader, "setWatches.persistentWatches")?,
            persistent_recursive: decode_paths(reader, "setWatches.persistentRecursiveWatches")?,
            ..self
        })
    }
}

impl Request {
    /// The operation that the header names it by.
    pub const fn op_code(&self) -> OpCode {
        match self {
            Self::Create(_) => OpCode::Create,
            Self::Create2(_) => OpCode::Create2,
            Self::Delete { .. } => OpCode::Delete,
            Self::SetData { .. } => OpCode::SetData,
            Self::SetAcl { .. } => OpCode::SetAcl,
            Self::Multi(_) => OpCode::Multi,
            Self::Exists { .. } => OpCode::Exists,
            Self::GetData { .. } => OpCode::GetData,
            Self::GetAcl { .. } => OpCode::GetAcl,
            Self::GetChildren { .. } => OpCode::GetChildren,
            Self::GetChildren2 { .. } => OpCode::GetChildren2,
            Self::Sync { .. } => OpCode::Sync,
            Self::Ping => OpCode::Ping,
            Self::SetWatches(_) => OpCode::SetWatches,
            Self::SetWatches2(_) => OpCode::SetWatches2,
            Self::AddWatch { .. } => OpCode::AddWatch,
            Self::CheckWatches { .. } => OpCode::CheckWatches,
            Self::RemoveWatches { .. } => OpCode::RemoveWatches,
            Self::Auth { .. } => OpCode::Auth,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    /// Appends header and record.
    pub fn encode(&self, xid: Xid, out: &mut Vec<u8>) {
        out.put_int(xid.0);
        out.put_int(self.op_code().code());
        match self {
            Self::Create(create) | Self::Create2(create) => create.encode(out),
            Self::Delete { path, version } => encode_versioned(path, *version, out),
            Self::SetData { path, data, version } => encode_set_data(path, data.as_deref(), *version, out),
            Self::SetAcl { path, acl, version } => {
                out.put_text(path);
                Acl::encode_list(acl, out);
                out.put_int(*version);
            }
            Self::Multi(ops) => encode_multi(ops, out),
            Self::Exists { path, watch }
            | Self::GetData { path, watch }
            | Self::GetChildren { path, watch }
            | Self::GetChildren2 { path, watch } => {
                out.put_text(path);
                out.put_bool(*watch);
            }
            Self::GetAcl { path } | Self::Sync { path } => out.put_text(path),
            Self::SetWatches(watches) => watches.encode(out),
            Self::SetWatches2(watches) => {
                watches.encode(out);
                watches.encode_persistent(out);
            }
            Self::AddWatch { path, mode } => {
                out.put_text(path);
                out.put_int(mode.code());
            }
            Self::CheckWatches { path, kind } | Self::RemoveWatches { path, kind } => {
                out.put_text(path);
                out.put_int(*kind);
            }
            Self::Auth { scheme, auth } => {
                out.put_int(0);
                out.put_text(scheme);
                out.put_buffer(Some(auth));
            }
            Self::Ping | Self::CloseSession => {}
        }
    }

    /// Reads the record that follows a header naming `op`; `None` for operations that this implementation
    /// does not offer, or not outside a multi.
    ///
    /// # Errors
    ///
    /// When the bytes are no such record.
    pub fn decode(op: OpCode, reader: &mut Reader<'_>) -> Result<Option<Self>, CodecError> {
        Ok(Some(match op {
            OpCode::Create => Self::Create(CreateRequest::decode(reader)?),
            OpCode::Create2 => Self::Create2(CreateRequest::decode(reader)?),
            OpCode::Delete => {
                Self::Delete { path: decode_path(reader)?, version: reader.int("delete.version")? }
            }
            OpCode::SetData => Self::SetData {
                path: decode_path(reader)?,
                data: decode_data(reader, "setData.data")?,
                version: reader.int("setData.version")?,
            },
            OpCode::SetAcl => Self::SetAcl {
                path: decode_path(reader)?,
                acl: Acl::decode_list(reader)?,
                version: reader.int("setAcl.version")?,
            },
            OpCode::Multi => Self::Multi(decode_multi(reader)?),
            OpCode::Exists => Self::Exists { path: decode_path(reader)?, watch: reader.bool("watch")? },
            OpCode::GetData => Self::GetData { path: decode_path(reader)?, watch: reader.bool("watch")? },
            OpCode::GetAcl => Self::GetAcl { path: decode_path(reader)? },
            OpCode::GetChildren => {
                Self::GetChildren { path: decode_path(reader)?, watch: reader.bool("watch")? }
            }
            OpCode::GetChildren2 => {
                Self::GetChildren2 { path: decode_path(reader)?, watch: reader.bool("watch")? }
            }
            OpCode::Sync => Self::Sync { path: decode_path(reader)? },
            OpCode::Ping => Self::Ping,
            OpCode::SetWatches => Self::SetWatches(SetWatches::decode(reader)?),
            OpCode::SetWatches2 => Self::SetWatches2(SetWatches::decode(reader)?.decode_persistent(reader)?),
            OpCode::AddWatch => {
                let path = decode_path(reader)?;
                let mode = reader.int("addWatch.mode")?;
                let mode = AddWatchMode::from_code(mode)
                    .ok_or(CodecError::BadValue { field: "addWatch.mode", value: mode.into() })?;
                Self::AddWatch { path, mode }
            }
            OpCode::CheckWatches => {
                Self::CheckWatches { path: decode_path(reader)?, kind: reader.int("watches.type")? }
            }
            OpCode::RemoveWatches => {
                Self::RemoveWatches { path: decode_path(reader)?, kind: reader.int("watches.type")? }
            }
            OpCode::Auth => {
                let _type = reader.int("auth.type")?;
                let scheme = reader.text("auth.scheme")?.into_owned();
                Self::Auth { scheme, auth: decode_data(reader, "auth.auth")?.unwrap_or_default() }
            }
            OpCode::CloseSession => Self::CloseSession,
            OpCode::Check
            | OpCode::Reconfig
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::MultiRead
            | OpCode::Sasl
            | OpCode::GetEphemerals
            | OpCode::GetAllChildrenNumber
            | OpCode::WhoAmI
            | OpCode::CreateSession => return Ok(None),
        }))
    }
}

/// The header before each operation of a multi, and the one that ends it.
///
/// `type, done, err`: nine bytes. Source: `MultiOperationRecord.java` of Apache ZooKeeper.
pub(super) fn encode_multi_header(op_code: i32, done: bool, err: i32, out: &mut Vec<u8>) {
    out.put_int(op_code);
    out.put_bool(done);
    out.put_int(err);
}

/// Reads such a header: the number of the operation that follows, `None` at the end.
pub(super) fn decode_multi_header(reader: &mut Reader<'_>) -> Result<Option<i32>, CodecError> {
    let op_code = reader.int("multi.type")?;
    let done = reader.bool("multi.done")?;
    let _err = reader.int("multi.err")?;
    Ok((!done).then_some(op_code))
}

fn encode_multi(ops: &[MultiOp], out: &mut Vec<u8>) {
    for op in ops {
        let op_code = match op {
            MultiOp::Create(_) => OpCode::Create,
            MultiOp::Create2(_) => OpCode::Create2,
            MultiOp::Delete { .. } => OpCode::Delete,
            MultiOp::SetData { .. } => OpCode::SetData,
            MultiOp::Check { .. } => OpCode::Check,
        };
        encode_multi_header(op_code.code(), false, -1, out);
        match op {
            MultiOp::Create(create) | MultiOp::Create2(create) => create.encode(out),
            MultiOp::Delete { path, version } | MultiOp::Check { path, version } => {
                encode_versioned(path, *version, out);
            }
            MultiOp::SetData { path, data, version } => encode_set_data(path, data.as_deref(), *version, out),
        }
    }
    encode_multi_header(-1, true, -1, out);
}

fn decode_multi(reader: &mut Reader<'_>) -> Result<Vec<MultiOp>, CodecError> {
    let mut ops = Vec::new();
    while let Some(op_code) = decode_multi_header(reader)? {
        ops.push(match OpCode::from_code(op_code) {
            Some(OpCode::Create) => MultiOp::Create(CreateRequest::decode(reader)?),
            Some(OpCode::Create2) => MultiOp::Create2(CreateRequest::decode(reader)?),
            Some(OpCode::Delete) => {
                MultiOp::Delete { path: decode_path(reader)?, version: reader.int("delete.version")? }
            }
            Some(OpCode::SetData) => MultiOp::SetData {
                path: decode_path(reader)?,
                data: decode_data(reader, "setData.data")?,
                version: reader.int("setData.version")?,
            },
            Some(OpCode::Check) => {
                MultiOp::Check { path: decode_path(reader)?, version: reader.int("check.version")? }
            }
            _ => return Err(CodecError::BadValue { field: "multi.type", value: op_code.into() }),
        });
    }
    Ok(ops)
}

fn encode_versioned(path: &str, version: i32, out: &mut Vec<u8>) {
    out.put_text(path);
    out.put_int(version);
}

fn encode_set_data(path: &str, data: Option<&[u8]>, version: i32, out: &mut Vec<u8>) {
    out.put_text(path);
    out.put_buffer(data);
    out.put_int(version);
}

fn encode_paths(paths: &[String], out: &mut Vec<u8>) {
    out.put_count(paths.len());
    paths.iter().for_each(|path| out.put_text(path));
}

fn decode_path(reader: &mut Reader<'_>) -> Result<String, CodecError> {
    Ok(reader.text("path")?.into_owned())
}

fn decode_paths(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<String>, CodecError> {
    reader.vector(field, 4, decode_path)
}

fn decode_data(reader: &mut Reader<'_>, field: &'static str) -> Result<Option<Bytes>, CodecError> {
    Ok(reader.buffer(field)?.map(Bytes::copy_from_slice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Response;
    use crate::znode::Permissions;
    use proptest::prelude::*;

    fn texts() -> impl Strategy<Value = String> {
        "[a-z/\u{e9}]{0,12}"
    }

    fn paths() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(texts(), 0..4)
    }

    fn data() -> impl Strategy<Value = Option<Bytes>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from))
    }

    fn acls() -> impl Strategy<Value = Vec<Acl>> {
        prop::collection::vec((0..32).prop_map(|bits| Acl::anyone(Permissions(bits))), 0..3)
    }

    fn creates() -> impl Strategy<Value = CreateRequest> {
        (texts(), data(), acls(), any::<i32>()).prop_map(|(path, data, acl, flags)| CreateRequest {
            path,
            data,
            acl,
            flags,
        })
    }

    fn watches() -> impl Strategy<Value = SetWatches> {
        (any::<i64>(), paths(), paths(), paths(), paths(), paths()).prop_map(
            |(zxid, data, exist, child, persistent, persistent_recursive)| SetWatches {
                relative_zxid: Zxid::from_raw(zxid),
                data,
                exist,
                child,
                persistent,
                persistent_recursive,
            },
        )
    }

    fn multi_ops() -> impl Strategy<Value = MultiOp> {
        prop_oneof![
            creates().prop_map(MultiOp::Create),
            creates().prop_map(MultiOp::Create2),
            (texts(), any::<i32>()).prop_map(|(path, version)| MultiOp::Delete { path, version }),
            (texts(), data(), any::<i32>()).prop_map(|(path, data, version)| MultiOp::SetData {
                path,
                data,
                version
            }),
            (texts(), any::<i32>()).prop_map(|(path, version)| MultiOp::Check { path, version }),
        ]
    }

    fn reads() -> impl Strategy<Value = Request> {
        (texts(), any::<bool>(), any::<i32>(), 0..11).prop_map(|(path, watch, kind, which)| match which {
            0 => Request::Exists { path, watch },
            1 => Request::GetData { path, watch },
            2 => Request::GetAcl { path },
            3 => Request::GetChildren { path, watch },
            4 => Request::GetChildren2 { path, watch },
            5 => Request::Sync { path },
            6 => Request::AddWatch { path, mode: AddWatchMode::Persistent },
            7 => Request::AddWatch { path, mode: AddWatchMode::PersistentRecursive },
            8 => Request::CheckWatches { path, kind },
            9 => Request::RemoveWatches { path, kind },
            _ => Request::Ping,
        })
    }

    fn requests() -> impl Strategy<Value = Request> {
        prop_oneof![
            creates().prop_map(Request::Create),
            creates().prop_map(Request::Create2),
            (texts(), any::<i32>()).prop_map(|(path, version)| Request::Delete { path, version }),
            (texts(), data(), any::<i32>()).prop_map(|(path, data, version)| Request::SetData {
                path,
                data,
                version
            }),
            (texts(), acls(), any::<i32>()).prop_map(|(path, acl, version)| Request::SetAcl {
                path,
                acl,
                version
            }),
            prop::collection::vec(multi_ops(), 0..4).prop_map(Request::Multi),
            watches().prop_map(Request::SetWatches2),
            watches().prop_map(|watches| Request::SetWatches(SetWatches {
                persistent: vec![],
                persistent_recursive: vec![],
                ..watches
            })),
            (texts(), data())
                .prop_map(|(scheme, auth)| Request::Auth { scheme, auth: auth.unwrap_or_default() }),
            Just(Request::CloseSession),
            reads(),
        ]
    }

    proptest! {
        #[test]
        fn a_request_reads_back_and_no_part_of_it_does(request in requests()) {
            let mut bytes = Vec::new();
            request.encode(Xid(7), &mut bytes);
            let mut reader = Reader::new(&bytes);
            let header = RequestHeader::decode(&mut reader).unwrap();
            prop_assert_eq!(header, RequestHeader { xid: Xid(7), op_code: request.op_code().code() });
            let record = reader.remaining();
            prop_assert_eq!(Request::decode(request.op_code(), &mut reader), Ok(Some(request.clone())));
            prop_assert!(reader.is_empty());
            for kept in 0..record.len() {
                let cut = Request::decode(request.op_code(), &mut Reader::new(&record[..kept]));
                prop_assert!(cut.is_err(), "{} of {} bytes are {:?}", kept, record.len(), cut);
            }
        }

        #[test]
        fn no_bytes_make_a_record_panic(op in -11..110_i32, bytes: Vec<u8>, request in requests(), at: usize) {
            let mut broken = Vec::new();
            request.encode(Xid(7), &mut broken);
            let at = at % broken.len();
            broken[at] ^= 0xff;
            for bytes in [&bytes[..], &broken[8.min(broken.len())..]] {
                for op in [OpCode::from_code(op), Some(request.op_code())].into_iter().flatten() {
                    let _whatever_it_is = Request::decode(op, &mut Reader::new(bytes));
                    let _whatever_it_is = Response::decode(op, &mut Reader::new(bytes));
                }
            }
        }
    }
}
