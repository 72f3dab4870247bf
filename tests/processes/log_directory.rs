//! A `zoo.cfg` whose logs have a directory of their own, as that of Apache's container image: whoever starts on it finds what the
//! other wrote.

use std::path::Path;
use std::time::Duration;

use crate::apache::ApacheServer;
use crate::support::dev::rollcall;
use crate::support::{Port, Process, RawClient, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const TIMEOUT_MS: i32 = 10_000;

#[test]
fn logs_in_a_directory_of_their_own_go_from_apache_to_us_and_back() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = |name: &str| folder.path().join(name);
    let (data, logs, zoo_cfg, port) = (path("data"), path("datalog"), path("zoo.cfg"), Port::free());
    std::fs::create_dir(&data).expect("a folder can be made");
    let text = format!(
        "tickTime=500\ninitLimit=5\nsyncLimit=2\ndataDir={}\ndataLogDir={}\nclientPortAddress=127.0.0.1\nclientPort={}\nsnapCount=20\n",
        data.display(),
        logs.display(),
        port.number()
    );
    std::fs::write(&zoo_cfg, &text).expect("a file can be written");

    for turn in 0..4 {
        if turn % 2 == 0 {
            let _server = ApacheServer::start_on(&zoo_cfg, &data, port.number());
            add_and_find(&port, turn);
        } else {
            let _member = start_ours(&zoo_cfg);
            add_and_find(&port, turn);
        }
    }
    assert!(names(&data).iter().all(|name| !name.starts_with("log.")), "{:?}", names(&data));
    assert!(names(&logs).iter().all(|name| name.starts_with("log.")), "{:?}", names(&logs));

    // Without its logs it would not know what it has acknowledged.
    std::fs::write(&zoo_cfg, text.replace("dataLogDir", "#dataLogDir")).expect("a file can be written");
    let mut command = rollcall();
    let output = command.arg("ensemble").arg("--zoo-cfg").arg(&zoo_cfg).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("datalog/version-2") && told.contains("log_dir"),
        "{told}"
    );
}

fn start_ours(zoo_cfg: &Path) -> Process {
    Process::start("rollcall ensemble", rollcall().arg("ensemble").arg("--zoo-cfg").arg(zoo_cfg))
}

/// Adds znodes, more than go into one log, and finds those of all turns so far; the server is killed thereafter.
fn add_and_find(port: &Port, turn: usize) {
    let mut client = wait_for("a session", LIMIT, || RawClient::connect(&port.address(), TIMEOUT_MS).ok());
    for number in 0..50 {
        let reply = client.create(&format!("/turn{turn}-{number}"), Some(b"x"), 0).expect("it answers");
        assert_eq!(reply.error, 0, "/turn{turn}-{number}");
    }
    let children = client.children("/").expect("it answers");
    let of_turns = children.iter().filter(|name| name.starts_with("turn")).count();
    assert_eq!(of_turns, 50 * (turn + 1), "{children:?}");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join("version-2")).expect("it can be read");
    entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect()
}
