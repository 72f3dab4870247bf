//! Which request gets which response.
//!
//! | Path | Response |
//! | --- | --- |
//! | `/api/v1/services` | all services |
//! | `/api/v1/services/{namespace}/{service}` | one service; with `?wait=` a long poll |
//! | `/api/v1/explain/{namespace}/{service}` | why each instance is offered or not; with `?at=` (RFC 3339, or how long ago) why it was |
//! | `/api/v1/rehearse?lose=…` | what would be answered if something were lost: see [`super::rehearsal`] |
//! | `/api/v1/status` | the sidecar itself: see [`super::sidecar_status`] |
//! | `/api/v1/failback`, `/api/v1/drain`, `/api/v1/maintenance`, each also for `/{namespace}/{service}` | commands to own instances: see [`super::command`] |
//! | `/api/v1/checks/{namespace}/{service}/{id}/{check}/pass` or `…/fail` | takes a report, by PUT: see [`super::report`] |
//! | `/livez` | 200 while the process runs |
//! | `/readyz` | 200 until shutdown begins: ready means that lookups are answered, not that the ensemble is there |
//! | `/metrics` | Prometheus text |
//!
//! A long poll is `?wait=30s` (at most 10 minutes) with `If-None-Match`. It is answered at once when the
//! tag differs, else when the service changes, and with 304 at the end of the wait or at shutdown. At most [`ListenerSettings::long_polls_max`] wait at a time;
//! who comes beyond is told so by 503 with `Retry-After`, and its connection closed, so that there is always one for other requests.
//!
//! Errors are JSON with `error` and `hint`: 400 for a parameter, 404 for a path, a service never heard of or a loss of nothing, 405
//! for a method, 503 while nothing was ever learnt, or when the instances of a service that was not followed could not be read in time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::command::CommandPath;
use super::control::Control;
use super::explain;
use super::listener::{Answer, HttpResponse, ListenerSettings};
use super::lookup::{self, Freshness};
use super::query::{Parameters, parse_key};
use super::rehearsal;
use super::report::ReportPath;
use super::respond::{self, error, is_read, json, never_heard_of, text, too_many_wait};
use super::sidecar_status::{self, StatusSource};
use crate::clock;
use crate::config::timestamp;
use crate::registry::rehearse::{self, Loss, UnknownLoss};
use crate::registry::{
    BrakePlan, Cache, Demand, LiveViewSettings, NoHistory, Past, Service, ServiceKey, TtlReports,
};
use crate::telemetry::{
    HttpRoute, Metrics, MetricsError, VIEW_AGE, VIEW_FOLLOWED, VIEW_INSTANCES, VIEW_SERVICES, VIEW_STALE,
};

/// Answers the requests of one listener.
#[derive(Debug)]
pub struct Router {
    cache: Arc<Cache>,
    /// Where what is not followed is asked for.
    demand: Option<Arc<Demand>>,
    metrics: Arc<Metrics>,
    control: Control,
    shutdown: CancellationToken,
    reports: TtlReports,
    status: Option<StatusSource>,
    view_settings: LiveViewSettings,
    /// Places for long polls that wait.
    long_polls: Semaphore,
    /// Places for commands that wait.
    commands: Semaphore,
}

impl Router {
    /// A router that answers from `cache` until `shutdown`, which also ends its long polls.
    pub fn new(cache: Arc<Cache>, metrics: Arc<Metrics>, shutdown: CancellationToken) -> Self {
        let (control, reports) = (Control::default(), TtlReports::default());
        let (demand, status) = (None, None);
        let view_settings = LiveViewSettings::from(BrakePlan::default());
        let listener = ListenerSettings::default();
        let long_polls = Semaphore::new(listener.long_polls_max());
        let commands = Semaphore::new(listener.waiting_commands_max());
        Self {
            cache,
            demand,
            metrics,
            control,
            shutdown,
            reports,
            status,
            view_settings,
            long_polls,
            commands,
        }
    }

    /// The same router, which asks for services that are not followed.
    pub fn with_demand(self, demand: Option<Arc<Demand>>) -> Self {
        Self { demand, ..self }
    }

    /// The same, and what it is told is carried out by `control`.
    pub fn with_control(self, control: Control) -> Self {
        Self { control, ..self }
    }

    /// The same router, which passes reports on to these checks.
    pub fn with_reports(self, reports: TtlReports) -> Self {
        Self { reports, ..self }
    }

    /// The same router, which tells this of the sidecar.
    pub fn with_status(self, status: StatusSource) -> Self {
        Self { status: Some(status), ..self }
    }

    /// The same router, which rehearses losses with the brake of these settings. Default: the brake's own.
    pub fn with_view_settings(self, view_settings: LiveViewSettings) -> Self {
        Self { view_settings, ..self }
    }

