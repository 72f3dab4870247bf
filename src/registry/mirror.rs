//! Keeps the view current: one persistent recursive watch on the root, one read for each znode that changed.
//!
//! ```text
//! watch notices ──► dirty places ──► reads (pipelined) ──► MirrorState (pure) ──► Cache
//! ```
//!
//! - Events only say where to look; what a read finds is what counts.
//! - A change is read and published at once, those that follow within [`PUBLISH_GAP`] together.
//! - When changes were missed (a reconnect, a new session, a queue that overflowed) the services are walked once and compared, and
//!   the instances of those whose own stat has changed.
//!   Meanwhile, and while there is no connection, lookups go on reading the last view, which is told to be stale.
//! - The view is never cleared; an instance leaves it when a read says that its znode is gone, and the brake believes it.

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::state::{MirrorState, ReadOutcome, Walk, WalkedInstances, WalkedService};
use super::brake::probe::probe;
use super::brake::{Brake, BrakePlan, ProbeOutcome, ProbeTarget};
use super::cache::Cache;
use super::layout::{Layout, Place};
use super::name::{Label, ServiceKey};
use crate::client::{Client, ClientError, ClientState, WatchNotice, Watcher};
use crate::clock;
use crate::znode::{AddWatchMode, EventKind, OpError, WatchedEvent};

/// Publications are at least this far apart: at most 200 a second, each of which may clone the map of services.
const PUBLISH_GAP: Duration = Duration::from_millis(5);
/// Reads that are under way at once: enough to fill a connection, few enough to leave room for the registrar's.
const READS_MAX: usize = 256;
/// The pause after something failed. The client itself waits for a connection, so this is for refusals.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often an idle mirror looks when the server last proved itself.
const PROOF_INTERVAL: Duration = Duration::from_millis(500);

/// How often the brake is looked after while it holds something.
const BRAKE_TICK: Duration = Duration::from_millis(50);
/// How often the marks of lookups fade: what was looked up within the last minute is probed.
const LOOKUPS_AGE_INTERVAL: Duration = Duration::from_secs(15);

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct MirrorStats {
    walks: AtomicU64,
    reads: AtomicU64,
    walk_reads: AtomicU64,
    publications: AtomicU64,
    unreadable: AtomicU64,
    held: AtomicU64,
    brake_engagements: AtomicU64,
    probes: AtomicU64,
}

impl MirrorStats {
    /// Times that everything was read.
    pub fn walks(&self) -> u64 {
        self.walks.load(Ordering::Relaxed)
    }

    /// Znodes read because an event named them.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Instances read by walks: those of services that have changed since they were known.
    pub fn walk_reads(&self) -> u64 {
        self.walk_reads.load(Ordering::Relaxed)
    }

    /// Views published.
    pub fn publications(&self) -> u64 {
        self.publications.load(Ordering::Relaxed)
    }

    /// Reads that found something that could not be understood, or were refused.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Instances whose record is gone and that are still offered, now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Times that so many instances vanished at once that it was not believed.
    pub fn brake_engagements(&self) -> u64 {
        self.brake_engagements.load(Ordering::Relaxed)
    }

    /// Probes of instances that had vanished.
    pub fn probes(&self) -> u64 {
        self.probes.load(Ordering::Relaxed)
    }
}

/// The task that keeps a [`Cache`] current.
#[derive(Debug)]
pub struct Mirror {
    client: Client,
    cache: Arc<Cache>,
    layout: Layout,
    stats: Arc<MirrorStats>,
    state: MirrorState,
    dirty: BTreeSet<Place>,
    /// Whether changes may have been missed.
    must_walk: bool,
    is_connected: bool,
    published_at: Option<Instant>,
    probes: JoinSet<(ProbeTarget, ProbeOutcome)>,
    lookups_aged_at: Instant,
}

