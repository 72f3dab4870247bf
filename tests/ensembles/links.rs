//! The network between the members of an ensemble: what one sends another can be held up, or slowed down.
//!
//! ```text
//! member i ──► 127.0.i.10+j, a proxy for i alone ──► 127.0.0.10+j, where member j listens
//!          ───────────── flow i ► j ─────────────►
//!          ◄──────────── flow j ► i ──────────────
//! ```
//!
//! Each member's settings have it look for the others at proxies. A connection carries bytes both ways, whoever made
//! it, so what can be cut is a flow: all that one member sends another, in connections made by either.
//!
//! As when packets are dropped, a cut loses nothing and closes nothing. Bytes wait, and so does the end of a connection;
//! new connections are neither taken nor refused by the member behind the cut. When it is healed, what waits arrives.
//! Other than with packets, whoever connects believes at once that it has, and no system gives a connection up.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rollcall::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::member::Member;
use crate::recorder::Recorder;

/// All flows between members, by the indices of who sends and who receives.
#[derive(Debug)]
pub(crate) struct Links {
    flows: BTreeMap<(usize, usize), watch::Sender<Flow>>,
    recorder: Recorder,
    /// The proxies end with it.
    _runtime: Runtime,
}

/// What happens to the bytes that one member sends another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    Cut,
    /// Each chunk takes a random time between these two, and none overtakes another.
    Delayed(Duration, Duration),
}

/// Read at a time.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks under way in one direction of a connection; whoever sends more has to wait, as with a full window.
const CHUNKS_MAX: usize = 256;

/// Where member `from` finds member `to`, by their ids.
pub(crate) fn host(from: u8, to: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, from, 10 + to)
}

impl Links {
    /// Starts the proxies, with every flow open.
    pub(crate) fn start(members: &[Member], recorder: &Recorder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let indices = 0..members.len();
        let pairs = indices.clone().flat_map(|from| indices.clone().map(move |to| (from, to)));
        let pairs: Vec<(usize, usize)> = pairs.filter(|(from, to)| from != to).collect();
        let flows: BTreeMap<_, _> =
            pairs.iter().map(|pair| (*pair, watch::Sender::new(Flow::Open))).collect();
        for (from, to) in pairs {
            let at = host(members[from].id, members[to].id);
            for target in members[to].peer_addresses() {
                let route = Route {
                    target,
                    there: flows[&(from, to)].subscribe(),
                    back: flows[&(to, from)].subscribe(),
                };
                let listener = runtime.block_on(TcpListener::bind((at, target.port())));
                let listener =
                    listener.expect("a port that is reserved is free at every address of loopback");
                runtime.spawn(serve(listener, route));
            }
        }
        Self { flows, recorder: recorder.clone(), _runtime: runtime }
    }

    /// Sets one flow. What is read by a proxy after this returns is treated so.
    pub(crate) fn set(&self, from: usize, to: usize, flow: Flow) {
        self.recorder.fault(format!("m{} to m{}: {flow:?}", from + 1, to + 1));
        self.flows[&(from, to)].send_replace(flow);
    }

    /// Sets both flows between each of the ones and each of the others.
    pub(crate) fn set_between(&self, ones: &[usize], others: &[usize], flow: Flow) {
        for one in ones {
            for other in others {
                self.set(*one, *other, flow);
                self.set(*other, *one, flow);
            }
        }
    }

    /// Opens every flow.
    pub(crate) fn heal(&self) {
        self.recorder.fault("all links: Open".to_owned());
        self.flows.values().for_each(|flow| _ = flow.send_replace(Flow::Open));
    }
}

impl Flow {
    fn delay(self) -> Duration {
        match self {
            Self::Open | Self::Cut => Duration::ZERO,
            Self::Delayed(least, most) => least + (most - least).mul_f64(fastrand::f64()),
        }
    }
}

/// From one member to a port of another, and back.
#[derive(Clone, Debug)]
struct Route {
    target: SocketAddr,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
}

async fn serve(listener: TcpListener, route: Route) {
    loop {
        let (near, _) = listener.accept().await.expect("loopback has room for a handful");
        tokio::spawn(carry(near, route.clone()));
    }
}

/// Carries one connection until both its ends have ended it.
async fn carry(near: TcpStream, mut route: Route) {
    // The beginning of a connection needs both directions.
    while *route.there.borrow() == Flow::Cut || *route.back.borrow() == Flow::Cut {
        wait_while_cut(&mut route.there).await;
        wait_while_cut(&mut route.back).await;
    }
    if is_given_up(&near).await {
        return;
    }
    // Whoever is not there refuses; here, the connection ends as soon as it has begun.
    let Ok(far) = TcpStream::connect(route.target).await else { return };
    let _is_only_slower = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(pass(near_in, far_out, route.there), pass(far_in, near_out, route.back));
}

/// Whether the member that connected did not wait until it was let through.
async fn is_given_up(near: &TcpStream) -> bool {
    // It is writable, so that this does not wait.
    let ready = near.ready(Interest::READABLE | Interest::WRITABLE).await;
    ready.map_or(true, |ready| ready.is_read_closed() || ready.is_error())
}

/// Passes on what comes, until its end has been passed on or nobody takes it any more.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, flow: watch::Receiver<Flow>) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let mut gate = flow.clone();
    let reading = async move {
        let mut due = clock::now();
        loop {
            let mut bytes = vec![0; CHUNK_BYTES];
            // That a connection is reset is passed on as its end.
            let count = from.read(&mut bytes).await.unwrap_or(0);
            bytes.truncate(count);
            due = due.max(clock::now() + flow.borrow().delay());
            if sender.send((due, bytes)).await.is_err() || count == 0 {
                return std::future::pending().await;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = chunks.recv().await {
            tokio::time::sleep_until(due.into()).await;
            wait_while_cut(&mut gate).await;
            let passed = if bytes.is_empty() { to.shutdown().await } else { to.write_all(&bytes).await };
            if bytes.is_empty() || passed.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
}

async fn wait_while_cut(flow: &mut watch::Receiver<Flow>) {
    if flow.wait_for(|flow| *flow != Flow::Cut).await.is_err() {
        // The ensemble is about to end.
        std::future::pending().await
    }
}
