//! What comes with the event that names it is not read, and the view is the same as if it had been.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rollcall::client::{Client, ClientSettings};
use rollcall::clock;
use rollcall::id::{SessionId, Zxid};
use rollcall::registry::{BrakePlan, Cache, Layout, Mirror, MirrorStats, Record, Source, Subscription};
use rollcall::wire::{CreateRequest, MultiOp};
use rollcall::znode::{CreateMode, SubscriberName};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::line::{LATENCY, Line};
use crate::world::{REACTION, SESSION_TIMEOUT, SETTLING, World};

pub(crate) const SERVICES: &str = "/rollcall/services/default";
/// Every so often the whole is compared with what is there.
pub(crate) const THOROUGH: Duration = Duration::from_millis(200);

/// A view of the registry and nothing else.
pub(crate) struct Follower {
    cache: Arc<Cache>,
    pub(crate) stats: Arc<MirrorStats>,
    pub(crate) line: Line,
    _tasks: JoinSet<()>,
}

/// What a view shows of a service: its settings, how new it is, and of each instance how new it is, whose, and its record.
pub(crate) type Shown = (String, Zxid, Vec<(String, Zxid, SessionId, Record)>);

impl Follower {
    /// With a name it subscribes, and so is told more.
    pub(crate) fn start(world: &World, name: Option<&str>) -> Self {
        Self::start_with(world, name, Some(THOROUGH))
    }

    /// The same, which compares everything without need that often, if at all.
    pub(crate) fn start_with(world: &World, name: Option<&str>, thorough: Option<Duration>) -> Self {
        let (client, line) = client(world);
        let cache = Arc::new(Cache::new(clock::now()));
        // What is gone is gone at once, whatever else is.
        let brake = BrakePlan { is_enabled: false, ..BrakePlan::default() };
        let mirror = Mirror::new(client.clone(), &cache, Source::all(Layout::default()), brake);
        let mut mirror = mirror.with_thorough_interval(thorough.unwrap_or(Duration::from_secs(1_000_000)));
        let mut tasks = JoinSet::new();
        if let Some(name) = name {
            let subscription = Subscription::new(client, SubscriberName::parse(name).expect("a name"));
            mirror = mirror.with_subscription(&subscription);
            tasks.spawn(subscription.run(CancellationToken::new()));
        }
        let stats = mirror.stats();
        tasks.spawn(mirror.run(CancellationToken::new()));
        Self { cache, stats, line, _tasks: tasks }
    }

    pub(crate) fn shown(&self) -> BTreeMap<String, Shown> {
        let view = self.cache.load();
        let shown = view.services.values().map(|service| {
            let instances = service.instances.iter().map(|instance| {
                (instance.id.to_string(), instance.mzxid, instance.session, instance.record.clone())
            });
            (service.key.to_string(), (format!("{:?}", service.settings), service.zxid, instances.collect()))
        });
        shown.collect()
    }
}

pub(crate) fn client(world: &World) -> (Client, Line) {
    let line = world.line();
    let settings = ClientSettings::for_servers(["127.0.0.1:2181"]);
    let settings = ClientSettings { dialer: Some(line.dialer()), ..settings };
    (Client::start(settings.with_session_timeout(SESSION_TIMEOUT)), line)
}

pub(crate) fn record(weight: u32, padding: usize) -> String {
    let padding = "x".repeat(padding);
    format!(
        r#"{{"v":1,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":80}}],"status":"up","weight":{weight},"padding":"{padding}"}}"#
    )
}

/// What registrars write.
fn replacement(path: &str, data: String) -> Vec<MultiOp> {
    let create = CreateRequest::open(path, data, CreateMode::Ephemeral);
    vec![MultiOp::Delete { path: path.to_owned(), version: -1 }, MultiOp::Create(create)]
}

