//! A view that changes while DNS is measured: one instance of a service, rewritten so many times a second.
//!
//! The writer has a session and a thread of its own. Its instance says `draining` all the time, so that answers stay what they are,
//! while every change makes those that were kept encoded for the service worthless.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::super::super::failure::Failure;
use super::super::own_thread::OwnThread;
use super::super::registration::registration;
use crate::client::{Client, ClientError, ClientSettings};
use crate::clock;
use crate::registry::{Layout, Record, Registration, ServiceKey, Status, random_id};
use crate::znode::CreateMode;

/// What is to change.
#[derive(Clone, Debug)]
pub(super) struct ChangesPlan {
    /// The ensemble of the sidecar that is measured.
    pub(super) ensemble: Vec<String>,
    pub(super) service: ServiceKey,
    /// Changes a second.
    pub(super) rate: u32,
}

/// A writer at work, until it is ended.
#[derive(Debug)]
pub(super) struct Changes {
    thread: OwnThread,
    client: Client,
    committed: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Writer {
    client: Client,
    path: String,
    registration: Registration,
    owner: String,
    committed: Arc<AtomicU64>,
}

impl Changes {
    /// Registers the instance, and begins to rewrite it.
    ///
    /// # Errors
    ///
    /// When the ensemble cannot be reached or refuses, or there is no thread for the writer.
    pub(super) async fn start(plan: &ChangesPlan) -> Result<Self, Failure> {
        let thread = OwnThread::start("changes")
            .map_err(|error| Failure::failed(format!("cannot start the writer's thread: {error}")))?;
        let client = thread.client(ClientSettings::for_servers(plan.ensemble.iter().cloned()));
        let committed = Arc::<AtomicU64>::default();
        let changes = Self { thread, client: client.clone(), committed: committed.clone() };
        let id = format!("bench-{:016x}", fastrand::u64(..));
        let (registration, layout) = (registration(plan.service.clone(), &id, 0), Layout::default());
        let path = layout.instance(&plan.service, &registration.id);
        let writer = Writer { client, path, registration, owner: random_id(), committed };
        let begun = writer.register(&layout.service(&plan.service)).await;
        begun.map_err(|error| {
            let servers = plan.ensemble.join(",");
            Failure::failed(format!(
                "cannot change {} at {servers}: {error}; give --ensemble where the sidecar's ensemble takes clients",
                plan.service
            ))
        })?;
        let pause = Duration::from_secs(1) / plan.rate;
        changes.thread.spawn(Arc::new(writer).run(pause));
        Ok(changes)
    }

    /// Changes that were committed so far.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Ends the session, and with it the instance.
    pub(super) async fn end(self) {
        // A session that cannot be closed expires.
        let _expires = self.client.close().await;
    }
}

impl Writer {
    async fn register(&self, service: &str) -> Result<(), ClientError> {
        self.client.connected().await?;
        self.client.create_all(service).await?;
        self.client.create(self.path.as_str(), self.record(1), CreateMode::Ephemeral).await.map(drop)
    }

    async fn run(self: Arc<Self>, pause: Duration) {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let mut ticks = interval(pause);
        // Late changes are made up for, so that the rate is kept.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for weight in (1..=WEIGHT_MAX).cycle() {
            let _due: tokio::time::Instant = ticks.tick().await;
            let permit = under_way.clone().acquire_owned().await.expect("it is never closed");
            let writer = self.clone();
            tokio::spawn(async move {
                let written = writer.client.set(writer.path.as_str(), writer.record(weight), None).await;
                writer.committed.fetch_add(u64::from(written.is_ok()), Ordering::Relaxed);
                drop(permit);
            });
        }
    }

    fn record(&self, weight: u16) -> Vec<u8> {
        let record = self.registration.record(Status::Draining, &self.owner, &self.owner, clock::unix_ms());
        Record { weight, ..record }.encode().expect("a record of one address fits")
    }
}

/// Changes that are written at a time: while there are as many, none is begun.
const UNDER_WAY_MAX: usize = 256;
/// Weights that the instance goes through before it begins again.
const WEIGHT_MAX: u16 = 60_000;
