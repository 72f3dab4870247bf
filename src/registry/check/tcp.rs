//! Connecting, which is all that a tcp check does and what others begin with.

use std::net::SocketAddr;

use rustix::io::Errno;
use tokio::net::TcpStream;

use super::failure::CheckFailure;

/// Connects; shortages of our own are told from refusals.
pub(super) async fn connect(server: SocketAddr) -> Result<TcpStream, CheckFailure> {
    TcpStream::connect(server).await.map_err(|source| {
        if is_own_shortage(&source) {
            CheckFailure::NotAsked { source }
        } else {
            CheckFailure::Connect { server, source }
        }
    })
}

/// Whether a connection was not even tried, for want of files or memory on our side.
pub(in crate::registry) fn is_own_shortage(error: &std::io::Error) -> bool {
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| own.contains(&errno))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_tcp_check_passes_when_the_connection_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        connect(server).await.unwrap();
        drop(listener);
        assert!(matches!(connect(server).await, Err(CheckFailure::Connect { .. })));
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
}
