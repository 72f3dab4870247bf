//! An ensemble of one: the real replica, whose log is durable at once and gone with the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rollcall::clock;
use rollcall::id::{ServerId, SessionId, Xid, Zxid};
use rollcall::replica::{
    ConnectionId, Input, LocalSessionMode, Now, Output, Recovery, Replica, ReplicaSettings,
};
use rollcall::wire::{ConnectRequest, Request};
use rollcall::zab::{PeerSettings, Quorum};
use rollcall::znode::{SessionPassword, SessionTimeouts};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// The unit of its clockwork: sessions last two of them at least.
pub(crate) const TICK: Duration = Duration::from_secs(2);

/// Frames to a client, each with when it was sent.
pub(crate) type Frames = mpsc::UnboundedReceiver<(Instant, Vec<u8>)>;
type Outbox = mpsc::UnboundedSender<(Instant, Vec<u8>)>;

/// A handle on the member's task, which ends with the runtime.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    events: mpsc::UnboundedSender<ClientEvent>,
    connections: Arc<AtomicU64>,
}

/// What clients, and the test, have the member hear.
#[derive(Debug)]
pub(crate) enum ClientEvent {
    Connected(ConnectionId, Outbox),
    Frame(ConnectionId, Bytes),
    Disconnected(ConnectionId),
    /// These sessions end as if nothing had been heard of them.
    Expire(Vec<SessionId>),
}

impl Member {
    pub(crate) fn start() -> Self {
        let (events, inputs) = mpsc::unbounded_channel();
        let quorum = Quorum::majority_of([ServerId::STANDALONE]);
        let settings = ReplicaSettings {
            peer: PeerSettings { tick: TICK, ..PeerSettings::new(ServerId::STANDALONE, quorum) },
            session_timeouts: SessionTimeouts::from_tick(TICK),
            handshake_timeout: Duration::from_secs(10),
            snapshot_txns: u64::MAX,
            snapshot_bytes: u64::MAX,
            read_only_mode: false,
            local_sessions: LocalSessionMode::Off,
        };
        let replica = Replica::new(settings, Recovery::default(), now());
        let task = Task { replica, outboxes: BTreeMap::new(), inputs, appended: None };
        tokio::spawn(task.run());
        Self { events, connections: Arc::default() }
    }

    /// A connection, and what the member sends over it; that ends when the member closes it.
    pub(crate) fn connect(&self) -> (ConnectionId, Frames) {
        let id = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        let (outbox, frames) = mpsc::unbounded_channel();
        self.tell(ClientEvent::Connected(id, outbox));
        (id, frames)
    }

    pub(crate) fn tell(&self, event: ClientEvent) {
        // While the runtime ends, the member may go before its clients do.
        let _is_over = self.events.send(event);
    }
}

struct Task {
    replica: Replica,
    outboxes: BTreeMap<ConnectionId, Outbox>,
    inputs: mpsc::UnboundedReceiver<ClientEvent>,
    /// The last entry that was appended, and is not said to be durable yet.
    appended: Option<Zxid>,
}

impl Task {
    async fn run(mut self) {
        loop {
            self.carry_out();
            let due = self.replica.poll_timeout();
            tokio::select! {
                biased;
                event = self.inputs.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                () = sleep_to(due) => self.replica.handle_timeout(now()),
            }
        }
    }

    fn on_event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Connected(id, outbox) => {
                self.outboxes.insert(id, outbox);
                self.replica.handle(now(), Input::Connected(id));
            }
            ClientEvent::Frame(id, frame) => self.replica.handle(now(), Input::Frame(id, frame)),
            ClientEvent::Disconnected(id) => {
                self.outboxes.remove(&id);
                self.replica.handle(now(), Input::Disconnected(id));
            }
            ClientEvent::Expire(sessions) => sessions.into_iter().for_each(|session| self.expire(session)),
        }
    }

    /// Whoever knows a session's password can take it over and close it: its client is told that it has expired.
    fn expire(&mut self, session: SessionId) {
        let id = ConnectionId(u64::MAX);
        let request = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 10_000,
            session,
            password: SessionPassword::for_session(session),
            read_only: Some(false),
        };
        let (mut opening, mut closing) = (Vec::new(), Vec::new());
        request.encode(&mut opening);
        Request::CloseSession.encode(Xid(1), &mut closing);
        self.replica.handle(now(), Input::Connected(id));
        for frame in [opening, closing] {
            self.replica.handle(now(), Input::Frame(id, frame.into()));
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        loop {
            while let Some(output) = self.replica.poll_output() {
                self.carry_out_one(output);
            }
            let Some(zxid) = self.appended.take() else { return };
            self.replica.handle(now(), Input::Durable(zxid));
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        let input = match output {
            Output::Append(entry) => {
                self.appended = Some(entry.zxid);
                return;
            }
            Output::Reply(id, frame) | Output::Notify(id, frame) => {
                if let Some(outbox) = self.outboxes.get(&id) {
                    // A client that has hung up does not want it.
                    let _nobody_reads = outbox.send((clock::now(), frame.to_vec()));
                }
                return;
            }
            Output::Close(id, _reason) => {
                self.outboxes.remove(&id);
                return;
            }
            Output::SetAcceptedEpoch(epoch) => Input::AcceptedEpochDurable(epoch),
            Output::SetCurrentEpoch(epoch) => Input::CurrentEpochDurable(epoch),
            Output::SnapshotSlice(_) => Input::SnapshotSliceWritten,
            Output::BeginSnapshot(_) | Output::FinishSnapshot { .. } | Output::RecordCommitted(_) => return,
            other @ (Output::Truncate { .. }
            | Output::InstallSnapshot { .. }
            | Output::ReadLog { .. }
            | Output::SendVote(..)
            | Output::Dial { .. }
            | Output::Send(..)
            | Output::SendSnapshot { .. }
            | Output::CloseLink(_)) => unreachable!("it is alone, and asks for {other:?}"),
        };
        self.replica.handle(now(), input);
    }
}

fn now() -> Now {
    Now { monotonic: clock::now(), unix_ms: clock::unix_ms() }
}

async fn sleep_to(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
