//! When sessions expire.
//!
//! Deadlines are rounded up to ticks, so that touching a session is cheap and expiries come in batches: a session
//! lives for its timeout plus at most two ticks after its last touch.
//!
//! Source: `ExpiryQueue.java` of Apache ZooKeeper.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::SessionId;

/// The deadlines of all sessions, by tick.
#[derive(Debug)]
pub(super) struct ExpiryQueue {
    started: Instant,
    tick: Duration,
    buckets: BTreeMap<u64, BTreeSet<SessionId>>,
    bucket_of: BTreeMap<SessionId, u64>,
}

impl ExpiryQueue {
    /// An empty queue; `tick` is how coarse its deadlines are.
    pub(super) fn new(now: Instant, tick: Duration) -> Self {
        let tick = tick.max(Duration::from_millis(1));
        Self { started: now, tick, buckets: BTreeMap::new(), bucket_of: BTreeMap::new() }
    }

    /// Gives a session its whole timeout from now on.
    pub(super) fn touch(&mut self, session: SessionId, timeout: Duration, now: Instant) {
        let bucket = self.bucket_at(now + timeout) + 1;
        match self.bucket_of.insert(session, bucket) {
            Some(old) if old == bucket => return,
            Some(old) => self.leave(session, old),
            None => {}
        }
        self.buckets.entry(bucket).or_default().insert(session);
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, session: SessionId) {
        if let Some(bucket) = self.bucket_of.remove(&session) {
            self.leave(session, bucket);
        }
    }

    /// When the next session may expire.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let (bucket, _) = self.buckets.first_key_value()?;
        Some(self.started + duration_of(*bucket, self.tick))
    }

    /// Takes the sessions whose time is up.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<SessionId> {
        let later = self.buckets.split_off(&(self.bucket_at(now) + 1));
        let expired: Vec<_> = std::mem::replace(&mut self.buckets, later).into_values().flatten().collect();
        for session in &expired {
            self.bucket_of.remove(session);
        }
        expired
    }

    fn bucket_at(&self, time: Instant) -> u64 {
        let ticks = time.saturating_duration_since(self.started).as_nanos() / self.tick.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX - 1)
    }

    fn leave(&mut self, session: SessionId, bucket: u64) {
        if let Some(sessions) = self.buckets.get_mut(&bucket) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
    }
}

fn duration_of(bucket: u64, tick: Duration) -> Duration {
    let nanos = u128::from(bucket).saturating_mul(tick.as_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);
    const TIMEOUT: Duration = Duration::from_millis(400);

    #[test]
    fn a_session_lives_for_its_timeout_and_at_most_two_ticks_more() {
        let start = crate::clock::now();
        for offset_ms in 0..250 {
            let mut queue = ExpiryQueue::new(start, TICK);
            let touched = start + Duration::from_millis(offset_ms);
            queue.touch(SessionId(7), TIMEOUT, touched);
            assert_eq!(queue.take_expired(touched + TIMEOUT), [], "not before its timeout");
            let deadline = queue.next_deadline().unwrap();
            assert!(deadline > touched + TIMEOUT && deadline <= touched + TIMEOUT + 2 * TICK);
            assert_eq!(queue.take_expired(deadline), [SessionId(7)]);
            assert_eq!(queue.next_deadline(), None);
        }
    }

    #[test]
    fn touching_moves_the_deadline_and_removing_forgets_it() {
        let start = crate::clock::now();
        let mut queue = ExpiryQueue::new(start, TICK);
        queue.touch(SessionId(1), TIMEOUT, start);
        queue.touch(SessionId(2), TIMEOUT, start);
        queue.touch(SessionId(1), TIMEOUT, start + TIMEOUT);
        queue.remove(SessionId(2));
        assert_eq!(queue.take_expired(start + TIMEOUT + TICK), []);
        assert_eq!(queue.take_expired(start + TIMEOUT * 2 + TICK), [SessionId(1)]);
    }
}
