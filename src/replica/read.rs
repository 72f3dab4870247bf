//! Reads, answered from the committed tree, and the watches that they leave.
//!
//! Source: `FinalRequestProcessor.java`, `DataTree.setWatches` of Apache ZooKeeper.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::ConnectionId;
use super::access;
use super::watch::{WatchKind, WatcherType, Watches};
use crate::tree::{NodeRef, Tree};
use crate::wire::{Request, Response, SetWatches};
use crate::zab::mutation::{self, Mutation};
use crate::znode::{EventKind, OpError, Permissions, WatchedEvent};

/// Answers a read of `connection`.
///
/// # Errors
///
/// What the client is to be told.
///
/// # Panics
///
/// When the request is a write, which never gets here.
pub(super) fn read(
    tree: &Tree,
    watches: &mut Watches,
    connection: ConnectionId,
    request: &Request,
) -> Result<Response, OpError> {
    match request {
        Request::Exists { path, watch } => {
            if path.contains('\0') {
                return Err(OpError::BadArguments);
            }
            if *watch {
                watches.add(connection, path, WatchKind::Data)?;
            }
            Ok(Response::Stat(find(tree, path)?.stat()))
        }
        Request::GetData { path, watch } => {
            let node = readable(tree, path)?;
            if *watch {
                watches.add(connection, path, WatchKind::Data)?;
            }
            Ok(Response::Data(node.data().map(Bytes::copy_from_slice), node.stat()))
        }
        Request::GetAcl { path } => {
            let node = find(tree, path)?;
            access::check(node.acl(), Permissions(Permissions::READ.0 | Permissions::ADMIN.0))?;
            Ok(Response::Acl(access::shown(node.acl()), node.stat()))
        }
        Request::GetChildren { path, watch } => {
            let (names, _) = children(tree, watches, connection, path, *watch)?;
            Ok(Response::Children(names))
        }
        Request::GetChildren2 { path, watch } => {
            let (names, node) = children(tree, watches, connection, path, *watch)?;
            Ok(Response::ChildrenStat(names, node.stat()))
        }
        Request::AddWatch { path, mode } => {
            watches.add(connection, path, (*mode).into())?;
            Ok(Response::WatchAdded)
        }
        Request::CheckWatches { path, kind } => {
            let which = WatcherType::from_code(*kind).ok_or(OpError::MarshallingError)?;
            if watches.has(connection, path, which) { Ok(Response::Empty) } else { Err(OpError::NoWatcher) }
        }
        Request::RemoveWatches { path, kind } => {
            let which = WatcherType::from_code(*kind).ok_or(OpError::MarshallingError)?;
            if watches.remove(connection, path, which) {
                Ok(Response::Empty)
            } else {
                Err(OpError::NoWatcher)
            }
        }
        Request::Ping => Ok(Response::Empty),
        Request::SetWatches(_)
        | Request::SetWatches2(_)
        | Request::Create(_)
        | Request::Create2(_)
        | Request::Delete { .. }
        | Request::SetData { .. }
        | Request::SetAcl { .. }
        | Request::Multi(_)
        | Request::Sync { .. }
        | Request::Auth { .. }
        | Request::CloseSession => unreachable!("only reads are answered from the tree"),
    }
}

/// Takes back the watches of a client that was away; returns what it missed, to be told before the reply.
///
/// # Errors
///
/// When they are more than one connection may have.
pub(super) fn set_watches(
    tree: &Tree,
    watches: &mut Watches,
    connection: ConnectionId,
    request: &SetWatches,
) -> Result<Vec<WatchedEvent>, OpError> {
    let mut missed = Vec::new();
    let mut deleted = BTreeSet::new();
    let mut miss = |kind, path: &String| missed.push(WatchedEvent { kind, path: path.clone() });
    for path in &request.data {
        match tree.node(path) {
            None => {
                deleted.insert(path);
                miss(EventKind::Deleted, path);
            }
            Some(node)
                if node.persisted().mzxid > request.relative_zxid && !mutation::is_on(Mutation::M19) =>
            {
                miss(EventKind::DataChanged, path)
            }
            Some(_) => watches.add(connection, path, WatchKind::Data)?,
        }
    }
    for path in &request.exist {
        match tree.node(path) {
            Some(_) => miss(EventKind::Created, path),
            None => watches.add(connection, path, WatchKind::Data)?,
        }
    }
    for path in &request.child {
        match tree.node(path) {
            // Who watched its data as well was told.
            None if deleted.contains(path) => {}
            None => miss(EventKind::Deleted, path),
            Some(node) if node.persisted().pzxid > request.relative_zxid => {
                miss(EventKind::ChildrenChanged, path)
            }
            Some(_) => watches.add(connection, path, WatchKind::Child)?,
        }
    }
    for path in &request.persistent {
        watches.add(connection, path, WatchKind::Persistent)?;
    }
    for path in &request.persistent_recursive {
        watches.add(connection, path, WatchKind::Recursive)?;
    }
    Ok(missed)
}

fn find<'a>(tree: &'a Tree, path: &str) -> Result<NodeRef<'a>, OpError> {
    tree.node(path).ok_or(OpError::NoNode)
}

fn readable<'a>(tree: &'a Tree, path: &str) -> Result<NodeRef<'a>, OpError> {
    let node = find(tree, path)?;
    access::check(node.acl(), Permissions::READ)?;
    Ok(node)
}

fn children<'a>(
    tree: &'a Tree,
    watches: &mut Watches,
    connection: ConnectionId,
    path: &str,
    watch: bool,
) -> Result<(Vec<String>, NodeRef<'a>), OpError> {
    let node = readable(tree, path)?;
    if node.children().map(str::len).sum::<usize>() > CHILDREN_BYTES_MAX {
        return Err(OpError::MarshallingError);
    }
    if watch {
        watches.add(connection, path, WatchKind::Child)?;
    }
    Ok((node.children().map(str::to_owned).collect(), node))
}

/// Bytes of names in one reply, far beyond what clients take; no frame can hold 2 GiB.
const CHILDREN_BYTES_MAX: usize = 256 << 20;
