//! Serversets of Finagle and Aurora: `<root>/member_<number>`.
//!
//! ```text
//! {"serviceEndpoint":{"host":"10.1.2.3","port":31943},
//!  "additionalEndpoints":{"http":{"host":"10.1.2.3","port":31943},"admin":{"host":"10.1.2.3","port":31944}},
//!  "status":"ALIVE","shard":0}
//! ```
//!
//! The service endpoint has no name; a name for the same port comes from an additional one. So a port called `default`, as
//! ours is when the settings name none, is the service endpoint alone. Children with other names, such as the `vector_…`
//! of weights, are no members.
//!
//! Source: `Entry.scala` and `Zk2Resolver.scala` of Finagle, which offer `ALIVE` alone.

use std::net::IpAddr;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Format, FormatError, PORT_NAME, address, port, port_number, record};
use crate::registry::name::Label;
use crate::registry::record::{Port, Protocol, Record, Status};

/// What members' names begin with.
pub(super) const NAME_PREFIX: &str = "member_";

/// What is written, in the order of Aurora's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Member<'a> {
    service_endpoint: Endpoint,
    #[serde(serialize_with = "as_map")]
    additional_endpoints: Vec<(&'a str, Endpoint)>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u32>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Endpoint {
    host: IpAddr,
    port: u16,
}

impl<'a> Member<'a> {
    pub(super) fn new(record: &'a Record, port: u16, shard: Option<u32>) -> Self {
        let endpoint = |port| Endpoint { host: record.addresses[0], port };
        let named = record.ports.iter().filter(|named| {
            named.protocol == Protocol::Tcp && (named.port != port || named.name.as_str() != PORT_NAME)
        });
        Self {
            service_endpoint: endpoint(port),
            additional_endpoints: named.map(|named| (named.name.as_str(), endpoint(named.port))).collect(),
            status: match record.status {
                Status::Up => ALIVE,
                Status::Failing => "DEAD",
                Status::Draining => "STOPPING",
                Status::Maintenance => "STOPPED",
                Status::Unknown => "UNKNOWN",
            },
            shard,
        }
    }
}

const ALIVE: &str = "ALIVE";

fn as_map<S: Serializer>(endpoints: &[(&str, Endpoint)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(endpoints.len()))?;
    for (name, endpoint) in endpoints {
        map.serialize_entry(name, endpoint)?;
    }
    map.end()
}

