//! What goes wrong, and when.

use std::collections::BTreeMap;

use fastrand::Rng;
use rollcall::id::Epoch;
use rollcall::zab::ServerState;

use crate::coverage::Seen;
use crate::member::{End, Member};
use crate::network::{Process, Site};
use crate::profile::{Fault, Moment, Overrides, Profile, Trigger, stream};
use crate::time::{MS, Nanos, SECOND};
use crate::world::{Event, World};

/// The faults that a story has, each kind with random numbers of its own.
#[derive(Debug)]
pub(crate) struct Faults {
    kinds: BTreeMap<Fault, Kind>,
    triggers: Vec<Trigger>,
    triggers_rng: Rng,
    skipped: Vec<(Fault, u32)>,
    /// Decisions of a fault that strikes at a moment.
    strikes_rng: Rng,
}

#[derive(Debug)]
struct Kind {
    rng: Rng,
    mean_pause: Nanos,
    /// How many were due.
    number: u32,
}

impl Faults {
    pub(crate) fn new(profile: &Profile, overrides: &Overrides) -> Self {
        let mut kinds = BTreeMap::new();
        for (fault, mean_pause) in &profile.faults {
            let rng = stream(profile.seed, &format!("{fault:?}"));
            kinds.insert(*fault, Kind { rng, mean_pause: *mean_pause, number: 0 });
        }
        Self {
            kinds,
            triggers: profile.triggers.clone(),
            triggers_rng: stream(profile.seed, "triggers"),
            skipped: overrides.skipped.clone(),
            strikes_rng: stream(profile.seed, "strikes"),
        }
    }

    /// When the first of each kind is due.
    pub(crate) fn first(&mut self) -> Vec<(Fault, Nanos)> {
        self.kinds.iter_mut().map(|(fault, kind)| (*fault, kind.pause())).collect()
    }
}

impl Kind {
    fn pause(&mut self) -> Nanos {
        self.rng.u64(self.mean_pause / 10..=self.mean_pause * 2)
    }
}

impl World {
    pub(crate) fn on_fault_due(&mut self, fault: Fault) {
        if self.is_quiet {
            return;
        }
        let Some(kind) = self.faults.kinds.get_mut(&fault) else { return };
        let pause = kind.pause();
        // Drawn whether it strikes or not, so that skipping one changes no other.
        let mut rng = Rng::with_seed(kind.rng.u64(..));
        let is_skipped = self.faults.skipped.contains(&(fault, kind.number));
        kind.number += 1;
        self.agenda.put_in(pause, Event::Fault(fault));
        if is_skipped {
            return;
        }
        let number = kind.number - 1;
        self.trace.line(self.agenda.now(), || format!("fault {fault:?}.{number}"));
        let site = rng.usize(0..self.members.len());
        self.fault_at(fault, site, &mut rng);
    }

    /// Something happens to a member at which a fault may be waiting.
    pub(crate) fn at_moment(&mut self, moment: Moment, site: Site) {
        if self.is_quiet {
            return;
        }
        let faults = &mut self.faults;
        let armed = faults.triggers.iter().filter(|trigger| trigger.moment == moment);
        for trigger in armed {
            if faults.triggers_rng.u32(0..trigger.one_in) == 0 {
                self.agenda.put_in(0, Event::Strike { fault: trigger.fault, site });
            }
        }
    }

    pub(crate) fn strike(&mut self, fault: Fault, site: Site) {
        let now = self.agenda.now();
        self.trace.line(now, || format!("fault {fault:?} strikes member {}", site + 1));
        self.see_leader_struck(site);
        let mut rng = Rng::with_seed(self.faults.strikes_rng.u64(..));
        self.fault_at(fault, site, &mut rng);
    }

    fn see_leader_struck(&mut self, site: Site) {
        let replica = self.members[site].replica();
        if replica.is_some_and(|replica| replica.peer().state() == ServerState::Leading) {
            self.properties.on_leader_struck(self.agenda.now());
        }
    }

