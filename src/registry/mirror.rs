//! Keeps the view current: one persistent recursive watch on the root, one read for each znode that changed and did not come along. Where only what is looked
//! up is followed, [`on_demand`] has it otherwise.
//!
//! ```text
//! watch notices ──► dirty places ──► reads (pipelined) ──► MirrorState (pure) ──► Cache
//! ```
//!
//! - Events only say where to look; what a read finds is what counts. Members of ours send what there is to find along, which then is
//!   not read, unless something else of the place is to be read already, or is newer ([`Mirror::is_next`]).
//! - A change is read and published at once, those that follow within [`PUBLISH_GAP`] together.
//! - When changes were missed (a reconnect, a new session, a queue that overflowed) the services are walked once and compared, and
//!   the instances of those whose own stat has changed; after an overflow the instances of all, since what was read may be newer than what was
//!   told and is lost.
//!   Meanwhile, and while there is no connection, lookups go on reading the last view, which is told to be stale.
//! - Every few minutes, everything is compared without need, and the instances of a slice of the services with it. Whatever differs
//!   without having been told is mended, and counted: it is a defect of ours, or of the server's.
//! - The view is never cleared; an instance leaves it when a read says that its znode is gone, and the brake believes it.
//! - What time, probes and settings decide about it, they decide with an ensemble and without: see [`upkeep`].

mod audit;
mod following;
mod on_demand;
mod source;
mod state;
mod stats;
mod subscriber;
mod upkeep;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::audit::{differences, gone, unknown};
use self::on_demand::{OnDemand, stirred};
pub use self::source::{Adopted, Source, service_name};
pub use self::state::{MirrorState, ReadOutcome, Walk, WalkedInstances, WalkedService};
pub use self::stats::MirrorStats;
use self::subscriber::Subscriber;
pub use self::subscriber::Subscription;
use self::upkeep::Upkeep;
use self::walk::{Scope, list_services, pipelined, read_znode, walk_instances, walk_services};
use super::brake::Brake;
use super::cache::{Cache, CachePart};
use super::layout::Place;
use super::name::ServiceKey;
use super::view::View;
use super::view_settings::LiveViewSettings;
use crate::client::{Client, ClientError, ClientState, ResyncReason, WatchNotice, Watcher};
use crate::clock;
use crate::id::Zxid;
use crate::znode::{AddWatchMode, CarriedZnode, EventKind, WatchedEvent};

/// Publications are at least this far apart: at most 200 a second, each of which may clone the map of services.
const PUBLISH_GAP: Duration = Duration::from_millis(5);
/// Services of a walk whose instances are read before the next are: what was read is held until then.
const WALK_CHUNK: usize = 64;
/// The pause after something failed. The client itself waits for a connection, so this is for refusals.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// From one thorough walk to the next, on average; a fifth more or less by chance, so that sidecars spread out. A service takes a read
/// each time, and everything is read once an hour.
const THOROUGH_INTERVAL: Duration = Duration::from_secs(300);

/// The task that keeps a [`Cache`] current.
#[derive(Debug)]
pub struct Mirror {
    client: Client,
    cache: CachePart,
    source: Source,
    upkeep: Upkeep,
    stats: Arc<MirrorStats>,
    /// What of `stats` is ours.
    told: [u64; 4],
    state: MirrorState,
    /// What is to be read.
    dirty: BTreeMap<Place, Dirty>,
    /// Whether changes may have been missed.
    must_walk: bool,
    /// Times that zxids had begun anew at the last walk.
    beginnings: u64,
    thorough_interval: Duration,
    /// When to compare everything without need.
    thorough_at: Instant,
    /// Thorough walks so far: which slice is next.
    thorough_walks: u64,
    is_connected: bool,
    /// Whether reads are under way: what they find may be newer than what is told meanwhile.
    is_reading: bool,
    /// The newest txn of which something was taken in that came with its event, and the services of that: others of its events may be
    /// under way.
    latest: (Zxid, BTreeSet<ServiceKey>),
    /// Whether something was taken in that came with its event, and is not published.
    has_news: bool,
    published_at: Option<Instant>,
    subscriber: Subscriber,
    /// Where only what is looked up is followed.
    on_demand: Option<OnDemand>,
}

