//! The settings of one check, and the check that they stand for.
//!
//! All kinds share one struct, so that a key of another kind is told as what it is; `keys` says which kind has which.

mod exec;
mod grpc;
mod http;
mod keys;
mod list;
mod times;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::target::{Check, CheckSource, CheckTarget};
#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar};
use crate::registry::name::Label;

pub use list::resolve_checks;

/// One check as the settings file has it. Everything but `kind` has a default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckSettings {
    /// How to check.
    pub kind: CheckKind,
    /// What it is called, a DNS label, unique among the checks of its service. Default: its kind, and a number if that
    /// is taken.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Label>"))]
    pub name: Option<String>,
    /// Whether the instance is offered no more when it fails. Default: `true`. With `false` it only lowers the weight to the
    /// service's `degraded_weight`. Danger: an instance without a critical check is offered whatever becomes of it.
    #[serde(default)]
    pub critical: Option<bool>,
    /// The TCP port to connect to. Default: the service's first TCP port.
    #[serde(default)]
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub port: Option<u16>,
    /// The address to connect to. Default: the service's first address.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::IpAddress>"))]
    pub address: Option<Scalar>,
    /// `http`, `https`: the request's method, in capitals. Default: `GET`. Danger: what it does, it does at every interval.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Method>"))]
    pub method: Option<String>,
    /// `http`, `https`: the path and query to ask for. Default: `/`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::UrlPath>"))]
    pub path: Option<String>,
    /// `http`, `https`, `grpc`: the `Host` header, or `:authority`. Default: the address and port.
    #[serde(default)]
    pub host: Option<String>,
    /// `http`, `https`: further headers of the request, at most 32. Default: none.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("maxProperties" = http::HEADERS_MAX)))]
    pub headers: BTreeMap<String, Scalar>,
    /// `http`, `https`: the status codes that pass, one or a range; redirects are not followed. Default: `200-399`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Status>"))]
    pub status: Option<Scalar>,
    /// `http`, `https`: a regular expression that must match somewhere in the first 64 KiB of the response's body. A text without operators is
    /// one that passes as soon as it is there. Default: none, and the body is not read. Danger: what has operators waits for the end of the body.
    #[serde(default)]
    pub body: Option<Scalar>,
    /// `http`, `https`: the response's header that says how busy the application is, from 0 to 1 or in percent; its weight is
    /// lowered by that. Default: none.
    #[serde(default)]
    pub load_header: Option<String>,
    /// `grpc`: the gRPC service whose health is asked for, at most 255 bytes. Default: empty, the server as a whole.
    #[serde(default)]
    pub service: Option<String>,
    /// `exec`: the program, absolute or found in `PATH`, and its arguments, at most 256. There is no shell. No default.
    /// Danger: it runs as the sidecar's user and in its container, at every interval.
    #[serde(default)]
    #[cfg_attr(test, schemars(length(min = 1, max = exec::WORDS_MAX)))]
    pub command: Option<Vec<Scalar>>,
    /// `exec`: its environment, next to `PATH`, which is the sidecar's unless it stands here. Default: none.
    #[serde(default)]
    pub env: BTreeMap<String, Scalar>,
    /// `ttl`: how long the application may say nothing, 100ms to 1d. No default. Danger: one that dies is offered for that long
    /// × fall.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub ttl: Option<Scalar>,
    /// `grpc`: whether it speaks TLS; `ca`, `server_name` and `tls_skip_verify` are then as with `https`. Default: `false`.
    #[serde(default)]
    pub tls: Option<bool>,
    /// `https`, `grpc`: a PEM file with the authorities that may have signed the server's certificate. Default: those that the
    /// machine trusts.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// `https`, `grpc`: the DNS name or IP address that the certificate must be for. Default: `host` without its port, or the address.
    #[serde(default)]
    pub server_name: Option<String>,
    /// `https`, `grpc`: take any certificate, as the probes of Kubernetes do. Default: `false`. Danger: whoever answers at that
    /// address is taken for the application.
    #[serde(default)]
    pub tls_skip_verify: Option<bool>,
    /// From the start of the sidecar to the first check, at most 1h. Default: `0s`. Danger: the instance is offered that
    /// much later, also after every restart of the sidecar alone.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub start_delay: Option<Scalar>,
    /// Not `ttl`: from the start of one check to the start of the next, 100ms or more. Default: `2s`. Danger: a service that dies is offered for
    /// up to interval × fall.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub interval: Option<Scalar>,
    /// Not `ttl`: when a check without an answer has failed; at most the interval. Default: `1s`, or the interval if that is less.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub timeout: Option<Scalar>,
    /// Checks in a row that must pass before the instance is offered. Default: 2; 1 for `ttl`.
    #[serde(default)]
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub rise: Option<u32>,
    /// Checks in a row that must fail before it is offered no more. Default: 3; 1 for `ttl`.
    #[serde(default)]
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub fall: Option<u32>,
    /// Not `ttl`: how much shorter an interval may be by chance, so that checks of many instances spread out; at most the
    /// interval less the timeout. Default: a tenth of the interval, if there is room for it.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub jitter: Option<Scalar>,
}

/// How a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// An HTTP/1.1 request whose response is as expected.
    Http,
    /// The same over TLS.
    Https,
    /// A TCP connection is accepted.
    Tcp,
    /// A TCP connection is accepted, and what is sent on it says how the application is, as HAProxy's `agent-check` has it.
    Agent,
    /// The health service of gRPC says SERVING, over HTTP/2, with TLS or without.
    Grpc,
    /// A program exits with status 0.
    Exec,
    /// Nothing: the application reports.
    Ttl,
}

