//! The settings of the forwarder.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::rr::Name;
use serde::Deserialize;

use super::cache::CacheLimits;
use super::resolv_conf::NAMESERVERS_MAX;
use super::resolve::TRIES_MAX;
use super::special::never_asked;
use super::upstream::UpstreamAddress;
#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar};
use crate::dns::DnsPlan;
use crate::tls::Trust;

/// The forwarder as the settings file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ForwardSettings {
    /// Whether names out of the zone are forwarded. Default: true. Danger: without it they are refused, and an application whose only
    /// resolver this is finds nothing else.
    pub enabled: Option<bool>,
    /// Who is asked, each `ip`, `ip:port` or `tls://ip[:port]#name`; at most 8. Default: the nameservers of `resolv_conf`.
    pub upstreams: Option<Vec<String>>,
    /// Who is asked instead for names below a domain, the longest domain first; at most 64 domains of 8. Default: none.
    pub domains: BTreeMap<String, Vec<String>>,
    /// The file that names upstreams, search list and options, and is watched. Default: `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// How long one upstream is waited for before the next is asked, too, `50ms` to `4s`; less where all times would take longer than the 4.5 s of
    /// a query. Default: what the file says, or `1s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub timeout: Option<Scalar>,
    /// How often all upstreams are asked, 1 to 5, but 8 times in all. Default: what the file says, or 2.
    #[cfg_attr(test, schemars(range(min = 1, max = 5)))]
    pub attempts: Option<u32>,
    /// Whether letters of names are sent in random case, which whoever forges an answer would have to guess. Default: true.
    /// Upstreams that do not repeat them are found out.
    pub randomize_case: Option<bool>,
    /// How long after its TTL an answer is still given while no upstream has another, up to `7d`. Default: `1d`. Danger: with `0s` names
    /// are gone as soon as upstreams are away for longer than a TTL.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub stale_max: Option<Scalar>,
    /// Answers that are kept. Default: 10000; with 0 nothing is, and every query goes to an upstream.
    pub cache_entries_max: Option<usize>,
    /// Bytes of memory that they may take, about. Default: 8388608.
    pub cache_bytes_max: Option<usize>,
    /// Queries that may wait for upstreams at a time, 1 to 65536. Default: 512. Danger: each needs a socket, and one more
    /// for every time that an upstream is late.
    #[cfg_attr(test, schemars(range(min = 1, max = 65536)))]
    pub waiting_max: Option<usize>,
    /// The same of one client address, at most that of all. Default: 384, or that of all where it is less. Danger: an application and its sidecar share one.
    #[cfg_attr(test, schemars(range(min = 1, max = 65536)))]
    pub client_waiting_max: Option<usize>,
    /// A PEM file of the authorities that may have signed the certificates of `tls://` upstreams. Default: those that the machine trusts.
    pub ca: Option<PathBuf>,
}

/// The forwarder, with everything decided but what the file of the system says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardPlan {
    /// Whether there is one.
    pub is_enabled: bool,
    /// Who is asked; `None` for those of the file.
    pub upstreams: Option<Vec<UpstreamAddress>>,
    /// Who is asked for names below a domain.
    pub domains: BTreeMap<Name, Vec<UpstreamAddress>>,
    /// The file.
    pub resolv_conf: PathBuf,
    /// How long one upstream is waited for; `None` for what the file says.
    pub timeout: Option<Duration>,
    /// How often all are asked; `None` for what the file says.
    pub attempts: Option<u32>,
    /// Whether letters are sent in random case.
    pub is_case_random: bool,
    /// What is kept.
    pub(super) cache: CacheLimits,
    /// Queries that may wait.
    pub waiting_max: usize,
    /// The same of one client address.
    pub client_waiting_max: usize,
    /// Whose signature on certificates is believed.
    pub trust: Trust,
}

impl Default for ForwardPlan {
    fn default() -> Self {
        let stale_max = Duration::from_secs(24 * 60 * 60);
        Self {
            is_enabled: true,
            upstreams: None,
            domains: BTreeMap::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            timeout: None,
            attempts: None,
            is_case_random: true,
            cache: CacheLimits { entries_max: 10_000, octets_max: 8 * 1024 * 1024, stale_max },
            waiting_max: 512,
            client_waiting_max: 384,
            trust: Trust::System,
        }
    }
}

