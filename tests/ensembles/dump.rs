//! Reads everything that every member holds, at one moment.

use std::sync::Arc;
use std::time::Duration;

use rollcall::clock;

use crate::client::{Client, Server, Settings};
use crate::history::{Action, Aspect, Dump, Found, Node, Read};
use crate::recorder::Recorder;

/// How long members may take to come to one zxid.
const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
/// Znodes asked for in one go.
const BATCH: usize = 100;
/// Of those who look. It is long: nothing of what they look at depends on it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// Dumps each of `servers`, again and again until all show one zxid; the last attempt, if they never do.
pub(crate) async fn dump_all(servers: &[Server], recorder: &Recorder, round: u32) -> Vec<Dump> {
    // Those who look have sessions too, and opening them takes txns: all are opened before anything is read.
    let mut lookers: Vec<Client> = servers.iter().map(looker).collect();
    for (looker, server) in lookers.iter_mut().zip(servers) {
        let connected = tokio::time::timeout(LIMIT, looker.ensure_connected()).await;
        connected.unwrap_or_else(|_late| panic!("{} opened no session within {LIMIT:?}", server.name));
    }
    let deadline = clock::now() + LIMIT;
    loop {
        let mut dumps = Vec::new();
        for (looker, server) in lookers.iter_mut().zip(servers) {
            let attempt = tokio::time::timeout(LIMIT, dump(looker, server, recorder, round)).await;
            dumps.extend(attempt.ok().flatten());
        }
        let is_one_moment =
            dumps.len() == servers.len() && dumps.iter().all(|dump| dump.zxid == dumps[0].zxid);
        if is_one_moment || clock::now() > deadline {
            assert_eq!(dumps.len(), servers.len(), "a member could not be read within {LIMIT:?}");
            for looker in lookers {
                looker.close().await;
            }
            return dumps;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn looker(server: &Server) -> Client {
    let settings = Settings {
        servers: Arc::from([server.clone()]),
        session_timeout: SESSION_TIMEOUT,
        is_content_with_reading: false,
        // What they are told is no part of the run's history: it is what the history is held against.
        recorder: Recorder::new(),
    };
    Client::new(&format!("looker at {}", server.name), settings)
}

/// One attempt; `None` when the member moved on in the middle, or hung up.
async fn dump(looker: &mut Client, server: &Server, recorder: &Recorder, round: u32) -> Option<Dump> {
    let started = recorder.now();
    let zxid = looker.ask(Action::Sync).await?.zxid;
    let mut nodes = Vec::new();
    let mut paths = vec!["/".to_owned()];
    while !paths.is_empty() {
        let rest = paths.split_off(paths.len().min(BATCH));
        let aspects = [Aspect::Children, Aspect::Data, Aspect::Acl];
        let reads = paths.iter().flat_map(|path| aspects.map(|aspect| read(path, aspect)));
        let replies = looker.call(reads.collect()).await;
        let mut below = rest;
        for (path, replies) in paths.iter().zip(replies.chunks_exact(aspects.len())) {
            let [Some(children), Some(data), Some(acl)] = replies else { return None };
            if [children, data, acl].iter().any(|reply| reply.zxid != zxid) {
                return None;
            }
            let (Found::Children(names, _), Found::Data(value, stat), Found::Acl(acl, _)) =
                (&children.found, &data.found, &acl.found)
            else {
                return None;
            };
            let prefix = path.trim_end_matches('/');
            below.extend(names.iter().map(|name| format!("{prefix}/{name}")));
            nodes.push(Node { path: path.clone(), value: value.clone(), stat: *stat, acl: acl.clone() });
        }
        paths = below;
    }
    nodes.sort_by(|one, other| one.path.cmp(&other.path));
    Some(Dump { server: server.name.clone(), round, started, ended: recorder.now(), zxid, nodes })
}

fn read(path: &str, aspect: Aspect) -> Action {
    Action::Read(Read { path: path.to_owned(), aspect, watch: false, synced: None })
}
