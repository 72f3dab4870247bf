//! `rollcall bench dns`: measures any DNS server over UDP, or two in alternation.
//!
//! ```text
//! for each round, server:
//!   sockets ─► warm-up ─► counts begin ... end ─► the last answers, or their timeout ─► figures
//! ```
//!
//! `load` is the generator, with `pace` for when queries are due, and `line` for a socket and which answer belongs to which query;
//! `question` is what is asked, `counts` what came of it, `report` tells. Nothing is assumed of a server: one that answers nothing
//! has its queries lost.

mod arguments;
mod changes;
mod counts;
mod line;
mod load;
mod pace;
mod question;
mod report;

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

pub(super) use self::arguments::BenchDnsArguments;
use self::changes::{Changes, ChangesPlan};
use self::counts::DnsFigures;
use self::load::{Ended, Load, Overseer, Plan};
use self::question::{Question, read_names};
use self::report::{MeasuredRun, Report};
use super::super::failure::Failure;
use super::super::file_limit;
use super::super::output::print;
use super::processes::Processes;
use super::progress::Progress;
use super::resources::{Meter, Resources};
use crate::{clock, shutdown};

/// A server that is measured, and its processes.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    processes: Processes,
    /// What changes while it is measured.
    changes: Option<ChangesPlan>,
}

/// One measurement.
#[derive(Debug)]
struct Measured {
    figures: DnsFigures,
    resources: Resources,
    /// Changes that were committed meanwhile, if there were to be any.
    changes: Option<u64>,
    ended: Ended,
}

/// Measures what was asked for and prints it, also what was measured until Ctrl-C.
pub(super) async fn run(arguments: BenchDnsArguments) -> Result<(), Failure> {
    arguments.check()?;
    let mut asked = arguments.questions.clone();
    if let Some(names) = &arguments.names {
        asked.extend(read_names(names)?);
    }
    let encoded: Result<Vec<_>, _> =
        asked.iter().map(|asked| Question::encode(asked, arguments.edns)).collect();
    let mut questions = encoded?;
    let server = |address, pids: &[u32], changes| {
        Ok::<_, Failure>(Server { address, processes: Processes::find(pids)?, changes })
    };
    let mut servers = vec![server(arguments.server, &arguments.pids, arguments.changes())?];
    if arguments.changes.is_some() {
        servers.push(server(arguments.server, &arguments.pids, None)?);
    }
    if let Some(address) = arguments.compare {
        servers.push(server(address, &arguments.compare_pids, None)?);
    }
    file_limit::raise();
    let stop = shutdown::on_signals().map_err(|error| Failure::failed(error.to_string()))?;
    let mut report = Report::new(&arguments, questions.len(), &servers);
    let done = measure_all(&arguments, &servers, &mut questions, &stop, &mut report).await;
    if !report.is_empty() {
        print(&report.text(arguments.output))?;
    }
    done
}

async fn measure_all(
    arguments: &BenchDnsArguments,
    servers: &[Server],
    questions: &mut [Question],
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut progress = Progress::on_stderr();
    for round in 1..=arguments.rounds {
        for (place, server) in servers.iter().enumerate() {
            let label = label(arguments, servers, round, place);
            let mut overseer = Overseer { label, stop, progress: &mut progress };
            let measured = measure(arguments, server, questions, &mut overseer).await;
            progress.clear();
            let Some(Measured { figures, resources, changes, ended }) = measured? else {
                return Err(interrupted("what had not begun is left out"));
            };
            report.add(MeasuredRun { server: place, round, figures, resources, changes });
            if ended == Ended::Interrupted {
                return Err(interrupted("the last run is told as far as it went"));
            }
        }
    }
    report.is_complete = true;
    Ok(())
}

/// Measures one server once; `None` when the warm-up was interrupted.
async fn measure(
    arguments: &BenchDnsArguments,
    server: &Server,
    questions: &mut [Question],
    overseer: &mut Overseer<'_>,
) -> Result<Option<Measured>, Failure> {
    let plan = Plan {
        server: server.address,
        sockets: arguments.sockets(),
        outstanding: arguments.outstanding(),
        rate: arguments.rate,
        timeout: arguments.timeout,
    };
    let mut load = Load::open(plan, questions).await.map_err(|error| {
        let (sockets, address) = (plan.sockets, server.address);
        Failure::failed(format!(
            "cannot open {sockets} sockets to {address}: {error}; give an address that can be reached, or lower --sockets"
        ))
    })?;
    let changes = match &server.changes {
        Some(plan) => Some(Changes::start(plan).await?),
        None => None,
    };
    let warm_label = format!("{}, warming up", overseer.label);
    let label = std::mem::replace(&mut overseer.label, warm_label);
    if load.run(clock::now() + arguments.warm_up, overseer).await == Ended::Interrupted {
        return Ok(None);
    }
    overseer.label = label;
    let meter = Meter::start(&server.processes);
    let began = clock::now();
    let changes_before = changes.as_ref().map_or(0, Changes::committed);
    load.begin(began);
    let ended = load.run(began + arguments.duration, overseer).await;
    let now = clock::now();
    let committed = changes.as_ref().map(|changes| changes.committed() - changes_before);
    let resources = meter.read(&server.processes);
    let figures = load.finish(now).await.figures(now - began);
    if let Some(changes) = changes {
        changes.end().await;
    }
    Ok(Some(Measured { figures, resources, changes: committed, ended }))
}

fn interrupted(what_is_told: &str) -> Failure {
    Failure::failed(format!("interrupted; {what_is_told}"))
}

fn label(arguments: &BenchDnsArguments, servers: &[Server], round: u32, place: usize) -> String {
    let mut label = servers[place].address.to_string();
    if arguments.rounds > 1 {
        label.push_str(&format!(" {round}/{}", arguments.rounds));
    }
    if servers.len() > 1 {
        label.push_str(if place == 0 { " (first)" } else { " (second)" });
    }
    label
}
