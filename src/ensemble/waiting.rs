//! What waits for one client: frames that it has not read yet, and requests that are not answered yet.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use super::stats::MemberStats;

/// Requests of one connection that may be unanswered at a time. At the bound its socket is not read, so that TCP slows
/// the client down; a group commit is well filled by far fewer.
const UNANSWERED_MAX: u32 = 256;
/// The same in bytes of requests, but for a single one that is longer.
const UNANSWERED_BYTES_MAX: usize = 4 << 20;
/// What a request takes of these two: one part in 256 of the first, and of the second as it is long.
const UNITS_MAX: u32 = 4 * UNANSWERED_MAX;
/// Bytes of replies that may wait for a client; beyond, its socket is not read until some are written. Much, since a
/// client that writes and reads in turns would wait for us while we wait for it.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Bytes of notifications that may wait for a client that does not read; beyond, the connection is closed, since
/// they must neither be dropped nor grow without bound.
const NOTICE_BYTES_MAX: usize = 64 << 20;
/// Bytes that may wait for all clients together, which is memory, but for notifications that many wait for: beyond, the connection
/// with the most is closed.
pub(super) const WAITING_BYTES_MAX: u64 = 256 << 20;
/// Bytes that may wait for all clients together before no socket is read of those for which much waits.
const WAITING_BYTES_HIGH: u64 = WAITING_BYTES_MAX / 2;
/// How much that is.
const REPLY_BYTES_SHARE: usize = 1 << 20;
/// What of a notification that others wait for, too, counts of it here: its place, and some of the frame.
const SHARED_BYTES: usize = 256;
/// Frames are written together up to this many bytes; one that is longer is written alone.
const WRITE_BYTES: usize = 64 << 10;
/// Room for so many frames is kept while none waits.
const ROOM_KEPT: usize = 32;

/// As the reader, the writer and the driver of a connection see it.
#[derive(Debug)]
pub(super) struct Waiting {
    frames: Mutex<Frames>,
    /// A frame was added, or the last one.
    added: Notify,
    /// Some of it was written.
    pub(super) drained: Notify,
    /// Of [`UNITS_MAX`], what requests may take that are still to be read.
    pub(super) unanswered: Semaphore,
    reply_bytes: AtomicUsize,
    notice_bytes: AtomicUsize,
    /// What of both counts among those of all connections, of which notifications may be shared.
    waiting_bytes: AtomicUsize,
    stats: Arc<MemberStats>,
}

#[derive(Debug, Default)]
struct Frames {
    waiting: VecDeque<Outgoing>,
    /// Nothing is added any more.
    is_closed: bool,
}

/// Something to be written.
#[derive(Debug)]
pub(super) enum Outgoing {
    Reply(Bytes),
    /// With what it counts among what waits for all.
    Notice(Bytes, usize),
    /// The answer to a four-letter word.
    Text(String),
}

/// Frames that are written by one system call.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    replies: usize,
    notices: usize,
    weight: usize,
}

impl Outgoing {
    /// A notification, which others may wait for, too.
    pub(super) fn notice(frame: Bytes) -> Self {
        let weight = if frame.is_unique() { frame.len() } else { frame.len().min(SHARED_BYTES) };
        Self::Notice(frame, weight)
    }

    const fn len(&self) -> usize {
        match self {
            Self::Reply(frame) | Self::Notice(frame, _) => frame.len(),
            Self::Text(text) => text.len(),
        }
    }
}

impl Waiting {
    pub(super) fn new(stats: Arc<MemberStats>) -> Self {
        Self {
            frames: Mutex::default(),
            added: Notify::new(),
            drained: Notify::new(),
            unanswered: Semaphore::new(UNITS_MAX as usize),
            reply_bytes: AtomicUsize::new(0),
            notice_bytes: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            stats,
        }
    }

    /// Adds the last of what is to be written, but for what the client has too much of already: then it is false. Nothing
    /// is added after [`Waiting::close`].
    pub(super) fn add(&self, outgoing: Outgoing) -> bool {
        {
            let mut frames = self.lock();
            if frames.is_closed {
                return true;
            }
            match &outgoing {
                Outgoing::Reply(frame) => {
                    self.reply_bytes.fetch_add(frame.len(), Ordering::Relaxed);
                    self.on_queued(frame.len());
                }
                Outgoing::Notice(frame, weight) => {
                    self.notice_bytes.fetch_add(frame.len(), Ordering::Relaxed);
                    self.on_queued(*weight);
                }
                Outgoing::Text(_) => {}
            }
            frames.waiting.push_back(outgoing);
        }
        self.added.notify_one();
        self.notice_bytes.load(Ordering::Relaxed) <= NOTICE_BYTES_MAX
    }

