//! What clients asked an ensemble, and what they were told: the log that the checkers judge.
//!
//! A history is a list of records in no particular order; whatever order matters stands in the records themselves:
//! times are nanoseconds of one monotonic clock, and what one session sent and received is numbered. As a file it is
//! JSON, one record a line, so that a failure can be looked at with a text editor and judged again by
//! `cargo run --example check_history FILE`.

use std::collections::BTreeSet;
use std::io::BufRead;

use serde::{Deserialize, Serialize};

/// Everything that was seen in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    pub(crate) records: Vec<Record>,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    Setup(Setup),
    /// Something was done to a member.
    Fault {
        at: u64,
        what: String,
    },
    Turn(Turn),
    Operation(Operation),
    Event(Event),
    Dump(Dump),
    /// A member's own digest of its tree at a zxid.
    Digest {
        server: String,
        zxid: i64,
        digest: String,
    },
    /// A member said that it leads this epoch.
    Leader {
        server: String,
        epoch: i64,
    },
}

/// What the run's bounds are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) scenario: String,
    pub(crate) members: Vec<String>,
    /// How long after a session's timeout its ephemerals may still be there: two ticks, and an election where one
    /// falls in between.
    pub(crate) removal_slack_ms: u64,
    /// Whether some sessions are known to one member alone: their end is no txn.
    #[serde(default)]
    pub(crate) has_local_sessions: bool,
}

/// A turn in the life of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) at: u64,
    pub(crate) client: String,
    pub(crate) session: i64,
    pub(crate) change: SessionChange,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SessionChange {
    /// A server took the session, new or known. The request for it, sent at `asked`, is a heartbeat.
    Connected { connection: u32, server: String, timeout_ms: u64, asked: u64 },
    /// The connection to this server is no more.
    Disconnected { server: String },
    /// A server said that the session is gone.
    Expired { server: String },
    /// The client stops without closing the session.
    Abandoned,
}

/// A request and its reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) client: String,
    pub(crate) session: i64,
    /// Which connection of the session, counted from 1.
    pub(crate) connection: u32,
    pub(crate) server: String,
    /// The place among what the session sent.
    pub(crate) request: u64,
    pub(crate) started: u64,
    pub(crate) action: Action,
    /// None when the connection ended first: a write may have been carried out or not.
    pub(crate) reply: Option<Reply>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Change(Change),
    Multi(Vec<Change>),
    /// Sets what anybody may do with a znode, as ZooKeeper's bits.
    Permit {
        path: String,
        permissions: i32,
    },
    Sync,
    Read(Read),
    /// A persistent recursive watch.
    WatchBelow(String),
    /// Brings the watches of the last connection back.
    SetWatches {
        below: Vec<String>,
    },
    Ping,
    Close,
}

/// One write. Within a run no two writes have the same value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Create { path: String, value: String, ephemeral: bool },
    Set { path: String, value: String, version: i32 },
    Delete { path: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Read {
    pub(crate) path: String,
    pub(crate) aspect: Aspect,
    /// Whether it leaves a one-shot watch.
    pub(crate) watch: bool,
    /// When the sync was sent that this read follows on the same connection, if one was.
    pub(crate) synced: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aspect {
    Data,
    Exists,
    Children,
    Acl,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The place among what the session received, replies and events.
    pub(crate) order: u64,
    pub(crate) ended: u64,
    /// Of the reply's header.
    pub(crate) zxid: i64,
    /// The error's number, 0 for success.
    pub(crate) error: i32,
    pub(crate) found: Found,
}

/// What a reply carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Found {
    Nothing,
    Stat(NodeStat),
    Data(Option<String>, NodeStat),
    Children(BTreeSet<String>, NodeStat),
    /// An ACL, as text.
    Acl(String, NodeStat),
    /// The stats of a multi's results, of those that have one.
    Results(Vec<Option<NodeStat>>),
}

/// A znode's stat, as in ZooKeeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStat {
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) pzxid: i64,
    pub(crate) ctime: i64,
    pub(crate) mtime: i64,
    pub(crate) version: i32,
    pub(crate) cversion: i32,
    pub(crate) aversion: i32,
    pub(crate) owner: i64,
    pub(crate) children: i32,
}

/// A watch event that a session received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) client: String,
    pub(crate) session: i64,
    pub(crate) connection: u32,
    pub(crate) order: u64,
    pub(crate) at: u64,
    /// Of the header; Apache ZooKeeper has -1 there up to 3.8.
    pub(crate) zxid: i64,
    pub(crate) kind: EventKind,
    pub(crate) path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventKind {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
}

/// All znodes of one member, read behind a sync while nobody writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dump {
    pub(crate) server: String,
    /// Dumps of one round show the same moment on every member.
    pub(crate) round: u32,
    pub(crate) started: u64,
    pub(crate) ended: u64,
    /// Of every reply that it was put together from.
    pub(crate) zxid: i64,
    pub(crate) nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) value: Option<String>,
    pub(crate) stat: NodeStat,
    #[serde(default)]
    pub(crate) acl: String,
}

impl Change {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Create { path, .. } | Self::Set { path, .. } | Self::Delete { path } => path,
        }
    }
}

impl Action {
    /// The writes of a request that changes the tree by name.
    pub(crate) fn changes(&self) -> &[Change] {
        match self {
            Self::Change(change) => std::slice::from_ref(change),
            Self::Multi(changes) => changes,
            Self::Permit { .. }
            | Self::Sync
            | Self::Read(_)
            | Self::WatchBelow(_)
            | Self::SetWatches { .. }
            | Self::Ping
            | Self::Close => &[],
        }
    }

    /// Whether success means a txn of its own.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Self::Change(_) | Self::Multi(_) | Self::Permit { .. } | Self::Close)
    }
}

impl Operation {
    /// The reply of success.
    pub(crate) fn success(&self) -> Option<&Reply> {
        self.reply.as_ref().filter(|reply| reply.error == 0)
    }
}

impl History {
    /// Reads one record a line.
    ///
    /// # Errors
    ///
    /// Those of `lines`, and a line that is no record, by number.
    pub(crate) fn read_lines(lines: impl BufRead) -> std::io::Result<Self> {
        let mut records = Vec::new();
        for (index, line) in lines.lines().enumerate() {
            let record = serde_json::from_str(&line?)
                .map_err(|error| std::io::Error::other(format!("line {}: {error}", index + 1)))?;
            records.push(record);
        }
        Ok(Self { records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_line_is_named() {
        let error =
            History::read_lines(&b"{\"fault\":{\"at\":1,\"what\":\"kill\"}}\nnonsense\n"[..]).unwrap_err();
        assert!(error.to_string().starts_with("line 2: "), "{error}");
    }
}
