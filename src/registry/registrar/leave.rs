//! How our instances leave when the sidecar stops.
//!
//! ```text
//! records say `draining` ──► a quiet time, and all who subscribe have applied it ──► znodes are deleted ──► session closed
//!                                     └─ or the time is nearly over ─────────────────┘
//! ```
//!
//! Readers that see the deletion before they have heard of `draining` would take the instance for one that vanished, and offer it
//! on. So those who can be asked are waited for, as `rollcall drain --wait` does, within what the caller has left.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Order, Phase, Registrar};
use crate::registry::change::{Departure, Evidence};
use crate::registry::own::OwnInstance;

/// How long a record says `draining` at least before it goes, so that every reader on a healthy ensemble has heard of it.
pub const DRAINING_MIN: Duration = Evidence::QUIET_TIME;
/// What is left of the time for the deletion, and for closing the sessions that asked, when subscribers are waited for no longer.
const REMOVAL_TIME: Duration = Duration::from_secs(1);

/// Why a drain is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// The deadline passed.
    #[error(
        "the instances were not all taken out within {} ms; what is left goes with the session", .within.as_millis()
    )]
    Deadline {
        /// How long it was tried.
        within: Duration,
    },
    /// The registrar's task is gone.
    #[error("the registrar has stopped")]
    Stopped,
}

impl Registrar {
    /// Takes every instance out: its record says `draining` for [`DRAINING_MIN`] at least, and until all who subscribe have applied
    /// that or `within` is nearly over; then its znode is deleted. The client's session can be closed after that. Takes effect for
    /// good; another call waits for the same.
    ///
    /// # Errors
    ///
    /// When the znodes are not deleted by `within`; what is left goes with the session. Subscribers that are behind are no
    /// error: the answer says who.
    pub async fn drain(&self, within: Duration) -> Result<Departure, DrainError> {
        let deadline = Instant::now() + within;
        let leave = async {
            let registered = self.order(Phase::Draining).await?;
            let departure = if registered > 0 {
                self.until_seen(deadline - REMOVAL_TIME.min(within)).await
            } else {
                Departure::default()
            };
            self.order(Phase::Removed).await?;
            Ok(departure)
        };
        let departure = timeout_at(deadline, leave).await.unwrap_or(Err(DrainError::Deadline { within }))?;
        // Nothing is lost but that the ensemble keeps the sessions of who has asked until they expire.
        let _in_time = timeout_at(deadline, self.asker.ended()).await;
        Ok(departure)
    }

    /// Waits until all who subscribe have applied what was just written, and until `deadline` at most.
    async fn until_seen(&self, deadline: Instant) -> Departure {
        let own = self.instances.borrow().clone();
        let services: BTreeSet<_> =
            own.into_iter().filter(OwnInstance::is_registered).map(|own| own.service).collect();
        let (began, mut subscribers) = (Instant::now(), None);
        let evidence =
            confirmed(began + DRAINING_MIN, deadline, self.asker.ask(&services, &mut subscribers)).await;
        Departure { waited: began.elapsed(), evidence, subscribers }
    }

    /// Returns how many instances are in the tree once it is done.
    async fn order(&self, phase: Phase) -> Result<usize, DrainError> {
        self.ask(|done| Order::Leave { phase, done }).await
    }
}

