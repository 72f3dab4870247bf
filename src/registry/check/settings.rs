//! The settings of one check, and the check that they stand for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use serde::Deserialize;

use crate::config::{Mistake, Scalar, duration};

/// One check as the settings file has it. Everything but `kind` has a default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSettings {
    /// How to check.
    pub kind: CheckKind,
    /// The TCP port to connect to. Default: the service's first TCP port.
    #[serde(default)]
    pub port: Option<u16>,
    /// The address to connect to. Default: the service's first address.
    #[serde(default)]
    pub address: Option<Scalar>,
    /// `http` only: the path and query to get. Default: `/`.
    #[serde(default)]
    pub path: Option<String>,
    /// `http` only: the `Host` header. Default: the address and port.
    #[serde(default)]
    pub host: Option<String>,
    /// `http` only: the status codes that pass, one or a range. Default: `200-399`.
    #[serde(default)]
    pub status: Option<Scalar>,
    /// From the start of one check to the start of the next, 100ms or more. Default: `2s`. Danger: a service that dies is offered for
    /// up to interval × fall.
    #[serde(default)]
    pub interval: Option<Scalar>,
    /// When a check without an answer has failed; at most the interval. Default: `1s`, or the interval if that is less.
    #[serde(default)]
    pub timeout: Option<Scalar>,
    /// Checks in a row that must pass before the instance is offered. Default: 2.
    #[serde(default)]
    pub rise: Option<u32>,
    /// Checks in a row that must fail before it is offered no more. Default: 3.
    #[serde(default)]
    pub fall: Option<u32>,
    /// How much shorter an interval may be by chance, so that checks of many instances spread out; at most the
    /// interval less the timeout. Default: a tenth of the interval, if there is room for it.
    #[serde(default)]
    pub jitter: Option<Scalar>,
}

/// How a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// An HTTP/1.1 GET whose status code is among those expected.
    Http,
    /// A TCP connection is accepted.
    Tcp,
}

/// One check, with every setting decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub target: CheckTarget,
    /// From start to start.
    pub interval: Duration,
    /// When it has failed without an answer; at most `interval`.
    pub timeout: Duration,
    /// Passes in a row before the instance is offered, at least 1.
    pub rise: u32,
    /// Failures in a row before it is not, at least 1.
    pub fall: u32,
    /// How much shorter an interval may be by chance; at most `interval` - `timeout`.
    pub jitter: Duration,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckTarget {
    /// Get a path.
    Http {
        /// Where to connect.
        server: SocketAddr,
        /// The `Host` header.
        host: String,
        /// Path and query.
        path: String,
        /// What passes.
        status: StatusRange,
    },
    /// Connect.
    Tcp {
        /// Where to connect.
        server: SocketAddr,
    },
}

