//! What is made of instances that vanish without a word. Pure.
//!
//! An instance that leaves on purpose says so at least a second before its record goes. When records go without that, it is
//! their sessions that expired, and the question is whether the instances died or the registry lost touch with them.
//!
//! ```text
//!              vanished                 with too many others
//!  registered ──────────► limbo ─────────────────────────────► suspect      answered: as it is
//!                          │  └──── no answer ──► silent ◄──────┘           refused: out at once
//!                          ▼                         │                      claimed by another record: out at once
//!                         out (window)              out (30 s)              hold_max: out in any case
//! ```
//!
//! - Everything that vanishes is in *limbo* first (as in Finagle's `Stabilizer`): still offered, for as long as the window counts
//!   it. So a loss that spreads over some seconds is one loss, and none of those who live has disappeared when it turns out to be one.
//! - When more than a share of a service, or of everything, vanished within the window, the registry is not believed: all that
//!   vanished in it are *suspect*.
//! - A reader that was away while instances were replaced in order, one after the other, never read that they leave, and finds others in
//!   their place when it is back. So who is found together with those that are missing makes up for as many of these.
//! - Those in limbo and the suspects that are looked up are probed. A refusal is the truth at once. Who says nothing is *silent*:
//!   offered when nobody else is.
//!
//! In come what vanished and what returned, the outcomes of probes, and the time; out go [`Decision`]s and [`ProbeTarget`]s.
//! Connecting is left to [`probe`].

pub mod probe;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

pub use self::settings::{BrakePlan, BrakeSettings};
use super::name::{Label, ServiceKey};
use super::record::{Protocol, Record};
use super::view::{Instance, Service, Standing, View};

/// The fewest that must vanish together for the registry not to be believed: of two or three, one or two may well die.
const LOSSES_MIN: usize = 3;
/// How long a suspect that says nothing is still offered when nobody else is.
const SILENT_HOLD: Duration = Duration::from_secs(30);
/// From one probe of a target to the next: four a minute.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// Until a probe is tried again that could not be made.
const PROBE_RETRY: Duration = Duration::from_secs(1);
/// How far the first probe is put off by chance, so that not all sidecars ask at once.
const PROBE_SPREAD: Duration = Duration::from_millis(200);
/// Probes that are under way at once.
const PROBES_MAX: usize = 32;

/// Keeps count of what vanished, and decides about it.
#[derive(Debug)]
pub struct Brake {
    plan: BrakePlan,
    rng: fastrand::Rng,
    losses: BTreeMap<ServiceKey, Losses>,
    /// Who is held, by where it is reached.
    endpoints: BTreeMap<(IpAddr, u16), BTreeSet<(ServiceKey, Label)>>,
    /// Whether something vanished since the shares were looked at.
    has_new_losses: bool,
    probes_under_way: usize,
    engagements: u64,
    probes: u64,
}

/// What one service lost.
#[derive(Debug, Default)]
struct Losses {
    /// Who vanished within the window, whatever became of it.
    recent: BTreeMap<Label, Instant>,
    /// Who is still offered.
    held: BTreeMap<Label, Held>,
}

#[derive(Debug)]
struct Held {
    vanished_at: Instant,
    is_suspect: bool,
    silent_since: Option<Instant>,
    /// When to probe it next, if it is looked up; `None` while a probe is under way.
    probe_at: Option<Instant>,
    owner: String,
    endpoints: Vec<(IpAddr, u16)>,
    /// Where it is probed: the addresses, and the first port that TCP is spoken on.
    target: Option<(Vec<IpAddr>, u16)>,
}

/// Whether an instance that vanished counts among those of which too many are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It does.
    Counted,
    /// It was found missing together with a newcomer, which makes up for it.
    MadeUpFor,
}

/// What becomes of one instance that vanished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its service.
    pub service: ServiceKey,
    /// Its id.
    pub id: Label,
    /// How it stands from now on, or why it is out.
    pub fate: Result<Standing, Release>,
}

/// Why an instance that vanished is not offered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It cannot be connected to.
    Refused,
    /// It did not answer for some time.
    Silent,
    /// Another record has its address.
    Claimed,
    /// It vanished alone, or with few others, and was not registered again.
    Believed,
    /// It was held for as long as anything is.
    HoldMax,
    /// There is no brake any more.
    SwitchedOff,
}