/// What `asking` comes to, if that is before `deadline`; in any case not before `earliest`.
async fn confirmed(earliest: Instant, deadline: Instant, asking: impl Future<Output = Evidence>) -> Evidence {
    let asked = timeout_at(deadline, asking).await.unwrap_or(Evidence::None);
    sleep_until(earliest).await;
    asked
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use tokio::sync::{mpsc, watch};
    use tokio::time::sleep;

    use super::*;
    use crate::client::{Client, ClientSettings};
    use crate::registry::Layout;
    use crate::registry::barrier::BarrierAsker;
    use crate::registry::check::{HealthBoard, HealthState};
    use crate::registry::name::{Label, ServiceKey};
    use crate::registry::own::RegistrationState;
    use crate::registry::record::Status;
    use crate::registry::registrar::{CheckNames, RegistrarStats};

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(40);

    #[tokio::test]
    async fn it_is_never_over_before_the_quiet_time_and_waits_for_who_is_slow_until_the_deadline() {
        let began = Instant::now();
        let at = |after: Duration| began + after;
        let slow = async {
            sleep(2 * SHORT).await;
            Evidence::Subscribers
        };
        assert_eq!(confirmed(at(SHORT), at(LONG), ready(Evidence::Subscribers)).await, Evidence::Subscribers);
        assert!(began.elapsed() >= SHORT, "all had confirmed at once");
        assert_eq!(confirmed(at(SHORT), at(LONG), slow).await, Evidence::Subscribers);
        assert!(began.elapsed() >= 3 * SHORT && began.elapsed() < LONG, "one was slow");
        let now = Instant::now();
        assert_eq!(confirmed(now, now + SHORT, pending()).await, Evidence::None);
        assert!(now.elapsed() >= SHORT, "one never answered");
        let now = Instant::now();
        assert_eq!(confirmed(now + SHORT, now, pending()).await, Evidence::None);
        assert!(now.elapsed() >= SHORT, "there was no time to ask");
    }

    #[tokio::test]
    async fn records_are_drained_then_removed_and_nobody_who_cannot_be_asked_is_waited_for() {
        let (registrar, mut orders) = registrar(RegistrationState::Registered(Status::Draining));
        let leaving = tokio::spawn(async move { registrar.drain(LONG).await });
        answer(&mut orders, Phase::Draining, 1).await;
        let began = Instant::now();
        answer(&mut orders, Phase::Removed, 0).await;
        assert!(began.elapsed() >= DRAINING_MIN, "{:?}", began.elapsed());
        let departure = leaving.await.unwrap().unwrap();
        assert!(departure.waited >= DRAINING_MIN, "{departure:?}");
        assert_eq!((departure.evidence, departure.subscribers), (Evidence::QuietTime, None));
    }

    #[tokio::test]
    async fn where_nothing_is_registered_there_is_nothing_to_wait_for() {
        let (registrar, mut orders) = registrar(RegistrationState::Absent);
        let leaving = tokio::spawn(async move { registrar.drain(LONG).await });
        answer(&mut orders, Phase::Draining, 0).await;
        answer(&mut orders, Phase::Removed, 0).await;
        assert_eq!(leaving.await.unwrap(), Ok(Departure::default()));
    }

    #[tokio::test]
    async fn at_the_deadline_it_is_said_that_something_is_left() {
        let (registrar, mut orders) = registrar(RegistrationState::Registered(Status::Up));
        let began = Instant::now();
        assert_eq!(registrar.drain(SHORT).await, Err(DrainError::Deadline { within: SHORT }));
        assert!(began.elapsed() >= SHORT);
        assert!(matches!(orders.recv().await, Some(Order::Leave { phase: Phase::Draining, .. })));
        drop(orders);
        assert_eq!(registrar.drain(LONG).await, Err(DrainError::Stopped));
    }

    /// One whose task is the test, on an ensemble that is not there.
    fn registrar(registration: RegistrationState) -> (Registrar, mpsc::Receiver<Order>) {
        let (orders, orders_end) = mpsc::channel(1);
        let label = |text| Label::parse(text).unwrap();
        let own = OwnInstance {
            service: ServiceKey { namespace: label("default"), name: label("web") },
            id: label("one"),
            health: HealthState::Passing,
            is_degraded: false,
            registration,
            is_held: false,
            is_draining: false,
            maintenance: None,
            is_carried_out: true,
        };
        let request_timeout = Duration::from_millis(10);
        let settings = ClientSettings { servers: Vec::new(), request_timeout, ..ClientSettings::default() };
        let registrar = Registrar {
            orders,
            instances: watch::Sender::new(vec![own]).subscribe(),
            checks: watch::channel(CheckNames::new()).1,
            board: HealthBoard::default(),
            stats: Arc::new(RegistrarStats::default()),
            asker: BarrierAsker::new(Client::start(settings), Layout::default()),
        };
        (registrar, orders_end)
    }

    async fn answer(orders: &mut mpsc::Receiver<Order>, expected: Phase, registered: usize) {
        let Some(Order::Leave { phase, done }) = orders.recv().await else { panic!("no order to leave") };
        assert_eq!(phase, expected);
        done.send(registered).expect("somebody waits for it");
    }
}
