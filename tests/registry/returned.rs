//! A primary whose sidecar was killed, or left, and starts again with what its state directory holds, the saved view above all,
//! against Apache ZooKeeper 3.8.0.

use rollcall::registry::registrar::DrainError;

use super::*;

/// Nobody takes his tier again by himself.
const MANUAL: &str = r#"{"failback":"manual"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_killed_waits_below_the_standby_that_took_over() {
    let world = World::start();
    let (app_a, app_s) = (app::start().await, app::start().await);
    let state_dir = tempfile::tempdir().unwrap();
    let primary = || primary_at(&world, world.server.address(), &app_a, state_dir.path());
    let a = primary();
    let s = standby_of(&world, &app_s, state_dir.path()).await;

    let offered = record_offers(&s);
    drop(a);
    s.offers("the standby", "s").await;
    let a = primary();
    assert_eq!(ups(&a.instances()), ["a", "s"], "it knows no better at first");
    s.shows("the primary is back, below it", |web| ups(web) == ["a", "s"] && is_held(&web[0])).await;
    // Out of the settings and back in is no way around that.
    a.registrar.replace(Vec::new()).await.unwrap();
    s.shows("it is gone", |web| web.len() == 1).await;
    a.registrar.replace(vec![web("a", address_of(&app_a))]).await.unwrap();
    s.shows("it is back, below it still", |web| ups(web) == ["a", "s"] && is_held(&web[0])).await;
    assert_eq!(offered.stop().await, ["a", "s"]);
    assert_eq!(a.registrar.fail_back(None).await, Ok(1));
    s.offers("the primary", "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_drained_when_it_was_killed_is_held_off_by_nobody() {
    let world = World::start();
    let (app_a, app_s) = (app::start().await, app::start().await);
    let state_dir = tempfile::tempdir().unwrap();
    let primary = || primary_at(&world, world.server.address(), &app_a, state_dir.path());
    let a = primary();
    let s = standby_of(&world, &app_s, state_dir.path()).await;
    a.registrar.start_draining(None, None).await.unwrap();
    s.offers("the standby", "s").await;
    drop(a);
    let _a = primary();
    s.offers("the primary, as nobody had a fault", "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_back_before_its_record_went_keeps_its_tier() {
    let world = World::start();
    let (app_a, app_s) = (app::start().await, app::start().await);
    let state_dir = tempfile::tempdir().unwrap();
    let primary = || {
        // Without checks, so that it passes before anything is known of the others.
        let port = address_of(&app_a).port();
        let text = format!("{{name: web, id: a, address: 127.0.0.1, port: {port}, checks: []}}");
        let (address, registrations) = (world.server.address(), vec![registration(&text)]);
        world.sidecar_with(address, LONG_SESSION, "a", registrations, Some(state_dir.path()))
    };
    let a = primary();
    let s = standby_of(&world, &app_s, state_dir.path()).await;

    let (offered, before) = (record_offers(&s), s.instances()[0].session);
    drop(a);
    let a = primary();
    let is_of_next = |web: &[Arc<Instance>]| web[0].session != before;
    s.shows("its record is of the next process", is_of_next).await;
    a.is_registered_as(Status::Up).await;
    assert!(!is_held(&s.instances()[0]) && !a.own().is_held);
    assert_eq!(offered.stop().await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_told_to_leave_while_he_was_cut_off_has_left_in_order() {
    let world = World::start();
    let (app_a, app_s) = (app::start().await, app::start().await);
    let wire = Wire::start(world.server.address()).await;
    let state_dir = tempfile::tempdir().unwrap();
    let primary = || primary_at(&world, wire.address, &app_a, state_dir.path());
    let a = primary();
    let s = standby_of(&world, &app_s, state_dir.path()).await;

    wire.is_cut.send_replace(true);
    a.own_where("it is cut off", |own| matches!(own, RegistrationState::Pending { .. })).await;
    let within = Duration::from_millis(500);
    assert_eq!(a.registrar.drain(within).await, Err(DrainError::Deadline { within }));
    drop(a);
    s.offers("the standby", "s").await;
    wire.is_cut.send_replace(false);
    let a = primary();
    s.offers("the primary", "a").await;
    assert!(!is_held(&s.instances()[0]) && !a.own().is_held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_in_order_or_whose_session_expired_takes_his_tier_again_at_once() {
    let world = World::start();
    let (app_a, app_s) = (app::start().await, app::start().await);
    let wire = Wire::start(world.server.address()).await;
    let state_dir = tempfile::tempdir().unwrap();
    let primary = || primary_at(&world, wire.address, &app_a, state_dir.path());
    let a = primary();
    let s = standby_of(&world, &app_s, state_dir.path()).await;
    let offered = record_offers(&s);

    a.registrar.drain(DEADLINE).await.unwrap();
    a.client.clone().close().await.unwrap();
    drop(a);
    s.offers("the standby", "s").await;
    let _a = primary();
    s.offers("the primary", "a").await;

    wire.is_cut.send_replace(true);
    s.offers("the standby", "s").await;
    wire.is_cut.send_replace(false);
    s.offers("the primary", "a").await;
    assert!(!is_held(&s.instances()[0]));
    assert_eq!(offered.stop().await, ["a", "s", "a", "s", "a"]);
}

/// The primary, whose sidecar reaches the ensemble at `address`.
fn primary_at(world: &World, address: SocketAddr, app: &TcpListener, state_dir: &Path) -> Sidecar {
    world.sidecar_with(address, SHORT_SESSION, "a", vec![web("a", address_of(app))], Some(state_dir))
}

/// Its standby, once it has seen the primary, and the primary's view is saved that says so, and that nobody takes his tier again by
/// himself.
async fn standby_of(world: &World, app: &TcpListener, state_dir: &Path) -> Sidecar {
    let s = world.sidecar("s", vec![Registration { priority: 10, ..web("s", address_of(app)) }]);
    s.offers("the primary", "a").await;
    s.client.set(WEB, MANUAL, None).await.expect("it is written");
    is_saved(state_dir, &["a", "s"]).await;
    s
}

/// Waits until the saved view shows these instances, and that nobody takes his tier again by himself.
async fn is_saved(state_dir: &Path, ids: &[&str]) {
    let is_so = || {
        let saved = SavedView::load(state_dir, &Layout::default(), Moment::read()).expect("it is whole")?;
        let web = saved.view.services.get(&web_key())?;
        Some(ups(&web.instances) == ids && web.settings.failback == FailbackMode::Manual)
    };
    soon("the view is saved", async {
        while is_so() != Some(true) {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}
