//! Reconfiguration, which members of either kind have switched off: a client that asks for it is told so, through whichever
//! member, and goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use rollcall::codec::Reader;
use rollcall::id::{SessionId, Xid, Zxid};
use rollcall::wire::{
    ConnectRequest, ConnectResponse, CreateRequest, FRAME_BYTES_MAX, ReplyHeader, Request, split_frame,
    write_frame,
};
use rollcall::znode::{CreateMode, SessionPassword};

use super::{APACHE_AND_ONE, OURS_AND_ONE};
use crate::cluster::{Profile, SESSION_TIMEOUT, START_LIMIT};
use crate::load::LOAD_W;
use crate::member::Kind;
use crate::run::Run;

/// `reconfig`, and the error `RECONFIGDISABLED`, of `ZooDefs.java` and `KeeperException.java` of Apache ZooKeeper.
const RECONFIG: i32 = 16;
const RECONFIG_DISABLED: i32 = -123;

/// Asks every member for another, beside the writes of others.
pub(super) fn ask_for_another_member(kinds: &[Kind]) {
    let mut run = Run::start("reconfiguration", kinds, Profile::PATIENT);
    run.cluster.make_last_lead();
    let load = run.load(LOAD_W);
    load.wait_for_writes(100, START_LIMIT);
    for server in run.cluster.servers() {
        let mut client = RawClient::open(server.address);
        for round in 0..3 {
            let error = client.ask(Xid(3 * round), encode_reconfig);
            assert_eq!(error, RECONFIG_DISABLED, "{} answers to reconfig", server.name);
            // What is asked behind it waits for the leader too, as a read, and as a write.
            let path = format!("/after-{}-{round}", server.name);
            let create = Request::Create2(CreateRequest::open(&path, Vec::new(), CreateMode::Ephemeral));
            for (number, request) in [(1, Request::Sync { path: "/".to_owned() }), (2, create)] {
                let xid = Xid(3 * round + number);
                let error = client.ask(xid, |xid, out| request.encode(xid, out));
                assert_eq!(error, 0, "{} answers to {request:?} after reconfig", server.name);
            }
        }
        assert_eq!(client.ask(Xid(9), |xid, out| Request::CloseSession.encode(xid, out)), 0);
    }
    load.wait_for_writes(100, START_LIMIT);
    run.finish(load);
}

/// As Apache's command line does for `reconfig -add`.
fn encode_reconfig(xid: Xid, out: &mut Vec<u8>) {
    const JOINING: &str = "server.9=127.0.0.19:2888:3888;2181";
    out.extend(xid.0.to_be_bytes());
    out.extend(RECONFIG.to_be_bytes());
    out.extend(u32::try_from(JOINING.len()).expect("a short text").to_be_bytes());
    out.extend(JOINING.bytes());
    // Nobody leaves, the others are not named, and it does not matter what is there now.
    out.extend((-1_i32).to_be_bytes());
    out.extend((-1_i32).to_be_bytes());
    out.extend((-1_i64).to_be_bytes());
}

/// A session of one connection, with requests that no client of ours sends.
struct RawClient {
    stream: TcpStream,
    incoming: BytesMut,
}

impl RawClient {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the member listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
        let mut client = Self { stream, incoming: BytesMut::new() };
        let request = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: i32::try_from(SESSION_TIMEOUT.as_millis()).expect("some seconds"),
            session: SessionId::NONE,
            password: SessionPassword::ZERO,
            read_only: Some(false),
        };
        client.send(|out| request.encode(out));
        let response = ConnectResponse::decode(&client.frame()).expect("a member's answer can be read");
        assert!(response.timeout().is_some(), "{address} opens a session");
        client
    }

    /// Sends a request, and returns the error of the reply, 0 for none.
    fn ask(&mut self, xid: Xid, encode: impl FnOnce(Xid, &mut Vec<u8>)) -> i32 {
        self.send(|out| encode(xid, out));
        let frame = self.frame();
        let header = ReplyHeader::decode(&mut Reader::new(&frame)).expect("a member's answer can be read");
        assert_eq!(header.xid, xid, "replies come in order");
        header.error.map_or(0, |error| error.code())
    }

    fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut outgoing = Vec::new();
        write_frame(&mut outgoing, encode);
        self.stream.write_all(&outgoing).expect("the connection is alive");
    }

    fn frame(&mut self) -> bytes::Bytes {
        loop {
            if let Some(frame) =
                split_frame(&mut self.incoming, FRAME_BYTES_MAX).expect("frames have lengths")
            {
                return frame;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).expect("the connection is alive");
            assert!(count > 0, "the member has hung up");
            self.incoming.extend_from_slice(&bytes[..count]);
        }
    }
}

mod mixed {
    use super::*;

    #[test]
    fn our_leader_and_followers_of_both_kinds_say_that_they_do_not_reconfigure() {
        ask_for_another_member(&OURS_AND_ONE);
    }

    #[test]
    fn apaches_leader_and_followers_of_both_kinds_say_that_they_do_not_reconfigure() {
        ask_for_another_member(&APACHE_AND_ONE);
    }
}
