//! The settings of `rollcall dev`. `config/dev.yaml` shows every key.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::client::ClientSettings;
#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar, duration};
use crate::ensemble::{MemberKeys, MemberSettings};
use crate::registry::{BrakeSettings, OwnService};
use crate::sidecar::{
    AdoptSettings, DnsSettings, EnsembleSettings, HttpSettings, SidecarPlan, SidecarSettings,
    SubscribeSettings,
};
use crate::telemetry::LogSettings;
use crate::znode::SessionTimeouts;

/// Settings of `rollcall dev`: those of a sidecar, and of the member that runs beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DevSettings {
    /// Where the registry lies in the member's tree. Default `/rollcall/services`.
    pub(crate) root: Option<String>,
    /// The namespace of the services below, and of short names in DNS. Default `default`.
    #[cfg_attr(test, schemars(with = "Option<schema::Label>"))]
    pub(crate) namespace: Option<String>,
    /// The ensemble's only member.
    pub(crate) ensemble: DevEnsembleSettings,
    /// Where the member's data lie. Default: a temporary folder, removed at exit.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub(crate) data_dir: Option<PathBuf>,
    /// The address at which the services below are reached, when they give none. Default `127.0.0.1`.
    #[cfg_attr(test, schemars(with = "Option<schema::IpAddress>"))]
    pub(crate) address: Option<Scalar>,
    /// The failure domain of the services, and of who looks up here. No default.
    pub(crate) zone: Option<String>,
    /// Whether lookups prefer instances of that zone, as far as it has room for all its callers. Default true.
    pub(crate) prefer_zone: Option<bool>,
    /// The machine of the services. No default.
    pub(crate) node: Option<String>,
    /// Where DNS is answered, for which zone, and how long answers may be kept.
    pub(crate) dns: DnsSettings,
    /// What others write in formats of theirs, and is served like the registry's own; at most 64 parts.
    pub(crate) adopt: Vec<AdoptSettings>,
    /// What is made of many instances that vanish at once.
    pub(crate) brake: BrakeSettings,
    /// Where HTTP is answered: lookups, commands and metrics.
    pub(crate) http: HttpSettings,
    /// What is logged, and how. Default: what becomes of the instances, and warnings.
    pub(crate) log: LogSettings,
    /// What is registered, beside `rollcall.default`.
    pub(crate) services: Vec<OwnService>,
}

/// The one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DevEnsembleSettings {
    /// The port for ZooKeeper clients, on 127.0.0.1. Default 2181.
    pub(crate) client_port: Option<u16>,
    /// The unit of session timeouts, `200ms` to `10s`. Default `2s`. Sessions last 2 to 20 ticks, so the session timeout must
    /// lie within.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub(crate) tick: Option<Scalar>,
    /// How long services of a process that died without a word are still offered, `4s` to `40s`. Default `10s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub(crate) session_timeout: Option<Scalar>,
    /// Txns between two snapshots. Default 100000.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub(crate) snapshot_txns: Option<u64>,
    /// Snapshots that are kept. Default 3.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub(crate) snapshots_kept: Option<usize>,
}

/// Everything decided.
#[derive(Clone, Debug)]
pub(crate) struct DevPlan {
    /// The sidecar; its servers and its own registration follow from the ports.
    pub(crate) sidecar: SidecarPlan,
    /// Where ZooKeeper clients connect.
    pub(crate) client_addr: SocketAddr,
    /// The member, but for its data folder.
    pub(crate) member: MemberSettings,
    /// Its data folder, if it is to be kept.
    pub(crate) data_dir: Option<PathBuf>,
}

impl DevPlan {
    /// What differs from `other` beside the sidecar, by its keys: all of it needs another start.
    pub(crate) fn members_difference(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("ensemble.client_port", self.client_addr != other.client_addr),
            ("ensemble", self.member != other.member),
            ("data_dir", self.data_dir != other.data_dir),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

/// What is logged by default: what becomes of the instances, what goes wrong, and queries where `dns.log_queries` wants them. The banner
/// says the rest.
const LOG_FILTER: &str = "warn,rollcall::registry::check=info,rollcall::registry::registrar=info,rollcall::dns::queries=info,\
                          rollcall::shutdown=info";
const CLIENT_PORT: u16 = 2181;

impl DevSettings {
    /// Checks everything and decides every default.
    ///
    /// # Errors
    ///
    /// Every mistake, with its path.
    pub(crate) fn plan(self) -> Result<DevPlan, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut member = MemberSettings::default();
        let DevEnsembleSettings { tick, snapshot_txns, snapshots_kept, .. } = self.ensemble.clone();
        MemberKeys { tick, snapshot_txns, snapshots_kept, ..MemberKeys::default() }.apply(
            "ensemble",
            &mut member,
            &mut mistakes,
        );
        mistakes.extend(tick_mistake(member.tick, self.ensemble.session_timeout.as_ref()));
        if self.data_dir.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            mistakes.push(Mistake::new("data_dir", "the path is empty", "name a directory, or leave it out"));
        }
        let client_port = self.ensemble.client_port.unwrap_or(CLIENT_PORT);
        let mut log = self.log;
        log.filter.get_or_insert_with(|| LOG_FILTER.to_owned());
        let sidecar = SidecarSettings {
            root: self.root,
            namespace: self.namespace,
            ensemble: EnsembleSettings { servers: None, session_timeout: self.ensemble.session_timeout },
            address: self.address.or_else(|| Some(Scalar(Ipv4Addr::LOCALHOST.to_string()))),
            zone: self.zone,
            prefer_zone: self.prefer_zone,
            node: self.node,
            state_dir: self.data_dir.clone().filter(|folder| !folder.as_os_str().is_empty()),
            dns: self.dns,
            brake: self.brake,
            subscribe: SubscribeSettings::default(),
            adopt: self.adopt,
            http: self.http,
            log,
            services: self.services,
        };
        match sidecar.plan() {
            Ok(sidecar) if mistakes.is_empty() => {
                let client_addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), client_port);
                Ok(DevPlan { sidecar, client_addr, member, data_dir: self.data_dir })
            }
            Ok(_) => Err(mistakes),
            Err(found) => {
                mistakes.extend(found);
                Err(mistakes)
            }
        }
    }
}

