use std::convert::Infallible;

use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2 as server_http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::registry::check::CheckTarget;
use crate::registry::check::runner::Asker;
use crate::registry::check::tls::tests::{acceptor, sign};
use crate::tls::{TlsFiles, Trust};

#[tokio::test]
async fn a_server_that_serves_passes_and_one_that_does_not_fails() {
    for (status, expected) in [
        (1, None),
        (0, Some("UNKNOWN")),
        (2, Some("NOT_SERVING")),
        (3, Some("SERVICE_UNKNOWN")),
        (9, Some("unknown state 9")),
    ] {
        let target = serve(move |_| Answer::message(vec![8, status])).await;
        told(&asked(target).await, expected);
    }
}

#[tokio::test]
async fn the_service_is_asked_for_as_the_protocol_has_it() {
    let (sender, mut requests) = tokio::sync::mpsc::channel(1);
    let target = serve(move |request: Call| {
        sender.try_send(request).unwrap();
        Answer::message(vec![8, 1])
    })
    .await;
    asked(GrpcTarget { service: "shop.Cart".to_owned(), host: "app.example:1".to_owned(), ..target })
        .await
        .unwrap();
    let (head, body) = requests.recv().await.unwrap();
    assert_eq!(head.uri, "http://app.example:1/grpc.health.v1.Health/Check");
    assert_eq!((head.method, head.version), (hyper::Method::POST, Version::HTTP_2));
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(
        (&head.headers["te"], &head.headers["grpc-timeout"]),
        (&"trailers".parse().unwrap(), &"10000m".parse().unwrap())
    );
    assert_eq!(body, b"\0\0\0\0\x0b\x0a\x09shop.Cart".as_slice());
}

#[tokio::test]
async fn a_call_that_fails_says_why() {
    for (code, text) in [
        (12, "UNIMPLEMENTED: the server has no health service"),
        (5, "NOT_FOUND: the server does not know this service"),
        (14, "UNAVAILABLE"),
        (99, "the unknown status 99"),
    ] {
        // At once, with the headers; and late, in trailers, over a message that says SERVING.
        let target =
            serve(move |_| Answer { code_in_headers: Some(code), ..Answer::message(Vec::new()) }).await;
        told(&asked(target).await, Some(text));
        let target = serve(move |_| Answer { code: Some(code), ..Answer::message(vec![8, 1]) }).await;
        told(&asked(target).await, Some(text));
    }
}

#[tokio::test]
async fn what_is_no_grpc_fails() {
    let target = serve(|_| Answer { status: 404, code: None, ..Answer::message(vec![8, 1]) }).await;
    told(&asked(target).await, Some("HTTP status 404 without a gRPC status"));
    let target = serve(|_| Answer::message(vec![0xff])).await;
    told(&asked(target).await, Some("no HealthCheckResponse"));
    let target = serve(|_| Answer::message(vec![0; MESSAGE_BYTES_MAX])).await;
    told(&asked(target).await, Some("no HealthCheckResponse"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target_at(&listener);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
    });
    told(&asked(target).await, Some("HTTP"));
}

#[tokio::test]
async fn over_tls_it_believes_whom_it_is_told_to_and_wants_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let files = sign(folder.path(), "app.example");
    let ours = Trust::Authorities(files.ca.clone());
    let missing = Trust::Authorities(folder.path().join("none.pem"));
    for (trust, server_name, protocols, expected) in [
        (ours.clone(), "app.example", &["h2"][..], None),
        (ours.clone(), "app.example", &["http/1.1", "h2"], None),
        (Trust::Anyone, "other.example", &["h2"], None),
        (ours.clone(), "other.example", &["h2"], Some("not valid for name")),
        (missing, "app.example", &["h2"], Some("none.pem")),
        // One that speaks HTTP/1.1 alone, and one that does not say what it speaks.
        (ours.clone(), "app.example", &["http/1.1"], Some("NoApplicationProtocol")),
        (ours.clone(), "app.example", &[], Some("does not agree to speak h2")),
    ] {
        let target = serve_tls(&files, protocols, |_| Answer::message(vec![8, 1])).await;
        let tls = Some(TlsTarget { trust: trust.clone(), server_name: server_name.to_owned() });
        let result = asked(GrpcTarget { tls, ..target }).await;
        told(&result, expected);
        let is_of_tls = matches!(result, Ok(()) | Err(CheckFailure::Tls { .. }));
        assert!(is_of_tls, "{trust:?} {server_name} {protocols:?}: {result:?}");
    }
    // What speaks no TLS.
    let tls = Some(TlsTarget { trust: Trust::Anyone, server_name: "app.example".to_owned() });
    let target = serve(|_| Answer::message(vec![8, 1])).await;
    told(&asked(GrpcTarget { tls: tls.clone(), ..target }).await, Some("no TLS with"));
    // It is asked, and judged, as without.
    let (sender, mut requests) = tokio::sync::mpsc::channel(1);
    let answer = move |request: Call| {
        sender.try_send(request).unwrap();
        Answer::message(vec![8, 2])
    };
    let target = serve_tls(&files, &["h2"], answer).await;
    told(&asked(GrpcTarget { tls, host: "app.example".to_owned(), ..target }).await, Some("NOT_SERVING"));
    let (head, _body) = requests.recv().await.unwrap();
    assert_eq!(head.uri, "https://app.example/grpc.health.v1.Health/Check");
}

