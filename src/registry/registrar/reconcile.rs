//! Brings the tree to what is wanted of all our instances.
//!
//! ```text
//! attempts ──► look (side by side) ──► drafts ──► batches ──► a multi each ──► done
//!     ▲                                                            │
//!     └──────────── the tree has changed meanwhile ────────────────┘   up to ROUNDS_MAX times
//! ```
//!
//! What is written together, and who is left out of it, is decided by [`super::batch`].

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tracing::info;

use super::batch::{Attempt, Batch, Draft, FAULTS_MAX, Refusal, in_batches};
use super::entry::{Entry, Outcome, ReconcileError, settled};
use super::foreign::{ForeignPlan, OwnSessions, in_one_multi};
use super::look::{create_parents, observe, plan_formats};
use super::plan::{Plan, Wanted, plan};
use super::{ROUNDS_MAX, RegistrarTask};
use crate::client::{ClientError, MultiOp};
use crate::id::SessionId;
use crate::registry::name::ServiceKey;
use crate::registry::record::Record;
use crate::registry::registration::Registration;

/// Instances that are looked at side by side, one request of each at a time: enough that many take few round trips, few
/// enough to leave room for the mirror's reads.
const LOOKS_MAX: usize = 16;

/// What looking at one instance came to.
#[derive(Debug)]
enum Look {
    Draft(Draft),
    Failed(Attempt, ReconcileError),
}

impl RegistrarTask {
    /// Looks at every instance, and writes what differs; returns whether all are as wanted.
    pub(super) async fn reconcile(&mut self, session: SessionId) -> bool {
        let mut is_settled = true;
        let mut attempts: Vec<_> = (0..self.entries.len()).map(|index| self.begin(index, session)).collect();
        for round in 0..ROUNDS_MAX {
            let mut drafts = Vec::new();
            for look in self.look_at_all(attempts, session).await {
                match look {
                    Look::Draft(draft) if draft.ops.is_empty() => {
                        let (attempt, outcome) = draft.done(&[]);
                        is_settled &= self.settle(attempt, Ok(outcome));
                    }
                    Look::Draft(draft) => drafts.push(draft),
                    Look::Failed(attempt, error) => is_settled &= self.settle(attempt, Err(error)),
                }
            }
            attempts = Vec::new();
            for batch in in_batches(drafts, round) {
                is_settled &= self.write(batch, &mut attempts).await;
            }
            if attempts.is_empty() {
                return is_settled;
            }
        }
        for attempt in attempts {
            is_settled &= self.settle(attempt, Err(ReconcileError::Contended));
        }
        is_settled
    }

    fn begin(&mut self, index: usize, session: SessionId) -> Attempt {
        let entry = &mut self.entries[index];
        entry.foreign.begin(session);
        Attempt {
            index,
            wanted: entry.wanted(self.phase, &self.settings.owner, &self.incarnation),
            foreign: entry.foreign.clone(),
            faults: if entry.is_apart { FAULTS_MAX } else { 0 },
        }
    }

    async fn look_at_all(&self, attempts: Vec<Attempt>, session: SessionId) -> Vec<Look> {
        let mut waiting = attempts.into_iter().map(|attempt| self.look(attempt, session));
        let mut under_way: FuturesOrdered<_> = waiting.by_ref().take(LOOKS_MAX).collect();
        let mut looks = Vec::with_capacity(self.entries.len());
        while let Some(look) = under_way.next().await {
            looks.push(look);
            under_way.extend(waiting.next());
        }
        looks
    }

    async fn look(&self, attempt: Attempt, session: SessionId) -> Look {
        match self.compare(&attempt, session).await {
            Ok((ops, formats, outcome)) => Look::Draft(Draft { attempt, ops, formats, outcome }),
            Err(error) => Look::Failed(attempt, error),
        }
    }

