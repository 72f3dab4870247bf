//! Reads the registry as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{Hash, Hasher};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustc_hash::FxHasher;
use tracing::debug;

use super::source::Source;
use super::state::{MirrorState, ReadOutcome, Walk, WalkedInstances, WalkedService};
use crate::client::{Client, ClientError};
use crate::registry::layout::{Layout, Place};
use crate::registry::name::{Label, ServiceKey};
use crate::znode::OpError;

/// Reads that are under way at once: enough to fill a connection, few enough to leave room for the registrar's.
const READS_MAX: usize = 256;

/// Which services' instances are read although their own stat says that they are as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// None: that stat is believed.
    Changed,
    /// All: zxids began anew, and what they are compared with says nothing.
    All,
    /// One of [`Scope::SLICES`] slices of all services.
    Slice(u64),
}

impl Scope {
    /// After so many thorough walks everything was read.
    pub(super) const SLICES: u64 = 12;

    /// Whether changes may have been missed, so that differences are no defects.
    pub(super) const fn is_because_of_a_loss(self) -> bool {
        matches!(self, Self::Changed | Self::All)
    }

    fn includes(self, service: &ServiceKey) -> bool {
        let slice = match self {
            Self::Changed => return false,
            Self::All => return true,
            Self::Slice(slice) => slice,
        };
        let mut hasher = FxHasher::default();
        service.hash(&mut hasher);
        hasher.finish() % Self::SLICES == slice % Self::SLICES
    }
}

/// All services that are `listed`, none with its instances; and those whose instances are to be read, with their paths: the ones
/// that are not as `known` by their own stat, or are in `scope`.
pub(super) async fn walk_services(
    client: &Client,
    source: &Source,
    listed: Listed,
    known: &MirrorState,
    scope: Scope,
) -> Result<(Walk, Vec<(ServiceKey, String)>), ClientError> {
    let Listed { services, names, refused } = listed;
    let mut walk = Walk { names, refused, ..Walk::default() };
    let znodes = pipelined(services, |(_, path)| read_znode(client.clone(), path.clone())).await?;
    let mut changed = Vec::new();
    for ((service, path), znode) in znodes {
        let znode = source.translate(&Place::Service(service.clone()), &path, znode);
        let is_unchanged = match &znode {
            ReadOutcome::Missing => continue,
            ReadOutcome::Found { stat, .. } => {
                source.is_revealed_by_stat()
                    && known.is_unchanged(&service, stat)
                    && !scope.includes(&service)
            }
            ReadOutcome::Refused(_) | ReadOutcome::NotUnderstood(_) => false,
        };
        if !is_unchanged {
            changed.push((service.clone(), path));
        }
        walk.services.insert(service, WalkedService { znode, instances: WalkedInstances::Unchanged });
    }
    Ok((walk, changed))
}

/// Reads the instances of some services, which `walk` has.
pub(super) async fn walk_instances(
    client: &Client,
    source: &Source,
    walk: &Walk,
    services: Vec<(ServiceKey, String)>,
) -> Result<BTreeMap<ServiceKey, WalkedService>, ClientError> {
    let mut walked = BTreeMap::new();
    let mut reads = Vec::new();
    let listed = pipelined(services, |(_, path)| children(client.clone(), path.clone())).await?;
    for ((service, path), listed) in listed {
        let instances = match listed {
            Ok(names) => {
                let place = |name: String| {
                    let place = Place::Instance(service.clone(), source.instance_id(&name)?);
                    Some((place, format!("{path}/{name}")))
                };
                reads.extend(names.into_iter().filter_map(place));
                WalkedInstances::Read(BTreeMap::new())
            }
            Err(refusal) => WalkedInstances::Refused(refusal),
        };
        let Some(WalkedService { znode, .. }) = walk.services.get(&service) else { continue };
        walked.insert(service, WalkedService { znode: znode.clone(), instances });
    }
    let records = pipelined(reads, |(_, path)| read_znode(client.clone(), path.clone())).await?;
    for ((place, path), record) in records {
        let record = source.translate(&place, &path, record);
        let Place::Instance(service, id) = place else { continue };
        if let Some(WalkedService { instances: WalkedInstances::Read(instances), .. }) =
            walked.get_mut(&service)
            && record != ReadOutcome::Missing
        {
            instances.insert(id, record);
        }
    }
    Ok(walked)
}

