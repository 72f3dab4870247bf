//! The names of a simulated disk: what lookups see, what is durable, and the changes between.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

/// The names and which files they mean.
#[derive(Debug, Default)]
pub(super) struct Folder {
    names: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    unsynced: Vec<NameChange>,
}

/// A change of a name.
#[derive(Debug)]
pub(super) enum NameChange {
    Link { name: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
    Unlink { name: String, inode: u64 },
}

impl Folder {
    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    /// What a power failure leaves in any case.
    pub(super) fn durable_names(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.durable.iter()
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    /// Puts a durable name there.
    pub(super) fn put(&mut self, name: &str, inode: u64) {
        self.names.insert(name.to_owned(), inode);
        self.durable.insert(name.to_owned(), inode);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A power failure.
    pub(super) fn lose_unsynced(&mut self, rng: &mut Rng) {
        if self.unsynced.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.unsynced);
        let kept = match rng.u8(0..4) {
            0 => 0,
            1 => changes.len(),
            _ => rng.usize(0..=changes.len()),
        };
        let is_subset = rng.bool();
        for (index, change) in changes.iter().enumerate() {
            if if is_subset { rng.usize(0..=changes.len()) < kept } else { index < kept } {
                change.apply(&mut self.durable);
            }
        }
        self.names = self.durable.clone();
    }

    /// The files that a name means, or may mean after a power failure.
    pub(super) fn reachable(&self) -> BTreeSet<u64> {
        let changing = self.unsynced.iter().map(NameChange::inode);
        self.names.values().chain(self.durable.values()).copied().chain(changing).collect()
    }
}

impl NameChange {
    const fn inode(&self) -> u64 {
        match self {
            Self::Link { inode, .. } | Self::Rename { inode, .. } | Self::Unlink { inode, .. } => *inode,
        }
    }

    /// Takes effect only as far as earlier changes, some of which may be lost, left it a meaning.
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Unlink { name, inode } => {
                if names.get(name) == Some(inode) {
                    names.remove(name);
                }
            }
        }
    }
}