/// The member would hold the session timeout between its bounds without a word.
fn tick_mistake(tick: Duration, session_timeout: Option<&Scalar>) -> Option<Mistake> {
    let timeout = match session_timeout {
        Some(text) => duration::parse(&text.0).ok()?,
        None => ClientSettings::default().session_timeout,
    };
    let (min, max) = SidecarSettings::SESSION_TIMEOUT;
    let bounds = SessionTimeouts::from_tick(tick);
    let held = timeout.clamp(bounds.min, bounds.max);
    let message = || {
        format!(
            "with a tick of {} sessions last {}, not the session_timeout of {}",
            duration::text(tick),
            duration::text(held),
            duration::text(timeout)
        )
    };
    // One that cannot be read, or is out of range by itself, is told by the sidecar's own pass.
    ((min..=max).contains(&timeout) && held != timeout)
        .then(|| Mistake::new("ensemble.tick", message(), "make the session_timeout 2 to 20 ticks"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};

    #[test]
    fn without_a_file_everything_is_on_loopback() {
        let plan = DevSettings::default().plan().unwrap();
        let addresses = [plan.client_addr, plan.sidecar.dns_addr, plan.sidecar.http_addr];
        assert_eq!(
            addresses.map(|addr| addr.to_string()),
            ["127.0.0.1:2181", "127.0.0.1:8600", "127.0.0.1:8500"]
        );
        assert_eq!((plan.data_dir, plan.sidecar.registrations.len()), (None, 0));
    }

    #[test]
    fn mistakes_of_member_and_sidecar_are_told_together() {
        let text = "ensemble: {tick: 1h, snapshots_kept: 0, servers: [a]}\ndns: {ttl: x}\n";
        let mistakes = parse(text, &Environment::empty(), DevSettings::plan).unwrap_err();
        let paths: Vec<_> = mistakes.iter().map(|mistake| mistake.mistake.path.as_str()).collect();
        assert_eq!(paths, ["ensemble.tick", "ensemble.snapshots_kept", "ensemble.servers", "dns.ttl"]);
    }

    #[test]
    fn tick_and_session_timeout_must_fit() {
        let mistakes = |text: &str| {
            let found = parse(text, &Environment::empty(), DevSettings::plan).err().unwrap_or_default();
            found.iter().map(|found| found.mistake.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            mistakes("ensemble: {tick: 10s, session_timeout: 4s}"),
            ["ensemble.tick: with a tick of 10s sessions last 20s, not the session_timeout of 4s; make the \
              session_timeout 2 to 20 ticks"]
        );
        assert_eq!(mistakes("ensemble: {tick: 200ms}").len(), 1, "20 ticks are less than the default");
        assert!(mistakes("ensemble: {tick: 200ms, session_timeout: 4s}").is_empty());
        assert!(mistakes("ensemble: {tick: 5s}").is_empty());
        assert_eq!(
            mistakes("data_dir: ''"),
            ["data_dir: the path is empty; name a directory, or leave it out"]
        );
    }

    fn read(name: &str) -> String {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        fs_err::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn the_values_in_the_examples_are_the_defaults() {
        let dev = parse(&read("dev.yaml"), &Environment::empty(), DevSettings::plan).unwrap();
        let bare = "services: [{name: web, id: web-1, port: 8081, checks: [{kind: http}]}, \
                    {name: web, id: web-2, port: 8082, checks: [{kind: http}]}]";
        let bare = parse(bare, &Environment::empty(), DevSettings::plan).unwrap();
        assert_eq!(format!("{dev:#?}"), format!("{bare:#?}"));

        let environment = Environment::of([("POD_IP".to_owned(), "10.0.0.7".to_owned())]);
        let sidecar = parse(&read("sidecar.yaml"), &environment, SidecarSettings::plan).unwrap();
        // What the log takes an absent filter for is told by its own test.
        let bare = "{address: 10.0.0.7, log: {filter: info}, \
                    services: [{name: web, ports: [{name: http, port: 8080}], checks: [{kind: http}]}]}";
        let bare = parse(bare, &Environment::empty(), SidecarSettings::plan).unwrap();
        assert_eq!(format!("{sidecar:#?}"), format!("{bare:#?}"));
    }

    #[test]
    fn the_examples_in_the_repository_are_right() {
        let dev = parse(&read("dev.yaml"), &Environment::empty(), DevSettings::plan).unwrap();
        let names: Vec<_> = dev.sidecar.registrations.iter().map(|own| own.service.to_string()).collect();
        assert_eq!(names, ["web.default", "web.default"]);
        let environment = Environment::of([("POD_IP".to_owned(), "10.0.0.7".to_owned())]);
        let sidecar = parse(&read("sidecar.yaml"), &environment, SidecarSettings::plan).unwrap();
        assert_eq!(sidecar.registrations.len(), 1);
    }
}
