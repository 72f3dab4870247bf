//! `rollcall dev` as a process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::Signal;
use super::{Port, Process, RawClient, http, wait_until};

const START_LIMIT: Duration = Duration::from_secs(30);

/// One `rollcall dev` with ports and, when told so, a data folder of its own.
#[derive(Debug)]
pub(crate) struct Dev {
    pub(crate) client: Port,
    pub(crate) dns: Port,
    pub(crate) http: Port,
    arguments: Vec<String>,
    data_dir: Option<PathBuf>,
    process: Process,
    /// Where it makes its own temporary folders.
    temporary: tempfile::TempDir,
}

impl Dev {
    /// Starts it on `data_dir` with more `arguments`, and waits until it serves on all its ports.
    pub(crate) fn start(data_dir: Option<&Path>, arguments: &[&str]) -> Self {
        Self::start_in(&[], data_dir, arguments)
    }

    /// The same without a data folder and arguments, with more variables in its environment.
    pub(crate) fn start_with_environment(environment: &[(&str, &str)]) -> Self {
        Self::start_in(environment, None, &[])
    }

    fn start_in(environment: &[(&str, &str)], data_dir: Option<&Path>, arguments: &[&str]) -> Self {
        let ports = [Port::free(), Port::free(), Port::free()];
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>();
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let numbers = [ports[0].number(), ports[1].number(), ports[2].number()];
        let mut command = command(numbers, data_dir, &arguments, temporary.path());
        command.env("ROLLCALL_LOG", "info").envs(environment.iter().copied());
        let process = Process::start("rollcall dev", &mut command);
        let [client, dns, http] = ports;
        let data_dir = data_dir.map(Path::to_path_buf);
        let mut dev = Self { client, dns, http, arguments, data_dir, process, temporary };
        dev.wait_until_serving();
        dev
    }

    /// Kills it if it still runs, and starts it again on the same ports and folder.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        let mut command = command(
            [self.client.number(), self.dns.number(), self.http.number()],
            self.data_dir.as_deref(),
            &self.arguments,
            self.temporary.path(),
        );
        self.process = Process::start("rollcall dev", command.env("ROLLCALL_LOG", "info"));
        self.wait_until_serving();
    }

    /// Ends it as an orchestrator does.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(Duration::from_secs(20))
    }

    /// The data folder that it was given.
    pub(crate) fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The folder that it was told to keep temporary files in.
    pub(crate) fn temporary(&self) -> &Path {
        self.temporary.path()
    }

    pub(crate) fn connect(&self) -> RawClient {
        RawClient::connect(&self.client.address(), 10_000)
            .unwrap_or_else(|error| panic!("no session from rollcall: {error}; its log:\n{}", self.log()))
    }

    fn wait_until_serving(&mut self) {
        wait_until("rollcall dev serves", START_LIMIT, || {
            assert!(!self.process.has_ended(), "rollcall dev ended at its start:\n{}", self.process.log());
            let is_ready = http::get(self.http.number(), "/readyz").is_ok_and(|answer| answer.status == 200);
            is_ready && RawClient::connect(&self.client.address(), 4_000).is_ok_and(|mut c| c.close().is_ok())
        });
    }
}

/// The command line of `rollcall dev`.
pub(crate) fn command(
    [client, dns, http]: [u16; 3],
    data_dir: Option<&Path>,
    arguments: &[String],
    temporary: &Path,
) -> Command {
    let mut command = rollcall();
    command.arg("dev").args(arguments).env("TMPDIR", temporary);
    command.args(["--client-port", &client.to_string(), "--dns-port", &dns.to_string()]);
    command.args(["--http-port", &http.to_string()]);
    if let Some(data_dir) = data_dir {
        command.arg("--data-dir").arg(data_dir);
    }
    command
}

/// The program under test, untouched by the settings of whoever runs the tests.
pub(crate) fn rollcall() -> Command {
    let mut command = Command::new(ROLLCALL);
    clean_environment(&mut command);
    command
}

/// Where the program under test is.
pub(crate) const ROLLCALL: &str = env!("CARGO_BIN_EXE_rollcall");

/// Takes from a command what whoever runs the tests has set for the program under test.
pub(crate) fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROLLCALL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
}

/// Holds a port of loopback so that nobody else can listen on it.
pub(crate) fn occupy(port: &Port) -> TcpListener {
    TcpListener::bind(port.address()).expect("a port of ours is free")
}
