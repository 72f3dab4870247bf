//! A sidecar without DNS, HTTP and checks: its session, its view, its registration, and its word to members when another leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::super::failure::Failure;
use super::super::registration::{label, registration};
use super::counts::Counts;
use crate::client::{Client, ClientSettings};
use crate::clock;
use crate::id::SessionId;
use crate::registry::mirror::MirrorStats;
use crate::registry::registrar::RegistrationState;
use crate::registry::{
    BrakePlan, Cache, Label, Layout, Mirror, Registrar, RegistrarSettings, Registration, ServiceKey, Source,
    Status, Subscription, View, random_id,
};
use crate::znode::SubscriberName;

/// What all sidecars of a swarm have in common.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) client: ClientSettings,
    pub(super) layout: Layout,
    pub(super) services: u32,
}

/// Every instance that there is to be, and the session that it lives by.
pub(super) type Expected = BTreeMap<ServiceKey, BTreeMap<Label, SessionId>>;

/// A running one.
#[derive(Debug)]
pub(super) struct LightSidecar {
    registration: (ServiceKey, Label),
    client: Client,
    cache: Arc<Cache>,
    mirror: Arc<MirrorStats>,
    registrar: Registrar,
    /// Ends the mirror, and the subscription.
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

/// How long registering may take: an election may be going on, and many others register too.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long leaving may take; the draining itself takes a second of it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what is left of a sidecar may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

impl Site {
    /// The service that a sidecar's instance belongs to.
    pub(super) fn service(&self, number: u32) -> ServiceKey {
        let name = label(&format!("service-{}", number % self.services));
        ServiceKey { namespace: label(ServiceKey::NAMESPACE_DEFAULT), name }
    }

