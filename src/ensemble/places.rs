//! How many clients may be connected, in all and from one address.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places for connections.
#[derive(Clone, Debug)]
pub(super) struct Places {
    max: usize,
    address_max: Option<usize>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_address: BTreeMap<IpAddr, usize>,
}

/// One connection's, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

/// Why there is none left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    #[error("{0} connections are open; client.connections_max allows no more")]
    Full(usize),
    #[error(
        "{0} connections from this address are open; client.address_connections_max (maxClientCnxns) allows no more"
    )]
    AddressFull(usize),
}

impl Places {
    pub(super) fn new(max: usize, address_max: Option<usize>) -> Self {
        Self { max, address_max, taken: Arc::default() }
    }

    /// Takes a place for a connection from `address`.
    ///
    /// # Errors
    ///
    /// When there is none left in all, or for that address.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, NoPlace> {
        // Whoever comes by way of an IPv6 socket has the same address by itself.
        let address = address.to_canonical();
        let mut taken = lock(&self.taken);
        if taken.all >= self.max {
            return Err(NoPlace::Full(self.max));
        }
        let of_address = taken.of_address.entry(address).or_default();
        if let Some(max) = self.address_max.filter(|max| *of_address >= *max) {
            return Err(NoPlace::AddressFull(max));
        }
        *of_address += 1;
        taken.all += 1;
        drop(taken);
        Ok(Place { address, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Entry::Occupied(mut of_address) = taken.of_address.entry(self.address) {
            *of_address.get_mut() -= 1;
            if *of_address.get() == 0 {
                of_address.remove();
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // Nothing panics while it is held.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room_for_another_of_the_same_address_and_in_all() {
        let places = Places::new(3, Some(2));
        let [a, mapped, b] = ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let first = places.take(a).unwrap();
        let _second = places.take(mapped).unwrap();
        assert_eq!(places.take(a).unwrap_err(), NoPlace::AddressFull(2));
        let third = places.take(b).unwrap();
        assert_eq!(places.take(b).unwrap_err(), NoPlace::Full(3));
        drop(first);
        drop(places.take(a).unwrap());
        drop(third);
        assert_eq!(lock(&places.taken).of_address.len(), 1, "nothing is kept of who has left");
    }

    #[test]
    fn without_a_bound_one_address_may_have_all() {
        let places = Places::new(100, None);
        let address: IpAddr = "::1".parse().unwrap();
        let taken: Vec<_> = (0..100).map(|_| places.take(address).unwrap()).collect();
        assert_eq!(places.take(address).unwrap_err(), NoPlace::Full(100));
        drop(taken);
        assert!(places.take(address).is_ok());
    }
}
