//! What there is to say of an own instance: how it stands in the tree, what keeps it out, and its checks.

use super::check::{CheckKind, CheckStanding, HealthState};
use super::maintenance::Maintenance;
use super::name::{Label, ServiceKey};
use super::record::Status;
use crate::id::SessionId;

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
    /// Whether an operator has it leave.
    pub is_draining: bool,
    /// Whether an operator has it in maintenance, and why.
    pub maintenance: Option<Maintenance>,
    /// Whether the tree was looked at, and changed if need be, since an operator last told it something.
    pub is_carried_out: bool,
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

/// An own instance with its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnStatus {
    /// The instance.
    pub instance: OwnInstance,
    /// Its checks, in the order of the settings.
    pub checks: Vec<OwnCheck>,
}

/// A check of an own instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCheck {
    /// Its name.
    pub name: Label,
    /// How it checks.
    pub kind: CheckKind,
    /// Whether the instance is not offered while it fails.
    pub is_critical: bool,
    /// Where it stands.
    pub standing: CheckStanding,
}

impl OwnInstance {
    /// Whether there is a record of it, so that others can see it.
    pub const fn is_registered(&self) -> bool {
        matches!(self.registration, RegistrationState::Registered(_))
    }

    /// Whether what an operator told it shows in the tree, or would if there were anything to show.
    pub fn is_written(&self) -> bool {
        self.is_carried_out && !matches!(self.registration, RegistrationState::Pending { .. })
    }
}
