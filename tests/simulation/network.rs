//! The network: directed links that can be cut, and connections over them that behave like TCP's.
//!
//! A connection delivers in order. What meets a cut waits, as unacknowledged bytes do, and goes on when the cut is healed; a
//! connection that was cut for too long is given up. Then, and when a process at one end dies, each end has received some
//! prefix of what was sent to it and hears of the end at a time of its own. So a message is never lost while a later one of
//! the same connection arrives.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;
use rollcall::id::Zxid;
use rollcall::zab::Packet;

use crate::time::{Agenda, MS, Nanos, SECOND};
use crate::world::Event;

/// A machine: members first, then clients.
pub(crate) type Site = usize;

/// One connection; its number serves as the id that a member gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PipeId(pub(crate) u64);

/// A process, as one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) site: Site,
    /// Which of the processes that ran there.
    pub(crate) life: u32,
}

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Packet(Packet),
    /// The body of a snapshot, and up to which txn it may hold effects.
    Snapshot {
        body: Bytes,
        fuzzy_until: Zxid,
    },
    /// Of the client protocol, without its length.
    Frame(Bytes),
    /// The other end has closed.
    Fin,
    /// The connection is gone.
    Broken,
}

/// How long messages take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) min: Nanos,
    pub(crate) max: Nanos,
    /// One in how many messages takes up to a hundred times as long; 0 for none.
    pub(crate) one_slow_in: u32,
}

impl Latency {
    pub(crate) fn draw(&self, rng: &mut Rng) -> Nanos {
        let latency = rng.u64(self.min..=self.max);
        let is_slow = self.one_slow_in > 0 && rng.u32(0..self.one_slow_in) == 0;
        if is_slow { latency * rng.u64(2..100) } else { latency }
    }
}

#[derive(Debug)]
pub(crate) struct Network {
    sites: usize,
    pub(crate) latency: Latency,
    rng: Rng,
    /// How many faults cut each directed link now.
    cuts: Vec<u32>,
    /// Counts how often each directed link was cut.
    cut_numbers: Vec<u64>,
    pipes: BTreeMap<PipeId, Pipe>,
    next_pipe: u64,
}

#[derive(Debug)]
struct Pipe {
    ends: [End; 2],
    /// From each end to the other.
    lanes: [Lane; 2],
    is_broken: bool,
}

#[derive(Debug)]
struct End {
    process: Process,
    is_open: bool,
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<(Nanos, Item)>,
    last_at: Nanos,
    is_scheduled: bool,
    is_stalled: bool,
}

impl Network {
    pub(crate) fn new(sites: usize, latency: Latency, rng: Rng) -> Self {
        Self {
            sites,
            latency,
            rng,
            cuts: vec![0; sites * sites],
            cut_numbers: vec![0; sites * sites],
            pipes: BTreeMap::new(),
            next_pipe: 1,
        }
    }

    pub(crate) fn draw_latency(&mut self) -> Nanos {
        self.latency.draw(&mut self.rng)
    }

    pub(crate) fn is_cut(&self, from: Site, to: Site) -> bool {
        self.cuts[from * self.sites + to] > 0
    }

    pub(crate) fn is_cut_off(&self, one: Site, other: Site) -> bool {
        self.is_cut(one, other) || self.is_cut(other, one)
    }

    /// Cuts a directed link until it is healed as often.
    pub(crate) fn cut(&mut self, from: Site, to: Site, agenda: &mut Agenda<Event>) {
        let index = from * self.sites + to;
        self.cuts[index] += 1;
        self.cut_numbers[index] += 1;
        let cut_number = self.cut_numbers[index];
        let crossing: Vec<_> = self.pipes_between(from, to).collect();
        for pipe in crossing {
            // A retransmission timeout.
            let patience = self.rng.u64(300 * MS..20 * SECOND);
            agenda.put_in(patience, Event::TcpTimeout { pipe, from, to, cut_number });
        }
    }

    pub(crate) fn heal(&mut self, from: Site, to: Site, agenda: &mut Agenda<Event>) {
        let cuts = &mut self.cuts[from * self.sites + to];
        *cuts = cuts.saturating_sub(1);
        if *cuts > 0 {
            return;
        }
        let crossing: Vec<_> = self.pipes_between(from, to).collect();
        for id in crossing {
            let delay = self.draw_latency();
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            let direction = usize::from(pipe.ends[0].process.site != from);
            let lane = &mut pipe.lanes[direction];
            if std::mem::take(&mut lane.is_stalled) {
                for (at, _) in &mut lane.items {
                    *at = (*at).max(agenda.now() + delay);
                }
                lane.last_at = lane.last_at.max(agenda.now() + delay);
                lane.schedule(id, direction, agenda);
            }
        }
    }

    /// Ends all cuts.
    pub(crate) fn heal_all(&mut self, agenda: &mut Agenda<Event>) {
        let sites = self.sites;
        for (from, to) in (0..sites).flat_map(|from| (0..sites).map(move |to| (from, to))) {
            while self.is_cut(from, to) {
                self.heal(from, to, agenda);
            }
        }
    }