impl ForwardPlan {
    /// Whom to believe about certificates, where there is an upstream that has to show one.
    pub fn trust_in_use(&self) -> Option<&Trust> {
        let upstreams = self.upstreams.iter().chain(self.domains.values()).flatten();
        let is_over_tls = upstreams.into_iter().any(|address| address.tls_name.is_some());
        (self.is_enabled && is_over_tls).then_some(&self.trust)
    }

    /// Sockets to upstreams at a time when as many queries wait as may, and no upstream answers. What the file of the system may say counts as
    /// the most that it may say.
    pub fn sockets_max(&self) -> usize {
        if !self.is_enabled {
            return 0;
        }
        // Queries to one over TLS share a connection.
        let plain = |upstreams: &Vec<UpstreamAddress>| {
            upstreams.iter().filter(|address| address.tls_name.is_none()).count()
        };
        let of_default = self.upstreams.as_ref().map_or(NAMESERVERS_MAX, plain);
        let most = self.domains.values().map(plain).fold(of_default, usize::max);
        let attempts = self.attempts.and_then(|times| usize::try_from(times).ok());
        let attempts = attempts.unwrap_or(ForwardSettings::ATTEMPTS_MAX);
        self.waiting_max * (most * attempts).min(TRIES_MAX)
    }
}

