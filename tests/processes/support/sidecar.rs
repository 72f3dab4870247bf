//! `rollcall sidecar` as a process of its own, apart from the ensemble.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::dev::rollcall;
use super::process::Signal;
use super::{Port, Process, http};

/// A running sidecar; killed by its id when dropped.
#[derive(Debug)]
pub(crate) struct Sidecar {
    pub(crate) dns: Port,
    pub(crate) http: Port,
    process: Process,
    folder: tempfile::TempDir,
    /// What its settings begin with.
    head: String,
}

impl Sidecar {
    /// Starts one on ports of its own; `settings` is YAML for what is not the ensemble, a listener or the state directory.
    pub(crate) fn start(members: &str, settings: &str) -> Self {
        let (dns, http) = (Port::free(), Port::free());
        let listeners =
            format!("dns: {{address: \"{}\"}}\nhttp: {{address: \"{}\"}}\n", dns.address(), http.address());
        Self::start_with(members, &format!("{listeners}{settings}"), [dns, http])
    }

    /// Starts one whose `settings` say where it listens, which is on these ports.
    pub(crate) fn start_with(members: &str, settings: &str, [dns, http]: [Port; 2]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let servers: Vec<_> = members.split(',').map(|member| format!("\"{member}\"")).collect();
        let head = format!(
            "ensemble: {{servers: [{}], session_timeout: 4s}}\nstate_dir: {}\n",
            servers.join(", "),
            folder.path().join("state").display(),
        );
        std::fs::write(folder.path().join(SETTINGS), head.clone() + settings).expect("a file can be written");
        let process = spawn(&folder.path().join(SETTINGS));
        Self { dns, http, process, folder, head }
    }

    /// Gives it other settings while it runs, of which those of the ensemble and the state directory stay.
    pub(crate) fn configure(&self, settings: &str) {
        self.write_settings(&format!("{}{settings}", self.head));
    }

    /// Has its file say this and nothing else, as editors do it: another file takes the place of the one before.
    pub(crate) fn write_settings(&self, text: &str) {
        let new = self.folder.path().join("sidecar.yaml.new");
        std::fs::write(&new, text).expect("a file can be written");
        std::fs::rename(new, self.folder.path().join(SETTINGS)).expect("it can be renamed");
    }

    /// What its file says.
    pub(crate) fn settings(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(SETTINGS)).expect("it was written")
    }

    /// Has its file say these parts and nothing else, written where it is, with pauses of that length between them.
    pub(crate) fn overwrite_settings(&self, parts: &[&str], pause: Duration) {
        let mut file = File::create(self.folder.path().join(SETTINGS)).expect("it can be truncated");
        for part in parts {
            thread::sleep(pause);
            file.write_all(part.as_bytes()).expect("it can be written");
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it if it still runs, and starts it again with the same settings.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.folder.path().join(SETTINGS));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Starts another one with the same state directory, on any other ports.
    pub(crate) fn start_twin(&self) -> Process {
        let listeners = "dns: {address: \"127.0.0.1:0\"}\nhttp: {address: \"127.0.0.1:0\"}\n";
        let file = self.folder.path().join("twin.yaml");
        std::fs::write(&file, self.head.clone() + listeners).expect("a file can be written");
        spawn(&file)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end and demands success.
    pub(crate) fn expect_success(&mut self, limit: Duration) {
        self.process.expect_success(limit);
    }

    /// One of its metrics, by its whole name; `None` when it does not tell it.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let text = http::get(self.http.number(), "/metrics").ok()?.body;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Where it keeps what outlives it.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

const SETTINGS: &str = "sidecar.yaml";

fn spawn(settings: &Path) -> Process {
    let mut command = rollcall();
    command.arg("sidecar").arg("-c").arg(settings);
    Process::start("rollcall sidecar", &mut command)
}
