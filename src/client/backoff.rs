//! How long to wait before the next dial: full jitter, so that a thousand clients of one dead server spread out.

use std::time::Duration;

/// Pauses drawn evenly between nothing and a bound that doubles with each failure.
///
/// Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The bound of the first pause.
    pub(super) base: Duration,
    /// What the bound never exceeds.
    pub(super) cap: Duration,
}

impl Backoff {
    /// The pause after `failures` dials in a row that led nowhere.
    pub(super) fn pause(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = failures.min(u32::BITS - 1);
        let bound = self.base.saturating_mul(1 << doublings).min(self.cap);
        bound.mul_f64(rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_pause_exceeds_the_doubled_base_or_the_cap(failures: u32, seed: u64) {
            let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(3) };
            let pause = backoff.pause(failures, &mut fastrand::Rng::with_seed(seed));
            prop_assert!(pause <= backoff.cap);
            prop_assert!(failures > 4 || pause <= backoff.base * (1 << failures));
        }
    }

    #[test]
    fn pauses_fill_the_whole_range() {
        let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(3) };
        let mut rng = fastrand::Rng::with_seed(7);
        let pauses: Vec<_> = (0..1000).map(|_| backoff.pause(3, &mut rng)).collect();
        let below = |ms| pauses.iter().filter(|pause| **pause < Duration::from_millis(ms)).count();
        assert!((50..150).contains(&below(80)), "a tenth lies in the first tenth: {}", below(80));
        assert!((400..600).contains(&below(400)), "half lies in the first half: {}", below(400));
    }
}
