//! The sockets of one address, which share a port.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tracing::debug;

use super::mmsg;

/// Some for UDP, among which the kernel deals clients out, and one for TCP. They do not block.
#[derive(Debug)]
pub struct Sockets {
    /// One for each worker.
    pub udp: Vec<StdUdpSocket>,
    /// Where connections come from.
    pub tcp: StdTcpListener,
}

impl Sockets {
    /// Binds all of them, `workers` and at least one for UDP; port 0 finds a port that is free for both.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound for any of them.
    pub fn bind(addr: SocketAddr, workers: usize) -> io::Result<Self> {
        let mut attempts_left = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts_left -= 1;
            match Self::bind_once(addr, workers) {
                // The free port that UDP was given may be taken for TCP.
                Err(error) if attempts_left > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                done => return done,
            }
        }
    }

    fn bind_once(addr: SocketAddr, workers: usize) -> io::Result<Self> {
        // The first alone, so that a port that somebody else listens on is taken, even if he would share it.
        let first = StdUdpSocket::bind(addr)?;
        prepare(&first)?;
        let addr = first.local_addr()?;
        let mut udp = vec![first];
        if workers > 1 {
            // From here on processes of the same user that ask for it, too, can share the port (socket(7)).
            SockRef::from(&udp[0]).set_reuse_port(true)?;
        }
        for _ in 1..workers {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_reuse_port(true)?;
            socket.bind(&addr.into())?;
            let socket = StdUdpSocket::from(socket);
            prepare(&socket)?;
            udp.push(socket);
        }
        let tcp = StdTcpListener::bind(addr)?;
        tcp.set_nonblocking(true)?;
        if let Err(error) = bound(&tcp) {
            debug!(%error, "the DNS listener keeps its default queue and buffers");
        }
        Ok(Self { udp, tcp })
    }

    /// Where they are bound.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Binds one for UDP and one for TCP, for the runtime around it.
///
/// # Errors
///
/// As [`Sockets::bind`].
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn bind(addr: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let Sockets { mut udp, tcp } = Sockets::bind(addr, 1)?;
    let udp = udp.pop().ok_or(io::ErrorKind::NotFound)?;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

fn prepare(udp: &StdUdpSocket) -> io::Result<()> {
    udp.set_nonblocking(true)?;
    // A burst waits in the kernel while the loop is descheduled; a smaller buffer is no reason to fail.
    if let Err(error) = SockRef::from(udp).set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        debug!(%error, "the DNS socket keeps its default receive buffer");
    }
    let addr = udp.local_addr()?;
    if addr.ip().is_unspecified() {
        mmsg::tell_destinations(udp.as_fd(), addr.is_ipv6())?;
    }
    Ok(())
}

/// Connections have these from their listener: a long queue, and buffers that do not grow with whoever reads slowly.
fn bound(tcp: &StdTcpListener) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_send_buffer_size(TCP_SEND_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(TCP_RECEIVE_BUFFER_BYTES)?;
    socket.listen(TCP_QUEUE)
}

/// Ports that are tried before giving up on finding one that is free for both.
const PORT_ATTEMPTS: u32 = 16;
/// What is asked for; the kernel caps it (`net.core.rmem_max`).
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;
/// Connections that wait to be accepted, so that a burst is not sent away to try again in a second; std asks for 128. The kernel
/// caps it (`net.core.somaxconn`).
const TCP_QUEUE: i32 = 1024;
/// The kernel doubles both, for what it keeps beside the octets. One answer of any length fits; by itself a buffer grows to megabytes.
const TCP_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Some hundred queries in one go.
const TCP_RECEIVE_BUFFER_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_PORT: &str = "127.0.0.1:0";

    #[tokio::test]
    async fn both_sockets_have_one_port_and_a_taken_one_is_an_error() {
        let (udp, tcp) = bind(ANY_PORT.parse().unwrap()).unwrap();
        let addr = udp.local_addr().unwrap();
        assert_eq!(addr, tcp.local_addr().unwrap());
        assert_eq!(bind(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn workers_share_a_port_with_one_another_and_with_nobody_else() {
        let sockets = Sockets::bind(ANY_PORT.parse().unwrap(), 3).unwrap();
        let addr = sockets.local_addr().unwrap();
        assert!(sockets.udp.iter().all(|socket| socket.local_addr().unwrap() == addr));
        assert_eq!(sockets.udp.len(), 3);
        for workers in [1, 3] {
            assert_eq!(Sockets::bind(addr, workers).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
