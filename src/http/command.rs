//! Commands to own instances, over HTTP.
//!
//! | Request | What it does |
//! | --- | --- |
//! | `POST /api/v1/failback` | those that are held off take their tier again: `{"released":1}` |
//! | `POST /api/v1/drain` | they leave; with `?wait=30s` (at most 10 minutes) the answer comes when nobody should be sent to them any more, or then |
//! | `DELETE /api/v1/drain` | they need not leave any more |
//! | `PUT /api/v1/maintenance` | they are in maintenance; `?reason=` says why, and keeps what was said before where it is empty or left out |
//! | `DELETE /api/v1/maintenance` | they are not any more |
//!
//! Each with `/{namespace}/{service}` behind it for the instances of one service alone.
//!
//! ```json
//! {"instances":[{"service":"web.default","id":"web-1","status":"draining","reason":null}],
//!  "confirmed":false,"evidence":"quiet-time","waited_ms":1012}
//! ```
//!
//! When subscribers were asked, `evidence` is `subscribers` or it is told who is behind:
//!
//! ```json
//! {"confirmed":false,"evidence":"none","subscribers":3,"behind":["web-1.2f9c01aa"],"behind_count":1,
//!  "members_not_asked":[],"other_watchers":0}
//! ```
//!
//! `status` is what the instance's record says, or `absent`, `pending` or `conflict` when there is none of ours that says it,
//! the latter two with a `reason`. `evidence` tells how it is known that subscribers have applied it, and `confirmed` whether
//! that is by their own word; of instances that are `absent` or in `conflict` there is nothing to see, and where none is registered it
//! is `none` at once. Of maintenance `survives_restart` is told in their place, with `reason` if it does not.
//!
//! 200 when it was heard; what is `pending` then is carried out later. 503 when somebody wanted to wait and the change was not
//! written in that time, because the ensemble is away, say: with the same body and `error` and `hint` in it; or, with `Retry-After`, when
//! as many commands as [`ListenerSettings::waiting_commands_max`](super::ListenerSettings::waiting_commands_max) wait already. 404 when no
//! instance of the service is this sidecar's, 403 for web pages, which browsers let ask loopback: they send `Origin`.

use hyper::header::{HeaderMap, ORIGIN};
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::control::{Command, Control, Done};
use super::listener::HttpResponse;
use super::lookup::to_json;
use super::own_instance::InstanceLine;
use super::query::{Parameters, parse_key};
use super::respond::{error, json, method_not_allowed, never_heard_of, too_many_wait};
use crate::registry::{Change, ChangeError, Drain, Keeping, MaintenanceChange, ServiceKey, SubscriberReport};
use crate::telemetry::HttpRoute;

/// A command as its path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommandPath<'a> {
    verb: Verb,
    /// Of all services, or one.
    service: Option<(&'a str, &'a str)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Failback,
    Drain,
    Maintenance,
}

/// A command with its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    FailBack,
    Drain,
    EndDrain,
    Maintain,
    EndMaintenance,
}

impl<'a> CommandPath<'a> {
    /// `None` for another path.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/api/v1/")?;
        let (verb, service) = match path.split_once('/') {
            None => (path, None),
            Some((verb, service)) => {
                let (namespace, name) = service.split_once('/')?;
                if name.contains('/') {
                    return None;
                }
                (verb, Some((namespace, name)))
            }
        };
        let verb = match verb {
            "failback" => Verb::Failback,
            "drain" => Verb::Drain,
            "maintenance" => Verb::Maintenance,
            _ => return None,
        };
        Some(Self { verb, service })
    }

    pub(super) const fn label(&self) -> HttpRoute {
        match self.verb {
            Verb::Failback => HttpRoute::Failback,
            Verb::Drain => HttpRoute::Drain,
            Verb::Maintenance => HttpRoute::Maintenance,
        }
    }

    /// Has the command carried out, if it may be; one that wants to wait takes a place in `waiting` for that long.
    pub(super) async fn answer(
        &self,
        control: &Control,
        waiting: &Semaphore,
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> HttpResponse {
        let Some(order) = self.verb.order(method) else {
            return method_not_allowed(method, self.verb.methods());
        };
        if headers.contains_key(ORIGIN) {
            let hint = format!("use `rollcall {}` or curl", self.verb.name());
            return error(StatusCode::FORBIDDEN, "web pages must not tell a sidecar what to do", &hint);
        }
        let parameters = match Parameters::parse(query, order.parameters()) {
            Ok(parameters) => parameters,
            Err(problem) => return problem.into_response(),
        };
        let service =
            match self.service.map(|(namespace, name)| (namespace, name, parse_key(namespace, name))) {
                None => None,
                Some((_, _, Some(key))) => Some(key),
                Some((namespace, name, None)) => return never_heard_of(namespace, name),
            };
        let command = order.command(service, parameters);
        let place = command.waits().then(|| waiting.try_acquire());
        if let Some(Err(_)) = place {
            return too_many_wait(
                "too many commands wait already",
                "ask again in a second, or without wait, which takes effect all the same; one command is enough for all instances",
            );
        }
        match control.carry_out(command).await {
            Ok(done) => tell(&done),
            Err(refusal) => refuse(&refusal),
        }
    }
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Failback => "failback",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }

    const fn methods(self) -> &'static str {
        match self {
            Self::Failback => "POST",
            Self::Drain => "POST, DELETE",
            Self::Maintenance => "PUT, DELETE",
        }
    }

    fn order(self, method: &Method) -> Option<Order> {
        match (self, method.as_str()) {
            (Self::Failback, "POST") => Some(Order::FailBack),
            (Self::Drain, "POST") => Some(Order::Drain),
            (Self::Drain, "DELETE") => Some(Order::EndDrain),
            (Self::Maintenance, "PUT") => Some(Order::Maintain),
            (Self::Maintenance, "DELETE") => Some(Order::EndMaintenance),
            (Self::Failback | Self::Drain | Self::Maintenance, _) => None,
        }
    }
}

