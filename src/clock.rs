//! The only place that reads a clock. Everything else is told the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock, for timeouts and ages.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock in ms since 1970, for what people and other programs read; 0 before 1970.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn unix_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}
