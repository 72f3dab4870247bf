//! What lookups read: an immutable picture of the registry.
//!
//! One task publishes a [`View`]; any thread reads it without a lock through a [`Cache`](super::Cache). Everything that
//! a reader needs precomputed is computed at publication.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::chunked::{Chunked, Keyed};
use super::name::{Label, ServiceKey};
use super::record::Record;
use super::services::Services;
use super::tally::Tally;
use super::unreadable::Unreadable;
use super::zones::{Home, ZonePlan};
use crate::id::{SessionId, Zxid};

/// The registry at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every service that is known, with or without instances.
    pub services: Services,
    /// The newest change that the view reflects.
    pub zxid: Zxid,
    /// Whether anything was ever learnt; until then no name can be said not to exist.
    pub is_loaded: bool,
    /// Where lookups come from.
    pub home: Arc<Home>,
}

/// One service and its instances.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// What its own znode says.
    pub settings: ServiceSettings,
    /// Whether its instances and settings are followed, and known. Where only what is looked up is followed, nothing but its name is known
    /// of any other.
    pub is_followed: bool,
    /// Its instances, in the order of their ids.
    pub instances: Instances,
    /// Znodes in the place of instances that cannot be read or understood now, some of them if there are many.
    pub unreadable: BTreeMap<Label, Unreadable>,
    /// The newest change to it that the view reflects.
    pub zxid: Zxid,
    /// The newest change to the list of its instances that the view reflects, which is its znode's pzxid when nothing was missed;
    /// [`Zxid::ZERO`] when that is not known.
    pub children_zxid: Zxid,
    /// Whether it was looked up lately, or is waited on; shared by all views that show the service.
    pub lookups: Arc<LookupMark>,
    /// How lookups are spread over zones.
    pub zones: Arc<ZonePlan>,
    /// Who stood first in answers.
    pub tally: Arc<Tally>,
}

/// The instances of one service, in the order of their ids.
pub type Instances = Chunked<Instance>;

impl Keyed for Instance {
    type Key = str;

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

/// Whether a service was looked up lately: set by readers at every lookup, aged by the mirror; and how many wait for it to change.
#[derive(Debug, Default)]
pub struct LookupMark {
    /// How fresh the last lookup is, and [`LookupMark::USED`].
    freshness: AtomicU8,
    waiting: AtomicU32,
}

/// Somebody who waits for a service to change. While there is one, the service is followed.
#[derive(Debug)]
pub struct Waiting(Arc<LookupMark>);

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
    /// Whether its record is still there.
    pub standing: Standing,
    /// When its record vanished, if it did.
    pub vanished_at: Option<Instant>,
}

/// Whether an instance's record is still there, and if it vanished without a word, what is made of that: see
/// [`Brake`](super::brake::Brake).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is.
    #[default]
    Registered,
    /// It has just vanished, which it will be believed soon.
    Limbo,
    /// It vanished with so many others that the registry is not believed. Offered as before.
    Suspect,
    /// It vanished, and did not answer a probe. Offered when nothing else is.
    Silent,
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
    /// Whether instances that vanish together are kept until it is clear what became of them.
    pub brake: bool,
    /// Whether lookups prefer instances of their own zone.
    pub prefer_zone: bool,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        let failback = FailbackMode::Auto;
        Self {
            min_healthy: 1,
            failback,
            failback_after_s: 30,
            dns_ttl_s: None,
            brake: true,
            prefer_zone: true,
        }
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

impl View {
    /// How many services are followed.
    pub fn followed(&self) -> usize {
        self.services.values().filter(|service| service.is_followed).count()
    }

    /// The service with this name, which is noted as looked up.
    pub fn look_up(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        let service = self.services.get(key)?;
        service.lookups.set();
        Some(service)
    }
}

impl LookupMark {
    /// Times that a mark is aged before it is forgotten.
    const FRESH: u8 = 4;
    /// That a lookup came since [`LookupMark::take_use`].
    const USED: u8 = 0x80;

    /// Notes a lookup. Costs a read when that was done lately.
    pub fn set(&self) {
        if self.freshness.load(Ordering::Relaxed) != Self::FRESH | Self::USED {
            self.freshness.store(Self::FRESH | Self::USED, Ordering::Relaxed);
        }
    }

