//! The whole path: real HTTP servers, their checks, the registry, and what `dig` and HTTP say about them.

use std::path::Path;
use std::time::Duration;

use rollcall::clock;

use crate::support::dev::rollcall;
use crate::support::{Dev, Dig, WebServer, dig, http, wait_until};

const INTERVAL: Duration = Duration::from_millis(200);
/// More addresses than 512 bytes hold.
const MANY: u16 = 60;
const RISE: u32 = 2;
const FALL: u32 = 3;
/// What is promised beyond interval × fall, and beyond interval × rise: the way from a verdict to every answer.
const SLACK: Duration = Duration::from_millis(200);
/// A busy machine may hold up any process, so that a round has ten times the slack. That the verdict itself comes
/// within interval × fall is shown in virtual time, beside the check's runner.
const BUSY: Duration = Duration::from_millis(10 * 200);
const ROUNDS: usize = 5;

#[test]
fn two_servers_are_found_by_dns_and_http_with_their_priorities_weights_and_ports() {
    let pair = Pair::start();
    for transport in ["+notcp", "+tcp"] {
        let a = pair.dig(&[transport, "web.default.rollcall.internal.", "A"]);
        assert_eq!(a.answers("A"), ["127.0.0.1", "127.0.0.2"], "{}", a.text);
        assert!(a.answer.iter().all(|record| record.ttl <= 2), "{}", a.text);
        assert!(a.flags.contains(&"aa".to_owned()), "{}", a.text);

        let srv = pair.dig(&[transport, "web.default.rollcall.internal.", "SRV"]);
        let wanted = [
            format!("10 10 {} one.web.default.rollcall.internal.", pair.first.port()),
            format!("10 30 {} two.web.default.rollcall.internal.", pair.second.port()),
        ];
        assert_eq!(srv.answers("SRV"), wanted, "{}", srv.text);
        assert_additional(&srv, "one.web.default.rollcall.internal.", "127.0.0.1");
        assert_additional(&srv, "two.web.default.rollcall.internal.", "127.0.0.2");

        // Two tiers: SRV has both, and an address is the first one's.
        let srv = pair.dig(&[transport, "store.default.rollcall.internal.", "SRV"]);
        let wanted = [
            format!("0 1 {} one.store.default.rollcall.internal.", pair.first.port()),
            format!("5 1 {} two.store.default.rollcall.internal.", pair.second.port()),
        ];
        assert_eq!(srv.answers("SRV"), wanted, "{}", srv.text);
        let a = pair.dig(&[transport, "store.default.rollcall.internal.", "A"]);
        assert_eq!(a.answers("A"), ["127.0.0.1"], "{}", a.text);
    }
    let target = pair.dig(&["one.web.default.rollcall.internal.", "A"]);
    assert_eq!(target.answers("A"), ["127.0.0.1"], "{}", target.text);
    let by_port = pair.dig(&["_default._tcp.web.default.rollcall.internal.", "SRV"]);
    assert_eq!(by_port.answers("SRV").len(), 2, "{}", by_port.text);

    let web = pair.service("web");
    assert_eq!(web["stale"], false, "{web}");
    let first = &web["instances"][0];
    assert_eq!((&first["id"], &first["status"]), (&"one".into(), &"up".into()), "{web}");
    assert_eq!((&first["priority"], &first["weight"]), (&10.into(), &10.into()), "{web}");
    assert_eq!(first["ports"][0]["port"], pair.first.port(), "{web}");
    assert_eq!(first["addresses"][0], "127.0.0.1", "{web}");
    let missing = http::get(pair.dev.http.number(), "/api/v1/services/default/none").expect("HTTP answers");
    assert_eq!(missing.status, 404, "{}", missing.body);
    assert!(!missing.json()["hint"].as_str().unwrap_or_default().is_empty(), "{}", missing.body);
}

#[test]
fn a_server_that_dies_leaves_every_answer_and_comes_back() {
    let mut pair = Pair::start();
    let http_port = pair.dev.http.number();

    let (mut out, mut back) = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        let killed = clock::now();
        pair.first.kill();
        let limit = INTERVAL * FALL + BUSY;
        wait_until("the dead server is out of DNS", limit, || {
            pair.dig(&["web.default.rollcall.internal.", "A"]).answers("A") == ["127.0.0.2"]
        });
        wait_until("the dead server is out of HTTP", limit, || pair.status("one") == "failing");
        out.push(clock::now() - killed);
        let srv = pair.dig(&["web.default.rollcall.internal.", "SRV"]);
        assert_eq!(srv.answers("SRV").len(), 1, "{}", srv.text);
        // The tier below takes over, and nobody is left out of it.
        wait_until("the standby takes over", BUSY, || {
            pair.dig(&["store.default.rollcall.internal.", "A"]).answers("A") == ["127.0.0.2"]
        });

        // This returns when the server accepts connections.
        pair.first.restart();
        let restarted = clock::now();
        let limit = INTERVAL * RISE + BUSY;
        wait_until("the server is back in DNS", limit, || {
            pair.dig(&["web.default.rollcall.internal.", "A"]).answers("A").len() == 2
        });
        wait_until("the server is back in HTTP", limit, || pair.status("one") == "up");
        back.push(clock::now() - restarted);
        // It is held off below the standby, which keeps the tier until somebody says otherwise: so the next round has one to lose it.
        assert_eq!(pair.dig(&["store.default.rollcall.internal.", "A"]).answers("A"), ["127.0.0.2"]);
        wait_until("the primary takes its tier again", BUSY, || {
            let mut command = rollcall();
            let told = command.args(["failback", "store", "--http-addr", &pair.dev.http.address()]).output();
            assert!(told.as_ref().is_ok_and(|told| told.status.success()), "{told:?}");
            pair.dig(&["store.default.rollcall.internal.", "A"]).answers("A") == ["127.0.0.1"]
        });
    }
    for (what, mut took, promised) in
        [("out", out, INTERVAL * FALL + SLACK), ("back", back, INTERVAL * RISE + SLACK)]
    {
        took.sort_unstable();
        eprintln!("{what} after {:?} (median of {took:?}), promised {promised:?}", took[ROUNDS / 2]);
        assert!(took[0] > INTERVAL / 2, "{what} by a single check: {took:?}");
    }

    // When all are dead the name is still known: an empty answer, not "no such name".
    pair.first.kill();
    pair.second.kill();
    wait_until("both are out", BUSY, || {
        let a = pair.dig(&["web.default.rollcall.internal.", "A"]);
        assert_eq!(a.status, "NOERROR", "{}", a.text);
        a.answer.is_empty()
    });
    let metrics = http::get(http_port, "/metrics").expect("HTTP answers");
    assert!(metrics.body.contains("rollcall_"), "{}", metrics.body);
}