/// HTTP status codes from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl CheckSettings {
    /// A check of this kind with every other setting at its default.
    pub fn new(kind: CheckKind) -> Self {
        Self {
            kind,
            port: None,
            address: None,
            path: None,
            host: None,
            status: None,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            jitter: None,
        }
    }

    /// Decides every setting; `address` and `port` are the service's own. Mistakes are added to `mistakes`, and there is no
    /// check then.
    pub(in crate::registry) fn resolve(
        &self,
        path: &str,
        address: Option<IpAddr>,
        port: Option<u16>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Check> {
        let before = mistakes.len();
        let server = self.resolve_server(path, address, port, mistakes);
        let (interval, timeout, jitter) = self.resolve_times(path, mistakes);
        let rise = self.resolve_count(&format!("{path}.rise"), self.rise, Check::RISE, mistakes);
        let fall = self.resolve_count(&format!("{path}.fall"), self.fall, Check::FALL, mistakes);
        let status = self.resolve_status(path, mistakes);
        let http_path = self.path.clone().unwrap_or_else(|| "/".to_owned());
        if !is_request_target(&http_path) {
            mistakes.push(Mistake::new(
                format!("{path}.path"),
                format!("{http_path:?} is not the path of a URL"),
                "start it with / and escape blanks and characters beyond ASCII as %XX",
            ));
        }
        if self.host.as_deref().is_some_and(|host| !is_host_header(host)) {
            mistakes.push(Mistake::new(
                format!("{path}.host"),
                format!("{:?} is not a host", self.host.as_deref().unwrap_or_default()),
                "write a host name, with :port if it has one",
            ));
        }
        if self.kind == CheckKind::Tcp {
            self.refuse_http_keys(path, mistakes);
        }
        if mistakes.len() > before {
            return None;
        }
        let server = server?;
        let target = match self.kind {
            CheckKind::Http => {
                let host = self.host.clone().unwrap_or_else(|| server.to_string());
                CheckTarget::Http { server, host, path: http_path, status: status? }
            }
            CheckKind::Tcp => CheckTarget::Tcp { server },
        };
        Some(Check { target, interval: interval?, timeout: timeout?, rise, fall, jitter: jitter? })
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

    fn resolve_times(
        &self,
        path: &str,
        mistakes: &mut Vec<Mistake>,
    ) -> (Option<Duration>, Option<Duration>, Option<Duration>) {
        let mut resolve = |key: &str, text: &Option<Scalar>, default: Option<Duration>| match text {
            Some(text) => text.to_duration(&format!("{path}.{key}"), mistakes),
            None => default,
        };
        let interval = resolve("interval", &self.interval, Some(Check::INTERVAL));
        let timeout =
            resolve("timeout", &self.timeout, interval.map(|interval| Check::TIMEOUT.min(interval)));
        let room = interval.zip(timeout).map(|(interval, timeout)| interval.saturating_sub(timeout));
        let jitter = resolve(
            "jitter",
            &self.jitter,
            interval.zip(room).map(|(interval, room)| (interval / 10).min(room)),
        );
        if let Some(interval) = interval.filter(|interval| *interval < Check::INTERVAL_MIN) {
            let (interval, min) = (duration::text(interval), duration::text(Check::INTERVAL_MIN));
            mistakes.push(Mistake::new(
                format!("{path}.interval"),
                format!("{interval} is too often"),
                format!("check every {min} at most"),
            ));
        }
        if let (Some(interval), Some(timeout)) = (interval, timeout) {
            let (interval_text, timeout_text) = (duration::text(interval), duration::text(timeout));
            if timeout.is_zero() {
                mistakes.push(Mistake::new(
                    format!("{path}.timeout"),
                    "no check passes within 0s",
                    "give it some time, such as 1s",
                ));
            } else if timeout > interval {
                mistakes.push(Mistake::new(
                    format!("{path}.timeout"),
                    format!("the timeout, {timeout_text}, is longer than the interval, {interval_text}"),
                    "make the timeout at most the interval, so that one check has ended when the next begins",
                ));
            } else if jitter.is_some_and(|jitter| jitter + timeout > interval) {
                let jitter_text = duration::text(jitter.unwrap_or_default());
                mistakes.push(Mistake::new(
                    format!("{path}.jitter"),
                    format!(
                        "jitter, {jitter_text}, and timeout, {timeout_text}, are together longer than the interval, {interval_text}"
                    ),
                    "make the jitter at most the interval less the timeout",
                ));
            }
        }
        (interval, timeout, jitter)
    }

    fn resolve_count(
        &self,
        path: &str,
        count: Option<u32>,
        default: u32,
        mistakes: &mut Vec<Mistake>,
    ) -> u32 {
        if count == Some(0) {
            mistakes.push(Mistake::new(path, "0 checks decide nothing", "use 1 or more"));
        }
        count.unwrap_or(default)
    }

    fn resolve_status(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<StatusRange> {
        let Some(text) = &self.status else {
            return Some(StatusRange::DEFAULT);
        };
        let range = StatusRange::parse(&text.0);
        if range.is_none() {
            mistakes.push(Mistake::new(
                format!("{path}.status"),
                format!("{:?} is neither a status code nor a range of them", text.0),
                "write a code such as 200, or a range such as 200-399, within 100-599",
            ));
        }
        range
    }

    fn refuse_http_keys(&self, path: &str, mistakes: &mut Vec<Mistake>) {
        let keys =
            [("path", self.path.is_some()), ("host", self.host.is_some()), ("status", self.status.is_some())];
        for (key, _) in keys.into_iter().filter(|(_, is_set)| *is_set) {
            mistakes.push(Mistake::new(
                format!("{path}.{key}"),
                format!("a tcp check has no {key}"),
                format!("use kind: http, or leave {key} out"),
            ));
        }
    }
}

impl Check {
    /// The interval by default.
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// The shortest interval: more often is load on the application, not knowledge.
    pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
    /// The timeout by default.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// The rise by default.
    pub const RISE: u32 = 2;
    /// The fall by default.
    pub const FALL: u32 = 3;
}

impl StatusRange {
    /// Successes and redirections, as Kubernetes' probes take them.
    pub const DEFAULT: Self = Self { first: 200, last: 399 };

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (100 <= first && first <= last && last <= 599).then_some(Self { first, last })
    }

    /// Whether `code` is among them.
    pub fn contains(self, code: u16) -> bool {
        (self.first..=self.last).contains(&code)
    }
}

/// Whether hyper will take it as it is; a fragment it would drop.
fn is_request_target(path: &str) -> bool {
    path.starts_with('/') && !path.contains('#') && PathAndQuery::try_from(path).is_ok()
}

fn is_host_header(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn defaults_are_those_that_are_documented() {
        let check = resolve("kind: http").unwrap();
        let status = StatusRange::DEFAULT;
        let server = SocketAddr::new(ADDRESS, 80);
        let target =
            CheckTarget::Http { server, host: "127.0.0.1:80".to_owned(), path: "/".to_owned(), status };
        let (interval, timeout, jitter) =
            (Duration::from_secs(2), Duration::from_secs(1), Duration::from_millis(200));
        assert_eq!(check, Check { target, interval, timeout, rise: 2, fall: 3, jitter });
        let short = resolve("{kind: tcp, interval: 300ms}").unwrap();
        assert_eq!((short.timeout, short.jitter), (Duration::from_millis(300), Duration::ZERO));
    }

    #[test]
    fn every_mistake_is_reported_with_its_path() {
        let mistakes = resolve(
            "{kind: tcp, path: /x, interval: 2, timeout: soon, rise: 0, fall: 0, port: 0, address: here, status: 99}",
        )
        .unwrap_err();
        let paths: Vec<_> = mistakes.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "c.address",
                "c.port",
                "c.interval",
                "c.timeout",
                "c.rise",
                "c.fall",
                "c.status",
                "c.path",
                "c.status"
            ]
        );
    }

    #[test]
    fn times_must_fit_into_one_another() {
        for (settings, path) in [
            ("{kind: tcp, interval: 10ms}", "c.interval"),
            ("{kind: tcp, interval: 1s, timeout: 2s}", "c.timeout"),
            ("{kind: tcp, timeout: 0s}", "c.timeout"),
            ("{kind: tcp, interval: 2s, timeout: 1500ms, jitter: 600ms}", "c.jitter"),
            ("{kind: http, path: health}", "c.path"),
            ("{kind: http, host: 'a b'}", "c.host"),
        ] {
            let mistakes = resolve(settings).unwrap_err();
            assert_eq!(mistakes[0].path, path, "{settings}: {mistakes:?}");
        }
    }

    #[test]
    fn status_codes_are_one_or_a_range() {
        for (text, inside, outside) in [("200", 200, 201), ("200-399", 399, 400), ("100-599", 100, 600)] {
            let range = StatusRange::parse(text).unwrap();
            assert!(range.contains(inside) && !range.contains(outside), "{text}");
        }
        for bad in ["", "ok", "300-200", "99", "200-600", "200-", "-200"] {
            assert_eq!(StatusRange::parse(bad), None, "{bad:?} must be refused");
        }
    }

    fn resolve(yaml: &str) -> Result<Check, Vec<Mistake>> {
        let settings: CheckSettings = serde_yaml::from_str(yaml).unwrap();
        let mut mistakes = Vec::new();
        settings.resolve("c", Some(ADDRESS), Some(80), &mut mistakes).ok_or(mistakes)
    }
}
