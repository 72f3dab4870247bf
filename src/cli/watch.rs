//! `rollcall watch`: the changes of one service, by long polls.
//!
//! Each answer is compared with the one before it; the sidecar's tag (`ETag`) says when there is something to compare. A sidecar
//! that goes away is waited for with growing pauses, and what changed meanwhile is printed once it is back. One that has no room for
//! another long poll is asked now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::arguments::WatchArguments;
use super::failure::Failure;
use super::lookup::{InstanceBody, ServiceBody, decode, path, ports, refused};
use super::output::{Format, note, print, printable};
use super::sidecar_client::SidecarClient;
use crate::clock;
use crate::config::timestamp;
use crate::registry::ServiceKey;

/// How long one poll may be held back.
const WAIT: Duration = Duration::from_secs(30);
/// How often a service that is not known is asked for again.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a first failure, doubled with each further one.
const FAILURE_PAUSE_MIN: Duration = Duration::from_millis(200);
/// Where the doubling ends.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Prints changes until it is interrupted.
pub(super) async fn run(arguments: WatchArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let mut watch = Watch::new(arguments.name.0, arguments.output);
    let mut pause = FAILURE_PAUSE_MIN;
    let (mut is_first, mut is_room) = (true, true);
    loop {
        let wait = if watch.etag.is_some() && is_room { WAIT } else { Duration::ZERO };
        let path = format!("{}?wait={}s", path(&watch.key), wait.as_secs());
        match client.get(&path, watch.etag.as_deref(), wait).await {
            // One that was never there is a mistake of the person; one that was there comes back.
            Err(error) if is_first || !error.is_passing() => return Err(error.into()),
            Err(error) => {
                if pause == FAILURE_PAUSE_MIN {
                    note(&format!("{error}; going on when it is back"));
                }
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                pause = (pause * 2).min(FAILURE_PAUSE_MAX);
            }
            Ok(answer) => {
                (is_first, pause) = (false, FAILURE_PAUSE_MIN);
                // After one answer without a wait, which has what changed meanwhile, a long poll is tried again.
                is_room = answer.retry_after.is_none();
                match answer.status {
                    StatusCode::SERVICE_UNAVAILABLE if let Some(after) = answer.retry_after => {
                        tokio::time::sleep(after.min(FAILURE_PAUSE_MAX)).await;
                    }
                    StatusCode::NOT_MODIFIED => {}
                    StatusCode::OK => {
                        let service: ServiceBody = decode(&client, &answer)?;
                        watch.print_changes(service.instances)?;
                        watch.etag = answer.etag;
                        if watch.etag.is_none() {
                            tokio::time::sleep(UNKNOWN_PAUSE).await;
                        }
                    }
                    StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE if answer.refusal().is_some() => {
                        watch.note_unknown(answer.status);
                        tokio::time::sleep(UNKNOWN_PAUSE).await;
                    }
                    _ => return Err(refused(&client, &answer)),
                }
            }
        }
    }
}

struct Watch {
    key: ServiceKey,
    format: Format,
    etag: Option<String>,
    /// What was printed last; `None` before the first answer.
    known: Option<BTreeMap<String, InstanceBody>>,
    is_noted_unknown: bool,
}

/// One line of JSON.
#[derive(Serialize)]
struct ChangeLine<'a> {
    time: String,
    service: String,
    change: &'a str,
    instance: &'a InstanceBody,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<String>,
}

impl Watch {
    const fn new(key: ServiceKey, format: Format) -> Self {
        Self { key, format, etag: None, known: None, is_noted_unknown: false }
    }

    fn note_unknown(&mut self, status: StatusCode) {
        self.etag = None;
        if !self.is_noted_unknown {
            let reason = if status == StatusCode::NOT_FOUND {
                "is not known yet"
            } else {
                "may be there: the sidecar has not reached the ensemble yet"
            };
            note(&format!("{} {reason}; waiting", self.key));
            self.is_noted_unknown = true;
        }
    }

    fn print_changes(&mut self, instances: Vec<InstanceBody>) -> Result<(), Failure> {
        self.is_noted_unknown = false;
        let now: BTreeMap<_, _> =
            instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect();
        for (change, instance, differences) in changes(self.known.as_ref(), &now) {
            print(&self.line(change, instance, differences)?)?;
        }
        self.known = Some(now);
        Ok(())
    }

    fn line(
        &self,
        change: &str,
        instance: &InstanceBody,
        differences: Vec<String>,
    ) -> Result<String, Failure> {
        let time = timestamp::text(clock::unix_ms());
        if self.format == Format::Json {
            let line = ChangeLine { time, service: self.key.to_string(), change, instance, differences };
            return serde_json::to_string(&line).map_err(|error| Failure::failed(error.to_string()));
        }
        let about = if differences.is_empty() {
            format!("{} {} port {}", instance.status, instance.addresses.join(","), ports(&instance.ports))
        } else {
            differences.join(", ")
        };
        Ok(format!("{time}  {change:<8} {}  {}", printable(&instance.id), printable(&about)))
    }
}

