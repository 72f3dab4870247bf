//! What differs between two plans, and whether it can be changed while the sidecar runs. Pure.

use super::settings::SidecarPlan;

/// The keys of the settings file that differ, as people know them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Those that take effect at once.
    pub(super) live: Vec<&'static str>,
    /// Those that take effect at the next start.
    pub(super) restart: Vec<&'static str>,
}

impl Difference {
    /// What differs between `one` and the `other`.
    pub(super) fn between(one: &SidecarPlan, other: &SidecarPlan) -> Self {
        // All of them by name, so that a new one has to be put on one side.
        let SidecarPlan {
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
        } = one;
        let live = [
            ("services", *registrations != other.registrations),
            ("brake", *brake != other.brake),
            // The apex, and the namespace of short names.
            ("dns.zone, namespace", dns.zone != other.dns.zone),
            ("dns.consul", dns.consul != other.dns.consul),
            ("dns TTLs", dns.ttls != other.dns.ttls),
            ("dns.log_queries", dns.is_logged != other.dns.is_logged),
            ("dns.forward", *forward != other.forward),
            ("zone, prefer_zone", *home != other.home),
            ("log.filter", log.filter != other.log.filter),
        ];
        let restart = [
            ("root", *layout != other.layout),
            ("ensemble", *client != other.client),
            ("dns.address", *dns_addr != other.dns_addr),
            ("dns.workers", *dns_workers != other.dns_workers),
            ("dns.tcp", *dns_tcp != other.dns_tcp),
            ("subscribe, adopt", *sources != other.sources || *idle != other.idle),
            ("http.address", *http_addr != other.http_addr),
            ("http.connections_max", *http != other.http),
            ("state_dir", *state_dir != other.state_dir),
            ("log.format", log.format != other.log.format),
        ];
        let named = |pairs: &[(&'static str, bool)]| {
            pairs.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
        };
        Self { live: named(&live), restart: named(&restart) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::SidecarSettings;
    use super::*;
    use crate::config::{Environment, parse};

    #[test]
    fn each_key_is_on_one_side() {
        let cases: [(&str, &[&str], &[&str]); 21] = [
            ("", &[], &[]),
            ("services: [{name: web, port: 80}]", &["services", "zone, prefer_zone"], &[]),
            ("brake: {share: 50%}", &["brake"], &[]),
            ("dns: {ttl: 5s}", &["dns TTLs"], &[]),
            ("dns: {forward: {upstreams: [10.0.0.53]}}", &["dns.forward"], &[]),
            ("dns: {zone: other.internal.}", &["dns.zone, namespace"], &[]),
            ("dns: {consul: {enabled: true}}", &["dns.consul"], &[]),
            ("dns: {log_queries: true}", &["dns.log_queries"], &[]),
            ("zone: a", &["zone, prefer_zone"], &[]),
            ("log: {filter: debug}", &["log.filter"], &[]),
            ("log: {format: json}", &[], &["log.format"]),
            ("root: /other", &[], &["root", "subscribe, adopt"]),
            ("ensemble: {servers: ['10.0.0.2:2181']}", &[], &["ensemble"]),
            ("dns: {address: 127.0.0.1:53, ttl: 3s}", &["dns TTLs"], &["dns.address"]),
            ("dns: {workers: 2}", &[], &["dns.workers"]),
            ("dns: {tcp: {connections_max: 100}}", &[], &["dns.tcp"]),
            ("http: {address: 127.0.0.1:80}", &[], &["http.address"]),
            ("http: {connections_max: 100}", &[], &["http.connections_max"]),
            ("adopt: [{format: curator}]", &[], &["subscribe, adopt"]),
            ("subscribe: {mode: on-demand}", &[], &["subscribe, adopt"]),
            ("state_dir: /tmp/x", &[], &["state_dir"]),
        ];
        for (text, live, restart) in cases {
            let difference = Difference::between(&plan(""), &plan(text));
            let expected = Difference { live: live.to_vec(), restart: restart.to_vec() };
            assert_eq!(difference, expected, "{text}");
        }
    }

    fn plan(text: &str) -> SidecarPlan {
        parse(&format!("address: 10.0.0.1\n{text}\n"), &Environment::empty(), SidecarSettings::plan).unwrap()
    }
}
