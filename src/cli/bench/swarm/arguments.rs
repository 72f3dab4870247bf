//! What `rollcall bench swarm` can be asked for.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;

use super::super::super::failure::Failure;
use super::super::super::output::Format;
use super::super::arguments::{pid, server, time, time_or_none};

#[derive(Clone, Debug, Args)]
pub(in crate::cli::bench) struct BenchSwarmArguments {
    /// Servers, HOST:PORT[,HOST:PORT...]; sessions are spread over them by chance
    #[arg(
        long,
        value_name = "SERVERS",
        value_delimiter = ',',
        env = "ROLLCALL_SERVERS",
        default_value = "127.0.0.1:2181",
        value_parser = server
    )]
    pub(super) servers: Vec<String>,
    /// Process ids of the servers, when they run on this machine: adds their CPU time and their memory
    #[arg(long, value_name = "PIDS", value_delimiter = ',', value_parser = pid)]
    pub(super) pids: Vec<u32>,
    /// Sidecars, each with one instance and a view of all; every view takes memory for every instance
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub(super) sidecars: u32,
    /// Services, over which the sidecars are spread evenly
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) services: u32,
    /// Sessions beside them that do nothing but ping
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(super) sessions: u32,
    /// How long everything stays as it is; 0s leaves that out
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_or_none)]
    pub(super) hold: Duration,
    /// Changes per second, each of one instance's record; as many of them at a time as there are services
    #[arg(long, value_name = "RATE", default_value_t = 5.0, value_parser = rate)]
    pub(super) churn: f64,
    /// How long records change; 0s leaves that out
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = time_or_none)]
    pub(super) churn_time: Duration,
    /// Share of the sidecars that leave in order and come back as new ones, 0 to 1; 0 leaves that out
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1, value_parser = fraction)]
    pub(super) restart: f64,
    /// Sidecars that restart at a time; each takes more than a second, for which its record says that it drains
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) restart_parallel: u32,
    /// Session timeout to ask the servers for
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(super) session_timeout: Duration,
    /// How to print; times are in ms in the table, and their unit is in the name of each JSON field
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

impl BenchSwarmArguments {
    /// What is wrong with them together, on a machine where a process may have `files_max` files open.
    pub(super) fn check(&self, files_max: Option<u64>) -> Result<(), Failure> {
        if self.sidecars == 0 && self.sessions == 0 {
            return Err(Failure::usage(
                "there is nothing to measure: --sidecars and --sessions are 0; raise one of them",
            ));
        }
        if self.sidecars > 0 && self.services > self.sidecars {
            return Err(Failure::usage(format!(
                "--services is {} and --sidecars {}: services would be left without an instance; lower --services",
                self.services, self.sidecars
            )));
        }
        let files = u64::from(self.sidecars) + u64::from(self.sessions) + FILES_BESIDE;
        match files_max {
            Some(files_max) if files > files_max => Err(Failure::usage(format!(
                "{} sidecars and {} sessions need {files} open files and this process may have {files_max}; raise the hard limit \
                 (as root: `ulimit -Hn {files}` in the shell, LimitNOFILE= of a systemd unit, --ulimit nofile= of a container), or \
                 lower --sessions",
                self.sidecars, self.sessions
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// How many sidecars are to restart; at least one, if any.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
    pub(super) fn restarts(&self) -> u32 {
        (f64::from(self.sidecars) * self.restart).ceil() as u32
    }
}

/// Open files that are no connections of sidecars and sessions: the terminal, the runtimes', two connections of our own, `/proc`.
const FILES_BESIDE: u64 = 64;
/// Changes a second: one every quarter of an hour at least, and no more than an ensemble commits.
const RATES: RangeInclusive<f64> = 0.001..=10_000.0;

fn rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if RATES.contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err(format!(
            "it is not a rate between {} and {}; give one such as 5 or 0.5",
            RATES.start(),
            RATES.end()
        )),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        Ok(_) | Err(_) => Err("it is not between 0 and 1; give a share such as 0.1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        swarm: BenchSwarmArguments,
    }

    fn parse(line: &str) -> Result<BenchSwarmArguments, clap::Error> {
        let words = line.split_ascii_whitespace();
        Line::try_parse_from(["swarm"].into_iter().chain(words)).map(|line| line.swarm)
    }

    #[test]
    fn the_defaults_are_a_swarm_that_any_machine_carries() {
        let arguments = parse("").unwrap();
        arguments.check(Some(1024)).unwrap();
        assert_eq!((arguments.sidecars, arguments.sessions, arguments.restarts()), (100, 0, 10));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in [
            "--sidecars -1",
            "--services 0",
            "--churn 0",
            "--churn NaN",
            "--churn 10001",
            "--for 5",
            "--restart 1.5",
            "--restart -1",
            "--restart-parallel 0",
            "--hold 25h",
            "--session-timeout 0s",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in ["--sidecars 0", "--sidecars 5 --services 6", "--sidecars 1000 --sessions 10000"] {
            let refused = parse(line).unwrap().check(Some(4096));
            assert!(matches!(refused, Err(Failure::Usage(_))), "{line}: {refused:?}");
        }
        parse("--sidecars 0 --sessions 1").unwrap().check(Some(4096)).unwrap();
        parse("--sidecars 1000 --sessions 10000").unwrap().check(None).unwrap();
    }

    #[test]
    fn a_share_of_the_sidecars_restarts_and_at_least_one_if_any() {
        let restarts = |line: &str| parse(line).unwrap().restarts();
        assert_eq!(restarts("--restart 0"), 0);
        assert_eq!(restarts("--restart 0.001"), 1);
        assert_eq!(restarts("--restart 0.25"), 25);
        assert_eq!(restarts("--restart 1"), 100);
    }
}
