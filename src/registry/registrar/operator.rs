//! What an operator may tell own instances, and how long they take over it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::intent::Wish;
use super::{Order, Registrar};
use crate::clock;
use crate::registry::barrier::BarrierAsker;
use crate::registry::change::{
    Change, ChangeError, Drain, Evidence, Keeping, MaintenanceChange, SubscriberReport,
};
use crate::registry::maintenance::Reason;
use crate::registry::name::ServiceKey;
use crate::registry::own::OwnInstance;

/// How long an answer is held back until the change is in the tree, when nobody wants to wait: a round trip or two, so that the
/// answer mostly tells what was done, and not that it will be.
const WRITE_WAIT: Duration = Duration::from_secs(1);

impl Registrar {
    /// Has the instances of `service`, or all, leave: their records say `draining` from now on, until
    /// [`Registrar::end_draining`] or the end of the process. With `wait` it returns once nobody should be sent to them any more,
    /// and at the latest after that time; what is not done by then is done later.
    ///
    /// # Errors
    ///
    /// When no instance of `service` is ours, or the registrar has stopped.
    pub async fn start_draining(
        &self,
        service: Option<ServiceKey>,
        wait: Option<Duration>,
    ) -> Result<Drain, ChangeError> {
        let meant = Meant::new(self, service)?;
        let started = clock::now();
        let (mut keeping, mut evidence, mut subscribers) = (None, Evidence::None, None);
        let carry_out = async {
            keeping = Some(self.tell(&meant, Wish::Drain).await?);
            evidence = meant.drained(wait, &self.asker, &mut subscribers).await?;
            Ok(())
        };
        timeout(wait.unwrap_or(WRITE_WAIT), carry_out).await.unwrap_or(Ok(()))?;
        let change = Change { instances: meant.after(keeping.is_some()), waited: started.elapsed() };
        // Whoever need not leave any more is not late.
        let is_in = |own: &OwnInstance| own.is_draining && !own.is_written();
        let is_late = wait.is_some() && (keeping.is_none() || change.instances.iter().any(is_in));
        Ok(Drain { change, is_late, evidence, subscribers })
    }

    /// Lets the instances of `service`, or all, serve again that were told to leave.
    ///
    /// # Errors
    ///
    /// As [`Registrar::start_draining`].
    pub async fn end_draining(&self, service: Option<ServiceKey>) -> Result<Change, ChangeError> {
        self.change(service, Wish::EndDrain).await.map(|(change, _)| change)
    }

    /// Puts the instances of `service`, or all, into maintenance: their records say so from now on, whatever their checks say,
    /// until [`Registrar::end_maintenance`].
    ///
    /// # Errors
    ///
    /// As [`Registrar::start_draining`].
    pub async fn start_maintenance(
        &self,
        service: Option<ServiceKey>,
        reason: Reason,
    ) -> Result<MaintenanceChange, ChangeError> {
        let (change, keeping) = self.change(service, Wish::Maintain(reason)).await?;
        Ok(MaintenanceChange { change, keeping })
    }

    /// Ends the maintenance of the instances of `service`, or all: their records say what their checks do.
    ///
    /// # Errors
    ///
    /// As [`Registrar::start_draining`].
    pub async fn end_maintenance(
        &self,
        service: Option<ServiceKey>,
    ) -> Result<MaintenanceChange, ChangeError> {
        let (change, keeping) = self.change(service, Wish::EndMaintenance).await?;
        // What was kept nowhere does not come back.
        let keeping = if keeping == Keeping::NoStateDir { Keeping::Kept } else { keeping };
        Ok(MaintenanceChange { change, keeping })
    }

    async fn change(
        &self,
        service: Option<ServiceKey>,
        wish: Wish,
    ) -> Result<(Change, Keeping), ChangeError> {
        let meant = Meant::new(self, service)?;
        let started = clock::now();
        let mut keeping = None;
        let carry_out = async {
            keeping = Some(self.tell(&meant, wish).await?);
            meant.until(OwnInstance::is_written).await
        };
        timeout(WRITE_WAIT, carry_out).await.unwrap_or(Ok(()))?;
        let change = Change { instances: meant.after(keeping.is_some()), waited: started.elapsed() };
        let is_slow =
            || Keeping::Failed { reason: "the sidecar is busy writing to its state directory".to_owned() };
        Ok((change, keeping.unwrap_or_else(is_slow)))
    }

    /// Lets the instances of `service`, or all, take their tier again; returns how many of them were held off.
    ///
    /// # Errors
    ///
    /// When none of them is of this sidecar, or the registrar has stopped.
    pub async fn fail_back(&self, service: Option<ServiceKey>) -> Result<usize, ChangeError> {
        let Meant { service, .. } = Meant::new(self, service)?;
        self.ask(|done| Order::FailBack { service, done }).await.map_err(|_| ChangeError::Stopped)
    }

