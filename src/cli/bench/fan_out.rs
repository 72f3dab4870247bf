//! The workload `watch`: one writer, and watchers that are all told of each write.
//!
//! ```text
//! writer    set ──────────────────────────────────────────────► set ...
//! watchers  (armed)    event, get with watch ── reply (armed) ──┘ when all are armed again
//! ```
//!
//! An operation is one event received, timed from the sending of the write.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::link::{Incoming, Link, LinkError};
use super::run::{Run, Turn, Turns};
use crate::clock;
use crate::wire::Request;

/// How long the writer waits for all watchers before it counts the missing events as errors and writes again.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);
const ANY_VERSION: i32 = -1;

/// How far the watchers are.
#[derive(Debug)]
pub(super) struct FanOut {
    watchers: usize,
    armed: Cell<usize>,
    /// Events that the last write has yet to cause.
    awaited: Cell<usize>,
    written_at: Cell<Instant>,
    /// Told when nothing is awaited and all are armed.
    all_armed: Notify,
}

impl FanOut {
    pub(super) fn new(watchers: usize) -> Self {
        Self {
            watchers,
            armed: Cell::new(0),
            awaited: Cell::new(0),
            written_at: Cell::new(clock::now()),
            all_armed: Notify::new(),
        }
    }

    /// Sets the znode again and again.
    pub(super) async fn write(self: Rc<Self>, run: Rc<Run>, place: usize, path: String, data: Bytes) {
        let set = Request::SetData { path, data: Some(data), version: ANY_VERSION };
        run.keep_open(place, async |link| {
            let mut turns = Turns::new(&run, link)?;
            loop {
                if self.wait_for_all(&run, link, &mut turns).await? == Turn::Stopped {
                    return Ok(());
                }
                let now = clock::now();
                self.written_at.set(now);
                self.awaited.set(self.armed.get());
                link.submit(&set, now);
            }
        })
        .await;
    }

    /// Watches the znode, and watches it again after each event.
    pub(super) async fn watch(self: Rc<Self>, run: Rc<Run>, place: usize, path: String) {
        let get = Request::GetData { path, watch: true };
        run.keep_open(place, async |link| {
            let mut watcher = Watcher { fan_out: &self, is_armed: false };
            let mut turns = Turns::new(&run, link)?;
            link.submit(&get, clock::now());
            while turns.next(link).await? == Turn::Received {
                let now = clock::now();
                while let Some(incoming) = link.next(now)? {
                    match incoming {
                        Incoming::Reply { result: Ok(()), .. } => watcher.arm(),
                        Incoming::Reply { result: Err(error), .. } => {
                            run.fail(&error.to_string(), 1);
                            link.submit(&get, now);
                        }
                        Incoming::Event => {
                            watcher.disarm();
                            run.complete(now, now.saturating_duration_since(self.written_at.get()));
                            link.submit(&get, now);
                        }
                        Incoming::Pong { .. } => {}
                    }
                }
            }
            Ok(())
        })
        .await;
    }

    /// Waits until everybody was told of the last write and watches again.
    async fn wait_for_all(
        &self,
        run: &Run,
        link: &mut Link,
        turns: &mut Turns<'_>,
    ) -> Result<Turn, LinkError> {
        let mut deadline = clock::now() + ROUND_TIMEOUT;
        while !self.is_quiet() || link.unanswered() > 0 {
            let next = async {
                tokio::select! {
                    () = self.all_armed.notified() => Ok(Turn::Received),
                    turn = turns.next(link) => turn,
                }
            };
            match timeout_at(deadline.into(), next).await {
                Ok(Ok(Turn::Received)) => {}
                Ok(ended) => return ended,
                Err(_late) => {
                    run.fail(&format!("no event within {ROUND_TIMEOUT:?}"), self.awaited.take());
                    deadline = clock::now() + ROUND_TIMEOUT;
                }
            }
            let now = clock::now();
            while let Some(incoming) = link.next(now)? {
                if let Incoming::Reply { result: Err(error), .. } = incoming {
                    run.fail(&error.to_string(), 1);
                    // No event comes of it.
                    self.awaited.set(0);
                }
            }
        }
        Ok(Turn::Received)
    }

    const fn is_quiet(&self) -> bool {
        self.awaited.get() == 0 && self.armed.get() == self.watchers
    }
}

/// One watcher, over one connection.
struct Watcher<'fan_out> {
    fan_out: &'fan_out FanOut,
    is_armed: bool,
}

impl Watcher<'_> {
    fn arm(&mut self) {
        if !self.is_armed {
            self.is_armed = true;
            self.fan_out.armed.set(self.fan_out.armed.get() + 1);
        }
        if self.fan_out.is_quiet() {
            self.fan_out.all_armed.notify_one();
        }
    }

    fn disarm(&mut self) {
        if self.is_armed {
            self.is_armed = false;
            self.fan_out.armed.set(self.fan_out.armed.get() - 1);
            self.fan_out.awaited.set(self.fan_out.awaited.get().saturating_sub(1));
        }
    }
}

impl Drop for Watcher<'_> {
    /// A watch goes with its connection, and its event with it.
    fn drop(&mut self) {
        self.disarm();
    }
}
