//! The world: members, clients and what lies between them, driven by one agenda of events in virtual time.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use rollcall::id::{Epoch, ServerId, Zxid};
use rollcall::replica::{ConnectionId, Input, LocalSessionMode, Output, Replica, ReplicaSettings};
use rollcall::wire::{FRAME_BYTES_MAX, split_frame};
use rollcall::zab::{LinkId, Notification, Packet, PeerSettings, Quorum, split_packet};
use rollcall::znode::SessionTimeouts;
use rustc_hash::FxHasher;

use crate::canon::Canon;
use crate::client::{self, Client, Wish};
use crate::coverage::{Coverage, Seen};
use crate::faults::Faults;
use crate::member::{LogCommand, Member};
use crate::network::{Item, Network, PipeId, Process, Site};
use crate::profile::{Fault, Moment, Overrides, Profile, Story, stream};
use crate::properties::Properties;
use crate::protocol::Conversation;
use crate::time::{Agenda, Clock, MS, Nanos, SECOND};
use crate::trace::Trace;

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// The first item of a connection's lane has arrived.
    Arrival { pipe: PipeId, direction: usize },
    /// A connection was cut for as long as its ends retry.
    TcpTimeout { pipe: PipeId, from: Site, to: Site, cut_number: u64 },
    /// A connection request reaches a member.
    Dial { from: Process, attempt: u64, to: Site },
    /// The one that asked for a connection hears what became of it.
    Dialled { to: Process, attempt: u64, member: Site, pipe: Option<PipeId> },
    /// A vote reaches a member.
    Vote { from: Site, to: Site, message: Bytes },
    /// A member notices whether another can be reached.
    Reach { at: Process, peer: Site },
    /// A member looks at the time.
    Timer { at: Process },
    /// A log thread is done with a batch.
    LogDone { at: Process },
    /// What a log thread said arrives.
    Told { at: Process, said: Vec<Input> },
    /// A client may do something.
    Wake { site: Site },
    /// A fault of this kind is due.
    Fault(Fault),
    /// A fault strikes at a moment.
    Strike { fault: Fault, site: Site },
    /// A member's machine starts it.
    Start { site: Site },
    /// A stopped process goes on.
    Resume { at: Process },
    /// Cut links are healed.
    Heal(Vec<(Site, Site)>),
    /// A slow disk is fast again.
    DiskHealed { site: Site },
    /// All faults end.
    Quiet,
    /// Has everything settled?
    Look,
}

pub(crate) struct World {
    pub(crate) profile: Profile,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) network: Network,
    pub(crate) members: Vec<Member>,
    pub(crate) clients: Vec<Client>,
    pub(crate) faults: Faults,
    pub(crate) canon: Canon,
    pub(crate) properties: Properties,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
    conversations: BTreeMap<PipeId, Conversation>,
    /// The newest txn that any client was told of.
    pub(crate) floor: Zxid,
    rng: Rng,
    hasher: FxHasher,
    pub(crate) events: u64,
    pub(crate) is_quiet: bool,
    is_over: bool,
}

/// What a story comes to when nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) hash: u64,
    pub(crate) coverage: Coverage,
    pub(crate) events: u64,
    /// How long it took from the end of the storm until all was well.
    pub(crate) settled_in: Nanos,
}

/// Tells a story to its end.
///
/// # Panics
///
/// When an invariant does not hold, with its name in front.
pub(crate) fn tell(story: &Story, trace: &Trace) -> Outcome {
    let mut world = World::new(story.profile(), &story.overrides, trace.clone());
    while !world.is_over {
        world.step();
    }
    Outcome {
        hash: world.hasher.finish(),
        settled_in: world.agenda.now() - world.profile.storm,
        coverage: world.coverage,
        events: world.events,
    }
}

