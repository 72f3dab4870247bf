//! The pod's agent, put together from its parts.
//!
//! ```text
//! checks ── registrar ──► client ──► ensemble ──► client ── mirror ──► cache ──► dns, http
//!                                                                       │ ▲
//!                                                                       ▼ │ at the start
//!                                                                   saved view
//! ```
//!
//! - Listeners are bound before anything starts, and passed in; from then on lookups are answered, whatever becomes of the
//!   ensemble.
//! - Every part is a task of one set. A part that ends by itself ends the role: half a sidecar would be worse than one that
//!   is restarted.
//! - Leaving: own instances are drained while DNS and HTTP still answer; then the listeners stop, and last the session is
//!   closed.

mod difference;
mod dns_settings;
mod http_settings;
mod listeners;
mod metrics;
mod open_files;
mod reload;
mod settings;
mod status;
mod subscription;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use dns_settings::{ConsulSettings, DnsSettings};
pub use http_settings::HttpSettings;
pub(crate) use listeners::reason;
pub use listeners::{BindError, Listener, Listeners};
pub use open_files::{FilesShortage, OpenFiles};
pub use reload::{Reading, SettingsFile};
pub use settings::{EnsembleSettings, SidecarPlan, SidecarSettings};
pub use subscription::{AdoptSettings, SubscribeMode, SubscribeSettings};

use self::reload::{LiveParts, Reloader};
use crate::client::{Client, ClientSettings, HostNames};
use crate::clock::{self, Moment};
use crate::dns::{self, Forwarder, Handler, Hosts};
use crate::http::{self, Command, Control, Done, Router};
use crate::registry::{
    Cache, Demand, Departure, Layout, LiveViewSettings, Mirror, MirrorStats, Registrar, RegistrarSettings,
    SavedView, Source, StateDir, StateDirError, SubscriberReport, Subscription, TtlReports, ViewKeeper,
    ViewSettings, owner_id,
};
use crate::telemetry::{Metrics, MetricsError};
use crate::znode::SubscriberName;

/// How long own instances may take to leave before the session is closed over them. The registrar itself needs a second, and
/// waits for sidecars that are slow in the others but one; a pod has 30 s by default before it is killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long parts may take to end once they were told to; HTTP drains its connections for 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);

