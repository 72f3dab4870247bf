use std::path::Path;
use std::sync::OnceLock;

use rustix::process::{getpid, set_child_subreaper};

use super::*;
use crate::registry::check::CheckTarget;
use crate::registry::check::runner::Asker;

#[tokio::test]
async fn a_program_passes_by_its_exit_status() {
    sh("exit 0").ask_within(LONG).await.unwrap();
    let failure = sh("echo out; echo err >&2; exit 3").ask_within(LONG).await.unwrap_err().to_string();
    assert_eq!(failure, "sh: exit status: 3, with the output: out err");
    let failure = sh("kill -9 $$").ask_within(LONG).await.unwrap_err().to_string();
    assert!(failure.starts_with("sh: signal: 9"), "{failure}");
    let mut missing = asker(&["/nowhere/check"]);
    let failure = missing.ask_within(LONG).await.unwrap_err();
    assert!(matches!(failure, CheckFailure::Exec { error: ExecError::Start(_), .. }), "{failure:?}");
    let mut folder = asker(&["/"]);
    assert!(folder.ask_within(LONG).await.unwrap_err().to_string().contains("/: it cannot be started"));
}

#[tokio::test]
async fn arguments_are_not_taken_apart_and_nothing_else_is_passed_on() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something that could be passed on");
    let test = r#"test "$1" = 'a  $HOME *' && test "$GIVEN" = yes && test -n "$PATH" && test "$(pwd)" = / &&
                  test -z "$CARGO_MANIFEST_DIR$HOME" && ! read -r line"#;
    let command = ["sh", "-c", test, "sh", "a  $HOME *"].map(str::to_owned).into();
    let target = ExecTarget { command, env: [("GIVEN".to_owned(), "yes".to_owned())].into() };
    Asker::new(CheckTarget::Exec(target)).ask_within(LONG).await.unwrap();
}

#[tokio::test]
async fn of_a_flood_of_output_the_first_4_kib_are_kept() {
    let failure = sh("head -c 1000000 /dev/zero | tr '\\0' x; exit 1").ask_within(LONG).await.unwrap_err();
    let CheckFailure::Exec { error: ExecError::Exit { output, .. }, .. } = failure else {
        panic!("{failure:?}")
    };
    assert_eq!(output, [b'x'; OUTPUT_BYTES_MAX]);
}

#[tokio::test]
async fn a_program_is_killed_with_its_children_at_the_timeout() {
    let pids = Pids::new();
    let script = format!("echo $$ >>{pids}; sleep 600 & echo $! >>{pids}; trap '' TERM; sleep 600");
    let mut asker = sh(&script);
    let check = tokio::spawn(async move { asker.ask_within(Duration::from_millis(500)).await });
    let started = pids.read(2).await;
    let result = check.await.unwrap();
    assert!(matches!(result, Err(CheckFailure::Timeout { .. })), "{result:?}");
    all_are_gone(&started).await;
}

#[tokio::test]
async fn a_program_is_killed_with_its_children_when_the_check_is_dropped() {
    let pids = Pids::new();
    let mut asker = sh(&format!("echo $$ >>{pids}; sleep 600 & echo $! >>{pids}; wait"));
    let check = tokio::spawn(async move { asker.ask_within(LONG).await });
    let started = pids.read(2).await;
    check.abort();
    all_are_gone(&started).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_killed_and_leaves_no_zombie() {
    let pids = Pids::new();
    // As process 1 of a container would be: whoever loses its parent becomes our child.
    static SUBREAPER: OnceLock<()> = OnceLock::new();
    SUBREAPER.get_or_init(|| set_child_subreaper(Some(getpid())).unwrap());
    let mut asker = sh(&format!("sleep 600 & echo $! >>{pids}; exit 0"));
    // It holds the output open, and the check is over all the same.
    asker.ask_within(LONG).await.unwrap();
    let started = pids.read(1).await;
    all_are_gone(&started).await;
    assert_eq!(state(started[0]), Some('Z'));
    asker.ask_within(LONG).await.unwrap();
    assert_eq!(state(started[0]), None);
}

#[test]
fn output_is_one_line_of_a_log() {
    assert_eq!(output_text(b" \n"), "");
    assert_eq!(output_text(b"a\n\x1b[31mb\xff\n"), ", with the output: a  [31mb\u{fffd}");
}

const LONG: Duration = Duration::from_secs(30);

fn sh(script: &str) -> Asker {
    asker(&["sh", "-c", script])
}

fn asker(command: &[&str]) -> Asker {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    Asker::new(CheckTarget::Exec(ExecTarget { command, env: BTreeMap::new() }))
}

/// A file into which programs write their process ids.
struct Pids(tempfile::NamedTempFile);

impl std::fmt::Display for Pids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.path().display().fmt(f)
    }
}

impl Pids {
    fn new() -> Self {
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    async fn read(&self, count: usize) -> Vec<i32> {
        let read = async {
            loop {
                let text = fs_err::read_to_string(self.0.path()).unwrap();
                let pids: Vec<_> = text.lines().filter_map(|line| line.parse().ok()).collect();
                if pids.len() == count && text.ends_with('\n') {
                    return pids;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LONG, read).await.expect("the programs start")
    }
}

/// The first is our child and must be no zombie; who waits for the others is not our business.
async fn all_are_gone(pids: &[i32]) {
    let gone = async {
        while pids.iter().any(|pid| state(*pid).is_some_and(|state| state != 'Z'))
            || (pids.len() > 1 && state(pids[0]).is_some())
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("killed");
}

fn state(pid: i32) -> Option<char> {
    let stat = fs_err::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
