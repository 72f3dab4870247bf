//! `rollcall drain`.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::super::failure::Failure;
use super::super::lookup::{decode, refused};
use super::super::sidecar_client::SidecarClient;
use super::{DrainArguments, InstanceLine, check, instances, path, print_answer};
use crate::config::duration;

/// `POST /api/v1/drain`.
#[derive(Debug, Deserialize)]
struct DrainBody {
    instances: Vec<InstanceLine>,
    confirmed: bool,
    evidence: String,
    waited_ms: u64,
}

/// `DELETE /api/v1/drain`.
#[derive(Debug, Deserialize)]
struct UndoBody {
    instances: Vec<InstanceLine>,
}

/// Takes the sidecar's own instances out, or lets them serve again.
pub(crate) async fn run(arguments: DrainArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let mut path = path("drain", arguments.name.as_ref());
    let format = arguments.output.output;
    if arguments.undo {
        let answer = client.tell(Method::DELETE, &path, Duration::ZERO).await?;
        check(&client, &answer)?;
        let text = || Ok(instances(&decode::<UndoBody>(&client, &answer)?.instances));
        return print_answer(&client, &answer, format, text);
    }
    if let Some(wait) = arguments.wait {
        path = format!("{path}?wait={}", duration::text(wait));
    }
    let answer = client.tell(Method::POST, &path, arguments.wait.unwrap_or_default()).await?;
    let is_late = answer.status == StatusCode::SERVICE_UNAVAILABLE;
    let body = match decode::<DrainBody>(&client, &answer) {
        Ok(body) if is_late || answer.status == StatusCode::OK => body,
        Ok(_) | Err(_) => return Err(refused(&client, &answer)),
    };
    print_answer(&client, &answer, format, || Ok(text(&body, arguments.wait.is_some())))?;
    if is_late { Err(refused(&client, &answer)) } else { Ok(()) }
}

fn text(body: &DrainBody, is_waited_for: bool) -> String {
    let table = instances(&body.instances);
    let waited = duration::text(Duration::from_millis(body.waited_ms));
    let known = match (body.confirmed, body.evidence.as_str(), is_waited_for) {
        (true, _, _) => format!("all sidecars have seen it, after {waited}"),
        (false, "quiet-time", _) => {
            format!(
                "all sidecars that the ensemble reaches have had the time to see it, after {waited}; none was asked"
            )
        }
        (false, _, true) => format!("other sidecars may not have seen it yet, after {waited}"),
        (false, _, false) => return table,
    };
    if body.instances.is_empty() { table } else { format!("{table}\n{known}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_claimed_than_is_known() {
        let told = |instances: &str, evidence: &str, is_waited_for| {
            let json = format!(
                r#"{{"instances":[{instances}],"confirmed":false,"evidence":"{evidence}","waited_ms":1012}}"#
            );
            text(&serde_json::from_str(&json).unwrap(), is_waited_for)
        };
        let web = r#"{"service":"web.default","id":"web-1","status":"draining","reason":null}"#;
        let table = "INSTANCE           STATUS    WHY\nweb.default/web-1  draining";
        assert_eq!(told(web, "none", false), table);
        assert_eq!(
            told(web, "none", true),
            format!("{table}\nother sidecars may not have seen it yet, after 1012ms")
        );
        assert!(told(web, "quiet-time", true).ends_with("after 1012ms; none was asked"));
        assert_eq!(told("", "none", true), "this sidecar has no instances");
    }
}
