//! `conf` and `envi`: how a member is set up, and what it runs on.
//!
//! Source: `ZooKeeperServer.dumpConf`, `QuorumZooKeeperServer.dumpConf`, `Environment.java` of Apache ZooKeeper; what does not exist
//! here is left out.

use std::fmt::{Display, Write};

use super::VERSION;
use crate::ensemble::members::MemberRole;
use crate::ensemble::settings::{MemberSettings, PeersSettings};
use crate::storage::FileDisk;
use crate::znode::SessionTimeouts;

/// Lines of `key=value`.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, key: &str, value: impl Display) {
        writeln!(self.0, "{key}={value}").expect("a String takes whatever is written");
    }
}

/// The settings by Apache's names.
pub(super) fn conf(settings: &MemberSettings, port: u16) -> String {
    let timeouts = settings.session_timeouts.unwrap_or(SessionTimeouts::from_tick(settings.tick));
    let log_dir = settings.log_dir.as_ref().unwrap_or(&settings.data_dir);
    let mut lines = Lines::default();
    lines.add("clientPort", port);
    lines.add("secureClientPort", -1);
    lines.add("dataDir", settings.data_dir.join(FileDisk::FOLDER).display());
    lines.add("dataLogDir", log_dir.join(FileDisk::FOLDER).display());
    lines.add("tickTime", settings.tick.as_millis());
    lines.add("maxClientCnxns", settings.address_connections_max.unwrap_or(0));
    lines.add("minSessionTimeout", timeouts.min.as_millis());
    lines.add("maxSessionTimeout", timeouts.max.as_millis());
    lines.add("serverId", settings.server_id);
    if let Some(peers) = &settings.peers {
        add_ensemble(&mut lines, settings, peers);
    }
    lines.0
}

fn add_ensemble(lines: &mut Lines, settings: &MemberSettings, peers: &PeersSettings) {
    lines.add("initLimit", peers.init_limit);
    lines.add("syncLimit", peers.sync_limit);
    // Fast leader election, the only kind that is left.
    lines.add("electionAlg", 3);
    if let Some(own) = peers.members.get(settings.server_id) {
        lines.add("electionPort", own.election.port);
        lines.add("quorumPort", own.quorum.port);
        lines.add("peerType", u8::from(own.role == MemberRole::Observer));
    }
    lines.0.push_str("membership: \n");
    lines.0.push_str(&peers.members.to_config_text());
    lines.0.push('\n');
}

/// The machine.
pub(super) fn envi() -> String {
    let system = rustix::system::uname();
    let mut lines = Lines("Environment:\n".to_owned());
    lines.add("zookeeper.version", VERSION);
    lines.add("host.name", system.nodename().to_string_lossy());
    lines.add("os.name", system.sysname().to_string_lossy());
    lines.add("os.arch", system.machine().to_string_lossy());
    lines.add("os.version", system.release().to_string_lossy());
    lines.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn conf_has_apaches_keys() {
        let settings = MemberSettings {
            data_dir: "/data".into(),
            log_dir: Some("/datalog".into()),
            tick: Duration::from_millis(500),
            ..MemberSettings::default()
        };
        assert_eq!(
            conf(&settings, 2182),
            "clientPort=2182\nsecureClientPort=-1\ndataDir=/data/version-2\ndataLogDir=/datalog/version-2\ntickTime=500\n\
             maxClientCnxns=0\nminSessionTimeout=1000\nmaxSessionTimeout=10000\nserverId=1\n"
        );
    }
}
