//! Where all checks stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::failure::CheckFailure;
use super::health::{Health, HealthState};

/// Where several checks are published together.
#[derive(Clone, Debug, Default)]
pub struct HealthBoard {
    standings: Arc<watch::Sender<Standings>>,
    slots: Arc<AtomicU64>,
}

/// Where each check stands.
pub type Standings = BTreeMap<CheckSlot, CheckStanding>;

/// The place of one check on its board. No other check ever gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckSlot(u64);

/// Where one check stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckStanding {
    /// What its results amount to.
    pub state: HealthState,
    /// Since when they do, in ms since 1970.
    pub changed_at_ms: i64,
    /// Passes in a row up to now.
    pub passes: u32,
    /// Failures in a row up to now.
    pub failures: u32,
    /// How much of the weight the application can take, in percent, as far as this check tells.
    pub share_percent: u8,
    /// The last time that it failed or could not be made.
    pub last_failure: Option<LastFailure>,
}

/// How a check failed the last time that it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// Why, on one line of at most [`LastFailure::BYTES_MAX`] bytes. What a check sends, headers above all, is not in it.
    pub text: String,
    /// When, in ms since 1970.
    pub at_ms: i64,
}

impl HealthBoard {
    /// A place for one more check, which has no result yet.
    pub fn add(&self) -> CheckSlot {
        let standing = CheckStanding {
            state: HealthState::Initial,
            changed_at_ms: crate::clock::unix_ms(),
            passes: 0,
            failures: 0,
            share_percent: 100,
            last_failure: None,
        };
        let slot = CheckSlot(self.slots.fetch_add(1, Ordering::Relaxed));
        self.standings.send_modify(|standings| drop(standings.insert(slot, standing)));
        slot
    }

    /// Forgets a check; what it still has to say is not heard.
    pub fn remove(&self, slot: CheckSlot) {
        self.standings.send_modify(|standings| drop(standings.remove(&slot)));
    }

    /// The standings now and from now on. Only changes of state and share, and of the checks themselves, wake who waits.
    pub fn subscribe(&self) -> watch::Receiver<Standings> {
        self.standings.subscribe()
    }

    /// The standings now.
    pub fn standings(&self) -> Standings {
        self.standings.borrow().clone()
    }

    /// What the results of a check amount to; nothing, when it is forgotten.
    pub fn state(&self, slot: CheckSlot) -> HealthState {
        self.standings.borrow().get(&slot).map_or(HealthState::Initial, |standing| standing.state)
    }

    /// Notes where a check stands after a result, and the `failure` if it was one.
    pub(super) fn on_result(
        &self,
        slot: CheckSlot,
        health: &Health,
        failure: Option<&CheckFailure>,
        now_ms: i64,
    ) {
        let last_failure = failure.map(|failure| LastFailure::new(&failure.to_string(), now_ms));
        self.standings.send_if_modified(|standings| {
            let Some(standing) = standings.get_mut(&slot) else { return false };
            (standing.passes, standing.failures) = health.in_a_row();
            if last_failure.is_some() {
                standing.last_failure = last_failure;
            }
            let has_changed = standing.state != health.state();
            if has_changed {
                (standing.state, standing.changed_at_ms) = (health.state(), now_ms);
            }
            has_changed
        });
    }

    /// Notes how much of the weight the application can take.
    pub(super) fn on_share(&self, slot: CheckSlot, share_percent: u8) {
        self.standings.send_if_modified(|standings| {
            let Some(standing) = standings.get_mut(&slot) else { return false };
            std::mem::replace(&mut standing.share_percent, share_percent) != share_percent
        });
    }

    /// Resolves when nobody reads it any more.
    pub(super) async fn closed(&self) {
        self.standings.closed().await;
    }
}

impl LastFailure {
    /// Bytes of a text that are kept: a few lines of a terminal.
    pub const BYTES_MAX: usize = 512;

    fn new(text: &str, at_ms: i64) -> Self {
        let printable = |character: char| if character.is_control() { ' ' } else { character };
        let text: String = text.chars().map(printable).collect();
        let mut end = text.len().min(Self::BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self { text: text[..end].to_owned(), at_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_noted_and_only_changes_wake() {
        let board = HealthBoard::default();
        let (other, slot) = (board.add(), board.add());
        let mut reader = board.subscribe();
        let mut health = Health::new(2, 2);
        let failure = CheckFailure::Timeout { timeout: std::time::Duration::from_millis(5) };
        let mut note = |passed, now_ms| {
            health.on_result(passed);
            board.on_result(slot, &health, (!passed).then_some(&failure), now_ms);
            let has_changed = reader.has_changed().unwrap();
            let standing = reader.borrow_and_update()[&slot].clone();
            (has_changed, standing.state, standing.passes, standing.failures, standing.changed_at_ms)
        };
        let begun = board.standings()[&slot].changed_at_ms;
        assert_eq!(note(true, 1), (false, HealthState::Initial, 1, 0, begun));
        assert_eq!(note(true, 2), (true, HealthState::Passing, 2, 0, 2));
        assert_eq!(note(false, 3), (false, HealthState::Passing, 0, 1, 2));
        assert_eq!(note(false, 4), (true, HealthState::Failing, 0, 2, 4));
        assert_eq!(note(true, 5), (false, HealthState::Failing, 1, 0, 4));
        let last = LastFailure { text: "no answer within 5 ms".to_owned(), at_ms: 4 };
        assert_eq!(board.standings()[&slot].last_failure, Some(last), "a pass does not wipe it out");
        assert_eq!(board.standings()[&other].last_failure, None);
    }

    #[test]
    fn a_check_that_is_forgotten_says_nothing_and_nobody_gets_its_place() {
        let board = HealthBoard::default();
        let (gone, stays) = (board.add(), board.add());
        board.remove(gone);
        board.on_share(gone, 5);
        board.on_result(gone, &Health::new(1, 1), None, 1);
        assert_eq!(board.standings().into_keys().collect::<Vec<_>>(), [stays]);
        assert_eq!(board.state(gone), HealthState::Initial);
        assert!(![gone, stays].contains(&board.add()));
    }

    #[test]
    fn a_failure_is_told_on_one_line_of_bounded_length() {
        let told = LastFailure::new(&format!("a\n{}", "ü".repeat(LastFailure::BYTES_MAX)), 1).text;
        assert!(told.starts_with("a ü") && told.len() == LastFailure::BYTES_MAX, "{told}");
    }
}
