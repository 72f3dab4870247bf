//! What is counted about DNS connections over TCP. Handles are resolved once; no address is a label.

use prometheus::{IntCounter, IntGauge, Registry};

use super::metrics::{counters, opts, registered};
use super::{DNS_CONNECTIONS, DNS_CONNECTIONS_ENDED};

/// Counts of connections.
#[derive(Debug)]
pub struct TcpCounts {
    /// See [`DNS_CONNECTIONS`].
    pub open: IntGauge,
    ended: [IntCounter; TcpEnd::ALL.len()],
}

/// Why a connection is over, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpEnd {
    /// Its client closed it.
    Client,
    /// It was silent for too long.
    Idle,
    /// Another needed its place.
    MadeRoom,
    /// A query took too long to arrive.
    SlowQuery,
    /// Answers took too long to be taken.
    SlowReader,
    /// What came was no query.
    NoQuery,
    /// The network.
    Error,
    /// The process stops.
    Shutdown,
    /// It was never served, since all places were in use.
    Refused,
    /// The same, since all of its client's were.
    RefusedClient,
}

impl TcpEnd {
    const ALL: [Self; 10] = [
        Self::Client,
        Self::Idle,
        Self::MadeRoom,
        Self::SlowQuery,
        Self::SlowReader,
        Self::NoQuery,
        Self::Error,
        Self::Shutdown,
        Self::Refused,
        Self::RefusedClient,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Idle => "idle",
            Self::MadeRoom => "made_room",
            Self::SlowQuery => "slow_query",
            Self::SlowReader => "slow_reader",
            Self::NoQuery => "no_query",
            Self::Error => "error",
            Self::Shutdown => "shutdown",
            Self::Refused => "refused",
            Self::RefusedClient => "refused_client",
        }
    }
}

impl TcpCounts {
    /// All at 0, printed with `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let ended = counters(registry, DNS_CONNECTIONS_ENDED, &["reason"]);
        Self {
            open: registered(registry, IntGauge::with_opts(opts(DNS_CONNECTIONS))),
            ended: TcpEnd::ALL.map(|end| ended.with_label_values(&[end.label()])),
        }
    }

    /// Counts that one is over.
    pub fn count_end(&self, end: TcpEnd) {
        self.ended[end as usize].inc();
    }

    /// How many are over for this reason.
    pub fn ended(&self, end: TcpEnd) -> u64 {
        self.ended[end as usize].get()
    }
}
