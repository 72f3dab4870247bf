//! A settings file that changes while `rollcall sidecar` runs: what takes effect, what is refused, what waits for a restart.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::Signal;
use crate::support::{Kind, Port, Server, Sidecar, WebServer, dig, http, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn with_a_rollcall_member_a_file_that_changes_takes_effect_and_a_broken_one_changes_nothing() {
    change_settings(Kind::Rollcall);
}

#[test]
fn with_an_apache_member_a_file_that_changes_takes_effect_and_a_broken_one_changes_nothing() {
    change_settings(Kind::Apache);
}

fn change_settings(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let (web, api) = (WebServer::start_on("127.0.0.1"), WebServer::start_on("127.0.0.1"));
    let [dns, http] = [Port::free(), Port::free()];
    let ttl = |ttl: &str| {
        format!(
            "dns: {{address: \"{}\", ttl: {ttl}}}\nhttp: {{address: \"{}\"}}\n",
            dns.address(),
            http.address()
        )
    };
    let (two, nine) = (ttl("2s"), ttl("9s"));
    let service = |name: &str, of: &WebServer, more: &str| {
        let checks = "[{kind: tcp, interval: 100ms, rise: 1}]";
        format!(
            "  - {{name: {name}, id: one, address: {}, port: {}, checks: {checks}{more}}}\n",
            of.host(),
            of.port()
        )
    };
    let services = |list: &[String]| format!("services:\n{}", list.concat());
    let before = services(&[service("web", &web, "")]);
    let sidecar = Sidecar::start_with(&server.address(), &format!("{two}{before}"), [dns, http]);
    wait_until("web is offered", LIMIT, || weight(&sidecar, "web") == Some(1));
    assert_eq!(settings(&sidecar)["rejected"], Value::Null);
    assert_eq!(metric(&sidecar, "rollcall_settings_reloads_total"), 0);

    // 1. A weight, one more service, a TTL.
    let now = services(&[service("web", &web, ", weight: 7, tags: [blue]"), service("api", &api, "")]);
    sidecar.configure(&format!("{nine}{now}"));
    wait_until("both are offered", LIMIT, || {
        weight(&sidecar, "web") == Some(7) && weight(&sidecar, "api") == Some(1)
    });
    let answer = dig(sidecar.dns.number(), &["web.default.rollcall.internal", "A"]);
    assert_eq!(answer.answer[0].ttl, 9, "{}", answer.text);
    assert_eq!(metric(&sidecar, "rollcall_settings_reloads_total"), 1);
    assert!(sidecar.log().contains("services, dns TTLs"), "{}", sidecar.log());

    // 2. A mistake: nothing of it is done, not even what is right.
    sidecar.configure(&format!("{two}{now}colour: blue\n"));
    wait_until("it is refused", LIMIT, || metric(&sidecar, "rollcall_settings_rejected") == 1);
    let told = settings(&sidecar)["rejected"].as_str().expect("a text").to_owned();
    assert!(told.contains("colour"), "{told}");
    assert_eq!((weight(&sidecar, "web"), weight(&sidecar, "api")), (Some(7), Some(1)));
    assert_eq!(dig(sidecar.dns.number(), &["web.default.rollcall.internal", "A"]).answer[0].ttl, 9);
    sidecar.write_settings("");
    wait_until("an empty file is refused", LIMIT, || {
        settings(&sidecar)["rejected"].as_str().is_some_and(|told| told.contains("services: []"))
    });
    assert_eq!(weight(&sidecar, "web"), Some(7));

    // 3. What cannot be changed is said, and the rest is done.
    let other = format!("{nine}brake: {{share: 50%}}\nsubscribe: {{mode: namespaces}}\n");
    sidecar.configure(&format!("{other}{}", services(&[service("api", &api, "")])));
    wait_until("web has left", LIMIT, || weight(&sidecar, "web").is_none());
    assert_eq!(settings(&sidecar)["restart_needed"], json!(["subscribe, adopt"]));
    assert_eq!(settings(&sidecar)["rejected"], Value::Null);
    let metrics = ["rollcall_settings_rejected", "rollcall_settings_restart_needed"];
    assert_eq!(metrics.map(|name| metric(&sidecar, name)), [0, 1]);
    assert_eq!(weight(&sidecar, "api"), Some(1));

    // 4. SIGHUP does not end it.
    sidecar.configure(&format!("{nine}{}", services(&[service("api", &api, ", weight: 3")])));
    sidecar.signal(Signal::HUP);
    wait_until("it has heard", LIMIT, || sidecar.log().contains("SIGHUP"));
    wait_until("api has changed", LIMIT, || weight(&sidecar, "api") == Some(3));
    wait_until("nothing waits", LIMIT, || settings(&sidecar)["restart_needed"] == json!([]));
}

/// One after the other, so that each shows by itself.
#[test]
fn checks_zones_names_the_brake_and_the_log_follow_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(Kind::Rollcall, folder.path());
    let web = WebServer::start_on("127.0.0.1");
    let closed = Port::free();
    let service = |checked: u16| {
        let checks = format!("[{{kind: tcp, port: {checked}, interval: 100ms, rise: 1, fall: 1}}]");
        format!("services:\n  - {{name: web, id: one, port: {}, checks: {checks}}}\n", web.port())
    };
    let (well, ill) = (service(web.port()), service(closed.number()));
    let listeners = format!("address: {}\nhttp: {{address: \"", web.host());
    let [dns, http] = [Port::free(), Port::free()];
    let listeners =
        format!("{listeners}{}\"}}\ndns: {{address: \"{}\", zone: ", http.address(), dns.address());
    let with_zone = |zone: &str, more: &str| format!("{listeners}{zone}}}\n{more}");
    let usual = |more: &str| with_zone("rollcall.internal.", more);
    let sidecar = Sidecar::start_with(&server.address(), &usual(&well), [dns, http]);
    let offered = |namespace: &str| {
        let body =
            http::get(sidecar.http.number(), &format!("/api/v1/services/{namespace}/web")).ok()?.json();
        let up = body["instances"].as_array()?.iter().find(|instance| instance["status"] == "up")?.clone();
        Some(up)
    };
    wait_until("web is offered", LIMIT, || offered("default").is_some());

    sidecar.configure(&usual(&ill));
    wait_until("the other check fails", LIMIT, || offered("default").is_none());
    sidecar.configure(&usual(&format!("zone: b\n{well}")));
    wait_until("it has a zone", LIMIT, || offered("default").is_some_and(|one| one["zone"] == "b"));
    sidecar.configure(&usual(&format!("namespace: shop\n{well}")));
    wait_until("it is in another namespace", LIMIT, || {
        offered("shop").is_some_and(|one| one["zone"].is_null()) && offered("default").is_none()
    });

    sidecar.configure(&with_zone("other.internal.", &well));
    wait_until("names end otherwise", LIMIT, || {
        dig(sidecar.dns.number(), &["web.default.other.internal", "A"]).answer.len() == 1
    });

    // Of three that vanish at once none is believed to be gone, or all are. Over UDP nobody can ask them.
    let vanish = || {
        let mut client = server.connect();
        let others = ["a", "b", "c"].map(|id| format!("/rollcall/services/default/other/{id}"));
        client.create("/rollcall/services/default/other", None, 0).expect("it answers");
        for (path, number) in others.iter().zip(7..) {
            let record = format!(
                r#"{{"v":1,"addresses":["127.0.0.{number}"],"ports":[{{"name":"dns","port":9,"protocol":"udp"}}],"status":"up"}}"#
            );
            assert_eq!(client.create(path, Some(record.as_bytes()), 0).expect("it answers").error, 0);
        }
        let shown = || {
            let body = http::get(sidecar.http.number(), "/api/v1/services/default/other").ok()?.json();
            Some(body["instances"].as_array()?.len())
        };
        wait_until("all three are shown", LIMIT, || shown() == Some(3));
        for path in &others {
            assert_eq!(client.delete(path).expect("it answers").error, 0);
        }
        shown
    };
    let shown = vanish();
    wait_until("they are held", LIMIT, || metric(&sidecar, "rollcall_registry_brake_engagements_total") == 1);
    assert_eq!(shown(), Some(3));
    sidecar.configure(&usual(&format!("brake: {{enabled: false}}\n{well}")));
    wait_until("whom it held is let go", LIMIT, || shown() == Some(0));
    let shown = vanish();
    wait_until("nobody is held any more", Duration::from_secs(5), || shown() == Some(0));

    assert!(!sidecar.log().contains("DEBUG"), "{}", sidecar.log());
    sidecar.configure(&usual(&format!("log: {{filter: debug}}\n{well}")));
    wait_until("it says more", LIMIT, || sidecar.log().contains("DEBUG"));
    assert_eq!(settings(&sidecar)["restart_needed"], json!([]));
}

