//! The settings of the DNS listener and its answers.

use std::time::Duration;

use hickory_proto::rr::Name;
use serde::Deserialize;

use super::subscription::plan_label;
#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar, duration};
use crate::dns::tcp::TcpSettings;
use crate::dns::{ConsulDomain, DnsPlan, ForwardSettings, Ttls, WORKERS_MAX, Zone, special_domain};
use crate::registry::Label;

/// The DNS listener and its answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DnsSettings {
    /// Where to listen, UDP and TCP. Default `127.0.0.1:8600`.
    #[cfg_attr(test, schemars(with = "Option<schema::SocketAddress>"))]
    pub address: Option<String>,
    /// Threads that answer over UDP, each with a socket of its own; the system deals clients out among them. Default 1, at most 64.
    pub workers: Option<usize>,
    /// The zone that is answered for. Default `rollcall.internal.`
    pub zone: Option<String>,
    /// How long answers may be kept, in whole seconds, at most `7d`. Default `2s`. Danger: a long one delays failover.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub ttl: Option<Scalar>,
    /// How long it may be kept that there is nothing, in whole seconds. Default `1s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub negative_ttl: Option<Scalar>,
    /// The longest TTL while the view may be behind, in whole seconds. Default `1s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub stale_ttl: Option<Scalar>,
    /// Consul's names, beside those of the zone.
    pub consul: ConsulSettings,
    /// Whether every query is logged, at `info` with the target `rollcall::dns::queries`. Default false. Danger: it says who asks for
    /// what, and takes far longer than the answer.
    pub log_queries: Option<bool>,
    /// Bounds of connections.
    pub tcp: DnsTcpSettings,
    /// Who is asked for names out of the zone.
    pub forward: ForwardSettings,
}

/// Bounds of DNS connections over TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DnsTcpSettings {
    /// Connections at a time, 1 to 16384. Default 768. Beyond, whoever has the most loses the one that has been silent longest. Danger: each
    /// takes a file descriptor.
    #[cfg_attr(test, schemars(range(min = 1, max = 16_384)))]
    pub connections_max: Option<usize>,
    /// The same of one client address, or of one IPv6 network of 64 bits, 1 to 16384, at most those of all. Default 512, or those of all where they are fewer. Danger: applications of a pod share one address.
    #[cfg_attr(test, schemars(range(min = 1, max = 16_384)))]
    pub client_connections_max: Option<usize>,
    /// How long a connection may stay silent between queries, `100ms` to `1h`. Default `10s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub idle_timeout: Option<Scalar>,
    /// How long a query may take to arrive, and answers to be taken, `100ms` to `1m`. Default `5s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub message_timeout: Option<Scalar>,
}

/// Consul's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ConsulSettings {
    /// Whether they are answered. Default false.
    pub enabled: Option<bool>,
    /// The domain that they end with. Default `consul.`
    pub domain: Option<String>,
    /// The datacenter that they may name; others do not exist. Default `dc1`.
    pub datacenter: Option<String>,
}

impl DnsSettings {
    /// The zone by default.
    pub const ZONE: &'static str = "rollcall.internal.";

    /// Checks everything but the address, and decides every default; `namespace` is that of short names.
    pub(super) fn plan(&self, namespace: &Label, mistakes: &mut Vec<Mistake>) -> Option<DnsPlan> {
        let zone = self.plan_zone(namespace, mistakes);
        let consul = self.plan_consul(namespace, mistakes);
        if let (Some(zone), Some(consul)) = (&zone, &consul)
            && consul.is_within(zone)
        {
            let domain = self.consul.domain.as_deref().unwrap_or(ConsulDomain::DOMAIN);
            let message = format!("{domain} is in dns.zone, {zone}, whose names go first");
            let remedy = "write a domain that is not in the zone, such as consul., or another zone";
            mistakes.push(Mistake::new("dns.consul.domain", message, remedy));
        }
        let ttls = self.plan_ttls(mistakes);
        Some(DnsPlan { zone: zone?, consul, ttls, is_logged: self.log_queries.unwrap_or(false) })
    }

    /// How many threads answer over UDP.
    pub(super) fn plan_workers(&self, mistakes: &mut Vec<Mistake>) -> usize {
        let workers = self.workers.unwrap_or(1);
        if !(1..=WORKERS_MAX).contains(&workers) {
            let message = format!("{workers} threads cannot answer");
            mistakes.push(Mistake::new("dns.workers", message, format!("write 1 to {WORKERS_MAX}")));
        }
        workers
    }

