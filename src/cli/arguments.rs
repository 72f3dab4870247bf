//! What can be asked for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::BenchArguments;
use super::control::{DrainArguments, MaintenanceArguments, OwnArguments, StatusArguments};
use super::manual::{CompletionsArguments, ManArguments};
use super::name::{NameArgument, ServiceArgument};
use super::output::Format;
use crate::config::duration;
use crate::registry::rehearse::Loss;
use crate::registry::{FailbackMode, Layout};
use crate::sidecar::SidecarSettings;

/// Service discovery that lives inside the pod.
#[derive(Debug, Parser)]
#[command(name = "rollcall", version, about)]
#[command(
    after_help = "Start with `rollcall dev`, then try `rollcall services` and `rollcall lookup rollcall`."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run everything in one process on loopback: a one-member ensemble, a sidecar, DNS and HTTP
    ///
    /// Registers itself as rollcall.default and prints what listens where. Ctrl-C and SIGTERM take the instances out in order; a
    /// second one stops at once.
    Dev(DevArguments),
    /// Run a member of the ensemble, or one that is the whole ensemble
    Ensemble(EnsembleArguments),
    /// Run the pod's agent: health checks, registration, watched cache, DNS, HTTP
    Sidecar(SidecarArguments),
    /// Show the instances of a service, as the sidecar sees them
    Lookup(LookupArguments),
    /// List all services that the sidecar knows
    Services(ServicesArguments),
    /// Print the changes of a service as they come
    ///
    /// Tells who is present at first, then who joined, left or changed, until it is interrupted; goes on over restarts of the
    /// sidecar.
    Watch(WatchArguments),
    /// Tell why a lookup of a service answers what it answers, or did at some time, instance by instance
    Explain(ExplainArguments),
    /// Tell what would be answered if something were lost
    ///
    /// Plays the loss on the sidecar's present view, with the code that it would go through. Nothing is changed.
    Rehearse(RehearseArguments),
    /// Let instances of this sidecar that were away take their tier again from the standbys
    ///
    /// For services whose settings say `"failback": "manual"`, or to end the wait of others. Instances that still fail are not let off.
    Failback(OwnArguments),
    /// Take this sidecar's instances out of all answers, before they are stopped
    ///
    /// They stay out until --undo or the end of the sidecar, which they leave with in order. Connections that they have are their own
    /// business, and answers that others have kept live on for their TTL.
    Drain(DrainArguments),
    /// Take this sidecar's instances out for as long as it takes, or offer them again
    ///
    /// They go on being checked, and are offered again as their checks say, at once: what fails in maintenance is no fault. An
    /// instance that drains, too, says that it drains.
    Maintenance(MaintenanceArguments),
    /// Tell how this sidecar, its connection, its view, its instances and their checks are
    Status(StatusArguments),
    /// Show and change what all readers obey about a service, and remove services that nobody offers
    ///
    /// The settings stand in the service's znode; sidecars obey a change at once.
    Service(ServiceArguments),
    /// Read and change znodes of any ZooKeeper-protocol ensemble
    Zk(ZkArguments),
    /// Measure any ZooKeeper-protocol ensemble or DNS server: throughput, latencies, stalls, CPU time
    Bench(BenchArguments),
    /// Check a settings file and report every mistake in it
    CheckConfig(CheckConfigArguments),
    /// Print what a shell needs to complete command lines
    ///
    /// For bash: rollcall completions bash > /etc/bash_completion.d/rollcall
    Completions(CompletionsArguments),
    /// Print a manual page, or write all of them into a folder
    Man(ManArguments),
}

