//! An ensemble of processes, and everything that can be done to it.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates;
use crate::client::Server;
use crate::disk::{DiskWatch, SmallDisk};
use crate::links::Links;
use crate::member::{Kind, Member, State};
use crate::probe::{Sync, epochs_led, syncs};
use crate::process::{Signal, keep_log};
use crate::recorder::Recorder;
use crate::throttle::Throttle;
use crate::wait::wait_for;

/// Members 1 to n; all but what dies with the processes goes with it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// For what is kept of it when the test fails.
    name: String,
    pub(crate) members: Vec<Member>,
    recorder: Recorder,
    links: Option<Links>,
    watch: DiskWatch,
    /// Goes after the members and before the folder.
    _disk: Option<SmallDisk>,
    _folder: TempDir,
}

/// What a scenario may want otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    /// Txns between snapshots.
    pub(crate) snapshot_txns: u32,
    /// Whether learners that are beyond the newest 500 txns may be sent older ones from the log's files.
    pub(crate) is_log_sent: bool,
    /// The longest that a session may last; twenty ticks unless set.
    pub(crate) session_timeout_max: Duration,
    /// The member by index whose data are on a disk of so many bytes.
    pub(crate) small_disk: Option<(usize, u64)>,
    /// Whether sessions are local until they create an ephemeral znode.
    pub(crate) has_local_sessions: bool,
    /// Whether a member without a quorum serves readers.
    pub(crate) is_read_only_mode_on: bool,
    /// Whether members speak TLS with one another, each with a certificate.
    pub(crate) is_encrypted: bool,
    /// Whether what members send one another can be held up.
    pub(crate) is_linked: bool,
    /// Whether the members' disks can be slowed down.
    pub(crate) has_slow_syncs: bool,
    /// Whether ours have the timers that they have by default, with a tick of 2 s, rather than those of tests.
    pub(crate) has_default_timers: bool,
    /// In ticks, how long a learner may take to be brought up to date.
    pub(crate) init_limit: u32,
    /// In ticks, how long a member may be silent.
    pub(crate) sync_limit: u32,
    /// How long after a session's timeout its ephemerals may still be there.
    pub(crate) removal_slack: Duration,
}

impl Profile {
    /// For scenarios with elections: two ticks, and the longest election, with a silent leader and a learner that takes
    /// all its time.
    pub(crate) const DEFAULT: Self = Self {
        snapshot_txns: 100_000,
        is_log_sent: true,
        session_timeout_max: SESSION_TIMEOUT,
        small_disk: None,
        has_local_sessions: false,
        is_read_only_mode_on: false,
        is_encrypted: false,
        is_linked: false,
        has_slow_syncs: false,
        has_default_timers: false,
        init_limit: INIT_LIMIT,
        sync_limit: SYNC_LIMIT,
        removal_slack: removal_slack(TICK, INIT_LIMIT, SYNC_LIMIT),
    };

    /// For scenarios that let no member fall silent: nobody is given up for what the machine's disk takes for a sync, which
    /// can be more than the second of [`Profile::DEFAULT`] while others use it too. Six seconds are ten times what the
    /// slowest answer takes, and what the machine adds; a learner that is brought up to date syncs several times.
    pub(crate) const PATIENT: Self =
        Self { init_limit: 60, sync_limit: 30, removal_slack: removal_slack(TICK, 60, 30), ..Self::DEFAULT };

    /// As whoever sets nothing has it.
    pub(crate) const AS_SHIPPED: Self = Self {
        has_default_timers: true,
        removal_slack: removal_slack(DEFAULT_TICK, INIT_LIMIT, SYNC_LIMIT),
        ..Self::DEFAULT
    };
}

/// Two ticks, and the longest election, with limits in ticks.
const fn removal_slack(tick: Duration, init_limit: u32, sync_limit: u32) -> Duration {
    Duration::from_secs(2).saturating_add(tick.saturating_mul(2 + sync_limit + init_limit))
}

pub(crate) const TICK: Duration = Duration::from_millis(200);
const DEFAULT_TICK: Duration = Duration::from_secs(2);
/// In ticks: for a learner to be brought up to date, and for a member to be silent.
const INIT_LIMIT: u32 = 10;
pub(crate) const SYNC_LIMIT: u32 = 5;
/// The longest that a session may last: twenty ticks.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_millis(4_000);