    fn fault_at(&mut self, fault: Fault, site: Site, rng: &mut Rng) {
        let is_core = self.profile.is_core(site);
        let others: Vec<_> = (0..self.members.len()).filter(|other| *other != site).collect();
        self.properties.on_disturbance();
        match fault {
            Fault::Kill if !is_core => self.crash(site, End::Killed, rng),
            Fault::PowerFailure if !is_core => self.crash(site, End::PowerFailed, rng),
            Fault::Pause if !is_core => self.pause(site, rng),
            Fault::CutOneWay => {
                let Some(other) = rng.choice(others) else { return };
                let link = if rng.bool() { (site, other) } else { (other, site) };
                self.cut(vec![link], rng);
            }
            Fault::CutBothWays => {
                let Some(other) = rng.choice(others) else { return };
                self.cut(vec![(site, other), (other, site)], rng);
            }
            Fault::Isolate => {
                let links = others.iter().flat_map(|other| [(site, *other), (*other, site)]).collect();
                self.cut(links, rng);
            }
            Fault::Split => self.split(rng),
            Fault::Flap => {
                let Some(other) = rng.choice(others) else { return };
                self.flap(site, other, rng);
            }
            Fault::BreakConnection => {
                let is_core = |one, other| self.profile.is_core(one) && self.profile.is_core(other);
                if let Some(pipe) = self.network.any_pipe(rng, is_core) {
                    self.coverage.see(Seen::ConnectionBroken);
                    self.network.break_pipe(pipe, rng.u64(MS..2 * SECOND), &mut self.agenda);
                }
            }
            Fault::FailedSync if !is_core => self.members[site].disk.fail_syncs(1),
            Fault::FullDisk if !is_core => self.members[site].disk.fail_writes(1),
            Fault::SlowDisk if !is_core => {
                self.members[site].is_disk_slow = true;
                self.agenda.put_in(rng.u64(SECOND / 5..3 * SECOND), Event::DiskHealed { site });
            }
            Fault::Wipe if !is_core => self.wipe(site, rng),
            Fault::BitRot if !is_core => self.rot(site, rng),
            Fault::WallClock => self.members[site].clock.jump(rng.i64(-3_600_000..3_600_000)),
            Fault::CutClient => {
                if let Some(client) = rng.choice(self.members.len()..self.profile.sites()) {
                    self.cut(vec![(site, client), (client, site)], rng);
                }
            }
            Fault::Kill
            | Fault::PowerFailure
            | Fault::Pause
            | Fault::FailedSync
            | Fault::FullDisk
            | Fault::SlowDisk
            | Fault::Wipe
            | Fault::BitRot => {}
        }
    }

    /// Ends a process, and starts it again later.
    fn crash(&mut self, site: Site, end: End, rng: &mut Rng) {
        if !self.members[site].is_up() {
            return;
        }
        let notice = match end {
            End::Killed => 5 * MS,
            End::PowerFailed => 6 * SECOND,
        };
        self.coverage.see(if end == End::Killed { Seen::Killed } else { Seen::PowerFailed });
        self.properties.see_death(site, &self.members, &self.canon, &self.profile, &mut self.coverage);
        self.end(site, end, notice, rng);
        let restart =
            if rng.u8(0..4) == 0 { rng.u64(2 * SECOND..6 * SECOND) } else { rng.u64(10 * MS..2 * SECOND) };
        self.agenda.put_in(restart, Event::Start { site });
    }

    fn end(&mut self, site: Site, end: End, notice: Nanos, rng: &mut Rng) {
        let process = self.members[site].as_process();
        let held = self.properties.held_by(&self.members[site], &self.canon);
        self.members[site].end(end, &self.canon, rng);
        self.properties.check_still_held(site, held, &self.members, &self.canon, &self.profile);
        self.network.on_process_gone(process, notice, &mut self.agenda);
        for other in 0..self.members.len() {
            self.notice_reach(other, site, notice.max(50 * MS));
        }
    }

