//! One state of the whole: three members, their disks, the connections between them, and what was ever delivered.
//!
//! ```text
//! Step ─► stimulus ─► Peer ─► effects ─┬─► writes ──► carried out at once, or each a step of its own
//!                      ▲               ├─► packets ─► delivered at once, or each a step of its own
//!                      │               ├─► votes ───► one place for each pair, in which the newest replaces the one before
//!                      └───────────────┴─► deliveries, reigns: checked
//! ```

use std::collections::VecDeque;

use rollcall::id::{Epoch, Zxid};
use rollcall::zab::{Notification, Packet, ServerState};

use crate::bounds::{Bounds, Election, Pace};
use crate::disk::{Disk, Txn, Write};
use crate::peers::{Effect, Face, MEMBERS, Member, Name, PeerState, Peers, Stimulus};
use crate::property::{Property, Violation};
use crate::step::Step;

/// A state of the whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) members: [Place; MEMBERS],
    pub(crate) links: Vec<Link>,
    /// From whom to whom; one that was not read yet outlives both.
    pub(crate) votes: [[Option<Name<Notification>>; MEMBERS]; MEMBERS],
    /// The longest sequence that any member has delivered.
    pub(crate) committed: Vec<Txn>,
    /// In which epoch each of these was first delivered.
    pub(crate) committed_in: Vec<Epoch>,
    pub(crate) proposed: Vec<Txn>,
    pub(crate) reigns: Vec<(Epoch, Member)>,
    pub(crate) spent: Spent,
}

/// A member's peer, and what is around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) peer: PeerState,
    pub(crate) disk: Disk,
    /// What the disk was asked for and has not done.
    pub(crate) writes: VecDeque<Write>,
    /// What this member's tree holds.
    pub(crate) delivered: Vec<Txn>,
}

/// A connection of a learner to its leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Link {
    pub(crate) id: u8,
    /// Learner and leader; each reads the pipe of its own number.
    pub(crate) ends: [Member; 2],
    pub(crate) pipes: [Pipe; 2],
}

/// One direction of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pipe {
    pub(crate) packets: VecDeque<Message>,
    /// Nothing comes after what is in it.
    pub(crate) is_ending: bool,
    /// Its reader is gone, or knows that it has ended.
    pub(crate) is_over: bool,
}

/// What is in a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    Packet(Name<Packet>),
    Tree(Name<Vec<Txn>>),
}

/// How much of the bounds was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Spent {
    pub(crate) reigns: u8,
    pub(crate) proposals: u8,
    pub(crate) crashes: u8,
    pub(crate) wipes: u8,
    pub(crate) breaks: u8,
    /// How many members have led: they do so in order, since only their numbers tell them apart.
    pub(crate) leaders: u8,
}

