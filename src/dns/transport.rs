//! What carries packets.

use hickory_server::net::xfer::Protocol;

use crate::telemetry::DnsTransport;

/// What carried a packet, which decides how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// At most what the client offered and [`super::reply::UDP_OCTETS_MAX`].
    Udp,
    /// At most 65 535 octets, the frame's limit.
    Tcp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
        }
    }
}

impl From<Transport> for DnsTransport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
        }
    }
}
