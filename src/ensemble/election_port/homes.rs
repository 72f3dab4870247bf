//! Where members call from, by which two processes with one id are found out.
//!
//! Each of the two calls again when the other's connection takes the place of its own, so that calls come from two addresses in turn.
//! A member that has moved never calls from where it was.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::id::ServerId;

/// Where each member has called from, the last two places.
#[derive(Debug, Default)]
pub(super) struct Homes {
    homes: BTreeMap<ServerId, Home>,
}

#[derive(Debug)]
struct Home {
    now: IpAddr,
    before: Option<IpAddr>,
}

impl Homes {
    /// Takes in a call of `peer`; returns where else it calls from, when there is another place still.
    pub(super) fn see(&mut self, peer: ServerId, from: IpAddr) -> Option<IpAddr> {
        let home = self.homes.entry(peer).or_insert(Home { now: from, before: None });
        if home.now == from {
            return None;
        }
        let other = std::mem::replace(&mut home.now, from);
        let is_back = home.before.replace(other) == Some(from);
        is_back.then_some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_is_one_and_who_calls_from_two_places_in_turn_is_two() {
        let (mut homes, peer) = (Homes::default(), ServerId::new(2).unwrap());
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| text.parse::<IpAddr>().unwrap());
        for from in [a, a, b, b, c] {
            assert_eq!(homes.see(peer, from), None, "it moves");
        }
        assert_eq!(homes.see(peer, b), Some(c));
        assert_eq!(homes.see(peer, c), Some(b));
        assert_eq!(homes.see(ServerId::new(3).unwrap(), b), None, "another's place is no matter");
    }
}