    /// A connection has been cut since: it is given up.
    pub(crate) fn on_tcp_timeout(
        &mut self,
        pipe: PipeId,
        from: Site,
        to: Site,
        cut_number: u64,
        agenda: &mut Agenda<Event>,
    ) {
        if self.is_cut(from, to) && self.cut_numbers[from * self.sites + to] == cut_number {
            self.break_pipe(pipe, SECOND, agenda);
        }
    }

    /// Connects two processes; the one that dialled hears of it at `known_at`.
    pub(crate) fn connect(&mut self, dialler: Process, acceptor: Process, known_at: Nanos) -> PipeId {
        let id = PipeId(self.next_pipe);
        self.next_pipe += 1;
        let end = |process| End { process, is_open: true };
        let to_dialler = Lane { last_at: known_at, ..Lane::default() };
        let lanes = [Lane::default(), to_dialler];
        self.pipes.insert(id, Pipe { ends: [end(dialler), end(acceptor)], lanes, is_broken: false });
        id
    }

    /// Sends over a connection; nothing happens when it is gone.
    pub(crate) fn send(&mut self, id: PipeId, from: Process, item: Item, agenda: &mut Agenda<Event>) {
        let delay = self.draw_latency();
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let Some(direction) = pipe.end_of(from) else { return };
        if pipe.is_broken || !pipe.ends[direction].is_open {
            return;
        }
        pipe.lanes[direction].push(agenda.now() + delay, item);
        pipe.lanes[direction].schedule(id, direction, agenda);
    }

    /// Closes one end: what was sent arrives, and then the end of it.
    pub(crate) fn close(&mut self, id: PipeId, from: Process, agenda: &mut Agenda<Event>) {
        self.send(id, from, Item::Fin, agenda);
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let Some(direction) = pipe.end_of(from) else { return };
        pipe.ends[direction].is_open = false;
        pipe.lanes[1 - direction].items.clear();
        self.forget_if_closed(id);
    }

    /// Takes what has arrived; the other end with it.
    pub(crate) fn take(
        &mut self,
        id: PipeId,
        direction: usize,
        agenda: &mut Agenda<Event>,
    ) -> Option<(Process, Process, Item)> {
        let pipe = self.pipes.get_mut(&id)?;
        let (from, to) = (pipe.ends[direction].process, pipe.ends[1 - direction].process);
        let is_cut = self.cuts[from.site * self.sites + to.site] > 0;
        let lane = &mut pipe.lanes[direction];
        lane.is_scheduled = false;
        let (ready_at, item) = lane.items.front()?;
        if *ready_at > agenda.now() {
            lane.schedule(id, direction, agenda);
            return None;
        }
        if is_cut && !matches!(item, Item::Broken) {
            lane.is_stalled = true;
            return None;
        }
        let (_, item) = lane.items.pop_front()?;
        lane.schedule(id, direction, agenda);
        let end = &mut pipe.ends[1 - direction];
        let was_open = end.is_open;
        if matches!(item, Item::Fin | Item::Broken) {
            end.is_open = false;
            self.forget_if_closed(id);
        }
        was_open.then_some((to, from, item))
    }

    /// Breaks a connection; its ends hear of it within `notice`.
    pub(crate) fn break_pipe(&mut self, id: PipeId, notice: Nanos, agenda: &mut Agenda<Event>) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if std::mem::replace(&mut pipe.is_broken, true) {
            return;
        }
        for direction in [0, 1] {
            let lane = &mut pipe.lanes[direction];
            if !pipe.ends[1 - direction].is_open {
                lane.items.clear();
                continue;
            }
            let arrives = if lane.is_stalled { 0 } else { self.rng.usize(0..=lane.items.len()) };
            lane.items.truncate(arrives);
            lane.is_stalled = false;
            let at = agenda.now() + self.rng.u64(0..=notice);
            lane.push(at, Item::Broken);
            lane.schedule(id, direction, agenda);
        }
        self.forget_if_closed(id);
    }

    /// A process has ended: the other ends of its connections hear of it within `notice`.
    pub(crate) fn on_process_gone(&mut self, process: Process, notice: Nanos, agenda: &mut Agenda<Event>) {
        let ids: Vec<_> =
            self.pipes.iter().filter(|(_, pipe)| pipe.end_of(process).is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(pipe) = self.pipes.get_mut(&id)
                && let Some(direction) = pipe.end_of(process)
            {
                pipe.ends[direction].is_open = false;
            }
            self.break_pipe(id, notice, agenda);
            self.forget_if_closed(id);
        }
    }

    /// Any connection of which neither end is spared.
    pub(crate) fn any_pipe(&self, rng: &mut Rng, is_spared: impl Fn(Site, Site) -> bool) -> Option<PipeId> {
        let sites = |pipe: &Pipe| (pipe.ends[0].process.site, pipe.ends[1].process.site);
        let free =
            self.pipes.iter().filter(|(_, pipe)| !pipe.is_broken && !is_spared(sites(pipe).0, sites(pipe).1));
        rng.choice(free.map(|(id, _)| *id).collect::<Vec<_>>())
    }

    fn pipes_between(&self, one: Site, other: Site) -> impl Iterator<Item = PipeId> {
        let joins = move |pipe: &Pipe| {
            let sites = [pipe.ends[0].process.site, pipe.ends[1].process.site];
            sites == [one, other] || sites == [other, one]
        };
        self.pipes.iter().filter(move |(_, pipe)| joins(pipe)).map(|(id, _)| *id)
    }

    fn forget_if_closed(&mut self, id: PipeId) {
        if self.pipes.get(&id).is_some_and(|pipe| pipe.ends.iter().all(|end| !end.is_open)) {
            self.pipes.remove(&id);
        }
    }
}

