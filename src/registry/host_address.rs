//! Addresses at which one host can be reached.

use std::net::{IpAddr, Ipv4Addr};

/// The address as that of one host: an IPv4 address that is mapped into IPv6 (RFC 4291 section 2.5.5.2) is an IPv4 address, and is found as
/// such. `None` for one at which nobody can connect to a host: unspecified, multicast, broadcast.
pub(crate) fn host_address(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    let is_nobodys =
        address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    (!is_nobodys).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_one_host() {
        let of = |text: &str| host_address(text.parse().unwrap()).map(|address| address.to_string());
        for nobodys in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"] {
            assert_eq!(of(nobodys), None, "{nobodys}");
        }
        assert_eq!(of("::ffff:10.1.0.9").as_deref(), Some("10.1.0.9"));
        for host in ["10.1.0.9", "fd00::1", "::1", "127.0.0.1"] {
            assert_eq!(of(host).as_deref(), Some(host));
        }
    }
}