#[tokio::test]
async fn a_server_that_hangs_fails_at_the_deadline_and_the_connection_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = CheckTarget::Grpc(target_at(&listener));
    let check = tokio::spawn(async move { Asker::new(target).ask_within(Duration::from_millis(100)).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let result = check.await.unwrap();
    assert!(matches!(result, Err(CheckFailure::Timeout { .. })), "{result:?}");
    let mut read = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut read);
    tokio::time::timeout(Duration::from_secs(10), closed)
        .await
        .expect("nobody holds the connection")
        .unwrap();
}

#[test]
fn messages_are_read_whatever_else_is_in_them() {
    for (message, status) in [
        (b"".as_slice(), Some(0)),
        (b"\x08\x01", Some(1)),
        (b"\x08\x02\x08\x01", Some(1)),
        // A text, a varint, 8 and 4 bytes in fields of a later version.
        (b"\x12\x02ok\x18\xff\x01\x21........\x2d....\x08\x01", Some(1)),
        (b"\x08", None),
        (b"\x12\x05ok", None),
        (b"\x0b", None),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
    ] {
        assert_eq!(decode(message), status, "{message:?}");
    }
    assert_eq!(encode(""), b"");
    let long = "x".repeat(300);
    assert_eq!(encode(&long)[..3], [0x0a, 0xac, 0x02]);
    assert_eq!(unframe(b"\0\0\0\0\x02\x08\x01"), Some(b"\x08\x01".as_slice()));
    for bad in [b"\0\0\0\0\x03\x08\x01".as_slice(), b"\x01\0\0\0\x02\x08\x01", b"\0\0\0\0", b""] {
        assert_eq!(unframe(bad), None, "{bad:?}");
    }
}

fn told(result: &Result<(), CheckFailure>, expected: Option<&str>) {
    match (result, expected) {
        (Ok(()), None) => {}
        (Err(failure), Some(text)) if failure.to_string().contains(text) => {}
        (result, expected) => panic!("{result:?}, not {expected:?}"),
    }
}

async fn asked(target: GrpcTarget) -> Result<(), CheckFailure> {
    Asker::new(CheckTarget::Grpc(target)).ask_within(Duration::from_secs(10)).await.map(drop)
}

fn target_at(listener: &TcpListener) -> GrpcTarget {
    let server = listener.local_addr().unwrap();
    GrpcTarget { server, tls: None, host: server.to_string(), service: String::new() }
}

type Call = (hyper::http::request::Parts, Bytes);

struct Answer {
    status: u16,
    code_in_headers: Option<u32>,
    message: Vec<u8>,
    code: Option<u32>,
}

impl Answer {
    fn message(message: Vec<u8>) -> Self {
        Self { status: 200, code_in_headers: None, message, code: Some(0) }
    }
}

/// A server that answers every call so.
async fn serve(answer: impl Fn(Call) -> Answer + Clone + Send + 'static) -> GrpcTarget {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target_at(&listener);
    tokio::spawn(async move { serve_on(listener.accept().await.unwrap().0, answer).await });
    target
}

/// The same over TLS, for one who agrees on one of these protocols.
async fn serve_tls(
    files: &TlsFiles,
    protocols: &[&str],
    answer: impl Fn(Call) -> Answer + Clone + Send + 'static,
) -> GrpcTarget {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (target, tls) = (target_at(&listener), acceptor(files, protocols));
    tokio::spawn(async move {
        if let Ok(stream) = tls.accept(listener.accept().await.unwrap().0).await {
            serve_on(stream, answer).await;
        }
    });
    target
}

async fn serve_on<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    answer: impl Fn(Call) -> Answer + Clone + Send + 'static,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(respond(answer((head, body))))
        }
    });
    let connection = server_http2::Builder::new(TokioExecutor::new());
    // The client is gone when it has its answer.
    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
}

fn respond(answer: Answer) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + Unpin> {
    let mut response = Response::builder().status(answer.status).header("content-type", "application/grpc");
    let mut frames = Vec::new();
    if let Some(code) = answer.code_in_headers {
        response = response.header("grpc-status", code);
    } else {
        frames.push(Ok(Frame::data(frame(&answer.message))));
        if let Some(code) = answer.code {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.into())]);
            frames.push(Ok(Frame::trailers(trailers)));
        }
    }
    response.body(Frames(frames.into())).unwrap()
}

struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, Infallible>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}
