//! A session of a command's own with an ensemble, and how its failures are told.

use super::failure::Failure;
use super::output::note;
use crate::client::{Client, ClientError, ClientSettings, is_host_and_port};
use crate::znode::OpError;

/// Starts a client of `servers`, `HOST:PORT[,HOST:PORT…]`.
pub(super) fn open(servers: &str) -> Result<Client, Failure> {
    let servers: Vec<_> = servers.split(',').map(|server| server.trim().to_owned()).collect();
    if let Some(bad) = servers.iter().find(|server| !is_host_and_port(server)) {
        let text = format!("{bad:?} is not HOST:PORT; give one such as 127.0.0.1:2181 with --server");
        return Err(Failure::usage(text));
    }
    Ok(Client::start(ClientSettings::for_servers(servers)))
}

/// Ends the session after what was `done` in it, which is returned.
pub(super) async fn close(client: Client, done: Result<(), Failure>) -> Result<(), Failure> {
    // Closing needs a connection; where there was none, nothing is to be closed.
    if client.state().borrow().session().is_some() {
        let closed = client.close().await;
        if let (Ok(()), Err(error)) = (&done, closed) {
            note(&error.to_string());
        }
    }
    done
}

/// What went wrong at `servers`, and what to try.
pub(super) fn failure(error: &ClientError, servers: &str) -> Failure {
    let text = error.to_string();
    match error {
        ClientError::NotConnected { .. } => {
            Failure::failed(format!("{text}; start one with `rollcall dev`, or name others with --server"))
        }
        ClientError::Op { operation, error } => op_failure(&operation.to_string(), *error, servers),
        ClientError::Multi { .. }
        | ClientError::ConnectionLost { .. }
        | ClientError::SessionExpired { .. }
        | ClientError::TooLong { .. }
        | ClientError::TooManyWatches { .. }
        | ClientError::Reserved { .. }
        | ClientError::UnexpectedReply { .. }
        | ClientError::NotClosed { .. }
        | ClientError::Closed => Failure::failed(format!("{text} (at {servers})")),
    }
}

/// What a server has answered, at which address, and what to try.
pub(super) fn op_failure(operation: &str, error: OpError, servers: &str) -> Failure {
    const REMEDIES: [(OpError, &str); 4] = [
        (OpError::NoNode, "; `rollcall zk ls` shows what is there"),
        (OpError::NodeExists, "; `rollcall zk set` changes its data"),
        (OpError::NotEmpty, "; delete those first, or use -R"),
        (OpError::BadVersion, "; `rollcall zk stat` shows the version"),
    ];
    let remedy = REMEDIES.iter().find(|(known, _)| *known == error).map_or("", |(_, remedy)| *remedy);
    Failure::failed(format!("{operation}: {error} (at {servers}){remedy}"))
}
