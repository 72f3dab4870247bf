//! A session's word to the members, when one asks: how far its views have come. All mirrors of the session give it together.
//!
//! ```text
//! member ──► event on our path, with a zxid ──► Subscription ──► every mirror: hear(), read and publish all it was told before,
//! member ◄── a read that says so ◄───────────── Subscription ◄── confirm()                      once the last of them has
//! ```
//!
//! The event comes behind those of all changes up to its zxid, and the client hands events on in their order. So a mirror that
//! hears of it and looks at its own watcher's queue after that finds them there. A word that gets lost with its connection needs no
//! care: the member at the other end of the next connection asks again. Servers that do not know the path never ask.
//!
//! A question does not say which path it is about, so that all mirrors are asked, also those that do not follow it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::RETRY_PAUSE;
use crate::client::{Client, ClientError, ResyncReason, WatchNotice, Watcher};
use crate::id::Zxid;
use crate::znode::{AddWatchMode, BarrierPath, EventKind, SubscriberName};

/// Words under way; beyond, the newest waits, and says what those between would have.
const WORDS_MAX: usize = 16;

/// A session as members know it. Its task ends with `shutdown`, or with the client.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    name: SubscriberName,
    asked: watch::Sender<Question>,
    parts: Arc<watch::Sender<Vec<Part>>>,
    /// The number of the last question that was answered.
    said: u64,
    words: JoinSet<()>,
}

/// One mirror's part in the word.
#[derive(Debug)]
pub(super) struct Subscriber {
    index: usize,
    asked: watch::Receiver<Question>,
    parts: Arc<watch::Sender<Vec<Part>>>,
    /// What was asked, and is not answered.
    heard: Option<Question>,
}

/// Whether all is applied up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Question {
    /// From 1; the same may be asked again.
    number: u64,
    zxid: Zxid,
}

/// How far one mirror is.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    is_watching: bool,
    /// The last question that it can say yes to.
    applied: Question,
}

impl Subscription {
    /// The session of `client`, which has this name. Nobody else may have it.
    pub fn new(client: Client, name: SubscriberName) -> Self {
        let (asked, parts) = (watch::Sender::default(), Arc::default());
        Self { client, name, asked, parts, said: 0, words: JoinSet::new() }
    }

    /// One more mirror, without which nothing is said from now on.
    pub(super) fn subscriber(&self) -> Subscriber {
        let mut index = 0;
        self.parts.send_modify(|parts| {
            index = parts.len();
            parts.push(Part::default());
        });
        Subscriber { index, asked: self.asked.subscribe(), parts: self.parts.clone(), heard: None }
    }

