//! When a check asks, and how long it waits.

use std::time::Duration;

use super::super::target::{Asking, Check, CheckTarget};
use super::CheckSettings;
use crate::config::{Mistake, Scalar, duration};

/// As in [`Asking`].
pub(super) struct Times {
    interval: Duration,
    timeout: Duration,
    jitter: Duration,
}

impl Times {
    pub(super) fn of(self, target: CheckTarget) -> Asking {
        let Self { interval, timeout, jitter } = self;
        Asking { target, interval, timeout, jitter }
    }
}

impl CheckSettings {
    pub(super) fn resolve_times(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<Times> {
        let mut resolve = |key: &str, text: &Option<Scalar>, default: Option<Duration>| match text {
            Some(text) => text.to_duration(&format!("{path}.{key}"), mistakes),
            None => default,
        };
        let interval = resolve("interval", &self.interval, Some(Check::INTERVAL));
        let timeout =
            resolve("timeout", &self.timeout, interval.map(|interval| Check::TIMEOUT.min(interval)));
        let room = interval.zip(timeout).map(|(interval, timeout)| interval.saturating_sub(timeout));
        let jitter = resolve(
            "jitter",
            &self.jitter,
            interval.zip(room).map(|(interval, room)| (interval / 10).min(room)),
        );
        if let Some(interval) = interval.filter(|interval| *interval < Check::INTERVAL_MIN) {
            let (interval, min) = (duration::text(interval), duration::text(Check::INTERVAL_MIN));
            mistakes.push(Mistake::new(
                format!("{path}.interval"),
                format!("{interval} is too often"),
                format!("check every {min} at most"),
            ));
        }
        if let (Some(interval), Some(timeout)) = (interval, timeout) {
            refuse_what_does_not_fit(path, interval, timeout, jitter, mistakes);
        }
        Some(Times { interval: interval?, timeout: timeout?, jitter: jitter? })
    }

    pub(super) fn resolve_start_delay(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<Duration> {
        let range = (Duration::ZERO, Check::START_DELAY_MAX);
        match &self.start_delay {
            Some(text) => text.to_duration_within(&format!("{path}.start_delay"), range, mistakes),
            None => Some(Duration::ZERO),
        }
    }

    pub(super) fn resolve_ttl(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<Duration> {
        let path = format!("{path}.ttl");
        let Some(text) = &self.ttl else {
            let remedy = "say how long the application may be silent, such as 30s";
            mistakes.push(Mistake::new(path, "the key ttl is missing", remedy));
            return None;
        };
        text.to_duration_within(&path, (Check::INTERVAL_MIN, Check::TTL_MAX), mistakes)
    }
}

fn refuse_what_does_not_fit(
    path: &str,
    interval: Duration,
    timeout: Duration,
    jitter: Option<Duration>,
    mistakes: &mut Vec<Mistake>,
) {
    let (interval_text, timeout_text) = (duration::text(interval), duration::text(timeout));
    if timeout.is_zero() {
        mistakes.push(Mistake::new(
            format!("{path}.timeout"),
            "no check passes within 0s",
            "give it some time, such as 1s",
        ));
    } else if timeout > interval {
        mistakes.push(Mistake::new(
            format!("{path}.timeout"),
            format!("the timeout, {timeout_text}, is longer than the interval, {interval_text}"),
            "make the timeout at most the interval, so that one check has ended when the next begins",
        ));
    } else if jitter.is_some_and(|jitter| jitter.saturating_add(timeout) > interval) {
        let jitter_text = duration::text(jitter.unwrap_or_default());
        mistakes.push(Mistake::new(
            format!("{path}.jitter"),
            format!(
                "jitter, {jitter_text}, and timeout, {timeout_text}, are together longer than the interval, {interval_text}"
            ),
            "make the jitter at most the interval less the timeout",
        ));
    }
}
