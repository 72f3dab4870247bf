//! A client that watches everything below the load's root.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::close;
use crate::client::Client;
use crate::history::Action;

const REST: Duration = Duration::from_millis(500);

pub(super) async fn run(mut client: Client, end: CancellationToken) -> bool {
    let mut session = None;
    while !end.is_cancelled() {
        client.ensure_connected().await;
        // A watch goes with its session, and comes back with it.
        if client.session() != session {
            session = client.session();
            let watching = client.ask(Action::WatchBelow("/load".to_owned())).await;
            if watching.is_none_or(|reply| reply.error != 0) {
                session = None;
            }
        }
        tokio::select! {
            () = end.cancelled() => {}
            () = client.rest(REST) => {}
        }
        client.take_events();
    }
    close(client).await
}
