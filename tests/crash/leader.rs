//! Where the txns of a story come from.

use bytes::Bytes;
use fastrand::Rng;

use rollcall::id::{SessionId, Xid, Zxid};
use rollcall::tree::{CreateTxn, Tree, Txn, TxnHeader, TxnOp};
use rollcall::znode::{Acl, OpError, Permissions, ZnodePath};

/// Makes txns as a leader does: valid ones, prepared against a tree that is ahead of the committed one.
pub(crate) struct Leader {
    rng: Rng,
    tree: Tree,
    pub(crate) last: Zxid,
    sessions_made: i64,
}

impl Leader {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed ^ 0x7EAD), tree: Tree::new(), last: Zxid::ZERO, sessions_made: 0 }
    }

    /// Goes on from this tree, with zxids after `last`.
    pub(crate) fn follow_on(&mut self, tree: &Tree, last: Zxid) {
        self.tree = tree.clone();
        self.last = last;
    }

    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn propose(&mut self) -> Txn {
        self.last = self.last.next().expect("stories are short");
        let (session, op) = self.operation();
        let header = TxnHeader {
            session,
            cxid: Xid(self.rng.i32(0..1_000)),
            zxid: self.last,
            time_ms: 1_700_000_000_000 + self.rng.i64(0..1_000_000),
        };
        let mut txn = Txn { header, op, digest: None };
        self.tree.apply(&txn);
        txn.digest = (!matches!(txn.op, TxnOp::Error(_))).then(|| self.tree.digest());
        txn
    }

    fn operation(&mut self) -> (SessionId, TxnOp) {
        let session = self.any_session();
        let op = match self.rng.u8(0..100) {
            0..35 => self.create(session),
            35..50 => self.set_data(),
            50..62 => self.delete(),
            62..70 => self.set_acl(),
            70..78 => return self.create_session(),
            78..84 => return self.close_session(),
            84..94 => self.multi(session),
            94.. => TxnOp::Error(OpError::BadVersion),
        };
        (session.unwrap_or(SessionId(1)), op)
    }

    fn create(&mut self, session: Option<SessionId>) -> TxnOp {
        let parent = self.any_path(|path, tree| {
            let owner = tree.ephemerals_of_any().any(|ephemeral| ephemeral.as_str() == path);
            !owner && path.matches('/').count() < 3
        });
        let name = ["a", "b", "c", "d", "ü"][self.rng.usize(0..5)];
        let path = parent.join(name).expect("a valid name");
        if self.tree.node(path.as_str()).is_some() {
            return TxnOp::Error(OpError::NodeExists);
        }
        let parent_cversion = self.tree.node(parent.as_str()).expect("chosen").persisted().cversion + 1;
        let (data, acl) = (self.data(), self.acl());
        match self.rng.u8(0..10) {
            0 => TxnOp::CreateContainer { path, data, acl, parent_cversion },
            1 => TxnOp::CreateTtl { path, data, acl, parent_cversion, ttl_ms: 60_000 },
            2..6 if session.is_some() => {
                TxnOp::Create(CreateTxn { path, data, acl, ephemeral: true, parent_cversion })
            }
            _ => TxnOp::Create2(CreateTxn { path, data, acl, ephemeral: false, parent_cversion }),
        }
    }

    fn set_data(&mut self) -> TxnOp {
        let path = self.any_path(|_, _| true);
        let version = self.tree.node(path.as_str()).expect("chosen").persisted().version + 1;
        TxnOp::SetData { path, data: self.data(), version }
    }

    fn set_acl(&mut self) -> TxnOp {
        let path = self.any_path(|_, _| true);
        let version = self.tree.node(path.as_str()).expect("chosen").persisted().aversion + 1;
        TxnOp::SetAcl { path, acl: self.acl(), version }
    }

    fn delete(&mut self) -> TxnOp {
        let path = self.any_path(|path, tree| tree.node(path).is_some_and(|node| node.child_count() == 0));
        if path.is_root() { TxnOp::Error(OpError::NotEmpty) } else { TxnOp::Delete { path } }
    }

    /// Operations that depend on one another, so that half of them would show.
    fn multi(&mut self, session: Option<SessionId>) -> TxnOp {
        let create = self.create(session);
        let (TxnOp::Create(made) | TxnOp::Create2(made)) = &create else {
            return TxnOp::Multi(vec![TxnOp::Error(OpError::NodeExists), create]);
        };
        let path = made.path.clone();
        let set = TxnOp::SetData { path: path.clone(), data: self.data(), version: 1 };
        let mut ops = vec![TxnOp::Check { path: ZnodePath::root(), version: 0 }, create, set];
        if self.rng.bool() {
            ops.push(TxnOp::Delete { path });
        }
        TxnOp::Multi(ops)
    }

    fn create_session(&mut self) -> (SessionId, TxnOp) {
        self.sessions_made += 1;
        let session = SessionId(self.last.raw() << 8 | self.sessions_made);
        (session, TxnOp::CreateSession { timeout_ms: 10_000 })
    }

    fn close_session(&mut self) -> (SessionId, TxnOp) {
        match self.any_session() {
            Some(session) => {
                // Always with the paths: the form of 3.5 without them cannot repair a parent's pzxid.
                let paths = self.tree.ephemerals(session).cloned().collect();
                (session, TxnOp::CloseSession { paths: Some(paths) })
            }
            None => self.create_session(),
        }
    }

    fn any_session(&mut self) -> Option<SessionId> {
        let sessions: Vec<_> = self.tree.sessions().iter().map(|(session, _)| session).collect();
        self.rng.choice(sessions)
    }

    /// A znode that is ours and meets the condition; the root when there is none.
    fn any_path(&mut self, is_wanted: impl Fn(&str, &Tree) -> bool) -> ZnodePath {
        let ours = self.tree.nodes().map(|(path, _)| path).filter(|path| !path.starts_with("/zookeeper"));
        let wanted: Vec<_> = ours.filter(|path| is_wanted(path, &self.tree)).collect();
        let path = self.rng.choice(wanted).unwrap_or_else(|| "/".to_owned());
        ZnodePath::parse(&path).expect("it is in the tree")
    }

    fn data(&mut self) -> Option<Bytes> {
        let bytes_max = if self.rng.u8(0..8) == 0 { 2_000 } else { 60 };
        let bytes = self.rng.usize(0..bytes_max);
        match self.rng.u8(0..10) {
            0 => None,
            1 => Some(Bytes::from(vec![0; bytes])),
            _ => Some(std::iter::repeat_with(|| self.rng.u8(..)).take(bytes).collect()),
        }
    }

    fn acl(&mut self) -> Vec<Acl> {
        match self.rng.u8(0..6) {
            bits @ 1..4 => vec![Acl::anyone(Permissions(i32::from(bits))), Acl::open()],
            _ => vec![Acl::open()],
        }
    }
}

trait Ephemerals {
    fn ephemerals_of_any(&self) -> impl Iterator<Item = &ZnodePath>;
}

impl Ephemerals for Tree {
    fn ephemerals_of_any(&self) -> impl Iterator<Item = &ZnodePath> {
        self.sessions().iter().flat_map(|(session, _)| self.ephemerals(session))
    }
}
