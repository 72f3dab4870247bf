//! Starting and stopping a member.

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
        let data_dir = settings.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Storage::open(FileDisk::open(&data_dir)?));
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;
    use crate::codec::Reader;
    use crate::id::{SessionId, Xid, Zxid};
    use crate::wire::{
        ConnectRequest, ConnectResponse, CreateRequest, ReplyHeader, Request, Response, split_frame,
        write_frame,
    };
    use crate::znode::{CreateMode, SessionPassword};

    /// The bare wire, so that nothing of our own client hides what the member does.
    struct Wire {
        socket: TcpStream,
        received: BytesMut,
        session: SessionId,
    }

    impl Wire {
        async fn connect(member: &Member, session: SessionId) -> Self {
            let socket = TcpStream::connect(member.client_addr()).await.unwrap();
            let mut wire = Self { socket, received: BytesMut::new(), session };
            let password = SessionPassword::for_session(session);
            let request = ConnectRequest {
                last_zxid_seen: Zxid::ZERO,
                timeout_ms: 10_000,
                session,
                password,
                read_only: Some(false),
            };
            wire.send(|out| request.encode(out)).await;
            let response = ConnectResponse::decode(&wire.receive().await.unwrap()).unwrap();
            wire.session = response.session;
            wire
        }

        async fn send(&mut self, content: impl FnOnce(&mut Vec<u8>)) {
            let mut frame = Vec::new();
            write_frame(&mut frame, content);
            self.socket.write_all(&frame).await.unwrap();
        }

        async fn receive(&mut self) -> Option<bytes::Bytes> {
            loop {
                if let Some(frame) = split_frame(&mut self.received, 1 << 20).unwrap() {
                    return Some(frame);
                }
                if self.socket.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        }

        async fn ask(&mut self, request: &Request) -> Result<Response, crate::znode::OpError> {
            self.send(|out| request.encode(Xid(1), out)).await;
            let frame = self.receive().await.expect("a reply");
            let mut reader = Reader::new(&frame);
            let header = ReplyHeader::decode(&mut reader).unwrap();
            match header.error {
                Some(error) => Err(error),
                None => Ok(Response::decode(request.op_code(), &mut reader).unwrap()),
            }
        }
    }

    async fn start(data_dir: &Path, snapshot_txns: u64) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings =
            MemberSettings { data_dir: data_dir.to_owned(), snapshot_txns, ..MemberSettings::default() };
        Member::start(settings, listener, None).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart_and_the_session_goes_on() {
        let data_dir = tempfile::tempdir().unwrap();
        let member = start(data_dir.path(), 7).await;
        let mut wire = Wire::connect(&member, SessionId::NONE).await;
        for number in 0..30 {
            let create = CreateRequest::open(format!("/n{number}"), "x", CreateMode::Ephemeral);
            wire.ask(&Request::Create(create)).await.unwrap();
        }
        member.shutdown().await.unwrap();
        assert_eq!(wire.receive().await, None, "a member that stops closes its sockets");

        let member = start(data_dir.path(), 7).await;
        let mut wire = Wire::connect(&member, wire.session).await;
        assert_ne!(wire.session, SessionId::NONE);
        let Ok(Response::Children(names)) =
            wire.ask(&Request::GetChildren { path: "/".into(), watch: false }).await
        else {
            panic!("no children")
        };
        assert_eq!(names.len(), 31);
        let stat = wire.ask(&Request::Exists { path: "/n29".into(), watch: false }).await.unwrap();
        assert!(matches!(stat, Response::Stat(stat) if stat.ephemeral_owner == wire.session));
        member.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn two_members_never_share_a_data_directory() {
        let data_dir = tempfile::tempdir().unwrap();
        let member = start(data_dir.path(), 100).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = MemberSettings { data_dir: data_dir.path().to_owned(), ..MemberSettings::default() };
        let refused = Member::start(settings, listener, None).await;
        assert!(matches!(refused, Err(MemberError::Storage(_))));
        member.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn four_letter_words_are_answered_in_text_and_count_nothing_that_is_gone() {
        let data_dir = tempfile::tempdir().unwrap();
        let member = start(data_dir.path(), 100).await;
        let mut wire = Wire::connect(&member, SessionId::NONE).await;
        assert_eq!(wire.ask(&Request::Ping).await, Ok(Response::Empty));
        let mut socket = TcpStream::connect(member.client_addr()).await.unwrap();
        socket.write_all(b"srvr").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("\nReceived: 2\nSent: 2\n"), "{text}");
        assert!(
            text.contains("\nOutstanding: 0\nZxid: 0x100000001\nMode: standalone\nNode count: 4\n"),
            "{text}"
        );
        member.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn garbage_ends_one_connection_and_leaves_others_served() {
        let data_dir = tempfile::tempdir().unwrap();
        let member = start(data_dir.path(), 100).await;
        let mut canary = Wire::connect(&member, SessionId::NONE).await;
        for garbage in [&[0xff; 8][..], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 3, 1, 2, 3], &[0, 0, 0, 0]] {
            let mut socket = TcpStream::connect(member.client_addr()).await.unwrap();
            socket.write_all(garbage).await.unwrap();
            let mut rest = Vec::new();
            // A reset is as good an end as a clean close.
            let _ = socket.read_to_end(&mut rest).await;
            assert_eq!(rest, b"", "nothing is said to {garbage:?}");
            assert_eq!(canary.ask(&Request::Ping).await, Ok(Response::Empty));
        }
        member.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn an_address_has_no_more_connections_than_are_allowed_and_another_has_its_own() {
        let data_dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = MemberSettings {
            data_dir: data_dir.path().to_owned(),
            address_connections_max: Some(2),
            ..MemberSettings::default()
        };
        let member = Member::start(settings, listener, None).await.unwrap();
        let first = Wire::connect(&member, SessionId::NONE).await;
        let mut second = Wire::connect(&member, SessionId::NONE).await;
        let mut refused = TcpStream::connect(member.client_addr()).await.unwrap();
        assert_eq!(refused.read(&mut [0; 8]).await.unwrap_or_default(), 0, "it is closed at once");
        let other = TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = other.connect(member.client_addr()).await.unwrap();
        other.write_all(b"srvr").await.unwrap();
        let mut text = String::new();
        other.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("Mode: standalone"), "{text}");
        drop(first);
        assert_eq!(second.ask(&Request::Ping).await, Ok(Response::Empty));
        // Until the member has seen the end of the first.
        while {
            let mut third = TcpStream::connect(member.client_addr()).await.unwrap();
            third.write_all(b"srvr").await.unwrap();
            let mut text = String::new();
            third.read_to_string(&mut text).await.is_err() || text.is_empty()
        } {
            tokio::task::yield_now().await;
        }
        member.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_client_may_ask_for_much_before_it_reads() {
        let data_dir = tempfile::tempdir().unwrap();
        let member = start(data_dir.path(), 100).await;
        let mut wire = Wire::connect(&member, SessionId::NONE).await;
        let create = CreateRequest::open("/big", vec![0; 1_000_000], CreateMode::Persistent);
        wire.ask(&Request::Create(create)).await.unwrap();
        for xid in 0..200 {
            let request = Request::GetData { path: "/big".into(), watch: false };
            wire.send(|out| request.encode(Xid(xid), out)).await;
        }
        for xid in 0..200 {
            let frame = wire.receive().await.expect("a reply to each");
            let header = ReplyHeader::decode(&mut Reader::new(&frame)).unwrap();
            assert_eq!((header.xid, header.error), (Xid(xid), None));
        }
        member.shutdown().await.unwrap();
    }
}
