//! What `/etc/resolv.conf` says of it: who is asked, how, and which endings are tried. Pure.
//!
//! resolv.conf(5) of Linux. A line that is not understood is passed over, as the system's own resolver does.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::Name;

/// What is taken of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// Resolvers in their order; at most [`NAMESERVERS_MAX`].
    pub(super) nameservers: Vec<IpAddr>,
    /// Endings that are tried for short names; at most [`SEARCH_MAX`].
    pub(super) search: Vec<Name>,
    /// How long one resolver is waited for.
    pub(super) timeout: Option<Duration>,
    /// How often all of them are asked.
    pub(super) attempts: Option<u32>,
    /// Whether each has its turn to be the first.
    pub(super) is_rotating: bool,
    /// Whether they are asked over TCP.
    pub(super) is_over_tcp: bool,
    /// Lines that could not be used, and why.
    pub(super) unusable: Vec<String>,
}

impl ResolvConf {
    /// Reads the file's text.
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(key) = words.next() else { continue };
            match key {
                "nameserver" => found.add_nameserver(words.next().unwrap_or_default()),
                // The last of them counts.
                "search" | "domain" => {
                    found.search = words.filter_map(search_name).take(SEARCH_MAX).collect()
                }
                "options" => words.for_each(|word| found.take_option(word)),
                _ => {}
            }
        }
        found
    }

    fn add_nameserver(&mut self, text: &str) {
        match text.parse::<IpAddr>() {
            // What the system takes for its own loopback.
            Ok(address) if address.is_unspecified() => self.push_nameserver(loopback_like(address)),
            Ok(address) => self.push_nameserver(address),
            Err(_) => self
                .unusable
                .push(format!("nameserver {text} is no IP address (zones such as %eth0 cannot be used)")),
        }
    }

    fn push_nameserver(&mut self, address: IpAddr) {
        if self.nameservers.len() >= NAMESERVERS_MAX {
            self.unusable.push(format!("nameserver {address} is one too many"));
        } else if !self.nameservers.contains(&address) {
            self.nameservers.push(address);
        }
    }

    fn take_option(&mut self, word: &str) {
        let number = |text: &str| text.parse::<u32>().ok();
        match word.split_once(':') {
            Some(("timeout", text)) => {
                let seconds = number(text).map(|seconds| seconds.clamp(1, TIMEOUT_MAX_S));
                self.timeout = seconds.map(|seconds| Duration::from_secs(seconds.into())).or(self.timeout);
            }
            Some(("attempts", text)) => {
                self.attempts = number(text).map(|times| times.clamp(1, ATTEMPTS_MAX)).or(self.attempts);
            }
            None if word == "rotate" => self.is_rotating = true,
            None if word == "use-vc" => self.is_over_tcp = true,
            Some(_) | None => {}
        }
    }
}

fn search_name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then(|| name.to_lowercase())
}

fn loopback_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    }
}

/// The C library takes three; who writes more means them.
pub(super) const NAMESERVERS_MAX: usize = 8;
/// Kubernetes allows 32 endings (KEP-2595).
const SEARCH_MAX: usize = 32;
/// As the C library has it (RES_MAXRETRANS, RES_MAXRETRY).
const TIMEOUT_MAX_S: u32 = 30;
const ATTEMPTS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_pod_is_understood() {
        let found = ResolvConf::parse(
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
        );
        assert_eq!(found.nameservers, [IpAddr::from([10, 96, 0, 10])]);
        let search: Vec<_> = found.search.iter().map(ToString::to_string).collect();
        assert_eq!(search, ["shop.svc.cluster.local.", "svc.cluster.local.", "cluster.local."]);
        assert_eq!((found.timeout, found.attempts, found.is_rotating), (None, None, false));
        assert!(found.unusable.is_empty());
    }

    #[test]
    fn options_and_comments_are_understood_and_the_last_search_counts() {
        let found = ResolvConf::parse(
            "# a comment\n; another\ndomain old.example\nsearch A.example. b.example\n\
             nameserver 192.0.2.1 # first\nnameserver 2001:db8::1\nnameserver 192.0.2.1\n\
             options timeout:2 attempts:9 rotate\noptions use-vc edns0 timeout:x\nsortlist 1.2.3.4\n",
        );
        assert_eq!(found.nameservers.len(), 2);
        assert_eq!(found.search[0].to_string(), "a.example.");
        assert_eq!((found.timeout, found.attempts), (Some(Duration::from_secs(2)), Some(5)));
        assert!(found.is_rotating && found.is_over_tcp);
    }

    #[test]
    fn what_cannot_be_used_is_told_and_passed_over() {
        let found =
            ResolvConf::parse("nameserver dns.example\nnameserver fe80::1%eth0\nnameserver\nnonsense\n");
        assert!(found.nameservers.is_empty());
        assert_eq!(found.unusable.len(), 3);
        let many: String = (1..=9).map(|last| format!("nameserver 192.0.2.{last}\n")).collect();
        let found = ResolvConf::parse(&many);
        assert_eq!((found.nameservers.len(), found.unusable.len()), (NAMESERVERS_MAX, 1));
    }

    #[test]
    fn no_address_means_this_machine() {
        let found = ResolvConf::parse("nameserver 0.0.0.0\nnameserver ::\n");
        assert_eq!(found.nameservers, ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }
}
