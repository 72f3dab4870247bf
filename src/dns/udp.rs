//! The UDP loop: one task, one socket, two buffers; and a task for each query that has to wait.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::handler::{Handler, Later, Outcome, Transport};

/// Answers queries until `shutdown`. Errors of the socket, such as an ICMP message about an earlier answer, are
/// counted and survived.
pub async fn run(socket: UdpSocket, handler: Arc<Handler>, shutdown: CancellationToken) {
    let (packet, out) = (vec![0; PACKET_OCTETS_MAX], Vec::with_capacity(4096));
    let mut server = Server { socket: Arc::new(socket), handler, packet, out, later: JoinSet::new() };
    let mut errors_in_a_row = 0;
    loop {
        let received = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            received = server.socket.recv_from(&mut server.packet) => received,
        };
        match received {
            Ok((length, client)) => {
                errors_in_a_row = 0;
                server.answer(length, client).await;
                server.drain().await;
            }
            Err(error) => {
                errors_in_a_row += 1;
                server.note(&error, "receive");
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
    packet: Vec<u8>,
    out: Vec<u8>,
    /// Queries that wait, as many as the demand and the forwarder let.
    later: JoinSet<()>,
}

impl Server {
    /// Answers what has arrived meanwhile, without a trip through the runtime for each packet.
    async fn drain(&mut self) {
        for _ in 0..BATCH {
            match self.socket.try_recv_from(&mut self.packet) {
                Ok((length, client)) => self.answer(length, client).await,
                Err(_) => return,
            }
        }
    }

    async fn answer(&mut self, length: usize, client: SocketAddr) {
        let packet = &self.packet[..length];
        let (handler, out) = (&self.handler, &mut self.out);
        match surviving(packet, client, || handler.answer(packet, client, Transport::Udp, out)) {
            Some(Outcome::Reply) => send(&self.socket, handler, client, out).await,
            Some(Outcome::Later(later)) => {
                let packet = packet.to_vec();
                let (socket, handler) = (Arc::clone(&self.socket), Arc::clone(handler));
                while self.later.try_join_next().is_some() {}
                self.later.spawn(answer_later(later, packet, client, socket, handler));
            }
            Some(Outcome::Silence) | None => {}
        }
    }

    fn note(&self, error: &io::Error, what: &'static str) {
        note(&self.handler, error, what);
    }
}

async fn answer_later(
    later: Later,
    packet: Vec<u8>,
    client: SocketAddr,
    socket: Arc<UdpSocket>,
    handler: Arc<Handler>,
) {
    let ready = later.ready().await;
    let mut out = Vec::new();
    let answered =
        surviving(&packet, client, || handler.answer_ready(ready, &packet, client, Transport::Udp, &mut out));
    if let Some(Outcome::Reply) = answered {
        send(&socket, &handler, client, &out).await;
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

async fn send(socket: &UdpSocket, handler: &Handler, client: SocketAddr, out: &[u8]) {
    let sent = match socket.try_send_to(out, client) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.send_to(out, client).await,
        sent => sent,
    };
    if let Err(error) = sent {
        note(handler, &error, "send");
    }
}

fn note(handler: &Handler, error: &io::Error, what: &'static str) {
    handler.metrics().dns_socket_errors.inc();
    debug!(%error, what, "DNS socket error");
}

/// Octets of the longest query that is read whole. One with more than a name and a few EDNS options is no
/// query that we could answer; cut, it is malformed.
const PACKET_OCTETS_MAX: usize = 4096;
/// Packets that are answered before the runtime and the shutdown have their turn.
const BATCH: usize = 64;
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