impl Mirror {
    /// A mirror of what is below `layout`'s root, which goes on from the view that `cache` has.
    pub fn new(client: Client, cache: Arc<Cache>, layout: Layout, brake: BrakePlan) -> Self {
        let (brake, now) = (Brake::new(brake, fastrand::u64(..)), clock::now());
        let state = MirrorState::new(cache.load_full().as_ref().clone(), brake, now);
        Self {
            client,
            cache,
            layout,
            stats: Arc::default(),
            state,
            dirty: BTreeSet::new(),
            must_walk: true,
            is_connected: false,
            published_at: None,
            probes: JoinSet::new(),
            lookups_aged_at: now,
        }
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<MirrorStats> {
        self.stats.clone()
    }

    /// Runs until `shutdown`, or until the client is closed. The view stays readable afterwards, and is stale.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.follow() => {}
            () = shutdown.cancelled() => {}
        }
        self.cache.set_synced(false);
    }

    async fn follow(&mut self) {
        let Some(mut watcher) = self.watch().await else { return };
        let mut connection = self.client.state();
        self.is_connected = true;
        loop {
            // 1. What was told already.
            while let Some(notice) = watcher.try_recv() {
                self.on_notice(&notice);
            }
            // 2. Reads, of everything or of what changed. Without a connection they wait for one.
            if self.is_connected && (self.must_walk || !self.dirty.is_empty()) {
                let proof = self.client.last_proof();
                let outcome = tokio::select! {
                    biased;
                    outcome = self.read(&mut watcher) => outcome,
                    lost = connection.wait_for(|state| state.session().is_none()) => match lost.as_deref() {
                        Ok(ClientState::Closed) | Err(_) => return,
                        Ok(_) => Ok(Progress::ConnectionLost),
                    },
                };
                match outcome {
                    Ok(Progress::Published) => self.prove(proof),
                    Ok(Progress::ConnectionLost) => {
                        // Reads that were not sent would wait for seconds; the watcher is about to be told, too.
                        self.lose_track();
                        tokio::time::sleep(PUBLISH_GAP).await;
                    }
                    Err(ClientError::Closed) => return,
                    Err(error) => {
                        debug!(%error, "cannot read the registry");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                continue;
            }
            // 3. Nothing to read: what is published is current, but for what time and probes decide.
            self.prove(self.client.last_proof());
            self.look_after_brake();
            let pause = if self.state.brake().is_idle() { PROOF_INTERVAL } else { BRAKE_TICK };
            tokio::select! {
                notice = watcher.recv() => match notice {
                    Some(notice) => self.on_notice(&notice),
                    None => return,
                },
                Some(probed) = self.probes.join_next() => {
                    let (target, outcome) = probed.expect("probes do not panic and nobody aborts them");
                    self.state.on_probe(&target, outcome, clock::now());
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Publishes what is decided by now, and probes whose turn it is.
    fn look_after_brake(&mut self) {
        let now = clock::now();
        if now.saturating_duration_since(self.lookups_aged_at) >= LOOKUPS_AGE_INTERVAL {
            self.lookups_aged_at = now;
            self.state.age_lookups();
        }
        if self.state.brake().is_idle() {
            return;
        }
        for target in self.state.take_probes(now) {
            self.probes.spawn(async move {
                let outcome = probe(&target).await;
                (target, outcome)
            });
        }
        self.publish();
    }

    /// Sets the watch, however long it takes; `None` when the client is closed.
    async fn watch(&self) -> Option<Watcher> {
        let mut is_told = false;
        loop {
            match self.client.watch(self.layout.root(), AddWatchMode::PersistentRecursive).await {
                Ok(watcher) => return Some(watcher),
                Err(ClientError::Closed) => return None,
                Err(error) if is_told => debug!(%error, "cannot watch the registry"),
                Err(error) => warn!(%error, "cannot watch the registry yet, trying again"),
            }
            is_told = true;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn on_notice(&mut self, notice: &WatchNotice) {
        match notice {
            WatchNotice::Event(event, _zxid) => self.on_event(event),
            WatchNotice::Disconnected => {
                info!("disconnected, serving the last view");
                self.lose_track();
                self.is_connected = false;
            }
            WatchNotice::Resync(reason) => {
                info!(?reason, "reading the registry again");
                self.lose_track();
                self.is_connected = true;
            }
        }
    }

    fn on_event(&mut self, event: &WatchedEvent) {
        let Some(place) = self.layout.place(&event.path) else { return };
        if let (Place::Instance(service, _), EventKind::Deleted) = (&place, event.kind) {
            // Its stat tells when.
            self.dirty.insert(Place::Service(service.clone()));
        }
        self.dirty.insert(place);
    }

    fn lose_track(&mut self) {
        self.cache.set_synced(false);
        self.must_walk = true;
        for place in std::mem::take(&mut self.dirty) {
            self.state.on_forgotten(&place);
        }
    }

    async fn read(&mut self, watcher: &mut Watcher) -> Result<Progress, ClientError> {
        if self.must_walk {
            let walk = walk(&self.client, &self.layout, &self.state, &self.stats).await?;
            self.stats.walks.fetch_add(1, Ordering::Relaxed);
            self.state.on_walk(&walk, clock::now());
            self.must_walk = false;
            self.publish();
            return Ok(Progress::Published);
        }
        if let Some(published_at) = self.published_at {
            tokio::time::sleep_until((published_at + PUBLISH_GAP).into()).await;
            while let Some(notice) = watcher.try_recv() {
                self.on_notice(&notice);
            }
        }
        // Changes are published together, and those not read yet stay dirty when a read fails.
        let places: Vec<_> = self.dirty.iter().take(DIRTY_MAX).cloned().collect();
        let layout = self.layout.clone();
        let client = self.client.clone();
        let reads = pipelined(places, move |place| {
            let path = match place {
                Place::Service(service) => layout.service(service),
                Place::Instance(service, id) => layout.instance(service, id),
            };
            read_znode(client.clone(), path)
        })
        .await?;
        self.stats.reads.fetch_add(u64::try_from(reads.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let now = clock::now();
        for (place, outcome) in reads {
            self.dirty.remove(&place);
            self.state.on_read(&place, &outcome, now);
        }
        self.publish();
        Ok(Progress::Published)
    }

    fn publish(&mut self) {
        let changed = self.state.take_changed(clock::now());
        let brake = self.state.brake();
        let counts = [
            (&self.stats.unreadable, self.state.unreadable()),
            (&self.stats.held, u64::try_from(brake.held()).unwrap_or(u64::MAX)),
            (&self.stats.brake_engagements, brake.engagements()),
            (&self.stats.probes, brake.probes()),
        ];
        for (stat, count) in counts {
            stat.store(count, Ordering::Relaxed);
        }
        if let Some(view) = changed {
            debug!(zxid = %view.zxid, services = view.services.len(), "published a view");
            self.cache.publish(view);
            self.published_at = Some(clock::now());
            self.stats.publications.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The view is in step, and a proof counts for it, when nothing that was told before is unread. That is looked at
    /// after every publication, since a busy registry may never leave a moment in which nothing is to be read.
    fn prove(&self, proof: Option<Instant>) {
        let is_current = self.is_connected && !self.must_walk && self.dirty.is_empty();
        if is_current {
            if let Some(proof) = proof {
                self.cache.prove_current(proof);
            }
            self.cache.set_synced(true);
        }
    }
}

/// What became of a round of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Published,
    ConnectionLost,
}

/// Places that are read between two publications; what is beyond waits for the next.
const DIRTY_MAX: usize = 4_096;

/// Reads everything below the root, level by level, each level pipelined; but for the instances of services whose own stat says
/// that they are as `known`.
async fn walk(
    client: &Client,
    layout: &Layout,
    known: &MirrorState,
    stats: &MirrorStats,
) -> Result<Walk, ClientError> {
    let list = |path: String| {
        let client = client.clone();
        async move { children(&client, path).await }
    };
    let mut walk = Walk::default();
    // Without the root's own list nothing is known: its refusal is an error.
    let namespaces = match client.children(layout.root()).await {
        Ok((names, _)) => labels(names),
        Err(error) if error.op_error() == Some(OpError::NoNode) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut services = Vec::new();
    for (namespace, listed) in pipelined(namespaces, |namespace| list(layout.namespace(namespace))).await? {
        match listed {
            Ok(names) => services
                .extend(names.into_iter().map(|name| ServiceKey { namespace: namespace.clone(), name })),
            Err(refusal) => {
                walk.refused.insert(namespace, refusal);
            }
        }
    }
    let mut changed = Vec::new();
    let znodes = pipelined(services, |service| read_znode(client.clone(), layout.service(service))).await?;
    for (service, znode) in znodes {
        let is_unchanged = match &znode {
            ReadOutcome::Missing => continue,
            ReadOutcome::Found { stat, .. } => known.is_unchanged(&service, stat),
            ReadOutcome::Refused(_) => false,
        };
        if !is_unchanged {
            changed.push(service.clone());
        }
        walk.services.insert(service, WalkedService { znode, instances: WalkedInstances::Unchanged });
    }
    let mut instances = Vec::new();
    for (service, listed) in pipelined(changed, |service| list(layout.service(service))).await? {
        let Some(walked) = walk.services.get_mut(&service) else { continue };
        walked.instances = match listed {
            Ok(ids) => {
                instances.extend(ids.into_iter().map(|id| (service.clone(), id)));
                WalkedInstances::Read(BTreeMap::new())
            }
            Err(refusal) => WalkedInstances::Refused(refusal),
        };
    }
    let records = pipelined(instances, |(service, id): &(ServiceKey, Label)| {
        read_znode(client.clone(), layout.instance(service, id))
    })
    .await?;
    stats.walk_reads.fetch_add(u64::try_from(records.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    for ((service, id), record) in records {
        let Some(walked) = walk.services.get_mut(&service) else { continue };
        if let WalkedInstances::Read(instances) = &mut walked.instances
            && record != ReadOutcome::Missing
        {
            instances.insert(id, record);
        }
    }
    Ok(walk)
}

/// The names of a znode's children that are labels, none when it is missing; or the server's refusal, which is not the
/// same as having none.
async fn children(client: &Client, path: String) -> Result<Result<Vec<Label>, OpError>, ClientError> {
    match client.children(path.as_str()).await {
        Ok((names, _)) => Ok(Ok(labels(names))),
        Err(error) => match error.op_error() {
            Some(OpError::NoNode) => Ok(Ok(Vec::new())),
            Some(refusal @ OpError::NoAuth) => Ok(Err(refusal)),
            _ => Err(error),
        },
    }
}

async fn read_znode(client: Client, path: String) -> Result<ReadOutcome, ClientError> {
    match client.get(path).await {
        Ok((data, stat)) => Ok(ReadOutcome::Found { data, stat }),
        Err(error) => match error.op_error() {
            Some(OpError::NoNode) => Ok(ReadOutcome::Missing),
            Some(refusal) => Ok(ReadOutcome::Refused(refusal)),
            None => Err(error),
        },
    }
}

fn labels(names: Vec<String>) -> Vec<Label> {
    let parse = |name: String| Label::parse(&name).map_err(|error| debug!(%error, "skipped a name")).ok();
    names.into_iter().filter_map(parse).collect()
}

/// Reads for all `keys`, up to [`READS_MAX`] at once; the first error ends it.
async fn pipelined<K, T, F>(
    keys: impl IntoIterator<Item = K>,
    read: impl Fn(&K) -> F,
) -> Result<Vec<(K, T)>, ClientError>
where
    K: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    let (mut reads, mut done) = (JoinSet::new(), Vec::new());
    let mut keys = keys.into_iter();
    loop {
        while let Some(key) = (reads.len() < READS_MAX).then(|| keys.next()).flatten() {
            let read = read(&key);
            reads.spawn(async move { (key, read.await) });
        }
        let Some(joined) = reads.join_next().await else { return Ok(done) };
        let (key, outcome) = joined.expect("reads do not panic and nobody aborts them");
        done.push((key, outcome?));
    }
}
