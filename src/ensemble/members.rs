//! Who the members are, and where they listen for one another.
//!
//! Names are kept as they are written: they are resolved at every dial, since a pod that comes back has another address.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::id::ServerId;
use crate::zab::Quorum;

/// A host by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Whether a member votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberRole {
    /// It votes, and may lead.
    Voter,
    /// It only listens.
    Observer,
}

/// One member, as the others find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddress {
    /// Where it listens for learners when it leads (2888).
    pub quorum: HostPort,
    /// Where it listens for votes (3888).
    pub election: HostPort,
    /// Where its clients connect, if that is known.
    pub client: Option<HostPort>,
    /// Whether it votes.
    pub role: MemberRole,
}

/// All members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    by_id: BTreeMap<ServerId, MemberAddress>,
}

/// Why members make no ensemble.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Nobody votes.
    #[error("no member votes")]
    NoVoter,
    /// Two listen at the same place.
    #[error("members {first} and {second} both listen on {address}")]
    Twice {
        /// One of them.
        first: ServerId,
        /// The other.
        second: ServerId,
        /// Where.
        address: HostPort,
    },
    /// One listens at the same place for learners and for votes.
    #[error("member {id} listens on {address} for learners and for votes")]
    OnePort {
        /// Which.
        id: ServerId,
        /// Where.
        address: HostPort,
    },
}

impl MembersError {
    /// What to do about it.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::NoVoter => "give at least one the role voter",
            Self::Twice { .. } => "give each a host or ports of its own",
            Self::OnePort { .. } => "give it a port for each",
        }
    }
}

impl Members {
    /// Checks that no two of them listen at the same place and that somebody votes.
    ///
    /// # Errors
    ///
    /// When that is not so.
    pub fn new(by_id: BTreeMap<ServerId, MemberAddress>) -> Result<Self, MembersError> {
        if !by_id.values().any(|member| member.role == MemberRole::Voter) {
            return Err(MembersError::NoVoter);
        }
        let mut taken: BTreeMap<&HostPort, ServerId> = BTreeMap::new();
        for (second, member) in &by_id {
            for address in [&member.quorum, &member.election] {
                let Some(first) = taken.insert(address, *second) else { continue };
                let (second, address) = (*second, address.clone());
                return Err(if first == second {
                    MembersError::OnePort { id: first, address }
                } else {
                    MembersError::Twice { first, second, address }
                });
            }
        }
        Ok(Self { by_id })
    }

    /// One member.
    pub fn get(&self, id: ServerId) -> Option<&MemberAddress> {
        self.by_id.get(&id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ServerId, &MemberAddress)> {
        self.by_id.iter().map(|(id, member)| (*id, member))
    }

    /// Those who vote.
    ///
    /// # Panics
    ///
    /// Never: somebody votes.
    pub fn quorum(&self) -> Quorum {
        Quorum::majority_of(self.with_role(MemberRole::Voter))
    }

    /// Those with a role.
    pub fn with_role(&self, role: MemberRole) -> impl Iterator<Item = ServerId> {
        self.iter().filter(move |(_, member)| member.role == role).map(|(id, _)| id)
    }

    /// The text of this configuration that members send along, as `QuorumMaj.toString` of Apache ZooKeeper writes it.
    ///
    /// # Panics
    ///
    /// Never: a String takes whatever is written.
    pub fn to_config_text(&self) -> String {
        let mut text = String::new();
        for (id, member) in self.iter() {
            let MemberAddress { quorum, election, client, role } = member;
            let role = match role {
                MemberRole::Voter => "participant",
                MemberRole::Observer => "observer",
            };
            write!(text, "server.{id}={quorum}:{}:{role}", election.port).expect("a String takes it");
            if let Some(client) = client {
                write!(text, ";{client}").expect("a String takes it");
            }
            text.push('\n');
        }
        text.push_str("version=0");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u8) -> ServerId {
        ServerId::new(id).unwrap()
    }

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    fn member(host: &str, role: MemberRole) -> MemberAddress {
        MemberAddress { quorum: at(host, 2888), election: at(host, 3888), client: None, role }
    }

    #[test]
    fn the_text_is_apaches() {
        let mut first = member("127.0.0.1", MemberRole::Voter);
        first.client = Some(at("0.0.0.0", 2181));
        let members = [(server(1), first), (server(2), member("::1", MemberRole::Observer))];
        let members = Members::new(members.into_iter().collect()).unwrap();
        assert_eq!(
            members.to_config_text(),
            "server.1=127.0.0.1:2888:3888:participant;0.0.0.0:2181\nserver.2=[::1]:2888:3888:observer\nversion=0"
        );
        assert!(members.quorum().is_voter(server(1)) && !members.quorum().is_voter(server(2)));
    }

    #[test]
    fn two_at_one_place_and_nobody_to_vote_are_refused() {
        let two = [1, 2].map(|id| (server(id), member("host", MemberRole::Voter)));
        let error = Members::new(two.into_iter().collect()).unwrap_err();
        assert_eq!(error.to_string(), "members 1 and 2 both listen on host:2888");
        let none = [(server(1), member("host", MemberRole::Observer))];
        assert_eq!(Members::new(none.into_iter().collect()), Err(MembersError::NoVoter));
        let mut same = member("host", MemberRole::Voter);
        same.election = same.quorum.clone();
        let error = Members::new([(server(1), same)].into_iter().collect()).unwrap_err();
        assert_eq!(error.to_string(), "member 1 listens on host:2888 for learners and for votes");
    }
}
