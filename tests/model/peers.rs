//! The real peers. Each state that a peer was ever seen in is kept once, and what it does about something is asked once.
//!
//! The many states of the whole ensemble are made of rather few states of its members. So the states of the whole name those of
//! peers by number, and a peer's reaction to an input is looked up when it was asked for before: a peer's next state
//! depends on nothing but its state, the time and the input.
//!
//! Time stands still here, and deadlines pass when the search says so. The wait for better votes is no wait at all, so that
//! it may be over, or not, at any point; patience has a tick of two nanoseconds; and a vote is sent again after an hour.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rollcall::id::{Epoch, ServerId, Zxid};
use rollcall::zab::{
    Entry, Event, Input, LinkId, Notification, Output, Packet, Peer, PeerSettings, Quorum, Recovery,
    ServerState, Vote,
};
use rustc_hash::FxHashMap;

use crate::disk::{Disk, Txn, Write};

/// A member, by its place: server 1 is member 0.
pub(crate) type Member = usize;

/// How many members there are.
pub(crate) const MEMBERS: usize = 3;

/// One state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PeerState(u32);

/// What may happen to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stimulus {
    Vote(Member, Name<Notification>),
    /// It is made to believe that a quorum follows this other one.
    Follow(Member),
    /// It is made to believe that a quorum votes for it; this is who it is.
    Lead(Member),
    Accepted(u8),
    Dialled(u8),
    Packet(u8, Name<Packet>),
    Tree(u8, Name<Vec<Txn>>),
    Closed(u8),
    Durable(Zxid),
    AcceptedEpochDurable(Epoch),
    CurrentEpochDurable(Epoch),
    Reloaded(Name<Disk>),
    LogRead(u8, Option<Name<Vec<Txn>>>),
    /// No better vote is waited for any longer.
    Deadline,
    /// Nobody has answered a vote for so long that it is sent again.
    Resend,
    /// Ticks go by without a word from anybody, until patience is over.
    Silence,
    Propose(Txn),
}

/// What a peer wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Vote(Member, Name<Notification>),
    Dial(Member),
    Send(u8, Name<Packet>),
    SendTree(u8),
    Close(u8),
    Write(Write),
    Install(Name<Vec<Txn>>),
    Deliver(Txn),
    Led(Epoch),
    Followed(Member, Epoch),
}

/// What a peer did.
#[derive(Debug)]
pub(crate) struct Reaction {
    pub(crate) peer: PeerState,
    pub(crate) effects: Vec<Effect>,
}

/// What can be seen of a peer from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Face {
    pub(crate) state: ServerState,
    /// Whether it leads with a quorum behind it: then, the zxid of the next proposal.
    pub(crate) next_zxid: Option<Zxid>,
    pub(crate) is_due: bool,
    pub(crate) is_serving: bool,
}

/// One state, by an example.
#[derive(Debug)]
struct Known {
    peer: Peer,
    face: Face,
    /// The last dial of this very example.
    dialled: u64,
}

/// All of them, and the names of what they say.
pub(crate) struct Peers {
    settings: [PeerSettings; MEMBERS],
    epoch_of_time: Instant,
    states: Vec<Known>,
    by_print: FxHashMap<u64, PeerState>,
    reactions: FxHashMap<(PeerState, Stimulus), Rc<Reaction>>,
    births: FxHashMap<(Member, Disk), Rc<Reaction>>,
    pub(crate) packets: Names<Packet>,
    pub(crate) notifications: Names<Notification>,
    pub(crate) trees: Names<Vec<Txn>>,
    pub(crate) disks: Names<Disk>,
}

/// So many deadlines pass at the most until a peer has lost patience.
const SILENT_TIMERS: usize = 6;
/// When patience is over for good.
const LATE: Duration = Duration::from_secs(3600);

impl Peers {
    pub(crate) fn new(window_entries: usize) -> Self {
        let quorum = Quorum::majority_of((0..MEMBERS).map(server));
        let settings = std::array::from_fn(|member| PeerSettings {
            tick: Duration::from_nanos(2),
            init_limit: 1,
            sync_limit: 0,
            finalize_wait: Duration::ZERO,
            resend_min: LATE,
            resend_max: LATE,
            window_entries,
            ..PeerSettings::new(server(member), quorum.clone())
        });
        Self {
            settings,
            epoch_of_time: rollcall::clock::now(),
            states: Vec::new(),
            by_print: FxHashMap::default(),
            reactions: FxHashMap::default(),
            births: FxHashMap::default(),
            packets: Names::default(),
            notifications: Names::default(),
            trees: Names::default(),
            disks: Names::default(),
        }
    }

