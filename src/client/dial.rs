//! Getting a TCP connection to a server that is known by name.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one address is tried alone before the next joins in (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

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
pub(super) async fn dial(server: &str, known: Vec<SocketAddr>) -> Result<Dialed, String> {
    let mut addresses = match lookup_host(server).await {
        Ok(addresses) => addresses.collect(),
        Err(_) if !known.is_empty() => known,
        Err(error) => {
            return Err(format!("cannot be resolved ({error}); it must be host:port with a known host"));
        }
    };
    fastrand::shuffle(&mut addresses);
    let stream = connect_to_any(addresses.clone()).await?;
    Ok(Dialed { stream, addresses })
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
        let error = dial("localhost", vec![]).await.unwrap_err();
        assert!(error.contains("host:port"), "{error}");
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = dial(&unused.to_string(), vec![]).await.unwrap_err();
        assert!(error.starts_with(&unused.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_listener_is_reached_by_name_and_without_it_by_the_addresses_it_had() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed =
            dial(&format!("localhost:{}", listener.local_addr().unwrap().port()), vec![]).await.unwrap();
        assert!(dialed.stream.nodelay().unwrap());
        let again = dial("no-such-host.invalid:2181", dialed.addresses).await.unwrap();
        assert_eq!(again.stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    }
}
