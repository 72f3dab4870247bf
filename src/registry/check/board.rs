//! Where the states of all checks stand.

use std::sync::Arc;

use tokio::sync::watch;

use super::health::HealthState;

/// Where the states of several checks are published together.
#[derive(Clone, Debug)]
pub struct HealthBoard {
    states: Arc<watch::Sender<Vec<HealthState>>>,
}

impl HealthBoard {
    /// A board of `checks` that have no result yet.
    pub fn new(checks: usize) -> Self {
        Self { states: Arc::new(watch::Sender::new(vec![HealthState::Initial; checks])) }
    }

    /// The states now and from now on, in the order of the checks.
    pub fn subscribe(&self) -> watch::Receiver<Vec<HealthState>> {
        self.states.subscribe()
    }

    pub(super) fn set(&self, index: usize, state: HealthState) {
        self.states.send_modify(|states| states[index] = state);
    }

    /// Resolves when nobody reads it any more.
    pub(super) async fn closed(&self) {
        self.states.closed().await;
    }
}