    /// A member's disk has failed: it has stopped, as it must.
    pub(crate) fn stop_for_disk(&mut self, site: Site) {
        self.properties.on_disturbance();
        // Whoever is elected writes at once, and so meets a fault of his disk then.
        self.see_leader_struck(site);
        let mut rng = Rng::with_seed(self.faults.strikes_rng.u64(..));
        self.end(site, End::Killed, 5 * MS, &mut rng);
        self.agenda.put_in(rng.u64(100 * MS..2 * SECOND), Event::Start { site });
    }

    pub(crate) fn start(&mut self, site: Site) {
        if self.members[site].is_up() {
            return;
        }
        self.properties.on_disturbance();
        let now = self.agenda.now();
        let mut rng = Rng::with_seed(self.faults.strikes_rng.u64(..));
        // Faults of the disk were met by the process before.
        self.members[site].disk.fail_syncs(0);
        self.members[site].disk.fail_writes(0);
        let held = self.properties.held_by(&self.members[site], &self.canon);
        let found = match self.members[site].start(now, &self.canon, &mut rng) {
            Ok(found) => found,
            Err(error) => {
                assert!(
                    self.members[site].is_rotten,
                    "I8: after nothing but crashes a member cannot start: {error}"
                );
                // An operator would read what it says, and give it an empty disk.
                self.trace.line(now, || format!("member {} refuses its disk: {error}", site + 1));
                self.coverage.see(Seen::RotRefused);
                self.members[site].wipe(rng.u64(..));
                return self.agenda.put_in(100 * MS, Event::Start { site });
            }
        };
        self.trace.line(now, || format!("member {} starts: {found:?}", site + 1));
        self.coverage.count(Seen::FailedInRecovery, found.failures_in_recovery as usize);
        self.coverage.count(Seen::TornTail, usize::from(found.is_torn));
        self.coverage.count(Seen::UnsyncedTailRecovered, usize::from(found.has_unsynced));
        self.coverage.count(Seen::CommittedBehindSnapshot, usize::from(found.is_beyond_snapshot));
        self.properties.check_still_held(site, held, &self.members, &self.canon, &self.profile);
        for other in 0..self.members.len() {
            if other != site {
                self.notice_reach(other, site, 60 * MS);
            }
        }
        self.carry_out(site, true);
    }

    fn pause(&mut self, site: Site, rng: &mut Rng) {
        let at = self.members[site].as_process();
        let Some(process) = &mut self.members[site].process else { return };
        if process.inbox.is_some() {
            return;
        }
        process.inbox = Some(std::collections::VecDeque::new());
        self.coverage.see(Seen::Paused);
        let pause = if rng.bool() { rng.u64(5 * MS..300 * MS) } else { rng.u64(300 * MS..5 * SECOND) };
        self.agenda.put_in(pause, Event::Resume { at });
    }

    pub(crate) fn resume(&mut self, at: Process) {
        let Some(process) = self.living(at) else { return };
        let Some(inbox) = process.inbox.take() else { return };
        let is_log_done_late = std::mem::take(&mut process.is_log_done_late);
        self.properties.on_disturbance();
        self.trace.line(self.agenda.now(), || format!("member {} goes on", at.site + 1));
        self.tick(at.site);
        inbox.into_iter().for_each(|input| self.give(at, input));
        if is_log_done_late {
            self.agenda.put_in(0, Event::LogDone { at });
        }
    }

    fn cut(&mut self, links: Vec<(Site, Site)>, rng: &mut Rng) {
        let time =
            if rng.u8(0..3) == 0 { rng.u64(3 * SECOND..10 * SECOND) } else { rng.u64(20 * MS..3 * SECOND) };
        self.cut_for(links, time, rng);
    }

    fn cut_for(&mut self, mut links: Vec<(Site, Site)>, time: Nanos, rng: &mut Rng) {
        links.retain(|(from, to)| !(self.profile.is_core(*from) && self.profile.is_core(*to)));
        if self.profile.family == crate::profile::Family::Core {
            // Clients reach the core.
            let is_member = |site: &Site| *site < self.members.len();
            links.retain(|(from, to)| is_member(from) && is_member(to));
        }
        self.coverage.see(Seen::Cut);
        for (from, to) in &links {
            self.network.cut(*from, *to, &mut self.agenda);
            // A cut makes no noise; it may go unnoticed.
            if rng.bool() {
                self.notice_reach(*from, *to, 2 * SECOND);
            }
        }
        self.agenda.put_in(time, Event::Heal(links));
    }

