//! HTTP on loopback: lookups as JSON with long polls, liveness, readiness, metrics.
//!
//! [`lookup`] decides and is pure; [`router`] finds the route, waits for changes and writes responses;
//! [`report`] takes what applications say of themselves, and [`command`] what operators tell own instances;
//! [`sidecar_status`] tells of the sidecar; [`listener`] keeps connections and [`status`] tells the state, for every role.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

mod command;
pub mod control;
pub mod explain;
pub mod listener;
pub mod lookup;
mod own_instance;
mod query;
pub mod rehearsal;
mod report;
mod respond;
pub mod router;
#[cfg(test)]
mod sample;
pub mod sidecar_status;
pub mod status;

pub use control::{Command, Control, Done};
pub use listener::{ListenerSettings, serve};
pub use router::{Router, observe_view};
pub use sidecar_status::{
    ConnectionState, ConnectionStatus, SettingsStatus, SidecarStatus, StateDirStatus, StatusSource,
};
pub use status::StatusRouter;

/// Connections that may wait to be accepted, within the system's own bound (`net.core.somaxconn`): a whole ensemble's clients reconnect
/// at once, and one that finds no room tries again a second later.
const BACKLOG: i32 = 4096;

/// Binds a listener. Needs a tokio runtime around it.
///
/// # Errors
///
/// When the address cannot be bound.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // As std does: a port may be taken again while connections of the process before linger.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
