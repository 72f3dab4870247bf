//! How busy an application says it is, and how much of its weight that leaves it. Pure.
//!
//! ```text
//! answer of a check ──► share of the weight ──► damped ──► told in steps ──► the record's weight
//! ```
//!
//! A change of weight is a txn and an event for every sidecar, and callers move to who is idle all at once. So what is told follows
//! slowly, with a half-life of [`HALF_LIFE`], in steps of [`STEP_PERCENT`] at least, and no sooner than [`TELL_GAP`] after the last.

use std::time::{Duration, Instant};

/// The time in which half of a change is followed.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// The least that is told, in percent of the weight.
const STEP_PERCENT: u8 = 10;
/// The least time between two that are told.
const TELL_GAP: Duration = Duration::from_secs(5);
/// The longest answer of an agent that is looked at.
pub(super) const AGENT_BYTES_MAX: usize = 1_024;

/// What a check that passed says beside that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pass {
    /// How much of its weight the application can take, 0 to 1; `None` when it does not say.
    pub(super) share: Option<f64>,
}

/// The share that a header's load leaves: `0.75` and `75%` leave a quarter. `None` for what is no load.
pub(super) fn share_of_load(text: &str) -> Option<f64> {
    let text = text.trim();
    let load = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().ok()? / 100.0,
        None => text.parse::<f64>().ok()?,
    };
    (load >= 0.0).then(|| 1.0 - load.min(1.0))
}

/// What an agent says, in the words of HAProxy's `agent-check`: how much of the weight is to be used, or that the server is not to be.
///
/// # Errors
///
/// When it says so, or nothing that is known: with its own words.
pub(super) fn agent_answer(text: &str) -> Result<Pass, String> {
    let said = text.lines().next().unwrap_or_default();
    let words = said.split('#').next().unwrap_or_default();
    let mut pass = None;
    for word in words.split([' ', '\t', ',', '\r']).filter(|word| !word.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "up" | "ready" => drop(pass.get_or_insert(Pass::default())),
            "down" | "failed" | "stopped" | "drain" | "maint" => return Err(said.trim().to_owned()),
            word => {
                let percent = word.strip_suffix('%').and_then(|percent| percent.parse::<u32>().ok());
                if let Some(percent) = percent {
                    pass = Some(Pass { share: Some(f64::from(percent.min(100)) / 100.0) });
                }
            }
        }
    }
    pass.ok_or_else(|| said.trim().to_owned())
}

/// Follows what one check says.
#[derive(Clone, Debug, Default)]
pub(super) struct Damping {
    damped: Option<(f64, Instant)>,
    told: Option<(u8, Instant)>,
}

impl Damping {
    /// Takes the outcome of a check that passed; who does not say has all its weight. Returns what is to be told, in percent.
    pub(super) fn on_pass(&mut self, pass: Pass, now: Instant) -> u8 {
        let share = pass.share.unwrap_or(1.0);
        let damped = match self.damped {
            // Nothing is known of before: there is nothing to follow from.
            None => share,
            Some((before, at)) => {
                let half_lives = now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64();
                share + (before - share) * 0.5_f64.powf(half_lives)
            }
        };
        self.damped = Some((damped, now));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        let percent = (damped * 100.0).round() as u8;
        let told = match self.told {
            Some((told, at)) if !is_worth_telling(told, percent, now.saturating_duration_since(at)) => {
                (told, at)
            }
            Some(_) | None => (percent, now),
        };
        self.told = Some(told);
        told.0
    }
}

/// Whole and nothing are told although they are a small step, so that nobody stays close to them for ever.
fn is_worth_telling(told: u8, percent: u8, since: Duration) -> bool {
    let is_step = told.abs_diff(percent) >= STEP_PERCENT || (told != percent && matches!(percent, 0 | 100));
    is_step && since >= TELL_GAP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_load_leaves_the_rest() {
        for (text, share) in
            [("0", 1.0), ("0.75", 0.25), (" 75% ", 0.25), ("1.0", 0.0), ("250%", 0.0), ("3.5", 0.0)]
        {
            assert_eq!(share_of_load(text), Some(share), "{text}");
        }
        for bad in ["", "high", "-1", "NaN", "%", "-5%"] {
            assert_eq!(share_of_load(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_agent_speaks_as_to_haproxy() {
        let share = |text| agent_answer(text).map(|pass| pass.share);
        assert_eq!(share("75%\n"), Ok(Some(0.75)));
        assert_eq!(share("up 30% maxconn:10\r\n"), Ok(Some(0.3)));
        assert_eq!(share("ready"), Ok(None));
        assert_eq!(share("UP,140%"), Ok(Some(1.0)));
        for down in ["down", "50% drain\n", "maint # disk", "stopped", "failed 10%"] {
            assert!(share(down).is_err(), "{down}");
        }
        assert_eq!(share("down # no disk\nup"), Err("down # no disk".to_owned()));
        for nothing in ["", "\n", "hello", "# up", "x%"] {
            assert!(share(nothing).is_err(), "{nothing}");
        }
    }

    #[test]
    fn what_is_told_follows_slowly_and_in_steps() {
        let (start, second) = (clock::now(), Duration::from_secs(1));
        let mut damping = Damping::default();
        assert_eq!(damping.on_pass(Pass::default(), start), 100);
        let told: Vec<_> =
            (1..=40).map(|at| damping.on_pass(Pass { share: Some(0.0) }, start + second * at)).collect();
        // After 5 s 2^-0.5 are left, after 10 s a half.
        assert_eq!((told[3], told[4], told[8], told[9]), (100, 71, 71, 50));
        assert!(told.windows(2).all(|two| two[1] <= two[0]));
        let mut changes = told.clone();
        changes.dedup();
        assert!(changes.len() <= 7, "{changes:?}");
        let mut last = *told.last().unwrap();
        for at in 41..200 {
            last = damping.on_pass(Pass::default(), start + second * at);
        }
        assert_eq!(last, 100, "all the way back");
    }

    #[test]
    fn who_begins_busy_is_busy_at_once() {
        assert_eq!(Damping::default().on_pass(Pass { share: Some(0.25) }, clock::now()), 25);
    }

    #[test]
    fn a_load_that_wavers_is_told_once() {
        let start = clock::now();
        let mut damping = Damping::default();
        let told: Vec<_> = (0..600_u32)
            .map(|at| {
                let share = if at % 2 == 0 { 0.4 } else { 0.6 };
                damping.on_pass(Pass { share: Some(share) }, start + Duration::from_secs(1) * at)
            })
            .collect();
        assert_eq!(told[0], 40);
        let mut changes = told;
        changes.dedup();
        assert!(changes.len() <= 2, "{changes:?}");
    }
}
