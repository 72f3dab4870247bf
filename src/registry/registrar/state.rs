//! Where own instances stand, and what was done about it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::SessionId;
use crate::registry::check::HealthState;
use crate::registry::name::{Label, ServiceKey};
use crate::registry::record::Status;

/// Where an own instance stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnInstance {
    /// The service.
    pub service: ServiceKey,
    /// The id.
    pub id: Label,
    /// What its critical checks say.
    pub health: HealthState,
    /// Whether another check fails, so that it is offered with its degraded weight.
    pub is_degraded: bool,
    /// How it stands in the tree.
    pub registration: RegistrationState,
    /// Whether it was away and stands below the standbys for now.
    pub is_held: bool,
}

/// How an own instance stands in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationState {
    /// Not there, and not to be: its checks have not risen yet, or it has left.
    Absent,
    /// There, with this status.
    Registered(Status),
    /// To be written, but that has not worked yet.
    Pending {
        /// Why.
        reason: String,
    },
    /// Somebody else has the id.
    Conflict {
        /// The owner, as the record says.
        owner: String,
        /// The session that the record lives by.
        session: SessionId,
    },
}

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct RegistrarStats {
    pub(super) writes: AtomicU64,
    pub(super) repairs: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl RegistrarStats {
    /// Multis that were carried out.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Those among them that brought back what had been there and was lost or changed by others.
    pub fn repairs(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    /// Attempts that failed, for want of a connection or because the server refused.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
