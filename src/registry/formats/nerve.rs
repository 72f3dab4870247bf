//! Nerve's instances, as Synapse and Prometheus read them: `<root>/<instance>_<number>`.
//!
//! ```text
//! {"host":"10.1.2.3","port":8040,"name":"i-0abc","weight":10,"haproxy_server_options":"backup","labels":{"az":"a"}}
//! ```
//!
//! Synapse gives `weight` and `haproxy_server_options` to HAProxy, where `backup` is a server that is asked once no other is
//! there. So an instance below the first tier is a backup, and no weight is above HAProxy's largest, 256. `labels` are the
//! record's `meta`, and `az` its zone.
//!
//! With Nerve's `use_path_encoding` the *name* is `base64_<length>_<URL-safe base64 of the JSON>_<number>`, so that one list
//! of names is enough. A name that is not what it seems is passed over for the data, as Synapse does. That form is read
//! and not written.
//!
//! Source: `reporter/zookeeper.rb` of Nerve, `service_watcher/zookeeper.rb` of Synapse.

use std::collections::BTreeMap;
use std::net::IpAddr;

use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Format, FormatError, PORT_NAME, address, port, record, take_texts};
use crate::registry::record::{Record, Status};

/// What is written, in Nerve's order.
#[derive(Debug, Serialize)]
pub(super) struct Backend<'a> {
    host: IpAddr,
    port: u16,
    name: &'a str,
    weight: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    haproxy_server_options: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
}

impl<'a> Backend<'a> {
    pub(super) fn new(id: &'a str, record: &'a Record, port: u16) -> Self {
        let mut labels: BTreeMap<_, _> = record.meta.iter().collect();
        if let Some(zone) = &record.zone {
            labels.insert(ZONE_LABEL, zone);
        }
        Self {
            host: record.addresses[0],
            port,
            name: id,
            weight: record.weight.min(WEIGHT_MAX),
            haproxy_server_options: (record.effective_priority() > 0).then_some(BACKUP),
            labels,
        }
    }
}

/// HAProxy's largest weight: a larger one is an error in its configuration, which Synapse writes.
const WEIGHT_MAX: u16 = 256;
const ZONE_LABEL: &str = "az";
const BACKUP: &str = "backup";
/// What a name begins with that holds the JSON.
const ENCODED_PREFIX: &str = "base64_";

