//! Keeps our own instances in the tree as they should be: a desired-state loop.
//!
//! ```text
//! checks ──► wanted ─┐
//!                    ├─► plan of each instance ──► batch (both pure) ──► one multi ──► tree
//! tree ──► observed ─┘
//! ```
//!
//! - After every (re)connect, new session and change of health, when the view tells that somebody has deleted or overwritten a record
//!   of ours, and on a slow timer, it reads what is there for all of our instances, side by side, and writes the differences if
//!   there are any.
//! - What several instances have to write at the same time is written in one multi: see `batch`. So they come and go together,
//!   and the ensemble has one txn. Who cannot be written is left out, and holds up nobody.
//! - An instance is registered once its critical checks have risen. When they fall its record says so; the znode stays.
//!   While another check fails its record has the degraded weight.
//! - A znode of our own earlier session is replaced, one of somebody else is not: that is reported and tried again until
//!   it has gone.
//! - While an instance is up it is also written in the formats that its settings name, in the same multi.
//! - An instance that was away comes back below the standbys that serve, once it is known whether any do: see [`super::Failback`].
//! - What an operator tells it ([`Registrar::start_draining`], [`Registrar::start_maintenance`]) is taken in at once, also
//!   between two instances, and goes before what the checks say: see `intent`.
//! - An answer that was lost is no special case: what was written is read the next time.

mod batch;
mod check_tasks;
mod entry;
mod foreign;
mod hold;
mod intent;
mod leave;
mod look;
mod maintenance_keeper;
mod operator;
mod own_news;
mod plan;
mod reconcile;
mod replace;
mod stats;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use self::check_tasks::CheckTasks;
use self::entry::{Entry, entries_of};
use self::hold::grounds_change;
use self::intent::Wish;
pub use self::leave::{DRAINING_MIN, DrainError};
use self::maintenance_keeper::MaintenanceKeeper;
use self::own_news::own_news;
pub use self::plan::{Observed, Plan, Wanted, plan};
use self::replace::tell_of_those_away;
pub use self::stats::RegistrarStats;
use super::barrier::BarrierAsker;
use super::cache::Cache;
use super::change::Keeping;
use super::check::{CheckKind, CheckSlot, HealthBoard};
use super::hold_file::HoldFile;
use super::layout::Layout;
use super::maintenance::MaintenanceFile;
use super::name::{Label, ServiceKey};
pub use super::own::{OwnCheck, OwnInstance, OwnStatus, RegistrationState};
use super::owner::random_id;
use super::registration::Registration;
use super::report::TtlReports;
use super::state_dir::StateFolder;
use crate::client::Client;
use crate::clock;

/// The pause before the first attempt after one that failed; doubled with each, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest pause between attempts, also while somebody else has our id: the end of that session is noticed within it.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// From one repair that the view is the reason of to the next: whoever deletes what we write again and again costs a txn in this time.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);
/// Times that a plan is made anew because the tree changed between reading and writing.
const ROUNDS_MAX: u32 = 5;
/// Orders that wait; each is from somebody who waits for it.
const ORDERS_MAX: usize = 4;

/// How the registrar goes about it.
#[derive(Clone, Debug)]
pub struct RegistrarSettings {
    /// Where the registry is.
    pub layout: Layout,
    /// Who we are: records of this owner are ours, whatever session they live by.
    pub owner: String,
    /// From one look at the tree to the next when nothing else is a reason. Default: 30 s.
    pub repair_interval: Duration,
    /// Where it is kept who is held off or in maintenance, and whether the sidecar left in order. Default: nowhere.
    pub state_dir: Option<StateFolder>,
    /// Where applications report to ttl checks.
    pub ttl_reports: TtlReports,
}

impl RegistrarSettings {
    /// The defaults, for this owner.
    pub fn new(layout: Layout, owner: String) -> Self {
        let (repair_interval, ttl_reports) = (Duration::from_secs(30), TtlReports::default());
        Self { layout, owner, repair_interval, state_dir: None, ttl_reports }
    }
}

/// A handle on the registrar's task; the task ends when all handles are dropped.
#[derive(Clone, Debug)]
pub struct Registrar {
    orders: mpsc::Sender<Order>,
    instances: watch::Receiver<Vec<OwnInstance>>,
    checks: watch::Receiver<CheckNames>,
    board: HealthBoard,
    stats: Arc<RegistrarStats>,
    asker: BarrierAsker,
}

