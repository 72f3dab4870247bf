//! The znodes that a measurement works on: one root of its own, and everything below it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::super::failure::Failure;
use crate::client::{Client, ClientError, ClientSettings, CreateRequest, MultiOp};
use crate::clock;
use crate::znode::{CreateMode, OpError};

/// Operations of one multi, and bytes of data in it: well below what servers take in one request.
const BATCH_OPS_MAX: usize = 500;
const BATCH_DATA_BYTES_MAX: usize = 512 << 10;
/// How long removing is tried: ephemerals of lost sessions may have to expire first, and a leader to be elected.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);
const REMOVE_PAUSE: Duration = Duration::from_millis(200);

/// Where what lies.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: String,
    keys: u32,
    data: Bytes,
}

impl Layout {
    /// Names a root that nobody else has.
    pub(super) fn new(keys: u32, data_bytes: usize) -> Self {
        let root = format!("/rollcall-bench-{:016x}", fastrand::u64(..));
        Self { root, keys, data: vec![b'x'; data_bytes].into() }
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) const fn keys(&self) -> u32 {
        self.keys
    }

    /// What each znode holds.
    pub(super) fn data(&self) -> Bytes {
        self.data.clone()
    }

    pub(super) fn key(&self, number: u32) -> String {
        format!("{}/key-{number}", self.root)
    }

    /// The znode that everybody watches.
    pub(super) fn watched(&self) -> String {
        format!("{}/watched", self.root)
    }

    /// What the names of a connection's ephemerals begin with.
    pub(super) fn ephemeral(&self, connection: usize) -> String {
        format!("{}/ephemeral-{connection}-", self.root)
    }
}

/// The root on one ensemble.
#[derive(Debug)]
pub(super) struct Root {
    layout: Layout,
    client: Client,
    servers: String,
}

impl Root {
    /// Nothing is there yet: see [`Root::create`] and [`Root::fill`].
    pub(super) fn new(servers: &[String], layout: Layout) -> Self {
        let client = Client::start(ClientSettings::for_servers(servers));
        Self { layout, client, servers: servers.join(",") }
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Creates the root alone.
    pub(super) async fn create(&self) -> Result<(), Failure> {
        let created = self.client.create(self.layout.root(), Bytes::new(), CreateMode::Persistent).await;
        created.map(drop).map_err(|error| self.failure(&error))
    }

    /// Creates the root and the znodes to work on.
    pub(super) async fn fill(&self) -> Result<(), Failure> {
        let data = self.layout.data();
        let create = |path: String, data: Bytes| {
            MultiOp::Create(CreateRequest::open(path, data, CreateMode::Persistent))
        };
        let keys = (0..self.layout.keys).map(|key| create(self.layout.key(key), data.clone()));
        let mut ops: Vec<_> = [create(self.layout.root.clone(), Bytes::new())].into();
        ops.push(create(self.layout.watched(), data.clone()));
        ops.extend(keys);
        let batch_ops = (BATCH_DATA_BYTES_MAX / data.len().max(1)).clamp(1, BATCH_OPS_MAX);
        for batch in ops.chunks(batch_ops) {
            self.client.multi(batch.to_vec()).await.map_err(|error| self.failure(&error))?;
        }
        Ok(())
    }

    /// Removes the root and everything below it, and closes the session.
    pub(super) async fn remove(self) -> Result<(), Failure> {
        let deadline = clock::now() + REMOVE_TIMEOUT;
        while let Err(error) = remove(&self.client, self.layout.root()).await {
            if clock::now() > deadline {
                let root = &self.layout.root;
                let remedy =
                    format!("remove it with `rollcall zk --server {} delete -R {root}`", self.servers);
                return Err(Failure::failed(format!("{root} could not be removed: {error}; {remedy}")));
            }
            sleep(REMOVE_PAUSE).await;
        }
        // The session holds nothing; if it is not closed, it expires.
        let _expires = self.client.close().await;
        Ok(())
    }

    fn failure(&self, error: &ClientError) -> Failure {
        let remedy = match error {
            ClientError::NotConnected { .. } => {
                "; start one with `rollcall dev`, or name others with --servers"
            }
            ClientError::TooLong { .. } => "; lower --data-bytes",
            ClientError::Multi { .. }
            | ClientError::Op { .. }
            | ClientError::ConnectionLost { .. }
            | ClientError::SessionExpired { .. }
            | ClientError::TooManyWatches { .. }
            | ClientError::Reserved { .. }
            | ClientError::UnexpectedReply { .. }
            | ClientError::NotClosed { .. }
            | ClientError::Closed => "",
        };
        Failure::failed(format!(
            "cannot make the znodes to measure with at {}: {error}{remedy}",
            self.servers
        ))
    }
}

/// Removes a znode and everything below it. Most have no children: only those that turn out to have some are listed.
async fn remove(client: &Client, path: &str) -> Result<(), ClientError> {
    let names = match client.children(path).await {
        Err(error) if error.op_error() == Some(OpError::NoNode) => return Ok(()),
        other => other?.0,
    };
    for batch in names.chunks(BATCH_OPS_MAX) {
        let delete = |name| MultiOp::Delete { path: format!("{path}/{name}"), version: ANY_VERSION };
        match client.multi(batch.iter().map(delete).collect()).await {
            Ok(_) => {}
            Err(error) if error.op_error() == Some(OpError::NotEmpty) => {
                for name in batch {
                    Box::pin(remove(client, &format!("{path}/{name}"))).await?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    client.delete(path, None).await
}

const ANY_VERSION: i32 = -1;
