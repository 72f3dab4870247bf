//! Knot DNS with one zone.

use std::path::Path;
use std::process::Command;

use super::Process;

/// A zone as Knot serves it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnotZone<'a> {
    pub(crate) domain: &'a str,
    /// The zone file.
    pub(crate) text: &'a str,
    pub(crate) is_signed: bool,
}

/// Starts it on a port of 127.0.0.1, with its files in `folder`; `command` says how a program is run.
///
/// # Panics
///
/// When it is not installed.
pub(crate) fn start_knot(
    folder: &Path,
    port: u16,
    zone: KnotZone<'_>,
    command: impl FnOnce(&str) -> Command,
) -> Process {
    std::fs::create_dir(folder.join("db")).expect("a folder can be made");
    std::fs::write(folder.join("zone"), zone.text).expect("a file can be written");
    let (policy, signing) = match zone.is_signed {
        true => (
            "policy:\n- id: quick\n  algorithm: ecdsap256sha256\n",
            "  dnssec-signing: on\n  dnssec-policy: quick\n",
        ),
        false => ("", ""),
    };
    let settings = format!(
        "server:\n  listen: 127.0.0.1@{port}\n  rundir: {folder}\n  pidfile: {folder}/pid\n\
         database:\n  storage: {folder}/db\n\
         log:\n- target: stderr\n  any: warning\n{policy}\
         zone:\n- domain: {domain}\n  storage: {folder}\n  file: zone\n  zonefile-sync: -1\n  journal-content: none\n{signing}",
        folder = folder.display(),
        domain = zone.domain,
    );
    std::fs::write(folder.join("knot.conf"), settings).expect("a file can be written");
    let program = ["/usr/sbin/knotd", "/usr/bin/knotd"].into_iter().find(|file| Path::new(file).exists());
    let program = program.expect("knotd is missing; install Debian's package knot");
    Process::start("knotd", command(program).arg("-c").arg(folder.join("knot.conf")))
}
