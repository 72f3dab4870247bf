//! The tasks that carry out the checks of all own instances.

use std::collections::BTreeMap;

use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

use crate::registry::check::{Check, CheckSlot, HealthBoard, runner};
use crate::registry::registration::Registration;
use crate::registry::report::{CheckKey, TtlReports};

/// The tasks, and the board that they write to.
#[derive(Debug)]
pub(super) struct CheckTasks {
    board: HealthBoard,
    reports: TtlReports,
    tasks: JoinSet<()>,
    running: BTreeMap<CheckSlot, AbortHandle>,
}

impl CheckTasks {
    /// None yet.
    pub(super) fn new(board: HealthBoard, reports: TtlReports) -> Self {
        Self { board, reports, tasks: JoinSet::new(), running: BTreeMap::new() }
    }

    /// Where they are told of.
    pub(super) const fn board(&self) -> &HealthBoard {
        &self.board
    }

    /// Starts those of an instance that do not run, at their places.
    pub(super) fn start(&mut self, registration: &Registration, slots: &[CheckSlot]) {
        for (check, slot) in registration.checks.iter().zip(slots) {
            if !self.running.contains_key(slot) {
                self.run(registration, check, *slot);
            }
        }
    }

    /// Has an instance checked as other settings say; `slots` are the places of its checks before, and then of those now. A
    /// check that has the name of one before goes on from what that came to, and one that is the same altogether just goes on.
    pub(super) fn change(&mut self, before: &Registration, now: &Registration, slots: &mut Vec<CheckSlot>) {
        let mut left: BTreeMap<_, _> = before
            .checks
            .iter()
            .zip(slots.drain(..))
            .map(|(check, slot)| (&check.name, (check, slot)))
            .collect();
        for check in &now.checks {
            let slot = match left.remove(&check.name) {
                // The address and port that it asks by default are settings of the check by now.
                Some((same, slot)) if same == check => slot,
                Some((_, slot)) => {
                    self.stop(slot);
                    self.run(now, check, slot);
                    slot
                }
                None => {
                    let slot = self.board.add();
                    self.run(now, check, slot);
                    slot
                }
            };
            slots.push(slot);
        }
        for (_, slot) in left.into_values() {
            self.forget(slot);
        }
    }

    /// Ends a check for good.
    pub(super) fn forget(&mut self, slot: CheckSlot) {
        self.stop(slot);
        self.board.remove(slot);
    }

    /// Ends all, and waits until they have, so that programs that they started are killed by then.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }

    fn run(&mut self, registration: &Registration, check: &Check, slot: CheckSlot) {
        let (service, id) = (registration.service.clone(), registration.id.clone());
        let span = tracing::info_span!("check", %service, %id, check = %check.name);
        let key = CheckKey { service, id, check: check.name.clone() };
        let task = runner::run(check.clone(), key, self.board.clone(), slot, self.reports.clone());
        self.running.insert(slot, self.tasks.spawn(task.instrument(span)));
        // Of those that were stopped nothing is wanted any more.
        while self.tasks.try_join_next().is_some() {}
    }

    fn stop(&mut self, slot: CheckSlot) {
        if let Some(task) = self.running.remove(&slot) {
            task.abort();
        }
    }
}
