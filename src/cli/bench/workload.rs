//! What the connections of a run do.

use std::fmt::Write;
use std::rc::Rc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::arguments::Workload;
use super::fan_out::FanOut;
use super::link::{Incoming, LinkError};
use super::root::Layout;
use super::run::{Pause, Run, Turn, Turns};
use crate::clock;
use crate::wire::{CreateRequest, Request};
use crate::znode::CreateMode;

/// Of a hundred operations of `mixed`, those that read.
const MIXED_GETS_PERCENT: u8 = 70;
const ANY_VERSION: i32 = -1;

/// How many connections do it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) connections: usize,
    /// Requests that each keeps unanswered.
    pub(super) pipeline: usize,
}

/// Starts the connections of a workload and returns how many there will be. They end when the run stops.
pub(super) fn start(
    workload: Workload,
    scale: Scale,
    run: &Rc<Run>,
    layout: &Layout,
    tasks: &mut JoinSet<()>,
) -> usize {
    match workload {
        Workload::Set | Workload::Get | Workload::Mixed | Workload::Ephemeral => {
            let requests = Rc::new(KeyRequests::new(layout));
            for place in 0..scale.connections {
                let operations = Operations::new(workload, &requests, layout, place);
                tasks.spawn_local(ask(run.clone(), place, scale.pipeline, operations));
            }
            scale.connections
        }
        Workload::Connect => {
            for place in 0..scale.connections {
                tasks.spawn_local(come_and_go(run.clone(), place));
            }
            scale.connections
        }
        Workload::Watch => {
            let fan_out = Rc::new(FanOut::new(scale.connections));
            let path = layout.watched();
            for place in 0..scale.connections {
                tasks.spawn_local(fan_out.clone().watch(run.clone(), place, path.clone()));
            }
            tasks.spawn_local(fan_out.write(run.clone(), scale.connections, path, layout.data()));
            scale.connections + 1
        }
        Workload::Idle => {
            for place in 0..scale.connections {
                tasks.spawn_local(idle(run.clone(), place));
            }
            scale.connections
        }
    }
}

/// Keeps `pipeline` operations unanswered.
async fn ask(run: Rc<Run>, place: usize, pipeline: usize, mut operations: Operations) {
    run.keep_open(place, async |link| {
        operations.restart();
        let mut turns = Turns::new(&run, link)?;
        loop {
            let now = clock::now();
            while link.unanswered() < pipeline {
                link.submit(operations.next(), now);
            }
            if turns.next(link).await? == Turn::Stopped {
                return Ok(());
            }
            let now = clock::now();
            while let Some(incoming) = link.next(now)? {
                match incoming {
                    Incoming::Reply { latency, result: Ok(()) } => run.complete(now, latency),
                    Incoming::Reply { result: Err(error), .. } => run.fail(&error.to_string(), 1),
                    Incoming::Pong { .. } | Incoming::Event => {}
                }
            }
        }
    })
    .await;
}

/// Opens and closes sessions at one server, until an error sends it to the next.
async fn come_and_go(run: Rc<Run>, place: usize) {
    let (mut server, mut pause) = (place, Pause::default());
    let mut was_open = false;
    while !run.stopped().is_cancelled() {
        let began = clock::now();
        match open_and_close(&run, server).await {
            Ok(()) => {
                let now = clock::now();
                run.complete(now, now.saturating_duration_since(began));
                pause = Pause::default();
                if !was_open {
                    was_open = true;
                    run.note_opened();
                }
            }
            Err(error) => {
                run.fail(&error.to_string(), 1);
                server += 1;
                pause.wait(run.stopped()).await;
            }
        }
    }
}

async fn open_and_close(run: &Run, server: usize) -> Result<(), LinkError> {
    run.open(server, run.new_session()).await?.close().await
}

/// Keeps a session open and does nothing with it: pings are what the connection does by itself.
async fn idle(run: Rc<Run>, place: usize) {
    run.keep_open(place, async |link| {
        let mut turns = Turns::new(&run, link)?;
        while turns.next(link).await? == Turn::Received {
            let now = clock::now();
            while let Some(incoming) = link.next(now)? {
                match incoming {
                    Incoming::Pong { latency } => run.complete(now, latency),
                    Incoming::Reply { .. } | Incoming::Event => {}
                }
            }
        }
        Ok(())
    })
    .await;
}

/// The requests that are made for each key, ready made and shared by all connections.
#[derive(Debug)]
struct KeyRequests {
    gets: Vec<Request>,
    sets: Vec<Request>,
}

