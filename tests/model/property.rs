//! What must hold in every state.

use std::fmt;

/// A promise of the protocol, by the name under which a violation is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Property {
    /// At most one leader is ever established in one epoch, and nobody follows another in it.
    OneLeaderPerEpoch,
    /// What members deliver are prefixes of one another.
    Agreement,
    /// What was delivered anywhere is durable at a quorum, for ever.
    CommittedIsNeverLost,
    /// A leader's history holds all that was delivered before.
    LeaderHasEverything,
    /// Nothing is delivered that was not proposed.
    NothingIsInvented,
    /// No epoch on disk goes back, and none is current that is not accepted.
    PromisesAreKept,
    /// Nobody leaves another because of what it said, but for an epoch that is too old, a history that is better than the
    /// leader's, and a point to cut back to that it does not have: then it is cut back further, and tries again.
    MembersUnderstandOneAnother,
    /// From every state there is a way to where all members have one leader and the same txns.
    NobodyIsStuck,
    /// The peer's own assertions hold.
    NoPanic,
}

/// A property that does not hold, and how.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) property: Property,
    pub(crate) how: String,
}

impl Property {
    pub(crate) fn check(self, holds: bool, how: impl FnOnce() -> String) -> Result<(), Violation> {
        if holds { Ok(()) } else { Err(Violation { property: self, how: how() }) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.property, self.how)
    }
}
