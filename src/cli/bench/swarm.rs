//! `rollcall bench swarm`: many sidecars in one process, and what an ensemble makes of them.
//!
//! ```text
//! sessions ─► register ─► agree ─► hold ─► churn ─► restart ─► all sessions closed, root removed
//! ```
//!
//! - `crowd` holds the sidecars (`light_sidecar`: the real client, mirror, cache and registrar) and the sessions that do nothing.
//! - `churn` writes, on a thread of its own, and `board` notes when each view shows what was written.
//! - `phase` says what each phase took, from the counts that clients, mirrors and registrars keep anyway; `report` tells.
//!
//! Nothing waits for ever, and everything that is open at a time is bounded.

mod arguments;
mod board;
mod churn;
mod counts;
mod crowd;
mod light_sidecar;
mod phase;
mod report;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{interval, sleep_until};
use tokio_util::sync::CancellationToken;

pub(super) use self::arguments::BenchSwarmArguments;
use self::board::Board;
use self::churn::{Churn, Visibility};
use self::counts::Counts;
use self::crowd::Crowd;
use self::light_sidecar::Site;
use self::phase::{Phase, Stopwatch};
use self::report::SwarmReport;
use super::super::failure::Failure;
use super::super::file_limit;
use super::super::output::print;
use super::ensemble::Ensemble;
use super::interrupted;
use super::progress::{DRAW_EVERY, Progress};
use super::root;
use super::tally::as_f64;
use crate::client::ClientSettings;
use crate::registry::Layout;
use crate::{clock, shutdown};

/// Measures what was asked for and prints it.
pub(super) async fn run(arguments: BenchSwarmArguments) -> Result<(), Failure> {
    file_limit::raise();
    arguments.check(file_limit::current())?;
    let stop = shutdown::on_signals().map_err(|error| Failure::failed(error.to_string()))?;
    let ensemble = Ensemble::reach(&arguments.servers, &arguments.pids, root::Layout::new(0, 0)).await?;
    let site = Site {
        client: ClientSettings::for_servers(arguments.servers.iter().cloned())
            .with_session_timeout(arguments.session_timeout),
        layout: Layout::new(ensemble.root.layout().root()).expect("a root is a path"),
        services: arguments.services,
    };
    let mut swarm = Swarm {
        crowd: Crowd::new(site.clone()),
        report: SwarmReport::new(&arguments),
        overseer: Overseer { stop, progress: Progress::on_stderr() },
        arguments,
        site,
        ensemble,
    };
    let measured = swarm.measure().await;
    swarm.end(measured).await
}

/// A swarm at work.
struct Swarm {
    arguments: BenchSwarmArguments,
    site: Site,
    ensemble: Ensemble,
    crowd: Crowd,
    report: SwarmReport,
    overseer: Overseer,
}

impl Swarm {
    /// Goes through all phases.
    async fn measure(&mut self) -> Result<(), Failure> {
        let create = self.ensemble.root.create();
        self.overseer.oversee("creating the root", 1, &AtomicU64::new(0), create).await?;
        if self.arguments.sessions > 0 {
            self.open_sessions().await?;
        }
        if self.arguments.sidecars > 0 {
            self.register().await?;
        }
        if self.arguments.hold > Duration::ZERO {
            self.hold().await?;
        }
        if self.arguments.sidecars > 0 && self.arguments.churn_time > Duration::ZERO {
            self.churn().await?;
        }
        if self.arguments.restarts() > 0 {
            self.restart().await?;
        }
        self.report.is_complete = true;
        Ok(())
    }

    /// Whatever happened: closes all sessions, removes the root, and prints what is known. A second signal cuts it short.
    async fn end(mut self, measured: Result<(), Failure>) -> Result<(), Failure> {
        self.overseer.stop = CancellationToken::new();
        let (wanted, done) = (count_of(self.crowd.sessions()), AtomicU64::new(0));
        let ended = async {
            self.crowd.end(&done).await;
            Ok(())
        };
        let ended = self.overseer.oversee("closing", wanted, &done, ended).await;
        self.overseer.progress.clear();
        let removed = self.ensemble.root.remove().await;
        if !self.report.is_empty() {
            print(&self.report.text(self.arguments.output))?;
        }
        measured.and(ended).and(removed)
    }

    async fn open_sessions(&mut self) -> Result<(), Failure> {
        let (stopwatch, done) = (self.start("sessions"), AtomicU64::new(0));
        let count = self.arguments.sessions;
        let opened = self.crowd.open_sessions(count, &done);
        self.overseer.oversee("opening sessions", count.into(), &done, opened).await?;
        let phase = self.stop(&stopwatch);
        self.report.add(Phase { count: count.into(), ..phase });
        Ok(())
    }

    async fn register(&mut self) -> Result<(), Failure> {
        let (stopwatch, done) = (self.start("register"), AtomicU64::new(0));
        let count = self.arguments.sidecars;
        let registered = self.crowd.register(count, &done);
        self.overseer.oversee("registering", count.into(), &done, registered).await?;
        let phase = self.stop(&stopwatch);
        self.report.add(Phase { count: count.into(), ..phase });

        let stopwatch = self.start("agree");
        self.agree().await?;
        let phase = self.stop(&stopwatch);
        self.report.add(Phase { count: count.into(), ..phase });
        Ok(())
    }

