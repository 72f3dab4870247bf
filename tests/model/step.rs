//! What may happen next.

use std::fmt;

use rollcall::zab::ServerState;

use crate::bounds::{Bounds, Election};
use crate::peers::{MEMBERS, Member, Peers};
use crate::world::{Message, World};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A vote arrives.
    Vote { from: Member, to: Member },
    /// A member that looks for a leader finds this one.
    Follow { member: Member, leader: Member },
    /// A member that looks for a leader finds itself elected.
    Lead(Member),
    /// One end of a connection, 0 for the learner's, reads the next packet; or that there is none, when it has ended.
    Deliver { link: u8, end: usize },
    /// One end finds the connection broken, and never reads what is in it.
    Close { link: u8, end: usize },
    /// A member's disk does the oldest thing that it was asked for.
    Write(Member),
    /// A member has waited long enough for better votes.
    Deadline(Member),
    /// A member that nobody answers sends its vote again.
    Resend(Member),
    /// A member has not heard of anybody for too long.
    Silence(Member),
    /// A leader proposes.
    Propose(Member),
    /// A connection breaks; each end will find out.
    Break(u8),
    /// A member ends, after its disk has done so much of what it was asked for, and starts again.
    Crash { member: Member, written: u8, is_wiped: bool },
}

/// All that may happen, as far as the bounds allow.
pub(crate) fn steps(world: &World, peers: &Peers, bounds: &Bounds) -> Vec<Step> {
    let mut steps = Vec::new();
    for link in &world.links {
        for end in [0, 1] {
            let pipe = &link.pipes[end];
            if pipe.is_readable() {
                steps.push(Step::Deliver { link: link.id, end });
                if pipe.is_ending && !pipe.packets.is_empty() {
                    steps.push(Step::Close { link: link.id, end });
                }
            }
        }
    }
    for member in 0..MEMBERS {
        if !world.members[member].writes.is_empty() {
            steps.push(Step::Write(member));
        }
        let voters = (0..MEMBERS).filter(|from| world.votes[*from][member].is_some());
        steps.extend(voters.map(|from| Step::Vote { from, to: member }));
        let face = world.face(member, peers);
        match face.state {
            ServerState::Looking if bounds.election == Election::Any => {
                elections(world, member, peers, bounds, &mut steps);
            }
            ServerState::Looking if face.is_due => steps.push(Step::Deadline(member)),
            // With connections it is silence only once they have broken, which is a step of its own.
            ServerState::Leading
                if !world.links.iter().any(|link| link.ends[1] == member && link.is_whole()) =>
            {
                steps.push(Step::Silence(member));
            }
            ServerState::Looking | ServerState::Leading | ServerState::Following | ServerState::Observing => {
            }
        }
    }
    if steps.is_empty() && bounds.election != Election::Any {
        waits(world, peers, &mut steps);
    }
    chances(world, peers, bounds, &mut steps);
    steps
}

fn elections(world: &World, member: Member, peers: &Peers, bounds: &Bounds, steps: &mut Vec<Step>) {
    let spent = world.spent;
    let may_lead = member <= usize::from(spent.leaders) || !bounds.is_symmetric();
    if spent.reigns < bounds.reigns && may_lead {
        steps.push(Step::Lead(member));
    }
    let leads = |other: &Member| world.face(*other, peers).state == ServerState::Leading;
    steps.extend((0..MEMBERS).filter(leads).map(|leader| Step::Follow { member, leader }));
}

/// What happens only if nothing else does for long.
fn waits(world: &World, peers: &Peers, steps: &mut Vec<Step>) {
    for member in 0..MEMBERS {
        let face = world.face(member, peers);
        match face.state {
            ServerState::Looking => steps.push(Step::Resend(member)),
            ServerState::Following | ServerState::Leading | ServerState::Observing if !face.is_serving => {
                steps.push(Step::Silence(member));
            }
            ServerState::Following | ServerState::Leading | ServerState::Observing => {}
        }
    }
}

/// What need not happen.
fn chances(world: &World, peers: &Peers, bounds: &Bounds, steps: &mut Vec<Step>) {
    let spent = world.spent;
    if spent.breaks < bounds.breaks {
        steps.extend(world.links.iter().filter(|link| link.is_whole()).map(|link| Step::Break(link.id)));
    }
    for member in 0..MEMBERS {
        if spent.proposals < bounds.proposals && world.face(member, peers).next_zxid.is_some() {
            steps.push(Step::Propose(member));
        }
        let writes = u8::try_from(world.members[member].writes.len()).expect("few writes wait");
        if spent.crashes < bounds.crashes {
            steps.extend((0..=writes).map(|written| Step::Crash { member, written, is_wiped: false }));
        }
        if spent.wipes < bounds.wipes {
            steps.push(Step::Crash { member, written: 0, is_wiped: true });
        }
    }
}

/// A step, with what it is about.
pub(crate) struct Told<'a>(pub Step, pub &'a World, pub &'a Peers);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step, world, peers) = self;
        let ends = |id: u8, end: usize| {
            let link = world.links.iter().find(|link| link.id == id).expect("the step could be taken");
            (link, link.ends[end] + 1, link.ends[1 - end] + 1)
        };
        match *step {
            Step::Vote { from, to } => {
                let vote = world.votes[from][to].map(|vote| peers.notifications.get(vote));
                write!(f, "{} hears {}'s vote: {vote:?}", to + 1, from + 1)
            }
            Step::Follow { member, leader } => write!(f, "{} follows {}", member + 1, leader + 1),
            Step::Lead(member) => write!(f, "{} is elected", member + 1),
            Step::Deliver { link, end } => {
                let (link, to, from) = ends(link, end);
                match link.pipes[end].packets.front() {
                    Some(Message::Packet(packet)) => {
                        write!(f, "{to} gets {from}'s {:?}", peers.packets.get(*packet))
                    }
                    Some(Message::Tree(tree)) => {
                        write!(f, "{to} gets {from}'s tree {:?}", peers.trees.get(*tree))
                    }
                    None => write!(f, "{to} finds its connection with {from} closed"),
                }
            }
            Step::Close { link, end } => {
                let (link, to, from) = ends(link, end);
                let lost = link.pipes[end].packets.len();
                write!(f, "{to} finds its connection with {from} closed, {lost} packets unread")
            }
            Step::Write(member) => {
                write!(f, "{}'s disk does {:?}", member + 1, world.members[member].writes.front())
            }
            Step::Deadline(member) => write!(f, "{} has waited for better votes", member + 1),
            Step::Resend(member) => write!(f, "{} sends its vote again", member + 1),
            Step::Silence(member) => write!(f, "{} has not heard of anybody for too long", member + 1),
            Step::Propose(member) => write!(f, "{} proposes", member + 1),
            Step::Break(link) => {
                let (_, learner, leader) = ends(link, 0);
                write!(f, "the connection of {learner} to {leader} breaks")
            }
            Step::Crash { member, written, is_wiped } => {
                let place = &world.members[member];
                let what = if is_wiped { "loses its disk" } else { "crashes" };
                let done: Vec<_> = place.writes.iter().take(usize::from(written)).collect();
                write!(f, "{} {what} and starts again", member + 1)?;
                if done.is_empty() { Ok(()) } else { write!(f, "; its disk did {done:?} before") }
            }
        }
    }
}