    /// The same router, where this many requests may wait. Default: those for which a listener with its default bounds has room.
    pub fn with_room_of(self, listener: &ListenerSettings) -> Self {
        let long_polls = Semaphore::new(listener.long_polls_max());
        Self { long_polls, commands: Semaphore::new(listener.waiting_commands_max()), ..self }
    }

    /// The router as [`super::serve`] takes it.
    pub fn into_answer(self) -> Answer {
        let router = Arc::new(self);
        Answer::new(move |request| {
            let router = Arc::clone(&router);
            Box::pin(async move { router.answer_with_body(request).await })
        })
    }

    /// Answers one request, and reads the body of a report.
    async fn answer_with_body(&self, request: Request<Incoming>) -> HttpResponse {
        let (head, body) = request.into_parts();
        let Route::Report(report) = Route::parse(head.uri.path()) else {
            return self.answer(&Request::from_parts(head, body)).await;
        };
        let response = report.answer(&self.reports, &head.method, body).await;
        self.metrics.count_http_request(HttpRoute::Report, response.status().as_u16());
        response
    }

    /// Answers one request. Its body, if it has one, is not read.
    pub async fn answer<B: Sync>(&self, request: &Request<B>) -> HttpResponse {
        let route = Route::parse(request.uri().path());
        let response = if let Route::Command(command) = route {
            let query = request.uri().query();
            command.answer(&self.control, &self.commands, request.method(), request.headers(), query).await
        } else if is_read(request.method()) {
            self.answer_route(&route, request.uri().query(), request.headers()).await
        } else {
            method_not_allowed(request.method(), &route)
        };
        self.metrics.count_http_request(route.label(), response.status().as_u16());
        response
    }