    /// The kinds of packets that were sent, by name.
    pub(crate) fn packets_met(&self) -> BTreeSet<String> {
        let kind_of = |packet| {
            let text = format!("{packet:?}");
            text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
        };
        self.packets.things.iter().map(kind_of).collect()
    }

    /// How many states of peers, and how many reactions of theirs, were seen.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.states.len(), self.reactions.len())
    }

    pub(crate) fn face(&self, peer: PeerState) -> Face {
        self.states[peer.0 as usize].face
    }

    /// A member starts over what its disk holds; everybody can be reached.
    ///
    /// # Errors
    ///
    /// When one of its own assertions fails.
    pub(crate) fn start(&mut self, member: Member, disk: &Disk) -> Result<Rc<Reaction>, String> {
        let key = (member, disk.clone());
        if let Some(reaction) = self.births.get(&key) {
            return Ok(Rc::clone(reaction));
        }
        let (settings, recovery, now) = (self.settings[member].clone(), disk.recovery(), self.epoch_of_time);
        let peer = guard(move || {
            let mut peer = Peer::new(settings, recovery, now);
            for other in (0..MEMBERS).filter(|other| *other != member) {
                peer.handle(now, Input::Reachable(server(other), true));
            }
            peer
        })?;
        let reaction = Rc::new(self.observe(peer, 0));
        self.births.insert(key, Rc::clone(&reaction));
        Ok(reaction)
    }

    /// What a peer does about something.
    ///
    /// # Errors
    ///
    /// When one of its own assertions fails.
    pub(crate) fn react(&mut self, peer: PeerState, stimulus: Stimulus) -> Result<Rc<Reaction>, String> {
        if let Some(reaction) = self.reactions.get(&(peer, stimulus)) {
            return Ok(Rc::clone(reaction));
        }
        let Known { peer: known, dialled, .. } = &self.states[peer.0 as usize];
        let dialled = *dialled;
        let next = guard(|| {
            let mut next = known.clone();
            self.apply(&mut next, stimulus, dialled);
            next
        })?;
        let reaction = Rc::new(self.observe(next, dialled));
        self.reactions.insert((peer, stimulus), Rc::clone(&reaction));
        Ok(reaction)
    }

    fn apply(&self, peer: &mut Peer, stimulus: Stimulus, dialled: u64) {
        let now = self.epoch_of_time;
        let link = |link: u8| LinkId(u64::from(link));
        match stimulus {
            Stimulus::Vote(from, message) => {
                let message = self.notifications.get(message).clone();
                peer.handle(now, Input::Notification(server(from), message));
            }
            Stimulus::Follow(leader) => follow(peer, leader, now),
            Stimulus::Lead(me) => lead(peer, me, now),
            Stimulus::Accepted(id) => peer.handle(now, Input::Accepted(link(id))),
            Stimulus::Dialled(id) => {
                peer.handle(now, Input::Dialled { attempt: dialled, link: Some(link(id)) });
            }
            Stimulus::Packet(id, packet) => {
                peer.handle(now, Input::Packet(link(id), self.packets.get(packet).clone()));
            }
            Stimulus::Tree(id, tree) => {
                peer.handle(now, Input::SnapshotReceived(link(id), to_body(self.trees.get(tree))));
            }
            // So late that nobody dials again.
            Stimulus::Closed(id) => peer.handle(now + LATE, Input::LinkClosed(link(id))),
            Stimulus::Durable(zxid) => peer.handle(now, Input::Durable(zxid)),
            Stimulus::AcceptedEpochDurable(epoch) => peer.handle(now, Input::AcceptedEpochDurable(epoch)),
            Stimulus::CurrentEpochDurable(epoch) => peer.handle(now, Input::CurrentEpochDurable(epoch)),
            Stimulus::Reloaded(disk) => peer.handle(now, Input::Reloaded(self.disks.get(disk).recovery())),
            Stimulus::LogRead(id, entries) => {
                let entries =
                    entries.map(|entries| self.trees.get(entries).iter().map(|txn| txn.entry()).collect());
                peer.handle(now, Input::LogRead { link: link(id), entries });
            }
            Stimulus::Deadline => peer.handle_timeout(now),
            Stimulus::Resend => {
                if let Some(deadline) = peer.poll_timeout() {
                    peer.handle_timeout(deadline);
                }
            }
            Stimulus::Silence => {
                let state = peer.state();
                for _ in 0..SILENT_TIMERS {
                    if peer.state() == state
                        && let Some(deadline) = peer.poll_timeout()
                    {
                        peer.handle_timeout(deadline);
                    }
                }
            }
            Stimulus::Propose(txn) => peer.propose(txn.entry()),
        }
    }

    /// Takes what a peer wants done, and finds the number of the state that it is in.
    fn observe(&mut self, mut peer: Peer, mut dialled: u64) -> Reaction {
        let mut effects = Vec::new();
        while let Some(output) = peer.poll_output() {
            if let Output::Dial { attempt, .. } = output {
                dialled = attempt;
            }
            effects.extend(self.effect_of(output));
        }
        let print = print_of(&peer);
        let next = PeerState(u32::try_from(self.states.len()).expect("a search ends before"));
        let state = *self.by_print.entry(print).or_insert(next);
        if state == next {
            let face = Face {
                state: peer.state(),
                next_zxid: peer.next_zxid(),
                is_serving: peer.leader().is_some(),
                is_due: peer.poll_timeout() == Some(self.epoch_of_time),
            };
            self.states.push(Known { peer, face, dialled });
        }
        Reaction { peer: state, effects }
    }

    fn effect_of(&mut self, output: Output) -> Option<Effect> {
        let link = |link: LinkId| u8::try_from(link.0).expect("links have small numbers");
        Some(match output {
            Output::SendVote(to, message) => Effect::Vote(member(to), self.notifications.name(message)),
            Output::Dial { server, .. } => Effect::Dial(member(server)),
            Output::Send(id, packet) => Effect::Send(link(id), self.packets.name(packet)),
            Output::CloseLink(id) => Effect::Close(link(id)),
            Output::Append(entry) => Effect::Write(Write::Append(Txn::of(&entry))),
            Output::SetAcceptedEpoch(epoch) => Effect::Write(Write::AcceptedEpoch(epoch)),
            Output::SetCurrentEpoch(epoch) => Effect::Write(Write::CurrentEpoch(epoch)),
            Output::Truncate { zxid, is_reload } => Effect::Write(Write::Truncate { zxid, is_reload }),
            Output::ReadLog { link: id, after } => Effect::Write(Write::ReadLog { link: link(id), after }),
            Output::Event(event) => match event {
                Event::Deliver(entry) => Effect::Deliver(Txn::of(&entry)),
                Event::Led(epoch) => Effect::Led(epoch),
                Event::Followed { leader, epoch } => Effect::Followed(member(leader), epoch),
                Event::SendSnapshot(id) => Effect::SendTree(link(id)),
                Event::InstallSnapshot { body, .. } => Effect::Install(self.trees.name(from_body(&body))),
                Event::Lost
                | Event::Request(..)
                | Event::Revalidate { .. }
                | Event::Touched(_)
                | Event::Revalidated { .. }
                | Event::Pinged(_)
                | Event::Synced
                | Event::Synchronizing { .. } => return None,
            },
        })
    }
}

