//! Why a request was not answered as hoped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::id::SessionId;
use crate::wire::{MultiOp, Request};
use crate::znode::{OpCode, OpError};

/// Why a request, or closing, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server carried the request out, and this is its answer.
    #[error("{operation}: {error}")]
    Op {
        /// What was asked for.
        operation: Operation,
        /// The answer.
        #[source]
        error: OpError,
    },
    /// One operation of a multi could not be carried out, so none was.
    #[error("multi, operation {index} of {count}, {operation}: {error}; none was carried out")]
    Multi {
        /// Which one, from 0.
        index: usize,
        /// How many there were.
        count: usize,
        /// What it was to do.
        operation: Operation,
        /// Why it could not.
        #[source]
        error: OpError,
    },
    /// The connection went while the request was under way: whether it was carried out is not known.
    #[error(
        "{operation}: the connection to {server} was lost before the answer came ({cause}); \
         it may have been carried out: read before repeating it"
    )]
    ConnectionLost {
        /// What was asked for.
        operation: Operation,
        /// Which server had it.
        server: Arc<str>,
        /// What became of the connection.
        cause: Arc<str>,
    },
    /// No server could be reached in time; the request was not sent.
    #[error(
        "{operation}: not sent, no connection to {} within {waited:?} (last failure: {last_failure}); \
         check that a server listens there",
        Servers(servers)
    )]
    NotConnected {
        /// What was asked for.
        operation: Operation,
        /// How long it waited.
        waited: Duration,
        /// All servers that are tried in turn.
        servers: Arc<[Arc<str>]>,
        /// What the last dial came to.
        last_failure: Arc<str>,
    },
    /// The session ended while the request waited to be sent; it was not.
    #[error("{operation}: not sent, session {session} has expired; a new one is being opened")]
    SessionExpired {
        /// What was asked for.
        operation: Operation,
        /// The session that is gone.
        session: SessionId,
    },
    /// The request is longer than servers take; it was not sent.
    #[error(
        "{operation}: not sent, its {bytes} bytes exceed the {max} that servers take; store less in one znode"
    )]
    TooLong {
        /// What was asked for.
        operation: Operation,
        /// Its length on the wire.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// There are as many watches already as the client keeps; the request was not sent.
    #[error("{operation}: not sent, the client keeps {max} watches already; drop some, or watch recursively")]
    TooManyWatches {
        /// What was asked for.
        operation: Operation,
        /// The bound.
        max: usize,
    },
    /// The request is one that the client makes by itself (ping, auth, setWatches, closeSession).
    #[error("{operation}: the client makes these requests by itself")]
    Reserved {
        /// What was asked for.
        operation: Operation,
    },
    /// The server's answer has a form that the request cannot have.
    #[error("{operation}: the server's answer belongs to another kind of request")]
    UnexpectedReply {
        /// What was asked for.
        operation: Operation,
    },
    /// closeSession was not answered in time: the session's ephemerals stay until it expires.
    #[error("session {session} was not closed within {waited:?}; its ephemerals go when it expires")]
    NotClosed {
        /// The session.
        session: SessionId,
        /// How long closing was tried.
        waited: Duration,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// The server's answer, when it is one.
    pub const fn op_error(&self) -> Option<OpError> {
        match self {
            Self::Op { error, .. } | Self::Multi { error, .. } => Some(*error),
            Self::ConnectionLost { .. }
            | Self::NotConnected { .. }
            | Self::SessionExpired { .. }
            | Self::TooLong { .. }
            | Self::TooManyWatches { .. }
            | Self::Reserved { .. }
            | Self::UnexpectedReply { .. }
            | Self::NotClosed { .. }
            | Self::Closed => None,
        }
    }
}

/// An operation and the znode that it is about, for error texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The kind.
    pub op: OpCode,
    /// The znode; empty where there is none, or more than one.
    pub path: String,
}

impl Operation {
    pub(super) fn of(request: &Request) -> Self {
        let path = match request {
            Request::Create(create) | Request::Create2(create) => create.path.clone(),
            Request::Delete { path, .. }
            | Request::SetData { path, .. }
            | Request::SetAcl { path, .. }
            | Request::Exists { path, .. }
            | Request::GetData { path, .. }
            | Request::GetAcl { path }
            | Request::GetChildren { path, .. }
            | Request::GetChildren2 { path, .. }
            | Request::Sync { path }
            | Request::AddWatch { path, .. }
            | Request::CheckWatches { path, .. }
            | Request::RemoveWatches { path, .. } => path.clone(),
            Request::Multi(_)
            | Request::Ping
            | Request::SetWatches(_)
            | Request::SetWatches2(_)
            | Request::Auth { .. }
            | Request::CloseSession => String::new(),
        };
        Self { op: request.op_code(), path }
    }

    /// One operation of a multi.
    pub(super) fn of_part(op: &MultiOp) -> Self {
        let (op, path) = match op {
            MultiOp::Create(create) => (OpCode::Create, &create.path),
            MultiOp::Create2(create) => (OpCode::Create2, &create.path),
            MultiOp::Delete { path, .. } => (OpCode::Delete, path),
            MultiOp::SetData { path, .. } => (OpCode::SetData, path),
            MultiOp::Check { path, .. } => (OpCode::Check, path),
        };
        Self { op, path: path.clone() }
    }

    /// A multi as a whole.
    pub(super) const fn multi() -> Self {
        Self { op: OpCode::Multi, path: String::new() }
    }
}

impl fmt::Display for Operation {
    /// `getData /a`: ZooKeeper's own names of operations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", self.op);
        let (first, rest) = name.split_at(1);
        write!(f, "{}{rest}", first.to_lowercase())?;
        if self.path.is_empty() { Ok(()) } else { write!(f, " {}", self.path) }
    }
}

struct Servers<'a>(&'a [Arc<str>]);

impl fmt::Display for Servers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("any server (none is configured)"),
            [only] => f.write_str(only),
            [first, rest @ ..] => {
                write!(f, "any of {first}")?;
                rest.iter().try_for_each(|server| write!(f, ", {server}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_operation_servers_and_last_failure() {
        let error = ClientError::NotConnected {
            operation: Operation::of(&Request::GetData { path: "/a".into(), watch: false }),
            waited: Duration::from_secs(5),
            servers: ["zk1:2181", "zk2:2181"].map(Arc::from).into(),
            last_failure: "connection refused".into(),
        };
        assert_eq!(
            error.to_string(),
            "getData /a: not sent, no connection to any of zk1:2181, zk2:2181 within 5s (last failure: connection \
             refused); check that a server listens there"
        );
    }
}