/// What is read. The keys that are not named here are kept as they are, `name` among them.
#[derive(Debug, Deserialize)]
struct Found {
    host: String,
    port: i64,
    #[serde(default)]
    weight: Option<u64>,
    #[serde(default)]
    haproxy_server_options: Option<String>,
    #[serde(default)]
    labels: Option<Map<String, Value>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

pub(super) fn decode(name: &str, data: &[u8]) -> Result<Record, FormatError> {
    if let Some(found) = encoded_in(name).and_then(|json| serde_json::from_slice::<Found>(&json).ok()) {
        return found.into_record();
    }
    serde_json::from_slice::<Found>(data)?.into_record()
}

/// The JSON that a name holds, if it does.
fn encoded_in(name: &str) -> Option<Vec<u8>> {
    let (length, rest) = name.strip_prefix(ENCODED_PREFIX)?.split_once('_')?;
    // The text may hold underlines, which the number behind it cannot: hence the length.
    let length: usize = length.parse().ok()?;
    let text = rest.get(..length)?.as_bytes();
    if !rest[length..].starts_with('_') || length > Record::BYTES_MAX.div_ceil(3) * 4 {
        return None;
    }
    BASE64URL.decode(text).or_else(|_| BASE64URL_NOPAD.decode(text)).ok()
}

impl Found {
    fn into_record(mut self) -> Result<Record, FormatError> {
        let address = address(&self.host)?;
        let ports = vec![port(PORT_NAME, self.port)?];
        let mut labels = self.labels.unwrap_or_default();
        let mut meta = take_texts(&mut labels);
        if !labels.is_empty() {
            self.rest.insert("labels".to_owned(), Value::Object(labels));
        }
        let options = self.haproxy_server_options.unwrap_or_default();
        let is_backup = options.split_whitespace().any(|option| option == BACKUP);
        if !options.is_empty() && options != BACKUP {
            self.rest.insert("haproxy_server_options".to_owned(), Value::String(options));
        }
        // What is more than ours can say is as much as it can.
        let weight = self.weight.map_or(1, |weight| u16::try_from(weight).unwrap_or(u16::MAX));
        let zone = meta.remove(ZONE_LABEL);
        let record = record(Format::Nerve, address, ports, Status::Up, self.rest);
        Ok(Record { weight, priority: u16::from(is_backup), zone, meta: meta.into(), ..record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::formats::FormatKind;
    use crate::registry::formats::tests::{id, instance, target};

    #[test]
    fn it_is_written_as_nerve_writes_it() {
        let nerve = target("/nerve/pay", FormatKind::Nerve);
        let znode = nerve.znode(&id("p-1"), &Record { weight: 10, ..instance("10.1.2.3") });
        assert_eq!((znode.parent.as_str(), znode.name.as_str()), ("/nerve/pay", "p-1_"));
        assert!(znode.mode.is_sequential() && znode.mode.is_ephemeral());
        assert_eq!(
            String::from_utf8(znode.data).unwrap(),
            r#"{"host":"10.1.2.3","port":8040,"name":"p-1","weight":10,"labels":{"version":"7"}}"#
        );
        let standby = Record {
            priority: 0,
            effective_priority: Some(9),
            zone: Some("a".to_owned()),
            ..instance("::1")
        };
        assert_eq!(
            String::from_utf8(nerve.znode(&id("p-1"), &standby).data).unwrap(),
            concat!(
                r#"{"host":"::1","port":8040,"name":"p-1","weight":1,"haproxy_server_options":"backup","#,
                r#""labels":{"az":"a","version":"7"}}"#
            )
        );
    }

    #[test]
    fn what_others_write_is_read_and_what_a_record_has_no_place_for_is_kept() {
        let record = read(
            r#"{"host":"10.0.0.1","port":1,"name":"i-0abc","weight":99999,"haproxy_server_options":"backup ssl",
                "labels":{"az":"a","team":"x","n":1},"extra":true}"#,
        )
        .unwrap();
        assert_eq!((record.weight, record.priority, record.status), (u16::MAX, 1, Status::Up));
        assert_eq!((record.zone.as_deref(), &record.meta["team"]), (Some("a"), "x"));
        let kept = &record.other["nerve"];
        assert_eq!((&kept["name"], &kept["extra"]), (&"i-0abc".into(), &true.into()));
        assert_eq!(
            (&kept["labels"]["n"], &kept["haproxy_server_options"]),
            (&1.into(), &"backup ssl".into())
        );

        let least = read(r#"{"host":"10.0.0.1","port":1}"#).unwrap();
        assert_eq!((least.weight, least.priority), (1, 0));
        assert!(matches!(read(r#"{"host":"10.0.0.1","port":1,"weight":-1}"#), Err(FormatError::Json(_))));
        assert!(matches!(read(r#"{"host":"web","port":1}"#), Err(FormatError::HostName { .. })));
    }

    #[test]
    fn a_name_that_holds_the_json_is_enough() {
        let json = r#"{"host":"10.0.0.1","port":7,"name":"i~~~~~>>>???"}"#;
        for text in [BASE64URL.encode(json.as_bytes()), BASE64URL_NOPAD.encode(json.as_bytes())] {
            assert!(text.contains('_') || text.contains('-'), "{text}");
            let path = format!("/nerve/base64_{}_{text}_0000000012", text.len());
            assert_eq!(Format::Nerve.decode(&path, b"").unwrap().ports[0].port, 7);
        }
    }

    #[test]
    fn a_name_that_is_not_what_it_seems_is_passed_over_for_the_data() {
        let data = br#"{"host":"10.0.0.1","port":9}"#;
        for name in [
            "base64_",
            "base64_4_ab_1",
            "base64_4_!!!!_1",
            "base64_4_e30=_1",
            "base64_99999999999999999999_e_1",
        ] {
            let record = Format::Nerve.decode(&format!("/nerve/{name}"), data).unwrap();
            assert_eq!(record.ports[0].port, 9, "{name}");
        }
    }

    fn read(text: &str) -> Result<Record, FormatError> {
        Format::Nerve.decode("/nerve/pay/i-0abc_0000000001", text.as_bytes())
    }
}