/// Tells a peer that looks for a leader that all others have this one.
fn follow(peer: &mut Peer, leader: Member, now: Instant) {
    // In a round that is none, so that the peer's count of rounds does not grow.
    let vote = Some(Vote { epoch: Epoch(0), zxid: Zxid::ZERO, leader: server(leader) });
    for from in (0..MEMBERS).filter(|from| *from != leader).chain([leader]) {
        let state = if from == leader { ServerState::Leading } else { ServerState::Following };
        let message = Notification { state, round: 0, vote, config: Bytes::new() };
        peer.handle(now, Input::Notification(server(from), message));
    }
}

/// Tells a peer that looks for a leader that the others vote for it, unless it has no history and so no say.
fn lead(peer: &mut Peer, me: Member, now: Instant) {
    let mut others = (0..MEMBERS).filter(|other| *other != me).map(server);
    let Some(other) = others.next() else { return };
    // Its vote is what it says to somebody whose round is over.
    let blank = Vote { epoch: Epoch(0), zxid: Zxid::NONE, leader: other };
    let question =
        Notification { state: ServerState::Looking, round: 0, vote: Some(blank), config: Bytes::new() };
    let mut asked = peer.clone();
    asked.handle(now, Input::Notification(other, question));
    while let Some(output) = asked.poll_output() {
        if let Output::SendVote(_, answer) = output
            && answer.vote.is_some_and(|vote| vote.zxid != Zxid::NONE)
        {
            for from in [Some(other), others.next()].into_iter().flatten() {
                peer.handle(now, Input::Notification(from, answer.clone()));
            }
            return;
        }
    }
}

