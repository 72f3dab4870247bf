//! One own instance as it is to be registered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::check::Check;
use super::failback::HELD_PRIORITY;
use super::formats::FormatTarget;
use super::name::{Label, ServiceKey};
use super::record::{Port, Record, Status};

/// One instance to register, with everything decided but its health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The service it belongs to.
    pub service: ServiceKey,
    /// Its id within the service.
    pub id: Label,
    /// Where it is reached, at least one.
    pub addresses: Vec<IpAddr>,
    /// What it listens on, at least one.
    pub ports: Vec<Port>,
    /// Its share of traffic.
    pub weight: u16,
    /// Its share while a check that is not critical fails; at most `weight`.
    pub degraded_weight: u16,
    /// The least share that a load leaves it; at most `weight`.
    pub load_weight_min: u16,
    /// Its tier.
    pub priority: u16,
    /// Its failure domain.
    pub zone: Option<String>,
    /// Its machine.
    pub node: Option<String>,
    /// What lookups can filter by.
    pub tags: Vec<Label>,
    /// Anything else.
    pub meta: BTreeMap<String, String>,
    /// What must pass for it to be offered; none means that it always is.
    pub checks: Vec<Check>,
    /// What it is written in while it is up, beside our own format.
    pub formats: Vec<FormatTarget>,
}

impl Registration {
    /// The instance's whole name, `service.namespace/id`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.service, self.id)
    }

    /// The record of the instance in this state.
    pub fn record(&self, status: Status, owner: &str, incarnation: &str, registered_at_ms: i64) -> Record {
        Record {
            version: Record::VERSION,
            addresses: self.addresses.clone(),
            ports: self.ports.clone(),
            status,
            weight: self.weight,
            priority: self.priority,
            effective_priority: None,
            zone: self.zone.clone(),
            node: self.node.clone(),
            tags: self.tags.clone(),
            meta: self.meta.clone().into(),
            owner: owner.to_owned(),
            incarnation: incarnation.to_owned(),
            registered_at_ms,
            other: serde_json::Map::new(),
        }
    }

    /// Its weight while the application can take so much of it.
    pub fn weight_at(&self, share_percent: u8) -> u16 {
        let scaled = (u32::from(self.weight) * u32::from(share_percent.min(100)) + 50) / 100;
        u16::try_from(scaled).unwrap_or(self.weight).max(self.load_weight_min)
    }

    /// Bytes of its longest record.
    pub(super) fn record_bytes_max(&self) -> usize {
        let name = "x".repeat(OWNER_BYTES_MAX);
        let record = Record {
            effective_priority: Some(HELD_PRIORITY),
            ..self.record(Status::Maintenance, &name, &name, i64::MAX)
        };
        serde_json::to_vec(&record).map_or(usize::MAX, |bytes| bytes.len())
    }
}

/// Bytes that are kept free in a record for its owner and its incarnation, each: twice a UUID.
pub(super) const OWNER_BYTES_MAX: usize = 72;
