//! Clients that use an ensemble while things are done to it.

mod observer;
mod registrant;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Server, Settings};
use crate::history::{Action, Change, History, Record};
use crate::recorder::Recorder;
use crate::wait::wait_for;
use writer::Writer;

/// Who takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// Each writes every 50 ms, and reads behind a sync every tenth time.
    pub(crate) writers: usize,
    /// Each holds one ephemeral, and nothing else.
    pub(crate) registrants: usize,
    /// Each watches everything.
    pub(crate) observers: usize,
    /// A writer more, which knows of this member only.
    pub(crate) pinned: Option<usize>,
    pub(crate) session_timeout: Duration,
}

/// Load W: 10 connections with 200 writes a second together.
pub(crate) const LOAD_W: Workload = Workload {
    writers: 10,
    registrants: 0,
    observers: 2,
    pinned: None,
    session_timeout: crate::cluster::SESSION_TIMEOUT,
};

/// The clients of a run.
#[derive(Debug)]
pub(crate) struct Load {
    runtime: Runtime,
    /// True while the writers are to pause; their sessions go on.
    quiet: watch::Sender<bool>,
    /// Cancelled when everybody is to close its session.
    end: CancellationToken,
    clients: JoinSet<bool>,
    recorder: Recorder,
}

const WRITE_PERIOD: Duration = Duration::from_millis(50);
/// For a request in flight when the run ends; beyond it counts as unanswered.
const LAST_WORD: Duration = Duration::from_secs(10);

impl Load {
    /// Makes the znodes that everything happens on, and lets the clients begin.
    pub(crate) fn start(servers: &[Server], workload: Workload, recorder: &Recorder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let settings = Settings {
            servers: Arc::from(servers),
            session_timeout: workload.session_timeout,
            is_content_with_reading: false,
            recorder: recorder.clone(),
        };
        let writers = workload.writers + usize::from(workload.pinned.is_some());
        runtime.block_on(prepare(&settings, writers));
        let audit = settings.clone();
        let mut load = Self {
            runtime,
            quiet: watch::Sender::new(false),
            end: CancellationToken::new(),
            clients: JoinSet::new(),
            recorder: recorder.clone(),
        };
        for number in 0..workload.observers {
            let client = Client::new(&format!("observer{number}"), settings.clone());
            load.spawn_client(observer::run(client, load.end.clone()));
        }
        for number in 0..workload.registrants {
            let client = Client::new(&format!("registrant{number}"), settings.clone());
            load.spawn_client(registrant::run(client, load.end.clone()));
        }
        for number in 0..workload.writers {
            let client = Client::new(&format!("writer{number}"), settings.clone());
            load.spawn_client(
                Writer::new(client, number, writers).run(load.quiet.subscribe(), load.end.clone()),
            );
        }
        if let Some(member) = workload.pinned {
            let settings = Settings { servers: Arc::from([servers[member].clone()]), ..settings };
            let client = Client::new("pinned", settings);
            let writer = Writer::new(client, writers - 1, writers);
            load.spawn_client(writer.run(load.quiet.subscribe(), load.end.clone()));
        }
        if workload.registrants > 0 {
            let client = Client::new("auditor", audit);
            load.spawn_client(registrant::audit(client, load.quiet.subscribe(), load.end.clone()));
        }
        load
    }

    /// Waits until `count` more writes are acknowledged.
    pub(crate) fn wait_for_writes(&self, count: usize, limit: Duration) {
        let before = self.recorder.look(acknowledged);
        wait_for("writes are acknowledged", limit, || {
            (self.recorder.look(acknowledged) >= before + count).then_some(())
        });
    }

    /// Waits until all registrants have registered.
    pub(crate) fn wait_for_registrants(&self, count: usize, limit: Duration) {
        wait_for("everybody has registered", limit, || {
            (self.recorder.look(registered) >= count).then_some(())
        });
    }

    /// Lets the writers finish what they are at, and pause until [`Load::resume`].
    pub(crate) fn pause(&self) {
        self.quiet.send_replace(true);
        // Nobody sends anything new; what is in flight is answered or given up within a session's timeout.
        wait_for("no write is in flight", LAST_WORD, || {
            let before = self.recorder.look(acknowledged);
            std::thread::sleep(WRITE_PERIOD * 4);
            (self.recorder.look(acknowledged) == before).then_some(())
        });
    }

    /// Lets the writers go on.
    pub(crate) fn resume(&self) {
        self.quiet.send_replace(false);
    }

    /// Runs something of the harness on the clients' threads.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Lets everybody close its session; returns how many were told that it is closed.
    pub(crate) fn end(mut self) -> usize {
        self.end.cancel();
        let clients = std::mem::take(&mut self.clients);
        let results = self.runtime.block_on(clients.join_all());
        results.into_iter().filter(|is_closed| *is_closed).count()
    }

    /// Lets something of the harness run beside the clients.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(future)
    }

    pub(crate) fn join<T>(&self, task: JoinHandle<T>) -> T {
        self.runtime.block_on(task).expect("it does not panic")
    }

    fn spawn_client(&mut self, client: impl Future<Output = bool> + Send + 'static) {
        self.clients.spawn_on(client, self.runtime.handle());
    }
}

/// Closes a client's session at the end of a run.
async fn close(client: Client) -> bool {
    tokio::time::timeout(LAST_WORD, client.close()).await.unwrap_or(false)
}

async fn prepare(settings: &Settings, writers: usize) {
    let mut client = Client::new("preparer", settings.clone());
    let mut paths = vec!["/load".to_owned(), "/load/eph".to_owned(), "/registry".to_owned()];
    paths.extend((0..writer::SHARED).map(|number| format!("/load/shared{number}")));
    for number in 0..writers {
        paths.extend(["own", "left", "right", "list"].map(|name| format!("/load/{name}{number}")));
    }
    for path in paths {
        let value = format!("preparer-{path}");
        create(&mut client, path, value).await;
    }
    client.close().await;
}

/// Makes a znode, however often that takes.
async fn create(client: &mut Client, path: String, value: String) {
    let create = Action::Change(Change::Create { path, value, ephemeral: false });
    for attempt in 0..ATTEMPTS {
        let error = client.ask(create.clone()).await.map(|reply| reply.error);
        // An attempt without an answer may have been carried out.
        if error == Some(0) || (attempt > 0 && error == Some(NODE_EXISTS)) {
            return;
        }
        assert_eq!(error, None, "a znode of a new ensemble can be made");
    }
    panic!("a new ensemble does not answer");
}

const ATTEMPTS: u32 = 5;
const NODE_EXISTS: i32 = -110;

fn acknowledged(history: &History) -> usize {
    let writes = history.records.iter().filter(|record| {
        matches!(record, Record::Operation(operation)
            if operation.action.is_write() && operation.success().is_some())
    });
    writes.count()
}

fn registered(history: &History) -> usize {
    let creates = history.records.iter().filter(|record| {
        matches!(record, Record::Operation(operation)
            if operation.success().is_some()
                && matches!(&operation.action, Action::Change(Change::Create { path, .. })
                    if path.starts_with("/registry/")))
    });
    creates.count()
}
