//! How a resolver has done lately: whether it is asked in its turn or last, and what it does with letters. Pure.
//!
//! ```text
//!      silence, and no answer since           our own question is silent, too, and that three times
//! well ───────────────────────► in doubt ────────────────────────────────► set back ─► after 1, 2, 4, … 32 s our own question
//!  ▲ │        our own question ◄┘                                            ▲   │
//!  │ └──────── cannot be reached, or does not want, three times ─────────────┘   │
//!  └──────────────────────────── an answer ◄─────────────────────────────────────┘
//! ```
//!
//! - Names whose own servers are away are silent at every resolver. So silence counts only against one that has answered nothing at all since
//!   the question was sent, and sets it back only if it is silent to a question, too, that every resolver has the answer to.
//! - That question is our own: no client waits for it, and nobody chooses its name. There is one at a time.
//! - The log is warned once a minute at most, and its last word is true.

use std::time::{Duration, Instant};

/// How a resolver has done lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    /// Questions without an answer since it answered anything.
    silences: u32,
    /// Other failures since it answered as it should.
    failures: u32,
    /// When it answered last, whatever it said.
    answered: Option<Instant>,
    /// Whether our own question is one of those without an answer.
    is_mute: bool,
    /// Since when our own question is under way.
    probed: Option<Instant>,
    set_back: Option<SetBack>,
    told: Told,
    habit: Habit,
    /// When that was learnt.
    learnt: Option<Instant>,
}

/// That it is asked last for now.
#[derive(Clone, Copy, Debug)]
struct SetBack {
    /// When our own question is due.
    retry_at: Instant,
    /// How long it was left alone before that.
    wait: Duration,
}

/// What the log has been told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// When it was warned last.
    warned: Option<Instant>,
    /// Whether that is its last word.
    is_warning: bool,
    /// How often it would have been warned since.
    times: u32,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lapse {
    /// It has not come in time. When the question was sent.
    Silence(Instant),
    /// Nothing could be sent, or what came is none. When the question was to be sent.
    Network(Instant),
    /// It does not want to answer.
    Refusal,
}

/// What becomes of a resolver, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing else than before.
    Nothing,
    /// It is asked last; so many times since the log was told.
    SetBack { times: u32 },
    /// The same, and the log was told of another time lately.
    SetBackAgain { times: u32 },
    /// It is asked in its turn again.
    Back,
    /// The same, and the log does not know that it was not.
    BackAgain,
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

impl Health {
    /// It has answered something, whatever that says.
    pub(super) fn hear(&mut self, now: Instant) {
        (self.answered, self.silences, self.is_mute) = (Some(now), 0, false);
    }

    /// It has answered as it should.
    pub(super) fn succeed(&mut self, now: Instant) -> News {
        self.hear(now);
        self.come_back()
    }

    /// It has not answered a question.
    ///
    /// While it is set back only our own questions count: a burst of questions that meet the same outage is one.
    pub(super) fn fail(&mut self, lapse: Lapse, now: Instant) -> News {
        match lapse {
            Lapse::Silence(sent) | Lapse::Network(sent) if self.has_answered_since(sent) => {}
            Lapse::Silence(_) => self.silences = self.silences.saturating_add(1),
            Lapse::Network(_) | Lapse::Refusal => self.failures = self.failures.saturating_add(1),
        }
        self.judge(now)
    }

    pub(super) const fn is_set_back(&self) -> bool {
        self.set_back.is_some()
    }

    /// Whether somebody should ask it our own question. Whoever is told so does it, and nobody else until that is over, or is lost.
    pub(super) fn claim_probe(&mut self, now: Instant) -> bool {
        let is_under_way = |sent| now.saturating_duration_since(sent) < BACKOFF_MAX;
        let is_due = match self.set_back {
            Some(SetBack { retry_at, .. }) => retry_at <= now,
            None => self.silences > 0 && !self.is_mute,
        };
        let is_claimed = is_due && !self.probed.is_some_and(is_under_way);
        if is_claimed {
            self.probed = Some(now);
        }
        is_claimed
    }

