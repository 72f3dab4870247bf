//! One instance's record: the JSON in its znode.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::host_address::host_address;
use super::meta::Meta;
use super::name::Label;

/// What an instance says about itself, version 1. Readers ignore keys that they do not know, and writers keep
/// them (`other`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version, [`Record::VERSION`].
    #[serde(rename = "v")]
    pub version: u32,
    /// Where it can be reached, at least one address.
    pub addresses: Vec<IpAddr>,
    /// What it listens on; the first is the default.
    pub ports: Vec<Port>,
    /// Whether it is offered.
    pub status: Status,
    /// Its share of traffic among equals; 0 means only when nothing else is there.
    #[serde(default = "one")]
    pub weight: u16,
    /// The configured tier; lower is preferred (RFC 2782).
    #[serde(default)]
    pub priority: u16,
    /// The tier it is in now, which differs while fail-back holds it off; `priority` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_priority: Option<u16>,
    /// Its failure domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The machine it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Labels that lookups can filter by.
    #[serde(default)]
    pub tags: Vec<Label>,
    /// Anything else about it.
    #[serde(default)]
    pub meta: Meta,
    /// Who may replace this record.
    #[serde(default)]
    pub owner: String,
    /// Random per process start.
    #[serde(default)]
    pub incarnation: String,
    /// Wall clock of the first registration by this owner, ms since 1970.
    #[serde(default)]
    pub registered_at_ms: i64,
    /// Keys of later versions.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A port that an instance listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// What the application calls it, as in `_http._tcp`.
    pub name: Label,
    /// The number.
    pub port: u16,
    /// How it is spoken to.
    #[serde(default)]
    pub protocol: Protocol,
}

/// How a port is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the protocols' own names")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// Whether an instance is offered; only [`Status::Up`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Healthy.
    Up,
    /// Its checks fail.
    Failing,
    /// Leaving.
    Draining,
    /// Taken out by an operator.
    Maintenance,
    /// A status of a later version, which is not offered.
    #[serde(other)]
    Unknown,
}

impl Status {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a znode's data is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Longer than any record may be.
    #[error("{bytes} bytes are more than the {} a record may have", Record::BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not the JSON of a record.
    #[error("not an instance record")]
    Json(#[from] serde_json::Error),
    /// A record without an address or without a port.
    #[error("the record has no {0}")]
    Missing(&'static str),
}

impl Record {
    /// The version of the format that is written.
    pub const VERSION: u32 = 1;
    /// Bytes of the longest record.
    pub const BYTES_MAX: usize = 16 * 1024;

    /// Reads a record. Of its addresses those count at which one host can be reached, each once.
    ///
    /// # Errors
    ///
    /// When the bytes are none, too many, or lack an address or a port.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(RecordError::TooLong { bytes: bytes.len() });
        }
        let mut record: Self = serde_json::from_slice(bytes)?;
        let given = std::mem::take(&mut record.addresses);
        for address in given.into_iter().filter_map(host_address) {
            if !record.addresses.contains(&address) {
                record.addresses.push(address);
            }
        }
        // Lists grow to fours; ten thousand records are kept.
        record.addresses.shrink_to_fit();
        record.ports.shrink_to_fit();
        record.tags.shrink_to_fit();
        if record.addresses.is_empty() {
            return Err(RecordError::Missing("addresses"));
        }
        if record.ports.is_empty() {
            return Err(RecordError::Missing("ports"));
        }
        Ok(record)
    }

    /// The record's bytes.
    ///
    /// # Errors
    ///
    /// When it is too long.
    ///
    /// # Panics
    ///
    /// Never: every field has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let bytes = serde_json::to_vec(self).expect("every field has a JSON form");
        if bytes.len() > Self::BYTES_MAX {
            Err(RecordError::TooLong { bytes: bytes.len() })
        } else {
            Ok(bytes)
        }
    }

    /// About what it takes beside its own place, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        let Self { addresses, ports, zone, node, tags, meta, owner, incarnation, other, .. } = self;
        let texts =
            [zone.as_deref().unwrap_or_default(), node.as_deref().unwrap_or_default(), owner, incarnation];
        let labels = ports.iter().map(|port| &port.name).chain(tags);
        let pairs = meta.iter().map(|(key, text)| size_of::<(&str, &str)>() + key.len() + text.len());
        let other = if other.is_empty() {
            0
        } else {
            serde_json::to_vec(other).map_or(Self::BYTES_MAX, |text| text.len())
        };
        size_of_val(addresses.as_slice())
            + size_of_val(ports.as_slice())
            + size_of_val(tags.as_slice())
            + texts.iter().map(|text| text.len()).sum::<usize>()
            + labels.map(|label| COUNTS + label.as_str().len()).sum::<usize>()
            + pairs.sum::<usize>()
            + other
    }

    /// The tier it is in now.
    pub fn effective_priority(&self) -> u16 {
        self.effective_priority.unwrap_or(self.priority)
    }

    /// The port that is meant when none is named.
    pub fn default_port(&self) -> Option<&Port> {
        self.ports.first()
    }

    /// Whether it may be offered.
    pub fn is_up(&self) -> bool {
        self.status == Status::Up
    }
}

const fn one() -> u16 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_later_versions_survive_to_the_last_digit() {
        for number in ["0.1", "9.999999999999992e19", "4.444444444444445e42", "18446744073709551615"] {
            let text = format!(
                r#"{{"v":2,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":80}}],"status":"up","later":{number}}}"#
            );
            let record = Record::decode(text.as_bytes()).unwrap();
            assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record, "{number}");
        }
        // More digits than are kept: what is read is what is written, and read again.
        let long = "4".repeat(43);
        let text = format!(
            r#"{{"v":2,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":80}}],"status":"up","later":{long}}}"#
        );
        let record = Record::decode(text.as_bytes()).unwrap();
        assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
    }

    #[test]
    fn unknown_keys_and_statuses_survive_and_are_not_offered() {
        let text = br#"{"v":2,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"dancing","color":"red"}"#;
        let record = Record::decode(text).unwrap();
        assert!(!record.is_up());
        assert_eq!(record.other["color"], "red");
        assert!(String::from_utf8(record.encode().unwrap()).unwrap().contains(r#""color":"red""#));
    }

    #[test]
    fn addresses_are_of_hosts_and_each_is_there_once() {
        let text = br#"{"v":1,"addresses":["10.0.0.1","::ffff:10.0.0.1","0.0.0.0","fd00::1","10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
        let record = Record::decode(text).unwrap();
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(record.addresses, expected);
        assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
    }

    #[test]
    fn a_record_needs_an_address_and_a_port() {
        let no_address = br#"{"v":1,"addresses":[],"ports":[{"name":"http","port":80}],"status":"up"}"#;
        assert!(matches!(Record::decode(no_address), Err(RecordError::Missing("addresses"))));
        let nobodys =
            br#"{"v":1,"addresses":["0.0.0.0","ff02::1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
        assert!(matches!(Record::decode(nobodys), Err(RecordError::Missing("addresses"))));
        let no_port = br#"{"v":1,"addresses":["::1"],"ports":[],"status":"up"}"#;
        assert!(matches!(Record::decode(no_port), Err(RecordError::Missing("ports"))));
        assert!(matches!(Record::decode(&[b' '; Record::BYTES_MAX + 1]), Err(RecordError::TooLong { .. })));
    }
}