#[tokio::test(start_paused = true)]
async fn a_change_is_seen_when_its_event_comes_and_nothing_is_read() {
    let world = World::start();
    let (writer, _line) = client(&world);
    writer.create_all(&format!("{SERVICES}/web")).await.expect("it is created");
    let (subscriber, reader) = (Follower::start(&world, Some("one")), Follower::start(&world, None));
    sleep(SETTLING).await;
    let (before, read_before) = (subscriber.stats.reads(), reader.stats.reads());
    let path = format!("{SERVICES}/web/a");
    writer.create(path.as_str(), record(1, 0), CreateMode::Ephemeral).await.expect("it is created");
    // The writer was told when the event was sent, too.
    sleep(LATENCY / 2).await;
    assert_eq!(subscriber.shown()["web.default"].2.len(), 1);
    assert_eq!(reader.shown()["web.default"].2.len(), 0, "it has to ask first");
    sleep(REACTION).await;
    writer.set(path.as_str(), record(2, 0), None).await.expect("it is there");
    sleep(REACTION).await;
    writer.multi(replacement(&path, record(3, 0))).await.expect("it is replaced");
    sleep(LATENCY / 2).await;
    assert_eq!(subscriber.shown()["web.default"].2[0].3.weight, 3);
    sleep(REACTION).await;
    writer.set(&*format!("{SERVICES}/web"), r#"{"min_healthy":2}"#, None).await.expect("it is there");
    writer.delete(path.as_str(), None).await.expect("it is there");
    sleep(REACTION).await;
    assert_eq!(subscriber.shown(), reader.shown());
    assert_eq!(subscriber.shown()["web.default"].2.len(), 0);
    // The replacement was told once.
    assert_eq!((subscriber.stats.reads() - before, subscriber.stats.carried()), (0, 5));
    assert!(reader.stats.reads() - read_before >= 5 && reader.stats.carried() == 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_long_is_read() {
    let world = World::start();
    let (writer, _line) = client(&world);
    writer.create_all(&format!("{SERVICES}/web")).await.expect("it is created");
    let subscriber = Follower::start(&world, Some("one"));
    sleep(SETTLING).await;
    let path = format!("{SERVICES}/web/a");
    writer.create(path.as_str(), record(1, 5_000), CreateMode::Ephemeral).await.expect("it is created");
    sleep(REACTION).await;
    assert_eq!((subscriber.stats.reads(), subscriber.stats.carried()), (1, 0));
    writer.set(path.as_str(), record(2, 0), None).await.expect("it is there");
    sleep(REACTION).await;
    assert_eq!((subscriber.stats.reads(), subscriber.stats.carried()), (1, 1));
    assert_eq!(subscriber.shown()["web.default"].2[0].3.weight, 2);
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_the_view_is_the_one_of_who_reads() {
    expect_one_view(false).await;
}

#[tokio::test(start_paused = true)]
async fn of_a_txn_of_which_a_part_was_told_when_the_connection_ended_nothing_is_missed() {
    let world = World::start();
    let (writer, _line) = client(&world);
    writer.create_all(&format!("{SERVICES}/web")).await.expect("it is created");
    let (subscriber, reader) =
        (Follower::start_with(&world, Some("one"), None), Follower::start_with(&world, None, None));
    sleep(SETTLING).await;
    let each = |number: u32| {
        CreateRequest::open(format!("{SERVICES}/web/i{number}"), record(number, 0), CreateMode::Ephemeral)
    };
    subscriber.line.cut_behind(1);
    writer
        .multi((0..3).map(|number| MultiOp::Create(each(number))).collect())
        .await
        .expect("they are created");
    sleep(LATENCY / 2).await;
    assert_eq!(subscriber.shown()["web.default"].2.len(), 1, "one event has come");
    sleep(SETTLING).await;
    assert_eq!(subscriber.shown()["web.default"].2.len(), 3);
    subscriber.line.cut_behind(1);
    let delete = |number| MultiOp::Delete { path: format!("{SERVICES}/web/i{number}"), version: -1 };
    writer.multi((0..3).map(delete).collect()).await.expect("they are there");
    sleep(SETTLING).await;
    assert_eq!((subscriber.shown()["web.default"].2.len(), subscriber.stats.walks()), (0, 3));
    assert_eq!(subscriber.shown(), reader.shown());
}

/// What others set in place meanwhile is found by chance only, as without subscription: nobody does that here.
#[tokio::test(start_paused = true)]
async fn whatever_happens_while_the_line_is_cut_now_and_then_the_view_is_the_one_of_who_reads() {
    expect_one_view(true).await;
}

/// Long and short records, garbage, replacements, new services: in the end all views are one, and a look at everything has never found
/// what was not told. Meanwhile nothing that a view shows becomes older.
///
/// This is invariant I16, of a sidecar's cache, which `simulation/` leaves to these tests. That nothing is answered from a view that was
/// not wholly read is shown in `registry.rs` and, of a sidecar without a member, in `processes/member_outage.rs`.
async fn expect_one_view(is_cut_now_and_then: bool) {
    const CHANGES: u32 = 3_000;
    let world = World::start();
    let mut rng = world.rng();
    let (writer, _line) = client(&world);
    let (subscriber, reader) = (Follower::start(&world, Some("one")), Follower::start(&world, None));
    let mut newest = [&subscriber, &reader].map(|follower| (follower, BTreeMap::new()));
    for change in 0..CHANGES {
        let service = format!("{SERVICES}/s{}", rng.u8(..5));
        let path = format!("{service}/i{}", rng.u8(..4));
        let padding = if rng.u8(..10) == 0 { 5_000 } else { 0 };
        let data = if rng.u8(..20) == 0 { "garbage".to_owned() } else { record(change, padding) };
        // What is there already, or is not there, is refused, which changes nothing.
        let _may_be_refused = match rng.u8(..10) {
            0..=2 => writer.create(path.as_str(), data, CreateMode::Ephemeral).await.map(drop),
            3..=4 if !is_cut_now_and_then => writer.set(path.as_str(), data, None).await.map(drop),
            5 => writer.delete(path.as_str(), None).await,
            6 => writer.set(service.as_str(), format!(r#"{{"min_healthy":{change}}}"#), None).await.map(drop),
            7 => writer.multi(replacement(&path, data)).await.map(drop),
            8 => writer.delete(service.as_str(), None).await,
            _ => writer.create_all(&service).await.map(drop),
        };
        match rng.u16(..200) {
            0 if is_cut_now_and_then => subscriber.line.cut(),
            1..10 => subscriber.line.mend(),
            10..60 => sleep(Duration::from_millis(rng.u64(..20))).await,
            _ => {}
        }
        for (follower, newest) in &mut newest {
            for service in follower.cache.load().services.values() {
                for instance in &service.instances {
                    let (id, mzxid) = ((service.key.clone(), instance.id.clone()), instance.mzxid);
                    let before = newest.insert(id, mzxid);
                    assert!(before <= Some(mzxid), "I16: {before:?}, and then {mzxid}, of {}", instance.id);
                }
            }
        }
    }
    subscriber.line.mend();
    sleep(SETTLING).await;
    assert_eq!(subscriber.shown(), reader.shown());
    assert!(!subscriber.shown().is_empty());
    assert!(subscriber.stats.carried() > u64::from(CHANGES) / 10, "{}", subscriber.stats.carried());
    for follower in [&subscriber, &reader] {
        assert!(follower.stats.walks() > 10, "{}", follower.stats.walks());
        assert_eq!(follower.stats.defects(), 0);
    }
}
