//! Who votes, and how many of them are enough.

use std::collections::BTreeSet;

use crate::id::ServerId;

/// The voting members; a strict majority of them is a quorum.
///
/// The one place that says who is a voter and what is a quorum.
/// Source: `QuorumMaj.java` of Apache ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    voters: BTreeSet<ServerId>,
}

impl Quorum {
    /// A quorum system over `voters`.
    ///
    /// # Panics
    ///
    /// When there are none: an ensemble without voters can decide nothing.
    pub fn majority_of(voters: impl IntoIterator<Item = ServerId>) -> Self {
        let voters: BTreeSet<_> = voters.into_iter().collect();
        assert!(!voters.is_empty(), "an ensemble has at least one voter");
        Self { voters }
    }

    /// Whether `server` has a vote.
    pub fn is_voter(&self, server: ServerId) -> bool {
        self.voters.contains(&server)
    }

    /// Whether the voters among `servers` are more than half of all voters.
    pub fn is_reached_by<'a>(&self, servers: impl IntoIterator<Item = &'a ServerId>) -> bool {
        let voting = servers.into_iter().filter(|server| self.is_voter(**server)).count();
        voting > self.voters.len() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u8) -> ServerId {
        ServerId::new(id).unwrap()
    }

    #[test]
    fn one_of_one_two_of_three_three_of_four() {
        let one = Quorum::majority_of([server(1)]);
        assert!(one.is_reached_by(&[server(1)]));
        assert!(!one.is_reached_by(&[]));
        let three = Quorum::majority_of([1, 2, 3].map(server));
        assert!(three.is_reached_by(&[server(1), server(3)]));
        assert!(!three.is_reached_by(&[server(1)]));
        let four = Quorum::majority_of([1, 2, 3, 4].map(server));
        assert!(!four.is_reached_by(&[server(1), server(2)]));
        assert!(four.is_reached_by(&[server(1), server(2), server(4)]));
    }

    #[test]
    fn observers_do_not_count() {
        let three = Quorum::majority_of([1, 2, 3].map(server));
        assert!(!three.is_reached_by(&[server(1), server(7), server(8)]));
    }
}