/// Why a step leads nowhere.
#[derive(Debug)]
pub(crate) enum Stop {
    Violation(Violation),
    /// Beyond the bounds.
    Bound,
    /// It cannot be taken.
    Idle,
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl World {
    /// All members start over these disks.
    ///
    /// # Errors
    ///
    /// When something is wrong from the start.
    pub(crate) fn new(disks: [Disk; MEMBERS], peers: &mut Peers, bounds: &Bounds) -> Result<Self, Stop> {
        let mut born = Vec::new();
        for (member, disk) in disks.iter().enumerate() {
            born.push(peers.start(member, disk).map_err(panicked)?);
        }
        let place = |member: Member| Place {
            peer: born[member].peer,
            delivered: disks[member].snapshot.clone(),
            disk: disks[member].clone(),
            writes: VecDeque::new(),
        };
        let mut world = Self {
            members: std::array::from_fn(place),
            links: Vec::new(),
            votes: Default::default(),
            committed: Vec::new(),
            committed_in: Vec::new(),
            proposed: disks.iter().flat_map(Disk::history).copied().collect(),
            reigns: Vec::new(),
            spent: Spent::default(),
        };
        let mut agenda = Agenda::default();
        for (member, reaction) in born.iter().enumerate() {
            world.carry_out(member, &reaction.effects, &mut agenda, peers, bounds)?;
        }
        world.finish(agenda, peers, bounds)?;
        Ok(world)
    }

    /// Whether every member has a leader, and the same txns.
    pub(crate) fn is_settled(&self, peers: &Peers) -> bool {
        (0..MEMBERS).all(|member| {
            self.face(member, peers).is_serving && self.members[member].delivered == self.committed
        })
    }

    pub(crate) fn face(&self, member: Member, peers: &Peers) -> Face {
        peers.face(self.members[member].peer)
    }

    /// The state after a step, if it can be taken.
    ///
    /// # Errors
    ///
    /// When it cannot, or leads to a state in which a property does not hold.
    pub(crate) fn after(&self, step: Step, peers: &mut Peers, bounds: &Bounds) -> Result<Self, Stop> {
        let mut next = self.clone();
        let mut agenda = Agenda::default();
        match step {
            Step::Vote { from, to } => {
                let vote = next.votes[from][to].take().ok_or(Stop::Idle)?;
                agenda.push_back((to, Stimulus::Vote(from, vote)));
            }
            Step::Follow { member, leader } => agenda.push_back((member, Stimulus::Follow(leader))),
            Step::Lead(member) => {
                next.spent.reigns += 1;
                next.spent.leaders = next.spent.leaders.max(u8::try_from(member + 1).unwrap_or(u8::MAX));
                agenda.push_back((member, Stimulus::Lead(member)));
            }
            Step::Deliver { link, end } => next.read(link, end, false, &mut agenda),
            Step::Close { link, end } => next.read(link, end, true, &mut agenda),
            Step::Write(member) => next.write(member, &mut agenda, peers)?,
            Step::Deadline(member) => agenda.push_back((member, Stimulus::Deadline)),
            Step::Resend(member) => agenda.push_back((member, Stimulus::Resend)),
            Step::Silence(member) => agenda.push_back((member, Stimulus::Silence)),
            Step::Propose(member) => next.propose(member, &mut agenda, peers)?,
            Step::Break(link) => {
                next.spent.breaks += 1;
                let link = next.links.iter_mut().find(|other| other.id == link).ok_or(Stop::Idle)?;
                link.pipes.iter_mut().for_each(|pipe| pipe.is_ending = true);
            }
            Step::Crash { member, written, is_wiped } => {
                next.crash(member, written, is_wiped, &mut agenda, peers, bounds)?;
            }
        }
        next.finish(agenda, peers, bounds)?;
        let elects =
            if let Step::Lead(member) | Step::Follow { member, .. } = step { Some(member) } else { None };
        let decides_nothing =
            elects.is_some_and(|member| next.face(member, peers).state == ServerState::Looking);
        if decides_nothing { Err(Stop::Idle) } else { Ok(next) }
    }

    /// Does what happens at once, and looks at the properties.
    fn finish(&mut self, mut agenda: Agenda, peers: &mut Peers, bounds: &Bounds) -> Result<(), Stop> {
        loop {
            while let Some((member, stimulus)) = agenda.pop_front() {
                let reaction = peers.react(self.members[member].peer, stimulus).map_err(panicked)?;
                self.members[member].peer = reaction.peer;
                self.check_understanding(member, stimulus, &reaction.effects, peers)?;
                if let Stimulus::Reloaded(_) = stimulus {
                    self.members[member].delivered = self.members[member].disk.snapshot.clone();
                }
                self.carry_out(member, &reaction.effects, &mut agenda, peers, bounds)?;
            }
            if bounds.packets == Pace::Eager
                && let Some((link, end)) = self.first_readable()
            {
                self.read(link, end, false, &mut agenda);
            } else {
                break;
            }
        }
        self.check()?;
        Ok(())
    }

    fn first_readable(&self) -> Option<(u8, usize)> {
        let ends = self.links.iter().flat_map(|link| [(link, 0), (link, 1)]);
        let mut readable = ends.filter(|(link, end)| link.pipes[*end].is_readable());
        readable.next().map(|(link, end)| (link.id, end))
    }

    fn carry_out(
        &mut self,
        member: Member,
        effects: &[Effect],
        agenda: &mut Agenda,
        peers: &mut Peers,
        bounds: &Bounds,
    ) -> Result<(), Stop> {
        for effect in effects {
            match *effect {
                Effect::Vote(to, vote) => match bounds.election {
                    Election::Real { rounds } if peers.notifications.get(vote).round > rounds => {
                        return Err(Stop::Bound);
                    }
                    Election::Real { .. } => self.votes[member][to] = Some(vote),
                    Election::Any => {}
                },
                Effect::Dial(server) => {
                    let link = self.connect(member, server);
                    agenda.push_back((server, Stimulus::Accepted(link)));
                    agenda.push_back((member, Stimulus::Dialled(link)));
                }
                Effect::Send(link, packet) => self.send(member, link, Message::Packet(packet)),
                Effect::SendTree(link) => {
                    let tree = self.members[member].delivered.clone();
                    let zxid = tree.last().map_or(Zxid::ZERO, |txn| txn.zxid);
                    let announcement = peers.packets.name(Packet::Snap(zxid));
                    self.send(member, link, Message::Packet(announcement));
                    self.send(member, link, Message::Tree(peers.trees.name(tree)));
                }
                Effect::Close(link) => self.close(member, link),
                Effect::Write(write) => self.ask_disk(member, write, agenda, peers, bounds)?,
                Effect::Install(tree) => {
                    self.members[member].delivered.clone_from(peers.trees.get(tree));
                    self.check_prefix(member)?;
                    self.ask_disk(member, Write::Install(tree), agenda, peers, bounds)?;
                }
                Effect::Deliver(txn) => self.deliver(member, txn)?,
                Effect::Led(epoch) => self.begin_reign(member, epoch)?,
                Effect::Followed(leader, epoch) => {
                    Property::OneLeaderPerEpoch.check(self.reigns.contains(&(epoch, leader)), || {
                        format!(
                            "{} follows {} in epoch {epoch}, in which it is not established",
                            member + 1,
                            leader + 1
                        )
                    })?;
                }
            }
        }
        Ok(())
    }

    fn ask_disk(
        &mut self,
        member: Member,
        write: Write,
        agenda: &mut Agenda,
        peers: &mut Peers,
        bounds: &Bounds,
    ) -> Result<(), Stop> {
        self.members[member].writes.push_back(write);
        if bounds.disks == Pace::Eager { self.write(member, agenda, peers) } else { Ok(()) }
    }

    /// The disk does the oldest thing that it was asked for.
    fn write(&mut self, member: Member, agenda: &mut Agenda, peers: &mut Peers) -> Result<(), Stop> {
        let place = &mut self.members[member];
        let write = place.writes.pop_front().ok_or(Stop::Idle)?;
        let told = place.disk.carry_out(write, peers)?;
        agenda.extend(told.map(|told| (member, told)));
        Ok(())
    }

    /// A connection gets the first number that nobody remembers.
    fn connect(&mut self, learner: Member, leader: Member) -> u8 {
        let mut id = u8::try_from(learner * 16).expect("there are three");
        while self.links.iter().any(|link| link.id == id) {
            id += 1;
        }
        self.links.push(Link { id, ends: [learner, leader], pipes: Default::default() });
        self.links.sort_by_key(|link| link.id);
        id
    }

    fn send(&mut self, from: Member, link: u8, message: Message) {
        let Some(link) = self.links.iter_mut().find(|other| other.id == link) else { return };
        let pipe = &mut link.pipes[usize::from(link.ends[0] == from)];
        if !pipe.is_ending && !pipe.is_over {
            pipe.packets.push_back(message);
        }
    }

    /// This end is closed behind what it has sent.
    fn close(&mut self, by: Member, link: u8) {
        let Some(at) = self.links.iter().position(|other| other.id == link) else { return };
        let link = &mut self.links[at];
        let own = usize::from(link.ends[1] == by);
        link.pipes[1 - own].is_ending = true;
        link.pipes[own].end();
        if link.pipes.iter().all(|pipe| pipe.is_over) {
            self.links.remove(at);
        }
    }

    /// One end reads the next packet, or finds that there is none.
    fn read(&mut self, link: u8, end: usize, is_cut_off: bool, agenda: &mut Agenda) {
        let Some(at) = self.links.iter().position(|other| other.id == link) else { return };
        let member = self.links[at].ends[end];
        let pipe = &mut self.links[at].pipes[end];
        let message = if is_cut_off { None } else { pipe.packets.pop_front() };
        let stimulus = match message {
            Some(Message::Packet(packet)) => Stimulus::Packet(link, packet),
            Some(Message::Tree(tree)) => Stimulus::Tree(link, tree),
            None => {
                self.close(member, link);
                Stimulus::Closed(link)
            }
        };
        agenda.push_back((member, stimulus));
    }

    fn propose(&mut self, member: Member, agenda: &mut Agenda, peers: &Peers) -> Result<(), Stop> {
        let zxid = self.face(member, peers).next_zxid.ok_or(Stop::Idle)?;
        self.spent.proposals += 1;
        let txn = Txn { zxid, tag: self.spent.proposals };
        self.proposed.push(txn);
        agenda.push_back((member, Stimulus::Propose(txn)));
        Ok(())
    }

    /// A member loses all but what is on its disk, of which what was asked for may or may not have been done, and starts again.
    fn crash(
        &mut self,
        member: Member,
        written: u8,
        is_wiped: bool,
        agenda: &mut Agenda,
        peers: &mut Peers,
        bounds: &Bounds,
    ) -> Result<(), Stop> {
        for _ in 0..written {
            self.write(member, &mut Agenda::default(), peers)?;
        }
        if is_wiped {
            self.spent.wipes += 1;
            self.members[member].disk = Disk::default();
        } else {
            self.spent.crashes += 1;
        }
        let links: Vec<_> = self.links.iter().filter(|link| link.ends.contains(&member)).collect();
        let links: Vec<_> = links.into_iter().map(|link| link.id).collect();
        for link in links {
            self.close(member, link);
        }
        let place = &mut self.members[member];
        place.writes.clear();
        place.delivered.clone_from(&place.disk.snapshot);
        let reaction = peers.start(member, &place.disk).map_err(panicked)?;
        place.peer = reaction.peer;
        self.carry_out(member, &reaction.effects, agenda, peers, bounds)
    }

    fn deliver(&mut self, member: Member, txn: Txn) -> Result<(), Violation> {
        let delivered = &mut self.members[member].delivered;
        delivered.push(txn);
        if delivered.len() > self.committed.len() {
            self.committed.push(txn);
            self.committed_in.push(self.members[member].disk.current_epoch);
        }
        Property::NothingIsInvented
            .check(self.proposed.contains(&txn), || format!("{txn:?} is delivered"))?;
        self.check_prefix(member)
    }

    fn check_prefix(&self, member: Member) -> Result<(), Violation> {
        let delivered = &self.members[member].delivered;
        Property::Agreement.check(self.committed.starts_with(delivered), || {
            format!("{} delivers {delivered:?}, others {:?}", member + 1, self.committed)
        })
    }

    fn begin_reign(&mut self, member: Member, epoch: Epoch) -> Result<(), Violation> {
        let other = self.reigns.iter().find(|(other, _)| *other == epoch);
        Property::OneLeaderPerEpoch.check(other.is_none(), || {
            format!("{} is established in epoch {epoch}, as was {:?}", member + 1, other)
        })?;
        self.reigns.push((epoch, member));
        self.reigns.sort_unstable();
        let delivered = &self.members[member].delivered;
        let is_earlier = |at: &usize| self.committed_in[*at] < epoch;
        let lacking = (delivered.len()..self.committed.len()).find(is_earlier);
        Property::LeaderHasEverything.check(lacking.is_none(), || {
            format!(
                "{} leads in epoch {epoch} with {delivered:?}, but {:?} was delivered before",
                member + 1,
                self.committed
            )
        })
    }

    fn check_understanding(
        &self,
        member: Member,
        stimulus: Stimulus,
        effects: &[Effect],
        peers: &Peers,
    ) -> Result<(), Violation> {
        let Stimulus::Packet(link, packet) = stimulus else { return Ok(()) };
        let packet = peers.packets.get(packet);
        let may_part = matches!(
            packet,
            Packet::FollowerInfo(_) | Packet::LeaderInfo(_) | Packet::AckEpoch { .. } | Packet::Trunc(_)
        );
        Property::MembersUnderstandOneAnother
            .check(may_part || !effects.contains(&Effect::Close(link)), || {
                format!("{} closes its connection because of {packet:?}", member + 1)
            })
    }

    fn check(&self) -> Result<(), Violation> {
        let holders = self.members.iter().filter(|place| {
            let mut history = place.disk.history();
            self.committed.iter().all(|txn| history.next() == Some(txn))
        });
        let holders = holders.count();
        // Who loses his disk has lost it.
        let needed = MEMBERS / 2 + 1 - usize::from(self.spent.wipes);
        Property::CommittedIsNeverLost.check(holders >= needed, || {
            format!("only {holders} members hold {:?} durably, which was delivered", self.committed)
        })?;
        for (member, place) in self.members.iter().enumerate() {
            let (current, accepted) = (place.disk.current_epoch, place.disk.accepted_epoch);
            Property::PromisesAreKept.check(current <= accepted, || {
                format!(
                    "on the disk of {} the current epoch is {current}, the accepted one {accepted}",
                    member + 1
                )
            })?;
        }
        Ok(())
    }
}

impl Pipe {
    /// Whether there is a packet, or the end, to be read.
    pub(crate) fn is_readable(&self) -> bool {
        !self.is_over && (self.is_ending || !self.packets.is_empty())
    }

    fn end(&mut self) {
        self.packets.clear();
        self.is_ending = true;
        self.is_over = true;
    }
}

impl Link {
    /// Whether both ends think that it is there, and nothing will teach them otherwise.
    pub(crate) fn is_whole(&self) -> bool {
        self.pipes.iter().all(|pipe| !pipe.is_ending)
    }
}

/// What peers are still to be told within one step.
type Agenda = VecDeque<(Member, Stimulus)>;

fn panicked(text: String) -> Stop {
    Stop::Violation(Violation { property: Property::NoPanic, how: text })
}
