//! A DNS server that knows nothing: it says of each packet that it is a response, and sends it back.
//!
//! Its socket and the calls on it are those of `rollcall::dns::udp`: what `rollcall bench dns --compare` finds beyond it is what
//! answers cost, and what it finds of it is the price of sockets, the runtime and the load.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use rollcall::dns::mmsg::{self, Inbox};
use rollcall::dns::udp::{self, PACKET_OCTETS_MAX};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime;

/// Where a DNS message has QR, which tells responses from queries (RFC 1035, 4.1.1).
const QR_AT: usize = 2;
const QR: u8 = 0x80;

/// Listens on `port` of loopback, 0 for any that is free, says where, and serves until the process is ended.
pub(super) fn serve(port: u16) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (socket, _tcp) = rollcall::dns::bind((Ipv4Addr::LOCALHOST, port).into())?;
        announce(socket.local_addr()?);
        let mut inbox = Inbox::new(PACKET_OCTETS_MAX);
        let mut replies = vec![Vec::new(); mmsg::BATCH];
        loop {
            socket.readable().await?;
            // Errors tell of clients that are gone.
            if udp::receive(&socket, &mut inbox).is_ok() {
                echo(&socket, &inbox, &mut replies).await;
            }
        }
    })
}

async fn echo(socket: &UdpSocket, inbox: &Inbox, replies: &mut [Vec<u8>]) {
    for (at, reply) in replies.iter_mut().enumerate().take(inbox.len()) {
        reply.clear();
        reply.extend_from_slice(inbox.packet(at));
        if let Some(flags) = reply.get_mut(QR_AT) {
            *flags |= QR;
        }
    }
    let mut next = 0;
    while next < inbox.len() {
        let messages = (next..inbox.len()).map(|at| (&*replies[at], inbox.origin(at)));
        match socket.try_io(Interest::WRITABLE, || mmsg::send(socket.as_fd(), messages)) {
            Ok(count) => next += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _told_by_the_next = socket.writable().await;
            }
            // As for an answer that is lost on its way.
            Err(_) => next += 1,
        }
    }
}

#[expect(clippy::print_stdout, reason = "where to send to, and its id for --compare-pids")]
fn announce(address: SocketAddr) {
    println!("UDP echo on {address}, process {}", std::process::id());
}
