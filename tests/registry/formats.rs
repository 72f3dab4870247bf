//! Own instances in the formats of other systems, against Apache ZooKeeper 3.8.0.

use bytes::Bytes;
use rollcall::id::SessionId;
use rollcall::registry::formats::Format;
use rollcall::znode::{CreateMode, Stat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::*;

const CURATOR: &str = "/services/web/a";
const SERVERSET: &str = "/serverset/web";
const NERVE: &str = "/nerve/web";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_is_written_in_comes_and_goes_with_its_record() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    let a = world.sidecar("a", vec![web_in_formats("a", address_of(&app))]);
    a.is_registered_as(Status::Up).await;

    let record = stat(&other, &format!("{WEB}/a")).await;
    let there = all(&other).await;
    assert_eq!(there.len(), 3, "{there:?}");
    for found in &there {
        assert_eq!(found.stat.ephemeral_owner, record.ephemeral_owner, "{found:?}");
        assert_eq!(found.stat.czxid, record.czxid, "in one multi: {found:?}");
        let read = found.format.decode(&found.path, &found.data).unwrap();
        assert_eq!((read.addresses[0], read.ports[0].port), (address_of(&app).ip(), address_of(&app).port()));
        assert!(read.is_up());
    }

    let address = address_of(&app);
    drop(app);
    a.is_registered_as(Status::Failing).await;
    assert_eq!(all(&other).await, [], "gone with the status");
    let record = stat(&other, &format!("{WEB}/a")).await;
    assert_eq!(stat(&other, NERVE).await.pzxid, record.czxid, "in one multi");

    let _app = app::start_at(address).await;
    a.is_registered_as(Status::Up).await;
    assert_eq!(all(&other).await.len(), 3);
    a.registrar.drain(DEADLINE).await.unwrap();
    assert_eq!(all(&other).await, []);
    assert_eq!(a.registrar.stats().repairs(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_process_left_in_other_formats_is_replaced_without_a_gap() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    // A member at the same place whose endpoint is another's, and one at ours that lives by a session that is not ours.
    let neighbour = r#"{"host":"10.0.0.9","port":1}"#.to_owned();
    let stranger = format!(r#"{{"host":"127.0.0.1","port":{}}}"#, address_of(&app).port());
    other.create_all(NERVE).await.unwrap();
    let mut strangers = Vec::new();
    for data in [neighbour, stranger] {
        let path = format!("{NERVE}/a_");
        strangers.push(other.create(path, data, CreateMode::EphemeralSequential).await.unwrap());
    }
    let killed = world.sidecar_at(
        world.server.address(),
        SHORT_SESSION,
        "a",
        vec![web_in_formats("a", address_of(&app))],
    );
    killed.is_registered_as(Status::Up).await;
    let before = all(&other).await;
    assert_eq!(before.len(), 5, "{before:?}");
    let old_session = stat(&other, &format!("{WEB}/a")).await.ephemeral_owner;

    let is_over = CancellationToken::new();
    let samples = tokio::spawn({
        let (client, is_over) = (other.clone(), is_over.clone());
        async move {
            let mut samples = 0;
            while !is_over.is_cancelled() {
                assert_eq!(client.children(SERVERSET).await.unwrap().0.len(), 1, "in sample {samples}");
                assert_eq!(client.children(NERVE).await.unwrap().0.len(), 3, "in sample {samples}");
                assert_eq!(client.children("/services/web").await.unwrap().0, ["a"], "in sample {samples}");
                samples += 1;
            }
            samples
        }
    });
    // Dropped, not closed: its session lives on, as after kill -9.
    drop(killed);
    let next = world.sidecar("a", vec![web_in_formats("a", address_of(&app))]);
    next.is_registered_as(Status::Up).await;
    let session = stat(&other, &format!("{WEB}/a")).await.ephemeral_owner;
    assert_ne!(session, old_session);
    soon("the old session ends", async {
        while world.server.four_letter_word("dump").contains(&old_session.to_string()) {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    is_over.cancel();
    assert!(samples.await.expect("nothing was missing, or there twice, in any sample") > 0);

    let after = all(&other).await;
    let ours = after.iter().filter(|found| found.stat.ephemeral_owner == session);
    assert_eq!(ours.count(), 3, "{after:?}");
    for stranger in strangers {
        assert!(after.contains(before.iter().find(|found| found.path == stranger).unwrap()), "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_to_other_formats_is_repaired_and_what_is_theirs_is_left() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    other.create_all("/services/web").await.unwrap();
    other.create(CURATOR, "theirs", CreateMode::Persistent).await.unwrap();
    let a = world.sidecar("a", vec![web_in_formats("a", address_of(&app))]);
    a.is_registered_as(Status::Up).await;
    let there = all(&other).await;
    assert_eq!(there.len(), 3, "the others do without it: {there:?}");
    assert_eq!(at(&there, Format::Curator).data, "theirs");

    other.delete(CURATOR, None).await.unwrap();
    until(&other, "it is written", |there| at(there, Format::Curator).data.starts_with(b"{")).await;
    let written = at(&all(&other).await, Format::Curator);
    other.set(CURATOR, "garbage", None).await.unwrap();
    until(&other, "it is set again", |there| at(there, Format::Curator).data == written.data).await;
    let repaired = stat(&other, CURATOR).await;
    assert_eq!((repaired.czxid, repaired.version), (written.stat.czxid, 2), "without a gap");

    for format in [Format::Serverset, Format::Nerve] {
        let before = at(&all(&other).await, format);
        other.delete(before.path.clone(), None).await.unwrap();
        until(&other, "it is back", |there| there.len() == 3).await;
        let after = at(&all(&other).await, format);
        assert_eq!(after.data, before.data);
        other.set(after.path.clone(), "garbage", None).await.unwrap();
        until(&other, "it is replaced", |there| there.len() == 3 && at(there, format).data == before.data)
            .await;
    }
    let before = all(&other).await;
    let record = format!("{WEB}/a");
    other.delete(record.clone(), None).await.unwrap();
    soon("the record is back", async {
        while other.exists(record.clone()).await.unwrap().is_none() {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    assert_eq!(all(&other).await, before, "what is as wanted stays");
    assert!(a.registrar.stats().repairs() >= 6, "{}", a.registrar.stats().repairs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_id_somebody_else_has_is_in_no_format() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    let a = world.sidecar("a", vec![web_in_formats("a", address_of(&app))]);
    a.is_registered_as(Status::Up).await;
    let record = format!("{WEB}/a");
    let (data, _) = other.get(record.clone()).await.unwrap();
    let theirs =
        String::from_utf8(data.unwrap().to_vec()).unwrap().replace(r#""owner":"a""#, r#""owner":"b""#);
    let ops = vec![
        MultiOp::Delete { path: record.clone(), version: -1 },
        MultiOp::Create(CreateRequest::open(record.clone(), theirs, CreateMode::Ephemeral)),
    ];
    other.multi(ops).await.unwrap();
    a.own_where("a conflict", |own| matches!(own, RegistrationState::Conflict { .. })).await;
    assert_eq!(all(&other).await, []);

    other.delete(record, None).await.unwrap();
    a.is_registered_as(Status::Up).await;
    assert_eq!(all(&other).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_found_again_when_the_answer_is_lost() {
    let world = World::start();
    let app = app::start().await;
    let other = world.client(world.server.address(), LONG_SESSION);
    // So that the first multi is not the one that finds them missing.
    for parent in [WEB, "/services/web", SERVERSET, NERVE] {
        other.create_all(parent).await.unwrap();
    }
    let lossy = LossyWire::start(world.server.address()).await;
    let web = web_in_formats("a", address_of(&app));
    let a = world.sidecar_at(lossy.address, LONG_SESSION, "a", vec![web]);
    let mut is_lost = lossy.is_lost.subscribe();
    soon("the first multi", is_lost.wait_for(|is_lost| *is_lost)).await.unwrap();
    until(&other, "it is written", |there| there.len() == 3).await;
    let before = all(&other).await;
    assert!(a.own().registration != RegistrationState::Registered(Status::Up), "it does not know");

    lossy.is_lossless.send_replace(true);
    a.is_registered_as(Status::Up).await;
    assert_eq!(all(&other).await, before, "neither gone nor there twice");
    assert_eq!(a.registrar.stats().writes(), 0, "and not written again");
    let address = address_of(&app);
    drop(app);
    a.is_registered_as(Status::Failing).await;
    assert_eq!(all(&other).await, []);
    let _app = app::start_at(address).await;
    a.is_registered_as(Status::Up).await;
    assert_eq!(all(&other).await.len(), 3);
}

/// A wire that carries everything up to the first multi, and that, but not its answer: then it breaks.
struct LossyWire {
    address: SocketAddr,
    is_lost: watch::Sender<bool>,
    /// Until then whoever calls after that is refused.
    is_lossless: watch::Sender<bool>,
}

impl LossyWire {
    async fn start(server: SocketAddr) -> Self {
        let listener = listen().await;
        let address = address_of(&listener);
        let (is_lost, is_lossless) = (watch::Sender::new(false), watch::Sender::new(false));
        tokio::spawn(lose_an_answer(listener, server, is_lost.clone(), is_lossless.subscribe()));
        Self { address, is_lost, is_lossless }
    }
}

async fn lose_an_answer(
    listener: TcpListener,
    server: SocketAddr,
    is_lost: watch::Sender<bool>,
    is_lossless: watch::Receiver<bool>,
) {
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(server).await else { continue };
        let (is_lost, mut is_lossless) = (is_lost.clone(), is_lossless.clone());
        tokio::spawn(async move {
            if *is_lossless.borrow_and_update() {
                let (mut near, mut far) = (near, far);
                let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            } else if !*is_lost.borrow() {
                let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
                    (near.into_split(), far.into_split());
                tokio::select! {
                    biased;
                    () = carry_to_first_multi(&mut near_read, &mut far_write) => {}
                    _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
                }
                is_lost.send_replace(true);
                drop((near_read, near_write));
                // What was sent is still carried out; a reset could overtake it.
                let _answers = tokio::io::copy(&mut far_read, &mut tokio::io::sink()).await;
            }
        });
    }
}

/// Passes frames on; the last is the first multi.
async fn carry_to_first_multi(near: &mut OwnedReadHalf, far: &mut OwnedWriteHalf) {
    /// The number of the operation on the wire.
    const MULTI: i32 = 14;
    let mut is_connected = false;
    while let Ok(length) = near.read_u32().await {
        let mut frame = vec![0; length as usize];
        near.read_exact(&mut frame).await.expect("whole frames");
        far.write_u32(length).await.expect("the server reads");
        far.write_all(&frame).await.expect("the server reads");
        // The first frame is the request for a session, which names no operation.
        if is_connected && frame[4..8] == MULTI.to_be_bytes() {
            return;
        }
        is_connected = true;
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) format: Format,
    path: String,
    data: Bytes,
    stat: Stat,
}

/// Every instance in every format.
pub(super) async fn all(client: &Client) -> Vec<Found> {
    let mut all = Vec::new();
    let parents =
        [(Format::Curator, "/services/web"), (Format::Serverset, SERVERSET), (Format::Nerve, NERVE)];
    for (format, parent) in parents {
        let Ok((names, _)) = client.children(parent).await else { continue };
        for name in names {
            let path = format!("{parent}/{name}");
            if let Ok((data, stat)) = client.get(path.clone()).await {
                all.push(Found { format, path, data: data.unwrap_or_default(), stat });
            }
        }
    }
    all
}

fn at(there: &[Found], format: Format) -> Found {
    let nothing = Found { format, path: String::new(), data: Bytes::new(), stat: Stat::default() };
    there.iter().find(|found| found.format == format).cloned().unwrap_or(nothing)
}

async fn until(client: &Client, what: &str, is_so: impl Fn(&[Found]) -> bool) {
    soon(what, async {
        while !is_so(&all(client).await) {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}

async fn stat(client: &Client, path: &str) -> Stat {
    let found = client.exists(path).await.expect("the server answers");
    let stat = found.unwrap_or_else(|| panic!("{path} is not there"));
    assert!(stat.ephemeral_owner == SessionId::NONE || stat.num_children == 0);
    stat
}

pub(super) fn web_in_formats(id: &str, server: SocketAddr) -> Registration {
    registration(&format!(
        "{{name: web, id: {id}, address: {}, port: {}, checks: [{{kind: tcp, interval: 100ms}}], formats: [
            {{format: curator}}, {{format: serverset, root: {SERVERSET}}}, {{format: nerve, root: {NERVE}}}]}}",
        server.ip(),
        server.port()
    ))
}
