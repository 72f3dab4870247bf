//! What `rollcall bench` can be asked for.

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::super::output::Format;
use super::dns::BenchDnsArguments;
use super::swarm::BenchSwarmArguments;
use crate::client::is_host_and_port;
use crate::config::duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArguments {
    #[command(subcommand)]
    pub(super) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Measure an ensemble of any ZooKeeper-protocol servers, or two in alternation
    ///
    /// Each connection asks again as soon as it is answered (a closed loop), so figures are what the servers reach with that many
    /// clients. Works below one znode of its own, /rollcall-bench-..., which is removed at the end, also after Ctrl-C. Lost
    /// connections and refused operations are counted as errors, and the run goes on.
    #[command(after_long_help = EXAMPLES)]
    Ensemble(Box<BenchEnsembleArguments>),
    /// Measure what many sidecars on one ensemble of any ZooKeeper-protocol servers make of it
    ///
    /// All sidecars are in this process, real but for DNS, HTTP and checks: each has its session, registers one instance, and keeps a
    /// view of all. They register at once, hold still, see records change (churn), and restart one after the other. Works below one
    /// znode of its own, /rollcall-bench-..., which is removed at the end, also after Ctrl-C.
    ///
    /// A change is one multi that deletes and creates an instance's znode, as sidecars write it. It counts as committed when the
    /// reply reaches its writer, which has a thread of its own, and as visible in a view when that is published with it; both by the
    /// same clock. All views share half of the machine's processors here, where each would have a machine's: times tell of both.
    #[command(after_long_help = SWARM_EXAMPLES)]
    Swarm(Box<BenchSwarmArguments>),
    /// Measure any DNS server over UDP, or two in alternation
    ///
    /// Asks for the names in turn. Each answer sends the next query (a closed loop), so figures are what the server reaches with that
    /// many queries unanswered; with --rate queries are sent at fixed times, whether it keeps up or not, and a server that stops shows
    /// in the latency of every query that was due meanwhile.
    ///
    /// An answer must come from the server to the socket that asked, be a response, and have the query's id and question. Any other
    /// packet counts as mismatched, and the query goes on waiting. A query without an answer is lost at --timeout and is not repeated.
    /// At the end, also after Ctrl-C, the last answers are waited for, at most as long: answered and lost are together what was asked.
    ///
    /// The load is one thread. Where its CPU time per query is more than the server's, or where both share a processor, figures tell of
    /// the load, too.
    #[command(after_long_help = DNS_EXAMPLES)]
    Dns(Box<BenchDnsArguments>),
}

const EXAMPLES: &str = "\
Examples:
  rollcall bench ensemble --servers 127.0.0.1:2181 --pids \"$(pgrep -d, -f 'rollcall ensemble')\"
  rollcall bench ensemble --workload set --count 1000000 --data-bytes 1024 --connections 64
  rollcall bench ensemble --servers a:2181,b:2181,c:2181 --compare d:2181,e:2181,f:2181 --rounds 5 -o json";

const SWARM_EXAMPLES: &str = "\
Examples:
  rollcall bench swarm --servers a:2181,b:2181,c:2181 --sidecars 1000 --services 100
  rollcall bench swarm --sidecars 0 --sessions 10000 --hold 10m
  rollcall bench swarm --hold 0s --for 0s --restart 1 --restart-parallel 20 -o json";

const DNS_EXAMPLES: &str = "\
Examples:
  rollcall bench dns rollcall.default.rollcall.internal rollcall.default.rollcall.internal:SRV
  rollcall bench dns --server 127.0.0.1:8600 --pids \"$(pgrep -d, -f 'rollcall sidecar')\" --names names.txt --for 1m
  rollcall bench dns --rate 20000 --compare 127.0.0.1:5353 --rounds 5 -o json web.default.rollcall.internal:A";

