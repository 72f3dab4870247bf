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
    told: Instant,
}

/// How often it is told of.
const PAUSE: Duration = Duration::from_secs(5);

impl<'a> Progress<'a> {
    pub(super) fn new(what: &'static str, link: LinkId, peer: &'a str, total: Option<usize>) -> Self {
        Self { what, link, peer, total, told: clock::now() }
    }

    /// Notes how much is done, and tells of it once in a while.
    pub(super) fn report(&mut self, bytes: usize) {
        let now = clock::now();
        if now.saturating_duration_since(self.told) >= PAUSE {
            self.told = now;
            let (link, peer, total) = (self.link.0, self.peer, self.total);
            info!(link, %peer, bytes, ?total, "{}", self.what);
        }
    }
}
