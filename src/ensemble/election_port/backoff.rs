//! How long to wait before a member is called again.

use std::time::Duration;

/// Pauses that grow, with jitter.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
}

/// A restarted member is found within this time even if it cannot call by itself.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { pause: PAUSE_MIN }
    }

    pub(super) const fn reset(&mut self) {
        self.pause = PAUSE_MIN;
    }

    /// The pause before the next attempt, and twice as long a one after that.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_start_anew() {
        let mut backoff = Backoff::new();
        for expected_ms in [50, 100, 200, 400, 800, 1000, 1000] {
            let expected = Duration::from_millis(expected_ms);
            let pause = backoff.next();
            assert!(pause >= expected.mul_f64(0.75) && pause <= expected.mul_f64(1.25), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() < PAUSE_MIN * 2);
    }
}
