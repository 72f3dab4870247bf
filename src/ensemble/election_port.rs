//! The election port: one connection to each other member, over which votes go.
//!
//! ```text
//! larger id ── long -65536 · long id · int length · "host:port" ──► smaller id
//!           ◄─────────── int length · notification ───────────────►
//! ```
//!
//! The larger id keeps the connection. When the smaller one connects, it says who it is and hangs up: it only asks to be
//! called. Apache ZooKeeper dials when it has something to say; here connections are kept at all times, so that whoever
//! looks for a leader knows at once who can be heard. A queue holds one message, the newest.
//!
//! Nothing that comes is trusted: a connection has a deadline to say who it is, must be a configured member, and what is no
//! notification is dropped.
//!
//! Source: `QuorumCnxManager.java` of Apache ZooKeeper.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::dial::{Socket, dial, receive};
use super::members::{HostPort, Members};
use super::peers::PeerEvent;
use crate::clock;
use crate::codec::WriteJute;
use crate::id::ServerId;
use crate::tls::Tls;
use crate::zab::Notification;

/// The port, as the driver uses it.
#[derive(Debug)]
pub(super) struct ElectionPort {
    outboxes: BTreeMap<ServerId, Arc<Outbox>>,
}

/// What the tasks of the port share.
#[derive(Debug)]
pub(super) struct ElectionShell {
    pub(super) me: ServerId,
    pub(super) members: Arc<Members>,
    /// How long it may take to connect, and to say who one is.
    pub(super) timeout: Duration,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) events: mpsc::Sender<PeerEvent>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// The message that waits for a member.
#[derive(Debug, Default)]
struct Outbox {
    waiting: Mutex<Option<Bytes>>,
    came: Notify,
}

impl Outbox {
    fn put(&self, message: Bytes) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        self.came.notify_one();
    }

    async fn take(&self) -> Bytes {
        loop {
            let came = self.came.notified();
            if let Some(message) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return message;
            }
            came.await;
        }
    }
}

/// What the acceptor hands to the keeper of a member's connection.
enum Call {
    /// The member has connected.
    Socket(Box<dyn Socket>),
    /// The member asks to be called.
    Please,
}

/// Connections that have not said who they are.
const STRANGERS_MAX: usize = 64;
/// Calls that may wait for a keeper; one is enough, more say the same.
const CALLS_MAX: usize = 4;
/// The pauses between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Within this time of a connection, a request to call was sent before it came about.
const CROSSING_TIME: Duration = Duration::from_millis(500);
/// How long to pause when nothing can be accepted, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A host name and a port.
const ADDRESS_BYTES_MAX: i32 = 2048;
/// One address, several addresses; any id that is not negative is what members before 3.5 say.
const ONE_ADDRESS: i64 = -65536;
const ADDRESSES: i64 = -65535;

impl ElectionPort {
    /// Listens, and connects to every other member.
    pub(super) fn start(listener: TcpListener, shell: Arc<ElectionShell>) -> Self {
        let mut outboxes = BTreeMap::new();
        let mut keepers = BTreeMap::new();
        for (peer, address) in shell.members.iter().filter(|(peer, _)| *peer != shell.me) {
            let outbox = Arc::new(Outbox::default());
            let (caller, calls) = mpsc::channel(CALLS_MAX);
            outboxes.insert(peer, outbox.clone());
            keepers.insert(peer, caller);
            let keeper =
                Keeper { peer, address: address.election.clone(), outbox, calls, shell: shell.clone() };
            shell.tasks.spawn(async move { keeper.run().await });
        }
        shell.tasks.spawn(accept(listener, Arc::new(keepers), shell.clone()));
        Self { outboxes }
    }

    /// Sends a message, in place of one that is still waiting.
    pub(super) fn send(&self, to: ServerId, message: &Notification) {
        let Some(outbox) = self.outboxes.get(&to) else { return };
        let mut bytes = Vec::with_capacity(256);
        message.encode(&mut bytes);
        outbox.put(bytes.into());
    }
}

type Keepers = Arc<BTreeMap<ServerId, mpsc::Sender<Call>>>;

async fn accept(listener: TcpListener, keepers: Keepers, shell: Arc<ElectionShell>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shell.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection on the election port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = strangers.clone().try_acquire_owned() else {
            debug!(%address, "too many connections on the election port that do not say who they are");
            continue;
        };
        let (keepers, shell_of_task) = (keepers.clone(), shell.clone());
        shell.tasks.spawn(async move {
            let greeted = tokio::select! {
                () = shell_of_task.stop.cancelled() => return,
                greeted = tokio::time::timeout(shell_of_task.timeout, greet(socket, &shell_of_task)) => greeted,
            };
            drop(permit);
            match greeted {
                Ok(Ok((peer, call))) => {
                    if let Some(keeper) = keepers.get(&peer) {
                        // With a full queue the keeper has been called often enough.
                        let _ = keeper.try_send(call);
                    }
                }
                Ok(Err(error)) => debug!(%address, %error, "refusing a connection on the election port"),
                Err(_late) => debug!(%address, "a connection on the election port did not say who it is"),
            }
        });
    }
}

