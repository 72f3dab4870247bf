//! What a sidecar's process makes of its state directory: whose it is, and what is damaged in it.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::json;

use crate::support::{Port, Sidecar, http, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_second_sidecar_on_a_state_directory_does_not_start_and_says_why() {
    let nobody = Port::free();
    let mut first = Sidecar::start(&nobody.address(), "");
    answers(&first);
    let mut second = first.start_twin();
    assert_eq!(second.wait(LIMIT).code(), Some(1));
    let (told, folder) = (second.log(), first.state_dir());
    assert!(told.contains(folder.to_str().expect("a path of ours")), "{told}");
    assert!(told.contains("give each a directory of its own"), "{told}");
    answers(&first);

    // It is nobody's any more once the process is gone, however it went.
    first.restart();
    answers(&first);
}

#[test]
fn damaged_files_are_set_aside_and_the_sidecar_starts() {
    let nobody = Port::free();
    let mut sidecar = Sidecar::start(&nobody.address(), "");
    answers(&sidecar);
    let state_dir = sidecar.state_dir();
    let file = |name: &str| state_dir.join(name);
    wait_until("it keeps that it runs", LIMIT, || file("failback").exists());
    sidecar.kill();
    let names = ["owner", "failback", "maintenance", "view"];
    for damaged in names {
        std::fs::write(file(damaged), "{\n").expect("it can be written");
    }
    sidecar.restart();
    answers(&sidecar);
    for name in names {
        let aside = file(&format!("{name}.damaged"));
        assert_eq!(std::fs::read_to_string(&aside).expect("it was set aside"), "{\n");
        assert!(sidecar.log().contains(aside.to_str().expect("a path of ours")), "{}", sidecar.log());
    }
    assert_eq!(std::fs::read_to_string(file("owner")).expect("there is another").len(), 32);
}

#[test]
fn what_is_no_file_does_not_hang_the_start_and_is_named() {
    let nobody = Port::free();
    let mut sidecar = Sidecar::start(&nobody.address(), "");
    answers(&sidecar);
    sidecar.kill();
    for name in ["lock", "owner", "failback"] {
        let path = sidecar.state_dir().join(name);
        let _there_is_none = std::fs::remove_file(&path);
        make_fifo(&path);
        let mut refused = sidecar.start_twin();
        assert_eq!(refused.wait(LIMIT).code(), Some(1));
        let told = format!("{} is no regular file; remove it", path.display());
        assert!(refused.log().contains(&told), "{}", refused.log());
        std::fs::remove_file(&path).expect("it is there");
    }
    // It can do without these.
    for name in ["maintenance", "view"] {
        let path = sidecar.state_dir().join(name);
        make_fifo(&path);
        sidecar.restart();
        answers(&sidecar);
        let told = format!("{} is no regular file; remove it", path.display());
        assert!(sidecar.log().contains(&told), "{}", sidecar.log());
        std::fs::remove_file(&path).expect("it is there");
    }
}

#[test]
fn a_directory_that_is_removed_is_made_anew_with_what_the_sidecar_knows() {
    let nobody = Port::free();
    let sidecar = Sidecar::start(&nobody.address(), "");
    answers(&sidecar);
    let file = |name: &str| sidecar.state_dir().join(name);
    wait_until("it keeps that it runs", LIMIT, || file("failback").exists());
    let read = |name: &str| std::fs::read_to_string(file(name)).expect("it was written");
    let (owner, failback) = (read("owner"), read("failback"));
    std::fs::remove_dir_all(sidecar.state_dir()).expect("it is there");
    wait_until("all of it is there again", LIMIT, || {
        file("failback").exists() && file("maintenance").exists()
    });
    assert_eq!((read("owner"), read("failback")), (owner, failback));
    assert_eq!(sidecar.log().matches("the state directory was removed or replaced").count(), 1);
    let mut second = sidecar.start_twin();
    assert_eq!(second.wait(LIMIT).code(), Some(1), "it has its lock");
    let status = http::get(sidecar.http.number(), "/api/v1/status").expect("it answers").json();
    let folder = sidecar.state_dir();
    assert_eq!(status["state_dir"], json!({"folder": folder, "losses": 1, "trouble": null}));
}

fn make_fifo(path: &Path) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).expect("a FIFO can be made");
}

fn answers(sidecar: &Sidecar) {
    wait_until("it answers", LIMIT, || http::get(sidecar.http.number(), "/api/v1/status").is_ok());
}
