//! What the results of one check amount to: rise and fall.

/// Whether a check passes, as far as its results say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthState {
    /// Too few results yet.
    Initial,
    /// It passed `rise` times in a row, and did not fail `fall` times in a row since.
    Passing,
    /// It failed `fall` times in a row, and did not pass `rise` times in a row since.
    Failing,
}

impl HealthState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Passing => "passing",
            Self::Failing => "failing",
        }
    }
}

/// Counts the results of one check. Pure: results in, changes of state out.
#[derive(Clone, Debug)]
pub struct Health {
    state: HealthState,
    rise: u32,
    fall: u32,
    /// Results in a row that were as the last one.
    streak: u32,
    last_passed: bool,
}

impl Health {
    /// Starts with no result; 0 counts as 1.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self {
            state: HealthState::Initial,
            rise: rise.max(1),
            fall: fall.max(1),
            streak: 0,
            last_passed: false,
        }
    }

    /// Goes on from what other settings of the check came to, and counts anew.
    pub fn resumed(rise: u32, fall: u32, state: HealthState) -> Self {
        Self { state, ..Self::new(rise, fall) }
    }

    /// Takes a result; returns the new state if it changed.
    pub fn on_result(&mut self, passed: bool) -> Option<HealthState> {
        self.streak = if passed == self.last_passed { self.streak.saturating_add(1) } else { 1 };
        self.last_passed = passed;
        let next = match passed {
            true if self.streak >= self.rise => HealthState::Passing,
            false if self.streak >= self.fall => HealthState::Failing,
            true | false => self.state,
        };
        let has_changed = next != self.state;
        self.state = next;
        has_changed.then_some(next)
    }

    /// Passes and failures in a row up to now, of which one is 0.
    pub fn in_a_row(&self) -> (u32, u32) {
        if self.last_passed { (self.streak, 0) } else { (0, self.streak) }
    }

    /// The state now.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// The state of an instance whose critical checks are in these: failing if any fails, passing if all pass.
    pub fn of_all(states: impl IntoIterator<Item = HealthState>) -> HealthState {
        let worst = |worst, state| match (worst, state) {
            (HealthState::Failing, _) | (_, HealthState::Failing) => HealthState::Failing,
            (HealthState::Initial, _) | (_, HealthState::Initial) => HealthState::Initial,
            (HealthState::Passing, HealthState::Passing) => HealthState::Passing,
        };
        states.into_iter().fold(HealthState::Passing, worst)
    }
}

/// What the checks of one instance amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceHealth {
    /// What its critical checks say: whether it is offered.
    pub state: HealthState,
    /// Whether another check fails, so that it is offered less.
    pub is_degraded: bool,
}

impl InstanceHealth {
    /// The health of an instance with these checks, of each its state and whether it is critical. Checks that are not
    /// critical and have too few results yet hold nobody off.
    pub fn of(checks: impl IntoIterator<Item = (HealthState, bool)> + Clone) -> Self {
        let critical = checks.clone().into_iter().filter(|(_, is_critical)| *is_critical);
        let state = Health::of_all(critical.map(|(state, _)| state));
        let is_failing_other =
            |(state, is_critical): (HealthState, bool)| !is_critical && state == HealthState::Failing;
        Self { state, is_degraded: checks.into_iter().any(is_failing_other) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passing_takes_rise_and_failing_takes_fall_in_a_row() {
        let mut health = Health::new(2, 3);
        let results = [
            (true, None),
            (false, None),
            (true, None),
            (true, Some(HealthState::Passing)),
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(HealthState::Failing)),
            (true, None),
            (false, None),
            (true, None),
            (true, Some(HealthState::Passing)),
        ];
        for (step, (passed, change)) in results.into_iter().enumerate() {
            assert_eq!(health.on_result(passed), change, "step {step}");
        }
    }

    #[test]
    fn an_instance_passes_when_all_its_checks_do() {
        use HealthState::{Failing, Initial, Passing};
        for (states, all) in [
            (vec![], Passing),
            (vec![Passing, Passing], Passing),
            (vec![Passing, Initial], Initial),
            (vec![Initial, Failing, Passing], Failing),
        ] {
            assert_eq!(Health::of_all(states.clone()), all, "{states:?}");
        }
    }

    #[test]
    fn a_check_that_is_not_critical_degrades_and_nothing_else() {
        use HealthState::{Failing, Initial, Passing};
        for (checks, state, is_degraded) in [
            (vec![], Passing, false),
            (vec![(Passing, true), (Failing, false)], Passing, true),
            (vec![(Failing, true), (Failing, false)], Failing, true),
            (vec![(Failing, true), (Passing, false)], Failing, false),
            (vec![(Passing, true), (Initial, false)], Passing, false),
            (vec![(Initial, true), (Failing, false)], Initial, true),
            (vec![(Initial, false)], Passing, false),
        ] {
            let health = InstanceHealth { state, is_degraded };
            assert_eq!(InstanceHealth::of(checks.clone()), health, "{checks:?}");
        }
    }

    proptest! {
        #[test]
        fn the_state_is_that_of_the_last_long_enough_run(
            rise in 1_u32..5, fall in 1_u32..5, results in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut health = Health::new(rise, fall);
            for result in &results {
                health.on_result(*result);
            }
            prop_assert_eq!(health.state(), state_by_definition(rise, fall, &results));
        }
    }

    fn state_by_definition(rise: u32, fall: u32, results: &[bool]) -> HealthState {
        let ends_in_run = |end: usize, passed: bool, length: u32| {
            end >= length as usize
                && results[end - length as usize..end].iter().all(|result| *result == passed)
        };
        for end in (0..=results.len()).rev() {
            if ends_in_run(end, true, rise) {
                return HealthState::Passing;
            }
            if ends_in_run(end, false, fall) {
                return HealthState::Failing;
            }
        }
        HealthState::Initial
    }
}
