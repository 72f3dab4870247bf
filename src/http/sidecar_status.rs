//! What a sidecar says of itself. Pure.
//!
//! `GET /api/v1/status`:
//!
//! ```json
//! {"version":"0.1.0","uptime_ms":5012,
//!  "connection":{"state":"connected","server":"127.0.0.1:2181","session":"0x1","session_timeout_ms":10000,
//!                "proof_age_ms":12,"last_failure":null},
//!  "view":{"zxid":"0x1","age_ms":12,"stale":false,"services":1,"followed":1,"instances":2,"saved_at_ms":null},
//!  "state_dir":{"folder":"/var/lib/rollcall","losses":0,"trouble":null},
//!  "settings":{"file":"/etc/rollcall/sidecar.yaml","loaded_at_ms":1764115200000,"rejected":null,
//!              "restart_needed":["http.address"]},
//!  "instances":[{"service":"web.default","id":"web-1","status":"maintenance","reason":null,"conflict":null,
//!    "health":"failing","degraded":false,"held":false,"draining":false,
//!    "maintenance":{"reason":"new disk","since_ms":1764115200000},
//!    "checks":[{"name":"tcp","kind":"tcp","critical":true,"state":"failing","passes":0,"failures":7,
//!               "share_percent":100,"changed_at_ms":1764115200000,
//!               "last_failure":{"text":"cannot connect to 10.0.0.1:80: …","at_ms":1764115200000}}]}]}
//! ```
//!
//! `state_dir` and `settings` are null where there is none. `followed` is of how many services more than the name is known; `share_percent` is how much of its weight the application can take, as far as the check tells. `status` and `reason` are those of [`super::command`]; `conflict` names owner and session of whoever has the id. What the
//! record would say by the checks alone is `health`. Nothing that a check sends is shown, such as its headers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::lookup::{Freshness, to_json};
use super::own_instance::InstanceLine;
use crate::id::SessionId;
use crate::registry::{Label, Maintenance, OwnCheck, OwnStatus, RegistrationState, View};

/// What a sidecar knows of itself, apart from the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarStatus {
    /// Since the start.
    pub uptime: Duration,
    /// How it stands with the ensemble.
    pub connection: ConnectionStatus,
    /// When the view was saved last by this process, in ms since 1970.
    pub saved_at_ms: Option<i64>,
    /// Its state directory, if it has one.
    pub state_dir: Option<StateDirStatus>,
    /// Its settings file, if it has one.
    pub settings: Option<SettingsStatus>,
    /// Its own instances.
    pub instances: Vec<OwnStatus>,
}

/// How it stands with a state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateDirStatus {
    /// Its name.
    pub folder: String,
    /// How often what it held was lost while it was in use, as where it is removed or replaced, and written again.
    pub losses: u64,
    /// Why it is not to be had now, so that a restart would know nothing of this process.
    pub trouble: Option<String>,
}

/// How it stands with a settings file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingsStatus {
    /// Its name, as it was given.
    pub file: String,
    /// When it was taken over last, in ms since 1970.
    pub loaded_at_ms: i64,
    /// Why what it says now is not, one mistake a line.
    pub rejected: Option<String>,
    /// Its keys that have a value which takes effect at the next start.
    pub restart_needed: Vec<String>,
}

/// How a sidecar stands with the ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// In one word.
    pub state: ConnectionState,
    /// The member it is connected to, as configured.
    pub server: Option<String>,
    /// The session that it has there.
    pub session: Option<SessionId>,
    /// How long the session lives without it.
    pub session_timeout: Option<Duration>,
    /// The time since a member last proved itself current.
    pub proof_age: Option<Duration>,
    /// What the last attempt came to, when there is no connection.
    pub last_failure: Option<String>,
}

/// Whether there is a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// There is.
    Connected,
    /// It is being looked for.
    Connecting,
    /// The session is gone, and another is being opened.
    Expired,
    /// It has ended for good.
    Closed,
}

/// Whoever knows the status.
#[derive(Clone)]
pub struct StatusSource(Arc<dyn Fn() -> SidecarStatus + Send + Sync>);

impl StatusSource {
    /// Wraps a function that tells it.
    pub fn new(tell: impl Fn() -> SidecarStatus + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn tell(&self) -> SidecarStatus {
        (self.0)()
    }
}

impl fmt::Debug for StatusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusSource(..)")
    }
}

/// The whole status.
pub(super) fn status(status: &SidecarStatus, view: &View, freshness: Freshness) -> Vec<u8> {
    let SidecarStatus { uptime, connection, saved_at_ms, state_dir, settings, instances } = status;
    to_json(&StatusBody {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: ms(*uptime),
        connection: ConnectionBody {
            state: connection.state,
            server: connection.server.as_deref(),
            session: connection.session.map(|session| session.to_string()),
            session_timeout_ms: connection.session_timeout.map(ms),
            proof_age_ms: connection.proof_age.map(ms),
            last_failure: connection.last_failure.as_deref(),
        },
        view: ViewBody {
            zxid: view.zxid.to_string(),
            age_ms: freshness.age_ms(),
            stale: freshness.is_stale,
            services: view.services.len(),
            followed: view.followed(),
            instances: view.services.values().map(|service| service.instances.len()).sum(),
            saved_at_ms: *saved_at_ms,
        },
        state_dir: state_dir.as_ref(),
        settings: settings.as_ref(),
        instances: instances.iter().map(InstanceBody::of).collect(),
    })
}

#[derive(Serialize)]
struct StatusBody<'a> {
    version: &'static str,
    uptime_ms: u64,
    connection: ConnectionBody<'a>,
    view: ViewBody,
    state_dir: Option<&'a StateDirStatus>,
    settings: Option<&'a SettingsStatus>,
    instances: Vec<InstanceBody<'a>>,
}