#[test]
fn an_answer_that_does_not_fit_is_cut_between_records_and_whole_over_tcp() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("dev.yaml");
    let mut text = "services:\n".to_owned();
    for number in 1..=MANY {
        text +=
            &format!("  - {{name: many, id: i{number}, address: 127.0.1.{number}, port: 80, checks: []}}\n");
    }
    std::fs::write(&file, text).expect("a file can be written");
    let dev = Dev::start(None, &["-c", &file.to_string_lossy()]);
    let ask = |arguments: &[&str]| {
        dig(dev.dns.number(), &[arguments, &["many.default.rollcall.internal."]].concat())
    };
    wait_until("all are registered", Duration::from_secs(30), || {
        ask(&["+tcp", "A"]).answers("A").len() == usize::from(MANY)
    });

    for kind in ["A", "SRV"] {
        let cut = ask(&["+notcp", "+noedns", "+ignore", kind]);
        assert!(cut.flags.contains(&"tc".to_owned()), "{}", cut.text);
        let count = cut.answer.len();
        assert!(0 < count && count < usize::from(MANY), "{count} answers in {}", cut.text);
        let whole = ask(&["+tcp", kind]);
        assert!(!whole.flags.contains(&"tc".to_owned()), "{}", whole.text);
        assert_eq!(whole.answers(kind).len(), usize::from(MANY), "{}", whole.text);
        // Without `+ignore`, dig asks again over TCP by itself, as resolvers do.
        assert_eq!(ask(&["+notcp", "+noedns", kind]).answers(kind).len(), usize::from(MANY));
    }
}

/// Two servers, and a `rollcall dev` that has them registered and found both up.
struct Pair {
    first: WebServer,
    second: WebServer,
    dev: Dev,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn start() -> Self {
        let (first, second) = (WebServer::start_on("127.0.0.1"), WebServer::start_on("127.0.0.2"));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("dev.yaml");
        write_settings(&file, &first, &second);
        let dev = Dev::start(None, &["-c", &file.to_string_lossy()]);
        let pair = Self { first, second, dev, _folder: folder };
        wait_until("both are up", Duration::from_secs(20), || {
            ["web", "store"].iter().all(|service| {
                let name = format!("{service}.default.rollcall.internal.");
                pair.dig(&[&name, "SRV"]).answer.len() == 2
            })
        });
        pair
    }

    fn dig(&self, arguments: &[&str]) -> Dig {
        dig(self.dev.dns.number(), arguments)
    }

    fn service(&self, name: &str) -> serde_json::Value {
        let path = format!("/api/v1/services/default/{name}");
        http::get(self.dev.http.number(), &path).expect("HTTP answers").json()
    }

    /// The status of one instance of `web`.
    fn status(&self, id: &str) -> String {
        let web = self.service("web");
        let instances = web["instances"].as_array().expect("there are instances");
        let found = instances.iter().find(|instance| instance["id"] == id);
        found.and_then(|instance| instance["status"].as_str()).unwrap_or("gone").to_owned()
    }
}

fn write_settings(file: &Path, first: &WebServer, second: &WebServer) {
    let check = format!(
        "[{{kind: http, path: /health, interval: {0}ms, timeout: {0}ms, rise: {RISE}, fall: {FALL}}}]",
        INTERVAL.as_millis()
    );
    let mut text = "services:\n".to_owned();
    for (name, tiers, weights) in [("web", [10, 10], [10, 30]), ("store", [0, 5], [1, 1])] {
        for (index, (id, server)) in [("one", first), ("two", second)].into_iter().enumerate() {
            text += &format!(
                "  - {{name: {name}, id: {id}, address: {}, port: {}, priority: {}, weight: {}, checks: {check}}}\n",
                server.host(),
                server.port(),
                tiers[index],
                weights[index],
            );
        }
    }
    std::fs::write(file, text).expect("a file can be written");
}

fn assert_additional(dig: &Dig, name: &str, address: &str) {
    let found = dig.additional.iter().any(|r| r.name == name && r.kind == "A" && r.data == address);
    assert!(found, "no additional address {address} of {name} in {}", dig.text);
}
