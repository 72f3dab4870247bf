//! `rollcall bench`: measures any ZooKeeper-protocol ensemble with a load of its own. `swarm` does so with sidecars, `dns` measures
//! DNS servers; the rest here is `ensemble`:
//!
//! ```text
//! for each workload, round, ensemble:
//!   start the connections ─► all open ─► warm-up ─► tally begins ... ends ─► stop ─► figures
//! ```
//!
//! The load is a closed loop on one thread: `workload` decides what each connection asks for, `link` carries it, `tally`
//! counts, `report` tells. Nothing waits for ever: opening, answers, stopping and removing the znodes have deadlines, and a
//! server that is away is counted and tried again.

mod arguments;
mod dns;
mod ensemble;
mod fan_out;
mod figure;
mod latencies;
mod link;
mod measurement;
mod own_thread;
mod processes;
mod progress;
mod registration;
mod report;
mod resources;
mod root;
mod run;
mod swarm;
mod tally;
mod workload;

use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

pub(super) use self::arguments::BenchArguments;
use self::arguments::{BenchCommand, BenchEnsembleArguments};
use self::ensemble::Ensemble;
use self::measurement::{Measured, Measurement};
use self::progress::Progress;
use self::report::{MeasuredRun, Report};
use self::root::Layout;
use super::failure::Failure;
use super::output::print;
use super::{file_limit, half_the_processors, on_one_thread, on_workers};
use crate::shutdown;

/// Bytes of requests that all connections together may have unanswered: they are held in memory here and at the servers.
const UNANSWERED_BYTES_MAX: u64 = 1 << 30;

/// Measures what was asked for and prints it.
pub(super) fn run(arguments: BenchArguments) -> Result<(), Failure> {
    match arguments.command {
        BenchCommand::Dns(arguments) => on_one_thread(dns::run(*arguments)),
        BenchCommand::Ensemble(arguments) => on_one_thread(run_ensemble(*arguments)),
        // A worker runs next what the task at hand has woken, and so the time that whoever waits for a view reads is that of
        // its publication. On one thread it would come after all tasks that are ready.
        BenchCommand::Swarm(arguments) => on_workers(half_the_processors().max(1), swarm::run(*arguments)),
    }
}

async fn run_ensemble(arguments: BenchEnsembleArguments) -> Result<(), Failure> {
    check(&arguments)?;
    file_limit::raise();
    let stop = shutdown::on_signals().map_err(|error| Failure::failed(error.to_string()))?;
    LocalSet::new().run_until(bench_ensembles(&arguments, &stop)).await
}

fn check(arguments: &BenchEnsembleArguments) -> Result<(), Failure> {
    let each = u64::from(arguments.pipeline) * u64::from(arguments.data_bytes);
    let unanswered = u64::from(arguments.connections) * each;
    if unanswered > UNANSWERED_BYTES_MAX {
        return Err(Failure::usage(format!(
            "--connections times --pipeline times --data-bytes is {unanswered}, more than {UNANSWERED_BYTES_MAX}; lower one of them"
        )));
    }
    Ok(())
}

async fn bench_ensembles(
    arguments: &BenchEnsembleArguments,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut ensembles = Vec::new();
    let data_bytes = usize::try_from(arguments.data_bytes).expect("at most a million");
    let layout = || Layout::new(arguments.keys, data_bytes);
    ensembles.push(Ensemble::reach(&arguments.servers, &arguments.pids, layout()).await?);
    if !arguments.compare.is_empty() {
        ensembles.push(Ensemble::reach(&arguments.compare, &arguments.compare_pids, layout()).await?);
    }
    let mut report = Report::new(arguments, &ensembles);
    let done = fill_and_measure(arguments, &ensembles, stop, &mut report).await;
    // Whatever happened; a second signal cuts it short.
    let mut removed = Ok(());
    for ensemble in ensembles {
        removed = removed.and(ensemble.root.remove().await);
    }
    if !report.is_empty() {
        print(&report.text(arguments.output))?;
    }
    done.and(removed)
}

async fn fill_and_measure(
    arguments: &BenchEnsembleArguments,
    ensembles: &[Ensemble],
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<(), Failure> {
    for ensemble in ensembles {
        tokio::select! {
            () = stop.cancelled() => return Err(interrupted()),
            filled = ensemble.root.fill() => filled?,
        }
    }
    let mut progress = Progress::on_stderr();
    for workload in &arguments.workloads {
        for round in 1..=arguments.rounds {
            for (place, ensemble) in ensembles.iter().enumerate() {
                let label = label(arguments, ensembles.len(), &workload.to_string(), round, place);
                let measurement = Measurement { arguments, ensemble, workload: *workload, label };
                let measured = measurement.carry_out(stop, &mut progress).await;
                progress.clear();
                match measured? {
                    Measured::Whole(figures, resources) => {
                        report.add(MeasuredRun {
                            workload: *workload,
                            ensemble: place,
                            round,
                            figures,
                            resources,
                        });
                    }
                    Measured::Interrupted => return Err(interrupted()),
                }
            }
        }
    }
    report.is_complete = true;
    Ok(())
}

fn interrupted() -> Failure {
    Failure::failed("interrupted; what was not measured to its end is left out")
}

fn label(
    arguments: &BenchEnsembleArguments,
    ensembles: usize,
    workload: &str,
    round: u32,
    place: usize,
) -> String {
    let mut label = workload.to_owned();
    if arguments.rounds > 1 {
        label.push_str(&format!(" {round}/{}", arguments.rounds));
    }
    if ensembles > 1 {
        label.push_str(if place == 0 { " (first)" } else { " (second)" });
    }
    label
}
