//! Znodes in an arena, found by walking down the components of a path.
//!
//! A znode holds its children's names and numbers, so finding one costs a search per component, adding
//! one costs a search among its siblings, and nothing here recurses, however deep the tree is.
//!
//! Invariants: the root is always there and has number 0; every other znode is the child of exactly one.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use slab::Slab;

use super::acl::{AclId, AclTable};
use crate::znode::{Acl, Stat, StatPersisted};

/// A znode's place in the arena, stable while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

impl NodeId {
    pub(super) const ROOT: Self = Self(0);

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One znode.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) data: Option<Box<[u8]>>,
    pub(super) children: BTreeMap<Box<str>, NodeId>,
    pub(super) stat: StatPersisted,
    pub(super) acl: AclId,
    /// Its share of the tree's digest as last counted.
    pub(super) digest: u32,
}

/// All znodes.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    nodes: Slab<Node>,
}

impl Arena {
    pub(super) fn new(root: Node) -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(root);
        assert_eq!(root, NodeId::ROOT.index(), "a new slab numbers from zero");
        Self { nodes }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Finds a znode by its path; a text that is no path finds nothing.
    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        components(path)?.try_fold(NodeId::ROOT, |node, name| self.child(node, name))
    }

    pub(super) fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        self.get(parent).children.get(name).copied()
    }

    /// Adds a child that is not there yet.
    pub(super) fn add(&mut self, parent: NodeId, name: &str, node: Node) -> NodeId {
        let index = self.nodes.insert(node);
        let id = NodeId(u32::try_from(index).expect("memory ends long before 2^32 znodes"));
        let replaced = self.get_mut(parent).children.insert(name.into(), id);
        assert!(replaced.is_none(), "a znode is added once");
        id
    }

    /// Takes a child out, with the number under which it and all below it is still found.
    pub(super) fn detach(&mut self, parent: NodeId, name: &str) -> Option<NodeId> {
        self.get_mut(parent).children.remove(name)
    }

    /// Frees a detached znode; its children are the caller's to free.
    pub(super) fn free(&mut self, id: NodeId) -> Node {
        self.nodes.remove(id.index())
    }

    /// All znodes, a parent before its children, siblings by name.
    pub(super) fn walk(&self) -> Walk<'_> {
        Walk { arena: self, levels: Vec::new(), path: String::new(), root_is_next: true }
    }

    /// As [`Arena::walk`], starting behind `path`, whether or not it is still there.
    pub(super) fn walk_after(&self, path: &str) -> Walk<'_> {
        let mut walk = Walk { arena: self, levels: Vec::new(), path: String::new(), root_is_next: false };
        let mut parent = NodeId::ROOT;
        for name in components(path).into_iter().flatten() {
            let after = (Bound::Excluded(name), Bound::Unbounded);
            let siblings = self.get(parent).children.range::<str, _>(after);
            walk.levels.push(Level { siblings, path_length: walk.path.len() });
            walk.path.push('/');
            walk.path.push_str(name);
            match self.child(parent, name) {
                Some(child) => parent = child,
                None => return walk,
            }
        }
        walk.descend(parent);
        walk
    }
}

/// An iteration over znodes that knows where it stands.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    arena: &'a Arena,
    levels: Vec<Level<'a>>,
    /// Of the znode that came last, the root's being empty.
    path: String,
    root_is_next: bool,
}

/// The siblings that come next at one depth.
#[derive(Debug)]
struct Level<'a> {
    siblings: btree_map::Range<'a, Box<str>, NodeId>,
    /// Of the parent's path.
    path_length: usize,
}

impl<'a> Walk<'a> {
    /// The next znode.
    pub(super) fn next(&mut self) -> Option<&'a Node> {
        if std::mem::take(&mut self.root_is_next) {
            self.descend(NodeId::ROOT);
            return Some(self.arena.get(NodeId::ROOT));
        }
        while let Some(level) = self.levels.last_mut() {
            let Some((name, id)) = level.siblings.next() else {
                self.levels.pop();
                continue;
            };
            self.path.truncate(level.path_length);
            self.path.push('/');
            self.path.push_str(name);
            self.descend(*id);
            return Some(self.arena.get(*id));
        }
        None
    }

    /// The path of the znode that came last; the root's is empty.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Leaves out what is below the znode that came last.
    pub(super) fn skip_children(&mut self) {
        self.levels.pop();
    }

    fn descend(&mut self, id: NodeId) {
        let siblings = self.arena.get(id).children.range::<str, _>(..);
        self.levels.push(Level { siblings, path_length: self.path.len() });
    }
}

