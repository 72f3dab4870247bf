//! Who should be offered, from what the primary's application has reported: worked out after the fact, by the words of the design.

use std::time::{Duration, Instant};

use rollcall::registry::Verdict;

use crate::application::{FALL, RISE, Report, TTL};
use crate::record::Move;
use crate::told::Phase;

/// The phases of primary `a`, each with when it begins, from when it has first passed up to `end`, when an instance that failed takes
/// its tier again after `after` of health. The first is that it serves.
pub(crate) fn phases(reports: &[Report], end: Instant, after: Duration) -> Vec<(Instant, Phase)> {
    let changes = changes(&results(reports, end));
    let mut phases = Vec::new();
    for (index, (at, passes)) in changes.iter().enumerate() {
        let until = changes.get(index + 1).map_or(end, |(at, _)| *at);
        match passes {
            // With which it is registered.
            true if index == 0 => phases.push((*at, Phase::Serving)),
            true => {
                phases.push((*at, Phase::Held));
                if *at + after < until {
                    phases.push((*at + after, Phase::Serving));
                }
            }
            false => phases.push((*at, Phase::Failing)),
        }
    }
    phases
}

/// The moves between primary `a` and standby `s` that these phases amount to.
pub(crate) fn moves(phases: &[(Instant, Phase)]) -> Vec<Move> {
    let offered = phases.iter().map(|(at, phase)| (*at, if *phase == Phase::Serving { "a" } else { "s" }));
    let mut moves: Vec<_> = offered.map(|(at, to)| Move { at, to: to.to_owned() }).collect();
    moves.dedup_by(|next, before| next.to == before.to);
    moves.split_off(1)
}

/// The results of the check: every report, and every ttl of silence.
fn results(reports: &[Report], end: Instant) -> Vec<(Instant, bool)> {
    let mut results = Vec::new();
    let mut due = None::<Instant>;
    let be_silent_until = |due: &mut Option<Instant>, now: Instant| {
        let mut silences = Vec::new();
        while let Some(at) = due.filter(|at| *at < now) {
            silences.push((at, false));
            *due = Some(at + TTL);
        }
        silences
    };
    for (at, verdict) in reports {
        results.extend(be_silent_until(&mut due, *at));
        results.push((*at, *verdict == Verdict::Pass));
        due = due.max(Some(*at + TTL));
    }
    results.extend(be_silent_until(&mut due, end));
    results
}

/// When the check began to pass, and to fail: after `RISE`, or `FALL`, results in a row.
fn changes(results: &[(Instant, bool)]) -> Vec<(Instant, bool)> {
    let mut changes: Vec<(Instant, bool)> = Vec::new();
    for end in 1..=results.len() {
        let (at, passed) = results[end - 1];
        let needed = if passed { RISE } else { FALL };
        let is_run = end >= needed && results[end - needed..end].iter().all(|(_, one)| *one == passed);
        if is_run && changes.last().map(|(_, state)| *state) != Some(passed) {
            changes.push((at, passed));
        }
    }
    changes
}

/// Asserts that these moves were seen, each within `reaction` of when it was due, and no others.
pub(crate) fn assert_seen(who: &str, seen: &[Move], expected: &[Move], reaction: Duration) {
    let start = expected.first().map(|first| first.at);
    let told = |moves: &[Move]| -> Vec<String> {
        let at = |at: Instant| start.map(|start| at.saturating_duration_since(start));
        moves.iter().map(|one| format!("{} {:?}", one.to, at(one.at))).collect()
    };
    assert_eq!(seen.len(), expected.len(), "{who} saw {:#?}, not {:#?}", told(seen), told(expected));
    for (number, (seen, expected)) in seen.iter().zip(expected).enumerate() {
        assert_eq!(seen.to, expected.to, "{who}, move {number}");
        assert!(seen.at >= expected.at, "{who}, move {number}: {:?} early", expected.at - seen.at);
        let late = seen.at - expected.at;
        assert!(late <= reaction, "{who}, move {number}: {late:?} late");
    }
}
