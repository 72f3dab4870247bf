//! Replies: a header, and on success the operation's record.

use bytes::Bytes;

use super::request::{decode_multi_header, encode_multi_header};
use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::{Xid, Zxid};
use crate::znode::{Acl, OpCode, OpError, Stat};

/// What every reply and notification starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's number, or [`Xid::NOTIFICATION`].
    pub xid: Xid,
    /// The last txn that the server had applied when it replied.
    pub zxid: Zxid,
    /// What went wrong, if anything; the record follows only on success.
    pub error: Option<OpError>,
}

impl ReplyHeader {
    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_int(self.xid.0);
        out.put_long(self.zxid.raw());
        out.put_int(self.error.map_or(0, OpError::code));
    }

    /// Reads the header.
    ///
    /// # Errors
    ///
    /// When fewer than 16 bytes are left.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            xid: Xid(reader.int("reply.xid")?),
            zxid: Zxid::from_raw(reader.long("reply.zxid")?),
            error: OpError::from_code(reader.int("reply.err")?),
        })
    }
}

/// The record of a successful reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing: delete, ping, auth, closeSession, setWatches, checkWatches, removeWatches.
    Empty,
    /// The path made by create, or the one that sync echoes.
    Path(String),
    /// The path and stat made by create2.
    PathStat(String, Stat),
    /// The stat that exists, setData and setACL return.
    Stat(Stat),
    /// What getData returns.
    Data(Option<Bytes>, Stat),
    /// What getACL returns.
    Acl(Vec<Acl>, Stat),
    /// Names of children, in no order that clients may rely on.
    Children(Vec<String>),
    /// Names of children, and the parent's stat.
    ChildrenStat(Vec<String>, Stat),
    /// One result for each operation of a multi.
    Multi(Vec<OpResult>),
    /// The four zero bytes that addWatch returns.
    WatchAdded,
}

/// The result of one operation of a multi. In a failed multi every result is an error: none for the operations
/// before the one at fault (`Error(None)`), its own for that one, `RuntimeInconsistency` for those after it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "ZooKeeper's own names of operations")]
pub enum OpResult {
    Create(String),
    Create2(String, Stat),
    Delete,
    SetData(Stat),
    Check,
    Error(Option<OpError>),
}

impl Response {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Path(path) => out.put_text(path),
            Self::PathStat(path, stat) => {
                out.put_text(path);
                stat.encode(out);
            }
            Self::Stat(stat) => stat.encode(out),
            Self::Data(data, stat) => {
                out.put_buffer(data.as_deref());
                stat.encode(out);
            }
            Self::Acl(acl, stat) => {
                Acl::encode_list(acl, out);
                stat.encode(out);
            }
            Self::Children(names) => encode_names(names, out),
            Self::ChildrenStat(names, stat) => {
                encode_names(names, out);
                stat.encode(out);
            }
            Self::Multi(results) => {
                results.iter().for_each(|result| result.encode(out));
                encode_multi_header(-1, true, -1, out);
            }
            Self::WatchAdded => out.put_int(0),
        }
    }

    /// Reads the record of a successful reply to `op`.
    ///
    /// # Errors
    ///
    /// When the bytes are no such record, or `op` is none that our client sends.
    pub fn decode(op: OpCode, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match op {
            OpCode::Delete
            | OpCode::Ping
            | OpCode::Auth
            | OpCode::CloseSession
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CheckWatches
            | OpCode::RemoveWatches => Self::Empty,
            OpCode::Create | OpCode::Sync => Self::Path(reader.text("path")?.into_owned()),
            OpCode::Create2 => Self::PathStat(reader.text("path")?.into_owned(), Stat::decode(reader)?),
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Self::Stat(Stat::decode(reader)?),
            OpCode::GetData => {
                Self::Data(reader.buffer("getData.data")?.map(Bytes::copy_from_slice), Stat::decode(reader)?)
            }
            OpCode::GetAcl => Self::Acl(Acl::decode_list(reader)?, Stat::decode(reader)?),
            OpCode::GetChildren => Self::Children(decode_names(reader)?),
            OpCode::GetChildren2 => Self::ChildrenStat(decode_names(reader)?, Stat::decode(reader)?),
            OpCode::Multi => Self::Multi(decode_results(reader)?),
            OpCode::AddWatch => {
                let _err = reader.int("addWatch.err")?;
                Self::WatchAdded
            }
            OpCode::Check
            | OpCode::Reconfig
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::MultiRead
            | OpCode::Sasl
            | OpCode::GetEphemerals
            | OpCode::GetAllChildrenNumber
            | OpCode::WhoAmI
            | OpCode::CreateSession => {
                return Err(CodecError::BadValue { field: "reply.op", value: op.code().into() });
            }
        })
    }
}

impl OpResult {
    fn encode(&self, out: &mut Vec<u8>) {
        let header = |op: OpCode, out: &mut Vec<u8>| encode_multi_header(op.code(), false, 0, out);
        match self {
            Self::Create(path) => {
                header(OpCode::Create, out);
                out.put_text(path);
            }
            Self::Create2(path, stat) => {
                header(OpCode::Create2, out);
                out.put_text(path);
                stat.encode(out);
            }
            Self::Delete => header(OpCode::Delete, out),
            Self::SetData(stat) => {
                header(OpCode::SetData, out);
                stat.encode(out);
            }
            Self::Check => header(OpCode::Check, out),
            Self::Error(error) => {
                let code = error.map_or(0, OpError::code);
                encode_multi_header(-1, false, code, out);
                out.put_int(code);
            }
        }
    }
}

fn decode_results(reader: &mut Reader<'_>) -> Result<Vec<OpResult>, CodecError> {
    let mut results = Vec::new();
    while let Some(op_code) = decode_multi_header(reader)? {
        results.push(match OpCode::from_code(op_code) {
            Some(OpCode::Create) => OpResult::Create(reader.text("path")?.into_owned()),
            Some(OpCode::Create2) => {
                OpResult::Create2(reader.text("path")?.into_owned(), Stat::decode(reader)?)
            }
            Some(OpCode::Delete) => OpResult::Delete,
            Some(OpCode::SetData) => OpResult::SetData(Stat::decode(reader)?),
            Some(OpCode::Check) => OpResult::Check,
            None if op_code == -1 => OpResult::Error(OpError::from_code(reader.int("multi.error")?)),
            _ => return Err(CodecError::BadValue { field: "multi.type", value: op_code.into() }),
        });
    }
    Ok(results)
}

fn encode_names(names: &[String], out: &mut Vec<u8>) {
    out.put_count(names.len());
    names.iter().for_each(|name| out.put_text(name));
}

fn decode_names(reader: &mut Reader<'_>) -> Result<Vec<String>, CodecError> {
    reader.vector("children", 4, |reader| Ok(reader.text("child")?.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_multi_has_apaches_bytes() {
        let response = Response::Multi(vec![
            OpResult::Error(None),
            OpResult::Error(Some(OpError::BadVersion)),
            OpResult::Error(Some(OpError::RuntimeInconsistency)),
        ]);
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "ffffffff000000000000000000ffffffff00ffffff99ffffff99ffffffff00fffffffefffffffeffffffff01ffffffff"
        );
        assert_eq!(Response::decode(OpCode::Multi, &mut Reader::new(&bytes)), Ok(response));
    }
}
