//! HTTP and HTTPS checks: one request on a connection of its own, judged by status and body.
//!
//! Redirects are answers like others and not followed: where they lead is another server's health. The body is read only
//! when something is expected in it, and no further than [`super::body`] says.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use super::body::{BodyPattern, Search};
use super::exchange::driven;
use super::failure::CheckFailure;
use super::load::{Pass, share_of_load};
use super::tls::{self, TlsTarget};
use crate::tls::TlsClient;

/// One request, and which responses pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget {
    /// Where to connect.
    pub server: SocketAddr,
    /// TLS, for https.
    pub tls: Option<TlsTarget>,
    /// The request's method.
    pub method: Method,
    /// The `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Further headers. Their values are marked sensitive, so that they show in no log.
    pub headers: HeaderMap,
    /// The status codes that pass.
    pub status: StatusRange,
    /// What the beginning of the body must contain.
    pub body: Option<BodyPattern>,
    /// The header of the response that says how busy the application is.
    pub load_header: Option<HeaderName>,
}

/// HTTP status codes from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Successes and redirections, as Kubernetes' probes take them.
    pub const DEFAULT: Self = Self { first: 200, last: 399 };

    /// Reads `200` or `200-399`; both ends must be within 100-599.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (100 <= first && first <= last && last <= 599).then_some(Self { first, last })
    }

    /// Whether `code` is among them.
    pub fn contains(self, code: u16) -> bool {
        (self.first..=self.last).contains(&code)
    }
}

/// Asks once; `tls` is there when the target has it. The connection is closed when this returns or is dropped.
pub(super) async fn ask(target: &HttpTarget, tls: Option<&TlsClient>) -> Result<Pass, CheckFailure> {
    let http = |source| CheckFailure::Http { server: target.server, source };
    let stream = tls::connect(target.server, target.tls.as_ref().zip(tls)).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let exchange = async { judge(target, sender.send_request(request(target)).await.map_err(http)?).await };
    driven(exchange, connection).await
}

fn request(target: &HttpTarget) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = target.method.clone();
    *request.uri_mut() = target.path.parse().expect("the path was checked when the settings were read");
    let headers = request.headers_mut();
    // Servers may refuse with 411 what should have a body and does not say that it has none; hyper does not say it.
    if [Method::POST, Method::PUT, Method::PATCH].contains(&target.method) {
        headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("0"));
    }
    headers.insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
    headers.extend(target.headers.clone());
    let host = target.host.parse().expect("the host was checked when the settings were read");
    headers.insert(header::HOST, host);
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    request
}

async fn judge(target: &HttpTarget, response: Response<Incoming>) -> Result<Pass, CheckFailure> {
    let server = target.server;
    let status = response.status().as_u16();
    if !target.status.contains(status) {
        return Err(CheckFailure::Status { server, status });
    }
    let load = target.load_header.as_ref().and_then(|name| response.headers().get(name));
    let pass = Pass { share: load.and_then(|load| load.to_str().ok()).and_then(share_of_load) };
    let Some(wanted) = &target.body else { return Ok(pass) };
    let mut body = response.into_body();
    let mut search = Search::new(wanted);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| CheckFailure::Http { server, source })?;
        let Ok(data) = frame.into_data() else { continue };
        if search.push(&data) {
            return Ok(pass);
        }
        if search.is_full() {
            break;
        }
    }
    if search.finish() {
        return Ok(pass);
    }
    Err(CheckFailure::Body { server, wanted: wanted.clone(), bytes: search.bytes() })
}

/// The longest head of a response that is read.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const USER_AGENT: &str = concat!("rollcall/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
pub(super) use tests::sample;
#[cfg(test)]
mod tests;
