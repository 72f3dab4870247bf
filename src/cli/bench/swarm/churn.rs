//! Records that change at a rate, and how long each change takes to be visible in each view.
//!
//! The writer has a session and a thread of its own: the time at which it reads that a change is committed must not depend on
//! how busy the views are. Its instances, one in each service, say `draining` all the time: nobody would choose them, and views
//! believe at once that they are gone when the session ends.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::super::super::failure::Failure;
use super::super::latencies::Latencies;
use super::super::own_thread::OwnThread;
use super::board::{Board, Change};
use super::light_sidecar::Site;
use crate::client::{Client, ClientError, ClientStats};
use crate::clock;
use crate::registry::registrar::{Observed, Plan, Wanted, plan};
use crate::registry::{Record, RecordError, Registration, Status, random_id};
use crate::znode::OpError;

/// How long after its commit a change is waited for in all views.
const SHOW_TIMEOUT: Duration = Duration::from_secs(30);
/// Weights that an instance goes through before it begins again.
const WEIGHT_MAX: u16 = 60_000;

/// What came of the changes.
#[derive(Debug)]
pub(super) struct Visibility {
    /// Changes that were committed.
    pub(super) changes: u64,
    /// From a change's commit until it is visible in one view: for each change and view.
    pub(super) in_each_view: Latencies,
    /// From a change's commit until it is visible in all views: for each change that was.
    pub(super) in_all_views: Latencies,
    /// Changes, times views, that were not seen in time.
    pub(super) unseen: u64,
    /// Changes that failed.
    pub(super) errors: u64,
    /// Why the first of them did.
    pub(super) first_error: Option<String>,
}

/// The writer and its thread.
#[derive(Debug)]
pub(super) struct Churn {
    thread: OwnThread,
    writer: Arc<Writer>,
}

#[derive(Debug)]
struct Writer {
    client: Client,
    site: Site,
    owner: String,
    board: Arc<Board>,
    instances: Vec<Registration>,
    /// Changes that are over, for the progress line.
    done: AtomicU64,
}

/// What became of one change.
enum Outcome {
    Committed { change: Arc<Change>, at: Instant },
    Failed(String),
}

/// Why a change could not be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the znode is not the writer's")]
    NotOurs,
}

impl Churn {
    /// Starts the writer, whose first instance number nobody else uses.
    ///
    /// # Errors
    ///
    /// When there is no thread for it.
    pub(super) fn start(site: &Site, board: Arc<Board>, first_number: u32) -> io::Result<Self> {
        let thread = OwnThread::start("writer")?;
        let client = thread.client(site.client.clone());
        let instances = (first_number..).take(services_of(site));
        let instances =
            instances.map(|number| site.registration(number, &format!("churn-{number}"))).collect();
        let (site, owner, done) = (site.clone(), random_id(), AtomicU64::new(0));
        let writer = Arc::new(Writer { client, site, owner, board, instances, done });
        Ok(Self { thread, writer })
    }

    /// Changes that are over.
    pub(super) fn done(&self) -> &AtomicU64 {
        &self.writer.done
    }

    pub(super) fn stats(&self) -> &ClientStats {
        self.writer.client.stats()
    }

    /// Changes every instance once, one after the other, which registers it the first time.
    ///
    /// # Errors
    ///
    /// When a change fails, or is not visible everywhere in time.
    pub(super) async fn change_each_once(&self) -> Result<(), Failure> {
        let writer = self.writer.clone();
        let visibility = self.thread.spawn(async move {
            let mut visibility = Visibility::new();
            for index in 0..writer.instances.len() {
                let outcome = writer.change(index, 1).await;
                visibility.add(&writer, &outcome);
                writer.done.fetch_add(1, Ordering::Relaxed);
            }
            visibility
        });
        let visibility = visibility.await.map_err(|error| Failure::failed(error.to_string()))?;
        if let Some(error) = visibility.first_error {
            return Err(Failure::failed(format!("cannot change the records to measure with: {error}")));
        }
        if visibility.unseen > 0 {
            let unseen = visibility.unseen;
            return Err(Failure::failed(format!(
                "{unseen} views did not show a change within {SHOW_TIMEOUT:?}; lower --sidecars, or look at the servers' logs"
            )));
        }
        Ok(())
    }