/// Who is to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Its service.
    pub service: ServiceKey,
    /// Its id.
    pub id: Label,
    /// Where it is reached, any of them will do.
    pub addresses: Vec<IpAddr>,
    /// The port that TCP is spoken on.
    pub port: u16,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It accepted a connection.
    Answered,
    /// It refused one, or cannot be reached.
    Refused,
    /// It said nothing in time.
    Silent,
    /// It was not asked, for want of something on our side.
    NotAsked,
}

impl Brake {
    /// A brake that has seen nothing yet; `seed` spreads its probes.
    pub fn new(plan: BrakePlan, seed: u64) -> Self {
        Self {
            plan,
            rng: fastrand::Rng::with_seed(seed),
            losses: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            has_new_losses: false,
            probes_under_way: 0,
            engagements: 0,
            probes: 0,
        }
    }

    /// Goes on by another plan, which is asked about what is held already at the next [`Brake::poll`].
    pub fn set_plan(&mut self, plan: BrakePlan) {
        self.plan = plan;
        self.has_new_losses = true;
    }

    /// Times that the registry was not believed.
    pub const fn engagements(&self) -> u64 {
        self.engagements
    }

    /// Probes that were asked for.
    pub const fn probes(&self) -> u64 {
        self.probes
    }

    /// How many instances are offered although their records are gone.
    pub fn held(&self) -> usize {
        self.losses.values().map(|losses| losses.held.len()).sum()
    }

    /// Whether there is anything that time or a probe may change.
    pub fn is_idle(&self) -> bool {
        self.losses.is_empty()
    }

    /// Takes that the record of `instance` is gone. Returns how it stands, or `None` when it is just gone.
    pub fn on_vanished(
        &mut self,
        service: &Service,
        instance: &Instance,
        loss: Loss,
        now: Instant,
    ) -> Option<Standing> {
        let is_held = self.plan.is_enabled && service.settings.brake && instance.record.is_up();
        if !is_held {
            return None;
        }
        self.has_new_losses = true;
        let losses = self.losses.entry(service.key.clone()).or_default();
        match loss {
            Loss::Counted => drop(losses.recent.insert(instance.id.clone(), now)),
            Loss::MadeUpFor => {}
        }
        self.hold(&service.key, instance, Held::new(&instance.record, now));
        Some(Standing::Limbo)
    }

    /// Goes on holding an instance that was held when the view was saved, from when it vanished. Of others that vanish with it, some may have
    /// been missed, so that it is suspect.
    pub fn on_inherited(&mut self, service: &Service, instance: &Instance, now: Instant) {
        let held = Held {
            vanished_at: instance.vanished_at.unwrap_or(now).min(now),
            is_suspect: true,
            silent_since: (instance.standing == Standing::Silent).then_some(now),
            ..Held::new(&instance.record, now)
        };
        self.hold(&service.key, instance, held);
    }

    /// Takes that a service is not followed any more: nothing is known of what became of its instances.
    pub fn on_unfollowed(&mut self, service: &ServiceKey) {
        let held = self.losses.get(service).map(|losses| losses.held.keys().cloned().collect::<Vec<_>>());
        for id in held.unwrap_or_default() {
            self.forget(service, &id);
        }
        self.losses.remove(service);
    }

    /// Takes that a record is there, new, changed or again. Returns who is out because the record has its address.
    pub fn on_registered(&mut self, service: &ServiceKey, instance: &Instance) -> Vec<Decision> {
        if self.is_idle() {
            return Vec::new();
        }
        if let Some(losses) = self.losses.get_mut(service) {
            losses.recent.remove(&instance.id);
        }
        self.forget(service, &instance.id);
        self.claims(service, instance)
    }

    /// Takes what became of a probe.
    pub fn on_probe(
        &mut self,
        service: &ServiceKey,
        id: &Label,
        outcome: ProbeOutcome,
        now: Instant,
    ) -> Option<Decision> {
        self.probes_under_way = self.probes_under_way.saturating_sub(1);
        let held = self.losses.get_mut(service)?.held.get_mut(id)?;
        let before = held.standing();
        held.probe_at =
            Some(now + if outcome == ProbeOutcome::NotAsked { PROBE_RETRY } else { PROBE_INTERVAL });
        match outcome {
            ProbeOutcome::Refused => return Some(self.release(service, id, Release::Refused)),
            ProbeOutcome::Answered => held.silent_since = None,
            ProbeOutcome::Silent => held.silent_since = held.silent_since.or(Some(now)),
            ProbeOutcome::NotAsked => {}
        }
        let standing = held.standing();
        debug!(%service, %id, ?outcome, ?standing, "probed an instance that vanished");
        (standing != before).then(|| Decision {
            service: service.clone(),
            id: id.clone(),
            fate: Ok(standing),
        })
    }

