//! Carries out one check over and over: connects, asks, keeps the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::health::{Health, HealthState};
use super::settings::{Check, CheckTarget, StatusRange};

/// Why one check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// Nothing accepted the connection.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// Where to.
        server: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The connection was accepted, and then no HTTP response came.
    #[error("{server} sent no HTTP response: {source}")]
    Http {
        /// From where.
        server: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// The response's status code is not among those that pass.
    #[error("{server} answered with status {status}")]
    Status {
        /// Who.
        server: SocketAddr,
        /// What.
        status: u16,
    },
    /// We could not ask: this process or machine is out of something. Says nothing about the target.
    #[error("cannot ask {server}: {source}")]
    NotAsked {
        /// Whom.
        server: SocketAddr,
        /// For want of what.
        source: std::io::Error,
    },
    /// There was no answer in time.
    #[error("no answer within {} ms", .timeout.as_millis())]
    Timeout {
        /// The time it had.
        timeout: Duration,
    },
}

/// Where the states of several checks are published together.
#[derive(Clone, Debug)]
pub struct HealthBoard {
    states: Arc<watch::Sender<Vec<HealthState>>>,
}

impl HealthBoard {
    /// A board of `checks` that have no result yet.
    pub fn new(checks: usize) -> Self {
        Self { states: Arc::new(watch::Sender::new(vec![HealthState::Initial; checks])) }
    }

    /// The states now and from now on, in the order of the checks.
    pub fn subscribe(&self) -> watch::Receiver<Vec<HealthState>> {
        self.states.subscribe()
    }

    fn set(&self, index: usize, state: HealthState) {
        self.states.send_modify(|states| states[index] = state);
    }
}

/// Runs `check`, the one at `index` of `board`, until nobody reads the board any more, and publishes each change of
/// state there. The first check starts at once.
pub async fn run(check: Check, board: HealthBoard, index: usize) {
    let mut counted = Health::new(check.rise, check.fall);
    let mut due = crate::clock::now();
    loop {
        let result = ask_within(&check.target, check.timeout).await;
        let change = match &result {
            Ok(()) => counted.on_result(true),
            // An instance must not leave because its sidecar is short of files.
            Err(failure @ CheckFailure::NotAsked { .. }) => {
                warn!(%failure, "check not made; the last state stays");
                None
            }
            Err(failure) => {
                debug!(%failure, "check failed");
                counted.on_result(false)
            }
        };
        if let Some(state) = change {
            match &result {
                Ok(()) => info!(?state, "check rose"),
                Err(failure) => info!(?state, %failure, "check fell"),
            }
            board.set(index, state);
        }
        due = next_due(due, crate::clock::now(), check.interval, check.jitter.mul_f64(fastrand::f64()));
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = board.states.closed() => return,
        }
    }
}

/// Asks once.
///
/// # Errors
///
/// When the answer is not as expected, or there is none within `timeout`.
pub async fn ask_within(target: &CheckTarget, timeout: Duration) -> Result<(), CheckFailure> {
    tokio::time::timeout(timeout, ask(target)).await.unwrap_or(Err(CheckFailure::Timeout { timeout }))
}

async fn ask(target: &CheckTarget) -> Result<(), CheckFailure> {
    match target {
        CheckTarget::Tcp { server } => connect(*server).await.map(drop),
        CheckTarget::Http { server, host, path, status } => ask_http(*server, host, path, *status).await,
    }
}

async fn connect(server: SocketAddr) -> Result<TcpStream, CheckFailure> {
    TcpStream::connect(server).await.map_err(|source| {
        if is_own_shortage(&source) {
            CheckFailure::NotAsked { server, source }
        } else {
            CheckFailure::Connect { server, source }
        }
    })
}

/// Whether a connection was not even tried, for want of files or memory on our side.
fn is_own_shortage(error: &std::io::Error) -> bool {
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| own.contains(&errno))
}