    async fn answer_route(
        &self,
        route: &Route<'_>,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> HttpResponse {
        match route {
            Route::Livez => text(StatusCode::OK, "ok\n"),
            Route::Readyz if self.shutdown.is_cancelled() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
            }
            Route::Readyz => text(StatusCode::OK, "ok\n"),
            Route::Metrics => respond::metrics(&self.metrics),
            Route::Services => match Parameters::parse(query, &[]) {
                Ok(_) => self.services(),
                Err(problem) => problem.into_response(),
            },
            Route::Service { namespace, name } => match Parameters::parse(query, &["wait"]) {
                Ok(parameters) => match parse_key(namespace, name) {
                    Some(key) => self.service(&key, parameters.wait.unwrap_or_default(), headers).await,
                    None => never_heard_of(namespace, name),
                },
                Err(problem) => problem.into_response(),
            },
            Route::Explain { namespace, name } => match Parameters::parse(query, &["at"]) {
                Ok(parameters) => match (parse_key(namespace, name), parameters.at_ms) {
                    (None, _) => never_heard_of(namespace, name),
                    (Some(key), None) => self.explain(&key).await,
                    (Some(key), Some(at_ms)) => self.explain_past(&key, at_ms),
                },
                Err(problem) => problem.into_response(),
            },
            Route::Rehearse => match Parameters::parse(query, &["lose"]) {
                Ok(parameters) => self.rehearse(&parameters.losses).await,
                Err(problem) => problem.into_response(),
            },
            Route::Status => match (Parameters::parse(query, &[]), &self.status) {
                (Ok(_), Some(source)) => {
                    let view = self.cache.load();
                    json(StatusCode::OK, sidecar_status::status(&source.tell(), &view, self.freshness()))
                }
                (Ok(_), None) => nothing_here(),
                (Err(problem), _) => problem.into_response(),
            },
            // Not by GET.
            Route::Report(report) => report.answer(&self.reports, &Method::GET, Empty::new()).await,
            Route::Command(command) => {
                command.answer(&self.control, &self.commands, &Method::GET, headers, query).await
            }
            Route::Other => nothing_here(),
        }
    }

    fn services(&self) -> HttpResponse {
        let view = self.cache.load();
        if !view.is_loaded {
            return nothing_learnt();
        }
        json(StatusCode::OK, lookup::services(&view, self.freshness()))
    }

    /// One service now, or once it differs from what the client has.
    async fn service(&self, key: &ServiceKey, wait: Duration, headers: &HeaderMap) -> HttpResponse {
        let known: Vec<&str> =
            headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).collect();
        let mut wait_is_over = pin!(tokio::time::sleep(wait));
        // Subscribed before the first look, so that no publication falls between.
        let mut publications = self.cache.subscribe();
        let mut seen: Option<Arc<Service>> = None;
        let (mut place, mut _waiting) = (None, None);
        loop {
            let service = match self.followed(key).await {
                Ok(service) => service,
                Err(response) => return response,
            };
            // Services that a publication did not touch are shared with the view before.
            if !seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &service)) {
                let etag = lookup::etag(&service);
                if !known.iter().any(|known| lookup::matches(known, &etag)) {
                    let body = lookup::service(&service, self.freshness());
                    return tagged(json(StatusCode::OK, body), &etag);
                }
                if wait.is_zero() {
                    return not_modified(&etag);
                }
                if place.is_none() {
                    let Ok(free) = self.long_polls.try_acquire() else { return too_many_long_polls() };
                    place = Some(free);
                }
                _waiting = Some(service.lookups.wait());
                seen = Some(service);
            }
            let is_changed = tokio::select! {
                changed = publications.changed() => changed.is_ok(),
                () = wait_is_over.as_mut() => false,
                () = self.shutdown.cancelled() => false,
            };
            if !is_changed {
                let etag = seen.map(|service| lookup::etag(&service)).expect("set before the first wait");
                return not_modified(&etag);
            }
        }
    }

    /// One service with its instances, which are waited for where they are not followed yet; or why there is none.
    async fn followed(&self, key: &ServiceKey) -> Result<Arc<Service>, HttpResponse> {
        let service = self.cache.load().look_up(key).cloned();
        let service = service.ok_or_else(|| self.not_found(key))?;
        if service.is_followed {
            return Ok(service);
        }
        if let Some(held) = self.demand.as_ref().and_then(|demand| demand.hold(&self.cache, key)) {
            held.ready().await;
        }
        let service = self.cache.load().look_up(key).cloned();
        let service = service.ok_or_else(|| self.not_found(key))?;
        if service.is_followed { Ok(service) } else { Err(not_read(key)) }
    }

    async fn explain(&self, key: &ServiceKey) -> HttpResponse {
        match self.followed(key).await {
            Ok(service) => json(StatusCode::OK, explain::explanation(&service, self.freshness(), None)),
            Err(response) => response,
        }
    }

    fn explain_past(&self, key: &ServiceKey, at_ms: i64) -> HttpResponse {
        if !self.cache.load().is_loaded {
            return nothing_learnt();
        }
        match self.cache.look_back(key, at_ms) {
            Ok(Past { service: Some(service), .. }) if !service.is_followed => {
                let message = format!(
                    "{key} was not followed at {}, since nobody looked it up",
                    timestamp::text(at_ms)
                );
                error(StatusCode::NOT_FOUND, &message, "ask for another time, or leave it out")
            }
            Ok(Past { service: Some(service), is_stale }) => {
                // How old it was then is not kept.
                let freshness = Freshness { age: None, is_stale };
                json(StatusCode::OK, explain::explanation(&service, freshness, Some(at_ms)))
            }
            Ok(Past { service: None, .. }) => {
                let message = format!("no service {key} was known at {}", timestamp::text(at_ms));
                error(StatusCode::NOT_FOUND, &message, "ask for another time, or leave it out")
            }
            Err(NoHistory::Forgotten { reaches_back_to_ms }) => {
                let message = format!("what was at {} is not known", timestamp::text(at_ms));
                let hint = format!("what is known reaches back to {}", timestamp::text(reaches_back_to_ms));
                error(StatusCode::NOT_FOUND, &message, &hint)
            }
            Err(NoHistory::Future) => {
                let message = format!("{} is yet to come", timestamp::text(at_ms));
                error(StatusCode::BAD_REQUEST, &message, "ask for a time that is past")
            }
        }
    }

    async fn rehearse(&self, losses: &[Loss]) -> HttpResponse {
        if losses.is_empty() {
            let hint = "add lose=zone%3DNAME, lose=node%3DNAME, lose=SERVICE/NUMBER, lose=SERVICE/INSTANCE or lose=ensemble";
            return error(StatusCode::BAD_REQUEST, "nothing is lost", hint);
        }
        for key in
            losses.iter().filter_map(Loss::service).filter(|key| self.cache.load().services.contains_key(key))
        {
            if let Err(response) = self.followed(key).await {
                return response;
            }
        }
        let view = self.cache.load_full();
        if !view.is_loaded {
            return nothing_learnt();
        }
        if let Some(UnknownLoss { error: message, hint }) = rehearse::unknown(&view, losses) {
            return error(StatusCode::NOT_FOUND, &message, &hint);
        }
        let played = rehearse::rehearse(&view, &self.view_settings.get().brake, losses, clock::now());
        json(StatusCode::OK, rehearsal::rehearsal(&played, losses, self.freshness()))
    }

    fn not_found(&self, key: &ServiceKey) -> HttpResponse {
        if self.cache.load().is_loaded {
            never_heard_of(key.namespace.as_str(), key.name.as_str())
        } else {
            nothing_learnt()
        }
    }

    fn freshness(&self) -> Freshness {
        Freshness { age: self.cache.age(clock::now()), is_stale: self.cache.is_stale() }
    }
}

