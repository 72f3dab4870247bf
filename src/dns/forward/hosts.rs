//! Addresses of hosts for the sidecar itself, which must not depend on what it serves.
//!
//! Where the system's only resolver is the sidecar's own listener, a look-up by the C library would come back here, and fail while the
//! listener is not up or has no room. The hosts file and the upstreams are asked directly then; otherwise the system is left to do it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hickory_proto::rr::{Name, RecordType};

use super::forwarder::Forwarder;
use super::question::Question;
use super::resolv_conf::ResolvConf;
use super::trouble::Trouble;
use crate::config;

/// Looks hosts up.
#[derive(Debug)]
pub struct Hosts {
    forwarder: Arc<Forwarder>,
    system_file: PathBuf,
    hosts_file: PathBuf,
}

/// Why a host has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// Nobody knows it.
    #[error("neither the hosts file nor the upstream resolvers have an address for it")]
    Unknown,
    /// Nobody says whether there is one.
    #[error("{}", .0.text())]
    Trouble(Trouble),
}

impl Hosts {
    /// What the C library reads.
    pub const SYSTEM_FILE: &'static str = "/etc/resolv.conf";

    /// What it looks into before it asks a resolver.
    pub const HOSTS_FILE: &'static str = "/etc/hosts";

    /// Looks up in `hosts_file` and by `forwarder` whenever `system_file` names its listener.
    pub fn new(
        forwarder: Arc<Forwarder>,
        system_file: impl Into<PathBuf>,
        hosts_file: impl Into<PathBuf>,
    ) -> Self {
        Self { forwarder, system_file: system_file.into(), hosts_file: hosts_file.into() }
    }

    /// The addresses of `host`, also with the endings of the search list; none where that is the system's to say.
    ///
    /// # Errors
    ///
    /// When there is none, or no upstream answers, and the system need not be asked.
    pub async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, NoAddress> {
        let file = config::read(&self.system_file)
            .map_or_else(|_| ResolvConf::default(), |text| ResolvConf::parse(&text));
        if !self.forwarder.is_among(&file.nameservers) {
            return Ok(Vec::new());
        }
        let listed = config::read(&self.hosts_file).map_or_else(|_| Vec::new(), |text| of_hosts(&text, host));
        if !listed.is_empty() {
            return Ok(listed);
        }
        let mut trouble = None;
        for name in candidates(host, &file.search) {
            let ask = |kind| {
                let question =
                    Question { name: name.clone(), kind, dnssec_ok: false, checking_disabled: false };
                self.forwarder.resolve(question)
            };
            let mut addresses = Vec::new();
            for result in <[_; 2]>::from(tokio::join!(ask(RecordType::A), ask(RecordType::AAAA))) {
                match result {
                    Ok(found) => {
                        addresses.extend(found.answers.iter().filter_map(|record| record.data.ip_addr()))
                    }
                    Err(error) => trouble = Some(error),
                }
            }
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Err(trouble.map_or(NoAddress::Unknown, NoAddress::Trouble))
    }
}

/// The addresses of a host by the text of a hosts file (hosts(5)): an address and names in each line.
fn of_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(address).collect()
}

/// The names that a host may mean, in the order in which they are tried: as it is first if it has a dot, with an ending first if not.
fn candidates(host: &str, search: &[Name]) -> Vec<Name> {
    let Ok(mut name) = Name::from_ascii(host) else { return Vec::new() };
    let is_whole = name.is_fqdn();
    name.set_fqdn(true);
    if is_whole {
        return vec![name];
    }
    let mut names: Vec<Name> =
        search.iter().filter_map(|ending| name.clone().append_domain(ending).ok()).collect();
    let place = if name.num_labels() > 1 { 0 } else { names.len() };
    names.insert(place, name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_tried_before_or_after_the_name_itself() {
        let search = ["ns.svc.cluster.local.", "cluster.local."].map(|text| Name::from_ascii(text).unwrap());
        let of =
            |host: &str| -> Vec<String> { candidates(host, &search).iter().map(Name::to_string).collect() };
        assert_eq!(of("zk"), ["zk.ns.svc.cluster.local.", "zk.cluster.local.", "zk."]);
        assert_eq!(of("zk-0.zk"), ["zk-0.zk.", "zk-0.zk.ns.svc.cluster.local.", "zk-0.zk.cluster.local."]);
        assert_eq!(of("zk.example."), ["zk.example."]);
        assert!(of("a..b").is_empty());
    }

    #[test]
    fn the_hosts_file_has_addresses_of_its_names_in_whatever_letters() {
        let text = "127.0.0.1 localhost\n# 10.0.0.9 zk\n10.0.0.1\tzk.example ZK # the first\nfd00::1 zk\nnonsense zk\n";
        let found: Vec<IpAddr> = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap()).into();
        assert_eq!(of_hosts(text, "zk"), found);
        assert_eq!(of_hosts(text, "Zk.Example."), found[..1]);
        assert!(of_hosts(text, "example").is_empty());
    }
}
