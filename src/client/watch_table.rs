//! Which watchers wait for what: fired by notifications, sent again after a reconnect.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::id::Zxid;
use crate::wire::{Request, SetWatches};
use crate::znode::{AddWatchMode, EventKind, WatchedEvent};

/// Names one watcher of this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatcherId(pub(super) u64);

/// What a watcher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchKind {
    /// A znode that is there changes or goes; once.
    Data,
    /// A znode that is not there comes; once.
    Exist,
    /// The children of a znode change, or it goes; once.
    Child,
    /// Until dropped.
    Lasting(AddWatchMode),
}

impl WatchKind {
    /// The kind of watch that a request sets, if it sets one.
    pub(super) const fn set_by(request: &Request) -> Option<Self> {
        match request {
            Request::GetData { watch: true, .. } => Some(Self::Data),
            Request::Exists { watch: true, .. } => Some(Self::Exist),
            Request::GetChildren { watch: true, .. } | Request::GetChildren2 { watch: true, .. } => {
                Some(Self::Child)
            }
            Request::AddWatch { mode, .. } => Some(Self::Lasting(*mode)),
            Request::GetData { .. }
            | Request::Exists { .. }
            | Request::GetChildren { .. }
            | Request::GetChildren2 { .. }
            | Request::Create(_)
            | Request::Create2(_)
            | Request::Delete { .. }
            | Request::SetData { .. }
            | Request::SetAcl { .. }
            | Request::Multi(_)
            | Request::GetAcl { .. }
            | Request::Sync { .. }
            | Request::Ping
            | Request::SetWatches(_)
            | Request::SetWatches2(_)
            | Request::CheckWatches { .. }
            | Request::RemoveWatches { .. }
            | Request::Auth { .. }
            | Request::CloseSession => None,
        }
    }
}

/// Registered watches, by kind and path.
///
/// Servers forget watches with the connection and keep one per path and connection, however many of ours share it.
/// Invariant: each watcher stands in exactly one list, the one that `places` names.
#[derive(Debug, Default)]
pub(super) struct WatchTable {
    data: Paths,
    exist: Paths,
    child: Paths,
    persistent: Paths,
    recursive: Paths,
    places: FxHashMap<WatcherId, (WatchKind, String)>,
}

type Paths = BTreeMap<String, Vec<WatcherId>>;
/// The list of a request that a kind of watch belongs in.
type ListOf = fn(&mut SetWatches) -> &mut Vec<String>;

impl WatchTable {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds a watcher, which must be new.
    pub(super) fn add(&mut self, watcher: WatcherId, kind: WatchKind, path: String) {
        self.paths_mut(kind).entry(path.clone()).or_default().push(watcher);
        let before = self.places.insert(watcher, (kind, path));
        assert!(before.is_none(), "a watcher is registered once");
    }

    /// Removes a watcher that nobody listens to any more; one that is not there is ignored.
    pub(super) fn remove(&mut self, watcher: WatcherId) {
        let Some((kind, path)) = self.places.remove(&watcher) else { return };
        let paths = self.paths_mut(kind);
        let watchers = paths.get_mut(&path).expect("places names the list that a watcher is in");
        watchers.retain(|other| *other != watcher);
        if watchers.is_empty() {
            paths.remove(&path);
        }
    }

    /// Takes all watchers on a path; they are gone from the table.
    pub(super) fn remove_at(&mut self, path: &str) -> Vec<WatcherId> {
        let lists =
            [&mut self.data, &mut self.exist, &mut self.child, &mut self.persistent, &mut self.recursive];
        let removed: Vec<_> = lists.into_iter().filter_map(|paths| paths.remove(path)).flatten().collect();
        removed.iter().for_each(|watcher| drop(self.places.remove(watcher)));
        removed
    }

