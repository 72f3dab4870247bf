//! Responses that every router gives.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};

use super::listener::HttpResponse;
use super::lookup;
use crate::telemetry::Metrics;

pub(super) const JSON_TYPE: &str = "application/json";
pub(super) const TEXT_TYPE: &str = "text/plain; charset=utf-8";
pub(super) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

pub(super) fn json(status: StatusCode, body: Vec<u8>) -> HttpResponse {
    respond(status, JSON_TYPE, body)
}

pub(super) fn text(status: StatusCode, body: &'static str) -> HttpResponse {
    respond(status, TEXT_TYPE, body)
}

pub(super) fn metrics(metrics: &Metrics) -> HttpResponse {
    respond(StatusCode::OK, METRICS_TYPE, metrics.render())
}

pub(super) fn error(status: StatusCode, message: &str, hint: &str) -> HttpResponse {
    json(status, lookup::error(message, hint))
}

pub(super) fn never_heard_of(namespace: &str, name: &str) -> HttpResponse {
    let message = format!("no service {name:?} was ever heard of in namespace {namespace:?}");
    error(StatusCode::NOT_FOUND, &message, "GET /api/v1/services lists those that are known")
}

pub(super) fn method_not_allowed(method: &Method, allowed: &'static str) -> HttpResponse {
    let message = format!("{method} is not possible here");
    let hint = format!("use {}", allowed.replace(", ", " or "));
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, &message, &hint);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The connection is closed: those who ask again and again must not take all that those who wait leave.
pub(super) fn too_many_wait(message: &str, hint: &str) -> HttpResponse {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, message, hint);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
