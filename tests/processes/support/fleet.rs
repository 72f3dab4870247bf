//! The service `web` on three machines, so to speak: each has an address of loopback, a web server and a sidecar of its own.

use std::time::Duration;

use super::dev::rollcall;
use super::process::Signal;
use super::{Kind, Server, Sidecar, WebServer};

const LIMIT: Duration = Duration::from_secs(30);

/// An ensemble, and the instances of `web` in it.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) instances: Vec<Instance>,
    server: Server,
    _folder: tempfile::TempDir,
}

/// One instance. Its sidecar checks `/health` of its web server.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: &'static str,
    pub(crate) web: WebServer,
    pub(crate) sidecar: Sidecar,
}

impl Fleet {
    /// Starts the ensemble, and the web server and the sidecar of the first instance.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let server = Server::start(Kind::Rollcall, folder.path());
        // So that a primary is back in its tier within the patience of a test.
        let mut command = rollcall();
        let set = ["service", "set", "web", "--create", "--failback-after", "1s"];
        command.args(set).args(["--server", &server.address()]);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{output:?}");
        let mut fleet = Self { instances: Vec::new(), server, _folder: folder };
        fleet.add("one", WebServer::start_on("127.0.0.1"), "weight: 256");
        fleet
    }

    /// Adds an instance on another address and the same port; `more` are further settings of it.
    pub(crate) fn grow(&mut self, id: &'static str, host: &'static str, more: &str) {
        let web = self.instances[0].web.start_beside(host);
        self.add(id, web, more);
    }

    fn add(&mut self, id: &'static str, web: WebServer, more: &str) {
        let sidecar = Sidecar::start(
            &self.server.address(),
            &format!(
                "services: [{{name: web, id: {id}, address: {}, ports: [{{name: http, port: {}}}], {more}, checks: \
                 [{{kind: http, path: /health, interval: 300ms, timeout: 300ms, jitter: 0ms, rise: 1, fall: 2}}]}}]\n",
                web.host(),
                web.port()
            ),
        );
        self.instances.push(Instance { id, web, sidecar });
    }

    /// A sidecar that registers nothing, for the peer that looks things up.
    pub(crate) fn reader(&self) -> Sidecar {
        Sidecar::start(&self.member(), "")
    }

    /// The address of the ensemble's member.
    pub(crate) fn member(&self) -> String {
        self.server.address()
    }

    /// Ends the ensemble, as `kill -9` does.
    pub(crate) fn kill_ensemble(&mut self) {
        self.server.kill();
    }

    /// The port of all instances.
    pub(crate) fn port(&self) -> u16 {
        self.instances[0].web.port()
    }
}

impl Instance {
    /// Runs `rollcall` with a command for its sidecar.
    pub(crate) fn tell(&self, arguments: &[&str]) {
        let mut command = rollcall();
        command.args(arguments).args(["--http-addr", &self.sidecar.http.address()]);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}: {arguments:?}: {output:?}", self.id);
    }

    /// Has the sidecar stop as Kubernetes does; it leaves in order.
    pub(crate) fn leave(&mut self) {
        self.sidecar.signal(Signal::TERM);
        self.sidecar.expect_success(LIMIT);
    }
}
