//! Starting and stopping a member.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::connection::{Connection, ConnectionEvent};
use super::driver::{Driver, recovery_of};
use super::error::MemberError;
use super::four_letter::FourLetterWord;
use super::log_limit::LogLimit;
use super::log_thread;
use super::peers::{PeerListeners, Peers};
use super::places::Places;
use super::settings::MemberSettings;
use super::stats::MemberStats;
use crate::clock;
use crate::replica::{ConnectionId, Now, Replica};
use crate::storage::{Disk, FileDisk, Storage};
use crate::tls::Tls;

/// A running member.
#[derive(Debug)]
pub struct Member {
    client_addr: SocketAddr,
    stats: Arc<MemberStats>,
    is_serving: watch::Receiver<bool>,
    stop: CancellationToken,
    driver: JoinHandle<Result<(), MemberError>>,
    acceptor: JoinHandle<()>,
    log: std::thread::JoinHandle<()>,
}

/// Events of connections that may wait for the driver; a full channel makes readers wait.
const EVENTS_MAX: usize = 4096;
/// How long to pause when a connection cannot be accepted (no descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Member {
    /// Recovers what is in the data directory, joins the other members at `peers`, and serves clients of `listener`. A member
    /// alone serves them when this returns; one with others as soon as there is a leader.
    ///
    /// # Errors
    ///
    /// When the data directory is damaged, used by another process or cannot be written.
    pub async fn start(
        mut settings: MemberSettings,
        listener: TcpListener,
        peers: Option<PeerListeners>,
    ) -> Result<Self, MemberError> {
        if settings.read_only_mode {
            // As Apache's: clients of a read-only member look for another by it.
            settings.four_letter_words.push(FourLetterWord::Isro);
        }
        let start_error = |source| MemberError::Start { data_dir: settings.data_dir.clone(), source };
        let client_addr = listener.local_addr().map_err(start_error)?;
        let (data_dir, log_dir) = (settings.data_dir.clone(), settings.log_dir.clone());
        let opened = tokio::task::spawn_blocking(move || {
            Storage::open(FileDisk::open(&data_dir, log_dir.as_deref())?)
        });
        let (mut storage, recovered) = opened.await.map_err(|_panicked| MemberError::Broken)??;
        check_voters(&mut storage, &settings)?;

        let stats = Arc::new(MemberStats::default());
        stats.is_alone.store(settings.peers.is_none(), Ordering::Relaxed);
        let (log, log_events, log_thread) =
            log_thread::spawn(storage, settings.snapshots_kept, stats.clone()).map_err(start_error)?;
        let now = Now { monotonic: clock::now(), unix_ms: clock::unix_ms() };
        let replica = Replica::new(settings.replica(), recovery_of(recovered), now);
        let (events, connections) = mpsc::channel(EVENTS_MAX);
        let (is_serving, mut serving) = watch::channel(false);
        let stop = CancellationToken::new();
        let tls = settings.peers.as_ref().and_then(|peers| peers.tls.clone());
        let tls = tls.map(Tls::load).transpose()?.map(Arc::new);
        let peers = match (&settings.peers, peers) {
            (Some(others), Some(listeners)) => Peers::start(settings.server_id, others, listeners, tls),
            (None, _) | (_, None) => Peers::none(),
        };
        let is_alone = settings.peers.is_none();
        let driver = Driver {
            replica,
            connections,
            log_events,
            log,
            outboxes: FxHashMap::default(),
            peers,
            is_serving,
            stats: stats.clone(),
        };
        let mut driver = tokio::spawn(driver.run(stop.clone()));
        tokio::select! {
            () = std::future::ready(()), if !is_alone => {}
            served = serving.wait_for(|is_serving| *is_serving) => { drop(served); }
            ended = &mut driver => return Err(reason_of(ended)),
        }
        let acceptor =
            tokio::spawn(accept(listener, Arc::new(settings), stats.clone(), events, stop.clone()));
        Ok(Self { client_addr, stats, is_serving: serving, stop, driver, acceptor, log: log_thread })
    }

    /// Where clients connect.
    pub const fn client_addr(&self) -> SocketAddr {
        self.client_addr
    }

    /// What the member counts.
    pub fn stats(&self) -> Arc<MemberStats> {
        self.stats.clone()
    }

    /// Whether clients are served, now and from now on.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.is_serving.clone()
    }

    /// Waits for the member to fail, which it does not do in health.
    ///
    /// # Errors
    ///
    /// Why it ended.
    pub async fn failed(&mut self) -> MemberError {
        let ended = (&mut self.driver).await;
        reason_of(ended)
    }

    /// Closes clients' sockets, writes what was asked for to disk and ends.
    ///
    /// # Errors
    ///
    /// When the member had failed before.
    pub async fn shutdown(self) -> Result<(), MemberError> {
        self.stop.cancel();
        let ended = self.driver.await.map_err(|_panicked| MemberError::Broken)?;
        // The acceptor and its connections end by the same token, the log with the driver's sender.
        let _ = self.acceptor.await;
        let log = self.log;
        let joined = tokio::task::spawn_blocking(move || log.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            return Err(MemberError::LogEnded);
        }
        ended
    }
}

/// The voters are recorded with the data: members with different ones would not be one ensemble. One that runs alone is the
/// only voter of its own: what it writes alone and what the others write without it would be two histories of one epoch.
fn check_voters<D: Disk>(storage: &mut Storage<D>, settings: &MemberSettings) -> Result<(), MemberError> {
    let voters: BTreeSet<_> = settings.quorum().voters().collect();
    let recorded = storage.recorded_voters()?;
    match recorded {
        Some(recorded) if recorded != voters && !settings.accept_members => {
            return Err(MemberError::OtherVoters { recorded, configured: voters });
        }
        Some(recorded) if recorded == voters => return Ok(()),
        Some(_) | None => {}
    }
    Ok(storage.record_voters(&voters)?)
}

fn reason_of(ended: Result<Result<(), MemberError>, tokio::task::JoinError>) -> MemberError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => MemberError::LogEnded,
        Err(_panicked) => MemberError::Broken,
    }
}

async fn accept(
    listener: TcpListener,
    settings: Arc<MemberSettings>,
    stats: Arc<MemberStats>,
    events: mpsc::Sender<ConnectionEvent>,
    stop: CancellationToken,
) {
    let places = Places::new(settings.connections_max, settings.address_connections_max);
    let mut connections = JoinSet::new();
    let mut next_id = 0;
    let (mut refusals, mut failures) = (LogLimit::default(), LogLimit::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            // Collects what ended; a panic in one connection's task ends that connection alone.
            Some(_ended) = connections.join_next() => continue,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(held_back) = failures.pass() {
                    warn!(%error, held_back, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match places.take(peer.ip()) {
            Ok(place) => place,
            Err(reason) => {
                if let Some(held_back) = refusals.pass() {
                    warn!(%peer, %reason, held_back, "too many connections; closing a new one");
                }
                continue;
            }
        };
        next_id += 1;
        let id = ConnectionId(next_id);
        debug!(connection = id.0, %peer, "accepted");
        let (settings, events, stats) = (settings.clone(), events.clone(), stats.clone());
        let connection = Connection { id, peer, settings, events: events.clone(), stats };
        connections.spawn(async move {
            // A task of its own, so that the driver hears of the end even if it is a panic.
            let _ = tokio::spawn(connection.run(socket)).await;
            let _ = events.send(ConnectionEvent::Disconnected(id)).await;
            drop(place);
        });
    }
    connections.shutdown().await;
}
