//! `rollcall maintenance`.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};

use super::super::failure::Failure;
use super::super::lookup::decode;
use super::super::output::{Format, note, print, printable, table};
use super::super::sidecar_client::{SidecarClient, percent_encoded};
use super::arguments::{MaintenanceAction, OwnArguments};
use super::{InstanceLine, MaintenanceArguments, check, instances, path, print_answer};
use crate::config::timestamp;
use crate::registry::Reason;

/// `PUT` and `DELETE /api/v1/maintenance`.
#[derive(Debug, Deserialize)]
struct MaintenanceBody {
    instances: Vec<InstanceLine>,
    survives_restart: bool,
    reason: Option<String>,
}

/// What is wanted here of `GET /api/v1/status`.
#[derive(Debug, Deserialize)]
struct StatusBody {
    instances: Vec<InMaintenance>,
}

/// An own instance, perhaps in maintenance.
#[derive(Debug, Deserialize, Serialize)]
struct InMaintenance {
    service: String,
    id: String,
    status: String,
    maintenance: Option<Maintenance>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Maintenance {
    reason: String,
    since_ms: i64,
}

/// Puts the sidecar's own instances into maintenance, ends that, or lists those that are.
pub(crate) async fn run(arguments: MaintenanceArguments) -> Result<(), Failure> {
    match arguments.action {
        MaintenanceAction::On { whose, reason } => change(&whose, Method::PUT, &query(&reason)).await,
        MaintenanceAction::Off { whose } => change(&whose, Method::DELETE, "").await,
        MaintenanceAction::Show { whose } => show(&whose).await,
    }
}

async fn change(whose: &OwnArguments, method: Method, query: &str) -> Result<(), Failure> {
    let client = SidecarClient::new(&whose.sidecar.http_addr)?;
    let path = format!("{}{query}", path("maintenance", whose.name.as_ref()));
    let answer = client.tell(method, &path, Duration::ZERO).await?;
    check(&client, &answer)?;
    let body: MaintenanceBody = decode(&client, &answer)?;
    print_answer(&client, &answer, whose.output.output, || Ok(instances(&body.instances)))?;
    if !body.survives_restart {
        let reason = printable(body.reason.as_deref().unwrap_or("it does not say why"));
        note(&format!("a restart of the sidecar undoes this: {reason}"));
    }
    Ok(())
}

async fn show(whose: &OwnArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&whose.sidecar.http_addr)?;
    let answer = client.get("/api/v1/status", None, Duration::ZERO).await?;
    check(&client, &answer)?;
    let body: StatusBody = decode(&client, &answer)?;
    let name = whose.name.as_ref().map(|name| name.0.to_string());
    let is_meant = |own: &&InMaintenance| name.as_ref().is_none_or(|name| *name == own.service);
    let meant = body.instances.iter().filter(is_meant).filter(|own| own.maintenance.is_some());
    let meant: Vec<_> = meant.collect();
    match whose.output.output {
        Format::Json => {
            let json = serde_json::to_string_pretty(&meant);
            print(&json.map_err(|error| Failure::failed(error.to_string()))?)
        }
        Format::Table if meant.is_empty() => print("no instance of this sidecar is in maintenance"),
        Format::Table => print(&maintenances(&meant)),
    }
}

fn maintenances(meant: &[&InMaintenance]) -> String {
    let rows = meant.iter().filter_map(|own| {
        let maintenance = own.maintenance.as_ref()?;
        let name = printable(&format!("{}/{}", own.service, own.id));
        let status = printable(&own.status);
        Some(vec![name, status, timestamp::text(maintenance.since_ms), printable(&maintenance.reason)])
    });
    table(&["INSTANCE", "STATUS", "SINCE", "REASON"], rows.collect())
}

/// A reason as the query of a path.
fn query(reason: &Reason) -> String {
    format!("?reason={}", percent_encoded(reason.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_encoded_for_a_path() {
        let reason = Reason::parse("new disk \u{2192} sdb+1&wait=1%").unwrap();
        assert_eq!(query(&reason), "?reason=new%20disk%20%E2%86%92%20sdb%2B1%26wait%3D1%25");
        assert_eq!(query(&Reason::default()), "?reason=");
    }

    #[test]
    fn those_in_maintenance_are_listed_with_their_reason() {
        let own: InMaintenance = serde_json::from_str(
            r#"{"service":"web.default","id":"web-1","status":"draining","maintenance":{"reason":"disk","since_ms":0}}"#,
        )
        .unwrap();
        assert_eq!(
            maintenances(&[&own]),
            "INSTANCE           STATUS    SINCE                     REASON\n\
             web.default/web-1  draining  1970-01-01T00:00:00.000Z  disk"
        );
    }
}
