//! `rollcall zk`: znodes of any ZooKeeper-protocol ensemble.

use serde_json::json;

use super::arguments::{ZkArguments, ZkCommand};
use super::failure::Failure;
use super::output::{Format, note, print, printable, write};
use super::session::{self, failure, op_failure};
use crate::client::{Client, ClientError, WatchNotice};
use crate::config::timestamp;
use crate::id::Zxid;
use crate::znode::{AddWatchMode, CreateMode, EventKind, OpError, Stat, ZnodePath};
use crate::{clock, shutdown};

/// Carries out one command in a session of its own.
pub(super) async fn run(arguments: ZkArguments) -> Result<(), Failure> {
    let path = arguments.command.path();
    ZnodePath::parse(path)
        .map_err(|error| Failure::usage(format!("{error}; write a znode path such as /rollcall/services")))?;
    if path == "/" && matches!(arguments.command, ZkCommand::Delete { .. }) {
        // Before -R has deleted what it can.
        return Err(Failure::usage("the root / cannot be deleted; name what is below it"));
    }
    let client = session::open(&arguments.ensemble.server)?;
    let done = carry_out(&client, &arguments.command, &arguments.ensemble.server).await;
    session::close(client, done).await
}

async fn carry_out(client: &Client, command: &ZkCommand, servers: &str) -> Result<(), Failure> {
    let failed = |error: ClientError| failure(&error, servers);
    match command {
        ZkCommand::Ls { path, recursive: false } => {
            let (mut names, _) = client.children(path).await.map_err(failed)?;
            names.sort();
            names.iter().try_for_each(|name| print(&printable(name)))
        }
        ZkCommand::Ls { path, recursive: true } => {
            let paths = list_below(client, path).await.map_err(failed)?;
            paths.iter().try_for_each(|path| print(&printable(path)))
        }
        ZkCommand::Get { path, output } => {
            let (data, stat) = client.get(path).await.map_err(failed)?;
            match output.output {
                Format::Table => write(&data.unwrap_or_default(), true),
                Format::Json => {
                    let text = data.as_deref().map(String::from_utf8_lossy);
                    let is_text = data.as_deref().is_none_or(|data| std::str::from_utf8(data).is_ok());
                    let value =
                        json!({"path": path, "data": text, "is_text": is_text, "stat": stat_json(&stat)});
                    print(&format!("{value:#}"))
                }
            }
        }
        ZkCommand::Set { path, data, version } => {
            let stat = client.set(path, data.clone(), *version).await.map_err(failed)?;
            print(&format!("version {}", stat.version))
        }
        ZkCommand::Create { path, data, ephemeral, sequential } => {
            let mode = match (ephemeral, sequential) {
                (false, false) => CreateMode::Persistent,
                (true, false) => CreateMode::Ephemeral,
                (false, true) => CreateMode::PersistentSequential,
                (true, true) => CreateMode::EphemeralSequential,
            };
            let created = client.create(path, data.clone(), mode).await.map_err(failed)?;
            print(&created)?;
            if *ephemeral { hold(client, &created).await } else { Ok(()) }
        }
        ZkCommand::Delete { path, version, recursive: false } => {
            client.delete(path, *version).await.map_err(failed)
        }
        ZkCommand::Delete { path, recursive: true, .. } => delete_below(client, path).await.map_err(failed),
        ZkCommand::Stat { path, output } => {
            let stat = client.exists(path).await.map_err(failed)?;
            let stat = stat.ok_or_else(|| op_failure(&format!("stat {path}"), OpError::NoNode, servers))?;
            match output.output {
                Format::Table => print(&stat_text(&stat)),
                Format::Json => print(&format!("{:#}", stat_json(&stat))),
            }
        }
        ZkCommand::Watch { path, recursive } => watch(client, path, *recursive, servers).await,
    }
}

impl ZkCommand {
    fn path(&self) -> &str {
        match self {
            Self::Ls { path, .. }
            | Self::Get { path, .. }
            | Self::Set { path, .. }
            | Self::Create { path, .. }
            | Self::Delete { path, .. }
            | Self::Stat { path, .. }
            | Self::Watch { path, .. } => path,
        }
    }
}

/// Keeps an ephemeral's session until a signal comes.
async fn hold(client: &Client, path: &str) -> Result<(), Failure> {
    let stop = shutdown::on_signals().map_err(|error| Failure::failed(error.to_string()))?;
    note(&format!("{path} stays until this command ends; stop it with Ctrl-C"));
    let mut state = client.state();
    let generation = state.borrow().session().map(|(_, generation)| generation);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = state.changed() => {
                let session = state.borrow_and_update().session();
                let is_other = session.is_some_and(|(_, now)| Some(now) != generation);
                if changed.is_err() || is_other {
                    return Err(Failure::failed(format!("the session has expired, and {path} is gone; create it again")));
                }
            }
        }
    }
}

