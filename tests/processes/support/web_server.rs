//! A real HTTP server that can be killed and started again on its port.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::process::Signal;
use super::{Port, Process, wait_until};

/// `python3 -m http.server` on a port of its own. Its pages: `/health`, its address at `/name`, and `/metrics`.
#[derive(Debug)]
pub(crate) struct WebServer {
    host: &'static str,
    port: Arc<Port>,
    process: Process,
    root: tempfile::TempDir,
}

impl WebServer {
    /// Starts a server on an address of loopback and waits until it accepts connections.
    pub(crate) fn start_on(host: &'static str) -> Self {
        Self::start(host, Arc::new(Port::free()))
    }

    /// Starts another on the port of this one and another address.
    pub(crate) fn start_beside(&self, host: &'static str) -> Self {
        Self::start(host, Arc::clone(&self.port))
    }

    fn start(host: &'static str, port: Arc<Port>) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder can be made");
        for (page, text) in [("health", "fine\n"), ("name", host), ("metrics", "fine 1\n")] {
            std::fs::write(root.path().join(page), text).expect("a file can be written");
        }
        let process = spawn(host, &port, root.path());
        Self { host, port, process, root }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn host(&self) -> &'static str {
        self.host
    }

    /// From now on `/health` is not found; all else is served as before.
    pub(crate) fn fall_ill(&self) {
        std::fs::remove_file(self.root.path().join("health")).expect("it was well");
    }

    /// `/health` is found again.
    pub(crate) fn recover(&self) {
        std::fs::write(self.root.path().join("health"), "fine\n").expect("a file can be written");
    }

    /// From now on it takes connections, and says nothing.
    pub(crate) fn hang(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Hangs no more.
    pub(crate) fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.host, &self.port, self.root.path());
    }
}

fn spawn(host: &str, port: &Port, root: &Path) -> Process {
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", host, "--directory"]).arg(root);
    let process = Process::start("http.server", command.arg(port.number().to_string()));
    wait_until("the web server accepts connections", Duration::from_secs(30), || {
        TcpStream::connect((host, port.number())).is_ok()
    });
    process
}