    /// Answers members until `shutdown`, or until the client is closed. To be run once all mirrors are made.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.answer() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn answer(&mut self) {
        let mut parts = self.parts.subscribe();
        // Known to the member once all that is followed is watched: before, changes of it are not told.
        let are_watching = |parts: &Vec<Part>| parts.iter().all(|part| part.is_watching);
        if parts.wait_for(are_watching).await.is_err() {
            return;
        }
        let Some(mut watcher) = self.subscribe().await else { return };
        loop {
            tokio::select! {
                notice = watcher.recv() => match notice {
                    // Who subscribes anew is asked anew.
                    Some(WatchNotice::Resync(ResyncReason::Overflow)) => match self.subscribe().await {
                        Some(anew) => watcher = anew,
                        None => return,
                    },
                    Some(notice) => self.on_notice(&notice),
                    None => return,
                },
                changed = parts.changed() => match changed {
                    Ok(()) => self.say(&parts.borrow_and_update()),
                    Err(_) => return,
                },
                Some(_) = self.words.join_next() => self.say(&parts.borrow_and_update()),
            }
        }
    }

    /// Sets the watch, however long it takes; `None` when the client is closed.
    async fn subscribe(&self) -> Option<Watcher> {
        let path = BarrierPath::Subscriber(self.name.clone()).to_string();
        loop {
            match self.client.watch(&*path, AddWatchMode::Persistent).await {
                Ok(watcher) => return Some(watcher),
                Err(ClientError::Closed) => return None,
                Err(error) => debug!(%error, "cannot subscribe yet"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn on_notice(&self, notice: &WatchNotice) {
        match notice {
            WatchNotice::Event { event, zxid, .. } if event.kind == EventKind::DataChanged => {
                let said = self.said;
                self.asked.send_modify(|asked| *asked = asked.then(*zxid, said));
            }
            WatchNotice::Event { .. } | WatchNotice::Disconnected | WatchNotice::Resync(_) => {}
        }
    }

    /// Says what all mirrors can say, if that is new.
    fn say(&mut self, parts: &[Part]) {
        if self.words.len() >= WORDS_MAX {
            return;
        }
        let Some(Question { number, zxid }) = common(parts).filter(|common| common.number > self.said) else {
            return;
        };
        self.said = number;
        let (client, path) =
            (self.client.clone(), BarrierPath::Standing(self.name.clone(), zxid).to_string());
        self.words.spawn(async move {
            if let Err(error) = client.exists(path).await {
                debug!(%zxid, %error, "could not say how far the view is");
            }
        });
    }
}

impl Question {
    /// The next question, which is about this zxid, and about what was asked before if that was not answered: `said` is the number of
    /// the last that was.
    fn then(self, zxid: Zxid, said: u64) -> Self {
        let zxid = if self.number > said { self.zxid.max(zxid) } else { zxid };
        Self { number: self.number + 1, zxid }
    }
}

/// What all can say.
fn common(parts: &[Part]) -> Option<Question> {
    let applied = parts.iter().map(|part| part.applied);
    applied.reduce(|one, other| Question {
        number: one.number.min(other.number),
        zxid: one.zxid.min(other.zxid),
    })
}

impl Subscriber {
    /// One that is never asked.
    pub(super) fn of_nobody() -> Self {
        let (_, asked) = watch::channel(Question::default());
        let parts = Arc::new(watch::Sender::new(vec![Part::default()]));
        Self { index: 0, asked, parts, heard: None }
    }

    /// Tells that what is followed is watched.
    pub(super) fn subscribe(&mut self) {
        self.parts.send_modify(|parts| parts[self.index].is_watching = true);
    }

    /// Takes note of what was asked. What is told of changes is to be looked at after this.
    pub(super) fn hear(&mut self) {
        // Once the session's task is gone nobody is answered.
        if self.asked.has_changed().unwrap_or(false) {
            self.heard = Some(*self.asked.borrow_and_update());
        }
    }

    /// Forgets what was asked: the connection is gone, and whoever is at the other end of the next asks again.
    pub(super) fn forget(&mut self) {
        self.heard = None;
    }

    /// Waits until there is something to hear. Losing this future loses nothing.
    pub(super) async fn stirred(&mut self) {
        if self.asked.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.heard = Some(*self.asked.borrow_and_update());
    }

    /// Says, if it was asked, that all is applied that was told before [`Subscriber::hear`].
    pub(super) fn confirm(&mut self) {
        if let Some(heard) = self.heard.take() {
            self.parts.send_modify(|parts| parts[self.index].applied = heard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientSettings;
    use crate::znode::WatchedEvent;

    #[tokio::test]
    async fn nothing_is_said_before_all_mirrors_have_published_what_they_were_told() {
        let mut session = session();
        let (mut one, mut other) = (session.subscriber(), session.subscriber());
        ask(&session, 7);
        one.hear();
        one.confirm();
        assert_eq!(session.says(), None, "the other has not heard it yet");
        other.hear();
        assert_eq!(session.says(), None, "nor published");
        other.confirm();
        assert_eq!(session.says(), Some(Zxid::from_raw(7)));
        for mirror in [&mut one, &mut other] {
            mirror.hear();
            mirror.confirm();
        }
        assert_eq!(session.says(), None, "once is enough");
    }

    #[tokio::test]
    async fn what_was_asked_while_one_reads_is_answered_as_far_as_all_are() {
        let mut session = session();
        let (mut one, mut other) = (session.subscriber(), session.subscriber());
        ask(&session, 7);
        other.hear();
        ask(&session, 9);
        one.hear();
        for mirror in [&mut one, &mut other] {
            mirror.confirm();
        }
        assert_eq!(session.says(), Some(Zxid::from_raw(7)), "the other heard no more before it read");
        other.hear();
        other.confirm();
        assert_eq!(session.says(), Some(Zxid::from_raw(9)));
    }

    #[tokio::test]
    async fn a_question_that_comes_again_is_answered_again_and_an_older_one_by_itself() {
        let mut session = session();
        let mut only = session.subscriber();
        // A word that was lost, and an ensemble that begins anew.
        for zxid in [7, 7, 2] {
            ask(&session, zxid);
            only.stirred().await;
            only.confirm();
            assert_eq!(session.says(), Some(Zxid::from_raw(zxid)));
        }
        // Of two that wait the newer says both.
        ask(&session, 7);
        ask(&session, 3);
        only.hear();
        only.confirm();
        assert_eq!(session.says(), Some(Zxid::from_raw(7)));
    }

    #[tokio::test]
    async fn one_that_nobody_asks_says_nothing() {
        let mut nobody = Subscriber::of_nobody();
        nobody.subscribe();
        nobody.hear();
        nobody.confirm();
        assert_eq!(nobody.heard, None);
        let stirred = tokio::time::timeout(std::time::Duration::from_millis(5), nobody.stirred());
        assert!(stirred.await.is_err());
    }

    impl Subscription {
        /// The zxid of the word that it says now, if it does.
        fn says(&mut self) -> Option<Zxid> {
            let (parts, said) = (self.parts.borrow().clone(), self.said);
            self.say(&parts);
            (self.said > said).then(|| common(&parts).expect("it was said").zxid)
        }
    }

    fn ask(session: &Subscription, zxid: i64) {
        let path = BarrierPath::Subscriber(session.name.clone()).to_string();
        let event = WatchedEvent { kind: EventKind::DataChanged, path };
        session.on_notice(&WatchNotice::Event { event, zxid: Zxid::from_raw(zxid), carried: None });
    }

    /// On an ensemble that is not there.
    fn session() -> Subscription {
        let client = Client::start(ClientSettings { servers: Vec::new(), ..ClientSettings::default() });
        Subscription::new(client, SubscriberName::parse("host.one").expect("a name"))
    }
}
