//! `rollcall dev`: everything in one process on loopback.
//!
//! Order: settings, then all ports, then data folder, member, sidecar. So a mistake or a taken port leaves nothing behind. And
//! backwards at the end: the sidecar drains and closes its session, the member writes and stops, the folder goes.

mod banner;
mod settings;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tracing::{info, warn};

pub(super) use settings::{DevPlan, DevSettings};

use self::banner::Banner;
use super::arguments::{DevArguments, with_port};
use super::failure::{Failure, chain};
use super::file_limit;
use super::name::ServiceArgument;
use super::output::print;
use crate::config::{Environment, FileWatch, LocatedMistake, Scalar, load_text, parse, read};
use crate::ensemble::{Member, MemberSettings, observe_member};
use crate::registry::check::{CheckKind, CheckSettings};
use crate::registry::{OwnService, Registration, ServiceDefaults, ServiceKey, resolve_services};
use crate::sidecar::{Listener, Listeners, Reading, SettingsFile, Sidecar, SidecarPlan, reason};
use crate::telemetry::{Metrics, init_logging};
use crate::{http, shutdown};

/// Runs until a signal comes or a part fails.
pub(super) async fn run(arguments: DevArguments) -> Result<(), Failure> {
    // 1. Settings.
    let environment = Environment::of_process();
    let text = arguments.config.as_deref().map(read).transpose()?;
    let mut plan = match (&arguments.config, &text) {
        (Some(file), Some(text)) => load_text(file, text, &environment, DevSettings::plan)?,
        (_, None) | (None, _) => DevSettings::default().plan().map_err(|mistakes| {
            let texts: Vec<_> = mistakes.iter().map(|mistake| mistake.message.clone()).collect();
            Failure::failed(texts.join("; "))
        })?,
    };
    let added = arguments.services.iter().map(registration).collect::<Result<Vec<_>, _>>()?;
    arguments.go_before(&mut plan);
    add_services(&mut plan, &added).map_err(Failure::usage)?;
    let log = init_logging(&plan.sidecar.log).map_err(|error| Failure::usage(error.to_string()))?;
    file_limit::raise_for(&plan.sidecar);
    let stop = shutdown::on_signals().map_err(|error| Failure::failed(error.to_string()))?;

    // 2. Ports.
    let client_listener = bind_client_port(plan.client_addr)?;
    let listeners = Listeners::bind(&plan.sidecar).map_err(|error| {
        let flag = match error.listener {
            Listener::Dns => "--dns-port",
            Listener::Http => "--http-port",
        };
        port_failure(&error.to_string(), flag)
    })?;
    let http_addr = listeners.http_addr().map_err(|error| Failure::failed(error.to_string()))?;

    // 3. The member.
    let started = plan.clone();
    let data = DataFolder::open(plan.data_dir.take()).map_err(|error| {
        Failure::failed(format!("{error}; name a folder that can be written with --data-dir"))
    })?;
    let settings = MemberSettings { data_dir: data.path(), ..plan.member };
    let mut member = Member::start(settings, client_listener, None)
        .await
        .map_err(|error| Failure::failed(chain(&error)))?;

    // 4. The sidecar.
    let client_addr = member.client_addr();
    meet_member(&mut plan.sidecar, client_addr, http_addr);
    let zone = plan.sidecar.dns.zone.apex().to_string();
    let metrics = Arc::new(Metrics::new());
    observe_member(&metrics, &member.stats()).map_err(|error| Failure::failed(chain(&error)))?;
    let watch = arguments.config.as_deref().zip(text).map(|(file, text)| FileWatch::start(file, &text));
    let settings = watch.map(|watch| {
        SettingsFile::new(watch, log, move |text| {
            let mut plan = parse(text, &environment, DevSettings::plan)?;
            arguments.go_before(&mut plan);
            add_services(&mut plan, &added).map_err(|text| vec![LocatedMistake::of_file(text)])?;
            let restart = plan.members_difference(&started);
            meet_member(&mut plan.sidecar, client_addr, http_addr);
            Ok(Reading { plan: plan.sidecar, restart })
        })
    });
    let sidecar = Sidecar::start(plan.sidecar, settings, listeners, metrics)
        .map_err(|error| Failure::failed(chain(&error)))?;
    let banner = Banner {
        program: program(),
        client: member.client_addr(),
        dns: sidecar.dns_addr(),
        http: sidecar.http_addr(),
        zone,
        data: data.describe(),
    };
    // Nobody has to read the banner for the rest to be useful.
    if let Err(Failure::OutputClosed) = print(&banner.text()) {
        info!("stdout is closed");
    }

    // 5. Until the end: a member that fails stops the sidecar, too.
    let ended = tokio::select! {
        ended = sidecar.run(stop.clone()) => ended.map_err(|error| Failure::failed(chain(&error))),
        error = member.failed() => return Err(Failure::failed(chain(&error))),
    };
    let stopped = member.shutdown().await.map_err(|error| Failure::failed(chain(&error)));
    data.close();
    ended.and(stopped)
}

