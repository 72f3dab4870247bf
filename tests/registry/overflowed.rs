//! A mirror that is told more than its queue holds, against Apache ZooKeeper 3.8.0.

use super::*;

const ROUNDS: usize = 4;
/// Of each round.
const SERVICES: usize = 100;
/// Of each service, created in one txn.
const INSTANCES: usize = 20;
/// Notices that the mirror may be behind: those of some txns, of the last of which some are read, and the rest is lost.
const QUEUE_MAX: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_is_found_although_what_was_read_is_as_new() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    writer.create_all("/rollcall/services/default").await.unwrap();
    let settings = ClientSettings::for_servers([world.server.address().to_string()]);
    let client = Client::start(ClientSettings { watch_queue_max: QUEUE_MAX, ..settings });
    let cache = Arc::new(Cache::new(clock::now()));
    let mirror = Mirror::new(client.clone(), &cache, Source::all(Layout::default()), BrakePlan::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(mirror.run(CancellationToken::new()));
    let mut published = cache.subscribe();
    soon("it follows", published.wait_for(|_| !cache.is_stale())).await.expect("the cache is there");

    let create = |path: String, data: &'static str| {
        MultiOp::Create(CreateRequest::open(path, data, CreateMode::Persistent))
    };
    let known = || cache.load().services.values().map(|service| service.instances.len()).sum::<usize>();
    // It is a matter of chance where the mirror is when something is lost.
    for round in 1..=ROUNDS {
        let mut txns = JoinSet::new();
        for service in 0..SERVICES {
            let service = format!("/rollcall/services/default/s{round}-{service}");
            let instances = (0..INSTANCES).map(|number| create(format!("{service}/i{number}"), RECORD));
            let ops: Vec<_> = [create(service.clone(), "")].into_iter().chain(instances).collect();
            let writer = writer.clone();
            txns.spawn(async move { writer.multi(ops).await });
        }
        assert!(txns.join_all().await.iter().all(Result::is_ok), "all are written");
        let all = round * SERVICES * INSTANCES;
        let shown = timeout(DEADLINE, published.wait_for(|_| known() == all)).await;
        assert!(shown.is_ok(), "{} of {all} are known", known());
    }
    assert!(client.stats().watch_overflows() > 0, "nothing was lost");
}

const RECORD: &str = r#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
