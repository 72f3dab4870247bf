//! A DNS server that knows nothing: it says of each packet that it is a response, and sends it back.
//!
//! Its socket and the calls on it are those of `rollcall::dns::udp`: what `rollcall bench dns --compare` finds beyond it is what
//! answers cost, and what it finds of it is the price of sockets, the runtime and the load.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::runtime;

/// As in `rollcall::dns::udp`.
const PACKET_OCTETS_MAX: usize = 4096;
const BATCH: usize = 64;
/// Where a DNS message has QR, which tells responses from queries (RFC 1035, 4.1.1).
const QR_AT: usize = 2;
const QR: u8 = 0x80;

/// Listens on `port` of loopback, 0 for any that is free, says where, and serves until the process is ended.
pub(super) fn serve(port: u16) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (socket, _tcp) = rollcall::dns::bind((Ipv4Addr::LOCALHOST, port).into())?;
        announce(socket.local_addr()?);
        let mut packet = vec![0; PACKET_OCTETS_MAX];
        loop {
            // Errors tell of clients that are gone.
            let Ok((length, client)) = socket.recv_from(&mut packet).await else { continue };
            echo(&socket, &mut packet[..length], client).await;
            for _ in 0..BATCH {
                let Ok((length, client)) = socket.try_recv_from(&mut packet) else { break };
                echo(&socket, &mut packet[..length], client).await;
            }
        }
    })
}

async fn echo(socket: &UdpSocket, packet: &mut [u8], client: SocketAddr) {
    let Some(flags) = packet.get_mut(QR_AT) else { return };
    *flags |= QR;
    let sent = match socket.try_send_to(packet, client) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.send_to(packet, client).await,
        sent => sent,
    };
    // As for an answer that is lost on its way.
    let _unsent = sent;
}

#[expect(clippy::print_stdout, reason = "where to send to, and its id for --compare-pids")]
fn announce(address: SocketAddr) {
    println!("UDP echo on {address}, process {}", std::process::id());
}
