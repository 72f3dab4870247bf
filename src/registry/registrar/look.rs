//! Looks at what is in the tree for one instance: its own record, and what it is written in beside it.

use super::foreign::{Foreign, ForeignPlan, FoundZnode, OwnSessions, plan_foreign};
use super::plan::Observed;
use crate::client::{Client, ClientError};
use crate::registry::formats::{ForeignZnode, FormatTarget};
use crate::registry::record::{Record, Status};
use crate::registry::registration::Registration;
use crate::znode::OpError;

/// Reads a znode that may not be there.
pub(super) async fn observe(client: &Client, path: &str) -> Result<Observed, ClientError> {
    match client.get(path).await {
        Ok((data, stat)) => Ok(Observed::Found { data, stat }),
        Err(error) if error.op_error() == Some(OpError::NoNode) => Ok(Observed::Missing),
        Err(error) => Err(error),
    }
}

/// Looks at every format of `registration`, and at those that it is not to be in any more, and decides about it; `record` is our
/// own, as it is or is about to be.
pub(super) async fn plan_formats(
    client: &Client,
    registration: &Registration,
    record: Option<&Record>,
    foreign: &Foreign,
    sessions: OwnSessions,
) -> Result<Vec<ForeignPlan>, ClientError> {
    let needs_search = foreign.needs_search(sessions);
    let is_wanted = record.is_some_and(Record::is_up);
    // What is not wanted is looked for all the same, by what it would say.
    let record = record.cloned().unwrap_or_else(|| registration.record(Status::Up, "", "", 0));
    let now = registration.formats.iter().map(|target| (target, is_wanted));
    let targets: Vec<_> = now.chain(foreign.former().iter().map(|target| (target, false))).collect();
    let mut plans = Vec::with_capacity(targets.len());
    for (index, (target, is_wanted)) in targets.into_iter().enumerate() {
        let znode = target.znode(&registration.id, &record);
        let found = if !znode.mode.is_sequential() {
            found_at(client, &[znode.path()]).await?
        } else {
            let mut found = found_at(client, foreign.paths(index)).await?;
            if needs_search {
                let known = foreign.paths(index);
                found.extend(search(client, target, &znode, known, &record, sessions).await?);
            }
            found
        };
        plans.push(plan_foreign(target.format(), &znode, is_wanted, found, sessions));
    }
    Ok(plans)
}

/// Creates what the formats of `registration` are written below: persistent, and without data, since readers such as
/// Prometheus take every znode with data for an instance.
pub(super) async fn create_parents(
    client: &Client,
    registration: &Registration,
    record: &Record,
) -> Result<(), ClientError> {
    if record.is_up() {
        for target in &registration.formats {
            client.create_all(&target.parent()).await?;
        }
    }
    Ok(())
}

async fn found_at(client: &Client, paths: &[String]) -> Result<Vec<FoundZnode>, ClientError> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        if let Observed::Found { data, stat } = observe(client, path).await? {
            found.push(FoundZnode { path: path.clone(), data, stat });
        }
    }
    Ok(found)
}

/// Reads every child beyond those that are known that may be ours. That is one read for each member of a serverset, and seldom necessary.
async fn search(
    client: &Client,
    target: &FormatTarget,
    znode: &ForeignZnode,
    known: &[String],
    record: &Record,
    sessions: OwnSessions,
) -> Result<Vec<FoundZnode>, ClientError> {
    let children = match client.children(znode.parent.as_str()).await {
        Ok((children, _)) => children,
        Err(error) if error.op_error() == Some(OpError::NoNode) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let named = children.iter().filter(|child| znode.is_named(child));
    let paths = named.map(|child| format!("{}/{child}", znode.parent));
    let paths: Vec<_> = paths.filter(|path| !known.contains(path)).collect();
    let mut found = found_at(client, &paths).await?;
    found.retain(|found| {
        sessions.contains(found.stat.ephemeral_owner)
            && target.is_of(record, &found.path, found.data.as_deref().unwrap_or_default())
    });
    Ok(found)
}