/// A znode of a tree, for as long as the tree does not change.
#[derive(Clone, Copy, Debug)]
pub struct NodeRef<'a> {
    node: &'a Node,
    acls: &'a AclTable,
}

impl<'a> NodeRef<'a> {
    pub(super) const fn new(node: &'a Node, acls: &'a AclTable) -> Self {
        Self { node, acls }
    }

    /// What it holds; null and empty are different.
    pub fn data(self) -> Option<&'a [u8]> {
        self.node.data.as_deref()
    }

    /// Its stat as clients see it.
    pub fn stat(self) -> Stat {
        let data_length = self.node.data.as_ref().map_or(0, |data| data.len());
        self.node.stat.to_stat(data_length, self.node.children.len())
    }

    /// Its stat as stored; its cversion numbers the next sequential child.
    pub fn persisted(self) -> &'a StatPersisted {
        &self.node.stat
    }

    /// Who may do what to it.
    pub fn acl(self) -> &'a [Acl] {
        self.acls.get(self.node.acl)
    }

    /// The names of its children, sorted.
    pub fn children(self) -> impl ExactSizeIterator<Item = &'a str> {
        self.node.children.keys().map(|name| &**name)
    }

    /// The number of its children.
    pub fn child_count(self) -> usize {
        self.node.children.len()
    }
}

/// Takes a path apart; `None` when it does not start with a slash.
fn components(path: &str) -> Option<impl Iterator<Item = &str>> {
    let below_root = path.strip_prefix('/')?;
    Some(below_root.split('/').filter(move |_| !below_root.is_empty()))
}

/// Parent and name of a path, `None` for the root.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/')? {
        (_, "") => None,
        ("", name) => Some(("/", name)),
        (parent, name) => Some((parent, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;
    use crate::tree::workload::{create, tree_of};

    #[test]
    fn split_takes_parent_and_name_apart() {
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/"), None);
    }

    #[test]
    fn a_walk_goes_on_behind_a_path_whether_or_not_it_is_there() {
        let tree = tree_of(["/a", "/a/x", "/a/y", "/b", "/b/z", "/c"].map(|path| create(path, -1)));
        assert_eq!(rest_after(&tree, "/a"), ["/a/x", "/a/y", "/b", "/b/z", "/c"]);
        assert_eq!(rest_after(&tree, "/a/x"), ["/a/y", "/b", "/b/z", "/c"]);
        assert_eq!(rest_after(&tree, "/a/x/gone/too"), ["/a/y", "/b", "/b/z", "/c"]);
        assert_eq!(rest_after(&tree, "/a/z"), ["/b", "/b/z", "/c"]);
        assert_eq!(rest_after(&tree, "/bb"), ["/c"]);
        assert_eq!(rest_after(&tree, ""), ["/a", "/a/x", "/a/y", "/b", "/b/z", "/c"]);
        assert_eq!(rest_after(&tree, "/c"), [""; 0]);
    }

    #[test]
    fn a_walk_leaves_out_what_it_is_told_to() {
        let tree = tree_of(["/a", "/a/x", "/b"].map(|path| create(path, -1)));
        let mut walk = tree.arena.walk_after("");
        walk.next();
        assert_eq!(walk.path(), "/a");
        walk.skip_children();
        walk.next();
        assert_eq!(walk.path(), "/b");
    }

    fn rest_after(tree: &Tree, path: &str) -> Vec<String> {
        let mut walk = tree.arena.walk_after(path);
        let paths = std::iter::from_fn(|| walk.next().is_some().then(|| walk.path().to_owned()));
        paths.take_while(|path| !path.starts_with("/zookeeper")).collect()
    }
}
