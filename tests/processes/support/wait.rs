//! Waiting for a condition with a deadline.

use rollcall::clock;
use std::thread;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(10);

/// Waits until `probe` gives a value.
///
/// # Panics
///
/// When `limit` is over first; `what` says what was waited for.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = clock::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(clock::now() < deadline, "waited {limit:?} in vain: {what}");
        thread::sleep(POLL);
    }
}

/// Waits until `condition` holds and returns how long that took.
///
/// # Panics
///
/// As [`wait_for`].
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = clock::now();
    wait_for(what, limit, || condition().then_some(()));
    clock::now() - start
}
