//! The receiving ends of watches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};

use crate::id::Zxid;
use crate::znode::{CarriedZnode, WatchedEvent};

/// What a persistent watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchNotice {
    /// Something changed.
    Event {
        /// What, and where.
        event: WatchedEvent,
        /// The txn, or [`Zxid::NONE`] from servers before 3.9, which do not say.
        zxid: Zxid,
        /// The znode as the txn has left it, if the server says, which only our members do, and to subscribers alone; and unless the
        /// watcher is far behind.
        carried: Option<CarriedZnode>,
    },
    /// The connection is gone: changes from here on are not told, and what is known grows stale.
    Disconnected,
    /// The watch is in force, but changes were missed. What is read from now on, together with the notices that
    /// follow this one, is complete.
    Resync(ResyncReason),
}

/// Why changes were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncReason {
    /// The connection was lost and is back; the protocol has no catch-up for persistent watches.
    Reconnected,
    /// The session expired, with all its ephemerals; this is a new one.
    NewSession,
    /// The watcher was too far behind, and its queue was emptied.
    Overflow,
}

/// A persistent watch: an endless, ordered, bounded stream of notices. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    queue: Arc<Queue>,
}

impl Watcher {
    /// Waits for the next notice; `None` when the client is closed. Losing this future loses nothing.
    pub async fn recv(&mut self) -> Option<WatchNotice> {
        loop {
            {
                let mut state = self.queue.lock();
                if let Some(notice) = state.notices.pop_front() {
                    return Some(notice);
                }
                if state.is_closed {
                    return None;
                }
            }
            self.queue.changed.notified().await;
        }
    }

    /// Takes the next notice that is there already.
    pub fn try_recv(&mut self) -> Option<WatchNotice> {
        self.queue.lock().notices.pop_front()
    }

    /// What feeds it with the events of one more path.
    pub(super) fn one_more(&self, notices_max: usize) -> WatchSender {
        WatchSender { queue: self.queue.clone(), notices_max, is_own: false }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
    }
}

/// Notices that wait with the znodes that came with them; those beyond wait without, so that a queue takes little memory.
const CARRYING_MAX: usize = 512;

/// The client's end of a [`Watcher`], or of one more path of it.
#[derive(Debug)]
pub(super) struct WatchSender {
    queue: Arc<Queue>,
    notices_max: usize,
    /// Whether it is the watcher's own, which alone tells of connections, and whose end is the watcher's.
    is_own: bool,
}

/// What became of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Queued,
    /// The queue was full: it is emptied, and the watcher told to resync.
    Overflowed,
    /// Nobody listens.
    Dropped,
}

/// A watcher that may be `notices_max` notices behind, and what feeds it.
pub(super) fn watcher(notices_max: usize) -> (WatchSender, Watcher) {
    let queue = Arc::new(Queue::default());
    (WatchSender { queue: queue.clone(), notices_max, is_own: true }, Watcher { queue })
}

impl WatchSender {
    /// Queues a notice. Never waits: a reader that is slow must not hold up the connection of all.
    pub(super) fn send(&self, mut notice: WatchNotice) -> Delivery {
        let mut state = self.queue.lock();
        if state.is_closed {
            return Delivery::Dropped;
        }
        if !self.is_own && !matches!(notice, WatchNotice::Event { .. }) {
            return Delivery::Queued;
        }
        let is_full = state.notices.len() >= self.notices_max;
        if is_full {
            // Whoever resyncs reads everything anyway: what was queued is of no use any more. But that the
            // connection is gone must not be forgotten.
            let is_disconnected = notice == WatchNotice::Disconnected;
            state.notices.clear();
            state.notices.push_back(WatchNotice::Resync(ResyncReason::Overflow));
            state.notices.extend(Some(notice).filter(|_| is_disconnected));
        } else {
            if let WatchNotice::Event { carried, .. } = &mut notice
                && state.notices.len() >= CARRYING_MAX
            {
                *carried = None;
            }
            state.notices.push_back(notice);
        }
        drop(state);
        self.queue.changed.notify_one();
        if is_full { Delivery::Overflowed } else { Delivery::Queued }
    }

