//! ttl checks: nobody is asked, the application reports.
//!
//! ```text
//! application ──► TtlReports ──► runner ──► TtlClock (pure) ──► Health
//! ```
//!
//! A report counts at once; silence for the ttl counts as one failure, and each further ttl of it as another. Of reports
//! that come faster than they are looked at, the last counts.

use std::time::{Duration, Instant};

use crate::config::duration;
use crate::registry::report::{TtlReport, Verdict};

/// Why an application does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TtlFailure {
    /// It said so.
    #[error("the application reported a failure{}", note_text(.note))]
    Reported {
        /// Why.
        note: String,
    },
    /// It said nothing.
    #[error("the application reported nothing for {}", duration::text(*.ttl))]
    Silent {
        /// For how long at least.
        ttl: Duration,
    },
}

/// When the reports to one check are failures, and when silence is. Pure.
#[derive(Clone, Debug)]
pub(super) struct TtlClock {
    ttl: Duration,
    due: Instant,
}

impl TtlClock {
    /// Silence counts from `start`.
    pub(super) fn new(ttl: Duration, start: Instant) -> Self {
        Self { ttl, due: start + ttl }
    }

    /// Until when there is to be a report.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Takes a report, which is the result of one check.
    ///
    /// # Errors
    ///
    /// When it says so.
    pub(super) fn on_report(&mut self, report: &TtlReport) -> Result<(), TtlFailure> {
        self.due = self.due.max(report.at + self.ttl);
        match report.verdict {
            Verdict::Pass => Ok(()),
            Verdict::Fail => Err(TtlFailure::Reported { note: report.note.clone() }),
        }
    }

    /// Looks whether the silence has lasted for the ttl, which is the result of one check.
    ///
    /// # Errors
    ///
    /// When it has.
    pub(super) fn on_time(&mut self, now: Instant) -> Result<(), TtlFailure> {
        if now < self.due {
            return Ok(());
        }
        self.due = now + self.ttl;
        Err(TtlFailure::Silent { ttl: self.ttl })
    }
}

fn note_text(note: &str) -> String {
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    let note: String = note.trim().chars().map(printable).collect();
    if note.is_empty() { note } else { format!(": {note}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_virtual_time_silence_for_the_ttl_is_a_failure_and_again_after_each_further_one() {
        let start = crate::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let report = |verdict, seconds| TtlReport { verdict, note: "why".to_owned(), at: at(seconds) };
        let ttl = Duration::from_secs(10);
        let silent = Err(TtlFailure::Silent { ttl });
        let mut clock = TtlClock::new(ttl, start);
        assert_eq!((clock.due(), clock.on_time(at(9))), (at(10), Ok(())));
        assert_eq!(clock.on_report(&report(Verdict::Pass, 9)), Ok(()));
        assert_eq!((clock.due(), clock.on_time(at(18))), (at(19), Ok(())));
        assert_eq!(clock.on_time(at(19)), silent);
        assert_eq!((clock.due(), clock.on_time(at(28))), (at(29), Ok(())));
        assert_eq!(clock.on_time(at(29)), silent);
        let failed = TtlFailure::Reported { note: "why".to_owned() };
        assert_eq!(clock.on_report(&report(Verdict::Fail, 30)), Err(failed));
        assert_eq!(clock.on_report(&report(Verdict::Pass, 31)), Ok(()));
        // A suspended process: what was missed is one failure, not many.
        assert_eq!(clock.on_time(at(1_000)), silent);
        assert_eq!(clock.due(), at(1_010));
    }

    #[test]
    fn a_note_is_one_line_of_a_log() {
        let failure = TtlFailure::Reported { note: "disk\nfull ".to_owned() };
        assert_eq!(failure.to_string(), "the application reported a failure: disk full");
    }
}
