//! Watches: who is told about which change.
//!
//! One-shot watches live in two tables, as in ZooKeeper: *data* (getData, exists) and *child* (getChildren); a
//! watch is gone once it fired. Persistent watches stay, in both tables; persistent recursive ones stay and
//! hear of data, creation and deletion at their path and below, never of "children changed".
//! A connection is one watcher: however often it registers, it is told of a change once.
//!
//! Source: `WatchManager.java`, `DataTree.java` (`setWatches`) of Apache ZooKeeper, with the modes kept apart as
//! 3.9 does.

use std::collections::{BTreeMap, BTreeSet};

use super::ConnectionId;
use crate::tree::Change;
use crate::znode::{AddWatchMode, EventKind, OpError, WatchedEvent, ZnodePath};

/// All watches of the clients connected to this member.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_path: BTreeMap<Box<str>, BTreeMap<ConnectionId, Kinds>>,
    by_connection: BTreeMap<ConnectionId, Watched>,
    recursive: usize,
}

/// The paths that one connection watches.
#[derive(Debug, Default)]
struct Watched {
    paths: BTreeSet<Box<str>>,
    bytes: usize,
}

/// An event, and who is told of it; nobody is both.
#[derive(Debug)]
pub(super) struct Firing {
    pub(super) event: WatchedEvent,
    /// By a watch of that very path.
    pub(super) watchers: Vec<ConnectionId>,
    /// By a recursive watch alone, there or above.
    pub(super) followers: Vec<ConnectionId>,
}

impl Firing {
    fn of(
        kind: EventKind,
        path: &ZnodePath,
        watchers: Vec<ConnectionId>,
        followers: Vec<ConnectionId>,
    ) -> Option<Self> {
        let event = || WatchedEvent { kind, path: path.as_str().to_owned() };
        let is_for_nobody = watchers.is_empty() && followers.is_empty();
        (!is_for_nobody).then(|| Self { event: event(), watchers, followers })
    }
}

/// Bytes of paths that one connection may watch. More than any client can give back after a reconnect in reasonable time;
/// beyond, watches are refused, so that nobody fills the member's memory with paths.
const PATH_BYTES_MAX: usize = 64 << 20;

/// What a client registers; each kind is there or not for one connection and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchKind {
    /// One-shot, by getData or exists.
    Data,
    /// One-shot, by getChildren.
    Child,
    /// Persistent, of one path.
    Persistent,
    /// Persistent, of a path and everything below.
    Recursive,
}

impl From<AddWatchMode> for WatchKind {
    fn from(mode: AddWatchMode) -> Self {
        match mode {
            AddWatchMode::Persistent => Self::Persistent,
            AddWatchMode::PersistentRecursive => Self::Recursive,
        }
    }
}

/// The kinds of watches that one connection has on one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kinds {
    data: bool,
    child: bool,
    persistent: bool,
    recursive: bool,
}

impl Kinds {
    const fn slot(&mut self, kind: WatchKind) -> &mut bool {
        match kind {
            WatchKind::Data => &mut self.data,
            WatchKind::Child => &mut self.child,
            WatchKind::Persistent => &mut self.persistent,
            WatchKind::Recursive => &mut self.recursive,
        }
    }

    const fn is_none(self) -> bool {
        !(self.data || self.child || self.persistent || self.recursive)
    }
}

/// What `removeWatches` and `checkWatches` name; `WatcherType` in ZooKeeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatcherType {
    /// One-shot child watches.
    Children,
    /// One-shot data watches.
    Data,
    /// Watches of every kind.
    Any,
    /// Persistent watches.
    Persistent,
    /// Persistent recursive watches.
    Recursive,
}

impl WatcherType {
    /// The type with this number on the wire.
    pub(super) const fn from_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Self::Children),
            2 => Some(Self::Data),
            3 => Some(Self::Any),
            4 => Some(Self::Persistent),
            5 => Some(Self::Recursive),
            _ => None,
        }
    }

    const fn kinds(self) -> &'static [WatchKind] {
        match self {
            Self::Children => &[WatchKind::Child],
            Self::Data => &[WatchKind::Data],
            Self::Any => &[WatchKind::Child, WatchKind::Data, WatchKind::Persistent, WatchKind::Recursive],
            Self::Persistent => &[WatchKind::Persistent],
            Self::Recursive => &[WatchKind::Recursive],
        }
    }
}

