//! Registrar, checks and mirror together, against Apache ZooKeeper 3.8.0: a server that is not ours.

#[path = "registry/adopted.rs"]
mod adopted;
#[path = "common/apache.rs"]
mod apache;
#[path = "common/app.rs"]
mod app;
#[path = "registry/formats.rs"]
mod formats;
#[path = "registry/on_demand.rs"]
mod on_demand;
#[path = "registry/overflowed.rs"]
mod overflowed;
#[path = "registry/replaced.rs"]
mod replaced;
#[path = "registry/returned.rs"]
mod returned;
#[path = "registry/together.rs"]
mod together;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use apache::ApacheServer;
use rollcall::client::{Client, ClientError, ClientSettings, CreateRequest, MultiOp};
use rollcall::clock::{self, Moment};
use rollcall::registry::mirror::MirrorStats;
use rollcall::registry::registrar::{OwnInstance, RegistrationState};
use rollcall::registry::select::select;
use rollcall::registry::{
    BrakePlan, Cache, ChangeError, FailbackMode, HELD_PRIORITY, Instance, Label, Layout, Mirror, OwnService,
    Registrar, RegistrarSettings, Registration, SavedView, ServiceDefaults, ServiceKey, Source, Status,
    ViewKeeper, resolve_services,
};
use rollcall::znode::{CreateMode, OpError};

