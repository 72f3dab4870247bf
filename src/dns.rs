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
//! with hickory's types (the crates were called trust-dns); [`udp`] and [`tcp`] move bytes, many datagrams with one
//! system call ([`mmsg`]), on threads of their own ([`Worker`]). Nothing here
//! waits for anything but its own socket and, a bounded time and in tasks of their own, for what is not followed and for upstreams; and no packet can stop it: what cannot be read is answered with the
//! code that the RFCs give it, or with silence.
//!
//! RFC 1034, 1035 (the protocol), 2181 (sets, TC), 2308 (negative answers), 2782 (SRV), 6303 (local zones), 6891 (EDNS), 7766
//! (TCP), 7873 (cookies), 8482 (ANY), 8914 (extended errors), 9619 (one question). `tests/conformance` holds the listeners against them.

use std::time::Duration;

use hickory_proto::rr::Name;

mod alias;
pub mod answer;
pub mod authority;
mod compression;
mod consul;
mod cookie;
mod fast;
mod filter;
pub mod forward;
pub mod handler;
mod head;
mod later;
pub mod mmsg;
pub mod name;
mod original;
mod plain;
mod records;
mod reply;
mod reverse;
#[cfg(test)]
mod sample;
mod sockets;
pub mod tcp;
mod transport;
pub mod udp;
mod workers;

pub use consul::ConsulDomain;
pub use forward::{ForwardPlan, ForwardSettings, Forwarder, Hosts, special_domain};
pub use handler::{Handler, Outcome};
pub use later::Later;
pub use name::{Zone, ZoneError};
pub use sockets::{Sockets, bind};
pub use transport::Transport;
pub use workers::{WORKERS_MAX, Worker};

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

    /// Whether it is for us to say what `name` stands for.
    pub fn is_ours(&self, name: &Name) -> bool {
        self.zone.contains(name) || self.consul.as_ref().is_some_and(|domain| domain.contains(name))
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