/// As an editor, or a slow copy, writes the file where it is: truncated first, and then in two halves, of which the first can be read without
/// a mistake and lacks a service.
#[test]
fn a_file_that_is_written_in_two_halves_takes_no_service_out() {
    const PAUSE: Duration = Duration::from_millis(300);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(Kind::Rollcall, folder.path());
    let service = |name: &str, weight: u32| {
        format!("  - {{name: {name}, id: one, address: 127.0.0.1, port: 80, weight: {weight}, checks: []}}\n")
    };
    let sidecar =
        Sidecar::start(&server.address(), &format!("services:\n{}{}", service("api", 1), service("web", 1)));
    wait_until("both are offered", LIMIT, || {
        weight(&sidecar, "api") == Some(1) && weight(&sidecar, "web") == Some(1)
    });
    for new in 2..=4 {
        let text = sidecar.settings().replace(&service("api", new - 1), &service("api", new));
        let text = text.replace(&service("web", new - 1), &service("web", new));
        let (first, second) = text.split_at(text.find(&service("web", new)).expect("it is there"));
        sidecar.overwrite_settings(&[first, second], PAUSE);
        wait_until("both have changed", LIMIT, || {
            let web = weight(&sidecar, "web");
            assert!(web.is_some(), "it was taken out: {}", sidecar.log());
            weight(&sidecar, "api") == Some(new.into()) && web == Some(new.into())
        });
    }
    assert_eq!(metric(&sidecar, "rollcall_settings_reloads_total"), 3, "{}", sidecar.log());

    // What is meant to be taken out is, soon.
    let text = sidecar.settings().replace(&service("web", 4), "");
    sidecar.overwrite_settings(&[&text], PAUSE);
    let took = wait_until("web has left", LIMIT, || weight(&sidecar, "web").is_none());
    assert!(took < Duration::from_secs(20), "ten times what it may take: {took:?}");
}

/// The weight of the one instance of a service, if it is up.
fn weight(sidecar: &Sidecar, service: &str) -> Option<u64> {
    let answer = http::get(sidecar.http.number(), &format!("/api/v1/services/default/{service}")).ok()?;
    let body: Value = serde_json::from_str(&answer.body).ok()?;
    let instances = body["instances"].as_array()?;
    let up = instances.iter().find(|instance| instance["status"] == "up")?;
    up["weight"].as_u64()
}

fn settings(sidecar: &Sidecar) -> Value {
    let answer = http::get(sidecar.http.number(), "/api/v1/status").expect("it answers");
    answer.json()["settings"].clone()
}

fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let answer = http::get(sidecar.http.number(), "/metrics").expect("it answers");
    let line = answer.body.lines().find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("no {name} in {}", answer.body));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}
