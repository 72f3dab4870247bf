//! What a session is secured and bounded by.

use std::fmt;
use std::time::Duration;

use crate::id::SessionId;

/// The 16 bytes with which a client proves that a session is its own.
///
/// They follow from the session id alone, so that a session can move between servers, ours and Apache's,
/// without their exchanging secrets. They guard against mistakes, not against attackers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionPassword(pub [u8; 16]);

impl SessionPassword {
    /// Mixed into the seed; `superSecret` in `ZooKeeperServer.java` of Apache ZooKeeper.
    const SEED_MASK: i64 = 0xB341_5C00;

    /// What a client sends when it asks for a new session, and what a refusal carries.
    pub const ZERO: Self = Self([0; 16]);

    /// The password of a session: 16 bytes of `java.util.Random` seeded with the masked id.
    pub fn for_session(session: SessionId) -> Self {
        const MULTIPLIER: u64 = 0x5_DEEC_E66D;
        const INCREMENT: u64 = 0xB;
        const MASK: u64 = (1 << 48) - 1;

        let seed = (session.0 ^ Self::SEED_MASK).cast_unsigned();
        let mut state = (seed ^ MULTIPLIER) & MASK;
        let mut password = [0; 16];
        for chunk in password.chunks_exact_mut(4) {
            state = state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT) & MASK;
            // `Random.next(32)`: the upper 32 of 48 bits, which `nextBytes` hands out lowest byte first.
            chunk.copy_from_slice(&(state >> 16).to_le_bytes()[..4]);
        }
        Self(password)
    }
}

impl fmt::Debug for SessionPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionPassword(…)")
    }
}

/// The bounds within which a server grants session timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimeouts {
    /// The shortest; two ticks unless set.
    pub min: Duration,
    /// The longest; twenty ticks unless set.
    pub max: Duration,
}

impl SessionTimeouts {
    /// The bounds that follow from the tick.
    pub const fn from_tick(tick: Duration) -> Self {
        Self { min: tick.saturating_mul(2), max: tick.saturating_mul(20) }
    }

    /// The timeout granted to a client that asks for `requested_ms`.
    pub fn negotiate(&self, requested_ms: i32) -> Duration {
        let requested = Duration::from_millis(u64::try_from(requested_ms).unwrap_or(0));
        requested.clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_one_apache_derives() {
        let password = SessionPassword::for_session(SessionId(0x0100_000d_9373_0000));
        let expected = 0xcf02_f0d7_b05d_2079_c5cf_344d_79bd_6547_u128;
        assert_eq!(password.0, expected.to_be_bytes());
    }

    #[test]
    fn timeouts_are_held_between_two_and_twenty_ticks() {
        let timeouts = SessionTimeouts::from_tick(Duration::from_secs(2));
        assert_eq!(timeouts.negotiate(-5), Duration::from_secs(4));
        assert_eq!(timeouts.negotiate(10_000), Duration::from_secs(10));
        assert_eq!(timeouts.negotiate(i32::MAX), Duration::from_secs(40));
    }
}