/// The path and everything below it, parents first, in the order of their names.
async fn list_below(client: &Client, path: &str) -> Result<Vec<String>, ClientError> {
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let names = match client.children(&path).await {
            Ok((names, _)) => names,
            // It went while others were listed.
            Err(error) if error.op_error() == Some(OpError::NoNode) && !found.is_empty() => continue,
            Err(error) => return Err(error),
        };
        let mut children: Vec<_> = names.iter().map(|name| child(&path, name)).collect();
        children.sort_by(|left, right| right.cmp(left));
        open.append(&mut children);
        found.push(path);
    }
    Ok(found)
}

async fn delete_below(client: &Client, path: &str) -> Result<(), ClientError> {
    let paths = list_below(client, path).await?;
    for path in paths.iter().rev() {
        match client.delete(path, None).await {
            Ok(()) => {}
            // Somebody else deleted it: it is gone, which was the wish.
            Err(error) if error.op_error() == Some(OpError::NoNode) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn child(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}

async fn watch(client: &Client, path: &str, recursive: bool, servers: &str) -> Result<(), Failure> {
    let mode = if recursive { AddWatchMode::PersistentRecursive } else { AddWatchMode::Persistent };
    let stop = shutdown::on_signals().map_err(|error| Failure::failed(error.to_string()))?;
    let mut watcher = client.watch(path, mode).await.map_err(|error| failure(&error, servers))?;
    note(&format!("watching {path}; stop with Ctrl-C"));
    loop {
        let notice = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            notice = watcher.recv() => notice,
        };
        match notice {
            None => return Err(Failure::failed(format!("the client is closed (at {servers})"))),
            Some(WatchNotice::Event { event, zxid, .. }) => {
                let kind = match event.kind {
                    EventKind::Created => "created",
                    EventKind::Deleted => "deleted",
                    EventKind::DataChanged => "data changed",
                    EventKind::ChildrenChanged => "children changed",
                };
                let zxid = if zxid == Zxid::NONE { String::new() } else { format!("  {zxid}") };
                print(&format!(
                    "{}  {kind:<16} {}{zxid}",
                    timestamp::text(clock::unix_ms()),
                    printable(&event.path)
                ))?;
            }
            Some(WatchNotice::Disconnected) => note("the connection is lost; reconnecting"),
            Some(WatchNotice::Resync(reason)) => {
                note(&format!("watching again ({reason:?}); changes may have been missed in between"));
            }
        }
    }
}

fn stat_text(stat: &Stat) -> String {
    let owner = stat.ephemeral_owner.to_string();
    let lines = [
        ("cZxid", stat.czxid.to_string()),
        ("ctime", timestamp::text(stat.ctime_ms)),
        ("mZxid", stat.mzxid.to_string()),
        ("mtime", timestamp::text(stat.mtime_ms)),
        ("pZxid", stat.pzxid.to_string()),
        ("cversion", stat.cversion.to_string()),
        ("dataVersion", stat.version.to_string()),
        ("aclVersion", stat.aversion.to_string()),
        ("ephemeralOwner", owner),
        ("dataLength", stat.data_length.to_string()),
        ("numChildren", stat.num_children.to_string()),
    ];
    // The layout of Apache's command line, which people's scripts know.
    lines.map(|(name, value)| format!("{name} = {value}")).join("\n")
}

fn stat_json(stat: &Stat) -> serde_json::Value {
    json!({
        "czxid": stat.czxid.to_string(),
        "ctime_ms": stat.ctime_ms,
        "mzxid": stat.mzxid.to_string(),
        "mtime_ms": stat.mtime_ms,
        "pzxid": stat.pzxid.to_string(),
        "cversion": stat.cversion,
        "version": stat.version,
        "aversion": stat.aversion,
        "ephemeral_owner": stat.ephemeral_owner.to_string(),
        "data_length": stat.data_length,
        "num_children": stat.num_children,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::EnsembleAddress;

    #[tokio::test]
    async fn the_root_is_not_deleted_piece_by_piece() {
        let command = ZkCommand::Delete { path: "/".to_owned(), version: None, recursive: true };
        let refused =
            run(ZkArguments { ensemble: EnsembleAddress { server: "127.0.0.1:1".to_owned() }, command })
                .await;
        assert!(matches!(refused, Err(Failure::Usage(_))), "{refused:?}");
    }

    #[test]
    fn children_of_the_root_have_one_slash() {
        assert_eq!((child("/", "a"), child("/a", "b")), ("/a".to_owned(), "/a/b".to_owned()));
    }
}
