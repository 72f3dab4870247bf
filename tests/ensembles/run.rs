//! One run of a scenario: an ensemble, its history, and the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::checkers::linear::STALE_SYNC_READ;
use crate::checkers::{Violation, check};
use crate::cluster::{Cluster, Profile, START_LIMIT};
use crate::dump::dump_all;
use crate::history::{History, Record, SessionChange, Setup, Turn};
use crate::load::{Load, Workload};
use crate::member::{Kind, Member};
use crate::recorder::{Recorder, keep};
use crate::wait::wait_for;

/// An ensemble under observation.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    pub(crate) recorder: Recorder,
    scenario: String,
    removal_slack: Duration,
    has_local_sessions: bool,
    dumps: u32,
    /// How many files each member had open, if that was noted.
    open_files: Vec<usize>,
}

/// What a member may have open more than in the beginning: as leader it listens for the others, and each is connected to it.
const OPEN_FILES_SLACK: usize = 10;

impl Run {
    /// Starts an ensemble of members of `kinds`.
    pub(crate) fn start(scenario: &str, kinds: &[Kind], profile: Profile) -> Self {
        let names: String = kinds.iter().map(|kind| if *kind == Kind::Apache { 'a' } else { 'r' }).collect();
        let scenario = format!("{scenario}-{names}");
        let recorder = Recorder::new();
        let cluster = Cluster::start(&scenario, kinds, profile, &recorder);
        let Profile { removal_slack, has_local_sessions, .. } = profile;
        Self {
            cluster,
            recorder,
            scenario,
            removal_slack,
            has_local_sessions,
            dumps: 0,
            open_files: Vec::new(),
        }
    }

    /// What the checkers have to know. What the disk held up is allowed to the members.
    fn setup(&self) -> Setup {
        let members =
            self.cluster.members.iter().map(|member| format!("{} {:?}", member.name(), member.kind));
        let slack = self.removal_slack + self.cluster.longest_disk_stall();
        Setup {
            scenario: self.scenario.clone(),
            members: members.collect(),
            removal_slack_ms: u64::try_from(slack.as_millis()).expect("seconds"),
            has_local_sessions: self.has_local_sessions,
        }
    }

    pub(crate) fn load(&self, workload: Workload) -> Load {
        Load::start(&self.cluster.servers(), workload, &self.recorder)
    }

    /// Notes what members have open without any clients; in the end it must not be more.
    pub(crate) fn note_open_files(&mut self) {
        self.open_files = self.cluster.members.iter().map(Member::open_files).collect();
    }

    fn check_open_files(&self) {
        for (member, noted) in self.cluster.members.iter().zip(&self.open_files) {
            let limit = noted + OPEN_FILES_SLACK;
            wait_for("what clients had open is closed", START_LIMIT, || {
                (member.open_files() <= limit).then_some(())
            });
            eprintln!("{} has {} files open, {noted} before", member.name(), member.open_files());
        }
    }

    /// Reads everything from every member; nobody may be writing.
    pub(crate) fn dump(&mut self, load: &Load) {
        self.cluster.wait_until_all_serve();
        self.dumps += 1;
        let dumps = load.block_on(dump_all(&self.cluster.servers(), &self.recorder, self.dumps));
        dumps.into_iter().for_each(|dump| self.recorder.add(Record::Dump(dump)));
    }

    /// Lets the load pause, reads everything from every member, and lets it go on: what differs is found in the end.
    pub(crate) fn compare(&mut self, load: &Load) {
        load.pause();
        self.dump(load);
        load.resume();
    }

    /// Ends the load, reads everything, and demands that every promise was kept.
    pub(crate) fn finish(mut self, load: Load) -> History {
        load.pause();
        self.dump(&load);
        let servers = self.cluster.servers();
        let closed = load.end();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        self.dumps += 1;
        let dumps = runtime.block_on(dump_all(&servers, &self.recorder, self.dumps));
        dumps.into_iter().for_each(|dump| self.recorder.add(Record::Dump(dump)));
        self.check_open_files();
        for (server, zxid, digest) in self.cluster.digests() {
            self.recorder.add(Record::Digest { server, zxid, digest });
        }
        let led = self.cluster.epochs_led();
        let written = self.recorder.look(epochs_written);
        let is_known = |epoch: &i64| led.iter().any(|(_, known)| known == epoch);
        assert!(
            written.iter().all(is_known),
            "epochs {written:?} have writes, the members' logs tell of {led:?}"
        );
        for (server, epoch) in led {
            self.recorder.add(Record::Leader { server, epoch });
        }
        for index in 0..self.cluster.members.len() {
            let mismatches = self.cluster.monitored(index, "zk_digest_mismatches_count").unwrap_or(0.0);
            assert!(mismatches == 0.0, "m{} counts {mismatches} digest mismatches", index + 1);
        }
        self.recorder.add(Record::Setup(self.setup()));
        let history = self.recorder.history();
        if std::env::var_os("ROLLCALL_KEEP_HISTORY").is_some() {
            keep(&history, &self.scenario);
        }
        summarize(&self.scenario, &history, closed);
        self.judge(check(&history));
        history
    }

