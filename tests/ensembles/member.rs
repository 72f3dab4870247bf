//! One member of an ensemble, of either kind.
//!
//! Apache's is told by a `zoo.cfg`, ours by a settings file that says the same.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rollcall::clock;

use crate::certificates::{AUTHORITY, IDENTITY};
use crate::cluster::{Profile, TICK};
use crate::links;
use crate::port::Port;
use crate::process::{Process, Signal};
use crate::slow_sync::SlowSync;
use crate::wait::wait_for;

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Rollcall,
    Apache,
}

/// One member: its addresses and files, and its process while it runs.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: u8,
    pub(crate) kind: Kind,
    host: Ipv4Addr,
    client: Port,
    quorum: Port,
    election: Port,
    /// Of `/metrics`, where the kind has it.
    status: Port,
    folder: PathBuf,
    slow_sync: Option<SlowSync>,
    process: Option<Process>,
    is_stopped: bool,
}

/// What a member says it is, by `srvr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Leader,
    Follower,
}

const WORD_LIMIT: Duration = Duration::from_millis(400);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a JVM may take to tell what its threads do, the last of which are its own.
const DUMP_LIMIT: Duration = Duration::from_secs(5);
const DUMP_END: &str = "JNI global refs";
/// What ours say in their logs: also whom they cannot reach on the election port, and that they look for a leader.
const FILTER: &str = "info,rollcall::ensemble::election_port=debug,rollcall::zab=debug";
/// The last five are for TLS, whose detection is written with types of them (`UnifiedServerSocket`).
const JARS: [&str; 9] = [
    "zookeeper.jar",
    "zookeeper-jute.jar",
    "slf4j-api.jar",
    "slf4j-simple.jar",
    "netty-buffer.jar",
    "netty-codec.jar",
    "netty-common.jar",
    "netty-handler.jar",
    "netty-transport.jar",
];
const JAVA_OPTIONS: &str = "java.options";
const JAR_FOLDER: &str = "/usr/share/java";

