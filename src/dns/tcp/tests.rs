use std::collections::BTreeSet;
use std::io::{Read, Write};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::dns::{bind, sample};

#[tokio::test]
async fn pipelined_queries_are_answered_in_order_and_whole() {
    let server = start(TcpSettings::default());
    let mut client = server.connect().await;
    let queries: Vec<u8> = (0..300).flat_map(query).collect();
    let (mut reader, mut writer) = client.split();
    let sent = async { writer.write_all(&queries).await.unwrap() };
    let received = async {
        for id in 0..300 {
            let answer = receive(&mut reader).await.unwrap();
            assert_eq!((answer.metadata.id, answer.answers.len()), (id, 100));
            assert!(!answer.metadata.truncation);
        }
    };
    within(async { tokio::join!(sent, received) }).await;
}

#[tokio::test]
async fn who_has_many_queries_there_holds_up_nobody_by_more_than_a_turn() {
    // Of these no answer fits, so that each is made anew: that takes long.
    let server = start_with(sample::big(2_000).into_handler(), TcpSettings::default());
    let made = || {
        let text = String::from_utf8(server.handler.metrics().render()).unwrap();
        let made = text.lines().find_map(|line| {
            line.strip_prefix("rollcall_dns_queries_total{kind=\"srv\",rcode=\"noerror\"} ")
        });
        made.map_or(0, |made| made.parse::<usize>().unwrap())
    };
    let mut client = server.connect().await;
    // Another thread, which takes answers as soon as they are there, so that the server never waits for it.
    let addr = server.addr;
    let greedy = std::thread::spawn(move || {
        let mut greedy = std::net::TcpStream::connect(addr).unwrap();
        greedy.write_all(&framed(7, "big.default", RecordType::SRV).repeat(GREEDY)).unwrap();
        let mut octets = vec![0; 64 * 1024];
        while greedy.read(&mut octets).is_ok_and(|octets| octets > 0) {}
    });
    let begun = async {
        while made() == 0 {
            tokio::task::yield_now().await;
        }
    };
    within(begun).await;
    let before = made();
    client.write_all(&query_for(1, "web.default")).await.unwrap();
    assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 1);
    let meanwhile = made() - before;
    assert!(meanwhile <= 20, "{meanwhile} answers of another's came between a query and its answer");
    assert!(made() < GREEDY, "all were made by then");
    server.shutdown.cancel();
    within(server.task).await.unwrap();
    greedy.join().unwrap();
}

#[tokio::test]
async fn a_query_that_is_held_holds_up_no_other() {
    let (handler, cache) = sample::web().unfollowed("web").into_handler_and_cache();
    let handler = Arc::new(handler.with_demand(Some(Arc::default())));
    let server = start_with(handler, TcpSettings::default());
    let mut client = server.connect().await;
    let names = ["empty.shop", "web.default", "empty.shop"];
    let queries: Vec<u8> = (1..).zip(names).flat_map(|(id, name)| query_for(id, name)).collect();
    client.write_all(&queries).await.unwrap();
    assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 1);
    assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 3);
    // Who sends no more still takes answers.
    client.shutdown().await.unwrap();
    cache.publish(sample::web().view);
    let held = within(receive(&mut client)).await.unwrap();
    assert_eq!((held.metadata.id, held.answers.len()), (2, 2));
    assert!(within(receive(&mut client)).await.is_none(), "closed");
}

#[tokio::test]
async fn many_queries_that_wait_hold_up_none_that_does_not() {
    let (handler, cache) = sample::web().unfollowed("web").into_handler_and_cache();
    let handler = Arc::new(handler.with_demand(Some(Arc::default())));
    let server = start_with(handler, TcpSettings::default());
    let mut client = server.connect().await;
    let waiting = 200; // fewer than may wait
    let queries: Vec<u8> = (0..waiting).flat_map(|id| query_for(id, "web.default")).collect();
    client.write_all(&queries).await.unwrap();
    client.write_all(&query_for(waiting, "empty.shop")).await.unwrap();
    assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, waiting);
    cache.publish(sample::web().view);
    let mut answered = BTreeSet::new();
    for _ in 0..waiting {
        answered.insert(within(receive(&mut client)).await.unwrap().metadata.id);
    }
    assert!(answered.into_iter().eq(0..waiting));
}

