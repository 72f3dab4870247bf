//! DNS questions as bytes, for when `dig` would be too slow or too polite.

use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

pub(crate) const A: u16 = 1;

/// What the header of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) is_response: bool,
    pub(crate) rcode: u8,
    pub(crate) questions: u16,
    pub(crate) answers: u16,
}

impl Header {
    /// Reads the twelve bytes; `None` when there are fewer.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        let _last = field(10)?;
        Some(Self {
            id: field(0)?,
            is_response: message[2] & 0x80 != 0,
            rcode: message[3] & 0x0f,
            questions: field(4)?,
            answers: field(6)?,
        })
    }
}

/// A question for `name`, which is written without the last dot.
pub(crate) fn question(id: u16, name: &str, kind: u16, class: u16) -> Vec<u8> {
    let mut message = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label is short"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend([kind, class].map(u16::to_be_bytes).concat());
    message
}

/// Sends `message` over UDP and waits for an answer; `None` when there is none within `limit`.
pub(crate) fn ask_udp(port: u16, message: &[u8], limit: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    socket.set_read_timeout(Some(limit)).expect("a timeout can be set");
    socket.connect(("127.0.0.1", port)).expect("loopback can be reached");
    socket.send(message).ok()?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

/// Sends `message` over TCP behind its length and waits for an answer.
pub(crate) fn ask_tcp(port: u16, message: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(limit))?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