    /// Takes the one-shot watchers that `event` fires; they are gone from the table.
    ///
    /// Source: `ZKWatchManager.materialize` of Apache ZooKeeper.
    pub(super) fn fire_once(&mut self, event: &WatchedEvent) -> Vec<WatcherId> {
        let lists: &mut [&mut Paths] = match event.kind {
            EventKind::Created | EventKind::DataChanged => &mut [&mut self.data, &mut self.exist],
            EventKind::Deleted => &mut [&mut self.data, &mut self.exist, &mut self.child],
            EventKind::ChildrenChanged => &mut [&mut self.child],
        };
        let fired: Vec<_> =
            lists.iter_mut().filter_map(|paths| paths.remove(&event.path)).flatten().collect();
        fired.iter().for_each(|watcher| drop(self.places.remove(watcher)));
        fired
    }

    /// The persistent watchers that `event` concerns; they stay.
    pub(super) fn fire_lasting<'a>(
        &'a self,
        event: &'a WatchedEvent,
    ) -> impl Iterator<Item = WatcherId> + 'a {
        let exact = self.persistent.get(&event.path).into_iter().flatten();
        let is_recursive = event.kind != EventKind::ChildrenChanged;
        let above = self_and_ancestors(&event.path).filter(move |_path| is_recursive);
        exact.chain(above.filter_map(|path| self.recursive.get(path)).flatten()).copied()
    }

    /// All persistent watchers.
    pub(super) fn lasting(&self) -> impl Iterator<Item = WatcherId> + '_ {
        self.persistent.values().chain(self.recursive.values()).flatten().copied()
    }

    /// What re-arms everything on a new connection, in requests whose paths take at most `bytes_max` each
    /// (a single longer path goes alone).
    pub(super) fn rearm(&self, relative_zxid: Zxid, bytes_max: usize) -> Vec<SetWatches> {
        let mut batches = Vec::new();
        let (mut batch, mut bytes) = (SetWatches { relative_zxid, ..SetWatches::default() }, 0);
        for (list, path) in self.all_paths() {
            let path_bytes = LENGTH_BYTES + path.len();
            if bytes + path_bytes > bytes_max && bytes > 0 {
                let empty = SetWatches { relative_zxid, ..SetWatches::default() };
                batches.push(std::mem::replace(&mut batch, empty));
                bytes = 0;
            }
            bytes += path_bytes;
            list(&mut batch).push(path.clone());
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        batches
    }

    fn all_paths(&self) -> impl Iterator<Item = (ListOf, &String)> {
        let lists: [(&Paths, ListOf); 5] = [
            (&self.data, |batch| &mut batch.data),
            (&self.exist, |batch| &mut batch.exist),
            (&self.child, |batch| &mut batch.child),
            (&self.recursive, |batch| &mut batch.persistent_recursive),
            // Last, since the path of a barrier's subscriber is among them: who subscribes follows all that it will be asked of.
            (&self.persistent, |batch| &mut batch.persistent),
        ];
        lists.into_iter().flat_map(|(paths, list)| paths.keys().map(move |path| (list, path)))
    }

    fn paths_mut(&mut self, kind: WatchKind) -> &mut Paths {
        match kind {
            WatchKind::Data => &mut self.data,
            WatchKind::Exist => &mut self.exist,
            WatchKind::Child => &mut self.child,
            WatchKind::Lasting(AddWatchMode::Persistent) => &mut self.persistent,
            WatchKind::Lasting(AddWatchMode::PersistentRecursive) => &mut self.recursive,
        }
    }
}

/// The number of "watches of every kind" in removeWatches (`Watcher.WatcherType` of Apache ZooKeeper).
pub(super) const ANY_WATCH: i32 = 3;
/// The length that precedes each path on the wire.
const LENGTH_BYTES: usize = 4;