type Change<'a> = (&'static str, &'a InstanceBody, Vec<String>);

/// What became of each instance, in the order of their ids.
fn changes<'a>(
    before: Option<&'a BTreeMap<String, InstanceBody>>,
    now: &'a BTreeMap<String, InstanceBody>,
) -> Vec<Change<'a>> {
    let Some(before) = before else {
        return now.values().map(|instance| ("present", instance, Vec::new())).collect();
    };
    let left = before.values().filter(|instance| !now.contains_key(&instance.id));
    let mut changes: Vec<Change<'_>> = left.map(|instance| ("left", instance, Vec::new())).collect();
    for instance in now.values() {
        match before.get(&instance.id) {
            None => changes.push(("joined", instance, Vec::new())),
            Some(old) if old == instance => {}
            Some(old) => changes.push(("changed", instance, differences(old, instance))),
        }
    }
    changes.sort_by(|left, right| left.1.id.cmp(&right.1.id));
    changes
}

fn differences(old: &InstanceBody, new: &InstanceBody) -> Vec<String> {
    let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let meta = |meta: &BTreeMap<String, String>| {
        meta.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    let offered = |instance: &InstanceBody| if instance.selected { "yes" } else { "no" }.to_owned();
    let pairs = [
        ("status", old.status.clone(), new.status.clone()),
        ("offered", offered(old), offered(new)),
        ("addresses", old.addresses.join(" "), new.addresses.join(" ")),
        ("ports", ports(&old.ports), ports(&new.ports)),
        ("weight", old.weight.to_string(), new.weight.to_string()),
        ("priority", old.priority.to_string(), new.priority.to_string()),
        ("effective priority", old.effective_priority.to_string(), new.effective_priority.to_string()),
        ("zone", optional(&old.zone), optional(&new.zone)),
        ("node", optional(&old.node), optional(&new.node)),
        ("tags", old.tags.join(" "), new.tags.join(" ")),
        ("meta", meta(&old.meta), meta(&new.meta)),
    ];
    let differing = pairs.into_iter().filter(|(_, old, new)| old != new);
    differing.map(|(what, old, new)| format!("{what} {old} -> {new}")).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::arguments::SidecarAddress;
    use super::*;

    fn instance(id: &str, status: &str) -> (String, InstanceBody) {
        let body = InstanceBody {
            id: id.to_owned(),
            status: status.to_owned(),
            addresses: vec!["10.0.0.1".to_owned()],
            ports: Vec::new(),
            weight: 1,
            priority: 0,
            effective_priority: 0,
            zone: None,
            node: None,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            selected: status == "up",
        };
        (id.to_owned(), body)
    }

    #[test]
    fn changes_are_joined_left_and_changed() {
        let before = BTreeMap::from([instance("a", "up"), instance("b", "up"), instance("c", "up")]);
        let now = BTreeMap::from([instance("a", "up"), instance("c", "failing"), instance("d", "up")]);
        let told: Vec<_> = changes(Some(&before), &now)
            .into_iter()
            .map(|(change, instance, differences)| {
                format!("{change} {} {}", instance.id, differences.join(", "))
            })
            .collect();
        assert_eq!(told, ["left b ", "changed c status up -> failing, offered yes -> no", "joined d "]);
        assert!(changes(Some(&now), &now).is_empty());
        assert_eq!(changes(None, &now).len(), 3, "the first answer tells who is there");
    }

    #[tokio::test]
    async fn a_sidecar_without_room_for_a_long_poll_is_asked_without_a_wait_in_between() {
        let body = r#"{"age_ms":1,"stale":false,"instances":[]}"#;
        let found = format!("200 OK\r\netag: \"1\"\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let full = "503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
        let unchanged = "304 Not Modified\r\netag: \"1\"\r\n\r\n";
        let end = "500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http_addr = listener.local_addr().unwrap().to_string();
        let server = async {
            let mut waits = Vec::new();
            for answer in [&found, full, unchanged, full, end] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                let request = String::from_utf8(request).unwrap();
                let (_, wait) = request.lines().next().unwrap().split_once("?wait=").unwrap();
                waits.push(wait.trim_end_matches(" HTTP/1.1").to_owned());
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
            }
            waits
        };
        let (name, sidecar) = ("web".parse().unwrap(), SidecarAddress { http_addr });
        let watch = run(WatchArguments { name, sidecar, output: Format::Table });
        let (ended, waits) =
            tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(watch, server) })
                .await
                .expect("within 20 s");
        assert!(ended.is_err());
        assert_eq!(waits, ["0s", "30s", "0s", "30s", "0s"]);
    }

    #[test]
    fn a_line_of_json_is_one_object() {
        let watch = Watch::new("web".parse::<super::super::name::NameArgument>().unwrap().0, Format::Json);
        let line = watch.line("joined", &instance("a", "up").1, Vec::new()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["change"], &value["instance"]["id"]), (&"joined".into(), &"a".into()));
        assert!(!line.contains('\n'));
    }
}
