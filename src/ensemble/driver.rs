//! The loop that feeds the replica and carries out what it asks for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connection::{ConnectionEvent, Outbox};
use super::error::MemberError;
use super::four_letter::inspection::{self, Connected};
use super::log_thread::{LogCommand, LogEvent};
use super::peers::Peers;
use super::stats::MemberStats;
use super::waiting::WAITING_BYTES_MAX;
use crate::clock;
use crate::id::Zxid;
use crate::replica::{CloseReason, ConnectionId, Input, Now, Output, Recovery, Replica};
use crate::storage::Recovered;
use crate::zab::{LinkId, Packet};

/// Inputs handled between two looks at the timer.
const INPUTS_MAX: usize = 256;
/// Bytes for clients that may gather before they are handed over, since only what is handed over counts as waiting.
const TOLD_BYTES_MAX: usize = 8 << 20;

/// Everything that the driver owns.
pub(super) struct Driver {
    pub(super) replica: Replica,
    pub(super) connections: mpsc::Receiver<ConnectionEvent>,
    pub(super) log_events: mpsc::Receiver<LogEvent>,
    pub(super) log: Sender<LogCommand>,
    pub(super) outboxes: FxHashMap<ConnectionId, Outbox>,
    pub(super) peers: Peers,
    pub(super) is_serving: watch::Sender<bool>,
    pub(super) stats: Arc<MemberStats>,
}