    /// Nothing more is added; what waits is still written, unless it is much while much waits for all.
    pub(super) fn close(&self) {
        if self.is_greedy() {
            return self.cut_off();
        }
        self.lock().is_closed = true;
        self.added.notify_one();
    }

    /// Nothing more is added, and what waits is given up: its memory is free when this returns, but for what is being written,
    /// whenever the writer may be scheduled again.
    pub(super) fn cut_off(&self) {
        let given_up = {
            let mut frames = self.lock();
            frames.is_closed = true;
            std::mem::take(&mut frames.waiting)
        };
        drop(given_up);
        self.on_gone(usize::MAX);
        self.added.notify_one();
    }

    /// What is to be written next, once there is something; none once it is closed and all was taken. For one writer.
    pub(super) async fn next_batch(&self) -> Option<Batch> {
        loop {
            {
                let mut frames = self.lock();
                if !frames.waiting.is_empty() {
                    return Some(frames.take_batch());
                }
                if frames.is_closed {
                    return None;
                }
            }
            self.added.notified().await;
        }
    }

    /// `batch` was written.
    pub(super) fn on_written(&self, batch: &Batch) {
        self.notice_bytes.fetch_sub(batch.notices, Ordering::Relaxed);
        self.reply_bytes.fetch_sub(batch.replies, Ordering::Relaxed);
        self.on_gone(batch.weight);
        self.drained.notify_one();
    }

    /// Bytes that wait until the client reads.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Whether no more requests are to be read until something was written.
    pub(super) fn is_full(&self) -> bool {
        self.reply_bytes.load(Ordering::Relaxed) > REPLY_BYTES_MAX || self.is_greedy()
    }

    /// Whether much waits here while much waits for all.
    fn is_greedy(&self) -> bool {
        self.waiting_bytes() > REPLY_BYTES_SHARE
            && self.stats.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES_HIGH
    }

