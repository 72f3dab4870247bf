//! Answers for names out of the zone: from the cache, or from upstreams, each question once at a time.
//!
//! ```text
//! query ─► special names ─► cache ─┬─ fresh ──────────────────────────────► answer
//!                                  ├─ stale ─► flight, for 1.8 s at most ─► its answer, or the stale one
//!                                  └─ nothing ─► flight, shared by all who ask the same ─► its answer
//! ```
//!
//! - Nobody is waited for here: what needs an upstream is a [`Pending`], which the listeners await in tasks of theirs.
//! - What waits is bounded, in all and for each client; so are flights.
//! - Locks are held for a look-up, never across a wait.
//!
//! RFC 8767 (stale answers), 9520 (failures are kept), 4697 section 2.1 (nobody is asked twice for the same).

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use tokio::sync::{Notify, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::cache::{Cache, Lookup, Rules};
use super::encoded::Encoded;
use super::line::Line;
use super::pending::{Asked, Given, Pending, Watcher};
use super::places::{Bounds, Places};
use super::question::Question;
use super::reply::Found;
use super::resolve::{TIME_MAX, probe, resolve};
use super::routes::{Group, Routes};
use super::settings::ForwardPlan;
use super::special::local_answer;
use super::system_file::{Nameservers, Reading, SystemFile};
use super::trouble::{Failed, Trouble};
use super::upstream::{PORT, Upstream, UpstreamAddress};
use crate::clock;
use crate::config::{self, FileWatch};
use crate::dns::DnsPlan;
use crate::dns::alias::way_home;
use crate::dns::answer::Answer;
use crate::dns::plain::PlainQuery;
use crate::dns::reverse;
use crate::dns::transport::Transport;
use crate::telemetry::{ForwardOutcome, Metrics};
use crate::tls::TlsClient;

/// Forwards, and remembers. Shared by all sockets.
#[derive(Debug)]
pub struct Forwarder {
    plan: ArcSwap<ForwardPlan>,
    routes: ArcSwap<Routes>,
    /// Where queries come in, to which none may be sent.
    own: SocketAddr,
    /// Set when another file may have to be watched.
    replanned: Notify,
    /// Held while who is asked is decided anew.
    file: Mutex<SystemFile>,
    /// Read by those who find a fresh answer there.
    cache: RwLock<Cache>,
    /// The number of the rules by which names are forwarded.
    rules: AtomicU64,
    flights: Mutex<BTreeMap<Question, Watcher>>,
    places: Arc<Places>,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
}

/// What becomes of a query.
#[derive(Debug)]
pub enum Forwarding {
    /// An answer.
    Now(Answer),
    /// One that has to be waited for.
    Later(Pending),
}

impl Forwarder {
    /// A forwarder by `plan` and the file that it names, for queries that come in at `own`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(
        plan: ForwardPlan,
        own: SocketAddr,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Self {
        let forwarder = Self {
            cache: RwLock::new(Cache::new(plan.cache, RandomState::new())),
            rules: AtomicU64::new(1),
            plan: ArcSwap::from_pointee(plan),
            routes: ArcSwap::default(),
            own,
            replanned: Notify::new(),
            file: Mutex::default(),
            flights: Mutex::default(),
            places: Arc::default(),
            tasks: TaskTracker::new(),
            metrics,
            shutdown,
        };
        forwarder.read_file();
        forwarder
    }

    /// Whether it asks anybody.
    pub fn is_enabled(&self) -> bool {
        self.plan.load().is_enabled
    }

    /// Forwards by this plan from now on.
    pub fn serve(&self, plan: ForwardPlan) {
        if **self.plan.load() != plan {
            self.cache_mut().set_limits(plan.cache);
            if self.plan.load().trust != plan.trust {
                // Connections that were made under another trust are none to go on with.
                self.routes.store(Arc::default());
            }
            self.plan.store(Arc::new(plan));
            self.read_file();
            self.replanned.notify_one();
        }
    }

    /// Follows the system's file until shutdown, then waits for what is under way, which ends at once.
    pub async fn run(self: Arc<Self>) {
        loop {
            let file = self.plan.load().resolv_conf.clone();
            // It looks at once, so that nothing is missed that was written meanwhile.
            let text = lock(&self.file).said().clone().unwrap_or_default();
            let mut watch = FileWatch::start(&file, &text);
            loop {
                tokio::select! {
                    () = self.shutdown.cancelled() => {
                        self.tasks.close();
                        self.tasks.wait().await;
                        return;
                    }
                    () = self.replanned.notified() => break,
                    text = watch.next() => {
                        let text = text.map_err(|error| error.to_string());
                        let is_known = *lock(&self.file).said() == text;
                        if !is_known {
                            self.take_file(text);
                        }
                    }
                }
            }
        }
    }

    /// The rules by which names are forwarded now; to be read before whatever decides that a name is none of ours.
    pub fn rules(&self) -> Rules {
        Rules(self.rules.load(Ordering::Acquire))
    }

    /// Has whatever decides whose a name is decide again, for it says something else from now on.
    pub fn change_rules(&self) {
        self.rules.fetch_add(1, Ordering::AcqRel);
    }

    /// Answers a query into `out` with what was encoded before, and says the code, if there is such an answer, and it was one by these rules.
    pub(in crate::dns) fn answer_again(
        &self,
        query: &PlainQuery<'_>,
        rules: Rules,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Option<ResponseCode> {
        let rcode = self.cache().answer((query, rules), clock::now(), transport, out)?;
        self.metrics.forward.count_query(ForwardOutcome::Cache);
        Some(rcode)
    }

    /// Answers a query for a name that is none of those that `own` answers for by `rules`, or says what has to be waited for. Where an
    /// alias leads to one of those, what that stands for is left to others.
    pub fn ask(self: &Arc<Self>, asked: Asked, own: &DnsPlan, rules: Rules) -> Forwarding {
        let (plan, routes) = (self.plan.load(), self.routes.load());
        if !plan.is_enabled {
            return self.now(ForwardOutcome::Refused, refused());
        }
        let question = &asked.question;
        if let Some(answer) = local_answer(&question.name, question.kind, &own.zone, &routes.search) {
            return self.now(ForwardOutcome::Local, answer);
        }
        // An instance may take the address of a reverse name at any time, and what a name of ours stands for changes, too.
        let is_all = |found: &Found| {
            let (asked, is_ours) = ((&question.name, question.kind), |name: &Name| own.is_ours(name));
            reverse::address_of(&question.name).is_none()
                && way_home(asked, &found.answers, is_ours).is_none()
        };
        let rules = |found: &Found| is_all(found).then_some(rules);
        let lookup = match self.cache_mut().look_up(question, rules, clock::now()) {
            // It was left to us when it was ours.
            Lookup::Fresh { found, .. } | Lookup::Stale { found, .. }
                if found.open.as_ref().is_some_and(|open| !own.is_ours(open)) =>
            {
                Lookup::Unknown
            }
            lookup @ (Lookup::Fresh { .. } | Lookup::Stale { .. } | Lookup::Failed(_) | Lookup::Unknown) => {
                lookup
            }
        };
        if !asked.is_recursion_desired && !matches!(lookup, Lookup::Fresh { .. }) {
            return self.now(ForwardOutcome::Refused, refused());
        }
        let stale = match lookup {
            Lookup::Fresh { found, age, is_due } => {
                if is_due && asked.is_recursion_desired {
                    // Whoever finds no room for it now tries with the next query.
                    let _landing = self.fly(question, Some(own));
                }
                return self.now(ForwardOutcome::Cache, asked.answer(&found, Given::Fresh { age }));
            }
            Lookup::Failed(failed) => return self.now(ForwardOutcome::Failed, failed.answer()),
            Lookup::Stale { found, has_failed: true } => return self.stale(&asked, &found),
            Lookup::Stale { found, has_failed: false } => Some(found),
            Lookup::Unknown => None,
        };
        let (group, of_client) = (routes.group_id(&question.name), plan.client_waiting_max);
        let of_group = if routes.domains.is_empty() { of_client } else { (of_client * 3).div_ceil(4) };
        let place =
            self.places.take(asked.client, group, Bounds { all: plan.waiting_max, of_client, of_group });
        match (place.and_then(|place| Ok((place, self.fly(question, Some(own))?))), stale) {
            (Ok((place, landing)), stale) => {
                Forwarding::Later(Pending::new(asked, landing, stale, place, self.metrics.clone()))
            }
            (Err(_), Some(found)) => self.stale(&asked, &found),
            (Err(trouble), None) => self.now(ForwardOutcome::Busy, Failed::from(trouble).answer()),
        }
    }

    /// What upstreams say to a question of the sidecar's own; what they said, if they are away.
    ///
    /// # Errors
    ///
    /// When they say nothing and never did.
    pub(super) async fn resolve(self: &Arc<Self>, question: Question) -> Result<Arc<Found>, Trouble> {
        let lookup = self.cache_mut().look_up(&question, |_| None, clock::now());
        let stale = match lookup {
            Lookup::Fresh { found, .. } | Lookup::Stale { found, has_failed: true } => return Ok(found),
            Lookup::Failed(failed) => return Err(failed.trouble),
            Lookup::Stale { found, has_failed: false } => Some(found),
            Lookup::Unknown => None,
        };
        let result = match self.fly(&question, None) {
            Ok(mut landing) => {
                let landed = landing.wait_for(Option::is_some).await.ok();
                let landed = landed.and_then(|landing| landing.clone());
                landed.map_or(Err(Trouble::Unreachable), |result| result.map_err(|failed| failed.trouble))
            }
            Err(trouble) => Err(trouble),
        };
        result.or_else(|trouble| stale.ok_or(trouble))
    }

    /// Whether one of these nameservers is the listener whose queries come here, and there are others who can be asked.
    pub(super) fn is_among(&self, nameservers: &[IpAddr]) -> bool {
        let is_own = |ip: &IpAddr| self.is_own(SocketAddr::new(*ip, PORT));
        nameservers.iter().any(is_own)
            && self.plan.load().is_enabled
            && !self.routes.load().upstreams().is_empty()
    }

    /// Answers and failures that are kept.
    pub fn cache_entries(&self) -> u64 {
        self.cache().size().0 as u64
    }

    /// Bytes that these take, about.
    pub fn cache_bytes(&self) -> u64 {
        self.cache().size().1 as u64
    }

    fn now(&self, outcome: ForwardOutcome, answer: Answer) -> Forwarding {
        self.metrics.forward.count_query(outcome);
        Forwarding::Now(answer)
    }

    fn stale(&self, asked: &Asked, found: &Found) -> Forwarding {
        self.now(ForwardOutcome::Stale, asked.answer(found, Given::Stale))
    }

    /// Has upstreams asked, unless they are being asked already.
    fn fly(self: &Arc<Self>, question: &Question, own: Option<&DnsPlan>) -> Result<Watcher, Trouble> {
        let mut flights = lock(&self.flights);
        if let Some(landing) = flights.get(question) {
            return Ok(landing.clone());
        }
        if flights.len() >= self.plan.load().waiting_max {
            return Err(Trouble::Busy);
        }
        let (tell, landing) = watch::channel(None);
        flights.insert(question.clone(), landing.clone());
        self.metrics.forward.in_flight.inc();
        let flight = Flight { forwarder: self.clone(), question: question.clone(), own: own.cloned() };
        self.tasks.spawn(async move {
            tokio::select! {
                () = flight.forwarder.shutdown.cancelled() => {}
                result = flight.run() => drop(tell.send(Some(result))),
            }
        });
        Ok(landing)
    }

    fn read_file(&self) {
        let file = self.plan.load().resolv_conf.clone();
        self.take_file(config::read(&file).map_err(|error| error.to_string()));
    }

    fn take_file(&self, text: Result<String, String>) {
        let plan = self.plan.load();
        let mut system_file = lock(&self.file);
        let is_of_file = plan.upstreams.is_none();
        let nameservers = if is_of_file { Nameservers::Asked } else { Nameservers::NotAsked };
        let reading = system_file.take(text, nameservers);
        let is_passed_over = matches!(reading, Reading::PassedOver(_) | Reading::StillPassedOver(_));
        if plan.is_enabled {
            tell(reading, &plan);
        }
        let file = system_file.counts();
        let before = self.routes.load_full();
        let known = before.upstreams();
        let tls = Arc::new(TlsClient::new(plan.trust.clone()));
        if let (Some(_), Err(error)) = (plan.trust_in_use(), tls.load()) {
            warn!(%error, "no upstream over TLS can be asked until its authorities (dns.forward.ca) can be read");
        }
        let make = |address: &UpstreamAddress| {
            known.get(address).cloned().unwrap_or_else(|| Arc::new(self.upstream(address, &tls)))
        };
        let (routes, own) = Routes::plan(&plan, &file, |addr| self.is_own(addr), make);
        if plan.is_enabled && !is_passed_over {
            for reason in &file.unusable {
                warn!(file = %plan.resolv_conf.display(), reason, "a line is passed over");
            }
            for addr in own {
                warn!(%addr, "this nameserver is the sidecar itself, and is left out; name others in dns.forward.upstreams");
            }
            if routes.default.upstreams.is_empty() {
                warn!("there is no upstream resolver; names out of the zone cannot be had");
            }
        }
        if !routes.leads_where(&before) {
            let upstreams: Vec<_> =
                routes.default.upstreams.iter().map(|upstream| upstream.address.to_string()).collect();
            info!(
                upstreams = upstreams.join(", "),
                domains = routes.domains.len(),
                "names out of the zone are forwarded"
            );
        }
        let is_emptied = !routes.agrees_with(&before);
        // Before the cache is emptied: whoever keeps an answer looks there who is asked now, while it has the cache.
        self.routes.store(Arc::new(routes));
        if is_emptied {
            // Others may know other names.
            self.cache_mut().clear();
        }
        self.change_rules();
    }

    fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache_mut(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what those have said who are asked by `routes`, unless others are asked by now: it does not count any more then.
    fn keep(&self, question: &Question, result: &Result<Arc<Found>, Failed>, routes: &Routes) {
        let encoded = result.as_ref().ok().and_then(|found| Encoded::new(question, found));
        let mut cache = self.cache_mut();
        if !self.routes.load().agrees_with(routes) {
            return;
        }
        match result {
            Ok(found) => cache.insert(question, (found.clone(), encoded), clock::now()),
            Err(failed) => cache.fail(question, failed.clone(), clock::now()),
        }
    }

    fn upstream(&self, address: &UpstreamAddress, tls: &Arc<TlsClient>) -> Upstream {
        let line = address.tls_name.clone().map(|server_name| {
            let (line, owner) = Line::new(address.clone(), server_name, tls.clone());
            let shutdown = self.shutdown.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = owner.run() => {}
                }
            });
            line
        });
        Upstream::new(address.clone(), line)
    }

    /// Has those of a group that are in doubt, or may be back, asked our own question, beside what clients ask.
    fn probe(&self, group: &Group) {
        for upstream in group.claim_probes(clock::now()) {
            let (manners, metrics, shutdown) = (group.manners, self.metrics.clone(), self.shutdown.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = probe(upstream, manners, &metrics) => {}
                }
            });
        }
    }

    /// Whether queries that are sent to `addr` come in here.
    fn is_own(&self, addr: SocketAddr) -> bool {
        addr == self.own
            || (addr.port() == self.own.port()
                && self.own.ip().is_unspecified()
                && is_of_this_machine(addr.ip()))
    }
}

