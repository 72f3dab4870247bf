//! Names of services, as people write them in arguments.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::registry::{Label, ServiceKey};

/// The zone that a full name may end in.
const ZONE: &str = ".rollcall.internal";

/// `web`, `web.shop` or `web.shop.rollcall.internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameArgument(pub(super) ServiceKey);

impl FromStr for NameArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let full = text.strip_suffix('.').unwrap_or(text);
        let short = full.strip_suffix(ZONE).unwrap_or(full);
        let (name, namespace) = short.split_once('.').unwrap_or((short, ServiceKey::NAMESPACE_DEFAULT));
        if namespace.contains('.') {
            let remedy = "write web, web.shop or web.shop.rollcall.internal";
            return Err(format!("{text:?} is not the name of a service; {remedy}"));
        }
        let label = |text| Label::parse(text).map_err(|error| error.to_string());
        Ok(Self(ServiceKey { name: label(name)?, namespace: label(namespace)? }))
    }
}

/// `NAME=HOST:PORT`: an instance to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceArgument {
    pub(super) service: ServiceKey,
    pub(super) addr: SocketAddr,
}

impl FromStr for ServiceArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write NAME=HOST:PORT, such as web=127.0.0.1:8081";
        let (name, addr) = text.split_once('=').ok_or_else(|| format!("there is no =; {form}"))?;
        let NameArgument(service) = name.parse()?;
        if service.is_reserved() {
            return Err(format!("{service} has a word with a meaning of its own in DNS names; use another"));
        }
        let addr = match addr.strip_prefix("localhost:") {
            Some(port) => {
                port.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).ok()
            }
            None => addr.parse().ok(),
        };
        let addr: SocketAddr =
            addr.ok_or_else(|| format!("the host must be an IP address or localhost, with a port; {form}"))?;
        if addr.port() == 0 || addr.ip().is_unspecified() {
            return Err(format!("nobody can connect to {addr}; {form}"));
        }
        Ok(Self { service, addr })
    }
}

impl ServiceArgument {
    /// An instance id that no other address and port has.
    pub(super) fn id(&self) -> String {
        let host: String = match self.addr.ip() {
            IpAddr::V4(ip) => ip.octets().map(|octet| octet.to_string()).join("-"),
            IpAddr::V6(ip) => ip.segments().map(|segment| format!("{segment:x}")).join("-"),
        };
        format!("{host}-{}", self.addr.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_name_mean_the_same() {
        for text in [
            "web",
            "web.default",
            "web.default.",
            "web.default.rollcall.internal",
            "web.default.rollcall.internal.",
        ] {
            let NameArgument(key) = text.parse().unwrap();
            assert_eq!(key.to_string(), "web.default", "{text}");
        }
        assert_eq!("web.shop".parse::<NameArgument>().unwrap().0.to_string(), "web.shop");
        for bad in ["", ".", "a.", "Web", "a.b.c", "a_b", "web.default.other.zone", ".rollcall.internal"] {
            let parsed = bad.parse::<NameArgument>();
            assert_eq!(parsed.is_err(), bad != "a.", "{bad}: {parsed:?}");
        }
    }

    #[test]
    fn instances_are_a_name_and_an_address() {
        let ids: Vec<_> = ["web=localhost:8081", "web.shop=127.0.0.2:8081", "web=[::1]:8081"]
            .iter()
            .map(|text| text.parse::<ServiceArgument>().unwrap().id())
            .collect();
        assert_eq!(ids, ["127-0-0-1-8081", "127-0-0-2-8081", "0-0-0-0-0-0-0-1-8081"]);
        for id in ids {
            Label::parse(&id).unwrap();
        }
        for bad in
            ["web", "web=", "web=host:1", "web=1.2.3.4", "web=1.2.3.4:0", "web=0.0.0.0:1", "all=1.2.3.4:1"]
        {
            assert!(bad.parse::<ServiceArgument>().is_err(), "{bad}");
        }
    }
}
