//! Asks whether all who subscribe to services have applied a change: every member of the ensemble, since each knows its own.
//!
//! ```text
//! the service's pzxid ──► one session a member ──► its barrier, until nobody is behind ──► Judgement (pure) ──► Evidence
//! ```
//!
//! - The change is in the tree, so the newest change of the service's children is it, or a later one.
//! - Members say who else is a member. That all have applied it is said when all of these were asked, and nobody is behind.
//! - Who lost its connection to one member may have said so to another: that word is carried between them (see the paths in
//!   [`BarrierPath`]).
//! - Members that do not know barriers, Apache's and older ones, say that there is no such znode.
//! - Each question opens a session a member for as long as it takes, which is a txn to open and one to close it.

mod judgement;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::judgement::{Answer, Judgement, MemberStanding, judge};
use super::change::{Evidence, SubscriberReport};
use super::layout::Layout;
use super::name::ServiceKey;
use crate::client::{Client, ClientSettings, look_up};
use crate::id::Zxid;
use crate::znode::{BarrierPath, OpError, SubscriberName, ZnodePath};

/// Members that are asked; more addresses than these are not.
const MEMBERS_MAX: usize = 32;
/// Questions at a time; others wait for their turn.
const QUESTIONS_MAX: usize = 4;
/// From one question to a member to the next: a subscriber needs some milliseconds, and one that is slow is not waited for busily.
const POLL_MIN: Duration = Duration::from_millis(10);
/// Where the doubling ends.
const POLL_MAX: Duration = Duration::from_millis(200);
/// How long a member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to look for members that others name and nobody reaches, while everybody else has applied the change.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks members about subscribers.
#[derive(Clone, Debug)]
pub(super) struct BarrierAsker {
    client: Client,
    layout: Layout,
    turns: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// A change: up to which txn what stands at this path is to be applied.
#[derive(Clone, Debug)]
struct Question {
    zxid: Zxid,
    path: ZnodePath,
}

impl BarrierAsker {
    /// Asks the ensemble of `client`.
    pub(super) fn new(client: Client, layout: Layout) -> Self {
        Self { client, layout, turns: Arc::new(Semaphore::new(QUESTIONS_MAX)), tasks: TaskTracker::new() }
    }

    /// Waits until all who subscribe to `services` have applied what the client has written, or until it is clear that this
    /// cannot be found out; then for the quiet time. `report` is always what is known so far. It has no time limit; that is the
    /// caller's, who drops it.
    pub(super) async fn ask(
        &self,
        services: &BTreeSet<ServiceKey>,
        report: &mut Option<SubscriberReport>,
    ) -> Evidence {
        let started = Instant::now();
        let quiet_at = started + Evidence::QUIET_TIME;
        let Some(questions) = self.questions(services).await else {
            sleep_until(quiet_at).await;
            return Evidence::QuietTime;
        };
        let _turn = self.turns.acquire().await;
        let (mut answers, count) = self.poll(questions).await;
        let mut latest = vec![Answer::None; count];
        loop {
            let (judgement, now_known) = judge(&latest);
            *report = now_known;
            let others = report.as_ref().map_or(0, |report| report.other_watchers);
            let due = match judgement {
                Judgement::Applied if others == 0 => return Evidence::Subscribers,
                Judgement::Applied | Judgement::CannotBeAsked => Some(quiet_at),
                Judgement::IsIncomplete => Some(started + PATIENCE.max(Evidence::QUIET_TIME)),
                Judgement::IsOpen => None,
            };
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = is_due => {
                    let is_applied = judgement == Judgement::Applied;
                    return if is_applied { Evidence::Subscribers } else { Evidence::QuietTime };
                }
                Some((index, answer)) = answers.recv() => latest[index] = answer,
            }
        }
    }

    /// Waits until all sessions that asked are closed, or were given up. Whoever asks meanwhile is waited for, too.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// `None` when there is nothing to ask, or the client has lost its connection.
    async fn questions(&self, services: &BTreeSet<ServiceKey>) -> Option<Vec<Question>> {
        let mut questions = Vec::new();
        for service in services {
            let path = self.layout.service(service);
            match self.client.exists(&*path).await {
                Ok(Some(stat)) => {
                    questions.push(Question { zxid: stat.pzxid, path: ZnodePath::parse(&path).ok()? });
                }
                Ok(None) => {}
                Err(error) => {
                    debug!(%service, %error, "cannot ask who has applied the change");
                    return None;
                }
            }
        }
        Some(questions).filter(|questions| !questions.is_empty())
    }

