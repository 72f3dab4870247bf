//! One connection: requests out, replies and events in.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use bytes::BytesMut;
use rollcall::clock;
use rollcall::codec::Reader;
use rollcall::id::{Xid, Zxid};
use rollcall::wire::{
    ConnectRequest, ConnectResponse, CreateRequest, FRAME_BYTES_MAX, MultiOp, OpResult, ReplyHeader, Request,
    Response, split_frame, write_frame,
};
use rollcall::znode::{Acl, AddWatchMode, CreateMode, OpError, Permissions, Stat, WatchedEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Server, xid};
use crate::history::{Action, Aspect, Change, EventKind, Found, NodeStat, Operation};

/// A connection that a server has taken.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) server: String,
    /// When the last bytes came, and when the last were sent.
    pub(super) heard: Instant,
    pub(super) spoke: Instant,
    /// How many requests were queued so far.
    pub(super) sent: u64,
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: Vec<u8>,
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    xid: Xid,
    request: Request,
    operation: Operation,
}

/// What a server sends.
#[derive(Debug)]
pub(super) enum Frame {
    Event { zxid: Zxid, kind: EventKind, path: String },
    Reply { number: u64, operation: Box<Operation>, zxid: Zxid, error: i32, found: Found },
}

impl Link {
    /// Connects and shows the session to the server.
    pub(super) async fn open(
        server: &Server,
        request: &ConnectRequest,
    ) -> io::Result<(Self, ConnectResponse)> {
        let stream = TcpStream::connect(server.address).await?;
        stream.set_nodelay(true)?;
        let mut link = Self {
            server: server.name.clone(),
            heard: clock::now(),
            spoke: clock::now(),
            sent: 0,
            stream,
            incoming: BytesMut::new(),
            outgoing: Vec::new(),
            pending: VecDeque::new(),
        };
        write_frame(&mut link.outgoing, |out| request.encode(out));
        link.flush().await?;
        let bytes = link.bytes().await?;
        let response = ConnectResponse::decode(&bytes).map_err(io::Error::other)?;
        Ok((link, response))
    }

    pub(super) fn queue(&mut self, operation: Operation, set_watches: impl FnOnce() -> Request) {
        let number = self.sent;
        self.sent += 1;
        let request = request(&operation.action, set_watches);
        let xid = xid(&operation.action, operation.request);
        write_frame(&mut self.outgoing, |out| request.encode(xid, out));
        self.pending.push_back(Pending { number, xid, request, operation });
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        self.spoke = clock::now();
        let outgoing = std::mem::take(&mut self.outgoing);
        self.stream.write_all(&outgoing).await
    }

    /// Whether a request with this number or a later one is not answered, heartbeats aside.
    pub(super) fn has_pending_from(&self, number: u64) -> bool {
        let waits = |pending: &Pending| pending.number >= number && pending.operation.action != Action::Ping;
        self.pending.iter().any(waits)
    }

    pub(super) fn into_unanswered(self) -> impl Iterator<Item = Operation> {
        self.pending.into_iter().map(|pending| pending.operation)
    }

    /// Waits for the next frame; nothing is lost when the wait is given up.
    pub(super) async fn frame(&mut self) -> io::Result<Frame> {
        let bytes = self.bytes().await?;
        let mut reader = Reader::new(&bytes);
        let header = ReplyHeader::decode(&mut reader).map_err(io::Error::other)?;
        if header.xid == Xid::NOTIFICATION {
            let event = WatchedEvent::decode(&mut reader).map_err(io::Error::other)?;
            return Ok(Frame::Event { zxid: header.zxid, kind: event.kind.into(), path: event.path });
        }
        let place = self.pending.iter().position(|pending| pending.xid == header.xid);
        let place = place.ok_or_else(|| io::Error::other(format!("a reply to request {}", header.xid)))?;
        let pending = self.pending.remove(place).expect("it was found there");
        let (error, found) = match header.error {
            Some(error) => (error.code(), Found::Nothing),
            None => {
                let response = Response::decode(pending.request.op_code(), &mut reader);
                found(response.map_err(io::Error::other)?)
            }
        };
        let (number, operation) = (pending.number, Box::new(pending.operation));
        Ok(Frame::Reply { number, operation, zxid: header.zxid, error, found })
    }

