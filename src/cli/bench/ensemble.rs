//! An ensemble to measure: which of its servers answer, which processes they are.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::super::failure::Failure;
use super::super::output::note;
use super::link::OPEN_TIMEOUT;
use super::processes::Processes;
use super::root::{Layout, Root};

/// An ensemble that answers.
#[derive(Debug)]
pub(super) struct Ensemble {
    /// As they were named.
    pub(super) servers: Vec<String>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) processes: Processes,
    pub(super) root: Root,
}

impl Ensemble {
    /// Tries each server and process once. Nothing is written yet; what will be is below `layout`'s root.
    ///
    /// # Errors
    ///
    /// When no server answers, or a process is not there.
    pub(super) async fn reach(servers: &[String], pids: &[u32], layout: Layout) -> Result<Self, Failure> {
        let processes = Processes::find(pids)?;
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
        Ok(Self { servers: servers.to_vec(), addresses, processes, root })
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
