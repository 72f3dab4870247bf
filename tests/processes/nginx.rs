//! nginx as Debian has it, on `config/nginx.conf`: the instances of the tier that is offered, found by their addresses.

use std::path::Path;
use std::process::Command;

use crate::support::{Fleet, Port, Process, adapted, proxied};

#[test]
fn nginx_sends_requests_to_whom_the_sidecar_offers() {
    let mut fleet = Fleet::start();
    let reader = fleet.reader();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let port = Port::free();
    let addresses = [
        ("127.0.0.1:8600", reader.dns.address()),
        ("127.0.0.1:8080", port.address()),
        ("$web:8081", format!("$web:{}", fleet.port())),
    ];
    let _nginx = start(folder.path(), &addresses);
    proxied::follow(&mut fleet, &reader, &[port.number()]);
}

fn start(folder: &Path, addresses: &[(&str, String)]) -> Process {
    let text = include_str!("../../config/nginx.conf");
    let file = folder.join("nginx.conf");
    std::fs::write(&file, adapted(text, addresses)).expect("a file can be written");
    // One process, which ends as a whole when it is killed.
    let globals = format!("daemon off; master_process off; pid {}/pid;", folder.display());
    let mut command = Command::new("/usr/sbin/nginx");
    Process::start("nginx", command.arg("-c").arg(file).args(["-e", "stderr", "-g", &globals]))
}
