//! Telling of transfers that take their time.

use std::time::{Duration, Instant};

use tracing::info;

use crate::clock;
use crate::zab::LinkId;

/// A transfer under way.
pub(super) struct Progress<'a> {
    what: &'static str,
    link: LinkId,
    peer: &'a str,
    /// How much it is, where that is known.
    total: Option<usize>,
    /// When it was last logged, and when the driver was told.
    logged: Instant,
    told: Instant,
}

/// How often it is logged.
const LOG_PAUSE: Duration = Duration::from_secs(5);
/// How often the driver hears of it: a fraction of the shortest tick.
const TELL_PAUSE: Duration = Duration::from_millis(50);

impl<'a> Progress<'a> {
    pub(super) fn new(what: &'static str, link: LinkId, peer: &'a str, total: Option<usize>) -> Self {
        let now = clock::now();
        Self { what, link, peer, total, logged: now, told: now }
    }

    /// Notes how much is done, and logs it once in a while; whether the driver should hear of it now.
    pub(super) fn report(&mut self, bytes: usize) -> bool {
        let now = clock::now();
        if now.saturating_duration_since(self.logged) >= LOG_PAUSE {
            self.logged = now;
            let (link, peer, total) = (self.link.0, self.peer, self.total);
            info!(link, %peer, bytes, ?total, "{}", self.what);
        }
        let is_due = now.saturating_duration_since(self.told) >= TELL_PAUSE;
        if is_due {
            self.told = now;
        }
        is_due
    }
}