/// Prints the view's size, age and staleness among `metrics`. Once per process.
///
/// # Errors
///
/// When it was done before.
pub fn observe_view(metrics: &Metrics, cache: &Arc<Cache>) -> Result<(), MetricsError> {
    let view = |sample: fn(&Cache) -> Option<f64>| {
        let cache = Arc::clone(cache);
        move || sample(&cache)
    };
    metrics.sample(VIEW_AGE, view(|cache| cache.age(clock::now()).map(|age| age.as_secs_f64())))?;
    metrics.sample(VIEW_STALE, view(|cache| Some(f64::from(u8::from(cache.is_stale())))))?;
    metrics.sample(VIEW_SERVICES, view(|cache| Some(as_f64(cache.load().services.len()))))?;
    let instances =
        |cache: &Cache| cache.load().services.values().map(|service| service.instances.len()).sum();
    metrics.sample(VIEW_FOLLOWED, view(|cache| Some(as_f64(cache.load().followed()))))?;
    metrics.sample(VIEW_INSTANCES, {
        let cache = Arc::clone(cache);
        move || Some(as_f64(instances(&cache)))
    })
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Services,
    Service { namespace: &'a str, name: &'a str },
    Explain { namespace: &'a str, name: &'a str },
    Report(ReportPath<'a>),
    Livez,
    Readyz,
    Metrics,
    Status,
    Rehearse,
    Command(CommandPath<'a>),
    Other,
}

impl<'a> Route<'a> {
    fn parse(path: &'a str) -> Self {
        match path {
            "/api/v1/services" => Self::Services,
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/metrics" => Self::Metrics,
            "/api/v1/status" => Self::Status,
            "/api/v1/rehearse" => Self::Rehearse,
            other => {
                let named = |prefix: &str| {
                    let named = other.strip_prefix(prefix)?.split_once('/')?;
                    (!named.1.contains('/')).then_some(named)
                };
                if let Some(report) = ReportPath::parse(other) {
                    Self::Report(report)
                } else if let Some((namespace, name)) = named("/api/v1/services/") {
                    Self::Service { namespace, name }
                } else if let Some((namespace, name)) = named("/api/v1/explain/") {
                    Self::Explain { namespace, name }
                } else if let Some(command) = CommandPath::parse(other) {
                    Self::Command(command)
                } else {
                    Self::Other
                }
            }
        }
    }

    const fn label(&self) -> HttpRoute {
        match self {
            Self::Services => HttpRoute::Services,
            Self::Service { .. } => HttpRoute::Service,
            Self::Report(_) => HttpRoute::Report,
            Self::Livez => HttpRoute::Livez,
            Self::Readyz => HttpRoute::Readyz,
            Self::Metrics => HttpRoute::Metrics,
            Self::Explain { .. } => HttpRoute::Explain,
            Self::Status => HttpRoute::Status,
            Self::Rehearse => HttpRoute::Rehearse,
            Self::Command(command) => command.label(),
            Self::Other => HttpRoute::Other,
        }
    }
}

fn method_not_allowed(method: &Method, route: &Route<'_>) -> HttpResponse {
    if *route == Route::Other {
        return error(StatusCode::NOT_FOUND, "there is nothing at this path", "try GET /api/v1/services");
    }
    respond::method_not_allowed(method, "GET, HEAD")
}

fn nothing_here() -> HttpResponse {
    error(
        StatusCode::NOT_FOUND,
        "there is nothing at this path",
        "try /api/v1/services, /api/v1/services/{namespace}/{service}, /api/v1/status, /livez, /readyz or /metrics",
    )
}

fn nothing_learnt() -> HttpResponse {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        "nothing was learnt from the ensemble yet",
        "see that the ensemble runs and that the sidecar's server list is right; /metrics shows the view's age",
    )
}

fn not_read(key: &ServiceKey) -> HttpResponse {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        &format!(
            "the instances of {key} are not known yet: it was not followed, and they could not be read in time"
        ),
        "ask again; if it stays, see at /api/v1/status that the sidecar is connected to the ensemble",
    )
}

fn too_many_long_polls() -> HttpResponse {
    too_many_wait(
        "too many long polls wait already",
        "ask again in a second, or without wait; one long poll is enough for what one program wants to know of a service",
    )
}

fn not_modified(etag: &str) -> HttpResponse {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tagged(response, etag)
}

fn tagged(mut response: HttpResponse, etag: &str) -> HttpResponse {
    let value = HeaderValue::from_str(etag).expect("a tag is made of hexadecimal digits");
    response.headers_mut().insert(ETAG, value);
    response
}

#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 instances")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
