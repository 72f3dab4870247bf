//! The state of a process for probes and scrapers: `/livez`, `/readyz`, `/metrics`, and nothing else.

use std::fmt;
use std::sync::Arc;

use hyper::{Request, StatusCode};

use super::listener::{Answer, HttpResponse};
use super::respond::{self, error, is_read, method_not_allowed, text};
use crate::telemetry::{HttpRoute, Metrics};

/// Answers the requests of a listener that tells the state of a role.
pub struct StatusRouter {
    metrics: Arc<Metrics>,
    readiness: Box<dyn Fn() -> Result<(), &'static str> + Send + Sync>,
}

impl fmt::Debug for StatusRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusRouter(..)")
    }
}

impl StatusRouter {
    /// A router that is ready while `readiness` says so; its error says why not, in a few words.
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: impl Fn() -> Result<(), &'static str> + Send + Sync + 'static,
    ) -> Self {
        Self { metrics, readiness: Box::new(readiness) }
    }

    /// The router as [`super::serve`] takes it.
    pub fn into_answer(self) -> Answer {
        let router = Arc::new(self);
        Answer::new(move |request| {
            let router = Arc::clone(&router);
            Box::pin(async move { router.answer(&request) })
        })
    }

    /// Answers one request. Its body, if it has one, is not read.
    pub fn answer<B>(&self, request: &Request<B>) -> HttpResponse {
        let (route, response) = match request.uri().path() {
            _ if !is_read(request.method()) => {
                (HttpRoute::Other, method_not_allowed(request.method(), "GET, HEAD"))
            }
            "/livez" => (HttpRoute::Livez, text(StatusCode::OK, "ok\n")),
            "/readyz" => (HttpRoute::Readyz, self.readyz()),
            "/metrics" => (HttpRoute::Metrics, respond::metrics(&self.metrics)),
            _ => {
                let hint = "try /livez, /readyz or /metrics";
                (HttpRoute::Other, error(StatusCode::NOT_FOUND, "there is nothing at this path", hint))
            }
        };
        self.metrics.count_http_request(route, response.status().as_u16());
        response
    }

    fn readyz(&self) -> HttpResponse {
        match (self.readiness)() {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
        }
    }
}
