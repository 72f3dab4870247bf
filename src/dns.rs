//! DNS answers from the view, over UDP and TCP.
//!
//! ```text
//! udp, tcp ── packet ──► handler ── name, type ──► name ── Question ──► answer ◄── View
//!    ▲                      │                                              │
//!    └──── bytes ───────────┴◄──────── records, response code ─────────────┘
//! ```
//!
//! Names out of the zone go to [`forward`].
//!
//! [`name`] and [`authority`] decide and are pure; [`handler`] turns bytes into a question and records into bytes,
//! with hickory's types (the crates were called trust-dns); [`udp`] and [`tcp`] move bytes. Nothing here
//! waits for anything but its own socket and, a bounded time and in tasks of their own, for what is not followed and for upstreams; and no packet can stop it: what cannot be read is answered with the
//! code that the RFCs give it, or with silence.
//!
//! RFC 1034, 1035 (the protocol), 2308 (negative answers), 2782 (SRV), 6303 (local zones), 6891 (EDNS), 7766
//! (TCP), 8482 (ANY), 8914 (extended errors), 9619 (one question).

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};

pub mod answer;
pub mod authority;
mod consul;
mod cookie;
mod fast;
mod filter;
pub mod forward;
pub mod handler;
mod head;
pub mod name;
mod records;
mod reply;
mod reverse;
#[cfg(test)]
mod sample;
pub mod tcp;
pub mod udp;

pub use consul::ConsulDomain;
pub use forward::{ForwardPlan, ForwardSettings, Forwarder, Hosts};
pub use handler::{Handler, Later, Outcome, Transport};
pub use name::{Zone, ZoneError};

/// How long others may keep an answer. TTLs are sent in whole seconds, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttls {
    /// Of records; a service's own `dns_ttl_s` goes before it. Default 2 s. A long one delays failover.
    pub answer: Duration,
    /// Of the knowledge that there is nothing. Default 1 s.
    pub negative: Duration,
    /// The most that anything gets while the view is stale. Default 1 s.
    pub stale: Duration,
}

/// What is answered for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsPlan {
    /// The zone.
    pub zone: Zone,
    /// The domain of Consul's names, if they are answered as well.
    pub consul: Option<ConsulDomain>,
    /// How long answers may be kept.
    pub ttls: Ttls,
    /// Whether every query is logged.
    pub is_logged: bool,
}

impl DnsPlan {
    /// A zone alone, with the defaults.
    pub fn of_zone(zone: Zone) -> Self {
        Self { zone, consul: None, ttls: Ttls::default(), is_logged: false }
    }
}

impl Default for Ttls {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(2),
            negative: Duration::from_secs(1),
            stale: Duration::from_secs(1),
        }
    }
}

/// Binds UDP and TCP on one port; port 0 finds a port that is free for both. Needs a tokio runtime around it.
///
/// # Errors
///
/// When the address cannot be bound for either.
pub fn bind(addr: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempts_left = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts_left -= 1;
        match bind_both(addr) {
            // The free port that UDP was given may be taken for TCP.
            Err(error) if attempts_left > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
}

fn bind_both(addr: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = StdUdpSocket::bind(addr)?;
    // A burst waits in the kernel while the loop is descheduled; a smaller buffer is no reason to fail.
    if let Err(error) = socket2::SockRef::from(&udp).set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "the DNS socket keeps its default receive buffer");
    }
    let tcp = StdTcpListener::bind(udp.local_addr()?)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

/// Ports that are tried before giving up on finding one that is free for both.
const PORT_ATTEMPTS: u32 = 16;
/// What is asked for; the kernel caps it (`net.core.rmem_max`).
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sockets_have_one_port_and_a_taken_one_is_an_error() {
        let (udp, tcp) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = udp.local_addr().unwrap();
        assert_eq!(addr, tcp.local_addr().unwrap());
        assert_eq!(bind(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
