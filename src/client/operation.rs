//! Requests and their answers as methods with typed values.
//!
//! Versions are `None` for any. Every method fails with a [`ClientError`] that names the operation and the path.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::connection::WatchSink;
use super::watch_table::ANY_WATCH;
use super::watcher::watcher;
use super::{Client, ClientError, OneShotWatch, Operation, Reply, Watcher};
use crate::wire::{CreateRequest, MultiOp, OpResult, Request, Response};
use crate::znode::{Acl, AddWatchMode, CreateMode, OpError, Stat};

impl Client {
    /// Creates a znode that everybody may change; returns its path, with the number of a sequential one.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn create(
        &self,
        path: impl Into<String>,
        data: impl Into<Bytes>,
        mode: CreateMode,
    ) -> Result<String, ClientError> {
        let request = Request::Create(CreateRequest::open(path, data, mode));
        self.ask(request, |response| if let Response::Path(path) = response { Some(path) } else { None })
            .await
    }

    /// Creates a znode with an ACL of its own, and returns its path and stat.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn create_with_acl(
        &self,
        path: impl Into<String>,
        data: impl Into<Bytes>,
        mode: CreateMode,
        acl: Vec<Acl>,
    ) -> Result<(String, Stat), ClientError> {
        let request = Request::Create2(CreateRequest { acl, ..CreateRequest::open(path, data, mode) });
        self.ask(request, |response| {
            if let Response::PathStat(path, stat) = response { Some((path, stat)) } else { None }
        })
        .await
    }

    /// Creates a persistent, empty znode and those above it, as far as they are not there.
    ///
    /// # Errors
    ///
    /// As [`Client::request`], but for [`OpError::NodeExists`].
    pub async fn create_all(&self, path: &str) -> Result<(), ClientError> {
        let ends = path.match_indices('/').map(|(end, _)| end).filter(|end| *end > 0).chain([path.len()]);
        for end in ends {
            let created = self.create(&path[..end], Bytes::new(), CreateMode::Persistent).await;
            match created {
                Ok(_) => {}
                Err(error) if error.op_error() == Some(OpError::NodeExists) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads a znode.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn get(&self, path: impl Into<String>) -> Result<(Option<Bytes>, Stat), ClientError> {
        self.ask(Request::GetData { path: path.into(), watch: false }, data).await
    }

    /// Reads a znode and watches it: once, for a change of its data or its deletion.
    ///
    /// # Errors
    ///
    /// As [`Client::request`]; then there is no watch.
    pub async fn get_watched(
        &self,
        path: impl Into<String>,
    ) -> Result<(Option<Bytes>, Stat, OneShotWatch), ClientError> {
        let (sink, watch) = one_shot();
        let request = Request::GetData { path: path.into(), watch: true };
        let (data, stat) = self.ask_watched(request, Some(sink), data).await?;
        Ok((data, stat, watch))
    }

    /// Overwrites a znode.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn set(
        &self,
        path: impl Into<String>,
        data: impl Into<Bytes>,
        version: Option<i32>,
    ) -> Result<Stat, ClientError> {
        let version = version.unwrap_or(ANY_VERSION);
        self.ask(Request::SetData { path: path.into(), data: Some(data.into()), version }, stat).await
    }

    /// Deletes a znode.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn delete(&self, path: impl Into<String>, version: Option<i32>) -> Result<(), ClientError> {
        let version = version.unwrap_or(ANY_VERSION);
        self.ask(Request::Delete { path: path.into(), version }, empty).await
    }

    /// Reads the stat of a znode, `None` when there is none.
    ///
    /// # Errors
    ///
    /// As [`Client::request`], but for [`OpError::NoNode`].
    pub async fn exists(&self, path: impl Into<String>) -> Result<Option<Stat>, ClientError> {
        none_if_missing(self.ask(Request::Exists { path: path.into(), watch: false }, stat).await)
    }

    /// Reads the stat of a znode and watches it: once, for its creation, a change of its data or its deletion.
    ///
    /// # Errors
    ///
    /// As [`Client::exists`]; then there is no watch.
    pub async fn exists_watched(
        &self,
        path: impl Into<String>,
    ) -> Result<(Option<Stat>, OneShotWatch), ClientError> {
        let (sink, watch) = one_shot();
        let request = Request::Exists { path: path.into(), watch: true };
        let stat = none_if_missing(self.ask_watched(request, Some(sink), stat).await)?;
        Ok((stat, watch))
    }

    /// Lists the names of a znode's children, in no order, and reads its stat.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn children(&self, path: impl Into<String>) -> Result<(Vec<String>, Stat), ClientError> {
        self.ask(Request::GetChildren2 { path: path.into(), watch: false }, children).await
    }

    /// Lists a znode's children and watches them: once, for one that comes or goes, or the znode's own deletion.
    ///
    /// # Errors
    ///
    /// As [`Client::request`]; then there is no watch.
    pub async fn children_watched(
        &self,
        path: impl Into<String>,
    ) -> Result<(Vec<String>, Stat, OneShotWatch), ClientError> {
        let (sink, watch) = one_shot();
        let request = Request::GetChildren2 { path: path.into(), watch: true };
        let (names, stat) = self.ask_watched(request, Some(sink), children).await?;
        Ok((names, stat, watch))
    }

    /// Reads a znode's ACL.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn get_acl(&self, path: impl Into<String>) -> Result<(Vec<Acl>, Stat), ClientError> {
        self.ask(Request::GetAcl { path: path.into() }, |response| {
            if let Response::Acl(acl, stat) = response { Some((acl, stat)) } else { None }
        })
        .await
    }

    /// Overwrites a znode's ACL; `version` is that of the ACL.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn set_acl(
        &self,
        path: impl Into<String>,
        acl: Vec<Acl>,
        version: Option<i32>,
    ) -> Result<Stat, ClientError> {
        let version = version.unwrap_or(ANY_VERSION);
        self.ask(Request::SetAcl { path: path.into(), acl, version }, stat).await
    }

    /// Carries out all operations or none.
    ///
    /// # Errors
    ///
    /// [`ClientError::Multi`] names the operation at fault; else as [`Client::request`].
    pub async fn multi(&self, ops: Vec<MultiOp>) -> Result<Vec<OpResult>, ClientError> {
        let operations: Vec<Operation> = ops.iter().map(Operation::of_part).collect();
        let results = self
            .ask(Request::Multi(ops), |response| {
                if let Response::Multi(results) = response { Some(results) } else { None }
            })
            .await?;
        match at_fault(&results) {
            None => Ok(results),
            Some((index, error)) => Err(ClientError::Multi {
                index,
                count: operations.len(),
                operation: operations.into_iter().nth(index).unwrap_or_else(Operation::multi),
                error,
            }),
        }
    }

    /// Waits until the server has caught up with the leader: reads that follow see every write before this call.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn sync(&self, path: impl Into<String>) -> Result<(), ClientError> {
        self.ask(Request::Sync { path: path.into() }, |response| {
            if let Response::Path(_) = response { Some(()) } else { None }
        })
        .await
    }

    /// Watches a path, or it and everything below, until the watcher is dropped. What is read after this returned,
    /// together with the watcher's notices, is complete.
    ///
    /// # Errors
    ///
    /// As [`Client::request`]; [`OpError::Unimplemented`] from servers before 3.6, which also hang up.
    pub async fn watch(&self, path: impl Into<String>, mode: AddWatchMode) -> Result<Watcher, ClientError> {
        let (sender, watcher) = watcher(self.shared.settings.watch_queue_max);
        let request = Request::AddWatch { path: path.into(), mode };
        self.ask_watched(request, Some(WatchSink::Lasting(sender)), |response| {
            if let Response::WatchAdded = response { Some(()) } else { None }
        })
        .await?;
        Ok(watcher)
    }

    /// Has `watcher` told of one more path, in the same order of events. What is told of the connection is told once, for all of them.
    ///
    /// # Errors
    ///
    /// As [`Client::watch`].
    pub async fn watch_also(
        &self,
        watcher: &Watcher,
        path: impl Into<String>,
        mode: AddWatchMode,
    ) -> Result<(), ClientError> {
        let sink = WatchSink::Lasting(watcher.one_more(self.shared.settings.watch_queue_max));
        let request = Request::AddWatch { path: path.into(), mode };
        self.ask_watched(request, Some(sink), |response| {
            if let Response::WatchAdded = response { Some(()) } else { None }
        })
        .await
    }

    /// Ends all watches of this client on a path; whoever waits for one hears nothing any more. That it fails needs no care: the client
    /// forgets them at once, and the server with the connection.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn unwatch(&self, path: impl Into<String>) -> Result<(), ClientError> {
        self.ask(Request::RemoveWatches { path: path.into(), kind: ANY_WATCH }, empty).await
    }

    async fn ask<T>(
        &self,
        request: Request,
        take: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, ClientError> {
        self.ask_watched(request, None, take).await
    }

    async fn ask_watched<T>(
        &self,
        request: Request,
        sink: Option<WatchSink>,
        take: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, ClientError> {
        let operation = Operation::of(&request);
        let Reply { response, .. } = self.submit(request, sink).await?;
        take(response).ok_or(ClientError::UnexpectedReply { operation })
    }
}

const ANY_VERSION: i32 = -1;

fn one_shot() -> (WatchSink, OneShotWatch) {
    let (sender, event) = oneshot::channel();
    (WatchSink::Once(sender), OneShotWatch { event })
}

fn data(response: Response) -> Option<(Option<Bytes>, Stat)> {
    if let Response::Data(data, stat) = response { Some((data, stat)) } else { None }
}

fn stat(response: Response) -> Option<Stat> {
    if let Response::Stat(stat) = response { Some(stat) } else { None }
}

fn children(response: Response) -> Option<(Vec<String>, Stat)> {
    if let Response::ChildrenStat(names, stat) = response { Some((names, stat)) } else { None }
}

fn empty(response: Response) -> Option<()> {
    if let Response::Empty = response { Some(()) } else { None }
}

fn none_if_missing(result: Result<Stat, ClientError>) -> Result<Option<Stat>, ClientError> {
    match result {
        Err(error) if error.op_error() == Some(OpError::NoNode) => Ok(None),
        other => other.map(Some),
    }
}

/// The operation of a failed multi that was at fault: the others were not carried out because of it.
fn at_fault(results: &[OpResult]) -> Option<(usize, OpError)> {
    let errors = results.iter().enumerate().filter_map(|(index, result)| {
        if let OpResult::Error(error) = result { error.map(|error| (index, error)) } else { None }
    });
    let is_cause = |(_, error): &(usize, OpError)| *error != OpError::RuntimeInconsistency;
    errors.clone().find(is_cause).or_else(|| errors.clone().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_at_fault_is_the_one_with_an_error_of_its_own() {
        let error = |error| OpResult::Error(error);
        let after = Some(OpError::RuntimeInconsistency);
        assert_eq!(
            at_fault(&[error(None), error(Some(OpError::NoNode)), error(after)]),
            Some((1, OpError::NoNode))
        );
        assert_eq!(at_fault(&[error(after)]), Some((0, OpError::RuntimeInconsistency)));
        assert_eq!(at_fault(&[OpResult::Delete, OpResult::Check]), None);
    }
}
