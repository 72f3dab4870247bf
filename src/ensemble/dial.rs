//! Connecting to another member, and letting one connect.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use super::members::HostPort;
use crate::tls::Tls;

/// A connection between members, plain or not.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Connects to one of the addresses that `to` has just now.
///
/// # Errors
///
/// When none of them can be reached, or trusted, within `timeout`.
pub(super) async fn dial(to: &HostPort, timeout: Duration, tls: Option<&Tls>) -> io::Result<Box<dyn Socket>> {
    let attempt = async {
        let socket = connect(to).await?;
        // Only latency suffers without it.
        let _ = socket.set_nodelay(true);
        Ok(match tls {
            Some(tls) => Box::new(tls.connect(&to.host, socket).await?) as Box<dyn Socket>,
            None => Box::new(socket),
        })
    };
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer"));
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_late| Err(timed_out()))
}

async fn connect(to: &HostPort) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{to} has no address"));
    for address in lookup_host((to.host.as_str(), to.port)).await? {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Makes a connection of a socket that was accepted.
///
/// # Errors
///
/// When the other end is not to be trusted.
pub(super) async fn receive(socket: TcpStream, tls: Option<&Tls>) -> io::Result<Box<dyn Socket>> {
    let _ = socket.set_nodelay(true);
    Ok(match tls {
        Some(tls) => Box::new(tls.accept(socket).await?),
        None => Box::new(socket),
    })
}
