//! One client's one-shot watches, and what must be told because of them.

use std::collections::BTreeMap;

use rollcall::id::Zxid;
use rollcall::wire::SetWatches;
use rollcall::znode::{EventKind, WatchedEvent};

use crate::canon::{Canon, Version};
use crate::coverage::{Coverage, Seen};

/// The watches that wait, by path and kind.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    waiting: BTreeMap<(String, Kind), Watch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Data,
    Child,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    /// The state that the client knows is that after this txn.
    since: Zxid,
    /// Whether the znode was there.
    is_there: bool,
}

impl Watches {
    pub(crate) fn add_data(&mut self, path: &str, since: Zxid, is_there: bool) {
        self.waiting.insert((path.to_owned(), Kind::Data), Watch { since, is_there });
    }

    pub(crate) fn add_child(&mut self, path: &str, since: Zxid) {
        self.waiting.insert((path.to_owned(), Kind::Child), Watch { since, is_there: true });
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// A notification has come.
    pub(crate) fn on_event(
        &mut self,
        zxid: Zxid,
        event: &WatchedEvent,
        canon: &Canon,
        coverage: &mut Coverage,
    ) {
        let kinds: &[Kind] = match event.kind {
            EventKind::Created | EventKind::DataChanged => &[Kind::Data],
            EventKind::Deleted => &[Kind::Data, Kind::Child],
            EventKind::ChildrenChanged => &[Kind::Child],
        };
        let mut has_waited = false;
        for kind in kinds {
            let Some(watch) = self.waiting.remove(&(event.path.clone(), *kind)) else { continue };
            has_waited = true;
            if zxid == Zxid::NONE {
                coverage.see(Seen::MissedWatchTold);
                continue;
            }
            let versions = canon.versions_between(&event.path, watch.since, zxid);
            let first = versions.iter().find(|version| kind.hears_of(version)).map(|version| version.zxid);
            assert_eq!(first, Some(zxid), "I15: {event:?} is told at {zxid}, watched since {}", watch.since);
            coverage.see(Seen::WatchFired);
        }
        assert!(has_waited, "I15: {event:?} is told at {zxid}, and nobody watched, or was told before");
    }

    /// A reply as of `zxid` is about to reveal everything up to it.
    pub(crate) fn check_told(&self, zxid: Zxid, canon: &Canon) {
        for ((path, kind), watch) in &self.waiting {
            let missed =
                canon.versions_between(path, watch.since, zxid).iter().find(|version| kind.hears_of(version));
            if let Some(missed) = missed {
                panic!(
                    "I15: a reply as of {zxid} comes before the news that {path} ({kind:?}) changed at {}, watched since {}",
                    missed.zxid, watch.since
                );
            }
        }
    }

    /// What to give back after a reconnect of a client that was at `last`. What happened meanwhile is told by what is there
    /// then; changes that cancel each other out may go unseen, as in Apache ZooKeeper.
    pub(crate) fn take_to_set_again(&mut self, last: Zxid) -> Option<SetWatches> {
        let mut request = SetWatches { relative_zxid: last, ..SetWatches::default() };
        for ((path, kind), watch) in &mut self.waiting {
            // Up to the last reply everything was told.
            watch.since = Zxid::from_raw(i64::MAX);
            match (kind, watch.is_there) {
                (Kind::Data, true) => request.data.push(path.clone()),
                (Kind::Data, false) => request.exist.push(path.clone()),
                (Kind::Child, _) => request.child.push(path.clone()),
            }
        }
        (!request.is_empty()).then_some(request)
    }

    /// The watches are set again, as of `zxid`: what did not fire has nothing to tell.
    pub(crate) fn on_set_again(&mut self, last: Zxid, zxid: Zxid, canon: &Canon) {
        for ((path, kind), watch) in &mut self.waiting {
            let state = canon.state_at(path, zxid);
            let has_changed = match (kind, watch.is_there, state) {
                (Kind::Data, false, state) => state.is_some(),
                (_, true, None) => true,
                (Kind::Data, true, Some(state)) => state.mzxid > last,
                (Kind::Child, _, Some(state)) => state.pzxid > last,
                (Kind::Child, false, None) => unreachable!("children are watched of what is there"),
            };
            assert!(
                !has_changed,
                "I15: {path} ({kind:?}) has changed since {last}, and at {zxid} nothing was told"
            );
            watch.since = zxid;
        }
    }
}

impl Kind {
    fn hears_of(self, version: &Version) -> bool {
        match self {
            Self::Data => version.is_own,
            Self::Child => !version.is_own || version.state.is_none(),
        }
    }
}