    pub(crate) fn heal(&mut self, links: &[(Site, Site)]) {
        self.properties.on_disturbance();
        for (from, to) in links {
            self.network.heal(*from, *to, &mut self.agenda);
            self.notice_reach(*from, *to, 200 * MS);
        }
    }

    /// Into two groups, of which one member may be in both.
    fn split(&mut self, rng: &mut Rng) {
        let sites = self.members.len();
        let sides: Vec<_> = (0..sites).map(|_| rng.bool()).collect();
        let bridge = if rng.u8(0..3) == 0 { Some(rng.usize(0..sites)) } else { None };
        let pairs = (0..sites).flat_map(|from| (0..sites).map(move |to| (from, to)));
        let links = pairs
            .filter(|(from, to)| sides[*from] != sides[*to] && bridge != Some(*from) && bridge != Some(*to));
        let links = links.collect();
        self.cut(links, rng);
    }

    fn flap(&mut self, one: Site, other: Site, rng: &mut Rng) {
        let mut delay = 0;
        for _ in 0..rng.usize(2..8) {
            delay += rng.u64(50 * MS..400 * MS);
            if delay < 200 * MS {
                self.cut_for(vec![(one, other), (other, one)], delay, rng);
            } else {
                let fault = if rng.bool() { Fault::CutBothWays } else { Fault::CutOneWay };
                self.agenda.put_in(delay, Event::Strike { fault, site: one });
            }
        }
    }

    fn wipe(&mut self, site: Site, rng: &mut Rng) {
        if !self.may_lose_disk(site) {
            return;
        }
        self.end(site, End::PowerFailed, SECOND, rng);
        self.coverage.see(Seen::Wiped);
        self.members[site].wipe(rng.u64(..));
        self.agenda.put_in(rng.u64(100 * MS..SECOND), Event::Start { site });
    }

    fn rot(&mut self, site: Site, rng: &mut Rng) {
        if !self.may_lose_disk(site) {
            return;
        }
        self.end(site, End::Killed, 5 * MS, rng);
        if self.members[site].rot(rng) {
            self.members[site].is_rotten = true;
            // What it loses counts as lost with its disk.
            self.members[site].was_wiped = true;
        }
        self.agenda.put_in(rng.u64(100 * MS..SECOND), Event::Start { site });
    }

    /// At most a minority loses its disk, each at most once, and only while a majority of the others has a history: one
    /// that never had any cannot be told from one that has lost it, and neither has a say.
    fn may_lose_disk(&self, site: Site) -> bool {
        let voters = &self.members[..self.profile.voters];
        let lost = voters.iter().filter(|member| member.was_wiped).count();
        let keeps =
            |member: &&Member| member.site != site && !member.is_rotten && member.shadow.current > Epoch(0);
        let is_enough = voters.iter().filter(keeps).count() >= self.profile.majority();
        let is_voter = site < self.profile.voters;
        let member = &self.members[site];
        member.is_up() && !member.was_wiped && (!is_voter || lost < self.profile.wipes_max() && is_enough)
    }

    /// The storm is over: everything works again.
    pub(crate) fn calm_down(&mut self) {
        self.trace.line(self.agenda.now(), || "the storm is over".to_owned());
        self.is_quiet = true;
        self.properties.on_quiet(!self.canon.committed.is_empty());
        self.network.heal_all(&mut self.agenda);
        self.network.latency.one_slow_in = 0;
        for site in 0..self.members.len() {
            self.members[site].is_disk_slow = false;
            self.members[site].disk.fail_syncs(0);
            self.members[site].disk.fail_writes(0);
            self.members[site].clock.jump(0);
            self.resume(self.members[site].as_process());
            self.agenda.put_in(0, Event::Start { site });
            for other in 0..site {
                self.notice_reach(site, other, 200 * MS);
            }
        }
        self.agenda.put_in(100 * MS, Event::Look);
    }
}
