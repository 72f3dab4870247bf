//! Curator's `ServiceInstance` (x-discovery), at `<root>/<service>/<instance>`.
//!
//! ```text
//! {"name":"payments","id":"p-1","address":"10.1.2.3","port":8040,"sslPort":null,"payload":null,
//!  "registrationTimeUTC":1553592092875,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},…]}}
//! ```
//!
//! Old readers refuse a key that they do not know, and Java's cast the payload to a class of theirs. So no key of ours is
//! added, `enabled` is left out, and the payload is null, or a text of the operator's.
//!
//! Source: `ServiceInstance.java`, `UriSpec.java`, `JsonInstanceSerializer.java` of Apache Curator.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Format, FormatError, PORT_NAME, address, port, record};
use crate::registry::record::{Record, Status};

/// What is written, in Curator's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceInstance<'a, P> {
    pub(super) name: &'a str,
    pub(super) id: &'a str,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) ssl_port: Option<u16>,
    pub(super) payload: Option<P>,
    #[serde(rename = "registrationTimeUTC")]
    pub(super) registered_at_ms: i64,
    service_type: &'static str,
    uri_spec: UriSpec,
}

#[derive(Debug, Serialize)]
struct UriSpec {
    parts: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    value: &'static str,
    variable: bool,
}

/// What is read. The keys that are not named here are kept as they are, `payload` among them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found {
    name: String,
    id: String,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    port: Option<i64>,
    #[serde(default)]
    ssl_port: Option<i64>,
    #[serde(default, rename = "registrationTimeUTC")]
    registered_at_ms: Option<i64>,
    /// Of newer Curators: false takes the instance out.
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

impl<'a, P> ServiceInstance<'a, P> {
    pub(super) fn new(
        name: &'a str,
        id: &'a str,
        record: &Record,
        (port, ssl_port): (u16, Option<u16>),
        payload: Option<P>,
    ) -> Self {
        let address = record.addresses[0];
        Self {
            name,
            id,
            address,
            port,
            ssl_port,
            payload,
            registered_at_ms: record.registered_at_ms,
            service_type: "DYNAMIC",
            uri_spec: UriSpec::of(address, ssl_port.is_some()),
        }
    }
}

impl UriSpec {
    /// `{scheme}://{address}:{port}`. With a port for TLS the scheme becomes `https` at the reader's, so it must be that port.
    /// An IPv6 address stands in brackets in a URI (RFC 3986 section 3.2.2).
    fn of(address: IpAddr, has_ssl_port: bool) -> Self {
        let variable = |value| Part { value, variable: true };
        let literal = |value| Part { value, variable: false };
        let (open, close) = if address.is_ipv6() { ("://[", "]:") } else { ("://", ":") };
        let port = if has_ssl_port { "ssl-port" } else { "port" };
        let parts =
            vec![variable("scheme"), literal(open), variable("address"), literal(close), variable(port)];
        Self { parts }
    }
}

pub(super) fn decode(service: &str, name: &str, data: &[u8]) -> Result<Record, FormatError> {
    Found::read(service, name, data)?.into_record(Format::Curator)
}

impl Found {
    pub(super) fn read(service: &str, name: &str, data: &[u8]) -> Result<Self, FormatError> {
        let found: Self = serde_json::from_slice(data)?;
        let differs = |what, found: &str, name: &str| FormatError::Names {
            what,
            found: found.to_owned(),
            name: name.to_owned(),
        };
        if found.name != service {
            return Err(differs("service", &found.name, service));
        }
        if found.id != name && !(found.is_sequential() && is_numbered(name, &found.id)) {
            return Err(differs("id", &found.id, name));
        }
        Ok(found)
    }

    pub(super) fn into_record(self, format: Format) -> Result<Record, FormatError> {
        let address = address(&self.address.ok_or(FormatError::Missing("address"))?)?;
        let numbers = [(PORT_NAME, self.port), (SSL_PORT_NAME, self.ssl_port)];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, number?)));
        let ports = numbers.map(|(name, number)| port(name, number)).collect::<Result<Vec<_>, _>>()?;
        if ports.is_empty() {
            return Err(FormatError::Missing("port"));
        }
        let status = if self.enabled == Some(false) { Status::Maintenance } else { Status::Up };
        let mut record = record(format, address, ports, status, self.rest);
        record.registered_at_ms = self.registered_at_ms.unwrap_or(0);
        Ok(record)
    }

    /// Then the znode's name is the id with a number behind it.
    fn is_sequential(&self) -> bool {
        self.rest.get("serviceType").is_some_and(|kind| kind == "DYNAMIC_SEQUENTIAL")
    }
}

/// The port for TLS.
const SSL_PORT_NAME: &str = "https";