const WEB: &str = "/rollcall/services/default/web";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_see_each_others_instances_fail_recover_and_leave() {
    let world = World::start();
    let (app_a, app_b) = (app::start().await, app::start().await);
    let a = world.sidecar("a", vec![web("a", address_of(&app_a))]);
    let b = world.sidecar("b", vec![web("b", address_of(&app_b))]);
    for sidecar in [&a, &b] {
        sidecar.shows("both are up", |web| statuses(web) == [("a", Status::Up), ("b", Status::Up)]).await;
        assert!(!sidecar.cache.is_stale());
        assert!(sidecar.cache.age(clock::now()).is_some());
    }

    let address = address_of(&app_a);
    drop(app_a);
    b.shows("a fails", |web| statuses(web) == [("a", Status::Failing), ("b", Status::Up)]).await;
    let app_a = app::start_at(address).await;
    b.shows("a is back", |web| statuses(web) == [("a", Status::Up), ("b", Status::Up)]).await;
    drop(app_a);

    let drained = tokio::spawn({
        let registrar = a.registrar.clone();
        async move { registrar.drain(DEADLINE).await }
    });
    b.shows("a drains first", |web| statuses(web) == [("a", Status::Draining), ("b", Status::Up)]).await;
    let draining_since = clock::now();
    b.shows("a is gone then", |web| statuses(web) == [("b", Status::Up)]).await;
    // A tenth less than a second: the reader may have heard of it late.
    assert!(draining_since.elapsed() > Duration::from_millis(900), "{:?}", draining_since.elapsed());
    drained.await.unwrap().unwrap();
    assert_eq!(a.own().registration, RegistrationState::Absent);
    a.client.close().await.unwrap();
    assert_eq!(a.registrar.stats().repairs(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_check_that_is_not_critical_lowers_the_weight_and_nothing_else() {
    let world = World::start();
    let (app, extra) = (app::start().await, app::start().await);
    let (app_port, extra_port) = (address_of(&app).port(), address_of(&extra).port());
    let text = format!(
        "{{name: web, id: a, address: 127.0.0.1, port: {app_port}, weight: 100, degraded_weight: 7, checks: [
            {{kind: tcp, interval: 100ms}},
            {{kind: tcp, interval: 100ms, port: {extra_port}, critical: false}}]}}"
    );
    let a = world.sidecar("a", vec![registration(&text)]);
    let stands = |status, weight| {
        move |web: &[Arc<Instance>]| {
            web.iter().map(|web| (web.record.status, web.record.weight)).eq([(status, weight)])
        }
    };
    a.shows("it is up", stands(Status::Up, 100)).await;
    let extra_address = address_of(&extra);
    drop(extra);
    a.shows("it is up with less", stands(Status::Up, 7)).await;
    assert!(a.own().is_degraded);
    let _extra = app::start_at(extra_address).await;
    a.shows("it is up as before", stands(Status::Up, 100)).await;
    drop(app);
    a.shows("it fails", stands(Status::Failing, 100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_checks_report_lowers_the_weight_in_others_views() {
    let world = World::start();
    let says = Arc::new(std::sync::Mutex::new("40%\n"));
    let agent = listen().await;
    let port = address_of(&agent).port();
    let answers = says.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = agent.accept().await {
            let said = *answers.lock().expect("nobody panics with it");
            let _cut_off = tokio::io::AsyncWriteExt::write_all(&mut stream, said.as_bytes()).await;
        }
    });
    let text = format!(
        "{{name: web, id: a, address: 127.0.0.1, port: {port}, weight: 200, load_weight_min: 30,
           checks: [{{kind: agent, interval: 100ms}}]}}"
    );
    let _a = world.sidecar("a", vec![registration(&text)]);
    let reader = world.sidecar("reader", vec![]);
    let weighs = |is_so: fn(u16) -> bool| {
        move |web: &[Arc<Instance>]| web.iter().any(|web| web.record.is_up() && is_so(web.record.weight))
    };
    reader.shows("it begins as busy as it says", weighs(|weight| weight == 80)).await;
    *says.lock().expect("nobody panics with it") = "0%\n";
    reader.shows("it follows, not all at once", weighs(|weight| weight < 80 && weight > 30)).await;
    *says.lock().expect("nobody panics with it") = "100%\n";
    reader.shows("and back", weighs(|weight| weight > 80)).await;
    *says.lock().expect("nobody panics with it") = "drain\n";
    reader.shows("it fails", |web| statuses(web) == [("a", Status::Failing)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_leaves_no_gap_in_the_view() {
    let mut world = World::start();
    let app = app::start().await;
    let a = world.sidecar("a", vec![web("a", address_of(&app))]);
    let b = world.sidecar("b", vec![web("b", address_of(&app))]);
    a.shows("both are up", |web| ups(web) == ["a", "b"]).await;
    b.shows("both are up", |web| ups(web) == ["a", "b"]).await;
    let samplers = [Sampler::start(&a, &["a", "b"]), Sampler::start(&b, &["a", "b"])];

    world.server.kill();
    soon("both notice", async {
        while !(a.cache.is_stale() && b.cache.is_stale()) {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    world.server.restart();
    soon("both follow again", async {
        while a.cache.is_stale() || b.cache.is_stale() || a.mirror.walks() < 2 || b.mirror.walks() < 2 {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    a.is_registered_as(Status::Up).await;
    b.is_registered_as(Status::Up).await;
    for sampler in samplers {
        assert!(sampler.stop().await > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_followed_by_a_registration_of_the_new_one() {
    let world = World::start();
    let app = app::start().await;
    let wire = Wire::start(world.server.address()).await;
    let a = world.sidecar_at(wire.address, SHORT_SESSION, "a", vec![web("a", address_of(&app))]);
    let b = world.sidecar("b", vec![]);
    b.shows("a is up", |web| ups(web) == ["a"]).await;
    a.shows("so it is to itself", |web| ups(web) == ["a"]).await;
    a.is_registered_as(Status::Up).await;
    let session = b.instances()[0].session;

    wire.is_cut.send_replace(true);
    b.shows("a is gone with its session", |web| web.is_empty()).await;
    assert_eq!(ups(&a.instances()), ["a"], "whoever is cut off goes on with what it knew");
    assert!(a.cache.is_stale());
    wire.is_cut.send_replace(false);
    b.shows("a is back", |web| ups(web) == ["a"]).await;
    assert_ne!(b.instances()[0].session, session);
    a.is_registered_as(Status::Up).await;
    assert_eq!(a.registrar.stats().repairs(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_process_left_is_replaced_without_a_gap() {
    let world = World::start();
    let app = app::start().await;
    let reader = world.sidecar("reader", vec![]);
    let killed =
        world.sidecar_at(world.server.address(), SHORT_SESSION, "a", vec![web("a", address_of(&app))]);
    reader.shows("a is up", |web| ups(web) == ["a"]).await;
    let before = reader.instances()[0].clone();
    let sampler = Sampler::start(&reader, &["a"]);
    // Dropped, not closed: its session lives on, as after kill -9.
    drop(killed);

    let next = world.sidecar("a", vec![web("a", address_of(&app))]);
    next.is_registered_as(Status::Up).await;
    let is_another = |web: &[Arc<Instance>]| web.iter().any(|a| a.session != before.session);
    reader.shows("the record is of the new session", is_another).await;
    let after = reader.instances()[0].clone();
    assert_eq!(after.record.owner, before.record.owner);
    assert_eq!(
        after.record.registered_at_ms, before.record.registered_at_ms,
        "the first registration counts"
    );
    assert_ne!(after.record.incarnation, before.record.incarnation);
    soon("the old session ends", async {
        while world.server.four_letter_word("dump").contains(&before.session.to_string()) {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    assert!(sampler.stop().await > 0);
    assert_eq!(ups(&reader.instances()), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_somebody_else_has_is_reported_and_taken_when_he_has_gone() {
    let world = World::start();
    let app = app::start().await;
    let first = world.sidecar("first", vec![web("a", address_of(&app))]);
    first.is_registered_as(Status::Up).await;
    let second = world.sidecar("second", vec![web("a", address_of(&app))]);
    let state = second.own_where("a conflict", |own| matches!(own, RegistrationState::Conflict { .. })).await;
    let RegistrationState::Conflict { owner, .. } = state else { panic!("{state:?}") };
    assert_eq!(owner, "first");
    assert_eq!(first.instances()[0].record.owner, "first", "it was not touched");
    assert_eq!(second.registrar.stats().writes(), 0);

    first.client.close().await.unwrap();
    second.is_registered_as(Status::Up).await;
    second.shows("it is the second's", |web| web.iter().any(|a| a.record.owner == "second")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_to_a_registration_is_repaired_and_what_is_no_record_is_skipped() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    let reader = world.sidecar("reader", vec![]);
    soon("a root that is missing is an empty registry", async {
        while !reader.cache.load().is_loaded || reader.cache.is_stale() {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    let a = world.sidecar("a", vec![web("a", address_of(&app))]);
    reader.shows("a is up", |web| ups(web) == ["a"]).await;
    a.is_registered_as(Status::Up).await;

    let path = format!("{WEB}/a");
    other.delete(path.clone(), None).await.unwrap();
    repairs(&a, 1).await;
    other.set(path.clone(), "garbage", None).await.unwrap();
    repairs(&a, 2).await;
    reader.shows("a is up", |web| ups(web) == ["a"]).await;

    other.create(format!("{WEB}/b"), "{", CreateMode::Persistent).await.unwrap();
    other.create(format!("{WEB}/No_Label"), "{}", CreateMode::Persistent).await.unwrap();
    other.create(format!("{WEB}/b/deeper"), "", CreateMode::Persistent).await.unwrap();
    let record = other.get(path).await.unwrap().0.unwrap();
    other.create(format!("{WEB}/c"), record, CreateMode::Persistent).await.unwrap();
    other.set(WEB, r#"{"min_healthy":3}"#, None).await.unwrap();
    reader.shows("b is skipped", |web| ups(web) == ["a", "c"]).await;
    soon("settings are obeyed", async {
        while reader.cache.load().services[&web_key()].settings.min_healthy != 3 {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    assert!(reader.mirror.unreadable() > 0);
    assert_eq!(reader.mirror.walks(), 1, "changes cost a read each, not a walk");

    other.delete(format!("{WEB}/c"), None).await.unwrap();
    reader.shows("what was deleted is gone", |web| ups(web) == ["a"]).await;
    let service = reader.cache.load().services[&web_key()].clone();
    let deleted_at = other.exists(WEB).await.unwrap().unwrap().pzxid;
    assert_eq!(service.zxid, deleted_at, "a deletion shows in the service's zxid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_reads_the_services_and_the_instances_of_those_that_changed() {
    const SERVICES: usize = 1_000;
    const INSTANCES: usize = 10;
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    let record = r#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
    writer.create_all("/rollcall/services/default").await.unwrap();
    for service in 0..SERVICES {
        let path = format!("/rollcall/services/default/s{service}");
        let create = |path, data| MultiOp::Create(CreateRequest::open(path, data, CreateMode::Persistent));
        let instances =
            (0..INSTANCES).map(|instance| create(format!("{path}/i{instance}"), record.to_owned()));
        let ops = [create(path.clone(), String::new())].into_iter().chain(instances).collect();
        writer.multi(ops).await.unwrap();
    }
    let wire = Wire::start(world.server.address()).await;
    let reader = world.sidecar_at(wire.address, LONG_SESSION, "reader", vec![]);
    let follows = async |walks| {
        soon("it follows", async {
            while reader.cache.is_stale() || reader.mirror.walks() < walks {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
    };
    let cut_for = async |change: &dyn Fn() -> Pin<Box<dyn Future<Output = ()>>>| {
        let walks = reader.mirror.walks();
        wire.is_cut.send_replace(true);
        soon("it notices", async {
            while !reader.cache.is_stale() {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
        change().await;
        wire.is_cut.send_replace(false);
        follows(walks + 1).await;
    };
    let stop = CancellationToken::new();
    let shown = tokio::spawn(shown(reader.cache.clone(), stop.clone()));
    follows(1).await;
    let first = reader.mirror.walk_reads();
    assert_eq!(first, (SERVICES * INSTANCES) as u64);

    cut_for(&|| Box::pin(async {})).await;
    assert_eq!(reader.mirror.walk_reads(), first, "nothing has changed");

    let deleted = writer.clone();
    cut_for(&move || {
        let deleted = deleted.clone();
        Box::pin(async move { deleted.delete("/rollcall/services/default/s7/i3", None).await.unwrap() })
    })
    .await;
    assert_eq!(reader.mirror.walk_reads(), first + INSTANCES as u64 - 1, "one service has");
    let view = reader.cache.load_full();
    let count = |name: &str| {
        view.services.iter().find(|(key, _)| key.name.as_str() == name).map(|(_, it)| it.instances.len())
    };
    assert_eq!((count("s7"), count("s8")), (Some(INSTANCES - 1), Some(INSTANCES)));
    stop.cancel();
    let all = SERVICES * INSTANCES;
    let whole = [(SERVICES, all - 1), (SERVICES, all)].into();
    assert_eq!(shown.await.unwrap(), whole, "no view ever shows a part of what was there");
}

/// How many services and instances views show, each that is published until `stop`, once something is known.
async fn shown(cache: Arc<Cache>, stop: CancellationToken) -> BTreeSet<(usize, usize)> {
    let (mut published, mut shown) = (cache.subscribe(), BTreeSet::new());
    loop {
        let view = cache.load_full();
        if view.is_loaded {
            let instances = view.services.values().map(|service| service.instances.len()).sum();
            shown.insert((view.services.len(), instances));
        }
        tokio::select! {
            biased;
            changed = published.changed() => changed.expect("the cache is there"),
            () = stop.cancelled() => return shown,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_away_waits_below_the_standby_that_took_over() {
    let world = World::start();
    let (app_a, app_s) = (app::start().await, app::start().await);
    let (address, state_dir) = (address_of(&app_a), tempfile::tempdir().unwrap());
    let primary = || {
        let state_dir = Some(state_dir.path());
        world.sidecar_with(world.server.address(), LONG_SESSION, "a", vec![web("a", address)], state_dir)
    };
    let a = primary();
    let s = world.sidecar("s", vec![Registration { priority: 10, ..web("s", address_of(&app_s)) }]);
    s.offers("the primary", "a").await;
    s.client.set(WEB, r#"{"failback_after_s":2}"#, None).await.unwrap();

    let offered = record_offers(&s);
    drop(app_a);
    s.offers("the standby", "s").await;
    let app_a = app::start_at(address).await;
    s.shows("the primary is back, below it", |web| ups(web) == ["a", "s"] && is_held(&web[0])).await;
    let held_since = clock::now();
    s.offers("the primary", "a").await;
    // A tenth less: the reader may have heard of the hold late.
    assert!(held_since.elapsed() > Duration::from_millis(1_800), "{:?}", held_since.elapsed());
    assert_eq!(offered.stop().await, ["a", "s", "a"], "there and back, once each");

    s.client.set(WEB, r#"{"failback":"manual"}"#, None).await.unwrap();
    drop(app_a);
    s.offers("the standby", "s").await;
    let _app_a = app::start_at(address).await;
    s.shows("the primary is back, below it", |web| ups(web) == ["a", "s"] && is_held(&web[0])).await;
    // Killed, and started again: what it kept says that it was held off.
    let before = s.instances()[0].session;
    drop(a);
    let a = primary();
    let is_of_next = |web: &[Arc<Instance>]| web[0].session != before;
    s.shows("it is held off by its next process", |web| is_of_next(web) && is_held(&web[0])).await;
    assert_eq!(a.registrar.fail_back(Some(web_key())).await, Ok(1));
    s.offers("the primary", "a").await;
    assert_eq!(a.registrar.fail_back(None).await, Ok(0));
    let other = ServiceKey { name: Label::parse("other").unwrap(), ..web_key() };
    assert_eq!(a.registrar.fail_back(Some(other.clone())).await, Err(ChangeError::NotOwn(other)));
    let mut own = a.registrar.instances();
    soon("it says so", own.wait_for(|own| !own[0].is_held)).await.expect("the registrar runs");
}

const DEADLINE: Duration = Duration::from_secs(30);
/// The longest that the server grants, so that a slow machine loses none.
const LONG_SESSION: Duration = Duration::from_secs(10);
/// For sessions that are to expire.
const SHORT_SESSION: Duration = Duration::from_secs(2);
/// How long an instance is offered whose session has expired and that lives.
const BRAKE_WINDOW: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(2);

struct World {
    server: ApacheServer,
    _data_dir: TempDir,
}

impl World {
    fn start() -> Self {
        let data_dir = tempfile::tempdir().expect("a folder for the data");
        Self { server: ApacheServer::start(data_dir.path()), _data_dir: data_dir }
    }

    fn client(&self, address: SocketAddr, session_timeout: Duration) -> Client {
        Client::start(ClientSettings {
            session_timeout,
            backoff_cap: Duration::from_millis(500),
            ..ClientSettings::for_servers([address.to_string()])
        })
    }

    fn sidecar(&self, owner: &str, registrations: Vec<Registration>) -> Sidecar {
        self.sidecar_at(self.server.address(), LONG_SESSION, owner, registrations)
    }

    fn sidecar_at(
        &self,
        address: SocketAddr,
        session_timeout: Duration,
        owner: &str,
        registrations: Vec<Registration>,
    ) -> Sidecar {
        self.sidecar_with(address, session_timeout, owner, registrations, None)
    }

    fn sidecar_with(
        &self,
        address: SocketAddr,
        session_timeout: Duration,
        owner: &str,
        registrations: Vec<Registration>,
        state_dir: Option<&Path>,
    ) -> Sidecar {
        let client = self.client(address, session_timeout);
        let saved = state_dir.and_then(|folder| {
            SavedView::load(folder, &Layout::default(), Moment::read()).expect("it is whole")
        });
        let cache = Arc::new(match saved {
            Some(saved) => {
                let age = saved.age(clock::unix_ms());
                Cache::with_saved(saved.view, age, clock::now())
            }
            None => Cache::new(clock::now()),
        });
        let brake = BrakePlan { window: BRAKE_WINDOW, ..BrakePlan::default() };
        let mirror = Mirror::new(client.clone(), &cache, Source::all(Layout::default()), brake);
        let mirror_stats = mirror.stats();
        let repair_interval = Duration::from_millis(100);
        let settings = RegistrarSettings {
            repair_interval,
            state_dir: state_dir.map(|folder| folder.to_owned().into()),
            ..RegistrarSettings::new(Layout::default(), owner.to_owned())
        };
        let (registrar, task) = Registrar::new(client.clone(), cache.clone(), settings, registrations)
            .expect("nothing was left behind");
        let mut tasks = JoinSet::new();
        tasks.spawn(mirror.run(CancellationToken::new()));
        tasks.spawn(task.run());
        if let Some(folder) = state_dir {
            let keeper = ViewKeeper::new(cache.clone(), folder.to_owned(), Layout::default());
            tasks.spawn(keeper.run(CancellationToken::new()));
        }
        Sidecar { client, cache, mirror: mirror_stats, registrar, _tasks: tasks }
    }
}

/// What a sidecar is made of; dropped, its sockets go and its session stays until it expires.
struct Sidecar {
    client: Client,
    cache: Arc<Cache>,
    mirror: Arc<MirrorStats>,
    registrar: Registrar,
    _tasks: JoinSet<()>,
}

impl Sidecar {
    fn instances(&self) -> Vec<Arc<Instance>> {
        let view = self.cache.load();
        view.services.get(&web_key()).map_or_else(Vec::new, |web| web.instances.iter().cloned().collect())
    }

    async fn shows(&self, what: &str, is_so: impl Fn(&[Arc<Instance>]) -> bool) {
        let mut published = self.cache.subscribe();
        soon(what, async {
            loop {
                published.borrow_and_update();
                if is_so(&self.instances()) {
                    return;
                }
                published.changed().await.expect("the cache is there");
            }
        })
        .await;
    }

    fn own(&self) -> OwnInstance {
        self.registrar.instances().borrow()[0].clone()
    }

    /// Waits until readers choose this instance, and no other.
    async fn offers(&self, what: &str, id: &str) {
        self.shows(what, |_| offered(&self.cache) == [id]).await;
    }

    async fn own_where(&self, what: &str, is_so: impl Fn(&RegistrationState) -> bool) -> RegistrationState {
        let mut instances = self.registrar.instances();
        let reached = instances.wait_for(|instances| is_so(&instances[0].registration));
        soon(what, reached).await.expect("the registrar runs")[0].registration.clone()
    }

    async fn is_registered_as(&self, status: Status) {
        self.own_where("the registration", |own| *own == RegistrationState::Registered(status)).await;
    }
}

/// The instances that readers choose among.
fn offered(cache: &Cache) -> Vec<String> {
    let view = cache.load();
    let Some(web) = view.services.get(&web_key()) else { return Vec::new() };
    let mut ids: Vec<_> =
        select(web, &mut fastrand::Rng::new()).iter().map(|one| one.id.to_string()).collect();
    ids.sort();
    ids
}

fn is_held(instance: &Instance) -> bool {
    instance.record.effective_priority == Some(HELD_PRIORITY)
}

/// Who was chosen, one after the other, from now on.
struct Offers {
    is_over: CancellationToken,
    task: JoinHandle<Vec<String>>,
}

fn record_offers(sidecar: &Sidecar) -> Offers {
    let (cache, is_over) = (sidecar.cache.clone(), CancellationToken::new());
    let stop = is_over.clone();
    let task = tokio::spawn(async move {
        let mut published = cache.subscribe();
        let mut seen: Vec<String> = Vec::new();
        loop {
            published.borrow_and_update();
            let now = offered(&cache).join(" ");
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            if stop.is_cancelled() {
                return seen;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                changed = published.changed() => changed.expect("the cache is there"),
            }
        }
    });
    Offers { is_over, task }
}

impl Offers {
    async fn stop(self) -> Vec<String> {
        self.is_over.cancel();
        self.task.await.expect("it ends well")
    }
}

/// Looks at a view again and again, and remembers when somebody was missing.
struct Sampler {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl Sampler {
    fn start(sidecar: &Sidecar, ids: &[&str]) -> Self {
        let (cache, is_over) = (sidecar.cache.clone(), Arc::new(AtomicBool::new(false)));
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let task = tokio::task::spawn_blocking({
            let is_over = is_over.clone();
            move || {
                let mut samples = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let view = cache.load();
                    let web = view.services.get(&web_key()).map_or_else(Vec::new, |web| ups(&web.instances));
                    assert_eq!(web, ids, "in sample {samples}");
                    samples += 1;
                    std::thread::sleep(Duration::from_micros(200));
                }
                samples
            }
        });
        Self { is_over, task }
    }

    /// Returns how many samples were taken, all of them complete.
    async fn stop(mut self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        (&mut self.task).await.expect("nobody was missing in any sample")
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// A wire to a server that can be cut, so that it refuses whoever calls.
struct Wire {
    address: SocketAddr,
    is_cut: watch::Sender<bool>,
}

impl Wire {
    async fn start(server: SocketAddr) -> Self {
        let listener = listen().await;
        let address = address_of(&listener);
        let is_cut = watch::Sender::new(false);
        tokio::spawn(accept(listener, server, is_cut.subscribe()));
        Self { address, is_cut }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, is_cut: watch::Receiver<bool>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut is_cut = is_cut.clone();
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(server).await else { return };
            // Else each of its ends waits for the other's acknowledgement of what is small.
            near.set_nodelay(true).and(far.set_nodelay(true)).expect("they are connected");
            tokio::select! {
                biased;
                _ = is_cut.wait_for(|is_cut| *is_cut) => {}
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            }
        });
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback")
}

fn address_of(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("it is bound")
}

fn web(id: &str, server: SocketAddr) -> Registration {
    registration(&format!(
        "{{name: web, id: {id}, address: {}, port: {}, checks: [{{kind: tcp, interval: 100ms}}]}}",
        server.ip(),
        server.port()
    ))
}

fn registration(service: &str) -> Registration {
    let service: OwnService = serde_yaml::from_str(service).expect("settings of a service");
    resolve_services(&[service], "services", &ServiceDefaults::default())
        .expect("nothing is wrong with them")
        .remove(0)
}

fn web_key() -> ServiceKey {
    let label = |text| Label::parse(text).expect("a label");
    ServiceKey { namespace: label("default"), name: label("web") }
}

fn statuses(web: &[Arc<Instance>]) -> Vec<(&str, Status)> {
    web.iter().map(|instance| (instance.id.as_str(), instance.record.status)).collect()
}

fn ups<'a>(web: impl IntoIterator<Item = &'a Arc<Instance>>) -> Vec<String> {
    web.into_iter()
        .filter(|instance| instance.record.is_up())
        .map(|instance| instance.id.to_string())
        .collect()
}

async fn repairs(sidecar: &Sidecar, count: u64) {
    soon("the repair", async {
        while sidecar.registrar.stats().repairs() < count {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not before the deadline: {what}"))
}

async fn walks_on(stats: &MirrorStats, more: u64) {
    let walks = stats.walks() + more;
    soon("it walks on", async {
        while stats.walks() < walks {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thorough_walks_find_nothing_that_was_not_told() {
    const CHANGES: usize = 300;
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    let record = |weight| {
        format!(
            r#"{{"v":1,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":80}}],"status":"up","weight":{weight}}}"#
        )
    };
    for service in 0..20 {
        writer.create_all(&format!("/rollcall/services/default/s{service}")).await.unwrap();
    }
    let (client, cache) =
        (world.client(world.server.address(), LONG_SESSION), Arc::new(Cache::new(clock::now())));
    let mirror = Mirror::new(client, &cache, Source::all(Layout::default()), BrakePlan::default())
        .with_thorough_interval(Duration::from_millis(5));
    let stats = mirror.stats();
    let shutdown = CancellationToken::new();
    let mirroring = tokio::spawn(mirror.run(shutdown.clone()));

    for change in 0..CHANGES {
        let service = format!("/rollcall/services/default/s{}", change % 20);
        let path = format!("{service}/i{}", change % 7);
        let created = writer.create(path.as_str(), record(change), CreateMode::Persistent).await;
        let told = match created.as_ref().err().and_then(ClientError::op_error) {
            Some(OpError::NodeExists) if change % 3 == 0 => writer.delete(path.as_str(), None).await,
            Some(OpError::NodeExists) if change % 3 == 1 => {
                writer.set(path.as_str(), record(change), None).await.map(drop)
            }
            Some(_) => {
                writer.set(service.as_str(), format!(r#"{{"min_healthy":{change}}}"#), None).await.map(drop)
            }
            None => Ok(()),
        };
        told.unwrap();
        // A walk comes when nothing else is to be read: now and then it may, while some change is on its way.
        if change % 10 == 0 {
            walks_on(&stats, 1).await;
        }
    }
    walks_on(&stats, 12).await;
    assert_eq!(stats.defects(), 0);
    shutdown.cancel();
    mirroring.await.unwrap();
}
