//! A member on loopback, by the bytes of its clients.

use std::path::Path;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::codec::Reader;
use crate::id::{SessionId, Xid, Zxid};
use crate::wire::{
    ConnectRequest, ConnectResponse, CreateRequest, ReplyHeader, Request, Response, split_frame, write_frame,
};
use crate::znode::{CreateMode, SessionPassword};

/// The bare wire, so that nothing of our own client hides what the member does.
struct Wire {
    socket: TcpStream,
    received: BytesMut,
    session: SessionId,
}

impl Wire {
    async fn connect(member: &Member, session: SessionId) -> Self {
        let socket = TcpStream::connect(member.client_addr()).await.unwrap();
        let mut wire = Self { socket, received: BytesMut::new(), session };
        let password = SessionPassword::for_session(session);
        let request = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 10_000,
            session,
            password,
            read_only: Some(false),
        };
        wire.send(|out| request.encode(out)).await;
        let response = ConnectResponse::decode(&wire.receive().await.unwrap()).unwrap();
        wire.session = response.session;
        wire
    }

    async fn send(&mut self, content: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        write_frame(&mut frame, content);
        self.socket.write_all(&frame).await.unwrap();
    }

    async fn receive(&mut self) -> Option<bytes::Bytes> {
        loop {
            if let Some(frame) = split_frame(&mut self.received, 1 << 20).unwrap() {
                return Some(frame);
            }
            if self.socket.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<Response, crate::znode::OpError> {
        self.send(|out| request.encode(Xid(1), out)).await;
        let frame = self.receive().await.expect("a reply");
        let mut reader = Reader::new(&frame);
        let header = ReplyHeader::decode(&mut reader).unwrap();
        match header.error {
            Some(error) => Err(error),
            None => Ok(Response::decode(request.op_code(), &mut reader).unwrap()),
        }
    }
}

async fn start(data_dir: &Path, snapshot_txns: u64) -> Member {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings =
        MemberSettings { data_dir: data_dir.to_owned(), snapshot_txns, ..MemberSettings::default() };
    Member::start(settings, listener, None).await.unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_the_session_goes_on() {
    let data_dir = tempfile::tempdir().unwrap();
    let member = start(data_dir.path(), 7).await;
    let mut wire = Wire::connect(&member, SessionId::NONE).await;
    for number in 0..30 {
        let create = CreateRequest::open(format!("/n{number}"), "x", CreateMode::Ephemeral);
        wire.ask(&Request::Create(create)).await.unwrap();
    }
    member.shutdown().await.unwrap();
    assert_eq!(wire.receive().await, None, "a member that stops closes its sockets");

    let member = start(data_dir.path(), 7).await;
    let mut wire = Wire::connect(&member, wire.session).await;
    assert_ne!(wire.session, SessionId::NONE);
    let Ok(Response::Children(names)) =
        wire.ask(&Request::GetChildren { path: "/".into(), watch: false }).await
    else {
        panic!("no children")
    };
    assert_eq!(names.len(), 31);
    let stat = wire.ask(&Request::Exists { path: "/n29".into(), watch: false }).await.unwrap();
    assert!(matches!(stat, Response::Stat(stat) if stat.ephemeral_owner == wire.session));
    member.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_members_never_share_a_data_directory() {
    let data_dir = tempfile::tempdir().unwrap();
    let member = start(data_dir.path(), 100).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = MemberSettings { data_dir: data_dir.path().to_owned(), ..MemberSettings::default() };
    let refused = Member::start(settings, listener, None).await;
    assert!(matches!(refused, Err(MemberError::Storage(_))));
    member.shutdown().await.unwrap();
}

#[tokio::test]
async fn four_letter_words_are_answered_in_text_and_count_nothing_that_is_gone() {
    let data_dir = tempfile::tempdir().unwrap();
    let member = start(data_dir.path(), 100).await;
    let mut wire = Wire::connect(&member, SessionId::NONE).await;
    assert_eq!(wire.ask(&Request::Ping).await, Ok(Response::Empty));
    let text = ask(member.client_addr(), b"srvr").await;
    assert!(text.contains("\nReceived: 2\nSent: 2\n"), "{text}");
    assert!(
        text.contains("\nOutstanding: 0\nZxid: 0x100000001\nMode: standalone\nNode count: 4\n"),
        "{text}"
    );
    member.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_operates_a_member_is_told_of_connections_sessions_watches_and_digests() {
    let data_dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = MemberSettings {
        data_dir: data_dir.path().to_owned(),
        four_letter_words: FourLetterWord::ALL.to_vec(),
        ..MemberSettings::default()
    };
    let member = Member::start(settings, listener, None).await.unwrap();
    let addr = member.client_addr();
    let mut wire = Wire::connect(&member, SessionId::NONE).await;
    let (session, from) = (wire.session, wire.socket.local_addr().unwrap());
    // The 128th txn of the epoch is the 126th of these: two open the epoch and the session.
    for number in 0..127 {
        let create = CreateRequest::open(format!("/n{number}"), "x", CreateMode::Ephemeral);
        wire.ask(&Request::Create(create)).await.unwrap();
    }
    for path in ["/n1", "/n2"] {
        wire.ask(&Request::Exists { path: path.into(), watch: true }).await.unwrap();
    }

    let stat = ask(addr, b"stat").await;
    assert!(stat.starts_with("Zookeeper version: 3.8.0"), "{stat}");
    assert!(stat.contains(&format!("\nClients:\n /{from}[1](queued=0,recved=130,sent=130)\n")), "{stat}");
    assert!(stat.contains("\n\nLatency min/avg/max: ") && stat.ends_with("\nNode count: 131\n"), "{stat}");
    let cons = ask(addr, b"cons").await;
    let line = cons.lines().find(|line| line.contains(&from.to_string())).unwrap();
    let known = format!("recved=130,sent=130,sid={session},est=");
    assert!(line.contains(&known) && line.ends_with(",to=10000)"), "{line}");
    let dump = ask(addr, b"dump").await;
    assert!(dump.contains(&format!("\nGlobal Sessions(1):\n{session}\t10000ms\n")), "{dump}");
    let owned = format!("\nSessions with Ephemerals (1):\n{session}:\n\t/n0\n\t/n1\n");
    assert!(dump.contains(&owned), "{dump}");
    assert_eq!(ask(addr, b"wchs").await, "1 connections watching 2 paths\nTotal watches:2\n");
    assert_eq!(ask(addr, b"wchp").await, format!("/n1\n\t{session}\n/n2\n\t{session}\n\n"));
    assert_eq!(ask(addr, b"wchc").await, format!("{session}\n\t/n1\n\t/n2\n\n"));
    let hash = ask(addr, b"hash").await;
    let (zxid, digest) = hash.strip_suffix('\n').and_then(|line| line.split_once(": ")).unwrap();
    assert!(zxid == "100000080" && digest.parse::<i64>().is_ok(), "{hash}");
    assert!(ask(addr, b"conf").await.contains(&format!("clientPort={}\n", addr.port())));
    member.shutdown().await.unwrap();
}

async fn ask(addr: SocketAddr, word: &[u8; 4]) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(word).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn garbage_ends_one_connection_and_leaves_others_served() {
    let data_dir = tempfile::tempdir().unwrap();
    let member = start(data_dir.path(), 100).await;
    let mut canary = Wire::connect(&member, SessionId::NONE).await;
    for garbage in [&[0xff; 8][..], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 3, 1, 2, 3], &[0, 0, 0, 0]] {
        let mut socket = TcpStream::connect(member.client_addr()).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        // A reset is as good an end as a clean close.
        let _ = socket.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "nothing is said to {garbage:?}");
        assert_eq!(canary.ask(&Request::Ping).await, Ok(Response::Empty));
    }
    member.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_are_allowed_and_another_has_its_own() {
    let data_dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = MemberSettings {
        data_dir: data_dir.path().to_owned(),
        address_connections_max: Some(2),
        ..MemberSettings::default()
    };
    let member = Member::start(settings, listener, None).await.unwrap();
    let first = Wire::connect(&member, SessionId::NONE).await;
    let mut second = Wire::connect(&member, SessionId::NONE).await;
    let mut refused = TcpStream::connect(member.client_addr()).await.unwrap();
    assert_eq!(refused.read(&mut [0; 8]).await.unwrap_or_default(), 0, "it is closed at once");
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(member.client_addr()).await.unwrap();
    other.write_all(b"srvr").await.unwrap();
    let mut text = String::new();
    other.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("Mode: standalone"), "{text}");
    drop(first);
    assert_eq!(second.ask(&Request::Ping).await, Ok(Response::Empty));
    // Until the member has seen the end of the first.
    while {
        let mut third = TcpStream::connect(member.client_addr()).await.unwrap();
        third.write_all(b"srvr").await.unwrap();
        let mut text = String::new();
        third.read_to_string(&mut text).await.is_err() || text.is_empty()
    } {
        tokio::task::yield_now().await;
    }
    member.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_may_ask_for_much_before_it_reads() {
    let data_dir = tempfile::tempdir().unwrap();
    let member = start(data_dir.path(), 100).await;
    let mut wire = Wire::connect(&member, SessionId::NONE).await;
    let create = CreateRequest::open("/big", vec![0; 1_000_000], CreateMode::Persistent);
    wire.ask(&Request::Create(create)).await.unwrap();
    for xid in 0..200 {
        let request = Request::GetData { path: "/big".into(), watch: false };
        wire.send(|out| request.encode(Xid(xid), out)).await;
    }
    for xid in 0..200 {
        let frame = wire.receive().await.expect("a reply to each");
        let header = ReplyHeader::decode(&mut Reader::new(&frame)).unwrap();
        assert_eq!((header.xid, header.error), (Xid(xid), None));
    }
    member.shutdown().await.unwrap();
}
