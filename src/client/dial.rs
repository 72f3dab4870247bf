//! Getting a TCP connection to a server that is known by name.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::socket::ByteStream;

/// How long one address is tried alone before the next joins in (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long somebody else may take to look a name up: some of the time to connect must be left.
const HOST_NAMES_PATIENCE: Duration = Duration::from_millis(800);

/// Somebody who looks up hosts before the system is asked: no address where the system should be, an error where it has none or nobody answers.
#[derive(Clone)]
pub struct HostNames(Arc<LookUp>);

type LookUp = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

impl HostNames {
    /// Looks up by this.
    pub fn new(
        look_up: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(look_up))
    }
}

impl fmt::Debug for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostNames")
    }
}

impl PartialEq for HostNames {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for HostNames {}

/// Another way to servers than TCP, such as pipes in memory.
#[derive(Clone)]
pub struct Dialer(Arc<Dial>);

type Dial = dyn Fn(String) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> + Send + Sync;

impl Dialer {
    /// Reaches the server that is called so in the settings by this. Bounded by the caller, who drops it.
    pub fn new(
        dial: impl Fn(String) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(dial))
    }

    pub(super) async fn dial(&self, server: &str) -> Result<Box<dyn ByteStream>, String> {
        (self.0)(server.to_owned()).await.map_err(|error| format!("{server}: {error}"))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl PartialEq for Dialer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Dialer {}

/// A server that was reached.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) stream: TcpStream,
    /// All addresses that it has, for the day when its name cannot be resolved.
    pub(super) addresses: Vec<SocketAddr>,
}

/// Resolves `server` and connects to whichever of its addresses answers first. While the name cannot be resolved,
/// the addresses it had when it was last reached will do. Bounded by the caller, who drops it.
///
/// # Errors
///
/// What failed and what to check, as text.
pub(super) async fn dial(
    server: &str,
    known: Vec<SocketAddr>,
    host_names: Option<&HostNames>,
) -> Result<Dialed, String> {
    let mut addresses = match look_up(server, host_names).await {
        Ok(addresses) => addresses,
        Err(_) if !known.is_empty() => known,
        Err(error) => {
            return Err(format!("cannot be resolved ({error}); it must be host:port with a known host"));
        }
    };
    fastrand::shuffle(&mut addresses);
    let stream = connect_to_any(addresses.clone()).await?;
    Ok(Dialed { stream, addresses })
}

/// All addresses of `server`, which is `host:port`.
///
/// The system is not asked where somebody else should know: its resolver may be the very one that does not answer.
///
/// # Errors
///
/// When it has none, or nobody can say.
pub async fn look_up(server: &str, host_names: Option<&HostNames>) -> io::Result<Vec<SocketAddr>> {
    if let (Some(host_names), Some((host, port))) = (host_names, server.rsplit_once(':'))
        && let (Ok(port), Err(_)) = (port.parse::<u16>(), server.parse::<SocketAddr>())
    {
        let addresses = timeout(HOST_NAMES_PATIENCE, (host_names.0)(host.to_owned())).await;
        let addresses = addresses.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if !addresses.is_empty() {
            return Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
        }
    }
    Ok(lookup_host(server).await?.collect())
}

async fn connect_to_any(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut last_error = "its name has no address".to_owned();
    let mut attempts = JoinSet::new();
    let mut left = addresses.into_iter();
    loop {
        match left.next() {
            Some(address) => drop(attempts.spawn(connect(address))),
            None if attempts.is_empty() => return Err(last_error),
            None => {}
        }
        let wait = if left.len() > 0 { HEAD_START } else { Duration::MAX };
        match timeout(wait, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last_error = error,
            Ok(Some(Err(error))) => last_error = error.to_string(),
            Ok(None) | Err(_) => {}
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("{address}: {error}"))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_without_a_port_is_told_apart_from_a_dead_server() {
        let error = dial("localhost", vec![], None).await.unwrap_err();
        assert!(error.contains("host:port"), "{error}");
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = dial(&unused.to_string(), vec![], None).await.unwrap_err();
        assert!(error.starts_with(&unused.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_listener_is_reached_by_name_and_without_it_by_the_addresses_it_had() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = dial(&format!("localhost:{}", listener.local_addr().unwrap().port()), vec![], None)
            .await
            .unwrap();
        assert!(dialed.stream.nodelay().unwrap());
        let again = dial("no-such-host.invalid:2181", dialed.addresses, None).await.unwrap();
        assert_eq!(again.stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn names_are_asked_of_somebody_else_first_and_the_system_only_where_it_should_be() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let names = HostNames::new(|host| {
            Box::pin(async move {
                match host.as_str() {
                    "member.invalid" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
                    "localhost" => Ok(Vec::new()),
                    _ => Err(io::ErrorKind::TimedOut.into()),
                }
            })
        });
        for host in ["member.invalid", "localhost", "127.0.0.1"] {
            let dialed = dial(&format!("{host}:{}", addr.port()), vec![], Some(&names)).await.unwrap();
            assert_eq!(dialed.stream.peer_addr().unwrap(), addr, "{host}");
        }
        let again = dial("other.invalid:2181", vec![addr], Some(&names)).await.unwrap();
        assert_eq!(again.addresses, [addr]);
        let error = look_up("other.invalid:2181", Some(&names)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "the system is not asked");
    }
}