    /// More waits.
    fn on_queued(&self, bytes: usize) {
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.stats.waiting_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So much waits no more, be it written or given up.
    fn on_gone(&self, bytes: usize) {
        let less = |waiting: usize| Some(waiting.saturating_sub(bytes));
        let before = self.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let gone = bytes.min(before.unwrap_or_else(|waiting| waiting));
        self.stats.waiting_bytes.fetch_sub(gone as u64, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Frames> {
        // Nothing is half done when a holder panics.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.on_gone(usize::MAX);
    }
}

impl Frames {
    fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut joined = Vec::new();
        while batch.bytes.len().max(joined.len()) < WRITE_BYTES
            && let Some(taken) = self.waiting.pop_front()
        {
            let frame = match taken {
                Outgoing::Reply(frame) => {
                    batch.replies += frame.len();
                    batch.weight += frame.len();
                    frame
                }
                Outgoing::Notice(frame, weight) => {
                    batch.notices += frame.len();
                    batch.weight += weight;
                    frame
                }
                Outgoing::Text(text) => text.into(),
            };
            // One that is alone is not copied.
            if batch.bytes.is_empty() && joined.is_empty() {
                batch.bytes = frame;
            } else {
                if joined.is_empty() {
                    joined.extend_from_slice(&batch.bytes);
                }
                joined.extend_from_slice(&frame);
            }
            // To copy it would hold up whoever adds more.
            if self.waiting.front().is_some_and(|next| next.len() > WRITE_BYTES) {
                break;
            }
        }
        if !joined.is_empty() {
            batch.bytes = joined.into();
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(ROOM_KEPT);
        }
        batch
    }
}

/// What a request takes of [`UNITS_MAX`].
pub(super) fn units_of(frame_bytes: usize) -> u32 {
    let by_length = frame_bytes / (UNANSWERED_BYTES_MAX / UNITS_MAX as usize);
    u32::try_from(by_length).unwrap_or(UNITS_MAX).clamp(UNITS_MAX / UNANSWERED_MAX, UNITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> (Arc<MemberStats>, Waiting) {
        let stats = Arc::new(MemberStats::default());
        (stats.clone(), Waiting::new(stats))
    }

    #[test]
    fn requests_are_bounded_in_number_and_in_bytes() {
        assert_eq!(UNITS_MAX / units_of(8), UNANSWERED_MAX);
        assert_eq!((UNITS_MAX / units_of(1 << 20)) as usize, UNANSWERED_BYTES_MAX >> 20);
        assert_eq!(units_of(usize::MAX), UNITS_MAX, "one request always fits");
    }

    #[tokio::test]
    async fn frames_are_taken_in_their_order_until_all_are_out() {
        let (stats, waiting) = waiting();
        assert!(waiting.add(Outgoing::Reply(vec![1; WRITE_BYTES].into())));
        assert!(waiting.add(Outgoing::notice(Bytes::from_static(&[2; 3]))));
        assert!(waiting.add(Outgoing::Text("4".to_owned())));
        waiting.close();
        assert!(waiting.add(Outgoing::Reply(vec![5].into())), "it is told to nobody");
        assert_eq!(waiting.waiting_bytes(), WRITE_BYTES + 3);

        let first = waiting.next_batch().await.expect("the reply");
        assert_eq!(first.bytes[..], [1; WRITE_BYTES]);
        waiting.on_written(&first);
        assert_eq!(stats.waiting_bytes.load(Ordering::Relaxed), 3);
        let second = waiting.next_batch().await.expect("the rest");
        assert_eq!(second.bytes[..], [2, 2, 2, b'4']);
        waiting.on_written(&second);
        assert!(waiting.next_batch().await.is_none());
        assert_eq!(stats.waiting_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_is_given_up_is_free_at_once_and_counts_no_more() {
        let (stats, waiting) = waiting();
        let frame = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..8 {
            waiting.add(Outgoing::Reply(frame.clone()));
        }
        let being_written = waiting.next_batch().await.expect("the first");
        waiting.cut_off();
        assert!(waiting.lock().waiting.is_empty());
        assert_eq!((waiting.waiting_bytes(), stats.waiting_bytes.load(Ordering::Relaxed)), (0, 0));
        waiting.on_written(&being_written);
        assert_eq!(stats.waiting_bytes.load(Ordering::Relaxed), 0, "nothing is taken off twice");
        assert!(waiting.next_batch().await.is_none());
    }

    #[tokio::test]
    async fn who_leaves_keeps_nothing_while_much_waits_for_all() {
        let (stats, waiting) = waiting();
        let others = Waiting::new(stats.clone());
        others.add(Outgoing::Reply(vec![0; usize::try_from(WAITING_BYTES_HIGH).unwrap()].into()));
        waiting.add(Outgoing::Reply(vec![0; REPLY_BYTES_SHARE + 1].into()));
        waiting.close();
        assert!(waiting.next_batch().await.is_none());
        assert_eq!(stats.waiting_bytes.load(Ordering::Relaxed), WAITING_BYTES_HIGH);
    }

    #[tokio::test]
    async fn a_notification_for_many_counts_once_and_little_more() {
        let (stats, waiting) = waiting();
        let frame = Bytes::from(vec![0; 4 << 10]);
        waiting.add(Outgoing::notice(frame.clone()));
        assert_eq!(waiting.waiting_bytes(), SHARED_BYTES);
        drop(frame);
        waiting.add(Outgoing::notice(vec![0; 4 << 10].into()));
        assert_eq!(waiting.waiting_bytes(), SHARED_BYTES + (4 << 10));
        let batch = waiting.next_batch().await.expect("both");
        assert_eq!(batch.bytes.len(), 8 << 10);
        waiting.on_written(&batch);
        assert_eq!((waiting.waiting_bytes(), stats.waiting_bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn what_is_long_is_written_alone() {
        let (_stats, waiting) = waiting();
        for bytes in [1, 2, WRITE_BYTES + 1, 3] {
            waiting.add(Outgoing::Reply(vec![0; bytes].into()));
        }
        for bytes in [3, WRITE_BYTES + 1, 3] {
            assert_eq!(waiting.next_batch().await.expect("a batch").bytes.len(), bytes);
        }
    }

    #[test]
    fn news_that_nobody_reads_have_a_bound() {
        let (_stats, waiting) = waiting();
        assert!(waiting.add(Outgoing::notice(vec![0; NOTICE_BYTES_MAX].into())));
        assert!(!waiting.add(Outgoing::notice(vec![0].into())));
    }
}
