//! A real Apache ZooKeeper server, of Debian's package `zookeeper` (3.8.0), as a child process.
//!
//! Use it by `#[path = "common/apache.rs"] mod apache;`. A peer that is missing fails the test and says what to
//! install. The server listens on loopback, on a port outside the range that the kernel hands to outgoing
//! connections, so that one that was killed gets its port back.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use rollcall::clock;

const JAR: &str = "/usr/share/java/zookeeper.jar";
/// The first binding of slf4j on the class path is the one used: the simple one logs to stderr.
const CLASS_PATH: &str = "/usr/share/java/slf4j-simple.jar:/usr/share/java/*";
const INSTALL: &str = "install Debian's packages `zookeeper` and `default-jre-headless`";
const START_DEADLINE: Duration = Duration::from_secs(60);
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// A connection that a starting server takes too early is never answered: ask again soon.
const STARTING_ANSWER_DEADLINE: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(20);
/// Sessions last 2 to 20 ticks: 1 to 10 s.
const TICK_MS: u32 = 500;

/// A standalone server; killed by its pid when dropped.
#[derive(Debug)]
pub(crate) struct ApacheServer {
    process: Child,
    address: SocketAddr,
    data_dir: PathBuf,
}

#[allow(dead_code, reason = "each test that includes this file uses its own part of it")]
impl ApacheServer {
    /// Starts a server on `data_dir` and a free port of loopback, and waits until it serves.
    ///
    /// # Panics
    ///
    /// When Apache ZooKeeper is not installed or does not come up.
    pub(crate) fn start(data_dir: &Path) -> Self {
        let mut last_failure = String::new();
        for _attempt in 0..5 {
            match Self::try_start(data_dir, free_port()) {
                Ok(server) => return server,
                Err(failure) => last_failure = failure,
            }
        }
        panic!("Apache ZooKeeper did not start on {}: {last_failure}", data_dir.display());
    }

    /// Starts a server on a `zoo.cfg` that has this data folder and a free port in it.
    ///
    /// # Panics
    ///
    /// As [`ApacheServer::start`].
    pub(crate) fn start_on(zoo_cfg: &Path, data_dir: &Path, port: u16) -> Self {
        Self::run(&[zoo_cfg.as_os_str()], data_dir, port).unwrap_or_else(|failure| {
            panic!("Apache ZooKeeper did not start on {}: {failure}", zoo_cfg.display())
        })
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder that it was started on.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The id of the process that serves: no shell stands between.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends the process as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _already_gone = self.process.kill();
        let _status = self.process.wait();
    }

    /// Kills the process if it still runs, and starts another on the same folder and port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        *self = Self::try_start(&self.data_dir.clone(), self.address.port())
            .unwrap_or_else(|failure| panic!("Apache ZooKeeper did not start again: {failure}"));
    }

    /// What the server answers to a four-letter word; empty when it does not answer.
    pub(crate) fn four_letter_word(&self, word: &str) -> String {
        four_letter_word(self.address, word, ANSWER_DEADLINE).unwrap_or_default()
    }

    fn try_start(data_dir: &Path, port: u16) -> Result<Self, String> {
        let (port_text, tick) = (port.to_string(), TICK_MS.to_string());
        Self::run(&[port_text.as_ref(), data_dir.as_os_str(), tick.as_ref()], data_dir, port)
    }

    fn run(arguments: &[&OsStr], data_dir: &Path, port: u16) -> Result<Self, String> {
        assert!(Path::new(JAR).exists(), "{JAR} is missing: {INSTALL}");
        let log_path = data_dir.join("server.log");
        let log = File::create(&log_path).map_err(|error| format!("{}: {error}", log_path.display()))?;
        let process = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", CLASS_PATH])
            .args(["-Dzookeeper.admin.enableServer=false", "-Dzookeeper.4lw.commands.whitelist=*"])
            .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run java: {error}; {INSTALL}"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self { process, address, data_dir: data_dir.to_owned() };
        server.wait_until_serving(&log_path).map(|()| server)
    }

    /// Waits for the answer to `conf`, which names the folder: another server on the port is not taken for ours.
    fn wait_until_serving(&mut self, log_path: &Path) -> Result<(), String> {
        let deadline = clock::now() + START_DEADLINE;
        let expected = format!("dataDir={}", self.data_dir.display());
        loop {
            let answer = four_letter_word(self.address, "conf", STARTING_ANSWER_DEADLINE);
            if answer.is_ok_and(|answer| answer.contains(&expected)) {
                return Ok(());
            }
            let exited = self.process.try_wait().ok().flatten();
            if exited.is_some() || clock::now() > deadline {
                let log = std::fs::read_to_string(log_path).unwrap_or_default();
                return Err(format!("port {}, status {exited:?}, log:\n{log}", self.address.port()));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for ApacheServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn four_letter_word(address: SocketAddr, word: &str, within: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(within))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A port between 20000 and 30000 that nobody listens on; each process starts its search elsewhere.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 997).expect("below 997") * 10;
    (0..10_000)
        .map(|_try| 20_000 + (start + TAKEN.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of ten thousand ports is free")
}