/// For what takes seconds, on a machine that does other things too.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(40);

impl Cluster {
    /// Makes an ensemble of members 1 to n of these kinds, starts them all, and waits until all serve.
    pub(crate) fn start(name: &str, kinds: &[Kind], profile: Profile, recorder: &Recorder) -> Self {
        let mut cluster = Self::new(name, kinds, profile, recorder);
        for index in 0..cluster.members.len() {
            cluster.restart(index);
        }
        cluster.wait_until_all_serve();
        cluster
    }

    fn new(name: &str, kinds: &[Kind], profile: Profile, recorder: &Recorder) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let ids = 1_u8..;
        let mut members: Vec<Member> =
            ids.zip(kinds).map(|(id, kind)| Member::new(id, *kind, folder.path())).collect();
        let disk = profile.small_disk.map(|(index, bytes)| SmallDisk::mount(&members[index].data(), bytes));
        if profile.has_slow_syncs {
            members.iter_mut().for_each(Member::prepare_slow_sync);
        }
        members.iter().for_each(Member::name_itself);
        if profile.is_encrypted {
            certificates::issue(&members);
        }
        members.iter().for_each(|member| member.configure(&members, &profile));
        let links = profile.is_linked.then(|| Links::start(&members, recorder));
        let watch = DiskWatch::start(folder.path());
        Self {
            name: name.to_owned(),
            members,
            links,
            watch,
            recorder: recorder.clone(),
            _disk: disk,
            _folder: folder,
        }
    }

    /// The longest that the disk has held up everybody, members or not.
    pub(crate) fn longest_disk_stall(&self) -> Duration {
        self.watch.longest()
    }

    /// What is between the members.
    pub(crate) fn links(&self) -> &Links {
        self.links.as_ref().expect("the profile has them linked")
    }

    pub(crate) fn servers(&self) -> Vec<Server> {
        self.members.iter().map(|member| Server { name: member.name(), address: member.address() }).collect()
    }

    /// Starts a member that does not run; it may take a while until it serves.
    pub(crate) fn restart(&mut self, index: usize) {
        self.note("start", index);
        self.members[index].start();
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.note("kill -9", index);
        self.members[index].kill();
    }

    /// Ends a member as an orchestrator does, and waits for it.
    pub(crate) fn terminate(&mut self, index: usize) {
        self.note("terminate", index);
        self.members[index].signal(Signal::TERM);
        let member = &mut self.members[index];
        wait_for("a terminated member ends", START_LIMIT, || member.has_ended().then_some(()));
        member.kill();
    }

    /// Stops a member without its noticing.
    pub(crate) fn stop(&mut self, index: usize) {
        self.note("stop", index);
        self.members[index].signal(Signal::STOP);
    }

    pub(crate) fn resume(&mut self, index: usize) {
        self.note("continue", index);
        self.members[index].signal(Signal::CONT);
    }

    /// Lets a member run for `share` percent of the time, until what is returned is dropped.
    pub(crate) fn throttle(&self, index: usize, share: u32) -> Throttle {
        self.note(&format!("{share} % of the time for"), index);
        Throttle::start(self.members[index].process_id(), share)
    }

    /// Makes each of a member's syncs take longer, or not any more.
    pub(crate) fn slow_syncs(&self, index: usize, delay: Option<Duration>) {
        self.note(&format!("syncs take {delay:?} longer at"), index);
        let slow_sync = self.members[index].slow_sync();
        match delay {
            Some(delay) => slow_sync.set(delay),
            None => slow_sync.clear(),
        }
    }

    /// Waits until every member that runs says that it leads or follows, and returns the leader.
    pub(crate) fn wait_until_all_serve(&mut self) -> usize {
        wait_for("every member that runs leads or follows", START_LIMIT, || {
            let running: Vec<usize> = self.running();
            let states: Option<Vec<_>> = running.iter().map(|index| self.members[*index].state()).collect();
            let leaders = states?.into_iter().zip(&running).filter(|((state, _), _)| *state == State::Leader);
            let mut leaders = leaders.map(|(_, index)| *index);
            leaders.next().filter(|_leader| leaders.next().is_none())
        })
    }

    /// Waits until one of the running members leads.
    pub(crate) fn wait_for_leader(&mut self) -> usize {
        wait_for("a member leads", START_LIMIT, || self.leader())
    }

    /// The running member that says it leads, and among two the one that has seen more.
    pub(crate) fn leader(&mut self) -> Option<usize> {
        let states =
            self.running().into_iter().filter_map(|index| Some((index, self.members[index].state()?)));
        let leaders = states.filter(|(_, (state, _))| *state == State::Leader);
        leaders.max_by_key(|(_, (_, zxid))| *zxid).map(|(index, _)| index)
    }

    /// Makes the last member lead: it has the highest id, which decides between equals. Nobody may be writing.
    pub(crate) fn make_last_lead(&mut self) -> usize {
        let last = self.members.len() - 1;
        for _attempt in 0..5 {
            let leader = self.wait_until_all_serve();
            if leader == last {
                return last;
            }
            self.wait_until_equal();
            self.kill(leader);
            let next = self.wait_for_leader();
            self.restart(leader);
            if next == last {
                return self.wait_until_all_serve();
            }
        }
        panic!("member {} does not come to lead", self.members[last].id);
    }

    /// Waits until all running members have applied the same txns. The beginning of an epoch is none: some members are
    /// there as soon as they have a leader, others with its first txn.
    pub(crate) fn wait_until_equal(&mut self) {
        wait_for("all members are at one zxid", START_LIMIT, || {
            let running = self.running();
            let states: Option<Vec<_>> = running.iter().map(|index| self.members[*index].state()).collect();
            let mut zxids: BTreeSet<i64> = states?.into_iter().map(|(_, zxid)| zxid).collect();
            if zxids.last().is_some_and(|newest| newest & 0xffff_ffff == 0) {
                zxids.pop_last();
            }
            (zxids.len() <= 1).then_some(())
        });
    }

    /// What the member's log says it did as leader for a learner, newest last.
    pub(crate) fn syncs(&self, leader: usize) -> Vec<Sync> {
        syncs(self.members[leader].kind, &self.members[leader].log())
    }

    /// Which epochs each member's log says it led.
    pub(crate) fn epochs_led(&self) -> Vec<(String, i64)> {
        let epochs = |member: &Member| {
            let name = member.name();
            epochs_led(member.kind, &member.log()).into_iter().map(move |epoch| (name.clone(), epoch))
        };
        self.members.iter().flat_map(epochs).collect()
    }

    /// Of which kinds the members are whose logs say that they led.
    pub(crate) fn kinds_that_led(&self) -> BTreeSet<Kind> {
        let led = |member: &&Member| !epochs_led(member.kind, &member.log()).is_empty();
        self.members.iter().filter(led).map(|member| member.kind).collect()
    }

    /// The digests that members say they had, where they say so: by zxid.
    pub(crate) fn digests(&self) -> Vec<(String, i64, String)> {
        let mut digests = Vec::new();
        for member in &self.members {
            let answer = member.four_letter_word("hash").unwrap_or_default();
            for (zxid, digest) in answer.lines().filter_map(|line| line.split_once(':')) {
                if let Ok(zxid) = i64::from_str_radix(zxid.trim(), 16) {
                    digests.push((member.name(), zxid, digest.trim().to_owned()));
                }
            }
        }
        digests
    }

    /// A value of `mntr`, where the member has it.
    pub(crate) fn monitored(&self, index: usize, name: &str) -> Option<f64> {
        let answer = self.members[index].four_letter_word("mntr").ok()?;
        let lines = answer.lines().filter_map(|line| line.split_once('\t'));
        lines.filter(|(key, _)| *key == name).find_map(|(_, value)| value.trim().parse().ok())
    }

    /// The members whose processes run.
    pub(crate) fn running(&mut self) -> Vec<usize> {
        let members = self.members.iter_mut().enumerate();
        members.filter_map(|(index, member)| member.is_running().then_some(index)).collect()
    }

    fn note(&self, what: &str, index: usize) {
        self.recorder.fault(format!("{what} {}", self.members[index].name()));
    }
}

impl Drop for Cluster {
    /// What the members of a failed test have said is kept.
    fn drop(&mut self) {
        if thread::panicking() {
            for member in &mut self.members {
                member.dump_threads();
                let kept = keep_log(&member.log_path(), &format!("{}-{}", self.name, member.name()));
                eprintln!("the log of {}: {}", member.name(), kept.display());
            }
        }
    }
}

/// Lets something that goes on by itself go on for a while, such as load.
pub(crate) fn go_on_for(duration: Duration) {
    thread::sleep(duration);
}
