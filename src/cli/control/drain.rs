//! `rollcall drain`.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::super::failure::Failure;
use super::super::lookup::{decode, refused};
use super::super::output::printable;
use super::super::sidecar_client::SidecarClient;
use super::{DrainArguments, InstanceLine, check, instances, path, print_answer};
use crate::config::duration;

/// `POST /api/v1/drain`.
#[derive(Debug, Deserialize)]
struct DrainBody {
    instances: Vec<InstanceLine>,
    confirmed: bool,
    evidence: String,
    #[serde(flatten)]
    subscribers: Option<SubscriberLine>,
    waited_ms: u64,
}

/// What is known of those who subscribe, when they were asked.
#[derive(Debug, Deserialize)]
struct SubscriberLine {
    subscribers: usize,
    behind: Vec<String>,
    behind_count: usize,
    members_not_asked: Vec<u8>,
    other_watchers: usize,
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
    if is_late {
        return Err(refused(&client, &answer));
    }
    let who_is_in_the_way = || arguments.wait.and_then(|_| who_is_in_the_way(&body));
    match who_is_behind(&body).or_else(who_is_in_the_way) {
        Some(who) => Err(Failure::failed(who)),
        None => Ok(()),
    }
}

/// Those whose id somebody else has, and goes on with.
fn who_is_in_the_way(body: &DrainBody) -> Option<String> {
    let has_no_id = |line: &&InstanceLine| line.status == "conflict";
    let names: Vec<_> = body.instances.iter().filter(has_no_id).map(InstanceLine::name).collect();
    (!names.is_empty()).then(|| {
        format!(
            "somebody else has the id of {}; what is registered there was not taken out",
            names.join(", ")
        )
    })
}

/// Those who subscribe and are not known to have seen it, when somebody waited for them.
fn who_is_behind(body: &DrainBody) -> Option<String> {
    let SubscriberLine { subscribers, behind, behind_count, .. } =
        body.subscribers.as_ref().filter(|line| line.behind_count > 0 && !body.confirmed)?;
    let named: Vec<_> = behind.iter().map(|name| printable(name)).collect();
    let more = match behind_count.saturating_sub(behind.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let waited = duration::text(Duration::from_millis(body.waited_ms));
    Some(format!(
        "{behind_count} of {subscribers} sidecars are not known to have seen it, after {waited}: {}{more}; they may send to these \
         instances until they have",
        named.join(", ")
    ))
}

fn text(body: &DrainBody, is_waited_for: bool) -> String {
    let table = instances(&body.instances);
    let waited = duration::text(Duration::from_millis(body.waited_ms));
    let known = match (body.confirmed, body.evidence.as_str(), is_waited_for) {
        (true, _, _) => {
            format!("all sidecars that follow it have seen it, after {waited}{}", of_others(body))
        }
        (false, "quiet-time", _) => {
            let asked = match body.subscribers.as_ref().map(|line| &*line.members_not_asked) {
                None => "none was asked".to_owned(),
                Some(ids) => format!("the sidecars of {} could not be asked", members(ids)),
            };
            format!(
                "all sidecars that the ensemble reaches have had the time to see it, after {waited}; {asked}"
            )
        }
        (false, _, true) => format!("other sidecars may not have seen it yet, after {waited}"),
        (false, _, false) => return table,
    };
    let is_missing = |line: &&InstanceLine| matches!(line.status.as_str(), "absent" | "conflict");
    let missing: Vec<_> = body.instances.iter().filter(is_missing).map(InstanceLine::name).collect();
    match missing.len() {
        _ if body.instances.is_empty() => table,
        0 => format!("{table}\n{known}"),
        all if all == body.instances.len() => {
            format!("{table}\nnone of them is registered by this sidecar: there was nothing to take out")
        }
        _ => format!("{table}\n{known}; not registered by this sidecar: {}", missing.join(", ")),
    }
}

/// Those of whom nobody knows.
fn of_others(body: &DrainBody) -> String {
    match body.subscribers.as_ref().map_or(0, |line| line.other_watchers) {
        0 => String::new(),
        1 => "; one client that is no sidecar watches it, too".to_owned(),
        others => format!("; {others} clients that are no sidecars watch it, too"),
    }
}

fn members(ids: &[u8]) -> String {
    let listed: Vec<_> = ids.iter().map(u8::to_string).collect();
    format!("{} {}", if ids.len() == 1 { "member" } else { "members" }, listed.join(", "))
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

    #[test]
    fn what_is_not_registered_or_somebody_elses_is_not_said_to_have_been_seen() {
        let line = |id: &str, status: &str| {
            format!(r#"{{"service":"web.default","id":"{id}","status":"{status}","reason":null}}"#)
        };
        let body = |instances: &[String], confirmed: bool| {
            let (instances, evidence) = (instances.join(","), if confirmed { "subscribers" } else { "none" });
            let json = format!(
                r#"{{"instances":[{instances}],"confirmed":{confirmed},"evidence":"{evidence}","waited_ms":12}}"#
            );
            serde_json::from_str::<DrainBody>(&json).unwrap()
        };
        let nothing = "\nnone of them is registered by this sidecar: there was nothing to take out";
        let absent = body(&[line("a", "absent")], false);
        assert!(text(&absent, true).ends_with(nothing), "{}", text(&absent, true));
        assert_eq!(who_is_in_the_way(&absent), None);
        let elses = body(&[line("a", "conflict")], false);
        assert!(text(&elses, true).ends_with(nothing), "{}", text(&elses, true));
        assert_eq!(
            who_is_in_the_way(&elses).unwrap(),
            "somebody else has the id of web.default/a; what is registered there was not taken out"
        );
        let some = body(&[line("a", "conflict"), line("b", "draining")], true);
        assert!(
            text(&some, true).ends_with(
                "\nall sidecars that follow it have seen it, after 12ms; not registered by this sidecar: web.default/a"
            ),
            "{}",
            text(&some, true)
        );
        assert!(text(&absent, false).ends_with("absent"), "nobody waited");
    }

    #[test]
    fn whoever_was_asked_is_told_of() {
        let body = |confirmed: bool,
                    evidence: &str,
                    behind: &str,
                    count: usize,
                    missing: &str,
                    others: usize| {
            let json = format!(
                r#"{{"instances":[{{"service":"web.default","id":"web-1","status":"draining","reason":null}}],
                   "confirmed":{confirmed},"evidence":"{evidence}","subscribers":5,"behind":[{behind}],
                   "behind_count":{count},"members_not_asked":[{missing}],"other_watchers":{others},"waited_ms":12}}"#
            );
            serde_json::from_str::<DrainBody>(&json).unwrap()
        };
        let all = body(true, "subscribers", "", 0, "", 0);
        assert!(text(&all, true).ends_with("\nall sidecars that follow it have seen it, after 12ms"));
        assert_eq!(who_is_behind(&all), None);
        let watched = body(true, "subscribers", "", 0, "", 2);
        assert!(text(&watched, true).ends_with("; 2 clients that are no sidecars watch it, too"));
        let unreached = body(false, "quiet-time", "", 0, "2,3", 0);
        assert!(text(&unreached, true).ends_with("; the sidecars of members 2, 3 could not be asked"));
        let late = body(false, "none", "\"a\",\"b\"", 3, "", 0);
        assert_eq!(
            who_is_behind(&late).unwrap(),
            "3 of 5 sidecars are not known to have seen it, after 12ms: a, b and 1 more; they may send to these \
             instances until they have"
        );
    }
}
