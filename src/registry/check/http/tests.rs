use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::registry::check::CheckTarget;
use crate::registry::check::body::BODY_BYTES_MAX;
use crate::registry::check::runner::Asker;
use crate::registry::check::tls::tests::sign;
use crate::tls::{Tls, TlsFiles, Trust};

#[tokio::test]
async fn a_check_passes_by_its_status_code() {
    for (status, passes) in [("204 No Content", true), ("302 Found", true), ("503 Busy", false)] {
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
        let (target, request) = serve(response.into_bytes()).await;
        let result = asked(target).await;
        assert_eq!(result.is_ok(), passes, "{status}: {result:?}");
        let request = request.await.unwrap();
        let (line, headers) = request.split_once("\r\n").unwrap();
        assert_eq!(line, "GET /health?deep=1 HTTP/1.1");
        let headers = headers.to_ascii_lowercase();
        assert!(headers.contains("host: app.example\r\n"), "{headers}");
        assert!(headers.contains("connection: close\r\n"), "{headers}");
    }
}

#[tokio::test]
async fn what_is_no_http_fails() {
    let endless_head = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 4 * HEAD_BYTES_MAX]].concat();
    for response in [Vec::new(), b"220 mail.example ESMTP\r\n".to_vec(), endless_head] {
        let (target, _request) = serve(response).await;
        let result = asked(target).await;
        assert!(matches!(result, Err(CheckFailure::Http { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn method_and_headers_are_sent_as_they_are_set() {
    let (target, request) = serve(OK.to_vec()).await;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer x".parse().unwrap());
    headers.insert("user-agent", "mine".parse().unwrap());
    asked(HttpTarget { method: Method::POST, headers, ..target }).await.unwrap();
    let request = request.await.unwrap().to_ascii_lowercase();
    assert!(request.starts_with("post /health?deep=1 http/1.1\r\n"), "{request}");
    for line in ["authorization: bearer x", "user-agent: mine", "content-length: 0"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{request}");
    }
    let (target, request) = serve(OK.to_vec()).await;
    asked(HttpTarget { method: Method::HEAD, ..target }).await.unwrap();
    assert!(request.await.unwrap().starts_with("HEAD "));
}

#[tokio::test]
async fn a_load_is_read_from_the_header_that_is_set() {
    for (header, share) in
        [("X-Load: 75%", Some(0.25)), ("x-load: 0.5", Some(0.5)), ("X-Load: much", None), ("Y: 1", None)]
    {
        let (target, _request) = serve(format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n").into_bytes()).await;
        let target = HttpTarget { load_header: Some("x-load".parse().unwrap()), ..target };
        assert_eq!(asked(target).await.unwrap().share, share, "{header}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let response = b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let (target, _request) = serve(response.to_vec()).await;
    asked(target).await.unwrap();
    let (target, _request) = serve(response.to_vec()).await;
    let result = asked(HttpTarget { status: StatusRange::parse("200-299").unwrap(), ..target }).await;
    assert!(matches!(result, Err(CheckFailure::Status { status: 301, .. })), "{result:?}");
}

#[tokio::test]
async fn the_body_must_contain_the_text() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5\r\n..rea\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n";
    let room = BODY_BYTES_MAX - "ready".len();
    let at_the_bound = [vec![b'x'; room], b"ready".to_vec(), vec![b'x'; 9_999]].concat();
    let beyond = [vec![b'x'; room + 1], b"ready".to_vec()].concat();
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat();
    for (case, response, passes) in [
        ("whole", with_body(b"{\"status\": \"ready\"}"), true),
        ("in chunks", chunked.to_vec(), true),
        ("empty", with_body(b""), false),
        ("too short", with_body(b"read"), false),
        ("at the bound", with_body(&at_the_bound), true),
        ("beyond the bound", with_body(&beyond), false),
        ("endless", endless, false),
    ] {
        let (target, _request) = serve(response).await;
        let result = asked(HttpTarget { body: Some(BodyPattern::parse("ready").unwrap()), ..target }).await;
        assert_eq!(result.is_ok(), passes, "{case}: {result:?}");
        assert!(passes || matches!(result, Err(CheckFailure::Body { .. })), "{case}: {result:?}");
    }
}

#[tokio::test]
async fn an_expression_is_looked_for_once_all_of_the_body_is_there() {
    let chunked = |last: &str| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}8\r\nready: 3\r\n{:x}\r\n{last}\r\n0\r\n\r\n", last.len()).into_bytes()
    };
    for (last, passes) in [("7", true), ("7 of 90", false)] {
        let (target, _request) = serve(chunked(last)).await;
        let pattern = BodyPattern::parse(r"^ready: \d+$").unwrap();
        let result = asked(HttpTarget { body: Some(pattern), ..target }).await;
        assert_eq!(result.is_ok(), passes, "{last}: {result:?}");
    }
}

#[tokio::test]
async fn https_believes_whom_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let tls = sign(folder.path(), "app.example");
    let ours = Trust::Authorities(tls.ca.clone());
    let missing = Trust::Authorities(folder.path().join("none.pem"));
    for (trust, server_name, expected) in [
        (ours.clone(), "app.example", Ok(())),
        (ours, "other.example", Err("not valid for name")),
        (Trust::Anyone, "other.example", Ok(())),
        (missing, "app.example", Err("none.pem")),
    ] {
        let target = serve_tls(&tls, OK.to_vec()).await;
        let expects = Some(TlsTarget { trust: trust.clone(), server_name: server_name.to_owned() });
        let result = asked(HttpTarget { tls: expects, ..target }).await;
        match (&result, expected) {
            (Ok(_pass), Ok(())) => {}
            (Err(failure @ CheckFailure::Tls { .. }), Err(text)) if failure.to_string().contains(text) => {}
            (result, expected) => panic!("{trust:?} {server_name}: {result:?}, not {expected:?}"),
        }
    }
    // What speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = sample(listener.local_addr().unwrap());
    tokio::spawn(async move { listener.accept().await.unwrap().0.write_all(OK).await });
    let expects = Some(TlsTarget { trust: Trust::Anyone, server_name: "app.example".to_owned() });
    let result = asked(HttpTarget { tls: expects, ..target }).await;
    assert!(matches!(result, Err(CheckFailure::Tls { .. })), "{result:?}");
}

#[test]
fn status_codes_are_one_or_a_range() {
    for (text, inside, outside) in [("200", 200, 201), ("200-399", 399, 400), ("100-599", 100, 600)] {
        let range = StatusRange::parse(text).unwrap();
        assert!(range.contains(inside) && !range.contains(outside), "{text}");
    }
    for bad in ["", "ok", "300-200", "99", "200-600", "200-", "-200"] {
        assert_eq!(StatusRange::parse(bad), None, "{bad:?} must be refused");
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

async fn asked(target: HttpTarget) -> Result<Pass, CheckFailure> {
    Asker::new(CheckTarget::Http(Box::new(target))).ask_within(Duration::from_secs(10)).await
}

/// A plain request with every setting at its default.
pub(in crate::registry::check) fn sample(server: SocketAddr) -> HttpTarget {
    HttpTarget {
        server,
        tls: None,
        method: Method::GET,
        host: "app.example".to_owned(),
        path: "/health?deep=1".to_owned(),
        headers: HeaderMap::new(),
        status: StatusRange::DEFAULT,
        body: None,
        load_header: None,
    }
}

fn with_body(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Serves one connection; the handle returns the request.
async fn serve(response: Vec<u8>) -> (HttpTarget, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = sample(listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, &response).await
    });
    (target, task)
}

async fn serve_tls(tls: &TlsFiles, response: Vec<u8>) -> HttpTarget {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = sample(listener.local_addr().unwrap());
    let tls = Tls::load(tls.clone()).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(stream) = tls.accept(stream).await {
            answer(stream, &response).await;
        }
    });
    target
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, response: &[u8]) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_gone) => break,
        }
    }
    // The client may have seen enough before all is written.
    let _ = stream.write_all(response).await;
    let _ = stream.shutdown().await;
    String::from_utf8_lossy(&request).into_owned()
}
