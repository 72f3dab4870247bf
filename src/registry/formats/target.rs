//! Where, and as what, an own instance is written in a format that is not ours.

use std::net::SocketAddr;

use serde::Serialize;

use super::Format;
use super::curator::ServiceInstance;
use super::nerve::Backend;
use super::serverset::{self, Member};
use super::spring::ZookeeperInstance;
use crate::registry::name::Label;
use crate::registry::record::Record;
use crate::znode::{CreateMode, ZnodePath};

/// One format that an own instance is written in, with everything decided but its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatTarget {
    /// Below it the instances stand.
    pub root: ZnodePath,
    /// The TCP port that is meant when the format has one without a name.
    pub port: u16,
    /// The format, and what it needs to know.
    pub kind: FormatKind,
}

/// A format and what it needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatKind {
    /// Curator's.
    Curator {
        /// The service's name there, one component of a path.
        name: String,
        /// The port that speaks TLS, if there is one.
        ssl_port: Option<u16>,
        /// The payload: null or a text.
        payload: Option<String>,
    },
    /// Spring's.
    Spring {
        /// The service's name there, one component of a path.
        name: String,
        /// The port that speaks TLS, if there is one.
        ssl_port: Option<u16>,
    },
    /// Finagle's and Aurora's.
    Serverset {
        /// Which of the job's instances it is.
        shard: Option<u32>,
    },
    /// Nerve's.
    Nerve,
}

/// A znode to be written in a format that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignZnode {
    /// The path of its parent.
    pub parent: String,
    /// Its name; of a sequential one without the number.
    pub name: String,
    /// Ephemeral, or ephemeral sequential.
    pub mode: CreateMode,
    /// The JSON.
    pub data: Vec<u8>,
}

impl FormatTarget {
    /// The format.
    pub const fn format(&self) -> Format {
        match &self.kind {
            FormatKind::Curator { .. } => Format::Curator,
            FormatKind::Spring { .. } => Format::Spring,
            FormatKind::Serverset { .. } => Format::Serverset,
            FormatKind::Nerve => Format::Nerve,
        }
    }

    /// The znode of the instance `id` with this record, which has an address.
    pub fn znode(&self, id: &Label, record: &Record) -> ForeignZnode {
        let data = match &self.kind {
            FormatKind::Curator { name, ssl_port, payload } => {
                let ports = (self.port, *ssl_port);
                json(&ServiceInstance::new(name, id.as_str(), record, ports, payload.as_deref()))
            }
            FormatKind::Spring { name, ssl_port } => {
                let payload = ZookeeperInstance::new(name, id.as_str(), record);
                json(&ServiceInstance::new(name, id.as_str(), record, (self.port, *ssl_port), Some(payload)))
            }
            FormatKind::Serverset { shard } => json(&Member::new(record, self.port, *shard)),
            FormatKind::Nerve => json(&Backend::new(id.as_str(), record, self.port)),
        };
        let (name, mode) = self.name(id);
        ForeignZnode { parent: self.parent(), name, mode, data }
    }

    /// The path of the instance `id`; of a sequential one without the number.
    pub fn path(&self, id: &Label) -> String {
        format!("{}/{}", self.parent(), self.name(id).0)
    }

    /// The path below which its instances stand side by side.
    pub fn parent(&self) -> String {
        match &self.kind {
            FormatKind::Curator { name, .. } | FormatKind::Spring { name, .. } => {
                format!("{}/{name}", self.root.as_str())
            }
            FormatKind::Serverset { .. } | FormatKind::Nerve => self.root.as_str().to_owned(),
        }
    }

    /// Its znode's name, without a number, and mode.
    pub(super) fn name(&self, id: &Label) -> (String, CreateMode) {
        match &self.kind {
            FormatKind::Curator { .. } | FormatKind::Spring { .. } => {
                (id.as_str().to_owned(), CreateMode::Ephemeral)
            }
            FormatKind::Serverset { .. } => {
                (serverset::NAME_PREFIX.to_owned(), CreateMode::EphemeralSequential)
            }
            FormatKind::Nerve => (format!("{id}_"), CreateMode::EphemeralSequential),
        }
    }

    /// Where the format says that the instance is reached.
    pub(super) fn endpoint(&self, record: &Record) -> SocketAddr {
        SocketAddr::new(record.addresses[0], self.port)
    }

    /// Whether the znode at `path` says what this instance would: that of a numbered one is known by nothing else.
    pub fn is_of(&self, record: &Record, path: &str, data: &[u8]) -> bool {
        self.format().decode(path, data).is_ok_and(|found| {
            let port = found.default_port().map_or(0, |port| port.port);
            SocketAddr::new(found.addresses[0], port) == self.endpoint(record)
        })
    }
}

impl ForeignZnode {
    /// Its path; of a sequential one without the number.
    pub fn path(&self) -> String {
        format!("{}/{}", self.parent, self.name)
    }

    /// Whether a child of its parent may be it, by its name.
    pub fn is_named(&self, child: &str) -> bool {
        match child.strip_prefix(self.name.as_str()) {
            Some(number) if self.mode.is_sequential() => is_sequence(number),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }
}

/// Whether `text` is the number of a sequential znode: at least ten characters, the first of them a minus sign once the parent
/// has had more than two billion children.
pub(super) fn is_sequence(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers, and maps with texts for keys have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::formats::tests::{id, instance, target};

    #[test]
    fn a_numbered_znode_is_known_by_its_endpoint() {
        let nerve = target("/nerve/pay", FormatKind::Nerve);
        let ours = instance("10.1.2.3");
        let data = nerve.znode(&id("p-1"), &ours).data;
        let path = "/nerve/pay/p-1_0000000001";
        assert!(nerve.is_of(&ours, path, &data));
        assert!(!nerve.is_of(&instance("10.1.2.4"), path, &data));
        assert!(!FormatTarget { port: 1, ..nerve }.is_of(&ours, path, &data));
    }

    #[test]
    fn names_are_told_apart_from_those_that_begin_alike() {
        let znode = target("/nerve/pay", FormatKind::Nerve).znode(&id("p"), &instance("10.1.2.3"));
        for ours in ["p_0000000001", "p_2147483647", "p_-2147483648", "p_-000000001"] {
            assert!(znode.is_named(ours), "{ours}");
        }
        for other in ["p_", "p_1", "p_x_0000000001", "pp_0000000001", "p_000000000x"] {
            assert!(!znode.is_named(other), "{other}");
        }
    }
}