impl KeyRequests {
    fn new(layout: &Layout) -> Self {
        let paths = || (0..layout.keys()).map(|key| layout.key(key));
        let set = |path| Request::SetData { path, data: Some(layout.data()), version: ANY_VERSION };
        let get = |path| Request::GetData { path, watch: false };
        Self { gets: paths().map(get).collect(), sets: paths().map(set).collect() }
    }
}

/// The endless sequence of one connection's operations.
#[derive(Debug)]
struct Operations {
    gets_percent: Option<u8>,
    requests: Rc<KeyRequests>,
    random: fastrand::Rng,
    ephemerals: Ephemerals,
}

impl Operations {
    fn new(workload: Workload, requests: &Rc<KeyRequests>, layout: &Layout, place: usize) -> Self {
        let gets_percent = match workload {
            Workload::Set => Some(0),
            Workload::Get => Some(100),
            Workload::Mixed => Some(MIXED_GETS_PERCENT),
            Workload::Ephemeral | Workload::Connect | Workload::Watch | Workload::Idle => None,
        };
        let ephemerals = Ephemerals::new(layout.ephemeral(place), layout.data());
        Self { gets_percent, requests: requests.clone(), random: fastrand::Rng::new(), ephemerals }
    }

    /// A connection was lost, and nobody knows which of its operations were carried out.
    const fn restart(&mut self) {
        self.ephemerals.restart();
    }

    fn next(&mut self) -> &Request {
        let Some(gets_percent) = self.gets_percent else { return self.ephemerals.next() };
        let is_get = self.random.u8(0..100) < gets_percent;
        let requests = if is_get { &self.requests.gets } else { &self.requests.sets };
        &requests[self.random.usize(0..requests.len())]
    }
}

/// Creates an ephemeral, deletes it, creates the next. Each has a name of its own: one that is left over, because its
/// connection was lost, is in nobody's way.
#[derive(Debug)]
struct Ephemerals {
    create: Request,
    delete: Request,
    /// The length of the path without its number.
    stem_bytes: usize,
    number: u64,
    is_created: bool,
}

impl Ephemerals {
    fn new(stem: String, data: Bytes) -> Self {
        let stem_bytes = stem.len();
        let create = Request::Create(CreateRequest::open(stem.clone(), data, CreateMode::Ephemeral));
        let delete = Request::Delete { path: stem, version: ANY_VERSION };
        Self { create, delete, stem_bytes, number: 0, is_created: false }
    }

    const fn restart(&mut self) {
        self.is_created = false;
    }

    fn next(&mut self) -> &Request {
        self.is_created = !self.is_created;
        if !self.is_created {
            return &self.delete;
        }
        self.number += 1;
        for request in [&mut self.create, &mut self.delete] {
            let (Request::Create(CreateRequest { path, .. }) | Request::Delete { path, .. }) = request else {
                unreachable!("made so above");
            };
            path.truncate(self.stem_bytes);
            write!(path, "{}", self.number).expect("a String takes everything");
        }
        &self.create
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(workload: Workload) -> Operations {
        let layout = Layout::new(10, 3);
        Operations::new(workload, &Rc::new(KeyRequests::new(&layout)), &layout, 7)
    }

    #[test]
    fn mixed_reads_seven_times_of_ten() {
        let mut operations = operations(Workload::Mixed);
        let gets = (0..10_000).filter(|_| matches!(operations.next(), Request::GetData { .. })).count();
        // Six standard deviations.
        assert!((6_725..7_275).contains(&gets), "{gets}");
    }

    #[test]
    fn set_and_get_do_one_thing() {
        let mut sets = operations(Workload::Set);
        assert!((0..100).all(|_| matches!(sets.next(), Request::SetData { .. })));
        let mut gets = operations(Workload::Get);
        assert!((0..100).all(|_| matches!(gets.next(), Request::GetData { .. })));
    }

    #[test]
    fn each_ephemeral_is_created_then_deleted_and_none_twice() {
        let mut operations = operations(Workload::Ephemeral);
        let mut names = Vec::new();
        for turn in 0..4 {
            if turn == 2 {
                // The delete is left out after a lost connection.
                operations.next();
                operations.restart();
            }
            let Request::Create(create) = operations.next() else { panic!("turn {turn} creates nothing") };
            let created = create.path.clone();
            let Request::Delete { path, .. } = operations.next() else {
                panic!("turn {turn} deletes nothing")
            };
            let deleted = path.clone();
            assert_eq!(created, deleted);
            assert!(!names.contains(&created), "{created} again");
            names.push(created);
        }
    }
}
