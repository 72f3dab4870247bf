//! gRPC checks: the standard health service, over HTTP/2, with prior knowledge or over TLS.
//!
//! The two messages of `grpc.health.v1` are a string and an enum, so they are coded here by hand:
//!
//! ```text
//! message HealthCheckRequest  { string service = 1; }
//! message HealthCheckResponse { enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
//!                               ServingStatus status = 1; }
//! ```
//!
//! Sources: grpc/grpc-proto, grpc/health/v1/health.proto; grpc/grpc, doc/health-checking.md, doc/PROTOCOL-HTTP2.md and
//! doc/statuscodes.md; the encoding of protobuf, <https://protobuf.dev/programming-guides/encoding/>.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::header::{self, HeaderMap};
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::exchange::driven;
use super::failure::CheckFailure;
use super::tls::{self, TlsTarget};
use crate::tls::TlsClient;

/// A server that has the health service, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcTarget {
    /// Where to connect.
    pub server: SocketAddr,
    /// TLS, if it is spoken.
    pub tls: Option<TlsTarget>,
    /// The `:authority` of the request.
    pub host: String,
    /// The gRPC service whose health is asked; empty for the server as a whole.
    pub service: String,
}

/// What is wrong with an answer that did come.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrpcError {
    /// The server is there and says that it does not serve.
    #[error("it is {}", serving_status(*.0))]
    NotServing(u64),
    /// The call failed.
    #[error("the call failed with {}{}", code_name(*.code), hint(*.code))]
    Status {
        /// The gRPC status code.
        code: u32,
    },
    /// It is HTTP/2, but no gRPC.
    #[error("its answer is HTTP status {0} without a gRPC status; is it a gRPC server?")]
    NoGrpc(u16),
    /// It is gRPC, but not the message of the health service.
    #[error("its answer is no HealthCheckResponse")]
    Malformed,
}

/// The protocol's name in TLS (ALPN). Clients of gRPC refuse servers that do not agree on it (RFC 9113 section 3.2).
pub(super) const ALPN: &str = "h2";

/// Asks once; `tls` is there when the target has it. The connection, and whatever works on it, ends when this returns or is dropped.
pub(super) async fn ask(
    target: &GrpcTarget,
    tls: Option<&TlsClient>,
    timeout: Duration,
) -> Result<(), CheckFailure> {
    let server = target.server;
    let http = |source| CheckFailure::Http { server, source };
    let stream = tls::connect(server, target.tls.as_ref().zip(tls)).await?;
    let tasks = Tasks::default();
    let (mut sender, connection) = http2::Builder::new(tasks.executor())
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let exchange =
        async { judge(target, sender.send_request(request(target, timeout)).await.map_err(http)?).await };
    driven(exchange, connection).await
}

fn request(target: &GrpcTarget, timeout: Duration) -> Request<Full<Bytes>> {
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    Request::post(format!("{scheme}://{}{METHOD}", target.host))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-timeout", format!("{}m", timeout.as_millis().min(GRPC_TIMEOUT_MAX)))
        .header(header::USER_AGENT, concat!("rollcall/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(frame(&encode(&target.service))))
        .expect("the host was checked when the settings were read")
}

async fn judge(target: &GrpcTarget, response: Response<hyper::body::Incoming>) -> Result<(), CheckFailure> {
    let server = target.server;
    let grpc = |error| CheckFailure::Grpc { server, service: target.service.clone(), error };
    let (head, mut body) = response.into_parts();
    // A call that fails at once has its status among the headers, and no body.
    let mut code = grpc_status(&head.headers);
    let mut message = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| CheckFailure::Http { server, source })?;
        match frame.into_data() {
            Ok(data) if message.len() + data.len() > MESSAGE_BYTES_MAX => {
                return Err(grpc(GrpcError::Malformed));
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => code = code.or(frame.trailers_ref().and_then(grpc_status)),
        }
    }
    match code {
        Some(0) => {}
        Some(code) => return Err(grpc(GrpcError::Status { code })),
        None => return Err(grpc(GrpcError::NoGrpc(head.status.as_u16()))),
    }
    match unframe(&message).and_then(decode) {
        Some(SERVING) => Ok(()),
        Some(status) => Err(grpc(GrpcError::NotServing(status))),
        None => Err(grpc(GrpcError::Malformed)),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A HealthCheckRequest: field 1, length-delimited; a field with its default is left out.
fn encode(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    message
}

/// The status of a HealthCheckResponse: the last field 1, or its default. Fields that are not known are passed over.
fn decode(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while message.has_remaining() {
        let key = take_varint(&mut message)?;
        let skipped = match (key >> 3, key & 7) {
            (1, 0) => {
                status = take_varint(&mut message)?;
                0
            }
            (_, 0) => take_varint(&mut message).map(|_passed| 0)?,
            (_, 1) => 8,
            (_, 2) => usize::try_from(take_varint(&mut message)?).ok()?,
            (_, 5) => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

/// A message as gRPC sends it: not compressed, its length, itself.
fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + FRAME_HEAD_BYTES);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a service's name is short"));
    frame.put_slice(message);
    frame.freeze()
}

/// The one message in a body; we offer no compression, so there is none.
fn unframe(body: &[u8]) -> Option<&[u8]> {
    let (mut head, message) = body.split_at_checked(FRAME_HEAD_BYTES)?;
    let (compressed, length) = (head.get_u8(), head.get_u32());
    (compressed == 0 && usize::try_from(length) == Ok(message.len())).then_some(message)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn serving_status(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => format!("in the unknown state {other}"),
    }
}

fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| format!("the unknown status {code}"), |name| (*name).to_owned())
}

fn hint(code: u32) -> &'static str {
    match code {
        5 => {
            ": the server does not know this service; register it with the health service, or ask for another"
        }
        12 => ": the server has no health service; add grpc.health.v1.Health to it, or use kind: tcp",
        _ => "",
    }
}

/// The tasks that hyper wants for one connection. They end with this.
#[derive(Debug, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn executor(&self) -> Executor {
        Executor(self.0.clone())
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

#[derive(Clone, Debug)]
struct Executor(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

const METHOD: &str = "/grpc.health.v1.Health/Check";
const SERVING: u64 = 1;
const FRAME_HEAD_BYTES: usize = 5;
/// Bytes of the longest answer; the real one has 7.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// The longest headers and trailers of an answer.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// How much a server may send before it is read: the least that HTTP/2 knows by default (RFC 9113 section 6.9.2).
const WINDOW_BYTES: u32 = 65_535;
/// `grpc-timeout` has at most eight digits.
const GRPC_TIMEOUT_MAX: u128 = 99_999_999;

#[cfg(test)]
mod tests;
