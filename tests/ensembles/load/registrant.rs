//! A client as a sidecar is one: it holds an ephemeral, and its session alive.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::close;
use crate::client::Client;
use crate::history::{Action, Aspect, Change, Read};

const REST: Duration = Duration::from_secs(2);
const AUDIT_PERIOD: Duration = Duration::from_millis(200);

pub(super) async fn run(mut client: Client, end: CancellationToken) -> bool {
    let mut registered = None;
    let mut times = 0;
    while !end.is_cancelled() {
        client.ensure_connected().await;
        if client.session() != registered {
            times += 1;
            let value = format!("{}-{times}", client.name());
            // A path of its own each time: whether an unanswered attempt was carried out is for the checkers to say.
            let path = format!("/registry/{value}");
            let create = Action::Change(Change::Create { path, value, ephemeral: true });
            if client.ask(create).await.is_some_and(|reply| reply.error == 0) {
                registered = client.session();
            }
        }
        tokio::select! {
            () = end.cancelled() => {}
            () = client.rest(REST) => {}
        }
    }
    close(client).await
}

/// Looks behind a sync at who is registered, again and again but while it is quiet: whoever's session lives must be.
pub(super) async fn audit(mut client: Client, quiet: watch::Receiver<bool>, end: CancellationToken) -> bool {
    while !end.is_cancelled() {
        if !*quiet.borrow() {
            let read =
                Read { path: "/registry".to_owned(), aspect: Aspect::Children, watch: false, synced: None };
            client.call(vec![Action::Sync, Action::Read(read)]).await;
        }
        client.rest(AUDIT_PERIOD).await;
    }
    close(client).await
}
