//! Apache's own Java command line (`ZooKeeperMain`), which is Apache's own Java client, against both servers.

use std::process::Command;
use std::time::Duration;

use crate::support::process::Signal;
use crate::support::{Kind, Process, Server, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn apaches_command_line_works_on_rollcall() {
    run_basics(Kind::Rollcall);
}

#[test]
fn apaches_command_line_works_on_apache() {
    run_basics(Kind::Apache);
}

#[test]
fn apaches_command_line_keeps_session_and_watches_over_a_restart_of_rollcall() {
    run_reconnect(Kind::Rollcall);
}

#[test]
fn apaches_command_line_keeps_session_and_watches_over_a_restart_of_apache() {
    run_reconnect(Kind::Apache);
}

#[test]
fn the_ephemeral_of_a_stopped_command_line_expires_on_rollcall() {
    run_expiry(Kind::Rollcall);
}

#[test]
fn the_ephemeral_of_a_stopped_command_line_expires_on_apache() {
    run_expiry(Kind::Apache);
}

/// What is typed, and a part of what is printed for it.
const DIALOGUE: &[(&str, &str)] = &[
    ("create /t", "Created /t"),
    ("create /t/a one", "Created /t/a"),
    ("get /t/a", "one"),
    ("create /t/a two", "Node already exists: /t/a"),
    ("set /t/a two", ""),
    ("get -s /t/a", "two"),
    ("stat /t/a", "dataVersion = 1"),
    ("set -v 7 /t/a three", "version No is not valid : /t/a"),
    ("create -e /t/e mine", "Created /t/e"),
    ("stat /t/e", "ephemeralOwner = 0x1"),
    ("create /t/e/child x", "Ephemerals cannot have children: /t/e"),
    ("create -s /t/s- x", "Created /t/s-0000000002"),
    ("create -e -s /t/s- x", "Created /t/s-0000000003"),
    ("ls /t", "[a, e, s-0000000002, s-0000000003]"),
    // One-shot watches.
    ("get -w /t/a", "two"),
    ("set /t/a watched", "type:NodeDataChanged path:/t/a"),
    ("ls -w /t", "s-0000000003]"),
    ("create /t/b", "type:NodeChildrenChanged path:/t"),
    ("stat -w /t/b", "numChildren = 0"),
    ("delete /t/b", "type:NodeDeleted path:/t/b"),
    // A persistent recursive watch, and `deleteall`, which is one transaction.
    ("create /tree", "Created /tree"),
    ("addWatch -m PERSISTENT_RECURSIVE /tree", ""),
    ("create /tree/one x", "type:NodeCreated path:/tree/one"),
    ("create /tree/one/two x", "type:NodeCreated path:/tree/one/two"),
    ("set /tree/one/two y", "type:NodeDataChanged path:/tree/one/two"),
    ("deleteall /tree", "type:NodeDeleted path:/tree/one/two"),
    ("stat /tree", "Node does not exist: /tree"),
    ("sync /t", "Sync is OK"),
    ("getAcl /t/a", "'world,'anyone"),
    ("delete /t/a", ""),
    ("get /t/a", "Node does not exist: /t/a"),
];

fn run_basics(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let mut shell = command_line(&server.address(), 10_000);

    for (typed, wanted) in DIALOGUE {
        shell.say(typed);
        if !wanted.is_empty() {
            shell.line_with(wanted, LIMIT);
        }
    }
    shell.say("quit");
    shell.wait(LIMIT);

    let mut observer = server.connect();
    let left = observer.children("/t").expect("the server answers");
    assert_eq!(left, ["s-0000000002"], "quitting closes the session and drops its ephemerals");
}

fn run_reconnect(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut server = Server::start(kind, folder.path());
    let mut shell = command_line(&server.address(), 20_000);
    shell.say("create -e /e mine");
    shell.line_with("Created /e", LIMIT);
    shell.say("create /watched x");
    shell.line_with("Created /watched", LIMIT);
    shell.say("stat /e");
    let owner = shell.line_with("ephemeralOwner", LIMIT);
    shell.say("get -w /watched");
    shell.say("addWatch -m PERSISTENT_RECURSIVE /below");
    shell.say("get /e");
    shell.line_with("mine", LIMIT);

    server.kill();
    shell.line_with("state:Disconnected", LIMIT);
    server.restart();
    shell.line_with("state:SyncConnected type:None", LIMIT);

    shell.say("stat /e");
    assert_eq!(shell.line_with("ephemeralOwner", LIMIT), owner);
    // The client has told the new process about its watches.
    let mut other = server.connect();
    other.set("/watched", b"y").expect("the server answers");
    shell.line_with("type:NodeDataChanged path:/watched", LIMIT);
    other.create("/below", Some(b""), 0).expect("the server answers");
    shell.line_with("type:NodeCreated path:/below", LIMIT);
    other.create("/below/deep", Some(b""), 0).expect("the server answers");
    shell.line_with("type:NodeCreated path:/below/deep", LIMIT);
}

fn run_expiry(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let mut shell = command_line(&server.address(), 4_000);
    shell.say("create -e /e mine");
    shell.line_with("Created /e", LIMIT);
    let mut observer = server.connect();

    shell.signal(Signal::STOP);
    wait_until("the ephemeral expires", Duration::from_secs(30), || {
        !observer.exists("/e").expect("the server answers")
    });
    shell.signal(Signal::CONT);

    shell.line_with("state:Expired", LIMIT);
}

/// Starts the command line; what it says on stderr comes with what it says on stdout.
fn command_line(address: &str, timeout_ms: u32) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh", "java", "-Xmx128m", "-XX:TieredStopAtLevel=1"]);
    command.args(["-cp", "/usr/share/java/slf4j-nop.jar:/usr/share/java/*"]);
    command.args(["org.apache.zookeeper.ZooKeeperMain", "-server", address]);
    command.args(["-timeout", &timeout_ms.to_string()]);
    let shell = Process::converse("Apache's command line", &mut command);
    shell.line_with("state:SyncConnected", LIMIT);
    shell
}
