//! Whether a check speaks TLS, and whom it believes.

use std::net::SocketAddr;

use super::super::tls::TlsTarget;
use super::{CheckKind, CheckSettings};
use crate::config::Mistake;
use crate::tls::{Trust, is_server_name};

impl CheckSettings {
    fn speaks_tls(&self) -> bool {
        self.kind == CheckKind::Https || (self.kind == CheckKind::Grpc && self.tls == Some(true))
    }

    /// `None` when no TLS is to be spoken, or the server is not known, which is a mistake of its own.
    pub(super) fn resolve_tls(
        &self,
        path: &str,
        server: Option<SocketAddr>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<TlsTarget> {
        if !self.speaks_tls() {
            self.refuse_keys_of_tls(path, mistakes);
            return None;
        }
        let skips = self.tls_skip_verify == Some(true);
        if skips && self.ca.is_some() {
            mistakes.push(Mistake::new(
                format!("{path}.ca"),
                "tls_skip_verify asks for no authority, and ca names some",
                "keep one of them",
            ));
        }
        let trust = match &self.ca {
            _ if skips => Trust::Anyone,
            Some(file) => Trust::Authorities(file.clone()),
            None => Trust::System,
        };
        let given = self.server_name.as_deref();
        let of_host = self.host.as_deref().map(without_port).filter(|host| is_server_name(host));
        let server_name = match given.or(of_host) {
            Some(name) => name.to_owned(),
            None => server?.ip().to_string(),
        };
        if !is_server_name(&server_name) {
            mistakes.push(Mistake::new(
                format!("{path}.server_name"),
                format!("{server_name:?} is neither a DNS name nor an IP address"),
                "write the name that the server's certificate is for",
            ));
        }
        Some(TlsTarget { trust, server_name })
    }

    /// Of a kind that could speak it; others do not have these keys at all.
    fn refuse_keys_of_tls(&self, path: &str, mistakes: &mut Vec<Mistake>) {
        if self.kind != CheckKind::Grpc {
            return;
        }
        for (key, is_given) in [
            ("ca", self.ca.is_some()),
            ("server_name", self.server_name.is_some()),
            ("tls_skip_verify", self.tls_skip_verify.is_some()),
        ] {
            if is_given {
                mistakes.push(Mistake::new(
                    format!("{path}.{key}"),
                    "the check speaks no TLS",
                    format!("set tls: true, or leave {key} out"),
                ));
            }
        }
    }
}

/// The host of `host`, `host:port`, `[v6]` and `[v6]:port`.
fn without_port(host: &str) -> &str {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.split(']').next().unwrap_or(inner);
    }
    host.split(':').next().unwrap_or(host)
}
