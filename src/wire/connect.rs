//! The first frame in each direction, which opens or resumes a session.

use std::time::Duration;

use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::{SessionId, Zxid};
use crate::znode::SessionPassword;

/// What a client opens a connection with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The newest zxid that the client has seen; a server that is behind it must refuse.
    pub last_zxid_seen: Zxid,
    /// The session timeout that the client would like, in ms.
    pub timeout_ms: i32,
    /// The session to resume, or [`SessionId::NONE`].
    pub session: SessionId,
    /// The password of the session to resume; zeros otherwise.
    pub password: SessionPassword,
    /// Whether a read-only server will do; `None` when the client is older than 3.4 and does not say.
    pub read_only: Option<bool>,
}

impl ConnectRequest {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_int(0);
        out.put_long(self.last_zxid_seen.raw());
        out.put_int(self.timeout_ms);
        out.put_long(self.session.0);
        out.put_buffer(Some(&self.password.0));
        if let Some(read_only) = self.read_only {
            out.put_bool(read_only);
        }
    }

    /// Reads the record. A password that is not 16 bytes long reads as zeros, which fit no session.
    ///
    /// # Errors
    ///
    /// When the bytes are no such record.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let _protocol_version = reader.int("connect.protocolVersion")?;
        Ok(Self {
            last_zxid_seen: Zxid::from_raw(reader.long("connect.lastZxidSeen")?),
            timeout_ms: reader.int("connect.timeOut")?,
            session: SessionId(reader.long("connect.sessionId")?),
            password: decode_password(&mut reader)?,
            read_only: decode_read_only(&mut reader)?,
        })
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// The session timeout granted, in ms; 0 when the session is gone.
    pub timeout_ms: i32,
    /// The session.
    pub session: SessionId,
    /// The session's password, for the next connection.
    pub password: SessionPassword,
    /// Whether the server serves reads only; present when the request said anything about it.
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// The answer to a client whose session is gone; the server closes the connection after it.
    pub const fn expired(read_only: Option<bool>) -> Self {
        Self { timeout_ms: 0, session: SessionId::NONE, password: SessionPassword::ZERO, read_only }
    }

    /// The session timeout, or `None` when the session is gone.
    pub fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.timeout_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_int(0);
        out.put_int(self.timeout_ms);
        out.put_long(self.session.0);
        out.put_buffer(Some(&self.password.0));
        if let Some(read_only) = self.read_only {
            out.put_bool(read_only);
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    ///
    /// When the bytes are no such record.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let _protocol_version = reader.int("connect.protocolVersion")?;
        Ok(Self {
            timeout_ms: reader.int("connect.timeOut")?,
            session: SessionId(reader.long("connect.sessionId")?),
            password: decode_password(&mut reader)?,
            read_only: decode_read_only(&mut reader)?,
        })
    }
}

fn decode_password(reader: &mut Reader<'_>) -> Result<SessionPassword, CodecError> {
    let bytes = reader.buffer("connect.passwd")?.unwrap_or_default();
    Ok(bytes.try_into().map_or(SessionPassword::ZERO, SessionPassword))
}

fn decode_read_only(reader: &mut Reader<'_>) -> Result<Option<bool>, CodecError> {
    if reader.is_empty() { Ok(None) } else { reader.bool("connect.readOnly").map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_has_apaches_bytes() {
        let session = SessionId(0x0100_000d_9373_0000);
        let response = ConnectResponse {
            timeout_ms: 10_000,
            session,
            password: SessionPassword::for_session(session),
            read_only: Some(false),
        };
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "00000000000027100100000d9373000000000010cf02f0d7b05d2079c5cf344d79bd654700");
        assert_eq!(ConnectResponse::decode(&bytes), Ok(response));
    }

    #[test]
    fn an_old_client_says_nothing_about_read_only() {
        let request = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 4000,
            session: SessionId::NONE,
            password: SessionPassword::ZERO,
            read_only: None,
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        assert_eq!(bytes.len(), 44);
        assert_eq!(ConnectRequest::decode(&bytes), Ok(request));
    }
}
