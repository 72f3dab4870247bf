//! Whom to ask: addresses as people write them, and how each has done lately. Pure but for the locks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::line::Line;
use crate::tls::is_server_name;

/// Where a resolver is, and how it is spoken to: `ip`, `ip:port`, or `tls://ip[:port]#name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamAddress {
    /// Where.
    pub addr: SocketAddr,
    /// For DNS over TLS (RFC 7858) what its certificate must be for; without it UDP and TCP.
    pub tls_name: Option<String>,
}

/// Why a text is no upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamAddressError {
    /// No address.
    #[error("{0:?} is not the address of a resolver: write an IP address, with a port if it is not 53")]
    Address(String),
    /// TLS with whom?
    #[error("{0:?} does not say whom the certificate must be for: write tls://IP#NAME")]
    Name(String),
}

impl FromStr for UpstreamAddress {
    type Err = UpstreamAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = |place: &str, port| {
            let bare = place.strip_prefix('[').and_then(|place| place.strip_suffix(']')).unwrap_or(place);
            let alone = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
            let addr = place.parse::<SocketAddr>().or(alone).ok();
            addr.filter(|addr| !addr.ip().is_multicast() && !addr.ip().is_unspecified() && addr.port() != 0)
                .ok_or_else(|| UpstreamAddressError::Address(text.to_owned()))
        };
        let Some(rest) = text.strip_prefix("tls://") else {
            return Ok(Self { addr: at(text, PORT)?, tls_name: None });
        };
        let (place, name) = rest.split_once('#').unwrap_or((rest, ""));
        let addr = at(place, TLS_PORT)?;
        if !is_server_name(name) {
            return Err(UpstreamAddressError::Name(text.to_owned()));
        }
        Ok(Self { addr, tls_name: Some(name.to_owned()) })
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tls_name {
            None => self.addr.fmt(f),
            Some(name) => write!(f, "tls://{}#{name}", self.addr),
        }
    }
}

/// One resolver.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: UpstreamAddress,
    /// How it is spoken to over TLS, and over nothing else then.
    pub(super) line: Option<Line>,
    health: Mutex<Health>,
}

/// How a resolver has done lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    failures: u32,
    set_back: Option<SetBack>,
    habit: Habit,
    /// When that was learnt.
    learnt: Option<Instant>,
}

/// That it is asked last for now.
#[derive(Clone, Copy, Debug)]
struct SetBack {
    /// When somebody should see if it is back.
    retry_at: Instant,
    /// How long it was left alone before that.
    wait: Duration,
    /// Whether somebody is seeing.
    is_probed: bool,
}

/// What an upstream does with the letters of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Habit {
    /// Not known yet.
    #[default]
    Unknown,
    /// It repeats them, as RFC 1035 section 4.1.1 has it by saying that the question is copied.
    Repeats,
    /// It does not: they prove nothing there.
    Changes,
}

