//! What applications report of themselves, on its way from HTTP to the ttl checks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::name::{Label, ServiceKey};

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

#[cfg(test)]
mod tests {
    use super::*;

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