    fn judge(&self, violations: Vec<Violation>) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for violation in &violations {
            *counts.entry(violation.rule).or_default() += 1;
        }
        let (known, broken): (Vec<_>, Vec<_>) =
            violations.into_iter().partition(|violation| self.is_known_of_apache(violation));
        if let Some(first) = known.first() {
            eprintln!("{}: Apache's leader, {} times: {first}", self.scenario, known.len());
        }
        let lines: Vec<String> = broken.iter().take(20).map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{} {counts:?}:\n{}", self.scenario, lines.join("\n"));
    }

    /// A leader of Apache's answers the sync of its own clients from what it has applied, which may be less than a
    /// follower has, and does not ask whether it still leads (ZOOKEEPER-1675). Its writes are judged like any others.
    fn is_known_of_apache(&self, violation: &Violation) -> bool {
        let led = |epoch: i64| {
            let epochs = self.cluster.epochs_led();
            let leader = epochs.into_iter().find(|(_, led)| *led == epoch).map(|(name, _)| name);
            self.cluster.members.iter().find(|member| Some(member.name()) == leader).map(|member| member.kind)
        };
        violation.rule == STALE_SYNC_READ && violation.epoch.and_then(led) == Some(Kind::Apache)
    }
}

impl Drop for Run {
    /// A run that failed leaves its history.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.recorder.add(Record::Setup(self.setup()));
            let kept = keep(&self.recorder.history(), &self.scenario);
            eprintln!("the history: {}", kept.display());
        }
    }
}

/// Prints what the run was made of.
fn summarize(scenario: &str, history: &History, closed: usize) {
    let writes = write_ends(history).len();
    let unanswered = history.records.iter().filter(|record| {
        matches!(record, Record::Operation(operation) if operation.action.is_write() && operation.reply.is_none())
    });
    let events = history.records.iter().filter(|record| matches!(record, Record::Event(_))).count();
    eprintln!(
        "{scenario}: {writes} writes acknowledged, {} unanswered, {events} events, {} sessions expired, {closed} closed",
        unanswered.count(),
        expired(history)
    );
}

/// When each acknowledged write was acknowledged, in order.
pub(crate) fn write_ends(history: &History) -> Vec<u64> {
    let ends = history.records.iter().filter_map(|record| {
        let Record::Operation(operation) = record else { return None };
        operation.success().filter(|_reply| operation.action.is_write()).map(|reply| reply.ended)
    });
    let mut ends: Vec<u64> = ends.collect();
    ends.sort_unstable();
    ends
}

/// The epochs of all acknowledged writes.
fn epochs_written(history: &History) -> BTreeSet<i64> {
    let epochs = history.records.iter().filter_map(|record| {
        let Record::Operation(operation) = record else { return None };
        operation.success().filter(|_reply| operation.action.is_write()).map(|reply| reply.zxid >> 32)
    });
    epochs.collect()
}

/// The longest time without an acknowledged write between two moments.
pub(crate) fn longest_gap(history: &History, from: u64, to: u64) -> Duration {
    let ends = write_ends(history).into_iter().filter(|end| (from..=to).contains(end));
    let moments: Vec<u64> = [from].into_iter().chain(ends).chain([to]).collect();
    let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_nanos(gaps.max().unwrap_or(0))
}

/// How many sessions were lost.
pub(crate) fn expired(history: &History) -> usize {
    let turns = history.records.iter().filter(
        |record| matches!(record, Record::Turn(turn) if matches!(turn.change, SessionChange::Expired { .. })),
    );
    turns.count()
}

/// Waits until a write is acknowledged that was sent after the moment `since`, and returns how long that took.
pub(crate) fn time_to_write(recorder: &Recorder, since: u64) -> Duration {
    let first = |history: &History| {
        let writes = history.records.iter().filter_map(|record| {
            let Record::Operation(operation) = record else { return None };
            let is_later = operation.action.is_write() && operation.started > since;
            operation.success().filter(|_reply| is_later).map(|reply| reply.ended)
        });
        writes.min()
    };
    let ended = wait_for("a write is acknowledged", START_LIMIT, || recorder.look(first));
    Duration::from_nanos(ended - since)
}

/// How long each session was without a connection that had lost one to any of `servers` between two moments, shortest first.
pub(crate) fn reconnect_times(history: &History, servers: &[String], from: u64, to: u64) -> Vec<Duration> {
    let mut turns: Vec<&Turn> = history.records.iter().filter_map(turn).collect();
    turns.sort_by_key(|turn| turn.at);
    let mut lost: BTreeMap<i64, u64> = BTreeMap::new();
    let mut times = Vec::new();
    for turn in turns {
        match &turn.change {
            SessionChange::Disconnected { server } => {
                if (from..to).contains(&turn.at) && servers.contains(server) {
                    lost.insert(turn.session, turn.at);
                }
            }
            SessionChange::Connected { .. } => {
                times.extend(lost.remove(&turn.session).map(|at| Duration::from_nanos(turn.at - at)));
            }
            SessionChange::Expired { .. } | SessionChange::Abandoned => {}
        }
    }
    assert!(lost.is_empty(), "sessions {:x?} have lost their connections for good", lost.keys());
    times.sort_unstable();
    times
}

/// So many percent of the times, which are sorted, are no longer.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Option<Duration> {
    times.get(times.len().saturating_sub(1) * percent / 100).copied()
}

fn turn(record: &Record) -> Option<&Turn> {
    if let Record::Turn(turn) = record { Some(turn) } else { None }
}

/// How long those writes took that were sent to any of `servers` and acknowledged between two moments, shortest first.
pub(crate) fn write_times(history: &History, servers: &[String], from: u64, to: u64) -> Vec<Duration> {
    let times = history.records.iter().filter_map(|record| {
        let Record::Operation(operation) = record else { return None };
        let is_meant =
            operation.action.is_write() && operation.started >= from && servers.contains(&operation.server);
        let reply = operation.success().filter(|reply| is_meant && reply.ended < to)?;
        Some(Duration::from_nanos(reply.ended - operation.started))
    });
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times
}
