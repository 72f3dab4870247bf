//! `rollcall ensemble`.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::field::display;
use tracing::{info, warn};

use super::arguments::EnsembleArguments;
use super::failure::{Failure, chain};
use super::file_limit;
use crate::config::{Environment, load};
use crate::ensemble::{
    EnsembleConfig, Member, PeerListeners, StatusPlace, ZooCfg, load_zoo_cfg, observe_member,
};
use crate::http::{self, ListenerSettings, StatusRouter};
use crate::shutdown;
use crate::sidecar::reason;
use crate::telemetry::{Metrics, init_logging};

/// How long the status listener may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);

/// Runs one member until a signal comes or it fails.
pub(super) async fn run(arguments: EnsembleArguments) -> Result<(), Failure> {
    let ZooCfg { mut plan, status_place, warnings } = match (&arguments.zoo_cfg, &arguments.config) {
        (Some(file), _) => load_zoo_cfg(file)?,
        (None, Some(file)) => ZooCfg {
            plan: load(file, &Environment::of_process(), EnsembleConfig::plan)?,
            status_place: StatusPlace::Given,
            warnings: Vec::new(),
        },
        (None, None) => {
            return Err(Failure::usage(
                "give a settings file with -c, or Apache ZooKeeper's own with --zoo-cfg",
            ));
        }
    };
    plan.member.accept_members = arguments.accept_members;
    if let Some(peers) = &mut plan.member.peers {
        peers.force_bootstrap = arguments.force_bootstrap;
    }
    init_logging(&plan.log).map_err(|error| Failure::usage(error.to_string()))?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    file_limit::raise();
    let file = arguments.zoo_cfg.as_ref().or(arguments.config.as_ref());
    let file = file.map(|file| file.display().to_string()).unwrap_or_default();
    let stop = shutdown::on_signals().map_err(|error| Failure::failed(error.to_string()))?;
    let bind = |addr, what: &str, key: &str| {
        http::bind(addr).map_err(|error| {
            let why = reason(&error);
            let stop = if error.kind() == ErrorKind::AddrInUse { "stop what listens there, or " } else { "" };
            format!("cannot listen on {addr} for {what}: {why}; {stop}change {key} in {file}")
        })
    };
    let [client_key, status_key, members_key, listen_key] = if arguments.zoo_cfg.is_some() {
        ["clientPort", "metricsProvider.className and httpPort", "server.N", "quorumListenOnAllIPs=true"]
    } else {
        ["client.address", "status_address", "members", "quorum.listen_host to an address of this machine"]
    };
    let client_listener = bind(plan.client_addr, "ZooKeeper clients", client_key).map_err(Failure::failed)?;
    let status_listener = match (bind(plan.status_addr, "status", status_key), status_place) {
        (Ok(listener), _) => Some(listener),
        (Err(why), StatusPlace::Default) => {
            warn!("{why}; this member goes on without a status port");
            None
        }
        (Err(why), StatusPlace::Given) => return Err(Failure::failed(why)),
    };
    let peer_listeners = match &plan.member.peers {
        None => None,
        Some(peers) => {
            Some(PeerListeners::bind(plan.member.server_id, peers).await.map_err(|(place, error)| {
                let remedy = if error.kind() == ErrorKind::AddrInUse {
                    format!("stop what listens there, or change {members_key} in {file}")
                } else if peers.listen_host.is_none() {
                    format!("change {members_key} in {file}, or set {listen_key}")
                } else {
                    format!("change {listen_key} in {file}")
                };
                let why = reason(&error);
                Failure::failed(format!("cannot listen on {place} for other members: {why}; {remedy}"))
            })?)
        }
    };

    let mut member = Member::start(plan.member, client_listener, peer_listeners)
        .await
        .map_err(|error| Failure::failed(chain(&error)))?;
    let metrics = Arc::new(Metrics::new());
    observe_member(&metrics, &member.stats()).map_err(|error| Failure::failed(chain(&error)))?;
    let serving = member.serving();
    let readiness = move || if *serving.borrow() { Ok(()) } else { Err("no leader\n") };
    let router = StatusRouter::new(Arc::clone(&metrics), readiness);
    let status_stop = CancellationToken::new();
    let status_addr = status_listener.is_some().then(|| display(plan.status_addr));
    info!(client = %member.client_addr(), status = status_addr, "listening");
    let status = status_listener.map(|listener| {
        let settings = ListenerSettings::default();
        tokio::spawn(http::serve(listener, router.into_answer(), settings, metrics, status_stop.clone()))
    });

    let ended = tokio::select! {
        () = stop.cancelled() => member.shutdown().await,
        error = member.failed() => Err(error),
    };
    status_stop.cancel();
    if let Some(status) = status {
        // It has nothing to lose: probes ask again.
        let _ = tokio::time::timeout(STOP_TIMEOUT, status).await;
    }
    ended.map_err(|error| Failure::failed(chain(&error)))
}
