//! A ZooKeeper server of either kind. Every interop list runs against both: Apache's shows that the list is right.

use std::path::Path;

use super::process::{self, Signal};
use super::{Dev, RawClient};
use crate::apache::ApacheServer;

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rollcall,
    Apache,
}

/// What a server of ours is started with, in its data folder.
const SETTINGS: &str = "dev.yaml";

/// One server on a data folder.
#[derive(Debug)]
pub(crate) enum Server {
    Rollcall(Box<Dev>),
    Apache(ApacheServer),
}

impl Server {
    /// Starts a server on `data_dir` and waits until it serves.
    pub(crate) fn start(kind: Kind, data_dir: &Path) -> Self {
        match kind {
            Kind::Rollcall => {
                // Snapshots are taken often, so that what is read back is more than one log.
                let settings = data_dir.join(SETTINGS);
                std::fs::write(&settings, "ensemble: {snapshot_txns: 200}\n").expect("a file can be written");
                let arguments = ["-c", &settings.to_string_lossy()];
                Self::Rollcall(Box::new(Dev::start(Some(data_dir), &arguments)))
            }
            Kind::Apache => Self::Apache(ApacheServer::start(data_dir)),
        }
    }

    /// `HOST:PORT` for clients.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Rollcall(dev) => dev.client.address(),
            Self::Apache(server) => server.address().to_string(),
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Rollcall(dev) => dev.process().kill(),
            Self::Apache(server) => server.kill(),
        }
    }

    /// Sends a signal to the process that serves.
    pub(crate) fn signal(&mut self, signal: Signal) {
        match self {
            Self::Rollcall(dev) => dev.process().signal(signal),
            Self::Apache(server) => process::send(server.id(), signal, "Apache ZooKeeper"),
        }
    }

    /// Kills it if it still runs, and starts it again on the same folder and port.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Rollcall(dev) => dev.restart(),
            Self::Apache(server) => server.restart(),
        }
    }

    /// Removes what a server that was killed has kept, but for its settings.
    pub(crate) fn wipe(&self) {
        let data_dir = match self {
            Self::Rollcall(dev) => dev.data_dir().expect("it was started on one"),
            Self::Apache(server) => server.data_dir(),
        };
        for entry in std::fs::read_dir(data_dir).expect("the folder can be read") {
            let entry = entry.expect("the folder can be read");
            let path = entry.path();
            if entry.file_type().expect("a file has a type").is_dir() {
                std::fs::remove_dir_all(path).expect("it can be removed");
            } else if entry.file_name() != SETTINGS {
                std::fs::remove_file(path).expect("it can be removed");
            }
        }
    }

    /// A session of its own for a look at the tree.
    pub(crate) fn connect(&self) -> RawClient {
        RawClient::connect(&self.address(), 10_000).unwrap_or_else(|error| panic!("no session: {error}"))
    }
}