#[derive(Serialize)]
struct ConnectionBody<'a> {
    state: ConnectionState,
    server: Option<&'a str>,
    session: Option<String>,
    session_timeout_ms: Option<u64>,
    proof_age_ms: Option<u64>,
    last_failure: Option<&'a str>,
}

#[derive(Serialize)]
struct ViewBody {
    zxid: String,
    age_ms: Option<u64>,
    stale: bool,
    services: usize,
    followed: usize,
    instances: usize,
    saved_at_ms: Option<i64>,
}

#[derive(Serialize)]
struct InstanceBody<'a> {
    #[serde(flatten)]
    line: InstanceLine<'a>,
    conflict: Option<ConflictBody<'a>>,
    health: &'static str,
    degraded: bool,
    held: bool,
    draining: bool,
    maintenance: Option<&'a Maintenance>,
    checks: Vec<CheckBody<'a>>,
}

#[derive(Serialize)]
struct ConflictBody<'a> {
    owner: &'a str,
    session: String,
}

#[derive(Serialize)]
struct CheckBody<'a> {
    name: &'a Label,
    kind: &'static str,
    critical: bool,
    state: &'static str,
    passes: u32,
    failures: u32,
    share_percent: u8,
    changed_at_ms: i64,
    last_failure: Option<FailureBody<'a>>,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    text: &'a str,
    at_ms: i64,
}

impl<'a> InstanceBody<'a> {
    fn of(status: &'a OwnStatus) -> Self {
        let own = &status.instance;
        let conflict = match &own.registration {
            RegistrationState::Conflict { owner, session } => {
                Some(ConflictBody { owner, session: session.to_string() })
            }
            RegistrationState::Absent
            | RegistrationState::Registered(_)
            | RegistrationState::Pending { .. } => None,
        };
        Self {
            line: InstanceLine::of(own),
            conflict,
            health: own.health.as_str(),
            degraded: own.is_degraded,
            held: own.is_held,
            draining: own.is_draining,
            maintenance: own.maintenance.as_ref(),
            checks: status.checks.iter().map(CheckBody::of).collect(),
        }
    }
}

impl<'a> CheckBody<'a> {
    fn of(check: &'a OwnCheck) -> Self {
        let standing = &check.standing;
        let failure = standing.last_failure.as_ref();
        Self {
            name: &check.name,
            kind: check.kind.as_str(),
            critical: check.is_critical,
            state: standing.state.as_str(),
            passes: standing.passes,
            failures: standing.failures,
            share_percent: standing.share_percent,
            changed_at_ms: standing.changed_at_ms,
            last_failure: failure.map(|failure| FailureBody { text: &failure.text, at_ms: failure.at_ms }),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::sample;
    use crate::registry::{OwnInstance, Status};

    #[test]
    fn everything_is_told() {
        let body = tell(&sample::status());
        assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(body["uptime_ms"], 5_012);
        assert_eq!(
            body["connection"],
            json!({"state": "connected", "server": "127.0.0.1:2181", "session": "0x7", "session_timeout_ms": 10_000,
                   "proof_age_ms": 12, "last_failure": null})
        );
        assert_eq!(
            body["view"],
            json!({"zxid": "0x100000007", "age_ms": 12, "stale": false, "services": 2, "followed": 2, "instances": 3,
                   "saved_at_ms": 9})
        );
        assert_eq!(body["state_dir"], json!({"folder": "state", "losses": 1, "trouble": "another has it"}));
        assert_eq!(
            body["settings"],
            json!({"file": "sidecar.yaml", "loaded_at_ms": 8, "rejected": "1:1: colour: unknown key",
                   "restart_needed": ["root"]})
        );
        assert_eq!(
            body["instances"],
            json!([{"service": "web.default", "id": "web-1", "status": "up", "reason": null, "conflict": null,
                    "health": "passing", "degraded": false, "held": false, "draining": false, "maintenance": null,
                    "checks": [{"name": "tcp", "kind": "tcp", "critical": true, "state": "passing", "passes": 3,
                                "failures": 0, "share_percent": 100, "changed_at_ms": 5,
                                "last_failure": {"text": "no answer within 5 ms", "at_ms": 4}}]}])
        );
    }

    #[test]
    fn who_is_not_registered_as_wanted_says_why() {
        let told = |registration, is_carried_out| {
            let mut status = sample::status();
            let instance = OwnInstance { registration, is_carried_out, ..sample::own() };
            status.instances[0].instance = instance;
            let body = tell(&status);
            ["status", "reason", "conflict"].map(|key| body["instances"][0][key].clone())
        };
        let none = Value::Null;
        let up = RegistrationState::Registered(Status::Up);
        assert_eq!(told(up, false), [json!("pending"), json!("it is being written"), none.clone()]);
        assert_eq!(told(RegistrationState::Absent, true), [json!("absent"), none.clone(), none.clone()]);
        let pending = RegistrationState::Pending { reason: "no connection".to_owned() };
        assert_eq!(told(pending, false), [json!("pending"), json!("no connection"), none]);
        let conflict = RegistrationState::Conflict { owner: "you".to_owned(), session: SessionId(9) };
        assert_eq!(
            told(conflict, true),
            [
                json!("conflict"),
                json!("the id is you's, of session 0x9"),
                json!({"owner": "you", "session": "0x9"})
            ]
        );
    }

    fn tell(of: &SidecarStatus) -> Value {
        let fresh = Freshness { age: Some(Duration::from_millis(12)), is_stale: false };
        serde_json::from_slice(&status(of, &sample::view(), fresh)).unwrap()
    }
}
