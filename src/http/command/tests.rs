use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};

use super::*;
use crate::http::sample;
use crate::registry::{Evidence, OwnInstance, Reason, RegistrationState};

#[tokio::test]
async fn every_command_is_carried_out_for_one_service_or_all() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let control = Control::new({
        let told = told.clone();
        move |command: Command| {
            told.lock().unwrap().push(command);
            Box::pin(std::future::ready(Ok(Done::Released(2))))
        }
    });
    let wait = Some(Duration::from_secs(30));
    let (service, reason) = (Some(sample::key("shop", "web")), Reason::parse("new disk").unwrap());
    let commands = [
        (Method::POST, "failback", "", Command::FailBack(service.clone())),
        (Method::POST, "drain", "", Command::Drain { service: service.clone(), wait: None }),
        (Method::POST, "drain", "?wait=30s", Command::Drain { service: service.clone(), wait }),
        (Method::DELETE, "drain", "", Command::EndDrain(service.clone())),
        (
            Method::PUT,
            "maintenance",
            "",
            Command::Maintain { service: service.clone(), reason: Reason::default() },
        ),
        (
            Method::PUT,
            "maintenance",
            "?reason=new+disk",
            Command::Maintain { service: service.clone(), reason },
        ),
        (Method::DELETE, "maintenance", "", Command::EndMaintenance(service)),
    ];
    for (method, verb, query, command) in commands {
        for (path, command) in [
            (format!("/api/v1/{verb}/shop/web{query}"), command.clone()),
            (format!("/api/v1/{verb}{query}"), of_all(command)),
        ] {
            let (status, body) = ask(&control, &method, &path).await;
            assert_eq!((status, body), (200, json!({"released": 2})), "{method} {path}");
            assert_eq!(told.lock().unwrap().pop(), Some(command), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn as_many_commands_wait_as_there_is_room_for() {
    let control = Control::new(|_| Box::pin(std::future::ready(Ok(Done::Released(1)))));
    let drain = CommandPath::parse("/api/v1/drain").unwrap();
    let (room, headers) = (room(), HeaderMap::new());
    let place = room.try_acquire().unwrap();
    let refused = drain.answer(&control, &room, &Method::POST, &headers, Some("wait=1s")).await;
    let retry = [RETRY_AFTER, CONNECTION].map(|name| refused.headers()[name].to_str().unwrap().to_owned());
    assert_eq!((refused.status().as_u16(), retry), (503, ["1".to_owned(), "close".to_owned()]));
    let status = drain.answer(&control, &room, &Method::POST, &headers, None).await.status();
    assert_eq!(status, 200, "it does not wait");
    drop(place);
    let status = drain.answer(&control, &room, &Method::POST, &headers, Some("wait=1s")).await.status();
    assert_eq!((status.as_u16(), room.available_permits()), (200, 1), "its place is given back");
}

#[tokio::test]
async fn what_may_not_be_told_is_not_carried_out() {
    let control = Control::new(|command| panic!("{command:?} is carried out"));
    for (method, path, status) in [
        (Method::GET, "/api/v1/failback", 405),
        (Method::DELETE, "/api/v1/failback", 405),
        (Method::GET, "/api/v1/drain", 405),
        (Method::PUT, "/api/v1/drain", 405),
        (Method::GET, "/api/v1/maintenance/default/web", 405),
        (Method::POST, "/api/v1/maintenance", 405),
        (Method::POST, "/api/v1/failback?service=web", 400),
        (Method::POST, "/api/v1/failback?wait=1s", 400),
        (Method::POST, "/api/v1/drain?wait=11m", 400),
        (Method::POST, "/api/v1/drain?wait", 400),
        (Method::POST, "/api/v1/drain?wait=1s&wait=2s", 400),
        (Method::POST, "/api/v1/drain?reason=x", 400),
        (Method::DELETE, "/api/v1/drain?wait=1s", 400),
        (Method::PUT, "/api/v1/maintenance?reason=a%0Ab", 400),
        (Method::PUT, "/api/v1/maintenance?reason=%ff", 400),
        (Method::DELETE, "/api/v1/maintenance?reason=x", 400),
        (Method::POST, "/api/v1/failback/Shop/web", 404),
        (Method::POST, "/api/v1/drain/shop/We_b", 404),
    ] {
        let (answered, body) = ask(&control, &method, path).await;
        assert_eq!(answered, status, "{method} {path}");
        assert!(body["error"].is_string() && body["hint"].is_string(), "{body}");
    }
    let mut from_page = HeaderMap::new();
    from_page.insert(ORIGIN, HeaderValue::from_static("http://elsewhere"));
    for (method, verb) in [
        ("POST", "failback"),
        ("POST", "drain"),
        ("DELETE", "drain"),
        ("PUT", "maintenance"),
        ("DELETE", "maintenance"),
    ] {
        let path = format!("/api/v1/{verb}");
        let (command, method) =
            (CommandPath::parse(&path).unwrap(), Method::from_bytes(method.as_bytes()).unwrap());
        let response = command.answer(&control, &room(), &method, &from_page, None).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{method} {verb}");
    }
    let allowed = CommandPath::parse("/api/v1/maintenance").unwrap();
    let response = allowed.answer(&control, &room(), &Method::GET, &HeaderMap::new(), None).await;
    assert_eq!(response.headers()[ALLOW], "PUT, DELETE");
}

#[test]
fn other_paths_are_no_commands() {
    for path in [
        "/api/v1/drain/",
        "/api/v1/drain/default",
        "/api/v1/drain/default/web/web-1",
        "/api/v1/drained",
        "/api/v2/drain",
        "/drain",
    ] {
        assert_eq!(CommandPath::parse(path), None, "{path}");
    }
}

#[tokio::test]
async fn a_drain_tells_how_far_it_is_and_how_that_is_known() {
    let drain = |is_late, evidence, registration| {
        let own = OwnInstance { registration, is_draining: true, ..sample::own() };
        let change = Change { instances: vec![own], waited: Duration::from_millis(1_012) };
        Done::Drained(Drain { change, is_late, evidence, subscribers: None })
    };
    let draining = RegistrationState::Registered(crate::registry::Status::Draining);
    let done = drain(false, Evidence::QuietTime, draining);
    let (status, body) = ask(&always(&done), &Method::POST, "/api/v1/drain?wait=5s").await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        json!({"instances": [{"service": "web.default", "id": "web-1", "status": "draining", "reason": null}],
               "confirmed": false, "evidence": "quiet-time", "waited_ms": 1012})
    );
    let mut asked = done.clone();
    let Done::Drained(drain_asked) = &mut asked else { panic!("a drain") };
    drain_asked.evidence = Evidence::None;
    let behind = vec!["b.1".to_owned()];
    drain_asked.subscribers = Some(SubscriberReport {
        subscribers: 3,
        behind,
        behind_count: 1,
        members_not_asked: vec![2],
        other_watchers: 4,
    });
    let (status, body) = ask(&always(&asked), &Method::POST, "/api/v1/drain?wait=5s").await;
    assert_eq!(
        (status, &body["confirmed"], &body["subscribers"], &body["behind"]),
        (200, &json!(false), &json!(3), &json!(["b.1"]))
    );
    assert_eq!(
        (&body["behind_count"], &body["members_not_asked"], &body["other_watchers"]),
        (&json!(1), &json!([2]), &json!(4))
    );
    let pending = RegistrationState::Pending { reason: "no connection to the ensemble".to_owned() };
    let late = drain(true, Evidence::None, pending);
    let (status, body) = ask(&always(&late), &Method::POST, "/api/v1/drain?wait=1s").await;
    assert_eq!((status, &body["evidence"]), (503, &json!("none")));
    assert_eq!(body["error"], "1 of 1 instances could not be taken out yet");
    assert_eq!(
        body["instances"][0],
        json!({"service": "web.default", "id": "web-1", "status": "pending", "reason": "no connection to the ensemble"})
    );
}

#[tokio::test]
async fn maintenance_tells_whether_it_outlives_the_process() {
    let done = |keeping| {
        let change = Change { instances: vec![sample::own()], waited: Duration::ZERO };
        Done::Maintained(MaintenanceChange { change, keeping })
    };
    let failed = Keeping::Failed { reason: "disk full".to_owned() };
    for (keeping, survives, reason) in [
        (Keeping::Kept, true, Value::Null),
        (Keeping::NoStateDir, false, json!("the sidecar has no state_dir")),
        (failed, false, json!("disk full")),
    ] {
        let (status, body) = ask(&always(&done(keeping)), &Method::PUT, "/api/v1/maintenance").await;
        assert_eq!(status, 200);
        assert_eq!((&body["survives_restart"], &body["reason"]), (&json!(survives), &reason));
    }
}

#[tokio::test]
async fn a_sidecar_without_instances_has_none_to_tell() {
    let control = Control::default();
    let (status, body) = ask(&control, &Method::POST, "/api/v1/drain?wait=1s").await;
    assert_eq!((status, &body["instances"]), (200, &json!([])));
    let (status, body) = ask(&control, &Method::POST, "/api/v1/drain/default/web").await;
    assert_eq!((status, &body["error"]), (404, &json!("no instance of web.default is this sidecar's")));
    let stopped = Control::new(|_| Box::pin(std::future::ready(Err(ChangeError::Stopped))));
    assert_eq!(ask(&stopped, &Method::DELETE, "/api/v1/drain").await.0, 503);
}

fn always(done: &Done) -> Control {
    let done = done.clone();
    Control::new(move |_| Box::pin(std::future::ready(Ok(done.clone()))))
}

fn of_all(command: Command) -> Command {
    match command {
        Command::FailBack(_) => Command::FailBack(None),
        Command::Drain { service: _, wait } => Command::Drain { service: None, wait },
        Command::EndDrain(_) => Command::EndDrain(None),
        Command::Maintain { service: _, reason } => Command::Maintain { service: None, reason },
        Command::EndMaintenance(_) => Command::EndMaintenance(None),
    }
}

/// Room for one command that waits.
fn room() -> Semaphore {
    Semaphore::new(1)
}

async fn ask(control: &Control, method: &Method, path: &str) -> (u16, Value) {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let command = CommandPath::parse(path).unwrap();
    let response = command.answer(control, &room(), method, &HeaderMap::new(), query).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}
