//! Reads the registry as a whole.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;

use rustc_hash::FxHasher;
use tokio::task::JoinSet;
use tracing::debug;

use super::state::{MirrorState, ReadOutcome, Walk, WalkedInstances, WalkedService};
use super::stats::MirrorStats;
use crate::client::{Client, ClientError};
use crate::registry::layout::Layout;
use crate::registry::name::{Label, ServiceKey};
use crate::znode::OpError;

/// Reads that are under way at once: enough to fill a connection, few enough to leave room for the registrar's.
const READS_MAX: usize = 256;

/// Which services' instances are read although their own stat says that they are as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// None: that stat is believed.
    Changed,
    /// One of [`Scope::SLICES`] slices of all services.
    Slice(u64),
}

impl Scope {
    /// After so many thorough walks everything was read.
    pub(super) const SLICES: u64 = 12;

    fn includes(self, service: &ServiceKey) -> bool {
        let Self::Slice(slice) = self else { return false };
        let mut hasher = FxHasher::default();
        service.hash(&mut hasher);
        hasher.finish() % Self::SLICES == slice % Self::SLICES
    }
}

/// Reads everything below the root, level by level, each level pipelined; but for the instances of services whose own stat says
/// that they are as `known`, and that are not in `scope`.
pub(super) async fn walk(
    client: &Client,
    layout: &Layout,
    known: &MirrorState,
    scope: Scope,
    stats: &MirrorStats,
) -> Result<Walk, ClientError> {
    let list = |path: String| {
        let client = client.clone();
        async move { children(&client, path).await }
    };
    let mut walk = Walk::default();
    // Without the root's own list nothing is known: its refusal is an error.
    let namespaces = match client.children(layout.root()).await {
        Ok((names, _)) => labels(names),
        Err(error) if error.op_error() == Some(OpError::NoNode) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut services = Vec::new();
    for (namespace, listed) in pipelined(namespaces, |namespace| list(layout.namespace(namespace))).await? {
        match listed {
            Ok(names) => services
                .extend(names.into_iter().map(|name| ServiceKey { namespace: namespace.clone(), name })),
            Err(refusal) => {
                walk.refused.insert(namespace, refusal);
            }
        }
    }
    let mut changed = Vec::new();
    let znodes = pipelined(services, |service| read_znode(client.clone(), layout.service(service))).await?;
    for (service, znode) in znodes {
        let is_unchanged = match &znode {
            ReadOutcome::Missing => continue,
            ReadOutcome::Found { stat, .. } => {
                known.is_unchanged(&service, stat) && !scope.includes(&service)
            }
            ReadOutcome::Refused(_) => false,
        };
        if !is_unchanged {
            changed.push(service.clone());
        }
        walk.services.insert(service, WalkedService { znode, instances: WalkedInstances::Unchanged });
    }
    let mut instances = Vec::new();
    for (service, listed) in pipelined(changed, |service| list(layout.service(service))).await? {
        let Some(walked) = walk.services.get_mut(&service) else { continue };
        walked.instances = match listed {
            Ok(ids) => {
                instances.extend(ids.into_iter().map(|id| (service.clone(), id)));
                WalkedInstances::Read(BTreeMap::new())
            }
            Err(refusal) => WalkedInstances::Refused(refusal),
        };
    }
    let records = pipelined(instances, |(service, id): &(ServiceKey, Label)| {
        read_znode(client.clone(), layout.instance(service, id))
    })
    .await?;
    stats.walk_reads.fetch_add(u64::try_from(records.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    for ((service, id), record) in records {
        let Some(walked) = walk.services.get_mut(&service) else { continue };
        if let WalkedInstances::Read(instances) = &mut walked.instances
            && record != ReadOutcome::Missing
        {
            instances.insert(id, record);
        }
    }
    Ok(walk)
}

/// The names of a znode's children that are labels, none when it is missing; or the server's refusal, which is not the
/// same as having none.
async fn children(client: &Client, path: String) -> Result<Result<Vec<Label>, OpError>, ClientError> {
    match client.children(path.as_str()).await {
        Ok((names, _)) => Ok(Ok(labels(names))),
        Err(error) => match error.op_error() {
            Some(OpError::NoNode) => Ok(Ok(Vec::new())),
            Some(refusal @ OpError::NoAuth) => Ok(Err(refusal)),
            _ => Err(error),
        },
    }
}

pub(super) async fn read_znode(client: Client, path: String) -> Result<ReadOutcome, ClientError> {
    match client.get(path).await {
        Ok((data, stat)) => Ok(ReadOutcome::Found { data, stat }),
        Err(error) => match error.op_error() {
            Some(OpError::NoNode) => Ok(ReadOutcome::Missing),
            Some(refusal) => Ok(ReadOutcome::Refused(refusal)),
            None => Err(error),
        },
    }
}

fn labels(names: Vec<String>) -> Vec<Label> {
    let parse = |name: String| Label::parse(&name).map_err(|error| debug!(%error, "skipped a name")).ok();
    names.into_iter().filter_map(parse).collect()
}

/// Reads for all `keys`, up to [`READS_MAX`] at once; the first error ends it.
pub(super) async fn pipelined<K, T, F>(
    keys: impl IntoIterator<Item = K>,
    read: impl Fn(&K) -> F,
) -> Result<Vec<(K, T)>, ClientError>
where
    K: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    let (mut reads, mut done) = (JoinSet::new(), Vec::new());
    let mut keys = keys.into_iter();
    loop {
        while let Some(key) = (reads.len() < READS_MAX).then(|| keys.next()).flatten() {
            let read = read(&key);
            reads.spawn(async move { (key, read.await) });
        }
        let Some(joined) = reads.join_next().await else { return Ok(done) };
        let (key, outcome) = joined.expect("reads do not panic and nobody aborts them");
        done.push((key, outcome?));
    }
}
