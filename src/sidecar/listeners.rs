//! The sidecar's sockets, bound before anything starts.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::settings::SidecarPlan;
use crate::{dns, http};

/// All sockets that the sidecar listens on.
#[derive(Debug)]
pub struct Listeners {
    pub(super) dns: dns::Sockets,
    pub(super) http: TcpListener,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// DNS over UDP and TCP.
    Dns,
    /// HTTP.
    Http,
}

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} for {}: {}", .listener.name(), reason(.source))]
pub struct BindError {
    /// What it was for.
    pub listener: Listener,
    /// Its address.
    pub addr: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

impl Listener {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Http => "HTTP",
        }
    }

    /// The key of its address in the settings.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Dns => "dns.address",
            Self::Http => "http.address",
        }
    }
}

impl Listeners {
    /// Binds all of them or none.
    ///
    /// # Errors
    ///
    /// When one cannot be had.
    pub fn bind(plan: &SidecarPlan) -> Result<Self, BindError> {
        let (dns_addr, http_addr) = (plan.dns_addr, plan.http_addr);
        let dns = dns::Sockets::bind(dns_addr, plan.dns_workers).map_err(|source| BindError {
            listener: Listener::Dns,
            addr: dns_addr,
            source,
        })?;
        let http = http::bind(http_addr).map_err(|source| BindError {
            listener: Listener::Http,
            addr: http_addr,
            source,
        })?;
        Ok(Self { dns, http })
    }

    /// Where DNS is bound.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn dns_addr(&self) -> io::Result<SocketAddr> {
        self.dns.local_addr()
    }

    /// Where HTTP is bound.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn http_addr(&self) -> io::Result<SocketAddr> {
        self.http.local_addr()
    }
}

/// The system's words, or ours where they are clearer.
pub(crate) fn reason(error: &io::Error) -> String {
    let known = [
        (io::ErrorKind::AddrInUse, "the port is taken"),
        (io::ErrorKind::PermissionDenied, "not permitted (ports below 1024 need privileges)"),
        (io::ErrorKind::AddrNotAvailable, "this machine does not have the address"),
    ];
    let ours = known.into_iter().find(|(kind, _)| *kind == error.kind());
    ours.map_or_else(|| error.to_string(), |(_, text)| text.to_owned())
}