/// `/a/b`, `/a`, `/`; a text without a slash is only itself.
fn self_and_ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rsplit_once('/') {
        Some(("", "")) | None => None,
        Some(("", _)) => Some("/"),
        Some((parent, _)) => Some(parent),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECURSIVE: WatchKind = WatchKind::Lasting(AddWatchMode::PersistentRecursive);
    const PERSISTENT: WatchKind = WatchKind::Lasting(AddWatchMode::Persistent);

    fn event(kind: EventKind, path: &str) -> WatchedEvent {
        WatchedEvent { kind, path: path.into() }
    }

    fn table(watches: &[(WatchKind, &str)]) -> WatchTable {
        let mut table = WatchTable::default();
        for (id, (kind, path)) in (0..).zip(watches) {
            table.add(WatcherId(id), *kind, (*path).into());
        }
        table
    }

    #[test]
    fn a_one_shot_watch_fires_once_and_for_its_own_kind_of_event() {
        let mut table = table(&[(WatchKind::Data, "/a"), (WatchKind::Exist, "/b"), (WatchKind::Child, "/a")]);
        assert_eq!(table.fire_once(&event(EventKind::DataChanged, "/a")), [WatcherId(0)]);
        assert_eq!(table.fire_once(&event(EventKind::DataChanged, "/a")), []);
        assert_eq!(table.fire_once(&event(EventKind::Created, "/b")), [WatcherId(1)]);
        assert_eq!(table.fire_once(&event(EventKind::Deleted, "/a")), [WatcherId(2)]);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_recursive_watch_sees_everything_below_but_no_child_lists() {
        let table = table(&[(RECURSIVE, "/a"), (PERSISTENT, "/a"), (RECURSIVE, "/"), (RECURSIVE, "/ab")]);
        let fired = |kind, path| table.fire_lasting(&event(kind, path)).map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(fired(EventKind::Created, "/a/b/c"), [0, 2]);
        assert_eq!(fired(EventKind::DataChanged, "/a"), [1, 0, 2]);
        assert_eq!(fired(EventKind::ChildrenChanged, "/a"), [1]);
        assert_eq!(fired(EventKind::Deleted, "/"), [2]);
        assert!(fired(EventKind::Deleted, "no path").is_empty());
    }

    #[test]
    fn a_removed_watcher_is_not_brought_back() {
        let mut table = table(&[(RECURSIVE, "/a"), (RECURSIVE, "/a"), (WatchKind::Data, "/a")]);
        table.remove(WatcherId(0));
        table.remove(WatcherId(2));
        table.remove(WatcherId(2));
        let batches = table.rearm(Zxid::from_raw(7), 1000);
        assert_eq!(batches.len(), 1);
        assert_eq!((&batches[0].data, &batches[0].persistent_recursive), (&vec![], &vec!["/a".to_owned()]));
        assert_eq!(batches[0].relative_zxid, Zxid::from_raw(7));
        table.remove(WatcherId(1));
        assert_eq!(table.rearm(Zxid::ZERO, 1000), []);
    }

    #[test]
    fn all_watchers_of_a_path_go_together_and_no_others() {
        let mut table =
            table(&[(RECURSIVE, "/a"), (PERSISTENT, "/a"), (WatchKind::Data, "/a"), (RECURSIVE, "/ab")]);
        let mut removed = table.remove_at("/a");
        removed.sort_unstable();
        assert_eq!(removed, [WatcherId(0), WatcherId(1), WatcherId(2)]);
        assert_eq!(table.remove_at("/a"), []);
        assert_eq!(table.rearm(Zxid::ZERO, 1000)[0].persistent_recursive, ["/ab"]);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_persistent_watches_are_brought_back_behind_the_recursive_ones() {
        let table = table(&[(PERSISTENT, "/a"), (RECURSIVE, "/b"), (RECURSIVE, "/c")]);
        let batches = table.rearm(Zxid::ZERO, 1);
        let last = batches.last().unwrap();
        assert_eq!((batches.len(), &last.persistent), (3, &vec!["/a".to_owned()]));
    }

    #[test]
    fn batches_stay_within_their_bytes_and_name_every_path_once() {
        let mut table = WatchTable::default();
        for id in 0..1000 {
            table.add(WatcherId(id), WatchKind::Data, format!("/node-{id:04}"));
        }
        table.add(WatcherId(5000), WatchKind::Child, format!("/{}", "x".repeat(200)));
        let batches = table.rearm(Zxid::ZERO, 100);
        assert_eq!(batches.iter().map(|batch| batch.data.len() + batch.child.len()).sum::<usize>(), 1001);
        let bytes = |batch: &SetWatches| batch.data.iter().map(|path| 4 + path.len()).sum::<usize>();
        assert!(batches.iter().all(|batch| bytes(batch) <= 100));
    }
}
