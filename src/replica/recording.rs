//! Having it written down now and then up to where the history is committed, for a start without the others.
//!
//! Once at the beginning of a burst of writes, then once a second, then once behind it: what a member that is killed
//! knew of its last second is all that can be missing. Only members that may have to serve without a leader do it.

use std::time::{Duration, Instant};

use crate::zab::Entry;

/// What is still to be written down.
#[derive(Debug)]
pub(super) struct Recording {
    is_on: bool,
    /// The newest entry that was delivered since.
    newest: Option<Entry>,
    /// Not before this.
    next_at: Instant,
}

impl Recording {
    pub(super) const fn new(is_on: bool, now: Instant) -> Self {
        Self { is_on, newest: None, next_at: now }
    }

    pub(super) fn on_delivered(&mut self, entry: &Entry) {
        if self.is_on {
            self.newest = Some(entry.clone());
        }
    }

    /// Another history takes the place of the one that was delivered.
    pub(super) fn cancel(&mut self) {
        self.newest = None;
    }

    /// When there is something to write.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.newest.is_some().then_some(self.next_at)
    }

    /// What is to be written now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Entry> {
        if now < self.next_at {
            return None;
        }
        let due = self.newest.take()?;
        self.next_at = now + PAUSE;
        Some(due)
    }

    /// What is not written yet, whether it is due or not.
    pub(super) fn take(&mut self) -> Option<Entry> {
        self.newest.take()
    }
}

/// Between two times.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{Epoch, Zxid};

    fn entry(counter: u32) -> Entry {
        Entry { zxid: Zxid::new(Epoch(1), counter), payload: Bytes::new() }
    }

    #[test]
    fn the_newest_is_written_at_once_and_then_once_a_second() {
        let began = crate::clock::now();
        let mut recording = Recording::new(true, began);
        assert_eq!((recording.due_at(), recording.take_due(began)), (None, None));
        recording.on_delivered(&entry(1));
        recording.on_delivered(&entry(2));
        assert_eq!(recording.due_at(), Some(began));
        assert_eq!(recording.take_due(began), Some(entry(2)));
        assert_eq!(recording.due_at(), None, "it is written");
        recording.on_delivered(&entry(3));
        assert_eq!(recording.take_due(began + PAUSE / 2), None);
        recording.on_delivered(&entry(4));
        assert_eq!(recording.due_at(), Some(began + PAUSE));
        assert_eq!(recording.take_due(began + PAUSE), Some(entry(4)));
        recording.on_delivered(&entry(5));
        assert_eq!(recording.take(), Some(entry(5)), "the member stops");
    }

    #[test]
    fn nothing_is_kept_where_nobody_asks_nor_of_another_history() {
        let now = crate::clock::now();
        for is_on in [true, false] {
            let mut recording = Recording::new(is_on, now);
            recording.on_delivered(&entry(1));
            if is_on {
                recording.cancel();
            }
            assert_eq!((recording.due_at(), recording.take()), (None, None));
        }
    }
}
