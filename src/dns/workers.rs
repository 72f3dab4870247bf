//! Threads that answer over UDP, each with a socket and a runtime of its own.
//!
//! Whatever else the process is busy with, such as taking in a new view, does not hold up their answers. The kernel deals clients
//! out among the sockets by address and port (`SO_REUSEPORT`, socket(7)), so that one client alone is served by one of them.

use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::sync::Arc;
use std::thread;

use tokio::net::UdpSocket;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::handler::Handler;
use super::udp;

/// The most of them. A thread answers some hundred thousand queries a second.
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
    pub fn start(
        number: usize,
        socket: StdUdpSocket,
        handler: Arc<Handler>,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = {
            let _registers_there = runtime.enter();
            UdpSocket::from_std(socket)?
        };
        let (alive, ended) = oneshot::channel();
        thread::Builder::new().name(format!("dns-{number}")).spawn(move || {
            // Dropped when the thread ends, in whatever way.
            let _alive: oneshot::Sender<()> = alive;
            runtime.block_on(udp::run(socket, handler, shutdown));
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
            |(number, socket)| Worker::start(number, socket, handler.clone(), shutdown.clone()).unwrap();
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

    fn query(id: u16) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("web.default.rollcall.internal.").unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message.to_vec().unwrap()
    }
}
