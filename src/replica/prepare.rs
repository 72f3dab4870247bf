//! The leader's part of a write: a request becomes an idempotent txn.
//!
//! Each request is checked once, here, against the tree plus what is in flight, in the order in which
//! ZooKeeper checks; what comes out can be applied by any member at any time without looking again. A request
//! that fails becomes an error txn, which takes its place in the order like every other.
//!
//! Source: `PrepRequestProcessor.java` of Apache ZooKeeper.

use std::collections::BTreeSet;

use super::access;
use super::overlay::{Overlay, ZnodeState};
use crate::id::{SessionId, Zxid};
use crate::tree::{CreateTxn, Tree, TxnOp};
use crate::wire::{CreateRequest, MultiOp};
use crate::zab::mutation::{self, Mutation};
use crate::znode::{Acl, CreateMode, OpError, Owner, Permissions, ZnodePath, is_members_own};

/// Turns requests into txns.
#[derive(Debug, Default)]
pub(super) struct Preparer {
    overlay: Overlay,
    /// Sessions whose creation is in flight.
    creating: BTreeSet<SessionId>,
    /// Sessions whose end is in flight: they can do nothing any more.
    closing: BTreeSet<SessionId>,
}

/// A write as it comes from a client or from the member itself.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// From a client whose connection was accepted; its timeout in ms.
    CreateSession(i32),
    CloseSession,
    /// Deletes ephemerals of a session that is about to be closed.
    DeleteEphemerals(Vec<ZnodePath>),
    Create(CreateRequest),
    Create2(CreateRequest),
    Delete {
        path: String,
        version: i32,
    },
    SetData {
        path: String,
        data: Option<bytes::Bytes>,
        version: i32,
    },
    SetAcl {
        path: String,
        acl: Vec<Acl>,
        version: i32,
    },
    Multi(Vec<MultiOp>),
    /// What cannot be carried out, for this reason, and takes its place in the order all the same.
    Refused(OpError),
}

/// What the client is told once the txn is applied, should it succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReplyShape {
    /// The session's connection is told that it has a session.
    Session,
    Path,
    PathStat,
    Empty,
    Stat,
    Check,
    Multi(Vec<Self>),
}

impl ReplyShape {
    /// Whether a txn can be that of a request which is to be answered so.
    pub(super) fn fits(&self, op: &TxnOp) -> bool {
        match op {
            TxnOp::Error(_) => true,
            TxnOp::CreateSession { .. } => *self == Self::Session,
            TxnOp::CloseSession { .. } | TxnOp::Delete { .. } => *self == Self::Empty,
            TxnOp::Create(_) => *self == Self::Path,
            TxnOp::Create2(_) => *self == Self::PathStat,
            TxnOp::SetData { .. } | TxnOp::SetAcl { .. } => *self == Self::Stat,
            TxnOp::Check { .. } => *self == Self::Check,
            TxnOp::Multi(ops) => matches!(self, Self::Multi(shapes) if shapes.len() == ops.len()),
            TxnOp::CreateContainer { .. }
            | TxnOp::CreateTtl { .. }
            | TxnOp::DeleteContainer { .. }
            | TxnOp::Reconfig { .. } => false,
        }
    }
}

type Prepared = Result<TxnOp, OpError>;

impl Preparer {
    /// Turns a write of `session` into the txn `zxid`. A session that nobody here knows of may write if it may be one that
    /// another member alone knows.
    pub(super) fn prepare(
        &mut self,
        tree: &Tree,
        zxid: Zxid,
        session: SessionId,
        may_be_local: bool,
        write: Write,
    ) -> TxnOp {
        let is_local = may_be_local && !self.is_known(tree, session);
        let mut step = Step { preparer: self, tree, zxid, session, is_local };
        step.prepare(write).unwrap_or_else(TxnOp::Error)
    }

    /// The session's ephemerals beyond those that its closeSession can list, in portions of one txn each. Nobody would read
    /// a txn of any size from the log again.
    pub(super) fn surplus_ephemerals(&self, tree: &Tree, session: SessionId) -> Vec<Vec<ZnodePath>> {
        let (mut portions, mut bytes) = (Vec::new(), 0);
        let mut portion = Vec::new();
        for path in self.overlay.ephemerals(tree, session) {
            bytes += path.as_str().len();
            if bytes > LISTED_BYTES_MAX && !portion.is_empty() {
                bytes = path.as_str().len();
                portions.push(std::mem::take(&mut portion));
            }
            portion.push(path);
        }
        portions
    }

    /// Whether the session exists, once everything proposed is applied.
    pub(super) fn is_alive(&self, tree: &Tree, session: SessionId) -> bool {
        self.is_known(tree, session) && !self.closing.contains(&session)
    }

    /// Whether the session exists or existed, as far as the tree and what is proposed tell.
    pub(super) fn is_known(&self, tree: &Tree, session: SessionId) -> bool {
        tree.sessions().contains(session) || self.creating.contains(&session)
    }

