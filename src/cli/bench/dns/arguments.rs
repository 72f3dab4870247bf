//! What `rollcall bench dns` can be asked for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::super::super::failure::Failure;
use super::super::super::name::NameArgument;
use super::super::super::output::Format;
use super::super::arguments::{pid, time, time_or_none};
use super::changes::ChangesPlan;
use super::line::SLOTS_MAX;
use super::question::{QuestionArgument, question_argument};

#[derive(Clone, Debug, Args)]
pub(in crate::cli::bench) struct BenchDnsArguments {
    /// What to ask for, in turn; TYPE is a word as AAAA, or TYPE65 for any number [default: A]
    #[arg(
        value_name = "NAME[:TYPE]",
        value_parser = question_argument,
        required_unless_present = "names"
    )]
    pub(super) questions: Vec<QuestionArgument>,
    /// File of more of them, a line `NAME TYPE` each as dnsperf reads; empty lines and lines that begin with # or ; are skipped
    #[arg(long, value_name = "FILE")]
    pub(super) names: Option<PathBuf>,
    /// The server
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8600")]
    pub(super) server: SocketAddr,
    /// Process ids of the server, when it runs on this machine: adds its CPU time per query and its memory
    #[arg(long, value_name = "PIDS", value_delimiter = ',', value_parser = pid)]
    pub(super) pids: Vec<u32>,
    /// A second server, measured in alternation with the first; adds ratios of the medians, first to second
    #[arg(long, value_name = "IP:PORT")]
    pub(super) compare: Option<SocketAddr>,
    /// Process ids of the second server
    #[arg(long, value_name = "PIDS", value_delimiter = ',', value_parser = pid, requires = "compare")]
    pub(super) compare_pids: Vec<u32>,
    /// Measure the server while its view changes, N times a second, and in alternation while it does not; adds ratios of the medians,
    /// changing to calm
    ///
    /// An instance of --change-service that is never offered is registered at --ensemble and rewritten.
    #[arg(long, value_name = "N", conflicts_with = "compare", requires = "ensemble", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) changes: Option<u32>,
    /// Servers of the sidecar's ensemble, HOST:PORT[,HOST:PORT...]
    #[arg(long, value_name = "SERVERS", value_delimiter = ',', requires = "changes")]
    pub(super) ensemble: Vec<String>,
    /// The service whose instances change
    #[arg(long, value_name = "NAME", default_value = "rollcall", requires = "changes")]
    pub(super) change_service: NameArgument,
    /// Queries that are unanswered at a time; with --rate no more than these, and one that is due waits for another's end
    /// [default: 100, with --rate 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(super) outstanding: Option<u32>,
    /// Queries per second, however soon they are answered (an open loop); each is timed from when it was due
    ///
    /// So that it is sent when it is due, this process keeps its processor busy while the next is less than 2 ms away: its own CPU
    /// time says little then.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: Option<u32>,
    /// UDP sockets, each with a port of its own, over which queries are spread [default: 4, or as many as --outstanding]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) sockets: Option<u32>,
    /// How long a server is measured, such as 500ms, 10s or 1m
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(super) duration: Duration,
    /// How long the load runs before it is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_or_none)]
    pub(super) warm_up: Duration,
    /// How often each server is measured, in turn; the medians are told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
    /// When a query without an answer counts as lost, at most 1m; another is sent in its place, none is repeated
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = timeout)]
    pub(super) timeout: Duration,
    /// Octets of an answer over UDP that queries allow by EDNS (RFC 6891), at least 512; 0 sends them without EDNS
    #[arg(long, value_name = "OCTETS", default_value_t = 1232, value_parser = edns)]
    pub(super) edns: u16,
    /// How to print; times are in ms in the table, and their unit is in the name of each JSON field
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

impl BenchDnsArguments {
    /// Queries that may be unanswered at a time.
    pub(super) fn outstanding(&self) -> usize {
        let default = if self.rate.is_some() { OUTSTANDING_WITH_RATE } else { OUTSTANDING };
        usize::try_from(self.outstanding.unwrap_or(default)).expect("at most 50 000")
    }

