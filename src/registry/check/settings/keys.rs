//! Which kind of check has which keys.

use super::CheckKind::{self, Agent, Exec, Grpc, Http, Https, Tcp, Ttl};
use super::CheckSettings;
use crate::config::Mistake;

const WITH_SERVER: &[CheckKind] = &[Http, Https, Tcp, Agent, Grpc];
const ASKED: &[CheckKind] = &[Http, Https, Tcp, Agent, Grpc, Exec];
const WITH_HTTP: &[CheckKind] = &[Http, Https];
const WITH_TLS: &[CheckKind] = &[Https, Grpc];

impl CheckSettings {
    /// The keys that not every kind has: whether they are given, and which kinds have them.
    fn keys(&self) -> [(&'static str, bool, &'static [CheckKind]); 20] {
        [
            ("port", self.port.is_some(), WITH_SERVER),
            ("address", self.address.is_some(), WITH_SERVER),
            ("method", self.method.is_some(), WITH_HTTP),
            ("path", self.path.is_some(), WITH_HTTP),
            ("host", self.host.is_some(), &[Http, Https, Grpc]),
            ("headers", !self.headers.is_empty(), WITH_HTTP),
            ("status", self.status.is_some(), WITH_HTTP),
            ("body", self.body.is_some(), WITH_HTTP),
            ("load_header", self.load_header.is_some(), WITH_HTTP),
            ("service", self.service.is_some(), &[Grpc]),
            ("command", self.command.is_some(), &[Exec]),
            ("env", !self.env.is_empty(), &[Exec]),
            ("ttl", self.ttl.is_some(), &[Ttl]),
            ("interval", self.interval.is_some(), ASKED),
            ("timeout", self.timeout.is_some(), ASKED),
            ("jitter", self.jitter.is_some(), ASKED),
            ("tls", self.tls.is_some(), &[Grpc]),
            ("ca", self.ca.is_some(), WITH_TLS),
            ("server_name", self.server_name.is_some(), WITH_TLS),
            ("tls_skip_verify", self.tls_skip_verify.is_some(), WITH_TLS),
        ]
    }

    pub(super) fn refuse_keys_of_other_kinds(&self, path: &str, mistakes: &mut Vec<Mistake>) {
        for (key, is_given, kinds) in self.keys() {
            if !is_given || kinds.contains(&self.kind) {
                continue;
            }
            let words: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
            mistakes.push(Mistake::new(
                format!("{path}.{key}"),
                format!("a check of kind {} has no {key}", self.kind.as_str()),
                format!("leave {key} out, or use kind: {}", words.join(" or ")),
            ));
        }
    }
}