    /// Returns once the registrar has heard it, before it does anything in the tree.
    async fn tell(&self, meant: &Meant, wish: Wish) -> Result<Keeping, ChangeError> {
        let service = meant.service.clone();
        self.ask(|done| Order::Tell { service, wish, done }).await.map_err(|_| ChangeError::Stopped)
    }
}

/// The instances that an operator means.
struct Meant {
    service: Option<ServiceKey>,
    instances: watch::Receiver<Vec<OwnInstance>>,
}

impl Meant {
    fn new(registrar: &Registrar, service: Option<ServiceKey>) -> Result<Self, ChangeError> {
        let meant = Self { service, instances: registrar.instances() };
        match &meant.service {
            Some(service) if meant.now().is_empty() => Err(ChangeError::NotOwn(service.clone())),
            Some(_) | None => Ok(meant),
        }
    }

    fn now(&self) -> Vec<OwnInstance> {
        self.of(&self.instances.borrow()).cloned().collect()
    }

    fn of<'a>(&'a self, all: &'a [OwnInstance]) -> impl Iterator<Item = &'a OwnInstance> {
        all.iter().filter(|own| self.service.as_ref().is_none_or(|service| own.service == *service))
    }

    /// The instances after they were told something, if the registrar has heard it.
    fn after(&self, is_heard: bool) -> Vec<OwnInstance> {
        let stand = |own| if is_heard { own } else { OwnInstance { is_carried_out: false, ..own } };
        self.now().into_iter().map(stand).collect()
    }

    /// Waits until every instance is so.
    async fn until(&self, is_so: impl Fn(&OwnInstance) -> bool) -> Result<(), ChangeError> {
        let mut instances = self.instances.clone();
        let reached = instances.wait_for(|all| self.of(all).all(&is_so)).await;
        reached.map(drop).map_err(|_| ChangeError::Stopped)
    }

