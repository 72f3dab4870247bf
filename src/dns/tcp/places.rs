//! Who of those that connect is served, and who makes room. Pure, but for a lock that is held for a look.
//!
//! - A client, which is an address or an IPv6 network of 64 bits (RFC 7766 section 6.2.2: who has one has all of its addresses), has at most
//!   so many places, and all together at most so many.
//! - Who comes while there is none takes one of his own, if he has his share, else one of whoever has the most, at least one more than
//!   himself: nobody is kept out by others who have more.
//! - Of a client's places that goes first whose connection has owed us something for [`PATIENCE_MS`] (a first query, the rest of one, taking
//!   answers), then the one that was idle longest (section 6.2.3), then what has owed us something for a shorter time. Whoever waits for our answer
//!   stays. Whoever has lost his place connects again and is served (section 6.2.4).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// In all.
    pub(super) all: usize,
    /// For each client.
    pub(super) of_client: usize,
}

/// Which bound keeps somebody out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// That of all.
    All,
    /// That of the client.
    OfClient,
}

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    limits: Limits,
    /// From when times are counted.
    begin: Instant,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Of clients who have any.
    by_client: BTreeMap<Client, Vec<Arc<Seat>>>,
}

/// One that is taken, as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: Client,
    seat: Arc<Seat>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits for us.
    Served,
    /// It has its answers, and asks nothing.
    Idle,
    /// We wait for what it has begun.
    Owing,
}

/// The addresses that are one client's: the one, or the first of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Client(IpAddr);

#[derive(Debug)]
struct Seat {
    /// [`Standing`] in the lowest bits; above them since when, in milliseconds.
    standing: AtomicU64,
    leave: CancellationToken,
}

impl Client {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl Places {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, begin: now, taken: Mutex::default() }
    }

    /// Takes a place for whoever connects from `address`, whose first query is owed.
    ///
    /// # Errors
    ///
    /// When there is none, and nobody who could make room.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Place, Refusal> {
        let client = Client::of(address);
        let now_ms = self.ms(now);
        let mut taken = self.taken();
        let own = taken.by_client.get(&client).map_or(0, Vec::len);
        let leaving = if own >= self.limits.of_client {
            Some(taken.least_of(client, now_ms).ok_or(Refusal::OfClient)?)
        } else if taken.count >= self.limits.all {
            Some(taken.least_beside(client, own, now_ms).ok_or(Refusal::All)?)
        } else {
            None
        };
        if let Some((client, seat)) = leaving {
            taken.remove(client, &seat);
            seat.leave.cancel();
        }
        let seat = Arc::new(Seat {
            standing: AtomicU64::new(coded(Standing::Owing, now_ms)),
            leave: CancellationToken::new(),
        });
        taken.count += 1;
        taken.by_client.entry(client).or_default().push(Arc::clone(&seat));
        drop(taken);
        Ok(Place { places: Arc::clone(self), client, seat })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ms(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.begin).as_millis()).unwrap_or(u64::MAX >> 2)
    }
}

impl Taken {
    /// Whose place goes first of this client's.
    fn least_of(&self, client: Client, now_ms: u64) -> Option<(Client, Arc<Seat>)> {
        let seats = self.by_client.get(&client)?;
        let (_, seat) =
            seats.iter().filter_map(|seat| Some((seat.rank(now_ms)?, seat))).min_by_key(|(rank, _)| *rank)?;
        Some((client, Arc::clone(seat)))
    }

    /// Whose place goes first for a client who has `own`.
    fn least_beside(&self, client: Client, own: usize, now_ms: u64) -> Option<(Client, Arc<Seat>)> {
        let mut greedy: Vec<_> = self
            .by_client
            .iter()
            .map(|(other, seats)| (seats.len(), *other))
            .filter(|(count, other)| *count > own || *other == client)
            .collect();
        greedy.sort_unstable_by(|one, other| other.cmp(one));
        // Among those who have as many the one who has waited longest for nothing.
        greedy.chunk_by(|one, other| one.0 == other.0).find_map(|alike| {
            let least = alike.iter().filter_map(|(_, other)| self.least_of(*other, now_ms));
            least.min_by_key(|(_, seat)| seat.rank(now_ms))
        })
    }

    fn remove(&mut self, client: Client, seat: &Arc<Seat>) {
        let Some(seats) = self.by_client.get_mut(&client) else { return };
        let Some(index) = seats.iter().position(|other| Arc::ptr_eq(other, seat)) else { return };
        seats.swap_remove(index);
        self.count -= 1;
        if seats.is_empty() {
            self.by_client.remove(&client);
        }
    }
}

impl Seat {
    /// The lower, the sooner it goes; `None` for one that stays.
    fn rank(&self, now_ms: u64) -> Option<(u8, u64)> {
        let standing = self.standing.load(Ordering::Relaxed);
        let since = standing >> STANDING_BITS;
        match standing & ((1 << STANDING_BITS) - 1) {
            OWING if now_ms.saturating_sub(since) >= PATIENCE_MS => Some((0, since)),
            IDLE => Some((1, since)),
            OWING => Some((2, since)),
            _ => None,
        }
    }
}

impl Place {
    /// What its connection does from `now` on.
    pub(super) fn stand(&self, standing: Standing, now: Instant) {
        self.seat.standing.store(coded(standing, self.places.ms(now)), Ordering::Relaxed);
    }

    /// Cancelled when it has to make room.
    pub(super) fn lost(&self) -> CancellationToken {
        self.seat.leave.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing is left of one that has made room.
        self.places.taken().remove(self.client, &self.seat);
    }
}

