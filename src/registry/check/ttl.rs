//! ttl checks: nobody is asked, the application reports.
//!
//! ```text
//! application ──► TtlReports ──► runner ──► TtlClock (pure) ──► Health
//! ```
//!
//! A report counts at once; silence for the ttl counts as one failure, and each further ttl of it as another. Of reports
//! that come faster than they are looked at, the last counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::duration;
use crate::registry::name::{Label, ServiceKey};

/// Which check of which own instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckKey {
    /// The service.
    pub service: ServiceKey,
    /// The instance.
    pub id: Label,
    /// The check's name.
    pub check: Label,
}

/// What an application says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is well.
    Pass,
    /// It is not.
    Fail,
}

/// The last that was heard of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtlReport {
    /// What it said.
    pub verdict: Verdict,
    /// Why; empty when it did not say. At most [`TtlReports::NOTE_BYTES_MAX`] bytes.
    pub note: String,
    /// When.
    pub at: Instant,
}

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

/// There is no such check, or it is none that is reported to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no check {} of kind ttl is run for instance {} of {}", .0.check, .0.id, .0.service)]
pub struct UnknownCheck(pub CheckKey);

/// Where applications report, and ttl checks hear of it. Only checks that are run have a place, so it grows no further than
/// the settings.
#[derive(Clone, Default)]
pub struct TtlReports {
    checks: Arc<Mutex<BTreeMap<CheckKey, watch::Sender<Option<TtlReport>>>>>,
}

/// What one check hears: its last report.
pub type ReportReceiver = watch::Receiver<Option<TtlReport>>;

impl TtlReports {
    /// Bytes of a note that are kept; the rest is dropped.
    pub const NOTE_BYTES_MAX: usize = 1024;

    /// Makes a place for a check that is run until the receiver is dropped. Reports of an earlier run are forgotten.
    pub fn register(&self, key: CheckKey) -> ReportReceiver {
        let (sender, receiver) = watch::channel(None);
        let mut checks = self.lock();
        checks.retain(|_, sender| !sender.is_closed());
        checks.insert(key, sender);
        receiver
    }

    /// Takes a report.
    ///
    /// # Errors
    ///
    /// When no such check is run.
    pub fn report(
        &self,
        key: &CheckKey,
        verdict: Verdict,
        note: &str,
        at: Instant,
    ) -> Result<(), UnknownCheck> {
        let end = (0..=note.len().min(Self::NOTE_BYTES_MAX)).rfind(|end| note.is_char_boundary(*end));
        let note = note[..end.unwrap_or_default()].to_owned();
        let checks = self.lock();
        let sender = checks.get(key).filter(|sender| !sender.is_closed());
        let sender = sender.ok_or_else(|| UnknownCheck(key.clone()))?;
        sender.send_replace(Some(TtlReport { verdict, note, at }));
        Ok(())
    }

    /// The last report to a check that is run; `None` without one.
    pub fn last(&self, key: &CheckKey) -> Option<TtlReport> {
        self.lock().get(key).filter(|sender| !sender.is_closed())?.borrow().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CheckKey, watch::Sender<Option<TtlReport>>>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TtlReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TtlReports").field("checks", &self.lock().keys()).finish()
    }
}

/// When the reports to one check are failures, and when silence is. Pure.
#[derive(Clone, Debug)]
pub struct TtlClock {
    ttl: Duration,
    due: Instant,
}

impl TtlClock {
    /// Silence counts from `start`.
    pub fn new(ttl: Duration, start: Instant) -> Self {
        Self { ttl, due: start + ttl }
    }

    /// Until when there is to be a report.
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// Takes a report, which is the result of one check.
    ///
    /// # Errors
    ///
    /// When it says so.
    pub fn on_report(&mut self, report: &TtlReport) -> Result<(), TtlFailure> {
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
    pub fn on_time(&mut self, now: Instant) -> Result<(), TtlFailure> {
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
    fn reports_reach_the_check_that_they_are_for_and_no_other() {
        let (reports, now) = (TtlReports::default(), crate::clock::now());
        let (a, b) = (sample_key("a"), sample_key("b"));
        assert_eq!(reports.report(&a, Verdict::Pass, "", now), Err(UnknownCheck(a.clone())));
        let (of_a, of_b) = (reports.register(a.clone()), reports.register(b.clone()));
        reports.report(&a, Verdict::Fail, "disk\nfull", now).unwrap();
        let report = TtlReport { verdict: Verdict::Fail, note: "disk\nfull".to_owned(), at: now };
        assert_eq!((of_a.borrow().as_ref(), of_b.borrow().as_ref()), (Some(&report), None));
        assert_eq!(reports.last(&a), Some(report));
        let failure = TtlFailure::Reported { note: "disk\nfull".to_owned() };
        assert_eq!(failure.to_string(), "the application reported a failure: disk full");
    }

    #[test]
    fn a_check_that_is_run_no_more_is_forgotten() {
        let (reports, now) = (TtlReports::default(), crate::clock::now());
        let key = sample_key("a");
        drop(reports.register(key.clone()));
        assert!(reports.report(&key, Verdict::Pass, "", now).is_err());
        assert_eq!(reports.last(&key), None);
        let _other = reports.register(sample_key("b"));
        assert_eq!(reports.lock().len(), 1);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let (reports, key) = (TtlReports::default(), sample_key("a"));
        let _receiver = reports.register(key.clone());
        reports.report(&key, Verdict::Fail, &format!("x{}", "ü".repeat(2_000)), crate::clock::now()).unwrap();
        assert_eq!(reports.last(&key).unwrap().note.len(), TtlReports::NOTE_BYTES_MAX - 1);
    }

    fn sample_key(check: &str) -> CheckKey {
        let label = |text| Label::parse(text).unwrap();
        let service = ServiceKey { namespace: label("default"), name: label("web") };
        CheckKey { service, id: label("web-0"), check: label(check) }
    }
}
