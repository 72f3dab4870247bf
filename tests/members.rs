//! Three members in one process, over loopback's sockets: what the simulation cannot show of ports and links.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rollcall::client::{Client, ClientSettings};
use rollcall::clock;
use rollcall::ensemble::{
    HostPort, Member, MemberAddress, MemberError, MemberRole, MemberSettings, Members, PeerListeners,
    PeersSettings,
};
use rollcall::id::{ServerId, Zxid};
use rollcall::zab::ServerState;
use rollcall::znode::CreateMode;
use tempfile::TempDir;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_elect_a_leader_and_clients_of_each_see_one_tree() {
    let mut world = World::new(|_| {}).await;
    let started = clock::now();
    world.start_all().await;
    world.serving([1, 2, 3]).await;
    println!("three new members served after {:?}", started.elapsed());

    for id in [1, 2, 3] {
        let client = world.client(id);
        client.create(&format!("/by-{id}"), "x", CreateMode::Persistent).await.unwrap();
    }
    for id in [1, 2, 3] {
        let client = world.client(id);
        client.sync("/").await.unwrap();
        let (mut names, _) = client.children("/").await.unwrap();
        names.sort();
        assert_eq!(names, ["by-1", "by-2", "by-3", "zookeeper"], "member {id}");
        let (config, stat) = client.get("/zookeeper/config").await.unwrap();
        assert_eq!(config.unwrap(), world.members.to_config_text(), "clients find all members at each");
        assert_eq!((stat.version, stat.mzxid), (-1, Zxid::ZERO));
    }
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_go_on_without_one_and_take_it_back() {
    let mut world = World::new(|_| {}).await;
    world.start_all().await;
    world.serving([1, 2, 3]).await;
    let mut times = Vec::new();
    for round in 0..3 {
        let leader = world.leader();
        let others: Vec<u8> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
        let stopped = clock::now();
        world.stop(leader).await;
        world.serving(others.clone()).await;
        times.push(stopped.elapsed());
        let client = world.client(others[0]);
        client.create(&format!("/without-{round}"), "x", CreateMode::Persistent).await.unwrap();

        let restarted = clock::now();
        world.start(leader).await;
        world.serving([leader]).await;
        println!("served {:?} after the member started again", restarted.elapsed());
        let client = world.client(leader);
        client.sync("/").await.unwrap();
        assert!(client.exists(&format!("/without-{round}")).await.unwrap().is_some());
    }
    println!("served {times:?} after the leader was told to stop");
    assert!(times.iter().all(|time| *time <= RESUME_MAX), "served only after {times:?}");
    // Who is told that it has lost its leader does not wait until that has been silent for too long.
    let shortest = times.iter().min().expect("three rounds");
    assert!(
        *shortest < TICK * PeersSettings::of(world.members.clone()).sync_limit,
        "served only after {times:?}"
    );
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_everything_is_sent_the_tree() {
    // Neither memory nor the log reach back to the beginning.
    let mut world = World::new(|settings| {
        (settings.snapshot_txns, settings.snapshots_kept) = (100, 1);
        settings.peers.as_mut().unwrap().commit_log_count = 10;
    })
    .await;
    world.start_all().await;
    world.serving([1, 2, 3]).await;
    let lost = [1, 2, 3].into_iter().find(|id| *id != world.leader()).unwrap();
    world.stop(lost).await;
    let client = world.client(world.leader());
    for count in 0..1000 {
        client.create(&format!("/n{count}"), vec![b'x'; 2000], CreateMode::Persistent).await.unwrap();
    }
    world.data_dirs.insert(lost, tempfile::tempdir().unwrap());
    world.start(lost).await;
    world.serving([lost]).await;
    let stats = world.running[&lost].stats();
    assert_eq!(stats.syncs_by_mode[2].load(Relaxed), 1, "it was sent the tree");
    assert_eq!(stats.digest_mismatches.load(Relaxed), 0);
    // It holds all of it by itself, on disk.
    world.stop(lost).await;
    world.start(lost).await;
    world.serving([lost]).await;
    let (names, _) = world.client(lost).children("/").await.unwrap();
    assert_eq!(names.len(), 1001);
    assert_eq!(world.running[&lost].stats().syncs_by_mode[2].load(Relaxed), 0, "nor is it sent again");
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_alone_or_of_others_and_changes_only_when_it_is_told_to() {
    let mut world = World::new(|_| {}).await;
    world.start_all().await;
    world.serving([1, 2, 3]).await;
    world.client(1).create("/shared", "x", CreateMode::Persistent).await.unwrap();
    for id in [1, 2, 3] {
        world.stop(id).await;
    }
    // What it wrote alone in the next epoch would never be compared with what the others write in theirs.
    let refused = world.start_alone(1, |_| {}).await.expect_err("its data are of three");
    let text = refused.to_string();
    assert!(text.contains("voters are 1, 2, 3, and the settings name 1;"), "{text}");
    assert!(text.contains("--accept-members"), "{text}");

    let member =
        world.start_alone(1, |settings| settings.accept_members = true).await.expect("it is told to");
    member.shutdown().await.unwrap();
    let member = world.start_alone(1, |_| {}).await.expect("it is alone now");
    member.shutdown().await.unwrap();
    let refused = world.try_start(1).await.expect_err("it may have written alone");
    assert!(refused.to_string().contains("voters are 1, and the settings name 1, 2, 3;"), "{refused}");
    world.adjust = |settings| settings.accept_members = true;
    world.start(1).await;
    world.stop(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_without_a_record_of_voters_are_taken_by_whoever_has_them() {
    // As versions before have left them, of a member that ran alone, and Apache's in any case.
    let mut world = World::new(|_| {}).await;
    let record = world.data_dirs[&1].path().join("version-2").join("voters");
    world.start_alone(1, |_| {}).await.unwrap().shutdown().await.unwrap();
    assert_eq!(fs_err::read_to_string(&record).unwrap(), "1\n");
    fs_err::remove_file(&record).unwrap();
    world.start_alone(1, |_| {}).await.unwrap().shutdown().await.unwrap();
    fs_err::remove_file(&record).unwrap();
    world.start(1).await;
    world.stop(1).await;
    assert_eq!(fs_err::read_to_string(&record).unwrap(), "1 2 3\n");
}

const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(500);
/// The three seconds that are promised, and what the disk of a busy machine adds: an election is synced three times, and a
/// sync can take two seconds.
const RESUME_MAX: Duration = Duration::from_secs(10);

struct World {
    members: Members,
    client_addrs: BTreeMap<u8, SocketAddr>,
    data_dirs: BTreeMap<u8, TempDir>,
    running: BTreeMap<u8, Member>,
    adjust: fn(&mut MemberSettings),
}

impl World {
    /// On an address of loopback that no other process uses, so that members get their ports back.
    async fn new(adjust: fn(&mut MemberSettings)) -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, 39, high, low);
        let mut listeners = Vec::new();
        for _ in 0..9 {
            listeners.push(TcpListener::bind((host, 0)).await.expect("a free port"));
        }
        let mut addrs = listeners.iter().map(|listener| listener.local_addr().expect("its address"));
        let mut next = || addrs.next().expect("three each");
        let at = |addr: SocketAddr| HostPort { host: addr.ip().to_string(), port: addr.port() };
        let (mut members, mut client_addrs) = (BTreeMap::new(), BTreeMap::new());
        for id in [1, 2, 3] {
            let (quorum, election) = (at(next()), at(next()));
            members.insert(
                server(id),
                MemberAddress { quorum, election, client: None, role: MemberRole::Voter },
            );
            client_addrs.insert(id, next());
        }
        let data_dirs = [1, 2, 3].map(|id| (id, tempfile::tempdir().expect("a folder")));
        Self {
            members: Members::new(members).expect("members of an ensemble"),
            client_addrs,
            data_dirs: data_dirs.into_iter().collect(),
            running: BTreeMap::new(),
            adjust,
        }
    }

    async fn start(&mut self, id: u8) {
        let member = self.try_start(id).await.expect("it starts");
        self.running.insert(id, member);
    }

    async fn try_start(&self, id: u8) -> Result<Member, MemberError> {
        let peers = PeersSettings::of(self.members.clone());
        let mut settings = MemberSettings {
            server_id: server(id),
            data_dir: self.data_dirs[&id].path().to_owned(),
            tick: TICK,
            peers: Some(peers.clone()),
            ..MemberSettings::default()
        };
        (self.adjust)(&mut settings);
        let listeners = PeerListeners::bind(server(id), &peers).await.expect("its own ports");
        let clients = TcpListener::bind(self.client_addrs[&id]).await.expect("its own port");
        Member::start(settings, clients, Some(listeners)).await
    }

    /// With the data that it has, and settings that know of no other member.
    async fn start_alone(&self, id: u8, adjust: fn(&mut MemberSettings)) -> Result<Member, MemberError> {
        let mut settings = MemberSettings {
            server_id: server(id),
            data_dir: self.data_dirs[&id].path().to_owned(),
            ..MemberSettings::default()
        };
        adjust(&mut settings);
        let clients = TcpListener::bind(self.client_addrs[&id]).await.expect("its own port");
        Member::start(settings, clients, None).await
    }

    async fn start_all(&mut self) {
        for id in [1, 2, 3] {
            self.start(id).await;
        }
    }

    async fn stop(&mut self, id: u8) {
        let member = self.running.remove(&id).expect("it runs");
        tokio::time::timeout(PATIENCE, member.shutdown()).await.expect("it stops").expect("in health");
    }

    async fn stop_all(mut self) {
        for id in [1, 2, 3] {
            self.stop(id).await;
        }
    }

    /// Waits until these serve, under one leader that is there.
    async fn serving(&self, ids: impl IntoIterator<Item = u8>) {
        let settled = async {
            for id in ids {
                let member = &self.running[&id];
                while !(*member.serving().borrow() && self.running.contains_key(&leader_of(member))) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("they serve in time");
    }

    fn leader(&self) -> u8 {
        let leads = |member: &Member| member.stats().state() == ServerState::Leading;
        *self.running.iter().find(|(_, member)| leads(member)).expect("one leads").0
    }

    fn client(&self, id: u8) -> Client {
        Client::start(ClientSettings::for_servers([self.client_addrs[&id].to_string()]))
    }
}

/// Whom a member follows, itself if it leads; 0 when it looks for a leader.
fn leader_of(member: &Member) -> u8 {
    u8::try_from(member.stats().leader.load(Relaxed)).expect("an id")
}

fn server(id: u8) -> ServerId {
    ServerId::new(id).expect("1 to 3")
}
