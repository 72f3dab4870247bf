//! Logs of what strangers can bring about as often as they like.

use std::time::{Duration, Instant};

use crate::clock;

/// Lets one of these through in a while, and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    last: Option<Instant>,
    held_back: u64,
}

/// How long after a log the next of its kind may come.
const PAUSE: Duration = Duration::from_secs(10);

impl LogLimit {
    /// Whether to log now: `Some` with the number of those that were not logged since the last.
    pub(super) fn pass(&mut self) -> Option<u64> {
        self.pass_at(clock::now())
    }

    fn pass_at(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_in_a_while_and_says_how_many_did_not() {
        let now = clock::now();
        let mut limit = LogLimit::default();
        assert_eq!(limit.pass_at(now), Some(0));
        assert_eq!(limit.pass_at(now + PAUSE / 2), None);
        assert_eq!(limit.pass_at(now + PAUSE / 2), None);
        assert_eq!(limit.pass_at(now + PAUSE), Some(2));
    }
}
