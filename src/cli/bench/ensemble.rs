//! An ensemble to measure: which of its servers answer, which processes they are.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::super::failure::Failure;
use super::super::output::note;
use super::link::OPEN_TIMEOUT;
use super::root::{Layout, Root};
use crate::telemetry::ProcessUsage;

/// An ensemble that answers.
#[derive(Debug)]
pub(super) struct Ensemble {
    /// As they were named.
    pub(super) servers: Vec<String>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) pids: Vec<u32>,
    pub(super) root: Root,
}

/// What the processes of an ensemble use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnsembleUsage {
    /// CPU time of all together.
    pub(super) cpu: Duration,
    /// Memory of each, in the order of the ids.
    pub(super) resident_bytes: Vec<u64>,
}

impl Ensemble {
    /// Tries each server and process once. Nothing is written yet; what will be is below `layout`'s root.
    ///
    /// # Errors
    ///
    /// When no server answers, or a process is not there.
    pub(super) async fn reach(servers: &[String], pids: &[u32], layout: Layout) -> Result<Self, Failure> {
        if let Some((pid, error)) = pids.iter().find_map(|pid| Some((pid, ProcessUsage::of(*pid).err()?))) {
            let remedy = "give the ids of the servers, which must run on this machine";
            return Err(Failure::usage(format!("cannot measure process {pid}: {error}; {remedy}")));
        }
        let (mut addresses, mut failures) = (Vec::new(), Vec::new());
        for server in servers {
            match timeout(OPEN_TIMEOUT, reach(server)).await {
                Ok(Ok(address)) => addresses.push(address),
                Ok(Err(error)) => failures.push(format!("{server}: {error}")),
                Err(_late) => failures.push(format!("{server}: no answer within {OPEN_TIMEOUT:?}")),
            }
        }
        let failed = failures.join("; ");
        if addresses.is_empty() {
            let remedy = "start one with `rollcall dev`, or name others with --servers";
            return Err(Failure::failed(format!("no server answers ({failed}); {remedy}")));
        }
        if !failures.is_empty() {
            // They stay in the list where their address is known: they may come while we measure.
            note(&format!("not all servers answer ({failed}); going on with the others"));
        }
        let root = Root::new(servers, layout);
        Ok(Self { servers: servers.to_vec(), addresses, pids: pids.to_vec(), root })
    }

    /// What its processes use by now; `None` without ids, or when one of them has ended.
    pub(super) fn usage(&self) -> Option<EnsembleUsage> {
        let usages: io::Result<Vec<_>> = self.pids.iter().map(|pid| ProcessUsage::of(*pid)).collect();
        let usages = usages.ok().filter(|usages| !usages.is_empty())?;
        Some(EnsembleUsage {
            cpu: usages.iter().map(|usage| usage.cpu).sum(),
            resident_bytes: usages.iter().map(|usage| usage.resident_bytes).collect(),
        })
    }
}

/// The address at which a server takes connections.
async fn reach(server: &str) -> io::Result<SocketAddr> {
    let mut last_error = io::Error::other("its name has no address");
    for address in lookup_host(server).await? {
        match TcpStream::connect(address).await {
            Ok(_connection) => return Ok(address),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}
