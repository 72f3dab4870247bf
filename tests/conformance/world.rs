//! A running server: the real listeners on loopback, over a registry that is known.

use std::net::SocketAddr;
use std::sync::Arc;

use rollcall::clock;
use rollcall::dns::{ConsulDomain, DnsPlan, ForwardPlan, Forwarder, Handler, Sockets, Worker, Zone, tcp};
use rollcall::registry::{Cache, Demand, View};
use rollcall::telemetry::Metrics;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::registry::{Registry, label};

/// A server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) addr: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    _shutdown: DropGuard,
}

/// Threads that answer over UDP.
const WORKERS: usize = 2;

/// How a server is to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ways {
    pub(crate) is_stale: bool,
    /// Whether Consul's names are answered, too.
    pub(crate) has_consul: bool,
    /// Whether services that are known by name alone can be asked for.
    pub(crate) has_demand: bool,
    /// Who is asked for names that are not the server's; without one they are refused.
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) tcp: tcp::TcpSettings,
}

impl World {
    /// One that knows [`Registry::shop`].
    pub(crate) fn shop() -> Self {
        Self::start(Registry::shop())
    }

    /// One whose view is current; names with one label are of the namespace `shop`.
    pub(crate) fn start(registry: Registry) -> Self {
        Self::start_with(registry.into_view(), Ways::default())
    }

    pub(crate) fn start_with(view: View, ways: Ways) -> Self {
        let (metrics, shutdown) = (Arc::new(Metrics::new()), CancellationToken::new());
        let addr = serve(view, ways, metrics.clone(), shutdown.clone());
        Self { addr, metrics, _shutdown: shutdown.drop_guard() }
    }
}

fn serve(view: View, ways: Ways, metrics: Arc<Metrics>, shutdown: CancellationToken) -> SocketAddr {
    let cache = Arc::new(Cache::new(clock::now()));
    cache.publish(view);
    cache.set_synced(!ways.is_stale);
    let own = label("shop");
    let zone = Zone::parse("rollcall.internal", own.clone()).expect("a zone");
    let consul = || ConsulDomain::parse("consul", label(ConsulDomain::DATACENTER), own).expect("a domain");
    let plan = DnsPlan { consul: ways.has_consul.then(consul), ..DnsPlan::of_zone(zone) };
    let demand = ways.has_demand.then(|| Arc::new(Demand::default()));
    let sockets = Sockets::bind(SocketAddr::from(([127, 0, 0, 1], 0)), WORKERS).expect("a port is free");
    let addr = sockets.local_addr().expect("it is bound");
    let forwarder = ways.upstream.map(|upstream| forwarder(upstream, addr, &metrics, &shutdown));
    let handler = Handler::new(cache, plan, metrics).with_demand(demand).with_forwarder(forwarder);
    let handler = Arc::new(handler);
    for (number, socket) in sockets.udp.into_iter().enumerate() {
        Worker::udp(number, socket, handler.clone(), shutdown.clone()).expect("a thread can be had");
    }
    Worker::tcp(sockets.tcp, handler, ways.tcp, shutdown).expect("a thread can be had");
    addr
}

fn forwarder(
    upstream: SocketAddr,
    own: SocketAddr,
    metrics: &Arc<Metrics>,
    shutdown: &CancellationToken,
) -> Arc<Forwarder> {
    let mut plan = ForwardPlan::default();
    plan.upstreams = Some(vec![upstream.to_string().parse().expect("an address")]);
    // What it asks is asked in the workers' runtimes.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    Arc::new(Forwarder::new(plan, own, metrics.clone(), shutdown.clone()))
}
