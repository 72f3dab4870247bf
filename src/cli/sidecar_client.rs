//! Asks a running sidecar over HTTP.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ETAG, HOST, IF_NONE_MATCH, RETRY_AFTER, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::{Failure, chain};
use crate::client::is_host_and_port;

/// A sidecar's HTTP address.
#[derive(Clone, Debug)]
pub(super) struct SidecarClient {
    addr: String,
}

/// What a sidecar answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    /// When to ask again, if the sidecar says so.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("{addr:?} is not HOST:PORT; give one such as 127.0.0.1:8500 with --http-addr")]
    Address { addr: String },
    #[error(
        "no sidecar answers at {addr}: {reason}; start one with `rollcall dev`, or name another with --http-addr"
    )]
    Connect { addr: String, reason: String },
    #[error(
        "what listens at {addr} broke off: {reason}; check that it is a sidecar, or name another with --http-addr"
    )]
    Broken { addr: String, reason: String },
    #[error("the sidecar at {addr} did not answer within {} s; try again, or look at its log", .after.as_secs())]
    Late { addr: String, after: Duration },
}

impl AskError {
    /// Whether it may be over when it is tried again.
    pub(super) const fn is_passing(&self) -> bool {
        match self {
            Self::Address { .. } => false,
            Self::Connect { .. } | Self::Broken { .. } | Self::Late { .. } => true,
        }
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Address { .. } => Self::usage(error.to_string()),
            AskError::Connect { .. } | AskError::Broken { .. } | AskError::Late { .. } => {
                Self::failed(error.to_string())
            }
        }
    }
}

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take beyond the wait that was asked for.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer: a hundred thousand instances.
const BODY_BYTES_MAX: usize = 64 << 20;

impl SidecarClient {
    pub(super) fn new(addr: &str) -> Result<Self, AskError> {
        let addr = addr.strip_prefix("http://").unwrap_or(addr).trim_end_matches('/');
        if is_host_and_port(addr) {
            Ok(Self { addr: addr.to_owned() })
        } else {
            Err(AskError::Address { addr: addr.to_owned() })
        }
    }

    pub(super) fn addr(&self) -> &str {
        &self.addr
    }

    /// Gets `path`; `etag` is what is known already, and `wait` how long the sidecar may hold the answer back.
    pub(super) async fn get(
        &self,
        path: &str,
        etag: Option<&str>,
        wait: Duration,
    ) -> Result<Answer, AskError> {
        let mut request = Request::get(path);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        self.exchange(request, wait).await
    }

    async fn exchange(&self, request: Builder, wait: Duration) -> Result<Answer, AskError> {
        let socket = self.connect().await?;
        let after = ANSWER_TIMEOUT + wait;
        let late = |_elapsed| AskError::Late { addr: self.addr.clone(), after };
        timeout(after, self.ask(socket, request))
            .await
            .map_err(late)?
            .map_err(|error| AskError::Broken { addr: self.addr.clone(), reason: chain(error.as_ref()) })
    }

    /// Tells the sidecar something; `wait` is how long that may take.
    pub(super) async fn tell(&self, method: Method, path: &str, wait: Duration) -> Result<Answer, AskError> {
        self.exchange(Request::builder().method(method).uri(path), wait).await
    }

    async fn connect(&self) -> Result<TcpStream, AskError> {
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.addr)).await;
        let reason = match connected {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "connection refused".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        Err(AskError::Connect { addr: self.addr.clone(), reason })
    }

    async fn ask(
        &self,
        socket: TcpStream,
        request: Builder,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let request = request.header(HOST, &self.addr).header(USER_AGENT, "rollcall");
        let exchange = async {
            let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
            let status = response.status();
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let etag = header(ETAG).map(str::to_owned);
            let retry_after = header(RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
            let retry_after = retry_after.map(Duration::from_secs);
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await?.to_bytes();
            Ok(Answer { status, etag, retry_after, body })
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection may be done before the last of its bytes is read.
            ended = &mut connection => { ended?; exchange.await }
        }
    }
}

impl Answer {
    /// What the sidecar says is wrong, with its hint; `None` when no sidecar speaks like that.
    pub(super) fn refusal(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
            #[serde(default)]
            hint: String,
        }
        let Refusal { error, hint } = serde_json::from_slice(&self.body).ok()?;
        Some(if hint.is_empty() { error } else { format!("{error}; {hint}") })
    }
}

/// All but unreserved characters (RFC 3986 section 2.3) as `%XX`.
pub(super) fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_may_not_hold_is_encoded() {
        assert_eq!(percent_encoded("zone=a b/+%"), "zone%3Da%20b%2F%2B%25");
    }

    #[tokio::test]
    async fn a_refused_connection_says_what_to_try() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = SidecarClient::new(&addr).unwrap().get("/livez", None, Duration::ZERO).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "no sidecar answers at {addr}: connection refused; start one with `rollcall dev`, or name another with --http-addr"
            )
        );
    }

    #[test]
    fn an_address_is_host_and_port() {
        assert!(SidecarClient::new("http://localhost:8500/").is_ok());
        assert!(matches!(SidecarClient::new("localhost"), Err(AskError::Address { .. })));
    }
}
