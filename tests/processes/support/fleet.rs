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
    /// Starts the ensemble, and the web server and the sidecar of the first instance, a primary that is back in its tier within the
    /// patience of a test.
    pub(crate) fn start() -> Self {
        Self::start_on(Kind::Rollcall, &["--failback-after", "1s"])
    }

    /// The same on an ensemble of this kind, and with these settings of the service, as arguments of `rollcall service set`.
    pub(crate) fn start_on(kind: Kind, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let server = Server::start(kind, folder.path());
        let mut command = rollcall();
        command.args(["service", "set", "web", "--create"]).args(settings);
        command.args(["--server", &server.address()]);
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
        let (rise, fall, interval_ms) =
            (Instance::RISE, Instance::FALL, Instance::CHECK_INTERVAL.as_millis());
        let sidecar = Sidecar::start(
            &self.server.address(),
            &format!(
                "services: [{{name: web, id: {id}, address: {}, ports: [{{name: http, port: {}}}], {more}, checks: \
                 [{{kind: http, path: /health, interval: {interval_ms}ms, timeout: {interval_ms}ms, jitter: 0ms, rise: {rise}, \
                 fall: {fall}}}]}}]\n",
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
    /// From one check to the next, and the time for an answer.
    pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(300);
    /// Checks that must pass in a row.
    pub(crate) const RISE: u32 = 1;
    /// Checks that must fail in a row.
    pub(crate) const FALL: u32 = 3;

    /// Runs `rollcall` with a command for its sidecar, and returns what it prints.
    pub(crate) fn tell(&self, arguments: &[&str]) -> String {
        let mut command = rollcall();
        command.args(arguments).args(["--http-addr", &self.sidecar.http.address()]);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}: {arguments:?}: {output:?}", self.id);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has the sidecar stop as Kubernetes does; it leaves in order.
    pub(crate) fn leave(&mut self) {
        self.sidecar.signal(Signal::TERM);
        self.sidecar.expect_success(LIMIT);
    }
}
