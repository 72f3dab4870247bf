//! With a member of Apache ZooKeeper, of Debian's package `zookeeper` (3.8.0).

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

/// The first binding of slf4j on the class path is the one used: the simple one logs to stderr.
const CLASS_PATH: &str = "/usr/share/java/slf4j-simple.jar:/usr/share/java/*";
const INSTALL: &str = "install Debian's packages `zookeeper` and `default-jre-headless`";

/// A server of an ensemble of which the others are ours; killed by its pid when dropped.
struct ApacheMember(Child);

impl ApacheMember {
    async fn start(id: u8, addrs: &Addrs, data_dir: &Path) -> Self {
        let port = |listener: TcpListener| listener.local_addr().unwrap().port();
        let client_port = port(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let mut config = format!(
            "tickTime=500\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={client_port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n",
            data_dir.display()
        );
        for (server, addr) in &addrs.0 {
            let quorum_port = port(TcpListener::bind("127.0.0.1:0").await.unwrap());
            config += &format!("server.{server}={}:{quorum_port}:{}\n", addr.ip(), addr.port());
        }
        std::fs::write(data_dir.join("myid"), id.to_string()).unwrap();
        let config_path = data_dir.join("zoo.cfg");
        std::fs::write(&config_path, config).unwrap();
        let log = File::create(data_dir.join("server.log")).unwrap();
        let process = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", CLASS_PATH])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(config_path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self(process.unwrap_or_else(|error| panic!("cannot run java: {error}; {INSTALL}")))
    }
}

impl Drop for ApacheMember {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Whichever has the greater id: it says that it looks for a leader, hears us, and goes on to our round, which is later.
#[tokio::test]
async fn a_member_of_apache_zookeeper_exchanges_votes_with_us() {
    for (ours, theirs) in [(2, 1), (1, 2)] {
        let addrs = Addrs::reserve([1, 2]).await;
        let data_dir = tempfile::tempdir().unwrap();
        let mut member = TestMember::start(ours, &addrs).await;
        let apache = ApacheMember::start(theirs, &addrs, data_dir.path()).await;
        let log = || std::fs::read_to_string(data_dir.path().join("server.log")).unwrap_or_default();
        let exchange = async {
            // It closes what it was asked over, and one of two connections that cross; the last one stays.
            let mut has_looked = false;
            // As an election does, which cannot know whether what it said went with a connection that was given up.
            let mut again = tokio::time::interval(Duration::from_millis(500));
            loop {
                let event = tokio::select! {
                    event = member.events.recv() => event.expect("a port that runs"),
                    _ = again.tick() => {
                        // A round that it has not got to.
                        member.port.send(server(theirs), message(41));
                        continue;
                    }
                };
                match event {
                    PeerEvent::Reachable(_, true) => member.port.send(server(theirs), message(41)),
                    PeerEvent::Notification(from, heard) => {
                        assert_eq!((from, heard.state), (server(theirs), ServerState::Looking));
                        let vote = heard.vote.expect("a vote");
                        has_looked |=
                            (heard.round, vote.leader, vote.zxid) == (1, server(theirs), Zxid::ZERO);
                        if heard.round == 41 && has_looked {
                            assert!(heard.config.starts_with(b"server."), "{:?}", heard.config);
                            return;
                        }
                    }
                    PeerEvent::Reachable(_, false) => {}
                    PeerEvent::Accepted(..)
                    | PeerEvent::Dialled { .. }
                    | PeerEvent::Packet(..)
                    | PeerEvent::Progress(_)
                    | PeerEvent::SnapshotReceived(..)
                    | PeerEvent::LinkClosed(_) => panic!("nothing else happens on this port"),
                }
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(60), exchange).await;
        assert!(done.is_ok(), "server {theirs} said nothing; its log:\n{}", log());
        drop(apache);
    }
}
