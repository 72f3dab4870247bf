//! The UDP loop: one task, one socket; many datagrams with one system call; and a task for each query that has to wait.
//!
//! ```text
//! readable ─► recvmmsg ─► each: Handler ─► reply, in its place ─► sendmmsg
//!                 ▲                └─► Later ─► a task ─► sendmmsg of one
//!                 └── again, while there may be more
//! ```

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::handler::{Handler, Outcome};
use super::later::Later;
use super::mmsg::{self, BATCH, Inbox, Origin};
use super::transport::Transport;

/// Answers queries until `shutdown`. Errors of the socket, such as an ICMP message about an earlier answer, are
/// counted and survived.
pub async fn run(socket: UdpSocket, handler: Arc<Handler>, shutdown: CancellationToken) {
    let mut server = Server::new(socket, handler);
    let mut errors_in_a_row = 0;
    loop {
        let ready = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            ready = server.socket.readable() => ready,
        };
        match ready.and_then(|()| receive(&server.socket, &mut server.inbox)) {
            Ok(()) => {
                errors_in_a_row = 0;
                server.answer_all().await;
            }
            Err(error) => {
                errors_in_a_row += 1;
                note(&server.handler, &error, "receive");
                if errors_in_a_row > ERRORS_IN_A_ROW {
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }
}

struct Server {
    socket: Arc<UdpSocket>,
    handler: Arc<Handler>,
    inbox: Inbox,
    /// The first of these are replies to datagrams of the inbox; the others are memory to be used again.
    replies: Vec<Reply>,
    /// Queries that wait, as many as the demand and the forwarder let.
    later: JoinSet<()>,
}

/// What is sent back.
#[derive(Debug, Default)]
struct Reply {
    octets: Vec<u8>,
    /// Which datagram it answers.
    at: usize,
}

impl Server {
    fn new(socket: UdpSocket, handler: Arc<Handler>) -> Self {
        let replies = std::iter::repeat_with(Reply::default).take(BATCH).collect();
        let (socket, inbox) = (Arc::new(socket), Inbox::new(PACKET_OCTETS_MAX));
        Self { socket, handler, inbox, replies, later: JoinSet::new() }
    }

    /// Answers what was received.
    async fn answer_all(&mut self) {
        let mut count = 0;
        for at in 0..self.inbox.len() {
            let Some(client) = self.inbox.origin(at).client() else { continue };
            let (packet, reply) = (self.inbox.packet(at), &mut self.replies[count]);
            let (handler, octets) = (&self.handler, &mut reply.octets);
            match surviving(packet, client, || handler.answer(packet, client, Transport::Udp, octets)) {
                Some(Outcome::Reply) => {
                    reply.at = at;
                    count += 1;
                }
                Some(Outcome::Later(later)) => self.answer_later(later, at, client),
                Some(Outcome::Silence) | None => {}
            }
        }
        let replies = &self.replies[..count];
        let messages = replies.iter().map(|reply| (&*reply.octets, self.inbox.origin(reply.at)));
        send(&self.socket, &self.handler, messages).await;
    }

    fn answer_later(&mut self, mut later: Later, at: usize, client: SocketAddr) {
        let (packet, origin) = (self.inbox.packet(at).to_vec(), *self.inbox.origin(at));
        let (socket, handler) = (Arc::clone(&self.socket), Arc::clone(&self.handler));
        while self.later.try_join_next().is_some() {}
        self.later.spawn(async move {
            let mut out = Vec::new();
            loop {
                let ready = later.ready().await;
                let answer = || handler.answer_ready(ready, &packet, client, Transport::Udp, &mut out);
                match surviving(&packet, client, answer) {
                    Some(Outcome::Later(more)) => later = more,
                    Some(Outcome::Reply) => {
                        return send(&socket, &handler, [(&*out, &origin)].into_iter()).await;
                    }
                    Some(Outcome::Silence) | None => return,
                }
            }
        });
    }
}

/// Receives what has arrived, which may be nothing.
///
/// # Errors
///
/// What the system says.
pub fn receive(socket: &UdpSocket, inbox: &mut Inbox) -> io::Result<()> {
    let received = socket.try_io(Interest::READABLE, || match inbox.receive(socket.as_fd())? {
        // The socket is empty: said so, the runtime waits for the next datagram without asking for one in vain. What could hide
        // others is a pending error of the socket, and one that is not connected has none (udp(7), IP_RECVERR).
        true => Err(io::ErrorKind::WouldBlock.into()),
        false => Ok(()),
    });
    match received {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        received => received,
    }
}

/// Every packet is foreign input to a decoder that is not ours: if one made it panic, only that packet is lost.
fn surviving(packet: &[u8], client: SocketAddr, answer: impl FnOnce() -> Outcome) -> Option<Outcome> {
    let answered = catch_unwind(AssertUnwindSafe(answer));
    if answered.is_err() {
        error!(%client, ?packet, "a query made the handler panic");
    }
    answered.ok()
}

/// Sends all of these, but for those that the system refuses.
async fn send<'a>(
    socket: &UdpSocket,
    handler: &Handler,
    mut messages: impl ExactSizeIterator<Item = (&'a [u8], &'a Origin)> + Clone,
) {
    while messages.len() > 0 {
        match socket.try_io(Interest::WRITABLE, || mmsg::send(socket.as_fd(), messages.clone())) {
            Ok(count) => drop(messages.by_ref().take(count).count()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // An error of that is one of the runtime, which ends.
                if socket.writable().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                note(handler, &error, "send");
                messages.next();
            }
        }
    }
}

fn note(handler: &Handler, error: &io::Error, what: &'static str) {
    handler.metrics().dns_socket_errors.inc();
    debug!(%error, what, "DNS socket error");
}

/// Octets of the longest query that is read whole. One with more than a name and a few EDNS options is no
/// query that we could answer; cut, it is malformed.
pub const PACKET_OCTETS_MAX: usize = 4096;
/// Errors after which each further one is followed by a pause, so that a broken socket does not take a core.
const ERRORS_IN_A_ROW: u32 = 16;
const ERROR_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};
    use tokio::time::timeout;

    use super::*;
    use crate::dns::{bind, sample};

    #[tokio::test]
    async fn queries_are_answered_and_garbage_between_them_harms_nobody() {
        let (client, shutdown, server) = start().await;
        for id in 0..200 {
            client.send(&query(id)).await.unwrap();
            client.send(&[0xff; 30]).await.unwrap();
            client.send(b"").await.unwrap();
            let answer = receive(&client).await;
            assert_eq!((answer.metadata.id, answer.metadata.response_code), (id, ResponseCode::NoError));
            assert_eq!(answer.answers.len(), 2);
        }
        shutdown.cancel();
        timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_is_gone_does_not_end_the_loop() {
        let (client, _shutdown, _server) = start().await;
        for id in 0..20 {
            let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            gone.connect(client.peer_addr().unwrap()).await.unwrap();
            gone.send(&query(id)).await.unwrap();
        }
        client.send(&query(77)).await.unwrap();
        assert_eq!(receive(&client).await.metadata.id, 77);
    }

    #[tokio::test]
    async fn a_packet_longer_than_the_buffer_is_a_format_error() {
        let (client, _shutdown, _server) = start().await;
        let mut long = query(5);
        long[11] = 1; // one additional record, which is cut off
        long.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 0, 0, 0x40, 0]);
        long.resize(PACKET_OCTETS_MAX + 1000, 0);
        client.send(&long).await.unwrap();
        assert_eq!(receive(&client).await.metadata.response_code, ResponseCode::FormErr);
    }

    #[tokio::test]
    async fn a_query_that_is_held_holds_up_no_other() {
        let (handler, cache) = sample::web().unfollowed("web").into_handler_and_cache();
        let handler = handler.with_demand(Some(Arc::default()));
        let (client, _shutdown, _server) = start_with(Arc::new(handler)).await;
        client.send(&query_for(1, "web.default")).await.unwrap();
        client.send(&query_for(2, "empty.shop")).await.unwrap();
        assert_eq!(receive(&client).await.metadata.id, 2);
        cache.publish(sample::web().view);
        let answer = receive(&client).await;
        assert_eq!((answer.metadata.id, answer.answers.len()), (1, 2));

        cache.publish(sample::web().unfollowed("web").view);
        client.send(&query_for(3, "web.default")).await.unwrap();
        assert_eq!(receive(&client).await.metadata.response_code, ResponseCode::ServFail);
    }

    async fn start() -> (UdpSocket, CancellationToken, tokio::task::JoinHandle<()>) {
        start_with(sample::web().into_handler()).await
    }

    async fn start_with(
        handler: Arc<Handler>,
    ) -> (UdpSocket, CancellationToken, tokio::task::JoinHandle<()>) {
        let (socket, _) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(socket.local_addr().unwrap()).await.unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(run(socket, handler, shutdown.clone()));
        (client, shutdown, server)
    }

    fn query(id: u16) -> Vec<u8> {
        query_for(id, "web.default")
    }

    fn query_for(id: u16, service: &str) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii(format!("{service}.rollcall.internal.")).unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message.to_vec().unwrap()
    }

    async fn receive(client: &UdpSocket) -> Message {
        let mut packet = [0; 2000];
        let length = timeout(Duration::from_secs(10), client.recv(&mut packet)).await.unwrap().unwrap();
        Message::from_vec(&packet[..length]).unwrap()
    }
}