/// A question that upstreams are being asked; when it is over, however that is, it is no more under way.
struct Flight {
    forwarder: Arc<Forwarder>,
    question: Question,
    /// Whose names are not asked for.
    own: Option<DnsPlan>,
}

impl Flight {
    async fn run(&self) -> Result<Arc<Found>, Failed> {
        let Forwarder { plan, routes, metrics, .. } = &*self.forwarder;
        let (is_case_random, routes_then) = (plan.load().is_case_random, routes.load_full());
        let group = routes_then.group(&self.question.name).clone();
        self.forwarder.probe(&group);
        let end = clock::now() + TIME_MAX;
        let result = match resolve(&group, &self.question, is_case_random, metrics).await {
            Ok(found) => self.follow(found, &routes_then, (is_case_random, end)).await.map(Arc::new),
            Err(failed) => Err(failed),
        };
        self.forwarder.keep(&self.question, &result, &routes_then);
        result
    }
}

impl Flight {
    /// The answer with what it left open, which those may know who are asked for that name. Who does not answer that has not answered.
    async fn follow(
        &self,
        mut found: Found,
        routes: &Routes,
        (is_case_random, end): (bool, Instant),
    ) -> Result<Found, Failed> {
        let metrics = &self.forwarder.metrics;
        self.open_at_others((&self.question.name, &mut found), routes);
        while let Some(name) = found.open.take() {
            if self.is_ours(&name) {
                // That is not known here; the alias is kept for as long as it says.
                (found.open, found.is_negative) = (Some(name), false);
                break;
            }
            if self.is_local(&name, routes) {
                break;
            }
            let rest = Question { name, ..self.question.clone() };
            let group = routes.group(&rest.name);
            self.forwarder.probe(group);
            let asking = timeout_at(end.into(), resolve(group, &rest, is_case_random, metrics));
            let mut answer = asking.await.map_err(|_| Trouble::Unreachable)??;
            self.open_at_others((&rest.name, &mut answer), routes);
            found = found.with_rest(answer);
        }
        Ok(found)
    }

