//! Who should be offered, from what the primary's application has reported: worked out after the fact, by the words of the design.

use std::time::{Duration, Instant};

use rollcall::registry::Verdict;

use crate::application::{FALL, RISE, Report, TTL};
use crate::record::Move;

/// The moves between primary `a` and standby `s`, from when `a` has first passed up to `end`, when an instance that failed takes its
/// tier again after `after` of health.
pub(crate) fn moves(reports: &[Report], end: Instant, after: Duration) -> Vec<Move> {
    let mut moves = Vec::new();
    let mut is_offered = true;
    let mut to = |at, is_primary: bool| {
        if std::mem::replace(&mut is_offered, is_primary) != is_primary {
            moves.push(Move { at, to: if is_primary { "a" } else { "s" }.to_owned() });
        }
    };
    let changes = changes(&results(reports, end));
    // The first is that it passes, with which it is registered.
    for (index, (at, passes)) in changes.iter().enumerate().skip(1) {
        let until = changes.get(index + 1).map_or(end, |(at, _)| *at);
        match passes {
            false => to(*at, false),
            true if *at + after < until => to(*at + after, true),
            true => {}
        }
    }
    moves
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
