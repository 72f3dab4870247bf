//! Whom to ask: addresses as people write them. Pure but for the locks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::health::Health;
use super::line::Line;
use crate::tls::is_server_name;

/// Where a resolver is, and how it is spoken to: `ip`, `ip:port`, or `tls://ip[:port]#name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamAddress {
    /// Where.
    pub addr: SocketAddr,
    /// For DNS over TLS (RFC 7858) what its certificate must be for; without it UDP and TCP.
    pub tls_name: Option<String>,
}

/// Why a text is no upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamAddressError {
    /// No address.
    #[error("{0:?} is not the address of a resolver: write an IP address, with a port if it is not 53")]
    Address(String),
    /// TLS with whom?
    #[error("{0:?} does not say whom the certificate must be for: write tls://IP#NAME")]
    Name(String),
}

impl FromStr for UpstreamAddress {
    type Err = UpstreamAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = |place: &str, port| {
            let bare = place.strip_prefix('[').and_then(|place| place.strip_suffix(']')).unwrap_or(place);
            let alone = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
            let addr = place.parse::<SocketAddr>().or(alone).ok();
            addr.filter(|addr| !addr.ip().is_multicast() && !addr.ip().is_unspecified() && addr.port() != 0)
                .ok_or_else(|| UpstreamAddressError::Address(text.to_owned()))
        };
        let Some(rest) = text.strip_prefix("tls://") else {
            return Ok(Self { addr: at(text, PORT)?, tls_name: None });
        };
        let (place, name) = rest.split_once('#').unwrap_or((rest, ""));
        let addr = at(place, TLS_PORT)?;
        if !is_server_name(name) {
            return Err(UpstreamAddressError::Name(text.to_owned()));
        }
        Ok(Self { addr, tls_name: Some(name.to_owned()) })
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tls_name {
            None => self.addr.fmt(f),
            Some(name) => write!(f, "tls://{}#{name}", self.addr),
        }
    }
}

/// One resolver.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: UpstreamAddress,
    /// How it is spoken to over TLS, and over nothing else then.
    pub(super) line: Option<Line>,
    health: Mutex<Health>,
}

impl Upstream {
    pub(super) fn new(address: UpstreamAddress, line: Option<Line>) -> Self {
        Self { address, line, health: Mutex::default() }
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// RFC 1035 section 4.2.
pub(super) const PORT: u16 = 53;
/// RFC 7858 section 3.1.
const TLS_PORT: u16 = 853;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<UpstreamAddress>().map(|address| address.to_string());
        assert_eq!(read("10.0.0.53").unwrap(), "10.0.0.53:53");
        assert_eq!(read("10.0.0.53:5353").unwrap(), "10.0.0.53:5353");
        assert_eq!(read("fd00::53").unwrap(), "[fd00::53]:53");
        assert_eq!(read("[fd00::53]").unwrap(), "[fd00::53]:53");
        assert_eq!(read("[fd00::53]:5353").unwrap(), "[fd00::53]:5353");
        assert_eq!(read("tls://192.0.2.1#dns.example").unwrap(), "tls://192.0.2.1:853#dns.example");
        assert_eq!(read("tls://[2001:db8::1]:8853#192.0.2.1").unwrap(), "tls://[2001:db8::1]:8853#192.0.2.1");
        for bad in ["", "dns.example", "10.0.0.53:0", "10.0.0.53:x", "0.0.0.0", "224.0.0.1", "udp://10.0.0.1"]
        {
            assert!(matches!(read(bad), Err(UpstreamAddressError::Address(_))), "{bad}");
        }
        for bad in ["tls://192.0.2.1", "tls://192.0.2.1#", "tls://192.0.2.1#a b"] {
            assert!(matches!(read(bad), Err(UpstreamAddressError::Name(_))), "{bad}");
        }
    }
}