impl Upstream {
    pub(super) fn new(address: UpstreamAddress, line: Option<Line>) -> Self {
        Self { address, line, health: Mutex::default() }
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// It has answered.
    pub(super) fn succeed(&mut self) {
        (self.failures, self.set_back) = (0, None);
    }

    /// It has not answered in time, or could not be sent anything. Says whether it is set back by that.
    ///
    /// While it is set back only the failure of a probe counts: a burst of questions that meet the same outage is one.
    pub(super) fn fail(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        match &mut self.set_back {
            None if self.failures >= FAILURES_MAX => {
                let retry_at = now + BACKOFF_MIN;
                self.set_back = Some(SetBack { retry_at, wait: BACKOFF_MIN, is_probed: false });
                true
            }
            Some(set_back) if set_back.is_probed => {
                let wait = (set_back.wait * 2).min(BACKOFF_MAX);
                *set_back = SetBack { retry_at: now + wait, wait, is_probed: false };
                false
            }
            None | Some(_) => false,
        }
    }

    pub(super) const fn is_set_back(&self) -> bool {
        self.set_back.is_some()
    }

    /// Whether somebody should see if it is back. Whoever is told so does it, and nobody else until that has come to something, or is lost.
    pub(super) fn claim_probe(&mut self, now: Instant) -> bool {
        match &mut self.set_back {
            Some(set_back) if set_back.retry_at <= now => {
                *set_back = SetBack { retry_at: now + BACKOFF_MAX, is_probed: true, ..*set_back };
                true
            }
            None | Some(_) => false,
        }
    }

    /// What it does with letters, as far as that is known. That it changes them is believed for [`CHANGES_MAX`]: it may have been a forger,
    /// or another behind the same address, and whoever is not asked in random letters never shows it.
    pub(super) fn habit(&self, now: Instant) -> Habit {
        match (self.habit, self.learnt) {
            (Habit::Changes, Some(learnt)) if now.saturating_duration_since(learnt) >= CHANGES_MAX => {
                Habit::Unknown
            }
            (habit, _) => habit,
        }
    }

    pub(super) fn learn(&mut self, habit: Habit, now: Instant) {
        (self.habit, self.learnt) = (habit, Some(now));
    }
}

/// The order in which upstreams are asked, by their places: those that are well from `first` on, then those that are set
/// back, in their own order. With all of them set back all are asked.
pub(super) fn order(upstreams: &[Health], first: usize) -> Vec<usize> {
    let count = upstreams.len();
    let mut places: Vec<usize> = (0..count).map(|place| (first + place) % count).collect();
    places.sort_by_key(|place| upstreams[*place].is_set_back());
    places
}

/// RFC 1035 section 4.2.
pub(super) const PORT: u16 = 53;
/// RFC 7858 section 3.1.
const TLS_PORT: u16 = 853;
/// Failures in a row that set an upstream back.
const FAILURES_MAX: u32 = 3;
/// How long an upstream that was set back is left alone at first.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// That time doubles with each probe that fails, up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(32);
/// How long a resolver that does not repeat letters is asked in lower case alone. To find out again takes one question over TCP.
const CHANGES_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<UpstreamAddress>().map(|address| address.to_string());
        assert_eq!(read("10.0.0.53").unwrap(), "10.0.0.53:53");
        assert_eq!(read("10.0.0.53:5353").unwrap(), "10.0.0.53:5353");
        assert_eq!(read("fd00::53").unwrap(), "[fd00::53]:53");
        assert_eq!(read("[fd00::53]").unwrap(), "[fd00::53]:53");
        assert_eq!(read("[fd00::53]:5353").unwrap(), "[fd00::53]:5353");
        assert_eq!(read("tls://192.0.2.1#dns.example").unwrap(), "tls://192.0.2.1:853#dns.example");
        assert_eq!(read("tls://[2001:db8::1]:8853#192.0.2.1").unwrap(), "tls://[2001:db8::1]:8853#192.0.2.1");
        for bad in ["", "dns.example", "10.0.0.53:0", "10.0.0.53:x", "0.0.0.0", "224.0.0.1", "udp://10.0.0.1"]
        {
            assert!(matches!(read(bad), Err(UpstreamAddressError::Address(_))), "{bad}");
        }
        for bad in ["tls://192.0.2.1", "tls://192.0.2.1#", "tls://192.0.2.1#a b"] {
            assert!(matches!(read(bad), Err(UpstreamAddressError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn failures_in_a_row_set_back_and_an_answer_brings_back() {
        let (mut health, now) = (Health::default(), clock::now());
        assert_eq!([health.fail(now), health.fail(now), health.fail(now)], [false, false, true]);
        assert!(health.is_set_back());
        health.succeed();
        assert!(!health.is_set_back());
        assert!(!health.fail(now), "it begins from the start");
    }

    #[test]
    fn one_that_is_set_back_is_tried_by_one_at_a_time_and_ever_more_rarely() {
        let (mut health, mut now) = (Health::default(), clock::now());
        for _ in 0..FAILURES_MAX {
            health.fail(now);
        }
        let mut waits = Vec::new();
        for _ in 0..8 {
            let begin = now;
            while !health.claim_probe(now) {
                now += Duration::from_millis(500);
            }
            assert!(!health.claim_probe(now), "one at a time");
            waits.push((now - begin).as_secs());
            health.fail(now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
    }

    #[test]
    fn a_burst_of_failures_is_one_outage() {
        let (mut health, now) = (Health::default(), clock::now());
        let set_back: Vec<_> = (0..40).map(|_| health.fail(now)).collect();
        assert_eq!(set_back.iter().filter(|is_new| **is_new).count(), 1);
        assert!(
            health.claim_probe(now + BACKOFF_MIN),
            "it is not left alone for longer because many asked it"
        );
    }

    #[test]
    fn that_letters_are_changed_is_looked_at_again() {
        let (mut health, now) = (Health::default(), clock::now());
        assert_eq!(health.habit(now), Habit::Unknown);
        health.learn(Habit::Changes, now);
        assert_eq!(health.habit(now + CHANGES_MAX - Duration::from_secs(1)), Habit::Changes);
        assert_eq!(health.habit(now + CHANGES_MAX), Habit::Unknown);
        health.learn(Habit::Repeats, now);
        assert_eq!(health.habit(now + 2 * CHANGES_MAX), Habit::Repeats);
    }

    #[test]
    fn those_that_are_well_are_asked_first_and_all_when_none_is() {
        let now = clock::now();
        let mut bad = Health::default();
        for _ in 0..FAILURES_MAX {
            bad.fail(now);
        }
        let good = Health::default();
        assert_eq!(order(&[good, good, good], 0), [0, 1, 2]);
        assert_eq!(order(&[good, good, good], 2), [2, 0, 1]);
        assert_eq!(order(&[bad, good, good], 0), [1, 2, 0]);
        assert_eq!(order(&[bad, bad], 1), [1, 0]);
        assert!(order(&[], 0).is_empty());
    }
}