/// What there is, by name.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Services to be read, and where they are.
    pub(super) services: Vec<(ServiceKey, String)>,
    /// Services that are not to be read.
    pub(super) names: BTreeSet<ServiceKey>,
    /// Namespaces whose services the server does not list for us.
    pub(super) refused: BTreeMap<Label, OpError>,
}

/// All services that `source` shows.
pub(super) async fn list_services(client: &Client, source: &Source) -> Result<Listed, ClientError> {
    let mut services = Vec::new();
    let layout = match source {
        Source::Registry { layout, .. } => layout,
        Source::Namespace { layout, namespace } => {
            // Without the list nothing is known: its refusal is an error.
            for name in list(client, layout.namespace(namespace)).await? {
                services.extend(service_at(source, format!("{}/{name}", layout.namespace(namespace))));
            }
            return Ok(Listed { services, ..Listed::default() });
        }
        Source::Adopted(adopted) => {
            let root = adopted.root.as_str();
            match &adopted.service {
                Some(_) => services.extend(service_at(source, root.to_owned())),
                None => {
                    for name in list(client, root.to_owned()).await? {
                        let prefix = if adopted.root.is_root() { "" } else { root };
                        services.extend(service_at(source, format!("{prefix}/{name}")));
                    }
                }
            }
            return Ok(Listed { services, ..Listed::default() });
        }
    };
    let namespaces = list_namespaces(client, layout).await?;
    list_services_of(client, source, layout, namespaces).await
}

/// The namespaces of the registry.
pub(super) async fn list_namespaces(client: &Client, layout: &Layout) -> Result<Vec<Label>, ClientError> {
    let names = list(client, layout.root().to_owned()).await?;
    Ok(names.iter().filter_map(|name| Label::parse(name).ok()).collect())
}

/// The services that `source` shows of some namespaces of the registry.
pub(super) async fn list_services_of(
    client: &Client,
    source: &Source,
    layout: &Layout,
    namespaces: Vec<Label>,
) -> Result<Listed, ClientError> {
    let (mut services, mut refused) = (Vec::new(), BTreeMap::new());
    let listed =
        pipelined(namespaces, |namespace| children(client.clone(), layout.namespace(namespace))).await?;
    for (namespace, listed) in listed {
        match listed {
            Ok(names) => {
                let paths = names.iter().map(|name| format!("{}/{name}", layout.namespace(&namespace)));
                services.extend(paths.filter_map(|path| service_at(source, path)));
            }
            Err(refusal) => drop(refused.insert(namespace, refusal)),
        }
    }
    Ok(Listed { services, refused, ..Listed::default() })
}

/// The service whose znode is at `path`, if the source shows one.
fn service_at(source: &Source, path: String) -> Option<(ServiceKey, String)> {
    match source.place(&path) {
        Some(Place::Service(service)) => Some((service, path)),
        Some(Place::Instance(..)) | None => {
            debug!(path, "skipped a name");
            None
        }
    }
}

/// The names of a znode's children, none when it is missing.
async fn list(client: &Client, path: String) -> Result<Vec<String>, ClientError> {
    match client.children(path).await {
        Ok((names, _)) => Ok(names),
        Err(error) if error.op_error() == Some(OpError::NoNode) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// As [`list`], or the server's refusal, which is not the same as having none.
async fn children(client: Client, path: String) -> Result<Result<Vec<String>, OpError>, ClientError> {
    match list(&client, path).await {
        Ok(names) => Ok(Ok(names)),
        Err(error) => match error.op_error() {
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

/// Reads for all `keys`, up to [`READS_MAX`] at once; the first error ends it. All in the task of the caller: what is asked for together
/// leaves together.
pub(super) async fn pipelined<K, T, F>(
    keys: impl IntoIterator<Item = K>,
    read: impl Fn(&K) -> F,
) -> Result<Vec<(K, T)>, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let (mut reads, mut done) = (FuturesUnordered::new(), Vec::new());
    let mut keys = keys.into_iter();
    loop {
        while let Some(key) = (reads.len() < READS_MAX).then(|| keys.next()).flatten() {
            let read = read(&key);
            reads.push(async move { read.await.map(|outcome| (key, outcome)) });
        }
        let Some(outcome) = reads.next().await else { return Ok(done) };
        done.push(outcome?);
    }
}
