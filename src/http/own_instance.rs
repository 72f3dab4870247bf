//! How an own instance is told over HTTP.

use std::borrow::Cow;

use serde::Serialize;

use crate::id::SessionId;
use crate::registry::{Change, Label, OwnInstance, RegistrationState, Status};

/// An own instance, as answers to commands tell it.
#[derive(Debug, Serialize)]
pub(super) struct InstanceLine<'a> {
    service: String,
    id: &'a Label,
    #[serde(flatten)]
    standing: Standing<'a>,
}

/// How an own instance stands in the tree, in words.
#[derive(Debug, Serialize)]
pub(super) struct Standing<'a> {
    status: Cow<'static, str>,
    /// Why its record does not say what it should.
    reason: Option<Cow<'a, str>>,
}

impl<'a> InstanceLine<'a> {
    pub(super) fn all(change: &'a Change) -> Vec<Self> {
        change.instances.iter().map(Self::of).collect()
    }

    pub(super) fn of(own: &'a OwnInstance) -> Self {
        Self { service: own.service.to_string(), id: &own.id, standing: Standing::of(own) }
    }
}

impl<'a> Standing<'a> {
    fn of(own: &'a OwnInstance) -> Self {
        let because = |status: &'static str, reason: Cow<'a, str>| Self {
            status: Cow::Borrowed(status),
            reason: Some(reason),
        };
        match &own.registration {
            RegistrationState::Pending { reason } => because("pending", Cow::Borrowed(reason)),
            _ if !own.is_carried_out => because("pending", Cow::Borrowed("it is being written")),
            RegistrationState::Conflict { owner, session } => {
                let owner = if owner.is_empty() { "somebody unknown" } else { owner };
                because(
                    "conflict",
                    Cow::Owned(match *session {
                        SessionId::NONE => format!(
                            "the id is {owner}'s, in a znode of no session, which stays until somebody deletes it"
                        ),
                        session => format!("the id is {owner}'s, of session {session}"),
                    }),
                )
            }
            RegistrationState::Registered(status) => Self::plain(*status),
            RegistrationState::Absent => Self { status: Cow::Borrowed("absent"), reason: None },
        }
    }

    fn plain(status: Status) -> Self {
        Self { status: Cow::Owned(status.to_string()), reason: None }
    }
}