    /// Our own question is over, for it was answered, or its time is.
    pub(super) fn end_probe(&mut self, now: Instant) -> News {
        let Some(sent) = self.probed.take() else { return News::Nothing };
        if self.has_answered_since(sent) {
            // Whatever it said; one that is not set back may still do wrong by its clients.
            return if self.is_set_back() { self.come_back() } else { News::Nothing };
        }
        self.is_mute = true;
        let Some(set_back) = &mut self.set_back else {
            self.silences = self.silences.saturating_add(1);
            return self.judge(now);
        };
        let wait = (set_back.wait * 2).min(BACKOFF_MAX);
        *set_back = SetBack { retry_at: now + wait, wait };
        // That it was back may be what the log says.
        if self.told.is_warning { News::Nothing } else { self.told.warn(now) }
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

    fn has_answered_since(&self, sent: Instant) -> bool {
        self.answered.is_some_and(|answered| answered >= sent)
    }

    fn judge(&mut self, now: Instant) -> News {
        let is_gone = self.failures >= FAILURES_MAX || (self.silences >= FAILURES_MAX && self.is_mute);
        if !is_gone || self.is_set_back() {
            return News::Nothing;
        }
        self.set_back = Some(SetBack { retry_at: now + BACKOFF_MIN, wait: BACKOFF_MIN });
        self.told.times = self.told.times.saturating_add(1);
        self.told.warn(now)
    }

    fn come_back(&mut self) -> News {
        self.failures = 0;
        match self.set_back.take() {
            None => News::Nothing,
            Some(_) if std::mem::take(&mut self.told.is_warning) => News::Back,
            Some(_) => News::BackAgain,
        }
    }
}

impl Told {
    fn warn(&mut self, now: Instant) -> News {
        if self.warned.is_some_and(|warned| now.saturating_duration_since(warned) < WARNING_INTERVAL) {
            return News::SetBackAgain { times: self.times };
        }
        (self.warned, self.is_warning) = (Some(now), true);
        News::SetBack { times: std::mem::take(&mut self.times) }
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

/// Failures in a row that set an upstream back.
const FAILURES_MAX: u32 = 3;
/// How long an upstream that was set back is left alone at first.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// That time doubles with each probe that fails, up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(32);
/// From one warning about an upstream to the next.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// How long a resolver that does not repeat letters is asked in lower case alone. To find out again takes one question over TCP.
const CHANGES_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_set_back_and_an_answer_brings_back() {
        for lapse in [Lapse::Network, |_| Lapse::Refusal] {
            let (mut health, now) = (Health::default(), clock::now());
            assert_eq!([(); 2].map(|()| health.fail(lapse(now), now)), [News::Nothing; 2]);
            assert_eq!(health.fail(lapse(now), now), News::SetBack { times: 1 });
            assert!(health.is_set_back());
            assert_eq!(health.succeed(now), News::Back);
            assert!(!health.is_set_back());
            let later = now + SECOND;
            assert_eq!(health.fail(lapse(later), later), News::Nothing, "it begins from the start");
        }
    }

    #[test]
    fn silence_does_not_count_against_one_that_has_answered_anything_since() {
        let (mut health, begin) = (Health::default(), clock::now());
        for tenth in 0..600 {
            let sent = begin + SECOND / 10 * tenth;
            // Questions that it does not answer overlap with one in two seconds that it does.
            if tenth % 20 == 5 {
                health.hear(sent);
            }
            health.fail(Lapse::Silence(sent - SECOND), sent);
            if health.claim_probe(sent) {
                health.hear(sent + SECOND / 100);
                assert_eq!(health.end_probe(sent + SECOND / 100), News::Nothing);
            }
            assert!(!health.is_set_back());
        }
    }

    #[test]
    fn a_burst_of_silence_sets_nobody_back_who_answers_our_own_question() {
        let (mut health, sent) = (Health::default(), clock::now());
        let now = sent + SECOND;
        for _ in 0..40 {
            assert_eq!(health.fail(Lapse::Silence(sent), now), News::Nothing);
        }
        assert!(health.claim_probe(now) && !health.claim_probe(now), "one at a time");
        health.hear(now);
        assert_eq!(health.end_probe(now), News::Nothing);
        health.fail(Lapse::Silence(sent), now);
        assert!(!health.is_set_back() && !health.claim_probe(now), "it has answered since");
    }

    #[test]
    fn silence_to_our_own_question_sets_back() {
        // The own question is one of the three, or there are three without it.
        for silences in [2, 3, 40] {
            let (mut health, sent) = (Health::default(), clock::now());
            let now = sent + SECOND;
            for _ in 0..silences {
                health.fail(Lapse::Silence(sent), now);
            }
            assert!(!health.is_set_back() && health.claim_probe(now));
            assert_eq!(health.end_probe(now + SECOND), News::SetBack { times: 1 });
        }
        let (mut health, sent) = (Health::default(), clock::now());
        health.fail(Lapse::Silence(sent), sent);
        assert!(health.claim_probe(sent));
        assert_eq!(health.end_probe(sent + SECOND), News::Nothing);
        assert!(!health.claim_probe(sent + SECOND), "it has said all that it says");
        assert_eq!(health.fail(Lapse::Silence(sent), sent + SECOND), News::SetBack { times: 1 });
    }

    #[test]
    fn one_that_refuses_is_set_back_although_it_answers() {
        let (mut health, mut now) = (Health::default(), clock::now());
        let mut last = News::Nothing;
        for _ in 0..3 {
            now += SECOND;
            health.hear(now);
            last = health.fail(Lapse::Refusal, now);
            assert!(!health.claim_probe(now));
        }
        assert_eq!(last, News::SetBack { times: 1 });
    }

    #[test]
    fn one_that_is_set_back_is_probed_by_one_at_a_time_and_ever_more_rarely() {
        let (mut health, mut now) = (set_back(clock::now()), clock::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let begin = now;
            while !health.claim_probe(now) {
                // Those that clients ask do not count.
                health.fail(Lapse::Silence(now), now);
                health.fail(Lapse::Network(now), now);
                now += SECOND / 2;
            }
            assert!(!health.claim_probe(now), "one at a time");
            waits.push((now - begin).as_secs());
            health.end_probe(now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
        now += BACKOFF_MAX;
        assert!(health.claim_probe(now));
        health.hear(now);
        assert_eq!(health.end_probe(now), News::Back);
        assert!(!health.is_set_back());
    }

    #[test]
    fn a_probe_that_is_lost_is_not_waited_for_for_ever() {
        let now = clock::now();
        let mut health = set_back(now);
        assert!(health.claim_probe(now + SECOND));
        assert!(!health.claim_probe(now + BACKOFF_MAX));
        assert!(health.claim_probe(now + SECOND + BACKOFF_MAX));
    }

    #[test]
    fn a_burst_of_failures_is_one_outage() {
        let (mut health, now) = (Health::default(), clock::now());
        let news: Vec<_> = (0..40).map(|_| health.fail(Lapse::Network(now), now)).collect();
        assert_eq!(news.iter().filter(|news| **news != News::Nothing).count(), 1);
        assert!(
            health.claim_probe(now + BACKOFF_MIN),
            "it is not left alone for longer because many asked it"
        );
    }

    #[test]
    fn the_log_is_warned_once_a_minute_and_its_last_word_is_true() {
        let (mut health, begin) = (Health::default(), clock::now());
        let mut flap = |at: Duration| {
            let now = begin + at;
            let fails = [(); 3].map(|()| health.fail(Lapse::Refusal, now));
            (fails[2], health.succeed(now))
        };
        assert_eq!(flap(SECOND), (News::SetBack { times: 1 }, News::Back));
        assert_eq!(flap(2 * SECOND), (News::SetBackAgain { times: 1 }, News::BackAgain));
        assert_eq!(flap(60 * SECOND), (News::SetBackAgain { times: 2 }, News::BackAgain));
        assert_eq!(flap(61 * SECOND), (News::SetBack { times: 3 }, News::Back));

        let mut now = begin + 62 * SECOND;
        assert_eq!([(); 3].map(|()| health.fail(Lapse::Refusal, now))[2], News::SetBackAgain { times: 1 });
        let mut told = Vec::new();
        while now < begin + 600 * SECOND {
            now += SECOND;
            if health.claim_probe(now) {
                told.push(health.end_probe(now));
            }
        }
        let warnings = told.iter().filter(|news| **news == News::SetBack { times: 1 }).count();
        assert_eq!((warnings, told.last()), (1, Some(&News::Nothing)), "it stays away: {told:?}");
        assert_eq!(health.succeed(now), News::Back);
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
        let (bad, good) = (set_back(clock::now()), Health::default());
        assert_eq!(order(&[good, good, good], 0), [0, 1, 2]);
        assert_eq!(order(&[good, good, good], 2), [2, 0, 1]);
        assert_eq!(order(&[bad, good, good], 0), [1, 2, 0]);
        assert_eq!(order(&[bad, bad], 1), [1, 0]);
        assert!(order(&[], 0).is_empty());
    }

    fn set_back(now: Instant) -> Health {
        let mut health = Health::default();
        for _ in 0..FAILURES_MAX {
            health.fail(Lapse::Network(now), now);
        }
        health
    }
}