impl Watches {
    /// Registers a watch.
    ///
    /// # Errors
    ///
    /// When the connection watches more than [`PATH_BYTES_MAX`] of paths.
    pub(super) fn add(
        &mut self,
        connection: ConnectionId,
        path: &str,
        kind: WatchKind,
    ) -> Result<(), OpError> {
        let watched = self.by_connection.entry(connection).or_default();
        if !watched.paths.contains(path) {
            if watched.bytes + path.len() > PATH_BYTES_MAX {
                return Err(OpError::QuotaExceeded);
            }
            watched.bytes += path.len();
            watched.paths.insert(path.into());
        }
        if !self.by_path.contains_key(path) {
            self.by_path.insert(path.into(), BTreeMap::new());
        }
        let watchers = self.by_path.get_mut(path).expect("inserted when it was missing");
        let slot = watchers.entry(connection).or_default().slot(kind);
        if kind == WatchKind::Recursive && !*slot {
            self.recursive += 1;
        }
        *slot = true;
        Ok(())
    }

    /// Whether the connection has a watch of this type on `path`.
    pub(super) fn has(&self, connection: ConnectionId, path: &str, which: WatcherType) -> bool {
        let Some(kinds) = self.by_path.get(path).and_then(|watchers| watchers.get(&connection)) else {
            return false;
        };
        let mut kinds = *kinds;
        which.kinds().iter().any(|kind| *kinds.slot(*kind))
    }

    /// Removes the connection's watches of this type on `path`; false when there were none.
    pub(super) fn remove(&mut self, connection: ConnectionId, path: &str, which: WatcherType) -> bool {
        let removed = which.kinds().iter().filter(|kind| self.clear(connection, path, **kind)).count();
        removed > 0
    }

    /// Forgets a connection and all its watches.
    pub(super) fn remove_connection(&mut self, connection: ConnectionId) {
        let paths =
            self.by_connection.get(&connection).map(|watched| watched.paths.clone()).unwrap_or_default();
        for path in paths {
            self.remove(connection, &path, WatcherType::Any);
        }
    }

    /// The paths that the connection watches with all that is below them.
    pub(super) fn followed_by(&self, connection: ConnectionId) -> impl Iterator<Item = &str> {
        let paths = self.by_connection.get(&connection).into_iter().flat_map(|watched| &watched.paths);
        paths.map(|path| &**path).filter(move |path| self.has(connection, path, WatcherType::Recursive))
    }

    /// Who is told of changes at `path`, of whatever kind; and whether of every change there and below.
    pub(super) fn watchers(&self, path: &ZnodePath) -> Vec<(ConnectionId, bool)> {
        let at = |path: &str| self.by_path.get(path).into_iter().flatten();
        let mut found: Vec<_> = at(path.as_str()).map(|(id, kinds)| (*id, kinds.recursive)).collect();
        let mut below = path.as_str();
        while let Some((above, name)) = below.rsplit_once('/')
            && !name.is_empty()
        {
            below = above;
            let path = if above.is_empty() { "/" } else { above };
            found.extend(at(path).filter(|(_, kinds)| kinds.recursive).map(|(id, _)| (*id, true)));
        }
        // Of one connection the strongest.
        found.sort_unstable_by_key(|(id, is_follower)| (*id, !is_follower));
        found.dedup_by_key(|(id, _)| *id);
        found
    }

