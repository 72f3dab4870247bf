//! Connecting to another member.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use super::members::HostPort;

/// Connects to one of the addresses that `to` has just now.
///
/// # Errors
///
/// When none of them can be reached within `timeout`.
pub(super) async fn dial(to: &HostPort, timeout: Duration) -> io::Result<TcpStream> {
    let attempt = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{to} has no address"));
        for address in lookup_host((to.host.as_str(), to.port)).await? {
            match TcpStream::connect(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer"));
    let socket = tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_late| Err(timed_out()))?;
    // Only latency suffers without it.
    let _ = socket.set_nodelay(true);
    Ok(socket)
}
