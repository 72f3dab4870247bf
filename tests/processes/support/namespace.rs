//! Network and mount namespaces of a test's own: loopback alone, port 53 free, and `/etc/resolv.conf` says what the test wants.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use super::Process;
use super::dev::clean_environment;

/// A pair of namespaces, which end with the last process in them.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// Whose namespaces they are; it waits for the end of its stdin, which is the end of the test.
    holder: Process,
    folder: tempfile::TempDir,
}

/// Loopback has an address and a route of each family, as a pod's interface has: without them resolvers would not ask for any
/// (`AI_ADDRCONFIG`) and could not sort what they get (RFC 6724). Files are mounted over those of the machine; whatever there is to look
/// hosts up beside files and DNS is switched off.
const SET_UP: &str = "set -e
ip link set lo up
ip address add 10.9.9.9/32 dev lo
ip -6 address add fd00:9::9/128 dev lo nodad
ip route add default dev lo
ip -6 route add default dev lo
for file in resolv.conf nsswitch.conf hosts; do mount --bind \"$1/$file\" \"/etc/$file\"; done
echo ready
exec cat";

impl Namespace {
    /// Makes them.
    ///
    /// # Panics
    ///
    /// When that is not allowed.
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (file, text) in [
            ("resolv.conf", ""),
            ("nsswitch.conf", "hosts: files dns\n"),
            ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ] {
            std::fs::write(folder.path().join(file), text).expect("a file can be written");
        }
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", SET_UP, "sh"])
            .arg(folder.path());
        let holder = Process::converse("unshare", &mut command);
        let said = holder.try_line(Duration::from_secs(20));
        assert!(
            said.as_deref() == Some("ready"),
            "cannot make network and mount namespaces, which this test needs to have port 53 and /etc/resolv.conf for itself; \
             run it as root (CAP_SYS_ADMIN and CAP_NET_ADMIN), with Debian's packages util-linux and iproute2; unshare said: {}",
            holder.log()
        );
        Self { holder, folder }
    }

    /// A command that runs `program` there, untouched by the settings of whoever runs the tests.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string(), "--"]).arg(program);
        clean_environment(&mut command);
        command
    }

    /// Has `/etc/resolv.conf` say this.
    pub(crate) fn write_resolv_conf(&self, text: &str) {
        // In place: what is mounted is the file, not its name.
        std::fs::write(self.folder.path().join("resolv.conf"), text).expect("a file can be written");
    }
}
