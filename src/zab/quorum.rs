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

    /// Those who vote.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> {
        self.voters.iter().copied()
    }

    /// Whether `server` has a vote.
    pub fn is_voter(&self, server: ServerId) -> bool {
        self.voters.contains(&server)
    }

    /// Whether the voters among `servers` are more than half of all voters.
    pub fn is_reached_by(&self, servers: impl IntoIterator<Item = ServerId>) -> bool {
        let voting: BTreeSet<_> = servers.into_iter().filter(|server| self.is_voter(*server)).collect();
        voting.len() > self.voters.len() / 2
    }

    /// The greatest value that a quorum has reached, where `reached` says how far each voter has come.
    pub fn agreed<T: Ord>(&self, mut reached: impl FnMut(ServerId) -> Option<T>) -> Option<T> {
        let mut values: Vec<T> = self.voters.iter().filter_map(|voter| reached(*voter)).collect();
        let needed = self.voters.len() / 2 + 1;
        if values.len() < needed {
            return None;
        }
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.into_iter().nth(needed - 1)
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
        assert!(one.is_reached_by([server(1)]));
        assert!(!one.is_reached_by([]));
        let three = Quorum::majority_of([1, 2, 3].map(server));
        assert!(three.is_reached_by([server(1), server(3)]));
        assert!(!three.is_reached_by([server(1), server(1)]), "nobody counts twice");
        let four = Quorum::majority_of([1, 2, 3, 4].map(server));
        assert!(!four.is_reached_by([server(1), server(2)]));
        assert!(four.is_reached_by([server(1), server(2), server(4)]));
    }

    #[test]
    fn observers_do_not_count() {
        let three = Quorum::majority_of([1, 2, 3].map(server));
        assert!(!three.is_reached_by([server(1), server(7), server(8)]));
    }

    #[test]
    fn a_quorum_agrees_on_what_its_slowest_has_reached() {
        let three = Quorum::majority_of([1, 2, 3].map(server));
        let agreed = |reached: [Option<u32>; 3]| three.agreed(|voter| reached[usize::from(voter.get()) - 1]);
        assert_eq!(agreed([Some(9), Some(4), Some(2)]), Some(4));
        assert_eq!(agreed([Some(9), None, Some(2)]), Some(2));
        assert_eq!(agreed([Some(9), None, None]), None);
    }
}