impl ForwardSettings {
    /// Checks everything and decides every default; mistakes get paths below `path`. Nobody is forwarded to `own`, where queries come in.
    pub fn plan(&self, path: &str, own: Option<SocketAddr>, mistakes: &mut Vec<Mistake>) -> ForwardPlan {
        let mut plan = ForwardPlan { is_enabled: self.enabled.unwrap_or(true), ..ForwardPlan::default() };
        plan.upstreams = self
            .upstreams
            .as_ref()
            .map(|texts| plan_upstreams(&format!("{path}.upstreams"), texts, own, mistakes));
        plan.domains = self.plan_domains(&format!("{path}.domains"), own, mistakes);
        plan.resolv_conf = self.resolv_conf.clone().unwrap_or(plan.resolv_conf);
        plan.is_case_random = self.randomize_case.unwrap_or(true);
        plan.trust = self.ca.clone().map_or(Trust::System, Trust::Authorities);
        for (key, file) in [("resolv_conf", &self.resolv_conf), ("ca", &self.ca)] {
            if file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
                let remedy = "name a file, or leave it out";
                mistakes.push(Mistake::new(format!("{path}.{key}"), "the path is empty", remedy));
            }
        }
        let mut within = |key: &str, text: &Option<Scalar>, bounds| {
            text.as_ref().and_then(|text| text.to_duration_within(&format!("{path}.{key}"), bounds, mistakes))
        };
        plan.timeout = within("timeout", &self.timeout, Self::TIMEOUT);
        let stale_max = within("stale_max", &self.stale_max, (Duration::ZERO, Self::STALE_MAX));
        plan.cache.stale_max = stale_max.unwrap_or(plan.cache.stale_max);
        plan.cache.entries_max = self.cache_entries_max.unwrap_or(plan.cache.entries_max);
        plan.cache.octets_max = self.cache_bytes_max.unwrap_or(plan.cache.octets_max);
        let mut number = |key: &str, given: Option<usize>, max: usize| {
            let given = given?;
            if !(1..=max).contains(&given) {
                let remedy = format!("write a number from 1 to {max}");
                mistakes.push(Mistake::new(
                    format!("{path}.{key}"),
                    format!("{given} is out of range"),
                    remedy,
                ));
            }
            Some(given)
        };
        let attempts = self.attempts.and_then(|times| usize::try_from(times).ok());
        number("attempts", attempts, Self::ATTEMPTS_MAX);
        plan.attempts = self.attempts;
        plan.waiting_max =
            number("waiting_max", self.waiting_max, Self::WAITING_MAX).unwrap_or(plan.waiting_max);
        let of_client = number("client_waiting_max", self.client_waiting_max, Self::WAITING_MAX);
        // Who lowers the bound of all means each client's, too.
        let of_client = of_client.unwrap_or(plan.client_waiting_max.min(plan.waiting_max.max(1)));
        plan.client_waiting_max = of_client;
        if of_client > plan.waiting_max && plan.waiting_max > 0 {
            mistakes.push(Mistake::new(
                format!("{path}.client_waiting_max"),
                format!(
                    "{of_client} of one client are more than the {} of all, waiting_max",
                    plan.waiting_max
                ),
                "lower it, or raise waiting_max",
            ));
        }
        plan
    }

    /// Refuses domains whose names are answered here, so that nobody is ever asked for them; mistakes get paths below `path`.
    pub fn refuse_own(&self, path: &str, own: &DnsPlan, mistakes: &mut Vec<Mistake>) {
        for text in self.domains.keys() {
            let Some(name) = domain_name(text) else { continue };
            let whose = if own.zone.contains(&name) {
                "dns.zone"
            } else if own.consul.as_ref().is_some_and(|consul| consul.contains(&name)) {
                "dns.consul.domain"
            } else {
                continue;
            };
            let message =
                format!("nobody is asked for names in {text}: they are in {whose} and answered here");
            mistakes.push(Mistake::new(format!("{path}.domains.{text}"), message, "leave it out"));
        }
    }

    const TIMEOUT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(4));
    /// What RFC 8767 section 4 takes for the most that makes sense.
    const STALE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    const ATTEMPTS_MAX: usize = 5;
    const WAITING_MAX: usize = 65_536;

    fn plan_domains(
        &self,
        path: &str,
        own: Option<SocketAddr>,
        mistakes: &mut Vec<Mistake>,
    ) -> BTreeMap<Name, Vec<UpstreamAddress>> {
        if self.domains.len() > DOMAINS_MAX {
            let message = format!("{} domains are too many", self.domains.len());
            mistakes.push(Mistake::new(path, message, format!("list at most {DOMAINS_MAX}")));
        }
        let mut domains = BTreeMap::new();
        for (text, upstreams) in &self.domains {
            let path = format!("{path}.{text}");
            let addresses = plan_upstreams(&path, upstreams, own, mistakes);
            match domain_name(text) {
                Some(name) if let Some(base) = below_wildcard(&name) => {
                    let message = format!("{text:?} has a wildcard, which means nothing here");
                    let remedy = if base.is_root() {
                        "list in upstreams who is asked for all other names".to_owned()
                    } else {
                        let base = base.to_string();
                        let base = base.trim_end_matches('.');
                        format!("write {base}, which stands for all names below it, too")
                    };
                    mistakes.push(Mistake::new(path, message, remedy));
                }
                Some(name) if let Some(special) = never_asked(&name) => {
                    let message =
                        format!("nobody is asked for names in {text}: those in {special} are answered here");
                    mistakes.push(Mistake::new(path, message, "leave it out"));
                }
                Some(name) => {
                    if domains.insert(name, addresses).is_some() {
                        let message = format!("{text:?} is listed twice, in other letters or with a dot");
                        mistakes.push(Mistake::new(path, message, "list each domain once"));
                    }
                }
                None => {
                    let message = format!("{text:?} is no domain");
                    mistakes.push(Mistake::new(path, message, "write one such as corp.example"));
                }
            }
        }
        domains
    }
}

/// The domain in lower case; `None` when it is none, or the root.
fn domain_name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok().filter(|name| !text.is_empty() && !name.is_root())?;
    name.set_fqdn(true);
    Some(name.to_lowercase())
}

/// What stands behind the last label with an asterisk, if there is one. Wildcards are for zones (RFC 4592); a domain has all below it anyway.
fn below_wildcard(name: &Name) -> Option<Name> {
    let behind = name.iter().rev().position(|label| label.contains(&b'*'))?;
    Some(name.trim_to(behind))
}