    /// Whether nobody listens any more.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().is_closed
    }
}

impl Drop for WatchSender {
    fn drop(&mut self) {
        if !self.is_own {
            return;
        }
        self.queue.lock().is_closed = true;
        self.queue.changed.notify_one();
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    notices: VecDeque<WatchNotice>,
    is_closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().expect("nothing panics while the queue is locked")
    }
}

/// A one-shot watch. It outlives connections and sessions; dropping it gives it up.
#[derive(Debug)]
pub struct OneShotWatch {
    pub(super) event: oneshot::Receiver<WatchedEvent>,
}

impl OneShotWatch {
    /// Waits for the watch to fire; `None` when the client is closed first.
    pub async fn fired(self) -> Option<WatchedEvent> {
        self.event.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::EventKind;

    fn event(number: i64) -> WatchNotice {
        WatchNotice::Event {
            event: WatchedEvent { kind: EventKind::Created, path: "/a".into() },
            zxid: Zxid::from_raw(number),
            carried: Some(CarriedZnode::Gone),
        }
    }

    #[tokio::test]
    async fn who_is_far_behind_is_told_of_events_alone() {
        let (sender, mut watcher) = watcher(CARRYING_MAX * 2);
        for number in 0..=CARRYING_MAX {
            sender.send(event(i64::try_from(number).unwrap()));
        }
        let is_carrying =
            |notice| matches!(notice, Some(WatchNotice::Event { carried: Some(CarriedZnode::Gone), .. }));
        for _ in 0..CARRYING_MAX {
            assert!(is_carrying(watcher.recv().await));
        }
        assert!(matches!(watcher.recv().await, Some(WatchNotice::Event { carried: None, .. })));
        sender.send(event(0));
        assert!(is_carrying(watcher.recv().await), "it has caught up");
    }

    #[tokio::test]
    async fn a_watcher_too_far_behind_is_told_to_resync_and_goes_on() {
        let (sender, mut watcher) = watcher(2);
        assert_eq!(sender.send(event(1)), Delivery::Queued);
        assert_eq!(sender.send(event(2)), Delivery::Queued);
        assert_eq!(sender.send(event(3)), Delivery::Overflowed);
        assert_eq!(sender.send(event(4)), Delivery::Queued);
        assert_eq!(watcher.recv().await, Some(WatchNotice::Resync(ResyncReason::Overflow)));
        assert_eq!(watcher.recv().await, Some(event(4)));
        assert_eq!(watcher.try_recv(), None);
    }

    #[tokio::test]
    async fn a_disconnection_survives_the_overflow() {
        let (sender, mut watcher) = watcher(1);
        sender.send(event(1));
        sender.send(WatchNotice::Disconnected);
        assert_eq!(watcher.recv().await, Some(WatchNotice::Resync(ResyncReason::Overflow)));
        assert_eq!(watcher.recv().await, Some(WatchNotice::Disconnected));
    }

    #[tokio::test]
    async fn one_more_path_adds_its_events_and_nothing_else() {
        let (sender, mut watcher) = watcher(4);
        let more = watcher.one_more(4);
        for sender in [&sender, &more] {
            sender.send(WatchNotice::Disconnected);
            sender.send(event(1));
        }
        drop(more);
        assert_eq!(watcher.recv().await, Some(WatchNotice::Disconnected));
        assert_eq!(watcher.recv().await, Some(event(1)));
        assert_eq!(watcher.recv().await, Some(event(1)));
        assert_eq!(watcher.try_recv(), None);
        assert!(!sender.is_closed(), "it ends without the others");
    }

    #[tokio::test]
    async fn each_end_learns_that_the_other_is_gone() {
        let (sender, receiving) = watcher(2);
        drop(receiving);
        assert_eq!(sender.send(event(1)), Delivery::Dropped);
        let (sender, mut receiving) = watcher(2);
        sender.send(event(1));
        drop(sender);
        assert_eq!(receiving.recv().await, Some(event(1)), "what was queued is still there");
        assert_eq!(receiving.recv().await, None);
    }
}