impl CheckKind {
    /// The word in the settings, which is a DNS label as well.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Agent => "agent",
            Self::Grpc => "grpc",
            Self::Exec => "exec",
            Self::Ttl => "ttl",
        }
    }
}

impl CheckSettings {
    /// A check of this kind with every other setting at its default.
    pub const fn new(kind: CheckKind) -> Self {
        Self {
            kind,
            name: None,
            critical: None,
            port: None,
            address: None,
            method: None,
            path: None,
            host: None,
            headers: BTreeMap::new(),
            status: None,
            body: None,
            load_header: None,
            service: None,
            command: None,
            env: BTreeMap::new(),
            ttl: None,
            tls: None,
            ca: None,
            server_name: None,
            tls_skip_verify: None,
            start_delay: None,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            jitter: None,
        }
    }

    /// Decides every setting but that the name is unique; `address` and `port` are the service's own. Mistakes are added to
    /// `mistakes`, and there is no check then.
    fn resolve(
        &self,
        path: &str,
        address: Option<IpAddr>,
        port: Option<u16>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Check> {
        let before = mistakes.len();
        self.refuse_keys_of_other_kinds(path, mistakes);
        let name = self.resolve_name(path, mistakes);
        let source = match self.kind {
            CheckKind::Ttl => self.resolve_ttl(path, mistakes).map(|ttl| CheckSource::Reported { ttl }),
            CheckKind::Http
            | CheckKind::Https
            | CheckKind::Tcp
            | CheckKind::Agent
            | CheckKind::Grpc
            | CheckKind::Exec => {
                let target = self.resolve_target(path, address, port, mistakes);
                let times = self.resolve_times(path, mistakes);
                target.zip(times).map(|(target, times)| CheckSource::Asked(times.of(target)))
            }
        };
        let start_delay = self.resolve_start_delay(path, mistakes);
        let (default_rise, default_fall) = match self.kind {
            CheckKind::Ttl => (1, 1),
            CheckKind::Http
            | CheckKind::Https
            | CheckKind::Tcp
            | CheckKind::Agent
            | CheckKind::Grpc
            | CheckKind::Exec => (Check::RISE, Check::FALL),
        };
        let rise = resolve_count(&format!("{path}.rise"), self.rise, default_rise, mistakes);
        let fall = resolve_count(&format!("{path}.fall"), self.fall, default_fall, mistakes);
        if mistakes.len() > before {
            return None;
        }
        let is_critical = self.critical.unwrap_or(true);
        Some(Check { name: name?, is_critical, source: source?, start_delay: start_delay?, rise, fall })
    }

    /// `None` also for ttl, which asks nothing.
    fn resolve_target(
        &self,
        path: &str,
        address: Option<IpAddr>,
        port: Option<u16>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<CheckTarget> {
        let server = |mistakes: &mut Vec<Mistake>| self.resolve_server(path, address, port, mistakes);
        match self.kind {
            CheckKind::Http | CheckKind::Https => {
                let server = server(mistakes);
                self.resolve_http(path, server, mistakes).map(|target| CheckTarget::Http(Box::new(target)))
            }
            CheckKind::Grpc => {
                let server = server(mistakes);
                self.resolve_grpc(path, server, mistakes).map(CheckTarget::Grpc)
            }
            CheckKind::Exec => self.resolve_exec(path, mistakes).map(CheckTarget::Exec),
            CheckKind::Tcp => server(mistakes).map(|server| CheckTarget::Tcp { server }),
            CheckKind::Agent => server(mistakes).map(|server| CheckTarget::Agent { server }),
            CheckKind::Ttl => None,
        }
    }

    fn resolve_name(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<Label> {
        let name = self.name.as_deref().unwrap_or(self.kind.as_str());
        let label = Label::parse(name).ok();
        if label.is_none() {
            mistakes.push(Mistake::new(
                format!("{path}.name"),
                format!("{name:?} is not a DNS label"),
                "use 1 to 63 of a-z, 0-9 and inner hyphens",
            ));
        }
        label
    }

    fn resolve_server(
        &self,
        path: &str,
        address: Option<IpAddr>,
        port: Option<u16>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<SocketAddr> {
        let address = match &self.address {
            Some(text) => text.0.parse().map_or_else(
                |_| {
                    mistakes.push(Mistake::new(
                        format!("{path}.address"),
                        format!("{:?} is not an IP address", text.0),
                        "write an IPv4 or IPv6 address",
                    ));
                    None
                },
                Some,
            ),
            // A service without an address is a problem that its own pass reports.
            None => address,
        };
        if self.port == Some(0) {
            mistakes.push(Mistake::new(
                format!("{path}.port"),
                "0 is not a port",
                "give the port the application listens on",
            ));
        }
        if self.port.is_none() && port.is_none() {
            mistakes.push(Mistake::new(
                format!("{path}.port"),
                "there is no port to check: the service has no TCP port",
                "name a TCP port for the check",
            ));
        }
        Some(SocketAddr::new(address?, self.port.or(port)?))
    }
}

fn resolve_count(path: &str, count: Option<u32>, default: u32, mistakes: &mut Vec<Mistake>) -> u32 {
    if count == Some(0) {
        mistakes.push(Mistake::new(path, "0 checks decide nothing", "use 1 or more"));
    }
    count.unwrap_or(default)
}

#[cfg(test)]
mod tests;
