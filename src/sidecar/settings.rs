//! The settings of the sidecar, and the plan that they make.
//!
//! [`SidecarSettings`] is what the file says; [`SidecarSettings::plan`] checks all of it in one pass and decides every
//! default. `config/sidecar.yaml` shows every key.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::dns_settings::DnsSettings;
use super::http_settings::HttpSettings;
use super::subscription::{AdoptSettings, SubscribeSettings, plan_label, plan_sources};
use crate::client::{ClientSettings, is_host_and_port};
#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar, socket_addr};
use crate::dns::tcp::TcpSettings;
use crate::dns::{DnsPlan, ForwardPlan};
use crate::http::ListenerSettings;
use crate::registry::{
    BrakePlan, BrakeSettings, Home, Label, Layout, OwnService, Registration, ServiceDefaults, ServiceKey,
    Source, host_address, resolve_services,
};
use crate::telemetry::LogSettings;
use crate::znode::ZnodePath;

/// Settings of `rollcall sidecar`, the pod's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SidecarSettings {
    /// Where the registry lies in the ensemble's tree. Default `/rollcall/services`. Danger: sidecars with different roots
    /// do not see one another.
    pub root: Option<String>,
    /// The sidecar's own namespace: that of its services, and of short names in DNS. Default `default`.
    #[cfg_attr(test, schemars(with = "Option<schema::Label>"))]
    pub namespace: Option<String>,
    /// Where the ensemble is, and how long sessions last there.
    pub ensemble: EnsembleSettings,
    /// The address at which other pods reach this one. No default: without it each service must have its own.
    #[cfg_attr(test, schemars(with = "Option<schema::IpAddress>"))]
    pub address: Option<Scalar>,
    /// The failure domain of its services, and of who looks up here. No default.
    pub zone: Option<String>,
    /// Whether lookups prefer instances of that zone, as far as it has room for all its callers. Default true. Danger: an answer
    /// names the instances of one zone alone, and while callers are not spread as assumed a zone gets more than its share; without it
    /// most calls cross zones.
    pub prefer_zone: Option<bool>,
    /// The machine of its services. No default.
    pub node: Option<String>,
    /// A directory that keeps the sidecar's identity and its view over restarts, of this sidecar alone. Default: none, a new identity and an
    /// empty view at each start.
    pub state_dir: Option<PathBuf>,
    /// Where DNS is answered, for which zone, and how long answers may be kept.
    pub dns: DnsSettings,
    /// What is made of many instances that vanish at once.
    pub brake: BrakeSettings,
    /// What of the registry is followed.
    pub subscribe: SubscribeSettings,
    /// What others write in formats of theirs, and is served like the registry's own; at most 64 parts.
    pub adopt: Vec<AdoptSettings>,
    /// Where HTTP is answered: lookups, commands and metrics.
    pub http: HttpSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// What this pod offers.
    pub services: Vec<OwnService>,
}

/// Where the ensemble is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct EnsembleSettings {
    /// Its members, or those of any Apache ZooKeeper from 3.6 on, each `host:port`. Default `[127.0.0.1:2181]`.
    #[cfg_attr(test, schemars(with = "Option<Vec<schema::HostAndPort>>", length(min = 1)))]
    pub servers: Option<Vec<String>>,
    /// How long a dead machine's services stay, `4s` to `40s`. Default `10s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub session_timeout: Option<Scalar>,
}

/// Everything decided.
#[derive(Clone, Debug)]
pub struct SidecarPlan {
    /// Where the registry lies.
    pub layout: Layout,
    /// How to reach the ensemble.
    pub client: ClientSettings,
    /// Where DNS listens.
    pub dns_addr: SocketAddr,
    /// Threads that answer DNS over UDP, at least one.
    pub dns_workers: usize,
    /// What it answers for, and how.
    pub dns: DnsPlan,
    /// Bounds of its connections.
    pub dns_tcp: TcpSettings,
    /// Who is asked for names out of the zone.
    pub forward: ForwardPlan,
    /// What is followed.
    pub sources: Vec<Source>,
    /// Where of the registry only what is looked up is, for how long nobody may look it up.
    pub idle: Option<Duration>,
    /// What is made of many instances that vanish at once.
    pub brake: BrakePlan,
    /// Where HTTP listens.
    pub http_addr: SocketAddr,
    /// Bounds of its connections.
    pub http: ListenerSettings,
    /// What is registered.
    pub registrations: Vec<Registration>,
    /// Where lookups come from.
    pub home: Home,
    /// What keeps the sidecar's identity.
    pub state_dir: Option<PathBuf>,
    /// Logs.
    pub log: LogSettings,
}

