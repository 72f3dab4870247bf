//! Octets that nobody can guess, from the library that TLS has them from.

use std::sync::LazyLock;

use tokio_rustls::rustls::crypto::{SecureRandom, ring};

/// Fills `octets` from the system's source of randomness.
///
/// # Panics
///
/// When the system has none: what depends on it would be open to whoever guesses.
pub fn fill_random(octets: &mut [u8]) {
    SOURCE.fill(octets).expect("the system gives random octets");
}

static SOURCE: LazyLock<&'static dyn SecureRandom> = LazyLock::new(|| ring::default_provider().secure_random);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_fillings_are_alike() {
        let [mut one, mut other] = [[0; 32]; 2];
        fill_random(&mut one);
        fill_random(&mut other);
        assert_ne!(one, other);
        assert_ne!(one, [0; 32]);
    }
}