impl Mirror {
    /// A mirror of what `source` shows, which goes on from what `cache` has of it.
    pub fn new(
        client: Client,
        cache: &Arc<Cache>,
        source: Source,
        settings: impl Into<LiveViewSettings>,
    ) -> Self {
        let settings = settings.into();
        let (brake, now) = (Brake::new(settings.get().brake, fastrand::u64(..)), clock::now());
        let known = source.part_of(&cache.load());
        let cache = cache.part(known.clone());
        let layout = source.layout().cloned().unwrap_or_default();
        let state = MirrorState::new(known, brake, now).with_layout(layout);
        Self {
            subscriber: Subscriber::of_nobody(),
            client,
            cache,
            source,
            upkeep: Upkeep::new(settings, now),
            stats: Arc::default(),
            told: [0; 4],
            state,
            dirty: BTreeMap::new(),
            must_walk: true,
            beginnings: 0,
            thorough_interval: THOROUGH_INTERVAL,
            thorough_at: now + jittered(THOROUGH_INTERVAL),
            thorough_walks: 0,
            is_connected: false,
            is_reading: false,
            latest: (Zxid::ZERO, BTreeSet::new()),
            has_news: false,
            published_at: None,
            on_demand: None,
        }
    }

    /// The same mirror, which compares everything without need about that often. Default: 5 min.
    #[must_use]
    pub fn with_thorough_interval(self, interval: Duration) -> Self {
        let thorough_at = clock::now() + jittered(interval);
        Self { thorough_interval: interval, thorough_at, ..self }
    }

    /// The same mirror, which adds what it counts to what others count.
    #[must_use]
    pub fn with_stats(self, stats: Arc<MirrorStats>) -> Self {
        Self { stats, ..self }
    }

    /// The same mirror, which says with the others of its session how far they are when a member asks.
    #[must_use]
    pub fn with_subscription(self, session: &Subscription) -> Self {
        Self { subscriber: session.subscriber(), ..self }
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
        let Some(mut watcher) = self.begin_to_watch().await else { return };
        let mut connection = self.client.state();
        self.is_connected = true;
        if self.on_demand.is_none() {
            self.subscriber.subscribe();
        }
        loop {
            // 1. What was told already; what was asked first, since it is about what was told before.
            self.subscriber.hear();
            self.hear_out(&mut watcher);
            self.hear_demand();
            // 2. Reads, of everything or of what changed. Without a connection they wait for one.
            let is_due = clock::now() >= self.thorough_at;
            if self.is_connected && (self.has_work() || is_due) {
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
                self.settle(&mut watcher);
                // There may always be something to read, or that cannot be.
                self.catch_up();
                continue;
            }
            // 3. Nothing to read: what is published is current, but for what time and probes decide.
            self.prove(self.client.last_proof());
            let pause = self.look_after_brake();
            tokio::select! {
                notice = watcher.recv() => match notice {
                    Some(notice) => self.on_notice(notice),
                    None => return,
                },
                () = self.subscriber.stirred() => {}
                () = stirred(self.on_demand.as_ref()) => {}
                occurrence = self.upkeep.next(pause) => self.on_occurrence(occurrence),
            }
        }
    }

    /// Sets the watch, however long it takes, and keeps the view meanwhile as it has to be without an ensemble; `None` when the client is
    /// closed.
    async fn begin_to_watch(&mut self) -> Option<Watcher> {
        let mode = match self.on_demand {
            Some(_) => AddWatchMode::Persistent,
            None => AddWatchMode::PersistentRecursive,
        };
        let mut watcher = pin!(watch(self.client.clone(), self.source.root(), mode));
        loop {
            let pause = self.look_after_brake();
            tokio::select! {
                watcher = watcher.as_mut() => return watcher,
                occurrence = self.upkeep.next(pause) => self.on_occurrence(occurrence),
            }
        }
    }