impl SidecarSettings {
    /// Checks everything and decides every default.
    ///
    /// # Errors
    ///
    /// Every mistake, with its path.
    pub fn plan(mut self) -> Result<SidecarPlan, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let layout = self.plan_layout(&mut mistakes);
        let namespace = self.plan_namespace(&mut mistakes);
        let client = self.plan_client(&mut mistakes);
        let dns_addr = socket_addr("dns.address", self.dns.address.as_deref(), Self::DNS_ADDR, &mut mistakes);
        let http_addr =
            socket_addr("http.address", self.http.address.as_deref(), Self::HTTP_ADDR, &mut mistakes);
        let dns = self.dns.plan(&namespace, &mut mistakes);
        let dns_workers = self.dns.plan_workers(&mut mistakes);
        let dns_tcp = self.dns.plan_tcp(&mut mistakes);
        let http = self.http.plan(&mut mistakes);
        let forward = self.dns.forward.plan("dns.forward", dns_addr, &mut mistakes);
        if let Some(dns) = &dns {
            self.dns.forward.refuse_own("dns.forward", dns, &mut mistakes);
        }
        let brake = self.brake.plan("brake", &mut mistakes);
        let registrations = self.plan_services(layout.as_ref(), &namespace, &mut mistakes);
        let own = registrations.iter().map(|own| own.service.namespace.clone()).chain([namespace]);
        let sources = layout.as_ref().map_or_else(Vec::new, |layout| {
            plan_sources(&self.subscribe, &self.adopt, layout, own.collect(), &mut mistakes)
        });
        let idle = self.subscribe.plan_idle(&mut mistakes);
        if let (Some(of_dns), Some(of_http)) = (dns_addr, http_addr)
            && of_dns == of_http
            && of_http.port() != 0
        {
            let message = format!("{of_http} is dns.address, too");
            mistakes.push(Mistake::new("http.address", message, "give each a port of its own"));
        }
        if self.state_dir.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            mistakes.push(Mistake::new(
                "state_dir",
                "the path is empty",
                "name a directory, or leave it out",
            ));
        }
        if let Err(error) = self.log.check_filter() {
            mistakes.push(Mistake::new("log.filter", error.to_string(), ""));
        }
        if let (Some(layout), Some(client), Some(dns_addr), Some(http_addr), Some(dns), true) =
            (layout, client, dns_addr, http_addr, dns, mistakes.is_empty())
        {
            let preferred = self.zone.filter(|_| self.prefer_zone.unwrap_or(true));
            let home = Home::new(preferred, registrations.iter().map(|own| own.service.clone()));
            let (state_dir, log) = (self.state_dir, self.log);
            Ok(SidecarPlan {
                layout,
                client,
                dns_addr,
                dns_workers,
                dns,
                dns_tcp,
                forward,
                sources,
                idle,
                brake,
                http_addr,
                http,
                registrations,
                home,
                state_dir,
                log,
            })
        } else {
            Err(mistakes)
        }
    }

    /// Where DNS listens by default.
    pub const DNS_ADDR: &'static str = "127.0.0.1:8600";
    /// Where HTTP listens by default.
    pub const HTTP_ADDR: &'static str = "127.0.0.1:8500";
    /// The shortest and the longest session timeout: a shorter one takes slow machines for dead ones, a longer one offers
    /// dead machines for minutes.
    pub const SESSION_TIMEOUT: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(40));

    fn plan_layout(&self, mistakes: &mut Vec<Mistake>) -> Option<Layout> {
        let root = self.root.as_deref().unwrap_or(Layout::ROOT);
        let layout = Layout::new(root);
        if let Err(error) = &layout {
            mistakes.push(Mistake::new(
                "root",
                error.to_string(),
                "write a znode path such as /rollcall/services",
            ));
        }
        layout.ok()
    }

    fn plan_namespace(&self, mistakes: &mut Vec<Mistake>) -> Label {
        let default = Label::parse(ServiceKey::NAMESPACE_DEFAULT).expect("a label");
        let named = self.namespace.as_ref().and_then(|text| plan_label("namespace", text, mistakes));
        named.unwrap_or(default)
    }

    fn plan_client(&self, mistakes: &mut Vec<Mistake>) -> Option<ClientSettings> {
        let mut client = ClientSettings::default();
        if let Some(servers) = &self.ensemble.servers {
            if servers.is_empty() {
                mistakes.push(Mistake::new(
                    "ensemble.servers",
                    "there is no server",
                    "list the members of the ensemble as host:port",
                ));
            }
            for (index, server) in servers.iter().enumerate() {
                if !is_host_and_port(server) {
                    mistakes.push(Mistake::new(
                        format!("ensemble.servers[{index}]"),
                        format!("{server:?} is not host:port"),
                        "write one such as zk-0.zk:2181",
                    ));
                }
            }
            client.servers.clone_from(servers);
        }
        if let Some(text) = &self.ensemble.session_timeout {
            let path = "ensemble.session_timeout";
            let timeout = text.to_duration_within(path, Self::SESSION_TIMEOUT, mistakes)?;
            client = client.with_session_timeout(timeout);
        }
        Some(client)
    }

    fn plan_services(
        &mut self,
        layout: Option<&Layout>,
        namespace: &Label,
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<Registration> {
        let address = self.address.as_ref().map(|text| {
            let address = text.0.parse::<IpAddr>().ok().and_then(host_address);
            if address.is_none() {
                mistakes.push(Mistake::new(
                    "address",
                    format!("{:?} is not the IP address of one host", text.0),
                    "write the address at which other pods reach this one",
                ));
            }
            // What lacks an address only because this one is wrong is not told on top of it.
            address.unwrap_or(IpAddr::from([127, 0, 0, 1]))
        });
        for service in &mut self.services {
            if service.namespace.is_none() {
                service.namespace = Some(namespace.to_string());
            }
        }
        for (key, text) in [("zone", &self.zone), ("node", &self.node)] {
            if text.as_deref() == Some("") {
                let remedy = format!("name it, or leave {key} out");
                mistakes.push(Mistake::new(key, format!("the {key} is empty"), remedy));
            }
        }
        let (zone, node) = (self.zone.clone(), self.node.clone());
        let registry_root = layout.and_then(|layout| ZnodePath::parse(layout.root()).ok());
        let defaults = ServiceDefaults { address, host_name: host_name(), zone, node, registry_root };
        resolve_services(&self.services, "services", &defaults).unwrap_or_else(|found| {
            mistakes.extend(found);
            Vec::new()
        })
    }
}