/// Whether what is sent to `addr` comes in at `own`, as far as addresses alone tell.
fn leads_to(own: SocketAddr, addr: SocketAddr) -> bool {
    let (own_ip, ip) = (own.ip(), addr.ip().to_canonical());
    // A listener at `::` takes what comes by IPv4, too.
    let is_any = own_ip.is_unspecified() && ip.is_loopback() && (own_ip.is_ipv6() || ip.is_ipv4());
    own.port() == addr.port() && (own_ip.to_canonical() == ip || is_any)
}

fn plan_upstreams(
    path: &str,
    texts: &[String],
    own: Option<SocketAddr>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<UpstreamAddress> {
    if texts.is_empty() || texts.len() > UPSTREAMS_MAX {
        let message = format!(
            "{} upstreams are {}",
            texts.len(),
            if texts.is_empty() { "too few" } else { "too many" }
        );
        mistakes.push(Mistake::new(path, message, format!("list 1 to {UPSTREAMS_MAX}")));
    }
    let mut addresses = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match text.parse::<UpstreamAddress>() {
            Ok(address) if let Some(own) = own.filter(|own| leads_to(*own, address.addr)) => {
                let message = format!("{address} is dns.address, {own}, from which queries would come back");
                mistakes.push(Mistake::new(path, message, "name another resolver"));
            }
            Ok(address) if addresses.contains(&address) => {
                mistakes.push(Mistake::new(path, format!("{address} is listed twice"), "list it once"));
            }
            Ok(address) => addresses.push(address),
            Err(error) => mistakes.push(Mistake::new(path, error.to_string(), "")),
        }
    }
    addresses
}

