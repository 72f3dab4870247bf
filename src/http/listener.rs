//! Connections of HTTP/1.1: accepted within bounds, served by hyper, ended in an orderly way.
//!
//! Everything has an end: a connection that sends no whole head within `header_timeout` (silence between two
//! requests counts) is closed; one that is older than [`AGE_MAX`] is closed after the request it is in; at
//! shutdown every connection finishes its request, for at most `drain_timeout`. While all permits are taken, new
//! connections wait in the kernel's queue. A panic costs its own connection only.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::telemetry::Metrics;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Connections at a time. Default 1024; each takes about 10 KiB. A long poll holds one all the while, which is why there is a bound
    /// for them.
    pub connections_max: usize,
    /// How long a request's head may take, and a connection stay silent. Default 30 s.
    pub header_timeout: Duration,
    /// How long requests may still take at shutdown. Default 5 s.
    pub drain_timeout: Duration,
}

impl ListenerSettings {
    /// Long polls that may wait at a time, so that a quarter of the connections is left for requests that are answered at once.
    pub const fn long_polls_max(&self) -> usize {
        self.connections_max / 4 * 3
    }

    /// Commands that may wait at a time, a sixteenth of the connections: one is enough for a pod.
    pub const fn waiting_commands_max(&self) -> usize {
        self.connections_max / 16
    }
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            header_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// A response whose body is at hand.
pub type HttpResponse = Response<Full<Bytes>>;
/// A response to come.
pub type HttpFuture = Pin<Box<dyn Future<Output = HttpResponse> + Send>>;

/// What answers requests.
#[derive(Clone)]
pub struct Answer(Arc<dyn Fn(Request<Incoming>) -> HttpFuture + Send + Sync>);

impl Answer {
    /// Wraps a function from requests to responses.
    pub fn new(answer: impl Fn(Request<Incoming>) -> HttpFuture + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(..)")
    }
}

/// Accepts and serves connections until `shutdown`, then drains them.
pub async fn serve(
    listener: TcpListener,
    answer: Answer,
    settings: ListenerSettings,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    let mut connections = JoinSet::new();
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note_panic(ended);
                continue;
            }
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, client, permit)) => {
                pause = ACCEPT_PAUSE_MIN;
                let connection = serve_connection(stream, client, answer.clone(), settings, shutdown.clone());
                let open = OpenConnection::new(Arc::clone(&metrics), permit);
                connections.spawn(async move {
                    connection.await;
                    drop(open);
                });
            }
            Err(error) => {
                warn!(%error, ?pause, "an HTTP connection cannot be accepted");
                let _shutdown_or_over = timeout(pause, shutdown.cancelled()).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
    let drained = timeout(settings.drain_timeout, async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended);
        }
    });
    if drained.await.is_err() {
        warn!(connections = connections.len(), "HTTP connections are cut off at shutdown");
    }
}

/// Counted while it lives, even if its task panics.
struct OpenConnection {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl OpenConnection {
    fn new(metrics: Arc<Metrics>, permit: OwnedSemaphorePermit) -> Self {
        metrics.http_connections.inc();
        Self { metrics, _permit: permit }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.http_connections.dec();
    }
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, client) = listener.accept().await?;
    Ok((stream, client, permit))
}

async fn serve_connection(
    stream: TcpStream,
    client: SocketAddr,
    answer: Answer,
    settings: ListenerSettings,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%client, %error, "an HTTP connection ended before it began");
        return;
    }
    let service = service_fn(move |request| {
        let response = (answer.0)(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = tokio::time::sleep(AGE_MAX) => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_REQUEST_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%client, %error, "an HTTP connection ended early");
    }
}

fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "an HTTP request panicked; its connection is lost");
    }
}

