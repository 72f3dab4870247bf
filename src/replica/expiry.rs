//! When sessions expire.
//!
//! Deadlines are rounded up to ticks, so that touching a session is cheap and expiries come in batches: a session
//! lives for its timeout plus at most two ticks after its last touch.
//!
//! A member that was itself away (suspended, starved) heard nobody meanwhile, while what its clients said waits in its
//! sockets: it gives every session its whole timeout again instead of expiring all of them at once. To notice, it looks
//! at the time every tick.
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
    sessions: BTreeMap<SessionId, Deadline>,
    /// The last time that was looked at.
    looked_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    bucket: u64,
    timeout: Duration,
}

impl ExpiryQueue {
    /// An empty queue; `tick` is how coarse its deadlines are.
    pub(super) fn new(now: Instant, tick: Duration) -> Self {
        let tick = tick.max(Duration::from_millis(1));
        Self { started: now, tick, buckets: BTreeMap::new(), sessions: BTreeMap::new(), looked_at: now }
    }

    /// Takes note of the time, before anything else is done at it. Returns how long nobody looked, if that was so long
    /// that every session was given its whole timeout again.
    pub(super) fn look_at(&mut self, now: Instant) -> Option<Duration> {
        let away = now.saturating_duration_since(self.looked_at);
        self.looked_at = now;
        if self.sessions.is_empty() || away <= self.tick * AWAY_TICKS {
            return None;
        }
        self.restart(now);
        Some(away)
    }

    /// Gives every session its whole timeout from now on.
    pub(super) fn restart(&mut self, now: Instant) {
        let sessions: Vec<_> = self.sessions.iter().map(|(id, deadline)| (*id, deadline.timeout)).collect();
        for (session, timeout) in sessions {
            self.touch(session, timeout, now);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    /// The sessions with their timeouts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, Duration)> {
        self.sessions.iter().map(|(session, deadline)| (*session, deadline.timeout))
    }

    /// The timeout of a session, if it is one of these.
    pub(super) fn timeout(&self, session: SessionId) -> Option<Duration> {
        self.sessions.get(&session).map(|deadline| deadline.timeout)
    }

    /// Gives a session its whole timeout from now on.
    pub(super) fn touch(&mut self, session: SessionId, timeout: Duration, now: Instant) {
        let bucket = self.bucket_at(now + timeout) + 1;
        match self.sessions.insert(session, Deadline { bucket, timeout }) {
            Some(old) if old.bucket == bucket => return,
            Some(old) => self.leave(session, old.bucket),
            None => {}
        }
        self.buckets.entry(bucket).or_default().insert(session);
    }

    /// Gives a session that is there its whole timeout from now on.
    pub(super) fn renew(&mut self, session: SessionId, now: Instant) {
        if let Some(timeout) = self.sessions.get(&session).map(|deadline| deadline.timeout) {
            self.touch(session, timeout, now);
        }
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, session: SessionId) {
        if let Some(deadline) = self.sessions.remove(&session) {
            self.leave(session, deadline.bucket);
        }
    }

    /// When to look at the time again: the next session may expire, or a tick is over.
    pub(super) fn next_look(&self) -> Option<Instant> {
        Some(self.next_deadline()?.min(self.looked_at + self.tick))
    }

    fn next_deadline(&self) -> Option<Instant> {
        let (bucket, _) = self.buckets.first_key_value()?;
        Some(self.started + duration_of(*bucket, self.tick))
    }

    /// Takes the sessions whose time is up.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<SessionId> {
        let later = self.buckets.split_off(&(self.bucket_at(now) + 1));
        let expired: Vec<_> = std::mem::replace(&mut self.buckets, later).into_values().flatten().collect();
        for session in &expired {
            self.sessions.remove(session);
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

/// Ticks without a look that count as having been away; one passes between two looks when all is well.
const AWAY_TICKS: u32 = 2;

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

    #[test]
    fn who_was_away_expires_nobody_and_gives_whole_timeouts_again() {
        let start = crate::clock::now();
        let mut queue = ExpiryQueue::new(start, TICK);
        queue.touch(SessionId(1), TIMEOUT, start);
        let mut now = start;
        while now < start + TIMEOUT {
            now += TICK * AWAY_TICKS;
            assert_eq!(queue.look_at(now), None, "late, but not away");
        }
        let away = TIMEOUT * 3;
        now += away;
        assert_eq!(queue.look_at(now), Some(away));
        assert_eq!(queue.take_expired(now + TIMEOUT), [], "its whole timeout again");
        assert_eq!(queue.take_expired(now + TIMEOUT + TICK * 2), [SessionId(1)], "and no more");
        assert_eq!(queue.look_at(now + away), None, "with no session there is nothing to look for");
        assert_eq!(queue.next_look(), None);
    }
}