/// Reads the head of the response only; the connection is closed when this returns or is dropped.
async fn ask_http(
    server: SocketAddr,
    host: &str,
    path: &str,
    expected: StatusRange,
) -> Result<(), CheckFailure> {
    let http = |source| CheckFailure::Http { server, source };
    let stream = connect(server).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let request = hyper::Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("rollcall/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .expect("path and host were checked when the settings were read");
    let mut response = std::pin::pin!(sender.send_request(request));
    let mut connection = std::pin::pin!(connection);
    // The connection has to be driven for the response to come; it may end right after it, or without one.
    let response = tokio::select! {
        biased;
        response = &mut response => response,
        _ = &mut connection => response.await,
    };
    let status = response.map_err(http)?.status().as_u16();
    if expected.contains(status) { Ok(()) } else { Err(CheckFailure::Status { server, status }) }
}

/// When the next check starts, if this one was due at `due`. Intervals count from when checks were due, not from
/// when they ended, so that the rate does not drift; `jitter` only shortens. After a pause (a suspended process) the
/// checks that were missed are not made up for.
fn next_due(due: Instant, now: Instant, interval: Duration, jitter: Duration) -> Instant {
    let next = due + interval.saturating_sub(jitter);
    if now.saturating_duration_since(next) > interval { now } else { next }
}

/// The longest head of a response that is read.
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_rate_does_not_drift_and_jitter_only_shortens() {
        let (start, second) = (crate::clock::now(), Duration::from_secs(1));
        let slow = start + Duration::from_millis(900);
        assert_eq!(next_due(start, slow, second, Duration::ZERO), start + second);
        assert_eq!(next_due(start, start, second, second / 10), start + second * 9 / 10);
        let behind = start + Duration::from_millis(1_500);
        assert_eq!(next_due(start, behind, second, Duration::ZERO), start + second, "starts at once");
        let suspended = start + second * 100;
        assert_eq!(next_due(start, suspended, second, Duration::ZERO), suspended);
    }

    #[test]
    fn in_virtual_time_a_dead_target_is_failing_within_interval_times_fall() {
        let (start, interval, fall) = (crate::clock::now(), Duration::from_secs(1), 3);
        let mut rng = fastrand::Rng::with_seed(7);
        for died_after_ms in (0..2_000).step_by(7) {
            let died = start + Duration::from_millis(died_after_ms);
            let (mut due, mut health) = (start, Health::new(1, fall));
            let fell = loop {
                // A connection is refused at once; one that is accepted takes its time.
                let answered = if due < died { due + interval / 3 } else { due };
                if health.on_result(due < died) == Some(HealthState::Failing) {
                    break answered;
                }
                due = next_due(due, answered, interval, interval.mul_f64(0.1 * rng.f64()));
            };
            assert!(
                fell - died <= interval * fall,
                "died after {died_after_ms} ms, found {:?} later",
                fell - died
            );
        }
    }

    #[tokio::test]
    async fn a_tcp_check_passes_when_the_connection_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = CheckTarget::Tcp { server: listener.local_addr().unwrap() };
        ask_within(&target, LONG).await.unwrap();
        drop(listener);
        assert!(matches!(ask_within(&target, LONG).await, Err(CheckFailure::Connect { .. })));
    }

    #[test]
    fn only_shortages_of_our_own_say_nothing_about_the_target() {
        let error = |errno: Errno| std::io::Error::from(errno);
        for own in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(is_own_shortage(&error(own)), "{own}");
        }
        for targets in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::NETUNREACH] {
            assert!(!is_own_shortage(&error(targets)), "{targets}");
        }
    }

    #[tokio::test]
    async fn an_http_check_passes_by_its_status_code() {
        for (status, passes) in [("204 No Content", true), ("302 Found", true), ("503 Busy", false)] {
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
            let (target, request) = serve(response.into_bytes()).await;
            let result = ask_within(&target, LONG).await;
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
            let result = ask_within(&target, LONG).await;
            assert!(matches!(result, Err(CheckFailure::Http { .. })), "{result:?}");
        }
    }

    #[tokio::test]
    async fn a_hang_fails_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = http_target(listener.local_addr().unwrap());
        let result = ask_within(&target, Duration::from_millis(50)).await;
        assert!(matches!(result, Err(CheckFailure::Timeout { .. })), "{result:?}");
    }

    #[tokio::test]
    async fn a_server_that_dies_is_found_failing_within_interval_times_fall() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = CheckTarget::Tcp { server: listener.local_addr().unwrap() };
        let interval = Duration::from_millis(100);
        let check =
            Check { target, interval, timeout: interval / 2, rise: 2, fall: 3, jitter: interval / 10 };
        let board = HealthBoard::new(2);
        let mut health = board.subscribe();
        let task = tokio::spawn(run(check, board, 1));
        wait_for(&mut health, HealthState::Passing).await;
        let died = crate::clock::now();
        drop(listener);
        wait_for(&mut health, HealthState::Failing).await;
        let took = died.elapsed();
        // The promise is 300 ms and the time to be scheduled; the margin is for a busy machine.
        assert!(took < Duration::from_secs(3), "{took:?}");
        drop(health);
        tokio::time::timeout(LONG, task).await.expect("ends when nobody listens").unwrap();
    }

    const LONG: Duration = Duration::from_secs(10);

    async fn wait_for(health: &mut watch::Receiver<Vec<HealthState>>, state: HealthState) {
        let reached = health.wait_for(|now| now[1] == state);
        tokio::time::timeout(LONG, reached).await.expect("in time").unwrap();
    }

    fn http_target(server: SocketAddr) -> CheckTarget {
        let (host, path) = ("app.example".to_owned(), "/health?deep=1".to_owned());
        CheckTarget::Http { server, host, path, status: StatusRange::DEFAULT }
    }

    /// Serves one connection; the handle returns the request.
    async fn serve(response: Vec<u8>) -> (CheckTarget, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = http_target(listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            // The client may have seen enough before all is written.
            let _ = stream.write_all(&response).await;
            String::from_utf8(request).unwrap()
        });
        (target, task)
    }
}