/// Bytes of the longest head of a request; a longer one is answered with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// After this a connection takes no further request; clients open a new one without noticing.
const AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long the request that an aged connection is in may last: longer than any long poll.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(11 * 60);
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::select_all;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::clock;
    use crate::http::router::{Router, observe_view};
    use crate::http::{bind, sample};
    use crate::registry::{Cache, View};

    #[tokio::test]
    async fn requests_are_answered_pipelined_and_by_head() {
        let server = start(ListenerSettings::default());
        let mut client = server.connect().await;
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nHEAD /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let text = read_to_end(&mut client).await;
        let heads: Vec<_> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at..at + 12]).collect();
        assert_eq!(heads, ["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 404"]);
        assert_eq!(text.matches("content-length: 3\r\n").count(), 2, "HEAD tells the length: {text}");
        assert_eq!(text.matches("\r\n\r\nok\n").count(), 1, "and sends no body: {text}");
    }

    #[tokio::test]
    async fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
        // Some clients end a request with one line end too many (RFC 9112 section 2.2).
        for rest in [
            "\r\n",
            "GET /liv",
            "GET /api/v1/services/default/web?wait=10m HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
        ] {
            let server = start(ListenerSettings::default());
            let mut client = server.connect().await;
            client
                .write_all(format!("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n{rest}").as_bytes())
                .await
                .unwrap();
            let mut status = [0; 12];
            within(client.read_exact(&mut status)).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 200", "{rest:?}");
        }
    }

    #[tokio::test]
    async fn a_long_poll_is_woken_by_a_publication() {
        let server = start(ListenerSettings::default());
        let mut client = server.connect().await;
        client
            .write_all(b"GET /api/v1/services/default/web HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let first = read_to_end(&mut client).await;
        let etag = first.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();

        let mut poll = server.connect().await;
        let request = format!(
            "GET /api/v1/services/default/web?wait=10m HTTP/1.1\r\nHost: x\r\nIf-None-Match: {etag}\r\nConnection: close\r\n\r\n"
        );
        poll.write_all(request.as_bytes()).await.unwrap();
        let mut view = View::clone(&server.cache.load());
        let web = view.services.get_mut(&sample::key("default", "web")).unwrap();
        Arc::make_mut(web).instances.put(sample::instance("web-4", "10.0.0.4", "up", "\"weight\":1"));
        server.cache.publish(view);
        let text = read_to_end(&mut poll).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("web-4"), "{text}");
    }

    #[tokio::test]
    async fn long_polls_beyond_their_bound_are_refused_and_leave_room_for_other_requests() {
        let settings = ListenerSettings { connections_max: 4, ..ListenerSettings::default() };
        let server = start(settings);
        let mut polls = Vec::new();
        for _ in 0..4 {
            let mut poll = server.connect().await;
            poll.write_all(
                b"GET /api/v1/services/default/web?wait=10m HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
            )
            .await
            .unwrap();
            polls.push(Box::pin(async move { read_to_end(&mut poll).await }));
        }
        // Which of them is the fourth is chance; its connection is closed, though the client did not ask for that.
        let (refused, _, waiting) = select_all(polls).await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
        assert_eq!(waiting.len(), 3);
        let mut other = server.connect().await;
        other.write_all(CLOSING).await.unwrap();
        assert!(read_to_end(&mut other).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn half_a_head_is_not_waited_for_for_long_and_frees_its_place() {
        let header_timeout = Duration::from_millis(50);
        let server =
            start(ListenerSettings { connections_max: 1, header_timeout, ..ListenerSettings::default() });
        let mut slow = server.connect().await;
        slow.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
        let mut waiting = server.connect().await;
        waiting.write_all(CLOSING).await.unwrap();
        read_to_end(&mut slow).await;
        assert!(read_to_end(&mut waiting).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn garbage_and_long_heads_end_their_connection_only() {
        let server = start(ListenerSettings::default());
        let mut garbage = server.connect().await;
        garbage.write_all(b"\x00\x01\x02\r\n\r\n").await.unwrap();
        let text = read_to_end(&mut garbage).await;
        assert!(text.starts_with("HTTP/1.1 400"), "{text:?}");
        let mut long = server.connect().await;
        let head = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
        long.write_all(head.as_bytes()).await.unwrap();
        // The answer may be lost to a reset, as the rest of the head is never read.
        let text = read_to_end(&mut long).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text:?}");
        let mut other = server.connect().await;
        other.write_all(CLOSING).await.unwrap();
        assert!(read_to_end(&mut other).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_connection_only() {
        let has_panicked = Arc::new(AtomicBool::new(false));
        let answer = Answer::new(move |_| {
            let is_first = !has_panicked.swap(true, Ordering::Relaxed);
            Box::pin(async move {
                assert!(!is_first, "the first request panics, as this test wants");
                Response::new(Full::default())
            })
        });
        let server =
            start_with(answer, ListenerSettings { connections_max: 1, ..ListenerSettings::default() });
        let mut first = server.connect().await;
        first.write_all(CLOSING).await.unwrap();
        assert_eq!(read_to_end(&mut first).await, "");
        let mut second = server.connect().await;
        second.write_all(CLOSING).await.unwrap();
        assert!(read_to_end(&mut second).await.starts_with("HTTP/1.1 200"));
        assert_eq!(server.metrics.http_connections.get(), 0);
    }

    #[tokio::test]
    async fn shutdown_finishes_requests_and_closes_idle_connections() {
        let server = start(ListenerSettings::default());
        let mut idle = server.connect().await;
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        within(idle.read_u8()).await.unwrap();
        let mut poll = server.connect().await;
        poll.write_all(
            b"GET /api/v1/services/default/web?wait=10m HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
        )
        .await
        .unwrap();
        let deadline = clock::now() + Duration::from_secs(20);
        while server.metrics.http_connections.get() < 2 {
            assert!(clock::now() < deadline);
            tokio::task::yield_now().await;
        }
        server.shutdown.cancel();
        read_to_end(&mut idle).await;
        let polled = read_to_end(&mut poll).await;
        assert!(polled.is_empty() || polled.starts_with("HTTP/1.1 304"), "{polled}");
        within(server.task).await.unwrap();
    }

    const CLOSING: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    struct Started {
        addr: SocketAddr,
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Started {
        async fn connect(&self) -> TcpStream {
            within(TcpStream::connect(self.addr)).await.unwrap()
        }
    }

    fn start(settings: ListenerSettings) -> Started {
        let cache = Arc::new(Cache::new(clock::now()));
        cache.publish(sample::view());
        let metrics = Arc::new(Metrics::new());
        observe_view(&metrics, &cache).unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new(Arc::clone(&cache), Arc::clone(&metrics), shutdown.clone());
        let router = router.with_room_of(&settings);
        launch(router.into_answer(), settings, cache, metrics, shutdown)
    }

    fn start_with(answer: Answer, settings: ListenerSettings) -> Started {
        let cache = Arc::new(Cache::new(clock::now()));
        launch(answer, settings, cache, Arc::new(Metrics::new()), CancellationToken::new())
    }

    fn launch(
        answer: Answer,
        settings: ListenerSettings,
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Started {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, answer, settings, Arc::clone(&metrics), shutdown.clone()));
        Started { addr, cache, metrics, shutdown, task }
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(20), future).await.expect("within 20 s")
    }

    async fn read_to_end(client: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = within(client.read_to_end(&mut bytes)).await;
        String::from_utf8(bytes).unwrap()
    }
}
