//! What a session is told, and what it wants done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::error::ClientError;
use crate::client::state::ClientState;
use crate::client::watch_table::WatcherId;
use crate::client::watcher::WatchNotice;
use crate::id::Zxid;
use crate::wire::{Request, Response};
use crate::znode::WatchedEvent;

/// Names a request until it is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::client) struct Ticket(pub(in crate::client) u64);

/// A successful answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The last txn that the server had applied when it answered; that of the request itself if it wrote.
    pub zxid: Zxid,
    /// The record.
    pub response: Response,
}

/// What happens to a session.
#[derive(Debug)]
pub(in crate::client) enum Input {
    /// Somebody asks for something. With `watcher` the request sets a watch for it.
    Submit { ticket: Ticket, request: Request, watcher: Option<WatcherId>, deadline: Instant },
    /// Nobody waits for this request any more; if it was not sent it never is.
    Withdraw(Ticket),
    /// Nobody listens to this watcher any more.
    Unwatch(WatcherId),
    /// The connection asked for by [`Output::Dial`] is there.
    Opened,
    /// The dial, or the connection, failed.
    Failed(Arc<str>),
    /// A frame came.
    Frame(Bytes),
    /// Somebody wants the session closed.
    Close,
    /// Time has passed.
    Tick,
}

/// What a session wants done.
#[derive(Debug, PartialEq)]
pub(in crate::client) enum Output {
    /// Connect to a server; answered by `Opened` or `Failed`.
    Dial(Arc<str>),
    /// Put bytes on the connection.
    Send(Vec<u8>),
    /// Drop the connection, or the attempt at one.
    HangUp(Arc<str>),
    /// Answer a request.
    Complete(Ticket, Result<Reply, ClientError>),
    /// Tell a one-shot watcher, which is done with.
    Fire(WatcherId, WatchedEvent),
    /// Tell a persistent watcher.
    Notify(WatcherId, WatchNotice),
    /// The watch was not set; its watcher will hear nothing.
    Forget(WatcherId),
    /// The server proved itself current; after a ping with the time it took.
    Proved(Option<Duration>),
    /// A session was begun on data that are behind what was seen, so many times by now.
    BegunAnew(u64),
    /// Publish the state.
    State(ClientState),
    /// All is over; how closing went.
    Ended(Result<(), ClientError>),
}
