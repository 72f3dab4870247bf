//! The only place that reads a clock. Everything else is told the time.
//!
//! The monotonic clock is the one that tokio's timers go by. In a test whose runtime has a paused clock both therefore say the same;
//! elsewhere it is the system's.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What both clocks said at one moment, by which times of one are told by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The monotonic clock.
    pub now: Instant,
    /// The wall clock, ms since 1970.
    pub unix_ms: i64,
}

impl Moment {
    /// This moment.
    pub fn read() -> Self {
        Self { now: now(), unix_ms: unix_ms() }
    }

    /// The wall clock at a past time, in ms since 1970.
    pub fn unix_ms_at(&self, past: Instant) -> i64 {
        let ago = self.now.saturating_duration_since(past).as_millis();
        self.unix_ms.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
    }

    /// When the wall clock said `unix_ms`. What is yet to come by it, since it was set back, is now.
    pub fn instant_at(&self, unix_ms: i64) -> Instant {
        let ago = u64::try_from(self.unix_ms.saturating_sub(unix_ms)).unwrap_or(0);
        self.now.checked_sub(Duration::from_millis(ago)).unwrap_or(self.now)
    }
}

/// The monotonic clock, for timeouts and ages.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock in ms since 1970, for what people and other programs read; 0 before 1970.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn unix_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn where_the_timers_are_paused_so_is_the_time() {
        let hour = Duration::from_secs(3_600);
        let before = now();
        assert_eq!(now(), before);
        tokio::time::sleep(hour).await;
        assert_eq!(now(), before + hour);
    }

    #[test]
    fn past_times_of_one_clock_are_told_by_the_other_and_none_is_yet_to_come() {
        let second = Duration::from_secs(1);
        let moment = Moment { now: now(), unix_ms: 100_000 };
        assert_eq!(moment.unix_ms_at(moment.now - second), 99_000);
        assert_eq!(moment.instant_at(99_000), moment.now - second);
        assert_eq!(moment.unix_ms_at(moment.now + second), 100_000);
        assert_eq!(moment.instant_at(101_000), moment.now);
        assert!(moment.instant_at(i64::MIN) <= moment.now);
    }
}