#[derive(Clone, Debug, Args)]
pub(super) struct BenchEnsembleArguments {
    /// Servers, HOST:PORT[,HOST:PORT...]; connections are spread over them in turn
    #[arg(
        long,
        value_name = "SERVERS",
        value_delimiter = ',',
        env = "ROLLCALL_SERVERS",
        default_value = "127.0.0.1:2181",
        value_parser = server
    )]
    pub(super) servers: Vec<String>,
    /// Process ids of the servers, when they run on this machine: adds their CPU time per operation and their memory
    #[arg(long, value_name = "PIDS", value_delimiter = ',', value_parser = pid)]
    pub(super) pids: Vec<u32>,
    /// Servers of a second ensemble, measured in alternation with the first; adds ratios of the medians, first to second
    #[arg(long, value_name = "SERVERS", value_delimiter = ',', value_parser = server)]
    pub(super) compare: Vec<String>,
    /// Process ids of the second ensemble's servers
    #[arg(long, value_name = "PIDS", value_delimiter = ',', value_parser = pid, requires = "compare")]
    pub(super) compare_pids: Vec<u32>,
    /// What to do, one after the other
    #[arg(
        long = "workload",
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "set,get,mixed,ephemeral,connect,watch"
    )]
    pub(super) workloads: Vec<Workload>,
    /// Connections, each with a session of its own; in `watch` these are the watchers, and the writer is one more
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(super) connections: u32,
    /// Requests that each connection keeps unanswered; for set, get, mixed and ephemeral
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) pipeline: u32,
    /// How long each workload is measured, such as 500ms, 10s or 1m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(super) duration: Duration,
    /// Measure until this many operations are done, instead of for a time
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// How long each workload runs before it is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_or_none)]
    pub(super) warmup: Duration,
    /// How often each workload is measured on each ensemble, in turn; the medians are told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
    /// Bytes of data in each znode, at most 1000000 (servers refuse more than 1 MiB unless told otherwise)
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(super) data_bytes: u32,
    /// Znodes that set, get and mixed work on, chosen at random for each operation
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) keys: u32,
    /// Session timeout to ask the servers for; a request unanswered for two thirds of what they grant ends its connection
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(super) session_timeout: Duration,
    /// How to print; times are in ms in the table, and their unit is in the name of each JSON field
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

/// What connections do while they are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Overwrite the data of znodes
    Set,
    /// Read the data of znodes
    Get,
    /// 70 % get, 30 % set
    Mixed,
    /// Create and delete ephemeral znodes, each an operation
    Ephemeral,
    /// Open and close sessions, TCP connection included: both are one operation
    Connect,
    /// One writer sets a znode that all connections watch; an operation is one event received, timed from the sending of the
    /// write, and the next write follows when all watch again
    Watch,
    /// Keep sessions open that do nothing; an operation is a ping
    Idle,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "set",
            Self::Get => "get",
            Self::Mixed => "mixed",
            Self::Ephemeral => "ephemeral",
            Self::Connect => "connect",
            Self::Watch => "watch",
            Self::Idle => "idle",
        })
    }
}

pub(super) fn server(text: &str) -> Result<String, String> {
    let text = text.trim();
    if is_host_and_port(text) {
        Ok(text.to_owned())
    } else {
        Err("it is not HOST:PORT; give one such as 127.0.0.1:2181".to_owned())
    }
}

/// A process id; blanks around it are those of other programs' lists.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(_) | Err(_) => Err("it is not the id of a process; give numbers, as 1234,1235".to_owned()),
    }
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    match time_or_none(text) {
        Ok(Duration::ZERO) => Err("it must be longer than nothing".to_owned()),
        other => other,
    }
}

pub(super) fn time_or_none(text: &str) -> Result<Duration, String> {
    let parsed = duration::parse(text).map_err(|error| error.to_string())?;
    if parsed <= TIME_MAX { Ok(parsed) } else { Err("it is longer than a day".to_owned()) }
}

/// Keeps sums of times far from any overflow; the protocol's own limit for a session is below 25 days.
const TIME_MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn parse(line: &str) -> Result<BenchEnsembleArguments, clap::Error> {
        let line = Line::try_parse_from(["bench", "ensemble"].into_iter().chain(line.split(' ')))?;
        match line.bench.command {
            BenchCommand::Ensemble(arguments) => Ok(*arguments),
            BenchCommand::Swarm(arguments) => panic!("{arguments:?}"),
            BenchCommand::Dns(arguments) => panic!("{arguments:?}"),
        }
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let arguments = parse("--servers a:1,b:2 --pids 1,2 --workload set,idle --compare c:3").unwrap();
        assert_eq!((arguments.servers, arguments.pids), (vec!["a:1".into(), "b:2".into()], vec![1, 2]));
        assert_eq!(arguments.workloads, [Workload::Set, Workload::Idle]);
        assert_eq!((arguments.duration, arguments.count), (Duration::from_secs(10), None));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in [
            "--servers a",
            "--pids 0",
            "--pids x",
            "--compare-pids 1",
            "--workload sing",
            "--connections 0",
            "--count 0",
            "--count 5 --duration 1s",
            "--duration 0s",
            "--duration 5",
            "--duration 25h",
            "--data-bytes 1000001",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
