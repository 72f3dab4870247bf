//! The election port: one connection to every other member, over which votes are exchanged.
//!
//! ```text
//! listener ─► handshakes ─► hello ─► who is it? ─► its Caller ─┐
//!                                                 dials, too   ├─► connection ─► PeerEvent::{Notification, Reachable}
//! send ─► its Mailbox ─────────────────────────────────────────┘
//! ```
//!
//! Nothing here waits for another member: each has a loop of its own, and handshakes run beside the listener
//! (ZOOKEEPER-2164, ZOOKEEPER-3188). What is no vote is ignored, and the connection kept (ZOOKEEPER-3769). What was under way
//! when a connection broke is lost; the core is told that the member can be reached again and says it anew.
//!
//! Source: `QuorumCnxManager.java` of Apache ZooKeeper.

mod backoff;
mod caller;
mod connection;
mod hello;
mod homes;
mod mailbox;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::caller::{Call, Caller, Target};
use self::hello::HelloError;
use self::homes::Homes;
use self::mailbox::Mailbox;
use super::acceptor::Acceptor;
use super::dial::{Stream, Transport, is_distrust};
use super::log_limit::LogLimit;
use super::members::Members;
use super::peers::PeerEvent;
use crate::id::ServerId;
use crate::zab::Notification;

/// What the port has to know.
#[derive(Clone, Debug)]
pub(super) struct ElectionSettings {
    pub(super) server_id: ServerId,
    pub(super) members: Arc<Members>,
    pub(super) transport: Transport,
    /// Counts what runs for the port.
    pub(super) tasks: TaskTracker,
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct ElectionPort {
    mailboxes: BTreeMap<ServerId, Arc<Mailbox>>,
}

/// Calls that may wait for a member's loop; more are dropped, and the other end will try again.
const CALLS_MAX: usize = 4;

impl ElectionPort {
    /// Sets up the port, and returns its work, which must be run; it ends only when something in it breaks.
    pub(super) fn new(
        settings: ElectionSettings,
        listener: TcpListener,
        events: &mpsc::Sender<PeerEvent>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let me = settings.server_id;
        let own = settings.members.get(me).map(|own| own.election.to_string());
        let hello: Arc<[u8]> = hello::encode(me, &own.expect("the members include this one")).into();
        let mut port = Self { mailboxes: BTreeMap::new() };
        let mut callers = Vec::new();
        let mut calls = BTreeMap::new();
        for (peer, member) in settings.members.iter().filter(|(peer, _)| *peer != me) {
            let mailbox = Arc::new(Mailbox::default());
            let (calling, called) = mpsc::channel(CALLS_MAX);
            let target = Target {
                peer,
                is_ours_to_dial: me > peer,
                address: member.election.clone(),
                hello: hello.clone(),
                transport: settings.transport.clone(),
                tasks: settings.tasks.clone(),
            };
            callers.push(Caller::new(target, called, mailbox.clone(), events.clone()));
            port.mailboxes.insert(peer, mailbox);
            calls.insert(peer, calling);
        }
        (port, serve(Arc::new(settings), listener, callers, calls))
    }

    /// Sends `message`, in place of one that still waits. Without a connection it is dropped.
    pub(super) fn send(&self, peer: ServerId, message: Notification) {
        if let Some(mailbox) = self.mailboxes.get(&peer) {
            mailbox.put(message);
        }
    }
}

async fn serve(
    settings: Arc<ElectionSettings>,
    listener: TcpListener,
    callers: Vec<Caller>,
    calls: BTreeMap<ServerId, mpsc::Sender<Call>>,
) {
    let mut running: JoinSet<()> = callers.into_iter().map(Caller::run).collect();
    let mut acceptor = Acceptor::new(listener, "election");
    let mut refusals = LogLimit::default();
    let (mut homes, mut twins) = (Homes::default(), LogLimit::default());
    loop {
        let (from, greeted) = tokio::select! {
            greeted = acceptor.next(|socket, from| greet(settings.clone(), socket, from)) => greeted,
            Some(_ended) = running.join_next() => return,
        };
        let refusal = match greeted {
            Ok((peer, stream)) => match calls.get(&peer) {
                Some(calling) => {
                    if let Some(other) = homes.see(peer, from.ip())
                        && let Some(held_back) = twins.pass()
                    {
                        let from = from.ip();
                        warn!(server = %peer, %from, also_from = %other, held_back, "two processes call themselves this member; each needs an id of its own");
                    }
                    let is_theirs_to_dial = peer > settings.server_id;
                    let call = if is_theirs_to_dial { Call::Connected(stream) } else { Call::Wanted };
                    if calling.try_send(call).is_err() {
                        debug!(%peer, %from, "a member calls more often than can be answered");
                    }
                    continue;
                }
                None if peer == settings.server_id => HelloError::OwnId(peer),
                None => HelloError::NotConfigured(peer),
            },
            Err(HelloError::Io(error)) if !is_distrust(&error) => {
                debug!(%from, %error, "nobody said who it is on the election port");
                continue;
            }
            Err(error) => error,
        };
        if let Some(held_back) = refusals.pass() {
            warn!(%from, reason = %refusal, held_back, "refusing a connection to the election port");
        }
    }
}

type Greeted = Result<(ServerId, Box<dyn Stream>), HelloError>;

/// Hears who it is that has connected.
async fn greet(
    settings: Arc<ElectionSettings>,
    socket: TcpStream,
    from: SocketAddr,
) -> (SocketAddr, Greeted) {
    let greeting = async {
        let mut stream = settings.transport.welcome(socket).await?;
        Ok((hello::read(&mut stream).await?, stream))
    };
    let greeted = tokio::time::timeout(settings.transport.timeout, greeting).await;
    (from, greeted.unwrap_or_else(|_elapsed| Err(HelloError::Io(io::ErrorKind::TimedOut.into()))))
}

#[cfg(test)]
mod tests;