    /// One instance of it.
    pub(super) fn registration(&self, number: u32, id: &str) -> Registration {
        registration(self.service(number), id, number)
    }
}

impl LightSidecar {
    /// Starts one, which connects and registers by itself.
    pub(super) fn start(site: &Site, number: u32) -> Self {
        let registration = site.registration(number, &format!("instance-{number}"));
        let name = (registration.service.clone(), registration.id.clone());
        let client = Client::start(site.client.clone());
        let cache = Arc::new(Cache::new(clock::now()));
        let owner = random_id();
        let subscriber = SubscriberName::parse(&owner).expect("an id is letters and digits");
        let subscription = Subscription::new(client.clone(), subscriber);
        let source = Source::all(site.layout.clone());
        let mirror = Mirror::new(client.clone(), &cache, source, BrakePlan::default());
        let mirror = mirror.with_subscription(&subscription);
        let mirror_stats = mirror.stats();
        let settings = RegistrarSettings::new(site.layout.clone(), owner);
        let (registrar, task) = Registrar::new(client.clone(), cache.clone(), settings, vec![registration])
            .expect("without a state directory there is nothing to read");
        let (shutdown, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(mirror.run(shutdown.clone()));
        tasks.spawn(subscription.run(shutdown.clone()));
        tasks.spawn(task.run());
        Self { registration: name, client, cache, mirror: mirror_stats, registrar, shutdown, tasks }
    }

    /// Waits until its instance is in the tree.
    ///
    /// # Errors
    ///
    /// When that takes too long.
    pub(super) async fn registered(&self) -> Result<(), Failure> {
        let mut instances = self.registrar.instances();
        let is_up = RegistrationState::Registered(Status::Up);
        let registered = instances.wait_for(|own| own.iter().all(|own| own.registration == is_up));
        // Its task ends with its client, which nobody closes here.
        if let Ok(Ok(_)) = timeout(REGISTER_TIMEOUT, registered).await {
            return Ok(());
        }
        let (service, id) = &self.registration;
        let states: Vec<_> =
            self.registrar.instances().borrow().iter().map(|own| format!("{:?}", own.registration)).collect();
        Err(Failure::failed(format!(
            "{id} of {service} was not registered within {REGISTER_TIMEOUT:?} ({}; {:?}); {}",
            states.join(", "),
            *self.client.state().borrow(),
            LIMITS_REMEDY
        )))
    }

    /// Its instance, and the session that it lives by, once there is one.
    pub(super) async fn instance(&self) -> (ServiceKey, Label, SessionId) {
        let session = self.client.connected().await.unwrap_or(SessionId::NONE);
        let (service, id) = &self.registration;
        (service.clone(), id.clone(), session)
    }

    /// Where its view is published.
    pub(super) const fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Waits until its view shows exactly what is expected.
    pub(super) async fn shows(&self, expected: &Expected) {
        let mut published = self.cache.subscribe();
        while !is_as_expected(&self.cache.load(), expected) {
            if published.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts::of_sidecar(self.client.stats(), &self.mirror, &self.registrar.stats())
    }

    /// Leaves in order; returns what it counted, and whether it was done in time.
    pub(super) async fn leave(self) -> (Counts, bool) {
        let is_drained = self.registrar.drain(DRAIN_TIMEOUT).await.is_ok();
        (self.end().await, is_drained)
    }

    /// Tells the view to follow no more.
    pub(super) fn stop_following(&self) {
        self.shutdown.cancel();
    }

    /// Closes the session, and with it the registration; returns what it counted.
    pub(super) async fn end(mut self) -> Counts {
        self.stop_following();
        // A session that cannot be closed expires.
        let _expires = self.client.clone().close().await;
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _aborted = timeout(STOP_TIMEOUT, all).await;
        Counts::of_sidecar(self.client.stats(), &self.mirror, &self.registrar.stats())
    }
}

fn is_as_expected(view: &View, expected: &Expected) -> bool {
    expected.iter().all(|(service, instances)| {
        view.services.get(service).is_some_and(|service| {
            // Both are in the order of the ids.
            let shown =
                service.instances.iter().map(|shown| (&shown.id, &shown.session, shown.record.is_up()));
            shown.eq(instances.iter().map(|(id, session)| (id, session, true)))
        })
    })
}

/// What to try when servers do not take as many sessions.
pub(super) const LIMITS_REMEDY: &str = "look at the servers' logs, and at what they allow: maxClientCnxns of Apache ZooKeeper (60 from one address by \
     default, 0 for any), client.connections_max of ours, and open files";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Zxid;
    use crate::registry::{Instance, Service};

    #[test]
    fn instances_have_addresses_of_their_own_that_no_other_machine_has() {
        let site = Site { client: ClientSettings::default(), layout: Layout::default(), services: 3 };
        let of = |number| site.registration(number, &format!("instance-{number}"));
        assert_eq!(of(1).addresses[0].to_string(), "127.0.0.1");
        assert_eq!(of(70_000).addresses[0].to_string(), "127.1.17.112");
        assert_eq!(of(4).service, of(1).service);
        assert_ne!(of(4).id, of(1).id);
    }

    #[test]
    fn a_view_is_as_expected_when_it_has_these_instances_up_and_no_others() {
        let site = Site { client: ClientSettings::default(), layout: Layout::default(), services: 1 };
        let view = |instances: &[(u32, i64, Status)]| {
            let mut service = Service::new(site.service(0));
            for (number, session, status) in instances {
                let registration = site.registration(*number, &format!("instance-{number}"));
                let record = registration.record(*status, "me", "now", 1);
                let instance = Instance::new(registration.id, record, Zxid::ZERO, SessionId(*session));
                service.instances.put(Arc::new(instance));
            }
            View { services: [Arc::new(service)].into(), ..View::default() }
        };
        let ids = [(label("instance-1"), SessionId(7)), (label("instance-2"), SessionId(8))];
        let expected = Expected::from([(site.service(0), ids.into())]);
        let (one, two) = ((1, 7, Status::Up), (2, 8, Status::Up));
        assert!(is_as_expected(&view(&[one, two]), &expected));
        for other in [
            &[][..],
            &[one],
            &[one, (2, 9, Status::Up)],
            &[one, (2, 8, Status::Draining)],
            &[one, two, (3, 9, Status::Up)],
        ] {
            assert!(!is_as_expected(&view(other), &expected), "{other:?}");
        }
        assert!(!is_as_expected(&View::default(), &expected));
    }
}
