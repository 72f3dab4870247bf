//! The members in a settings file, and what they are told about one another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{HostPort, MemberAddress, MemberRole, Members, PeersSettings};
#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar};
use crate::id::ServerId;
use crate::tls::{ClientAuth, TlsFiles};

/// One member, as the others find it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberEntry {
    /// 1 to 254, as in the member's own `server_id`.
    #[cfg_attr(test, schemars(range(min = 1, max = 254)))]
    pub id: u8,
    /// A name, resolved at every dial, or an address.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub host: String,
    /// Where it listens for learners when it leads. Default 2888.
    #[serde(default = "quorum_port")]
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub quorum_port: u16,
    /// Where it listens for votes. Default 3888.
    #[serde(default = "election_port")]
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub election_port: u16,
    /// Where its clients connect; told to the others, and used for nothing else.
    #[serde(default)]
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub client_port: Option<u16>,
    /// Whether it votes. Default `voter`.
    #[serde(default)]
    pub role: RoleKey,
}

/// Whether a member votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RoleKey {
    /// It votes, and may lead.
    #[default]
    Voter,
    /// It only listens.
    Observer,
}

/// TLS between members.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PeerTlsKeys {
    /// This member's certificate, with the chain behind it, in PEM.
    pub cert: PathBuf,
    /// Its key, in PEM; the same file if it is in there.
    pub key: PathBuf,
    /// The authorities that the others' certificates may be signed by, in PEM.
    pub ca: PathBuf,
    /// Whether a member that connects must have a certificate: `need`, `want` or `none`. Default `need`.
    #[serde(default)]
    pub client_auth: ClientAuthKey,
    /// Whether a member's certificate must be for the host that it is dialled by. Default true.
    #[serde(default = "verify_hostname")]
    pub verify_hostname: bool,
}

/// Whether whoever connects must have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthKey {
    /// It must.
    #[default]
    Need,
    /// It may have none, but a wrong one is refused.
    Want,
    /// It is not asked.
    None,
}

/// What members are told about one another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct QuorumKeys {
    /// Where to listen for the other members, without ports. Default: this member's own host.
    pub listen_host: Option<String>,
    /// Ticks that a learner may take to connect and to be synchronized. Default 10.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub init_limit: Option<u32>,
    /// Ticks that a synchronized learner, or its leader, may be silent. Default 5.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub sync_limit: Option<u32>,
    /// How long it may take to connect to a member, `100ms` to `1m`. Default `5s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub connect_timeout: Option<Scalar>,
    /// How long to wait for a better vote from a voter that is connected and silent, at most `10s`. Default `200ms`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub finalize_wait: Option<Scalar>,
    /// Committed txns kept in memory for learners that lack a few. Default 500.
    pub commit_log_count: Option<usize>,
    /// Bytes that may wait to be written to one member, without what brings it up to date. Default 67108864.
    #[cfg_attr(test, schemars(range(min = LINK_BYTES_MIN)))]
    pub link_bytes_max: Option<usize>,
    /// The longest snapshot that is taken over from a leader, in bytes. Default 2147483648.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub snapshot_bytes_max: Option<u64>,
    /// TLS between members. Default: none.
    pub tls: Option<PeerTlsKeys>,
}

const fn verify_hostname() -> bool {
    true
}

const fn quorum_port() -> u16 {
    2888
}

const fn election_port() -> u16 {
    3888
}

/// Times that make sense for a connection, and for a vote.
const CONNECT_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// The longest request is as long by default.
const LINK_BYTES_MIN: usize = 1 << 20;
const FINALIZE_WAIT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(10));

