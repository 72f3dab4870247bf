//! The message that waits to be sent to one member.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::zab::Notification;

/// Room for one message: a newer one takes the place of one that waits, since only the newest vote counts. While there is
/// no connection it holds none, since whoever is reached is told anew.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    slot: Mutex<Slot>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Slot {
    is_open: bool,
    waiting: Option<Notification>,
}

impl Mailbox {
    /// Takes messages from now on. What waited for an earlier connection goes over the new one.
    pub(super) fn open(&self) {
        self.slot().is_open = true;
    }

    /// Takes no messages from now on.
    pub(super) fn close(&self) {
        *self.slot() = Slot::default();
    }

    pub(super) fn put(&self, message: Notification) {
        let mut slot = self.slot();
        if slot.is_open {
            slot.waiting = Some(message);
            self.filled.notify_one();
        }
    }

    /// Waits for the next message. One taker at a time.
    pub(super) async fn take(&self) -> Notification {
        loop {
            if let Some(message) = self.slot().waiting.take() {
                return message;
            }
            self.filled.notified().await;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Nothing panics while it is held.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::zab::ServerState;

    fn message(round: u64) -> Notification {
        Notification { state: ServerState::Looking, round, vote: None, config: Bytes::new() }
    }

    #[tokio::test]
    async fn the_newest_replaces_what_waits() {
        let mailbox = Mailbox::default();
        mailbox.open();
        mailbox.put(message(1));
        mailbox.put(message(2));
        assert_eq!(mailbox.take().await, message(2));
        let next = tokio::time::timeout(std::time::Duration::from_millis(20), mailbox.take()).await;
        assert!(next.is_err(), "the older one is gone");
    }

    #[tokio::test]
    async fn what_is_said_while_nobody_is_connected_is_not_said_later() {
        let mailbox = Mailbox::default();
        mailbox.put(message(1));
        mailbox.open();
        mailbox.put(message(2));
        mailbox.open();
        assert_eq!(mailbox.take().await, message(2), "a new connection in place of another takes over");
        mailbox.put(message(3));
        mailbox.close();
        mailbox.open();
        mailbox.put(message(4));
        assert_eq!(mailbox.take().await, message(4));
    }
}