impl Member {
    /// Makes the folder of member `id` below `folder`. Each member has an address of loopback of its own.
    pub(crate) fn new(id: u8, kind: Kind, folder: &Path) -> Self {
        let folder = folder.join(format!("m{id}"));
        std::fs::create_dir_all(folder.join("data")).expect("a folder can be made");
        Self {
            id,
            kind,
            host: Ipv4Addr::new(127, 0, 0, 10 + id),
            client: Port::free(),
            quorum: Port::free(),
            election: Port::free(),
            status: Port::free(),
            folder,
            slow_sync: None,
            process: None,
            is_stopped: false,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("m{}", self.id)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.host, self.client.number()))
    }

    /// Where it listens for other members.
    pub(crate) fn peer_addresses(&self) -> [SocketAddr; 2] {
        [&self.quorum, &self.election].map(|port| SocketAddr::from((self.host, port.number())))
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder with `myid` and `version-2`.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where logs and snapshots are.
    pub(crate) fn version_2(&self) -> PathBuf {
        self.data().join("version-2")
    }

    /// Writes `myid`.
    pub(crate) fn name_itself(&self) {
        std::fs::write(self.data().join("myid"), format!("{}\n", self.id)).expect("a file can be written");
    }

    /// Writes its settings file.
    pub(crate) fn configure(&self, members: &[Self], profile: &Profile) {
        let text = match self.kind {
            Kind::Apache => self.zoo_cfg(members, profile),
            Kind::Rollcall => self.yaml(members, profile),
        };
        std::fs::write(self.configuration(), text).expect("a file can be written");
        // The one setting that its configuration file cannot hold.
        let of_java = if profile.is_read_only_mode_on { "-Dreadonlymode.enabled=true\n" } else { "" };
        std::fs::write(self.folder.join(JAVA_OPTIONS), of_java).expect("a file can be written");
    }

    fn zoo_cfg(&self, members: &[Self], profile: &Profile) -> String {
        let servers = members.iter().map(|member| {
            let (id, host) = (member.id, self.host_of(member, profile));
            format!("server.{id}={host}:{}:{}\n", member.quorum.number(), member.election.number())
        });
        let local = if profile.has_local_sessions {
            "localSessionsEnabled=true\nlocalSessionsUpgradingEnabled=true\n"
        } else {
            ""
        };
        let from_log = if profile.is_log_sent { "" } else { "snapshotSizeFactor=-1\n" };
        format!(
            "tickTime={tick}\ninitLimit={init_limit}\nsyncLimit={sync_limit}\nmaxSessionTimeout={session}\n\
             snapCount={txns}\ndataDir={data}\nclientPort={port}\nclientPortAddress={host}\nmaxClientCnxns=0\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\n{from_log}{local}{tls}{servers}",
            tick = TICK.as_millis(),
            init_limit = profile.init_limit,
            sync_limit = profile.sync_limit,
            session = profile.session_timeout_max.as_millis(),
            txns = profile.snapshot_txns,
            data = self.data().display(),
            port = self.client.number(),
            host = self.host,
            tls = if profile.is_encrypted { self.apache_tls() } else { String::new() },
            servers = servers.collect::<String>(),
        )
    }

    fn yaml(&self, members: &[Self], profile: &Profile) -> String {
        let entries = members.iter().map(|member| {
            let (id, host) = (member.id, self.host_of(member, profile));
            let (quorum, election) = (member.quorum.number(), member.election.number());
            format!("  - {{id: {id}, host: {host}, quorum_port: {quorum}, election_port: {election}}}\n")
        });
        let (tick, limits) = if profile.has_default_timers {
            (String::new(), String::new())
        } else {
            let Profile { init_limit, sync_limit, .. } = profile;
            let limits = format!("init_limit: {init_limit}, sync_limit: {sync_limit}");
            (format!("tick: {}ms, ", TICK.as_millis()), limits)
        };
        format!(
            "server_id: {id}\ndata_dir: {data}\nstatus_address: {host}:{status}\n\
             client: {{address: '{address}', four_letter_words: [hash, isro, mntr, ruok, srvr]}}\n\
             member: {{{tick}snapshot_txns: {txns}, read_only_mode: {read_only}{local}}}\n\
             quorum: {{{tls}{limits}}}\n\
             log: {{format: text, filter: '{FILTER}'}}\nmembers:\n{entries}",
            id = self.id,
            data = self.data().display(),
            host = self.host,
            status = self.status.number(),
            address = self.address(),
            tls = if profile.is_encrypted { self.tls() } else { String::new() },
            read_only = profile.is_read_only_mode_on,
            txns = profile.snapshot_txns,
            local = if profile.has_local_sessions {
                ", local_sessions: true, local_sessions_upgrading: true"
            } else {
                ""
            },
            entries = entries.collect::<String>(),
        )
    }

    fn tls(&self) -> String {
        let [authority, identity] =
            [AUTHORITY, IDENTITY].map(|name| self.folder.join(name).display().to_string());
        format!("tls: {{cert: {identity}, key: {identity}, ca: {authority}}}, ")
    }

    fn apache_tls(&self) -> String {
        let [authority, identity] =
            [AUTHORITY, IDENTITY].map(|name| self.folder.join(name).display().to_string());
        format!(
            "sslQuorum=true\nssl.quorum.keyStore.type=PEM\nssl.quorum.keyStore.location={identity}\n\
             ssl.quorum.trustStore.type=PEM\nssl.quorum.trustStore.location={authority}\n"
        )
    }

    /// Where it looks for a member, itself too.
    fn host_of(&self, member: &Self, profile: &Profile) -> Ipv4Addr {
        if profile.is_linked && member.id != self.id { links::host(self.id, member.id) } else { member.host }
    }

    /// Makes its disk one that can be slowed down; to be called before it starts.
    pub(crate) fn prepare_slow_sync(&mut self) {
        self.slow_sync = Some(SlowSync::new(&self.folder));
    }

    /// How long its syncs take.
    pub(crate) fn slow_sync(&self) -> &SlowSync {
        self.slow_sync.as_ref().expect("the profile has the disks slowed down")
    }

    /// Starts the process; it may take a while until it serves.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name());
        let mut command = match self.kind {
            Kind::Apache => apache(&self.configuration()),
            Kind::Rollcall => rollcall(&self.configuration()),
        };
        if let Some(slow_sync) = &self.slow_sync {
            slow_sync.apply_to(&mut command);
        }
        self.process = Some(Process::start(&self.name(), &mut command, &self.log_path()));
        self.is_stopped = false;
    }

    /// Ends the process as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name())).id()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        let process = self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name()));
        process.signal(signal);
        match signal {
            Signal::STOP => {
                // Each thread stops when it next leaves the kernel, and may send something until then.
                wait_for("all threads are stopped", Duration::from_secs(10), || {
                    process.is_stopped().then_some(())
                });
                self.is_stopped = true;
            }
            Signal::CONT => self.is_stopped = false,
            _ => {}
        }
    }

    /// Has a JVM add to its log what each of its threads does, which tells who waits for whom.
    pub(crate) fn dump_threads(&mut self) {
        if self.kind == Kind::Apache && self.is_running() {
            self.signal(Signal::QUIT);
            let begun = clock::now();
            while !self.log().contains(DUMP_END) && begun.elapsed() < DUMP_LIMIT {
                thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Whether its process is there, and not stopped.
    pub(crate) fn is_running(&mut self) -> bool {
        !self.is_stopped && self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// Whether it was started and has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_some())
    }

    /// Everything its processes have said.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Its state and the zxid it has applied; none while it serves nobody.
    pub(crate) fn state(&self) -> Option<(State, i64)> {
        let answer = self.four_letter_word("srvr").ok()?;
        let value = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let state = match value("Mode:")? {
            "leader" => State::Leader,
            "follower" => State::Follower,
            _ => return None,
        };
        let zxid = i64::from_str_radix(value("Zxid:")?.trim_start_matches("0x"), 16).ok()?;
        Some((state, zxid))
    }

    /// What it answers to a four-letter word.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(crate) fn four_letter_word(&self, word: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address(), WORD_LIMIT)?;
        stream.set_read_timeout(Some(WORD_LIMIT))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Up to where it has noted on disk that its history is committed; ours alone do.
    pub(crate) fn noted_as_committed(&self) -> Option<i64> {
        let line = std::fs::read_to_string(self.version_2().join("committed")).ok()?;
        i64::from_str_radix(line.split(' ').next()?, 16).ok()
    }

    /// What its process has in memory, in KiB.
    pub(crate) fn memory_kb(&self) -> u64 {
        let id = self.process.as_ref().map(Process::id).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
    }

    /// How many files and sockets its process has open.
    pub(crate) fn open_files(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.process_id()));
        open.expect("what a child has open can be read").count()
    }

    /// A value of its `/metrics`, of those without labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.get("/metrics").ok()?;
        let lines = answer.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(key, _)| *key == name).find_map(|(_, value)| value.trim().parse().ok())
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect((self.host, self.status.number()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Whether its log files hold a write of this value.
    pub(crate) fn has_logged(&self, value: &str) -> bool {
        self.files("log.").into_iter().any(|path| {
            let bytes = std::fs::read(path).expect("a log can be read");
            bytes.windows(value.len()).any(|window| window == value.as_bytes())
        })
    }

    /// Its files with this beginning of the name, by the zxid in it.
    pub(crate) fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.version_2()).expect("its folder can be read");
        let paths = folder.map(|entry| entry.expect("its folder can be read").path());
        let mut found: Vec<(i64, PathBuf)> = paths
            .filter_map(|path| {
                let zxid = path.file_name()?.to_str()?.strip_prefix(prefix)?;
                Some((i64::from_str_radix(zxid, 16).ok()?, path))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }

    /// The first txn in its logs.
    pub(crate) fn first_logged(&self) -> Option<i64> {
        let first = self.files("log.").into_iter().next()?;
        i64::from_str_radix(first.file_name()?.to_str()?.strip_prefix("log.")?, 16).ok()
    }

    /// Deletes everything but `myid`.
    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(self.version_2()).expect("its data can be removed");
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join(match self.kind {
            Kind::Apache => "zoo.cfg",
            Kind::Rollcall => "ensemble.yaml",
        })
    }
}

/// Apache's server, with what makes a JVM start fast and stay small.
fn apache(configuration: &Path) -> Command {
    let jars = JARS.map(|jar| format!("{JAR_FOLDER}/{jar}"));
    for jar in &jars {
        assert!(Path::new(jar).exists(), "{jar} is missing: tests/run installs Debian's package `zookeeper`");
    }
    let mut command = Command::new("java");
    command
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto"])
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        // Whom it sent TRUNC is said at this level only.
        .arg("-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.quorum.LearnerHandler=debug")
        // As is who is connected to whom for an election.
        .arg("-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.quorum.QuorumCnxManager=debug")
        .arg(format!("@{}", configuration.with_file_name(JAVA_OPTIONS).display()))
        .args(["-cp", &jars.join(":")])
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(configuration);
    command
}

/// Ours, untouched by the settings of whoever runs the tests.
fn rollcall(configuration: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROLLCALL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command.args(["ensemble", "--config"]).arg(configuration);
    command
}