impl Pipe {
    fn end_of(&self, process: Process) -> Option<usize> {
        self.ends.iter().position(|end| end.process == process)
    }
}

impl Lane {
    fn push(&mut self, at: Nanos, item: Item) {
        self.last_at = self.last_at.max(at);
        self.items.push_back((self.last_at, item));
    }

    fn schedule(&mut self, pipe: PipeId, direction: usize, agenda: &mut Agenda<Event>) {
        if let Some((at, _)) = self.items.front()
            && !self.is_scheduled
            && !self.is_stalled
        {
            self.is_scheduled = true;
            agenda.put(*at, Event::Arrival { pipe, direction });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: Process = Process { site: 0, life: 1 };
    const RECEIVER: Process = Process { site: 1, life: 1 };

    fn network(seed: u64) -> (Network, Agenda<Event>, PipeId) {
        let latency = Latency { min: MS, max: 50 * MS, one_slow_in: 5 };
        let mut network = Network::new(2, latency, Rng::with_seed(seed));
        let pipe = network.connect(SENDER, RECEIVER, 0);
        (network, Agenda::new(), pipe)
    }

    /// What the receiver gets, numbers for frames; `-1` for the end.
    fn receive(network: &mut Network, agenda: &mut Agenda<Event>, until: Nanos) -> Vec<i32> {
        let mut received = Vec::new();
        agenda.put(until, Event::Quiet);
        while let Some(event) = agenda.take() {
            match event {
                Event::Arrival { pipe, direction } => match network.take(pipe, direction, agenda) {
                    Some((RECEIVER, _, Item::Frame(bytes))) => received.push(i32::from(bytes[0])),
                    Some((RECEIVER, _, Item::Fin | Item::Broken)) => received.push(-1),
                    _ => {}
                },
                Event::TcpTimeout { pipe, from, to, cut_number } => {
                    network.on_tcp_timeout(pipe, from, to, cut_number, agenda);
                }
                Event::Quiet => break,
                _ => {}
            }
        }
        received
    }

    fn send(network: &mut Network, agenda: &mut Agenda<Event>, pipe: PipeId, numbers: std::ops::Range<u8>) {
        for number in numbers {
            network.send(pipe, SENDER, Item::Frame(Bytes::copy_from_slice(&[number])), agenda);
        }
    }

    #[test]
    fn a_connection_delivers_in_order_and_then_its_end() {
        for seed in 0..50 {
            let (mut network, mut agenda, pipe) = network(seed);
            send(&mut network, &mut agenda, pipe, 0..9);
            network.close(pipe, SENDER, &mut agenda);
            assert_eq!(receive(&mut network, &mut agenda, 100 * SECOND), [0, 1, 2, 3, 4, 5, 6, 7, 8, -1]);
        }
    }

    #[test]
    fn what_meets_a_short_cut_arrives_later_and_a_long_one_breaks_the_connection() {
        let (mut healed, mut broken) = (0, 0);
        for seed in 0..50 {
            let (mut network, mut agenda, pipe) = network(seed);
            network.cut(SENDER.site, RECEIVER.site, &mut agenda);
            send(&mut network, &mut agenda, pipe, 0..5);
            let mut received = receive(&mut network, &mut agenda, 5 * SECOND);
            network.heal(SENDER.site, RECEIVER.site, &mut agenda);
            received.extend(receive(&mut network, &mut agenda, 100 * SECOND));
            match received[..] {
                [0, 1, 2, 3, 4] => healed += 1,
                [-1] => broken += 1,
                _ => panic!("seed {seed}: {received:?}"),
            }
        }
        assert!(healed > 5 && broken > 5, "{healed} healed, {broken} broken");
    }

    #[test]
    fn of_a_broken_connection_each_end_gets_a_prefix_and_hears_of_it() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let (mut network, mut agenda, pipe) = network(seed);
            send(&mut network, &mut agenda, pipe, 0..5);
            network.break_pipe(pipe, SECOND, &mut agenda);
            send(&mut network, &mut agenda, pipe, 5..9);
            let received = receive(&mut network, &mut agenda, 100 * SECOND);
            let (end, prefix) = received.split_last().unwrap();
            assert_eq!(*end, -1);
            assert!(
                prefix.iter().copied().eq(0..i32::try_from(prefix.len()).unwrap()),
                "seed {seed}: {received:?}"
            );
            lengths.insert(prefix.len());
        }
        assert!(lengths.len() > 3 && !lengths.contains(&9));
    }
}
