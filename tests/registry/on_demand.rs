//! A sidecar that follows what is looked up, against Apache ZooKeeper 3.8.0.

use std::sync::Mutex;

use rollcall::clock::Moment;
use rollcall::registry::formats::Format;
use rollcall::registry::{
    Adopted, Demand, Home, LiveViewSettings, Service, Subscription, View, ViewSettings,
};
use rollcall::znode::{SubscriberName, ZnodePath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const OWN: &str = r#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
const API: &str = "/rollcall/services/default/api";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_known_without_their_instances_until_a_service_is_looked_up() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    put(&writer, WEB, "a").await;
    put(&writer, API, "x").await;
    let reader = Reader::start(&world, world.server.address(), View::default(), LONG);
    reader.shows("the names, and no more", |view| told(view) == ["api ?", "web ?"]).await;
    assert_eq!((reader.stats.walk_reads(), reader.stats.reads()), (0, 0));

    reader.follow("web").await;
    assert_eq!(told(&reader.cache.load()), ["api ?", "web a"]);
    assert_eq!((reader.stats.follows(), reader.stats.walk_reads()), (1, 1));

    // What is followed is told, whatever becomes of it, and of other services their names alone.
    put(&writer, WEB, "b").await;
    reader.shows("one more", |view| told(view) == ["api ?", "web a b"]).await;
    writer.set(WEB, r#"{"min_healthy":2}"#, None).await.unwrap();
    reader.shows("its settings", |view| view.services[&key("web")].settings.min_healthy == 2).await;
    let (reads, events) = (reader.stats.reads(), reader.client.stats().events());
    for id in ["y", "z"] {
        put(&writer, API, id).await;
    }
    writer.delete(format!("{API}/x"), None).await.unwrap();
    writer.delete(format!("{WEB}/a"), None).await.unwrap();
    reader.shows("one less", |view| told(view) == ["api ?", "web b"]).await;
    // The service's own stat says when it was, as this server's events do not.
    assert_eq!(reader.stats.reads(), reads + 2);
    assert_eq!(reader.client.stats().events(), events + 1, "of the other service nothing is told");

    put(&writer, "/rollcall/services/shop/cart", "c").await;
    writer.create_all("/rollcall/services/default/new").await.unwrap();
    let named = ["api ?", "new ?", "web b", "cart ?"];
    reader.shows("new names, also in a new namespace", |view| told(view) == named).await;
    writer.create_all("/rollcall/services/shop/till").await.unwrap();
    writer.delete("/rollcall/services/default/new", None).await.unwrap();
    reader.shows("a name that is gone", |view| told(view) == ["api ?", "web b", "cart ?", "till ?"]).await;
    assert_eq!(reader.stats.defects(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_not_there_is_followed_from_its_first_name_on() {
    let world = World::start();
    let reader = Reader::start(&world, world.server.address(), View::default(), LONG);
    reader.shows("nothing", |view| view.services.is_empty()).await;
    let writer = world.client(world.server.address(), LONG_SESSION);
    put(&writer, WEB, "a").await;
    reader.shows("the name", |view| told(view) == ["web ?"]).await;
    reader.follow("web").await;
    assert_eq!(told(&reader.cache.load()), ["web a"]);

    // All of it goes, namespace and all, and comes again under the same names.
    for path in [&format!("{WEB}/a"), WEB, "/rollcall/services/default"] {
        writer.delete(path, None).await.unwrap();
    }
    reader.shows("nothing", |view| view.services.is_empty()).await;
    put(&writer, WEB, "b").await;
    reader.shows("a name, or more", |view| view.services.contains_key(&key("web"))).await;
    reader.follow("web").await;
    reader.shows("the new one", |view| told(view) == ["web b"]).await;
    put(&writer, WEB, "c").await;
    reader.shows("all that comes", |view| told(view) == ["web b c"]).await;
    assert_eq!(reader.stats.walks(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_looks_up_is_read_no_more_and_read_again_when_somebody_does() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    put(&writer, WEB, "a").await;
    put(&writer, API, "x").await;
    let reader = Reader::start(&world, world.server.address(), View::default(), SHORT);
    reader.shows("the names", |view| told(view) == ["api ?", "web ?"]).await;
    reader.follow("web").await;
    reader.follow("api").await;
    assert_eq!(told(&reader.cache.load()), ["api x", "web a"]);
    let is_watched = |path| world.server.four_letter_word("wchp").lines().any(|watched| watched == path);
    assert!(is_watched(WEB));
    let waiting = reader.cache.load().services[&key("api")].lookups.wait();
    reader.shows("who is waited on stays", |view| told(view) == ["api x", "web ?"]).await;
    assert_eq!((reader.stats.lapses(), reader.stats.held()), (1, 0));

    let past = reader.cache.look_back(&key("web"), clock::unix_ms()).unwrap();
    assert!(!past.service.unwrap().is_followed, "it is not told to have lost its instances");
    // The view tells first, and then the watch is ended; what is told in between is not looked at.
    soon("the watch is ended", async {
        while is_watched(WEB) {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    let (reads, events) = (reader.stats.reads(), reader.client.stats().events());
    put(&writer, WEB, "b").await;
    put(&writer, API, "y").await;
    reader.shows("what is followed", |view| told(view) == ["api x y", "web ?"]).await;
    assert_eq!(reader.stats.reads(), reads + 1);
    assert_eq!(reader.client.stats().events(), events + 1, "the server tells nothing of it any more");

    reader.follow("web").await;
    assert_eq!(told(&reader.cache.load()), ["api x y", "web a b"]);
    put(&writer, WEB, "c").await;
    reader.shows("it is followed as before", |view| told(view) == ["api x y", "web a b c"]).await;
    drop(waiting);
    reader.shows("nobody waits any more", |view| told(view) == ["api ?", "web ?"]).await;
    assert_eq!(reader.stats.follows(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_compares_names_and_what_is_followed() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    for id in ["a", "b", "c"] {
        put(&writer, WEB, id).await;
    }
    put(&writer, API, "x").await;
    let wire = Wire::start(world.server.address()).await;
    let reader = Reader::start(&world, wire.address, View::default(), LONG);
    reader.shows("the names", |view| told(view) == ["api ?", "web ?"]).await;
    reader.follow("web").await;
    assert_eq!(reader.stats.walk_reads(), 3);

    reader.cut(&wire, async {}).await;
    assert_eq!(reader.stats.walk_reads(), 3, "nothing has changed");
    assert_eq!(told(&reader.cache.load()), ["api ?", "web a b c"]);

    let change = async {
        // Asked for while there is no connection: not in time, but it is followed as soon as there is one.
        reader.demand.hold(&reader.cache, &key("api")).expect("there is room").ready().await;
        writer.delete(format!("{WEB}/a"), None).await.unwrap();
        put(&writer, "/rollcall/services/default/new", "n").await;
    };
    reader.cut(&wire, change).await;
    assert_eq!(reader.demand.unready(), 1);
    reader.shows("all of that", |view| told(view) == ["api x", "new ?", "web b c"]).await;
    put(&writer, WEB, "d").await;
    put(&writer, API, "y").await;
    reader.shows("it is told of both", |view| told(view) == ["api x y", "new ?", "web b c d"]).await;
    assert_eq!(reader.stats.defects(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_follows_what_was_followed_and_the_own_services_need_no_lookup() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    put(&writer, WEB, "a").await;
    put(&writer, API, "x").await;
    let first = Reader::start(&world, world.server.address(), View::default(), LONG);
    first.shows("the names", |view| told(view) == ["api ?", "web ?"]).await;
    first.follow("web").await;
    put(&writer, "/rollcall/services/default/own", "o").await;
    first.shows("its own, as soon as it is there", |view| told(view) == ["api ?", "own o", "web a"]).await;
    let layout = Layout::default();
    let saved = SavedView { view: View::clone(&first.cache.load()), current_at_ms: 1 };
    let moment = Moment::read();
    let saved = SavedView::decode(&saved.encode(&layout, moment).unwrap(), &layout, moment).unwrap().view;
    drop(first);

    writer.delete(format!("{WEB}/a"), None).await.unwrap();
    put(&writer, WEB, "b").await;
    let second = Reader::start(&world, world.server.address(), saved, LONG);
    assert_eq!(told(&second.cache.load()), ["api ?", "own o", "web a"], "from the file, at once");
    second.shows("as it is by now", |view| told(view) == ["api ?", "own o", "web b"]).await;
    assert_eq!(second.demand.held(), 0);

    second.settings.send_replace(owning("api"));
    second.shows("what is its own by now", |view| told(view) == ["api x", "own o", "web b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_watches_and_reads_what_was_followed_before_it_answers_to_barriers() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    put(&writer, WEB, "a").await;
    let (address, sent) = recorded(world.server.address()).await;
    let web = Service::new(key("web"));
    let saved = View { services: [Arc::new(web)].into(), is_loaded: true, ..View::default() };
    let mut word = JoinSet::new();
    let reader = Reader::start_with(&world, address, saved, LONG, |client, mirror| {
        let name = SubscriberName::parse("reader").expect("a name");
        let subscription = Subscription::new(client.clone(), name);
        let mirror = mirror.with_subscription(&subscription);
        word.spawn(subscription.run(CancellationToken::new()));
        mirror
    });
    reader.shows("what is followed", |view| told(view) == ["web a"]).await;
    let first = |text: &str| {
        let sent = sent.lock().expect("nobody panics with it");
        sent.windows(text.len()).position(|window| window == text.as_bytes())
    };
    soon("it subscribes", async {
        while first("/zookeeper/rollcall/subscribers/reader").is_none() {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    // A member that is told of a subscriber takes it for a follower of what it watches by then.
    assert!(first(&format!("{WEB}/a")) < first("/zookeeper/rollcall/subscribers/reader"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_more_services_than_are_followed_those_that_were_not_used_for_longest_make_room() {
    /// As many as are followed.
    const FOLLOWED: usize = 4_096;
    const SERVICES: usize = FOLLOWED + 100;
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    writer.create_all("/rollcall/services/default").await.unwrap();
    let names: Vec<_> = (0..SERVICES).map(|number| format!("s{number:05}")).collect();
    let create = |path, data: &str| {
        MultiOp::Create(CreateRequest::open(path, data.to_owned(), CreateMode::Persistent))
    };
    for names in names.chunks(500) {
        let ops = names.iter().flat_map(|name| {
            let path = format!("/rollcall/services/default/{name}");
            [create(path.clone(), ""), create(format!("{path}/i"), OWN)]
        });
        writer.multi(ops.collect()).await.unwrap();
    }
    let wire = Wire::start(world.server.address()).await;
    let reader = Reader::start(&world, wire.address, View::default(), LONG);
    reader.shows("all names", |view| view.services.len() == SERVICES).await;
    for (asked, name) in names.iter().enumerate() {
        drop(reader.demand.hold(&reader.cache, &key(name)));
        if asked % 500 == 499 {
            reader.shows("those that were asked for", |view| view.services[&key(name)].is_followed).await;
        }
    }
    reader.shows("the last", |view| view.services[&key(&names[SERVICES - 1])].is_followed).await;
    reader.shows("as many as are followed", |view| view.followed() == FOLLOWED).await;
    assert!(!reader.cache.load().services[&key(&names[0])].is_followed);
    assert_eq!(reader.stats.lapses(), (SERVICES - FOLLOWED) as u64);

    // More paths than one request has room for are watched again.
    let reads = reader.stats.walk_reads();
    reader.cut(&wire, async {}).await;
    assert_eq!(reader.stats.walk_reads(), reads, "nothing has changed");
    for name in [&names[0], &names[SERVICES - 1]] {
        put(&writer, &format!("/rollcall/services/default/{name}"), "j").await;
    }
    reader.shows("a change", |view| view.services[&key(&names[SERVICES - 1])].instances.len() == 2).await;
    assert!(reader.cache.load().services[&key(&names[0])].instances.is_empty());
    assert_eq!(reader.stats.defects(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_is_followed_whole_beside_it() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    put(&writer, WEB, "a").await;
    let nerve = r#"{"host":"10.1.2.6","port":8042}"#;
    writer.create_all("/nerve/pay").await.unwrap();
    writer.create("/nerve/pay/i_1", nerve, CreateMode::Persistent).await.unwrap();
    let label = |text| Label::parse(text).expect("a label");
    let adopted = Adopted {
        format: Format::Nerve,
        root: ZnodePath::parse("/nerve/pay").expect("a path"),
        namespace: label("others"),
        service: Some(label("pay")),
    };
    let client = world.client(world.server.address(), LONG_SESSION);
    let cache = Arc::new(Cache::new(clock::now()));
    let (settings, view_settings) = LiveViewSettings::new(owning("own"));
    let mirror = |source| Mirror::new(client.clone(), &cache, source, view_settings.clone());
    let registry = Source::Registry { layout: Layout::default(), adopted: vec![adopted.clone()] };
    let demand = Arc::<Demand>::default();
    let mirrors = [mirror(registry).on_demand(LONG, demand.clone()), mirror(Source::Adopted(adopted))];
    let mut task = JoinSet::new();
    let stats = mirrors[0].stats();
    for mirror in mirrors {
        task.spawn(mirror.run(CancellationToken::new()));
    }
    let reader = Reader { client, cache, demand, stats, settings, _task: task };
    reader.shows("both", |view| told(view) == ["web ?", "pay i-1"]).await;
    reader.follow("web").await;
    assert_eq!(told(&reader.cache.load()), ["web a", "pay i-1"]);
    writer.create("/nerve/pay/i_2", nerve, CreateMode::Persistent).await.unwrap();
    put(&writer, WEB, "b").await;
    reader.shows("changes of both", |view| told(view) == ["web a b", "pay i-1 i-2"]).await;
}

/// A way to a server, and what passes on it.
async fn recorded(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let (listener, sent) = (listen().await, Arc::<Mutex<Vec<u8>>>::default());
    let (address, record) = (address_of(&listener), sent.clone());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(server).await else { continue };
            let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { drop(tokio::io::copy(&mut from_far, &mut to_near).await) });
            let record = record.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = from_near.read(&mut buffer).await {
                    record.lock().expect("nobody panics with it").extend_from_slice(&buffer[..count]);
                    if to_far.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thorough_walks_of_what_is_followed_find_nothing_that_was_not_told() {
    let world = World::start();
    let writer = world.client(world.server.address(), LONG_SESSION);
    for service in 0..20 {
        put(&writer, &format!("/rollcall/services/default/s{service}"), "i0").await;
    }
    let reader = Reader::start_with(&world, world.server.address(), View::default(), SHORT, |_, mirror| {
        mirror.with_thorough_interval(Duration::from_millis(5))
    });
    reader.shows("the names", |view| view.services.len() == 20).await;
    for change in 0..200 {
        let service = format!("/rollcall/services/default/s{}", change % 20);
        if change % 3 == 0 {
            let name = format!("s{}", change * 7 % 20);
            reader.follow(&name).await;
        }
        let path = format!("{service}/i{}", change % 5);
        match writer.create(path.as_str(), OWN, CreateMode::Persistent).await {
            Ok(_) => {}
            Err(error) if error.op_error() == Some(OpError::NodeExists) => {
                writer.delete(path.as_str(), None).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        if change % 50 == 0 {
            let name = format!("/rollcall/services/n{change}/once");
            writer.create_all(&name).await.unwrap();
            walks_on(&reader.stats, 1).await;
            writer.delete(name, None).await.unwrap();
        }
    }
    walks_on(&reader.stats, 12).await;
    assert_eq!(reader.stats.defects(), 0);
    assert!(reader.stats.lapses() > 0, "some came and went");
}

/// Nobody lapses within a test.
const LONG: Duration = Duration::from_secs(600);
/// Soon after the last lookup.
const SHORT: Duration = Duration::from_millis(400);

/// A mirror that follows what is looked up, and `own.default`.
struct Reader {
    client: Client,
    cache: Arc<Cache>,
    demand: Arc<Demand>,
    stats: Arc<MirrorStats>,
    settings: watch::Sender<ViewSettings>,
    _task: JoinSet<()>,
}

impl Reader {
    fn start(world: &World, address: SocketAddr, saved: View, idle: Duration) -> Self {
        Self::start_with(world, address, saved, idle, |_, mirror| mirror)
    }

    fn start_with(
        world: &World,
        address: SocketAddr,
        saved: View,
        idle: Duration,
        with: impl FnOnce(&Client, Mirror) -> Mirror,
    ) -> Self {
        let client = world.client(address, LONG_SESSION);
        let cache = Arc::new(Cache::with_saved(saved, Duration::ZERO, clock::now()));
        let demand = Arc::<Demand>::default();
        let (settings, view_settings) = LiveViewSettings::new(owning("own"));
        let mirror = Mirror::new(client.clone(), &cache, Source::all(Layout::default()), view_settings);
        let mirror = with(&client, mirror.on_demand(idle, demand.clone()));
        let stats = mirror.stats();
        let mut task = JoinSet::new();
        task.spawn(mirror.run(CancellationToken::new()));
        Self { client, cache, demand, stats, settings, _task: task }
    }

    /// Looks a service up until its instances are known.
    async fn follow(&self, name: &str) {
        soon("it is followed", async {
            while !self.cache.load().look_up(&key(name)).expect("it is known").is_followed {
                self.demand.hold(&self.cache, &key(name)).expect("there is room").ready().await;
            }
        })
        .await;
    }

    async fn shows(&self, what: &str, is_so: impl Fn(&View) -> bool) {
        let mut published = self.cache.subscribe();
        soon(what, async {
            loop {
                published.borrow_and_update();
                if self.cache.load().is_loaded && is_so(&self.cache.load()) {
                    return;
                }
                published.changed().await.expect("the cache is there");
            }
        })
        .await;
    }

    /// Cuts the wire, makes a change, mends it, and waits until the view follows again.
    async fn cut(&self, wire: &Wire, change: impl Future<Output = ()>) {
        let walks = self.stats.walks();
        wire.is_cut.send_replace(true);
        soon("it notices", async {
            while !self.cache.is_stale() {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
        change.await;
        wire.is_cut.send_replace(false);
        soon("it follows again", async {
            while self.cache.is_stale() || self.stats.walks() == walks {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
    }
}

/// Settings without a brake, of a sidecar that has this service of its own.
fn owning(name: &str) -> ViewSettings {
    let brake = BrakePlan { is_enabled: false, ..BrakePlan::default() };
    ViewSettings { brake, home: Home::new(None, [key(name)]) }
}

/// Every service with its instances, or a question mark where these are not followed.
fn told(view: &View) -> Vec<String> {
    let services = view.services.values().map(|service| {
        let ids: Vec<_> = service.instances.iter().map(|instance| instance.id.to_string()).collect();
        let known = if service.is_followed { ids.join(" ") } else { "?".to_owned() };
        format!("{} {known}", service.key.name)
    });
    services.collect()
}

async fn put(writer: &Client, service: &str, id: &str) {
    writer.create_all(service).await.expect("it can be created");
    writer.create(format!("{service}/{id}"), OWN, CreateMode::Persistent).await.expect("it can be created");
}

fn key(name: &str) -> ServiceKey {
    let label = |text| Label::parse(text).expect("a label");
    ServiceKey { namespace: label("default"), name: label(name) }
}
