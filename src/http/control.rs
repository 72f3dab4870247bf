//! What a sidecar can be told over HTTP. Who carries it out is not this module's business.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::registry::ServiceKey;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Let own instances that are held off take their tier again: those of one service, or all.
    FailBack(Option<ServiceKey>),
}

/// How many instances it concerned; `None` when whoever should do it has stopped.
pub type CommandFuture = Pin<Box<dyn Future<Output = Option<usize>> + Send>>;

/// What carries out commands.
#[derive(Clone)]
pub struct Control(Arc<dyn Fn(Command) -> CommandFuture + Send + Sync>);

impl Control {
    /// Wraps a function from commands to what they came to.
    pub fn new(carry_out: impl Fn(Command) -> CommandFuture + Send + Sync + 'static) -> Self {
        Self(Arc::new(carry_out))
    }

    pub(super) async fn carry_out(&self, command: Command) -> Option<usize> {
        (self.0)(command).await
    }
}

impl Default for Control {
    /// For a sidecar without instances: whatever it is told concerns none.
    fn default() -> Self {
        Self::new(|_command| Box::pin(std::future::ready(Some(0))))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control(..)")
    }
}