impl Order {
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Drain => &["wait"],
            Self::Maintain => &["reason"],
            Self::FailBack | Self::EndDrain | Self::EndMaintenance => &[],
        }
    }

    fn command(self, service: Option<ServiceKey>, parameters: Parameters) -> Command {
        let Parameters { wait, reason, .. } = parameters;
        match self {
            Self::FailBack => Command::FailBack(service),
            Self::Drain => Command::Drain { service, wait },
            Self::EndDrain => Command::EndDrain(service),
            Self::Maintain => Command::Maintain { service, reason: reason.unwrap_or_default() },
            Self::EndMaintenance => Command::EndMaintenance(service),
        }
    }
}

#[derive(Serialize)]
struct ReleasedBody {
    released: usize,
}

#[derive(Serialize)]
struct DrainBody<'a> {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
    instances: Vec<InstanceLine<'a>>,
    confirmed: bool,
    evidence: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    subscribers: Option<SubscriberLine<'a>>,
    waited_ms: u64,
}

#[derive(Serialize)]
struct SubscriberLine<'a> {
    subscribers: usize,
    behind: &'a [String],
    behind_count: usize,
    members_not_asked: &'a [u8],
    other_watchers: usize,
}

#[derive(Serialize)]
struct Refusal {
    error: String,
    hint: &'static str,
}

#[derive(Serialize)]
struct DrainEndedBody<'a> {
    instances: Vec<InstanceLine<'a>>,
    waited_ms: u64,
}

#[derive(Serialize)]
struct MaintenanceBody<'a> {
    instances: Vec<InstanceLine<'a>>,
    survives_restart: bool,
    reason: Option<&'a str>,
    waited_ms: u64,
}

fn tell(done: &Done) -> HttpResponse {
    let (status, body) = match done {
        Done::Released(released) => (StatusCode::OK, to_json(&ReleasedBody { released: *released })),
        Done::Drained(drain) => drained(drain),
        Done::DrainEnded(change) => {
            let body = DrainEndedBody { instances: InstanceLine::all(change), waited_ms: waited_ms(change) };
            (StatusCode::OK, to_json(&body))
        }
        Done::Maintained(maintenance) => (StatusCode::OK, to_json(&MaintenanceBody::of(maintenance))),
    };
    json(status, body)
}

fn drained(drain: &Drain) -> (StatusCode, Vec<u8>) {
    let Drain { change, is_late, evidence, subscribers } = drain;
    let (all, left) =
        (change.instances.len(), change.instances.iter().filter(|own| !own.is_written()).count());
    let refusal = is_late.then(|| Refusal {
        error: format!("{left} of {all} instances could not be taken out yet"),
        hint: "they are as soon as the ensemble takes it in; `rollcall status` shows the connection",
    });
    let body = DrainBody {
        refusal,
        instances: InstanceLine::all(change),
        confirmed: evidence.is_confirmation(),
        evidence: evidence.as_str(),
        subscribers: subscribers.as_ref().map(SubscriberLine::of),
        waited_ms: waited_ms(change),
    };
    let status = if *is_late { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, to_json(&body))
}

impl<'a> SubscriberLine<'a> {
    fn of(report: &'a SubscriberReport) -> Self {
        let SubscriberReport { subscribers, behind, behind_count, members_not_asked, other_watchers } =
            report;
        Self {
            subscribers: *subscribers,
            behind,
            behind_count: *behind_count,
            members_not_asked,
            other_watchers: *other_watchers,
        }
    }
}

impl<'a> MaintenanceBody<'a> {
    fn of(maintenance: &'a MaintenanceChange) -> Self {
        let MaintenanceChange { change, keeping } = maintenance;
        let reason = match keeping {
            Keeping::Kept => None,
            Keeping::NoStateDir => Some("the sidecar has no state_dir"),
            Keeping::Failed { reason } => Some(reason.as_str()),
        };
        Self {
            instances: InstanceLine::all(change),
            survives_restart: reason.is_none(),
            reason,
            waited_ms: waited_ms(change),
        }
    }
}

fn waited_ms(change: &Change) -> u64 {
    u64::try_from(change.waited.as_millis()).unwrap_or(u64::MAX)
}

fn refuse(refusal: &ChangeError) -> HttpResponse {
    match refusal {
        ChangeError::Stopped => {
            let hint = "ask again once it has started anew";
            error(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping", hint)
        }
        ChangeError::NotOwn(_) => {
            let hint = "`rollcall status` lists the instances that are";
            error(StatusCode::NOT_FOUND, &refusal.to_string(), hint)
        }
    }
}

#[cfg(test)]
mod tests;