/// How this program was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "rollcall".to_owned())
}

impl DevArguments {
    /// Has the arguments go before what the file says.
    fn go_before(&self, plan: &mut DevPlan) {
        plan.client_addr = with_port(plan.client_addr, self.client_port);
        plan.sidecar.dns_addr = with_port(plan.sidecar.dns_addr, self.dns_port);
        plan.sidecar.http_addr = with_port(plan.sidecar.http_addr, self.http_port);
        if self.data_dir.is_some() {
            plan.data_dir.clone_from(&self.data_dir);
            // Who may replace our records after a restart is kept with the data.
            plan.sidecar.state_dir.clone_from(&self.data_dir);
        }
    }
}

/// Adds what `--service` asks for, unless it is there.
fn add_services(plan: &mut DevPlan, added: &[Registration]) -> Result<(), String> {
    for registration in added {
        let is_same =
            |other: &&Registration| other.service == registration.service && other.id == registration.id;
        if plan.sidecar.registrations.iter().find(is_same).is_some() {
            let Registration { service, id, .. } = registration;
            return Err(format!("--service {service}: {id} is registered already; leave one out"));
        }
        plan.sidecar.registrations.push(registration.clone());
    }
    Ok(())
}

/// What follows from the ports: the member, and the sidecar's own registration.
fn meet_member(plan: &mut SidecarPlan, client_addr: SocketAddr, http_addr: SocketAddr) {
    plan.client.servers = vec![client_addr.to_string()];
    plan.registrations.extend(own_registration(http_addr, &plan.registrations));
}

/// The instance that `--service` asks for.
fn registration(argument: &ServiceArgument) -> Result<Registration, Failure> {
    let service = OwnService {
        name: argument.service.name.to_string(),
        namespace: Some(argument.service.namespace.to_string()),
        id: Some(argument.id()),
        address: Some(Scalar(argument.addr.ip().to_string())),
        port: Some(argument.addr.port()),
        ..OwnService::default()
    };
    resolve_one(service)
}

/// `rollcall.default`: the sidecar itself, so that there is something to look up; not when the file has it already.
fn own_registration(http_addr: SocketAddr, others: &[Registration]) -> Option<Registration> {
    let ip = if http_addr.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { http_addr.ip() };
    let service = OwnService {
        name: "rollcall".to_owned(),
        namespace: Some(ServiceKey::NAMESPACE_DEFAULT.to_owned()),
        id: Some("dev".to_owned()),
        address: Some(Scalar(ip.to_string())),
        port: Some(http_addr.port()),
        checks: Some(vec![CheckSettings {
            path: Some("/livez".to_owned()),
            ..CheckSettings::new(CheckKind::Http)
        }]),
        ..OwnService::default()
    };
    let own = resolve_one(service).ok()?;
    let is_there = others.iter().any(|other| other.service == own.service && other.id == own.id);
    (!is_there).then_some(own)
}

fn resolve_one(service: OwnService) -> Result<Registration, Failure> {
    let resolved = resolve_services(&[service], "service", &ServiceDefaults::default());
    let registrations = resolved.map_err(|problems| {
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Failure::usage(texts.join("; "))
    })?;
    registrations.into_iter().next().ok_or_else(|| Failure::usage("no service was given"))
}

fn bind_client_port(addr: SocketAddr) -> Result<TcpListener, Failure> {
    http::bind(addr).map_err(|error| {
        let text = format!("cannot listen on {addr} for ZooKeeper clients: {}", reason(&error));
        port_failure(&text, "--client-port")
    })
}

fn port_failure(text: &str, flag: &str) -> Failure {
    Failure::failed(format!("{text}; stop what listens there, or choose another port with {flag}"))
}

/// Where the member's data lie.
enum DataFolder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl DataFolder {
    fn open(kept: Option<PathBuf>) -> io::Result<Self> {
        match kept {
            Some(folder) => {
                fs_err::create_dir_all(&folder)?;
                Ok(Self::Kept(folder))
            }
            None => Ok(Self::Temporary(tempfile::Builder::new().prefix("rollcall-dev-").tempdir()?)),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Kept(folder) => folder.clone(),
            Self::Temporary(folder) => folder.path().to_owned(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Kept(folder) => folder.display().to_string(),
            Self::Temporary(folder) => {
                format!("{} (removed at exit; keep it with --data-dir)", folder.path().display())
            }
        }
    }

    fn close(self) {
        if let Self::Temporary(folder) = self
            && let Err(error) = folder.close()
        {
            warn!(%error, "the temporary folder is left behind");
        }
    }
}
