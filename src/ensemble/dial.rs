//! Connections between members: dialling them by name, their socket options, and TLS if there is any.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::members::HostPort;
use crate::tls::Tls;

/// A connection between members, plain or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// How connections to and from members are made.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// How long it may take to connect, and, at both ends, to say who one is.
    pub(super) timeout: Duration,
    pub(super) patience: Patience,
    pub(super) tls: Option<Arc<Tls>>,
}

/// Whether a connection ended because an end was not what the other trusts, which does not pass by itself.
pub(super) fn is_distrust(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// When a connection over which nothing is acknowledged is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// After this time. For connections over which little is said.
    Limited(Duration),
    /// When the system gives up. For connections over which both ends are heard of all the time.
    System,
}

/// How long one address may keep the next one waiting, as for browsers: RFC 8305, section 5.
const STAGGER: Duration = Duration::from_millis(250);
/// Between two probes of a connection over which nothing comes.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

impl Transport {
    /// Connects to `to`, by whichever of the addresses that it has just now answers first.
    ///
    /// # Errors
    ///
    /// When none answers in time, or whoever does is not to be trusted.
    pub(super) async fn dial(&self, to: &HostPort) -> io::Result<Box<dyn Stream>> {
        let connecting = async {
            let addrs: Vec<SocketAddr> = lookup_host((to.host.as_str(), to.port)).await?.collect();
            let attempts = addrs.into_iter().map(|addr| async move { TcpStream::connect(addr).await });
            let socket = first_of(attempts).await?;
            self.patience.set_on(&socket);
            Ok(match &self.tls {
                Some(tls) => Box::new(tls.connect(&to.host, socket).await?) as Box<dyn Stream>,
                None => Box::new(socket),
            })
        };
        let timed_out = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer"));
        tokio::time::timeout(self.timeout, connecting).await.map_err(timed_out)?
    }

    /// Makes a connection of a socket that was accepted. Sets no deadline.
    ///
    /// # Errors
    ///
    /// When the other end is not to be trusted.
    pub(super) async fn welcome(&self, socket: TcpStream) -> io::Result<Box<dyn Stream>> {
        self.patience.set_on(&socket);
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.accept(socket).await?),
            None => Box::new(socket),
        })
    }
}

impl Patience {
    fn set_on(self, socket: &TcpStream) {
        // Without these, things go on; only later, or noticed later.
        let _ = socket.set_nodelay(true);
        let keepalive = socket2::TcpKeepalive::new().with_interval(PROBE_INTERVAL);
        let socket = socket2::SockRef::from(socket);
        match self {
            Self::Limited(silence) => {
                let _ = socket.set_tcp_keepalive(&keepalive.with_time(silence));
                let _ = socket.set_tcp_user_timeout(Some(silence));
            }
            Self::System => {
                let _ = socket.set_tcp_keepalive(&keepalive.with_time(PROBE_INTERVAL));
            }
        }
    }
}

/// Runs one attempt after the other, without waiting long for any of them, until one succeeds.
async fn first_of<T, F>(attempts: impl Iterator<Item = F>) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut attempts = attempts.fuse();
    let mut running = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "there is no address to connect to");
    loop {
        let is_last = match attempts.next() {
            Some(attempt) => {
                running.spawn(attempt);
                false
            }
            None => true,
        };
        let pause = async {
            match is_last {
                true => std::future::pending().await,
                false => tokio::time::sleep(STAGGER).await,
            }
        };
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => failure = error,
                // An attempt that panicked did not connect.
                Some(Err(error)) => failure = error.into(),
                None => return Err(failure),
            },
            () = pause => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_that_fails_gives_way_to_the_next() {
        let attempts = [Err(io::ErrorKind::ConnectionRefused.into()), Ok(7)].map(std::future::ready);
        assert_eq!(first_of(attempts.into_iter()).await.unwrap(), 7);
        let attempts =
            [1, 2].map(|code| std::future::ready(Err::<(), _>(io::Error::from_raw_os_error(code))));
        assert_eq!(first_of(attempts.into_iter()).await.unwrap_err().raw_os_error(), Some(2));
        let nobody = std::iter::empty::<std::future::Ready<io::Result<()>>>();
        assert_eq!(first_of(nobody).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_silent_address_does_not_keep_the_next_one_waiting() {
        let attempts = [Duration::from_secs(60), Duration::ZERO].map(|pause| async move {
            tokio::time::sleep(pause).await;
            Ok(pause)
        });
        let first =
            tokio::time::timeout(Duration::from_secs(5), first_of(attempts.into_iter())).await.unwrap();
        assert_eq!(first.unwrap(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_member_is_dialled_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = |host: &str| HostPort { host: host.into(), port: listener.local_addr().unwrap().port() };
        let transport = transport(Duration::from_secs(20));
        // It may be ::1 first, where nobody listens.
        transport.dial(&to("localhost")).await.map(drop).unwrap();
        assert!(transport.dial(&to("no-such-host.invalid")).await.is_err());
    }

    #[tokio::test]
    async fn who_does_not_answer_is_given_up_in_time() {
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let addr = silent.local_addr().unwrap().as_socket().unwrap();
        // Once its backlog is full, it does not even refuse.
        let mut backlog = Vec::new();
        while let Ok(socket) =
            tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(addr)).await
        {
            backlog.push(socket.unwrap());
        }
        let to = HostPort { host: addr.ip().to_string(), port: addr.port() };
        let late = transport(Duration::from_millis(100)).dial(&to).await.map(drop).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn silence_is_limited_where_little_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Patience::Limited(Duration::from_secs(5)).set_on(&socket);
        let options = socket2::SockRef::from(&socket);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(Duration::from_secs(5)));
        assert!(options.keepalive().unwrap() && options.tcp_nodelay().unwrap());
    }

    fn transport(timeout: Duration) -> Transport {
        Transport { timeout, patience: Patience::System, tls: None }
    }
}
