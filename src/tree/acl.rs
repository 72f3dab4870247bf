//! Access control lists, each distinct one stored once.
//!
//! Most znodes of an ensemble share a handful of ACLs, so a znode holds a number and the table counts
//! who uses which. Numbers are never given twice in the life of a table: a snapshot that is being written
//! can tell by the number alone whether an ACL is older than itself.
//!
//! Source: `ReferenceCountedACLCache.java` of Apache ZooKeeper.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::znode::Acl;

/// The number of an ACL, in the tree and in snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AclId(pub(super) i64);

impl AclId {
    /// `world:anyone:cdrwa`, which stands in no table.
    pub(super) const OPEN: Self = Self(-1);
    const FIRST: Self = Self(1);

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The ACLs in use.
#[derive(Clone, Debug)]
pub(super) struct AclTable {
    open: [Acl; 1],
    by_id: BTreeMap<AclId, Interned>,
    ids: BTreeMap<Arc<[Acl]>, AclId>,
    next: AclId,
}

/// What every number that a znode holds relies on.
const IN_TABLE: &str = "the number of a znode's ACL is in the table";

#[derive(Clone, Debug)]
struct Interned {
    acl: Arc<[Acl]>,
    users: usize,
}

impl AclTable {
    pub(super) const fn new(open: Acl) -> Self {
        Self { open: [open], by_id: BTreeMap::new(), ids: BTreeMap::new(), next: AclId::FIRST }
    }

    /// Counts one more user of `acl`, which gets a number if it has none.
    pub(super) fn acquire(&mut self, acl: &[Acl]) -> AclId {
        let id = self.intern(acl);
        self.reuse(id);
        id
    }

    /// Counts one more user of the ACL `id`, which is in the table.
    pub(super) fn reuse(&mut self, id: AclId) {
        if id != AclId::OPEN {
            self.by_id.get_mut(&id).expect(IN_TABLE).users += 1;
        }
    }

    /// Counts one user less of the ACL `id`, and forgets it with the last one.
    pub(super) fn release(&mut self, id: AclId) {
        if id == AclId::OPEN {
            return;
        }
        let interned = self.by_id.get_mut(&id).expect(IN_TABLE);
        interned.users -= 1;
        if interned.users == 0 {
            self.forget(id);
        }
    }

    /// The number of `acl`, which may have no user yet.
    pub(super) fn intern(&mut self, acl: &[Acl]) -> AclId {
        if acl == self.open {
            return AclId::OPEN;
        }
        if let Some(id) = self.ids.get(acl) {
            return *id;
        }
        let id = self.next;
        let acl: Arc<[Acl]> = acl.into();
        self.ids.insert(Arc::clone(&acl), id);
        self.by_id.insert(id, Interned { acl, users: 0 });
        self.next = id.next();
        id
    }

    /// Forgets what nobody uses, as snapshots written while znodes change may hold.
    pub(super) fn drop_unused(&mut self) {
        let unused: Vec<_> =
            self.by_id.iter().filter(|(_, interned)| interned.users == 0).map(|(id, _)| *id).collect();
        unused.into_iter().for_each(|id| self.forget(id));
    }

    pub(super) fn get(&self, id: AclId) -> &[Acl] {
        if id == AclId::OPEN {
            return &self.open;
        }
        &self.by_id.get(&id).expect(IN_TABLE).acl
    }

    /// The number that the next new ACL gets; every ACL of now has a smaller one.
    pub(super) const fn end(&self) -> AclId {
        self.next
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (AclId, &[Acl])> {
        self.by_id.iter().map(|(id, interned)| (*id, &*interned.acl))
    }

    /// Users by number, for [`Tree::check_invariants`](super::Tree::check_invariants).
    pub(super) fn users(&self) -> BTreeMap<AclId, usize> {
        self.by_id.iter().map(|(id, interned)| (*id, interned.users)).collect()
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.by_id.len(), self.ids.len(), "every ACL has one number");
        for (id, interned) in &self.by_id {
            assert_eq!(self.ids.get(&interned.acl), Some(id), "an ACL's number leads back to it");
            assert!(*id < self.next, "numbers are given in order");
            assert!(*id >= AclId::FIRST, "numbers start at one");
        }
    }

    fn forget(&mut self, id: AclId) {
        if let Some(interned) = self.by_id.remove(&id) {
            self.ids.remove(&interned.acl);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::Permissions;

    #[test]
    fn the_open_acl_stands_in_no_table() {
        let mut table = AclTable::new(Acl::open());
        let id = table.acquire(&[Acl::open()]);
        assert_eq!((id, table.iter().len()), (AclId::OPEN, 0));
        assert_eq!(table.get(id), [Acl::open()]);
        table.release(id);
    }

    #[test]
    fn equal_acls_share_a_number_until_the_last_user_goes() {
        let mut table = AclTable::new(Acl::open());
        let read = [Acl::anyone(Permissions::READ)];
        let id = table.acquire(&read);
        assert_eq!(table.acquire(&read), id);
        table.release(id);
        assert_eq!(table.get(id), read);
        table.release(id);
        assert_eq!(table.iter().len(), 0);
        table.check_invariants();
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut table = AclTable::new(Acl::open());
        let first = table.acquire(&[]);
        table.release(first);
        let end = table.end();
        assert!(first < end);
        assert!(table.acquire(&[]) >= end);
    }
}