    /// What is to be written of one instance, for itself and in other formats, and what that comes to.
    async fn compare(
        &self,
        attempt: &Attempt,
        session: SessionId,
    ) -> Result<(Vec<MultiOp>, Option<Vec<ForeignPlan>>, Outcome), ReconcileError> {
        let Registration { service, id, .. } = &self.entries[attempt.index].registration;
        let path = self.settings.layout.instance(service, id);
        let observed = observe(&self.client, &path).await?;
        let (ops, outcome) = match plan(&path, &attempt.wanted, &observed, session)? {
            Plan::Nothing => (Vec::new(), Outcome::Settled(settled(&attempt.wanted, &observed, session))),
            Plan::Conflict { owner, session } => (Vec::new(), Outcome::Conflict { owner, session }),
            Plan::Write { ops, record } => (ops, Outcome::Settled(record)),
        };
        if attempt.wanted == Wanted::Undecided {
            return Ok((ops, None, outcome));
        }
        let sessions = OwnSessions::of(&observed, &self.settings.owner, session);
        let registration = &self.entries[attempt.index].registration;
        let record = outcome.record();
        let formats = plan_formats(&self.client, registration, record, &attempt.foreign, sessions).await?;
        Ok((in_one_multi(&path, &observed, ops, &formats), Some(formats), outcome))
    }

    /// Writes one multi; `again` gets those that are to be looked at anew. Returns whether the others are as wanted.
    async fn write(&mut self, batch: Batch, again: &mut Vec<Attempt>) -> bool {
        for draft in &batch.drafts {
            // For a write that is broken off: it may have been carried out.
            self.entries[draft.attempt.index].foreign.on_lost_answer();
        }
        match self.client.multi(batch.ops()).await {
            Ok(results) => {
                self.stats.writes.fetch_add(1, Ordering::Relaxed);
                let mut is_settled = true;
                for (attempt, outcome) in batch.on_written(&results) {
                    self.count_repair(&self.entries[attempt.index], outcome.record());
                    is_settled &= self.settle(attempt, Ok(outcome));
                }
                is_settled
            }
            Err(error) => self.on_refusal(batch.on_error(&error), again).await,
        }
    }

    /// Takes down who has failed, and prepares the others for the next look; returns whether nobody has failed.
    async fn on_refusal(&mut self, refusal: Refusal, again: &mut Vec<Attempt>) -> bool {
        let mut is_settled = true;
        for (attempt, error) in refusal.failed {
            is_settled &= self.settle(attempt, Err(error.into()));
        }
        let mut there = BTreeSet::new();
        for draft in refusal.again {
            // Where one lacks its parents others may as well, and would be found out one by one. Whether they can be had is seen
            // when it is their turn.
            if let Some(orphan) = refusal.orphan
                && let Err(error) = self.create_parents_of(&draft, &mut there).await
                && draft.attempt.index == orphan
            {
                is_settled &= self.settle(draft.attempt, Err(error.into()));
                continue;
            }
            again.push(draft.attempt);
        }
        is_settled
    }

    /// Makes sure of the persistent znodes that those of one instance are created below, but for those of the services that are `there`.
    async fn create_parents_of(
        &self,
        draft: &Draft,
        there: &mut BTreeSet<ServiceKey>,
    ) -> Result<(), ClientError> {
        let Some(record) = draft.outcome.record() else { return Ok(()) };
        let registration = &self.entries[draft.attempt.index].registration;
        if !there.contains(&registration.service) {
            self.client.create_all(&self.settings.layout.service(&registration.service)).await?;
            there.insert(registration.service.clone());
        }
        create_parents(&self.client, registration, record).await
    }

    /// A write is a repair when it brought back exactly what had been there.
    fn count_repair(&self, entry: &Entry, written: Option<&Record>) {
        if written.is_some() && entry.settled.as_deref() == written {
            info!(service = %entry.registration.service, id = %entry.registration.id, "registration repaired");
            self.stats.repairs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes down what an attempt has come to; returns whether there is nothing left to do.
    fn settle(&mut self, attempt: Attempt, outcome: Result<Outcome, ReconcileError>) -> bool {
        let entry = &mut self.entries[attempt.index];
        entry.on_foreign(attempt.foreign);
        entry.on_outcome(outcome, self.phase, &self.stats)
    }
}