    /// Decides what is to be decided by now, `view` being what was known before.
    pub fn poll(&mut self, view: &View, now: Instant) -> Vec<Decision> {
        if self.is_idle() {
            return Vec::new();
        }
        let mut decisions = Vec::new();
        for losses in self.losses.values_mut() {
            losses.recent.retain(|_, vanished_at| now < *vanished_at + self.plan.window);
        }
        if std::mem::take(&mut self.has_new_losses) {
            self.look_for_claims(view, &mut decisions);
            self.weigh(view, &mut decisions);
        }
        self.release_overdue(now, &mut decisions);
        self.losses.retain(|_, losses| !losses.recent.is_empty() || !losses.held.is_empty());
        decisions
    }

    /// Who is to be probed now: those that are looked up, whose turn it is, and no more than may be under way.
    pub fn take_probes(&mut self, view: &View, now: Instant) -> Vec<ProbeTarget> {
        let mut targets = Vec::new();
        for (key, losses) in &mut self.losses {
            let is_wanted = view.services.get(key).is_some_and(|service| service.lookups.is_set());
            for (id, held) in losses.held.iter_mut().filter(|_| is_wanted) {
                if self.probes_under_way == PROBES_MAX {
                    return targets;
                }
                if held.probe_at.is_some_and(|at| at <= now)
                    && let Some((addresses, port)) = &held.target
                {
                    held.probe_at = None;
                    self.probes_under_way += 1;
                    self.probes += 1;
                    let (service, id) = (key.clone(), id.clone());
                    targets.push(ProbeTarget { service, id, addresses: addresses.clone(), port: *port });
                }
            }
        }
        targets
    }

    fn hold(&mut self, service: &ServiceKey, instance: &Instance, mut held: Held) {
        let spread = PROBE_SPREAD.mul_f64(self.rng.f64());
        held.probe_at = held.probe_at.map(|at| at + spread);
        for endpoint in &held.endpoints {
            let name = (service.clone(), instance.id.clone());
            self.endpoints.entry(*endpoint).or_default().insert(name);
        }
        self.losses.entry(service.clone()).or_default().held.insert(instance.id.clone(), held);
    }

    /// Whose address `instance`, which is registered, has: another record of the same service, or another owner's.
    fn claims(&mut self, service: &ServiceKey, instance: &Instance) -> Vec<Decision> {
        let names: BTreeSet<_> = endpoints(&instance.record)
            .filter_map(|endpoint| self.endpoints.get(&endpoint))
            .flatten()
            .collect();
        let is_claimed = |name: &&&(ServiceKey, Label)| {
            let held = self.losses.get(&name.0).and_then(|losses| losses.held.get(&name.1));
            name.0 == *service || held.is_some_and(|held| held.owner != instance.record.owner)
        };
        let claimed: Vec<_> = names.iter().filter(is_claimed).map(|name| (*name).clone()).collect();
        claimed.into_iter().map(|(service, id)| self.release(&service, &id, Release::Claimed)).collect()
    }

    fn look_for_claims(&mut self, view: &View, decisions: &mut Vec<Decision>) {
        for (key, service) in &view.services {
            for instance in service.instances.iter().filter(|it| it.standing == Standing::Registered) {
                decisions.extend(self.claims(key, instance));
            }
        }
    }