    /// Takes what was told already.
    fn hear_out(&mut self, watcher: &mut Watcher) {
        while let Some(notice) = watcher.try_recv() {
            self.on_notice(notice);
        }
    }

    fn on_notice(&mut self, notice: WatchNotice) {
        match notice {
            WatchNotice::Event { event, zxid, carried } => self.on_event(&event, zxid, carried),
            WatchNotice::Disconnected => {
                info!("disconnected, serving the last view");
                self.lose_track();
                self.is_connected = false;
            }
            WatchNotice::Resync(reason) => {
                info!(?reason, "reading the registry again");
                self.lose_track();
                match reason {
                    ResyncReason::Overflow => self.state.on_notices_lost(),
                    ResyncReason::Reconnected | ResyncReason::NewSession => {}
                }
                self.is_connected = true;
            }
        }
    }

    fn on_event(&mut self, event: &WatchedEvent, zxid: Zxid, carried: Option<CarriedZnode>) {
        let Some(place) = self.source.place(&event.path) else { return self.on_name_event(event) };
        if !self.is_watched(&place) {
            return;
        }
        if let Some(carried) = carried
            && self.is_next(&place, zxid)
        {
            return self.take_in(&place, event, zxid, carried);
        }
        let deleted = Some(zxid).filter(|zxid| event.kind == EventKind::Deleted && *zxid != Zxid::NONE);
        let known = self.dirty.entry(place).or_insert_with(|| Dirty { path: event.path.clone(), deleted });
        known.deleted = known.deleted.max(deleted);
    }

    /// Reads are over. What was told before their replies may be older than what they found, and is to be read again.
    fn settle(&mut self, watcher: &mut Watcher) {
        if self.is_reading {
            self.hear_out(watcher);
            self.is_reading = false;
        }
    }

    /// Whether what an event carries of this place follows on what is known of it: it is not to be read, and nothing was read that may have
    /// found more than was told by then.
    fn is_next(&self, place: &Place, zxid: Zxid) -> bool {
        !self.must_walk
            && !self.is_reading
            && !self.dirty.contains_key(place)
            && self.state.is_next(place, zxid)
    }

    /// Takes a znode in that came with the event that named it, as if it had been read.
    fn take_in(&mut self, place: &Place, event: &WatchedEvent, zxid: Zxid, carried: CarriedZnode) {
        let outcome = match carried {
            CarriedZnode::There { data, stat } => ReadOutcome::Found { data, stat },
            CarriedZnode::Gone => ReadOutcome::Missing,
        };
        let outcome = self.source.translate(place, &event.path, outcome);
        self.state.on_read(place, &outcome, clock::now());
        if let (Place::Instance(service, _), ReadOutcome::Missing) = (place, &outcome) {
            self.state.on_list_changed(service, zxid);
        }
        if self.latest.0 != zxid {
            self.latest = (zxid, BTreeSet::new());
        }
        let (Place::Service(service) | Place::Instance(service, _)) = place;
        if !self.latest.1.contains(service) {
            self.latest.1.insert(service.clone());
        }
        self.stats.carried.fetch_add(1, Ordering::Relaxed);
        self.has_news = true;
    }

    fn lose_track(&mut self) {
        if self.has_news {
            // Nothing is read for as long as it takes.
            self.publish();
        }
        self.cache.set_synced(false);
        self.must_walk = true;
        self.subscriber.forget();
        for place in std::mem::take(&mut self.dirty).keys() {
            self.state.on_forgotten(place);
        }
        for service in std::mem::take(&mut self.latest.1) {
            self.state.on_forgotten(&Place::Service(service));
        }
    }