/// Upstreams of one list.
const UPSTREAMS_MAX: usize = 8;
/// Domains with upstreams of their own.
const DOMAINS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_the_default() {
        let mut mistakes = Vec::new();
        assert_eq!(
            ForwardSettings::default().plan("dns.forward", None, &mut mistakes),
            ForwardPlan::default()
        );
        assert!(mistakes.is_empty());
    }

    #[test]
    fn upstreams_and_domains_are_read() {
        let text = "upstreams: [10.0.0.53, 'tls://192.0.2.1#dns.example']\ndomains: {Corp.Example: [10.0.0.54]}\ntimeout: 500ms\n";
        let (plan, mistakes) = plan(text);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(plan.upstreams.unwrap().len(), 2);
        let (name, addresses) = plan.domains.first_key_value().unwrap();
        assert_eq!((name.to_string().as_str(), addresses[0].addr.port()), ("corp.example.", 53));
        assert_eq!(plan.timeout, Some(Duration::from_millis(500)));
    }

    #[test]
    fn every_mistake_is_told_with_its_path() {
        let text = "upstreams: [dns.example, '127.0.0.1:8600', 10.0.0.1, 10.0.0.1]\n\
                    domains: {a..b: [10.0.0.53], '.': [10.0.0.53], corp.example: [], c.example: ['tls://10.0.0.1']}\n\
                    timeout: 1ms\nattempts: 9\nstale_max: 8d\nwaiting_max: 0\nresolv_conf: ''\n";
        let mut paths: Vec<_> = plan(text).1.into_iter().map(|mistake| mistake.path).collect();
        paths.sort();
        let expected = [
            "attempts",
            "domains..",
            "domains.a..b",
            "domains.c.example[0]",
            "domains.corp.example",
            "resolv_conf",
            "stale_max",
            "timeout",
            "upstreams[0]",
            "upstreams[1]",
            "upstreams[3]",
            "waiting_max",
        ];
        assert_eq!(paths, expected.map(|key| format!("dns.forward.{key}")));
    }

    #[test]
    fn an_upstream_on_loopback_at_the_port_of_a_listener_on_all_addresses_is_a_loop() {
        for (own, upstream, is_loop) in [
            ("0.0.0.0:8657", "127.0.0.1:8657", true),
            ("0.0.0.0:8657", "127.9.9.9:8657", true),
            ("0.0.0.0:8657", "[::ffff:127.0.0.1]:8657", true),
            ("0.0.0.0:8657", "tls://127.0.0.1:8657#dns.example", true),
            ("0.0.0.0:8657", "127.0.0.1:53", false),
            ("0.0.0.0:8657", "10.0.0.1:8657", false),
            ("0.0.0.0:8657", "[::1]:8657", false),
            ("[::]:8657", "[::1]:8657", true),
            ("[::]:8657", "127.0.0.1:8657", true),
            ("127.0.0.1:8657", "127.0.0.2:8657", false),
            ("[::ffff:127.0.0.1]:8657", "127.0.0.1:8657", true),
        ] {
            let text = format!("upstreams: ['{upstream}']\ndomains: {{corp.example: ['{upstream}']}}\n");
            let told: Vec<_> = plan_at(own, &text).1.into_iter().map(|mistake| mistake.to_string()).collect();
            let message = format!(
                "{upstream} is dns.address, {own}, from which queries would come back; name another resolver"
            );
            let expected = [
                format!("dns.forward.upstreams[0]: {message}"),
                format!("dns.forward.domains.corp.example[0]: {message}"),
            ];
            assert_eq!(told, &expected[..if is_loop { 2 } else { 0 }], "{own} {upstream}");
        }
    }

    #[test]
    fn a_domain_of_which_no_name_is_ever_asked_for_is_told() {
        for (key, expected) in [
            (
                "*.example",
                "\"*.example\" has a wildcard, which means nothing here; write example, which stands for all names below it, too",
            ),
            (
                "a.*.Corp.Example.",
                "\"a.*.Corp.Example.\" has a wildcard, which means nothing here; write corp.example, which stands for all names below it, too",
            ),
            (
                "*",
                "\"*\" has a wildcard, which means nothing here; list in upstreams who is asked for all other names",
            ),
            (
                "Localhost",
                "nobody is asked for names in Localhost: those in localhost. are answered here; leave it out",
            ),
            (
                "a.invalid.",
                "nobody is asked for names in a.invalid.: those in invalid. are answered here; leave it out",
            ),
            (
                "x.onion",
                "nobody is asked for names in x.onion: those in onion. are answered here; leave it out",
            ),
            (
                "resolver.arpa",
                "nobody is asked for names in resolver.arpa: those in resolver.arpa. are answered here; leave it out",
            ),
            (
                "0.127.in-addr.arpa",
                "nobody is asked for names in 0.127.in-addr.arpa: those in 127.in-addr.arpa. are answered here; leave it out",
            ),
        ] {
            let (plan, mistakes) = plan(&format!("domains: {{'{key}': [10.0.0.53]}}"));
            let told: Vec<_> = mistakes.iter().map(Mistake::to_string).collect();
            assert_eq!(told, [format!("dns.forward.domains.{key}: {expected}")]);
            assert!(plan.domains.is_empty());
        }
        for key in ["10.in-addr.arpa", "d.f.ip6.arpa", "arpa", "local", "onion.example"] {
            assert!(plan(&format!("domains: {{{key}: [10.0.0.53]}}")).1.is_empty(), "{key}");
        }
    }

    #[test]
    fn whom_to_believe_counts_where_an_upstream_speaks_tls() {
        let of = |text: &str| plan(text).0.trust_in_use().cloned();
        let ca = Some(Trust::Authorities("ca.pem".into()));
        assert_eq!(of("{ca: ca.pem, upstreams: [10.0.0.1, 'tls://10.0.0.2#dns.example']}"), ca);
        assert_eq!(of("{ca: ca.pem, domains: {corp.example: ['tls://10.0.0.2#dns.example']}}"), ca);
        assert_eq!(of("{ca: ca.pem, upstreams: [10.0.0.1]}"), None);
        assert_eq!(of("{ca: ca.pem, enabled: false, upstreams: ['tls://10.0.0.2#dns.example']}"), None);
    }

    fn plan(text: &str) -> (ForwardPlan, Vec<Mistake>) {
        plan_at("127.0.0.1:8600", text)
    }

    fn plan_at(own: &str, text: &str) -> (ForwardPlan, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        let settings: ForwardSettings = serde_yaml::from_str(text).unwrap();
        let plan = settings.plan("dns.forward", own.parse().ok(), &mut mistakes);
        (plan, mistakes)
    }
}