#[derive(Debug, Args)]
pub(super) struct DevArguments {
    /// Settings file; see config/dev.yaml for every key
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Keep the ensemble's data in this folder [default: a temporary one, removed at exit]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Port for ZooKeeper clients; 0 finds a free one [default: 2181]
    #[arg(long, value_name = "PORT")]
    pub(super) client_port: Option<u16>,
    /// Port for DNS, UDP and TCP; 0 finds a free one [default: 8600]
    #[arg(long, value_name = "PORT")]
    pub(super) dns_port: Option<u16>,
    /// Port for HTTP; 0 finds a free one [default: 8500]
    #[arg(long, value_name = "PORT")]
    pub(super) http_port: Option<u16>,
    /// Register an instance of a service, checked by a TCP connect; repeatable. NAME is `web` or `web.shop`, HOST an IP
    /// address or `localhost`
    #[arg(long = "service", value_name = "NAME=HOST:PORT")]
    pub(super) services: Vec<ServiceArgument>,
}

#[derive(Debug, Args)]
pub(super) struct EnsembleArguments {
    /// Settings file; see config/ensemble.yaml for every key
    #[arg(short, long, value_name = "FILE", env = "ROLLCALL_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Apache ZooKeeper's settings file, as it is, in place of one of ours; `myid` is read beside the data
    #[arg(long, value_name = "FILE")]
    pub(super) zoo_cfg: Option<PathBuf>,
    /// Let this member vote though it has no data, when others may have some
    ///
    /// A member whose data were lost has no say until it has learnt from the others. With this it counts as one that never had
    /// any: what only it and members that are gone had acknowledged is lost. When a majority lost theirs, start all of those
    /// with it, and the others without; one member alone with the data needs it, too, while others are missing.
    #[arg(long)]
    pub(super) force_bootstrap: bool,
    /// Take over the voters of the settings, though the data were written with others
    ///
    /// Start every member with it once, and none without: two sets of voters at a time may lose what was acknowledged.
    #[arg(long)]
    pub(super) accept_members: bool,
}

#[derive(Debug, Args)]
pub(super) struct SidecarArguments {
    /// Settings file; see config/sidecar.yaml for every key
    #[arg(short, long, value_name = "FILE", env = "ROLLCALL_CONFIG")]
    pub(super) config: PathBuf,
}

/// Where the sidecar answers.
#[derive(Debug, Args)]
pub(super) struct SidecarAddress {
    /// HTTP address of the sidecar, HOST:PORT
    #[arg(long, value_name = "ADDRESS", env = "ROLLCALL_HTTP_ADDR", default_value = SidecarSettings::HTTP_ADDR)]
    pub(super) http_addr: String,
}

/// Where the ensemble answers.
#[derive(Debug, Args)]
pub(super) struct EnsembleAddress {
    /// Members of the ensemble, HOST:PORT[,HOST:PORT…]
    #[arg(
        long,
        global = true,
        value_name = "SERVERS",
        env = "ROLLCALL_SERVERS",
        default_value = "127.0.0.1:2181"
    )]
    pub(super) server: String,
}