    pub(super) fn sockets(&self) -> usize {
        self.sockets.map_or(SOCKETS.min(self.outstanding()), |sockets| {
            usize::try_from(sockets).expect("at most 1 000")
        })
    }

    /// What is to change meanwhile.
    pub(super) fn changes(&self) -> Option<ChangesPlan> {
        let NameArgument(service) = self.change_service.clone();
        self.changes.map(|rate| ChangesPlan { ensemble: self.ensemble.clone(), service, rate })
    }

    /// What is wrong with them together.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let (outstanding, sockets) = (self.outstanding(), self.sockets());
        if sockets > outstanding {
            return Err(Failure::usage(format!(
                "--sockets is {sockets} and --outstanding {outstanding}: some would have nothing to send; lower --sockets"
            )));
        }
        let needed = outstanding.div_ceil(SLOTS_MAX);
        if sockets < needed {
            return Err(Failure::usage(format!(
                "--outstanding {outstanding} needs more sockets than {sockets}: ids tell at most {SLOTS_MAX} queries apart on each; \
                 raise --sockets to {needed}"
            )));
        }
        Ok(())
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match time(text)? {
        timeout if timeout > TIMEOUT_MAX => Err("it is longer than a minute".to_owned()),
        timeout if timeout < TIMEOUT_MIN => Err("it is shorter than 1ms".to_owned()),
        timeout => Ok(timeout),
    }
}

fn edns(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(octets) if octets == 0 || octets >= EDNS_MIN => Ok(octets),
        Ok(_) | Err(_) => Err(format!("it is neither 0 nor a number from {EDNS_MIN} to {}", u16::MAX)),
    }
}

const OUTSTANDING: u32 = 100;
/// A server that stops for 100 ms at 100 000 queries a second.
const OUTSTANDING_WITH_RATE: u32 = 10_000;
const SOCKETS: usize = 4;
/// The end of a measurement waits as long for the last answers.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Values below count as this (RFC 6891, 6.2.3).
const EDNS_MIN: u16 = 512;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        dns: BenchDnsArguments,
    }

    fn parse(line: &str) -> Result<BenchDnsArguments, clap::Error> {
        let words = ["dns"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.dns)
    }

    #[test]
    fn names_alone_are_enough() {
        let arguments = parse("web.test db.test:AAAA").unwrap();
        assert_eq!(arguments.questions.len(), 2);
        assert_eq!((arguments.outstanding(), arguments.sockets(), arguments.edns), (100, 4, 1232));
        assert_eq!(arguments.timeout, Duration::from_secs(1));
        arguments.check().unwrap();
        parse("--names file").unwrap();
    }

    #[test]
    fn defaults_fit_each_other() {
        let open = parse("web.test --rate 5").unwrap();
        assert_eq!((open.outstanding(), open.sockets()), (10_000, 4));
        let few = parse("web.test --outstanding 2").unwrap();
        assert_eq!((few.outstanding(), few.sockets()), (2, 2));
        few.check().unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [
            "",
            "web.test:NONE",
            "web.test --server localhost:53",
            "web.test --outstanding 0",
            "web.test --outstanding 50001",
            "web.test --rate 0",
            "web.test --for 0s",
            "web.test --timeout 61s",
            "web.test --timeout 999us",
            "web.test --edns 100",
            "web.test --edns 65536",
            "web.test --compare-pids 1",
            "web.test --changes 5",
            "web.test --ensemble 127.0.0.1:2181",
            "web.test --changes 5 --ensemble 127.0.0.1:2181 --compare 127.0.0.1:53",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let refusal = |line| parse(line).unwrap().check().unwrap_err().to_string();
        assert!(refusal("web.test --outstanding 2 --sockets 3").contains("lower --sockets"));
        assert!(refusal("web.test --outstanding 40000 --sockets 2").contains("raise --sockets to 3"));
    }
}