    /// Makes suspects of those in limbo, where too many vanished. Who is added to suspects is no news.
    fn weigh(&mut self, view: &View, decisions: &mut Vec<Decision>) {
        let mut is_known = self.losses.values().any(Losses::has_suspects);
        let (mut lost_of_all, mut all) = (0, 0);
        for (key, service) in &view.services {
            let registered = service.up().filter(|it| it.standing == Standing::Registered).count();
            let Some(losses) = self.losses.get_mut(key) else {
                all += registered;
                continue;
            };
            let (lost, before) = (losses.recent.len(), registered + losses.count());
            lost_of_all += lost;
            all += before;
            if !self.plan.is_too_many(lost, before) {
                continue;
            }
            if !losses.has_suspects() {
                self.engagements += 1;
                warn!(service = %key, vanished = lost, of = before, "too many instances vanished at once to believe it; they are offered until probes say otherwise");
            }
            losses.suspect(key, decisions);
            is_known = true;
        }
        if self.plan.is_too_many(lost_of_all, all) {
            if !is_known {
                self.engagements += 1;
                warn!(
                    vanished = lost_of_all,
                    of = all,
                    "too many instances of all services vanished at once to believe it; they are offered until probes say otherwise"
                );
            }
            for (key, losses) in &mut self.losses {
                losses.suspect(key, decisions);
            }
        }
    }

    fn release_overdue(&mut self, now: Instant, decisions: &mut Vec<Decision>) {
        let mut due = Vec::new();
        for (key, losses) in &self.losses {
            for (id, held) in &losses.held {
                if let Some(release) = held.overdue(&self.plan, now) {
                    due.push((key.clone(), id.clone(), release));
                }
            }
        }
        for (key, id, release) in due {
            decisions.push(self.release(&key, &id, release));
        }
    }

    fn release(&mut self, service: &ServiceKey, id: &Label, release: Release) -> Decision {
        debug!(%service, %id, ?release, "an instance that vanished is offered no more");
        self.forget(service, id);
        Decision { service: service.clone(), id: id.clone(), fate: Err(release) }
    }

    fn forget(&mut self, service: &ServiceKey, id: &Label) {
        let Some(losses) = self.losses.get_mut(service) else { return };
        let Some(held) = losses.held.remove(id) else { return };
        let name = (service.clone(), id.clone());
        for endpoint in held.endpoints {
            if let Some(names) = self.endpoints.get_mut(&endpoint) {
                names.remove(&name);
                if names.is_empty() {
                    self.endpoints.remove(&endpoint);
                }
            }
        }
    }
}

impl Losses {
    /// Who is held, and who vanished lately and is not.
    fn count(&self) -> usize {
        let released = self.recent.keys().filter(|id| !self.held.contains_key(*id)).count();
        self.held.len() + released
    }

    fn has_suspects(&self) -> bool {
        self.held.values().any(|held| held.is_suspect)
    }

    /// Makes suspects of those in limbo.
    fn suspect(&mut self, service: &ServiceKey, decisions: &mut Vec<Decision>) {
        for (id, held) in self.held.iter_mut().filter(|(_, held)| !held.is_suspect) {
            held.is_suspect = true;
            let fate = Ok(held.standing());
            decisions.push(Decision { service: service.clone(), id: id.clone(), fate });
        }
    }
}

impl Held {
    /// Who vanishes at `now`, and is to be probed at once.
    fn new(record: &Record, now: Instant) -> Self {
        let tcp = record.ports.iter().find(|port| port.protocol == Protocol::Tcp);
        Self {
            vanished_at: now,
            is_suspect: false,
            silent_since: None,
            probe_at: Some(now),
            owner: record.owner.clone(),
            endpoints: endpoints(record).collect(),
            target: tcp.map(|port| (record.addresses.clone(), port.port)),
        }
    }

    const fn standing(&self) -> Standing {
        match (self.silent_since, self.is_suspect) {
            (Some(_), _) => Standing::Silent,
            (None, true) => Standing::Suspect,
            (None, false) => Standing::Limbo,
        }
    }

    fn overdue(&self, plan: &BrakePlan, now: Instant) -> Option<Release> {
        match self.silent_since {
            _ if !plan.is_enabled => Some(Release::SwitchedOff),
            _ if now >= self.vanished_at + plan.hold_max => Some(Release::HoldMax),
            _ if !self.is_suspect => (now >= self.vanished_at + plan.window).then_some(Release::Believed),
            Some(since) => (now >= since + SILENT_HOLD).then_some(Release::Silent),
            None => None,
        }
    }
}

impl BrakePlan {
    fn is_too_many(&self, lost: usize, before: usize) -> bool {
        lost >= LOSSES_MIN && lost * 100 > before * usize::from(self.share_percent)
    }
}

fn endpoints(record: &Record) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
    let of = |address: &IpAddr| {
        let address = *address;
        record.ports.iter().map(move |port| (address, port.port))
    };
    record.addresses.iter().flat_map(of)
}

#[cfg(test)]
mod tests;
