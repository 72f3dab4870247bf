//! A client that writes, reads what others wrote, and leaves watches.

use std::collections::VecDeque;

use rollcall::znode::Permissions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{WRITE_PERIOD, close};
use crate::client::Client;
use crate::history::{Action, Aspect, Change, Found, Read, Reply};

/// Counters that everybody writes.
pub(super) const SHARED: usize = 4;
/// Znodes in a writer's list; the oldest goes when there are more.
const LIST_MAX: usize = 20;

/// One writer and what it knows of its own znodes.
#[derive(Debug)]
pub(super) struct Writer {
    client: Client,
    number: usize,
    writers: usize,
    random: fastrand::Rng,
    names: u64,
    /// The version of its own counter, while it is known.
    version: Option<i32>,
    /// Its list, as far as it was told.
    list: VecDeque<String>,
    ephemerals: VecDeque<String>,
    session: Option<i64>,
}

impl Writer {
    pub(super) fn new(client: Client, number: usize, writers: usize) -> Self {
        let random = fastrand::Rng::with_seed(u64::try_from(number).expect("a handful"));
        Self {
            client,
            number,
            writers,
            random,
            names: 0,
            version: Some(0),
            list: VecDeque::new(),
            ephemerals: VecDeque::new(),
            session: None,
        }
    }

    /// Writes until `end`, and rests while `quiet`.
    pub(super) async fn run(mut self, quiet: watch::Receiver<bool>, end: CancellationToken) -> bool {
        let mut next = Instant::now();
        let mut count: u64 = 0;
        while !end.is_cancelled() {
            if *quiet.borrow() {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = self.rest() => {}
                }
                continue;
            }
            next = (next + WRITE_PERIOD).max(Instant::now());
            self.write().await;
            count += 1;
            if count.is_multiple_of(10) {
                let reads = self.reads();
                self.client.call(reads).await;
            }
            self.client.take_events();
            if next > Instant::now() {
                sleep_until(next).await;
            }
        }
        close(self.client).await
    }

    /// Keeps the session alive for a while. A connection that is lost is given all the time that the next one takes.
    async fn rest(&mut self) {
        self.client.ensure_connected().await;
        self.client.rest(WRITE_PERIOD).await;
    }

    async fn write(&mut self) {
        // Ephemerals are gone with the session that they were made in.
        self.client.ensure_connected().await;
        if self.client.session() != self.session {
            self.session = self.client.session();
            self.ephemerals.clear();
        }
        match self.random.u32(..100) {
            0..25 => self.count_own().await,
            25..45 => self.set_shared().await,
            45..60 => self.set_pair().await,
            60..65 => self.permit().await,
            65..85 => self.change_list().await,
            _ => self.change_ephemerals().await,
        }
    }

    /// Sets its own counter, on condition of the version that it knows.
    async fn count_own(&mut self) {
        let path = format!("/load/own{}", self.number);
        let set = self.set(path.clone(), self.version.unwrap_or(-1));
        // The read behind it must show it, or what came later.
        let read = Action::Read(Read { path, aspect: Aspect::Data, watch: false, synced: None });
        let replies = self.client.call(vec![Action::Change(set), read]).await;
        self.version = match replies.first() {
            Some(Some(Reply { error: 0, found: Found::Stat(stat), .. })) => Some(stat.version),
            // An unanswered write before this one was carried out after all, or nobody knows.
            _ => None,
        };
    }

    async fn set_shared(&mut self) {
        let path = format!("/load/shared{}", self.random.usize(..SHARED));
        let set = self.set(path, -1);
        self.client.ask(Action::Change(set)).await;
    }

    /// Sets two znodes in one transaction, and sometimes makes a third.
    async fn set_pair(&mut self) {
        let number = self.number;
        let mut changes =
            ["left", "right"].map(|side| self.set(format!("/load/{side}{number}"), -1)).to_vec();
        if self.random.u32(..4) == 0 {
            changes.push(self.create(format!("/load/list{number}/with"), false));
        }
        let created = changes.get(2).map(|change| change.path().to_owned());
        let reply = self.client.ask(Action::Multi(changes)).await;
        if reply.is_some_and(|reply| reply.error == 0) {
            self.list.extend(created);
        }
    }

    /// Lets others add children to its own counter, or not; nobody does.
    async fn permit(&mut self) {
        let withheld = if self.random.bool() { Permissions::CREATE.0 } else { 0 };
        let permissions = Permissions::ALL.0 & !withheld;
        let path = format!("/load/own{}", self.number);
        self.client.ask(Action::Permit { path, permissions }).await;
    }

    async fn change_list(&mut self) {
        if self.list.len() >= LIST_MAX || (!self.list.is_empty() && self.random.bool()) {
            let path = self.list.pop_front().expect("it is not empty");
            self.client.ask(Action::Change(Change::Delete { path })).await;
            return;
        }
        let create = self.create(format!("/load/list{}/n", self.number), false);
        let path = create.path().to_owned();
        if self.client.ask(Action::Change(create)).await.is_some_and(|reply| reply.error == 0) {
            self.list.push_back(path);
        }
    }

    async fn change_ephemerals(&mut self) {
        if self.ephemerals.len() >= 3 {
            let path = self.ephemerals.pop_front().expect("it is not empty");
            self.client.ask(Action::Change(Change::Delete { path })).await;
            return;
        }
        let create = self.create(format!("/load/eph/w{}-", self.number), true);
        let path = create.path().to_owned();
        let is_made = self.client.ask(Action::Change(create)).await.is_some_and(|reply| reply.error == 0);
        if is_made && self.client.session() == self.session {
            self.ephemerals.push_back(path);
        }
    }

    /// A sync and reads behind it, of what others write.
    fn reads(&mut self) -> Vec<Action> {
        let other = self.random.usize(..self.writers);
        let name = ["own", "left", "right"][self.random.usize(..3)];
        let shared = format!("/load/shared{}", self.random.usize(..SHARED));
        let read = |path: String, aspect, watch| Action::Read(Read { path, aspect, watch, synced: None });
        vec![
            Action::Sync,
            read(format!("/load/{name}{other}"), Aspect::Data, self.random.bool()),
            read(shared, Aspect::Exists, self.random.bool()),
            read(format!("/load/list{other}"), Aspect::Children, self.random.bool()),
            read(self.next_path(format!("/load/list{}/n", self.number)), Aspect::Exists, self.random.bool()),
        ]
    }

    fn set(&mut self, path: String, version: i32) -> Change {
        Change::Set { path, value: self.client.new_value(), version }
    }

    /// Creates a znode with a name of its own.
    fn create(&mut self, prefix: String, ephemeral: bool) -> Change {
        self.names += 1;
        Change::Create { path: format!("{prefix}{}", self.names), value: self.client.new_value(), ephemeral }
    }

    /// Where the next znode would be made.
    fn next_path(&self, prefix: String) -> String {
        format!("{prefix}{}", self.names + 1)
    }
}
