//! The body of a snapshot, written a few znodes at a time while txns go on being applied.
//!
//! ```text
//! int count, { long session, int timeout ms }*
//! int count, { long acl id, vector acl }*
//! { string path, buffer data, long acl id, stat }*      a parent before its children; the root's path is ""
//! string "/"
//! ```
//!
//! Sessions and ACLs are written at the beginning, as of then. Every later slice shows its znodes as of its
//! own time, so the whole is as of no one time, and the txns since the beginning must be applied after
//! loading. For that to lead to the live tree again:
//!
//! - A znode created since the beginning is left out, with all below it: its create will be applied.
//! - A znode given an ACL that the table at the beginning lacks is written with one that permits nothing:
//!   the txn that gave it the ACL will be applied. Should somebody lose those txns, nobody gains access.
//!
//! Reading expects neither, so the snapshots of others are welcome.
//!
//! Sources: `SerializeUtils.java`, `DataTree.java`, `ReferenceCountedACLCache.java` of Apache ZooKeeper.

use std::collections::BTreeMap;

use super::acl::{AclId, AclTable};
use super::node::{Node, NodeId};
use super::{SessionTable, Tree};
use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::{SessionId, Zxid};
use crate::znode::{Acl, PathError, Permissions, StatPersisted, ZnodePath};

/// Ends the list of znodes.
const END_MARKER: &str = "/";

/// How far a snapshot has been written. It belongs to the tree that began it.
#[derive(Clone, Debug)]
pub struct SnapshotCursor {
    zxid: Zxid,
    /// Znodes created later are left out.
    newest: Zxid,
    /// Stands in the table for every ACL from this number on, and permits nothing.
    closed_acl: AclId,
    position: Position,
}

#[derive(Clone, Debug)]
enum Position {
    Start,
    /// Behind the znode of this path.
    After(String),
    End,
}

/// Why bytes are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A field is not what it should be.
    #[error("the snapshot cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// A znode's path breaks the rules.
    #[error("the snapshot has a znode of no valid path: {0}")]
    Path(#[from] PathError),
    /// A znode comes without its parent having come before.
    #[error("the snapshot has {path} but not its parent")]
    Orphan {
        /// Of the child.
        path: ZnodePath,
    },
    /// A znode comes twice.
    #[error("the snapshot has {path} twice")]
    Duplicate {
        /// Of the znode.
        path: ZnodePath,
    },
    /// The root does not come first.
    #[error("the snapshot does not begin with the root")]
    NoRoot,
    /// A znode names an ACL that is not in the snapshot.
    #[error("the snapshot has no ACL {acl_id}, which {path} has")]
    UnknownAcl {
        /// Of the znode.
        path: ZnodePath,
        /// The number that it names.
        acl_id: i64,
    },
}

impl SnapshotCursor {
    /// The zxid as of which the snapshot was begun: txns after this one are to be applied after loading.
    pub const fn zxid(&self) -> Zxid {
        self.zxid
    }

    fn covers(&self, node: &Node) -> bool {
        node.stat.czxid <= self.newest
    }
}

impl Tree {
    /// Begins a snapshot as of now: appends the sessions and the ACLs.
    pub fn begin_snapshot(&self, out: &mut Vec<u8>) -> SnapshotCursor {
        encode_sessions(&self.sessions, out);
        let closed_acl = self.acls.end();
        encode_acls(&self.acls, closed_acl, out);
        SnapshotCursor {
            zxid: self.last_zxid,
            newest: self.last_zxid.max(self.newest_loaded),
            closed_acl,
            position: Position::Start,
        }
    }

    /// Continues the snapshot where `cursor` stands: appends at most `nodes_max` znodes (at least one) and
    /// says whether that was all, end marker included. Continued after its end it appends nothing.
    pub fn continue_snapshot(
        &self,
        cursor: &mut SnapshotCursor,
        nodes_max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut walk = match &cursor.position {
            Position::Start => self.arena.walk(),
            Position::After(path) => self.arena.walk_after(path),
            Position::End => return true,
        };
        for _ in 0..nodes_max.max(1) {
            let Some(node) = walk.next() else {
                out.put_text(END_MARKER);
                cursor.position = Position::End;
                return true;
            };
            if cursor.covers(node) {
                encode_node(walk.path(), node, node.acl.min(cursor.closed_acl), out);
            } else {
                walk.skip_children();
            }
        }
        cursor.position = Position::After(walk.path().to_owned());
        false
    }

