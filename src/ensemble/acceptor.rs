//! Accepting connections of members, whose handshakes hold up nobody.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use super::log_limit::LogLimit;

/// A listener, and the connections that have not yet said who they are. A handshake results in `T`.
#[derive(Debug)]
pub(super) struct Acceptor<T> {
    listener: TcpListener,
    /// Its name in logs.
    port: &'static str,
    handshakes: JoinSet<T>,
    /// The handshakes under way, the oldest first.
    under_way: VecDeque<AbortHandle>,
    crowds: LogLimit,
    failures: LogLimit,
}

/// Handshakes under way at a time. Beyond, the oldest is given up: members take a round trip, so who has been at it for
/// longest is no member, or will try again.
const HANDSHAKES_MAX: usize = 64;
/// How long to pause when a connection cannot be accepted (no descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl<T: Send + 'static> Acceptor<T> {
    pub(super) fn new(listener: TcpListener, port: &'static str) -> Self {
        Self {
            listener,
            port,
            handshakes: JoinSet::new(),
            under_way: VecDeque::new(),
            crowds: LogLimit::default(),
            failures: LogLimit::default(),
        }
    }

    /// Waits for the next outcome of the handshakes that `handshake` does with whoever connects. It must set itself a
    /// deadline. May be dropped and called again.
    pub(super) async fn next<F>(&mut self, handshake: impl Fn(TcpStream, SocketAddr) -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        loop {
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => {
                    self.under_way.retain(|handshake| !handshake.is_finished());
                    // A panic in one handshake ends that one alone.
                    if let Ok(outcome) = ended {
                        return outcome;
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, from)) => {
                        self.make_room();
                        self.under_way.push_back(self.handshakes.spawn(handshake(socket, from)));
                    }
                    Err(error) => {
                        if let Some(held_back) = self.failures.pass() {
                            warn!(port = self.port, %error, held_back, "cannot accept a connection");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn make_room(&mut self) {
        while self.under_way.len() >= HANDSHAKES_MAX {
            if let Some(oldest) = self.under_way.pop_front() {
                oldest.abort();
            }
            if let Some(held_back) = self.crowds.pass() {
                let max = HANDSHAKES_MAX;
                warn!(port = self.port, max, held_back, "too many handshakes; gave up the oldest");
            }
        }
    }
}