/// The host's name, which in Kubernetes is the pod's.
pub(super) fn host_name() -> String {
    let name = fs_err::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};

    #[test]
    fn an_empty_file_is_a_sidecar_that_only_looks_up() {
        let plan = parse("", &Environment::empty(), SidecarSettings::plan).unwrap();
        assert_eq!((plan.dns_addr.port(), plan.http_addr.port()), (8600, 8500));
        assert_eq!(plan.client.servers, ["127.0.0.1:2181"]);
        assert!(plan.registrations.is_empty());
    }

    #[test]
    fn services_are_in_the_sidecars_namespace() {
        let text = "namespace: shop\naddress: 10.0.0.1\nservices:\n- {name: web, port: 80}\n- {name: web, port: 80, namespace: other}\n";
        let plan = parse(text, &Environment::empty(), SidecarSettings::plan).unwrap();
        let keys: Vec<_> = plan.registrations.iter().map(|own| own.service.to_string()).collect();
        assert_eq!(keys, ["web.shop", "web.other"]);
    }

    #[test]
    fn lookups_come_from_the_pods_zone_and_its_services_unless_zones_are_not_to_matter() {
        let plan = |more: &str| {
            let text =
                format!("zone: a\naddress: 10.0.0.1\nservices: [{{name: web, port: 80, zone: b}}]\n{more}");
            parse(&text, &Environment::empty(), SidecarSettings::plan).unwrap()
        };
        let services = || plan("").registrations.into_iter().map(|own| own.service);
        assert_eq!(plan("").home, Home::new(Some("a".to_owned()), services()));
        assert_eq!(plan("prefer_zone: false").home, Home::new(None, services()));
    }

    #[test]
    fn every_mistake_is_told_with_its_path() {
        let text = "\
root: services
namespace: Shop
address: here
ensemble: {servers: [zk], session_timeout: 1s}
dns: {address: 127.0.0.1, zone: a..b, ttl: 1500ms, workers: 0, tcp: {connections_max: 0, idle_timeout: 1ms}}
http: {address: localhost:80, connections_max: 8}
services: [{name: web, port: 0}]
";
        let mistakes = parse(text, &Environment::empty(), SidecarSettings::plan).unwrap_err();
        let mut paths: Vec<_> = mistakes.iter().map(|mistake| mistake.mistake.path.as_str()).collect();
        paths.dedup();
        assert_eq!(
            paths,
            [
                "root",
                "namespace",
                "address",
                "ensemble.servers[0]",
                "ensemble.session_timeout",
                "dns.address",
                "dns.zone",
                "dns.ttl",
                "dns.workers",
                "dns.tcp.connections_max",
                "dns.tcp.idle_timeout",
                "http.address",
                "http.connections_max",
                "services[0].port",
            ]
        );
    }

    #[test]
    fn what_could_never_take_effect_is_told() {
        let mistakes = |text: &str| {
            let found = parse(text, &Environment::empty(), SidecarSettings::plan).err().unwrap_or_default();
            found.iter().map(|found| found.mistake.to_string()).collect::<Vec<_>>()
        };
        for (zone, domain) in
            [("a.example", "a.example."), ("example", "Consul.Example"), ("consul", "consul.")]
        {
            let text = format!("dns: {{zone: {zone}, consul: {{enabled: true, domain: {domain}}}}}");
            let expected = format!(
                "dns.consul.domain: {domain} is in dns.zone, {zone}., whose names go first; write a domain that is not in the zone, such as \
                 consul., or another zone"
            );
            assert_eq!(mistakes(&text), [expected]);
        }
        assert_eq!(mistakes("dns: {zone: consul}"), [""; 0], "nobody asks for Consul's names");
        assert_eq!(mistakes("dns: {zone: a.consul, consul: {enabled: true}}"), [""; 0]);

        let forward = |key: &str| {
            format!(
                "dns: {{zone: own.example, consul: {{enabled: true}}, forward: {{domains: {{{key}: [10.0.0.53]}}}}}}"
            )
        };
        for (key, own) in
            [("Own.Example", "dns.zone"), ("a.own.example.", "dns.zone"), ("dc1.consul", "dns.consul.domain")]
        {
            let expected = format!(
                "dns.forward.domains.{key}: nobody is asked for names in {key}: they are in {own} and answered here; leave it out"
            );
            assert_eq!(mistakes(&forward(key)), [expected]);
        }
        assert_eq!(
            mistakes(&forward("example")),
            [""; 0],
            "the zone's names are answered here, its neighbours' are not"
        );

        for (zone, special) in [
            ("localhost", "localhost."),
            ("a.Invalid", "invalid."),
            ("onion.", "onion."),
            ("10.in-addr.arpa", "in-addr.arpa."),
            ("ip6.arpa", "ip6.arpa."),
        ] {
            let apex = format!("{}.", zone.trim_end_matches('.').to_lowercase());
            let message = format!(
                "names in {special} are special, and {apex} cannot give them another meaning; write one such as"
            );
            let expected = format!("dns.zone: {message} rollcall.internal.");
            assert_eq!(mistakes(&format!("dns: {{zone: {zone}}}")), [expected]);
            let expected = format!("dns.consul.domain: {message} consul.");
            let consul = |is_enabled| format!("dns: {{consul: {{enabled: {is_enabled}, domain: {zone}}}}}");
            assert_eq!(mistakes(&consul(true)), [expected]);
            assert_eq!(mistakes(&consul(false)), [""; 0], "nobody asks for Consul's names");
        }

        let tcp = |text: &str| mistakes(&format!("dns: {{tcp: {{{text}}}}}"));
        assert_eq!(
            tcp("connections_max: 99, client_connections_max: 100"),
            [
                "dns.tcp.client_connections_max: 100 of one client are more than the 99 of all, connections_max; lower it, or raise connections_max"
            ]
        );
        assert_eq!(tcp("client_connections_max: 1000").len(), 1, "more than those of all by default");
        let waiting = |text: &str| mistakes(&format!("dns: {{forward: {{{text}}}}}"));
        assert_eq!(
            waiting("waiting_max: 8, client_waiting_max: 9"),
            [
                "dns.forward.client_waiting_max: 9 of one client are more than the 8 of all, waiting_max; lower it, or raise waiting_max"
            ]
        );
        assert_eq!(waiting("client_waiting_max: 1000").len(), 1);
        let plan = parse(
            "dns: {tcp: {connections_max: 99}, forward: {waiting_max: 8}}",
            &Environment::empty(),
            SidecarSettings::plan,
        )
        .unwrap();
        assert_eq!((plan.dns_tcp.client_connections_max, plan.forward.client_waiting_max), (99, 8));
    }

    #[test]
    fn what_would_fail_only_at_the_start_is_told_with_the_rest() {
        let text = "\
zone: ''
node: ''
address: 224.0.0.1
state_dir: ''
dns: {address: 127.0.0.1:53}
http: {address: 127.0.0.1:53}
log: {filter: rollcall=loud}
";
        let mistakes = parse(text, &Environment::empty(), SidecarSettings::plan).unwrap_err();
        let paths: Vec<_> = mistakes.iter().map(|mistake| mistake.mistake.path.as_str()).collect();
        assert_eq!(paths, ["zone", "node", "address", "state_dir", "http.address", "log.filter"]);
        assert_eq!(
            mistakes[4].to_string(),
            "6:17: http.address: 127.0.0.1:53 is dns.address, too; give each a port of its own"
        );
    }
}
