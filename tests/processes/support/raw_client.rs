//! A ZooKeeper client made of nothing but bytes, so that a mistake in our codec cannot hide itself.
//!
//! Blocking, one request at a time, no pings: for short conversations.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const PING: i32 = 11;
const MULTI: i32 = 14;
const CLOSE_SESSION: i32 = -11;

/// One connection with a session.
#[derive(Debug)]
pub(crate) struct RawClient {
    stream: TcpStream,
    xid: i32,
    pub(crate) session: i64,
    pub(crate) timeout_ms: i32,
}

/// What came back for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawReply {
    pub(crate) zxid: i64,
    pub(crate) error: i32,
    pub(crate) body: Vec<u8>,
}

impl RawClient {
    /// Opens a connection and a new session.
    ///
    /// # Errors
    ///
    /// When nobody listens, or the server gives no session.
    pub(crate) fn connect(address: &str, timeout_ms: i32) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let mut client = Self { stream, xid: 0, session: 0, timeout_ms: 0 };
        client.send_frame(&connect_request(timeout_ms))?;
        let answer = client.receive_frame()?;
        if answer.len() < 36 {
            return Err(io::Error::other(format!("a connect response of {} bytes", answer.len())));
        }
        client.timeout_ms = int_at(&answer, 4);
        client.session = long_at(&answer, 8);
        if client.timeout_ms <= 0 {
            return Err(io::Error::other("the server refused the session"));
        }
        Ok(client)
    }

    pub(crate) fn create(&mut self, path: &str, data: Option<&[u8]>, flags: i32) -> io::Result<RawReply> {
        self.request(CREATE, &create_body(path, data, flags))
    }

    /// Creates persistent znodes, a hundred in a transaction, and asks for the next hundred before it has heard of those before.
    ///
    /// # Errors
    ///
    /// When one transaction is not carried out.
    pub(crate) fn create_all(&mut self, znodes: &[(String, String)]) -> io::Result<()> {
        let multis = znodes.chunks(100);
        for together in multis.clone() {
            self.xid += 1;
            let mut frame = [int(self.xid), int(MULTI)].concat();
            for (path, data) in together {
                let create = create_body(path, Some(data.as_bytes()), 0);
                frame.extend([int(CREATE), vec![0], int(-1), create].concat());
            }
            frame.extend([int(-1), vec![1], int(-1)].concat());
            self.send_frame(&frame)?;
        }
        for together in multis {
            let frame = self.receive_frame()?;
            // A failed multi succeeds as a request, and its first result is an error.
            if int_at(&frame, 12) != 0 || int_at(&frame, 16) != CREATE {
                return Err(io::Error::other(format!("not created: {:?} and on", together[0].0)));
            }
        }
        Ok(())
    }

    pub(crate) fn set(&mut self, path: &str, data: &[u8]) -> io::Result<RawReply> {
        self.request(SET_DATA, &set_body(path, data))
    }

    pub(crate) fn delete(&mut self, path: &str) -> io::Result<RawReply> {
        self.request(DELETE, &[text(path), int(-1)].concat())
    }

    /// The data of a znode; `None` when it does not exist or holds null.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let reply = self.request(GET_DATA, &[text(path), vec![0]].concat())?;
        if reply.error != 0 {
            return Ok(None);
        }
        let length = int_at(&reply.body, 0);
        Ok(usize::try_from(length).ok().map(|length| reply.body[4..4 + length].to_vec()))
    }

    pub(crate) fn exists(&mut self, path: &str) -> io::Result<bool> {
        Ok(self.request(EXISTS, &[text(path), vec![0]].concat())?.error == 0)
    }

    pub(crate) fn children(&mut self, path: &str) -> io::Result<Vec<String>> {
        let reply = self.request(GET_CHILDREN, &[text(path), vec![0]].concat())?;
        let mut at = 4;
        let count = if reply.error == 0 { int_at(&reply.body, 0) } else { 0 };
        Ok((0..count)
            .map(|_| {
                let length = usize::try_from(int_at(&reply.body, at)).expect("a name has a length");
                at += 4 + length;
                String::from_utf8_lossy(&reply.body[at - length..at]).into_owned()
            })
            .collect())
    }

    /// Sets several znodes in one transaction; true when it was carried out.
    pub(crate) fn set_all(&mut self, changes: &[(&str, &[u8])]) -> io::Result<bool> {
        let mut body = Vec::new();
        for (path, data) in changes {
            body.extend([int(SET_DATA), vec![0], int(-1), set_body(path, data)].concat());
        }
        body.extend([int(-1), vec![1], int(-1)].concat());
        let reply = self.request(MULTI, &body)?;
        // A failed multi succeeds as a request, and its first result is an error.
        Ok(reply.error == 0 && int_at(&reply.body, 0) == SET_DATA)
    }

    pub(crate) fn ping(&mut self) -> io::Result<()> {
        self.send_frame(&[int(-2), int(PING)].concat())?;
        self.receive_frame().map(|_pong| ())
    }

    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.request(CLOSE_SESSION, &[]).map(|_reply| ())
    }

    /// Sends one request and waits for its reply; notifications in between are dropped.
    pub(crate) fn request(&mut self, op: i32, body: &[u8]) -> io::Result<RawReply> {
        self.xid += 1;
        self.send_frame(&[&int(self.xid), &int(op), body].concat())?;
        loop {
            let frame = self.receive_frame()?;
            if frame.len() < 16 {
                return Err(io::Error::other(format!("a reply of {} bytes", frame.len())));
            }
            let xid = int_at(&frame, 0);
            if xid == self.xid {
                return Ok(RawReply {
                    zxid: long_at(&frame, 4),
                    error: int_at(&frame, 12),
                    body: frame[16..].to_vec(),
                });
            }
            if xid != -1 {
                return Err(io::Error::other(format!("reply {xid} for request {}", self.xid)));
            }
        }
    }

    pub(crate) fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = i32::try_from(frame.len()).map_err(io::Error::other)?;
        self.send_bytes(&[&length.to_be_bytes(), frame].concat())
    }

    /// Sends bytes that need be no frame.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn receive_frame(&mut self) -> io::Result<Vec<u8>> {
        receive_frame(&mut self.stream)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Reads one frame.
pub(crate) fn receive_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
    let mut frame = vec![0; length.min(16 << 20)];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// A request for a new session.
pub(crate) fn connect_request(timeout_ms: i32) -> Vec<u8> {
    [int(0), long(0), int(timeout_ms), long(0), buffer(Some(&[0; 16])), vec![0]].concat()
}

/// The record of a create with the open ACL.
pub(crate) fn create_body(path: &str, data: Option<&[u8]>, flags: i32) -> Vec<u8> {
    [text(path), buffer(data), int(1), int(31), text("world"), text("anyone"), int(flags)].concat()
}

fn set_body(path: &str, data: &[u8]) -> Vec<u8> {
    [text(path), buffer(Some(data)), int(-1)].concat()
}

pub(crate) fn int(value: i32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

pub(crate) fn long(value: i64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

pub(crate) fn text(value: &str) -> Vec<u8> {
    buffer(Some(value.as_bytes()))
}

pub(crate) fn buffer(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        None => int(-1),
        Some(bytes) => [&int(i32::try_from(bytes.len()).expect("test data is short"))[..], bytes].concat(),
    }
}

fn int_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
