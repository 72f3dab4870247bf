//! How many queries wait, in all and of each client.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::trouble::Trouble;

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// Of clients of whom any wait.
    by_client: BTreeMap<IpAddr, usize>,
    /// Of each client, for each group of upstreams that any wait for.
    by_group: BTreeMap<(IpAddr, GroupId), usize>,
}

/// Tells groups of upstreams apart.
pub(super) type GroupId = usize;

/// How many may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) all: usize,
    pub(super) of_client: usize,
    /// Of one client for one group, so that upstreams that are silent leave room for what others are asked.
    pub(super) of_group: usize,
}

/// One that waits, as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: IpAddr,
    group: GroupId,
}

impl Places {
    /// Lets one more of `client` wait for `group`.
    ///
    /// # Errors
    ///
    /// When there are as many.
    pub(super) fn take(
        self: &Arc<Self>,
        client: IpAddr,
        group: GroupId,
        bounds: Bounds,
    ) -> Result<Place, Trouble> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= bounds.all {
            return Err(Trouble::Busy);
        }
        let of_client = counts.by_client.get(&client).copied().unwrap_or(0);
        let of_group = counts.by_group.get(&(client, group)).copied().unwrap_or(0);
        if of_client >= bounds.of_client || of_group >= bounds.of_group {
            return Err(Trouble::BusyWithClient);
        }
        counts.all += 1;
        counts.by_client.insert(client, of_client + 1);
        counts.by_group.insert((client, group), of_group + 1);
        Ok(Place { places: self.clone(), client, group })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        leave(&mut counts.by_client, self.client);
        leave(&mut counts.by_group, (self.client, self.group));
    }
}

/// One less; of whom none is left nothing is kept.
fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_for_each_and_given_back() {
        let places = Arc::<Places>::default();
        let [one, other] = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let bounds = Bounds { all: 3, of_client: 2, of_group: 2 };
        let take = |client| places.take(client, 7, bounds);
        let first = take(one).unwrap();
        let _second = take(one).unwrap();
        assert_eq!(take(one).unwrap_err(), Trouble::BusyWithClient);
        let third = take(other).unwrap();
        assert_eq!(take(other).unwrap_err(), Trouble::Busy);
        drop((first, third));
        assert!(take(one).is_ok());
        let counts = places.0.lock().unwrap();
        assert_eq!((counts.by_client.len(), counts.by_group.len()), (1, 1), "who does not wait is forgotten");
    }

    #[test]
    fn a_silent_group_leaves_a_client_room_for_others() {
        let places = Arc::<Places>::default();
        let (client, bounds) = (IpAddr::from([127, 0, 0, 1]), Bounds { all: 9, of_client: 4, of_group: 3 });
        let waiting: Vec<_> = (0..3).map(|_| places.take(client, 1, bounds).unwrap()).collect();
        assert_eq!(places.take(client, 1, bounds).unwrap_err(), Trouble::BusyWithClient);
        assert!(places.take(client, 2, bounds).is_ok());
        drop(waiting);
        assert!(places.take(client, 1, bounds).is_ok());
    }
}
