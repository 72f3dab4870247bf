//! The bytes of one connection, both ways.
//!
//! What is to be sent is gathered and written together; what comes is read as far as it has come, and cut into frames by the caller.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::task::coop::unconstrained;

/// Bytes asked of the stream at once.
const READ_BYTES: usize = 64 << 10;

/// Whatever carries bytes both ways, and closes when it is dropped: a TCP connection, or a pipe in memory.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connection that is up.
pub(super) struct Socket {
    stream: Box<dyn ByteStream>,
    pub(super) incoming: BytesMut,
    outgoing: BytesMut,
}

impl Socket {
    pub(super) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self { stream, incoming: BytesMut::new(), outgoing: BytesMut::new() }
    }

    /// Has these bytes sent with the next write.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Writes as much as the stream takes; the rest goes while [`Socket::read`] waits.
    pub(super) fn write_now(&mut self) {
        self.poll_write(&mut Context::from_waker(Waker::noop()));
    }

    /// Waits for bytes to come, and reads once; an error says what became of the connection. Losing this future loses nothing.
    pub(super) async fn read(&mut self) -> Result<(), String> {
        poll_fn(|context| {
            self.poll_write(context);
            self.poll_read(context)
        })
        .await
    }

    /// Reads once what is there already.
    pub(super) fn read_now(&mut self) -> Result<(), String> {
        // Also when the task has had its turn: whoever asks so is about to draw conclusions from a silence.
        unconstrained(poll_fn(|context| self.poll_read(context))).now_or_never().unwrap_or(Ok(()))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.incoming.reserve(READ_BYTES);
        pin!(self.stream.read_buf(&mut self.incoming)).poll(context).map(|read| match read {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
    }

    fn poll_write(&mut self, context: &mut Context<'_>) {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.outgoing) {
                Poll::Pending => return,
                Poll::Ready(Ok(written)) if written > 0 => self.outgoing.advance(written),
                // A stream that cannot be written to is found out by reading, which may still have something to say.
                Poll::Ready(Ok(_) | Err(_)) => self.outgoing.clear(),
            }
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (incoming, outgoing) = (self.incoming.len(), self.outgoing.len());
        f.debug_struct("Socket").field("incoming", &incoming).field("outgoing", &outgoing).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_goes_while_an_answer_is_waited_for() {
        let (near, mut far) = duplex(4);
        let mut socket = Socket::new(Box::new(near));
        socket.send(b"questions");
        socket.write_now();
        let answering = async {
            let mut heard = [0; 9];
            far.read_exact(&mut heard).await.unwrap();
            far.write_all(b"yes").await.unwrap();
            heard
        };
        let (read, heard) = tokio::join!(socket.read(), answering);
        assert_eq!((read, &heard, &socket.incoming[..]), (Ok(()), b"questions", &b"yes"[..]));
    }

    #[tokio::test]
    async fn what_is_there_is_read_without_waiting_and_the_end_is_told_behind_it() {
        let (near, mut far) = duplex(64);
        let mut socket = Socket::new(Box::new(near));
        assert_eq!(socket.read_now(), Ok(()));
        assert!(socket.incoming.is_empty(), "nothing has come");
        far.write_all(b"last words").await.unwrap();
        drop(far);
        socket.send(b"into the void");
        socket.write_now();
        assert_eq!((socket.read_now(), &socket.incoming[..]), (Ok(()), &b"last words"[..]));
        assert!(socket.read_now().is_err());
    }
}