    /// Reads a snapshot's body, up to and with its end marker. `zxid` is that of the snapshot's beginning;
    /// the txns after it are to be applied.
    ///
    /// # Errors
    ///
    /// When the bytes are no snapshot.
    pub fn decode_snapshot(reader: &mut Reader<'_>, zxid: Zxid) -> Result<Self, SnapshotError> {
        let sessions = decode_sessions(reader)?;
        let mut acls = AclTable::new(Acl::open());
        let acl_ids = decode_acls(&mut acls, reader)?;
        let acl_of = |acl_id: i64, path: &ZnodePath| {
            acl_ids
                .get(&acl_id)
                .copied()
                .ok_or_else(|| SnapshotError::UnknownAcl { path: path.clone(), acl_id })
        };

        if !reader.text("snapshot.path")?.is_empty() {
            return Err(SnapshotError::NoRoot);
        }
        let root = NodeRecord::decode(reader)?;
        if root.stat.owner.session().is_some() {
            let value = root.stat.owner.raw();
            return Err(CodecError::BadValue { field: "snapshot.root.ephemeralOwner", value }.into());
        }
        let mut tree = Self::with_root(root.data, root.stat, acls);
        let root_acl = acl_of(root.acl_id, &ZnodePath::root())?;
        tree.acls.reuse(root_acl);
        tree.arena.get_mut(NodeId::ROOT).acl = root_acl;
        tree.sessions = sessions;

        loop {
            let path = reader.text("snapshot.path")?;
            if path == END_MARKER {
                break;
            }
            let path = ZnodePath::parse(&path)?;
            let record = NodeRecord::decode(reader)?;
            let acl = acl_of(record.acl_id, &path)?;
            tree.load_node(&path, &record, acl)?;
        }
        tree.acls.drop_unused();
        tree.last_zxid = zxid;
        Ok(tree)
    }

    fn load_node(
        &mut self,
        path: &ZnodePath,
        record: &NodeRecord<'_>,
        acl: AclId,
    ) -> Result<(), SnapshotError> {
        let parent = path.parent().and_then(|parent| self.arena.find(parent.as_str()));
        let Some(parent) = parent else {
            return Err(SnapshotError::Orphan { path: path.clone() });
        };
        if self.arena.child(parent, path.name()).is_some() {
            return Err(SnapshotError::Duplicate { path: path.clone() });
        }
        self.acls.reuse(acl);
        self.add_node(parent, path, record.data, record.stat, acl);
        self.newest_loaded = self.newest_loaded.max(record.stat.czxid);
        Ok(())
    }
}

/// A znode as it stands in a snapshot, behind its path.
struct NodeRecord<'a> {
    data: Option<&'a [u8]>,
    acl_id: i64,
    stat: StatPersisted,
}

impl<'a> NodeRecord<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        Ok(Self {
            data: reader.buffer("snapshot.data")?,
            acl_id: reader.long("snapshot.acl")?,
            stat: StatPersisted::decode(reader)?,
        })
    }
}

fn encode_sessions(sessions: &SessionTable, out: &mut Vec<u8>) {
    out.put_count(sessions.len());
    for (session, timeout_ms) in sessions.iter() {
        out.put_long(session.0);
        out.put_int(timeout_ms);
    }
}

fn decode_sessions(reader: &mut Reader<'_>) -> Result<SessionTable, CodecError> {
    let mut sessions = SessionTable::default();
    reader.vector("snapshot.sessions", 12, |reader| {
        let session = SessionId(reader.long("snapshot.session.id")?);
        sessions.insert(session, reader.int("snapshot.session.timeout")?);
        Ok(())
    })?;
    Ok(sessions)
}

fn encode_acls(acls: &AclTable, closed: AclId, out: &mut Vec<u8>) {
    out.put_count(acls.iter().len() + 1);
    for (id, acl) in acls.iter() {
        out.put_long(id.0);
        Acl::encode_list(acl, out);
    }
    out.put_long(closed.0);
    Acl::encode_list(&[Acl::anyone(Permissions(0))], out);
}

/// Reads the ACLs and returns, by its number there, the number that each has here.
fn decode_acls(acls: &mut AclTable, reader: &mut Reader<'_>) -> Result<BTreeMap<i64, AclId>, CodecError> {
    let mut ids = BTreeMap::from([(AclId::OPEN.0, AclId::OPEN)]);
    reader.vector("snapshot.acls", 12, |reader| {
        let id = reader.long("snapshot.acl.id")?;
        ids.insert(id, acls.intern(&Acl::decode_list(reader)?));
        Ok(())
    })?;
    Ok(ids)
}