impl Registrar {
    /// A registrar of these instances, and the task to be run for it. `cache` tells it who serves.
    ///
    /// # Errors
    ///
    /// When what the process before left in the state directory cannot be read.
    pub fn new(
        client: Client,
        cache: Arc<Cache>,
        settings: RegistrarSettings,
        registrations: Vec<Registration>,
    ) -> io::Result<(Self, RegistrarTask)> {
        let (orders, orders_end) = mpsc::channel(ORDERS_MAX);
        let asker = BarrierAsker::new(client.clone(), settings.layout.clone());
        let task = RegistrarTask::new(client, cache, settings, registrations, orders_end)?;
        let (instances, checks) = (task.published.subscribe(), task.check_names.subscribe());
        let board = task.checks.board().clone();
        let stats = task.stats.clone();
        Ok((Self { orders, instances, checks, board, stats, asker }, task))
    }

    /// Where each instance stands, now and from now on.
    pub fn instances(&self) -> watch::Receiver<Vec<OwnInstance>> {
        self.instances.clone()
    }

    /// Where each instance stands, with its checks.
    pub fn status(&self) -> Vec<OwnStatus> {
        let instances = self.instances.borrow().clone();
        let (names, standings) = (self.checks.borrow().clone(), self.board.standings());
        let own_check = |check: &CheckName| {
            let CheckName { slot, name, kind, is_critical } = check.clone();
            Some(OwnCheck { name, kind, is_critical, standing: standings.get(&slot)?.clone() })
        };
        let checks = |own: &OwnInstance| names.get(&(own.service.clone(), own.id.clone()));
        let status = |instance: OwnInstance| OwnStatus {
            checks: checks(&instance).into_iter().flatten().filter_map(own_check).collect(),
            instance,
        };
        instances.into_iter().map(status).collect()
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<RegistrarStats> {
        self.stats.clone()
    }

    /// Wants these instances from now on: those that are new are checked and registered, those that are not among them any more
    /// leave, and what is changed about the others is written. Returns before that is done.
    ///
    /// # Errors
    ///
    /// When the registrar has stopped.
    pub async fn replace(&self, registrations: Vec<Registration>) -> Result<(), DrainError> {
        self.ask(|done| Order::Replace { registrations, done }).await
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, DrainError> {
        let (done, answer) = oneshot::channel();
        self.orders.send(order(done)).await.map_err(|_| DrainError::Stopped)?;
        answer.await.map_err(|_| DrainError::Stopped)
    }
}

#[derive(Debug)]
enum Order {
    Leave {
        phase: Phase,
        done: oneshot::Sender<usize>,
    },
    FailBack {
        service: Option<ServiceKey>,
        done: oneshot::Sender<usize>,
    },
    Replace {
        registrations: Vec<Registration>,
        done: oneshot::Sender<()>,
    },
    /// To the instances of one service, or all.
    Tell {
        service: Option<ServiceKey>,
        wish: Wish,
        done: oneshot::Sender<Keeping>,
    },
}

/// What the instances are to come to; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Removed,
}

/// The checks of each instance, in the order of the settings.
type CheckNames = BTreeMap<(ServiceKey, Label), Vec<CheckName>>;

/// What there is to say of a check beside where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CheckName {
    slot: CheckSlot,
    name: Label,
    kind: CheckKind,
    is_critical: bool,
}

/// The registrar's task, with the tasks of all checks.
#[derive(Debug)]
pub struct RegistrarTask {
    client: Client,
    cache: Arc<Cache>,
    settings: RegistrarSettings,
    incarnation: String,
    entries: Vec<Entry>,
    checks: CheckTasks,
    phase: Phase,
    /// When the connection began, if there is one.
    connected_at: Option<Instant>,
    orders: mpsc::Receiver<Order>,
    waiting: Vec<oneshot::Sender<usize>>,
    published: watch::Sender<Vec<OwnInstance>>,
    check_names: watch::Sender<CheckNames>,
    stats: Arc<RegistrarStats>,
    /// Those that are not in the settings, and are held off if they ever are again.
    away: BTreeSet<String>,
    /// What the file says, and how often the state directory had been lost by then.
    saved: Option<(HoldFile, u64)>,
    maintenance: MaintenanceKeeper,
}

