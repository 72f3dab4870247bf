//! What members of either kind say in their logs about elections and synchronizations.

use crate::member::Kind;

/// How a leader brought a learner up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SyncMode {
    Diff,
    Trunc,
    Snap,
}

/// That a leader did so, by its own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sync {
    pub(crate) learner: u8,
    pub(crate) mode: SyncMode,
}

/// The epochs that a member's log says it led with a quorum behind it.
pub(crate) fn epochs_led(kind: Kind, log: &str) -> Vec<i64> {
    match kind {
        Kind::Apache => {
            let zxids = log.lines().filter_map(|line| after(line, "setting last processed zxid: 0x"));
            zxids.filter_map(|zxid| i64::from_str_radix(zxid, 16).ok()).map(|zxid| zxid >> 32).collect()
        }
        Kind::Rollcall => {
            let lines = log.lines().filter(|line| line.contains(": leading "));
            lines.filter_map(|line| after(line, "epoch=")).filter_map(|epoch| epoch.parse().ok()).collect()
        }
    }
}

/// The synchronizations that a member's log says it carried out as leader, in order.
pub(crate) fn syncs(kind: Kind, log: &str) -> Vec<Sync> {
    match kind {
        Kind::Apache => apache_syncs(log),
        Kind::Rollcall => log.lines().filter_map(rollcall_sync).collect(),
    }
}

/// Apache names the learner when it begins; what it then sends comes from the same thread.
fn apache_syncs(log: &str) -> Vec<Sync> {
    let mut syncs = Vec::new();
    let mut learners: Vec<(&str, u8)> = Vec::new();
    for line in log.lines() {
        let Some(thread) = thread(line) else { continue };
        if let Some(learner) = after(line, "Synchronizing with Learner sid: ") {
            learners.retain(|(known, _)| *known != thread);
            learners.extend(learner.parse().ok().map(|learner| (thread, learner)));
        }
        let mode = [
            ("Sending DIFF zxid", SyncMode::Diff),
            ("Sending TRUNC ", SyncMode::Trunc),
            ("Sending snapshot last zxid", SyncMode::Snap),
        ];
        let mode = mode.into_iter().find(|(text, _)| line.contains(text));
        let learner = learners.iter().find(|(known, _)| *known == thread);
        if let (Some((_, mode)), Some(&(_, learner))) = (mode, learner) {
            syncs.push(Sync { learner, mode });
        }
    }
    syncs
}

fn rollcall_sync(line: &str) -> Option<Sync> {
    if !line.contains("synchronizing a learner") {
        return None;
    }
    let mode = match after(line, "sync=")?.trim_matches('"') {
        "DIFF" => SyncMode::Diff,
        "TRUNC" => SyncMode::Trunc,
        "SNAP" => SyncMode::Snap,
        _ => return None,
    };
    let learner =
        line.split_once("server=")?.1.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
    Some(Sync { learner: learner?.parse().ok()?, mode })
}

/// The name of the thread, `[LearnerHandler-/127.0.0.1:35008]`.
fn thread(line: &str) -> Option<&str> {
    let start = line.find("[LearnerHandler-")?;
    let end = line[start..].find(']')?;
    Some(&line[start..start + end])
}

/// The word that follows `text`.
fn after<'a>(line: &'a str, text: &str) -> Option<&'a str> {
    line.split_once(text)?.1.split(|c: char| c.is_whitespace() || c == ',' || c == '}').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apaches_lines_are_understood() {
        let log = "\
[LearnerHandler-/127.0.0.1:1] INFO LearnerHandler - Synchronizing with Learner sid: 2 maxCommittedLog=0x0
[LearnerHandler-/127.0.0.1:2] INFO LearnerHandler - Synchronizing with Learner sid: 1 maxCommittedLog=0x0
[LearnerHandler-/127.0.0.1:1] INFO LearnerHandler - Sending snapshot last zxid of peer is 0x0, zxid of leader is 0x1
[LearnerHandler-/127.0.0.1:2] INFO LearnerHandler - Sending DIFF zxid=0x0 for peer sid: 1
[QuorumPeer] INFO Leader - Have quorum of supporters, sids: [[2, 3]]; starting up and setting last processed zxid: 0x1f00000000
[LearnerHandler-/127.0.0.1:1] INFO LearnerHandler - Synchronizing with Learner sid: 1 maxCommittedLog=0x0
[LearnerHandler-/127.0.0.1:1] INFO LearnerHandler - Sending TRUNC to follower zxidToSend=0x1 for peer sid:1
";
        let expected = [(2, SyncMode::Snap), (1, SyncMode::Diff), (1, SyncMode::Trunc)];
        assert_eq!(syncs(Kind::Apache, log), expected.map(|(learner, mode)| Sync { learner, mode }));
        assert_eq!(epochs_led(Kind::Apache, log), [31]);
    }

    #[test]
    fn our_lines_are_understood() {
        let log = "\
2026-11-25T17:40:00Z  INFO member{id=3}: rollcall::zab: leading epoch=31 zxid=0x1e00000005
2026-11-25T17:40:00Z  INFO rollcall::zab: synchronizing a learner server=1 sync=\"DIFF\" from=0x1 to=0x2
2026-11-25T17:40:00Z  INFO rollcall::zab: synchronizing a learner server=2 sync=\"TRUNC\" from=0x1
2026-11-25T17:40:00Z  INFO rollcall::zab: being synchronized leader=2 sync=\"SNAP\" zxid=0x1
";
        let expected = [(1, SyncMode::Diff), (2, SyncMode::Trunc)];
        assert_eq!(syncs(Kind::Rollcall, log), expected.map(|(learner, mode)| Sync { learner, mode }));
        assert_eq!(epochs_led(Kind::Rollcall, log), [31]);
    }
}