fn encode_node(path: &str, node: &Node, acl: AclId, out: &mut Vec<u8>) {
    out.put_text(path);
    out.put_buffer(node.data.as_deref());
    out.put_long(acl.0);
    node.stat.encode(out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::Txn;
    use crate::tree::workload::{Step, Workload, create, path, steps, tree_of, txn};
    use crate::tree::{CreateTxn, TxnOp};

    proptest! {
        #[test]
        fn a_snapshot_and_the_txns_since_its_beginning_are_the_live_tree(
            before in steps(0..50), meanwhile in steps(0..50), after in steps(0..10), nodes_max in 1_usize..5,
        ) {
            let mut workload = Workload::of(&before);
            let cursor = begin(&workload.tree);
            let (bytes, txns) = finish(&mut workload, cursor, &meanwhile, &after, nodes_max);
            prop_assert_eq!(load_and_replay(&bytes, &txns), workload.tree);
        }

        #[test]
        fn a_snapshot_that_holds_newer_znodes_as_apaches_do_loads_too(
            before in steps(0..50), meanwhile in steps(0..50), after in steps(0..10), nodes_max in 1_usize..5,
        ) {
            let mut workload = Workload::of(&before);
            let (mut cursor, beginning) = begin(&workload.tree);
            cursor.newest = Zxid::from_raw(i64::MAX);
            let cursor = (cursor, beginning);
            let (bytes, txns) = finish(&mut workload, cursor, &meanwhile, &after, nodes_max);
            prop_assert_eq!(load_and_replay(&bytes, &txns), workload.tree);
        }

        #[test]
        fn mangled_snapshots_are_errors_or_trees_but_never_panics(
            before in steps(0..30), at: prop::sample::Index, value: u8, cut: prop::sample::Index,
        ) {
            let mut bytes = whole(&Workload::of(&before).tree);
            prop_assert!(Tree::decode_snapshot(&mut Reader::new(&bytes[..cut.index(bytes.len())]), Zxid::ZERO).is_err());
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(tree) = Tree::decode_snapshot(&mut Reader::new(&bytes), Zxid::ZERO) {
                tree.check_invariants();
            }
        }
    }

    #[test]
    fn the_reader_stops_behind_the_end_marker() {
        let tree = tree_of([create("/a", 1)]);
        let mut bytes = whole(&tree);
        bytes.extend_from_slice(b"seal");
        let mut reader = Reader::new(&bytes);
        assert_eq!(Tree::decode_snapshot(&mut reader, tree.last_zxid()), Ok(tree));
        assert_eq!(reader.remaining(), b"seal");
    }

    #[test]
    fn a_cursor_at_its_end_writes_nothing_more() {
        let tree = Tree::new();
        let mut bytes = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut bytes);
        assert!(tree.continue_snapshot(&mut cursor, 100, &mut bytes));
        let length = bytes.len();
        assert!(tree.continue_snapshot(&mut cursor, 100, &mut bytes));
        assert_eq!(bytes.len(), length);
    }

    #[test]
    fn a_slice_holds_no_more_znodes_than_asked_for() {
        let tree = tree_of(["/a", "/b", "/c"].map(|path| create(path, -1)));
        let (mut bytes, mut slices) = (Vec::new(), 1);
        let mut cursor = tree.begin_snapshot(&mut bytes);
        while !tree.continue_snapshot(&mut cursor, 2, &mut bytes) {
            slices += 1;
        }
        assert_eq!(slices, 4, "seven znodes two by two, the end marker with the last");
        assert_eq!(Tree::decode_snapshot(&mut Reader::new(&bytes), tree.last_zxid()), Ok(tree));
    }

    #[test]
    fn an_acl_newer_than_the_snapshot_is_written_closed() {
        let mut tree = tree_of([create("/a", 1)]);
        let mut bytes = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut bytes);
        let acl = vec![Acl::anyone(Permissions::WRITE)];
        let set_acl = txn(9, TxnOp::SetAcl { path: path("/a"), acl, version: 1 });
        tree.apply(&set_acl);
        assert!(tree.continue_snapshot(&mut cursor, 100, &mut bytes));
        let mut loaded = Tree::decode_snapshot(&mut Reader::new(&bytes), cursor.zxid()).unwrap();
        assert_eq!(loaded.node("/a").unwrap().acl(), [Acl::anyone(Permissions(0))]);
        loaded.apply(&set_acl);
        assert_eq!(loaded, tree);
    }

    #[test]
    fn what_a_fuzzy_snapshot_held_beyond_its_zxid_is_written_again() {
        let tree = tree_of([create("/a", 1)]);
        let bytes = whole(&tree);
        let loaded = Tree::decode_snapshot(&mut Reader::new(&bytes), Zxid::ZERO).unwrap();
        let again = Tree::decode_snapshot(&mut Reader::new(&whole(&loaded)), tree.last_zxid()).unwrap();
        assert_eq!(again, tree);
    }

    #[test]
    fn open_acls_that_have_a_number_of_their_own_are_read_as_open() {
        // As Apache's servers write them.
        let bytes = body(&[(7, Acl::open())], &[("", 7), ("/a", 7)]);
        let tree = Tree::decode_snapshot(&mut Reader::new(&bytes), Zxid::ZERO).unwrap();
        assert_eq!(tree.node("/a").unwrap().acl(), [Acl::open()]);
        tree.check_invariants();
    }

    #[test]
    fn bodies_that_contradict_themselves_are_refused() {
        let duplicate = SnapshotError::Duplicate { path: path("/a") };
        let orphan = SnapshotError::Orphan { path: path("/a/b") };
        let unknown = SnapshotError::UnknownAcl { path: path("/a"), acl_id: 3 };
        for (nodes, error) in [
            (vec![("", -1), ("/a", -1), ("/a", -1)], duplicate),
            (vec![("", -1), ("/a/b", -1)], orphan),
            (vec![("", -1), ("/a", 3)], unknown),
            (vec![("/a", -1)], SnapshotError::NoRoot),
            (vec![], SnapshotError::NoRoot),
        ] {
            let bytes = body(&[], &nodes);
            assert_eq!(Tree::decode_snapshot(&mut Reader::new(&bytes), Zxid::ZERO), Err(error));
        }
        let bytes = body(&[], &[("", -1), ("no/path", -1)]);
        let result = Tree::decode_snapshot(&mut Reader::new(&bytes), Zxid::ZERO);
        assert!(matches!(result, Err(SnapshotError::Path(_))));
    }

    #[test]
    fn a_znode_deleted_and_created_anew_meanwhile_is_left_to_its_txns() {
        let mut tree = tree_of([create("/a", 1), create("/a/b", 1), create("/c", 2)]);
        let mut bytes = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut bytes);
        // Behind "" and "/a".
        assert!(!tree.continue_snapshot(&mut cursor, 2, &mut bytes));
        let ops = [
            TxnOp::Delete { path: path("/a/b") },
            TxnOp::Delete { path: path("/a") },
            create("/a", 3),
            TxnOp::Create(CreateTxn { ephemeral: true, ..crate::tree::workload::create_of("/a/z", 1) }),
        ];
        let txns: Vec<_> = (20..).zip(ops).map(|(zxid, op)| txn(zxid, op)).collect();
        for txn in &txns {
            tree.apply(txn);
        }
        while !tree.continue_snapshot(&mut cursor, 1, &mut bytes) {}
        let loaded = Tree::decode_snapshot(&mut Reader::new(&bytes), cursor.zxid()).unwrap();
        assert!(loaded.node("/a/z").is_none() && loaded.node("/c").is_some());
        assert_eq!(load_and_replay(&(bytes, cursor.zxid()), &txns), tree);
    }

    type Body = (Vec<u8>, Zxid);

    fn begin(tree: &Tree) -> (SnapshotCursor, Vec<u8>) {
        let mut bytes = Vec::new();
        (tree.begin_snapshot(&mut bytes), bytes)
    }

    /// Writes slices with txns in between; returns the body and every txn since its beginning.
    fn finish(
        workload: &mut Workload,
        (mut cursor, mut bytes): (SnapshotCursor, Vec<u8>),
        meanwhile: &[Step],
        after: &[Step],
        nodes_max: usize,
    ) -> (Body, Vec<Txn>) {
        let mut txns = Vec::new();
        let mut left = meanwhile.iter();
        while !workload.tree.continue_snapshot(&mut cursor, nodes_max, &mut bytes) {
            txns.extend(left.by_ref().take(3).map(|step| workload.step(step)));
        }
        txns.extend(left.chain(after).map(|step| workload.step(step)));
        ((bytes, cursor.zxid()), txns)
    }

    fn load_and_replay((bytes, zxid): &Body, txns: &[Txn]) -> Tree {
        let mut tree = Tree::decode_snapshot(&mut Reader::new(bytes), *zxid).unwrap();
        tree.check_invariants();
        for txn in txns {
            tree.apply(txn);
            tree.check_invariants();
        }
        tree
    }

    fn whole(tree: &Tree) -> Vec<u8> {
        let (mut cursor, mut bytes) = begin(tree);
        assert!(tree.continue_snapshot(&mut cursor, usize::MAX, &mut bytes));
        bytes
    }

    fn body(acls: &[(i64, Acl)], nodes: &[(&str, i64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_count(0);
        bytes.put_count(acls.len());
        for (id, acl) in acls {
            bytes.put_long(*id);
            Acl::encode_list(std::slice::from_ref(acl), &mut bytes);
        }
        for (path, acl_id) in nodes {
            bytes.put_text(path);
            bytes.put_buffer(None);
            bytes.put_long(*acl_id);
            StatPersisted::default().encode(&mut bytes);
        }
        bytes.put_text(END_MARKER);
        bytes
    }
}
