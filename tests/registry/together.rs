//! Several services of one sidecar, which are written together, against Apache ZooKeeper 3.8.0.

use rollcall::id::Zxid;
use rollcall::registry::check::HealthState;
use rollcall::registry::{Reason, Record};
use rollcall::znode::{Acl, Permissions, Stat};

use super::*;

const SERVICES: [&str; 3] = ["api", "db", "web"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_one_sidecar_come_change_and_go_in_one_txn() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    let wire = Wire::start(world.server.address()).await;
    wire.is_cut.send_replace(true);
    let services = SERVICES.map(|name| named(name, "a", address_of(&app)));
    let sidecar = world.sidecar_at(wire.address, SHORT_SESSION, "a", services.into());
    all_where(&sidecar, "their checks pass", |own| own.health == HealthState::Passing).await;
    wire.is_cut.send_replace(false);
    are_registered_as(&sidecar, Status::Up).await;
    let up = written_at(&other, "a").await;
    assert_eq!(other.exists("/services/web/a").await.unwrap().unwrap().czxid, up, "other formats, too");
    assert_eq!(sidecar.registrar.stats().writes(), 1);

    sidecar.registrar.start_maintenance(None, Reason::default()).await.unwrap();
    are_registered_as(&sidecar, Status::Maintenance).await;
    let maintained = written_at(&other, "a").await;
    assert!(maintained > up);
    sidecar.registrar.end_maintenance(None).await.unwrap();
    are_registered_as(&sidecar, Status::Up).await;

    let before = written_at(&other, "a").await;
    wire.is_cut.send_replace(true);
    soon("they are gone with their session", async {
        while other.exists(record_of("web", "a")).await.unwrap().is_some() {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    wire.is_cut.send_replace(false);
    soon("they are back", async {
        while other.exists(record_of("web", "a")).await.unwrap().is_none() {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    assert!(written_at(&other, "a").await > before);
    are_registered_as(&sidecar, Status::Up).await;
    let writes = sidecar.registrar.stats().writes();
    assert_eq!((writes, sidecar.registrar.stats().repairs()), (4, 3), "three were brought back by the last");

    let registrar = sidecar.registrar.clone();
    let drained = tokio::spawn(async move { registrar.drain(DEADLINE).await });
    are_registered_as(&sidecar, Status::Draining).await;
    written_at(&other, "a").await;
    drained.await.unwrap().unwrap();
    let mut gone_at = Vec::new();
    for name in SERVICES {
        assert_eq!(other.exists(record_of(name, "a")).await.unwrap(), None);
        gone_at.push(stat_of(&other, &service_of(name)).await.pzxid);
    }
    assert!(gone_at.iter().all(|at| *at == gone_at[0]), "{gone_at:?}");
    assert_eq!(sidecar.registrar.stats().writes(), writes + 2, "draining, and gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_id_somebody_else_has_holds_up_nobody_and_is_registered_when_he_has_gone() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    let holder = world.sidecar("holder", vec![named("db", "a", address_of(&app))]);
    holder.is_registered_as(Status::Up).await;
    let (sidecar, wire) = ready(&world, &app).await;
    wire.is_cut.send_replace(false);

    let conflict = |own: &OwnInstance| matches!(&own.registration, RegistrationState::Conflict { owner, .. } if owner == "holder");
    let up = |own: &OwnInstance| own.registration == RegistrationState::Registered(Status::Up);
    let is_db = |own: &OwnInstance| own.service.name.as_str() == "db";
    all_where(&sidecar, "db is in conflict", |own| if is_db(own) { conflict(own) } else { up(own) }).await;
    let api = stat_of(&other, &record_of("api", "a")).await;
    assert_eq!(api.czxid, stat_of(&other, &record_of("web", "a")).await.czxid);
    assert_eq!(sidecar.registrar.stats().failures(), 0);

    holder.client.close().await.unwrap();
    all_where(&sidecar, "all are up", up).await;
    let (data, _) = other.get(record_of("db", "a")).await.unwrap();
    assert_eq!(Record::decode(&data.unwrap()).unwrap().owner, "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_may_not_be_written_fails_alone() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    for name in ["api", "web"] {
        other.create_all(&service_of(name)).await.unwrap();
    }
    let closed = vec![Acl::anyone(Permissions(Permissions::READ.0 | Permissions::ADMIN.0))];
    other.create_with_acl(service_of("db"), "", CreateMode::Persistent, closed).await.unwrap();
    let (sidecar, wire) = ready(&world, &app).await;
    wire.is_cut.send_replace(false);

    let up = |own: &OwnInstance| own.registration == RegistrationState::Registered(Status::Up);
    let refused = |own: &OwnInstance| matches!(&own.registration, RegistrationState::Pending { reason } if reason.contains("ACL"));
    let is_db = |own: &OwnInstance| own.service.name.as_str() == "db";
    all_where(&sidecar, "db is refused", |own| if is_db(own) { refused(own) } else { up(own) }).await;
    let api = stat_of(&other, &record_of("api", "a")).await;
    assert_eq!(api.czxid, stat_of(&other, &record_of("web", "a")).await.czxid, "the others have one txn");
    assert!(sidecar.registrar.stats().failures() > 0);

    other.set_acl(service_of("db"), vec![Acl::open()], None).await.unwrap();
    all_where(&sidecar, "all are up", up).await;
    assert_eq!(sidecar.registrar.stats().writes(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_server_takes_at_once_is_written_in_several_txns() {
    const COUNT: u16 = 100;
    let world = World::start();
    let other = world.client(world.server.address(), LONG_SESSION);
    let text = "x".repeat(12 << 10);
    let one = |index: u16| {
        registration(&format!(
            "{{name: s{index}, id: a, address: 127.0.0.1, port: 1, checks: [], meta: {{text: {text}}}}}"
        ))
    };
    let sidecar = world.sidecar("a", (0..COUNT).map(one).collect());
    are_registered_as(&sidecar, Status::Up).await;
    let mut txns = BTreeSet::new();
    for index in 0..COUNT {
        txns.insert(stat_of(&other, &record_of(&format!("s{index}"), "a")).await.czxid);
    }
    // 1.2 MiB in pieces of 256 KiB.
    assert!((5..=7).contains(&txns.len()), "{txns:?}");
    sidecar.registrar.drain(DEADLINE).await.unwrap();
    assert_eq!(other.exists(record_of("s7", "a")).await.unwrap(), None);
}

/// A sidecar whose instances are all well, behind a wire that is cut.
async fn ready(world: &World, app: &TcpListener) -> (Sidecar, Wire) {
    let wire = Wire::start(world.server.address()).await;
    wire.is_cut.send_replace(true);
    let services = SERVICES.map(|name| named(name, "a", address_of(app)));
    let sidecar = world.sidecar_at(wire.address, LONG_SESSION, "a", services.into());
    all_where(&sidecar, "their checks pass", |own| own.health == HealthState::Passing).await;
    (sidecar, wire)
}

/// Waits until this is so of every instance at the same time.
async fn all_where(sidecar: &Sidecar, what: &str, is_so: impl Fn(&OwnInstance) -> bool) {
    let mut instances = sidecar.registrar.instances();
    soon(what, instances.wait_for(|instances| instances.iter().all(&is_so)))
        .await
        .expect("the registrar runs");
}

async fn are_registered_as(sidecar: &Sidecar, status: Status) {
    all_where(sidecar, "the registrations", |own| own.registration == RegistrationState::Registered(status))
        .await;
}

/// The txn in which all records were written.
async fn written_at(client: &Client, id: &str) -> Zxid {
    let mut written_at = Vec::new();
    for name in SERVICES {
        let stat = stat_of(client, &record_of(name, id)).await;
        written_at.extend([stat.czxid, stat.mzxid]);
    }
    assert!(written_at.iter().all(|at| *at == written_at[0]), "{written_at:?}");
    written_at[0]
}

async fn stat_of(client: &Client, path: &str) -> Stat {
    client.exists(path).await.expect("the server answers").unwrap_or_else(|| panic!("{path} is not there"))
}

fn record_of(name: &str, id: &str) -> String {
    format!("{}/{id}", service_of(name))
}

fn service_of(name: &str) -> String {
    format!("/rollcall/services/default/{name}")
}

fn named(name: &str, id: &str, server: SocketAddr) -> Registration {
    registration(&format!(
        "{{name: {name}, id: {id}, address: {}, port: {}, checks: [{{kind: tcp, interval: 100ms}}],
           formats: [{{format: curator}}]}}",
        server.ip(),
        server.port()
    ))
}