    /// Forgets what the txns up to `zxid` changed, since the tree holds it now.
    pub(super) fn on_applied(&mut self, zxid: Zxid) {
        self.overlay.on_applied(zxid);
    }

    /// Notes that the session is in the tree now.
    pub(super) fn on_session_created(&mut self, session: SessionId) {
        self.creating.remove(&session);
    }

    /// Notes that the session is gone from the tree now.
    pub(super) fn on_session_closed(&mut self, session: SessionId) {
        self.creating.remove(&session);
        self.closing.remove(&session);
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.overlay.is_empty() && self.creating.is_empty() && self.closing.is_empty()
    }
}

/// The preparation of one txn.
struct Step<'a> {
    preparer: &'a mut Preparer,
    tree: &'a Tree,
    zxid: Zxid,
    session: SessionId,
    /// Whether one member alone knows the session.
    is_local: bool,
}

impl Step<'_> {
    fn prepare(&mut self, write: Write) -> Prepared {
        match write {
            // An upgrade whose fate its member did not know, and asked for again.
            Write::CreateSession(_) if self.preparer.closing.contains(&self.session) => {
                Err(OpError::SessionExpired)
            }
            Write::CreateSession(timeout_ms) => {
                self.preparer.creating.insert(self.session);
                Ok(TxnOp::CreateSession { timeout_ms })
            }
            Write::CloseSession => Ok(self.close_session()),
            Write::DeleteEphemerals(paths) => Ok(self.delete_ephemerals(paths)),
            Write::Create(create) => Ok(TxnOp::Create(self.create(create)?)),
            Write::Create2(create) => Ok(TxnOp::Create2(self.create(create)?)),
            Write::Delete { path, version } => self.delete(&path, version),
            Write::SetData { path, data, version } => self.set_data(&path, data, version),
            Write::SetAcl { path, acl, version } => self.set_acl(&path, acl, version),
            Write::Multi(ops) => Ok(self.multi(ops)),
            Write::Refused(error) => Err(error),
        }
    }

    fn create(&mut self, create: CreateRequest) -> Result<CreateTxn, OpError> {
        let mode = CreateMode::from_flags(create.flags).ok_or(OpError::BadArguments)?;
        self.check_session()?;
        if self.is_local && mode.is_ephemeral() {
            return Err(OpError::SessionExpired);
        }
        let parent_text = parent_text(&create.path)?;
        // What another leader has let in may be deleted all the same.
        if is_members_own(&create.path) {
            return Err(OpError::BadArguments);
        }
        let acl = access::fix_up(create.acl)?;
        let mut parent = self.get(parent_text)?;
        Overlay::check_access(self.tree, parent_text, &parent, Permissions::CREATE)?;
        let path = if mode.is_sequential() {
            ZnodePath::parse(&format!("{}{:010}", create.path, parent.cversion))
        } else {
            ZnodePath::parse(&create.path)
        };
        let path = path.map_err(|_not_a_path| OpError::BadArguments)?;
        if self.get(path.as_str()).is_ok() {
            return Err(OpError::NodeExists);
        }
        if parent.owner.session().is_some() {
            return Err(OpError::NoChildrenForEphemerals);
        }

        parent.cversion = parent.cversion.wrapping_add(1);
        parent.child_count += 1;
        let parent_cversion = parent.cversion;
        let owner = if mode.is_ephemeral() { Owner::Ephemeral(self.session) } else { Owner::Persistent };
        self.set(path.parent().ok_or(OpError::BadArguments)?, Some(parent));
        self.set(path.clone(), Some(ZnodeState::created(owner, acl.clone())));
        Ok(CreateTxn { path, data: create.data, acl, ephemeral: mode.is_ephemeral(), parent_cversion })
    }

    fn delete(&mut self, path: &str, version: i32) -> Prepared {
        self.check_session()?;
        if SPECIAL_PATHS.contains(&path) {
            return Err(OpError::BadArguments);
        }
        let parent_text = parent_text(path)?;
        let parent = self.get(parent_text)?;
        Overlay::check_access(self.tree, parent_text, &parent, Permissions::DELETE)?;
        let znode = self.get(path)?;
        check_version(version, znode.version)?;
        if znode.child_count > 0 {
            return Err(OpError::NotEmpty);
        }
        let path = ZnodePath::parse(path).map_err(|_not_a_path| OpError::BadArguments)?;
        self.remove(path.clone());
        Ok(TxnOp::Delete { path })
    }

    fn set_data(&mut self, path: &str, data: Option<bytes::Bytes>, version: i32) -> Prepared {
        self.check_session()?;
        let path = ZnodePath::parse(path).map_err(|_not_a_path| OpError::BadArguments)?;
        let mut znode = self.get(path.as_str())?;
        Overlay::check_access(self.tree, path.as_str(), &znode, Permissions::WRITE)?;
        check_version(version, znode.version)?;
        znode.version = znode.version.wrapping_add(1);
        let version = znode.version;
        self.set(path.clone(), Some(znode));
        Ok(TxnOp::SetData { path, data, version })
    }

    fn set_acl(&mut self, path: &str, acl: Vec<Acl>, version: i32) -> Prepared {
        self.check_session()?;
        let path = ZnodePath::parse(path).map_err(|_not_a_path| OpError::BadArguments)?;
        let acl = access::fix_up(acl)?;
        let mut znode = self.get(path.as_str())?;
        Overlay::check_access(self.tree, path.as_str(), &znode, Permissions::ADMIN)?;
        check_version(version, znode.aversion)?;
        znode.aversion = znode.aversion.wrapping_add(1);
        znode.acl = Some(acl.clone());
        let version = znode.aversion;
        self.set(path.clone(), Some(znode));
        Ok(TxnOp::SetAcl { path, acl, version })
    }

    fn check(&self, path: &str, version: i32) -> Prepared {
        self.check_session()?;
        let path = ZnodePath::parse(path).map_err(|_not_a_path| OpError::BadArguments)?;
        let znode = self.get(path.as_str())?;
        Overlay::check_access(self.tree, path.as_str(), &znode, Permissions::READ)?;
        check_version(version, znode.version)?;
        let version = znode.version.wrapping_add(1);
        Ok(TxnOp::Check { path, version })
    }

    /// All or nothing: each operation sees the ones before it, and the first that fails undoes them.
    fn multi(&mut self, ops: Vec<MultiOp>) -> TxnOp {
        self.preparer.overlay.begin_multi();
        let mut txns = Vec::with_capacity(ops.len());
        let mut has_failed = false;
        for op in ops {
            let txn = if has_failed { Err(OpError::RuntimeInconsistency) } else { self.multi_op(op) };
            has_failed |= txn.is_err();
            txns.push(txn.unwrap_or_else(TxnOp::Error));
        }
        if has_failed {
            self.preparer.overlay.roll_back_multi();
        } else {
            self.preparer.overlay.keep_multi();
        }
        TxnOp::Multi(txns)
    }

    fn multi_op(&mut self, op: MultiOp) -> Prepared {
        match op {
            MultiOp::Create(create) => Ok(TxnOp::Create(self.create(create)?)),
            // Logged as create: members before 3.7.2 and 3.8.2 skip create2 inside a multi (ZOOKEEPER-4026), and the
            // two txns are the same but for their number.
            MultiOp::Create2(create) => Ok(TxnOp::Create(self.create(create)?)),
            MultiOp::Delete { path, version } => self.delete(&path, version),
            MultiOp::SetData { path, data, version } => self.set_data(&path, data, version),
            MultiOp::Check { path, version } => self.check(&path, version),
        }
    }

    /// The txn names every ephemeral that goes with the session, those in flight too, so that all members delete
    /// the same ones.
    fn close_session(&mut self) -> TxnOp {
        let mut paths = self.preparer.overlay.ephemerals(self.tree, self.session);
        if mutation::is_on(Mutation::M17) {
            paths = self.tree.ephemerals(self.session).cloned().collect();
        }
        self.preparer.closing.insert(self.session);
        for path in &paths {
            self.remove(path.clone());
        }
        TxnOp::CloseSession { paths: Some(paths) }
    }

    fn delete_ephemerals(&mut self, paths: Vec<ZnodePath>) -> TxnOp {
        let deletes = paths.into_iter().map(|path| {
            self.remove(path.clone());
            TxnOp::Delete { path }
        });
        TxnOp::Multi(deletes.collect())
    }

    fn check_session(&self) -> Result<(), OpError> {
        let is_alive = self.preparer.is_alive(self.tree, self.session);
        if is_alive || self.is_local { Ok(()) } else { Err(OpError::SessionExpired) }
    }

    fn get(&self, path: &str) -> Result<ZnodeState, OpError> {
        self.preparer.overlay.get(self.tree, path)
    }

    fn set(&mut self, path: ZnodePath, state: Option<ZnodeState>) {
        self.preparer.overlay.set(self.zxid, path, state);
    }

    fn remove(&mut self, path: ZnodePath) {
        if let Some(parent) = path.parent()
            && let Ok(mut state) = self.get(parent.as_str())
        {
            state.child_count = state.child_count.saturating_sub(1);
            self.set(parent, Some(state));
        }
        self.set(path, None);
    }
}

/// Bytes of paths in one txn that ends a session. With their lengths they stay below what other members read of a log,
/// which is `jute.maxbuffer` there; a single path may be as long as a request.
const LISTED_BYTES_MAX: usize = 256 << 10;

/// The znodes that ZooKeeper itself lives by.
const SPECIAL_PATHS: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

/// The text before the last slash, or the root; ZooKeeper checks no more of a path than this before it looks at the
/// parent.
fn parent_text(path: &str) -> Result<&str, OpError> {
    match path.rsplit_once('/') {
        Some(_) if path.contains('\0') => Err(OpError::BadArguments),
        Some(("", _)) => Ok("/"),
        Some((parent, _)) => Ok(parent),
        None => Err(OpError::BadArguments),
    }
}

const fn check_version(expected: i32, current: i32) -> Result<(), OpError> {
    if expected == -1 || expected == current { Ok(()) } else { Err(OpError::BadVersion) }
}