impl RegistrarTask {
    fn new(
        client: Client,
        cache: Arc<Cache>,
        settings: RegistrarSettings,
        registrations: Vec<Registration>,
        orders: mpsc::Receiver<Order>,
    ) -> io::Result<Self> {
        let folder = settings.state_dir.as_ref().and_then(StateFolder::path);
        let left = folder.map(HoldFile::load).transpose()?.unwrap_or_default();
        let maintenance = MaintenanceKeeper::load(settings.state_dir.clone());
        let board = HealthBoard::default();
        let entries = entries_of(registrations, &board, &left, maintenance.saved());
        let is_own = |name: &String| entries.iter().any(|entry| entry.registration.name() == *name);
        let away: BTreeSet<_> = left.held.iter().filter(|name| !is_own(name)).cloned().collect();
        for entry in entries.iter().filter(|entry| !entry.failback.is_marked()) {
            tell_of_those_away(&away, &entry.registration);
        }
        let checks = CheckTasks::new(board, settings.ttl_reports.clone());
        let published = watch::Sender::new(entries.iter().map(Entry::publication).collect());
        let check_names = watch::Sender::new(entries.iter().map(Entry::check_names).collect());
        Ok(Self {
            client,
            cache,
            settings,
            incarnation: random_id(),
            entries,
            checks,
            phase: Phase::Serving,
            connected_at: None,
            orders,
            waiting: Vec::new(),
            published,
            check_names,
            stats: Arc::default(),
            away,
            saved: None,
            maintenance,
        })
    }

    /// Runs the checks and the loop until all handles are dropped or the client is closed.
    pub async fn run(mut self) {
        self.keep_registered().await;
        // Waited for, since the process may exit next: programs that checks have started are killed by then.
        self.checks.shutdown().await;
    }