impl World {
    pub(crate) fn new(profile: Profile, overrides: &Overrides, trace: Trace) -> Self {
        trace.line(0, || format!("{profile:?}"));
        let seed = profile.seed;
        let mut clocks = stream(seed, "clocks");
        let base = rollcall::clock::now();
        let mut member = |site| {
            let drift = clocks.i64(-profile.drift_ppm_max..=profile.drift_ppm_max);
            let clock = Clock::new(base, clocks.u64(0..3_600 * SECOND), drift);
            Member::new(site, &profile, settings(&profile, site), clock)
        };
        let members: Vec<_> = (0..profile.members()).map(&mut member).collect();
        let clients = (profile.members()..profile.sites())
            .map(|site| Client::new(site, stream(seed, &format!("client {site}"))))
            .collect();
        let network = Network::new(profile.sites(), profile.latency, stream(seed, "network"));
        let mut world = Self {
            agenda: Agenda::new(),
            network,
            members,
            clients,
            faults: Faults::new(&profile, overrides),
            canon: Canon::new(profile.has_local_sessions),
            properties: Properties::default(),
            coverage: Coverage::new(),
            trace,
            conversations: BTreeMap::new(),
            floor: Zxid::ZERO,
            rng: stream(seed, "members"),
            hasher: FxHasher::default(),
            events: 0,
            is_quiet: false,
            is_over: false,
            profile,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for site in 0..self.members.len() {
            let at = self.rng.u64(0..200 * MS);
            self.agenda.put(at, Event::Start { site });
        }
        for site in self.members.len()..self.profile.sites() {
            let at = self.rng.u64(0..500 * MS);
            self.agenda.put(at, Event::Wake { site });
        }
        for (fault, at) in self.faults.first() {
            self.agenda.put(at, Event::Fault(fault));
        }
        self.agenda.put(self.profile.storm, Event::Quiet);
    }

    /// Has the next event happen.
    pub(crate) fn step(&mut self) {
        let event = self.agenda.take().expect("members always wait for something");
        self.take(event);
    }

    fn take(&mut self, event: Event) {
        let now = self.agenda.now();
        self.events += 1;
        assert!(self.events < EVENTS_MAX, "I17: there is no end of events");
        (now, std::mem::discriminant(&event)).hash(&mut self.hasher);
        match event {
            Event::Arrival { pipe, direction } => self.on_arrival(pipe, direction),
            Event::TcpTimeout { pipe, from, to, cut_number } => {
                self.network.on_tcp_timeout(pipe, from, to, cut_number, &mut self.agenda);
            }
            Event::Dial { from, attempt, to } => self.on_dial(from, attempt, to),
            Event::Dialled { to, attempt, member, pipe } => self.on_dialled(to, attempt, member, pipe),
            Event::Vote { from, to, message } => self.on_vote(from, to, &message),
            Event::Reach { at, peer } => self.on_reach(at, peer),
            Event::Timer { at } => {
                if let Some(process) = self.living(at)
                    && process.timer.is_some_and(|timer| timer <= now)
                {
                    process.timer = None;
                    if process.inbox.is_none() {
                        self.tick(at.site);
                    }
                }
            }
            Event::LogDone { at } => self.on_log_done(at),
            Event::Told { at, said } => said.into_iter().for_each(|input| self.give(at, input)),
            Event::Wake { site } => self.on_wake(site),
            Event::Fault(fault) => self.on_fault_due(fault),
            Event::Strike { fault, site } => {
                if !self.is_quiet {
                    self.strike(fault, site);
                }
            }
            Event::Start { site } => self.start(site),
            Event::Resume { at } => self.resume(at),
            Event::Heal(links) => self.heal(&links),
            Event::DiskHealed { site } => self.members[site].is_disk_slow = false,
            Event::Quiet => self.calm_down(),
            Event::Look => self.look(),
        }
        let alarms = crate::alarm::take_alarms();
        assert!(alarms.is_empty(), "{}", alarm_text(&alarms));
    }

    pub(crate) fn living(&mut self, at: Process) -> Option<&mut crate::member::MemberProcess> {
        let member = self.members.get_mut(at.site)?;
        if member.life == at.life { member.process.as_mut() } else { None }
    }

    /// Gives a member an input, or puts it into the queue of a stopped one.
    pub(crate) fn give(&mut self, at: Process, input: Input) {
        let Some(process) = self.living(at) else { return };
        match &mut process.inbox {
            Some(inbox) => inbox.push_back(input),
            None => self.handle(at.site, input),
        }
    }

    /// As the driver does: what is due first, then the input.
    pub(crate) fn handle(&mut self, site: Site, input: Input) {
        self.tick(site);
        let now = self.members[site].clock.at(self.agenda.now());
        let is_new_tree = matches!(input, Input::Reloaded(_));
        if let Input::SnapshotReceived(link, _) = &input
            && let Some(process) = &mut self.members[site].process
        {
            process.installing = process.incoming.remove(&PipeId(link.0));
        }
        self.trace.line(self.agenda.now(), || format!("member {}: {}", site + 1, crate::trace::show(&input)));
        if let Input::Packet(link, packet) = &input
            && let Some(conversation) = self.conversations.get_mut(&PipeId(link.0))
        {
            conversation.on_learner_hears(packet, &self.members[site].shadow);
        }
        let Some(process) = &mut self.members[site].process else { return };
        process.replica.handle(now, input);
        self.carry_out(site, is_new_tree);
    }

    /// Lets a member do what is due.
    pub(crate) fn tick(&mut self, site: Site) {
        let now = self.members[site].clock.at(self.agenda.now());
        let Some(process) = &mut self.members[site].process else { return };
        if process.replica.poll_timeout().is_some_and(|deadline| deadline <= now.monotonic) {
            self.trace.line(self.agenda.now(), || format!("member {}: timeout", site + 1));
            process.replica.handle_timeout(now);
        }
        self.carry_out(site, false);
    }

    /// Carries out what a member asks for, and looks at what it has become.
    pub(crate) fn carry_out(&mut self, site: Site, mut is_new_tree: bool) {
        self.observe_leader(site);
        while let Some(output) = self.members[site].poll_output() {
            is_new_tree |= matches!(output, Output::InstallSnapshot { .. });
            self.trace.line(self.agenda.now(), || {
                format!("    member {} asks: {}", site + 1, crate::trace::show(&output))
            });
            self.on_output(site, output);
        }
        self.observe(site, is_new_tree);
        self.trace.take_log_lines();
        self.set_timer(site);
    }

    fn set_timer(&mut self, site: Site) {
        let member = &mut self.members[site];
        let at = member.as_process();
        let Some(process) = &mut member.process else { return };
        let Some(deadline) = process.replica.poll_timeout() else { return };
        let due = member.clock.when(deadline).max(self.agenda.now());
        if process.timer.is_none_or(|timer| due < timer) {
            process.timer = Some(due);
            self.agenda.put(due, Event::Timer { at });
        }
    }

    fn on_output(&mut self, site: Site, output: Output) {
        let process = self.members[site].as_process();
        match output {
            Output::Append(entry) => {
                self.properties.on_append(site, &entry);
                self.members[site].shadow.on_append(entry.clone());
                (site, entry.zxid.raw()).hash(&mut self.hasher);
                self.ask_disk(site, LogCommand::Append(entry));
            }
            Output::SetAcceptedEpoch(epoch) => {
                self.properties.on_epoch(epoch);
                self.at_moment(Moment::AcceptsEpoch, site);
                self.ask_disk(site, LogCommand::SetAcceptedEpoch(epoch));
            }
            Output::SetCurrentEpoch(epoch) => {
                self.at_moment(Moment::AdoptsEpoch, site);
                self.ask_disk(site, LogCommand::SetCurrentEpoch(epoch));
            }
            Output::Truncate { zxid, is_reload } => {
                self.coverage.see(if is_reload { Seen::Reload } else { Seen::Trunc });
                self.at_moment(Moment::Truncates, site);
                self.members[site].shadow.on_truncate(zxid);
                self.ask_disk(site, LogCommand::Truncate { zxid, is_reload });
            }
            Output::InstallSnapshot { zxid, body } => self.on_install(site, zxid, body),
            Output::ReadLog { link, after } => self.ask_disk(site, LogCommand::ReadLog { link, after }),
            Output::SendVote(to, message) => self.send_vote(site, to, &message),
            Output::Dial { attempt, server } => {
                let to = usize::from(server.get()) - 1;
                let delay = self.network.draw_latency();
                self.agenda.put_in(delay, Event::Dial { from: process, attempt, to });
            }
            Output::Send(link, packet) => self.send_packet(site, PipeId(link.0), packet),
            Output::SendSnapshot { link, zxid, body } => {
                if self.agenda.now() > 0 && !self.is_quiet {
                    self.coverage.see(Seen::SnapDuringWrites);
                }
                let shadow = &self.members[site].shadow;
                let fuzzy_until = zxid.max(shadow.fuzzy_until);
                self.send_packet(site, PipeId(link.0), Packet::Snap(zxid));
                self.network.send(
                    PipeId(link.0),
                    process,
                    Item::Snapshot { body, fuzzy_until },
                    &mut self.agenda,
                );
            }
            Output::CloseLink(link) => self.network.close(PipeId(link.0), process, &mut self.agenda),
            Output::BeginSnapshot(zxid) => {
                self.at_moment(Moment::BeginsSnapshot, site);
                self.ask_disk(site, LogCommand::BeginSnapshot(zxid));
            }
            Output::SnapshotSlice(slice) => self.ask_disk(site, LogCommand::SnapshotSlice(slice)),
            Output::FinishSnapshot { zxid, digest } => {
                self.coverage.see(Seen::SnapshotTaken);
                self.at_moment(Moment::FinishesSnapshot, site);
                self.ask_disk(site, LogCommand::FinishSnapshot { zxid, digest });
            }
            Output::RecordCommitted(entry) => self.ask_disk(site, LogCommand::RecordCommitted(entry)),
            Output::Reply(connection, frame) | Output::Notify(connection, frame) => {
                let mut stream = BytesMut::from(&frame[..]);
                let frame =
                    split_frame(&mut stream, FRAME_BYTES_MAX).expect("a frame of ours").expect("a whole one");
                self.network.send(PipeId(connection.0), process, Item::Frame(frame), &mut self.agenda);
            }
            Output::Close(connection, _reason) => {
                let pipe = PipeId(connection.0);
                if let Some(process) = &mut self.members[site].process {
                    process.clients.remove(&pipe);
                }
                self.network.close(pipe, process, &mut self.agenda);
            }
        }
    }

    fn on_install(&mut self, site: Site, zxid: Zxid, body: Bytes) {
        self.coverage.see(Seen::Snap);
        self.at_moment(Moment::InstallsSnapshot, site);
        let member = &mut self.members[site];
        let installing = member.process.as_mut().and_then(|process| process.installing.take());
        let fuzzy_until = installing.expect("a snapshot is installed when it comes");
        member.shadow.on_install(zxid, &self.canon);
        member.shadow.fuzzy_until = fuzzy_until;
        self.ask_disk(site, LogCommand::InstallSnapshot { zxid, body, fuzzy_until });
    }

    fn ask_disk(&mut self, site: Site, command: LogCommand) {
        let member = &mut self.members[site];
        if let Some(took) = member.ask(command, self.profile.sync_max, &mut self.rng) {
            self.agenda.put_in(took, Event::LogDone { at: member.as_process() });
        }
    }

    fn on_log_done(&mut self, at: Process) {
        let Some(process) = self.living(at) else { return };
        if process.inbox.is_some() {
            process.is_log_done_late = true;
            return;
        }
        let member = &mut self.members[at.site];
        let held_before = self.properties.held_by(member, &self.canon);
        let outcome = member.finish_batch(&self.canon);
        let said = match outcome {
            Ok(said) => said,
            Err(error) => {
                self.trace.line(self.agenda.now(), || format!("member {} stops: {error}", at.site + 1));
                self.coverage.see(Seen::DiskFailed);
                return self.stop_for_disk(at.site);
            }
        };
        self.properties.check_still_held(at.site, held_before, &self.members, &self.canon, &self.profile);
        let is_read = |input: &Input| matches!(input, Input::LogRead { entries: Some(entries), .. } if !entries.is_empty());
        self.coverage.count(Seen::DiffFromDisk, said.iter().filter(|input| is_read(input)).count());
        let member = &mut self.members[at.site];
        if let Some(took) = member.start_batch(self.profile.sync_max, &mut self.rng) {
            self.agenda.put_in(took, Event::LogDone { at });
        }
        if let Some(process) = &mut member.process
            && !said.is_empty()
        {
            let arrives = self.agenda.now() + self.rng.u64(0..MS);
            process.told_at = process.told_at.max(arrives);
            self.agenda.put(process.told_at, Event::Told { at, said });
        }
    }

    fn send_packet(&mut self, site: Site, pipe: PipeId, packet: Packet) {
        let from = self.members[site].as_process();
        self.at_packet_moment(site, &packet);
        let is_leaders = matches!(
            packet,
            Packet::LeaderInfo(_)
                | Packet::Diff(_)
                | Packet::Trunc(_)
                | Packet::Snap(_)
                | Packet::Proposal(_)
                | Packet::Commit(_)
                | Packet::Inform(_)
                | Packet::NewLeader { .. }
                | Packet::UpToDate
                | Packet::Ping(_)
                | Packet::Sync
                | Packet::Revalidated { .. }
        );
        let conversation = self.conversations.entry(pipe).or_default();
        if is_leaders {
            conversation.on_leader_says(&packet);
        } else {
            conversation.on_learner_says(&packet, &self.members[site].shadow);
        }
        let mut wire = Vec::new();
        packet.encode(&mut wire);
        let mut wire = BytesMut::from(&wire[..]);
        let packet =
            split_packet(&mut wire).expect("I12: a packet of ours is readable").expect("a whole one");
        assert!(wire.is_empty(), "I12: a packet is longer than it says");
        self.network.send(pipe, from, Item::Packet(packet), &mut self.agenda);
    }

    fn at_packet_moment(&mut self, site: Site, packet: &Packet) {
        match packet {
            Packet::Proposal(_) => self.at_moment(Moment::Proposes, site),
            Packet::Commit(_) => self.at_moment(Moment::Commits, site),
            Packet::LeaderInfo(_) => self.at_moment(Moment::ProposesEpoch, site),
            Packet::NewLeader { .. } => self.at_moment(Moment::SendsNewLeader, site),
            Packet::UpToDate => self.at_moment(Moment::Leads, site),
            Packet::Ack(zxid) if zxid.counter() > 0 => self.at_moment(Moment::Acks, site),
            Packet::Ack(_) => self.at_moment(Moment::AcksNewLeader, site),
            Packet::Diff(_) => self.coverage.see(Seen::Diff),
            _ => {}
        }
    }

    fn on_arrival(&mut self, pipe: PipeId, direction: usize) {
        let Some((to, from, item)) = self.network.take(pipe, direction, &mut self.agenda) else { return };
        (to.site, pipe.0).hash(&mut self.hasher);
        if to.site >= self.members.len() {
            return self.on_client_item(to, pipe, item);
        }
        let is_client = from.site >= self.members.len();
        let (link, connection) = (LinkId(pipe.0), ConnectionId(pipe.0));
        match item {
            Item::Packet(packet) => {
                self.give(to, Input::Packet(link, packet));
            }
            Item::Snapshot { body, fuzzy_until } => {
                if let Some(process) = self.living(to) {
                    process.incoming.insert(pipe, fuzzy_until);
                }
                self.give(to, Input::SnapshotReceived(link, body));
            }
            Item::Frame(frame) => self.give(to, Input::Frame(connection, frame)),
            Item::Fin | Item::Broken if is_client => {
                let is_known = self.living(to).is_some_and(|process| process.clients.remove(&pipe));
                if is_known {
                    self.give(to, Input::Disconnected(connection));
                }
            }
            Item::Fin | Item::Broken => self.give(to, Input::LinkClosed(link)),
        }
    }

    fn on_dial(&mut self, from: Process, attempt: u64, to: Site) {
        const DIAL_TIMEOUT: Nanos = 500 * MS;
        let answer = self.network.draw_latency();
        let dialled = |pipe| Event::Dialled { to: from, attempt, member: to, pipe };
        if self.network.is_cut_off(from.site, to) {
            return self.agenda.put_in(DIAL_TIMEOUT, dialled(None));
        }
        if !self.members[to].is_up() {
            return self.agenda.put_in(answer, dialled(None));
        }
        let known_at = self.agenda.now() + answer;
        let acceptor = self.members[to].as_process();
        let pipe = self.network.connect(from, acceptor, known_at);
        self.agenda.put(known_at, dialled(Some(pipe)));
        if from.site >= self.members.len() {
            if let Some(process) = self.living(acceptor) {
                process.clients.insert(pipe);
            }
            self.give(acceptor, Input::Connected(ConnectionId(pipe.0)));
        } else {
            self.give(acceptor, Input::Accepted(LinkId(pipe.0)));
        }
    }

    fn on_dialled(&mut self, to: Process, attempt: u64, member: Site, pipe: Option<PipeId>) {
        let is_there = match to.site.checked_sub(self.members.len()) {
            Some(index) => self.clients[index].life == to.life && self.clients[index].connection.is_none(),
            None => self.living(to).is_some(),
        };
        if !is_there {
            if let Some(pipe) = pipe {
                self.network.break_pipe(pipe, SECOND, &mut self.agenda);
            }
            return;
        }
        let Some(index) = to.site.checked_sub(self.members.len()) else {
            return self.give(to, Input::Dialled { attempt, link: pipe.map(|pipe| LinkId(pipe.0)) });
        };
        if let Some(pipe) = pipe {
            let wish = self.clients[index].on_connected(pipe, member, self.agenda.now());
            self.fulfil(index, wish);
        }
    }

    fn send_vote(&mut self, site: Site, to: ServerId, message: &Notification) {
        let to = usize::from(to.get()) - 1;
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let message = Bytes::from(bytes);
        let is_hit = |rng: &mut Rng, one_in: u32| one_in > 0 && rng.u32(0..one_in) == 0;
        let copies = match () {
            () if self.network.is_cut(site, to) => 0,
            () if !self.is_quiet && is_hit(&mut self.rng, self.profile.one_vote_lost_in) => 0,
            () if !self.is_quiet && is_hit(&mut self.rng, self.profile.one_vote_doubled_in) => 2,
            () => 1,
        };
        for _ in 0..copies {
            let delay = self.network.draw_latency();
            self.agenda.put_in(delay, Event::Vote { from: site, to, message: message.clone() });
        }
    }

    fn on_vote(&mut self, from: Site, to: Site, message: &Bytes) {
        if self.network.is_cut(from, to) {
            return;
        }
        let message = Notification::decode(message).expect("I12: a vote of ours is readable");
        let (at, from) = (self.members[to].as_process(), self.members[from].server_id());
        self.give(at, Input::Notification(from, message));
    }

    fn on_reach(&mut self, at: Process, peer: Site) {
        let is_reached = self.members[peer].is_up() && !self.network.is_cut_off(at.site, peer);
        let (life, server) = (self.members[peer].life, self.members[peer].server_id());
        if self.living(at).is_none() {
            return;
        }
        let told = self.members[at.site].reach.get(&peer).copied();
        if told.is_some() && !(is_reached && told == Some(life)) {
            self.members[at.site].reach.remove(&peer);
            self.give(at, Input::Reachable(server, false));
        }
        if is_reached && told != Some(life) {
            self.members[at.site].reach.insert(peer, life);
            self.give(at, Input::Reachable(server, true));
        }
    }

    /// Two members will look whether they can reach each other.
    pub(crate) fn notice_reach(&mut self, one: Site, other: Site, within: Nanos) {
        if one.max(other) >= self.members.len() {
            return;
        }
        for (at, peer) in [(one, other), (other, one)] {
            let delay = self.rng.u64(MS..=within);
            self.agenda.put_in(delay, Event::Reach { at: self.members[at].as_process(), peer });
        }
    }

    fn on_wake(&mut self, site: Site) {
        let index = site - self.members.len();
        let mut pipeline = self.profile.pipeline;
        if self.clients[index].is_slow {
            pipeline *= 4;
        }
        let wish = self.with_client(index, |client, world| client.wake(pipeline, world));
        self.fulfil(index, wish);
        let pause = self.profile.request_pause;
        let pause = self.clients[index].rng.u64(pause / 2..=pause * 3 / 2);
        self.agenda.put_in(pause, Event::Wake { site });
    }

    fn on_client_item(&mut self, to: Process, pipe: PipeId, item: Item) {
        let index = to.site - self.members.len();
        let wish = match item {
            Item::Frame(frame) => {
                self.with_client(index, |client, world| client.on_frame(pipe, &frame, world))
            }
            Item::Fin | Item::Broken => {
                self.with_client(index, |client, world| client.on_closed(pipe, world));
                Wish::Nothing
            }
            Item::Packet(_) | Item::Snapshot { .. } => unreachable!("clients speak another protocol"),
        };
        self.fulfil(index, wish);
    }

    fn with_client<T>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Client, &mut client::World<'_>) -> T,
    ) -> T {
        let mut world = client::World {
            now: self.agenda.now(),
            canon: &self.canon,
            floor: &mut self.floor,
            coverage: &mut self.coverage,
        };
        act(&mut self.clients[index], &mut world)
    }

