//! A member's process: started, signalled by its id, and ended for certain.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// A child process; killed by its id, also when it is stopped, and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command`; what it says is appended to the file `log`.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = append(log);
        let second = file.try_clone().expect("a handle can be cloned");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(second).spawn();
        let child = child.unwrap_or_else(|error| {
            let program = command.get_program().display();
            panic!("cannot run {program}: {error}; tests/run installs what is missing")
        });
        Self { name: name.to_owned(), child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has an id");
        kill_process(id, signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Whether all its threads are stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).expect("a child has threads");
        let states =
            threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        // The state follows the name, which is in parentheses and may have some of its own.
        let is_stopped = |stat: &str| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        states.into_iter().all(|stat| is_stopped(&stat))
    }

    /// Ends it as `kill -9` does, and reaps it.
    pub(crate) fn kill(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn append(path: &Path) -> File {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Keeps a member's log below `target/tmp`, for whoever looks into a failure.
pub(crate) fn keep_log(log: &Path, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ensembles");
    let _exists = fs::create_dir_all(&folder);
    let kept = folder.join(format!("{name}-{}.log", std::process::id()));
    let _is_copied = fs::copy(log, &kept);
    kept
}