#[tokio::test]
async fn a_query_may_arrive_octet_by_octet() {
    let server = start(TcpSettings::default());
    let mut client = server.connect().await;
    client.set_nodelay(true).unwrap();
    for octet in query(3) {
        client.write_all(&[octet]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 3);
}

#[tokio::test]
async fn half_a_query_is_not_waited_for_for_long() {
    let message_timeout = Duration::from_millis(50);
    let server = start(TcpSettings { message_timeout, ..TcpSettings::default() });
    let mut client = server.connect().await;
    let query = query(3);
    client.write_all(&query[..query.len() / 2]).await.unwrap();
    assert!(within(receive(&mut client)).await.is_none(), "closed without an answer");
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_its_permit_is_free_again() {
    let idle_timeout = Duration::from_millis(50);
    let server = start(TcpSettings { connections_max: 1, idle_timeout, ..TcpSettings::default() });
    let mut silent = server.connect().await;
    let mut waiting = server.connect().await;
    waiting.write_all(&query(9)).await.unwrap();
    assert!(within(receive(&mut silent)).await.is_none());
    assert_eq!(within(receive(&mut waiting)).await.unwrap().metadata.id, 9);
}

#[tokio::test]
async fn silent_connections_make_room_the_longest_silent_first() {
    let server = start(TcpSettings { connections_max: 2, ..TcpSettings::default() });
    let mut first = server.connect().await;
    first.write_all(&query(1)).await.unwrap();
    within(receive(&mut first)).await.unwrap();
    let mut second = server.connect().await;
    second.write_all(&query(2)).await.unwrap();
    within(receive(&mut second)).await.unwrap();

    let begin = clock::now();
    let mut third = server.connect().await;
    third.write_all(&query(3)).await.unwrap();
    assert_eq!(within(receive(&mut third)).await.unwrap().metadata.id, 3);
    assert!(begin.elapsed() < TcpSettings::default().idle_timeout / 2, "not only when one timed out");
    assert!(within(receive(&mut first)).await.is_none(), "it made room");
    second.write_all(&query(4)).await.unwrap();
    assert_eq!(within(receive(&mut second)).await.unwrap().metadata.id, 4);
}

#[tokio::test]
async fn half_a_query_keeps_no_place_from_others() {
    let server = start(TcpSettings { connections_max: 1, ..TcpSettings::default() });
    let mut busy = server.connect().await;
    busy.write_all(&query(1)[..5]).await.unwrap();
    let mut next = server.connect().await;
    next.write_all(&query(2)).await.unwrap();
    assert_eq!(within(receive(&mut next)).await.unwrap().metadata.id, 2);
    assert!(within(receive(&mut busy)).await.is_none(), "it made room");
    assert_eq!(server.ended(TcpEnd::MadeRoom), 1);
}

#[tokio::test]
async fn who_waits_for_an_answer_keeps_his_place_and_others_of_his_are_refused() {
    let (handler, cache) = sample::web().unfollowed("web").into_handler_and_cache();
    let handler = Arc::new(handler.with_demand(Some(Arc::default())));
    let server = start_with(handler, TcpSettings { client_connections_max: 1, ..TcpSettings::default() });
    let mut waiting = server.connect().await;
    // What is answered at once shows that what waits was taken, too.
    waiting.write_all(&[query_for(1, "web.default"), query_for(2, "empty.shop")].concat()).await.unwrap();
    assert_eq!(within(receive(&mut waiting)).await.unwrap().metadata.id, 2);
    assert!(within(receive(&mut server.connect().await)).await.is_none());
    assert_eq!(server.ended(TcpEnd::RefusedClient), 1);
    cache.publish(sample::web().view);
    assert_eq!(within(receive(&mut waiting)).await.unwrap().metadata.id, 1);
}

#[tokio::test]
async fn who_takes_no_answers_is_left() {
    let message_timeout = Duration::from_millis(50);
    let server = start(TcpSettings { message_timeout, ..TcpSettings::default() });
    // More answers than the buffers of both ends hold; whether all questions are taken does not matter.
    let queries: Vec<u8> = (0..5_000).flat_map(query).collect();
    let mut client = server.connect().await;
    let _closed = within(client.write_all(&queries)).await;
    let left = async {
        while server.ended(TcpEnd::SlowReader) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(left).await;
}

#[tokio::test]
async fn a_message_longer_than_any_query_is_a_format_error_and_the_end() {
    let server = start(TcpSettings::default());
    let mut client = server.connect().await;
    let mut message = query(8);
    message[..2].copy_from_slice(&u16::MAX.to_be_bytes());
    client.write_all(&message).await.unwrap();
    let answer = within(receive(&mut client)).await.unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (8, ResponseCode::FormErr));
    assert!(within(receive(&mut client)).await.is_none());
}

#[tokio::test]
async fn a_message_without_an_octet_ends_its_connection() {
    let server = start(TcpSettings::default());
    let mut client = server.connect().await;
    client.write_all(&[query(1), vec![0, 0], query(2)].concat()).await.unwrap();
    assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 1);
    assert!(within(receive(&mut client)).await.is_none());
    assert_eq!(server.ended(TcpEnd::NoQuery), 1);
}

#[tokio::test]
async fn what_is_no_query_ends_its_connection_after_the_answers_before_it() {
    let server = start(TcpSettings::default());
    let mut client = server.connect().await;
    let mut bytes = query(1);
    bytes.extend_from_slice(&[0, 3, 1, 2, 3]);
    bytes.extend(query(2));
    client.write_all(&bytes).await.unwrap();
    assert_eq!(within(receive(&mut client)).await.unwrap().metadata.id, 1);
    assert!(within(receive(&mut client)).await.is_none());
    let mut other = server.connect().await;
    other.write_all(&query(4)).await.unwrap();
    assert_eq!(within(receive(&mut other)).await.unwrap().metadata.id, 4);
}

#[tokio::test]
async fn shutdown_ends_open_connections_and_the_loop() {
    let server = start(TcpSettings::default());
    let mut client = server.connect().await;
    client.write_all(&query(1)).await.unwrap();
    within(receive(&mut client)).await.unwrap();
    server.shutdown.cancel();
    assert!(within(receive(&mut client)).await.is_none());
    within(server.task).await.unwrap();
}

struct Started {
    addr: SocketAddr,
    handler: Arc<Handler>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Started {
    async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.addr)).await.unwrap()
    }

    fn ended(&self, end: TcpEnd) -> u64 {
        self.handler.metrics().dns_tcp.ended(end)
    }
}

fn start(settings: TcpSettings) -> Started {
    start_with(sample::big(100).into_handler(), settings)
}

fn start_with(handler: Arc<Handler>, settings: TcpSettings) -> Started {
    let (_, listener) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(run(listener, handler.clone(), settings, shutdown.clone()));
    Started { addr, handler, shutdown, task }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}

/// A framed query whose answer has 100 records.
fn query(id: u16) -> Vec<u8> {
    query_for(id, "big.default")
}

fn query_for(id: u16, service: &str) -> Vec<u8> {
    framed(id, service, RecordType::A)
}

fn framed(id: u16, service: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("{service}.rollcall.internal.")).unwrap();
    message.add_query(Query::query(name, kind));
    let message = message.to_vec().unwrap();
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], &message].concat()
}

/// The next answer; `None` when the connection was closed.
async fn receive(reader: &mut (impl AsyncReadExt + Unpin)) -> Option<Message> {
    let length = reader.read_u16().await.ok()?;
    let mut message = vec![0; usize::from(length)];
    reader.read_exact(&mut message).await.ok()?;
    Some(Message::from_vec(&message).unwrap())
}

/// Queries of who wants the most.
const GREEDY: usize = 300;
