//! Registrations that are replaced while the registrar runs, against Apache ZooKeeper 3.8.0.

use rollcall::registry::check::HealthState;

use super::formats::{all, web_in_formats};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_about_an_instance_is_written_without_a_gap() {
    let world = World::start();
    let app = app::start().await;
    let a = world.sidecar("a", vec![web("a", address_of(&app))]);
    let reader = world.sidecar("reader", vec![]);
    reader.shows("it is up", |web| statuses(web) == [("a", Status::Up)]).await;
    let since = a.registrar.status()[0].checks[0].standing.changed_at_ms;
    let sampler = Sampler::start(&reader, &["a"]);

    let wanted = Registration { weight: 7, zone: Some("x".to_owned()), ..web("a", address_of(&app)) };
    a.registrar.replace(vec![wanted]).await.unwrap();
    let is_changed = |web: &[Arc<Instance>]| {
        web.iter().all(|web| {
            web.record.is_up() && web.record.weight == 7 && web.record.zone.as_deref() == Some("x")
        })
    };
    reader.shows("it has changed", is_changed).await;
    let check = &a.registrar.status()[0].checks[0];
    assert_eq!((check.standing.changed_at_ms, check.standing.state), (since, HealthState::Passing));
    assert!(sampler.stop().await > 0, "it was there all the time");

    // A check of the same name that asks somebody else goes on from what it came to, and notices.
    let nobody = listen().await;
    let elsewhere = address_of(&nobody);
    drop(nobody);
    let text = format!(
        "{{name: web, id: a, address: 127.0.0.1, port: {}, checks: [{{kind: tcp, interval: 100ms, port: {}}}]}}",
        address_of(&app).port(),
        elsewhere.port()
    );
    let health = a.registrar.instances();
    a.registrar.replace(vec![registration(&text)]).await.unwrap();
    assert_eq!(health.borrow()[0].health, HealthState::Passing);
    reader.shows("it fails", |web| statuses(web) == [("a", Status::Failing)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_new_is_registered_and_who_is_not_wanted_leaves_in_order() {
    let world = World::start();
    let (app_a, app_b) = (app::start().await, app::start().await);
    let [web_a, web_b] = [("a", &app_a), ("b", &app_b)].map(|(id, app)| web(id, address_of(app)));
    let sidecar = world.sidecar("a", vec![]);
    let reader = world.sidecar("reader", vec![]);
    sidecar.registrar.replace(vec![web_a.clone()]).await.unwrap();
    reader.shows("a is up", |web| statuses(web) == [("a", Status::Up)]).await;

    sidecar.registrar.replace(vec![web_b.clone()]).await.unwrap();
    reader.shows("a drains", |web| statuses(web).contains(&("a", Status::Draining))).await;
    let draining_since = clock::now();
    // Wanted again in time, it stays.
    sidecar.registrar.replace(vec![web_b.clone(), web_a.clone()]).await.unwrap();
    reader.shows("both are up", |web| statuses(web) == [("a", Status::Up), ("b", Status::Up)]).await;
    assert!(draining_since.elapsed() < Duration::from_secs(1), "the test is too slow to mean anything");
    let ids = |sidecar: &Sidecar| {
        sidecar.registrar.status().iter().map(|own| own.instance.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&sidecar), ["b", "a"], "as in the settings");

    sidecar.registrar.replace(vec![web_b]).await.unwrap();
    reader.shows("a drains", |web| statuses(web) == [("a", Status::Draining), ("b", Status::Up)]).await;
    let draining_since = clock::now();
    reader.shows("a is gone", |web| statuses(web) == [("b", Status::Up)]).await;
    // A tenth less than a second: the reader may have heard of it late.
    assert!(draining_since.elapsed() > Duration::from_millis(900), "{:?}", draining_since.elapsed());
    soon("it is forgotten", async {
        while ids(&sidecar) != ["b"] {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    sidecar.registrar.replace(vec![]).await.unwrap();
    reader.shows("nobody is left", |web| web.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_is_not_written_in_any_more_goes_from_there() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    let before = web_in_formats("a", address_of(&app));
    let a = world.sidecar("a", vec![before.clone()]);
    a.is_registered_as(Status::Up).await;
    let there = all(&other).await;
    assert_eq!(there.len(), 3, "{there:?}");

    // Nerve stays as it is, the others go.
    let mut now = Registration { weight: 9, ..before.clone() };
    now.formats.drain(..2);
    a.registrar.replace(vec![now]).await.unwrap();
    a.shows("it has changed", |web| web.iter().all(|web| web.record.weight == 9)).await;
    let left = all(&other).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].format, before.formats[2].format());

    a.registrar.replace(vec![before]).await.unwrap();
    a.shows("it is as before", |web| web.iter().all(|web| web.record.weight == 1)).await;
    assert_eq!(all(&other).await.len(), 3);
}