    async fn agree(&mut self) -> Result<(), Failure> {
        let (wanted, done) = (count_of(self.crowd.sidecars().len()), AtomicU64::new(0));
        self.overseer.oversee("until all views agree", wanted, &done, self.crowd.agree(&done)).await
    }

    async fn hold(&mut self) -> Result<(), Failure> {
        let stopwatch = self.start("hold");
        let what = format!("holding {} sessions", self.crowd.sessions());
        self.overseer.until(&what, clock::now() + self.arguments.hold).await?;
        let phase = self.stop(&stopwatch);
        self.report.add(Phase { count: count_of(self.crowd.sessions()), has_rate: false, ..phase });
        Ok(())
    }

    async fn churn(&mut self) -> Result<(), Failure> {
        let views = self.crowd.sidecars().len();
        let board = Arc::new(Board::new(views, clock::now()));
        let mut watchers = JoinSet::new();
        for (place, sidecar) in self.crowd.sidecars().values().enumerate() {
            watchers.spawn(board::watch(board.clone(), place, sidecar.cache().clone(), clock::now));
        }
        // The numbers of the sidecars' instances end below it.
        let churn =
            Churn::start(&self.site, board, self.arguments.sidecars.next_multiple_of(self.site.services))
                .map_err(|error| Failure::failed(format!("cannot start the writer's thread: {error}")))?;
        let services = u64::from(self.site.services);
        let first = churn.change_each_once();
        self.overseer.oversee("first changes", services, churn.done(), first).await?;

        let (stopwatch, deadline) = (self.start("churn"), clock::now() + self.arguments.churn_time);
        let before = Counts::of_client(churn.stats());
        let visibility = self.changes(&churn, deadline).await?;
        let phase = self.stop(&stopwatch);
        let counts = phase.counts.plus(&Counts::of_client(churn.stats()).since(&before));
        let Visibility { changes, errors, .. } = visibility;
        self.report.add(Phase { count: changes, changes: Some(changes), errors, counts, ..phase });
        self.report.visibility = Some(visibility);

        watchers.shutdown().await;
        churn.end().await;
        self.agree().await
    }

    async fn changes(&mut self, churn: &Churn, deadline: Instant) -> Result<Visibility, Failure> {
        let (began, done) = (clock::now(), churn.done());
        let before = done.load(Ordering::Relaxed);
        let expected = (deadline - began).as_secs_f64() * self.arguments.churn;
        let what = format!("changing {} records a second", self.arguments.churn);
        let changed = churn.run(self.arguments.churn, deadline);
        self.overseer.draw_while(&what, done, changed, |_, done| as_f64(done - before) / expected).await
    }

    async fn restart(&mut self) -> Result<(), Failure> {
        let (stopwatch, done) = (self.start("restart"), AtomicU64::new(0));
        let count = self.arguments.restarts();
        let parallel = usize::try_from(self.arguments.restart_parallel).expect("at most 1 000");
        let restarted = self.crowd.restart(count, parallel, &done);
        let errors = self.overseer.oversee("restarting", count.into(), &done, restarted).await?;
        self.agree().await?;
        let phase = self.stop(&stopwatch);
        // Each is a record that says draining, its end, and a new one; all are written by registrars.
        let changes = Some(phase.counts.writes);
        self.report.add(Phase { count: count.into(), changes, errors, ..phase });
        Ok(())
    }

    fn start(&self, name: &'static str) -> Stopwatch {
        Stopwatch::start(name, &self.ensemble, self.crowd.counts(), clock::now())
    }

    fn stop(&self, stopwatch: &Stopwatch) -> Phase {
        let now = clock::now();
        stopwatch.stop(&self.ensemble, &self.crowd.counts(), self.crowd.sidecars().len(), now)
    }
}

/// Who waits for the phases, and shows how far they are.
struct Overseer {
    stop: CancellationToken,
    progress: Progress,
}

impl Overseer {
    /// Waits for `work`, which counts in `done` up to `wanted`.
    async fn oversee<T>(
        &mut self,
        what: &str,
        wanted: u64,
        done: &AtomicU64,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.draw_while(what, done, work, |_, done| as_f64(done) / as_f64(wanted.max(1))).await
    }

    /// Waits until `deadline`.
    async fn until(&mut self, what: &str, deadline: Instant) -> Result<(), Failure> {
        let began = clock::now();
        let share = |now: Instant, _| (now - began).as_secs_f64() / (deadline - began).as_secs_f64();
        let wait = async {
            sleep_until(deadline.into()).await;
            Ok(())
        };
        self.draw_while(what, &AtomicU64::new(0), wait, share).await
    }

    /// Waits for `work`, unless somebody presses Ctrl-C; `share` says how much of it is over, given the time and what is done.
    async fn draw_while<T>(
        &mut self,
        what: &str,
        done: &AtomicU64,
        work: impl Future<Output = Result<T, Failure>>,
        share: impl Fn(Instant, u64) -> f64,
    ) -> Result<T, Failure> {
        let mut work = pin!(work);
        let mut draw = interval(DRAW_EVERY);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(interrupted()),
                worked = &mut work => return worked,
                _ = draw.tick() => {
                    let (now, done) = (clock::now(), done.load(Ordering::Relaxed));
                    self.progress.draw(now, what, share(now, done), done);
                }
            }
        }
    }
}

fn count_of(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
