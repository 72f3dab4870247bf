//! What sidecars and sessions have counted, added up.

use serde_json::{Value, json};

use crate::client::ClientStats;
use crate::registry::MirrorStats;
use crate::registry::registrar::RegistrarStats;

/// Sums over many clients, mirrors and registrars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Requests to servers.
    pub(super) requests: u64,
    /// Watch events from servers.
    pub(super) events: u64,
    /// Znodes read because an event named them.
    pub(super) reads: u64,
    /// Znodes that came with the event that named them.
    pub(super) carried: u64,
    /// Instances read by walks, which views begin with.
    pub(super) walk_reads: u64,
    /// Views published.
    pub(super) publications: u64,
    /// Writes of registrars.
    pub(super) writes: u64,
    /// Those that brought back what was lost.
    pub(super) repairs: u64,
    pub(super) sessions_lost: u64,
    /// Connections, and attempts at one, that failed.
    pub(super) connections_lost: u64,
}

impl Counts {
    pub(super) const ZERO: Self = Self {
        requests: 0,
        events: 0,
        reads: 0,
        carried: 0,
        walk_reads: 0,
        publications: 0,
        writes: 0,
        repairs: 0,
        sessions_lost: 0,
        connections_lost: 0,
    };

    pub(super) fn of_client(stats: &ClientStats) -> Self {
        Self {
            requests: stats.requests(),
            events: stats.events(),
            sessions_lost: stats.sessions_expired(),
            connections_lost: stats.connections_lost(),
            ..Self::ZERO
        }
    }

    pub(super) fn of_sidecar(client: &ClientStats, mirror: &MirrorStats, registrar: &RegistrarStats) -> Self {
        Self {
            reads: mirror.reads(),
            carried: mirror.carried(),
            walk_reads: mirror.walk_reads(),
            publications: mirror.publications(),
            writes: registrar.writes(),
            repairs: registrar.repairs(),
            ..Self::of_client(client)
        }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        self.each(other, |one, other| one + other)
    }

    /// What has been counted since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "requests": self.requests,
            "events": self.events,
            "reads": self.reads,
            "carried": self.carried,
            "walk_reads": self.walk_reads,
            "publications": self.publications,
            "writes": self.writes,
            "repairs": self.repairs,
            "sessions_lost": self.sessions_lost,
            "connections_lost": self.connections_lost,
        })
    }

    fn each(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: of(self.requests, other.requests),
            events: of(self.events, other.events),
            reads: of(self.reads, other.reads),
            carried: of(self.carried, other.carried),
            walk_reads: of(self.walk_reads, other.walk_reads),
            publications: of(self.publications, other.publications),
            writes: of(self.writes, other.writes),
            repairs: of(self.repairs, other.repairs),
            sessions_lost: of(self.sessions_lost, other.sessions_lost),
            connections_lost: of(self.connections_lost, other.connections_lost),
        }
    }
}
