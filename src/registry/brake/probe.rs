//! Finds out whether an instance that vanished still answers: a TCP connect.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ProbeOutcome, ProbeTarget};
use crate::registry::check::is_own_shortage;

/// How long one probe waits.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Tries the addresses one after the other until one answers. All must refuse for it to be refused.
pub async fn probe(target: &ProbeTarget) -> ProbeOutcome {
    let mut outcome = ProbeOutcome::Refused;
    for address in &target.addresses {
        match connect(SocketAddr::new(*address, target.port)).await {
            ProbeOutcome::Answered => return ProbeOutcome::Answered,
            ProbeOutcome::Refused => {}
            ProbeOutcome::Silent if outcome != ProbeOutcome::NotAsked => outcome = ProbeOutcome::Silent,
            ProbeOutcome::Silent => {}
            ProbeOutcome::NotAsked => outcome = ProbeOutcome::NotAsked,
        }
    }
    outcome
}

async fn connect(server: SocketAddr) -> ProbeOutcome {
    match timeout(PROBE_TIMEOUT, TcpStream::connect(server)).await {
        Ok(Ok(_)) => ProbeOutcome::Answered,
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => ProbeOutcome::Silent,
        Ok(Err(error)) if is_own_shortage(&error) => ProbeOutcome::NotAsked,
        Ok(Err(_)) => ProbeOutcome::Refused,
        Err(_elapsed) => ProbeOutcome::Silent,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::registry::{Label, ServiceKey};

    #[tokio::test]
    async fn who_accepts_answers_and_who_does_not_listen_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(probe(&target(&["127.0.0.1"], port)).await, ProbeOutcome::Answered);
        assert_eq!(probe(&target(&["127.0.0.2", "127.0.0.1"], port)).await, ProbeOutcome::Answered);
        drop(listener);
        assert_eq!(probe(&target(&["127.0.0.1"], port)).await, ProbeOutcome::Refused);
    }

    #[tokio::test]
    async fn a_full_backlog_is_silence() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // Linux completes one connection more than the backlog says.
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut kept = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            kept.push(stream);
        }
        assert_eq!(probe(&target(&["127.0.0.1"], address.port())).await, ProbeOutcome::Silent);
    }

    fn target(addresses: &[&str], port: u16) -> ProbeTarget {
        let label = |text: &str| Label::parse(text).unwrap();
        let service = ServiceKey { namespace: label("default"), name: label("web") };
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        ProbeTarget { service, id: label("web-1"), addresses, port }
    }
}
