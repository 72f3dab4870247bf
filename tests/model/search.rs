//! Breadth first through all states, so that the first violation found is one with the fewest steps.
//!
//! Of a state that was seen only a print of 64 bits is kept, and the step that led there: a trace is found by taking the
//! steps again. Two of n states share a print with a probability of n² / 2^65, which is one in a million for six million.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use rustc_hash::FxHashMap;

use crate::bounds::{Bounds, Election};
use crate::peers::{MEMBERS, Peers};
use crate::property::{Property, Violation};
use crate::step::{Step, Told, steps};
use crate::world::{Stop, World};

/// What a search has seen.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) steps: usize,
    pub(crate) depth: usize,
    /// Steps that would have gone beyond a bound.
    pub(crate) cut: usize,
    /// Epochs in which a leader was established, at the most, and txns that were delivered.
    pub(crate) reigns: usize,
    pub(crate) delivered: usize,
    pub(crate) packets: BTreeSet<String>,
    pub(crate) peer_states: usize,
    pub(crate) reactions: usize,
    pub(crate) violation: Option<(Violation, String)>,
}

/// Goes through all states within the bounds, or until a property does not hold.
pub(crate) fn search(bounds: &Bounds) -> Found {
    let mut peers = Peers::new(bounds.window_entries);
    let start = World::new(bounds.disks_at_start.clone(), &mut peers, bounds);
    let Ok(start) = start else { panic!("{start:?}") };
    let mut seen = Seen::default();
    seen.note(&start, None);
    let mut found = Found::default();
    let mut level = vec![(0, start.clone())];
    let mut violation = None;
    'search: while !level.is_empty() {
        let mut next_level = Vec::new();
        for (number, world) in &level {
            found.reigns = found.reigns.max(world.reigns.len());
            found.delivered = found.delivered.max(world.committed.len());
            if world.is_settled(&peers) {
                seen.settled.push(*number);
            }
            for step in steps(world, &peers, bounds) {
                found.steps += 1;
                match world.after(step, &mut peers, bounds) {
                    Ok(next) => {
                        let (to, is_new) = seen.note(&next, Some((*number, step)));
                        if is_new {
                            next_level.push((to, next));
                        }
                        if bounds.election != Election::Any {
                            seen.steps.push((*number, to));
                        }
                    }
                    Err(Stop::Bound) => {
                        // What lies beyond is not known.
                        seen.settled.push(*number);
                        found.cut += 1;
                    }
                    Err(Stop::Idle) => {}
                    Err(Stop::Violation(what)) => {
                        violation = Some((what, *number, Some(step)));
                        break 'search;
                    }
                }
            }
        }
        assert!(
            seen.paths.len() <= bounds.states_max,
            "the bounds let in more than {} states",
            bounds.states_max
        );
        found.depth += usize::from(!next_level.is_empty());
        level = next_level;
    }
    if violation.is_none() && bounds.election != Election::Any {
        let how =
            "from here on no way leads to where all members have one leader and the same txns".to_owned();
        let violated = |number| (Violation { property: Property::NobodyIsStuck, how }, number, None);
        violation = seen.first_stuck().map(violated);
    }
    found.states = seen.paths.len();
    found.packets = peers.packets_met();
    (found.peer_states, found.reactions) = peers.counts();
    found.violation = violation.map(|(what, number, last)| {
        let mut path = seen.path_to(number);
        path.extend(last);
        (what, tell(&start, &path, &mut peers, bounds))
    });
    found
}

/// The states that were seen, numbered in this order.
#[derive(Default)]
struct Seen {
    by_print: FxHashMap<u64, u32>,
    /// How each was reached first.
    paths: Vec<Option<(u32, Step)>>,
    /// From which to which a step leads, where that matters.
    steps: Vec<(u32, u32)>,
    /// Where all is well.
    settled: Vec<u32>,
}

impl Seen {
    fn note(&mut self, world: &World, path: Option<(u32, Step)>) -> (u32, bool) {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        let next = u32::try_from(self.paths.len()).expect("a search ends before");
        match self.by_print.entry(hasher.finish()) {
            Entry::Occupied(entry) => (*entry.get(), false),
            Entry::Vacant(entry) => {
                entry.insert(next);
                self.paths.push(path);
                (next, true)
            }
        }
    }

    fn path_to(&self, mut number: u32) -> Vec<Step> {
        let mut path = Vec::new();
        while let Some((parent, step)) = self.paths[number as usize] {
            path.push(step);
            number = parent;
        }
        path.reverse();
        path
    }

    /// The first state from which none is reached where all is well.
    fn first_stuck(&mut self) -> Option<u32> {
        self.steps.sort_unstable_by_key(|(_, to)| *to);
        let mut is_well = vec![false; self.paths.len()];
        let mut todo = std::mem::take(&mut self.settled);
        while let Some(state) = todo.pop() {
            if std::mem::replace(&mut is_well[state as usize], true) {
                continue;
            }
            let first = self.steps.partition_point(|(_, to)| *to < state);
            let before = self.steps[first..].iter().take_while(|(_, to)| *to == state);
            todo.extend(before.map(|(from, _)| *from).filter(|from| !is_well[*from as usize]));
        }
        is_well.iter().position(|is_well| !is_well).and_then(|state| u32::try_from(state).ok())
    }
}

/// Takes the steps once more, and writes down what is seen.
fn tell(start: &World, path: &[Step], peers: &mut Peers, bounds: &Bounds) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    let mut world = start.clone();
    for (number, step) in path.iter().enumerate() {
        writeln!(text, "{:3}  {}", number + 1, Told(*step, &world, peers)).expect("a string takes it");
        match world.after(*step, peers, bounds) {
            Ok(next) => world = next,
            Err(_) => break,
        }
        for member in 0..MEMBERS {
            let place = &world.members[member];
            let disk = &place.disk;
            writeln!(
                text,
                "       {} {:9} accepted {} current {} log {:?} delivered {:?} writing {:?}",
                member + 1,
                world.face(member, peers).state.as_str(),
                disk.accepted_epoch,
                disk.current_epoch,
                disk.history().collect::<Vec<_>>(),
                place.delivered,
                place.writes,
            )
            .expect("a string takes it");
        }
    }
    text
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, depth, cut, reigns, delivered, packets, peer_states, reactions, violation } =
            self;
        write!(
            f,
            "{states} states, {steps} steps, depth {depth}, {cut} steps beyond the bounds; up to {reigns} epochs and \
             {delivered} txns; {peer_states} states of peers, {reactions} reactions; packets {}",
            packets.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
        )?;
        match violation {
            Some((violation, trace)) => write!(f, "\n{trace}{violation}"),
            None => Ok(()),
        }
    }
}