fn is_numbered(name: &str, id: &str) -> bool {
    name.strip_prefix(id).is_some_and(super::target::is_sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::formats::tests::{id, instance, target};
    use crate::registry::formats::{FormatKind, FormatTarget};

    const PATH: &str = "/discovery/payments/p-1";

    #[test]
    fn it_is_written_as_curator_writes_it() {
        let znode = curator(None, None).znode(&id("p-1"), &instance("10.1.2.3"));
        assert_eq!((znode.parent.as_str(), znode.name.as_str()), ("/discovery/payments", "p-1"));
        assert!(!znode.mode.is_sequential() && znode.mode.is_ephemeral());
        assert_eq!(
            String::from_utf8(znode.data).unwrap(),
            concat!(
                r#"{"name":"payments","id":"p-1","address":"10.1.2.3","port":8040,"sslPort":null,"payload":null,"#,
                r#""registrationTimeUTC":1553592092875,"serviceType":"DYNAMIC","uriSpec":{"parts":["#,
                r#"{"value":"scheme","variable":true},{"value":"://","variable":false},"#,
                r#"{"value":"address","variable":true},{"value":":","variable":false},"#,
                r#"{"value":"port","variable":true}]}}"#
            )
        );
    }

    #[test]
    fn a_port_for_tls_is_where_https_goes_and_the_payload_is_the_operators() {
        let znode = curator(Some(8443), Some("blue")).znode(&id("p-1"), &instance("10.1.2.3"));
        let json: Value = serde_json::from_slice(&znode.data).unwrap();
        assert_eq!((&json["sslPort"], &json["payload"]), (&8443.into(), &"blue".into()));
        assert_eq!(json["uriSpec"]["parts"][4]["value"], "ssl-port");
    }

    #[test]
    fn an_ipv6_address_is_in_brackets_in_the_uri_alone() {
        let znode = curator(None, None).znode(&id("p-1"), &instance("fd00::1"));
        let json: Value = serde_json::from_slice(&znode.data).unwrap();
        assert_eq!(json["address"], "fd00::1");
        let parts = json["uriSpec"]["parts"].as_array().unwrap();
        let literals: Vec<_> = parts.iter().filter(|part| part["variable"] == false).collect();
        assert_eq!((&literals[0]["value"], &literals[1]["value"]), (&"://[".into(), &"]:".into()));
    }

    #[test]
    fn what_others_write_is_read_and_what_a_record_has_no_place_for_is_kept() {
        let record = read(
            r#"{"name":"payments","id":"p-1","address":"10.1.2.3","port":8040,"sslPort":8443,"payload":{"@class":"a.B","x":1},
                "registrationTimeUTC":5,"serviceType":"STATIC","uriSpec":null,"weight":9}"#,
        )
        .unwrap();
        assert_eq!(record.addresses, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        let ports: Vec<_> = record.ports.iter().map(|port| (port.name.as_str(), port.port)).collect();
        assert_eq!(ports, [("default", 8040), ("https", 8443)]);
        assert_eq!((record.status, record.registered_at_ms, record.weight), (Status::Up, 5, 1));
        let kept = &record.other["curator"];
        assert_eq!((&kept["payload"]["x"], &kept["weight"]), (&1.into(), &9.into()));
        assert_eq!(record.owner, "");
        let disabled =
            r#"{"name":"payments","id":"p-1","address":"::1","port":null,"sslPort":1,"enabled":false}"#;
        let record = read(disabled).unwrap();
        assert_eq!((record.status, record.ports[0].port), (Status::Maintenance, 1));
    }

    #[test]
    fn an_id_with_a_number_behind_it_is_that_of_a_sequential_instance() {
        let path = "/discovery/payments/p-10000000007";
        let text = |kind| {
            format!(
                r#"{{"name":"payments","id":"p-1","address":"10.0.0.1","port":1,"serviceType":"{kind}"}}"#
            )
        };
        assert!(Format::Curator.decode(path, text("DYNAMIC_SEQUENTIAL").as_bytes()).is_ok());
        let error = Format::Curator.decode(path, text("DYNAMIC").as_bytes()).unwrap_err();
        assert!(matches!(error, FormatError::Names { what: "id", .. }), "{error}");
    }

    #[test]
    fn what_is_no_instance_says_why() {
        let text = |rest: &str| format!(r#"{{"name":"payments","id":"p-1",{rest}}}"#);
        let error = read(&text(r#""address":"web.example","port":80"#)).unwrap_err();
        assert!(error.to_string().contains("web.example"), "{error}");
        assert!(matches!(error, FormatError::HostName { .. }));
        let error = read(&text(r#""address":"10.0.0.1","port":null"#)).unwrap_err();
        assert!(matches!(error, FormatError::Missing("port")), "{error}");
        for port in [0, -1, 65_536] {
            let error = read(&text(&format!(r#""address":"10.0.0.1","port":{port}"#))).unwrap_err();
            assert!(matches!(error, FormatError::Port { .. }), "{error}");
        }
        assert!(matches!(read(&text(r#""port":80"#)).unwrap_err(), FormatError::Missing("address")));
        let other = r#"{"name":"web","id":"p-1","address":"10.0.0.1","port":80}"#;
        assert!(matches!(read(other).unwrap_err(), FormatError::Names { what: "service", .. }));
    }

    fn read(text: &str) -> Result<Record, FormatError> {
        Format::Curator.decode(PATH, text.as_bytes())
    }

    fn curator(ssl_port: Option<u16>, payload: Option<&str>) -> FormatTarget {
        let (name, payload) = ("payments".to_owned(), payload.map(str::to_owned));
        target("/discovery", FormatKind::Curator { name, ssl_port, payload })
    }
}
