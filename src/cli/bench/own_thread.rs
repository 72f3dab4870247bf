//! A thread for who must not have to wait for whatever else the bench is busy with.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::client::{Client, ClientSettings};

/// A thread that runs tasks until it is dropped, which cuts off those that are left.
#[derive(Debug)]
pub(super) struct OwnThread(Option<Runtime>);

impl OwnThread {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When the system has none.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Starts a client whose tasks run there.
    pub(super) fn client(&self, settings: ClientSettings) -> Client {
        let _tasks_go_there = self.runtime().enter();
        Client::start(settings)
    }

    /// Has it run a task.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime().spawn(task)
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for OwnThread {
    /// A runtime must not be waited for by another's task.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