    async fn keep_registered(&mut self) {
        let mut health = self.checks.board().subscribe();
        let mut connection = self.client.state();
        let mut next_repair = clock::now();
        // Apart from the rest, so that an order can come while instances are looked at.
        let (_, nothing) = mpsc::channel(1);
        let mut orders = std::mem::replace(&mut self.orders, nothing);
        for entry in &self.entries {
            self.checks.start(&entry.registration, &entry.checks);
        }
        let mut failures = 0;
        loop {
            // 1. What the checks say, and who serves. A change of the connection from here on wakes the wait below.
            let standings = health.borrow_and_update().clone();
            let session = connection.borrow_and_update().session();
            let now = clock::now();
            self.on_session(session, now);
            self.take_leave(now);
            for entry in &mut self.entries {
                entry.on_standings(&standings, self.phase, now);
            }
            let (held_for, decided) = self.hold_off(now);
            self.note_seen();
            let losses = self.settings.state_dir.as_ref().map_or(0, StateFolder::losses);
            self.save().await;
            self.save_maintenance().await;
            // 2. The tree, when it can be reached.
            let is_settled = match session {
                Some((id, _)) => tokio::select! {
                    biased;
                    order = orders.recv() => match order {
                        Some(order) => {
                            self.on_order(order).await;
                            continue;
                        }
                        None => return,
                    },
                    is_settled = self.reconcile(id) => is_settled,
                    // What was under way belongs to a session or a connection that is gone: look at the next one.
                    () = async { drop(connection.wait_for(|state| state.session() != session).await) } => continue,
                },
                None => self.await_connection(),
            };
            failures = if is_settled { 0 } else { failures + 1 };
            self.publish();
            if is_settled {
                let registered = self.entries.iter().filter(|entry| entry.settled.is_some()).count();
                for done in self.waiting.drain(..) {
                    let _nobody_waits = done.send(registered);
                }
            }
            // 3. The next reason to look.
            let pause = match session {
                Some(_) if !is_settled => retry_pause(failures),
                Some(_) | None => self.settings.repair_interval,
            };
            let decides_in = [held_for, self.leaves_in(clock::now())].into_iter().flatten();
            let pause = decides_in.fold(pause, Duration::min);
            let is_disputed = self.entries.iter().any(|entry| !entry.foreign.conflicts.is_empty());
            let pause = if is_disputed { pause.min(RETRY_MAX) } else { pause };
            let cache = self.cache.clone();
            let written = self.written(session.map(|(id, _)| id));
            let state_dir = self.settings.state_dir.clone();
            tokio::select! {
                changed = health.changed() => if changed.is_err() { return },
                changed = connection.changed() => if changed.is_err() { return },
                () = grounds_change(&cache, &decided) => {}
                () = own_news(&cache, written, next_repair) => next_repair = clock::now() + REPAIR_PAUSE,
                () = loss_of(state_dir.as_ref(), losses) => {}
                order = orders.recv() => match order {
                    Some(order) => self.on_order(order).await,
                    None => return,
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn on_order(&mut self, order: Order) {
        match order {
            Order::Leave { phase, done } => {
                if phase > self.phase {
                    info!(?phase, "taking the instances out");
                    self.phase = phase;
                }
                self.waiting.push(done);
            }
            Order::FailBack { service, done } => {
                let meant = self.meant(service.as_ref());
                let released = meant.map(|entry| usize::from(entry.failback.release())).sum();
                // Written by the next round.
                let _nobody_waits = done.send(released);
            }
            Order::Replace { registrations, done } => {
                self.replace(registrations);
                let _nobody_waits = done.send(());
            }
            Order::Tell { service, wish, done } => {
                let now_ms = clock::unix_ms();
                self.meant(service.as_ref()).for_each(|entry| entry.on_wish(wish.clone(), now_ms));
                let keeping = self.save_maintenance().await;
                // Before anybody is told that it was heard: a drain must not be a fault after a kill.
                self.save().await;
                self.publish();
                // Written by the next round.
                let _nobody_waits = done.send(keeping);
            }
        }
    }

    /// The instances of one service, or all.
    fn meant(&mut self, service: Option<&ServiceKey>) -> impl Iterator<Item = &mut Entry> {
        self.entries
            .iter_mut()
            .filter(move |entry| service.is_none_or(|service| *service == entry.registration.service))
    }

    async fn save_maintenance(&mut self) -> Keeping {
        let in_maintenance =
            |entry: &Entry| Some((entry.registration.name(), entry.told.maintenance.clone()?));
        let instances: BTreeMap<_, _> = self.entries.iter().filter_map(in_maintenance).collect();
        self.maintenance.keep(MaintenanceFile { instances }).await
    }

    /// Keeps for the next process what it must know; without a state directory it will know nothing.
    async fn save(&mut self) {
        let Some(folder) = self.settings.state_dir.clone() else { return };
        // Who has it by now is told of by whoever noticed.
        let Some(path) = folder.path().map(Path::to_owned) else { return };
        let marked = self.entries.iter().filter(|entry| entry.failback.is_marked());
        let held: BTreeSet<_> = marked.map(|entry| entry.registration.name()).collect();
        let held = held.union(&self.away).cloned().collect();
        let drained = self.entries.iter().filter(|entry| entry.told.is_draining);
        let drained = drained.map(|entry| entry.registration.name()).collect();
        // Whoever is told to leave leaves in order, also while nobody can be told of it: what is in the tree by then goes with the
        // session. If that lives on for some seconds, the next process finds its record there, and nobody has taken over.
        let file = HoldFile { is_running: self.phase == Phase::Serving, held, drained };
        let wanted = (file, folder.losses());
        if self.saved.as_ref() == Some(&wanted) {
            return;
        }
        let written = wanted.0.clone();
        let saved = tokio::task::spawn_blocking(move || written.save(&path)).await;
        match saved.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
            Ok(()) => self.saved = Some(wanted),
            Err(error) => warn!(%error, "cannot keep who is held off; tried again with the next change"),
        }
    }

    /// Without a connection nothing can be done; returns whether nothing has to be.
    fn await_connection(&mut self) -> bool {
        let phase = self.phase;
        for entry in self.entries.iter_mut().filter(|entry| entry.has_something_to_write(phase)) {
            entry.state = RegistrationState::Pending { reason: "no connection to the ensemble".to_owned() };
        }
        self.phase > Phase::Serving && self.entries.iter().all(|entry| entry.settled.is_none())
    }

    fn publish(&self) {
        let instances: Vec<_> = self.entries.iter().map(Entry::publication).collect();
        let check_names = self.entries.iter().map(Entry::check_names).collect();
        // First, so that whoever sees an instance finds its checks.
        self.check_names.send_if_modified(|published| {
            let has_changed = *published != check_names;
            *published = check_names;
            has_changed
        });
        self.published.send_if_modified(|published| {
            let has_changed = *published != instances;
            *published = instances;
            has_changed
        });
    }
}

/// Waits until the state directory was lost again after `known` times; for ever where there is none.
async fn loss_of(state_dir: Option<&StateFolder>, known: u64) {
    match state_dir {
        Some(folder) => folder.lost(known).await,
        None => std::future::pending().await,
    }
}

/// The pause after `failures` attempts in a row, between its half and its whole, so that sidecars spread out.
fn retry_pause(failures: u32) -> Duration {
    let bound = RETRY_MIN.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
    bound / 2 + (bound / 2).mul_f64(fastrand::f64())
}
