//! The loop that feeds the replica and carries out what it asks for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connection::{ConnectionEvent, Outbox};
use super::error::MemberError;
use super::log_thread::{LogCommand, LogEvent};
use super::peers::Peers;
use super::stats::MemberStats;
use crate::clock;
use crate::replica::{CloseReason, ConnectionId, Input, Now, Output, Recovery, Replica};
use crate::storage::Recovered;

/// Inputs handled between two looks at the timer.
const INPUTS_MAX: usize = 256;

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
        let ended = self.serve(&stop).await;
        // Whoever waits for this member's sockets to close waits no longer.
        stop.cancel();
        self.peers.shutdown().await;
        ended
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), MemberError> {
        let mut events = Vec::with_capacity(INPUTS_MAX);
        let mut peer_events = Vec::with_capacity(INPUTS_MAX);
        loop {
            // 1. Outputs, until there are none.
            self.carry_out()?;
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
            Some(LogEvent::Reloaded(recovered)) => Input::Reloaded(recovery_of(*recovered)),
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
            ConnectionEvent::Disconnected(id) => {
                self.outboxes.remove(&id);
                Input::Disconnected(id)
            }
        };
        self.replica.handle(clock_now(), input);
    }

    fn carry_out(&mut self) -> Result<(), MemberError> {
        while let Some(output) = self.replica.poll_output() {
            let command = match output {
                Output::Append(entry) => LogCommand::Append(entry),
                Output::SetAcceptedEpoch(epoch) => LogCommand::SetAcceptedEpoch(epoch),
                Output::SetCurrentEpoch(epoch) => LogCommand::SetCurrentEpoch(epoch),
                Output::Truncate { zxid, is_reload } => LogCommand::Truncate { zxid, is_reload },
                Output::InstallSnapshot { zxid, body } => LogCommand::InstallSnapshot { zxid, body },
                Output::ReadLog { link, after } => LogCommand::ReadLog { link, after },
                Output::SendVote(to, message) => {
                    self.peers.send_vote(to, message);
                    continue;
                }
                Output::Dial { attempt, server } => {
                    self.peers.dial(attempt, server);
                    continue;
                }
                Output::Send(link, packet) => {
                    self.peers.send(link, packet);
                    continue;
                }
                Output::SendSnapshot { link, zxid, body } => {
                    self.peers.send_snapshot(link, zxid, body);
                    continue;
                }
                Output::CloseLink(link) => {
                    self.peers.close(link);
                    continue;
                }
                Output::BeginSnapshot(zxid) => LogCommand::BeginSnapshot(zxid),
                Output::SnapshotSlice(slice) => LogCommand::SnapshotSlice(slice),
                Output::FinishSnapshot { zxid, digest } => LogCommand::FinishSnapshot { zxid, digest },
                Output::Reply(id, frame) => {
                    if let Some(outbox) = self.outboxes.get_mut(&id) {
                        outbox.reply(frame);
                    }
                    continue;
                }
                Output::Notify(id, frame) => {
                    self.notify(id, frame);
                    continue;
                }
                Output::Close(id, reason) => {
                    self.close(id, &reason);
                    continue;
                }
            };
            self.log.send(command).map_err(|_gone| MemberError::LogEnded)?;
        }
        let is_serving = self.replica.is_serving();
        self.is_serving.send_if_modified(|was| std::mem::replace(was, is_serving) != is_serving);
        self.stats.observe(&self.replica);
        self.stats.connections.store(self.outboxes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn notify(&mut self, id: ConnectionId, frame: Vec<u8>) {
        let Some(outbox) = self.outboxes.get(&id) else { return };
        if !outbox.notify(frame) {
            let peer = outbox.peer();
            warn!(connection = id.0, %peer, "closing a connection that does not read what it is sent");
            self.outboxes.remove(&id);
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
            | CloseReason::NotServing => {}
        }
    }
}

/// Reads both clocks, once per input.
fn clock_now() -> Now {
    Now { monotonic: clock::now(), unix_ms: clock::unix_ms() }
}

/// What storage recovered, as the replica takes it.
pub(super) fn recovery_of(recovered: Recovered) -> Recovery {
    let Recovered { tree, tail, fuzzy_to, accepted_epoch, current_epoch, .. } = recovered;
    Recovery {
        tree,
        tail,
        fuzzy_to,
        accepted_epoch: accepted_epoch.unwrap_or_default(),
        current_epoch: current_epoch.unwrap_or_default(),
    }
}

async fn sleep_until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
