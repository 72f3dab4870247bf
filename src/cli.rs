//! The command line: arguments in; tables, JSON and an exit status out.
//!
//! Exit status: 0 done, 1 failed, 2 wrong arguments or a broken settings file; 130 and 143 when a second signal cut a
//! long-running command short. Errors go to stderr and say what failed, at which address, and what to try; a reader of
//! stdout that goes away ends a command quietly.

mod arguments;
mod bench;
mod check_config;
mod control;
mod dev;
mod ensemble;
mod explain;
mod failure;
mod file_limit;
mod lookup;
mod manual;
mod name;
mod output;
mod rehearse;
mod service;
mod session;
mod sidecar;
mod sidecar_client;
mod watch;
mod zk;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use failure::Failure;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = run(arguments);
    match done {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Dev(arguments) => on_threads(dev::run(arguments)),
        Command::Ensemble(arguments) => on_threads(ensemble::run(arguments)),
        Command::Sidecar(arguments) => on_one_thread(sidecar::run(arguments)),
        Command::Lookup(arguments) => on_one_thread(lookup::lookup(arguments)),
        Command::Services(arguments) => on_one_thread(lookup::services(arguments)),
        Command::Watch(arguments) => on_one_thread(watch::run(arguments)),
        Command::Explain(arguments) => on_one_thread(explain::run(arguments)),
        Command::Rehearse(arguments) => on_one_thread(rehearse::run(arguments)),
        Command::Failback(arguments) => on_one_thread(control::failback(arguments)),
        Command::Drain(arguments) => on_one_thread(control::drain(arguments)),
        Command::Maintenance(arguments) => on_one_thread(control::maintenance(arguments)),
        Command::Status(arguments) => on_one_thread(control::status(arguments)),
        Command::Service(arguments) => on_one_thread(service::run(arguments)),
        Command::Zk(arguments) => on_one_thread(zk::run(arguments)),
        Command::Bench(arguments) => bench::run(arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    }
}

/// An ensemble's member has work for more than one thread, where there are processors to spare: the log has one of its own, and
/// threads that wake one another cost more than they bring on two (measured: 15 % of a write's CPU time).
fn on_threads(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    if half_the_processors() < 2 {
        return on_one_thread(command);
    }
    on_workers(half_the_processors(), command)
}

/// Anything else shares a pod, or ends soon.
fn on_one_thread(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on(tokio::runtime::Builder::new_current_thread(), command)
}

fn half_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) / 2
}

/// The command itself on this thread, and the tasks that it starts on `threads` others.
fn on_workers(threads: usize, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads);
    block_on(builder, command)
}

fn block_on(
    mut builder: tokio::runtime::Builder,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    let done = runtime.block_on(command);
    // A name that is still being resolved must not hold up the exit.
    runtime.shutdown_background();
    done
}