/// What is read. The keys that are not named here are kept as they are, `shard` among them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    service_endpoint: FoundEndpoint,
    #[serde(default)]
    additional_endpoints: Option<Map<String, Value>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct FoundEndpoint {
    host: String,
    port: i64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

pub(super) fn decode(name: &str, data: &[u8]) -> Result<Record, FormatError> {
    if !name.starts_with(NAME_PREFIX) {
        return Err(FormatError::OtherName { name: name.to_owned() });
    }
    let mut found: Found = serde_json::from_slice(data)?;
    let service = found.service_endpoint;
    let address = address(&service.host)?;
    let mut rest_of_endpoints = found.additional_endpoints.unwrap_or_default();
    let ports = take_ports(&service.host, port_number(service.port)?, &mut rest_of_endpoints)?;
    if !rest_of_endpoints.is_empty() {
        found.rest.insert("additionalEndpoints".to_owned(), Value::Object(rest_of_endpoints));
    }
    if !service.rest.is_empty() {
        found.rest.insert("serviceEndpoint".to_owned(), Value::Object(service.rest));
    }
    let status = status(found.rest.get("status").and_then(Value::as_str));
    if status == Status::Up {
        found.rest.remove("status");
    }
    Ok(record(Format::Serverset, address, ports, status, found.rest))
}

/// By their meaning; only what is alive is offered.
fn status(status: Option<&str>) -> Status {
    match status {
        Some(ALIVE) => Status::Up,
        Some("STARTING" | "WARNING" | "DEAD") => Status::Failing,
        Some("STOPPING" | "STOPPED") => Status::Draining,
        // `UNKNOWN`, and what is not known.
        _ => Status::Unknown,
    }
}

/// The service's port, and those of additional endpoints at the same host. What is no port of ours stays.
fn take_ports(host: &str, number: u16, endpoints: &mut Map<String, Value>) -> Result<Vec<Port>, FormatError> {
    let mut ports: Vec<Port> =
        endpoints.iter().filter_map(|(name, endpoint)| additional_port(host, name, endpoint)).collect();
    let own = ports.iter().position(|port| port.port == number);
    if own.is_none() {
        ports.retain(|port| port.name.as_str() != PORT_NAME);
    }
    for port in &ports {
        endpoints.remove(port.name.as_str());
    }
    match own {
        Some(own) => ports[..=own].rotate_right(1),
        None => ports.insert(0, port(PORT_NAME, i64::from(number))?),
    }
    Ok(ports)
}

fn additional_port(host: &str, name: &str, endpoint: &Value) -> Option<Port> {
    let name = Label::parse(name).ok()?;
    let endpoint = FoundEndpoint::deserialize(endpoint).ok()?;
    let is_plain = endpoint.host == host && endpoint.rest.is_empty();
    let port = port_number(endpoint.port).ok().filter(|_| is_plain)?;
    Some(Port { name, port, protocol: Protocol::Tcp })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::formats::tests::{id, instance, target};
    use crate::registry::formats::{FormatKind, FormatTarget};

    #[test]
    fn a_member_has_its_named_ports_as_additional_endpoints() {
        let member = serverset(Some(0)).znode(&id("p-1"), &instance("10.1.2.3"));
        assert_eq!((member.parent.as_str(), member.name.as_str()), ("/aurora/www/prod/pay", "member_"));
        assert!(member.mode.is_sequential() && member.mode.is_ephemeral());
        assert_eq!(
            String::from_utf8(member.data).unwrap(),
            concat!(
                r#"{"serviceEndpoint":{"host":"10.1.2.3","port":8040},"#,
                r#""additionalEndpoints":{"http":{"host":"10.1.2.3","port":8040},"admin":{"host":"10.1.2.3","port":8041}},"#,
                r#""status":"ALIVE","shard":0}"#
            )
        );
    }

    #[test]
    fn a_port_without_a_name_and_a_member_without_a_shard_are_left_out() {
        let ports = vec![port("default", 8040).unwrap()];
        let member = serverset(None).znode(&id("p-1"), &Record { ports, ..instance("::1") });
        assert_eq!(
            String::from_utf8(member.data).unwrap(),
            r#"{"serviceEndpoint":{"host":"::1","port":8040},"additionalEndpoints":{},"status":"ALIVE"}"#
        );
    }

    #[test]
    fn only_what_is_alive_is_offered() {
        for (status, meant) in [
            ("ALIVE", Status::Up),
            ("STARTING", Status::Failing),
            ("WARNING", Status::Failing),
            ("DEAD", Status::Failing),
            ("STOPPING", Status::Draining),
            ("STOPPED", Status::Draining),
            ("UNKNOWN", Status::Unknown),
            ("alive", Status::Unknown),
        ] {
            let record =
                read(&format!(r#"{{"serviceEndpoint":{{"host":"10.0.0.1","port":1}},"status":"{status}"}}"#));
            assert_eq!(record.unwrap().status, meant, "{status}");
        }
        assert_eq!(
            read(r#"{"serviceEndpoint":{"host":"10.0.0.1","port":1}}"#).unwrap().status,
            Status::Unknown
        );
    }

    #[test]
    fn endpoints_become_ports_and_what_is_none_of_ours_is_kept() {
        let record = read(
            r#"{"serviceEndpoint":{"host":"10.0.0.1","port":2,"weight":1},"status":"WARNING","shard":3,"metadata":{"a":"b"},
                "additionalEndpoints":{"aurora":{"host":"10.0.0.1","port":1},"http":{"host":"10.0.0.1","port":2},
                  "far":{"host":"10.0.0.9","port":3},"No_Label":{"host":"10.0.0.1","port":4}}}"#,
        )
        .unwrap();
        let ports: Vec<_> = record.ports.iter().map(|port| (port.name.as_str(), port.port)).collect();
        assert_eq!(ports, [("http", 2), ("aurora", 1)], "the service's own is the first");
        let kept = &record.other["serverset"];
        assert_eq!((&kept["shard"], &kept["status"]), (&3.into(), &"WARNING".into()));
        let endpoints = kept["additionalEndpoints"].as_object().unwrap();
        assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["No_Label", "far"]);
        assert_eq!(kept["serviceEndpoint"]["weight"], 1);
        assert_eq!(kept["metadata"]["a"], "b");
    }

    #[test]
    fn what_is_no_member_says_why() {
        let text = br#"{"serviceEndpoint":{"host":"10.0.0.1","port":1},"status":"ALIVE"}"#;
        let error = Format::Serverset.decode("/a/vector_0000000001", text).unwrap_err();
        assert!(matches!(error, FormatError::OtherName { .. }), "{error}");
        let error = read(r#"{"serviceEndpoint":{"host":"web","port":1}}"#).unwrap_err();
        assert!(matches!(error, FormatError::HostName { .. }), "{error}");
        assert!(matches!(read("{}").unwrap_err(), FormatError::Json(_)));
    }

    fn read(text: &str) -> Result<Record, FormatError> {
        Format::Serverset.decode("/aurora/www/prod/pay/member_0000000007", text.as_bytes())
    }

    fn serverset(shard: Option<u32>) -> FormatTarget {
        target("/aurora/www/prod/pay", FormatKind::Serverset { shard })
    }
}
