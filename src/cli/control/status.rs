//! `rollcall status`.

use std::time::Duration;

use serde::Deserialize;

use super::super::failure::Failure;
use super::super::lookup::{decode, freshness};
use super::super::output::{printable, table};
use super::super::sidecar_client::SidecarClient;
use super::{InstanceLine, StatusArguments, check, print_answer};
use crate::config::{duration, timestamp};

/// `GET /api/v1/status`.
#[derive(Debug, Deserialize)]
struct StatusBody {
    version: String,
    uptime_ms: u64,
    connection: ConnectionBody,
    view: ViewBody,
    /// Sidecars of earlier versions do not say.
    state_dir: Option<StateDirBody>,
    settings: Option<SettingsBody>,
    instances: Vec<InstanceBody>,
}

#[derive(Debug, Deserialize)]
struct ConnectionBody {
    state: String,
    server: Option<String>,
    session: Option<String>,
    proof_age_ms: Option<u64>,
    last_failure: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ViewBody {
    zxid: String,
    age_ms: Option<u64>,
    stale: bool,
    services: u64,
    /// Of how many the instances are known. Sidecars of earlier versions know all.
    followed: Option<u64>,
    instances: u64,
    saved_at_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct StateDirBody {
    folder: String,
    losses: u64,
    trouble: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SettingsBody {
    file: String,
    loaded_at_ms: i64,
    rejected: Option<String>,
    restart_needed: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct InstanceBody {
    #[serde(flatten)]
    line: InstanceLine,
    degraded: bool,
    held: bool,
    draining: bool,
    maintenance: Option<MaintenanceBody>,
    checks: Vec<CheckBody>,
}

#[derive(Debug, Deserialize)]
struct MaintenanceBody {
    reason: String,
    since_ms: i64,
}

#[derive(Debug, Deserialize)]
struct CheckBody {
    name: String,
    kind: String,
    critical: bool,
    state: String,
    passes: u64,
    failures: u64,
    changed_at_ms: i64,
    last_failure: Option<FailureBody>,
}

#[derive(Debug, Deserialize)]
struct FailureBody {
    text: String,
    at_ms: i64,
}

/// Tells how the sidecar and its own instances are.
pub(crate) async fn run(arguments: StatusArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let answer = client.get("/api/v1/status", None, Duration::ZERO).await?;
    check(&client, &answer)?;
    print_answer(&client, &answer, arguments.output.output, || Ok(text(&decode(&client, &answer)?)))
}

fn text(body: &StatusBody) -> String {
    let mut parts = vec![facts(body)];
    if !body.instances.is_empty() {
        parts.push(instances(&body.instances));
    }
    if body.instances.iter().any(|own| !own.checks.is_empty()) {
        parts.push(checks(&body.instances));
    }
    parts.join("\n\n")
}

fn facts(body: &StatusBody) -> String {
    let StatusBody { version, uptime_ms, connection, view, state_dir, settings, .. } = body;
    let up = rough(*uptime_ms);
    let saved = view.saved_at_ms.map_or_else(|| "never".to_owned(), timestamp::text);
    let fresh = freshness(view.age_ms, view.stale);
    let of_all = view.followed.filter(|followed| *followed < view.services);
    let followed = of_all.map_or_else(String::new, |followed| format!(" ({followed} followed)"));
    let rows = [
        ("sidecar", format!("rollcall {version}, up {up}")),
        ("connection", connection.text()),
        (
            "view",
            format!(
                "services {}{followed}, instances {}, zxid {}, {fresh}",
                view.services, view.instances, view.zxid
            ),
        ),
        ("saved", saved),
    ];
    let settings = settings.iter().map(|settings| ("settings", settings.text()));
    let state_dir = state_dir.iter().map(|state_dir| ("state_dir", state_dir.text()));
    let rows = rows.into_iter().chain(state_dir).chain(settings);
    let row = |(name, fact): (&str, String)| vec![name.to_owned(), printable(&fact)];
    table(&["WHAT", "HOW IT IS"], rows.map(row).collect())
}

impl StateDirBody {
    fn text(&self) -> String {
        let Self { folder, losses, trouble } = self;
        let mut text = folder.clone();
        if *losses > 0 {
            text.push_str(&format!(
                "; what it held was lost while it was in use, and written again: {losses}"
            ));
        }
        if let Some(trouble) = trouble {
            text.push_str(&format!("; {trouble}"));
        }
        text
    }
}

impl SettingsBody {
    fn text(&self) -> String {
        let Self { file, loaded_at_ms, rejected, restart_needed } = self;
        let mut text = format!("{file}, read {}", timestamp::text(*loaded_at_ms));
        if let Some(first) = rejected.as_ref().and_then(|mistakes| mistakes.lines().next()) {
            text.push_str(&format!("; not what it says now: {first}"));
        }
        if !restart_needed.is_empty() {
            text.push_str(&format!("; at the next start: {}", restart_needed.join(", ")));
        }
        text
    }
}

impl ConnectionBody {
    fn text(&self) -> String {
        let mut text = self.state.clone();
        if let Some(server) = &self.server {
            text.push_str(&format!(" to {server}"));
        }
        if let Some(session) = &self.session {
            text.push_str(&format!(", session {session}"));
        }
        match self.proof_age_ms {
            Some(ms) => {
                text.push_str(&format!(", last heard of {} ago", duration::text(Duration::from_millis(ms))))
            }
            None => text.push_str(", never heard of"),
        }
        if let Some(failure) = &self.last_failure {
            text.push_str(&format!("; {failure}"));
        }
        text
    }
}

fn instances(instances: &[InstanceBody]) -> String {
    let row =
        |own: &InstanceBody| vec![own.line.name(), printable(&own.line.status), printable(&own.notes())];
    table(&["INSTANCE", "STATUS", "NOTES"], instances.iter().map(row).collect())
}

impl InstanceBody {
    /// What there is to say beyond the status.
    fn notes(&self) -> String {
        let mut notes: Vec<String> = self.line.reason.iter().cloned().collect();
        if self.draining {
            notes.push("told to drain".to_owned());
        }
        if let Some(maintenance) = &self.maintenance {
            let since = timestamp::text(maintenance.since_ms);
            let reason = if maintenance.reason.is_empty() { "no reason given" } else { &maintenance.reason };
            notes.push(format!("in maintenance since {since}: {reason}"));
        }
        if self.held {
            notes.push("held off below the standbys".to_owned());
        }
        if self.degraded {
            notes.push("with its degraded weight".to_owned());
        }
        notes.join("; ")
    }
}

fn checks(instances: &[InstanceBody]) -> String {
    let all = instances.iter().flat_map(|own| own.checks.iter().map(move |check| (own, check)));
    let row = |(own, check): (&InstanceBody, &CheckBody)| {
        let kind = if check.critical { check.kind.clone() } else { format!("{}, not critical", check.kind) };
        let in_a_row = match (check.passes, check.failures) {
            (0, 0) => "-".to_owned(),
            (0, failures) => format!("{failures} failed"),
            (passes, _) => format!("{passes} passed"),
        };
        let last = check.last_failure.as_ref();
        let last =
            last.map_or_else(String::new, |last| format!("{}: {}", timestamp::text(last.at_ms), last.text));
        vec![
            format!("{} {}", own.line.name(), printable(&check.name)),
            printable(&kind),
            printable(&check.state),
            in_a_row,
            timestamp::text(check.changed_at_ms),
            printable(&last),
        ]
    };
    table(&["CHECK", "KIND", "STATE", "IN A ROW", "SINCE", "LAST FAILURE"], all.map(row).collect())
}

/// A time to within its second-largest unit, such as `3h5m`.
fn rough(ms: u64) -> String {
    const UNITS_S: [u64; 4] = [86_400, 3_600, 60, 1];
    let s = ms / 1_000;
    let largest = UNITS_S.iter().position(|unit| s >= *unit).unwrap_or(UNITS_S.len() - 1);
    let unit = UNITS_S.get(largest + 1).copied().unwrap_or(1);
    let s = s - s % unit;
    let parts = UNITS_S.iter().zip(["d", "h", "m", "s"]).scan(s, |left, (unit, name)| {
        let count = *left / unit;
        *left %= unit;
        Some((count, name))
    });
    let text: String =
        parts.filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count}{name}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told_in_tables() {
        let body = r#"{"version":"0.1.0","uptime_ms":65012,
            "connection":{"state":"connected","server":"127.0.0.1:2181","session":"0x7","session_timeout_ms":10000,
                          "proof_age_ms":12,"last_failure":null},
            "view":{"zxid":"0x5","age_ms":12,"stale":false,"services":9,"followed":1,"instances":2,"saved_at_ms":0},
            "state_dir":{"folder":"/state","losses":2,"trouble":"another sidecar has it"},
            "instances":[{"service":"web.default","id":"web-1","status":"draining","reason":null,"conflict":null,
              "health":"failing","degraded":false,"held":true,"draining":true,
              "maintenance":{"reason":"new disk","since_ms":0},
              "checks":[{"name":"tcp","kind":"tcp","critical":true,"state":"failing","passes":0,"failures":7,
                "changed_at_ms":0,"last_failure":{"text":"connection refused","at_ms":1}}]}]}"#;
        assert_eq!(
            text(&serde_json::from_str(body).unwrap()),
            "WHAT        HOW IT IS
sidecar     rollcall 0.1.0, up 1m5s
connection  connected to 127.0.0.1:2181, session 0x7, last heard of 12ms ago
view        services 9 (1 followed), instances 2, zxid 0x5, as of 12 ms ago
saved       1970-01-01T00:00:00.000Z
state_dir   /state; what it held was lost while it was in use, and written again: 2; another sidecar has it

INSTANCE           STATUS    NOTES
web.default/web-1  draining  told to drain; in maintenance since 1970-01-01T00:00:00.000Z: new disk; held off below the standbys

CHECK                  KIND  STATE    IN A ROW  SINCE                     LAST FAILURE
web.default/web-1 tcp  tcp   failing  7 failed  1970-01-01T00:00:00.000Z  1970-01-01T00:00:00.001Z: connection refused"
        );
    }

    #[test]
    fn times_are_told_in_two_units_at_most() {
        for (s, text) in
            [(0, "0s"), (59, "59s"), (65, "1m5s"), (3_600, "1h"), (11_165, "3h6m"), (90_061, "1d1h")]
        {
            assert_eq!(rough(s * 1_000), text);
        }
    }

    #[test]
    fn a_sidecar_alone_says_why() {
        let body = r#"{"version":"0.1.0","uptime_ms":12,
            "connection":{"state":"connecting","server":null,"session":null,"session_timeout_ms":null,
                          "proof_age_ms":null,"last_failure":"connection refused"},
            "view":{"zxid":"0x0","age_ms":null,"stale":true,"services":0,"instances":0,"saved_at_ms":null},
            "instances":[]}"#;
        let told = text(&serde_json::from_str(body).unwrap());
        assert!(told.contains("connection  connecting, never heard of; connection refused\n"), "{told}");
        assert!(told.ends_with("saved       never"), "{told}");
    }
}
