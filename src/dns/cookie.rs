//! DNS cookies (RFC 7873): what a client gets to show the next time, so that it is known to have its address.
//!
//! Nobody is refused for the want of one; the point is that clients can tell our answers from forged ones, whose writer does not
//! see the client's half. The server's half has the form of RFC 9018 section 4: version, three reserved octets, the time in
//! seconds, and a keyed hash. That hash is the standard library's, keyed anew by each process: no other server has to
//! understand it.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// The option's code (RFC 7873 section 4).
pub(super) const OPTION_COOKIE: u16 = 10;
/// Octets of the client's half.
const CLIENT_OCTETS: usize = 8;
/// Octets of the server's half that clients may bring along.
const SERVER_OCTETS: std::ops::RangeInclusive<usize> = 8..=32;

/// Makes the server's halves.
#[derive(Clone, Debug, Default)]
pub(super) struct CookieJar {
    key: RandomState,
}

/// The client's half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientCookie([u8; CLIENT_OCTETS]);

impl ClientCookie {
    /// Reads the option as a client sends it; `None` when it has a length that no cookie has, which is a format error (RFC 7873
    /// section 5.2.2).
    pub(super) fn read(option: &[u8]) -> Option<Self> {
        let (client, server) = option.split_first_chunk()?;
        (server.is_empty() || SERVER_OCTETS.contains(&server.len())).then_some(Self(*client))
    }
}

impl CookieJar {
    /// The option of the answer: both halves. `unix_s` is the time, in seconds since 1970.
    pub(super) fn answer(&self, cookie: ClientCookie, client: IpAddr, unix_s: u32) -> Vec<u8> {
        let hash = self.key.hash_one((cookie.0, client, unix_s));
        let mut option = cookie.0.to_vec();
        option.extend_from_slice(&[1, 0, 0, 0]);
        option.extend_from_slice(&unix_s.to_be_bytes());
        option.extend_from_slice(&hash.to_be_bytes());
        option
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_8_octets_or_16_to_40() {
        for length in 0..60 {
            let is_one = length == 8 || (16..=40).contains(&length);
            assert_eq!(ClientCookie::read(&vec![7; length]).is_some(), is_one, "{length}");
        }
    }

    #[test]
    fn the_answer_has_the_clients_half_and_one_that_depends_on_client_time_and_key() {
        let jar = CookieJar::default();
        let (one, other) = (ClientCookie([1; 8]), ClientCookie([2; 8]));
        let [home, away] = ["127.0.0.1", "127.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let answer = jar.answer(one, home, 5);
        assert_eq!(
            (answer.len(), &answer[..8], &answer[8..16]),
            (24, &[1; 8][..], &[1, 0, 0, 0, 0, 0, 0, 5][..])
        );
        assert_eq!(jar.answer(one, home, 5), answer);
        let others = [
            jar.answer(other, home, 5),
            jar.answer(one, away, 5),
            jar.answer(one, home, 6),
            CookieJar::default().answer(one, home, 5),
        ];
        assert!(others.iter().all(|it| it[16..] != answer[16..]));
        assert_eq!(ClientCookie::read(&answer), Some(one), "what a client brings along the next time");
    }
}
