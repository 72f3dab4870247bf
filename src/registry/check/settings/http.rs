//! What http and https checks ask.

use std::net::SocketAddr;

use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};

use super::super::body::{BODY_BYTES_MAX, BodyPattern};
use super::super::http::{HttpTarget, StatusRange};
use super::CheckSettings;
use crate::config::Mistake;

/// Headers of one request: more is not a health check.
pub(super) const HEADERS_MAX: usize = 32;
/// Bytes of all their names and values together; many servers refuse a head of 8 KiB.
const HEADERS_BYTES_MAX: usize = 4 * 1024;

/// What the check itself decides: who is asked, and where the request ends.
const HEADERS_OF_OURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl CheckSettings {
    pub(super) fn resolve_http(
        &self,
        path: &str,
        server: Option<SocketAddr>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<HttpTarget> {
        let method = self.resolve_method(path, mistakes);
        let http_path = self.path.clone().unwrap_or_else(|| "/".to_owned());
        if !is_request_target(&http_path) {
            mistakes.push(Mistake::new(
                format!("{path}.path"),
                format!("{http_path:?} is not the path of a URL"),
                "start it with / and escape blanks and characters beyond ASCII as %XX",
            ));
        }
        self.refuse_host(path, mistakes);
        let headers = self.resolve_headers(path, mistakes);
        let status = self.resolve_status(path, mistakes);
        let body = self.resolve_body(path, method.as_ref(), mistakes);
        let tls = self.resolve_tls(path, server, mistakes);
        let load_header = self.resolve_load_header(path, mistakes);
        let server = server?;
        Some(HttpTarget {
            server,
            tls,
            method: method?,
            host: self.host.clone().unwrap_or_else(|| server.to_string()),
            path: http_path,
            headers,
            status: status?,
            body,
            load_header,
        })
    }

    fn resolve_load_header(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<HeaderName> {
        let text = self.load_header.as_deref()?;
        let name = HeaderName::from_bytes(text.as_bytes()).ok();
        if name.is_none() {
            mistakes.push(Mistake::new(
                format!("{path}.load_header"),
                format!("{text:?} is not the name of a header"),
                "write one such as X-Load",
            ));
        }
        name
    }

    fn resolve_method(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<Method> {
        let Some(text) = &self.method else { return Some(Method::GET) };
        // CONNECT asks for a tunnel, which is no answer.
        let is_method =
            !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        let method = Method::from_bytes(text.as_bytes()).ok();
        let method = method.filter(|method| is_method && *method != Method::CONNECT);
        if method.is_none() {
            mistakes.push(Mistake::new(
                format!("{path}.method"),
                format!("{text:?} is not a method that a check can use"),
                "write GET, HEAD, POST or another one, in capitals",
            ));
        }
        method
    }

    pub(super) fn refuse_host(&self, path: &str, mistakes: &mut Vec<Mistake>) {
        if let Some(host) = self.host.as_deref().filter(|host| !is_host_header(host)) {
            mistakes.push(Mistake::new(
                format!("{path}.host"),
                format!("{host:?} is not a host"),
                "write a host name, with :port if it has one",
            ));
        }
    }

    /// Values are never repeated in a mistake: they may be secrets.
    fn resolve_headers(&self, path: &str, mistakes: &mut Vec<Mistake>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let path = format!("{path}.headers.{name}");
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                mistakes.push(Mistake::new(
                    path,
                    format!("{name:?} is not the name of a header"),
                    "use letters, digits and hyphens",
                ));
                continue;
            };
            if HEADERS_OF_OURS.contains(&header) {
                let remedy = if header == header::HOST { "use the key host" } else { "leave it out" };
                mistakes.push(Mistake::new(path, format!("the check decides {header} itself"), remedy));
                continue;
            }
            let Ok(mut value) = HeaderValue::from_str(&value.0) else {
                mistakes.push(Mistake::new(
                    path,
                    "its value cannot be sent: it holds a line break, or a character beyond ASCII",
                    "write one line of ASCII",
                ));
                continue;
            };
            value.set_sensitive(true);
            if headers.insert(header, value).is_some() {
                mistakes.push(Mistake::new(path, format!("the header {name} is given twice"), "keep one"));
            }
        }
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.0.len()).sum();
        if self.headers.len() > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
            mistakes.push(Mistake::new(
                format!("{path}.headers"),
                format!("{} headers with {bytes} bytes are too many", self.headers.len()),
                format!("give at most {HEADERS_MAX} with {HEADERS_BYTES_MAX} bytes together"),
            ));
        }
        headers
    }

    fn resolve_status(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<StatusRange> {
        let Some(text) = &self.status else {
            return Some(StatusRange::DEFAULT);
        };
        let range = StatusRange::parse(&text.0);
        if range.is_none() {
            mistakes.push(Mistake::new(
                format!("{path}.status"),
                format!("{:?} is neither a status code nor a range of them", text.0),
                "write a code such as 200, or a range such as 200-399, within 100-599",
            ));
        }
        range
    }

    fn resolve_body(
        &self,
        path: &str,
        method: Option<&Method>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<BodyPattern> {
        let body = self.body.as_ref()?;
        let path = format!("{path}.body");
        if body.0.is_empty() {
            mistakes.push(Mistake::new(
                path,
                "every body contains the empty text",
                "write a text, or leave body out",
            ));
        } else if body.0.len() > BODY_BYTES_MAX {
            let message = format!("no more than {BODY_BYTES_MAX} bytes of a body are read");
            mistakes.push(Mistake::new(path, message, "look for a shorter text"));
        } else if method == Some(&Method::HEAD) {
            mistakes.push(Mistake::new(
                path,
                "the response to HEAD has no body",
                "use method: GET, or leave body out",
            ));
        } else {
            let told = |error| {
                let message = format!("{:?} is no regular expression that can be used: {error}", body.0);
                Mistake::new(
                    path,
                    message,
                    "write one, with \\ before what is meant as it stands, such as \\{ or \\.",
                )
            };
            return BodyPattern::parse(&body.0).map_err(|error| mistakes.push(told(error))).ok();
        }
        None
    }
}

/// Whether hyper will take it as it is; a fragment it would drop.
fn is_request_target(path: &str) -> bool {
    path.starts_with('/') && !path.contains('#') && PathAndQuery::try_from(path).is_ok()
}

fn is_host_header(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
        && Authority::try_from(host).is_ok()
}
