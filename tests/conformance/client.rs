//! A client made of sockets: it sends octets and takes what comes.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crate::message::Message;
use crate::query::{A, Query};
use crate::world::World;

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(20);

impl World {
    /// Asks for a name and type over UDP, without EDNS.
    pub(crate) fn ask(&self, name: &str, kind: u16) -> Message {
        self.udp(&Query::of(name, kind))
    }

    /// The reply over UDP.
    pub(crate) fn udp(&self, query: &Query) -> Message {
        let reply = self.udp_octets(&query.to_octets());
        assert_eq!(reply.id, query.id, "RFC 1035 section 4.1.1: the ID is copied");
        reply
    }

    /// The reply over UDP to octets that may be no query.
    pub(crate) fn udp_octets(&self, octets: &[u8]) -> Message {
        let socket = self.udp_socket();
        socket.send(octets).expect("loopback takes it");
        receive(&socket)
    }

    /// The reply over TCP, on a connection of its own.
    pub(crate) fn tcp(&self, query: &Query) -> Message {
        let mut stream = self.connect();
        stream.write_all(&frame(&query.to_octets())).expect("loopback takes it");
        let reply = receive_framed(&mut stream).expect("a reply");
        assert_eq!(reply.id, query.id);
        reply
    }

    /// Demands that this is not answered over UDP: what is asked behind it from the same socket is answered first, and the server takes
    /// what comes from one socket in turn.
    pub(crate) fn expect_silence(&self, octets: &[u8]) {
        let socket = self.udp_socket();
        let canary = Query::of("web.shop.rollcall.internal", A);
        socket.send(octets).expect("loopback takes it");
        socket.send(&canary.to_octets()).expect("loopback takes it");
        let first = receive(&socket);
        assert!(first.id == canary.id && first.answers.len() == 2, "{octets:?} was answered: {first:?}");
    }

    pub(crate) fn udp_socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
        socket.set_read_timeout(Some(LIMIT)).expect("a timeout can be set");
        socket.connect(self.addr).expect("loopback can be reached");
        socket
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("it accepts");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        stream
    }
}

fn receive(socket: &UdpSocket) -> Message {
    let mut packet = vec![0; 65_535];
    let length = socket.recv(&mut packet).expect("a reply");
    Message::decode(&packet[..length])
}

/// A message behind its length (RFC 7766 section 8).
pub(crate) fn frame(octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).expect("a message has 65 535 octets at most");
    [&length.to_be_bytes(), octets].concat()
}

/// The next reply; `None` when the server has closed the connection.
pub(crate) fn receive_framed(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            return None;
        }
        Err(error) => panic!("neither a reply nor an end: {error}"),
    }
    let mut octets = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut octets).expect("a whole reply");
    Some(Message::decode(&octets))
}
