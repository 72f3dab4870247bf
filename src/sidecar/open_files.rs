//! How many files, and so sockets, a sidecar may come to have open at a time by its settings. Pure.
//!
//! Where the system allows fewer, what comes last gets none: queries and lookups fail under load although no bound of ours is reached,
//! and the ensemble cannot be reached anew. So a start compares, and says what can be done.

use std::fmt;

use super::settings::SidecarPlan;
use crate::registry::check::CheckSource;

/// The files of each part when it is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// Sockets to upstreams, by `dns.forward.waiting_max`.
    pub forward: usize,
    /// DNS connections over TCP, by `dns.tcp.connections_max`.
    pub dns_tcp: usize,
    /// HTTP connections, by `http.connections_max`.
    pub http: usize,
    /// All others.
    pub others: usize,
}

impl OpenFiles {
    /// What `plan` allows.
    pub fn of(plan: &SidecarPlan) -> Self {
        let checks = plan.registrations.iter().flat_map(|registration| &registration.checks);
        let connecting = checks.filter(|check| matches!(check.source, CheckSource::Asked(_))).count();
        Self {
            forward: plan.forward.sockets_max(),
            dns_tcp: plan.dns_tcp.sockets_max(),
            http: plan.http.connections_max,
            others: FILES_ALWAYS + plan.dns_workers * FILES_OF_A_WORKER + connecting,
        }
    }

    /// All of them.
    pub const fn total(&self) -> usize {
        self.forward + self.dns_tcp + self.http + self.others
    }

    /// What lacks where a process may have `limit` files open, `None` for any number.
    pub fn shortage(self, limit: Option<u64>) -> Option<FilesShortage> {
        let limit = usize::try_from(limit?).unwrap_or(usize::MAX);
        (limit < self.total()).then_some(FilesShortage { limit, files: self })
    }
}

/// Fewer files than the settings allow; shows what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesShortage {
    limit: usize,
    files: OpenFiles,
}

impl fmt::Display for FilesShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, files } = self;
        let OpenFiles { forward, dns_tcp, http, others } = files;
        write!(
            f,
            "{limit} files may be open and the settings allow {}: {forward} to resolvers, {dns_tcp} of DNS over TCP, {http} of HTTP, \
             {others} others; raise the hard limit of open files (ulimit -Hn, LimitNOFILE=, --ulimit nofile=) to that",
            files.total()
        )?;
        // What no setting bounds stays.
        if others < limit {
            write!(
                f,
                ", or lower dns.forward.waiting_max, dns.tcp.connections_max and http.connections_max"
            )?;
        }
        Ok(())
    }
}

/// Standard streams, the ensemble's connection, watched and saved files, listeners, the runtime's own, lines to upstreams over TLS, and
/// the probes of the brake and of upstreams that were set back.
const FILES_ALWAYS: usize = 128;
/// Its sockets, and those of its runtime.
const FILES_OF_A_WORKER: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use crate::sidecar::SidecarSettings;

    #[test]
    fn every_bound_counts() {
        let files =
            |text: &str| OpenFiles::of(&parse(text, &Environment::empty(), SidecarSettings::plan).unwrap());
        // The system's file may name eight resolvers.
        let default = files("");
        assert_eq!(default, OpenFiles { forward: 512 * 8, dns_tcp: 768 + 64, http: 1024, others: 128 + 8 });
        assert_eq!(default.total(), 6088);
        let forward = |text: &str| files(&format!("dns: {{forward: {{{text}}}}}")).forward;
        assert_eq!(
            forward("upstreams: [10.0.0.53], waiting_max: 100"),
            100 * 5,
            "the file may say five attempts"
        );
        assert_eq!(forward("upstreams: [10.0.0.53], attempts: 2"), 512 * 2);
        assert_eq!(
            forward("upstreams: [10.0.0.53], attempts: 1, domains: {a.example: [10.0.0.1, 10.0.0.2]}"),
            512 * 2
        );
        assert_eq!(forward("upstreams: ['tls://10.0.0.53#a.example']"), 0, "they share a connection");
        assert_eq!(forward("enabled: false"), 0);
        assert_eq!(files("dns: {tcp: {connections_max: 10, client_connections_max: 10}}").dns_tcp, 10 + 64);
        assert_eq!(files("http: {connections_max: 64}").http, 64);
        let more = "{dns: {workers: 3}, address: 10.0.0.1, services: [{name: web, port: 80, checks: [{kind: tcp}, {kind: ttl, ttl: 9s}]}]}";
        assert_eq!(files(more).others, 128 + 3 * 8 + 1);
    }

    #[test]
    fn a_shortage_is_told_with_what_helps() {
        let files = OpenFiles { forward: 4096, dns_tcp: 832, http: 1024, others: 136 };
        assert_eq!(files.shortage(None), None);
        assert_eq!(files.shortage(Some(6088)), None);
        let text = |limit: u64| files.shortage(Some(limit)).unwrap().to_string();
        assert_eq!(
            text(6087),
            "6087 files may be open and the settings allow 6088: 4096 to resolvers, 832 of DNS over TCP, 1024 of HTTP, 136 others; raise the \
             hard limit of open files (ulimit -Hn, LimitNOFILE=, --ulimit nofile=) to that, or lower dns.forward.waiting_max, \
             dns.tcp.connections_max and http.connections_max"
        );
        assert!(text(136).ends_with("nofile=) to that"), "the others alone take as many: {}", text(136));
    }
}
