//! A sidecar that listens on all addresses, with several workers: each answer comes from the address that was asked. In a network
//! namespace, since nobody else is to reach it.

use std::time::Duration;

use crate::support::dev::ROLLCALL;
use crate::support::{Dig, Namespace, Process, dig_with, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn answers_come_from_the_address_that_was_asked() {
    // Of IPv4, of IPv6, and of both by one socket.
    for (listen, asked) in [
        ("0.0.0.0:53", &["127.0.0.1", "127.9.9.9", "10.9.9.9"][..]),
        ("[::]:53", &["::1", "fd00:9::9", "127.0.0.1", "127.9.9.9", "10.9.9.9"]),
    ] {
        let namespace = Namespace::make();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("dev.yaml");
        let settings = format!(
            "dns: {{address: '{listen}', workers: 3}}\n\
             services: [{{name: web, id: web-1, addresses: [10.0.0.1], port: 80, checks: []}}]\n"
        );
        std::fs::write(&file, settings).expect("a file can be written");
        let mut command = namespace.command(ROLLCALL);
        let _rollcall = Process::start(
            "rollcall dev",
            command.arg("dev").arg("-c").arg(&file).env("TMPDIR", folder.path()),
        );
        // dig takes no answer that comes from elsewhere, and says so.
        let dig = |server: &str, transport: &str| -> Dig {
            let mut dig = namespace.command("dig");
            dig.args([
                &format!("@{server}"),
                transport,
                "+tries=1",
                "+time=5",
                "web.default.rollcall.internal",
            ]);
            dig_with(&mut dig)
        };
        wait_until("it answers", LIMIT, || dig("127.0.0.1", "+tcp").answers("A") == ["10.0.0.1"]);
        for server in asked {
            // Each from a port of its own, so that several workers have some.
            for _ in 0..6 {
                let answer = dig(server, "+notcp");
                assert_eq!(answer.answers("A"), ["10.0.0.1"], "{listen}, {server}: {}", answer.text);
                assert!(!answer.text.contains("unexpected source"), "{}", answer.text);
            }
        }
    }
}
