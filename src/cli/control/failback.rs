//! `rollcall failback`.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::super::failure::Failure;
use super::super::lookup::decode;
use super::super::output::{Format, print};
use super::super::sidecar_client::SidecarClient;
use super::{OwnArguments, check, path};

/// `POST /api/v1/failback`.
#[derive(Debug, Deserialize)]
struct FailbackBody {
    released: u64,
}

/// Lets the sidecar's own instances take their tier again.
pub(crate) async fn run(arguments: OwnArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let path = path("failback", arguments.name.as_ref());
    let answer = client.tell(Method::POST, &path, Duration::ZERO).await?;
    check(&client, &answer)?;
    let body: FailbackBody = decode(&client, &answer)?;
    match (arguments.output.output, body.released) {
        (Format::Json, _) => print(&String::from_utf8_lossy(&answer.body)),
        (Format::Table, 0) => print("no instance of this sidecar is held off"),
        (Format::Table, 1) => print("1 instance takes its tier again"),
        (Format::Table, released) => print(&format!("{released} instances take their tiers again")),
    }
}
