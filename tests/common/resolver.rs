//! A resolver on loopback that knows every name, for as long as the process lives.

use std::net::{SocketAddr, UdpSocket};

/// Starts one that says of every name that it has the addresses 192.0.2.`last`, for `ttl` seconds.
///
/// It first tells of each query that it gets, octet by octet.
pub(crate) fn resolver(
    last: &'static [u8],
    ttl: u32,
    mut tell: impl FnMut(&[u8]) + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    let addr = socket.local_addr().expect("it has an address");
    std::thread::spawn(move || {
        let mut packet = [0; 2000];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            tell(&packet[..length]);
            // Its header with QR, RD and RA, its question, and records that point to the name in it.
            let question_end = 12 + packet[12..length].iter().position(|octet| *octet == 0).unwrap_or(0) + 5;
            let mut answer = packet[..question_end].to_vec();
            let count = u8::try_from(last.len()).expect("a few");
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
            for last in last {
                answer.extend([0xc0, 12, 0, 1, 0, 1]);
                answer.extend(ttl.to_be_bytes());
                answer.extend([0, 4, 192, 0, 2, *last]);
            }
            let _client_may_be_gone = socket.send_to(&answer, client);
        }
    });
    addr
}
