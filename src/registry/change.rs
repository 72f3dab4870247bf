//! What came of what an operator told own instances to do.

use std::time::Duration;

use super::name::ServiceKey;
use super::own::OwnInstance;

/// Own instances after an operator told them something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Those that it concerns, as they stand now.
    pub instances: Vec<OwnInstance>,
    /// How long it took until they stood so.
    pub waited: Duration,
}

/// Own instances that were told to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The instances.
    pub change: Change,
    /// Whether somebody wanted to wait until they are out, and the change was not written in that time.
    pub is_late: bool,
    /// How it is known that their subscribers have applied it.
    pub evidence: Evidence,
    /// What is known of these subscribers, if they were asked and their members understood.
    pub subscribers: Option<SubscriberReport>,
}

/// How own instances left for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// How long their records said that they leave, before they were deleted.
    pub waited: Duration,
    /// How it is known that their subscribers have applied that.
    pub evidence: Evidence,
    /// What is known of these subscribers, if they were asked and their members understood.
    pub subscribers: Option<SubscriberReport>,
}

impl Default for Departure {
    /// Of no instance at all.
    fn default() -> Self {
        Self { waited: Duration::ZERO, evidence: Evidence::None, subscribers: None }
    }
}

/// How far those are who subscribe to services, as all members of the ensemble told last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriberReport {
    /// How many there are.
    pub subscribers: usize,
    /// The names of some that are not known to have applied the change, a hundred at most.
    pub behind: Vec<String>,
    /// How many there are of these.
    pub behind_count: usize,
    /// Members of which nobody could be asked.
    pub members_not_asked: Vec<u8>,
    /// Clients that watch the services, and cannot be asked.
    pub other_watchers: usize,
}

/// How it is known that all who subscribe to a service have applied a change. Only an answer of theirs, or of the members that
/// they are connected to, would confirm it; [`Evidence::is_confirmation`] says which of these is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It is not: nobody waited for as long as that takes, or the change is not written yet.
    None,
    /// The change was committed, and [`Evidence::QUIET_TIME`] has passed since; not everybody could be asked.
    QuietTime,
    /// All members were asked, and all their subscribers have said so. Where other clients watch, too, the quiet time has
    /// passed for them.
    Subscribers,
}

impl Evidence {
    /// How long after the commit all subscribers on a healthy ensemble have applied a change. A watch event, a read and a
    /// publication follow a commit within 50 ms at the 99th percentile with a thousand subscribers; this is twenty times as
    /// long, and as long as a record says `draining` before it goes when the sidecar stops. What resolvers have kept lives on for
    /// the TTL of the answers beyond it.
    pub const QUIET_TIME: Duration = Duration::from_secs(1);

    /// Whether the subscribers are known to have applied it.
    pub const fn is_confirmation(self) -> bool {
        match self {
            Self::None | Self::QuietTime => false,
            Self::Subscribers => true,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::QuietTime => "quiet-time",
            Self::Subscribers => "subscribers",
        }
    }
}

/// Own instances that were put into maintenance, or taken out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintenanceChange {
    /// The instances.
    pub change: Change,
    /// Whether it outlives the process.
    pub keeping: Keeping,
}

/// Whether something outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is in the state directory.
    Kept,
    /// There is no state directory.
    NoStateDir,
    /// It could not be written there; that is tried again.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Why an operator was not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The registrar's task is gone.
    #[error("the registrar has stopped")]
    Stopped,
    /// This sidecar has no instance of the service.
    #[error("no instance of {0} is this sidecar's")]
    NotOwn(ServiceKey),
}