/// Hears who has connected.
async fn greet(socket: TcpStream, shell: &ElectionShell) -> io::Result<(ServerId, Call)> {
    let mut socket = receive(socket, shell.tls.as_deref()).await?;
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let first = socket.read_i64().await?;
    let id = match first {
        ONE_ADDRESS | ADDRESSES => {
            let id = socket.read_i64().await?;
            let length = socket.read_i32().await?;
            if !(1..=ADDRESS_BYTES_MAX).contains(&length) {
                return Err(invalid(format!("an address of {length} bytes")));
            }
            // It is not needed: members are called where the configuration says.
            let mut address = vec![0; usize::try_from(length).unwrap_or(0)];
            socket.read_exact(&mut address).await?;
            id
        }
        id if id >= 0 => id,
        version => return Err(invalid(format!("the unknown version {version}"))),
    };
    let peer = u8::try_from(id).ok().and_then(ServerId::new);
    let peer = peer.filter(|peer| shell.members.get(*peer).is_some());
    let Some(peer) = peer else {
        warn!(id, "a server that is no member of this ensemble has connected to the election port");
        return Err(invalid(format!("{id} is no member")));
    };
    if peer == shell.me {
        warn!(%peer, "another server has this member's id; give each its own");
        return Err(invalid("two servers have the same id".to_owned()));
    }
    // The greater id keeps the connection.
    Ok((peer, if peer > shell.me { Call::Socket(socket) } else { Call::Please }))
}

/// Keeps the connection to one member.
struct Keeper {
    peer: ServerId,
    address: HostPort,
    outbox: Arc<Outbox>,
    calls: mpsc::Receiver<Call>,
    shell: Arc<ElectionShell>,
}

impl Keeper {
    async fn run(mut self) {
        let stop = self.shell.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let mut pause = PAUSE.0;
        let mut next = None;
        loop {
            let socket = match next.take() {
                Some(Call::Socket(socket)) => Some(socket),
                Some(Call::Please) | None => self.call().await,
            };
            let Some(socket) = socket else {
                // Somebody may call meanwhile.
                let jittered = pause.mul_f64(fastrand::f64().mul_add(0.5, 0.75));
                next = tokio::time::timeout(jittered, self.calls.recv()).await.unwrap_or(None);
                pause = if next.is_some() { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
                continue;
            };
            pause = PAUSE.0;
            debug!(peer = %self.peer, "connected on the election port");
            if self.tell(PeerEvent::Reachable(self.peer, true)).await.is_err() {
                return;
            }
            next = self.converse(socket).await;
            if next.is_none() {
                next = self.calls.try_recv().ok();
            }
            if !matches!(next, Some(Call::Socket(_))) {
                debug!(peer = %self.peer, "not connected on the election port any more");
                if self.tell(PeerEvent::Reachable(self.peer, false)).await.is_err() {
                    return;
                }
                if next.is_none() && self.shell.me < self.peer {
                    // The other is about to call by itself.
                    next = tokio::time::timeout(PAUSE.0, self.calls.recv()).await.unwrap_or(None);
                }
            }
        }
    }

    /// Connects. With the smaller id this only asks the other to call.
    async fn call(&self) -> Option<Box<dyn Socket>> {
        let mut socket = match dial(&self.address, self.shell.timeout, self.shell.tls.as_deref()).await {
            Ok(socket) => socket,
            Err(error) => {
                debug!(peer = %self.peer, %error, "cannot connect to the election port");
                return None;
            }
        };
        let own = &self.shell.members.get(self.shell.me)?.election;
        let mut hello = Vec::with_capacity(64);
        hello.put_long(ONE_ADDRESS);
        hello.put_long(self.shell.me.get().into());
        hello.put_text(&own.to_string());
        socket.write_all(&hello).await.ok()?;
        socket.flush().await.ok()?;
        if self.shell.me < self.peer {
            // With TLS the other would take an end without a word for an attack.
            let _ = socket.shutdown().await;
            return None;
        }
        Some(socket)
    }

    /// Exchanges messages until the connection ends, or another takes its place.
    async fn converse(&mut self, socket: Box<dyn Socket>) -> Option<Call> {
        let since = clock::now();
        let (mut reading, mut writing) = tokio::io::split(socket);
        let (outbox, events, peer) = (self.outbox.clone(), self.shell.events.clone(), self.peer);
        let reader = async {
            let mut buffer = BytesMut::new();
            loop {
                let length = reading.read_i32().await?;
                let length = usize::try_from(length).unwrap_or(0);
                if !(1..=Notification::BYTES_MAX).contains(&length) {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("a message of {length} bytes"),
                    ));
                }
                buffer.clear();
                // What is there bounds what is reserved, whatever the length claims.
                while buffer.len() < length {
                    let mut rest = (&mut reading).take((length - buffer.len()) as u64);
                    if rest.read_buf(&mut buffer).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                match Notification::decode(&buffer.split().freeze()) {
                    Ok(message) => {
                        if events.send(PeerEvent::Notification(peer, message)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Err(error) => warn!(%peer, %error, "ignoring a malformed vote"),
                }
            }
        };
        let writer = async {
            loop {
                let message = outbox.take().await;
                let mut frame = Vec::with_capacity(4 + message.len());
                frame.put_buffer(Some(&message));
                writing.write_all(&frame).await?;
                writing.flush().await?;
            }
        };
        tokio::select! {
            ended = reader => log_end(peer, ended),
            ended = writer => log_end(peer, ended),
            call = self.other_call(since) => return call,
        }
        None
    }

    /// Somebody calls while the connection is there. A member that asks to be called has lost its end, unless it asked
    /// before this connection came about.
    async fn other_call(&mut self, since: std::time::Instant) -> Option<Call> {
        loop {
            match self.calls.recv().await {
                Some(Call::Please) if since.elapsed() < CROSSING_TIME => {}
                call => return call,
            }
        }
    }

    async fn tell(&self, event: PeerEvent) -> Result<(), mpsc::error::SendError<PeerEvent>> {
        self.shell.events.send(event).await
    }
}

fn log_end(peer: ServerId, ended: io::Result<()>) {
    if let Err(error) = ended {
        debug!(%peer, %error, "the connection on the election port ended");
    }
}
