//! What a sidecar can be told over HTTP. Who carries it out is not this module's business.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::registry::{Change, ChangeError, Drain, Evidence, Keeping, MaintenanceChange, Reason, ServiceKey};

/// One thing to do, with own instances of one service or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Let those that are held off take their tier again.
    FailBack(Option<ServiceKey>),
    /// Have them leave.
    Drain {
        /// Whose.
        service: Option<ServiceKey>,
        /// How long the answer may wait until they are out; without it nobody waits for that.
        wait: Option<Duration>,
    },
    /// Let those serve again that were told to leave.
    EndDrain(Option<ServiceKey>),
    /// Put them into maintenance.
    Maintain {
        /// Whose.
        service: Option<ServiceKey>,
        /// Why.
        reason: Reason,
    },
    /// End their maintenance.
    EndMaintenance(Option<ServiceKey>),
}

impl Command {
    /// Whether the answer may wait for more than the ensemble's.
    pub(super) const fn waits(&self) -> bool {
        matches!(self, Self::Drain { wait: Some(_), .. })
    }
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// So many instances were held off, and are no more.
    Released(usize),
    /// These leave.
    Drained(Drain),
    /// These need not leave any more.
    DrainEnded(Change),
    /// These are in maintenance, or not any more.
    Maintained(MaintenanceChange),
}

/// A command under way.
pub type CommandFuture = Pin<Box<dyn Future<Output = Result<Done, ChangeError>> + Send>>;

/// What carries out commands.
#[derive(Clone)]
pub struct Control(Arc<dyn Fn(Command) -> CommandFuture + Send + Sync>);

impl Control {
    /// Wraps a function from commands to what they came to.
    pub fn new(carry_out: impl Fn(Command) -> CommandFuture + Send + Sync + 'static) -> Self {
        Self(Arc::new(carry_out))
    }

    pub(super) async fn carry_out(&self, command: Command) -> Result<Done, ChangeError> {
        (self.0)(command).await
    }
}

impl Default for Control {
    /// For a sidecar without instances: whatever all are told concerns none.
    fn default() -> Self {
        Self::new(|command| Box::pin(std::future::ready(with_nobody(command))))
    }
}

fn with_nobody(command: Command) -> Result<Done, ChangeError> {
    let nobody = |service: Option<ServiceKey>| match service {
        Some(service) => Err(ChangeError::NotOwn(service)),
        None => Ok(Change { instances: Vec::new(), waited: Duration::ZERO }),
    };
    match command {
        Command::FailBack(_) => Ok(Done::Released(0)),
        Command::Drain { service, wait: _ } => {
            let change = nobody(service)?;
            Ok(Done::Drained(Drain { change, is_late: false, evidence: Evidence::None, subscribers: None }))
        }
        Command::EndDrain(service) => nobody(service).map(Done::DrainEnded),
        Command::Maintain { service, reason: _ } | Command::EndMaintenance(service) => {
            let change = nobody(service)?;
            Ok(Done::Maintained(MaintenanceChange { change, keeping: Keeping::Kept }))
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control(..)")
    }
}