    /// Every watched path with who watches it, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = ConnectionId>)> {
        self.by_path.iter().map(|(path, watchers)| (&**path, watchers.keys().copied()))
    }

    /// How many paths are watched.
    pub(super) fn watched_paths(&self) -> usize {
        self.by_path.len()
    }

    /// The events that a change sends, in order; one-shot watches that fire are gone after it.
    pub(super) fn fire(&mut self, change: &Change) -> Vec<Firing> {
        if self.by_path.is_empty() {
            return Vec::new();
        }
        let (at_path, at_parent) = match change {
            Change::Created(path) => {
                (self.fire_at(path, EventKind::Created, &[WatchKind::Data]), self.fire_children_changed(path))
            }
            Change::Deleted(path) => (
                self.fire_at(path, EventKind::Deleted, &[WatchKind::Data, WatchKind::Child]),
                self.fire_children_changed(path),
            ),
            Change::DataChanged(path) => {
                (self.fire_at(path, EventKind::DataChanged, &[WatchKind::Data]), None)
            }
        };
        [at_path, at_parent].into_iter().flatten().collect()
    }

    /// Fires the one-shot kinds named, the persistent watches at `path` and the recursive ones at or above it.
    fn fire_at(&mut self, path: &ZnodePath, kind: EventKind, one_shot: &[WatchKind]) -> Option<Firing> {
        let (mut told, mut followers, mut fired) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(watchers) = self.by_path.get(path.as_str()) {
            for (connection, kinds) in watchers {
                let mut kinds = *kinds;
                let is_one_shot = one_shot.iter().any(|kind| *kinds.slot(*kind));
                if kinds.persistent || is_one_shot {
                    told.push(*connection);
                } else if kinds.recursive {
                    followers.push(*connection);
                }
                fired.extend(Some(*connection).filter(|_| is_one_shot));
            }
        }
        if self.recursive > 0 {
            // Slices of the one path: there may be thousands of levels.
            let mut below = path.as_str();
            while let Some((above, _)) = below.rsplit_once('/') {
                if let Some(watchers) = self.by_path.get(if above.is_empty() { "/" } else { above }) {
                    followers.extend(watchers.iter().filter(|(_, kinds)| kinds.recursive).map(|(id, _)| *id));
                }
                below = above;
            }
        }
        for connection in fired {
            for kind in one_shot {
                self.clear(connection, path.as_str(), *kind);
            }
        }
        // Sorted runs, one for each level.
        followers.sort();
        followers.dedup();
        if !told.is_empty() {
            followers.retain(|id| told.binary_search(id).is_err());
        }
        Firing::of(kind, path, told, followers)
    }

    fn fire_children_changed(&mut self, child: &ZnodePath) -> Option<Firing> {
        let parent = child.parent()?;
        let watchers = self.by_path.get(parent.as_str())?;
        let told: Vec<_> =
            watchers.iter().filter(|(_, kinds)| kinds.child || kinds.persistent).map(|(id, _)| *id).collect();
        for connection in &told {
            self.clear(*connection, parent.as_str(), WatchKind::Child);
        }
        Firing::of(EventKind::ChildrenChanged, &parent, told, Vec::new())
    }

    /// Removes one watch; false when it was not there.
    fn clear(&mut self, connection: ConnectionId, path: &str, kind: WatchKind) -> bool {
        let Some(watchers) = self.by_path.get_mut(path) else { return false };
        let Some(kinds) = watchers.get_mut(&connection) else { return false };
        let was_set = std::mem::take(kinds.slot(kind));
        if was_set && kind == WatchKind::Recursive {
            self.recursive -= 1;
        }
        if kinds.is_none() {
            watchers.remove(&connection);
            if watchers.is_empty() {
                self.by_path.remove(path);
            }
            if let Some(watched) = self.by_connection.get_mut(&connection) {
                if watched.paths.remove(path) {
                    watched.bytes -= path.len();
                }
                if watched.paths.is_empty() {
                    self.by_connection.remove(&connection);
                }
            }
        }
        was_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: ConnectionId = ConnectionId(1);
    const BOB: ConnectionId = ConnectionId(2);

    fn path(text: &str) -> ZnodePath {
        ZnodePath::parse(text).unwrap()
    }

    fn fired(watches: &mut Watches, change: &Change) -> Vec<(u64, EventKind, String)> {
        let told = |Firing { event, watchers, followers }| {
            let mut told = [watchers, followers].concat();
            told.sort_unstable();
            told.into_iter().map(move |id: ConnectionId| (id.0, event.kind, event.path.clone()))
        };
        watches.fire(change).into_iter().flat_map(told).collect()
    }

    #[test]
    fn a_one_shot_watch_fires_once() {
        let mut watches = Watches::default();
        watches.add(ALICE, "/a", WatchKind::Data).unwrap();
        watches.add(ALICE, "/a", WatchKind::Data).unwrap();
        let change = Change::DataChanged(path("/a"));
        assert_eq!(fired(&mut watches, &change), [(1, EventKind::DataChanged, "/a".into())]);
        assert_eq!(fired(&mut watches, &change), []);
        assert_eq!((watches.watched_paths(), watches.by_connection.len()), (0, 0));
    }

    #[test]
    fn creation_tells_the_znode_then_its_parent() {
        let mut watches = Watches::default();
        watches.add(ALICE, "/a", WatchKind::Child).unwrap();
        watches.add(BOB, "/a/b", WatchKind::Data).unwrap();
        assert_eq!(
            fired(&mut watches, &Change::Created(path("/a/b"))),
            [(2, EventKind::Created, "/a/b".into()), (1, EventKind::ChildrenChanged, "/a".into())]
        );
    }

    #[test]
    fn deletion_tells_a_watcher_of_data_and_children_once() {
        let mut watches = Watches::default();
        watches.add(ALICE, "/a", WatchKind::Data).unwrap();
        watches.add(ALICE, "/a", WatchKind::Child).unwrap();
        assert_eq!(fired(&mut watches, &Change::Deleted(path("/a"))), [(1, EventKind::Deleted, "/a".into())]);
        assert_eq!(watches.watched_paths(), 0);
    }

    #[test]
    fn a_persistent_watch_stays_and_hears_of_children() {
        let mut watches = Watches::default();
        watches.add(ALICE, "/a", WatchKind::Persistent).unwrap();
        for _ in 0..2 {
            assert_eq!(
                fired(&mut watches, &Change::Created(path("/a/b"))),
                [(1, EventKind::ChildrenChanged, "/a".into())]
            );
        }
    }

    #[test]
    fn a_recursive_watch_hears_everything_below_but_no_children_changed() {
        let mut watches = Watches::default();
        watches.add(ALICE, "/a", WatchKind::Recursive).unwrap();
        watches.add(ALICE, "/a/b/c", WatchKind::Data).unwrap();
        assert_eq!(
            fired(&mut watches, &Change::Created(path("/a/b/c"))),
            [(1, EventKind::Created, "/a/b/c".into())],
            "one notification although two watches match"
        );
        assert_eq!(fired(&mut watches, &Change::Created(path("/ab"))), []);
        watches.add(BOB, "/", WatchKind::Recursive).unwrap();
        assert_eq!(fired(&mut watches, &Change::Deleted(path("/x"))), [(2, EventKind::Deleted, "/x".into())]);
    }

    #[test]
    fn a_connection_that_goes_takes_its_watches_along() {
        let mut watches = Watches::default();
        for kind in [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::Recursive] {
            watches.add(ALICE, "/a", kind).unwrap();
        }
        watches.remove_connection(ALICE);
        assert_eq!((watches.watched_paths(), watches.recursive, watches.by_connection.len()), (0, 0, 0));
    }

    #[test]
    fn followers_are_told_apart_from_those_who_watch_one_path() {
        let mut watches = Watches::default();
        let carol = ConnectionId(3);
        watches.add(ALICE, "/a", WatchKind::Recursive).unwrap();
        watches.add(ALICE, "/a/b", WatchKind::Data).unwrap();
        watches.add(BOB, "/a/b", WatchKind::Child).unwrap();
        watches.add(carol, "/a", WatchKind::Persistent).unwrap();
        assert_eq!(watches.watchers(&path("/a/b")), [(ALICE, true), (BOB, false)]);
        assert_eq!(watches.watchers(&path("/a")), [(ALICE, true), (carol, false)]);
        assert_eq!(watches.watchers(&path("/")), []);
        assert_eq!(watches.watchers(&path("/ab")), []);
        watches.add(BOB, "/", WatchKind::Recursive).unwrap();
        for below in ["/", "/ab", "/x/y"] {
            assert_eq!(watches.watchers(&path(below)), [(BOB, true)], "{below}");
        }
        assert_eq!(watches.followed_by(ALICE).collect::<Vec<_>>(), ["/a"]);
    }

    #[test]
    fn removal_is_by_type() {
        let mut watches = Watches::default();
        watches.add(ALICE, "/a", WatchKind::Data).unwrap();
        assert!(!watches.remove(ALICE, "/a", WatcherType::Children));
        assert!(watches.has(ALICE, "/a", WatcherType::Any));
        assert!(watches.remove(ALICE, "/a", WatcherType::Data));
        assert!(!watches.has(ALICE, "/a", WatcherType::Any));
    }

    #[test]
    fn nobody_fills_the_memory_with_paths() {
        let mut watches = Watches::default();
        let path = |number: usize| format!("/{number}{}", "x".repeat(1 << 20));
        let fits = PATH_BYTES_MAX / (1 << 20) - 1;
        (0..fits).for_each(|number| watches.add(ALICE, &path(number), WatchKind::Data).unwrap());
        assert_eq!(watches.add(ALICE, &path(fits), WatchKind::Data), Err(OpError::QuotaExceeded));
        watches.add(ALICE, &path(0), WatchKind::Child).unwrap();
        watches.add(BOB, &path(fits), WatchKind::Data).unwrap();
        assert!(watches.remove(ALICE, &path(0), WatcherType::Any));
        watches.add(ALICE, &path(fits), WatchKind::Data).unwrap();
        watches.remove_connection(ALICE);
        watches.remove_connection(BOB);
        assert!(watches.by_path.is_empty() && watches.by_connection.is_empty());
    }
}