    async fn read(&mut self, watcher: &mut Watcher) -> Result<Progress, ClientError> {
        if self.must_walk || !self.has_work() {
            self.is_reading = true;
            self.walk(watcher).await?;
            return Ok(Progress::Published);
        }
        if self.has_demand() {
            self.is_reading = true;
            self.meet_demand(watcher).await?;
            self.settle(watcher);
            if !self.has_work() {
                return Ok(Progress::Published);
            }
        }
        if let Some(published_at) = self.published_at {
            tokio::time::sleep_until((published_at + PUBLISH_GAP).into()).await;
            self.hear_out(watcher);
        }
        // Changes are published together, and those not read yet stay dirty when a read fails.
        let told = self.dirty.iter().take(DIRTY_MAX);
        let told: Vec<_> = told.map(|(place, dirty)| (place.clone(), dirty.path.clone())).collect();
        let lists = if told.is_empty() { Vec::new() } else { self.read_places(told).await? };
        if !lists.is_empty() {
            self.read_places(lists).await?;
        }
        self.publish();
        Ok(Progress::Published)
    }

    /// Reads places that are dirty. Where one was deleted and the event did not say when, the service's own stat does: these are dirty
    /// now, and returned. (Most that are deleted are created again in the same multi, and tell by themselves.)
    async fn read_places(
        &mut self,
        places: Vec<(Place, String)>,
    ) -> Result<Vec<(Place, String)>, ClientError> {
        self.is_reading = true;
        let client = &self.client;
        let reads = pipelined(places, |(_, path)| read_znode(client.clone(), path.clone())).await?;
        self.stats.reads.fetch_add(u64::try_from(reads.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let (now, mut lists) = (clock::now(), BTreeMap::new());
        for ((place, path), outcome) in reads {
            let outcome = self.source.translate(&place, &path, outcome);
            let deleted = self.dirty.remove(&place).and_then(|dirty| dirty.deleted);
            self.state.on_read(&place, &outcome, now);
            let (Place::Instance(service, _), ReadOutcome::Missing) = (place, outcome) else { continue };
            match (deleted, path.rsplit_once('/')) {
                (Some(zxid), _) => self.state.on_list_changed(&service, zxid),
                (None, Some((list, _))) => drop(lists.insert(Place::Service(service), list.to_owned())),
                (None, None) => {}
            }
        }
        for (place, path) in &lists {
            self.dirty.entry(place.clone()).or_insert_with(|| Dirty { path: path.clone(), deleted: None });
        }
        Ok(lists.into_iter().collect())
    }

    /// Compares everything, because changes were missed, or to see that none was.
    async fn walk(&mut self, watcher: &mut Watcher) -> Result<(), ClientError> {
        let beginnings = self.client.stats().beginnings();
        let scope = if !self.must_walk {
            Scope::Slice(self.thorough_walks)
        } else if beginnings != self.beginnings {
            Scope::All
        } else {
            Scope::Changed
        };
        let listed = match self.on_demand {
            Some(_) => self.list_followed(watcher).await?,
            None => list_services(&self.client, &self.source).await?,
        };
        let (mut walk, changed) =
            walk_services(&self.client, &self.source, listed, &self.state, scope).await?;
        for services in changed.chunks(WALK_CHUNK) {
            let walked = walk_instances(&self.client, &self.source, &walk, services.to_vec()).await?;
            self.audit(scope, watcher, |view| differences(view, &walked));
            let now = clock::now();
            for (service, walked) in &walked {
                self.stats.walk_reads.fetch_add(walked.reads(), Ordering::Relaxed);
                self.state.on_walked(service, walked, now);
            }
            for (service, _) in services {
                if let Some(walked) = walk.services.get_mut(service) {
                    walked.instances = WalkedInstances::Taken;
                }
            }
        }
        self.stats.walks.fetch_add(1, Ordering::Relaxed);
        self.audit(scope, watcher, |view| {
            [gone(view, &walk), unknown(view, &walk), differences(view, &walk.services)].concat()
        });
        self.state.on_walk(&walk, clock::now());
        self.settle_demand(walk.services.keys());
        if self.on_demand.is_some() {
            // What was followed before a restart is watched only now, and a member that is not told of us knows us as away.
            self.subscriber.subscribe();
        }
        self.beginnings = beginnings;
        if scope.is_because_of_a_loss() {
            self.must_walk = false;
        } else {
            self.thorough_walks += 1;
            self.thorough_at = clock::now() + jittered(self.thorough_interval);
        }
        self.publish();
        Ok(())
    }

    /// Counts what a walk without need found and nothing had told.
    fn audit(&mut self, scope: Scope, watcher: &mut Watcher, found: impl FnOnce(&View) -> Vec<Place>) {
        if scope.is_because_of_a_loss() {
            return;
        }
        // An event comes before any reply that shows its change.
        self.hear_out(watcher);
        if self.must_walk {
            // Something was missed, so that a difference says nothing; the next walk is on its way.
            return;
        }
        for place in found(self.state.view()) {
            if !self.dirty.contains_key(&place) && !self.is_told_by_name(&place) {
                warn!(?place, "the view differed from the registry without having been told");
                self.stats.defects.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether there is something to read, or to publish.
    fn has_work(&self) -> bool {
        self.must_walk || self.has_news || !self.dirty.is_empty() || self.has_demand()
    }

    fn publish(&mut self) {
        self.has_news = false;
        let changed = self.state.take_changed(clock::now());
        let brake = self.state.brake();
        let held = u64::try_from(brake.held()).unwrap_or(u64::MAX);
        self.tell([self.state.unreadable(), held, brake.engagements(), brake.probes()]);
        if let Some(view) = changed {
            debug!(zxid = %view.zxid, services = view.services.len(), "published a view");
            self.cache.publish(view);
            self.published_at = Some(clock::now());
            self.stats.publications.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells what is counted elsewhere. Several mirrors may tell one, so that each adds what is new; what is held may be fewer, too.
    fn tell(&mut self, counts: [u64; 4]) {
        let MirrorStats { unreadable, held, brake_engagements, probes, .. } = &*self.stats;
        let told = std::mem::replace(&mut self.told, counts);
        for ((stat, count), told) in
            [unreadable, held, brake_engagements, probes].into_iter().zip(counts).zip(told)
        {
            stat.fetch_add(count.wrapping_sub(told), Ordering::Relaxed);
        }
    }

    /// The view is in step, and a proof counts for it, when nothing that was told before is unread. That is looked at
    /// after every publication, since a busy registry may never leave a moment in which nothing is to be read.
    fn prove(&mut self, proof: Option<Instant>) {
        let is_current = self.is_connected
            && !self.must_walk
            && !self.has_news
            && self.dirty.is_empty()
            && !self.has_untold_names();
        if is_current {
            if let Some(proof) = proof {
                self.cache.prove_current(proof);
            }
            self.cache.set_synced(true);
            self.subscriber.confirm();
        }
    }
}

/// Sets a watch, however long it takes; `None` when the client is closed.
async fn watch(client: Client, path: String, mode: AddWatchMode) -> Option<Watcher> {
    let mut is_told = false;
    loop {
        match client.watch(&path, mode).await {
            Ok(watcher) => return Some(watcher),
            Err(ClientError::Closed) => return None,
            Err(error) if is_told => debug!(%error, "cannot watch the registry"),
            Err(error) => warn!(%error, "cannot watch the registry yet, trying again"),
        }
        is_told = true;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// A place that something was told of and that was not read since.
#[derive(Clone, Debug)]
struct Dirty {
    path: String,
    /// When it was deleted last, if that was told.
    deleted: Option<Zxid>,
}

/// What became of a round of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Published,
    ConnectionLost,
}

/// Places that are read between two publications; what is beyond waits for the next.
const DIRTY_MAX: usize = 4_096;

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * fastrand::f64())
}
