//! The formats in which other systems write instances into the tree, and read them.
//!
//! ```text
//! Record ──► FormatTarget::znode ──► parent, name, mode, JSON      (what the registrar writes beside our own record)
//! path, bytes ──► Format::decode ──► Record                        (what others have written)
//! ```
//!
//! | Format | Below its root | Written as |
//! | --- | --- | --- |
//! | `curator` | `<service>/<instance>` | ephemeral; JSON of Curator's `ServiceInstance` |
//! | `spring` | `<service>/<instance>` | the same, with the payload of Spring Cloud Zookeeper |
//! | `serverset` | `member_<number>` | ephemeral sequential; Finagle's and Aurora's JSON |
//! | `nerve` | `<instance>_<number>` | ephemeral sequential; Nerve's JSON, as Synapse reads it |
//!
//! - Each has one address: an instance is written with its first. Each knows ports without a protocol: TCP ports are
//!   written, others are not.
//! - For each there are readers that look at no status (Curator's own for `spring`, Synapse and Prometheus for `serverset`).
//!   So an instance is there while it is up, and not there otherwise, whatever the format could say.
//! - A record needs IP addresses, since an answer must not wait for another lookup: what names a host is
//!   [`FormatError::HostName`].
//! - What a record has no place for is kept in [`Record::other`] under the format's name. So it cannot be mistaken for a key
//!   of ours. Nothing that was read has an owner, so that the registrar never takes it for its own.
//! - A record that was read is one that can be written: [`Record::encode`] succeeds.
//!
//! Pure: which znodes are there, and whose they are, is the registrar's business (`registrar::foreign`).

mod curator;
mod nerve;
mod serverset;
mod settings;
mod spring;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::settings::FormatSettings;
pub(super) use self::settings::{refuse_long, refuse_shared_places, resolve_formats};
pub use self::target::{ForeignZnode, FormatKind, FormatTarget};
use super::host_address::host_address;
use super::meta::Meta;
use super::name::Label;
use super::record::{Port, Protocol, Record, RecordError, Status};

/// A format that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Curator's service discovery (x-discovery).
    Curator,
    /// Spring Cloud Zookeeper's use of it.
    Spring,
    /// Serversets of Finagle and Aurora.
    Serverset,
    /// Nerve's, which Synapse reads.
    Nerve,
}

/// Why a znode is no instance of a format.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Longer than it may be.
    #[error("{bytes} bytes are more than the {} an instance may have", Record::BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A znode beside the instances, such as a serverset's `vector_…`, which is no mistake.
    #[error("{name:?} is not the name of an instance")]
    OtherName {
        /// The znode's name.
        name: String,
    },
    /// Not the JSON of the format.
    #[error("not the JSON of an instance")]
    Json(#[from] serde_json::Error),
    /// The path and the JSON do not agree.
    #[error("the {what} is {found:?} in the JSON and {name:?} in the path")]
    Names {
        /// What it is the name of.
        what: &'static str,
        /// As the JSON has it.
        found: String,
        /// As the path has it.
        name: String,
    },
    /// Nothing says where it is reached.
    #[error("the instance has no {0}")]
    Missing(&'static str),
    /// It is reached at a host name, which a record cannot hold.
    #[error("{host:?} is not an IP address; host names are not resolved")]
    HostName {
        /// The name.
        host: String,
    },
    /// It is reached at an address that no host has.
    #[error("nobody can connect to {address}")]
    NoHost {
        /// The address.
        address: IpAddr,
    },
    /// A number that is no port.
    #[error("{port} is not a port")]
    Port {
        /// The number.
        port: i64,
    },
}

impl From<RecordError> for FormatError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::TooLong { bytes } => Self::TooLong { bytes },
            RecordError::Json(error) => Self::Json(error),
            RecordError::Missing(what) => Self::Missing(what),
        }
    }
}

impl Format {
    /// Reads the instance at `path`, of which the last component, or the last two, say who it is.
    ///
    /// # Errors
    ///
    /// When it is none, or none that a record can tell of.
    pub fn decode(self, path: &str, data: &[u8]) -> Result<Record, FormatError> {
        if data.len() > Record::BYTES_MAX {
            return Err(FormatError::TooLong { bytes: data.len() });
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let service = parent.rsplit('/').next().unwrap_or_default();
        let record = match self {
            Self::Curator => curator::decode(service, name, data),
            Self::Spring => spring::decode(service, name, data),
            Self::Serverset => serverset::decode(name, data),
            Self::Nerve => nerve::decode(name, data),
        }?;
        // What was kept may make it longer than what was read.
        record.encode()?;
        Ok(record)
    }

    /// Its name in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Curator => "curator",
            Self::Spring => "spring",
            Self::Serverset => "serverset",
            Self::Nerve => "nerve",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a port that was given none.
const PORT_NAME: &str = "default";

/// A record of what was read; `rest` is what it has no place for.
fn record(
    format: Format,
    address: IpAddr,
    ports: Vec<Port>,
    status: Status,
    rest: Map<String, Value>,
) -> Record {
    let mut other = Map::new();
    if !rest.is_empty() {
        other.insert(format.as_str().to_owned(), Value::Object(rest));
    }
    Record {
        version: Record::VERSION,
        addresses: vec![address],
        ports,
        status,
        weight: 1,
        priority: 0,
        effective_priority: None,
        zone: None,
        node: None,
        tags: Vec::new(),
        meta: Meta::default(),
        owner: String::new(),
        incarnation: String::new(),
        registered_at_ms: 0,
        other,
    }
}

fn address(host: &str) -> Result<IpAddr, FormatError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = bare.parse().map_err(|_| FormatError::HostName { host: host.to_owned() })?;
    host_address(address).ok_or(FormatError::NoHost { address })
}

fn port_number(port: i64) -> Result<u16, FormatError> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or(FormatError::Port { port })
}

fn port(name: &str, port: i64) -> Result<Port, FormatError> {
    let name = Label::parse(name).expect("a label");
    Ok(Port { name, port: port_number(port)?, protocol: Protocol::Tcp })
}

/// Takes the texts out of `labels`; what is no text stays.
fn take_texts(labels: &mut Map<String, Value>) -> BTreeMap<String, String> {
    let is_text = |value: &Value| value.is_string();
    let keys: Vec<_> =
        labels.iter().filter(|(_, value)| is_text(value)).map(|(key, _)| key.clone()).collect();
    let text = |key: String| match labels.remove(&key) {
        Some(Value::String(text)) => Some((key, text)),
        _ => None,
    };
    keys.into_iter().filter_map(text).collect()
}
