//! What an operator tells a sidecar, and what becomes of it at another: a real member and sidecars, over their HTTP and DNS.

#[path = "common/app.rs"]
mod app;
#[path = "processes/support/dns.rs"]
#[expect(dead_code, reason = "this test asks one question over UDP")]
mod dns;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use rollcall::client::{Client, ClientSettings};
use rollcall::clock;
use rollcall::ensemble::{
    HostPort, Member, MemberAddress, MemberRole, MemberSettings, Members, PeerListeners, PeersSettings,
};
use rollcall::id::{ServerId, Zxid};
use rollcall::sidecar::{Listeners, Sidecar, SidecarError, SidecarSettings};
use rollcall::telemetry::Metrics;
use rollcall::zab::ServerState;
use rollcall::znode::{BarrierPath, ZnodePath};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_was_waited_for_shows_in_all_answers_and_is_undone() {
    let world = World::start().await;
    let (web_a, web_b, api) = (app::start().await, app::start().await, app::start().await);
    let a = world.sidecar(&format!("[{}, {}]", service("web", "a", &web_a), service("api", "a", &api)), None);
    let b = world.sidecar(&format!("[{}]", service("web", "b", &web_b)), None);
    b.shows("web", json!({"a": "up", "b": "up"})).await;
    b.shows("api", json!({"a": "up"})).await;
    assert_eq!(b.srv_answers("web.default").await, 2);

    let (status, drained) = a.ask("POST", "/api/v1/drain/default/web?wait=30s").await;
    // At once, since that is what the wait is for.
    assert_eq!(b.statuses("web").await, json!({"a": "draining", "b": "up"}));
    assert_eq!(b.srv_answers("web.default").await, 1);
    assert_eq!(
        (status, &drained["confirmed"], &drained["evidence"]),
        (200, &json!(true), &json!("subscribers")),
        "{drained}"
    );
    assert_eq!(
        (&drained["subscribers"], &drained["behind_count"], &drained["other_watchers"]),
        (&json!(2), &json!(0), &json!(0)),
        "{drained}"
    );
    assert_eq!(
        drained["instances"],
        json!([{"service": "web.default", "id": "a", "status": "draining", "reason": null}])
    );
    assert_eq!(b.statuses("api").await, json!({"a": "up"}), "the other service goes on");
    let own = a.own("web").await;
    assert_eq!(
        (&own["status"], &own["draining"], &own["health"]),
        (&json!("draining"), &json!(true), &json!("passing"))
    );

    let (status, undone) = a.ask("DELETE", "/api/v1/drain").await;
    assert_eq!((status, &undone["instances"][0]["status"]), (200, &json!("up")), "{undone}");
    b.shows("web", json!({"a": "up", "b": "up"})).await;

    // Without a wait, all of them; then it is stopped, and leaves in order.
    let (status, drained) = a.ask("POST", "/api/v1/drain").await;
    assert_eq!(
        (status, &drained["evidence"], drained["instances"].as_array().unwrap().len()),
        (200, &json!("none"), 2)
    );
    b.shows("web", json!({"a": "draining", "b": "up"})).await;
    b.shows("api", json!({"a": "draining"})).await;
    a.stop().await.unwrap();
    b.shows("web", json!({"b": "up"})).await;
    b.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_outlives_a_restart_and_holds_nobody_off() {
    let world = World::start().await;
    let (web_a, web_s) = (app::start().await, app::start().await);
    let (services, state_dir) = (format!("[{}]", service("web", "a", &web_a)), tempfile::tempdir().unwrap());
    let a = world.sidecar(&services, Some(state_dir.path()));
    let standby = service("web", "s", &web_s).replace("{name", "{priority: 10, name");
    let s = world.sidecar(&format!("[{standby}]"), None);
    s.shows("web", json!({"a": "up", "s": "up"})).await;

    let (status, changed) = a.ask("PUT", "/api/v1/maintenance/default/web?reason=new+disk").await;
    assert_eq!((status, &changed["survives_restart"], &changed["reason"]), (200, &json!(true), &Value::Null));
    assert_eq!(changed["instances"][0]["status"], "maintenance");
    s.shows("web", json!({"a": "maintenance", "s": "up"})).await;
    let before = a.own("web").await["maintenance"].clone();
    assert_eq!(before["reason"], "new disk");
    a.ask("PUT", "/api/v1/maintenance").await;
    assert_eq!(a.own("web").await["maintenance"], before, "who gives no reason keeps it");
    let (_, unkept) = s.ask("PUT", "/api/v1/maintenance").await;
    assert_eq!(
        (&unkept["survives_restart"], &unkept["reason"]),
        (&json!(false), &json!("the sidecar has no state_dir"))
    );
    s.ask("DELETE", "/api/v1/maintenance").await;

    // Draining goes before maintenance, and leaves it behind.
    a.ask("POST", "/api/v1/drain").await;
    s.shows("web", json!({"a": "draining", "s": "up"})).await;
    a.ask("DELETE", "/api/v1/drain").await;
    s.shows("web", json!({"a": "maintenance", "s": "up"})).await;

    a.stop().await.unwrap();
    s.shows("web", json!({"s": "up"})).await;
    let a = world.sidecar(&services, Some(state_dir.path()));
    soon("it is back, and was not offered before", async {
        loop {
            let statuses = s.statuses("web").await;
            assert_ne!(statuses["a"], "up");
            if statuses["a"] == "maintenance" {
                return;
            }
        }
    })
    .await;
    assert_eq!(a.own("web").await["maintenance"], before);

    // It goes on being checked; what fails meanwhile is the operator's doing.
    let address = web_a.local_addr().unwrap();
    drop(web_a);
    a.own_where("web", "its check fails", |own| own["health"] == "failing").await;
    let own = a.own("web").await;
    assert_eq!(own["status"], "maintenance");
    let check = &own["checks"][0];
    assert!(check["failures"].as_u64().unwrap() >= 3 && check["last_failure"]["at_ms"].is_i64(), "{check}");
    assert!(check["last_failure"]["text"].as_str().unwrap().starts_with("cannot connect to "), "{check}");
    let (_, ended) = a.ask("DELETE", "/api/v1/maintenance").await;
    assert_eq!(ended["instances"][0]["status"], "failing", "as its checks say");
    let _web_a = app::start_at(address).await;
    s.shows("web", json!({"a": "up", "s": "up"})).await;
    let own = a.own_where("web", "it is up", |own| own["status"] == "up").await;
    assert_eq!((&own["held"], &own["maintenance"]), (&json!(false), &Value::Null));
    let (_, web) = s.ask("GET", "/api/v1/services/default/web").await;
    assert_eq!(web["instances"][0]["selected"], true, "not held off below the standby: {web}");
    a.stop().await.unwrap();
    let again = world.sidecar(&services, Some(state_dir.path()));
    again.own_where("web", "nor is the end of it forgotten", |own| own["status"] == "up").await;
    for sidecar in [again, s] {
        sidecar.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_what_is_in_the_way() {
    let world = World::start().await;
    let app = app::start().await;
    let services = format!("[{}]", service("web", "a", &app));
    let first = world.sidecar(&services, None);
    first.own_where("web", "it is up", |own| own["status"] == "up").await;
    let status = first.status().await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["connection"]["state"], &status["view"]["stale"]),
        (&json!("connected"), &json!(false))
    );
    assert_eq!(status["connection"]["server"], world.address.to_string());

    let second = world.sidecar(&services, None);
    let own = second.own_where("web", "the conflict", |own| own["status"] == "conflict").await;
    let session = status["connection"]["session"].as_str().unwrap();
    assert_eq!(own["conflict"]["session"], session, "{own}");
    assert!(own["reason"].as_str().unwrap().contains(session), "{own}");
    let (status, drained) = second.ask("POST", "/api/v1/drain?wait=30s").await;
    assert_eq!(
        (status, &drained["confirmed"], &drained["evidence"]),
        (200, &json!(false), &json!("none")),
        "{drained}"
    );
    assert_eq!(drained["instances"][0]["status"], "conflict", "{drained}");
    assert_eq!(first.statuses("web").await, json!({"a": "up"}));

    // One without an ensemble, of which one instance could be registered and the other's check fails.
    let refused = listen().await.local_addr().unwrap();
    let failing = format!(
        "{{name: api, id: a, address: 127.0.0.1, port: {}, checks: [{{kind: http, interval: 100ms, \
         headers: {{Authorization: Bearer hush}}}}]}}",
        refused.port()
    );
    let alone = world.sidecar_at(refused, &format!("[{}, {failing}]", service("web", "b", &app)), None);
    let own = alone.own_where("web", "it is pending", |own| own["status"] == "pending").await;
    assert_eq!(own["reason"], "no connection to the ensemble");
    let own = alone.own_where("api", "it fails", |own| own["health"] == "failing").await;
    assert_eq!((&own["status"], &own["checks"][0]["kind"]), (&json!("absent"), &json!("http")));
    assert!(own["checks"][0]["last_failure"]["text"].is_string(), "{own}");
    let status = alone.status().await;
    assert!(!status.to_string().contains("hush"), "{status}");
    assert_eq!(
        (&status["connection"]["state"], &status["view"]["stale"]),
        (&json!("connecting"), &json!(true))
    );
    assert!(status["connection"]["last_failure"].as_str().unwrap().contains("refused"), "{status}");

    let (status, drained) = alone.ask("POST", "/api/v1/drain/default/web?wait=200ms").await;
    assert_eq!((status, &drained["instances"][0]["status"]), (503, &json!("pending")), "{drained}");
    assert_eq!(drained["instances"][0]["reason"], "no connection to the ensemble");
    assert!(drained["error"].is_string() && drained["hint"].is_string(), "{drained}");
    assert_eq!(alone.ask("POST", "/api/v1/drain/default/nobody").await.0, 404);
    for sidecar in [first, second] {
        sidecar.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_that_hangs_holds_up_no_answer() {
    let world = World::start().await;
    let app = app::start().await;
    let gate = Gate::start(world.address).await;
    let a = world.sidecar_at(gate.address, &format!("[{}]", service("web", "a", &app)), None);
    let b = world.sidecar("[]", None);
    b.shows("web", json!({"a": "up"})).await;
    gate.is_open.send_replace(false);
    // Has it write, and wait for the answer.
    a.ask("PUT", "/api/v1/maintenance").await;
    let asked = clock::now();
    let (status, drained) = a.ask("POST", "/api/v1/drain?wait=300ms").await;
    // A member that is silent is given up after seconds only.
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!((status, &drained["instances"][0]["status"]), (503, &json!("pending")), "{drained}");
    assert_eq!(a.own("web").await["draining"], true, "it was heard, though nothing can be written");
    assert_eq!(b.statuses("web").await, json!({"a": "up"}));
    gate.is_open.send_replace(true);
    b.shows("web", json!({"a": "draining"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_asks_the_subscribers_of_all_members_and_names_who_is_behind() {
    let mut world = Three::start().await;
    let servers: Vec<_> = world.client_addrs.to_vec();
    // The first sidecar may be anywhere.
    let leader = world.leader();
    let gate = Gate::start(servers[(leader + 1) % 3]).await;
    let app = app::start().await;
    let a = sidecar_of(&servers, &format!("[{}]", service("web", "a", &app)), None);
    let b = sidecar_of(&[gate.address], "[]", None);
    let c = sidecar_of(&servers[leader..=leader], "[]", None);
    for sidecar in [&a, &b, &c] {
        sidecar.shows("web", json!({"a": "up"})).await;
    }

    let (_, drained) = a.ask("POST", "/api/v1/drain?wait=30s").await;
    for sidecar in [&b, &c] {
        assert_eq!(sidecar.statuses("web").await, json!({"a": "draining"}));
    }
    assert_eq!((&drained["confirmed"], &drained["subscribers"]), (&json!(true), &json!(3)), "{drained}");
    a.ask("DELETE", "/api/v1/drain").await;
    b.shows("web", json!({"a": "up"})).await;

    // One hears nothing any more.
    gate.is_open.send_replace(false);
    let (status, drained) = a.ask("POST", "/api/v1/drain?wait=1s").await;
    assert_eq!(
        (status, &drained["confirmed"], &drained["evidence"], &drained["behind_count"]),
        (200, &json!(false), &json!("none"), &json!(1)),
        "{drained}"
    );
    assert_eq!(
        (&drained["subscribers"], drained["behind"].as_array().unwrap().len()),
        (&json!(3), 1),
        "{drained}"
    );
    assert_eq!(b.statuses("web").await, json!({"a": "up"}));
    gate.is_open.send_replace(true);
    let (_, drained) = a.ask("POST", "/api/v1/drain?wait=30s").await;
    assert_eq!(b.statuses("web").await, json!({"a": "draining"}));
    assert_eq!(drained["confirmed"], true, "{drained}");

    // The leader is away, the others have elected, and nobody knows who is at it; then it is back, and so is its sidecar.
    a.ask("DELETE", "/api/v1/drain").await;
    world.stop(leader).await;
    let (_, drained) = a.ask("POST", "/api/v1/drain?wait=30s").await;
    assert_eq!(
        (&drained["confirmed"], &drained["evidence"], &drained["members_not_asked"]),
        (&json!(false), &json!("quiet-time"), &json!([leader + 1])),
        "{drained}"
    );
    world.run(leader).await;
    let (_, drained) = a.ask("POST", "/api/v1/drain?wait=60s").await;
    assert_eq!(c.statuses("web").await, json!({"a": "draining"}));
    assert_eq!((&drained["confirmed"], &drained["subscribers"]), (&json!(true), &json!(3)), "{drained}");
    for sidecar in [a, b, c] {
        sidecar.stop().await.unwrap();
    }
}

const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

struct World {
    _member: Member,
    address: SocketAddr,
    _data_dir: TempDir,
}

impl World {
    async fn start() -> Self {
        let data_dir = tempfile::tempdir().expect("a folder for the data");
        let settings = MemberSettings { data_dir: data_dir.path().to_owned(), ..MemberSettings::default() };
        let member = Member::start(settings, listen().await, None).await.expect("the member starts");
        Self { address: member.client_addr(), _member: member, _data_dir: data_dir }
    }

    /// How many the member knows to follow a service, of those that can be asked.
    async fn subscribers_of(&self, service: &str) -> u64 {
        let path = ZnodePath::parse(&format!("/rollcall/services/default/{service}")).expect("a path");
        let barrier = BarrierPath::Barrier(Zxid::ZERO, path).to_string();
        let client = Client::start(ClientSettings::for_servers([self.address.to_string()]));
        let (told, _) = client.get(barrier).await.expect("the member answers");
        client.close().await.expect("the member answers");
        let told: Value = serde_json::from_slice(&told.expect("JSON")).expect("JSON");
        told["subscribers"].as_u64().expect("a number")
    }

    fn sidecar(&self, services: &str, state_dir: Option<&Path>) -> Running {
        self.sidecar_at(self.address, services, state_dir)
    }

    fn sidecar_at(&self, server: SocketAddr, services: &str, state_dir: Option<&Path>) -> Running {
        sidecar_of(&[server], services, state_dir)
    }
}

fn sidecar_of(servers: &[SocketAddr], services: &str, state_dir: Option<&Path>) -> Running {
    let servers: Vec<_> = servers.iter().map(|server| format!("'{server}'")).collect();
    let mut settings: SidecarSettings = serde_yaml::from_str(&format!(
        "{{ensemble: {{servers: [{}]}}, dns: {{address: '127.0.0.1:0'}}, \
         http: {{address: '127.0.0.1:0'}}, services: {services}}}",
        servers.join(", ")
    ))
    .expect("settings");
    settings.state_dir = state_dir.map(Path::to_owned);
    let plan = settings.plan().expect("nothing is wrong with them");
    let listeners = Listeners::bind(&plan).expect("ports of loopback");
    let sidecar = Sidecar::start(plan, None, listeners, Arc::new(Metrics::new())).expect("it starts");
    let (dns, http, stop) = (sidecar.dns_addr(), sidecar.http_addr(), CancellationToken::new());
    Running { dns, http, task: tokio::spawn(sidecar.run(stop.clone())), stop }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_else_changes_a_confirmed_drain_shows_everywhere_at_once() {
    const ROUNDS: usize = 25;
    let world = Three::start().await;
    let servers: Vec<_> = world.client_addrs.to_vec();
    let app = app::start().await;
    let a = sidecar_of(&servers, &format!("[{}]", service("web", "a", &app)), None);
    let busy: Vec<_> = (0..20).map(|number| service("busy", &format!("b-{number}"), &app)).collect();
    let noise = sidecar_of(&servers, &format!("[{}]", busy.join(", ")), None);
    let readers: Vec<_> = servers.iter().map(|server| sidecar_of(&[*server], "[]", None)).collect();
    for reader in &readers {
        reader.shows("web", json!({"a": "up"})).await;
    }
    let over = CancellationToken::new();
    let change = async {
        while !over.is_cancelled() {
            noise.ask("PUT", "/api/v1/maintenance").await;
            noise.ask("DELETE", "/api/v1/maintenance").await;
        }
    };
    let drain = async {
        let mut slowest = 0;
        for round in 0..ROUNDS {
            let (_, drained) = a.ask("POST", "/api/v1/drain?wait=30s").await;
            for reader in &readers {
                assert_eq!(
                    reader.statuses("web").await,
                    json!({"a": "draining"}),
                    "round {round}: {drained}"
                );
            }
            assert_eq!(
                (&drained["confirmed"], &drained["subscribers"]),
                (&json!(true), &json!(5)),
                "{drained}"
            );
            slowest = slowest.max(drained["waited_ms"].as_u64().unwrap());
            a.ask("DELETE", "/api/v1/drain").await;
        }
        over.cancel();
        println!("the slowest of {ROUNDS} drains was confirmed after {slowest} ms");
    };
    tokio::join!(change, drain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_was_asked_while_a_read_is_under_way_answers_after_it() {
    const HOLD: Duration = Duration::from_millis(300);
    let world = World::start().await;
    let app = app::start().await;
    let a = world.sidecar(&format!("[{}]", long_service("web", "a", &app)), None);
    a.own_where("web", "it is up", |own| own["status"] == "up").await;
    let b = world.sidecar_at(question_before_read(world.address, HOLD).await, "[]", None);
    b.shows("web", json!({"a": "up"})).await;
    let (_, drained) = a.ask("POST", "/api/v1/drain?wait=30s").await;
    assert_eq!(b.statuses("web").await, json!({"a": "draining"}));
    assert_eq!((&drained["confirmed"], &drained["subscribers"]), (&json!(true), &json!(2)), "{drained}");
    assert!(u128::from(drained["waited_ms"].as_u64().unwrap()) >= HOLD.as_millis(), "{drained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_follows_several_parts_answers_once_all_of_them_have_been_read() {
    const HOLD: Duration = Duration::from_millis(300);
    let world = World::start().await;
    let app = app::start().await;
    let a = world.sidecar(&format!("[{}]", long_service("web", "a", &app)), None);
    a.own_where("web", "it is up", |own| own["status"] == "up").await;
    // Two namespaces, of which one is empty and read at once, and what others write.
    let follows = "[], subscribe: {mode: namespaces, namespaces: [other]}, adopt: [{format: curator}]";
    let b = world.sidecar_at(question_before_read(world.address, HOLD).await, follows, None);
    b.shows("web", json!({"a": "up"})).await;
    soon("both subscribe", async {
        while world.subscribers_of("web").await != 2 {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    let (_, drained) = a.ask("POST", "/api/v1/drain?wait=30s").await;
    assert_eq!(b.statuses("web").await, json!({"a": "draining"}));
    assert_eq!(
        (&drained["confirmed"], &drained["subscribers"], &drained["other_watchers"]),
        (&json!(true), &json!(2), &json!(0)),
        "{drained}"
    );
    assert!(u128::from(drained["waited_ms"].as_u64().unwrap()) >= HOLD.as_millis(), "{drained}");
}

/// An ensemble of three.
struct Three {
    members: Members,
    client_addrs: [SocketAddr; 3],
    data_dirs: [TempDir; 3],
    running: [Option<Member>; 3],
}

impl Three {
    /// On an address of loopback that no other process uses, so that members get their ports back.
    async fn start() -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, 41, high, low);
        let mut listeners = Vec::new();
        for _ in 0..9 {
            listeners.push(TcpListener::bind((host, 0)).await.expect("a free port"));
        }
        let addrs: Vec<_> = listeners.iter().map(|one| one.local_addr().expect("it is bound")).collect();
        let at = |addr: SocketAddr| HostPort { host: addr.ip().to_string(), port: addr.port() };
        let member = |index: usize| {
            let (quorum, election) = (at(addrs[index]), at(addrs[3 + index]));
            (Self::id(index), MemberAddress { quorum, election, client: None, role: MemberRole::Voter })
        };
        let members = Members::new([0, 1, 2].map(member).into()).expect("members of an ensemble");
        let client_addrs = [addrs[6], addrs[7], addrs[8]];
        let data_dirs = [0, 1, 2].map(|_| tempfile::tempdir().expect("a folder for the data"));
        drop(listeners);
        let mut three = Self { members, client_addrs, data_dirs, running: [const { None }; 3] };
        for index in [0, 1, 2] {
            three.begin(index).await;
        }
        for index in [0, 1, 2] {
            three.serves(index).await;
        }
        three
    }

    fn id(index: usize) -> ServerId {
        u8::try_from(index + 1).ok().and_then(ServerId::new).expect("a member's number")
    }

    async fn begin(&mut self, index: usize) {
        let peers = PeersSettings::of(self.members.clone());
        let settings = MemberSettings {
            server_id: Self::id(index),
            data_dir: self.data_dirs[index].path().to_owned(),
            tick: Duration::from_millis(500),
            peers: Some(peers.clone()),
            ..MemberSettings::default()
        };
        let listeners = PeerListeners::bind(Self::id(index), &peers).await.expect("its own ports");
        let clients = TcpListener::bind(self.client_addrs[index]).await.expect("its own port");
        let member = Member::start(settings, clients, Some(listeners)).await.expect("it starts");
        self.running[index] = Some(member);
    }

    async fn serves(&self, index: usize) {
        let mut serving = self.running[index].as_ref().expect("it runs").serving();
        soon("the member serves", serving.wait_for(|is_serving| *is_serving)).await.expect("it runs");
    }

    fn leader(&self) -> usize {
        let leads = |member: &Option<Member>| {
            member.as_ref().is_some_and(|member| member.stats().state() == ServerState::Leading)
        };
        self.running.iter().position(leads).expect("one leads")
    }

    async fn run(&mut self, index: usize) {
        self.begin(index).await;
        self.serves(index).await;
    }

    async fn stop(&mut self, index: usize) {
        let member = self.running[index].take().expect("it runs");
        soon("the member stops", member.shutdown()).await.expect("in health");
    }
}

struct Running {
    dns: SocketAddr,
    http: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), SidecarError>>,
}

impl Running {
    async fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let exchange = async {
            let mut socket = TcpStream::connect(self.http).await.expect("it listens");
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.expect("it reads");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.expect("it answers");
            answer
        };
        let answer = soon(path, exchange).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    /// The status of each instance of a service, as this sidecar sees them.
    async fn statuses(&self, service: &str) -> Value {
        let (_, body) = self.ask("GET", &format!("/api/v1/services/default/{service}")).await;
        let none = Vec::new();
        let instances = body["instances"].as_array().unwrap_or(&none);
        instances
            .iter()
            .map(|one| (one["id"].as_str().expect("an id").to_owned(), one["status"].clone()))
            .collect()
    }

    async fn shows(&self, service: &str, wanted: Value) {
        soon(&format!("{service} is {wanted}"), async {
            while self.statuses(service).await != wanted {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
    }

    async fn status(&self) -> Value {
        let (status, body) = self.ask("GET", "/api/v1/status").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Its own instance of a service.
    async fn own(&self, service: &str) -> Value {
        let status = self.status().await;
        let name = format!("{service}.default");
        let all = status["instances"].as_array().expect("a list");
        all.iter().find(|own| own["service"] == name).unwrap_or_else(|| panic!("{name} in {status}")).clone()
    }

    async fn own_where(&self, service: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        soon(what, async {
            loop {
                let own = self.own(service).await;
                if is_so(&own) {
                    return own;
                }
                tokio::time::sleep(POLL).await;
            }
        })
        .await
    }

    /// How many instances its DNS offers.
    async fn srv_answers(&self, name: &str) -> u16 {
        const SRV: u16 = 33;
        let (port, question) =
            (self.dns.port(), dns::question(7, &format!("{name}.rollcall.internal"), SRV, 1));
        let asking = tokio::task::spawn_blocking(move || dns::ask_udp(port, &question, DEADLINE));
        let answer = asking.await.expect("it ends").expect("an answer");
        dns::Header::parse(&answer).expect("a header").answers
    }

    async fn stop(self) -> Result<(), SidecarError> {
        self.stop.cancel();
        soon("it stops", self.task).await.expect("it ends well")
    }
}

/// A way to a server that can be closed, so that bytes get stuck and nobody is told.
struct Gate {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
}

impl Gate {
    async fn start(server: SocketAddr) -> Self {
        let listener = listen().await;
        let address = listener.local_addr().expect("it is bound");
        let is_open = watch::Sender::new(true);
        let gate = is_open.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(server).await else { continue };
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(from_near, to_far, gate.clone()));
                tokio::spawn(pass(from_far, to_near, gate.clone()));
            }
        });
        Self { address, is_open }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if gate.wait_for(|is_open| *is_open).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A way to a server on which the event of a change of `web` and the question whether it was applied come together, and what comes
/// behind them, answers to reads, so much later.
async fn question_before_read(server: SocketAddr, hold: Duration) -> SocketAddr {
    let listener = listen().await;
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(server).await else { continue };
            let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { drop(tokio::io::copy(&mut from_near, &mut to_far).await) });
            tokio::spawn(async move {
                let (mut held, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
                while let Ok(count @ 1..) = from_far.read(&mut buffer).await {
                    held.extend_from_slice(&buffer[..count]);
                    let text = String::from_utf8_lossy(&held);
                    let is_asked = text.contains("/zookeeper/rollcall/subscribers/");
                    if text.contains("/rollcall/services/default/web") && !is_asked {
                        continue;
                    }
                    if to_near.write_all(&held).await.is_err() {
                        return;
                    }
                    held.clear();
                    if is_asked {
                        tokio::time::sleep(hold).await;
                    }
                }
            });
        }
    });
    address
}

fn service(name: &str, id: &str, app: &TcpListener) -> String {
    let port = app.local_addr().expect("it is bound").port();
    let checks = "[{kind: tcp, interval: 100ms}]";
    format!("{{name: {name}, id: {id}, address: 127.0.0.1, port: {port}, checks: {checks}}}")
}

/// One whose record is so long that it does not come along with its event, but is read.
fn long_service(name: &str, id: &str, app: &TcpListener) -> String {
    let meta = format!("{{padding: {}}}", "x".repeat(5_000));
    format!("{}, meta: {meta}}}", service(name, id, app).trim_end_matches('}'))
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback")
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not before the deadline: {what}"))
}