    /// Opens the answer about `name` at the first alias into a domain that others are asked about: what those say counts, also when
    /// these say that there is no such name.
    fn open_at_others(&self, (name, found): (&Name, &mut Found), routes: &Routes) {
        let group = routes.group(name);
        let is_others = |target: &Name| !Arc::ptr_eq(routes.group(target), group);
        if let Some((records, target)) = way_home((name, self.question.kind), &found.answers, is_others) {
            let target = target.clone();
            found.open_at(records, target);
        }
    }

    fn is_ours(&self, name: &Name) -> bool {
        self.own.as_ref().is_some_and(|own| own.is_ours(name))
    }

    fn is_local(&self, name: &Name, routes: &Routes) -> bool {
        let answer = |own: &DnsPlan| local_answer(name, self.question.kind, &own.zone, &routes.search);
        self.own.as_ref().and_then(answer).is_some()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.forwarder.flights).remove(&self.question);
        self.forwarder.metrics.forward.in_flight.dec();
    }
}

fn tell(reading: Reading, plan: &ForwardPlan) {
    let file = plan.resolv_conf.display();
    match reading {
        Reading::Counts => {}
        Reading::CountsAgain => info!(%file, "the file of the system counts again"),
        Reading::PassedOver(reason) => {
            warn!(%file, reason, "the file of the system is passed over; what it said before goes on to count");
        }
        Reading::StillPassedOver(reason) => {
            debug!(%file, reason, "the file of the system is still passed over")
        }
        Reading::NeverRead(error) if plan.upstreams.is_none() => {
            warn!(%file, %error, "upstream resolvers are not known; make the file readable, or set dns.forward.upstreams");
        }
        Reading::NeverRead(error) => debug!(%file, %error, "the file of the system cannot be read"),
    }
}

fn refused() -> Answer {
    Answer { rcode: ResponseCode::Refused, ..Answer::default() }
}

/// Whether packets to it stay here: only its own addresses can be bound.
fn is_of_this_machine(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
