//! One question and its answer on a connection of its own.

use std::future::Future;
use std::pin::pin;

/// Waits for the answer while driving the connection, without which it would not come. The connection may end right after the
/// answer, or without one: the exchange says which.
pub(super) async fn driven<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    let mut exchange = pin!(exchange);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}
