//! What the history of a member should be: the model that recovery is compared with.

use rollcall::codec::Reader;
use rollcall::id::Zxid;
use rollcall::tree::{Tree, Txn};

/// A history: a state and the txns after it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    base: Zxid,
    base_tree: Tree,
    pub(crate) txns: Vec<Txn>,
}

impl Line {
    /// The history of a member that has none.
    pub(crate) fn new() -> Self {
        Self { base: Zxid::ZERO, base_tree: Tree::new(), txns: Vec::new() }
    }

    /// One that starts with a snapshot from elsewhere.
    pub(crate) fn from_snapshot(base: Zxid, body: &[u8]) -> Self {
        let base_tree = Tree::decode_snapshot(&mut Reader::new(body), base).expect("a tree's own snapshot");
        Self { base, base_tree, txns: Vec::new() }
    }

    pub(crate) fn last(&self) -> Zxid {
        self.last_of(self.txns.len())
    }

    /// The last zxid of the first txns.
    pub(crate) fn last_of(&self, count: usize) -> Zxid {
        count.checked_sub(1).map_or(self.base, |index| self.txns[index].header.zxid)
    }

    /// How many txns a history has that ends with this one.
    pub(crate) fn count_to(&self, last: Zxid) -> Option<usize> {
        (0..=self.txns.len()).find(|count| self.last_of(*count) == last)
    }

    /// The state after the first txns.
    pub(crate) fn tree_of(&self, count: usize) -> Tree {
        let mut tree = self.base_tree.clone();
        self.txns[..count].iter().for_each(|txn| drop(tree.apply(txn)));
        tree
    }

    /// Whether the first txns lead to this tree; how not, if they do not.
    pub(crate) fn check(&self, count: usize, found: &Tree) -> Result<(), String> {
        let expected = self.tree_of(count);
        if expected == *found {
            return Ok(());
        }
        let znodes = |tree: &Tree| -> Vec<_> {
            let show = |path, node: rollcall::tree::NodeRef<'_>| {
                format!("{path} {:?} {:?} {:?}", node.data(), node.persisted(), node.acl())
            };
            tree.nodes().map(|(path, node)| show(path, node)).collect()
        };
        let (expected, found) = (znodes(&expected), znodes(found));
        let missing = expected.iter().find(|znode| !found.contains(znode));
        let extra = found.iter().find(|znode| !expected.contains(znode));
        let txns = &self.txns[..count];
        Err(format!(
            "not the tree of its txns: expected {missing:?}, found {extra:?}, else sessions\n{txns:?}"
        ))
    }
}
