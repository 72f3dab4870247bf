//! HTTP on loopback: lookups as JSON with long polls, liveness, readiness, metrics.
//!
//! [`lookup`] decides and is pure; [`router`] finds the route, waits for changes and writes responses;
//! [`report`] takes what applications say of themselves; [`listener`] keeps connections and [`status`] tells the state, for every role.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};

use tokio::net::TcpListener;

pub mod control;
pub mod explain;
pub mod listener;
pub mod lookup;
mod report;
mod respond;
pub mod router;
#[cfg(test)]
mod sample;
pub mod status;

pub use control::{Command, Control};
pub use listener::{ListenerSettings, serve};
pub use router::{Router, observe_view};
pub use status::StatusRouter;

/// Binds a listener. Needs a tokio runtime around it.
///
/// # Errors
///
/// When the address cannot be bound.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = StdTcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
