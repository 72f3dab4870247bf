//! exec checks: a program of ours to start, whose exit status is the answer.
//!
//! - No shell: the arguments are those of the settings, one for one.
//! - The program gets nothing from us that it was not given: no environment but `PATH` and the check's own, no working
//!   directory but `/`, no input.
//! - It is started in a process group of its own. The group is killed when the check is over, however it is over: the
//!   program has exited, its time is up, or the check is dropped. What has left the group (`setsid`) is out of reach.
//! - No zombies: tokio waits for the program itself, also after the check was dropped. What the program has left behind
//!   becomes a child of process 1; where that is ourselves, as in a container, it is waited for at the next check.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::failure::CheckFailure;
use super::tcp::is_own_shortage;

/// A program to start.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecTarget {
    /// The program, absolute or to be found in `PATH`, and its arguments.
    pub command: Vec<String>,
    /// Its environment; without `PATH`, that of the sidecar is added.
    pub env: BTreeMap<String, String>,
}

/// Why a program has not passed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It cannot be started.
    #[error("it cannot be started: {0}; give the absolute path of a program that is there and executable")]
    Start(io::Error),
    /// It has ended, and not with status 0.
    #[error("{status}{}", output_text(.output))]
    Exit {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote first, at most [`OUTPUT_BYTES_MAX`] bytes.
        output: Vec<u8>,
    },
}

/// The process groups that were killed and may still have members that are ours to wait for.
#[derive(Debug, Default)]
pub(super) struct KilledGroups(Vec<Pid>);

impl std::fmt::Debug for ExecTarget {
    /// Arguments and environment may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.env.keys().collect();
        f.debug_struct("ExecTarget")
            .field("program", &self.program())
            .field("env", &names)
            .finish_non_exhaustive()
    }
}

impl ExecTarget {
    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        command.args(self.command.iter().skip(1)).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.envs(&self.env).current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }
}

/// Starts the program and waits for it. Dropped before that, it kills it with all of its group.
pub(super) async fn ask(target: &ExecTarget, killed: &mut KilledGroups) -> Result<(), CheckFailure> {
    killed.reap();
    let failure = |error| CheckFailure::Exec { program: target.program().to_owned(), error };
    let start = |source| {
        if is_own_shortage(&source) || is_out_of_processes(&source) {
            CheckFailure::NotAsked { source }
        } else {
            failure(ExecError::Start(source))
        }
    };
    // 1. One pipe for both outputs, so that they stay in order.
    let (reader, writer) = io::pipe().map_err(start)?;
    let mut output = Output::new(pipe::Receiver::from_owned_fd(reader.into()).map_err(start)?);
    let mut command = target.command();
    command.stdout(writer.try_clone().map_err(start)?).stderr(writer);
    let mut group = Group::new(command.spawn().map_err(start)?, killed);
    // Our ends of the pipe go with the command: it ends when the program's do.
    drop(command);
    // 2. The exit, and meanwhile the output, so that the program is not held up by a full pipe.
    let status = tokio::select! {
        biased;
        status = group.child.wait() => status,
        never = output.drain() => match never {},
    };
    group.kill();
    let status = status.map_err(|source| CheckFailure::NotAsked { source })?;
    if status.success() {
        return Ok(());
    }
    // 3. What it wrote last is still in the pipe. Whoever has left the group may hold the pipe open, so not for long.
    let _it_may_be_over = tokio::time::timeout(LAST_OUTPUT_WAIT, output.drain_to_end()).await;
    Err(failure(ExecError::Exit { status, output: output.kept }))
}

/// What the program writes: the first bytes are kept, the others dropped.
struct Output {
    reader: pipe::Receiver,
    kept: Vec<u8>,
    is_over: bool,
}

impl Output {
    fn new(reader: pipe::Receiver) -> Self {
        Self { reader, kept: Vec::new(), is_over: false }
    }

    /// Reads for ever.
    async fn drain(&mut self) -> std::convert::Infallible {
        self.drain_to_end().await;
        std::future::pending().await
    }

    async fn drain_to_end(&mut self) {
        let mut buffer = [0; 4096];
        while !self.is_over {
            // No more can be had from a pipe that cannot be read; the exit still counts.
            let bytes = self.reader.read(&mut buffer).await.unwrap_or(0);
            let room = OUTPUT_BYTES_MAX - self.kept.len();
            self.kept.extend_from_slice(&buffer[..bytes.min(room)]);
            self.is_over = bytes == 0;
        }
    }
}

/// A running program with all that it has started; killed when this is dropped.
struct Group<'a> {
    child: Child,
    /// The group's number; `None` once it was killed.
    leader: Option<Pid>,
    killed: &'a mut KilledGroups,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

impl<'a> Group<'a> {
    fn new(child: Child, killed: &'a mut KilledGroups) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { child, leader: id.and_then(Pid::from_raw), killed }
    }

    /// Kills whatever is in the group.
    fn kill(&mut self) {
        let Some(leader) = self.leader.take() else { return };
        // The number is still our group's: until the program was waited for it is the program's, and then that of what is
        // left. An empty group's number is given out again only after all others, and we come here right after the wait.
        if kill_process_group(leader, Signal::KILL).is_ok() {
            self.killed.add(leader);
        }
    }
}

impl KilledGroups {
    fn add(&mut self, group: Pid) {
        if self.0.len() < KILLED_GROUPS_MAX {
            self.0.push(group);
        }
    }

    /// Waits for those members that are children of this process and have ended.
    fn reap(&mut self) {
        self.0.retain(|group| {
            loop {
                match waitpgid(*group, WaitOptions::NOHANG) {
                    Ok(Some(_)) | Err(Errno::INTR) => {}
                    // Some live on, killed or not, and are looked at again.
                    Ok(None) => return true,
                    Err(_none_is_ours) => return false,
                }
            }
        });
    }
}

/// Whether there was no process to be had.
fn is_out_of_processes(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::AGAIN)
}

/// The output as part of one line of the log.
fn output_text(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    let text: String = text.trim().chars().map(printable).collect();
    if text.is_empty() { text } else { format!(", with the output: {text}") }
}

/// Bytes of the output that are kept for the log: enough for a message, too few for a flood.
const OUTPUT_BYTES_MAX: usize = 4 * 1024;
/// How long the rest of the output may take once the program has exited.
const LAST_OUTPUT_WAIT: Duration = Duration::from_millis(50);
/// Killed groups that are remembered. One more is forgotten: at worst, its zombies stay until this process ends.
const KILLED_GROUPS_MAX: usize = 64;

#[cfg(test)]
mod tests;