/// The others, if there are any; every mistake goes into `mistakes`.
pub(super) fn plan_peers(
    own: Option<ServerId>,
    entries: &[MemberEntry],
    keys: &QuorumKeys,
    mistakes: &mut Vec<Mistake>,
) -> Option<PeersSettings> {
    let times = keys.times(mistakes);
    if entries.is_empty() {
        return None;
    }
    let mut by_id = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(id) = ServerId::new(entry.id) else {
            let path = format!("members[{index}].id");
            mistakes.push(Mistake::new(path, "0 and 255 are no server ids", "use 1 to 254"));
            continue;
        };
        if entry.host.is_empty() {
            let path = format!("members[{index}].host");
            mistakes.push(Mistake::new(path, "there is no host", "give its name or address"));
        }
        for (key, port) in [
            ("quorum_port", Some(entry.quorum_port)),
            ("election_port", Some(entry.election_port)),
            ("client_port", entry.client_port),
        ] {
            if port == Some(0) {
                let message = "0 is no port that others could connect to";
                mistakes.push(Mistake::new(format!("members[{index}].{key}"), message, "use 1 to 65535"));
            }
        }
        if by_id.insert(id, entry.address()).is_some() {
            let path = format!("members[{index}].id");
            mistakes.push(Mistake::new(path, format!("two members have the id {id}"), "give each its own"));
        }
    }
    if let Some(own) = own
        && !by_id.contains_key(&own)
    {
        let message = format!("this member, server_id {own}, is not among them");
        mistakes.push(Mistake::new("members", message, "list every member, this one too"));
    }
    let members = match Members::new(by_id) {
        Ok(members) => members,
        Err(error) => {
            mistakes.push(Mistake::new("members", error.to_string(), error.remedy()));
            return None;
        }
    };
    let mut settings = PeersSettings::of(members);
    keys.apply(times, &mut settings);
    Some(settings)
}

impl MemberEntry {
    fn address(&self) -> MemberAddress {
        let at = |port| HostPort { host: self.host.clone(), port };
        MemberAddress {
            quorum: at(self.quorum_port),
            election: at(self.election_port),
            client: self.client_port.map(at),
            role: match self.role {
                RoleKey::Voter => MemberRole::Voter,
                RoleKey::Observer => MemberRole::Observer,
            },
        }
    }
}

impl PeerTlsKeys {
    fn files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.cert.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
            client_auth: match self.client_auth {
                ClientAuthKey::Need => ClientAuth::Need,
                ClientAuthKey::Want => ClientAuth::Want,
                ClientAuthKey::None => ClientAuth::None,
            },
            verify_hostname: self.verify_hostname,
        }
    }
}

impl QuorumKeys {
    /// Checks everything, also when the members make no ensemble; the times of a connection and of a vote, if they are given.
    fn times(&self, mistakes: &mut Vec<Mistake>) -> [Option<Duration>; 2] {
        for (path, limit) in [("quorum.init_limit", self.init_limit), ("quorum.sync_limit", self.sync_limit)]
        {
            if limit == Some(0) {
                mistakes.push(Mistake::new(path, "0 ticks are over at once", "use 1 or more"));
            }
        }
        if self.link_bytes_max.is_some_and(|bytes| bytes < LINK_BYTES_MIN) {
            let message = "so little overflows at once";
            mistakes.push(Mistake::new("quorum.link_bytes_max", message, "use 1048576 (1 MiB) or more"));
        }
        if self.snapshot_bytes_max == Some(0) {
            let message = "without a snapshot a member that lacks much could never be brought up to date";
            mistakes.push(Mistake::new("quorum.snapshot_bytes_max", message, "use 1 or more"));
        }
        [
            ("quorum.connect_timeout", &self.connect_timeout, CONNECT_TIMEOUT),
            ("quorum.finalize_wait", &self.finalize_wait, FINALIZE_WAIT),
        ]
        .map(|(path, given, range)| given.as_ref()?.to_duration_within(path, range, mistakes))
    }

    fn apply(&self, [connect_timeout, finalize_wait]: [Option<Duration>; 2], settings: &mut PeersSettings) {
        settings.connect_timeout = connect_timeout.unwrap_or(settings.connect_timeout);
        settings.finalize_wait = finalize_wait.unwrap_or(settings.finalize_wait);
        settings.tls = self.tls.as_ref().map(PeerTlsKeys::files);
        settings.listen_host.clone_from(&self.listen_host);
        settings.init_limit = self.init_limit.unwrap_or(settings.init_limit);
        settings.sync_limit = self.sync_limit.unwrap_or(settings.sync_limit);
        settings.link_bytes_max = self.link_bytes_max.unwrap_or(settings.link_bytes_max);
        settings.snapshot_bytes_max = self.snapshot_bytes_max.unwrap_or(settings.snapshot_bytes_max);
        settings.commit_log_count = self.commit_log_count.unwrap_or(settings.commit_log_count);
    }
}
