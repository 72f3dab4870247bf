//! Trees that others write, in each format that is not ours, as applications find them: by DNS and by HTTP, changes and all.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kazoo::kazoo;
use crate::support::{Dig, Kind, Process, Server, Sidecar, dig, http, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// Nobody listens at any of the addresses below, so that who vanishes and is looked up is out as soon as it was probed.
const SETTINGS: &str = "\
adopt:
  - {format: curator, root: /curator}
  - {format: spring}
  - {format: serverset, root: /aurora/www/prod/hello, namespace: others}
  - {format: nerve, root: /nerve/i-pay, namespace: others, service: pay}
";
const CURATOR: &str = r#"{"name":"Pay.Ments","id":"p-1","address":"127.0.8.3","port":8040,"sslPort":null,"payload":null,"registrationTimeUTC":1553592092875,"serviceType":"DYNAMIC","uriSpec":null}"#;
const SPRING: &str = r#"{"name":"orders","id":"o-1","address":"127.0.8.4","port":8041,"sslPort":null,"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"application-1","name":"orders","metadata":{"instance_status":"UP","zone":"a"}},"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":null}"#;
const SERVERSET: &str = r#"{"serviceEndpoint":{"host":"127.0.8.5","port":31943},"additionalEndpoints":{"admin":{"host":"127.0.8.5","port":31944}},"status":"ALIVE","shard":0}"#;
const NERVE: &str =
    r#"{"host":"127.0.8.6","port":8042,"name":"i-0abc","weight":10,"labels":{"az":"us-east-1a"}}"#;
const BACKUP: &str = r#"{"host":"127.0.8.7","port":8043,"name":"i-0def","haproxy_server_options":"backup"}"#;

#[test]
fn what_others_write_in_formats_of_theirs_is_served_on_rollcall() {
    run(Kind::Rollcall);
}

#[test]
fn what_others_write_in_formats_of_theirs_is_served_on_apache() {
    run(Kind::Apache);
}

fn run(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Server::start(kind, folder.path());
    let mut writer = Writer::start(&server);
    // Some of it is there before anybody follows it, and the rest comes while somebody does.
    writer.tell("create", "/curator/Pay.Ments/p-1", CURATOR);
    writer.tell("sequential", "/nerve/i-pay/i-0abc_", NERVE);
    let sidecar = Sidecar::start(&server.address(), SETTINGS);
    wait_until("what was there is served", LIMIT, || {
        a(&sidecar, "pay-ments.curator") == ["127.0.8.3"] && a(&sidecar, "pay.others") == ["127.0.8.6"]
    });
    writer.tell("create", "/services/orders/o-1", SPRING);
    writer.tell("sequential", "/aurora/www/prod/hello/member_", SERVERSET);
    writer.tell("sequential", "/aurora/www/prod/hello/vector_", "{}");
    writer.tell("sequential", "/nerve/i-pay/i-0def_", BACKUP);
    wait_until("what has come is served", LIMIT, || {
        srv(&sidecar, "orders.spring").len() == 1
            && srv(&sidecar, "hello.others").len() == 1
            && srv(&sidecar, "pay.others").len() == 2
    });
    expect_all(&sidecar);
    assert_eq!(unreadable(&sidecar), Some(0), "a serverset's vector is no instance, and no mistake");

    // Set in place, as registrars of ours never do; written so that there is nothing to answer; gone.
    writer.tell("set", "/curator/Pay.Ments/p-1", &CURATOR.replace("8040", "8050"));
    let named = CURATOR.replace("127.0.8.3", "host.example").replace("p-1", "p-2");
    writer.tell("create", "/curator/Pay.Ments/p-2", &named);
    writer.tell("delete", "/services/orders/o-1", "");
    wait_until("the port is the new one", LIMIT, || {
        srv(&sidecar, "pay-ments.curator") == ["0 1 8050 p-1.pay-ments.curator.rollcall.internal."]
    });
    wait_until("who names a host is skipped, and counted", LIMIT, || unreadable(&sidecar) > Some(0));
    let explained = get(&sidecar, "/api/v1/explain/curator/pay-ments");
    let unreadable = &explained["unreadable"][0];
    assert!(
        unreadable["id"] == "p-2" && unreadable["reason"].to_string().contains("host.example"),
        "{explained}"
    );
    wait_until("who is gone is not answered", LIMIT, || has_nobody(&sidecar, "orders.spring"));
    assert_eq!(instances(&sidecar, "spring", "orders"), json!([]));

    // All the others go with the session of who wrote them, without having said that they leave.
    writer.end();
    wait_until("the others are gone", LIMIT, || {
        ["pay-ments.curator", "hello.others", "pay.others"].iter().all(|name| has_nobody(&sidecar, name))
    });
    assert_eq!(sidecar.metric("rollcall_registry_defects_total"), Some(0));
}

/// Every service as DNS and HTTP tell it.
fn expect_all(sidecar: &Sidecar) {
    for (name, address, targets) in [
        ("pay-ments.curator", "127.0.8.3", &["0 1 8040 p-1"][..]),
        ("orders.spring", "127.0.8.4", &["0 1 8041 o-1"]),
        ("hello.others", "127.0.8.5", &["0 1 31943 member-0000000000"]),
        ("pay.others", "127.0.8.6", &["0 10 8042 i-0abc-0000000000", "1 1 8043 i-0def-0000000001"]),
    ] {
        assert_eq!(a(sidecar, name), [address]);
        let targets = targets.iter().map(|target| format!("{target}.{name}.rollcall.internal."));
        assert_eq!(srv(sidecar, name), targets.collect::<Vec<_>>());
        let target = srv(sidecar, name)[0].split(' ').next_back().expect("a target").to_owned();
        assert_eq!(dig(sidecar.dns.number(), &[&target, "A"]).answers("A"), [address], "{target}");
    }
    let admin = srv(sidecar, "_admin._tcp.hello.others");
    assert_eq!(admin, ["0 1 31944 member-0000000000.hello.others.rollcall.internal."]);

    for (namespace, service, expected) in [
        ("curator", "pay-ments", json!([["p-1", "127.0.8.3", 8040, 1, 0, null, true]])),
        ("spring", "orders", json!([["o-1", "127.0.8.4", 8041, 1, 0, "a", true]])),
        ("others", "hello", json!([["member-0000000000", "127.0.8.5", 31943, 1, 0, null, true]])),
        (
            "others",
            "pay",
            json!([
                ["i-0abc-0000000000", "127.0.8.6", 8042, 10, 0, "us-east-1a", true],
                ["i-0def-0000000001", "127.0.8.7", 8043, 1, 1, null, false]
            ]),
        ),
    ] {
        assert_eq!(instances(sidecar, namespace, service), expected, "{service}");
    }
    let listed = get(sidecar, "/api/v1/services");
    let listed = listed["services"].as_array().expect("a list").iter();
    let listed = listed
        .filter(|it| it["namespace"] != "default")
        .map(|it| json!([it["namespace"], it["name"], it["instances"], it["up"]]));
    let expected = json!([
        ["curator", "pay-ments", 1, 1],
        ["others", "hello", 1, 1],
        ["others", "pay", 2, 2],
        ["spring", "orders", 1, 1]
    ]);
    assert_eq!(listed.collect::<Value>(), expected);
}

fn answer(sidecar: &Sidecar, name: &str, kind: &str) -> Dig {
    dig(sidecar.dns.number(), &[&format!("{name}.rollcall.internal."), kind])
}

fn a(sidecar: &Sidecar, name: &str) -> Vec<String> {
    answer(sidecar, name, "A").answers("A")
}

fn srv(sidecar: &Sidecar, name: &str) -> Vec<String> {
    answer(sidecar, name, "SRV").answers("SRV")
}

/// Whether the service is known, and has nobody to offer.
fn has_nobody(sidecar: &Sidecar, name: &str) -> bool {
    let answer = answer(sidecar, name, "SRV");
    answer.status == "NOERROR" && answer.answer.is_empty()
}

/// Of each instance its id, its first address and port, weight, tier and zone, and whether it is what lookups are given.
fn instances(sidecar: &Sidecar, namespace: &str, service: &str) -> Value {
    let told = get(sidecar, &format!("/api/v1/services/{namespace}/{service}"));
    let shown = |it: &Value| {
        let (address, port) = (&it["addresses"][0], &it["ports"][0]["port"]);
        json!([it["id"], address, port, it["weight"], it["priority"], it["zone"], it["selected"]])
    };
    told["instances"].as_array().unwrap_or_else(|| panic!("{told}")).iter().map(shown).collect()
}

fn get(sidecar: &Sidecar, path: &str) -> Value {
    http::get(sidecar.http.number(), path).expect("HTTP answers").json()
}

fn unreadable(sidecar: &Sidecar) -> Option<u64> {
    sidecar.metric("rollcall_registry_unreadable_total")
}

/// A client that is not ours, with a session that all of it lives by.
struct Writer(Process);

impl Writer {
    fn start(server: &Server) -> Self {
        Self(kazoo("write", &server.address(), &[]))
    }

    /// Has it do something, and waits until it is done.
    fn tell(&mut self, what: &str, path: &str, data: &str) {
        self.0.say(&format!("{what} {path} {data}"));
        self.0.line_with(&format!("done {path}"), LIMIT);
    }

    fn end(&mut self) {
        self.0.say("end");
        self.0.expect_success(LIMIT);
    }
}
