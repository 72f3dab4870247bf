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
    /// Nothing is there yet: see [`Root::fill`].
    pub(super) fn new(servers: &[String], layout: Layout) -> Self {
        let client = Client::start(ClientSettings::for_servers(servers));
        Self { layout, client, servers: servers.join(",") }
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Creates the znodes.
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
        while let Err(error) = self.try_remove().await {
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

    async fn try_remove(&self) -> Result<(), ClientError> {
        let root = &self.layout.root;
        let names = match self.client.children(root).await {
            Err(error) if error.op_error() == Some(OpError::NoNode) => return Ok(()),
            other => other?.0,
        };
        for batch in names.chunks(BATCH_OPS_MAX) {
            let delete = |name| MultiOp::Delete { path: format!("{root}/{name}"), version: ANY_VERSION };
            self.client.multi(batch.iter().map(delete).collect()).await?;
        }
        self.client.delete(root, None).await
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

const ANY_VERSION: i32 = -1;