/// Runs the real thing; a failed assertion of its own becomes an error.
fn guard<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

/// Two states with the same print are one. How often a peer has dialled makes no difference, since dials are answered at once;
/// nor does how often it has sent its vote, since it does so only when nothing else happens.
fn print_of(peer: &Peer) -> u64 {
    let mut print = Print { hasher: DefaultHasher::new(), numbers_to_skip: 0 };
    write!(print, "{peer:?}").expect("hashing does not fail");
    print.hasher.finish()
}

struct Print {
    hasher: DefaultHasher,
    numbers_to_skip: u32,
}

impl fmt::Write for Print {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.numbers_to_skip > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            self.numbers_to_skip -= 1;
            return Ok(());
        }
        match text {
            "attempts" | "attempt" => self.numbers_to_skip = 1,
            // Seconds and nanoseconds of its deadline.
            "Resend" => self.numbers_to_skip = 2,
            _ => {}
        }
        text.hash(&mut self.hasher);
        Ok(())
    }
}

fn to_body(tree: &[Txn]) -> Bytes {
    tree.iter().flat_map(|txn| txn.zxid.raw().to_be_bytes().into_iter().chain([txn.tag])).collect()
}

fn from_body(body: &[u8]) -> Vec<Txn> {
    let (txns, rest) = body.as_chunks::<9>();
    assert!(rest.is_empty(), "a tree is made of whole txns");
    let parse = |txn: &[u8; 9]| {
        let (zxid, tag) = txn.split_first_chunk::<8>().expect("of nine bytes");
        Txn { zxid: Zxid::from_raw(i64::from_be_bytes(*zxid)), tag: tag[0] }
    };
    txns.iter().map(parse).collect()
}

pub(crate) fn server(member: Member) -> ServerId {
    ServerId::new(u8::try_from(member + 1).expect("there are three")).expect("from 1 on")
}

fn member(server: ServerId) -> Member {
    usize::from(server.get()) - 1
}

/// The number of something that is said or held, instead of the thing.
#[derive(Debug)]
pub(crate) struct Name<T>(u16, std::marker::PhantomData<T>);

impl<T> Clone for Name<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Name<T> {}

impl<T> PartialEq for Name<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Name<T> {}

impl<T> Hash for Name<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Things with their numbers.
pub(crate) struct Names<T> {
    things: Vec<T>,
    by_text: FxHashMap<String, u16>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { things: Vec::new(), by_text: FxHashMap::default() }
    }
}

impl<T: fmt::Debug> Names<T> {
    pub(crate) fn name(&mut self, thing: T) -> Name<T> {
        let next = u16::try_from(self.things.len()).expect("few different things are said");
        let name = *self.by_text.entry(format!("{thing:?}")).or_insert(next);
        if name == next {
            self.things.push(thing);
        }
        Name(name, std::marker::PhantomData)
    }

    pub(crate) fn get(&self, name: Name<T>) -> &T {
        &self.things[usize::from(name.0)]
    }
}

impl Disk {
    fn recovery(&self) -> Recovery {
        Recovery {
            snapshot: self.snapshot.last().map_or(Zxid::ZERO, |txn| txn.zxid),
            tail: self.log.iter().map(|txn| txn.entry()).collect::<Vec<Entry>>(),
            committed: Zxid::ZERO,
            accepted_epoch: self.accepted_epoch,
            current_epoch: (self.current_epoch > Epoch(0)).then_some(self.current_epoch),
        }
    }
}
