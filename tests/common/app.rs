//! An application that accepts whoever connects, as checks do, and says nothing.
//!
//! Use it by `#[path = "common/app.rs"] mod app;`. A listener that nobody accepts from is full after 128 connections, which are 13 s of
//! checks; whoever connects then hears nothing.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpListener;

/// Starts one on a free port of loopback, which refuses connections once it is dropped.
pub(crate) async fn start() -> Arc<TcpListener> {
    start_at((Ipv4Addr::LOCALHOST, 0).into()).await
}

/// Starts one where another was.
pub(crate) async fn start_at(address: SocketAddr) -> Arc<TcpListener> {
    let app = Arc::new(TcpListener::bind(address).await.expect("the address is free"));
    // Held only while it is asked, so that it is closed by whoever drops it.
    let listening = Arc::downgrade(&app);
    tokio::spawn(poll_fn(move |context| {
        while let Some(app) = listening.upgrade() {
            if app.poll_accept(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }));
    app
}
