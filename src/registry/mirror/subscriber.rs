//! The mirror's word to the members: how far its view has come, when one asks.
//!
//! ```text
//! member ──► event on our path, with a zxid ──► hear() ──► the mirror reads and publishes all it was told before ──► confirm()
//! ```
//!
//! The event comes behind those of all changes up to its zxid, and the client hands events on in their order. So whoever hears it
//! and looks at the other watcher's queue after that finds them there. A word that gets lost with its connection needs no care: the
//! member at the other end of the next connection asks again. Servers that do not know the path never ask.

use tokio::task::JoinSet;
use tracing::debug;

use super::RETRY_PAUSE;
use crate::client::{Client, ClientError, ResyncReason, WatchNotice, Watcher};
use crate::id::Zxid;
use crate::znode::{AddWatchMode, BarrierPath, EventKind, SubscriberName};

/// Words under way; beyond, the newest waits, and says what those between would have.
const WORDS_MAX: usize = 16;

/// One mirror as members know it.
#[derive(Debug)]
pub(super) struct Subscriber {
    client: Client,
    /// `None` for one that is not to be asked.
    name: Option<SubscriberName>,
    watcher: Option<Watcher>,
    subscribing: JoinSet<Option<Watcher>>,
    /// Up to where it was asked, and has not answered.
    asked: Option<Zxid>,
    words: JoinSet<()>,
}

impl Subscriber {
    pub(super) fn new(client: Client, name: Option<SubscriberName>) -> Self {
        let (subscribing, words) = (JoinSet::new(), JoinSet::new());
        Self { client, name, watcher: None, subscribing, asked: None, words }
    }

    /// Becomes known to the member, now or when there is a connection. To be called once what is followed is watched.
    pub(super) fn subscribe(&mut self) {
        if let Some(name) = self.name.clone() {
            self.watcher = None;
            self.subscribing.spawn(subscribe(self.client.clone(), BarrierPath::Subscriber(name).to_string()));
        }
    }

    /// Takes note of what was asked. What is told of changes is to be looked at after this.
    pub(super) fn hear(&mut self) {
        while let Some(Ok(watcher)) = self.subscribing.try_join_next() {
            self.watcher = watcher;
        }
        while let Some(notice) = self.watcher.as_mut().and_then(Watcher::try_recv) {
            self.on_notice(&notice);
        }
    }

    /// Waits until there is something to hear. Losing this future loses nothing.
    pub(super) async fn stirred(&mut self) {
        tokio::select! {
            Some(Ok(watcher)) = self.subscribing.join_next() => self.watcher = watcher,
            Some(notice) = next_of(&mut self.watcher) => self.on_notice(&notice),
            else => std::future::pending().await,
        }
    }

    /// Says, if it was asked, that all is applied that was told before [`Subscriber::hear`].
    pub(super) fn confirm(&mut self) {
        while self.words.try_join_next().is_some() {}
        if self.words.len() >= WORDS_MAX {
            return;
        }
        if let (Some(zxid), Some(name)) = (self.asked.take(), self.name.clone()) {
            let (client, path) = (self.client.clone(), BarrierPath::Standing(name, zxid).to_string());
            self.words.spawn(async move {
                if let Err(error) = client.exists(path).await {
                    debug!(%zxid, %error, "could not say how far the view is");
                }
            });
        }
    }

    fn on_notice(&mut self, notice: &WatchNotice) {
        match notice {
            WatchNotice::Event(event, zxid) if event.kind == EventKind::DataChanged => {
                self.asked = self.asked.max(Some(*zxid));
            }
            // Who subscribes anew is asked anew.
            WatchNotice::Resync(ResyncReason::Overflow) => self.subscribe(),
            WatchNotice::Event(..)
            | WatchNotice::Disconnected
            | WatchNotice::Resync(ResyncReason::Reconnected | ResyncReason::NewSession) => {}
        }
    }
}

async fn next_of(watcher: &mut Option<Watcher>) -> Option<WatchNotice> {
    watcher.as_mut()?.recv().await
}

/// Sets the watch, however long it takes; `None` when the client is closed.
async fn subscribe(client: Client, path: String) -> Option<Watcher> {
    loop {
        match client.watch(&*path, AddWatchMode::Persistent).await {
            Ok(watcher) => return Some(watcher),
            Err(ClientError::Closed) => return None,
            Err(error) => debug!(%error, "cannot subscribe yet"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