const fn coded(standing: Standing, since_ms: u64) -> u64 {
    let code = match standing {
        Standing::Served => SERVED,
        Standing::Idle => IDLE,
        Standing::Owing => OWING,
    };
    since_ms << STANDING_BITS | code
}

const STANDING_BITS: u32 = 2;
const SERVED: u64 = 0;
const IDLE: u64 = 1;
const OWING: u64 = 2;
/// How long it may take until a query that was begun is there, or answers are taken, without any suspicion: more than a round trip.
const PATIENCE_MS: u64 = 250;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn a_client_who_has_his_share_makes_room_himself() {
        let (places, now) = places(10, 2);
        let other = places.take(ip("127.0.0.2"), now).unwrap();
        other.stand(Standing::Idle, now);
        let [first, second] = [0, 1].map(|_| places.take(ip("127.0.0.1"), now).unwrap());
        first.stand(Standing::Idle, now + MS);
        second.stand(Standing::Idle, now);
        let _third = places.take(ip("127.0.0.1"), now + MS).unwrap();
        assert_eq!(
            [&other, &first, &second].map(is_lost),
            [false, false, true],
            "the one that was idle longest"
        );
        first.stand(Standing::Served, now + MS);
        let fourth = places.take(ip("127.0.0.1"), now + MS).unwrap();
        fourth.stand(Standing::Served, now + MS);
        assert_eq!(places.take(ip("127.0.0.1"), now + MS).unwrap_err(), Refusal::OfClient);
        assert!(places.take(ip("127.0.0.3"), now + MS).is_ok());
    }

    #[test]
    fn the_greediest_makes_room_for_those_who_have_less() {
        let (places, now) = places(4, 4);
        let modest = places.take(ip("127.0.0.2"), now).unwrap();
        modest.stand(Standing::Idle, now);
        let greedy: Vec<_> = (0..3).map(|_| places.take(ip("127.0.0.1"), now).unwrap()).collect();
        let later = now + 5 * MS;
        let _new = places.take(ip("127.0.0.3"), later).unwrap();
        assert!(!is_lost(&modest) && greedy.iter().filter(|place| is_lost(place)).count() == 1);
        let _new = places.take(ip("127.0.0.4"), later).unwrap();
        assert!(!is_lost(&modest) && greedy.iter().filter(|place| is_lost(place)).count() == 2);
        // All have one, so that whoever is idle goes before whoever has just begun.
        let _new = places.take(ip("127.0.0.5"), later).unwrap();
        assert!(is_lost(&modest));
    }

    #[test]
    fn who_has_most_takes_nobody_elses() {
        let (places, now) = places(3, 3);
        let modest = places.take(ip("127.0.0.2"), now).unwrap();
        modest.stand(Standing::Idle, now);
        let greedy = [0, 1].map(|_| places.take(ip("127.0.0.1"), now).unwrap());
        greedy.iter().for_each(|place| place.stand(Standing::Served, now));
        assert_eq!(places.take(ip("127.0.0.1"), now).unwrap_err(), Refusal::All);
        assert!(!is_lost(&modest));
        // Nor is he served when all that the others have is in use.
        modest.stand(Standing::Served, now);
        assert_eq!(places.take(ip("127.0.0.3"), now).unwrap_err(), Refusal::All);
    }

    #[test]
    fn what_has_been_owed_long_goes_before_what_is_idle_and_that_before_what_is_owed_shortly() {
        let (places, now) = places(3, 3);
        let [slow, idle, new] = [0, 1, 2].map(|_| places.take(ip("::1"), now).unwrap());
        let later = now + Duration::from_millis(PATIENCE_MS);
        idle.stand(Standing::Idle, now);
        new.stand(Standing::Owing, now + MS);
        let _next = places.take(ip("::1"), later).unwrap();
        assert_eq!([&slow, &idle, &new].map(is_lost), [true, false, false]);
        let _next = places.take(ip("::1"), later).unwrap();
        assert_eq!([&slow, &idle, &new].map(is_lost), [true, true, false]);
        let _next = places.take(ip("::1"), later).unwrap();
        assert_eq!([&slow, &idle, &new].map(is_lost), [true, true, true]);
    }

    #[test]
    fn addresses_of_one_network_are_one_client_and_mapped_ones_are_ipv4() {
        let same = [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:10.0.0.1", "10.0.0.1")];
        for (one, other) in same {
            assert_eq!(Client::of(ip(one)), Client::of(ip(other)));
        }
        let apart = [("2001:db8::1", "2001:db8:0:1::1"), ("10.0.0.1", "10.0.0.2")];
        for (one, other) in apart {
            assert_ne!(Client::of(ip(one)), Client::of(ip(other)));
        }
    }

    #[test]
    fn places_are_given_back() {
        let (places, now) = places(2, 2);
        for _ in 0..10 {
            let [first, second] = [0, 1].map(|_| places.take(ip("127.0.0.1"), now).unwrap());
            let third = places.take(ip("127.0.0.2"), now).unwrap();
            drop((first, second, third));
        }
        let taken = places.taken();
        assert!(taken.count == 0 && taken.by_client.is_empty());
    }

    const MS: Duration = Duration::from_millis(1);

    fn places(all: usize, of_client: usize) -> (Arc<Places>, Instant) {
        let now = clock::now();
        (Arc::new(Places::new(Limits { all, of_client }, now)), now)
    }

    fn is_lost(place: &Place) -> bool {
        place.seat.leave.is_cancelled()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
