//! The one history that all members are prefixes of: what was committed, in order, and what it means.
//!
//! An entry is committed when a member applies it for the first time. A tree of its own is kept beside, so that digests,
//! sessions and what clients read can be compared with it at any zxid.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use rollcall::id::{SessionId, Xid, Zxid};
use rollcall::tree::{Change, Tree, Txn, TxnOp};
use rollcall::zab::{Entry, continues};
use rollcall::znode::OpError;
use rustc_hash::FxHasher;

use crate::time::Nanos;

/// What was committed.
#[derive(Debug, Default)]
pub(crate) struct Canon {
    pub(crate) committed: Vec<Committed>,
    pub(crate) tree: Tree,
    versions: BTreeMap<String, Vec<Version>>,
    sessions: BTreeMap<SessionId, SessionLife>,
    /// Whether sessions that nobody opened may write.
    pub(crate) has_local_sessions: bool,
    requests: BTreeSet<(SessionId, Xid)>,
}

/// One entry, and what there was after it.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) entry: Entry,
    pub(crate) at: Nanos,
    pub(crate) session: SessionId,
    pub(crate) cxid: Xid,
    pub(crate) error: Option<OpError>,
    fingerprint: Fingerprint,
}

/// What two trees that are the same have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    digest: u64,
    sessions: u64,
}

/// A znode from one txn on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) zxid: Zxid,
    /// Whether its data, or its being there, changed; else its children did.
    pub(crate) is_own: bool,
    /// `None` when it is not there.
    pub(crate) state: Option<State>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) data: Vec<u8>,
    pub(crate) version: i32,
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) pzxid: Zxid,
    pub(crate) children: usize,
    pub(crate) owner: SessionId,
}

/// A session's beginning and end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLife {
    pub(crate) closed_at: Option<Nanos>,
}

impl Fingerprint {
    pub(crate) fn of(tree: &Tree) -> Self {
        let mut hasher = FxHasher::default();
        for session in tree.sessions().iter() {
            (session.0.0, session.1).hash(&mut hasher);
        }
        Self { digest: tree.digest(), sessions: hasher.finish() }
    }
}

impl Canon {
    pub(crate) fn new(has_local_sessions: bool) -> Self {
        Self { has_local_sessions, ..Self::default() }
    }

    pub(crate) fn last_zxid(&self) -> Zxid {
        self.committed.last().map_or(Zxid::ZERO, |committed| committed.entry.zxid)
    }

    /// How many entries are at most `zxid`.
    pub(crate) fn count_up_to(&self, zxid: Zxid) -> usize {
        self.committed.partition_point(|committed| committed.entry.zxid <= zxid)
    }

    pub(crate) fn find(&self, zxid: Zxid) -> Option<&Committed> {
        let found = self.committed.binary_search_by_key(&zxid, |committed| committed.entry.zxid);
        found.ok().map(|index| &self.committed[index])
    }

    /// What a tree must look like after the first `count` entries; nothing is known of the empty one.
    pub(crate) fn fingerprint(&self, count: usize) -> Option<Fingerprint> {
        count.checked_sub(1).map(|index| self.committed[index].fingerprint)
    }

    /// Adds the next entry.
    pub(crate) fn commit(&mut self, entry: &Entry, at: Nanos) {
        let (last, zxid) = (self.last_zxid(), entry.zxid);
        assert!(zxid.epoch() >= last.epoch(), "I5: {zxid} is delivered after {last}, of a later epoch");
        assert!(
            continues(last, zxid),
            "I4: {zxid} is delivered right after {last}, without what comes between"
        );
        let txn = Txn::decode(&entry.payload).expect("I2: what is delivered is a txn");
        assert_eq!(txn.header.zxid, zxid, "I2: an entry has the zxid of its txn");
        let (session, cxid) = (txn.header.session, txn.header.cxid);
        if cxid.0 > 0 {
            assert!(
                self.requests.insert((session, cxid)),
                "I13: request {cxid} of {session} is carried out twice"
            );
        }
        let applied = self.tree.apply(&txn);
        self.check_session(&txn, at);
        for change in &applied.changes {
            let (path, is_move) = match change {
                Change::Created(path) | Change::Deleted(path) => (path, true),
                Change::DataChanged(path) => (path, false),
            };
            self.add_version(path.as_str(), zxid, true);
            if let Some(parent) = path.parent().filter(|_| is_move) {
                self.add_version(parent.as_str(), zxid, false);
            }
        }
        let error = match txn.op {
            TxnOp::Error(error) => Some(error),
            _ => None,
        };
        let fingerprint = Fingerprint::of(&self.tree);
        self.committed.push(Committed { entry: entry.clone(), at, session, cxid, error, fingerprint });
    }

    fn check_session(&mut self, txn: &Txn, at: Nanos) {
        let session = txn.header.session;
        let life = self.sessions.get(&session).copied();
        let zxid = txn.header.zxid;
        let is_alive = life.is_some_and(|life| life.closed_at.is_none());
        match &txn.op {
            TxnOp::CreateSession { .. } => {
                // An upgrade whose fate its member did not know is asked for again.
                let is_again = self.has_local_sessions && is_alive;
                assert!(
                    life.is_none() || is_again,
                    "I14: {zxid} opens session {session}, which was there before"
                );
                self.sessions.insert(session, SessionLife { closed_at: None });
            }
            TxnOp::CloseSession { .. } => {
                let left: Vec<_> = self.tree.ephemerals(session).collect();
                assert!(left.is_empty(), "I14: session {session} is closed, and leaves {left:?}");
                if is_alive {
                    self.sessions.insert(session, SessionLife { closed_at: Some(at) });
                }
            }
            TxnOp::Error(_) => {}
            TxnOp::Multi(ops) if ops.iter().any(|op| matches!(op, TxnOp::Error(_))) => {}
            _ => assert!(
                is_alive || self.has_local_sessions && life.is_none(),
                "I14: {zxid} changes something for session {session}, which is not there: {:?}",
                txn.op
            ),
        }
        let orphans =
            self.tree.ephemerals(session).next().is_some() && !self.tree.sessions().contains(session);
        assert!(!orphans, "I14: session {session} has ephemerals and is not there");
    }

    fn add_version(&mut self, path: &str, zxid: Zxid, is_own: bool) {
        let state = self.tree.node(path).map(|node| {
            let (data, stat) = (node.data().unwrap_or_default().to_vec(), node.stat());
            State {
                data,
                version: stat.version,
                czxid: stat.czxid,
                mzxid: stat.mzxid,
                pzxid: stat.pzxid,
                children: node.child_count(),
                owner: stat.ephemeral_owner,
            }
        });
        self.versions.entry(path.to_owned()).or_default().push(Version { zxid, is_own, state });
    }

    /// The znode as it was after the txn `zxid`; `None` when it was not there.
    pub(crate) fn state_at(&self, path: &str, zxid: Zxid) -> Option<&State> {
        let versions = self.versions.get(path)?;
        let count = versions.partition_point(|version| version.zxid <= zxid);
        versions[..count].last()?.state.as_ref()
    }

    /// What happened to the znode after `from`, up to and with `to`.
    pub(crate) fn versions_between(&self, path: &str, from: Zxid, to: Zxid) -> &[Version] {
        let Some(versions) = self.versions.get(path) else { return &[] };
        let first = versions.partition_point(|version| version.zxid <= from);
        let end = versions.partition_point(|version| version.zxid <= to);
        &versions[first..end.max(first)]
    }

    pub(crate) fn session(&self, session: SessionId) -> Option<SessionLife> {
        self.sessions.get(&session).copied()
    }
}