    fn fulfil(&mut self, index: usize, wish: Wish) {
        let client = &mut self.clients[index];
        let from = client.as_process();
        match wish {
            Wish::Nothing => {}
            Wish::Dial => {
                let to = client.rng.usize(0..self.members.len());
                let delay = self.network.draw_latency();
                self.agenda.put_in(delay, Event::Dial { from, attempt: 0, to });
            }
            Wish::Send(pipe, frames) => {
                for frame in frames {
                    self.network.send(pipe, from, Item::Frame(frame), &mut self.agenda);
                }
            }
            Wish::Close(pipe) => self.network.close(pipe, from, &mut self.agenda),
        }
    }

    /// The member that leads all.
    pub(crate) fn leading(&self) -> Option<Site> {
        let (leader, _epoch) = self.common_leader()?;
        Some(usize::from(leader.get()) - 1)
    }

    /// Every voter and the observers have the same leader.
    fn common_leader(&self) -> Option<(ServerId, Epoch)> {
        let mut leaders =
            self.members.iter().map(|member| member.replica().and_then(|replica| replica.peer().leader()));
        let first = leaders.next()??;
        leaders.all(|leader| leader == Some(first)).then_some(first)
    }

    fn look(&mut self) {
        const SETTLE_MAX: Nanos = 40 * SECOND;
        let now = self.agenda.now();
        let since = now - self.profile.storm;
        self.agenda.put_in(100 * MS, Event::Look);
        let storm = self.profile.storm;
        let all_wrote = self.clients.iter().all(|client| client.last_write_at > storm);
        if all_wrote && self.common_leader().is_some() {
            self.clients.iter_mut().for_each(|client| client.is_idle = true);
        }
        let last = self.canon.last_zxid();
        let is_idle = self.clients.iter().all(|client| client.is_idle);
        let same =
            |replica: &Replica| replica.tree().last_zxid() == last && replica.peer().last_zxid() == last;
        let is_settled = is_idle
            && self.common_leader().is_some()
            && self.members.iter().all(|member| member.replica().is_some_and(same));
        if is_settled {
            self.coverage.see(Seen::SettledAfterStorm);
            self.properties.check_epochs();
            self.properties.check_end(&self.members, &self.canon, &mut self.coverage);
            last.raw().hash(&mut self.hasher);
            self.is_over = true;
            return;
        }
        let states = || -> Vec<_> {
            let state = |replica: &Replica| {
                format!(
                    "{:?} {:?} {}",
                    replica.peer().state(),
                    replica.peer().leader(),
                    replica.tree().last_zxid()
                )
            };
            self.members.iter().map(|member| member.replica().map(state)).collect()
        };
        let laggards = || -> Vec<_> {
            let late = self.clients.iter().filter(|client| client.last_write_at <= storm);
            late.map(|client| (client.session, client.connection.is_some())).collect()
        };
        assert!(
            since < SETTLE_MAX,
            "I17: nothing has settled since the storm: {:?}, clients that could not write: {:?}, canon at {last}",
            states(),
            laggards()
        );
    }
}