    async fn bytes(&mut self) -> io::Result<bytes::Bytes> {
        loop {
            let frame = split_frame(&mut self.incoming, FRAME_BYTES_MAX).map_err(io::Error::other)?;
            if let Some(frame) = frame {
                self.heard = clock::now();
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn request(action: &Action, set_watches: impl FnOnce() -> Request) -> Request {
    match action {
        Action::Change(Change::Create { path, value, ephemeral }) => {
            Request::Create2(create(path, value, *ephemeral))
        }
        Action::Change(Change::Set { path, value, version }) => {
            Request::SetData { path: path.clone(), data: Some(value.clone().into()), version: *version }
        }
        Action::Change(Change::Delete { path }) => Request::Delete { path: path.clone(), version: -1 },
        Action::Multi(changes) => Request::Multi(changes.iter().map(part).collect()),
        Action::Permit { path, permissions } => Request::SetAcl {
            path: path.clone(),
            acl: vec![Acl::anyone(Permissions(*permissions))],
            version: -1,
        },
        Action::Sync => Request::Sync { path: "/".to_owned() },
        Action::Read(read) => {
            let (path, watch) = (read.path.clone(), read.watch);
            match read.aspect {
                Aspect::Data => Request::GetData { path, watch },
                Aspect::Exists => Request::Exists { path, watch },
                Aspect::Children => Request::GetChildren2 { path, watch },
                Aspect::Acl => Request::GetAcl { path },
            }
        }
        Action::WatchBelow(path) => {
            Request::AddWatch { path: path.clone(), mode: AddWatchMode::PersistentRecursive }
        }
        Action::SetWatches { .. } => set_watches(),
        Action::Ping => Request::Ping,
        Action::Close => Request::CloseSession,
    }
}

/// A part of a multi. `create`, not `create2`: Apache ZooKeeper before 3.8.2 loses the parts behind that one
/// (ZOOKEEPER-4026).
fn part(change: &Change) -> MultiOp {
    match change {
        Change::Create { path, value, ephemeral } => MultiOp::Create(create(path, value, *ephemeral)),
        Change::Set { path, value, version } => {
            MultiOp::SetData { path: path.clone(), data: Some(value.clone().into()), version: *version }
        }
        Change::Delete { path } => MultiOp::Delete { path: path.clone(), version: -1 },
    }
}

fn create(path: &str, value: &str, ephemeral: bool) -> CreateRequest {
    let mode = if ephemeral { CreateMode::Ephemeral } else { CreateMode::Persistent };
    CreateRequest::open(path, value.to_owned(), mode)
}

/// What a reply without an error in its header says: an error code all the same, for a multi that failed.
fn found(response: Response) -> (i32, Found) {
    let found = match response {
        Response::Empty | Response::Path(_) | Response::WatchAdded => Found::Nothing,
        Response::PathStat(_, stat) | Response::Stat(stat) => Found::Stat(stat.into()),
        Response::Acl(acl, stat) => {
            Found::Acl(acl.iter().map(describe).collect::<Vec<_>>().join(","), stat.into())
        }
        Response::Data(data, stat) => {
            Found::Data(data.map(|data| String::from_utf8_lossy(&data).into_owned()), stat.into())
        }
        Response::Children(names) => Found::Children(names.into_iter().collect(), NodeStat::default()),
        Response::ChildrenStat(names, stat) => Found::Children(names.into_iter().collect(), stat.into()),
        Response::Multi(results) => {
            let mut error = None;
            let mut stats = Vec::new();
            for result in results {
                match result {
                    OpResult::Error(None) => error = error.or(Some(NO_REASON)),
                    OpResult::Error(Some(OpError::RuntimeInconsistency)) => {}
                    OpResult::Error(Some(reason)) => error = Some(reason.code()),
                    OpResult::SetData(stat) | OpResult::Create2(_, stat) => stats.push(Some(stat.into())),
                    OpResult::Create(_) | OpResult::Delete | OpResult::Check => stats.push(None),
                }
            }
            if let Some(error) = error {
                return (error, Found::Nothing);
            }
            Found::Results(stats)
        }
    };
    (0, found)
}

/// Scheme, id, and the bits of what is granted.
fn describe(entry: &Acl) -> String {
    let Acl { permissions, principal } = entry;
    format!("{}:{}:{}", principal.scheme, principal.id, permissions.0)
}

/// For a failed multi that blames none of its parts: `RuntimeInconsistency`.
const NO_REASON: i32 = -2;

impl From<Stat> for NodeStat {
    fn from(stat: Stat) -> Self {
        Self {
            czxid: stat.czxid.raw(),
            mzxid: stat.mzxid.raw(),
            pzxid: stat.pzxid.raw(),
            ctime: stat.ctime_ms,
            mtime: stat.mtime_ms,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            owner: stat.ephemeral_owner.0,
            children: stat.num_children,
        }
    }
}

impl From<rollcall::znode::EventKind> for EventKind {
    fn from(kind: rollcall::znode::EventKind) -> Self {
        match kind {
            rollcall::znode::EventKind::Created => Self::Created,
            rollcall::znode::EventKind::Deleted => Self::Deleted,
            rollcall::znode::EventKind::DataChanged => Self::DataChanged,
            rollcall::znode::EventKind::ChildrenChanged => Self::ChildrenChanged,
        }
    }
}
