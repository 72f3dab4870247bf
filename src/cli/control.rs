//! Commands to a running sidecar about its own instances, over HTTP.

mod arguments;
mod drain;
mod failback;
mod maintenance;
mod status;

use hyper::StatusCode;
use serde::Deserialize;

pub(super) use self::arguments::{DrainArguments, MaintenanceArguments, OwnArguments, StatusArguments};
pub(super) use self::drain::run as drain;
pub(super) use self::failback::run as failback;
pub(super) use self::maintenance::run as maintenance;
pub(super) use self::status::run as status;
use super::failure::Failure;
use super::lookup::{print_json, refused};
use super::name::NameArgument;
use super::output::{Format, printable, table};
use super::sidecar_client::{Answer, SidecarClient};

/// One own instance, as the sidecar tells it.
#[derive(Debug, Deserialize)]
struct InstanceLine {
    service: String,
    id: String,
    status: String,
    reason: Option<String>,
}

/// Where a command is told, to one service or all.
fn path(verb: &str, name: Option<&NameArgument>) -> String {
    match name {
        Some(NameArgument(key)) => format!("/api/v1/{verb}/{}/{}", key.namespace, key.name),
        None => format!("/api/v1/{verb}"),
    }
}

/// The instances that a command is about, and what was done with them.
fn instances(lines: &[InstanceLine]) -> String {
    if lines.is_empty() {
        return "this sidecar has no instances".to_owned();
    }
    let row = |line: &InstanceLine| {
        vec![line.name(), printable(&line.status), printable(line.reason.as_deref().unwrap_or_default())]
    };
    table(&["INSTANCE", "STATUS", "WHY"], lines.iter().map(row).collect())
}

impl InstanceLine {
    fn name(&self) -> String {
        printable(&format!("{}/{}", self.service, self.id))
    }
}

/// Prints an answer, for programs as it is, for people as `text` tells it.
fn print_answer(
    client: &SidecarClient,
    answer: &Answer,
    format: Format,
    text: impl FnOnce() -> Result<String, Failure>,
) -> Result<(), Failure> {
    match format {
        Format::Json => print_json(client, answer),
        Format::Table => super::output::print(&text()?),
    }
}

/// Any answer but one that the sidecar gives when it has heard.
fn check(client: &SidecarClient, answer: &Answer) -> Result<(), Failure> {
    if answer.status == StatusCode::OK { Ok(()) } else { Err(refused(client, answer)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_are_not_as_wanted_say_why() {
        let line = |id: &str, status: &str, reason: Option<&str>| InstanceLine {
            service: "web.default".to_owned(),
            id: id.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
        };
        let lines = [line("web-1", "draining", None), line("web-2", "pending", Some("no connection\u{7}"))];
        assert_eq!(
            instances(&lines),
            "INSTANCE           STATUS    WHY\n\
             web.default/web-1  draining\n\
             web.default/web-2  pending   no connection\u{fffd}"
        );
        assert_eq!(instances(&[]), "this sidecar has no instances");
    }
}