fn alarm_text(alarms: &[String]) -> String {
    let first = &alarms[0];
    let name = match first {
        text if text.contains("breach") => "I12",
        text if text.contains("tree") => "I11",
        _ => "I10",
    };
    format!("{name}: {}", alarms.join("; "))
}

/// No world has so many.
const EVENTS_MAX: u64 = 400_000;

fn settings(profile: &Profile, site: Site) -> ReplicaSettings {
    let server =
        |site: usize| u8::try_from(site + 1).ok().and_then(ServerId::new).expect("a handful of members");
    let tick = Duration::from_nanos(profile.tick);
    let finalize_wait = Duration::from_nanos(profile.finalize_wait);
    let quorum = Quorum::majority_of((0..profile.voters).map(server));
    let peer = PeerSettings {
        observers: (profile.voters..profile.members()).map(server).collect(),
        tick,
        init_limit: 10,
        sync_limit: 5,
        finalize_wait,
        resend_min: finalize_wait,
        resend_max: Duration::from_secs(2),
        redial_pause: Duration::from_millis(20),
        window_entries: profile.window_entries,
        ..PeerSettings::new(server(site), quorum)
    };
    ReplicaSettings {
        peer,
        session_timeouts: SessionTimeouts::from_tick(tick),
        handshake_timeout: Duration::from_secs(2),
        snapshot_txns: profile.snapshot_txns,
        read_only_mode: profile.is_read_only_mode_on,
        local_sessions: if profile.has_local_sessions {
            LocalSessionMode::Upgraded
        } else {
            LocalSessionMode::Off
        },
        snapshot_bytes: 1 << 30,
    }
}
