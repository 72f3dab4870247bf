//! How many files, and so connections, a long-running command may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use crate::sidecar::{OpenFiles, SidecarPlan};

/// Raises the soft limit of open files to the hard one. The soft one is 1024 by custom, for programs that use select();
/// the bounds of our listeners alone come to more, and with no file left the ensemble cannot be reached any more.
pub(super) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => debug!(from = ?limit.current, to = ?limit.maximum, "raised the limit of open files"),
        Err(error) => warn!(%error, limit = ?limit.current, "the limit of open files stays as it is"),
    }
}

/// The same for a sidecar, and says so where even the hard limit is below what its settings allow.
pub(super) fn raise_for(plan: &SidecarPlan) {
    raise();
    if let Some(shortage) = OpenFiles::of(plan).shortage(current()) {
        warn!(%shortage, "open files may run out under load");
    }
}

/// How many files this process may have open now; `None` for any number.
pub(super) fn current() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
