//! What lookups read: an immutable picture of the registry.
//!
//! One task publishes a [`View`]; any thread reads it without a lock through a [`Cache`](super::Cache). Everything that
//! a reader needs precomputed is computed at publication.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::name::{Label, ServiceKey};
use super::record::Record;
use crate::id::{SessionId, Zxid};

/// The registry at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every service that is known, with or without instances.
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
    /// The newest change that the view reflects.
    pub zxid: Zxid,
    /// Whether anything was ever learnt; until then no name can be said not to exist.
    pub is_loaded: bool,
}

/// One service and its instances.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// What its own znode says.
    pub settings: ServiceSettings,
    /// Its instances, in the order of their ids.
    pub instances: Vec<Arc<Instance>>,
    /// The newest change to it that the view reflects.
    pub zxid: Zxid,
    /// The newest change to the list of its instances that the view reflects, which is its znode's pzxid when nothing was missed;
    /// [`Zxid::ZERO`] when that is not known.
    pub children_zxid: Zxid,
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The name of its znode.
    pub id: Label,
    /// What it says about itself.
    pub record: Record,
    /// The txn that last changed its record.
    pub mzxid: Zxid,
    /// The session that it lives by; [`SessionId::NONE`] for a persistent record.
    pub session: SessionId,
}

/// Settings of a service that every reader obeys: the JSON in its znode, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ServiceSettings {
    /// How many instances a tier must have up to be chosen.
    pub min_healthy: u32,
    /// Whether an instance that was away takes its tier again by itself.
    pub failback: FailbackMode,
    /// How long it must have been healthy for that, in s.
    pub failback_after_s: u32,
    /// The TTL of its DNS answers in s; the sidecar's own setting when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ttl_s: Option<u32>,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self { min_healthy: 1, failback: FailbackMode::Auto, failback_after_s: 30, dns_ttl_s: None }
    }
}

impl ServiceSettings {
    /// How long an instance that was away must have been healthy before it takes its tier again by itself.
    pub const fn failback_after(&self) -> Duration {
        Duration::from_secs(self.failback_after_s as u64)
    }
}

/// How an instance that was away takes its tier again from the standbys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailbackMode {
    /// When it is told to.
    Manual,
    /// At once.
    Off,
    /// Once it has been healthy for some time. Also what a later version's mode is taken for.
    #[default]
    #[serde(other)]
    Auto,
}

impl Service {
    /// The instance with this id.
    pub fn instance(&self, id: &str) -> Option<&Arc<Instance>> {
        let position = self.instances.binary_search_by(|instance| instance.id.as_str().cmp(id)).ok()?;
        self.instances.get(position)
    }

    /// The instances that may be offered.
    pub fn up(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.iter().filter(|instance| instance.record.is_up())
    }
}
