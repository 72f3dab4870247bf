//! Trees that others write, and single namespaces, as a sidecar shows them, against Apache ZooKeeper 3.8.0.

use std::collections::BTreeMap;

use rollcall::registry::formats::Format;
use rollcall::registry::{Adopted, Record};
use rollcall::znode::{CreateMode, ZnodePath};

use super::*;

const CURATOR: &str = r#"{"name":"Pay.Ments","id":"06c0af4c-03c4-4cc1-a702-050303b41b8b","address":"10.1.2.3","port":8040,"sslPort":null,"payload":null,"registrationTimeUTC":1553592092875,"serviceType":"DYNAMIC","uriSpec":null}"#;
const SPRING: &str = r#"{"name":"orders","id":"o-1","address":"10.1.2.4","port":8041,"sslPort":null,"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"application-1","name":"orders","metadata":{"instance_status":"UP","zone":"a"}},"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":null}"#;
const SERVERSET: &str = r#"{"serviceEndpoint":{"host":"10.1.2.5","port":31943},"additionalEndpoints":{"admin":{"host":"10.1.2.5","port":31944}},"status":"ALIVE","shard":0}"#;
const NERVE: &str =
    r#"{"host":"10.1.2.6","port":8042,"name":"i-0abc","weight":10,"labels":{"az":"us-east-1a"}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_of_every_foreign_format_are_shown_beside_the_registry() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    let registry = Source::Registry { layout: Layout::default(), adopted: adopted().into() };
    let sources = [vec![registry], adopted().map(Source::Adopted).into()].concat();
    let (cache, _tasks) = mirrored(&world, sources);

    let id = "06c0af4c-03c4-4cc1-a702-050303b41b8b";
    put(&writer, "/curator/Pay.Ments", id, CURATOR, CreateMode::Ephemeral).await;
    put(&writer, "/services/orders", "o-1", SPRING, CreateMode::Ephemeral).await;
    put(&writer, "/aurora/www/prod/hello", "member_", SERVERSET, CreateMode::EphemeralSequential).await;
    put(&writer, "/aurora/www/prod/hello", "vector_", "{}", CreateMode::EphemeralSequential).await;
    put(&writer, "/nerve/pay", "i-0abc_", NERVE, CreateMode::EphemeralSequential).await;
    put(&writer, WEB, "own", OWN, CreateMode::Ephemeral).await;
    let expected = [
        ("hello.others/member-0000000000", "10.1.2.5:31943"),
        ("orders.spring/o-1", "10.1.2.4:8041"),
        ("pay-ments.curator/06c0af4c-03c4-4cc1-a702-050303b41b8b", "10.1.2.3:8040"),
        ("pay.others/i-0abc-0000000000", "10.1.2.6:8042"),
        ("web.default/own", "10.0.0.1:80"),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(name, at)| (name.to_owned(), at.to_owned())).into();
    shows(&cache, &expected).await;
    let nerve = found(&cache, "pay.others");
    assert_eq!((nerve.weight, nerve.zone.as_deref()), (10, Some("us-east-1a")));

    // Set in place, which our own registrars never do; and an instance that goes.
    let moved = CURATOR.replace("8040", "8050");
    writer.set(format!("/curator/Pay.Ments/{id}"), moved, None).await.unwrap();
    writer.delete("/services/orders/o-1", None).await.unwrap();
    let mut expected = expected;
    expected.insert(
        "pay-ments.curator/06c0af4c-03c4-4cc1-a702-050303b41b8b".to_owned(),
        "10.1.2.3:8050".to_owned(),
    );
    expected.remove("orders.spring/o-1");
    shows(&cache, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_namespaces_that_are_not_followed_nothing_is_shown() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    let namespace =
        |name: &str| Source::Namespace { layout: Layout::default(), namespace: Label::parse(name).unwrap() };
    put(&writer, "/rollcall/services/shop/web", "a", OWN, CreateMode::Ephemeral).await;
    let (cache, _tasks) = mirrored(&world, vec![namespace("shop"), namespace("empty")]);
    let shown =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "10.0.0.1:80".to_owned())).collect();
    shows(&cache, &shown(&["web.shop/a"])).await;
    put(&writer, WEB, "b", OWN, CreateMode::Ephemeral).await;
    put(&writer, "/rollcall/services/empty/web", "c", OWN, CreateMode::Ephemeral).await;
    shows(&cache, &shown(&["web.shop/a", "web.empty/c"])).await;
}

const OWN: &str = r#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;

fn adopted() -> [Adopted; 4] {
    let of = |format, root, namespace, service: Option<&str>| Adopted {
        format,
        root: ZnodePath::parse(root).expect("a path"),
        namespace: Label::parse(namespace).expect("a label"),
        service: service.map(|name| Label::parse(name).expect("a label")),
    };
    [
        of(Format::Curator, "/curator", "curator", None),
        of(Format::Spring, "/services", "spring", None),
        of(Format::Serverset, "/aurora/www/prod/hello", "others", Some("hello")),
        of(Format::Nerve, "/nerve/pay", "others", Some("pay")),
    ]
}

fn mirrored(world: &World, sources: Vec<Source>) -> (Arc<Cache>, JoinSet<()>) {
    let client = world.client(world.server.address(), LONG_SESSION);
    let cache = Arc::new(Cache::new(clock::now()));
    let brake = BrakePlan { window: BRAKE_WINDOW, ..BrakePlan::default() };
    let mirror = |source| Mirror::new(client.clone(), &cache, source, brake.clone());
    let mirrors: Vec<_> = sources.into_iter().map(mirror).collect();
    let mut tasks = JoinSet::new();
    for mirror in mirrors {
        tasks.spawn(mirror.run(CancellationToken::new()));
    }
    (cache, tasks)
}

async fn put(writer: &Client, parent: &str, name: &str, data: &str, mode: CreateMode) {
    writer.create_all(parent).await.expect("it can be created");
    writer.create(format!("{parent}/{name}"), data.to_owned(), mode).await.expect("it can be created");
}

/// Waits until exactly these instances are shown, each at its place, and nothing is stale.
async fn shows(cache: &Arc<Cache>, expected: &BTreeMap<String, String>) {
    let mut published = cache.subscribe();
    let shown = || {
        let view = cache.load_full();
        let instances = view.services.iter().flat_map(|(key, service)| {
            service.instances.iter().map(move |instance| {
                let record = &instance.record;
                let at = SocketAddr::new(record.addresses[0], record.ports[0].port);
                (format!("{key}/{}", instance.id), at.to_string())
            })
        });
        instances.collect::<BTreeMap<_, _>>()
    };
    let reached = async {
        loop {
            published.borrow_and_update();
            if shown() == *expected {
                return;
            }
            published.changed().await.expect("the cache is there");
        }
    };
    if timeout(DEADLINE, reached).await.is_err() {
        panic!("{:#?} is not {expected:#?}", shown());
    }
    assert!(cache.load().is_loaded);
}

fn found(cache: &Cache, service: &str) -> Record {
    let view = cache.load_full();
    let (_, service) = view.services.iter().find(|(key, _)| key.to_string() == service).expect("it is shown");
    service.instances[0].record.clone()
}