    /// Waits until the tree says that they leave and, if somebody wants to `wait`, until all who subscribe have applied it, or
    /// for the quiet time if that cannot be found out. `report` is what is known of them meanwhile. Where nothing of them is in the
    /// tree there is nothing that could be seen.
    async fn drained(
        &self,
        wait: Option<Duration>,
        asker: &BarrierAsker,
        report: &mut Option<SubscriberReport>,
    ) -> Result<Evidence, ChangeError> {
        let has_ended = |own: &OwnInstance| !own.is_draining;
        loop {
            self.until(|own| own.is_written() || has_ended(own)).await?;
            if wait.is_none() || self.now().iter().any(has_ended) {
                return Ok(Evidence::None);
            }
            *report = None;
            let now = self.now().into_iter();
            let services: BTreeSet<_> =
                now.filter(OwnInstance::is_registered).map(|own| own.service).collect();
            if services.is_empty() {
                return Ok(Evidence::None);
            }
            let mut instances = self.instances.clone();
            let is_disturbed = |own: &OwnInstance| !own.is_written() || has_ended(own);
            tokio::select! {
                evidence = asker.ask(&services, report) => return Ok(evidence),
                // The connection was lost, say: what is in the tree then is looked at anew.
                disturbed = instances.wait_for(|all| self.of(all).any(is_disturbed)) => {
                    disturbed.map_err(|_| ChangeError::Stopped)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::client::{Client, ClientSettings};
    use crate::id::SessionId;
    use crate::registry::Layout;
    use crate::registry::check::{HealthBoard, HealthState};
    use crate::registry::name::Label;
    use crate::registry::own::RegistrationState;
    use crate::registry::record::Status;
    use crate::registry::registrar::{CheckNames, RegistrarStats};

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_drain_that_is_waited_for_is_over_a_quiet_time_after_it_was_written() {
        let mut world = World::new();
        let started = clock::now();
        let drain = world.spawn_drain(None, Some(LONG));
        assert_eq!(world.order().await, (None, Wish::Drain));
        world.change(written);
        let drain = drain.await.unwrap().unwrap();
        assert!(started.elapsed() >= Evidence::QUIET_TIME);
        assert_eq!(
            (drain.is_late, drain.evidence, drain.change.instances.len()),
            (false, Evidence::QuietTime, 2)
        );
        assert!(!drain.evidence.is_confirmation(), "nobody was asked");
    }

    #[tokio::test]
    async fn the_quiet_time_begins_anew_when_the_connection_was_lost_in_it() {
        let mut world = World::new();
        let drain = world.spawn_drain(None, Some(LONG));
        world.order().await;
        world.change(written);
        tokio::time::sleep(Evidence::QUIET_TIME / 4).await;
        world.change(|own| own.registration = pending());
        tokio::time::sleep(Evidence::QUIET_TIME).await;
        assert!(!drain.is_finished());
        let written_at = clock::now();
        world.change(written);
        assert_eq!(drain.await.unwrap().unwrap().evidence, Evidence::QuietTime);
        assert!(written_at.elapsed() >= Evidence::QUIET_TIME);
    }

    #[tokio::test]
    async fn at_the_deadline_it_is_said_what_is_not_written() {
        let mut world = World::new();
        let drain = world.spawn_drain(None, Some(Duration::from_millis(50)));
        world.order().await;
        let drain = drain.await.unwrap().unwrap();
        assert_eq!((drain.is_late, drain.evidence), (true, Evidence::None));
        assert!(drain.change.instances.iter().all(|own| own.registration == pending()));
        assert!(drain.change.waited >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn of_an_instance_that_is_not_registered_there_is_nothing_to_be_seen() {
        for registration in [RegistrationState::Absent, conflict()] {
            let mut world = World::new();
            let drain = world.spawn_drain(None, Some(LONG));
            world.order().await;
            world.change(|own| own.registration = registration.clone());
            let drain = drain.await.unwrap().unwrap();
            assert_eq!((drain.is_late, drain.evidence), (false, Evidence::None));
            assert!(drain.change.waited < Evidence::QUIET_TIME, "{:?}", drain.change.waited);
            assert!(drain.change.instances.iter().all(|own| own.registration == registration));
        }
    }

    #[tokio::test]
    async fn a_registrar_that_is_busy_does_not_hold_up_the_deadline() {
        let world = World::new();
        let drain = world.spawn_drain(None, Some(Duration::from_millis(50))).await.unwrap().unwrap();
        assert_eq!((drain.is_late, drain.evidence), (true, Evidence::None));
        assert!(drain.change.instances.iter().all(|own| !own.is_written()));
    }

    #[tokio::test]
    async fn a_drain_that_somebody_undoes_is_over() {
        let mut world = World::new();
        let drain = world.spawn_drain(None, Some(LONG));
        world.order().await;
        world.change(|own| own.is_draining = false);
        let drain = drain.await.unwrap().unwrap();
        assert_eq!((drain.is_late, drain.evidence), (false, Evidence::None));
    }

    #[tokio::test]
    async fn only_own_services_are_told_and_a_stopped_registrar_says_so() {
        let mut world = World::new();
        let other = key("other");
        assert_eq!(
            world.spawn_drain(Some(other.clone()), None).await.unwrap(),
            Err(ChangeError::NotOwn(other))
        );
        let drain = world.spawn_drain(Some(key("web")), Some(LONG));
        assert_eq!(world.order().await, (Some(key("web")), Wish::Drain));
        drop(world);
        assert_eq!(drain.await.unwrap(), Err(ChangeError::Stopped));
    }

    /// A registrar whose task is the test.
    struct World {
        registrar: Registrar,
        orders: mpsc::Receiver<Order>,
        published: watch::Sender<Vec<OwnInstance>>,
    }

    impl World {
        fn new() -> Self {
            let (orders, orders_end) = mpsc::channel(1);
            let published = watch::Sender::new(vec![own("web"), own("api")]);
            let registrar = Registrar {
                orders,
                instances: published.subscribe(),
                checks: watch::channel(CheckNames::new()).1,
                board: HealthBoard::default(),
                stats: Arc::new(RegistrarStats::default()),
                asker: BarrierAsker::new(nowhere(), Layout::default()),
            };
            Self { registrar, orders: orders_end, published }
        }

        fn spawn_drain(
            &self,
            service: Option<ServiceKey>,
            wait: Option<Duration>,
        ) -> tokio::task::JoinHandle<Result<Drain, ChangeError>> {
            let registrar = self.registrar.clone();
            tokio::spawn(async move { registrar.start_draining(service, wait).await })
        }

        /// Takes the order, whose instances have something to write then.
        async fn order(&mut self) -> (Option<ServiceKey>, Wish) {
            let Some(Order::Tell { service, wish, done }) = self.orders.recv().await else {
                panic!("no order")
            };
            self.change(|own| (own.is_draining, own.registration) = (true, pending()));
            done.send(Keeping::NoStateDir).unwrap();
            (service, wish)
        }

        fn change(&self, change: impl Fn(&mut OwnInstance)) {
            self.published.send_modify(|all| all.iter_mut().for_each(change));
        }
    }

    /// A client without a server, so that nobody can be asked.
    fn nowhere() -> Client {
        let request_timeout = Duration::from_millis(10);
        Client::start(ClientSettings { servers: Vec::new(), request_timeout, ..ClientSettings::default() })
    }

    fn written(own: &mut OwnInstance) {
        own.registration = RegistrationState::Registered(Status::Draining);
    }

    fn pending() -> RegistrationState {
        RegistrationState::Pending { reason: "no connection to the ensemble".to_owned() }
    }

    fn conflict() -> RegistrationState {
        RegistrationState::Conflict { owner: "you".to_owned(), session: SessionId(9) }
    }

    fn own(service: &str) -> OwnInstance {
        OwnInstance {
            service: key(service),
            id: Label::parse("one").unwrap(),
            health: HealthState::Passing,
            is_degraded: false,
            registration: RegistrationState::Registered(Status::Up),
            is_held: false,
            is_draining: false,
            maintenance: None,
            is_carried_out: true,
        }
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: Label::parse("default").unwrap(), name: Label::parse(name).unwrap() }
    }
}