    /// Checks the bounds of connections, and decides their defaults.
    pub(super) fn plan_tcp(&self, mistakes: &mut Vec<Mistake>) -> TcpSettings {
        let (given, default) = (&self.tcp, TcpSettings::default());
        let mut number = |key: &str, given: Option<usize>, default: usize| {
            let given = given.unwrap_or(default);
            if !(1..=CONNECTIONS_MAX).contains(&given) {
                let remedy = format!("write a number from 1 to {CONNECTIONS_MAX}");
                mistakes.push(Mistake::new(
                    format!("dns.tcp.{key}"),
                    format!("{given} is out of range"),
                    remedy,
                ));
            }
            given
        };
        let connections_max = number("connections_max", given.connections_max, default.connections_max);
        // Who lowers the bound of all means each client's, too.
        let of_client = default.client_connections_max.min(connections_max.max(1));
        let client_connections_max =
            number("client_connections_max", given.client_connections_max, of_client);
        if client_connections_max > connections_max && connections_max > 0 {
            mistakes.push(Mistake::new(
                "dns.tcp.client_connections_max",
                format!("{client_connections_max} of one client are more than the {connections_max} of all, connections_max"),
                "lower it, or raise connections_max",
            ));
        }
        let mut within = |key: &str, text: &Option<Scalar>, max: Duration, default: Duration| {
            let bounds = (Duration::from_millis(100), max);
            let text = text.as_ref();
            text.and_then(|text| text.to_duration_within(&format!("dns.tcp.{key}"), bounds, mistakes))
                .unwrap_or(default)
        };
        let hour = Duration::from_secs(60 * 60);
        let idle_timeout = within("idle_timeout", &given.idle_timeout, hour, default.idle_timeout);
        let message_timeout =
            within("message_timeout", &given.message_timeout, hour / 60, default.message_timeout);
        TcpSettings { connections_max, client_connections_max, idle_timeout, message_timeout }
    }

    fn plan_consul(&self, namespace: &Label, mistakes: &mut Vec<Mistake>) -> Option<ConsulDomain> {
        let ConsulSettings { enabled, domain, datacenter } = &self.consul;
        let text = domain.as_deref().unwrap_or(ConsulDomain::DOMAIN);
        let datacenter = datacenter.as_deref().unwrap_or(ConsulDomain::DATACENTER);
        let datacenter = plan_label("dns.consul.datacenter", datacenter, mistakes)?;
        let domain = ConsulDomain::parse(text, datacenter, namespace.clone());
        if let Err(error) = &domain {
            let remedy = "write one such as consul.";
            mistakes.push(Mistake::new("dns.consul.domain", error.to_string(), remedy));
        }
        let domain = domain.ok().filter(|_| enabled.unwrap_or(false))?;
        refuse_special("dns.consul.domain", domain.apex(), ConsulDomain::DOMAIN, mistakes);
        Some(domain)
    }

    fn plan_zone(&self, namespace: &Label, mistakes: &mut Vec<Mistake>) -> Option<Zone> {
        let zone = Zone::parse(self.zone.as_deref().unwrap_or(Self::ZONE), namespace.clone());
        if let Err(error) = &zone {
            mistakes.push(Mistake::new(
                "dns.zone",
                error.to_string(),
                "write one such as rollcall.internal.",
            ));
        }
        let zone = zone.ok()?;
        refuse_special("dns.zone", zone.apex(), Self::ZONE, mistakes);
        Some(zone)
    }

    fn plan_ttls(&self, mistakes: &mut Vec<Mistake>) -> Ttls {
        let default = Ttls::default();
        let mut ttl = |key: &str, text: &Option<Scalar>, default: Duration| {
            let path = format!("dns.{key}");
            let Some(ttl) = text.as_ref().map(|text| text.to_duration(&path, mistakes)) else {
                return default;
            };
            let ttl = ttl.unwrap_or(default);
            if ttl > TTL_MAX || ttl.subsec_nanos() != 0 {
                mistakes.push(Mistake::new(
                    path,
                    format!("{} is no TTL", duration::text(ttl)),
                    format!("write whole seconds, at most {}", duration::text(TTL_MAX)),
                ));
            }
            ttl
        };
        Ttls {
            answer: ttl("ttl", &self.ttl, default.answer),
            negative: ttl("negative_ttl", &self.negative_ttl, default.negative),
            stale: ttl("stale_ttl", &self.stale_ttl, default.stale),
        }
    }
}

/// Whoever asks for a special name means something else by it, and most resolvers never send the question.
fn refuse_special(path: &str, apex: &Name, example: &str, mistakes: &mut Vec<Mistake>) {
    if let Some(special) = special_domain(apex) {
        let message = format!("names in {special} are special, and {apex} cannot give them another meaning");
        mistakes.push(Mistake::new(path, message, format!("write one such as {example}")));
    }
}

/// The most connections that can be wanted.
const CONNECTIONS_MAX: usize = 16_384;
/// The longest TTL (RFC 8767 section 4 takes a week for the most that makes sense).
const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