/// Why a sidecar cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The state directory is not to be had.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The identity that is kept in the state directory is not to be had.
    #[error(
        "state_dir: the sidecar's identity cannot be read or written; make the directory writable, or leave it out"
    )]
    Owner(#[source] io::Error),
    /// What the process before left in the state directory is not to be had.
    #[error("state_dir: what the sidecar kept there cannot be read")]
    State(#[source] io::Error),
    /// A listener is unusable.
    #[error("a listener is unusable")]
    Listener(#[source] io::Error),
    /// Metrics clash.
    #[error("metrics cannot be set up")]
    Metrics(#[from] MetricsError),
    /// A part ended that never should.
    #[error("the sidecar's {part} ended unexpectedly; its log says why")]
    Ended {
        /// Which.
        part: &'static str,
    },
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    dns_addr: SocketAddr,
    http_addr: SocketAddr,
    client: Client,
    registrar: Registrar,
    parts: JoinSet<&'static str>,
    /// Ends DNS, HTTP and the mirror.
    serving: CancellationToken,
    /// Held until all parts have ended.
    _state_dir: Option<Arc<StateDir>>,
}

impl Sidecar {
    /// Starts all parts, whose counts are added to `metrics`. The ensemble need not be there. What `file` says from now on is
    /// taken over, as far as it can be without a restart.
    ///
    /// # Errors
    ///
    /// When the state directory is another sidecar's, the identity cannot be had, a listener is unusable, or `metrics` has a sidecar's already.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(
        plan: SidecarPlan,
        file: Option<SettingsFile>,
        listeners: Listeners,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SidecarError> {
        let state_dir = plan.state_dir.as_deref().map(StateDir::open).transpose()?.map(Arc::new);
        let owner = owner_id(plan.state_dir.as_deref()).map_err(SidecarError::Owner)?;
        let dns_addr = listeners.dns_addr().map_err(SidecarError::Listener)?;
        let http_addr = listeners.http_addr().map_err(SidecarError::Listener)?;
        let started = plan.clone();
        let cache = Arc::new(load_view(plan.state_dir.as_deref(), &plan.layout).at_home(plan.home.clone()));
        let view = ViewSettings { brake: plan.brake, home: plan.home };
        let (view, view_settings) = LiveViewSettings::new(view);
        let serving = CancellationToken::new();
        let mut parts = JoinSet::new();

        let forwarder = Forwarder::new(plan.forward, dns_addr, metrics.clone(), serving.clone());
        let forwarder = Arc::new(forwarder);
        let host_names = Some(host_names(&forwarder));
        let client = Client::start(ClientSettings { host_names, ..plan.client });
        let subscriber = subscriber_name(&settings::host_name(), &owner);

        let demand = plan.idle.is_some().then(Arc::<Demand>::default);
        let handler = Handler::new(cache.clone(), plan.dns, metrics.clone());
        let handler = handler.with_demand(demand.clone()).with_forwarder(Some(forwarder.clone()));
        let handler = Arc::new(handler);

        // 1. Ourselves, who can be told something.
        let ttl_reports = TtlReports::default();
        let settings = RegistrarSettings {
            state_dir: state_dir.as_ref().map(|state_dir| state_dir.folder().clone()),
            ttl_reports: ttl_reports.clone(),
            ..RegistrarSettings::new(plan.layout.clone(), owner.clone())
        };
        let (registrar, task) = Registrar::new(client.clone(), cache.clone(), settings, plan.registrations)
            .map_err(SidecarError::State)?;
        metrics::observe_registrar(&metrics, &registrar.stats())?;
        spawn(&mut parts, "registrar", task.run());
        let live = LiveParts {
            registrar: registrar.clone(),
            dns: handler.clone(),
            forwarder: forwarder.clone(),
            view,
        };
        let reloader = file.map(|file| Reloader::new(file, started, live));

        // 2. Answers, from what is known so far.
        metrics::observe_forwarder(&metrics, &forwarder)?;
        spawn(&mut parts, "DNS forwarder", forwarder.run());
        let dns::Sockets { udp, tcp } = listeners.dns;
        for (number, socket) in udp.into_iter().enumerate() {
            let worker = dns::Worker::udp(number, socket, handler.clone(), serving.clone());
            spawn(&mut parts, "DNS listener (UDP)", worker.map_err(SidecarError::Listener)?.ended());
        }
        let worker = dns::Worker::tcp(tcp, handler, plan.dns_tcp, serving.clone());
        spawn(&mut parts, "DNS listener (TCP)", worker.map_err(SidecarError::Listener)?.ended());
        let keeper = state_dir
            .as_ref()
            .map(|state_dir| ViewKeeper::new(cache.clone(), state_dir.folder().clone(), plan.layout.clone()));
        let status = status::source_of(
            client.clone(),
            registrar.clone(),
            keeper.as_ref().map(ViewKeeper::stats),
            state_dir.as_ref().map(|state_dir| state_dir.folder().clone()),
            reloader.as_ref().map(Reloader::stats),
        );
        let router = Router::new(cache.clone(), metrics.clone(), serving.clone());
        let router = router.with_control(control_of(registrar.clone())).with_reports(ttl_reports);
        let router = router.with_view_settings(view_settings.clone()).with_demand(demand.clone());
        let router = router.with_status(status).with_room_of(&plan.http);
        let answer = router.into_answer();
        let http = http::serve(listeners.http, answer, plan.http, metrics.clone(), serving.clone());
        spawn(&mut parts, "HTTP listener", http);

        // 3. Knowledge.
        let stats = Arc::<MirrorStats>::default();
        metrics::observe(&metrics, &cache, &client, &stats)?;
        // All of them before any runs: nothing is known as a whole before each of them has told its part, nor said to members.
        let subscription = Subscription::new(client.clone(), subscriber);
        let wanted = demand.zip(plan.idle);
        if let Some((demand, _)) = &wanted {
            metrics::observe_demand(&metrics, demand)?;
        }
        let mirror = |source| {
            let is_registry = matches!(source, Source::Registry { .. });
            let mirror = Mirror::new(client.clone(), &cache, source, view_settings.clone());
            let mirror = mirror.with_stats(stats.clone()).with_subscription(&subscription);
            match &wanted {
                Some((demand, idle)) if is_registry => mirror.on_demand(*idle, demand.clone()),
                Some(_) | None => mirror,
            }
        };
        let mirrors: Vec<_> = plan.sources.into_iter().map(mirror).collect();
        for mirror in mirrors {
            spawn(&mut parts, "mirror", mirror.run(serving.clone()));
        }
        spawn(&mut parts, "subscription", subscription.run(serving.clone()));
        if let Some(keeper) = keeper {
            metrics::observe_keeper(&metrics, &keeper.stats())?;
            spawn(&mut parts, "view keeper", keeper.run(serving.clone()));
        }
        if let Some(state_dir) = &state_dir {
            metrics::observe_state_dir(&metrics, state_dir.folder())?;
            spawn(
                &mut parts,
                "watch on the state directory",
                state_dir.clone().watch(owner, serving.clone()),
            );
        }
        if let Some(reloader) = reloader {
            metrics::observe_reloader(&metrics, &reloader.stats())?;
            spawn(&mut parts, "watch on the settings file", reloader.run(serving.clone()));
        }
        info!(dns = %dns_addr, http = %http_addr, "sidecar started");
        Ok(Self { dns_addr, http_addr, client, registrar, parts, serving, _state_dir: state_dir })
    }

    /// Where DNS answers.
    pub const fn dns_addr(&self) -> SocketAddr {
        self.dns_addr
    }

    /// Where HTTP answers.
    pub const fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Runs until `stop`, then leaves in order.
    ///
    /// # Errors
    ///
    /// When a part ended by itself; the others are stopped then.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), SidecarError> {
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Some(ended) = self.parts.join_next() => {
                // A panic was told by the panic hook; its part is not named by the error.
                Err(SidecarError::Ended { part: ended.unwrap_or("task") })
            }
        };
        self.leave().await;
        ended
    }

    async fn leave(mut self) {
        // 1. Own instances say that they leave, and lookups still see it.
        match self.registrar.drain(DRAIN_TIMEOUT).await {
            Ok(departure) => tell_of(&departure),
            Err(error) => warn!(%error, "left without draining"),
        }
        // 2. No more answers.
        self.serving.cancel();
        // 3. The session, which ends the registrar as well.
        if let Err(error) = self.client.close().await {
            warn!(%error, "the session stays until it expires");
        }
        let all = async { while self.parts.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            warn!("parts of the sidecar are cut off at shutdown");
        }
        info!("sidecar stopped");
    }
}

/// Logs who has seen that own instances leave.
fn tell_of(departure: &Departure) {
    let Departure { waited, evidence, subscribers } = departure;
    let waited_ms = waited.as_millis();
    let unknown = SubscriberReport::default();
    let known = subscribers.as_ref().unwrap_or(&unknown);
    let SubscriberReport { subscribers, behind, behind_count, members_not_asked, other_watchers } = known;
    if evidence.is_confirmation() {
        info!(
            subscribers,
            other_watchers, waited_ms, "all sidecars that follow the instances have seen that they leave"
        );
    } else if *behind_count > 0 {
        warn!(
            behind_count,
            subscribers,
            ?behind,
            waited_ms,
            "some sidecars are not known to have seen that the instances leave; they may send to them until they have"
        );
    } else if !waited.is_zero() {
        info!(
            evidence = evidence.as_str(),
            ?members_not_asked,
            waited_ms,
            "not all sidecars could be asked whether they have seen that the instances leave"
        );
    }
}

/// How the registrar is told something over HTTP.
fn control_of(registrar: Registrar) -> Control {
    Control::new(move |command| {
        let registrar = registrar.clone();
        Box::pin(async move {
            match command {
                Command::FailBack(service) => registrar.fail_back(service).await.map(Done::Released),
                Command::Drain { service, wait } => {
                    registrar.start_draining(service, wait).await.map(Done::Drained)
                }
                Command::EndDrain(service) => registrar.end_draining(service).await.map(Done::DrainEnded),
                Command::Maintain { service, reason } => {
                    registrar.start_maintenance(service, reason).await.map(Done::Maintained)
                }
                Command::EndMaintenance(service) => {
                    registrar.end_maintenance(service).await.map(Done::Maintained)
                }
            }
        })
    })
}

/// Members are looked up without the sidecar's own listener.
fn host_names(forwarder: &Arc<Forwarder>) -> HostNames {
    let hosts = Arc::new(Hosts::new(forwarder.clone(), Hosts::SYSTEM_FILE, Hosts::HOSTS_FILE));
    HostNames::new(move |host| {
        let hosts = hosts.clone();
        Box::pin(async move { hosts.look_up(&host).await.map_err(io::Error::other) })
    })
}

/// What operators read of who is behind: where this sidecar runs, and something of its own.
fn subscriber_name(host: &str, owner: &str) -> SubscriberName {
    let as_name = |text: &str, bytes_max| -> String {
        let is_allowed = |letter: &char| letter.is_ascii_alphanumeric() || "-_.".contains(*letter);
        text.chars().filter(is_allowed).take(bytes_max).collect()
    };
    let name = format!("{}.{}", as_name(host, HOST_BYTES_MAX), as_name(owner, OWN_BYTES_MAX));
    SubscriberName::parse(&name).expect("an owner has a letter, and what is no part of a name was left out")
}

/// Bytes of a host's name in that of a subscriber.
const HOST_BYTES_MAX: usize = 63;
/// Bytes of its own in the name of a subscriber, of 128 random bits.
const OWN_BYTES_MAX: usize = 8;

/// What was known when the sidecar ran last, or nothing.
fn load_view(folder: Option<&Path>, layout: &Layout) -> Cache {
    let Some(folder) = folder else { return Cache::new(clock::now()) };
    let moment = Moment::read();
    match SavedView::load(folder, layout, moment) {
        Ok(Some(saved)) => {
            let age = saved.age(moment.unix_ms);
            let services = saved.view.services.len();
            info!(
                services,
                age_ms = age.as_millis(),
                "answering from the saved view until the ensemble is reached"
            );
            Cache::with_saved(saved.view, age, moment.now)
        }
        Ok(None) => Cache::new(clock::now()),
        Err(error) => {
            warn!(folder = %folder.display(), %error, "the saved view is not used; nothing is known until the ensemble is reached");
            Cache::new(clock::now())
        }
    }
}

fn spawn(
    parts: &mut JoinSet<&'static str>,
    name: &'static str,
    part: impl Future<Output = ()> + Send + 'static,
) {
    parts.spawn(async move {
        part.await;
        name
    });
}
