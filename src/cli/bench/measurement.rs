//! One workload on one ensemble, once: from opening the connections to their end.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::super::failure::Failure;
use super::arguments::{BenchEnsembleArguments, Workload};
use super::ensemble::Ensemble;
use super::progress::{DRAW_EVERY, Progress};
use super::resources::{Meter, Resources};
use super::run::Run;
use super::tally::{Figures, as_f64};
use super::workload::{self, Scale};
use crate::clock;

/// How long opening all connections may take: each is a write of the ensemble's, and an election may be going on.
const OPEN_ALL_TIMEOUT: Duration = Duration::from_secs(30);
const OPEN_EACH_TIMEOUT: Duration = Duration::from_millis(10);
/// A measurement that is to count operations gives up when none is done for this long.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long the connections may take to close their sessions.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be measured.
#[derive(Debug)]
pub(super) struct Measurement<'bench> {
    pub(super) arguments: &'bench BenchEnsembleArguments,
    pub(super) ensemble: &'bench Ensemble,
    pub(super) workload: Workload,
    /// What the progress line calls it.
    pub(super) label: String,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Measured {
    Whole(Figures, Resources),
    /// The person has had enough.
    Interrupted,
}

/// Somebody pressed Ctrl-C.
struct Interrupted;

impl Measurement<'_> {
    /// Does it.
    ///
    /// # Errors
    ///
    /// When not all connections can be opened, or nothing is done any more.
    pub(super) async fn carry_out(
        &self,
        stop: &CancellationToken,
        progress: &mut Progress,
    ) -> Result<Measured, Failure> {
        let arguments = self.arguments;
        let addresses = self.ensemble.addresses.clone();
        let run = Rc::new(Run::new(addresses, arguments.session_timeout, arguments.count));
        let scale = Scale {
            connections: usize::try_from(arguments.connections).expect("at most 50 000"),
            pipeline: usize::try_from(arguments.pipeline).expect("at most 1 000"),
        };
        let mut connections = JoinSet::new();
        let wanted =
            workload::start(self.workload, scale, &run, self.ensemble.root.layout(), &mut connections);
        let mut overseer = Overseer { label: &self.label, run: &run, stop, progress };
        let measured = self.measure(&mut overseer, wanted).await;
        run.stop();
        end(connections).await;
        measured.unwrap_or(Ok(Measured::Interrupted))
    }

    async fn measure(
        &self,
        overseer: &mut Overseer<'_>,
        wanted: usize,
    ) -> Result<Result<Measured, Failure>, Interrupted> {
        let (arguments, run) = (self.arguments, overseer.run);
        let open_all = OPEN_ALL_TIMEOUT + OPEN_EACH_TIMEOUT * arguments.connections;
        overseer.until("opening", clock::now() + open_all, |run| run.opened() >= wanted).await?;
        if run.opened() < wanted {
            return Ok(Err(self.not_all_open(run, wanted, open_all)));
        }
        overseer.until("warming up", clock::now() + arguments.warmup, |_| false).await?;

        let meter = Meter::start(&self.ensemble.processes);
        let began = clock::now();
        run.tally().borrow_mut().begin(began);
        match arguments.count {
            None => overseer.until("", began + arguments.duration, |_| false).await?,
            Some(count) => {
                if let Err(stalled) = self.count_to(overseer, count).await? {
                    return Ok(Err(stalled));
                }
            }
        }
        run.tally().borrow_mut().end(clock::now());
        let resources = meter.read(&self.ensemble.processes);
        Ok(Ok(Measured::Whole(run.tally().borrow().figures(), resources)))
    }

    async fn count_to(
        &self,
        overseer: &mut Overseer<'_>,
        count: u64,
    ) -> Result<Result<(), Failure>, Interrupted> {
        loop {
            let before = overseer.run.tally().borrow().measured();
            overseer.until_counted(count, clock::now() + STALL_MAX).await?;
            let tally = overseer.run.tally().borrow();
            if tally.is_ended() {
                return Ok(Ok(()));
            }
            if tally.measured() == before {
                let error = tally.commonest_error().unwrap_or("no error was told");
                let (workload, after) = (self.workload, STALL_MAX);
                return Ok(Err(Failure::failed(format!(
                    "{workload}: no operation was done for {after:?}, {before} of {count} are ({error}); look at the servers' logs"
                ))));
            }
        }
    }

    fn not_all_open(&self, run: &Run, wanted: usize, within: Duration) -> Failure {
        let tally = run.tally().borrow();
        let error = tally.commonest_error().unwrap_or("no error was told");
        let (opened, servers) = (run.opened(), self.ensemble.servers.join(","));
        // The default of Apache ZooKeeper's maxClientCnxns.
        let remedy = if wanted > 60 {
            "lower --connections, or raise maxClientCnxns at the servers (60 from one address by default)"
        } else {
            "look at the servers' logs"
        };
        Failure::failed(format!(
            "{}: only {opened} of {wanted} connections to {servers} were opened within {within:?} ({error}); {remedy}",
            self.workload
        ))
    }
}

/// Who waits for a run, and shows how far it is.
struct Overseer<'run> {
    label: &'run str,
    run: &'run Run,
    stop: &'run CancellationToken,
    progress: &'run mut Progress,
}

impl Overseer<'_> {
    /// Waits until `deadline`, or until `is_over`.
    async fn until(
        &mut self,
        phase: &str,
        deadline: Instant,
        is_over: impl Fn(&Run) -> bool,
    ) -> Result<(), Interrupted> {
        let began = clock::now();
        let what = if phase.is_empty() { self.label.to_owned() } else { format!("{}, {phase}", self.label) };
        loop {
            let now = clock::now();
            if now >= deadline || is_over(self.run) {
                return Ok(());
            }
            let share = (now - began).as_secs_f64() / (deadline - began).as_secs_f64();
            self.progress.draw(now, &what, share, self.run.tally().borrow().done());
            self.wait(deadline.min(now + DRAW_EVERY)).await?;
        }
    }

    /// Waits until `deadline`, or until `count` operations are done.
    async fn until_counted(&mut self, count: u64, deadline: Instant) -> Result<(), Interrupted> {
        loop {
            let now = clock::now();
            let (measured, done, is_ended) = {
                let tally = self.run.tally().borrow();
                (tally.measured(), tally.done(), tally.is_ended())
            };
            if now >= deadline || is_ended {
                return Ok(());
            }
            self.progress.draw(now, self.label, as_f64(measured) / as_f64(count), done);
            self.wait(deadline.min(now + DRAW_EVERY)).await?;
        }
    }

    async fn wait(&self, until: Instant) -> Result<(), Interrupted> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Interrupted),
            () = self.run.changed() => Ok(()),
            () = sleep_until(until.into()) => Ok(()),
        }
    }
}

/// Waits for the connections to close their sessions; whoever does not in time is dropped, and its session expires.
async fn end(mut connections: JoinSet<()>) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    };
    let _late = timeout(STOP_TIMEOUT, all).await;
}