    /// Whether a lookup was noted, at most a few ageings ago.
    pub fn is_set(&self) -> bool {
        self.freshness.load(Ordering::Relaxed) & !Self::USED > 0
    }

    /// Lets some time pass.
    pub fn age(&self) {
        let aged = |mark: u8| Some((mark & !Self::USED).saturating_sub(1) | mark & Self::USED);
        let _before = self.freshness.fetch_update(Ordering::Relaxed, Ordering::Relaxed, aged);
    }

    /// Whether somebody waits for the service, or a lookup was noted since this was asked last.
    pub fn take_use(&self) -> bool {
        let is_used = self.freshness.fetch_and(!Self::USED, Ordering::Relaxed) & Self::USED != 0;
        is_used || self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Somebody waits from now on, until this is dropped.
    pub fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(self))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The tier of who is offered when there is nobody else: below all that records can name.
pub const LAST_RESORT: u32 = u16::MAX as u32 + 1;

impl Instance {
    /// An instance whose record is there.
    pub const fn new(id: Label, record: Record, mzxid: Zxid, session: SessionId) -> Self {
        let (standing, vanished_at) = (Standing::Registered, None);
        Self { id, record, mzxid, session, standing, vanished_at }
    }

    /// Whether it is in this zone, or in none.
    pub fn is_in(&self, zone: Option<&str>) -> bool {
        self.record.zone.as_deref() == zone
    }

    /// The tier it is in, lower is preferred: that of its record, or the [`LAST_RESORT`].
    pub fn tier(&self) -> u32 {
        match self.standing {
            Standing::Registered | Standing::Limbo | Standing::Suspect => {
                self.record.effective_priority().into()
            }
            Standing::Silent => LAST_RESORT,
        }
    }
}

impl Service {
    /// A service of which nothing is known but its name, and that it has no instances.
    pub fn new(key: ServiceKey) -> Self {
        Self {
            key,
            settings: ServiceSettings::default(),
            is_followed: true,
            instances: Instances::new(),
            unreadable: BTreeMap::new(),
            zxid: Zxid::ZERO,
            children_zxid: Zxid::ZERO,
            lookups: Arc::default(),
            zones: Arc::default(),
            tally: Arc::default(),
        }
    }

    /// Takes a new plan for what is there now.
    pub(super) fn take_plan(&mut self, zones: ZonePlan) {
        self.zones = Arc::new(zones);
        if self.tally.is_begun() || self.lookups.is_set() {
            self.tally = Arc::new(self.tally.next(self));
        }
    }

    /// Whether it was looked up and nobody counts yet who stands first.
    pub(super) fn is_to_be_counted(&self) -> bool {
        self.lookups.is_set() && !self.tally.is_begun() && !self.instances.is_empty()
    }

    /// Begins to count who stands first.
    pub(super) fn begin_tally(self: &mut Arc<Self>) {
        let tally = Arc::new(self.tally.next(self));
        Arc::make_mut(self).tally = tally;
    }

    /// The instance with this id.
    pub fn instance(&self, id: &str) -> Option<&Arc<Instance>> {
        self.instances.find(id)
    }

    /// The instances that may be offered.
    pub fn up(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.iter().filter(|instance| instance.record.is_up())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_is_remembered_for_some_ageings() {
        let mark = LookupMark::default();
        assert!(!mark.is_set());
        mark.set();
        for _ in 1..LookupMark::FRESH {
            mark.age();
            assert!(mark.is_set());
        }
        mark.age();
        assert!(!mark.is_set());
        mark.age();
        assert!(!mark.is_set());
    }

    #[test]
    fn a_mark_is_in_use_by_lookups_since_it_was_asked_and_by_those_who_wait() {
        let mark = Arc::new(LookupMark::default());
        assert!(!mark.take_use());
        mark.set();
        mark.age();
        assert!(mark.take_use() && !mark.take_use());
        assert!(mark.is_set(), "which fades by itself");
        mark.set();
        assert!(mark.take_use(), "the next lookup is noted, too");
        let (one, other) = (mark.wait(), mark.wait());
        drop(one);
        assert!(mark.take_use() && mark.take_use());
        drop(other);
        assert!(!mark.take_use());
    }
}
