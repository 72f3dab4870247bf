//! Threads that answer, each with a socket and a runtime of its own: some over UDP, one over TCP.
//!
//! Whatever else the process is busy with, such as taking in a new view, does not hold up their answers; nor do answers, however many
//! are wanted and however long they are, hold up the rest of the process, with the session's heartbeats in it. The kernel deals clients
//! over UDP out among the sockets by address and port (`SO_REUSEPORT`, socket(7)), so that one client alone is served by one of them.

use std::future::Future;
use std::io;
use std::net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::thread;

use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::handler::Handler;
use super::tcp::{self, TcpSettings};
use super::udp;

/// The most of them for UDP. A thread answers some hundred thousand queries a second.
pub const WORKERS_MAX: usize = 64;

/// A thread that serves a socket until it is told to stop, or panics.
#[derive(Debug)]
pub struct Worker {
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts one that serves `socket` until `shutdown`.
    ///
    /// # Errors
    ///
    /// When the system has no thread for it, or what a runtime needs.
    pub fn udp(
        number: usize,
        socket: StdUdpSocket,
        handler: Arc<Handler>,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        Self::start(format!("dns-{number}"), || Ok(udp::run(UdpSocket::from_std(socket)?, handler, shutdown)))
    }

    /// Starts one that serves who connects to `listener` until `shutdown`.
    ///
    /// # Errors
    ///
    /// As [`Self::udp`].
    pub fn tcp(
        listener: StdTcpListener,
        handler: Arc<Handler>,
        settings: TcpSettings,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        Self::start("dns-tcp".to_owned(), || {
            Ok(tcp::run(TcpListener::from_std(listener)?, handler, settings, shutdown))
        })
    }

    /// `serve` is called within the thread's runtime, where its sockets are registered therefore.
    fn start<F>(name: String, serve: impl FnOnce() -> io::Result<F>) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let served = {
            let _registers_there = runtime.enter();
            serve()?
        };
        let (alive, ended) = oneshot::channel();
        thread::Builder::new().name(name).spawn(move || {
            // Dropped when the thread ends, in whatever way.
            let _alive: oneshot::Sender<()> = alive;
            runtime.block_on(served);
        })?;
        Ok(Self { ended })
    }

    /// Waits for its end.
    pub async fn ended(self) {
        let _nothing_is_sent = self.ended.await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RecordType};
    use tokio::time::timeout;

    use super::*;
    use crate::dns::{Sockets, sample};

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn each_serves_its_clients_while_nobody_runs_the_runtime_that_started_them() {
        let Sockets { udp, tcp } = Sockets::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let (shutdown, handler) = (CancellationToken::new(), sample::web().into_handler());
        let start =
            |(number, socket)| Worker::udp(number, socket, handler.clone(), shutdown.clone()).unwrap();
        let workers: Vec<_> = udp.into_iter().enumerate().map(start).collect();
        // Enough clients that both have some; and this thread is blocked.
        for id in 0..64 {
            let client = StdUdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(tcp.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            client.send(&query(id)).unwrap();
            let mut packet = [0; 2000];
            let length = client.recv(&mut packet).unwrap();
            let answer = Message::from_vec(&packet[..length]).unwrap();
            assert_eq!((answer.metadata.id, answer.answers.len()), (id, 2));
        }
        shutdown.cancel();
        for worker in workers {
            timeout(DEADLINE, worker.ended()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn connections_are_served_while_nobody_runs_the_runtime_that_started_their_thread() {
        let Sockets { tcp, .. } = Sockets::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let (addr, shutdown) = (tcp.local_addr().unwrap(), CancellationToken::new());
        let handler = sample::web().into_handler();
        let worker = Worker::tcp(tcp, handler, TcpSettings::default(), shutdown.clone()).unwrap();
        // This thread is blocked.
        let mut client = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        for id in 0..3 {
            let query = query(id);
            let length = u16::try_from(query.len()).unwrap().to_be_bytes();
            client.write_all(&[&length[..], &query].concat()).unwrap();
            let mut length = [0; 2];
            client.read_exact(&mut length).unwrap();
            let mut packet = vec![0; u16::from_be_bytes(length).into()];
            client.read_exact(&mut packet).unwrap();
            let answer = Message::from_vec(&packet).unwrap();
            assert_eq!((answer.metadata.id, answer.answers.len()), (id, 2));
        }
        shutdown.cancel();
        timeout(DEADLINE, worker.ended()).await.unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed");
    }

    fn query(id: u16) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("web.default.rollcall.internal.").unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message.to_vec().unwrap()
    }
}
