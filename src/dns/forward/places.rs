//! How many queries wait, in all and of each client.

use std::collections::BTreeMap;
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
}

/// One that waits, as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: IpAddr,
}

impl Places {
    /// Lets one more of `client` wait, of `max` in all and `client_max` of each.
    ///
    /// # Errors
    ///
    /// When there are as many.
    pub(super) fn take(
        self: &Arc<Self>,
        client: IpAddr,
        max: usize,
        client_max: usize,
    ) -> Result<Place, Trouble> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= max {
            return Err(Trouble::Busy);
        }
        let of_client = counts.by_client.get(&client).copied().unwrap_or(0);
        if of_client >= client_max {
            return Err(Trouble::BusyWithClient);
        }
        counts.all += 1;
        counts.by_client.insert(client, of_client + 1);
        Ok(Place { places: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(left) = counts.by_client.get_mut(&self.client) {
            *left -= 1;
            if *left == 0 {
                counts.by_client.remove(&self.client);
            }
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
        let first = places.take(one, 3, 2).unwrap();
        let _second = places.take(one, 3, 2).unwrap();
        assert_eq!(places.take(one, 3, 2).unwrap_err(), Trouble::BusyWithClient);
        let third = places.take(other, 3, 2).unwrap();
        assert_eq!(places.take(other, 3, 2).unwrap_err(), Trouble::Busy);
        drop((first, third));
        assert!(places.take(one, 3, 2).is_ok());
        assert_eq!(places.0.lock().unwrap().by_client.len(), 1, "who does not wait is forgotten");
    }
}