impl Driver {
    /// Runs until told to stop; clients' sockets close then, and their sessions live on.
    ///
    /// # Errors
    ///
    /// When the log failed: what is not durable must not be acknowledged.
    ///
    /// # Panics
    ///
    /// When an invariant of the replica is broken.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), MemberError> {
        let ended = self.serve(&stop).await.map_err(|error| self.reason_of(error));
        if let Some(entry) = self.replica.take_unrecorded() {
            // If the log has failed, that is what is reported.
            let _ = self.log.send(LogCommand::RecordCommitted(entry));
        }
        // Whoever waits for this member's sockets to close waits no longer.
        stop.cancel();
        self.peers.shutdown().await;
        ended
    }

    /// Whoever finds the log thread gone may not have heard why yet: it has said so before it ended.
    fn reason_of(&mut self, error: MemberError) -> MemberError {
        if !matches!(error, MemberError::LogEnded) {
            return error;
        }
        while let Ok(event) = self.log_events.try_recv() {
            if let LogEvent::Failed(cause) = event {
                return MemberError::Storage(cause);
            }
        }
        error
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), MemberError> {
        let mut events = Vec::with_capacity(INPUTS_MAX);
        let mut peer_events = Vec::with_capacity(INPUTS_MAX);
        let mut told = Told::default();
        loop {
            // 1. Outputs, until there are none.
            self.carry_out(&mut told)?;
            // 2. The timer.
            let now = clock_now();
            let deadline = self.replica.poll_timeout();
            if deadline.is_some_and(|deadline| deadline <= now.monotonic) {
                self.replica.handle_timeout(now);
                continue;
            }
            // 3. Inputs: what is durable before what other members say before what clients ask.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                event = self.log_events.recv() => self.on_log_event(event)?,
                count = self.peers.recv_many(&mut peer_events, INPUTS_MAX) => {
                    if count == 0 {
                        return Err(MemberError::Broken);
                    }
                    for event in peer_events.drain(..) {
                        if let Some(input) = self.peers.input_of(event) {
                            if let Input::LinkClosed(link) = &input {
                                self.stop_reading_for(*link)?;
                            }
                            self.replica.handle(clock_now(), input);
                        }
                    }
                }
                count = self.connections.recv_many(&mut events, INPUTS_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    for event in events.drain(..) {
                        self.on_connection_event(event);
                        if self.replica.told_bytes() > TOLD_BYTES_MAX {
                            self.carry_out(&mut told)?;
                            // Connections write, and those that were cut off let go of what waited.
                            tokio::task::yield_now().await;
                        }
                    }
                }
                () = sleep_until(deadline) => {}
            }
        }
    }

    fn on_log_event(&mut self, event: Option<LogEvent>) -> Result<(), MemberError> {
        let input = match event {
            Some(LogEvent::Durable(zxid)) => Input::Durable(zxid),
            Some(LogEvent::AcceptedEpochDurable(epoch)) => Input::AcceptedEpochDurable(epoch),
            Some(LogEvent::CurrentEpochDurable(epoch)) => Input::CurrentEpochDurable(epoch),
            Some(LogEvent::Reloaded(recovered)) => Input::Reloaded(Box::new(recovery_of(*recovered))),
            Some(LogEvent::LogRead(link, entries)) => Input::LogRead { link, entries },
            Some(LogEvent::SnapshotSliceWritten) => Input::SnapshotSliceWritten,
            Some(LogEvent::Failed(error)) => return Err(MemberError::Storage(error)),
            None => return Err(MemberError::LogEnded),
        };
        self.replica.handle(clock_now(), input);
        Ok(())
    }

    fn on_connection_event(&mut self, event: ConnectionEvent) {
        let input = match event {
            ConnectionEvent::Connected(id, outbox) => {
                self.outboxes.insert(id, outbox);
                Input::Connected(id)
            }
            ConnectionEvent::Frame(id, frame) => Input::Frame(id, frame),
            ConnectionEvent::Inspect(word, reply) => {
                let connected = self.outboxes.iter().map(|(id, outbox)| Connected {
                    id: *id,
                    peer: outbox.peer(),
                    since_ms: outbox.since_ms(),
                    counts: outbox.counts(),
                });
                let text = inspection::answer(word, &self.replica, &self.stats, connected.collect());
                // Whoever asked may be gone.
                let _ = reply.send(text);
                return;
            }
            ConnectionEvent::Disconnected(id) => {
                self.outboxes.remove(&id);
                Input::Disconnected(id)
            }
        };
        self.replica.handle(clock_now(), input);
    }

    fn carry_out(&mut self, told: &mut Told) -> Result<(), MemberError> {
        loop {
            self.start_on_outputs(told)?;
            if told.is_empty() {
                break;
            }
            // Clients and members do not wait for one another, and most of it is a system call each: the few go first. So a
            // client alone has its reply before the learners have the commit, and many do not keep the learners waiting.
            if told.clients.len() <= told.members.len() {
                told.clients.drain(..).for_each(|(id, message)| self.tell_client(id, message));
                told.members.drain(..).for_each(|(link, message)| self.tell_member(link, message));
            } else {
                told.members.drain(..).for_each(|(link, message)| self.tell_member(link, message));
                told.clients.drain(..).for_each(|(id, message)| self.tell_client(id, message));
            }
        }
        let is_serving = self.replica.is_serving();
        self.is_serving.send_if_modified(|was| std::mem::replace(was, is_serving) != is_serving);
        self.stats.observe(&self.replica);
        self.stats.connections.store(self.outboxes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Hands over what is for the disk and the election, and sorts the rest by who is to be told.
    fn start_on_outputs(&mut self, told: &mut Told) -> Result<(), MemberError> {
        while let Some(output) = self.replica.poll_output() {
            let command = match output {
                Output::Append(entry) => LogCommand::Append(entry),
                Output::SetAcceptedEpoch(epoch) => LogCommand::SetAcceptedEpoch(epoch),
                Output::SetCurrentEpoch(epoch) => LogCommand::SetCurrentEpoch(epoch),
                Output::Truncate { zxid, is_reload } => LogCommand::Truncate { zxid, is_reload },
                Output::InstallSnapshot { zxid, body } => LogCommand::InstallSnapshot { zxid, body },
                Output::ReadLog { link, after } => LogCommand::ReadLog { link, after },
                Output::BeginSnapshot(zxid) => LogCommand::BeginSnapshot(zxid),
                Output::SnapshotSlice(slice) => LogCommand::SnapshotSlice(slice),
                Output::FinishSnapshot { zxid, digest } => LogCommand::FinishSnapshot { zxid, digest },
                Output::RecordCommitted(entry) => LogCommand::RecordCommitted(entry),
                Output::SendVote(to, message) => {
                    self.peers.send_vote(to, message);
                    continue;
                }
                Output::Dial { attempt, server } => {
                    self.peers.dial(attempt, server);
                    continue;
                }
                Output::Send(link, packet) => {
                    told.members.push((link, ToMember::Packet(packet)));
                    continue;
                }
                Output::SendSnapshot { link, zxid, body } => {
                    told.members.push((link, ToMember::Snapshot(zxid, body)));
                    continue;
                }
                Output::CloseLink(link) => {
                    self.stop_reading_for(link)?;
                    told.members.push((link, ToMember::Close));
                    continue;
                }
                Output::Reply(id, frame) => {
                    told.clients.push((id, ToClient::Reply(frame)));
                    continue;
                }
                Output::Notify(id, frame) => {
                    told.clients.push((id, ToClient::Notify(frame)));
                    continue;
                }
                Output::Close(id, reason) => {
                    told.clients.push((id, ToClient::Close(reason)));
                    continue;
                }
            };
            self.log.send(command).map_err(|_gone| MemberError::LogEnded)?;
        }
        Ok(())
    }

    /// What is read from the log for a learner that is gone keeps others waiting.
    fn stop_reading_for(&self, link: LinkId) -> Result<(), MemberError> {
        self.log.send(LogCommand::StopReading(link)).map_err(|_gone| MemberError::LogEnded)
    }

    fn tell_member(&mut self, link: LinkId, message: ToMember) {
        match message {
            ToMember::Packet(packet) => self.peers.send(link, packet),
            ToMember::Snapshot(zxid, body) => self.peers.send_snapshot(link, zxid, body),
            ToMember::Close => self.peers.close(link),
        }
    }

    fn tell_client(&mut self, id: ConnectionId, message: ToClient) {
        match message {
            ToClient::Reply(frame) => {
                if let Some(outbox) = self.outboxes.get_mut(&id) {
                    outbox.reply(frame);
                    self.make_room();
                }
            }
            ToClient::Notify(frame) => {
                self.notify(id, frame);
                self.make_room();
            }
            ToClient::Close(reason) => self.close(id, &reason),
        }
    }

    fn notify(&mut self, id: ConnectionId, frame: Bytes) {
        let Some(outbox) = self.outboxes.get_mut(&id) else { return };
        if !outbox.notify(frame) {
            let peer = outbox.peer();
            warn!(connection = id.0, %peer, "closing a connection that does not read what it is sent");
            if let Some(outbox) = self.outboxes.remove(&id) {
                outbox.cut_off();
            }
            self.replica.handle(clock_now(), Input::Disconnected(id));
        }
    }

    /// Closes connections until what waits for all clients is within its bound.
    fn make_room(&mut self) {
        while self.stats.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES_MAX {
            let greediest = self.outboxes.iter().max_by_key(|(_, outbox)| outbox.waiting_bytes());
            let Some(id) = greediest.map(|(id, _)| *id) else { return };
            let Some(outbox) = self.outboxes.remove(&id) else { return };
            let (peer, bytes) = (outbox.peer(), outbox.waiting_bytes());
            if bytes == 0 {
                // What waits belongs to connections that are closed already, and goes with them.
                self.outboxes.insert(id, outbox);
                return;
            }
            warn!(connection = id.0, %peer, bytes, "too much waits for clients that do not read; closing the connection with the most");
            self.stats.cut_off.fetch_add(1, Ordering::Relaxed);
            outbox.cut_off();
            self.replica.handle(clock_now(), Input::Disconnected(id));
        }
    }

    fn close(&mut self, id: ConnectionId, reason: &CloseReason) {
        let Some(outbox) = self.outboxes.remove(&id) else { return };
        match reason {
            CloseReason::Malformed(_) | CloseReason::UnknownOperation(_) | CloseReason::AuthRefused(_) => {
                self.stats.refusals.fetch_add(1, Ordering::Relaxed);
                warn!(connection = id.0, peer = %outbox.peer(), %reason, "closing a connection for what it sent");
            }
            CloseReason::ClientAhead { .. } => {
                let advice =
                    "it knows a longer history: this member's data are younger or not the ones it knows";
                warn!(connection = id.0, peer = %outbox.peer(), %reason, advice, "refusing a client");
            }
            CloseReason::NoSuchSession
            | CloseReason::SessionClosed
            | CloseReason::SessionExpired
            | CloseReason::SessionMoved
            | CloseReason::HandshakeTimeout
            | CloseReason::OutOfReach
            | CloseReason::NotServing => {}
        }
    }
}

/// What clients and members are to be told, each in order.
#[derive(Default)]
struct Told {
    clients: Vec<(ConnectionId, ToClient)>,
    members: Vec<(LinkId, ToMember)>,
}

enum ToClient {
    Reply(Bytes),
    Notify(Bytes),
    Close(CloseReason),
}

enum ToMember {
    Packet(Packet),
    Snapshot(Zxid, Bytes),
    Close,
}

impl Told {
    fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.members.is_empty()
    }
}

/// Reads both clocks, once per input.
fn clock_now() -> Now {
    Now { monotonic: clock::now(), unix_ms: clock::unix_ms() }
}

/// What storage recovered, as the replica takes it.
pub(super) fn recovery_of(recovered: Recovered) -> Recovery {
    let Recovered { tree, tail, committed, fuzzy_to, accepted_epoch, current_epoch, .. } = recovered;
    let accepted_epoch = accepted_epoch.unwrap_or_default();
    Recovery { tree, tail, committed, fuzzy_to, accepted_epoch, current_epoch }
}

async fn sleep_until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
