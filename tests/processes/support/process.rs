//! Child processes: started, listened to, signalled by their id, and ended when the test ends.

use rollcall::clock;
use rustix::process::{Pid, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::wait_for;

pub(crate) use rustix::process::Signal;

/// A child process of this test; killed by its id when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// What it says on stderr (and on stdout, when nobody reads that line by line).
    log: PathBuf,
    lines: Option<Receiver<String>>,
    stdin: Option<ChildStdin>,
    _folder: tempfile::TempDir,
}

impl Process {
    /// Starts `command`; what it prints goes to [`Process::log`].
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        Self::spawn(name, command.stdin(Stdio::null()), false)
    }

    /// Starts `command` to talk with it: [`Process::line`] reads its stdout, [`Process::say`] writes to its stdin.
    pub(crate) fn converse(name: &str, command: &mut Command) -> Self {
        Self::spawn(name, command.stdin(Stdio::piped()), true)
    }

    fn spawn(name: &str, command: &mut Command, is_conversation: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let log = folder.path().join("log");
        let file = File::create(&log).expect("a log file can be made");
        let second = file.try_clone().expect("a handle can be cloned");
        command.stderr(file);
        if is_conversation {
            command.stdout(Stdio::piped())
        } else {
            command.stdout(second)
        };
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "cannot run {}: {error}; tests/run installs what is missing",
                command.get_program().display()
            )
        });
        let stdin = child.stdin.take();
        let lines = child.stdout.take().map(|stdout| {
            let (sender, receiver) = channel();
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
            receiver
        });
        Self { name: name.to_owned(), child, log, lines, stdin, _folder: folder }
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The next line of its stdout.
    ///
    /// # Panics
    ///
    /// When none comes within `limit`, or the process ends.
    pub(crate) fn line(&self, limit: Duration) -> String {
        self.try_line(limit).unwrap_or_else(|| {
            panic!("{} said nothing for {limit:?}, or ended; its log:\n{}", self.name, self.log())
        })
    }

    /// The next line of its stdout; `None` after `limit` or at its end.
    pub(crate) fn try_line(&self, limit: Duration) -> Option<String> {
        let lines = self.lines.as_ref().expect("only asked of a conversation");
        lines.recv_timeout(limit).ok()
    }

    /// Skips lines until one contains `text`, and returns that one.
    ///
    /// # Panics
    ///
    /// When it does not come within `limit`.
    pub(crate) fn line_with(&self, text: &str, limit: Duration) -> String {
        let deadline = clock::now() + limit;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            let Some(line) = self.try_line(left) else {
                panic!(
                    "{} never said {text:?} within {limit:?}; it said:\n{}\nits log:\n{}",
                    self.name,
                    seen.join("\n"),
                    self.log()
                );
            };
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
    }

    /// Writes one line to its stdin.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("only said in a conversation");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap_or_else(|error| {
            panic!("{} does not listen any more: {error}", self.name);
        });
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id(), signal, &self.name);
    }

    /// Ends it as `kill -9` does, and reaps it.
    pub(crate) fn kill(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it still runs after `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait_for(&what, limit, || self.child.try_wait().expect("a child can be asked"))
    }

    /// Waits for its end and demands success.
    pub(crate) fn expect_success(&mut self, limit: Duration) {
        let status = self.wait(limit);
        assert!(status.success(), "{} ended with {status}; its log:\n{}", self.name, self.log());
    }
}

/// Sends a signal to a child of this test; `name` is for messages.
///
/// # Panics
///
/// When it was reaped.
pub(crate) fn send(id: u32, signal: Signal, name: &str) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a child has an id");
    kill_process(id, signal).unwrap_or_else(|error| panic!("cannot signal {name}: {error}"));
}

/// How much of a process is in memory, in KB of 1024 bytes.
///
/// # Panics
///
/// When it does not run.
pub(crate) fn resident_kb(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(40);
            eprintln!("--- the last lines of {}:\n{}\n---", self.name, lines[tail..].join("\n"));
        }
    }
}