    /// Changes so many a second until `deadline`, and waits until all are visible, or their time is over.
    pub(super) async fn run(&self, rate: f64, deadline: Instant) -> Result<Visibility, Failure> {
        let writer = self.writer.clone();
        let changes = self.thread.spawn(async move { writer.run(rate, deadline).await });
        changes.await.map_err(|error| Failure::failed(error.to_string()))
    }

    /// Ends the session, and with it the instances.
    pub(super) async fn end(self) {
        // A session that cannot be closed expires.
        let _expires = self.writer.client.clone().close().await;
    }
}

impl Writer {
    async fn run(self: Arc<Self>, rate: f64, deadline: Instant) -> Visibility {
        let mut visibility = Visibility::new();
        let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
        // A change that is late does not make those after it come in a crowd.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // An instance has one change at a time, with a weight that it had not before.
        let mut free: VecDeque<_> = (0..self.instances.len()).map(|index| (index, 1)).collect();
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                () = sleep_until(deadline.into()) => break,
                Some(done) = under_way.join_next() => free.push_back(self.on_done(done, &mut visibility)),
                _ = ticks.tick(), if !free.is_empty() => {
                    let Some((index, weight)) = free.pop_front() else { continue };
                    let (writer, weight) = (self.clone(), weight % WEIGHT_MAX + 1);
                    under_way.spawn(async move { (index, weight, writer.change(index, weight).await) });
                }
            }
        }
        while let Some(done) = under_way.join_next().await {
            self.on_done(done, &mut visibility);
        }
        visibility
    }

    /// Returns the instance, and the weight that it has.
    fn on_done(
        &self,
        done: Result<(usize, u16, Outcome), tokio::task::JoinError>,
        visibility: &mut Visibility,
    ) -> (usize, u16) {
        let (index, weight, outcome) = done.expect("changes do not panic and nobody aborts them");
        visibility.add(self, &outcome);
        self.done.fetch_add(1, Ordering::Relaxed);
        (index, weight)
    }

    /// Gives an instance another weight, and waits until all views show it, or for too long.
    async fn change(&self, index: usize, weight: u16) -> Outcome {
        let instance = &self.instances[index];
        let change = self.board.open(&instance.service, &instance.id, weight);
        let written = self.write(instance, weight).await;
        let outcome = match written {
            Ok(at) => {
                let _unseen = timeout(SHOW_TIMEOUT, change.all_shown()).await;
                Outcome::Committed { change: change.clone(), at }
            }
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.board.close(&change);
        outcome
    }

    /// Writes as a registrar does: reads what is there, and replaces it in one multi. Returns when its reply came.
    async fn write(&self, instance: &Registration, weight: u16) -> Result<Instant, WriteError> {
        let session = self.client.connected().await?;
        let path = self.site.layout.instance(&instance.service, &instance.id);
        let observed = match self.client.get(path.as_str()).await {
            Ok((data, stat)) => Observed::Found { data, stat },
            Err(error) if error.op_error() == Some(OpError::NoNode) => Observed::Missing,
            Err(error) => return Err(error.into()),
        };
        let record = instance.record(Status::Draining, &self.owner, &self.owner, clock::unix_ms());
        let wanted = Wanted::Registered(Record { weight, ..record });
        match plan(&path, &wanted, &observed, session)? {
            Plan::Write { ops, .. } => {
                self.client.multi(ops).await?;
                Ok(clock::now())
            }
            Plan::Nothing | Plan::Conflict { .. } => Err(WriteError::NotOurs),
        }
    }
}

impl Visibility {
    fn new() -> Self {
        Self {
            changes: 0,
            in_each_view: Latencies::new(),
            in_all_views: Latencies::new(),
            unseen: 0,
            errors: 0,
            first_error: None,
        }
    }

    fn add(&mut self, writer: &Writer, outcome: &Outcome) {
        let (change, at) = match outcome {
            Outcome::Committed { change, at } => (change, *at),
            Outcome::Failed(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| error.clone());
                return;
            }
        };
        self.changes += 1;
        let (mut last, mut is_everywhere) = (Duration::ZERO, true);
        for latency in writer.board.latencies(change, at) {
            let Some(latency) = latency else {
                self.unseen += 1;
                is_everywhere = false;
                continue;
            };
            self.in_each_view.record(latency);
            last = last.max(latency);
        }
        if is_everywhere {
            self.in_all_views.record(last);
        }
    }
}

fn services_of(site: &Site) -> usize {
    usize::try_from(site.services).expect("at most 10 000")
}
