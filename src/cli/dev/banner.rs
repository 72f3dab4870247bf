//! What `rollcall dev` says when it is up.

use std::net::SocketAddr;

use crate::cli::output::table;
use crate::sidecar::SidecarSettings;

/// What listens where.
pub(super) struct Banner {
    /// How the program was called, so that the commands can be copied.
    pub(super) program: String,
    pub(super) client: SocketAddr,
    pub(super) dns: SocketAddr,
    pub(super) http: SocketAddr,
    /// With its final dot.
    pub(super) zone: String,
    /// Where the data lie.
    pub(super) data: String,
}

impl Banner {
    /// What listens where, and three commands to try.
    pub(super) fn text(&self) -> String {
        let Self { program, client, dns, http, zone, data } = self;
        let row = |what: &str, address: String, for_whom: String| vec![what.to_owned(), address, for_whom];
        let rows = vec![
            row("ensemble", client.to_string(), "ZooKeeper clients, rollcall zk".to_owned()),
            row("DNS", dns.to_string(), format!("UDP and TCP, zone {zone}")),
            row("HTTP", http.to_string(), "lookups, /livez, /readyz, /metrics".to_owned()),
        ];
        let other = if http.to_string() == SidecarSettings::HTTP_ADDR {
            String::new()
        } else {
            format!(" --http-addr {http}")
        };
        format!(
            "{}\ndata: {data}\n\nTry:\n  \
             dig @{} -p {} rollcall.default.{} SRV\n  \
             curl http://{http}/api/v1/services/default/rollcall\n  \
             {program} lookup rollcall{other}\n\n\
             Stop with Ctrl-C.",
            table(&["WHAT", "ADDRESS", "FOR"], rows),
            dns.ip(),
            dns.port(),
            zone.trim_end_matches('.'),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_fit_what_listens() {
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let usual = Banner {
            program: "target/release/rollcall".to_owned(),
            client: addr(2181),
            dns: addr(8600),
            http: addr(8500),
            zone: "rollcall.internal.".to_owned(),
            data: "/tmp/x".to_owned(),
        };
        let text = usual.text();
        assert!(
            text.contains("\n  dig @127.0.0.1 -p 8600 rollcall.default.rollcall.internal SRV\n"),
            "{text}"
        );
        assert!(text.contains("\n  target/release/rollcall lookup rollcall\n"), "{text}");
        let text = Banner { http: addr(9000), zone: "svc.".to_owned(), ..usual }.text();
        assert!(text.contains("lookup rollcall --http-addr 127.0.0.1:9000\n"), "{text}");
        assert!(text.contains(" rollcall.default.svc SRV\n") && text.contains("zone svc.\n"), "{text}");
    }
}