#[derive(Debug, Args)]
pub(super) struct OutputArguments {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    pub(super) lookup: LookupArguments,
    /// When: 2026-01-31T12:00:00Z, or how long ago, such as 90s; as far back as the sidecar remembers [default: now]
    #[arg(long, value_name = "TIME")]
    pub(super) at: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RehearseArguments {
    /// What is lost: zone=NAME, node=NAME, SERVICE/NUMBER (so many of its instances), SERVICE/INSTANCE, ensemble; repeatable
    ///
    /// Who is lost says nothing when it is probed, as when its machine is gone. With process= before SERVICE/NUMBER or SERVICE/INSTANCE
    /// only the process is, and its machine refuses connections.
    #[arg(long, value_name = "WHAT", required = true)]
    pub(super) lose: Vec<Loss>,
    #[command(flatten)]
    pub(super) sidecar: SidecarAddress,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct LookupArguments {
    /// `web`, `web.shop` or `web.shop.rollcall.internal`; without a namespace it is `default`
    pub(super) name: NameArgument,
    #[command(flatten)]
    pub(super) sidecar: SidecarAddress,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct ServicesArguments {
    #[command(flatten)]
    pub(super) sidecar: SidecarAddress,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    /// `web`, `web.shop` or `web.shop.rollcall.internal`; without a namespace it is `default`
    pub(super) name: NameArgument,
    #[command(flatten)]
    pub(super) sidecar: SidecarAddress,
    /// How to print: lines, or one JSON object a line
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

#[derive(Debug, Args)]
pub(super) struct ServiceArguments {
    #[command(flatten)]
    pub(super) ensemble: EnsembleAddress,
    /// Where the registry lies in the ensemble's tree
    #[arg(long, global = true, value_name = "PATH", default_value = Layout::ROOT)]
    pub(super) root: String,
    #[command(subcommand)]
    pub(super) command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Show a service's settings
    Get {
        /// `web`, `web.shop` or `web.shop.rollcall.internal`; without a namespace it is `default`
        name: NameArgument,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Change a service's settings, and leave what is not named as it is
    Set {
        /// `web`, `web.shop` or `web.shop.rollcall.internal`; without a namespace it is `default`
        name: NameArgument,
        /// Make the service if it is not there yet; its settings wait for its first instance then
        #[arg(long)]
        create: bool,
        #[command(flatten)]
        change: ServiceChange,
    },
    /// Remove services without instances: their names are unknown then, instead of having nobody
    Prune {
        /// Which; without any, all that have neither instances nor settings
        names: Vec<NameArgument>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct ServiceChange {
    /// Instances of a tier that must be up for it to be chosen
    #[arg(long, value_name = "N")]
    pub(super) min_healthy: Option<u32>,
    /// How an instance that was away takes its tier again from the standbys: auto (once it has been healthy for some time), manual
    /// (by `rollcall failback`) or off (at once)
    #[arg(long, value_name = "MODE", value_parser = failback_mode)]
    pub(super) failback: Option<FailbackMode>,
    /// How long it must have been healthy for that, such as 30s
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(super) failback_after: Option<Duration>,
    /// TTL of the service's DNS answers, such as 2s
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(super) dns_ttl: Option<Duration>,
    /// Whether instances that vanish together are kept until it is clear what became of them: on or off
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    pub(super) brake: Option<bool>,
    /// Whether lookups prefer instances of their own zone: on or off
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    pub(super) prefer_zone: Option<bool>,
    /// Take the default again for this setting, as `rollcall service get` calls it; repeatable
    #[arg(long, value_name = "SETTING")]
    pub(super) unset: Vec<String>,
}

fn failback_mode(text: &str) -> Result<FailbackMode, &'static str> {
    match text {
        "auto" => Ok(FailbackMode::Auto),
        "manual" => Ok(FailbackMode::Manual),
        "off" => Ok(FailbackMode::Off),
        _ => Err("write auto, manual or off"),
    }
}

fn on_or_off(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("write on or off"),
    }
}

#[derive(Debug, Args)]
pub(super) struct ZkArguments {
    #[command(flatten)]
    pub(super) ensemble: EnsembleAddress,
    #[command(subcommand)]
    pub(super) command: ZkCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ZkCommand {
    /// List the children of a znode
    Ls {
        /// The znode
        #[arg(default_value = "/")]
        path: String,
        /// List everything below it, with full paths
        #[arg(short = 'R', long)]
        recursive: bool,
    },
    /// Print the data of a znode
    Get {
        /// The znode
        path: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Overwrite the data of a znode
    Set {
        /// The znode
        path: String,
        /// The new data
        data: String,
        /// Only if this is its data version
        #[arg(long, value_name = "N")]
        version: Option<i32>,
    },
    /// Create a znode and print its path
    Create {
        /// The znode
        path: String,
        /// Its data
        #[arg(default_value = "")]
        data: String,
        /// Keep it only as long as this command runs: until Ctrl-C
        #[arg(short, long)]
        ephemeral: bool,
        /// Append a number that grows with each such child
        #[arg(short, long)]
        sequential: bool,
    },
    /// Delete a znode
    Delete {
        /// The znode
        path: String,
        /// Only if this is its data version
        #[arg(long, value_name = "N", conflicts_with = "recursive")]
        version: Option<i32>,
        /// Delete everything below it too
        #[arg(short = 'R', long)]
        recursive: bool,
    },
    /// Print the stat of a znode
    Stat {
        /// The znode
        path: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Print the changes of a znode as they come, until Ctrl-C
    Watch {
        /// The znode
        path: String,
        /// Watch everything below it too
        #[arg(short = 'R', long)]
        recursive: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct CheckConfigArguments {
    /// Settings file of `rollcall ensemble`, `rollcall sidecar` or `rollcall dev`, or Apache ZooKeeper's, whose name ends in .cfg
    #[arg(required_unless_present = "schema")]
    pub(super) file: Option<PathBuf>,
    /// Print the JSON Schema of a role's settings file instead, for editors and CI [default role: sidecar]
    ///
    /// It tells misspelt keys, wrong types and words. What depends on other keys, or on the machine, only the check of the file tells.
    #[arg(long, value_name = "ROLE", num_args = 0..=1, default_missing_value = "sidecar", conflicts_with = "file")]
    pub(super) schema: Option<SchemaRole>,
}

/// Whose settings file is described.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SchemaRole {
    Sidecar,
    Ensemble,
    Dev,
}

/// An address with another port.
pub(super) fn with_port(mut addr: SocketAddr, port: Option<u16>) -> SocketAddr {
    if let Some(port) = port {
        addr.set_port(port);
    }
    addr
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_the_help_promises_is_accepted() {
        for line in [
            "rollcall dev",
            "rollcall dev -c f --data-dir d --client-port 1 --dns-port 2 --http-port 3 --service a=localhost:1 --service b.c=[::1]:2",
            "rollcall ensemble -c f",
            "rollcall sidecar -c f",
            "rollcall lookup web -o json --http-addr 127.0.0.1:1",
            "rollcall services",
            "rollcall watch web.default",
            "rollcall zk ls / -R",
            "rollcall zk --server a:1,b:2 get /a -o json",
            "rollcall zk get /a --server a:1",
            "rollcall zk create /a data --ephemeral --sequential",
            "rollcall zk delete /a --version 3",
            "rollcall bench ensemble --servers a:1,b:2 --pids 1,2 --workload set,idle --count 5 -o json",
            "rollcall bench dns a.b c.d:SRV --server 1.2.3.4:53 --rate 5 --compare [::1]:53 --compare-pids 1 --edns 0",
            "rollcall bench dns a --changes 9 --ensemble a:1,b:2 --change-service web.shop",
            "rollcall bench dns --names f --for 1s --warm-up 0s --rounds 2 --timeout 5ms --sockets 2 --outstanding 9",
            "rollcall check-config f",
            "rollcall check-config --schema",
            "rollcall check-config --schema ensemble",
            "rollcall drain",
            "rollcall drain web.shop --wait",
            "rollcall drain web --wait=5s -o json",
            "rollcall drain --wait web",
            "rollcall drain web --undo",
            "rollcall maintenance on web --reason disk",
            "rollcall maintenance off --http-addr 127.0.0.1:1",
            "rollcall maintenance show -o json",
            "rollcall status -o json",
            "rollcall completions zsh",
            "rollcall man zk ls",
            "rollcall man --dir d",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "rollcall",
            "rollcall dev --dns-port many",
            "rollcall dev --service web",
            "rollcall dev --service web=localhost",
            "rollcall lookup Web",
            "rollcall lookup a.b.c",
            "rollcall zk delete /a -R --version 1",
            "rollcall check-config",
            "rollcall check-config --schema zk",
            "rollcall check-config f --schema dev",
            "rollcall drain --wait --undo",
            "rollcall drain --wait=soon",
            "rollcall maintenance",
            "rollcall maintenance off --reason x",
            "rollcall completions tcsh",
            "rollcall man drain --dir d",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