    /// Has all members asked for as long as the receiver lives; returns how many.
    async fn poll(&self, questions: Vec<Question>) -> (Answers, usize) {
        let settings = self.client.settings();
        let servers = addresses_of(settings).await;
        let clients: Arc<[Client]> = servers
            .into_iter()
            .map(|server| {
                Client::start(ClientSettings {
                    servers: vec![server],
                    request_timeout: ANSWER_TIMEOUT,
                    close_timeout: ANSWER_TIMEOUT,
                    ..settings.clone()
                })
            })
            .collect();
        let (sender, receiver) = mpsc::channel(clients.len().max(1));
        let (questions, end): (Arc<[Question]>, _) = (questions.into(), CancellationToken::new());
        for index in 0..clients.len() {
            let member = Member { index, clients: clients.clone(), questions: questions.clone() };
            self.tasks.spawn(member.run(sender.clone(), end.clone()));
        }
        (Answers { receiver, _end: end.drop_guard() }, clients.len())
    }
}

/// What members answer; dropping it ends the asking.
struct Answers {
    receiver: mpsc::Receiver<(usize, Answer)>,
    _end: tokio_util::sync::DropGuard,
}

impl Answers {
    async fn recv(&mut self) -> Option<(usize, Answer)> {
        self.receiver.recv().await
    }
}

/// Every address of every server, so that no member hides behind a name.
async fn addresses_of(settings: &ClientSettings) -> Vec<String> {
    let mut addresses = BTreeSet::new();
    for server in &settings.servers {
        match timeout(settings.connect_timeout, look_up(server, settings.host_names.as_ref())).await {
            Ok(Ok(found)) => addresses.extend(found.iter().map(SocketAddr::to_string)),
            Ok(Err(_)) | Err(_) => drop(addresses.insert(server.clone())),
        }
    }
    addresses.into_iter().take(MEMBERS_MAX).collect()
}

/// One member that is asked.
struct Member {
    index: usize,
    clients: Arc<[Client]>,
    questions: Arc<[Question]>,
}

impl Member {
    async fn run(self, answers: mpsc::Sender<(usize, Answer)>, end: CancellationToken) {
        tokio::select! {
            () = self.ask_on(&answers) => {}
            () = end.cancelled() => {}
        }
        if let Err(error) = self.client().clone().close().await {
            debug!(%error, "a session that asked for subscribers stays until it expires");
        }
    }

    async fn ask_on(&self, answers: &mpsc::Sender<(usize, Answer)>) {
        let mut pause = POLL_MIN;
        loop {
            let answer = self.ask(pause >= POLL_MAX).await;
            if answers.send((self.index, answer)).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Who has been behind `for_long` may be there by a connection that is dead, and alive elsewhere.
    async fn ask(&self, for_long: bool) -> Answer {
        let mut standings = Vec::with_capacity(self.questions.len());
        for question in &*self.questions {
            let path = BarrierPath::Barrier(question.zxid, question.path.clone()).to_string();
            let data = match self.client().get(path).await {
                Ok((data, _)) => data.unwrap_or_default(),
                Err(error) if error.op_error() == Some(OpError::NoNode) => return Answer::NotUnderstood,
                Err(_) => return Answer::Silence,
            };
            let Ok(standing) = serde_json::from_slice::<MemberStanding>(&data) else {
                return Answer::NotUnderstood;
            };
            self.look_elsewhere(question.zxid, &standing.away).await;
            if for_long {
                self.look_elsewhere(question.zxid, &standing.behind).await;
            }
            standings.push(standing);
        }
        MemberStanding::merged(standings).map_or(Answer::NotUnderstood, Answer::Told)
    }

    /// Who is missed here may have said to another member how far it is.
    async fn look_elsewhere(&self, zxid: Zxid, names: &[String]) {
        for name in names.iter().filter_map(|name| SubscriberName::parse(name)) {
            let standing = BarrierPath::Standing(name.clone(), zxid).to_string();
            let is_another = |(index, client): &(usize, &Client)| {
                *index != self.index && client.state().borrow().session().is_some()
            };
            for (_, other) in self.clients.iter().enumerate().filter(is_another) {
                if let Ok(Some(stat)) = other.exists(&*standing).await {
                    let elsewhere = BarrierPath::Elsewhere(name, zxid, stat.ephemeral_owner).to_string();
                    // What does not arrive is carried the next time.
                    let _outcome = self.client().exists(elsewhere).await;
                    break;
                }
            }
        }
    }

    fn client(&self) -> &Client {
        &self.clients[self.index]
    }
}
