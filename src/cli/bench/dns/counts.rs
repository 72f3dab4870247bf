//! What is counted of queries while they are measured, and the figures that come of it.
//!
//! Every query that is asked within the measurement is answered or lost in the end, also after it: `answered + lost = asked`,
//! and the response codes sum up to `answered`.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::super::latencies::{Latencies, Latency};
use super::super::tally::as_f64;

/// Counts of one measurement.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) asked: u64,
    pub(super) lost: u64,
    /// Queries that were due, and waited at the end still for another's end.
    pub(super) unsent: u64,
    /// Answers that came after their query was lost.
    pub(super) late: u64,
    /// Packets that are no answer to what was asked: no response, an unknown id, another question.
    pub(super) mismatched: u64,
    truncated: u64,
    codes: [u64; CODES.len()],
    latencies: Latencies,
    errors: BTreeMap<io::ErrorKind, u64>,
}

/// The figures of one measurement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DnsFigures {
    pub(super) elapsed: Duration,
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) lost: u64,
    pub(super) unsent: u64,
    pub(super) late: u64,
    pub(super) mismatched: u64,
    pub(super) truncated: u64,
    /// Answers by response code, of those that came.
    pub(super) codes: BTreeMap<&'static str, u64>,
    /// `None` when nothing was answered.
    pub(super) latency: Option<Latency>,
    /// Errors of the sockets by what they say.
    pub(super) socket_errors: BTreeMap<String, u64>,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            asked: 0,
            lost: 0,
            unsent: 0,
            late: 0,
            mismatched: 0,
            truncated: 0,
            codes: [0; CODES.len()],
            latencies: Latencies::new(),
            errors: BTreeMap::new(),
        }
    }

    /// A query was answered with this code, the low four bits of which are in the header.
    pub(super) fn answer(&mut self, code: u8, is_truncated: bool, latency: Duration) {
        self.codes[usize::from(code & 0x0f)] += 1;
        self.truncated += u64::from(is_truncated);
        self.latencies.record(latency);
    }

    pub(super) fn error(&mut self, error: &io::Error) {
        *self.errors.entry(error.kind()).or_default() += 1;
    }

    pub(super) fn figures(&self, elapsed: Duration) -> DnsFigures {
        let codes = CODES.into_iter().zip(self.codes).filter(|(_, count)| *count > 0).collect();
        DnsFigures {
            elapsed,
            asked: self.asked,
            answered: self.latencies.count(),
            lost: self.lost,
            unsent: self.unsent,
            late: self.late,
            mismatched: self.mismatched,
            truncated: self.truncated,
            codes,
            latency: self.latencies.summary(),
            socket_errors: self.errors.iter().map(|(kind, count)| (kind.to_string(), *count)).collect(),
        }
    }
}

impl DnsFigures {
    /// Queries answered per second.
    pub(super) fn queries_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { as_f64(self.answered) / seconds } else { 0.0 }
    }
}

/// Response codes of the header by their number (IANA, DNS RCODEs; RFC 6895).
const CODES: [&str; 16] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "DSOTYPENI",
    "RCODE12",
    "RCODE13",
    "RCODE14",
    "RCODE15",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_sum_up_to_the_answers() {
        let mut counts = Counts::new();
        for code in [0, 0, 3, 15] {
            counts.answer(code, code == 3, Duration::from_millis(1));
        }
        let figures = counts.figures(Duration::from_secs(2));
        assert_eq!(figures.codes, BTreeMap::from([("NOERROR", 2), ("NXDOMAIN", 1), ("RCODE15", 1)]));
        assert_eq!((figures.answered, figures.truncated), (4, 1));
        assert!((figures.queries_per_second() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn of_nothing_there_are_zeros() {
        let figures = Counts::new().figures(Duration::ZERO);
        assert_eq!((figures.answered, figures.latency, figures.codes.len()), (0, None, 0));
        assert!(figures.queries_per_second().abs() < f64::EPSILON);
    }
}
