//! Data directories change hands: what one server wrote, the other starts on and reads, znode by znode.

use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

use crate::kazoo::kazoo;
use crate::support::{Kind, Server, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn apache_reads_what_rollcall_wrote_and_rollcall_reads_what_apache_added() {
    hand_over(&[Kind::Rollcall, Kind::Apache, Kind::Rollcall]);
}

#[test]
fn rollcall_reads_what_apache_wrote_and_apache_reads_what_rollcall_added() {
    hand_over(&[Kind::Apache, Kind::Rollcall, Kind::Apache]);
}

#[test]
fn the_comparison_itself_holds_from_apache_to_apache() {
    hand_over(&[Kind::Apache, Kind::Apache]);
}

fn hand_over(kinds: &[Kind]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut before: Option<Map<String, Value>> = None;
    for (turn, kind) in kinds.iter().enumerate() {
        if turn > 0 {
            // A note of ours that may be there: Apache's leaves it be, and ours does not believe it.
            let note = folder.path().join("version-2/committed");
            std::fs::write(note, "00000001000000ff 0000002d 00000abc 00000000\n")
                .expect("a file can be written");
        }
        let mut server = Server::start(*kind, folder.path());
        if let Some(before) = &before {
            assert_same(before, &dump(&server), *kind);
            if *kind == Kind::Apache {
                assert_apache_is_content(folder.path());
            }
        }
        // Two writers with a crash between them: the server that comes next finds more than one log file.
        let mut first = fill(&server, &format!("/turn{turn}-first"));
        server.restart();
        let mut second = fill(&server, &format!("/turn{turn}-second"));
        let mut raw = server.connect();
        raw.create(&format!("/turn{turn}-null"), None, 0).expect("null data is written");
        if *kind == Kind::Rollcall {
            // `rollcall dev` registers itself, which changes the root once.
            wait_until("it has registered itself", LIMIT, || raw.exists("/rollcall").expect("it answers"));
        }
        raw.close().expect("the session is closed");
        before = Some(wait_for("the tree stands still", LIMIT, || {
            let one = dump(&server);
            (one == dump(&server)).then_some(one)
        }));
        server.kill();
        first.kill();
        second.kill();
    }

    // The last one also goes on with the sessions that it found: their ephemerals expire with them.
    let server = Server::start(*kinds.last().expect("somebody starts"), folder.path());
    let mut observer = server.connect();
    let path = format!("/turn{}-second", kinds.len() - 1);
    let is_ephemeral = |name: &String| name.starts_with("ephemeral");
    let children = observer.children(&path).expect("the server answers");
    assert!(children.iter().any(is_ephemeral), "{path} holds {children:?}");
    wait_until("the ephemerals of dead clients expire", LIMIT, || {
        !observer.children(&path).expect("the server answers").iter().any(is_ephemeral)
    });
}

fn fill(server: &Server, root: &str) -> crate::support::Process {
    let client = kazoo("fill", &server.address(), &[root]);
    client.line_with("ready", LIMIT);
    client
}

fn dump(server: &Server) -> Map<String, Value> {
    let client = kazoo("dump", &server.address(), &[]);
    serde_json::from_str(&client.line(LIMIT)).expect("the dump is a JSON object")
}

/// Every znode that was there is there, with the same data, ACL and stat, and no other.
fn assert_same(before: &Map<String, Value>, after: &Map<String, Value>, reader: Kind) {
    // `rollcall dev` goes on with its own registration until it is killed, and begins with it when it starts.
    let is_compared = |path: &str| {
        let is_its_own = path == "/rollcall" || path.starts_with("/rollcall/");
        !is_its_own && (path != "/" || reader == Kind::Apache)
    };
    for (path, znode) in before.iter().filter(|(path, _)| is_compared(path)) {
        assert_eq!(after.get(path), Some(znode), "{path} as {reader:?} reads it");
    }
    for path in after.keys().filter(|path| is_compared(path)) {
        assert!(before.contains_key(path), "{reader:?} made up {path}");
    }
    assert!(before.len() > 200, "only {} znodes were compared", before.len());
}

/// Apache checks digests of the whole tree while it replays, and says so when one differs.
fn assert_apache_is_content(folder: &Path) {
    let log = std::fs::read_to_string(folder.join("server.log")).expect("Apache writes a log");
    for line in log.lines() {
        let is_about_a_socket = line.contains("ServerCnxn");
        let is_complaint =
            line.contains("ERROR") || line.contains("not matching") || line.contains("mismatch");
        assert!(!is_complaint || is_about_a_socket, "Apache complains about what it found: {line}");
    }
}
