//! What the one who connects to an election port says first; it gets no answer.
//!
//! ```text
//! long version · long sid · int length · address      version -65536: host:port; -65535: several of them, joined by |
//! long sid                                            before 3.5: a sid is never negative
//! ```
//!
//! Source: `QuorumCnxManager.java` (`InitialMessage`) of Apache ZooKeeper.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::codec::WriteJute;
use crate::id::ServerId;

/// Encodes what this member says, with its own address on the election port.
pub(super) fn encode(server: ServerId, address: &str) -> Vec<u8> {
    let mut hello = Vec::new();
    hello.put_long(VERSION_1);
    hello.put_long(i64::from(server.get()));
    hello.put_buffer(Some(address.as_bytes()));
    hello
}

/// Reads who it is. The address is not looked at: members are where the configuration says that they are.
///
/// # Errors
///
/// When it is nobody that may be configured here.
pub(super) async fn read(mut stream: impl AsyncRead + Unpin) -> Result<ServerId, HelloError> {
    let first = stream.read_i64().await?;
    let sid = match first {
        0.. => first,
        VERSION_1 | VERSION_2 => {
            let sid = stream.read_i64().await?;
            let length = stream.read_i32().await?;
            let Ok(length @ 1..=ADDRESS_BYTES_MAX) = usize::try_from(length) else {
                return Err(HelloError::AddressLength(length));
            };
            let mut address = [0; ADDRESS_BYTES_MAX];
            stream.read_exact(&mut address[..length]).await?;
            sid
        }
        _ => return Err(HelloError::Version(first)),
    };
    match sid {
        ANONYMOUS => Err(HelloError::Anonymous),
        _ => u8::try_from(sid).ok().and_then(ServerId::new).ok_or(HelloError::Sid(sid)),
    }
}

/// Why somebody is turned away.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelloError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it speaks no election protocol that is known here ({0:#x})")]
    Version(i64),
    #[error("its address has length {0}")]
    AddressLength(i32),
    #[error("it is an observer without an id; give it one")]
    Anonymous,
    #[error("it calls itself server {0}, which cannot be")]
    Sid(i64),
    #[error("server {0} is not configured here")]
    NotConfigured(ServerId),
    #[error("it calls itself server {0}, as this member does; each needs an id of its own")]
    OwnId(ServerId),
}

const VERSION_1: i64 = -65536;
const VERSION_2: i64 = -65535;
const ADDRESS_BYTES_MAX: usize = 2048;
/// The sid of observers that were given none.
const ANONYMOUS: i64 = i64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    /// Server 2 of an ensemble of Apache ZooKeeper 3.8.0.
    const CAPTURED: &[u8] = b"\xff\xff\xff\xff\xff\xff\x00\x00\0\0\0\0\0\0\0\x02\0\0\0\x0f127.0.0.1:14002";

    fn server(id: u8) -> ServerId {
        ServerId::new(id).unwrap()
    }

    #[tokio::test]
    async fn captured_bytes_are_read_and_written_back() {
        assert_eq!(read(CAPTURED).await.unwrap(), server(2));
        assert_eq!(encode(server(2), "127.0.0.1:14002"), CAPTURED);
    }

    #[tokio::test]
    async fn several_addresses_and_bare_sids_are_read() {
        let mut several = CAPTURED.to_vec();
        several[7] = 1;
        assert_eq!(read(&several[..]).await.unwrap(), server(2));
        assert_eq!(read(&b"\0\0\0\0\0\0\0\x09"[..]).await.unwrap(), server(9));
    }

    #[tokio::test]
    async fn everything_else_is_refused() {
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = CAPTURED.to_vec();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        for (bytes, expected) in [
            (with(0, &[0xff; 8]), "Version"),
            (with(16, &[0, 0, 8, 1]), "AddressLength"),
            (with(16, &[0, 0, 0, 0]), "AddressLength"),
            (with(16, &[0xff; 4]), "AddressLength"),
            (with(8, &i64::MAX.to_be_bytes()), "Anonymous"),
            (with(8, &255_i64.to_be_bytes()), "Sid"),
            (with(8, &(-3_i64).to_be_bytes()), "Sid"),
            (b"GET / HTTP/1.1\r\n".to_vec(), "Sid"),
            (CAPTURED[..30].to_vec(), "Io"),
            (Vec::new(), "Io"),
        ] {
            let error = read(&bytes[..]).await.unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{error:?} is no {expected}");
        }
    }
}
