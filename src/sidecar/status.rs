//! What the sidecar tells of itself.

use std::sync::Arc;

use super::reload::ReloadStats;
use crate::client::{Client, ClientState};
use crate::clock;
use crate::http::{ConnectionState, ConnectionStatus, SidecarStatus, StateDirStatus, StatusSource};
use crate::registry::{Registrar, StateFolder, ViewKeeperStats};

/// Whoever asks these parts.
pub(super) fn source_of(
    client: Client,
    registrar: Registrar,
    keeper: Option<Arc<ViewKeeperStats>>,
    state_dir: Option<StateFolder>,
    settings: Option<Arc<ReloadStats>>,
) -> StatusSource {
    let started = clock::now();
    StatusSource::new(move || SidecarStatus {
        uptime: clock::now().saturating_duration_since(started),
        connection: connection_of(&client),
        saved_at_ms: keeper.as_ref().and_then(|keeper| keeper.saved_at_ms()),
        state_dir: state_dir.as_ref().map(state_dir_of),
        settings: settings.as_ref().map(|settings| settings.status()),
        instances: registrar.status(),
    })
}

fn state_dir_of(folder: &StateFolder) -> StateDirStatus {
    StateDirStatus { folder: folder.name().to_string(), losses: folder.losses(), trouble: folder.trouble() }
}

fn connection_of(client: &Client) -> ConnectionStatus {
    let now = clock::now();
    let mut status = ConnectionStatus {
        state: ConnectionState::Connecting,
        server: None,
        session: None,
        session_timeout: None,
        proof_age: client.last_proof().map(|proof| now.saturating_duration_since(proof)),
        last_failure: None,
    };
    match &*client.state().borrow() {
        ClientState::Connecting { last_failure } => {
            status.last_failure = last_failure.as_ref().map(ToString::to_string);
        }
        ClientState::Connected { session, server, timeout, generation: _ } => {
            status.state = ConnectionState::Connected;
            status.session = Some(*session);
            status.server = Some(server.to_string());
            status.session_timeout = Some(*timeout);
        }
        ClientState::Expired { .. } => status.state = ConnectionState::Expired,
        ClientState::Closed => status.state = ConnectionState::Closed,
    }
    status
}
