//! `rollcall failback`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

use super::arguments::FailbackArguments;
use super::failure::Failure;
use super::lookup::{decode, refused};
use super::output::{Format, print};
use super::sidecar_client::SidecarClient;

/// `POST /api/v1/failback`.
#[derive(Debug, Deserialize)]
struct FailbackBody {
    released: u64,
}

/// Lets the sidecar's own instances take their tier again.
pub(super) async fn run(arguments: FailbackArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let path = arguments.name.as_ref().map_or_else(
        || "/api/v1/failback".to_owned(),
        |name| format!("/api/v1/failback/{}/{}", name.0.namespace, name.0.name),
    );
    let answer = client.post(&path, Duration::ZERO).await?;
    if answer.status != StatusCode::OK {
        return Err(refused(&client, &answer));
    }
    let body: FailbackBody = decode(&client, &answer)?;
    match (arguments.output.output, body.released) {
        (Format::Json, _) => print(&String::from_utf8_lossy(&answer.body)),
        (Format::Table, 0) => print("no instance of this sidecar is held off"),
        (Format::Table, 1) => print("1 instance takes its tier again"),
        (Format::Table, released) => print(&format!("{released} instances take their tiers again")),
    }
}
